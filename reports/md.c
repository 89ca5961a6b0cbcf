/* md: a report in GitHub's Markdown. A spanning value stands in the first of its columns. */
#include "reports/block.h"

#include <string.h>

static void put_escaped(struct text *o, const char *s)
{
    for (; s && *s; s++) {
        if (strchr("|*_`<\\[", *s)) text_add(o, "\\");
        if (*s == '\n') text_add(o, " ");
        else text_addn(o, s, 1);
    }
}

static void put_cell(struct text *o, const struct rcell *c, const struct rcolumn *col)
{
    if (c->kind == RC_TEXT) put_escaped(o, c->text);
    else if (c->kind == RC_MISSING) text_add(o, "*missing*");
    else if (c->kind == RC_NUM) {
        if (c->bold) text_add(o, "**");
        num_put(o, c->mean, col->kind, FLAVOUR_PLAIN);
        if (c->bold) text_add(o, "**");
    }
    if (c->note) text_add(o, note_mark(c->note, FLAVOUR_PLAIN));
    if (cell_has_interval(c)) {
        text_add(o, " ");
        num_put_interval(o, c->lo, c->hi, FLAVOUR_PLAIN);
    }
}

static void put_table(struct text *o, const struct rtable *t)
{
    text_add(o, "|");
    for (int j = 0; j < t->ncols; j++) {
        text_add(o, " ");
        put_escaped(o, t->cols[j].head);
        text_add(o, " |");
    }
    text_add(o, "\n|");
    for (int j = 0; j < t->ncols; j++) text_add(o, t->cols[j].text ? ":--|" : "--:|");
    text_add(o, "\n");
    for (int g = 0; g < t->ngroups; g++) {
        const struct rgroup *group = &t->groups[g];
        if (group->label && group->nrows) {
            text_add(o, "| *");
            put_escaped(o, group->label);
            text_add(o, "* |");
            for (int j = 1; j < t->ncols; j++) text_add(o, " |");
            text_add(o, "\n");
        }
        for (int i = 0; i < group->nrows; i++) {
            text_add(o, "|");
            for (int j = 0; j < t->ncols; j++) {
                text_add(o, " ");
                put_cell(o, &group->rows[i].cells[j], &t->cols[j]);
                text_add(o, " |");
            }
            text_add(o, "\n");
        }
    }
    for (int i = 0; i < t->nnotes; i++) {
        text_addf(o, "\n%s ", note_mark(i + 1, FLAVOUR_PLAIN));
        put_escaped(o, t->notes[i]);
        text_add(o, "\n");
    }
}

static void put_figure(struct text *o, const struct rfigure *f)
{
    put_escaped(o, f->y.label);
    text_add(o, " against ");
    put_escaped(o, f->x.label);
    text_add(o, " (drawn in the HTML report):\n\n");
    for (int i = 0; i < f->nseries; i++) {
        const struct rseries *s = &f->series[i];
        if (!s->n) continue;
        text_add(o, "- ");
        put_escaped(o, s->label);
        text_add(o, ": ");
        if (s->line && s->n > 2) {
            spark_put(o, s, f->y.log, 40);
            text_add(o, " ");
            num_put(o, s->y[0], NUM_METRIC, FLAVOUR_PLAIN);
            text_add(o, " → ");
            num_put(o, s->y[s->n - 1], NUM_METRIC, FLAVOUR_PLAIN);
        } else {
            for (int k = 0; k < s->n; k++) {
                text_add(o, k ? ", (" : "(");
                num_put(o, s->x[k], NUM_METRIC, FLAVOUR_PLAIN);
                text_add(o, ", ");
                num_put(o, s->y[k], NUM_METRIC, FLAVOUR_PLAIN);
                text_add(o, ")");
            }
        }
        text_add(o, "\n");
    }
}

/* A fence longer than any run of backticks inside. */
static void put_code(struct text *o, const char *s)
{
    int longest = 2, run = 0;
    for (const char *p = s; *p; p++) {
        run = *p == '`' ? run + 1 : 0;
        if (run > longest) longest = run;
    }
    for (int i = 0; i <= longest; i++) text_add(o, "`");
    text_addf(o, "\n%s%s", s, *s && s[strlen(s) - 1] != '\n' ? "\n" : "");
    for (int i = 0; i <= longest; i++) text_add(o, "`");
    text_add(o, "\n");
}

void report_md(const struct report *r, struct text *o)
{
    text_add(o, "# ");
    put_escaped(o, r->title);
    text_add(o, "\n");
    for (const struct block *b = r->first; b; b = b->next) {
        text_add(o, "\n");
        if (b->title) {
            text_add(o, b->kind == BLOCK_SECTION ? "## " : "**");
            put_escaped(o, b->title);
            text_add(o, b->kind == BLOCK_SECTION ? "\n" : "**\n\n");
        }
        if (b->kind == BLOCK_TABLE) put_table(o, &b->table);
        else if (b->kind == BLOCK_FIGURE) put_figure(o, &b->figure);
        else if (b->kind == BLOCK_CODE && b->text) put_code(o, b->text);
        else if (b->kind == BLOCK_FACTS) {
            text_add(o, "| | |\n|:--|:--|\n");
            for (int i = 0; i < b->n; i++) {
                text_add(o, "| ");
                put_escaped(o, b->facts[i].key);
                text_add(o, " | ");
                put_escaped(o, b->facts[i].value);
                text_add(o, " |\n");
            }
        } else if (b->kind == BLOCK_IMAGES) {
            for (int i = 0; i < b->n; i++) {
                text_add(o, "- ");
                put_escaped(o, b->images[i].caption);
                text_addf(o, " (`%s` of run `%s`)\n", b->images[i].role, b->images[i].run);
            }
        }
        if (b->text && b->kind != BLOCK_CODE) {
            if (b->kind != BLOCK_TEXT) text_add(o, "\n");
            put_escaped(o, b->text);
            text_add(o, "\n");
        }
    }
}
