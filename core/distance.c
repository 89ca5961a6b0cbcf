/* The direction of LPIPS and of the resized distance is computed together with the value, and kept until the gradient asks for it. */
#include "core/distance.h"

#include <math.h>
#include <string.h>

#include "core/metrics/lpips.h"

enum { SIDE = 32 }; /* of l2-32 */

struct distance {
    struct distance_config c;
    int per;
    struct lpips *lpips;
    float *direction;        /* device [rows, h, w, c] */
    float *a, *b, *ones;     /* device: resized images [rows, SIDE, SIDE, c]; [rows] of 1 */
    double *sums_dev, *sums; /* [rows] */
};

static const char *const metric_names[] = {
    [LOSS_L2] = "l2",           [LOSS_HUBER] = "pseudo-huber", [LOSS_L1] = "l1",      [LOSS_L2_MEAN] = "l2-mean",
    [LOSS_L1_MEAN] = "l1-mean", [LOSS_L2_32] = "l2-32",        [LOSS_LPIPS] = "lpips"};

bool loss_metric_find(const char *name, enum loss_metric *m)
{
    for (size_t i = 0; i < ARRAY_LEN(metric_names); i++) {
        if (strcmp(metric_names[i], name)) continue;
        *m = (enum loss_metric)i;
        return true;
    }
    return false;
}

void loss_distance(const struct loss_opts *o, double s, int per, double *d, double *g)
{
    double base = s + o->c * o->c;
    *d = *g = 0;
    if (o->metric == LOSS_L2_MEAN) {
        *d = s / per;
        *g = 2.0 / per;
        return;
    }
    if (base == 0) return;
    if (o->metric == LOSS_HUBER) {
        *d = s / (sqrt(base) + o->c); /* = sqrt(base) - c without cancellation */
        *g = 1 / sqrt(base);
    } else {
        *d = s / pow(base, o->p);
        *g = 2 / pow(base, o->p);
    }
}

static bool is_l1(const struct distance *d)
{
    return d->c.loss.metric == LOSS_L1 || d->c.loss.metric == LOSS_L1_MEAN;
}

static err_t device_alloc(struct distance *d, void **out, size_t bytes)
{
    *out = d->c.kernels->alloc(d->c.dev, bytes);
    return *out ? ERR_OK : fail(ERR_DEVICE_MEM, "device memory for distances of %d images", d->c.rows);
}

err_t distance_new(struct distance **out, const struct distance_config *c)
{
    struct distance *d = mem_alloc(sizeof *d);
    enum loss_metric m = c->loss.metric;
    size_t rows = (size_t)c->rows;
    err_t err = ERR_OK;
    d->c = *c;
    d->per = c->h * c->w * c->c;
    d->sums = mem_array(rows, sizeof(double));
    TRYD(device_alloc(d, (void **)&d->sums_dev, rows * sizeof(double)));
    if (m == LOSS_L2_32 || m == LOSS_LPIPS)
        TRYD(device_alloc(d, (void **)&d->direction, rows * (size_t)d->per * sizeof(float)));
    if (m == LOSS_L2_32) {
        size_t bytes = rows * SIDE * SIDE * (size_t)c->c * sizeof(float);
        TRYD(device_alloc(d, (void **)&d->a, bytes));
        TRYD(device_alloc(d, (void **)&d->b, bytes));
        TRYD(device_alloc(d, (void **)&d->ones, rows * sizeof(float)));
        float *ones = mem_array(rows, sizeof *ones);
        for (size_t i = 0; i < rows; i++) ones[i] = 1;
        c->kernels->upload(c->dev, d->ones, ones, rows * sizeof *ones);
        mem_free(ones);
    }
    if (m == LOSS_LPIPS) TRYD(lpips_new(&d->lpips, c->h, c->w, c->c, c->rows, NULL, c->kernels, c->dev));
done:
    if (err) distance_free(d);
    *out = err ? NULL : d;
    return err;
}

void distance_free(struct distance *d)
{
    if (!d) return;
    void *const buffers[] = {d->direction, d->a, d->b, d->ones, d->sums_dev};
    for (size_t i = 0; i < ARRAY_LEN(buffers); i++) {
        if (buffers[i]) d->c.kernels->free(d->c.dev, buffers[i]);
    }
    lpips_free(d->lpips);
    mem_free(d->sums);
    mem_free(d);
}

const char *distance_sha(const struct distance *d)
{
    return d->lpips ? lpips_sha(d->lpips) : NULL;
}

double distance_flops(const struct distance *d)
{
    return d->lpips ? lpips_flops(d->lpips, true) : 0;
}

static void absolute(struct distance *d, const float *a, const float *b, int n, double *value, double *factor)
{
    double unit = d->c.loss.metric == LOSS_L1_MEAN ? 1.0 / d->per : 1;
    d->c.kernels->absdist_rows(d->c.dev, a, b, d->sums_dev, n, d->per);
    d->c.kernels->download(d->c.dev, d->sums, d->sums_dev, (size_t)n * sizeof(double));
    for (int i = 0; i < n; i++) {
        value[i] = d->sums[i] * unit;
        factor[i] = unit;
    }
}

static void resized(struct distance *d, const float *a, const float *b, int n, double *value, double *factor)
{
    const struct kernels *k = d->c.kernels;
    struct kdev *dev = d->c.dev;
    struct resize_desc q = {.n = n, .h = d->c.h, .w = d->c.w, .c = d->c.c, .ho = SIDE, .wo = SIDE};
    int per = SIDE * SIDE * d->c.c;
    k->resize_fwd(dev, &q, a, d->a);
    k->resize_fwd(dev, &q, b, d->b);
    k->sqdist_rows(dev, d->a, d->b, d->sums_dev, n, per);
    k->download(dev, d->sums, d->sums_dev, (size_t)n * sizeof(double));
    k->diff_rows(dev, d->a, d->b, d->ones, d->a, n, per);
    k->resize_bwd(dev, &q, d->a, d->direction, false);
    for (int i = 0; i < n; i++) {
        value[i] = d->sums[i] / per;
        factor[i] = 2.0 / per;
    }
}

void distance_run(struct distance *d, const float *a, const float *b, int n, const double *squares, double *value,
                  double *factor)
{
    if (is_l1(d)) {
        absolute(d, a, b, n, value, factor);
    } else if (d->c.loss.metric == LOSS_L2_32) {
        resized(d, a, b, n, value, factor);
    } else if (d->lpips) {
        lpips_run(d->lpips, a, b, n, value, d->direction);
        for (int i = 0; i < n; i++) factor[i] = 1;
    } else {
        for (int i = 0; i < n; i++) loss_distance(&d->c.loss, squares[i], d->per, &value[i], &factor[i]);
    }
}

void distance_gradient(struct distance *d, const float *a, const float *b, int n, const float *g, float *da)
{
    const struct kernels *k = d->c.kernels;
    if (is_l1(d)) k->sign_rows(d->c.dev, a, b, g, da, n, d->per);
    else if (d->direction) k->scale_rows(d->c.dev, d->direction, g, da, n, d->per, false);
    else k->diff_rows(d->c.dev, a, b, g, da, n, d->per);
}
