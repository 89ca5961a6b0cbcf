/* pointwise: everything that touches each element once. Flat arrays are cut into chunks of a fixed size; rows go to threads
 * whole. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/xd.h"

void cpu_fill(struct kdev *d, float *x, float v, size_t count)
{
    (void)d;
    for (size_t i = 0; i < count; i++) x[i] = v;
}

void cpu_copy(struct kdev *d, float *dst, const float *src, size_t count)
{
    (void)d;
    if (count) memcpy(dst, src, count * sizeof *dst);
}

void cpu_gather_u8(struct kdev *d, const uint8_t *data, const int32_t *idx, const uint8_t *flip, int n, int h, int w,
                   int c, float *out)
{
    (void)d;
    size_t per = (size_t)h * w * c;
#pragma omp parallel for schedule(static) if (n * per > 16384)
    for (int i = 0; i < n; i++) {
        const uint8_t *src = data + (size_t)idx[i] * per;
        float *dst = out + i * per;
        bool mirror = flip && flip[i];
        for (int y = 0; y < h; y++)
            for (int x = 0; x < w; x++) {
                const uint8_t *s = src + ((size_t)y * w + (mirror ? w - 1 - x : x)) * c;
                for (int k = 0; k < c; k++) dst[((size_t)y * w + x) * c + k] = xd_from_u8(s[k]);
            }
    }
}

void cpu_gather_f32(struct kdev *d, const float *data, const int32_t *idx, int n, int per, float *out)
{
    (void)d;
    for (int i = 0; i < n; i++)
        memcpy(out + (size_t)i * (size_t)per, data + (size_t)idx[i] * (size_t)per, (size_t)per * sizeof *out);
}

FLAT(quantize, (const double *restrict x, uint8_t *restrict out, size_t lo, size_t hi), (x, out, lo, hi),
     out[i] = xd_to_u8(x[i]))
void cpu_quantize_u8(struct kdev *d, const double *x, uint8_t *out, size_t count)
{
    (void)d;
    CHUNKS(count, quantize(x, out, lo, hi));
}

void cpu_concat(struct kdev *d, const float *a, const float *b, float *y, size_t rows, int ca, int cb)
{
    (void)d;
#pragma omp parallel for schedule(static) if (rows * (size_t)(ca + cb) > 32768)
    for (size_t i = 0; i < rows; i++) {
        memcpy(y + i * (size_t)(ca + cb), a + i * (size_t)ca, (size_t)ca * sizeof *y);
        memcpy(y + i * (size_t)(ca + cb) + ca, b + i * (size_t)cb, (size_t)cb * sizeof *y);
    }
}

static void part_row(const float *restrict dy, float *restrict dx, int c, bool acc)
{
    if (acc)
        for (int k = 0; k < c; k++) dx[k] += dy[k];
    else memcpy(dx, dy, (size_t)c * sizeof *dx);
}

void cpu_split(struct kdev *d, const float *dy, float *da, float *db, size_t rows, int ca, int cb, bool acc_a,
               bool acc_b)
{
    (void)d;
#pragma omp parallel for schedule(static) if (rows * (size_t)(ca + cb) > 32768)
    for (size_t i = 0; i < rows; i++) {
        const float *row = dy + i * (size_t)(ca + cb);
        if (da) part_row(row, da + i * (size_t)ca, ca, acc_a);
        if (db) part_row(row + ca, db + i * (size_t)cb, cb, acc_b);
    }
}

FLAT(silu_f, (const float *x, float *y, size_t lo, size_t hi), (x, y, lo, hi), y[i] = xd_silu(x[i]))
void cpu_silu_fwd(struct kdev *d, const float *x, float *y, size_t count)
{
    (void)d;
    CHUNKS(count, silu_f(x, y, lo, hi));
}

FLAT(silu_b, (const float *x, const float *dy, float *dx, size_t lo, size_t hi), (x, dy, dx, lo, hi),
     dx[i] = dy[i] * xd_silu_slope(x[i]))
FLAT(silu_b_acc, (const float *x, const float *dy, float *dx, size_t lo, size_t hi), (x, dy, dx, lo, hi),
     dx[i] += dy[i] * xd_silu_slope(x[i]))
void cpu_silu_bwd(struct kdev *d, const float *x, const float *dy, float *dx, size_t count, bool acc)
{
    (void)d;
    if (acc) CHUNKS(count, silu_b_acc(x, dy, dx, lo, hi));
    else CHUNKS(count, silu_b(x, dy, dx, lo, hi));
}

/* NaN passes through: the comparison is written so */
FLAT(relu, (const float *x, float *y, size_t lo, size_t hi), (x, y, lo, hi), y[i] = x[i] < 0 ? 0 : x[i])
void cpu_relu_fwd(struct kdev *d, const float *x, float *y, size_t count)
{
    (void)d;
    CHUNKS(count, relu(x, y, lo, hi));
}

