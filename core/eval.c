/* Evaluation: one pass of sampling, quantised once, is shown to every feature space that was asked for. Reference
 * statistics are of the whole data set and are made once per space. */
#include "core/eval.h"

#include <math.h>
#include <string.h>

#include "core/eval_points.h"
#include "core/metrics/features.h"
#include "core/metrics/frechet.h"
#include "core/rng.h"
#include "kernels/linalg.h"

enum { SPACES = 8 };

struct space { /* one extractor with the reference's moments in it */
    char name[24];
    struct extractor *x;
    struct moments ref;
    float *feat; /* [batch, dim] */
};

struct eval {
    struct graph *g;
    const struct dataset *ref;
    const struct kernels *k;
    struct kdev *dev;
    int batch, per;
    double forward_flops;    /* of one sample */
    struct program *prog[2]; /* plain, shifted; made when first needed */
    struct space spaces[SPACES];
    int nspaces;
    double *x;       /* [batch, per] */
    uint8_t *px;     /* [batch, per] */
    float *labels;   /* [batch, nclasses] */
    double *dev_x;   /* [batch, per], device */
    uint8_t *dev_px; /* [batch, per], device */
};

/* ---- identity ---------------------------------------------------------------------------------------------------- */

/* "fd_pixel" -> "pixel", or NULL. */
static const char *space_of(const char *metric)
{
    return strncmp(metric, "fd_", 3) ? NULL : metric + 3;
}

/* Everything but the metric and its extractor: what requests of one sampling pass must share. */
static void add_pass(struct text *t, const struct eval_request *q, const struct dataset *ref)
{
    text_addf(t, "reference=%s\nreference.sha=%s\nreference.count=%d\n", ref->name, ref->sha, ref->n);
    text_addf(t, "samples=%lld\nseed=%llu\n", (long long)q->samples, (unsigned long long)q->seed);
    sampler_identity(&q->sampler, t);
    text_addf(t, "precond=%s\nprecision=fp32 network, fp64 state\n", q->shifted ? "shifted" : "plain");
    text_add(t, "labels=");
    labels_text(q->cond ? &q->labels : &(struct label_policy){.kind = LABELS_NONE}, t);
    text_add(t, "\n");
}

void eval_identity(const struct eval_request *q, const struct dataset *ref, struct text *canon, char sha[SHA256_TEXT])
{
    char extractor[SHA256_TEXT] = "unknown";
    const char *space = space_of(q->metric);
    size_t from = canon->len;
    if (points_metric_exists(q->metric)) {
        points_metric_identity(q->metric, canon);
        add_pass(canon, q, ref);
        sha256_text(canon->s + from, canon->len - from, sha);
        return;
    }
    if (!space || extractor_identity(space, ref->h, ref->w, ref->c, extractor)) strcpy(extractor, "unknown");
    text_addf(canon, "metric=%s\nextractor.sha=%s\nresize=none\ncovariance=n-1\nuint8=trunc(x*127.5+128)\n", q->metric,
              extractor);
    add_pass(canon, q, ref);
    sha256_text(canon->s + from, canon->len - from, sha);
}

err_t eval_metric_fits(const char *metric, const struct dataset *ref)
{
    bool points = points_metric_exists(metric);
    if (points == (ref->values != NULL)) return ERR_OK;
    if (points)
        return fail(ERR_USAGE, "metric %s is of points in a plane, and data set %s holds images: fd_random, fd_pixel",
                    metric, ref->name);
    return fail(ERR_USAGE, "metric %s is of images, and data set %s holds points: energy, sw2", metric, ref->name);
}

/* ---- parts ------------------------------------------------------------------------------------------------------- */

