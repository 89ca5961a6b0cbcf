/* Cases of convolutions and matrix products. Included once, by ops.c. */
#ifndef TESTS_KERNELS_OPS_CONTRACTION_H
#define TESTS_KERNELS_OPS_CONTRACTION_H

#include "tests/kernels/ops.h"

struct conv_ref {
    struct conv_desc d;
    int ho, wo;
    const double *x, *w, *bias;
};

static void conv_double(const struct conv_ref *r, const double *x, const double *w, const double *bias, double *y)
{
    const struct conv_desc d = r->d;
    for (int i = 0; i < d.n; i++)
        for (int yo = 0; yo < r->ho; yo++)
            for (int xo = 0; xo < r->wo; xo++)
                for (int k = 0; k < d.k; k++) {
                    double sum = bias ? bias[k] : 0;
                    for (int a = 0; a < d.r; a++)
                        for (int b = 0; b < d.s; b++) {
                            int yi = yo * d.stride + a - d.pad, xi = xo * d.stride + b - d.pad - d.pad_more;
                            if (yi < 0 || yi >= d.h || xi < 0 || xi >= d.w) continue;
                            for (int c = 0; c < d.c; c++)
                                sum +=
                                    x[((i * d.h + yi) * d.w + xi) * d.c + c] * w[((k * d.r + a) * d.s + b) * d.c + c];
                        }
                    y[((i * r->ho + yo) * r->wo + xo) * d.k + k] = sum;
                }
}

static void conv_of_x(const void *ctx, const double *x, double *y)
{
    const struct conv_ref *r = ctx;
    conv_double(r, x, r->w, r->bias, y);
}

static void conv_of_w(const void *ctx, const double *w, double *y)
{
    const struct conv_ref *r = ctx;
    conv_double(r, r->x, w, r->bias, y);
}

static void conv_of_bias(const void *ctx, const double *bias, double *y)
{
    const struct conv_ref *r = ctx;
    conv_double(r, r->x, r->w, bias, y);
}

/* n h w c k r s stride pad; pad of 10 and more: rows + 10 * (columns + 1) */
static struct conv_ref conv_make(struct bench *b, const int *q, struct conv **conv)
{
    int pad = q[8] % 10, left = q[8] < 10 ? pad : q[8] / 10 - 1;
    struct conv_ref r = {.d = {.n = q[0],
                               .h = q[1],
                               .w = q[2],
                               .c = q[3],
                               .k = q[4],
                               .r = q[5],
                               .s = q[6],
                               .stride = q[7],
                               .pad = pad,
                               .pad_more = left - pad,
                               .bwd_data = true,
                               .bwd_weight = true}};
    r.ho = (q[1] + 2 * pad - q[5]) / q[7] + 1;
    r.wo = (q[2] + 2 * left - q[6]) / q[7] + 1;
    assert_ok(b->k->conv_new(b->d, &r.d, conv));
    return r;
}

static void run_conv(struct bench *b, const int *q)
{
    struct conv *conv;
    struct conv_ref r = conv_make(b, q, &conv);
    size_t nx = (size_t)q[0] * q[1] * q[2] * q[3], nw = (size_t)q[4] * q[5] * q[6] * q[3],
           ny = (size_t)q[0] * r.ho * r.wo * q[4], k = (size_t)q[4];
    float *x = draw(b, nx), *w = draw(b, nw), *bias = draw(b, k), *dy = draw(b, ny), *y = draw(b, ny),
          *dx = draw(b, nx);
    float *dw = draw(b, nw), *db = draw(b, k), *ws = zeros(b, b->k->conv_workspace_bytes(conv) / 4 + 1);
    double *dw0 = doubles(b, dw, nw), *db0 = doubles(b, db, k), *want = doubles(b, NULL, ny), *dyd = doubles(b, dy, ny);
    memset(ws, 0xff, b->k->conv_workspace_bytes(conv)); /* NaN: nothing may rely on what the workspace holds */
    r.x = doubles(b, x, nx), r.w = doubles(b, w, nw), r.bias = doubles(b, bias, k);
    const void *wf = w, *wb = w;
    if (b->k->conv_packed_bytes(conv)) {
        void *p = zeros(b, b->k->conv_packed_bytes(conv) / 4);
        b->k->conv_pack(conv, w, p);
        wf = p;
    }
    if (b->k->conv_packed_bwd_bytes(conv)) {
        void *p = zeros(b, b->k->conv_packed_bwd_bytes(conv) / 4);
        b->k->conv_pack_bwd(conv, w, p);
        wb = p;
    }
    b->k->conv_fwd(conv, x, wf, bias, y, ws);
    conv_double(&r, r.x, r.w, r.bias, want);
    emit(b, y, want, ny);
    b->k->conv_fwd(conv, x, wf, NULL, y, ws);
    conv_double(&r, r.x, r.w, NULL, want);
    emit(b, y, want, ny);
    b->k->conv_bwd_data(conv, dy, wb, dx, ws);
    emit(b, dx, differences(b, conv_of_x, &r, r.x, nx, dyd, ny), nx);
    b->k->conv_bwd_weight_acc(conv, x, dy, dw, db, ws);
    const double *gw = differences(b, conv_of_w, &r, r.w, nw, dyd, ny),
                 *gb = differences(b, conv_of_bias, &r, r.bias, k, dyd, ny);
    for (size_t i = 0; i < nw; i++) emit1(b, dw[i], dw0[i] + gw[i]);
    for (size_t i = 0; i < k; i++) emit1(b, db[i], db0[i] + gb[i]);
    b->k->conv_bwd_weight_acc(conv, x, dy, dw, NULL, ws);
    for (size_t i = 0; i < nw; i++) emit1(b, dw[i], dw0[i] + 2 * gw[i]);
    b->k->conv_free(conv);
}

