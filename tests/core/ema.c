/* Power-function averages: closed forms against sums, the combination against averages that were really made, and what cannot be. */
#include "tests/test.h"

#include "core/ema.h"

enum { GRID = 20000 };

/* p_{t,gamma}(s) at the midpoints of a grid over [0, 1]. */
static void sampled(struct ema_profile p, double *out)
{
    double g = ema_gamma(p.std);
    for (int i = 0; i < GRID; i++) {
        double s = (i + 0.5) / GRID;
        out[i] = s <= p.nimg ? (g + 1) * pow(s / p.nimg, g) / p.nimg : 0;
    }
}

static void width_is_what_it_says(void **state)
{
    (void)state;
    static const double stds[] = {0.01, 0.05, 0.1, 0.2, 0.28};
    double *p = mem_array(GRID, sizeof *p);
    for (size_t k = 0; k < ARRAY_LEN(stds); k++) {
        double g = ema_gamma(stds[k]), mass = 0, mean = 0, square = 0;
        assert_near(sqrt((g + 1) / ((g + 2) * (g + 2) * (g + 3))), stds[k], 1e-14);
        sampled((struct ema_profile){1, stds[k]}, p);
        for (int i = 0; i < GRID; i++) {
            double s = (i + 0.5) / GRID;
            mass += p[i] / GRID;
            mean += s * p[i] / GRID;
            square += s * s * p[i] / GRID;
        }
        assert_near(mass, 1, 1e-5);
        assert_near(sqrt(square - mean * mean), stds[k], 1e-4);
    }
    assert_near(ema_gamma(0.05), 16.97219860230345, 1e-12); /* published: 16.972, 6.937 */
    assert_near(ema_gamma(0.1), 6.937203937601807, 1e-12);
    mem_free(p);
}

static void inner_products(void **state)
{
    (void)state;
    static const struct ema_profile v[] = {{1, 0.05}, {0.6, 0.1}, {0.61, 0.02}, {0.3, 0.25}};
    double *a = mem_array(GRID, sizeof *a), *b = mem_array(GRID, sizeof *b);
    for (size_t i = 0; i < ARRAY_LEN(v); i++) {
        for (size_t j = 0; j < ARRAY_LEN(v); j++) {
            double sum = 0, want = ema_dot(v[i], v[j]);
            sampled(v[i], a);
            sampled(v[j], b);
            for (int e = 0; e < GRID; e++) sum += a[e] * b[e] / GRID;
            assert_near(sum, want, 3e-3 * want + 1e-12); /* the grid cuts the last step of a profile */
            assert_near(ema_dot(v[j], v[i]), want, 1e-14 * want);
            struct ema_profile x = v[i], y = v[j];
            x.nimg *= 1e9; /* a density: the unit of time divides */
            y.nimg *= 1e9;
            assert_near(ema_dot(x, y) * 1e9, want, 1e-12 * want);
        }
    }
    mem_free(a);
    mem_free(b);
}

static void response(void **state)
{
    (void)state;
    double r[100], sum = 0;
    ema_response((struct ema_profile){80, 0.1}, 100, r);
    for (int i = 0; i < 100; i++) sum += r[i];
    assert_near(sum, 1, 1e-14);
    assert_true(r[80] > r[79] && r[81] == 0 && r[0] == 0);
    assert_near(r[80] / r[40], pow(2, ema_gamma(0.1)), 1e-9);
}

/* What training does: beta = (1 - 1/t)^(gamma + 1) at step t. */
static double average(const double *walk, int steps, double std)
{
    double e = 0, power = ema_gamma(std) + 1;
    for (int t = 1; t <= steps; t++) e += (walk[t] - e) * (1 - pow(1 - 1.0 / t, power));
    return e;
}

enum { STEPS = 4000 };

/* Averages made on the way and combined equal an average of another width made from the start. */
static void combination_is_the_average(void **state)
{
    (void)state;
    static const double wanted[] = {0.05, 0.07, 0.1, 0.15};
    double *walk = mem_array(STEPS + 1, sizeof *walk), x[32];
    struct ema_profile in[32];
    struct ema_quality q;
    for (int t = 1; t <= STEPS; t++) walk[t] = sin(t * 0.002) + 0.3 * cos(t * 0.05) + t / 3000.0;
    for (int n = 0; n < 32; n++) in[n] = (struct ema_profile){(n / 2 + 1) * STEPS / 16, n % 2 ? 0.1 : 0.05};
    for (size_t k = 0; k < ARRAY_LEN(wanted); k++) {
        double got = 0, sum = 0, want = average(walk, STEPS, wanted[k]);
        assert_ok(ema_solve(in, 32, (struct ema_profile){STEPS, wanted[k]}, x, &q));
        for (int n = 0; n < 32; n++) {
            got += x[n] * average(walk, (int)in[n].nimg, in[n].std);
            sum += x[n];
        }
        assert_near(sum, 1, 1e-14);
        assert_near(got, want, 2e-3);
        assert_true(q.miss < 0.02 && q.growth < 3);
        assert_true(fabs(average(walk, STEPS, 0.05) - average(walk, STEPS, 0.1)) > 0.05); /* the width matters */
    }
    mem_free(walk);
}

