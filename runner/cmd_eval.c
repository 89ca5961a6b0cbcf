/* eval: adds evaluations to a trained run. */
#include <string.h>
#include <unistd.h>

#include "runner/eval_add.h"
#include "runner/subject.h"

static err_t print_values(struct args *a, struct subject *s, const struct eval_list *l)
{
    struct text list = {0};
    struct table t;
    for (int i = 0; i < l->n; i++) text_addf(&list, "%s'%s'", i ? ", " : "", l->v[i].sha);
    char *sql = mem_printf("SELECT metric, sampler, nfe, weights, step, value, samples, seed FROM v_eval WHERE run = ? "
                           "AND evaluator IN (%s)"
                           " AND weights = ? ORDER BY step, sampler, nfe, metric",
                           text_str(&list));
    err_t err = query(s->lab.ledger, &t, sql, "ss", s->row.id, l->n ? l->v[0].weights : "");
    if (!err) {
        print_table(a, &t);
        table_done(&t);
    }
    mem_free(sql);
    text_done(&list);
    return err;
}

static void show_samples(void *ctx, int64_t done, int64_t total)
{
    (void)ctx;
    fprintf(stderr, "\r%lld of %lld samples%s", (long long)done, (long long)total, done == total ? "\n" : "");
}

static err_t evaluate(struct args *a, struct subject *s)
{
    struct eval_list all = {.n = 0}, missing = {.n = 0};
    err_t err = eval_list_add(&all, &s->spec, &s->spec, s->data);
    if (!err) err = eval_list_add(&missing, &s->spec, &s->spec, s->data);
    if (!err) {
        eval_list_missing(&missing, s->lab.ledger, s->row.id);
        struct eval_watch watch = {.ctx = NULL};
        if (isatty(STDERR_FILENO)) watch.samples = show_samples;
        err = evals_run(&s->lab, &s->sampling, s->row.id, &missing, &watch);
    }
    if (!err) err = controls_run(&s->lab, s->sampling.eval, s->data, &all);
    if (!err) err = print_values(a, s, &all);
    eval_list_done(&all);
    eval_list_done(&missing);
    return err;
}

static err_t add_command(struct args *a)
{
    struct ledger *l;
    char id[RUN_ID_TEXT];
    int added = 0;
    const char *evaluator = args_get(a, "evaluator");
    if (a->npos != 3 || !evaluator)
        return fail(ERR_USAGE, "usage: ect eval add RUN --evaluator NAME --json RESULTS.json");
    TRY(args_open_ledger(a, LEDGER_WRITE, &l));
    err_t err = ledger_resolve_run(l, a->pos[1], id);
    if (!err) err = eval_add(l, id, evaluator, a->pos[2], &added);
    if (!err) printf("added %d evaluations by %s to run %s\n", added, evaluator, id);
    ledger_close(l);
    return err;
}

static err_t eval_command(struct args *a)
{
    struct subject s;
    if (!strcmp(a->pos[0], "add")) return add_command(a);
    if (a->npos > 1)
        return fail(ERR_USAGE, "usage: ect eval RUN, or ect eval add RUN --evaluator NAME --json RESULTS.json");
    TRY(subject_open(&s, a, a->pos[0], LEDGER_WRITE));
    err_t err = s.row.status == RUN_DONE ? evaluate(a, &s)
                                         : fail(ERR_USAGE, "run %s is %s: only finished runs are evaluated", s.row.id,
                                                run_status_name(s.row.status));
    subject_close(&s);
    return err;
}

static const struct opt eval_opts[] = {
    {"metrics", 0, "LIST", "such as fid,fd_dinov2,fd_random (below)"},
    {"nfe", 0, "LIST", "network evaluations per image, such as 1,2"},
    {"samples", 0, "N", "generated images"},
    {"sampler", 0, "NAME", "ect, heun, euler, dpmpp-2m, ... (eval.sampler in ect help settings)"},
    {"ema", 0, "NAME", "raw, an EMA's name, or posthoc:STD"},
    {"at", 0, "LIST", "when: percentages of the run, or steps"},
    {"seed", 0, "N", "block of sample seeds"},
    {"mid-t", 0, "T,...", "noise levels of steps 2, 3, ..."},
    {"labels", 0, "POLICY", "data, uniform, balanced, class:K or none"},
    {"set", 0, "KEY=VALUE", "another eval.* setting, such as eval.churn=40 (may be repeated)"},
    {"device", 0, "NAME", "cpu, cpu-portable, cuda:N"},
    {"evaluator", 0, "NAME", "add: the tool that measured, with its version"},
    OPT_LEDGER,
    OPT_JSON,
    OPT_END};
const struct command cmd_eval = {
    .name = "eval",
    .args = "RUN | add RUN FILE",
    .help = "evaluate a trained run further, or record what another tool measured",
    .min_pos = 1,
    .max_pos = 3,
    .opts = eval_opts,
    .more =
        "What is not given is as in the run's own evaluation settings. Values that the ledger has are not\n"
        "computed again; a pass that was cut short goes on where it was.\n"
        "Metrics: fid (fid:pytorch, fid:nvidia), and fd, kd, precision, recall, density, coverage in a feature\n"
        "space: fd_dinov2, kd_random, precision_dinov2; spaces are pixel, random, inception, dinov2 (dinov2-vits14,\n"
        "-vitb14, -vitl14, -vitg14). :n divides covariances by N (fid:n), :k3 takes 3 neighbours. Of points: energy, "
        "sw2.\n"
        "add records numbers of other tools under an evaluator of their own, which no table mixes with ours. The file "
        "holds an\n"
        "object or a list of them: {\"metric\": \"fid\", \"value\": 2.15, \"nfe\": 2, \"samples\": 50000}, and perhaps "
        "sampler,\n"
        "weights, seed and step.",
    .run = eval_command};
