#include "runner/study.h"

#include <jansson.h>
#include <string.h>

#include "kernels/kernels.h"
#include "runner/sched.h"

/* A missing device must be said before anything is written. */
static err_t check_device(const char *spec)
{
    const struct kernels *k;
    return spec ? kernels_find(spec, &k) : ERR_OK;
}

static int lost_evals(const struct plan *p)
{
    int n = 0;
    for (int i = 0; i < p->njobs; i++) n += p->jobs[i].evals_lost;
    return n;
}

static void summary_json(const struct plan *p, const struct sched_result *r)
{
    json_t *o = json_pack("{s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:b}", "runs", p->njobs, "done", plan_count(p, JOB_FINISHED),
                          "failed", plan_count(p, JOB_FAILED), "diverged", plan_count(p, JOB_DIVERGED), "blocked",
                          plan_count(p, JOB_BLOCKED), "evals_lost", lost_evals(p), "started", r->started, "interrupted",
                          r->interrupted);
    json_dumpf(o, stdout, JSON_INDENT(1));
    putchar('\n');
    json_decref(o);
}

static void print_bad(const struct plan *p, enum job_state s, const char *word)
{
    for (int i = 0; i < p->njobs; i++) {
        const struct job *j = &p->jobs[i];
        const struct script_cell *c = plan_cell(p, j);
        if (j->state == s)
            printf("  %-8s %s  %s, %s #%d%s%s\n", word, j->id, c->sweep, c->cell, j->replicate, j->reason ? ": " : "",
                   j->reason ? j->reason : "");
    }
}

static void summary_print(const struct plan *p, const struct sched_result *r, const char *ledger)
{
    int done = plan_count(p, JOB_FINISHED), bad = p->njobs - done;
    if (r->interrupted) {
        printf("stopped: %d of %d runs done; the same command goes on from the checkpoints\n", done, p->njobs);
        return;
    }
    if (!r->started && !bad) printf("nothing to do: %d run%s done (%s)\n", done, done == 1 ? "" : "s", ledger);
    else if (!r->started) printf("nothing to do: %d of %d runs done (%s)\n", done, p->njobs, ledger);
    else printf("%d of %d runs done (%s)\n", done, p->njobs, ledger);
    print_bad(p, JOB_FAILED, "failed");
    print_bad(p, JOB_DIVERGED, "diverged");
    print_bad(p, JOB_BLOCKED, "blocked");
    for (int i = 0; i < p->njobs; i++)
        if (p->jobs[i].evals_lost)
            printf("  %d evaluations of run %s need a checkpoint that was not kept; only a new run could give them\n",
                   p->jobs[i].evals_lost, p->jobs[i].id);
}

static err_t run_plan(struct args *a, struct plan *p, const char *name, const char *const *sets, int nsets, int jobs)
{
    struct sched_opts o = {.jobs = jobs,
                           .device = args_get(a, "device"),
                           .fail_fast = args_has(a, "fail-fast"),
                           .quiet = args_has(a, "quiet")};
    struct sched_result r;
    TRY(plan_write(p, name, sets, nsets));
    TRY(plan_read(p));
    TRY(sched_run(p, &o, &r));
    if (args_has(a, "json")) summary_json(p, &r);
    else summary_print(p, &r, ledger_path(p->lab->ledger));
    int done = plan_count(p, JOB_FINISHED);
    a->status = r.interrupted ? 75 : done < p->njobs || lost_evals(p) ? 3 : 0;
    return ERR_OK;
}

err_t study_run(struct args *a, const char *script, const char *recipe)
{
    bool dry = args_has(a, "dry-run");
    int64_t jobs = 0;
    const char **sets;
    struct ledger *l = NULL;
    struct lab lab;
    struct plan plan = {.njobs = 0};
    TRY(args_int(a, "jobs", 1, 256, &jobs));
    TRY(check_device(args_get(a, "device")));
    int nsets = args_all(a, "set", &sets);
    lab_init(&lab, NULL);
    lab.shapes = dry;
    err_t err =
        script ? plan_open(&plan, &lab, script, sets, nsets) : plan_open_recipe(&plan, &lab, recipe, sets, nsets);
    if (!err && (!dry || file_exists(args_ledger(a))))
        err = ledger_open(&l, args_ledger(a), dry ? LEDGER_READ : LEDGER_CREATE);
    if (!err) {
        lab.ledger = l;
        plan.look_only = dry;
        char *name = script ? mem_strdup(script) : mem_printf("recipe:%s", recipe); /* as script_recipe calls it */
        if (!dry) err = run_plan(a, &plan, name, sets, nsets, (int)jobs);
        else err = plan_read(&plan);
        if (!err && dry) err = preview_print(&plan, (int)jobs, args_has(a, "json"));
        mem_free(name);
    }
    plan_close(&plan);
    lab_done(&lab);
    mem_free(sets);
    return err;
}
