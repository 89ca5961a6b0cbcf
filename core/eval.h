/* eval: a number for a set of weights. An evaluation is keyed by (run, step, weights) and an evaluator: everything
 * that could change the number, as canonical text with a hash. Sample i depends on (seed block, i) only.
 *
 * Metrics of images: those of metrics/metric.h, after uint8 quantisation. fid and fd_dinov2 exist only with their real extractors. Of
 * points: energy and sw2 (eval_points.h), of samples as they are. */
#ifndef CORE_EVAL_H
#define CORE_EVAL_H

#include "core/graph.h"
#include "core/io/dataset.h"
#include "core/labels.h"
#include "core/sampler.h"
#include "core/spec.h"

struct eval_request {
    char metric[32];
    struct sampler_config sampler;
    int64_t samples;
    uint64_t seed; /* block */
    bool shifted;  /* ECMPrecond's evaluation form of the preconditioning: for sampler ect; EDM's solvers: plain */
    bool cond;     /* the network takes labels: drawn as `labels` says; else none */
    struct label_policy labels;
    char stats
        [256]; /* a statistics file (metrics/stats.h) in place of the data set; "": the data set. For Frechet distances */
};
/* Adds to canon the canonical text "key=value\n..." of everything that identifies the evaluator (not run, step,
 * weights); sha is its hash. */
void eval_identity(const struct eval_request *q, const struct dataset *ref, struct text *canon, char sha[SHA256_TEXT]);

/* The name under which a metric is recorded ("fid" is fid:pytorch), into out[32]. ERR_USAGE: no such metric, or one that cannot be of these
 * data; ERR_NO_DATA: its extractor's weights are not installed, with what to do. */
err_t eval_metric_check(const char *metric, const struct dataset *ref, char out[32]) MUST_USE;
/* Metrics of images need images, "energy" and "sw2" (core/eval_points.h) need points: ERR_USAGE says which are possible. */
err_t eval_metric_fits(const char *metric, const struct dataset *ref) MUST_USE;

struct eval;
/* Prepares programs, extractor and reference statistics for one network on one data set. */
err_t eval_new(struct eval **e, struct graph *g, const struct dataset *ref, const struct kernels *k,
               struct kdev *dev) MUST_USE;
void eval_free(struct eval *e);
struct eval_value {
    double value;
    double seconds, flops; /* its share (1/n) of the pass and its own work: sums over requests are what really ran */
    int nfe;               /* counted */
};
/* One pass of sampling serves all metrics of requests that share sampler, samples and seed: n requests, all such. */
err_t eval_run(struct eval *e, struct params *w, const struct eval_request *q, int n, struct eval_value *out,
               void (*progress)(void *ctx, int64_t done, int64_t total), void *ctx) MUST_USE;
/* From now on passes of eval_run save what they have seen to path every `every_ms`, go on from what is there when they begin, and remove it
 * when they end; stop is asked after every chunk: true saves and returns ERR_INTERRUPTED. The pass's identity is in the file; `of` is
 * what only the caller knows of it (run, step, weights). Of images only. NULL: off. path, of: the caller's, for as long. */
struct eval_keep {
    const char *path, *of;
    int64_t every_ms;
    bool (*stop)(void *ctx); /* may be NULL */
    void *ctx;
};
void eval_keep(struct eval *e, const struct eval_keep *k);
/* Images [n, h, w, c] float64, as the sampler leaves them, of the samples index[] of a seed block. */
err_t eval_samples(struct eval *e, struct params *w, const struct eval_request *q, uint64_t seed, const uint32_t *index,
                   int n, double *out) MUST_USE;
/* Controls by the same evaluators: real half against the other half (a random split; samples is not used); `samples`
 * draws, quantised, of a Gaussian with the data's pixel moments, against the data. Of points: `samples` fresh points, and draws of a
 * Gaussian with the data's moments, against the metrics' reference. */
enum eval_control { CONTROL_REAL_HALF, CONTROL_GAUSSIAN };
err_t eval_control(struct eval *e, enum eval_control kind, const char *metric, int64_t samples, uint64_t seed,
                   double *out) MUST_USE;
/* Index in the data set of the nearest training image (L2 in pixels) of each sample. */
void eval_nearest(const struct dataset *d, const double *x, int n, int32_t *index);

#endif
