/* Statistics files: what was written is read again, numpy reads them too where it is installed, and damaged ones are refused. */
#include <unistd.h>

#include "core/io/image.h"
#include "core/metrics/stats.h"
#include "core/rng.h"
#include "tests/test.h"

enum { D = 5, N = 40 };
static char dir[] = "/tmp/ect-stats-XXXXXX";
static char path[64];

static void make(struct moments *m)
{
    struct rng r = {.seed = 8, .purpose = RNG_TEST};
    float x[N * D];
    for (int i = 0; i < N * D; i++) x[i] = rng_normal(&r, (uint32_t)(i / D), (uint32_t)(i % D)) + (float)(i % D);
    assert_ok(moments_init(m, D));
    moments_add(m, x, N);
}

static void round_trip(void **s)
{
    (void)s;
    struct moments m;
    struct stats got;
    double cov[D * D], fd;
    make(&m);
    for (int biased = 0; biased < 2; biased++) {
        assert_ok(stats_write(path, &m, biased, "metric=fid:pytorch\n"));
        assert_ok(stats_read(&got, path));
        moments_cov(&m, biased, cov);
        assert_int_equal(got.d, D);
        assert_int_equal(got.n, N);
        assert_string_equal(got.about, "metric=fid:pytorch\n");
        assert_memory_equal(got.mean, m.mean, sizeof(double) * D);
        assert_memory_equal(got.cov, cov, sizeof cov);
        assert_ok(frechet_distance(D, got.mean, got.cov, m.mean, cov, &fd));
        assert_near(fd, 0, 1e-9);
        stats_done(&got);
    }
    moments_done(&m);
}

static void numpy_reads_it(void **s)
{
    (void)s;
    struct moments m;
    char cmd[400];
    if (system("python3 -c 'import numpy' 2>/dev/null") && system("/usr/bin/python3 -c 'import numpy' 2>/dev/null"))
        skip();
    make(&m);
    assert_ok(stats_write(path, &m, false, "x"));
    snprintf(cmd, sizeof cmd,
             "PY=python3; $PY -c 'import numpy' 2>/dev/null || PY=/usr/bin/python3; $PY -c 'import numpy as np; z = "
             "np.load(\"%s\"); assert "
             "z[\"mu\"].shape == (5,) and z[\"sigma\"].shape == (5, 5) and z[\"n\"] == 40 and abs(z[\"mu\"][3] - "
             "%.17g) < 1e-15 and "
             "bytes(z[\"about\"]) == b\"x\"'",
             path, m.mean[3]);
    assert_int_equal(system(cmd), 0);
    moments_done(&m);
}

static void put(int d, int rows, const double *mu, const double *sigma)
{
    struct npz_array a[] = {{.name = "mu", .descr = "<f8", .ndim = 1, .dims = {d}, .data = mu, .bytes = (size_t)d * 8},
                            {.name = "sigma",
                             .descr = "<f8",
                             .ndim = 2,
                             .dims = {rows, rows},
                             .data = sigma,
                             .bytes = (size_t)(rows * rows) * 8}};
    assert_ok(npz_write(path, a, sigma ? 2 : 1));
}

static void refusals(void **s)
{
    (void)s;
    struct stats got;
    double mu[2] = {0, 1}, sigma[4] = {2, 0.5, 0.5, 1};
    put(2, 2, mu, sigma);
    assert_ok(stats_read(&got, path)); /* without a count */
    assert_int_equal(got.n, 0);
    assert_string_equal(got.about, "");
    stats_done(&got);
    sigma[1] = 0.6;
    put(2, 2, mu, sigma);
    assert_err(ERR_FORMAT, stats_read(&got, path));
    assert_has(err_text(), "symmetric");
    sigma[1] = 0.5, sigma[0] = -1;
    put(2, 2, mu, sigma);
    assert_err(ERR_FORMAT, stats_read(&got, path));
    sigma[0] = NAN;
    put(2, 2, mu, sigma);
    assert_err(ERR_FORMAT, stats_read(&got, path));
    put(1, 2, mu, sigma);
    assert_err(ERR_FORMAT, stats_read(&got, path));
    put(2, 2, mu, NULL);
    assert_err(ERR_FORMAT, stats_read(&got, path));
    assert_has(err_text(), "sigma");
    assert_true(stats_read(&got, "/nonexistent.npz") != ERR_OK);
    struct moments m;
    assert_ok(moments_init(&m, D));
    assert_err(ERR_USAGE, stats_write(path, &m, false, ""));
    moments_done(&m);
}

static int setup(void **s)
{
    (void)s;
    if (!mkdtemp(dir)) return 1;
    snprintf(path, sizeof path, "%s/stats.npz", dir);
    return 0;
}
static int teardown(void **s)
{
    (void)s;
    unlink(path);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(round_trip), cmocka_unit_test(numpy_reads_it),
                                       cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
