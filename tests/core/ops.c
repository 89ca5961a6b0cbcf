/* Every operator's gradient against central differences along random directions, of every input and parameter, over odd shapes, on both
 * CPU paths. The loss is sum(weight * output), so its directional derivative is linear in the gradient: an error anywhere shows. */
#include "core/ops.h"
#include "core/rng.h"
#include "tests/test.h"

enum { BATCH = 3, ROUNDS = 3 };

static double uniform(uint32_t stream, uint32_t e)
{
    struct rng r = {.seed = 99, .purpose = RNG_TEST};
    return 2 * rng_uniform(&r, stream, e) - 1;
}

/* ---- one row an operator: makes the node to be tested from inputs "x" and "z" ---------------------------------------- */

static struct node *weight(struct graph *g, const char *name, int ndim, const int *dims)
{
    return graph_param(g, name, ndim, dims, (struct init){.kind = INIT_NORMAL, .scale = 0.4});
}
static struct node *conv_of(struct graph *g, struct node *x, const char *name, int k, int r)
{
    char w[32], b[32];
    snprintf(w, sizeof w, "%s.weight", name);
    snprintf(b, sizeof b, "%s.bias", name);
    return op_conv(g, x, weight(g, w, 4, (int[]){k, node_channels(x), r, r}), weight(g, b, 1, &k));
}
static struct node *make_conv3(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    return conv_of(g, x, "c", 5, 3);
}
static struct node *make_conv1(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    return op_conv(g, x, weight(g, "w", 4, (int[]){7, node_channels(x), 1, 1}), NULL);
}
static struct node *make_linear(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    int out = 9;
    return op_linear(g, x, weight(g, "w", 2, (int[]){out, node_channels(x)}), weight(g, "b", 1, &out));
}
static struct node *make_linear_plain(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    return op_linear(g, x, weight(g, "w", 2, (int[]){6, node_channels(x)}), NULL);
}
static struct node *norm_of(struct graph *g, struct node *x, struct norm_opts o)
{
    int c = node_channels(x);
    return op_group_norm(g, x, weight(g, "gamma", 1, &c), weight(g, "beta", 1, &c), o);
}
static struct node *make_norm(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    return norm_of(g, x, (struct norm_opts){.groups = node_channels(x) / 3, .eps = 1e-6});
}
static struct node *make_norm_silu(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    return norm_of(g, x, (struct norm_opts){.groups = 1, .eps = 1e-5, .silu = true});
}
static struct node *make_norm_dropout(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    return norm_of(g, x, (struct norm_opts){.groups = 3, .eps = 1e-6, .silu = true, .dropout = true});
}
static struct node *adaptive_of(struct graph *g, struct node *x, struct node *e, struct norm_opts o)
{
    int c = node_channels(x);
    return op_group_norm_adaptive(g, x, weight(g, "gamma", 1, &c), weight(g, "beta", 1, &c), e, o);
}
static struct node *make_adaptive(struct graph *g, struct node *x, struct node *z)
{
    return adaptive_of(g, x, z, (struct norm_opts){.groups = 3, .eps = 1e-5});
}
/* the embedding of z has two users, so its gradient is added to */
static struct node *make_adaptive_dropout(struct graph *g, struct node *x, struct node *z)
{
    struct norm_opts o = {.groups = 1, .eps = 1e-5, .silu = true, .dropout = true};
    return op_add_channel(g, adaptive_of(g, x, z, o), op_linear(g, z, weight(g, "w", 2, (int[]){5, 10}), NULL));
}
static struct node *make_silu(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    return op_silu(g, x);
}
static struct node *make_add(struct graph *g, struct node *x, struct node *z)
{
    return op_add(g, x, z, 0.7);
}
static struct node *make_add_self(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    return op_add(g, x, x, 0.7);
}
static struct node *make_scale(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    return op_scale(g, x, -1.3);
}
static struct node *make_add_channel(struct graph *g, struct node *x, struct node *z)
{
    return op_add_channel(g, x, z);
}
static struct node *make_concat(struct graph *g, struct node *x, struct node *z)
{
    return op_concat(g, x, z);
}
static struct node *make_down(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    return op_resample(g, x, (double[]){1, 1}, 2, false);
}
static struct node *make_down_inside(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    return op_resample_inside(g, x, (double[]){1, 2, 4, 1}, 4);
}
/* two users of x, one of them the resampling */
static struct node *make_down_inside_add(struct graph *g, struct node *x, struct node *z)
{
    return op_add(g, op_resample_inside(g, op_silu(g, op_add(g, x, z, 1)), (double[]){1, 1}, 2),
                  op_resample(g, op_add(g, x, z, 1), (double[]){1, 3, 3, 1}, 4, false), 1);
}
static struct node *make_up4(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    return op_resample(g, x, (double[]){1, 3, 3, 1}, 4, true);
}
static struct node *make_down4(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    return op_resample(g, x, (double[]){1, 3, 3, 1}, 4, false);
}
static struct node *make_up(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    return op_resample(g, x, (double[]){1, 1}, 2, true);
}
static struct node *make_attention(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    return op_attention(g, x, 1);
}
static struct node *make_attention2(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    return op_attention(g, x, 2);
}
/* sigma is z through a graph of its own: positive, and without a gradient */
static struct node *make_precond(struct graph *g, struct node *x, struct node *z)
{
    struct precond pc = op_precond_in(g, x, z, 0.5, 0);
    return op_precond_out(g, x, conv_of(g, pc.x_in, "f", node_channels(x), 3), pc);
}
/* several users of one value, some that add and one (conv) that cannot */
static struct node *make_shared(struct graph *g, struct node *x, struct node *z)
{
    struct node *a = op_silu(g, x);
    struct node *b = op_add(g, conv_of(g, a, "b", node_channels(x), 3), a, 0.5);
    return op_add(g, op_add(g, conv_of(g, a, "c", node_channels(x), 1), b, 1), z, 1);
}

