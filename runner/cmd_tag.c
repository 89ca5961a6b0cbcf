/* tag, note, rm: what people say of runs. */
#include "runner/runner.h"

/* Calls act on every run that is named. */
static err_t each_run(struct args *a, int first, err_t (*act)(struct ledger *l, const char *id, const struct args *a))
{
    struct ledger *l;
    char id[RUN_ID_TEXT];
    err_t err = ERR_OK;
    TRY(args_open_ledger(a, LEDGER_WRITE, &l));
    for (int i = first; i < a->npos && !err; i++) {
        err = ledger_resolve_run(l, a->pos[i], id);
        if (!err) err = act(l, id, a);
    }
    ledger_close(l);
    return err;
}

static err_t act_tag(struct ledger *l, const char *id, const struct args *a)
{
    return ledger_tag(l, id, a->pos[0], !args_has(a, "delete"));
}

static err_t tag_run(struct args *a)
{
    return each_run(a, 1, act_tag);
}

static const struct opt tag_opts[] = {{"delete", 'd', NULL, "take the tag off"}, OPT_LEDGER, OPT_END};
const struct command cmd_tag = {.name = "tag",
                                .args = "TAG RUN...",
                                .help = "put a word on runs, to find them by",
                                .min_pos = 2,
                                .max_pos = -1,
                                .opts = tag_opts,
                                .run = tag_run};

static err_t note_run(struct args *a)
{
    struct ledger *l;
    struct table t;
    char id[RUN_ID_TEXT];
    TRY(args_open_ledger(a, a->npos > 1 ? LEDGER_WRITE : LEDGER_READ, &l));
    err_t err = ledger_resolve_run(l, a->pos[0], id);
    if (!err && a->npos > 1) err = ledger_note(l, id, a->pos[1]);
    else if (!err) {
        err = query(l, &t, "SELECT made, text FROM v_note WHERE run = ? ORDER BY made", "s", id);
        if (!err && (t.nrows || args_has(a, "json"))) print_table(a, &t);
        if (!err) table_done(&t);
    }
    ledger_close(l);
    return err;
}

static const struct opt note_opts[] = {OPT_LEDGER, OPT_JSON, OPT_END};
const struct command cmd_note = {.name = "note",
                                 .args = "RUN [TEXT]",
                                 .help = "write a note about a run, or read what was written",
                                 .min_pos = 1,
                                 .max_pos = 2,
                                 .opts = note_opts,
                                 .run = note_run};

static err_t act_rm(struct ledger *l, const char *id, const struct args *a)
{
    return ledger_hide(l, id, !args_has(a, "undo"));
}

static err_t rm_run(struct args *a)
{
    return each_run(a, 0, act_rm);
}

static const struct opt rm_opts[] = {{"undo", 0, NULL, "show the runs again"}, OPT_LEDGER, OPT_END};
const struct command cmd_rm = {
    .name = "rm",
    .args = "RUN...",
    .help = "hide runs from lists, tables and fronts; nothing is deleted",
    .min_pos = 1,
    .max_pos = -1,
    .opts = rm_opts,
    .more = "The records stay in the ledger and the files in its run directory: `ect rm --undo RUN` shows "
            "a run again.",
    .run = rm_run};
