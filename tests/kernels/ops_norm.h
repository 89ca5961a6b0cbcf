/* Cases of group normalisation, softmax and SiLU, with gradients by differences. Included once, by ops.c. */
#ifndef TESTS_KERNELS_OPS_NORM_H
#define TESTS_KERNELS_OPS_NORM_H

#include "tests/kernels/ops.h"

struct norm_ref {
    struct norm_desc q;
    const double *x, *gamma, *beta, *factor; /* factor: 0 or 1/(1-p) per element */
};

static double silu_double(double v)
{
    return v / (1 + exp(-v));
}

static void norm_double(const struct norm_ref *r, const double *x, const double *gamma, const double *beta, double *y)
{
    const struct norm_desc q = r->q;
    int per = q.c / q.groups;
    for (int i = 0; i < q.n; i++)
        for (int g = 0; g < q.groups; g++) {
            double mean = 0, var = 0, count = (double)q.hw * per;
            for (int p = 0; p < q.hw; p++)
                for (int j = 0; j < per; j++) mean += x[((size_t)i * q.hw + p) * q.c + g * per + j] / count;
            for (int p = 0; p < q.hw; p++)
                for (int j = 0; j < per; j++) {
                    double d = x[((size_t)i * q.hw + p) * q.c + g * per + j] - mean;
                    var += d * d / count;
                }
            for (int p = 0; p < q.hw; p++)
                for (int j = 0; j < per; j++) {
                    int k = g * per + j;
                    size_t at = ((size_t)i * q.hw + p) * q.c + k;
                    double v = (x[at] - mean) / sqrt(var + q.eps) * gamma[k] + beta[k];
                    if (q.silu) v = silu_double(v);
                    y[at] = v * r->factor[at];
                }
        }
}

static void norm_of_x(const void *ctx, const double *x, double *y)
{
    const struct norm_ref *r = ctx;
    norm_double(r, x, r->gamma, r->beta, y);
}
static void norm_of_gamma(const void *ctx, const double *gamma, double *y)
{
    const struct norm_ref *r = ctx;
    norm_double(r, r->x, gamma, r->beta, y);
}
static void norm_of_beta(const void *ctx, const double *beta, double *y)
{
    const struct norm_ref *r = ctx;
    norm_double(r, r->x, r->gamma, beta, y);
}

/* n hw c groups silu dropout(%) acc offset large */
static void run_norm(struct bench *b, const int *q)
{
    struct norm_ref r = {
        .q = {.n = q[0], .hw = q[1], .c = q[2], .groups = q[3], .eps = 1e-5f, .silu = q[4], .dropout = q[5] > 0}};
    size_t total = (size_t)q[0] * q[1] * q[2], c = (size_t)q[2];
    float p = q[5] / 100.0f, *x = draw(b, total), *gamma = draw(b, c), *beta = draw(b, c), *dy = draw(b, total),
          *dx = draw(b, total);
    float *dgamma = draw(b, c), *dbeta = draw(b, c), *y = draw(b, total), *stats = zeros(b, (size_t)q[0] * q[3] * 2),
          *ws = zeros(b, (size_t)q[0] * c * 2);
    struct kstream s = {.seed = 3, .step = 9, .purpose = RNG_DROPOUT, .layer = 4, .sample0 = 17};
    struct rng rng = {.seed = 3, .step = 9, .purpose = RNG_DROPOUT, .layer = 4};
    for (size_t i = 0; i < total; i++) x[i] += (float)q[7];
    double *factor = doubles(b, NULL, total), *dx0 = doubles(b, dx, total), *dg0 = doubles(b, dgamma, c),
           *db0 = doubles(b, dbeta, c);
    uint32_t per = (uint32_t)(q[1] * q[2]);
    for (size_t i = 0; i < total; i++) {
        bool dropped = rng_bits(&rng, 17 + (uint32_t)(i / per), (uint32_t)(i % per)) < (double)p * 4294967296.0;
        factor[i] = q[5] ? (dropped ? 0 : 1 / (1 - (double)p)) : 1;
    }
    r.x = doubles(b, x, total), r.gamma = doubles(b, gamma, c), r.beta = doubles(b, beta, c), r.factor = factor;
    double *want = doubles(b, NULL, total), *dyd = doubles(b, dy, total);
    norm_double(&r, r.x, r.gamma, r.beta, want);
    b->k->group_norm_fwd(b->d, &r.q, x, gamma, beta, p, &s, y, stats);
    emit(b, y, want, total);
    if (q[8]) return; /* too large for differences: the next rows cover backward's second form */
    b->k->group_norm_bwd(b->d, &r.q, x, gamma, beta, p, &s, stats, dy, dx, q[6], dgamma, dbeta, ws);
    const double *gx = differences(b, norm_of_x, &r, r.x, total, dyd, total);
    const double *gg = differences(b, norm_of_gamma, &r, r.gamma, c, dyd, total),
                 *gb = differences(b, norm_of_beta, &r, r.beta, c, dyd, total);
    for (size_t i = 0; i < total; i++) emit1(b, dx[i], gx[i] + (q[6] ? dx0[i] : 0));
    for (size_t i = 0; i < c; i++) emit1(b, dgamma[i], gg[i] + dg0[i]);
    for (size_t i = 0; i < c; i++) emit1(b, dbeta[i], gb[i] + db0[i]);
}

