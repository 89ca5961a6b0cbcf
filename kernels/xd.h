/* xd: per-element bodies that every device compiles from this one text, so that "exact" kernels are exact.
 *
 * The rule that makes it right: only IEEE + - * / sqrt on single values, in a written order, never contracted into a fused
 * multiply-add (gcc: -ffp-contract=off, which -std=c11 implies; nvcc: the _rn intrinsics), and no libm. Then the bits do not depend
 * on compiler, optimisation level, vector width or device.
 */
#ifndef KERNELS_XD_H
#define KERNELS_XD_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "kernels/philox.h"

#ifdef __CUDA_ARCH__
#define X_MUL(a, b) __fmul_rn(a, b)
#define X_ADD(a, b) __fadd_rn(a, b)
#define X_SUB(a, b) __fsub_rn(a, b)
#define X_DIV(a, b) __fdiv_rn(a, b)
#define X_SQRT(a) __fsqrt_rn(a)
#define X_BITS(f) __float_as_uint(f)
#define X_FLOAT(u) __uint_as_float(u)
#else
#define X_MUL(a, b) ((a) * (b))
#define X_ADD(a, b) ((a) + (b))
#define X_SUB(a, b) ((a) - (b))
#define X_DIV(a, b) ((a) / (b))
#define X_SQRT(a) __builtin_sqrtf(a)
XD uint32_t X_BITS(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}
XD float X_FLOAT(uint32_t u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}
#endif

/* ---- random numbers ------------------------------------------------------------------------------------------------ */

/* 32 random bits to (0, 1]: 24 bits, so the conversion is exact and the logarithm below never sees 0. */
XD float xd_unit(uint32_t bits)
{
    return X_MUL((float)(int32_t)((bits >> 8) + 1u), 5.9604644775390625e-8f);
}

/* ln x for normal x in (0, 1]. x = 2^e m with m in [sqrt(1/2), sqrt 2); ln m = 2 atanh((m-1)/(m+1)) by its series. */
XD float xd_log(float x)
{
    uint32_t b = X_BITS(x);
    int32_t e = (int32_t)((b - 0x3f3504f3u) & 0xff800000u); /* exponent relative to sqrt(1/2), still shifted by 23 */
    float m = X_FLOAT(b - (uint32_t)e), fe = X_MUL((float)e, 1.1920928955078125e-7f);
    float s = X_DIV(X_SUB(m, 1.0f), X_ADD(m, 1.0f)), z = X_MUL(s, s);
    float r = X_ADD(X_MUL(z, 0.15313837f), 0.18183573f);
    r = X_ADD(X_MUL(z, r), 0.22222198f);
    r = X_ADD(X_MUL(z, r), 0.28571429f);
    r = X_ADD(X_MUL(z, r), 0.4f);
    r = X_ADD(X_MUL(z, r), 0.66666667f);
    float small =
        X_ADD(X_MUL(fe, 1.42860677e-6f), X_MUL(X_MUL(s, z), r)); /* ln 2 in two parts: the first times e is exact */
    return X_ADD(X_MUL(fe, 0.693145752f), X_ADD(X_ADD(s, s), small));
}

/* sin and cos of 2 pi u for u in (0, 1]: the octant by exact arithmetic, then two polynomials on [0, pi/4]. */
XD void xd_sincos_turn(float u, float *sn, float *cs)
{
    float t = X_MUL(u, 8.0f);
    int32_t q = (int32_t)t;
    float y = X_SUB(t, (float)q);
    y = (q & 1) ? X_SUB(1.0f, y) : y;
    float a = X_MUL(y, 0.785398163f), z = X_MUL(a, a);
    float s = X_ADD(X_MUL(z, -1.95152959e-4f), 8.33216087e-3f);
    s = X_ADD(X_MUL(z, s), -1.66666546e-1f);
    s = X_ADD(X_MUL(X_MUL(a, z), s), a);
    float c = X_ADD(X_MUL(z, 2.44331571e-5f), -1.38873162e-3f);
    c = X_ADD(X_MUL(z, c), 4.16666457e-2f);
    c = X_ADD(X_MUL(X_MUL(z, z), c), X_SUB(1.0f, X_MUL(z, 0.5f)));
    bool swap = ((q + 1) & 2) != 0;
    float sine = swap ? c : s, cosine = swap ? s : c;
    /* q & 7: 4..7 have a negative sine, 2..5 a negative cosine; the sign bit is moved there by integers */
    *sn = X_FLOAT(X_BITS(sine) ^ ((uint32_t)(q & 4) << 29));
    *cs = X_FLOAT(X_BITS(cosine) ^ ((uint32_t)((q + 2) & 4) << 29));
}

/* Box-Muller: two words to two independent N(0, 1). */
XD void xd_normal2(uint32_t bits0, uint32_t bits1, float *z0, float *z1)
{
    float radius = X_SQRT(X_MUL(-2.0f, xd_log(xd_unit(bits0)))), s, c;
    xd_sincos_turn(xd_unit(bits1), &s, &c);
    *z0 = X_MUL(radius, c);
    *z1 = X_MUL(radius, s);
}

