/* ops: the constructors a network is written with. Each is one file in core/ops/: shape rule, FLOPs, forward and backward in
 * terms of kernels. All return a new node of g; a wrong shape is a broken promise of ours (assert with the node's name). */
#ifndef CORE_OPS_H
#define CORE_OPS_H

#include "core/graph.h"

/* y = conv(x, w) + bias; w {K, C, R, S}; stride 1, padding R/2. bias may be NULL. */
struct node *op_conv(struct graph *g, struct node *x, struct node *w, struct node *bias);
struct conv_opts {
    int stride, pad_h, pad_w;
};
struct node *op_conv_opts(struct graph *g, struct node *x, struct node *w, struct node *bias, struct conv_opts o);
/* y[n, k] = sum_c x[n, c] w[k, c] + bias[k], for every pixel */
struct node *op_linear(struct graph *g, struct node *x, struct node *w, struct node *bias);
/* Group normalisation, then SiLU if silu, then dropout if dropout (probability comes with run_ctx). */
struct norm_opts {
    int groups;
    double eps;
    bool silu, dropout;
};
struct node *op_group_norm(struct graph *g, struct node *x, struct node *gamma, struct node *beta, struct norm_opts o);
/* With an adaptive scale and shift before SiLU: norm(x) (1 + scale) + shift; e {batch,1,1,2c} holds the scales, then the shifts. */
struct node *op_group_norm_adaptive(struct graph *g, struct node *x, struct node *gamma, struct node *beta,
                                    struct node *e, struct norm_opts o);
struct node *op_silu(struct graph *g, struct node *x);
struct node *op_add(struct graph *g, struct node *a, struct node *b, double scale); /* scale * (a + b) */
struct node *op_add_channel(struct graph *g, struct node *x, struct node *e);       /* e {batch,1,1,c} to every pixel */
struct node *op_scale(struct graph *g, struct node *x, double scale);
struct node *op_concat(struct graph *g, struct node *a, struct node *b); /* along channels */
/* Depthwise resampling by 2 with filter taps (normalised here): EDM's up/down. */
struct node *op_resample(struct graph *g, struct node *x, const double *taps, int ntaps, bool up);
/* Down by 2 where the filter lies inside the image: no padding, (h - ntaps) / 2 + 1 rows. */
struct node *op_resample_inside(struct graph *g, struct node *x, const double *taps, int ntaps);
/* Softmax attention of an interleaved qkv {batch, h, w, heads*ch*3} (channel = head*3*ch + c*3 + {q,k,v}); k / sqrt(ch). */
struct node *op_attention(struct graph *g, struct node *qkv, int heads);
struct node *op_embed_positional(struct graph *g, struct node *t, int channels, bool endpoint, bool cos_first);
/* sin and cos of 2 pi t f; freqs: a buffer, half as many as channels. */
struct node *op_embed_fourier(struct graph *g, struct node *t, struct node *freqs, bool cos_first);
struct node *op_relu(struct graph *g, struct node *x);
struct node *op_mean_pool(struct graph *g, struct node *x);
/* Of feature networks. Those marked + have no gradient. */
struct node *op_pool(struct graph *g, struct node *x, enum pool_kind kind, int size, int stride, int pad);
struct node *op_resize(struct graph *g, struct node *x, int h, int w, bool corner); /* bilinear: struct resize_desc */
struct node *op_layer_norm(struct graph *g, struct node *x, struct node *gamma, struct node *beta, double eps);
struct node *op_gelu(struct graph *g, struct node *x);                          /* + exact: by erf */
struct node *op_swiglu(struct graph *g, struct node *x);                        /* + silu(first half) * second half */
struct node *op_add_table(struct graph *g, struct node *x, struct node *table); /* t {h*w, c}: position embeddings */
struct node *op_first_pixel(struct graph *g, struct node *x);                   /* + class token */
/* Magnitude-preserving layers of EDM2 (Karras et al. 2024, appendix B): on inputs of unit variance, outputs of unit variance. */
/* The weight param / RMS / sqrt(fan_in), row by row, times gain: a parameter of one number, NULL for 1. For op_conv and op_linear. */
struct node *op_mp_weight(struct graph *g, struct node *param, struct node *gain);
struct node *op_mp_silu(struct graph *g, struct node *x);                             /* silu / 0.596 */
struct node *op_mp_add(struct graph *g, struct node *a, struct node *b, double t);    /* (1-t) a + t b */
struct node *op_mp_concat(struct graph *g, struct node *a, struct node *b, double t); /* parts weighted 1-t, t */
struct node *op_mp_fourier(struct graph *g, struct node *t, struct node *f, struct node *phase); /* cos(f t + phase) */
struct node *op_pixel_norm(struct graph *g, struct node *x);                /* over the channels of each pixel */
struct node *op_mp_attention(struct graph *g, struct node *qkv, int heads); /* q, k and v normalised over channels */
struct node *op_gate(struct graph *g, struct node *x, struct node *e);      /* x (1 + e), e {batch,1,1,c} */
struct node *op_clip(struct graph *g, struct node *x, double limit); /* to +- limit; gradient where |x| <= limit */
struct node *op_append_one(struct graph *g, struct node *x);         /* one more channel, of ones */
struct node *op_dropout(struct graph *g, struct node *x);            /* probability comes with run_ctx */
/* EDM preconditioning (Karras et al. 2022, Table 1): from sigma {batch,1,1,1}. sigma_min shifts c_skip and c_out so that D(x, sigma_min) = x:
 * > 0 always (Song et al. 2023, CT and CD), 0: by 0.003 in programs of the eval_form (ECT). */
struct precond {
    struct node *x_in, *c_noise; /* c_in * x ; ln(sigma)/4 */
    struct node *coeffs;         /* {batch,1,1,4}: c_skip, c_out, c_in, c_noise */
};
struct precond op_precond_in(struct graph *g, struct node *x, struct node *sigma, double sigma_data, double sigma_min);
struct precond op_precond_plain(struct graph *g, struct node *x, struct node *sigma,
                                double sigma_data); /* never shifted */
struct node *op_precond_out(struct graph *g, struct node *x, struct node *f,
                            struct precond pc); /* c_skip x + c_out F */

#endif
