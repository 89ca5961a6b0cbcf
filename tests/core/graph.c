/* Graphs and programs: random graphs on the planned arena give the bytes they give when no two tensors share memory; gradients, packing,
 * parameter sets and layouts keep their contracts. */
#include "core/graph.h"
#include "core/ops.h"
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

struct dice { /* a counter stream read in order */
    struct rng r;
    uint32_t at;
};
static int roll(struct dice *d, int n)
{
    return (int)(rng_uniform(&d->r, 0, d->at++) * n);
}
static double uniform(uint32_t stream, uint32_t e)
{
    return 2 * rng_uniform(&(struct rng){.seed = 4, .purpose = RNG_TEST}, stream, e) - 1;
}

/* ---- random graphs ------------------------------------------------------------------------------------------------------ */

enum { POOL = 64, OPS = 24, BATCH = 2 };
struct pool {
    struct graph *g;
    struct dice *d;
    struct node *n[POOL]; /* images of 4x4 or 8x8 with 4, 8 or 12 channels */
    int size[POOL], count, params;
    struct node *emb;
};

static struct node *weight(struct pool *p, int ndim, const int *dims)
{
    char name[32];
    snprintf(name, sizeof name, "w%d", p->params++);
    return graph_param(p->g, name, ndim, dims, (struct init){.kind = INIT_NORMAL, .scale = 0.3});
}
static struct node *conv(struct pool *p, struct node *x, int out, int r)
{
    struct node *w = weight(p, 4, (int[]){out, node_channels(x), r, r});
    if (roll(p->d, 3) == 0) w = op_mp_weight(p->g, w, roll(p->d, 2) ? weight(p, 0, NULL) : NULL);
    return op_conv(p->g, x, w, roll(p->d, 2) ? weight(p, 1, &out) : NULL);
}
static void put(struct pool *p, struct node *n, int size)
{
    p->n[p->count] = n;
    p->size[p->count++] = size;
}

static struct node *norm(struct pool *p, struct node *x)
{
    int c = node_channels(x);
    struct norm_opts o = {.groups = c / 4, .eps = 1e-5, .silu = roll(p->d, 2), .dropout = roll(p->d, 2)};
    return op_group_norm(p->g, x, weight(p, 1, &c), weight(p, 1, &c), o);
}

/* One more op on nodes picked at random, old ones too, so that some values live long and have several users. */
static void grow(struct pool *p)
{
    int i = roll(p->d, 3) ? p->count - 1 : roll(p->d, p->count), j = roll(p->d, p->count), size = p->size[i];
    struct node *x = p->n[i], *z = p->n[j];
    int c = node_channels(x);
    bool fits = p->size[j] == size;
    switch (roll(p->d, 14)) {
    case 0: put(p, conv(p, x, 4 + 4 * roll(p->d, 3), 3), size); break;
    case 1: put(p, conv(p, x, 4 + 4 * roll(p->d, 3), 1), size); break;
    case 2: put(p, norm(p, x), size); break;
    case 3: put(p, op_silu(p->g, x), size); break;
    case 4: put(p, fits && node_channels(z) == c ? op_add(p->g, x, z, 0.7) : op_scale(p->g, x, 1.1), size); break;
    case 5: put(p, op_add_channel(p->g, x, op_linear(p->g, p->emb, weight(p, 2, (int[]){c, 6}), NULL)), size); break;
    case 6:
        if (fits && c + node_channels(z) <= 16) put(p, op_concat(p->g, x, z), size);
        else put(p, op_silu(p->g, x), size);
        break;
    case 7: put(p, op_resample(p->g, x, (double[]){1, 1}, 2, size == 4), size == 4 ? 8 : 4); break;
    case 8: put(p, op_mp_silu(p->g, x), size); break;
    case 9: put(p, op_dropout(p->g, x), size); break;
    case 10: put(p, op_clip(p->g, op_pixel_norm(p->g, x), 1), size); break;
    case 11: put(p, op_gate(p->g, x, op_linear(p->g, p->emb, weight(p, 2, (int[]){c, 6}), NULL)), size); break;
    case 12:
        if (fits && node_channels(z) == c) put(p, op_mp_add(p->g, x, z, 0.3), size);
        else put(p, op_mp_attention(p->g, conv(p, x, 3 * c, 1), 1), size);
        break;
    default: put(p, op_attention(p->g, conv(p, x, 3 * c, 1), 1), size); break;
    }
}

