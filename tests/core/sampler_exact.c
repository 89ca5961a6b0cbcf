/* Samplers against what is known without them. For a mixture of Gaussians the best denoiser, the velocity of flow matching
 * and the marginal distributions are closed forms, so an ODE solver has an exact answer: in one dimension the ODE keeps
 * quantiles, F_0(x_0) = F_T(x_T). A stochastic sampler must end with the data's mean and covariance; on one Gaussian,
 * where every step is linear, also with the variance that its own steps lead to, however few. */
#include "tests/test.h"

#include "core/rng.h"
#include "core/sampler.h"

static const struct kernels *k;
static struct kdev *dev;

static int setup(void **state)
{
    (void)state;
    return kernels_find("cpu", &k) || k->open(&dev, "cpu", 1);
}

static int teardown(void **state)
{
    (void)state;
    k->close(dev);
    return 0;
}

/* ---- one dimension ----------------------------------------------------------------------------------------------- */

enum { K = 2 };
static const double W[K] = {0.35, 0.65}, M[K] = {-0.9, 0.6}, S[K] = {0.45, 0.5};

/* Mixture of N(scale m, (scale s)^2 + t^2). */
static double cdf(double x, double scale, double t)
{
    double p = 0;
    for (int i = 0; i < K; i++)
        p += W[i] * 0.5 * erfc((scale * M[i] - x) / sqrt(2 * (scale * scale * S[i] * S[i] + t * t)));
    return p;
}

static double quantile(double p, double scale, double t)
{
    double lo = -1000, hi = 1000;
    for (int i = 0; i < 100; i++) {
        double mid = (lo + hi) / 2;
        if (cdf(mid, scale, t) < p) lo = mid;
        else hi = mid;
    }
    return (lo + hi) / 2;
}

/* E[x_0 | scale x_0 + t eps = x] */
static double posterior_mean(double x, double scale, double t)
{
    double sum = 0, top = 0;
    for (int i = 0; i < K; i++) {
        double v = scale * scale * S[i] * S[i] + t * t, d = x - scale * M[i];
        double p = W[i] * exp(-d * d / (2 * v)) / sqrt(v);
        sum += p;
        top += p * (M[i] + scale * S[i] * S[i] / v * d);
    }
    return top / sum;
}

struct seen { /* what a sampler asked for */
    int calls;
    double t[1024];
    int per;
};

static void see(struct seen *s, double t)
{
    assert_true(s->calls < (int)ARRAY_LEN(s->t));
    s->t[s->calls++] = t;
}

static void mixture(void *ctx, const double *x, double t, const float *labels, int n, double *out)
{
    struct seen *s = ctx;
    (void)labels;
    see(s, t);
    for (int i = 0; i < n * s->per; i++) out[i] = posterior_mean(x[i], 1, t);
}

static void mixture_flow(void *ctx, const double *x, double t, const float *labels, int n, double *out)
{
    struct seen *s = ctx;
    (void)labels;
    see(s, t);
    for (int i = 0; i < n * s->per; i++) out[i] = (x[i] - posterior_mean(x[i], 1 - t, t)) / t; /* eps - x_0 */
}

enum { N = 64 };

static struct sampler *make(const struct sampler_config *c, struct denoiser d, int batch, int per)
{
    struct sampler *s;
    assert_ok(sampler_new_of(&s, c, &d, batch, per, k, dev));
    return s;
}

/* RMS distance of N samples from the exact end of the ODE. The last step goes from the lowest level to 0 in one, so
 * what a fine grid tends to is D at the exact point of that level. */
static double ode_error(const char *name, int nfe)
{
    struct sampler_config c;
    struct seen seen = {.per = 1};
    uint32_t index[N];
    double out[N], sum = 0;
    bool flow = !strcmp(name, "flow-euler");
    sampler_defaults(&c, name, nfe);
    c.sigma_max = 20, c.sigma_min = 0.02;
    struct sampler *s = make(&c, (struct denoiser){flow ? mixture_flow : mixture, &seen}, N, 1);
    for (uint32_t i = 0; i < N; i++) index[i] = i;
    assert_ok(sampler_draw(s, NULL, 3, index, N, NULL, out));
    sampler_free(s);
    for (int i = 0; i < N; i++) {
        double z = rng_normal(&(struct rng){.seed = 3, .purpose = RNG_LATENT}, (uint32_t)i, 0), want;
        if (flow) want = quantile(cdf(z, 0, 1), 1, 0);
        else want = posterior_mean(quantile(cdf(20 * z, 1, 20), 1, 0.02), 1, 0.02);
        sum += (out[i] - want) * (out[i] - want);
    }
    return sqrt(sum / N);
}

