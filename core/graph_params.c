/* graph_params: a set of values for a graph's parameters, and its weight program: what is computed from the values once per change
 * (EDM2's weights, then packed convolution weights), kept here so that every program running on this set shares it. */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/graph_op.h"
#include "core/graph_params.h"

struct packed { /* one result of the weight program */
    struct packed *next;
    const struct node *node;
    bool backward;
    struct conv_desc desc;
    size_t bytes;
    void *data;
    uint64_t version; /* of the values it was made from; 0: never made */
};

struct params {
    const struct graph *graph;
    const struct kernels *k;
    struct kdev *dev;
    float *arena, *buffers, *weights;
    uint64_t uid, version, weights_version; /* of the values that the weights were made from */
    struct packed *packed;
};

err_t params_new(struct params **out, const struct graph *g, const struct kernels *k, struct kdev *dev)
{
    static atomic_uint_fast64_t uids;
    struct params *p = mem_alloc(sizeof *p);
    *p = (struct params){.graph = g, .k = k, .dev = dev, .uid = atomic_fetch_add(&uids, 1) + 1, .version = 1};
    size_t floats = graph_arena_floats(g), buffers = graph_buffer_floats(g);
    p->arena = k->alloc(dev, (floats ? floats : 1) * sizeof(float));
    p->buffers = k->alloc(dev, (buffers ? buffers : 1) * sizeof(float));
    p->weights = k->alloc(dev, (g->weight_floats ? g->weight_floats : 1) * sizeof(float));
    if (!p->arena || !p->buffers || !p->weights) {
        params_free(p);
        return fail(ERR_DEVICE_MEM, "a parameter set of %.1f MiB does not fit",
                    (double)(floats + g->weight_floats) * 4 / 1048576);
    }
    for (int i = 0; i < graph_nparams(g); i++)
        if (g->buffers[i])
            k->upload(dev, p->buffers + g->params[i].offset, g->buffers[i], g->params[i].count * sizeof(float));
    *out = p;
    return ERR_OK;
}

void params_free(struct params *p)
{
    if (!p) return;
    for (struct packed *q = p->packed, *next; q; q = next) {
        next = q->next;
        p->k->free(p->dev, q->data);
        mem_free(q);
    }
    if (p->arena) p->k->free(p->dev, p->arena);
    if (p->buffers) p->k->free(p->dev, p->buffers);
    if (p->weights) p->k->free(p->dev, p->weights);
    mem_free(p);
}

float *params_arena(struct params *p)
{
    return p->arena;
}
void params_changed(struct params *p)
{
    p->version++;
}
uint64_t params_uid(const struct params *p)
{
    return p->uid;
}

static float *stored(const struct params *p, int i)
{
    const struct param_info *info = graph_param_info(p->graph, i);
    return (info->buffer ? p->buffers : p->arena) + info->offset;
}

const float *params_value(const struct params *p, const struct node *n)
{
    return n->kind == NODE_WEIGHT ? p->weights + ((const struct weight *)n->attr)->offset : stored(p, n->param);
}

void params_copy(struct params *dst, const struct params *src)
{
    assert(dst->graph == src->graph);
    dst->k->copy(dst->dev, dst->arena, src->arena, graph_arena_floats(dst->graph));
    dst->k->copy(dst->dev, dst->buffers, src->buffers, graph_buffer_floats(dst->graph));
    params_changed(dst);
}

/* ---- initial values ---------------------------------------------------------------------------------------------------- */

static double draw(const struct init *init, const struct rng *r, uint32_t param, uint32_t e)
{
    double u01 = rng_uniform(r, param, e), u = 2 * u01 - 1;
    switch (init->kind) {
    case INIT_ZERO: return 0;
    case INIT_ONE: return 1;
    case INIT_XAVIER_UNIFORM: return sqrt(6.0 / (init->fan_in + init->fan_out)) * u;
    case INIT_KAIMING_UNIFORM: return sqrt(3.0 / init->fan_in) * u;
    case INIT_KAIMING_NORMAL: return sqrt(1.0 / init->fan_in) * (double)rng_normal(r, param, e);
    case INIT_NORMAL: return (double)rng_normal(r, param, e);
    case INIT_UNIFORM: return u01;
    }
    return 0;
}

void params_init(struct params *p, uint64_t seed)
{
    struct rng r = {.seed = seed, .purpose = RNG_INIT};
    for (int i = 0; i < graph_nparams(p->graph); i++) {
        const struct param_info *info = graph_param_info(p->graph, i);
        if (p->graph->buffers[i]) continue;
        float *v = mem_array(info->count, sizeof *v);
        for (size_t e = 0; e < info->count; e++)
            v[e] = (float)(info->init.scale * draw(&info->init, &r, (uint32_t)i, (uint32_t)e));
        params_set(p, i, v);
        mem_free(v);
    }
}

/* ---- in and out, in PyTorch's order ---------------------------------------------------------------------------------------- */

