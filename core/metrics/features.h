/* features: extractors from images to vectors. fd_random's is a fixed convolutional network with weights from the
 * portable hash formula (murmur3 finaliser of element index and CRC-32 of the tensor's name), so any program can
 * rebuild it; its hash is part of the evaluator's identity. */
#ifndef CORE_METRICS_FEATURES_H
#define CORE_METRICS_FEATURES_H

#include "core/graph.h"

struct extractor;
err_t extractor_new(struct extractor **x, const char *name, int h, int w, int c, int batch, const struct kernels *k,
                    struct kdev *dev) MUST_USE;
void extractor_free(struct extractor *x);
int extractor_dim(const struct extractor *x);
const char *extractor_sha(const struct extractor *x); /* of architecture text and weights */
/* The same hash without building the extractor. ERR_USAGE: no such name ("pixel", "random"). */
err_t extractor_identity(const char *name, int h, int w, int c, char sha[SHA256_TEXT]) MUST_USE;
/* px: n <= batch images uint8 NHWC -> out [n, dim] on the host */
err_t extractor_run(struct extractor *x, const uint8_t *px, int n, float *out) MUST_USE;
/* u in [-0.5, 0.5) of element i of tensor `name` in the portable formula, and float32(shift + scale * u). */
double portable_uniform(const char *name, uint32_t i);
float portable_weight(const char *name, uint32_t i, double shift, double scale);

#endif
