/* vendor: the libraries behind the fast path, oneDNN (where built with it) and OpenBLAS, seen through our own types, so that
 * their headers and the difference between oneDNN's v2 and v3 C API stay in blas.c, onednn.c and onednn_api.h. */
#ifndef KERNELS_CPU_VENDOR_H
#define KERNELS_CPU_VENDOR_H

#include "kernels/kernels.h"

void vendor_set_threads(int threads);
void vendor_describe(char *buf, size_t n); /* "OpenBLAS 0.3.21 (Zen), oneDNN 2.6.3" */

void vendor_sgemm(bool ta, bool tb, int m, int n, int k, float alpha, const float *a, int lda, const float *b, int ldb,
                  float beta, float *c, int ldc);

/* oneDNN's version for describe; "no oneDNN" in a build without it. */
void vendor_onednn_version(char *buf, size_t n);

/* A convolution by oneDNN. *conv is NULL where the library is not built in or has no such convolution: the caller has its own.
 * Weights go in as KRSC and are packed into the library's layout; workspace as in kernels.h. */
struct vendor_conv;
err_t vendor_conv_new(const struct conv_desc *d, int ho, int wo, struct vendor_conv **conv) MUST_USE;
void vendor_conv_free(struct vendor_conv *p);
size_t vendor_conv_packed_bytes(const struct vendor_conv *p);
size_t vendor_conv_packed_bwd_bytes(const struct vendor_conv *p);
size_t vendor_conv_workspace_bytes(const struct vendor_conv *p);
void vendor_conv_pack(struct vendor_conv *p, const float *w, void *packed);
void vendor_conv_pack_bwd(struct vendor_conv *p, const float *w, void *packed);
void vendor_conv_fwd(struct vendor_conv *p, const float *x, const void *w, const float *bias, float *y, void *ws);
void vendor_conv_bwd_data(struct vendor_conv *p, const float *dy, const void *w, float *dx, void *ws);
void vendor_conv_bwd_weight_acc(struct vendor_conv *p, const float *x, const float *dy, float *dw, float *db, void *ws);

#endif
