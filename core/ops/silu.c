/* silu: y = x / (1 + exp(-x)). */
#include "core/graph_op.h"
#include "core/ops.h"

static size_t count_of(const struct inst *i)
{
    return (size_t)i->batch * node_per(i->n);
}

static void silu_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    i->k->silu_fwd(i->dev, i->in[0], i->out, count_of(i));
}

static void silu_backward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    i->k->silu_bwd(i->dev, i->in[0], i->dout, i->din[0], count_of(i), i->add[0]);
}

static const struct op silu_op = {
    .name = "silu", .needs_in = 1, .adds = 1, .forward = silu_forward, .backward = silu_backward};

struct node *op_silu(struct graph *g, struct node *x)
{
    return node_new(g, &silu_op, x->h, x->w, x->c, 0, 1, (struct node *[]){x});
}
