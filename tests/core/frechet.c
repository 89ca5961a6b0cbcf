/* Frechet distance: the published tools' values on formula-made features, and what must hold for any: chunks,
 * offsets, symmetry. */
#include "tests/test.h"

#include <jansson.h>

#include "core/io/safetensors.h"
#include "core/metrics/features.h"
#include "core/metrics/frechet.h"

/* The feature formula of the published vectors. */
static float *features(const char *name, int n, int d, double off, double mul)
{
    float *x = mem_array((size_t)n * (size_t)d, sizeof *x);
    char a[100], b[100], m[100], s[100];
    snprintf(a, sizeof a, "%s/a", name);
    snprintf(b, sizeof b, "%s/b", name);
    snprintf(m, sizeof m, "%s/m", name);
    snprintf(s, sizeof s, "%s/s", name);
    double *mean = mem_array((size_t)d, sizeof *mean), *scale = mem_array((size_t)d, sizeof *scale), shared[8];
    for (int j = 0; j < d; j++) mean[j] = off * portable_uniform(m, (uint32_t)j);
    for (int j = 0; j < d; j++) scale[j] = mul * (1 + portable_uniform(s, (uint32_t)j));
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < 8; j++) shared[j] = portable_uniform(b, (uint32_t)(i * 8 + j));
        for (int j = 0; j < d; j++) {
            double own = portable_uniform(a, (uint32_t)(i * d + j));
            x[(size_t)i * (size_t)d + (size_t)j] = (float)(mean[j] + scale[j] * (own + 0.5 * shared[j % 8]));
        }
    }
    mem_free(mean);
    mem_free(scale);
    return x;
}

static double at(json_t *list, size_t i)
{
    return json_number_value(json_array_get(list, i));
}

static void published(void **state)
{
    (void)state;
    struct st_file *f;
    assert_ok(st_open(&f, "tests/golden/frechet.safetensors"));
    json_t *cases = json_loads(st_meta(f, "cases"), 0, NULL), *c;
    size_t i;
    json_array_foreach(cases, i, c)
    {
        const char *name = json_string_value(json_object_get(c, "name"));
        int d = (int)json_integer_value(json_object_get(c, "d"));
        int n1 = (int)json_integer_value(json_object_get(c, "n1")),
            n2 = (int)json_integer_value(json_object_get(c, "n2"));
        json_t *off = json_object_get(c, "off"), *mul = json_object_get(c, "mul"),
               *values = json_object_get(c, "values");
        const char *x1 = json_string_value(json_object_get(c, "x1")), *x2 = json_string_value(json_object_get(c, "x2"));
        bool same = !strcmp(x1, x2);
        float *a = features(x1, n1, d, at(off, 0), at(mul, 0));
        float *b = features(x2, n2, d, same ? at(off, 0) : at(off, 1), same ? at(mul, 0) : at(mul, 1));
        char key[100];
        float head[16];
        snprintf(key, sizeof key, "%s/x2_head", name);
        assert_ok(st_read_f32(st_find(f, key), head, 16));
        assert_memory_equal(head, b, 8 * sizeof *head);
        struct moments m1, m2;
        assert_ok(moments_init(&m1, d));
        assert_ok(moments_init(&m2, d));
        moments_add(&m1, a, n1);
        moments_add(&m2, b, n2);
        bool singular = n1 <= d || n2 <= d;
        for (int biased = 0; biased < 2; biased++) {
            double want = json_number_value(json_object_get(values, biased ? "ect_metrics_biased_cov" : "pytorch_fid")),
                   got;
            assert_ok(frechet_of(&m1, &m2, biased, &got));
            assert_near(got, want, (singular ? 1e-6 : 1e-10) * fabs(want) + (same ? 1e-12 : 0));
        }
        moments_done(&m1);
        moments_done(&m2);
        mem_free(a);
        mem_free(b);
    }
    json_decref(cases);
    st_close(f);
}

static void chunks_and_offsets(void **state)
{
    (void)state;
    enum { N = 1300, D = 7 };
    float *x = features("t/x", N, D, 1, 1), *y = mem_array(N * D, sizeof *y);
    struct moments whole, parts, far;
    assert_ok(moments_init(&whole, D));
    assert_ok(moments_init(&parts, D));
    assert_ok(moments_init(&far, D));
    for (int i = 0; i < N * D; i++) {
        x[i] = roundf(x[i] * 64) / 64; /* so that x + 2^16 is exact */
        y[i] = x[i] + 65536;
    }
    moments_add(&whole, x, N);
    for (int k = 0, n = 1; k < N; k += n, n = n * 2 + 1)
        moments_add(&parts, x + (ptrdiff_t)k * D, n < N - k ? n : N - k);
    moments_add(&far, y, N);
    assert_int_equal(parts.n, N);
    /* against the definition */
    for (int i = 0; i < D; i++)
        for (int j = 0; j < D; j++) {
            double mi = 0, mj = 0, s = 0;
            for (int k = 0; k < N; k++) mi += x[k * D + i], mj += x[k * D + j];
            mi /= N, mj /= N;
            for (int k = 0; k < N; k++) s += (x[k * D + i] - mi) * (x[k * D + j] - mj);
            assert_near(whole.m2[i * D + j], s, 1e-10 * N);
            assert_near(parts.m2[i * D + j], s, 1e-10 * N);
            assert_near(far.m2[i * D + j], s, 1e-10 * N);
            if (i == j) assert_near(far.mean[i] - 65536, mi, 1e-9);
        }
    double fd, back, cov[D * D];
    assert_ok(frechet_of(&whole, &parts, false, &fd));
    assert_near(fd, 0, 1e-10);
    assert_true(fd >= 0);
    assert_ok(frechet_of(&whole, &far, false, &fd));
    assert_near(fd, D * 65536.0 * 65536.0, 1e-3);
    assert_ok(frechet_of(&far, &whole, false, &back));
    assert_near(fd, back, 1e-3);
    moments_cov(&whole, true, cov);
    assert_near(cov[0] * N, whole.m2[0], 1e-9);
    moments_done(&whole);
    moments_done(&parts);
    moments_done(&far);
    mem_free(x);
    mem_free(y);
}

static void refusals(void **state)
{
    (void)state;
    struct moments a, b;
    double fd;
    const float x[3] = {1, 2, NAN}, y[3] = {1, 2, 3};
    assert_ok(moments_init(&a, 1));
    assert_ok(moments_init(&b, 1));
    moments_add(&a, x, 1);
    moments_add(&b, y, 3);
    assert_err(ERR_FAILED, frechet_of(&a, &b, false, &fd)); /* one row has no covariance */
    moments_add(&a, x + 1, 2);
    assert_err(ERR_FAILED, frechet_of(&a, &b, false, &fd)); /* NaN is told, not turned into a number */
    moments_done(&a);
    moments_done(&b);
    assert_err(ERR_FAILED, moments_init(&a, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(published), cmocka_unit_test(chunks_and_offsets),
                                       cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
