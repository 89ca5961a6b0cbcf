/* pickle: reads Python's pickles as data. A pickle is a program for a stack machine that may call anything; this one builds
 * values and calls nothing. What a checkpoint needs (OrderedDict, sets, tensors, modules) becomes a value or an inert record;
 * a call of anything else, and any mention of os, subprocess and the like, is refused by name (ERR_FORMAT).
 *
 * Bounds. Values, stack and memo together take at most a constant times the bytes read; every length is checked before it is
 * believed; nothing here recurses. Values can be shared (memo) and can contain themselves: a walk has to expect both.
 * Protocols 0 to 5 without out-of-band buffers. */
#ifndef CORE_IO_PICKLE_H
#define CORE_IO_PICKLE_H

#include "core/base.h"

enum pv_kind {
    PV_NONE,
    PV_BOOL,
    PV_INT,
    PV_BIG, /* an integer beyond 64 bits: decimal text in s */
    PV_FLOAT,
    PV_STR,   /* UTF-8, not NUL-terminated */
    PV_BYTES, /* also a Python 2 string that is no UTF-8 */
    PV_LIST,
    PV_TUPLE,
    PV_SET,
    PV_DICT,
    PV_NAME,    /* a class or function, by its name only */
    PV_RECORD,  /* an object: what it would be made from */
    PV_STORAGE, /* of the hooks' making */
    PV_TENSOR,  /* likewise */
    PV_MARK     /* never seen outside */
};
struct pv {
    enum pv_kind kind;
    bool open; /* for a walk's use: on the path to the root */
    union {
        bool b;
        int64_t i;
        double f;
        struct {
            const char *s;
            size_t n;
            struct pv *parsed; /* what a hook made of these bytes, so that it does so once */
        };
        struct {
            struct pv **at; /* a dict has key, value, key, value ... */
            size_t count, cap;
        };
        struct {
            const char *module, *name; /* NUL-terminated */
        };
        struct {
            struct pv *what;  /* PV_NAME */
            struct pv *args;  /* PV_TUPLE or NULL */
            struct pv *state; /* what BUILD gave, or NULL */
            struct pv *items; /* PV_DICT or PV_LIST of a subclass of those, or NULL */
        };
        void *ptr; /* PV_STORAGE, PV_TENSOR */
    };
};

struct pickle {
    struct arena arena; /* owns every value; texts may also point into the bytes read */
    char *chunk;
    size_t chunk_left;
    size_t budget;  /* bytes of values that may still be made */
    size_t nvalues; /* made so far */
    void *ctx;      /* of the hooks; each may be NULL */
    /* A persistent id (PyTorch: a storage): gives its value. */
    err_t (*persid)(void *ctx, struct pv *id, struct pv **out);
    /* A call with its arguments, and again after BUILD: may turn the record into another value, in place. */
    err_t (*reduced)(void *ctx, struct pv *record);
};
void pickle_init(struct pickle *p, size_t file_size);
/* Reads one pickle; used: bytes up to and with STOP. data must outlive the values. Messages name the byte. */
err_t pickle_read(struct pickle *p, const void *data, size_t n, struct pv **root, size_t *used) MUST_USE;
void pickle_done(struct pickle *p);

/* For hooks: memory within the budget, or NULL with the failure recorded. */
void *pickle_alloc(struct pickle *p, size_t bytes);
err_t pickle_over(void) MUST_USE; /* the failure of an exhausted budget */

bool pv_is_name(const struct pv *v, const char *module, const char *name);
bool pv_utf8(const char *s, size_t n);
bool pv_is_str(const struct pv *v, const char *s);
struct pv *pv_get(const struct pv *dict, const char *key); /* the last of that key; NULL if absent or no dict */
/* JSON text of a tree of values (records as {"class": ..., ...}, tensors as null); NULL where it nests more than 100 deep or would
 * be longer than most bytes. mem_free. */
char *pv_json(const struct pv *v, size_t most);

#endif
