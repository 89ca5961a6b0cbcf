/* Errors, memory, text, numbers, names, hashes: against published vectors and round trips. */
#include "tests/test.h"

#include <float.h>
#include <pthread.h>
#include <unistd.h>

static void errors(void **state)
{
    (void)state;
    assert_int_equal(fail(ERR_IO, "open %s: %s", "a", "gone"), ERR_IO);
    assert_string_equal(err_text(), "open a: gone");
    assert_int_equal(fail_in(ERR_FORMAT, "line %d", 3), ERR_FORMAT);
    assert_string_equal(err_text(), "line 3: open a: gone");
    assert_int_equal(fail(ERR_IO, "again: %s", err_text()), ERR_IO);
    assert_string_equal(err_text(), "again: line 3: open a: gone");
    char *big = mem_alloc(20000);
    memset(big, 'x', 19999);
    assert_int_equal(fail(ERR_IO, "%s", big), ERR_IO);
    assert_int_equal(fail_in(ERR_IO, "front"), ERR_IO);
    assert_has(err_text(), "front: xxx");
    mem_free(big);
    assert_int_equal(err_exit_code(ERR_INTERRUPTED), 75);
    assert_int_equal(err_exit_code(ERR_NO_DATA), 6);
    assert_int_equal(err_exit_code(ERR_DEVICE), 5);
    assert_int_equal(err_exit_code(ERR_USAGE), 2);
    assert_int_equal(err_exit_code(ERR_OK), 0);
}

static void *other_thread(void *ctx)
{
    (void)ctx;
    err_t e = fail(ERR_IO, "of the other thread");
    return (void *)(intptr_t)e;
}

static void errors_are_per_thread(void **state)
{
    (void)state;
    pthread_t t;
    assert_int_equal(fail(ERR_IO, "mine"), ERR_IO);
    assert_int_equal(pthread_create(&t, NULL, other_thread, NULL), 0);
    pthread_join(t, NULL);
    assert_string_equal(err_text(), "mine");
}

static char seen[256];
static enum log_level seen_level;
static void sink(void *ctx, enum log_level level, const char *line)
{
    (void)ctx;
    seen_level = level;
    snprintf(seen, sizeof seen, "%s", line);
}

static void logging(void **state)
{
    (void)state;
    log_set(LOG_WARN, sink, NULL);
    seen[0] = 0;
    log_info("quiet");
    assert_string_equal(seen, "");
    log_warn("loud %d", 7);
    assert_string_equal(seen, "loud 7");
    assert_int_equal(seen_level, LOG_WARN);
    log_set(LOG_INFO, NULL, NULL);
}

static void memory(void **state)
{
    (void)state;
    uint64_t calls = mem_count(), live = mem_live();
    char *p = mem_alloc(100);
    assert_int_equal((uintptr_t)p % 64, 0);
    for (int i = 0; i < 100; i++) assert_int_equal(p[i], 0);
    memset(p, 5, 100);
    p = mem_grow(p, 100, 300);
    for (int i = 0; i < 300; i++) assert_int_equal(p[i], i < 100 ? 5 : 0);
    assert_int_equal(mem_count() - calls, 2);
    assert_true(mem_live() - live >= 300 && mem_peak() >= mem_live());
    mem_free(p);
    mem_free(NULL);
    assert_int_equal(mem_live(), live);
    char *s = mem_printf("%d-%s", 5, "x");
    assert_string_equal(s, "5-x");
    mem_free(s);

    struct arena a;
    arena_init(&a);
    char *first = arena_strdup(&a, "first");
    for (int i = 0; i < 500; i++) {
        size_t n = (size_t)(i * 37 % 9000);
        char *q = arena_alloc(&a, n);
        assert_int_equal((uintptr_t)q % 64, 0);
        for (size_t k = 0; k < n; k++) assert_int_equal(q[k], 0);
        memset(q, 0xff, n);
    }
    assert_string_equal(first, "first");
    assert_string_equal(arena_printf(&a, "%.2f", 1.5), "1.50");
    arena_done(&a);
    assert_int_equal(mem_live(), live);
}

static void growing_text(void **state)
{
    (void)state;
    struct text t = {0};
    assert_string_equal(text_str(&t), "");
    for (int i = 0; i < 1000; i++) text_addf(&t, "%d,", i);
    text_add(&t, "end");
    text_addn(&t, "xyz", 1);
    assert_int_equal(t.len, strlen(t.s));
    assert_int_equal(t.len, 10 * 2 + 90 * 3 + 900 * 4 + 4);
    assert_string_equal(t.s + t.len - 8, "999,endx");
    text_done(&t);
    assert_string_equal(text_str(&t), "");
}

