/* onednn: convolutions by oneDNN. Activations are NHWC, weights whatever the primitive likes best ("any"), so packing is a reorder
 * from KRSC; scratch is the caller's; memory objects are made once and only get new pointers. */
#include <stdlib.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vendor.h"

#if ECT_ONEDNN

#include "kernels/cpu/onednn_api.h"

enum part { FWD, BWD_DATA, BWD_WEIGHT, PARTS };

/* One primitive and the memory objects of its arguments, in the order of args. */
struct prim {
    dnnl_primitive_desc_t pd;
    dnnl_primitive_t run;
    dnnl_exec_arg_t arg[5];
    int nargs;
    size_t scratch; /* bytes */
};

struct vendor_conv {
    struct conv_desc d;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_attr_t attr;
    struct prim part[PARTS], pack[PARTS]; /* pack: KRSC -> library layout; of BWD_WEIGHT: library layout -> KRSC */
    size_t weight_bytes[PARTS];           /* in the library's layout */
    float *no_bias;                       /* k zeros: the primitive always takes a bias */
};

static err_t check(dnnl_status_t s, const char *what)
{
    if (s == dnnl_success) return ERR_OK;
    if (s == dnnl_out_of_memory) return fail(ERR_DEVICE_MEM, "oneDNN: out of memory in %s", what);
    return fail(ERR_FAILED, "oneDNN: %s failed with status %d", what, (int)s);
}
#define DNN(expr) TRY(check(expr, #expr))

static err_t prim_arg(struct prim *p, dnnl_engine_t e, int slot, MD_REF md)
{
    dnnl_exec_arg_t *a = &p->arg[p->nargs++];
    a->arg = slot;
    return check(dnnl_memory_create(&a->memory, md, e, DNNL_MEMORY_NONE), "dnnl_memory_create");
}

/* after p->pd is made: the primitive, its scratch as last argument */
static err_t prim_finish(struct prim *p, dnnl_engine_t e)
{
    DNN(dnnl_primitive_create(&p->run, p->pd));
    MD_REF md = dnnl_primitive_desc_query_md(p->pd, dnnl_query_scratchpad_md, 0);
    p->scratch = dnnl_memory_desc_get_size(md);
    return prim_arg(p, e, DNNL_ARG_SCRATCHPAD, md);
}

static void prim_done(struct prim *p)
{
    for (int i = 0; i < p->nargs; i++)
        if (p->arg[i].memory) dnnl_memory_destroy(p->arg[i].memory);
    if (p->run) dnnl_primitive_destroy(p->run);
    if (p->pd) dnnl_primitive_desc_destroy(p->pd);
}

/* Execution cannot fail for reasons outside our control once the primitive exists: a bad status is a broken promise of ours. */
static void prim_run(struct prim *p, dnnl_stream_t s, const void *const *ptr)
{
    for (int i = 0; i < p->nargs; i++) {
        dnnl_status_t e = dnnl_memory_set_data_handle(p->arg[i].memory, (void *)ptr[i]);
        if (e) {
            log_at(LOG_ERROR, "oneDNN refused a pointer (status %d)", (int)e);
            abort();
        }
    }
    dnnl_status_t e = dnnl_primitive_execute(p->run, s, p->nargs, p->arg);
    if (!e) e = dnnl_stream_wait(s);
    if (e) {
        log_at(LOG_ERROR, "oneDNN could not run a primitive (status %d)", (int)e);
        abort();
    }
}

static err_t reorder_new(struct prim *p, struct vendor_conv *v, MD_REF from, MD_REF to)
{
    DNN(dnnl_reorder_primitive_desc_create(&p->pd, from, v->engine, to, v->engine, v->attr));
    TRY(prim_arg(p, v->engine, DNNL_ARG_FROM, from));
    TRY(prim_arg(p, v->engine, DNNL_ARG_TO, to));
    return prim_finish(p, v->engine);
}

struct descs {
    dnnl_memory_desc_t x, y, w, any, bias;
};

