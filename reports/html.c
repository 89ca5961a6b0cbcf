/* html: one page that needs nothing else: style, script, figures and pictures are inside. It reads well without its script, which
 * only sorts tables. Every number links to the runs behind it. */
#include <math.h>
#include <string.h>

#include "reports/block.h"

static void put_base64(struct text *o, const char *data, size_t n)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *p = (const unsigned char *)data;
    for (size_t i = 0; i < n; i += 3) {
        unsigned v = (unsigned)p[i] << 16 | (i + 1 < n ? (unsigned)p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0);
        char b[4] = {digit[v >> 18], digit[v >> 12 & 63], i + 1 < n ? digit[v >> 6 & 63] : '=',
                     i + 2 < n ? digit[v & 63] : '='};
        text_addn(o, b, 4);
    }
}

/* The runs behind a number, for those who point at it. */
static void put_tooltip(struct text *o, const struct rcell *c, enum num_kind kind)
{
    if (!c->nruns) return;
    text_add(o, " title=\"");
    for (int i = 0; i < c->nruns; i++) {
        text_addf(o, "%srun %s", i ? "&#10;" : "", c->runs[i]);
        if (!c->values) continue;
        text_add(o, ": ");
        if (isnan(c->values[i])) text_add(o, "none");
        else num_put(o, c->values[i], kind, FLAVOUR_PLAIN);
    }
    text_add(o, "\"");
}

static void put_note_mark(struct text *o, const struct rcell *c, const struct rtable *t)
{
    if (c->note <= 0 || c->note > t->nnotes) return;
    text_add(o, "<sup class=\"mark\" title=\"");
    html_put(o, t->notes[c->note - 1]);
    text_addf(o, "\">%s</sup>", note_mark(c->note, FLAVOUR_HTML));
}

static void put_cell(struct text *o, const struct rtable *t, const struct rrow *row, int j)
{
    const struct rcell *c = &row->cells[j];
    const struct rcolumn *col = &t->cols[j];
    const char *tag = j == 0 ? "th scope=\"row\"" : "td";
    char b[NUM_TEXT];
    text_addf(o, "<%s", tag);
    if (c->span > 1) text_addf(o, " colspan=\"%d\" class=\"span\"", c->span);
    else if (c->kind == RC_MISSING || c->kind == RC_REFUSED) text_add(o, " class=\"gap\"");
    else text_add(o, col->text ? j ? " class=\"txt\"" : "" : " class=\"num\"");
    if (c->kind == RC_NUM && isfinite(c->mean)) text_addf(o, " data-v=\"%s\"", num_text(b, c->mean));
    text_add(o, ">");
    if (c->kind == RC_TEXT && j == 0 && row->id && !t->wide) {
        text_addf(o, "<a href=\"#runs-%s\">", row->id);
        html_put(o, c->text);
        text_add(o, "</a>");
    } else if (c->kind == RC_TEXT) {
        html_put(o, c->text);
    } else if (c->kind == RC_MISSING) {
        text_add(o, "<span title=\"");
        html_put(o, c->text);
        text_add(o, "\">missing</span>");
    } else if (c->kind == RC_NUM) {
        bool link = c->nruns && row->id && !t->wide;
        if (link) {
            text_addf(o, "<a href=\"#runs-%s\"", row->id);
            put_tooltip(o, c, col->kind);
            text_add(o, ">");
        }
        if (c->bold) text_add(o, "<b>");
        num_put(o, c->mean, col->kind, FLAVOUR_HTML);
        if (c->bold) text_add(o, "</b>");
        if (link) text_add(o, "</a>");
    }
    put_note_mark(o, c, t);
    if (cell_has_interval(c)) {
        text_add(o, "<small>");
        num_put_interval(o, c->lo, c->hi, FLAVOUR_HTML);
        text_add(o, "</small>");
    }
    text_addf(o, "</%.2s>", tag);
}

