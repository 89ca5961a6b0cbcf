/* Objectives on a tiny network: values by their formulas, gradients by finite differences where the target is constant and by an independent
 * backward pass where it is the network itself. */
#include "tests/test.h"

#include "core/rng.h"
#include "core/train_pass.h"
#include "tests/core/trainer.h"

enum { N = 4, PER = 16 };

static const struct kernels *k;
static struct kdev *dev;
static struct graph *g;
static struct params *w;
static float *grad, *grad2;
static double t[N] = {0.3, 1.2, 4, 0.9}, r[N], weight[N] = {1.5, 0.7, 2, 1};

static int setup(void **state)
{
    (void)state;
    struct net_config c = {.family = "songunet",
                           .resolution = 4,
                           .in_channels = 1,
                           .width = 8,
                           .mult = {1},
                           .nmult = 1,
                           .blocks = 1,
                           .emb_mult = 2,
                           .noise_mult = 1,
                           .sigma_data = 0.5};
    g = graph_new();
    if (kernels_find("cpu", &k) || k->open(&dev, "cpu", 1) || net_build(g, &c) || params_new(&w, g, k, dev)) return -1;
    params_init(w, 3);
    struct rng noise = {.seed = 5, .purpose = RNG_TEST}; /* layers that start at zero would hide their gradients */
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
    grad = k->alloc(dev, graph_arena_floats(g) * sizeof(float));
    grad2 = k->alloc(dev, graph_arena_floats(g) * sizeof(float));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    k->free(dev, grad);
    k->free(dev, grad2);
    params_free(w);
    graph_free(g);
    k->close(dev);
    return 0;
}

static struct pass *open_pass(struct pass_config c)
{
    struct pass *p;
    c.graph = g;
    c.kernels = k;
    c.dev = dev;
    if (!c.rows) c.rows = N;
    c.per = PER;
    c.teacher = true;
    c.sigma_data = 0.5;
    assert_ok(pass_new(&p, &c));
    struct kstream s = {.seed = 9, .purpose = RNG_TEST};
    k->normal(dev, pass_y(p), c.rows, PER, &s);
    s.layer = 1;
    k->normal(dev, pass_eps(p), c.rows, PER, &s);
    s.layer = 2;
    if (pass_eps_r(p)) k->normal(dev, pass_eps_r(p), c.rows, PER, &s);
    return p;
}

static const struct pass_config shared = {.share_noise = true, .share_dropout = true};

static void go(struct pass *p, const char *target, int n, float dropout, float *into)
{
    struct pass_rows rows = {.n = n,
                             .global_batch = N,
                             .t = t,
                             .r = r,
                             .w = weight,
                             .dropout = dropout,
                             .drop = {.seed = 1, .purpose = RNG_DROPOUT},
                             .drop_r = {.seed = 1, .purpose = RNG_DROPOUT_R},
                             .weights = w,
                             .grad = into};
    k->fill(dev, into, 0, graph_arena_floats(g));
    assert_ok(pass_run(p, target_find(target), &rows));
}

static double mean_loss(struct pass *p, const char *target)
{
    double sum = 0;
    go(p, target, N, 0, grad2);
    for (int i = 0; i < N; i++) sum += pass_loss(p)[i] / N;
    return sum;
}

/* d mean(loss) / d weight of some weights of every parameter, by central differences. */
static void check_gradient(struct pass *p, const char *target)
{
    go(p, target, N, 0, grad);
    for (int i = 0; i < graph_nparams(g); i += 3) {
        const struct param_info *info = graph_param_info(g, i);
        if (info->buffer) continue;
        float *x = mem_array(info->count, sizeof *x), *d = mem_array(info->count, sizeof *d), h = 4e-3F;
        size_t j = info->count / 2;
        params_get(w, i, x);
        arena_get(g, k, dev, grad, i, d);
        float was = x[j];
        double side[2];
        for (int s = 0; s < 2; s++) {
            x[j] = was + (s ? h : -h);
            params_set(w, i, x);
            params_changed(w);
            side[s] = mean_loss(p, target);
        }
        x[j] = was;
        params_set(w, i, x);
        params_changed(w);
        double numeric = (side[1] - side[0]) / (2 * (double)h);
        if (!(fabs(numeric - d[j]) <= 0.02 * fabs(numeric) + 2e-3))
            fail_msg("%s[%zu]: gradient %g, by differences %g", info->name, j, d[j], numeric);
        mem_free(x);
        mem_free(d);
    }
}

static void set_r(double ratio)
{
    for (int i = 0; i < N; i++) r[i] = ratio * t[i];
}