static struct node *make_conv_1x7(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    struct node *w = weight(g, "w", 4, (int[]){5, node_channels(x), 1, 7});
    return op_conv_opts(g, x, w, NULL, (struct conv_opts){1, 0, 3});
}
static struct node *make_conv_stride(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    struct node *w = weight(g, "w", 4, (int[]){5, node_channels(x), 3, 3});
    return op_conv_opts(g, x, w, NULL, (struct conv_opts){2, 0, 1});
}
static struct node *make_relu(struct graph *g, struct node *x, struct node *z)
{
    return op_scale(g, op_relu(g, op_add(g, x, z, 1)), 1.5);
}
static struct node *make_max_pool(struct graph *g, struct node *x, struct node *z)
{
    return op_pool(g, op_add(g, x, z, 1), POOL_MAX, 2, 2, 0);
}
static struct node *make_mean_pool(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    return op_pool(g, x, POOL_MEAN, 3, 2, 1);
}
static struct node *make_mean_pool_inside(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    return op_pool(g, x, POOL_MEAN_INSIDE, 3, 1, 1);
}
static struct node *make_resize(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    return op_resize(g, x, 7, 11, false);
}
static struct node *make_resize_twice(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    return op_add(g, op_resize(g, x, 3, 2, false), op_resize(g, op_silu(g, x), 3, 2, true), 1);
}
static struct node *make_layer_norm(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    int c = node_channels(x);
    return op_layer_norm(g, x, weight(g, "gamma", 1, &c), weight(g, "beta", 1, &c), 1e-6);
}
static struct node *make_table(struct graph *g, struct node *x, struct node *z)
{
    (void)z; /* after something of its own, so that the gradient can be passed on as it is */
    int per = 4 * 2 * node_channels(x);
    return op_add_table(g, op_silu(g, x), weight(g, "t", 1, &per));
}

