/* dataset_store: imported data sets on disk: one file NAME.safetensors in the data directory, made once, opened by memory map:
 *
 *   labels    I32 [n]             where there are classes
 *   images    U8 [n, h, w, c]
 *   metadata  format "ect dataset 1", name, sha, std, classes; class_names (a JSON list), attribution, source, how, codec
 *
 * The data directory: $ECT_DATA, else $XDG_DATA_HOME/ect/data, else ~/.local/share/ect/data. Opening checks shapes, sizes and labels and
 * believes std and sha, which dataset_verify computes again. */
#ifndef CORE_IO_DATASET_STORE_H
#define CORE_IO_DATASET_STORE_H

#include "core/io/dataset.h"

char *dataset_dir(void);                             /* mem_free; may be absent */
char *dataset_path(const char *name);                /* mem_free */
err_t dataset_name_check(const char *name) MUST_USE; /* ERR_USAGE: not a name that a file can have */
err_t dataset_open_stored(struct dataset **d, const char *name) MUST_USE; /* ERR_NO_DATA: what to do */
err_t dataset_open_file(struct dataset **d, const char *path) MUST_USE;
const char *dataset_about(const struct dataset *d, const char *key); /* metadata of a stored data set, or NULL */
/* ERR_FORMAT if pixels and labels do not hash to the file's sha, or their spread is not its std. */
err_t dataset_verify(const struct dataset *d) MUST_USE;
/* Names of the stored data sets, sorted; free each and the list with mem_free. */
err_t dataset_list(char ***names, int *n) MUST_USE;

/* Writing. The file has its place on the disk before the first pixel, under another name; it appears, whole, with finish. */
struct dataset_writer;
/* shape: name, n, h, w, c, nclasses, class_names and attribution; what they point to must outlive the writer. Labels where nclasses > 0. */
err_t dataset_create(struct dataset_writer **w, const char *path, const struct dataset *shape) MUST_USE;
uint8_t *
dataset_writer_pixels(struct dataset_writer *w); /* [n, h, w, c], to be filled, by several threads if need be */
int32_t *dataset_writer_labels(struct dataset_writer *w); /* [n] or NULL */
/* Before finish: another text for the metadata; key and value are copied. */
void dataset_writer_about(struct dataset_writer *w, const char *key, const char *value);
/* Once all pixels and labels are there: std and sha into d. */
void dataset_writer_measure(struct dataset_writer *w, struct dataset *d);
/* Measures if that was not done, syncs, renames; frees w also on failure. */
err_t dataset_finish(struct dataset_writer *w) MUST_USE;
void dataset_abandon(struct dataset_writer *w); /* frees w and leaves nothing behind; NULL is fine */

#endif
