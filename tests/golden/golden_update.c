/* The update: optimisers and gradient clean-up through the device's kernels, learning rates and EMA decays through design.lua. */
#include "tests/golden/golden.h"

#include <math.h>
#include <string.h>

#include "core/ema.h"
#include "core/optim.h"

static const double exact = 1e-12; /* double on both sides */

static double *from_device(struct golden *g, const float *dev, size_t n)
{
    float *f = mem_array(n, sizeof(float));
    double *x = mem_array(n, sizeof(double));
    g->k->download(g->dev, f, dev, n * sizeof(float));
    for (size_t i = 0; i < n; i++) x[i] = f[i];
    mem_free(f);
    return x;
}

/* ---- optimisers ------------------------------------------------------------------------------------------------------------------------- */

struct trace { /* [steps, n] after each step */
    double *p, *m, *v;
};

static struct trace run_optimiser(struct golden *g, const struct optim_config *c, double lr, const double *p0,
                                  const double *grads, size_t steps, size_t n)
{
    float *p = device_new(g, p0, n), *m = device_new(g, NULL, n), *v = device_new(g, NULL, n),
          *grad = device_new(g, NULL, n);
    float *const state[3] = {p, m, v};
    struct trace t;
    double **const out[3] = {&t.p, &t.m, &t.v};
    for (int k = 0; k < 3; k++) *out[k] = mem_array(steps * n, sizeof(double));
    for (size_t i = 0; i < steps; i++) {
        struct optim_step s;
        device_put(g, grad, grads + i * n, n);
        optim_scalars(c, (int64_t)i + 1, lr, &s);
        g->k->optim_update(g->dev, &s, p, grad, m, v, n);
        for (int k = 0; k < 3; k++) {
            double *x = from_device(g, state[k], n);
            memcpy(*out[k] + i * n, x, n * sizeof(double));
            mem_free(x);
        }
    }
    float *const all[] = {p, m, v, grad};
    for (int k = 0; k < 4; k++) g->k->free(g->dev, all[k]);
    return t;
}

/* Elements differ by many orders of magnitude (on purpose), so each has its own bound: the rule applied to its column. */
static void compare_columns(struct part *p, const char *kind, const char *what, const double *got, const double *want,
                            const double *f32, size_t steps, size_t n)
{
    double *a = mem_array(steps, sizeof(double)), *b = mem_array(steps, sizeof(double)),
           *c = mem_array(steps, sizeof(double));
    int tensors = p->tensors;
    for (size_t j = 0; j < n; j++) {
        for (size_t i = 0; i < steps; i++) {
            a[i] = got[i * n + j];
            b[i] = want[i * n + j];
            c[i] = f32 ? f32[i * n + j] : b[i];
        }
        double most = max_abs(b, steps), noise = noise_between(b, c, steps);
        part_close(p, kind, what, a, b, steps, bound_factor * noise_floor(most > 0 ? noise / most : 0) * most);
    }
    p->tensors = tensors + 1;
    mem_free(a);
    mem_free(b);
    mem_free(c);
}

static void check_run(struct gfile *f, const char *name, const json_t *run, const double *p0, const double *grads,
                      size_t steps, size_t n)
{
    struct part p;
    const char *cls = json_string_value(json_object_get(run, "cls"));
    const json_t *betas = json_object_get(run, "betas");
    part_begin(&p, f, "%.48s", name);
    if (!cls || (strcmp(cls, "RAdam") && strcmp(cls, "Adam"))) {
        part_fail(&p, "unknown optimiser %s", cls ? cls : "(none)");
        part_end(&p);
        return;
    }
    struct optim_config c = {.kind = strcmp(cls, "Adam") ? OPTIM_RADAM : OPTIM_ADAM,
                             .beta1 = json_number_value(json_array_get(betas, 0)),
                             .beta2 = json_number_value(json_array_get(betas, 1)),
                             .eps = json_num(run, "eps", 1e-8)};
    struct trace t = run_optimiser(f->g, &c, json_num(run, "lr", 1e-3), p0, grads, steps, n);
    double *want = need(&p, NULL, "out64/%s/p", name), *f32 = need(&p, NULL, "out/%s/p", name);
    double *m = need(&p, NULL, "out/%s/exp_avg", name), *v = need(&p, NULL, "out/%s/exp_avg_sq", name);
    if (!p.failed) {
        compare_columns(&p, "parameter", "p", t.p, want, f32, steps, n);
        compare_columns(&p, "parameter", "p of the float32 run", t.p, f32, want, steps, n);
        compare_columns(&p, "moment", "exp_avg", t.m, m, NULL, steps, n);
        compare_columns(&p, "moment", "exp_avg_sq", t.v, v, NULL, steps, n);
    }
    double *const mine[] = {t.p, t.m, t.v, want, f32, m, v};
    for (size_t i = 0; i < ARRAY_LEN(mine); i++) mem_free(mine[i]);
    part_end(&p);
}

