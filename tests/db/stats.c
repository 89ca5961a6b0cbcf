/* Student's t against printed tables and closed forms, and the intervals made of it. */
#include "db/stats.h"

#include "tests/test.h"

static void near_rel(double got, double want, double tol)
{
    if (!(fabs(got - want) <= tol * fabs(want)))
        fail_msg("%.17g instead of %.17g: relative error %.3g", got, want, fabs(got / want - 1));
}

static void quantiles_of_the_tables(void **state)
{
    (void)state;
    /* p, degrees of freedom, quantile to 15 digits (computed with 50 digits from the incomplete beta function) */
    static const double rows[][3] = {
#include "tests/db/t_table.inc"
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        near_rel(stat_t_quantile(rows[i][0], rows[i][1]), rows[i][2], 1e-11);
        if (rows[i][0] > 0.5 && rows[i][0] < 0.9999)
            near_rel(stat_t_quantile(1 - rows[i][0], rows[i][1]), -rows[i][2], 1e-11);
    }
}

/* One, two and four degrees of freedom have closed forms. */
static void quantiles_in_closed_form(void **state)
{
    (void)state;
    static const double p[] = {1e-300, 1e-30,      1e-9, 1e-4, 0.01, 0.1,  0.3,      0.49,     0.4999999,
                               0.5,    0.50000001, 0.6,  0.75, 0.9,  0.99, 0.999999, 1 - 1e-12};
    for (size_t i = 0; i < ARRAY_LEN(p); i++) {
        double a = 4 * p[i] * (1 - p[i]), q = p[i] - 0.5;
        near_rel(stat_t_quantile(p[i], 1),
                 p[i] < 0.25   ? -1 / tan(M_PI * p[i])
                 : p[i] > 0.75 ? 1 / tan(M_PI * (1 - p[i]))
                               : tan(M_PI * q),
                 1e-11);
        near_rel(stat_t_quantile(p[i], 2), 2 * q * sqrt(2 / a), 1e-11);
        if (a > 0.01 && fabs(q) > 1e-4) {
            double c = cos(acos(sqrt(a)) / 3) / sqrt(a);
            near_rel(stat_t_quantile(p[i], 4), copysign(2 * sqrt(c - 1), q), 1e-10);
        }
    }
}

static void quantiles_at_the_edges(void **state)
{
    (void)state;
    assert_true(stat_t_quantile(0.5, 3) == 0);
    assert_true(stat_t_quantile(1, 3) == INFINITY && stat_t_quantile(0, 3) == -INFINITY);
    assert_true(isnan(stat_t_quantile(-0.1, 3)) && isnan(stat_t_quantile(1.1, 3)) && isnan(stat_t_quantile(NAN, 3)));
    assert_true(isnan(stat_t_quantile(0.9, 0)) && isnan(stat_t_quantile(0.9, NAN)));
    near_rel(stat_t_quantile(0.975, INFINITY), 1.959963984540054, 1e-11); /* the normal distribution */
    double last = INFINITY;
    for (double df = 0.5; df < 1e7;
         df *= 1.7) { /* heavier tails for fewer degrees of freedom, without a jump between methods */
        double t = stat_t_quantile(0.975, df);
        assert_true(t < last && t > 1.9599);
        last = t;
    }
}

static void means_and_deviations(void **state)
{
    (void)state;
    static const double x[] = {2, 4, 4, 4, 5, 5, 7, 9};
    assert_near(stat_mean(x, 8), 5, 0);
    assert_near(stat_sd(x, 8), sqrt(32.0 / 7), 1e-15);
    static const double far[] = {1e9 + 4, 1e9 + 7, 1e9 + 13, 1e9 + 16};
    assert_near(stat_sd(far, 4), sqrt(30), 1e-12);
    static const double wide[] = {1e16, 1, -1e16};
    assert_near(stat_mean(wide, 3), 1.0 / 3, 1e-16);
    assert_true(isnan(stat_mean(x, 0)) && isnan(stat_sd(x, 1)) && isnan(stat_sd(x, 0)));
    assert_true(stat_mean(x, 1) == 2);
    static const double inf[] = {1, INFINITY}, nan[] = {1, NAN, 2};
    assert_true(stat_mean(inf, 2) == INFINITY);
    assert_true(isnan(stat_mean(nan, 3)));
}

static void intervals(void **state)
{
    (void)state;
    static const double x[] = {10.1, 9.7, 10.4, 9.9, 10.2};
    struct interval r = stat_interval(x, 5, 0.95);
    assert_int_equal(r.n, 5);
    assert_near(r.mean, 10.06, 1e-12);
    double half = 2.77644510519779 * sqrt(0.292 / 4) / sqrt(5); /* t(0.975, 4) s / sqrt(n) */
    assert_near(r.lo, 10.06 - half, 1e-10);
    assert_near(r.hi, 10.06 + half, 1e-10);
    for (int n = 0; n < 3; n++) {
        r = stat_interval(x, n, 0.95);
        assert_true(r.n == n && isnan(r.lo) && isnan(r.hi));
    }
    static const double same[] = {3, 3, 3};
    r = stat_interval(same, 3, 0.95);
    assert_true(r.lo == 3 && r.hi == 3);
}

static void paired_intervals(void **state)
{
    (void)state;
    /* replicates differ much more than the cells: paired sees the difference, unpaired could not */
    static const double a[] = {1.0, 5.0, 9.0, NAN, 3.0}, b[] = {0.5, 4.4, 8.6, 1.0, NAN};
    struct interval r = stat_paired(a, b, 5, 0.95);
    assert_int_equal(r.n, 3);
    assert_near(r.mean, 0.5, 1e-12);
    assert_near(r.hi - r.mean, 4.30265272974946 * 0.1 / sqrt(3), 1e-10);
    assert_true(r.lo > 0);
    r = stat_paired(b, a, 5, 0.95);
    assert_near(r.mean, -0.5, 1e-12);
    r = stat_paired(a, b, 2, 0.95);
    assert_true(r.n == 2 && isnan(r.lo) && isnan(r.hi));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantiles_of_the_tables),
        cmocka_unit_test(quantiles_in_closed_form),
        cmocka_unit_test(quantiles_at_the_edges),
        cmocka_unit_test(means_and_deviations),
        cmocka_unit_test(intervals),
        cmocka_unit_test(paired_intervals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
