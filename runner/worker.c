#include "runner/worker.h"
#include "db/query.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/target.h"
#include "core/train.h"
#include "kernels/kernels.h"
#include "runner/evals.h"
#include "runner/machine.h"
#include "runner/pictures.h"

enum { POINTS = 1024, FLUSH_MS = 700, TELL_MS = 150, KEEP_STEPS = 64, KEY_TEXT = 48 };

struct worker {
    const struct worker_opts *o;
    struct lab lab;
    struct script *script;
    const struct script_cell *cell;
    struct design design;
    struct dataset *data;
    const struct kernels *kernels;
    struct kdev *dev;
    struct ledger_run row;
    int lock;
    int64_t token;
    char *dir, *ckpt; /* the run's directory, and its checkpoints' */
    bool segment_open;
    int64_t keep[KEEP_STEPS];
    int nkeep;
    struct train_result result;
    /* metric points not yet in the ledger; keys are copied because the trainer reuses its own */
    struct ledger_point points[POINTS];
    char keys[POINTS][KEY_TEXT];
    int npoints;
    int64_t flushed_ms, told_ms;
    err_t failed; /* first failure inside a callback, and its text */
    char *failed_text;
};

static volatile sig_atomic_t stop_asked;

static void on_signal(int sig)
{
    (void)sig;
    stop_asked = 1;
}

static void tell(struct worker *w, const char *fmt, ...) PRINTF(2, 3);
static void tell(struct worker *w, const char *fmt, ...)
{
    char line[1024];
    va_list ap;
    if (w->o->pipe < 0) return;
    va_start(ap, fmt);
    int n = vsnprintf(line, sizeof line - 1, fmt, ap);
    va_end(ap);
    if (n < 0) return;
    if (n > (int)sizeof line - 2) n = (int)sizeof line - 2;
    for (int i = 0; i < n; i++)
        if (line[i] == '\n') line[i] = ' ';
    line[n++] = '\n';
    /* one write below PIPE_BUF is one piece; a full pipe loses a progress line, never blocks training */
    if (write(w->o->pipe, line, (size_t)n) < 0 && errno == EPIPE) stop_asked = 1;
}

static int64_t now_ms(void)
{
    return host.mono_ns() / 1000000;
}

/* ---- the trainer's observer ------------------------------------------------------------------------------------------- */

static void callback_failed(struct worker *w, err_t err)
{
    if (!err || w->failed) return;
    w->failed = err;
    w->failed_text = mem_strdup(err_text());
}

static void flush_points(struct worker *w)
{
    if (w->npoints && !w->failed)
        callback_failed(w, ledger_points(w->lab.ledger, w->row.id, w->token, w->points, w->npoints));
    w->npoints = 0;
    w->flushed_ms = now_ms();
}

static void on_metric(void *ctx, const char *key, int64_t step, double value)
{
    struct worker *w = ctx;
    if (w->npoints == POINTS) flush_points(w);
    struct ledger_point *p = &w->points[w->npoints];
    snprintf(w->keys[w->npoints], KEY_TEXT, "%s", key);
    *p = (struct ledger_point){.key = w->keys[w->npoints], .step = step, .value = value};
    w->npoints++;
}

static void on_progress(void *ctx, int64_t step, int64_t iters, double images_per_s, double loss)
{
    struct worker *w = ctx;
    int64_t now = now_ms();
    if (now - w->flushed_ms >= FLUSH_MS && !w->failed) {
        struct ledger_progress p = {step, w->result.nimg, w->result.flops_executed, w->result.seconds, images_per_s};
        flush_points(w);
        callback_failed(w, ledger_progress(w->lab.ledger, w->row.id, w->token, &p));
    }
    if (now - w->told_ms < TELL_MS && step < iters) return;
    w->told_ms = now;
    tell(w, "progress %lld %lld %.1f %.6g", (long long)step, (long long)iters, images_per_s, loss);
}

