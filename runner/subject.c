#include "runner/subject.h"

#include <string.h>

#include "kernels/kernels.h"

/* The evaluation settings that were declared with the run, so that `ect sample RUN` shows what its tables measure. */
static err_t recorded_evals(struct subject *s)
{
    struct table t;
    TRY(query(s->lab.ledger, &t, "SELECT key, text FROM v_param WHERE run = ? AND class = 'eval'", "s", s->row.id));
    err_t err = ERR_OK;
    for (int r = 0; r < t.nrows && !err; r++)
        if (spec_find(table_at(&t, r, 0)->text))
            err = spec_set(&s->spec, table_at(&t, r, 0)->text, table_at(&t, r, 1)->text);
    table_done(&t);
    return err;
}

/* "eval.churn=40": what was trained stays as it was. */
static err_t set_eval(struct subject *s, const char *text)
{
    char key[64];
    const char *eq = strchr(text, '=');
    if (!eq || (size_t)(eq - text) >= sizeof key) return fail(ERR_USAGE, "--set %s: not KEY=VALUE", text);
    snprintf(key, sizeof key, "%.*s", (int)(eq - text), text);
    const struct spec_field *f = spec_find(key);
    if (f && f->class != SPEC_EVAL)
        return fail(ERR_USAGE, "--set %s: only eval.* settings can be changed for a trained run", key);
    err_t err = spec_set(&s->spec, key, eq + 1);
    return err ? fail_in(err, "--set") : ERR_OK;
}

err_t subject_options(struct subject *s, const struct args *a)
{
    static const char *const keys[][2] = {
        {"nfe", "eval.nfe"},         {"sampler", "eval.sampler"}, {"ema", "eval.ema"},
        {"samples", "eval.samples"}, {"metrics", "eval.metrics"}, {"at", "eval.at"},
        {"seed", "eval.seed"},       {"mid-t", "eval.mid_t"},     {"labels", "eval.labels"}};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        const char *v = args_get(a, keys[i][0]);
        if (!v) continue;
        err_t err = spec_set(&s->spec, keys[i][1], v);
        if (err) return fail_in(err, "--%s", keys[i][0]);
    }
    const char **sets;
    int n = args_all(a, "set", &sets);
    err_t err = ERR_OK;
    for (int i = 0; i < n && !err; i++) err = set_eval(s, sets[i]);
    mem_free(sets);
    return err;
}

static err_t open_all(struct subject *s, struct args *a, const char *name)
{
    struct ledger *l = s->lab.ledger;
    char id[RUN_ID_TEXT], *canon = NULL;
    TRY(ledger_resolve_run(l, name, id));
    TRY(ledger_get_run(l, id, &s->row));
    s->dir = ledger_run_dir(l, id);
    s->ckpt = mem_printf("%s/ckpt", s->dir);
    TRY(ledger_get_config(l, s->row.config_hash, &canon));
    err_t err = spec_parse(&s->spec, canon);
    mem_free(canon);
    if (err) return err;
    TRY(recorded_evals(s));
    TRY(subject_options(s, a));
    TRY(lab_data_of_run(&s->lab, s->spec.data.s, id, &s->data));
    const char *device = args_get(a, "device");
    if (!device) device = s->row.device && *s->row.device ? s->row.device : "cpu";
    TRY(kernels_find(device, &s->kernels));
    TRY(s->kernels->open(&s->dev, device, 0));
    return sampling_open(&s->sampling, &s->spec, s->data, s->kernels, s->dev);
}

err_t subject_open(struct subject *s, struct args *a, const char *name, enum ledger_mode mode)
{
    struct ledger *l;
    *s = (struct subject){.dir = NULL};
    TRY(args_open_ledger(a, mode, &l));
    lab_init(&s->lab, l);
    err_t err = open_all(s, a, name);
    if (err) subject_close(s);
    return err;
}

void subject_close(struct subject *s)
{
    sampling_close(&s->sampling);
    if (s->dev) s->kernels->close(s->dev);
    ledger_run_done(&s->row);
    lab_done(&s->lab);
    mem_free(s->dir);
    mem_free(s->ckpt);
    *s = (struct subject){.dir = NULL};
}
