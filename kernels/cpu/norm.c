/* norm: group normalisation fused with SiLU and dropout.
 *
 * One task is one sample. Sums run over pixels per channel (the vector direction of NHWC), then over the channels of a group, so
 * their order is fixed. Backward draws the mask again and recomputes the normalised value; per-sample partial sums of dgamma and
 * dbeta go to ws and are added in the order of samples. */
#include <assert.h>
#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/xd.h"

#pragma GCC optimize("O3")

struct drop {
    uint32_t below; /* 0: off */
    float scale;
    uint64_t seed;
    uint32_t sample, step, word3;
};

static struct drop drop_of(const struct norm_desc *q, float p, const struct kstream *s, int i)
{
    struct drop r = {0};
    if (!q->dropout || !(p > 0)) return r;
    r.below = xd_drop_below(p);
    r.scale = 1.0f / (1.0f - p);
    r.seed = s->seed;
    r.sample = s->sample0 + (uint32_t)i;
    r.step = s->step;
    r.word3 = (uint32_t)s->purpose << 16 | s->layer;
    return r;
}

enum { RUN = 64 }; /* elements whose mask is drawn at a time */

/* factor[j] = 0 or scale for elements e0 .. e0 + RUN - 1 of the sample; e0 is a multiple of 4 */
INLINE void mask_run(float *factor, uint32_t e0, const struct drop *d)
{
    uint32_t w[4][RUN / 4];
    for (int l = 0; l < RUN / 4; l++) {
        uint32_t a = e0 / 4 + (uint32_t)l, b = d->sample, c = d->step, e = d->word3;
        philox4x32(&a, &b, &c, &e, (uint32_t)d->seed, (uint32_t)(d->seed >> 32));
        w[0][l] = a, w[1][l] = b, w[2][l] = c, w[3][l] = e;
    }
    for (int l = 0; l < RUN / 4; l++)
        for (int k = 0; k < 4; k++) factor[4 * l + k] = w[k][l] < d->below ? 0.0f : d->scale;
}

/* mean and 1/std of every group of one sample */
INLINE void stats_body(const struct norm_desc *q, const float *x, float *stats)
{
    int per = q->c / q->groups;
    for (int g = 0; g < q->groups; g++) {
        double sum = 0, sq = 0;
        for (int p = 0; p < q->hw; p++)
            for (int j = 0; j < per; j++) sum += x[(size_t)p * q->c + g * per + j];
        double mean = sum / ((double)q->hw * per);
        for (int p = 0; p < q->hw; p++)
            for (int j = 0; j < per; j++) {
                double v = x[(size_t)p * q->c + g * per + j] - mean;
                sq += v * v;
            }
        stats[2 * g] = (float)mean;
        stats[2 * g + 1] = (float)(1.0 / sqrt(sq / ((double)q->hw * per) + q->eps));
    }
}

INLINE void fwd_body(const struct norm_desc *q, const float *x, const float *gamma, const float *beta,
                     const struct drop *d, float *y, const float *stats)
{
    int per = q->c / q->groups, total = q->hw * q->c;
    float factor[RUN];
    for (int e0 = 0; e0 < total; e0 += RUN) {
        int left = total - e0 < RUN ? total - e0 : RUN;
        if (d->below) mask_run(factor, (uint32_t)e0, d);
        for (int j = 0; j < left; j++) {
            int k = (e0 + j) % q->c, g = k / per;
            float v = (x[e0 + j] - stats[2 * g]) * (stats[2 * g + 1] * gamma[k]) + beta[k];
            if (q->silu) v = xd_silu(v);
            y[e0 + j] = d->below ? v * factor[j] : v;
        }
    }
}

void cpu_group_norm_fwd(struct kdev *dev, const struct norm_desc *q, const float *x, const float *gamma,
                        const float *beta, float p, const struct kstream *s, float *y, float *stats)
{
    (void)dev;
    assert(q->groups > 0 && q->c % q->groups == 0);
    size_t per = (size_t)q->hw * q->c;
#pragma omp parallel for schedule(static)
    for (int i = 0; i < q->n; i++) {
        struct drop d = drop_of(q, p, s, i);
        float *st = stats + (size_t)i * q->groups * 2;
        stats_body(q, x + i * per, st);
        fwd_body(q, x + i * per, gamma, beta, &d, y + i * per, st);
    }
}

INLINE void bwd_body(const struct norm_desc *q, const float *x, const float *gamma, const float *beta,
                     const struct drop *d, const float *stats, const float *dy, float *dx, bool acc, float *part)
{
    int per = q->c / q->groups, total = q->hw * q->c;
    float factor[RUN];
    float *sg = part, *sb = part + q->c; /* sums of dz * xhat and of dz, per channel */
    for (int k = 0; k < 2 * q->c; k++) part[k] = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int e0 = 0; e0 < total; e0 += RUN) {
            int left = total - e0 < RUN ? total - e0 : RUN;
            if (d->below) mask_run(factor, (uint32_t)e0, d);
            for (int j = 0; j < left; j++) {
                int k = (e0 + j) % q->c, g = k / per;
                float xhat = (x[e0 + j] - stats[2 * g]) * stats[2 * g + 1];
                float dz = dy[e0 + j];
                if (d->below) dz *= factor[j];
                if (q->silu) dz *= xd_silu_slope(xhat * gamma[k] + beta[k]);
                if (pass == 0) {
                    sg[k] += dz * xhat;
                    sb[k] += dz;
                } else {
                    double a = 0, b = 0;
                    for (int c = g * per; c < (g + 1) * per; c++)
                        a += (double)sg[c] * gamma[c], b += (double)sb[c] * gamma[c];
                    float m = (float)(1.0 / ((double)per * q->hw));
                    float v = stats[2 * g + 1] * (dz * gamma[k] - m * (float)b - xhat * (m * (float)a));
                    dx[e0 + j] = acc ? dx[e0 + j] + v : v;
                }
            }
        }
    }
}

void cpu_group_norm_bwd(struct kdev *dev, const struct norm_desc *q, const float *x, const float *gamma,
                        const float *beta, float p, const struct kstream *s, const float *stats, const float *dy,
                        float *dx, bool acc_dx, float *dgamma, float *dbeta, float *ws)
{
    (void)dev;
    size_t per = (size_t)q->hw * q->c;
#pragma omp parallel for schedule(static)
    for (int i = 0; i < q->n; i++) {
        struct drop d = drop_of(q, p, s, i);
        bwd_body(q, x + i * per, gamma, beta, &d, stats + (size_t)i * q->groups * 2, dy + i * per, dx + i * per, acc_dx,
                 ws + (size_t)i * 2 * q->c);
    }
    for (int k = 0; k < q->c; k++) {
        float a = 0, b = 0;
        for (int i = 0; i < q->n; i++) {
            a += ws[(size_t)i * 2 * q->c + k];
            b += ws[(size_t)i * 2 * q->c + q->c + k];
        }
        if (dgamma) dgamma[k] += a;
        if (dbeta) dbeta[k] += b;
    }
}
