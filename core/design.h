/* design: the part of the method that is a Lua function. The trainer calls these; the runner fills them in from a script.
 * All are double precision, on the host, once per step. u, t, r, w have n values: the whole global batch. */
#ifndef CORE_DESIGN_H
#define CORE_DESIGN_H

#include "core/base.h"

/* What a design function may depend on: counters only, so that resume is exact. Shown to scripts as the table s. */
struct design_state {
    int64_t step;    /* optimiser steps done before this one */
    int64_t nimg;    /* training images seen before this step */
    int batch;       /* global batch */
    int64_t iters;   /* total steps of the run */
    double progress; /* step / iters */
    int stage;       /* from stage(s) */
    double N;        /* discretised methods: number of noise levels of the grid, from curriculum(s); else 0 */
    double sigma_data;
};

enum { DESIGN_EMAS = 8 };
struct design {
    void *ctx;
    err_t (*stage)(void *ctx, const struct design_state *s, int *stage);
    err_t (*noise)(void *ctx, const struct design_state *s, int n, const double *u, double *t);
    err_t (*mapping)(void *ctx, const struct design_state *s, int n, const double *t, double *r);
    /* Both levels of a discretised method, instead of noise and mapping; NULL: none. */
    err_t (*pair)(void *ctx, const struct design_state *s, int n, const double *u, double *t, double *r);
    err_t (*curriculum)(void *ctx, const struct design_state *s, double *N); /* NULL: 0. Called after stage */
    err_t (*weight)(void *ctx, const struct design_state *s, int n, const double *t, const double *r, double *w);
    /* Detached factor of the loss from d = ||D_t - D_r||; NULL: 1. Of a micro-batch, in the middle of the step. */
    err_t (*adapt)(void *ctx, const struct design_state *s, int n, const double *t, const double *r, const double *d,
                   double *a);
    err_t (*teacher_ema)(void *ctx, const struct design_state *s, double *mu); /* decay of the EMA teacher; NULL: 0 */
    err_t (*lr)(void *ctx, const struct design_state *s, double *lr);
    err_t (*dropout)(void *ctx, const struct design_state *s, double *p);
    /* Decay of EMA number i for this step: ema_i = beta * ema_i + (1 - beta) * weights. */
    int nemas;
    char ema_name[DESIGN_EMAS][32]; /* "std05", "beta9999" */
    err_t (*ema)(void *ctx, const struct design_state *s, int i, double *beta);
};

#endif
