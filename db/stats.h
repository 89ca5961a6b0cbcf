/* stats: what a table prints besides a mean. Student-t intervals and paired comparisons over replicates. */
#ifndef DB_STATS_H
#define DB_STATS_H

#include "core/base.h"

double stat_mean(const double *x, int n);
double stat_sd(const double *x, int n);      /* N - 1; NaN for n < 2 */
double stat_t_quantile(double p, double df); /* inverse CDF of Student's t, relative error below 1e-10 */
struct interval {
    double mean, lo, hi; /* lo, hi NaN for n < 3: no interval is printed */
    int n;
};
struct interval stat_interval(const double *x, int n, double level);
/* Of the differences a[i] - b[i] over replicates that both have (non-NaN). */
struct interval stat_paired(const double *a, const double *b, int n, double level);

#endif
