/* Loss scaling in the loop, the gradient's norm, and the notice when the micro-batch changes. */
#include "tests/test.h"

#include "core/io/safetensors.h"
#include "core/optim.h"
#include "core/train_ckpt.h"
#include "tests/core/trainer.h"

static const struct kernels *k;
static struct kdev *dev;
static struct dataset *data;
static struct toy toy;
static struct design design;
static struct spec spec;
static struct observer observer;
static struct train_config config;
static struct train_result result;
static char dir[256], warned[512];
static struct {
    double norm, scale, nonfinite; /* of the last point */
    int64_t left;                  /* steps until the run is stopped; < 0: never */
} told;

static void on_metric(void *ctx, const char *key, int64_t step, double value)
{
    (void)ctx;
    (void)step;
    if (!strcmp(key, "grad.norm")) told.norm = value;
    if (!strcmp(key, "loss.scale")) told.scale = value;
    if (!strcmp(key, "grad.nonfinite")) told.nonfinite = value;
}
static bool on_stop(void *ctx)
{
    (void)ctx;
    return told.left >= 0 && told.left-- == 0;
}
static void on_log(void *ctx, enum log_level level, const char *line)
{
    (void)ctx;
    if (level == LOG_WARN) snprintf(warned, sizeof warned, "%s", line);
}

static int setup(void **state)
{
    (void)state;
    toy = toy_default();
    design = toy_design(&toy);
    toy_spec(&spec);
    told.norm = told.scale = told.nonfinite = NAN;
    told.left = -1;
    warned[0] = 0;
    observer = (struct observer){.metric = on_metric, .stop = on_stop};
    config = (struct train_config){.spec = &spec,
                                   .design = &design,
                                   .data = data,
                                   .kernels = k,
                                   .dev = dev,
                                   .seed = 7,
                                   .ckpt_dir = test_dir(dir, sizeof dir),
                                   .observer = &observer};
    return 0;
}

static void fresh_dir(void)
{
    config.ckpt_dir = test_dir(dir, sizeof dir);
}

static struct st_file *checkpoint(int64_t step)
{
    char path[320];
    struct st_file *f;
    snprintf(path, sizeof path, "%s/step-%09lld.safetensors", dir, (long long)step);
    assert_ok(st_open(&f, path));
    return f;
}

static float *tensor(const struct st_file *f, const char *name, size_t *n)
{
    const struct st_tensor *t = st_find(f, name);
    assert_non_null(t);
    float *x = mem_array(t->count, sizeof *x);
    *n = t->count;
    assert_ok(st_read_f32(t, x, t->count));
    return x;
}

/* Every tensor of the first is in the second, with the same bytes. */
static void assert_same_state(const struct st_file *a, const struct st_file *b)
{
    for (int i = 0; i < st_count(a); i++) {
        const struct st_tensor *x = st_at(a, i), *y = st_find(b, x->name);
        assert_non_null(y);
        assert_int_equal(x->bytes, y->bytes);
        assert_memory_equal(x->data, y->data, x->bytes);
    }
}

/* In float32 a power of two is taken in and out without a trace. */
static void powers_of_two_change_nothing(void **state)
{
    (void)state;
    static const char *const scales[] = {"1024", "dynamic", "0.5"};
    assert_ok(train_run(&config, &result));
    struct st_file *plain = checkpoint(12);
    double norm = told.norm;
    assert_true(norm > 0 && isnan(told.scale));
    assert_null(st_find(plain, "state.scaler"));
    for (size_t i = 0; i < ARRAY_LEN(scales); i++) {
        fresh_dir();
        assert_ok(spec_set(&spec, "loss.scale", scales[i]));
        assert_ok(train_run(&config, &result));
        struct st_file *f = checkpoint(12);
        assert_same_state(plain, f);
        assert_true(told.norm == norm); /* of the gradient itself, not of the scaled one */
        st_close(f);
    }
    fresh_dir();
    assert_ok(spec_set(&spec, "loss.scale", "3"));
    assert_ok(train_run(&config, &result));
    assert_near(told.norm, norm, 1e-2 * norm);
    fresh_dir();
    assert_ok(spec_set(&spec, "loss.scale", "big"));
    assert_err(ERR_USAGE, train_run(&config, &result));
    st_close(plain);
}

