/* stats: means and covariances of features as .npz files: "mu" [d] and "sigma" [d, d], as pytorch-fid, EDM and NVIDIA's tools write and read
 * them. Ours add "n" (the number of images) and "about" (what they were made with, as UTF-8 bytes), which those tools ignore. */
#ifndef CORE_METRICS_STATS_H
#define CORE_METRICS_STATS_H

#include "core/metrics/frechet.h"

struct stats {
    int d;
    int64_t n; /* 0: not said */
    double *mean, *cov;
    char *about;           /* "" where not said */
    char sha[SHA256_TEXT]; /* of the file */
};
/* ERR_FORMAT: not such a file, or values that are no mean and covariance (not finite, not symmetric). */
err_t stats_read(struct stats *s, const char *path) MUST_USE;
void stats_done(struct stats *s);
/* sigma: / (N - 1), or / N where biased. */
err_t stats_write(const char *path, const struct moments *m, bool biased, const char *about) MUST_USE;

#endif
