/* report: from a ledger to tables and figures. A report is a Lua definition (reports/NAME.lua, embedded; a file ./reports/NAME.lua
 * wins) with SQL over the v_ views; renderers turn its blocks into terminal text, Markdown, LaTeX, CSV, JSON or one HTML page.
 * Output bytes depend on the ledger, its path as it was opened, and the options only: no clock, no host.
 *
 * Formats.
 *   term  fits width: intervals go below their means, then a table is cut into parts, before a line gets too long
 *   md    GitHub's tables
 *   tex   a fragment for \input; its head comment names the packages that it needs (booktabs, graphicx)
 *   csv   one row per table row and column: table,group,row,column,n,of,mean,lo,hi,vs,bold,pareto,note,runs
 *   json  every block, every number with the runs behind it
 *   html  self-contained: readable offline, on a phone, in light and dark. Figures are drawn by gnuplot; where that is missing the
 *         page says so in the figure's place */
#ifndef REPORTS_REPORT_H
#define REPORTS_REPORT_H

#include "core/base.h"
#include "db/ledger.h"
#include "db/query.h"

struct report_opts {
    const char *name;   /* "sweep" (NULL: the default) or a report's name */
    const char *sweep;  /* sweep name; NULL: the newest */
    const char *format; /* "term" (NULL), "md", "tex", "csv", "json", "html" */
    int width;          /* of the terminal, for term; 0: no limit */
    bool color;         /* for term: escape sequences */
};
/* Adds the report to *out. ERR_USAGE: unknown format, mixed up definition; ERR_NOT_FOUND: no such report or sweep. */
err_t report_render(struct ledger *l, const struct report_opts *o, struct text *out) MUST_USE;
/* Names of the embedded reports. */
int report_names(const char *const **names);

/* Simple tables for the terminal: what `ect ls`, `ect pareto`, `ect sql` print. Numbers go to the right. json: an array of objects
 * with typed values (NULL is null; text stays text); csv: RFC 4180 with a header line. */
struct table_style {
    const char *format; /* "term" (NULL), "csv", "json", "md" */
    int width;          /* for term: longest text columns are cut with an ellipsis until a line fits; 0: no limit */
    bool color;         /* for term: heading in bold */
    bool exact;         /* for term and md: reals as SQLite prints them; otherwise 6 significant digits */
};
void table_print(const struct table *t, const struct table_style *o, struct text *out);

#endif
