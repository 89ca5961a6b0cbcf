/* Pickles: plain ones, network pickles, the older format of torch.save. */
#include "core/io/pickle.h"
#include "core/io/tensors.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct tensors *f;
    struct pickle p;
    struct pv *root;
    size_t used;
    uint64_t live = mem_live();
    pickle_init(&p, n); /* without hooks: any value may be the root */
    if (!pickle_read(&p, data, n, &root, &used)) {
        if (used > n) abort();
        mem_free(pv_json(root, 100000));
    }
    fuzz_memory(live, n);
    pickle_done(&p);
    if (tensors_open_bytes(&f, data, n, "fuzz")) return 0;
    fuzz_memory(live, n);
    for (int i = 0; i < tensors_count(f); i++) {
        const struct tensor *t = tensors_at(f, i);
        void *raw = mem_alloc(t->bytes + 1);
        tensor_read_raw(t, raw);
        mem_free(raw);
        mem_free(tensors_json(f, t->name));
        mem_free(tensors_class(f, t->name));
    }
    tensors_close(f);
    if (mem_live() != live) abort(); /* nothing is forgotten, also on failure */
    return 0;
}
