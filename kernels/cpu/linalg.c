/* linalg on the host. A row-major symmetric matrix is its own column-major form, so LAPACK works on it in place, and the
 * eigenvectors that it leaves in columns are our rows. */
#include "kernels/linalg.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>

static err_t eigen(char job, int n, double *a, double *w)
{
    for (int i = 0; i < n; i++)
        for (int j = i; j < n; j++)
            if (!isfinite(a[(size_t)i * n + j]))
                return fail(ERR_FAILED, "eigenvalues: element (%d, %d) of the matrix is not finite", i, j);
    if (n == 0) return ERR_OK;
    /* our upper triangle is the lower one of the column-major view */
    int info = (int)LAPACKE_dsyevd(LAPACK_COL_MAJOR, job, 'L', n, a, n, w);
    if (info < 0) return fail(ERR_FAILED, "eigenvalues: LAPACK refused argument %d", -info);
    if (info > 0) return fail(ERR_FAILED, "eigenvalues of a %d x %d matrix did not converge (%d left)", n, n, info);
    return ERR_OK;
}

err_t linalg_eigh(int n, double *a, double *w)
{
    return eigen('V', n, a, w);
}

err_t linalg_eigvals(int n, double *a, double *w)
{
    return eigen('N', n, a, w);
}

bool linalg_cholesky(int n, double *a, double least)
{
    double top = 0;
    for (int i = 0; i < n; i++)
        if (!(a[(size_t)i * n + i] <= top)) top = a[(size_t)i * n + i]; /* NaN too: it fails below */
    if (n == 0) return true;
    if (!isfinite(top) || LAPACKE_dpotrf(LAPACK_COL_MAJOR, 'U', n, a, n)) return false;
    for (int i = 0; i < n; i++) {
        double pivot = a[(size_t)i * n + i] * a[(size_t)i * n + i];
        if (!(pivot >= least * top)) return false;
    }
    return true;
}

void linalg_congruence(int n, const double *l, double *s)
{
    cblas_dtrmm(CblasRowMajor, CblasLeft, CblasLower, CblasTrans, CblasNonUnit, n, n, 1, l, n, s, n);
    cblas_dtrmm(CblasRowMajor, CblasRight, CblasLower, CblasNoTrans, CblasNonUnit, n, n, 1, l, n, s, n);
}

void linalg_dgemm(bool ta, bool tb, int m, int n, int k, double alpha, const double *a, int lda, const double *b,
                  int ldb, double beta, double *c, int ldc)
{
    cblas_dgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, m, n, k, alpha, a, lda,
                b, ldb, beta, c, ldc);
}

void linalg_dsyrk(bool trans, int n, int k, double alpha, const double *a, int lda, double beta, double *c, int ldc)
{
    cblas_dsyrk(CblasRowMajor, CblasUpper, trans ? CblasTrans : CblasNoTrans, n, k, alpha, a, lda, beta, c, ldc);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++) c[(size_t)i * ldc + j] = c[(size_t)j * ldc + i];
}
