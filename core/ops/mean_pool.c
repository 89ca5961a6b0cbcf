/* mean_pool: y[n, c] = mean of x over pixels. For frozen feature extractors; it has no backward yet, and a compile that needs one says so. */
#include "core/graph_op.h"
#include "core/ops.h"

static void pool_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    i->k->mean_pool(i->dev, i->in[0], i->out, i->batch, node_hw(i->n->in[0]), i->n->c);
}

static const struct op pool_op = {.name = "mean_pool", .forward = pool_forward};

struct node *op_mean_pool(struct graph *g, struct node *x)
{
    return node_new(g, &pool_op, 1, 1, x->c, 0, 1, (struct node *[]){x});
}
