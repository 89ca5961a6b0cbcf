/* Every built-in design function against its formula written out here, and the way values leave Lua. */
#include "tests/lua/lua_test.h"

static struct script *s;
static struct design_state st;

static int setup(void **state)
{
    (void)state;
    st = (struct design_state){
        .step = 700, .nimg = 89600, .batch = 128, .iters = 1000, .progress = 0.7, .stage = 2, .sigma_data = 0.5};
    return open_text(&s, "local ect = require 'ect'") != ERR_OK;
}
static int teardown(void **state)
{
    (void)state;
    script_close(s);
    return 0;
}

static double call(const char *expr, int nargs, double a, double b)
{
    const double args[2] = {a, b};
    double out = NAN;
    assert_ok(script_call(s, expr, &st, args, nargs, &out, 1));
    return out;
}
static void near(double a, double want)
{
    assert_near(a, want, 1e-12 * (fabs(want) + 1e-300));
}

static const double ts[] = {1e-4, 0.002, 0.05, 0.3, 0.5, 1, 1.9459, 2.5, 17, 80, 4000};

static void mapping(void **state)
{
    (void)state;
    const double q[3] = {2, 4, 256}, k[3] = {8, 8, 4}, b[3] = {1, 2, 0.5};
    char expr[128];
    for (st.stage = 0; st.stage < 8; st.stage++) {
        for (size_t i = 0; i < ARRAY_LEN(ts); i++) {
            double t = ts[i];
            for (int j = 0; j < 3; j++) {
                snprintf(expr, sizeof expr, "ect.mapping.sigmoid{q=%g,k=%g,b=%g}", q[j], k[j], b[j]);
                double n = 1 + k[j] / (1 + exp(b[j] * t)), r = t - t / pow(q[j], st.stage + 1) * n;
                assert_near(call(expr, 1, t, 0), r > 0 ? r : 0, 1e-12 * t);
                snprintf(expr, sizeof expr, "ect.mapping.const{q=%g}", q[j]);
                assert_near(call(expr, 1, t, 0), t - t / pow(q[j], st.stage + 1), 1e-12 * t);
            }
            double half = pow(4, -(st.stage + 1)), log2snr = log2(1 + 1 / (t * t));
            assert_near(call("ect.mapping.logsnr{q=4,k=2,cut=3}", 1, t, 0),
                        fmax(0, t * (1 - fmin(1 + 2 * log2snr, 3) * half)), 1e-12 * t);
            assert_near(call("ect.mapping.power{q=4,k=0.5,cut=5}", 1, t, 0),
                        fmax(0, t * (1 - fmin(1 + 1 / sqrt(t), 5) * half)), 1e-12 * t);
            assert_true(call("ect.mapping.zero{}", 1, t, 0) == 0);
        }
    }
}

static void weight(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(ts); i++) {
        double t = ts[i], r = 0.7 * t, sd = st.sigma_data = 0.5 + 0.1 * (double)i;
        near(call("ect.weight.inv_dt{}", 2, t, r), 1 / (t - r));
        near(call("ect.weight.snr_plus{}", 2, t, r), 1 / (t * t) + 1 / (sd * sd));
        near(call("ect.weight.inv_t{}", 2, t, r), 1 / t);
        near(call("ect.weight.edm{}", 2, t, r), (t * t + sd * sd) / ((t * sd) * (t * sd)));
        assert_true(call("ect.weight.uniform{}", 2, t, r) == 1);
        near(call("ect.weight.snr{}", 2, t, r), 1 / (t * t));
        near(call("ect.weight.snr_one{}", 2, t, r), 1 / (t * t) + 1);
        near(call("ect.weight.inv_t_plus{}", 2, t, r), 1 / t + 1 / sd);
        near(call("ect.weight.soft_min_snr{}", 2, t, r), 1 / (t * t + sd * sd));
        near(call("ect.weight.truncated_snr{}", 2, t, r), t < 1 ? 1 / (t * t) : 1);
        const double args[3] = {t, r, 3 * t};
        double a;
        assert_ok(script_call(s, "ect.adapt.power{p=0.7,c=0.1}", &st, args, 3, &a, 1));
        near(a, pow(9 * t * t + 0.01, -0.7));
    }
}

