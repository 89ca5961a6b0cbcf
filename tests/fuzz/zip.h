/* A stored zip in memory with right CRCs, so that mutations reach what is inside. */
#ifndef TESTS_FUZZ_ZIP_H
#define TESTS_FUZZ_ZIP_H

#include "core/base.h"

struct zip_member {
    const char *name;
    const void *data;
    size_t n;
};

static inline void zip_le(struct text *t, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++) text_addn(t, (char[]){i < 8 ? (char)(v >> 8 * i) : 0}, 1);
}

static inline void zip_fields(struct text *t, const struct zip_member *m)
{
    size_t len = 0;
    while (m->name[len]) len++;
    zip_le(t, 20, 2), zip_le(t, 0, 4), zip_le(t, 0, 2), zip_le(t, 0x21, 2);
    zip_le(t, crc32_of(0, m->data, m->n), 4), zip_le(t, m->n, 4), zip_le(t, m->n, 4);
    zip_le(t, len, 2), zip_le(t, 0, 2);
}

static inline void zip_make(struct text *t, const struct zip_member *m, int n)
{
    struct text dir = {0};
    for (int i = 0; i < n; i++) {
        text_add(&dir, "PK\1\2");
        zip_le(&dir, 20, 2);
        zip_fields(&dir, &m[i]);
        zip_le(&dir, 0, 10), zip_le(&dir, t->len, 4);
        text_add(&dir, m[i].name);
        text_add(t, "PK\3\4");
        zip_fields(t, &m[i]);
        text_add(t, m[i].name);
        text_addn(t, m[i].data, m[i].n);
    }
    size_t at = t->len;
    text_addn(t, dir.s, dir.len);
    text_add(t, "PK\5\6");
    zip_le(t, 0, 4), zip_le(t, (uint64_t)n, 2), zip_le(t, (uint64_t)n, 2), zip_le(t, dir.len, 4), zip_le(t, at, 4),
        zip_le(t, 0, 2);
    text_done(&dir);
}

#endif
