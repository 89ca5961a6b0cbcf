/* PNG and JPEG decoding, and what an import does to a picture. */
#include "core/io/picture.h"
#include "tests/fuzz/fuzz.h"

enum { PIXELS = 1 << 16 }; /* larger ones are as good, and slow */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct picture head, p;
    uint64_t live = mem_live();
    if (picture_peek(&head, data, n, "fuzz")) return 0;
    if (head.h < 1 || head.w < 1 || (head.c != 1 && head.c != 3) || head.h > PICTURE_SIDE || head.w > PICTURE_SIDE)
        abort();
    if ((int64_t)head.h * head.w > PIXELS) return 0;
    if (!picture_decode(&p, data, n, "fuzz")) {
        if (p.h != head.h || p.w != head.w || p.c != head.c || !p.px) abort();
        uint32_t sum = 0;
        for (size_t i = 0; i < (size_t)p.h * (size_t)p.w * (size_t)p.c; i++) sum += p.px[i];
        picture_channels(&p, sum % 2 ? 1 : 3);
        if (sum % 3) picture_crop(&p);
        int side = p.h < p.w ? p.h : p.w;
        picture_shrink(&p, side > 1 ? side - (int)(sum % (uint32_t)side) : 1);
        picture_done(&p);
    }
    if (mem_live() != live) abort();
    return 0;
}
