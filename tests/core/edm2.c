/* EDM2 beside the published vectors (tests/core/golden.sh): configurations that cannot be built, conditions, dropout and where it acts, the
 * fresh network, initial values, invariance under the scale of its weights, the whole gradient with the uncertainty head, and training
 * with forced normalisation. */
#include "core/io/safetensors.h"
#include "core/nets.h"
#include "core/rng.h"
#include "tests/core/trainer.h"
#include "tests/test.h"

static const struct kernels *k;
static struct kdev *dev;

static int open_device(void **s)
{
    (void)s;
    return kernels_find("cpu", &k) || k->open(&dev, "cpu", 2);
}
static int close_device(void **s)
{
    (void)s;
    k->close(dev);
    return 0;
}

/* Two levels, attention with several heads in one of them and in0, labels, the uncertainty head, explicit embedding widths. */
static const struct net_config small = {.family = "edm2",
                                        .resolution = 8,
                                        .in_channels = 2,
                                        .label_dim = 3,
                                        .width = 8,
                                        .mult = {1, 2},
                                        .nmult = 2,
                                        .blocks = 1,
                                        .attn = {4},
                                        .nattn = 1,
                                        .emb_mult = 3,
                                        .noise_mult = 2,
                                        .sigma_data = 0.4,
                                        .head = 4,
                                        .logvar = true,
                                        .logvar_channels = 32,
                                        .clip = 256};
enum { PER = 8 * 8 * 2, B = 3 };
static const struct run_ctx plain, dropping = {.dropout = 0.3f, .drop = {.seed = 1, .step = 5, .purpose = RNG_DROPOUT}};

struct net {
    struct graph *g;
    struct params *w;
    struct program *p;
};

static double uniform(uint32_t stream, uint32_t e)
{
    return 2 * rng_uniform(&(struct rng){.seed = 6, .purpose = RNG_TEST}, stream, e) - 1;
}

static float *value(const struct net *n, const char *name)
{
    const struct param_info *p = graph_param_named(n->g, name);
    if (!p || p->buffer) fail_msg("no parameter %s", name);
    return params_arena(n->w) + p->offset;
}

/* gains: every gain well away from its zero start, so that all parts of the network matter */
static void net_open(struct net *n, const struct net_config *c, const struct program_opts *o, bool gains)
{
    struct program_opts opts = *o;
    opts.batch = B;
    *n = (struct net){.g = graph_new()};
    assert_ok(net_build(n->g, c));
    assert_ok(params_new(&n->w, n->g, k, dev));
    params_init(n->w, 1);
    for (int i = 0; gains && i < graph_nparams(n->g); i++) {
        const struct param_info *p = graph_param_info(n->g, i);
        if (!p->buffer && !p->ndim) *value(n, p->name) = (float)(0.7 + 0.3 * uniform(40, (uint32_t)i));
    }
    params_changed(n->w);
    assert_ok(program_new(&n->p, n->g, k, dev, &opts));
    for (uint32_t i = 0; i < B; i++) program_input(n->p, "sigma")[i] = (float)exp(2 * uniform(1, i));
    for (uint32_t i = 0; i < B * PER; i++) program_input(n->p, "x")[i] = (float)uniform(2, i);
}

static void net_close(struct net *n)
{
    program_free(n->p);
    params_free(n->w);
    graph_free(n->g);
}

static void forward(struct net *n, const struct run_ctx *c, float d[B * PER])
{
    program_forward(n->p, n->w, c);
    memcpy(d, program_output(n->p, "D"), B * PER * sizeof *d);
}

static double distance(const float *a, const float *b, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++) most = fmax(most, fabs((double)a[i] - b[i]));
    return most;
}

