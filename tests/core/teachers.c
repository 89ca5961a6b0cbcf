/* Where the r pass gets its target from: other weights, a step of the frozen teacher's ODE, evaluation mode; and the two parts of a loss that
 * are not distances of images, the uncertainty head and a script's adaptive factor. */
#include "tests/test.h"

#include "core/nets.h"
#include "core/rng.h"
#include "core/train_pass.h"

enum { N = 4, PER = 16, LABELS = 3 };
#define SIGMA_MIN 0.002
#define SD 0.5

struct lab {
    struct graph *g;
    struct params *w, *other, *frozen;
    float *grad, *grad2;
};
static const struct kernels *k;
static struct kdev *dev;
static double t[N] = {0.3, 1.2, 40, 0.9}, r[N], weight[N] = {1.5, 0.7, 2, 1};

static void disturb(const struct graph *g, struct params *w, uint64_t seed)
{
    struct rng noise = {.seed = seed,
                        .purpose = RNG_TEST}; /* layers that start at zero would hide what is behind them */
    for (int i = 0; i < graph_nparams(g); i++) {
        const struct param_info *info = graph_param_info(g, i);
        if (info->buffer) continue;
        float *x = mem_array(info->count, sizeof *x);
        params_get(w, i, x);
        for (size_t j = 0; j < info->count; j++) x[j] += 0.2F * rng_normal(&noise, (uint32_t)i, (uint32_t)j);
        params_set(w, i, x);
        mem_free(x);
    }
    params_changed(w);
}

static struct lab lab_open(const char *family, double sigma_min, bool logvar)
{
    struct lab l = {.g = graph_new()};
    struct net_config c = {.resolution = 4,
                           .in_channels = 1,
                           .label_dim = LABELS,
                           .width = 8,
                           .mult = {1},
                           .nmult = 1,
                           .blocks = 1,
                           .emb_mult = 2,
                           .noise_mult = 1,
                           .head = 8,
                           .clip = 256,
                           .logvar = logvar,
                           .logvar_channels = 8,
                           .sigma_data = SD,
                           .sigma_min = sigma_min};
    snprintf(c.family, sizeof c.family, "%s", family);
    assert_ok(net_build(l.g, &c));
    struct params **const sets[] = {&l.w, &l.other, &l.frozen};
    for (size_t i = 0; i < ARRAY_LEN(sets); i++) {
        assert_ok(params_new(sets[i], l.g, k, dev));
        params_init(*sets[i], 3);
        disturb(l.g, *sets[i], 5 + i);
    }
    l.grad = k->alloc(dev, graph_arena_floats(l.g) * sizeof(float));
    l.grad2 = k->alloc(dev, graph_arena_floats(l.g) * sizeof(float));
    return l;
}

static void lab_close(struct lab *l)
{
    k->free(dev, l->grad);
    k->free(dev, l->grad2);
    params_free(l->w);
    params_free(l->other);
    params_free(l->frozen);
    graph_free(l->g);
}

static int setup(void **state)
{
    (void)state;
    return kernels_find("cpu", &k) || k->open(&dev, "cpu", 1) ? -1 : 0;
}
static int teardown(void **state)
{
    (void)state;
    k->close(dev);
    return 0;
}

static struct pass *open_pass(struct lab *l, struct pass_config c)
{
    struct pass *p;
    float onehot[N * LABELS] = {0};
    c.graph = l->g;
    c.kernels = k;
    c.dev = dev;
    c.rows = N;
    c.per = PER;
    c.h = c.w = 4;
    c.label_dim = LABELS;
    c.share_noise = true;
    c.sigma_data = SD;
    assert_ok(pass_new(&p, &c));
    struct kstream s = {.seed = 9, .purpose = RNG_TEST};
    k->normal(dev, pass_y(p), N, PER, &s);
    s.layer = 1;
    k->normal(dev, pass_eps(p), N, PER, &s);
    for (int i = 0; i < N; i++) onehot[i * LABELS + i % LABELS] = 1;
    k->upload(dev, pass_labels(p), onehot, sizeof onehot);
    return p;
}

