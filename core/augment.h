/* augment: non-leaky augmentation of training images (Karras et al. 2022, "Elucidating the design space of diffusion-based generative
 * models", appendix F.2): every image is seen through one random affine map, and the network is told which by nine numbers, so that asked
 * with zeros it gives images that were not changed.
 *
 * A map is composed, in this order, of: xflip, yflip (each a coin); scale by 2^(0.2 N); rotation by an angle uniform in (-pi, pi);
 * anisotropic scale by 2^(0.2 N) along an axis and its inverse across, the axis at an angle uniform in (-pi/2, pi/2) with probability 1/2,
 * else horizontal; translation by 0.125 N image sides in x and in y. N are standard normal. Each kind happens with probability p,
 * independently, but for xflip, whose coin is always tossed, as published.
 *
 * Labels: xflip, yflip, N of the scale, cos - 1 and sin of the rotation, N of the anisotropic scale times (cos, sin) of its axis, N of the
 * translation in x, y; zero where a kind did not happen. (The published axis is uniform in (-pi, pi), where one label stands for two maps:
 * stretching by N along r and by -N along r + pi. Half a turn gives the same distribution of maps and of labels, and one map a label.)
 *
 * Draws depend on (seed, step, sample in the global batch) alone. */
#ifndef CORE_AUGMENT_H
#define CORE_AUGMENT_H

#include "kernels/kernels.h"

enum augment_kind {
    AUGMENT_XFLIP,
    AUGMENT_YFLIP,
    AUGMENT_SCALE,
    AUGMENT_ROTATE,
    AUGMENT_ANISO,
    AUGMENT_TRANSLATE,
    AUGMENT_KINDS
};
enum { AUGMENT_LABELS = 9 };
extern const char *const augment_names[AUGMENT_KINDS]; /* as in setting augment.transforms */

struct augment {
    double p; /* 0: off */
    bool on[AUGMENT_KINDS];
};
struct augment_draw { /* all zero: the image as it is */
    bool xflip, yflip;
    double scale;             /* N */
    double angle;             /* of the rotation */
    double aniso, aniso_axis; /* N; angle */
    double tx, ty;            /* N */
};
void augment_drawn(const struct augment *a, uint64_t seed, uint32_t step, uint32_t sample, struct augment_draw *out);
void augment_labels(const struct augment_draw *d, float out[AUGMENT_LABELS]);
/* The map for the kernel op augment, from a place in the new image to the place in the old one: the nearest of the eight symmetries of the
 * square in orient (of the four that keep the sides where h != w), the rest in affine. */
void augment_map(const struct augment_draw *d, int h, int w, double affine[6], uint8_t *orient);

/* On a device: buffers for micro-batches of at most `rows` images. Names as in augment.transforms; ERR_USAGE for unknown ones. */
struct augmenter;
err_t augmenter_new(struct augmenter **out, double p, int nnames, const char (*names)[64], const struct kernels *k,
                    struct kdev *dev, int rows, int h, int w, int c) MUST_USE;
void augmenter_free(struct augmenter *a); /* NULL is fine */
/* Changes images y[n, h, w, c] in place and writes their labels [n, AUGMENT_LABELS], both on the device; the first is number `first` of the
 * global batch. */
void augmenter_run(struct augmenter *a, uint64_t seed, uint32_t step, uint32_t first, int n, float *y, float *labels);

#endif
