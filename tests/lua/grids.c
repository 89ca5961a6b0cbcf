/* Discretised methods: grids, curricula and the probabilities of their intervals against the published formulas written out here. */
#include "tests/lua/lua_test.h"

static struct script *s;
static struct design_state st;

static int setup(void **state)
{
    (void)state;
    st = (struct design_state){.batch = 128, .iters = 400000, .sigma_data = 0.5};
    return open_text(&s, "local ect = require 'ect'") != ERR_OK;
}
static int teardown(void **state)
{
    (void)state;
    script_close(s);
    return 0;
}

static double call(const char *expr, double a)
{
    double out = NAN;
    assert_ok(script_call(s, expr, &st, &a, 1, &out, 1));
    return out;
}
static double counter(const char *expr)
{
    double out = NAN;
    assert_ok(script_call(s, expr, &st, NULL, 0, &out, 1));
    return out;
}
static void pair(const char *expr, double u, double *t, double *r)
{
    double out[2];
    assert_ok(script_call(s, expr, &st, &u, 1, out, 2));
    *t = out[0];
    *r = out[1];
}
static void near(double a, double want)
{
    assert_near(a, want, 1e-12 * fabs(want));
}

/* sigma_i, i = 1..n */
static double sigma(int i, int n)
{
    double lo = pow(0.002, 1.0 / 7), hi = pow(80, 1.0 / 7);
    return pow(lo + (i - 1.0) / (n - 1.0) * (hi - lo), 7);
}

static void karras(void **state)
{
    (void)state;
    const int ns[] = {2, 11, 18, 321, 1281};
    for (size_t k = 0; k < ARRAY_LEN(ns); k++) {
        st.N = ns[k];
        for (int i = 1; i <= ns[k]; i++) near(call("ect.levels.karras{}", i), sigma(i, ns[k]));
    }
    st.N = 5;
    near(call("ect.levels.karras{min=1,max=81,rho=2}", 4), 49);
    st.N = 1;
    double out, i = 1;
    assert_err(ERR_USAGE, script_call(s, "ect.levels.karras{}", &st, &i, 1, &out, 1));
    assert_has(err_text(), "curriculum must give at least 2");
}

/* Every interval by its middle, and the first and last u that fall into it. */
static void uniform(void **state)
{
    (void)state;
    const int ns[] = {2, 18, 151};
    double t, r;
    for (size_t k = 0; k < ARRAY_LEN(ns); k++) {
        int n = ns[k];
        st.N = n;
        for (int i = 1; i < n; i++) {
            for (int part = 0; part < 3; part++) {
                pair("ect.pair.uniform{}", (n - 1 - i + 0.01 + 0.49 * part) / (n - 1.0), &t, &r);
                near(t, sigma(i + 1, n));
                near(r, sigma(i, n));
            }
        }
        pair("ect.pair.uniform{}", 1 - 0x1p-53, &t, &r);
        near(r, 0.002);
        pair("ect.pair.uniform{}", 0x1p-53, &t, &r);
        near(t, 80);
    }
}

static double erf_between(int i, int n)
{
    double lo = (log(sigma(i, n)) + 1.1) / (sqrt(2) * 2), hi = (log(sigma(i + 1, n)) + 1.1) / (sqrt(2) * 2);
    return erf(hi) - erf(lo);
}

static void lognormal_probability(void **state)
{
    (void)state;
    for (int n = 11; n <= 1281; n = 2 * n - 1) {
        double sum = 0, all = 0, lo = log(0.002), hi = log(80);
        st.N = n;
        for (int i = 1; i < n; i++) all += erf_between(i, n);
        assert_near(all, erf((hi + 1.1) / sqrt(8)) - erf((lo + 1.1) / sqrt(8)), 1e-12);
        for (int i = 1; i < n; i++) {
            double p = call("ect.levels.probability{}", i);
            assert_near(p, erf_between(i, n) / all, 1e-12);
            sum += p;
        }
        assert_near(sum, 1, 1e-12);
    }
}

/* What is drawn, not what is said of it: the u at which the interval changes, found by bisection. */
static void lognormal_draws(void **state)
{
    (void)state;
    const int n = 41;
    double t, r, below = 0, all = 0;
    st.N = n;
    for (int i = 1; i < n; i++) all += erf_between(i, n);
    for (int i = 1; i < n - 1; i++) {
        double lo = below, hi = 1;
        for (int step = 0; step < 60; step++) {
            double u = 0.5 * (lo + hi);
            pair("ect.pair.lognormal{}", u, &t, &r);
            if (r > 0.5 * (sigma(i, n) + sigma(i + 1, n))) hi = u;
            else lo = u;
        }
        assert_near(lo - below, erf_between(i, n) / all, 1e-12);
        pair("ect.pair.lognormal{}", 0.5 * (below + lo), &t, &r);
        near(r, sigma(i, n));
        near(t, sigma(i + 1, n));
        below = lo;
    }
    assert_near(1 - below, erf_between(n - 1, n) / all, 1e-12);
    pair("ect.pair.lognormal{}", 1 - 0x1p-53, &t, &r);
    near(t, 80);
    pair("ect.pair.lognormal{}", 0x1p-33, &t, &r);
    near(r, 0.002);
}

