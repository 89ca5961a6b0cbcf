/* train_ckpt: the state of a run as one file. Everything the loop depends on is in struct train_state, so what is written here and read
 * back is all there is to resume. */
#ifndef CORE_TRAIN_CKPT_H
#define CORE_TRAIN_CKPT_H

#include "core/design.h"
#include "core/graph.h"

struct train_state {
    const struct graph *graph;
    const struct kernels *kernels;
    struct kdev *dev;
    struct params *weights;
    struct params *averaged, *frozen; /* the teacher's weights; NULL: there are none */
    float *m, *v;                     /* optimiser moments: arenas */
    int nemas;
    float *ema[DESIGN_EMAS];
    const char *ema_name[DESIGN_EMAS];
    int64_t step;   /* done */
    double *totals; /* of the metrics' window in progress, and the divergence counter */
    int ntotals;
    double *scaler; /* of dynamic loss scaling, or NULL */
    int nscaler;
    int64_t rows;           /* of a micro-batch, for the notice when it changes */
    const char *canon;      /* settings, canonical text */
    const char *hash;       /* of canon */
    const char *metric_sha; /* of the weights that the metric has of its own; NULL: none */
    uint64_t seed;          /* of the replicate */
    double sigma_data;
    int64_t batch;
};

/* DIR/step-%09d.safetensors, atomically. *path is malloc'd. */
err_t ckpt_write(const struct train_state *s, const char *dir, char **path) MUST_USE;
/* DIR/ema-%09d.safetensors, atomically: EMAs and buffers alone, for averages of other lengths (core/ema.h). Never pruned. */
err_t ckpt_write_emas(const struct train_state *s, const char *dir) MUST_USE;
/* Loads the newest readable checkpoint of dir into s; *found is false if there is none. A file that cannot be read is named in a warning and
 * the one before it is tried; one of another configuration or seed is ERR_FORMAT. */
err_t ckpt_resume(struct train_state *s, const char *dir, bool *found) MUST_USE;
/* Removes all but the newest two and those of the steps keep[]; and what a killed process left half written. */
void ckpt_prune(const char *dir, const int64_t *keep, int nkeep);
void ckpt_sweep(const char *dir);

#endif
