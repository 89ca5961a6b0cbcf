/* graph: the structure of a network, built once, independent of batch size; compiled into programs that run on parameter sets.
 *
 *   graph    nodes (inputs, parameters, ops) made by the constructors of core/ops.h; a builder reads like a forward pass
 *   params   one set of values for the graph's parameters: online weights, an EMA, a frozen teacher. One flat device arena.
 *            Its *weight program* (packing for the library; EDM2's normalise-and-gain) runs once per change of the values; the
 *            gradient of what it makes is carried back to the parameters by program_backward.
 *   program  an *activation program*: the graph at one batch size and mode, with its memory plan, kernel plans and backward.
 *            Any number of programs can run on any parameter set of the same graph.
 *
 * A compile plans one arena from tensor lifetimes: no allocation happens in program_forward/backward.
 * Shapes are NHWC: activations {batch, h, w, c}; vectors per sample {batch, 1, 1, c}; scalars per sample {batch, 1, 1, 1}.
 * Parameters are stored KRSC / [out, in]; files hold PyTorch's order (KCRS): params_get/set convert.
 */
#ifndef CORE_GRAPH_H
#define CORE_GRAPH_H

#include "core/base.h"
#include "kernels/kernels.h"

struct graph;
struct node;
struct params;
struct program;

/* ---- structure -------------------------------------------------------------------------------------------------- */

struct graph *graph_new(void);
void graph_free(struct graph *g);

struct node *graph_input(struct graph *g, const char *name, int h, int w, int c);
/* An input that callers usually leave at zero, such as augmentation labels: work that depends on nothing else is not counted in
 * FLOPs, as the published counts leave it out. */
struct node *graph_input_optional(struct graph *g, const char *name, int h, int w, int c);
void graph_output(struct graph *g, const char *name, struct node *n);
/* An output beside the result, such as the uncertainty of a loss: work that nothing else needs is not counted in FLOPs, as the published
 * counts leave it out. */
void graph_output_aside(struct graph *g, const char *name, struct node *n);
int node_channels(const struct node *n);
size_t graph_node_floats(const struct graph *g, const char *name); /* of one sample of an input or output; 0: none */

/* How a parameter starts. Values are drawn per parameter from the counter RNG_INIT, so they depend on seed and order only. */
enum init_kind {
    INIT_ZERO,
    INIT_ONE,
    INIT_XAVIER_UNIFORM,
    INIT_KAIMING_UNIFORM,
    INIT_KAIMING_NORMAL,
    INIT_NORMAL,
    INIT_UNIFORM /* in (0, 1) */
};
struct init {
    enum init_kind kind;
    double scale;        /* multiplies the drawn value */
    int fan_in, fan_out; /* 0: taken from the shape */
};
/* dims in PyTorch's order: conv {K, C, R, S}, linear {out, in}, vector {n}. name: official state_dict name without prefix. */
struct node *graph_param(struct graph *g, const char *name, int ndim, const int *dims, struct init init);
/* A value stored in checkpoints but not trained (resampling filters, Fourier frequencies). Constant: given here. */
struct node *graph_buffer(struct graph *g, const char *name, int ndim, const int *dims, const float *value);
/* The same, drawn like a parameter by params_init and replaced by what a checkpoint holds: Fourier frequencies, phases. */
struct node *graph_buffer_drawn(struct graph *g, const char *name, int ndim, const int *dims, struct init init);

struct param_info {
    const char *name;
    int ndim, dims[4]; /* PyTorch's order */
    size_t count;
    size_t offset; /* of its first float in the arena of a parameter set, of a gradient, of optimiser moments */
    bool buffer;
    struct init init;
};
int graph_nparams(const struct graph *g); /* parameters and buffers, in declaration order */
const struct param_info *graph_param_info(const struct graph *g, int i);
const struct param_info *graph_param_named(const struct graph *g, const char *name); /* or NULL */
size_t graph_arena_floats(const struct graph *g); /* trainable parameters, padded; buffers are outside */
size_t graph_param_count(const struct graph *g);  /* trainable elements */