err_t eval_new(struct eval **out, struct graph *g, const struct dataset *ref, const struct kernels *k, struct kdev *dev)
{
    struct flops f;
    struct eval *e = mem_alloc(sizeof *e);
    *out = NULL;
    graph_flops(g, &f);
    *e = (struct eval){
        .g = g, .ref = ref, .k = k, .dev = dev, .per = ref->h * ref->w * ref->c, .forward_flops = flops_total(&f)};
    e->batch = e->per <= 1024 ? 256 : 64; /* speed only */
    size_t count = (size_t)e->batch * (size_t)e->per;
    e->x = mem_array(count, sizeof *e->x);
    e->px = mem_array(count, sizeof *e->px);
    e->labels = mem_array((size_t)e->batch * (size_t)(ref->nclasses + 1), sizeof *e->labels);
    e->dev_x = k->alloc(dev, count * sizeof *e->dev_x);
    e->dev_px = k->alloc(dev, count * sizeof *e->dev_px);
    if (!e->dev_x || !e->dev_px) {
        eval_free(e);
        return fail(ERR_DEVICE_MEM, "evaluation: no device memory for %d images", e->batch);
    }
    *out = e;
    return ERR_OK;
}

static void space_done(struct space *s)
{
    extractor_free(s->x);
    moments_done(&s->ref);
    mem_free(s->feat);
    *s = (struct space){0};
}

void eval_free(struct eval *e)
{
    if (!e) return;
    for (int i = 0; i < e->nspaces; i++) space_done(&e->spaces[i]);
    for (int i = 0; i < 2; i++)
        if (e->prog[i]) program_free(e->prog[i]);
    if (e->dev_x) e->k->free(e->dev, e->dev_x);
    if (e->dev_px) e->k->free(e->dev, e->dev_px);
    mem_free(e->x);
    mem_free(e->px);
    mem_free(e->labels);
    mem_free(e);
}

static err_t program_get(struct eval *e, bool shifted, struct program **p)
{
    struct program_opts o = {.batch = e->batch, .eval_form = shifted, .only = "D"};
    if (!e->prog[shifted]) TRY(program_new(&e->prog[shifted], e->g, e->k, e->dev, &o));
    *p = e->prog[shifted];
    return ERR_OK;
}

/* Adds n <= batch images to moments of a space. */
static err_t space_add(struct space *s, struct moments *m, const uint8_t *px, int n)
{
    TRY(extractor_run(s->x, px, n, s->feat));
    moments_add(m, s->feat, n);
    return ERR_OK;
}

/* The images idx[0..n) of the data set, or its first n. */
static err_t space_add_data(struct eval *e, struct space *s, struct moments *m, const uint32_t *idx, int n)
{
    size_t per = (size_t)e->per;
    for (int at = 0; at < n; at += e->batch) {
        int take = n - at < e->batch ? n - at : e->batch;
        for (int i = 0; i < take; i++)
            memcpy(e->px + (size_t)i * per, e->ref->pixels + (idx ? idx[at + i] : (size_t)(at + i)) * per, per);
        TRY(space_add(s, m, e->px, take));
    }
    return ERR_OK;
}

static err_t space_get(struct eval *e, const char *metric, struct space **out)
{
    const char *name = space_of(metric);
    TRY(eval_metric_fits(metric, e->ref));
    if (!name) return fail(ERR_USAGE, "no metric named '%s' (there are fd_pixel, fd_random)", metric);
    for (int i = 0; i < e->nspaces; i++)
        if (!strcmp(e->spaces[i].name, name)) {
            *out = &e->spaces[i];
            return ERR_OK;
        }
    if (e->nspaces == SPACES) return fail(ERR_FAILED, "more than %d feature spaces in one evaluation", SPACES);
    struct space *s = &e->spaces[e->nspaces];
    err_t err = extractor_new(&s->x, name, e->ref->h, e->ref->w, e->ref->c, e->batch, e->k, e->dev);
    if (err) return fail_in(err, "metric %s", metric);
    snprintf(s->name, sizeof s->name, "%s", name);
    s->feat = mem_array((size_t)e->batch * (size_t)extractor_dim(s->x), sizeof *s->feat);
    err = moments_init(&s->ref, extractor_dim(s->x));
    if (!err) err = space_add_data(e, s, &s->ref, NULL, e->ref->n);
    if (err) {
        space_done(s);
        return err;
    }
    e->nspaces++;
    *out = s;
    return ERR_OK;
}

