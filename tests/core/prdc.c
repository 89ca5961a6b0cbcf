/* Kernel distance and precision, recall, density, coverage on sets small enough to work out by hand, and by plain loops on random ones with
 * more rows than a block. */
#include "core/metrics/prdc.h"
#include "core/metrics/kernel.h"
#include "core/metrics/metric.h"
#include "core/rng.h"
#include "tests/test.h"

static float normal(uint16_t layer, int i, int k)
{
    struct rng r = {.seed = 31, .purpose = RNG_TEST, .layer = layer};
    return rng_normal(&r, (uint32_t)i, (uint32_t)k);
}

static void mmd_by_hand(void **s)
{
    (void)s;
    /* d = 1, k(x, y) = (x y + 1)^3: x = {0, 1}, y = {1, 2}: within x 1, within y 27, across 1 + 1 + 8 + 27 over 4 */
    float x[] = {0, 1}, y[] = {1, 2}, z[] = {9, 2, 9, 1};
    assert_near(mmd2_polynomial(x, NULL, y, NULL, 2, 1), 1 + 27 - 2 * 37.0 / 4, 1e-12);
    assert_near(mmd2_polynomial(x, NULL, z, (int32_t[]){3, 1}, 2, 1), 1 + 27 - 2 * 37.0 / 4, 1e-12);
    /* d = 2: the product is divided by 2 */
    float a[] = {1, 1, 0, 2}, b[] = {2, 0, 1, 3};
    double across = (8 + 27 + 1 + 64) / 4.0; /* x.y / 2 + 1: 2, 3, 1, 4 */
    assert_near(mmd2_polynomial(a, NULL, b, NULL, 2, 2), 8 + 8 - 2 * across, 1e-12);
}

/* Equal distributions: the estimate is unbiased, so its mean over draws is 0 within its error; a shift is seen. */
static void kernel_distances(void **s)
{
    (void)s;
    enum { N = 400, M = 300, D = 6 };
    static float x[N * D], y[M * D], far[M * D], bad[N * D];
    double same, std, other, again;
    for (int i = 0; i < N * D; i++) x[i] = normal(0, i / D, i % D);
    for (int i = 0; i < M * D; i++) y[i] = normal(1, i / D, i % D), far[i] = y[i] + 0.5f;
    assert_ok(kernel_distance(x, N, y, M, D, 50, 100, 7, &same, &std));
    assert_ok(kernel_distance(x, N, far, M, D, 50, 100, 7, &other, NULL));
    assert_true(std > 0 && fabs(same) < 2 * std && other > 3 * std);
    assert_ok(kernel_distance(x, N, y, M, D, 50, 100, 7, &again, NULL));
    assert_true(again == same);
    assert_ok(kernel_distance(x, N, y, M, D, 50, 100, 8, &again, NULL));
    assert_true(again != same);
    assert_ok(kernel_distance(x, N, y, M, D, 1, 5000, 1, &again, &std)); /* all of the smaller one */
    assert_true(std == 0);
    assert_ok(kernel_distance(x, N, x, N, D, 20, 100, 3, &same, NULL)); /* unlike draws, so not the same rows */
    assert_true(same != 0 && fabs(same) < 0.5);
    for (int i = 0; i < N * D; i++) bad[i] = i == 77 ? NAN : 1;
    assert_err(ERR_FAILED, kernel_distance(bad, N, y, M, D, 50, 100, 7, &other, NULL));
    assert_err(ERR_USAGE, kernel_distance(x, 1, y, M, D, 50, 100, 7, &other, NULL));
}

/* On a line. Real: 0, 1, 3, 7: radii (k = 1) 1, 1, 2, 4. Fake: 0.5, 2, 20: radii 1.5, 1.5, 18. */
static void balls_by_hand(void **s)
{
    (void)s;
    float real[] = {0, 1, 3, 7}, fake[] = {0.5f, 2, 20};
    double realism[3], radii[4];
    struct prdc v;
    assert_ok(prdc_of(real, 4, fake, 3, 1, 1, &v, realism, radii));
    for (int i = 0; i < 4; i++) assert_near(radii[i], ((double[]){1, 1, 2, 4})[i], 1e-12);
    assert_near(v.precision, 2.0 / 3, 1e-12); /* 0.5 and 2; 2 only in the ball of 3: that of 1 is open */
    assert_near(v.density, 3.0 / 3, 1e-12);   /* 0.5: balls of 0, 1; 2: of 3 */
    assert_near(v.recall, 4.0 / 4, 1e-12);    /* 7 lies in the ball of 20 */
    assert_near(v.coverage, 3.0 / 4, 1e-12);  /* not the ball of 7: 4 wide, fakes 5 and 13 away */
    /* the median radius is 1.5: balls of 0 and 1 count */
    assert_near(realism[0], 2, 1e-12);
    assert_near(realism[1], 1, 1e-12);
    assert_near(realism[2], 1.0 / 19, 1e-12);
    assert_err(ERR_USAGE, prdc_of(real, 4, fake, 3, 1, 3, &v, NULL, NULL));
    real[2] = INFINITY;
    assert_err(ERR_FAILED, prdc_of(real, 4, fake, 3, 1, 1, &v, NULL, NULL));
}

