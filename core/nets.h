/* nets: the network families. A family is one file in core/nets/ with a builder that reads like the published module. */
#ifndef CORE_NETS_H
#define CORE_NETS_H

#include "core/graph.h"

enum { NET_LEVELS = 8 };
struct net_config {
    char family[32];             /* "songunet" (DDPM++ configuration) ... */
    int resolution, in_channels; /* square images; output channels equal input channels */
    int label_dim;               /* 0: unconditional */
    int augment_dim;             /* 0 or 9 */
    int width;                   /* model_channels */
    int mult[NET_LEVELS], nmult; /* channel_mult */
    int blocks;                  /* num_blocks per resolution */
    int attn[NET_LEVELS], nattn; /* attn_resolutions */
    int emb_mult;                /* channel_mult_emb, 4 */
    int noise_mult;              /* channel_mult_noise, 1 */
    double sigma_data;
};
/* Inputs "x" {h,w,c}, "sigma" {1,1,1}, "labels" {1,1,label_dim}, "augment" {1,1,augment_dim}; outputs "F" (raw network) and
 * "D" (denoiser, preconditioned). Parameter names have the official prefix "model.". ERR_USAGE for a bad configuration. */
err_t net_build(struct graph *g, const struct net_config *c) MUST_USE;

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
