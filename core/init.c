/* A file may hold the same network several times: trained weights, averages, moments of the optimiser. Every way to read one tensor's name
 * as PREFIX + parameter is a vote for that prefix; the prefix with most votes is the network. */
#include "core/init.h"

#include <stdlib.h>
#include <string.h>

#include "core/io/tensors.h"

enum { SETS_MOST = 64 };

struct names { /* the network's, sorted; each in full and without its first component */
    const struct graph *g;
    int n;
    const struct param_info **full, **bare;
};

struct weight_set {
    char prefix[256];
    bool bare; /* names lack the network's first component */
    int votes;
};

struct search {
    const struct tensors *f;
    struct names names;
    struct weight_set sets[SETS_MOST];
    int nsets;
};

static const char *bare_name(const char *full)
{
    const char *dot = strchr(full, '.');
    return dot ? dot + 1 : full;
}

static int by_full(const void *pa, const void *pb)
{
    return strcmp((*(const struct param_info *const *)pa)->name, (*(const struct param_info *const *)pb)->name);
}

static int by_bare(const void *pa, const void *pb)
{
    return strcmp(bare_name((*(const struct param_info *const *)pa)->name),
                  bare_name((*(const struct param_info *const *)pb)->name));
}

static void names_init(struct names *t, const struct graph *g)
{
    *t = (struct names){.g = g, .n = graph_nparams(g)};
    t->full = mem_array((size_t)t->n + 1, sizeof(void *));
    t->bare = mem_array((size_t)t->n + 1, sizeof(void *));
    for (int i = 0; i < t->n; i++) t->full[i] = t->bare[i] = graph_param_info(g, i);
    if (t->n) qsort(t->full, (size_t)t->n, sizeof(void *), by_full);
    if (t->n) qsort(t->bare, (size_t)t->n, sizeof(void *), by_bare);
}

static void names_done(struct names *t)
{
    mem_free(t->full);
    mem_free(t->bare);
}

static bool names_have(const struct names *t, const char *name, bool bare)
{
    int lo = 0, hi = t->n - 1;
    while (lo <= hi) {
        int mid = lo + (hi - lo) / 2;
        const char *at = bare ? bare_name(t->bare[mid]->name) : t->full[mid]->name;
        int c = strcmp(at, name);
        if (!c) return true;
        if (c < 0) lo = mid + 1;
        else hi = mid - 1;
    }
    return false;
}

static void vote(struct search *s, const char *name, size_t len, bool bare)
{
    struct weight_set *w = s->sets;
    if (len >= sizeof w->prefix || !strncmp(name, "optim", 5))
        return; /* moments have the names and shapes of weights */
    for (int i = 0; i < s->nsets; i++, w++) {
        if (w->bare != bare || strlen(w->prefix) != len || memcmp(w->prefix, name, len)) continue;
        w->votes++;
        return;
    }
    if (s->nsets == SETS_MOST) return;
    *w = (struct weight_set){.bare = bare, .votes = 1};
    memcpy(w->prefix, name, len);
    s->nsets++;
}

/* The longest reading wins: "a.b.weight" is no vote for "a." where a.b.weight itself is a parameter. */
static void vote_all(struct search *s)
{
    for (int i = 0; i < tensors_count(s->f); i++) {
        const char *name = tensors_at(s->f, i)->name;
        for (const char *at = name; at; at = strpbrk(at, "/.") ? strpbrk(at, "/.") + 1 : NULL) {
            bool full = names_have(&s->names, at, false);
            if (!full && !names_have(&s->names, at, true)) continue;
            vote(s, name, (size_t)(at - name), !full);
            break;
        }
    }
}

/* name, name with its separator, or (ours) ema.name. */
static bool is_named(const struct weight_set *w, const char *name)
{
    size_t n = strlen(w->prefix), m = strlen(name);
    if (!strcmp(name, "raw")) return n == 0;
    if (n == m + 5 && !memcmp(w->prefix, "ema.", 4) && !memcmp(w->prefix + 4, name, m)) return true;
    return !strncmp(w->prefix, name, m) && (n == m || (n == m + 1 && strchr("/.", w->prefix[m])));
}

