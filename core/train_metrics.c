#include "core/train_metrics.h"

#include <math.h>

static double *bin_of(double *totals, double t)
{
    double b = floor(log(t)) - LNT_LOW;
    int i = b < 0 ? 0 : b > LNT_BINS - 1 ? LNT_BINS - 1 : (int)b;
    return totals + TOTAL_BIN + 4 * i;
}

void metrics_add(double *totals, int n, const double *t, const double *w, const double *squares, const double *loss)
{
    totals[TOTAL_IMAGES] += n;
    for (int i = 0; i < n; i++) {
        double delta = sqrt(squares[i]), *bin = bin_of(totals, t[i]);
        totals[TOTAL_LOSS] += loss[i];
        totals[TOTAL_DELTA] += delta;
        totals[TOTAL_WEIGHT] += w[i];
        bin[0]++;
        bin[1] += loss[i];
        bin[2] += delta;
        bin[3] += w[i];
    }
}

static void log_bins(const double *totals, const struct observer *o, int64_t step)
{
    static const char *const what[] = {"loss", "delta", "weight"};
    for (int k = 0; k < 3; k++) {
        for (int b = 0; b < LNT_BINS; b++) {
            const double *bin = totals + TOTAL_BIN + 4 * b;
            char key[32];
            if (bin[0] == 0) continue;
            snprintf(key, sizeof key, "%s[lnt=%d]", what[k], LNT_LOW + b);
            o->metric(o->ctx, key, step, bin[1 + k] / bin[0]);
        }
    }
}

void metrics_log(double *totals, const struct observer *o, int64_t step, const struct step_values *v)
{
    double images = totals[TOTAL_IMAGES];
    if (o && o->metric && images > 0) {
        o->metric(o->ctx, "loss", step, totals[TOTAL_LOSS] / images);
        o->metric(o->ctx, "delta", step, totals[TOTAL_DELTA] / images);
        o->metric(o->ctx, "weight", step, totals[TOTAL_WEIGHT] / images);
        o->metric(o->ctx, "lr", step, v->lr);
        o->metric(o->ctx, "dropout", step, v->dropout);
        o->metric(o->ctx, "stage", step, v->stage);
        o->metric(o->ctx, "grad.norm", step, v->grad_norm);
        if (v->loss_scale > 0) o->metric(o->ctx, "loss.scale", step, v->loss_scale);
        o->metric(o->ctx, "grad.nonfinite", step, totals[TOTAL_BAD]);
        log_bins(totals, o, step);
    }
    double streak = totals[TOTAL_STREAK], last = totals[TOTAL_LAST_LOSS];
    for (int i = 0; i < TOTALS; i++) totals[i] = 0;
    totals[TOTAL_STREAK] = streak;
    totals[TOTAL_LAST_LOSS] = last;
}
