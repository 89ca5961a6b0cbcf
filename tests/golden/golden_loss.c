/* Objectives: t, r and w from lua/ect/design.lua, the loss and its gradient from the trainer's own micro-batch (core/train_pass.h). */
#include "tests/golden/golden.h"

#include <math.h>
#include <string.h>

#include "core/train_pass.h"

struct batch { /* shared by the cases of a file */
    struct gnet net;
    size_t n;
    double *y, *eps, *labels;
};
struct rows {
    double *t, *r, *w; /* [n] */
};

static double normal_cdf(double z)
{
    return 0.5 * erfc(-z / sqrt(2));
}

static bool batch_open(struct batch *b, struct part *p, double sigma_data)
{
    size_t ny = 0, ne = 0;
    b->y = b->eps = b->labels = NULL;
    bool ok = gnet_open(&b->net, p, sigma_data);
    b->y = need(p, &ny, "in/y");
    b->eps = need(p, &ne, "in/eps");
    if (!ok || p->failed) return false;
    b->n = ny / b->net.per;
    if (ny != ne || b->n * b->net.per != ny) part_fail(p, "in/y and in/eps do not fit the configuration");
    params_force_norm(
        b->net.weights); /* where there is one: the student's forward begins with it, the teacher's does not */
    b->labels = gnet_labels(p, &b->net, b->n);
    return !p->failed;
}

static void batch_close(struct batch *b)
{
    gnet_close(&b->net);
    mem_free(b->y);
    mem_free(b->eps);
    mem_free(b->labels);
}

static struct rows rows_new(size_t n)
{
    double *x = mem_array(3 * n + 1, sizeof(double));
    return (struct rows){x, x + n, x + 2 * n};
}

/* The published draws are normals z; the library's noise function takes their quantiles u. */
static void draw_levels(struct part *p, const char *z_name, double mean, double std, size_t n, double *t)
{
    size_t nz = 0;
    char expr[128];
    struct design_state s = {.sigma_data = 0.5};
    double *z = need(p, &nz, "%s", z_name);
    snprintf(expr, sizeof expr, "ect.noise.lognormal{mean=%.17g,std=%.17g}", mean, std);
    if (z && nz != n) part_fail(p, "%s has %zu values for %zu images", z_name, nz, n);
    for (size_t i = 0; z && nz == n && i < n; i++) {
        double u = normal_cdf(z[i]);
        t[i] = design_call(p, expr, &s, &u, 1);
    }
    mem_free(z);
}

static struct pass *run_target(struct part *p, const struct batch *b, const char *target, const struct loss_opts *loss,
                               double sigma_data, const struct rows *rows, float *grad)
{
    struct pass *pass = NULL;
    struct golden *g = b->net.g;
    const struct target *t = target_find(target);
    struct pass_config c = {.graph = b->net.graph,
                            .kernels = g->k,
                            .dev = g->dev,
                            .rows = (int)b->n,
                            .per = (int)b->net.per,
                            .label_dim = b->net.c.label_dim,
                            .augment_dim = b->net.c.augment_dim,
                            .teacher = t->needs_r,
                            .share_noise = true,
                            .share_dropout = true,
                            .sigma_data = sigma_data,
                            .loss = *loss};
    struct pass_rows r = {.n = (int)b->n,
                          .global_batch = (int)b->n,
                          .t = rows->t,
                          .r = rows->r,
                          .w = rows->w,
                          .weights = b->net.weights,
                          .grad = grad};
    if (pass_new(&pass, &c)) {
        part_fail(p, "%s", err_text());
        return NULL;
    }
    gnet_upload(&b->net, pass_y(pass), b->y, b->n);
    gnet_upload(&b->net, pass_eps(pass), b->eps, b->n);
    if (b->labels) device_put(g, pass_labels(pass), b->labels, b->n * (size_t)b->net.c.label_dim);
    if (pass_run(pass, t, &r)) part_fail(p, "%s", err_text());
    return pass;
}

