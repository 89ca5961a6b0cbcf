/* report: tables and figures of a sweep. */
#include <string.h>
#include <unistd.h>

#include "reports/report.h"
#include "runner/runner.h"

/* "x.html" -> "html"; the names of the formats are the usual endings. */
static const char *format_of(const struct args *a, const char *out)
{
    static const char *const known[] = {"html", "md", "tex", "csv", "json"};
    const char *given = args_get(a, "format"), *dot = out ? strrchr(out, '.') : NULL;
    if (given) return given;
    if (args_has(a, "json")) return "json";
    for (size_t i = 0; dot && i < ARRAY_LEN(known); i++)
        if (!strcmp(dot + 1, known[i])) return known[i];
    return out ? "md" : "term";
}

/* Is the file still what the ledger says? */
static err_t check_file(struct args *a, const char *path, const struct text *t)
{
    char *old;
    size_t n;
    TRY(file_read(path, 0, &old, &n));
    bool same = n == t->len && !memcmp(old, text_str(t), n);
    mem_free(old);
    printf("%s is %s\n", path, same ? "up to date" : "stale");
    if (!same) a->status = 4;
    return ERR_OK;
}

static err_t report_run(struct args *a)
{
    struct ledger *l;
    struct text t = {0};
    const char *out = args_get(a, "out"), *check = args_get(a, "check");
    struct report_opts o = {
        .name = a->npos ? a->pos[0] : NULL, .sweep = args_get(a, "sweep"), .format = format_of(a, out ? out : check)};
    if (!out && !check) {
        o.width = print_width(STDOUT_FILENO);
        o.color = print_color();
    }
    TRY(args_open_ledger(a, LEDGER_READ, &l));
    err_t err = report_render(l, &o, &t);
    if (!err && check) err = check_file(a, check, &t);
    else if (!err && out) err = file_write_atomic(out, text_str(&t), t.len);
    else if (!err) fwrite(text_str(&t), 1, t.len, stdout);
    if (!err && out && !check) printf("wrote %s\n", out);
    text_done(&t);
    ledger_close(l);
    return err;
}

static const struct opt report_opts_list[] = {{"sweep", 0, "NAME", "which sweep (default: the newest)"},
                                              {"format", 'f', "FORMAT", "term, md, tex, csv, json, html"},
                                              {"out", 'o', "FILE", "write there; the ending says the format"},
                                              {"check", 0, "FILE", "exit 4 if FILE is not what would be written now"},
                                              OPT_LEDGER,
                                              OPT_JSON,
                                              OPT_END};
const struct command cmd_report = {.name = "report",
                                   .args = "[NAME]",
                                   .help = "tables and figures of a sweep",
                                   .max_pos = 1,
                                   .opts = report_opts_list,
                                   .run = report_run};