/* Magnitude-preserving layers. The weight with a gain, used twice: its gradient is a sum. */
static struct node *mp_weight(struct graph *g, const char *name, int ndim, const int *dims, bool gain)
{
    char at[32];
    snprintf(at, sizeof at, "%s.gain", name);
    struct init init = {.kind = INIT_ONE, .scale = 0.7};
    return op_mp_weight(g, weight(g, name, ndim, dims), gain ? graph_param(g, at, 0, NULL, init) : NULL);
}
static struct node *make_mp_conv(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    return op_conv(g, x, mp_weight(g, "w", 4, (int[]){5, node_channels(x), 3, 3}, false), NULL);
}
static struct node *make_mp_linear(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    return op_linear(g, x, mp_weight(g, "w", 2, (int[]){7, node_channels(x)}, true), NULL);
}
static struct node *make_mp_twice(struct graph *g, struct node *x, struct node *z)
{
    int c = node_channels(x);
    struct node *w = mp_weight(g, "w", 4, (int[]){c, c, 3, 3}, true);
    struct node *v = mp_weight(g, "v", 4, (int[]){c, c, 1, 1}, false);
    struct node *a = op_conv(g, op_add(g, x, z, 1), w, weight(g, "b", 1, &c));
    return op_add(g, op_conv(g, op_conv(g, a, v, NULL), w, NULL), a, 1);
}
static struct node *make_mp_silu(struct graph *g, struct node *x, struct node *z)
{
    return op_add(g, op_mp_silu(g, op_add(g, x, z, 1)), x, 1);
}
static struct node *make_mp_add(struct graph *g, struct node *x, struct node *z)
{
    return op_mp_add(g, op_mp_add(g, x, z, 0.3), x, 0.8);
}
static struct node *make_mp_concat(struct graph *g, struct node *x, struct node *z)
{
    return op_mp_concat(g, op_mp_concat(g, x, z, 0.3), x, 0.6);
}
static struct node *make_pixel_norm(struct graph *g, struct node *x, struct node *z)
{
    return op_add(g, op_pixel_norm(g, op_add(g, x, z, 1)), x, 1);
}
static struct node *make_mp_attention(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    return op_mp_attention(g, x, 1);
}
static struct node *make_mp_attention2(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    return op_mp_attention(g, x, 2);
}
static struct node *make_gate(struct graph *g, struct node *x, struct node *z)
{
    return op_add(g, op_gate(g, op_gate(g, x, z), z), x, 1);
}
static struct node *make_append_one(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    return op_concat(g, conv_of(g, op_append_one(g, x), "c", 5, 3), x);
}
static struct node *make_dropout(struct graph *g, struct node *x, struct node *z)
{
    (void)z;
    return op_add(g, op_dropout(g, op_dropout(g, x)), x, 1);
}
static struct node *make_mp_fourier(struct graph *g, struct node *x, struct node *z)
{
    int c = node_channels(x);
    struct init draw = {.kind = INIT_NORMAL, .scale = 1};
    struct node *f = graph_buffer_drawn(g, "f", 1, &c, draw), *phase = graph_buffer_drawn(g, "p", 1, &c, draw);
    return op_gate(g, x, op_mp_fourier(g, z, f, phase));
}
/* differences must not cross the corner: what lies beyond is in the test of the kernel */
static struct node *make_clip(struct graph *g, struct node *x, struct node *z)
{
    return op_add(g, op_clip(g, op_add(g, x, z, 1), 100), op_clip(g, x, 50), 1);
}

