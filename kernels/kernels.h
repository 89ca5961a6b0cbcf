/* kernels: arithmetic on pointers, one table of functions per device. No shapes are inferred here, nothing is allocated
 * after a plan or a device is opened, and nothing knows of graphs or files.
 *
 * Layout: activations NHWC, weights KRSC (out, row, column, in), fp32. All pointers are device pointers (on the CPU the same
 * as host pointers), 64-byte aligned at the start of a tensor.
 *
 * Two classes of kernel, named in ops.def:
 *   EXACT      equal bit for bit on every device (random numbers, masks, gathers, quantisation)
 *   TOLERANCE  compared with a double-precision reference
 * Reductions have a fixed order: same inputs, device, ISA and thread count give the same bytes.
 * Functions that end in _acc add to their outputs marked "acc"; all others overwrite.
 */
#ifndef KERNELS_KERNELS_H
#define KERNELS_KERNELS_H

#include "core/base.h"

struct kdev; /* one opened device: threads, scratch, library handles */

/* A counter stream as in core/rng.h. */
struct kstream {
    uint64_t seed;
    uint32_t step;
    uint16_t purpose, layer;
    uint32_t sample0; /* index in the global batch of the first sample of this call */
};

/* Convolution plan: y[n,ho,wo,k] = bias[k] + sum x[n,...,c] * w[k,r,s,c]; "same" padding r/2 unless given; stride 1 or 2. */
struct conv_desc {
    int n, h, w, c, k, r, s, stride, pad;
    int pad_more;              /* columns are padded by pad + pad_more: for 1x7 and 7x1 windows; usually 0 */
    bool bwd_data, bwd_weight; /* which gradients the plan must offer */
};
struct conv; /* a prepared convolution: primitives, layouts, workspace size */

/* C = alpha * op(A) op(B) + beta * C, row-major, `batch` independent products at the given strides (elements). */
struct gemm_desc {
    int m, n, k;
    bool ta, tb;
    int lda, ldb, ldc;
    int batch;
    long stride_a, stride_b, stride_c;
    float alpha, beta;
};

/* Group normalisation of x[n, hw, c] in g groups, fused with what follows it. */
struct norm_desc {
    int n, hw, c, groups;
    float eps;
    bool per_sample; /* gamma, beta and their gradients are [n, c]: a row for each sample */
    bool silu;       /* apply SiLU to the normalised value */
    bool dropout;    /* then drop with probability p (passed per call, 0 = off) from the counter, scale by 1/(1-p) */
};

/* Windows of size x size pixels, `stride` apart, of x[n, h, w, c] after `pad` empty pixels were put round it: the largest value,
 * the mean with padding counted as zeros, or the mean of the pixels inside the image. Rows out: (h + 2 pad - size) / stride + 1. */
enum pool_kind { POOL_MAX, POOL_MEAN, POOL_MEAN_INSIDE };
struct pool_desc {
    int n, h, w, c, size, stride, pad;
    enum pool_kind kind;
};

/* Bilinear resizing of x[n, h, w, c] to ho x wo pixels, without a filter when shrinking (torch's, align_corners off). Pixel i of the
 * result looks at (i + 1/2) h / ho - 1/2; with corner set, at i h / ho, as TensorFlow 1 did. Both stop at the border. */
struct resize_desc {
    int n, h, w, c, ho, wo;
    bool corner;
};

/* Multi-tensor optimiser over one flat arena. Torch semantics (core/optim.h). The host computes the scalars. */
struct optim_step {
    double beta1, beta2; /* double: 1 - 0.999f would be off by 1e-5 of itself; kernels round 1 - beta, not beta */
    float eps;
    float step_size;   /* lr / (1 - beta1^t), with RAdam's rectification folded in */
    float vscale;      /* sqrt(1 - beta2^t): denominator is sqrt(v)/vscale + eps */
    bool adaptive;     /* false: RAdam's first steps, p -= step_size * m */
    double radam_rect; /* informative */
};

/* The plane of an image and its reflections repeats after this many pixels. */
static inline size_t augment_period(int side)
{
    return side > 1 ? 2 * (size_t)(side - 1) : 1;
}
/* Scratch of op augment, floats a sample: one period of the plane at twice the resolution, its rows before they are doubled, the image
 * transformed at that resolution with the margin that the filter reaches into (10), its rows after they were halved. */
static inline size_t augment_floats(int h, int w)
{
    size_t ph = 2 * augment_period(h), pw = 2 * augment_period(w), vh = 2 * (size_t)h + 10, vw = 2 * (size_t)w + 10;
    return (size_t)h * pw + ph * pw + vh * vw + vh * (size_t)w;
}

struct kernels {
    const char *name; /* "cpu", "cpu-portable", "cuda" */
    /* Opens a device. spec: "cpu", "cpu-portable", "cuda:0". threads <= 0: all. ERR_DEVICE says what is missing. */
    err_t (*open)(struct kdev **dev, const char *spec, int threads);
    void (*close)(struct kdev *dev);
    /* One line for `doctor` and provenance: ISA, threads, library versions. Owned by the device. */
    const char *(*describe)(struct kdev *dev);
    void *(*alloc)(struct kdev *dev, size_t bytes); /* NULL when device memory ran out; zeroed */
    void (*free)(struct kdev *dev, void *p);
    void (*upload)(struct kdev *dev, void *dst, const void *src, size_t bytes);
    void (*download)(struct kdev *dev, void *dst, const void *src, size_t bytes);
    void (*sync)(struct kdev *dev);

    /* Plans: made once when a program is compiled. Packed weights are in the library's own layout. */
    err_t (*conv_new)(struct kdev *dev, const struct conv_desc *desc, struct conv **conv);
    void (*conv_free)(struct conv *conv);
    size_t (*conv_packed_bytes)(const struct conv *conv); /* of w for forward; 0: takes plain KRSC, no pack needed */
    size_t (*conv_packed_bwd_bytes)(const struct conv *conv); /* of w for the data gradient; 0 likewise */
    size_t (*conv_workspace_bytes)(const struct conv *conv);

#define KOP(class, name, args) void(*name) args;
#include "kernels/ops.def"
#undef KOP
};

/* The table of a device by spec ("cpu", "cpu-portable", "cuda", "cuda:N"), or ERR_DEVICE with the reason. */
err_t kernels_find(const char *spec, const struct kernels **table) MUST_USE;

#endif
