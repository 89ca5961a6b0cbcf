/* features: extractors from images to vectors.
 *
 *   pixel             the image itself, x / 127.5 - 1
 *   random            a fixed convolutional network with weights from the portable hash formula (murmur3 finaliser of element index and
 *                     CRC-32 of the tensor's name), so any program can rebuild it
 *   digits            what a classifier of 8x8 digits, shipped with its weights, knows of them in front of its last layer; 64 features
 *   digits-classes    its decision: 1 for the class, 0 for the others
 *   inception         FID's Inception-v3 along pytorch-fid's path: u8 / 255, torch's bilinear resizing to 299, 2 x - 1; 2048 features
 *   inception-tf      the same weights along TensorFlow 1's path, which NVIDIA's detector follows: resizing by corners, (u8 - 128) / 128
 *   dinov2-vitl14     DINOv2 along dgm-eval's path: Pillow's bicubic to 224 x 224 on uint8, ImageNet's mean and std; 1024 features
 *                     (-vits14: 384, -vitb14: 768, -vitg14: 1536); "+clean": dgm-eval's --clean_resize, on floats
 *
 * The hash of an extractor (definition, and for published networks the weights file) is part of the evaluator's identity. */
#ifndef CORE_METRICS_FEATURES_H
#define CORE_METRICS_FEATURES_H

#include "core/graph.h"

struct extractor;
bool extractor_exists(const char *name); /* as a name; its weights may be missing */
/* ERR_USAGE: no such extractor, or images it cannot see. ERR_NO_DATA: its weights are not installed; says what to do. */
err_t extractor_new(struct extractor **x, const char *name, int h, int w, int c, int batch, const struct kernels *k,
                    struct kdev *dev) MUST_USE;
void extractor_free(struct extractor *x);
int extractor_dim(const struct extractor *x);
const char *extractor_sha(const struct extractor *x); /* of architecture text and weights */
/* The same hash without building the extractor; fails like extractor_new. */
err_t extractor_identity(const char *name, int h, int w, int c, char sha[SHA256_TEXT]) MUST_USE;
const char *extractor_resize(const char *name); /* how it comes to its own size, in a few words; "none" */
/* px: n <= batch images uint8 NHWC -> out [n, dim] on the host */
err_t extractor_run(struct extractor *x, const uint8_t *px, int n, float *out) MUST_USE;
/* u in [-0.5, 0.5) of element i of tensor `name` in the portable formula, and float32(shift + scale * u). */
double portable_uniform(const char *name, uint32_t i);
float portable_weight(const char *name, uint32_t i, double shift, double scale);

#endif
