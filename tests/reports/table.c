/* Query results in the formats of the commands: alignment, typed JSON, quoting. */
#include <jansson.h>

#include "reports/report.h"
#include "tests/test.h"

enum { COLS = 4, ROWS = 3 };
static const char *const cols[COLS] = {"run", "value", "n", "note"};
static struct cell cells[ROWS * COLS];
static struct table table;

static struct cell text(const char *s)
{
    return (struct cell){s, NAN, CELL_TEXT, strlen(s)};
}
static struct cell real(const char *s, double v)
{
    return (struct cell){s, v, CELL_REAL, strlen(s)};
}
static struct cell whole(const char *s, double v)
{
    return (struct cell){s, v, CELL_INT, strlen(s)};
}

static int setup(void **state)
{
    (void)state;
    const struct cell c[ROWS * COLS] = {text("abc"),         real("0.333333333333333", 1 / 3.),
                                        whole("7", 7),       text("a, \"b\""),
                                        text("déf"),         real("-12.5", -12.5),
                                        whole("1234", 1234), text("two\nlines | pipe"),
                                        text("x"),           {"", NAN, CELL_NULL, 0},
                                        whole("0", 0),       {"", NAN, CELL_NULL, 0}};
    memcpy(cells, c, sizeof c);
    table = (struct table){.ncols = COLS, .nrows = ROWS, .cols = (const char **)(uintptr_t)cols, .cells = cells};
    return 0;
}

static void check(struct table_style st, const char *want)
{
    struct text t = {0};
    table_print(&table, &st, &t);
    assert_string_equal(text_str(&t), want);
    text_done(&t);
}

static void test_term(void **state)
{
    (void)state;
    check((struct table_style){0}, "run     value     n  note\n"
                                   "abc  0.333333     7  a, \"b\"\n"
                                   "déf     -12.5  1234  two lines | pipe\n"
                                   "x                 0\n");
    check((struct table_style){.width = 30, .exact = true}, "run              value     n  note\n"
                                                            "abc  0.333333333333333     7  a, \"b\"\n"
                                                            "déf              -12.5  1234  two lin…\n"
                                                            "x                          0\n");
}

static void test_csv(void **state)
{
    (void)state;
    check((struct table_style){.format = "csv"}, "run,value,n,note\n"
                                                 "abc,0.3333333333333333,7,\"a, \"\"b\"\"\"\n"
                                                 "déf,-12.5,1234,\"two\nlines | pipe\"\n"
                                                 "x,,0,\n");
}

static void test_json(void **state)
{
    (void)state;
    struct text t = {0};
    table_print(&table, &(struct table_style){.format = "json"}, &t);
    json_error_t e;
    json_t *j = json_loads(t.s, 0, &e);
    if (!j) fail_msg("%s", e.text);
    json_t *row = json_array_get(j, 1);
    assert_string_equal(json_string_value(json_object_get(row, "note")), "two\nlines | pipe");
    assert_true(json_is_real(json_object_get(row, "value")));
    assert_true(json_is_integer(json_object_get(row, "n")));
    assert_true(json_is_null(json_object_get(json_array_get(j, 2), "value")));
    assert_near(json_number_value(json_object_get(json_array_get(j, 0), "value")), 1 / 3., 0);
    json_decref(j);
    text_done(&t);
    table.nrows = 0;
    check((struct table_style){.format = "json"}, "[]\n");
}

static void test_md(void **state)
{
    (void)state;
    check((struct table_style){.format = "md"}, "| run | value | n | note |\n|:--|--:|--:|:--|\n"
                                                "| abc | 0.333333 | 7 | a, \"b\" |\n"
                                                "| déf | -12.5 | 1234 | two lines \\| pipe |\n"
                                                "| x |  | 0 |  |\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_term, setup), cmocka_unit_test_setup(test_csv, setup),
        cmocka_unit_test_setup(test_json, setup), cmocka_unit_test_setup(test_md, setup)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