/* Backward of samples too large to keep the inner gradient: directional derivatives along x, gamma, beta. n hw c groups silu % acc */
static void run_norm_large(struct bench *b, const int *q)
{
    struct norm_ref r = {
        .q = {.n = q[0], .hw = q[1], .c = q[2], .groups = q[3], .eps = 1e-5f, .silu = q[4], .dropout = q[5] > 0}};
    size_t total = (size_t)q[0] * q[1] * q[2], c = (size_t)q[2];
    float p = q[5] / 100.0f, *x = draw(b, total), *gamma = draw(b, c), *beta = draw(b, c), *dy = draw(b, total),
          *dx = zeros(b, total), *v = draw(b, total);
    float *dgamma = zeros(b, c), *dbeta = zeros(b, c), *y = zeros(b, total), *stats = zeros(b, (size_t)q[0] * q[3] * 2),
          *ws = zeros(b, (size_t)q[0] * c * 2);
    struct kstream s = {.seed = 3, .purpose = RNG_DROPOUT};
    struct rng rng = {.seed = 3, .purpose = RNG_DROPOUT};
    double *factor = doubles(b, NULL, total), *up = doubles(b, NULL, total), *down = doubles(b, NULL, total),
           *xd = doubles(b, x, total);
    double *gd = doubles(b, gamma, c), *bd = doubles(b, beta, c), h = 1e-5;
    uint32_t per = (uint32_t)(q[1] * q[2]);
    for (size_t i = 0; i < total; i++)
        factor[i] = !q[5] ? 1
                    : rng_bits(&rng, (uint32_t)(i / per), (uint32_t)(i % per)) < (double)p * 4294967296.0
                        ? 0
                        : 1 / (1 - (double)p);
    r.factor = factor;
    b->k->group_norm_fwd(b->d, &r.q, x, gamma, beta, p, &s, y, stats);
    b->k->group_norm_bwd(b->d, &r.q, x, gamma, beta, p, &s, stats, dy, dx, q[6], dgamma, dbeta, ws);
    for (int which = 0; which < 3; which++) {
        double *at = which == 0 ? xd : which == 1 ? gd : bd, got = 0, want = 0, scale = 0;
        const float *grad = which == 0   ? dx
                            : which == 1 ? dgamma
                                         : dbeta,
                    *value = which == 0   ? x
                             : which == 1 ? gamma
                                          : beta;
        size_t n = which == 0 ? total : c;
        for (size_t i = 0; i < n; i++) at[i] = value[i] + h * v[i];
        norm_double(&r, xd, gd, bd, up);
        for (size_t i = 0; i < n; i++) at[i] = value[i] - h * v[i];
        norm_double(&r, xd, gd, bd, down);
        for (size_t i = 0; i < n; i++)
            at[i] = value[i], got += (double)grad[i] * v[i], scale += fabs((double)grad[i] * v[i]);
        for (size_t i = 0; i < total; i++) want += dy[i] * (up[i] - down[i]) / (2 * h);
        emit1(b, got / scale * sqrt((double)n), want / scale * sqrt((double)n));
    }
}

/* Normalisation with an adaptive scale: its four inputs in one vector, x, gamma, beta, e, so that one difference covers all. */
static void adaptive_double(const void *ctx, const double *in, double *y)
{
    const struct norm_ref *r = ctx;
    const struct norm_desc q = r->q;
    size_t per = (size_t)q.hw * q.c, c = (size_t)q.c;
    const double *gamma = in + (size_t)q.n * per, *beta = gamma + c, *e = beta + c;
    for (int i = 0; i < q.n; i++) {
        struct norm_ref one = *r;
        double g[64], b[64];
        one.q.n = 1;
        one.factor = r->factor + i * per;
        for (size_t k = 0; k < c; k++) {
            g[k] = gamma[k] * (e[i * 2 * c + k] + 1);
            b[k] = beta[k] * (e[i * 2 * c + k] + 1) + e[i * 2 * c + c + k];
        }
        norm_double(&one, in + i * per, g, b, y + i * per);
    }
}