static struct graph *random_graph(uint64_t seed)
{
    struct dice d = {.r = {.seed = seed, .purpose = RNG_TEST}};
    struct pool p = {.g = graph_new(), .d = &d};
    put(&p, graph_input(p.g, "x", 8, 8, 4), 8);
    put(&p, graph_input(p.g, "z", 4, 4, 8), 4);
    p.emb = op_silu(p.g, graph_input(p.g, "e", 1, 1, 6));
    for (int i = 0; i < OPS; i++) grow(&p);
    graph_output(p.g, "last", p.n[p.count - 1]);
    graph_output(p.g, "middle", p.n[2 + roll(&d, p.count - 2)]);
    return p.g;
}

static const char *const inputs[] = {"x", "z", "e"}, *const outputs[] = {"last", "middle"};
static const struct run_ctx ctx = {.dropout = 0.25f, .drop = {.seed = 3, .step = 1, .purpose = RNG_DROPOUT}};

static void fill(float *p, size_t n, uint32_t stream)
{
    for (size_t i = 0; p && i < n; i++) p[i] = (float)uniform(stream, (uint32_t)i);
}

static size_t append(float *to, size_t at, const float *from, size_t n)
{
    if (from && n) memcpy(to + at, from, n * sizeof *to);
    return at + (from ? n : 0);
}

enum { TRACE = 1 << 17 };
/* Outputs, input gradients and parameter gradients of one step. */
static size_t trace(const struct graph *g, struct program *p, struct params *w, uint32_t stream, bool backward,
                    float *out)
{
    size_t n = 0, floats = graph_arena_floats(g);
    for (size_t i = 0; i < ARRAY_LEN(inputs); i++)
        fill(program_input(p, inputs[i]), BATCH * graph_node_floats(g, inputs[i]), stream + (uint32_t)i);
    program_forward(p, w, &ctx);
    for (size_t i = 0; i < ARRAY_LEN(outputs); i++)
        n = append(out, n, program_output(p, outputs[i]), BATCH * graph_node_floats(g, outputs[i]));
    if (!backward) return n;
    for (size_t i = 0; i < ARRAY_LEN(outputs); i++)
        fill(program_output_grad(p, outputs[i]), BATCH * graph_node_floats(g, outputs[i]), stream + 10 + (uint32_t)i);
    float *grad = mem_array(floats + 1, sizeof *grad);
    program_backward(p, w, &ctx, grad);
    for (size_t i = 0; i < ARRAY_LEN(inputs); i++)
        n = append(out, n, program_input_grad(p, inputs[i]), BATCH * graph_node_floats(g, inputs[i]));
    n = append(out, n, grad, floats);
    mem_free(grad);
    for (size_t i = 0; i < ARRAY_LEN(outputs); i++) /* outputs are still there after backward */
        n = append(out, n, program_output(p, outputs[i]), BATCH * graph_node_floats(g, outputs[i]));
    assert_true(n <= TRACE);
    return n;
}

