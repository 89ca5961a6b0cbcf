/* add_table: y = x + t, one value of the parameter t for every element of a sample (position embeddings). first_pixel: the pixel at the top
 * left, such as a transformer's class token. */
#include "core/graph_op.h"
#include "core/ops.h"

enum { X, T };

static void table_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    i->k->add_bias(i->dev, i->in[X], i->in[T], i->out, (size_t)i->batch, (int)node_per(i->n));
}

static void table_backward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    if (i->din[T]) i->k->sum_rows_acc(i->dev, i->dout, i->din[T], (size_t)i->batch, (int)node_per(i->n));
    if (i->din[X] && i->din[X] != i->dout)
        i->k->scale_to(i->dev, i->dout, 1, i->din[X], (size_t)i->batch * node_per(i->n), i->add[X]);
}

static const struct op table_op = {.name = "add_table",
                                   .adds = 1 << X,
                                   .in_place = true,
                                   .grad_passes = true,
                                   .forward = table_forward,
                                   .backward = table_backward};

struct node *op_add_table(struct graph *g, struct node *x, struct node *table)
{
    assert(node_param(table)->count == node_per(x));
    return node_new(g, &table_op, x->h, x->w, x->c, 0, 2, (struct node *[]){x, table});
}

static void first_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    int all = (int)node_per(i->n->in[0]);
    i->k->split(i->dev, i->in[0], i->out, NULL, (size_t)i->batch, i->n->c, all - i->n->c, false, false);
}

static const struct op first_op = {.name = "first_pixel", .forward = first_forward};

struct node *op_first_pixel(struct graph *g, struct node *x)
{
    return node_new(g, &first_op, 1, 1, x->c, 0, 1, (struct node *[]){x});
}
