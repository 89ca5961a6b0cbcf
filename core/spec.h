/* spec: the settings of one run, generated from spec.def: the struct, defaults, parsing, canonical text, identity, help.
 *
 * Identity. The canonical text holds the TRAIN settings that differ from their default, sorted by key, one "key=value\n"
 * each, numbers in canonical text (core/base.h), after a first line "numerics=N\n". Its SHA-256 is the config hash. */
#ifndef CORE_SPEC_H
#define CORE_SPEC_H

#include "core/base.h"

enum { SPEC_NUMERICS = 1 }; /* raised by a commit that changes training bytes on purpose */
enum { SPEC_LIST = 16, SPEC_WORD = 256 };

enum spec_class { SPEC_TRAIN, SPEC_EVAL, SPEC_EXEC };
enum spec_type { SPEC_INT, SPEC_REAL, SPEC_BOOL, SPEC_TEXT, SPEC_INTS, SPEC_REALS, SPEC_TEXTS, SPEC_FN };

struct spec_ints {
    int n;
    int64_t v[SPEC_LIST];
};
struct spec_reals {
    int n;
    double v[SPEC_LIST];
};
struct spec_texts {
    int n;
    char v[SPEC_LIST][64];
};
struct spec_word {
    char s[SPEC_WORD];
};
/* A design function: its identity text. Of a library function: name(parameters sorted, all of them)@version, such as
 * "sigmoid(b=1,k=8,q=2)@1" or "inv_dt()@1"; of a script's: "lua:<hash>"; a number stands for a constant. The callable itself lives
 * with the script. */
struct spec_fn {
    char id[1024];
};

struct spec {
#define SPEC_CTYPE_INT int64_t
#define SPEC_CTYPE_REAL double
#define SPEC_CTYPE_BOOL bool
#define SPEC_CTYPE_TEXT struct spec_word
#define SPEC_CTYPE_INTS struct spec_ints
#define SPEC_CTYPE_REALS struct spec_reals
#define SPEC_CTYPE_TEXTS struct spec_texts
#define SPEC_CTYPE_FN struct spec_fn
#define S(class, type, field, key, def, range, help) SPEC_CTYPE_##type field;
#include "core/spec.def"
#undef S
};

struct spec_field {
    enum spec_class class;
    enum spec_type type;
    const char *key, *def, *range, *help;
    size_t offset;
};
extern const struct spec_field spec_fields[]; /* in the order of spec.def */
extern const int spec_nfields;
const struct spec_field *spec_find(const char *key); /* NULL if unknown */

void spec_defaults(struct spec *s);
/* Sets key from text (lists: comma-separated, brackets allowed; whole numbers also as 1e6). ERR_USAGE names the nearest key, or
 * the range; s is then as it was. */
err_t spec_set(struct spec *s, const char *key, const char *value) MUST_USE;
/* The value in canonical text. */
void spec_get(const struct spec *s, const struct spec_field *f, struct text *out);
bool spec_is_default(const struct spec *s, const struct spec_field *f);
/* Canonical text and hash of the TRAIN settings; of the EVAL settings. */
void spec_canon(const struct spec *s, enum spec_class class, struct text *out);
void spec_hash(const struct spec *s, char out[SHA256_TEXT]);
/* Reads back what spec_canon wrote (over defaults). ERR_NEWER: written by a version with higher numerics. */
err_t spec_parse(struct spec *s, const char *canon) MUST_USE;
/* Networks by the names people use (core/nets.h): sets `net` and all settings net.*; false and nothing set if there is none of that
 * name. spec_preset_name: of network i from 0; NULL after the last. */
bool spec_preset(struct spec *s, const char *name);
const char *spec_preset_name(int i);
/* Help table of all settings, for `ect help settings`. */
void spec_help(struct text *out);

#endif
