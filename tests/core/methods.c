/* Every target through the trainer: the same bytes whole or stopped and resumed, no allocation in the loop, divergence, cost; the teachers'
 * weights in checkpoints; settings that contradict each other. */
#include "tests/test.h"

#include <unistd.h>

#include "core/io/safetensors.h"
#include "tests/core/trainer.h"

struct method {
    const char *name;
    const char *set[12]; /* key, value, ..., NULL */
    int levels;
    bool adapted, init;
    double forwards; /* executed, in F of an image: no r is zero here */
};
static const struct method methods[] = {
    {"edm", {"target", "edm"}, 0, false, false, 3},
    {"edm with head",
     {"target", "edm", "net", "edm2", "net.logvar", "true", "net.logvar_channels", "8"},
     0,
     false,
     false,
     3},
    {"ect", {"target", "ect"}, 0, false, false, 4},
    {"ect on edm2", {"target", "ect", "net", "edm2"}, 0, false, false, 4},
    {"ect, l1, adapted", {"target", "ect", "metric", "l1"}, 0, true, false, 4},
    {"ect, EMA teacher in evaluation",
     {"target", "ect", "loss.teacher", "ema", "loss.teacher_mode", "eval"},
     0,
     false,
     false,
     4},
    {"ect, frozen teacher", {"target", "ect", "loss.teacher", "frozen"}, 0, false, true, 4},
    {"ect on a grid", {"target", "ect"}, 5, false, false, 4},
    {"ct", {"target", "ct", "loss.teacher", "ema", "metric", "l2-32", "sigma_min", "0.002"}, 5, false, false, 4},
    {"ict", {"target", "ict", "c", "0.03"}, 5, false, false, 4},
    {"cd", {"target", "cd", "metric", "l2-mean", "sigma_min", "0.002"}, 5, false, true, 6},
    {"cd, EMA", {"target", "cd", "metric", "l1-mean", "loss.teacher", "ema"}, 5, true, true, 6},
    {"flow", {"target", "flow", "metric", "l2"}, 0, false, false, 3},
};

static const struct kernels *k;
static struct kdev *dev;
static struct dataset *data;
static struct toy toy;
static struct design design;
static struct spec spec;
static struct observer observer;
static struct train_config config;
static struct train_result result;
static char dir[256], parent[320];
static int64_t stop_at, asked;

static bool on_stop(void *ctx)
{
    (void)ctx;
    return stop_at >= 0 && asked++ >= stop_at;
}

static void prepare(const struct method *m)
{
    toy = toy_default();
    toy.r_ratio = 0.5;
    toy.mu = 0.9;
    toy.levels = m->levels;
    toy.adapted = m->adapted;
    if (!strcmp(m->name, "flow")) toy.t_value = 0.4;
    design = toy_design(&toy);
    toy_spec(&spec);
    for (int i = 0; m->set[i]; i += 2) assert_ok(spec_set(&spec, m->set[i], m->set[i + 1]));
    observer = (struct observer){.stop = on_stop};
    stop_at = -1;
    config = (struct train_config){.spec = &spec,
                                   .design = &design,
                                   .data = data,
                                   .kernels = k,
                                   .dev = dev,
                                   .seed = 7,
                                   .ckpt_dir = test_dir(dir, sizeof dir),
                                   .init_path = m->init ? parent : NULL,
                                   .init_weights = "raw",
                                   .observer = &observer};
    if (m->init) assert_ok(spec_set(&spec, "init", "run:abc@raw"));
}

static char *ckpt(int64_t step)
{
    static char path[320];
    snprintf(path, sizeof path, "%s/step-%09lld.safetensors", dir, (long long)step);
    return path;
}

static float *tensor(int64_t step, const char *name, size_t *n)
{
    struct st_file *f;
    assert_ok(st_open(&f, ckpt(step)));
    const struct st_tensor *t = st_find(f, name);
    float *x = NULL;
    if (t) {
        *n = t->count;
        x = mem_array(*n, sizeof *x);
        assert_ok(st_read_f32(t, x, *n));
    }
    st_close(f);
    return x;
}

