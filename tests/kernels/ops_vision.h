/* Cases of pooling, resizing, GELU, SwiGLU and the LPIPS layer. Included once, by ops.c. */
#ifndef TESTS_KERNELS_OPS_VISION_H
#define TESTS_KERNELS_OPS_VISION_H

#include "tests/kernels/ops.h"

/* ---- pooling --------------------------------------------------------------------------------------------------------- */

static void pool_double(const void *ctx, const double *x, double *y)
{
    const struct pool_desc *q = ctx;
    int ho = (q->h + 2 * q->pad - q->size) / q->stride + 1, wo = (q->w + 2 * q->pad - q->size) / q->stride + 1;
    for (int i = 0; i < q->n; i++)
        for (int o = 0; o < ho * wo; o++)
            for (int k = 0; k < q->c; k++) {
                double most = -INFINITY, sum = 0;
                int inside = 0;
                for (int t = 0; t < q->size * q->size; t++) {
                    int yi = o / wo * q->stride - q->pad + t / q->size, xi = o % wo * q->stride - q->pad + t % q->size;
                    if (yi < 0 || yi >= q->h || xi < 0 || xi >= q->w) continue;
                    double v = x[((i * q->h + yi) * q->w + xi) * q->c + k];
                    most = v > most ? v : most;
                    sum += v;
                    inside++;
                }
                y[(i * ho * wo + o) * q->c + k] = q->kind == POOL_MAX    ? most
                                                  : q->kind == POOL_MEAN ? sum / (q->size * q->size)
                                                                         : sum / inside;
            }
}

/* n h w c size stride pad kind acc */
static void run_pool(struct bench *b, const int *q)
{
    struct pool_desc d = {.n = q[0],
                          .h = q[1],
                          .w = q[2],
                          .c = q[3],
                          .size = q[4],
                          .stride = q[5],
                          .pad = q[6],
                          .kind = (enum pool_kind)q[7]};
    size_t nx = (size_t)q[0] * q[1] * q[2] * q[3], ho = (size_t)((q[1] + 2 * q[6] - q[4]) / q[5] + 1),
           wo = (size_t)((q[2] + 2 * q[6] - q[4]) / q[5] + 1), ny = (size_t)q[0] * ho * wo * q[3];
    float *x = draw(b, nx), *dy = draw(b, ny), *dx = draw(b, nx), *y = zeros(b, ny);
    double *want = doubles(b, NULL, ny), *xd = doubles(b, x, nx), *dx0 = doubles(b, dx, nx);
    b->k->pool_fwd(b->d, &d, x, y);
    pool_double(&d, xd, want);
    emit(b, y, want, ny);
    b->k->pool_bwd(b->d, &d, x, dy, dx, q[8]);
    const double *g = differences(b, pool_double, &d, xd, nx, doubles(b, dy, ny), ny);
    for (size_t i = 0; i < nx; i++) emit1(b, dx[i], g[i] + (q[8] ? dx0[i] : 0));
}

/* Equal values: the first takes the gradient. A NaN anywhere in a window is its maximum. */
static void run_pool_ties(struct bench *b, const int *q)
{
    (void)q;
    struct pool_desc d = {.n = 1, .h = 2, .w = 4, .c = 1, .size = 2, .stride = 2, .kind = POOL_MAX};
    float *x = zeros(b, 8), *y = zeros(b, 2), *dx = zeros(b, 8), *dy = zeros(b, 2);
    for (int i = 0; i < 8; i++) x[i] = i % 4 < 2 ? 3 : 0;
    x[2] = NAN;
    dy[0] = 5, dy[1] = 7;
    b->k->pool_fwd(b->d, &d, x, y);
    b->k->pool_bwd(b->d, &d, x, dy, dx, false);
    emit1(b, y[0], 3);
    emit1(b, isnan(y[1]), 1);
    double sum = 0;
    for (int i = 0; i < 8; i++) sum += dx[i];
    emit1(b, dx[0], 5);
    emit1(b, sum, 12);
}

/* ---- resizing --------------------------------------------------------------------------------------------------------- */

static double at_border(double v, int last)
{
    return v < 0 ? 0 : v > last ? last : v;
}
static void resize_double(const void *ctx, const double *x, double *y)
{
    const struct resize_desc *q = ctx;
    for (int i = 0; i < q->n; i++)
        for (int yo = 0; yo < q->ho; yo++)
            for (int xo = 0; xo < q->wo; xo++) {
                double off = q->corner ? 0 : 0.5, v = (yo + off) * q->h / q->ho - off,
                       u = (xo + off) * q->w / q->wo - off;
                v = at_border(v, q->h - 1), u = at_border(u, q->w - 1);
                int y0 = (int)v, x0 = (int)u, y1 = y0 + (y0 + 1 < q->h), x1 = x0 + (x0 + 1 < q->w);
                for (int k = 0; k < q->c; k++) {
#define AT(r, s) x[((i * q->h + (r)) * q->w + (s)) * q->c + k]
                    double top = AT(y0, x0) + (u - x0) * (AT(y0, x1) - AT(y0, x0));
                    double low = AT(y1, x0) + (u - x0) * (AT(y1, x1) - AT(y1, x0));
#undef AT
                    y[((i * q->ho + yo) * q->wo + xo) * q->c + k] = top + (v - y0) * (low - top);
                }
            }
}