static err_t descs_init(struct descs *m, const struct conv_desc *d, int ho, int wo)
{
    const dnnl_dims_t x = {d->n, d->c, d->h, d->w}, y = {d->n, d->k, ho, wo}, w = {d->k, d->c, d->r, d->s}, b = {d->k};
    DNN(md_init(&m->x, 4, x, dnnl_nhwc));
    DNN(md_init(&m->y, 4, y, dnnl_nhwc));
    DNN(md_init(&m->w, 4, w, dnnl_acdb)); /* K C R S stored as K R S C */
    DNN(md_init(&m->any, 4, w, dnnl_format_tag_any));
    DNN(md_init(&m->bias, 1, b, dnnl_a));
    return ERR_OK;
}

/* The primitives of the plan. *have = false where the library has no implementation. */
static err_t parts_new(struct vendor_conv *v, struct descs *m, int ho, int wo, bool *have)
{
    const struct conv_desc *d = &v->d;
    const dnnl_dims_t stride = {d->stride, d->stride}, pad = {d->pad, d->pad + d->pad_more};
    const dnnl_dims_t end = {(ho - 1) * d->stride + d->r - d->h - d->pad,
                             (wo - 1) * d->stride + d->s - d->w - d->pad - d->pad_more};
    struct prim *f = &v->part[FWD], *bd = &v->part[BWD_DATA], *bw = &v->part[BWD_WEIGHT];
    *have = false;
    dnnl_status_t s =
        pd_conv_fwd(&f->pd, v->engine, MD(m->x), MD(m->any), MD(m->bias), MD(m->y), stride, pad, end, v->attr);
    if (!s && d->bwd_data)
        s = pd_conv_bwd_data(&bd->pd, v->engine, MD(m->x), MD(m->any), MD(m->y), stride, pad, end, f->pd, v->attr);
    if (!s && d->bwd_weight)
        s = pd_conv_bwd_weight(&bw->pd, v->engine, MD(m->x), MD(m->any), MD(m->bias), MD(m->y), stride, pad, end, f->pd,
                               v->attr);
    if (s == dnnl_unimplemented) return ERR_OK;
    DNN(s);
    *have = true;

    MD_REF w = dnnl_primitive_desc_query_md(f->pd, dnnl_query_weights_md, 0);
    v->weight_bytes[FWD] = dnnl_memory_desc_get_size(w);
    TRY(reorder_new(&v->pack[FWD], v, MD(m->w), w));
    TRY(prim_arg(f, v->engine, DNNL_ARG_SRC, MD(m->x)));
    TRY(prim_arg(f, v->engine, DNNL_ARG_WEIGHTS, w));
    TRY(prim_arg(f, v->engine, DNNL_ARG_BIAS, MD(m->bias)));
    TRY(prim_arg(f, v->engine, DNNL_ARG_DST, MD(m->y)));
    TRY(prim_finish(f, v->engine));
    if (d->bwd_data) {
        w = dnnl_primitive_desc_query_md(bd->pd, dnnl_query_weights_md, 0);
        v->weight_bytes[BWD_DATA] = dnnl_memory_desc_get_size(w);
        TRY(reorder_new(&v->pack[BWD_DATA], v, MD(m->w), w));
        TRY(prim_arg(bd, v->engine, DNNL_ARG_DIFF_DST, MD(m->y)));
        TRY(prim_arg(bd, v->engine, DNNL_ARG_WEIGHTS, w));
        TRY(prim_arg(bd, v->engine, DNNL_ARG_DIFF_SRC, MD(m->x)));
        TRY(prim_finish(bd, v->engine));
    }
    if (d->bwd_weight) {
        w = dnnl_primitive_desc_query_md(bw->pd, dnnl_query_diff_weights_md, 0);
        v->weight_bytes[BWD_WEIGHT] = dnnl_memory_desc_get_size(w);
        TRY(reorder_new(&v->pack[BWD_WEIGHT], v, w, MD(m->w)));
        TRY(prim_arg(bw, v->engine, DNNL_ARG_SRC, MD(m->x)));
        TRY(prim_arg(bw, v->engine, DNNL_ARG_DIFF_DST, MD(m->y)));
        TRY(prim_arg(bw, v->engine, DNNL_ARG_DIFF_WEIGHTS, w));
        TRY(prim_arg(bw, v->engine, DNNL_ARG_DIFF_BIAS, MD(m->bias)));
        TRY(prim_finish(bw, v->engine));
    }
    return ERR_OK;
}

