/* SongUNet in its forms and ADM beside the published vectors (tests/core/golden.sh): configurations that cannot be built, conditions,
 * dropout, independence of samples, initial values, Fourier frequencies, names of the forms that have no vectors, memory and allocation
 * on the demo's network, and the whole gradient in one direction against differences. */
#include "core/nets.h"
#include "core/rng.h"
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

/* A small network with every part: two levels, attention at both, labels, augmentation. */
static const struct net_config small = {.family = "songunet",
                                        .resolution = 8,
                                        .in_channels = 2,
                                        .label_dim = 3,
                                        .augment_dim = 9,
                                        .width = 8,
                                        .mult = {1, 2},
                                        .nmult = 2,
                                        .blocks = 1,
                                        .attn = {8, 4},
                                        .nattn = 2,
                                        .emb_mult = 4,
                                        .noise_mult = 1,
                                        .sigma_data = 0.5};

enum { DDPMPP, NCSNPP, SKIP, ADM, VARIANTS };
static struct net_config variant(int which)
{
    struct net_config c = small;
    if (which == NCSNPP || which == SKIP) {
        c.fourier = true;
        c.fourier_scale = 0.5;
        c.noise_mult = 2;
        c.encoder = which == NCSNPP ? CODER_RESIDUAL : CODER_SKIP;
        c.decoder = which == NCSNPP ? CODER_STANDARD : CODER_SKIP;
        c.filter[0] = c.filter[3] = 1;
        c.filter[1] = c.filter[2] = which == NCSNPP ? 3 : 2;
        c.nfilter = 4;
    }
    if (which == ADM) {
        strcpy(c.family, "adm");
        c.head = 4;
    }
    return c;
}

enum { PER = 8 * 8 * 2 };
struct net {
    struct graph *g;
    struct params *w;
    struct program *p;
    int batch;
};

static double uniform(uint32_t stream, uint32_t e)
{
    return 2 * rng_uniform(&(struct rng){.seed = 6, .purpose = RNG_TEST}, stream, e) - 1;
}

/* random: every weight well away from its near-zero start, so that all parts of the network matter */
static void net_open(struct net *n, const struct net_config *c, const struct program_opts *o, bool random)
{
    *n = (struct net){.g = graph_new(), .batch = o->batch};
    assert_ok(net_build(n->g, c));
    assert_ok(params_new(&n->w, n->g, k, dev));
    params_init(n->w, 1);
    for (int i = 0; random && i < graph_nparams(n->g); i++) {
        const struct param_info *p = graph_param_info(n->g, i);
        if (p->buffer) continue;
        float *v = mem_array(p->count, sizeof *v);
        double scale = p->ndim > 1 ? sqrt(3.0 / p->init.fan_in) : 0.3, shift = p->init.kind == INIT_ONE;
        for (size_t e = 0; e < p->count; e++) v[e] = (float)(shift + scale * uniform(50 + (uint32_t)i, (uint32_t)e));
        params_set(n->w, i, v);
        mem_free(v);
    }
    assert_ok(program_new(&n->p, n->g, k, dev, o));
    float *x = program_input(n->p, "x"), *sigma = program_input(n->p, "sigma");
    for (int i = 0; i < o->batch; i++) {
        sigma[i] = (float)exp(2 * uniform(1, (uint32_t)i));
        for (int e = 0; e < PER && (size_t)PER == graph_node_floats(n->g, "x"); e++)
            x[i * PER + e] = (float)uniform(2, (uint32_t)(i * PER + e));
    }
}

static void net_close(struct net *n)
{
    program_free(n->p);
    params_free(n->w);
    graph_free(n->g);
}