static void compare_images(struct part *p, const struct batch *b, const float *dev, const char *prefix,
                           const char *name, double noise)
{
    double *want = take(p->f, NULL, "%sout/%s", prefix, name);
    if (!want) return;
    double *got = gnet_download(&b->net, dev, b->n);
    size_t n = b->n * b->net.per;
    part_close(p, "output", name, got, want, n, bound_factor * noise_floor(noise) * max_abs(want, n));
    mem_free(got);
    mem_free(want);
}

/* from: the level that this one was made of by t (1 - n), a difference whose roundings are t's however small it is. */
static void compare_level(struct part *p, const char *prefix, const char *name, const double *got, const double *from,
                          size_t n)
{
    double *want = take(p->f, NULL, "%sout64/%s", prefix, name), *f32 = need(p, NULL, "%sout/%s", prefix, name);
    double each = bound_factor * noise_floor(0);
    if (want) part_close_each(p, "noise level", name, got, want, n, each);
    for (size_t i = 0; f32 && i < n; i++) {
        part_close(p, "noise level", name, got + i, f32 + i, 1, each * fabs(from[i]));
        p->tensors -= i > 0;
    }
    for (size_t i = 0; f32 && i < n; i++) {
        if ((got[i] == 0) != (f32[i] == 0)) part_fail(p, "%s[%zu] is zero on one side only", name, i);
    }
    mem_free(want);
    mem_free(f32);
}

/* ---- ECT: the main branch, and imgnet with its other weighting ------------------------------------------------------------------------------------------------------------------- */

static bool case_levels(struct part *p, const json_t *c, const char *prefix, size_t n, const char *weighting,
                        struct rows *rows)
{
    char expr[160], z[64];
    double sigma_data = json_num(c, "sigma_data", 0.5), q = json_num(c, "q", 2);
    const char *adj = json_string_value(json_object_get(c, "adj"));
    struct design_state s = {.stage = (int)json_num(c, "stage", 0), .sigma_data = sigma_data, .batch = (int)n};
    snprintf(z, sizeof z, "%sin/rnd_normal", prefix);
    draw_levels(p, z, json_num(c, "P_mean", -1.1), json_num(c, "P_std", 2), n, rows->t);
    if (adj && !strcmp(adj, "const")) snprintf(expr, sizeof expr, "ect.mapping.const{q=%.17g}", q);
    else if (adj && !strcmp(adj, "sigmoid"))
        snprintf(expr, sizeof expr, "ect.mapping.sigmoid{q=%.17g,k=%.17g,b=%.17g}", q, json_num(c, "k", 8),
                 json_num(c, "b", 1));
    else part_fail(p, "unknown mapping adj = %s", adj ? adj : "(none)");
    for (size_t i = 0; !p->failed && i < n; i++) {
        rows->r[i] = design_call(p, expr, &s, &rows->t[i], 1);
        double tr[2] = {rows->t[i], rows->r[i]};
        rows->w[i] = design_call(p, weighting, &s, tr, 2);
    }
    return !p->failed;
}

/* No loss is known better than D_t and c are, whose difference is lost in their rounding when D_r is close: one rounding of the larger,
 * times the weight, is the least that the rule's bound is 20 times of. */
static void compare_losses(struct part *p, const struct batch *b, const struct pass *pass, const double *w,
                           const char *prefix, double c, double noise)
{
    double *want = need(p, NULL, "%sout64/loss", prefix), *f32 = need(p, NULL, "%sout/loss", prefix);
    double *d = gnet_download(&b->net, pass_d_t(pass), b->n);
    const double *got = pass_loss(pass);
    for (size_t i = 0; want && f32 && i < b->n; i++) {
        double rounding = w[i] * noise_floor(0) * fmax(c, max_abs(d + i * b->net.per, b->net.per));
        double unit = fmax(noise_floor(noise) * max_abs(want, b->n), rounding);
        part_close(p, "loss", "loss", got + i, want + i, 1, bound_factor * unit);
        part_close(p, "loss", "loss", got + i, f32 + i, 1, (bound_factor + 1) * unit);
        p->tensors -= 2 * (i > 0);
    }
    mem_free(want);
    mem_free(f32);
    mem_free(d);
}