static double distance(const float *a, const float *b, int d)
{
    double sum = 0;
    for (int k = 0; k < d; k++) sum += ((double)a[k] - b[k]) * ((double)a[k] - b[k]);
    return sqrt(sum);
}

static double radius(const float *x, int n, int d, int i, int k)
{
    double least[8];
    int have = 0;
    for (int j = 0; j < n; j++) {
        if (j == i) continue;
        double v = distance(x + (ptrdiff_t)i * d, x + (ptrdiff_t)j * d, d);
        if (have < k) least[have++] = v;
        else if (v < least[k - 1]) least[k - 1] = v;
        for (int q = have - 1; q > 0 && least[q] < least[q - 1]; q--) {
            double t = least[q];
            least[q] = least[q - 1], least[q - 1] = t;
        }
    }
    return least[k - 1];
}

/* More rows than a block, and a large common offset that the products must not lose digits to. */
static void balls_of_many(void **s)
{
    (void)s;
    enum { N = 530, M = 300, D = 3, K = 3 };
    static float real[N * D], fake[M * D];
    static double radii[N], fake_radii[M];
    struct prdc v;
    for (int i = 0; i < N * D; i++) real[i] = 1000 + normal(2, i / D, i % D);
    for (int i = 0; i < M * D; i++) fake[i] = 1000.3f + 0.8f * normal(3, i / D, i % D);
    assert_ok(prdc_of(real, N, fake, M, D, K, &v, NULL, radii));
    int precise = 0, recalled = 0, balls = 0, covered = 0;
    for (int i = 0; i < N; i++) assert_near(radii[i], radius(real, N, D, i, K), 1e-9);
    for (int i = 0; i < M; i++) fake_radii[i] = radius(fake, M, D, i, K);
    for (int j = 0; j < M; j++) {
        bool in = false;
        for (int i = 0; i < N; i++) in |= distance(real + (ptrdiff_t)i * D, fake + (ptrdiff_t)j * D, D) < radii[i];
        precise += in;
    }
    for (int i = 0; i < N; i++) {
        bool hit = false, in = false;
        for (int j = 0; j < M; j++) {
            double v2 = distance(real + (ptrdiff_t)i * D, fake + (ptrdiff_t)j * D, D);
            balls += v2 < radii[i], hit |= v2 < radii[i], in |= v2 < fake_radii[j];
        }
        covered += hit, recalled += in;
    }
    assert_near(v.precision, precise / (double)M, 1e-12);
    assert_near(v.recall, recalled / (double)N, 1e-12);
    assert_near(v.density, balls / (double)(K * M), 1e-12);
    assert_near(v.coverage, covered / (double)N, 1e-12);
}

/* ---- names ----------------------------------------------------------------------------------------------------------------- */

static void names(void **s)
{
    (void)s;
    static const struct {
        const char *name, *canonical, *space;
        enum measure measure;
        bool biased;
        int k;
    } ok[] = {{"fd_pixel", "fd_pixel", "pixel", MEASURE_FRECHET, false, 5},
              {"fd_random", "fd_random", "random", MEASURE_FRECHET, false, 5},
              {"fd_dinov2", "fd_dinov2", "dinov2-vitl14", MEASURE_FRECHET, false, 5},
              {"fd_dinov2-vits14", "fd_dinov2-vits14", "dinov2-vits14", MEASURE_FRECHET, false, 5},
              {"fid", "fid:pytorch", "inception", MEASURE_FRECHET, false, 5},
              {"fid:pytorch", "fid:pytorch", "inception", MEASURE_FRECHET, false, 5},
              {"fid:pytorch:n", "fid:pytorch:n", "inception", MEASURE_FRECHET, true, 5},
              {"fid:n", "fid:pytorch:n", "inception", MEASURE_FRECHET, true, 5},
              {"fid:nvidia", "fid:nvidia", "inception-tf", MEASURE_FRECHET, true, 5},
              {"kid", "kid:pytorch", "inception", MEASURE_KERNEL, false, 5},
              {"kd_dinov2", "kd_dinov2", "dinov2-vitl14", MEASURE_KERNEL, false, 5},
              {"precision_random", "precision_random", "random", MEASURE_PRECISION, false, 5},
              {"recall_pixel:k3", "recall_pixel:k3", "pixel", MEASURE_RECALL, false, 3},
              {"density_random", "density_random", "random", MEASURE_DENSITY, false, 5},
              {"coverage_inception", "coverage_inception", "inception", MEASURE_COVERAGE, false, 5}};
    static const char *const bad[] = {"",
                                      "fd_",
                                      "fd",
                                      "pixel",
                                      "fd_pixl",
                                      "fid:jax",
                                      "precision",
                                      "fid:k3",
                                      "recall_pixel:n",
                                      "recall_pixel:k0",
                                      ":n",
                                      "fd_a_name_of_more_than_thirty_one_letters"};
    struct metric m;
    for (size_t i = 0; i < ARRAY_LEN(ok); i++) {
        assert_ok(metric_parse(ok[i].name, &m));
        assert_string_equal(m.name, ok[i].canonical);
        assert_string_equal(m.space, ok[i].space);
        assert_int_equal(m.measure, ok[i].measure);
        assert_int_equal(m.biased, ok[i].biased);
        assert_int_equal(m.neighbours, ok[i].k);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) assert_err(ERR_USAGE, metric_parse(bad[i], &m));
    assert_err(ERR_USAGE, metric_parse("precision", &m));
    assert_has(err_text(), "precision_random");
    assert_err(ERR_USAGE, metric_parse("fd_randm", &m));
    assert_has(err_text(), "did you mean fd_random");
}