static void bad_configurations(void **s)
{
    (void)s;
    struct net_config c;
#define REFUSED(part, ...)                                                                                             \
    do {                                                                                                               \
        struct graph *g = graph_new();                                                                                 \
        c = small;                                                                                                     \
        __VA_ARGS__;                                                                                                   \
        assert_err(ERR_USAGE, net_build(g, &c));                                                                       \
        assert_has(err_text(), part);                                                                                  \
        graph_free(g);                                                                                                 \
    } while (0)
    REFUSED("halved", c.resolution = 9);
    REFUSED("net.mult", c.nmult = 0);
    REFUSED("net.mult", c.nmult = NET_LEVELS + 1);
    REFUSED("net.mult", c.mult[1] = 0);
    REFUSED("net.width", c.width = 0);
    REFUSED("net.blocks", c.blocks = 0);
    REFUSED("sigma_data", c.sigma_data = 0);
    REFUSED("net.augment", c.augment_dim = 9);
    REFUSED("net.encoder", c.encoder = CODER_RESIDUAL);
    REFUSED("net.filter", c.nfilter = 3);
    REFUSED("net.clip", c.clip = -1);
    REFUSED("44 channels do not divide into 5 heads", c.width = 22; c.head = 8);
    REFUSED("net.logvar", strcpy(c.family, "songunet"));
}

/* A label matters, to its own sample; no label is a row of zeros, which is what the input holds before anyone writes to it. */
static void conditions(void **s)
{
    (void)s;
    struct net n;
    float without[B * PER], with[B * PER];
    net_open(&n, &small, &(struct program_opts){0}, true);
    forward(&n, &plain, without);
    program_input(n.p, "labels")[1] = 1;
    forward(&n, &plain, with);
    assert_true(distance(without, with, PER) > 1e-3);
    assert_memory_equal(without + PER, with + PER, (B - 1) * PER * sizeof(float));
    program_input(n.p, "labels")[1] = 0;
    forward(&n, &plain, with);
    assert_memory_equal(without, with, sizeof with);
    net_close(&n);
}

/* A fresh network is c_skip x, in either form: EDM2's preconditioning is never shifted. */
static void fresh(void **s)
{
    (void)s;
    for (int eval = 0; eval < 2; eval++) {
        struct net n;
        float d[B * PER];
        net_open(&n, &small, &(struct program_opts){.eval_form = eval}, false);
        float *x = program_input(n.p, "x"), *sigma = program_input(n.p, "sigma");
        for (int i = 0; i < B; i++) sigma[i] = (float[]){0.003f, 0.5f, 80}[i];
        forward(&n, &plain, d);
        for (int i = 0; i < B * PER; i++) {
            double at = sigma[i / PER];
            assert_near(d[i], 0.16 / (at * at + 0.16) * x[i], 2e-7);
        }
        net_close(&n);
    }
}

static void initial_values(void **s)
{
    (void)s;
    struct net n;
    net_open(&n, &small, &(struct program_opts){0}, false);
    for (int i = 0; i < graph_nparams(n.g); i++) {
        const struct param_info *p = graph_param_info(n.g, i);
        float *v = mem_array(p->count, sizeof *v);
        double mean = 0, square = 0, least = INFINITY, most = -INFINITY, count = (double)p->count;
        params_get(n.w, i, v);
        for (size_t e = 0; e < p->count; e++) {
            mean += v[e] / count, square += (double)v[e] * v[e] / count;
            least = fmin(least, v[e]), most = fmax(most, v[e]);
        }
        if (strstr(p->name, "phases")) assert_true(least > 0 && most < 6.2832 && most - least > 2);
        else if (strstr(p->name, "freqs")) assert_true(sqrt(square) > 3 && sqrt(square) < 11 && least < 0);
        else if (!p->ndim) assert_true(v[0] == 0);
        else if (count >= 500) {
            assert_near(mean, 0, 5 / sqrt(count));
            assert_near(square, 1, 8 / sqrt(count));
        }
        mem_free(v);
    }
    net_close(&n);
}

/* A weight's scale has no part in the result, but for the epsilon: 1e-4 of its RMS. */
static void weights_have_no_scale(void **s)
{
    (void)s;
    struct net n;
    float before[B * PER], after[B * PER];
    net_open(&n, &small, &(struct program_opts){0}, true);
    forward(&n, &plain, before);
    for (int i = 0; i < graph_nparams(n.g); i++) {
        const struct param_info *p = graph_param_info(n.g, i);
        for (size_t e = 0; !p->buffer && p->ndim && e < p->count; e++) value(&n, p->name)[e] *= 3;
    }
    params_changed(n.w);
    forward(&n, &plain, after);
    assert_true(distance(before, after, B * PER) < 2e-3);
    params_force_norm(n.w);
    forward(&n, &plain, after);
    assert_true(distance(before, after, B * PER) < 2e-3);
    net_close(&n);
}

