/* report: finds the definition, runs it, prints its blocks. Names are looked up in ./reports first, so a project can replace any
 * report without touching the program. */
#include "reports/report.h"

#include <string.h>

#include "reports/block.h"

/* reports/report*.lua serve the others and are no reports themselves. */
static bool is_library(const char *name)
{
    return !strcmp(name, "report") || !strncmp(name, "report_", 7);
}

const char *report_file(struct report *r, const char *file)
{
    char *path = arena_printf(&r->mem, "reports/%s", file);
    char *data;
    size_t n;
    if (file_exists(path) && !file_read(path, 1 << 24, &data, &n)) {
        const char *mine = arena_strdup(&r->mem, data);
        mem_free(data);
        return mine;
    }
    const struct embed *e = embed_find(path);
    return e ? e->data : NULL;
}

int report_names(const char *const **names)
{
    static const char *list[64];
    static char text[64][48];
    static int n;
    if (!n) {
        for (const struct embed *e = embed_files; e->name && n < (int)ARRAY_LEN(list); e++) {
            size_t len = strlen(e->name);
            if (strncmp(e->name, "reports/", 8) || len < 13 || strcmp(e->name + len - 4, ".lua")) continue;
            snprintf(text[n], sizeof text[n], "%.*s", (int)(len - 12), e->name + 8);
            if (is_library(text[n])) continue;
            list[n] = text[n];
            n++;
        }
    }
    *names = list;
    return n;
}

static err_t no_such_report(const char *name)
{
    const char *const *names;
    int n = report_names(&names);
    const char *near = nearest_name(name, names, (size_t)n);
    struct text all = {0};
    for (int i = 0; i < n; i++) text_addf(&all, "%s%s", i ? ", " : "", names[i]);
    err_t err =
        near ? fail(ERR_NOT_FOUND, "no report '%s': did you mean '%s'? (there are: %s; or write ./reports/%s.lua)",
                    name, near, text_str(&all), name)
             : fail(ERR_NOT_FOUND, "no report '%s' (there are: %s; or write ./reports/%s.lua)", name, text_str(&all),
                    name);
    text_done(&all);
    return err;
}

err_t report_render(struct ledger *l, const struct report_opts *o, struct text *out)
{
    static const struct {
        const char *format;
        void (*render)(const struct report *, struct text *);
    } renderers[] = {{"term", report_term}, {"md", report_md},     {"tex", report_tex},
                     {"csv", report_csv},   {"json", report_json}, {"html", report_html}};
    const char *name = o->name ? o->name : "sweep", *format = o->format ? o->format : "term";
    void (*render)(const struct report *, struct text *) = NULL;
    for (size_t i = 0; i < ARRAY_LEN(renderers); i++)
        if (!strcmp(renderers[i].format, format)) render = renderers[i].render;
    if (!render) return fail(ERR_USAGE, "no report format '%s' (there are: term, md, tex, csv, json, html)", format);
    if (is_library(name) || !*name || strchr(name, '/') || name[0] == '.') return no_such_report(name);

    struct report r = {.ledger = l, .opts = o, .title = name};
    arena_init(&r.mem);
    err_t err = ERR_OK;
    const char *source = report_file(&r, arena_printf(&r.mem, "%s.lua", name));
    if (!source) TRYD(no_such_report(name));
    TRYD(report_define(&r, name, source, arena_printf(&r.mem, "@reports/%s.lua", name)));
    render(&r, out);
done:
    arena_done(&r.mem);
    return err;
}