static void check_badgrad(struct gfile *f, const char *rule)
{
    struct part p;
    struct golden *g = f->g;
    size_t n = 0;
    uint64_t bad = 0, nonfinite = 0;
    part_begin(&p, f, "badgrad %s", rule);
    double *grad = need(&p, &n, "in/badgrad"), *want = need(&p, NULL, "out/badgrad_%s", rule);
    if (!p.failed) {
        float *dev = device_new(g, grad, n);
        g->k->grad_clean(g->dev, dev, n, 0, (float)optim_clean_inf(rule), &bad);
        double *got = from_device(g, dev, n);
        part_equal(&p, "clean gradient", "badgrad", got, want, n);
        for (size_t i = 0; i < n; i++) nonfinite += !isfinite(grad[i]);
        if (bad != nonfinite)
            part_fail(&p, "%llu elements counted, not %llu", (unsigned long long)bad, (unsigned long long)nonfinite);
        g->k->free(g->dev, dev);
        mem_free(got);
    }
    mem_free(grad);
    mem_free(want);
    part_end(&p);
}

/* A schedule of n values by one expression; states differ in nimg. */
static void check_lr(struct gfile *f, const char *column, const char *expr, int batch)
{
    struct part p;
    size_t n = 0;
    part_begin(&p, f, "lr %s", column);
    double *nimg = need(&p, &n, "lr/nimg"), *want = need(&p, NULL, "lr/%s", column),
           *got = mem_array(n + 1, sizeof(double));
    for (size_t i = 0; !p.failed && i < n; i++) {
        struct design_state s = {
            .nimg = (int64_t)nimg[i], .step = (int64_t)nimg[i] / batch, .batch = batch, .iters = 1000000};
        got[i] = design_call(&p, expr, &s, NULL, 0);
    }
    if (!p.failed) part_close_each(&p, "schedule", column, got, want, n, exact);
    mem_free(nimg);
    mem_free(want);
    mem_free(got);
    part_end(&p);
}

void check_optim(struct gfile *f)
{
    struct part p;
    size_t n = 0, total = 0;
    json_t *runs = meta_json(f, "runs"), *lr = meta_json(f, "lr_schedule");
    part_begin(&p, f, "inputs");
    double *p0 = need(&p, &n, "in/p0"), *grads = need(&p, &total, "in/grads");
    if (!json_object_size(runs)) part_fail(&p, "no runs in its metadata");
    if (n && total % n) part_fail(&p, "in/grads does not fit in/p0");
    if (p.failed) {
        part_end(&p);
    } else {
        const char *name;
        json_t *run;
        json_object_foreach(runs, name, run) check_run(f, name, run, p0, grads, total / n, n);
        if (has_tensor(f, "in/badgrad")) {
            check_badgrad(f, "main");
            check_badgrad(f, "imgnet");
        }
    }
    if (has_tensor(f, "lr/nimg")) {
        char expr[160];
        double ref = json_num(lr, "ref_lr", 0), batches = json_num(lr, "ref_batches", 0);
        int batch = (int)json_num(lr, "batch_size", 1);
        snprintf(expr, sizeof expr, "ect.lr.inv_sqrt{ref=%.17g,batches=%.17g}", ref, batches);
        check_lr(f, "value", expr, batch);
        for (int i = 0; i < st_count(f->st); i++) { /* lr/value_rampup10kimg: the name holds the ramp's length */
            const char *name = st_at(f->st, i)->name;
            double ramp;
            int len = 0;
            if (sscanf(name, "lr/value_rampup%lfkimg%n", &ramp, &len) != 1 || !len || name[len]) continue;
            snprintf(expr, sizeof expr, "ect.lr.inv_sqrt{ref=%.17g,batches=%.17g,rampup=%.17g}", ref, batches,
                     ramp * 1000);
            check_lr(f, name + 3, expr, batch);
        }
        snprintf(expr, sizeof expr, "ect.lr.inv_sqrt{ref=%.17g,batches=0}", ref);
        if (has_tensor(f, "lr/value_decay0")) check_lr(f, "value_decay0", expr, batch);
    }
    mem_free(p0);
    mem_free(grads);
    json_decref(runs);
    json_decref(lr);
}

