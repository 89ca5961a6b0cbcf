/* eval_keep: a sampling pass that was stopped goes on where it was. What has been seen so far (moments, features where kept) is saved from time to
 * time beside the run; the file names the pass it belongs to, and any other pass ignores it. A pass that went on gives the same bytes as
 * one that was never stopped: samples depend on their index only, and chunks are added in the same order. */
#ifndef CORE_EVAL_KEEP_H
#define CORE_EVAL_KEEP_H

#include "core/metrics/metric.h"

struct eval_state {
    char key[SHA256_TEXT]; /* of everything that identifies the pass */
    int64_t done;          /* samples seen */
    double seconds;        /* of sampling */
    int n;                 /* feature sets */
    struct feature_set **set;
    double *own; /* seconds of each set's features */
};
err_t eval_state_save(const char *path, const struct eval_state *s) MUST_USE;
/* Fills s, whose sets are empty but for their sizes. False, and s as it was: no file, or of another pass. */
bool eval_state_load(const char *path, struct eval_state *s);

#endif
