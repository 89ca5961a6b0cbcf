/* The reference is drawn again for every number: that is cheap, and leaves nothing to go stale. */
#include "core/eval_points.h"

#include <math.h>
#include <string.h>

#include "core/metrics/energy.h"
#include "core/rng.h"

enum { REFERENCE_SEED = 0, PROJECTION_SEED = 0 };

static const char *const metrics[] = {"energy", "sw2"};

bool points_metric_exists(const char *metric)
{
    for (size_t i = 0; i < ARRAY_LEN(metrics); i++)
        if (!strcmp(metric, metrics[i])) return true;
    return false;
}

static bool is_sliced(const char *metric)
{
    return !strcmp(metric, "sw2");
}

void points_metric_identity(const char *metric, struct text *canon)
{
    text_addf(canon, "metric=%s\nuint8=none\nreference.draw=fresh, seed %d\nreference.points=%d\n", metric,
              REFERENCE_SEED, EVAL_POINTS);
    if (is_sliced(metric)) text_addf(canon, "projections=%d, seed %d\n", EVAL_PROJECTIONS, PROJECTION_SEED);
}

err_t points_metric(const char *metric, const struct dataset *d, const double *x, int64_t n, double *out)
{
    int per = d->h * d->w * d->c;
    if (!points_metric_exists(metric))
        return fail(ERR_USAGE, "metric %s is of images, and data set %s holds points: energy, sw2", metric, d->name);
    if (n < 1 || n > 1000000) return fail(ERR_USAGE, "metric %s: %lld samples (1 to 1e6)", metric, (long long)n);
    double *ref = mem_array((size_t)EVAL_POINTS * (size_t)per, sizeof *ref);
    err_t err = dataset_fresh(d, REFERENCE_SEED, EVAL_POINTS, ref);
    if (!err)
        *out = is_sliced(metric) ? sliced_w2(x, (int)n, ref, EVAL_POINTS, per, EVAL_PROJECTIONS, PROJECTION_SEED)
                                 : energy_distance(x, (int)n, ref, EVAL_POINTS, per);
    mem_free(ref);
    return err;
}

err_t points_control_real(const char *metric, const struct dataset *d, int64_t n, uint64_t seed, double *out)
{
    double *x = mem_array((size_t)n * (size_t)(d->h * d->w * d->c), sizeof *x);
    err_t err = dataset_fresh(d, REFERENCE_SEED + 1 + seed, (int)n, x);
    if (!err) err = points_metric(metric, d, x, n, out);
    mem_free(x);
    return err;
}

/* Lower triangular L with L L' = cov; a direction without spread gives a column of zeros. */
static void factor(const double *cov, int d, double *l)
{
    for (int i = 0; i < d; i++)
        for (int j = 0; j <= i; j++) {
            double sum = cov[i * d + j];
            for (int k = 0; k < j; k++) sum -= l[i * d + k] * l[j * d + k];
            if (i == j) l[i * d + j] = sum > 0 ? sqrt(sum) : 0;
            else l[i * d + j] = l[j * d + j] > 0 ? sum / l[j * d + j] : 0;
        }
}

err_t points_control_gaussian(const char *metric, const struct dataset *d, int64_t n, uint64_t seed, double *out)
{
    int per = d->h * d->w * d->c;
    size_t square = (size_t)per * (size_t)per;
    struct rng r = {.seed = seed, .purpose = RNG_LATENT, .layer = 1}; /* apart from the samplers' latents */
    double *mean = mem_array((size_t)per + 2 * square, sizeof *mean), *cov = mean + per, *l = cov + square;
    double *x = mem_array((size_t)n * (size_t)per, sizeof *x);
    for (int i = 0; i < d->n; i++)
        for (int j = 0; j < per; j++) mean[j] += (double)d->values[(ptrdiff_t)i * per + j] / d->n;
    for (int i = 0; i < d->n; i++) {
        const float *v = d->values + (ptrdiff_t)i * per;
        for (int a = 0; a < per; a++)
            for (int b = 0; b < per; b++)
                cov[a * per + b] += ((double)v[a] - mean[a]) * ((double)v[b] - mean[b]) / d->n;
    }
    factor(cov, per, l);
    for (int64_t i = 0; i < n; i++)
        for (int j = 0; j < per; j++) {
            x[i * per + j] = mean[j];
            for (int k = 0; k <= j; k++)
                x[i * per + j] += l[j * per + k] * (double)rng_normal(&r, (uint32_t)i, (uint32_t)k);
        }
    err_t err = points_metric(metric, d, x, n, out);
    mem_free(x);
    mem_free(mean);
    return err;
}
