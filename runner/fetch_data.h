/* fetch_data: a published data set, from its publisher or as an archive of its, to a directory that can be imported (core/io/import.h).
 * What was fetched is kept in the cache directory: $XDG_CACHE_HOME/ect, else ~/.cache/ect. */
#ifndef RUNNER_FETCH_DATA_H
#define RUNNER_FETCH_DATA_H

#include "runner/fetch.h"

struct unpacked {
    char *dir;  /* of our making; removed with _done */
    char *path; /* what to import */
};
err_t archive_unpack(struct unpacked *u, const char *archive) MUST_USE; /* a .tar.gz */
err_t fetch_data(struct unpacked *u, const struct fetch_row *row, const struct fetch_opts *o) MUST_USE;
void unpacked_done(struct unpacked *u);

#endif
