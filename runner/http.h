/* http: a file from an HTTPS address. The only place that knows the transfer library.
 *
 * HTTPS only, also after redirects, with the certificate and the host's name checked against the system's authorities ($ECT_CA_FILE: against
 * those in that file alone). The bytes go to TO.part; TO appears, by a rename, once everything is there and has the hash that was asked for.
 * What was received is kept when something breaks: the next call goes on from there if the server still has the same file (its entity tag or
 * date, kept in TO.part.from), else from the beginning. Of two processes that get the same file one waits for the other. */
#ifndef RUNNER_HTTP_H
#define RUNNER_HTTP_H

#include "core/base.h"

struct http_opts {
    const char *label;  /* stands before the bar */
    const char *sha256; /* all of it, or its beginning; NULL: any */
    uint64_t size;      /* 0: not known */
    uint64_t most;      /* more bytes are refused; 0: 64 GB */
    int silence_s;      /* a server that is silent for so long has failed; 0: 30 */
    int tries;          /* in a row without a new byte; 0: 5 */
    bool quiet;
    err_t (*check)(void *ctx,
                   const char *path); /* looks at the file, whose hash is right, before it gets its name; or NULL */
    void *ctx;
};
struct http_got {
    char sha256[SHA256_TEXT];
    uint64_t size, resumed_at; /* resumed_at: bytes that were there already */
    bool by_other;             /* another process got it while this one waited; sha256 and size are empty */
};
/* ERR_USAGE: no https:// address. ERR_FORMAT: not the file that was asked for; nothing is kept. ERR_INTERRUPTED: by SIGINT or SIGTERM.
 * ERR_IO: everything else; the message says what to do. */
err_t http_get(const char *url, const char *to, const struct http_opts *o, struct http_got *got) MUST_USE;

#endif
