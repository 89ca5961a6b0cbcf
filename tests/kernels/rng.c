/* Counters: published vectors, moments, exactness against a double Box-Muller, permutations. */
#include "core/rng.h"
#include "kernels/xd.h"
#include "tests/test.h"

static void philox_known(void **state)
{
    (void)state;
    /* Random123's kat_vectors, philox4x32 10 */
    static const uint32_t kat[3][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb, 0x5001e420,
         0x24126ea1},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t c[4];
        memcpy(c, kat[i], sizeof c);
        philox4x32(&c[0], &c[1], &c[2], &c[3], kat[i][4], kat[i][5]);
        assert_memory_equal(c, kat[i] + 6, sizeof c);
    }
}

static void words_of_a_counter(void **state)
{
    (void)state;
    struct rng r = {.seed = 0x123456789abcdef0u, .step = 77, .purpose = RNG_TEST, .layer = 5};
    for (uint32_t e = 0; e < 9; e++) {
        uint32_t c[4] = {e / 4, 42, 77, (uint32_t)RNG_TEST << 16 | 5};
        philox4x32(&c[0], &c[1], &c[2], &c[3], 0x9abcdef0u, 0x12345678u);
        assert_int_equal(rng_bits(&r, 42, e), c[e % 4]);
        assert_true(rng_uniform(&r, 42, e) == (c[e % 4] + 0.5) / 4294967296.0);
    }
    struct rng other = r;
    other.layer = 6;
    assert_int_not_equal(rng_bits(&r, 42, 0), rng_bits(&other, 42, 0));
}

static void normals(void **state)
{
    (void)state;
    struct rng r = {.seed = 7, .purpose = RNG_TEST};
    enum { N = 1 << 18 };
    double worst = 0, m1 = 0, m2 = 0, m3 = 0, m4 = 0, cross = 0, before = 0;
    for (uint32_t e = 0; e < N; e++) {
        double z = rng_normal(&r, 3, e);
        double u = ((rng_bits(&r, 3, e & ~1u) >> 8) + 1) / 16777216.0,
               v = ((rng_bits(&r, 3, e | 1) >> 8) + 1) / 16777216.0;
        double radius = sqrt(-2 * log(u)), want = radius * (e & 1 ? sin(2 * M_PI * v) : cos(2 * M_PI * v));
        double err = fabs(z - want);
        if (!(err <= worst)) worst = err;
        m1 += z, m2 += z * z, m3 += z * z * z, m4 += z * z * z * z, cross += z * before;
        before = z;
    }
    assert_near(worst, 0, 8e-7);
    assert_near(m1 / N, 0, 4.5 / sqrt(N));
    assert_near(m2 / N, 1, 4.5 * sqrt(2.0 / N));
    assert_near(m3 / N, 0, 4.5 * sqrt(15.0 / N));
    assert_near(m4 / N, 3, 4.5 * sqrt(96.0 / N));
    assert_near(cross / N, 0, 4.5 / sqrt(N));
    /* the ends of the interval are finite: the smallest and the largest word */
    float a, b;
    xd_normal2(0, ~0u, &a, &b);
    assert_near(a, sqrt(-2 * log(1 / 16777216.0)), 1e-6);
    xd_normal2(~0u, 0, &a, &b);
    assert_true(a == 0 && b == 0);
}

static void exponential(void **state)
{
    (void)state;
    double worst = 0;
    for (double x = -86.9; x < 86.9; x += 0.00717) {
        double err = fabs(xd_exp((float)x) / exp((float)x) - 1);
        if (!(err <= worst)) worst = err;
    }
    assert_near(worst, 0, 2e-7);
    assert_true(isnan(xd_exp(NAN)) && isnan(xd_silu(NAN)) && isnan(xd_silu_slope(NAN)));
    assert_true(xd_exp(-INFINITY) < 1e-37 && xd_exp(INFINITY) > 1e37);
    assert_true(xd_exp(0) == 1);
}

static void permutation(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {1, 2, 3, 4, 5, 7, 16, 17, 64, 65, 100, 257, 1797, 4097};
    uint8_t seen[4097];
    for (size_t s = 0; s < ARRAY_LEN(sizes); s++)
        for (uint32_t epoch = 0; epoch < 3; epoch++) {
            memset(seen, 0, sizeof seen);
            for (uint32_t i = 0; i < sizes[s]; i++) {
                uint32_t to = rng_permute(11, epoch, sizes[s], i);
                assert_true(to < sizes[s] && !seen[to]);
                seen[to] = 1;
            }
        }
    /* epochs and seeds differ, and an element is spread over places: mean position of element 0 over many epochs */
    int same = 0;
    double mean = 0;
    for (uint32_t i = 0; i < 1797; i++) same += rng_permute(11, 0, 1797, i) == rng_permute(11, 1, 1797, i);
    assert_true(same < 10);
    for (uint32_t epoch = 0; epoch < 2000; epoch++) mean += rng_permute(11, epoch, 1797, 0);
    assert_near(mean / 2000, 898, 4.5 * 1797 / sqrt(12.0 * 2000));
    /* the whole range of 32 bits */
    assert_true(rng_permute(1, 0, 0xffffffffu, 0xfffffffeu) < 0xffffffffu);
}

static void replicate_seeds(void **state)
{
    (void)state;
    for (int i = 1; i < 20; i++)
        for (int j = 1; j < i; j++) assert_true(rng_replicate_seed(5, i) != rng_replicate_seed(5, j));
    assert_true(rng_replicate_seed(5, 1) == rng_replicate_seed(5, 1));
    assert_true(rng_replicate_seed(5, 1) != rng_replicate_seed(6, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_known), cmocka_unit_test(words_of_a_counter), cmocka_unit_test(normals),
        cmocka_unit_test(exponential),  cmocka_unit_test(permutation),        cmocka_unit_test(replicate_seeds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
