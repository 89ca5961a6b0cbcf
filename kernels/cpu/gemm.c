/* gemm: small products, and all of them on the portable device, by own loops; large ones by BLAS. Which one is a fixed rule of the
 * shape. A task is a block of rows times a panel of 16 columns: op(B)'s panel is copied to the stack, op(A) is read where it is. */
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vendor.h"

#pragma GCC optimize("fp-contract=fast")

enum { NR = 16, MR = 6, DEPTH = 256, ROWS = 96 };

/* c[M, 16] (ld ldc, keep columns) = alpha * a panel + beta * c; ra, la: steps in a from row to row and along k */
INLINE void tile(const int M, int depth, float alpha, const float *a, size_t ra, size_t la, const float *panel,
                 float beta, float *c, size_t ldc, int keep)
{
    V8 acc[MR][2];
#pragma GCC unroll 8
    for (int i = 0; i < M; i++) acc[i][0] = acc[i][1] = (V8){0};
    for (int l = 0; l < depth; l++, a += la, panel += NR) {
        V8 b0 = V8_AT(panel), b1 = V8_AT(panel + 8);
#pragma GCC unroll 8
        for (int i = 0; i < M; i++) {
            float v = a[i * ra];
            acc[i][0] += v * b0;
            acc[i][1] += v * b1;
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < M; i++) {
        float *to = c + i * ldc;
        if (keep == NR && beta == 0) {
            V8_PUT(to) = alpha * acc[i][0];
            V8_PUT(to + 8) = alpha * acc[i][1];
        } else if (keep == NR) {
            V8_PUT(to) = alpha * acc[i][0] + beta * V8_AT(to);
            V8_PUT(to + 8) = alpha * acc[i][1] + beta * V8_AT(to + 8);
        } else {
            float row[NR] = {0};
            V8_PUT(row) = alpha * acc[i][0];
            V8_PUT(row + 8) = alpha * acc[i][1];
            for (int j = 0; j < keep; j++) to[j] = beta == 0 ? row[j] : row[j] + beta * to[j];
        }
    }
}

/* rows i0..i1, columns j0..j0 + 16 of one product */
INLINE void block_body(const struct gemm_desc *g, const float *a, const float *b, float *c, int i0, int i1, int j0)
{
    float panel[DEPTH * NR];
    int keep = g->n - j0 < NR ? g->n - j0 : NR;
    size_t ra = g->ta ? 1 : (size_t)g->lda, la = g->ta ? (size_t)g->lda : 1;
    if (keep < NR) memset(panel, 0, sizeof panel);
    for (int l0 = 0; l0 < g->k; l0 += DEPTH) {
        int depth = g->k - l0 < DEPTH ? g->k - l0 : DEPTH;
        if (g->tb)
            for (int j = 0; j < keep; j++)
                for (int l = 0; l < depth; l++) panel[l * NR + j] = b[(size_t)(j0 + j) * g->ldb + l0 + l];
        else
            for (int l = 0; l < depth; l++)
                memcpy(panel + l * NR, b + (size_t)(l0 + l) * g->ldb + j0, (size_t)keep * sizeof *b);
        float beta = l0 ? 1.0f : g->beta;
        int i = i0;
        for (; i + MR <= i1; i += MR)
            tile(MR, depth, g->alpha, a + i * ra + l0 * la, ra, la, panel, beta, c + (size_t)i * g->ldc + j0,
                 (size_t)g->ldc, keep);
        const float *from = a + i * ra + l0 * la;
        float *to = c + (size_t)i * g->ldc + j0;
        size_t ldc = (size_t)g->ldc;
        switch (i1 - i) {
        case 5: tile(5, depth, g->alpha, from, ra, la, panel, beta, to, ldc, keep); break;
        case 4: tile(4, depth, g->alpha, from, ra, la, panel, beta, to, ldc, keep); break;
        case 3: tile(3, depth, g->alpha, from, ra, la, panel, beta, to, ldc, keep); break;
        case 2: tile(2, depth, g->alpha, from, ra, la, panel, beta, to, ldc, keep); break;
        case 1: tile(1, depth, g->alpha, from, ra, la, panel, beta, to, ldc, keep); break;
        default: break;
        }
    }
}
ISA_CLONES(block, (const struct gemm_desc *g, const float *a, const float *b, float *c, int i0, int i1, int j0),
           (g, a, b, c, i0, i1, j0))

void cpu_gemm(struct kdev *d, const struct gemm_desc *g, const float *a, const float *b, float *c)
{
    int batch = g->batch > 0 ? g->batch : 1;
    double work = (double)g->m * g->n * g->k;
    if (!d->portable && work >= 160.0 * 160 * 160) {
        for (int i = 0; i < batch; i++)
            vendor_sgemm(g->ta, g->tb, g->m, g->n, g->k, g->alpha, a + i * g->stride_a, g->lda, b + i * g->stride_b,
                         g->ldb, g->beta, c + i * g->stride_c, g->ldc);
        return;
    }
    int down = (g->m + ROWS - 1) / ROWS, across = (g->n + NR - 1) / NR, each = down * across;
#pragma omp parallel for schedule(static) num_threads(d->threads) if (work * batch > 20000)
    for (long t = 0; t < (long)batch * each; t++) {
        long i = t / each;
        int block_of = (int)(t % each), i0 = block_of / across * ROWS, j0 = block_of % across * NR;
        block(g, a + i * g->stride_a, b + i * g->stride_b, c + i * g->stride_c, i0, i0 + ROWS < g->m ? i0 + ROWS : g->m,
              j0);
    }
}