/* trunc(clamp(x * 127.5 + 128, 0, 255)) of n images of e->x into e->px. */
static void quantize(struct eval *e, int n)
{
    size_t count = (size_t)n * (size_t)e->per;
    e->k->upload(e->dev, e->dev_x, e->x, count * sizeof *e->x);
    e->k->quantize_u8(e->dev, e->dev_x, e->dev_px, count);
    e->k->download(e->dev, e->px, e->dev_px, count);
}

static err_t sampler_get(struct eval *e, const struct eval_request *q, struct sampler **s)
{
    struct program *prog;
    struct sampler_config c = q->sampler;
    if (q->cond) TRY(labels_check(&q->labels, e->ref));
    TRY(program_get(e, q->shifted, &prog));
    /* a network with labels is given some in any case: rows of zeros are its unconditional label */
    c.label_dim = q->cond || program_input(prog, "labels") ? e->ref->nclasses : 0;
    return sampler_new(s, &c, prog, e->batch, e->per, e->k, e->dev);
}

static err_t sample_chunk(struct eval *e, struct sampler *s, struct params *w, const struct eval_request *q,
                          uint64_t seed, const uint32_t *index, int n, double *out)
{
    struct label_policy none = {.kind = LABELS_NONE};
    labels_draw(q->cond ? &q->labels : &none, e->ref, seed, index, n, e->labels);
    return sampler_draw(s, w, seed, index, n, e->labels, out);
}

err_t eval_samples(struct eval *e, struct params *w, const struct eval_request *q, uint64_t seed, const uint32_t *index,
                   int n, double *out)
{
    struct sampler *s;
    err_t err = ERR_OK;
    TRY(sampler_get(e, q, &s));
    for (int at = 0; at < n; at += e->batch) {
        int take = n - at < e->batch ? n - at : e->batch;
        TRYD(sample_chunk(e, s, w, q, seed, index + at, take, out + (size_t)at * (size_t)e->per));
    }
done:
    sampler_free(s);
    return err;
}

/* ---- metrics ----------------------------------------------------------------------------------------------------- */

/* The sampling pass: n spaces, their moments m, a time for each. */
static err_t eval_pass(struct eval *e, struct params *w, const struct eval_request *q, struct space **spaces,
                       struct moments *m, int n, struct eval_value *out,
                       void (*progress)(void *ctx, int64_t done, int64_t total), void *ctx)
{
    struct sampler *s = NULL;
    err_t err = ERR_OK;
    uint32_t *index = mem_array((size_t)e->batch, sizeof *index);
    TRYD(sampler_get(e, q, &s));
    for (int64_t at = 0; at < q->samples; at += e->batch) {
        int take = q->samples - at < e->batch ? (int)(q->samples - at) : e->batch;
        int64_t start = host.mono_ns();
        for (int i = 0; i < take; i++) index[i] = (uint32_t)(at + i);
        TRYD(sample_chunk(e, s, w, q, q->seed, index, take, e->x));
        quantize(e, take);
        double shared = (double)(host.mono_ns() - start) * 1e-9 / n;
        for (int i = 0; i < n; i++) {
            start = host.mono_ns();
            TRYD(space_add(spaces[i], &m[i], e->px, take));
            out[i].seconds += shared + (double)(host.mono_ns() - start) * 1e-9;
            out[i].nfe = (int)sampler_nfe(s);
        }
        if (progress) progress(ctx, at + take, q->samples);
    }
done:
    sampler_free(s);
    mem_free(index);
    return err;
}

