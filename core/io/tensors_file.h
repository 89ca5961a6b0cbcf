/* The inside of struct tensors, for the readers of single formats (torch.c, npy.c) and the door (tensors.c). */
#ifndef CORE_IO_TENSORS_FILE_H
#define CORE_IO_TENSORS_FILE_H

#include "core/io/archive.h"
#include "core/io/pickle.h"
#include "core/io/tensors.h"

struct storage {     /* the memory behind tensors */
    const char *key; /* within the file, in f->names */
    char *owned;     /* its bytes, or NULL where they lie in the file or are not read yet */
    const char *data;
    size_t need; /* bytes that the tensors over it may touch */
    struct storage *next;
};

struct tensors {
    const char *label;
    char *path; /* owned copy behind label, or NULL */
    const char *data;
    size_t n;
    bool mapped;
    const char *kind;
    struct arena names;
    struct st_file *st;
    struct archive *zip;
    struct pickle pickle;
    struct pv *root;
    struct storage *storages; /* newest first */
    struct tensor *list;
    int count, cap, *sorted;
    char **blocks; /* memory of npz members */
    int nblocks;
};

/* Checks a view and fills count and bytes. avail: bytes behind t->data's base; offset in elements. */
err_t tensor_view_check(const struct tensors *f, struct tensor *t, int64_t offset, size_t avail) MUST_USE;
err_t tensors_add(struct tensors *f, const struct tensor *t) MUST_USE; /* copies the name */
void tensors_own(struct tensors *f, char *block);                      /* freed with f */

err_t torch_open_zip(struct tensors *f, int data_pkl) MUST_USE; /* f->zip is open */
err_t torch_open_pickle(struct tensors *f) MUST_USE;            /* legacy, or a plain pickle */
err_t npz_open(struct tensors *f) MUST_USE;
err_t npy_open(struct tensors *f) MUST_USE;
/* numpy's one-line type names: "<f4", "|u1", "f8" ... */
err_t npy_dtype(const char *s, size_t n, enum st_dtype *d) MUST_USE;

#endif
