/* nets: the network families. A family is one file in core/nets/ with a builder that reads like the published module. */
#ifndef CORE_NETS_H
#define CORE_NETS_H

#include "core/graph.h"

enum { NET_LEVELS = 8 };
enum net_precond {
    PRECOND_EDM, /* D = c_skip x + c_out F(c_in x, ln(sigma) / 4): Karras et al. 2022, Table 1 */
    PRECOND_FLOW /* D = F(x, t): the network is a velocity at time t in [0, 1], passed in as "sigma" */
};
struct net_config {              /* names in comments: the published modules' */
    char family[32];             /* "songunet" (DDPM++, NCSN++), "adm" (DhariwalUNet), "edm2", "mlp", "convnet" */
    int resolution, in_channels; /* square images; output channels equal input channels */
    int label_dim;               /* 0: unconditional */
    int augment_dim;             /* 0 or 9 */
    int width;                   /* model_channels; mlp: hidden units */
    int mult[NET_LEVELS], nmult; /* channel_mult */
    int blocks;                  /* num_blocks per resolution; mlp: hidden layers */
    int attn[NET_LEVELS], nattn; /* attn_resolutions */
    int emb_mult;                /* channel_mult_emb, 4; edm2, 0: largest of mult */
    int noise_mult;              /* channel_mult_noise, 1; edm2, 0: first of mult */
    double sigma_data;
    double
        sigma_min; /* PRECOND_EDM: D is the identity there, as in CT and CD; 0: EDM's form, ECMPrecond's in evaluation */
    enum net_precond precond;
    int dropout_res; /* dropout only at resolutions <= this; 0: everywhere */
    /* songunet; a zeroed struct is DDPM++ */
    bool fourier;         /* embedding_type, "positional" or "fourier"; mlp too */
    double fourier_scale; /* of the drawn frequencies, where fourier */
    enum { CODER_STANDARD, CODER_SKIP, CODER_RESIDUAL } encoder, decoder;
    int filter[NET_LEVELS], nfilter; /* resample_filter; none: 1,1 */
    int head;                        /* adm, edm2: channels_per_head, 64 */
    /* edm2 */
    bool logvar; /* output "logvar" of the noise level {1,1,1} */
    int logvar_channels;
    double clip;                                                     /* clip_act, 256; 0: none */
    double label_balance, concat_balance, res_balance, attn_balance; /* 0: the published 0.5, 0.5, 0.3, 0.3 */
};
/* Inputs "x" {h,w,c}, "sigma" {1,1,1}, "labels" {1,1,label_dim}, "augment" {1,1,augment_dim}; outputs "F" (raw network) and
 * "D" (denoiser, preconditioned). Parameter names have the official prefix "model.". ERR_USAGE for a bad configuration. */
err_t net_build(struct graph *g, const struct net_config *c) MUST_USE;

/* A configuration from settings and what the data set gives; and the settings of a configuration. The target says the precond. */
struct spec;
err_t net_config_from_spec(struct net_config *c, const struct spec *s, int resolution, int channels, int classes,
                           double sigma_data) MUST_USE;
void net_config_to_spec(const struct net_config *c, struct spec *s);

/* Presets by the names people use ("cifar10-ddpmpp", ...). NULL if unknown. List ends with name NULL. */
struct net_preset {
    const char *name, *help;
    struct net_config config;
};
extern const struct net_preset net_presets[];
const struct net_preset *net_preset_find(const char *name);

/* Registration of families: one row each in nets.c. */
struct net_family {
    const char *name;
    err_t (*build)(struct graph *g, const struct net_config *c);
};

#endif
