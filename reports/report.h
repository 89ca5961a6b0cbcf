/* report: from a ledger to tables and figures. A report is a Lua definition (reports/NAME.lua, embedded; a file ./reports/NAME.lua
 * wins) with SQL over the v_ views; renderers turn its blocks into Markdown, LaTeX, CSV, JSON, HTML and terminal text. Output bytes
 * depend on the ledger only. */
#ifndef REPORTS_REPORT_H
#define REPORTS_REPORT_H

#include "core/base.h"
#include "db/ledger.h"

struct report_opts {
    const char *name;   /* "sweep" (default) or a report's name */
    const char *sweep;  /* sweep name; NULL: the newest */
    const char *format; /* "term", "md", "tex", "csv", "json", "html" */
    int width;          /* of the terminal, for term */
    bool color;
};
err_t report_render(struct ledger *l, const struct report_opts *o, struct text *out) MUST_USE;
int report_names(const char *const **names);

#endif
