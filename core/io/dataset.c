/* Data sets in memory. The identity is a hash of what training sees (shape, pixels, labels), not of the file it came
 * in. */
#include "core/io/dataset.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <zlib.h>

#include "core/io/dataset_store.h"
#include "core/io/points.h"
#include "core/io/safetensors.h"

enum { POINTS_N = 10000, POINTS_SEED = 1 };
enum { DIGITS_N = 1797, CLASSES_MAX = 10000, CSV_MAX = 1 << 30 };
static const char digits_attribution[] = "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, "
                                         "UCI Machine Learning Repository, 1998, CC BY 4.0";

/* The whole file, unpacked where it is gzip. */
static err_t gz_read_all(const char *path, struct text *out)
{
    err_t err = ERR_OK;
    char buf[16384];
    errno = 0;
    gzFile f = gzopen(path, "rbe");
    if (!f)
        return fail(errno == ENOENT ? ERR_NO_DATA : ERR_IO, "open %s: %s", path,
                    errno ? strerror(errno) : "out of memory");
    for (;;) {
        int n = gzread(f, buf, sizeof buf), code;
        const char *why = gzerror(f, &code);
        if (code == Z_ERRNO) TRYD(fail(ERR_IO, "read %s: %s", path, strerror(errno)));
        if (n < 0 || code == Z_BUF_ERROR || code == Z_DATA_ERROR)
            TRYD(fail(ERR_FORMAT, "%s: %s", path, code == Z_BUF_ERROR ? "truncated: the gzip stream ends early" : why));
        if (n == 0) break;
        text_addn(out, buf, (size_t)n);
        if (out->len > CSV_MAX) TRYD(fail(ERR_FORMAT, "%s: larger than 1 GB", path));
    }
done:
    if (gzclose(f) != Z_OK && !err) err = fail(ERR_FORMAT, "%s: truncated: the gzip stream ends early", path);
    return err;
}

/* One line of count whole numbers into v; column numbers in messages start at 1. */
static err_t line_parse(const char *path, int line, const char *s, const char *end, int count, int max, int32_t *v)
{
    for (int i = 0; i < count; i++) {
        int top = i + 1 < count ? max : CLASSES_MAX - 1;
        if (s == end)
            return fail(ERR_FORMAT, "%s:%d: %d columns where %d are needed (pixels and a label)", path, line, i, count);
        const char *start = s;
        int64_t x = 0;
        while (s < end && *s >= '0' && *s <= '9' && s - start < 9) x = x * 10 + (*s++ - '0');
        const char *stop = s;
        while (stop < end && *stop != ',') stop++;
        if (s == start || s != stop)
            return fail(ERR_FORMAT, "%s:%d: column %d: '%.*s' is no whole number", path, line, i + 1,
                        (int)(stop - start < 20 ? stop - start : 20), start);
        if (x > top)
            return fail(ERR_FORMAT, "%s:%d: column %d: %lld is outside 0..%d", path, line, i + 1, (long long)x, top);
        v[i] = (int32_t)x;
        if (s < end) s++; /* the comma */
    }
    if (s != end || (count && end[-1] == ','))
        return fail(ERR_FORMAT, "%s:%d: more than %d columns", path, line, count);
    return ERR_OK;
}

static double value_at(const struct dataset *d, size_t i)
{
    return d->values ? (double)d->values[i] : d->pixels[i] / 127.5 - 1;
}

static void hash_u32(struct sha256 *s, uint32_t v)
{
    uint8_t b[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
    sha256_add(s, b, 4);
}

void dataset_measure(struct dataset *d)
{
    size_t per = (size_t)d->h * (size_t)d->w * (size_t)d->c, count = (size_t)d->n * per;
    double sum = 0, squares = 0;
    for (size_t i = 0; i < count; i++) sum += value_at(d, i);
    for (size_t i = 0; i < count; i++) {
        double x = value_at(d, i) - sum / (double)count;
        squares += x * x;
    }
    d->std = sqrt(squares / (double)count);
    char shape[128];
    uint8_t digest[SHA256_BYTES];
    struct sha256 s;
    sha256_init(&s);
    int len = snprintf(shape, sizeof shape, "%s n=%d h=%d w=%d c=%d classes=%d\n", d->values ? "f32" : "u8", d->n, d->h,
                       d->w, d->c, d->nclasses);
    sha256_add(&s, shape, (size_t)len);
    if (d->pixels) sha256_add(&s, d->pixels, count);
    for (size_t i = 0; d->values && i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &d->values[i], sizeof bits);
        hash_u32(&s, bits);
    }
    for (int i = 0; d->labels && i < d->n; i++) hash_u32(&s, (uint32_t)d->labels[i]);
    sha256_end(&s, digest);
    sha256_hex(digest, d->sha);
}

