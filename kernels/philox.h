/* philox: the counter-based generator Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011), as arithmetic only. Compiled by gcc and
 * nvcc, so it uses nothing but 32- and 64-bit integers; what the words of counter and key mean is said in core/rng.h. */
#ifndef KERNELS_PHILOX_H
#define KERNELS_PHILOX_H

#include <stdint.h>

#ifdef __CUDACC__
#define XD static __host__ __device__ __forceinline__
#else
#define XD static inline __attribute__((always_inline))
#endif

/* Ten rounds on four counter words in place. */
XD void philox4x32(uint32_t *c0, uint32_t *c1, uint32_t *c2, uint32_t *c3, uint32_t key0, uint32_t key1)
{
    uint32_t a = *c0, b = *c1, c = *c2, d = *c3;
    for (int round = 0; round < 10; round++) {
        uint64_t p = (uint64_t)a * 0xD2511F53u, q = (uint64_t)c * 0xCD9E8D57u;
        a = (uint32_t)(q >> 32) ^ b ^ key0;
        c = (uint32_t)(p >> 32) ^ d ^ key1;
        b = (uint32_t)q;
        d = (uint32_t)p;
        key0 += 0x9E3779B9u; /* the golden ratio and sqrt(3) - 1: Weyl sequence of the key */
        key1 += 0xBB67AE85u;
    }
    *c0 = a, *c1 = b, *c2 = c, *c3 = d;
}

#endif
