/* Evaluation on a toy network (the best denoiser of a Gaussian, its brightness shifted by the label): values against
 * the parts put together by hand, identity, labels, controls, neighbours. */
#include <unistd.h>

#include "tests/test.h"

#include "core/eval.h"
#include "core/metrics/features.h"
#include "core/metrics/frechet.h"
#include "core/metrics/stats.h"
#include "core/ops.h"
#include "core/rng.h"

static const struct kernels *k;
static struct kdev *dev;
static struct dataset *digits;
static struct graph *g;
static struct params *w;
static struct eval *e;
static double pass_flops; /* of one sample's forward pass */

static int setup(void **state)
{
    (void)state;
    setenv("ECT_WEIGHTS", "/nonexistent", 1);
    if (kernels_find("cpu", &k) || k->open(&dev, "cpu", 2) || dataset_open(&digits, "digits")) return 1;
    g = graph_new();
    struct node *x = graph_input(g, "x", 8, 8, 1), *sigma = graph_input(g, "sigma", 1, 1, 1),
                *labels = graph_input(g, "labels", 1, 1, 10);
    struct precond pc = op_precond_in(g, x, sigma, digits->std, 0);
    struct node *shift = graph_param(g, "shift", 2, (int[]){1, 10}, (struct init){.kind = INIT_ZERO});
    struct node *f = op_add_channel(g, op_scale(g, pc.x_in, 0), op_linear(g, labels, shift, NULL));
    graph_output(g, "D", op_precond_out(g, x, f, pc));
    if (params_new(&w, g, k, dev)) return 1;
    params_init(w, 1);
    float each[10];
    for (int i = 0; i < 10; i++) each[i] = (float)i; /* F = label at every pixel */
    for (int i = 0; i < graph_nparams(g); i++)
        if (!strcmp(graph_param_info(g, i)->name, "shift")) params_set(w, i, each);
    params_changed(w);
    struct flops f1;
    graph_flops(g, &f1);
    pass_flops = flops_total(&f1);
    return eval_new(&e, g, digits, k, dev);
}

static int teardown(void **state)
{
    (void)state;
    eval_free(e);
    params_free(w);
    graph_free(g);
    dataset_free(digits);
    k->close(dev);
    return 0;
}

static struct eval_request request(const char *metric, int nfe, int samples)
{
    struct eval_request q = {.samples = samples, .seed = 11, .shifted = true};
    snprintf(q.metric, sizeof q.metric, "%s", metric);
    sampler_defaults(&q.sampler, "ect", nfe);
    return q;
}

static int64_t seen, calls;
static void progress(void *ctx, int64_t done, int64_t total)
{
    assert_ptr_equal(ctx, &seen);
    assert_int_equal(total, 700);
    assert_true(done > seen && done <= total);
    seen = done;
    calls++;
}

static double by_hand(const struct eval_request *q, const char *space)
{
    int n = (int)q->samples;
    uint32_t *index = mem_array((size_t)n, sizeof *index);
    double *x = mem_array((size_t)n * 64, sizeof *x), fd;
    uint8_t *px = mem_array((size_t)n, 64);
    for (int i = 0; i < n; i++) index[i] = (uint32_t)i;
    assert_ok(eval_samples(e, w, q, q->seed, index, n, x));
    for (int i = 0; i < n * 64; i++) {
        double v = x[i] * 127.5 + 128;
        px[i] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
    }
    struct extractor *ex;
    struct moments a, b;
    assert_ok(extractor_new(&ex, space, 8, 8, 1, 1797, k, dev));
    int d = extractor_dim(ex);
    float *f = mem_array((size_t)1797 * (size_t)d, sizeof *f);
    assert_ok(moments_init(&a, d));
    assert_ok(moments_init(&b, d));
    assert_ok(extractor_run(ex, px, n, f));
    moments_add(&a, f, n);
    assert_ok(extractor_run(ex, digits->pixels, digits->n, f));
    moments_add(&b, f, digits->n);
    assert_ok(frechet_of(&a, &b, false, &fd));
    moments_done(&a);
    moments_done(&b);
    extractor_free(ex);
    mem_free(f);
    mem_free(px);
    mem_free(x);
    mem_free(index);
    return fd;
}

