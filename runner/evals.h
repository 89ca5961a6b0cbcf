/* evals: which numbers a run should have, which are missing, and computing those from its checkpoints. An item is one number: (step,
 * weights) of the run and a request with its evaluator identity. */
#ifndef RUNNER_EVALS_H
#define RUNNER_EVALS_H

#include "core/eval.h"
#include "db/query.h"
#include "runner/lab.h"

struct eval_item {
    int64_t step;
    char weights[32]; /* "raw" or an EMA's name */
    struct eval_request q;
    char sha[SHA256_TEXT]; /* of the evaluator */
    char *canon;
};
struct eval_list {
    struct eval_item *v;
    int n, cap;
};
void eval_list_done(struct eval_list *l);
/* Adds the items of one evaluation set (the EVAL settings of e) for a run of `run`'s TRAIN settings. Items already there are not
 * added again. ERR_NO_DATA for metrics whose extractor is missing; ERR_USAGE for unknown ones. */
err_t eval_list_add(struct eval_list *l, const struct spec *run, const struct spec *e,
                    const struct dataset *data) MUST_USE;
/* Of every cell of the script with this configuration. */
err_t eval_list_of(struct eval_list *l, const struct script *s, const char *config_hash,
                   const struct dataset *data) MUST_USE;
/* Keeps what the ledger does not have yet. */
void eval_list_missing(struct eval_list *l, struct ledger *ledger, const char *run_id);
/* "25%", "100%" or a number of steps, of a run of iters steps. */
err_t eval_step(const char *at, int64_t iters, int64_t *step) MUST_USE;
/* Steps whose checkpoints evaluations need, ascending; at most cap. */
int eval_list_steps(const struct eval_list *l, int64_t *steps, int cap);
err_t eval_request_init(struct eval_request *q, const struct spec *run, const struct spec *e, const char *metric,
                        int nfe) MUST_USE;

/* Controls of a data set that the list's metrics should have: real half against half, Gaussian. */
err_t controls_run(struct lab *b, struct eval *e, const struct dataset *d, const struct eval_list *l) MUST_USE;
bool controls_missing(struct ledger *ledger, const struct dataset *d, const struct eval_list *l);

/* The network of a run, opened for sampling: graph, weights, programs. */
struct sampling {
    const struct spec *spec;
    const struct dataset *data;
    const struct kernels *kernels;
    struct kdev *dev;
    struct graph *graph;
    struct params *params;
    struct eval *eval;
    char loaded[64]; /* "STEP WEIGHTS" now in params */
};
err_t sampling_open(struct sampling *s, const struct spec *spec, const struct dataset *data, const struct kernels *k,
                    struct kdev *dev) MUST_USE;
void sampling_close(struct sampling *s);
/* Weights of a step (< 0: the newest) from a run's checkpoints. */
err_t sampling_load(struct sampling *s, const char *ckpt_dir, int64_t step, const char *weights) MUST_USE;

struct eval_watch { /* asked and told between evaluations; any may be NULL */
    void *ctx;
    bool (*stop)(void *ctx);
    void (*told)(void *ctx, int done, int total);
    void (*samples)(void *ctx, int64_t done, int64_t total); /* of the pass under way */
};
/* Computes every item of the list and writes it to the ledger at once. ERR_INTERRUPTED when asked to stop: a pass under way goes on from
 * there next time (eval.part in the run's directory). An item whose checkpoint
 * was not kept is ERR_NOT_FOUND, after all others were done. */
err_t evals_run(struct lab *b, struct sampling *s, const char *run_id, const struct eval_list *l,
                const struct eval_watch *w) MUST_USE;

#endif
