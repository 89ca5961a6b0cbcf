/* graph_compile: a graph at one batch size becomes a program. The graph's node list is the schedule; time runs 0..T-1 forward, T is
 * when the caller has the outputs, and op number k runs backward at 2T - k. Every tensor is an interval of that time, and two
 * tensors may share memory only if their intervals are disjoint: that is the whole memory plan. */
#include <stdlib.h>
#include <string.h>

#include "core/graph_op.h"
#include "core/graph_params.h"

enum { NONE = -1, ALIGN_FLOATS = 16 };

struct tensor {
    size_t floats, offset;
    int first, last; /* times, both included */
};

struct program {
    struct graph *graph;
    const struct kernels *k;
    struct kdev *dev;
    struct program_opts o;
    struct inst *insts;
    int ninsts;
    int *value, *grad;      /* tensor of each node's value and gradient, or NONE */
    int *seed;              /* tensor of an output's gradient that the caller writes: only read here */
    bool *keep, *needs;     /* node is part of the program; its gradient is wanted and arrives */
    int *users;             /* number of uses inside the program */
    int (*temp)[OP_INPUTS]; /* tensor that takes a gradient to be added afterwards, for ops that cannot add */
    struct tensor *tensors;
    int ntensors, cap;
    size_t planned_floats, ws_floats, wgrad_floats;
    float *arena, *ws;
    float *wgrad;     /* gradients of the weights of one op */
    double *row_sums; /* a number for each row of any weight */
    uint64_t bound;   /* uid of the parameter set that the insts point into */
    struct params *params;
};

static bool trains_params(const struct program *p)
{
    return p->o.grad == GRAD_PARAMS || p->o.grad == GRAD_ALL;
}
static bool trains_inputs(const struct program *p)
{
    return p->o.grad == GRAD_INPUTS || p->o.grad == GRAD_ALL;
}
static int backward_time(const struct program *p, int k)
{
    return 2 * p->ninsts - k;
}
static int end_time(const struct program *p)
{
    return 2 * p->ninsts + 1;
}

static bool is_listed(const char *name, const char *list)
{
    size_t len = strlen(name);
    for (const char *at = list; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (!strncmp(at, name, len) && (at[len] == ',' || !at[len])) return true;
    }
    return false;
}

static bool is_output(const struct program *p, const struct node *n)
{
    for (int i = 0; i < p->graph->noutputs; i++) {
        const struct named *o = &p->graph->outputs[i];
        if (o->node == n && (!p->o.only || is_listed(o->name, p->o.only))) return true;
    }
    return false;
}

/* ---- what is needed ------------------------------------------------------------------------------------------------------ */

static void mark_needed(struct program *p)
{
    struct graph *g = p->graph;
    for (int id = g->nnodes - 1; id >= 0; id--) {
        struct node *n = g->nodes[id];
        if (is_output(p, n)) p->keep[id] = true;
        if (!p->keep[id]) continue;
        for (int i = 0; i < n->nin; i++)
            if (n->in[i]) p->keep[n->in[i]->id] = true, p->users[n->in[i]->id]++;
        if (n->kind == NODE_OP) p->ninsts++;
    }
    for (int i = 0; i < g->ninputs; i++) p->keep[g->inputs[i].node->id] = true; /* can always be written to */
}

static bool flows_to(const struct program *p, const struct node *n, int i)
{
    return n->in[i] && p->needs[n->in[i]->id] && !(n->op->no_grad >> i & 1);
}

static void mark_gradients(struct program *p)
{
    struct graph *g = p->graph;
    for (int id = 0; id < g->nnodes; id++) {
        struct node *n = g->nodes[id];
        if (!p->keep[id]) continue;
        if (n->kind == NODE_INPUT) p->needs[id] = trains_inputs(p);
        if (n->kind == NODE_PARAM) p->needs[id] = trains_params(p);
        if (n->kind != NODE_OP && n->kind != NODE_WEIGHT) continue;
        for (int i = 0; i < n->nin; i++) p->needs[id] |= flows_to(p, n, i);
    }
    /* and it arrives only where an output is reached by ops that pass it on */
    bool *arrives = mem_array((size_t)g->nnodes, sizeof *arrives);
    for (int id = g->nnodes - 1; id >= 0; id--) {
        struct node *n = g->nodes[id];
        if (p->keep[id] && is_output(p, n)) arrives[id] = true;
        p->needs[id] = p->needs[id] && arrives[id];
        if (!p->needs[id]) continue;
        for (int i = 0; i < n->nin; i++)
            if (flows_to(p, n, i)) arrives[n->in[i]->id] = true;
    }
    mem_free(arrives);
}