static double distance(const struct ema_profile *in, const double *x, struct ema_profile want)
{
    double square = ema_dot(want, want);
    for (int a = 0; a < 3; a++) {
        square -= 2 * x[a] * ema_dot(in[a], want);
        for (int b = 0; b < 3; b++) square += x[a] * x[b] * ema_dot(in[a], in[b]);
    }
    return square;
}

/* Stored ones come back as themselves; no other combination is nearer; two equal ones are no obstacle. */
static void nearest_combination(void **state)
{
    (void)state;
    struct ema_profile in[] = {{1, 0.05}, {2, 0.05}, {2, 0.1}, {2, 0.05}};
    double x[4], best[4] = {0};
    struct ema_quality q;
    for (int k = 0; k < 3; k++) {
        assert_ok(ema_solve(in, 3, in[k], x, &q));
        for (int i = 0; i < 3; i++) assert_near(x[i], i == k, 1e-10);
        assert_true(q.miss < 1e-8);
        assert_near(q.growth, 1, 1e-9);
    }
    struct ema_profile want = {2, 0.07};
    assert_ok(ema_solve(in, 4, want, x, &q)); /* 1 and 3 are the same: one of them is left out */
    assert_true((x[1] == 0) != (x[3] == 0));
    assert_ok(ema_solve(in, 3, want, best, &q));
    assert_near(x[1] + x[3], best[1], 1e-9);
    assert_near(sqrt(distance(in, best, want) / ema_dot(want, want)), q.miss, 1e-7);
    double sum = 0, size = 0;
    for (int i = 0; i < 3; i++) { /* the sum of 1 is put on it afterwards: the nearest of all is a multiple */
        sum += best[i] * ema_dot(in[i], want);
        for (int j = 0; j < 3; j++) size += best[i] * best[j] * ema_dot(in[i], in[j]);
    }
    for (int i = 0; i < 3; i++) best[i] *= sum / size;
    double least = distance(in, best, want);
    assert_true(fabs(sum / size - 1) < 0.1);
    for (int i = 0; i < 3; i++) {
        for (int side = -1; side < 2; side += 2) {
            memcpy(x, best, sizeof x);
            x[i] += side * 1e-3;
            assert_true(distance(in, x, want) > least);
        }
    }
}

static void what_cannot_be(void **state)
{
    (void)state;
    struct ema_profile in[] = {{1, 0.05}};
    double x[1], std;
    struct ema_quality q;
    assert_ok(ema_solve(in, 1, (struct ema_profile){1, 0.2}, x, &q));
    assert_true(q.miss > 0.1); /* one average spans little, and says so */
    assert_err(ERR_USAGE, ema_solve(in, 0, in[0], x, &q));
    assert_err(ERR_USAGE, ema_solve(in, 1, (struct ema_profile){1, 0.3}, x, &q));
    assert_has(err_text(), "0.2886");
    assert_err(ERR_USAGE, ema_solve(in, 1, (struct ema_profile){0, 0.1}, x, &q));
    in[0].std = NAN;
    assert_err(ERR_USAGE, ema_solve(in, 1, (struct ema_profile){1, 0.1}, x, &q));

    assert_near(ema_width("power(std=0.05)@1"), 0.05, 0);
    assert_near(ema_width("power(std=1e-02)@1"), 0.01, 0);
    static const char *const none[] = {"",       "power(std=", "power(std=)@1", "power(std=0.4)@1", "const(beta=0.9)@1",
                                       "lua:abc"};
    for (size_t i = 0; i < ARRAY_LEN(none); i++) assert_true(ema_width(none[i]) == 0);
    assert_ok(ema_weights_width("posthoc:0.07", &std));
    assert_near(std, 0.07, 0);
    assert_ok(ema_weights_width("std05", &std));
    assert_true(std == 0);
    assert_err(ERR_USAGE, ema_weights_width("posthoc:", &std));
    assert_err(ERR_USAGE, ema_weights_width("posthoc:0.3", &std));
    assert_has(err_text(), "posthoc:0.07");
}

static void when_snapshots_are_taken(void **state)
{
    (void)state;
    for (int64_t iters = 1; iters < 40; iters++) {
        for (int64_t n = 0; n < 45; n++) {
            bool want[40] = {false};
            for (int64_t k = 1; k <= n; k++) want[(int64_t)floor((double)k * (double)iters / (double)n + 0.5)] = true;
            for (int64_t step = 0; step <= iters; step++)
                assert_int_equal(ema_snapshot_due(step, iters, n), step > 0 && want[step]);
        }
    }
    assert_true(ema_snapshot_due(400000000, 400000000, 10000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(width_is_what_it_says),
        cmocka_unit_test(inner_products),
        cmocka_unit_test(response),
        cmocka_unit_test(combination_is_the_average),
        cmocka_unit_test(nearest_combination),
        cmocka_unit_test(what_cannot_be),
        cmocka_unit_test(when_snapshots_are_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
