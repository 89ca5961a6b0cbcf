/* Evaluation of points: values against the distances computed by hand, unquantised, to a fresh draw; identity; controls; refusals. */
#include "tests/test.h"

#include "core/eval.h"
#include "core/eval_points.h"
#include "core/metrics/energy.h"
#include "core/ops.h"

static const struct kernels *k;
static struct kdev *dev;
static struct dataset *roll;
static struct graph *g;
static struct params *w;
static struct eval *e;

static int setup(void **state)
{
    (void)state;
    if (kernels_find("cpu", &k) || k->open(&dev, "cpu", 1) || dataset_open(&roll, "swissroll")) return 1;
    g = graph_new(); /* the best denoiser of a Gaussian */
    struct node *x = graph_input(g, "x", 1, 1, 2), *sigma = graph_input(g, "sigma", 1, 1, 1);
    struct precond pc = op_precond_in(g, x, sigma, roll->std, 0);
    struct node *matrix = graph_param(g, "m", 2, (int[]){2, 2}, (struct init){.kind = INIT_ZERO});
    graph_output(g, "D", op_precond_out(g, x, op_linear(g, pc.x_in, matrix, NULL), pc));
    if (params_new(&w, g, k, dev)) return 1;
    params_init(w, 1);
    return eval_new(&e, g, roll, k, dev);
}

static int teardown(void **state)
{
    (void)state;
    eval_free(e);
    params_free(w);
    graph_free(g);
    dataset_free(roll);
    k->close(dev);
    return 0;
}

static struct eval_request request(const char *metric, int samples)
{
    struct eval_request q = {.samples = samples, .seed = 11};
    snprintf(q.metric, sizeof q.metric, "%s", metric);
    sampler_defaults(&q.sampler, "euler", 6);
    return q;
}

static void values(void **state)
{
    (void)state;
    enum { N = 700 };
    struct eval_request q[2] = {request("energy", N), request("sw2", N)};
    struct eval_value v[2], one;
    struct flops f;
    uint32_t index[N];
    double *x = mem_array(2 * N, sizeof *x), *ref = mem_array(2 * EVAL_POINTS, sizeof *ref);
    graph_flops(g, &f);
    assert_ok(eval_run(e, w, q, 2, v, NULL, NULL));
    for (int i = 0; i < N; i++) index[i] = (uint32_t)i;
    assert_ok(eval_samples(e, w, &q[0], q[0].seed, index, N, x));
    assert_ok(dataset_fresh(roll, 0, EVAL_POINTS, ref));
    assert_near(v[0].value, energy_distance(x, N, ref, EVAL_POINTS, 2), 1e-12);
    assert_near(v[1].value, sliced_w2(x, N, ref, EVAL_POINTS, 2, EVAL_PROJECTIONS, 0), 1e-12);
    assert_true(v[0].value > 1e-3 && v[1].value > 1e-2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(v[i].nfe, 6);
        assert_near(v[i].flops, 6 * flops_total(&f) * N / 2, 1e-6);
    }
    assert_ok(eval_run(e, w, &q[1], 1, &one, NULL, NULL));
    assert_near(one.value, v[1].value, 0);
    q[1].seed = 12;
    assert_err(ERR_FAILED, eval_run(e, w, q, 2, v, NULL, NULL));
    mem_free(ref);
    mem_free(x);
}

static void identity(void **state)
{
    (void)state;
    struct eval_request q = request("energy", 100), other = request("sw2", 100);
    struct text t = {0}, u = {0};
    char sha[SHA256_TEXT], sha2[SHA256_TEXT];
    eval_identity(&q, roll, &t, sha);
    assert_has(text_str(&t), "metric=energy\nuint8=none\n");
    assert_has(text_str(&t), "reference.draw=fresh, seed 0\nreference.points=5000\n");
    assert_has(text_str(&t), roll->sha);
    eval_identity(&other, roll, &u, sha2);
    assert_has(text_str(&u), "projections=128");
    assert_string_not_equal(sha, sha2);
    text_done(&t);
    text_done(&u);
}

static void controls(void **state)
{
    (void)state;
    const char *const metrics[] = {"energy", "sw2"};
    for (int m = 0; m < 2; m++) {
        double real, again, gaussian, wide, x[2 * 300];
        assert_ok(eval_control(e, CONTROL_REAL_HALF, metrics[m], 300, 0, &real));
        assert_ok(eval_control(e, CONTROL_REAL_HALF, metrics[m], 300, 7, &again));
        assert_ok(eval_control(e, CONTROL_REAL_HALF, metrics[m], 4000, 0, &wide));
        assert_ok(eval_control(e, CONTROL_GAUSSIAN, metrics[m], 300, 0, &gaussian));
        assert_true(real > 0 && again > 0 && real != again);
        assert_true(wide < real && gaussian > 1.5 * real);
        assert_ok(dataset_fresh(roll, 1, 300, x)); /* of another seed than the reference, so not the same points */
        double direct;
        assert_ok(points_metric(metrics[m], roll, x, 300, &direct));
        assert_near(real, direct, 0);
    }
}

/* Of a data set that is a Gaussian, its moment-matched Gaussian is as good as its own points. */
static void gaussian_control(void **state)
{
    (void)state;
    struct dataset *d;
    double real, gaussian;
    assert_ok(dataset_open(&d, "gaussian"));
    assert_ok(points_control_real("energy", d, 4000, 0, &real));
    assert_ok(points_control_gaussian("energy", d, 4000, 0, &gaussian));
    assert_true(gaussian < 4e-3 && real < 4e-3);
    dataset_free(d);
}

static void refusals(void **state)
{
    (void)state;
    struct eval_request q = request("fd_pixel", 100);
    struct eval_value v;
    struct dataset *digits;
    assert_err(ERR_USAGE, eval_run(e, w, &q, 1, &v, NULL, NULL));
    assert_has(err_text(), "energy, sw2");
    assert_err(ERR_USAGE, eval_metric_fits("fd_random", roll));
    assert_ok(eval_metric_fits("energy", roll));
    assert_ok(dataset_open(&digits, "digits"));
    assert_err(ERR_USAGE, eval_metric_fits("sw2", digits));
    assert_has(err_text(), "holds images");
    assert_ok(eval_metric_fits("fd_pixel", digits));
    dataset_free(digits);
}

static void nearest(void **state)
{
    (void)state;
    double x[4] = {(double)roll->values[2 * 77] + 1e-7, (double)roll->values[2 * 77 + 1], (double)roll->values[2 * 9],
                   (double)roll->values[2 * 9 + 1]};
    int32_t of[2];
    eval_nearest(roll, x, 2, of);
    assert_int_equal(of[0], 77);
    assert_int_equal(of[1], 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(values),   cmocka_unit_test(identity),
                                       cmocka_unit_test(controls), cmocka_unit_test(gaussian_control),
                                       cmocka_unit_test(refusals), cmocka_unit_test(nearest)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