/* ---- tensors -------------------------------------------------------------------------------------------------------------------- */

static int tensor_new(struct program *p, size_t floats, int first, int last)
{
    if (p->ntensors == p->cap) {
        int cap = p->cap ? 2 * p->cap : 256;
        p->tensors = mem_grow(p->tensors, (size_t)p->cap * sizeof *p->tensors, (size_t)cap * sizeof *p->tensors);
        p->cap = cap;
    }
    p->tensors[p->ntensors] = (struct tensor){.floats = floats, .first = first, .last = last};
    return p->ntensors++;
}

static void tensor_lives(struct program *p, int t, int time)
{
    if (time < p->tensors[t].first) p->tensors[t].first = time;
    if (time > p->tensors[t].last) p->tensors[t].last = time;
}

static size_t floats_of(const struct program *p, const struct node *n)
{
    return (size_t)p->o.batch * node_per(n);
}

/* The value of input 0 may be overwritten: nobody else reads it, now or in backward. */
static bool may_overwrite(const struct program *p, const struct inst *s)
{
    const struct node *n = s->n, *a = n->in[0];
    return !p->o.unplanned && n->op->in_place && a->kind == NODE_OP && p->users[a->id] == 1 && !is_output(p, a) &&
           node_per(a) == node_per(n) && !(a->op->needs_out && p->needs[a->id]) && !((n->op->needs_in & 1) && s->train);
}

static void plan_values(struct program *p)
{
    for (int i = 0; i < p->graph->ninputs; i++) {
        struct node *n = p->graph->inputs[i].node;
        p->value[n->id] = tensor_new(p, floats_of(p, n), 0, end_time(p));
    }
    for (int k = 0; k < p->ninsts; k++) {
        struct inst *s = &p->insts[k];
        const struct node *n = s->n;
        p->value[n->id] = may_overwrite(p, s) ? p->value[n->in[0]->id] : tensor_new(p, floats_of(p, n), k, k);
        tensor_lives(p, p->value[n->id], k);
        if (is_output(p, n)) tensor_lives(p, p->value[n->id], end_time(p));
        if (s->train && n->op->needs_out) tensor_lives(p, p->value[n->id], backward_time(p, k));
        for (int i = 0; i < n->nin; i++) {
            if (!n->in[i] || n->in[i]->param >= 0) continue;
            int t = p->value[n->in[i]->id];
            tensor_lives(p, t, k);
            if (s->train && (n->op->needs_in >> i & 1)) tensor_lives(p, t, backward_time(p, k));
        }
    }
}

/* Backward in reverse order: the first to write a gradient overwrites, later ones add. */
static void plan_gradients(struct program *p)
{
    bool *written = mem_array((size_t)p->graph->nnodes, sizeof *written);
    for (int k = p->ninsts - 1; k >= 0; k--) {
        struct inst *s = &p->insts[k];
        const struct node *n = s->n;
        int now = backward_time(p, k);
        if (!s->train) continue;
        if (is_output(p, n)) {
            p->seed[n->id] = tensor_new(p, floats_of(p, n), 0, end_time(p));
            if (p->grad[n->id] == NONE) p->grad[n->id] = p->seed[n->id]; /* nobody else's gradient joins it */
        }
        tensor_lives(p, p->grad[n->id], now);
        for (int i = 0; i < n->nin; i++) {
            if (!flows_to(p, n, i)) continue;
            struct node *a = n->in[i];
            if (a->param >= 0) continue;
            bool passes = i == 0 && n->op->grad_passes && a->kind == NODE_OP && p->users[a->id] == 1 &&
                          !is_output(p, a) && !p->o.unplanned;
            if (passes) {
                p->grad[a->id] = p->grad[n->id];
            } else if (p->grad[a->id] == NONE) p->grad[a->id] = tensor_new(p, floats_of(p, a), now, now);
            tensor_lives(p, p->grad[a->id], now);
            if (a->kind == NODE_INPUT) tensor_lives(p, p->grad[a->id], end_time(p));
            s->add[i] = written[a->id];
            if (s->add[i] && !(n->op->adds >> i & 1)) p->temp[k][i] = tensor_new(p, floats_of(p, a), now, now);
            written[a->id] = true;
        }
    }
    mem_free(written);
}

/* ---- placement ------------------------------------------------------------------------------------------------------------------- */

static struct tensor **by_size(struct tensor *t, int n)
{
    struct tensor **order = mem_array((size_t)n + 1, sizeof(struct tensor *));
    for (int i = 0; i < n; i++) order[i] = &t[i];
    return order;
}

