/* Distributions of points. The scales below are exact moments of the formulas, not measured: the set does not depend on itself. */
#include "core/io/points.h"

#include <math.h>
#include <string.h>

#include "core/rng.h"

static const double pi = 3.14159265358979323846;

/* (a cos a, a sin a) + noise, a uniform in [1.5, 4.5] pi: one turn and a half of a spiral whose arms are 2 pi apart. Over a, the mean is
 * (2, 2 / (3 pi)) and the standard deviation of a coordinate 6.8. */
static void swissroll(const double u[2], const double z[2], double x[POINTS_DIM])
{
    double a = 1.5 * pi * (1 + 2 * u[0]);
    x[0] = (a * cos(a) + 0.5 * z[0] - 2) / 6.8;
    x[1] = (a * sin(a) + 0.5 * z[1] - 2 / (3 * pi)) / 6.8;
}

/* Eight modes of standard deviation 0.1 on a circle of radius 1.4. */
static void gauss8(const double u[2], const double z[2], double x[POINTS_DIM])
{
    double a = pi / 4 * floor(8 * u[0]);
    x[0] = 1.4 * cos(a) + 0.1 * z[0];
    x[1] = 1.4 * sin(a) + 0.1 * z[1];
}

static const double gaussian_mean[2] = {0.5, -0.25}, gaussian_factor[2][2] = {{1, 0}, {0.5, 0.75}};

static void gaussian(const double u[2], const double z[2], double x[POINTS_DIM])
{
    (void)u;
    for (int i = 0; i < POINTS_DIM; i++)
        x[i] = gaussian_mean[i] + gaussian_factor[i][0] * z[0] + gaussian_factor[i][1] * z[1];
}

void points_gaussian_moments(double mean[POINTS_DIM], double cov[POINTS_DIM * POINTS_DIM])
{
    for (int i = 0; i < POINTS_DIM; i++) {
        mean[i] = gaussian_mean[i];
        for (int j = 0; j < POINTS_DIM; j++)
            cov[i * POINTS_DIM + j] =
                gaussian_factor[i][0] * gaussian_factor[j][0] + gaussian_factor[i][1] * gaussian_factor[j][1];
    }
}

const struct points_source points_sources[] = {
    {"swissroll", "a spiral of one turn and a half, thickened by noise", 1, swissroll},
    {"gauss8", "eight narrow Gaussians on a circle", 1, gauss8},
    {"gaussian", "one Gaussian, for which every optimum is known", 1, gaussian},
    {NULL, NULL, 0, NULL}};

const struct points_source *points_find(const char *name)
{
    for (const struct points_source *s = points_sources; s->name; s++)
        if (!strcmp(s->name, name)) return s;
    return NULL;
}

void points_draw(const struct points_source *s, uint64_t seed, int n, double *out)
{
    struct rng r = {.seed = seed, .purpose = RNG_POINTS};
    for (int i = 0; i < n; i++) {
        double u[2], z[2], *x = out + (ptrdiff_t)i * POINTS_DIM;
        for (uint32_t k = 0; k < 2; k++) {
            u[k] = rng_uniform(&r, (uint32_t)i, k);
            z[k] = rng_normal(&r, (uint32_t)i, 2 + k); /* of words of their own: normals come in pairs of words */
        }
        s->draw(u, z, x);
        for (int k = 0; k < POINTS_DIM; k++) x[k] = rint(x[k] * 65536) / 65536;
    }
}
