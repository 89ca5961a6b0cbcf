/* table: query results as they are, for the commands that list things. The same rows in four formats; only term and md round. */
#include <math.h>
#include <string.h>

#include "reports/block.h"

enum { GAP = 2, NARROWEST = 8 };

static const char *format_of(const struct table_style *o)
{
    return o->format ? o->format : "term";
}

/* Text of a cell for people. In the arena of the caller. */
static const char *cell_text(struct arena *mem, const struct cell *c, bool exact)
{
    char b[NUM_TEXT];
    switch (c->kind) {
    case CELL_NULL: return "";
    case CELL_REAL:
        if (exact || !isfinite(c->num)) return arena_strdup(mem, c->text);
        snprintf(b, sizeof b, "%.6g", c->num);
        return arena_strdup(mem, b);
    case CELL_BLOB: return arena_printf(mem, "<%zu bytes>", c->bytes);
    default: break;
    }
    char *s = arena_strdup(mem, c->text); /* one line a row, and nothing that moves the cursor */
    for (char *p = s; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f) *p = ' ';
    return s;
}

static bool column_is_text(const struct table *t, int j)
{
    for (int i = 0; i < t->nrows; i++) {
        int kind = table_at(t, i, j)->kind;
        if (kind == CELL_TEXT || kind == CELL_BLOB) return true;
    }
    return false;
}

/* s cut to width columns, with an ellipsis where something went. */
static void put_cut(struct text *o, const char *s, int width, bool right)
{
    int n = utf8_columns(s), pad = width - n;
    if (right && pad > 0) text_addf(o, "%*s", pad, "");
    if (n <= width) text_add(o, s);
    else {
        const char *end = s;
        for (int k = 0; *end;) {
            if (((unsigned char)*end & 0xc0) != 0x80 && ++k >= width) break;
            end++;
        }
        text_addn(o, s, (size_t)(end - s));
        text_add(o, "…");
    }
    if (!right && pad > 0) text_addf(o, "%*s", pad, "");
}

static void trim(struct text *o)
{
    while (o->len && o->s[o->len - 1] == ' ') o->s[--o->len] = 0;
}

static void print_term(const struct table *t, const struct table_style *st, struct text *o)
{
    struct arena mem;
    arena_init(&mem);
    const char **s = arena_alloc(&mem, (size_t)t->nrows * (size_t)t->ncols * sizeof *s + 1);
    int *w = arena_alloc(&mem, (size_t)t->ncols * sizeof *w + 1), total = 0;
    bool *text = arena_alloc(&mem, (size_t)t->ncols + 1);
    for (int j = 0; j < t->ncols; j++) {
        text[j] = column_is_text(t, j);
        w[j] = utf8_columns(t->cols[j]);
        for (int i = 0; i < t->nrows; i++) {
            s[i * t->ncols + j] = cell_text(&mem, table_at(t, i, j), st->exact);
            int n = utf8_columns(s[i * t->ncols + j]);
            if (n > w[j]) w[j] = n;
        }
        total += w[j] + (j ? GAP : 0);
    }
    while (st->width > 0 && total > st->width) { /* numbers are never cut */
        int widest = -1;
        for (int j = 0; j < t->ncols; j++)
            if (text[j] && w[j] > NARROWEST && (widest < 0 || w[j] > w[widest])) widest = j;
        if (widest < 0) break;
        w[widest]--, total--;
    }
    if (st->color) text_add(o, "\033[1m");
    for (int j = 0; j < t->ncols; j++) {
        if (j) text_add(o, "  ");
        put_cut(o, t->cols[j], w[j], !text[j]);
    }
    trim(o);
    text_add(o, st->color ? "\033[0m\n" : "\n");
    for (int i = 0; i < t->nrows; i++) {
        for (int j = 0; j < t->ncols; j++) {
            if (j) text_add(o, "  ");
            put_cut(o, s[i * t->ncols + j], w[j], !text[j]);
        }
        trim(o);
        text_add(o, "\n");
    }
    arena_done(&mem);
}

static void print_csv(const struct table *t, struct text *o)
{
    for (int j = 0; j < t->ncols; j++) {
        if (j) text_add(o, ",");
        csv_put(o, t->cols[j]);
    }
    text_add(o, "\n");
    for (int i = 0; i < t->nrows; i++) {
        for (int j = 0; j < t->ncols; j++) {
            const struct cell *c = table_at(t, i, j);
            char b[NUM_TEXT];
            if (j) text_add(o, ",");
            if (c->kind == CELL_REAL) text_add(o, num_text(b, c->num));
            else if (c->kind == CELL_BLOB) text_addf(o, "<%zu bytes>", c->bytes);
            else csv_put(o, c->text);
        }
        text_add(o, "\n");
    }
}

static void print_json(const struct table *t, struct text *o)
{
    text_add(o, "[");
    for (int i = 0; i < t->nrows; i++) {
        text_add(o, i ? ",\n {" : "\n {");
        for (int j = 0; j < t->ncols; j++) {
            const struct cell *c = table_at(t, i, j);
            if (j) text_add(o, ", ");
            json_put_string(o, t->cols[j]);
            text_add(o, ": ");
            if (c->kind == CELL_NULL) text_add(o, "null");
            else if (c->kind == CELL_INT) text_add(o, c->text);
            else if (c->kind == CELL_REAL && isinf(c->num)) text_add(o, c->num < 0 ? "\"-inf\"" : "\"inf\"");
            else if (c->kind == CELL_REAL) json_put_number(o, c->num);
            else if (c->kind == CELL_BLOB) text_addf(o, "\"<%zu bytes>\"", c->bytes);
            else json_put_string(o, c->text);
        }
        text_add(o, "}");
    }
    text_add(o, t->nrows ? "\n]\n" : "]\n");
}

static void print_md(const struct table *t, const struct table_style *st, struct text *o)
{
    struct arena mem;
    arena_init(&mem);
    for (int i = -2; i < t->nrows; i++) {
        text_add(o, "|");
        for (int j = 0; j < t->ncols; j++) {
            if (i == -1) {
                text_add(o, column_is_text(t, j) ? ":--|" : "--:|");
                continue;
            }
            text_add(o, " ");
            for (const char *s = i < 0 ? t->cols[j] : cell_text(&mem, table_at(t, i, j), st->exact); *s; s++) {
                if (strchr("|*_`<\\[", *s)) text_add(o, "\\");
                text_addn(o, s, 1);
            }
            text_add(o, " |");
        }
        text_add(o, "\n");
    }
    arena_done(&mem);
}

void table_print(const struct table *t, const struct table_style *st, struct text *out)
{
    const char *f = format_of(st);
    if (!strcmp(f, "csv")) print_csv(t, out);
    else if (!strcmp(f, "json")) print_json(t, out);
    else if (!strcmp(f, "md")) print_md(t, st, out);
    else print_term(t, st, out);
}