/* A segment is written when the trainer has found its checkpoint and before its first step. */
static void open_segment(struct worker *w)
{
    if (w->segment_open) return;
    w->segment_open = true;
    callback_failed(w, ledger_segment(w->lab.ledger, w->row.id, w->token, w->result.first_step));
}

static err_t on_saving(void *ctx, int64_t step)
{
    struct worker *w = ctx;
    (void)step;
    open_segment(w);
    flush_points(w);
    return w->failed ? fail(w->failed, "%s", w->failed_text) : ERR_OK;
}

/* Names separated by ", ": how many, and the first of them. */
static int first_names(const char *list, char *buf, size_t n)
{
    enum { SHOWN = 3 };
    int count = *list != '\0';
    size_t len = strlen(list), end = len;
    for (const char *at = list; (at = strstr(at, ", ")); at += 2)
        if (count++ == SHOWN) end = (size_t)(at - list);
    snprintf(buf, n, "%.*s%s", (int)end, list, end < len ? ", ..." : "");
    return count;
}

/* Starting weights that fit in part are used, and whoever waits at the terminal should know. */
static void warn_init(struct worker *w, const char *key, const char *list)
{
    char names[512];
    int n = first_names(list, names, sizeof names);
    if (n && !strcmp(key, "init.dropped"))
        tell(w, "warn starting weights: %d tensor%s of the file dropped, the network has no place for %s: %s", n,
             n == 1 ? "" : "s", n == 1 ? "it" : "them", names);
    if (n && !strcmp(key, "init.missing"))
        tell(w, "warn starting weights: %d tensor%s of the network missing in the file, drawn at random: %s", n,
             n == 1 ? "" : "s", names);
}

static void on_note(void *ctx, const char *key, const char *text)
{
    struct worker *w = ctx;
    warn_init(w, key, text);
    err_t err = ledger_begin(w->lab.ledger);
    if (!err) {
        err = ledger_provenance(w->lab.ledger, w->row.id, key, text);
        if (!err) err = ledger_commit(w->lab.ledger);
        else ledger_rollback(w->lab.ledger);
    }
    callback_failed(w, err);
}

static err_t on_checkpoint(void *ctx, int64_t step, const char *path)
{
    struct worker *w = ctx;
    char sha[SHA256_TEXT];
    bool keep = step == w->cell->spec.iters;
    for (int i = 0; i < w->nkeep; i++) keep |= w->keep[i] == step;
    TRY(sha256_file(path, sha));
    const char *name = strrchr(path, '/');
    char *file = mem_printf("ckpt/%s", name ? name + 1 : path);
    err_t err = ledger_checkpoint_note(w->lab.ledger, w->row.id, w->token, step, file, sha, keep);
    mem_free(file);
    return err;
}

static bool asked_to_stop(void *ctx)
{
    struct worker *w = ctx;
    if (w->o->pid_above && getppid() != w->o->pid_above) stop_asked = 1;
    return stop_asked || w->failed;
}

static bool on_stop(void *ctx)
{
    open_segment(ctx);
    return asked_to_stop(ctx);
}

/* ---- setting up ---------------------------------------------------------------------------------------------------------- */

/* The --set lines that were in force, back as an array into *text. */
static int split_lines(char *text, const char **lines, int cap)
{
    int n = 0;
    char *save = NULL;
    for (char *s = strtok_r(text, "\n", &save); s && n < cap; s = strtok_r(NULL, "\n", &save)) lines[n++] = s;
    return n;
}