/* n hw c groups silu dropout(%) acc */
static void run_adaptive(struct bench *b, const int *q)
{
    struct norm_ref r = {.q = {.n = q[0],
                               .hw = q[1],
                               .c = q[2],
                               .groups = q[3],
                               .eps = 1e-5f,
                               .per_sample = true,
                               .silu = q[4],
                               .dropout = q[5] > 0}};
    size_t n = (size_t)q[0], c = (size_t)q[2], total = n * q[1] * c, all = total + 2 * c + 2 * n * c;
    float p = q[5] / 100.0f, *in = draw(b, all), *gamma = in + total, *beta = gamma + c, *e = beta + c;
    float *grad = draw(b, all), *dgamma = grad + total, *dbeta = dgamma + c, *de = dbeta + c, *dy = draw(b, total);
    float *g = zeros(b, n * c), *bb = zeros(b, n * c), *dg = draw(b, n * c), *db = draw(b, n * c), *y = zeros(b, total),
          *stats = zeros(b, n * q[3] * 2), *ws = zeros(b, n * c * 2);
    struct kstream s = {.seed = 3, .step = 9, .purpose = RNG_DROPOUT, .layer = 4, .sample0 = 17};
    struct rng rng = {.seed = 3, .step = 9, .purpose = RNG_DROPOUT, .layer = 4};
    double *factor = doubles(b, NULL, total), *want = doubles(b, NULL, total), *start = doubles(b, grad, all);
    uint32_t per = (uint32_t)(q[1] * q[2]);
    for (size_t i = 0; i < total; i++) {
        bool dropped = rng_bits(&rng, 17 + (uint32_t)(i / per), (uint32_t)(i % per)) < (double)p * 4294967296.0;
        factor[i] = q[5] ? (dropped ? 0 : 1 / (1 - (double)p)) : 1;
    }
    r.factor = factor;
    adaptive_double(&r, doubles(b, in, all), want);
    b->k->modulate(b->d, gamma, beta, e, g, bb, q[0], q[2]);
    b->k->group_norm_fwd(b->d, &r.q, in, g, bb, p, &s, y, stats);
    emit(b, y, want, total);
    b->k->group_norm_bwd(b->d, &r.q, in, g, bb, p, &s, stats, dy, grad, q[6], dg, db, ws);
    b->k->modulate_bwd(b->d, gamma, beta, e, dg, db, de, q[6], dgamma, dbeta, q[0], q[2]);
    const double *d = differences(b, adaptive_double, &r, doubles(b, in, all), all, doubles(b, dy, total), total);
    for (size_t i = 0; i < all; i++) {
        bool adds = q[6] || (i >= total && i < total + 2 * c); /* gradients of gamma and beta are always added */
        emit1(b, grad[i], d[i] + (adds ? start[i] : 0));
    }
    for (size_t i = 0; i < all; i++) grad[i] = 0; /* each of the three may be left out */
    b->k->modulate_bwd(b->d, gamma, beta, e, dg, db, NULL, false, dgamma, NULL, q[0], q[2]);
    b->k->modulate_bwd(b->d, gamma, beta, e, dg, db, de, false, NULL, dbeta, q[0], q[2]);
    for (size_t i = total; i < all; i++) emit1(b, grad[i], d[i]);
}

/* rows c scale */
static void run_softmax(struct bench *b, const int *q)
{
    size_t rows = (size_t)q[0], c = (size_t)q[1], total = rows * c;
    float *x = draw(b, total), *dy = draw(b, total), *y = zeros(b, total), *dx = zeros(b, total);
    for (size_t i = 0; i < total; i++) x[i] *= (float)q[2];
    b->k->softmax_fwd(b->d, x, y, rows, q[1]);
    b->k->softmax_bwd(b->d, y, dy, dx, rows, q[1]);
    for (size_t i = 0; i < rows; i++) {
        double top = -INFINITY, sum = 0, dot = 0;
        for (size_t j = 0; j < c; j++) top = fmax(top, x[i * c + j]);
        for (size_t j = 0; j < c; j++) sum += exp(x[i * c + j] - top);
        for (size_t j = 0; j < c; j++) dot += exp(x[i * c + j] - top) / sum * dy[i * c + j];
        for (size_t j = 0; j < c; j++) {
            double p = exp(x[i * c + j] - top) / sum;
            emit1(b, y[i * c + j], p);
            emit1(b, dx[i * c + j], p * (dy[i * c + j] - dot));
        }
    }
    float bad[3] = {0, NAN, 1}, out[3];
    b->k->softmax_fwd(b->d, bad, out, 1, 3);
    assert_true(isnan(out[0]) && isnan(out[1]) && isnan(out[2])); /* divergence must be seen */
}

