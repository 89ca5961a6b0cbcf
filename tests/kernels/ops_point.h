/* Cases of everything else: exact ops have tolerance 0. Included once, by ops.c. */
#ifndef TESTS_KERNELS_OPS_POINT_H
#define TESTS_KERNELS_OPS_POINT_H

#include "tests/kernels/ops.h"

/* n per sample0 */
static void run_normal(struct bench *b, const int *q)
{
    struct kstream s = {.seed = 5, .step = 3, .purpose = RNG_TEST, .layer = 2, .sample0 = (uint32_t)q[2]};
    struct rng r = {.seed = 5, .step = 3, .purpose = RNG_TEST, .layer = 2};
    size_t n = (size_t)q[0] * q[1];
    float *z = zeros(b, n + 1);
    uint32_t *at = arena_alloc(&b->arena, (size_t)q[0] * sizeof *at);
    z[n] = 7;
    b->k->normal(b->d, z, q[0], q[1], &s);
    for (size_t i = 0; i < n; i++) emit1(b, z[i], rng_normal(&r, (uint32_t)(q[2] + i / q[1]), (uint32_t)(i % q[1])));
    for (int i = 0; i < q[0]; i++) at[i] = (uint32_t)(i * i + 1);
    b->k->normal_at(b->d, z, q[0], q[1], &s, at);
    for (size_t i = 0; i < n; i++) emit1(b, z[i], rng_normal(&r, (uint32_t)q[2] + at[i / q[1]], (uint32_t)(i % q[1])));
    emit1(b, z[n], 7);
}

/* n h w c */
static void run_gather(struct bench *b, const int *q)
{
    int n = q[0], h = q[1], w = q[2], c = q[3], per = h * w * c, have = 5;
    uint8_t *data = arena_alloc(&b->arena, (size_t)have * per), flip[64];
    int32_t idx[64];
    float *out = zeros(b, (size_t)n * per);
    for (int i = 0; i < have * per; i++) data[i] = (uint8_t)(i * 37 + i / 7);
    for (int i = 0; i < n; i++) idx[i] = (i * 3 + 1) % have, flip[i] = i % 2;
    for (int pass = 0; pass < 2; pass++) {
        b->k->gather_u8(b->d, data, idx, pass ? flip : NULL, n, h, w, c, out);
        for (int i = 0; i < n; i++)
            for (int y = 0; y < h; y++)
                for (int x = 0; x < w; x++)
                    for (int k = 0; k < c; k++) {
                        int from = pass && flip[i] ? w - 1 - x : x;
                        emit1(b, out[((i * h + y) * w + x) * c + k],
                              (float)data[idx[i] * per + (y * w + from) * c + k] / 127.5f - 1.0f);
                    }
    }
}

/* n per */
static void run_gather_f32(struct bench *b, const int *q)
{
    int n = q[0], per = q[1], have = 5;
    float *data = draw(b, (size_t)have * per), *out = zeros(b, (size_t)n * per + 1);
    int32_t idx[64];
    for (int i = 0; i < n; i++) idx[i] = (i * 3 + 1) % have;
    out[n * per] = 7;
    b->k->gather_f32(b->d, data, idx, n, per, out);
    for (int i = 0; i < n; i++)
        for (int e = 0; e < per; e++) emit1(b, out[i * per + e], data[idx[i] * per + e]);
    emit1(b, out[n * per], 7);
}

/* count */
static void run_quantize(struct bench *b, const int *q)
{
    static const double edge[] = {-1,    1,      -2,       2,         0,  -128 / 127.5, 127.0 / 127.5, 126.99 / 127.5,
                                  1e300, -1e300, INFINITY, -INFINITY, NAN};
    size_t n = (size_t)q[0];
    double *x = doubles(b, draw(b, n), n);
    uint8_t *out = arena_alloc(&b->arena, n);
    for (size_t i = 0; i < n && i < ARRAY_LEN(edge); i++) x[i] = edge[i];
    b->k->quantize_u8(b->d, x, out, n);
    for (size_t i = 0; i < n; i++) {
        double v = x[i] * 127.5 + 128;
        emit1(b, out[i], isnan(v) ? 0 : trunc(v < 0 ? 0 : v > 255 ? 255 : v));
    }
}