static err_t open_script(struct worker *w)
{
    struct table t = {0};
    const char *sets[256];
    char *text = NULL, *lines = NULL;
    size_t n;
    err_t err =
        query(w->lab.ledger, &t, "SELECT script_sha, script_name, sets FROM sweep WHERE n = ?", "i", w->o->sweep);
    if (err) return err;
    if (!t.nrows) {
        table_done(&t);
        return fail(ERR_NOT_FOUND, "no sweep %lld in %s", (long long)w->o->sweep, w->o->ledger);
    }
    TRYD(ledger_get_blob(w->lab.ledger, table_at(&t, 0, 0)->text, &text, &n));
    lines = mem_strdup(table_at(&t, 0, 2)->text);
    int nsets = split_lines(lines, sets, ARRAY_LEN(sets));
    TRYD(script_open(&w->script, table_at(&t, 0, 1)->text, text, sets, nsets, &w->lab.host));
    int cell = script_find_cell(w->script, w->row.config_hash);
    if (cell < 0) {
        err = fail(ERR_FAILED,
                   "the stored script %s no longer gives configuration %.12s: was it made by another version of ect?",
                   table_at(&t, 0, 1)->text, w->row.config_hash);
        goto done;
    }
    w->cell = script_cell_at(w->script, cell);
    TRYD(script_design(w->script, cell, &w->design));
done:
    mem_free(text);
    mem_free(lines);
    table_done(&t);
    return err;
}

static err_t open_device(struct worker *w, const char *device)
{
    TRY(kernels_find(device, &w->kernels));
    return w->kernels->open(&w->dev, device, w->o->threads);
}

static err_t note(struct worker *w, const char *key, const char *value)
{
    return ledger_provenance(w->lab.ledger, w->row.id, key, value);
}

static err_t write_provenance(struct worker *w, const char *device)
{
    char binary[SHA256_TEXT], cpu[256], isa[256], num[NUM_TEXT];
    err_t err = sha256_file("/proc/self/exe", binary);
    if (err) snprintf(binary, sizeof binary, "unknown");
    machine_cpu(cpu, sizeof cpu);
    machine_isa(isa, sizeof isa);
    TRY(ledger_begin(w->lab.ledger));
    const char *const pairs[][2] = {{"ect.version", ECT_VERSION},
                                    {"binary.sha", binary},
                                    {"git.revision", w->o->git_revision},
                                    {"git.diff.sha", w->o->git_diff},
                                    {"cpu", cpu},
                                    {"isa", isa},
                                    {"threads", num_text(num, w->o->threads)},
                                    {"device", device},
                                    {"device.libraries", w->kernels->describe(w->dev)},
                                    {"sqlite", ledger_library()},
                                    {"lua", script_library()},
                                    {"data", w->data->name},
                                    {"data.sha", w->data->sha},
                                    {"host", host.hostname()}};
    for (size_t i = 0; i < ARRAY_LEN(pairs) && !err; i++) err = note(w, pairs[i][0], pairs[i][1]);
    if (!err) err = ledger_commit(w->lab.ledger);
    else ledger_rollback(w->lab.ledger);
    return err;
}

/* The device of the first attempt, so that a resumed run gives the same bytes; else what was asked for, else the setting. */
static const char *device_of(const struct worker *w)
{
    if (w->row.attempt > 0 && w->row.device && *w->row.device) return w->row.device;
    return w->o->device && *w->o->device ? w->o->device : w->cell->spec.device.s;
}

/* ---- training -------------------------------------------------------------------------------------------------------------- */

static err_t find_init(struct worker *w, char **path)
{
    *path = NULL;
    if (w->cell->init_path) {
        *path = mem_strdup(w->cell->init_path);
        return ERR_OK;
    }
    if (strcmp(w->cell->spec.init_weights.s, "auto"))
        return fail(ERR_USAGE, "init.weights = %s: it chooses among the weights of a file, and init is none",
                    w->cell->spec.init_weights.s);
    if (w->cell->parent < 0) return ERR_OK;
    char id[RUN_ID_TEXT];
    int64_t at;
    const struct script_cell *up = script_cell_at(w->script, w->cell->parent);
    ledger_run_id(up->hash, w->row.replicate, id);
    char *dir = ledger_run_dir(w->lab.ledger, id), *ckpt = mem_printf("%s/ckpt", dir);
    err_t err = train_find_checkpoint(ckpt, up->spec.iters, path, &at);
    mem_free(ckpt);
    mem_free(dir);
    return err ? fail_in(err, "starting weights: run %s (%s, replicate %d)", id, up->sweep, w->row.replicate) : ERR_OK;
}