static void slope_is(const char *name, double order, double within, double finest)
{
    double mx = 0, my = 0, sxy = 0, sxx = 0, x[4], y[4];
    int calls = !strcmp(name, "heun") ? 2 : 1;
    for (int i = 0; i < 4; i++) {
        int steps = 64 << i;
        double e = ode_error(name, calls * steps - (calls - 1));
        x[i] = log(1.0 / steps), y[i] = log(e);
        mx += x[i] / 4, my += y[i] / 4;
        print_message("# %s: %d steps, error %.3g\n", name, steps, e);
    }
    for (int i = 0; i < 4; i++) sxy += (x[i] - mx) * (y[i] - my), sxx += (x[i] - mx) * (x[i] - mx);
    print_message("# %s: order %.3f\n", name, sxy / sxx);
    assert_near(sxy / sxx, order, within);
    assert_true(exp(y[3]) < finest);
}

static void orders(void **state)
{
    (void)state;
    slope_is("euler", 1, 0.03, 0.0025);
    slope_is("heun", 2, 0.06, 1.6e-5);
    slope_is("dpmpp-2m", 2, 0.06, 1.7e-5);
    slope_is("flow-euler", 1, 0.03, 0.0018);
}

/* ---- two dimensions, correlated ---------------------------------------------------------------------------------- */

enum { DRAWS = 2048 };
static const double M2[K][2] = {{-0.7, 0.2}, {0.5, -0.3}},
                    C2[K][3] = {{0.20, 0.08, 0.12}, {0.10, -0.05, 0.25}}; /* xx xy yy */

static void mixture2(void *ctx, const double *x, double t, const float *labels, int n, double *out)
{
    (void)labels;
    see(ctx, t);
    for (int i = 0; i < n; i++, x += 2, out += 2) {
        double sum = 0, top[2] = {0, 0}, e[K], f[K][2], most = -INFINITY;
        for (int j = 0; j < K; j++) {
            double a = C2[j][0] + t * t, b = C2[j][1], c = C2[j][2] + t * t, det = a * c - b * b, dx = x[0] - M2[j][0],
                   dy = x[1] - M2[j][1], u = (c * dx - b * dy) / det, v = (a * dy - b * dx) / det; /* V^-1 (x - m) */
            e[j] = log(W[j]) - 0.5 * log(det) - 0.5 * (dx * u + dy * v);
            f[j][0] = M2[j][0] + C2[j][0] * u + C2[j][1] * v;
            f[j][1] = M2[j][1] + C2[j][1] * u + C2[j][2] * v;
            most = fmax(most, e[j]);
        }
        for (int j = 0; j < K; j++) {
            double p = exp(e[j] - most);
            sum += p, top[0] += p * f[j][0], top[1] += p * f[j][1];
        }
        out[0] = top[0] / sum, out[1] = top[1] / sum;
    }
}

