/* The methods. Each walks its grid t_0 > t_1 > ... > t_steps = 0 of noise levels, the last step being the denoiser's own
 * answer, and differs from the others in what it makes of D(x, t) on the way. */
#include "core/sampler_methods.h"

#include <math.h>

/* ---- n-step consistency ------------------------------------------------------------------------------------------ */

static err_t check_ect(const struct sampler_config *c)
{
    int cap = (int)ARRAY_LEN(c->mid_t);
    if (c->nfe - 1 > c->nmid || c->nmid > cap)
        return fail(ERR_USAGE, "sampler ect: %d steps need %d noise levels in eval.mid_t, %d are given (at most %d)",
                    c->nfe, c->nfe - 1, c->nmid, cap);
    for (int i = 0; i + 1 < c->nfe; i++)
        if (!(c->mid_t[i] > 0)) return fail(ERR_USAGE, "sampler ect: noise level %d must be above 0", i + 2);
    return ERR_OK;
}

static void grid_ect(const struct sampler_config *c, int steps, double *t)
{
    t[0] = c->sigma_max;
    for (int i = 1; i < steps; i++) t[i] = c->mid_t[i - 1];
    t[steps] = 0;
}

/* x = D(x, t); between steps x += t_next * noise. The result is not clamped and the noise level is t_next, not
 * sqrt(t_next^2 - t_min^2): ECT's form. */
static void run_ect(struct sampler *s)
{
    size_t count = sampler_count(s);
    for (int step = 0; step < s->steps; step++) {
        sampler_denoise(s, s->x, s->grid[step], s->x);
        if (step + 1 == s->steps) break;
        const double *z = sampler_noise(s, step);
        for (size_t i = 0; i < count; i++) s->x[i] += s->grid[step + 1] * z[i];
    }
}

/* ---- EDM's grid and solvers -------------------------------------------------------------------------------------- */

static double lowest(const struct sampler_config *c)
{
    return c->sigma_min > c->net_min ? c->sigma_min : c->net_min;
}

static double highest(const struct sampler_config *c)
{
    return c->net_max > 0 && c->sigma_max > c->net_max ? c->net_max : c->sigma_max;
}

/* Eq. 5 of Karras et al. */
static void grid_edm(const struct sampler_config *c, int steps, double *t)
{
    double a = pow(highest(c), 1 / c->rho), b = pow(lowest(c), 1 / c->rho);
    for (int i = 0; i < steps; i++) t[i] = pow(a + (steps > 1 ? (double)i / (steps - 1) : 0) * (b - a), c->rho);
    t[steps] = 0;
}

static err_t check_alpha(const struct sampler_config *c)
{
    if (c->alpha > 0 && c->alpha <= 1) return ERR_OK;
    return fail(ERR_USAGE, "sampler heun: eval.alpha must be above 0 and at most 1");
}

/* Algorithm 2 of Karras et al. without its correction (euler) or with it (heun), in the form of their Algorithm 3 with
 * a free place alpha of the second slope. */
static void run_edm(struct sampler *s)
{
    size_t count = sampler_count(s);
    double *x = s->x, *d = s->d, *d2 = s->d2;
    for (int step = 0; step < s->steps; step++) {
        double t = s->grid[step], t_hat = sampler_churned(&s->c, s->steps, t), t_next = s->grid[step + 1],
               h = t_next - t_hat;
        if (t_hat > t) {
            double by = sqrt(t_hat * t_hat - t * t) * s->c.s_noise;
            const double *z = sampler_noise(s, step);
            for (size_t i = 0; i < count; i++) x[i] += by * z[i];
        }
        sampler_denoise(s, x, t_hat, d);
        for (size_t i = 0; i < count; i++) d[i] = (x[i] - d[i]) / t_hat;
        if (s->method->calls == 1 || step + 1 == s->steps) { /* no correction where the next level is 0 */
            for (size_t i = 0; i < count; i++) x[i] += h * d[i];
            continue;
        }
        double t2 = sampler_second(&s->c, t_hat, t_next), part = 1 / (2 * s->c.alpha);
        for (size_t i = 0; i < count; i++) s->noise[i] = x[i] + s->c.alpha * h * d[i];
        sampler_denoise(s, s->noise, t2, d2);
        for (size_t i = 0; i < count; i++) x[i] += h * ((1 - part) * d[i] + part * (s->noise[i] - d2[i]) / t2);
    }
}