static bool has_tensors(const struct gfile *f, const char *prefix, const char *group)
{
    char start[64];
    size_t len = (size_t)snprintf(start, sizeof start, "%s%s", prefix, group);
    for (int i = 0; i < st_count(f->st); i++) {
        if (!strncmp(st_at(f->st, i)->name, start, len)) return true;
    }
    return false;
}

static void check_case(struct gfile *f, const struct batch *b, const char *weighting, const json_t *c)
{
    struct part p;
    char prefix[32];
    int number = (int)json_num(c, "case", -1);
    struct golden *g = b->net.g;
    struct rows rows = rows_new(b->n);
    float *grad = device_new(g, NULL, graph_arena_floats(b->net.graph));
    double noise = json_num(c, "loss_f32_vs_f64", 0), grad_noise = json_num(c, "grad_f32_vs_f64", 0);
    struct loss_opts loss = {.metric = LOSS_HUBER, .c = json_num(c, "c", 0)};
    struct pass *pass = NULL;
    snprintf(prefix, sizeof prefix, "case%02d/", number);

    part_begin(&p, f, "case%02d t r", number);
    bool ok = case_levels(&p, c, prefix, b->n, weighting, &rows);
    if (ok) {
        compare_level(&p, prefix, "t", rows.t, rows.t, b->n);
        compare_level(&p, prefix, "r", rows.r, rows.t, b->n);
    }
    part_end(&p);

    part_begin(&p, f, "case%02d loss", number);
    if (ok) pass = run_target(&p, b, "ect", &loss, json_num(c, "sigma_data", 0.5), &rows, grad);
    if (pass) {
        const json_t *teacher = json_object_get(c, "teacher_evaluated");
        compare_losses(&p, b, pass, rows.w, prefix, loss.c, noise);
        if (teacher)
            part_same(&p, "teacher evaluated", "teacher evaluated", pass_teacher_ran(pass) ? "true" : "false",
                      json_is_true(teacher) ? "true" : "false");
        compare_images(&p, b, pass_d_t(pass), prefix, "D_t", NET_NOISE);
        compare_images(&p, b, pass_d_r(pass), prefix, "D_r", NET_NOISE);
    }
    part_end(&p);

    if (pass && has_tensors(f, prefix, "param_after")) {
        part_begin(&p, f, "case%02d normalised weights", number);
        gnet_compare_weights(&p, &b->net, prefix);
        part_end(&p);
    }
    if (pass && has_tensors(f, prefix, "grad")) {
        part_begin(&p, f, "case%02d gradients", number);
        gnet_compare_grads(&p, &b->net, grad, prefix, grad_noise, json_object_get(c, "nonfinite_grads"));
        part_end(&p);
    }
    pass_free(pass);
    g->k->free(g->dev, grad);
    mem_free(rows.t);
}

void check_ect_loss(struct gfile *f)
{
    struct part p;
    struct batch b = {0};
    const char *branch = st_meta(f->st, "branch");
    bool main_branch = branch && !strcmp(branch, "main"), imgnet = branch && !strcmp(branch, "imgnet");
    const char *weighting = main_branch ? "ect.weight.inv_dt{}" : "ect.weight.snr_plus{}";
    json_t *cases = meta_json(f, "cases");
    part_begin(&p, f, "network");
    if (!main_branch && !imgnet) part_fail(&p, "unknown branch '%s' of ECT", branch ? branch : "(none)");
    if (!json_array_size(cases)) part_fail(&p, "no cases in its metadata");
    /* one network for all cases: the sigma_data of a case is the loss's alone */
    if (!p.failed && batch_open(&b, &p, 0.5))
        for (size_t i = 0; i < json_array_size(cases); i++) check_case(f, &b, weighting, json_array_get(cases, i));
    if (p.failed) part_end(&p);
    batch_close(&b);
    json_decref(cases);
}