/* Largest deviation of mean and covariance from the data's, in standard errors of this many draws. */
static double moments_off(const struct sampler_config *c)
{
    struct seen seen = {.per = 2};
    double *x = mem_array(2 * DRAWS, sizeof *x), mean[2] = {0, 0}, want[2] = {0, 0}, worst = 0;
    uint32_t *index = mem_array(DRAWS, sizeof *index);
    for (uint32_t i = 0; i < DRAWS; i++) index[i] = i;
    struct sampler *s = make(c, (struct denoiser){mixture2, &seen}, DRAWS, 2);
    assert_ok(sampler_draw(s, NULL, 8, index, DRAWS, NULL, x));
    sampler_free(s);
    for (int i = 0; i < 2 * DRAWS; i++) mean[i % 2] += x[i] / DRAWS;
    for (int j = 0; j < K; j++)
        for (int a = 0; a < 2; a++) want[a] += W[j] * M2[j][a];
    for (int at = 0; at < 5; at++) { /* x, y, xx, xy, yy */
        int a = at == 1 || at == 4, b = at == 3 || at == 4;
        double sum = 0, sum2 = 0, exact = at < 2 ? want[at] : -want[a] * want[b];
        for (int j = 0; j < K && at > 1; j++) exact += W[j] * (C2[j][at - 2] + M2[j][a] * M2[j][b]);
        for (int i = 0; i < DRAWS; i++) {
            double v = at < 2 ? x[2 * i + at] : (x[2 * i + a] - mean[a]) * (x[2 * i + b] - mean[b]);
            sum += v / DRAWS, sum2 += v * v / DRAWS;
        }
        double se = sqrt((sum2 - sum * sum) / DRAWS);
        print_message("# %s %d: %.4f, exact %.4f, %.2f standard errors\n", c->name, at, sum, exact, (sum - exact) / se);
        worst = fmax(worst, fabs(sum - exact) / se);
    }
    mem_free(x);
    mem_free(index);
    return worst;
}

/* Steps so fine that what is left of the discretisation is below the error of the draws; the few steps below are the sharper test. */
static void moments(void **state)
{
    (void)state;
    struct sampler_config c;
    sampler_defaults(&c, "ancestral-ve", 500);
    c.sigma_max = 40, c.sigma_min = 0.01;
    assert_true(moments_off(&c) < 3.5);
    sampler_defaults(&c, "ancestral-vp", 500);
    assert_true(moments_off(&c) < 3.5);
    sampler_defaults(&c, "heun", 119);
    c.sigma_max = 40, c.s_churn = 20;
    assert_true(moments_off(&c) < 3.5);
}

/* ---- one Gaussian: every step is linear -------------------------------------------------------------------------- */

#define GM 0.4
static double gs = 0.8; /* standard deviation of the data */

static void gaussian(void *ctx, const double *x, double t, const float *labels, int n, double *out)
{
    struct seen *s = ctx;
    (void)labels;
    see(s, t);
    for (int i = 0; i < n * s->per; i++) out[i] = GM + gs * gs / (gs * gs + t * t) * (x[i] - GM);
}

static void gaussian_flow(void *ctx, const double *x, double t, const float *labels, int n, double *out)
{
    struct seen *s = ctx;
    (void)labels;
    see(s, t);
    double v = (1 - t) * (1 - t) * gs * gs + t * t;
    for (int i = 0; i < n * s->per; i++) out[i] = (x[i] - GM - (1 - t) * gs * gs / v * (x[i] - (1 - t) * GM)) / t;
}

/* The exact consistency function: along the ODE x - m goes with sqrt(s^2 + t^2). */
static void gaussian_jump(void *ctx, const double *x, double t, const float *labels, int n, double *out)
{
    struct seen *s = ctx;
    (void)labels;
    see(s, t);
    for (int i = 0; i < n * s->per; i++) out[i] = GM + gs / sqrt(gs * gs + t * t) * (x[i] - GM);
}

/* Draws 65536 numbers; their mean and variance must be these within 4 standard errors. */
static void gaussian_moments_are(const struct sampler_config *c,
                                 void (*at)(void *, const double *, double, const float *, int, double *), double mean,
                                 double var)
{
    enum { ROWS = 2048, PER = 32, ALL = ROWS * PER };
    struct seen seen = {.per = PER};
    double *x = mem_array(ALL, sizeof *x), sum = 0, sum2 = 0;
    uint32_t *index = mem_array(ROWS, sizeof *index);
    for (uint32_t i = 0; i < ROWS; i++) index[i] = i;
    struct sampler *s = make(c, (struct denoiser){at, &seen}, ROWS, PER);
    assert_ok(sampler_draw(s, NULL, 5, index, ROWS, NULL, x));
    sampler_free(s);
    for (int i = 0; i < ALL; i++) sum += x[i] / ALL;
    for (int i = 0; i < ALL; i++) sum2 += (x[i] - sum) * (x[i] - sum) / ALL;
    print_message("# %s %d: mean %.4f, wanted %.4f; variance %.4f, wanted %.4f\n", c->name, c->nfe, sum, mean, sum2,
                  var);
    assert_near(sum, mean, 4 * sqrt(var / ALL));
    assert_near(sum2, var, 4 * var * sqrt(2.0 / ALL));
    mem_free(x);
    mem_free(index);
}