FLAT(relu_b, (const float *y, const float *dy, float *dx, size_t lo, size_t hi), (y, dy, dx, lo, hi),
     dx[i] = y[i] > 0 ? dy[i] : 0)
FLAT(relu_b_acc, (const float *y, const float *dy, float *dx, size_t lo, size_t hi), (y, dy, dx, lo, hi),
     dx[i] += y[i] > 0 ? dy[i] : 0)
void cpu_relu_bwd(struct kdev *d, const float *y, const float *dy, float *dx, size_t count, bool acc)
{
    (void)d;
    if (acc) CHUNKS(count, relu_b_acc(y, dy, dx, lo, hi));
    else CHUNKS(count, relu_b(y, dy, dx, lo, hi));
}

FLAT(gelu, (const float *x, float *y, size_t lo, size_t hi), (x, y, lo, hi), y[i] = xd_gelu(x[i]))
void cpu_gelu_fwd(struct kdev *d, const float *x, float *y, size_t count)
{
    (void)d;
    CHUNKS(count, gelu(x, y, lo, hi));
}

INLINE void swiglu_body(const float *restrict x, float *restrict y, int c)
{
    for (int k = 0; k < c; k++) y[k] = xd_silu(x[k]) * x[c + k];
}
ISA_CLONES(swiglu, (const float *x, float *y, int c), (x, y, c))
void cpu_swiglu_fwd(struct kdev *d, const float *x, float *y, size_t rows, int c)
{
    (void)d;
#pragma omp parallel for schedule(static) if (rows * (size_t)c > 16384)
    for (size_t i = 0; i < rows; i++) swiglu(x + i * 2 * (size_t)c, y + i * (size_t)c, c);
}

FLAT(add_two, (const float *a, const float *b, float scale, float *y, size_t lo, size_t hi), (a, b, scale, y, lo, hi),
     y[i] = scale * (a[i] + b[i]))
FLAT(scale_one, (const float *a, float scale, float *y, size_t lo, size_t hi), (a, scale, y, lo, hi),
     y[i] = scale * a[i])
FLAT(scale_acc, (const float *a, float scale, float *y, size_t lo, size_t hi), (a, scale, y, lo, hi),
     y[i] += scale * a[i])
void cpu_add_scaled(struct kdev *d, const float *a, const float *b, float scale, float *y, size_t count)
{
    (void)d;
    if (b) CHUNKS(count, add_two(a, b, scale, y, lo, hi));
    else CHUNKS(count, scale_one(a, scale, y, lo, hi));
}

void cpu_scale_to(struct kdev *d, const float *dy, float scale, float *dx, size_t count, bool acc)
{
    (void)d;
    if (acc) CHUNKS(count, scale_acc(dy, scale, dx, lo, hi));
    else CHUNKS(count, scale_one(dy, scale, dx, lo, hi));
}

INLINE void add_row_body(const float *x, const float *e, float *y, size_t rows, int c)
{
    for (size_t p = 0; p < rows; p++)
        for (int k = 0; k < c; k++) y[p * (size_t)c + k] = x[p * (size_t)c + k] + e[k];
}
ISA_CLONES(add_row, (const float *x, const float *e, float *y, size_t rows, int c), (x, e, y, rows, c))

