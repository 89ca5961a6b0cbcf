/* print: results as aligned columns or as JSON, and numbers for people. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "runner/runner.h"

bool print_color(void)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(STDOUT_FILENO) && !(no && *no) && !(term && !strcmp(term, "dumb"));
}

int print_width(int fd)
{
    struct winsize w;
    if (!isatty(fd)) return 0;
    return ioctl(fd, TIOCGWINSZ, &w) == 0 && w.ws_col ? w.ws_col : 80;
}

int text_columns(const char *s)
{
    int n = 0;
    for (; *s; s++) n += (*s & 0xc0) != 0x80;
    return n;
}

static const char *cell_show(const struct cell *c, char buf[NUM_TEXT])
{
    if (c->kind == CELL_REAL) {
        snprintf(buf, NUM_TEXT, "%.6g", c->num);
        return buf;
    }
    if (c->kind == CELL_BLOB) {
        snprintf(buf, NUM_TEXT, "(%zu bytes)", c->bytes);
        return buf;
    }
    return c->text;
}

/* One line of a cell: newlines would break the columns. */
static void put_cell(FILE *f, const char *s, int width, bool right, bool last)
{
    int pad = width - text_columns(s);
    if (right)
        for (; pad > 0; pad--) putc(' ', f);
    for (; *s; s++) putc((unsigned char)*s < 32 ? ' ' : *s, f);
    if (!last)
        for (pad += 2; pad > 0; pad--) putc(' ', f);
}

void print_table(FILE *f, const struct table *t)
{
    int *width = mem_array((size_t)t->ncols + 1, sizeof *width);
    bool *right = mem_array((size_t)t->ncols + 1, sizeof *right);
    char buf[NUM_TEXT];
    for (int c = 0; c < t->ncols; c++) {
        width[c] = text_columns(t->cols[c]);
        right[c] = t->nrows > 0;
        for (int r = 0; r < t->nrows; r++) {
            const struct cell *x = table_at(t, r, c);
            int w = text_columns(cell_show(x, buf));
            if (w > width[c]) width[c] = w;
            if (x->kind == CELL_TEXT || x->kind == CELL_BLOB) right[c] = false;
        }
    }
    for (int r = -1; r < t->nrows; r++) {
        for (int c = 0; c < t->ncols; c++) {
            bool last = c + 1 == t->ncols;
            put_cell(f, r < 0 ? t->cols[c] : cell_show(table_at(t, r, c), buf), width[c], right[c], last);
            if (!last && right[c]) fputs("  ", f);
        }
        putc('\n', f);
    }
    mem_free(width);
    mem_free(right);
}

static json_t *cell_json(const struct cell *c)
{
    switch (c->kind) {
    case CELL_INT: return json_integer(strtoll(c->text, NULL, 10));
    case CELL_REAL: return isfinite(c->num) ? json_real(c->num) : json_null();
    case CELL_TEXT: {
        json_t *s = json_stringn(c->text, c->bytes);
        return s ? s : json_string("(not UTF-8)");
    }
    case CELL_BLOB: return json_sprintf("(%zu bytes)", c->bytes);
    default: return json_null();
    }
}

void print_table_json(FILE *f, const struct table *t)
{
    json_t *rows = json_array();
    for (int r = 0; r < t->nrows; r++) {
        json_t *row = json_object();
        for (int c = 0; c < t->ncols; c++) json_object_set_new(row, t->cols[c], cell_json(table_at(t, r, c)));
        json_array_append_new(rows, row);
    }
    json_dumpf(rows, f, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    putc('\n', f);
    json_decref(rows);
}

char *human_count(char buf[NUM_TEXT], double v)
{
    static const char *const unit[] = {"", "k", "M", "G", "T", "P", "E", "Z"};
    size_t u = 0;
    if (!isfinite(v)) return strcpy(buf, "unknown");
    while (fabs(v) >= 999.5 && u + 1 < ARRAY_LEN(unit)) v /= 1000, u++;
    snprintf(buf, NUM_TEXT, u || v != floor(v) ? "%.3g%s" : "%.0f%s", v, unit[u]);
    return buf;
}

char *human_bytes(char buf[NUM_TEXT], double v)
{
    char n[NUM_TEXT];
    human_count(n, v);
    size_t len = strlen(n);
    bool unit = len && strchr("kMGTPEZ", n[len - 1]);
    snprintf(buf, NUM_TEXT, "%.*s %cB", (int)(unit ? len - 1 : len), n, unit ? n[len - 1] : ' ');
    return buf;
}

char *human_seconds(char buf[NUM_TEXT], double s)
{
    if (!isfinite(s)) return strcpy(buf, "unknown");
    long t = (long)(s + 0.5);
    if (s < 10) snprintf(buf, NUM_TEXT, "%.1f s", s);
    else if (s < 120) snprintf(buf, NUM_TEXT, "%ld s", t);
    else if (s < 7200) snprintf(buf, NUM_TEXT, "%ld min %02ld s", t / 60, t % 60);
    else if (s < 48 * 3600) snprintf(buf, NUM_TEXT, "%ld h %02ld min", t / 3600, t / 60 % 60);
    else snprintf(buf, NUM_TEXT, "%ld d %02ld h", t / 86400, t / 3600 % 24);
    return buf;
}
