/* graph: the list of nodes. A node comes after its inputs, so the list is a schedule; a parameter's place in every arena follows from
 * the list alone, last layer first, so that a backward pass fills the gradient from the front. */
#include <string.h>

#include "core/graph_op.h"
#include "core/graph_params.h"

enum { ARENA_ALIGN = 16 }; /* floats: every parameter starts on a cache line */

struct graph *graph_new(void)
{
    struct graph *g = mem_alloc(sizeof *g);
    arena_init(&g->mem);
    return g;
}

void graph_free(struct graph *g)
{
    if (!g) return;
    mem_free(g->nodes);
    mem_free(g->params);
    mem_free(g->buffers);
    mem_free(g->weights);
    arena_done(&g->mem);
    mem_free(g);
}

static struct node *append(struct graph *g, enum node_kind kind, int h, int w, int c)
{
    if (g->nnodes == g->cap) {
        int cap = g->cap ? 2 * g->cap : 256;
        g->nodes = mem_grow(g->nodes, (size_t)g->cap * sizeof *g->nodes, (size_t)cap * sizeof *g->nodes);
        g->cap = cap;
    }
    struct node *n = arena_alloc(&g->mem, sizeof *n);
    *n = (struct node){.graph = g, .id = g->nnodes, .kind = kind, .h = h, .w = w, .c = c, .param = -1};
    return g->nodes[g->nnodes++] = n;
}

struct node *node_new(struct graph *g, const struct op *op, int h, int w, int c, size_t attr_bytes, int nin,
                      struct node *const *in)
{
    assert(h > 0 && w > 0 && c > 0 && nin <= OP_INPUTS);
    struct node *n = append(g, NODE_OP, h, w, c);
    n->op = op;
    n->name = op->name;
    n->nin = nin;
    for (int i = 0; i < nin; i++) {
        assert(!in[i] || in[i]->graph == g);
        n->in[i] = in[i];
    }
    if (attr_bytes) n->attr = arena_alloc(&g->mem, attr_bytes);
    return n;
}

struct node *graph_input(struct graph *g, const char *name, int h, int w, int c)
{
    assert((size_t)g->ninputs < ARRAY_LEN(g->inputs));
    struct node *n = append(g, NODE_INPUT, h, w, c);
    n->name = arena_strdup(&g->mem, name);
    g->inputs[g->ninputs++] = (struct named){n->name, n, false};
    return n;
}

struct node *graph_input_optional(struct graph *g, const char *name, int h, int w, int c)
{
    struct node *n = graph_input(g, name, h, w, c);
    n->optional = true;
    return n;
}

void graph_output(struct graph *g, const char *name, struct node *n)
{
    assert((size_t)g->noutputs < ARRAY_LEN(g->outputs));
    g->outputs[g->noutputs++] = (struct named){arena_strdup(&g->mem, name), n, false};
}

void graph_output_aside(struct graph *g, const char *name, struct node *n)
{
    graph_output(g, name, n);
    g->outputs[g->noutputs - 1].aside = true;
}

int node_channels(const struct node *n)
{
    return n->c;
}

size_t graph_node_floats(const struct graph *g, const char *name)
{
    for (int i = 0; i < g->ninputs; i++)
        if (!strcmp(g->inputs[i].name, name)) return node_per(g->inputs[i].node);
    for (int i = 0; i < g->noutputs; i++)
        if (!strcmp(g->outputs[i].name, name)) return node_per(g->outputs[i].node);
    return 0;
}

/* ---- parameters ------------------------------------------------------------------------------------------------------ */

static struct node *param_append(struct graph *g, const char *name, int ndim, const int *dims)
{
    assert(!g->sealed && ndim >= 0 && ndim <= 4);
    assert(!graph_param_named(g, name));
    if (g->nparams == g->params_cap) {
        int cap = g->params_cap ? 2 * g->params_cap : 64;
        g->params = mem_grow(g->params, (size_t)g->params_cap * sizeof *g->params, (size_t)cap * sizeof *g->params);
        g->buffers = mem_grow(g->buffers, (size_t)g->params_cap * sizeof *g->buffers, (size_t)cap * sizeof *g->buffers);
        g->params_cap = cap;
    }
    struct param_info *p = &g->params[g->nparams];
    *p = (struct param_info){.name = arena_strdup(&g->mem, name), .ndim = ndim, .count = 1};
    for (int i = 0; i < ndim; i++) {
        assert(dims[i] > 0);
        p->dims[i] = dims[i];
        p->count *= (size_t)dims[i];
    }
    struct node *n = append(g, NODE_PARAM, 1, 1, (int)p->count);
    n->name = p->name;
    n->param = g->nparams++;
    return n;
}

static void set_init(struct param_info *p, struct init init)
{
    int ndim = p->ndim;
    p->init = init;
    int field = ndim == 4 ? p->dims[2] * p->dims[3] : 1;
    if (!init.fan_in) p->init.fan_in = ndim >= 2 ? p->dims[1] * field : (int)p->count;
    if (!init.fan_out) p->init.fan_out = ndim >= 2 ? p->dims[0] * field : (int)p->count;
}

struct node *graph_param(struct graph *g, const char *name, int ndim, const int *dims, struct init init)
{
    struct node *n = param_append(g, name, ndim, dims);
    set_init(&g->params[n->param], init);
    return n;
}

