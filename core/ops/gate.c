/* gate: y = x (1 + e), one factor per sample and channel. */
#include "core/graph_op.h"
#include "core/ops.h"

enum { X, E };

static void gate_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    i->k->gate_channel(i->dev, i->in[X], i->in[E], i->out, i->batch, node_hw(i->n), i->n->c, false);
}

static void gate_backward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    int hw = node_hw(i->n), ch = i->n->c;
    if (i->din[E]) i->k->gate_channel_bwd(i->dev, i->in[X], i->dout, i->din[E], i->batch, hw, ch, i->add[E]);
    if (i->din[X]) i->k->gate_channel(i->dev, i->dout, i->in[E], i->din[X], i->batch, hw, ch, i->add[X]);
}

static const struct op gate_op = {
    .name = "gate", .needs_in = 3, .adds = 3, .forward = gate_forward, .backward = gate_backward};

struct node *op_gate(struct graph *g, struct node *x, struct node *e)
{
    assert(node_hw(e) == 1 && e->c == x->c);
    return node_new(g, &gate_op, x->h, x->w, x->c, 0, 2, (struct node *[]){x, e});
}