/* ---- EMA ----------------------------------------------------------------------------------------------------------------------------------- */

struct ema_case {
    const char *part, *out, *beta; /* tensors OUT [steps, columns, n] and BETA [steps, columns], or beta NULL */
    const char *expr;
    size_t column, columns;
};

static struct design_state ema_state(int64_t step, int batch)
{
    return (struct design_state){.step = step, .nimg = step * batch, .batch = batch, .iters = 1000000};
}

/* Updates 1..steps of params[0] with params[k], decays from the design function. */
static void check_average(struct gfile *f, const struct ema_case *c, const double *params, size_t steps, size_t n,
                          int batch)
{
    struct part p;
    struct golden *g = f->g;
    size_t nout = 0;
    double *got = mem_array(steps * n, sizeof(double)), *want = mem_array(steps * n, sizeof(double));
    double *betas = mem_array(steps, sizeof(double)), *want_betas = mem_array(steps, sizeof(double));
    float *ema = device_new(g, params, n), *now = device_new(g, NULL, n);
    part_begin(&p, f, "%.60s", c->part);
    double *out = need(&p, &nout, "%s", c->out), *beta = c->beta ? need(&p, NULL, "%s", c->beta) : NULL;
    if (out && nout != steps * n * c->columns) part_fail(&p, "%s does not fit in/params", c->out);
    for (size_t i = 0; !p.failed && i < steps; i++) {
        struct design_state s = ema_state((int64_t)i, batch);
        betas[i] = design_call(&p, c->expr, &s, NULL, 0);
        device_put(g, now, params + (i + 1) * n, n);
        g->k->ema_update(g->dev, ema, now, betas[i], n);
        double *x = from_device(g, ema, n);
        memcpy(got + i * n, x, n * sizeof(double));
        memcpy(want + i * n, out + (i * c->columns + c->column) * n, n * sizeof(double));
        want_betas[i] = beta ? beta[i * c->columns + c->column] : betas[i];
        mem_free(x);
    }
    if (!p.failed) {
        part_close(&p, "average", c->out, got, want, steps * n,
                   bound_factor * noise_floor(0) * max_abs(want, steps * n));
        if (beta) part_close_each(&p, "decay", c->beta, betas, want_betas, steps, exact);
    }
    g->k->free(g->dev, ema);
    g->k->free(g->dev, now);
    double *const mine[] = {got, want, betas, want_betas, out, beta};
    for (size_t i = 0; i < ARRAY_LEN(mine); i++) mem_free(mine[i]);
    part_end(&p);
}

/* beta_table[t_next, std]: decay of one update that ends at t_next images. */
static void check_beta_table(struct gfile *f, int batch)
{
    struct part p;
    size_t nt = 0, ns = 0, n = 0;
    part_begin(&p, f, "phema beta table");
    double *std = need(&p, &ns, "phema/std_list"), *t_next = need(&p, &nt, "phema/t_next");
    double *want = need(&p, &n, "phema/beta_table"), *got = mem_array(n + 1, sizeof(double));
    if (!p.failed && n != nt * ns) part_fail(&p, "the table does not fit its axes");
    for (size_t i = 0; !p.failed && i < n; i++) {
        char expr[96];
        struct design_state s = {.nimg = (int64_t)t_next[i / ns] - batch, .batch = batch, .iters = 1000000};
        s.step = s.nimg / batch;
        snprintf(expr, sizeof expr, "ect.ema.power{std=%.17g}", std[i % ns]);
        got[i] = design_call(&p, expr, &s, NULL, 0);
    }
    /* the published exponent comes from a root finder: 1e-9 of it */
    if (!p.failed) part_close_each(&p, "decay", "phema/beta_table", got, want, n, 1e-9);
    double *const mine[] = {std, t_next, want, got};
    for (size_t i = 0; i < ARRAY_LEN(mine); i++) mem_free(mine[i]);
    part_end(&p);
}

