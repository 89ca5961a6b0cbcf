/* What all samplers share: configuration, identity, memory, the network call that is counted and the noise that is
 * named by (seed block, sample, step), so that a batch is a matter of speed alone. The methods: sampler_methods.c. */
#include "core/sampler.h"

#include <math.h>
#include <string.h>

#include "core/rng.h"
#include "core/sampler_methods.h"

enum { METHODS_MAX = 32 };

/* ---- configuration ----------------------------------------------------------------------------------------------- */

const struct sampler_info *sampler_at(int i)
{
    for (int k = 0; k < i; k++)
        if (!sampler_methods[k].info.name) return NULL;
    return sampler_methods[i].info.name ? &sampler_methods[i].info : NULL;
}

static const struct sampler_method *method_of(const char *name)
{
    for (const struct sampler_method *m = sampler_methods; m->info.name; m++)
        if (!strcmp(m->info.name, name)) return m;
    return NULL;
}

err_t sampler_find(const char *name, const struct sampler_info **info)
{
    const char *names[METHODS_MAX];
    size_t n = 0;
    const struct sampler_method *m = method_of(name);
    *info = m ? &m->info : NULL;
    if (m) return ERR_OK;
    struct text all = {0};
    for (m = sampler_methods; m->info.name; m++) {
        text_addf(&all, "%s%s", n ? ", " : "", m->info.name);
        names[n++] = m->info.name;
    }
    const char *near = nearest_name(name, names, n);
    err_t err = fail(ERR_USAGE, "no sampler named '%s'%s%s%s (there are %s)", name, near ? ": did you mean '" : "",
                     near ? near : "", near ? "'?" : "", text_str(&all));
    text_done(&all);
    return err;
}

void sampler_defaults(struct sampler_config *c, const char *name, int nfe)
{
    memset(c, 0,
           sizeof *c); /* and no assignment of a whole struct: padding must be zero where configurations are compared */
    c->nfe = nfe;
    c->sigma_min = 0.002, c->sigma_max = 80, c->rho = 7;
    c->s_max = INFINITY, c->s_noise = 1;
    c->alpha = 1;
    c->beta_min = 0.1, c->beta_max = 20;
    snprintf(c->name, sizeof c->name, "%s", name);
    if (!strcmp(name, "ect") && nfe > 1) c->mid_t[c->nmid++] = 0.821;
}

static int steps_of(const struct sampler_method *m, const struct sampler_config *c)
{
    return m->calls == 2 ? (c->nfe + 1) / 2 : c->nfe;
}

static err_t config_check(const struct sampler_config *c)
{
    const struct sampler_info *info;
    TRY(sampler_find(c->name, &info));
    const struct sampler_method *m = method_of(c->name);
    if (c->nfe < 1) return fail(ERR_USAGE, "sampler %s: nfe = %d", c->name, c->nfe);
    if (m->calls == 2 && c->nfe % 2 == 0)
        return fail(ERR_USAGE, "sampler %s: nfe = %d; it makes %s evaluations, an odd number", c->name, c->nfe,
                    info->nfe);
    if ((info->uses & USES_SIGMA_MAX) && !(c->sigma_max > 0))
        return fail(ERR_USAGE, "sampler %s: sigma_max must be above 0", c->name);
    if ((info->uses & USES_SIGMA_MIN) && (!(c->sigma_min > 0) || !(c->sigma_min < c->sigma_max)))
        return fail(ERR_USAGE, "sampler %s: needs 0 < sigma_min < sigma_max", c->name);
    if ((info->uses & USES_RHO) && !(c->rho > 0)) return fail(ERR_USAGE, "sampler %s: needs rho above 0", c->name);
    return m->check ? m->check(c) : ERR_OK;
}

err_t sampler_from_spec(struct sampler_config *c, const struct spec *e, int nfe)
{
    const struct sampler_info *info;
    TRY(sampler_find(e->eval_sampler.s, &info));
    sampler_defaults(c, info->name, nfe);
    if (info->uses & USES_SIGMA_MIN) c->sigma_min = e->eval_sigma_min;
    if (info->uses & USES_SIGMA_MAX) c->sigma_max = e->eval_sigma_max;
    if (info->uses & USES_RHO) c->rho = e->eval_rho;
    if (info->uses & USES_ALPHA) c->alpha = e->eval_alpha;
    if (info->uses & USES_BETA) c->beta_min = e->eval_beta_min, c->beta_max = e->eval_beta_max;
    if ((info->uses & USES_CHURN) && e->eval_churn > 0) {
        c->s_churn = e->eval_churn;
        c->s_min = e->eval_churn_min;
        c->s_max = e->eval_churn_max;
        c->s_noise = e->eval_churn_noise;
    }
    if (info->uses & USES_MID_T) {
        int need = nfe > 0 ? nfe - 1 : 0;
        c->nmid = need < e->eval_mid_t.n ? need : e->eval_mid_t.n;
        for (int i = 0; i < (int)ARRAY_LEN(c->mid_t); i++) c->mid_t[i] = i < c->nmid ? e->eval_mid_t.v[i] : 0;
    }
    return config_check(c);
}