struct node *graph_buffer(struct graph *g, const char *name, int ndim, const int *dims, const float *value)
{
    struct node *n = param_append(g, name, ndim, dims);
    n->kind = NODE_BUFFER;
    struct param_info *p = &g->params[n->param];
    p->buffer = true;
    float *copy = arena_alloc(&g->mem, p->count * sizeof *copy);
    memcpy(copy, value, p->count * sizeof *copy);
    g->buffers[n->param] = copy;
    return n;
}

struct node *graph_buffer_drawn(struct graph *g, const char *name, int ndim, const int *dims, struct init init)
{
    struct node *n = param_append(g, name, ndim, dims);
    n->kind = NODE_BUFFER;
    g->params[n->param].buffer = true;
    g->buffers[n->param] = NULL;
    set_init(&g->params[n->param], init);
    return n;
}

struct node *weight_new(struct graph *g, struct node *param, struct node *gain, float scale)
{
    static const struct op op = {.name = "weight"};
    assert(param->kind == NODE_PARAM && node_param(param)->ndim >= 1 && !g->sealed);
    assert(!gain || (gain->kind == NODE_PARAM && node_param(gain)->count == 1));
    struct node *n = node_new(g, &op, 1, 1, param->c, sizeof(struct weight), 2, (struct node *[]){param, gain});
    n->kind = NODE_WEIGHT;
    n->param = param->param;
    n->name = param->name;
    *(struct weight *)n->attr = (struct weight){g->weight_floats, scale};
    size_t count = node_param(n)->count, rows = weight_rows(node_param(n));
    g->weight_floats += (count + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    if (rows > g->weight_rows) g->weight_rows = rows;
    if (g->nweights == g->weights_cap) {
        int cap = g->weights_cap ? 2 * g->weights_cap : 64;
        g->weights =
            mem_grow(g->weights, (size_t)g->weights_cap * sizeof *g->weights, (size_t)cap * sizeof *g->weights);
        g->weights_cap = cap;
    }
    return g->weights[g->nweights++] = n;
}

bool graph_has_forced_norm(const struct graph *g)
{
    return g->nweights > 0;
}

/* Gives trainable parameters their place, the last declared first; buffers lie in an area of their own with their own offsets. */
void graph_seal(struct graph *g)
{
    if (g->sealed) return;
    size_t at = 0, buffer_at = 0;
    for (int i = g->nparams - 1; i >= 0; i--) {
        size_t room = (g->params[i].count + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
        size_t *next = g->params[i].buffer ? &buffer_at : &at;
        g->params[i].offset = *next;
        *next += room;
    }
    g->sealed = true;
}

/* A graph that has been asked about its arena takes no more parameters; the asking itself changes nothing that can be seen. */
static const struct graph *sealed(const struct graph *g)
{
    graph_seal((struct graph *)(uintptr_t)g);
    return g;
}

int graph_nparams(const struct graph *g)
{
    return g->nparams;
}

const struct param_info *graph_param_info(const struct graph *g, int i)
{
    assert(i >= 0 && i < g->nparams);
    return &sealed(g)->params[i];
}

const struct param_info *graph_param_named(const struct graph *g, const char *name)
{
    for (int i = 0; i < g->nparams; i++)
        if (!strcmp(g->params[i].name, name)) return &g->params[i];
    return NULL;
}

static size_t floats_of(const struct graph *g, bool buffers, bool padded)
{
    size_t n = 0;
    for (int i = 0; i < g->nparams; i++) {
        size_t count = g->params[i].count;
        if (padded) count = (count + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
        if (g->params[i].buffer == buffers) n += count;
    }
    return n;
}

size_t graph_arena_floats(const struct graph *g)
{
    return floats_of(sealed(g), false, true);
}
size_t graph_buffer_floats(const struct graph *g)
{
    return floats_of(sealed(g), true, true);
}
size_t graph_param_count(const struct graph *g)
{
    return floats_of(g, false, false);
}

const struct param_info *node_param(const struct node *n)
{
    assert(n->param >= 0);
    return &n->graph->params[n->param];
}

/* ---- cost -------------------------------------------------------------------------------------------------------------- */

double flops_total(const struct flops *f)
{
    return f->linear + f->conv3x3 + f->conv1x1 + f->conv_other + f->resample + f->attention;
}

/* Marks what outputs need: those of the result, or those beside it. */
static void mark_reached(const struct graph *g, bool aside, bool *reached)
{
    for (int i = 0; i < g->noutputs; i++)
        if (g->outputs[i].aside == aside) reached[g->outputs[i].node->id] = true;
    for (int i = g->nnodes - 1; i >= 0; i--)
        for (int j = 0; reached[i] && j < g->nodes[i]->nin; j++)
            if (g->nodes[i]->in[j]) reached[g->nodes[i]->in[j]->id] = true;
}

void graph_flops(const struct graph *g, struct flops *f)
{
    bool *result = mem_array((size_t)g->nnodes + 1, sizeof *result),
         *aside = mem_array((size_t)g->nnodes + 1, sizeof *aside);
    mark_reached(g, false, result);
    mark_reached(g, true, aside);
    *f = (struct flops){0};
    for (int i = 0; i < g->nnodes; i++) {
        const struct node *n = g->nodes[i];
        if (aside[i] && !result[i]) continue;
        if (n->kind == NODE_OP && n->op->flops && !n->in[0]->optional) n->op->flops(n, f);
    }
    mem_free(result);
    mem_free(aside);
}