static float *forward(struct net *n, const struct run_ctx *c, const char *name)
{
    size_t count = (size_t)n->batch * graph_node_floats(n->g, name);
    float *copy = mem_array(count, sizeof *copy);
    program_forward(n->p, n->w, c);
    memcpy(copy, program_output(n->p, name), count * sizeof *copy);
    return copy;
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
    REFUSED("did you mean songunet", strcpy(c.family, "songunett"));
    REFUSED("halved", c.resolution = 9);
    REFUSED("halved", c.nmult = 5; c.mult[2] = c.mult[3] = c.mult[4] = 1);
    REFUSED("net.mult", c.nmult = 0);
    REFUSED("net.mult", c.nmult = NET_LEVELS + 1);
    REFUSED("net.width", c.width = 2);
    REFUSED("5 times 1 is odd", c.width = 5);
    c = variant(NCSNPP); /* an odd width is none of the embedding's */
    c.width = 5;
    struct graph *odd = graph_new();
    assert_ok(net_build(odd, &c));
    graph_free(odd);
    REFUSED("groups", c.width = 18);
    REFUSED("net.mult", c.mult[1] = 0);
    REFUSED("net.blocks", c.blocks = 0);
    REFUSED("sigma_data", c.sigma_data = 0);
    REFUSED("net.width", c.width = 4098);
    REFUSED("at most 4096", c.width = 2048; c.mult[1] = 2);
    REFUSED("net.noise_mult", c.noise_mult = 0);
    REFUSED("net.emb_mult", c.emb_mult = 0);
    REFUSED("net.filter: 3 taps", c.nfilter = 3; c.filter[0] = c.filter[1] = c.filter[2] = 1);
    REFUSED("net.filter", c.nfilter = 2);
    REFUSED("net.decoder", c.decoder = CODER_RESIDUAL);
    REFUSED("at most 4 taps", c.encoder = CODER_RESIDUAL; c.nfilter = 6; c.filter[0] = 1);
#define ADM_REFUSED(part, ...) REFUSED(part, c = variant(ADM); __VA_ARGS__)
    ADM_REFUSED("halved", c.resolution = 9);
    ADM_REFUSED("5 is odd", c.width = 5);
    ADM_REFUSED("groups", c.width = 18);
    ADM_REFUSED("net.mult", c.nmult = 0);
    ADM_REFUSED("44 channels do not divide into 5 heads", c.width = 44; c.head = 8);
}

/* A label matters; no label is a row of zeros, which is what an input holds before anyone writes to it. Likewise augmentation. */
static void conditions_of(const struct net_config *c)
{
    enum { B = 2 };
    struct net n;
    static const char *const names[] = {"labels", "augment"};
    net_open(&n, c, &(struct program_opts){.batch = B}, true);
    float *plain = forward(&n, &(struct run_ctx){0}, "D");
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        float *in = program_input(n.p, names[i]);
        in[1] = 1; /* of the first sample */
        float *given = forward(&n, &(struct run_ctx){0}, "D");
        assert_true(distance(plain, given, PER) > 1e-3);
        assert_memory_equal(plain + PER, given + PER, PER * sizeof(float));
        mem_free(given);
        in[1] = 0;
        given = forward(&n, &(struct run_ctx){0}, "D");
        assert_memory_equal(plain, given, B * PER * sizeof(float));
        mem_free(given);
    }
    mem_free(plain);
    net_close(&n);
}

static void conditions(void **s)
{
    (void)s;
    for (int i = 0; i < VARIANTS; i++) {
        struct net_config c = variant(i);
        conditions_of(&c);
    }
}

/* Equal counters give equal masks, in programs of either kind; another step gives others; probability 0 is no dropout. */
static void dropout(void **s)
{
    (void)s;
    enum { B = 2 };
    struct net n, t;
    net_open(&n, &small, &(struct program_opts){.batch = B, .grad = GRAD_PARAMS}, true);
    net_open(&t, &small, &(struct program_opts){.batch = B}, true);
    struct run_ctx c = {.dropout = 0.3f, .drop = {.seed = 1, .step = 5, .purpose = RNG_DROPOUT}};
    float *a = forward(&n, &c, "D"), *b = forward(&t, &c, "D");
    assert_memory_equal(a, b, B * PER * sizeof(float));
    mem_free(b);
    c.drop.step = 6;
    b = forward(&t, &c, "D");
    assert_true(distance(a, b, B * PER) > 1e-3);
    mem_free(b);
    c.dropout = 0;
    b = forward(&t, &c, "D");
    c.drop.step = 5;
    float *d = forward(&n, &c, "D");
    assert_memory_equal(b, d, B * PER * sizeof(float));
    assert_true(distance(a, b, B * PER) > 1e-3);
    mem_free(a);
    mem_free(b);
    mem_free(d);
    net_close(&n);
    net_close(&t);
}

