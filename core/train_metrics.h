/* train_metrics: means over the steps since the last logged point, over all samples and per bin of ln t. They are plain sums in one array
 * of doubles, so a checkpoint holds them and the stream of a resumed run goes on without a seam. */
#ifndef CORE_TRAIN_METRICS_H
#define CORE_TRAIN_METRICS_H

#include "core/train.h"

enum { LNT_LOW = -20, LNT_BINS = 40 }; /* bin b holds floor(ln t) = LNT_LOW + b; the ends hold what lies beyond */
enum {
    TOTAL_STEPS,
    TOTAL_IMAGES,
    TOTAL_LOSS,
    TOTAL_DELTA,
    TOTAL_WEIGHT,
    TOTAL_BAD,       /* non-finite gradient elements */
    TOTAL_STREAK,    /* consecutive steps with too many of them: not reset by a logged point */
    TOTAL_LAST_LOSS, /* mean loss of the last step: likewise */
    TOTAL_BIN,       /* per bin: images, loss, delta, weight */
    TOTALS = TOTAL_BIN + 4 * LNT_BINS
};
struct step_values { /* of the window's last step */
    double lr, dropout, grad_norm;
    double loss_scale; /* 0: fixed, not logged */
    int stage;
};

void metrics_add(double *totals, int n, const double *t, const double *w, const double *squares, const double *loss);
/* Hands the window's means to the observer and begins a new window. */
void metrics_log(double *totals, const struct observer *o, int64_t step, const struct step_values *v);

#endif
