/* classifier: feature spaces of one's own classifiers (core/nets/convnet.c), whose weights are shipped with ect. "digits": the 64 features in
 * front of the last layer of experiments/data/digits-classifier.safetensors; "digits-classes": its decision, 1 for the class and 0 for others,
 * so that a mean of it is a histogram. For features.c. */
#ifndef CORE_METRICS_CLASSIFIER_H
#define CORE_METRICS_CLASSIFIER_H

#include "core/graph.h"

struct classifier;
bool classifier_exists(const char *name);
/* ERR_USAGE: images of another shape than it was trained on. ERR_NO_DATA: its file is missing. */
err_t classifier_identity(const char *name, int h, int w, int c, char sha[SHA256_TEXT]) MUST_USE;
err_t classifier_new(struct classifier **x, const char *name, int h, int w, int c, int batch, const struct kernels *k,
                     struct kdev *dev) MUST_USE;
void classifier_free(struct classifier *x); /* NULL is fine */
int classifier_dim(const struct classifier *x);
err_t classifier_run(struct classifier *x, const uint8_t *px, int n, float *out) MUST_USE;

#endif
