/* The update: optimisers and gradient clean-up through the device's kernels, learning rates and EMA decays through design.lua. */
#include "tests/golden/golden.h"

#include <math.h>
#include <string.h>

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
    double *a = mem_array(steps, sizeof(double)), *b = mem_array(steps, sizeof(double));
    int tensors = p->tensors;
    for (size_t j = 0; j < n; j++) {
        double noise = 0;
        for (size_t i = 0; i < steps; i++) {
            a[i] = got[i * n + j];
            b[i] = want[i * n + j];
            if (f32 && fabs(f32[i * n + j] - b[i]) > noise) noise = fabs(f32[i * n + j] - b[i]);
        }
        double most = max_abs(b, steps);
        part_close(p, kind, what, a, b, steps, bound_factor * noise_floor(most > 0 ? noise / most : 0) * most);
    }
    p->tensors = tensors + 1;
    mem_free(a);
    mem_free(b);
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
        snprintf(expr, sizeof expr, "ect.lr.inv_sqrt{ref=%.17g,batches=%.17g,rampup=10000}", ref, batches);
        if (has_tensor(f, "lr/value_rampup10kimg")) check_lr(f, "value_rampup10kimg", expr, batch);
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

/* A constant decay is in the file: its first value is the setting. */
static void check_constant(struct gfile *f, const char *group, double beta, const double *params, size_t steps,
                           size_t n, int batch)
{
    char out[80], betas[80], expr[96];
    snprintf(out, sizeof out, "%s/out", group);
    snprintf(betas, sizeof betas, "%s/beta", group);
    double *stored = has_tensor(f, "%s", betas) ? take(f, NULL, "%s", betas) : NULL;
    snprintf(expr, sizeof expr, "ect.ema.const{beta=%.17g}", stored ? stored[0] : beta);
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

void check_ema(struct gfile *f)
{
    struct part p;
    char expr[160];
    size_t total = 0;
    int64_t steps = 0, batch = 0;
    json_t *edm = meta_json(f, "ema_edm"), *imgnet = meta_json(f, "ema_imgnet_halflife");
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
        check_constant(f, group, 0.9999, params, k, n, (int)batch);
    }
    double img = json_num(edm, "halflife_img", 0), ramp = json_num(edm, "rampup_ratio", 0);
    snprintf(expr, sizeof expr, "ect.ema.halflife{img=%.17g,ramp=%.17g}", img, ramp);
    if (has_tensor(f, "ema_edm_rampup/out")) check_halflife(f, "ema_edm_rampup", expr, params, k, n, (int)batch);
    snprintf(expr, sizeof expr, "ect.ema.halflife{img=%.17g}", img);
    if (has_tensor(f, "ema_edm_norampup/out")) check_halflife(f, "ema_edm_norampup", expr, params, k, n, (int)batch);
    if (has_tensor(f, "ema_imgnet_online/out"))
        check_constant(f, "ema_imgnet_online", 0.9999, params, k, n, (int)batch);
    snprintf(expr, sizeof expr, "ect.ema.halflife_after{img=%.17g,ramp=%.17g}",
             json_num(imgnet, "halflife_Mimg", 0) * 1e6, json_num(imgnet, "rampup_ratio", 0));
    if (has_tensor(f, "ema_imgnet_halflife/out"))
        check_halflife(f, "ema_imgnet_halflife", expr, params, k, n, (int)batch);
    if (has_tensor(f, "ema_edm2_traditional/out"))
        check_halflife(f, "ema_edm2_traditional", expr, params, k, n, (int)batch);
    if (has_tensor(f, "posthoc/in_nimg"))
        part_not_yet(f, "posthoc", "reconstruction of EMAs after training is not built yet");
done:
    mem_free(params);
    json_decref(edm);
    json_decref(imgnet);
}
