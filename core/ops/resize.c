/* resize: bilinear, to any size. */
#include "core/graph_op.h"
#include "core/ops.h"

static struct resize_desc desc_of(const struct inst *i)
{
    struct resize_desc d = *(const struct resize_desc *)i->n->attr;
    d.n = i->batch;
    return d;
}

static void resize_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    struct resize_desc d = desc_of(i);
    i->k->resize_fwd(i->dev, &d, i->in[0], i->out);
}

static void resize_backward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    struct resize_desc d = desc_of(i);
    i->k->resize_bwd(i->dev, &d, i->dout, i->din[0], i->add[0]);
}

static const struct op resize_op = {
    .name = "resize", .adds = 1, .forward = resize_forward, .backward = resize_backward};

struct node *op_resize(struct graph *g, struct node *x, int h, int w, bool corner)
{
    assert(h > 0 && w > 0);
    struct node *n = node_new(g, &resize_op, h, w, x->c, sizeof(struct resize_desc), 1, (struct node *[]){x});
    *(struct resize_desc *)n->attr =
        (struct resize_desc){.h = x->h, .w = x->w, .c = x->c, .ho = h, .wo = w, .corner = corner};
    return n;
}
