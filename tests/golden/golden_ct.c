/* Consistency training and distillation: levels by pair and weights by lua/ect/design.lua, passes by the trainer's own micro-batch with
 * two more parameter sets, schedules of the number of levels and of the teacher's decay. */
#include "tests/golden/golden.h"

#include <math.h>
#include <string.h>

#include "core/train_pass.h"

/* No output of the family has a float64 twin. These stand for the published run's own noise, relative to the largest value: of D what
 * small networks show, of gradients what the networks' files show. */
#define NOISE 2e-7
#define GRAD_NOISE 4e-6
/* The float run's levels: seven times the roundings of a difference of numbers four times as large, from the power 7. */
#define LEVEL_NOISE (5 * noise_floor(0))

struct lab { /* shared by the cases of a file */
    struct gnet net;
    struct params *target, *teacher; /* affine functions of the file's parameters */
    size_t n;
    double *x, *noise, *labels;
    double sigma_data;
    char ends[96]; /* of the grid, as parameters of a pair */
};

struct levels {
    double *t, *r, *w; /* [n] */
    char weighting[64];
};

static double meta_num(struct part *p, const char *key)
{
    double v = NAN;
    const char *text = st_meta(p->f->st, key);
    if (!text || !num_parse(text, &v)) part_fail(p, "no number %s in its metadata", key);
    return v;
}

/* "params*0.97+0.01 (...)": p f32(0.97) + f32(0.01), of every parameter. */
static void affine(struct part *p, struct lab *b, const char *key, struct params **out)
{
    double scale, shift = 0;
    const char *text = st_meta(p->f->st, key);
    if (!text || sscanf(text, "params*%lf%lf", &scale, &shift) < 1) {
        part_fail(p, "%s = %s is no affine function of params", key, text ? text : "(absent)");
        return;
    }
    if (params_new(out, b->net.graph, b->net.g->k, b->net.g->dev)) {
        part_fail(p, "%s", err_text());
        return;
    }
    params_copy(*out, b->net.weights);
    for (int i = 0; i < graph_nparams(b->net.graph); i++) {
        const struct param_info *info = graph_param_info(b->net.graph, i);
        if (info->buffer) continue;
        float *v = mem_array(info->count, sizeof *v);
        params_get(b->net.weights, i, v);
        for (size_t j = 0; j < info->count; j++) {
            volatile float product = v[j] * (float)scale; /* two roundings, as torch does */
            v[j] = product + (float)shift;
        }
        params_set(*out, i, v);
        mem_free(v);
    }
}

static bool lab_open(struct lab *b, struct part *p)
{
    size_t nx = 0, ne = 0;
    *b = (struct lab){.sigma_data = meta_num(p, "sigma_data")};
    double lo = meta_num(p, "sigma_min"), hi = meta_num(p, "sigma_max"), rho = meta_num(p, "rho");
    snprintf(b->ends, sizeof b->ends, "min=%.17g,max=%.17g,rho=%.17g", lo, hi, rho);
    if (p->failed || !gnet_open_at(&b->net, p, b->sigma_data, lo)) return false;
    b->x = need(p, &nx, "in/x_start");
    b->noise = need(p, &ne, "in/noise");
    if (p->failed) return false;
    b->n = nx / b->net.per;
    if (nx != ne || b->n * b->net.per != nx) part_fail(p, "in/x_start and in/noise do not fit the configuration");
    b->labels = gnet_labels(p, &b->net, b->n);
    affine(p, b, "target_net", &b->target);
    affine(p, b, "teacher_net", &b->teacher);
    return !p->failed;
}

static void lab_close(struct lab *b)
{
    params_free(b->target);
    params_free(b->teacher);
    gnet_close(&b->net);
    mem_free(b->x);
    mem_free(b->noise);
    mem_free(b->labels);
}