void cpu_add_channel(struct kdev *d, const float *x, const float *e, float *y, int n, int hw, int c)
{
    (void)d;
    size_t per = (size_t)hw * c;
#pragma omp parallel for schedule(static) if (n * per > 32768)
    for (int i = 0; i < n; i++) add_row(x + i * per, e + (size_t)i * c, y + i * per, (size_t)hw, c);
}

INLINE void sum_row_body(const float *restrict dy, float *restrict de, size_t rows, int c, float scale, bool acc)
{
    /* a block of channels at a time stays in registers */
    for (int k0 = 0; k0 < c; k0 += 32) {
        int left = c - k0 < 32 ? c - k0 : 32;
        float sum[32] = {0};
        if (left == 32)
            for (size_t p = 0; p < rows; p++)
                for (int k = 0; k < 32; k++) sum[k] += dy[p * (size_t)c + k0 + k];
        else
            for (size_t p = 0; p < rows; p++)
                for (int k = 0; k < left; k++) sum[k] += dy[p * (size_t)c + k0 + k];
        for (int k = 0; k < left; k++) de[k0 + k] = acc ? de[k0 + k] + scale * sum[k] : scale * sum[k];
    }
}
ISA_CLONES(sum_row, (const float *dy, float *de, size_t rows, int c, float scale, bool acc),
           (dy, de, rows, c, scale, acc))

void cpu_add_channel_bwd(struct kdev *d, const float *dy, float *de, int n, int hw, int c, bool acc)
{
    (void)d;
    size_t per = (size_t)hw * c;
#pragma omp parallel for schedule(static) if (n * per > 32768)
    for (int i = 0; i < n; i++) sum_row(dy + i * per, de + (size_t)i * c, (size_t)hw, c, 1.0f, acc);
}

void cpu_mean_pool(struct kdev *d, const float *x, float *y, int n, int hw, int c)
{
    (void)d;
    size_t per = (size_t)hw * c;
#pragma omp parallel for schedule(static) if (n * per > 32768)
    for (int i = 0; i < n; i++) sum_row(x + i * per, y + (size_t)i * c, (size_t)hw, c, 1.0f / (float)hw, false);
}

void cpu_add_bias(struct kdev *d, const float *x, const float *bias, float *y, size_t rows, int c)
{
    (void)d;
    add_row(x, bias, y, rows, c);
}

void cpu_sum_rows_acc(struct kdev *d, const float *dy, float *db, size_t rows, int c)
{
    (void)d;
    sum_row(dy, db, rows, c, 1.0f, true);
}

/* eight interleaved maxima and sums; a NaN is not the maximum but comes through the exponential */
INLINE void softmax_rows_body(const float *x, float *y, size_t rows, int c)
{
    for (size_t i = 0; i < rows; i++) {
        const float *row = x + i * (size_t)c;
        float *out = y + i * (size_t)c, top = row[0], sum = 0;
        int k = 0, even = c / 8 * 8;
        if (even) {
            float most[8];
            memcpy(most, row, sizeof most);
            for (k = 8; k < even; k += 8)
                for (int l = 0; l < 8; l++) most[l] = row[k + l] > most[l] ? row[k + l] : most[l];
            for (int l = 0; l < 8; l++) top = most[l] > top ? most[l] : top;
        }
        for (; k < c; k++) top = row[k] > top ? row[k] : top;
        for (k = 0; k < c; k++) out[k] = xd_exp(row[k] - top);
        V8 part = {0};
        for (k = 0; k < even; k += 8) part += V8_AT(out + k);
        for (; k < c; k++) sum += out[k];
        float inv = 1.0f / (sum + SUM8(part));
        for (k = 0; k < c; k++) out[k] *= inv;
    }
}
ISA_CLONES(softmax_rows, (const float *x, float *y, size_t rows, int c), (x, y, rows, c))

