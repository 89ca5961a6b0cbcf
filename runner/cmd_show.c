/* show: everything the ledger knows of one run. */
#include <string.h>
#include <unistd.h>

#include "reports/report.h"
#include "runner/runner.h"

static const struct {
    const char *name, *sql;
} sections[] = {
    {"run", "SELECT * FROM v_run WHERE run = ?"},
    {"tags", "SELECT tag FROM v_tag WHERE run = ? ORDER BY tag"},
    {"notes", "SELECT made, text FROM v_note WHERE run = ? ORDER BY made"},
    {"trials", "SELECT sweep, cell, replicate, factors FROM v_trial WHERE run = ?"},
    {"settings that differ from their defaults",
     "SELECT key, text AS value, class FROM v_param WHERE run = ? AND NOT is_default ORDER BY class DESC, key"},
    {"evaluations", "SELECT metric, sampler, nfe, weights, step, value, samples, seed, substr(evaluator, 1, 12) AS "
                    "evaluator FROM v_eval"
                    " WHERE run = ? ORDER BY step, sampler, nfe, weights, metric"},
    {"segments", "SELECT segment, from_step, started FROM v_segment WHERE run = ? ORDER BY segment"},
    {"checkpoints", "SELECT step, file, substr(sha, 1, 12) AS sha, keep FROM v_checkpoint WHERE run = ? ORDER BY step"},
    {"pictures", "SELECT role, size, substr(sha, 1, 12) AS sha FROM v_artifact WHERE run = ? ORDER BY role"},
    {"provenance", "SELECT key, value FROM v_provenance WHERE run = ? AND key NOT LIKE 'function:%' ORDER BY key"},
};

/* The run's own row reads better as a list. */
static void print_row(const struct table *t, bool stale)
{
    for (int c = 0; c < t->ncols; c++) {
        const struct cell *x = table_at(t, 0, c);
        const char *text = stale && !strcmp(t->cols[c], "status") ? "stale (its process is gone)" : x->text;
        char num[NUM_TEXT];
        if (x->kind == CELL_REAL) snprintf(num, sizeof num, "%.6g", x->num), text = num;
        if (*text) printf("%-16s %s\n", t->cols[c], text);
    }
}

static err_t show_section(struct ledger *l, const char *id, size_t i, bool json, struct text *out)
{
    struct table t;
    TRY(query(l, &t, sections[i].sql, "s", id));
    struct table_style style = {
        .format = json ? "json" : NULL, .width = print_width(STDOUT_FILENO), .color = print_color()};
    if (json) {
        text_addf(out, "%s\"%s\": ", i ? ",\n" : "{", sections[i].name);
        table_print(&t, &style, out);
        while (out->len && out->s[out->len - 1] == '\n') out->s[--out->len] = 0;
    } else if (i == 0) {
        int status = table_col(&t, "status");
        print_row(&t, !strcmp(table_at(&t, 0, status)->text, "running") && !ledger_run_alive(l, id));
    } else if (t.nrows) {
        text_addf(out, "\n%s\n", sections[i].name);
        table_print(&t, &style, out);
    }
    table_done(&t);
    return ERR_OK;
}

static err_t show_run(struct args *a)
{
    struct ledger *l;
    struct text out = {0};
    char id[RUN_ID_TEXT];
    bool json = args_has(a, "json");
    TRY(args_open_ledger(a, LEDGER_READ, &l));
    err_t err = ledger_resolve_run(l, a->pos[0], id);
    for (size_t i = 0; i < ARRAY_LEN(sections) && !err; i++) err = show_section(l, id, i, json, &out);
    if (!err) {
        fputs(text_str(&out), stdout);
        if (json) puts("}");
    }
    text_done(&out);
    ledger_close(l);
    return err;
}

static const struct opt show_opts[] = {OPT_LEDGER, OPT_JSON, OPT_END};
const struct command cmd_show = {.name = "show",
                                 .args = "RUN",
                                 .help = "all that is known of a run",
                                 .min_pos = 1,
                                 .max_pos = 1,
                                 .opts = show_opts,
                                 .more =
                                     "RUN is the beginning of a run's id, as far as it is unique; @-1 is the newest.",
                                 .run = show_run};
