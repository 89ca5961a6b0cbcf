/* Samplers on a network with a known answer. For data N(0, s^2) the best denoiser is D(x, t) = s^2 / (s^2 + t^2) x,
 * the skip path of EDM's preconditioning with F = 0, and the ODE carries x along sqrt(s^2 + t^2). The published
 * samplers themselves: tests/core/golden.sh. */
#include "tests/test.h"

#include "core/ops.h"
#include "core/rng.h"
#include "core/sampler.h"

enum { B = 8, PER = 4 * 4 * 2 };
#define SD 0.5

static const struct kernels *k;
static struct kdev *dev;
static struct graph *g;
static struct params *w;
static struct program *prog[2]; /* plain, evaluation form */

static int setup(void **state)
{
    (void)state;
    g = graph_new();
    struct node *x = graph_input(g, "x", 4, 4, 2), *sigma = graph_input(g, "sigma", 1, 1, 1);
    struct precond pc = op_precond_in(g, x, sigma, SD, 0);
    /* a parameter, so that the set is not empty; it is multiplied by 0 */
    struct node *one = graph_param(g, "one", 4, (int[]){2, 2, 1, 1}, (struct init){.kind = INIT_ONE, .scale = 1});
    struct node *f = op_scale(g, op_conv(g, pc.x_in, one, NULL), 0);
    graph_output(g, "D", op_precond_out(g, x, f, pc));
    if (kernels_find("cpu", &k) || k->open(&dev, "cpu", 2) || params_new(&w, g, k, dev)) return 1;
    params_init(w, 1);
    for (int i = 0; i < 2; i++)
        if (program_new(&prog[i], g, k, dev, &(struct program_opts){.batch = B, .eval_form = i})) return 1;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) program_free(prog[i]);
    params_free(w);
    graph_free(g);
    k->close(dev);
    return 0;
}

static double skip_of(double t, bool shifted)
{
    double u = shifted ? t - 0.003 : t;
    return SD * SD / (u * u + SD * SD);
}

static double normal(uint64_t seed, int purpose, int step, uint32_t sample, int e)
{
    return rng_normal(&(struct rng){.seed = seed, .step = (uint32_t)step, .purpose = (uint16_t)purpose}, sample,
                      (uint32_t)e);
}

static struct sampler *make(const struct sampler_config *c, bool shifted)
{
    struct sampler *s;
    assert_ok(sampler_new(&s, c, prog[shifted], B, PER, k, dev));
    return s;
}

static void consistency(void **state)
{
    (void)state;
    const uint32_t index[B] = {0, 1, 2, 3, 77, 5, 4000000000u, 9};
    double out[B * PER];
    for (int nfe = 1; nfe <= 3; nfe++)
        for (int shifted = 0; shifted < 2; shifted++) {
            struct sampler_config c;
            sampler_defaults(&c, "ect", nfe);
            if (nfe == 2) assert_true(c.nmid == 1 && c.mid_t[0] == 0.821);
            if (nfe == 3) c.nmid = 2, c.mid_t[0] = 2.5, c.mid_t[1] = 0.4;
            struct sampler *s = make(&c, shifted);
            assert_ok(sampler_draw(s, w, 42, index, B, NULL, out));
            assert_int_equal(sampler_nfe(s), nfe);
            for (int i = 0; i < B; i++)
                for (int e = 0; e < PER; e++) {
                    double x = skip_of(80, shifted) * 80 * normal(42, RNG_LATENT, 0, index[i], e);
                    for (int j = 0; j + 1 < nfe; j++) {
                        x += c.mid_t[j] * normal(42, RNG_RENOISE, j, index[i], e);
                        x *= skip_of(c.mid_t[j], shifted);
                    }
                    assert_near(out[i * PER + e], x, 2e-6 * fmax(1, fabs(x)));
                }
            sampler_free(s);
        }
}

