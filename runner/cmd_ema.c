/* ema: an average of the weights of another length than those that were trained with, from a run's snapshots. */
#include <string.h>

#include "core/ema.h"
#include "runner/runner.h"

static err_t step_option(const struct args *a, int64_t *step)
{
    *step = -1;
    return args_int(a, "step", 1, INT64_MAX, step);
}

static err_t reconstruct(struct args *a, const char *id, const char *dir)
{
    const char *text = args_get(a, "std"), *out = args_get(a, "out");
    char num[NUM_TEXT];
    double std;
    int64_t step;
    struct ema_made made;
    if (!text) return fail(ERR_USAGE, "--std is needed: the relative width of the average, such as --std 0.07");
    if (!num_parse(text, &std)) return fail(ERR_USAGE, "--std %s: not a number", text);
    TRY(step_option(a, &step));
    char *path = out ? mem_strdup(out) : mem_printf("%s-posthoc%s.safetensors", id, num_text(num, std));
    err_t err = ema_save(dir, step, std, path, args_has(a, "half"), &made);
    if (!err)
        printf("wrote %s: EMA of width %s after step %lld from %d stored averages, %.2g %% off in profile\n", path,
               num_text(num, std), (long long)made.step, made.stored, 100 * made.quality.miss);
    mem_free(path);
    return err;
}

static err_t ema_command(struct args *a)
{
    struct ledger *l;
    char id[RUN_ID_TEXT];
    TRY(args_open_ledger(a, LEDGER_READ, &l));
    err_t err = ledger_resolve_run(l, a->pos[0], id);
    if (!err) {
        char *dir = ledger_run_dir(l, id), *ckpt = mem_printf("%s/ckpt", dir);
        err = reconstruct(a, id, ckpt);
        if (err) err = fail_in(err, "run %s", id);
        mem_free(ckpt);
        mem_free(dir);
    }
    ledger_close(l);
    return err;
}

static const struct opt ema_opts[] = {{"std", 0, "STD", "relative width, 0 to 0.2886, such as 0.07"},
                                      {"out", 'o', "FILE", "where to (default: ./RUN-posthocSTD.safetensors)"},
                                      {"step", 0, "N", "the average after N steps (default: the last snapshot's)"},
                                      {"half", 0, NULL, "store float16"},
                                      OPT_LEDGER,
                                      OPT_END};
const struct command cmd_ema = {
    .name = "ema",
    .args = "RUN",
    .help = "the average of the weights over another length, made after training",
    .min_pos = 1,
    .max_pos = 1,
    .opts = ema_opts,
    .more = "A power-function EMA of any relative width from snapshots of a few others (Karras et al. 2024). It needs "
            "a run\n"
            "trained with posthoc.snapshots = 16, say, and EMAs such as { ect.ema.power{std=0.05}, "
            "ect.ema.power{std=0.1} }.\n"
            "The file holds the weights under the network's own names. To evaluate or sample them no file is needed:\n"
            "`ect eval RUN --ema posthoc:0.07`, `ect sample RUN --ema posthoc:0.07`, eval.ema = \"posthoc:0.07\" in a "
            "script.",
    .run = ema_command};
