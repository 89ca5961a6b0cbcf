/* dropout: elements become 0 with the call's probability, the others are divided by the rest. The mask is not stored: backward draws it
 * again from the counter. */
#include "core/graph_op.h"
#include "core/ops.h"

struct attr {
    int layer; /* number of the dropout op in its graph */
};

static void drop(struct inst *i, const struct run_ctx *c, const float *from, float *to, bool add)
{
    struct kstream s = c->drop;
    s.layer = (uint16_t)((const struct attr *)i->n->attr)->layer;
    if (c->dropout > 0) i->k->dropout(i->dev, from, c->dropout, &s, to, i->batch, (int)node_per(i->n), add);
    else if (from != to) i->k->scale_to(i->dev, from, 1, to, (size_t)i->batch * node_per(i->n), add);
}

static void dropout_forward(struct inst *i, const struct run_ctx *c)
{
    drop(i, c, i->in[0], i->out, false);
}

static void dropout_backward(struct inst *i, const struct run_ctx *c)
{
    drop(i, c, i->dout, i->din[0], i->add[0]);
}

static const struct op dropout_op = {
    .name = "dropout", .adds = 1, .in_place = true, .forward = dropout_forward, .backward = dropout_backward};

struct node *op_dropout(struct graph *g, struct node *x)
{
    struct node *n = node_new(g, &dropout_op, x->h, x->w, x->c, sizeof(struct attr), 1, (struct node *[]){x});
    ((struct attr *)n->attr)->layer = g->dropouts++;
    return n;
}
