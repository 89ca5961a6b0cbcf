/* import_source: what the readers of single forms give to import.c. */
#ifndef CORE_IO_IMPORT_SOURCE_H
#define CORE_IO_IMPORT_SOURCE_H

#include "core/io/import.h"
#include "core/io/picture.h"

struct source {
    int n;
    int32_t *labels;      /* [n] or NULL; mem_free */
    int nclasses;         /* 0: of the labels */
    const char **names;   /* [nclasses] or NULL, in arena */
    const char *kind;     /* a few words */
    const char *known;    /* whose data these are, if the form says so, or NULL */
    const char *original; /* the name that only these data may have, or NULL */
    bool rest;            /* there is a test set that was left out */
    struct arena arena;
    void *ctx;
    /* Picture i; p is the caller's to free. Called by several threads. Messages name the file. */
    err_t (*get)(struct source *s, int i, struct picture *p);
    /* What to call picture i in a message. */
    void (*label)(struct source *s, int i, char *out, size_t size);
    void (*close)(struct source *s);
};
enum import_split { SPLIT_TRAIN, SPLIT_TEST, SPLIT_ALL };

/* Each: ERR_OK with s->n = 0 where path is no such thing. */
err_t source_cifar(struct source *s, const char *dir, enum import_split split) MUST_USE;
err_t source_idx(struct source *s, const char *path, bool directory, enum import_split split) MUST_USE;
err_t source_folder(struct source *s, const char *dir, enum import_split split) MUST_USE;
err_t source_zip(struct source *s, const char *path) MUST_USE;    /* of pictures */
err_t source_arrays(struct source *s, const char *path) MUST_USE; /* npz, npy */

/* dataset.json: labels of names. label[i] is set to that of name i of the n sorted names; all must have one. *found: false where the file
 * says there are none. what: for messages. */
err_t dataset_json_labels(const char *json, size_t len, const char *const *sorted, int n, int32_t *label, bool *found,
                          const char *what) MUST_USE;
/* Whole file, unpacked if it is gzip; mem_free. */
err_t gz_file_read(const char *path, char **data, size_t *n) MUST_USE;

#endif
