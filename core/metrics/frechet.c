/* Frechet distance. The eigenvalues of S1 S2 are those of L' S2 L with S1 = L L' (Cholesky), which is symmetric, and only its eigenvalues
 * are wanted. Where S1 is singular, B = W^1/2 V stands for L' (rows of V are eigenvectors): no square root of a non-symmetric, perhaps
 * singular, product is ever taken. */
#include "core/metrics/frechet.h"

#include <math.h>
#include <string.h>

#include "kernels/linalg.h"

enum { CHUNK = 512 }; /* rows centred together */

/* Pivots of a covariance, relative to its largest variance, below which it counts as singular. */
static const double regular = 1e-10;

err_t moments_init(struct moments *m, int d)
{
    size_t n = (size_t)d;
    *m = (struct moments){.d = d};
    if (d < 1 || d > 16384) return fail(ERR_FAILED, "moments: %d features", d);
    m->mean = mem_array(n, sizeof(double));
    m->m2 = mem_array(n * n, sizeof(double));
    return ERR_OK;
}

void moments_done(struct moments *m)
{
    mem_free(m->mean);
    mem_free(m->m2);
    *m = (struct moments){0};
}

/* Chan, Golub & LeVeque 1979: M2 = M2a + M2b + delta delta' na nb / n. */
static void merge_chunk(struct moments *m, const float *x, int rows, double *y, double *mean)
{
    size_t d = (size_t)m->d;
    /* relative to the first row: a common offset, however large, costs no digits */
    for (int r = 0; r < rows; r++)
        for (size_t j = 0; j < d; j++) y[(size_t)r * d + j] = (double)x[(size_t)r * d + j] - (double)x[j];
    memset(mean, 0, d * sizeof *mean);
    for (int r = 0; r < rows; r++)
        for (size_t j = 0; j < d; j++) mean[j] += y[(size_t)r * d + j];
    for (size_t j = 0; j < d; j++) mean[j] /= rows;
    for (int r = 0; r < rows; r++)
        for (size_t j = 0; j < d; j++) y[(size_t)r * d + j] -= mean[j];
    linalg_dsyrk(true, m->d, rows, 1, y, m->d, m->n ? 1 : 0, m->m2, m->d);
    for (size_t j = 0; j < d; j++) mean[j] += (double)x[j];
    double na = (double)m->n, nb = rows, n = na + nb;
    if (m->n) {
        for (size_t j = 0; j < d; j++) mean[j] -= m->mean[j]; /* now delta */
        for (size_t i = 0; i < d; i++)
            for (size_t j = 0; j < d; j++) m->m2[i * d + j] += mean[i] * mean[j] * (na * nb / n);
        for (size_t j = 0; j < d; j++) m->mean[j] += mean[j] * (nb / n);
    } else {
        memcpy(m->mean, mean, d * sizeof *mean);
    }
    m->n += rows;
}

void moments_add(struct moments *m, const float *x, int64_t rows)
{
    size_t d = (size_t)m->d;
    double *y = mem_array((size_t)(rows < CHUNK ? rows : CHUNK) * d, sizeof *y), *mean = mem_array(d, sizeof *mean);
    for (int64_t at = 0; at < rows; at += CHUNK) {
        int take = rows - at < CHUNK ? (int)(rows - at) : CHUNK;
        merge_chunk(m, x + (size_t)at * d, take, y, mean);
    }
    mem_free(mean);
    mem_free(y);
}

void moments_cov(const struct moments *m, bool biased, double *cov)
{
    size_t d = (size_t)m->d;
    double by = biased ? (double)m->n : (double)(m->n - 1);
    for (size_t i = 0; i < d * d; i++) cov[i] = m->m2[i] / by;
}

/* m = B S2 B' of a singular S1; t, v: work. */
static err_t product_singular(int dim, const double *cov1, const double *cov2, double *v, double *t, double *m,
                              double *w)
{
    size_t d = (size_t)dim;
    memcpy(v, cov1, d * d * sizeof *v);
    TRY(linalg_eigh(dim, v, w));
    for (size_t i = 0; i < d; i++) {
        double s = sqrt(w[i] > 0 ? w[i] : 0); /* rounding leaves tiny negative eigenvalues of singular matrices */
        for (size_t j = 0; j < d; j++) v[i * d + j] *= s;
    }
    linalg_dgemm(false, false, dim, dim, dim, 1, v, dim, cov2, dim, 0, t, dim);
    linalg_dgemm(false, true, dim, dim, dim, 1, t, dim, v, dim, 0, m, dim);
    return ERR_OK;
}

/* Tr (S1 S2)^1/2. a: work [3, d, d]. */
static err_t trace_sqrt(int dim, const double *cov1, const double *cov2, double *a, double *w, double *trace)
{
    size_t d = (size_t)dim, dd = d * d;
    double *v = a, *t = a + dd, *m = a + 2 * dd;
    memcpy(v, cov1, dd * sizeof *v);
    memcpy(m, cov2, dd * sizeof *m);
    bool first = linalg_cholesky(dim, v, regular), second = false;
    if (!first) {
        memcpy(v, cov2, dd * sizeof *v);
        memcpy(m, cov1, dd * sizeof *m);
        second = linalg_cholesky(dim, v, regular); /* the trace is the same with the two exchanged */
    }
    if (first || second) linalg_congruence(dim, v, m);
    else TRY(product_singular(dim, cov1, cov2, v, t, m, w));
    for (size_t i = 0; i < d; i++)
        for (size_t j = 0; j < i; j++) m[i * d + j] = m[j * d + i] = 0.5 * (m[i * d + j] + m[j * d + i]);
    TRY(linalg_eigvals(dim, m, w));
    *trace = 0;
    for (size_t i = 0; i < d; i++) *trace += sqrt(w[i] > 0 ? w[i] : 0);
    return ERR_OK;
}

err_t frechet_distance(int dim, const double *mu1, const double *cov1, const double *mu2, const double *cov2,
                       double *out)
{
    size_t d = (size_t)dim;
    double *work = mem_array(3 * d * d + d, sizeof *work), trace, sum = 0;
    err_t err = trace_sqrt(dim, cov1, cov2, work, work + 3 * d * d, &trace);
    mem_free(work);
    if (err) return fail_in(err, "Frechet distance");
    for (size_t i = 0; i < d; i++) {
        double diff = mu1[i] - mu2[i];
        sum += diff * diff + cov1[i * d + i] + cov2[i * d + i];
    }
    sum -= 2 * trace;
    *out = sum < 0 ? 0 : sum; /* a distance: what rounding leaves below zero is zero */
    return ERR_OK;
}

err_t frechet_of(const struct moments *a, const struct moments *b, bool biased, double *out)
{
    if (a->d != b->d || a->n < 2 || b->n < 2)
        return fail(ERR_FAILED, "Frechet distance: needs two samples or more a side, of equal dimension");
    size_t dd = (size_t)a->d * (size_t)a->d;
    double *cov = mem_array(2 * dd, sizeof *cov);
    moments_cov(a, biased, cov);
    moments_cov(b, biased, cov + dd);
    err_t err = frechet_distance(a->d, a->mean, cov, b->mean, cov + dd, out);
    mem_free(cov);
    return err;
}