void cpu_softmax_fwd(struct kdev *d, const float *x, float *y, size_t rows, int c)
{
    (void)d;
#pragma omp parallel for schedule(static) if (rows * (size_t)c > 8192)
    for (size_t i = 0; i < rows; i += 16)
        softmax_rows(x + i * (size_t)c, y + i * (size_t)c, rows - i < 16 ? rows - i : 16, c);
}

INLINE void softmax_grad_body(const float *y, const float *dy, float *dx, size_t rows, int c)
{
    for (size_t i = 0; i < rows; i++) {
        const float *a = y + i * (size_t)c, *g = dy + i * (size_t)c;
        float *out = dx + i * (size_t)c, sum = 0;
        V8 part = {0};
        int k = 0;
        for (; k + 8 <= c; k += 8) part += V8_AT(a + k) * V8_AT(g + k);
        for (; k < c; k++) sum += a[k] * g[k];
        sum += SUM8(part);
        for (k = 0; k < c; k++) out[k] = a[k] * (g[k] - sum);
    }
}
ISA_CLONES(softmax_grad, (const float *y, const float *dy, float *dx, size_t rows, int c), (y, dy, dx, rows, c))

void cpu_softmax_bwd(struct kdev *d, const float *y, const float *dy, float *dx, size_t rows, int c)
{
    (void)d;
#pragma omp parallel for schedule(static) if (rows * (size_t)c > 8192)
    for (size_t i = 0; i < rows; i += 16)
        softmax_grad(y + i * (size_t)c, dy + i * (size_t)c, dx + i * (size_t)c, rows - i < 16 ? rows - i : 16, c);
}

void cpu_scale_rows(struct kdev *d, const float *x, const float *a, float *y, int n, int per, bool acc)
{
    (void)d;
#pragma omp parallel for schedule(static) if ((size_t)n * per > 32768)
    for (int i = 0; i < n; i++) {
        size_t lo = (size_t)i * per, hi = lo + (size_t)per;
        if (acc) scale_acc(x, a[i], y, lo, hi);
        else scale_one(x, a[i], y, lo, hi);
    }
}

FLAT(blend, (const float *x, float a, const float *z, float b, float *y, size_t lo, size_t hi), (x, a, z, b, y, lo, hi),
     y[i] = a * x[i] + b * z[i])
void cpu_blend_rows(struct kdev *d, const float *x, const float *a, const float *z, const float *b, float *y, int n,
                    int per)
{
    (void)d;
#pragma omp parallel for schedule(static) if ((size_t)n * per > 32768)
    for (int i = 0; i < n; i++) blend(x, a[i], z, b[i], y, (size_t)i * per, (size_t)(i + 1) * per);
}

FLAT(noisy, (const float *x, const float *eps, float t, float *y, size_t lo, size_t hi), (x, eps, t, y, lo, hi),
     y[i] = x[i] + t * eps[i])
void cpu_add_noise(struct kdev *d, const float *x, const float *eps, const float *t, float *y, int n, int per)
{
    (void)d;
#pragma omp parallel for schedule(static) if ((size_t)n * per > 32768)
    for (int i = 0; i < n; i++) noisy(x, eps, t[i], y, (size_t)i * per, (size_t)(i + 1) * per);
}

/* eight interleaved sums, added as a tree: a fixed order that a vector register can follow */
INLINE void sqdist_body(const float *a, const float *b, double *out, size_t per)
{
    double s[8] = {0};
    size_t e = 0;
    for (; e + 8 <= per; e += 8)
        for (int l = 0; l < 8; l++) {
            double v = (double)a[e + l] - b[e + l];
            s[l] += v * v;
        }
    for (int l = 0; e < per; e++, l++) {
        double v = (double)a[e] - b[e];
        s[l] += v * v;
    }
    *out = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}
ISA_CLONES(sqdist, (const float *a, const float *b, double *out, size_t per), (a, b, out, per))

void cpu_sqdist_rows(struct kdev *d, const float *a, const float *b, double *sums, int n, int per)
{
    (void)d;
#pragma omp parallel for schedule(static) if ((size_t)n * per > 32768)
    for (int i = 0; i < n; i++) sqdist(a + (size_t)i * per, b + (size_t)i * per, sums + i, (size_t)per);
}