double sampler_churned(const struct sampler_config *c, int steps, double t)
{
    double gamma = t >= c->s_min && t <= c->s_max ? fmin(c->s_churn / steps, sqrt(2) - 1) : 0;
    return t + gamma * t;
}

double sampler_second(const struct sampler_config *c, double t, double t_next)
{
    return c->alpha == 1 ? t_next : t + c->alpha * (t_next - t);
}

int sampler_levels(const struct sampler_config *c, double *t, int cap)
{
    const struct sampler_method *m = method_of(c->name);
    int n = 0, steps = m ? steps_of(m, c) : 0;
    if (steps < 1 || ((m->info.uses & USES_MID_T) && steps - 1 > (int)ARRAY_LEN(c->mid_t))) return 0;
    double *grid = mem_array((size_t)steps + 1, sizeof *grid);
    m->grid(c, steps, grid);
    for (int i = 0; i < steps; i++) {
        double first = m->info.uses & USES_CHURN ? sampler_churned(c, steps, grid[i]) : grid[i];
        if (n < cap) t[n++] = first;
        if (m->calls == 2 && i + 1 < steps && n < cap) t[n++] = sampler_second(c, first, grid[i + 1]);
    }
    mem_free(grid);
    return n;
}

static void add_num(struct text *t, const char *key, double v)
{
    char buf[NUM_TEXT];
    text_addf(t, "%s=%s\n", key, num_text(buf, v));
}

