/* append_one: one more channel, of ones: it is what replaces biases. */
#include "core/graph_op.h"
#include "core/ops.h"

static size_t rows_of(const struct inst *i)
{
    return (size_t)i->batch * (size_t)node_hw(i->n);
}

static err_t one_plan(struct inst *i)
{
    i->ws_floats = rows_of(i);
    return ERR_OK;
}

static void one_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    i->k->fill(i->dev, i->ws, 1, rows_of(i));
    i->k->concat(i->dev, i->in[0], i->ws, i->out, rows_of(i), i->n->c - 1, 1);
}

static void one_backward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    i->k->split(i->dev, i->dout, i->din[0], NULL, rows_of(i), i->n->c - 1, 1, i->add[0], false);
}

static const struct op one_op = {
    .name = "append_one", .adds = 1, .plan = one_plan, .forward = one_forward, .backward = one_backward};

struct node *op_append_one(struct graph *g, struct node *x)
{
    return node_new(g, &one_op, x->h, x->w, x->c + 1, 0, 1, (struct node *[]){x});
}