/* A sample's result is its own: alone, or in a batch with the counter of its place in the global batch. */
static void samples_are_independent(void **s)
{
    (void)s;
    enum { B = 5, AT = 3 };
    struct net n, one;
    net_open(&n, &small, &(struct program_opts){.batch = B}, true);
    net_open(&one, &small, &(struct program_opts){.batch = 1}, true);
    struct run_ctx c = {.dropout = 0.3f, .drop = {.seed = 1, .step = 5, .purpose = RNG_DROPOUT}};
    float *all = forward(&n, &c, "D");
    memcpy(program_input(one.p, "x"), program_input(n.p, "x") + AT * PER, PER * sizeof(float));
    memcpy(program_input(one.p, "sigma"), program_input(n.p, "sigma") + AT, sizeof(float));
    c.drop.sample0 = AT;
    float *alone = forward(&one, &c, "D");
    assert_true(distance(all + AT * PER, alone, PER) < 1e-5);
    mem_free(all);
    mem_free(alone);
    net_close(&n);
    net_close(&one);
}

/* A fresh network is nearly c_skip x: its last layer starts near zero. The evaluation form shifts sigma by 0.003 in c_skip. */
static void preconditioning(void **s)
{
    (void)s;
    enum { B = 4 };
    for (int shifted = 0; shifted < 2; shifted++) {
        struct net n;
        net_open(&n, &small, &(struct program_opts){.batch = B, .eval_form = shifted}, false);
        float *x = program_input(n.p, "x"), *sigma = program_input(n.p, "sigma");
        for (int i = 0; i < B; i++) sigma[i] = (float[]){0.003f, 0.01f, 0.5f, 80}[i];
        float *d = forward(&n, &(struct run_ctx){0}, "D");
        for (int i = 0; i < B; i++) {
            double at = sigma[i] - (shifted ? (double)0.003f : 0), skip = 0.25 / (at * at + 0.25);
            for (int e = 0; e < PER; e++) assert_near(d[i * PER + e], skip * x[i * PER + e], 3e-5 * fmin(1, at) + 1e-7);
        }
        mem_free(d);
        net_close(&n);
    }
}

/* Initial scales of the published configuration, by layer. */
static void initial_scales(void **s)
{
    (void)s;
    static const struct {
        const char *name;
        double scale;
    } want[] = {{"model.map_layer0.weight", 1},
                {"model.enc.8x8_conv.weight", 1},
                {"model.enc.8x8_block0.conv0.weight", 1},
                {"model.enc.8x8_block0.conv1.weight", 1e-5},
                {"model.enc.8x8_block0.affine.weight", 1},
                {"model.enc.8x8_block0.qkv.weight", 0.4472135955},
                {"model.enc.8x8_block0.proj.weight", 1e-5},
                {"model.enc.4x4_down.skip.weight", 1},
                {"model.dec.8x8_aux_conv.weight", 1e-5}};
    struct net n;
    net_open(&n, &small, &(struct program_opts){.batch = 1}, false);
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        const struct param_info *p = graph_param_named(n.g, want[i].name);
        if (!p) fail_msg("no parameter %s", want[i].name);
        double area = p->ndim == 4 ? p->dims[2] * p->dims[3] : 1, most = 0;
        double bound = want[i].scale * sqrt(6 / ((p->dims[0] + p->dims[1]) * area));
        const float *v = params_arena(n.w) + p->offset;
        for (size_t e = 0; e < p->count; e++) most = fmax(most, fabs(v[e]));
        if (!(most <= bound * 1.000001 && most > 0.9 * bound))
            fail_msg("%s: largest initial weight %.3g, bound %.3g", want[i].name, most, bound);
    }
    for (int i = 0; i < graph_nparams(n.g); i++) {
        const struct param_info *p = graph_param_info(n.g, i);
        if (p->buffer || p->ndim != 1) continue;
        bool gain = strstr(p->name, "norm") && strstr(p->name, ".weight");
        for (size_t e = 0; e < p->count; e++) assert_true(params_arena(n.w)[p->offset + e] == gain);
    }
    net_close(&n);
}

