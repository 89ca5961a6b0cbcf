/* Safetensors: every damaged file of the published set is refused as such, the good one is read, and what we write
 * comes back. */
#include "tests/test.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/io/safetensors.h"

static void bad_files(void **state)
{
    (void)state;
    DIR *d = opendir("tests/core/safetensors/bad");
    assert_non_null(d);
    int n = 0;
    for (struct dirent *e; (e = readdir(d));) {
        char path[600];
        if (!strstr(e->d_name, ".safetensors")) continue;
        snprintf(path, sizeof path, "tests/core/safetensors/bad/%s", e->d_name);
        struct st_file *f = (void *)1;
        err_t err = st_open(&f, path);
        if (err != ERR_FORMAT || f) fail_msg("%s: error %d: %s", path, err, err_text());
        assert_has(err_text(), e->d_name);
        n++;
    }
    closedir(d);
    assert_true(n >= 18);
}

/* An overlap and a hole of the same size: the sum of the sizes is right, the tiling is not. */
static void overlap_and_hole(void **state)
{
    (void)state;
    char dir[256], path[300];
    snprintf(path, sizeof path, "%s/x.safetensors", test_dir(dir, sizeof dir));
    static const char head[] = "{\"a\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]},"
                               "\"b\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[4,12]}}";
    struct text t = {0};
    char length[8] = {(char)(sizeof head - 1)};
    text_addn(&t, length, 8);
    text_addn(&t, head, sizeof head - 1);
    text_addn(&t, "0123456789abcdef", 16);
    assert_ok(file_write_atomic(path, t.s, t.len));
    struct st_file *f;
    assert_err(ERR_FORMAT, st_open(&f, path));
    assert_has(err_text(), "overlap");
    text_done(&t);
}

static void good_file(void **state)
{
    (void)state;
    struct st_file *f;
    assert_ok(st_open(&f, "tests/core/safetensors/state.ref.safetensors"));
    assert_true(st_count(f) > 10);
    assert_has(st_meta(f, "note"), "materialised");
    assert_null(st_meta(f, "no such key"));
    assert_null(st_find(f, "__metadata__"));
    assert_null(st_find(f, "no such tensor"));
    const struct st_tensor *t = st_find(f, "model/fc.weight");
    assert_non_null(t);
    assert_int_equal(t->dtype, ST_F32);
    assert_int_equal(t->ndim, 2);
    assert_int_equal(t->dims[0], 4);
    float x[20], y[24], z[15];
    assert_ok(st_read_f32(t, x, 20));
    assert_err(ERR_FORMAT, st_read_f32(t, x, 19));
    t = st_find(f, "fp16");
    assert_ok(st_read_f32(t, y, 24));
    t = st_find(f, "bf16");
    assert_ok(st_read_f32(t, z, 15));
    for (int i = 0; i < 24; i++) assert_true(isfinite(y[i]));
    st_close(f);
    assert_err(ERR_IO, st_open(&f, "tests/golden/none.safetensors"));
    assert_err(ERR_FORMAT, st_open(&f, "tests/golden"));
}

/* Every cut of a good file, and every flip of a header byte, is refused or read, never believed beyond its end. */
static void cuts_and_flips(void **state)
{
    (void)state;
    char dir[256], path[300], *data;
    size_t n;
    snprintf(path, sizeof path, "%s/x.safetensors", test_dir(dir, sizeof dir));
    assert_ok(file_read("tests/core/safetensors/state.ref.safetensors", 0, &data, &n));
    struct st_file *f;
    for (size_t cut = 0; cut < n; cut += 53) {
        FILE *o = fopen(path, "wb");
        fwrite(data, 1, cut, o);
        fclose(o);
        assert_err(ERR_FORMAT, st_open(&f, path));
    }
    for (size_t i = 0; i < 1500; i += 3) {
        data[i] ^= 0x11;
        FILE *o = fopen(path, "wb");
        fwrite(data, 1, n, o);
        fclose(o);
        data[i] ^= 0x11;
        err_t e = st_open(&f, path);
        if (e) {
            assert_int_equal(e, ERR_FORMAT);
            continue;
        }
        double sum = 0;
        for (int k = 0; k < st_count(f); k++) {
            const struct st_tensor *t = st_at(f, k);
            double *v = mem_array(t->count + 1, sizeof *v);
            assert_ok(st_read_f64(t, v, t->count));
            for (size_t j = 0; j < t->count; j++) sum += v[j];
            mem_free(v);
        }
        (void)sum;
        st_close(f);
    }
    mem_free(data);
}

