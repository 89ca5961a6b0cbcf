/* vendor: the libraries behind the fast path, oneDNN (where built with it) and OpenBLAS, seen through our own types, so that
 * their headers and the difference between oneDNN's v2 and v3 C API stay in the files of the same name. */
#ifndef KERNELS_CPU_VENDOR_H
#define KERNELS_CPU_VENDOR_H

#include "kernels/kernels.h"

void vendor_set_threads(int threads);
void vendor_describe(char *buf, size_t n); /* "oneDNN 2.6.3, OpenBLAS 0.3.21" */
void vendor_sgemm(bool ta, bool tb, int m, int n, int k, float alpha, const float *a, int lda, const float *b, int ldb,
                  float beta, float *c, int ldc);

#endif
