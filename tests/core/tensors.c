/* Files of tensors: the shapes they come in, cut and flipped anywhere, bombs and lies about sizes. */
#include "tests/test.h"

#include <unistd.h>

#include "core/io/archive.h"
#include "core/io/image.h"
#include "core/io/tensors.h"
#include "tests/fuzz/zip.h"

static char dir[256];

static int make_dir(void **state)
{
    (void)state;
    test_dir(dir, sizeof dir);
    return 0;
}

static char *in_dir(const char *name)
{
    static char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void slurp(const char *path, char **data, size_t *n)
{
    assert_ok(file_read(path, 0, data, n));
}

/* ---- kinds ----------------------------------------------------------------------------------------------------------- */

static void kinds(void **state)
{
    (void)state;
    static const struct {
        const char *path, *kind;
    } rows[] = {{"tests/golden/checkpoints/state-zip.pth", "torch zip"},
                {"tests/golden/checkpoints/state-legacy.pth", "torch legacy"},
                {"tests/golden/checkpoints/ect-network-snapshot.pkl", "pickle"},
                {"tests/golden/checkpoints/state.ref.safetensors", "safetensors"}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct tensors *f;
        assert_ok(tensors_open(&f, rows[i].path));
        assert_string_equal(tensors_kind(f), rows[i].kind);
        assert_true(tensors_count(f) > 10);
        assert_null(tensors_find(f, "no such tensor"));
        for (int k = 0; k < tensors_count(f); k++)
            assert_ptr_equal(tensors_find(f, tensors_at(f, k)->name), tensors_at(f, k));
        tensors_close(f);
    }
    struct tensors *f;
    assert_err(ERR_IO, tensors_open(&f, in_dir("absent")));
    assert_has(err_text(), "absent");
    assert_err(ERR_FORMAT, tensors_open(&f, dir));
    assert_has(err_text(), "not a regular file");
    assert_ok(file_write_atomic(in_dir("x"), "hello, world", 12));
    assert_err(ERR_FORMAT, tensors_open(&f, in_dir("x")));
    assert_has(err_text(), "no safetensors, PyTorch, pickle or NumPy file");
}

static void what_a_pickle_says(void **state)
{
    (void)state;
    struct tensors *f;
    assert_ok(tensors_open(&f, "tests/golden/checkpoints/ect-network-snapshot.pkl"));
    char *s = tensors_class(f, "ema");
    assert_string_equal(s, "ECMPrecond");
    mem_free(s);
    s = tensors_json(f, "ema/_init_kwargs/channel_mult");
    assert_string_equal(s, "[1, 1]");
    mem_free(s);
    assert_null(tensors_json(f, "ema/_init_kwargs/no_such"));
    assert_null(tensors_json(f, "ema/_init_kwargs/img_resolution/more"));
    assert_null(tensors_class(f, "dataset_kwargs"));
    tensors_close(f);
    assert_ok(tensors_open(&f, "tests/golden/checkpoints/state-zip.pth"));
    double x[9];
    float y[9];
    const struct tensor *t = tensors_find(f, "strided");
    assert_ok(tensor_read_f64(t, x, 9));
    assert_ok(tensor_read_f32(t, y, 9));
    for (int i = 0; i < 9; i++) assert_near(x[i], (double)y[i], 0);
    assert_err(ERR_FORMAT, tensor_read_f32(t, y, 8));
    assert_has(err_text(), "tensor strided: 9 values where 8");
    tensors_close(f);
}

/* ---- numpy ------------------------------------------------------------------------------------------------------------- */

static void npy(const char *head, const char *data, size_t n, struct text *out)
{
    text_done(out);
    text_addn(out, "\x93NUMPY\1\0", 8);
    size_t len = strlen(head);
    text_addn(out, (char[]){(char)len, (char)(len >> 8)}, 2);
    text_add(out, head);
    text_addn(out, data, n);
}

static void npy_says(const char *head, size_t n, const char *words)
{
    struct text t = {0};
    struct tensors *f;
    static const char zeros[256];
    npy(head, zeros, n, &t);
    assert_err(ERR_FORMAT, tensors_open_bytes(&f, t.s, t.len, "x.npy"));
    assert_has(err_text(), words);
    assert_has(err_text(), "x.npy");
    text_done(&t);
}

static void npy_arrays(void **state)
{
    (void)state;
    struct text t = {0};
    struct tensors *f;
    double x[6];
    npy("{'descr': '<i2', 'fortran_order': True, 'shape': (2, 3), }\n", "\1\0\4\0\2\0\5\0\3\0\6\0", 12, &t);
    assert_ok(tensors_open_bytes(&f, t.s, t.len, "x.npy"));
    assert_string_equal(tensors_kind(f), "npy");
    assert_ok(tensor_read_f64(tensors_find(f, "arr_0"), x, 6));
    for (int i = 0; i < 6; i++) assert_near(x[i], i + 1, 0); /* columns in the file, rows here */
    tensors_close(f);
    npy("{'descr': '<f8', 'fortran_order': False, 'shape': (), }", "\0\0\0\0\0\0\xf0\x3f", 8, &t);
    assert_ok(tensors_open_bytes(&f, t.s, t.len, "x.npy"));
    assert_ok(tensor_read_f64(tensors_at(f, 0), x, 1));
    assert_near(x[0], 1, 0);
    tensors_close(f);
    text_done(&t);
    npy_says("{'descr': '>f8', 'fortran_order': False, 'shape': (1,), }", 8, "big-endian");
    npy_says("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", 8, "Python objects");
    npy_says("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", 4, "records");
    npy_says("{'descr': '<U5', 'fortran_order': False, 'shape': (1,), }", 20, "type U5");
    npy_says("{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }", 8, "reaches element 1 of a storage of 1");
    npy_says("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }", 16, "needs 8 bytes, 16 are there");
    npy_says("{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296, 4294967296), }", 8,
             "overflows");
    npy_says("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999,), }", 8, "bad shape");
    npy_says("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }", 8, "bad shape");
    npy_says("{'descr': '<f8', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }", 8, "more than 8");
    npy_says("{'descr': '<f8', 'shape': (1,), }", 8, "damaged");
    npy_says("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), 'x': 1}", 8, "unknown key");
    npy_says("not a dict", 8, "no dict");
}

static void npz_images(void **state)
{
    (void)state;
    uint8_t px[2 * 3 * 2];
    int32_t labels[2] = {7, 3};
    struct tensors *f;
    double x[12];
    for (int i = 0; i < 12; i++) px[i] = (uint8_t)(20 * i);
    assert_ok(npz_write_images(in_dir("x.npz"), px, labels, 2, 3, 2, 1));
    assert_ok(tensors_open(&f, in_dir("x.npz")));
    assert_string_equal(tensors_kind(f), "npz");
    const struct tensor *t = tensors_find(f, "images");
    assert_int_equal(t->ndim, 4);
    assert_int_equal(t->dtype, ST_U8);
    assert_ok(tensor_read_f64(t, x, 12));
    for (int i = 0; i < 12; i++) assert_near(x[i], 20 * i, 0);
    assert_ok(tensor_read_f64(tensors_find(f, "labels"), x, 2));
    assert_near(x[0], 7, 0);
    assert_near(x[1], 3, 0);
    tensors_close(f);
}

/* ---- zip ---------------------------------------------------------------------------------------------------------------- */

static void archives(void **state)
{
    (void)state;
    struct archive_writer *w;
    struct archive *a;
    char *data, *entry;
    size_t n, size;
    assert_ok(archive_create(&w, in_dir("x.zip")));
    assert_ok(archive_add(w, "a/b.txt", "hello", 5, true));
    assert_ok(archive_add(w, "empty", "", 0, true));
    char *zeros = mem_alloc(300 << 20);
    assert_ok(archive_add(w, "small", zeros, 1 << 20, false));
    assert_ok(archive_add(w, "bomb", zeros, 300 << 20, false));
    mem_free(zeros);
    assert_ok(archive_finish(w));
    slurp(in_dir("x.zip"), &data, &n);
    assert_true(n < 1 << 20);
    assert_ok(archive_open(&a, data, n, "x.zip"));
    assert_int_equal(archive_count(a), 4);
    assert_int_equal(archive_find(a, "nothing"), -1);
    assert_ok(archive_read(a, archive_find(a, "a/b.txt"), &entry, &size));
    assert_int_equal(size, 5);
    assert_string_equal(entry, "hello");
    mem_free(entry);
    assert_ok(archive_read(a, archive_find(a, "empty"), &entry, &size));
    assert_int_equal(size, 0);
    mem_free(entry);
    assert_ok(archive_read(a, archive_find(a, "small"), &entry, &size));
    assert_int_equal(size, 1 << 20);
    mem_free(entry);
    uint64_t peak = mem_peak();
    assert_err(ERR_FORMAT, archive_read(a, archive_find(a, "bomb"), &entry, &size));
    assert_has(err_text(), "decompression bomb");
    assert_true(mem_peak() == peak);
    archive_close(a);
    mem_free(data);

    assert_ok(archive_create(&w, in_dir("y.zip")));
    assert_ok(archive_add(w, "a/b.txt", "hello", 5, true));
    archive_abandon(w);
    assert_false(file_exists(in_dir("y.zip")));
    assert_err(ERR_IO, archive_create(&w, in_dir("none/y.zip")) ? ERR_IO : archive_finish(w));
}

static void neither_kind_of_zip(void **state)
{
    (void)state;
    struct archive_writer *w;
    struct tensors *f;
    assert_ok(archive_create(&w, in_dir("z.zip")));
    assert_ok(archive_add(w, "readme.txt", "hello", 5, true));
    assert_ok(archive_finish(w));
    assert_err(ERR_FORMAT, tensors_open(&f, in_dir("z.zip")));
    assert_has(err_text(), "neither a PyTorch checkpoint nor NumPy arrays");
}

/* ---- PyTorch files made here: a pickle and its storages ------------------------------------------------------------------ */

/* _rebuild_tensor_v2(('storage', torch.FloatStorage, '0', 'cpu', 4), offset, size, stride, False, OrderedDict()) */
static void tensor_pickle(struct text *t, const char *offset, const char *size, const char *stride)
{
    text_done(t);
    text_add(t, "}X");
    text_addn(t, "\1\0\0\0", 4);
    text_add(t, "actorch._utils\n_rebuild_tensor_v2\n((U\7storagectorch\nFloatStorage\nU\1"
                "0U\3cpuK\4tQ");
    text_addf(t, "I%s\n(%st(%st", offset, size, stride);
    text_add(t, "\x89"
                "ccollections\nOrderedDict\n)RtRs.");
}

static err_t open_torch(const struct text *pkl, const char *storage, size_t n, struct tensors **f)
{
    static struct text zip; /* outlives f */
    struct zip_member m[] = {{"t/data.pkl", pkl->s, pkl->len}, {"t/data/0", storage, n}};
    text_done(&zip);
    zip_make(&zip, m, storage ? 2 : 1);
    return tensors_open_bytes(f, zip.s, zip.len, "t.pth");
}

static void views(void **state)
{
    (void)state;
    struct text t = {0};
    struct tensors *f;
    const float x[4] = {1, 2, 3, 4};
    float y[6];
    const char *bytes = (const char *)x;
    tensor_pickle(&t, "1", "I3\n", "I1\n");
    assert_ok(open_torch(&t, bytes, 16, &f));
    assert_ok(tensor_read_f32(tensors_find(f, "a"), y, 3));
    assert_near(y[0], 2, 0);
    assert_near(y[2], 4, 0);
    tensors_close(f);
    tensor_pickle(&t, "0", "I3\nI2\n", "I0\nI2\n"); /* a row of every second value, three times */
    assert_ok(open_torch(&t, bytes, 16, &f));
    assert_ok(tensor_read_f32(tensors_find(f, "a"), y, 6));
    assert_near(y[4], 1, 0);
    assert_near(y[5], 3, 0);
    tensors_close(f);
    static const struct {
        const char *offset, *size, *stride, *says;
    } bad[] = {{"2", "I3\n", "I1\n", "reaches element 4 of a storage of 4"},
               {"-1", "I3\n", "I1\n", "before its storage"},
               {"0", "I-3\n", "I1\n", "negative size"},
               {"0", "I3\n", "I-1\n", "negative stride"},
               {"0", "I3\n", "I1\nI1\n", "1 sizes and 2 strides"},
               {"0", "I4611686018427387904\nI4611686018427387904\n", "I0\nI0\n", "overflows"},
               {"0", "I100000000\n", "I0\n", "a tensor of 400000000 bytes in a file of"},
               {"4611686018427387904", "I3\n", "I4611686018427387904\n", "overflows"},
               {"0", "I1\nI1\nI1\nI1\nI1\nI1\nI1\nI1\nI1\n", "I1\n", "at most 8"}};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        tensor_pickle(&t, bad[i].offset, bad[i].size, bad[i].stride);
        assert_err(ERR_FORMAT, open_torch(&t, bytes, 16, &f));
        assert_has(err_text(), bad[i].says);
        assert_has(err_text(), "t.pth");
    }
    tensor_pickle(&t, "0", "I4\n", "I1\n");
    assert_err(ERR_FORMAT, open_torch(&t, bytes, 15, &f));
    assert_has(err_text(), "storage 0 has 15 bytes instead of 16");
    assert_err(ERR_FORMAT, open_torch(&t, NULL, 0, &f));
    assert_has(err_text(), "no storage 0");
    text_done(&t);
}

