/* Scalars and kernel together against the published algorithms written out in double. */
#include "tests/test.h"

#include "core/optim.h"

enum { N = 5, STEPS = 30 };

struct reference {
    double p[N], m[N], v[N];
};

/* Adam: Kingma and Ba 2015, algorithm 1. RAdam: Liu et al. 2020, algorithm 2, with eps beside sqrt(v) as torch has it. */
static void reference_step(struct reference *r, const struct optim_config *c, int t, double lr, const double *g)
{
    double b1 = 1 - pow(c->beta1, t), b2 = 1 - pow(c->beta2, t);
    double rho_inf = 2 / (1 - c->beta2) - 1, rho = rho_inf - 2 * t * pow(c->beta2, t) / b2;
    for (int i = 0; i < N; i++) {
        r->m[i] = c->beta1 * r->m[i] + (1 - c->beta1) * g[i];
        r->v[i] = c->beta2 * r->v[i] + (1 - c->beta2) * g[i] * g[i];
        double mhat = r->m[i] / b1;
        if (c->kind == OPTIM_ADAM) {
            r->p[i] -= lr * mhat / (sqrt(r->v[i] / b2) + c->eps);
        } else if (rho > 5) {
            double rect = sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho));
            r->p[i] -= lr * mhat * rect * sqrt(b2) / (sqrt(r->v[i]) + c->eps);
        } else {
            r->p[i] -= lr * mhat;
        }
    }
}

static void run(struct optim_config c, double lr)
{
    const struct kernels *k;
    struct kdev *dev;
    assert_ok(kernels_find("cpu", &k));
    assert_ok(k->open(&dev, "cpu", 1));
    struct reference ref = {.p = {1, -2, 0.5, 3, 0}};
    float *p = k->alloc(dev, N * sizeof *p), *m = k->alloc(dev, N * sizeof *m), *v = k->alloc(dev, N * sizeof *v);
    float *grad = k->alloc(dev, N * sizeof *grad), values[N], back[N];
    for (int i = 0; i < N; i++) values[i] = (float)ref.p[i];
    k->upload(dev, p, values, sizeof values);
    for (int t = 1; t <= STEPS; t++) {
        double g[N];
        struct optim_step s;
        for (int i = 0; i < N; i++) values[i] = (float)(g[i] = (float)(i == 4 ? 0 : sin(t * 1.7 + i) * pow(10, i - 2)));
        k->upload(dev, grad, values, sizeof values);
        optim_scalars(&c, t, lr, &s);
        k->optim_update(dev, &s, p, grad, m, v, N);
        reference_step(&ref, &c, t, lr, g);
        k->download(dev, back, p, sizeof back);
        for (int i = 0; i < N; i++) assert_near(back[i], ref.p[i], 2e-6 * (1 + fabs(ref.p[i])));
        k->download(dev, back, m, sizeof back);
        for (int i = 0; i < N; i++) assert_near(back[i], ref.m[i], 2e-6 * pow(10, i - 2));
        k->download(dev, back, v, sizeof back);
        for (int i = 0; i < N; i++) assert_near(back[i], ref.v[i], 2e-6 * ref.v[i] + 1e-30);
    }
    assert_true(back[4] == 0);
    float *const all[] = {p, m, v, grad};
    for (int i = 0; i < 4; i++) k->free(dev, all[i]);
    k->close(dev);
}

static void adam(void **state)
{
    (void)state;
    run((struct optim_config){OPTIM_ADAM, 0.9, 0.99, 1e-8}, 1e-2);
    run((struct optim_config){OPTIM_ADAM, 0.9, 0.999, 1e-3}, 1e-2);
}

static void radam(void **state)
{
    (void)state;
    run((struct optim_config){OPTIM_RADAM, 0.9, 0.999, 1e-8}, 1e-3);
    run((struct optim_config){OPTIM_RADAM, 0.85, 0.95, 1e-3}, 1e-3);
}

static void first_steps_of_radam_are_plain(void **state)
{
    (void)state;
    struct optim_config c = {OPTIM_RADAM, 0.9, 0.999, 1e-8};
    struct optim_step s;
    for (int t = 1; t <= 8; t++) {
        optim_scalars(&c, t, 1e-4, &s);
        assert_int_equal(s.adaptive, t > 5); /* rho_5 = 4.996 */
        if (!s.adaptive) assert_near(s.step_size, 1e-4 / (1 - pow(0.9, t)), 1e-10);
    }
    optim_scalars(&c, 1000000, 1e-4, &s);
    assert_near(s.radam_rect, 1, 1e-6); /* in the end it is Adam */
}

static void clean_rules(void **state)
{
    (void)state;
    assert_near(optim_clean_inf("main"), 1e5, 0);
    assert_near(optim_clean_inf("imgnet"), 0, 0);
}

/* torch.cuda.amp.GradScaler's rule, step by step. */
static void dynamic_scale(void **state)
{
    (void)state;
    struct optim_scaler s;
    assert_ok(optim_scaler_init(&s, "dynamic"));
    assert_true(s.dynamic && s.v[SCALER_SCALE] == 65536);
    for (int i = 0; i < 1999; i++) assert_true(optim_scaler_step(&s, 0));
    assert_true(s.v[SCALER_SCALE] == 65536);
    assert_false(optim_scaler_step(&s, 3)); /* one before it would have grown */
    assert_true(s.v[SCALER_SCALE] == 32768 && s.v[SCALER_SKIPPED] == 1);
    for (int i = 0; i < 1999; i++) assert_true(optim_scaler_step(&s, 0));
    assert_true(s.v[SCALER_SCALE] == 32768);
    assert_true(optim_scaler_step(&s, 0));
    assert_true(s.v[SCALER_SCALE] == 65536);
    assert_false(optim_scaler_step(&s, 1));
    assert_false(optim_scaler_step(&s, 1));
    assert_true(s.v[SCALER_SCALE] == 16384 && s.v[SCALER_SKIPPED] == 3);
}

static void fixed_scale(void **state)
{
    (void)state;
    struct optim_scaler s;
    assert_ok(optim_scaler_init(&s, "128"));
    assert_false(s.dynamic);
    assert_true(optim_scaler_step(&s, 1000)); /* only the clean-up looks at them */
    assert_true(s.v[SCALER_SCALE] == 128 && s.v[SCALER_SKIPPED] == 0);
    static const char *const bad[] = {"0", "-1", "inf", "nan", "", "dynamik"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) assert_err(ERR_USAGE, optim_scaler_init(&s, bad[i]));
    assert_has(err_text(), "dynamik");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adam),
        cmocka_unit_test(radam),
        cmocka_unit_test(first_steps_of_radam_are_plain),
        cmocka_unit_test(clean_rules),
        cmocka_unit_test(dynamic_scale),
        cmocka_unit_test(fixed_scale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