/* "ema" also stands for what lies below it: "ema/unet.", "ema/emas/0/". */
static bool is_under(const struct weight_set *w, const char *name)
{
    size_t m = strlen(name);
    return is_named(w, name) || (!strncmp(w->prefix, name, m) && w->prefix[m] && strchr("/.", w->prefix[m]));
}

static void list_sets(const struct search *s, struct text *out)
{
    for (int i = 0; i < s->nsets; i++) {
        size_t n = strlen(s->sets[i].prefix);
        text_add(out, i ? ", " : "");
        if (n) text_addn(out, s->sets[i].prefix, n - 1);
        else text_add(out, "raw");
    }
}

static err_t choose(const struct search *s, const char *weights, const struct weight_set **out)
{
    static const char *const preferred[] = {"ema", "raw", "module", "net"};
    bool is_auto = !strcmp(weights, "auto");
    const struct weight_set *best = NULL;
    int most = 0, same = 0;
    struct text list = {0};
    err_t err = ERR_OK;
    for (int i = 0; i < s->nsets; i++) {
        const struct weight_set *w = &s->sets[i];
        if (!is_auto && !is_under(w, weights)) continue;
        if (w->votes > most) most = w->votes, same = 0;
        same += w->votes == most;
        if (w->votes == most && same == 1) best = w;
    }
    for (size_t k = 0; k < (is_auto ? ARRAY_LEN(preferred) : 1) && same > 1; k++) {
        for (int i = 0; i < s->nsets && same > 1; i++) {
            if (s->sets[i].votes != most || !is_named(&s->sets[i], is_auto ? preferred[k] : weights)) continue;
            best = &s->sets[i];
            same = 1;
        }
    }
    list_sets(s, &list);
    if (!best && s->nsets) err = fail(ERR_NOT_FOUND, "no weights '%s': it has %s", weights, text_str(&list));
    else if (!best) err = fail(ERR_FORMAT, "no tensor of it is a parameter of this network");
    else if (same > 1)
        err = fail(ERR_USAGE, "several sets of weights fit alike: choose with init.weights one of %s", text_str(&list));
    text_done(&list);
    *out = best;
    return err;
}

/* ---- taking them ----------------------------------------------------------------------------------------------------- */

static void dims_text(struct text *out, int ndim, const int64_t *dims)
{
    text_add(out, "[");
    for (int i = 0; i < ndim; i++) text_addf(out, "%s%lld", i ? ", " : "", (long long)dims[i]);
    text_add(out, "]");
}

static err_t shape_check(const struct tensor *t, const struct param_info *info)
{
    int64_t dims[4] = {0};
    bool same = t->ndim == info->ndim;
    for (int i = 0; i < info->ndim; i++) {
        dims[i] = info->dims[i];
        same = same && t->dims[i] == dims[i];
    }
    if (same) return ERR_OK;
    struct text file = {0}, net = {0};
    dims_text(&file, t->ndim, t->dims);
    dims_text(&net, info->ndim, dims);
    err_t err = fail(ERR_FORMAT, "tensor %s has shape %s, the network's %s has %s", t->name, text_str(&file),
                     info->name, text_str(&net));
    text_done(&file);
    text_done(&net);
    return err;
}

static void note_name(struct text *list, const char *name)
{
    text_addf(list, "%s%s", list->len ? ", " : "", name);
}

static const struct tensor *find(const struct tensors *f, const struct weight_set *w, const char *param)
{
    char *name = mem_printf("%s%s", w->prefix, w->bare ? bare_name(param) : param);
    const struct tensor *t = tensors_find(f, name);
    mem_free(name);
    return t;
}

