/* What every test program includes: cmocka in the order it wants, and the helpers that more than one test uses. */
#ifndef TESTS_TEST_H
#define TESTS_TEST_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* cmocka's fail() has our name; its fail_msg() is built on it. */
#undef fail
#undef fail_msg
#define fail_msg(...)                                                                                                  \
    do {                                                                                                               \
        print_error("ERROR: " __VA_ARGS__);                                                                            \
        print_error("\n");                                                                                             \
        _fail(__FILE__, __LINE__);                                                                                     \
    } while (0)

#include "core/base.h"

#define assert_ok(expr)                                                                                                \
    do {                                                                                                               \
        err_t e_ = (expr);                                                                                             \
        if (e_) fail_msg("%s: error %d: %s", #expr, e_, err_text());                                                   \
    } while (0)
#define assert_err(code, expr)                                                                                         \
    do {                                                                                                               \
        err_t e_ = (expr);                                                                                             \
        if (e_ != (code)) fail_msg("%s: error %d instead of %d: %s", #expr, e_, code, err_text());                     \
    } while (0)
/* NaN fails: the comparison is written so. */
#define assert_near(a, b, tol)                                                                                         \
    do {                                                                                                               \
        double a_ = (a), b_ = (b), t_ = (tol);                                                                         \
        if (!(fabs(a_ - b_) <= t_))                                                                                    \
            fail_msg("%s = %.17g, %s = %.17g: differ by %.3g > %.3g", #a, a_, #b, b_, fabs(a_ - b_), t_);              \
    } while (0)
#define assert_has(text, part)                                                                                         \
    do {                                                                                                               \
        const char *t_ = (text), *p_ = (part);                                                                         \
        if (!strstr(t_, p_)) fail_msg("\"%s\" not in:\n%s", p_, t_);                                                   \
    } while (0)

/* A fresh directory under $TMPDIR for one test; removed by the runner. */
static inline char *test_dir(char *buf, size_t n)
{
    const char *t = getenv("TEST_TMP");
    snprintf(buf, n, "%s/XXXXXX", t ? t : "/tmp");
    if (!mkdtemp(buf)) abort();
    return buf;
}

#endif
