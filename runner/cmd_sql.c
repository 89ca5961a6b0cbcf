/* sql: one SELECT on the ledger, read-only. */
#include <unistd.h>

#include "reports/report.h"
#include "runner/runner.h"

static err_t sql_run(struct args *a)
{
    struct ledger *l;
    struct table t;
    struct text out = {0};
    int64_t seconds = 60;
    TRY(args_int(a, "timeout", 0, 1000000, &seconds));
    TRY(args_open_ledger(a, LEDGER_READ, &l));
    err_t err = query_user(l, &t, a->pos[0], (double)seconds);
    if (!err) {
        struct table_style style = {.format = args_has(a, "json")  ? "json"
                                              : args_has(a, "csv") ? "csv"
                                                                   : NULL,
                                    .width = print_width(STDOUT_FILENO),
                                    .color = print_color(),
                                    .exact = true};
        table_print(&t, &style, &out);
        fputs(text_str(&out), stdout);
        table_done(&t);
    }
    text_done(&out);
    ledger_close(l);
    return err;
}

static const struct opt sql_opts[] = {{"csv", 0, NULL, "print CSV"},
                                      {"timeout", 0, "SECONDS", "give up after (60; 0: never)"},
                                      OPT_LEDGER,
                                      OPT_JSON,
                                      OPT_END};
const struct command cmd_sql = {.name = "sql",
                                .args = "SELECT",
                                .help = "one SELECT on the ledger, read-only",
                                .min_pos = 1,
                                .max_pos = 1,
                                .opts = sql_opts,
                                .more = "The views v_run, v_eval, v_metric, v_param, v_trial, v_sweep, v_control, "
                                        "v_artifact, v_provenance, v_segment and\n"
                                        "v_checkpoint are stable; `ect sql \"SELECT sql FROM sqlite_schema WHERE type "
                                        "= 'view'\"` shows them with notes.",
                                .run = sql_run};
