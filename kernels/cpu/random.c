/* random: normals from counters. The element decides its counter, so the split over threads cannot matter. */
#include "kernels/cpu/cpu.h"
#include "kernels/xd.h"

enum { LANES = 16 }; /* blocks of four normals made at a time, in arrays that the compiler keeps in vector registers */

INLINE void normal_row_body(float *out, int per, uint64_t seed, uint32_t sample, uint32_t step, uint32_t word3)
{
    for (int e = 0; e < per; e += 4 * LANES) {
        uint32_t w0[LANES], w1[LANES], w2[LANES], w3[LANES];
        float z0[LANES], z1[LANES], z2[LANES], z3[LANES];
        for (int l = 0; l < LANES; l++) {
            uint32_t a = (uint32_t)e / 4 + (uint32_t)l, b = sample, c = step, d = word3;
            philox4x32(&a, &b, &c, &d, (uint32_t)seed, (uint32_t)(seed >> 32));
            w0[l] = a, w1[l] = b, w2[l] = c, w3[l] = d;
        }
        for (int l = 0; l < LANES; l++) xd_normal2(w0[l], w1[l], &z0[l], &z1[l]);
        for (int l = 0; l < LANES; l++) xd_normal2(w2[l], w3[l], &z2[l], &z3[l]);
        int left = per - e < 4 * LANES ? per - e : 4 * LANES;
        if (left == 4 * LANES)
            for (int l = 0; l < LANES; l++) {
                float *o = out + e + 4 * l;
                o[0] = z0[l], o[1] = z1[l], o[2] = z2[l], o[3] = z3[l];
            }
        else
            for (int j = 0; j < left; j++) {
                const float *z = (j & 2) ? ((j & 1) ? z3 : z2) : ((j & 1) ? z1 : z0);
                out[e + j] = z[j / 4];
            }
    }
}
ISA_CLONES(normal_row, (float *out, int per, uint64_t seed, uint32_t sample, uint32_t step, uint32_t word3),
           (out, per, seed, sample, step, word3))

static void normal_rows(float *out, int n, int per, const struct kstream *s, const uint32_t *sample)
{
    uint32_t word3 = (uint32_t)s->purpose << 16 | s->layer;
#pragma omp parallel for schedule(static) if ((size_t)n * per > 4096)
    for (int i = 0; i < n; i++)
        normal_row(out + (size_t)i * per, per, s->seed, s->sample0 + (sample ? sample[i] : (uint32_t)i), s->step,
                   word3);
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
