/* direct_weight: the weight gradient of a direct convolution. For one tap (r, s) of the window it is a product of c input channels and
 * k output channels summed over the pixels at which the tap lies inside the image: a rectangle, so nothing is padded. A tile is at
 * most 6 input x 16 output channels, kept in registers over a group of images that stays in the second cache.
 *
 * Tiles are dealt to threads; each is summed by one thread in the order of images and pixels.
 */
#include <assert.h>
#include <omp.h>
#include <string.h>

#include "kernels/cpu/direct.h"

#pragma GCC optimize("fp-contract=fast")

enum { NR = DIRECT_NR, MR = DIRECT_MR, GROUP_BYTES = 128 * 1024 };

/* The pixels of `images` images that a tap reaches, as runs of equal steps in both tensors. */
struct pixels {
    int images, rows, cols;
    size_t image_x, image_g, row_x, row_g; /* floats from one to the next */
    size_t step_x, step_g;
    const float *x, *g; /* the first */
};

static struct pixels pixels_of(const struct direct *d, int r, int s, int images, const float *x, const float *g,
                               size_t ldd)
{
    /* y * stride - top + r in [0, h), likewise for columns */
    int st = d->stride, y0 = d->top > r ? (d->top - r + st - 1) / st : 0,
        x0 = d->left > s ? (d->left - s + st - 1) / st : 0;
    int yn = d->h - 1 + d->top - r, xn = d->w - 1 + d->left - s;
    int y1 = yn < 0 ? 0 : yn / st + 1, x1 = xn < 0 ? 0 : xn / st + 1;
    y1 = y1 < d->ho ? y1 : d->ho;
    x1 = x1 < d->wo ? x1 : d->wo;
    struct pixels p = {.images = images, .rows = y1 > y0 ? y1 - y0 : 0, .cols = x1 > x0 ? x1 - x0 : 0};
    p.image_x = (size_t)d->h * d->w * d->c;
    p.image_g = (size_t)d->ho * d->wo * ldd;
    p.row_x = (size_t)st * d->w * d->c;
    p.row_g = (size_t)d->wo * ldd;
    p.step_x = (size_t)st * d->c;
    p.step_g = ldd;
    if (!p.rows || !p.cols) return p;
    p.x = x + ((size_t)(y0 * st - d->top + r) * d->w + (size_t)(x0 * st - d->left + s)) * d->c;
    p.g = g + ((size_t)y0 * d->wo + x0) * ldd;
    /* whole rows, and then whole images, are one run */
    if (st == 1 && p.cols == d->wo && d->w == d->wo) {
        p.cols *= p.rows;
        if (p.rows == d->ho && d->h == d->ho) {
            p.cols *= p.images;
            p.images = 1;
        }
        p.rows = 1;
    }
    return p;
}

/* J x 16 sums in t (rows of ldt), continued unless first */
INLINE void tile(const int J, const struct pixels *p, int c0, int k0, float *t, size_t ldt, bool first)
{
    V8 acc[MR][2];
#pragma GCC unroll 8
    for (int j = 0; j < J; j++) {
        acc[j][0] = acc[j][1] = (V8){0};
        if (first) continue;
        acc[j][0] = V8_AT(t + j * ldt);
        acc[j][1] = V8_AT(t + j * ldt + 8);
    }
    for (int i = 0; i < p->images; i++)
        for (int y = 0; y < p->rows; y++) {
            const float *x = p->x + i * p->image_x + y * p->row_x + c0, *g = p->g + i * p->image_g + y * p->row_g + k0;
            for (int q = 0; q < p->cols; q++, x += p->step_x, g += p->step_g) {
                V8 g0 = V8_AT(g), g1 = V8_AT(g + 8);
#pragma GCC unroll 8
                for (int j = 0; j < J; j++) {
                    acc[j][0] += x[j] * g0;
                    acc[j][1] += x[j] * g1;
                }
            }
        }
#pragma GCC unroll 8
    for (int j = 0; j < J; j++) {
        V8_PUT(t + j * ldt) = acc[j][0];
        V8_PUT(t + j * ldt + 8) = acc[j][1];
    }
}

/* tiles lo..hi of the gradient for one group of images; tile = (tap, part of c, panel). t: [r][s][c][panels * 16] */
INLINE void tiles_body(const struct direct *d, int images, const float *x, const float *g, size_t ldd, float *t, int lo,
                       int hi, bool first)
{
    int parts = (d->c + MR - 1) / MR;
    size_t ldt = (size_t)d->panels * NR;
    for (int i = lo; i < hi; i++) {
        int b = i % d->panels, part = i / d->panels % parts, tap = i / d->panels / parts;
        int c0 = d->c * part / parts, c1 = d->c * (part + 1) / parts;
        struct pixels p = pixels_of(d, tap / d->s, tap % d->s, images, x, g, ldd);
        float *to = t + ((size_t)tap * d->c + c0) * ldt + b * NR;
        switch (c1 - c0) {
        case 6: tile(6, &p, c0, b * NR, to, ldt, first); break;
        case 5: tile(5, &p, c0, b * NR, to, ldt, first); break;
        case 4: tile(4, &p, c0, b * NR, to, ldt, first); break;
        case 3: tile(3, &p, c0, b * NR, to, ldt, first); break;
        case 2: tile(2, &p, c0, b * NR, to, ldt, first); break;
        default: tile(1, &p, c0, b * NR, to, ldt, first); break;
        }
    }
}
ISA_CLONES(tiles,
           (const struct direct *d, int images, const float *x, const float *g, size_t ldd, float *t, int lo, int hi,
            bool first),
           (d, images, x, g, ldd, t, lo, hi, first))