/* With dropout on: sum(u * D) along a random direction of all parameters at once. */
static void whole_gradient_of(const struct net_config *config)
{
    enum { B = 3 };
    struct net n;
    net_open(&n, config, &(struct program_opts){.batch = B, .grad = GRAD_ALL, .only = "D"}, true);
    struct run_ctx c = {.dropout = 0.2f, .drop = {.seed = 1, .step = 5, .purpose = RNG_DROPOUT}};
    size_t floats = graph_arena_floats(n.g);
    float *grad = mem_array(floats, sizeof *grad), *w = params_arena(n.w), *start = mem_array(floats, sizeof *start);
    float *dir = mem_array(floats, sizeof *dir), *u = program_output_grad(n.p, "D");
    for (uint32_t i = 0; i < 3 * B; i++) program_input(n.p, "labels")[i] = i % 4 == 1;
    for (uint32_t i = 0; i < 9 * B; i++) program_input(n.p, "augment")[i] = (float)uniform(5, i);
    for (uint32_t i = 0; i < B * PER; i++) u[i] = (float)uniform(3, i);
    memcpy(start, w, floats * sizeof *w);
    program_forward(n.p, n.w, &c);
    program_backward(n.p, n.w, &c, grad);
    for (int round = 0; round < 4; round++) {
        double got = 0, gg = 0, d[2];
        for (uint32_t i = 0; i < floats; i++) dir[i] = (float)uniform(9 + (uint32_t)round, i);
        for (size_t i = 0; i < floats; i++) got += (double)grad[i] * dir[i], gg += (double)grad[i] * grad[i];
        for (int j = 0; j < 2; j++) {
            double h = j ? 2e-3 : 1e-3, side[2] = {0};
            for (int t = 0; t < 2; t++) {
                for (size_t i = 0; i < floats; i++) w[i] = (float)(start[i] + (t ? h : -h) * dir[i]);
                params_changed(n.w);
                program_forward(n.p, n.w, &c);
                for (int i = 0; i < B * PER; i++) side[t] += (double)u[i] * program_output(n.p, "D")[i];
            }
            d[j] = (side[1] - side[0]) / (2 * h);
        }
        assert_near(got, (4 * d[0] - d[1]) / 3, 2e-3 * sqrt(gg) + 1e-3);
    }
    mem_free(grad);
    mem_free(start);
    mem_free(dir);
    net_close(&n);
}

static void whole_gradient(void **s)
{
    (void)s;
    for (int i = 0; i < VARIANTS; i++) {
        struct net_config c = variant(i);
        whole_gradient_of(&c);
    }
}

/* net.dropout_res: nothing is dropped above it. 8x8 images halved once have blocks at 8 and at 4. */
static void dropout_below(void **s)
{
    (void)s;
    enum { B = 2, CASES = 4 };
    static const int below[CASES] = {0, 8, 4, 2};
    struct run_ctx drop = {.dropout = 0.3f, .drop = {.seed = 1, .step = 5, .purpose = RNG_DROPOUT}};
    for (int i = 0; i < VARIANTS; i++) {
        float *d[CASES], *plain = NULL;
        for (int j = 0; j < CASES; j++) {
            struct net n;
            struct net_config c = variant(i);
            c.dropout_res = below[j];
            net_open(&n, &c, &(struct program_opts){.batch = B}, true);
            d[j] = forward(&n, &drop, "D");
            if (!plain) plain = forward(&n, &(struct run_ctx){0}, "D");
            net_close(&n);
        }
        assert_memory_equal(d[0], d[1], B * PER * sizeof(float));
        assert_true(distance(d[0], d[2], B * PER) > 1e-3);
        assert_true(distance(plain, d[2], B * PER) > 1e-3);
        assert_memory_equal(plain, d[3], B * PER * sizeof(float));
        for (int j = 0; j < CASES; j++) mem_free(d[j]);
        mem_free(plain);
    }
}

/* Frequencies are drawn once from the seed, belong to the parameter set, and are what the network runs on. */
static void frequencies(void **s)
{
    (void)s;
    enum { HALF = 512 };
    struct net n;
    struct params *other;
    struct net_config c = variant(NCSNPP);
    float f[HALF], g[HALF];
    double sum = 0, squares = 0;
    c.width = 64;
    c.noise_mult = 16;
    c.fourier_scale = 16;
    net_open(&n, &c, &(struct program_opts){.batch = 2}, true);
    int at = 0;
    while (strcmp(graph_param_info(n.g, at)->name, "model.map_noise.freqs")) at++;
    assert_true(graph_param_info(n.g, at)->buffer && graph_param_info(n.g, at)->count == HALF);
    params_get(n.w, at, f);
    for (int i = 0; i < HALF; i++) sum += f[i], squares += (double)f[i] * f[i];
    assert_near(sum / HALF, 0, 3);
    assert_near(sqrt(squares / HALF), 16, 2);
    assert_ok(params_new(&other, n.g, k, dev));
    params_init(other, 1);
    params_get(other, at, g);
    assert_memory_equal(f, g, sizeof f);
    params_init(other, 2);
    params_get(other, at, g);
    assert_true(distance(f, g, HALF) > 1);
    params_copy(other, n.w); /* as an EMA starts */
    float *same = forward(&n, &(struct run_ctx){0}, "F");
    program_forward(n.p, other, &(struct run_ctx){0});
    assert_memory_equal(same, program_output(n.p, "F"), 2 * PER * sizeof(float));
    params_set(other, at, g);
    program_forward(n.p, other, &(struct run_ctx){0});
    assert_true(distance(same, program_output(n.p, "F"), 2 * PER) > 1e-4);
    program_forward(n.p, n.w, &(struct run_ctx){0});
    assert_memory_equal(same, program_output(n.p, "F"), 2 * PER * sizeof(float));
    mem_free(same);
    params_free(other);
    net_close(&n);
}