/* n h w c ho wo corner acc */
static void run_resize(struct bench *b, const int *q)
{
    struct resize_desc d = {.n = q[0], .h = q[1], .w = q[2], .c = q[3], .ho = q[4], .wo = q[5], .corner = q[6]};
    size_t nx = (size_t)q[0] * q[1] * q[2] * q[3], ny = (size_t)q[0] * q[4] * q[5] * q[3];
    float *x = draw(b, nx), *dy = draw(b, ny), *dx = draw(b, nx), *y = zeros(b, ny);
    double *want = doubles(b, NULL, ny), *xd = doubles(b, x, nx), *dx0 = doubles(b, dx, nx);
    b->k->resize_fwd(b->d, &d, x, y);
    resize_double(&d, xd, want);
    emit(b, y, want, ny);
    b->k->resize_bwd(b->d, &d, dy, dx, q[7]);
    const double *g = differences(b, resize_double, &d, xd, nx, doubles(b, dy, ny), ny);
    for (size_t i = 0; i < nx; i++) emit1(b, dx[i], g[i] + (q[7] ? dx0[i] : 0));
}

/* ---- activations ------------------------------------------------------------------------------------------------------- */

static void run_relu_bwd(struct bench *b, const int *q)
{
    size_t n = (size_t)q[0];
    float *x = draw(b, n), *y = zeros(b, n), *dy = draw(b, n), *dx = draw(b, n), *sum = zeros(b, n);
    memcpy(sum, dx, n * sizeof *dx);
    b->k->relu_fwd(b->d, x, y, n);
    b->k->relu_bwd(b->d, y, dy, sum, n, true);
    for (size_t i = 0; i < n; i++) emit1(b, sum[i], x[i] > 0 ? (double)(dx[i] + dy[i]) : dx[i]);
    b->k->relu_bwd(b->d, y, dy, dx, n, false);
    for (size_t i = 0; i < n; i++) emit1(b, dx[i], x[i] > 0 ? dy[i] : 0);
}

/* |x| up to q[1]; the value 0, and far outside */
static void run_gelu(struct bench *b, const int *q)
{
    size_t n = (size_t)q[0];
    float *x = draw(b, n), *y = zeros(b, n);
    for (size_t i = 0; i < n; i++) x[i] *= (float)q[1];
    if (n > 4) x[0] = 0, x[1] = 50, x[2] = -50, x[3] = -5.7f;
    b->k->gelu_fwd(b->d, x, y, n);
    for (size_t i = 0; i < n; i++) emit1(b, y[i], x[i] * (0.5 * erfc(-x[i] / sqrt(2))));
}

static void run_swiglu(struct bench *b, const int *q)
{
    size_t rows = (size_t)q[0], c = (size_t)q[1];
    float *x = draw(b, 2 * rows * c), *y = zeros(b, rows * c);
    for (size_t i = 0; i < 2 * rows * c; i++) x[i] *= 4;
    b->k->swiglu_fwd(b->d, x, y, rows, (int)c);
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < c; k++) {
            double g = x[i * 2 * c + k];
            emit1(b, y[i * c + k], g / (1 + exp(-g)) * x[i * 2 * c + c + k]);
        }
}

/* ---- LPIPS --------------------------------------------------------------------------------------------------------------- */

struct lpips_ref {
    int n, hw, c;
    const double *b, *lin;
};
static void lpips_double(const void *ctx, const double *a, double *sums)
{
    const struct lpips_ref *r = ctx;
    for (int i = 0; i < r->n; i++) {
        sums[i] = 0;
        for (int p = 0; p < r->hw; p++) {
            const double *x = a + (i * r->hw + p) * r->c, *y = r->b + (i * r->hw + p) * r->c;
            double lx = 0, ly = 0;
            for (int k = 0; k < r->c; k++) lx += x[k] * x[k], ly += y[k] * y[k];
            for (int k = 0; k < r->c; k++) {
                double u = x[k] / (sqrt(lx) + 1e-10) - y[k] / (sqrt(ly) + 1e-10);
                sums[i] += r->lin[k] * u * u / r->hw;
            }
        }
    }
}