err_t dataset_read_csv(struct dataset **out, const char *name, const char *path, int h, int w, int max)
{
    err_t err = ERR_OK;
    struct text t = {0};
    struct dataset *d = mem_alloc(sizeof *d);
    int per = h * w, line = 0, rows = 0;
    int32_t *v = mem_array((size_t)per + 1, sizeof *v);
    *out = NULL;
    TRYD(gz_read_all(path, &t));
    for (const char *s = text_str(&t); *s; s++) rows += *s == '\n';
    rows++;
    d->pixels = mem_array((size_t)rows * (size_t)per, 1);
    d->labels = mem_array((size_t)rows, sizeof *d->labels);
    d->h = h, d->w = w, d->c = 1;
    snprintf(d->name, sizeof d->name, "%s", name);
    const char *s = text_str(&t), *all = s + t.len;
    while (s < all) {
        const char *nl = memchr(s, '\n', (size_t)(all - s)), *end = nl ? nl : all;
        const char *next = nl ? nl + 1 : all;
        if (end > s && end[-1] == '\r') end--;
        line++;
        if (end == s && next == all) break; /* an empty last line */
        TRYD(line_parse(path, line, s, end, per + 1, max, v));
        for (int i = 0; i < per; i++) /* round(v * 255 / max) */
            d->pixels[(size_t)d->n * (size_t)per + (size_t)i] = (uint8_t)((v[i] * 510 + max) / (2 * max));
        d->labels[d->n++] = v[per];
        if (v[per] >= d->nclasses) d->nclasses = v[per] + 1;
        s = next;
    }
    if (!d->n) TRYD(fail(ERR_FORMAT, "%s: no rows", path));
    dataset_measure(d);
done:
    mem_free(v);
    text_done(&t);
    if (err) dataset_free(d);
    else *out = d;
    return err;
}

/* The values are a function of name, count and seed; the hash is of the values all the same, so that a changed formula is seen. */
static struct dataset *dataset_of_points(const struct points_source *s)
{
    struct dataset *d = mem_alloc(sizeof *d);
    size_t count = (size_t)POINTS_N * POINTS_DIM;
    double *x = mem_array(count, sizeof *x);
    *d = (struct dataset){.n = POINTS_N, .h = 1, .w = 1, .c = POINTS_DIM, .attribution = "drawn from a formula by ect"};
    snprintf(d->name, sizeof d->name, "%s", s->name);
    d->values = mem_array(count, sizeof *d->values);
    points_draw(s, POINTS_SEED, POINTS_N, x);
    for (size_t i = 0; i < count; i++) d->values[i] = (float)x[i];
    mem_free(x);
    dataset_measure(d);
    return d;
}

err_t dataset_fresh(const struct dataset *d, uint64_t seed, int n, double *out)
{
    const struct points_source *s = points_find(d->name);
    if (!d->values || !s)
        return fail(ERR_USAGE, "data set %s is not drawn from a formula: it has no fresh points", d->name);
    points_draw(s, POINTS_SEED + 1 + seed, n, out);
    return ERR_OK;
}

err_t dataset_open(struct dataset **d, const char *name)
{
    char *path;
    *d = NULL;
    if (points_find(name)) {
        *d = dataset_of_points(points_find(name));
        return ERR_OK;
    }
    if (strcmp(name, "digits") != 0) return dataset_open_stored(d, name);
    err_t err = share_find("data/digits.csv.gz", &path);
    if (err) return fail_in(err, "data set digits");
    err = dataset_read_csv(d, name, path, 8, 8, 16);
    if (!err && (*d)->n != DIGITS_N) {
        err = fail(ERR_FORMAT, "%s:%d: the file ends after %d of %d images: fetch it again", path, (*d)->n, (*d)->n,
                   DIGITS_N);
        dataset_free(*d);
        *d = NULL;
    }
    if (!err) (*d)->attribution = digits_attribution;
    mem_free(path);
    return err;
}

bool dataset_built_in(const char *name)
{
    return !strcmp(name, "digits") || points_find(name);
}

struct dataset *dataset_shape_of(const char *name)
{
    static const struct dataset known[] = {
        {.name = "cifar10", .n = 50000, .h = 32, .w = 32, .c = 3, .nclasses = 10},
        {.name = "imagenet64", .n = 1281167, .h = 64, .w = 64, .c = 3, .nclasses = 1000}};
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (strcmp(name, known[i].name)) continue;
        struct dataset *d = mem_alloc(sizeof *d);
        *d = known[i];
        d->std = 0.5;
        return d;
    }
    return NULL;
}

void dataset_free(struct dataset *d)
{
    if (!d) return;
    if (!d->file) {
        mem_free(d->pixels);
        mem_free(d->values);
        mem_free(d->labels);
    }
    mem_free(d->class_names);
    st_close(d->file);
    mem_free(d);
}