/* The published draw is an index counted from the highest level; the library's pair takes a u of its interval. */
static bool draw(struct part *p, const struct lab *b, const json_t *c, const char *prefix, struct levels *l)
{
    static const char *const weightings[][2] = {{"uniform", "uniform"},
                                                {"karras", "snr_plus"},
                                                {"snr", "snr"},
                                                {"snr+1", "snr_one"},
                                                {"truncated-snr", "truncated_snr"}};
    const char *ws = json_string_value(json_object_get(c, "ws")), *name = NULL;
    size_t n = 0;
    char expr[160];
    double *index = need(p, &n, "%sin/indices", prefix), scales = json_num(c, "scales", 0);
    struct design_state s = {.sigma_data = b->sigma_data, .N = scales, .batch = (int)b->n};
    for (size_t i = 0; ws && i < ARRAY_LEN(weightings); i++) {
        if (!strcmp(weightings[i][0], ws)) name = weightings[i][1];
    }
    if (!name) part_fail(p, "unknown weighting ws = %s", ws ? ws : "(none)");
    if (n != b->n) part_fail(p, "%zu indices for %zu images", n, b->n);
    snprintf(expr, sizeof expr, "ect.pair.uniform{%s}", b->ends);
    snprintf(l->weighting, sizeof l->weighting, "ect.weight.%s{}", name ? name : "");
    for (size_t i = 0; !p->failed && i < n; i++) {
        double u = (index[i] + 0.5) / (scales - 1), tr[2];
        if (script_call(p->f->g->script, expr, &s, &u, 1, tr, 2)) part_fail(p, "%s", err_text());
        l->t[i] = tr[0];
        l->r[i] = tr[1];
        l->w[i] = design_call(p, l->weighting, &s, tr, 2);
    }
    mem_free(index);
    return !p->failed;
}

static struct pass *run(struct part *p, const struct lab *b, const json_t *c, const struct levels *l, float *grad)
{
    struct golden *g = b->net.g;
    struct pass *pass = NULL;
    const char *kind = json_string_value(json_object_get(c, "kind")),
               *norm = json_string_value(json_object_get(c, "norm"));
    struct loss_opts loss = {.metric = LOSS_L2};
    bool is_ct = kind && !strcmp(kind, "CT"), is_cd = kind && !strcmp(kind, "CD");
    char name[32];
    snprintf(name, sizeof name, "%.20s%s", norm ? norm : "(none)", norm && strchr(norm, '-') ? "" : "-mean");
    if (!is_ct && !is_cd) part_fail(p, "unknown kind %s", kind ? kind : "(none)");
    if (!loss_metric_find(norm && !strcmp(norm, "lpips") ? norm : name, &loss.metric))
        part_fail(p, "unknown norm %s", name);
    if (p->failed) return NULL;
    struct pass_config config = {.graph = b->net.graph,
                                 .kernels = g->k,
                                 .dev = g->dev,
                                 .rows = (int)b->n,
                                 .per = (int)b->net.per,
                                 .h = b->net.c.resolution,
                                 .w = b->net.c.resolution,
                                 .label_dim = b->net.c.label_dim,
                                 .augment_dim = b->net.c.augment_dim,
                                 .teacher = true,
                                 .solves = is_cd,
                                 .share_noise = true,
                                 .share_dropout = true,
                                 .sigma_data = b->sigma_data,
                                 .loss = loss};
    struct pass_rows rows = {.n = (int)b->n,
                             .global_batch = (int)b->n,
                             .t = l->t,
                             .r = l->r,
                             .w = l->w,
                             .weights = b->net.weights,
                             .teacher = b->target,
                             .frozen = b->teacher,
                             .grad = grad};
    if (pass_new(&pass, &config)) {
        part_fail(p, "%s", err_text());
        return NULL;
    }
    gnet_upload(&b->net, pass_y(pass), b->x, b->n);
    gnet_upload(&b->net, pass_eps(pass), b->noise, b->n);
    if (b->labels) device_put(g, pass_labels(pass), b->labels, b->n * (size_t)b->net.c.label_dim);
    if (pass_run(pass, target_find(is_cd ? "cd" : "ct"), &rows)) part_fail(p, "%s", err_text());
    return pass;
}

/* x_r, in PyTorch's order: what pass_solve arrived at, or the image with the noise of level r. */
static double *target_point(const struct lab *b, const struct pass *pass, const struct levels *l)
{
    if (pass_x_r(pass)) return gnet_download(&b->net, pass_x_r(pass), b->n);
    double *x = mem_array(b->n * b->net.per, sizeof *x);
    for (size_t i = 0; i < b->n * b->net.per; i++) x[i] = b->x[i] + l->r[i / b->net.per] * b->noise[i];
    return x;
}

