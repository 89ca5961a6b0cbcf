/* Samplers: Karras et al. 2022, Algorithm 2 (heun, euler) and n-step consistency sampling (Song et al. 2023,
 * Algorithm 1, in ECT's form). Only the network is float32. Whatever is random is named by (seed block, sample,
 * step), so a batch is a matter of speed alone. */
#include "core/sampler.h"

#include <math.h>
#include <string.h>

#include "core/rng.h"

struct sampler {
    struct sampler_config c;
    struct program *prog;
    const struct kernels *k;
    struct kdev *dev;
    int batch, per, steps;                      /* network evaluations of ect, grid steps of the solvers */
    float *x_in, *sigma_in, *labels_in, *d_out; /* the program's, on the device */
    float *normal_dev;                          /* [batch, per] */
    uint32_t *index_dev;                        /* [batch] */
    float *host;                                /* [batch, per] staging */
    float *sigma_host;                          /* [batch] */
    double *x, *d, *d2, *noise;                 /* [batch, per]: state, slopes, noise of a step */
    int64_t nfe;
    /* of the draw in progress */
    struct params *w;
    const double *given; /* noise [steps, n, per], or NULL: from counters */
    uint64_t seed;
    int n;
};

void sampler_defaults(struct sampler_config *c, const char *name, int nfe)
{
    *c = (struct sampler_config){
        .nfe = nfe, .sigma_min = 0.002, .sigma_max = 80, .rho = 7, .s_max = INFINITY, .s_noise = 1};
    snprintf(c->name, sizeof c->name, "%s", name);
    if (!strcmp(name, "ect") && nfe > 1) c->mid_t[c->nmid++] = 0.821;
}

static bool is_ect(const struct sampler_config *c)
{
    return !strcmp(c->name, "ect");
}

static bool is_heun(const struct sampler_config *c)
{
    return !strcmp(c->name, "heun");
}

static int grid_steps(const struct sampler_config *c)
{
    return is_heun(c) ? (c->nfe + 1) / 2 : c->nfe;
}

/* t_i of the EDM grid, 0 <= i <= steps; t_steps = 0. Eq. 5 of Karras et al. */
static double grid_level(const struct sampler_config *c, int i)
{
    int steps = grid_steps(c);
    double lo = c->sigma_min > c->net_min ? c->sigma_min : c->net_min;
    double hi = c->net_max > 0 && c->sigma_max > c->net_max ? c->net_max : c->sigma_max;
    if (i == steps) return 0;
    double a = pow(hi, 1 / c->rho), b = pow(lo, 1 / c->rho);
    return pow(a + (steps > 1 ? (double)i / (steps - 1) : 0) * (b - a), c->rho);
}

/* Level after churn has raised t. */
static double churned(const struct sampler_config *c, double t)
{
    double gamma = t >= c->s_min && t <= c->s_max ? fmin(c->s_churn / grid_steps(c), sqrt(2) - 1) : 0;
    return t + gamma * t;
}

int sampler_levels(const struct sampler_config *c, double *t, int cap)
{
    int n = 0;
    if (is_ect(c)) {
        for (int i = 0; i < c->nfe && n < cap; i++) t[n++] = i ? c->mid_t[i - 1] : c->sigma_max;
        return n;
    }
    for (int i = 0; i < grid_steps(c); i++) {
        if (n < cap) t[n++] = churned(c, grid_level(c, i));
        if (is_heun(c) && i + 1 < grid_steps(c) && n < cap) t[n++] = grid_level(c, i + 1);
    }
    return n;
}

