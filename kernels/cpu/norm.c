/* norm: group normalisation fused with SiLU and dropout.
 *
 * One task is one sample. All loops run along channels, the vector direction of NHWC. A sample with few channels is looked at as
 * one with 64 whose per-channel values repeat, so that the inner loops are long. Sums go over pixels per channel, then over the
 * channels of a group: a fixed order. Backward draws the dropout mask again from its counter; per-sample sums for dgamma and dbeta
 * are left in ws and added in the order of samples.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/xd.h"

enum {
    RUN = 64,         /* elements handled at a time: one drawing of the mask */
    MAX_C = 4096,     /* channels; the per-channel values live on the stack */
    KEEP = 16 * 1024, /* elements of a sample up to which backward keeps d(normalised) on the stack */
    BLOCK = 64        /* rows summed in float before they go to double */
};

struct drop {
    uint32_t below; /* 0: off */
    float scale;
    struct counter counter;
};

static struct drop drop_of(const struct norm_desc *q, float p, const struct kstream *s, int i)
{
    if (!q->dropout || !(p > 0)) return (struct drop){0};
    return (struct drop){.below = xd_drop_below(p), .scale = 1.0f / (1.0f - p), .counter = counter_of(s, (uint32_t)i)};
}

/* factor[j] = 0 or scale for elements e0 .. e0 + RUN - 1 of the sample; e0 is a multiple of 4 */
INLINE void mask_run(float *restrict factor, int e0, const struct drop *d)
{
    uint32_t bits[RUN];
    const uint32_t below = d->below;
    const float scale = d->scale;
    cpu_philox(bits, RUN / 4, &d->counter, (uint32_t)e0 / 4);
    for (int j = 0; j < RUN; j++) factor[j] = bits[j] < below ? 0.0f : scale;
}

/* A sample as rows of c values, the channels repeated until a row is a multiple of RUN long. */
struct view {
    int rows, c, real, per, groups, total;
};

static struct view view_of(const struct norm_desc *q)
{
    assert(q->groups > 0 && q->c % q->groups == 0 && q->c <= MAX_C);
    struct view v = {
        .rows = q->hw, .c = q->c, .real = q->c, .per = q->c / q->groups, .groups = q->groups, .total = q->hw * q->c};
    int wide = q->c;
    while (wide % RUN) wide += q->c;
    if (wide <= 1024 && v.total % wide == 0) {
        v.c = wide;
        v.rows = v.total / wide;
    }
    return v;
}

/* fills a row from its first `real` values */
INLINE void repeat(const struct view *v, float *row)
{
    for (int k = v->real; k < v->c; k += v->real) memcpy(row + k, row, (size_t)v->real * sizeof *row);
}

/* row[k] = stats[2 g + at], g the group of value k */
INLINE void spread(const struct view *v, const float *stats, int at, float *row)
{
    for (int g = 0; g < v->groups; g++)
        for (int j = 0; j < v->per; j++) row[g * v->per + j] = stats[2 * g + at];
    repeat(v, row);
}

/* out[g] = sum over the group of x - shift, or of its square: over rows, then over the repeats of a channel, then over channels */
INLINE void group_sums(const struct view *v, const float *x, const float *shift, const bool square, double *out)
{
    double sum[MAX_C];
    int k = 0;
    for (; k + 32 <= v->c; k += 32) {
        V8 s0 = V8_AT(shift + k), s1 = V8_AT(shift + k + 8), s2 = V8_AT(shift + k + 16), s3 = V8_AT(shift + k + 24);
        for (int r0 = 0; r0 < v->rows; r0 += BLOCK) {
            int r1 = r0 + BLOCK < v->rows ? r0 + BLOCK : v->rows;
            V8 p0 = {0}, p1 = {0}, p2 = {0}, p3 = {0};
            for (int r = r0; r < r1; r++) {
                const float *at = x + (size_t)r * v->c + k;
                V8 d0 = V8_AT(at) - s0, d1 = V8_AT(at + 8) - s1, d2 = V8_AT(at + 16) - s2, d3 = V8_AT(at + 24) - s3;
                p0 += square ? d0 * d0 : d0;
                p1 += square ? d1 * d1 : d1;
                p2 += square ? d2 * d2 : d2;
                p3 += square ? d3 * d3 : d3;
            }
            float part[32] = {0};
            V8_PUT(part) = p0, V8_PUT(part + 8) = p1, V8_PUT(part + 16) = p2, V8_PUT(part + 24) = p3;
            if (r0 == 0)
                for (int j = 0; j < 32; j++) sum[k + j] = part[j];
            else
                for (int j = 0; j < 32; j++) sum[k + j] += part[j];
        }
    }
    for (; k < v->c; k++) {
        sum[k] = 0;
        for (int r = 0; r < v->rows; r++) {
            float d = x[(size_t)r * v->c + k] - shift[k];
            sum[k] += square ? d * d : d;
        }
    }
    for (k = v->real; k < v->c; k += v->real)
        for (int j = 0; j < v->real; j++) sum[j] += sum[k + j];
    for (int g = 0; g < v->groups; g++) {
        out[g] = 0;
        for (int j = 0; j < v->per; j++) out[g] += sum[g * v->per + j];
    }
}

