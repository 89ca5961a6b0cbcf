/* mp_silu: SiLU over its standard deviation on N(0, 1). */
#include "core/graph_op.h"
#include "core/ops.h"

static const float unit = 1 / 0.596f;

static size_t count_of(const struct inst *i)
{
    return (size_t)i->batch * node_per(i->n);
}

static void silu_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    i->k->silu_scaled_fwd(i->dev, i->in[0], unit, i->out, count_of(i));
}

static void silu_backward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    i->k->silu_scaled_bwd(i->dev, i->in[0], unit, i->dout, i->din[0], count_of(i), i->add[0]);
}

static const struct op silu_op = {
    .name = "mp_silu", .needs_in = 1, .adds = 1, .forward = silu_forward, .backward = silu_backward};

struct node *op_mp_silu(struct graph *g, struct node *x)
{
    return node_new(g, &silu_op, x->h, x->w, x->c, 0, 1, (struct node *[]){x});
}
