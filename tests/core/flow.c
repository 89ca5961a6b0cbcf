/* Points: the MLP against its formula in double, flow matching's loss and gradient, and its optimum on a Gaussian, where the velocity is
 * known: for x_0 ~ N(m, S) and x_t = (1 - t) x_0 + t eps,
 *   E[eps - x_0 | x_t = x] = -m + (t I - (1 - t) S) ((1 - t)^2 S + t^2 I)^-1 (x - (1 - t) m). */
#include "tests/test.h"

#include "core/io/points.h"
#include "core/ops.h"
#include "core/rng.h"
#include "core/train_pass.h"
#include "tests/core/trainer.h"

enum { N = 5, WIDTH = 12, LAYERS = 3, FEATURES = 32 };

static const struct kernels *k;
static struct kdev *dev;

static int setup(void **state)
{
    (void)state;
    return kernels_find("cpu", &k) || k->open(&dev, "cpu", 1);
}
static int teardown(void **state)
{
    (void)state;
    k->close(dev);
    return 0;
}

/* velocity[2] = matrix x + shift of the closed form at time t */
static void optimum(double t, double matrix[4], double shift[2])
{
    double m[2], s[4], c[4], inv[4], a[4];
    points_gaussian_moments(m, s);
    for (int i = 0; i < 4; i++) {
        double eye = i % 3 == 0;
        c[i] = (1 - t) * (1 - t) * s[i] + t * t * eye;
        a[i] = t * eye - (1 - t) * s[i];
    }
    double det = c[0] * c[3] - c[1] * c[2];
    inv[0] = c[3] / det, inv[1] = -c[1] / det, inv[2] = -c[2] / det, inv[3] = c[0] / det;
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < 2; j++) matrix[2 * i + j] = a[2 * i] * inv[j] + a[2 * i + 1] * inv[2 + j];
        shift[i] = -m[i] - (1 - t) * (matrix[2 * i] * m[0] + matrix[2 * i + 1] * m[1]);
    }
}

/* ---- the network -------------------------------------------------------------------------------------------------- */

static struct net_config mlp_config(enum net_precond precond, int labels)
{
    return (struct net_config){.family = "mlp",
                               .resolution = 1,
                               .in_channels = 2,
                               .label_dim = labels,
                               .width = WIDTH,
                               .blocks = LAYERS,
                               .sigma_data = 0.8,
                               .precond = precond};
}

static struct graph *mlp(const struct net_config *c, struct params **w)
{
    struct graph *g = graph_new();
    assert_ok(net_build(g, c));
    assert_ok(params_new(w, g, k, dev));
    params_init(*w, 3);
    struct rng noise = {.seed = 5, .purpose = RNG_TEST}; /* the last layer starts near zero and would hide the others */
    for (int i = 0; i < graph_nparams(g); i++) {
        const struct param_info *info = graph_param_info(g, i);
        float *x = mem_array(info->count, sizeof *x);
        params_get(*w, i, x);
        for (size_t j = 0; j < info->count; j++) x[j] += 0.2F * rng_normal(&noise, (uint32_t)i, (uint32_t)j);
        params_set(*w, i, x);
        mem_free(x);
    }
    params_changed(*w);
    return g;
}

/* cat([x, embed(16 c_noise), labels]) through the layers, in double. */
static void mlp_reference(const struct graph *g, struct params *w, const double *x, double c_noise, const float *labels,
                          int nlabels, double *out)
{
    double h[64], next[64], half = FEATURES / 2;
    int n = 0, layers = LAYERS + 1;
    h[n++] = x[0], h[n++] = x[1];
    for (int part = 0; part < 2; part++)
        for (int j = 0; j < half; j++) {
            double phase = 16 * c_noise * pow(10000, -j / (half - 1));
            h[n++] = part ? cos(phase) : sin(phase);
        }
    for (int j = 0; j < nlabels; j++) h[n++] = (double)labels[j];
    for (int l = 0; l < layers; l++) {
        char name[64];
        snprintf(name, sizeof name, "model.net.%d.weight", 3 * l);
        const struct param_info *weight = graph_param_named(g, name);
        snprintf(name, sizeof name, "model.net.%d.bias", 3 * l);
        const struct param_info *bias = graph_param_named(g, name);
        assert_true(weight && bias && weight->dims[1] == n && weight->dims[0] == (l + 1 < layers ? WIDTH : 2));
        float a[64 * 64], b[64];
        for (int i = 0; i < graph_nparams(g); i++) {
            if (graph_param_info(g, i) == weight) params_get(w, i, a);
            if (graph_param_info(g, i) == bias) params_get(w, i, b);
        }
        for (int o = 0; o < weight->dims[0]; o++) {
            next[o] = (double)b[o];
            for (int j = 0; j < n; j++) next[o] += (double)a[o * n + j] * h[j];
            if (l + 1 < layers) next[o] /= 1 + exp(-next[o]);
        }
        n = weight->dims[0];
        memcpy(h, next, sizeof h);
    }
    out[0] = h[0], out[1] = h[1];
}

