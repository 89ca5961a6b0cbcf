/* dataset: images as uint8 NHWC in memory, or points as floats, with labels, an identity hash and the measured standard deviation. */
#ifndef CORE_IO_DATASET_H
#define CORE_IO_DATASET_H

#include "core/base.h"

struct dataset {
    char name[64];
    char sha[SHA256_TEXT]; /* of shape, pixels or values, and labels */
    int n, h, w, c;
    int nclasses;    /* 0: no labels */
    uint8_t *pixels; /* [n, h, w, c]; NULL where there are values */
    float
        *values; /* [n, h, w, c] as the network sees them: what is no image (h = w = 1); NULL where there are pixels */
    int32_t *labels; /* [n] or NULL */
    double std;      /* of all values (pixels: x / 127.5 - 1) about their mean: the sigma_data of EDM */
    const char *attribution;
    const char **class_names; /* [nclasses] or NULL */
    struct st_file *file;     /* where pixels, labels and texts lie in a mapped file (dataset_store.h), else NULL */
};
/* By name: "digits" (UCI optical digits, 8x8x1, shipped); points in the plane drawn from a formula (core/io/points.h): "swissroll" and
 * others; what was imported (dataset_store.h). ERR_NO_DATA says how to get it; ERR_FORMAT names file and line. */
err_t dataset_open(struct dataset **d, const char *name) MUST_USE;
/* A published data set that is not on this machine, for costs and checks alone: shape and classes are right, std is EDM's nominal 0.5, and
 * there are neither pixels, labels nor sha. NULL for other names. */
struct dataset *dataset_shape_of(const char *name);
/* From a CSV (optionally gzipped) of h*w pixel columns 0..max and a label. */
err_t dataset_read_csv(struct dataset **d, const char *name, const char *path, int h, int w, int max) MUST_USE;
/* A fresh draw of n points, [n, h, w, c], of the distribution that a data set of points was drawn from; other seeds, other points, none of
 * them the data set's own. ERR_USAGE for a data set that is no such draw. */
err_t dataset_fresh(const struct dataset *d, uint64_t seed, int n, double *out) MUST_USE;
void dataset_free(struct dataset *d);
bool dataset_built_in(const char *name); /* digits, or points from a formula */
/* Fills std and sha from shape, pixels or values, and labels. */
void dataset_measure(struct dataset *d);

#endif