err_t vendor_conv_new(const struct conv_desc *d, int ho, int wo, struct vendor_conv **conv)
{
    *conv = NULL;
    if (dnnl_version()->major != DNNL_VERSION_MAJOR)
        return fail(ERR_DEVICE, "built for oneDNN %d but %d is installed: run make again", DNNL_VERSION_MAJOR,
                    dnnl_version()->major);
    struct vendor_conv *v = mem_alloc(sizeof *v);
    struct descs m = {0};
    bool have = false;
    err_t err;
    v->d = *d;
    v->no_bias = mem_array((size_t)d->k, sizeof(float));
    TRYD(check(dnnl_engine_create(&v->engine, dnnl_cpu, 0), "dnnl_engine_create"));
    TRYD(check(dnnl_stream_create(&v->stream, v->engine, dnnl_stream_default_flags), "dnnl_stream_create"));
    TRYD(check(dnnl_primitive_attr_create(&v->attr), "dnnl_primitive_attr_create"));
    TRYD(check(dnnl_primitive_attr_set_scratchpad_mode(v->attr, dnnl_scratchpad_mode_user), "scratchpad mode"));
    TRYD(descs_init(&m, d, ho, wo));
    TRYD(parts_new(v, &m, ho, wo, &have));
done:
    md_done(&m.x);
    md_done(&m.y);
    md_done(&m.w);
    md_done(&m.any);
    md_done(&m.bias);
    if (err || !have) vendor_conv_free(v);
    else *conv = v;
    return err;
}

void vendor_conv_free(struct vendor_conv *v)
{
    if (!v) return;
    for (int i = 0; i < PARTS; i++) {
        prim_done(&v->part[i]);
        prim_done(&v->pack[i]);
    }
    if (v->attr) dnnl_primitive_attr_destroy(v->attr);
    if (v->stream) dnnl_stream_destroy(v->stream);
    if (v->engine) dnnl_engine_destroy(v->engine);
    mem_free(v->no_bias);
    mem_free(v);
}

size_t vendor_conv_packed_bytes(const struct vendor_conv *v)
{
    return v->weight_bytes[FWD];
}
size_t vendor_conv_packed_bwd_bytes(const struct vendor_conv *v)
{
    return v->weight_bytes[BWD_DATA];
}

/* The workspace of a weight gradient: itself in the library's layout, as KRSC, the bias gradient, then scratch. */
struct gradients {
    size_t plain, bias, scratch; /* where each begins, in floats, on multiples of 64 bytes */
};

static struct gradients gradients_of(const struct vendor_conv *v)
{
    struct gradients g;
    g.plain = (v->weight_bytes[BWD_WEIGHT] / sizeof(float) + 15) / 16 * 16;
    g.bias = g.plain + ((size_t)v->d.k * v->d.c * v->d.r * v->d.s + 15) / 16 * 16;
    g.scratch = g.bias + ((size_t)v->d.k + 15) / 16 * 16;
    return g;
}

size_t vendor_conv_workspace_bytes(const struct vendor_conv *v)
{
    size_t most = 0;
    for (int i = 0; i < PARTS; i++) {
        size_t bytes = v->part[i].scratch;
        if (i == BWD_WEIGHT && v->d.bwd_weight) {
            if (v->pack[i].scratch > bytes) bytes = v->pack[i].scratch;
            bytes += gradients_of(v).scratch * sizeof(float);
        }
        if (bytes > most) most = bytes;
    }
    return most;
}

