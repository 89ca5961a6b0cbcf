/* PyTorch's zip files: the input is the pickle; two storages stand beside it. Also the input as it is, as a zip. */
#include "core/io/archive.h"
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
        double *x = mem_array(t->count + 1, sizeof *x);
        if (tensor_read_f64(t, x, t->count)) abort();
        mem_free(x);
    }
    tensors_close(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char storage[400] = "0123456789";
    struct zip_member m[] = {{"t/data.pkl", data, n}, {"t/data/0", storage, 80}, {"t/data/1", storage, sizeof storage}};
    struct text zip = {0};
    struct archive *a;
    zip_make(&zip, m, 3);
    read_all(zip.s, zip.len);
    text_done(&zip);
    read_all(data, n);
    if (!archive_open(&a, data, n, "fuzz")) {
        for (int i = 0; i < archive_count(a) && i < 50; i++) {
            char *entry;
            size_t size;
            if (archive_find(a, archive_name(a, i)) != i) abort();
            if (!archive_read(a, i, &entry, &size)) mem_free(entry);
        }
        archive_close(a);
    }
    return 0;
}