struct size {
    int h, w, c;
};
static const struct row {
    const char *name;
    struct node *(*make)(struct graph *g, struct node *x, struct node *z);
    struct size x, z; /* z.c = 0: not used */
    bool sigma;       /* z is a noise level */
} rows[] = {{"conv3", make_conv3, {5, 3, 2}, {0}, false},
            {"conv3 wide", make_conv3, {4, 4, 17}, {0}, false},
            {"conv1", make_conv1, {3, 5, 9}, {0}, false},
            {"conv on one pixel", make_conv3, {1, 1, 4}, {0}, false},
            {"linear", make_linear, {1, 1, 13}, {0}, false},
            {"linear without bias", make_linear_plain, {1, 1, 1}, {0}, false},
            {"norm", make_norm, {3, 5, 6}, {0}, false},
            {"norm+silu", make_norm_silu, {5, 2, 7}, {0}, false},
            {"norm+silu+dropout", make_norm_dropout, {4, 4, 9}, {0}, false},
            {"adaptive norm", make_adaptive, {3, 5, 9}, {1, 1, 18}, false},
            {"adaptive norm+silu+dropout", make_adaptive_dropout, {2, 3, 5}, {1, 1, 10}, false},
            {"silu", make_silu, {3, 3, 5}, {0}, false},
            {"add", make_add, {3, 1, 7}, {3, 1, 7}, false},
            {"add to itself", make_add_self, {3, 2, 5}, {0}, false},
            {"scale", make_scale, {1, 7, 3}, {0}, false},
            {"add_channel", make_add_channel, {3, 5, 6}, {1, 1, 6}, false},
            {"concat", make_concat, {3, 2, 5}, {3, 2, 8}, false},
            {"down", make_down, {6, 4, 5}, {0}, false},
            {"up", make_up, {3, 5, 4}, {0}, false},
            {"down 1331", make_down4, {6, 4, 3}, {0}, false},
            {"up 1331", make_up4, {3, 2, 5}, {0}, false},
            {"down inside", make_down_inside, {8, 6, 3}, {0}, false},
            {"down inside, joined", make_down_inside_add, {4, 6, 3}, {4, 6, 3}, false},
            {"attention", make_attention, {3, 3, 15}, {0}, false},
            {"attention, two heads", make_attention2, {2, 4, 18}, {0}, false},
            {"mp conv", make_mp_conv, {4, 3, 5}, {0}, false},
            {"mp linear with gain", make_mp_linear, {1, 1, 13}, {0}, false},
            {"mp linear on pixels", make_mp_linear, {3, 2, 5}, {0}, false},
            {"mp weights with several users", make_mp_twice, {3, 4, 5}, {3, 4, 5}, false},
            {"mp_silu", make_mp_silu, {3, 4, 5}, {3, 4, 5}, false},
            {"mp_add", make_mp_add, {3, 1, 7}, {3, 1, 7}, false},
            {"mp_concat", make_mp_concat, {3, 2, 5}, {3, 2, 8}, false},
            {"pixel_norm", make_pixel_norm, {3, 4, 9}, {3, 4, 9}, false},
            {"mp attention", make_mp_attention, {3, 3, 15}, {0}, false},
            {"mp attention, two heads", make_mp_attention2, {2, 4, 18}, {0}, false},
            {"gate", make_gate, {3, 5, 6}, {1, 1, 6}, false},
            {"append_one", make_append_one, {3, 2, 4}, {0}, false},
            {"dropout", make_dropout, {3, 4, 5}, {0}, false},
            {"mp_fourier", make_mp_fourier, {3, 2, 9}, {1, 1, 1}, true},
            {"clip", make_clip, {3, 4, 5}, {3, 4, 5}, false},
            {"linear on pixels", make_linear, {3, 5, 13}, {0}, false},
            {"conv 1x7", make_conv_1x7, {3, 5, 4}, {0}, false},
            {"conv stride 2", make_conv_stride, {7, 4, 5}, {0}, false},
            {"relu", make_relu, {3, 4, 5}, {3, 4, 5}, false},
            {"max pool", make_max_pool, {5, 4, 7}, {5, 4, 7}, false},
            {"mean pool", make_mean_pool, {5, 4, 7}, {0}, false},
            {"mean pool inside", make_mean_pool_inside, {3, 4, 5}, {0}, false},
            {"resize", make_resize, {4, 5, 3}, {0}, false},
            {"resize down, two users", make_resize_twice, {5, 7, 3}, {0}, false},
            {"layer norm", make_layer_norm, {3, 4, 9}, {0}, false},
            {"table", make_table, {4, 2, 3}, {0}, false},
            {"precond", make_precond, {4, 3, 2}, {1, 1, 1}, true},
            {"several users", make_shared, {4, 3, 5}, {4, 3, 5}, false}};