/* count scale */
static void run_silu(struct bench *b, const int *q)
{
    size_t n = (size_t)q[0];
    float *x = draw(b, n), *dy = draw(b, n), *y = zeros(b, n), *dx = draw(b, n);
    double *dx0 = doubles(b, dx, n), h = 1e-5;
    for (size_t i = 0; i < n; i++) x[i] *= (float)q[1];
    b->k->silu_fwd(b->d, x, y, n);
    b->k->silu_bwd(b->d, x, dy, dx, n, true);
    for (size_t i = 0; i < n; i++) {
        double slope = (silu_double(x[i] + h) - silu_double(x[i] - h)) / (2 * h);
        emit1(b, y[i] / q[1], silu_double(x[i]) / q[1]);
        emit1(b, dx[i], dx0[i] + dy[i] * slope);
    }
    b->k->silu_bwd(b->d, x, dy, dx, n, false);
    for (size_t i = 0; i < n; i++) emit1(b, dx[i], dy[i] * (silu_double(x[i] + h) - silu_double(x[i] - h)) / (2 * h));
    float bad = NAN, out = 0;
    b->k->silu_fwd(b->d, &bad, &out, 1);
    assert_true(isnan(out));
    b->k->relu_fwd(b->d, &bad, &out, 1);
    assert_true(isnan(out));
    b->k->relu_fwd(b->d, x, y, n);
    for (size_t i = 0; i < n; i++) emit1(b, y[i] / q[1], (x[i] > 0 ? x[i] : 0) / q[1]);
}

#define NORM "group_norm_fwd group_norm_bwd"
#define ADAPTIVE "group_norm_fwd group_norm_bwd modulate modulate_bwd"
const struct op_case norm_cases[] = {
    {NORM, run_norm, {1, 1, 4, 1, 0, 0, 0, 0, 0}, 2e-5},
    {NORM, run_norm, {2, 3, 5, 5, 1, 0, 1, 0, 0}, 2e-5},
    {NORM, run_norm, {3, 7, 15, 3, 1, 20, 0, 0, 0}, 1e-5},
    {NORM, run_norm, {1, 16, 16, 4, 1, 10, 1, 0, 0}, 1e-5},
    {NORM, run_norm, {2, 8, 32, 8, 1, 0, 0, 3, 0}, 1e-5},
    {NORM, run_norm, {3, 5, 12, 3, 0, 50, 1, 0, 0}, 1e-5},
    {NORM, run_norm, {2, 9, 24, 6, 1, 30, 1, 0, 0}, 1e-5},
    {NORM, run_norm, {1, 4, 68, 17, 1, 10, 0, 0, 0}, 1e-5},
    {NORM, run_norm, {1, 3, 70, 7, 1, 10, 1, 0, 0}, 1e-5},
    {NORM, run_norm, {65, 64, 16, 4, 1, 10, 0, 0, 1}, 1e-5},
    {NORM, run_norm, {2, 256, 96, 24, 1, 0, 0, 100, 1}, 5e-5},
    {NORM, run_norm_large, {2, 300, 66, 6, 1, 0}, 1e-5},
    {NORM, run_norm_large, {1, 257, 66, 6, 1, 10, 1}, 1e-5},
    {NORM, run_norm_large, {2, 256, 128, 32, 1, 20, 1}, 1e-5},
    {NORM, run_norm_large, {3, 64, 48, 12, 1, 10}, 1e-5},
    {ADAPTIVE, run_adaptive, {1, 2, 4, 1, 0, 0, 0}, 2e-5},
    {ADAPTIVE, run_adaptive, {3, 5, 6, 2, 1, 0, 1}, 2e-5},
    {ADAPTIVE, run_adaptive, {2, 7, 15, 3, 1, 30, 0}, 2e-5},
    {ADAPTIVE, run_adaptive, {5, 3, 9, 9, 1, 50, 1}, 2e-5},
    {"softmax_fwd softmax_bwd", run_softmax, {1, 1, 1}, 2e-6},
    {"softmax_fwd softmax_bwd", run_softmax, {3, 5, 4}, 2e-6},
    {"softmax_fwd softmax_bwd", run_softmax, {33, 17, 30}, 2e-6},
    {"softmax_fwd softmax_bwd", run_softmax, {1025, 16, 8}, 2e-6},
    {"silu_fwd silu_bwd relu_fwd", run_silu, {1, 1}, 1e-6},
    {"silu_fwd silu_bwd relu_fwd", run_silu, {37, 9}, 1e-6},
    {"silu_fwd silu_bwd relu_fwd", run_silu, {5001, 80}, 1e-6},
    {NULL, NULL, {0}, 0},
};

#endif
