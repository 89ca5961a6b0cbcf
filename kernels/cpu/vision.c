/* vision: what feature networks need besides convolutions: pooling, bilinear resizing, the LPIPS distance. Forward, one task is a row of the
 * result; backward, one task is a sample, because windows overlap: each pixel's sum then has one order. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

/* ---- pooling ---------------------------------------------------------------------------------------------------------------- */

/* NaN comes in and stays */
INLINE void larger_body(float *restrict y, const float *restrict x, int c)
{
    for (int k = 0; k < c; k++) y[k] = x[k] <= y[k] || y[k] != y[k] ? y[k] : x[k];
}
ISA_CLONES(larger, (float *y, const float *x, int c), (y, x, c))
INLINE void plus_body(float *restrict y, const float *restrict x, float f, int c)
{
    for (int k = 0; k < c; k++) y[k] += f * x[k];
}
ISA_CLONES(plus, (float *y, const float *x, float f, int c), (y, x, f, c))

struct window { /* the part of a window that is inside the image, half open */
    int y0, y1, x0, x1;
};

static struct window window_of(const struct pool_desc *q, int yo, int xo)
{
    struct window v = {.y0 = yo * q->stride - q->pad, .x0 = xo * q->stride - q->pad};
    v.y1 = v.y0 + q->size < q->h ? v.y0 + q->size : q->h;
    v.x1 = v.x0 + q->size < q->w ? v.x0 + q->size : q->w;
    if (v.y0 < 0) v.y0 = 0;
    if (v.x0 < 0) v.x0 = 0;
    return v;
}

static int pooled(int pixels, const struct pool_desc *q)
{
    return (pixels + 2 * q->pad - q->size) / q->stride + 1;
}

/* what every pixel of a window is multiplied with in its mean */
static float share_of(const struct pool_desc *q, const struct window *v)
{
    int inside = (v->y1 - v->y0) * (v->x1 - v->x0);
    return 1.0f / (float)(q->kind == POOL_MEAN ? q->size * q->size : inside);
}

void cpu_pool_fwd(struct kdev *d, const struct pool_desc *q, const float *x, float *y)
{
    (void)d;
    int ho = pooled(q->h, q), wo = pooled(q->w, q), c = q->c;
#pragma omp parallel for collapse(2) schedule(static) if ((size_t)q->n * ho * wo * c > 4096)
    for (int i = 0; i < q->n; i++)
        for (int yo = 0; yo < ho; yo++)
            for (int xo = 0; xo < wo; xo++) {
                struct window v = window_of(q, yo, xo);
                float *out = y + (((size_t)i * ho + yo) * wo + xo) * c, share = share_of(q, &v);
                for (int k = 0; k < c; k++) out[k] = q->kind == POOL_MAX ? -INFINITY : 0;
                for (int yi = v.y0; yi < v.y1; yi++)
                    for (int xi = v.x0; xi < v.x1; xi++) {
                        const float *in = x + (((size_t)i * q->h + yi) * q->w + xi) * c;
                        if (q->kind == POOL_MAX) larger(out, in, c);
                        else plus(out, in, share, c);
                    }
            }
}

/* dx of the window's largest values; base: its sample's x and dx */
static void max_bwd(const struct pool_desc *q, const struct window *v, const float *x, const float *dy, float *dx)
{
    for (int k = 0; k < q->c; k++) {
        size_t best = ((size_t)v->y0 * q->w + v->x0) * q->c + k;
        for (int yi = v->y0; yi < v->y1; yi++)
            for (int xi = v->x0; xi < v->x1; xi++) {
                size_t at = ((size_t)yi * q->w + xi) * q->c + k;
                if (!(x[at] <= x[best])) best = at;
            }
        dx[best] += dy[k];
    }
}

void cpu_pool_bwd(struct kdev *d, const struct pool_desc *q, const float *x, const float *dy, float *dx, bool acc)
{
    (void)d;
    int ho = pooled(q->h, q), wo = pooled(q->w, q);
    size_t per = (size_t)q->h * q->w * q->c;
#pragma omp parallel for schedule(static) if (q->n * per > 4096)
    for (int i = 0; i < q->n; i++) {
        float *to = dx + i * per;
        if (!acc) memset(to, 0, per * sizeof *to);
        for (int yo = 0; yo < ho; yo++)
            for (int xo = 0; xo < wo; xo++) {
                struct window v = window_of(q, yo, xo);
                const float *from = dy + (((size_t)i * ho + yo) * wo + xo) * q->c;
                if (q->kind == POOL_MAX) {
                    max_bwd(q, &v, x + i * per, from, to);
                    continue;
                }
                for (int yi = v.y0; yi < v.y1; yi++)
                    for (int xi = v.x0; xi < v.x1; xi++)
                        plus(to + ((size_t)yi * q->w + xi) * q->c, from, share_of(q, &v), q->c);
            }
    }
}

/* ---- resizing ------------------------------------------------------------------------------------------------------------------ */

struct between { /* pixel i lies between a and b, at f of the way */
    int a, b;
    float f;
};

/* Bit for bit the published code, because FID's numbers hang on it: the scale is a float, the fraction is rounded once, the nearer
 * product is not rounded before the other is added. */
