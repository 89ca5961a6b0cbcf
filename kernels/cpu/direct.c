/* direct: convolution as an implicit matrix product. In a zero-padded NHWC image the window's row is s * c contiguous floats, so
 * a tile of 6 output pixels x 16 output channels is twelve vector accumulators fed by one broadcast and two weight vectors per
 * step, for any window and stride. The data gradient is the same product with turned weights; the weight gradient is the product
 * with pixels as the summed index.
 *
 * Every output is summed by one thread in one order, so nothing depends on the number of threads. Multiply and add may fuse here
 * (contractions are tolerance kernels).
 */
#include "kernels/cpu/direct.h"

#include <assert.h>
#include <omp.h>
#include <string.h>

#pragma GCC optimize("fp-contract=fast")

enum { NR = DIRECT_NR, MR = DIRECT_MR, GROUP_BYTES = 24 * 1024, ACROSS_BYTES = 16 * 1024, THIN = 4 };

void direct_init(struct direct *d, int n, int h, int w, int c, int k, int r, int s, int stride, int top, int left,
                 int dilate, int ho, int wo)
{
    *d = (struct direct){.n = n,
                         .h = h,
                         .w = w,
                         .c = c,
                         .k = k,
                         .r = r,
                         .s = s,
                         .stride = stride,
                         .top = top,
                         .left = left,
                         .dilate = dilate,
                         .ho = ho,
                         .wo = wo};
    d->ph = (ho - 1) * stride + r;
    d->pw = (wo - 1) * stride + s;
    d->copy = top || left || dilate > 1 || d->ph > h || d->pw > w;
    if (!d->copy) {
        d->ph = h;
        d->pw = w;
    }
    d->image = (size_t)d->ph * d->pw * c;
    d->panels = k <= THIN ? 0 : (k + NR - 1) / NR;
    size_t fit = GROUP_BYTES / sizeof(float) / d->image, own = (size_t)h * w * c;
    d->group = fit < 1 ? 1 : fit > (size_t)n ? n : (int)fit;
    d->across = d->copy && dilate == 1 && d->panels && n >= MR && own * sizeof(float) <= ACROSS_BYTES;
    d->offset = mem_array((size_t)d->group * ho * wo, sizeof *d->offset);
    int *at = d->offset;
    for (int i = 0; i < d->group; i++)
        for (int y = 0; y < ho; y++)
            for (int x = 0; x < wo; x++)
                *at++ = (int)(i * d->image + ((size_t)y * stride * d->pw + (size_t)x * stride) * c);
}

void direct_done(struct direct *d)
{
    mem_free(d->offset);
}

/* ---- weights: [panel][r][s * c][16], the last panel filled with zeros; thin: [k][r][s * c] -------------------------------- */

size_t direct_packed_floats(const struct direct *d)
{
    return (size_t)(d->panels ? d->panels * NR : d->k) * d->r * d->s * d->c;
}

void direct_pack(const struct direct *d, const float *w, bool flip, float *packed)
{
    size_t window = (size_t)d->r * d->s * d->c;
    int taps = d->r * d->s;
    if (d->panels) memset(packed, 0, direct_packed_floats(d) * sizeof *packed);
    for (int k = 0; k < d->k; k++) {
        float *to = d->panels ? packed + (size_t)(k / NR) * window * NR + k % NR : packed + k * window;
        size_t step = d->panels ? NR : 1;
        for (int t = 0; t < taps; t++)
            for (int c = 0; c < d->c; c++)
                to[((size_t)t * d->c + c) * step] =
                    flip ? w[((size_t)c * taps + (taps - 1 - t)) * d->k + k] : w[((size_t)k * taps + t) * d->c + c];
    }
}

/* ---- padding ------------------------------------------------------------------------------------------------------------- */

static void pad_image(const struct direct *d, const float *in, float *to)
{
    size_t row = (size_t)d->pw * d->c;
    int used = d->w * d->dilate - d->dilate + 1,
        right = d->pw - d->left - used; /* may be negative: columns never looked at */
    for (int y = 0; y < d->ph; y++, to += row) {
        int from = y - d->top;
        if (from < 0 || from % d->dilate || from / d->dilate >= d->h) {
            memset(to, 0, row * sizeof *to);
            continue;
        }
        const float *src = in + (size_t)(from / d->dilate) * d->w * d->c;
        if (d->dilate == 1 && right >= 0) {
            memset(to, 0, (size_t)d->left * d->c * sizeof *to);
            memcpy(to + (size_t)d->left * d->c, src, (size_t)d->w * d->c * sizeof *to);
            memset(to + (size_t)(d->left + d->w) * d->c, 0, (size_t)right * d->c * sizeof *to);
            continue;
        }
        memset(to, 0, row * sizeof *to);
        for (int x = 0; x < d->w && d->left + x * d->dilate < d->pw; x++)
            memcpy(to + (size_t)(d->left + x * d->dilate) * d->c, src + (size_t)x * d->c, (size_t)d->c * sizeof *to);
    }
}

