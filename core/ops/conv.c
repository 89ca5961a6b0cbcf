/* conv: y = w * x + bias. */
#include "core/graph_op.h"
#include "core/ops.h"

enum { X, W, BIAS };
struct state {
    struct conv_desc desc;
    struct conv *conv;
};

static void conv_flops(const struct node *n, struct flops *f)
{
    const struct param_info *w = node_param(n->in[W]);
    double macs = (double)node_hw(n) * (double)w->count;
    double *kind = w->dims[2] == 3 && w->dims[3] == 3   ? &f->conv3x3
                   : w->dims[2] == 1 && w->dims[3] == 1 ? &f->conv1x1
                                                        : &f->conv_other;
    *kind += 2 * macs;
}

static err_t conv_plan(struct inst *i)
{
    const struct node *n = i->n, *x = n->in[X];
    const struct param_info *w = node_param(n->in[W]);
    const struct conv_opts *o = n->attr;
    struct state *s = i->state = mem_alloc(sizeof *s);
    s->desc = (struct conv_desc){.n = i->batch,
                                 .h = x->h,
                                 .w = x->w,
                                 .c = x->c,
                                 .k = n->c,
                                 .r = w->dims[2],
                                 .s = w->dims[3],
                                 .stride = o->stride,
                                 .pad = o->pad_h,
                                 .pad_more = o->pad_w - o->pad_h,
                                 .bwd_data = i->wants[X],
                                 .bwd_weight = i->wants[W]};
    TRY(i->k->conv_new(i->dev, &s->desc, &s->conv));
    i->ws_floats = (i->k->conv_workspace_bytes(s->conv) + sizeof(float) - 1) / sizeof(float);
    return ERR_OK;
}

static void conv_unplan(struct inst *i)
{
    struct state *s = i->state;
    if (s && s->conv) i->k->conv_free(s->conv);
    mem_free(s);
}

static err_t conv_bind(struct inst *i)
{
    struct state *s = i->state;
    TRY(inst_reserve(i, W, s->conv, &s->desc, false));
    return i->wants[X] ? inst_reserve(i, W, s->conv, &s->desc, true) : ERR_OK;
}

static void conv_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    struct state *s = i->state;
    i->k->conv_fwd(s->conv, i->in[X], inst_packed(i, W, s->conv, &s->desc, false), i->in[BIAS], i->out, i->ws);
}

static void conv_backward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    struct state *s = i->state;
    if (i->din[W]) i->k->conv_bwd_weight_acc(s->conv, i->in[X], i->dout, i->din[W], i->din[BIAS], i->ws);
    if (i->din[X]) i->k->conv_bwd_data(s->conv, i->dout, inst_packed(i, W, s->conv, &s->desc, true), i->din[X], i->ws);
}

static const struct op conv_op = {.name = "conv",
                                  .needs_in = 1 << X,
                                  .flops = conv_flops,
                                  .plan = conv_plan,
                                  .unplan = conv_unplan,
                                  .bind = conv_bind,
                                  .forward = conv_forward,
                                  .backward = conv_backward};

struct node *op_conv_opts(struct graph *g, struct node *x, struct node *w, struct node *bias, struct conv_opts o)
{
    const struct param_info *p = node_param(w);
    assert(p->ndim == 4 && p->dims[1] == x->c && (!bias || node_param(bias)->count == (size_t)p->dims[0]));
    int ho = (x->h + 2 * o.pad_h - p->dims[2]) / o.stride + 1, wo = (x->w + 2 * o.pad_w - p->dims[3]) / o.stride + 1;
    assert(ho > 0 && wo > 0 && o.pad_h < p->dims[2] && o.pad_w < p->dims[3]);
    struct node *n = node_new(g, &conv_op, ho, wo, p->dims[0], sizeof o, 3, (struct node *[]){x, w, bias});
    *(struct conv_opts *)n->attr = o;
    return n;
}

struct node *op_conv(struct graph *g, struct node *x, struct node *w, struct node *bias)
{
    const struct param_info *p = node_param(w);
    assert(p->ndim == 4 && p->dims[2] == p->dims[3] && p->dims[2] % 2 == 1);
    return op_conv_opts(g, x, w, bias, (struct conv_opts){1, p->dims[2] / 2, p->dims[2] / 2});
}
