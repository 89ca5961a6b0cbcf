/* mp: the magnitude-preserving layers of EDM2 (Karras et al. 2024). A norm is an RMS, never a sum, so that one epsilon fits all sizes; its
 * sum is taken in double by eight interleaved parts, an order that every vector width follows. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/xd.h"

static const double rms_eps = 1e-4;

/* ---- rows over their RMS ------------------------------------------------------------------------------------------------- */

INLINE double dot_row(const float *a, const float *b, int c)
{
    double s[8] = {0};
    int k = 0;
    for (; k + 8 <= c; k += 8)
        for (int l = 0; l < 8; l++) s[l] += (double)a[k + l] * b[k + l];
    for (int l = 0; k < c; k++, l++) s[l] += (double)a[k] * b[k];
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

INLINE void rms_rows_body(const float *x, double scale, float *y, size_t rows, int c)
{
    for (size_t i = 0; i < rows; i++) {
        const float *row = x + i * (size_t)c;
        float *out = y + i * (size_t)c, f = (float)(scale / (rms_eps + sqrt(dot_row(row, row, c) / c)));
        for (int k = 0; k < c; k++) out[k] = f * row[k];
    }
}
ISA_CLONES(rms_rows, (const float *x, double scale, float *y, size_t rows, int c), (x, scale, y, rows, c))

enum { ROWS = 16 }; /* handled by one task */
static size_t rows_at(size_t i, size_t rows)
{
    return rows - i < ROWS ? rows - i : ROWS;
}

static double factor_of(const float *gain, float scale)
{
    return gain ? (double)scale * *gain : scale;
}

void cpu_rms_norm_fwd(struct kdev *d, const float *x, const float *gain, float scale, float *y, size_t rows, int c)
{
    (void)d;
    double s = factor_of(gain, scale);
#pragma omp parallel for schedule(static) if (rows * (size_t)c > 32768)
    for (size_t i = 0; i < rows; i += ROWS) rms_rows(x + i * (size_t)c, s, y + i * (size_t)c, rows_at(i, rows), c);
}

/* n = eps + m, m = sqrt(x.x / c): dx = s (dy / n - x (dy.x) / (n^2 m c)); left[i] = dy.x / n, what the gain sees */
INLINE void rms_back_body(const float *x, double scale, const float *dy, float *dx, bool acc, double *left, size_t rows,
                          int c)
{
    for (size_t i = 0; i < rows; i++) {
        const float *row = x + i * (size_t)c, *g = dy + i * (size_t)c;
        double m = sqrt(dot_row(row, row, c) / c), n = rms_eps + m, dot = dot_row(g, row, c);
        if (left) left[i] = dot / n;
        if (!dx) continue;
        float a = (float)(scale / n), b = m > 0 ? (float)(scale * dot / (n * n * m * c)) : 0;
        float *out = dx + i * (size_t)c;
        if (acc)
            for (int k = 0; k < c; k++) out[k] += a * g[k] - b * row[k];
        else
            for (int k = 0; k < c; k++) out[k] = a * g[k] - b * row[k];
    }
}
ISA_CLONES(rms_back,
           (const float *x, double scale, const float *dy, float *dx, bool acc, double *left, size_t rows, int c),
           (x, scale, dy, dx, acc, left, rows, c))

void cpu_rms_norm_bwd(struct kdev *d, const float *x, const float *gain, float scale, const float *dy, float *dx,
                      bool acc_dx, float *dgain, double *ws, size_t rows, int c)
{
    (void)d;
    double s = factor_of(gain, scale), sum = 0;
#pragma omp parallel for schedule(static) if (rows * (size_t)c > 32768)
    for (size_t i = 0; i < rows; i += ROWS)
        rms_back(x + i * (size_t)c, s, dy + i * (size_t)c, dx ? dx + i * (size_t)c : NULL, acc_dx,
                 dgain ? ws + i : NULL, rows_at(i, rows), c);
    if (!dgain) return;
    for (size_t i = 0; i < rows; i++) sum += ws[i];
    *dgain += (float)((double)scale * sum);
}

/* ---- element by element --------------------------------------------------------------------------------------------------- */

FLAT(mp_silu, (const float *x, float s, float *y, size_t lo, size_t hi), (x, s, y, lo, hi), y[i] = s * xd_silu(x[i]))
void cpu_silu_scaled_fwd(struct kdev *d, const float *x, float scale, float *y, size_t count)
{
    (void)d;
    CHUNKS(count, mp_silu(x, scale, y, lo, hi));
}

FLAT(mp_silu_b, (const float *x, float s, const float *dy, float *dx, size_t lo, size_t hi), (x, s, dy, dx, lo, hi),
     dx[i] = s * dy[i] * xd_silu_slope(x[i]))
FLAT(mp_silu_b_acc, (const float *x, float s, const float *dy, float *dx, size_t lo, size_t hi), (x, s, dy, dx, lo, hi),
     dx[i] += s * dy[i] * xd_silu_slope(x[i]))
void cpu_silu_scaled_bwd(struct kdev *d, const float *x, float scale, const float *dy, float *dx, size_t count,
                         bool acc)
{
    (void)d;
    if (acc) CHUNKS(count, mp_silu_b_acc(x, scale, dy, dx, lo, hi));
    else CHUNKS(count, mp_silu_b(x, scale, dy, dx, lo, hi));
}

FLAT(mp_blend, (const float *a, float wa, const float *b, float wb, float *y, size_t lo, size_t hi),
     (a, wa, b, wb, y, lo, hi), y[i] = wa * a[i] + wb * b[i])
void cpu_blend(struct kdev *d, const float *a, float wa, const float *b, float wb, float *y, size_t count)
{
    (void)d;
    CHUNKS(count, mp_blend(a, wa, b, wb, y, lo, hi));
}

/* NaN fails both comparisons and passes through */
FLAT(mp_clip, (const float *x, float limit, float *y, size_t lo, size_t hi), (x, limit, y, lo, hi),
     y[i] = x[i] > limit    ? limit
            : x[i] < -limit ? -limit
                            : x[i])
void cpu_clip_fwd(struct kdev *d, const float *x, float limit, float *y, size_t count)
{
    (void)d;
    CHUNKS(count, mp_clip(x, limit, y, lo, hi));
}

FLAT(mp_clip_b, (const float *x, float limit, const float *dy, float *dx, size_t lo, size_t hi),
     (x, limit, dy, dx, lo, hi), dx[i] = x[i] <= limit && x[i] >= -limit ? dy[i] : 0)
FLAT(mp_clip_b_acc, (const float *x, float limit, const float *dy, float *dx, size_t lo, size_t hi),
     (x, limit, dy, dx, lo, hi), dx[i] += x[i] <= limit && x[i] >= -limit ? dy[i] : 0)
void cpu_clip_bwd(struct kdev *d, const float *x, float limit, const float *dy, float *dx, size_t count, bool acc)
{
    (void)d;
    if (acc) CHUNKS(count, mp_clip_b_acc(x, limit, dy, dx, lo, hi));
    else CHUNKS(count, mp_clip_b(x, limit, dy, dx, lo, hi));
}

void cpu_embed_mp_fourier(struct kdev *d, const float *t, const float *freqs, const float *phases, float *y, int n,
                          int c)
{
    (void)d;
    const double root2 = 1.41421356237309504880;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < c; k++) {
            double angle = (double)freqs[k] * t[i] + phases[k];
            y[(size_t)i * (size_t)c + (size_t)k] = (float)(root2 * cos(angle));
        }
}