static struct between between(int i, int in, int out, bool corner)
{
    double scale = (float)in / (float)out, at = corner ? scale * i : scale * (i + 0.5) - 0.5;
    if (at < 0) at = 0;
    int a = (int)at < in - 1 ? (int)at : in - 1;
    float f = (float)(at - a);
    return (struct between){.a = a, .b = a + 1 < in ? a + 1 : a, .f = f > 1 ? 1 : f};
}

INLINE float lerp(float p, float q, float f)
{
    return __builtin_fmaf(1 - f, p, f * q);
}

INLINE void mix_body(float *restrict y, const float *restrict p, const float *restrict q, const float *restrict r,
                     const float *restrict s, float fx, float fy, int c)
{
    for (int k = 0; k < c; k++) y[k] = lerp(lerp(p[k], q[k], fx), lerp(r[k], s[k], fx), fy);
}
ISA_CLONES(mix, (float *y, const float *p, const float *q, const float *r, const float *s, float fx, float fy, int c),
           (y, p, q, r, s, fx, fy, c))

void cpu_resize_fwd(struct kdev *d, const struct resize_desc *q, const float *x, float *y)
{
    (void)d;
    int c = q->c;
#pragma omp parallel for collapse(2) schedule(static) if ((size_t)q->n * q->ho * q->wo * c > 4096)
    for (int i = 0; i < q->n; i++)
        for (int yo = 0; yo < q->ho; yo++) {
            struct between v = between(yo, q->h, q->ho, q->corner);
            const float *top = x + ((size_t)i * q->h + v.a) * q->w * c, *low = x + ((size_t)i * q->h + v.b) * q->w * c;
            float *out = y + ((size_t)i * q->ho + yo) * q->wo * c;
            for (int xo = 0; xo < q->wo; xo++) {
                struct between u = between(xo, q->w, q->wo, q->corner);
                mix(out + (size_t)xo * c, top + (size_t)u.a * c, top + (size_t)u.b * c, low + (size_t)u.a * c,
                    low + (size_t)u.b * c, u.f, v.f, c);
            }
        }
}

void cpu_resize_bwd(struct kdev *d, const struct resize_desc *q, const float *dy, float *dx, bool acc)
{
    (void)d;
    int c = q->c;
    size_t per = (size_t)q->h * q->w * c;
#pragma omp parallel for schedule(static) if ((size_t)q->n * q->ho * q->wo * c > 4096)
    for (int i = 0; i < q->n; i++) {
        float *to = dx + i * per;
        if (!acc) memset(to, 0, per * sizeof *to);
        for (int yo = 0; yo < q->ho; yo++)
            for (int xo = 0; xo < q->wo; xo++) {
                struct between v = between(yo, q->h, q->ho, q->corner), u = between(xo, q->w, q->wo, q->corner);
                const float *from = dy + (((size_t)i * q->ho + yo) * q->wo + xo) * c;
                plus(to + ((size_t)v.a * q->w + u.a) * c, from, (1 - v.f) * (1 - u.f), c);
                plus(to + ((size_t)v.a * q->w + u.b) * c, from, (1 - v.f) * u.f, c);
                plus(to + ((size_t)v.b * q->w + u.a) * c, from, v.f * (1 - u.f), c);
                plus(to + ((size_t)v.b * q->w + u.b) * c, from, v.f * u.f, c);
            }
    }
}

/* ---- LPIPS ------------------------------------------------------------------------------------------------------------------------ */

static double length_of(const float *x, int c)
{
    double sum = 0;
    for (int k = 0; k < c; k++) sum += (double)x[k] * x[k];
    return sqrt(sum);
}

/* One pixel. With u = a / (|a| + e) and g = dvalue/du: da = g / (|a| + e) - a (g.a) / (|a| (|a| + e)^2). */
static double lpips_pixel(const float *a, const float *b, const float *lin, float *da, double share, int c)
{
    const double e = 1e-10;
    double la = length_of(a, c), ia = 1 / (la + e), ib = 1 / (length_of(b, c) + e), sum = 0, along = 0;
    for (int k = 0; k < c; k++) {
        double diff = a[k] * ia - b[k] * ib;
        sum += lin[k] * diff * diff;
        along += lin[k] * diff * a[k];
    }
    if (!da) return sum;
    double in = la == 0 ? 0 : 2 * share * ia, out = la == 0 ? 0 : 2 * share * along * ia * ia / la;
    for (int k = 0; k < c; k++) da[k] = (float)(in * lin[k] * (a[k] * ia - b[k] * ib) - out * a[k]);
    return sum;
}

void cpu_lpips_layer(struct kdev *d, const float *a, const float *b, const float *lin, double *sums, float *da, int n,
                     int hw, int c)
{
    (void)d;
#pragma omp parallel for schedule(static) if ((size_t)n * hw * c > 4096)
    for (int i = 0; i < n; i++) {
        double sum = 0;
        for (int p = 0; p < hw; p++) {
            size_t at = ((size_t)i * hw + p) * c;
            sum += lpips_pixel(a + at, b + at, lin, da ? da + at : NULL, 1.0 / hw, c);
        }
        sums[i] += sum / hw;
    }
}
