/* The report of a sweep in every format, from a ledger that the fixture writes: against golden files byte for byte, and rule by rule. To
 * write the golden files anew after a wanted change: ECT_GOLDEN=write build/tests/reports/report. */
#include "reports/report.h"

#include <jansson.h>

#include "tests/reports/fixture.h"

static char root[4096];

static void render_as(struct ledger *l, const char *name, const char *format, struct text *out)
{
    struct report_opts o = {.name = name, .format = format, .width = 100};
    assert_ok(report_render(l, &o, out));
}

static struct text render(const struct fixture *f, const char *format)
{
    struct text out = {0};
    struct ledger *l = fixture_open(f);
    render_as(l, NULL, format, &out);
    ledger_close(l);
    return out;
}

/* ---- golden files */

static void check_golden(const char *format)
{
    struct text got = render(&(struct fixture){0}, format);
    char path[4200], *want;
    size_t n;
    snprintf(path, sizeof path, "%s/tests/reports/golden/sweep.%s", root, format);
    const char *write = getenv("ECT_GOLDEN");
    if (write && !strcmp(write, "write")) assert_ok(file_write_atomic(path, got.s, got.len));
    assert_ok(file_read(path, 0, &want, &n));
    if (n != got.len || memcmp(want, got.s, n)) {
        size_t i = 0, line = 1;
        for (; i < n && i < got.len && want[i] == got.s[i]; i++) line += want[i] == '\n';
        fail_msg("%s differs in line %zu: \"%.*s\"", path, line, (int)strcspn(got.s + i, "\n"), got.s + i);
    }
    mem_free(want);
    text_done(&got);
}
static void test_golden_term(void **s)
{
    (void)s, check_golden("term");
}
static void test_golden_md(void **s)
{
    (void)s, check_golden("md");
}
static void test_golden_tex(void **s)
{
    (void)s, check_golden("tex");
}
static void test_golden_csv(void **s)
{
    (void)s, check_golden("csv");
}
static void test_golden_json(void **s)
{
    (void)s, check_golden("json");
}

static void test_same_bytes_twice(void **state)
{
    (void)state;
    static const char *const formats[] = {"term", "md", "tex", "csv", "json", "html"};
    struct ledger *l = fixture_open(&(struct fixture){0});
    for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
        struct text a = {0}, b = {0};
        render_as(l, NULL, formats[i], &a);
        render_as(l, NULL, formats[i], &b);
        assert_true(a.len > 200);
        assert_string_equal(a.s, b.s);
        text_done(&a), text_done(&b);
    }
    ledger_close(l);
}

/* ---- rules, read from the JSON form */

static json_t *parse(const struct fixture *f)
{
    struct text t = render(f, "json");
    json_error_t e;
    json_t *j = json_loads(t.s, 0, &e);
    if (!j) fail_msg("not JSON, line %d: %s", e.line, e.text);
    text_done(&t);
    return j;
}

/* The cell of a table by row label and column key. */
static json_t *cell_of(json_t *report, const char *table, const char *label, const char *key)
{
    size_t i, g, r, c;
    json_t *b, *group, *row, *col;
    json_array_foreach(json_object_get(report, "blocks"), i, b)
    {
        const char *id = json_string_value(json_object_get(b, "id"));
        if (!id || strcmp(id, table)) continue;
        size_t at = 0;
        bool found = false;
        json_array_foreach(json_object_get(b, "columns"), c,
                           col) if (!strcmp(json_string_value(json_object_get(col, "key")), key)) at = c,
                                                                                                  found = true;
        if (!found) fail_msg("no column %s", key);
        json_array_foreach(json_object_get(b, "groups"), g, group)
            json_array_foreach(json_object_get(group, "rows"), r, row)
        {
            json_t *cells = json_object_get(row, "cells");
            const char *text = json_string_value(json_object_get(json_array_get(cells, 0), "text"));
            if (text && !strcmp(text, label)) return json_array_get(cells, at);
        }
    }
    fail_msg("no row %s in table %s", label, table);
    return NULL;
}
static const char *text_of(json_t *c, const char *key)
{
    const char *s = json_string_value(json_object_get(c, key));
    return s ? s : "";
}
static double num_of(json_t *c, const char *key)
{
    return json_number_value(json_object_get(c, key));
}
static bool is_bold(json_t *c)
{
    return json_is_true(json_object_get(c, "bold"));
}