static void planned_like_unplanned(void **s)
{
    (void)s;
    float *want = mem_array(TRACE, sizeof *want), *got = mem_array(TRACE, sizeof *got);
    float *want2 = mem_array(TRACE, sizeof *want2);
    size_t planned_bytes = 0, unplanned_bytes = 0, sampling_bytes = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct graph *g = random_graph(seed);
        struct params *w;
        struct program *planned, *unplanned, *sampling;
        struct program_stats st;
        assert_ok(params_new(&w, g, k, dev));
        params_init(w, seed);
        assert_ok(program_new(&unplanned, g, k, dev,
                              &(struct program_opts){.batch = BATCH, .grad = GRAD_ALL, .unplanned = true}));
        assert_ok(program_new(&planned, g, k, dev, &(struct program_opts){.batch = BATCH, .grad = GRAD_ALL}));
        assert_ok(program_new(&sampling, g, k, dev, &(struct program_opts){.batch = BATCH}));
        size_t n = trace(g, unplanned, w, 100, true, want);
        assert_int_equal(trace(g, unplanned, w, 200, true, want2), n);
        /* again after a step on other values: what an earlier step left behind must not matter */
        for (int round = 0; round < 4; round++) {
            assert_int_equal(trace(g, planned, w, round % 2 ? 200 : 100, true, got), n);
            if (memcmp(round % 2 ? want2 : want, got, n * sizeof *got)) {
                size_t i = 0;
                while (!memcmp(&(round % 2 ? want2 : want)[i], &got[i], sizeof *got)) i++;
                fail_msg("graph %d, round %d: value %zu of %zu is %.9g, unplanned %.9g", (int)seed, round, i, n, got[i],
                         (round % 2 ? want2 : want)[i]);
            }
        }
        for (int round = 0; round < 2; round++) {
            n = trace(g, sampling, w, round ? 200 : 100, false, got);
            assert_memory_equal(round ? want2 : want, got, n * sizeof *got);
        }
        program_stats(planned, &st), planned_bytes += st.arena_bytes;
        program_stats(unplanned, &st), unplanned_bytes += st.arena_bytes;
        program_stats(sampling, &st), sampling_bytes += st.arena_bytes;
        program_free(planned);
        program_free(unplanned);
        program_free(sampling);
        params_free(w);
        graph_free(g);
    }
    assert_true(planned_bytes < unplanned_bytes * 3 / 4);
    assert_true(sampling_bytes < planned_bytes * 2 / 3);
    mem_free(want);
    mem_free(want2);
    mem_free(got);
}

/* ---- contracts ------------------------------------------------------------------------------------------------------------ */

static int packs[2];
static struct kernels counting;
static void count_pack(struct conv *c, const float *w, void *packed)
{
    packs[0]++;
    k->conv_pack(c, w, packed);
}
static void count_pack_bwd(struct conv *c, const float *w, void *packed)
{
    packs[1]++;
    k->conv_pack_bwd(c, w, packed);
}

static struct graph *two_convs(void)
{
    struct graph *g = graph_new();
    struct node *x = graph_input(g, "x", 8, 8, 8), *z = graph_input(g, "z", 8, 8, 8);
    struct init init = {.kind = INIT_XAVIER_UNIFORM, .scale = 1};
    struct node *a = graph_param(g, "a", 4, (int[]){8, 8, 3, 3}, init),
                *b = graph_param(g, "b", 4, (int[]){4, 8, 3, 3}, init);
    struct node *h = op_silu(g, op_add(g, op_conv(g, x, a, NULL), z, 1));
    graph_output(g, "middle", h);
    graph_output(g, "last", op_conv(g, h, b, NULL));
    return g;
}

