/* eval_space: the feature spaces of an evaluation. A space is one extractor with the features of the whole data set in it, made once, when the
 * first metric asks for it. */
#ifndef CORE_EVAL_SPACE_H
#define CORE_EVAL_SPACE_H

#include "core/io/dataset.h"
#include "core/metrics/features.h"
#include "core/metrics/metric.h"

struct spaces;
struct space;
struct spaces *spaces_new(const struct dataset *ref, int batch, const struct kernels *k, struct kdev *dev);
void spaces_free(struct spaces *s);
/* The space of a metric; with reference, the features of the whole data set are ready for it. Lives as long as s. */
err_t spaces_get(struct spaces *s, const struct metric *m, bool reference, struct space **out) MUST_USE;
int space_dim(const struct space *s);
const struct feature_set *space_reference(const struct space *s);
/* Adds features of n images: px[n, h, w, c], any n. */
err_t space_add(struct space *s, struct feature_set *to, const uint8_t *px, int n) MUST_USE;
/* Adds those of the data set's images idx[0..n), or of its first n. */
err_t space_add_data(struct space *s, struct feature_set *to, const uint32_t *idx, int n) MUST_USE;

#endif
