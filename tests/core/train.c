/* The loop in one process: same bytes twice, what is logged, what is kept, how it ends. Kills and resumed runs: resume.c. */
#include "tests/test.h"

#include <unistd.h>

#include "core/io/safetensors.h"
#include "core/train_ckpt.h"
#include "tests/core/trainer.h"

static const struct kernels *k;
static struct kdev *dev;
static struct dataset *data;

struct point {
    char key[32];
    int64_t step;
    double value;
};
struct log {
    struct point points[4096];
    int n, ckpts, saves;
    int64_t stop_at; /* stop when asked this often; < 0: never */
    int64_t asked;
};

static struct log lg;
static struct toy toy;
static struct design design;
static struct spec spec;
static struct observer observer;
static struct train_config config;
static struct train_result result;
static char dir[256];

static void on_metric(void *ctx, const char *key, int64_t step, double value)
{
    struct log *l = ctx;
    struct point *p = &l->points[l->n++ % 4096];
    snprintf(p->key, sizeof p->key, "%s", key);
    p->step = step;
    p->value = value;
}
static err_t on_checkpoint(void *ctx, int64_t step, const char *path)
{
    (void)step;
    if (!file_exists(path)) return fail(ERR_FAILED, "told of a checkpoint that is not there");
    ((struct log *)ctx)->ckpts++;
    return ERR_OK;
}
static err_t on_saving(void *ctx, int64_t step)
{
    (void)step;
    ((struct log *)ctx)->saves++;
    return ERR_OK;
}
static bool on_stop(void *ctx)
{
    struct log *l = ctx;
    return l->stop_at >= 0 && l->asked++ >= l->stop_at;
}

