/* unet: what SongUNet and DhariwalUNet share: layers that declare their parameters under the official names ("model." in front), and
 * the residual block. A family is told apart by the options below, which are the published block's. */
#ifndef CORE_NETS_UNET_H
#define CORE_NETS_UNET_H

#include "core/nets.h"
#include "core/ops.h"

enum { UNET_SKIPS = 1024, UNET_NAME = 96 };
enum unet_resample { UNET_SAME, UNET_DOWN, UNET_UP };

/* How weights and biases start. A bias is drawn like its layer's weights, with the same fan-in. */
struct unet_init {
    enum init_kind kind;
    double weight, bias; /* scales; 0: zeros */
};
struct unet {
    struct graph *g;
    struct node *emb; /* of noise level, label and augmentation, {batch,1,1,c} */
    int resolution;   /* of the blocks being declared: the builder keeps it */
    double taps[NET_LEVELS];
    int ntaps; /* resample_filter */
    double eps, skip_scale;
    bool project;      /* resample_proj: blocks that resample have a 1x1 convolution on their skip path in any case */
    bool adaptive;     /* adaptive_scale: the embedding scales and shifts what the second normalisation gives */
    int head;          /* channels of an attention head, heads = channels / head; 0: one head */
    int dropout_below; /* dropout at resolutions up to this; 0: at all */
    struct unet_init plain, zero, attention;
};

/* ERR_USAGE where the network cannot be built: sizes, groups, heads, taps. first: channels of the first convolution. */
err_t unet_check(const struct unet *u, const struct net_config *c, int first) MUST_USE;
void unet_filter(struct unet *u, const struct net_config *c); /* net.filter; none: 1,1 */

/* name: without "model."; ".weight" and ".bias" are added. */
struct node *unet_linear(struct unet *u, const char *name, struct node *x, int out, bool bias, struct unet_init init);
struct node *unet_conv(struct unet *u, const char *name, struct node *x, int out, int kernel, struct unet_init init);
/* The published fused form: convolution on an image padded for the filter too, then the filter inside it, stride 2. */
struct node *unet_conv_down(struct unet *u, const char *name, struct node *x, int out, int kernel,
                            struct unet_init init);
struct node *unet_norm(struct unet *u, const char *name, struct node *x, bool silu);
struct node *unet_resample(struct unet *u, const char *name, struct node *x, enum unet_resample mode);
struct node *unet_block(struct unet *u, const char *name, struct node *x, int out, enum unet_resample mode,
                        bool attention);

/* The inputs of net_build with the preconditioning before the network; unet_end is what comes after it, and the outputs. */
struct unet_inputs {
    struct node *x, *labels, *augment; /* NULL: the network has none */
    struct node *x_in, *c_noise;       /* what the network sees */
    struct precond pc;
};
struct unet_inputs unet_begin(struct unet *u, const struct net_config *c);
void unet_end(struct unet *u, const struct net_config *c, const struct unet_inputs *in, struct node *f);

bool net_attends(const struct net_config *c, int resolution);

#endif