static void test_numbers_and_runs(void **state)
{
    (void)state;
    json_t *j = parse(&(struct fixture){0});
    json_t *c = cell_of(j, "main", "base", "fd_pixel@1");
    assert_int_equal(num_of(c, "n"), 3);
    json_t *runs = json_object_get(c, "runs");
    assert_int_equal(json_array_size(runs), 3);
    double sum = 0;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(strlen(text_of(json_array_get(runs, i), "run")), 16);
        sum += num_of(json_array_get(runs, i), "value");
    }
    assert_near(num_of(c, "mean"), sum / 3, 1e-12);
    assert_null(json_object_get(c, "lo")); /* the comparison row has no difference to itself */
    json_t *other = cell_of(j, "main", "c=0.0043", "fd_pixel@1");
    double d[3], mean = 0, var = 0;
    for (size_t i = 0; i < 3; i++) {
        d[i] = num_of(json_array_get(json_object_get(other, "runs"), i), "value") -
               num_of(json_array_get(runs, i), "value");
        mean += d[i] / 3;
    }
    for (size_t i = 0; i < 3; i++) var += (d[i] - mean) * (d[i] - mean) / 2;
    double half = 4.302652729749464 * sqrt(var / 3); /* Student's t, 97.5 %, 2 degrees of freedom */
    assert_near(num_of(other, "lo"), mean - half, 1e-9);
    assert_near(num_of(other, "hi"), mean + half, 1e-9);
    assert_string_equal(text_of(other, "vs"), "base");
    json_decref(j);
}

static void test_bold(void **state)
{
    (void)state;
    json_t *j = parse(&(struct fixture){0});
    static const char *const rows[] = {"base", "mapping=const", "c=0.0043", "dropout=0.1"};
    static const char *const cols[] = {"fd_random@1", "fd_random@2", "fd_pixel@1", "fd_pixel@2"};
    for (size_t k = 0; k < 4; k++) {
        json_t *a = cell_of(j, "main", "base", cols[k]), *b = cell_of(j, "main", "c=0.0043", cols[k]);
        bool base_best = num_of(a, "mean") < num_of(b, "mean");
        bool tie =
            num_of(b, "lo") <= 0 && num_of(b, "hi") >= 0; /* the interval is symmetric in who is compared with whom */
        assert_true(is_bold(base_best ? a : b));
        assert_int_equal(is_bold(base_best ? b : a), tie);
        for (size_t i = 0; i < 4; i++) {
            json_t *c = cell_of(j, "main", rows[i], cols[k]);
            if (num_of(c, "n") < 3) {
                assert_false(is_bold(c));
                assert_null(json_object_get(c, "lo"));
            }
        }
        assert_false(is_bold(cell_of(j, "main", "pretrain", cols[k])));
    }
    json_decref(j);
}

static void test_two_replicates_have_no_interval_and_no_bold(void **state)
{
    (void)state;
    struct text t = render(&(struct fixture){.replicates = 2}, "json");
    assert_null(strstr(t.s, "\"bold\": true"));
    assert_null(strstr(t.s, "\"vs\": \"base\"}"));                                        /* no cell has an interval */
    for (const char *p = t.s; (p = strstr(p, "\"lo\": ")); p++) assert_true(p[6] == '['); /* only lists of figures */
    assert_has(t.s, "2/2");
    text_done(&t);
    t = render(&(struct fixture){.replicates = 2}, "md");
    assert_null(strstr(t.s, "In brackets"));
    text_done(&t);
}

static void test_nan_replicate(void **state)
{
    (void)state;
    json_t *j = parse(&(struct fixture){.nan = true});
    json_t *c = cell_of(j, "main", "base", "fd_random@2");
    assert_int_equal(num_of(c, "n"), 2);
    assert_int_equal(num_of(c, "of"), 3);
    assert_false(is_bold(c));
    assert_has(text_of(c, "note"), "2 of 3");
    assert_null(json_object_get(cell_of(j, "main", "c=0.0043", "fd_random@2"), "lo")); /* two pairs are left */
    assert_true(is_bold(cell_of(j, "main", "c=0.0043", "fd_random@1")) ||
                is_bold(cell_of(j, "main", "base", "fd_random@1")));
    json_decref(j);
}

static void test_evaluators_are_not_mixed(void **state)
{
    (void)state;
    struct fixture f = {
        .mixed = true,
        .declared =
            "{\"kind\":\"sweep\",\"base\":\"base\",\"tables\":[{\"rows\":\"cell\",\"cols\":[\"fd_random@1\"]}]}"};
    json_t *j = parse(&f);
    json_t *c = cell_of(j, "main", "c=0.0043", "fd_random@1");
    assert_string_equal(text_of(c, "kind"), "refused");
    assert_has(text_of(c, "note"), "samples is 1000 here and 10000 in the rest of the column");
    assert_null(json_object_get(c, "mean"));
    assert_false(is_bold(c));
    json_decref(j);
    /* where the script says how many samples, others do not count as its evaluation */
    f.declared = NULL;
    j = parse(&f);
    c = cell_of(j, "main", "c=0.0043", "fd_random@1");
    assert_string_equal(text_of(c, "kind"), "missing");
    assert_string_equal(text_of(c, "command"), "ect run experiments/demo.lua --ledger ledger.db");
    json_decref(j);
}

