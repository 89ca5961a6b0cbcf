/* graph_op: the inside of a graph, for core/graph*.c and the operators in core/ops/. Nobody else includes it.
 *
 * An operator is one struct op: its constructor (core/ops.h) makes a node with the output's shape; the rest says what it costs, which
 * values its backward reads again, and how it runs in terms of kernels. The compiler (core/graph_compile.c) makes one `inst` of
 * every node that a program needs and decides where its tensors live. */
#ifndef CORE_GRAPH_OP_H
#define CORE_GRAPH_OP_H

#include <assert.h>

#include "core/graph.h"
#include "core/rng.h"

enum { OP_INPUTS = 4 };
enum node_kind { NODE_INPUT, NODE_PARAM, NODE_BUFFER, NODE_WEIGHT, NODE_OP };

struct node {
    struct graph *graph;
    int id; /* place in graph->nodes: always after its inputs */
    enum node_kind kind;
    int h, w, c;   /* of one sample; a parameter has none */
    int param;     /* index of a parameter or buffer, of the parameter that a weight is made from, else -1 */
    bool optional; /* an input that is usually left at zero */
    const char *name;
    const struct op *op;
    int nin;
    struct node *in[OP_INPUTS]; /* an optional input may be NULL */
    void *attr;                 /* the op's own constants, in the graph's arena */
};

struct inst;
struct op {
    const char *name;
    unsigned needs_in; /* bit i: backward reads the value of input i again (parameters are always there) */
    bool needs_out;    /* backward reads the output again */
    unsigned adds;     /* bit i: backward can add to the gradient of input i instead of overwriting it */
    unsigned no_grad;  /* bit i: no gradient flows to input i */
    bool in_place;     /* the output may be written over input 0 */
    bool grad_passes;  /* the gradient of input 0 is the gradient of the output, unchanged */
    void (*flops)(const struct node *n, struct flops *f);
    err_t (*plan)(struct inst *i);  /* fills saved_floats, ws_floats, state; may be NULL */
    err_t (*bind)(struct inst *i);  /* inst_reserve, where packed weights are used; may be NULL */
    void (*unplan)(struct inst *i); /* frees state; may be NULL */
    void (*forward)(struct inst *i, const struct run_ctx *c);
    void (*backward)(struct inst *i, const struct run_ctx *c);
};

/* One op of one program. Pointers are set by the compiler; those of parameters before each call. */
struct inst {
    const struct node *n;
    struct program *prog;
    const struct kernels *k;
    struct kdev *dev;
    int batch;
    bool train; /* a backward exists for this inst */
    bool eval_form, plain_form;
    const float *in[OP_INPUTS]; /* values; parameters point into the parameter set */
    float *out;
    float *din[OP_INPUTS]; /* where gradients of inputs go; NULL: not wanted. Parameters: always added to */
    bool wants[OP_INPUTS]; /* a gradient goes to input i; known when the op is planned */
    bool add[OP_INPUTS];   /* add to din[i] */
    const float *dout;
    float *saved, *ws; /* kept from forward to backward; scratch of one call */
    size_t saved_floats, ws_floats;
    void *state;
};

/* The value of parameter input i as the library wants it for one convolution: part of the parameter set's weight program, made once per
 * change of the values and shared by programs of equal shapes. Reserved when a program meets a parameter set. */
err_t inst_reserve(struct inst *i, int input, struct conv *conv, const struct conv_desc *desc, bool backward) MUST_USE;
const void *inst_packed(struct inst *i, int input, struct conv *conv, const struct conv_desc *desc, bool backward);

/* A weight is a node that a parameter set computes (NODE_WEIGHT): in[0] the parameter, in[1] its gain or NULL; operators take it where
 * they take a parameter. Its gradient exists only while one operator's backward runs: the program maps it to the parameter's and
 * the gain's at once, which is right because that map is linear. */
struct weight {
    size_t offset; /* of its value among the weights of a set */
    float scale;
};
struct weight_call {
    const struct kernels *k;
    struct kdev *dev;
    const struct node *n;
    const float *w, *gain;
    double *ws; /* a double for each row of any weight */
};
struct node *weight_new(struct graph *g, struct node *param, struct node *gain, float scale);
void weight_forward(const struct weight_call *c, float *out);
void weight_backward(const struct weight_call *c, const float *dout, float *dw, float *dgain); /* adds */
void weight_normalize(const struct weight_call *c, float *w); /* in place, without scale and gain */
static inline size_t weight_rows(const struct param_info *p)
{
    return (size_t)p->dims[0];
}

struct named { /* an input or output */
    const char *name;
    struct node *node;
    bool aside;
};
struct graph {
    struct arena mem;
    struct node **nodes;
    int nnodes, cap;
    struct param_info *params;
    const float **buffers; /* per parameter index: a constant buffer's value, else NULL */
    int nparams, params_cap;
    struct named inputs[8], outputs[8];
    int ninputs, noutputs;
    struct node **weights; /* what parameter sets compute, in order */
    int nweights, weights_cap;
    size_t weight_floats; /* of all of them, padded */
    size_t weight_rows;   /* of the largest */
    int dropouts;         /* dropout ops so far: the layer number of the next */
    bool sealed;          /* offsets are given */
};

/* For constructors. attr_bytes of zeroed memory come as node->attr. */
struct node *node_new(struct graph *g, const struct op *op, int h, int w, int c, size_t attr_bytes, int nin,
                      struct node *const *in);
static inline int node_hw(const struct node *n)
{
    return n->h * n->w;
}
static inline size_t node_per(const struct node *n)
{
    return (size_t)n->h * (size_t)n->w * (size_t)n->c;
}
const struct param_info *node_param(const struct node *n);
void graph_seal(struct graph *g);

#endif