static struct pass_rows rows_of(struct lab *l, struct params *teacher, float dropout, float *into)
{
    return (struct pass_rows){.n = N,
                              .global_batch = N,
                              .t = t,
                              .r = r,
                              .w = weight,
                              .dropout = dropout,
                              .drop = {.seed = 1, .purpose = RNG_DROPOUT},
                              .drop_r = {.seed = 1, .purpose = RNG_DROPOUT_R},
                              .weights = l->w,
                              .teacher = teacher,
                              .frozen = l->frozen,
                              .grad = into};
}

static void go(struct pass *p, struct lab *l, const char *target, struct params *teacher, float dropout, float *into)
{
    struct pass_rows rows = rows_of(l, teacher, dropout, into);
    k->fill(dev, into, 0, graph_arena_floats(l->g));
    assert_ok(pass_run(p, target_find(target), &rows));
}

static void set_r(double ratio)
{
    for (int i = 0; i < N; i++) r[i] = ratio * t[i];
}

/* Output of the network at level[i] on x, in a program of its own. */
static void network(struct lab *l, struct params *w, struct program_opts o, const char *name, const float *x,
                    const double *level, float dropout, float *out)
{
    struct program *prog;
    struct run_ctx ctx = {.dropout = dropout, .drop = {.seed = 1, .purpose = RNG_DROPOUT}};
    float sigma[N], onehot[N * LABELS] = {0};
    for (int i = 0; i < N; i++) sigma[i] = (float)level[i];
    for (int i = 0; i < N; i++) onehot[i * LABELS + i % LABELS] = 1;
    o.batch = N;
    o.only = name;
    assert_ok(program_new(&prog, l->g, k, dev, &o));
    k->upload(dev, program_input(prog, "x"), x, N * PER * sizeof *x);
    k->upload(dev, program_input(prog, "sigma"), sigma, sizeof sigma);
    k->upload(dev, program_input(prog, "labels"), onehot, sizeof onehot);
    program_forward(prog, w, &ctx);
    k->download(dev, out, program_output(prog, name), N * PER * sizeof *out);
    program_free(prog);
}

static void noisy(struct pass *p, const double *level, float *x)
{
    float y[N * PER], eps[N * PER];
    k->download(dev, y, pass_y(p), sizeof y);
    k->download(dev, eps, pass_eps(p), sizeof eps);
    for (int i = 0; i < N * PER; i++) x[i] = y[i] + (float)level[i / PER] * eps[i];
}

static void same_images(const float *got, const float *want, double bound)
{
    double most = 1;
    for (int i = 0; i < N * PER; i++) most = fmax(most, fabs((double)want[i]));
    for (int i = 0; i < N * PER; i++) assert_near(got[i], want[i], bound * most);
}

/* sigma_min: the formulas of the shifted preconditioning in both modes, the plain ones in a plain program, identity at sigma_min. */
static void boundary(void **state)
{
    (void)state;
    struct lab l = lab_open("songunet", SIGMA_MIN, false);
    float x[N * PER], f[N * PER], d[N * PER], want[N * PER];
    const double levels[N] = {SIGMA_MIN, 0.004, 0.5, 80};
    struct kstream s = {.seed = 9, .purpose = RNG_TEST};
    float *tmp = k->alloc(dev, sizeof x);
    k->normal(dev, tmp, N, PER, &s);
    k->download(dev, x, tmp, sizeof x);
    network(&l, l.w, (struct program_opts){0}, "F", x, levels, 0, f);
    for (int mode = 0; mode < 3; mode++) {
        network(&l, l.w, (struct program_opts){.eval_form = mode == 1, .plain_form = mode == 2}, "D", x, levels, 0, d);
        for (int i = 0; i < N * PER; i++) {
            double sigma = levels[i / PER], above = mode == 2 ? sigma : sigma - SIGMA_MIN;
            want[i] = (float)(SD * SD / (SD * SD + above * above) * (double)x[i] +
                              above * SD / sqrt(SD * SD + sigma * sigma) * (double)f[i]);
        }
        same_images(d, want, 1e-6);
        if (mode < 2) assert_memory_equal(d, x, PER * sizeof *d);
    }
    k->free(dev, tmp);
    lab_close(&l);
}