static void curriculum_ict(void **state)
{
    (void)state;
    const int want[] = {11, 21, 41, 81, 161, 321, 641, 1281};
    for (int64_t k = 0; k < 400000; k += 12500) {
        st.step = k;
        assert_true(counter("ect.curriculum.ict{}") == want[k / 50000]);
        st.step = k + 12499;
        assert_true(counter("ect.curriculum.ict{}") == want[k / 50000]);
    }
    st.iters = 1000; /* K' = floor(1000 / (log2 7 + 1)), and s1 ends the growth */
    double each = floor(1000 / (log2(floor(100 / 13.0)) + 1));
    for (st.step = 0; st.step < 1000; st.step++)
        assert_true(counter("ect.curriculum.ict{s0=13,s1=100}") ==
                    fmin(13 * pow(2, floor((double)st.step / each)), 100) + 1);
}

static void curriculum_ct(void **state)
{
    (void)state;
    double last = 0;
    st.iters = 800000;
    for (st.step = 0; st.step < 800000; st.step += 1601) {
        double k = (double)st.step / 800000, m = ceil(sqrt(k * (151.0 * 151 - 4) + 4) - 1);
        st.N = counter("ect.curriculum.ct{s0=2,s1=150}");
        assert_true(st.N == fmax(m, 1) + 1 && st.N >= last);
        near(counter("ect.teacher_ema.ct{mu0=0.9,s0=2}"), pow(0.9, 2 / (st.N - 1)));
        last = st.N;
    }
    assert_true(last == 151);
}

static void bad(void **state)
{
    (void)state;
    refused("local ect = require 'ect'\nect.run 'r' { ect.recipe 'digits-ect' { pair = 3 } }",
            "pair: a function is needed");
    refused("local ect = require 'ect'\nect.run 'r' { ect.recipe 'digits-ect' { pair = ect.noise.lognormal{} } }",
            "is a function for 'noise'");
    refused(
        "local ect = require 'ect'\nect.run 'r' { ect.recipe 'digits-ect' { pair = function(u, s) return 1, 2 end } }",
        "must not be larger than t");
    refused("local ect = require 'ect'\nect.run 'r' { ect.recipe 'digits-ect' { pair = function(u, s) return 1 end } }",
            "is no number");
    refused(
        "local ect = require 'ect'\nect.run 'r' { ect.recipe 'digits-ect' { curriculum = ect.curriculum.ict{s0=0} } }",
        "s0 must be at least 1");
}

/* none, false and nothing are the same; a script's own pair and adapt reach C. */
static void bound(void **state)
{
    (void)state;
    struct script *x =
        accepted("local ect = require 'ect'\n"
                 "local s = ect.sweep 's' { base = ect.recipe 'digits-ect' }\n"
                 "s:ablate { pair = { none = false, mine = function(u, s) return 2 * s.N, u end },\n"
                 "  adapt = { none = false, mine = function(t, r, d, s) return t + 10 * r + 100 * d end },\n"
                 "  curriculum = { twelve = 12 },\n"
                 "  teacher = { ema = { loss = { teacher = 'ema', teacher_ema = .5 } } } }");
    struct design d;
    double t[2], r[2], a[2], v;
    const double u[2] = {0.25, 0.5}, dist[2] = {3, 4};
    assert_int_equal(script_ncells(x), 5);
    for (int i = 0; i < 5; i++) {
        const struct script_cell *c = script_cell_at(x, i);
        st.N = 7;
        assert_ok(script_design(x, i, &d));
        assert_true(!d.pair == !strstr(c->cell, "pair="));
        assert_true(!d.adapt == !strstr(c->cell, "adapt="));
        assert_ok(d.curriculum(d.ctx, &st, &v));
        assert_true(v == (strstr(c->cell, "twelve") ? 12 : 0));
        assert_ok(d.teacher_ema(d.ctx, &st, &v));
        assert_true(v == (strstr(c->cell, "teacher=ema") ? 0.5 : 0));
        if (d.pair) {
            uint64_t before = mem_count();
            assert_ok(d.pair(d.ctx, &st, 2, u, t, r));
            assert_int_equal(mem_count(), before);
            assert_true(t[1] == 14 && r[0] == 0.25 && r[1] == 0.5);
            st.N = 0.2;
            assert_err(ERR_FAILED, d.pair(d.ctx, &st, 2, u, t, r));
            assert_has(err_text(), "pair(u=0.5, s) = 0.5 must not be larger than t");
        }
        if (d.adapt) {
            assert_ok(d.adapt(d.ctx, &st, 2, u, u, dist, a));
            near(a[1], 0.5 + 5 + 400);
        }
    }
    script_close(x);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(karras), T(uniform), T(lognormal_probability), T(lognormal_draws), T(curriculum_ict), T(curriculum_ct),
        T(bad),    T(bound)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