/* Phi(z) = u, from the deep tail to the middle; and a few quantiles known to many digits. */
static void noise(void **state)
{
    (void)state;
    const double us[] = {1e-300,  1e-16, 1e-9,      0.001, 0.02425, 0.1, 0.3,     0.39999,
                         0.40001, 0.45,  0.4999999, 0.5,   0.51,    0.7, 0.97575, 0.9999};
    for (size_t i = 0; i < ARRAY_LEN(us); i++) {
        double u = us[i], z = log(call("ect.noise.lognormal{mean=0,std=1}", 1, u, 0));
        assert_near(0.5 * erfc(-z / sqrt(2)), u, 1e-14 * u * (1 + z * z));
        near(call("ect.noise.lognormal{mean=-1.1,std=2.0}", 1, u, 0), exp(-1.1 + 2.0 * z));
        near(call("ect.noise.lognormal_z{mean=-1.1,std=2.0}", 1, z, 0), exp(-1.1 + 2.0 * z));
        near(call("ect.noise.uniform_time{}", 1, u, 0), u);
        near(call("ect.noise.logit_normal{}", 1, u, 0), 1 / (1 + exp(-z)));
        near(call("ect.noise.logit_normal{mean=0.4,std=1.5}", 1, u, 0), 1 / (1 + exp(-(0.4 + 1.5 * z))));
    }
    near(log(call("ect.noise.lognormal{mean=0,std=1}", 1, 0.975, 0)), 1.959963984540054235524594);
    near(log(call("ect.noise.lognormal{mean=0,std=1}", 1, 1e-10, 0)), -6.361340902404056);
    near(log(call("ect.noise.lognormal{mean=0,std=1}", 1, 0.6, 0)), 0.2533471031357997);
    near(call("ect.noise.lognormal{}", 1, 0.5, 0), exp(-1.1)); /* defaults are ECT's */
    near(call("ect.noise.lognormal{}", 1, 1 - 0x1p-53, 0), 1 / call("ect.noise.lognormal{mean=1.1}", 1, 0x1p-53, 0));
}

static void stage(void **state)
{
    (void)state;
    st.iters = 200000;
    const struct {
        int64_t step;
        int stage;
    } want[] = {{0, 0}, {1, 0}, {25000, 0}, {25001, 1}, {50000, 1}, {50001, 2}, {175001, 7}, {199999, 7}};
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        st.step = want[i].step;
        assert_true(call("ect.stage.equal{n=8}", 0, 0, 0) == want[i].stage);
        assert_true(call("ect.stage.every{d=25000}", 0, 0, 0) == want[i].stage);
    }
    assert_true(call("ect.stage.final{n=4}", 0, 0, 0) == 3);
    st.iters = 1500, st.step = 1499;
    assert_true(call("ect.stage.equal{n=8}", 0, 0, 0) == 7);
}

static void lr(void **state)
{
    (void)state;
    near(call("ect.lr.const{lr=0.1}", 0, 0, 0), 0.1);
    near(call("ect.dropout.const{p=0.2}", 0, 0, 0), 0.2);
    near(call("ect.lr.cosine{ref=0.3,last=0.1}", 0, 0, 0), 0.1 + 0.1 * (1 + cos(3.14159265358979323846 * 0.7)));
    near(call("ect.dropout.linear{from=0.1,to=0.4}", 0, 0, 0), 0.1 + 0.3 * 0.7);
    const int64_t nimg[] = {0, 128, 9999, 128000, 256000, 256128, 12800000};
    for (size_t i = 0; i < ARRAY_LEN(nimg); i++) {
        st.nimg = nimg[i];
        double n = (double)nimg[i], decay = 1e-3 / sqrt(fmax(n / (2000 * 128.0), 1));
        near(call("ect.lr.inv_sqrt{ref=1e-3}", 0, 0, 0), decay);
        near(call("ect.lr.inv_sqrt{ref=1e-3,batches=2000,rampup=10000}", 0, 0, 0), decay * fmin(n / 10000, 1));
        near(call("ect.lr.inv_sqrt{ref=1e-3,batches=0}", 0, 0, 0), 1e-3);
        near(call("ect.lr.warmup{lr=0.1,images=10000}", 0, 0, 0), 0.1 * fmin(n / 10000, 1));
    }
}