/* Requests of one pass differ in nothing but the metric. */
static err_t requests_check(struct eval *e, const struct eval_request *q, int n)
{
    struct text first = {0}, other = {0};
    err_t err = ERR_OK;
    add_pass(&first, &q[0], e->ref);
    for (int i = 1; i < n && !err; i++) {
        other.len = 0;
        add_pass(&other, &q[i], e->ref);
        if (strcmp(text_str(&first), text_str(&other)) != 0)
            err = fail(ERR_FAILED, "evaluation: requests of one pass differ in more than the metric");
    }
    text_done(&first);
    text_done(&other);
    if (!err && (q->samples < 2 || q->samples > UINT32_MAX))
        err = fail(ERR_USAGE, "evaluation: %lld samples; 2 or more are needed", (long long)q->samples);
    return err;
}

/* Points: all samples are kept, and every metric sees them as the sampler left them. */
static err_t points_run(struct eval *e, struct params *w, const struct eval_request *q, int n, struct eval_value *out,
                        void (*progress)(void *ctx, int64_t done, int64_t total), void *ctx)
{
    struct sampler *s = NULL;
    err_t err = ERR_OK;
    uint32_t *index = mem_array((size_t)e->batch, sizeof *index);
    double *all = mem_array((size_t)q->samples * (size_t)e->per, sizeof *all);
    int64_t start = host.mono_ns();
    TRYD(sampler_get(e, q, &s));
    for (int64_t at = 0; at < q->samples; at += e->batch) {
        int take = q->samples - at < e->batch ? (int)(q->samples - at) : e->batch;
        for (int i = 0; i < take; i++) index[i] = (uint32_t)(at + i);
        TRYD(sample_chunk(e, s, w, q, q->seed, index, take, all + at * e->per));
        if (progress) progress(ctx, at + take, q->samples);
    }
    double shared = (double)(host.mono_ns() - start) * 1e-9 / n;
    for (int i = 0; i < n; i++) {
        start = host.mono_ns();
        out[i] = (struct eval_value){.nfe = (int)sampler_nfe(s)};
        TRYD(points_metric(q[i].metric, e->ref, all, q->samples, &out[i].value));
        out[i].seconds = shared + (double)(host.mono_ns() - start) * 1e-9;
        out[i].flops = e->forward_flops * out[i].nfe * (double)q->samples / n;
    }
done:
    sampler_free(s);
    mem_free(all);
    mem_free(index);
    return err;
}

err_t eval_run(struct eval *e, struct params *w, const struct eval_request *q, int n, struct eval_value *out,
               void (*progress)(void *ctx, int64_t done, int64_t total), void *ctx)
{
    if (e->ref->values) {
        TRY(requests_check(e, q, n));
        return points_run(e, w, q, n, out, progress, ctx);
    }
    err_t err = ERR_OK;
    struct space **spaces = mem_array((size_t)n, sizeof *spaces);
    struct moments *m = mem_array((size_t)n, sizeof *m);
    TRYD(requests_check(e, q, n));
    for (int i = 0; i < n; i++) {
        out[i] = (struct eval_value){0};
        TRYD(space_get(e, q[i].metric, &spaces[i]));
        TRYD(moments_init(&m[i], extractor_dim(spaces[i]->x)));
    }
    TRYD(eval_pass(e, w, q, spaces, m, n, out, progress, ctx));
    for (int i = 0; i < n; i++) {
        int64_t start = host.mono_ns();
        TRYD(frechet_of(&m[i], &spaces[i]->ref, false, &out[i].value));
        out[i].seconds += (double)(host.mono_ns() - start) * 1e-9;
        out[i].flops = e->forward_flops * out[i].nfe * (double)q->samples / n;
    }
done:
    for (int i = 0; i < n; i++) moments_done(&m[i]);
    mem_free(m);
    mem_free(spaces);
    return err;
}

/* ---- controls ---------------------------------------------------------------------------------------------------- */

static err_t control_halves(struct eval *e, struct space *s, uint64_t seed, double *out)
{
    err_t err = ERR_OK;
    struct moments half[2] = {{0}};
    int n = e->ref->n / 2;
    uint32_t *idx = mem_array((size_t)e->ref->n, sizeof *idx);
    for (int i = 0; i < e->ref->n; i++) idx[i] = rng_permute(seed, 0, (uint32_t)e->ref->n, (uint32_t)i);
    for (int k = 0; k < 2; k++) {
        TRYD(moments_init(&half[k], extractor_dim(s->x)));
        TRYD(space_add_data(e, s, &half[k], idx + (ptrdiff_t)k * n, n));
    }
    TRYD(frechet_of(&half[0], &half[1], false, out));
done:
    moments_done(&half[0]);
    moments_done(&half[1]);
    mem_free(idx);
    return err;
}