static void network(void **state)
{
    (void)state;
    static const float x[2 * N] = {0.3F, -1, 2, 0.1F, 0, 0, -0.7F, 0.5F, 40, -3};
    static const float sigma[N] = {0.01F, 0.3F, 0.5F, 0.99F, 0.7F};
    static const float labels[3 * N] = {0, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0};
    for (int kind = 0; kind < 4; kind++) {
        int nlabels = kind / 2 ? 3 : 0;
        struct net_config c = mlp_config(kind % 2 ? PRECOND_FLOW : PRECOND_EDM, nlabels);
        struct params *w;
        struct program *p;
        struct graph *g = mlp(&c, &w);
        float d[2 * N], f[2 * N];
        assert_ok(program_new(&p, g, k, dev, &(struct program_opts){.batch = N}));
        k->upload(dev, program_input(p, "x"), x, sizeof x);
        k->upload(dev, program_input(p, "sigma"), sigma, sizeof sigma);
        if (nlabels) k->upload(dev, program_input(p, "labels"), labels, sizeof labels);
        program_forward(p, w, &(struct run_ctx){0});
        k->download(dev, d, program_output(p, "D"), sizeof d);
        k->download(dev, f, program_output(p, "F"), sizeof f);
        for (int i = 0; i < N; i++) {
            double s = (double)sigma[i], sd = 0.8, both = s * s + sd * sd, in[2], want[2];
            bool flow = c.precond == PRECOND_FLOW;
            for (int e = 0; e < 2; e++) in[e] = (double)x[2 * i + e] / (flow ? 1 : sqrt(both));
            mlp_reference(g, w, in, flow ? s : log(s) / 4, labels + (ptrdiff_t)3 * i, nlabels, want);
            for (int e = 0; e < 2; e++) {
                assert_near(f[2 * i + e], want[e], 2e-5 * (1 + fabs(want[e])));
                double whole = flow ? want[e] : sd * sd / both * (double)x[2 * i + e] + s * sd / sqrt(both) * want[e];
                assert_near(d[2 * i + e], whole, 2e-5 * (1 + fabs(whole)));
            }
        }
        struct flops cost;
        graph_flops(g, &cost);
        assert_near(flops_total(&cost),
                    2.0 * ((2 + FEATURES + nlabels) * WIDTH + (LAYERS - 1) * WIDTH * WIDTH + WIDTH * 2), 0);
        float dropped[2 * N];
        program_forward(p, w, &(struct run_ctx){.dropout = 0.5F, .drop = {.seed = 1, .purpose = RNG_DROPOUT}});
        k->download(dev, dropped, program_output(p, "F"), sizeof dropped);
        for (int i = 0; i < 2 * N; i++) assert_true(fabs((double)dropped[i] - (double)f[i]) > 1e-4);
        program_free(p);
        params_free(w);
        graph_free(g);
    }
}

static void refusals(void **state)
{
    (void)state;
    struct net_config c = mlp_config(PRECOND_EDM, 0);
    struct graph *g = graph_new();
    c.resolution = 8;
    assert_err(ERR_USAGE, net_build(g, &c));
    assert_has(err_text(), "8 pixels");
    graph_free(g);
}

/* ---- the loss ----------------------------------------------------------------------------------------------------- */

static double t[N] = {0.05, 0.4, 0.75, 0.99, 0.5}, r[N], weight[N] = {1.5, 0.7, 2, 1, 1};

struct lab {
    struct graph *g;
    struct params *w;
    struct pass *p;
    float *grad;
};

static struct lab lab_open(struct loss_opts loss)
{
    struct lab l = {0};
    struct net_config net = mlp_config(PRECOND_FLOW, 0);
    l.g = mlp(&net, &l.w);
    struct pass_config c = {.graph = l.g, .kernels = k, .dev = dev, .rows = N, .per = 2, .flow = true, .loss = loss};
    assert_ok(pass_new(&l.p, &c));
    struct kstream s = {.seed = 9, .purpose = RNG_TEST};
    k->normal(dev, pass_y(l.p), N, 2, &s);
    s.layer = 1;
    k->normal(dev, pass_eps(l.p), N, 2, &s);
    l.grad = mem_array(graph_arena_floats(l.g), sizeof(float));
    return l;
}
static void lab_close(struct lab *l)
{
    pass_free(l->p);
    params_free(l->w);
    graph_free(l->g);
    mem_free(l->grad);
}
static err_t lab_run(struct lab *l, const double *w, int n)
{
    struct pass_rows rows = {.n = n, .global_batch = N, .t = t, .r = r, .w = w, .weights = l->w, .grad = l->grad};
    k->fill(dev, l->grad, 0, graph_arena_floats(l->g));
    return pass_run(l->p, target_find("flow"), &rows);
}