static void round_trip(void **state)
{
    (void)state;
    char dir[256], a[300], b[300], sha_a[SHA256_TEXT], sha_b[SHA256_TEXT];
    test_dir(dir, sizeof dir);
    snprintf(a, sizeof a, "%s/a", dir);
    snprintf(b, sizeof b, "%s/b", dir);
    const float f32[6] = {1, -2.5f, 3e-40f, INFINITY, 0, -0.0f};
    const double f64[1] = {0.1};
    const int64_t i64[2] = {-5, INT64_C(1) << 40};
    const uint16_t half[6] = {0x3c00, 0xc000, 0x0001, 0x7bff, 0x7c00, 0x3555};
    const double half_is[6] = {1, -2, 0x1p-24, 65504, INFINITY, 0.333251953125};
    for (int k = 0; k < 2; k++) {
        struct st_writer *w = st_writer_new();
        st_writer_meta(w, k ? "z" : "a", k ? "1" : "quote \" and \\ and \n and \xc3\xa9");
        st_writer_meta(w, k ? "a" : "z", k ? "quote \" and \\ and \n and \xc3\xa9" : "1"); /* order does not matter */
        st_writer_add(w, "one", ST_F32, 2, (const int64_t[]){2, 3}, f32);
        st_writer_add(w, "scalar \"q\"", ST_F64, 0, NULL, f64);
        st_writer_add(w, "empty", ST_U8, 1, (const int64_t[]){0}, "");
        st_writer_add(w, "ints", ST_I64, 1, (const int64_t[]){2}, i64);
        st_writer_add(w, "half", ST_F16, 1, (const int64_t[]){6}, half);
        st_writer_add(w, "byte", ST_U8, 1, (const int64_t[]){1}, "\x07");
        st_writer_add(w, "odd", ST_F32, 1, (const int64_t[]){6}, f32); /* unaligned in the file */
        assert_ok(st_writer_save(w, k ? b : a));
        st_writer_free(w);
    }
    assert_ok(sha256_file(a, sha_a));
    assert_ok(sha256_file(b, sha_b));
    assert_string_equal(sha_a, sha_b);

    struct st_file *f;
    assert_ok(st_open(&f, a));
    assert_int_equal(st_count(f), 7);
    assert_string_equal(st_meta(f, "a"), "quote \" and \\ and \n and \xc3\xa9");
    assert_string_equal(st_at(f, 0)->name, "one");
    assert_string_equal(st_at(f, 6)->name, "odd");
    float x[6];
    double y[6];
    assert_ok(st_read_f32(st_find(f, "odd"), x, 6));
    assert_memory_equal(x, f32, sizeof f32);
    assert_ok(st_read_f64(st_find(f, "scalar \"q\""), y, 1));
    assert_true(y[0] == 0.1);
    assert_ok(st_read_f64(st_find(f, "ints"), y, 2));
    assert_true(y[0] == -5 && y[1] == 1099511627776.0);
    assert_ok(st_read_f64(st_find(f, "half"), y, 6));
    for (int i = 0; i < 6; i++) assert_true(y[i] == half_is[i]);
    assert_int_equal(st_find(f, "empty")->count, 0);
    assert_ok(st_read_f32(st_find(f, "empty"), x, 0));
    st_close(f);

    struct st_writer *w = st_writer_new();
    assert_ok(st_writer_save(w, a)); /* nothing at all is a file too */
    st_writer_free(w);
    assert_ok(st_open(&f, a));
    assert_int_equal(st_count(f), 0);
    st_close(f);
    w = st_writer_new();
    assert_err(ERR_IO, st_writer_save(w, "/nonexistent/dir/x"));
    st_writer_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bad_files), cmocka_unit_test(overlap_and_hole),
                                       cmocka_unit_test(good_file), cmocka_unit_test(cuts_and_flips),
                                       cmocka_unit_test(round_trip)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
