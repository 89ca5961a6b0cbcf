/* philox: random words by the run, in the order of elements. The AVX2 form keeps every 32-bit word in a 64-bit lane, where the
 * widening multiply wants it; what is left in the upper halves is never looked at. */
#include "kernels/philox.h"
#include "kernels/cpu/cpu.h"

INLINE void plain(uint32_t *bits, int blocks, const struct counter *c, uint32_t first)
{
    for (int l = 0; l < blocks; l++) {
        uint32_t *w = bits + 4 * l;
        w[0] = first + (uint32_t)l;
        w[1] = c->sample;
        w[2] = c->step;
        w[3] = c->word3;
        philox4x32(&w[0], &w[1], &w[2], &w[3], (uint32_t)c->seed, (uint32_t)(c->seed >> 32));
    }
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

/* eight blocks in two chains: as many as the registers hold */
__attribute__((target("avx2"))) static void eight(uint32_t *bits, const struct counter *ctr, uint32_t first)
{
    const __m256i m0 = _mm256_set1_epi64x(0xD2511F53), m1 = _mm256_set1_epi64x(0xCD9E8D57),
                  low = _mm256_set1_epi64x(0xffffffff);
    const __m256i w0 = _mm256_set1_epi32((int)0x9E3779B9), w1 = _mm256_set1_epi32((int)0xBB67AE85);
    __m256i k0 = _mm256_set1_epi32((int)(uint32_t)ctr->seed), k1 = _mm256_set1_epi32((int)(uint32_t)(ctr->seed >> 32));
    __m256i a[2], b[2], c[2], d[2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        uint32_t f = first + 4 * (uint32_t)i;
        a[i] = _mm256_set_epi64x(f + 3u, f + 2u, f + 1u, f);
        b[i] = _mm256_set1_epi64x(ctr->sample);
        c[i] = _mm256_set1_epi64x(ctr->step);
        d[i] = _mm256_set1_epi64x(ctr->word3);
    }
    for (int round = 0; round < 10; round++) {
#pragma GCC unroll 2
        for (int i = 0; i < 2; i++) {
            __m256i p = _mm256_mul_epu32(a[i], m0), q = _mm256_mul_epu32(c[i], m1);
            a[i] = _mm256_xor_si256(_mm256_srli_epi64(q, 32), _mm256_xor_si256(b[i], k0));
            c[i] = _mm256_xor_si256(_mm256_srli_epi64(p, 32), _mm256_xor_si256(d[i], k1));
            b[i] = q;
            d[i] = p;
        }
        k0 = _mm256_add_epi32(k0, w0);
        k1 = _mm256_add_epi32(k1, w1);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        __m256i ab = _mm256_or_si256(_mm256_and_si256(a[i], low), _mm256_slli_epi64(b[i], 32));
        __m256i cd = _mm256_or_si256(_mm256_and_si256(c[i], low), _mm256_slli_epi64(d[i], 32));
        __m256i even = _mm256_unpacklo_epi64(ab, cd), odd = _mm256_unpackhi_epi64(ab, cd); /* blocks 0, 2 and 1, 3 */
        _mm256_storeu_si256((__m256i *)(bits + 16 * i), _mm256_permute2x128_si256(even, odd, 0x20));
        _mm256_storeu_si256((__m256i *)(bits + 16 * i + 8), _mm256_permute2x128_si256(even, odd, 0x31));
    }
}

void cpu_philox(uint32_t *bits, int blocks, const struct counter *c, uint32_t first)
{
    int l = 0;
    if (cpu_isa() >= ISA_AVX2)
        for (; l + 8 <= blocks; l += 8) eight(bits + 4 * l, c, first + (uint32_t)l);
    plain(bits + 4 * l, blocks - l, c, first + (uint32_t)l);
}
#else
void cpu_philox(uint32_t *bits, int blocks, const struct counter *c, uint32_t first)
{
    plain(bits, blocks, c, first);
}
#endif