/* Every number of the loss again from y, eps and the network in double: where x_t is, what v is, how p weighs. */
static void loss_by_formula(void **state)
{
    (void)state;
    static const struct loss_opts opts[] = {{LOSS_L2, 0, 0}, {LOSS_L2, 0.01, 0.5}, {LOSS_L2, 0.3, 1}};
    for (size_t o = 0; o < ARRAY_LEN(opts); o++) {
        struct lab l = lab_open(opts[o]);
        float y[2 * N], eps[2 * N];
        assert_ok(lab_run(&l, weight, N));
        k->download(dev, y, pass_y(l.p), sizeof y);
        k->download(dev, eps, pass_eps(l.p), sizeof eps);
        for (int i = 0; i < N; i++) {
            double x[2], f[2], s = 0;
            for (int e = 0; e < 2; e++) x[e] = (1 - t[i]) * (double)y[2 * i + e] + t[i] * (double)eps[2 * i + e];
            mlp_reference(l.g, l.w, x, t[i], NULL, 0, f);
            for (int e = 0; e < 2; e++) {
                double d = f[e] - ((double)eps[2 * i + e] - (double)y[2 * i + e]);
                s += d * d;
            }
            assert_near(pass_squares(l.p)[i], s, 2e-5 * (1 + s));
            double want = weight[i] * s / pow(s + opts[o].c * opts[o].c, opts[o].p);
            assert_near(pass_loss(l.p)[i], want, 1e-4 * (1 + want));
        }
        struct flops cost;
        graph_flops(l.g, &cost);
        assert_near(pass_flops(l.p), 3 * N * flops_total(&cost), 1e-6);
        lab_close(&l);
    }
}

/* p = 0 by finite differences; p > 0 is p = 0 with the weights w / (S + c^2)^p. */
static void gradient(void **state)
{
    (void)state;
    struct lab l = lab_open((struct loss_opts){LOSS_L2, 0, 0});
    assert_ok(lab_run(&l, weight, N));
    for (int i = 0; i < graph_nparams(l.g); i++) {
        const struct param_info *info = graph_param_info(l.g, i);
        float *x = mem_array(info->count, sizeof *x), *d = mem_array(info->count, sizeof *d), h = 4e-3F;
        assert_ok(lab_run(&l, weight, N));
        arena_get(l.g, k, dev, l.grad, i, d);
        size_t j = info->count / 3;
        double side[2] = {0};
        params_get(l.w, i, x);
        float was = x[j];
        for (int s = 0; s < 2; s++) {
            x[j] = was + (s ? h : -h);
            params_set(l.w, i, x);
            params_changed(l.w);
            assert_ok(lab_run(&l, weight, N));
            for (int q = 0; q < N; q++) side[s] += pass_loss(l.p)[q] / N;
        }
        x[j] = was;
        params_set(l.w, i, x);
        params_changed(l.w);
        double numeric = (side[1] - side[0]) / (2 * (double)h);
        if (!(fabs(numeric - d[j]) <= 0.01 * fabs(numeric) + 1e-3))
            fail_msg("%s[%zu]: gradient %g, by differences %g", info->name, j, d[j], numeric);
        mem_free(x);
        mem_free(d);
    }
    struct lab adaptive = lab_open((struct loss_opts){LOSS_L2, 0.2, 0.7});
    double by_hand[N], most = 0;
    assert_ok(lab_run(&l, weight, N));
    for (int i = 0; i < N; i++) by_hand[i] = weight[i] / pow(pass_squares(l.p)[i] + 0.04, 0.7);
    assert_ok(lab_run(&l, by_hand, N));
    assert_ok(lab_run(&adaptive, weight, N));
    size_t n = graph_arena_floats(l.g);
    for (size_t i = 0; i < n; i++) most = fmax(most, fabs((double)l.grad[i]));
    for (size_t i = 0; i < n; i++) assert_near(adaptive.grad[i], l.grad[i], 2e-4 * most);
    lab_close(&adaptive);
    lab_close(&l);
}

