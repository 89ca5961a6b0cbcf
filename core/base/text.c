/* Growing text, canonical numbers, and "did you mean". A number has one text, so equal settings hash equally. */
#include "core/base.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void text_reserve(struct text *t, size_t more)
{
    size_t need = t->len + more + 1;
    if (need <= t->cap) return;
    size_t cap = t->cap ? t->cap * 2 : 64;
    while (cap < need) cap *= 2;
    t->s = mem_grow(t->s, t->s ? t->len + 1 : 0, cap);
    t->cap = cap;
}

void text_addn(struct text *t, const char *s, size_t n)
{
    text_reserve(t, n);
    if (n) memcpy(t->s + t->len, s, n);
    t->len += n;
    t->s[t->len] = 0;
}

void text_add(struct text *t, const char *s)
{
    text_addn(t, s, strlen(s));
}

void text_addf(struct text *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) return;
    text_reserve(t, (size_t)n);
    va_start(ap, fmt);
    vsnprintf(t->s + t->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    t->len += (size_t)n;
}

const char *text_str(const struct text *t)
{
    return t->s ? t->s : "";
}

void text_done(struct text *t)
{
    mem_free(t->s);
    *t = (struct text){0};
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

char *num_text(char buf[NUM_TEXT], double v)
{
    if (isnan(v)) return strcpy(buf, "nan");
    if (isinf(v)) return strcpy(buf, v < 0 ? "-inf" : "inf");
    if (fabs(v) < 1e15 && v == floor(v)) { /* minus zero is zero here: equal settings, equal text */
        snprintf(buf, NUM_TEXT, "%lld", (long long)v);
        return buf;
    }
    /* Up to 15 digits survive the way through a normal double unchanged, so %.15g already shows the shortest if it
     * reads back. */
    for (int digits = fabs(v) < 1e-300 ? 1 : 15; digits <= 17; digits++) {
        snprintf(buf, NUM_TEXT, "%.*g", digits, v);
        if (strtod(buf, NULL) == v) break;
    }
    char *e = strchr(buf, 'e'); /* e-05 -> e-5, e+20 -> e20 */
    if (e) {
        char *from = e + 1, *to = e + 1;
        if (*from == '-') from++, to++;
        else if (*from == '+') from++;
        while (*from == '0' && from[1]) from++;
        memmove(to, from, strlen(from) + 1);
    }
    return buf;
}

bool num_parse(const char *s, double *v)
{
    const char *p = s + (*s == '-' || *s == '+');
    bool word = !strcmp(p, "inf") || !strcmp(p, "nan");
    if (!word && (strspn(p, "0123456789.eE+-") != strlen(p) || !(isdigit((unsigned char)*p) || *p == '.')))
        return false;
    char *end;
    double x = strtod(s, &end);
    if (end == s || *end) return false;
    if (isinf(x) && !word) return false; /* 1e999 is a slip, not infinity */
    *v = x;
    return true;
}

bool int_parse(const char *s, int64_t *v)
{
    const char *digits = s + (*s == '-' || *s == '+');
    size_t n = strspn(digits, "0123456789");
    if (n && !digits[n] && n <= 18) { /* beyond 2^53 a double would lose digits */
        *v = strtoll(s, NULL, 10);
        return true;
    }
    double x;
    if (!num_parse(s, &x) || x != floor(x) || fabs(x) > 9007199254740992.0) return false;
    *v = (int64_t)x;
    return true;
}

/* ---- nearest name ------------------------------------------------------------------------------------------------ */

enum { NAME_MAX_LEN = 96 };

/* Edits: insert, delete, replace, swap neighbours. Letters' case and '-' against '_' cost nothing. */
static int edit_distance(const char *a, const char *b)
{
    int rows[3][NAME_MAX_LEN + 1], na = (int)strlen(a), nb = (int)strlen(b);
    if (na > NAME_MAX_LEN || nb > NAME_MAX_LEN) return NAME_MAX_LEN;
    for (int j = 0; j <= nb; j++) rows[0][j] = j;
    for (int i = 1; i <= na; i++) {
        int *cur = rows[i % 3], *up = rows[(i + 2) % 3], *up2 = rows[(i + 1) % 3];
        cur[0] = i;
        for (int j = 1; j <= nb; j++) {
            char ca = a[i - 1] == '-' ? '_' : (char)tolower((unsigned char)a[i - 1]);
            char cb = b[j - 1] == '-' ? '_' : (char)tolower((unsigned char)b[j - 1]);
            int best = up[j - 1] + (ca != cb);
            if (up[j] + 1 < best) best = up[j] + 1;
            if (cur[j - 1] + 1 < best) best = cur[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && up2[j - 2] + 1 < best)
                best = up2[j - 2] + 1;
            cur[j] = best;
        }
    }
    return rows[na % 3][nb];
}

const char *nearest_name(const char *word, const char *const *names, size_t n)
{
    const char *best = NULL;
    size_t len = strlen(word);
    int best_d = 1 + (int)(len < 3 ? 1 : (len + 2) / 3); /* farther than a third of the word is another word */
    for (size_t i = 0; i < n; i++) {
        int d = edit_distance(word, names[i]);
        /* a bare last part of a dotted name (lr for optim.lr) counts as near */
        const char *dot = strrchr(names[i], '.');
        if (dot && !strcmp(dot + 1, word)) d = 1;
        if (d < best_d) {
            best_d = d;
            best = names[i];
        }
    }
    return best;
}
