/* mp_concat: [wa a, wb b] along channels, so that the parts contribute to the norm as 1-t to t whatever their widths Na, Nb:
 * w = sqrt((Na + Nb) / ((1-t)^2 + t^2)) times (1-t) / sqrt(Na), t / sqrt(Nb). */
#include <math.h>

#include "core/graph_op.h"
#include "core/ops.h"

struct attr {
    float w[2];
};

static size_t rows_of(const struct inst *i)
{
    return (size_t)i->batch * (size_t)node_hw(i->n);
}

static void concat_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    const struct attr *a = i->n->attr;
    i->k->concat_scaled(i->dev, i->in[0], a->w[0], i->in[1], a->w[1], i->out, rows_of(i), i->n->in[0]->c,
                        i->n->in[1]->c);
}

static void concat_backward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    const struct attr *a = i->n->attr;
    i->k->split_scaled(i->dev, i->dout, i->din[0], a->w[0], i->din[1], a->w[1], rows_of(i), i->n->in[0]->c,
                       i->n->in[1]->c, i->add[0], i->add[1]);
}

static const struct op concat_op = {
    .name = "mp_concat", .adds = 3, .forward = concat_forward, .backward = concat_backward};

struct node *op_mp_concat(struct graph *g, struct node *a, struct node *b, double t)
{
    assert(a->h == b->h && a->w == b->w && t >= 0 && t <= 1);
    double norm = sqrt((a->c + b->c) / ((1 - t) * (1 - t) + t * t));
    struct node *n = node_new(g, &concat_op, a->h, a->w, a->c + b->c, sizeof(struct attr), 2, (struct node *[]){a, b});
    *(struct attr *)n->attr = (struct attr){{(float)(norm * (1 - t) / sqrt(a->c)), (float)(norm * t / sqrt(b->c))}};
    return n;
}
