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

enum { NR = 16, MR = 6, GROUP_BYTES = 24 * 1024, THIN = 4, THIN_BLOCK = 24 };

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
    size_t fit = GROUP_BYTES / sizeof(float) / d->image;
    d->group = fit < 1 ? 1 : fit > (size_t)n ? n : (int)fit;
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

/* P pixels x 16 channels. win: the pixels' windows; row: floats from one window row to the next; len = s * c */
INLINE void tile(const int P, const float *base, const int *offset, size_t row, int rows, int len, const float *w,
                 const float *bias, float *out, int ldo, int keep)
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
        for (; at < end; at++, w += NR) {
            V8 w0 = V8_AT(w), w1 = V8_AT(w + 8);
#pragma GCC unroll 8
            for (int p = 0; p < P; p++) {
                float v = win[p][at];
                acc[p][0] += v * w0;
                acc[p][1] += v * w1;
            }
        }
    }
    if (keep == NR) {
#pragma GCC unroll 8
        for (int p = 0; p < P; p++) {
            V8_PUT(out + (size_t)p * ldo) = acc[p][0];
            V8_PUT(out + (size_t)p * ldo + 8) = acc[p][1];
        }
    } else {
#pragma GCC unroll 8
        for (int p = 0; p < P; p++) {
            float tmp[NR] = {0};
            V8_PUT(tmp) = acc[p][0];
            V8_PUT(tmp + 8) = acc[p][1];
            memcpy(out + (size_t)p * ldo, tmp, (size_t)keep * sizeof *tmp);
        }
    }
}

INLINE void windows_body(const struct direct *d, const float *base, int pixels, const float *packed, const float *bias,
                         float *out)
{
    size_t row = (size_t)d->pw * d->c;
    int len = d->s * d->c;
    for (int b = 0; b < d->panels; b++) {
        const float *w = packed + (size_t)b * d->r * len * NR;
        int keep = d->k - b * NR < NR ? d->k - b * NR : NR;
        float start[NR] = {0};
        if (bias) memcpy(start, bias + b * NR, (size_t)keep * sizeof *start);
        float *o = out + b * NR;
        int q = 0;
        for (; q + MR <= pixels; q += MR)
            tile(MR, base, d->offset + q, row, d->r, len, w, start, o + (size_t)q * d->k, d->k, keep);
        const int *at = d->offset + q;
        o += (size_t)q * d->k;
        switch (pixels - q) {
        case 5: tile(5, base, at, row, d->r, len, w, start, o, d->k, keep); break;
        case 4: tile(4, base, at, row, d->r, len, w, start, o, d->k, keep); break;
        case 3: tile(3, base, at, row, d->r, len, w, start, o, d->k, keep); break;
        case 2: tile(2, base, at, row, d->r, len, w, start, o, d->k, keep); break;
        case 1: tile(1, base, at, row, d->r, len, w, start, o, d->k, keep); break;
        default: break;
        }
    }
}
ISA_CLONES(windows,
           (const struct direct *d, const float *base, int pixels, const float *packed, const float *bias, float *out),
           (d, base, pixels, packed, bias, out))

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
    for (int p = 0; p < P; p++) out[(size_t)p * ldo] = tail[p] + SUM8(sum[p]);
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
    return d->copy ? (size_t)threads * d->group * d->image : 0;
}

