/* frechet: Frechet distance of two Gaussians in double: |mu1-mu2|^2 + Tr(S1 + S2 - 2 (S1 S2)^1/2), by symmetric eigen-
 * decomposition: Tr (S1 S2)^1/2 = sum sqrt eig(S1^1/2 S2 S1^1/2). Heusel et al. 2017. */
#ifndef CORE_METRICS_FRECHET_H
#define CORE_METRICS_FRECHET_H

#include "core/base.h"

struct moments { /* running sums of features, in double, relative to the first row for accuracy */
    int d;
    int64_t n;
    double *mean, *m2; /* [d], [d, d]: sum of (x - mean)(x - mean)^T */
};
err_t moments_init(struct moments *m, int d) MUST_USE;
void moments_add(struct moments *m, const float *x, int64_t rows); /* [rows, d]; chunks merged by Chan's formula */
void moments_done(struct moments *m);
/* biased: covariance / N (ECT's metric code), else / (N - 1) (pytorch-fid, EDM's fid.py, dgm-eval). */
void moments_cov(const struct moments *m, bool biased, double *cov);
err_t frechet_distance(int d, const double *mu1, const double *cov1, const double *mu2, const double *cov2,
                       double *out) MUST_USE;
err_t frechet_of(const struct moments *a, const struct moments *b, bool biased, double *out) MUST_USE;

#endif
