/* spec: one table made from spec.def serves every use of a setting. A value has exactly one canonical text: reading any spelling
 * of it and writing it back gives that text, so equal settings have equal hashes. */
#include "core/spec.h"

#include <assert.h>
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const struct spec_field spec_fields[] = {
#define S(class, type, field, key, def, range, help)                                                                   \
    {SPEC_##class, SPEC_##type, key, def, range, help, offsetof(struct spec, field)},
#include "core/spec.def"
#undef S
};
enum { NFIELDS = ARRAY_LEN(spec_fields) };
const int spec_nfields = NFIELDS;

const struct spec_field *spec_find(const char *key)
{
    for (int i = 0; i < NFIELDS; i++) {
        if (!strcmp(spec_fields[i].key, key)) return &spec_fields[i];
    }
    return NULL;
}

/* ---- ranges -------------------------------------------------------------------------------------------------------- */

static bool range_is_interval(const char *range, double *lo, double *hi)
{
    const char *dots = strstr(range, "..");
    char low[NUM_TEXT];
    if (!dots || dots - range >= NUM_TEXT) return false;
    memcpy(low, range, (size_t)(dots - range));
    low[dots - range] = 0;
    return num_parse(low, lo) && num_parse(dots + 2, hi);
}

/* Is word one of "a|b|c"? */
static bool range_has_word(const char *range, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = range;; p = strchr(p, '|') + 1) {
        if (!strncmp(p, word, n) && (p[n] == '|' || p[n] == 0)) return true;
        if (!strchr(p, '|')) return false;
    }
}

static err_t check_number(const struct spec_field *f, double v)
{
    double lo, hi;
    char text[NUM_TEXT];
    if (!f->range[0]) return ERR_OK;
    if (range_is_interval(f->range, &lo, &hi)) {
        if (v >= lo && v <= hi) return ERR_OK;
        return fail(ERR_USAGE, "%s = %s: must be in %s", f->key, num_text(text, v), f->range);
    }
    if (range_has_word(f->range, num_text(text, v))) return ERR_OK;
    return fail(ERR_USAGE, "%s = %s: must be %s", f->key, text, f->range);
}

static err_t check_word(const struct spec_field *f, const char *word)
{
    enum { WORDS = 32 };
    char buf[512];
    const char *words[WORDS];
    size_t n = 0;
    if (!f->range[0] || range_has_word(f->range, word)) return ERR_OK;
    snprintf(buf, sizeof buf, "%s", f->range);
    for (char *p = buf; p && n < WORDS;) {
        words[n++] = p;
        p = strchr(p, '|');
        if (p) *p++ = 0;
    }
    const char *near = nearest_name(word, words, n);
    return fail(ERR_USAGE, "%s = %s: must be %s%s%s%s", f->key, word, f->range, near ? "; did you mean '" : "",
                near ? near : "", near ? "'?" : "");
}

/* ---- text to value --------------------------------------------------------------------------------------------------- */

static err_t real_from(const struct spec_field *f, const char *text, double *out)
{
    double v;
    if (!num_parse(text, &v)) return fail(ERR_USAGE, "%s = %s: a number is needed", f->key, text);
    if (!isfinite(v)) return fail(ERR_USAGE, "%s = %s: a finite number is needed", f->key, text);
    TRY(check_number(f, v));
    *out = v == 0 ? 0 : v; /* -0 and 0 are one value */
    return ERR_OK;
}

static err_t int_from(const struct spec_field *f, const char *text, int64_t *out)
{
    int64_t v;
    if (!int_parse(text, &v)) return fail(ERR_USAGE, "%s = %s: a whole number is needed", f->key, text);
    TRY(check_number(f, (double)v));
    *out = v;
    return ERR_OK;
}

static err_t bool_from(const struct spec_field *f, const char *text, bool *out)
{
    if (strcmp(text, "true") && strcmp(text, "false"))
        return fail(ERR_USAGE, "%s = %s: true or false is needed", f->key, text);
    *out = text[0] == 't';
    return ERR_OK;
}

static err_t word_from(const struct spec_field *f, const char *text, char *out, size_t cap)
{
    if (strlen(text) >= cap)
        return fail(ERR_USAGE, "%s: text of %zu bytes, at most %zu fit", f->key, strlen(text), cap - 1);
    TRY(check_word(f, text));
    strcpy(out, text);
    return ERR_OK;
}

static err_t fn_from(const struct spec_field *f, const char *text, struct spec_fn *out)
{
    double v;
    char number[NUM_TEXT];
    if (num_parse(text, &v)) {
        if (!isfinite(v)) return fail(ERR_USAGE, "%s = %s: a finite number or a function is needed", f->key, text);
        text = num_text(number, v == 0 ? 0 : v);
    }
    return word_from(f, text, out->id, sizeof out->id);
}