/* Mean and 1/std of every group, in two passes. The first sums differences to the group's first value, so that a large common
 * value costs no digits. On return row holds the mean of every value's group. */
INLINE void stats_of(const struct view *v, float eps, const float *x, float *stats, float *row)
{
    double count = (double)v->total / v->groups, sum[MAX_C];
    for (int g = 0; g < v->groups; g++) stats[2 * g] = x[g * v->per];
    spread(v, stats, 0, row);
    group_sums(v, x, row, false, sum);
    for (int g = 0; g < v->groups; g++) stats[2 * g] = (float)(sum[g] / count + stats[2 * g]);
    spread(v, stats, 0, row);
    group_sums(v, x, row, true, sum);
    for (int g = 0; g < v->groups; g++) stats[2 * g + 1] = (float)(1.0 / sqrt(sum[g] / count + eps));
}

/* y = f((x - mean) * a + b) * factor over n values */
INLINE void apply(const bool silu, const bool drop, const int n, const float *restrict x, const float *restrict mean,
                  const float *restrict a, const float *restrict b, const float *restrict factor, float *restrict y)
{
    for (int j = 0; j < n; j++) {
        float v = (x[j] - mean[j]) * a[j] + b[j];
        if (silu) v = xd_silu(v);
        y[j] = drop ? v * factor[j] : v;
    }
}

INLINE void apply_all(const bool silu, const bool drop, const struct view *v, const struct drop *d, const float *x,
                      const float *mean, const float *a, const float *b, float *y)
{
    float factor[RUN];
    for (int e0 = 0, k = 0; e0 < v->total; e0 += RUN) {
        int end = e0 + RUN < v->total ? e0 + RUN : v->total;
        if (drop) mask_run(factor, e0, d);
        for (int e = e0; e < end;) {
            int n = end - e < v->c - k ? end - e : v->c - k;
            if (n == RUN) apply(silu, drop, RUN, x + e, mean + k, a + k, b + k, factor, y + e);
            else apply(silu, drop, n, x + e, mean + k, a + k, b + k, factor + (e - e0), y + e);
            e += n;
            k = k + n == v->c ? 0 : k + n;
        }
    }
}

INLINE void forward_body(const struct norm_desc *q, const struct view *v, const float *x, const float *gamma,
                         const float *beta, const struct drop *d, float *y, float *stats)
{
    float mean[MAX_C], a[MAX_C], b[MAX_C];
    stats_of(v, q->eps, x, stats, mean);
    for (int g = 0; g < v->groups; g++)
        for (int k = g * v->per; k < (g + 1) * v->per; k++) a[k] = stats[2 * g + 1] * gamma[k];
    memcpy(b, beta, (size_t)v->real * sizeof *b);
    repeat(v, a);
    repeat(v, b);
    if (q->silu && d->below) apply_all(true, true, v, d, x, mean, a, b, y);
    else if (q->silu) apply_all(true, false, v, d, x, mean, a, b, y);
    else if (d->below) apply_all(false, true, v, d, x, mean, a, b, y);
    else apply_all(false, false, v, d, x, mean, a, b, y);
}
ISA_CLONES(forward,
           (const struct norm_desc *q, const struct view *v, const float *x, const float *gamma, const float *beta,
            const struct drop *d, float *y, float *stats),
           (q, v, x, gamma, beta, d, y, stats))

void cpu_group_norm_fwd(struct kdev *dev, const struct norm_desc *q, const float *x, const float *gamma,
                        const float *beta, float p, const struct kstream *s, float *y, float *stats)
{
    (void)dev;
    struct view v = view_of(q);
    size_t per = (size_t)q->hw * q->c;
#pragma omp parallel for schedule(static) if (q->n * per > 8192)
    for (int i = 0; i < q->n; i++) {
        struct drop d = drop_of(q, p, s, i);
        size_t row = q->per_sample ? (size_t)i * q->c : 0;
        forward(q, &v, x + i * per, gamma + row, beta + row, &d, y + i * per, stats + (size_t)i * q->groups * 2);
    }
}

/* ---- backward -------------------------------------------------------------------------------------------------------------- */

struct channel { /* per value of a row */
    float mean[MAX_C], rstd[MAX_C], gamma[MAX_C], beta[MAX_C];
    float sg[MAX_C], sb[MAX_C]; /* sums of dz * xhat and of dz, then the coefficients of xhat and of 1 in dx */
};

