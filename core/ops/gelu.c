/* gelu and swiglu: the activations of vision transformers. For frozen feature extractors: no backward, and a compile that needs one says so. */
#include "core/graph_op.h"
#include "core/ops.h"

static void gelu_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    i->k->gelu_fwd(i->dev, i->in[0], i->out, (size_t)i->batch * node_per(i->n));
}

static const struct op gelu_op = {.name = "gelu", .in_place = true, .forward = gelu_forward};

struct node *op_gelu(struct graph *g, struct node *x)
{
    return node_new(g, &gelu_op, x->h, x->w, x->c, 0, 1, (struct node *[]){x});
}

static void swiglu_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    i->k->swiglu_fwd(i->dev, i->in[0], i->out, (size_t)i->batch * (size_t)node_hw(i->n), i->n->c);
}

static const struct op swiglu_op = {.name = "swiglu", .forward = swiglu_forward};

struct node *op_swiglu(struct graph *g, struct node *x)
{
    assert(x->c % 2 == 0);
    return node_new(g, &swiglu_op, x->h, x->w, x->c / 2, 0, 1, (struct node *[]){x});
}
