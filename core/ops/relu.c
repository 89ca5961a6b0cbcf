/* relu: y = max(x, 0). For frozen feature extractors; it has no backward yet, and a compile that needs one says so. */
#include "core/graph_op.h"
#include "core/ops.h"

static void relu_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    i->k->relu_fwd(i->dev, i->in[0], i->out, (size_t)i->batch * node_per(i->n));
}

static const struct op relu_op = {.name = "relu", .in_place = true, .forward = relu_forward};

struct node *op_relu(struct graph *g, struct node *x)
{
    return node_new(g, &relu_op, x->h, x->w, x->c, 0, 1, (struct node *[]){x});
}