/* gamma of beta(t) = (1 - batch / t)^(gamma + 1), from two decays of the design function, against the published exponents; and the
 * way back, std = sqrt((gamma + 1) / ((gamma + 2)^2 (gamma + 3))) (Karras et al. 2024, eq. 123). */
static void check_exponents(struct gfile *f)
{
    struct part p;
    size_t n = 0;
    part_begin(&p, f, "phema exponents");
    double *std = need(&p, &n, "phema/std_list"), *want = need(&p, NULL, "phema/exp_list"),
           *back = need(&p, NULL, "phema/std_back");
    double *got = mem_array(n + 1, sizeof(double)), *got_back = mem_array(n + 1, sizeof(double));
    for (size_t i = 0; !p.failed && i < n; i++) {
        char expr[96];
        struct design_state s = {.nimg = 1, .step = 1, .batch = 1, .iters = 1000000}; /* 1 - batch / t = 1/2 */
        snprintf(expr, sizeof expr, "ect.ema.power{std=%.17g}", std[i]);
        double g = got[i] = -log2(design_call(&p, expr, &s, NULL, 0)) - 1;
        got_back[i] = sqrt((g + 1) / ((g + 2) * (g + 2) * (g + 3)));
    }
    if (!p.failed) {
        part_close_each(&p, "decay", "phema/exp_list", got, want, n, 1e-9);
        part_close_each(&p, "decay", "phema/std_back", got_back, back, n, 1e-9);
    }
    double *const mine[] = {std, want, back, got, got_back};
    for (size_t i = 0; i < ARRAY_LEN(mine); i++) mem_free(mine[i]);
    part_end(&p);
}

static void check_power(struct gfile *f, const double *params, size_t steps, size_t n, int batch)
{
    json_t *meta = meta_json(f, "phema");
    const json_t *stds = json_object_get(meta, "stds");
    size_t columns = json_array_size(stds);
    for (size_t i = 0; i < columns; i++) {
        char expr[96], part[64];
        double std = json_number_value(json_array_get(stds, i));
        snprintf(expr, sizeof expr, "ect.ema.power{std=%.17g}", std);
        snprintf(part, sizeof part, "phema std %g", std);
        struct ema_case c = {part, "phema/out", "phema/beta", expr, i, columns};
        check_average(f, &c, params, steps, n, batch);
    }
    if (has_tensor(f, "phema/beta_table")) check_beta_table(f, batch);
    if (has_tensor(f, "phema/exp_list")) check_exponents(f);
    json_decref(meta);
}

/* The decay of a group that does not say it: from the first update, e1 = beta e0 + (1 - beta) p1. The published default where it is that. */
static double first_decay(struct gfile *f, const char *out, const double *params, size_t n)
{
    double *e = take(f, NULL, "%s", out), dot = 0, square = 0;
    for (size_t i = 0; i < n; i++) {
        double p1 = params[n + i], d = params[i] - p1;
        dot += (e[i] - p1) * d;
        square += d * d;
    }
    mem_free(e);
    double beta = dot / square;
    return fabs(beta - 0.9999) < 1e-6 ? 0.9999 : beta;
}

/* A constant decay is in the file: its first value is the setting. */
static void check_constant(struct gfile *f, const char *group, const double *params, size_t steps, size_t n, int batch)
{
    char out[80], betas[80], expr[96];
    snprintf(out, sizeof out, "%s/out", group);
    snprintf(betas, sizeof betas, "%s/beta", group);
    double *stored = has_tensor(f, "%s", betas) ? take(f, NULL, "%s", betas) : NULL;
    snprintf(expr, sizeof expr, "ect.ema.const{beta=%.17g}", stored ? stored[0] : first_decay(f, out, params, n));
    struct ema_case c = {group, out, stored ? betas : NULL, expr, 0, 1};
    check_average(f, &c, params, steps, n, batch);
    mem_free(stored);
}