static void whole_and_resumed(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
        const struct method *m = &methods[i];
        char hash[SHA256_TEXT], other[SHA256_TEXT];
        struct train_cost cost;
        prepare(m);
        err_t err = train_run(&config, &result);
        if (err) fail_msg("%s: %s", m->name, err_text());
        assert_ok(sha256_file(ckpt(12), hash));
        if (result.allocs_in_loop) fail_msg("%s: %d allocations", m->name, (int)result.allocs_in_loop);
        assert_true(isfinite(result.final_loss) && result.final_loss != 0);
        assert_ok(train_predict(&spec, data, &cost));
        assert_near(result.flops_executed, 72 * m->forwards * cost.forward_flops, 1);
        assert_near(result.flops_nominal, 72 * m->forwards * cost.forward_flops, 1);
        assert_near(cost.flops_executed, result.flops_executed, 1);

        prepare(m);
        stop_at = 5;
        asked = 0;
        assert_err(ERR_INTERRUPTED, train_run(&config, &result));
        stop_at = -1;
        config.init_path = NULL; /* the parent's file may be gone: all there is to go on is in the checkpoint */
        err = train_run(&config, &result);
        if (err) fail_msg("%s, resumed: %s", m->name, err_text());
        assert_int_equal(result.first_step, 5);
        assert_ok(sha256_file(ckpt(12), other));
        if (strcmp(hash, other)) fail_msg("%s: stopped and resumed, other bytes", m->name);
    }
}

static void micro_batches(void **state)
{
    (void)state;
    const char *const name = "model.enc.8x8_conv.weight";
    for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
        const struct method *m = &methods[i];
        size_t n = 0;
        if (strstr(m->name, "edm2") || strstr(m->name, "head")) continue; /* other names; the same passes */
        prepare(m);
        assert_ok(spec_set(&spec, "iters", "2"));
        assert_ok(train_run(&config, &result));
        float *whole = tensor(2, name, &n);
        prepare(m);
        assert_ok(spec_set(&spec, "iters", "2"));
        assert_ok(spec_set(&spec, "micro_batch", "4"));
        assert_ok(train_run(&config, &result));
        float *parts = tensor(2, name, &n);
        for (size_t j = 0; j < n; j++) assert_near(whole[j], parts[j], 2e-4);
        mem_free(whole);
        mem_free(parts);
    }
}

static void diverges(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
        prepare(&methods[i]);
        toy.lr = 1e38;
        err_t err = train_run(&config, &result);
        if (err != ERR_DIVERGED) fail_msg("%s: %s", methods[i].name, err ? err_text() : "went on");
        assert_has(err_text(), "loss is");
        assert_false(file_exists(ckpt(12)));
    }
}