static void values(void **state)
{
    (void)state;
    struct eval_request q[2] = {request("fd_pixel", 2, 700), request("fd_random", 2, 700)};
    struct eval_value v[2], again[2], one;
    seen = calls = 0;
    assert_ok(eval_run(e, w, q, 2, v, progress, &seen));
    assert_int_equal(seen, 700);
    assert_true(calls > 1);
    assert_near(v[0].value, by_hand(&q[0], "pixel"), 1e-6 * v[0].value);
    assert_near(v[1].value, by_hand(&q[1], "random"), 1e-6 * v[1].value);
    assert_true(v[0].value > 0.1 && v[1].value > 0.1);
    assert_int_equal(v[0].nfe, 2);
    assert_near(v[0].flops + v[1].flops, 700 * 2 * pass_flops, 1e-6);
    assert_true(v[0].seconds > 0);
    assert_ok(eval_run(e, w, q, 2, again, NULL, NULL));
    assert_true(v[0].value == again[0].value && v[1].value == again[1].value);
    assert_ok(eval_run(e, w, &q[1], 1, &one, NULL, NULL));
    assert_true(one.value == v[1].value); /* company does not matter */
    q[0].seed = 12;
    assert_ok(eval_run(e, w, q, 1, &one, NULL, NULL));
    assert_true(one.value != v[0].value);
    q[0].seed = 11;
    sampler_defaults(&q[0].sampler, "heun", 5);
    assert_ok(eval_run(e, w, q, 1, &one, NULL, NULL));
    assert_int_equal(one.nfe, 5);
}

/* Several measures of one pass, each with its own number; moments from a file are those of the data set; a pass is not drawn twice. */
static void measures(void **state)
{
    (void)state;
    struct eval_request q[5] = {request("fd_random", 1, 300), request("kd_random", 1, 300),
                                request("precision_random", 1, 300), request("recall_pixel:k3", 1, 300),
                                request("fd_random:n", 1, 300)};
    struct eval_value v[5], one;
    assert_ok(eval_run(e, w, q, 5, v, NULL, NULL));
    for (int i = 0; i < 5; i += getenv("ECT_CHECK") ? 3 : 1) { /* sanitizers are slow */
        assert_ok(eval_run(e, w, &q[i], 1, &one, NULL, NULL));
        assert_true(one.value == v[i].value);
        assert_near(v[i].flops, 300 * pass_flops / 5, 1e-6);
    }
    assert_true(v[0].value > 0.1 && v[1].value > 1e-3 && v[2].value >= 0 && v[2].value <= 1 && v[3].value < 0.5);
    assert_true(v[0].value != v[4].value && fabs(v[0].value / v[4].value - 1) < 0.02);
    double halves, gaussian; /* real against real, and what has only the moments of the pixels */
    assert_ok(eval_control(e, CONTROL_REAL_HALF, "kd_random", 300, 1, &halves));
    assert_ok(eval_control(e, CONTROL_GAUSSIAN, "kd_random", 300, 1, &gaussian));
    assert_true(fabs(halves) < gaussian / 20);
    assert_ok(eval_control(e, CONTROL_REAL_HALF, "coverage_pixel", 300, 1, &halves));
    assert_ok(eval_control(e, CONTROL_GAUSSIAN, "coverage_pixel", 900, 1, &gaussian));
    assert_true(halves > 0.8 && gaussian < halves - 0.2);
}