/* A sampler's settings are no part of a column's name: the column shows what the script declares. */
static void test_settings_of_samplers(void **state)
{
    (void)state;
    static const struct {
        const char *set;
        double heun, multistep; /* 0: there is none */
    } cases[] = {{"\"seed\":0", 100, 200},
                 {"\"churn\":40", 101, 200}, /* which the multistep solver does not use */
                 {"\"labels\":\"balanced\"", 102, 202},
                 {"\"sigma_max\":60", 103, 203},
                 {"\"sigma_min\":0.01", 104, 204},
                 {"\"alpha\":0.5", 105, 200},
                 {"\"labels\":\"class:3\"", 106, 206},
                 {"\"labels\":\"class:4\"", 0, 0}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char declared[700];
        snprintf(
            declared, sizeof declared,
            "{\"kind\":\"sweep\",\"base\":\"base\",\"tables\":[{\"rows\":\"cell\",\"cols\":[\"fd_pixel@heun5\","
            "\"fd_pixel@dpmpp-2m10\"]}],\"evals\":[{\"nfe\":[5],\"sampler\":\"heun\",\"metrics\":[\"fd_pixel\"],%s},"
            "{\"nfe\":[10],\"sampler\":\"dpmpp-2m\",\"metrics\":[\"fd_pixel\"],%s}]}",
            cases[i].set, cases[i].set);
        json_t *j = parse(&(struct fixture){.variants = true, .declared = declared});
        json_t *heun = cell_of(j, "main", "base", "fd_pixel@heun5");
        json_t *two = cell_of(j, "main", "base", "fd_pixel@dpmpp-2m10");
        if (cases[i].heun > 0) {
            assert_near(num_of(heun, "mean"), cases[i].heun, 1e-9);
            assert_near(num_of(two, "mean"), cases[i].multistep, 1e-9);
        } else {
            assert_string_equal(text_of(heun, "kind"), "missing");
            assert_string_equal(text_of(two, "kind"), "missing");
        }
        json_decref(j);
    }
}

static void keys_are(const struct fixture *f, const char *table, const char *want)
{
    json_t *j = parse(f), *b, *col;
    struct text got = {0};
    size_t i, c;
    json_array_foreach(json_object_get(j, "blocks"), i, b)
    {
        const char *id = json_string_value(json_object_get(b, "id"));
        if (!id || strcmp(id, table)) continue;
        json_array_foreach(json_object_get(b, "columns"), c, col)
            text_addf(&got, "%s%s", c ? " " : "", json_string_value(json_object_get(col, "key")));
    }
    assert_string_equal(text_str(&got), want);
    text_done(&got);
    json_decref(j);
}

static void before(const char *text, const char *a, const char *b)
{
    assert_has(text, a);
    assert_has(text, b);
    assert_true(strstr(text, a) < strstr(text, b));
}

/* What a page says only where it means something, and in which order. */
static void test_words_where_they_belong(void **state)
{
    (void)state;
    struct text t = render(&(struct fixture){.variants = true}, "md");
    before(t.s, "base, 2 steps", "base, 16 steps");
    before(t.s, "base, 16 steps", "nearest to base, 1 step");
    assert_has(t.s, "Nearest: by pixels");
    assert_has(t.s, "Distance of neighbouring outputs");
    assert_null(strstr(t.s, "Samples an evaluation"));
    text_done(&t);
    t = render(&(struct fixture){0}, "tex");
    assert_has(t.s, "Bold: the paired");
    assert_null(strstr(t.s, "terminal"));
    text_done(&t);
    t = render(&(struct fixture){.mixed = true}, "md");
    assert_null(strstr(t.s, "Samples an evaluation")); /* other numbers are none of the script's evaluations */
    text_done(&t);
    t = render(
        &(struct fixture){
            .mixed = true,
            .declared =
                "{\"kind\":\"sweep\",\"base\":\"base\",\"tables\":[{\"rows\":\"cell\",\"cols\":[\"fd_random@1\"]}]}"},
        "md");
    assert_has(t.s, "Samples an evaluation: 1000 or 10000.");
    text_done(&t);
    struct ledger *l = fixture_open(&(struct fixture){0}); /* a diffusion model */
    struct report_opts o = {.sweep = "pre", .format = "md", .width = 100};
    t = (struct text){0};
    assert_ok(report_render(l, &o, &t));
    assert_has(t.s, "Training loss");
    assert_null(strstr(t.s, "Distance of neighbouring outputs"));
    assert_null(strstr(t.s, "Nearest: by pixels"));
    ledger_close(l);
    text_done(&t);
}

#define EVALS                                                                                                          \
    "\"evals\":[{\"nfe\":[5],\"sampler\":\"heun\",\"metrics\":[\"fd_pixel\"]},"                                        \
    "{\"nfe\":[10,2],\"sampler\":\"dpmpp-2m\",\"metrics\":[\"fd_pixel\"]}]"

