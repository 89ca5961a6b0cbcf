/* Energy distance and sliced Wasserstein distance. Sums go over rows in order, each row's partial sum on its own, so that rounding does not
 * grow with the number of points and nothing depends on threads. */
#include "core/metrics/energy.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "core/rng.h"

/* mean over all pairs of |x_i - y_j| */
static double mean_distance(const double *x, int n, const double *y, int m, int d)
{
    double total = 0;
    for (int i = 0; i < n; i++) {
        const double *a = x + (size_t)i * (size_t)d;
        double row = 0;
        for (int j = 0; j < m; j++) {
            const double *b = y + (size_t)j * (size_t)d;
            double sum = 0;
            for (int k = 0; k < d; k++) sum += (a[k] - b[k]) * (a[k] - b[k]);
            row += sqrt(sum);
        }
        total += row / m;
    }
    return total / n;
}

double energy_distance(const double *x, int n, const double *y, int m, int d)
{
    assert(n > 0 && m > 0 && d > 0);
    return 2 * mean_distance(x, n, y, m, d) - mean_distance(x, n, x, n, d) - mean_distance(y, m, y, m, d);
}

/* ---- sliced ------------------------------------------------------------------------------------------------------ */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y; /* NaN equals everything: the sums below become NaN in any order */
}

/* Squared W2 of two sorted samples: the integral of the squared difference of their step-wise quantile functions. */
static double w2_sorted(const double *a, int n, const double *b, int m)
{
    double sum = 0, at = 0;
    for (int i = 0, j = 0; i < n && j < m;) {
        /* the steps end at (i + 1) / n and (j + 1) / m: compared as integers, so equal counts pair up exactly */
        int64_t ends_a = (int64_t)(i + 1) * m, ends_b = (int64_t)(j + 1) * n;
        double end = ends_a <= ends_b ? (i + 1) / (double)n : (j + 1) / (double)m;
        sum += (end - at) * (a[i] - b[j]) * (a[i] - b[j]);
        at = end;
        if (ends_a <= ends_b) i++;
        if (ends_b <= ends_a) j++;
    }
    return sum;
}

static void project(const double *x, int n, int d, const double *u, double *out)
{
    for (int i = 0; i < n; i++) {
        out[i] = 0;
        for (int k = 0; k < d; k++) out[i] += x[(size_t)i * (size_t)d + (size_t)k] * u[k];
    }
    qsort(out, (size_t)n, sizeof *out, ascending);
}

double sliced_w2(const double *x, int n, const double *y, int m, int d, int projections, uint64_t seed)
{
    assert(n > 0 && m > 0 && d > 0 && projections > 0);
    struct rng r = {.seed = seed, .purpose = RNG_EXTRACTOR};
    double *u = mem_array((size_t)d, sizeof *u), *a = mem_array((size_t)n, sizeof *a),
           *b = mem_array((size_t)m, sizeof *b), total = 0;
    for (int p = 0; p < projections; p++) {
        double norm = 0;
        for (int k = 0; k < d; k++) {
            u[k] = rng_normal(&r, (uint32_t)p, (uint32_t)k);
            norm += u[k] * u[k];
        }
        norm = sqrt(norm);
        for (int k = 0; k < d; k++) u[k] = norm > 0 ? u[k] / norm : k == 0;
        project(x, n, d, u, a);
        project(y, m, d, u, b);
        total += w2_sorted(a, n, b, m);
    }
    mem_free(u);
    mem_free(a);
    mem_free(b);
    return sqrt(total / projections);
}
