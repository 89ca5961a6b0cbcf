/* Snapshots of a run and what is made of them: the average of another width is the one that a run with that width would have had. */
#include "tests/test.h"

#include <unistd.h>

#include "core/ema.h"
#include "core/io/safetensors.h"
#include "core/train_ckpt.h"
#include "tests/core/trainer.h"

enum { ITERS = 64, SNAPSHOTS = 8 };
static const struct kernels *k;
static struct kdev *dev;
static struct dataset *data;
static struct toy toy;
static struct design design;
static struct spec spec;
static struct train_config config;
static struct train_result result;
static struct observer observer;
static char dir[256];
static int64_t left; /* steps until the run is stopped; < 0: never */

static const double widths[] = {0.05, 0.1, 0.07};
static err_t power_ema(void *ctx, const struct design_state *s, int i, double *beta)
{
    (void)ctx;
    *beta = pow(1 - s->batch / (double)(s->nimg + s->batch), ema_gamma(widths[i]) + 1);
    return ERR_OK;
}

static bool on_stop(void *ctx)
{
    (void)ctx;
    return left >= 0 && left-- == 0;
}

static int setup(void **state)
{
    (void)state;
    toy = toy_default();
    design = toy_design(&toy);
    design.ema = power_ema;
    design.nemas = 2;
    snprintf(design.ema_name[0], sizeof design.ema_name[0], "std05");
    snprintf(design.ema_name[1], sizeof design.ema_name[1], "wide");
    snprintf(design.ema_name[2], sizeof design.ema_name[2], "std07");
    toy_spec(&spec);
    assert_ok(spec_set(&spec, "iters", "64"));
    assert_ok(spec_set(&spec, "batch", "2"));
    assert_ok(spec_set(&spec, "target", "edm"));
    toy.weight = 1;
    assert_ok(spec_set(&spec, "posthoc.snapshots", "8"));
    assert_ok(spec_set(&spec, "ema", "std05=power(std=0.05)@1 wide=power(std=0.1)@1"));
    left = -1;
    observer = (struct observer){.stop = on_stop};
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

static const char *file(const char *kind, int64_t step)
{
    static char path[320];
    snprintf(path, sizeof path, "%s/%s-%09lld.safetensors", dir, kind, (long long)step);
    return path;
}

struct network {
    struct graph *graph;
    struct params *params;
};
static struct network network_new(void)
{
    struct network n;
    struct net_config c;
    assert_ok(train_net_config(&spec, data, &c));
    n.graph = graph_new();
    assert_ok(net_build(n.graph, &c));
    assert_ok(params_new(&n.params, n.graph, k, dev));
    return n;
}
static void network_free(struct network *n)
{
    params_free(n->params);
    graph_free(n->graph);
}

/* All parameters one after the other. */
static float *values(const struct network *n, size_t *count)
{
    *count = graph_param_count(n->graph);
    float *v = mem_array(*count, sizeof *v), *at = v;
    for (int i = 0; i < graph_nparams(n->graph); i++) {
        if (graph_param_info(n->graph, i)->buffer) continue;
        params_get(n->params, i, at);
        at += graph_param_info(n->graph, i)->count;
    }
    return v;
}

static double apart(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += pow((double)a[i] - b[i], 2);
    return sqrt(sum);
}

static void another_width(void **state)
{
    (void)state;
    size_t n;
    struct network net = network_new();
    struct ema_made made;
    assert_ok(train_run(&config, &result));
    for (int i = 1; i <= SNAPSHOTS; i++) assert_true(file_exists(file("ema", i * ITERS / SNAPSHOTS)));
    assert_false(file_exists(file("step", 8))); /* checkpoints are pruned, snapshots are not */
    assert_ok(ema_load(dir, -1, 0.07, net.params, net.graph, &made));
    assert_int_equal(made.step, ITERS);
    assert_int_equal(made.nimg, ITERS * 2);
    assert_int_equal(made.stored, 2 * SNAPSHOTS);
    assert_true(made.quality.miss > 1e-4 && made.quality.miss < 0.05);
    float *got = values(&net, &n);
    assert_ok(ema_load(dir, -1, 0.05, net.params, net.graph, NULL));
    float *narrow = values(&net, &n);
    assert_ok(ema_load(dir, 32, 0.07, net.params, net.graph, &made));
    assert_int_equal(made.stored, SNAPSHOTS); /* nothing from after that step */
    float *half_way = values(&net, &n);

    assert_ok(train_load_weights(file("step", ITERS), "std05", net.params, net.graph));
    float *stored = values(&net, &n);
    assert_memory_equal(stored, narrow, n * sizeof *stored); /* a stored width comes back as it is */

    config.ckpt_dir = test_dir(dir, sizeof dir); /* the same training, with the width in it from the start */
    design.nemas = 3;
    static const int64_t keep[] = {32};
    config.keep = keep;
    config.nkeep = 1;
    assert_ok(train_run(&config, &result));
    assert_ok(train_load_weights(file("step", ITERS), "std07", net.params, net.graph));
    float *want = values(&net, &n);
    assert_true(apart(got, want, n) < 0.05 * apart(narrow, want, n));
    assert_ok(train_load_weights(file("step", 32), "std07", net.params, net.graph));
    float *want_half = values(&net, &n);
    assert_true(apart(half_way, want_half, n) < 0.1 * apart(got, half_way, n));
    float *const all[] = {got, narrow, half_way, stored, want, want_half};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) mem_free(all[i]);
    network_free(&net);
}