/* Without s:table: what was declared to be evaluated, numbers in their order. Where the script's columns are not what was asked for (--set
 * eval.sampler=...), the former come first. */
static void test_columns_of_declared_evaluations(void **state)
{
    (void)state;
    struct fixture f = {.variants = true, .declared = "{\"kind\":\"sweep\",\"base\":\"base\",\"tables\":[]," EVALS "}"};
    keys_are(&f, "main",
             "cell fd_pixel@heun5 fd_pixel@dpmpp-2m2 fd_pixel@dpmpp-2m10 flops_total seconds front@heun5 "
             "front@dpmpp-2m10 n");
    json_t *j = parse(&f);
    assert_true(num_of(cell_of(j, "main", "base", "fd_pixel@dpmpp-2m10"), "mean") >= 200);
    assert_string_equal(text_of(cell_of(j, "main", "base", "fd_pixel@dpmpp-2m2"), "kind"), "missing");
    json_decref(j);
    f.declared = "{\"kind\":\"sweep\",\"base\":\"base\",\"tables\":[{\"rows\":\"cell\",\"cols\":[\"fd_random@1\"]}],"
                 "\"pareto\":[{\"min\":[\"flops_total\",\"fd_pixel@2\"],\"by\":\"nfe\"}]," EVALS "}";
    keys_are(&f, "main",
             "cell fd_pixel@heun5 fd_pixel@dpmpp-2m2 fd_pixel@dpmpp-2m10 flops_total seconds front@heun5 "
             "front@dpmpp-2m2 front@dpmpp-2m10 n");
    keys_are(&f, "table2", "cell fd_random@1 flops_total seconds front@heun5 front@dpmpp-2m2 front@dpmpp-2m10 n");
    f.declared = "{\"kind\":\"sweep\",\"base\":\"base\",\"tables\":[],\"evals\":[{\"nfe\":[1,2,4,8,16,32,64,128],"
                 "\"sampler\":\"flow-euler\",\"metrics\":[\"energy\",\"sw2\"]}]}";
    keys_are(&f, "main",
             "cell energy@flow-euler1 energy@flow-euler2 energy@flow-euler4 energy@flow-euler8 energy@flow-euler16 "
             "energy@flow-euler128 sw2@flow-euler1 sw2@flow-euler2 sw2@flow-euler4 sw2@flow-euler8 sw2@flow-euler16 "
             "sw2@flow-euler128 flops_total seconds front@flow-euler1 front@flow-euler128 n");
    struct text t = render(&f, "md");
    assert_has(t.s, "4 more columns");
    text_done(&t);
}

/* The paired intervals are those of the golden files: c=0.0043 minus base is [+0.0005, +0.0035] for fd_random@2, and includes 0 for @1. */
static void test_claims(void **state)
{
    (void)state;
    static const char start[] = "{\"kind\":\"sweep\",\"base\":\"base\",\"tables\":[],\"claims\":[";
    static const char claims[] = "{\"text\":\"a\",\"better\":\"base\",\"than\":\"c=0.0043\",\"metric\":\"fd_random@2\","
                                 "\"than_metric\":\"fd_random@2\"},"
                                 "{\"text\":\"b\",\"better\":\"c=0.0043\",\"than\":\"base\",\"metric\":\"fd_random@2\","
                                 "\"than_metric\":\"fd_random@2\"},"
                                 "{\"text\":\"c\",\"better\":\"c=0.0043\",\"than\":\"base\",\"metric\":\"fd_random@1\","
                                 "\"than_metric\":\"fd_random@1\"},"
                                 "{\"text\":\"d\",\"better\":\"base\",\"than\":\"base\",\"metric\":\"fd_random@2\","
                                 "\"than_metric\":\"fd_random@1\"},"
                                 "{\"text\":\"e\",\"better\":\"base\",\"than\":\"dropout=0.1\",\"metric\":\"fd_random@"
                                 "1\",\"than_metric\":\"fd_random@1\"},"
                                 "{\"text\":\"f\",\"better\":\"base\",\"than\":\"base\",\"metric\":\"fd_random@7\","
                                 "\"than_metric\":\"fd_random@1\"}";
    char declared[2048];
    snprintf(declared, sizeof declared, "%s%s]}", start, claims);
    struct fixture f = {.declared = declared};
    json_t *j = parse(&f);
    static const char *const want[][2] = {{"a", "seen"}, {"b", "opposite"},  {"c", "undecided"},
                                          {"d", "seen"}, {"e", "undecided"}, {"f", "missing"}};
    for (size_t i = 0; i < ARRAY_LEN(want); i++)
        assert_string_equal(text_of(cell_of(j, "claims", want[i][0], "verdict"), "text"), want[i][1]);
    json_t *d = cell_of(j, "claims", "a", "difference");
    assert_near(num_of(d, "lo"), -0.0035, 6e-5);
    assert_near(num_of(d, "hi"), -0.0005, 6e-5);
    assert_near(num_of(cell_of(j, "claims", "a", "better"), "mean") - num_of(cell_of(j, "claims", "a", "than"), "mean"),
                num_of(d, "mean"), 1e-12);
    assert_string_equal(text_of(cell_of(j, "claims", "b", "cost"), "text"), "× 1.04");
    assert_string_equal(text_of(cell_of(j, "claims", "d", "cost"), "text"), "equal");
    json_decref(j);
    f.mixed = true; /* c=0.0043 was measured with other samples */
    j = parse(&f);
    assert_has(text_of(cell_of(j, "claims", "b", "verdict"), "text"), "not comparable");
    json_decref(j);
    struct text t = render(&f, "html");
    assert_has(t.s, "undecided");
    text_done(&t);
}