void direct_run(const struct direct *d, int threads, const float *in, const float *packed, const float *bias,
                float *out, float *ws)
{
    int tasks = (d->n + d->group - 1) / d->group;
    size_t plane = (size_t)d->ho * d->wo;
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

/* ---- weight gradient: [r][s * c][k], summed over pixels --------------------------------------------------------------------- */

/* J window positions x 16 channels over `pixels` pixels, continuing the sums in t (rows of ldt) unless first */
INLINE void weight_tile(const int J, const float *base, const int *offset, int pixels, const float *dout, size_t ldd,
                        float *t, size_t ldt, bool first)
{
    V8 acc[MR][2];
#pragma GCC unroll 8
    for (int j = 0; j < J; j++) {
        acc[j][0] = acc[j][1] = (V8){0};
        if (first) continue;
        acc[j][0] = V8_AT(t + j * ldt);
        acc[j][1] = V8_AT(t + j * ldt + 8);
    }
    for (int q = 0; q < pixels; q++, dout += ldd) {
        const float *x = base + offset[q];
        V8 d0 = V8_AT(dout), d1 = V8_AT(dout + 8);
#pragma GCC unroll 8
        for (int j = 0; j < J; j++) {
            acc[j][0] += x[j] * d0;
            acc[j][1] += x[j] * d1;
        }
    }
#pragma GCC unroll 8
    for (int j = 0; j < J; j++) {
        V8_PUT(t + j * ldt) = acc[j][0];
        V8_PUT(t + j * ldt + 8) = acc[j][1];
    }
}

/* tiles lo..hi of the gradient for one group of images; tile = (row r, MR positions, panel) */
INLINE void weights_body(const struct direct *d, const float *base, int pixels, const float *dout, size_t ldd, float *t,
                         int lo, int hi, bool first)
{
    size_t row = (size_t)d->pw * d->c, ldt = (size_t)d->panels * NR;
    int len = d->s * d->c, across = (len + MR - 1) / MR;
    for (int i = lo; i < hi; i++) {
        int b = i % d->panels, j0 = i / d->panels % across * MR, r = i / d->panels / across;
        const float *x = base + r * row + j0, *g = dout + b * NR;
        float *to = t + ((size_t)r * len + j0) * ldt + b * NR;
        switch (len - j0) {
        case 1: weight_tile(1, x, d->offset, pixels, g, ldd, to, ldt, first); break;
        case 2: weight_tile(2, x, d->offset, pixels, g, ldd, to, ldt, first); break;
        case 3: weight_tile(3, x, d->offset, pixels, g, ldd, to, ldt, first); break;
        case 4: weight_tile(4, x, d->offset, pixels, g, ldd, to, ldt, first); break;
        case 5: weight_tile(5, x, d->offset, pixels, g, ldd, to, ldt, first); break;
        default: weight_tile(MR, x, d->offset, pixels, g, ldd, to, ldt, first); break;
        }
    }
}
ISA_CLONES(weights,
           (const struct direct *d, const float *base, int pixels, const float *dout, size_t ldd, float *t, int lo,
            int hi, bool first),
           (d, base, pixels, dout, ldd, t, lo, hi, first))

/* few output channels: a block of window positions per task, [k][r][s * c] */
INLINE void thin_weight_body(const struct direct *d, const float *base, int pixels, const float *dout, float *dw,
                             int lo, int hi)
{
    size_t row = (size_t)d->pw * d->c;
    int len = d->s * d->c, across = (len + THIN_BLOCK - 1) / THIN_BLOCK;
    for (int i = lo; i < hi; i++) {
        int k = i % d->k, j = i / d->k % across * THIN_BLOCK, r = i / d->k / across;
        int end = j + THIN_BLOCK < len ? j + THIN_BLOCK : len;
        const float *x = base + r * row, *g = dout + k;
        float *to = dw + ((size_t)k * d->r + r) * len;
        if (end - j == THIN_BLOCK) {
            V8 a = {0}, b = {0}, c = {0};
            for (int q = 0; q < pixels; q++) {
                const float *p = x + d->offset[q] + j;
                float v = g[(size_t)q * d->k];
                a += v * V8_AT(p), b += v * V8_AT(p + 8), c += v * V8_AT(p + 16);
            }
            V8_PUT(to + j) += a, V8_PUT(to + j + 8) += b, V8_PUT(to + j + 16) += c;
            continue;
        }
        for (; j + 8 <= end; j += 8) {
            V8 a = {0};
            for (int q = 0; q < pixels; q++) a += g[(size_t)q * d->k] * V8_AT(x + d->offset[q] + j);
            V8_PUT(to + j) += a;
        }
        for (; j < end; j++) {
            float a = 0;
            for (int q = 0; q < pixels; q++) a += g[(size_t)q * d->k] * x[d->offset[q] + j];
            to[j] += a;
        }
    }
}
ISA_CLONES(thin_weight,
           (const struct direct *d, const float *base, int pixels, const float *dout, float *dw, int lo, int hi),
           (d, base, pixels, dout, dw, lo, hi))

INLINE void bias_sum_body(const float *dout, size_t pixels, int k, float *db)
{
    for (int k0 = 0; k0 < k; k0 += NR) {
        int left = k - k0 < NR ? k - k0 : NR;
        float sum[NR] = {0};
        if (left == NR) {
            V8 a = {0}, b = {0};
            for (size_t q = 0; q < pixels; q++) a += V8_AT(dout + q * k + k0), b += V8_AT(dout + q * k + k0 + 8);
            V8_PUT(sum) = a, V8_PUT(sum + 8) = b;
        } else
            for (size_t q = 0; q < pixels; q++)
                for (int j = 0; j < left; j++) sum[j] += dout[q * k + k0 + j];
        for (int j = 0; j < left; j++) db[k0 + j] += sum[j];
    }
}
ISA_CLONES(bias_sum, (const float *dout, size_t pixels, int k, float *db), (dout, pixels, k, db))

static bool widen(const struct direct *d)
{
    return d->panels && d->k % NR;
} /* gradients need whole vectors */

size_t direct_weight_floats(const struct direct *d)
{
    size_t f = d->copy ? d->n * d->image : 0;
    if (d->panels) f += (size_t)d->r * d->s * d->c * d->panels * NR;
    if (widen(d)) f += (size_t)d->n * d->ho * d->wo * d->panels * NR;
    return f + 64;
}

void direct_weight_acc(const struct direct *d, int threads, const float *in, const float *dout, float *dw, float *db,
                       float *ws)
{
    size_t plane = (size_t)d->ho * d->wo, ldt = (size_t)d->panels * NR, window = (size_t)d->r * d->s * d->c,
           image = d->image;
    int len = d->s * d->c, groups = (d->n + d->group - 1) / d->group;
    int tiles =
        d->panels ? d->r * ((len + MR - 1) / MR) * d->panels : d->r * ((len + THIN_BLOCK - 1) / THIN_BLOCK) * d->k;
    float *t = ws, *wide = t + (d->panels ? window * ldt : 0);
    float *images = wide + (widen(d) ? d->n * plane * ldt : 0);
    const float *g = widen(d) ? wide : dout;
    size_t ldd = widen(d) ? ldt : (size_t)d->k;
    if (widen(d))
        for (size_t q = 0; q < d->n * plane; q++) {
            memcpy(wide + q * ldt, dout + q * d->k, (size_t)d->k * sizeof *wide);
            memset(wide + q * ldt + d->k, 0, (ldt - (size_t)d->k) * sizeof *wide);
        }
#pragma omp parallel num_threads(threads)
    {
        int me = omp_get_thread_num(), of = omp_get_num_threads();
        /* one thread pads a group just before it is used; several share the work and wait once */
        if (of > 1 && d->copy) {
#pragma omp for schedule(static)
            for (int i = 0; i < d->n; i++) pad_image(d, in + i * (size_t)d->h * d->w * d->c, images + i * image);
        }
        int lo = (int)((long)tiles * me / of), hi = (int)((long)tiles * (me + 1) / of);
        for (int j = 0; j < groups; j++) {
            int i0 = j * d->group, count = d->n - i0 < d->group ? d->n - i0 : d->group, pixels = (int)(count * plane);
            const float *base = of > 1 && d->copy ? images + i0 * image : padded(d, in, i0, count, images);
            if (d->panels) weights(d, base, pixels, g + i0 * plane * ldd, ldd, t, lo, hi, j == 0);
            else thin_weight(d, base, pixels, g + i0 * plane * ldd, dw, lo, hi);
        }
        if (db && me == of - 1) bias_sum(dout, d->n * plane, d->k, db);
    }
    if (d->panels)
        for (int k = 0; k < d->k; k++)
            for (size_t j = 0; j < window; j++) dw[k * window + j] += t[j * ldt + k];
}
