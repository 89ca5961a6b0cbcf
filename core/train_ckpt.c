/* A checkpoint is complete or absent (atomic rename), says whose it is (config hash, seed), and holds nothing that differs between
 * two runs of the same thing: no time, host or path. Moments and EMAs are written under the parameters' names, in PyTorch's order. */
#include "core/train_ckpt.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/io/safetensors.h"
#include "core/train.h"

#define CKPT_FORMAT "ect-checkpoint-1"

/* ---- files of a directory ---------------------------------------------------------------------------------------------- */

static char *ckpt_path(const char *dir, int64_t step)
{
    return mem_printf("%s/step-%09lld.safetensors", dir, (long long)step);
}

static bool name_step(const char *name, int64_t *step)
{
    int len = 0;
    long long v;
    if (sscanf(name, "step-%lld.safetensors%n", &v, &len) != 1 || !len || name[len] || v < 0) return false;
    *step = v;
    return true;
}

static int newest_first(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

static err_t list_steps(const char *dir, int64_t **steps, int *n)
{
    *steps = NULL;
    *n = 0;
    DIR *d = opendir(dir);
    if (!d) return fail(ERR_IO, "open checkpoint directory %s: %s", dir, strerror(errno));
    for (struct dirent *e; (e = readdir(d));) {
        int64_t step;
        if (!name_step(e->d_name, &step)) continue;
        size_t used = (size_t)*n * sizeof(int64_t);
        *steps = mem_grow(*steps, used, used + sizeof(int64_t));
        (*steps)[(*n)++] = step;
    }
    closedir(d);
    if (*n) qsort(*steps, (size_t)*n, sizeof **steps, newest_first);
    return ERR_OK;
}

void ckpt_prune(const char *dir, const int64_t *keep, int nkeep)
{
    int64_t *steps;
    int n;
    if (list_steps(dir, &steps, &n)) return;
    for (int i = 2; i < n; i++) {
        bool kept = false;
        for (int j = 0; j < nkeep; j++) kept |= keep[j] == steps[i];
        if (kept) continue;
        char *path = ckpt_path(dir, steps[i]);
        unlink(path);
        mem_free(path);
    }
    mem_free(steps);
}

void ckpt_sweep(const char *dir)
{
    DIR *d = opendir(dir);
    if (!d) return;
    for (struct dirent *e; (e = readdir(d));) {
        if ((strncmp(e->d_name, "step-", 5) && strncmp(e->d_name, "ema-", 4)) ||
            !strstr(e->d_name, ".safetensors.tmp-"))
            continue;
        char *path = mem_printf("%s/%s", dir, e->d_name);
        unlink(path);
        mem_free(path);
    }
    closedir(d);
}

/* ---- writing ---------------------------------------------------------------------------------------------------------------- */

static void add_param(struct st_writer *w, const char *prefix, const struct param_info *info, const float *values)
{
    int64_t dims[4];
    for (int i = 0; i < info->ndim; i++) dims[i] = info->dims[i];
    char *name = mem_printf("%s%s", prefix, info->name);
    st_writer_add(w, name, ST_F32, info->ndim, dims, values);
    mem_free(name);
}

static void add_arena(struct st_writer *w, const struct train_state *s, const char *prefix, const float *arena,
                      float *tmp)
{
    for (int i = 0; i < graph_nparams(s->graph); i++) {
        const struct param_info *info = graph_param_info(s->graph, i);
        if (info->buffer) continue;
        arena_get(s->graph, s->kernels, s->dev, arena, i, tmp);
        add_param(w, prefix, info, tmp);
    }
}

static size_t largest_param(const struct graph *g)
{
    size_t most = 1;
    for (int i = 0; i < graph_nparams(g); i++) {
        size_t n = graph_param_info(g, i)->count;
        if (n > most) most = n;
    }
    return most;
}

static void add_meta(struct st_writer *w, const struct train_state *s)
{
    char num[NUM_TEXT];
    struct text emas = {0};
    struct {
        const char *key;
        long long v;
    } ints[] = {{"step", s->step}, {"nimg", s->step * s->batch}, {"micro_batch", s->rows}};
    st_writer_meta(w, "format", CKPT_FORMAT);
    st_writer_meta(w, "version", ECT_VERSION);
    for (size_t i = 0; i < ARRAY_LEN(ints) - (s->rows == s->batch); i++) {
        snprintf(num, sizeof num, "%lld", ints[i].v);
        st_writer_meta(w, ints[i].key, num);
    }
    snprintf(num, sizeof num, "%016llx", (unsigned long long)s->seed);
    st_writer_meta(w, "seed", num);
    st_writer_meta(w, "sigma_data", num_text(num, s->sigma_data));
    st_writer_meta(w, "spec", s->canon);
    st_writer_meta(w, "config_hash", s->hash);
    if (s->metric_sha) st_writer_meta(w, "metric_sha", s->metric_sha);
    for (int i = 0; i < s->nemas; i++) text_addf(&emas, "%s%s", i ? "," : "", s->ema_name[i]);
    st_writer_meta(w, "emas", text_str(&emas));
    text_done(&emas);
}

err_t ckpt_write_emas(const struct train_state *s, const char *dir)
{
    struct st_writer *w = st_writer_new();
    float *tmp = mem_array(largest_param(s->graph), sizeof(float));
    char *path = mem_printf("%s/ema-%09lld.safetensors", dir, (long long)s->step);
    add_meta(w, s);
    for (int i = 0; i < graph_nparams(s->graph); i++) {
        const struct param_info *info = graph_param_info(s->graph, i);
        if (!info->buffer) continue;
        params_get(s->weights, i, tmp);
        add_param(w, "", info, tmp);
    }
    for (int i = 0; i < s->nemas; i++) {
        char *prefix = mem_printf("ema.%s.", s->ema_name[i]);
        add_arena(w, s, prefix, s->ema[i], tmp);
        mem_free(prefix);
    }
    err_t err = st_writer_save(w, path);
    if (err) err = fail_in(err, "snapshot of EMAs of step %lld", (long long)s->step);
    st_writer_free(w);
    mem_free(path);
    mem_free(tmp);
    return err;
}

err_t ckpt_write(const struct train_state *s, const char *dir, char **path)
{
    struct st_writer *w = st_writer_new();
    float *tmp = mem_array(largest_param(s->graph), sizeof(float));
    int64_t n = s->ntotals;
    add_meta(w, s);
    for (int i = 0; i < graph_nparams(s->graph); i++) {
        params_get(s->weights, i, tmp);
        add_param(w, "", graph_param_info(s->graph, i), tmp); /* official names begin with "model." */
    }
    for (int i = 0; i < s->nemas; i++) {
        char *prefix = mem_printf("ema.%s.", s->ema_name[i]);
        add_arena(w, s, prefix, s->ema[i], tmp);
        mem_free(prefix);
    }
    if (s->averaged) add_arena(w, s, "teacher.ema.", params_arena(s->averaged), tmp);
    if (s->frozen) add_arena(w, s, "teacher.frozen.", params_arena(s->frozen), tmp);
    add_arena(w, s, "optim.m.", s->m, tmp);
    add_arena(w, s, "optim.v.", s->v, tmp);
    st_writer_add(w, "state.totals", ST_F64, 1, &n, s->totals);
    n = s->nscaler;
    if (s->scaler) st_writer_add(w, "state.scaler", ST_F64, 1, &n, s->scaler);
    *path = ckpt_path(dir, s->step);
    err_t err = st_writer_save(w, *path);
    st_writer_free(w);
    mem_free(tmp);
    if (err) {
        err = fail_in(err, "checkpoint of step %lld", (long long)s->step);
        mem_free(*path);
        *path = NULL;
    }
    return err;
}

/* ---- reading ------------------------------------------------------------------------------------------------------------------- */

static err_t read_param(const struct st_file *f, const char *prefix, const struct param_info *info, float *out)
{
    char *name = mem_printf("%s%s", prefix, info->name);
    const struct st_tensor *t = st_find(f, name);
    err_t err = ERR_OK;
    bool same = t && t->ndim == info->ndim;
    for (int i = 0; same && i < info->ndim; i++) same = t->dims[i] == info->dims[i];
    if (!t) {
        err = fail(ERR_FORMAT, "no tensor %s", name);
    } else if (!same) {
        err = fail(ERR_FORMAT, "tensor %s has another shape than the network's", name);
    } else {
        err = st_read_f32(t, out, info->count);
    }
    mem_free(name);
    return err;
}

static err_t read_arena(const struct st_file *f, const struct train_state *s, const char *prefix, float *arena,
                        float *tmp)
{
    for (int i = 0; i < graph_nparams(s->graph); i++) {
        const struct param_info *info = graph_param_info(s->graph, i);
        if (info->buffer) continue;
        TRY(read_param(f, prefix, info, tmp));
        arena_set(s->graph, s->kernels, s->dev, arena, i, tmp);
    }
    return ERR_OK;
}

static err_t read_params(const struct st_file *f, const struct graph *g, const char *prefix, struct params *p,
                         float *tmp)
{
    for (int i = 0; i < graph_nparams(g); i++) {
        const struct param_info *info = graph_param_info(g, i);
        TRY(read_param(f, info->buffer ? "" : prefix, info, tmp));
        params_set(p, i, tmp);
    }
    params_changed(p);
    return ERR_OK;
}

static bool meta_is(const struct st_file *f, const char *key, const char *want)
{
    const char *v = st_meta(f, key);
    return v && !strcmp(v, want);
}

/* A teacher's parameters; its buffers are those of the weights, which are read before. */
static err_t read_teacher(const struct st_file *f, const struct train_state *s, const char *prefix, struct params *p,
                          float *tmp)
{
    if (!p) return ERR_OK;
    params_copy(p, s->weights);
    TRY(read_arena(f, s, prefix, params_arena(p), tmp));
    params_changed(p);
    return ERR_OK;
}

static err_t load_state(const struct st_file *f, struct train_state *s, float *tmp)
{
    const struct st_tensor *totals = st_find(f, "state.totals");
    if (!totals || !st_meta(f, "step") || !int_parse(st_meta(f, "step"), &s->step))
        return fail(ERR_FORMAT, "no counters in it");
    TRY(read_params(f, s->graph, "", s->weights, tmp));
    for (int i = 0; i < s->nemas; i++) {
        char *prefix = mem_printf("ema.%s.", s->ema_name[i]);
        err_t err = read_arena(f, s, prefix, s->ema[i], tmp);
        mem_free(prefix);
        TRY(err);
    }
    TRY(read_teacher(f, s, "teacher.ema.", s->averaged, tmp));
    TRY(read_teacher(f, s, "teacher.frozen.", s->frozen, tmp));
    TRY(read_arena(f, s, "optim.m.", s->m, tmp));
    TRY(read_arena(f, s, "optim.v.", s->v, tmp));
    TRY(st_read_f64(totals, s->totals, (size_t)s->ntotals));
    if (!s->scaler) return ERR_OK;
    const struct st_tensor *scaler = st_find(f, "state.scaler");
    if (!scaler) return fail(ERR_FORMAT, "no state of the loss scale in it");
    return st_read_f64(scaler, s->scaler, (size_t)s->nscaler);
}

/* Sums over other micro-batches round otherwise: what follows differs in the last digits from a run without the change. */
static void notice_rows(const struct st_file *f, const struct train_state *s)
{
    const char *text = st_meta(f, "micro_batch");
    int64_t rows = s->batch;
    if ((text && !int_parse(text, &rows)) || rows == s->rows) return;
    log_warn("micro_batch was %lld and is %lld now: the rest of this run will differ in rounding from one that kept it",
             (long long)rows, (long long)s->rows);
}

/* *foreign: the file is whole but belongs to something else. */
static err_t load_file(const char *path, struct train_state *s, bool *foreign)
{
    struct st_file *f = NULL;
    char seed[NUM_TEXT];
    float *tmp = NULL;
    err_t err = st_open(&f, path);
    if (err) return err;
    snprintf(seed, sizeof seed, "%016llx", (unsigned long long)s->seed);
    *foreign = !meta_is(f, "format", CKPT_FORMAT) || !meta_is(f, "config_hash", s->hash) || !meta_is(f, "seed", seed);
    bool same_metric = !s->metric_sha || meta_is(f, "metric_sha", s->metric_sha);
    if (*foreign) {
        err = fail(ERR_FORMAT, "%s is a checkpoint of another configuration or seed", path);
    } else if (!same_metric) {
        *foreign = true;
        err =
            fail(ERR_FORMAT,
                 "%s was trained with other weights of the metric than those installed now: put the old ones back, or "
                 "start again with its directory moved away",
                 path);
    } else {
        tmp = mem_array(largest_param(s->graph), sizeof(float));
        err = load_state(f, s, tmp);
        if (err) err = fail_in(err, "%s", path);
        else notice_rows(f, s);
    }
    mem_free(tmp);
    st_close(f);
    return err;
}

err_t ckpt_resume(struct train_state *s, const char *dir, bool *found)
{
    int64_t *steps;
    int n;
    err_t err = ERR_OK;
    *found = false;
    TRY(list_steps(dir, &steps, &n));
    for (int i = 0; i < n && !*found; i++) {
        bool foreign = false;
        char *path = ckpt_path(dir, steps[i]);
        err = load_file(path, s, &foreign);
        mem_free(path);
        if (foreign) break;
        *found = !err;
        if (err) log_warn("%s; going back to the checkpoint before it", err_text());
        err = ERR_OK;
    }
    if (!*found) s->step = 0;
    mem_free(steps);
    return err;
}

err_t train_load_weights(const char *path, const char *weights, struct params *p, const struct graph *g)
{
    struct st_file *f = NULL;
    bool raw = !strcmp(weights, "raw");
    err_t err = st_open(&f, path);
    if (err) return err;
    char *prefix = raw ? mem_strdup("") : mem_printf("ema.%s.", weights), *list = NULL;
    float *tmp = mem_array(largest_param(g), sizeof(float));
    const char *emas = st_meta(f, "emas");
    list = mem_printf(",%s,", emas ? emas : "");
    char *word = mem_printf(",%s,", weights);
    if (!raw && !strstr(list, word)) {
        err = fail(ERR_NOT_FOUND, "%s has no weights '%s': it has raw%s%s", path, weights, emas && emas[0] ? "," : "",
                   emas ? emas : "");
    } else {
        err = read_params(f, g, prefix, p, tmp);
        if (err) err = fail_in(err, "%s", path);
    }
    mem_free(word);
    mem_free(list);
    mem_free(prefix);
    mem_free(tmp);
    st_close(f);
    return err;
}

err_t train_find_checkpoint(const char *dir, int64_t step, char **path, int64_t *found)
{
    int64_t *steps;
    int n;
    *path = NULL;
    TRY(list_steps(dir, &steps, &n));
    for (int i = 0; i < n && !*path; i++) {
        struct st_file *f = NULL;
        if (step >= 0 && steps[i] != step) continue;
        char *candidate = ckpt_path(dir, steps[i]);
        if (st_open(&f, candidate)) {
            log_warn("%s", err_text());
            mem_free(candidate);
            continue;
        }
        st_close(f);
        *path = candidate;
        if (found) *found = steps[i];
    }
    mem_free(steps);
    if (*path) return ERR_OK;
    if (step >= 0) return fail(ERR_NOT_FOUND, "no readable checkpoint of step %lld in %s", (long long)step, dir);
    return fail(ERR_NOT_FOUND, "no readable checkpoint in %s", dir);
}
