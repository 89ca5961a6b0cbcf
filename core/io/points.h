/* points: distributions in the plane from which points can be drawn without end: "swissroll", "gauss8" and "gaussian". A data set of
 * points is one fixed draw; what is generated is judged against another draw, never against the points that were trained on.
 *
 * Standard deviations are near 1. Coordinates are multiples of 2^-16, so that the last bit of some libm changes no data set. */
#ifndef CORE_IO_POINTS_H
#define CORE_IO_POINTS_H

#include "core/base.h"

enum { POINTS_DIM = 2 };
struct points_source {
    const char *name, *help;
    int version; /* raised when its points change */
    /* A point from independent uniforms u in (0, 1) and standard normals z. */
    void (*draw)(const double u[2], const double z[2], double x[POINTS_DIM]);
};
extern const struct points_source points_sources[];        /* ends with name NULL */
const struct points_source *points_find(const char *name); /* NULL if unknown */

/* Points [0, n) of a seed into out[n, 2]. Point i depends on (seed, i) alone. */
void points_draw(const struct points_source *s, uint64_t seed, int n, double *out);

/* Moments of "gaussian": for what is known of it in closed form. cov is row by row. */
void points_gaussian_moments(double mean[POINTS_DIM], double cov[POINTS_DIM * POINTS_DIM]);

#endif
