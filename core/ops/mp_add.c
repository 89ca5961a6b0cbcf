/* mp_add: ((1-t) a + t b) / sqrt((1-t)^2 + t^2): a and b are taken as uncorrelated. */
#include <math.h>

#include "core/graph_op.h"
#include "core/ops.h"

struct attr {
    float w[2];
};

static size_t count_of(const struct inst *i)
{
    return (size_t)i->batch * node_per(i->n);
}

static void add_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    const struct attr *a = i->n->attr;
    i->k->blend(i->dev, i->in[0], a->w[0], i->in[1], a->w[1], i->out, count_of(i));
}

static void add_backward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    const struct attr *a = i->n->attr;
    for (int j = 0; j < 2; j++)
        if (i->din[j]) i->k->scale_to(i->dev, i->dout, a->w[j], i->din[j], count_of(i), i->add[j]);
}

static const struct op add_op = {
    .name = "mp_add", .adds = 3, .in_place = true, .forward = add_forward, .backward = add_backward};

struct node *op_mp_add(struct graph *g, struct node *a, struct node *b, double t)
{
    assert(a->h == b->h && a->w == b->w && a->c == b->c && t >= 0 && t <= 1);
    double norm = sqrt((1 - t) * (1 - t) + t * t);
    struct node *n = node_new(g, &add_op, a->h, a->w, a->c, sizeof(struct attr), 2, (struct node *[]){a, b});
    *(struct attr *)n->attr = (struct attr){{(float)((1 - t) / norm), (float)(t / norm)}};
    return n;
}