/* Convolution weights are KRSC inside and KCRS outside. to_file: from inside to outside. */
static void reorder(const struct param_info *p, const float *in, float *out, bool to_file)
{
    if (p->ndim != 4 || p->buffer) {
        memcpy(out, in, p->count * sizeof *out);
        return;
    }
    size_t c = (size_t)p->dims[1], rs = (size_t)p->dims[2] * (size_t)p->dims[3];
    for (size_t k = 0; k < (size_t)p->dims[0]; k++)
        for (size_t j = 0; j < c; j++)
            for (size_t f = 0; f < rs; f++) {
                size_t inside = (k * rs + f) * c + j, outside = (k * c + j) * rs + f;
                if (to_file) out[outside] = in[inside];
                else out[inside] = in[outside];
            }
}

static void get(const struct kernels *k, struct kdev *dev, const struct param_info *info, const float *at, float *out)
{
    float *tmp = mem_array(info->count, sizeof *tmp);
    k->download(dev, tmp, at, info->count * sizeof *tmp);
    reorder(info, tmp, out, true);
    mem_free(tmp);
}

static void set(const struct kernels *k, struct kdev *dev, const struct param_info *info, float *at, const float *in)
{
    float *tmp = mem_array(info->count, sizeof *tmp);
    reorder(info, in, tmp, false);
    k->upload(dev, at, tmp, info->count * sizeof *tmp);
    mem_free(tmp);
}

void params_get(const struct params *p, int i, float *out)
{
    get(p->k, p->dev, graph_param_info(p->graph, i), stored(p, i), out);
}

void params_set(struct params *p, int i, const float *in)
{
    const struct param_info *info = graph_param_info(p->graph, i);
    set(p->k, p->dev, info, stored(p, i), in);
    params_changed(p);
}

void arena_get(const struct graph *g, const struct kernels *k, struct kdev *dev, const float *arena, int i, float *out)
{
    const struct param_info *info = graph_param_info(g, i);
    assert(!info->buffer);
    get(k, dev, info, arena + info->offset, out);
}

void arena_set(const struct graph *g, const struct kernels *k, struct kdev *dev, float *arena, int i, const float *in)
{
    const struct param_info *info = graph_param_info(g, i);
    assert(!info->buffer);
    set(k, dev, info, arena + info->offset, in);
}

/* ---- weight program ------------------------------------------------------------------------------------------------------------ */

static struct weight_call call_of(const struct params *p, const struct node *n)
{
    return (struct weight_call){.k = p->k,
                                .dev = p->dev,
                                .n = n,
                                .w = params_value(p, n->in[0]),
                                .gain = n->in[1] ? params_value(p, n->in[1]) : NULL};
}

void params_ready(struct params *p)
{
    if (p->weights_version == p->version) return;
    for (int i = 0; i < p->graph->nweights; i++) {
        const struct node *n = p->graph->weights[i];
        struct weight_call c = call_of(p, n);
        weight_forward(&c, p->weights + ((const struct weight *)n->attr)->offset);
    }
    p->weights_version = p->version;
}

void params_force_norm(struct params *p)
{
    for (int i = 0; i < p->graph->nweights; i++) {
        const struct node *n = p->graph->weights[i];
        struct weight_call c = call_of(p, n);
        weight_normalize(&c, stored(p, n->param));
    }
    if (p->graph->nweights) params_changed(p);
}

static struct packed *find_packed(const struct params *p, const struct node *n, bool backward,
                                  const struct conv_desc *d, size_t bytes)
{
    struct packed *q = p->packed;
    for (; q; q = q->next) {
        const struct conv_desc *e = &q->desc;
        if (q->node == n && q->backward == backward && q->bytes == bytes && e->n == d->n && e->h == d->h &&
            e->w == d->w && e->c == d->c && e->k == d->k && e->r == d->r && e->s == d->s && e->stride == d->stride &&
            e->pad == d->pad && e->pad_more == d->pad_more)
            return q;
    }
    return NULL;
}

static size_t packed_bytes(const struct params *p, const struct conv *conv, bool backward)
{
    return backward ? p->k->conv_packed_bwd_bytes(conv) : p->k->conv_packed_bytes(conv);
}

err_t params_reserve(struct params *p, const struct node *n, struct conv *conv, const struct conv_desc *desc,
                     bool backward)
{
    size_t bytes = packed_bytes(p, conv, backward);
    if (!bytes || find_packed(p, n, backward, desc, bytes)) return ERR_OK;
    void *data = p->k->alloc(p->dev, bytes);
    if (!data) return fail(ERR_DEVICE_MEM, "packed weights of %.1f MiB do not fit", (double)bytes / 1048576);
    struct packed *q = mem_alloc(sizeof *q);
    *q = (struct packed){
        .next = p->packed, .node = n, .backward = backward, .desc = *desc, .bytes = bytes, .data = data};
    p->packed = q;
    return ERR_OK;
}

const void *params_packed(struct params *p, const struct node *n, struct conv *conv, const struct conv_desc *desc,
                          bool backward)
{
    size_t bytes = packed_bytes(p, conv, backward);
    const float *plain = params_value(p, n);
    if (!bytes) return plain;
    struct packed *q = find_packed(p, n, backward, desc, bytes);
    assert(q); /* program_bind */
    if (q->version != p->version) {
        (backward ? p->k->conv_pack_bwd : p->k->conv_pack)(conv, plain, q->data);
        q->version = p->version;
    }
    return q->data;
}
