/* term: a report on a terminal. A table that is too wide first moves intervals below their means, then is cut into parts that
 * repeat the first column, so nothing is ever dropped. Bold is also a star: colour is never the only sign. */
#include "reports/block.h"

#include <math.h>
#include <string.h>

enum { GAP = 2, PARAGRAPH = 100 };

struct laid {                      /* one cell as text */
    const char *main, *mark, *sub; /* mark: star, dagger; sub: interval */
    bool bold;
    int span;
};
struct layout {
    const struct rtable *t;
    bool below;                    /* intervals under the means */
    int *wmain, *wmark, *wsub, *w; /* per column; w: all of it */
    struct laid *cells;            /* all rows of all groups */
    struct arena mem;
};

static void put_padded(struct text *o, const char *s, int width, bool right)
{
    int pad = width - utf8_columns(s);
    if (right && pad > 0) text_addf(o, "%*s", pad, "");
    text_add(o, s);
    if (!right && pad > 0) text_addf(o, "%*s", pad, "");
}

static void put_rule(struct text *o, int width)
{
    for (int i = 0; i < width; i++) text_add(o, "─");
    text_add(o, "\n");
}

/* Words of s in lines of at most width columns; the first line begins with `first`, the others with `rest`. A word longer than a
 * line is broken. */
static void put_wrapped(struct text *o, const char *s, int width, const char *first, const char *rest)
{
    int limit = width > 0 && width < PARAGRAPH ? width : PARAGRAPH, at = utf8_columns(first);
    bool fresh = true;
    text_add(o, first);
    while (*s) {
        size_t n = strcspn(s, " \n");
        char *word = mem_printf("%.*s", (int)n, s);
        int w = utf8_columns(word);
        mem_free(word);
        if (!fresh && at + 1 + w > limit) text_addf(o, "\n%s", rest), at = utf8_columns(rest), fresh = true;
        else if (!fresh && n) text_add(o, " "), at++;
        for (size_t i = 0; i < n; i++) {
            bool starts = ((unsigned char)s[i] & 0xc0) != 0x80;
            if (starts && at >= limit) text_addf(o, "\n%s", rest), at = utf8_columns(rest);
            text_addn(o, s + i, 1);
            at += starts;
        }
        fresh = fresh && !n;
        s += n;
        if (*s == '\n') text_addf(o, "\n%s", rest), at = utf8_columns(rest), fresh = true;
        if (*s) s++;
    }
    text_add(o, "\n");
}

static struct laid lay(struct arena *mem, const struct rcell *c, const struct rcolumn *col)
{
    struct laid l = {"", "", "", c->bold, c->span};
    struct text t = {0};
    struct rcell plain = *c;
    plain.note = 0;
    plain.kind = c->kind == RC_REFUSED ? RC_EMPTY : c->kind;
    cell_put(&t, &plain, col->kind);
    l.main = arena_strdup(mem, text_str(&t));
    text_done(&t);
    l.mark = arena_printf(mem, "%s%s", c->bold ? "*" : "", c->note ? note_mark(c->note, FLAVOUR_PLAIN) : "");
    if (cell_has_interval(c)) {
        num_put_interval(&t, c->lo, c->hi, FLAVOUR_PLAIN);
        l.sub = arena_strdup(mem, text_str(&t));
        text_done(&t);
    }
    return l;
}

static int max_int(int a, int b)
{
    return a > b ? a : b;
}

static void layout_widths(struct layout *y, bool below)
{
    const struct rtable *t = y->t;
    y->below = below;
    for (int j = 0; j < t->ncols; j++) {
        int gap = y->wsub[j] && !below ? 1 : 0;
        int body = y->wmain[j] + y->wmark[j] + (below ? 0 : gap + y->wsub[j]);
        if (below) body = max_int(body, y->wsub[j]);
        y->w[j] = max_int(body, utf8_columns(t->cols[j].head));
    }
}