/* The first two and the sixth step overflow. */
static err_t overflowing(void *ctx, const struct design_state *s, int n, const double *t, const double *r, double *w)
{
    (void)ctx;
    (void)t;
    (void)r;
    for (int i = 0; i < n; i++) w[i] = s->step < 2 || s->step == 5 ? 1e42 : 1; /* finite in double, not in float */
    return ERR_OK;
}

/* Steps that overflow are skipped, training goes on with a smaller scale; killed and gone on, the same bytes. */
static void overflow_skips_the_update(void **state)
{
    (void)state;
    char first[SHA256_TEXT], path[320];
    size_t n;
    assert_ok(spec_set(&spec, "loss.scale", "dynamic"));
    assert_ok(spec_set(&spec, "metric", "l2"));
    assert_ok(spec_set(&spec, "p", "0"));
    assert_ok(spec_set(&spec, "log.every", "1"));
    design.weight = overflowing;
    toy.r_ratio = 0.5;
    static const int64_t keep[] = {0, 2};
    config.keep = keep;
    config.nkeep = 2;
    assert_ok(train_run(&config, &result));
    struct st_file *f0 = checkpoint(0), *f2 = checkpoint(2), *f12 = checkpoint(12);
    double s2[SCALER_STATE], s12[SCALER_STATE];
    assert_ok(st_read_f64(st_find(f2, "state.scaler"), s2, SCALER_STATE));
    assert_ok(st_read_f64(st_find(f12, "state.scaler"), s12, SCALER_STATE));
    assert_true(s2[SCALER_SKIPPED] == 2 && s2[SCALER_SCALE] == 16384);
    assert_true(s12[SCALER_SKIPPED] == 3 && s12[SCALER_SCALE] == 8192 && s12[SCALER_GOOD] == 6);
    assert_true(told.scale == s12[SCALER_SCALE]);
    assert_string_equal(st_meta(f2, "step"), "2"); /* the run's counter went on */
    const char *name = "model.enc.8x8_conv.weight", *moment = "optim.m.model.enc.8x8_conv.weight";
    float *a = tensor(f0, name, &n), *b = tensor(f2, name, &n), *m = tensor(f2, moment, &n), *c = tensor(f12, name, &n);
    assert_memory_equal(a, b, n * sizeof *a);
    for (size_t i = 0; i < n; i++) assert_true(m[i] == 0);
    assert_true(memcmp(a, c, n * sizeof *a) != 0);
    float *const all[] = {a, b, m, c};
    for (int i = 0; i < 4; i++) mem_free(all[i]);
    st_close(f0);
    st_close(f2);
    st_close(f12);
    snprintf(path, sizeof path, "%s/step-000000012.safetensors", dir);
    assert_ok(sha256_file(path, first));

    fresh_dir();
    told.left = 4;
    assert_err(ERR_INTERRUPTED, train_run(&config, &result));
    told.left = -1;
    assert_ok(train_run(&config, &result));
    snprintf(path, sizeof path, "%s/step-000000012.safetensors", dir);
    assert_ok(sha256_file(path, warned));
    assert_string_equal(first, warned);
}

/* Bias correction belongs to the updates that were made. lr is zero but in the last step, whose change tells. */
static err_t late_lr(void *ctx, const struct design_state *s, double *lr)
{
    *lr = s->step == 11 ? ((struct toy *)ctx)->lr : 0;
    return ERR_OK;
}

