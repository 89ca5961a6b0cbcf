/* Energy distance and sliced W2: values worked out by hand, known laws (shift, scale, rotation), and both sample sizes in play. */
#include "core/metrics/energy.h"
#include "core/rng.h"
#include "tests/test.h"

static void normals(double *x, int n, int d, uint16_t layer, double shift, double scale)
{
    struct rng r = {.seed = 11, .purpose = RNG_TEST, .layer = layer};
    for (int i = 0; i < n; i++)
        for (int k = 0; k < d; k++)
            x[i * d + k] = (k == 0 ? shift : 0) + scale * (double)rng_normal(&r, (uint32_t)i, (uint32_t)k);
}

static void energy_by_hand(void **s)
{
    (void)s;
    /* {0, 3} and {1}: E|X-Y| = 3/2, E|X-X'| = 6/4 */
    assert_near(energy_distance((double[]){0, 3}, 2, (double[]){1}, 1, 1), 3 - 1.5, 1e-15);
    /* two points a distance 5 apart */
    assert_near(energy_distance((double[]){0, 0}, 1, (double[]){3, 4}, 1, 2), 10, 1e-15);
    /* three against two in the plane */
    double x[] = {0, 0, 1, 0, 0, 2}, y[] = {1, 1, 2, 0};
    double xy = (sqrt(2) + 2 + 1 + 1 + sqrt(2) + sqrt(8)) / 6, xx = 2 * (1 + 2 + sqrt(5)) / 9, yy = 2 * sqrt(2) / 4;
    assert_near(energy_distance(x, 3, y, 2, 2), 2 * xy - xx - yy, 1e-14);
    assert_near(energy_distance(y, 2, x, 3, 2), 2 * xy - xx - yy, 1e-14);
    assert_near(energy_distance(x, 3, x, 3, 2), 0, 1e-15);
    assert_true(isnan(energy_distance((double[]){NAN}, 1, (double[]){1}, 1, 1)));
}

static void w2_by_hand(void **s)
{
    (void)s;
    double a[] = {5, 0, 1}, b[] = {2, 3, 7}; /* sorted pairs: (0,2) (1,3) (5,7) */
    assert_near(sliced_w2(a, 3, b, 3, 1, 4, 1), 2, 1e-12);
    /* {0, 6} against {0, 3, 6}: quantiles differ on [1/3, 1/2] by 3, on [1/2, 2/3] by 3 */
    assert_near(sliced_w2((double[]){6, 0}, 2, (double[]){3, 6, 0}, 3, 1, 3, 9), sqrt(9.0 / 3), 1e-12);
    assert_near(sliced_w2((double[]){3, 6, 0}, 3, (double[]){6, 0}, 2, 1, 3, 9), sqrt(9.0 / 3), 1e-12);
    assert_true(isnan(sliced_w2((double[]){NAN, 0}, 2, (double[]){1, 2}, 2, 1, 3, 9)));
}

/* A shift by v moves every projection by u.v, and the mean over directions of (u.v)^2 is |v|^2 / d. */
static void w2_of_shift(void **s)
{
    (void)s;
    enum { N = 200, D = 3, P = 4000 };
    double x[N * D], y[N * D];
    normals(x, N, D, 0, 0, 1);
    for (int i = 0; i < N * D; i++) y[i] = x[i] + (i % D == 1 ? 2 : 0);
    assert_near(sliced_w2(x, N, y, N, D, P, 5), 2 / sqrt(D), 0.03);
    assert_near(sliced_w2(x, N, x, N, D, 10, 5), 0, 1e-14);
    for (int i = 0; i < N * D; i++) y[i] = 3 * x[i]; /* x -> 3 x: 2 E[(u.x)^2]^1/2 */
    double second = 0;
    for (int i = 0; i < N * D; i++) second += x[i] * x[i] / N;
    assert_near(sliced_w2(x, N, y, N, D, P, 5), 2 * sqrt(second / D), 0.03);
    assert_true(sliced_w2(x, N, y, N, D, 3, 5) != sliced_w2(x, N, y, N, D, 3, 6));
    assert_true(sliced_w2(x, N, y, N, D, 3, 5) == sliced_w2(x, N, y, N, D, 3, 5));
}

static void order(void **s)
{
    (void)s;
    enum { N = 400, M = 300, D = 2 };
    static double x[N * D], same[M * D], near[M * D], far[M * D], wide[M * D];
    normals(x, N, D, 0, 0, 1);
    normals(same, M, D, 1, 0, 1);
    normals(near, M, D, 1, 0.5, 1);
    normals(far, M, D, 1, 2, 1);
    normals(wide, M, D, 1, 0, 2);
    double e[] = {energy_distance(x, N, same, M, D), energy_distance(x, N, near, M, D),
                  energy_distance(x, N, far, M, D), energy_distance(x, N, wide, M, D)};
    assert_true(e[0] >= 0 && e[0] < 0.02 && e[0] < e[1] && e[1] < e[2] && e[0] < e[3]);
    double w[] = {sliced_w2(x, N, same, M, D, 100, 1), sliced_w2(x, N, near, M, D, 100, 1),
                  sliced_w2(x, N, far, M, D, 100, 1), sliced_w2(x, N, wide, M, D, 100, 1)};
    assert_true(w[0] < w[1] && w[1] < w[2] && w[0] < w[3]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(energy_by_hand), cmocka_unit_test(w2_by_hand),
                                       cmocka_unit_test(w2_of_shift), cmocka_unit_test(order)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
