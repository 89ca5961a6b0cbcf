/* Data sets of points: moments against integrals of their formulas, fresh draws apart from the data, an identity that sees a bit. */
#include "tests/test.h"

#include "core/io/dataset.h"
#include "core/io/points.h"
#include "core/rng.h"

static const double pi = 3.14159265358979323846;

/* Mean and second moments of the swiss roll by quadrature over the angle. */
static void swissroll_moments(void **state)
{
    (void)state;
    enum { Q = 20000, N = 40000 };
    double m[2] = {0}, s[2] = {0}, got[2] = {0}, sq[2] = {0}, *x = mem_array(2 * N, sizeof *x);
    for (int i = 0; i < Q; i++) {
        double a = 1.5 * pi + 3 * pi * (i + 0.5) / Q,
               p[2] = {(a * cos(a) - 2) / 6.8, (a * sin(a) - 2 / (3 * pi)) / 6.8};
        for (int k = 0; k < 2; k++) m[k] += p[k] / Q, s[k] += p[k] * p[k] / Q;
    }
    points_draw(points_find("swissroll"), 77, N, x);
    for (int i = 0; i < N; i++)
        for (int k = 0; k < 2; k++) got[k] += x[2 * i + k] / N, sq[k] += x[2 * i + k] * x[2 * i + k] / N;
    for (int k = 0; k < 2; k++) {
        assert_near(m[k], 0, 1e-3);
        assert_near(got[k], m[k], 0.02);
        assert_near(sq[k], s[k] + 0.25 / (6.8 * 6.8), 0.03);
    }
    assert_near((sq[0] + sq[1]) / 2, 1, 0.05);
    mem_free(x);
}

/* Distance of a point from the spiral is that of its noise. */
static void swissroll_is_thin(void **state)
{
    (void)state;
    double x[2 * 200];
    points_draw(points_find("swissroll"), 5, 200, x);
    for (int i = 0; i < 200; i++) {
        double best = INFINITY;
        for (int q = 0; q <= 3000; q++) {
            double a = 1.5 * pi + 3 * pi * q / 3000;
            double d = hypot(x[2 * i] - (a * cos(a) - 2) / 6.8, x[2 * i + 1] - (a * sin(a) - 2 / (3 * pi)) / 6.8);
            if (d < best) best = d;
        }
        assert_true(best < 4.5 * 0.5 / 6.8);
    }
}

static void modes(void **state)
{
    (void)state;
    enum { N = 8000 };
    double *x = mem_array(2 * N, sizeof *x);
    int count[8] = {0};
    double spread[8] = {0};
    points_draw(points_find("gauss8"), 3, N, x);
    for (int i = 0; i < N; i++) {
        int k = (int)lround(atan2(x[2 * i + 1], x[2 * i]) / (pi / 4) + 8) % 8;
        double off = hypot(x[2 * i] - 1.4 * cos(k * pi / 4), x[2 * i + 1] - 1.4 * sin(k * pi / 4));
        count[k]++;
        spread[k] += off * off;
        assert_true(off < 0.6);
    }
    for (int k = 0; k < 8; k++) assert_true(abs(count[k] - N / 8) < 5 * 30);
    for (int k = 0; k < 8; k++) assert_near(spread[k] / count[k], 0.02, 0.004); /* the noise does not know the place */
    mem_free(x);
}

static void gaussian(void **state)
{
    (void)state;
    enum { N = 40000 };
    double *x = mem_array(2 * N, sizeof *x), mean[2], cov[4], m[2] = {0}, c[4] = {0};
    points_draw(points_find("gaussian"), 9, N, x);
    points_gaussian_moments(mean, cov);
    for (int i = 0; i < N; i++)
        for (int k = 0; k < 2; k++) m[k] += x[2 * i + k] / N;
    for (int i = 0; i < N; i++)
        for (int k = 0; k < 4; k++) c[k] += (x[2 * i + k / 2] - m[k / 2]) * (x[2 * i + k % 2] - m[k % 2]) / N;
    for (int k = 0; k < 2; k++) assert_near(m[k], mean[k], 0.02);
    for (int k = 0; k < 4; k++) assert_near(c[k], cov[k], 0.03);
    mem_free(x);
}

static void data_sets(void **state)
{
    (void)state;
    char sha[4][SHA256_TEXT];
    int n = 0;
    for (const struct points_source *s = points_sources; s->name; s++, n++) {
        struct dataset *d, *again;
        double fresh[20], first[4], other[4];
        assert_ok(dataset_open(&d, s->name));
        assert_ok(dataset_open(&again, s->name));
        assert_string_equal(d->sha, again->sha);
        assert_true(d->h == 1 && d->w == 1 && d->c == 2 && d->n >= 1000 && !d->pixels && d->values && !d->labels);
        assert_near(d->std, 1, 0.1);
        for (int i = 0; i < 2 * d->n; i++) assert_true(d->values[i] * 65536 == rintf(d->values[i] * 65536));
        assert_ok(dataset_fresh(d, 0, 10, fresh));
        for (int i = 0; i < 10; i++)
            for (int k = 0; k < d->n; k++)
                assert_false((float)fresh[2 * i] == d->values[2 * k] &&
                             (float)fresh[2 * i + 1] == d->values[2 * k + 1]);
        assert_ok(dataset_fresh(d, 0, 2, first)); /* point i does not depend on how many are drawn */
        assert_memory_equal(first, fresh, sizeof first);
        assert_ok(dataset_fresh(d, 1, 2, other));
        assert_true(other[0] != first[0] && other[2] != first[2]);
        strcpy(sha[n], d->sha);
        for (int i = 0; i < n; i++) assert_string_not_equal(sha[i], d->sha);
        dataset_free(again);
        dataset_free(d);
    }
    struct dataset *digits;
    double x[64];
    assert_ok(dataset_open(&digits, "digits"));
    assert_err(ERR_USAGE, dataset_fresh(digits, 0, 1, x));
    dataset_free(digits);
    assert_err(ERR_NO_DATA, dataset_open(&digits, "swissrol"));
    assert_has(err_text(), "swissroll");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(swissroll_moments), cmocka_unit_test(swissroll_is_thin),
                                       cmocka_unit_test(modes), cmocka_unit_test(gaussian),
                                       cmocka_unit_test(data_sets)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