/* the padded images i0 .. i0 + count - 1: in place where nothing has to be added, else copied into ws */
static const float *padded(const struct direct *d, const float *in, int i0, int count, float *ws)
{
    size_t plain = (size_t)d->h * d->w * d->c;
    if (!d->copy) return in + i0 * plain;
    for (int i = 0; i < count; i++) pad_image(d, in + (i0 + i) * plain, ws + i * d->image);
    return ws;
}

/* ---- product of windows and weights ---------------------------------------------------------------------------------------- */

/* P windows x 16 channels. row, wrow: floats from one row of a window to the next, in the image and in the weights; len: floats of a
 * row that count */
INLINE void tile(const int P, const float *base, const int *offset, size_t row, int rows, int len, const float *w,
                 size_t wrow, const float *bias, float *out, size_t ldo, int keep)
{
    V8 acc[MR][2];
    const float *win[MR];
#pragma GCC unroll 8
    for (int p = 0; p < P; p++) {
        win[p] = base + offset[p];
        acc[p][0] = V8_AT(bias);
        acc[p][1] = V8_AT(bias + 8);
    }
    for (int r = 0; r < rows; r++) {
        size_t at = r * row, end = at + (size_t)len;
        const float *v = w + r * wrow;
        for (; at < end; at++, v += NR) {
            V8 w0 = V8_AT(v), w1 = V8_AT(v + 8);
#pragma GCC unroll 8
            for (int p = 0; p < P; p++) {
                float x = win[p][at];
                acc[p][0] += x * w0;
                acc[p][1] += x * w1;
            }
        }
    }
    if (keep == NR) {
#pragma GCC unroll 8
        for (int p = 0; p < P; p++) {
            V8_PUT(out + p * ldo) = acc[p][0];
            V8_PUT(out + p * ldo + 8) = acc[p][1];
        }
    } else {
#pragma GCC unroll 8
        for (int p = 0; p < P; p++) {
            float tmp[NR] = {0};
            V8_PUT(tmp) = acc[p][0];
            V8_PUT(tmp + 8) = acc[p][1];
            memcpy(out + p * ldo, tmp, (size_t)keep * sizeof *tmp);
        }
    }
}

/* one case for each number of windows, so that their accumulators are registers */
#define TILES(P, ...)                                                                                                  \
    switch (P) {                                                                                                       \
    case 6: tile(6, __VA_ARGS__); break;                                                                               \
    case 5: tile(5, __VA_ARGS__); break;                                                                               \
    case 4: tile(4, __VA_ARGS__); break;                                                                               \
    case 3: tile(3, __VA_ARGS__); break;                                                                               \
    case 2: tile(2, __VA_ARGS__); break;                                                                               \
    case 1: tile(1, __VA_ARGS__); break;                                                                               \
    default: break;                                                                                                    \
    }

INLINE void first_sums(float start[NR], const float *bias, int keep)
{
    for (int j = 0; j < NR; j++) start[j] = bias && j < keep ? bias[j] : 0;
}

INLINE void windows_body(const struct direct *d, const float *base, int pixels, const float *packed, const float *bias,
                         float *out)
{
    size_t row = (size_t)d->pw * d->c, wrow = (size_t)d->s * d->c * NR;
    int len = d->s * d->c;
    for (int b = 0; b < d->panels; b++) {
        const float *w = packed + b * d->r * wrow;
        int keep = d->k - b * NR < NR ? d->k - b * NR : NR;
        float start[NR];
        first_sums(start, bias ? bias + b * NR : NULL, keep);
        for (int q = 0; q < pixels; q += MR) {
            float *to = out + (size_t)q * d->k + b * NR;
            int count = pixels - q < MR ? pixels - q : MR;
            TILES(count, base, d->offset + q, row, d->r, len, w, wrow, start, to, (size_t)d->k, keep)
        }
    }
}
ISA_CLONES(windows,
           (const struct direct *d, const float *base, int pixels, const float *packed, const float *bias, float *out),
           (d, base, pixels, packed, bias, out))

/* Small images: the P windows of a tile are at the same place in P images, so the part of a window that lies in the padding can be
 * left out (31 % of a 3 x 3 window's products on a 4 x 4 image) and nothing has to be copied. Sums are the same: x + 0 w = x. */
INLINE void across_tiles(const int P, const struct direct *d, const float *in, const float *packed, const float *bias,
                         float *out)
{
    size_t row = (size_t)d->w * d->c, wrow = (size_t)d->s * d->c * NR, plane = (size_t)d->ho * d->wo;
    int offset[MR];
    for (int p = 0; p < P; p++) offset[p] = (int)(p * d->h * row);
    for (int b = 0; b < d->panels; b++) {
        const float *w = packed + b * d->r * wrow;
        int keep = d->k - b * NR < NR ? d->k - b * NR : NR;
        float start[NR];
        first_sums(start, bias ? bias + b * NR : NULL, keep);
        for (int y = 0; y < d->ho; y++) {
            int yi = y * d->stride - d->top, r0 = yi < 0 ? -yi : 0, r1 = d->h - yi < d->r ? d->h - yi : d->r;
            for (int x = 0; x < d->wo; x++) {
                int xi = x * d->stride - d->left, s0 = xi < 0 ? -xi : 0, s1 = d->w - xi < d->s ? d->w - xi : d->s;
                tile(P, in + (yi + r0) * row + (xi + s0) * d->c, offset, row, r1 - r0, (s1 - s0) * d->c,
                     w + r0 * wrow + s0 * d->c * NR, wrow, start, out + ((size_t)y * d->wo + x) * d->k + b * NR,
                     plane * d->k, keep);
            }
        }
    }
}

