/* archive: zip files through libzip. Reading: every size is checked against the file's before memory is taken, CRCs are checked,
 * encrypted and doubled entries are refused. Writing: deterministic bytes (fixed times), written beside the target and renamed. */
#ifndef CORE_IO_ARCHIVE_H
#define CORE_IO_ARCHIVE_H

#include "core/base.h"

struct archive;
/* From memory that outlives the archive. label: for messages. */
err_t archive_open(struct archive **a, const void *data, size_t n, const char *label) MUST_USE;
void archive_close(struct archive *a);
int archive_count(const struct archive *a);
const char *archive_name(const struct archive *a, int i);    /* valid as long as the archive */
size_t archive_size(const struct archive *a, int i);         /* uncompressed */
int archive_find(const struct archive *a, const char *name); /* -1 if absent */
/* Reads entry i into fresh memory of archive_size bytes (one NUL behind); mem_free. All entries read through one archive may take 16
 * times its size and 64 MiB together: more is refused as a decompression bomb. Not for two threads at once. */
err_t archive_read(struct archive *a, int i, char **out, size_t *n) MUST_USE;

struct archive_writer;
err_t archive_create(struct archive_writer **w, const char *path) MUST_USE;
/* Copies data. stored: without compression, as numpy and PyTorch write; else deflate. */
err_t archive_add(struct archive_writer *w, const char *name, const void *data, size_t n, bool stored) MUST_USE;
err_t archive_finish(struct archive_writer *w) MUST_USE; /* writes the file; frees w also on failure */
void archive_abandon(struct archive_writer *w);          /* frees w, writes nothing */

#endif
