/* stats: means and Student-t intervals over a handful of replicates. The quantile inverts the incomplete beta function
 * by Newton's method kept inside a bracket; both tails are computed without cancellation, so it is good at t near 0 and
 * far out alike. */
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

/* ---- Student's t ------------------------------------------------------------------------------------------------- */

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

/* ln(1 + t^2 / df), where t^2 may overflow. */
static double log_spread(double t, double df)
{
    double u = t / sqrt(df);
    return u > 1e8 ? 2 * log(u) : log1p(u * u);
}

/* t > 0. *inside = P(|T| < t), *outside = P(|T| > t), each to full relative precision where it is the small one. */
static void t_masses(double t, double df, double *inside, double *outside)
{
    double u = t / sqrt(df), far = 1 / (1 + u * u),
           near = u < 1 ? u * u / (1 + u * u) : 1 / (1 + 1 / u / u); /* far + near = 1 */
    double ln = 0.5 * log(near) - 0.5 * df * log_spread(t, df) + lgamma_half(0.5 * df) - 0.5 * log(M_PI);
    /* exp(ln) = near^(1/2) far^(df/2) / B(1/2, df/2) */
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
    return exp(lgamma_half(0.5 * df) - 0.5 * log(M_PI * df) - 0.5 * (df + 1) * log_spread(t, df));
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

/* The same for the normal distribution. erf for the middle, the logarithm of erfc for the tail, where it is nearly a
 * parabola. */
static double z_solve(double inside, double outside)
{
    double z = outside < inside ? sqrt(-2 * log(outside)) : inside * sqrt(M_PI / 2);
    for (int i = 0; i < 100; i++) {
        double density = sqrt(2 / M_PI) * exp(-0.5 * z * z), step;
        if (outside < inside) {
            double out = erfc(z * M_SQRT1_2);
            step = (log(out) - log(outside)) * out / density;
        } else step = (inside - erf(z * M_SQRT1_2)) / density;
        z += step;
        if (fabs(step) <= 2 * DBL_EPSILON * z) break;
    }
    return z;
}

/* Many degrees of freedom: the continued fraction would lose df * 1e-16, while Fisher's expansion around the normal
 * quantile is exact (Abramowitz and Stegun, 26.7.5). */
static double t_large_df(double z, double n)
{
    double y = z * z;
    double g1 = (y + 1) / 4, g2 = ((5 * y + 16) * y + 3) / 96, g3 = (((3 * y + 19) * y + 17) * y - 15) / 384;
    double g4 = ((((79 * y + 776) * y + 1482) * y - 1920) * y - 945) / 92160;
    return z * (1 + (g1 + (g2 + (g3 + g4 / n) / n) / n) / n);
}

double stat_t_quantile(double p, double df)
{
    enum { MANY = 30000 };
    if (!(p >= 0 && p <= 1) || !(df > 0)) return NAN;
    if (p == 0.5) return 0;
    if (p == 0 || p == 1) return p == 0 ? -INFINITY : INFINITY;
    double outside = p < 0.5 ? 2 * p : 2 * (1 - p), inside = p < 0.5 ? 1 - 2 * p : 2 * p - 1;
    double t = df > MANY ? t_large_df(z_solve(inside, outside), df) : t_solve(inside, outside, df);
    return p < 0.5 ? -t : t;
}

/* ---- intervals --------------------------------------------------------------------------------------------------- */

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
