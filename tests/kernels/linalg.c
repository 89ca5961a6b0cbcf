/* Double-precision linear algebra against its definitions. */
#include "kernels/linalg.h"
#include "tests/test.h"

/* a reproducible number in (-1, 1) */
static double value(int i)
{
    return sin(12.9898 * i + 78.233) * 0.999;
}

static void eigenvectors(void **state)
{
    (void)state;
    static const int sizes[] = {1, 2, 3, 7, 64, 101};
    for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
        int n = sizes[s];
        size_t nn = (size_t)n * n;
        double *a = mem_array(nn, sizeof *a), *v = mem_array(nn, sizeof *v), *w = mem_array((size_t)n, sizeof *w);
        for (int i = 0; i < n; i++)
            for (int j = 0; j <= i; j++) a[i * n + j] = a[j * n + i] = value(i * n + j);
        memcpy(v, a, nn * sizeof *v);
        assert_ok(linalg_eigh(n, v, w));
        for (int k = 0; k < n; k++) {
            if (k) assert_true(w[k] >= w[k - 1]);
            for (int i = 0; i < n; i++) {
                double av = 0, dot = 0;
                for (int j = 0; j < n; j++) {
                    av += a[i * n + j] * v[k * n + j];
                    dot += v[i * n + j] * v[k * n + j];
                }
                assert_near(av, w[k] * v[k * n + i], 1e-12 * n);
                assert_near(dot, i == k, 1e-12 * n);
            }
        }
        mem_free(a);
        mem_free(v);
        mem_free(w);
    }
}

static void eigenvectors_of_nan(void **state)
{
    (void)state;
    double a[4] = {1, NAN, NAN, 1}, w[2];
    assert_err(ERR_FAILED, linalg_eigh(2, a, w));
    assert_has(err_text(), "not finite");
}

static void products(void **state)
{
    (void)state;
    enum { M = 5, N = 7, K = 3 };
    double a[M * K], at[K * M], b[K * N], bt[N * K], want[M * N], c[M * N];
    for (int i = 0; i < M; i++)
        for (int l = 0; l < K; l++) a[i * K + l] = at[l * M + i] = value(i * K + l);
    for (int l = 0; l < K; l++)
        for (int j = 0; j < N; j++) b[l * N + j] = bt[j * K + l] = value(100 + l * N + j);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            want[i * N + j] = 0.5;
            for (int l = 0; l < K; l++) want[i * N + j] += 2 * a[i * K + l] * b[l * N + j];
        }
    for (int t = 0; t < 4; t++) {
        for (int i = 0; i < M * N; i++) c[i] = 1;
        linalg_dgemm(t & 1, t & 2, M, N, K, 2, t & 1 ? at : a, t & 1 ? M : K, t & 2 ? bt : b, t & 2 ? K : N, 0.5, c, N);
        for (int i = 0; i < M * N; i++) assert_near(c[i], want[i], 1e-14);
    }
    double s[M * M], s2[M * M];
    for (int i = 0; i < M * M; i++) s[i] = s2[i] = 1;
    linalg_dsyrk(false, M, K, 3, a, K, 0.25, s, M);
    linalg_dsyrk(true, M, K, 3, at, M, 0.25, s2, M);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < M; j++) {
            double v = 0.25;
            for (int l = 0; l < K; l++) v += 3 * a[i * K + l] * a[j * K + l];
            assert_near(s[i * M + j], v, 1e-14);
            assert_near(s2[i * M + j], v, 1e-14);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(eigenvectors),
        cmocka_unit_test(eigenvectors_of_nan),
        cmocka_unit_test(products),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
