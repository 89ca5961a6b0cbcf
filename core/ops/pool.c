/* pool: the largest value or the mean of square windows. */
#include "core/graph_op.h"
#include "core/ops.h"

static struct pool_desc desc_of(const struct inst *i)
{
    struct pool_desc d = *(const struct pool_desc *)i->n->attr;
    d.n = i->batch;
    return d;
}

static void pool_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    struct pool_desc d = desc_of(i);
    i->k->pool_fwd(i->dev, &d, i->in[0], i->out);
}

static void pool_backward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    struct pool_desc d = desc_of(i);
    i->k->pool_bwd(i->dev, &d, i->in[0], i->dout, i->din[0], i->add[0]);
}

static const struct op pool_op = {
    .name = "pool", .needs_in = 1, .adds = 1, .forward = pool_forward, .backward = pool_backward};

struct node *op_pool(struct graph *g, struct node *x, enum pool_kind kind, int size, int stride, int pad)
{
    int h = (x->h + 2 * pad - size) / stride + 1, w = (x->w + 2 * pad - size) / stride + 1;
    assert(size > 0 && stride > 0 && pad >= 0 && pad < size && h > 0 && w > 0);
    struct node *n = node_new(g, &pool_op, h, w, x->c, sizeof(struct pool_desc), 1, (struct node *[]){x});
    *(struct pool_desc *)n->attr =
        (struct pool_desc){.h = x->h, .w = x->w, .c = x->c, .size = size, .stride = stride, .pad = pad, .kind = kind};
    return n;
}
