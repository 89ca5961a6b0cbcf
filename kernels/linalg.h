/* linalg: the few double-precision matrix routines that metrics need, row-major, on the host. Behind them are OpenBLAS and LAPACK;
 * the number of threads is that of the CPU device (OpenMP's). */
#ifndef KERNELS_LINALG_H
#define KERNELS_LINALG_H

#include "core/base.h"

/* Eigenvalues w[n] in ascending order of the symmetric a[n, n]; on return row i of a is the unit eigenvector of w[i].
 * Only the upper triangle is read. ERR_FAILED when a holds NaN or Inf, or the iteration does not converge. */
err_t linalg_eigh(int n, double *a, double *w) MUST_USE;

/* The eigenvalues alone, in a third of the time; a is destroyed. */
err_t linalg_eigvals(int n, double *a, double *w) MUST_USE;

/* The lower triangle of a[n, n] becomes L with a = L L'; the upper one is left as it was. False: a is not positive definite to working
 * precision (a pivot of less than `least` times the largest diagonal element), and a is destroyed. */
bool linalg_cholesky(int n, double *a, double least);
/* s = L' s L, L in the lower triangle of l[n, n]. */
void linalg_congruence(int n, const double *l, double *s);

/* c[m, n] = alpha * op(a) op(b) + beta * c, op transposes where ta, tb. ld: elements from row to row as stored. */
void linalg_dgemm(bool ta, bool tb, int m, int n, int k, double alpha, const double *a, int lda, const double *b,
                  int ldb, double beta, double *c, int ldc);

/* c[n, n] = alpha * a^T a + beta * c (trans: a is [k, n]) or alpha * a a^T + beta * c (a is [n, k]); both triangles of c are
 * written; with beta != 0, c must be symmetric. */
void linalg_dsyrk(bool trans, int n, int k, double alpha, const double *a, int lda, double beta, double *c, int ldc);

#endif