/* Sizes too large for differences: linear in each argument, so <dy, conv(x; w)> = <dx, x> = <dw, w>, and forward against double. */
static void run_conv_large(struct bench *b, const int *q)
{
    struct conv *conv;
    struct conv_ref r = conv_make(b, q, &conv);
    size_t nx = (size_t)q[0] * q[1] * q[2] * q[3], nw = (size_t)q[4] * q[5] * q[6] * q[3],
           ny = (size_t)q[0] * r.ho * r.wo * q[4];
    float *x = draw(b, nx), *w = draw(b, nw), *dy = draw(b, ny), *y = zeros(b, ny), *dx = zeros(b, nx),
          *dw = zeros(b, nw);
    float *ws = zeros(b, b->k->conv_workspace_bytes(conv) / 4 + 1),
          *p = zeros(b, b->k->conv_packed_bytes(conv) / 4 + 1),
          *p2 = zeros(b, b->k->conv_packed_bwd_bytes(conv) / 4 + 1);
    double *want = doubles(b, NULL, ny), scale = 0, a = 0, c = 0, e = 0;
    b->k->conv_pack(conv, w, p);
    b->k->conv_pack_bwd(conv, w, p2);
    b->k->conv_fwd(conv, x, p, NULL, y, ws);
    b->k->conv_bwd_data(conv, dy, p2, dx, ws);
    b->k->conv_bwd_weight_acc(conv, x, dy, dw, NULL, ws);
    if (!b->again) conv_double(&r, doubles(b, x, nx), doubles(b, w, nw), NULL, want);
    emit(b, y, want, ny);
    for (size_t i = 0; i < ny; i++) a += want[i] * dy[i], scale += fabs((double)y[i] * dy[i]);
    for (size_t i = 0; i < nx; i++) c += (double)x[i] * dx[i];
    for (size_t i = 0; i < nw; i++) e += (double)w[i] * dw[i];
    double unit =
        10 / sqrt((double)ny); /* so that a relative error of one element shows at the scale of emitted values */
    emit1(b, c / scale / unit, a / scale / unit);
    emit1(b, e / scale / unit, a / scale / unit);
    b->k->conv_free(conv);
}

/* m n k ta tb batch 10*alpha 10*beta padding of rows */
static void run_gemm(struct bench *b, const int *q)
{
    int m = q[0], n = q[1], k = q[2], batch = q[5], ca = (q[3] ? m : k) + q[8], cb = (q[4] ? k : n) + q[8],
        cc = n + q[8];
    size_t sa = (size_t)(q[3] ? k : m) * ca, sb = (size_t)(q[4] ? n : k) * cb, sc = (size_t)m * cc;
    float *x = draw(b, sa * batch), *y = draw(b, sb * batch), *z = draw(b, sc * batch);
    double *z0 = doubles(b, z, sc * batch);
    struct gemm_desc g = {.m = m,
                          .n = n,
                          .k = k,
                          .ta = q[3],
                          .tb = q[4],
                          .lda = ca,
                          .ldb = cb,
                          .ldc = cc,
                          .batch = batch,
                          .stride_a = (long)sa,
                          .stride_b = (long)sb,
                          .stride_c = (long)sc,
                          .alpha = q[6] / 10.0f,
                          .beta = q[7] / 10.0f};
    if (g.beta == 0)
        for (int i = 0; i < m; i++) z[(size_t)i * cc] = NAN; /* beta = 0 overwrites, it does not multiply */
    b->k->gemm(b->d, &g, x, y, z);
    for (int t = 0; t < batch; t++)
        for (int i = 0; i < m; i++) {
            for (int j = 0; j < n; j++) {
                double sum = 0;
                for (int l = 0; l < k; l++)
                    sum += (double)x[t * sa + (q[3] ? l * ca + i : i * ca + l)] *
                           y[t * sb + (q[4] ? j * cb + l : l * cb + j)];
                size_t at = t * sc + (size_t)i * cc + j;
                emit1(b, z[at], g.alpha * sum + (g.beta == 0 ? 0 : g.beta * z0[at]));
            }
            for (int j = n; j < cc; j++)
                emit1(b, z[t * sc + (size_t)i * cc + j], z0[t * sc + (size_t)i * cc + j]); /* untouched */
        }
}