/* Buffers that a module does not save are no part of its state_dict. */
static void buffers_not_saved(void **state)
{
    (void)state;
#define ARRAY                                                                                                          \
    "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\1btR(I1\n(I1\ntcnumpy\ndtype\n("                  \
    "U\2u1I00\nI01\ntRI00\nU\1xtb"
    static const char net[] = "cm\nNet\n)\x81}(U\x0b_parameters}U\x08_buffers}(U\1a" ARRAY "U\1b" ARRAY
                              "uU\x1b_non_persistent_buffers_set\x8f(U\1b\x90U\x08_modules}ub.";
    struct tensors *f;
    double x;
    assert_ok(tensors_open_bytes(&f, net, sizeof net - 1, "net"));
    assert_int_equal(tensors_count(f), 1);
    assert_string_equal(tensors_at(f, 0)->name, "a");
    assert_ok(tensor_read_f64(tensors_at(f, 0), &x, 1));
    assert_near(x, 'x', 0);
    tensors_close(f);
}

/* A module that contains itself, twice the same module, and a maze of lists that would be listed 2^40 times. */
static void cycles_and_mazes(void **state)
{
    (void)state;
    struct tensors *f;
    static const char cycle[] = "cm\nNet\n)\x81q\1}(X\x0b\0\0\0_parameters}X\x08\0\0\0_modules}X\4\0\0\0selfh\1sub.";
    assert_ok(tensors_open_bytes(&f, cycle, sizeof cycle - 1, "cycle"));
    assert_int_equal(tensors_count(f), 0);
    tensors_close(f);
    static const char list[] = "]q\1h\1a.";
    assert_ok(tensors_open_bytes(&f, list, sizeof list - 1, "list"));
    tensors_close(f);
    struct text t = {0};
    text_add(&t, "]q");
    text_addn(&t, "\0", 1);
    for (int i = 1; i <= 40; i++) {
        char get[4] = {'h', (char)(i - 1), 0}, put[3] = {'q', (char)i, 0};
        text_add(&t, "](");
        text_addn(&t, get, 2);
        text_addn(&t, get, 2);
        text_add(&t, "e");
        text_addn(&t, put, 2);
    }
    text_add(&t, ".");
    assert_err(ERR_FORMAT, tensors_open_bytes(&f, t.s, t.len, "maze"));
    assert_has(err_text(), "has no end");
    text_done(&t);
    /* 4,000 objects that share one table of 4,000 attributes */
    text_add(&t, "](cm\nC\nq");
    text_addn(&t, "\1}q\2(", 5);
    for (int i = 0; i < 4000; i++) text_addf(&t, "I%d\nN", i);
    text_addn(&t, "u0h\1)\x81h\2b", 9);
    for (int i = 0; i < 4000; i++) text_addn(&t, "h\1)\x81h\2b", 7);
    text_add(&t, "e.");
    assert_err(ERR_FORMAT, tensors_open_bytes(&f, t.s, t.len, "shared"));
    assert_has(err_text(), "has no end");
    text_done(&t);
    for (int i = 0; i < 300; i++) text_add(&t, "]");
    for (int i = 0; i < 299; i++) text_add(&t, "a");
    text_add(&t, ".");
    assert_err(ERR_FORMAT, tensors_open_bytes(&f, t.s, t.len, "deep"));
    assert_has(err_text(), "more than 200 deep");
    text_done(&t);
}

