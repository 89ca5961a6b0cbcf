/* kernel: the kernel distance of Binkowski et al. 2018 (KID in Inception's features, KD in others'): the squared maximum mean discrepancy with
 * the kernel (x.y / d + 1)^3, by its unbiased estimate, so it may be below 0. Double. */
#ifndef CORE_METRICS_KERNEL_H
#define CORE_METRICS_KERNEL_H

#include "core/base.h"

/* Of two samples of equal size, rows ix[0..n) of x and iy[0..n) of y; NULL: the first n rows. d features a row. n >= 2. */
double mmd2_polynomial(const float *x, const int32_t *ix, const float *y, const int32_t *iy, int n, int d);
/* Mean and standard deviation over `subsets` random draws without replacement of `size` rows of each. size is lowered to the smaller sample.
 * Published: 100 subsets of 1000. The draws depend on seed, subset and the number of rows alone. std may be NULL. */
err_t kernel_distance(const float *x, int n, const float *y, int m, int d, int subsets, int size, uint64_t seed,
                      double *mean, double *std) MUST_USE;

#endif
