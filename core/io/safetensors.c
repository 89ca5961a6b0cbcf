/* Safetensors. Nothing in the header is believed until it agrees with the size of the file: sorted by offset, the
 * tensors must tile the data exactly, so an overlap, a hole or a tail cannot hide. */
#include "core/io/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct {
    const char *name;
    size_t size;
} dtypes[] = {[ST_F32] = {"F32", 4}, [ST_F64] = {"F64", 8},   [ST_F16] = {"F16", 2}, [ST_BF16] = {"BF16", 2},
              [ST_I64] = {"I64", 8}, [ST_I32] = {"I32", 4},   [ST_I16] = {"I16", 2}, [ST_I8] = {"I8", 1},
              [ST_U8] = {"U8", 1},   [ST_BOOL] = {"BOOL", 1}, [ST_U16] = {"U16", 2}, [ST_U32] = {"U32", 4},
              [ST_U64] = {"U64", 8}};

enum { HEADER_MAX = 100 << 20 }; /* as the reference implementation */

struct st_file {
    const char *map; /* the file's bytes */
    size_t size;
    bool mapped;    /* by us */
    json_t *header; /* owns names and metadata */
    json_t *meta;
    struct st_tensor *tensors;
    int n;
};

static uint64_t le64(const char *p)
{
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--) v = v << 8 | (uint8_t)p[i];
    return v;
}

/* One header entry. data, nbytes: the data section. */
static err_t tensor_parse(struct st_tensor *t, const char *name, json_t *v, const char *data, size_t nbytes)
{
    *t = (struct st_tensor){.name = name, .count = 1};
    json_t *dtype = json_object_get(v, "dtype"), *shape = json_object_get(v, "shape");
    json_t *offsets = json_object_get(v, "data_offsets");
    if (!json_is_string(dtype) || !json_is_array(shape) || !json_is_array(offsets) || json_object_size(v) != 3)
        return fail(ERR_FORMAT, "tensor %s: needs dtype, shape and data_offsets, nothing else", name);

    size_t d = 0;
    while (d < ARRAY_LEN(dtypes) && strcmp(dtypes[d].name, json_string_value(dtype)) != 0) d++;
    if (d == ARRAY_LEN(dtypes)) return fail(ERR_FORMAT, "tensor %s: unknown dtype %s", name, json_string_value(dtype));
    t->dtype = (enum st_dtype)d;

    if (json_array_size(shape) > ARRAY_LEN(t->dims)) return fail(ERR_FORMAT, "tensor %s: more than 8 dimensions", name);
    t->ndim = (int)json_array_size(shape);
    for (int i = 0; i < t->ndim; i++) {
        json_t *x = json_array_get(shape, (size_t)i);
        if (!json_is_integer(x) || json_integer_value(x) < 0)
            return fail(ERR_FORMAT, "tensor %s: bad dimension %d", name, i);
        t->dims[i] = json_integer_value(x);
        if (__builtin_mul_overflow(t->count, (size_t)t->dims[i], &t->count))
            return fail(ERR_FORMAT, "tensor %s: the shape overflows", name);
    }
    if (__builtin_mul_overflow(t->count, dtypes[d].size, &t->bytes))
        return fail(ERR_FORMAT, "tensor %s: the shape overflows", name);

    json_t *b = json_array_get(offsets, 0), *e = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(b) || !json_is_integer(e))
        return fail(ERR_FORMAT, "tensor %s: data_offsets must be two whole numbers", name);
    json_int_t from = json_integer_value(b), to = json_integer_value(e);
    if (from < 0 || to < from || (uint64_t)to > nbytes)
        return fail(ERR_FORMAT, "tensor %s: data_offsets [%lld, %lld] outside the %zu bytes of data", name,
                    (long long)from, (long long)to, nbytes);
    if ((uint64_t)(to - from) != t->bytes)
        return fail(ERR_FORMAT, "tensor %s: its shape needs %zu bytes, data_offsets give %lld", name, t->bytes,
                    (long long)(to - from));
    t->data = data + from;
    return ERR_OK;
}

static int by_offset(const void *pa, const void *pb)
{
    const struct st_tensor *a = pa, *b = pb;
    const char *da = a->data, *db = b->data;
    if (da != db) return da < db ? -1 : 1;
    if (a->bytes != b->bytes) return a->bytes < b->bytes ? -1 : 1;
    return strcmp(a->name, b->name);
}