/* The file holds the target network's raw input c_in x_r and output F at level r. */
static void compare_target(struct part *p, const struct lab *b, const struct pass *pass, const struct levels *l,
                           const char *prefix)
{
    double *in = take(p->f, NULL, "%sout/target_net_in", prefix),
           *out = take(p->f, NULL, "%sout/target_net_out", prefix);
    if (in && out) {
        size_t n = b->n * b->net.per;
        double *x = target_point(b, pass, l), *d = gnet_download(&b->net, pass_d_r(pass), b->n);
        double *want = mem_array(n, sizeof *want), v = b->sigma_data * b->sigma_data;
        for (size_t i = 0; i < n; i++) {
            double r = l->r[i / b->net.per], c_in = 1 / sqrt(v + r * r), above = r - b->net.c.sigma_min;
            x[i] *= c_in;
            want[i] = v / (v + above * above) * in[i] / c_in + above * b->sigma_data * c_in * out[i];
        }
        part_close(p, "output", "target_net_in", x, in, n, bound_factor * NOISE * max_abs(in, n));
        part_close(p, "output", "D of the target", d, want, n, bound_factor * NOISE * max_abs(want, n));
        mem_free(x);
        mem_free(d);
        mem_free(want);
    }
    mem_free(in);
    mem_free(out);
}

/* An error of delta in D_t - D_r: of a mean of |.| the same, of a mean square S of at most 2 sqrt(S) delta + delta^2. A Heun step adds the
 * roundings of its slope at r, (e - D) / r, times half the step. */
static void compare_loss(struct part *p, const struct lab *b, const struct pass *pass, const struct levels *l,
                         const char *prefix, bool squared)
{
    double *want = need(p, NULL, "%sout/loss", prefix), *d = gnet_download(&b->net, pass_d_t(pass), b->n);
    for (size_t i = 0; want && i < b->n; i++) {
        double slope = pass_x_r(pass) ? (l->t[i] - l->r[i]) / (2 * l->r[i]) * noise_floor(0) : 0;
        double delta = bound_factor * (NOISE + slope) * max_abs(d + i * b->net.per, b->net.per);
        double mean = want[i] / l->w[i];
        double bound = squared ? 2 * sqrt(fabs(mean)) * delta + delta * delta : delta;
        part_close(p, "loss", "loss", pass_loss(pass) + i, want + i, 1, l->w[i] * bound);
        p->tensors -= i > 0;
    }
    mem_free(want);
    mem_free(d);
}

static int compare_grads(struct part *p, const struct lab *b, const float *grad, const char *prefix)
{
    int compared = 0;
    for (int i = 0; i < graph_nparams(b->net.graph); i++) {
        const struct param_info *info = graph_param_info(b->net.graph, i);
        double *want = info->buffer ? NULL : take(p->f, NULL, "%sgrad/%s", prefix, info->name);
        if (!want) continue;
        size_t n = info->count;
        float *f = mem_array(n, sizeof(float));
        double *got = mem_array(n, sizeof(double));
        arena_get(b->net.graph, b->net.g->k, b->net.g->dev, grad, i, f);
        for (size_t j = 0; j < n; j++) got[j] = f[j];
        part_close(p, "gradient", info->name, got, want, n, bound_factor * GRAD_NOISE * max_abs(want, n));
        compared++;
        mem_free(f);
        mem_free(got);
        mem_free(want);
    }
    return compared;
}

static bool has_grads(const struct gfile *f, const char *prefix)
{
    char start[64];
    size_t len = (size_t)snprintf(start, sizeof start, "%sgrad/", prefix);
    for (int i = 0; i < st_count(f->st); i++) {
        if (!strncmp(st_at(f->st, i)->name, start, len)) return true;
    }
    return false;
}

