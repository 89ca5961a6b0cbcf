/* What is looked up is where a new pixel comes from, so the map is the product of the inverses, first transform leftmost. */
#include "core/augment.h"

#include <math.h>
#include <string.h>

#include "core/rng.h"

const char *const augment_names[AUGMENT_KINDS] = {"xflip", "yflip", "scale", "rotate", "aniso", "translate"};

static const double pi = 3.14159265358979323846;
#define SCALE_STD 0.2
#define AXIS_SHARE 0.5
#define TRANSLATE_STD 0.125

/* ---- draws: an element a use, so that leaving out a kind changes no other ---------------------------------------------- */

enum { UNIFORM = 0, NORMAL = 1 }; /* layers of the stream */
enum { U_XFLIP, U_YFLIP, U_AXIS_TURNED, U_AXIS, U_ANGLE, U_GATE /* and AUGMENT_KINDS following */ };
enum { N_SCALE, N_ANISO, N_TX, N_TY };

void augment_drawn(const struct augment *a, uint64_t seed, uint32_t step, uint32_t sample, struct augment_draw *out)
{
    struct rng u = {.seed = seed, .step = step, .purpose = RNG_AUGMENT, .layer = UNIFORM}, n = u;
    bool happens[AUGMENT_KINDS];
    n.layer = NORMAL;
    *out = (struct augment_draw){.xflip = false};
    if (!(a->p > 0)) return;
    for (uint32_t k = 0; k < AUGMENT_KINDS; k++)
        happens[k] = a->on[k] && (k == AUGMENT_XFLIP || rng_uniform(&u, sample, U_GATE + k) < a->p);
    out->xflip = happens[AUGMENT_XFLIP] && rng_uniform(&u, sample, U_XFLIP) < 0.5;
    out->yflip = happens[AUGMENT_YFLIP] && rng_uniform(&u, sample, U_YFLIP) < 0.5;
    if (happens[AUGMENT_SCALE]) out->scale = rng_normal(&n, sample, N_SCALE);
    if (happens[AUGMENT_ROTATE]) out->angle = pi * (2 * rng_uniform(&u, sample, U_ANGLE) - 1);
    if (happens[AUGMENT_ANISO]) {
        out->aniso = rng_normal(&n, sample, N_ANISO);
        if (rng_uniform(&u, sample, U_AXIS_TURNED) < AXIS_SHARE)
            out->aniso_axis = pi * (rng_uniform(&u, sample, U_AXIS) - 0.5);
    }
    if (happens[AUGMENT_TRANSLATE]) {
        out->tx = rng_normal(&n, sample, N_TX);
        out->ty = rng_normal(&n, sample, N_TY);
    }
}

void augment_labels(const struct augment_draw *d, float out[AUGMENT_LABELS])
{
    const double v[AUGMENT_LABELS] = {d->xflip,
                                      d->yflip,
                                      d->scale,
                                      cos(d->angle) - 1,
                                      sin(d->angle),
                                      d->aniso * cos(d->aniso_axis),
                                      d->aniso * sin(d->aniso_axis),
                                      d->tx,
                                      d->ty};
    for (int i = 0; i < AUGMENT_LABELS; i++) out[i] = (float)v[i];
}

/* ---- maps: [m0 m1 m2; m3 m4 m5] of the plane, origin at the image's centre ------------------------------------------------ */

static void times(double m[6], double a, double b, double c, double d, double x, double y) /* m <- m [a b x; c d y] */
{
    double r[6] = {m[0] * a + m[1] * c, m[0] * b + m[1] * d, m[0] * x + m[1] * y + m[2],
                   m[3] * a + m[4] * c, m[3] * b + m[4] * d, m[3] * x + m[4] * y + m[5]};
    for (int i = 0; i < 6; i++) m[i] = r[i];
}

static void turn(double m[6], double angle)
{
    double c = cos(angle), s = sin(angle);
    times(m, c, -s, s, c, 0, 0);
}

static void stretch(double m[6], double x, double y)
{
    times(m, x, 0, 0, y, 0, 0);
}

/* Where all is whole but for the rounding of sines, make it so: then pixels move and none is resampled. */
static void snap(double m[6])
{
    static const double one[6] = {1, 0, 0, 0, 1, 0};
    for (int i = 0; i < 6; i++)
        if (i % 3 < 2 && fabs(m[i] - one[i]) > 1e-12) return;
    if (fabs(m[2] - rint(m[2])) > 1e-9 || fabs(m[5] - rint(m[5])) > 1e-9) return;
    for (int i = 0; i < 6; i++) m[i] = i % 3 < 2 ? one[i] : rint(m[i]);
}

