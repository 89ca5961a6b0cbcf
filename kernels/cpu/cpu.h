/* cpu: what the files of the CPU device share. Private to kernels/cpu/.
 *
 * Threads: OpenMP over samples, rows or fixed chunks; a chunk's work and the order in which chunks are summed never depend on
 * which thread did it. Instruction sets: a hot body is written once, always inlined, and compiled by ISA_CLONES for AVX-512, AVX2
 * and the baseline; the device picks at run time. Outside contractions no clone may fuse a multiply and an add, so that all give
 * the same bits.
 */
#ifndef KERNELS_CPU_CPU_H
#define KERNELS_CPU_CPU_H

#include "kernels/kernels.h"

/* Loops are vectorised whatever the build's -O, but where a sanitizer's checks are in them: that takes a minute a file. */
#if defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#pragma GCC optimize("O3")
#endif

enum isa { ISA_BASE, ISA_AVX2, ISA_AVX512 };

struct kdev {
    bool portable; /* own loops only: no oneDNN, no BLAS */
    int threads;
    enum isa isa;
    char text[320];
};

enum { CHUNK = 4096 }; /* elements of a flat array that one task works on */

enum isa cpu_isa(void); /* the best of this machine that we have code for; $ECT_ISA = base|avx2|avx512 lowers it */

#define INLINE static inline __attribute__((always_inline))

/* ISA_CLONES(name, (parameters), (arguments)): from `INLINE void name_body parameters` makes `static void name parameters`. */
#if defined(__x86_64__) && defined(__GNUC__)
#define ISA_CLONES(name, params, args)                                                                                 \
    __attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma"), noinline)) static void name##_avx512 params  \
    {                                                                                                                  \
        name##_body args;                                                                                              \
    }                                                                                                                  \
    __attribute__((target("avx2,fma"), noinline)) static void name##_avx2 params                                       \
    {                                                                                                                  \
        name##_body args;                                                                                              \
    }                                                                                                                  \
    __attribute__((noinline)) static void name##_base params                                                           \
    {                                                                                                                  \
        name##_body args;                                                                                              \
    }                                                                                                                  \
    static void name params                                                                                            \
    {                                                                                                                  \
        switch (cpu_isa()) {                                                                                           \
        case ISA_AVX512: name##_avx512 args; break;                                                                    \
        case ISA_AVX2: name##_avx2 args; break;                                                                        \
        default: name##_base args; break;                                                                              \
        }                                                                                                              \
    }
#else
#define ISA_CLONES(name, params, args)                                                                                 \
    static void name params                                                                                            \
    {                                                                                                                  \
        name##_body args;                                                                                              \
    }
#endif

/* FLAT(name, (parameters), (arguments), statement for element i): name(..., lo, hi) does elements [lo, hi) of flat arrays. */
#define FLAT(name, params, args, stmt)                                                                                 \
    INLINE void name##_body params                                                                                     \
    {                                                                                                                  \
        for (size_t i = lo; i < hi; i++) {                                                                             \
            stmt;                                                                                                      \
        }                                                                                                              \
    }                                                                                                                  \
    ISA_CLONES(name, params, args)

/* Runs call(lo, hi) over 0..count in chunks. */
#define CHUNKS(count, call)                                                                                            \
    do {                                                                                                               \
        size_t total_ = (count);                                                                                       \
        size_t chunks_ = (total_ + CHUNK - 1) / CHUNK;                                                                 \
        _Pragma("omp parallel for schedule(static) if (chunks_ > 4)") for (size_t j_ = 0; j_ < chunks_; j_++)          \
        {                                                                                                              \
            size_t lo = j_ * CHUNK, hi = lo + CHUNK < total_ ? lo + CHUNK : total_;                                    \
            call;                                                                                                      \
        }                                                                                                              \
    } while (0)

/* Eight floats at any address that is a multiple of 4; two SSE registers on the baseline. */
#define V8 float __attribute__((vector_size(32)))

struct unaligned {
    V8 v;
} __attribute__((packed, aligned(4), may_alias));
#define V8_AT(p) (((const struct unaligned *)(p))->v)
#define V8_PUT(p) (((struct unaligned *)(p))->v)
#define SUM8(v) ((((v)[0] + (v)[4]) + ((v)[2] + (v)[6])) + (((v)[1] + (v)[5]) + ((v)[3] + (v)[7])))

#define KOP(class, name, args) void cpu_##name args;
#include "kernels/ops.def"
#undef KOP

/* ---- random words: philox.c ---------------------------------------------------------------------------------------------- */

struct counter { /* all of a counter but the block index: see core/rng.h */
    uint64_t seed;
    uint32_t sample, step, word3;
};
static inline struct counter counter_of(const struct kstream *s, uint32_t sample)
{
    return (struct counter){.seed = s->seed,
                            .sample = s->sample0 + sample,
                            .step = s->step,
                            .word3 = (uint32_t)s->purpose << 16 | s->layer};
}
/* bits[4 * blocks]: the words of elements 4 * first and on */
void cpu_philox(uint32_t *bits, int blocks, const struct counter *c, uint32_t first);

/* ---- convolution: conv.c decides, the others do ------------------------------------------------------------------------ */

err_t cpu_conv_new(struct kdev *dev, const struct conv_desc *desc, struct conv **conv) MUST_USE;
void cpu_conv_free(struct conv *conv);
size_t cpu_conv_packed_bytes(const struct conv *conv);
size_t cpu_conv_packed_bwd_bytes(const struct conv *conv);
size_t cpu_conv_workspace_bytes(const struct conv *conv);

#endif
