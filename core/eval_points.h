/* eval_points: numbers for data sets of points (core/io/points.h): "energy", the energy distance, and "sw2", the sliced Wasserstein-2
 * distance, between samples as the sampler leaves them and EVAL_POINTS fresh points of the distribution. Nothing is quantised and nothing
 * is fitted. Both are of empirical distributions, so what a perfect model gets is not 0: the control "real_fresh" says it. */
#ifndef CORE_EVAL_POINTS_H
#define CORE_EVAL_POINTS_H

#include "core/io/dataset.h"

enum { EVAL_POINTS = 5000, EVAL_PROJECTIONS = 128 };

bool points_metric_exists(const char *metric);
/* Adds what identifies the metric and its reference: canonical lines. */
void points_metric_identity(const char *metric, struct text *canon);
/* x[n, per] against the reference. ERR_USAGE: no such metric, or a data set that is not drawn from a formula. */
err_t points_metric(const char *metric, const struct dataset *d, const double *x, int64_t n, double *out) MUST_USE;
/* Controls: n fresh points (seed names others than the reference), and n points of a Gaussian with the data's moments. */
err_t points_control_real(const char *metric, const struct dataset *d, int64_t n, uint64_t seed, double *out) MUST_USE;
err_t points_control_gaussian(const char *metric, const struct dataset *d, int64_t n, uint64_t seed,
                              double *out) MUST_USE;

#endif