/* The r pass takes the teacher's weights and the gradient does not reach them. */
static void other_weights(void **state)
{
    (void)state;
    struct lab l = lab_open("songunet", 0, false);
    struct pass *p =
        open_pass(&l, (struct pass_config){.teacher = true, .share_dropout = true, .loss = {LOSS_L2, 0, 0}});
    float x[N * PER], want[N * PER], got[N * PER];
    set_r(0.5);
    for (int which = 0; which < 3; which++) {
        struct params *set = which == 0 ? NULL : which == 1 ? l.other : l.frozen;
        go(p, &l, "ct", set, 0.3F, l.grad);
        noisy(p, r, x);
        network(&l, set ? set : l.w, (struct program_opts){0}, "D", x, r, 0.3F, want);
        k->download(dev, got, pass_d_r(p), sizeof got);
        same_images(got, want, 1e-6);
        noisy(p, t, x);
        network(&l, l.w, (struct program_opts){0}, "D", x, t, 0.3F, want);
        k->download(dev, got, pass_d_t(p), sizeof got);
        same_images(got, want, 1e-6);
    }
    pass_free(p);
    lab_close(&l);
}

static void teacher_in_evaluation(void **state)
{
    (void)state;
    struct lab l = lab_open("songunet", 0, false);
    struct pass *p = open_pass(&l, (struct pass_config){.teacher = true, .share_dropout = true, .teacher_eval = true});
    float x[N * PER], want[N * PER], plain[N * PER], got[N * PER];
    set_r(0.5);
    r[0] = 0.01;
    go(p, &l, "ect", NULL, 0.5F, l.grad);
    noisy(p, r, x);
    network(&l, l.w, (struct program_opts){.eval_form = true}, "D", x, r, 0, want);
    network(&l, l.w, (struct program_opts){0}, "D", x, r, 0, plain);
    k->download(dev, got, pass_d_r(p), sizeof got);
    same_images(got, want, 1e-6);
    assert_true(fabs((double)got[0] - plain[0]) > 1e-5); /* the two forms differ at a low level */
    noisy(p, t, x);
    network(&l, l.w, (struct program_opts){0}, "D", x, t, 0.5F, want);
    k->download(dev, got, pass_d_t(p), sizeof got);
    same_images(got, want, 1e-6);
    pass_free(p);
    lab_close(&l);
}

/* x_r by Heun's method written out with programs of our own; D_r on it; four forward passes and one backward. */
static void distillation(void **state)
{
    (void)state;
    struct lab l = lab_open("songunet", SIGMA_MIN, false);
    struct pass *p = open_pass(
        &l, (struct pass_config){.teacher = true, .solves = true, .share_dropout = true, .loss = {LOSS_L2_MEAN, 0, 0}});
    float x[N * PER], d[N * PER], e[N * PER], want[N * PER], got[N * PER];
    double slope[N * PER];
    struct flops f;
    struct program_opts plain = {.plain_form = true};
    set_r(0.8);
    r[3] = 0; /* Euler's point then, and the target is that point itself */
    go(p, &l, "cd", l.other, 0.3F, l.grad);
    graph_flops(l.g, &f);
    assert_near(pass_flops(p), 6 * N * flops_total(&f), 1);
    noisy(p, t, x);
    network(&l, l.frozen, plain, "D", x, t, 0, d);
    for (int i = 0; i < N * PER; i++) {
        slope[i] = ((double)x[i] - d[i]) / t[i / PER];
        e[i] = (float)(x[i] + (r[i / PER] - t[i / PER]) * slope[i]);
    }
    double levels[N] = {r[0], r[1], r[2], 1};
    network(&l, l.frozen, plain, "D", e, levels, 0, d);
    for (int i = 0; i < N * PER; i++) {
        double lo = r[i / PER], second = ((double)e[i] - d[i]) / lo;
        want[i] = lo == 0 ? e[i] : (float)(x[i] + (lo - t[i / PER]) * (slope[i] + second) / 2);
    }
    k->download(dev, got, pass_x_r(p), sizeof got);
    same_images(got, want, 2e-6);
    network(&l, l.other, (struct program_opts){0}, "D", got, levels, 0.3F, want);
    memcpy(want + 3 * PER, got + 3 * PER, PER * sizeof *want);
    k->download(dev, got, pass_d_r(p), sizeof got);
    same_images(got, want, 1e-6);
    for (int i = 0; i < N; i++) assert_near(pass_loss(p)[i], weight[i] * pass_squares(p)[i] / PER, 1e-9);

    set_r(0); /* everywhere: one pass of the teacher, none of the target network */
    double before = pass_flops(p);
    go(p, &l, "cd", l.other, 0.3F, l.grad);
    assert_near(pass_flops(p) - before, 4 * N * flops_total(&f), 1);
    assert_false(pass_teacher_ran(p));
    assert_true(pass_d_r(p) == pass_x_r(p));
    pass_free(p);
    lab_close(&l);
}

