/* energy: two distances between samples that need no fit and no features: for points in a plane, and for features of any length. Double,
 * on the host, the same value for any number of threads. Rows are points: x[n, d], y[m, d]. Both are of the *empirical* distributions:
 * at least 0, and 0 for equal sets; that of two samples of one distribution falls as 1/n. NaN in gives NaN out. */
#ifndef CORE_METRICS_ENERGY_H
#define CORE_METRICS_ENERGY_H

#include "core/base.h"

/* 2 E|X - Y| - E|X - X'| - E|Y - Y'| over all pairs, a point with itself included (Szekely & Rizzo 2013). Time n m. */
double energy_distance(const double *x, int n, const double *y, int m, int d);

/* Sliced Wasserstein-2 distance: sqrt of the mean over `projections` random directions of the squared W2 distance of the projections,
 * which in one dimension is that of the quantile functions (Rabin et al. 2012). Directions depend on seed and d only; with d = 1 it is
 * W2 itself. */
double sliced_w2(const double *x, int n, const double *y, int m, int d, int projections, uint64_t seed);

#endif