/* ---- the check ----------------------------------------------------------------------------------------------------------- */

struct check {
    const struct kernels *k;
    struct kdev *dev;
    struct graph *g;
    struct params *w;
    struct program *p;
    struct run_ctx ctx;
    float *grad; /* host = device on the CPU */
    double *weight;
    size_t out;
};

static double loss(struct check *c)
{
    program_forward(c->p, c->w, &c->ctx);
    const float *y = program_output(c->p, "y");
    double sum = 0;
    for (size_t i = 0; i < c->out; i++) sum += c->weight[i] * y[i];
    return sum;
}

/* d loss / d (direction of `at`), two step sizes combined so that the third-order term cancels */
static double difference(struct check *c, float *at, const float *dir, size_t n)
{
    float *start = mem_array(n, sizeof *start);
    memcpy(start, at, n * sizeof *at);
    double d[2];
    for (int j = 0; j < 2; j++) {
        double h = j ? 0.04 : 0.02, side[2];
        for (int s = 0; s < 2; s++) {
            for (size_t i = 0; i < n; i++) at[i] = (float)(start[i] + (s ? h : -h) * dir[i]);
            params_changed(c->w);
            side[s] = loss(c);
        }
        d[j] = (side[1] - side[0]) / (2 * h);
    }
    memcpy(at, start, n * sizeof *at);
    params_changed(c->w);
    mem_free(start);
    return (4 * d[0] - d[1]) / 3;
}

static void check_tensor(struct check *c, const struct row *row, const char *what, float *at, const float *grad,
                         size_t n, uint32_t stream)
{
    float *dir = mem_array(n, sizeof *dir);
    for (int round = 0; round < ROUNDS; round++) {
        double got = 0, gg = 0, dd = 0;
        for (size_t i = 0; i < n; i++) dir[i] = (float)uniform(stream + 100 * (uint32_t)round, (uint32_t)i);
        for (size_t i = 0; i < n; i++) dd += (double)dir[i] * dir[i];
        for (size_t i = 0; i < n; i++) dir[i] = (float)(dir[i] * sqrt(3 / (dd + 1e-9))); /* one length at every size */
        for (size_t i = 0; i < n; i++) got += (double)grad[i] * dir[i], gg += (double)grad[i] * grad[i];
        double want = difference(c, at, dir, n), bound = 1e-3 * sqrt(gg) + 2e-4;
        if (!(fabs(got - want) <= bound))
            fail_msg("%s on %s: gradient of %s along a direction is %.7g, differences say %.7g (|g| = %.3g)", row->name,
                     c->k->name, what, got, want, sqrt(gg));
    }
    mem_free(dir);
}

/* Input gradients last until the next forward. */
static float *copy_of(const float *p, size_t n)
{
    if (!p) return NULL;
    float *copy = mem_array(n, sizeof *copy);
    memcpy(copy, p, n * sizeof *copy);
    return copy;
}

