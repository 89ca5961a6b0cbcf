/* gemm: many small products in parallel by own loops, large ones by BLAS. Which one is a fixed rule of the shape. */
#include <assert.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vendor.h"

static void gemm_plain(const struct gemm_desc *g, const float *a, const float *b, float *c, int row0, int row1)
{
    for (int i = row0; i < row1; i++) {
        float *out = c + (size_t)i * g->ldc;
        for (int j = 0; j < g->n; j++) out[j] = g->beta == 0 ? 0 : g->beta * out[j];
        for (int l = 0; l < g->k; l++) {
            float v = g->alpha * (g->ta ? a[(size_t)l * g->lda + i] : a[(size_t)i * g->lda + l]);
            if (g->tb)
                for (int j = 0; j < g->n; j++) out[j] += v * b[(size_t)j * g->ldb + l];
            else
                for (int j = 0; j < g->n; j++) out[j] += v * b[(size_t)l * g->ldb + j];
        }
    }
}

void cpu_gemm(struct kdev *d, const struct gemm_desc *g, const float *a, const float *b, float *c)
{
    int batch = g->batch > 0 ? g->batch : 1;
    double work = (double)g->m * g->n * g->k;
    if (!d->portable && work >= 64 * 64 * 64) {
        for (int i = 0; i < batch; i++)
            vendor_sgemm(g->ta, g->tb, g->m, g->n, g->k, g->alpha, a + i * g->stride_a, g->lda, b + i * g->stride_b,
                         g->ldb, g->beta, c + i * g->stride_c, g->ldc);
        return;
    }
    if (batch > 1) {
#pragma omp parallel for schedule(static)
        for (int i = 0; i < batch; i++)
            gemm_plain(g, a + i * g->stride_a, b + i * g->stride_b, c + i * g->stride_c, 0, g->m);
    } else {
#pragma omp parallel for schedule(static) if (work > 10000)
        for (int i = 0; i < g->m; i++) gemm_plain(g, a, b, c, i, i + 1);
    }
}
