/* ls: the runs of a ledger. "running" is said only of a run whose lock somebody holds. */
#include <stdlib.h>
#include <string.h>

#include "runner/runner.h"

static const char list_sql[] =
    "SELECT run, sweep, cell, replicate AS rep, status,"
    " CASE WHEN step < iters THEN step || '/' || iters ELSE '' || step END AS step,"
    " (SELECT last FROM v_summary m WHERE m.run = r.run AND m.key = 'loss') AS loss,"
    " (SELECT group_concat(x, ' ') FROM (SELECT metric || '@' || CASE sampler WHEN 'ect' THEN '' ELSE sampler END"
    "   || nfe || '=' || CASE WHEN value IS NULL THEN 'nan' ELSE printf('%.3g', value) END AS x, max(samples)"
    "   FROM v_eval e WHERE e.run = r.run AND e.step = r.iters GROUP BY metric, sampler, nfe"
    "   ORDER BY metric DESC, sampler, nfe LIMIT 2))"
    "   AS metrics, started"
    " FROM v_run r WHERE (?1 IS NULL OR sweep = ?1) AND (?2 IS NULL OR status = ?2)"
    " AND (?4 IS NULL OR run IN (SELECT run FROM v_tag WHERE tag = ?4)) ORDER BY started DESC, sweep, "
    "cell, replicate"
    " LIMIT ?3";

/* A worker that was killed leaves "running" behind until somebody looks: here that is said, not believed. */
static void tell_truth(struct ledger *l, struct table *t)
{
    int id = table_col(t, "run"), status = table_col(t, "status");
    for (int r = 0; r < t->nrows; r++) {
        struct cell *c = &t->cells[(size_t)r * (size_t)t->ncols + (size_t)status];
        if (strcmp(c->text, "running") || ledger_run_alive(l, table_at(t, r, id)->text)) continue;
        c->text = "stale";
        c->bytes = strlen(c->text);
    }
}

/* A word that no run can have is a slip of the pen, not an empty answer. */
static err_t check_words(const struct args *a, struct ledger *l)
{
    const struct {
        const char *opt, *sql;
    } words[] = {
        {"sweep", "SELECT DISTINCT sweep FROM v_sweep"}, {"tag", "SELECT DISTINCT tag FROM v_tag"}, {"status", NULL}};
    err_t err = ERR_OK;
    for (size_t i = 0; i < ARRAY_LEN(words) && !err; i++) {
        const char *want = args_get(a, words[i].opt), *names[64];
        struct table t = {0};
        size_t n = 0;
        bool there = !want;
        if (!want) continue;
        if (words[i].sql) TRY(query(l, &t, words[i].sql, ""));
        else
            for (int s = RUN_PENDING; s <= RUN_BLOCKED; s++) names[n++] = run_status_name((enum run_status)s);
        for (int r = 0; r < t.nrows; r++) {
            there |= !strcmp(want, table_at(&t, r, 0)->text);
            if (n < ARRAY_LEN(names)) names[n++] = table_at(&t, r, 0)->text;
        }
        for (size_t k = 0; k < n; k++) there |= !strcmp(want, names[k]);
        const char *near = there ? NULL : nearest_name(want, names, n);
        if (!there)
            err =
                fail(ERR_USAGE, "no %s '%s'%s%s", words[i].opt, want, near ? "; did you mean " : "", near ? near : "");
        table_done(&t);
    }
    return err;
}

static err_t ls_run(struct args *a)
{
    struct ledger *l;
    struct table t;
    int64_t limit = 50;
    TRY(args_int(a, "limit", 0, INT64_MAX, &limit));
    TRY(args_open_ledger(a, LEDGER_READ, &l));
    err_t err = check_words(a, l);
    if (!err)
        err = query(l, &t, list_sql, "ssis", args_get(a, "sweep"), args_get(a, "status"), limit ? limit : -1,
                    args_get(a, "tag"));
    if (!err) {
        tell_truth(l, &t);
        if (t.nrows || args_has(a, "json")) print_table(a, &t);
        else printf("no runs in %s\n", args_ledger(a));
        table_done(&t);
    }
    ledger_close(l);
    return err;
}

static const struct opt ls_opts[] = {
    {"sweep", 0, "NAME", "only of this sweep"},
    {"status", 0, "STATUS", "only these: pending, running, done, failed, diverged, ..."},
    {"tag", 0, "TAG", "only these (ect tag)"},
    {"limit", 'n', "N", "at most N, newest first (50; 0: all)"},
    OPT_LEDGER,
    OPT_JSON,
    OPT_END};
const struct command cmd_ls = {.name = "ls",
                               .args = "",
                               .help = "runs, their state and first numbers",
                               .opts = ls_opts,
                               .more = "Metrics: of the evaluation with the most samples.",
                               .run = ls_run};