static err_t config_check(const struct sampler_config *c)
{
    if (!is_ect(c) && !is_heun(c) && strcmp(c->name, "euler") != 0)
        return fail(ERR_USAGE, "no sampler named '%s' (there are ect, heun, euler)", c->name);
    if (c->nfe < 1) return fail(ERR_USAGE, "sampler %s: nfe = %d", c->name, c->nfe);
    if (!(c->sigma_max > 0)) return fail(ERR_USAGE, "sampler %s: sigma_max must be above 0", c->name);
    if (is_ect(c)) {
        int cap = (int)ARRAY_LEN(c->mid_t);
        if (c->nfe - 1 > c->nmid || c->nmid > cap)
            return fail(ERR_USAGE,
                        "sampler ect: %d steps need %d noise levels in eval.mid_t, %d are given (at most %d)", c->nfe,
                        c->nfe - 1, c->nmid, cap);
        for (int i = 0; i + 1 < c->nfe; i++)
            if (!(c->mid_t[i] > 0)) return fail(ERR_USAGE, "sampler ect: noise level %d must be above 0", i + 2);
        return ERR_OK;
    }
    if (is_heun(c) && c->nfe % 2 == 0)
        return fail(ERR_USAGE, "sampler heun: nfe = %d; it makes 2 * steps - 1 evaluations, an odd number", c->nfe);
    if (!(c->sigma_min > 0) || !(c->sigma_min < c->sigma_max) || !(c->rho > 0))
        return fail(ERR_USAGE, "sampler %s: needs 0 < sigma_min < sigma_max and rho above 0", c->name);
    return ERR_OK;
}

err_t sampler_new(struct sampler **out, const struct sampler_config *c, struct program *prog, int batch, int per,
                  const struct kernels *k, struct kdev *dev)
{
    *out = NULL;
    TRY(config_check(c));
    struct sampler *s = mem_alloc(sizeof *s);
    size_t count = (size_t)batch * (size_t)per;
    *s =
        (struct sampler){.c = *c, .prog = prog, .k = k, .dev = dev, .batch = batch, .per = per, .steps = grid_steps(c)};
    s->host = mem_array(count, sizeof *s->host);
    s->sigma_host = mem_array((size_t)batch, sizeof *s->sigma_host);
    s->x = mem_array(4 * count, sizeof *s->x);
    s->d = s->x + count;
    s->d2 = s->d + count;
    s->noise = s->d2 + count;
    s->normal_dev = k->alloc(dev, count * sizeof(float));
    s->index_dev = k->alloc(dev, (size_t)batch * sizeof(uint32_t));
    s->x_in = program_input(prog, "x");
    s->sigma_in = program_input(prog, "sigma");
    s->labels_in = c->label_dim ? program_input(prog, "labels") : NULL;
    s->d_out = program_output(prog, "D");
    err_t err = ERR_OK;
    if (!s->normal_dev || !s->index_dev) err = fail(ERR_DEVICE_MEM, "sampler: no device memory for %d samples", batch);
    else if (!s->x_in || !s->sigma_in || !s->d_out) err = fail(ERR_FAILED, "sampler: the network has no x, sigma or D");
    else if (c->label_dim && !s->labels_in) err = fail(ERR_USAGE, "sampler: labels for a network that takes none");
    if (err) sampler_free(s);
    else *out = s;
    return err;
}

void sampler_free(struct sampler *s)
{
    if (!s) return;
    if (s->normal_dev) s->k->free(s->dev, s->normal_dev);
    if (s->index_dev) s->k->free(s->dev, s->index_dev);
    mem_free(s->host);
    mem_free(s->sigma_host);
    mem_free(s->x);
    mem_free(s);
}

int64_t sampler_nfe(const struct sampler *s)
{
    return s->nfe;
}

static size_t count_of(const struct sampler *s)
{
    return (size_t)s->n * (size_t)s->per;
}

/* out = D(x, t): x and t are rounded to float32 for the network, as the published code does. */
static void denoise(struct sampler *s, const double *x, double t, double *out)
{
    size_t count = count_of(s);
    for (size_t i = 0; i < count; i++) s->host[i] = (float)x[i];
    for (int i = 0; i < s->batch; i++)
        s->sigma_host[i] = (float)t; /* unused rows too: they are computed, so keep them finite */
    s->k->upload(s->dev, s->x_in, s->host, count * sizeof(float));
    s->k->upload(s->dev, s->sigma_in, s->sigma_host, (size_t)s->batch * sizeof(float));
    program_forward(s->prog, s->w, &(struct run_ctx){0});
    s->k->download(s->dev, s->host, s->d_out, count * sizeof(float));
    for (size_t i = 0; i < count; i++) out[i] = s->host[i];
    s->nfe++;
}