/* Every parameter of every form has a part in the result. */
static void nothing_idles(void **s)
{
    (void)s;
    enum { B = 2 };
    for (int v = 0; v < VARIANTS; v++) {
        struct net n;
        struct net_config c = variant(v);
        net_open(&n, &c, &(struct program_opts){.batch = B, .grad = GRAD_PARAMS, .only = "D"}, true);
        float *grad = mem_array(graph_arena_floats(n.g), sizeof *grad), *u = program_output_grad(n.p, "D");
        for (uint32_t i = 0; i < 3 * B; i++) program_input(n.p, "labels")[i] = 1;
        for (uint32_t i = 0; i < 9 * B; i++) program_input(n.p, "augment")[i] = (float)uniform(5, i);
        for (uint32_t i = 0; i < B * PER; i++) u[i] = (float)uniform(3, i);
        program_forward(n.p, n.w, &(struct run_ctx){0});
        program_backward(n.p, n.w, &(struct run_ctx){0}, grad);
        for (int i = 0; i < graph_nparams(n.g); i++) {
            const struct param_info *p = graph_param_info(n.g, i);
            double most = 0;
            if (p->buffer) continue;
            for (size_t e = 0; e < p->count; e++) most = fmax(most, fabs(grad[p->offset + e]));
            if (!(most > 1e-6)) fail_msg("form %d: the gradient of %s is zero", v, p->name);
        }
        mem_free(grad);
        net_close(&n);
    }
}

/* Sets every parameter whose name holds `part` to value, from input channel `from` on. */
static void set_all(struct net *n, const char *part, int from, float value)
{
    for (int i = 0; i < graph_nparams(n->g); i++) {
        const struct param_info *p = graph_param_info(n->g, i);
        if (p->buffer || !strstr(p->name, part)) continue;
        float *v = mem_array(p->count, sizeof *v);
        params_get(n->w, i, v);
        int area = p->ndim == 4 ? p->dims[2] * p->dims[3] : 1, in = p->ndim > 1 ? p->dims[1] : 1;
        for (size_t e = 0; e < p->count; e++)
            if ((int)(e / (size_t)area % (size_t)in) >= from) v[e] = value;
        params_set(n->w, i, v);
        mem_free(v);
    }
}

/* What leaves a level of the residual encoder, blocks' part included, is what the next level's residual convolution reads. Here the second
 * level's value can reach the output on no other way: its skips are cut off in the decoder, and the halving after it is zero. */
static void residual_is_carried(void **s)
{
    (void)s;
    struct net n;
    struct net_config c = variant(NCSNPP);
    c.mult[1] = c.mult[2] = 1;
    c.nmult = 3;
    c.nattn = 0;
    net_open(&n, &c, &(struct program_opts){.batch = 1, .only = "F"}, true);
    set_all(&n, "conv1", 0, 0);
    set_all(&n, "enc.2x2_down.skip", 0, 0);
    set_all(&n, "dec.4x4_block0.skip.weight", c.width, 0);
    set_all(&n, "dec.4x4_block1.skip.weight", c.width, 0);
    float *before = forward(&n, &(struct run_ctx){0}, "F");
    set_all(&n, "enc.4x4_down.skip.bias", 0, 3);
    float *after = forward(&n, &(struct run_ctx){0}, "F");
    assert_true(distance(before, after, PER) > 1e-3);
    mem_free(after);
    set_all(&n, "enc.2x2_aux_residual.weight", 0, 0); /* the way on which it came */
    mem_free(before);
    before = forward(&n, &(struct run_ctx){0}, "F");
    set_all(&n, "enc.4x4_down.skip.bias", 0, -2);
    after = forward(&n, &(struct run_ctx){0}, "F");
    assert_memory_equal(before, after, PER * sizeof(float));
    mem_free(before);
    mem_free(after);
    net_close(&n);
}

