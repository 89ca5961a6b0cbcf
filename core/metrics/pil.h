/* pil: Pillow's bicubic resizing (Keys, a = -0.5, widened when shrinking), bit for bit: it is part of what FD_DINOv2 measures. Rows first,
 * then columns, each pass rounded to what it stores. */
#ifndef CORE_METRICS_PIL_H
#define CORE_METRICS_PIL_H

#include "core/base.h"

/* in [h, w, c] -> out [ho, wo, c]. uint8: sums of 22-bit fixed point weights, rounded and clipped to uint8 after each pass. */
void pil_bicubic_u8(const uint8_t *in, int h, int w, int c, uint8_t *out, int ho, int wo);
/* The same of float images (Pillow's mode F, a channel at a time): double sums, stored as float after each pass, not clipped. */
void pil_bicubic_f32(const float *in, int h, int w, int c, float *out, int ho, int wo);

#endif
