/* What renderers share. A number is printed by one function, so the table of a paper and the one on the terminal agree to the
 * last digit. */
#include "reports/block.h"

#include <math.h>
#include <string.h>

struct block *block_add(struct report *r, enum block_kind kind)
{
    struct block *b = arena_alloc(&r->mem, sizeof *b);
    b->kind = kind;
    if (r->last) r->last->next = b;
    else r->first = b;
    r->last = b;
    return b;
}

/* Decimals that show `digits` significant digits of v. */
static int decimals(double v, int digits)
{
    if (v == 0) return digits - 1;
    int d = digits - 1 - (int)floor(log10(fabs(v)));
    return d < 0 ? 0 : d;
}

static void put_scientific(struct text *o, double v, int digits, enum flavour f)
{
    char b[64];
    snprintf(b, sizeof b, "%.*e", digits - 1, v);
    char *e = strchr(b, 'e');
    if (f == FLAVOUR_PLAIN || !e) {
        text_add(o, b);
        return;
    }
    *e = 0;
    int power = 0;
    sscanf(e + 1, "%d", &power);
    if (f == FLAVOUR_TEX) text_addf(o, "$%s\\times10^{%d}$", b, power);
    else if (power < 0) text_addf(o, "%s×10<sup>−%d</sup>", b, -power);
    else text_addf(o, "%s×10<sup>%d</sup>", b, power);
}

static void put_fixed(struct text *o, double v, int dec, bool plus, enum flavour f)
{
    char b[400];
    snprintf(b, sizeof b, plus ? "%+.*f" : "%.*f", dec, v);
    if (strspn(b + 1, "0.") == strlen(b + 1) && b[0] == '-') b[0] = plus ? '+' : ' '; /* no negative zero */
    const char *s = b[0] == ' ' ? b + 1 : b;
    if (f == FLAVOUR_HTML && s[0] == '-') text_addf(o, "−%s", s + 1);
    else if (f == FLAVOUR_TEX && (s[0] == '-' || s[0] == '+')) text_addf(o, "$%s$", s);
    else text_add(o, s);
}

void num_put(struct text *o, double v, enum num_kind kind, enum flavour f)
{
    char b[NUM_TEXT];
    if (isnan(v)) text_add(o, "NaN");
    else if (isinf(v)) text_add(o, f == FLAVOUR_TEX ? (v < 0 ? "$-\\infty$" : "$\\infty$") : (v < 0 ? "-inf" : "inf"));
    else if (kind == NUM_PLAIN || kind == NUM_COUNT) text_add(o, num_text(b, v));
    else if (kind == NUM_FLOPS) {
        if (v == 0) text_add(o, "0");
        else put_scientific(o, v, 3, f);
    } else if (kind == NUM_SECONDS) put_fixed(o, v, fabs(v) < 100 ? 1 : 0, false, f);
    else if (v != 0 && (fabs(v) < 1e-4 || fabs(v) >= 1e6)) put_scientific(o, v, 3, f);
    else put_fixed(o, v, decimals(v, 3), false, f);
}

void num_put_interval(struct text *o, double lo, double hi, enum flavour f)
{
    double half = (hi - lo) / 2;
    text_add(o, "[");
    if (half > 0 && (half < 1e-5 || half >= 1e6)) {
        put_scientific(o, lo, 2, f);
        text_add(o, ", ");
        put_scientific(o, hi, 2, f);
    } else {
        int dec = half > 0 ? decimals(half, 2) : 0;
        put_fixed(o, lo, dec, true, f);
        text_add(o, ", ");
        put_fixed(o, hi, dec, true, f);
    }
    text_add(o, "]");
}

bool cell_has_interval(const struct rcell *c)
{
    return c->kind == RC_NUM && !isnan(c->lo) && !isnan(c->hi);
}

const char *note_mark(int note, enum flavour f)
{
    static const char *const plain[] = {"", "†", "‡", "§", "¶", "††", "‡‡", "§§", "¶¶"};
    static const char *const tex[] = {"",
                                      "\\textsuperscript{\\dag}",
                                      "\\textsuperscript{\\ddag}",
                                      "\\textsuperscript{\\S}",
                                      "\\textsuperscript{\\P}",
                                      "\\textsuperscript{\\dag\\dag}",
                                      "\\textsuperscript{\\ddag\\ddag}",
                                      "\\textsuperscript{\\S\\S}",
                                      "\\textsuperscript{\\P\\P}"};
    if (note < 0 || note >= (int)ARRAY_LEN(plain)) note = ARRAY_LEN(plain) - 1;
    return f == FLAVOUR_TEX ? tex[note] : plain[note];
}

void cell_put(struct text *o, const struct rcell *c, enum num_kind kind)
{
    if (c->kind == RC_TEXT) text_add(o, c->text);
    else if (c->kind == RC_NUM) num_put(o, c->mean, kind, FLAVOUR_PLAIN);
    else if (c->kind == RC_MISSING) text_add(o, "missing");
    if (c->kind == RC_REFUSED || c->note) text_add(o, note_mark(c->note, FLAVOUR_PLAIN));
}

void json_put_string(struct text *o, const char *s)
{
    if (!s) {
        text_add(o, "null");
        return;
    }
    text_add(o, "\"");
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') text_addf(o, "\\%c", c);
        else if (c == '\n') text_add(o, "\\n");
        else if (c == '\t') text_add(o, "\\t");
        else if (c < 0x20) text_addf(o, "\\u%04x", c);
        else text_addn(o, s, 1);
    }
    text_add(o, "\"");
}

void json_put_number(struct text *o, double v)
{
    char b[NUM_TEXT];
    text_add(o, isfinite(v) ? num_text(b, v) : "null");
}

void csv_put(struct text *o, const char *s)
{
    if (!s) return;
    if (!strpbrk(s, ",\"\r\n")) {
        text_add(o, s);
        return;
    }
    text_add(o, "\"");
    for (; *s; s++) text_addn(o, *s == '"' ? "\"\"" : s, *s == '"' ? 2 : 1);
    text_add(o, "\"");
}

void html_put(struct text *o, const char *s)
{
    for (; s && *s; s++) {
        if (*s == '&') text_add(o, "&amp;");
        else if (*s == '<') text_add(o, "&lt;");
        else if (*s == '>') text_add(o, "&gt;");
        else if (*s == '"') text_add(o, "&quot;");
        else text_addn(o, s, 1);
    }
}

int utf8_columns(const char *s)
{
    int n = 0;
    for (; *s; s++) n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

void spark_put(struct text *o, const struct rseries *s, bool log_y, int width)
{
    static const char *const bars[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    if (s->n == 0) return;
    if (width > s->n) width = s->n;
    double lo = INFINITY, hi = -INFINITY;
    for (int i = 0; i < s->n; i++) {
        double y = log_y ? log(s->y[i]) : s->y[i];
        if (isfinite(y)) lo = fmin(lo, y), hi = fmax(hi, y);
    }
    for (int k = 0; k < width; k++) {
        int a = (int)((int64_t)k * s->n / width), b = (int)((int64_t)(k + 1) * s->n / width), m = 0;
        double sum = 0;
        for (int i = a; i < b; i++) {
            double y = log_y ? log(s->y[i]) : s->y[i];
            if (isfinite(y)) sum += y, m++;
        }
        int level = !m ? -1 : hi > lo ? (int)((sum / m - lo) / (hi - lo) * 7.999) : 0;
        text_add(o, level < 0 ? " " : bars[level]);
    }
}
