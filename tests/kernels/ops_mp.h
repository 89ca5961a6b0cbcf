/* Cases of the magnitude-preserving layers: definitions in double, gradients by differences of them. Included once, by ops.c. */
#ifndef TESTS_KERNELS_OPS_MP_H
#define TESTS_KERNELS_OPS_MP_H

#include "tests/kernels/ops.h"

struct rms {
    size_t rows;
    int c;
    double scale;
};

/* x[rows * c] and, last, the gain */
static void rms_double(const void *ctx, const double *x, double *y)
{
    const struct rms *r = ctx;
    size_t c = (size_t)r->c;
    for (size_t i = 0; i < r->rows; i++) {
        double sum = 0;
        for (size_t k = 0; k < c; k++) sum += x[i * c + k] * x[i * c + k];
        for (size_t k = 0; k < c; k++)
            y[i * c + k] = r->scale * x[r->rows * c] * x[i * c + k] / (1e-4 + sqrt(sum / r->c));
    }
}

/* rows c */
static void run_rms(struct bench *b, const int *q)
{
    struct rms r = {(size_t)q[0], q[1], 0.375};
    size_t n = r.rows * (size_t)q[1];
    float *x = draw(b, n), *dy = draw(b, n), *gain = draw(b, 1), *y = zeros(b, n), *dx = zeros(b, n),
          *dgain = zeros(b, 1);
    double *x0 = doubles(b, NULL, n + 1), *want = doubles(b, NULL, n), *ws = doubles(b, NULL, r.rows), *grad;
    for (size_t i = 0; i < n; i++) x0[i] = x[i] += x[i] < 0 ? -0.1f : 0.1f;
    x0[n] = *gain;
    rms_double(&r, x0, want);
    b->k->rms_norm_fwd(b->d, x, gain, 0.375f, y, r.rows, q[1]);
    emit(b, y, want, n);
    grad = differences(b, rms_double, &r, x0, n + 1, doubles(b, dy, n), n);
    *dgain = 2;
    b->k->rms_norm_bwd(b->d, x, gain, 0.375f, dy, dx, false, dgain, ws, r.rows, q[1]);
    emit(b, dx, grad, n);
    emit1(b, *dgain, 2 + grad[n]);
    b->k->rms_norm_bwd(b->d, x, gain, 0.375f, dy, dx, true, NULL, NULL, r.rows, q[1]);
    for (size_t i = 0; i < n; i++) emit1(b, dx[i], 2 * grad[i]);
    *dgain = 0;
    b->k->rms_norm_bwd(b->d, x, gain, 0.375f, dy, NULL, false, dgain, ws, r.rows, q[1]);
    emit1(b, *dgain, grad[n]);

    /* without a gain; in place, the gradient too */
    x0[n] = 1;
    rms_double(&r, x0, want);
    grad = differences(b, rms_double, &r, x0, n + 1, doubles(b, dy, n), n);
    b->k->rms_norm_bwd(b->d, x, NULL, 0.375f, dy, dy, false, NULL, NULL, r.rows, q[1]);
    emit(b, dy, grad, n);
    b->k->rms_norm_fwd(b->d, x, NULL, 0.375f, x, r.rows, q[1]);
    emit(b, x, want, n);
}

/* A row of zeros stays one, and its gradient is that of y = x / 1e-4. c */
static void run_rms_zero(struct bench *b, const int *q)
{
    size_t c = (size_t)q[0];
    float *x = zeros(b, c), *dy = draw(b, c), *y = draw(b, c), *dx = zeros(b, c);
    b->k->rms_norm_fwd(b->d, x, NULL, 1, y, 1, q[0]);
    b->k->rms_norm_bwd(b->d, x, NULL, 1, dy, dx, false, NULL, NULL, 1, q[0]);
    for (size_t k = 0; k < c; k++) emit1(b, y[k], 0);
    for (size_t k = 0; k < c; k++) emit1(b, dx[k], dy[k] / 1e-4);
}

/* count */
static void run_mp_silu(struct bench *b, const int *q)
{
    size_t n = (size_t)q[0];
    float *x = draw(b, n), *dy = draw(b, n), *y = zeros(b, n), *dx = draw(b, n);
    double *want = doubles(b, NULL, n), *dx0 = doubles(b, dx, n);
    for (size_t i = 0; i < n; i++) x[i] *= 5;
    b->k->silu_scaled_fwd(b->d, x, 1.75f, y, n);
    for (size_t i = 0; i < n; i++) emit1(b, y[i], 1.75 * x[i] / (1 + exp(-(double)x[i])));
    for (size_t i = 0; i < n; i++) {
        double s = 1 / (1 + exp(-(double)x[i]));
        want[i] = 1.75 * dy[i] * s * (1 + x[i] * (1 - s));
    }
    b->k->silu_scaled_bwd(b->d, x, 1.75f, dy, dx, n, true);
    for (size_t i = 0; i < n; i++) emit1(b, dx[i], dx0[i] + want[i]);
    b->k->silu_scaled_bwd(b->d, x, 1.75f, dy, dx, n, false);
    emit(b, dx, want, n);
}