static void layout_init(struct layout *y, const struct rtable *t, int width)
{
    *y = (struct layout){.t = t};
    arena_init(&y->mem);
    int nrows = 0, k = 0;
    for (int g = 0; g < t->ngroups; g++) nrows += t->groups[g].nrows;
    size_t ints = (size_t)t->ncols * sizeof(int) + 1;
    y->wmain = arena_alloc(&y->mem, ints), y->wmark = arena_alloc(&y->mem, ints);
    y->wsub = arena_alloc(&y->mem, ints), y->w = arena_alloc(&y->mem, ints);
    y->cells = arena_alloc(&y->mem, (size_t)nrows * (size_t)t->ncols * sizeof *y->cells + 1);
    for (int g = 0; g < t->ngroups; g++)
        for (int i = 0; i < t->groups[g].nrows; i++)
            for (int j = 0; j < t->ncols; j++, k++) {
                struct laid *l = &y->cells[k];
                *l = lay(&y->mem, &t->groups[g].rows[i].cells[j], &t->cols[j]);
                if (j == 0 && t->groups[g].label) l->main = arena_printf(&y->mem, "  %s", l->main);
                if (l->span > 1) continue;
                y->wmain[j] = max_int(y->wmain[j], utf8_columns(l->main));
                y->wmark[j] = max_int(y->wmark[j], utf8_columns(l->mark));
                y->wsub[j] = max_int(y->wsub[j], utf8_columns(l->sub));
            }
    for (int pass = 0; pass < 2; pass++) {
        int total = 0;
        layout_widths(y, pass == 1);
        for (int j = 0; j < t->ncols; j++) total += y->w[j] + (j ? GAP : 0);
        if (!width || total <= width) break;
    }
}

/* One line of one row for columns 0 and [from, to): the means, or the intervals below them. */
static void put_line(struct text *o, const struct layout *y, const struct laid *row, int from, int to, bool sub,
                     bool color)
{
    size_t start = o->len;
    for (int j = 0; j < to; j = j == 0 && from > 1 ? from : j + 1) {
        const struct laid *l = &row[j];
        const struct rcolumn *c = &y->t->cols[j];
        if (j) text_addf(o, "%*s", GAP, "");
        if (l->span > 1) {
            int w = 0, last = j;
            for (int k = j; k < j + l->span && k < to; k++) w += y->w[k] + (k > j ? GAP : 0), last = k;
            char *s = mem_printf("%s%s", sub ? "" : l->main, sub ? "" : l->mark);
            int left = (w - utf8_columns(s)) / 2;
            text_addf(o, "%*s", left > 0 ? left : 0, "");
            put_padded(o, s, w - (left > 0 ? left : 0), false);
            mem_free(s);
            j = last;
            continue;
        }
        if (sub) {
            put_padded(o, l->sub, y->w[j], true);
            continue;
        }
        bool on = color && l->bold;
        int right = y->below || !y->wsub[j] ? 0 : 1 + y->wsub[j];
        if (c->text) {
            put_padded(o, l->main, y->w[j], false);
            continue;
        }
        put_padded(o, "", y->w[j] - right - y->wmark[j] - utf8_columns(l->main), false);
        if (on) text_add(o, "\033[1m");
        text_add(o, l->main);
        if (on) text_add(o, "\033[0m");
        put_padded(o, l->mark, y->wmark[j], false);
        if (right) {
            text_add(o, " ");
            put_padded(o, l->sub, y->wsub[j], true);
        }
    }
    while (o->len > start && o->s[o->len - 1] == ' ') o->s[--o->len] = 0;
    text_add(o, "\n");
}

static void put_part(struct text *o, const struct layout *y, int from, int to, bool color)
{
    const struct rtable *t = y->t;
    int width = y->w[0];
    for (int j = from; j < to; j++) width += GAP + y->w[j];
    if (color) text_add(o, "\033[1m");
    size_t start = o->len;
    put_padded(o, t->cols[0].head, y->w[0], false);
    for (int j = from; j < to; j++) {
        text_addf(o, "%*s", GAP, "");
        put_padded(o, t->cols[j].head, y->w[j], !t->cols[j].text);
    }
    while (o->len > start && o->s[o->len - 1] == ' ') o->s[--o->len] = 0;
    text_add(o, color ? "\033[0m\n" : "\n");
    put_rule(o, width);
    const struct laid *row = y->cells;
    for (int g = 0; g < t->ngroups; g++) {
        bool said = !t->groups[g].label;
        for (int i = 0; i < t->groups[g].nrows; i++, row += t->ncols) {
            bool sub = false, any = from <= 1; /* later parts leave out rows that have nothing there */
            for (int j = from; j < to; j++) sub |= y->below && *row[j].sub, any |= *row[j].main || *row[j].mark;
            if (!any) continue;
            if (!said) text_addf(o, "%s\n", t->groups[g].label);
            said = true;
            put_line(o, y, row, from, to, false, color);
            if (sub) {
                struct laid *copy = mem_array((size_t)t->ncols, sizeof *copy);
                memcpy(copy, row, (size_t)t->ncols * sizeof *copy);
                copy[0].sub = "";
                put_line(o, y, copy, from, to, true, color);
                mem_free(copy);
            }
        }
    }
    put_rule(o, width);
}

