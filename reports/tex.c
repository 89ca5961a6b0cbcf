/* tex: the tables of a report as a fragment for \input. Rows carry the run ids behind them as comments. */
#include "reports/block.h"

#include <string.h>

/* What the default font encoding lacks is spelled in commands. */
static void put_escaped(struct text *o, const char *s)
{
    static const struct {
        const char *from, *to;
    } map[] = {{"×", "$\\times$"},
               {"−", "$-$"},
               {"‖", "$\\|$"},
               {"Δ", "$\\Delta$"},
               {"σ", "$\\sigma$"},
               {"●", "$\\bullet$"},
               {"→", "$\\to$"},
               {"≤", "$\\le$"},
               {"≥", "$\\ge$"},
               {"±", "$\\pm$"},
               {"–", "--"},
               {"·", "$\\cdot$"},
               {"…", "\\ldots{}"},
               {"√", "$\\surd$"},
               {"\\", "\\textbackslash{}"},
               {"~", "\\textasciitilde{}"},
               {"^", "\\textasciicircum{}"},
               {"<", "\\textless{}"},
               {">", "\\textgreater{}"},
               {"|", "\\textbar{}"},
               {"\"", "\\textquotedbl{}"},
               {"\n", " "}};
    while (s && *s) {
        size_t i = 0;
        while (i < ARRAY_LEN(map) && strncmp(s, map[i].from, strlen(map[i].from))) i++;
        if (i < ARRAY_LEN(map)) {
            text_add(o, map[i].to);
            s += strlen(map[i].from);
            continue;
        }
        if (strchr("&%$#_{}", *s)) text_add(o, "\\");
        if ((unsigned char)*s < 0x80) text_addn(o, s, 1);
        else { /* any other character: its code, so that the fragment always compiles */
            unsigned code = (unsigned char)*s;
            int more = code >= 0xf0 ? 3 : code >= 0xe0 ? 2 : code >= 0xc0 ? 1 : 0;
            code &= more == 3 ? 7 : more == 2 ? 15 : 31;
            for (; more && s[1]; more--) code = code << 6 | ((unsigned char)*++s & 63);
            text_addf(o, "(U+%04X)", code);
        }
        s++;
    }
}

static void put_cell(struct text *o, const struct rcell *c, const struct rcolumn *col)
{
    if (c->span > 1) text_addf(o, "\\multicolumn{%d}{c}{", c->span);
    if (c->kind == RC_TEXT) put_escaped(o, c->text);
    else if (c->kind == RC_MISSING) text_add(o, "\\emph{missing}");
    else if (c->kind == RC_NUM) {
        if (c->bold) text_add(o, "\\textbf{");
        num_put(o, c->mean, col->kind, FLAVOUR_TEX);
        if (c->bold) text_add(o, "}");
    }
    if (c->note) text_add(o, note_mark(c->note, FLAVOUR_TEX));
    if (cell_has_interval(c)) {
        text_add(o, " {\\scriptsize ");
        num_put_interval(o, c->lo, c->hi, FLAVOUR_TEX);
        text_add(o, "}");
    }
    if (c->span > 1) text_add(o, "}");
}

static void put_row(struct text *o, const struct rtable *t, const struct rrow *row)
{
    for (int j = 0; j < t->ncols; j++) {
        if (j) text_add(o, " & ");
        put_cell(o, &row->cells[j], &t->cols[j]);
        j += row->cells[j].span - 1;
    }
    text_add(o, " \\\\");
    for (int j = 0; j < t->ncols; j++) {
        if (!row->cells[j].nruns) continue;
        text_add(o, " % runs");
        for (int k = 0; k < row->cells[j].nruns; k++) text_addf(o, " %s", row->cells[j].runs[k]);
        break;
    }
    text_add(o, "\n");
}

static void put_table(struct text *o, const struct block *b)
{
    const struct rtable *t = &b->table;
    text_add(o, "\\begin{table}[htbp]\n\\centering\\footnotesize\\setlength{\\tabcolsep}{4pt}\n");
    if (b->title || b->text) {
        text_add(o, "\\caption{");
        put_escaped(o, b->title);
        if (b->title && b->text) text_add(o, ". ");
        put_escaped(o, b->text);
        text_add(o, "}\n");
    }
    if (t->id) text_addf(o, "\\label{tab:%s}\n", t->id);
    text_add(o, "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n\\begin{tabular}{");
    for (int j = 0; j < t->ncols; j++) text_add(o, t->cols[j].text ? "l" : "r");
    text_add(o, "}\n\\toprule\n");
    for (int j = 0; j < t->ncols; j++) {
        if (j) text_add(o, " & ");
        put_escaped(o, t->cols[j].head);
    }
    text_add(o, " \\\\\n");
    for (int g = 0; g < t->ngroups; g++) {
        const struct rgroup *group = &t->groups[g];
        if (!group->nrows) continue;
        text_add(o, "\\midrule\n");
        if (group->label) {
            text_addf(o, "\\multicolumn{%d}{l}{\\emph{", t->ncols);
            put_escaped(o, group->label);
            text_add(o, "}} \\\\\n");
        }
        for (int i = 0; i < group->nrows; i++) put_row(o, t, &group->rows[i]);
    }
    text_add(o, "\\bottomrule\n\\end{tabular}}\n");
    for (int i = 0; i < t->nnotes; i++) {
        text_addf(o, "\\par\\smallskip{\\scriptsize\\raggedright %s ", note_mark(i + 1, FLAVOUR_TEX));
        put_escaped(o, t->notes[i]);
        text_add(o, "\\par}\n");
    }
    text_add(o, "\\end{table}\n");
}

void report_tex(const struct report *r, struct text *o)
{
    text_add(o, "% ");
    for (const char *s = r->title; *s; s++) text_addn(o, *s == '\n' ? " " : s, 1);
    text_add(o, "\n% Needs \\usepackage{booktabs} and \\usepackage{graphicx}. Use: \\input{this file}\n");
    for (const struct block *b = r->first; b; b = b->next) {
        if (b->fold) continue;
        if (b->kind == BLOCK_TABLE) {
            text_add(o, "\n");
            put_table(o, b);
        } else if (b->kind == BLOCK_FIGURE && b->title) {
            text_add(o, "\n% figure: ");
            for (const char *s = b->title; *s; s++) text_addn(o, *s == '\n' ? " " : s, 1);
            text_add(o, " (drawn in the HTML report; numbers in --format json)\n");
        }
    }
}