static void check_row(const struct kernels *k, struct kdev *dev, const struct row *row)
{
    struct check c = {.k = k, .dev = dev, .g = graph_new(), .ctx = {.dropout = 0.3f}};
    c.ctx.drop = (struct kstream){.seed = 5, .step = 3, .purpose = RNG_DROPOUT};
    struct node *x = graph_input(c.g, "x", row->x.h, row->x.w, row->x.c);
    struct node *z = row->z.c ? graph_input(c.g, "z", row->z.h, row->z.w, row->z.c) : NULL;
    graph_output(c.g, "y", row->make(c.g, x, z));
    assert_ok(params_new(&c.w, c.g, k, dev));
    params_init(c.w, 7);
    struct program_opts o = {.batch = BATCH, .grad = GRAD_ALL};
    assert_ok(program_new(&c.p, c.g, k, dev, &o));
    size_t nx = (size_t)BATCH * (size_t)(row->x.h * row->x.w * row->x.c);
    size_t nz = (size_t)BATCH * (size_t)(row->z.h * row->z.w * row->z.c);
    float *px = program_input(c.p, "x"), *pz = z ? program_input(c.p, "z") : NULL;
    for (size_t i = 0; i < nx; i++) px[i] = (float)(1.5 * uniform(1, (uint32_t)i));
    for (size_t i = 0; i < nz; i++) pz[i] = (float)(row->sigma ? 0.1 + 2.0 * (double)i : uniform(2, (uint32_t)i));

    float *dy = program_output_grad(c.p, "y");
    assert_non_null(dy);
    c.out = (size_t)BATCH * graph_node_floats(c.g, "y");
    c.weight = mem_array(c.out, sizeof *c.weight);
    for (size_t i = 0; i < c.out; i++) dy[i] = (float)(c.weight[i] = (float)uniform(3, (uint32_t)i));

    size_t floats = graph_arena_floats(c.g);
    c.grad = mem_array(floats + 1, sizeof *c.grad);
    for (size_t i = 0; i < floats; i++) c.grad[i] = 10; /* gradients are added to what is there */
    loss(&c);
    program_backward(c.p, c.w, &c.ctx, c.grad);
    for (size_t i = 0; i < floats; i++) c.grad[i] -= 10;
    float *gx = copy_of(program_input_grad(c.p, "x"), nx), *gz = copy_of(program_input_grad(c.p, "z"), nz);
    check_tensor(&c, row, "x", px, gx, nx, 10);
    if (z && !row->sigma) check_tensor(&c, row, "z", pz, gz, nz, 20);
    if (row->sigma) assert_null(program_input_grad(c.p, "z"));
    for (int i = 0; i < graph_nparams(c.g); i++) {
        const struct param_info *info = graph_param_info(c.g, i);
        if (info->buffer) continue;
        check_tensor(&c, row, info->name, params_arena(c.w) + info->offset, c.grad + info->offset, info->count,
                     30 + (uint32_t)i);
    }
    mem_free(gx);
    mem_free(gz);
    mem_free(c.weight);
    mem_free(c.grad);
    program_free(c.p);
    params_free(c.w);
    graph_free(c.g);
}

static void each_device(const char *spec)
{
    const struct kernels *k;
    struct kdev *dev;
    assert_ok(kernels_find(spec, &k));
    assert_ok(k->open(&dev, spec, 2));
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) check_row(k, dev, &rows[i]);
    k->close(dev);
}

static void gradients_portable(void **s)
{
    (void)s;
    each_device("cpu-portable");
}
static void gradients_cpu(void **s)
{
    (void)s;
    each_device("cpu");
}

/* ---- attention against its definition in double ------------------------------------------------------------------------- */

static void attention_values(void **s)
{
    (void)s;
    enum { HW = 6, HEADS = 2, CH = 3, C = HEADS * CH };
    const struct kernels *k;
    struct kdev *dev;
    struct params *w;
    struct program *p;
    assert_ok(kernels_find("cpu", &k));
    assert_ok(k->open(&dev, "cpu", 2));
    struct graph *g = graph_new();
    graph_output(g, "y", op_attention(g, graph_input(g, "x", 2, 3, 3 * C), HEADS));
    assert_ok(params_new(&w, g, k, dev));
    assert_ok(program_new(&p, g, k, dev, &(struct program_opts){.batch = BATCH}));
    float *x = program_input(p, "x");
    for (uint32_t i = 0; i < BATCH * HW * 3 * C; i++) x[i] = (float)(2 * uniform(4, i));
    program_forward(p, w, &(struct run_ctx){0});
    const float *y = program_output(p, "y");
#define QKV(n, pixel, head, c, which) x[((n)*HW + (pixel)) * 3 * C + (head)*3 * CH + (c)*3 + (which)]
    for (int n = 0; n < BATCH; n++)
        for (int head = 0; head < HEADS; head++)
            for (int i = 0; i < HW; i++) {
                double e[HW], total = 0;
                for (int j = 0; j < HW; j++) {
                    double dot = 0;
                    for (int c = 0; c < CH; c++) dot += (double)QKV(n, i, head, c, 0) * QKV(n, j, head, c, 1);
                    total += e[j] = exp(dot / sqrt(CH));
                }
                for (int c = 0; c < CH; c++) {
                    double want = 0;
                    for (int j = 0; j < HW; j++) want += e[j] / total * QKV(n, j, head, c, 2);
                    assert_near(y[(n * HW + i) * C + head * CH + c], want, 2e-6);
                }
            }
    program_free(p);
    params_free(w);
    graph_free(g);
    k->close(dev);
}