static int larger_first(const void *a, const void *b)
{
    const struct tensor *x = *(struct tensor *const *)a, *y = *(struct tensor *const *)b;
    if (x->floats != y->floats) return x->floats < y->floats ? 1 : -1;
    return x < y ? -1 : x > y; /* a fixed order among equals: the plan does not depend on the sort */
}

static int lower_first(const void *a, const void *b)
{
    const struct tensor *x = *(struct tensor *const *)a, *y = *(struct tensor *const *)b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Largest first, each at the lowest place that is free during its whole life. */
static void place(struct program *p)
{
    struct tensor **order = by_size(p->tensors, p->ntensors), **placed = by_size(p->tensors, 0);
    placed = mem_grow(placed, sizeof *placed, ((size_t)p->ntensors + 1) * sizeof *placed);
    qsort(order, (size_t)p->ntensors, sizeof(struct tensor *), larger_first);
    for (int i = 0; i < p->ntensors; i++) {
        struct tensor *t = order[i];
        size_t room = (t->floats + ALIGN_FLOATS - 1) / ALIGN_FLOATS * ALIGN_FLOATS, at = 0;
        int n = 0;
        for (int j = 0; j < i; j++)
            if (p->o.unplanned || (order[j]->first <= t->last && t->first <= order[j]->last)) placed[n++] = order[j];
        qsort(placed, (size_t)n, sizeof(struct tensor *), lower_first);
        for (int j = 0; j < n; j++) {
            size_t end = placed[j]->offset + (placed[j]->floats + ALIGN_FLOATS - 1) / ALIGN_FLOATS * ALIGN_FLOATS;
            if (at + room <= placed[j]->offset) break;
            if (end > at) at = end;
        }
        t->offset = at;
        if (at + room > p->planned_floats) p->planned_floats = at + room;
    }
    mem_free(order);
    mem_free(placed);
}

static bool is_weight(const struct inst *s, int i)
{
    return s->n->in[i] && s->n->in[i]->kind == NODE_WEIGHT;
}

static size_t padded(size_t floats)
{
    return (floats + ALIGN_FLOATS - 1) / ALIGN_FLOATS * ALIGN_FLOATS;
}

/* Memory for the gradients of the weights of one op at a time. */
static size_t weight_gradients(const struct program *p)
{
    size_t most = 0;
    for (int k = 0; k < p->ninsts; k++) {
        const struct inst *s = &p->insts[k];
        size_t floats = 0;
        for (int i = 0; i < s->n->nin; i++)
            if (s->wants[i] && is_weight(s, i)) floats += padded(node_param(s->n->in[i])->count);
        if (floats > most) most = floats;
    }
    return most;
}

static float *at(const struct program *p, int t)
{
    return t == NONE ? NULL : p->arena + p->tensors[t].offset;
}

static void point(struct program *p, const int *saved)
{
    for (int k = 0; k < p->ninsts; k++) {
        struct inst *s = &p->insts[k];
        const struct node *n = s->n;
        s->out = at(p, p->value[n->id]);
        s->dout = at(p, p->grad[n->id]);
        s->saved = at(p, saved[k]);
        s->ws = p->ws;
        for (int i = 0; i < n->nin; i++) {
            if (!n->in[i] || n->in[i]->param >= 0) continue;
            s->in[i] = at(p, p->value[n->in[i]->id]);
            if (!s->wants[i]) continue;
            s->din[i] = at(p, p->temp[k][i] != NONE ? p->temp[k][i] : p->grad[n->in[i]->id]);
            if (p->temp[k][i] != NONE) s->add[i] = false; /* the program adds afterwards */
        }
    }
}

/* ---- life ---------------------------------------------------------------------------------------------------------------------------- */

static void program_alloc(struct program *p)
{
    size_t n = (size_t)p->graph->nnodes;
    p->value = mem_array(n, sizeof *p->value);
    p->grad = mem_array(n, sizeof *p->grad);
    p->seed = mem_array(n, sizeof *p->seed);
    p->keep = mem_array(n, sizeof *p->keep);
    p->needs = mem_array(n, sizeof *p->needs);
    p->users = mem_array(n, sizeof *p->users);
    for (size_t i = 0; i < n; i++) p->value[i] = p->grad[i] = p->seed[i] = NONE;
}

static err_t make_insts(struct program *p)
{
    p->insts = mem_array((size_t)p->ninsts + 1, sizeof *p->insts);
    p->temp = mem_array((size_t)p->ninsts + 1, sizeof *p->temp);
    int k = 0;
    for (int id = 0; id < p->graph->nnodes; id++) {
        struct node *n = p->graph->nodes[id];
        if (!p->keep[id] || n->kind != NODE_OP) continue;
        for (int i = 0; i < OP_INPUTS; i++) p->temp[k][i] = NONE;
        struct inst *s = &p->insts[k++];
        *s = (struct inst){.n = n,
                           .prog = p,
                           .k = p->k,
                           .dev = p->dev,
                           .batch = p->o.batch,
                           .train = p->needs[id],
                           .eval_form = p->o.eval_form,
                           .plain_form = p->o.plain_form};
        for (int i = 0; i < n->nin; i++) s->wants[i] = s->train && flows_to(p, n, i);
        if (s->train && !n->op->backward)
            return fail(ERR_USAGE, "op %s has no gradient: compile this graph without one (GRAD_NONE)", n->op->name);
    }
    for (k = 0; k < p->ninsts; k++) {
        struct inst *s = &p->insts[k];
        if (s->n->op->plan) TRY(s->n->op->plan(s));
        if (s->ws_floats > p->ws_floats) p->ws_floats = s->ws_floats;
    }
    return ERR_OK;
}

err_t program_new(struct program **out, struct graph *g, const struct kernels *k, struct kdev *dev,
                  const struct program_opts *o)
{
    assert(o->batch > 0);
    graph_seal(g);
    struct program *p = mem_alloc(sizeof *p);
    *p = (struct program){.graph = g, .k = k, .dev = dev, .o = *o};
    program_alloc(p);
    mark_needed(p);
    if (o->grad != GRAD_NONE) mark_gradients(p);
    int *saved = mem_array((size_t)p->ninsts + 1, sizeof *saved);
    err_t err = ERR_OK;
    TRYD(make_insts(p));
    plan_values(p);
    if (o->grad != GRAD_NONE) plan_gradients(p);
    for (int i = 0; i < p->ninsts; i++) {
        const struct inst *s = &p->insts[i];
        saved[i] = s->saved_floats ? tensor_new(p, s->saved_floats, i, s->train ? backward_time(p, i) : i) : NONE;
    }
    place(p);
    p->wgrad_floats = weight_gradients(p);
    size_t ws_floats = padded(p->ws_floats);
    size_t floats = p->planned_floats + ws_floats + p->wgrad_floats + ALIGN_FLOATS;
    p->arena = k->alloc(dev, floats * sizeof(float));
    if (p->wgrad_floats) p->row_sums = k->alloc(dev, g->weight_rows * sizeof *p->row_sums);
    if (!p->arena || (p->wgrad_floats && !p->row_sums)) {
        err = fail(ERR_DEVICE_MEM, "a program of batch %d needs %.1f MiB, more than there is", o->batch,
                   (double)floats * 4 / 1048576);
        goto done;
    }
    p->ws = p->arena + p->planned_floats;
    p->wgrad = p->ws + ws_floats;
    point(p, saved);
    *out = p;
    p = NULL;
done:
    mem_free(saved);
    program_free(p);
    return err;
}

void program_free(struct program *p)
{
    if (!p) return;
    for (int k = 0; p->insts && k < p->ninsts; k++)
        if (p->insts[k].n && p->insts[k].n->op->unplan) p->insts[k].n->op->unplan(&p->insts[k]);
    if (p->arena) p->k->free(p->dev, p->arena);
    if (p->row_sums) p->k->free(p->dev, p->row_sums);
    mem_free(p->insts);
    mem_free(p->temp);
    mem_free(p->tensors);
    mem_free(p->value);
    mem_free(p->grad);
    mem_free(p->seed);
    mem_free(p->keep);
    mem_free(p->needs);
    mem_free(p->users);
    mem_free(p);
}

static const struct node *named(const struct named *list, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(list[i].name, name)) return list[i].node;
    return NULL;
}

