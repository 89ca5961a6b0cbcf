/* group_norm: normalisation over groups of channels, then SiLU, then dropout, in one pass. The mask is not stored: backward draws it
 * again from the counter. */
#include "core/graph_op.h"
#include "core/ops.h"

enum { X, GAMMA, BETA };
struct attr {
    struct norm_opts o;
    int layer; /* number of the dropout op in its graph */
};

static struct norm_desc desc_of(const struct inst *i)
{
    const struct attr *a = i->n->attr;
    return (struct norm_desc){.n = i->batch,
                              .hw = node_hw(i->n),
                              .c = i->n->c,
                              .groups = a->o.groups,
                              .eps = (float)a->o.eps,
                              .silu = a->o.silu,
                              .dropout = a->o.dropout};
}

static struct kstream stream_of(const struct inst *i, const struct run_ctx *c)
{
    struct kstream s = c->drop;
    s.layer = (uint16_t)((const struct attr *)i->n->attr)->layer;
    return s;
}

static err_t norm_plan(struct inst *i)
{
    const struct attr *a = i->n->attr;
    i->saved_floats = (size_t)i->batch * (size_t)a->o.groups * 2; /* mean, 1/std */
    if (i->train) i->ws_floats = (size_t)i->batch * (size_t)i->n->c * 2;
    return ERR_OK;
}

static void norm_forward(struct inst *i, const struct run_ctx *c)
{
    struct norm_desc d = desc_of(i);
    struct kstream s = stream_of(i, c);
    i->k->group_norm_fwd(i->dev, &d, i->in[X], i->in[GAMMA], i->in[BETA], d.dropout ? c->dropout : 0, &s, i->out,
                         i->saved);
}

static void norm_backward(struct inst *i, const struct run_ctx *c)
{
    struct norm_desc d = desc_of(i);
    struct kstream s = stream_of(i, c);
    i->k->group_norm_bwd(i->dev, &d, i->in[X], i->in[GAMMA], i->in[BETA], d.dropout ? c->dropout : 0, &s, i->saved,
                         i->dout, i->din[X], i->add[X], i->din[GAMMA], i->din[BETA], i->ws);
}

static const struct op norm_op = {.name = "group_norm",
                                  .needs_in = 1 << X,
                                  .adds = 1 << X,
                                  .plan = norm_plan,
                                  .forward = norm_forward,
                                  .backward = norm_backward};

struct node *op_group_norm(struct graph *g, struct node *x, struct node *gamma, struct node *beta, struct norm_opts o)
{
    assert(o.groups > 0 && x->c % o.groups == 0 && node_param(gamma)->count == (size_t)x->c);
    struct node *n = node_new(g, &norm_op, x->h, x->w, x->c, sizeof(struct attr), 3, (struct node *[]){x, gamma, beta});
    *(struct attr *)n->attr = (struct attr){.o = o, .layer = o.dropout ? g->dropouts++ : 0};
    return n;
}