static void check_halflife(struct gfile *f, const char *group, const char *expr, const double *params, size_t steps,
                           size_t n, int batch)
{
    char out[80], betas[80];
    snprintf(out, sizeof out, "%s/out", group);
    snprintf(betas, sizeof betas, "%s/beta", group);
    struct ema_case c = {group, out, has_tensor(f, "%s", betas) ? betas : NULL, expr, 0, 1};
    check_average(f, &c, params, steps, n, batch);
}

/* ---- reconstruction after training ------------------------------------------------------------------------------------------------------- */

struct posthoc {
    size_t nin, nout, n; /* averages stored and wanted; values of each */
    struct ema_profile *in, *out;
    double *coefs; /* [nin, nout], ours */
};

/* A[i, j] and B[i, j]: our inner products against theirs. */
static void compare_dots(struct part *p, const char *name, const struct ema_profile *a, size_t na,
                         const struct ema_profile *b, size_t nb)
{
    size_t n = 0;
    double *want = need(p, &n, "posthoc/%s", name), *got = mem_array(na * nb, sizeof(double));
    for (size_t i = 0; i < na * nb; i++) got[i] = ema_dot(a[i / nb], b[i % nb]);
    if (want && n != na * nb) part_fail(p, "posthoc/%s does not fit its axes", name);
    /* the published exponent comes from a root finder and is raised to powers: 1e-9 */
    if (!p->failed) part_close_each(p, "profile", name, got, want, n, 1e-9);
    mem_free(want);
    mem_free(got);
}

/* Half precision and back, ties to even: what a file of float16 keeps. */
static double half(double x)
{
    if (x == 0) return x;
    int e;
    frexp(x, &e);
    double unit = ldexp(1, (e - 1 < -14 ? -14 : e - 1) - 10);
    return rint(x / unit) * unit;
}

/* The stored values combined: in double by our coefficients against out64; one by one in float, in the order of the files, against what the
 * published tool gives and saves. */
static void compare_reconstruction(struct part *p, const struct posthoc *h, double relative)
{
    size_t total = 0;
    double *snap = need(p, &total, "posthoc/snapshots"), *want64 = need(p, NULL, "posthoc/out64");
    double *want = need(p, NULL, "posthoc/out"), *want16 = need(p, NULL, "posthoc/out_f16");
    if (!p->failed && total != h->nin * h->n) part_fail(p, "posthoc/snapshots does not fit its axes");
    double *got = mem_array(h->n, sizeof(double)), *single = mem_array(h->n, sizeof(double)),
           *halves = mem_array(h->n, sizeof(double));
    for (size_t k = 0; !p->failed && k < h->nout; k++) {
        double size = 0, sum = 0;
        for (size_t i = 0; i < h->nin; i++) sum += fabs(h->coefs[i * h->nout + k]);
        size = sum * max_abs(snap, total); /* of the terms: cancellation is measured by them */
        for (size_t e = 0; e < h->n; e++) {
            float f = 0;
            got[e] = 0;
            for (size_t i = 0; i < h->nin; i++) {
                double c = h->coefs[i * h->nout + k], x = snap[i * h->n + e];
                got[e] += c * x;
                f += (float)x * (float)c;
            }
            single[e] = f;
            halves[e] = half(f);
        }
        part_close(p, "reconstruction", "out64", got, want64 + k * h->n, h->n, relative * size);
        part_close(p, "reconstruction", "out", single, want + k * h->n, h->n, bound_factor * noise_floor(0) * size);
        part_close(p, "reconstruction", "out as doubles", got, want + k * h->n, h->n,
                   bound_factor * noise_floor(0) * size);
        part_close(p, "reconstruction", "out_f16", halves, want16 + k * h->n, h->n,
                   ldexp(1, -10) * max_abs(want16 + k * h->n, h->n));
        for (size_t e = 0; e < h->n; e++) halves[e] = half(want[k * h->n + e]);
        part_equal(p, "reconstruction", "out rounded to float16", halves, want16 + k * h->n, h->n);
    }
    double *const mine[] = {snap, want64, want, want16, got, single, halves};
    for (size_t i = 0; i < ARRAY_LEN(mine); i++) mem_free(mine[i]);
}