/* Levels say what the grid's settings are; churn also adds noise, and alpha weighs the slopes. */
void sampler_identity(const struct sampler_config *c, struct text *out)
{
    char buf[NUM_TEXT];
    double *level = mem_array((size_t)(c->nfe > 0 ? c->nfe : 0) + 1, sizeof *level);
    int n = sampler_levels(c, level, c->nfe);
    const struct sampler_method *m = method_of(c->name);
    unsigned uses = m ? m->info.uses : 0;
    text_addf(out, "sampler=%s\n", c->name);
    text_addf(out, "nfe=%d\nt=", c->nfe);
    for (int i = 0; i < n; i++) text_addf(out, "%s%s", i ? "," : "", num_text(buf, level[i]));
    text_add(out, "\n");
    if ((uses & USES_CHURN) && c->s_churn > 0) {
        add_num(out, "churn", c->s_churn);
        add_num(out, "churn.min", c->s_min);
        add_num(out, "churn.max", c->s_max);
        add_num(out, "churn.noise", c->s_noise);
    }
    if ((uses & USES_ALPHA) && c->alpha != 1) add_num(out, "alpha", c->alpha);
    mem_free(level);
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

static err_t new_common(struct sampler **out, const struct sampler_config *c, int batch, int per,
                        const struct kernels *k, struct kdev *dev)
{
    *out = NULL;
    TRY(config_check(c));
    struct sampler *s = mem_alloc(sizeof *s);
    size_t count = (size_t)batch * (size_t)per;
    *s = (struct sampler){.c = *c, .method = method_of(c->name), .k = k, .dev = dev, .batch = batch, .per = per};
    s->steps = steps_of(s->method, c);
    s->grid = mem_array((size_t)s->steps + 1, sizeof *s->grid);
    s->method->grid(c, s->steps, s->grid);
    s->host = mem_array(count, sizeof *s->host);
    s->sigma_host = mem_array((size_t)batch, sizeof *s->sigma_host);
    s->x = mem_array(4 * count, sizeof *s->x);
    s->d = s->x + count;
    s->d2 = s->d + count;
    s->noise = s->d2 + count;
    s->normal_dev = k->alloc(dev, count * sizeof(float));
    s->index_dev = k->alloc(dev, (size_t)batch * sizeof(uint32_t));
    if (!s->normal_dev || !s->index_dev) {
        sampler_free(s);
        return fail(ERR_DEVICE_MEM, "sampler: no device memory for %d samples", batch);
    }
    *out = s;
    return ERR_OK;
}

err_t sampler_new(struct sampler **out, const struct sampler_config *c, struct program *prog, int batch, int per,
                  const struct kernels *k, struct kdev *dev)
{
    struct sampler *s;
    err_t err = new_common(out, c, batch, per, k, dev);
    if (err) return err;
    s = *out;
    s->prog = prog;
    s->x_in = program_input(prog, "x");
    s->sigma_in = program_input(prog, "sigma");
    s->labels_in = c->label_dim ? program_input(prog, "labels") : NULL;
    s->d_out = program_output(prog, "D");
    if (!s->x_in || !s->sigma_in || !s->d_out) err = fail(ERR_FAILED, "sampler: the network has no x, sigma or D");
    else if (c->label_dim && !s->labels_in) err = fail(ERR_USAGE, "sampler: labels for a network that takes none");
    if (!err) return ERR_OK;
    sampler_free(s);
    *out = NULL;
    return err;
}

err_t sampler_new_of(struct sampler **out, const struct sampler_config *c, const struct denoiser *d, int batch, int per,
                     const struct kernels *k, struct kdev *dev)
{
    TRY(new_common(out, c, batch, per, k, dev));
    (*out)->fn = *d;
    return ERR_OK;
}

void sampler_free(struct sampler *s)
{
    if (!s) return;
    if (s->normal_dev) s->k->free(s->dev, s->normal_dev);
    if (s->index_dev) s->k->free(s->dev, s->index_dev);
    mem_free(s->grid);
    mem_free(s->host);
    mem_free(s->sigma_host);
    mem_free(s->x);
    mem_free(s);
}

int64_t sampler_nfe(const struct sampler *s)
{
    return s->nfe;
}

/* ---- drawing ----------------------------------------------------------------------------------------------------- */

size_t sampler_count(const struct sampler *s)
{
    return (size_t)s->n * (size_t)s->per;
}

/* x and t are rounded to float32 for the network, as the published code does. */
void sampler_denoise(struct sampler *s, const double *x, double t, double *out)
{
    size_t count = sampler_count(s);
    s->nfe++;
    if (!s->prog) {
        s->fn.at(s->fn.ctx, x, t, s->labels, s->n, out);
        return;
    }
    for (size_t i = 0; i < count; i++) s->host[i] = (float)x[i];
    for (int i = 0; i < s->batch; i++)
        s->sigma_host[i] = (float)t; /* unused rows too: they are computed, so keep them finite */
    s->k->upload(s->dev, s->x_in, s->host, count * sizeof(float));
    s->k->upload(s->dev, s->sigma_in, s->sigma_host, (size_t)s->batch * sizeof(float));
    program_forward(s->prog, s->w, &(struct run_ctx){0});
    s->k->download(s->dev, s->host, s->d_out, count * sizeof(float));
    for (size_t i = 0; i < count; i++) out[i] = s->host[i];
}

/* Standard normal values of the draw's samples into s->host. */
static void normal_host(struct sampler *s, uint16_t purpose, int step)
{
    struct kstream stream = {.seed = s->seed, .step = (uint32_t)step, .purpose = purpose};
    s->k->normal_at(s->dev, s->normal_dev, s->n, s->per, &stream, s->index_dev);
    s->k->download(s->dev, s->host, s->normal_dev, sampler_count(s) * sizeof(float));
}

const double *sampler_noise(struct sampler *s, int step)
{
    size_t count = sampler_count(s);
    if (s->given) return s->given + (size_t)step * count;
    normal_host(s, RNG_RENOISE, step);
    for (size_t i = 0; i < count; i++) s->noise[i] = s->host[i];
    return s->noise;
}

/* latents: host [n, per] in s->host. */
static err_t draw(struct sampler *s, struct params *w, const float *labels, double *out)
{
    size_t count = sampler_count(s);
    double first = s->method->unit_latents ? 1 : s->grid[0];
    if (s->prog) TRY(program_bind(s->prog, w));
    s->w = w;
    s->labels = labels;
    s->nfe = 0;
    if (s->labels_in && labels)
        s->k->upload(s->dev, s->labels_in, labels, (size_t)s->n * (size_t)s->c.label_dim * sizeof(float));
    for (size_t i = 0; i < count; i++) s->x[i] = s->host[i] * first;
    s->method->run(s);
    if (s->nfe != s->c.nfe)
        return fail(ERR_FAILED, "sampler %s: made %lld network calls per sample instead of %d", s->c.name,
                    (long long)s->nfe, s->c.nfe);
    memcpy(out, s->x, count * sizeof *out);
    return ERR_OK;
}

static err_t draw_check(const struct sampler *s, int n, const float *labels)
{
    if (n < 1 || n > s->batch) return fail(ERR_FAILED, "sampler: %d samples in a batch of %d", n, s->batch);
    if (s->c.label_dim && !labels) return fail(ERR_FAILED, "sampler: a conditional network needs labels");
    return ERR_OK;
}

err_t sampler_draw(struct sampler *s, struct params *w, uint64_t seed, const uint32_t *index, int n,
                   const float *labels, double *out)
{
    TRY(draw_check(s, n, labels));
    s->n = n;
    s->seed = seed;
    s->given = NULL;
    s->k->upload(s->dev, s->index_dev, index, (size_t)n * sizeof *index);
    normal_host(s, RNG_LATENT, 0);
    return draw(s, w, labels, out);
}

err_t sampler_draw_from(struct sampler *s, struct params *w, const float *latents, const double *noise, int n,
                        const float *labels, double *out)
{
    TRY(draw_check(s, n, labels));
    bool noisy = s->method->noisy ? s->steps > 1 : (s->method->info.uses & USES_CHURN) && s->c.s_churn > 0;
    if (noisy && !noise) return fail(ERR_FAILED, "sampler: given latents, but no noise for its later steps");
    s->n = n;
    s->given = noise;
    memcpy(s->host, latents, sampler_count(s) * sizeof *latents);
    return draw(s, w, labels, out);
}
