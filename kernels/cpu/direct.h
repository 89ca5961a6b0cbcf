/* direct: our own convolution, any size, stride and channel count: the portable path, and the fast one for few channels. */
#ifndef KERNELS_CPU_DIRECT_H
#define KERNELS_CPU_DIRECT_H

#include "kernels/cpu/cpu.h"

enum { DIRECT_NR = 16, DIRECT_MR = 6 }; /* a tile: two vectors of outputs times six windows */

/* One correlation: out[n, ho, wo, k] over in[n, h, w, c], window r x s, after `dilate - 1` zeros were put between the pixels of in
 * and `top`/`left` zeros before them (zeros after follow from ho, wo). */
struct direct {
    int n, h, w, c, k, r, s, stride, top, left, dilate, ho, wo;
    int ph, pw;   /* padded image */
    bool copy;    /* the image has to be padded or dilated first */
    int group;    /* images worked on together so that they stay in the first cache */
    bool across;  /* tiles take one pixel of several images */
    int panels;   /* of 16 output channels; 0: few outputs, plain dot products */
    size_t image; /* floats of a padded image with slack */
    int *offset;  /* of the window of every output pixel of a group, in floats from the group's first padded image */
};

void direct_init(struct direct *d, int n, int h, int w, int c, int k, int r, int s, int stride, int top, int left,
                 int dilate, int ho, int wo);
void direct_done(struct direct *d);
size_t direct_packed_floats(const struct direct *d);
/* flip: w is [c][r][s][k] of the convolution whose data gradient this is, to be turned round */
void direct_pack(const struct direct *d, const float *w, bool flip, float *packed);
size_t direct_workspace_floats(const struct direct *d, int threads);
void direct_run(const struct direct *d, int threads, const float *in, const float *packed, const float *bias,
                float *out, float *ws);

/* The gradient of w (plain KRSC) and of bias (may be NULL), added to dw and db: direct_weight.c. Not for dilated inputs. */
size_t direct_weight_floats(const struct direct *d);
void direct_weight_acc(const struct direct *d, int threads, const float *in, const float *dout, float *dw, float *db,
                       float *ws);

#endif