/* The skip decoder's image is the sum of every level's, brought up: of constants, away from the border, their sum. */
static void images_are_summed(void **s)
{
    (void)s;
    struct net n;
    struct net_config c = variant(SKIP);
    net_open(&n, &c, &(struct program_opts){.batch = 1, .only = "F"}, true);
    set_all(&n, "aux_conv", 0, 0);
    set_all(&n, "4x4_aux_conv.bias", 0, 10);
    set_all(&n, "8x8_aux_conv.bias", 0, 1);
    float *f = forward(&n, &(struct run_ctx){0}, "F");
    for (int y = 2; y < 6; y++)
        for (int x = 2; x < 6; x++) assert_near(f[(y * 8 + x) * 2], 11, 1e-5);
    mem_free(f);
    net_close(&n);
}

/* Names beside the blocks', in the published order, where there are no vectors. A list per form, ended by NULL. */
static void auxiliary_names(void **s)
{
    (void)s;
    static const char *const skip[] = {"model.map_noise.freqs",
                                       "model.enc.4x4_aux_down.resample_filter",
                                       "model.enc.4x4_aux_skip.weight",
                                       "model.enc.4x4_aux_skip.bias",
                                       "model.enc.2x2_aux_down.resample_filter",
                                       "model.enc.2x2_aux_skip.weight",
                                       "model.enc.2x2_aux_skip.bias",
                                       "model.dec.2x2_aux_norm.weight",
                                       "model.dec.2x2_aux_norm.bias",
                                       "model.dec.2x2_aux_conv.weight",
                                       "model.dec.2x2_aux_conv.bias",
                                       "model.dec.4x4_aux_up.resample_filter",
                                       "model.dec.4x4_aux_norm.weight",
                                       "model.dec.4x4_aux_norm.bias",
                                       "model.dec.4x4_aux_conv.weight",
                                       "model.dec.4x4_aux_conv.bias",
                                       "model.dec.8x8_aux_up.resample_filter",
                                       "model.dec.8x8_aux_norm.weight",
                                       "model.dec.8x8_aux_norm.bias",
                                       "model.dec.8x8_aux_conv.weight",
                                       "model.dec.8x8_aux_conv.bias",
                                       NULL};
    struct net_config c = variant(SKIP);
    c.nmult = 3;
    c.mult[2] = 1;
    struct graph *g = graph_new();
    assert_ok(net_build(g, &c));
    int nth = 0;
    for (int i = 0; i < graph_nparams(g); i++) {
        const struct param_info *p = graph_param_info(g, i);
        if (!strstr(p->name, "aux_") && !strstr(p->name, "freqs")) continue;
        assert_non_null(skip[nth]);
        assert_string_equal(p->name, skip[nth++]);
    }
    assert_null(skip[nth]);
    /* the image goes down beside the blocks; every level of the decoder makes an image */
    assert_int_equal(graph_param_named(g, "model.enc.2x2_aux_skip.weight")->dims[1], 2);
    assert_int_equal(graph_param_named(g, "model.enc.2x2_aux_skip.weight")->dims[0], 16);
    assert_int_equal(graph_param_named(g, "model.dec.2x2_aux_conv.weight")->dims[0], 2);
    graph_free(g);
}

