/* image: PNG out (and grids of samples) through libpng; .npz out for numpy; zip data sets. */
#ifndef CORE_IO_IMAGE_H
#define CORE_IO_IMAGE_H

#include "core/base.h"

/* Encodes [h, w, c] uint8, c = 1 or 3, into memory (mem_free). */
err_t png_encode(const uint8_t *px, int h, int w, int c, void **png, size_t *n) MUST_USE;
/* One of many in a directory: not synced to disk, but whole or not there. */
err_t png_write(const char *path, const uint8_t *px, int h, int w, int c) MUST_USE;
/* Arranges n images [h, w, c] in rows of cols, each pixel scaled by zoom (nearest), gap pixels between;
 * mem_free(*out). */
void image_grid(const uint8_t *px, int n, int h, int w, int c, int cols, int zoom, int gap, uint8_t **out, int *gh,
                int *gw);
/* n points of the plane in [-half, half]^2, x to the right and y up, into a grey picture of size x size: white where none are, darker
 * with every point. Points outside (or NaN) are left out. */
void image_scatter(const double *x, int n, double half, int size, uint8_t *out);
/* Float64 samples in [-1, 1] to uint8 for viewing: round((x + 1) * 127.5), clipped (the published grid convention). */
void image_view_u8(const double *x, uint8_t *out, size_t count);
/* An uncompressed .npz as numpy reads it: arrays in C order. The same arrays give the same bytes. ERR_FAILED: above 4 GB. */
struct npz_array {
    const char *name, *descr; /* "mu", "<f8" (also "<f4", "<i8", "|u1") */
    int ndim;
    int64_t dims[4];
    const void *data;
    size_t bytes;
};
err_t npz_write(const char *path, const struct npz_array *arrays, int n) MUST_USE;
/* An uncompressed .npz with uint8 "images" [n, h, w, c] and, if labels, int64 "labels" [n]. */
err_t npz_write_images(const char *path, const uint8_t *px, const int32_t *labels, int n, int h, int w, int c) MUST_USE;
/* A data set as the EDM code reads it: a zip of PNGs 00000/img00000000.png ... and dataset.json with their labels, or null. */
err_t zip_write_images(const char *path, const uint8_t *px, const int32_t *labels, int n, int h, int w, int c) MUST_USE;

#endif