static void test_diverged_and_missing(void **state)
{
    (void)state;
    json_t *j = parse(&(struct fixture){0});
    assert_string_equal(text_of(cell_of(j, "main", "mapping=const", "n"), "text"), "2/3 diverged 1");
    assert_string_equal(text_of(cell_of(j, "main", "dropout=0.1", "n"), "text"), "2/3 pending 1");
    json_t *c = cell_of(j, "main", "dropout=0.1", "fd_random@1");
    assert_int_equal(num_of(c, "n"), 2);
    assert_has(text_of(c, "note"), "ect run experiments/demo.lua");
    json_decref(j);
    struct text t = render(&(struct fixture){0}, "term");
    assert_has(t.s, "1 of 12 diverged");
    assert_has(t.s, "10 of 12 done");
    text_done(&t);
}

static void test_baselines_and_controls(void **state)
{
    (void)state;
    json_t *j = parse(&(struct fixture){0});
    assert_true(num_of(cell_of(j, "main", "pretrain", "fd_pixel@1"), "mean") > 14);
    json_t *c = cell_of(j, "main", "pretrain, Heun 35", "fd_pixel@1");
    assert_int_equal(num_of(c, "span"), 2);
    assert_near(num_of(c, "mean"), .25, .02);
    assert_near(num_of(cell_of(j, "main", "real halves (control)", "fd_random@1"), "mean"), .011, 1e-12);
    assert_near(num_of(cell_of(j, "main", "Gaussian (control)", "fd_random@1"), "mean"), 1.4, 1e-12);
    json_decref(j);
}

/* A constant times 1/10000 + 1/1797 against one times 4/1797. A cell below it is suspected of memory. */
static void test_perfect_model(void **state)
{
    (void)state;
    json_t *j = parse(&(struct fixture){0});
    double share = (1 / 10000. + 1 / 1797.) / (4 / 1797.);
    assert_near(num_of(cell_of(j, "main", "perfect model (est.)", "fd_random@1"), "mean"), .011 * share, 1e-12);
    assert_near(num_of(cell_of(j, "main", "perfect model (est.)", "fd_pixel@1"), "mean"), .16 * share, 1e-12);
    assert_null(json_object_get(cell_of(j, "main", "base", "fd_random@2"), "note"));
    json_decref(j);
    j = parse(
        &(struct fixture){.halves = .1}); /* the perfect model's: .0295; base has .024 with 2 steps, .031 with 1 */
    assert_has(text_of(cell_of(j, "main", "base", "fd_random@2"), "note"), "memorised");
    assert_null(json_object_get(cell_of(j, "main", "base", "fd_random@1"), "note"));
    json_decref(j);
}

static void test_rows_of_a_factor(void **state)
{
    (void)state;
    json_t *j = parse(&(struct fixture){0});
    assert_near(num_of(cell_of(j, "table2", "sigmoid", "fd_random@1"), "mean"),
                num_of(cell_of(j, "main", "base", "fd_random@1"), "mean"), 0);
    assert_near(num_of(cell_of(j, "table2", "const", "fd_random@1"), "mean"),
                num_of(cell_of(j, "main", "mapping=const", "fd_random@1"), "mean"), 0);
    json_decref(j);
}

static void test_front(void **state)
{
    (void)state;
    json_t *j = parse(&(struct fixture){0});
    assert_string_equal(text_of(cell_of(j, "main", "pretrain", "front@1"), "text"), "●"); /* the cheapest */
    assert_string_equal(text_of(cell_of(j, "main", "dropout=0.1", "front@1"), "text"),
                        ""); /* dearer and worse than base */
    json_decref(j);
}

/* ---- formats */

static void test_csv_parses(void **state)
{
    (void)state;
    struct text t = render(&(struct fixture){0}, "csv");
    int fields = 1, lines = 0;
    bool quoted = false;
    for (const char *s = t.s; *s; s++) {
        if (*s == '"') quoted = !quoted;
        if (quoted) continue;
        if (*s == ',') fields++;
        if (*s != '\n') continue;
        assert_int_equal(fields, 14);
        fields = 1, lines++;
    }
    assert_false(quoted);
    assert_true(lines > 60);
    text_done(&t);
}