/* reorders of f32 weights need no scratch in either version; were one to, packing has no workspace to give */
void vendor_conv_pack(struct vendor_conv *v, const float *w, void *packed)
{
    prim_run(&v->pack[FWD], v->stream, (const void *[]){w, packed, NULL});
}

void vendor_conv_pack_bwd(struct vendor_conv *v, const float *w, void *packed)
{
    prim_run(&v->pack[BWD_DATA], v->stream, (const void *[]){w, packed, NULL});
}

void vendor_conv_fwd(struct vendor_conv *v, const float *x, const void *w, const float *bias, float *y, void *ws)
{
    prim_run(&v->part[FWD], v->stream, (const void *[]){x, w, bias ? bias : v->no_bias, y, ws});
}

void vendor_conv_bwd_data(struct vendor_conv *v, const float *dy, const void *w, float *dx, void *ws)
{
    prim_run(&v->part[BWD_DATA], v->stream, (const void *[]){dy, w, dx, ws});
}

void vendor_conv_bwd_weight_acc(struct vendor_conv *v, const float *x, const float *dy, float *dw, float *db, void *ws)
{
    struct gradients g = gradients_of(v);
    float *own = ws, *plain = own + g.plain, *bias = own + g.bias, *scratch = own + g.scratch;
    prim_run(&v->part[BWD_WEIGHT], v->stream, (const void *[]){x, dy, own, bias, scratch});
    prim_run(&v->pack[BWD_WEIGHT], v->stream, (const void *[]){own, plain, scratch});
    size_t count = (size_t)v->d.k * v->d.c * v->d.r * v->d.s;
#pragma omp parallel for simd schedule(static) if (count > 65536)
    for (size_t i = 0; i < count; i++) dw[i] += plain[i];
    if (db)
        for (int k = 0; k < v->d.k; k++) db[k] += bias[k];
}

void vendor_onednn_version(char *buf, size_t n)
{
    const dnnl_version_t *v = dnnl_version();
    snprintf(buf, n, "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
}

#else

err_t vendor_conv_new(const struct conv_desc *d, int ho, int wo, struct vendor_conv **conv)
{
    (void)d, (void)ho, (void)wo;
    *conv = NULL;
    return ERR_OK;
}
void vendor_conv_free(struct vendor_conv *p)
{
    (void)p;
}
/* the rest is never reached: there is no vendor_conv in this build */
size_t vendor_conv_packed_bytes(const struct vendor_conv *p)
{
    return (void)p, (size_t)0;
}
size_t vendor_conv_packed_bwd_bytes(const struct vendor_conv *p)
{
    return (void)p, (size_t)0;
}
size_t vendor_conv_workspace_bytes(const struct vendor_conv *p)
{
    return (void)p, (size_t)0;
}
void vendor_conv_pack(struct vendor_conv *p, const float *w, void *packed)
{
    (void)p, (void)w, (void)packed;
}
void vendor_conv_pack_bwd(struct vendor_conv *p, const float *w, void *packed)
{
    (void)p, (void)w, (void)packed;
}
void vendor_conv_fwd(struct vendor_conv *p, const float *x, const void *w, const float *bias, float *y, void *ws)
{
    (void)p, (void)x, (void)w, (void)bias, (void)y, (void)ws;
}
void vendor_conv_bwd_data(struct vendor_conv *p, const float *dy, const void *w, float *dx, void *ws)
{
    (void)p, (void)dy, (void)w, (void)dx, (void)ws;
}
void vendor_conv_bwd_weight_acc(struct vendor_conv *p, const float *x, const float *dy, float *dw, float *db, void *ws)
{
    (void)p, (void)x, (void)dy, (void)dw, (void)db, (void)ws;
}
void vendor_onednn_version(char *buf, size_t n)
{
    snprintf(buf, n, "no oneDNN");
}

#endif