/* x = mean + W^1/2-scaled eigenvectors times normals: a[i, :] = sqrt(w_i) v_i. */
static err_t gaussian_factor(struct eval *e, double *mean, double *a)
{
    struct space *pixel;
    size_t d = (size_t)e->per;
    TRY(space_get(e, "fd_pixel", &pixel));
    memcpy(mean, pixel->ref.mean, d * sizeof *mean);
    double *w = mem_array(d, sizeof *w);
    moments_cov(&pixel->ref, false, a);
    err_t err = linalg_eigh(e->per, a, w);
    for (size_t i = 0; i < d && !err; i++)
        for (size_t j = 0; j < d; j++) a[i * d + j] *= sqrt(w[i] > 0 ? w[i] : 0);
    mem_free(w);
    return err;
}

static err_t control_gaussian(struct eval *e, struct space *s, int64_t samples, uint64_t seed, double *out)
{
    err_t err = ERR_OK;
    size_t d = (size_t)e->per;
    struct moments m = {0};
    struct rng r = {.seed = seed, .purpose = RNG_LATENT, .layer = 1}; /* apart from the samplers' latents */
    double *mean = mem_array(d, sizeof *mean), *a = mem_array(d * d, sizeof *a),
           *z = mem_array((size_t)e->batch * d, sizeof *z);
    TRYD(moments_init(&m, extractor_dim(s->x)));
    TRYD(gaussian_factor(e, mean, a));
    for (int64_t at = 0; at < samples; at += e->batch) {
        int take = samples - at < e->batch ? (int)(samples - at) : e->batch;
        for (int i = 0; i < take; i++)
            for (size_t j = 0; j < d; j++) {
                z[(size_t)i * d + j] = rng_normal(&r, (uint32_t)(at + i), (uint32_t)j);
                e->x[(size_t)i * d + j] = mean[j];
            }
        linalg_dgemm(false, false, take, e->per, e->per, 1, z, e->per, a, e->per, 1, e->x, e->per);
        quantize(e, take);
        TRYD(space_add(s, &m, e->px, take));
    }
    TRYD(frechet_of(&m, &s->ref, false, out));
done:
    moments_done(&m);
    mem_free(mean);
    mem_free(a);
    mem_free(z);
    return err;
}

err_t eval_control(struct eval *e, enum eval_control kind, const char *metric, int64_t samples, uint64_t seed,
                   double *out)
{
    struct space *s;
    if (e->ref->values)
        return kind == CONTROL_REAL_HALF ? points_control_real(metric, e->ref, samples, seed, out)
                                         : points_control_gaussian(metric, e->ref, samples, seed, out);
    TRY(space_get(e, metric, &s));
    return kind == CONTROL_REAL_HALF ? control_halves(e, s, seed, out) : control_gaussian(e, s, samples, seed, out);
}

void eval_nearest(const struct dataset *d, const double *x, int n, int32_t *index)
{
    size_t per = (size_t)d->h * (size_t)d->w * (size_t)d->c;
    for (int i = 0; i < n; i++) {
        const double *xi = x + (size_t)i * per;
        double best = INFINITY;
        index[i] = 0;
        for (int k = 0; k < d->n; k++) {
            double sum = 0;
            for (size_t j = 0; j < per && sum < best; j++) {
                size_t at = (size_t)k * per + j;
                double diff = xi[j] - (d->values ? (double)d->values[at] : d->pixels[at] / 127.5 - 1);
                sum += diff * diff;
            }
            if (sum < best) {
                best = sum;
                index[i] = k;
            }
        }
    }
}