/* A student and a teacher on one set, several passes a step: each weight is packed once per change and direction. */
static void packs_once(void **s)
{
    (void)s;
    struct graph *g = two_convs();
    struct params *w, *ema;
    struct program *student, *teacher;
    float *grad = mem_array(graph_arena_floats(g), sizeof *grad), *out = mem_array(TRACE, sizeof *out);
    float *out2 = mem_array(TRACE, sizeof *out2);
    counting = *k;
    counting.conv_pack = count_pack;
    counting.conv_pack_bwd = count_pack_bwd;
    assert_ok(params_new(&w, g, &counting, dev));
    assert_ok(params_new(&ema, g, &counting, dev));
    params_init(w, 1);
    params_copy(ema, w);
    assert_ok(program_new(&student, g, &counting, dev, &(struct program_opts){.batch = BATCH, .grad = GRAD_ALL}));
    assert_ok(program_new(&teacher, g, &counting, dev, &(struct program_opts){.batch = BATCH}));
    for (int step = 0; step < 3; step++) {
        packs[0] = packs[1] = 0;
        uint64_t before = mem_count();
        for (int micro = 0; micro < 3; micro++) {
            program_forward(student, w, &ctx);
            program_forward(teacher, w, &ctx);
            program_backward(student, w, &ctx, grad);
        }
        if (step) assert_int_equal(mem_count(), before); /* no allocation of ours after the first step */
        assert_in_range(packs[0], 0, 2);
        assert_in_range(packs[1], 0, 2);
        params_changed(w);
    }
    /* another set in between does not make the first stale, and both give the same bytes from the same values */
    packs[0] = packs[1] = 0;
    size_t n = trace(g, teacher, w, 1, false, out);
    trace(g, teacher, ema, 1, false, out2);
    trace(g, teacher, w, 1, false, out);
    trace(g, teacher, ema, 1, false, out2);
    assert_in_range(packs[0], 0, 4);
    assert_memory_equal(out, out2, n * sizeof *out);
    /* values written through the arena are seen once params_changed is called */
    k->fill(dev, params_arena(ema), 0, graph_arena_floats(g));
    params_changed(ema);
    trace(g, teacher, ema, 1, false, out2);
    size_t last = BATCH * graph_node_floats(g, "last");
    for (size_t i = 0; i < last; i++) assert_true(out2[i] == 0);
    trace(g, teacher, w, 1, false, out2);
    assert_memory_equal(out, out2, n * sizeof *out);
    program_free(student);
    program_free(teacher);
    params_free(w);
    params_free(ema);
    mem_free(grad);
    mem_free(out);
    mem_free(out2);
    graph_free(g);
}

/* ---- weight programs -------------------------------------------------------------------------------------------------------- */

static int norms;
static void count_norm(struct kdev *d, const float *x, const float *gain, float scale, float *y, size_t rows, int c)
{
    norms++;
    k->rms_norm_fwd(d, x, gain, scale, y, rows, c);
}

/* A convolution and a linear layer with normalised weights; the second has a gain. */
static struct graph *two_weights(void)
{
    struct graph *g = graph_new();
    struct init init = {.kind = INIT_NORMAL, .scale = 2};
    struct node *a = graph_param(g, "a", 4, (int[]){8, 8, 3, 3}, init),
                *b = graph_param(g, "b", 2, (int[]){4, 8}, init);
    struct node *gain = graph_param(g, "gain", 0, NULL, (struct init){.kind = INIT_ONE, .scale = 0.7});
    struct node *h = op_conv(g, graph_input(g, "x", 8, 8, 8), op_mp_weight(g, a, NULL), NULL);
    graph_output(g, "last", op_linear(g, op_mp_silu(g, h), op_mp_weight(g, b, gain), NULL));
    graph_output_aside(g, "aside", op_linear(g, h, graph_param(g, "c", 2, (int[]){5, 8}, init), NULL));
    return g;
}