static void optimiser_counts_its_own_updates(void **state)
{
    (void)state;
    size_t n;
    assert_ok(spec_set(&spec, "loss.scale", "dynamic"));
    assert_ok(spec_set(&spec, "metric", "l2"));
    assert_ok(spec_set(&spec, "p", "0"));
    assert_ok(spec_set(&spec, "optim", "adam"));
    design.lr = late_lr;
    design.weight = overflowing;
    toy.r_ratio = 0.5;
    toy.lr = 1e-3;
    static const int64_t keep[] = {11};
    config.keep = keep;
    config.nkeep = 1;
    assert_ok(train_run(&config, &result));
    struct st_file *before = checkpoint(11), *after = checkpoint(12);
    double s[SCALER_STATE];
    assert_ok(st_read_f64(st_find(after, "state.scaler"), s, SCALER_STATE));
    double t = 12 - s[SCALER_SKIPPED];
    assert_true(t == 9);
    const char *name = "model.enc.8x8_conv.weight";
    float *a = tensor(before, name, &n), *b = tensor(after, name, &n),
          *m = tensor(after, "optim.m.model.enc.8x8_conv.weight", &n),
          *v = tensor(after, "optim.v.model.enc.8x8_conv.weight", &n);
    int compared = 0;
    for (size_t i = 0; i < n; i++) {
        if (!(v[i] > 0) || !isfinite(v[i])) continue;
        double want = 1e-3 * (m[i] / (1 - pow(0.9, t))) / (sqrt(v[i] / (1 - pow(0.999, t))) + 1e-8);
        assert_near((double)a[i] - b[i], want, 1e-5 * fabs(want) + 1e-7);
        compared++;
    }
    assert_true(compared > (int)n / 2);
    float *const all[] = {a, b, m, v};
    for (int i = 0; i < 4; i++) mem_free(all[i]);
    st_close(before);
    st_close(after);
}

/* After one update v = (1 - beta2) g^2, which gives every |g|. */
static void norm_of_the_gradient(void **state)
{
    (void)state;
    double sum = 0;
    assert_ok(spec_set(&spec, "iters", "1"));
    assert_ok(train_run(&config, &result));
    struct st_file *f = checkpoint(1);
    for (int i = 0; i < st_count(f); i++) {
        const struct st_tensor *t = st_at(f, i);
        size_t n;
        if (strncmp(t->name, "optim.v.", 8)) continue;
        float *v = tensor(f, t->name, &n);
        for (size_t e = 0; e < n; e++) sum += v[e] / 1e-3;
        mem_free(v);
    }
    assert_near(told.norm, sqrt(sum), 1e-4 * sqrt(sum));
    st_close(f);
}

static void micro_batch_notice(void **state)
{
    (void)state;
    log_set(LOG_WARN, on_log, NULL);
    told.left = 6;
    assert_err(ERR_INTERRUPTED, train_run(&config, &result));
    assert_ok(spec_set(&spec, "micro_batch", "4"));
    told.left = 2;
    assert_err(ERR_INTERRUPTED, train_run(&config, &result));
    assert_has(warned, "micro_batch was 6 and is 4 now");
    warned[0] = 0;
    told.left = 2;
    assert_err(ERR_INTERRUPTED, train_run(&config, &result));
    assert_string_equal(warned, ""); /* unchanged */
    assert_ok(spec_set(&spec, "micro_batch", "0"));
    told.left = -1;
    assert_ok(train_run(&config, &result));
    assert_has(warned, "micro_batch was 4 and is 6 now");
    log_set(LOG_INFO, NULL, NULL);
}

static int open_all(void **state)
{
    (void)state;
    data = toy_data();
    return kernels_find("cpu", &k) || k->open(&dev, "cpu", 2) ? -1 : 0;
}
static int close_all(void **state)
{
    (void)state;
    toy_data_free(data);
    k->close(dev);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(powers_of_two_change_nothing, setup),
        cmocka_unit_test_setup(overflow_skips_the_update, setup),
        cmocka_unit_test_setup(optimiser_counts_its_own_updates, setup),
        cmocka_unit_test_setup(norm_of_the_gradient, setup),
        cmocka_unit_test_setup(micro_batch_notice, setup),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
