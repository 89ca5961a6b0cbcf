/* fetch: files that others publish, by name: a table of their addresses, and getting one of them with its hash checked.
 *
 * Where a publisher's hash is known it is in the table and binds. Where none is, the hash of the first file that came is recorded and binds
 * from then on: SHA256SUMS in the directory, in the form that `sha256sum -c` reads. */
#ifndef RUNNER_FETCH_H
#define RUNNER_FETCH_H

#include "core/base.h"

enum fetch_kind { FETCH_WEIGHTS, FETCH_DATA };
struct fetch_row {
    const char *name;
    enum fetch_kind kind;
    const char *file; /* its name here */
    const char *url;
    const char *sha256; /* NULL: not known; recorded on first use */
    uint64_t size;      /* bytes; 0: not known */
    const char *use, *licence;
    const char *also; /* a second row that is of no use without this one, or this one without it; or NULL */
};
extern const struct fetch_row fetch_rows[]; /* ends with name NULL */
/* edm-cifar10-32x32-uncond-vp is edm-cifar10-uncond-vp. NULL if unknown. */
const struct fetch_row *fetch_find(enum fetch_kind kind, const char *name);
/* ERR_USAGE: the nearest name, and what there is. */
err_t fetch_unknown(enum fetch_kind kind, const char *name) MUST_USE;

struct fetch_opts {
    const char *url; /* another address of the same file; NULL: the publisher's */
    int silence_s, tries;
    bool quiet;
};
struct fetch_got {
    char *path; /* mem_free */
    char sha256[SHA256_TEXT];
    bool here;     /* it was there already, and is right */
    bool recorded; /* no hash was known: this one is now */
};
/* Brings row's file into dir, unless it is there with the right hash. check, if not NULL, looks at the file before it is accepted under its
 * name. On failure the message says how to go on without a network. */
err_t fetch_get(const struct fetch_row *row, const char *dir, const struct fetch_opts *o,
                err_t (*check)(const struct fetch_row *row, const char *path), struct fetch_got *got) MUST_USE;

/* The record of hashes of dir. hash "" where there is none. */
err_t sums_find(const char *dir, const char *file, char sha256[SHA256_TEXT]) MUST_USE;
err_t sums_set(const char *dir, const char *file, const char *sha256) MUST_USE; /* NULL: forgotten */

#endif
