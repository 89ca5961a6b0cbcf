/* Both passes take the same taps; a pass that changes no size is left out, as Pillow does. */
#include "core/metrics/pil.h"

#include <math.h>
#include <string.h>

enum { BITS = 22 };

struct taps { /* of one output pixel: weight[k] for input pixel first + k */
    int first, n;
    double *weight;
    int32_t *fixed;
};
struct axis {
    int in, out, most; /* most: taps a pixel may have */
    struct taps *taps;
    double *weights;
    int32_t *fixed;
};

static double keys(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

static void axis_init(struct axis *q, int in, int out)
{
    double scale = (double)in / out, widen = scale < 1 ? 1 : scale, support = 2 * widen;
    *q = (struct axis){.in = in, .out = out, .most = (int)ceil(support) * 2 + 1};
    size_t room = (size_t)out * (size_t)q->most;
    q->taps = mem_array((size_t)out, sizeof *q->taps);
    q->weights = mem_array(room, sizeof *q->weights);
    q->fixed = mem_array(room, sizeof *q->fixed);
    for (int i = 0; i < out; i++) {
        struct taps *t = &q->taps[i];
        double center = (i + 0.5) * scale, sum = 0;
        int first = (int)(center - support + 0.5), end = (int)(center + support + 0.5);
        if (first < 0) first = 0;
        if (end > in) end = in;
        *t = (struct taps){.first = first,
                           .n = end - first,
                           .weight = q->weights + (ptrdiff_t)i * q->most,
                           .fixed = q->fixed + (ptrdiff_t)i * q->most};
        for (int k = 0; k < t->n; k++) sum += t->weight[k] = keys((k + first - center + 0.5) * (1 / widen));
        for (int k = 0; k < t->n; k++) {
            if (sum != 0) t->weight[k] /= sum;
            double v = t->weight[k] * (1 << BITS);
            t->fixed[k] = (int32_t)(v < 0 ? v - 0.5 : v + 0.5);
        }
    }
}

static void axis_done(struct axis *q)
{
    mem_free(q->taps);
    mem_free(q->weights);
    mem_free(q->fixed);
}

static uint8_t clip(int32_t sum)
{
    int32_t v = sum >> BITS; /* rounds down, also below 0 */
    return v < 0 ? 0 : v > 255 ? 255 : (uint8_t)v;
}

/* One pass over lines of q->in values, `step` elements apart: line i begins at in + start(i). */
struct lines {
    size_t count, inner, in_block, out_block, step; /* line i = (i / inner) blocks + i % inner */
};

static void pass_u8(const struct axis *q, const struct lines *l, const uint8_t *in, uint8_t *out)
{
    for (size_t i = 0; i < l->count; i++) {
        const uint8_t *from = in + i / l->inner * l->in_block + i % l->inner;
        uint8_t *to = out + i / l->inner * l->out_block + i % l->inner;
        for (int j = 0; j < q->out; j++) {
            const struct taps *t = &q->taps[j];
            int32_t sum = 1 << (BITS - 1);
            for (int k = 0; k < t->n; k++) sum += from[(size_t)(t->first + k) * l->step] * t->fixed[k];
            to[(size_t)j * l->step] = clip(sum);
        }
    }
}

static void pass_f32(const struct axis *q, const struct lines *l, const float *in, float *out)
{
    for (size_t i = 0; i < l->count; i++) {
        const float *from = in + i / l->inner * l->in_block + i % l->inner;
        float *to = out + i / l->inner * l->out_block + i % l->inner;
        for (int j = 0; j < q->out; j++) {
            const struct taps *t = &q->taps[j];
            double sum = 0;
            for (int k = 0; k < t->n; k++) sum += (double)from[(size_t)(t->first + k) * l->step] * t->weight[k];
            to[(size_t)j * l->step] = (float)sum;
        }
    }
}

/* rows of [h, w, c]: a line for every row and channel; columns: a line for every column and channel */
static struct lines rows_of(int h, int w, int c, int wo)
{
    return (struct lines){.count = (size_t)h * (size_t)c,
                          .inner = (size_t)c,
                          .in_block = (size_t)w * (size_t)c,
                          .out_block = (size_t)wo * (size_t)c,
                          .step = (size_t)c};
}
static struct lines columns_of(int w, int c)
{
    size_t row = (size_t)w * (size_t)c;
    return (struct lines){.count = row, .inner = row, .step = row};
}

#define RESIZE(type, pass)                                                                                             \
    do {                                                                                                               \
        struct axis across, down;                                                                                      \
        struct lines rows = rows_of(h, w, c, wo), columns = columns_of(wo, c);                                         \
        type *mid = mem_array((size_t)h * (size_t)wo * (size_t)c, sizeof *mid);                                        \
        axis_init(&across, w, wo);                                                                                     \
        axis_init(&down, h, ho);                                                                                       \
        if (w == wo) memcpy(mid, in, (size_t)h *(size_t)w *(size_t)c * sizeof *mid);                                   \
        else pass(&across, &rows, in, mid);                                                                            \
        if (h == ho) memcpy(out, mid, (size_t)h *(size_t)wo *(size_t)c * sizeof *mid);                                 \
        else pass(&down, &columns, mid, out);                                                                          \
        axis_done(&across);                                                                                            \
        axis_done(&down);                                                                                              \
        mem_free(mid);                                                                                                 \
    } while (0)

void pil_bicubic_u8(const uint8_t *in, int h, int w, int c, uint8_t *out, int ho, int wo)
{
    RESIZE(uint8_t, pass_u8);
}

void pil_bicubic_f32(const float *in, int h, int w, int c, float *out, int ho, int wo)
{
    RESIZE(float, pass_f32);
}