/* rows ca cb */
static void run_concat(struct bench *b, const int *q)
{
    size_t rows = (size_t)q[0], ca = (size_t)q[1], cb = (size_t)q[2], c = ca + cb;
    float *x = draw(b, rows * ca), *y = draw(b, rows * cb), *z = zeros(b, rows * c), *dx = draw(b, rows * ca),
          *dy = draw(b, rows * cb);
    double *dx0 = doubles(b, dx, rows * ca);
    b->k->concat(b->d, x, y, z, rows, q[1], q[2]);
    for (size_t i = 0; i < rows * c; i++)
        emit1(b, z[i], i % c < ca ? x[i / c * ca + i % c] : y[i / c * cb + i % c - ca]);
    b->k->split(b->d, z, dx, dy, rows, q[1], q[2], true, false);
    for (size_t i = 0; i < rows * ca; i++) emit1(b, dx[i], (float)dx0[i] + x[i]);
    for (size_t i = 0; i < rows * cb; i++) emit1(b, dy[i], y[i]);
    b->k->split(b->d, z, NULL, dy, rows, q[1], q[2], false, true);
    for (size_t i = 0; i < rows * cb; i++) emit1(b, dy[i], y[i] + y[i]);
    b->k->split(b->d, z, dx, NULL, rows, q[1], q[2], false, false);
    emit(b, dx, doubles(b, x, rows * ca), rows * ca);
}

/* n hw heads ch */
static void run_heads(struct bench *b, const int *q)
{
    int n = q[0], hw = q[1], heads = q[2], ch = q[3];
    size_t one = (size_t)n * hw * heads * ch;
    float *qkv = draw(b, 3 * one), *part[3], *back = zeros(b, 3 * one), *merged = zeros(b, one);
    for (int t = 0; t < 3; t++) part[t] = zeros(b, one);
    b->k->qkv_split(b->d, qkv, part[0], part[1], part[2], n, hw, heads, ch);
    for (int i = 0; i < n; i++)
        for (int p = 0; p < hw; p++)
            for (int h = 0; h < heads; h++)
                for (int j = 0; j < ch; j++)
                    for (int t = 0; t < 3; t++)
                        emit1(b, part[t][((i * heads + h) * hw + p) * ch + j],
                              qkv[(i * hw + p) * heads * ch * 3 + (h * ch + j) * 3 + t]);
    b->k->qkv_merge(b->d, part[0], part[1], part[2], back, n, hw, heads, ch);
    emit(b, back, doubles(b, qkv, 3 * one), 3 * one);
    b->k->heads_merge(b->d, part[1], merged, n, hw, heads, ch);
    for (int i = 0; i < n; i++)
        for (int p = 0; p < hw; p++)
            for (int h = 0; h < heads; h++)
                for (int j = 0; j < ch; j++)
                    emit1(b, merged[((i * hw + p) * heads + h) * ch + j], part[1][((i * heads + h) * hw + p) * ch + j]);
    b->k->heads_split(b->d, merged, back, n, hw, heads, ch);
    emit(b, back, doubles(b, part[1], one), one);
}

/* count */
static void run_copies(struct bench *b, const int *q)
{
    size_t n = (size_t)q[0];
    float *x = draw(b, n), *y = zeros(b, n + 1), *z = zeros(b, n);
    double *wide = doubles(b, NULL, n);
    b->k->fill(b->d, y, 2.5f, n);
    for (size_t i = 0; i < n; i++) emit1(b, y[i], 2.5);
    emit1(b, y[n], 0);
    b->k->copy(b->d, y, x, n);
    emit(b, y, doubles(b, x, n), n);
    b->k->to_f64(b->d, x, wide, n);
    for (size_t i = 0; i < n; i++) emit1(b, wide[i], x[i]), wide[i] *= 1.0000001;
    b->k->to_f32(b->d, wide, z, n);
    for (size_t i = 0; i < n; i++) emit1(b, z[i], (float)wide[i]);
}