/* Every rule that can change a number is in the text; what was recorded before stays as it was. */
static void identities(void **s)
{
    (void)s;
    struct metric m;
    struct text t = {0};
    assert_ok(metric_parse("fd_random", &m));
    metric_identity(&m, "abc", &t);
    assert_string_equal(text_str(&t),
                        "metric=fd_random\nextractor.sha=abc\nresize=none\ncovariance=n-1\nuint8=trunc(x*127.5+128)\n");
    t.len = 0;
    assert_ok(metric_parse("fid:nvidia", &m));
    metric_identity(&m, "abc", &t);
    assert_has(text_str(&t), "covariance=n\n");
    assert_has(text_str(&t), "resize=TensorFlow 1 bilinear 299, by corners\n");
    t.len = 0;
    assert_ok(metric_parse("kd_dinov2", &m));
    metric_identity(&m, "abc", &t);
    assert_has(text_str(&t), "subsets=100 of 1000");
    t.len = 0;
    assert_ok(metric_parse("recall_dinov2:k3", &m));
    metric_identity(&m, "abc", &t);
    assert_has(text_str(&t), "neighbours=3\n");
    text_done(&t);
}

/* Added in chunks, a set holds what it would hold at once; each measure gets its own number, reference first. */
static void sets(void **s)
{
    (void)s;
    enum { N = 60, D = 4 };
    float x[N * D], y[N * D];
    struct feature_set a, b, c;
    struct metric m;
    struct prdc v;
    double got, want;
    for (int i = 0; i < N * D; i++) x[i] = normal(5, i / D, i % D), y[i] = 0.5f * normal(6, i / D, i % D) + 1;
    assert_ok(feature_set_init(&a, D, true));
    assert_ok(feature_set_init(&b, D, true));
    assert_ok(feature_set_init(&c, D, false));
    for (int i = 0; i < N; i += 7) feature_set_add(&a, x + (ptrdiff_t)i * D, N - i < 7 ? N - i : 7);
    feature_set_add(&b, y, N);
    feature_set_add(&c, x, N);
    assert_int_equal(a.n, N);
    assert_memory_equal(a.rows, x, sizeof x);
    assert_null(c.rows);
    assert_ok(prdc_of(x, N, y, N, D, 5, &v, NULL, NULL));
    static const char *const name[] = {"precision_pixel", "recall_pixel", "density_pixel", "coverage_pixel"};
    double each[] = {v.precision, v.recall, v.density, v.coverage};
    for (int i = 0; i < 4; i++) {
        assert_ok(metric_parse(name[i], &m));
        assert_ok(metric_of(&m, &a, &b, &got));
        assert_near(got, each[i], 0);
    }
    assert_ok(metric_parse("fd_pixel", &m));
    assert_ok(metric_of(&m, &c, &b, &got));
    assert_ok(frechet_of(&b.m, &c.m, false, &want));
    assert_near(got, want, 0);
    assert_ok(metric_parse("fd_pixel:n", &m));
    assert_ok(metric_of(&m, &c, &b, &got));
    assert_ok(frechet_of(&b.m, &c.m, true, &want));
    assert_near(got, want, 0);
    assert_ok(metric_parse("kd_pixel", &m));
    assert_ok(metric_of(&m, &a, &b, &got));
    assert_ok(kernel_distance(x, N, y, N, D, 100, 1000, 0, &want, NULL));
    assert_near(got, want, 0);
    feature_set_done(&a);
    feature_set_done(&b);
    feature_set_done(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(mmd_by_hand),   cmocka_unit_test(kernel_distances),
                                       cmocka_unit_test(balls_by_hand), cmocka_unit_test(balls_of_many),
                                       cmocka_unit_test(names),         cmocka_unit_test(identities),
                                       cmocka_unit_test(sets)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