/* Copies text without surrounding blanks; for a list also without one pair of brackets. */
static err_t trimmed(const struct spec_field *f, const char *text, bool list, char *out, size_t cap)
{
    for (const char *p = text; *p; p++) {
        if ((unsigned char)*p < ' ' && *p != '\t') return fail(ERR_USAGE, "%s: control character in its value", f->key);
    }
    size_t n = strlen(text);
    for (int round = 0; round < 2; round++) {
        while (n && isspace((unsigned char)text[0])) text++, n--;
        while (n && isspace((unsigned char)text[n - 1])) n--;
        bool brackets = n >= 2 && ((text[0] == '[' && text[n - 1] == ']') || (text[0] == '{' && text[n - 1] == '}'));
        if (round || !list || !brackets) continue;
        text++, n -= 2;
    }
    if (n >= cap) return fail(ERR_USAGE, "%s: text of %zu bytes is too long", f->key, n);
    memcpy(out, text, n);
    out[n] = 0;
    return ERR_OK;
}

/* Splits buf in place at commas; blanks around words go. */
static err_t split(const struct spec_field *f, char *buf, char *word[SPEC_LIST], int *n)
{
    *n = 0;
    if (!buf[0]) return ERR_OK;
    for (char *p = buf; p;) {
        char *comma = strchr(p, ',');
        if (comma) *comma = 0;
        while (isspace((unsigned char)*p)) p++;
        for (char *end = p + strlen(p); end > p && isspace((unsigned char)end[-1]);) *--end = 0;
        if (!*p) return fail(ERR_USAGE, "%s: an empty item in the list", f->key);
        if (*n == SPEC_LIST) return fail(ERR_USAGE, "%s: more than %d items", f->key, SPEC_LIST);
        word[(*n)++] = p;
        p = comma ? comma + 1 : NULL;
    }
    return ERR_OK;
}

static err_t list_from(const struct spec_field *f, char *buf, struct spec *s)
{
    char *word[SPEC_LIST];
    int n;
    void *at = (char *)s + f->offset;
    TRY(split(f, buf, word, &n));
    if (f->type == SPEC_INTS) {
        struct spec_ints v = {.n = n};
        for (int i = 0; i < n; i++) TRY(int_from(f, word[i], &v.v[i]));
        *(struct spec_ints *)at = v;
    } else if (f->type == SPEC_REALS) {
        struct spec_reals v = {.n = n};
        for (int i = 0; i < n; i++) TRY(real_from(f, word[i], &v.v[i]));
        *(struct spec_reals *)at = v;
    } else {
        struct spec_texts v = {.n = n};
        for (int i = 0; i < n; i++) TRY(word_from(f, word[i], v.v[i], sizeof v.v[i]));
        *(struct spec_texts *)at = v;
    }
    return ERR_OK;
}

static err_t field_set(struct spec *s, const struct spec_field *f, const char *value)
{
    char buf[2048];
    void *at = (char *)s + f->offset;
    bool list = f->type == SPEC_INTS || f->type == SPEC_REALS || f->type == SPEC_TEXTS;
    TRY(trimmed(f, value, list, buf, sizeof buf));
    switch (f->type) {
    case SPEC_INT: return int_from(f, buf, at);
    case SPEC_REAL: return real_from(f, buf, at);
    case SPEC_BOOL: return bool_from(f, buf, at);
    case SPEC_TEXT: return word_from(f, buf, ((struct spec_word *)at)->s, SPEC_WORD);
    case SPEC_FN: return fn_from(f, buf, at);
    case SPEC_INTS:
    case SPEC_REALS:
    case SPEC_TEXTS: return list_from(f, buf, s);
    }
    return fail(ERR_FAILED, "%s: setting of unknown type", f->key);
}

err_t spec_set(struct spec *s, const char *key, const char *value)
{
    const struct spec_field *f = spec_find(key);
    if (f) return field_set(s, f, value);
    const char *names[NFIELDS];
    for (int i = 0; i < NFIELDS; i++) names[i] = spec_fields[i].key;
    const char *near = nearest_name(key, names, NFIELDS);
    if (near) return fail(ERR_USAGE, "unknown setting '%s': did you mean '%s'?", key, near);
    return fail(ERR_USAGE, "unknown setting '%s' (ect help settings lists them)", key);
}

void spec_defaults(struct spec *s)
{
    memset(s, 0, sizeof *s);
    for (int i = 0; i < NFIELDS; i++) {
        err_t e = field_set(s, &spec_fields[i], spec_fields[i].def);
        assert(!e);
        (void)e;
    }
}

/* ---- value to text --------------------------------------------------------------------------------------------------- */

static void add_number(struct text *out, double v, bool comma)
{
    char buf[NUM_TEXT];
    if (comma) text_add(out, ",");
    text_add(out, num_text(buf, v));
}