/* Columns of normalised profiles on a grid of response_len points. Where each ends and its exponent are not in the file: the end is where
 * the zeros begin, and the exponent follows from the last two values; all others must then agree. */
static void check_response(struct gfile *f)
{
    struct part p;
    size_t total = 0;
    part_begin(&p, f, "posthoc response");
    double *want = need(&p, &total, "posthoc/response"), *len = need(&p, NULL, "posthoc/response_len");
    size_t n = len ? (size_t)len[0] : 0, columns = n ? total / n : 0;
    double *got = mem_array(n + 1, sizeof(double)), *column = mem_array(n + 1, sizeof(double));
    if (!p.failed && (n < 3 || total % n)) part_fail(&p, "posthoc/response does not fit response_len");
    for (size_t k = 0; !p.failed && k < columns; k++) {
        size_t end = n - 1;
        for (size_t i = 0; i < n; i++) column[i] = want[i * columns + k];
        while (end > 2 && column[end] == 0) end--;
        double g = log(column[end] / column[end - 1]) / log((double)end / (double)(end - 1));
        double std = sqrt((g + 1) / ((g + 2) * (g + 2) * (g + 3)));
        ema_response((struct ema_profile){.nimg = (double)end, .std = std}, (int)n, got);
        part_close(&p, "profile", "posthoc/response", got, column, n, 1e-9 * max_abs(column, n));
    }
    double *const mine[] = {want, len, got, column};
    for (size_t i = 0; i < ARRAY_LEN(mine); i++) mem_free(mine[i]);
    part_end(&p);
}

static struct ema_profile *profiles(const double *nimg, bool one_time, const double *std, size_t n)
{
    struct ema_profile *v = mem_array(n + 1, sizeof *v);
    for (size_t i = 0; i < n; i++) v[i] = (struct ema_profile){.nimg = nimg[one_time ? 0 : i], .std = std[i]};
    return v;
}

static void check_posthoc(struct gfile *f)
{
    struct part p;
    struct posthoc h = {0};
    size_t total = 0, ntimes = 0;
    json_t *meta = meta_json(f, "posthoc");
    double out_nimg = json_num(meta, "out_nimg", 0), cond = json_num(meta, "cond_A", 0);
    part_begin(&p, f, "posthoc profiles");
    double *nimg = need(&p, &ntimes, "posthoc/in_nimg"), *in_std = need(&p, &h.nin, "posthoc/in_std");
    double *out_std = need(&p, &h.nout, "posthoc/out_std"), *want = need(&p, &total, "posthoc/coefs");
    if (!p.failed && (ntimes != h.nin || total != h.nin * h.nout || !(out_nimg > 0)))
        part_fail(&p, "in_nimg, in_std, out_std, coefs and out_nimg do not fit each other");
    if (p.failed) {
        part_end(&p);
        goto done;
    }
    h.in = profiles(nimg, false, in_std, h.nin);
    h.out = profiles(&out_nimg, true, out_std, h.nout);
    if (has_tensor(f, "posthoc/A")) compare_dots(&p, "A", h.in, h.nin, h.in, h.nin);
    if (has_tensor(f, "posthoc/B")) compare_dots(&p, "B", h.in, h.nin, h.out, h.nout);
    part_end(&p);

    /* An error of A of a few units in the last place (exponents, powers) grows by the condition number. */
    double relative = 2e-15 * (cond > 1 ? cond : 1);
    part_begin(&p, f, "posthoc coefficients");
    h.coefs = mem_array(total, sizeof(double));
    double *x = mem_array(h.nin, sizeof(double));
    for (size_t k = 0; k < h.nout && !p.failed; k++) {
        if (ema_solve(h.in, (int)h.nin, h.out[k], x, NULL)) part_fail(&p, "%s", err_text());
        for (size_t i = 0; i < h.nin; i++) h.coefs[i * h.nout + k] = x[i];
    }
    if (!p.failed)
        part_close(&p, "coefficient", "posthoc/coefs", h.coefs, want, total, relative * max_abs(want, total));
    part_end(&p);
    mem_free(x);
    if (has_tensor(f, "posthoc/snapshots")) {
        part_begin(&p, f, "posthoc reconstruction");
        h.n = st_find(f->st, "posthoc/snapshots")->count / h.nin;
        compare_reconstruction(&p, &h, relative);
        part_end(&p);
    }
    if (has_tensor(f, "posthoc/response")) check_response(f);
done:
    json_decref(meta);
    double *const mine[] = {nimg, in_std, out_std, want, h.coefs};
    for (size_t i = 0; i < ARRAY_LEN(mine); i++) mem_free(mine[i]);
    mem_free(h.in);
    mem_free(h.out);
}