static err_t header_parse(struct st_file *f)
{
    if (f->size < 8) return fail(ERR_FORMAT, "%zu bytes are too few for a safetensors file", f->size);
    uint64_t hlen = le64(f->map);
    if (hlen > f->size - 8 || hlen > HEADER_MAX)
        return fail(ERR_FORMAT, "header of %llu bytes in a file of %zu: truncated, or not safetensors",
                    (unsigned long long)hlen, f->size);
    json_error_t je;
    f->header = hlen && f->map[8] == '{' ? json_loadb(f->map + 8, hlen, JSON_REJECT_DUPLICATES, &je) : NULL;
    if (!f->header)
        return fail(ERR_FORMAT, "the header is no JSON object: %s", hlen && f->map[8] == '{' ? je.text : "no '{'");

    const char *data = f->map + 8 + hlen, *key;
    size_t nbytes = f->size - 8 - hlen;
    json_t *v;
    f->tensors = mem_array(json_object_size(f->header) + 1, sizeof *f->tensors);
    json_object_foreach(f->header, key, v)
    {
        if (strcmp(key, "__metadata__") != 0) {
            TRY(tensor_parse(&f->tensors[f->n], key, v, data, nbytes));
            f->n++;
            continue;
        }
        const char *mkey;
        json_t *mv;
        if (!json_is_object(v)) return fail(ERR_FORMAT, "__metadata__ is no object");
        json_object_foreach(v, mkey, mv)
        {
            if (!json_is_string(mv)) return fail(ERR_FORMAT, "__metadata__ %s is no string", mkey);
        }
        f->meta = v;
    }
    qsort(f->tensors, (size_t)f->n, sizeof *f->tensors, by_offset);
    const char *at = data;
    for (int i = 0; i < f->n; i++) {
        const struct st_tensor *t = &f->tensors[i];
        if ((const char *)t->data != at)
            return fail(ERR_FORMAT, "tensor %s: %s before it in the data", t->name,
                        (const char *)t->data < at ? "overlap" : "hole");
        at += t->bytes;
    }
    if (at != data + nbytes)
        return fail(ERR_FORMAT, "%zu bytes of data belong to no tensor", (size_t)(data + nbytes - at));
    return ERR_OK;
}

static err_t file_map(struct st_file *f, const char *path)
{
    err_t err = ERR_OK;
    struct stat s;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail(ERR_IO, "open %s: %s", path, strerror(errno));
    if (fstat(fd, &s)) TRYD(fail(ERR_IO, "stat %s: %s", path, strerror(errno)));
    if (!S_ISREG(s.st_mode)) TRYD(fail(ERR_FORMAT, "%s: not a regular file", path));
    if (s.st_size > 0) { /* an empty file cannot be mapped; header_parse refuses it */
        void *m = mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (m == MAP_FAILED) TRYD(fail(ERR_IO, "map %s: %s", path, strerror(errno)));
        f->map = m;
        f->size = (size_t)s.st_size;
        f->mapped = true;
    }
done:
    close(fd);
    return err;
}

err_t st_open(struct st_file **out, const char *path)
{
    struct st_file *f = mem_alloc(sizeof *f);
    *out = NULL;
    err_t err = file_map(f, path);
    if (!err) {
        err = header_parse(f);
        if (err) err = fail_in(err, "%s", path);
    }
    if (err) st_close(f);
    else *out = f;
    return err;
}

err_t st_open_bytes(struct st_file **out, const void *data, size_t n)
{
    struct st_file *f = mem_alloc(sizeof *f);
    f->map = data;
    f->size = n;
    err_t err = header_parse(f);
    *out = NULL;
    if (err) st_close(f);
    else *out = f;
    return err;
}

void st_close(struct st_file *f)
{
    if (!f) return;
    if (f->mapped) munmap((void *)(uintptr_t)f->map, f->size);
    json_decref(f->header);
    mem_free(f->tensors);
    mem_free(f);
}

int st_count(const struct st_file *f)
{
    return f->n;
}

const struct st_tensor *st_at(const struct st_file *f, int i)
{
    return &f->tensors[i];
}

const struct st_tensor *st_find(const struct st_file *f, const char *name)
{
    if (!strcmp(name, "__metadata__") || !json_object_get(f->header, name))
        return NULL; /* hashed; most misses end here */
    for (int i = 0; i < f->n; i++)
        if (!strcmp(f->tensors[i].name, name)) return &f->tensors[i];
    return NULL;
}

