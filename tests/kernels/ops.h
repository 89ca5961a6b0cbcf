/* ops: what the table of tests/kernels/ops.c and its cases share.
 *
 * A case computes one op on the device at hand and the same in double, and hands both to emit(). The driver decides what the
 * numbers have to do: stay within the tolerance of the reference, be equal bit for bit across devices, thread counts,
 * instruction sets and repetitions.
 */
#ifndef TESTS_KERNELS_OPS_H
#define TESTS_KERNELS_OPS_H

#include "core/rng.h"
#include "kernels/kernels.h"
#include "tests/test.h"

struct bench {
    const struct kernels *k;
    struct kdev *d;
    struct arena arena; /* everything a case allocates */
    double *got, *want;
    size_t count, cap;
    bool again;     /* the reference is known from an earlier run: expensive parts of it may be left out */
    uint32_t drawn; /* counter of input arrays: equal in every run of a case */
};

/* n numbers in (-1, 1), exactly floats; the same on every device */
float *draw(struct bench *b, size_t n);
float *zeros(struct bench *b, size_t n);
double *doubles(struct bench *b, const float *x, size_t n); /* as double; NULL: zeros */
void emit(struct bench *b, const float *got, const double *want, size_t n);
void emit1(struct bench *b, double got, double want);

/* Gradient of sum(dy * f(x)) by central differences, in double. f writes out[ny] from x[nx]. */
double *differences(struct bench *b, void (*f)(const void *ctx, const double *x, double *out), const void *ctx,
                    const double *x, size_t nx, const double *dy, size_t ny);

struct op_case {
    const char *op;
    void (*run)(struct bench *b, const int *dim);
    int dim[9];
    double tol; /* times the largest reference value; 0: exact, equal to the reference and on every device */
};
extern const struct op_case contraction_cases[], norm_cases[], point_cases[], vision_cases[],
    mp_cases[]; /* end with op == NULL */

#endif