/* FLOPs of one forward pass of one sample: 2 per multiply-accumulate, by kind; from shapes alone. */
struct flops {
    double linear, conv3x3, conv1x1, conv_other, resample, attention;
};
double flops_total(const struct flops *f); /* with resample */
void graph_flops(const struct graph *g, struct flops *f);

/* ---- parameter sets ------------------------------------------------------------------------------------------------- */

/* Everything a set needs but packed weights (program_bind) is allocated here; ERR_DEVICE_MEM when it does not fit. */
err_t params_new(struct params **p, const struct graph *g, const struct kernels *k, struct kdev *dev) MUST_USE;
void params_free(struct params *p);
void params_init(struct params *p, uint64_t seed); /* fresh values by each parameter's init */
float *params_arena(struct params *p);             /* device; after writing to it call params_changed */
void params_changed(struct params *p);             /* the weight program runs again before the next forward */
/* EDM2's forced normalisation (Karras et al. 2024, eq. 66): every weight that op_mp_weight uses becomes w / RMS(w) in place, row by row.
 * For the online set, before the first micro-batch of a training step; never for a teacher or an average. */
bool graph_has_forced_norm(const struct graph *g);
void params_force_norm(struct params *p);
void params_copy(struct params *dst, const struct params *src);
/* Host values in PyTorch's order, count floats. For arenas of the same layout that are not parameter sets (gradients,
 * moments, EMA) use the arena_ forms; they touch no buffer. */
void params_get(const struct params *p, int i, float *out);
void params_set(struct params *p, int i, const float *in);
void arena_get(const struct graph *g, const struct kernels *k, struct kdev *dev, const float *arena, int i, float *out);
void arena_set(const struct graph *g, const struct kernels *k, struct kdev *dev, float *arena, int i, const float *in);

/* ---- programs ---------------------------------------------------------------------------------------------------------- */

enum grad_mode { GRAD_NONE, GRAD_INPUTS, GRAD_PARAMS, GRAD_ALL };
struct program_opts {
    int batch;
    enum grad_mode grad;
    bool eval_form;   /* preconditioning in ECMPrecond's evaluation form (sigma_min shift 0.003) */
    bool plain_form;  /* preconditioning without any shift: a denoiser, whatever the graph's sigma_min */
    const char *only; /* compile only what this output needs, or these: "D,logvar"; NULL: all outputs */
    bool unplanned;   /* every tensor gets memory of its own: the reference that tests hold the memory plan against */
};
err_t program_new(struct program **p, struct graph *g, const struct kernels *k, struct kdev *dev,
                  const struct program_opts *o) MUST_USE;
void program_free(struct program *p);

/* Where to write inputs, read outputs, write output gradients, read input gradients: device pointers, fixed for life. Inputs
 * and output gradients belong to the caller: zero at first, never written to by a program. Outputs and input gradients last
 * until the next forward. NULL: no such name, an output that was not compiled, a gradient that does not flow (to sigma; to
 * inputs in GRAD_PARAMS). */
float *program_input(struct program *p, const char *name);
float *program_output(struct program *p, const char *name);
float *program_output_grad(struct program *p, const char *name);
float *program_input_grad(struct program *p, const char *name);

/* Reserves the memory for weights in the library's own layout, which belongs to the set and is shared by all programs of equal shapes:
 * ERR_DEVICE_MEM when there is none. Cheap when done before. A forward does it too, for callers that have no way to fail: there,
 * running out ends the process. */
err_t program_bind(struct program *p, struct params *w) MUST_USE;

struct run_ctx {         /* what differs from call to call */
    float dropout;       /* probability; 0 in evaluation */
    struct kstream drop; /* purpose RNG_DROPOUT or RNG_DROPOUT_R; layer is filled in per op */
};
void program_forward(struct program *p, struct params *w, const struct run_ctx *c);
/* After a forward with the same w and c: from program_output_grad to the inputs and, adding, to grad (an arena like params'). */
void program_backward(struct program *p, struct params *w, const struct run_ctx *c, float *grad);

struct program_stats {
    size_t arena_bytes, workspace_bytes, saved_bytes; /* planned arena; largest kernel workspace; kept for backward */
    int ops, backward_ops;
};
void program_stats(const struct program *p, struct program_stats *s);

#endif