/* ADM: weights and biases uniform within sqrt(1 / fan_in), zeros where a layer's output is added, labels normal. */
static void initial_values_adm(void **s)
{
    (void)s;
    struct net n;
    struct net_config c = variant(ADM);
    c.width = 16;
    c.label_dim = 300;
    net_open(&n, &c, &(struct program_opts){.batch = 1}, false);
    for (int i = 0; i < graph_nparams(n.g); i++) {
        const struct param_info *p = graph_param_info(n.g, i);
        if (p->buffer) continue;
        const float *v = params_arena(n.w) + p->offset;
        double most = 0, squares = 0;
        for (size_t e = 0; e < p->count; e++) most = fmax(most, fabs(v[e])), squares += (double)v[e] * v[e];
        bool zero = strstr(p->name, "conv1") || strstr(p->name, "proj") || strstr(p->name, "out_conv") ||
                    strstr(p->name, "map_augment");
        bool norm = strstr(p->name, "norm");
        const char *dot = strrchr(p->name, '.');
        if (norm) {
            for (size_t e = 0; e < p->count; e++) assert_true(v[e] == !strcmp(dot, ".weight"));
        } else if (zero) {
            assert_true(most == 0);
        } else if (!strcmp(p->name, "model.map_label.weight")) {
            assert_near(sqrt(squares / (double)p->count), 1, 0.05); /* sqrt(label_dim) * normal / sqrt(fan_in) */
        } else {
            char weight[128];
            snprintf(weight, sizeof weight, "%.*s.weight", (int)(dot - p->name), p->name);
            const struct param_info *w = graph_param_named(n.g, weight);
            double bound = 1 / sqrt((double)w->count / w->dims[0]), least = p->count >= 16 ? 0.7 : 0.3;
            if (!(most <= bound * 1.000001 && most > least * bound))
                fail_msg("%s: largest initial value %.3g, bound %.3g", p->name, most, bound);
        }
    }
    net_close(&n);
}

/* Heads are channels / net.head, rounded down: fewer channels than a head has have no attention at all. */
static void heads(void **s)
{
    (void)s;
    struct net_config c = variant(ADM);
    c.head = 16; /* 8 channels at 8x8, 16 at 4x4 */
    struct graph *g = graph_new();
    assert_ok(net_build(g, &c));
    assert_null(graph_param_named(g, "model.enc.8x8_block0.qkv.weight"));
    assert_null(graph_param_named(g, "model.enc.8x8_block0.norm2.weight"));
    assert_non_null(graph_param_named(g, "model.enc.4x4_block0.qkv.weight"));
    assert_non_null(graph_param_named(g, "model.dec.4x4_in0.proj.weight"));
    graph_free(g);
    c.head = 0; /* the published 64 */
    g = graph_new();
    assert_ok(net_build(g, &c));
    assert_null(graph_param_named(g, "model.dec.4x4_in0.qkv.weight"));
    graph_free(g);
}

/* The demo's network: no allocation in a pass, memory near what backward must keep, and far less for sampling. */
static void demo_network(void **s)
{
    (void)s;
    struct net train, sample;
    struct program_stats st, ss;
    const struct net_config *c = &net_preset_find("digits")->config;
    net_open(&train, c, &(struct program_opts){.batch = 4, .grad = GRAD_PARAMS, .only = "D"}, true);
    net_open(&sample, c, &(struct program_opts){.batch = 4, .only = "D"}, true);
    struct run_ctx run = {.dropout = 0.1f};
    float *grad = mem_array(graph_arena_floats(train.g), sizeof *grad);
    for (int i = 0; i < 3; i++) {
        uint64_t before = mem_count();
        program_forward(train.p, train.w, &run);
        program_forward(sample.p, sample.w, &run);
        program_backward(train.p, train.w, &run, grad);
        params_changed(train.w);
        if (i) assert_int_equal(mem_count(), before);
    }
    program_stats(train.p, &st);
    program_stats(sample.p, &ss);
    assert_true(st.saved_bytes > 0 && st.arena_bytes < st.saved_bytes * 5 / 4);
    assert_true(ss.arena_bytes < st.arena_bytes / 4);
    mem_free(grad);
    net_close(&train);
    net_close(&sample);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bad_configurations),
                                       cmocka_unit_test(conditions),
                                       cmocka_unit_test(dropout),
                                       cmocka_unit_test(samples_are_independent),
                                       cmocka_unit_test(preconditioning),
                                       cmocka_unit_test(initial_scales),
                                       cmocka_unit_test(whole_gradient),
                                       cmocka_unit_test(demo_network),
                                       cmocka_unit_test(dropout_below),
                                       cmocka_unit_test(frequencies),
                                       cmocka_unit_test(auxiliary_names),
                                       cmocka_unit_test(nothing_idles),
                                       cmocka_unit_test(residual_is_carried),
                                       cmocka_unit_test(images_are_summed),
                                       cmocka_unit_test(initial_values_adm),
                                       cmocka_unit_test(heads)};
    return cmocka_run_group_tests(tests, open_device, close_device);
}
