/* Builders of the published feature networks. They have no preconditioning and are not trained here. Parameters keep the published names where
 * they are the published values; where a published module is rewritten at load (batch normalisation folded into weights, rows put in
 * another order, LayerScale multiplied in) its _load function does that, from a source of tensors under the published names. */
#ifndef CORE_NETS_FEATURES_H
#define CORE_NETS_FEATURES_H

#include "core/graph.h"

/* Where published tensors come from: a file, or a formula. get fills count floats in PyTorch's order, or says what is wrong. */
struct tensor_source {
    err_t (*get)(void *ctx, const char *name, float *out, size_t count);
    void *ctx;
};

/* VGG16's convolutions (Simonyan & Zisserman 2015), as LPIPS uses them. Input "x" {h, w, c} in [-1, 1], c = 1 (repeated) or 3; output
 * "f0".."f4": the last ReLU of each of the five stages. Names features.N.weight, features.N.bias as torchvision counts. */
enum { VGG_STAGES = 5 };
struct vgg_config {
    int h, w, c;
    int side;              /* > 0: the input is resized bilinearly to side x side */
    int width[VGG_STAGES]; /* published: 64 128 256 512 512 */
    enum pool_kind
        pool; /* between stages: POOL_MAX as published, POOL_MEAN as in the LPIPS that CT and CD train with */
};
err_t vgg_build(struct graph *g, const struct vgg_config *c) MUST_USE;
int vgg_index(int stage, int conv);     /* N of features.N */
extern const int vgg_depth[VGG_STAGES]; /* convolutions per stage: 2 2 3 3 3 */

/* The Inception-v3 of the Frechet inception distance: the TensorFlow graph of 2015, whose poolings differ from torchvision's. Input "x"
 * {h, w, 3}: pixels / 255. Outputs "features" {2048}, and "resized" {299, 299, 3}, "block0".."block2": means over pixels of what the first
 * three blocks give (64, 192, 768). corner: TensorFlow 1's resizing instead of torch's. */
enum { INCEPTION_SIDE = 299, INCEPTION_DIM = 2048 };
void inception_build(struct graph *g, int h, int w, bool corner);
err_t inception_load(const struct graph *g, struct params *p, const struct tensor_source *s) MUST_USE;

/* DINOv2's vision transformers (Oquab et al. 2023) without registers on 224 x 224 pixels. Input "patches" {257, 1, 588}: a row of zeros for
 * the class token, then 16 x 16 patches of 3 x 14 x 14 values (dinov2_patches). Output "features" {dim}: the normalised class token. */
enum { DINOV2_SIDE = 224, DINOV2_PATCH = 14, DINOV2_GRID = 16, DINOV2_TOKENS = 257, DINOV2_VALUES = 588 };
struct dinov2_config {
    int dim, heads, depth;
    bool swiglu; /* ViT-g's gated MLP */
    int trained; /* side of the position table, in patches: 37 */
};
void dinov2_build(struct graph *g, const struct dinov2_config *c);
err_t dinov2_load(const struct graph *g, struct params *p, const struct dinov2_config *c,
                  const struct tensor_source *s) MUST_USE;
/* [3, 224, 224] normalised values of one image -> [257, 588] */
void dinov2_patches(const float *chw, float *patches);
/* The published interpolation of the position table: in[side * side, dim] -> out[grid * grid, dim], bicubic (a = -0.75) with coordinates
 * scaled by side / (grid + 0.1). */
void dinov2_positions(const float *in, int side, float *out, int grid, int dim);
int dinov2_hidden(const struct dinov2_config *c); /* width inside the MLP */

#endif