/* With the same t, r, c, w iCT's loss and gradient are ECT's, bit for bit. */
static void ict_is_ect(void **state)
{
    (void)state;
    struct lab l = lab_open("songunet", 0, false);
    size_t n = graph_arena_floats(l.g);
    float *a = mem_array(n, sizeof *a), *b = mem_array(n, sizeof *b);
    struct pass *p =
        open_pass(&l, (struct pass_config){.teacher = true, .share_dropout = true, .loss = {LOSS_HUBER, 0.03, 0}});
    double losses[N];
    set_r(0.7);
    go(p, &l, "ect", NULL, 0.3F, l.grad);
    memcpy(losses, pass_loss(p), sizeof losses);
    go(p, &l, "ict", NULL, 0.3F, l.grad2);
    assert_memory_equal(losses, pass_loss(p), sizeof losses);
    k->download(dev, a, l.grad, n * sizeof *a);
    k->download(dev, b, l.grad2, n * sizeof *b);
    assert_memory_equal(a, b, n * sizeof *a);
    for (int i = 0; i < N; i++) {
        double want = weight[i] * (sqrt(pass_squares(p)[i] + 0.03 * 0.03) - 0.03);
        assert_near(losses[i], want, 1e-6 * want);
    }
    mem_free(a);
    mem_free(b);
    pass_free(p);
    lab_close(&l);
}

static err_t factor_of(void *ctx, int n, const double *tt, const double *rr, const double *d, double *a)
{
    (*(int *)ctx)++;
    for (int i = 0; i < n; i++) a[i] = 0.5 + tt[i] + 10 * rr[i] + 1 / (d[i] + 1);
    return ERR_OK;
}

/* The factor multiplies loss and gradient and is itself a constant: twice the factor, twice the gradient. */
static void adapted(void **state)
{
    (void)state;
    struct lab l = lab_open("songunet", 0, false);
    size_t n = graph_arena_floats(l.g);
    float *a = mem_array(n, sizeof *a), *b = mem_array(n, sizeof *b);
    int calls = 0;
    struct pass_config c = {.teacher = true, .share_dropout = true, .loss = {LOSS_L1, 0, 0}};
    struct pass *plain = open_pass(&l, c);
    c.adapt = factor_of;
    c.adapt_ctx = &calls;
    struct pass *p = open_pass(&l, c);
    double was[N], keep[N];
    set_r(0.6);
    go(plain, &l, "ect", NULL, 0, l.grad);
    go(p, &l, "ect", NULL, 0, l.grad);
    assert_int_equal(calls, 1);
    memcpy(keep, weight, sizeof keep);
    for (int i = 0; i < N; i++) {
        double f = 0.5 + t[i] + 10 * r[i] + 1 / (sqrt(pass_squares(p)[i]) + 1);
        was[i] = pass_loss(p)[i];
        assert_near(was[i], f * pass_loss(plain)[i], 1e-6 * was[i]);
        weight[i] *= f; /* as a plain weight it must give the same gradient */
    }
    go(plain, &l, "ect", NULL, 0, l.grad2);
    memcpy(weight, keep, sizeof keep);
    k->download(dev, a, l.grad, n * sizeof *a);
    k->download(dev, b, l.grad2, n * sizeof *b);
    double most = 0;
    for (size_t i = 0; i < n; i++) most = fmax(most, fabs((double)b[i]));
    for (size_t i = 0; i < n; i++) assert_near(a[i], b[i], 1e-5 * most);
    mem_free(a);
    mem_free(b);
    pass_free(p);
    pass_free(plain);
    lab_close(&l);
}