/* In deviations y = x - m: the score of level t is -y / (s^2 + t^2). */
static void few_steps_ve(void **state)
{
    (void)state;
    enum { STEPS = 5 };
    struct sampler_config c;
    double off = -GM, var = 30 * 30;
    sampler_defaults(&c, "ancestral-ve", STEPS);
    c.sigma_max = 30, c.sigma_min = 0.3;
    for (int i = 0; i < STEPS; i++) {
        double t = 30 * pow(0.01, i / 4.0), next = i < 4 ? 30 * pow(0.01, (i + 1) / 4.0) : 0;
        double keep = 1 - (t * t - next * next) / (gs * gs + t * t);
        off *= keep;
        var = keep * keep * var + next * next * (t * t - next * next) / (t * t);
    }
    gaussian_moments_are(&c, gaussian, GM + off, var);
}

/* Eq. 4 of Song et al. 2021, x <- (x + beta score) / sqrt(1 - beta), with DDPM's posterior variance. */
static void few_steps_vp(void **state)
{
    (void)state;
    enum { STEPS = 8 };
    struct sampler_config c;
    double abar[STEPS + 1] = {1}, beta[STEPS + 1], mean = 0, var = 1;
    sampler_defaults(&c, "ancestral-vp", STEPS);
    c.beta_min = 0.4, c.beta_max = 7;
    for (int i = 1; i <= STEPS; i++) {
        beta[i] = (0.4 + (i - 1) / 7.0 * 6.6) / STEPS;
        abar[i] = abar[i - 1] * (1 - beta[i]);
    }
    for (int i = STEPS; i > 0; i--) {
        double v = abar[i] * gs * gs + 1 - abar[i], keep = (1 - beta[i] / v) / sqrt(1 - beta[i]);
        mean = keep * (mean - sqrt(abar[i]) * GM) + sqrt(abar[i] / (1 - beta[i])) * GM;
        var = keep * keep * var + beta[i] * (1 - abar[i - 1]) / (1 - abar[i]);
    }
    gaussian_moments_are(&c, gaussian, mean, var);
}

static void few_steps_churn(void **state)
{
    (void)state;
    enum { STEPS = 5 };
    for (int heun = 0; heun < 2; heun++) {
        struct sampler_config c;
        double off = -GM, var = 10 * 10, t[STEPS + 1] = {0};
        sampler_defaults(&c, heun ? "heun" : "euler", heun ? 2 * STEPS - 1 : STEPS);
        c.sigma_max = 10, c.sigma_min = 0.3, c.rho = 3;
        c.s_churn = 1.5, c.s_min = 0.5, c.s_max = 8, c.s_noise = 1.1;
        for (int i = 0; i < STEPS; i++) t[i] = pow(pow(10, 1 / 3.) + i / 4.0 * (pow(0.3, 1 / 3.) - pow(10, 1 / 3.)), 3);
        for (int i = 0; i < STEPS; i++) {
            double up = t[i] > 0.5 && t[i] < 8 ? 1.3 * t[i] : t[i], h = t[i + 1] - up, first = up / (gs * gs + up * up),
                   second = t[i + 1] / (gs * gs + t[i + 1] * t[i + 1]), keep = 1 + h * first;
            if (heun && i + 1 < STEPS) keep = 1 + h / 2 * (first + (1 + h * first) * second);
            var += 1.1 * 1.1 * (up * up - t[i] * t[i]);
            off *= keep, var *= keep * keep;
        }
        gaussian_moments_are(&c, gaussian, GM + off, var);
    }
}

