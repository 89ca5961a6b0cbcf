/* eval_add: numbers that another tool measured, under that tool's own identity: they never meet ours in a comparison, since their
 * evaluator is another one. */
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "runner/eval_add.h"

struct outside {
    const char *metric, *sampler, *weights;
    double value;
    json_int_t nfe, samples, seed, step;
};

static err_t bad(const char *file, size_t i, const char *what)
{
    return fail(ERR_FORMAT, "%s: entry %zu: %s", file, i + 1, what);
}

static err_t read_entry(const char *file, size_t i, json_t *o, int64_t iters, struct outside *e)
{
    static const char *const known[] = {"metric", "value", "nfe", "samples", "sampler", "weights", "seed", "step"};
    const char *key, *missing = "needs \"metric\" (text), \"value\", \"nfe\" and \"samples\" (numbers)";
    json_t *v;
    if (!json_is_object(o)) return bad(file, i, "not an object");
    json_object_foreach(o, key, v)
    {
        bool there = false;
        for (size_t k = 0; k < ARRAY_LEN(known); k++) there |= !strcmp(key, known[k]);
        const char *near = there ? NULL : nearest_name(key, known, ARRAY_LEN(known));
        if (!there)
            return fail(ERR_FORMAT, "%s: entry %zu: unknown key \"%s\"%s%s", file, i + 1, key,
                        near ? "; did you mean " : "", near ? near : "");
    }
    *e = (struct outside){.sampler = "ect", .weights = "raw", .step = iters};
    v = json_object_get(o, "value");
    if (!json_is_number(v)) return bad(file, i, missing);
    e->value = json_number_value(v);
    json_t *nfe = json_object_get(o, "nfe"), *samples = json_object_get(o, "samples"), *x;
    e->metric = json_string_value(json_object_get(o, "metric"));
    if (!e->metric || !*e->metric || !json_is_integer(nfe) || !json_is_integer(samples)) return bad(file, i, missing);
    e->nfe = json_integer_value(nfe);
    e->samples = json_integer_value(samples);
    if (e->nfe < 1 || e->samples < 1) return bad(file, i, "nfe and samples must be at least 1");
    if ((x = json_object_get(o, "sampler")) && !(e->sampler = json_string_value(x)))
        return bad(file, i, "sampler must be text");
    if ((x = json_object_get(o, "weights")) && !(e->weights = json_string_value(x)))
        return bad(file, i, "weights must be text");
    if ((x = json_object_get(o, "seed"))) e->seed = json_integer_value(x);
    if ((x = json_object_get(o, "step"))) e->step = json_integer_value(x);
    if (e->step < 0 || e->step > iters) return bad(file, i, "step is not one of the run");
    return ERR_OK;
}

static err_t put_entry(struct ledger *l, const struct ledger_run *run, const char *evaluator, const struct outside *e)
{
    struct text canon = {0};
    char sha[SHA256_TEXT];
    text_addf(&canon, "metric=%s\nevaluator=%s (outside ect)\nsampler=%s\nnfe=%lld\nsamples=%lld\nseed=%lld\n",
              e->metric, evaluator, e->sampler, (long long)e->nfe, (long long)e->samples, (long long)e->seed);
    sha256_text(canon.s, canon.len, sha);
    struct ledger_eval row = {.run_id = run->id,
                              .weights = e->weights,
                              .step = e->step,
                              .evaluator_sha = sha,
                              .evaluator_canon = text_str(&canon),
                              .metric = e->metric,
                              .sampler = e->sampler,
                              .nfe = (int)e->nfe,
                              .samples = e->samples,
                              .seed = (uint64_t)e->seed,
                              .value = e->value};
    err_t err = ledger_put_eval(l, &row);
    text_done(&canon);
    return err;
}

err_t eval_add(struct ledger *l, const char *run_id, const char *evaluator, const char *file, int *added)
{
    struct ledger_run run;
    json_error_t where;
    *added = 0;
    if (!*evaluator || strchr(evaluator, '\n'))
        return fail(ERR_USAGE, "--evaluator: one line that names the tool and its version");
    json_t *root = json_load_file(file, JSON_REJECT_DUPLICATES, &where);
    if (!root) return fail(ERR_FORMAT, "%s:%d: %s", file, where.line, where.text);
    err_t err = ledger_get_run(l, run_id, &run);
    size_t n = json_is_array(root) ? json_array_size(root) : 1;
    if (!err) err = ledger_begin(l);
    if (!err) {
        for (size_t i = 0; i < n && !err; i++) {
            struct outside e = {0};
            err = read_entry(file, i, json_is_array(root) ? json_array_get(root, i) : root, run.iters, &e);
            if (!err) err = put_entry(l, &run, evaluator, &e);
        }
        if (err) ledger_rollback(l);
        else err = ledger_commit(l);
    }
    if (!err) *added = (int)n;
    ledger_run_done(&run);
    json_decref(root);
    return err;
}
