/* fuzz: one reader a target, fuzz_NAME.c. libFuzzer calls LLVMFuzzerTestOneInput with bytes of its own making; without clang, replay.c does with
 * the files it is given and a few mutations of each. A target reads everything that was accepted, so that a lie about a size is found. */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Memory that a reader takes has to follow the size of its file. */
static inline void fuzz_memory(uint64_t live_before, size_t n)
{
    if (mem_live() - live_before > 1024 * (uint64_t)n + (8 << 20)) abort();
}

#endif
