/* train: the loop. Data, noise levels and noise come from counters; the target says which passes run; one optimiser update and the
 * EMAs follow; metrics go to an observer. Everything needed to go on is in a checkpoint, so a killed run ends with the same
 * bytes as one never killed.
 *
 * Counters. Image number step * batch + i is element i of a step; epoch and place in the epoch's permutation follow from it. Noise, masks and
 * u of a step depend on (seed, step, i) alone, so not on micro-batches.
 *
 * Metrics, means over the steps since the last point: "loss", "delta" (||D_t - D_r||), "weight", and each per bin of ln t as
 * "loss[lnt=-3]" (floor(ln t) = -3); "grad.nonfinite" (elements, summed); of the last step "lr", "dropout", "stage",
 * "grad.norm" (L2, after clean-up), and "loss.scale" (of the next step) where loss.scale = dynamic.
 *
 * Gradient. The mean over the batch, however many micro-batches it takes: a setting of execution must not change what is trained. (The
 * published ECT code takes means over micro-batches and adds them up, so that its gradient grows with their number; Adam and RAdam divide
 * that factor out again but for eps and RAdam's first five steps. A constant factor in weight(t, r, s) repeats it.)
 *
 * Divergence. A non-finite loss outside rows with r = 0, or more than 1 % non-finite gradient elements in 20 consecutive steps, ends
 * the run with ERR_DIVERGED; the last checkpoint is from before.
 *
 * Checkpoints (safetensors): "model.*" weights, "ema.NAME.model.*", "teacher.ema.model.*" and "teacher.frozen.model.*" where the target
 * has such a teacher, "optim.m.model.*", "optim.v.model.*", "state.totals" (the metrics'
 * window in progress), and in the metadata: step, nimg, settings text, config hash, seed, sigma_data, names of EMAs. No time, host or
 * path. Written to DIR/step-%09d.safetensors atomically; the last two are kept, besides those that evaluation marks ask for. */
#ifndef CORE_TRAIN_H
#define CORE_TRAIN_H

#include "core/design.h"
#include "core/graph.h"
#include "core/io/dataset.h"
#include "core/spec.h"

struct
    observer { /* what the loop tells whoever runs it; any member may be NULL. train_result is up to date in every call */
    void *ctx;
    /* special values (NaN, inf) are passed as they are */
    void (*metric)(void *ctx, const char *key, int64_t step, double value);
    void (*progress)(void *ctx, int64_t step, int64_t iters, double images_per_s, double loss);
    err_t (*saving)(void *ctx,
                    int64_t step); /* before a checkpoint is written: what was told so far must be safe first */
    err_t (*checkpoint)(void *ctx, int64_t step, const char *path); /* after the file is durable */
    /* a fact about the run: "init.loaded", "init.dropped" ... */
    void (*note)(void *ctx, const char *key, const char *text);
    bool (*stop)(void *ctx); /* asked before every step: checkpoint and return ERR_INTERRUPTED */
};

struct train_config {
    const struct spec *spec;
    const struct design *design;
    const struct dataset *data;
    const struct kernels *kernels;
    struct kdev *dev;
    uint64_t seed;            /* of the replicate */
    const char *ckpt_dir;     /* existing directory, this process's alone; NULL: no checkpoints (tests) */
    const char *init_path;    /* checkpoint to start from, or NULL */
    const char *init_weights; /* "raw" or an EMA name in it; of a foreign one as core/init.h has it */
    bool init_foreign;   /* init_path is any file of tensors, not a checkpoint of the same network by this program */
    const int64_t *keep; /* steps whose checkpoints are written and kept for evaluation */
    int nkeep;
    const struct observer *observer;
};
struct train_result {
    int64_t first_step, steps, nimg;      /* where this process began; steps and images done in all */
    double flops_executed, flops_nominal; /* of this process, passes that ran; of the whole run by convention */
    double seconds, images_per_s, final_loss;
    double sigma_data;       /* used */
    uint64_t bad_grads;      /* non-finite gradient elements seen */
    uint64_t allocs_in_loop; /* mem_count() growth over all steps but the first */
};
/* Starts from the newest readable checkpoint in ckpt_dir, or from init (its weights; moments are fresh, EMAs start at these weights), or
 * fresh. ERR_DIVERGED, ERR_INTERRUPTED (after a checkpoint), or a real failure. result is filled in all cases. */
err_t train_run(const struct train_config *c, struct train_result *result) MUST_USE;

/* The network that a spec asks for on a data set. */
struct net_config;
err_t train_net_config(const struct spec *s, const struct dataset *data, struct net_config *net) MUST_USE;
/* What can be known of a run before it begins: settings against each other and the data, the network, the design functions' values at step 0,
 * and whether the file init_path (NULL: none) has weights that fit. has_init: it starts from a file or another run. ERR_USAGE as a rule;
 * the file's faults as init_load has them, which fills the report (init_report_done in all cases). */
struct init_report;
err_t train_check(const struct spec *s, const struct design *d, const struct dataset *data, const char *init_path,
                  const char *init_weights, bool has_init, struct init_report *report) MUST_USE;
/* Whether the network of a run on its data has a place in another's checkpoint for each of its tensors. ERR_USAGE names the first without. */
err_t train_check_parent(const struct spec *s, const struct dataset *data, const struct spec *parent,
                         const struct dataset *parent_data) MUST_USE;
/* Predicted cost without running: FLOPs per the two conventions (executed: as if no teacher pass were skipped), bytes of one
 * checkpoint, parameters. */
struct train_cost {
    double flops_executed, flops_nominal, forward_flops;
    double ckpt_bytes;
    int64_t params, images;
};
err_t train_predict(const struct spec *s, const struct dataset *data, struct train_cost *out) MUST_USE;
/* Loads weights ("raw" or an EMA's name) from a checkpoint into a parameter set. ERR_NOT_FOUND lists the names that are there. */
err_t train_load_weights(const char *path, const char *weights, struct params *p, const struct graph *g) MUST_USE;
/* Path (malloc'd) of the checkpoint of a step, or of the newest readable one (step < 0). ERR_NOT_FOUND. */
err_t train_find_checkpoint(const char *dir, int64_t step, char **path, int64_t *found) MUST_USE;

#endif