INLINE void across_body(const struct direct *d, int images, const float *in, const float *packed, const float *bias,
                        float *out)
{
    switch (images) {
    case 6: across_tiles(6, d, in, packed, bias, out); break;
    case 5: across_tiles(5, d, in, packed, bias, out); break;
    case 4: across_tiles(4, d, in, packed, bias, out); break;
    case 3: across_tiles(3, d, in, packed, bias, out); break;
    case 2: across_tiles(2, d, in, packed, bias, out); break;
    default: across_tiles(1, d, in, packed, bias, out); break;
    }
}
ISA_CLONES(across,
           (const struct direct *d, int images, const float *in, const float *packed, const float *bias, float *out),
           (d, images, in, packed, bias, out))

/* few output channels: dot products along the window's rows, of P pixels at a time to hide the latency of the sums */
INLINE void thin_tile(const int P, const float *base, const int *offset, size_t row, int rows, int len, const float *w,
                      float bias, float *out, int ldo)
{
    V8 sum[4];
    float tail[4];
#pragma GCC unroll 4
    for (int p = 0; p < P; p++) {
        sum[p] = (V8){0};
        tail[p] = bias;
    }
    for (int r = 0; r < rows; r++, w += len) {
        const float *win = base + r * row;
        int j = 0;
        for (; j + 8 <= len; j += 8) {
            V8 v = V8_AT(w + j);
#pragma GCC unroll 4
            for (int p = 0; p < P; p++) sum[p] += V8_AT(win + offset[p] + j) * v;
        }
        for (; j < len; j++)
            for (int p = 0; p < P; p++) tail[p] += win[offset[p] + j] * w[j];
    }
#pragma GCC unroll 4
    for (int p = 0; p < P; p++) out[p * ldo] = tail[p] + SUM8(sum[p]);
}

INLINE void thin_body(const struct direct *d, const float *base, int pixels, const float *packed, const float *bias,
                      float *out)
{
    size_t row = (size_t)d->pw * d->c;
    int len = d->s * d->c;
    for (int k = 0; k < d->k; k++) {
        const float *w = packed + (size_t)k * d->r * len;
        float b = bias ? bias[k] : 0;
        int q = 0;
        for (; q + 4 <= pixels; q += 4)
            thin_tile(4, base, d->offset + q, row, d->r, len, w, b, out + (size_t)q * d->k + k, d->k);
        for (; q < pixels; q++)
            thin_tile(1, base, d->offset + q, row, d->r, len, w, b, out + (size_t)q * d->k + k, d->k);
    }
}
ISA_CLONES(thin,
           (const struct direct *d, const float *base, int pixels, const float *packed, const float *bias, float *out),
           (d, base, pixels, packed, bias, out))

size_t direct_workspace_floats(const struct direct *d, int threads)
{
    return d->copy && !d->across ? (size_t)threads * d->group * d->image : 0;
}

void direct_run(const struct direct *d, int threads, const float *in, const float *packed, const float *bias,
                float *out, float *ws)
{
    size_t plane = (size_t)d->ho * d->wo, image = (size_t)d->h * d->w * d->c;
    if (d->across) { /* as many tiles for each thread, of sizes that differ by one at most */
        int tiles = (d->n + MR - 1) / MR, even = (tiles + threads - 1) / threads * threads;
        if (even * 3 <= d->n) tiles = even;
#pragma omp parallel for schedule(static) num_threads(threads)
        for (int t = 0; t < tiles; t++) {
            int i0 = (int)((long)d->n * t / tiles), i1 = (int)((long)d->n * (t + 1) / tiles);
            across(d, i1 - i0, in + i0 * image, packed, bias, out + i0 * plane * d->k);
        }
        return;
    }
    int tasks = (d->n + d->group - 1) / d->group;
#pragma omp parallel for schedule(static) num_threads(threads) if (tasks > 1)
    for (int t = 0; t < tasks; t++) {
        int i0 = t * d->group, count = d->n - i0 < d->group ? d->n - i0 : d->group;
        const float *base =
            padded(d, in, i0, count, d->copy ? ws + (size_t)omp_get_thread_num() * d->group * d->image : NULL);
        float *to = out + i0 * plane * d->k;
        if (d->panels) windows(d, base, (int)(count * plane), packed, bias, to);
        else thin(d, base, (int)(count * plane), packed, bias, to);
    }
}
