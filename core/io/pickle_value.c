/* Values of a pickle for those who walk them: lookups and JSON. Values may be shared a million times over or contain themselves, so
 * a walk is bounded by depth and by the length of what it writes. */
#include "core/io/pickle.h"

#include <math.h>
#include <string.h>

/* ---- values ------------------------------------------------------------------------------------------------------ */

bool pv_is_name(const struct pv *v, const char *module, const char *name)
{
    return v && v->kind == PV_NAME && !strcmp(v->module, module) && !strcmp(v->name, name);
}

bool pv_is_str(const struct pv *v, const char *s)
{
    return v && v->kind == PV_STR && v->n == strlen(s) && !memcmp(v->s, s, v->n);
}

struct pv *pv_get(const struct pv *dict, const char *key)
{
    if (!dict || dict->kind != PV_DICT) return NULL;
    for (size_t i = dict->count; i-- > 0;)
        if (pv_is_str(dict->at[2 * i], key)) return dict->at[2 * i + 1];
    return NULL;
}

bool pv_utf8(const char *text, size_t n)
{
    const uint8_t *s = (const uint8_t *)text;
    for (size_t i = 0; i < n;) {
        uint32_t c = s[i];
        size_t more = c < 0x80 ? 0 : c >= 0xc2 && c < 0xe0 ? 1 : (c & 0xf0) == 0xe0 ? 2 : c >= 0xf0 && c < 0xf5 ? 3 : 9;
        if (more == 9 || n - i <= more) return false;
        c &= 0x7f >> (more ? more + 1 : 0);
        for (size_t k = 1; k <= more; k++) {
            if ((s[i + k] & 0xc0) != 0x80) return false;
            c = c << 6 | (s[i + k] & 0x3f);
        }
        if ((more == 2 && (c < 0x800 || (c >= 0xd800 && c < 0xe000))) || (more == 3 && (c < 0x10000 || c > 0x10ffff)))
            return false;
        i += more + 1;
    }
    return true;
}

static void json_text(struct text *t, const char *s, size_t n)
{
    text_add(t, "\"");
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == '"' || c == '\\') text_addf(t, "\\%c", c);
        else if (c < 32 || c == 127) text_addf(t, "\\u%04x", c);
        else text_addn(t, s + i, 1);
    }
    text_add(t, "\"");
}

static bool json_add(struct text *t, const struct pv *v, int depth, size_t most);

static bool json_pairs(struct text *t, const struct pv *v, int depth, size_t most)
{
    for (size_t i = 0; i < v->count; i++) {
        const struct pv *key = v->at[2 * i];
        if (t->s[t->len - 1] != '{') text_add(t, ", ");
        if (key->kind == PV_STR || key->kind == PV_BIG) json_text(t, key->s, key->n);
        else if (key->kind == PV_INT) text_addf(t, "\"%lld\"", (long long)key->i);
        else text_addf(t, "\"#%zu\"", i);
        text_add(t, ": ");
        if (!json_add(t, v->at[2 * i + 1], depth + 1, most)) return false;
    }
    return true;
}

/* An object's class and what it holds. */
static bool json_record(struct text *t, const struct pv *v, int depth, size_t most)
{
    text_add(t, "{\"class\": ");
    struct text name = {0};
    text_addf(&name, "%s.%s", v->what->module, v->what->name);
    json_text(t, name.s, name.len);
    text_done(&name);
    if (v->args && v->args->count) {
        text_add(t, ", \"args\": ");
        if (!json_add(t, v->args, depth + 1, most)) return false;
    }
    if (v->state) {
        text_add(t, ", \"state\": ");
        if (!json_add(t, v->state, depth + 1, most)) return false;
    }
    if (v->items) {
        text_add(t, ", \"items\": ");
        if (!json_add(t, v->items, depth + 1, most)) return false;
    }
    text_add(t, "}");
    return true;
}

static bool json_add(struct text *t, const struct pv *v, int depth, size_t most)
{
    char num[NUM_TEXT];
    if (depth > 100 || t->len > most) return false;
    switch (v->kind) {
    case PV_BOOL: text_add(t, v->b ? "true" : "false"); return true;
    case PV_INT: text_addf(t, "%lld", (long long)v->i); return true;
    case PV_BIG: json_text(t, v->s, v->n); return true; /* as text: no reader of JSON keeps such a number */
    case PV_FLOAT:
        if (isfinite(v->f)) text_add(t, num_text(num, v->f));
        else json_text(t, num, strlen(num_text(num, v->f)));
        return true;
    case PV_STR:
        if (v->n > most) return false;
        json_text(t, v->s, v->n);
        return true;
    case PV_LIST:
    case PV_TUPLE:
    case PV_SET:
        text_add(t, "[");
        for (size_t i = 0; i < v->count; i++) {
            if (i) text_add(t, ", ");
            if (!json_add(t, v->at[i], depth + 1, most)) return false;
        }
        text_add(t, "]");
        return true;
    case PV_DICT:
        text_add(t, "{");
        if (!json_pairs(t, v, depth, most)) return false;
        text_add(t, "}");
        return true;
    case PV_NAME: text_addf(t, "\"%s.%s\"", v->module, v->name); return true; /* names have no quotes: name_check */
    case PV_RECORD: return json_record(t, v, depth, most);
    default: text_add(t, "null"); return true;
    }
}

char *pv_json(const struct pv *v, size_t most)
{
    struct text t = {0};
    char *out = json_add(&t, v, 0, most) && t.len <= most ? mem_strdup(text_str(&t)) : NULL;
    text_done(&t);
    return out;
}