static err_t train(struct worker *w)
{
    char *init = NULL;
    err_t err = find_init(w, &init);
    if (err) return err;
    struct observer watch = {.ctx = w,
                             .metric = on_metric,
                             .progress = on_progress,
                             .saving = on_saving,
                             .checkpoint = on_checkpoint,
                             .note = on_note,
                             .stop = on_stop};
    struct train_config c = {.spec = &w->cell->spec,
                             .design = &w->design,
                             .data = w->data,
                             .kernels = w->kernels,
                             .dev = w->dev,
                             .seed = w->row.seed,
                             .ckpt_dir = w->ckpt,
                             .init_path = init,
                             .init_weights =
                                 w->cell->init_path ? w->cell->spec.init_weights.s : w->cell->parent_weights,
                             .init_foreign = w->cell->init_path != NULL,
                             .keep = w->keep,
                             .nkeep = w->nkeep,
                             .observer = &watch};
    tell(w, "phase train");
    w->flushed_ms = now_ms();
    err = train_run(&c, &w->result);
    mem_free(init);
    char *text = err ? mem_strdup(err_text()) : NULL;
    flush_points(w);
    if (w->failed && (!err || err == ERR_INTERRUPTED)) err = fail(w->failed, "%s", w->failed_text);
    else if (err) err = fail(err, "%s", text);
    mem_free(text);
    return err;
}

static enum run_status status_of(err_t err)
{
    switch (err) {
    case ERR_OK: return RUN_DONE;
    case ERR_DIVERGED: return RUN_DIVERGED;
    case ERR_INTERRUPTED: return RUN_INTERRUPTED;
    default: return RUN_FAILED;
    }
}

/* Ends the attempt in the ledger whatever happened; the first failure is what is returned. */
static err_t finish(struct worker *w, err_t err)
{
    char *text = err ? mem_strdup(err_text()) : NULL;
    char *reason =
        mem_printf("%.*s", text ? (int)strcspn(text, "\n") : 0, text ? text : ""); /* a traceback is in the log */
    struct ledger_outcome out = {.status = status_of(err),
                                 .reason = reason,
                                 .step = w->result.steps,
                                 .nimg = w->result.nimg,
                                 .flops_executed = w->result.flops_executed,
                                 .seconds = w->result.seconds,
                                 .images_per_s = w->result.images_per_s,
                                 .exit_code = err_exit_code(err)};
    err_t end = err == ERR_STALE ? ERR_OK : ledger_finish(w->lab.ledger, w->row.id, w->token, &out);
    if (err) end = fail(err, "%s", text);
    mem_free(reason);
    mem_free(text);
    return end;
}

static err_t claim_and_train(struct worker *w, const char *device)
{
    struct ledger_claim c = {.device = device,
                             .threads = w->o->threads,
                             .host = host.hostname(),
                             .boot_id = host.boot_id(),
                             .pid = getpid()};
    TRY(ledger_claim(w->lab.ledger, w->row.id, &c, &w->token));
    if (!w->token) return fail(ERR_STALE, "run %s is being done by another process", w->row.id);
    w->result.steps = w->row.step; /* what stands if training does not even begin */
    err_t err = write_provenance(w, device);
    if (!err) err = train(w);
    return finish(w, err);
}

/* ---- evaluation ------------------------------------------------------------------------------------------------------------ */

static void on_eval(void *ctx, int done, int total)
{
    tell(ctx, "eval %d %d", done, total);
}

