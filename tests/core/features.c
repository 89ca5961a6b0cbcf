/* Feature extractors: the weight formula's spot values, an independent double-precision network, and the order that
 * a measure of images must have: real < blurred < noisy ... < Gaussian. */
#include "tests/test.h"

#include "core/io/dataset.h"
#include "core/metrics/features.h"
#include "core/metrics/frechet.h"
#include "core/rng.h"

static const struct kernels *k;
static struct kdev *dev;
static struct dataset *digits;

static int setup(void **state)
{
    (void)state;
    setenv("ECT_WEIGHTS", "/nonexistent", 1);
    return kernels_find("cpu", &k) || k->open(&dev, "cpu", 2) || dataset_open(&digits, "digits");
}

static int teardown(void **state)
{
    (void)state;
    dataset_free(digits);
    k->close(dev);
    return 0;
}

/* One sample through the documented network, in double, from the text of its description. */
static int by_hand(const uint8_t *px, int h, int w, int c, double *out)
{
    static const int width[3] = {32, 64, 32};
    double *x = mem_array((size_t)(h * w * c), sizeof *x);
    for (int i = 0; i < h * w * c; i++) x[i] = px[i] / 127.5 - 1;
    for (int l = 0; l < 3; l++) {
        char wn[40], bn[40];
        snprintf(wn, sizeof wn, "random/conv%d.weight", l);
        snprintf(bn, sizeof bn, "random/conv%d.bias", l);
        double *y = mem_array((size_t)(h * w * width[l]), sizeof *y);
        float *weight = mem_array((size_t)(width[l] * c * 9), sizeof *weight);
        for (int i = 0; i < width[l] * c * 9; i++)
            weight[i] = portable_weight(wn, (uint32_t)i, 0, sqrt(24.0 / (9 * c)));
        for (int o = 0; o < width[l]; o++)
            for (int p = 0; p < h * w; p++) {
                double sum = portable_weight(bn, (uint32_t)o, 0, 1);
                for (int i = 0; i < c; i++)
                    for (int r = 0; r < 9; r++) {
                        int yy = p / w + r / 3 - 1, xx = p % w + r % 3 - 1;
                        if (yy < 0 || yy >= h || xx < 0 || xx >= w) continue;
                        sum += x[(yy * w + xx) * c + i] * weight[(o * c + i) * 9 + r];
                    }
                y[p * width[l] + o] = sum > 0 ? sum : 0;
            }
        mem_free(weight);
        mem_free(x);
        x = y;
        c = width[l];
        for (int n = 0; h % 2 == 0 && w % 2 == 0 && h > 2 && w > 2 && (l == 2 || (l == 1 && !n)); n++) {
            double *z = mem_array((size_t)(h / 2 * (w / 2) * c), sizeof *z);
            for (int q = 0; q < h / 2 * (w / 2) * c; q++) {
                int a = (q / c / (w / 2)) * 2, b = (q / c % (w / 2)) * 2, o = q % c;
                z[q] = (x[(a * w + b) * c + o] + x[(a * w + b + 1) * c + o] + x[((a + 1) * w + b) * c + o] +
                        x[((a + 1) * w + b + 1) * c + o]) /
                       4;
            }
            mem_free(x);
            x = z;
            h /= 2, w /= 2;
        }
    }
    memcpy(out, x, (size_t)(h * w * c) * sizeof *x);
    mem_free(x);
    return h * w * c;
}

static void random_network(void **state)
{
    (void)state;
    static const int shapes[][3] = {{8, 8, 1}, {6, 4, 3}, {16, 16, 1}};
    for (size_t q = 0; q < ARRAY_LEN(shapes); q++) {
        int h = shapes[q][0], w = shapes[q][1], c = shapes[q][2];
        struct extractor *x;
        assert_ok(extractor_new(&x, "random", h, w, c, 3, k, dev));
        int d = extractor_dim(x);
        uint8_t px[2 * 16 * 16 * 3];
        for (int i = 0; i < 2 * h * w * c; i++)
            px[i] = (uint8_t)rng_bits(&(struct rng){.purpose = RNG_TEST}, 0, (uint32_t)i);
        float *f = mem_array((size_t)(2 * d), sizeof *f);
        double *want = mem_array((size_t)d, sizeof *want);
        assert_ok(extractor_run(x, px, 2, f));
        for (int i = 0; i < 2; i++) {
            assert_int_equal(by_hand(px + (ptrdiff_t)i * h * w * c, h, w, c, want), d);
            for (int j = 0; j < d; j++) assert_near(f[i * d + j], want[j], 1e-5);
        }
        mem_free(f);
        mem_free(want);
        extractor_free(x);
    }
}

static void pixels(void **state)
{
    (void)state;
    struct extractor *x;
    assert_ok(extractor_new(&x, "pixel", 8, 8, 1, 4, k, dev));
    assert_int_equal(extractor_dim(x), 64);
    float f[4 * 64];
    assert_ok(extractor_run(x, digits->pixels, 4, f));
    for (int i = 0; i < 256; i++) assert_near(f[i], digits->pixels[i] / 127.5 - 1, 1e-7);
    extractor_free(x);
}