const char *st_meta(const struct st_file *f, const char *key)
{
    return f->meta ? json_string_value(json_object_get(f->meta, key)) : NULL;
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

static double half_value(uint16_t h)
{
    int e = h >> 10 & 31, m = h & 1023;
    double v = e == 0 ? m * 0x1p-24 : e == 31 ? (m ? (double)__builtin_nanf("") : (double)__builtin_inff()) : 0;
    if (e > 0 && e < 31) {
        uint64_t bits = (uint64_t)(e - 15 + 1023) << 52 | (uint64_t)m << 42;
        memcpy(&v, &bits, 8);
    }
    return h & 0x8000 ? -v : v;
}

size_t st_dtype_size(enum st_dtype d)
{
    return dtypes[d].size;
}

const char *st_dtype_name(enum st_dtype d)
{
    return dtypes[d].name;
}

double st_value(enum st_dtype d, const void *p)
{
#define AS(type, expr)                                                                                                 \
    {                                                                                                                  \
        type x;                                                                                                        \
        memcpy(&x, p, sizeof x);                                                                                       \
        return expr;                                                                                                   \
    }
    switch (d) {
    case ST_F32: AS(float, x)
    case ST_F64: AS(double, x)
    case ST_F16: AS(uint16_t, half_value(x))
    case ST_BF16: {
        uint16_t x;
        memcpy(&x, p, sizeof x);
        uint32_t bits = (uint32_t)x << 16;
        float y;
        memcpy(&y, &bits, 4);
        return y;
    }
    case ST_I64: AS(int64_t, (double)x)
    case ST_I32: AS(int32_t, x)
    case ST_I16: AS(int16_t, x)
    case ST_I8: AS(int8_t, x)
    case ST_U8:
    case ST_BOOL: AS(uint8_t, x)
    case ST_U16: AS(uint16_t, x)
    case ST_U32: AS(uint32_t, x)
    case ST_U64: AS(uint64_t, (double)x)
    }
#undef AS
    return 0;
}

static double value_at(const struct st_tensor *t, size_t i)
{
    return st_value(t->dtype, (const char *)t->data + i * dtypes[t->dtype].size);
}

static err_t count_check(const struct st_tensor *t, size_t count)
{
    if (t->count == count) return ERR_OK;
    return fail(ERR_FORMAT, "tensor %s: %zu values where %zu are needed", t->name, t->count, count);
}

err_t st_read_f32(const struct st_tensor *t, float *out, size_t count)
{
    TRY(count_check(t, count));
    if (t->dtype == ST_F32 && t->bytes) memcpy(out, t->data, t->bytes);
    else
        for (size_t i = 0; i < count; i++) out[i] = (float)value_at(t, i);
    return ERR_OK;
}

err_t st_read_f64(const struct st_tensor *t, double *out, size_t count)
{
    TRY(count_check(t, count));
    for (size_t i = 0; i < count; i++) out[i] = value_at(t, i);
    return ERR_OK;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

struct st_writer {
    struct text header, data; /* header: the tensors' entries, each with a comma in front */
    char **meta;              /* key, value, key, value ... */
    size_t nmeta;
};

static void add_string(struct text *t, const char *s)
{
    text_add(t, "\"");
    for (; *s; s++) {
        unsigned char ch = (unsigned char)*s;
        if (ch == '"' || ch == '\\') text_addf(t, "\\%c", ch);
        else if (ch < 32) text_addf(t, "\\u%04x", ch);
        else text_addn(t, s, 1);
    }
    text_add(t, "\"");
}

struct st_writer *st_writer_new(void)
{
    return mem_alloc(sizeof(struct st_writer));
}

void st_writer_meta(struct st_writer *w, const char *key, const char *value)
{
    w->meta = mem_grow(w->meta, w->nmeta * sizeof *w->meta, (w->nmeta + 2) * sizeof *w->meta);
    w->meta[w->nmeta++] = mem_strdup(key);
    w->meta[w->nmeta++] = mem_strdup(value);
}

void st_writer_add(struct st_writer *w, const char *name, enum st_dtype dtype, int ndim, const int64_t *dims,
                   const void *data)
{
    size_t bytes = dtypes[dtype].size, from = w->data.len;
    text_add(&w->header, ",");
    add_string(&w->header, name);
    text_addf(&w->header, ":{\"dtype\":\"%s\",\"shape\":[", dtypes[dtype].name);
    for (int i = 0; i < ndim; i++) {
        bytes *= (size_t)dims[i];
        text_addf(&w->header, "%s%lld", i ? "," : "", (long long)dims[i]);
    }
    text_addf(&w->header, "],\"data_offsets\":[%zu,%zu]}", from, from + bytes);
    text_addn(&w->data, data, bytes);
}

static int by_key(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

err_t st_writer_save(struct st_writer *w, const char *path)
{
    struct text head = {0};
    char length[8];
    if (w->nmeta) qsort(w->meta, w->nmeta / 2, 2 * sizeof *w->meta, by_key);
    text_add(&head, "{");
    if (w->nmeta) text_add(&head, "\"__metadata__\":{");
    for (size_t i = 0; i < w->nmeta; i += 2) {
        if (i) text_add(&head, ",");
        add_string(&head, w->meta[i]);
        text_add(&head, ":");
        add_string(&head, w->meta[i + 1]);
    }
    if (w->nmeta) text_add(&head, "}");
    if (w->header.len) text_add(&head, w->header.s + !w->nmeta); /* without metadata the first comma goes */
    text_add(&head, "}");
    while (head.len % 8) text_add(&head, " "); /* data begins aligned, as the reference writer has it */
    for (int i = 0; i < 8; i++) length[i] = (char)((uint64_t)head.len >> 8 * i);
    struct file_part parts[] = {{length, 8}, {head.s, head.len}, {w->data.s, w->data.len}};
    err_t err = file_write_parts(path, parts, 3);
    text_done(&head);
    return err;
}

void st_writer_free(struct st_writer *w)
{
    if (!w) return;
    for (size_t i = 0; i < w->nmeta; i++) mem_free(w->meta[i]);
    mem_free(w->meta);
    text_done(&w->header);
    text_done(&w->data);
    mem_free(w);
}