static void times(void **state)
{
    (void)state;
    struct lab l = lab_open((struct loss_opts){LOSS_L2, 0, 0});
    double was = t[2];
    assert_ok(lab_run(&l, weight, 3)); /* unused rows have no part */
    assert_true(isfinite(pass_loss(l.p)[2]));
    t[2] = 1.5;
    assert_err(ERR_USAGE, lab_run(&l, weight, N));
    assert_has(err_text(), "1.5");
    t[2] = was;
    lab_close(&l);
    assert_true(target_find("flow")->flow && !target_find("flow")->needs_r);
}

/* ---- the optimum -------------------------------------------------------------------------------------------------- */

enum { MANY = 20000 };

/* D = A x + B t + b: at one t, all there is to a Gaussian's velocity. */
static struct graph *linear_model(void)
{
    struct graph *g = graph_new();
    struct node *x = graph_input(g, "x", 1, 1, 2), *time = graph_input(g, "sigma", 1, 1, 1);
    struct node *matrix = graph_param(g, "a", 2, (int[]){2, 2}, (struct init){0});
    struct node *a = op_linear(g, x, matrix, graph_param(g, "b", 1, (int[]){2}, (struct init){0}));
    struct node *b = op_linear(g, time, graph_param(g, "t", 2, (int[]){2, 1}, (struct init){0}), NULL);
    graph_output(g, "D", op_add(g, a, b, 1));
    return g;
}

/* At the closed form the gradient of the mean loss over many points is zero within its own spread, and only there; descent arrives there. */
static void optimum_is_stationary(void **state)
{
    (void)state;
    static const double at[] = {0.2, 0.5, 0.85};
    double *ts = mem_array(MANY, sizeof *ts), *ones = mem_array(MANY, sizeof *ones),
           *zeros = mem_array(MANY, sizeof *zeros);
    double *points = mem_array(2 * MANY, sizeof *points);
    float *y = mem_array(2 * MANY, sizeof *y);
    struct graph *g = linear_model();
    struct params *w;
    struct pass *p;
    assert_ok(params_new(&w, g, k, dev));
    struct pass_config c = {.graph = g, .kernels = k, .dev = dev, .rows = MANY, .per = 2, .flow = true};
    assert_ok(pass_new(&p, &c));
    points_draw(points_find("gaussian"), 4, MANY, points);
    for (int i = 0; i < 2 * MANY; i++) y[i] = (float)points[i];
    k->upload(dev, pass_y(p), y, 2 * MANY * sizeof *y);
    k->normal(dev, pass_eps(p), MANY, 2, &(struct kstream){.seed = 2, .purpose = RNG_TEST});
    float *grad = mem_array(graph_arena_floats(g), sizeof *grad);
    for (size_t q = 0; q < ARRAY_LEN(at); q++) {
        double matrix[4], shift[2];
        float a[4], b[2], ga[4], gb[2];
        optimum(at[q], matrix, shift);
        for (int i = 0; i < MANY; i++) ts[i] = at[q], ones[i] = 1;
        struct pass_rows rows = {
            .n = MANY, .global_batch = MANY, .t = ts, .r = zeros, .w = ones, .weights = w, .grad = grad};
        params_init(w, 0);
        for (int step = 0; step <= 200; step++) { /* from zero by gradient descent; then once at the closed form */
            if (step == 200) {
                params_get(w, 0, a);
                params_get(w, 1, b);
                params_get(w, 2, gb); /* the third parameter multiplies t: part of the shift */
                for (int i = 0; i < 4; i++) assert_near(a[i], matrix[i], 0.04);
                for (int i = 0; i < 2; i++) assert_near(b[i] + (float)at[q] * gb[i], shift[i], 0.04);
                for (int i = 0; i < 4; i++) a[i] = (float)matrix[i];
                for (int i = 0; i < 2; i++) b[i] = (float)shift[i];
                params_init(w, 0);
                params_set(w, 0, a);
                params_set(w, 1, b);
                params_changed(w);
            }
            k->fill(dev, grad, 0, graph_arena_floats(g));
            assert_ok(pass_run(p, target_find("flow"), &rows));
            if (step < 200) {
                float *x = params_arena(w);
                for (size_t i = 0; i < graph_arena_floats(g); i++) x[i] -= 0.2F * grad[i];
                params_changed(w);
            }
        }
        arena_get(g, k, dev, grad, 0, ga);
        arena_get(g, k, dev, grad, 1, gb);
        /* an element of the gradient is a mean of MANY products with standard deviations of about 3 */
        for (int i = 0; i < 4; i++) assert_near(ga[i], 0, 5 * 3 / sqrt(MANY));
        for (int i = 0; i < 2; i++) assert_near(gb[i], 0, 5 * 3 / sqrt(MANY));
    }
    mem_free(grad);
    pass_free(p);
    params_free(w);
    graph_free(g);
    mem_free(y);
    mem_free(points);
    mem_free(zeros);
    mem_free(ones);
    mem_free(ts);
}