FLAT(diff, (const float *a, const float *b, float g, float *da, size_t lo, size_t hi), (a, b, g, da, lo, hi),
     da[i] = g * (a[i] - b[i]))
void cpu_diff_rows(struct kdev *d, const float *a, const float *b, const float *g, float *da, int n, int per)
{
    (void)d;
#pragma omp parallel for schedule(static) if ((size_t)n * per > 32768)
    for (int i = 0; i < n; i++) diff(a, b, g[i], da, (size_t)i * per, (size_t)(i + 1) * per);
}

INLINE void squares_body(const float *x, double *out, size_t n)
{
    double s[8] = {0};
    size_t e = 0;
    for (; e + 8 <= n; e += 8)
        for (int l = 0; l < 8; l++) s[l] += (double)x[e + l] * x[e + l];
    for (int l = 0; e < n; e++, l++) s[l] += (double)x[e] * x[e];
    *out = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}
ISA_CLONES(squares, (const float *x, double *out, size_t n), (x, out, n))

void cpu_sum_squares(struct kdev *d, const float *x, size_t count, double *sum)
{
    (void)d;
    enum { PARTS = 256 }; /* whatever the threads */
    double part[PARTS];
    size_t each = (count + PARTS - 1) / PARTS;
#pragma omp parallel for schedule(static) if (count > 32768)
    for (size_t j = 0; j < PARTS; j++) {
        size_t lo = j * each < count ? j * each : count, hi = (j + 1) * each < count ? (j + 1) * each : count;
        squares(x + lo, &part[j], hi - lo);
    }
    *sum = 0;
    for (int j = 0; j < PARTS; j++) *sum += part[j];
}

INLINE void absdist_body(const float *a, const float *b, double *out, size_t per)
{
    double s[8] = {0};
    size_t e = 0;
    for (; e + 8 <= per; e += 8)
        for (int l = 0; l < 8; l++) s[l] += fabs((double)a[e + l] - b[e + l]);
    for (int l = 0; e < per; e++, l++) s[l] += fabs((double)a[e] - b[e]);
    *out = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}
ISA_CLONES(absdist, (const float *a, const float *b, double *out, size_t per), (a, b, out, per))

void cpu_absdist_rows(struct kdev *d, const float *a, const float *b, double *sums, int n, int per)
{
    (void)d;
#pragma omp parallel for schedule(static) if ((size_t)n * per > 32768)
    for (int i = 0; i < n; i++) absdist(a + (size_t)i * per, b + (size_t)i * per, sums + i, (size_t)per);
}

/* written so that a NaN stays one */
FLAT(sign, (const float *a, const float *b, float g, float *da, size_t lo, size_t hi), (a, b, g, da, lo, hi),
     da[i] = a[i] > b[i]   ? g
             : a[i] < b[i] ? -g
                           : g * (a[i] - b[i]))
void cpu_sign_rows(struct kdev *d, const float *a, const float *b, const float *g, float *da, int n, int per)
{
    (void)d;
#pragma omp parallel for schedule(static) if ((size_t)n * per > 32768)
    for (int i = 0; i < n; i++) sign(a, b, g[i], da, (size_t)i * per, (size_t)(i + 1) * per);
}

INLINE void clean_body(float *g, float nan_to, float inf_to, uint64_t *bad, size_t lo, size_t hi)
{
    uint32_t count = 0;
    for (size_t i = lo; i < hi; i++) {
        uint32_t bits = X_BITS(g[i]), mag = bits & 0x7fffffffu;
        bool nan = mag > 0x7f800000u, off = mag >= 0x7f800000u;
        float inf = bits >> 31 ? -inf_to : inf_to;
        g[i] = nan ? nan_to : off ? inf : g[i];
        count += off;
    }
    *bad = count;
}
ISA_CLONES(clean, (float *g, float nan_to, float inf_to, uint64_t *bad, size_t lo, size_t hi),
           (g, nan_to, inf_to, bad, lo, hi))