float *program_input(struct program *p, const char *name)
{
    const struct node *n = named(p->graph->inputs, p->graph->ninputs, name);
    return n ? at(p, p->value[n->id]) : NULL;
}

float *program_output(struct program *p, const char *name)
{
    const struct node *n = named(p->graph->outputs, p->graph->noutputs, name);
    return n && is_output(p, n) ? at(p, p->value[n->id]) : NULL;
}

float *program_output_grad(struct program *p, const char *name)
{
    const struct node *n = named(p->graph->outputs, p->graph->noutputs, name);
    return n && is_output(p, n) ? at(p, p->seed[n->id]) : NULL;
}

float *program_input_grad(struct program *p, const char *name)
{
    const struct node *n = named(p->graph->inputs, p->graph->ninputs, name);
    return n ? at(p, p->grad[n->id]) : NULL;
}

void program_stats(const struct program *p, struct program_stats *s)
{
    *s = (struct program_stats){.arena_bytes = p->planned_floats * sizeof(float),
                                .workspace_bytes = p->ws_floats * sizeof(float),
                                .ops = p->ninsts};
    for (int k = 0; k < p->ninsts; k++) s->backward_ops += p->insts[k].train;
    for (int t = 0; t < p->ntensors; t++) {
        const struct tensor *x = &p->tensors[t];
        if (p->o.grad != GRAD_NONE && x->first <= p->ninsts && x->last > p->ninsts && x->last < end_time(p))
            s->saved_bytes += x->floats * sizeof(float);
    }
}

