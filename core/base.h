/* base: what every directory may include. Errors, logging, memory, text, hashes. Depends on libc only.
 *
 * Errors. What can fail outside our control returns err_t. The text of the last failure of the calling thread is
 * kept by fail() and read with err_text(); only the program's main prints it and exits.
 */
#ifndef CORE_BASE_H
#define CORE_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define PRINTF(a, b) __attribute__((format(printf, a, b)))
#define MUST_USE __attribute__((warn_unused_result))
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* ---- errors ------------------------------------------------------------------------------------------------ */

enum err {
    ERR_OK = 0,
    ERR_FAILED,      /* anything without a class of its own                              exit 1  */
    ERR_USAGE,       /* bad command line, bad script, unknown key, wrong type            exit 2  */
    ERR_IO,          /* the operating system refused: open, read, write, full disk       exit 1  */
    ERR_FORMAT,      /* a file or record is not what it claims to be                     exit 1  */
    ERR_DEVICE,      /* no such device, or its libraries are missing                     exit 5  */
    ERR_NO_DATA,     /* data set or weights are missing                                  exit 6  */
    ERR_DEVICE_MEM,  /* device memory ran out: an outcome of a run                       exit 1  */
    ERR_DIVERGED,    /* training became non-finite: an outcome of a run                  exit 3  */
    ERR_INTERRUPTED, /* stopped on request, resumable                                    exit 75 */
    ERR_STALE,       /* a claim was lost to another process (fencing)                    exit 1  */
    ERR_NEWER,       /* a ledger or file written by a newer version                      exit 1  */
    ERR_NOT_FOUND    /* no such run, sweep, key                                          exit 2  */
};
typedef int err_t; /* an enum err */

/* Records the message and returns code. */
err_t fail(err_t code, const char *fmt, ...) PRINTF(2, 3) MUST_USE;
/* Puts "what: " in front of the recorded message and returns code. */
err_t fail_in(err_t code, const char *fmt, ...) PRINTF(2, 3) MUST_USE;
const char *err_text(void); /* of this thread's last fail(); "" if none; valid until its next fail() */
int err_exit_code(err_t code);

#define TRY(expr)                                                                                                      \
    do {                                                                                                               \
        err_t try_e_ = (expr);                                                                                         \
        if (try_e_) return try_e_;                                                                                     \
    } while (0)
/* The same for functions that clean up: sets `err` and jumps to `done`. */
#define TRYD(expr)                                                                                                     \
    do {                                                                                                               \
        err = (expr);                                                                                                  \
        if (err) goto done;                                                                                            \
    } while (0)

/* ---- logging: one line on stderr ("ect: ...") unless a sink is set --------------------------------------------- */

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
void log_at(enum log_level level, const char *fmt, ...) PRINTF(2, 3);
void log_set(enum log_level least, void (*sink)(void *ctx, enum log_level level, const char *line), void *ctx);
#define log_info(...) log_at(LOG_INFO, __VA_ARGS__)
#define log_warn(...) log_at(LOG_WARN, __VA_ARGS__)

/* ---- memory: running out of host memory aborts. Every call is counted, so a test can prove "no allocation in a
 * training step". mem_alloc gives zeroed memory aligned to 64 bytes. ----------------------------------------------- */

void *mem_alloc(size_t bytes);
void *mem_array(size_t count, size_t size);                  /* checks count * size */
void *mem_grow(void *p, size_t old_bytes, size_t new_bytes); /* new tail is zero */
void mem_free(void *p);                                      /* NULL is fine */
char *mem_strdup(const char *s);
char *mem_printf(const char *fmt, ...) PRINTF(1, 2);
uint64_t mem_count(void); /* calls of mem_alloc and mem_grow so far, all threads */
uint64_t mem_live(void);  /* bytes held now */
uint64_t mem_peak(void);  /* highest mem_live so far */

/* A region whose blocks are freed together. */
struct arena {
    struct arena_block *head;
};
void arena_init(struct arena *a);
void *arena_alloc(struct arena *a, size_t bytes); /* zeroed, aligned to 64 */
char *arena_strdup(struct arena *a, const char *s);
char *arena_printf(struct arena *a, const char *fmt, ...) PRINTF(2, 3);
void arena_done(struct arena *a);

