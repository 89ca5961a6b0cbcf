/* Samplers: from given latents and noise through core/sampler.h. A case is a group of tensors with an "out"; its settings are the
 * metadata entry of that name, and what it leaves out are the published defaults. */
#include "tests/golden/golden.h"

#include <math.h>
#include <string.h>

#include "core/io/image.h"
#include "core/sampler.h"

struct setup {
    struct gnet net;
    size_t n;        /* samples */
    double *latents; /* [n, c, h, w] */
    double *noise;   /* of the file, [steps, n, c, h, w], or NULL */
    size_t nnoise;
    float *labels;        /* [n, label_dim] or NULL */
    bool shifted;         /* ECMPrecond in its evaluation form */
    double noise_of_file; /* largest f32 - f64 distance among its cases, relative */
};

/* A key that is not read would be a setting that is not checked. */
static void refuse_unread(struct part *p, const json_t *meta)
{
    static const char *const read[] = {"num_steps", "sigma_min", "sigma_max", "rho",           "S_churn", "S_min",
                                       "S_max",     "S_noise",   "solver",    "alpha",         "mid_t",   "t_max",
                                       "note",      "schedule",  "scaling",   "discretization"};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)meta, key, value)
    {
        bool known = false;
        for (size_t i = 0; i < ARRAY_LEN(read); i++) known |= !strcmp(key, read[i]);
        if (!known) part_fail(p, "a sampler with '%s' is not known here", key);
    }
}

static void want_word(struct part *p, const json_t *meta, const char *key, const char *only)
{
    const char *word = json_string_value(json_object_get(meta, key));
    if (word && strcmp(word, only)) part_fail(p, "%s '%s': only '%s' is made here", key, word, only);
}

/* A number that may be text, or infinite ("inf", null). */
static double number_of(const json_t *meta, const char *key, double missing)
{
    const json_t *v = json_object_get(meta, key);
    double x;
    if (json_is_number(v)) return json_number_value(v);
    if (json_is_string(v) && num_parse(json_string_value(v), &x)) return x;
    return missing;
}

/* The consistency sampler's file has levels, or for a case that it does not describe t_max. */
static bool is_consistency(struct gfile *f, const json_t *meta)
{
    return json_object_get(meta, "mid_t") || (!json_object_get(meta, "num_steps") && st_meta(f->st, "t_max"));
}

/* The published file names two of its cases without settings: one step needs none, and the second level of two_step_1526 is ImageNet's 1.526,
 * which is written only in its name: digits after the last _, three of them decimals. */
static int levels_of(struct part *p, const char *name, const json_t *meta, double *levels, int cap)
{
    const json_t *mid = json_object_get(meta, "mid_t");
    int n = (int)json_array_size(mid);
    if (json_is_number(mid)) {
        levels[0] = json_number_value(mid);
        return 1;
    }
    if (n > cap) part_fail(p, "%d noise levels; %d are possible", n, cap);
    for (int i = 0; i < n && i < cap; i++) levels[i] = json_number_value(json_array_get(mid, (size_t)i));
    const char *last = strrchr(name, '_');
    int64_t digits;
    if (!mid && last && strlen(last) == 5 && int_parse(last + 1, &digits)) {
        levels[0] = (double)digits / 1000;
        return 1;
    }
    if (!mid && strcmp(name, "one_step")) part_fail(p, "no levels in the metadata");
    return n;
}

/* Settings of a case. */
static bool case_config(struct part *p, struct gfile *f, const char *name, const json_t *meta, bool shifted,
                        struct sampler_config *c)
{
    refuse_unread(p, meta);
    if (is_consistency(f, meta)) {
        double levels[ARRAY_LEN(c->mid_t)] = {0}, t_max = 80;
        const char *of_file = st_meta(f->st, "t_max");
        int n = levels_of(p, name, meta, levels, (int)ARRAY_LEN(levels));
        if (of_file && !num_parse(of_file, &t_max)) part_fail(p, "t_max '%s' in the metadata is no number", of_file);
        sampler_defaults(c, "ect", n + 1);
        c->sigma_max = number_of(meta, "sigma_max", number_of(meta, "t_max", t_max));
        c->nmid = n;
        memcpy(c->mid_t, levels, sizeof levels);
        return !p->failed;
    }
    want_word(p, meta, "discretization", "edm");
    want_word(p, meta, "schedule", "linear");
    want_word(p, meta, "scaling", "none");
    const char *solver = json_string_value(json_object_get(meta, "solver"));
    bool euler = solver && !strcmp(solver, "euler");
    if (solver && !euler && strcmp(solver, "heun")) part_fail(p, "solver '%s': euler and heun are known", solver);
    int steps = (int)json_num(meta, "num_steps", 18);
    sampler_defaults(c, euler ? "euler" : "heun", euler ? steps : 2 * steps - 1);
    c->sigma_min = number_of(meta, "sigma_min", 0.002);
    c->sigma_max = number_of(meta, "sigma_max", 80);
    c->rho = number_of(meta, "rho", 7);
    c->s_churn = number_of(meta, "S_churn", 0);
    c->s_min = number_of(meta, "S_min", 0);
    c->s_max = number_of(meta, "S_max", INFINITY);
    c->s_noise = number_of(meta, "S_noise", 1);
    c->alpha = number_of(meta, "alpha", 1);
    c->net_min = shifted ? 0.003 : 0; /* the published preconditioners' own limits */
    c->net_max = 0;
    return !p->failed;
}