static err_t evaluate_list(struct worker *w, struct eval_list *all, struct eval_list *missing)
{
    struct sampling s;
    struct eval_watch watch = {.ctx = w, .stop = asked_to_stop, .told = on_eval};
    bool pictures = w->row.replicate == 1 && (missing->n || pictures_missing(w->lab.ledger, w->row.id, w->cell));
    bool controls = controls_missing(w->lab.ledger, w->data, all);
    if (!missing->n && !pictures && !controls) return ERR_OK;
    tell(w, "phase eval");
    TRY(sampling_open(&s, &w->cell->spec, w->data, w->kernels, w->dev));
    err_t err = evals_run(&w->lab, &s, w->row.id, missing, &watch);
    if (err == ERR_NOT_FOUND) {
        log_warn("not evaluated: %s", err_text());
        err = ERR_OK;
    }
    if (!err && controls) err = controls_run(&w->lab, s.eval, w->data, all);
    if (!err && pictures) {
        tell(w, "phase pictures");
        err = pictures_run(&w->lab, &s, w->row.id, w->ckpt, w->cell);
    }
    sampling_close(&s);
    return err;
}

static err_t evaluate(struct worker *w)
{
    struct eval_list all = {.n = 0}, missing = {.n = 0};
    const struct target *target = target_find(w->cell->spec.target.s);
    if (target && target->classifies) return ERR_OK; /* nothing is sampled from a classifier */
    err_t err = eval_list_of(&all, w->script, w->cell->hash, w->data);
    if (!err) err = eval_list_of(&missing, w->script, w->cell->hash, w->data);
    if (!err) {
        eval_list_missing(&missing, w->lab.ledger, w->row.id);
        err = evaluate_list(w, &all, &missing);
    }
    eval_list_done(&all);
    eval_list_done(&missing);
    return err && err != ERR_INTERRUPTED ? fail_in(err, "evaluation") : err;
}

/* ---- one run ------------------------------------------------------------------------------------------------------------------ */

static err_t work(struct worker *w)
{
    struct ledger *l = NULL;
    struct eval_list evals = {.n = 0};
    TRY(ledger_open(&l, w->o->ledger, LEDGER_WRITE));
    lab_init(&w->lab, l);
    TRY(ledger_run_lock(l, w->o->run, &w->lock));
    TRY(ledger_get_run(l, w->o->run, &w->row));
    TRY(open_script(w));
    TRY(lab_data_of_run(&w->lab, w->cell->spec.data.s, w->row.id, &w->data));
    w->dir = ledger_run_dir(l, w->row.id);
    w->ckpt = mem_printf("%s/ckpt", w->dir);
    TRY(dir_make(w->ckpt));
    TRY(eval_list_of(&evals, w->script, w->cell->hash, w->data));
    w->nkeep = eval_list_steps(&evals, w->keep, KEEP_STEPS);
    eval_list_done(&evals);
    char *device = mem_strdup(device_of(w));
    err_t err = open_device(w, device);
    if (!err && w->row.status != RUN_DONE) err = claim_and_train(w, device);
    if (!err) err = evaluate(w);
    mem_free(device);
    return err;
}

static void watch_signals(const struct worker_opts *o)
{
    struct sigaction a = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &a, NULL);
    sigaction(SIGINT, &a, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    if (o->pipe >= 0) fcntl(o->pipe, F_SETFL, O_NONBLOCK);
}

err_t worker_run(const struct worker_opts *o)
{
    struct worker *w = mem_alloc(sizeof *w);
    w->o = o;
    w->lock = -1;
    watch_signals(o);
    err_t err = work(w);
    char *text = err ? mem_strdup(err_text()) : NULL;
    if (err) tell(w, "error %.*s", (int)strcspn(text, "\n"), text);
    if (w->dev) w->kernels->close(w->dev);
    if (w->script) script_close(w->script);
    ledger_run_done(&w->row);
    lab_done(&w->lab);
    if (w->lock >= 0) close(w->lock);
    mem_free(w->dir);
    mem_free(w->ckpt);
    mem_free(w->failed_text);
    mem_free(w);
    if (err) err = fail(err, "%s", text);
    mem_free(text);
    return err;
}
