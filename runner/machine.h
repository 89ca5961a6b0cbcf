/* machine: what a run happened on, and where its code came from. */
#ifndef RUNNER_MACHINE_H
#define RUNNER_MACHINE_H

#include "core/base.h"

int machine_cores(void);                                      /* that this process may use */
void machine_cpu(char *buf, size_t n);                        /* model name */
void machine_isa(char *buf, size_t n);                        /* "avx2 fma avx512f ..." of those that matter here */
bool machine_program(const char *name, char *path, size_t n); /* looked up in PATH */

struct git_state {                            /* of a directory; revision "" where there is none */
    char revision[72], diff_sha[SHA256_TEXT]; /* of `git diff HEAD`; "" when clean */
};
void git_state_of(const char *dir, struct git_state *g);

#endif
