/* attention: softmax(q k^T / sqrt(ch)) v per head, from an interleaved qkv tensor. Everything backward needs is in `saved`: q, k, v and
 * the softmax weights. */
#include <math.h>

#include "core/graph_op.h"
#include "core/ops.h"

struct attr {
    int heads;
};
struct view { /* sizes and the parts of saved and ws, in floats */
    int n, hw, heads, ch;
    size_t qkv, weights; /* of one of q, k, v; of the softmax weights */
    float *q, *k, *v, *w, *t0, *t1, *t2, *t3;
};

static struct view view_of(const struct inst *i)
{
    struct view a = {.n = i->batch, .hw = node_hw(i->n), .heads = ((const struct attr *)i->n->attr)->heads};
    a.ch = i->n->c / a.heads;
    a.qkv = (size_t)a.n * (size_t)a.hw * (size_t)i->n->c;
    a.weights = (size_t)a.n * (size_t)a.heads * (size_t)a.hw * (size_t)a.hw;
    if (i->saved) a.q = i->saved, a.k = a.q + a.qkv, a.v = a.k + a.qkv, a.w = a.v + a.qkv;
    if (i->ws) a.t0 = i->ws, a.t1 = a.t0 + a.qkv, a.t2 = a.t1 + a.qkv, a.t3 = a.t2 + a.qkv;
    return a;
}

/* One product per sample and head. rows x cols over `inner`; operands are [hw, ch] or [hw, hw] matrices. */
static void product(struct inst *i, const struct view *a, bool ta, bool tb, int rows, int cols, int inner, float alpha,
                    const float *x, const float *y, float *out)
{
    struct gemm_desc g = {.m = rows,
                          .n = cols,
                          .k = inner,
                          .ta = ta,
                          .tb = tb,
                          .lda = ta ? rows : inner,
                          .ldb = tb ? inner : cols,
                          .ldc = cols,
                          .batch = a->n * a->heads,
                          .stride_a = (long)rows * inner,
                          .stride_b = (long)inner * cols,
                          .stride_c = (long)rows * cols,
                          .alpha = alpha};
    i->k->gemm(i->dev, &g, x, y, out);
}

static void attention_flops(const struct node *n, struct flops *f)
{
    f->attention += 4.0 * node_hw(n) * (double)node_hw(n) * n->c;
}

static err_t attention_plan(struct inst *i)
{
    struct view a = view_of(i);
    i->saved_floats = 3 * a.qkv + a.weights;
    i->ws_floats = (i->train ? 4 : 1) * a.qkv + 2 * a.weights;
    return ERR_OK;
}

static void attention_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    struct view a = view_of(i);
    float alpha = (float)(1 / sqrt(a.ch)), *scores = a.t1;
    i->k->qkv_split(i->dev, i->in[0], a.q, a.k, a.v, a.n, a.hw, a.heads, a.ch);
    product(i, &a, false, true, a.hw, a.hw, a.ch, alpha, a.q, a.k, scores);
    i->k->softmax_fwd(i->dev, scores, a.w, (size_t)(a.n * a.heads) * (size_t)a.hw, a.hw);
    product(i, &a, false, false, a.hw, a.ch, a.hw, 1, a.w, a.v, a.t0);
    i->k->heads_merge(i->dev, a.t0, i->out, a.n, a.hw, a.heads, a.ch);
}

static void attention_backward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    struct view a = view_of(i);
    float alpha = (float)(1 / sqrt(a.ch));
    float *dy = a.t0, *dq = a.t1, *dk = a.t2, *dv = a.t3, *dw = a.t3 + a.qkv, *ds = dw + a.weights;
    i->k->heads_split(i->dev, i->dout, dy, a.n, a.hw, a.heads, a.ch);
    product(i, &a, true, false, a.hw, a.ch, a.hw, 1, a.w, dy, dv);
    product(i, &a, false, true, a.hw, a.hw, a.ch, 1, dy, a.v, dw);
    i->k->softmax_bwd(i->dev, a.w, dw, ds, (size_t)(a.n * a.heads) * (size_t)a.hw, a.hw);
    product(i, &a, false, false, a.hw, a.ch, a.hw, alpha, ds, a.k, dq);
    product(i, &a, true, false, a.hw, a.ch, a.hw, alpha, ds, a.q, dk);
    i->k->qkv_merge(i->dev, dq, dk, dv, i->din[0], a.n, a.hw, a.heads, a.ch);
}

static const struct op attention_op = {.name = "attention",
                                       .flops = attention_flops,
                                       .plan = attention_plan,
                                       .forward = attention_forward,
                                       .backward = attention_backward};

struct node *op_attention(struct graph *g, struct node *qkv, int heads)
{
    assert(heads > 0 && qkv->c % (3 * heads) == 0);
    struct node *n =
        node_new(g, &attention_op, qkv->h, qkv->w, qkv->c / 3, sizeof(struct attr), 1, (struct node *[]){qkv});
    ((struct attr *)n->attr)->heads = heads;
    return n;
}
