/* prdc: precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020), realism. A sample's neighbourhood is the open
 * ball whose radius is the distance to its k-th nearest other sample of the same set.
 *
 *   precision  fake samples in some real ball           density   real balls around a fake sample, mean, / k
 *   recall     real samples in some fake ball           coverage  real balls with a fake sample in them
 *   realism    of a fake sample: largest radius / distance over the real balls with a radius below the median */
#ifndef CORE_METRICS_PRDC_H
#define CORE_METRICS_PRDC_H

#include "core/base.h"

struct prdc {
    double precision, recall, density, coverage;
};
/* real[n, d], fake[m, d]; 1 <= k < n, m. realism[m] and radii[n] (of the real balls) may be NULL. Time (n + m)^2 d, memory n + m rows in
 * double. ERR_FAILED: features that are not finite. */
err_t prdc_of(const float *real, int n, const float *fake, int m, int d, int k, struct prdc *out, double *realism,
              double *radii) MUST_USE;

#endif