/* Few output channels: V8 vectors along c, L at a time with two sums each; dw is [k][tap][c]. */
INLINE void thin_tile(const int L, const struct pixels *p, int c0, int k, float *dw)
{
    V8 even[4], odd[4];
#pragma GCC unroll 4
    for (int l = 0; l < L; l++) even[l] = odd[l] = (V8){0};
    for (int i = 0; i < p->images; i++)
        for (int y = 0; y < p->rows; y++) {
            const float *x = p->x + i * p->image_x + y * p->row_x + c0, *g = p->g + i * p->image_g + y * p->row_g + k;
            int q = 0;
            for (; q + 2 <= p->cols; q += 2, x += 2 * p->step_x, g += 2 * p->step_g) {
                float a = g[0], b = g[p->step_g];
#pragma GCC unroll 4
                for (int l = 0; l < L; l++) {
                    even[l] += a * V8_AT(x + 8 * l);
                    odd[l] += b * V8_AT(x + p->step_x + 8 * l);
                }
            }
            if (q < p->cols) {
#pragma GCC unroll 4
                for (int l = 0; l < L; l++) even[l] += g[0] * V8_AT(x + 8 * l);
            }
        }
#pragma GCC unroll 4
    for (int l = 0; l < L; l++) V8_PUT(dw + 8 * l) += even[l] + odd[l];
}

INLINE void thin_body(const struct direct *d, int images, const float *x, const float *g, float *dw, int lo, int hi)
{
    for (int i = lo; i < hi; i++) {
        int k = i % d->k, tap = i / d->k, c = 0;
        struct pixels p = pixels_of(d, tap / d->s, tap % d->s, images, x, g, (size_t)d->k);
        float *to = dw + ((size_t)k * d->r * d->s + tap) * d->c;
        for (; c + 32 <= d->c; c += 32) thin_tile(4, &p, c, k, to + c);
        for (; c + 16 <= d->c; c += 16) thin_tile(2, &p, c, k, to + c);
        for (; c + 8 <= d->c; c += 8) thin_tile(1, &p, c, k, to + c);
        for (; c < d->c; c++) {
            float sum = 0;
            for (int j = 0; j < p.images; j++)
                for (int y = 0; y < p.rows; y++)
                    for (int q = 0; q < p.cols; q++)
                        sum += p.x[j * p.image_x + y * p.row_x + q * p.step_x + c] *
                               p.g[j * p.image_g + y * p.row_g + q * p.step_g + k];
            to[c] += sum;
        }
    }
}
ISA_CLONES(thin, (const struct direct *d, int images, const float *x, const float *g, float *dw, int lo, int hi),
           (d, images, x, g, dw, lo, hi))

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

/* vectors of 16 need whole panels: where k is no multiple, the output's gradient is copied to one that is */
static bool widen(const struct direct *d)
{
    return d->panels && d->k % NR;
}

size_t direct_weight_floats(const struct direct *d)
{
    size_t f = 0;
    if (d->panels) f += (size_t)d->r * d->s * d->c * d->panels * NR;
    if (widen(d)) f += (size_t)d->n * d->ho * d->wo * d->panels * NR;
    return f;
}

void direct_weight_acc(const struct direct *d, int threads, const float *in, const float *dout, float *dw, float *db,
                       float *ws)
{
    assert(d->dilate == 1);
    size_t plane = (size_t)d->ho * d->wo, ldt = (size_t)d->panels * NR, window = (size_t)d->r * d->s * d->c;
    size_t image = (size_t)d->h * d->w * d->c, ldd = widen(d) ? ldt : (size_t)d->k;
    size_t fit = GROUP_BYTES / sizeof(float) / (image + plane * ldd);
    int group = fit < 1 ? 1 : fit > (size_t)d->n ? d->n : (int)fit;
    int count = d->panels ? d->r * d->s * ((d->c + MR - 1) / MR) * d->panels : d->r * d->s * d->k;
    float *t = ws, *wide = t + window * ldt;
    if (widen(d))
        for (size_t q = 0; q < d->n * plane; q++) {
            memcpy(wide + q * ldt, dout + q * d->k, (size_t)d->k * sizeof *wide);
            memset(wide + q * ldt + d->k, 0, (ldt - (size_t)d->k) * sizeof *wide);
        }
    const float *g = widen(d) ? wide : dout;
#pragma omp parallel num_threads(threads)
    {
        int me = omp_get_thread_num(), of = omp_get_num_threads();
        int lo = (int)((long)count * me / of), hi = (int)((long)count * (me + 1) / of);
        for (int i = 0; i < d->n; i += group) {
            int images = d->n - i < group ? d->n - i : group;
            if (d->panels) tiles(d, images, in + i * image, g + i * plane * ldd, ldd, t, lo, hi, i == 0);
            else thin(d, images, in + i * image, dout + i * plane * d->k, dw, lo, hi);
        }
        if (db && me == of - 1) bias_sum(dout, d->n * plane, d->k, db);
    }
    if (d->panels)
        for (int k = 0; k < d->k; k++)
            for (size_t j = 0; j < window; j++) dw[k * window + j] += t[j * ldt + k];
}
