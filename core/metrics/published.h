/* published: the extractors of features.h whose weights come from files: Inception-v3 and DINOv2. For features.c, and for the checks against
 * published vectors. */
#ifndef CORE_METRICS_PUBLISHED_H
#define CORE_METRICS_PUBLISHED_H

#include "core/graph.h"

struct published;
bool published_exists(const char *name);
const char *published_resize(const char *name);
err_t published_identity(const char *name, int h, int w, int c, char sha[SHA256_TEXT]) MUST_USE;
err_t published_new(struct published **p, const char *name, int h, int w, int c, int batch, const struct kernels *k,
                    struct kdev *dev) MUST_USE;
void published_free(struct published *p); /* NULL is fine */
/* Is the file at path this network? ERR_FORMAT names what is missing or has another shape. */
err_t published_check(const char *name, const char *path, const struct kernels *k, struct kdev *dev) MUST_USE;
int published_dim(const struct published *p);
void published_run(struct published *p, const uint8_t *px, int n, float *out);

/* What the networks are given of an image [h, w, c], c = 1 (repeated) or 3. */
void inception_pixels(const uint8_t *px, int h, int w, int c, float *hwc); /* / 255, [h, w, 3] */
/* dgm-eval's preprocessing: [3, 224, 224]. clean: resized as floats, clipped afterwards. resized (may be NULL): [224, 224, 3] in [0, 1]
 * before normalisation. */
void dinov2_preprocess(const uint8_t *px, int h, int w, int c, bool clean, float *chw, float *resized);

#endif