static void test_html_is_self_contained(void **state)
{
    (void)state;
    struct text t = render(&(struct fixture){0}, "html");
    static const char *const banned[] = {"http://", "https://", "src=\"/", "@import", "url("};
    for (size_t i = 0; i < ARRAY_LEN(banned); i++)
        if (strstr(t.s, banned[i])) fail_msg("the page refers to %.60s", strstr(t.s, banned[i]));
    assert_has(t.s, "data:image/png;base64,");
    assert_has(t.s, "&lt;one at a time&gt; &amp; &quot;more&quot;");
    assert_has(t.s, "A CPU &lt;model&gt;");
    /* every id once, every link to one of them */
    for (const char *s = t.s; (s = strstr(s, " id=")); s++) {
        char id[128], needle[160];
        char q = s[4];
        size_t n = q == '"' || q == '\'' ? strcspn(s + 5, q == '"' ? "\"" : "'") : 0;
        if (!n || n >= sizeof id) continue;
        snprintf(id, sizeof id, "%.*s", (int)n, s + 5);
        snprintf(needle, sizeof needle, " id=%c%s%c", q, id, q);
        if (strstr(s + 1, needle)) fail_msg("id %s twice", id);
    }
    for (const char *s = t.s; (s = strstr(s, "href=\"#")); s++) {
        char needle[160];
        snprintf(needle, sizeof needle, " id=\"%.*s\"", (int)strcspn(s + 7, "\""), s + 7);
        if (!strstr(t.s, needle)) fail_msg("no target%s", needle);
    }
    text_done(&t);
}

static void test_html_without_gnuplot(void **state)
{
    (void)state;
    char *path = mem_strdup(getenv("PATH"));
    setenv("PATH", "/nonexistent", 1);
    struct text t = render(&(struct fixture){0}, "html");
    setenv("PATH", path, 1);
    mem_free(path);
    assert_has(t.s, "No figure here: gnuplot is not installed");
    text_done(&t);
}

static bool program(const char *name)
{
    char cmd[128];
    snprintf(cmd, sizeof cmd, "command -v %s > /dev/null 2>&1", name);
    return system(cmd) == 0;
}

static void test_html_opens_in_a_browser(void **state)
{
    (void)state;
    if (!program("chromium") || !program("gnuplot")) {
        print_message("# SKIP chromium or gnuplot is not installed\n");
        skip();
    }
    struct text t = render(&(struct fixture){0}, "html");
    assert_ok(file_write_atomic("page.html", t.s, t.len));
    text_done(&t);
    /* a click on the first metric's heading sorts; the page's title tells what happened */
    assert_ok(file_read("page.html", 0, &t.s, &t.len));
    char *end = strstr(t.s, "</body>");
    assert_non_null(end);
    struct text page = {0};
    text_addn(&page, t.s, (size_t)(end - t.s));
    text_add(
        &page,
        "<script>window.onerror = function () { document.title = 'broken'; };"
        "var h = document.querySelectorAll('table')[0].tHead.rows[0].cells[1]; h.click(); h.click();"
        "var v = Array.from(document.querySelectorAll('table')[0].tBodies[1].rows).slice(1).map(function (r) {"
        " return parseFloat(r.cells[1].dataset.v); });"
        "document.title = 'sorted ' + (v.length === 4 && v.every(function (x, i) { return !i || v[i - 1] >= x; })) +"
        " ' svg ' + document.querySelectorAll('figure.plot > svg').length +"
        " ' img ' + Array.from(document.images).filter(function (i) { return i.complete && i.naturalWidth > 0; "
        "}).length;"
        "</script></body></html>");
    assert_ok(file_write_atomic("page.html", page.s, page.len));
    mem_free(t.s);
    text_done(&page);
    int rc = system("timeout 120 chromium --headless --no-sandbox --disable-gpu --user-data-dir=$PWD/chromium "
                    "--dump-dom file://$PWD/page.html"
                    " > dom.html 2> chromium.log");
    char *dom;
    size_t n;
    assert_ok(file_read("dom.html", 0, &dom, &n));
    if (rc != 0 && n == 0) { /* installed, but cannot run here: no sandboxed user, no /dev/shm */
        print_message("# SKIP chromium does not run here\n");
        mem_free(dom);
        skip();
    }
    assert_has(dom, "<title>sorted true svg 4 img ");
    assert_null(strstr(dom, " img 0<"));
    mem_free(dom);
}

