/* Metrics of the loss: values against their definitions, gradients against differences of them. */
#include "tests/test.h"

#include <unistd.h>

#include "core/distance.h"
#include "core/io/safetensors.h"
#include "core/metrics/lpips.h"
#include "core/rng.h"

enum { N = 3, H = 7, W = 7, C = 2, PER = H * W * C };

static const struct kernels *k;
static struct kdev *dev;
static float *a, *b, *da, *g; /* device */
static float host_a[N * PER], host_b[N * PER];
static double squares[N];

static int setup(void **state)
{
    (void)state;
    struct rng r = {.seed = 4, .purpose = RNG_TEST};
    float ones[N];
    if (kernels_find("cpu", &k) || k->open(&dev, "cpu", 1)) return -1;
    a = k->alloc(dev, sizeof host_a);
    b = k->alloc(dev, sizeof host_a);
    da = k->alloc(dev, sizeof host_a);
    g = k->alloc(dev, sizeof ones);
    for (uint32_t i = 0; i < N * PER; i++) {
        host_a[i] = 0.5F * rng_normal(&r, 0, i);
        host_b[i] = 0.5F * rng_normal(&r, 1, i);
        squares[i / PER] += ((double)host_a[i] - host_b[i]) * ((double)host_a[i] - host_b[i]);
    }
    host_b[5] = host_a[5];
    squares[0] = 0;
    for (int i = 0; i < PER; i++) squares[0] += ((double)host_a[i] - host_b[i]) * ((double)host_a[i] - host_b[i]);
    for (int i = 0; i < N; i++) ones[i] = 1;
    k->upload(dev, a, host_a, sizeof host_a);
    k->upload(dev, b, host_b, sizeof host_b);
    k->upload(dev, g, ones, sizeof ones);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    k->free(dev, a);
    k->free(dev, b);
    k->free(dev, da);
    k->free(dev, g);
    k->close(dev);
    return 0;
}

static struct distance *open(enum loss_metric metric, double c, double p)
{
    struct distance *d;
    const struct distance_config config = {
        .loss = {metric, c, p}, .rows = N, .h = H, .w = W, .c = C, .kernels = k, .dev = dev};
    assert_ok(distance_new(&d, &config));
    return d;
}

/* Bilinear, half-pixel centres: pixel (y, x) of the 32x32 image, channel c. */
static double resized(const double *v, int y, int x, int c)
{
    double sy = fmax((y + 0.5) * H / 32 - 0.5, 0), sx = fmax((x + 0.5) * W / 32 - 0.5, 0), fy = sy - floor(sy),
           fx = sx - floor(sx);
    int y0 = (int)sy, x0 = (int)sx, y1 = y0 + 1 < H ? y0 + 1 : H - 1, x1 = x0 + 1 < W ? x0 + 1 : W - 1;
#define AT(yy, xx) v[((yy)*W + (xx)) * C + c]
    return (1 - fy) * ((1 - fx) * AT(y0, x0) + fx * AT(y0, x1)) + fy * ((1 - fx) * AT(y1, x0) + fx * AT(y1, x1));
}

/* The definitions. s: the metric's own detached denominator is taken at this distance. */
static double defined(enum loss_metric m, double c, double p, const double *delta, double at)
{
    double s = 0, sum = 0;
    for (int i = 0; i < PER; i++) {
        s += delta[i] * delta[i];
        sum += fabs(delta[i]);
    }
    switch (m) {
    case LOSS_L2: return s / pow(at + c * c, p);
    case LOSS_HUBER: return sqrt(s + c * c) - c;
    case LOSS_L1: return sum;
    case LOSS_L2_MEAN: return s / PER;
    case LOSS_L1_MEAN: return sum / PER;
    case LOSS_L2_32:
        s = 0;
        for (int i = 0; i < 32 * 32 * C; i++) s += pow(resized(delta, i / C / 32, i / C % 32, i % C), 2);
        return s / (32 * 32 * C);
    case LOSS_LPIPS: break;
    }
    return NAN;
}