/* n per */
static void run_rows(struct bench *b, const int *q)
{
    int n = q[0], per = q[1];
    size_t total = (size_t)n * per;
    float *x = draw(b, total), *z = draw(b, total), *a = draw(b, (size_t)n), *c = draw(b, (size_t)n),
          *y = draw(b, total);
    double *y0 = doubles(b, y, total), *sums = doubles(b, NULL, (size_t)n), *wide = doubles(b, x, total),
           *out = doubles(b, NULL, total);
    b->k->scale_rows(b->d, x, a, y, n, per, true);
    for (size_t i = 0; i < total; i++) emit1(b, y[i], y0[i] + (double)a[i / per] * x[i]);
    b->k->scale_rows(b->d, x, a, y, n, per, false);
    for (size_t i = 0; i < total; i++) emit1(b, y[i], (double)a[i / per] * x[i]);
    b->k->blend_rows(b->d, x, a, z, c, y, n, per);
    for (size_t i = 0; i < total; i++) emit1(b, y[i], (double)a[i / per] * x[i] + (double)c[i / per] * z[i]);
    b->k->add_noise(b->d, x, z, a, y, n, per);
    for (size_t i = 0; i < total; i++) emit1(b, y[i], x[i] + (double)a[i / per] * z[i]);
    b->k->diff_rows(b->d, x, z, a, y, n, per);
    for (size_t i = 0; i < total; i++) emit1(b, y[i], a[i / per] * ((double)x[i] - z[i]));
    b->k->sqdist_rows(b->d, x, z, sums, n, per);
    for (int i = 0; i < n; i++) {
        double want = 0;
        for (int e = 0; e < per; e++)
            want += ((double)x[i * per + e] - z[i * per + e]) * ((double)x[i * per + e] - z[i * per + e]);
        emit1(b, sums[i] / want, 1);
    }
    z[0] = x[0];
    b->k->absdist_rows(b->d, x, z, sums, n, per);
    for (int i = 0; i < n; i++) {
        double want = 0;
        for (int e = 0; e < per; e++) want += fabs((double)x[i * per + e] - z[i * per + e]);
        emit1(b, want == 0 ? sums[i] + 1 : sums[i] / want, 1);
    }
    b->k->sign_rows(b->d, x, z, a, y, n, per);
    for (size_t i = 0; i < total; i++) emit1(b, y[i], x[i] == z[i] ? 0 : x[i] > z[i] ? a[i / per] : -a[i / per]);
    b->k->axpby_f64(b->d, wide, 0.3, y0, -1.7, out, total);
    for (size_t i = 0; i < total; i++) emit1(b, out[i], 0.3 * wide[i] - 1.7 * y0[i]);
    b->k->axpby_f64(b->d, wide, 0.3, NULL, 9, wide, total);
    for (size_t i = 0; i < total; i++) emit1(b, wide[i], 0.3 * x[i]);
}

/* n hw c */
static void run_channels(struct bench *b, const int *q)
{
    int n = q[0], hw = q[1], c = q[2];
    size_t total = (size_t)n * hw * c, nc = (size_t)n * c;
    float *x = draw(b, total), *e = draw(b, nc), *y = zeros(b, total), *de = draw(b, nc), *db = draw(b, (size_t)c),
          *pool = zeros(b, nc);
    double *de0 = doubles(b, de, nc), *sum = doubles(b, NULL, nc), *all = doubles(b, db, (size_t)c);
    b->k->add_channel(b->d, x, e, y, n, hw, c);
    for (size_t i = 0; i < total; i++) {
        size_t at = i / ((size_t)hw * c) * c + i % c;
        emit1(b, y[i], (double)x[i] + e[at]);
        sum[at] += x[i];
        all[i % c] += x[i];
    }
    b->k->add_channel_bwd(b->d, x, de, n, hw, c, true);
    for (size_t i = 0; i < nc; i++) emit1(b, de[i], de0[i] + sum[i]);
    b->k->add_channel_bwd(b->d, x, de, n, hw, c, false);
    emit(b, de, sum, nc);
    b->k->mean_pool(b->d, x, pool, n, hw, c);
    for (size_t i = 0; i < nc; i++) emit1(b, pool[i], sum[i] / hw);
    b->k->sum_rows_acc(b->d, x, db, (size_t)n * hw, c);
    emit(b, db, all, (size_t)c);
    b->k->add_bias(b->d, x, e, y, (size_t)n * hw, c);
    for (size_t i = 0; i < total; i++) emit1(b, y[i], (double)x[i] + e[i % c]);
    b->k->add_channel(b->d, x, e, x, n, hw, c); /* in place */
    for (size_t i = 0; i < total; i++) emit1(b, x[i], y[i] - (double)e[i % c] + e[i / ((size_t)hw * c) * c + i % c]);
}