/* rows ca cb */
static void run_concat_scaled(struct bench *b, const int *q)
{
    size_t rows = (size_t)q[0], ca = (size_t)q[1], cb = (size_t)q[2], c = ca + cb;
    float *x = draw(b, rows * ca), *z = draw(b, rows * cb), *y = zeros(b, rows * c), *dx = draw(b, rows * ca),
          *dz = draw(b, rows * cb);
    double *dx0 = doubles(b, dx, rows * ca);
    b->k->concat_scaled(b->d, x, 0.75f, z, -1.5f, y, rows, q[1], q[2]);
    for (size_t i = 0; i < rows * c; i++)
        emit1(b, y[i], i % c < ca ? 0.75 * x[i / c * ca + i % c] : -1.5 * z[i / c * cb + i % c - ca]);
    b->k->split_scaled(b->d, y, dx, 0.5f, dz, 3, rows, q[1], q[2], true, false);
    for (size_t i = 0; i < rows * ca; i++) emit1(b, dx[i], dx0[i] + 0.375 * x[i]);
    for (size_t i = 0; i < rows * cb; i++) emit1(b, dz[i], -4.5 * z[i]);
    b->k->split_scaled(b->d, y, NULL, 0.5f, dz, 3, rows, q[1], q[2], false, true);
    for (size_t i = 0; i < rows * cb; i++) emit1(b, dz[i], -9.0 * z[i]);
    b->k->split_scaled(b->d, y, dx, 0.5f, NULL, 3, rows, q[1], q[2], false, false);
    for (size_t i = 0; i < rows * ca; i++) emit1(b, dx[i], 0.375 * x[i]);
}

/* n hw c */
static void run_gate(struct bench *b, const int *q)
{
    size_t n = (size_t)q[0], hw = (size_t)q[1], c = (size_t)q[2], all = n * hw * c;
    float *x = draw(b, all), *e = draw(b, n * c), *dy = draw(b, all), *y = draw(b, all), *de = draw(b, n * c);
    double *x0 = doubles(b, x, all), *y0 = doubles(b, y, all), *de0 = doubles(b, de, n * c),
           *sum = doubles(b, NULL, n * c), *factor = doubles(b, NULL, all);
    for (size_t i = 0; i < all; i++) {
        size_t at = i / (hw * c) * c + i % c;
        sum[at] += (double)x[i] * dy[i];
        factor[i] = 1 + (double)e[at];
    }
    b->k->gate_channel(b->d, x, e, y, q[0], q[1], q[2], true);
    for (size_t i = 0; i < all; i++) emit1(b, y[i], y0[i] + x0[i] * factor[i]);
    b->k->gate_channel_bwd(b->d, x, dy, de, q[0], q[1], q[2], true);
    for (size_t i = 0; i < n * c; i++) emit1(b, de[i], de0[i] + sum[i]);
    b->k->gate_channel_bwd(b->d, x, dy, de, q[0], q[1], q[2], false);
    emit(b, de, sum, n * c);
    b->k->gate_channel(b->d, x, e, x, q[0], q[1], q[2], false);
    for (size_t i = 0; i < all; i++) emit1(b, x[i], x0[i] * factor[i]);
}

/* count */
static void run_blend(struct bench *b, const int *q)
{
    size_t n = (size_t)q[0];
    float *x = draw(b, n), *z = draw(b, n);
    double *x0 = doubles(b, x, n);
    b->k->blend(b->d, x, 0.75f, z, -1.25f, x, n);
    for (size_t i = 0; i < n; i++) emit1(b, x[i], 0.75 * x0[i] - 1.25 * z[i]);
}