static void test_tex_compiles(void **state)
{
    (void)state;
    if (!program("pdflatex") || system("kpsewhich booktabs.sty > /dev/null 2>&1")) {
        print_message("# SKIP pdflatex with booktabs is not installed\n");
        skip();
    }
    struct text t = render(&(struct fixture){.nan = true, .mixed = true}, "tex");
    assert_ok(file_write_atomic("fragment.tex", t.s, t.len));
    text_done(&t);
    static const char doc[] =
        "\\documentclass{article}\n\\usepackage[T1]{fontenc}\n\\usepackage{booktabs}\n\\usepackage{graphicx}\n"
        "\\begin{document}\n\\input{fragment}\n\\end{document}\n";
    assert_ok(file_write_atomic("paper.tex", doc, sizeof doc - 1));
    if (system("pdflatex -interaction=nonstopmode -halt-on-error paper.tex > tex.out 2>&1")) {
        char *log;
        size_t n;
        assert_ok(file_read("tex.out", 0, &log, &n));
        fail_msg("pdflatex: %s", n > 1500 ? log + n - 1500 : log);
    }
    assert_true(file_exists("paper.pdf"));
}

static void test_term_fits(void **state)
{
    (void)state;
    struct ledger *l = fixture_open(&(struct fixture){0});
    static const int widths[] = {60, 80, 100, 132, 200};
    for (size_t i = 0; i < ARRAY_LEN(widths); i++) {
        struct text t = {0};
        struct report_opts o = {.width = widths[i]};
        assert_ok(report_render(l, &o, &t));
        int at = 0;
        size_t line = 0;
        for (const char *s = t.s; *s; s++) {
            if (*s == '\n') {
                if (at > widths[i])
                    fail_msg("width %d: %d columns: %.*s", widths[i], at, (int)(s - t.s - (ptrdiff_t)line), t.s + line);
                at = 0, line = (size_t)(s - t.s) + 1;
            } else if (((unsigned char)*s & 0xc0) != 0x80) at++;
        }
        assert_has(t.s, "fd_pixel@2");
        assert_has(t.s, "FLOPs total");
        text_done(&t);
    }
    ledger_close(l);
}

/* ---- definitions */

static void write_report(const char *name, const char *text)
{
    assert_ok(dir_make("reports"));
    char path[128];
    snprintf(path, sizeof path, "reports/%s.lua", name);
    assert_ok(file_write_atomic(path, text, strlen(text)));
}

/* Hashes of runs and functions become names for people, and stay as they are for programs. */
static void test_settings_in_words(void **state)
{
    (void)state;
    struct ledger *l = fixture_open(&(struct fixture){0});
    struct text t = {0};
    write_report("words", "local report = require 'report'\n"
                          "local s, lua = report.sweep(), 'lua:' .. ('0123456789abcdef'):rep(4)\n"
                          "local init = 'run:' .. s.parents[1].runs[1].config_hash .. '@std05'\n"
                          "report.text(s:setting_text(s.by_label['mapping=const'], 'mapping', lua))\n"
                          "report.text(s:setting_text(s.cells[1], 'lr', lua))\n"
                          "report.text(s:setting_text(s.cells[1], 'init', init))\n");
    render_as(l, "words", "md", &t);
    before(t.s, "const", "function of the script (012345)");
    assert_has(t.s, "pretrain@std05");
    assert_null(strstr(t.s, "0123456789abcdef"));
    t.len = 0;
    render_as(l, "words", "json", &t);
    assert_has(t.s, "0123456789abcdef");
    assert_null(strstr(t.s, "pretrain@std05"));
    ledger_close(l);
    text_done(&t);
}

static void test_own_definitions(void **state)
{
    (void)state;
    struct ledger *l = fixture_open(&(struct fixture){0});
    struct text t = {0};
    write_report("table1",
                 "local report = require 'report'\n"
                 "local s = report.sweep 'mapping'\n"
                 "report.title 'Table 1'\n"
                 "report.table(s:table { rows = 'mapping', cols = {'fd_random@2', 'units_paper'}, vs = 'const' })\n");
    render_as(l, "table1", "md", &t);
    assert_has(t.s, "# Table 1");
    assert_has(t.s, "paper's units");
    text_done(&t);
    write_report("sweep", "local report = require 'report'\nreport.title 'mine'\n");
    render_as(l, NULL, "md", &t);
    assert_string_equal(t.s, "# mine\n");
    text_done(&t);

    struct report_opts o = {.name = "bad", .format = "md"};
    write_report("bad", "local report = require 'report'\nlocal function f() return nil + 1 end\nf()\n");
    assert_err(ERR_USAGE, report_render(l, &o, &t));
    assert_has(err_text(), "reports/bad.lua:2:");
    assert_has(err_text(), "stack traceback");
    write_report("bad", "require 'report'.table(require 'report'.sweep():table { cols = {'fd_random'} })\n");
    assert_err(ERR_USAGE, report_render(l, &o, &t));
    assert_has(err_text(), "no column 'fd_random'");
    write_report("bad", "require 'report'.sql 'SELECT x FROM nowhere'\n");
    assert_err(ERR_USAGE, report_render(l, &o, &t));
    assert_has(err_text(), "nowhere");
    write_report("bad", "os.exit(1)\n");
    assert_err(ERR_USAGE, report_render(l, &o, &t));
    write_report(
        "bad",
        "local t = {} for k = 1, 40 do t['k' .. k] = true end local o = {} for k in pairs(t) do o[#o + 1] = k end\n"
        "require 'report'.text(table.concat(o, ' '))\n");
    assert_ok(report_render(l, &o, &t));
    assert_has(t.s, "k1 k10 k11 k12");
    text_done(&t);
    ledger_close(l);
}

