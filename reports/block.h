/* block: what a report is made of, before any format. The definition decides every number, interval, bold and mark once; renderers
 * only print, so all formats agree. Everything lives in the report's arena. */
#ifndef REPORTS_BLOCK_H
#define REPORTS_BLOCK_H

#include "core/base.h"
#include "db/ledger.h"
#include "reports/report.h"

enum num_kind { NUM_PLAIN, NUM_METRIC, NUM_FLOPS, NUM_SECONDS, NUM_COUNT };
enum flavour { FLAVOUR_PLAIN, FLAVOUR_TEX, FLAVOUR_HTML };

struct rcell {
    enum { RC_EMPTY, RC_TEXT, RC_NUM, RC_MISSING, RC_REFUSED } kind; /* REFUSED: another evaluator; see note */
    const char *text;    /* TEXT: what to print; MISSING: the command that would fill it */
    double mean, lo, hi; /* lo, hi: of the paired difference to the comparison row; NaN: none */
    int n, of;           /* finite replicates behind mean; runs of the row */
    bool bold;           /* interval of the difference to the best includes 0 */
    int note;            /* 1-based into the table's notes; 0: none */
    int span;            /* columns it covers; those after it are EMPTY. At least 1 */
    int nruns;
    const char **runs; /* [nruns] */
    double *values;    /* [nruns], one replicate each; NaN where it has none */
};
struct rcolumn {
    const char *key, *head;
    enum num_kind kind;
    bool text; /* left-aligned, not a number */
};
struct rrow {
    const char *id;      /* anchor in HTML, without spaces; may be NULL */
    struct rcell *cells; /* [ncols] */
};
struct rgroup {
    const char *label; /* NULL: no heading */
    int nrows;
    struct rrow *rows;
};
struct rtable {
    const char *id, *vs; /* vs: label of the comparison row, or NULL */
    int ncols, ngroups, nnotes;
    struct rcolumn *cols;
    struct rgroup *groups;
    const char **notes;
    bool wide; /* may scroll sideways; per-run detail rather than a result */
};

struct rseries {
    const char *label;
    int n;
    double *x, *y, *lo, *hi; /* lo, hi NULL: no band */
    bool line, points, hollow;
    int color;        /* index into the palette */
    const char *runs; /* text, for JSON and tooltips; may be NULL */
};
struct raxis {
    const char *label;
    bool log;
};
struct rfigure {
    const char *id;
    struct raxis x, y;
    int nseries;
    struct rseries *series;
};
struct rimage {
    const char *caption, *role, *run, *sha;
    const char *data; /* PNG bytes; NULL: the ledger lacks them */
    size_t size;
};
struct rfact {
    const char *key, *value;
};

enum block_kind { BLOCK_SECTION, BLOCK_TEXT, BLOCK_FACTS, BLOCK_TABLE, BLOCK_FIGURE, BLOCK_IMAGES, BLOCK_CODE };
struct block {
    struct block *next;
    enum block_kind kind;
    const char *title, *text; /* text: paragraph, caption, or code */
    bool fold;                /* HTML: closed until asked for */
    int n;                    /* facts, images */
    struct rfact *facts;
    struct rimage *images;
    struct rtable table;
    struct rfigure figure;
};
struct report {
    struct arena mem;
    struct ledger *ledger;
    const struct report_opts *opts;
    const char *title;
    struct block *first, *last;
};
struct block *block_add(struct report *r, enum block_kind kind);

/* Runs the definition; fills r. */
err_t report_define(struct report *r, const char *name, const char *source, const char *chunk) MUST_USE;
/* Text of reports/FILE: ./reports/FILE if there, else the embedded one; NULL if neither. In r's arena. */
const char *report_file(struct report *r, const char *file);

/* ---- renderers */
void report_term(const struct report *r, struct text *out);
void report_md(const struct report *r, struct text *out);
void report_tex(const struct report *r, struct text *out);
void report_csv(const struct report *r, struct text *out);
void report_json(const struct report *r, struct text *out);
void report_html(const struct report *r, struct text *out);

/* ---- what renderers share */

/* Three significant digits for metrics, powers of ten for FLOPs. */
void num_put(struct text *o, double v, enum num_kind kind, enum flavour f);
/* "[-0.031, +0.044]": as many decimals as two digits of the half width need. */
void num_put_interval(struct text *o, double lo, double hi, enum flavour f);
/* The cell without its interval, as term and md print it: "0.512*", "missing". */
void cell_put(struct text *o, const struct rcell *c, enum num_kind kind);
bool cell_has_interval(const struct rcell *c);
const char *note_mark(int note, enum flavour f); /* a dagger and its followers */
void json_put_string(struct text *o, const char *s);
void json_put_number(struct text *o, double v); /* null where JSON has no such number */
void csv_put(struct text *o, const char *s);
void html_put(struct text *o, const char *s);
int utf8_columns(const char *s); /* terminal columns of UTF-8 text */
/* One line of eighth blocks for a curve, at most width columns. */
void spark_put(struct text *o, const struct rseries *s, bool log, int width);

/* Okabe and Ito's colours, told apart by most colour-blind readers; black is left to the text. */
enum { PALETTE = 7 };
extern const char *const palette[PALETTE];
/* SVG of a figure through gnuplot, cleaned for inlining. ERR_NO_DATA: gnuplot is missing. */
err_t figure_svg(const struct rfigure *f, struct text *out) MUST_USE;

#endif
