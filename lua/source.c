/* source: a function's identity must not change with comments and blanks, so it is made of tokens. Lua tells the lines of a function but
 * not its column: two functions that begin on one line cannot be told apart, and that is said instead of guessed. */
#include "lua/source.h"

#include <ctype.h>
#include <string.h>

/* Length of the long bracket text at p ("[[...]]", "[==[...]==]"), 0 if there is none. */
static size_t long_bracket(const char *p)
{
    if (p[0] != '[') return 0;
    size_t level = strspn(p + 1, "=");
    if (p[1 + level] != '[') return 0;
    for (const char *q = p + 2 + level; *q; q++) {
        if (q[0] == ']' && strspn(q + 1, "=") == level && q[1 + level] == ']') return (size_t)(q - p) + level + 2;
    }
    return strlen(p);
}

static size_t quoted(const char *p)
{
    const char *q = p + 1;
    while (*q && *q != *p) {
        if (q[0] == '\\' && q[1]) q++;
        q++;
    }
    return (size_t)(q - p) + (*q != 0);
}

static size_t number(const char *p)
{
    const char *q = p;
    bool hex = p[0] == '0' && (p[1] == 'x' || p[1] == 'X');
    while (isalnum((unsigned char)*q) || *q == '.') {
        bool exponent = hex ? (*q == 'p' || *q == 'P') : (*q == 'e' || *q == 'E');
        q++;
        if (exponent && (*q == '+' || *q == '-')) q++;
    }
    return (size_t)(q - p);
}

static size_t symbol(const char *p)
{
    static const char *const several[] = {"...", "..", "==", "~=", "<=", ">=", "//", "::", "<<", ">>"};
    for (size_t i = 0; i < ARRAY_LEN(several); i++) {
        size_t n = strlen(several[i]);
        if (!strncmp(p, several[i], n)) return n;
    }
    return 1;
}

/* Length of the blank or comment at p, 0 if a token begins there. */
static size_t nothing(const char *p)
{
    if (isspace((unsigned char)*p)) return 1;
    if (p[0] == '-' && p[1] == '-') {
        size_t n = long_bracket(p + 2);
        return n ? n + 2 : strcspn(p, "\n");
    }
    return 0;
}

static size_t token_length(const char *p)
{
    if (isalpha((unsigned char)*p) || *p == '_') {
        size_t n = 1;
        while (isalnum((unsigned char)p[n]) || p[n] == '_') n++;
        return n;
    }
    if (isdigit((unsigned char)*p) || (*p == '.' && isdigit((unsigned char)p[1]))) return number(p);
    if (*p == '"' || *p == '\'') return quoted(p);
    size_t n = long_bracket(p);
    return n ? n : symbol(p);
}

struct source *source_new(const char *text)
{
    struct source *s = mem_alloc(sizeof *s);
    int cap = 0, line = 1;
    s->text = text;
    const char *p = text;
    if (*p == '#') p += strcspn(p, "\n");
    while (*p) {
        size_t blank = nothing(p), n = blank ? blank : token_length(p);
        if (!blank) {
            if (s->n == cap) {
                int more = cap ? cap * 2 : 256;
                s->t = cap ? mem_grow(s->t, (size_t)cap * sizeof *s->t, (size_t)more * sizeof *s->t)
                           : mem_array((size_t)more, sizeof *s->t);
                cap = more;
            }
            s->t[s->n++] = (struct token){p, (int)n, line};
        }
        for (size_t i = 0; i < n; i++) line += p[i] == '\n';
        p += n;
    }
    return s;
}

void source_free(struct source *s)
{
    if (!s) return;
    mem_free(s->t);
    mem_free(s);
}

static bool is(const struct token *t, const char *word)
{
    return (size_t)t->n == strlen(word) && !memcmp(t->s, word, (size_t)t->n);
}

/* Index of the `end` that closes the function at token i, or n. */
static int function_end(const struct source *s, int i)
{
    int depth = 0;
    for (int k = i; k < s->n; k++) {
        const struct token *t = &s->t[k];
        if (is(t, "function") || is(t, "if") || is(t, "do") || is(t, "repeat")) depth++;
        if (is(t, "end") || is(t, "until")) depth--;
        if (!depth) return k;
    }
    return s->n;
}

int source_function(const struct source *s, int first, int last, struct text *out)
{
    int found = -1, count = 0;
    for (int i = 0; i < s->n; i++) {
        if (!is(&s->t[i], "function")) continue;
        /* Lua notes the line of the keyword for a statement and of the parenthesis for an expression. */
        int paren = i + 1;
        while (paren < s->n && !is(&s->t[paren], "(")) paren++;
        bool here = s->t[i].line == first || (paren < s->n && s->t[paren].line == first);
        if (!here) continue;
        count++;
        int end = function_end(s, i);
        if (end < s->n && s->t[end].line == last) found = i;
    }
    if (count > 1) return 2;
    if (found < 0) return 0;
    int end = function_end(s, found);
    /* The name of `function name(...)` is not part of what it computes. */
    text_add(out, "function");
    int i = found + 1;
    while (!is(&s->t[i], "(")) i++;
    for (; i <= end; i++) {
        text_add(out, " ");
        text_addn(out, s->t[i].s, (size_t)s->t[i].n);
    }
    return 1;
}

static bool is_key(const struct source *s, int i, const char *key)
{
    const struct token *t = &s->t[i];
    const struct token *next = i + 1 < s->n ? &s->t[i + 1] : NULL;
    if (!next) return false;
    if (is(t, key) && is(next, "=")) return true;
    size_t n = strlen(key);
    bool string = t->n == (int)n + 2 && (t->s[0] == '"' || t->s[0] == '\'') && !memcmp(t->s + 1, key, n);
    return string && is(next, "]");
}

int source_key_line(const struct source *s, int from, const char *key)
{
    const char *dot = strrchr(key, '.');
    for (const char *want = key; want; want = want == key && dot ? dot + 1 : NULL) {
        int depth = 0;
        bool inside = false;
        for (int i = 0; i < s->n; i++) {
            if (s->t[i].line < from) continue;
            char c = s->t[i].n == 1 ? s->t[i].s[0] : 0;
            if (c == '{' || c == '(') depth++, inside = true;
            if (c == '}' || c == ')') depth--;
            if (is_key(s, i, want)) return s->t[i].line;
            /* past the closing bracket of the call: later keys are not ours; curried calls go on with another bracket */
            if (inside && depth <= 0 && i + 1 < s->n && !strchr("{(", s->t[i + 1].s[0])) break;
        }
    }
    return from;
}