/* Masks are those of the counter, in programs of either kind; dropout_res keeps dropout to the resolutions up to it. */
static void dropout(void **s)
{
    (void)s;
    struct net n, t;
    float none[B * PER], all[B * PER], low[B * PER], again[B * PER];
    struct net_config c = small;
    net_open(&n, &c, &(struct program_opts){.grad = GRAD_PARAMS}, true);
    net_open(&t, &c, &(struct program_opts){0}, true);
    forward(&n, &plain, none);
    forward(&n, &dropping, all);
    forward(&t, &dropping, again);
    assert_memory_equal(all, again, sizeof all);
    assert_true(distance(none, all, B * PER) > 1e-3);
    net_close(&n);
    net_close(&t);
    c.dropout_res = 4;
    net_open(&n, &c, &(struct program_opts){0}, true);
    forward(&n, &plain, again);
    assert_memory_equal(none, again, sizeof all);
    forward(&n, &dropping, low);
    assert_true(distance(none, low, B * PER) > 1e-3 && distance(all, low, B * PER) > 1e-3);
    net_close(&n);
    c.dropout_res = 8; /* the same as everywhere */
    net_open(&n, &c, &(struct program_opts){0}, true);
    forward(&n, &dropping, again);
    assert_memory_equal(all, again, sizeof all);
    net_close(&n);
    c.dropout_res = 2; /* nowhere */
    net_open(&n, &c, &(struct program_opts){0}, true);
    forward(&n, &dropping, again);
    assert_memory_equal(none, again, sizeof all);
    net_close(&n);
}

/* u D + v logvar, with dropout on: along random directions of all parameters at once. */
static double objective(struct net *n)
{
    const float *u = program_output_grad(n->p, "D"), *v = program_output_grad(n->p, "logvar");
    double sum = 0;
    program_forward(n->p, n->w, &dropping);
    for (int i = 0; i < B * PER; i++) sum += (double)u[i] * program_output(n->p, "D")[i];
    for (int i = 0; i < B; i++) sum += (double)v[i] * program_output(n->p, "logvar")[i];
    return sum;
}

static void whole_gradient(void **s)
{
    (void)s;
    struct net n;
    net_open(&n, &small, &(struct program_opts){.grad = GRAD_ALL, .only = "D,logvar"}, true);
    size_t floats = graph_arena_floats(n.g);
    float *grad = mem_array(floats, sizeof *grad), *w = params_arena(n.w), *start = mem_array(floats, sizeof *start);
    float *dir = mem_array(floats, sizeof *dir);
    for (uint32_t i = 0; i < 3 * B; i++) program_input(n.p, "labels")[i] = i % 4 == 1;
    for (uint32_t i = 0; i < B * PER; i++) program_output_grad(n.p, "D")[i] = (float)uniform(3, i);
    for (uint32_t i = 0; i < B; i++) program_output_grad(n.p, "logvar")[i] = (float)uniform(4, i) * 5;
    memcpy(start, w, floats * sizeof *w);
    objective(&n);
    program_backward(n.p, n.w, &dropping, grad);
    assert_null(program_input_grad(n.p, "sigma"));
    for (int round = 0; round < 6; round++) {
        double got = 0, gg = 0, d[2];
        for (uint32_t i = 0; i < floats; i++) dir[i] = (float)uniform(9 + (uint32_t)round, i);
        for (size_t i = 0; i < floats; i++) got += (double)grad[i] * dir[i], gg += (double)grad[i] * grad[i];
        for (int j = 0; j < 2; j++) {
            double h = j ? 1e-2 : 5e-3, side[2];
            for (int t = 0; t < 2; t++) {
                for (size_t i = 0; i < floats; i++) w[i] = (float)(start[i] + (t ? h : -h) * dir[i]);
                params_changed(n.w);
                side[t] = objective(&n);
            }
            d[j] = (side[1] - side[0]) / (2 * h);
        }
        assert_near(got, (4 * d[0] - d[1]) / 3, 2e-3 * sqrt(gg) + 1e-3);
    }
    memcpy(w, start, floats * sizeof *w);
    mem_free(grad);
    mem_free(start);
    mem_free(dir);
    net_close(&n);
}