void check_ema(struct gfile *f)
{
    struct part p;
    char expr[160];
    size_t total = 0;
    int64_t steps = 0, batch = 0;
    json_t *edm = meta_json(f, "ema_edm"), *imgnet = meta_json(f, "ema_imgnet_halflife");
    json_t *edm2 = meta_json(f, "ema_edm2_traditional"); /* where it differs from imgnet's */
    const char *s = st_meta(f->st, "steps"), *b = st_meta(f->st, "batch_size");
    part_begin(&p, f, "inputs");
    double *params = need(&p, &total, "in/params");
    if (!s || !b || !int_parse(s, &steps) || !int_parse(b, &batch) || steps < 1 || batch < 1 ||
        total % (size_t)(steps + 1))
        part_fail(&p, "no steps or batch_size that fit in/params");
    if (p.failed) {
        part_end(&p);
        goto done;
    }
    size_t k = (size_t)steps, n = total / (k + 1);
    if (has_tensor(f, "phema/out")) check_power(f, params, k, n, (int)batch);
    for (int i = 0; i < st_count(f->st); i++) { /* every group ema_const*: its decay is in the file */
        char group[64];
        const char *name = st_at(f->st, i)->name, *slash = strchr(name, '/');
        if (strncmp(name, "ema_const", 9) || !slash || strcmp(slash, "/out") || slash - name >= (long)sizeof group)
            continue;
        snprintf(group, sizeof group, "%.*s", (int)(slash - name), name);
        check_constant(f, group, params, k, n, (int)batch);
    }
    double img = json_num(edm, "halflife_img", 0), ramp = json_num(edm, "rampup_ratio", 0);
    snprintf(expr, sizeof expr, "ect.ema.halflife{img=%.17g,ramp=%.17g}", img, ramp);
    if (has_tensor(f, "ema_edm_rampup/out")) check_halflife(f, "ema_edm_rampup", expr, params, k, n, (int)batch);
    snprintf(expr, sizeof expr, "ect.ema.halflife{img=%.17g}", img);
    if (has_tensor(f, "ema_edm_norampup/out")) check_halflife(f, "ema_edm_norampup", expr, params, k, n, (int)batch);
    if (has_tensor(f, "ema_imgnet_online/out")) check_constant(f, "ema_imgnet_online", params, k, n, (int)batch);
    const json_t *after[] = {imgnet, edm2 ? edm2 : imgnet};
    for (int i = 0; i < 2; i++) {
        const char *group = i ? "ema_edm2_traditional" : "ema_imgnet_halflife";
        char out[64];
        snprintf(out, sizeof out, "%s/out", group);
        snprintf(expr, sizeof expr, "ect.ema.halflife_after{img=%.17g,ramp=%.17g}",
                 json_num(after[i], "halflife_Mimg", 0) * 1e6, json_num(after[i], "rampup_ratio", 0));
        if (has_tensor(f, "%s", out)) check_halflife(f, group, expr, params, k, n, (int)batch);
    }
    if (has_tensor(f, "posthoc/in_nimg")) check_posthoc(f);
done:
    mem_free(params);
    json_decref(edm);
    json_decref(imgnet);
    json_decref(edm2);
}