static void edm(void **state)
{
    (void)state;
    struct pass *p = open_pass(shared);
    set_r(0);
    go(p, "edm", N, 0, grad);
    for (int i = 0; i < N; i++) assert_near(pass_loss(p)[i], weight[i] * pass_squares(p)[i], 1e-9);
    assert_false(pass_teacher_ran(p));
    check_gradient(p, "edm");
    pass_free(p);
}

static void values(void **state)
{
    (void)state;
    static const struct loss_opts opts[] = {
        {LOSS_HUBER, 0, 0}, {LOSS_HUBER, 0.3, 0}, {LOSS_L2, 0, 0.5}, {LOSS_L2, 0.3, 1}, {LOSS_L2, 0.1, 0}};
    set_r(0.5);
    for (size_t o = 0; o < ARRAY_LEN(opts); o++) {
        struct pass_config c = shared;
        c.loss = opts[o];
        struct pass *p = open_pass(c);
        go(p, "ect", N, 0, grad);
        for (int i = 0; i < N; i++) {
            double s = pass_squares(p)[i], cc = c.loss.c * c.loss.c;
            double want = c.loss.metric == LOSS_HUBER ? sqrt(s + cc) - c.loss.c : s / pow(s + cc, c.loss.p);
            assert_near(pass_loss(p)[i], weight[i] * want, 1e-6);
        }
        assert_true(pass_teacher_ran(p));
        pass_free(p);
    }
}

static void rows_with_r_zero(void **state)
{
    (void)state;
    struct flops f;
    struct pass_config c = shared;
    c.loss = (struct loss_opts){LOSS_HUBER, 0.05, 0};
    graph_flops(g, &f);
    struct pass *p = open_pass(c);
    set_r(0);
    check_gradient(p, "ect"); /* the target is the clean image, so the loss's full gradient */
    double before = pass_flops(p);
    go(p, "ect", N, 0, grad);
    assert_false(pass_teacher_ran(p));
    assert_near(pass_flops(p) - before, 3 * N * flops_total(&f), 1);
    assert_true(pass_d_r(p) == pass_y(p));
    double all_zero = pass_loss(p)[1];

    r[0] = 0.5 * t[0]; /* one row needs the teacher; the others' target stays the image, bit for bit */
    before = pass_flops(p);
    go(p, "ect", N, 0, grad);
    assert_true(pass_teacher_ran(p));
    assert_near(pass_flops(p) - before, 4 * N * flops_total(&f), 1);
    float y[N * PER], d_r[N * PER];
    k->download(dev, y, pass_y(p), sizeof y);
    k->download(dev, d_r, pass_d_r(p), sizeof d_r);
    assert_memory_equal(y + PER, d_r + PER, (N - 1) * PER * sizeof(float));
    assert_memory_not_equal(y, d_r, PER * sizeof(float));
    assert_near(pass_loss(p)[1], all_zero, 1e-6 * all_zero);

    r[0] = 1e-60; /* too small for a float: zero */
    go(p, "ect", N, 0, grad);
    assert_false(pass_teacher_ran(p));
    pass_free(p);
}

/* The gradient takes D_r as a constant: it is the network's own backward pass from g_i (D_t - D_r) / N. */
static void teacher_is_constant(void **state)
{
    (void)state;
    struct pass_config c = shared;
    c.loss = (struct loss_opts){LOSS_L2, 0.2, 0.7};
    struct pass *p = open_pass(c);
    set_r(0.7);
    go(p, "ect", N, 0, grad);
    float d_t[N * PER], d_r[N * PER], eps[N * PER], y[N * PER], x[N * PER], dy[N * PER], sigma[N];
    k->download(dev, d_t, pass_d_t(p), sizeof d_t);
    k->download(dev, d_r, pass_d_r(p), sizeof d_r);
    k->download(dev, eps, pass_eps(p), sizeof eps);
    k->download(dev, y, pass_y(p), sizeof y);
    for (int i = 0; i < N; i++) {
        double factor = weight[i] * 2 / pow(pass_squares(p)[i] + 0.04, 0.7) / N;
        sigma[i] = (float)t[i];
        for (int e = i * PER; e < (i + 1) * PER; e++) {
            x[e] = y[e] + sigma[i] * eps[e];
            dy[e] = (float)(factor * (d_t[e] - d_r[e]));
        }
    }
    struct program *prog;
    struct run_ctx ctx = {0};
    struct program_opts opts = {.batch = N, .grad = GRAD_PARAMS, .only = "D"};
    assert_ok(program_new(&prog, g, k, dev, &opts));
    k->upload(dev, program_input(prog, "x"), x, sizeof x);
    k->upload(dev, program_input(prog, "sigma"), sigma, sizeof sigma);
    program_forward(prog, w, &ctx);
    k->upload(dev, program_output_grad(prog, "D"), dy, sizeof dy);
    k->fill(dev, grad2, 0, graph_arena_floats(g));
    program_backward(prog, w, &ctx, grad2);
    size_t n = graph_arena_floats(g);
    float *a = mem_array(n, sizeof *a), *b = mem_array(n, sizeof *b);
    double most = 0;
    k->download(dev, a, grad, n * sizeof *a);
    k->download(dev, b, grad2, n * sizeof *b);
    for (size_t i = 0; i < n; i++) most = fmax(most, fabs(b[i]));
    assert_true(most > 1e-3);
    for (size_t i = 0; i < n; i++) assert_near(a[i], b[i], 1e-5 * most);
    mem_free(a);
    mem_free(b);
    program_free(prog);
    pass_free(p);
}