static err_t uniform_time(void *ctx, const struct design_state *s, int n, const double *u, double *time)
{
    (void)ctx;
    (void)s;
    memcpy(time, u, (size_t)n * sizeof *time);
    return ERR_OK;
}

/* The whole way: data set, trainer, MLP. The velocity is close to the closed form where the data are. */
static void trained(void **state)
{
    (void)state;
    static const char *const set[][2] = {{"data", "gaussian"},   {"sigma_data", "0"},
                                         {"net", "mlp"},         {"net.width", "32"},
                                         {"net.blocks", "2"},    {"target", "flow"},
                                         {"metric", "l2"},       {"p", "0"},
                                         {"batch", "256"},       {"iters", "1200"},
                                         {"optim", "adam"},      {"log.every", "500"},
                                         {"ckpt.every", "1200"}, {"ema", "beta9=a@1 mean=b@1"}};
    char dir[256], *path;
    int64_t at;
    struct spec s;
    struct dataset *d;
    struct toy toy = toy_default();
    struct design design = toy_design(&toy);
    struct train_result result;
    toy.lr = 4e-3;
    toy.dropout = 0;
    toy.weight = 1;
    design.noise = uniform_time;
    spec_defaults(&s);
    for (size_t i = 0; i < ARRAY_LEN(set); i++) assert_ok(spec_set(&s, set[i][0], set[i][1]));
    test_dir(dir, sizeof dir);
    assert_ok(dataset_open(&d, "gaussian"));
    struct train_config c = {
        .spec = &s, .design = &design, .data = d, .kernels = k, .dev = dev, .seed = 1, .ckpt_dir = dir};
    assert_ok(train_run(&c, &result));
    assert_int_equal(result.allocs_in_loop, 0);
    struct net_config net;
    assert_ok(train_net_config(&s, d, &net));
    assert_int_equal(net.precond, PRECOND_FLOW);
    struct graph *g = graph_new();
    struct params *w;
    struct program *prog;
    enum { B = 64 };
    assert_ok(net_build(g, &net));
    assert_ok(params_new(&w, g, k, dev));
    assert_ok(train_find_checkpoint(dir, -1, &path, &at));
    assert_ok(train_load_weights(path, "mean", w, g));
    assert_ok(program_new(&prog, g, k, dev, &(struct program_opts){.batch = B, .only = "D"}));
    double error = 0, size = 0, points[2 * B];
    for (int q = 1; q <= 9; q++) {
        double time = q / 10.0, matrix[4], shift[2];
        float x[2 * B], f[2 * B], ts[B];
        struct rng rng = {.seed = 8, .purpose = RNG_TEST, .layer = (uint16_t)q};
        optimum(time, matrix, shift);
        assert_ok(dataset_fresh(d, (uint64_t)q, B, points));
        for (int i = 0; i < B; i++) {
            ts[i] = (float)time;
            for (int e = 0; e < 2; e++)
                x[2 * i + e] =
                    (float)((1 - time) * points[2 * i + e] + time * (double)rng_normal(&rng, (uint32_t)i, (uint32_t)e));
        }
        k->upload(dev, program_input(prog, "x"), x, sizeof x);
        k->upload(dev, program_input(prog, "sigma"), ts, sizeof ts);
        program_forward(prog, w, &(struct run_ctx){0});
        k->download(dev, f, program_output(prog, "D"), sizeof f);
        for (int i = 0; i < B; i++)
            for (int e = 0; e < 2; e++) {
                double v = matrix[2 * e] * (double)x[2 * i] + matrix[2 * e + 1] * (double)x[2 * i + 1] + shift[e];
                error += pow(v - (double)f[2 * i + e], 2) / (9 * B * 2);
                size += v * v / (9 * B * 2);
            }
    }
    if (!(sqrt(error) < 0.15 * sqrt(size))) fail_msg("velocity off by %g, its size is %g", sqrt(error), sqrt(size));
    mem_free(path);
    program_free(prog);
    params_free(w);
    graph_free(g);
    dataset_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(network),  cmocka_unit_test(refusals), cmocka_unit_test(loss_by_formula),
        cmocka_unit_test(gradient), cmocka_unit_test(times),    cmocka_unit_test(optimum_is_stationary),
        cmocka_unit_test(trained),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