/* count */
static void run_scaled(struct bench *b, const int *q)
{
    size_t n = (size_t)q[0];
    float *x = draw(b, n), *z = draw(b, n), *y = zeros(b, n);
    b->k->add_scaled(b->d, x, z, 0.7f, y, n);
    for (size_t i = 0; i < n; i++) emit1(b, y[i], 0.7f * ((double)x[i] + z[i]));
    b->k->add_scaled(b->d, x, NULL, 0.7f, y, n);
    for (size_t i = 0; i < n; i++) emit1(b, y[i], 0.7f * (double)x[i]);
    b->k->scale_to(b->d, z, -0.3f, y, n, true);
    for (size_t i = 0; i < n; i++) emit1(b, y[i], 0.7f * (double)x[i] - 0.3f * (double)z[i]);
    b->k->scale_to(b->d, z, -0.3f, y, n, false);
    for (size_t i = 0; i < n; i++) emit1(b, y[i], -0.3f * (double)z[i]);
}

struct resample_ref {
    int n, h, w, c, taps, pad, ho, wo;
    const float *f;
    double gain;
};

static void down_double(const void *ctx, const double *x, double *y)
{
    const struct resample_ref *r = ctx;
    int ho = r->ho, wo = r->wo, pad = r->pad;
    for (int i = 0; i < r->n; i++)
        for (int yo = 0; yo < ho; yo++)
            for (int xo = 0; xo < wo; xo++)
                for (int k = 0; k < r->c; k++) {
                    double sum = 0;
                    for (int a = 0; a < r->taps; a++)
                        for (int e = 0; e < r->taps; e++) {
                            int yi = 2 * yo + a - pad, xi = 2 * xo + e - pad;
                            if (yi >= 0 && yi < r->h && xi >= 0 && xi < r->w)
                                sum += r->gain * r->f[a] * r->f[e] * x[((i * r->h + yi) * r->w + xi) * r->c + k];
                        }
                    y[((i * ho + yo) * wo + xo) * r->c + k] = sum;
                }
}

/* n h w c taps pad: down against its definition, up as the gradient of down by differences */
static void run_resample(struct bench *b, const int *q)
{
    static const float filter[6][5] = {{0}, {1}, {0.5f, 0.5f}, {0.25f, 0.5f, 0.25f}, {0.1f, 0.4f, 0.3f, 0.2f}, {0}};
    struct resample_ref r = {.n = q[0], .h = q[1], .w = q[2], .c = q[3], .taps = q[4], .f = filter[q[4]], .gain = 4};
    r.pad = q[5];
    r.ho = (q[1] + 2 * q[5] - q[4]) / 2 + 1;
    r.wo = (q[2] + 2 * q[5] - q[4]) / 2 + 1;
    size_t big = (size_t)q[0] * q[1] * q[2] * q[3], small = (size_t)q[0] * r.ho * r.wo * q[3];
    float *x = draw(b, big), *y = draw(b, small), *dy = draw(b, small), *dx = draw(b, big);
    double *want = doubles(b, NULL, small), *y0 = doubles(b, y, small), *dx0 = doubles(b, dx, big);
    down_double(&r, doubles(b, x, big), want);
    b->k->resample_down(b->d, x, y, q[0], q[1], q[2], q[3], r.f, q[4], q[5], 4, true);
    for (size_t i = 0; i < small; i++) emit1(b, y[i], y0[i] + want[i]);
    b->k->resample_down(b->d, x, y, q[0], q[1], q[2], q[3], r.f, q[4], q[5], 4, false);
    emit(b, y, want, small);
    const double *grad = differences(b, down_double, &r, doubles(b, x, big), big, doubles(b, dy, small), small);
    b->k->resample_up(b->d, dy, dx, q[0], q[1], q[2], q[3], r.f, q[4], q[5], 4, true);
    for (size_t i = 0; i < big; i++) emit1(b, dx[i], dx0[i] + grad[i]);
    b->k->resample_up(b->d, dy, dx, q[0], q[1], q[2], q[3], r.f, q[4], q[5], 4, false);
    emit(b, dx, grad, big);
}

