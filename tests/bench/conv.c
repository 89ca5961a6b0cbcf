/* Convolutions at the demo network's shapes on the CPU device: lines "NAME GFLOP/s" of forward, data gradient and weight gradient, one
 * core each. FLOPs are nominal, products with padding counted although they are left out; the best of many short runs, because
 * the machine may be shared. Usage: conv [THREADS]. */
#include <stdlib.h>

#include "core/rng.h"
#include "kernels/kernels.h"

static double best_of(void (*run)(void *ctx), void *ctx)
{
    int64_t best = INT64_MAX;
    for (int i = 0; i < 60; i++) {
        int64_t t = host.mono_ns();
        run(ctx);
        t = host.mono_ns() - t;
        if (t < best) best = t;
    }
    return (double)best * 1e-9;
}

struct job {
    const struct kernels *k;
    struct conv *conv;
    float *x, *y, *dw, *db;
    void *packed, *packed_bwd, *ws;
};

static void forward(void *ctx)
{
    struct job *j = ctx;
    j->k->conv_fwd(j->conv, j->x, j->packed, j->db, j->y, j->ws);
}

static void data_gradient(void *ctx)
{
    struct job *j = ctx;
    j->k->conv_bwd_data(j->conv, j->y, j->packed_bwd, j->x, j->ws);
}

static void weight_gradient(void *ctx)
{
    struct job *j = ctx;
    j->k->conv_bwd_weight_acc(j->conv, j->x, j->y, j->dw, j->db, j->ws);
}

static err_t measure(const struct kernels *k, struct kdev *dev, int side, int c, int out, int window)
{
    enum { BATCH = 64 };
    struct conv_desc d = {.n = BATCH,
                          .h = side,
                          .w = side,
                          .c = c,
                          .k = out,
                          .r = window,
                          .s = window,
                          .stride = 1,
                          .pad = window / 2,
                          .bwd_data = true,
                          .bwd_weight = true};
    struct job j = {.k = k};
    struct kstream s = {.seed = 1, .purpose = RNG_TEST};
    int pixels = side * side, taps = window * window;
    TRY(k->conv_new(dev, &d, &j.conv));
    float *w = k->alloc(dev, sizeof(float) * (size_t)out * taps * c);
    j.x = k->alloc(dev, sizeof(float) * BATCH * (size_t)(pixels * c));
    j.y = k->alloc(dev, sizeof(float) * BATCH * (size_t)(pixels * out));
    j.dw = k->alloc(dev, sizeof(float) * (size_t)out * taps * c);
    j.db = k->alloc(dev, sizeof(float) * (size_t)out);
    j.packed = k->alloc(dev, k->conv_packed_bytes(j.conv));
    j.packed_bwd = k->alloc(dev, k->conv_packed_bwd_bytes(j.conv));
    j.ws = k->alloc(dev, k->conv_workspace_bytes(j.conv));
    k->normal(dev, w, out, taps * c, &s);
    k->normal(dev, j.x, BATCH, pixels * c, &s);
    if (k->conv_packed_bytes(j.conv)) k->conv_pack(j.conv, w, j.packed);
    if (k->conv_packed_bwd_bytes(j.conv)) k->conv_pack_bwd(j.conv, w, j.packed_bwd);
    double flops = 2.0 * BATCH * pixels * c * out * taps;
    static void (*const run[3])(void *) = {forward, weight_gradient, data_gradient}; /* the last overwrites x */
    static const char *const name[3] = {"fwd", "bwd_weight", "bwd_data"};
    for (int i = 0; i < 3; i++)
        printf("%dx%d.%d-%d.k%d.%s %.1f\n", side, side, c, out, window, name[i], flops / best_of(run[i], &j) / 1e9);
    void *all[] = {w, j.x, j.y, j.dw, j.db, j.packed, j.packed_bwd, j.ws};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) k->free(dev, all[i]);
    k->conv_free(j.conv);
    return ERR_OK;
}

static err_t bench(int threads)
{
    static const int shape[][4] = {{8, 16, 16, 3}, {8, 32, 32, 3}, {8, 48, 16, 3},
                                   {4, 32, 32, 3}, {4, 64, 32, 3}, {4, 32, 96, 1}};
    const struct kernels *k;
    struct kdev *dev;
    TRY(kernels_find("cpu", &k));
    TRY(k->open(&dev, "cpu", threads));
    for (size_t i = 0; i < ARRAY_LEN(shape); i++)
        TRY(measure(k, dev, shape[i][0], shape[i][1], shape[i][2], shape[i][3]));
    k->close(dev);
    return ERR_OK;
}

int main(int argc, char **argv)
{
    err_t err = bench(argc > 1 ? atoi(argv[1]) : 1);
    if (err) fprintf(stderr, "conv: %s\n", err_text());
    return err ? 1 : 0;
}
