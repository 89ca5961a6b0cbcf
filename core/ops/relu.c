/* relu: y = max(x, 0). */
#include "core/graph_op.h"
#include "core/ops.h"

static void relu_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    i->k->relu_fwd(i->dev, i->in[0], i->out, (size_t)i->batch * node_per(i->n));
}

static void relu_backward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    i->k->relu_bwd(i->dev, i->out, i->dout, i->din[0], (size_t)i->batch * node_per(i->n), i->add[0]);
}

static const struct op relu_op = {
    .name = "relu", .needs_out = true, .adds = 1, .in_place = true, .forward = relu_forward, .backward = relu_backward};

struct node *op_relu(struct graph *g, struct node *x)
{
    return node_new(g, &relu_op, x->h, x->w, x->c, 0, 1, (struct node *[]){x});
}
