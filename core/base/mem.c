/* Memory. A block carries no header of ours (its size is what malloc says it is), so address sanitizer and valgrind
 * see exact bounds and whole pointers. */
#include "core/base.h"

#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { MEM_ALIGN = 64 };

static atomic_uint_fast64_t calls, live, peak;

static void out_of_memory(size_t bytes)
{
    fprintf(stderr, "ect: out of memory (%zu bytes wanted)\n", bytes);
    abort();
}

static void *block_new(size_t bytes)
{
    void *p = NULL;
    if (bytes > SIZE_MAX / 2 || posix_memalign(&p, MEM_ALIGN, bytes ? bytes : 1)) out_of_memory(bytes);
    uint64_t now = atomic_fetch_add(&live, malloc_usable_size(p)) + malloc_usable_size(p);
    uint64_t top = atomic_load(&peak);
    while (now > top && !atomic_compare_exchange_weak(&peak, &top, now)) {}
    atomic_fetch_add(&calls, 1);
    return p;
}

void *mem_alloc(size_t bytes)
{
    return memset(block_new(bytes), 0, bytes ? bytes : 1);
}

void *mem_array(size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) out_of_memory(SIZE_MAX);
    return mem_alloc(bytes);
}

void *mem_grow(void *p, size_t old_bytes, size_t new_bytes)
{
    if (!p) return mem_alloc(new_bytes);
    char *q = block_new(new_bytes);
    size_t kept = old_bytes < new_bytes ? old_bytes : new_bytes;
    memcpy(q, p, kept);
    memset(q + kept, 0, new_bytes - kept);
    mem_free(p);
    return q;
}

void mem_free(void *p)
{
    if (!p) return;
    atomic_fetch_sub(&live, malloc_usable_size(p));
    free(p);
}

char *mem_strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(mem_alloc(n), s, n);
}

static char *vprint(struct arena *a, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    if (n < 0) n = 0;
    char *s = a ? arena_alloc(a, (size_t)n + 1) : mem_alloc((size_t)n + 1);
    vsnprintf(s, (size_t)n + 1, fmt, ap);
    return s;
}

char *mem_printf(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *s = vprint(NULL, fmt, ap);
    va_end(ap);
    return s;
}

uint64_t mem_count(void)
{
    return atomic_load(&calls);
}

uint64_t mem_live(void)
{
    return atomic_load(&live);
}

uint64_t mem_peak(void)
{
    return atomic_load(&peak);
}

/* ---- arenas ------------------------------------------------------------------------------------------------------ */

struct arena_block {
    struct arena_block *next;
    size_t used, cap; /* bytes of data */
    _Alignas(MEM_ALIGN) char data[];
};

enum { ARENA_BLOCK = 16384 };

void arena_init(struct arena *a)
{
    a->head = NULL;
}

void *arena_alloc(struct arena *a, size_t bytes)
{
    if (bytes > SIZE_MAX / 2) out_of_memory(bytes);
    size_t want = (bytes + MEM_ALIGN - 1) & ~(size_t)(MEM_ALIGN - 1);
    struct arena_block *b = a->head;
    if (!b || b->cap - b->used < want) {
        size_t cap = want > ARENA_BLOCK / 4 ? want : ARENA_BLOCK;
        struct arena_block *fresh = mem_alloc(sizeof *fresh + cap);
        fresh->cap = cap;
        /* a block of its own for something large goes behind the head, whose rest stays in use */
        if (b && cap == want && cap != ARENA_BLOCK) {
            fresh->next = b->next;
            b->next = fresh;
        } else {
            fresh->next = b;
            a->head = fresh;
        }
        b = fresh;
    }
    void *p = b->data + b->used;
    b->used += want;
    return p;
}

char *arena_strdup(struct arena *a, const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(arena_alloc(a, n), s, n);
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *s = vprint(a, fmt, ap);
    va_end(ap);
    return s;
}

void arena_done(struct arena *a)
{
    for (struct arena_block *b = a->head, *next; b; b = next) {
        next = b->next;
        mem_free(b);
    }
    a->head = NULL;
}
