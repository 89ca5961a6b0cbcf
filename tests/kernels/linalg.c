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

static void eigenvalues_alone(void **state)
{
    (void)state;
    enum { N = 37 };
    double a[N * N], b[N * N], w[N], v[N];
    for (int i = 0; i < N; i++)
        for (int j = 0; j <= i; j++) a[i * N + j] = a[j * N + i] = value(i * N + j);
    memcpy(b, a, sizeof a);
    assert_ok(linalg_eigh(N, a, w));
    assert_ok(linalg_eigvals(N, b, v));
    for (int i = 0; i < N; i++) assert_near(v[i], w[i], 1e-12 * N);
    b[3] = NAN;
    assert_err(ERR_FAILED, linalg_eigvals(N, b, v));
}

static void cholesky(void **state)
{
    (void)state;
    enum { N = 23 };
    double l[N * N] = {0}, a[N * N], s[N * N], want[N * N];
    for (int i = 0; i < N; i++)
        for (int j = 0; j <= i; j++) l[i * N + j] = i == j ? 1 + 0.5 * value(i) : value(i * N + j);
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            a[i * N + j] = 0, s[i * N + j] = value(1000 + (i < j ? i * N + j : j * N + i));
            for (int k = 0; k < N; k++) a[i * N + j] += l[i * N + k] * l[j * N + k];
        }
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            want[i * N + j] = 0;
            for (int p = 0; p < N; p++)
                for (int q = 0; q < N; q++) want[i * N + j] += l[p * N + i] * s[p * N + q] * l[q * N + j];
        }
    assert_true(linalg_cholesky(N, a, 1e-14));
    for (int i = 0; i < N; i++)
        for (int j = 0; j <= i; j++) assert_near(a[i * N + j], l[i * N + j], 1e-10);
    linalg_congruence(N, l, s);
    for (int i = 0; i < N * N; i++) assert_near(s[i], want[i], 1e-10);
    double flat[4] = {1, 1, 1, 1}, thin[4] = {1, 0, 0, 1e-9}, again[4] = {1, 0, 0, 1e-9}, bad[4] = {1, 0, 0, NAN};
    assert_false(linalg_cholesky(2, flat, 1e-12));
    assert_false(linalg_cholesky(2, thin, 1e-8));
    assert_true(linalg_cholesky(2, again, 1e-10));
    assert_false(linalg_cholesky(2, bad, 1e-12));
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
        cmocka_unit_test(eigenvectors),        cmocka_unit_test(eigenvalues_alone), cmocka_unit_test(cholesky),
        cmocka_unit_test(eigenvectors_of_nan), cmocka_unit_test(products),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
