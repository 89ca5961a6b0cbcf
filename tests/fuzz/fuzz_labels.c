/* dataset.json of a zip data set. */
#include "core/io/import_source.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const names[] = {"00000/img00000000.png", "00000/img00000001.png", "a.png", "b.png"};
    int32_t label[4];
    bool found;
    uint64_t live = mem_live();
    if (!dataset_json_labels((const char *)data, n, names, 4, label, &found, "fuzz") && found)
        for (int i = 0; i < 4; i++)
            if (label[i] < 0 || label[i] >= IMPORT_CLASSES) abort();
    if (mem_live() != live) abort();
    return 0;
}