/* Weights are computed once per change of a set's values, whatever runs on it, and each set has its own. */
static void weights_once(void **s)
{
    (void)s;
    struct graph *g = two_weights();
    struct params *w, *ema;
    struct program *student, *teacher;
    float *grad = mem_array(graph_arena_floats(g), sizeof *grad), gain = 1.4f, out[3];
    counting = *k;
    counting.rms_norm_fwd = count_norm;
    assert_true(graph_has_forced_norm(g));
    assert_ok(params_new(&w, g, &counting, dev));
    assert_ok(params_new(&ema, g, &counting, dev));
    params_init(w, 1);
    params_copy(ema, w);
    struct program_opts o = {.batch = BATCH, .grad = GRAD_ALL, .only = "last"};
    assert_ok(program_new(&student, g, &counting, dev, &o));
    assert_ok(program_new(&teacher, g, &counting, dev, &(struct program_opts){.batch = 1}));
    fill(program_input(student, "x"), BATCH * graph_node_floats(g, "x"), 1);
    fill(program_input(teacher, "x"), graph_node_floats(g, "x"), 1);
    norms = 0;
    for (int micro = 0; micro < 3; micro++) {
        program_forward(student, w, &ctx);
        program_forward(teacher, w, &ctx);
        program_backward(student, w, &ctx, grad);
    }
    assert_int_equal(norms, 2);
    out[0] = program_output(teacher, "last")[7];
    program_forward(teacher, ema, &ctx);
    assert_int_equal(norms, 4);
    assert_true(program_output(teacher, "last")[7] == out[0]);
    const struct param_info *info = graph_param_named(g, "gain");
    k->upload(dev, params_arena(ema) + info->offset, &gain, sizeof gain); /* twice what it was */
    params_changed(ema);
    program_forward(teacher, ema, &ctx);
    assert_near(program_output(teacher, "last")[7], 2 * (double)out[0], 1e-6 * fabs(out[0]));
    program_forward(teacher, w, &ctx);
    assert_true(program_output(teacher, "last")[7] == out[0]);
    assert_int_equal(norms, 6);
    program_free(student);
    program_free(teacher);
    params_free(w);
    params_free(ema);
    mem_free(grad);
    graph_free(g);
}

/* Forced normalisation: rows of RMS m / (m + 1e-4); other parameters, and other sets, stay; what a network computes hardly changes. */
static void forced_norm(void **s)
{
    (void)s;
    struct graph *g = two_weights();
    struct params *w, *raw;
    struct program *p;
    enum { A = 8 * 72, B = 4 * 8 };
    float a[A], after[A], again[A], gain, c[40], c_after[40], y[BATCH * 64 * 4];
    assert_ok(params_new(&w, g, k, dev));
    assert_ok(params_new(&raw, g, k, dev));
    params_init(w, 1);
    params_copy(raw, w);
    assert_ok(program_new(&p, g, k, dev, &(struct program_opts){.batch = BATCH}));
    fill(program_input(p, "x"), BATCH * graph_node_floats(g, "x"), 1);
    program_forward(p, w, &ctx);
    memcpy(y, program_output(p, "last"), sizeof y);
    params_get(w, 0, a), params_get(w, 3, c);
    params_force_norm(w);
    params_get(w, 0, after), params_get(w, 2, &gain), params_get(w, 3, c_after);
    for (int row = 0; row < 8; row++) {
        double m = 0;
        for (int i = 0; i < 72; i++) m += (double)a[row * 72 + i] * a[row * 72 + i] / 72;
        for (int i = 0; i < 72; i++) assert_near(after[row * 72 + i], a[row * 72 + i] / (sqrt(m) + 1e-4), 1e-6);
    }
    assert_true(gain == 0.7f);
    assert_memory_equal(c, c_after, sizeof c);
    program_forward(p, w, &ctx);
    for (size_t i = 0; i < ARRAY_LEN(y); i++) assert_near(program_output(p, "last")[i], y[i], 1e-3);
    params_get(raw, 0, again);
    assert_memory_equal(a, again, sizeof a);
    program_free(p);
    params_free(w);
    params_free(raw);
    graph_free(g);
    g = two_convs();
    assert_false(graph_has_forced_norm(g));
    graph_free(g);
}

static int allocs_left;
static void *scarce(struct kdev *d, size_t bytes)
{
    return allocs_left-- > 0 ? k->alloc(d, bytes) : NULL;
}

