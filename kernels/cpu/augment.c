/* augment: an affine map of every image (Karras et al. 2022, appendix F.2; Karras et al. 2020, appendix B). An image with its reflections is
 * periodic, so one period of it at twice the resolution is all that any map can ever look at: no margins, and a sample does not depend on
 * the others of its batch.
 *
 * Filter h = sym6 (orthonormal, 12 taps) places pixel i at samples j = 2 i - 5 .. 2 i + 6 of the doubled line and collects it from there:
 * doubling and halving with nothing between is the identity. It is not symmetric: its centre of mass is at tap 5.098, not 5.5, so pixel
 * coordinate X is sample 2 X + 0.098; without that a turn would not be about the image's centre. */
#include <math.h>

#include "kernels/cpu/cpu.h"

enum { TAPS = 12, BEFORE = 5 };
static const double centre = 0.09826089954573; /* sum k h[k] / sum h[k] - BEFORE */
static const float sym6[TAPS] = {0.015404109327027373f, 0.0034907120842174702f, -0.11799011114819057f,
                                 -0.048311742585633f,   0.4910559419267466f,    0.787641141030194f,
                                 0.3379294217276218f,   -0.07263752278646252f,  -0.021060292512300564f,
                                 0.04472490177066578f,  0.0017677118642428036f, -0.007800708325034148f};

static size_t wrap(long i, size_t period)
{
    long m = i % (long)period;
    return (size_t)(m < 0 ? m + (long)period : m);
}

/* Pixel of the image that stands at i of the reflected line. */
static size_t mirror(long i, int side)
{
    if (i < 0) i = -i;
    if (i < side) return (size_t)i;
    if (i <= 2 * (long)side - 2) return (size_t)(2 * (long)side - 2 - i);
    size_t period = augment_period(side), at = (size_t)i % period;
    return at < (size_t)side ? at : period - at;
}

struct image { /* one channel of one image, seen through D */
    const float *x;
    int h, w, c;
    unsigned orient;
};

static float pixel(const struct image *m, size_t row, size_t col)
{
    size_t u = m->orient & 1 ? (size_t)m->w - 1 - col : col, v = m->orient & 2 ? (size_t)m->h - 1 - row : row;
    if (m->orient & 4) {
        size_t keep = u;
        u = v;
        v = keep;
    }
    return m->x[(v * (size_t)m->w + u) * (size_t)m->c];
}

/* out[j], j < 2 period: the doubled line; line[i], i < side, stride apart. */
static void double_line(const float *line, size_t stride, int side, float *out, size_t out_stride)
{
    long n = 2 * (long)augment_period(side);
    for (long j = 0; j < n; j++) {
        /* taps k = j - 2 i + 5 in 0..11: i from ceil((j - 6) / 2), k of j's parity + 1 */
        long k = (j + BEFORE) & 1, i = (j + BEFORE - k) / 2;
        float sum = 0;
        for (; k < TAPS; k += 2, i--) sum += sym6[k] * line[mirror(i, side) * stride];
        out[(size_t)j * out_stride] = sum;
    }
}

static bool moves_pixels(const double *a)
{
    return a[0] == 1 && a[1] == 0 && a[3] == 0 && a[4] == 1 && rint(a[2]) == a[2] && rint(a[5]) == a[5];
}

static void move(const struct image *m, const double *a, float *y)
{
    for (int v = 0; v < m->h; v++)
        for (int u = 0; u < m->w; u++)
            y[((size_t)v * (size_t)m->w + (size_t)u) * (size_t)m->c] =
                pixel(m, mirror(v + (long)a[5], m->h), mirror(u + (long)a[2], m->w));
}

/* big[vh, vw]: the doubled image (one period, [ph, pw]) at the mapped places of every sample of the doubled output and its margin. */
static void sample(const struct image *m, const double *a, const float *plane, float *big)
{
    size_t ph = 2 * augment_period(m->h), pw = 2 * augment_period(m->w);
    int vh = 2 * m->h + 10, vw = 2 * m->w + 10;
    double cx = (m->w - 1) / 2.0, cy = (m->h - 1) / 2.0;
    for (int v = 0; v < vh; v++)
        for (int u = 0; u < vw; u++) {
            double px = (u - BEFORE - centre) / 2 - cx, py = (v - BEFORE - centre) / 2 - cy;
            double sx = 2 * (a[0] * px + a[1] * py + a[2] + cx) + centre,
                   sy = 2 * (a[3] * px + a[4] * py + a[5] + cy) + centre;
            double fx = floor(sx), fy = floor(sy);
            float wx = (float)(sx - fx), wy = (float)(sy - fy);
            size_t x0 = wrap((long)fx, pw), x1 = x0 + 1 == pw ? 0 : x0 + 1;
            const float *r0 = plane + wrap((long)fy, ph) * pw, *r1 = plane + wrap((long)fy + 1, ph) * pw;
            float top = r0[x0] + wx * (r0[x1] - r0[x0]), low = r1[x0] + wx * (r1[x1] - r1[x0]);
            big[(size_t)v * (size_t)vw + (size_t)u] = top + wy * (low - top);
        }
}

static void resample(const struct image *m, const double *a, float *y, float *ws)
{
    size_t h = (size_t)m->h, w = (size_t)m->w, pw = 2 * augment_period(m->w), ph = 2 * augment_period(m->h);
    size_t vh = 2 * h + 10, vw = 2 * w + 10;
    float *rows = ws, *plane = rows + h * pw, *big = plane + ph * pw, *thin = big + vh * vw;
    for (size_t v = 0; v < h; v++) { /* the line of pixels stands in big, which is not used yet */
        for (size_t u = 0; u < w; u++) big[u] = pixel(m, v, u);
        double_line(big, 1, m->w, rows + v * pw, 1);
    }
    for (size_t u = 0; u < pw; u++) double_line(rows + u, pw, m->h, plane + u, pw);
    sample(m, a, plane, big);
    for (size_t v = 0; v < vh; v++)
        for (size_t u = 0; u < w; u++) {
            float sum = 0;
            for (size_t k = 0; k < TAPS; k++) sum += sym6[k] * big[v * vw + 2 * u + k];
            thin[v * w + u] = sum;
        }
    for (size_t v = 0; v < h; v++)
        for (size_t u = 0; u < w; u++) {
            float sum = 0;
            for (size_t k = 0; k < TAPS; k++) sum += sym6[k] * thin[(2 * v + k) * w + u];
            y[(v * w + u) * (size_t)m->c] = sum;
        }
}

void cpu_augment(struct kdev *d, const float *x, const double *affine, const uint8_t *orient, float *y, int n, int h,
                 int w, int c, float *ws)
{
    (void)d;
    size_t per = (size_t)h * (size_t)w * (size_t)c;
#pragma omp parallel for schedule(static)
    for (int i = 0; i < n; i++)
        for (int ch = 0; ch < c; ch++) {
            struct image m = {.x = x + (size_t)i * per + ch, .h = h, .w = w, .c = c, .orient = orient[i]};
            const double *a = affine + 6 * (size_t)i;
            float *out = y + (size_t)i * per + ch;
            if (moves_pixels(a)) move(&m, a, out);
            else resample(&m, a, out, ws + (size_t)i * augment_floats(h, w));
        }
}