static void put_table(struct text *o, const struct block *b, const struct report_opts *opts)
{
    const struct rtable *t = &b->table;
    struct layout y;
    if (t->ncols == 0) return;
    layout_init(&y, t, opts->width);
    int from = 1;
    do {
        int to = from, total = y.w[0];
        while (to < t->ncols) {
            int step = GAP + y.w[to];
            if (opts->width && to > from && total + step > opts->width) break;
            total += step;
            to++;
        }
        if (from > 1) text_add(o, "\n");
        put_part(o, &y, from, to, opts->color);
        from = to;
    } while (from < t->ncols);
    for (int i = 0; i < t->nnotes; i++) {
        char *s = mem_printf("%s %s", note_mark(i + 1, FLAVOUR_PLAIN), t->notes[i]);
        put_wrapped(o, s, opts->width, "", "");
        mem_free(s);
    }
    arena_done(&y.mem);
}

static void put_figure(struct text *o, const struct rfigure *f, int width)
{
    int wlabel = 0, room = width > 0 && width < PARAGRAPH ? width : PARAGRAPH;
    for (int i = 0; i < f->nseries; i++) wlabel = max_int(wlabel, utf8_columns(f->series[i].label));
    text_addf(o, "%s against %s\n", f->y.label, f->x.label);
    for (int i = 0; i < f->nseries; i++) {
        const struct rseries *s = &f->series[i];
        if (!s->n) continue;
        text_add(o, "  ");
        put_padded(o, s->label, wlabel, false);
        text_add(o, "  ");
        if (s->line && s->n > 2) {
            spark_put(o, s, f->y.log, max_int(8, room - wlabel - 30));
            text_add(o, "  ");
            num_put(o, s->y[0], NUM_METRIC, FLAVOUR_PLAIN);
            text_add(o, " → ");
            num_put(o, s->y[s->n - 1], NUM_METRIC, FLAVOUR_PLAIN);
        } else {
            for (int k = 0; k < s->n; k++) {
                text_add(o, k ? "  (" : "(");
                num_put(o, s->x[k], NUM_METRIC, FLAVOUR_PLAIN);
                text_add(o, ", ");
                num_put(o, s->y[k], NUM_METRIC, FLAVOUR_PLAIN);
                text_add(o, ")");
            }
        }
        text_add(o, "\n");
    }
}

static void put_title(struct text *o, const char *s, const struct report_opts *opts)
{
    if (s) text_addf(o, opts->color ? "\033[1m%s\033[0m\n" : "%s\n", s);
}

/* Detail stays in the other formats: single runs (ect ls, ect show), scripts, pictures, and marks that the table has already. */
static bool fits_terminal(const struct block *b)
{
    if (b->fold || b->kind == BLOCK_CODE || b->kind == BLOCK_IMAGES) return false;
    if (b->kind == BLOCK_TABLE) return !b->table.wide;
    if (b->kind != BLOCK_FIGURE) return true;
    for (int i = 0; i < b->figure.nseries; i++)
        if (b->figure.series[i].points) return false;
    return true;
}

void report_term(const struct report *r, struct text *o)
{
    const struct report_opts *opts = r->opts;
    const char *section = NULL; /* printed once something follows */
    put_title(o, r->title, opts);
    for (const struct block *b = r->first; b; b = b->next) {
        if (b->kind == BLOCK_SECTION) section = b->title;
        if (b->kind == BLOCK_SECTION || !fits_terminal(b)) continue;
        if (section) {
            text_add(o, "\n");
            put_title(o, section, opts);
        }
        section = NULL;
        text_add(o, "\n");
        if (b->kind != BLOCK_FIGURE) put_title(o, b->title, opts);
        if (b->kind == BLOCK_TABLE) put_table(o, b, opts);
        else if (b->kind == BLOCK_FIGURE) put_figure(o, &b->figure, opts->width);
        else if (b->kind == BLOCK_FACTS) {
            int w = 0;
            for (int i = 0; i < b->n; i++) w = max_int(w, utf8_columns(b->facts[i].key));
            for (int i = 0; i < b->n; i++) {
                struct text key = {0};
                text_add(&key, "  ");
                put_padded(&key, b->facts[i].key, w, false);
                text_add(&key, "  ");
                char *rest = mem_printf("%*s", w + 4, "");
                put_wrapped(o, b->facts[i].value, opts->width, key.s, rest);
                mem_free(rest);
                text_done(&key);
            }
        }
        if (b->text) put_wrapped(o, b->text, opts->width, "", "");
    }
}