static void statistics(void **state)
{
    (void)state;
    struct extractor *x;
    struct moments m;
    char path[] = "/tmp/ect-eval-XXXXXX", a[SHA256_TEXT], b[SHA256_TEXT], c[SHA256_TEXT], name[32];
    struct text canon = {0};
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    float *f = mem_array((size_t)digits->n * 128, sizeof *f);
    assert_ok(extractor_new(&x, "random", 8, 8, 1, digits->n, k, dev));
    assert_ok(extractor_run(x, digits->pixels, digits->n, f));
    assert_ok(moments_init(&m, 128));
    moments_add(&m, f, digits->n);
    assert_ok(stats_write(path, &m, false, ""));
    struct eval_request q = request("fd_random", 1, 300), file = q;
    struct eval_value v, from;
    strcpy(file.stats, path);
    assert_ok(eval_run(e, w, &q, 1, &v, NULL, NULL));
    assert_ok(eval_run(e, w, &file, 1, &from, NULL, NULL));
    assert_near(from.value, v.value, 1e-9 * v.value);
    eval_identity(&q, digits, &canon, a);
    eval_identity(&file, digits, &canon, b);
    assert_string_not_equal(a, b);
    assert_has(text_str(&canon), "reference.stats.sha=");
    m.mean[0] += 1;
    assert_ok(stats_write(path, &m, false, ""));
    eval_identity(&file, digits, &canon, c);
    assert_string_not_equal(b, c);
    assert_ok(eval_run(e, w, &file, 1, &from, NULL, NULL));
    assert_true(fabs(from.value - v.value) > 1e-3);
    strcpy(file.metric, "fd_pixel");
    assert_err(ERR_USAGE, eval_run(e, w, &file, 1, &from, NULL, NULL));
    strcpy(file.metric, "kd_random");
    assert_err(ERR_USAGE, eval_run(e, w, &file, 1, &from, NULL, NULL));
    assert_ok(eval_metric_check("fd_random", digits, name));
    assert_err(ERR_NO_DATA, eval_metric_check("fid", digits, name));
    assert_string_equal(name, "fid:pytorch");
    assert_err(ERR_USAGE, eval_metric_check("energy", digits, name));
    text_done(&canon);
    moments_done(&m);
    extractor_free(x);
    mem_free(f);
    unlink(path);
}

static int asked;
static bool stop_second(void *ctx)
{
    (void)ctx;
    return ++asked == 2;
}

/* Stopped in the middle and begun again, also by another process: the same bytes, and no sample twice. */
static void goes_on(void **state)
{
    (void)state;
    char path[] = "/tmp/ect-part-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    unlink(path);
    struct eval_request q[3] = {request("fd_random", 1, 700), request("recall_random", 1, 700),
                                request("fd_pixel", 1, 700)};
    struct eval_value whole[3], v[3];
    struct eval_keep keep = {.path = path, .of = "run=x", .every_ms = 1 << 30, .stop = stop_second};
    assert_ok(eval_run(e, w, q, 3, whole, NULL, NULL));
    asked = 0;
    eval_keep(e, &keep);
    assert_err(ERR_INTERRUPTED, eval_run(e, w, q, 3, v, NULL, NULL));
    assert_has(err_text(), "512 of 700");
    assert_true(file_exists(path));
    struct eval *other;
    assert_ok(eval_new(&other, g, digits, k, dev));
    keep.of = "run=y"; /* another run's pass begins at the beginning */
    asked = 0;
    eval_keep(other, &keep);
    assert_err(ERR_INTERRUPTED, eval_run(other, w, q, 3, v, NULL, NULL));
    keep.of = "run=x", asked = 0;
    eval_keep(other, &keep);
    assert_err(ERR_INTERRUPTED, eval_run(other, w, q, 3, v, NULL, NULL));
    keep.stop = NULL;
    eval_keep(other, &keep);
    seen = 512, calls = 0;
    assert_ok(eval_run(other, w, q, 3, v, progress, &seen));
    assert_int_equal(calls, 1);
    assert_false(file_exists(path));
    for (int i = 0; i < 3; i++) assert_true(v[i].value == whole[i].value && v[i].nfe == 1);
    /* a damaged file is not believed */
    keep.stop = stop_second, asked = 0;
    eval_keep(other, &keep);
    assert_err(ERR_INTERRUPTED, eval_run(other, w, q, 3, v, NULL, NULL));
    char *data;
    size_t n;
    assert_ok(file_read(path, 0, &data, &n));
    assert_ok(file_write_atomic(path, data, n / 2));
    keep.stop = NULL;
    eval_keep(other, &keep);
    log_set(LOG_ERROR, NULL, NULL);
    assert_ok(eval_run(other, w, q, 3, v, NULL, NULL));
    log_set(LOG_INFO, NULL, NULL);
    for (int i = 0; i < 3; i++) assert_true(v[i].value == whole[i].value);
    mem_free(data);
    eval_keep(e, NULL);
    eval_free(other);
}

