/* Metrics on the CPU device. Usage: metrics frechet PREFIX (makes PREFIX1.npz and PREFIX2.npz, the statistics of two sets of 2048 features,
 * and prints "seconds VALUE distance VALUE"), or metrics inception|dinov2 [IMAGES]: images per second through the network, all threads.
 * Weights are zeros: the time does not depend on them. */
#include <stdlib.h>
#include <string.h>

#include "core/metrics/published.h"
#include "core/metrics/stats.h"
#include "core/nets/features.h"
#include "core/rng.h"

enum { D = 2048, ROWS = 3000 };

static void fill(struct moments *m, uint16_t layer)
{
    struct rng r = {.seed = 1, .purpose = RNG_TEST, .layer = layer};
    float *x = mem_array((size_t)ROWS * D, sizeof *x);
    for (uint32_t i = 0; i < ROWS; i++) {
        float common = rng_normal(&r, i, D);
        for (uint32_t j = 0; j < D; j++)
            x[(size_t)i * D + j] =
                (0.1f + (float)(j % 50) / 50) * (rng_normal(&r, i, j) + 0.5f * common) + 0.1f * layer;
    }
    moments_add(m, x, ROWS);
    mem_free(x);
}

static err_t bench_frechet(const char *prefix)
{
    struct moments m[2];
    double *cov[2], value = 0;
    for (int i = 0; i < 2; i++) {
        char *path = mem_printf("%s%d.npz", prefix, i + 1);
        TRY(moments_init(&m[i], D));
        fill(&m[i], (uint16_t)i);
        TRY(stats_write(path, &m[i], false, ""));
        mem_free(path);
        cov[i] = mem_array((size_t)D * D, sizeof(double));
        moments_cov(&m[i], false, cov[i]);
    }
    int64_t best = INT64_MAX;
    for (int round = 0; round < 3; round++) {
        int64_t start = host.mono_ns();
        TRY(frechet_distance(D, m[0].mean, cov[0], m[1].mean, cov[1], &value));
        int64_t t = host.mono_ns() - start;
        if (t < best) best = t;
    }
    printf("seconds %.6f distance %.15g\n", (double)best * 1e-9, value);
    for (int i = 0; i < 2; i++) {
        moments_done(&m[i]);
        mem_free(cov[i]);
    }
    return ERR_OK;
}

static err_t bench_network(bool dinov2, int images)
{
    enum { AT_ONCE = 4, SIZE = 32 };
    const struct dinov2_config large = {.dim = 1024, .heads = 16, .depth = 24, .trained = 37};
    const struct kernels *k;
    struct kdev *dev;
    struct params *w;
    struct program *p;
    struct graph *g = graph_new();
    static uint8_t px[SIZE * SIZE * 3];
    static float chw[3 * DINOV2_SIDE * DINOV2_SIDE];
    TRY(kernels_find("cpu", &k));
    TRY(k->open(&dev, "cpu", 0));
    if (dinov2) dinov2_build(g, &large);
    else inception_build(g, SIZE, SIZE, false);
    TRY(params_new(&w, g, k, dev));
    TRY(program_new(&p, g, k, dev, &(struct program_opts){.batch = AT_ONCE, .only = "features"}));
    float *in = program_input(p, dinov2 ? "patches" : "x");
    size_t per = graph_node_floats(g, dinov2 ? "patches" : "x");
    int64_t start = 0;
    for (int at = -AT_ONCE; at < images; at += AT_ONCE) { /* the first round packs weights and is not counted */
        if (at == 0) start = host.mono_ns();
        for (int i = 0; i < AT_ONCE; i++) {
            if (dinov2) {
                dinov2_preprocess(px, SIZE, SIZE, 3, false, chw, NULL);
                dinov2_patches(chw, in + (size_t)i * per);
            } else inception_pixels(px, SIZE, SIZE, 3, in + (size_t)i * per);
        }
        program_forward(p, w, &(struct run_ctx){0});
    }
    int counted = (images + AT_ONCE - 1) / AT_ONCE * AT_ONCE;
    printf("%.4f\n", counted / ((double)(host.mono_ns() - start) * 1e-9));
    program_free(p);
    params_free(w);
    graph_free(g);
    k->close(dev);
    return ERR_OK;
}

int main(int argc, char **argv)
{
    int images = argc > 2 ? atoi(argv[2]) : 16;
    err_t err = argc > 2 && !strcmp(argv[1], "frechet") ? bench_frechet(argv[2])
                : argc > 1 ? bench_network(!strcmp(argv[1], "dinov2"), images > 0 ? images : 4)
                           : fail(ERR_USAGE, "metrics frechet PREFIX | inception | dinov2");
    if (err) fprintf(stderr, "%s\n", err_text());
    return err ? EXIT_FAILURE : EXIT_SUCCESS;
}