/* ---- DPM-Solver++(2M) -------------------------------------------------------------------------------------------- */

/* Algorithm 2 of Lu et al. 2022 ("DPM-Solver++") with alpha = 1 and lambda = -ln sigma, so that e^-h = t_next / t:
 *   x <- (t_next / t) x - (e^-h - 1) ((1 + 1 / 2r) D_i - 1 / 2r D_{i-1}),  r = h_{i-1} / h_i.
 * The first step is of first order (D alone), and so is the last, whose h is infinite: x <- D. */
static void run_2m(struct sampler *s)
{
    size_t count = sampler_count(s);
    double *now = s->d, *before = s->d2, *x = s->x;
    for (int step = 0; step < s->steps; step++) {
        double t = s->grid[step], t_next = s->grid[step + 1], keep = t_next / t, back = 0;
        sampler_denoise(s, x, t, now);
        if (step > 0 && t_next > 0) back = log(t / t_next) / (2 * log(s->grid[step - 1] / t)); /* 1 / 2r */
        for (size_t i = 0; i < count; i++) {
            double d = back > 0 ? (1 + back) * now[i] - back * before[i] : now[i];
            x[i] = keep * x[i] + (1 - keep) * d;
        }
        double *swap = now;
        now = before, before = swap;
    }
}

/* ---- ancestral sampling of the Score SDEs ------------------------------------------------------------------------ */

static void grid_ve(const struct sampler_config *c, int steps, double *t)
{
    double hi = highest(c), ratio = lowest(c) / hi;
    for (int i = 0; i < steps; i++) t[i] = hi * (steps > 1 ? pow(ratio, (double)i / (steps - 1)) : 1);
    t[steps] = 0;
}

/* Eq. 47 of Song et al. 2021: x <- x + (t^2 - t_next^2) score + sqrt(t_next^2 (t^2 - t_next^2) / t^2) z, where
 * score = (D - x) / t^2. The step to 0 is x <- D. */
static void run_ve(struct sampler *s)
{
    size_t count = sampler_count(s);
    for (int step = 0; step < s->steps; step++) {
        double t = s->grid[step], t_next = s->grid[step + 1], gain = (t * t - t_next * t_next) / (t * t);
        sampler_denoise(s, s->x, t, s->d);
        for (size_t i = 0; i < count; i++) s->x[i] += gain * (s->d[i] - s->x[i]);
        if (step + 1 == s->steps) break;
        const double *z = sampler_noise(s, step);
        double by = t_next * sqrt(gain);
        for (size_t i = 0; i < count; i++) s->x[i] += by * z[i];
    }
}

/* The discrete schedule of VP: beta_i = (beta_min + (i - 1) / (N - 1) (beta_max - beta_min)) / N, i = 1..N. */
static double vp_beta(const struct sampler_config *c, int i)
{
    int n = c->nfe;
    return (c->beta_min + (n > 1 ? (double)(i - 1) / (n - 1) : 1) * (c->beta_max - c->beta_min)) / n;
}

static err_t check_vp(const struct sampler_config *c)
{
    if (!(c->beta_min > 0) || !(c->beta_min <= c->beta_max))
        return fail(ERR_USAGE, "sampler ancestral-vp: needs 0 < eval.beta_min <= eval.beta_max");
    if (c->beta_max < c->nfe) return ERR_OK;
    return fail(ERR_USAGE, "sampler ancestral-vp: nfe = %d; with beta_max = %g it needs more than %d evaluations",
                c->nfe, c->beta_max, (int)c->beta_max);
}

/* t_i = sqrt((1 - abar) / abar), the level at which x / sqrt(abar) is data plus noise. */
static void grid_vp(const struct sampler_config *c, int steps, double *t)
{
    double log_abar = 0;
    t[steps] = 0;
    for (int i = 1; i <= steps; i++) {
        log_abar += log1p(-vp_beta(c, i));
        t[steps - i] = sqrt(expm1(-log_abar));
    }
}

