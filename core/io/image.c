/* Images out: PNG through libpng, grids, and numpy's .npz written by hand (a zip of stored .npy members). */
#include "core/io/image.h"

#include <errno.h>
#include <math.h>
#include <png.h>
#include <setjmp.h>
#include <string.h>
#include <unistd.h>

#include "core/io/archive.h"

static void png_append(png_structp png, png_bytep data, size_t n)
{
    text_addn(png_get_io_ptr(png), (const char *)data, n);
}

static void png_nothing(png_structp png)
{
    (void)png;
}

static void png_complain(png_structp png, png_const_charp msg)
{
    (void)!fail(ERR_FAILED, "png: %s", msg);
    png_longjmp(png, 1);
}

static void png_quiet(png_structp png, png_const_charp msg)
{
    (void)png;
    (void)msg;
}

/* Everything that lives across libpng's longjmp is made by the caller. */
static bool png_rows(png_structp png, png_infop info, const uint8_t *px, int h, int w, int c)
{
    if (setjmp(png_jmpbuf(png))) return false;
    png_set_IHDR(png, info, (png_uint_32)w, (png_uint_32)h, 8, c == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (int y = 0; y < h; y++) png_write_row(png, px + (size_t)y * (size_t)w * (size_t)c);
    png_write_end(png, info);
    return true;
}

err_t png_encode(const uint8_t *px, int h, int w, int c, void **out, size_t *n)
{
    struct text bytes = {0};
    if (h < 1 || w < 1 || (c != 1 && c != 3)) return fail(ERR_FAILED, "png: cannot write %d x %d x %d", h, w, c);
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, png_complain, png_quiet);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (!info) {
        png_destroy_write_struct(&png, NULL);
        return fail(ERR_FAILED, "png: the library is of another version than its header");
    }
    png_set_write_fn(png, &bytes, png_append, png_nothing);
    bool ok = png_rows(png, info, px, h, w, c);
    png_destroy_write_struct(&png, &info);
    if (!ok) {
        text_done(&bytes);
        return ERR_FAILED;
    }
    *out = bytes.s;
    *n = bytes.len;
    return ERR_OK;
}

err_t png_write(const char *path, const uint8_t *px, int h, int w, int c)
{
    void *png;
    size_t n;
    TRY(png_encode(px, h, w, c, &png, &n));
    FILE *f = fopen(path, "wb");
    err_t err = f ? ERR_OK : fail(ERR_IO, "open %s: %s", path, strerror(errno));
    bool whole = f && fwrite(png, 1, n, f) == n;
    if (f && (fclose(f) || !whole)) err = fail(ERR_IO, "write %s: %s", path, strerror(errno));
    if (f && err) unlink(path);
    mem_free(png);
    return err;
}

void image_grid(const uint8_t *px, int n, int h, int w, int c, int cols, int zoom, int gap, uint8_t **out, int *gh,
                int *gw)
{
    if (cols > n) cols = n;
    int rows = (n + cols - 1) / cols;
    *gh = rows * h * zoom + (rows - 1) * gap;
    *gw = cols * w * zoom + (cols - 1) * gap;
    size_t bytes = (size_t)*gh * (size_t)*gw * (size_t)c, stride = (size_t)*gw * (size_t)c;
    uint8_t *g = mem_alloc(bytes);
    memset(g, 255, bytes);
    for (int i = 0; i < n; i++) {
        int y0 = i / cols * (h * zoom + gap), x0 = i % cols * (w * zoom + gap);
        const uint8_t *im = px + (size_t)i * (size_t)h * (size_t)w * (size_t)c;
        for (int y = 0; y < h * zoom; y++)
            for (int x = 0; x < w * zoom; x++)
                memcpy(g + (size_t)(y0 + y) * stride + (size_t)(x0 + x) * (size_t)c,
                       im + ((size_t)(y / zoom) * (size_t)w + (size_t)(x / zoom)) * (size_t)c, (size_t)c);
    }
    *out = g;
}

void image_scatter(const double *x, int n, double half, int size, uint8_t *out)
{
    memset(out, 255, (size_t)size * (size_t)size);
    for (int i = 0; i < n; i++) {
        double u = floor((x[2 * i] / half + 1) / 2 * size), v = floor((1 - x[2 * i + 1] / half) / 2 * size);
        if (!(u >= 0 && u < size && v >= 0 && v < size)) continue;
        uint8_t *p = out + (size_t)v * (size_t)size + (size_t)u;
        *p = (uint8_t)(*p * 3 / 8);
    }
}

void image_view_u8(const double *x, uint8_t *out, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        double v = rint((x[i] + 1) * 127.5);               /* half to even, as numpy's rint */
        out[i] = v > 0 ? (uint8_t)(v < 255 ? v : 255) : 0; /* NaN becomes black */
    }
}

/* ---- npz --------------------------------------------------------------------------------------------------------- */

static void le(struct text *t, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++) {
        char b = (char)(v >> 8 * i);
        text_addn(t, &b, 1);
    }
}

struct member {
    const char *name;
    struct text head; /* the .npy header */
    const void *data;
    size_t n;
    uint32_t crc;
    size_t at; /* of its local header in the file */
};