static void identity(void **state)
{
    (void)state;
    char a[SHA256_TEXT], b[SHA256_TEXT];
    struct extractor *x;
    assert_ok(extractor_identity("random", 8, 8, 1, a));
    assert_ok(extractor_new(&x, "random", 8, 8, 1, 2, k, dev));
    assert_string_equal(extractor_sha(x), a);
    assert_int_equal(extractor_dim(x), 128);
    extractor_free(x);
    /* numbers in ledgers carry this hash: a change of it is a new extractor and must be on purpose (random@2) */
    assert_string_equal(a, "044c7013790dd7db6a4c4109a1b0806ea8243f1f1fd8c9cbaa05487fbd0c1b4e");
    assert_ok(extractor_identity("pixel", 8, 8, 1, b));
    assert_string_not_equal(a, b);
    assert_ok(extractor_identity("random", 8, 8, 3, b));
    assert_string_not_equal(a, b);
    /* likewise: of the shipped weights */
    assert_ok(extractor_identity("digits", 8, 8, 1, a));
    assert_string_equal(a, "c69470a463a3025471a7681b040fc33aeeb593db02e428b19101e5f399ac1ef3");
    assert_ok(extractor_identity("digits-classes", 8, 8, 1, b));
    assert_string_not_equal(a, b);
    assert_err(ERR_USAGE, extractor_identity("digits", 32, 32, 3, b));
    assert_has(err_text(), "8x8x1");
    assert_err(ERR_USAGE, extractor_identity("inceptoin", 8, 8, 1, b));
    assert_err(ERR_NO_DATA, extractor_identity("inception", 8, 8, 1, b));
    assert_err(ERR_NO_DATA, extractor_new(&x, "inception", 8, 8, 1, 2, k, dev));
    assert_null(x);
    assert_err(ERR_USAGE, extractor_new(&x, "pixel", 64, 64, 3, 2, k, dev));
    assert_has(err_text(), "covariance");
}

enum { HALF = 600, BATCH = 100 };

static void measure(struct extractor *x, const uint8_t *px, struct moments *m)
{
    float *f = mem_array(BATCH * (size_t)extractor_dim(x), sizeof *f);
    assert_ok(moments_init(m, extractor_dim(x)));
    for (int i = 0; i < HALF; i += BATCH) {
        assert_ok(extractor_run(x, px + (ptrdiff_t)i * 64, BATCH, f));
        moments_add(m, f, BATCH);
    }
    mem_free(f);
}

static uint8_t clip(double v)
{
    return v <= 0 ? 0 : v >= 255 ? 255 : (uint8_t)v;
}

static void ranks(void **state)
{
    (void)state;
    enum { REAL, TEST, BLUR, NOISY, NOISIER, GAUSS, SETS };
    static uint8_t set[SETS][HALF * 64];
    struct rng r = {.seed = 3, .purpose = RNG_TEST};
    for (int i = 0; i < HALF; i++) {
        memcpy(set[REAL] + (ptrdiff_t)i * 64, digits->pixels + (ptrdiff_t)(2 * i) * 64, 64);
        memcpy(set[TEST] + (ptrdiff_t)i * 64, digits->pixels + (ptrdiff_t)(2 * i + 1) * 64, 64);
    }
    for (int i = 0; i < HALF * 64; i++) {
        const uint8_t *at = set[TEST] + i;
        double z = rng_normal(&r, (uint32_t)(i / 64), (uint32_t)(i % 64));
        set[BLUR][i] = clip((at[i % 8 ? -1 : 0] + 2 * at[0] + at[i % 8 < 7 ? 1 : 0]) / 4.0 + 0.5);
        set[NOISY][i] = clip(at[0] + 20 * z + 0.5);
        set[NOISIER][i] = clip(at[0] + 60 * z + 0.5);
        set[GAUSS][i] = clip(128 + 96 * z);
    }
    static const char *const names[] = {"random", "pixel", "digits"};
    for (size_t q = 0; q < ARRAY_LEN(names); q++) {
        const char *name = names[q];
        struct extractor *x;
        struct moments m[SETS];
        double d[SETS];
        assert_ok(extractor_new(&x, name, 8, 8, 1, BATCH, k, dev));
        for (int i = 0; i < SETS; i++) {
            measure(x, set[i], &m[i]);
            assert_ok(frechet_of(&m[0], &m[i], false, &d[i]));
        }
        print_message("# fd_%s: real %.3f blurred %.3f noise20 %.3f noise60 %.3f gaussian %.3f\n", name, d[TEST],
                      d[BLUR], d[NOISY], d[NOISIER], d[GAUSS]);
        assert_true(d[TEST] < d[BLUR] && d[BLUR] < d[GAUSS]);
        assert_true(d[TEST] < d[NOISIER] && d[NOISY] < d[NOISIER] && d[NOISIER] < d[GAUSS]);
        assert_true(q == 2 || d[TEST] < d[NOISY]); /* a digit with a little noise is the same digit */
        for (int i = 0; i < SETS; i++) moments_done(&m[i]);
        extractor_free(x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_network), cmocka_unit_test(pixels),
                                       cmocka_unit_test(identity), cmocka_unit_test(ranks)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