/* Standard normal values of the draw's samples into s->host. */
static void normal_host(struct sampler *s, uint16_t purpose, int step)
{
    struct kstream stream = {.seed = s->seed, .step = (uint32_t)step, .purpose = purpose};
    s->k->normal_at(s->dev, s->normal_dev, s->n, s->per, &stream, s->index_dev);
    s->k->download(s->dev, s->host, s->normal_dev, count_of(s) * sizeof(float));
}

/* The noise added at a step. */
static const double *step_noise(struct sampler *s, int step)
{
    size_t count = count_of(s);
    if (s->given) return s->given + (size_t)step * count;
    normal_host(s, RNG_RENOISE, step);
    for (size_t i = 0; i < count; i++) s->noise[i] = s->host[i];
    return s->noise;
}

/* x = D(x, t); between steps x += t_next * noise. The result is not clamped and the noise level is t_next, not
 * sqrt(t_next^2 - t_min^2): ECT's form. */
static void run_ect(struct sampler *s)
{
    size_t count = count_of(s);
    for (int step = 0; step < s->steps; step++) {
        denoise(s, s->x, step ? s->c.mid_t[step - 1] : s->c.sigma_max, s->x);
        if (step + 1 == s->steps) break;
        const double *z = step_noise(s, step);
        for (size_t i = 0; i < count; i++) s->x[i] += s->c.mid_t[step] * z[i];
    }
}

static void run_ode(struct sampler *s)
{
    size_t count = count_of(s);
    double *x = s->x, *d = s->d, *d2 = s->d2;
    for (int step = 0; step < s->steps; step++) {
        double t = grid_level(&s->c, step), t_hat = churned(&s->c, t), t_next = grid_level(&s->c, step + 1),
               h = t_next - t_hat;
        if (t_hat > t) {
            double by = sqrt(t_hat * t_hat - t * t) * s->c.s_noise;
            const double *z = step_noise(s, step);
            for (size_t i = 0; i < count; i++) x[i] += by * z[i];
        }
        denoise(s, x, t_hat, d);
        for (size_t i = 0; i < count; i++) d[i] = (x[i] - d[i]) / t_hat;
        if (!is_heun(&s->c) || step + 1 == s->steps) { /* no correction where the next level is 0 */
            for (size_t i = 0; i < count; i++) x[i] += h * d[i];
            continue;
        }
        for (size_t i = 0; i < count; i++) s->noise[i] = x[i] + h * d[i];
        denoise(s, s->noise, t_next, d2);
        for (size_t i = 0; i < count; i++) x[i] += h * (0.5 * d[i] + 0.5 * (s->noise[i] - d2[i]) / t_next);
    }
}

/* latents: host [n, per] in s->host. */
static void draw(struct sampler *s, struct params *w, const float *labels, double *out)
{
    size_t count = count_of(s);
    double first = is_ect(&s->c) ? s->c.sigma_max : grid_level(&s->c, 0);
    s->w = w;
    s->nfe = 0;
    if (s->labels_in && labels)
        s->k->upload(s->dev, s->labels_in, labels, (size_t)s->n * (size_t)s->c.label_dim * sizeof(float));
    for (size_t i = 0; i < count; i++) s->x[i] = s->host[i] * first;
    if (is_ect(&s->c)) run_ect(s);
    else run_ode(s);
    memcpy(out, s->x, count * sizeof *out);
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
    draw(s, w, labels, out);
    return ERR_OK;
}

err_t sampler_draw_from(struct sampler *s, struct params *w, const float *latents, const double *noise, int n,
                        const float *labels, double *out)
{
    TRY(draw_check(s, n, labels));
    bool noisy = is_ect(&s->c) ? s->steps > 1 : s->c.s_churn > 0;
    if (noisy && !noise) return fail(ERR_FAILED, "sampler: given latents, but no noise for its later steps");
    s->n = n;
    s->given = noise;
    memcpy(s->host, latents, count_of(s) * sizeof *latents);
    draw(s, w, labels, out);
    return ERR_OK;
}