/* ---- every cut, some flips ------------------------------------------------------------------------------------------------- */

static void cut_and_flip(const char *path)
{
    char *data, *copy;
    size_t n;
    slurp(path, &data, &n);
    copy = mem_alloc(n + 1);
    for (size_t cut = 0; cut < n; cut += 1 + n / 97) {
        struct tensors *f;
        memcpy(copy, data, cut);
        err_t err = tensors_open_bytes(&f, copy, cut, "cut");
        if (err != ERR_FORMAT) fail_msg("%s cut to %zu of %zu: error %d", path, cut, n, err);
        assert_has(err_text(), "cut: ");
    }
    uint32_t h = 12345;
    for (int i = 0; i < 300; i++) {
        struct tensors *f;
        memcpy(copy, data, n);
        h = h * 1664525 + 1013904223;
        copy[h % n] ^= (char)(1 << (h >> 28 & 7));
        err_t err = tensors_open_bytes(&f, copy, n, "flip");
        assert_true(err == ERR_OK || err == ERR_FORMAT);
        if (err) continue;
        for (int k = 0; k < tensors_count(f); k++) { /* what was accepted can be read */
            const struct tensor *t = tensors_at(f, k);
            char *raw = mem_alloc(t->bytes + 1);
            tensor_read_raw(t, raw);
            mem_free(raw);
        }
        tensors_close(f);
    }
    mem_free(copy);
    mem_free(data);
}

static void cuts_and_flips(void **state)
{
    (void)state;
    cut_and_flip("tests/golden/checkpoints/state-zip.pth");
    cut_and_flip("tests/golden/checkpoints/state-legacy.pth");
    cut_and_flip("tests/golden/checkpoints/edm2-network-snapshot-fp16.pkl");
    cut_and_flip("tests/golden/checkpoints/state.ref.safetensors");
    npz_images(NULL);
    char keep[400];
    snprintf(keep, sizeof keep, "%s/x.npz", dir);
    cut_and_flip(keep);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(kinds),          cmocka_unit_test(what_a_pickle_says),
                                       cmocka_unit_test(npy_arrays),     cmocka_unit_test(npz_images),
                                       cmocka_unit_test(archives),       cmocka_unit_test(neither_kind_of_zip),
                                       cmocka_unit_test(views),          cmocka_unit_test(cycles_and_mazes),
                                       cmocka_unit_test(cuts_and_flips), cmocka_unit_test(buffers_not_saved)};
    return cmocka_run_group_tests(tests, make_dir, NULL);
}