void spec_get(const struct spec *s, const struct spec_field *f, struct text *out)
{
    const void *at = (const char *)s + f->offset;
    const struct spec_ints *ints = at;
    const struct spec_reals *reals = at;
    const struct spec_texts *texts = at;
    switch (f->type) {
    case SPEC_INT: text_addf(out, "%lld", (long long)*(const int64_t *)at); break;
    case SPEC_REAL: add_number(out, *(const double *)at, false); break;
    case SPEC_BOOL: text_add(out, *(const bool *)at ? "true" : "false"); break;
    case SPEC_TEXT: text_add(out, ((const struct spec_word *)at)->s); break;
    case SPEC_FN: text_add(out, ((const struct spec_fn *)at)->id); break;
    case SPEC_INTS:
        for (int i = 0; i < ints->n; i++) text_addf(out, "%s%lld", i ? "," : "", (long long)ints->v[i]);
        break;
    case SPEC_REALS:
        for (int i = 0; i < reals->n; i++) add_number(out, reals->v[i], i > 0);
        break;
    case SPEC_TEXTS:
        for (int i = 0; i < texts->n; i++) text_addf(out, "%s%s", i ? "," : "", texts->v[i]);
        break;
    }
}

bool spec_is_default(const struct spec *s, const struct spec_field *f)
{
    struct spec d;
    struct text now = {0}, def = {0};
    err_t e = field_set(&d, f, f->def);
    assert(!e);
    (void)e;
    spec_get(s, f, &now);
    spec_get(&d, f, &def);
    bool same = !strcmp(text_str(&now), text_str(&def));
    text_done(&now);
    text_done(&def);
    return same;
}

static int by_key(const void *a, const void *b)
{
    return strcmp((*(const struct spec_field *const *)a)->key, (*(const struct spec_field *const *)b)->key);
}

void spec_canon(const struct spec *s, enum spec_class class, struct text *out)
{
    const struct spec_field *sorted[NFIELDS];
    for (int i = 0; i < NFIELDS; i++) sorted[i] = &spec_fields[i];
    qsort(sorted, NFIELDS, sizeof sorted[0], by_key);
    if (class == SPEC_TRAIN) text_addf(out, "numerics=%d\n", SPEC_NUMERICS);
    for (int i = 0; i < NFIELDS; i++) {
        if (sorted[i]->class != class || spec_is_default(s, sorted[i])) continue;
        text_addf(out, "%s=", sorted[i]->key);
        spec_get(s, sorted[i], out);
        text_add(out, "\n");
    }
}

void spec_hash(const struct spec *s, char out[SHA256_TEXT])
{
    struct text t = {0};
    spec_canon(s, SPEC_TRAIN, &t);
    sha256_text(text_str(&t), t.len, out);
    text_done(&t);
}

err_t spec_parse(struct spec *s, const char *canon)
{
    char line[2048];
    spec_defaults(s);
    for (const char *p = canon; *p;) {
        size_t n = strcspn(p, "\n");
        if (n >= sizeof line) return fail(ERR_FORMAT, "settings text: a line of %zu bytes", n);
        memcpy(line, p, n);
        line[n] = 0;
        p += n + (p[n] == '\n');
        if (!n) continue;
        char *eq = strchr(line, '=');
        if (!eq) return fail(ERR_FORMAT, "settings text: no '=' in \"%.60s\"", line);
        *eq = 0;
        if (strcmp(line, "numerics")) {
            TRY(spec_set(s, line, eq + 1));
            continue;
        }
        int64_t v;
        if (!int_parse(eq + 1, &v)) return fail(ERR_FORMAT, "settings text: numerics=%.20s", eq + 1);
        if (v > SPEC_NUMERICS)
            return fail(ERR_NEWER, "settings of a newer version (numerics %lld, this program has %d)", (long long)v,
                        SPEC_NUMERICS);
    }
    return ERR_OK;
}

void spec_help(struct text *out)
{
    static const char *const class_name[] = {"train: part of a run's identity",
                                             "eval: part of an evaluation's identity", "exec: recorded only"};
    static const char *const type_name[] = {"integer",  "number",  "true|false", "text",
                                            "integers", "numbers", "words",      "function"};
    for (int class = SPEC_TRAIN; class <= SPEC_EXEC; class ++) {
        text_addf(out, "%s%s\n", class ? "\n" : "", class_name[class]);
        for (int i = 0; i < NFIELDS; i++) {
            const struct spec_field *f = &spec_fields[i];
            if ((int)f->class != class) continue;
            text_addf(out, "  %-18s %-10s %s\n", f->key, type_name[f->type], f->help);
            text_addf(out, "  %-18s %-10s default %s%s%s\n", "", "", f->def[0] ? f->def : "(none)",
                      f->range[0] ? "; " : "", f->range);
        }
    }
}
