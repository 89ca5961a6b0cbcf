/* import: pictures as users have them, into a stored data set (dataset_store.h). PATH may be
 *
 *   a directory with one directory a class, of PNG or JPEG files; or of pictures alone, without labels
 *   a zip of pictures, with labels from its dataset.json, as EDM and EDM2 make them
 *   the unpacked CIFAR-10 or CIFAR-100, python or binary version
 *   MNIST's IDX files, the images' or their directory, gzipped or not
 *   an .npz or .npy with uint8 images [n, h, w, c] (images or arr_0) and labels [n] (labels or arr_1)
 *
 * A directory with train and test inside, and CIFAR and MNIST, give their training images unless split says otherwise. Pictures are
 * decoded by several threads; a damaged one is named. Nothing is left behind by an import that failed. */
#ifndef CORE_IO_IMPORT_H
#define CORE_IO_IMPORT_H

#include "core/base.h"

enum { IMPORT_CLASSES = 10000 };
struct import_options {
    const char *
        name; /* NULL: from the path; with "-jpeg" behind it where that is what was read, with "-N" where the size changed */
    const char *split;       /* "train" (NULL), "test" or "all" */
    const char *attribution; /* NULL: what is known of the format */
    int size;                /* 0: as they are; else pictures become size x size by means of areas */
    bool crop;               /* the square in the middle first */
    bool box;                /* refuse where size does not divide the side */
    int channels;            /* 0: all as the first; 1 or 3: converted */
    int threads;             /* 0: twice the cores, so that some wait for the disk while others decode */
    bool replace;            /* a stored data set of that name with other contents */
    bool unlabelled;         /* leave labels out */
    void (*progress)(void *ctx, int done, int total);
    void *ctx;
};
struct import_result {
    char name[64];
    char *path; /* mem_free */
    int n, h, w, c, nclasses;
    double std;
    char sha[SHA256_TEXT];
    const char *kind;     /* what it was read from: "image folder" ... */
    bool jpeg, had, rest; /* any of it was JPEG; it was there already; a test set was left out */
};
err_t import_data(const char *path, const struct import_options *o, struct import_result *r) MUST_USE;

#endif