/* Algorithm 2 of Lu et al. 2022 in lambda = -ln sigma, step by step: orders alone do not see a wrong r. */
static void few_steps_2m(void **state)
{
    (void)state;
    enum { STEPS = 4 };
    struct sampler_config c;
    struct seen seen = {.per = 1};
    double out[N], lambda[STEPS];
    uint32_t index[N];
    for (uint32_t i = 0; i < N; i++) index[i] = i;
    sampler_defaults(&c, "dpmpp-2m", STEPS);
    c.sigma_max = 10, c.sigma_min = 0.1, c.rho = 3;
    struct sampler *s = make(&c, (struct denoiser){gaussian, &seen}, N, 1);
    assert_ok(sampler_draw(s, NULL, 3, index, N, NULL, out));
    sampler_free(s);
    for (int i = 0; i < STEPS; i++)
        lambda[i] = -3 * log(pow(10, 1 / 3.) + i / 3.0 * (pow(0.1, 1 / 3.) - pow(10, 1 / 3.)));
    for (int i = 0; i < N; i++) {
        double x = 10.0 * rng_normal(&(struct rng){.seed = 3, .purpose = RNG_LATENT}, (uint32_t)i, 0), before = 0;
        for (int j = 0; j < STEPS; j++) {
            double t = exp(-lambda[j]), d = GM + gs * gs / (gs * gs + t * t) * (x - GM), bar = d;
            if (j + 1 == STEPS) {
                x = d;
                break;
            }
            double h = lambda[j + 1] - lambda[j], r = j ? (lambda[j] - lambda[j - 1]) / h : 0;
            if (j) bar = (1 + 1 / (2 * r)) * d - 1 / (2 * r) * before;
            x = exp(-lambda[j + 1]) / t * x - expm1(-h) * bar;
            before = d;
        }
        assert_near(out[i], x, 1e-12);
    }
}

/* With the exact consistency function any number of steps ends in the data's distribution: N(m, s^2), but for the prior,
 * which is centred and lacks the data's own variance. */
static void consistency_exact(void **state)
{
    (void)state;
    for (int nfe = 1; nfe <= 4; nfe++) {
        struct sampler_config c;
        sampler_defaults(&c, "ect", nfe);
        c.nmid = 3, c.mid_t[0] = 2, c.mid_t[1] = 0.5, c.mid_t[2] = 1;
        gaussian_moments_are(&c, gaussian_jump, GM, gs * gs);
    }
}

/* Where the data is a point the flow's paths are straight, and one Euler step is exact. */
static void flow_exact(void **state)
{
    (void)state;
    uint32_t index[N];
    double out[N];
    for (uint32_t i = 0; i < N; i++) index[i] = i;
    for (int steps = 1; steps < 8; steps++) {
        struct sampler_config c;
        struct seen seen = {.per = 1};
        sampler_defaults(&c, "flow-euler", steps);
        gs = 0;
        struct sampler *s = make(&c, (struct denoiser){gaussian_flow, &seen}, N, 1);
        assert_ok(sampler_draw(s, NULL, 3, index, N, NULL, out));
        for (int i = 0; i < N; i++) assert_near(out[i], GM, 1e-14);
        gs = 0.8; /* now the paths bend, and every step multiplies deviations by a known factor */
        assert_ok(sampler_draw(s, NULL, 3, index, N, NULL, out));
        sampler_free(s);
        for (int i = 0; i < N; i++) {
            double y = rng_normal(&(struct rng){.seed = 3, .purpose = RNG_LATENT}, (uint32_t)i, 0);
            for (int j = steps; j > 0; j--) { /* y = x - (1 - t) m */
                double t = (double)j / steps, v = (1 - t) * (1 - t) * gs * gs + t * t;
                y -= y / steps * (t - (1 - t) * gs * gs) / v;
            }
            assert_near(out[i], GM + y, 1e-13);
        }
    }
}

/* ---- what holds for all of them ---------------------------------------------------------------------------------- */

static const int asked[] = {1, 2, 3, 7, 40};