/* n c endpoint cos_first */
static void run_embed(struct bench *b, const int *q)
{
    int n = q[0], c = q[1], half = c / 2;
    float *t = draw(b, (size_t)n), *out = zeros(b, (size_t)n * c);
    for (int i = 0; i < n; i++) t[i] *= 3;
    b->k->embed_positional(b->d, t, out, n, c, q[2], q[3]);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < half; j++) {
            double f = pow(10000, -(double)j / (half - q[2]));
            emit1(b, out[i * c + j], q[3] ? cos(t[i] * f) : sin(t[i] * f));
            emit1(b, out[i * c + half + j], q[3] ? sin(t[i] * f) : cos(t[i] * f));
        }
}

/* n c cos_first */
static void run_fourier(struct bench *b, const int *q)
{
    int n = q[0], c = q[1], half = c / 2;
    float *t = draw(b, (size_t)n), *f = draw(b, (size_t)half), *out = zeros(b, (size_t)n * c);
    for (int j = 0; j < half; j++) f[j] *= 16;
    b->k->embed_fourier(b->d, t, f, out, n, c, q[2]);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < half; j++) {
            double angle = 2 * acos(-1) * (double)t[i] * f[j];
            emit1(b, out[i * c + j], q[2] ? cos(angle) : sin(angle));
            emit1(b, out[i * c + half + j], q[2] ? sin(angle) : cos(angle));
        }
}

/* n, 1000 * shift */
static void run_precond(struct bench *b, const int *q)
{
    int n = q[0];
    float *s = draw(b, (size_t)n), *o[4], shift = q[1] / 1000.0f, sd = 0.5f;
    for (int i = 0; i < 4; i++) o[i] = zeros(b, (size_t)n);
    for (int i = 0; i < n; i++) s[i] = i ? expf(4 * s[i]) : 80.0f;
    b->k->precond_coeffs(b->d, s, n, sd, shift, o[0], o[1], o[2], o[3]);
    for (int i = 0; i < n; i++) {
        double t = s[i], m = t - shift, root = sqrt(t * t + 0.25);
        emit1(b, o[0][i], 0.25 / (m * m + 0.25));
        emit1(b, o[1][i], m * 0.5 / root);
        emit1(b, o[2][i], 1 / root);
        emit1(b, o[3][i], log(t) / 4);
    }
}

/* count */
/* ---- augmentation, from its definition: no period, no scratch, no order of sums ---- */

static const double wavelet[12] = {0.015404109327027373, 0.0034907120842174702, -0.11799011114819057,
                                   -0.048311742585633,   0.4910559419267466,    0.787641141030194,
                                   0.3379294217276218,   -0.07263752278646252,  -0.021060292512300564,
                                   0.04472490177066578,  0.0017677118642428036, -0.007800708325034148};

struct seen { /* one channel of one image */
    const float *x;
    int h, w, c;
    unsigned orient;
};

static int reflected(int i, int side)
{
    while (i < 0 || i >= side) i = side == 1 ? 0 : i < 0 ? -i : 2 * (side - 1) - i;
    return i;
}