/* Noise of a case in the program's layout: its own, or the file's. */
static double *case_noise(struct setup *s, struct gfile *f, const char *name, size_t *rows)
{
    size_t n = s->nnoise;
    double *own = has_tensor(f, "%s/noise", name) ? take(f, &n, "%s/noise", name) : NULL;
    *rows = n / (s->n * s->net.per);
    const double *from = own ? own : s->noise;
    double *out = from ? mem_array(n, sizeof(double)) : NULL;
    if (out) nhwc_from_nchw(&s->net.c, from, out, n / s->net.per);
    mem_free(own);
    return out;
}

static void check_uint8(struct gfile *f, const char *name, const double *out, size_t n)
{
    struct part p;
    struct golden *g = f->g;
    static const char *const rules[] = {"metric", "grid"};
    for (int k = 0; k < 2; k++) {
        if (!has_tensor(f, "%s/uint8_%s_convention", name, rules[k])) continue;
        part_begin(&p, f, "%.40s uint8 %s", name, rules[k]);
        double *want = need(&p, NULL, "%s/uint8_%s_convention", name, rules[k]), *got = mem_array(n, sizeof(double));
        uint8_t *px = mem_array(n, 1);
        if (k) {
            image_view_u8(out, px, n);
        } else {
            double *dev = g->k->alloc(g->dev, n * sizeof(double));
            uint8_t *px_dev = g->k->alloc(g->dev, n);
            g->k->upload(g->dev, dev, out, n * sizeof(double));
            g->k->quantize_u8(g->dev, dev, px_dev, n);
            g->k->download(g->dev, px, px_dev, n);
            g->k->free(g->dev, dev);
            g->k->free(g->dev, px_dev);
        }
        for (size_t i = 0; i < n; i++) got[i] = px[i];
        if (want) part_equal(&p, "pixel", "uint8", got, want, n);
        mem_free(want);
        mem_free(got);
        mem_free(px);
        part_end(&p);
    }
}

static void compare_levels(struct gfile *f, const char *name, const struct sampler_config *c)
{
    struct part p;
    struct sampler_config plain = *c; /* of the grid before churn and midpoints */
    size_t n = 0;
    if (!has_tensor(f, "%s/t_evals", name) && !has_tensor(f, "%s/t_steps", name)) return;
    part_begin(&p, f, "%.40s levels", name);
    double *t = mem_array((size_t)c->nfe, sizeof *t);
    int calls = sampler_levels(c, t, c->nfe);
    double *evals = take(f, &n, "%s/t_evals", name);
    double each = bound_factor * noise_floor(0); /* the network is given floats */
    if (evals && (size_t)calls != n) part_fail(&p, "%d network calls instead of %zu", calls, n);
    if (evals && !p.failed) part_close_each(&p, "noise level", "t_evals", t, evals, n, each);
    double *steps = take(f, &n, "%s/t_steps", name);
    if (steps && n > 1) { /* the grid: levels of the first call of each step, then 0 */
        plain.s_churn = 0, plain.alpha = 1;
        calls = sampler_levels(&plain, t, c->nfe);
        bool heun = !strcmp(c->name, "heun");
        double *grid = mem_array(n, sizeof(double));
        for (size_t i = 0; i + 1 < n; i++) {
            size_t at = heun && i ? 2 * i - 1 : i; /* call 2i - 1 is the correction at the end of step i - 1 */
            grid[i] = at < (size_t)calls ? t[at] : NAN;
        }
        part_close_each(&p, "noise level", "t_steps", grid, steps, n, each);
        mem_free(grid);
    }
    mem_free(t);
    mem_free(evals);
    mem_free(steps);
    part_end(&p);
}

