/* random: normals from counters. The element decides its counter, so the split over threads cannot matter. */
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/xd.h"

enum { BLOCKS = 16 }; /* of four normals, made at a time */

INLINE void from_bits_body(const uint32_t *restrict bits, float *restrict z)
{
    for (int l = 0; l < 2 * BLOCKS; l++) xd_normal2(bits[2 * l], bits[2 * l + 1], &z[2 * l], &z[2 * l + 1]);
}
ISA_CLONES(from_bits, (const uint32_t *bits, float *z), (bits, z))

static void normal_row(float *out, int per, const struct counter *c)
{
    uint32_t bits[4 * BLOCKS];
    float z[4 * BLOCKS];
    for (int e = 0; e < per; e += 4 * BLOCKS) {
        cpu_philox(bits, BLOCKS, c, (uint32_t)e / 4);
        if (per - e >= 4 * BLOCKS) from_bits(bits, out + e);
        else {
            from_bits(bits, z);
            memcpy(out + e, z, (size_t)(per - e) * sizeof *z);
        }
    }
}

static void normal_rows(float *out, int n, int per, const struct kstream *s, const uint32_t *sample)
{
#pragma omp parallel for schedule(static) if ((size_t)n * per > 4096)
    for (int i = 0; i < n; i++) {
        struct counter c = counter_of(s, sample ? sample[i] : (uint32_t)i);
        normal_row(out + (size_t)i * per, per, &c);
    }
}

void cpu_normal(struct kdev *d, float *out, int n, int per, const struct kstream *s)
{
    (void)d;
    normal_rows(out, n, per, s, NULL);
}

void cpu_normal_at(struct kdev *d, float *out, int n, int per, const struct kstream *s, const uint32_t *sample)
{
    (void)d;
    normal_rows(out, n, per, s, sample);
}