/* The magnitude-preserving layers against their definitions in double (Karras et al. 2024, eqs. 47, 56-59, 66, 88, 103). */
static double rms_of(const float *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)x[i] * x[i];
    return sqrt(sum / n);
}

static void magnitude_preserving_values(void **s)
{
    (void)s;
    enum { HW = 6, C = 5, D = 3, K = 4 };
    const struct kernels *k;
    struct kdev *dev;
    struct params *w;
    struct program *p;
    assert_ok(kernels_find("cpu", &k));
    assert_ok(k->open(&dev, "cpu", 1));
    struct graph *g = graph_new();
    struct node *x = graph_input(g, "x", 2, 3, C), *z = graph_input(g, "z", 2, 3, C), *u = graph_input(g, "u", 2, 3, D);
    struct node *gain = graph_param(g, "gain", 0, NULL, (struct init){.kind = INIT_ONE, .scale = 0.7});
    struct node *weights = weight(g, "w", 2, (int[]){K, C});
    graph_output(g, "silu", op_mp_silu(g, x));
    graph_output(g, "add", op_mp_add(g, x, z, 0.3));
    graph_output(g, "cat", op_mp_concat(g, x, u, 0.3));
    graph_output(g, "norm", op_pixel_norm(g, x));
    graph_output(g, "one", op_append_one(g, x));
    graph_output(g, "clip", op_clip(g, x, 0.5));
    graph_output(g, "linear", op_linear(g, x, op_mp_weight(g, weights, gain), NULL));
    assert_ok(params_new(&w, g, k, dev));
    params_init(w, 3);
    assert_ok(program_new(&p, g, k, dev, &(struct program_opts){.batch = BATCH}));
    float *px = program_input(p, "x"), *pz = program_input(p, "z"), *pu = program_input(p, "u"), stored[K * C];
    for (uint32_t i = 0; i < BATCH * HW * C; i++) px[i] = (float)uniform(1, i), pz[i] = (float)uniform(2, i);
    for (uint32_t i = 0; i < BATCH * HW * D; i++) pu[i] = (float)uniform(3, i);
    params_get(w, 1, stored);
    program_forward(p, w, &(struct run_ctx){0});
#define OUT(name, n, i) ((double)program_output(p, name)[(row) * (n) + (i)])
    for (int row = 0; row < BATCH * HW; row++) {
        const float *a = px + row * C, *b = pz + row * C, *c = pu + row * D;
        double both = sqrt(0.7 * 0.7 + 0.3 * 0.3), unit = sqrt(C + D) / both;
        for (int i = 0; i < C; i++) {
            assert_near(OUT("silu", C, i), a[i] / (1 + exp(-(double)a[i])) / 0.596, 1e-6);
            assert_near(OUT("add", C, i), (0.7 * a[i] + 0.3 * b[i]) / both, 1e-6);
            assert_near(OUT("cat", C + D, i), a[i] * unit * 0.7 / sqrt(C), 2e-6);
            assert_near(OUT("norm", C, i), a[i] / (1e-4 + rms_of(a, C)), 2e-6);
            assert_near(OUT("one", C + 1, i), a[i], 0);
            assert_near(OUT("clip", C, i), fmax(-0.5, fmin(0.5, a[i])), 0);
        }
        for (int i = 0; i < D; i++) assert_near(OUT("cat", C + D, C + i), c[i] * unit * 0.3 / sqrt(D), 2e-6);
        assert_near(OUT("one", C + 1, C), 1, 0);
        for (int j = 0; j < K; j++) {
            double sum = 0;
            for (int i = 0; i < C; i++) sum += 0.7 * a[i] * stored[j * C + i] / (1e-4 + rms_of(stored + j * C, C));
            assert_near(OUT("linear", K, j), sum / sqrt(C), 2e-6);
        }
    }
#undef OUT
    program_free(p);
    params_free(w);
    graph_free(g);
    k->close(dev);
}