/* ---- running --------------------------------------------------------------------------------------------------------------------------- */

err_t program_bind(struct program *p, struct params *w)
{
    p->params = w;
    if (p->bound == params_uid(w)) return ERR_OK;
    p->bound = 0;
    for (int k = 0; k < p->ninsts; k++) {
        struct inst *s = &p->insts[k];
        for (int i = 0; i < s->n->nin; i++)
            if (s->n->in[i] && s->n->in[i]->param >= 0) s->in[i] = params_value(w, s->n->in[i]);
        if (s->n->op->bind) TRY(s->n->op->bind(s));
    }
    p->bound = params_uid(w);
    return ERR_OK;
}

err_t inst_reserve(struct inst *s, int input, struct conv *conv, const struct conv_desc *desc, bool backward)
{
    return params_reserve(s->prog->params, s->n->in[input], conv, desc, backward);
}

const void *inst_packed(struct inst *s, int input, struct conv *conv, const struct conv_desc *desc, bool backward)
{
    return params_packed(s->prog->params, s->n->in[input], conv, desc, backward);
}

static void prepare(struct program *p, struct params *w)
{
    if (program_bind(p, w)) {
        fprintf(stderr, "%s\n", err_text());
        abort();
    }
    params_ready(w);
}

void program_forward(struct program *p, struct params *w, const struct run_ctx *c)
{
    prepare(p, w);
    for (int k = 0; k < p->ninsts; k++) p->insts[k].n->op->forward(&p->insts[k], c);
}

/* Where the op's backward puts gradients of parameters and weights: the latter start from zero each time. */
static void point_gradients(struct program *p, struct inst *s, float *grad)
{
    float *wgrad = p->wgrad;
    for (int i = 0; i < s->n->nin; i++) {
        const struct node *a = s->n->in[i];
        if (!a || a->param < 0) continue;
        s->din[i] = NULL;
        if (!s->wants[i]) continue;
        s->din[i] = a->kind == NODE_WEIGHT ? wgrad : grad + node_param(a)->offset;
        if (a->kind != NODE_WEIGHT) continue;
        p->k->fill(p->dev, wgrad, 0, node_param(a)->count);
        wgrad += padded(node_param(a)->count);
    }
}

/* From the gradient of a weight to that of its parameter and gain. */
static void weight_gradient(struct program *p, const struct inst *s, int i, float *grad)
{
    const struct node *n = s->n->in[i], *gain = n->in[1];
    struct weight_call c = {.k = p->k,
                            .dev = p->dev,
                            .n = n,
                            .w = params_value(p->params, n->in[0]),
                            .gain = gain ? params_value(p->params, gain) : NULL,
                            .ws = p->row_sums};
    weight_backward(&c, s->din[i], grad + node_param(n)->offset, gain ? grad + node_param(gain)->offset : NULL);
}

void program_backward(struct program *p, struct params *w, const struct run_ctx *c, float *grad)
{
    assert(p->o.grad != GRAD_NONE && (grad || !trains_params(p)));
    prepare(p, w);
    for (int k = p->ninsts - 1; k >= 0; k--) {
        struct inst *s = &p->insts[k];
        if (!s->train) continue;
        point_gradients(p, s, grad);
        if (p->seed[s->n->id] != p->grad[s->n->id] && p->seed[s->n->id] != NONE) {
            float *sum = at(p, p->grad[s->n->id]);
            p->k->add_scaled(p->dev, sum, at(p, p->seed[s->n->id]), 1, sum, floats_of(p, s->n));
        }
        s->n->op->backward(s, c);
        for (int i = 0; i < s->n->nin; i++) {
            if (s->wants[i] && is_weight(s, i)) weight_gradient(p, s, i, grad);
            if (p->temp[k][i] == NONE) continue;
            float *sum = at(p, p->grad[s->n->in[i]->id]);
            p->k->add_scaled(p->dev, sum, s->din[i], 1, sum, floats_of(p, s->n->in[i]));
        }
    }
}
