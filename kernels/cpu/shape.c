/* shape: attention's rearrangements, resampling and embeddings: kernels whose index arithmetic is the content. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

/* ---- attention: channel (head * ch + j) * 3 + {q, k, v} of every pixel <-> three tensors [n, heads, hw, ch] --------------- */

void cpu_qkv_split(struct kdev *d, const float *qkv, float *q, float *k, float *v, int n, int hw, int heads, int ch)
{
    (void)d;
#pragma omp parallel for collapse(2) schedule(static) if ((size_t)n * heads * hw * ch > 16384)
    for (int i = 0; i < n; i++)
        for (int h = 0; h < heads; h++)
            for (int p = 0; p < hw; p++) {
                const float *src = qkv + (((size_t)i * hw + p) * heads + h) * ch * 3;
                size_t at = (((size_t)i * heads + h) * hw + p) * ch;
                for (int j = 0; j < ch; j++) {
                    q[at + j] = src[3 * j];
                    k[at + j] = src[3 * j + 1];
                    v[at + j] = src[3 * j + 2];
                }
            }
}

void cpu_qkv_merge(struct kdev *d, const float *q, const float *k, const float *v, float *qkv, int n, int hw, int heads,
                   int ch)
{
    (void)d;
#pragma omp parallel for collapse(2) schedule(static) if ((size_t)n * heads * hw * ch > 16384)
    for (int i = 0; i < n; i++)
        for (int h = 0; h < heads; h++)
            for (int p = 0; p < hw; p++) {
                float *dst = qkv + (((size_t)i * hw + p) * heads + h) * ch * 3;
                size_t at = (((size_t)i * heads + h) * hw + p) * ch;
                for (int j = 0; j < ch; j++) {
                    dst[3 * j] = q[at + j];
                    dst[3 * j + 1] = k[at + j];
                    dst[3 * j + 2] = v[at + j];
                }
            }
}

void cpu_heads_merge(struct kdev *d, const float *x, float *y, int n, int hw, int heads, int ch)
{
    (void)d;
    for (int i = 0; i < n; i++)
        for (int h = 0; h < heads; h++)
            for (int p = 0; p < hw; p++)
                memcpy(y + (((size_t)i * hw + p) * heads + h) * ch, x + (((size_t)i * heads + h) * hw + p) * ch,
                       (size_t)ch * sizeof *y);
}

void cpu_heads_split(struct kdev *d, const float *x, float *y, int n, int hw, int heads, int ch)
{
    (void)d;
    for (int i = 0; i < n; i++)
        for (int h = 0; h < heads; h++)
            for (int p = 0; p < hw; p++)
                memcpy(y + (((size_t)i * heads + h) * hw + p) * ch, x + (((size_t)i * hw + p) * heads + h) * ch,
                       (size_t)ch * sizeof *y);
}

/* ---- resampling --------------------------------------------------------------------------------------------------------- */

INLINE void tap_body(float *restrict y, const float *restrict x, float f, int c)
{
    for (int k = 0; k < c; k++) y[k] += f * x[k];
}
ISA_CLONES(tap, (float *y, const float *x, float f, int c), (y, x, f, c))

void cpu_resample_down(struct kdev *d, const float *x, float *y, int n, int h, int w, int c, const float *f, int taps,
                       int pad, float gain, bool acc)
{
    (void)d;
    int ho = (h + 2 * pad - taps) / 2 + 1, wo = (w + 2 * pad - taps) / 2 + 1;
#pragma omp parallel for collapse(2) schedule(static) if ((size_t)n * h * w * c > 16384)
    for (int i = 0; i < n; i++)
        for (int yo = 0; yo < ho; yo++)
            for (int xo = 0; xo < wo; xo++) {
                float *out = y + (((size_t)i * ho + yo) * wo + xo) * c;
                if (!acc) memset(out, 0, (size_t)c * sizeof *out);
                for (int a = 0; a < taps; a++) {
                    int yi = 2 * yo + a - pad;
                    if (yi < 0 || yi >= h) continue;
                    for (int b = 0; b < taps; b++) {
                        int xi = 2 * xo + b - pad;
                        if (xi < 0 || xi >= w) continue;
                        tap(out, x + (((size_t)i * h + yi) * w + xi) * c, gain * f[a] * f[b], c);
                    }
                }
            }
}

/* the transpose of down: pixel (yi, xi) of the large image collects from every small pixel whose taps reach it */
void cpu_resample_up(struct kdev *d, const float *x, float *y, int n, int h, int w, int c, const float *f, int taps,
                     int pad, float gain, bool acc)
{
    (void)d;
    int hs = (h + 2 * pad - taps) / 2 + 1, ws = (w + 2 * pad - taps) / 2 + 1;
#pragma omp parallel for collapse(2) schedule(static) if ((size_t)n * h * w * c > 16384)
    for (int i = 0; i < n; i++)
        for (int yo = 0; yo < h; yo++)
            for (int xo = 0; xo < w; xo++) {
                float *out = y + (((size_t)i * h + yo) * w + xo) * c;
                if (!acc) memset(out, 0, (size_t)c * sizeof *out);
                for (int a = 0; a < taps; a++) {
                    int ys = yo + pad - a, yi = ys / 2;
                    if (ys < 0 || ys % 2 || yi >= hs) continue;
                    for (int b = 0; b < taps; b++) {
                        int xs = xo + pad - b, xi = xs / 2;
                        if (xs < 0 || xs % 2 || xi >= ws) continue;
                        tap(out, x + (((size_t)i * hs + yi) * ws + xi) * c, gain * f[a] * f[b], c);
                    }
                }
            }
}

/* ---- embeddings, preconditioning: a handful of values a sample, in double ------------------------------------------------- */

void cpu_embed_positional(struct kdev *d, const float *t, float *out, int n, int c, bool endpoint, bool cos_first)
{
    (void)d;
    int half = c / 2;
    for (int j = 0; j < half; j++) {
        double f = half - endpoint > 0 ? pow(1.0 / 10000.0, (double)j / (half - endpoint)) : 1.0;
        for (int i = 0; i < n; i++) {
            float *row = out + (size_t)i * c;
            row[j + (cos_first ? half : 0)] = (float)sin(t[i] * f);
            row[j + (cos_first ? 0 : half)] = (float)cos(t[i] * f);
        }
    }
}

void cpu_embed_fourier(struct kdev *d, const float *t, const float *f, float *out, int n, int c, bool cos_first)
{
    (void)d;
    const double turn = 6.28318530717958647692;
    int half = c / 2;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < half; j++) {
            double angle = turn * f[j] * t[i];
            out[(size_t)i * c + j + (cos_first ? half : 0)] = (float)sin(angle);
            out[(size_t)i * c + j + (cos_first ? 0 : half)] = (float)cos(angle);
        }
}

/* Karras et al. 2022, table 1; the shifted form is ECMPrecond's in evaluation, which shifts c_skip and c_out's numerator only. */
void cpu_precond_coeffs(struct kdev *d, const float *sigma, int n, float sigma_data, float sigma_shift, float *c_skip,
                        float *c_out, float *c_in, float *c_noise)
{
    (void)d;
    for (int i = 0; i < n; i++) {
        double s = sigma[i], sd = sigma_data, shifted = s - sigma_shift, total = s * s + sd * sd;
        c_skip[i] = (float)(sd * sd / (shifted * shifted + sd * sd));
        c_out[i] = (float)(shifted * sd / sqrt(total));
        c_in[i] = (float)(1 / sqrt(total));
        c_noise[i] = (float)(log(s) / 4);
    }
}