/* n hw c; b's first pixel is black */
static void run_lpips(struct bench *b, const int *q)
{
    struct lpips_ref r = {.n = q[0], .hw = q[1], .c = q[2]};
    size_t per = (size_t)q[1] * q[2], total = q[0] * per;
    float *x = draw(b, total), *y = draw(b, total), *lin = draw(b, (size_t)q[2]), *dx = draw(b, total);
    for (size_t i = 0; i < total; i++) x[i] += 0.2f; /* not all around zero */
    for (int k = 0; k < q[2]; k++) y[k] = 0;
    double *sums = arena_alloc(&b->arena, (size_t)q[0] * sizeof(double)), *want = doubles(b, NULL, (size_t)q[0]);
    double *ones = doubles(b, NULL, (size_t)q[0]), *xd = doubles(b, x, total);
    for (int i = 0; i < q[0]; i++) sums[i] = 2, ones[i] = 1;
    r.b = doubles(b, y, total), r.lin = doubles(b, lin, (size_t)q[2]);
    b->k->lpips_layer(b->d, x, y, lin, sums, dx, q[0], q[1], q[2]);
    lpips_double(&r, xd, want);
    for (int i = 0; i < q[0]; i++) emit1(b, sums[i], want[i] + 2);
    emit(b, dx, differences(b, lpips_double, &r, xd, total, ones, (size_t)q[0]), total);
    for (int k = 0; k < q[2]; k++) x[k] = 0; /* a black pixel has no gradient, and hurts no other */
    b->k->lpips_layer(b->d, x, y, lin, sums, dx, q[0], q[1], q[2]);
    for (int k = 0; k < q[2]; k++) emit1(b, dx[k], 0);
    double before = sums[0];
    b->k->lpips_layer(b->d, x, y, lin, sums, NULL, q[0], q[1], q[2]);
    lpips_double(&r, doubles(b, x, total), want);
    emit1(b, sums[0] - before, want[0]);
}

#define POOL "pool_fwd pool_bwd"
#define RESIZE "resize_fwd resize_bwd"

const struct op_case vision_cases[] = {
    {POOL, run_pool, {1, 1, 1, 1, 1, 1, 0, POOL_MAX, 0}, 1e-6},
    {POOL, run_pool, {2, 4, 6, 3, 2, 2, 0, POOL_MAX, 1}, 1e-6},
    {POOL, run_pool, {3, 7, 5, 17, 3, 2, 0, POOL_MAX, 0}, 1e-6},
    {POOL, run_pool, {1, 6, 5, 5, 3, 1, 1, POOL_MAX, 0}, 1e-6},
    {POOL, run_pool, {2, 5, 7, 9, 2, 2, 0, POOL_MEAN, 0}, 1e-6},
    {POOL, run_pool, {1, 5, 4, 7, 3, 1, 1, POOL_MEAN, 1}, 1e-6},
    {POOL, run_pool, {2, 5, 4, 33, 3, 1, 1, POOL_MEAN_INSIDE, 1}, 1e-6},
    {POOL, run_pool, {1, 6, 7, 2, 3, 2, 1, POOL_MEAN_INSIDE, 0}, 1e-6},
    {POOL, run_pool_ties, {0}, 0},
    {RESIZE, run_resize, {1, 1, 1, 1, 3, 2, 0, 0}, 1e-6},
    {RESIZE, run_resize, {2, 4, 5, 3, 7, 9, 0, 1}, 1e-6},
    {RESIZE, run_resize, {1, 7, 6, 17, 5, 4, 0, 0}, 1e-6},
    {RESIZE, run_resize, {1, 8, 8, 3, 8, 8, 0, 0}, 1e-6},
    {RESIZE, run_resize, {1, 5, 3, 2, 11, 8, 1, 1}, 1e-6},
    {"relu_bwd", run_relu_bwd, {1}, 0},
    {"relu_bwd", run_relu_bwd, {33001}, 0},
    {"gelu_fwd", run_gelu, {1, 1}, 3e-7},
    {"gelu_fwd", run_gelu, {5001, 1}, 3e-7},
    {"gelu_fwd", run_gelu, {33001, 6}, 3e-8},
    {"swiglu_fwd", run_swiglu, {1, 1}, 5e-7},
    {"swiglu_fwd", run_swiglu, {7, 13}, 5e-7},
    {"swiglu_fwd", run_swiglu, {65, 515}, 5e-7},
    {"lpips_layer", run_lpips, {1, 2, 2}, 2e-6},
    {"lpips_layer", run_lpips, {3, 5, 7}, 2e-6},
    {"lpips_layer", run_lpips, {2, 9, 33}, 2e-6},
    {NULL, NULL, {0}, 0},
};

#endif
