/* stats: means and Student-t intervals over a handful of replicates. The quantile inverts the incomplete beta function by Newton's
 * method kept inside a bracket; both tails are computed without cancellation, so it is good at t near 0 and far out alike. */
#include "db/stats.h"

#include <float.h>
#include <math.h>

double stat_mean(const double *x, int n)
{
    double sum = 0, rest = 0; /* Neumaier: the mean of 1e16, 1, -1e16 is right */
    for (int i = 0; i < n; i++) {
        double next = sum + x[i];
        rest += fabs(sum) >= fabs(x[i]) ? (sum - next) + x[i] : (x[i] - next) + sum;
        sum = next;
    }
    if (!isfinite(sum)) return sum / n;
    return n > 0 ? (sum + rest) / n : NAN;
}

double stat_sd(const double *x, int n)
{
    if (n < 2) return NAN;
    double mean = stat_mean(x, n), square = 0, bias = 0;
    for (int i = 0; i < n; i++) {
        square += (x[i] - mean) * (x[i] - mean);
        bias += x[i] - mean;
    }
    return sqrt(fmax(0, square - bias * bias / n) / (n - 1));
}

/* ---- Student's t ------------------------------------------------------------------------------------------------------------- */

/* ln Gamma(a + 1/2) - ln Gamma(a); for large a by its series, since the difference of two lgamma loses all digits. */
static double lgamma_half(double a)
{
    if (a < 25) return lgamma(a + 0.5) - lgamma(a);
    double r = 1 / (a * a);
    return 0.5 * log(a) - (1.0 / 8 - (1.0 / 192 - (1.0 / 640 - 17.0 / 14336 * r) * r) * r) / a;
}

/* Continued fraction of the incomplete beta function (Lentz), for x < (a + 1) / (a + b + 2). */
static double beta_fraction(double a, double b, double x)
{
    const double tiny = 1e-300;
    double c = 1, d = 1 - (a + b) * x / (a + 1);
    d = 1 / (fabs(d) < tiny ? tiny : d);
    double h = d;
    for (int m = 1; m < 100000; m++) {
        for (int odd = 0; odd < 2; odd++) {
            double num = odd ? -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
                             : m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
            d = 1 + num * d;
            c = 1 + num / c;
            d = 1 / (fabs(d) < tiny ? tiny : d);
            if (fabs(c) < tiny) c = tiny;
            h *= c * d;
        }
        if (fabs(c * d - 1) < DBL_EPSILON) break;
    }
    return h;
}

/* t > 0. *inside = P(|T| < t), *outside = P(|T| > t), each to full relative precision where it is the small one. */
static void t_masses(double t, double df, double *inside, double *outside)
{
    double far = df / (df + t * t), near = t * t / (df + t * t); /* far + near = 1 */
    /* ln of near^(1/2) far^(df/2) / B(1/2, df/2); far^(df/2) by log1p, as far may be next to 1 */
    double ln = 0.5 * log(near) - 0.5 * df * log1p(t * t / df) + lgamma_half(0.5 * df) - 0.5 * log(M_PI);
    if (far < (0.5 * df + 1) / (0.5 * df + 2.5)) {
        *outside = exp(ln) * beta_fraction(0.5 * df, 0.5, far) / (0.5 * df);
        *inside = 1 - *outside;
    } else {
        *inside = exp(ln) * beta_fraction(0.5, 0.5 * df, near) / 0.5;
        *outside = 1 - *inside;
    }
}

static double t_density(double t, double df)
{
    return exp(lgamma_half(0.5 * df) - 0.5 * log(M_PI * df) - 0.5 * (df + 1) * log1p(t * t / df));
}

/* Solves P(|T| > t) = outside, P(|T| < t) = inside; compares the smaller of the two. */
static double t_solve(double inside, double outside, double df)
{
    double lo = 0, hi = 1, in, out;
    bool tail = outside < inside;
    for (t_masses(hi, df, &in, &out); tail ? out > outside : in < inside; t_masses(hi, df, &in, &out)) {
        lo = hi;
        hi *= 2;
        if (hi > 1e300) return INFINITY;
    }
    double t = tail || inside > 0.1 ? 0.5 * (lo + hi) : inside / (2 * t_density(0, df));
    for (int i = 0; i < 200; i++) {
        t_masses(t, df, &in, &out);
        double over = tail ? outside - out : in - inside; /* > 0: t is too large */
        if (over > 0) hi = t;
        else lo = t;
        double next = t - over / (2 * t_density(t, df));
        if (!(next > lo && next < hi)) next = 0.5 * (lo + hi);
        if (fabs(next - t) <= 2 * DBL_EPSILON * t || next == lo || next == hi) return next;
        t = next;
    }
    return t;
}

double stat_t_quantile(double p, double df)
{
    if (!(p >= 0 && p <= 1) || !(df > 0)) return NAN;
    if (p == 0.5) return 0;
    if (p == 0 || p == 1) return p == 0 ? -INFINITY : INFINITY;
    /* beyond this the distribution is normal to double precision; the series would only add rounding */
    if (df > 1e16) df = 1e16;
    if (p < 0.5) return -t_solve(1 - 2 * p, 2 * p, df);
    return t_solve(2 * p - 1, 2 * (1 - p), df);
}

/* ---- intervals --------------------------------------------------------------------------------------------------------------- */

struct interval stat_interval(const double *x, int n, double level)
{
    struct interval r = {.mean = stat_mean(x, n), .lo = NAN, .hi = NAN, .n = n};
    if (n < 3) return r;
    double half = stat_t_quantile(0.5 + 0.5 * level, n - 1) * stat_sd(x, n) / sqrt(n);
    r.lo = r.mean - half;
    r.hi = r.mean + half;
    return r;
}

struct interval stat_paired(const double *a, const double *b, int n, double level)
{
    double *d = mem_array((size_t)n + 1, sizeof *d);
    int m = 0;
    for (int i = 0; i < n; i++)
        if (!isnan(a[i]) && !isnan(b[i])) d[m++] = a[i] - b[i];
    struct interval r = stat_interval(d, m, level);
    mem_free(d);
    return r;
}