/* ---- along channels --------------------------------------------------------------------------------------------------------- */

INLINE void scale_row(const float *x, float s, float *y, int c, bool acc)
{
    if (acc)
        for (int k = 0; k < c; k++) y[k] += s * x[k];
    else
        for (int k = 0; k < c; k++) y[k] = s * x[k];
}

INLINE void cat_rows_body(const float *a, float wa, const float *b, float wb, float *y, size_t rows, int ca, int cb)
{
    for (size_t i = 0; i < rows; i++) {
        float *out = y + i * (size_t)(ca + cb);
        scale_row(a + i * (size_t)ca, wa, out, ca, false);
        scale_row(b + i * (size_t)cb, wb, out + ca, cb, false);
    }
}
ISA_CLONES(cat_rows, (const float *a, float wa, const float *b, float wb, float *y, size_t rows, int ca, int cb),
           (a, wa, b, wb, y, rows, ca, cb))

void cpu_concat_scaled(struct kdev *d, const float *a, float wa, const float *b, float wb, float *y, size_t rows,
                       int ca, int cb)
{
    (void)d;
#pragma omp parallel for schedule(static) if (rows * (size_t)(ca + cb) > 32768)
    for (size_t i = 0; i < rows; i += ROWS)
        cat_rows(a + i * (size_t)ca, wa, b + i * (size_t)cb, wb, y + i * (size_t)(ca + cb), rows_at(i, rows), ca, cb);
}

/* columns `at` and on of rows of `stride` values */
INLINE void uncat_rows_body(const float *dy, int at, int stride, float w, float *dx, size_t rows, int c, bool acc)
{
    for (size_t i = 0; i < rows; i++) scale_row(dy + i * (size_t)stride + at, w, dx + i * (size_t)c, c, acc);
}
ISA_CLONES(uncat_rows, (const float *dy, int at, int stride, float w, float *dx, size_t rows, int c, bool acc),
           (dy, at, stride, w, dx, rows, c, acc))

