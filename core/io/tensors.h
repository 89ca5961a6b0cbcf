/* tensors: one door to every file that holds named tensors. What a file is, its bytes say, not its name: safetensors; PyTorch's
 * zip files, TorchScript archives and the older format of torch.save; the network pickles and training states of EDM, EDM2 and ECT;
 * NumPy's .npz and .npy. Nothing in a file is ever run (pickle.h).
 *
 * Names are paths: dict keys and list indices joined with "/"; below a module the names of its state_dict, as PyTorch has them:
 * "ema/model.enc.8x8_conv.weight", "optimizer_state/state/0/exp_avg". A tensor that is a view (strided, shared, expanded) is given as
 * PyTorch would print it, in row-major order.
 *
 * Bounds: memory is at most a constant times the file's size; a view of more than 16 times the file's size is refused. Opening reads and
 * checks the whole file (CRCs where there are any), so a tensor that was listed can be read. Reading is safe from several threads. */
#ifndef CORE_IO_TENSORS_H
#define CORE_IO_TENSORS_H

#include "core/io/safetensors.h"

struct pv;
struct tensors;
struct tensor {
    const char *name;
    enum st_dtype dtype;
    int ndim;
    int64_t dims[8], strides[8]; /* strides in elements */
    size_t count, bytes;         /* bytes: of all values, packed */
    const char *data;            /* the first value; others by strides; may be unaligned */
};
/* ERR_IO: cannot be read. ERR_FORMAT: not a file of tensors, or a damaged or hostile one; names the file. */
err_t tensors_open(struct tensors **f, const char *path) MUST_USE;
/* The same from memory, which must outlive f. label: the name in messages. */
err_t tensors_open_bytes(struct tensors **f, const void *data, size_t n, const char *label) MUST_USE;
void tensors_close(struct tensors *f);
const char *tensors_kind(
    const struct tensors *f); /* "safetensors", "torch zip", "torch legacy", "torchscript", "pickle", "npz", "npy" */
int tensors_count(const struct tensors *f);
const struct tensor *tensors_at(const struct tensors *f, int i);              /* in file order */
const struct tensor *tensors_find(const struct tensors *f, const char *name); /* or NULL */
/* Row-major, packed. ERR_FORMAT if count is not the tensor's. */
err_t tensor_read_f32(const struct tensor *t, float *out, size_t count) MUST_USE;
err_t tensor_read_f64(const struct tensor *t, double *out, size_t count) MUST_USE;
void tensor_read_raw(const struct tensor *t, void *out); /* t->bytes, in its own dtype */

/* What else the file says, as JSON text (mem_free), or NULL if there is nothing at that path: "ema/_init_kwargs" of a network pickle,
 * "nested/lr" of any dict; safetensors: a key of its metadata, as a JSON string. "": all of it. */
char *tensors_json(const struct tensors *f, const char *path);
/* The class of the object at path ("EDMPrecond"), or NULL; mem_free. */
char *tensors_class(const struct tensors *f, const char *path);
/* The values of a pickle (pickle.h), or NULL for other formats. */
const struct pv *tensors_root(const struct tensors *f);

#endif