static void test_what_is_not_there(void **state)
{
    (void)state;
    struct ledger *l = fixture_open(&(struct fixture){0});
    struct text t = {0};
    assert_err(ERR_NOT_FOUND, report_render(l, &(struct report_opts){.name = "swep"}, &t));
    assert_has(err_text(), "did you mean 'sweep'");
    assert_err(ERR_NOT_FOUND, report_render(l, &(struct report_opts){.sweep = "maping"}, &t));
    assert_has(err_text(), "there are: mapping, pre");
    assert_err(ERR_USAGE, report_render(l, &(struct report_opts){.format = "pdf"}, &t));
    assert_err(ERR_NOT_FOUND, report_render(l, &(struct report_opts){.name = "../sweep"}, &t));
    ledger_close(l);
    assert_ok(ledger_open(&l, "empty.db", LEDGER_CREATE));
    assert_err(ERR_NOT_FOUND, report_render(l, &(struct report_opts){0}, &t));
    assert_has(err_text(), "no sweep yet");
    ledger_close(l);
    assert_int_equal(t.len, 0);
    text_done(&t);
    const char *const *names;
    int n = report_names(&names);
    bool found = false;
    for (int i = 0; i < n; i++) {
        found |= !strcmp(names[i], "sweep");
        assert_string_not_equal(names[i], "report");
    }
    assert_true(found);
}

/* The report of a lone run, and of a sweep of which nothing has run. */
static void test_sparse_sweeps(void **state)
{
    (void)state;
    struct ledger *l = fixture_open(&(struct fixture){0});
    struct text t = {0};
    struct report_opts o = {.sweep = "pre", .format = "html"};
    assert_ok(report_render(l, &o, &t));
    assert_has(t.s, "Sweep pre");
    text_done(&t);
    ledger_close(l);
    assert_ok(ledger_open(&l, "ledger.db", LEDGER_WRITE));
    char sha[SHA256_TEXT], hash[SHA256_TEXT], run[RUN_ID_TEXT];
    int64_t sweep;
    bool created;
    assert_ok(ledger_put_blob(l, "x", 1, "text/x-lua", sha));
    struct ledger_sweep s = {
        .name = "new", .script_sha = sha, .script_name = "new.lua", .sets = "iters=5\n", .declared = "{}"};
    assert_ok(ledger_put_sweep(l, &s, &sweep));
    o.sweep = "new";
    assert_ok(report_render(l, &o, &t)); /* not a trial yet */
    text_done(&t);
    fixture_config(l, "base2", hash);
    struct ledger_run_new r = {.config_hash = hash, .replicate = 1, .iters = 5};
    assert_ok(ledger_put_run(l, &r, run, &created));
    struct ledger_trial trial = {sweep, 0, "base", "{}", 1, run};
    assert_ok(ledger_put_trial(l, &trial));
    o.format = "term";
    assert_ok(report_render(l, &o, &t));
    assert_has(t.s, "new.lua");
    text_done(&t);
    ledger_close(l);
}

static int back_home(void **state)
{
    (void)state;
    return chdir(root);
}

int main(void)
{
    if (!getcwd(root, sizeof root)) return 1;
#define T(f) cmocka_unit_test_teardown(f, back_home)
    const struct CMUnitTest tests[] = {T(test_golden_term),
                                       T(test_golden_md),
                                       T(test_golden_tex),
                                       T(test_golden_csv),
                                       T(test_golden_json),
                                       T(test_same_bytes_twice),
                                       T(test_numbers_and_runs),
                                       T(test_bold),
                                       T(test_two_replicates_have_no_interval_and_no_bold),
                                       T(test_nan_replicate),
                                       T(test_evaluators_are_not_mixed),
                                       T(test_settings_of_samplers),
                                       T(test_columns_of_declared_evaluations),
                                       T(test_words_where_they_belong),
                                       T(test_settings_in_words),
                                       T(test_claims),
                                       T(test_diverged_and_missing),
                                       T(test_baselines_and_controls),
                                       T(test_perfect_model),
                                       T(test_rows_of_a_factor),
                                       T(test_front),
                                       T(test_csv_parses),
                                       T(test_html_is_self_contained),
                                       T(test_html_without_gnuplot),
                                       T(test_html_opens_in_a_browser),
                                       T(test_tex_compiles),
                                       T(test_term_fits),
                                       T(test_own_definitions),
                                       T(test_what_is_not_there),
                                       T(test_sparse_sweeps)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