/* numpy format 1.0: magic, header length, a Python dict padded with blanks so that data starts at a multiple of 64. */
static void npy_head(struct member *m, const char *descr, int ndim, const int64_t *dims)
{
    struct text dict = {0};
    text_addf(&dict, "{'descr': '%s', 'fortran_order': False, 'shape': (", descr);
    for (int i = 0; i < ndim; i++) text_addf(&dict, "%lld,%s", (long long)dims[i], i + 1 < ndim ? " " : "");
    text_add(&dict, "), }");
    while ((10 + dict.len + 1) % 64) text_add(&dict, " ");
    text_add(&dict, "\n");
    text_addn(&m->head, "\x93NUMPY\x01\x00", 8);
    le(&m->head, dict.len, 2);
    text_addn(&m->head, dict.s, dict.len);
    text_done(&dict);
    m->crc = crc32_of(crc32_of(0, m->head.s, m->head.len), m->data, m->n);
}

/* The fields that a zip member's local header and its entry in the directory share. */
static void zip_fields(struct text *t, const struct member *m)
{
    uint64_t size = m->head.len + m->n;
    le(t, 20, 2), le(t, 0, 2), le(t, 0, 2); /* version, flags, stored */
    le(t, 0, 2), le(t, 0x21, 2);            /* 1980-01-01: same images, same bytes */
    le(t, m->crc, 4), le(t, size, 4), le(t, size, 4);
    le(t, strlen(m->name) + strlen(".npy"), 2), le(t, 0, 2);
}

err_t npz_write(const char *path, const struct npz_array *arrays, int n)
{
    struct member *m = mem_array((size_t)n, sizeof *m);
    struct text *local = mem_array((size_t)n, sizeof *local), dir = {0};
    struct file_part *parts = mem_array(3 * (size_t)n + 1, sizeof *parts);
    int np = 0;
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        m[i] = (struct member){.name = arrays[i].name, .data = arrays[i].data, .n = arrays[i].bytes};
        npy_head(&m[i], arrays[i].descr, arrays[i].ndim, arrays[i].dims);
        m[i].at = at;
        text_add(&local[i], "PK\x03\x04");
        zip_fields(&local[i], &m[i]);
        text_addf(&local[i], "%s.npy", m[i].name);
        parts[np++] = (struct file_part){local[i].s, local[i].len};
        parts[np++] = (struct file_part){m[i].head.s, m[i].head.len};
        parts[np++] = (struct file_part){m[i].data, m[i].n};
        at += local[i].len + m[i].head.len + m[i].n;
    }
    for (int i = 0; i < n; i++) {
        text_add(&dir, "PK\x01\x02");
        le(&dir, 20, 2);
        zip_fields(&dir, &m[i]);
        le(&dir, 0, 2), le(&dir, 0, 2), le(&dir, 0, 2), le(&dir, 0, 4), le(&dir, m[i].at, 4);
        text_addf(&dir, "%s.npy", m[i].name);
    }
    size_t dirlen = dir.len;
    text_add(&dir, "PK\x05\x06");
    le(&dir, 0, 4), le(&dir, (uint64_t)n, 2), le(&dir, (uint64_t)n, 2);
    le(&dir, dirlen, 4), le(&dir, at, 4), le(&dir, 0, 2);
    parts[np++] = (struct file_part){dir.s, dir.len};
    err_t err = at < 0xfff00000u ? file_write_parts(path, parts, np)
                                 : fail(ERR_FAILED, "%s: more than 4 GB; write fewer to a file", path);
    for (int i = 0; i < n; i++) {
        text_done(&m[i].head);
        text_done(&local[i]);
    }
    text_done(&dir);
    mem_free(m);
    mem_free(local);
    mem_free(parts);
    return err;
}

err_t npz_write_images(const char *path, const uint8_t *px, const int32_t *labels, int n, int h, int w, int c)
{
    int64_t *wide = mem_array((size_t)n + 1, sizeof *wide);
    for (int i = 0; labels && i < n; i++) wide[i] = labels[i];
    struct npz_array a[2] = {
        {.name = "images",
         .descr = "|u1",
         .ndim = 4,
         .dims = {n, h, w, c},
         .data = px,
         .bytes = (size_t)n * (size_t)h * (size_t)w * (size_t)c},
        {.name = "labels", .descr = "<i8", .ndim = 1, .dims = {n}, .data = wide, .bytes = (size_t)n * 8}};
    err_t err = npz_write(path, a, labels ? 2 : 1);
    mem_free(wide);
    return err;
}

/* ---- zip data sets ------------------------------------------------------------------------------------------------- */

err_t zip_write_images(const char *path, const uint8_t *px, const int32_t *labels, int n, int h, int w, int c)
{
    struct archive_writer *zip;
    struct text json = {0};
    size_t per = (size_t)h * (size_t)w * (size_t)c;
    char name[48];
    err_t err = archive_create(&zip, path);
    if (err) return err;
    text_add(&json, labels ? "{\"labels\": [" : "{\"labels\": null");
    for (int i = 0; i < n; i++) {
        void *png;
        size_t size;
        snprintf(name, sizeof name, "%05d/img%08d.png", i / 1000, i);
        TRYD(png_encode(px + (size_t)i * per, h, w, c, &png, &size));
        err = archive_add(zip, name, png, size, true); /* a PNG is compressed already */
        mem_free(png);
        if (err) goto done;
        if (labels) text_addf(&json, "%s[\"%s\", %d]", i ? ", " : "", name, labels[i]);
    }
    text_add(&json, labels ? "]}" : "}");
    TRYD(archive_add(zip, "dataset.json", json.s, json.len, false));
    err = archive_finish(zip);
    zip = NULL;
done:
    archive_abandon(zip);
    text_done(&json);
    return err;
}
