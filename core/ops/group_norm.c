/* group_norm: normalisation over groups of channels, then SiLU, then dropout, in one pass. The mask is not stored: backward draws it
 * again from the counter. An adaptive scale and shift, one pair per channel and sample, are folded into gamma and beta, which then
 * have a row for each sample: the pass over the pixels stays the same. */
#include "core/graph_op.h"
#include "core/ops.h"

enum { X, GAMMA, BETA, E };
struct attr {
    struct norm_opts o;
    int layer; /* number of the dropout op in its graph */
};

static struct norm_desc desc_of(const struct inst *i)
{
    const struct attr *a = i->n->attr;
    return (struct norm_desc){.n = i->batch,
                              .hw = node_hw(i->n),
                              .c = i->n->c,
                              .groups = a->o.groups,
                              .eps = (float)a->o.eps,
                              .per_sample = i->n->in[E],
                              .silu = a->o.silu,
                              .dropout = a->o.dropout};
}

static struct kstream stream_of(const struct inst *i, const struct run_ctx *c)
{
    struct kstream s = c->drop;
    s.layer = (uint16_t)((const struct attr *)i->n->attr)->layer;
    return s;
}

static err_t norm_plan(struct inst *i)
{
    const struct attr *a = i->n->attr;
    size_t rows = (size_t)i->batch * (size_t)i->n->c, stats = (size_t)i->batch * (size_t)a->o.groups * 2;
    i->saved_floats = stats + (i->n->in[E] ? 2 * rows : 0); /* mean, 1/std; then gamma and beta by sample */
    if (i->train) i->ws_floats = 2 * rows + (i->n->in[E] ? 2 * rows : 0);
    return ERR_OK;
}

/* gamma and beta by sample, behind the statistics */
static float *rows_of(const struct inst *i, int which)
{
    const struct attr *a = i->n->attr;
    return i->saved + (size_t)i->batch * (size_t)a->o.groups * 2 + (size_t)which * (size_t)i->batch * (size_t)i->n->c;
}

static void norm_forward(struct inst *i, const struct run_ctx *c)
{
    struct norm_desc d = desc_of(i);
    struct kstream s = stream_of(i, c);
    const float *gamma = i->in[GAMMA], *beta = i->in[BETA];
    if (d.per_sample) {
        i->k->modulate(i->dev, gamma, beta, i->in[E], rows_of(i, 0), rows_of(i, 1), d.n, d.c);
        gamma = rows_of(i, 0);
        beta = rows_of(i, 1);
    }
    i->k->group_norm_fwd(i->dev, &d, i->in[X], gamma, beta, d.dropout ? c->dropout : 0, &s, i->out, i->saved);
}

static void norm_backward(struct inst *i, const struct run_ctx *c)
{
    struct norm_desc d = desc_of(i);
    struct kstream s = stream_of(i, c);
    float p = d.dropout ? c->dropout : 0;
    if (!d.per_sample) {
        i->k->group_norm_bwd(i->dev, &d, i->in[X], i->in[GAMMA], i->in[BETA], p, &s, i->saved, i->dout, i->din[X],
                             i->add[X], i->din[GAMMA], i->din[BETA], i->ws);
        return;
    }
    float *dg = i->ws + 2 * (size_t)d.n * (size_t)d.c, *db = dg + (size_t)d.n * (size_t)d.c;
    i->k->group_norm_bwd(i->dev, &d, i->in[X], rows_of(i, 0), rows_of(i, 1), p, &s, i->saved, i->dout, i->din[X],
                         i->add[X], dg, db, i->ws);
    i->k->modulate_bwd(i->dev, i->in[GAMMA], i->in[BETA], i->in[E], dg, db, i->din[E], i->add[E], i->din[GAMMA],
                       i->din[BETA], d.n, d.c);
}

static const struct op norm_op = {.name = "group_norm",
                                  .needs_in = 1 << X | 1 << E,
                                  .adds = 1 << X | 1 << E,
                                  .plan = norm_plan,
                                  .forward = norm_forward,
                                  .backward = norm_backward};

struct node *op_group_norm_adaptive(struct graph *g, struct node *x, struct node *gamma, struct node *beta,
                                    struct node *e, struct norm_opts o)
{
    assert(o.groups > 0 && x->c % o.groups == 0 && node_param(gamma)->count == (size_t)x->c);
    assert(!e || (node_hw(e) == 1 && e->c == 2 * x->c));
    struct node *n =
        node_new(g, &norm_op, x->h, x->w, x->c, sizeof(struct attr), 4, (struct node *[]){x, gamma, beta, e});
    *(struct attr *)n->attr = (struct attr){.o = o, .layer = o.dropout ? g->dropouts++ : 0};
    return n;
}

struct node *op_group_norm(struct graph *g, struct node *x, struct node *gamma, struct node *beta, struct norm_opts o)
{
    return op_group_norm_adaptive(g, x, gamma, beta, NULL, o);
}
