/* A micro-batch that is not full: what stands in its unused rows must not matter. */
#include "tests/test.h"

#include "core/train_pass.h"
#include "tests/core/trainer.h"

static const struct kernels *k;
static struct kdev *dev;

enum { PER = 64, USED = 2, ROWS = 5, LABELS = 3, AUGMENT = 9 };

struct setting {
    struct graph *graph;
    struct params *weights;
    size_t floats;
};

static struct setting setting_new(void)
{
    struct setting s;
    struct net_config net = {.family = "songunet",
                             .resolution = 8,
                             .in_channels = 1,
                             .label_dim = LABELS,
                             .augment_dim = AUGMENT,
                             .width = 8,
                             .nmult = 1,
                             .mult = {1},
                             .blocks = 1,
                             .emb_mult = 4,
                             .noise_mult = 1,
                             .sigma_data = 0.5};
    s.graph = graph_new();
    assert_ok(net_build(s.graph, &net));
    assert_ok(params_new(&s.weights, s.graph, k, dev));
    params_init(s.weights, 3);
    s.floats = graph_arena_floats(s.graph);
    return s;
}

static void put(float *dst, size_t n, double phase)
{
    float *x = mem_array(n, sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = (float)sin(phase + 0.7 * (double)i);
    k->upload(dev, dst, x, n * sizeof *x);
    mem_free(x);
}

/* Gradient of USED images in a pass of `rows`; `rest` stands in every input of the unused rows. */
static float *gradient(const struct setting *s, const char *target, int rows, float rest, double scale, const double *t,
                       double *loss)
{
    struct pass *p;
    struct pass_config c = {.graph = s->graph,
                            .kernels = k,
                            .dev = dev,
                            .rows = rows,
                            .per = PER,
                            .label_dim = LABELS,
                            .augment_dim = AUGMENT,
                            .teacher = target_find(target)->needs_r,
                            .share_dropout = true,
                            .sigma_data = 0.5,
                            .loss = {.metric = LOSS_HUBER, .c = 0.1}};
    assert_ok(pass_new(&p, &c));
    float *const in[] = {pass_y(p), pass_eps(p), pass_eps_r(p), pass_labels(p), pass_augment(p)};
    static const size_t width[] = {PER, PER, PER, LABELS, AUGMENT};
    for (int i = 0; i < 5; i++) {
        if (!in[i]) continue;
        put(in[i], USED * width[i], i);
        if (rows > USED) k->fill(dev, in[i] + USED * width[i], rest, ((size_t)rows - USED) * width[i]);
    }
    static const double r[USED] = {0.3, 0}, w[USED] = {1, 2}, ones[ROWS] = {1, 1, 1, 1, 1}, nought[ROWS] = {0};
    float *grad = k->alloc(dev, s->floats * sizeof *grad), *out = mem_array(s->floats, sizeof *out);
    struct pass_rows run = {
        .n = rows, .global_batch = 1, .t = ones, .r = nought, .w = ones, .weights = s->weights, .grad = grad};
    if (rows > USED && isfinite(rest)) assert_ok(pass_run(p, target_find(target), &run)); /* leaves what it computed */
    k->fill(dev, grad, 0, s->floats);
    run = (struct pass_rows){
        .n = USED, .global_batch = USED, .t = t, .r = r, .w = w, .weights = s->weights, .grad = grad, .scale = scale};
    assert_ok(pass_run(p, target_find(target), &run));
    for (int i = 0; i < USED; i++) loss[i] = pass_loss(p)[i];
    k->download(dev, out, grad, s->floats * sizeof *out);
    k->free(dev, grad);
    pass_free(p);
    return out;
}

static void unused_rows(void **state)
{
    (void)state;
    static const char *const names[] = {"edm", "ect"};
    static const float rests[] = {0, 1e30f, INFINITY, NAN};
    static const double t[USED] = {0.9, 0.4};
    struct setting s = setting_new();
    for (size_t kind = 0; kind < ARRAY_LEN(names); kind++) {
        double loss[USED], other[USED], size = 0;
        float *want = gradient(&s, names[kind], USED, 0, 0, t, loss);
        for (size_t i = 0; i < s.floats; i++) size = fmax(size, fabs(want[i]));
        assert_true(size > 0 && isfinite(size));
        for (size_t e = 0; e < ARRAY_LEN(rests); e++) {
            float *got = gradient(&s, names[kind], ROWS, rests[e], 0, t, other);
            for (size_t i = 0; i < s.floats; i++) assert_near(got[i], want[i], 1e-5 * size);
            for (int i = 0; i < USED; i++) assert_near(other[i], loss[i], 1e-5 * fabs(loss[i]));
            mem_free(got);
        }
        mem_free(want);
    }
    params_free(s.weights);
    graph_free(s.graph);
}

/* Loss scaling by a power of two multiplies every bit pattern's exponent and nothing else. */
static void scaled(void **state)
{
    (void)state;
    static const double t[USED] = {0.9, 0.4};
    struct setting s = setting_new();
    double loss[USED], other[USED];
    float *one = gradient(&s, "ect", USED, 0, 0, t, loss), *same = gradient(&s, "ect", USED, 0, 1, t, other);
    float *large = gradient(&s, "ect", USED, 0, 1024, t, other), *three = gradient(&s, "ect", USED, 0, 3, t, other);
    assert_memory_equal(one, same, s.floats * sizeof *one);
    for (int i = 0; i < USED; i++) assert_true(loss[i] == other[i]); /* the loss that is told is not scaled */
    for (size_t i = 0; i < s.floats; i++) {
        assert_true(large[i] == 1024 * one[i]);
        assert_near(three[i], 3 * one[i], 1e-4 * fabs(one[i]) + 1e-6);
    }
    float *const all[] = {one, same, large, three};
    for (int i = 0; i < 4; i++) mem_free(all[i]);
    params_free(s.weights);
    graph_free(s.graph);
}

static int open_all(void **state)
{
    (void)state;
    return kernels_find("cpu", &k) || k->open(&dev, "cpu", 2) ? -1 : 0;
}
static int close_all(void **state)
{
    (void)state;
    k->close(dev);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(unused_rows), cmocka_unit_test(scaled)};
    return cmocka_run_group_tests(tests, open_all, close_all);
}