static double norm_error(const char *name, int nfe, double *nfe_counted)
{
    /* exact: x(0) = x(T) s / sqrt(s^2 + T^2) */
    const uint32_t index[2] = {3, 4};
    double out[2 * PER], worst = 0, factor = 80 * SD / sqrt(SD * SD + 80 * 80);
    struct sampler_config c;
    sampler_defaults(&c, name, nfe);
    struct sampler *s = make(&c, false);
    assert_ok(sampler_draw(s, w, 7, index, 2, NULL, out));
    *nfe_counted = (double)sampler_nfe(s);
    sampler_free(s);
    for (int i = 0; i < 2 * PER; i++) {
        double z = normal(7, RNG_LATENT, 0, index[i / PER], i % PER);
        worst = fmax(worst, fabs(out[i] - z * factor) / fmax(fabs(z), 1e-3));
    }
    return worst;
}

static void solvers_converge(void **state)
{
    (void)state;
    double n, e18, e36, e72;
    e18 = norm_error("heun", 35, &n);
    assert_near(n, 35, 0);
    e36 = norm_error("heun", 71, &n);
    e72 = norm_error("heun", 143, &n);
    assert_near(e18, 0.027634402, 1e-5); /* the same sum in another program */
    assert_near(e72, 0.001435392, 1e-5);
    assert_true(e18 / e36 > 3 && e36 / e72 > 3); /* second order */
    e18 = norm_error("euler", 18, &n);
    assert_near(n, 18, 0);
    e36 = norm_error("euler", 36, &n);
    e72 = norm_error("euler", 72, &n);
    assert_true(e18 / e36 > 1.5 && e18 / e36 < 3 && e36 / e72 > 1.7 && e36 / e72 < 2.5); /* first */
    norm_error("heun", 1, &n);
    assert_near(n, 1, 0);
}

/* Churn raises the level, adds S_noise sqrt(t_hat^2 - t^2) z and goes on from there. */
static void churn(void **state)
{
    (void)state;
    struct sampler_config c;
    sampler_defaults(&c, "heun", 5);
    c.s_churn = 1, c.s_min = 0.05, c.s_max = 50, c.s_noise = 1.007;
    double t[5], noise[3 * PER], out[PER];
    float latents[PER];
    assert_int_equal(sampler_levels(&c, t, 5), 5);
    double grid1 = pow((pow(80, 1 / 7.) + pow(0.002, 1 / 7.)) / 2, 7);
    assert_near(t[0], 80, 1e-9);     /* above s_max: not raised */
    assert_near(t[1], grid1, 1e-12); /* correction of step 0 */
    assert_near(t[2], grid1 * (1 + 1 / 3.), 1e-12);
    assert_near(t[3], 0.002, 1e-15);
    assert_near(t[4], 0.002, 1e-15); /* below s_min */
    for (int i = 0; i < PER; i++) latents[i] = (float)normal(1, RNG_TEST, 0, 0, i);
    for (int i = 0; i < 3 * PER; i++) noise[i] = normal(1, RNG_TEST, 1, 0, i);
    struct sampler *s = make(&c, false);
    assert_ok(sampler_draw_from(s, w, latents, noise, 1, NULL, out));
    assert_err(ERR_FAILED, sampler_draw_from(s, w, latents, NULL, 1, NULL, out));
    sampler_free(s);
    for (int e = 0; e < PER; e++) {
        double x = latents[e] * 80.0;
        const double from[3] = {80, t[2], 0.002}, to[3] = {grid1, 0.002, 0};
        for (int i = 0; i < 3; i++) {
            if (i == 1) x += sqrt(t[2] * t[2] - grid1 * grid1) * 1.007 * noise[i * PER + e];
            double d = x * (1 - skip_of(from[i], false)) / from[i], y = x + (to[i] - from[i]) * d;
            x = to[i] > 0 ? x + (to[i] - from[i]) / 2 * (d + y * (1 - skip_of(to[i], false)) / to[i]) : y;
        }
        assert_near(out[e], x, 1e-5 * fmax(1, fabs(x)));
    }
}

