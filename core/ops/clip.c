/* clip: x limited to [-limit, limit]. The gradient passes inside the closed interval, so the input is read again. */
#include "core/graph_op.h"
#include "core/ops.h"

struct attr {
    float limit;
};

static size_t count_of(const struct inst *i)
{
    return (size_t)i->batch * node_per(i->n);
}

static void clip_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    i->k->clip_fwd(i->dev, i->in[0], ((const struct attr *)i->n->attr)->limit, i->out, count_of(i));
}

static void clip_backward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    i->k->clip_bwd(i->dev, i->in[0], ((const struct attr *)i->n->attr)->limit, i->dout, i->din[0], count_of(i),
                   i->add[0]);
}

static const struct op clip_op = {
    .name = "clip", .needs_in = 1, .adds = 1, .in_place = true, .forward = clip_forward, .backward = clip_backward};

struct node *op_clip(struct graph *g, struct node *x, double limit)
{
    assert(limit > 0);
    struct node *n = node_new(g, &clip_op, x->h, x->w, x->c, sizeof(struct attr), 1, (struct node *[]){x});
    ((struct attr *)n->attr)->limit = (float)limit;
    return n;
}
