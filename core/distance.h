/* distance: d(a, b) of two batches of images and its gradient to the first: the metrics of the settings (enum loss_metric). Those that
 * are functions of ||a - b||^2 are computed on the host from it; the others have device work of their own.
 *
 * A gradient has the form d d_i / d a_i = factor_i v_i with a direction v that depends on the metric (a - b, its sign, LPIPS's), so that
 * weights and scales join as factors. */
#ifndef CORE_DISTANCE_H
#define CORE_DISTANCE_H

#include "core/target.h"
#include "kernels/kernels.h"

struct distance;
struct distance_config {
    struct loss_opts loss;
    int rows;    /* images of a call, at most */
    int h, w, c; /* of an image; only l2-32 and lpips look at the single ones */
    const struct kernels *kernels;
    struct kdev *dev;
};
/* ERR_NO_DATA: lpips without its weights. */
err_t distance_new(struct distance **d, const struct distance_config *c) MUST_USE;
void distance_free(struct distance *d);
/* a, b: device [rows, h, w, c], of which n count. squares: ||a - b||^2, given. Fills value and factor [n]. */
void distance_run(struct distance *d, const float *a, const float *b, int n, const double *squares, double *value,
                  double *factor);
/* After distance_run on the same a and b: da[i] = g[i] v[i] for n rows; g on the device. */
void distance_gradient(struct distance *d, const float *a, const float *b, int n, const float *g, float *da);
const char *distance_sha(const struct distance *d); /* of the metric's own weights; NULL: it has none */
double distance_flops(const struct distance *d);    /* of one pair with its gradient, by multiply-accumulates */

#endif
