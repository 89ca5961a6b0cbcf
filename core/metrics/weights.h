/* weights: published weights of feature networks, found by name in the weights directory: $ECT_WEIGHTS, else $XDG_DATA_HOME/ect/weights,
 * else ~/.local/share/ect/weights. A file NAME.safetensors, .pth, .pt, .pkl or .npz (core/io/tensors.h) holds tensors under their published
 * names. Nothing in a file is believed before its shape was compared, and nothing in it is run. */
#ifndef CORE_METRICS_WEIGHTS_H
#define CORE_METRICS_WEIGHTS_H

#include "core/base.h"

struct weights;
/* NAME's file in the weights directory, mem_free. ERR_NO_DATA names the file and the command that gets it. */
err_t weights_find(const char *name, char **path) MUST_USE;
char *weights_dir(void); /* mem_free; the directory may be absent */
err_t weights_open(struct weights **w, const char *path) MUST_USE;
void weights_close(struct weights *w);
/* Hash of a weights file; remembered as long as the file's size, time and inode stay, because evaluators ask for it again and again. */
err_t weights_file_sha(const char *path, char sha[SHA256_TEXT]) MUST_USE;
const char *weights_sha(const struct weights *w); /* of the file */
const char *weights_path(const struct weights *w);
/* The shape of a tensor; its number of dimensions, or -1: no such tensor. */
int weights_dims(const struct weights *w, const char *name, int64_t dims[8]);
/* Its values as float, in the file's order; count must be right. ERR_FORMAT names file and tensor. */
err_t weights_get(const struct weights *w, const char *name, float *out, size_t count) MUST_USE;

#endif