static void samples_stand_alone(void **state)
{
    (void)state;
    uint32_t index[300], few[3] = {299, 0, 7};
    double *all = mem_array((size_t)300 * 64, sizeof *all), some[3 * 64];
    for (uint32_t i = 0; i < 300; i++) index[i] = i;
    struct eval_request q = request("fd_pixel", 2, 300);
    q.cond = true;
    assert_ok(eval_samples(e, w, &q, 9, index, 300, all));
    assert_ok(eval_samples(e, w, &q, 9, few, 3, some));
    for (int i = 0; i < 3; i++)
        assert_memory_equal(some + (ptrdiff_t)i * 64, all + (ptrdiff_t)few[i] * 64, 64 * sizeof(double));
    mem_free(all);
}

/* Labels follow the data set's frequencies: the toy's brightness after one step is c_out * label plus the skip path. */
static void labels(void **state)
{
    (void)state;
    enum { N = 1000 };
    uint32_t *index = mem_array(N, sizeof *index);
    double *x = mem_array((size_t)N * 64, sizeof *x), *y = mem_array((size_t)N * 64, sizeof *y), sd = digits->std;
    for (uint32_t i = 0; i < N; i++) index[i] = i;
    struct eval_request q = request("fd_pixel", 1, N);
    q.shifted = false;
    assert_ok(eval_samples(e, w, &q, 3, index, N, x));
    q.shifted = true; /* the two forms of the preconditioning are told apart: c_skip with t - 0.003 */
    assert_ok(eval_samples(e, w, &q, 3, index, 1, y));
    for (int i = 0; i < 64; i++) assert_near(y[i] / x[i], (80 * 80 + sd * sd) / (79.997 * 79.997 + sd * sd), 1e-6);
    q.shifted = false;
    q.cond = true;
    assert_ok(eval_samples(e, w, &q, 3, index, N, y));
    double c_out = 80 * sd / sqrt(80 * 80 + sd * sd);
    int count[10] = {0};
    for (int i = 0; i < N; i++) {
        double label = (y[i * 64] - x[i * 64]) / c_out;
        assert_near(label, round(label), 1e-4);
        assert_true(label > -0.5 && label < 9.5);
        count[(int)round(label)]++;
    }
    for (int i = 0; i < 10; i++) assert_in_range(count[i], 60, 140); /* 100 expected, deviation 10 */
    mem_free(index);
    mem_free(x);
    mem_free(y);
}

static void identity(void **state)
{
    (void)state;
    struct eval_request base = request("fd_random", 2, 1000);
    char sha[16][SHA256_TEXT];
    struct text t = {0};
    struct dataset other = *digits;
    other.sha[0] ^= 1;
    for (int i = 0; i < 14; i++) {
        struct eval_request q = base;
        if (i == 1) strcpy(q.metric, "fd_pixel");
        if (i == 2) q.samples++;
        if (i == 3) q.seed++;
        if (i == 4) q.shifted = false;
        if (i == 5) q.cond = true;
        if (i == 6) q.sampler.mid_t[0] = 0.822;
        if (i == 7) sampler_defaults(&q.sampler, "ect", 1);
        if (i == 8) sampler_defaults(&q.sampler, "heun", 3);
        if (i == 9) sampler_defaults(&q.sampler, "euler", 3);
        if (i == 10) sampler_defaults(&q.sampler, "heun", 3), q.sampler.s_churn = 1, q.sampler.s_max = 50;
        if (i == 11) q.sampler.sigma_max = 81;
        if (i == 12) strcpy(q.metric, "fd_nothing");
        t.len = 0;
        eval_identity(&q, i == 13 ? &other : digits, &t, sha[i]);
        for (int j = 0; j < i; j++) assert_string_not_equal(sha[i], sha[j]);
        if (i) continue;
        assert_has(t.s, "metric=fd_random\n");
        assert_has(t.s, "uint8=trunc(x*127.5+128)\n");
        assert_has(t.s, "t=80,0.821\n");
        assert_has(t.s, "reference=digits\n");
        assert_has(t.s, "reference.count=1797\n");
    }
    t.len = 0;
    eval_identity(&base, digits, &t, sha[14]);
    assert_string_equal(sha[14], sha[0]);
    eval_identity(&base, digits, &t, sha[15]); /* added to what is there; the hash is of its own part */
    assert_string_equal(sha[15], sha[0]);
    text_done(&t);
}