/* z = xhat * gamma + beta is the normalised value, dz its gradient */
INLINE float dz_of(const bool silu, const bool drop, float xhat, float gamma, float beta, float dy, float factor)
{
    float dz = drop ? dy * factor : dy;
    return silu ? dz * xd_silu_slope(xhat * gamma + beta) : dz;
}

INLINE void gather(const bool silu, const bool drop, const int n, struct channel *restrict c, int k,
                   const float *restrict x, const float *restrict dy, const float *restrict factor,
                   float *restrict keep)
{
    for (int j = 0; j < n; j++) {
        float xhat = (x[j] - c->mean[k + j]) * c->rstd[k + j];
        float dz = dz_of(silu, drop, xhat, c->gamma[k + j], c->beta[k + j], dy[j], factor[j]);
        c->sg[k + j] += dz * xhat;
        c->sb[k + j] += dz;
        keep[j] = dz;
    }
}

INLINE void gradient(const bool acc, const int n, const struct channel *restrict c, int k, const float *restrict x,
                     const float *restrict dz, float *restrict dx)
{
    for (int j = 0; j < n; j++) {
        float xhat = (x[j] - c->mean[k + j]) * c->rstd[k + j];
        float v = c->rstd[k + j] * c->gamma[k + j] * dz[j] - c->sb[k + j] - xhat * c->sg[k + j];
        dx[j] = acc ? dx[j] + v : v;
    }
}

/* dz of one run, and its share of the sums; all silu and drop are constants where it is inlined */
INLINE void gather_run(const bool silu, const bool drop, const struct view *v, const struct drop *d, struct channel *c,
                       int e0, const float *x, const float *dy, float *keep)
{
    float factor[RUN];
    int end = e0 + RUN < v->total ? e0 + RUN : v->total;
    if (drop) mask_run(factor, e0, d);
    for (int e = e0; e < end;) {
        int k = e % v->c, n = end - e < v->c - k ? end - e : v->c - k;
        if (n == RUN) gather(silu, drop, RUN, c, k, x + e, dy + e, factor, keep);
        else gather(silu, drop, n, c, k, x + e, dy + e, factor + (e - e0), keep + (e - e0));
        e += n;
    }
}

INLINE void gather_any(const struct norm_desc *q, const struct view *v, const struct drop *d, struct channel *c, int e0,
                       const float *x, const float *dy, float *keep)
{
    if (q->silu && d->below) gather_run(true, true, v, d, c, e0, x, dy, keep);
    else if (q->silu) gather_run(true, false, v, d, c, e0, x, dy, keep);
    else if (d->below) gather_run(false, true, v, d, c, e0, x, dy, keep);
    else gather_run(false, false, v, d, c, e0, x, dy, keep);
}

/* from the sums to the coefficients; part[2, c] gets this sample's share of dgamma and dbeta */
INLINE void coefficients(const struct norm_desc *q, const struct view *v, struct channel *c, float *part)
{
    double m = (double)q->groups / v->total;
    memcpy(part, c->sg, (size_t)q->c * sizeof *part);
    memcpy(part + q->c, c->sb, (size_t)q->c * sizeof *part);
    for (int k = v->real; k < v->c; k += v->real)
        for (int j = 0; j < v->real; j++) {
            part[j] += c->sg[k + j];
            part[q->c + j] += c->sb[k + j];
        }
    for (int k0 = 0; k0 < q->c; k0 += v->per) {
        double sg = 0, sb = 0;
        for (int k = k0; k < k0 + v->per; k++) {
            sg += (double)part[k] * c->gamma[k];
            sb += (double)part[q->c + k] * c->gamma[k];
        }
        for (int k = k0; k < k0 + v->per; k++) {
            c->sg[k] = (float)(m * sg) * c->rstd[k];
            c->sb[k] = (float)(m * sb) * c->rstd[k];
        }
    }
    repeat(v, c->sg);
    repeat(v, c->sb);
}