#define CONV "conv_fwd conv_pack conv_pack_bwd conv_bwd_data conv_bwd_weight_acc"
const struct op_case contraction_cases[] = {
    {CONV, run_conv, {1, 1, 1, 1, 1, 1, 1, 1, 0}, 2e-6},
    {CONV, run_conv, {1, 3, 3, 1, 5, 3, 3, 1, 1}, 2e-6},
    {CONV, run_conv, {2, 5, 7, 3, 5, 3, 3, 1, 1}, 2e-6},
    {CONV, run_conv, {3, 5, 3, 7, 17, 3, 3, 2, 1}, 2e-6},
    {CONV, run_conv, {5, 4, 4, 8, 16, 3, 3, 1, 1}, 2e-6},
    {CONV, run_conv, {3, 4, 3, 16, 1, 3, 3, 1, 1}, 2e-6},
    {CONV, run_conv, {2, 3, 3, 25, 2, 3, 3, 1, 1}, 2e-6},
    {CONV, run_conv, {7, 3, 5, 12, 24, 1, 1, 1, 0}, 2e-6},
    {CONV, run_conv, {1, 6, 6, 3, 20, 5, 3, 1, 2}, 2e-6},
    {CONV, run_conv, {2, 6, 7, 4, 9, 2, 2, 2, 0}, 2e-6},
    {CONV, run_conv, {1, 7, 5, 2, 18, 7, 7, 2, 3}, 2e-6},
    {CONV, run_conv, {2, 5, 5, 5, 7, 1, 1, 2, 0}, 2e-6},
    {CONV, run_conv, {7, 3, 5, 5, 7, 3, 3, 2, 1}, 2e-6},
    {CONV, run_conv, {13, 4, 3, 3, 18, 3, 3, 1, 1}, 2e-6},
    {CONV, run_conv, {6, 1, 2, 7, 5, 3, 3, 1, 1}, 2e-6},
    {CONV, run_conv, {9, 5, 2, 2, 6, 5, 3, 2, 2}, 2e-6},
    {CONV, run_conv, {2, 5, 6, 3, 20, 1, 7, 1, 40}, 2e-6},
    {CONV, run_conv, {1, 6, 5, 17, 5, 7, 1, 1, 13}, 2e-6},
    {CONV, run_conv, {2, 5, 4, 4, 18, 1, 3, 2, 20}, 2e-6},
    {CONV, run_conv, {2, 7, 9, 3, 17, 3, 3, 2, 0}, 2e-6},
    {CONV, run_conv_large, {2, 9, 7, 130, 132, 1, 7, 1, 40}, 8e-6},
    {CONV, run_conv_large, {64, 8, 8, 16, 16, 3, 3, 1, 1}, 4e-6},
    {CONV, run_conv_large, {33, 4, 4, 64, 32, 3, 3, 1, 1}, 4e-6},
    {CONV, run_conv_large, {2, 8, 8, 128, 128, 3, 3, 1, 1}, 8e-6},
    {CONV, run_conv_large, {1, 9, 7, 130, 132, 3, 3, 2, 1}, 8e-6},
    {CONV, run_conv_large, {3, 17, 5, 40, 48, 3, 3, 1, 1}, 4e-6},
    {CONV, run_conv_large, {64, 4, 4, 32, 96, 1, 1, 1, 0}, 4e-6},
    {"gemm", run_gemm, {1, 1, 1, 0, 0, 1, 10, 0, 0}, 2e-6},
    {"gemm", run_gemm, {3, 5, 7, 0, 0, 1, 10, 0, 0}, 2e-6},
    {"gemm", run_gemm, {7, 17, 5, 1, 0, 3, 5, 0, 0}, 2e-6},
    {"gemm", run_gemm, {5, 16, 9, 0, 1, 2, 10, 10, 3}, 2e-6},
    {"gemm", run_gemm, {13, 33, 300, 1, 1, 2, 7, 3, 1}, 4e-6},
    {"gemm", run_gemm, {1, 40, 64, 0, 1, 1, 10, 0, 0}, 2e-6},
    {"gemm", run_gemm, {100, 3, 31, 0, 0, 1, 10, 0, 5}, 2e-6},
    {"gemm", run_gemm, {16, 16, 32, 0, 1, 64, 3, 0, 0}, 2e-6},
    {"gemm", run_gemm, {170, 165, 161, 0, 1, 1, 10, 0, 0}, 4e-6},
    {"gemm", run_gemm, {165, 170, 161, 1, 0, 2, 10, 10, 2}, 4e-6},
    {NULL, NULL, {0}, 0},
};

#endif
