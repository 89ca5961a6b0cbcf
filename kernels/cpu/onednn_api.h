/* onednn_api: oneDNN's C API as one text for v2 (descriptors are structs, an operation has a descriptor of its own) and v3
 * (descriptors are handles, one call makes a primitive descriptor). Included by onednn.c only. */
#ifndef KERNELS_CPU_ONEDNN_API_H
#define KERNELS_CPU_ONEDNN_API_H

#include <oneapi/dnnl/dnnl.h>

#if DNNL_VERSION_MAJOR >= 3
#define MD_REF const_dnnl_memory_desc_t
#define MD(m) (m)
#define PD_REF const_dnnl_primitive_desc_t

static dnnl_status_t md_init(dnnl_memory_desc_t *m, int ndims, const dnnl_dims_t dims, dnnl_format_tag_t tag)
{
    return dnnl_memory_desc_create_with_tag(m, ndims, dims, dnnl_f32, tag);
}
static void md_done(dnnl_memory_desc_t *m)
{
    if (*m) dnnl_memory_desc_destroy(*m);
    *m = NULL;
}
static dnnl_status_t pd_conv_fwd(dnnl_primitive_desc_t *pd, dnnl_engine_t e, MD_REF x, MD_REF w, MD_REF b, MD_REF y,
                                 const dnnl_dims_t stride, const dnnl_dims_t pad, const dnnl_dims_t pad_end,
                                 const_dnnl_primitive_attr_t attr)
{
    static const dnnl_dims_t dense = {0, 0};
    return dnnl_convolution_forward_primitive_desc_create(pd, e, dnnl_forward_training, dnnl_convolution_direct, x, w,
                                                          b, y, stride, dense, pad, pad_end, attr);
}
static dnnl_status_t pd_conv_bwd_data(dnnl_primitive_desc_t *pd, dnnl_engine_t e, MD_REF dx, MD_REF w, MD_REF dy,
                                      const dnnl_dims_t stride, const dnnl_dims_t pad, const dnnl_dims_t pad_end,
                                      PD_REF hint, const_dnnl_primitive_attr_t attr)
{
    static const dnnl_dims_t dense = {0, 0};
    return dnnl_convolution_backward_data_primitive_desc_create(pd, e, dnnl_convolution_direct, dx, w, dy, stride,
                                                                dense, pad, pad_end, hint, attr);
}
static dnnl_status_t pd_conv_bwd_weight(dnnl_primitive_desc_t *pd, dnnl_engine_t e, MD_REF x, MD_REF dw, MD_REF db,
                                        MD_REF dy, const dnnl_dims_t stride, const dnnl_dims_t pad,
                                        const dnnl_dims_t pad_end, PD_REF hint, const_dnnl_primitive_attr_t attr)
{
    static const dnnl_dims_t dense = {0, 0};
    return dnnl_convolution_backward_weights_primitive_desc_create(pd, e, dnnl_convolution_direct, x, dw, db, dy,
                                                                   stride, dense, pad, pad_end, hint, attr);
}
#else
#define MD_REF const dnnl_memory_desc_t *
#define MD(m) (&(m))
#define PD_REF const_dnnl_primitive_desc_t

static dnnl_status_t md_init(dnnl_memory_desc_t *m, int ndims, const dnnl_dims_t dims, dnnl_format_tag_t tag)
{
    return dnnl_memory_desc_init_by_tag(m, ndims, dims, dnnl_f32, tag);
}
static void md_done(dnnl_memory_desc_t *m)
{
    (void)m;
}
static dnnl_status_t pd_conv_fwd(dnnl_primitive_desc_t *pd, dnnl_engine_t e, MD_REF x, MD_REF w, MD_REF b, MD_REF y,
                                 const dnnl_dims_t stride, const dnnl_dims_t pad, const dnnl_dims_t pad_end,
                                 const_dnnl_primitive_attr_t attr)
{
    dnnl_convolution_desc_t op;
    dnnl_status_t s = dnnl_convolution_forward_desc_init(&op, dnnl_forward_training, dnnl_convolution_direct, x, w, b,
                                                         y, stride, pad, pad_end);
    return s ? s : dnnl_primitive_desc_create(pd, &op, attr, e, NULL);
}
static dnnl_status_t pd_conv_bwd_data(dnnl_primitive_desc_t *pd, dnnl_engine_t e, MD_REF dx, MD_REF w, MD_REF dy,
                                      const dnnl_dims_t stride, const dnnl_dims_t pad, const dnnl_dims_t pad_end,
                                      PD_REF hint, const_dnnl_primitive_attr_t attr)
{
    dnnl_convolution_desc_t op;
    dnnl_status_t s =
        dnnl_convolution_backward_data_desc_init(&op, dnnl_convolution_direct, dx, w, dy, stride, pad, pad_end);
    return s ? s : dnnl_primitive_desc_create(pd, &op, attr, e, hint);
}
static dnnl_status_t pd_conv_bwd_weight(dnnl_primitive_desc_t *pd, dnnl_engine_t e, MD_REF x, MD_REF dw, MD_REF db,
                                        MD_REF dy, const dnnl_dims_t stride, const dnnl_dims_t pad,
                                        const dnnl_dims_t pad_end, PD_REF hint, const_dnnl_primitive_attr_t attr)
{
    dnnl_convolution_desc_t op;
    dnnl_status_t s =
        dnnl_convolution_backward_weights_desc_init(&op, dnnl_convolution_direct, x, dw, db, dy, stride, pad, pad_end);
    return s ? s : dnnl_primitive_desc_create(pd, &op, attr, e, hint);
}
#endif

#endif