static double mean_loss(struct pass *p, struct lab *l)
{
    double sum = 0;
    go(p, l, "edm", NULL, 0, l->grad2);
    for (int i = 0; i < N; i++) sum += pass_loss(p)[i] / N;
    return sum;
}

/* Loss with the uncertainty head against EDM2's formula, summed over elements; its gradient, the head's too, against differences. */
static void uncertainty(void **state)
{
    (void)state;
    struct lab l = lab_open("edm2", 0, true);
    struct pass *p = open_pass(&l, (struct pass_config){.logvar = true});
    int head = 0;
    set_r(0);
    go(p, &l, "edm", NULL, 0, l.grad);
    float x[N * PER], sigma[N], u[N];
    noisy(p, t, x);
    struct program *prog;
    struct run_ctx ctx = {0};
    assert_ok(program_new(&prog, l.g, k, dev, &(struct program_opts){.batch = N, .only = "logvar"}));
    for (int i = 0; i < N; i++) sigma[i] = (float)t[i];
    k->upload(dev, program_input(prog, "sigma"), sigma, sizeof sigma);
    program_forward(prog, l.w, &ctx);
    k->download(dev, u, program_output(prog, "logvar"), sizeof u);
    program_free(prog);
    for (int i = 0; i < N; i++) {
        double want = weight[i] / exp((double)u[i]) * pass_squares(p)[i] + PER * (double)u[i];
        assert_true(fabs((double)u[i]) > 1e-3);
        assert_near(pass_loss(p)[i], want, 1e-5 * fabs(want) + 1e-6);
    }
    for (int i = 0; i < graph_nparams(l.g); i++) {
        const struct param_info *info = graph_param_info(l.g, i);
        bool is_head = strstr(info->name, "logvar") != NULL;
        if (info->buffer || (i % 4 && !is_head)) continue;
        float *v = mem_array(info->count, sizeof *v), *d = mem_array(info->count, sizeof *d), h = 4e-3F;
        size_t j = info->count / 2;
        params_get(l.w, i, v);
        arena_get(l.g, k, dev, l.grad, i, d);
        float was = v[j];
        double side[2];
        for (int s = 0; s < 2; s++) {
            v[j] = was + (s ? h : -h);
            params_set(l.w, i, v);
            side[s] = mean_loss(p, &l);
        }
        v[j] = was;
        params_set(l.w, i, v);
        double numeric = (side[1] - side[0]) / (2 * (double)h);
        if (!(fabs(numeric - d[j]) <= 0.02 * fabs(numeric) + 4e-3))
            fail_msg("%s[%zu]: gradient %g, by differences %g", info->name, j, (double)d[j], numeric);
        head += is_head && fabs(numeric) > 0.01;
        mem_free(v);
        mem_free(d);
    }
    assert_true(head >= 1);
    pass_free(p);
    lab_close(&l);
}

/* A network with a head that nobody trains: plain loss, and the head's gradient is zero. */
static void untrained_head(void **state)
{
    (void)state;
    struct lab l = lab_open("edm2", 0, true);
    struct pass *p = open_pass(&l, (struct pass_config){.logvar = false});
    go(p, &l, "edm", NULL, 0, l.grad);
    for (int i = 0; i < N; i++) assert_near(pass_loss(p)[i], weight[i] * pass_squares(p)[i], 1e-9);
    const struct param_info *info = NULL;
    for (int i = 0; i < graph_nparams(l.g); i++) {
        info = graph_param_info(l.g, i);
        if (info->buffer || !strstr(info->name, "logvar")) continue;
        float *d = mem_array(info->count, sizeof *d);
        arena_get(l.g, k, dev, l.grad, i, d);
        for (size_t j = 0; j < info->count; j++) assert_true(d[j] == 0);
        mem_free(d);
    }
    pass_free(p);
    lab_close(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(boundary),     cmocka_unit_test(other_weights),
                                       cmocka_unit_test(distillation), cmocka_unit_test(teacher_in_evaluation),
                                       cmocka_unit_test(ict_is_ect),   cmocka_unit_test(adapted),
                                       cmocka_unit_test(uncertainty),  cmocka_unit_test(untrained_head)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