/* A sample is the same in any company and at any place of a batch. */
static void batches(void **state)
{
    (void)state;
    uint32_t index[B], some[3] = {6, 1, 3};
    double all[B * PER], few[3 * PER], other[B * PER];
    for (uint32_t i = 0; i < B; i++) index[i] = i;
    struct sampler_config c;
    sampler_defaults(&c, "ect", 2);
    struct sampler *s = make(&c, true);
    assert_ok(sampler_draw(s, w, 5, index, B, NULL, all));
    assert_ok(sampler_draw(s, w, 5, some, 3, NULL, few));
    for (int i = 0; i < 3; i++)
        assert_memory_equal(few + (ptrdiff_t)i * PER, all + (ptrdiff_t)some[i] * PER, PER * sizeof(double));
    assert_ok(sampler_draw(s, w, 6, index, B, NULL, other));
    assert_memory_not_equal(all, other, sizeof all);
    uint64_t before = mem_count();
    assert_ok(sampler_draw(s, w, 5, index, B, NULL, all));
    assert_int_equal(mem_count(), before);
    assert_err(ERR_FAILED, sampler_draw(s, w, 5, index, B + 1, NULL, all));
    sampler_free(s);
}

static void refuse(const struct sampler_config *c, const char *part)
{
    struct sampler *s;
    assert_err(ERR_USAGE, sampler_new(&s, c, prog[0], B, PER, k, dev));
    assert_has(err_text(), part);
    assert_null(s);
}

static void refusals(void **state)
{
    (void)state;
    struct sampler_config c;
    sampler_defaults(&c, "magic", 1);
    refuse(&c, "no sampler named 'magic' (there are ect, heun, euler");
    sampler_defaults(&c, "dpmp-2m", 1);
    refuse(&c, "did you mean 'dpmpp-2m'?");
    sampler_defaults(&c, "ancestral-vp", 20);
    refuse(&c, "more than 20");
    sampler_defaults(&c, "ancestral-vp", 30);
    c.beta_min = 0;
    refuse(&c, "beta_min");
    sampler_defaults(&c, "heun", 5);
    c.alpha = 0;
    refuse(&c, "alpha");
    sampler_defaults(&c, "ancestral-ve", 5);
    c.sigma_min = 100;
    refuse(&c, "sigma_min");
    sampler_defaults(&c, "heun", 4);
    refuse(&c, "odd");
    sampler_defaults(&c, "ect", 0);
    refuse(&c, "nfe = 0");
    sampler_defaults(&c, "ect", 3);
    refuse(&c, "eval.mid_t");
    sampler_defaults(&c, "ect", 2);
    c.mid_t[0] = 0;
    refuse(&c, "above 0");
    sampler_defaults(&c, "heun", 5);
    c.sigma_min = 90;
    refuse(&c, "sigma_min");
    sampler_defaults(&c, "ect", 1);
    c.label_dim = 3;
    refuse(&c, "labels");
}

