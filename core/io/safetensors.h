/* safetensors: named tensors in one file. Header length (8 bytes LE), JSON header, raw little-endian data. Every
 * size is checked against the file before it is believed: overlaps, holes, duplicate keys, unknown dtypes, shape
 * overflow are ERR_FORMAT. */
#ifndef CORE_IO_SAFETENSORS_H
#define CORE_IO_SAFETENSORS_H

#include "core/base.h"

enum st_dtype {
    ST_F32,
    ST_F64,
    ST_F16,
    ST_BF16,
    ST_I64,
    ST_I32,
    ST_I16,
    ST_I8,
    ST_U8,
    ST_BOOL,
    ST_U16,
    ST_U32,
    ST_U64
};
size_t st_dtype_size(enum st_dtype d);
const char *st_dtype_name(enum st_dtype d);          /* "F32" ... */
double st_value(enum st_dtype d, const void *value); /* one value, which may be unaligned */
struct st_tensor {
    const char *name;
    enum st_dtype dtype;
    int ndim;
    int64_t dims[8];
    size_t count, bytes;
    const void *data; /* in the mapped file; may be unaligned */
};
struct st_file;
err_t st_open(struct st_file **f, const char *path) MUST_USE;
err_t st_open_bytes(struct st_file **f, const void *data, size_t n) MUST_USE; /* data must outlive f */
void st_close(struct st_file *f);
int st_count(const struct st_file *f);
const struct st_tensor *st_at(const struct st_file *f, int i);              /* in file order */
const struct st_tensor *st_find(const struct st_file *f, const char *name); /* or NULL */
const char *st_meta(const struct st_file *f, const char *key);              /* or NULL */
/* Converts to float or double; count values. ERR_FORMAT if the element count differs. */
err_t st_read_f32(const struct st_tensor *t, float *out, size_t count) MUST_USE;
err_t st_read_f64(const struct st_tensor *t, double *out, size_t count) MUST_USE;

/* Writing: deterministic bytes (tensors in the order added, metadata sorted), atomic. */
struct st_writer;
struct st_writer *st_writer_new(void);
void st_writer_meta(struct st_writer *w, const char *key, const char *value);
void st_writer_add(struct st_writer *w, const char *name, enum st_dtype dtype, int ndim, const int64_t *dims,
                   const void *data); /* copied */
err_t st_writer_save(struct st_writer *w, const char *path) MUST_USE;
void st_writer_free(struct st_writer *w);

#endif
