/* safetensors; and what is read, written again, is the same. */
#include "core/io/safetensors.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct st_file *f;
    uint64_t live = mem_live();
    if (st_open_bytes(&f, data, n)) {
        if (mem_live() != live) abort();
        return 0;
    }
    fuzz_memory(live, n);
    size_t all = 0;
    for (int i = 0; i < st_count(f); i++) {
        const struct st_tensor *t = st_at(f, i);
        const char *p = t->data;
        if (p < (const char *)data || t->bytes > n || p + t->bytes > (const char *)data + n) abort();
        all += t->bytes;
        double *x = mem_array(t->count + 1, sizeof *x);
        float *y = mem_array(t->count + 1, sizeof *y);
        if (st_read_f64(t, x, t->count) || st_read_f32(t, y, t->count)) abort();
        mem_free(x);
        mem_free(y);
        if (st_find(f, t->name) == NULL) abort();
    }
    if (all > n) abort();
    (void)st_meta(f, "format");
    st_close(f);
    return 0;
}