void augment_map(const struct augment_draw *d, int h, int w, double affine[6], uint8_t *orient)
{
    double m[6] = {d->xflip ? -1 : 1, 0, 0, 0, d->yflip ? -1 : 1, 0};
    double size = exp2(SCALE_STD * d->scale), along = exp2(SCALE_STD * d->aniso), best = -INFINITY;
    stretch(m, 1 / size, 1 / size);
    turn(m, d->angle);
    turn(m, -d->aniso_axis);
    stretch(m, 1 / along, along);
    turn(m, d->aniso_axis);
    times(m, 1, 0, 0, 1, -d->tx * TRANSLATE_STD * w, -d->ty * TRANSLATE_STD * h);
    for (unsigned o = 0; o < (h == w ? 8 : 4);
         o++) { /* m = D rest, rest = D^T m; the nearest has the largest trace of it */
        double x = o & 1 ? -1 : 1, y = o & 2 ? -1 : 1;
        double r[6];
        for (int i = 0; i < 3; i++) {
            r[i] = x * m[o & 4 ? i + 3 : i];
            r[i + 3] = y * m[o & 4 ? i : i + 3];
        }
        if (r[0] + r[4] <= best + 1e-9) continue;
        best = r[0] + r[4];
        *orient = (uint8_t)o;
        for (int i = 0; i < 6; i++) affine[i] = r[i];
    }
    snap(affine);
}

/* ---- a micro-batch on a device -------------------------------------------------------------------------------------------------- */

struct augmenter {
    struct augment what;
    const struct kernels *k;
    struct kdev *dev;
    int h, w, c, rows;
    float *plain, *ws; /* device: the images before; scratch */
    double *affine, *affine_dev;
    uint8_t *orient, *orient_dev;
    float *labels; /* host */
};

static err_t kinds_from(struct augment *a, int n, const char (*names)[64])
{
    for (int i = 0; i < n; i++) {
        int k = 0;
        while (k < AUGMENT_KINDS && strcmp(names[i], augment_names[k])) k++;
        if (k == AUGMENT_KINDS) {
            const char *near = nearest_name(names[i], augment_names, AUGMENT_KINDS);
            return fail(
                ERR_USAGE,
                "augment.transforms: no transform '%s'; there are xflip, yflip, scale, rotate, aniso, translate%s%s%s",
                names[i], near ? " (did you mean " : "", near ? near : "", near ? "?)" : "");
        }
        a->on[k] = true;
    }
    return ERR_OK;
}

static err_t device_alloc(struct augmenter *a, void **out, size_t bytes)
{
    *out = a->k->alloc(a->dev, bytes);
    return *out ? ERR_OK : fail(ERR_DEVICE_MEM, "device memory: %zu bytes for augmentation", bytes);
}

err_t augmenter_new(struct augmenter **out, double p, int nnames, const char (*names)[64], const struct kernels *k,
                    struct kdev *dev, int rows, int h, int w, int c)
{
    struct augmenter *a = mem_alloc(sizeof *a);
    size_t n = (size_t)rows;
    err_t err = ERR_OK;
    *a = (struct augmenter){.what.p = p, .k = k, .dev = dev, .h = h, .w = w, .c = c, .rows = rows};
    a->affine = mem_array(n, 6 * sizeof(double));
    a->orient = mem_alloc(n);
    a->labels = mem_array(n, AUGMENT_LABELS * sizeof(float));
    TRYD(kinds_from(&a->what, nnames, names));
    TRYD(device_alloc(a, (void **)&a->plain, n * (size_t)(h * w * c) * sizeof(float)));
    TRYD(device_alloc(a, (void **)&a->ws, n * augment_floats(h, w) * sizeof(float)));
    TRYD(device_alloc(a, (void **)&a->affine_dev, n * 6 * sizeof(double)));
    TRYD(device_alloc(a, (void **)&a->orient_dev, n));
done:
    if (err) augmenter_free(a);
    *out = err ? NULL : a;
    return err;
}

void augmenter_free(struct augmenter *a)
{
    if (!a) return;
    void *const buffers[] = {a->plain, a->ws, a->affine_dev, a->orient_dev};
    for (size_t i = 0; i < ARRAY_LEN(buffers); i++)
        if (buffers[i]) a->k->free(a->dev, buffers[i]);
    mem_free(a->affine);
    mem_free(a->orient);
    mem_free(a->labels);
    mem_free(a);
}

void augmenter_run(struct augmenter *a, uint64_t seed, uint32_t step, uint32_t first, int n, float *y, float *labels)
{
    for (int i = 0; i < n; i++) {
        struct augment_draw d;
        augment_drawn(&a->what, seed, step, first + (uint32_t)i, &d);
        augment_map(&d, a->h, a->w, a->affine + 6 * i, &a->orient[i]);
        augment_labels(&d, a->labels + AUGMENT_LABELS * i);
    }
    size_t rows = (size_t)n;
    a->k->upload(a->dev, a->affine_dev, a->affine, rows * 6 * sizeof(double));
    a->k->upload(a->dev, a->orient_dev, a->orient, rows);
    a->k->upload(a->dev, labels, a->labels, rows * AUGMENT_LABELS * sizeof(float));
    a->k->copy(a->dev, a->plain, y, rows * (size_t)(a->h * a->w * a->c));
    a->k->augment(a->dev, a->plain, a->affine_dev, a->orient_dev, y, n, a->h, a->w, a->c, a->ws);
}
