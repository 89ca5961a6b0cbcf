/* conv: the plan of a convolution; which of two implementations runs each of its three parts is a fixed rule of shape and
 * instruction set, never a measurement, so that the same binary gives the same bytes. */
#include <assert.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/direct.h"
#include "kernels/cpu/vendor.h"

enum { FWD, BWD_DATA, BWD_WEIGHT };

struct conv {
    struct kdev *dev;
    struct conv_desc d;
    struct direct fwd, bwd;     /* bwd: the data gradient, a correlation over dy */
    struct vendor_conv *vendor; /* NULL: all three parts are direct */
    bool by_vendor[3];
};

/* Which parts oneDNN does better than we do. Measured on one core of an AVX2 machine (Zen 3): direct reaches 70-98 GFLOP/s forward
 * and in the data gradient at every size, oneDNN 2.6 55-106, so only weight gradients of many channels, whose images do not fit
 * the first cache, go there. With AVX-512 oneDNN has vectors twice as wide as ours. */
static void choose(const struct kdev *dev, const struct conv_desc *d, bool by_vendor[3])
{
    bool wide = dev->isa == ISA_AVX512 && d->c % 16 == 0 && d->k % 16 == 0;
    by_vendor[FWD] = by_vendor[BWD_DATA] = wide;
    by_vendor[BWD_WEIGHT] = wide || (d->c >= 128 && d->k >= 128);
}

err_t cpu_conv_new(struct kdev *dev, const struct conv_desc *desc, struct conv **conv)
{
    assert(desc->n > 0 && desc->h > 0 && desc->w > 0 && desc->c > 0 && desc->k > 0 && desc->r > 0 && desc->s > 0);
    assert(desc->stride == 1 || desc->stride == 2);
    int left = desc->pad + desc->pad_more;
    int ho = (desc->h + 2 * desc->pad - desc->r) / desc->stride + 1;
    int wo = (desc->w + 2 * left - desc->s) / desc->stride + 1;
    assert(ho > 0 && wo > 0 && desc->pad >= 0 && desc->pad < desc->r && left >= 0 && left < desc->s);
    struct conv *p = mem_alloc(sizeof *p);
    p->dev = dev;
    p->d = *desc;
    direct_init(&p->fwd, desc->n, desc->h, desc->w, desc->c, desc->k, desc->r, desc->s, desc->stride, desc->pad, left,
                1, ho, wo);
    direct_init(&p->bwd, desc->n, ho, wo, desc->k, desc->c, desc->r, desc->s, 1, desc->r - 1 - desc->pad,
                desc->s - 1 - left, desc->stride, desc->h, desc->w);
    if (!dev->portable) choose(dev, desc, p->by_vendor);
    struct conv_desc part = *desc;
    part.bwd_data = desc->bwd_data && p->by_vendor[BWD_DATA];
    part.bwd_weight = desc->bwd_weight && p->by_vendor[BWD_WEIGHT];
    if (p->by_vendor[FWD] || part.bwd_data || part.bwd_weight) {
        err_t err = vendor_conv_new(&part, ho, wo, &p->vendor);
        if (err) {
            cpu_conv_free(p);
            return err;
        }
    }
    if (!p->vendor) p->by_vendor[FWD] = p->by_vendor[BWD_DATA] = p->by_vendor[BWD_WEIGHT] = false;
    *conv = p;
    return ERR_OK;
}

void cpu_conv_free(struct conv *p)
{
    if (!p) return;
    vendor_conv_free(p->vendor);
    direct_done(&p->fwd);
    direct_done(&p->bwd);
    mem_free(p);
}

size_t cpu_conv_packed_bytes(const struct conv *p)
{
    return p->by_vendor[FWD] ? vendor_conv_packed_bytes(p->vendor) : direct_packed_floats(&p->fwd) * sizeof(float);
}

size_t cpu_conv_packed_bwd_bytes(const struct conv *p)
{
    if (!p->d.bwd_data) return 0;
    return p->by_vendor[BWD_DATA] ? vendor_conv_packed_bwd_bytes(p->vendor)
                                  : direct_packed_floats(&p->bwd) * sizeof(float);
}

size_t cpu_conv_workspace_bytes(const struct conv *p)
{
    size_t floats[3] = {direct_workspace_floats(&p->fwd, p->dev->threads),
                        p->d.bwd_data ? direct_workspace_floats(&p->bwd, p->dev->threads) : 0,
                        p->d.bwd_weight ? direct_weight_floats(&p->fwd) : 0};
    size_t most = p->vendor ? vendor_conv_workspace_bytes(p->vendor) : 0;
    for (int i = 0; i < 3; i++)
        if (!p->by_vendor[i] && floats[i] * sizeof(float) > most) most = floats[i] * sizeof(float);
    return most;
}

void cpu_conv_pack(struct conv *p, const float *w, void *packed)
{
    if (p->by_vendor[FWD]) vendor_conv_pack(p->vendor, w, packed);
    else direct_pack(&p->fwd, w, false, packed);
}

void cpu_conv_pack_bwd(struct conv *p, const float *w, void *packed)
{
    assert(p->d.bwd_data);
    if (p->by_vendor[BWD_DATA]) vendor_conv_pack_bwd(p->vendor, w, packed);
    else direct_pack(&p->bwd, w, true, packed);
}

void cpu_conv_fwd(struct conv *p, const float *x, const void *w, const float *bias, float *y, void *ws)
{
    if (p->by_vendor[FWD]) vendor_conv_fwd(p->vendor, x, w, bias, y, ws);
    else direct_run(&p->fwd, p->dev->threads, x, w, bias, y, ws);
}

void cpu_conv_bwd_data(struct conv *p, const float *dy, const void *w, float *dx, void *ws)
{
    assert(p->d.bwd_data);
    if (p->by_vendor[BWD_DATA]) vendor_conv_bwd_data(p->vendor, dy, w, dx, ws);
    else direct_run(&p->bwd, p->dev->threads, dy, w, NULL, dx, ws);
}

void cpu_conv_bwd_weight_acc(struct conv *p, const float *x, const float *dy, float *dw, float *db, void *ws)
{
    assert(p->d.bwd_weight);
    if (p->by_vendor[BWD_WEIGHT]) vendor_conv_bwd_weight_acc(p->vendor, x, dy, dw, db, ws);
    else direct_weight_acc(&p->fwd, p->dev->threads, x, dy, dw, db, ws);
}