/* A mask is an integer comparison: an element is dropped when its bits are below p * 2^32. p in [0, 1). */
XD uint32_t xd_drop_below(float p)
{
    return (uint32_t)((double)p * 4294967296.0);
}

/* ---- pixels ---------------------------------------------------------------------------------------------------------- */

XD float xd_from_u8(uint8_t v)
{
    return X_SUB(X_DIV((float)v, 127.5f), 1.0f);
}

/* NaN becomes 0: the comparisons are written so. */
XD uint8_t xd_to_u8(double x)
{
    double v = x * 127.5;
    v = v + 128.0;
    v = v > 0 ? v : 0;
    v = v < 255 ? v : 255;
    return (uint8_t)v;
}

/* ---- activations (tolerance) ------------------------------------------------------------------------------------------ */

/* e^x for |x| <= 87, relative error below 2e-7: 2^n e^r with |r| <= ln 2 / 2, and e^r by a polynomial of degree 5. */
XD float xd_exp_within(float x)
{
    float shifted =
        X_ADD(X_MUL(x, 1.44269504f), 12582912.0f); /* 1.5 * 2^23: the low bits now hold n = round(x / ln 2) */
    float n = X_SUB(shifted, 12582912.0f);
    float r = X_SUB(X_SUB(x, X_MUL(n, 0.693359375f)), X_MUL(n, -2.12194440e-4f));
    float p = X_ADD(X_MUL(r, 8.3125014e-3f), 4.1890332e-2f);
    p = X_ADD(X_MUL(r, p), 1.6667115e-1f);
    p = X_ADD(X_MUL(r, p), 4.9999230e-1f);
    p = X_ADD(X_ADD(X_MUL(X_MUL(r, r), p), r), 1.0f);
    return X_MUL(p, X_FLOAT((X_BITS(shifted) << 23) + 0x3f800000u));
}

/* x limited to +-87; NaN counts as large. On the bits: written as a float comparison, the compiler specialises the code behind it
 * for the limit, whose subnormal constants are slow to multiply. */
XD float xd_limit(float x)
{
    uint32_t bits = X_BITS(x), mag = bits & 0x7fffffffu, limit = 0x42ae0000u; /* 87 */
    limit = mag < limit ? mag : limit;
    return X_FLOAT((bits & 0x80000000u) | limit);
}

/* e^x everywhere: saturates at e^-87 and e^87; NaN stays NaN. */
XD float xd_exp(float x)
{
    return x != x ? x : xd_exp_within(xd_limit(x));
}

/* 1 / (1 + e^-x). NaN gives a number: those who use it multiply with x. */
XD float xd_sigmoid(float x)
{
    return X_DIV(1.0f, X_ADD(1.0f, xd_exp_within(xd_limit(-x))));
}
XD float xd_silu(float x)
{
    return X_DIV(x, X_ADD(1.0f, xd_exp_within(xd_limit(-x))));
}
/* d silu / dx = s (1 + x (1 - s)) */
XD float xd_silu_slope(float x)
{
    float s = xd_sigmoid(x);
    return X_MUL(s, X_ADD(1.0f, X_MUL(x, X_SUB(1.0f, s))));
}

/* x Phi(x), Phi the normal distribution function: (1 + erf s) / 2 with s = x / sqrt 2. |s| < 1: erf by its odd polynomial; beyond,
 * erfc |s| = e^p(|s|), which keeps small values of Phi exact too, up to |s| = 4 where it is below half a unit of 1. */
XD float xd_gelu(float x)
{
    float s = X_MUL(x, 0.70710678f), z = X_MUL(s, s), t = s < 0 ? -s : s;
    t = t > 4.0f ? 4.0f : t;
    float a = X_ADD(X_MUL(z, 7.88249711e-5f), -8.01885499e-4f);
    a = X_ADD(X_MUL(z, a), 5.18931194e-3f);
    a = X_ADD(X_MUL(z, a), -2.68543288e-2f);
    a = X_ADD(X_MUL(z, a), 1.12835975e-1f);
    a = X_ADD(X_MUL(z, a), -3.76126269e-1f);
    a = X_ADD(X_MUL(z, a), 1.12837917f);
    float b = X_ADD(X_MUL(t, -1.82845082e-5f), 3.96612464e-4f);
    b = X_ADD(X_MUL(t, b), -3.95901788e-3f);
    b = X_ADD(X_MUL(t, b), 2.4478460e-2f);
    b = X_ADD(X_MUL(t, b), -1.07150240e-1f);
    b = X_ADD(X_MUL(t, b), -6.34509294e-1f);
    b = X_ADD(X_MUL(t, b), -1.12886802f);
    b = X_ADD(X_MUL(t, b), 2.42708344e-5f);
    float tail = X_MUL(0.5f, xd_exp_within(xd_limit(b)));
    float inner = X_ADD(0.5f, X_MUL(X_MUL(0.5f, s), a)), outer = x < 0 ? tail : X_SUB(1.0f, tail);
    return X_MUL(x, z < 1.0f ? inner : outer);
}

#endif