/* theta^- of step k + 1 = mu(s) theta^- + (1 - mu(s)) theta, from the checkpoints of every step. */
static void ema_teacher(void **state)
{
    (void)state;
    static const int64_t keep[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    const char *const weight = "model.enc.8x8_conv.weight", *const taught = "teacher.ema.model.enc.8x8_conv.weight";
    size_t n = 0;
    prepare(&methods[8]);
    assert_string_equal(methods[8].name, "ct");
    config.keep = keep;
    config.nkeep = ARRAY_LEN(keep);
    toy.lr = 0.05;
    assert_ok(train_run(&config, &result));
    float *first = tensor(0, weight, &n), *mine = tensor(0, taught, &n);
    assert_memory_equal(first, mine, n * sizeof *mine);
    double moved = 0;
    for (int step = 1; step <= 12; step++) {
        int stage = (step - 1) * toy.stages / 12;
        double mu = 0.9 / (stage + 1);
        float *w = tensor(step, weight, &n), *t = tensor(step, taught, &n);
        for (size_t i = 0; i < n; i++) {
            moved = fmax(moved, fabs((double)w[i] - t[i]));
            mine[i] = (float)(mu * (double)mine[i] + (1 - mu) * (double)w[i]);
            assert_near(t[i], mine[i], 1e-6);
        }
        mem_free(w);
        mem_free(t);
    }
    assert_true(moved > 1e-4);
    mem_free(first);
    mem_free(mine);
}

static void frozen_teacher(void **state)
{
    (void)state;
    size_t n = 0;
    prepare(&methods[10]);
    assert_string_equal(methods[10].name, "cd");
    assert_ok(train_run(&config, &result));
    float *frozen = tensor(12, "teacher.frozen.model.enc.8x8_conv.weight", &n),
          *w = tensor(12, "model.enc.8x8_conv.weight", &n);
    assert_non_null(frozen);
    assert_memory_not_equal(frozen, w, n * sizeof *w);
    mem_free(w);
    struct st_file *f;
    assert_ok(st_open(&f, parent));
    w = mem_array(n, sizeof *w);
    assert_ok(st_read_f32(st_find(f, "model.enc.8x8_conv.weight"), w, n));
    assert_memory_equal(frozen, w, n * sizeof *w);
    st_close(f);
    mem_free(frozen);
    mem_free(w);
    prepare(&methods[2]); /* and nobody else's checkpoint has teachers */
    assert_ok(train_run(&config, &result));
    assert_null(tensor(12, "teacher.frozen.model.enc.8x8_conv.weight", &n));
    assert_null(tensor(12, "teacher.ema.model.enc.8x8_conv.weight", &n));
}

/* A fixed teacher, EMA of decay 1 or frozen, is the same thing. */
static void teachers_agree(void **state)
{
    (void)state;
    size_t n = 0;
    prepare(&methods[6]);
    assert_ok(train_run(&config, &result));
    float *frozen = tensor(12, "model.enc.8x8_conv.weight", &n);
    prepare(&methods[6]);
    assert_ok(spec_set(&spec, "loss.teacher", "ema"));
    toy.mu = 1;
    toy.stages = 0;
    assert_ok(train_run(&config, &result));
    float *averaged = tensor(12, "model.enc.8x8_conv.weight", &n);
    assert_memory_equal(frozen, averaged, n * sizeof *frozen);
    mem_free(averaged);
    prepare(&methods[6]); /* decay 0 is the weights themselves */
    assert_ok(spec_set(&spec, "loss.teacher", "ema"));
    toy.mu = 0;
    assert_ok(train_run(&config, &result));
    averaged = tensor(12, "model.enc.8x8_conv.weight", &n);
    prepare(&methods[6]);
    assert_ok(spec_set(&spec, "loss.teacher", "self"));
    assert_ok(train_run(&config, &result));
    float *self = tensor(12, "model.enc.8x8_conv.weight", &n);
    assert_memory_equal(self, averaged, n * sizeof *self);
    assert_memory_not_equal(self, frozen, n * sizeof *self);
    mem_free(frozen);
    mem_free(averaged);
    mem_free(self);
}

static void head_is_trained(void **state)
{
    (void)state;
    size_t n = 0;
    const char *const name = "logvar_linear.weight";
    static const int64_t keep[] = {0};
    prepare(&methods[1]);
    config.keep = keep;
    config.nkeep = 1;
    assert_ok(train_run(&config, &result));
    float *before = tensor(0, name, &n), *after = tensor(12, name, &n);
    assert_non_null(before);
    assert_memory_not_equal(before, after, n * sizeof *before);
    mem_free(before);
    mem_free(after);
}

static void refused(const char *key, const char *value, const char *says)
{
    if (key) assert_ok(spec_set(&spec, key, value));
    assert_err(ERR_USAGE, train_run(&config, &result));
    assert_has(err_text(), says);
}

static void contradictions(void **state)
{
    (void)state;
    prepare(&methods[2]);
    refused("target", "ct", "set pair and curriculum");
    refused("target", "cd", "set pair and curriculum");
    prepare(&methods[2]);
    refused("loss.teacher", "frozen", "init = weights of a trained network");
    prepare(&methods[10]);
    config.init_path = NULL;
    refused(NULL, NULL, "init = weights of a trained network");
    prepare(&methods[10]);
    refused("loss.share_noise", "false", "loss.share_noise");
    prepare(&methods[0]);
    refused("loss.teacher", "ema", "no r pass");
    prepare(&methods[7]);
    refused("target", "flow", "not from a grid");
    prepare(&methods[5]);
    toy.mu = 2;
    refused(NULL, NULL, "loss.teacher_ema gave a decay of 2");
}

static int open_all(void **state)
{
    (void)state;
    data = toy_data();
    if (kernels_find("cpu", &k) || k->open(&dev, "cpu", 1)) return -1;
    static const struct method pretrained = {"edm", {"target", "edm"}, 0, false, false, 3};
    prepare(&pretrained);
    if (train_run(&config, &result)) return -1;
    snprintf(parent, sizeof parent, "%s", ckpt(12));
    return 0;
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
        cmocka_unit_test(whole_and_resumed), cmocka_unit_test(micro_batches),  cmocka_unit_test(diverges),
        cmocka_unit_test(ema_teacher),       cmocka_unit_test(frozen_teacher), cmocka_unit_test(teachers_agree),
        cmocka_unit_test(head_is_trained),   cmocka_unit_test(contradictions),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