static void controls(void **state)
{
    (void)state;
    static const char *const metric[] = {"fd_pixel", "fd_random"};
    for (int i = 0; i < 2; i++) {
        double half, half2, gauss, gauss2;
        assert_ok(eval_control(e, CONTROL_REAL_HALF, metric[i], 700, 1, &half));
        assert_ok(eval_control(e, CONTROL_REAL_HALF, metric[i], 700, 1, &half2));
        assert_true(half == half2);
        assert_ok(eval_control(e, CONTROL_REAL_HALF, metric[i], 700, 2, &half2));
        assert_true(half != half2);
        assert_ok(eval_control(e, CONTROL_GAUSSIAN, metric[i], 700, 1, &gauss));
        assert_ok(eval_control(e, CONTROL_GAUSSIAN, metric[i], 700, 1, &gauss2));
        assert_true(gauss == gauss2);
        print_message("# %s: real half %.3f, gaussian %.3f\n", metric[i], half, gauss);
        assert_true(half > 0 && half < gauss && half < 1);
    }
    double v;
    assert_err(ERR_NO_DATA, eval_control(e, CONTROL_GAUSSIAN, "fid", 700, 1, &v));
}

static void nearest(void **state)
{
    (void)state;
    double x[5 * 64];
    int32_t index[5];
    static const int of[5] = {0, 5, 1796, 1000, 33};
    struct rng r = {.seed = 1, .purpose = RNG_TEST};
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 64; j++)
            x[i * 64 + j] =
                digits->pixels[of[i] * 64 + j] / 127.5 - 1 + 0.05 * rng_normal(&r, (uint32_t)i, (uint32_t)j);
    eval_nearest(digits, x, 5, index);
    for (int i = 0; i < 5; i++) assert_int_equal(index[i], of[i]);
}

static void refusals(void **state)
{
    (void)state;
    struct eval_value v[2];
    struct eval_request q[2] = {request("fid", 2, 100), request("fd_random", 2, 100)};
    assert_err(ERR_NO_DATA, eval_run(e, w, q, 1, v, NULL, NULL));
    assert_has(err_text(), "fid");
    assert_has(err_text(), "ect weights get inception");
    strcpy(q[0].metric, "fd_dinov2");
    assert_err(ERR_NO_DATA, eval_run(e, w, q, 1, v, NULL, NULL));
    assert_has(err_text(), "dinov2");
    q[0] = request("fd_pixel", 2, 1);
    assert_err(ERR_USAGE, eval_run(e, w, q, 1, v, NULL, NULL));
    q[0] = request("fd_pixel", 2, 101);
    assert_err(ERR_FAILED, eval_run(e, w, q, 2, v, NULL, NULL));
    q[0] = request("fd_pixel", 2, 100);
    q[0].sampler.nfe = 5;
    assert_err(ERR_USAGE, eval_run(e, w, q, 1, v, NULL, NULL));
    assert_has(err_text(), "mid_t");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(values),
                                       cmocka_unit_test(measures),
                                       cmocka_unit_test(statistics),
                                       cmocka_unit_test(goes_on),
                                       cmocka_unit_test(samples_stand_alone),
                                       cmocka_unit_test(labels),
                                       cmocka_unit_test(identity),
                                       cmocka_unit_test(controls),
                                       cmocka_unit_test(nearest),
                                       cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
