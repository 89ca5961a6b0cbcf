/* linear: y[n, k] = sum_c x[n, c] w[k, c] + bias[k], for every pixel of a sample. */
#include "core/graph_op.h"
#include "core/ops.h"

enum { X, W, BIAS };

static int rows_of(const struct inst *i)
{
    return i->batch * node_hw(i->n);
}

static void linear_flops(const struct node *n, struct flops *f)
{
    f->linear += 2 * (double)node_hw(n) * (double)node_param(n->in[W])->count;
}

static void linear_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    int in = i->n->in[X]->c, out = i->n->c;
    struct gemm_desc g = {
        .m = rows_of(i), .n = out, .k = in, .tb = true, .lda = in, .ldb = in, .ldc = out, .batch = 1, .alpha = 1};
    i->k->gemm(i->dev, &g, i->in[X], i->in[W], i->out);
    if (i->in[BIAS]) i->k->add_bias(i->dev, i->out, i->in[BIAS], i->out, (size_t)rows_of(i), out);
}

static void linear_backward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    int in = i->n->in[X]->c, out = i->n->c;
    if (i->din[W]) {
        struct gemm_desc g = {.m = out,
                              .n = in,
                              .k = rows_of(i),
                              .ta = true,
                              .lda = out,
                              .ldb = in,
                              .ldc = in,
                              .batch = 1,
                              .alpha = 1,
                              .beta = 1};
        i->k->gemm(i->dev, &g, i->dout, i->in[X], i->din[W]);
    }
    if (i->din[BIAS]) i->k->sum_rows_acc(i->dev, i->dout, i->din[BIAS], (size_t)rows_of(i), out);
    if (i->din[X]) {
        struct gemm_desc g = {.m = rows_of(i),
                              .n = in,
                              .k = out,
                              .lda = out,
                              .ldb = in,
                              .ldc = in,
                              .batch = 1,
                              .alpha = 1,
                              .beta = i->add[X] ? 1 : 0};
        i->k->gemm(i->dev, &g, i->dout, i->in[W], i->din[X]);
    }
}

static const struct op linear_op = {.name = "linear",
                                    .needs_in = 1 << X,
                                    .adds = 1 << X,
                                    .flops = linear_flops,
                                    .forward = linear_forward,
                                    .backward = linear_backward};

struct node *op_linear(struct graph *g, struct node *x, struct node *w, struct node *bias)
{
    const struct param_info *p = node_param(w);
    assert(p->ndim == 2 && p->dims[1] == x->c);
    assert(!bias || node_param(bias)->count == (size_t)p->dims[0]);
    return node_new(g, &linear_op, x->h, x->w, p->dims[0], 0, 3, (struct node *[]){x, w, bias});
}