/* Two dropout ops of one network drop different elements; without dropout they agree. */
static void masks_differ_by_layer(void **s)
{
    (void)s;
    const struct kernels *k;
    struct kdev *dev;
    struct params *w;
    struct program *p;
    int c = 8;
    assert_ok(kernels_find("cpu", &k));
    assert_ok(k->open(&dev, "cpu", 1));
    struct graph *g = graph_new();
    struct node *x = graph_input(g, "x", 4, 4, c), *gamma = weight(g, "gamma", 1, &c), *beta = weight(g, "beta", 1, &c);
    struct norm_opts o = {.groups = 2, .eps = 1e-6, .dropout = true};
    graph_output(g, "a", op_group_norm(g, x, gamma, beta, o));
    graph_output(g, "b", op_group_norm(g, x, gamma, beta, o));
    assert_ok(params_new(&w, g, k, dev));
    params_init(w, 1);
    assert_ok(program_new(&p, g, k, dev, &(struct program_opts){.batch = BATCH}));
    size_t n = BATCH * graph_node_floats(g, "a");
    for (size_t i = 0; i < n; i++) program_input(p, "x")[i] = (float)uniform(1, (uint32_t)i);
    program_forward(p, w, &(struct run_ctx){.dropout = 0.5f, .drop = {.purpose = RNG_DROPOUT}});
    size_t only_one = 0;
    for (size_t i = 0; i < n; i++) only_one += (program_output(p, "a")[i] == 0) != (program_output(p, "b")[i] == 0);
    assert_in_range(only_one, n / 3, n * 2 / 3);
    program_forward(p, w, &(struct run_ctx){0});
    assert_memory_equal(program_output(p, "a"), program_output(p, "b"), n * sizeof(float));
    program_free(p);
    params_free(w);
    graph_free(g);
    k->close(dev);
}

/* Operators without a backward refuse to be compiled with one, rather than leave out a gradient. */
static void no_backward(void **s)
{
    (void)s;
    const struct kernels *k;
    struct kdev *dev;
    struct program *p = NULL;
    assert_ok(kernels_find("cpu", &k));
    assert_ok(k->open(&dev, "cpu", 1));
    struct graph *g = graph_new();
    struct node *x = graph_input(g, "x", 3, 3, 2);
    graph_output(g, "y", op_mean_pool(g, op_gelu(g, conv_of(g, x, "c", 4, 3))));
    assert_err(ERR_USAGE, program_new(&p, g, k, dev, &(struct program_opts){.batch = 2, .grad = GRAD_PARAMS}));
    assert_has(err_text(), "gelu");
    assert_ok(program_new(&p, g, k, dev, &(struct program_opts){.batch = 2}));
    program_free(p);
    graph_free(g);
    k->close(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(gradients_portable),
                                       cmocka_unit_test(gradients_cpu),
                                       cmocka_unit_test(attention_values),
                                       cmocka_unit_test(no_backward),
                                       cmocka_unit_test(magnitude_preserving_values),
                                       cmocka_unit_test(masks_differ_by_layer)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