/* A configuration of the i-th sampler, or false if it cannot make nfe calls. */
static bool configured(int i, int nfe, struct sampler_config *c)
{
    const struct sampler_info *info = sampler_at(i);
    sampler_defaults(c, info->name, nfe);
    c->nmid = nfe <= 16 ? nfe - 1 : 0;
    for (int j = 0; j < c->nmid; j++) c->mid_t[j] = 5.0 / (j + 1);
    c->beta_max = nfe == 1 ? 0.5 : 0.5 * nfe, c->beta_min = 0.1;
    if (info->uses & USES_CHURN) c->s_churn = 0.3 * nfe, c->s_noise = 1.003;
    if (info->uses & USES_ALPHA) c->alpha = nfe == 7 ? 0.5 : 1;
    return !((!strcmp(info->name, "heun") && nfe % 2 == 0) || (!strcmp(info->name, "ect") && nfe > 16));
}

/* The network is called as often as was asked for, at the levels that are in an evaluation's identity. */
static void calls_are_counted(void **state)
{
    (void)state;
    int samplers = 0;
    for (int i = 0; sampler_at(i); i++, samplers++)
        for (size_t n = 0; n < ARRAY_LEN(asked); n++) {
            struct sampler_config c;
            struct seen seen = {.per = 1};
            double level[64], out[2];
            struct denoiser d = {sampler_at(i)->flow ? mixture_flow : mixture, &seen};
            struct sampler *s;
            if (!configured(i, asked[n], &c)) {
                assert_err(ERR_USAGE, sampler_new_of(&s, &c, &d, 2, 1, k, dev));
                continue;
            }
            s = make(&c, d, 2, 1);
            assert_ok(sampler_draw(s, NULL, 1, (uint32_t[]){0, 1}, 2, NULL, out));
            assert_int_equal(sampler_nfe(s), asked[n]);
            assert_int_equal(seen.calls, asked[n]);
            assert_int_equal(sampler_levels(&c, level, 64), asked[n]);
            for (int j = 0; j < asked[n]; j++) assert_true(seen.t[j] == level[j]);
            sampler_free(s);
        }
    assert_true(samplers >= 7);
    assert_null(sampler_at(samplers + 3));
}

/* Sample i of a seed block is the same alone, in another batch, in another order, and again. */
static void samples_are_named(void **state)
{
    (void)state;
    enum { PER = 3 };
    static const uint32_t some[4] = {40, 2, 11, 7};
    uint32_t index[N];
    for (uint32_t i = 0; i < N; i++) index[i] = i;
    for (int i = 0; sampler_at(i); i++) {
        struct sampler_config c;
        struct seen seen = {.per = PER};
        double all[N * PER], part[4 * PER], other[N * PER];
        struct denoiser d = {sampler_at(i)->flow ? mixture_flow : mixture, &seen};
        assert_true(configured(i, 7, &c));
        struct sampler *s = make(&c, d, N, PER), *small = make(&c, d, 4, PER);
        assert_ok(sampler_draw(s, NULL, 9, index, N, NULL, all));
        assert_ok(sampler_draw(small, NULL, 9, some, 4, NULL, part));
        for (int j = 0; j < 4; j++)
            assert_memory_equal(part + (ptrdiff_t)j * PER, all + (ptrdiff_t)some[j] * PER, PER * sizeof *all);
        assert_ok(sampler_draw(small, NULL, 9, index + 33, 1, NULL, part));
        assert_memory_equal(part, all + (ptrdiff_t)33 * PER, PER * sizeof *all);
        assert_ok(sampler_draw(s, NULL, 10, index, N, NULL, other));
        for (int j = 0; j < N * PER; j++) assert_true(isfinite(all[j]) && all[j] != other[j]);
        assert_ok(sampler_draw(s, NULL, 9, index, N, NULL, other));
        assert_memory_equal(all, other, sizeof all);
        sampler_free(s);
        sampler_free(small);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(orders),           cmocka_unit_test(moments),         cmocka_unit_test(few_steps_ve),
        cmocka_unit_test(few_steps_vp),     cmocka_unit_test(few_steps_churn), cmocka_unit_test(consistency_exact),
        cmocka_unit_test(few_steps_2m),     cmocka_unit_test(flow_exact),      cmocka_unit_test(calls_are_counted),
        cmocka_unit_test(samples_are_named)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
