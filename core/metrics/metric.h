/* metric: the names of numbers about images, and how each comes from two sets of features. A name is a measure and a feature space:
 *
 *   fd_SPACE          Frechet distance, covariance / (N - 1)
 *   kd_SPACE          kernel distance: mean over 100 subsets of 1000 (metrics/kernel.h)
 *   precision_SPACE, recall_SPACE, density_SPACE, coverage_SPACE     5 neighbours (metrics/prdc.h)
 *   classes_SPACE     distance of the histograms of classes, sum |p - q| / 2, as the classifier of SPACE (digits) sees them
 *   fid:pytorch       fd in "inception": pytorch-fid's path        kid:pytorch    kd in it
 *   fid:nvidia        fd in "inception-tf", covariance / N as in ECT's own code; unverified until compared with NVIDIA's numbers
 *
 * SPACE: pixel, random, digits, dinov2 (= dinov2-vitl14), dinov2-vits14, -vitb14, -vitg14, dinov2-vitl14+clean ..., inception. "fid" is fid:pytorch,
 * "kid" is kid:pytorch. Endings change one rule: ":n" divides covariances by N, ":kK" takes K neighbours. */
#ifndef CORE_METRICS_METRIC_H
#define CORE_METRICS_METRIC_H

#include "core/metrics/frechet.h"

enum measure {
    MEASURE_FRECHET,
    MEASURE_KERNEL,
    MEASURE_CLASSES,
    MEASURE_PRECISION,
    MEASURE_RECALL,
    MEASURE_DENSITY,
    MEASURE_COVERAGE
};
enum { METRIC_NAME = 32, METRIC_SUBSETS = 100, METRIC_SUBSET = 1000, METRIC_NEIGHBOURS = 5 };
struct metric {
    char name[METRIC_NAME]; /* canonical: the only form that is recorded */
    enum measure measure;
    char space[METRIC_NAME]; /* an extractor's name */
    bool biased;             /* covariances / N */
    int neighbours;
};
/* ERR_USAGE: no such metric; names the nearest. Whether its extractor's weights are there is another question (extractor_identity). */
err_t metric_parse(const char *name, struct metric *m) MUST_USE;
bool metric_needs_rows(const struct metric *m); /* all features, not only their moments */
/* Lines of the evaluator's identity: name, extractor, resize, rules. */
void metric_identity(const struct metric *m, const char *extractor_sha, struct text *canon);

/* Features of one set of images: moments always, the rows themselves where some metric needs them. Added to in chunks. */
struct feature_set {
    struct moments m;
    bool keep;
    float *rows; /* [n, d] */
    int64_t n, cap;
};
err_t feature_set_init(struct feature_set *s, int d, bool keep) MUST_USE;
void feature_set_add(struct feature_set *s, const float *x, int64_t n);
void feature_set_done(struct feature_set *s);

/* The number: `got` measured against `ref`. ERR_FAILED: too few samples, or features that are not finite. */
err_t metric_of(const struct metric *m, const struct feature_set *ref, const struct feature_set *got,
                double *out) MUST_USE;

#endif
