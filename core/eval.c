/* Evaluation: one pass of sampling, quantised once, is shown to every feature space that was asked for; each space looks once, however many
 * metrics are in it. */
#include "core/eval.h"

#include <math.h>
#include <string.h>

#include "core/eval_keep.h"
#include "core/eval_points.h"
#include "core/eval_space.h"
#include "core/metrics/stats.h"
#include "core/metrics/weights.h"
#include "core/rng.h"
#include "kernels/linalg.h"

struct eval {
    struct graph *g;
    const struct dataset *ref;
    const struct kernels *k;
    struct kdev *dev;
    int batch, per;
    double forward_flops;    /* of one sample */
    struct program *prog[2]; /* plain, shifted; made when first needed */
    struct spaces *spaces;
    struct eval_keep keep;
    double *x;       /* [batch, per] */
    uint8_t *px;     /* [batch, per] */
    float *labels;   /* [batch, nclasses] */
    double *dev_x;   /* [batch, per], device */
    uint8_t *dev_px; /* [batch, per], device */
};

/* ---- identity ---------------------------------------------------------------------------------------------------- */

/* Everything but the metric and its extractor: what requests of one sampling pass must share. */
static void add_pass(struct text *t, const struct eval_request *q, const struct dataset *ref)
{
    char stats[SHA256_TEXT];
    if (q->stats[0]) text_addf(t, "reference.stats.sha=%s\n", weights_file_sha(q->stats, stats) ? "unknown" : stats);
    else text_addf(t, "reference=%s\nreference.sha=%s\nreference.count=%d\n", ref->name, ref->sha, ref->n);
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
    struct metric m;
    size_t from = canon->len;
    if (points_metric_exists(q->metric)) {
        points_metric_identity(q->metric, canon);
        add_pass(canon, q, ref);
        sha256_text(canon->s + from, canon->len - from, sha);
        return;
    }
    if (metric_parse(q->metric, &m) || extractor_identity(m.space, ref->h, ref->w, ref->c, extractor))
        text_addf(canon, "metric=%s\nextractor.sha=unknown\n", q->metric);
    else metric_identity(&m, extractor, canon);
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

err_t eval_metric_check(const char *metric, const struct dataset *ref, char out[32])
{
    struct metric m;
    char sha[SHA256_TEXT];
    snprintf(out, 32, "%s", metric);
    if (points_metric_exists(metric)) return eval_metric_fits(metric, ref);
    TRY(metric_parse(metric, &m));
    TRY(eval_metric_fits(metric, ref));
    snprintf(out, 32, "%s", m.name);
    err_t err = extractor_identity(m.space, ref->h, ref->w, ref->c, sha);
    return err ? fail_in(err, "metric %s", m.name) : ERR_OK;
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
    e->spaces = spaces_new(ref, e->batch, k, dev);
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

void eval_free(struct eval *e)
{
    if (!e) return;
    spaces_free(e->spaces);
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

/* Published statistics can stand for the data set where moments are all that counts, and of features of the same kind. */
static err_t stats_check(const struct stats *s, const struct eval_request *q, const struct metric *m, int dim)
{
    if (!q->stats[0]) return ERR_OK;
    if (m->measure == MEASURE_CLASSES)
        return fail(ERR_USAGE, "eval.stats is for Frechet distances, and %s is none", m->name);
    if (metric_needs_rows(m))
        return fail(ERR_USAGE, "eval.stats holds moments, and %s needs the features themselves", m->name);
    if (s->d == dim) return ERR_OK;
    return fail(ERR_USAGE, "eval.stats: %s is of %d features, and %s has %d", q->stats, s->d, m->name, dim);
}

static err_t stats_distance(const struct stats *s, const struct metric *m, const struct moments *got, double *out)
{
    size_t d = (size_t)got->d;
    if (got->n < 2) return fail(ERR_USAGE, "%s of %lld samples", m->name, (long long)got->n);
    double *cov = mem_array(d * d, sizeof *cov);
    moments_cov(got, m->biased, cov);
    err_t err = frechet_distance(got->d, got->mean, cov, s->mean, s->cov, out);
    mem_free(cov);
    return err;
}

/* What one space sees of a pass. */
struct look {
    struct space *space;
    struct feature_set set;
    int metrics; /* requests that share it */
};

void eval_keep(struct eval *e, const struct eval_keep *k)
{
    e->keep = k ? *k : (struct eval_keep){.path = NULL};
}

/* Of all requests and of what the caller said. */
static void pass_key(const struct eval *e, const struct eval_request *q, int n, char key[SHA256_TEXT])
{
    struct text t = {0};
    char sha[SHA256_TEXT];
    text_addf(&t, "%s\n", e->keep.of ? e->keep.of : "");
    for (int i = 0; i < n; i++) eval_identity(&q[i], e->ref, &t, sha);
    sha256_text(t.s, t.len, key);
    text_done(&t);
}

/* Saves when it is time, or when the caller wants to stop. */
static err_t pass_keep(const struct eval *e, const struct eval_state *s, int64_t total, int64_t *saved_ms)
{
    if (!e->keep.path || s->done >= total) return ERR_OK;
    bool stop = e->keep.stop && e->keep.stop(e->keep.ctx);
    int64_t now = host.mono_ns() / 1000000;
    if (stop || now - *saved_ms >= e->keep.every_ms) {
        *saved_ms = now;
        TRY(eval_state_save(e->keep.path, s));
    }
    if (!stop) return ERR_OK;
    return fail(ERR_INTERRUPTED, "stopped after %lld of %lld samples; the evaluation goes on from there",
                (long long)s->done, (long long)total);
}

/* The sampling pass, shown to the looks of s. */
static err_t eval_pass(struct eval *e, struct params *w, const struct eval_request *q, struct look *looks,
                       struct eval_state *state, int *nfe, void (*progress)(void *ctx, int64_t done, int64_t total),
                       void *ctx)
{
    struct sampler *s = NULL;
    err_t err = ERR_OK;
    uint32_t *index = mem_array((size_t)e->batch, sizeof *index);
    int64_t saved_ms = host.mono_ns() / 1000000;
    TRYD(sampler_get(e, q, &s));
    for (int64_t at = state->done; at < q->samples; at += e->batch) {
        int take = q->samples - at < e->batch ? (int)(q->samples - at) : e->batch;
        int64_t start = host.mono_ns();
        for (int i = 0; i < take; i++) index[i] = (uint32_t)(at + i);
        TRYD(sample_chunk(e, s, w, q, q->seed, index, take, e->x));
        quantize(e, take);
        state->seconds += (double)(host.mono_ns() - start) * 1e-9;
        for (int i = 0; i < state->n; i++) {
            start = host.mono_ns();
            TRYD(space_add(looks[i].space, &looks[i].set, e->px, take));
            state->own[i] += (double)(host.mono_ns() - start) * 1e-9;
        }
        state->done = at + take;
        *nfe = (int)sampler_nfe(s);
        if (progress) progress(ctx, at + take, q->samples);
        TRYD(pass_keep(e, state, q->samples, &saved_ms));
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
    struct metric *m = mem_array((size_t)n, sizeof *m);
    struct look *looks = mem_array((size_t)n, sizeof *looks);
    int *of = mem_array((size_t)n, sizeof *of), count = 0, nfe = 0; /* of: request -> look */
    struct eval_state state = {.own = mem_array((size_t)n, sizeof(double)),
                               .set = mem_array((size_t)n, sizeof(struct feature_set *))};
    struct stats stats = {.d = 0};
    TRYD(requests_check(e, q, n));
    if (q->stats[0]) TRYD(stats_read(&stats, q->stats));
    for (int i = 0; i < n; i++) {
        struct space *space;
        out[i] = (struct eval_value){0};
        TRYD(eval_metric_fits(q[i].metric, e->ref));
        TRYD(metric_parse(q[i].metric, &m[i]));
        TRYD(spaces_get(e->spaces, &m[i], !q->stats[0], &space));
        TRYD(stats_check(&stats, q, &m[i], space_dim(space)));
        for (of[i] = 0; of[i] < count && looks[of[i]].space != space; of[i]++) {}
        struct look *l = &looks[of[i]];
        if (of[i] == count) {
            count++;
            l->space = space;
            TRYD(feature_set_init(&l->set, space_dim(space), false));
        }
        l->set.keep = l->set.keep || metric_needs_rows(&m[i]);
        l->metrics++;
    }
    state.n = count;
    for (int i = 0; i < count; i++) state.set[i] = &looks[i].set;
    if (e->keep.path) {
        pass_key(e, q, n, state.key);
        eval_state_load(e->keep.path, &state);
    }
    TRYD(eval_pass(e, w, q, looks, &state, &nfe, progress, ctx));
    if (e->keep.path) remove(e->keep.path); /* a file that stays is of no harm: its pass is in the ledger */
    for (int i = 0; i < n; i++) {
        const struct look *l = &looks[of[i]];
        int64_t start = host.mono_ns();
        if (q->stats[0]) TRYD(stats_distance(&stats, &m[i], &l->set.m, &out[i].value));
        else TRYD(metric_of(&m[i], space_reference(l->space), &l->set, &out[i].value));
        out[i].seconds = state.seconds / n + state.own[of[i]] / l->metrics + (double)(host.mono_ns() - start) * 1e-9;
        out[i].nfe = nfe;
        out[i].flops = e->forward_flops * nfe * (double)q->samples / n;
    }
done:
    for (int i = 0; i < count; i++) feature_set_done(&looks[i].set);
    stats_done(&stats);
    mem_free(m);
    mem_free(looks);
    mem_free(of);
    mem_free(state.own);
    mem_free(state.set);
    return err;
}

/* ---- controls ---------------------------------------------------------------------------------------------------- */

static err_t control_halves(struct eval *e, struct space *s, const struct metric *m, uint64_t seed, double *out)
{
    err_t err = ERR_OK;
    struct feature_set half[2] = {{.n = 0}};
    int n = e->ref->n / 2;
    uint32_t *idx = mem_array((size_t)e->ref->n, sizeof *idx);
    for (int i = 0; i < e->ref->n; i++) idx[i] = rng_permute(seed, 0, (uint32_t)e->ref->n, (uint32_t)i);
    for (int k = 0; k < 2; k++) {
        TRYD(feature_set_init(&half[k], space_dim(s), metric_needs_rows(m)));
        TRYD(space_add_data(s, &half[k], idx + (ptrdiff_t)k * n, n));
    }
    TRYD(metric_of(m, &half[1], &half[0], out));
done:
    feature_set_done(&half[0]);
    feature_set_done(&half[1]);
    mem_free(idx);
    return err;
}

/* x = mean + W^1/2-scaled eigenvectors times normals: a[i, :] = sqrt(w_i) v_i. */
static err_t gaussian_factor(struct eval *e, double *mean, double *a)
{
    struct space *pixel;
    struct metric m;
    size_t d = (size_t)e->per;
    TRY(metric_parse("fd_pixel", &m));
    TRY(spaces_get(e->spaces, &m, true, &pixel));
    const struct moments *of = &space_reference(pixel)->m;
    memcpy(mean, of->mean, d * sizeof *mean);
    double *w = mem_array(d, sizeof *w);
    moments_cov(of, false, a);
    err_t err = linalg_eigh(e->per, a, w);
    for (size_t i = 0; i < d && !err; i++)
        for (size_t j = 0; j < d; j++) a[i * d + j] *= sqrt(w[i] > 0 ? w[i] : 0);
    mem_free(w);
    return err;
}

static err_t control_gaussian(struct eval *e, struct space *s, const struct metric *m, int64_t samples, uint64_t seed,
                              double *out)
{
    err_t err = ERR_OK;
    size_t d = (size_t)e->per;
    struct feature_set set = {.n = 0};
    struct rng r = {.seed = seed, .purpose = RNG_LATENT, .layer = 1}; /* apart from the samplers' latents */
    double *mean = mem_array(d, sizeof *mean), *a = mem_array(d * d, sizeof *a),
           *z = mem_array((size_t)e->batch * d, sizeof *z);
    TRYD(feature_set_init(&set, space_dim(s), metric_needs_rows(m)));
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
        TRYD(space_add(s, &set, e->px, take));
    }
    TRYD(metric_of(m, space_reference(s), &set, out));
done:
    feature_set_done(&set);
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
    struct metric m;
    TRY(eval_metric_fits(metric, e->ref));
    TRY(metric_parse(metric, &m));
    TRY(spaces_get(e->spaces, &m, true, &s));
    return kind == CONTROL_REAL_HALF ? control_halves(e, s, &m, seed, out)
                                     : control_gaussian(e, s, &m, samples, seed, out);
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