void cpu_grad_clean(struct kdev *d, float *g, size_t count, float nan_to, float inf_to, uint64_t *bad)
{
    (void)d;
    uint64_t total = 0;
    size_t chunks = (count + CHUNK - 1) / CHUNK;
#pragma omp parallel for schedule(static) reduction(+ : total) if (chunks > 4)
    for (size_t j = 0; j < chunks; j++) {
        uint64_t some;
        clean(g, nan_to, inf_to, &some, j * CHUNK, (j + 1) * CHUNK < count ? (j + 1) * CHUNK : count);
        total += some;
    }
    *bad = total;
}

INLINE void optim_body(const struct optim_step *o, float *restrict p, const float *restrict g, float *restrict m,
                       float *restrict v, size_t lo, size_t hi)
{
    float b2 = (float)o->beta2, c1 = (float)(1 - o->beta1), c2 = (float)(1 - o->beta2);
    float eps = o->eps, step = o->step_size;
    float inv = 1.0f / o->vscale;
    if (o->adaptive)
        for (size_t i = lo; i < hi; i++) {
            m[i] = m[i] + (g[i] - m[i]) * c1;
            v[i] = b2 * v[i] + c2 * g[i] * g[i];
            p[i] -= step * m[i] / (X_SQRT(v[i]) * inv + eps);
        }
    else
        for (size_t i = lo; i < hi; i++) {
            m[i] = m[i] + (g[i] - m[i]) * c1;
            v[i] = b2 * v[i] + c2 * g[i] * g[i];
            p[i] -= step * m[i];
        }
}
ISA_CLONES(optim, (const struct optim_step *o, float *p, const float *g, float *m, float *v, size_t lo, size_t hi),
           (o, p, g, m, v, lo, hi))

void cpu_optim_update(struct kdev *d, const struct optim_step *o, float *p, const float *g, float *m, float *v,
                      size_t count)
{
    (void)d;
    CHUNKS(count, optim(o, p, g, m, v, lo, hi));
}

/* torch.lerp(p, e, beta): from the nearer end, so beta = 0 gives p exactly */
FLAT(ema_far, (float *restrict e, const float *restrict p, float one_beta, size_t lo, size_t hi),
     (e, p, one_beta, lo, hi), e[i] = e[i] - (e[i] - p[i]) * one_beta)
FLAT(ema_near, (float *restrict e, const float *restrict p, float beta, size_t lo, size_t hi), (e, p, beta, lo, hi),
     e[i] = p[i] + beta * (e[i] - p[i]))
void cpu_ema_update(struct kdev *d, float *e, const float *p, double beta, size_t count)
{
    (void)d;
    if (beta < 0.5) CHUNKS(count, ema_near(e, p, (float)beta, lo, hi));
    else CHUNKS(count, ema_far(e, p, (float)(1.0 - beta), lo, hi));
}

FLAT(narrow, (const double *x, float *y, size_t lo, size_t hi), (x, y, lo, hi), y[i] = (float)x[i])
void cpu_to_f32(struct kdev *d, const double *x, float *y, size_t count)
{
    (void)d;
    CHUNKS(count, narrow(x, y, lo, hi));
}

FLAT(widen, (const float *x, double *y, size_t lo, size_t hi), (x, y, lo, hi), y[i] = x[i])
void cpu_to_f64(struct kdev *d, const float *x, double *y, size_t count)
{
    (void)d;
    CHUNKS(count, widen(x, y, lo, hi));
}

FLAT(axpby, (const double *x, double a, const double *z, double b, double *y, size_t lo, size_t hi),
     (x, a, z, b, y, lo, hi), y[i] = a * x[i] + b * z[i])
FLAT(scale64, (const double *x, double a, double *y, size_t lo, size_t hi), (x, a, y, lo, hi), y[i] = a * x[i])
void cpu_axpby_f64(struct kdev *d, const double *x, double a, const double *z, double b, double *y, size_t count)
{
    (void)d;
    if (z) CHUNKS(count, axpby(x, a, z, b, y, lo, hi));
    else CHUNKS(count, scale64(x, a, y, lo, hi));
}
