/* concat: [a, b] along channels. */
#include "core/graph_op.h"
#include "core/ops.h"

static size_t rows_of(const struct inst *i)
{
    return (size_t)i->batch * (size_t)node_hw(i->n);
}

static void concat_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    i->k->concat(i->dev, i->in[0], i->in[1], i->out, rows_of(i), i->n->in[0]->c, i->n->in[1]->c);
}

static void concat_backward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    i->k->split(i->dev, i->dout, i->din[0], i->din[1], rows_of(i), i->n->in[0]->c, i->n->in[1]->c, i->add[0],
                i->add[1]);
}

static const struct op concat_op = {
    .name = "concat", .adds = 3, .forward = concat_forward, .backward = concat_backward};

struct node *op_concat(struct graph *g, struct node *a, struct node *b)
{
    assert(a->h == b->h && a->w == b->w);
    return node_new(g, &concat_op, a->h, a->w, a->c + b->c, 0, 2, (struct node *[]){a, b});
}