static void put_table(struct text *o, const struct block *b)
{
    const struct rtable *t = &b->table;
    text_add(o, "<div class=\"scroll\" tabindex=\"0\"><table class=\"sortable\"><thead><tr>");
    for (int j = 0; j < t->ncols; j++) {
        text_addf(o, "<th scope=\"col\"%s><button type=\"button\">", t->cols[j].text ? "" : " class=\"num\"");
        html_put(o, t->cols[j].head);
        text_add(o, "</button></th>");
    }
    text_add(o, "</tr></thead>\n");
    for (int g = 0; g < t->ngroups; g++) {
        const struct rgroup *group = &t->groups[g];
        if (!group->nrows) continue;
        text_add(o, "<tbody>");
        if (group->label) {
            text_addf(o, "<tr class=\"group\"><th colspan=\"%d\" scope=\"rowgroup\"><span>", t->ncols);
            html_put(o, group->label);
            text_add(o, "</span></th></tr>\n");
        }
        const char *last = "";
        for (int i = 0; i < group->nrows; i++) {
            const struct rrow *row = &group->rows[i];
            text_add(o, "<tr");
            /* in the table of runs several rows share a cell's anchor: the first one carries it */
            if (row->id && t->wide && strcmp(row->id, last)) text_addf(o, " id=\"runs-%s\"", row->id);
            if (row->id) last = row->id;
            text_add(o, ">");
            for (int j = 0; j < t->ncols; j += row->cells[j].span) put_cell(o, t, row, j);
            text_add(o, "</tr>\n");
        }
        text_add(o, "</tbody>\n");
    }
    text_add(o, "</table></div>\n");
    for (int i = 0; i < t->nnotes; i++) {
        text_addf(o, "<p class=\"note\"><span class=\"mark\">%s</span> ", note_mark(i + 1, FLAVOUR_HTML));
        html_put(o, t->notes[i]);
        text_add(o, "</p>\n");
    }
}

/* Marker shapes as in figure.c, by colour. */
static void put_swatch(struct text *o, const struct rseries *s)
{
    static const char *const shape[PALETTE] = {
        "<circle cx=\"9\" cy=\"6\" r=\"4\"/>", "<path d=\"M5 2h8v8h-8z\"/>",
        "<path d=\"M9 1.5l4.5 8h-9z\"/>",      "<path d=\"M9 1.5l5 4.5-5 4.5-5-4.5z\"/>",
        "<path d=\"M9 10.5l4.5-8h-9z\"/>",     "<path d=\"M9 1.5l4.5 3.3-1.7 5.3h-5.6l-1.7-5.3z\"/>",
        "<circle cx=\"9\" cy=\"6\" r=\"4\"/>"};
    const char *color = palette[s->color % PALETTE];
    text_addf(o, "<svg class=\"swatch\" viewBox=\"0 0 18 12\" aria-hidden=\"true\" stroke=\"%s\" fill=\"%s\">", color,
              s->hollow ? "none" : color);
    if (s->line) text_add(o, "<path d=\"M0 6h18\" stroke-width=\"2.4\"/>");
    if (s->points) text_add(o, shape[s->color % PALETTE]);
    text_add(o, "</svg>");
}

static void put_figure(struct text *o, const struct block *b)
{
    const struct rfigure *f = &b->figure;
    text_add(o, "<figure class=\"plot\">\n");
    if (figure_svg(f, o)) {
        text_add(o, "<p class=\"absent\">No figure here: ");
        html_put(o, err_text());
        text_add(o, ". Its numbers are in <code>ect report --format json</code>.</p>\n");
    }
    text_add(o, "<ul class=\"legend\">");
    for (int i = 0; i < f->nseries; i++) {
        if (!f->series[i].n || !*f->series[i].label) continue;
        text_add(o, "<li");
        if (f->series[i].runs) {
            text_add(o, " title=\"runs ");
            html_put(o, f->series[i].runs);
            text_add(o, "\"");
        }
        text_add(o, ">");
        put_swatch(o, &f->series[i]);
        html_put(o, f->series[i].label);
        text_add(o, "</li>");
    }
    text_add(o, "</ul>\n<figcaption>");
    if (b->title) {
        text_add(o, "<b>");
        html_put(o, b->title);
        text_add(o, ".</b> ");
    }
    html_put(o, b->text);
    text_add(o, "</figcaption></figure>\n");
}