/* ---- training ------------------------------------------------------------------------------------------------------------------ */

static struct toy toy;
static struct design design;
static struct spec spec;
static struct train_config config;
static struct train_result result;
static char dir[256], path[320];

static void train(const char *rows, int64_t iters)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)iters);
    config.ckpt_dir = test_dir(dir, sizeof dir);
    assert_ok(spec_set(&spec, "micro_batch", rows));
    assert_ok(spec_set(&spec, "iters", text));
    assert_ok(train_run(&config, &result));
    snprintf(path, sizeof path, "%s/step-%09lld.safetensors", dir, (long long)iters);
}

static float *stored(struct st_file *f, const char *name, size_t *n)
{
    const struct st_tensor *t = st_find(f, name);
    if (!t) fail_msg("no tensor %s", name);
    float *v = mem_array(t->count, sizeof *v);
    assert_ok(st_read_f32(t, v, t->count));
    *n = t->count;
    return v;
}

/* How far the RMS of a convolution's rows is from 1, at most. */
static double off_unit(const char *file, const char *name)
{
    struct st_file *f;
    size_t n;
    double most = 0;
    assert_ok(st_open(&f, file));
    float *v = stored(f, name, &n);
    int rows = (int)st_find(f, name)->dims[0], per = (int)n / rows;
    for (int i = 0; i < rows; i++) {
        double sum = 0;
        for (int e = 0; e < per; e++) sum += (double)v[i * per + e] * v[i * per + e] / per;
        most = fmax(most, fabs(sqrt(sum) - 1));
    }
    mem_free(v);
    st_close(f);
    return most;
}

/* The online weights are normalised before a step, then moved by at most lr an element; averages are left as they are. Fresh weights
 * are far from it: rows of few normals. A second run gives the same bytes, micro-batches nearly the same loss, and no step but the
 * first allocates. */
static void training(void **s)
{
    (void)s;
    static const char *const set[][2] = {{"net", "edm2"},     {"net.width", "8"},      {"net.mult", "1,1"},
                                         {"net.blocks", "1"}, {"net.emb_mult", "0"},   {"net.noise_mult", "0"},
                                         {"net.head", "4"},   {"net.logvar", "false"}, {"net.cond", "true"}};
    static const char *const weight = "unet.enc.8x8_block0.conv_res0.weight", *const ema = "ema.beta9.";
    struct dataset *data = toy_data();
    char first[320], name[96], hash[2][SHA256_TEXT];
    double loss;
    toy = toy_default();
    design = toy_design(&toy);
    toy_spec(&spec);
    for (size_t i = 0; i < ARRAY_LEN(set); i++) assert_ok(spec_set(&spec, set[i][0], set[i][1]));
    config = (struct train_config){.spec = &spec, .design = &design, .data = data, .kernels = k, .dev = dev, .seed = 7};
    train("0", 1);
    assert_true(off_unit(path, weight) < 2e-3);
    snprintf(name, sizeof name, "%s%s", ema, weight);
    assert_true(off_unit(path, name) > 0.02);
    train("0", 9);
    assert_int_equal(result.allocs_in_loop, 0);
    assert_true(off_unit(path, weight) < 2e-3);
    snprintf(first, sizeof first, "%s", path);
    train("0", 9);
    assert_ok(sha256_file(first, hash[0]));
    assert_ok(sha256_file(path, hash[1]));
    assert_string_equal(hash[0], hash[1]);
    toy.lr = 1e-5;
    train("0", 4);
    loss = result.final_loss;
    train("4", 4);
    assert_int_equal(result.allocs_in_loop, 0);
    assert_near(result.final_loss, loss, 1e-4 * fabs(loss));
    toy_data_free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bad_configurations),
                                       cmocka_unit_test(conditions),
                                       cmocka_unit_test(fresh),
                                       cmocka_unit_test(initial_values),
                                       cmocka_unit_test(weights_have_no_scale),
                                       cmocka_unit_test(dropout),
                                       cmocka_unit_test(whole_gradient),
                                       cmocka_unit_test(training)};
    return cmocka_run_group_tests(tests, open_device, close_device);
}
