/* ledger: looking after the file that remembers everything. */
#include <string.h>

#include "runner/runner.h"

static err_t nothing_more(const struct args *a, int n, const char *usage)
{
    return a->npos == n ? ERR_OK : fail(ERR_USAGE, "usage: ect ledger %s", usage);
}

static err_t check(struct args *a)
{
    struct ledger *l;
    struct text bad = {0};
    struct table t;
    TRY(nothing_more(a, 1, "check [--migrate]"));
    TRY(args_open_ledger(a, args_has(a, "migrate") ? LEDGER_WRITE : LEDGER_READ, &l));
    text_add(&bad, "");
    err_t err = ledger_check(l, &bad);
    if (!err && bad.len) {
        fputs(text_str(&bad), stdout);
        err = fail(ERR_FORMAT, "ledger %s is damaged: keep a copy and try `sqlite3 FILE .recover`", args_ledger(a));
    }
    if (!err)
        err =
            query(l, &t,
                  "SELECT (SELECT count(*) FROM run) AS runs, (SELECT count(*) FROM eval) AS evaluations, "
                  "(SELECT count(*) FROM point) + (SELECT ifnull(sum(points), 0) FROM chunk) AS points, "
                  "(SELECT user_version FROM pragma_user_version) AS schema, page_count * page_size / 1000000.0 AS MB "
                  "FROM pragma_page_count, pragma_page_size",
                  "");
    if (!err) {
        if (!args_has(a, "json")) printf("ledger %s is sound\n", args_ledger(a));
        print_table(a, &t);
        table_done(&t);
    }
    text_done(&bad);
    ledger_close(l);
    return err;
}

static err_t backup(struct args *a)
{
    struct ledger *l;
    TRY(nothing_more(a, 2, "backup FILE"));
    TRY(args_open_ledger(a, LEDGER_READ, &l));
    err_t err = ledger_backup(l, a->pos[1]);
    if (!err) printf("wrote %s: the ledger without the files of its runs\n", a->pos[1]);
    ledger_close(l);
    return err;
}

static err_t vacuum(struct args *a)
{
    struct ledger *l;
    TRY(nothing_more(a, 1, "vacuum"));
    TRY(args_open_ledger(a, LEDGER_WRITE, &l));
    err_t err = ledger_vacuum(l);
    ledger_close(l);
    return err;
}

static err_t merge(struct args *a)
{
    struct ledger *l;
    err_t err = ERR_OK;
    if (a->npos < 2) return fail(ERR_USAGE, "usage: ect ledger merge FILE...");
    TRY(args_open_ledger(a, LEDGER_CREATE, &l));
    for (int i = 1; i < a->npos && !err; i++) {
        struct ledger_merge m;
        err = ledger_merge(l, a->pos[i], &m);
        if (err) break;
        printf("%s: %lld runs, %lld of them new or further than here\n", a->pos[i], (long long)m.runs,
               (long long)m.taken);
        if (m.run_conflicts)
            log_warn("%s: %lld runs are done in both ledgers with other results: another program, library or number of "
                     "threads? "
                     "The one with more steps and attempts was kept",
                     a->pos[i], (long long)m.run_conflicts);
        if (m.eval_conflicts)
            log_warn("%s: %lld evaluations have another value there: the earlier ones were kept", a->pos[i],
                     (long long)m.eval_conflicts);
    }
    ledger_close(l);
    return err;
}

static err_t ledger_command(struct args *a)
{
    static const struct {
        const char *name;
        err_t (*run)(struct args *a);
    } verbs[] = {{"check", check}, {"backup", backup}, {"vacuum", vacuum}, {"merge", merge}};
    const char *names[ARRAY_LEN(verbs)];
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        if (!strcmp(a->pos[0], verbs[i].name)) return verbs[i].run(a);
        names[i] = verbs[i].name;
    }
    const char *near = nearest_name(a->pos[0], names, ARRAY_LEN(names));
    return fail(ERR_USAGE, "ect ledger has no '%s'%s%s (there are check, backup, vacuum, merge)", a->pos[0],
                near ? "; did you mean " : "", near ? near : "");
}

static const struct opt ledger_opts[] = {
    {"migrate", 0, NULL, "check: bring an older ledger up to date first"}, OPT_LEDGER, OPT_JSON, OPT_END};
const struct command cmd_ledger = {
    .name = "ledger",
    .args = "check | backup FILE | vacuum | merge FILE...",
    .help = "check, back up, shrink the ledger, or merge others into it",
    .min_pos = 1,
    .max_pos = -1,
    .opts = ledger_opts,
    .more = "merge brings the runs of other ledgers into this one (made if it is not there): of a run that both have, "
            "the one that\n"
            "went further is kept; evaluations are united. Merging twice changes nothing. The files of runs, in the "
            "directory\n"
            "FILE.runs beside a ledger, are copied by hand: `cp -rn other.runs/. ect.runs/`.\n"
            "backup takes a complete copy while others write; never copy a ledger that is in use with cp.",
    .run = ledger_command};