/* ---- EDM ------------------------------------------------------------------------------------------------------------------------------------- */

static double meta_num(const struct gfile *f, const char *key, double absent)
{
    double v;
    const char *text = st_meta(f->st, key);
    return text && num_parse(text, &v) ? v : absent;
}

static void check_edm_values(struct gfile *f, const struct batch *b, const struct pass *pass, const struct rows *rows)
{
    struct part p;
    size_t n = b->n * b->net.per;
    double noise = noise_floor(meta_num(f, "loss_f32_vs_f64", 0));
    double *d = gnet_download(&b->net, pass_d_t(pass), b->n), *loss = mem_array(n, sizeof(double));
    double *sums = mem_array(b->n, sizeof(double));
    part_begin(&p, f, "loss");
    double *want = need(&p, NULL, "out64/loss"), *f32 = need(&p, NULL, "out/loss");
    for (size_t i = 0; i < n; i++) loss[i] = rows->w[i / b->net.per] * (d[i] - b->y[i]) * (d[i] - b->y[i]);
    if (want && f32) {
        double unit = noise * max_abs(want, n);
        part_close(&p, "loss", "loss", loss, want, n, bound_factor * unit);
        part_close(&p, "loss", "loss", loss, f32, n, (bound_factor + 1) * unit);
        for (size_t i = 0; i < n; i++) sums[i / b->net.per] += want[i];
        part_close(&p, "loss", "sum of an image", pass_loss(pass), sums, b->n,
                   bound_factor * noise * max_abs(sums, b->n));
        p.tensors--;
    }
    compare_images(&p, b, pass_d_t(pass), "", "D", noise);
    part_end(&p);
    mem_free(d);
    mem_free(loss);
    mem_free(sums);
    mem_free(want);
    mem_free(f32);
}

void check_edm_loss(struct gfile *f)
{
    struct part p;
    struct batch b = {0};
    double sigma_data = meta_num(f, "sigma_data", 0.5);
    part_begin(&p, f, "network");
    if (!batch_open(&b, &p, sigma_data)) {
        part_end(&p);
        batch_close(&b);
        return;
    }
    struct golden *g = b.net.g;
    struct rows rows = rows_new(b.n);
    float *grad = device_new(g, NULL, graph_arena_floats(b.net.graph));
    struct design_state s = {.sigma_data = sigma_data};
    struct loss_opts loss = {0};

    part_begin(&p, f, "sigma");
    draw_levels(&p, "in/rnd_normal", meta_num(f, "P_mean", -1.2), meta_num(f, "P_std", 1.2), b.n, rows.t);
    for (size_t i = 0; !p.failed && i < b.n; i++) {
        double tr[2] = {rows.t[i], 0};
        rows.w[i] = design_call(&p, "ect.weight.edm{}", &s, tr, 2);
    }
    if (!p.failed) compare_level(&p, "", "sigma", rows.t, rows.t, b.n);
    bool ok = !p.failed;
    part_end(&p);

    part_begin(&p, f, "gradients");
    struct pass *pass = ok ? run_target(&p, &b, "edm", &loss, sigma_data, &rows, grad) : NULL;
    if (pass && !p.failed) {
        check_edm_values(f, &b, pass, &rows);
        gnet_compare_grads(&p, &b.net, grad, "", meta_num(f, "grad_f32_vs_f64", 0), NULL);
    }
    part_end(&p);
    pass_free(pass);
    g->k->free(g->dev, grad);
    mem_free(rows.t);
    batch_close(&b);
}