static int setup(void **state)
{
    (void)state;
    toy = toy_default();
    design = toy_design(&toy);
    toy_spec(&spec);
    memset(&lg, 0, sizeof lg);
    lg.stop_at = -1;
    observer = (struct observer){
        .ctx = &lg, .metric = on_metric, .saving = on_saving, .checkpoint = on_checkpoint, .stop = on_stop};
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

static double logged(const char *key, int64_t step)
{
    for (int i = lg.n; i-- > 0;) {
        if (!strcmp(lg.points[i].key, key) && lg.points[i].step == step) return lg.points[i].value;
    }
    return NAN;
}

static char *ckpt(int64_t step)
{
    static char path[2][320];
    static int which;
    which ^= 1;
    snprintf(path[which], sizeof path[which], "%s/step-%09lld.safetensors", dir, (long long)step);
    return path[which];
}

static void assert_same_file(const char *a, const char *b)
{
    char ha[SHA256_TEXT], hb[SHA256_TEXT];
    assert_ok(sha256_file(a, ha));
    assert_ok(sha256_file(b, hb));
    assert_string_equal(ha, hb);
}

static void same_seed_same_bytes(void **state)
{
    (void)state;
    char first[320], other[SHA256_TEXT], mine[SHA256_TEXT];
    assert_ok(train_run(&config, &result));
    snprintf(first, sizeof first, "%s", ckpt(12));
    assert_ok(sha256_file(first, mine));
    config.ckpt_dir = test_dir(dir, sizeof dir);
    assert_ok(train_run(&config, &result));
    assert_same_file(first, ckpt(12));
    config.ckpt_dir = test_dir(dir, sizeof dir);
    config.seed = 8;
    assert_ok(train_run(&config, &result));
    assert_ok(sha256_file(ckpt(12), other));
    assert_string_not_equal(mine, other);
}

static void result_and_cost(void **state)
{
    (void)state;
    struct train_cost cost;
    toy.r_ratio = 0.5; /* no pass is skipped */
    assert_ok(train_run(&config, &result));
    assert_ok(train_predict(&spec, data, &cost));
    assert_int_equal(result.first_step, 0);
    assert_int_equal(result.steps, 12);
    assert_int_equal(result.nimg, 72);
    assert_int_equal(cost.images, 72);
    assert_near(result.flops_executed, 72 * 4 * cost.forward_flops, 1);
    assert_near(result.flops_executed, cost.flops_executed, 1);
    assert_near(result.flops_nominal, cost.flops_nominal, 1);
    assert_near(result.sigma_data, data->std, 0);
    assert_true(isfinite(result.final_loss) && result.images_per_s > 0);
    assert_int_equal(result.allocs_in_loop, 0);
    char *bytes;
    size_t n;
    assert_ok(file_read(ckpt(12), 0, &bytes, &n));
    mem_free(bytes);
    assert_near(cost.ckpt_bytes / (double)n, 1, 0.5);

    config.ckpt_dir = test_dir(dir, sizeof dir);
    toy.r_ratio = 0; /* every teacher pass is skipped */
    assert_ok(train_run(&config, &result));
    assert_near(result.flops_executed, 72 * 3 * cost.forward_flops, 1);
    assert_near(result.flops_nominal, 72 * 4 * cost.forward_flops, 1);
}

static void edm_target(void **state)
{
    (void)state;
    struct train_cost cost;
    assert_ok(spec_set(&spec, "target", "edm"));
    assert_ok(spec_set(&spec, "iters", "60"));
    assert_ok(spec_set(&spec, "optim", "adam"));
    toy.lr = 5e-3;
    assert_ok(train_predict(&spec, data, &cost));
    assert_ok(train_run(&config, &result));
    assert_near(result.flops_executed, cost.flops_executed, 1);
    assert_near(cost.flops_executed, 360 * 3 * cost.forward_flops, 1);
    assert_true(logged("delta", 60) < logged("delta", 4)); /* it learns */
}

static void metrics(void **state)
{
    (void)state;
    assert_ok(train_run(&config, &result));
    static const int64_t steps[] = {4, 8, 12};
    static const char *const keys[] = {"loss", "delta", "weight"};
    for (int s = 0; s < 3; s++) {
        assert_near(logged("lr", steps[s]), 1e-3, 0);
        assert_near(logged("dropout", steps[s]), 0.1, 0);
        assert_near(logged("stage", steps[s]), (double)((steps[s] - 1) * 4 / 12), 0);
        assert_near(logged("grad.nonfinite", steps[s]), 0, 0);
        for (int i = 0; i < 3; i++) assert_true(logged(keys[i], steps[s]) > 0);
    }
    assert_true(isnan(logged("loss", 6)));
    /* t fixed: one bin, equal to the mean over everything */
    lg.n = 0;
    toy.t_value = 0.1; /* floor(ln 0.1) = -3 */
    config.ckpt_dir = NULL;
    assert_ok(train_run(&config, &result));
    for (int i = 0; i < 3; i++) {
        char key[64];
        snprintf(key, sizeof key, "%s[lnt=-3]", keys[i]);
        assert_near(logged(key, 8), logged(keys[i], 8), 1e-9 * logged(keys[i], 8));
    }
    assert_true(isnan(logged("loss[lnt=-2]", 8)));
    /* a last point closes an incomplete window */
    assert_ok(spec_set(&spec, "log.every", "5"));
    assert_ok(train_run(&config, &result));
    assert_false(isnan(logged("loss", 12)));
}

static void averages(void **state)
{
    (void)state;
    /* three steps; "mean" is the mean of the weights after each, beta9 the decay 0.9 from the start */
    assert_ok(spec_set(&spec, "iters", "3"));
    assert_ok(spec_set(&spec, "ckpt.every", "1"));
    toy.lr = 0.1;
    static const int64_t keep[] = {0, 1};
    config.keep = keep;
    config.nkeep = 2;
    assert_ok(train_run(&config, &result));
    struct st_file *f[4];
    for (int i = 0; i < 4; i++) assert_ok(st_open(&f[i], ckpt(i)));
    const char *names[] = {"model.enc.8x8_conv.weight", "model.dec.8x8_aux_norm.weight"};
    for (int p = 0; p < 2; p++) {
        size_t n = st_find(f[0], names[p])->count;
        double *raw[4], *mean = mem_array(n, sizeof *mean), *b9 = mem_array(n, sizeof *b9), move = 0;
        char ema[2][96];
        snprintf(ema[0], sizeof ema[0], "ema.beta9.%s", names[p]);
        snprintf(ema[1], sizeof ema[1], "ema.mean.%s", names[p]);
        for (int i = 0; i < 4; i++) {
            raw[i] = mem_array(n, sizeof(double));
            assert_ok(st_read_f64(st_find(f[i], names[p]), raw[i], n));
        }
        assert_ok(st_read_f64(st_find(f[3], ema[0]), b9, n));
        assert_ok(st_read_f64(st_find(f[3], ema[1]), mean, n));
        for (size_t j = 0; j < n; j++) {
            double want = raw[0][j];
            for (int i = 1; i < 4; i++) want = 0.9 * want + 0.1 * raw[i][j];
            assert_near(b9[j], want, 1e-6);
            assert_near(mean[j], (raw[1][j] + raw[2][j] + raw[3][j]) / 3, 1e-6);
            move = fmax(move, fabs(raw[3][j] - raw[0][j]));
        }
        assert_true(move > 1e-5);
        for (int i = 0; i < 4; i++) mem_free(raw[i]);
        mem_free(mean);
        mem_free(b9);
    }
    for (int i = 0; i < 4; i++) st_close(f[i]);
}

static void what_is_kept(void **state)
{
    (void)state;
    static const int64_t keep[] = {3, 12};
    config.keep = keep;
    config.nkeep = 2;
    assert_ok(spec_set(&spec, "ckpt.every", "2"));
    assert_ok(train_run(&config, &result));
    for (int64_t s = 0; s <= 12; s++) assert_int_equal(file_exists(ckpt(s)), s == 3 || s == 10 || s == 12);
    assert_int_equal(lg.ckpts, 7); /* 2 3 4 6 8 10 12 */
    assert_int_equal(lg.saves, 7);
    char *path;
    int64_t step;
    assert_ok(train_find_checkpoint(dir, -1, &path, &step));
    assert_int_equal(step, 12);
    mem_free(path);
    assert_ok(train_find_checkpoint(dir, 3, &path, &step));
    assert_string_equal(path, ckpt(3));
    mem_free(path);
    assert_err(ERR_NOT_FOUND, train_find_checkpoint(dir, 4, &path, &step));
    /* a finished run has nothing to do */
    assert_ok(train_run(&config, &result));
    assert_int_equal(result.first_step, 12);
    assert_near(result.flops_executed, 0, 0);
    assert_true(result.final_loss > 0);
}

static void holds_nothing_of_time_or_place(void **state)
{
    (void)state;
    struct st_file *f;
    assert_ok(train_run(&config, &result));
    assert_ok(st_open(&f, ckpt(12)));
    char hash[SHA256_TEXT];
    spec_hash(&spec, hash);
    assert_string_equal(st_meta(f, "config_hash"), hash);
    assert_string_equal(st_meta(f, "step"), "12");
    assert_string_equal(st_meta(f, "nimg"), "72");
    assert_string_equal(st_meta(f, "emas"), "beta9,mean");
    assert_has(st_meta(f, "spec"), "net.width=8\n");
    assert_non_null(st_find(f, "optim.m.model.enc.8x8_conv.weight"));
    assert_non_null(st_find(f, "optim.v.model.enc.8x8_conv.weight"));
    st_close(f);
    char *bytes;
    size_t n;
    assert_ok(file_read(ckpt(12), 0, &bytes, &n));
    assert_null(memmem(bytes, n, dir, strlen(dir)));
    assert_null(memmem(bytes, n, "threads", 7));
    mem_free(bytes);
}

static void execution_settings_change_nothing(void **state)
{
    (void)state;
    char first[320];
    assert_ok(train_run(&config, &result));
    snprintf(first, sizeof first, "%s", ckpt(12));
    config.ckpt_dir = test_dir(dir, sizeof dir);
    assert_ok(spec_set(&spec, "ckpt.every", "1"));
    assert_ok(train_run(&config, &result));
    assert_same_file(first, ckpt(12));
}

static void micro_batches(void **state)
{
    (void)state;
    double loss[3], lnt[3];
    static const char *const rows[] = {"0", "3", "4"}; /* whole, even, with a rest */
    toy.lr = 1e-5;                                     /* rounding differs, so the paths part slowly */
    for (int i = 0; i < 3; i++) {
        config.ckpt_dir = NULL;
        assert_ok(spec_set(&spec, "micro_batch", rows[i]));
        assert_ok(train_run(&config, &result));
        loss[i] = logged("loss", 12);
        lnt[i] = logged("weight", 12); /* levels come from counters: exactly the same */
        assert_int_equal(result.allocs_in_loop, 0);
    }
    for (int i = 1; i < 3; i++) {
        assert_near(loss[i], loss[0], 1e-4 * loss[0]);
        assert_near(lnt[i], lnt[0], 1e-12 * lnt[0]);
    }
}

static void conditional_with_flips(void **state)
{
    (void)state;
    assert_ok(spec_set(&spec, "net.cond", "true"));
    assert_ok(spec_set(&spec, "net.augment", "9"));
    assert_ok(spec_set(&spec, "xflip", "true"));
    assert_ok(spec_set(&spec, "loss.share_noise", "false"));
    assert_ok(spec_set(&spec, "loss.share_dropout", "false"));
    assert_ok(train_run(&config, &result));
    struct st_file *f;
    assert_ok(st_open(&f, ckpt(12)));
    const struct st_tensor *t = st_find(f, "model.map_label.weight");
    assert_non_null(t);
    assert_int_equal(t->dims[1], 3);
    st_close(f);
    assert_int_equal(result.allocs_in_loop, 0);
}

static void starts_from_another_run(void **state)
{
    (void)state;
    char parent[320];
    assert_ok(train_run(&config, &result));
    snprintf(parent, sizeof parent, "%s", ckpt(12));
    config.ckpt_dir = test_dir(dir, sizeof dir);
    config.init_path = parent;
    config.init_weights = "mean";
    static const int64_t keep[] = {0};
    config.keep = keep;
    config.nkeep = 1;
    assert_ok(spec_set(&spec, "init", "run:abc@mean"));
    assert_ok(train_run(&config, &result));
    struct st_file *a, *b;
    assert_ok(st_open(&a, parent));
    assert_ok(st_open(&b, ckpt(0)));
    const char *name = "model.enc.8x8_conv.weight";
    size_t n = st_find(a, name)->count;
    float *mean = mem_array(n, sizeof *mean), *x = mem_array(n, sizeof *x);
    assert_ok(st_read_f32(st_find(a, "ema.mean.model.enc.8x8_conv.weight"), mean, n));
    assert_ok(st_read_f32(st_find(b, name), x, n));
    assert_memory_equal(mean, x, n * sizeof *x);
    assert_ok(st_read_f32(st_find(b, "ema.beta9.model.enc.8x8_conv.weight"), x, n));
    assert_memory_equal(mean, x, n * sizeof *x); /* EMAs start at the loaded weights */
    assert_ok(st_read_f32(st_find(b, "optim.m.model.enc.8x8_conv.weight"), x, n));
    for (size_t i = 0; i < n; i++) assert_true(x[i] == 0);
    mem_free(mean);
    mem_free(x);
    st_close(a);
    st_close(b);

    config.ckpt_dir = test_dir(dir, sizeof dir);
    config.init_weights = "std05";
    assert_err(ERR_NOT_FOUND, train_run(&config, &result));
    assert_has(err_text(), "raw,beta9,mean");
    config.init_weights = "raw";
    assert_ok(spec_set(&spec, "net.width", "12"));
    assert_err(ERR_FORMAT, train_run(&config, &result));
    assert_has(err_text(), "another shape");
    config.init_path = "/nonexistent/x.safetensors";
    assert_true(train_run(&config, &result) != ERR_OK);
    assert_has(err_text(), "/nonexistent");
}

static void stops_on_request(void **state)
{
    (void)state;
    char whole[320];
    assert_ok(train_run(&config, &result));
    snprintf(whole, sizeof whole, "%s", ckpt(12));
    config.ckpt_dir = test_dir(dir, sizeof dir);
    lg.stop_at = 7;
    lg.asked = 0;
    assert_err(ERR_INTERRUPTED, train_run(&config, &result));
    assert_int_equal(result.steps, 7);
    assert_true(file_exists(ckpt(7)));
    lg.asked = 0;
    lg.stop_at = 0; /* at once: the checkpoint is there already */
    int ckpts = lg.ckpts;
    assert_err(ERR_INTERRUPTED, train_run(&config, &result));
    assert_int_equal(lg.ckpts, ckpts);
    lg.stop_at = -1;
    assert_ok(train_run(&config, &result));
    assert_int_equal(result.first_step, 7);
    assert_same_file(whole, ckpt(12));
}

static void diverges_by_loss(void **state)
{
    (void)state;
    toy.lr = 1e38;
    toy.r_ratio = 0.5;
    assert_err(ERR_DIVERGED, train_run(&config, &result));
    assert_has(err_text(), "loss is");
    assert_true(result.steps >= 1 && result.steps <= 6);
    assert_false(isfinite(logged("loss", result.steps))); /* the curve shows it */
    assert_false(file_exists(ckpt(12)));
}

static void diverges_by_gradient(void **state)
{
    (void)state;
    assert_ok(spec_set(&spec, "iters", "100"));
    assert_ok(spec_set(&spec, "metric", "l2"));
    assert_ok(spec_set(&spec, "p", "0"));
    toy.lr = 0;
    toy.r_ratio = 0.5;
    toy.weight = 1e42; /* finite in double, not in the network's floats */
    assert_err(ERR_DIVERGED, train_run(&config, &result));
    assert_has(err_text(), "20 consecutive steps");
    assert_int_equal(result.steps, 20);
    assert_true(result.bad_grads > 0);
    assert_true(logged("grad.nonfinite", 8) > 0);
    assert_true(isfinite(logged("loss", 8)));
}

/* Nineteen bad steps in a row are not twenty. */
static void bad_gradients_with_relief(void **state)
{
    (void)state;
    assert_ok(spec_set(&spec, "iters", "60"));
    assert_ok(spec_set(&spec, "metric", "l2"));
    assert_ok(spec_set(&spec, "p", "0"));
    toy.lr = 0;
    toy.r_ratio = 0.5;
    toy.weight = 1e42;
    toy.relief = 20;
    assert_ok(train_run(&config, &result));
    assert_true(result.bad_grads > 0);
}

/* At a huge noise level the untrained denoiser gives nearly 0, so a step's loss is ||y||^2 and tells which image it was: every epoch
 * is the whole data set, in an order of its own. */
static void epochs_visit_every_image(void **state)
{
    (void)state;
    int order[2][50];
    config.ckpt_dir = NULL;
    assert_ok(spec_set(&spec, "target", "edm"));
    assert_ok(spec_set(&spec, "batch", "1"));
    assert_ok(spec_set(&spec, "iters", "100"));
    assert_ok(spec_set(&spec, "log.every", "1"));
    toy.lr = 0;
    toy.weight = 1;
    toy.t_value = 1e4;
    assert_ok(train_run(&config, &result));
    for (int step = 0; step < 100; step++) {
        double loss = logged("loss", step + 1), nearest = INFINITY;
        for (int i = 0; i < 50; i++) {
            double norm = 0;
            for (int e = 0; e < 64; e++) norm += pow(data->pixels[i * 64 + e] / 127.5 - 1, 2);
            if (fabs(norm - loss) >= nearest) continue;
            nearest = fabs(norm - loss);
            order[step / 50][step % 50] = i;
        }
        assert_true(nearest < 0.02);
    }
    int seen[2][50] = {{0}}, in_place = 0, same = 0;
    for (int i = 0; i < 50; i++) {
        seen[0][order[0][i]]++;
        seen[1][order[1][i]]++;
        in_place += order[0][i] == i;
        same += order[0][i] == order[1][i];
    }
    for (int i = 0; i < 50; i++) assert_true(seen[0][i] == 1 && seen[1][i] == 1);
    assert_true(in_place < 15 && same < 15);
}

static void bad_design_functions(void **state)
{
    (void)state;
    toy.r_ratio = 2;
    assert_err(ERR_USAGE, train_run(&config, &result));
    assert_has(err_text(), "mapping gave r");
    toy = toy_default();
    toy.t_value = NAN;
    assert_err(ERR_USAGE, train_run(&config, &result));
    assert_has(err_text(), "noise gave t");
    toy = toy_default();
    toy.r_ratio = 1; /* 1 / (t - r) */
    assert_err(ERR_USAGE, train_run(&config, &result));
    assert_has(err_text(), "weight gave");
    toy = toy_default();
    toy.dropout = 1;
    assert_err(ERR_USAGE, train_run(&config, &result));
    assert_has(err_text(), "dropout gave");
    toy = toy_default();
    toy.lr = INFINITY;
    assert_err(ERR_USAGE, train_run(&config, &result));
    assert_has(err_text(), "lr gave");
}

static void bad_settings(void **state)
{
    (void)state;
    struct net_config net;
    struct dataset odd = *data;
    odd.w = 4;
    assert_err(ERR_USAGE, train_net_config(&spec, &odd, &net));
    odd = *data;
    odd.nclasses = 0;
    assert_ok(spec_set(&spec, "net.cond", "true"));
    assert_err(ERR_USAGE, train_net_config(&spec, &odd, &net));
    assert_has(err_text(), "no labels");
    assert_ok(train_net_config(&spec, data, &net));
    assert_int_equal(net.label_dim, 3);
    assert_near(net.sigma_data, data->std, 0);
    assert_ok(spec_set(&spec, "sigma_data", "0.5"));
    assert_ok(train_net_config(&spec, data, &net));
    assert_near(net.sigma_data, 0.5, 0);
    assert_ok(spec_set(&spec, "net.mult", "1,1,1,1,1,1,1,1,1"));
    assert_err(ERR_USAGE, train_net_config(&spec, data, &net));
    config.ckpt_dir = "/nonexistent/ckpt";
    assert_ok(spec_set(&spec, "net.mult", "1"));
    assert_err(ERR_IO, train_run(&config, &result));
    assert_has(err_text(), "/nonexistent/ckpt");
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
        cmocka_unit_test_setup(same_seed_same_bytes, setup),
        cmocka_unit_test_setup(result_and_cost, setup),
        cmocka_unit_test_setup(edm_target, setup),
        cmocka_unit_test_setup(metrics, setup),
        cmocka_unit_test_setup(averages, setup),
        cmocka_unit_test_setup(what_is_kept, setup),
        cmocka_unit_test_setup(holds_nothing_of_time_or_place, setup),
        cmocka_unit_test_setup(execution_settings_change_nothing, setup),
        cmocka_unit_test_setup(micro_batches, setup),
        cmocka_unit_test_setup(conditional_with_flips, setup),
        cmocka_unit_test_setup(starts_from_another_run, setup),
        cmocka_unit_test_setup(stops_on_request, setup),
        cmocka_unit_test_setup(diverges_by_loss, setup),
        cmocka_unit_test_setup(diverges_by_gradient, setup),
        cmocka_unit_test_setup(bad_gradients_with_relief, setup),
        cmocka_unit_test_setup(epochs_visit_every_image, setup),
        cmocka_unit_test_setup(bad_design_functions, setup),
        cmocka_unit_test_setup(bad_settings, setup),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