/* count; the first values lie on the limits and beyond everything */
static void run_clip(struct bench *b, const int *q)
{
    static const float edge[] = {0.5f, -0.5f, 0, INFINITY, -INFINITY, 0.50000006f, -0.50000006f, NAN};
    static const float clipped[] = {0.5f, -0.5f, 0, 0.5f, -0.5f, 0.5f, -0.5f, NAN};
    static const bool passes[] = {true, true, true};
    size_t n = (size_t)q[0], edges = ARRAY_LEN(edge);
    float *x = draw(b, n), *dy = draw(b, n), *y = zeros(b, n), *dx = draw(b, n);
    double *dx0 = doubles(b, dx, n);
    for (size_t i = 0; i < n && i < edges; i++) x[i] = edge[i];
    b->k->clip_fwd(b->d, x, 0.5f, y, n);
    for (size_t i = 0; i < n; i++) {
        float want = i < edges ? clipped[i] : x[i] > 0.5f ? 0.5f : x[i] < -0.5f ? -0.5f : x[i];
        if (isnan(want)) emit1(b, isnan(y[i]), 1);
        else emit1(b, y[i], want);
    }
    for (int acc = 1; acc >= 0; acc--) {
        b->k->clip_bwd(b->d, x, 0.5f, dy, dx, n, acc);
        for (size_t i = 0; i < n; i++) {
            bool pass = i < edges ? i < ARRAY_LEN(passes) : fabsf(x[i]) <= 0.5f;
            emit1(b, dx[i], (acc ? (float)dx0[i] : 0) + (pass ? dy[i] : 0));
        }
    }
}

/* n c */
static void run_mp_fourier(struct bench *b, const int *q)
{
    size_t n = (size_t)q[0], c = (size_t)q[1];
    float *t = draw(b, n), *f = draw(b, c), *phase = draw(b, c), *y = zeros(b, n * c);
    for (size_t k = 0; k < c; k++) f[k] *= 20, phase[k] = (phase[k] + 1) * 3.1415927f;
    b->k->embed_mp_fourier(b->d, t, f, phase, y, q[0], q[1]);
    for (size_t i = 0; i < n * c; i++) emit1(b, y[i], sqrt(2) * cos((double)f[i % c] * t[i / c] + phase[i % c]));
}

/* n per: elements are dropped whose random word is below p 2^32 */
static void run_dropout(struct bench *b, const int *q)
{
    struct kstream s = {.seed = 5, .step = 3, .purpose = RNG_TEST, .layer = 2, .sample0 = 10};
    struct rng r = {.seed = 5, .step = 3, .purpose = RNG_TEST, .layer = 2};
    size_t n = (size_t)q[0] * (size_t)q[1];
    float *x = draw(b, n), *y = draw(b, n + 1), scale = 1.0f / (1.0f - 0.3f);
    double *y0 = doubles(b, y, n);
    y[n] = 7;
    for (int acc = 1; acc >= 0; acc--) {
        b->k->dropout(b->d, x, 0.3f, &s, y, q[0], q[1], acc);
        for (size_t i = 0; i < n; i++) {
            uint32_t word = rng_bits(&r, (uint32_t)(10 + i / (size_t)q[1]), (uint32_t)(i % (size_t)q[1]));
            float kept = word < (uint32_t)((double)0.3f * 4294967296.0) ? 0 : x[i] * scale;
            emit1(b, y[i], acc ? (float)y0[i] + kept : kept);
        }
    }
    emit1(b, y[n], 7);
}

#define RMS "rms_norm_fwd rms_norm_bwd"
#define MP_SILU "silu_scaled_fwd silu_scaled_bwd"
#define MP_CONCAT "concat_scaled split_scaled"
#define GATE "gate_channel gate_channel_bwd"
#define CLIP "clip_fwd clip_bwd"

const struct op_case mp_cases[] = {
    {RMS, run_rms, {1, 1}, 2e-6},
    {RMS, run_rms, {5, 7}, 2e-6},
    {RMS, run_rms, {19, 33}, 2e-6},
    {RMS, run_rms, {3, 129}, 2e-6},
    {RMS, run_rms_zero, {9}, 1e-6},
    {MP_SILU, run_mp_silu, {1}, 1e-6},
    {MP_SILU, run_mp_silu, {5003}, 1e-6},
    {MP_CONCAT, run_concat_scaled, {1, 1, 1}, 1e-6},
    {MP_CONCAT, run_concat_scaled, {35, 3, 7}, 1e-6},
    {MP_CONCAT, run_concat_scaled, {1003, 16, 33}, 1e-6},
    {GATE, run_gate, {1, 1, 1}, 1e-6},
    {GATE, run_gate, {3, 7, 5}, 1e-6},
    {GATE, run_gate, {5, 9, 33}, 1e-6},
    {GATE, run_gate, {17, 64, 32}, 2e-6},
    {"blend", run_blend, {1}, 1e-6},
    {"blend", run_blend, {33001}, 1e-6},
    {CLIP, run_clip, {1}, 0},
    {CLIP, run_clip, {9}, 0},
    {CLIP, run_clip, {33001}, 0},
    {"embed_mp_fourier", run_mp_fourier, {1, 1}, 2e-7},
    {"embed_mp_fourier", run_mp_fourier, {7, 33}, 2e-7},
    {"dropout", run_dropout, {1, 1}, 0},
    {"dropout", run_dropout, {7, 203}, 0},
    {"dropout", run_dropout, {65, 515}, 0},
    {NULL, NULL, {0}, 0},
};

#endif
