/* blas: OpenBLAS's part of the vendor door. */
#include <cblas.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vendor.h"

void vendor_set_threads(int threads)
{
    openblas_set_num_threads(threads);
}

void vendor_describe(char *buf, size_t n)
{
    /* "OpenBLAS 0.3.21 DYNAMIC_ARCH ...": two words are the version */
    char blas[32];
    snprintf(blas, sizeof blas, "%s", openblas_get_config());
    char *space = strchr(blas, ' ');
    space = space ? strchr(space + 1, ' ') : NULL;
    if (space) *space = 0;
    char onednn[32];
    vendor_onednn_version(onednn, sizeof onednn);
    snprintf(buf, n, "%s (%s), %s", blas, openblas_get_corename(), onednn);
}

void vendor_sgemm(bool ta, bool tb, int m, int n, int k, float alpha, const float *a, int lda, const float *b, int ldb,
                  float beta, float *c, int ldc)
{
    cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, m, n, k, alpha, a, lda,
                b, ldb, beta, c, ldc);
}