static void as_a_file(void **state)
{
    (void)state;
    char out[320];
    size_t n;
    struct network net = network_new();
    struct st_file *f, *h;
    assert_ok(train_run(&config, &result));
    snprintf(out, sizeof out, "%s/x.safetensors", dir);
    assert_ok(ema_save(dir, -1, 0.07, out, false, NULL));
    assert_ok(ema_load(dir, -1, 0.07, net.params, net.graph, NULL));
    float *want = values(&net, &n);
    assert_ok(train_load_weights(out, "raw", net.params, net.graph));
    float *got = values(&net, &n);
    assert_memory_equal(got, want, n * sizeof *got);
    assert_ok(st_open(&f, out));
    assert_string_equal(st_meta(f, "posthoc_std"), "0.07");
    assert_string_equal(st_meta(f, "step"), "64");
    assert_string_equal(st_meta(f, "nimg"), "128");
    assert_string_equal(st_meta(f, "seed"), "0000000000000007");
    assert_int_equal(st_count(f), graph_nparams(net.graph));

    snprintf(out, sizeof out, "%s/h.safetensors", dir);
    assert_ok(ema_save(dir, -1, 0.07, out, true, NULL));
    assert_ok(st_open(&h, out));
    assert_int_equal(st_count(h), st_count(f));
    int exact = 0, total = 0;
    for (int i = 0; i < st_count(f); i++) {
        const struct st_tensor *a = st_at(f, i), *b = st_at(h, i);
        assert_int_equal(b->dtype, ST_F16);
        double *x = mem_array(a->count, sizeof *x), *y = mem_array(a->count, sizeof *y);
        assert_ok(st_read_f64(a, x, a->count));
        assert_ok(st_read_f64(b, y, a->count));
        for (size_t e = 0; e < a->count; e++) {
            int bits;
            frexp(x[e], &bits);
            double unit = ldexp(1, (bits < -13 ? -13 : bits) - 11);
            assert_true(y[e] == rint(x[e] / unit) * unit);
            exact += y[e] == x[e];
            total++;
        }
        mem_free(x);
        mem_free(y);
    }
    assert_true(exact < total / 2); /* it did round */
    st_close(f);
    st_close(h);
    mem_free(want);
    mem_free(got);
    network_free(&net);
}

/* Killed anywhere and gone on: the same snapshots. */
static void survives_interruption(void **state)
{
    (void)state;
    char sha[SNAPSHOTS][SHA256_TEXT], now[SHA256_TEXT];
    assert_ok(train_run(&config, &result));
    for (int i = 0; i < SNAPSHOTS; i++) assert_ok(sha256_file(file("ema", (i + 1) * 8), sha[i]));
    config.ckpt_dir = test_dir(dir, sizeof dir);
    for (int i = 0; i < 4; i++) {
        left = 16;
        assert_err(ERR_INTERRUPTED, train_run(&config, &result));
        unlink(file("step", result.steps)); /* goes back to the one before, past a snapshot */
    }
    left = -1;
    assert_ok(train_run(&config, &result));
    for (int i = 0; i < SNAPSHOTS; i++) {
        assert_ok(sha256_file(file("ema", (i + 1) * 8), now));
        assert_string_equal(now, sha[i]);
    }
}

static void refused(void **state)
{
    (void)state;
    struct network net = network_new();
    assert_ok(spec_set(&spec, "iters", "16"));
    assert_ok(spec_set(&spec, "posthoc.snapshots", "0"));
    assert_ok(train_run(&config, &result));
    assert_err(ERR_NOT_FOUND, ema_load(dir, -1, 0.07, net.params, net.graph, NULL));
    assert_has(err_text(), "posthoc.snapshots");

    config.ckpt_dir = test_dir(dir, sizeof dir);
    assert_ok(spec_set(&spec, "posthoc.snapshots", "2"));
    assert_ok(train_run(&config, &result));
    assert_err(ERR_NOT_FOUND, ema_load(dir, 7, 0.07, net.params, net.graph, NULL));
    assert_has(err_text(), "of step 8");
    assert_err(ERR_USAGE, ema_load(dir, -1, 0.25, net.params, net.graph, NULL)); /* beyond what is stored */
    assert_has(err_text(), "do not span");
    assert_err(ERR_USAGE, ema_load(dir, -1, 0.01, net.params, net.graph, NULL));
    assert_err(ERR_USAGE, ema_load(dir, -1, 0.5, net.params, net.graph, NULL));
    assert_ok(ema_load(dir, -1, 0.09, net.params, net.graph, NULL));
    assert_err(ERR_USAGE, ema_load(dir, 12, 0.02, net.params, net.graph, NULL)); /* of a time between snapshots */
    assert_int_equal(truncate(file("ema", 16), 100), 0);
    assert_err(ERR_FORMAT, ema_load(dir, -1, 0.07, net.params, net.graph, NULL));

    config.ckpt_dir = test_dir(dir, sizeof dir);
    assert_ok(spec_set(&spec, "ema", "std05=const(beta=0.9)@1 wide=lua:0123"));
    assert_ok(train_run(&config, &result));
    assert_err(ERR_NOT_FOUND, ema_load(dir, -1, 0.07, net.params, net.graph, NULL));
    assert_has(err_text(), "ect.ema.power");
    assert_err(ERR_IO, ema_load("/nonexistent", -1, 0.07, net.params, net.graph, NULL));
    network_free(&net);
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
        cmocka_unit_test_setup(another_width, setup),
        cmocka_unit_test_setup(as_a_file, setup),
        cmocka_unit_test_setup(survives_interruption, setup),
        cmocka_unit_test_setup(refused, setup),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