static void ema(void **state)
{
    (void)state;
    const double std[] = {0.01, 0.05, 0.1, 0.25, 0.28};
    for (size_t i = 0; i < ARRAY_LEN(std); i++) {
        double a = pow(std[i], -2), g = call("ect.ema.gamma", 1, std[i], 0);
        assert_near(((g + 7) * g + 16 - a) * g + 12 - a, 0, 1e-12 * a * (g + 1));
        assert_true(g > 0);
        char expr[64];
        snprintf(expr, sizeof expr, "ect.ema.power{std=%g}", std[i]);
        for (st.nimg = 0; st.nimg < 2000; st.nimg += 128)
            near(call(expr, 0, 0, 0), pow(1 - 128.0 / (double)(st.nimg + 128), g + 1));
        st.nimg = 0;
        assert_true(call(expr, 0, 0, 0) == 0); /* the first update copies the weights */
    }
    near(call("ect.ema.const{beta=0.9999}", 0, 0, 0), 0.9999);
    near(call("ect.ema.forget{}", 0, 0, 0), pow(0.5, 1 / (0.02 * 1000)));
    near(call("ect.ema.forget{iters_fraction=0.1}", 0, 0, 0), pow(0.5, 1 / (0.1 * 1000)));
    for (st.nimg = 0; st.nimg < 60000; st.nimg += 1280) {
        double n = (double)st.nimg;
        near(call("ect.ema.halflife{img=2000}", 0, 0, 0), pow(0.5, 128.0 / 2000));
        near(call("ect.ema.halflife{img=2000,ramp=0.05}", 0, 0, 0), pow(0.5, 128 / fmax(fmin(2000, n * 0.05), 1e-8)));
        near(call("ect.ema.halflife_after{img=2000,ramp=0.09}", 0, 0, 0), pow(0.5, 128 / fmin(2000, (n + 128) * 0.09)));
    }
}

static void bad_parameters(void **state)
{
    (void)state;
    const struct {
        const char *expr, *says;
    } bad[] = {
        {"ect.mapping.sigmoid{kk=8}", "did you mean"},
        {"ect.mapping.sigmoid{k='8'}", "k must be a number"},
        {"ect.mapping.sigmod{}", "did you mean 'sigmoid'"},
        {"ect.ema.power{}", "needs the parameter 'std'"},
        {"ect.ema.power{std=0.5}", "std must be in"},
        {"ect.ema.const(0.9)", "takes a table"},
        {"ect.weight.inv_dt{}(1, 2", "expected"},
        {"os.exit(1)", "no variable 'os'"},
        {"function(t, s) return 'x' end", "not a number"},
        {"function(t, s) return s.stepp end", "no field 'stepp'"},
        {"function(t, s) s.step = 1 return 1 end", "s is read-only"},
    };
    double out, t = 1;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_err(ERR_USAGE, script_call(s, bad[i].expr, &st, &t, 1, &out, 1));
        assert_has(err_text(), bad[i].says);
    }
    near(call("function(t, s) return t + s.nimg end", 1, 2, 0), 89602); /* and the state still works */
}

/* ---- bound to C ------------------------------------------------------------------------------------------------- */

static void bound(void **state)
{
    (void)state;
    struct script *x = accepted(
        "local ect = require 'ect'\n"
        "local k = 3\n"
        "ect.run 'r' { ect.recipe 'digits-ect' {\n"
        "  mapping = function(t, s) return t * s.progress / k end,\n"
        "  lr = function(s) return 1e-3 / (1 + s.step) end, weight = 2,\n"
        "  dropout = 0.1, ema = { slow = .999, x = ect.ema.power{std=.1}, hl = ect.ema.halflife{img=5e5} } },\n"
        "  eval = { ema = 'slow' } }");
    struct design d;
    assert_ok(script_design(x, 0, &d));
    const double u[3] = {0.1, 0.5, 0.9};
    double t[3], r[3], w[3], v;
    int stage_now;
    assert_ok(d.stage(d.ctx, &st, &stage_now));
    assert_int_equal(stage_now, 5);
    assert_ok(d.noise(d.ctx, &st, 3, u, t));
    assert_ok(d.mapping(d.ctx, &st, 3, t, r));
    assert_ok(d.weight(d.ctx, &st, 3, t, r, w));
    for (int i = 0; i < 3; i++) {
        near(t[i], call("ect.noise.lognormal{}", 1, u[i], 0));
        near(r[i], t[i] * 0.7 / 3);
        assert_true(w[i] == 2);
    }
    assert_ok(d.lr(d.ctx, &st, &v));
    near(v, 1e-3 / 701);
    assert_ok(d.dropout(d.ctx, &st, &v));
    assert_true(v == 0.1);
    assert_int_equal(d.nemas, 3);
    assert_string_equal(d.ema_name[0], "hl"); /* sorted */
    assert_string_equal(d.ema_name[1], "slow");
    assert_string_equal(d.ema_name[2], "x");
    assert_ok(d.ema(d.ctx, &st, 1, &v));
    assert_true(v == 0.999);
    assert_ok(d.ema(d.ctx, &st, 2, &v));
    near(v, call("ect.ema.power{std=.1}", 0, 0, 0));

    /* a step's calls allocate nothing */
    uint64_t before = mem_count();
    for (int i = 0; i < 200; i++) {
        st.step++;
        assert_ok(d.stage(d.ctx, &st, &st.stage));
        assert_ok(d.noise(d.ctx, &st, 3, u, t));
        assert_ok(d.mapping(d.ctx, &st, 3, t, r));
        assert_ok(d.weight(d.ctx, &st, 3, t, r, w));
        assert_ok(d.lr(d.ctx, &st, &v));
        assert_ok(d.ema(d.ctx, &st, 2, &v));
    }
    assert_int_equal(mem_count(), before);
    script_close(x);
}