/* Settings reach the sampler that uses them, and change no other's identity. */
static void settings(void **state)
{
    (void)state;
    static const struct {
        const char *key, *value;
        unsigned uses;
    } other[] = {{"eval.sigma_min", "0.01", USES_SIGMA_MIN},
                 {"eval.sigma_max", "60", USES_SIGMA_MAX},
                 {"eval.rho", "5", USES_RHO},
                 {"eval.mid_t", "0.5,0.4", USES_MID_T},
                 {"eval.churn", "3", USES_CHURN},
                 {"eval.churn.min", "0.1", USES_CHURN},
                 {"eval.churn.max", "50", USES_CHURN},
                 {"eval.churn.noise", "1.003", USES_CHURN},
                 {"eval.alpha", "0.5", USES_ALPHA},
                 {"eval.beta_min", "0.2", USES_BETA},
                 {"eval.beta_max", "10", USES_BETA}};
    const struct spec_field *f = spec_find("eval.sampler");
    struct text names = {0};
    for (int i = 0; sampler_at(i); i++) {
        const struct sampler_info *info = sampler_at(i);
        int nfe = !strcmp(info->name, "ect") ? 2 : 25;
        text_addf(&names, "%s%s", i ? "|" : "", info->name);
        for (size_t j = 0; j < ARRAY_LEN(other); j++) {
            bool of_churn = !strncmp(other[j].key, "eval.churn.", 11);
            struct spec e;
            struct sampler_config c, d;
            struct text before = {0}, after = {0};
            spec_defaults(&e);
            assert_ok(spec_set(&e, "eval.sampler", info->name));
            assert_ok(sampler_from_spec(&c, &e, nfe));
            if (!of_churn) { /* nothing set: the published values */
                sampler_defaults(&d, info->name, nfe);
                assert_memory_equal(&c, &d, sizeof c);
            } else { /* parts of churn matter where there is churn */
                assert_ok(spec_set(&e, other[j].key, other[j].value));
                assert_ok(sampler_from_spec(&d, &e, nfe));
                assert_memory_equal(&c, &d, sizeof c);
                spec_defaults(&e);
                assert_ok(spec_set(&e, "eval.sampler", info->name));
                assert_ok(spec_set(&e, "eval.churn", "2"));
                assert_ok(sampler_from_spec(&c, &e, nfe));
            }
            sampler_identity(&c, &before);
            assert_ok(spec_set(&e, other[j].key, other[j].value));
            assert_ok(sampler_from_spec(&c, &e, nfe));
            sampler_identity(&c, &after);
            bool same = !strcmp(text_str(&before), text_str(&after));
            if (same == ((info->uses & other[j].uses) != 0))
                fail_msg("%s of %s: %s", other[j].key, info->name, after.s);
            text_done(&before);
            text_done(&after);
        }
    }
    assert_string_equal(text_str(&names), f->range);
    text_done(&names);
}

/* Numbers in ledgers carry these texts: they change on purpose only. */
static void identities(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text;
        int nfe;
    } known[] = {
        {"ect", "sampler=ect\nnfe=2\nt=80,0.821\n", 2},
        {"heun", "sampler=heun\nnfe=3\nt=80,0.002000000000000003,0.002000000000000003\n", 3},
        {"euler", "sampler=euler\nnfe=2\nt=80,0.002000000000000003\n", 2},
        {"dpmpp-2m", "sampler=dpmpp-2m\nnfe=2\nt=80,0.002000000000000003\n", 2},
        {"flow-euler", "sampler=flow-euler\nnfe=4\nt=1,0.75,0.5,0.25\n", 4},
    };
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        struct sampler_config c;
        struct text t = {0};
        sampler_defaults(&c, known[i].name, known[i].nfe);
        sampler_identity(&c, &t);
        assert_string_equal(text_str(&t), known[i].text);
        text_done(&t);
    }
}

/* The grid's ends give way to what the network was made for. */
static void clamped(void **state)
{
    (void)state;
    struct sampler_config c;
    double t[3];
    sampler_defaults(&c, "euler", 3);
    c.net_min = 0.003, c.net_max = 60;
    assert_int_equal(sampler_levels(&c, t, 3), 3);
    assert_near(t[0], 60, 1e-9);
    assert_near(t[2], 0.003, 1e-12);
    assert_int_equal(sampler_levels(&c, t, 2), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(consistency), cmocka_unit_test(solvers_converge),
                                       cmocka_unit_test(churn),       cmocka_unit_test(batches),
                                       cmocka_unit_test(refusals),    cmocka_unit_test(clamped),
                                       cmocka_unit_test(settings),    cmocka_unit_test(identities)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
