/* Times one ECT training step of a digits-shaped network (width 32, batch 128): the settings that peer_step.py runs too.
 * Usage: step THREADS STEPS [SETTING=VALUE ...]. Prints one line a step: milliseconds. The first steps, in which memory is touched for
 * the first time, are left out. */
#include <stdlib.h>
#include <string.h>

#include "core/train.h"
#include "lua/script.h"

enum { WARM = 5 };
static int64_t last;
static int nth;

/* Asked before every step, so the time between two calls is one step with everything that belongs to it. */
static bool between_steps(void *ctx)
{
    (void)ctx;
    int64_t now = host.mono_ns();
    if (nth++ > WARM) printf("%.3f\n", (double)(now - last) / 1e6);
    last = now;
    return false;
}

static err_t bench(int threads, const char *const *sets, int nsets)
{
    struct script *script;
    TRY(script_recipe(&script, "digits-ect", sets, nsets, NULL));
    const struct script_cell *cell = script_cell_at(script, 0);
    struct design design;
    TRY(script_design(script, 0, &design));
    struct dataset *data;
    TRY(dataset_open(&data, cell->spec.data.s));
    const struct kernels *k;
    TRY(kernels_find("cpu", &k));
    struct kdev *dev;
    TRY(k->open(&dev, "cpu", threads));
    struct observer observer = {.stop = between_steps};
    struct train_config config = {.spec = &cell->spec,
                                  .design = &design,
                                  .data = data,
                                  .kernels = k,
                                  .dev = dev,
                                  .seed = 1,
                                  .observer = &observer};
    struct train_result result;
    TRY(train_run(&config, &result));
    fprintf(stderr, "%s; %.3g GFLOP/s over all\n", k->describe(dev), result.flops_executed / result.seconds / 1e9);
    k->close(dev);
    dataset_free(data);
    script_close(script);
    return ERR_OK;
}

int main(int argc, char **argv)
{
    if (argc < 3) return 2;
    const char *sets[32] = {"net.width=32", "net.mult=1,2", "net.blocks=1", "net.attn=4", "batch=128", "dropout=0.1"};
    int n = 6;
    sets[n++] = mem_printf("iters=%d", atoi(argv[2]) + WARM);
    for (int i = 3; i < argc && n < 32; i++) sets[n++] = argv[i];
    if (bench(atoi(argv[1]), sets, n)) {
        fprintf(stderr, "step: %s\n", err_text());
        return 1;
    }
    return 0;
}