/* ---- growing text ------------------------------------------------------------------------------------------------ */

struct text {
    char *s; /* always NUL-terminated once something was added; NULL when empty and fresh */
    size_t len, cap;
};
void text_add(struct text *t, const char *s);
void text_addn(struct text *t, const char *s, size_t n);
void text_addf(struct text *t, const char *fmt, ...) PRINTF(2, 3);
const char *text_str(const struct text *t); /* "" when empty */
void text_done(struct text *t);

/* ---- canonical number text: the shortest decimal that reads back as the same double; whole numbers below 1e15 without
 * point or exponent, so 1, 1.0 and 1e0 are one text; nan, inf, -inf. ------------------------------------------------ */

enum { NUM_TEXT = 32 };
char *num_text(char buf[NUM_TEXT], double v);
bool num_parse(const char *s, double *v);  /* the whole string must be a number */
bool int_parse(const char *s, int64_t *v); /* likewise; accepts 1e6 and 2.0 when exact */

/* The candidate nearest to word by edit distance, or NULL if none is near. For "unknown key X, did you mean Y?". */
const char *nearest_name(const char *word, const char *const *names, size_t n);

/* ---- hashes ------------------------------------------------------------------------------------------------------ */

enum { SHA256_BYTES = 32, SHA256_TEXT = 65 };
struct sha256 {
    uint32_t h[8];
    uint64_t bytes;
    uint8_t buf[64];
};
void sha256_init(struct sha256 *s);
void sha256_add(struct sha256 *s, const void *p, size_t n);
void sha256_end(struct sha256 *s, uint8_t out[SHA256_BYTES]);
void sha256_hex(const uint8_t digest[SHA256_BYTES], char out[SHA256_TEXT]);
void sha256_text(const void *p, size_t n, char out[SHA256_TEXT]); /* hex of the hash of p[0..n) */
err_t sha256_file(const char *path, char out[SHA256_TEXT]) MUST_USE;
uint32_t crc32_of(uint32_t crc, const void *p, size_t n); /* zlib's CRC-32; start with 0 */

/* ---- files ------------------------------------------------------------------------------------------------------- */

/* Reads all of path. *data is NUL-terminated (one byte past *n); free with mem_free. limit 0: no limit. */
err_t file_read(const char *path, size_t limit, char **data, size_t *n) MUST_USE;
/* Writes path.tmp-PID, fsyncs, renames over path, fsyncs the directory: after a crash the old or the new file is there. */
err_t file_write_atomic(const char *path, const void *data, size_t n) MUST_USE;
struct file_part { /* the same from pieces, so that large contents need no second copy */
    const void *data;
    size_t n;
};
err_t file_write_parts(const char *path, const struct file_part *parts, int nparts) MUST_USE;
err_t dir_make(const char *path) MUST_USE; /* mkdir -p */
bool file_exists(const char *path);
/* Finds a data file that belongs to ect: $ECT_DATA, the installed share directory, the source tree beside the binary.
 * name is like "data/digits.csv.gz". Returns a malloc'd path in *path or ERR_NO_DATA with advice. */
err_t share_find(const char *name, char **path) MUST_USE;

/* ---- embedded text files (Lua library, recipes, reports, migrations), made by the build ----------------------------- */

struct embed {
    const char *name; /* path in the source tree, such as "lua/ect/design.lua" */
    const char *data;
    size_t size;
};
extern const struct embed embed_files[]; /* ends with name == NULL; sorted by name */
const struct embed *embed_find(const char *name);

/* ---- time and place: the one replaceable door to clock and host, so tests can set it back or pretend ----------------- */

struct host {
    int64_t (*now_ms)(void);  /* wall clock, ms since 1970 UTC */
    int64_t (*mono_ns)(void); /* monotonic */
    const char *(*hostname)(void);
    const char *(*boot_id)(void);
    long (*fs_type)(const char *path); /* statfs f_type, or 0 */
};
extern struct host host;

#define ECT_VERSION "0.1.0"

#endif
