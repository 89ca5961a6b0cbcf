/* Data sets: the shipped digits, and every way a file can be wrong, each named with file and line. */
#include "tests/test.h"

#include <zlib.h>

#include "core/io/dataset.h"

static void digits(void **state)
{
    (void)state;
    struct dataset *d;
    assert_ok(dataset_open(&d, "digits"));
    assert_int_equal(d->n, 1797);
    assert_int_equal(d->h, 8);
    assert_int_equal(d->w, 8);
    assert_int_equal(d->c, 1);
    assert_int_equal(d->nclasses, 10);
    assert_near(d->std, 0.752, 0.001);
    assert_has(d->attribution, "Alpaydin");
    /* first line: 0,0,5,13,9,1,0,0, ... ,0 */
    static const int row[8] = {0, 0, 5, 13, 9, 1, 0, 0};
    for (int i = 0; i < 8; i++) assert_int_equal(d->pixels[i], lround(row[i] * 255 / 16.0));
    assert_int_equal(d->labels[0], 0);
    assert_int_equal(d->labels[1], 1);
    int top = 0, per_class[10] = {0};
    for (int i = 0; i < d->n * 64; i++) top = d->pixels[i] > top ? d->pixels[i] : top;
    for (int i = 0; i < d->n; i++) per_class[d->labels[i]]++;
    assert_int_equal(top, 255);
    for (int i = 0; i < 10; i++) assert_in_range(per_class[i], 170, 185);
    struct dataset *e;
    assert_ok(dataset_open(&e, "digits"));
    assert_string_equal(d->sha, e->sha);
    dataset_free(e);
    dataset_free(d);
    assert_err(ERR_NO_DATA, dataset_open(&d, "cifar11"));
    assert_has(err_text(), "cifar11");
    assert_null(d);
}

static char dir[256];

static const char *put(char path[400], const char *name, const char *data, size_t n)
{
    snprintf(path, 400, "%s/%s", dir, name);
    assert_ok(file_write_atomic(path, data, n));
    return path;
}

static void expect(const char *text, int line, const char *part)
{
    char path[400], where[500];
    struct dataset *d;
    put(path, "x.csv", text, strlen(text));
    assert_err(ERR_FORMAT, dataset_read_csv(&d, "x", path, 1, 2, 16));
    snprintf(where, sizeof where, line ? "%s:%d: " : "%s", path, line);
    assert_has(err_text(), where);
    assert_has(err_text(), part);
    assert_null(d);
}

static void bad_rows(void **state)
{
    (void)state;
    test_dir(dir, sizeof dir);
    expect("", 0, "no rows");
    expect("1,2,3\n1,2\n", 2, "2 columns where 3");
    expect("1,2,3\n\n1,2,3\n", 2, "0 columns");
    expect("1,2,3,4\n", 1, "more than 3");
    expect("1,2,3,\n", 1, "more than 3");
    expect("1,17,3\n", 1, "17 is outside 0..16");
    expect("1,2,3\n1,2,3\n1,-2,3\n", 3, "'-2' is no whole number");
    expect("1,x,3\n", 1, "column 2");
    expect("1,,3\n", 1, "column 2");
    expect("1,2.5,3\n", 1, "'2.5'");
    expect("1,2,99999\n", 1, "column 3");
    expect("1,999999999999999999999,3\n", 1, "column 2");
    struct dataset *d;
    assert_err(ERR_NO_DATA, dataset_read_csv(&d, "x", "/nonexistent/x.csv", 1, 2, 16));
    assert_has(err_text(), "/nonexistent/x.csv");
}

static void good_rows(void **state)
{
    (void)state;
    char path[400];
    struct dataset *a, *b, *c;
    test_dir(dir, sizeof dir);
    assert_ok(dataset_read_csv(&a, "x", put(path, "a.csv", "0,16,3\r\n8,1,0", 13), 1, 2, 16));
    assert_int_equal(a->n, 2);
    assert_int_equal(a->nclasses, 4);
    static const uint8_t px[4] = {0, 255, 128, 16};
    assert_memory_equal(a->pixels, px, 4);
    double sum = 0, squares = 0, v[4] = {-1, 1, 128 / 127.5 - 1, 16 / 127.5 - 1};
    for (int i = 0; i < 4; i++) sum += v[i];
    for (int i = 0; i < 4; i++) squares += (v[i] - sum / 4) * (v[i] - sum / 4);
    assert_near(a->std, sqrt(squares / 4), 1e-15);
    assert_ok(dataset_read_csv(&b, "other name", put(path, "b.csv", "0,16,3\n8,1,0\n", 13), 1, 2, 16));
    assert_string_equal(a->sha, b->sha);
    assert_ok(dataset_read_csv(&c, "x", put(path, "c.csv", "0,16,3\n8,1,1\n", 13), 1, 2, 16));
    assert_string_not_equal(a->sha, c->sha);
    dataset_free(a);
    dataset_free(b);
    dataset_free(c);
}

/* The shipped file, cut at many places and with flipped bytes: refused, whatever remains of it. */
static void truncated(void **state)
{
    (void)state;
    char path[400], *data, share[300];
    size_t n;
    struct dataset *d;
    test_dir(dir, sizeof dir);
    assert_ok(file_read("experiments/data/digits.csv.gz", 0, &data, &n));
    for (size_t cut = 20; cut < n; cut += cut < n - 3000 ? n / 7 : 331)
        assert_err(ERR_FORMAT, dataset_read_csv(&d, "digits", put(path, "cut.csv.gz", data, cut), 8, 8, 16));
    assert_err(ERR_FORMAT, dataset_read_csv(&d, "digits", put(path, "cut.csv.gz", data, n - 1), 8, 8, 16));
    assert_has(err_text(), "truncated");
    data[n / 2] ^= 4;
    assert_err(ERR_FORMAT, dataset_read_csv(&d, "digits", put(path, "flip.csv.gz", data, n), 8, 8, 16));
    mem_free(data);

    /* whole lines missing are noticed for a data set whose size is known */
    snprintf(share, sizeof share, "%s/data", dir);
    assert_ok(dir_make(share));
    struct text t = {0};
    for (int i = 0; i < 64; i++) text_add(&t, "3,");
    text_add(&t, "1\n");
    put(path, "data/digits.csv.gz", t.s, t.len);
    text_done(&t);
    setenv("ECT_DATA", dir, 1);
    err_t e = dataset_open(&d, "digits");
    unsetenv("ECT_DATA");
    assert_int_equal(e, ERR_FORMAT);
    assert_has(err_text(), "1 of 1797");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(digits), cmocka_unit_test(bad_rows),
                                       cmocka_unit_test(good_rows), cmocka_unit_test(truncated)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