static void metrics(void **state)
{
    (void)state;
    const struct loss_opts all[] = {{LOSS_L2, 0, 0},      {LOSS_L2, 0.3, 0.5},  {LOSS_L2, 0.1, 1},
                                    {LOSS_HUBER, 0, 0},   {LOSS_HUBER, 0.4, 0}, {LOSS_L1, 0, 0},
                                    {LOSS_L2_MEAN, 9, 9}, {LOSS_L1_MEAN, 0, 0}, {LOSS_L2_32, 0, 0}};
    for (size_t o = 0; o < ARRAY_LEN(all); o++) {
        struct distance *d = open(all[o].metric, all[o].c, all[o].p);
        double value[N], factor[N], delta[PER];
        float gradient[N * PER], factors[N];
        distance_run(d, a, b, N, squares, value, factor);
        for (int i = 0; i < N; i++) factors[i] = (float)(factor[i] * (i + 1)); /* a weight each */
        k->upload(dev, g, factors, sizeof factors);
        distance_gradient(d, a, b, N, g, da);
        k->download(dev, gradient, da, sizeof gradient);
        for (int i = 0; i < N; i++) {
            for (int e = 0; e < PER; e++) delta[e] = (double)host_a[i * PER + e] - host_b[i * PER + e];
            assert_near(value[i], defined(all[o].metric, all[o].c, all[o].p, delta, squares[i]), 2e-6 * value[i]);
            for (int e = 0; e < PER; e += 3) {
                double h = 1e-5, was = delta[e], side[2];
                if (fabs(was) < 2 * h) continue;
                for (int s = 0; s < 2; s++) {
                    delta[e] = was + (s ? h : -h);
                    side[s] = defined(all[o].metric, all[o].c, all[o].p, delta, squares[i]);
                }
                delta[e] = was;
                double want = (i + 1) * (side[1] - side[0]) / (2 * h);
                assert_near(gradient[i * PER + e], want, 1e-4 * fabs(want) + 1e-7);
            }
        }
        if (all[o].metric == LOSS_L1 || all[o].metric == LOSS_L1_MEAN) assert_true(gradient[5] == 0); /* equal there */
        assert_true(distance_flops(d) == 0 && !distance_sha(d));
        distance_free(d);
    }
}

/* The published networks' widths do not matter here: a VGG16 of two channels a stage. */
static void write_lpips(const char *path)
{
    static const int published[] = {0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28};
    struct st_writer *w = st_writer_new();
    struct rng r = {.seed = 8, .purpose = RNG_TEST};
    char name[64];
    float v[64];
    for (uint32_t i = 0; i < ARRAY_LEN(published); i++) {
        int in = i ? 2 : 3;
        for (uint32_t j = 0; j < (uint32_t)in * 18; j++) v[j] = 0.4F * rng_normal(&r, i, j);
        snprintf(name, sizeof name, "features.%d.weight", published[i]);
        st_writer_add(w, name, ST_F32, 4, (int64_t[]){2, in, 3, 3}, v);
        v[0] = v[1] = 0.3F;
        snprintf(name, sizeof name, "features.%d.bias", published[i]);
        st_writer_add(w, name, ST_F32, 1, (int64_t[]){2}, v);
    }
    for (int s = 0; s < 5; s++) {
        v[0] = 0.7F, v[1] = 1.2F;
        snprintf(name, sizeof name, "lin%d.weight", s);
        st_writer_add(w, name, ST_F32, 4, (int64_t[]){1, 2, 1, 1}, v);
    }
    assert_ok(st_writer_save(w, path));
    st_writer_free(w);
}

/* LPIPS by its own interface gives the same; without its weights it says what to do. */
static void lpips(void **state)
{
    (void)state;
    enum { GREY = 8 * 8 };
    char dir[256], path[320];
    struct distance *d;
    struct distance_config c = {
        .loss = {LOSS_LPIPS, 0, 0}, .rows = N, .h = 8, .w = 8, .c = 1, .kernels = k, .dev = dev};
    setenv("ECT_WEIGHTS", test_dir(dir, sizeof dir), 1);
    assert_err(ERR_NO_DATA, distance_new(&d, &c));
    assert_has(err_text(), "ect weights get");
    snprintf(path, sizeof path, "%s/lpips-vgg.safetensors", dir);
    write_lpips(path);
    assert_ok(distance_new(&d, &c));
    struct lpips *own;
    assert_ok(lpips_new(&own, 8, 8, 1, N, NULL, k, dev));
    double value[N], factor[N], want[N];
    float got[N * GREY], other[N * GREY], factors[N];
    float *gradient = k->alloc(dev, sizeof other);
    distance_run(d, a, b, N, squares, value, factor);
    lpips_run(own, a, b, N, want, gradient);
    for (int i = 0; i < N; i++) {
        assert_true(value[i] == want[i] && want[i] > 0 && factor[i] == 1);
        factors[i] = (float)(2 - i);
    }
    k->upload(dev, g, factors, sizeof factors);
    distance_gradient(d, a, b, N, g, da);
    k->download(dev, got, da, sizeof got);
    k->download(dev, other, gradient, sizeof other);
    for (int i = 0; i < N * GREY; i++) assert_true(got[i] == factors[i / GREY] * other[i]);
    assert_near(distance_flops(d), lpips_flops(own, true), 0);
    assert_string_equal(distance_sha(d), lpips_sha(own));
    k->free(dev, gradient);
    lpips_free(own);
    distance_free(d);
    unlink(path);
}

static void names(void **state)
{
    (void)state;
    enum loss_metric m;
    assert_true(loss_metric_find("pseudo-huber", &m) && m == LOSS_HUBER);
    assert_true(loss_metric_find("l2", &m) && m == LOSS_L2);
    assert_true(loss_metric_find("l2-mean", &m) && m == LOSS_L2_MEAN);
    assert_true(loss_metric_find("l2-32", &m) && m == LOSS_L2_32);
    assert_true(loss_metric_find("lpips", &m) && m == LOSS_LPIPS);
    assert_false(loss_metric_find("l3", &m));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(metrics), cmocka_unit_test(lpips), cmocka_unit_test(names)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
