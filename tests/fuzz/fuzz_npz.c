/* .npy as it is, and as a member of an .npz. */
#include "core/io/tensors.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/zip.h"

static void read_all(const void *data, size_t n)
{
    struct tensors *f;
    uint64_t live = mem_live();
    if (tensors_open_bytes(&f, data, n, "fuzz")) {
        if (mem_live() != live) abort();
        return;
    }
    fuzz_memory(live, n);
    for (int i = 0; i < tensors_count(f); i++) {
        const struct tensor *t = tensors_at(f, i);
        float *x = mem_array(t->count + 1, sizeof *x);
        if (tensor_read_f32(t, x, t->count)) abort();
        mem_free(x);
    }
    tensors_close(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct text zip = {0};
    struct zip_member m[] = {{"arr_0.npy", data, n}};
    read_all(data, n);
    zip_make(&zip, m, 1);
    read_all(zip.s, zip.len);
    text_done(&zip);
    return 0;
}