static void check_case(struct setup *s, struct gfile *f, const char *name)
{
    struct part p;
    struct sampler_config c;
    struct sampler *sampler = NULL;
    struct program *prog = NULL;
    struct golden *g = f->g;
    size_t n = s->n * s->net.per, rows;
    json_t *meta = meta_json(f, name);
    double *noise = case_noise(s, f, name, &rows), *got = mem_array(n, sizeof(double)),
           *nchw = mem_array(n, sizeof(double));
    float *latents = mem_array(n, sizeof(float));
    double *nhwc = mem_array(n, sizeof(double));
    part_begin(&p, f, "%.60s", name);
    double *out = need(&p, NULL, "%s/out", name), *out64 = take(f, NULL, "%s/out_net64", name);
    nhwc_from_nchw(&s->net.c, s->latents, nhwc, s->n);
    for (size_t i = 0; i < n; i++) latents[i] = (float)nhwc[i];
    struct program_opts opts = {.batch = (int)s->n, .eval_form = s->shifted, .only = "D"};
    if (!out || !case_config(&p, f, name, meta, s->shifted, &c)) {
        part_end(&p);
        goto done;
    }
    c.label_dim = s->net.c.label_dim;
    size_t steps = !strcmp(c.name, "heun") ? (size_t)(c.nfe + 1) / 2 : (size_t)c.nfe;
    size_t need_rows = !strcmp(c.name, "ect") ? steps - 1 : c.s_churn > 0 ? steps : 0;
    if (rows < need_rows) {
        part_fail(&p, "%zu steps of noise, %zu are needed", rows, need_rows);
        part_end(&p);
        goto done;
    }
    if (program_new(&prog, s->net.graph, g->k, g->dev, &opts) ||
        sampler_new(&sampler, &c, prog, (int)s->n, (int)s->net.per, g->k, g->dev) ||
        sampler_draw_from(sampler, s->net.weights, latents, noise, (int)s->n, s->labels, got)) {
        part_fail(&p, "%s", err_text());
    } else {
        nchw_from_nhwc(&s->net.c, got, nchw, s->n);
        /* the grids of the cases with a twin may be kinder than this one's */
        double floor_of_case = out64 ? s->noise_of_file : fmax(s->noise_of_file, NET_NOISE);
        double unit = floor_of_case * max_abs(out64 ? out64 : out, n);
        if (out64) part_close(&p, "sample", "out_net64", nchw, out64, n, bound_factor * unit);
        part_close(&p, "sample", "out", nchw, out, n, (bound_factor + 1) * unit);
        if (!out64) part_note(&p, "bound from the file's cases with a float64 network");
    }
    part_end(&p);
    compare_levels(f, name, &c);
    check_uint8(f, name, out, n);
done:
    sampler_free(sampler);
    program_free(prog);
    double *const mine[] = {noise, got, nchw, nhwc, out, out64};
    for (size_t i = 0; i < ARRAY_LEN(mine); i++) mem_free(mine[i]);
    mem_free(latents);
    json_decref(meta);
}

/* Calls visit for every group NAME with a tensor NAME/out. */
static void each_case(struct setup *s, struct gfile *f, void (*visit)(struct setup *, struct gfile *, const char *))
{
    for (int i = 0; i < st_count(f->st); i++) {
        char name[128];
        const char *full = st_at(f->st, i)->name, *slash = strchr(full, '/');
        if (!slash || strcmp(slash, "/out") || (size_t)(slash - full) >= sizeof name) continue;
        snprintf(name, sizeof name, "%.*s", (int)(slash - full), full);
        visit(s, f, name);
    }
}

static void measure_noise(struct setup *s, struct gfile *f, const char *name)
{
    size_t n = 0, m = 0;
    double *out = take(f, &n, "%s/out", name), *out64 = take(f, &m, "%s/out_net64", name);
    if (out64 && n == m && max_abs(out64, n) > 0) {
        double noise = noise_floor(noise_between(out, out64, n) / max_abs(out64, n));
        if (noise > s->noise_of_file) s->noise_of_file = noise;
    }
    mem_free(out);
    mem_free(out64);
}

void check_samplers(struct gfile *f)
{
    struct part p;
    struct setup s = {0};
    size_t n = 0;
    const char *precond = st_meta(f->st, "precond");
    part_begin(&p, f, "network");
    bool ok = gnet_open(&s.net, &p, 0.5);
    s.latents = need(&p, &n, "in/latents");
    s.noise = take(f, &s.nnoise, "in/noise");
    s.shifted = precond && !strncmp(precond, "ECMPrecond", 10);
    if (!precond) part_fail(&p, "no precond in its metadata");
    if (ok && !p.failed && n % s.net.per) part_fail(&p, "in/latents does not fit the configuration");
    if (!ok || p.failed) {
        part_end(&p);
    } else {
        s.n = n / s.net.per;
        double *labels = gnet_labels(&p, &s.net, s.n);
        size_t nlabels = s.n * (size_t)s.net.c.label_dim;
        s.labels = labels ? mem_array(nlabels, sizeof(float)) : NULL;
        for (size_t i = 0; labels && i < nlabels; i++) s.labels[i] = (float)labels[i];
        mem_free(labels);
        if (p.failed) part_end(&p);
        each_case(&s, f, measure_noise);
        each_case(&s, f, check_case);
    }
    gnet_close(&s.net);
    mem_free(s.latents);
    mem_free(s.noise);
    mem_free(s.labels);
}