/* Device memory that runs out at any allocation is an error, nothing else; a forward afterwards allocates nothing. */
static void runs_out_of_memory(void **s)
{
    (void)s;
    counting = *k;
    counting.alloc = scarce;
    int most = 0;
    for (bool enough = false; !enough; most++) {
        struct graph *g = two_weights();
        struct params *w = NULL;
        struct program *p = NULL;
        struct program_opts o = {.batch = BATCH, .grad = GRAD_ALL};
        float *grad = mem_array(graph_arena_floats(g), sizeof *grad);
        allocs_left = most;
        err_t err = params_new(&w, g, &counting, dev);
        if (!err) err = program_new(&p, g, &counting, dev, &o);
        if (!err) err = program_bind(p, w);
        enough = !err;
        if (err) assert_int_equal(err, ERR_DEVICE_MEM);
        allocs_left = 0;
        if (enough) {
            assert_ok(program_bind(p, w));
            program_forward(p, w, &ctx);
            program_backward(p, w, &ctx, grad);
        }
        mem_free(grad);
        program_free(p);
        if (w) params_free(w);
        graph_free(g);
    }
    assert_in_range(most, 6, 20);
}

/* Several outputs by name, each with its own gradient; work for one beside the result is not counted. */
static void outputs_by_name(void **s)
{
    (void)s;
    struct graph *g = two_weights();
    struct params *w;
    struct program *p;
    struct flops f;
    float *grad = mem_array(graph_arena_floats(g), sizeof *grad);
    graph_flops(g, &f);
    assert_true(f.linear == 2 * 64 * 4 * 8);
    assert_ok(params_new(&w, g, k, dev));
    params_init(w, 1);
    struct program_opts o = {.batch = BATCH, .grad = GRAD_PARAMS, .only = "last"};
    assert_ok(program_new(&p, g, k, dev, &o));
    assert_null(program_output(p, "aside"));
    assert_null(program_output_grad(p, "aside"));
    program_free(p);
    o.only = "last,asides";
    assert_ok(program_new(&p, g, k, dev, &o));
    assert_null(program_output(p, "aside"));
    program_free(p);
    o.only = "aside,last";
    assert_ok(program_new(&p, g, k, dev, &o));
    fill(program_input(p, "x"), BATCH * graph_node_floats(g, "x"), 1);
    const struct param_info *b = graph_param_named(g, "b"), *c = graph_param_named(g, "c");
    for (int which = 0; which < 2; which++) {
        k->fill(dev, grad, 0, graph_arena_floats(g));
        k->fill(dev, program_output_grad(p, "last"), which ? 0 : 1, BATCH * graph_node_floats(g, "last"));
        k->fill(dev, program_output_grad(p, "aside"), which ? 1 : 0, BATCH * graph_node_floats(g, "aside"));
        program_forward(p, w, &ctx);
        program_backward(p, w, &ctx, grad);
        assert_true((grad[b->offset] != 0) == !which);
        assert_true((grad[c->offset] != 0) == which);
    }
    mem_free(grad);
    program_free(p);
    params_free(w);
    graph_free(g);
}

/* An output that is used again: its own gradient and what comes back join, neither is lost, the caller's stays as written. */
static void output_gradients_join(void **s)
{
    (void)s;
    struct graph *g = two_convs();
    struct params *w;
    struct program *p;
    size_t floats = graph_arena_floats(g), nx = BATCH * graph_node_floats(g, "x");
    float *sum = mem_array(nx, sizeof *sum), *grad = mem_array(floats, sizeof *grad);
    assert_ok(params_new(&w, g, k, dev));
    params_init(w, 2);
    assert_ok(program_new(&p, g, k, dev, &(struct program_opts){.batch = BATCH, .grad = GRAD_ALL}));
    fill(program_input(p, "x"), nx, 1);
    float *dy[2] = {program_output_grad(p, "last"), program_output_grad(p, "middle")};
    for (int part = 0; part < 4; part++) { /* last only, middle only, both, both again */
        for (int i = 0; i < 2; i++) {
            size_t n = BATCH * graph_node_floats(g, outputs[i]);
            if (part == 3) continue; /* still there */
            if (part == 2 || part == i) fill(dy[i], n, 5 + (uint32_t)i);
            else memset(dy[i], 0, n * sizeof(float));
        }
        program_forward(p, w, &ctx);
        program_backward(p, w, &ctx, grad);
        const float *dx = program_input_grad(p, "x");
        double size = 0;
        for (size_t i = 0; i < nx; i++) size += (double)dx[i] * dx[i];
        assert_true(size > 0.1 * (double)nx * 0.1); /* each part matters */
        for (size_t i = 0; i < nx; i++) {
            if (part < 2) sum[i] += dx[i];
            else assert_near(dx[i], sum[i], 1e-5);
        }
    }
    program_free(p);
    params_free(w);
    mem_free(sum);
    mem_free(grad);
    graph_free(g);
}