/* With r = t the two passes differ in nothing, unless noise or masks are separate. */
static void what_is_shared(void **state)
{
    (void)state;
    set_r(1);
    for (int noise = 0; noise < 2; noise++) {
        for (int mask = 0; mask < 2; mask++) {
            struct pass *p = open_pass(
                (struct pass_config){.share_noise = noise, .share_dropout = mask, .loss = {LOSS_HUBER, 0, 0}});
            go(p, "ect", N, 0.5F, grad);
            for (int i = 0; i < N; i++) {
                if (noise && mask) assert_near(pass_squares(p)[i], 0, 1e-9);
                else assert_true(pass_squares(p)[i] > 1e-4);
            }
            pass_free(p);
        }
    }
}

/* D_t = D_r and c = 0: loss and gradient are 0, not 0 / 0. */
static void no_distance_no_gradient(void **state)
{
    (void)state;
    static const struct loss_opts opts[] = {{LOSS_HUBER, 0, 0}, {LOSS_L2, 0, 0.5}, {LOSS_L2, 0, 1}, {LOSS_L2, 0, 0}};
    size_t n = graph_arena_floats(g);
    float *a = mem_array(n, sizeof *a);
    set_r(1);
    for (size_t o = 0; o < ARRAY_LEN(opts); o++) {
        struct pass_config c = shared;
        c.loss = opts[o];
        struct pass *p = open_pass(c);
        go(p, "ect", N, 0, grad);
        k->download(dev, a, grad, n * sizeof *a);
        for (int i = 0; i < N; i++) assert_near(pass_loss(p)[i], 0, pass_squares(p)[i] > 0 ? 1e-3 : 0);
        for (size_t i = 0; i < n; i++) assert_true(isfinite(a[i]));
        pass_free(p);
    }
    mem_free(a);
}

/* A micro-batch with unused rows is the same as a smaller one. */
static void unused_rows(void **state)
{
    (void)state;
    size_t n = graph_arena_floats(g);
    float *a = mem_array(n, sizeof *a), *b = mem_array(n, sizeof *b);
    struct pass_config c = shared;
    c.loss = (struct loss_opts){LOSS_HUBER, 0.1, 0};
    set_r(0.5);
    struct pass *large = open_pass(c);
    c.rows = 3;
    struct pass *small = open_pass(c);
    go(large, "ect", 3, 0.2F, grad);
    go(small, "ect", 3, 0.2F, grad2);
    k->download(dev, a, grad, n * sizeof *a);
    k->download(dev, b, grad2, n * sizeof *b);
    double most = 0;
    for (size_t i = 0; i < n; i++) most = fmax(most, fabs(b[i]));
    for (size_t i = 0; i < n; i++) assert_near(a[i], b[i], 1e-5 * most);
    for (int i = 0; i < 3; i++) assert_near(pass_loss(large)[i], pass_loss(small)[i], 1e-5 * pass_loss(small)[i]);
    mem_free(a);
    mem_free(b);
    pass_free(large);
    pass_free(small);
}

static void table(void **state)
{
    (void)state;
    assert_null(target_find("nothing"));
    assert_near(target_find("edm")->nominal_forwards, 3, 0);
    assert_near(target_find("ect")->nominal_forwards, 4, 0);
    assert_true(target_find("ect")->needs_r && !target_find("edm")->needs_r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(edm),
        cmocka_unit_test(values),
        cmocka_unit_test(rows_with_r_zero),
        cmocka_unit_test(teacher_is_constant),
        cmocka_unit_test(what_is_shared),
        cmocka_unit_test(no_distance_no_gradient),
        cmocka_unit_test(unused_rows),
        cmocka_unit_test(table),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
