/* NumPy's .npy and .npz. The header of an array is a Python dict in one fixed spelling; this reads that spelling and nothing more.
 * Arrays of objects are pickles in disguise and are refused. */
#include <stdlib.h>
#include <string.h>

#include "core/io/tensors_file.h"

err_t npy_dtype(const char *s, size_t n, enum st_dtype *d)
{
    static const struct {
        const char *name;
        enum st_dtype dtype;
    } types[] = {{"f4", ST_F32}, {"f8", ST_F64}, {"f2", ST_F16}, {"i8", ST_I64},  {"i4", ST_I32},
                 {"i2", ST_I16}, {"i1", ST_I8},  {"u1", ST_U8},  {"b1", ST_BOOL}, {"?", ST_BOOL},
                 {"u2", ST_U16}, {"u4", ST_U32}, {"u8", ST_U64}};
    if (n && s[0] == '>') return fail(ERR_FORMAT, "big-endian values (%.*s)", (int)n, s);
    if (n && strchr("<|=", s[0])) s++, n--;
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        if (strlen(types[i].name) != n || memcmp(types[i].name, s, n)) continue;
        *d = types[i].dtype;
        return ERR_OK;
    }
    if (n && s[0] == 'O') return fail(ERR_FORMAT, "an array of Python objects");
    return fail(ERR_FORMAT, "values of type %.*s are not supported", (int)(n < 40 ? n : 40), s);
}

struct cursor {
    const char *s, *end;
};

static void blanks(struct cursor *c)
{
    while (c->s < c->end && (*c->s == ' ' || *c->s == '\n')) c->s++;
}

static bool eat(struct cursor *c, const char *word)
{
    size_t n = strlen(word);
    blanks(c);
    if ((size_t)(c->end - c->s) < n || memcmp(c->s, word, n)) return false;
    c->s += n;
    return true;
}

/* 'text' */
static bool eat_text(struct cursor *c, const char **s, size_t *n)
{
    blanks(c);
    if (c->s == c->end || (*c->s != '\'' && *c->s != '"')) return false;
    const char *close = memchr(c->s + 1, *c->s, (size_t)(c->end - c->s) - 1);
    if (!close) return false;
    *s = c->s + 1;
    *n = (size_t)(close - *s);
    c->s = close + 1;
    return true;
}

static bool eat_number(struct cursor *c, int64_t *v)
{
    blanks(c);
    if (c->s == c->end || *c->s < '0' || *c->s > '9') return false;
    for (*v = 0; c->s < c->end && *c->s >= '0' && *c->s <= '9'; c->s++)
        if (__builtin_mul_overflow(*v, 10, v) || __builtin_add_overflow(*v, *c->s - '0', v)) return false;
    eat(c, "L"); /* Python 2 */
    return true;
}

/* (3, 4), (3,) or () */
static bool eat_shape(struct cursor *c, struct tensor *t)
{
    if (!eat(c, "(")) return false;
    while (!eat(c, ")")) {
        if (t->ndim == 8 || !eat_number(c, &t->dims[t->ndim])) return false;
        t->ndim++;
        if (!eat(c, ",")) return eat(c, ")");
    }
    return true;
}

/* {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), } */
static err_t header_parse(struct cursor c, struct tensor *t, bool *fortran)
{
    int seen = 0;
    if (!eat(&c, "{")) return fail(ERR_FORMAT, "its header is no dict");
    while (!eat(&c, "}")) {
        const char *key = NULL, *descr = NULL;
        size_t n = 0, nd = 0;
        if (!eat_text(&c, &key, &n) || !eat(&c, ":")) return fail(ERR_FORMAT, "its header is no dict");
        if (n == 5 && !memcmp(key, "descr", 5)) {
            if (!eat_text(&c, &descr, &nd)) return fail(ERR_FORMAT, "its values are records, which are not supported");
            TRY(npy_dtype(descr, nd, &t->dtype));
            seen |= 1;
        } else if (n == 13 && !memcmp(key, "fortran_order", 13)) {
            *fortran = eat(&c, "True");
            if (!*fortran && !eat(&c, "False")) return fail(ERR_FORMAT, "its header is damaged");
            seen |= 2;
        } else if (n == 5 && !memcmp(key, "shape", 5)) {
            t->ndim = 0;
            if (!eat_shape(&c, t)) return fail(ERR_FORMAT, "a bad shape, or more than 8 dimensions");
            seen |= 4;
        } else return fail(ERR_FORMAT, "its header has an unknown key");
        eat(&c, ",");
    }
    blanks(&c);
    if (seen != 7 || c.s != c.end) return fail(ERR_FORMAT, "its header is damaged");
    return ERR_OK;
}

static err_t npy_parse(struct tensors *f, const char *name, const char *data, size_t n)
{
    struct tensor t = {.name = name};
    bool fortran = false;
    if (n < 10 || memcmp(data, "\x93NUMPY", 6)) return fail(ERR_FORMAT, "not a NumPy array");
    int version = data[6];
    size_t head = version == 1 ? 10 : 12, len = 0;
    if (version < 1 || version > 3 || n < head) return fail(ERR_FORMAT, "NumPy's format %d is not known", version);
    for (size_t i = head; i-- > 8;) len = len << 8 | (uint8_t)data[i];
    if (len > n - head) return fail(ERR_FORMAT, "a header of %zu bytes, %zu are left", len, n - head);
    TRY(header_parse((struct cursor){data + head, data + head + len}, &t, &fortran));
    int64_t stride = 1;
    for (int k = 0; k < t.ndim; k++) {
        int i = fortran ? k : t.ndim - 1 - k;
        t.strides[i] = stride;
        if (__builtin_mul_overflow(stride, t.dims[i] ? t.dims[i] : 1, &stride))
            return fail(ERR_FORMAT, "its shape overflows");
    }
    TRY(tensor_view_check(f, &t, 0, n - head - len));
    if (t.bytes != n - head - len)
        return fail(ERR_FORMAT, "its shape needs %zu bytes, %zu are there", t.bytes, n - head - len);
    t.data = data + head + len;
    return tensors_add(f, &t);
}

err_t npy_open(struct tensors *f)
{
    f->kind = "npy";
    return npy_parse(f, "arr_0", f->data, f->n);
}

err_t npz_open(struct tensors *f)
{
    f->kind = "npz";
    for (int i = 0; i < archive_count(f->zip); i++) {
        char *data = NULL, *name = mem_strdup(archive_name(f->zip, i));
        size_t n = 0, len = strlen(name);
        err_t err = archive_read(f->zip, i, &data, &n);
        if (!err) {
            tensors_own(f, data);
            if (len > 4) name[len - 4] = 0; /* ".npy" */
            err = npy_parse(f, name, data, n);
            if (err) err = fail_in(err, "%s", name);
        }
        mem_free(name);
        TRY(err);
    }
    return ERR_OK;
}
