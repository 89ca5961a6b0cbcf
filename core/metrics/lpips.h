/* lpips: the learned perceptual distance of two images (Zhang et al. 2018, v0.1, VGG), with its gradient to the first.
 *
 *   d(x, y) = sum over 5 layers of the mean over pixels of sum_k lin[k] (u_k - v_k)^2
 *
 * u, v: the layer's features of x and y divided by their length over channels. Images are [-1, 1], NHWC; under 256 pixels wide they
 * are first resized bilinearly to 224 x 224, as the published CT and CD training does. Between stages VGG16 takes means where the
 * published LPIPS takes maxima: so does the implementation that CT and CD train with; pool chooses.
 *
 * Weights: tensors features.N.{weight,bias} (torchvision's VGG16) and lin0..lin4 (linI.model.1.weight or linI.weight), from the file
 * lpips-vgg of the weights directory and, where they are not in it, from vgg16. Widths are taken from the tensors. */
#ifndef CORE_METRICS_LPIPS_H
#define CORE_METRICS_LPIPS_H

#include "core/graph.h"

struct lpips;
struct lpips_opts {
    enum pool_kind pool; /* POOL_MEAN: as CT and CD; POOL_MAX: as the LPIPS package */
    const char *path;    /* of lpips-vgg; NULL: found by name */
    int side;            /* 0: the rule above; -1: never resize; else resize to side x side */
};
/* ERR_NO_DATA: weights are not installed; says what to do. o may be NULL: POOL_MEAN and the rule. batch: the most images of a call. */
err_t lpips_new(struct lpips **l, int h, int w, int c, int batch, const struct lpips_opts *o, const struct kernels *k,
                struct kdev *dev) MUST_USE;
void lpips_free(struct lpips *l);
const char *lpips_sha(const struct lpips *l);         /* of weights and definition */
double lpips_flops(const struct lpips *l, bool grad); /* of one pair of images; grad: with the gradient */
/* x, y: n <= batch images on the device. value[n] on the host; grad (device, n images, may be NULL) = d value[i] / d x[i]. No
 * allocation after the first. Where all features of a pixel are 0 the gradient is 0 (the length has none there). */
void lpips_run(struct lpips *l, const float *x, const float *y, int n, double *value, float *grad);

#endif
