/* add: y = scale * (a + b), and y = scale * a where there is no b. */
#include "core/graph_op.h"
#include "core/ops.h"

struct attr {
    double scale;
};

static size_t count_of(const struct inst *i)
{
    return (size_t)i->batch * node_per(i->n);
}
static float scale_of(const struct inst *i)
{
    return (float)((const struct attr *)i->n->attr)->scale;
}

static void add_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    i->k->add_scaled(i->dev, i->in[0], i->in[1], scale_of(i), i->out, count_of(i));
}

static void add_backward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    for (int j = 0; j < i->n->nin; j++)
        if (i->din[j]) i->k->scale_to(i->dev, i->dout, scale_of(i), i->din[j], count_of(i), i->add[j]);
}

static const struct op add_op = {
    .name = "add", .adds = 3, .in_place = true, .forward = add_forward, .backward = add_backward};

struct node *op_add(struct graph *g, struct node *a, struct node *b, double scale)
{
    assert(a->h == b->h && a->w == b->w && a->c == b->c);
    struct node *n = node_new(g, &add_op, a->h, a->w, a->c, sizeof(struct attr), 2, (struct node *[]){a, b});
    *(struct attr *)n->attr = (struct attr){scale};
    return n;
}

struct node *op_scale(struct graph *g, struct node *x, double scale)
{
    struct node *n = node_new(g, &add_op, x->h, x->w, x->c, sizeof(struct attr), 1, (struct node *[]){x});
    *(struct attr *)n->attr = (struct attr){scale};
    return n;
}