/* only: what other outputs alone need is left out; modes: which gradients there are. */
static void what_is_compiled(void **s)
{
    (void)s;
    struct graph *g = two_convs();
    struct program *p;
    struct program_stats all, some;
    assert_ok(program_new(&p, g, k, dev, &(struct program_opts){.batch = BATCH, .grad = GRAD_PARAMS}));
    program_stats(p, &all);
    assert_null(program_input_grad(p, "x"));
    assert_non_null(program_output_grad(p, "last"));
    assert_null(program_output(p, "nothing"));
    assert_null(program_input(p, "nothing"));
    program_free(p);
    assert_ok(
        program_new(&p, g, k, dev, &(struct program_opts){.batch = BATCH, .only = "middle", .grad = GRAD_INPUTS}));
    program_stats(p, &some);
    assert_true(some.ops < all.ops);
    assert_null(program_output(p, "last"));
    assert_null(program_output_grad(p, "last"));
    assert_non_null(program_input_grad(p, "x"));
    program_free(p);
    assert_ok(program_new(&p, g, k, dev, &(struct program_opts){.batch = BATCH}));
    program_stats(p, &some);
    assert_int_equal(some.backward_ops, 0);
    assert_null(program_output_grad(p, "last"));
    program_free(p);
    graph_free(g);
}

/* Files are KCRS: a convolution by a weight set that way is PyTorch's. */
static void layout_of_files(void **s)
{
    (void)s;
    enum { H = 4, W = 3, C = 2, K = 5 };
    struct graph *g = graph_new();
    struct node *x = graph_input(g, "x", H, W, C);
    struct node *wn = graph_param(g, "w", 4, (int[]){K, C, 3, 3}, (struct init){0});
    static const float box[4] = {1, 2, 3, 4};
    graph_buffer(g, "f", 4, (int[]){1, 1, 2, 2}, box);
    graph_output(g, "y", op_conv(g, x, wn, NULL));
    struct params *w;
    struct program *p;
    float weight_kcrs[K * C * 9], back[K * C * 9], buffer[4];
    assert_ok(params_new(&w, g, k, dev));
    assert_ok(program_new(&p, g, k, dev, &(struct program_opts){.batch = 1}));
    fill(weight_kcrs, ARRAY_LEN(weight_kcrs), 1);
    params_set(w, 0, weight_kcrs);
    params_get(w, 0, back);
    assert_memory_equal(weight_kcrs, back, sizeof back);
    arena_get(g, k, dev, params_arena(w), 0, back);
    assert_memory_equal(weight_kcrs, back, sizeof back);
    params_get(w, 1, buffer);
    assert_memory_equal(buffer, box, sizeof box);
    float *px = program_input(p, "x");
    fill(px, H * W * C, 2);
    program_forward(p, w, &ctx);
    const float *y = program_output(p, "y");
    for (int n = 0; n < K; n++)
        for (int i = 0; i < H; i++)
            for (int j = 0; j < W; j++) {
                double want = 0;
                for (int c = 0; c < C; c++)
                    for (int r = 0; r < 3; r++)
                        for (int q = 0; q < 3; q++) {
                            int a = i + r - 1, b = j + q - 1;
                            if (a < 0 || b < 0 || a >= H || b >= W) continue;
                            want += (double)weight_kcrs[((n * C + c) * 3 + r) * 3 + q] * px[(a * W + b) * C + c];
                        }
                assert_near(y[(i * W + j) * K + n], want, 1e-5);
            }
    program_free(p);
    params_free(w);
    graph_free(g);
}