static double seen_pixel(const struct seen *s, int row, int col)
{
    int x = reflected(col, s->w), y = reflected(row, s->h);
    if (s->orient & 1) x = s->w - 1 - x;
    if (s->orient & 2) y = s->h - 1 - y;
    return s->orient & 4 ? s->x[(x * s->w + y) * s->c] : s->x[(y * s->w + x) * s->c];
}

/* Sample (v, u) of the doubled image: pixel i has the taps j - 2 i + 5. */
static double doubled(const struct seen *s, int v, int u)
{
    double sum = 0;
    for (int a = 0; a < 12; a++)
        for (int b = 0; b < 12; b++)
            if ((v + 5 - a) % 2 == 0 && (u + 5 - b) % 2 == 0)
                sum += wavelet[a] * wavelet[b] * seen_pixel(s, (v + 5 - a) / 2, (u + 5 - b) / 2);
    return sum;
}

static double between(const struct seen *s, double v, double u)
{
    int y = (int)floor(v), x = (int)floor(u);
    double wy = v - y, wx = u - x;
    return (1 - wy) * ((1 - wx) * doubled(s, y, x) + wx * doubled(s, y, x + 1)) +
           wy * ((1 - wx) * doubled(s, y + 1, x) + wx * doubled(s, y + 1, x + 1));
}

static double mapped_pixel(const struct seen *s, const double *a, int row, int col)
{
    double sum = 0, cx = (s->w - 1) / 2.0, cy = (s->h - 1) / 2.0, mass = 0, first = 0;
    for (int i = 0; i < 12; i++) {
        mass += wavelet[i];
        first += (i - 5) * wavelet[i];
    }
    for (int i = 0; i < 12; i++)
        for (int j = 0; j < 12; j++) {
            double y = (2 * row + i - 5 - first / mass) / 2 - cy, x = (2 * col + j - 5 - first / mass) / 2 - cx;
            double sx = a[0] * x + a[1] * y + a[2] + cx, sy = a[3] * x + a[4] * y + a[5] + cy;
            sum += wavelet[i] * wavelet[j] * between(s, 2 * sy + first / mass, 2 * sx + first / mass);
        }
    return sum;
}

/* h w c whole: maps that move pixels */
static void run_augment(struct bench *b, const int *q)
{
    int h = q[0], w = q[1], c = q[2], n = h == w ? 8 : 4, per = h * w * c;
    float *x = draw(b, (size_t)n * per), *y = zeros(b, (size_t)n * per),
          *ws = zeros(b, (size_t)n * augment_floats(h, w));
    double *affine = arena_alloc(&b->arena, (size_t)n * 6 * sizeof *affine);
    uint8_t orient[8];
    for (int i = 0; i < n; i++) {
        static const double one[6] = {1, 0, 0, 0, 1, 0};
        orient[i] = (uint8_t)i;
        for (int k = 0; k < 6; k++) {
            double z = sin(1 + 7.3 * i + 1.9 * k);
            affine[6 * i + k] = one[k] + (q[3] ? k % 3 == 2 ? rint(w * z) : 0 : k % 3 == 2 ? w * z : 0.4 * z);
        }
    }
    b->k->augment(b->d, x, affine, orient, y, n, h, w, c, ws);
    for (int i = 0; i < n; i++)
        for (int e = 0; e < per && !(b->again && !q[3]); e++) {
            struct seen s = {.x = x + (size_t)i * per + e % c, .h = h, .w = w, .c = c, .orient = orient[i]};
            const double *a = affine + 6 * i;
            int row = e / c / w, col = e / c % w;
            emit1(b, y[i * per + e],
                  q[3] ? seen_pixel(&s, row + (int)a[5], col + (int)a[2]) : mapped_pixel(&s, a, row, col));
        }
    if (b->again && !q[3])
        for (int e = 0; e < n * per; e++) emit1(b, y[e], 0);
}

/* count */
static void run_squares(struct bench *b, const int *q)
{
    size_t n = (size_t)q[0];
    float *x = draw(b, n);
    double got, want = 0;
    b->k->sum_squares(b->d, x, n, &got);
    for (size_t i = 0; i < n; i++) want += (double)x[i] * x[i];
    emit1(b, got, want);
    b->k->sum_squares(b->d, x, 0, &got);
    emit1(b, got, 0);
}