static void numbers(void **state)
{
    (void)state;
    static const struct {
        double v;
        const char *text;
    } rows[] = {{1, "1"},
                {-0.0, "0"},
                {0.1, "0.1"},
                {1e15, "1e15"},
                {999999999999999.0, "999999999999999"},
                {-1e14, "-100000000000000"},
                {1e-5, "1e-5"},
                {-2.5e-7, "-2.5e-7"},
                {1e300, "1e300"},
                {0.00054, "0.00054"},
                {1.0 / 3, "0.3333333333333333"},
                {2.0 / 3, "0.6666666666666666"},
                {0.1 + 0.2, "0.30000000000000004"},
                {4.9406564584124654e-324, "5e-324"},
                {DBL_MAX, "1.7976931348623157e308"},
                {INFINITY, "inf"},
                {-INFINITY, "-inf"},
                {NAN, "nan"}};
    char buf[NUM_TEXT];
    double v;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) assert_string_equal(num_text(buf, rows[i].v), rows[i].text);
    uint64_t x = 88172645463325252u;
    for (int i = 0; i < 20000; i++) { /* any bit pattern of a finite double comes back */
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        double d;
        memcpy(&d, &x, 8);
        if (!isfinite(d)) continue;
        assert_true(num_parse(num_text(buf, d), &v));
        assert_memory_equal(&v, &d, 8);
    }
    static const char *const bad[] = {"",    " 1", "1 ", "1x",    "0x10", "infinity", "nan(1)",
                                      "--1", "e5", "1e", "1e999", ".",    "-"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (num_parse(bad[i], &v)) fail_msg("'%s' taken for a number", bad[i]);
    static const char *const good[] = {"1", "-1.5", "+2", ".5", "5.", "1e6", "1E-3", "inf", "-inf", "nan"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        if (!num_parse(good[i], &v)) fail_msg("'%s' not taken for a number", good[i]);
    int64_t n;
    assert_true(int_parse("1e6", &n) && n == 1000000);
    assert_true(int_parse("2.0", &n) && n == 2);
    assert_true(int_parse("-9007199254740993", &n) && n == -9007199254740993);
    assert_false(int_parse("2.5", &n) || int_parse("1e30", &n) || int_parse("", &n) || int_parse("nan", &n) ||
                 int_parse("inf", &n));
}

static void names(void **state)
{
    (void)state;
    static const char *const keys[] = {"net.width", "optim.lr", "loss.c", "mapping", "weight", "dropout"};
    assert_string_equal(nearest_name("mappping", keys, ARRAY_LEN(keys)), "mapping");
    assert_string_equal(nearest_name("wieght", keys, ARRAY_LEN(keys)), "weight");
    assert_string_equal(nearest_name("Dropout", keys, ARRAY_LEN(keys)), "dropout");
    assert_string_equal(nearest_name("lr", keys, ARRAY_LEN(keys)), "optim.lr");
    assert_string_equal(nearest_name("net.widht", keys, ARRAY_LEN(keys)), "net.width");
    assert_null(nearest_name("banana", keys, ARRAY_LEN(keys)));
    assert_null(nearest_name("x", keys, 0));
}

static void hashes(void **state)
{
    (void)state;
    char hex[SHA256_TEXT], again[SHA256_TEXT];
    sha256_text("", 0, hex);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    sha256_text("abc", 3, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sha256_text("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56, hex);
    assert_string_equal(hex, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    uint8_t bytes[300], digest[SHA256_BYTES];
    for (int i = 0; i < 300; i++) bytes[i] = (uint8_t)(i * 7);
    for (size_t n = 0; n <= 300; n++) /* any split gives the hash of the whole */
        for (size_t cut = 0; cut <= n; cut += 13) {
            struct sha256 s;
            sha256_init(&s);
            sha256_add(&s, bytes, cut);
            sha256_add(&s, bytes + cut, n - cut);
            sha256_end(&s, digest);
            sha256_hex(digest, again);
            sha256_text(bytes, n, hex);
            assert_string_equal(hex, again);
        }
    assert_int_equal(crc32_of(0, "123456789", 9), 0xcbf43926);
    assert_int_equal(crc32_of(crc32_of(0, "1234", 4), "56789", 5), 0xcbf43926);

    char dir[256], path[300];
    snprintf(path, sizeof path, "%s/f", test_dir(dir, sizeof dir));
    assert_ok(file_write_atomic(path, bytes, sizeof bytes));
    assert_ok(sha256_file(path, again));
    sha256_text(bytes, 300, hex);
    assert_string_equal(hex, again);
    assert_err(ERR_IO, sha256_file("/nonexistent/file", again));
}

static void embedded(void **state)
{
    (void)state;
    assert_null(embed_find("no/such/file.lua"));
    for (const struct embed *e = embed_files; e->name; e++) {
        char *data;
        size_t n;
        assert_ptr_equal(embed_find(e->name), e);
        assert_ok(file_read(e->name, 0, &data, &n)); /* tests run at the top of the source tree */
        assert_int_equal(n, e->size);
        assert_memory_equal(data, e->data, n);
        mem_free(data);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(errors),       cmocka_unit_test(errors_are_per_thread),
                                       cmocka_unit_test(logging),      cmocka_unit_test(memory),
                                       cmocka_unit_test(growing_text), cmocka_unit_test(numbers),
                                       cmocka_unit_test(names),        cmocka_unit_test(hashes),
                                       cmocka_unit_test(embedded)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