/* Faults that only show during training: place, arguments, traceback. */
static void failing(void **state)
{
    (void)state;
    struct script *x = accepted("local ect = require 'ect'\n"
                                "local function helper(t, s)\n"
                                "  if s.step > 5000 then error('boom') end\n"
                                "  return t / 2\n"
                                "end\n"
                                "ect.run 'r' { ect.recipe 'digits-ect' {\n"
                                "  mapping = function(t, s)\n"
                                "    local r = helper(t, s)\n"
                                "    if s.step == 1 then r = 0 / 0 end\n"
                                "    if s.step == 2 then r = 2 * t end\n"
                                "    if s.step == 3 then r = -1 end\n"
                                "    if s.step == 4 then return nil end\n"
                                "    if s.step == 5 then return 'x' end\n"
                                "    while s.step == 6 do end\n"
                                "    return r\n"
                                "  end,\n"
                                "  stage = function(s) return s.step == 1 and 0.5 or 0 end,\n"
                                "  dropout = function(s) return s.step == 1 and 1 or 0 end,\n"
                                "} }");
    struct design d;
    assert_ok(script_design(x, 0, &d));
    const char *const says[] = {NULL,
                                "is nan",
                                "must not be larger than t",
                                "must not be negative",
                                "nil is not a number",
                                "string is not a number",
                                "does this come to an end"};
    double t[2] = {0.25, 0.5}, r[2], p;
    int n;
    for (int i = 0; i < 7; i++) {
        st.step = i;
        if (!says[i]) {
            assert_ok(d.mapping(d.ctx, &st, 2, t, r));
            continue;
        }
        assert_err(ERR_FAILED, d.mapping(d.ctx, &st, 2, t, r));
        assert_has(err_text(), says[i]);
        assert_has(err_text(), "dir/test.lua:");
        if (i < 6) assert_has(err_text(), "t=0.25");
    }
    st.step = 5001;
    assert_err(ERR_FAILED, d.mapping(d.ctx, &st, 2, t, r));
    assert_has(err_text(), "dir/test.lua:3: boom");
    assert_has(err_text(), "stack traceback");
    assert_has(err_text(), "dir/test.lua:8: in function <dir/test.lua:7>");
    st.step = 1;
    assert_err(ERR_FAILED, d.stage(d.ctx, &st, &n));
    assert_err(ERR_FAILED, d.dropout(d.ctx, &st, &p));
    assert_has(err_text(), "[0, 1)");
    st.step = 0;
    assert_ok(d.mapping(d.ctx, &st, 2, t, r)); /* and it goes on working */
    near(r[1], 0.25);
    script_close(x);
}

static void memory(void **state)
{
    (void)state;
    struct script *x =
        accepted("local ect = require 'ect'\n"
                 "ect.run 'r' { ect.recipe 'digits-ect' { iters = 1500, ema = { .9999, ect.ema.power{std=.05}, "
                 "ect.ema.forget{} } } }\n"
                 "ect.run 'long' { ect.recipe 'cifar10-ect' }");
    double m[DESIGN_EMAS];
    assert_ok(script_ema_memory(x, 0, m)); /* beta9999, forget02, std05 */
    assert_near(m[0], pow(0.9999, 1500), 1e-9);
    assert_near(m[1], pow(0.5, 50), 1e-20);
    assert_true(m[2] == 0);
    assert_ok(script_ema_memory(x, 1, m));
    assert_near(m[0], pow(0.9999, 200000), 1e-12);
    script_close(x);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {T(mapping), T(weight),         T(noise), T(stage),   T(lr),
                                       T(ema),     T(bad_parameters), T(bound), T(failing), T(memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