static void run_clean(struct bench *b, const int *q)
{
    size_t n = (size_t)q[0];
    float *g = draw(b, n);
    double *want = doubles(b, g, n);
    uint64_t bad = 77, expect = 0;
    for (size_t i = 0; i < n; i += 3, expect++) {
        g[i] = i % 2 ? NAN : i % 4 ? INFINITY : -INFINITY;
        want[i] = i % 2 ? 0.25 : i % 4 ? 1e5 : -1e5;
    }
    b->k->grad_clean(b->d, g, n, 0.25f, 1e5f, &bad);
    emit(b, g, want, n);
    emit1(b, (double)bad, (double)expect);
    b->k->grad_clean(b->d, g, n, 0, 0, &bad);
    emit1(b, (double)bad, 0);
}

/* count adaptive */
static void run_optim(struct bench *b, const int *q)
{
    size_t n = (size_t)q[0];
    float *p = draw(b, n), *g = draw(b, n), *m = draw(b, n), *v = draw(b, n);
    struct optim_step o = {
        .beta1 = 0.9f, .beta2 = 0.99f, .eps = 1e-3f, .step_size = 0.05f, .vscale = 0.3f, .adaptive = q[1]};
    for (size_t i = 0; i < n; i++) v[i] = fabsf(v[i]) + 0.01f;
    double *p0 = doubles(b, p, n), *m0 = doubles(b, m, n), *v0 = doubles(b, v, n);
    b->k->optim_update(b->d, &o, p, g, m, v, n);
    for (size_t i = 0; i < n; i++) {
        double m1 = (double)o.beta1 * m0[i] + (1 - (double)o.beta1) * g[i],
               v1 = (double)o.beta2 * v0[i] + (1 - (double)o.beta2) * g[i] * g[i];
        emit1(b, m[i], m1);
        emit1(b, v[i], v1);
        emit1(b, p[i], p0[i] - (q[1] ? o.step_size * m1 / (sqrt(v1) / o.vscale + o.eps) : o.step_size * m1));
    }
}

/* count, 1000 * beta */
static void run_ema(struct bench *b, const int *q)
{
    size_t n = (size_t)q[0];
    float *e = draw(b, n), *p = draw(b, n);
    double *e0 = doubles(b, e, n), beta = q[1] / 1000.0;
    b->k->ema_update(b->d, e, p, beta, n);
    for (size_t i = 0; i < n; i++) emit1(b, e[i], beta * e0[i] + (1 - beta) * p[i]);
    if (q[1] == 0)
        for (size_t i = 0; i < n; i++) assert_true(e[i] == p[i]); /* the first update of a power EMA forgets exactly */
}

