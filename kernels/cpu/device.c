/* device: opening the CPU, and the two tables. Both hold the same functions; "cpu-portable" opens a device that takes the
 * portable path in every contraction. */
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vendor.h"

static enum isa isa_detect(void)
{
    enum isa isa = ISA_BASE;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) isa = ISA_AVX2;
    if (isa == ISA_AVX2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
        isa = ISA_AVX512;
#endif
    const char *want = getenv("ECT_ISA");
    if (want && !strcmp(want, "base")) return ISA_BASE;
    if (want && !strcmp(want, "avx2") && isa > ISA_AVX2) return ISA_AVX2;
    return isa;
}

enum isa cpu_isa(void)
{
    static int isa = -1; /* every thread would store the same value */
    if (__atomic_load_n(&isa, __ATOMIC_RELAXED) < 0) __atomic_store_n(&isa, (int)isa_detect(), __ATOMIC_RELAXED);
    return (enum isa)isa;
}

static err_t open_any(struct kdev **out, const char *spec, int threads, bool portable)
{
    static const char *const isa_name[] = {"baseline", "avx2", "avx512"};
    int most = omp_get_num_procs();
    if (threads <= 0) threads = most;
    struct kdev *d = mem_alloc(sizeof *d);
    d->portable = portable;
    d->threads = threads;
    d->isa = cpu_isa();
    omp_set_dynamic(0); /* a result may depend on the number of threads, so the runtime must not change it */
    omp_set_num_threads(threads);
    vendor_set_threads(threads);
    char vendor[160];
    vendor_describe(vendor, sizeof vendor);
    snprintf(d->text, sizeof d->text, "%s, %s, %d thread%s of %d%s%s", spec, isa_name[d->isa], threads,
             threads == 1 ? "" : "s", most, portable ? "" : ", ", portable ? "" : vendor);
    *out = d;
    return ERR_OK;
}

static err_t open_cpu(struct kdev **d, const char *spec, int threads)
{
    return open_any(d, spec, threads, false);
}
static err_t open_portable(struct kdev **d, const char *spec, int threads)
{
    return open_any(d, spec, threads, true);
}
static void close_cpu(struct kdev *d)
{
    mem_free(d);
}
static const char *describe_cpu(struct kdev *d)
{
    return d->text;
}

static void *alloc_cpu(struct kdev *d, size_t bytes)
{
    (void)d;
    return mem_alloc(bytes);
}

static void free_cpu(struct kdev *d, void *p)
{
    (void)d;
    mem_free(p);
}

static void transfer_cpu(struct kdev *d, void *dst, const void *src, size_t bytes)
{
    (void)d;
    if (bytes) memcpy(dst, src, bytes);
}

static void sync_cpu(struct kdev *d)
{
    (void)d;
}

#define KOP(class, name, args) .name = cpu_##name,
#define COMMON                                                                                                         \
    .close = close_cpu, .describe = describe_cpu, .alloc = alloc_cpu, .free = free_cpu, .upload = transfer_cpu,        \
    .download = transfer_cpu, .sync = sync_cpu, .conv_new = cpu_conv_new, .conv_free = cpu_conv_free,                  \
    .conv_packed_bytes = cpu_conv_packed_bytes, .conv_packed_bwd_bytes = cpu_conv_packed_bwd_bytes,                    \
    .conv_workspace_bytes = cpu_conv_workspace_bytes,

extern const struct kernels kernels_cpu, kernels_cpu_portable;

const struct kernels kernels_cpu = {.name = "cpu", .open = open_cpu, COMMON
#include "kernels/ops.def"
};

const struct kernels kernels_cpu_portable = {.name = "cpu-portable", .open = open_portable, COMMON
#include "kernels/ops.def"
};