/* Initial values: bounds, spread and independence of parameters; a function of the seed only. */
static void initial_values(void **s)
{
    (void)s;
    struct graph *g = graph_new();
    struct init xavier = {.kind = INIT_XAVIER_UNIFORM, .scale = 0.5};
    graph_param(g, "a", 4, (int[]){16, 12, 3, 3}, xavier);
    graph_param(g, "b", 4, (int[]){16, 12, 3, 3}, xavier);
    graph_param(g, "one", 1, (int[]){7}, (struct init){.kind = INIT_ONE, .scale = 1});
    graph_param(g, "zero", 1, (int[]){7}, (struct init){0});
    graph_param(g, "n", 2, (int[]){50, 40}, (struct init){.kind = INIT_KAIMING_NORMAL, .scale = 1});
    struct params *w;
    enum { N = 16 * 12 * 9 };
    float a[N], b[N], again[N], normal[2000], v[7];
    assert_ok(params_new(&w, g, k, dev));
    params_init(w, 11);
    params_get(w, 0, a), params_get(w, 1, b), params_get(w, 4, normal);
    double bound = 0.5 * sqrt(6.0 / (12 * 9 + 16 * 9)), most = 0, square = 0, cross = 0, normals = 0;
    for (int i = 0; i < N; i++) {
        most = fmax(most, fabs(a[i]));
        square += (double)a[i] * a[i];
        cross += (double)a[i] * b[i];
    }
    for (int i = 0; i < 2000; i++) normals += (double)normal[i] * normal[i];
    assert_true(most <= bound && most > 0.99 * bound);
    assert_near(square / N, bound * bound / 3, 0.1 * bound * bound / 3);
    assert_near(cross / N, 0, 0.1 * bound * bound / 3);
    assert_near(normals / 2000, 1.0 / 40, 0.1 / 40);
    params_get(w, 2, v);
    for (int i = 0; i < 7; i++) assert_true(v[i] == 1);
    params_get(w, 3, v);
    for (int i = 0; i < 7; i++) assert_true(v[i] == 0);
    params_init(w, 12);
    params_get(w, 0, again);
    assert_memory_not_equal(a, again, sizeof a);
    params_init(w, 11);
    params_get(w, 0, again);
    assert_memory_equal(a, again, sizeof a);
    params_free(w);
    graph_free(g);
}

/* Places in the arena: aligned, disjoint, the last layer first; buffers are elsewhere. */
static void arena_layout(void **s)
{
    (void)s;
    struct graph *g = random_graph(5);
    size_t end = 0, floats = graph_arena_floats(g);
    for (int i = graph_nparams(g) - 1; i >= 0; i--) {
        const struct param_info *p = graph_param_info(g, i);
        assert_true(p->offset % 16 == 0 && p->offset >= end);
        end = p->offset + p->count;
        assert_ptr_equal(graph_param_named(g, p->name), p);
    }
    assert_true(end <= floats);
    assert_null(graph_param_named(g, "none"));
    graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(planned_like_unplanned),
                                       cmocka_unit_test(packs_once),
                                       cmocka_unit_test(weights_once),
                                       cmocka_unit_test(forced_norm),
                                       cmocka_unit_test(runs_out_of_memory),
                                       cmocka_unit_test(outputs_by_name),
                                       cmocka_unit_test(output_gradients_join),
                                       cmocka_unit_test(what_is_compiled),
                                       cmocka_unit_test(layout_of_files),
                                       cmocka_unit_test(initial_values),
                                       cmocka_unit_test(arena_layout)};
    return cmocka_run_group_tests(tests, open_device, close_device);
}