/* The posterior of DDPM (Ho et al. 2020, Eq. 7) with D for x_0:
 *   x <- sqrt(abar_next) beta / (1 - abar) D + sqrt(1 - beta) (1 - abar_next) / (1 - abar) x + sqrt(v) z,
 *   v = (1 - abar_next) / (1 - abar) beta. The mean is that of Song et al. 2021, Eq. 4. */
static void run_vp(struct sampler *s)
{
    size_t count = sampler_count(s);
    for (int step = 0; step < s->steps; step++) {
        double t = s->grid[step], t_next = s->grid[step + 1], beta = vp_beta(&s->c, s->steps - step);
        double abar = 1 / (1 + t * t), abar_next = 1 / (1 + t_next * t_next); /* of the level: 1 - abar = t^2 abar */
        double left = t_next * t_next * abar_next / (t * t * abar);           /* (1 - abar_next) / (1 - abar) */
        for (size_t i = 0; i < count; i++) s->noise[i] = s->x[i] / sqrt(abar);
        sampler_denoise(s, s->noise, t, s->d);
        double of_d = sqrt(abar_next) * beta / (t * t * abar), of_x = sqrt(1 - beta) * left;
        for (size_t i = 0; i < count; i++) s->x[i] = of_d * s->d[i] + of_x * s->x[i];
        if (step + 1 == s->steps) break;
        const double *z = sampler_noise(s, step);
        double by = sqrt(left * beta);
        for (size_t i = 0; i < count; i++) s->x[i] += by * z[i];
    }
}

/* ---- flow matching ----------------------------------------------------------------------------------------------- */

static void grid_flow(const struct sampler_config *c, int steps, double *t)
{
    (void)c;
    for (int i = 0; i <= steps; i++) t[i] = (double)(steps - i) / steps;
}

/* dx/dt = v(x, t) from t = 1 (noise) to 0 (data). */
static void run_flow(struct sampler *s)
{
    size_t count = sampler_count(s);
    for (int step = 0; step < s->steps; step++) {
        sampler_denoise(s, s->x, s->grid[step], s->d);
        double h = s->grid[step + 1] - s->grid[step];
        for (size_t i = 0; i < count; i++) s->x[i] += h * s->d[i];
    }
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

#define USES_GRID (USES_SIGMA_MIN | USES_SIGMA_MAX | USES_RHO)

const struct sampler_method sampler_methods[] = {
    {.info = {.name = "ect",
              .help = "n-step consistency",
              .nfe = "steps",
              .uses = USES_SIGMA_MAX | USES_MID_T,
              .shifted = true},
     .calls = 1,
     .noisy = true,
     .check = check_ect,
     .grid = grid_ect,
     .run = run_ect},
    {.info = {.name = "heun",
              .help = "EDM, second order",
              .nfe = "2 steps - 1",
              .uses = USES_GRID | USES_CHURN | USES_ALPHA},
     .calls = 2,
     .check = check_alpha,
     .grid = grid_edm,
     .run = run_edm},
    {.info = {.name = "euler", .help = "EDM, first order", .nfe = "steps", .uses = USES_GRID | USES_CHURN},
     .calls = 1,
     .grid = grid_edm,
     .run = run_edm},
    {.info = {.name = "dpmpp-2m", .help = "DPM-Solver++(2M)", .nfe = "steps", .uses = USES_GRID},
     .calls = 1,
     .grid = grid_edm,
     .run = run_2m},
    {.info = {.name = "ancestral-ve",
              .help = "Score SDE, variance exploding",
              .nfe = "steps",
              .uses = USES_SIGMA_MIN | USES_SIGMA_MAX},
     .calls = 1,
     .noisy = true,
     .grid = grid_ve,
     .run = run_ve},
    {.info = {.name = "ancestral-vp", .help = "Score SDE, variance preserving", .nfe = "steps", .uses = USES_BETA},
     .calls = 1,
     .unit_latents = true,
     .noisy = true,
     .check = check_vp,
     .grid = grid_vp,
     .run = run_vp},
    {.info = {.name = "flow-euler", .help = "flow matching", .nfe = "steps", .flow = true},
     .calls = 1,
     .unit_latents = true,
     .grid = grid_flow,
     .run = run_flow},
    {.info = {.name = NULL}},
};