void cpu_split_scaled(struct kdev *d, const float *dy, float *da, float wa, float *db, float wb, size_t rows, int ca,
                      int cb, bool acc_a, bool acc_b)
{
    (void)d;
    int c = ca + cb;
#pragma omp parallel for schedule(static) if (rows * (size_t)c > 32768)
    for (size_t i = 0; i < rows; i += ROWS) {
        size_t n = rows_at(i, rows);
        if (da) uncat_rows(dy + i * (size_t)c, 0, c, wa, da + i * (size_t)ca, n, ca, acc_a);
        if (db) uncat_rows(dy + i * (size_t)c, ca, c, wb, db + i * (size_t)cb, n, cb, acc_b);
    }
}

INLINE void gate_rows_body(const float *x, const float *e, float *y, size_t rows, int c, bool acc)
{
    for (size_t p = 0; p < rows; p++) {
        const float *row = x + p * (size_t)c;
        float *out = y + p * (size_t)c;
        if (acc)
            for (int k = 0; k < c; k++) out[k] += row[k] * (e[k] + 1);
        else
            for (int k = 0; k < c; k++) out[k] = row[k] * (e[k] + 1);
    }
}
ISA_CLONES(gate_rows, (const float *x, const float *e, float *y, size_t rows, int c, bool acc), (x, e, y, rows, c, acc))

void cpu_gate_channel(struct kdev *d, const float *x, const float *e, float *y, int n, int hw, int c, bool acc)
{
    (void)d;
    size_t per = (size_t)hw * (size_t)c;
#pragma omp parallel for schedule(static) if ((size_t)n * per > 32768)
    for (int i = 0; i < n; i++)
        gate_rows(x + (size_t)i * per, e + (size_t)i * (size_t)c, y + (size_t)i * per, (size_t)hw, c, acc);
}

/* a block of channels at a time stays in registers */
INLINE void gate_sums_body(const float *x, const float *dy, float *de, size_t rows, int c, bool acc)
{
    for (int k0 = 0; k0 < c; k0 += 32) {
        int left = c - k0 < 32 ? c - k0 : 32;
        float sum[32] = {0};
        for (size_t p = 0; p < rows; p++) {
            const float *a = x + p * (size_t)c + k0, *b = dy + p * (size_t)c + k0;
            if (left == 32)
                for (int k = 0; k < 32; k++) sum[k] += a[k] * b[k];
            else
                for (int k = 0; k < left; k++) sum[k] += a[k] * b[k];
        }
        for (int k = 0; k < left; k++) de[k0 + k] = acc ? de[k0 + k] + sum[k] : sum[k];
    }
}
ISA_CLONES(gate_sums, (const float *x, const float *dy, float *de, size_t rows, int c, bool acc),
           (x, dy, de, rows, c, acc))

void cpu_gate_channel_bwd(struct kdev *d, const float *x, const float *dy, float *de, int n, int hw, int c, bool acc)
{
    (void)d;
    size_t per = (size_t)hw * (size_t)c;
#pragma omp parallel for schedule(static) if ((size_t)n * per > 32768)
    for (int i = 0; i < n; i++)
        gate_sums(x + (size_t)i * per, dy + (size_t)i * per, de + (size_t)i * (size_t)c, (size_t)hw, c, acc);
}

/* ---- dropout ----------------------------------------------------------------------------------------------------------------- */

static void drop_sample(const float *x, float p, const struct counter *counter, float *y, int per, bool acc)
{
    enum { RUN = 64 };
    uint32_t bits[RUN], below = xd_drop_below(p);
    float scale = 1.0f / (1.0f - p);
    for (int e = 0; e < per; e += RUN) {
        int n = per - e < RUN ? per - e : RUN;
        cpu_philox(bits, (n + 3) / 4, counter, (uint32_t)e / 4);
        for (int j = 0; j < n; j++) {
            float v = x[e + j] * (bits[j] < below ? 0.0f : scale);
            y[e + j] = acc ? y[e + j] + v : v;
        }
    }
}

void cpu_dropout(struct kdev *d, const float *x, float p, const struct kstream *s, float *y, int n, int per, bool acc)
{
    (void)d;
#pragma omp parallel for schedule(static) if ((size_t)n * (size_t)per > 16384)
    for (int i = 0; i < n; i++) {
        struct counter counter = counter_of(s, (uint32_t)i);
        drop_sample(x + (size_t)i * (size_t)per, p, &counter, y + (size_t)i * (size_t)per, per, acc);
    }
}
