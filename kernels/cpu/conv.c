/* conv: the plan of a convolution, and the portable path: direct loops over NHWC and KRSC, channels innermost. */
#include <assert.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

struct conv {
    struct kdev *dev;
    struct conv_desc d;
    int ho, wo;
};

err_t cpu_conv_new(struct kdev *dev, const struct conv_desc *desc, struct conv **conv)
{
    assert(desc->n > 0 && desc->h > 0 && desc->w > 0 && desc->c > 0 && desc->k > 0 && desc->r > 0 && desc->s > 0);
    assert(desc->stride == 1 || desc->stride == 2);
    struct conv *p = mem_alloc(sizeof *p);
    p->dev = dev;
    p->d = *desc;
    p->ho = (desc->h + 2 * desc->pad - desc->r) / desc->stride + 1;
    p->wo = (desc->w + 2 * desc->pad - desc->s) / desc->stride + 1;
    *conv = p;
    return ERR_OK;
}

void cpu_conv_free(struct conv *conv)
{
    mem_free(conv);
}

size_t cpu_conv_packed_bytes(const struct conv *conv)
{
    (void)conv;
    return 0;
}

size_t cpu_conv_packed_bwd_bytes(const struct conv *conv)
{
    (void)conv;
    return 0;
}

size_t cpu_conv_workspace_bytes(const struct conv *conv)
{
    (void)conv;
    return 0;
}

void cpu_conv_pack(struct conv *p, const float *w, void *packed)
{
    (void)p, (void)w, (void)packed;
    assert(!"this plan takes plain weights");
}

void cpu_conv_pack_bwd(struct conv *p, const float *w, void *packed)
{
    (void)p, (void)w, (void)packed;
    assert(!"this plan takes plain weights");
}

void cpu_conv_fwd(struct conv *p, const float *x, const void *weights, const float *bias, float *y, void *ws)
{
    (void)ws;
    const struct conv_desc d = p->d;
    const float *w = weights;
#pragma omp parallel for collapse(2) schedule(static)
    for (int i = 0; i < d.n; i++)
        for (int yo = 0; yo < p->ho; yo++)
            for (int xo = 0; xo < p->wo; xo++) {
                float *out = y + (((size_t)i * p->ho + yo) * p->wo + xo) * d.k;
                for (int k = 0; k < d.k; k++) {
                    float sum = 0;
                    for (int r = 0; r < d.r; r++) {
                        int yi = yo * d.stride + r - d.pad;
                        if (yi < 0 || yi >= d.h) continue;
                        for (int s = 0; s < d.s; s++) {
                            int xi = xo * d.stride + s - d.pad;
                            if (xi < 0 || xi >= d.w) continue;
                            const float *px = x + (((size_t)i * d.h + yi) * d.w + xi) * d.c;
                            const float *pw = w + (((size_t)k * d.r + r) * d.s + s) * d.c;
                            for (int c = 0; c < d.c; c++) sum += px[c] * pw[c];
                        }
                    }
                    out[k] = sum + (bias ? bias[k] : 0);
                }
            }
}

void cpu_conv_bwd_data(struct conv *p, const float *dy, const void *weights, float *dx, void *ws)
{
    (void)ws;
    const struct conv_desc d = p->d;
    const float *w = weights;
#pragma omp parallel for collapse(2) schedule(static)
    for (int i = 0; i < d.n; i++)
        for (int yi = 0; yi < d.h; yi++)
            for (int xi = 0; xi < d.w; xi++) {
                float *out = dx + (((size_t)i * d.h + yi) * d.w + xi) * d.c;
                memset(out, 0, (size_t)d.c * sizeof *out);
                for (int r = 0; r < d.r; r++) {
                    int ys = yi + d.pad - r, yo = ys / d.stride;
                    if (ys < 0 || ys % d.stride || yo >= p->ho) continue;
                    for (int s = 0; s < d.s; s++) {
                        int xs = xi + d.pad - s, xo = xs / d.stride;
                        if (xs < 0 || xs % d.stride || xo >= p->wo) continue;
                        const float *g = dy + (((size_t)i * p->ho + yo) * p->wo + xo) * d.k;
                        for (int k = 0; k < d.k; k++) {
                            const float *pw = w + (((size_t)k * d.r + r) * d.s + s) * d.c;
                            for (int c = 0; c < d.c; c++) out[c] += g[k] * pw[c];
                        }
                    }
                }
            }
}

void cpu_conv_bwd_weight_acc(struct conv *p, const float *x, const float *dy, float *dw, float *db, void *ws)
{
    (void)ws;
    const struct conv_desc d = p->d;
#pragma omp parallel for schedule(static)
    for (int k = 0; k < d.k; k++) {
        float bias = 0;
        for (int i = 0; i < d.n; i++)
            for (int yo = 0; yo < p->ho; yo++)
                for (int xo = 0; xo < p->wo; xo++) {
                    float g = dy[(((size_t)i * p->ho + yo) * p->wo + xo) * d.k + k];
                    bias += g;
                    for (int r = 0; r < d.r; r++) {
                        int yi = yo * d.stride + r - d.pad;
                        if (yi < 0 || yi >= d.h) continue;
                        for (int s = 0; s < d.s; s++) {
                            int xi = xo * d.stride + s - d.pad;
                            if (xi < 0 || xi >= d.w) continue;
                            const float *px = x + (((size_t)i * d.h + yi) * d.w + xi) * d.c;
                            float *pw = dw + (((size_t)k * d.r + r) * d.s + s) * d.c;
                            for (int c = 0; c < d.c; c++) pw[c] += g * px[c];
                        }
                    }
                }
        if (db) db[k] += bias;
    }
}
