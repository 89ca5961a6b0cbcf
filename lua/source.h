/* source: the tokens of a Lua source text, to find a function by its lines and to say where in a call a key stands. */
#ifndef LUA_SOURCE_H
#define LUA_SOURCE_H

#include "core/base.h"

struct token {
    const char *s; /* into the text */
    int n, line;
};
struct source {
    struct token *t;
    int n;
    const char *text;
};
/* text must outlive the result. It is text that Lua has compiled, so it is well formed; anything odd becomes one-byte tokens. */
struct source *source_new(const char *text);
void source_free(struct source *s);

/* Tokens of the function that Lua says spans the lines first..last, joined by one blank. Returns 0 if none is there, 2 if the line has
 * several functions (then which one is meant cannot be told), 1 if found. */
int source_function(const struct source *s, int first, int last, struct text *out);
/* Line of the key in the call that begins on line from: the name or string token key (or its part after the last dot) followed by =
 * or ]. from if it is not found. */
int source_key_line(const struct source *s, int from, const char *key);

#endif