static void check_case(struct gfile *f, const struct lab *b, const json_t *c)
{
    struct part p;
    char prefix[32];
    int number = (int)json_num(c, "case", -1);
    struct golden *g = b->net.g;
    double *mem = mem_array(3 * b->n, sizeof(double));
    struct levels l = {.t = mem, .r = mem + b->n, .w = mem + 2 * b->n};
    float *grad = device_new(g, NULL, graph_arena_floats(b->net.graph));
    struct pass *pass = NULL;
    const char *norm = json_string_value(json_object_get(c, "norm"));
    snprintf(prefix, sizeof prefix, "case%02d/", number);

    part_begin(&p, f, "case%02d levels", number);
    bool ok = draw(&p, b, c, prefix, &l);
    double *t = need(&p, NULL, "%sout64/t", prefix), *r = need(&p, NULL, "%sout64/t2", prefix);
    double *f32 = take(f, NULL, "%sout/t", prefix);
    if (ok && t) part_close_each(&p, "noise level", "t", l.t, t, b->n, 1e-12);
    if (ok && r) part_close_each(&p, "noise level", "t2", l.r, r, b->n, 1e-12);
    if (ok && f32) part_close_each(&p, "noise level", "t", l.t, f32, b->n, bound_factor * LEVEL_NOISE);
    mem_free(t);
    mem_free(r);
    mem_free(f32);
    part_end(&p);

    part_begin(&p, f, "case%02d loss", number);
    if (ok) pass = run(&p, b, c, &l, grad);
    if (pass) {
        compare_loss(&p, b, pass, &l, prefix, norm && strcmp(norm, "l1") != 0);
        compare_target(&p, b, pass, &l, prefix);
    }
    part_end(&p);

    if (pass && has_grads(f, prefix)) {
        part_begin(&p, f, "case%02d gradients", number);
        if (!compare_grads(&p, b, grad, prefix)) part_fail(&p, "none of the gradients is of a parameter of ours");
        part_end(&p);
    }
    pass_free(pass);
    g->k->free(g->dev, grad);
    mem_free(mem);
}

/* ---- schedules -------------------------------------------------------------------------------------------------------------- */

static void check_schedule(struct gfile *f, const json_t *q, int number)
{
    struct part p;
    char scales[96], decay[96];
    const char *ema = json_string_value(json_object_get(q, "target_ema_mode"));
    const char *mode = json_string_value(json_object_get(q, "scale_mode"));
    bool grows = mode && !strcmp(mode, "progressive"), adapts = ema && !strcmp(ema, "adaptive");
    double s0 = json_num(q, "start_scales", NAN), s1 = json_num(q, "end_scales", NAN),
           mu0 = json_num(q, "start_ema", NAN);
    const json_t *steps = json_object_get(q, "steps"), *table = json_object_get(q, "ema_scales");
    if ((!grows && (!mode || strcmp(mode, "fixed"))) || (!adapts && (!ema || strcmp(ema, "fixed")))) {
        part_not_yet(f, "schedule", mode ? mode : "no scale_mode");
        return;
    }
    part_begin(&p, f, "schedule%02d", number);
    snprintf(scales, sizeof scales, "ect.curriculum.ct{s0=%.17g,s1=%.17g}", s0, s1);
    snprintf(decay, sizeof decay, "ect.teacher_ema.ct{mu0=%.17g,s0=%.17g}", mu0, s0);
    if (!json_array_size(steps)) part_fail(&p, "no steps");
    for (size_t i = 0; !p.failed && i < json_array_size(steps); i++) {
        struct design_state s = {.step = json_integer_value(json_array_get(steps, i)),
                                 .iters = (int64_t)json_num(q, "total_steps", 1)};
        const json_t *row = json_array_get(table, i);
        double want[2] = {json_number_value(json_array_get(row, 0)), json_number_value(json_array_get(row, 1))};
        s.N = grows ? design_call(&p, scales, &s, NULL, 0) : s0;
        double mu = adapts ? design_call(&p, decay, &s, NULL, 0) : mu0;
        part_equal(&p, "count", "scales", &s.N, &want[1], 1);
        part_close_each(&p, "decay", "target ema", &mu, want, 1, 1e-12);
    }
    part_end(&p);
}

void check_ct_cd_loss(struct gfile *f)
{
    struct part p;
    struct lab b = {0};
    json_t *cases = meta_json(f, "cases"), *schedules = meta_json(f, "ema_and_scales");
    part_begin(&p, f, "network");
    if (!json_array_size(cases)) part_fail(&p, "no cases in its metadata");
    bool ok = !p.failed && lab_open(&b, &p);
    if (!ok) part_end(&p);
    for (size_t i = 0; ok && i < json_array_size(cases); i++) check_case(f, &b, json_array_get(cases, i));
    for (size_t i = 0; i < json_array_size(schedules); i++) check_schedule(f, json_array_get(schedules, i), (int)i);
    lab_close(&b);
    json_decref(cases);
    json_decref(schedules);
}