static void put_images(struct text *o, const struct block *b)
{
    text_add(o, "<div class=\"grids\">\n");
    for (int i = 0; i < b->n; i++) {
        const struct rimage *g = &b->images[i];
        text_add(o, "<figure><div class=\"pic\">");
        if (g->data) {
            text_add(o, "<img alt=\"");
            html_put(o, g->caption);
            text_add(o, "\" src=\"data:image/png;base64,");
            put_base64(o, g->data, g->size);
            text_add(o, "\">");
        } else {
            text_add(o, "<p class=\"absent\">The ledger has no such picture.</p>");
        }
        text_add(o, "</div><figcaption>");
        html_put(o, g->caption);
        if (g->run) text_addf(o, " <span class=\"id\">run %s</span>", g->run);
        text_add(o, "</figcaption></figure>\n");
    }
    text_add(o, "</div>\n");
}

static void put_facts(struct text *o, const struct block *b)
{
    text_add(o, "<dl>");
    for (int i = 0; i < b->n; i++) {
        text_add(o, "<div><dt>");
        html_put(o, b->facts[i].key);
        text_add(o, "</dt><dd>");
        html_put(o, b->facts[i].value);
        text_add(o, "</dd></div>\n");
    }
    text_add(o, "</dl>\n");
}

static void put_block(struct text *o, const struct block *b)
{
    if (b->kind == BLOCK_SECTION) {
        text_add(o, "<h2>");
        html_put(o, b->title);
        text_add(o, "</h2>\n");
        return;
    }
    if (b->kind == BLOCK_FIGURE) {
        put_figure(o, b);
        return;
    }
    if (b->fold) text_addf(o, "<details>");
    if (b->title) {
        text_add(o, b->fold ? "<summary>" : "<h3>");
        html_put(o, b->title);
        text_add(o, b->fold ? "</summary>\n" : "</h3>\n");
    }
    if (b->kind == BLOCK_TABLE) put_table(o, b);
    else if (b->kind == BLOCK_IMAGES) put_images(o, b);
    else if (b->kind == BLOCK_FACTS) put_facts(o, b);
    if (b->text && b->kind == BLOCK_CODE) {
        text_add(o, "<pre tabindex=\"0\"><code>");
        html_put(o, b->text);
        text_add(o, "</code></pre>\n");
    } else if (b->text) {
        text_addf(o, "<p%s>", b->kind == BLOCK_TEXT ? "" : " class=\"note\"");
        html_put(o, b->text);
        text_add(o, "</p>\n");
    }
    if (b->fold) text_add(o, "</details>\n");
}

static void put_file(struct text *o, const char *name)
{
    const struct embed *e = embed_find(name);
    if (e) text_addn(o, e->data, e->size);
}

void report_html(const struct report *r, struct text *o)
{
    text_add(o, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                "<meta name=\"color-scheme\" content=\"light dark\">\n<title>");
    html_put(o, r->title);
    text_add(o, "</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>\n");
    put_file(o, "reports/report.css");
    text_add(o, "</style>\n</head>\n<body>\n<main>\n<h1>");
    html_put(o, r->title);
    text_add(o, "</h1>\n");
    bool plots = false; /* figures in a row share one frame */
    for (const struct block *b = r->first; b; b = b->next) {
        bool plot = b->kind == BLOCK_FIGURE;
        if (plot != plots) text_add(o, plot ? "<div class=\"plots\">\n" : "</div>\n");
        plots = plot;
        put_block(o, b);
    }
    if (plots) text_add(o, "</div>\n");
    text_add(o, "</main>\n<script>\n");
    put_file(o, "reports/report.js");
    text_add(o, "</script>\n</body>\n</html>\n");
}
