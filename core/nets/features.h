/* Builders of the published feature networks, with the published parameter names. They have no preconditioning and are not trained here; what
 * a published module computes at load (folded batch normalisation, turned weights) is done by those who fill the parameters. */
#ifndef CORE_NETS_FEATURES_H
#define CORE_NETS_FEATURES_H

#include "core/graph.h"

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

#endif
