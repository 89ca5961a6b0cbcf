/* Errors and log lines. The last error text belongs to the thread that failed, so a worker thread never reads
 * another's story. */
#include "core/base.h"

#include <pthread.h>
#include <string.h>

enum { ERR_TEXT_MAX = 8192 };
static _Thread_local char last[ERR_TEXT_MAX];

/* Formats aside first: an argument may be err_text() itself. */
static void record(const char *fmt, va_list ap, bool in_front)
{
    char now[ERR_TEXT_MAX];
    int n = vsnprintf(now, sizeof now, fmt, ap);
    if (in_front && n >= 0 && (size_t)n + 3 < sizeof now) {
        size_t room = sizeof now - (size_t)n - 3, len = strnlen(last, room);
        memcpy(now + n, ": ", 2);
        memcpy(now + n + 2, last, len);
        now[(size_t)n + 2 + len] = 0;
    }
    memcpy(last, now, strlen(now) + 1);
}

err_t fail(err_t code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    record(fmt, ap, false);
    va_end(ap);
    return code;
}

err_t fail_in(err_t code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    record(fmt, ap, true);
    va_end(ap);
    return code;
}

const char *err_text(void)
{
    return last;
}

int err_exit_code(err_t code)
{
    switch ((enum err)code) {
    case ERR_OK: return 0;
    case ERR_USAGE:
    case ERR_NOT_FOUND: return 2;
    case ERR_DIVERGED: return 3;
    case ERR_DEVICE: return 5;
    case ERR_NO_DATA: return 6;
    case ERR_INTERRUPTED: return 75;
    case ERR_FAILED:
    case ERR_IO:
    case ERR_FORMAT:
    case ERR_DEVICE_MEM:
    case ERR_STALE:
    case ERR_NEWER: return 1;
    }
    return 1;
}

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static enum log_level log_least = LOG_INFO;
static void (*log_sink)(void *, enum log_level, const char *);
static void *log_ctx;

void log_set(enum log_level least, void (*sink)(void *ctx, enum log_level level, const char *line), void *ctx)
{
    pthread_mutex_lock(&log_lock);
    log_least = least;
    log_sink = sink;
    log_ctx = ctx;
    pthread_mutex_unlock(&log_lock);
}

void log_at(enum log_level level, const char *fmt, ...)
{
    static const char *const mark[] = {"", "", "warning: ", "error: "};
    char line[ERR_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    pthread_mutex_lock(&log_lock);
    bool wanted = level >= log_least;
    void (*sink)(void *, enum log_level, const char *) = log_sink;
    void *ctx = log_ctx;
    pthread_mutex_unlock(&log_lock);
    if (!wanted) return;
    if (sink) sink(ctx, level, line);
    else fprintf(stderr, "ect: %s%s\n", mark[level], line);
}
