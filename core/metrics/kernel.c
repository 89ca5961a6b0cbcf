/* A subset's three kernel matrices are one product each; only the sums are kept. */
#include "core/metrics/kernel.h"

#include <assert.h>
#include <math.h>

#include "core/rng.h"
#include "kernels/linalg.h"

static void gather(const float *x, const int32_t *idx, int n, int d, double *out)
{
    for (int i = 0; i < n; i++)
        for (int k = 0; k < d; k++)
            out[(size_t)i * (size_t)d + (size_t)k] = x[(size_t)(idx ? idx[i] : i) * (size_t)d + (size_t)k];
}

/* Sum of the kernel over all pairs; with diagonal off, over pairs of different rows. */
static double kernel_sum(const double *a, const double *b, int n, int d, double *gram, bool diagonal)
{
    double sum = 0;
    linalg_dgemm(false, true, n, n, d, 1.0 / d, a, d, b, d, 0, gram, n);
    for (int i = 0; i < n; i++) {
        double row = 0;
        for (int j = 0; j < n; j++) {
            double v = gram[(size_t)i * (size_t)n + (size_t)j] + 1;
            if (diagonal || i != j) row += v * v * v;
        }
        sum += row;
    }
    return sum;
}

double mmd2_polynomial(const float *x, const int32_t *ix, const float *y, const int32_t *iy, int n, int d)
{
    assert(n >= 2 && d >= 1);
    size_t rows = (size_t)n * (size_t)d;
    double *a = mem_array(2 * rows, sizeof *a), *b = a + rows, *gram = mem_array((size_t)n * (size_t)n, sizeof *gram);
    gather(x, ix, n, d, a);
    gather(y, iy, n, d, b);
    double pairs = (double)n * (n - 1), all = (double)n * n;
    double within = kernel_sum(a, a, n, d, gram, false) / pairs + kernel_sum(b, b, n, d, gram, false) / pairs;
    double across = kernel_sum(a, b, n, d, gram, true) / all;
    mem_free(a);
    mem_free(gram);
    return within - 2 * across;
}

err_t kernel_distance(const float *x, int n, const float *y, int m, int d, int subsets, int size, uint64_t seed,
                      double *mean, double *std)
{
    int least = n < m ? n : m;
    if (size > least) size = least;
    if (size < 2 || subsets < 1) return fail(ERR_USAGE, "kernel distance: %d subsets of %d samples", subsets, size);
    double *v = mem_array((size_t)subsets, sizeof *v), sum = 0, square = 0;
    int32_t *idx = mem_array(2 * (size_t)size, sizeof *idx);
    for (int s = 0; s < subsets; s++) {
        for (int i = 0; i < size; i++) { /* even epochs for x, odd ones for y: unlike draws also where n = m */
            idx[i] = (int32_t)rng_permute(seed, 2 * (uint32_t)s, (uint32_t)n, (uint32_t)i);
            idx[size + i] = (int32_t)rng_permute(seed, 2 * (uint32_t)s + 1, (uint32_t)m, (uint32_t)i);
        }
        v[s] = mmd2_polynomial(x, idx, y, idx + size, size, d);
        sum += v[s];
    }
    *mean = sum / subsets;
    for (int s = 0; s < subsets; s++) square += (v[s] - *mean) * (v[s] - *mean);
    if (std) *std = sqrt(square / subsets);
    mem_free(v);
    mem_free(idx);
    return isfinite(*mean) ? ERR_OK : fail(ERR_FAILED, "kernel distance: features are not finite");
}
