/* attention: softmax(q k^T / sqrt(ch)) v per head, from an interleaved qkv tensor. Everything backward needs is in `saved`: q, k, v and
 * the softmax weights. Cosine attention (EDM2) first divides each of q, k, v by its RMS over the channels of a head; backward does that
 * again from what was saved. */
#include <math.h>

#include "core/graph_op.h"
#include "core/ops.h"

struct attr {
    int heads;
    bool cosine;
};
struct view { /* sizes and the parts of saved and ws, in floats */
    int n, hw, heads, ch;
    size_t qkv, weights;                      /* of one of q, k, v; of the softmax weights */
    float *raw;                               /* q, k, v as they came */
    float *q, *k, *v, *w, *t0, *t1, *t2, *t3; /* q, k, v: as they are multiplied */
    bool cosine;
};

static size_t temporaries(const struct inst *i)
{
    return i->train ? 4 : 1;
}

static struct view view_of(const struct inst *i)
{
    struct view a = {.n = i->batch, .hw = node_hw(i->n), .heads = ((const struct attr *)i->n->attr)->heads};
    a.ch = i->n->c / a.heads;
    a.qkv = (size_t)a.n * (size_t)a.hw * (size_t)i->n->c;
    a.weights = (size_t)a.n * (size_t)a.heads * (size_t)a.hw * (size_t)a.hw;
    a.cosine = ((const struct attr *)i->n->attr)->cosine;
    if (!i->saved) return a; /* while the op is planned */
    a.raw = i->saved, a.w = a.raw + 3 * a.qkv;
    a.t0 = i->ws, a.t1 = a.t0 + a.qkv, a.t2 = a.t1 + a.qkv, a.t3 = a.t2 + a.qkv;
    a.q = a.cosine ? i->ws + temporaries(i) * a.qkv + 2 * a.weights : a.raw;
    a.k = a.q + a.qkv, a.v = a.k + a.qkv;
    return a;
}

/* q, k and v lie behind each other: rows of ch values */
static void normalize(struct inst *i, const struct view *a)
{
    if (a->cosine) i->k->rms_norm_fwd(i->dev, a->raw, NULL, 1, a->q, 3 * a->qkv / (size_t)a->ch, a->ch);
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
    i->ws_floats = (temporaries(i) + (a.cosine ? 3 : 0)) * a.qkv + 2 * a.weights;
    return ERR_OK;
}

static void attention_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    struct view a = view_of(i);
    float alpha = (float)(1 / sqrt(a.ch)), *scores = a.t1;
    i->k->qkv_split(i->dev, i->in[0], a.raw, a.raw + a.qkv, a.raw + 2 * a.qkv, a.n, a.hw, a.heads, a.ch);
    normalize(i, &a);
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
    normalize(i, &a);
    i->k->heads_split(i->dev, i->dout, dy, a.n, a.hw, a.heads, a.ch);
    product(i, &a, true, false, a.hw, a.ch, a.hw, 1, a.w, dy, dv);
    product(i, &a, false, true, a.hw, a.hw, a.ch, 1, dy, a.v, dw);
    i->k->softmax_bwd(i->dev, a.w, dw, ds, (size_t)(a.n * a.heads) * (size_t)a.hw, a.hw);
    product(i, &a, false, false, a.hw, a.ch, a.hw, alpha, ds, a.k, dq);
    product(i, &a, true, false, a.hw, a.ch, a.hw, alpha, ds, a.q, dk);
    if (a.cosine) i->k->rms_norm_bwd(i->dev, a.raw, NULL, 1, dq, dq, false, NULL, NULL, 3 * a.qkv / (size_t)a.ch, a.ch);
    i->k->qkv_merge(i->dev, dq, dk, dv, i->din[0], a.n, a.hw, a.heads, a.ch);
}

static const struct op attention_op = {.name = "attention",
                                       .flops = attention_flops,
                                       .plan = attention_plan,
                                       .forward = attention_forward,
                                       .backward = attention_backward};

static struct node *attention(struct graph *g, struct node *qkv, int heads, bool cosine)
{
    assert(heads > 0 && qkv->c % (3 * heads) == 0);
    struct node *n =
        node_new(g, &attention_op, qkv->h, qkv->w, qkv->c / 3, sizeof(struct attr), 1, (struct node *[]){qkv});
    *(struct attr *)n->attr = (struct attr){heads, cosine};
    return n;
}

struct node *op_attention(struct graph *g, struct node *qkv, int heads)
{
    return attention(g, qkv, heads, false);
}

struct node *op_mp_attention(struct graph *g, struct node *qkv, int heads)
{
    return attention(g, qkv, heads, true);
}