/* Buffers of our own checkpoints stand beside the raw weights only. */
static const struct tensor *find_buffer(const struct tensors *f, const struct weight_set *w, const char *param)
{
    const struct tensor *t = find(f, w, param);
    return t || strncmp(w->prefix, "ema.", 4) ? t : tensors_find(f, param);
}

static err_t take_all(const struct search *s, const struct weight_set *w, struct params *p, struct init_report *r)
{
    float *tmp = NULL;
    size_t cap = 0;
    err_t err = ERR_OK;
    for (int i = 0; i < s->names.n; i++) {
        const struct param_info *info = graph_param_info(s->names.g, i);
        const struct tensor *t = info->buffer ? find_buffer(s->f, w, info->name) : find(s->f, w, info->name);
        if (!t) {
            r->missing++;
            note_name(&r->missing_names, info->name);
            continue;
        }
        TRYD(shape_check(t, info));
        r->loaded++;
        if (!p) continue;
        if (info->count > cap) {
            mem_free(tmp);
            tmp = mem_array(cap = info->count, sizeof *tmp);
        }
        TRYD(tensor_read_f32(t, tmp, info->count));
        params_set(p, i, tmp);
    }
    if (p) params_changed(p);
done:
    mem_free(tmp);
    return err;
}

/* Tensors of the set that the network has no place for. A set without prefix shares its names with the rest of the file: there, what is
 * below another set or an optimiser does not count. */
static void list_dropped(const struct search *s, const struct weight_set *w, struct init_report *r)
{
    size_t n = strlen(w->prefix);
    for (int i = 0; i < tensors_count(s->f); i++) {
        const char *name = tensors_at(s->f, i)->name;
        bool other = !n && (strchr(name, '/') || !strncmp(name, "optim.", 6) || !strncmp(name, "ema.", 4) ||
                            !strncmp(name, "state.", 6));
        if (strncmp(name, w->prefix, n) || other || names_have(&s->names, name + n, w->bare)) continue;
        r->dropped++;
        note_name(&r->dropped_names, name + n);
    }
}

static err_t load(struct search *s, const char *weights, struct params *p, struct init_report *r)
{
    const struct weight_set *w = NULL;
    vote_all(s);
    if (!strcmp(weights, "auto")) { /* our own say what they are */
        char *format = tensors_json(s->f, "format");
        if (format && !strncmp(format, "\"ect-", 5)) weights = "raw";
        mem_free(format);
    }
    TRY(choose(s, weights, &w));
    snprintf(r->prefix, sizeof r->prefix, "%s", w->prefix);
    TRY(take_all(s, w, p, r));
    list_dropped(s, w, r);
    return ERR_OK;
}

err_t init_load(const char *path, const char *weights, struct params *p, const struct graph *g, struct init_report *r)
{
    struct tensors *f = NULL;
    *r = (struct init_report){.kind = ""};
    TRY(tensors_open(&f, path));
    struct search *s = mem_alloc(sizeof *s);
    s->f = f;
    r->kind = tensors_kind(f);
    names_init(&s->names, g);
    err_t err = load(s, weights, p, r);
    if (err) err = fail_in(err, "%s", path);
    names_done(&s->names);
    mem_free(s);
    tensors_close(f);
    return err;
}

void init_report_done(struct init_report *r)
{
    text_done(&r->missing_names);
    text_done(&r->dropped_names);
}

void init_report_text(const struct init_report *r, struct text *out)
{
    size_t n = strlen(r->prefix);
    text_addf(out, "%s, weights %.*s: %d tensors taken", r->kind, n ? (int)n - 1 : 3, n ? r->prefix : "raw", r->loaded);
    if (r->dropped) text_addf(out, "; %d dropped: %s", r->dropped, text_str(&r->dropped_names));
    if (r->missing)
        text_addf(out, "; %d missing, which keep their drawn values: %s", r->missing, text_str(&r->missing_names));
}
