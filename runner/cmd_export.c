/* export: the weights of a run as a file for other programs. */
#include <string.h>

#include "core/export.h"
#include "core/train.h"
#include "runner/subject.h"

static err_t write_out(struct subject *s, const struct args *a, const char *out)
{
    const char *weights = args_get(a, "weights");
    struct net_config net;
    int64_t step = -1;
    char *ckpt = NULL;
    if (!weights) weights = s->spec.eval_ema.s;
    TRY(args_int(a, "step", 1, INT64_MAX, &step));
    TRY(train_net_config(&s->spec, s->data, &net));
    TRY(sampling_load(&s->sampling, s->ckpt, step, weights));
    TRY(train_find_checkpoint(s->ckpt, step, &ckpt, &step));
    mem_free(ckpt);
    struct export_about about = {.net = &net, .spec = &s->spec, .run = s->row.id, .weights = weights, .step = step};
    TRY(export_weights(out, s->sampling.graph, s->sampling.params, &about));
    printf("wrote %s: weights %s of run %s after step %lld, %d tensors\n", out, weights, s->row.id, (long long)step,
           graph_nparams(s->sampling.graph));
    return ERR_OK;
}

static err_t export_run(struct args *a)
{
    struct subject s;
    const char *out = a->npos > 1 ? a->pos[1] : NULL;
    size_t n = out ? strlen(out) : 0;
    if (out && (n < 13 || strcmp(out + n - 12, ".safetensors")))
        return fail(ERR_USAGE,
                    "%s: weights are written as .safetensors, which PyTorch reads with safetensors.torch.load_file",
                    out);
    TRY(subject_open(&s, a, a->pos[0], LEDGER_READ));
    char *made = out ? mem_strdup(out) : mem_printf("%s.safetensors", s.row.id);
    err_t err = write_out(&s, a, made);
    mem_free(made);
    subject_close(&s);
    return err;
}

static const struct opt export_opts[] = {
    {"weights", 0, "NAME", "raw, an EMA's name, or posthoc:STD (default: what the run evaluates)"},
    {"step", 0, "N", "of that step's checkpoint (default: the newest)"},
    {"device", 0, "NAME", "cpu, cpu-portable, cuda:N"},
    OPT_LEDGER,
    OPT_END};
const struct command cmd_export = {
    .name = "export",
    .args = "RUN [OUT.safetensors]",
    .help = "a run's weights for PyTorch, under the published names",
    .min_pos = 1,
    .max_pos = 2,
    .opts = export_opts,
    .more = "The file holds the state_dict of the published module: parameters and buffers, float32. Its metadata\n"
            "say how to make the module (\"config\") and with which settings it was trained (\"spec\").",
    .run = export_run};