INLINE void backward_body(const struct norm_desc *q, const struct view *v, const float *x, const float *gamma,
                          const float *beta, const struct drop *d, const float *stats, const float *dy, float *dx,
                          bool acc, float *part)
{
    struct channel c;
    float kept[KEEP];
    float *where = v->total <= KEEP ? kept : acc ? NULL : dx; /* dz is kept here, or gathered twice */
    spread(v, stats, 0, c.mean);
    spread(v, stats, 1, c.rstd);
    memcpy(c.gamma, gamma, (size_t)v->real * sizeof *gamma);
    memcpy(c.beta, beta, (size_t)v->real * sizeof *beta);
    repeat(v, c.gamma);
    repeat(v, c.beta);
    memset(c.sg, 0, (size_t)v->c * sizeof *c.sg);
    memset(c.sb, 0, (size_t)v->c * sizeof *c.sb);
    for (int e0 = 0; e0 < v->total; e0 += RUN) // cppcheck-suppress legacyUninitvar
        gather_any(q, v, d, &c, e0, x, dy, where ? where + e0 : kept);
    coefficients(q, v, &c, part);
    struct channel again; /* for a second gathering, whose sums nobody reads */
    if (!where) again = c;
    for (int e0 = 0; e0 < v->total; e0 += RUN) {
        int end = e0 + RUN < v->total ? e0 + RUN : v->total;
        const float *dz = where == kept ? kept + e0 : kept;
        if (!where) gather_any(q, v, d, &again, e0, x, dy, kept);
        if (where == dx) memcpy(kept, dx + e0, (size_t)(end - e0) * sizeof *dx);
        for (int e = e0; e < end;) {
            int k = e % v->c, n = end - e < v->c - k ? end - e : v->c - k;
            if (n == RUN && acc) gradient(true, RUN, &c, k, x + e, dz, dx + e);
            else if (n == RUN) gradient(false, RUN, &c, k, x + e, dz, dx + e);
            else gradient(acc, n, &c, k, x + e, dz + (e - e0), dx + e);
            e += n;
        }
    }
}
ISA_CLONES(backward,
           (const struct norm_desc *q, const struct view *v, const float *x, const float *gamma, const float *beta,
            const struct drop *d, const float *stats, const float *dy, float *dx, bool acc, float *part),
           (q, v, x, gamma, beta, d, stats, dy, dx, acc, part))

void cpu_group_norm_bwd(struct kdev *dev, const struct norm_desc *q, const float *x, const float *gamma,
                        const float *beta, float p, const struct kstream *s, const float *stats, const float *dy,
                        float *dx, bool acc_dx, float *dgamma, float *dbeta, float *ws)
{
    (void)dev;
    struct view v = view_of(q);
    size_t per = (size_t)q->hw * q->c;
#pragma omp parallel for schedule(static) if (q->n * per > 8192)
    for (int i = 0; i < q->n; i++) {
        struct drop d = drop_of(q, p, s, i);
        size_t row = q->per_sample ? (size_t)i * q->c : 0;
        backward(q, &v, x + i * per, gamma + row, beta + row, &d, stats + (size_t)i * q->groups * 2, dy + i * per,
                 dx + i * per, acc_dx, ws + (size_t)i * 2 * q->c);
    }
    if (q->per_sample) {
        for (int i = 0; i < q->n; i++) {
            const float *part = ws + (size_t)i * 2 * q->c;
            if (dgamma) memcpy(dgamma + (size_t)i * q->c, part, (size_t)q->c * sizeof *part);
            if (dbeta) memcpy(dbeta + (size_t)i * q->c, part + q->c, (size_t)q->c * sizeof *part);
        }
        return;
    }
    /* sums over samples first, so that the running total is rounded once per call and not once per sample */
    float *total = ws;
    for (int i = 1; i < q->n; i++)
        for (int k = 0; k < 2 * q->c; k++) total[k] += ws[(size_t)i * 2 * q->c + k];
    for (int k = 0; k < q->c; k++) {
        if (dgamma) dgamma[k] += total[k];
        if (dbeta) dbeta[k] += total[q->c + k];
    }
}

/* ---- adaptive scale: a row of gamma and beta for each sample --------------------------------------------------------------- */

void cpu_modulate(struct kdev *d, const float *gamma, const float *beta, const float *e, float *g, float *b, int n,
                  int c)
{
    (void)d;
    for (int i = 0; i < n; i++) {
        const float *scale = e + (size_t)i * 2 * c, *shift = scale + c;
        for (int k = 0; k < c; k++) {
            g[(size_t)i * c + k] = gamma[k] * (1 + scale[k]);
            b[(size_t)i * c + k] = beta[k] * (1 + scale[k]) + shift[k];
        }
    }
}

void cpu_modulate_bwd(struct kdev *d, const float *gamma, const float *beta, const float *e, const float *dg,
                      const float *db, float *de, bool acc_e, float *dgamma, float *dbeta, int n, int c)
{
    (void)d;
    for (int k = 0; k < c; k++) {
        double sum_g = 0, sum_b = 0;
        for (int i = 0; i < n; i++) {
            size_t at = (size_t)i * c + k, row = (size_t)i * 2 * c + k;
            double up = 1 + (double)e[row];
            sum_g += dg[at] * up;
            sum_b += db[at] * up;
            if (!de) continue;
            float scale = dg[at] * gamma[k] + db[at] * beta[k];
            de[row] = acc_e ? de[row] + scale : scale;
            de[row + c] = acc_e ? de[row + c] + db[at] : db[at];
        }
        if (dgamma) dgamma[k] += (float)sum_g;
        if (dbeta) dbeta[k] += (float)sum_b;
    }
}
