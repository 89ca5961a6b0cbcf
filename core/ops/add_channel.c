/* add_channel: y[n, p, c] = x[n, p, c] + e[n, c]: an embedding added to every pixel. */
#include "core/graph_op.h"
#include "core/ops.h"

enum { X, E };

static void add_channel_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    i->k->add_channel(i->dev, i->in[X], i->in[E], i->out, i->batch, node_hw(i->n), i->n->c);
}

static void add_channel_backward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    if (i->din[E]) i->k->add_channel_bwd(i->dev, i->dout, i->din[E], i->batch, node_hw(i->n), i->n->c, i->add[E]);
    if (i->din[X] && i->din[X] != i->dout)
        i->k->scale_to(i->dev, i->dout, 1, i->din[X], (size_t)i->batch * node_per(i->n), i->add[X]);
}

static const struct op add_channel_op = {.name = "add_channel",
                                         .adds = 1 << X | 1 << E,
                                         .in_place = true,
                                         .grad_passes = true,
                                         .forward = add_channel_forward,
                                         .backward = add_channel_backward};

struct node *op_add_channel(struct graph *g, struct node *x, struct node *e)
{
    assert(node_hw(e) == 1 && e->c == x->c);
    return node_new(g, &add_channel_op, x->h, x->w, x->c, 0, 2, (struct node *[]){x, e});
}