#define COPIES "fill copy to_f32 to_f64"
#define HEADS "qkv_split qkv_merge heads_merge heads_split"
#define ROWS "scale_rows blend_rows add_noise diff_rows sqdist_rows absdist_rows sign_rows axpby_f64"
#define CHANNELS "add_channel add_channel_bwd mean_pool sum_rows_acc add_bias"
const struct op_case point_cases[] = {
    {"normal normal_at", run_normal, {1, 1, 0}, 0},
    {"normal normal_at", run_normal, {3, 7, 1000}, 0},
    {"normal normal_at", run_normal, {5, 64, 3}, 0},
    {"normal normal_at", run_normal, {70, 203, 1}, 0},
    {"gather_u8", run_gather, {1, 1, 1, 1}, 0},
    {"gather_u8", run_gather, {7, 3, 5, 3}, 0},
    {"gather_u8", run_gather, {64, 17, 19, 1}, 0},
    {"gather_f32", run_gather_f32, {1, 1}, 0},
    {"gather_f32", run_gather_f32, {7, 2}, 0},
    {"gather_f32", run_gather_f32, {64, 33}, 0},
    {"quantize_u8", run_quantize, {1}, 0},
    {"quantize_u8", run_quantize, {5003}, 0},
    {"concat split", run_concat, {1, 1, 1}, 0},
    {"concat split", run_concat, {35, 3, 7}, 0},
    {"concat split", run_concat, {2000, 16, 17}, 0},
    {HEADS, run_heads, {1, 1, 1, 1}, 0},
    {HEADS, run_heads, {3, 5, 2, 7}, 0},
    {HEADS, run_heads, {17, 16, 3, 32}, 0},
    {COPIES, run_copies, {1}, 0},
    {COPIES, run_copies, {4097}, 0},
    {COPIES, run_copies, {50003}, 0},
    {"augment", run_augment, {7, 7, 2, 1}, 0},
    {"augment", run_augment, {1, 5, 1, 1}, 0},
    {"augment", run_augment, {3, 2, 3, 1}, 0},
    {"augment", run_augment, {6, 6, 1, 0}, 1e-5},
    {"augment", run_augment, {3, 5, 2, 0}, 1e-5},
    {"augment", run_augment, {1, 4, 1, 0}, 1e-5},
    {"augment", run_augment, {2, 2, 1, 0}, 1e-5},
    {"sum_squares", run_squares, {1}, 1e-13},
    {"sum_squares", run_squares, {1021}, 1e-13},
    {"sum_squares", run_squares, {50003}, 1e-13},
    {"grad_clean", run_clean, {1}, 0},
    {"grad_clean", run_clean, {37}, 0},
    {"grad_clean", run_clean, {50003}, 0},
    {ROWS, run_rows, {1, 1}, 5e-7},
    {ROWS, run_rows, {7, 13}, 5e-7},
    {ROWS, run_rows, {65, 515}, 5e-7},
    {CHANNELS, run_channels, {1, 1, 1}, 1e-6},
    {CHANNELS, run_channels, {3, 7, 5}, 1e-6},
    {CHANNELS, run_channels, {5, 9, 33}, 1e-6},
    {CHANNELS, run_channels, {33, 64, 32}, 2e-6},
    {"add_scaled scale_to", run_scaled, {1}, 1e-6},
    {"add_scaled scale_to", run_scaled, {37}, 1e-6},
    {"add_scaled scale_to", run_scaled, {33001}, 1e-6},
    {"resample_down resample_up", run_resample, {1, 2, 2, 1, 2, 0}, 1e-6},
    {"resample_down resample_up", run_resample, {2, 4, 6, 3, 4, 1}, 1e-6},
    {"resample_down resample_up", run_resample, {3, 6, 4, 5, 3, 1}, 1e-6},
    {"resample_down resample_up", run_resample, {1, 4, 4, 17, 2, 0}, 1e-6},
    {"resample_down resample_up", run_resample, {2, 6, 4, 5, 4, 0}, 1e-6}, /* inside the image */
    {"resample_down resample_up", run_resample, {1, 5, 4, 3, 3, 0}, 1e-6},
    {"resample_down resample_up", run_resample, {2, 4, 5, 2, 4, 2}, 1e-6},
    {"embed_positional", run_embed, {1, 4, 0, 0}, 5e-7},
    {"embed_positional", run_embed, {5, 16, 1, 0}, 5e-7},
    {"embed_positional", run_embed, {33, 32, 1, 1}, 5e-7},
    {"embed_fourier", run_fourier, {1, 2, 0}, 5e-7},
    {"embed_fourier", run_fourier, {7, 18, 0}, 5e-7},
    {"embed_fourier", run_fourier, {33, 32, 1}, 5e-7},
    {"precond_coeffs", run_precond, {1, 0}, 5e-7},
    {"precond_coeffs", run_precond, {37, 3}, 5e-7},
    {"optim_update", run_optim, {1, 1}, 1e-6},
    {"optim_update", run_optim, {5001, 1}, 1e-6},
    {"optim_update", run_optim, {30011, 0}, 1e-6},
    {"ema_update", run_ema, {1, 999}, 5e-7},
    {"ema_update", run_ema, {5001, 0}, 5e-7},
    {"ema_update", run_ema, {30011, 300}, 5e-7},
    {"ema_update", run_ema, {33, 999}, 5e-7},
    {NULL, NULL, {0}, 0},
};

#endif
