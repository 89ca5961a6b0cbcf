/* diff: what differs between two runs: settings and where they come from. */
#include "runner/runner.h"

static const char diff_sql[] = "WITH a AS (SELECT class || '' AS kind, key, text AS value FROM v_param WHERE run = ?1"
                               "   UNION ALL SELECT 'run', 'replicate', '' || replicate FROM v_run WHERE run = ?1"
                               "   UNION ALL SELECT 'run', 'parent', parent FROM v_run WHERE run = ?1"
                               "   UNION ALL SELECT 'provenance', key, value FROM v_provenance WHERE run = ?1 AND key "
                               "NOT LIKE 'function:%'),"
                               " b AS (SELECT class || '' AS kind, key, text AS value FROM v_param WHERE run = ?2"
                               "   UNION ALL SELECT 'run', 'replicate', '' || replicate FROM v_run WHERE run = ?2"
                               "   UNION ALL SELECT 'run', 'parent', parent FROM v_run WHERE run = ?2"
                               "   UNION ALL SELECT 'provenance', key, value FROM v_provenance WHERE run = ?2 AND key "
                               "NOT LIKE 'function:%'),"
                               " k AS (SELECT kind, key FROM a UNION SELECT kind, key FROM b)"
                               " SELECT k.kind, k.key, a.value AS first, b.value AS second FROM k LEFT JOIN a USING "
                               "(kind, key) LEFT JOIN b USING (kind, key)"
                               " WHERE a.value IS NOT b.value"
                               " ORDER BY CASE k.kind WHEN 'train' THEN 0 WHEN 'eval' THEN 1 WHEN 'exec' THEN 2 WHEN "
                               "'run' THEN 3 ELSE 4 END, k.key";

static err_t diff_run(struct args *a)
{
    struct ledger *l;
    struct table t;
    char x[RUN_ID_TEXT], y[RUN_ID_TEXT];
    TRY(args_open_ledger(a, LEDGER_READ, &l));
    err_t err = ledger_resolve_run(l, a->pos[0], x);
    if (!err) err = ledger_resolve_run(l, a->pos[1], y);
    if (!err) err = query(l, &t, diff_sql, "ss", x, y);
    if (!err) {
        if (t.nrows || args_has(a, "json")) print_table(a, &t);
        else printf("%s and %s do not differ in settings or provenance\n", x, y);
        table_done(&t);
    }
    ledger_close(l);
    return err;
}

static const struct opt diff_opts[] = {OPT_LEDGER, OPT_JSON, OPT_END};
const struct command cmd_diff = {.name = "diff",
                                 .args = "RUN RUN",
                                 .help = "settings and provenance in which two runs differ",
                                 .min_pos = 2,
                                 .max_pos = 2,
                                 .opts = diff_opts,
                                 .run = diff_run};
