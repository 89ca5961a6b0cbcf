/* Imports: every form gives the same pixels and labels; every way a picture or an archive can be wrong is named; nothing is left behind. */
#include "tests/test.h"

#include <dirent.h>
#include <jpeglib.h>
#include <signal.h>
#include <sys/resource.h>
#include <zlib.h>

#include "core/io/archive.h"
#include "core/io/dataset_store.h"
#include "core/io/image.h"
#include "core/io/import.h"
#include "core/io/import_source.h"

enum { N = 6, SIDE = 4 };
static char dir[256], data[300];
static uint8_t pixels[N][SIDE][SIDE][3];
static const int32_t classes[N] = {0, 0, 0, 1, 1, 2};
static const char *const names[3] = {"ant", "bee", "cat"};

static int set_up(void **state)
{
    (void)state;
    test_dir(dir, sizeof dir);
    snprintf(data, sizeof data, "%s/store", dir);
    setenv("ECT_DATA", data, 1);
    for (size_t i = 0; i < sizeof pixels; i++) ((uint8_t *)pixels)[i] = (uint8_t)(i * i * 37 + 11 * i);
    return 0;
}

static char *path_of(const char *fmt, ...)
{
    static char paths[8][600];
    static int turn;
    char *p = paths[turn++ % 8], name[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    snprintf(p, sizeof paths[0], "%s/%s", dir, name);
    return p;
}

static void put(const char *path, const void *bytes, size_t n)
{
    char *parent = mem_strdup(path);
    *strrchr(parent, '/') = 0;
    assert_ok(dir_make(parent));
    assert_ok(file_write_atomic(path, bytes, n));
    mem_free(parent);
}

static void put_png(const char *path, const void *px, int h, int w, int c)
{
    void *png;
    size_t n;
    assert_ok(png_encode(px, h, w, c, &png, &n));
    put(path, png, n);
    mem_free(png);
}

static void put_jpeg(const char *path, const uint8_t *px, int h, int w, int c)
{
    struct jpeg_compress_struct j;
    struct jpeg_error_mgr e;
    unsigned char *out = NULL;
    unsigned long n = 0;
    j.err = jpeg_std_error(&e);
    jpeg_create_compress(&j);
    jpeg_mem_dest(&j, &out, &n);
    j.image_width = (JDIMENSION)w, j.image_height = (JDIMENSION)h;
    j.input_components = c, j.in_color_space = c == 3 ? JCS_RGB : c == 1 ? JCS_GRAYSCALE : JCS_CMYK;
    jpeg_set_defaults(&j);
    jpeg_set_quality(&j, 95, TRUE);
    jpeg_start_compress(&j, TRUE);
    for (int y = 0; y < h; y++) {
        JSAMPROW row = (JSAMPROW)(uintptr_t)(px + y * w * c);
        jpeg_write_scanlines(&j, &row, 1);
    }
    jpeg_finish_compress(&j);
    jpeg_destroy_compress(&j);
    put(path, out, n);
    free(out);
}

static err_t take(const char *path, const struct import_options *o, struct import_result *r)
{
    err_t err = import_data(path, o, r);
    mem_free(r->path);
    return err;
}

static err_t take_as(const char *path, const char *name)
{
    struct import_result r;
    return take(path, &(struct import_options){.name = name, .replace = true}, &r);
}

/* The stored data set has the six pictures, in order. */
static void same(const char *name)
{
    struct dataset *d;
    assert_ok(dataset_open(&d, name));
    assert_int_equal(d->n, N);
    assert_int_equal(d->h, SIDE);
    assert_int_equal(d->w, SIDE);
    assert_int_equal(d->c, 3);
    assert_int_equal(d->nclasses, 3);
    assert_memory_equal(d->pixels, pixels, sizeof pixels);
    assert_memory_equal(d->labels, classes, sizeof classes);
    assert_ok(dataset_verify(d));
    dataset_free(d);
}

/* No half-written file. */
static int files_in_store(void)
{
    int n = 0;
    DIR *f = opendir(data);
    for (struct dirent *e; f && (e = readdir(f));) n += e->d_name[0] != '.';
    if (f) closedir(f);
    return n;
}

static void refused(const char *path, err_t code, const char *part, const char *other)
{
    struct import_result r;
    int before = files_in_store();
    assert_err(code, take(path, &(struct import_options){.name = "refused"}, &r));
    assert_has(err_text(), part);
    if (other) assert_has(err_text(), other);
    assert_int_equal(files_in_store(), before);
}

static void make_folder(const char *root)
{
    for (int i = 0; i < N; i++) put_png(path_of("%s/%s/%d.png", root, names[classes[i]], i), pixels[i], SIDE, SIDE, 3);
}

/* ---- forms ----------------------------------------------------------------------------------------------------------- */

static void folders(void **state)
{
    (void)state;
    struct import_result r;
    struct dataset *d;
    make_folder("f");
    put(path_of("f/README.txt"), "no picture", 10);
    put(path_of("f/extras/notes.txt"), "no class", 8);
    assert_ok(import_data(path_of("f"), &(struct import_options){.name = "six", .attribution = "nobody's"}, &r));
    assert_has(r.path, "/store/six.safetensors");
    mem_free(r.path);
    assert_int_equal(r.nclasses, 3);
    assert_false(r.jpeg);
    same("six");
    assert_ok(dataset_open(&d, "six"));
    for (int i = 0; i < 3; i++) assert_string_equal(d->class_names[i], names[i]);
    assert_string_equal(d->attribution, "nobody's");
    assert_string_equal(dataset_about(d, "codec"), "lossless");
    assert_string_equal(d->sha, r.sha);
    /* its identity is that of the same pixels from anywhere else */
    struct dataset mine = {
        .n = N, .h = SIDE, .w = SIDE, .c = 3, .nclasses = 3, .pixels = &pixels[0][0][0][0], .labels = d->labels};
    dataset_measure(&mine);
    assert_string_equal(mine.sha, d->sha);
    assert_true(mine.std == d->std);
    dataset_free(d);
    /* one thread or many, the same file */
    assert_ok(take(path_of("f"), &(struct import_options){.name = "six1", .threads = 1}, &r));
    same("six1");
    /* pictures alone: no labels */
    for (int i = 0; i < 3; i++) put_png(path_of("flat/%d.png", i), pixels[i], SIDE, SIDE, 3);
    assert_ok(take(path_of("flat"), &(struct import_options){0}, &r));
    assert_string_equal(r.name, "flat");
    assert_int_equal(r.nclasses, 0);
    assert_ok(take(path_of("f"), &(struct import_options){.name = "bare", .unlabelled = true}, &r));
    assert_int_equal(r.nclasses, 0);
    assert_string_not_equal(r.sha, mine.sha);
}

static void splits(void **state)
{
    (void)state;
    struct import_result r;
    make_folder("sp/train");
    put_png(path_of("sp/test/ant/0.png"), pixels[5], SIDE, SIDE, 3);
    put_png(path_of("sp/test/bee/0.png"), pixels[4], SIDE, SIDE, 3);
    put_png(path_of("sp/test/cat/0.png"), pixels[3], SIDE, SIDE, 3);
    assert_ok(take(path_of("sp"), &(struct import_options){.name = "sp"}, &r));
    assert_true(r.rest);
    same("sp");
    assert_ok(take(path_of("sp"), &(struct import_options){.name = "sp-all", .split = "all"}, &r));
    assert_int_equal(r.n, N + 3);
    assert_int_equal(r.nclasses, 3);
    assert_ok(take(path_of("sp"), &(struct import_options){.name = "sp-test", .split = "test"}, &r));
    assert_int_equal(r.n, 3);
    struct dataset *d;
    assert_ok(dataset_open(&d, "sp-test"));
    assert_memory_equal(d->pixels, pixels[5], sizeof pixels[5]);
    dataset_free(d);
    put_png(path_of("sp/test/dog/0.png"), pixels[3], SIDE, SIDE, 3);
    assert_err(ERR_FORMAT, take(path_of("sp"), &(struct import_options){.name = "x", .split = "all"}, &r));
    assert_has(err_text(), "classes that the training set has not");
    put_png(path_of("deep/a/b/0.png"), pixels[0], SIDE, SIDE, 3);
    refused(path_of("deep"), ERR_FORMAT, "deep/a holds directories", NULL);
    refused(path_of("nowhere"), ERR_NO_DATA, "nowhere", NULL);
    assert_err(ERR_USAGE, take(path_of("f"), &(struct import_options){.split = "half"}, &r));
}

static void pack(const char *name, const char *json, int pictures)
{
    struct archive_writer *w;
    assert_ok(archive_create(&w, path_of("%s", name)));
    for (int i = 0; i < pictures; i++) {
        char file[32];
        void *png;
        size_t n;
        snprintf(file, sizeof file, "%d.png", i);
        assert_ok(png_encode(&pixels[i][0][0][0], SIDE, SIDE, 3, &png, &n));
        assert_ok(archive_add(w, file, png, n, true));
        mem_free(png);
    }
    if (json) assert_ok(archive_add(w, "dataset.json", json, strlen(json), false));
    assert_ok(archive_finish(w));
}

static void zips(void **state)
{
    (void)state;
    struct import_result r;
    assert_ok(zip_write_images(path_of("z.zip"), &pixels[0][0][0][0], classes, N, SIDE, SIDE, 3));
    assert_ok(take_as(path_of("z.zip"), "z"));
    same("z");
    /* labels belong to names, in whatever order they are written */
    struct dataset *d;
    pack("turned.zip", "{\"labels\": [[\"2.png\", 1], [\"0.png\", 2], [\"1.png\", 0]]}", 3);
    assert_ok(take_as(path_of("turned.zip"), "turned"));
    assert_ok(dataset_open(&d, "turned"));
    assert_memory_equal(d->labels, ((int32_t[]){2, 0, 1}), 3 * sizeof(int32_t));
    dataset_free(d);
    assert_ok(zip_write_images(path_of("u.zip"), &pixels[0][0][0][0], NULL, N, SIDE, SIDE, 3));
    assert_ok(take(path_of("u.zip"), &(struct import_options){0}, &r));
    assert_string_equal(r.name, "u");
    assert_int_equal(r.nclasses, 0);
}

static void arrays(void **state)
{
    (void)state;
    struct import_result r;
    assert_ok(npz_write_images(path_of("a.npz"), &pixels[0][0][0][0], classes, N, SIDE, SIDE, 3));
    assert_ok(take_as(path_of("a.npz"), "a"));
    same("a");
    double mu[2] = {0};
    struct npz_array stats = {.name = "mu", .descr = "<f8", .ndim = 1, .dims = {2}, .data = mu, .bytes = sizeof mu};
    assert_ok(npz_write(path_of("stats.npz"), &stats, 1));
    refused(path_of("stats.npz"), ERR_FORMAT, "statistics of features", NULL);
    int64_t few[2] = {0, 1};
    struct npz_array two[2] = {
        {.name = "images",
         .descr = "|u1",
         .ndim = 4,
         .dims = {N, SIDE, SIDE, 3},
         .data = pixels,
         .bytes = sizeof pixels},
        {.name = "labels", .descr = "<i8", .ndim = 1, .dims = {2}, .data = few, .bytes = sizeof few}};
    assert_ok(npz_write(path_of("few.npz"), two, 2));
    refused(path_of("few.npz"), ERR_FORMAT, "labels is no list of 6", "few.npz");
    two[0].dims[1] = 3, two[0].dims[3] = 4;
    assert_ok(npz_write(path_of("chw.npz"), two, 1));
    refused(path_of("chw.npz"), ERR_FORMAT, "c = 4", NULL);
    /* IDX, gzipped, with labels beside it */
    uint8_t idx[16 + N * 16] = {0, 0, 8, 3, 0, 0, 0, N, 0, 0, 0, 4, 0, 0, 0, 4}, lab[8 + N] = {0, 0, 8, 1, 0, 0, 0, N};
    for (int i = 0; i < N * 16; i++) idx[16 + i] = (uint8_t)(i * 3);
    for (int i = 0; i < N; i++) lab[8 + i] = (uint8_t)classes[i];
    gzFile f = gzopen(path_of("idx/train-images-idx3-ubyte.gz"), "wb");
    if (!f) assert_ok(dir_make(path_of("idx")));
    if (!f) f = gzopen(path_of("idx/train-images-idx3-ubyte.gz"), "wb");
    gzwrite(f, idx, sizeof idx);
    gzclose(f);
    put(path_of("idx/train-labels-idx1-ubyte.gz"), lab, sizeof lab);
    assert_ok(take(path_of("idx"), &(struct import_options){.name = "idx"}, &r));
    assert_int_equal(r.n, N);
    assert_int_equal(r.c, 1);
    assert_int_equal(r.nclasses, 3);
    assert_ok(take(path_of("idx/train-images-idx3-ubyte.gz"), &(struct import_options){.name = "idx"}, &r));
    assert_true(r.had);
    put(path_of("cut/train-images-idx3-ubyte"), idx, sizeof idx - 1);
    refused(path_of("cut"), ERR_FORMAT, "cut short", "train-images-idx3-ubyte");
    lab[7] = 5;
    put(path_of("cut/train-images-idx3-ubyte"), idx, sizeof idx);
    put(path_of("cut/train-labels-idx1-ubyte"), lab, sizeof lab - 1);
    refused(path_of("cut"), ERR_FORMAT, "5 labels for 6", "train-labels-idx1-ubyte");
}

/* A batch of n pictures as Python 2's cPickle wrote it: {'data': uint8 [n, 3072], 'labels': [...]}. */
static void put_batch(const char *path, int n, int first, int nlabels)
{
    struct text t = {0};
    static const char head[] = "\x80\x02}q\x01(U\x04"
                               "dataq\x02"
                               "cnumpy.core.multiarray\n_reconstruct\nq\x03"
                               "cnumpy\nndarray\nq\x04K\x00\x85U\x01"
                               "b\x87Rq\x05(K\x01K";
    static const char dtype[] =
        "M\x00\x0c\x86"
        "cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T";
    text_addn(&t, head, sizeof head - 1);
    text_addn(&t, (char[]){(char)n}, 1);
    text_addn(&t, dtype, sizeof dtype - 1);
    uint32_t bytes = (uint32_t)n * 3072;
    text_addn(&t, (char[]){(char)bytes, (char)(bytes >> 8), (char)(bytes >> 16), 0}, 4);
    for (uint32_t i = 0; i < bytes; i++)
        text_addn(&t, (char[]){(char)((i / 3072 + (uint32_t)first) * 50 + i % 3072 / 1024 * 7 + i % 32)}, 1);
    text_add(&t, "tbU\x06labels](");
    for (int i = 0; i < nlabels; i++) text_addn(&t, (char[]){'K', (char)((first + i) % 10)}, 2);
    text_add(&t, "eu.");
    put(path, t.s, t.len);
    text_done(&t);
}

static void cifar(void **state)
{
    (void)state;
    struct import_result r, b;
    struct dataset *d;
    static char bin[5][2 * 3073];
    for (int i = 0; i < 5; i++) put_batch(path_of("cifar-10-batches-py/data_batch_%d", i + 1), 2, 2 * i, 2);
    put_batch(path_of("cifar-10-batches-py/test_batch"), 1, 77, 1);
    assert_ok(take(path_of("cifar-10-batches-py"), &(struct import_options){0}, &r));
    assert_string_equal(r.name, "cifar10");
    assert_true(r.rest);
    assert_int_equal(r.n, 10);
    assert_int_equal(r.nclasses, 10);
    assert_ok(dataset_open(&d, "cifar10"));
    assert_has(d->attribution, "Krizhevsky");
    for (int i = 0; i < 10; i++)
        for (int k = 0; k < 3072; k++)
            assert_int_equal(d->pixels[i * 3072 + k], (uint8_t)(i * 50 + k % 3 * 7 + k / 3 % 32));
    /* the binary version of the same */
    for (int i = 0; i < 10; i++) {
        char *row = bin[i / 2] + i % 2 * 3073;
        row[0] = (char)i;
        for (int k = 0; k < 3072; k++) row[1 + k] = (char)d->pixels[i * 3072 + k % 1024 * 3 + k / 1024];
    }
    dataset_free(d);
    for (int i = 0; i < 5; i++) put(path_of("bin/data_batch_%d.bin", i + 1), bin[i], sizeof bin[i]);
    put(path_of("bin/batches.meta.txt"), "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n", 21);
    assert_ok(take(path_of("bin"), &(struct import_options){.name = "bin"}, &b));
    assert_string_equal(b.sha, r.sha);
    assert_ok(dataset_open(&d, "bin"));
    assert_string_equal(d->class_names[9], "j");
    dataset_free(d);
    put(path_of("bin/data_batch_4.bin"), bin[3], sizeof bin[3] - 10);
    refused(path_of("bin"), ERR_FORMAT, "data_batch_4.bin", "cut short");
    put_batch(path_of("cifar-10-batches-py/data_batch_3"), 2, 4, 1);
    refused(path_of("cifar-10-batches-py"), ERR_FORMAT, "1 labels for 2 images", "data_batch_3");
    put(path_of("cifar-10-batches-py/data_batch_3"),
        "\x80\x02"
        "cos\nsystem\n(S'true'\ntR.",
        25);
    refused(path_of("cifar-10-batches-py"), ERR_FORMAT, "data_batch_3", "os.system");
}

/* ---- JPEG, sizes, channels -------------------------------------------------------------------------------------------- */

static void jpegs(void **state)
{
    (void)state;
    struct import_result r;
    uint8_t smooth[16][16][3];
    for (int i = 0; i < 768; i++) (&smooth[0][0][0])[i] = (uint8_t)(60 + i / 48 * 5 + i / 3 % 16 * 3);
    put_jpeg(path_of("j/a/0.jpg"), &smooth[0][0][0], 16, 16, 3);
    put_jpeg(path_of("j/b/0.JPEG"), &smooth[0][0][0], 16, 16, 3);
    assert_ok(take(path_of("j"), &(struct import_options){0}, &r));
    assert_string_equal(r.name, "j-jpeg"); /* another data set than its original */
    assert_true(r.jpeg);
    struct dataset *d;
    assert_ok(dataset_open(&d, "j-jpeg"));
    assert_string_equal(dataset_about(d, "codec"), "jpeg");
    for (int i = 0; i < 768; i++) assert_near(d->pixels[i], (&smooth[0][0][0])[i], 4);
    dataset_free(d);
    assert_err(ERR_USAGE, take(path_of("j"), &(struct import_options){.name = "cifar10"}, &r));
    assert_has(err_text(), "--name cifar10-jpeg");
    char *bytes;
    size_t n;
    assert_ok(file_read(path_of("j/a/0.jpg"), 0, &bytes, &n));
    for (size_t cut = 1; cut < n; cut += 1 + n / 40) {
        put(path_of("jcut/a/0.jpg"), bytes, cut);
        refused(path_of("jcut"), ERR_FORMAT, "jcut/a/0.jpg", NULL);
    }
    mem_free(bytes);
    static uint8_t four[8][8][4];
    put_jpeg(path_of("cmyk/a/0.jpg"), &four[0][0][0], 8, 8, 4);
    refused(path_of("cmyk"), ERR_FORMAT, "CMYK", "cmyk/a/0.jpg");
}

static void shrinking(void **state)
{
    (void)state;
    struct import_result r;
    struct dataset *d;
    uint8_t wide[4][8][1]; /* the square in the middle is columns 2..5 */
    for (int i = 0; i < 32; i++) (&wide[0][0][0])[i] = (uint8_t)(i / 8 * 40 + i % 8 * 9);
    put_png(path_of("w/0.png"), wide, 4, 8, 1);
    assert_err(ERR_USAGE, take(path_of("w"), &(struct import_options){.size = 2}, &r));
    assert_has(err_text(), "w/0.png: 8 x 4 pixels are no square: --crop");
    assert_ok(take(path_of("w"), &(struct import_options){.crop = true, .size = 2, .box = true}, &r));
    assert_string_equal(r.name, "w-2");
    assert_ok(dataset_open(&d, "w-2"));
    for (int y = 0; y < 2; y++)
        for (int x = 0; x < 2; x++) {
            int sum = wide[2 * y][2 + 2 * x][0] + wide[2 * y][3 + 2 * x][0] + wide[2 * y + 1][2 + 2 * x][0] +
                      wide[2 * y + 1][3 + 2 * x][0];
            assert_int_equal(d->pixels[2 * y + x], (sum + 2) / 4);
        }
    dataset_free(d);
    assert_err(ERR_USAGE, take(path_of("w"), &(struct import_options){.crop = true, .size = 3, .box = true}, &r));
    assert_has(err_text(), "4 is no multiple of 3");
    assert_err(ERR_USAGE, take(path_of("w"), &(struct import_options){.crop = true, .size = 5}, &r));
    assert_has(err_text(), "nothing is enlarged");
    assert_ok(take(path_of("w"), &(struct import_options){.crop = true, .size = 3}, &r));
    assert_ok(dataset_open(&d, "w-3"));
    /* the first pixel covers 4/3 x 4/3: weights 9, 3, 3, 1 of 16 */
    int first = 9 * wide[0][2][0] + 3 * wide[0][3][0] + 3 * wide[1][2][0] + wide[1][3][0];
    assert_int_equal(d->pixels[0], (first + 8) / 16);
    dataset_free(d);
    /* grey among colour */
    put_png(path_of("mix/a/0.png"), pixels[0], SIDE, SIDE, 3);
    put_png(path_of("mix/a/1.png"), pixels[1], SIDE, SIDE, 1);
    refused(path_of("mix"), ERR_FORMAT, "mix/a/1.png is grey, the first is in colour", "--channels");
    assert_ok(take(path_of("mix"), &(struct import_options){.channels = 3}, &r));
    assert_ok(dataset_open(&d, "mix"));
    for (int i = 0; i < SIDE * SIDE * 3; i++)
        assert_int_equal(d->pixels[SIDE * SIDE * 3 + i], (&pixels[1][0][0][0])[i / 3]);
    dataset_free(d);
    assert_ok(take(path_of("mix"), &(struct import_options){.channels = 1, .name = "grey"}, &r));
    assert_int_equal(r.c, 1);
    put_png(path_of("mixed/a/0.png"), pixels[0], SIDE, SIDE, 3);
    put_png(path_of("mixed/a/1.png"), pixels[1], SIDE, SIDE - 1, 3);
    refused(path_of("mixed"), ERR_FORMAT, "mixed/a/1.png has 3 x 4 pixels, the first 4 x 4", NULL);
}

/* ---- what is wrong ------------------------------------------------------------------------------------------------------ */

static void be32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* A PNG of which only the header's fields are set, with a right CRC. */
static size_t png_claiming(uint8_t *to, uint32_t w, uint32_t h, int depth, int type)
{
    static const uint8_t magic[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    memcpy(to, magic, 8);
    be32(to + 8, 13);
    memcpy(to + 12, "IHDR", 4);
    be32(to + 16, w), be32(to + 20, h);
    to[24] = (uint8_t)depth, to[25] = (uint8_t)type, to[26] = to[27] = to[28] = 0;
    be32(to + 29, crc32_of(0, to + 12, 17));
    static const uint8_t idat[12] = {0, 0, 0, 0, 'I', 'D', 'A', 'T', 0x35, 0xaf, 0x06, 0x1e};
    memcpy(to + 33, idat, 12);
    return 45;
}

static void bad_pictures(void **state)
{
    (void)state;
    char *bytes;
    size_t n;
    uint8_t lie[64];
    make_folder("bad");
    assert_ok(file_read(path_of("bad/bee/4.png"), 0, &bytes, &n));
    for (size_t cut = 0; cut < n; cut += 1 + n / 30) {
        put(path_of("bad/bee/4.png"), bytes, cut);
        refused(path_of("bad"), ERR_FORMAT, "bad/bee/4.png", NULL);
    }
    bytes[n - 20] ^= 1; /* in the pixels' checksum */
    put(path_of("bad/bee/4.png"), bytes, n);
    refused(path_of("bad"), ERR_FORMAT, "bad/bee/4.png", "damaged PNG");
    mem_free(bytes);
    put(path_of("bad/bee/4.png"), "GIF89a", 6);
    refused(path_of("bad"), ERR_FORMAT, "bad/bee/4.png: neither a PNG nor a JPEG", NULL);
    put(path_of("bad/bee/4.png"), lie, png_claiming(lie, SIDE, SIDE, 16, 2));
    refused(path_of("bad"), ERR_FORMAT, "16 bits a channel", "bad/bee/4.png");
    put(path_of("bad/bee/4.png"), lie, png_claiming(lie, SIDE, SIDE, 8, 6));
    refused(path_of("bad"), ERR_FORMAT, "transparent", "bad/bee/4.png");
    put(path_of("bad/bee/4.png"), lie, png_claiming(lie, 16384, 16384, 8, 2));
    refused(path_of("bad"), ERR_FORMAT, "16384 x 16384 pixels: at most", "bad/bee/4.png");
    put(path_of("bad/bee/4.png"), lie, png_claiming(lie, 60000, 4, 8, 2));
    refused(path_of("bad"), ERR_FORMAT, "bad/bee/4.png", NULL);
    uint64_t peak = mem_peak();
    assert_true(peak < 64 << 20); /* none of those sizes was believed */
    assert_ok(dir_make(path_of("empty")));
    refused(path_of("empty"), ERR_FORMAT, "no pictures", NULL);
    put(path_of("x.tar.xz"), "x", 1);
    refused(path_of("x.tar.xz"), ERR_USAGE, "unpack it first", NULL);
}

static void bad_zips(void **state)
{
    (void)state;
    static const struct {
        const char *json, *part;
    } rows[] = {
        {"{", "dataset.json: line 1"},
        {"[]", "no \"labels\""},
        {"{\"labels\": 3}", "is no list"},
        {"{\"labels\": [[\"0.png\", 1]]}", "no label for 1.png: it has 1 for 2"},
        {"{\"labels\": [[\"0.png\", 1], [\"1.png\", 0], [\"2.png\", 0]]}", "a label for 2.png, which is no picture"},
        {"{\"labels\": [[\"0.png\", 1], [\"1.png\", -1]]}", "1.png has label -1"},
        {"{\"labels\": [[\"0.png\", 1], [\"1.png\", 99999999]]}", "1.png has label 99999999"},
        {"{\"labels\": [[\"0.png\", 1], [\"1.png\", [0.5, 0.5]]]}", "no whole number"},
        {"{\"labels\": [[\"0.png\", 1], [\"0.png\", 0], [\"1.png\", 0]]}", "two labels for 0.png"},
        {"{\"labels\": [[\"0.png\"], [\"1.png\", 0]]}", "label 0 is not"},
        {"{\"labels\": null, \"labels\": null}", "duplicate"}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        pack("bad.zip", rows[i].json, 2);
        refused(path_of("bad.zip"), ERR_FORMAT, rows[i].part, "bad.zip");
    }
    struct text deep = {0};
    text_add(&deep, "{\"labels\": ");
    for (int i = 0; i < 100000; i++) text_add(&deep, "[");
    pack("bad.zip", deep.s, 2);
    text_done(&deep);
    refused(path_of("bad.zip"), ERR_FORMAT, "dataset.json", "bad.zip");
    pack("bad.zip", "{}", 0);
    refused(path_of("bad.zip"), ERR_FORMAT, "a zip without PNG or JPEG images", "bad.zip");
    /* zeros, a thousand times smaller when packed */
    struct archive_writer *w;
    size_t big = 80 << 20;
    char *zeros = mem_alloc(big);
    assert_ok(archive_create(&w, path_of("bomb.zip")));
    assert_ok(archive_add(w, "0.png", zeros, big, false));
    assert_ok(archive_finish(w));
    mem_free(zeros);
    refused(path_of("bomb.zip"), ERR_FORMAT, "bomb", "0.png");
    assert_ok(archive_create(&w, path_of("vae.zip")));
    assert_ok(archive_add(w, "0.npy", "x", 1, false));
    assert_ok(archive_add(w, "dataset.json", "{}", 2, false));
    assert_ok(archive_finish(w));
    refused(path_of("vae.zip"), ERR_FORMAT, "latents", NULL);
}

/* ---- the store --------------------------------------------------------------------------------------------------------------- */

static void store(void **state)
{
    (void)state;
    struct import_result r;
    struct dataset *d;
    char **list, *bytes, *path;
    int n;
    size_t len;
    make_folder("s");
    assert_ok(take(path_of("s"), &(struct import_options){.name = "kept"}, &r));
    assert_false(r.had);
    assert_ok(take(path_of("s"), &(struct import_options){.name = "kept"}, &r));
    assert_true(r.had);
    put_png(path_of("s/cat/5.png"), pixels[0], SIDE, SIDE, 3);
    assert_err(ERR_USAGE, take(path_of("s"), &(struct import_options){.name = "kept"}, &r));
    assert_has(err_text(), "other contents");
    same("kept");
    assert_ok(take(path_of("s"), &(struct import_options){.name = "kept", .replace = true}, &r));
    assert_ok(dataset_list(&list, &n));
    bool seen = false;
    for (int i = 0; i < n; i++) {
        seen |= !strcmp(list[i], "kept");
        if (i) assert_true(strcmp(list[i - 1], list[i]) < 0);
    }
    for (int i = 0; i < n; i++) mem_free(list[i]);
    mem_free(list);
    assert_true(seen);
    assert_err(ERR_NO_DATA, dataset_open(&d, "kep"));
    assert_has(err_text(), "did you mean kept?");
    assert_err(ERR_NO_DATA, dataset_open(&d, "../store/kept"));
    assert_err(ERR_USAGE, take(path_of("s"), &(struct import_options){.name = "a/b"}, &r));
    assert_err(ERR_USAGE, take(path_of("s"), &(struct import_options){.name = "digits"}, &r));
    assert_has(err_text(), "built in");

    /* a changed pixel is noticed by a check, a changed shape or label when it is opened */
    path = dataset_path("kept");
    assert_ok(file_read(path, 0, &bytes, &len));
    bytes[len - 1] ^= 1;
    put(path, bytes, len);
    assert_ok(dataset_open(&d, "kept"));
    assert_err(ERR_FORMAT, dataset_verify(d));
    assert_has(err_text(), "kept: its pixels and labels hash to");
    dataset_free(d);
    bytes[len - 1] ^= 1;
    bytes[len - sizeof pixels - 1] = 0x7f; /* the last label */
    put(path, bytes, len);
    assert_err(ERR_FORMAT, dataset_open(&d, "kept"));
    assert_has(err_text(), "image 5 has label");
    put(path, bytes, len - 1);
    assert_err(ERR_FORMAT, dataset_open(&d, "kept"));
    assert_has(err_text(), "kept.safetensors");
    mem_free(bytes);
    mem_free(path);
}

static void full_disk(void **state)
{
    (void)state;
    struct import_result r;
    struct rlimit old, low;
    make_folder("d");
    getrlimit(RLIMIT_FSIZE, &old);
    low = (struct rlimit){.rlim_cur = 1024, .rlim_max = old.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &low);
    int before = files_in_store();
    err_t err = take(path_of("d"), &(struct import_options){.name = "full"}, &r);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(err, ERR_IO);
    assert_has(err_text(), "reserve");
    assert_int_equal(files_in_store(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folders),   cmocka_unit_test(splits),       cmocka_unit_test(zips),
        cmocka_unit_test(arrays),    cmocka_unit_test(cifar),        cmocka_unit_test(jpegs),
        cmocka_unit_test(shrinking), cmocka_unit_test(bad_pictures), cmocka_unit_test(bad_zips),
        cmocka_unit_test(store),     cmocka_unit_test(full_disk)};
    return cmocka_run_group_tests(tests, set_up, NULL);
}
