/* What makes a download right is decided at three places: body_begin says where the bytes of a response belong, file_finish compares the
 * hash before the rename, and everything between them may fail at any byte, because the part file and what is known of it stay. */
#include "runner/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "runner/runner.h"

enum { SILENCE_S = 30, TRIES = 5, DRAW_MS = 120, REDIRECTS = 10, WAIT_MOST_S = 60 };
#define SIZE_MOST ((uint64_t)64 << 30)

struct response { /* of the server's latest answer */
    long status;
    uint64_t length, range_from, range_total; /* 0: not said */
    bool ranged;
    char etag[200], modified[64];
};
struct get {
    const char *url, *to;
    const struct http_opts *o;
    char *part, *info;
    int fd; /* of the part file, locked */
    uint64_t have, from, total, best;
    char etag[200], modified[64]; /* of what the part file is a part of */
    bool same_url, resumed, begun, once_more;
    uint64_t resumed_at;
    struct response r;
    err_t err; /* of a callback; its text is recorded */
    int64_t drawn_ms, mark_ms;
    uint64_t mark;
    double rate;
    bool bar;
};

static volatile sig_atomic_t stop;

static void on_signal(int sig)
{
    (void)sig;
    stop = 1;
}

static int64_t now_ms(void)
{
    return host.mono_ns() / 1000000;
}

/* ---- the bar ------------------------------------------------------------------------------------------------------------------------ */

static void bar_draw(struct get *g)
{
    char line[400], has[NUM_TEXT], all[NUM_TEXT], rate[NUM_TEXT], left[NUM_TEXT];
    int64_t now = now_ms();
    if (!g->bar || now - g->drawn_ms < DRAW_MS) return;
    if (!g->mark_ms) g->mark_ms = now, g->mark = g->have;
    if (now - g->mark_ms >= 1000) {
        double r = (double)(g->have - (g->mark < g->have ? g->mark : g->have)) * 1e3 / (double)(now - g->mark_ms);
        g->rate = g->rate > 0 ? 0.7 * g->rate + 0.3 * r : r;
        g->mark_ms = now, g->mark = g->have;
    }
    g->drawn_ms = now;
    int n = snprintf(line, sizeof line, "%s  %s", g->o->label ? g->o->label : "", human_bytes(has, (double)g->have));
    if (g->total) {
        enum { CELLS = 24 };
        int full = (int)((double)g->have / (double)g->total * CELLS);
        n += snprintf(line + n, sizeof line - (size_t)n, " of %s  [%.*s%.*s] %3.0f %%",
                      human_bytes(all, (double)g->total), full, "========================", CELLS - full,
                      "                        ", 100 * (double)g->have / (double)g->total);
    }
    if (g->rate > 0)
        n += snprintf(line + n, sizeof line - (size_t)n, "  %s/s%s%s", human_bytes(rate, g->rate),
                      g->total ? "  left " : "",
                      g->total ? human_seconds(left, (double)(g->total - g->have) / g->rate) : "");
    int width = print_width(STDERR_FILENO);
    fprintf(stderr, "\r%.*s\033[K", width > 1 ? width - 1 : n, line);
    fflush(stderr);
}

static void bar_end(const struct get *g)
{
    if (g->bar) fputs("\r\033[K", stderr);
}

/* ---- the part file and what is known of it -------------------------------------------------------------------------------------------- */

static void info_read(struct get *g)
{
    char *text = NULL, *rest, *line;
    size_t n;
    if (file_read(g->info, 1 << 16, &text, &n)) return;
    rest = text;
    while ((line = strsep(&rest, "\n"))) {
        if (!strncmp(line, "url ", 4)) g->same_url = !strcmp(line + 4, g->url);
        if (!strncmp(line, "etag ", 5)) snprintf(g->etag, sizeof g->etag, "%s", line + 5);
        if (!strncmp(line, "modified ", 9)) snprintf(g->modified, sizeof g->modified, "%s", line + 9);
    }
    mem_free(text);
    if (!g->same_url) g->etag[0] = g->modified[0] = 0;
}

static err_t info_write(const struct get *g)
{
    char *text = mem_printf("url %s\netag %s\nmodified %s\n", g->url, g->etag, g->modified);
    err_t err = file_write_atomic(g->info, text, strlen(text));
    mem_free(text);
    return err;
}

static err_t part_lost(const struct get *g, int why)
{
    char has[NUM_TEXT];
    return fail(ERR_IO, "writing %s: %s; the %s so far are kept: make room, and the same command goes on from there",
                g->part, strerror(why), human_bytes(has, (double)g->have));
}

static err_t part_restart(struct get *g)
{
    g->have = g->resumed_at = 0;
    g->etag[0] = g->modified[0] = 0;
    g->resumed = false;
    return ftruncate(g->fd, 0) ? part_lost(g, errno) : ERR_OK;
}

/* Opens and locks it. Where another process has the lock, waits; got->by_other if that one has brought the file. */
static err_t part_open(struct get *g, struct http_got *got)
{
    struct stat before = {0}, st, named;
    bool waited = false;
    if (stat(g->to, &before)) before.st_ino = 0;
    while (!stop) {
        g->fd = open(g->part, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (g->fd < 0) return fail(ERR_IO, "open %s: %s", g->part, strerror(errno));
        if (flock(g->fd, LOCK_EX | LOCK_NB) == 0) {
            if (waited && stat(g->to, &named) == 0 && named.st_ino != before.st_ino) {
                got->by_other = true;
                if (fstat(g->fd, &st) == 0 && st.st_size == 0 && stat(g->part, &named) == 0 &&
                    named.st_ino == st.st_ino)
                    unlink(g->part); /* that open made */
                return ERR_OK;
            }
            /* the other may have renamed or removed the file that was opened here */
            if (fstat(g->fd, &st) == 0 && stat(g->part, &named) == 0 && st.st_ino == named.st_ino) {
                g->have = (uint64_t)st.st_size;
                return ERR_OK;
            }
        } else {
            if (errno != EWOULDBLOCK && errno != EINTR) return fail(ERR_IO, "lock %s: %s", g->part, strerror(errno));
            if (!waited && !g->o->quiet) log_info("another process gets %s: waiting for it", g->to);
            waited = true;
            nanosleep(&(struct timespec){0, 200000000}, NULL);
        }
        close(g->fd);
        g->fd = -1;
    }
    return fail(ERR_INTERRUPTED, "stopped while another process gets %s", g->to);
}

/* ---- what the server says ------------------------------------------------------------------------------------------------------------- */

/* The value of header `name` (with its colon) where the line is one. */
static bool header_is(const char *line, size_t n, const char *name, char *value, size_t room)
{
    size_t k = strlen(name);
    if (n < k || strncasecmp(line, name, k)) return false;
    while (k < n && (line[k] == ' ' || line[k] == '\t')) k++;
    while (n > k && (unsigned char)line[n - 1] <= ' ') n--;
    snprintf(value, room, "%.*s", (int)(n - k), line + k);
    return true;
}

static size_t on_header(char *line, size_t one, size_t n, void *ctx)
{
    struct get *g = ctx;
    char v[200];
    unsigned long long a, b, c;
    n *= one;
    if (n > 5 && !strncmp(line, "HTTP/", 5)) { /* of a redirect, then of where it leads */
        const char *space = memchr(line, ' ', n);
        g->r = (struct response){.status = space ? strtol(space, NULL, 10) : 0};
    }
    header_is(line, n, "ETag:", g->r.etag, sizeof g->r.etag);
    header_is(line, n, "Last-Modified:", g->r.modified, sizeof g->r.modified);
    if (header_is(line, n, "Content-Length:", v, sizeof v)) g->r.length = strtoull(v, NULL, 10);
    if (header_is(line, n, "Content-Range:", v, sizeof v)) {
        if (sscanf(v, "bytes %llu-%llu/%llu", &a, &b, &c) == 3)
            g->r.ranged = true, g->r.range_from = a, g->r.range_total = c;
        else if (sscanf(v, "bytes */%llu", &c) == 1) g->r.range_total = c;
    }
    return n;
}

/* Sizes, once the server has said them. */
static err_t size_check(const struct get *g, uint64_t total)
{
    char a[NUM_TEXT], b[NUM_TEXT];
    uint64_t most = g->o->most ? g->o->most : SIZE_MOST;
    struct statvfs fs;
    if (g->o->size && total && total != g->o->size)
        return fail(ERR_FORMAT, "%s: the file there has %llu bytes and should have %llu: it is another file", g->url,
                    (unsigned long long)total, (unsigned long long)g->o->size);
    if (total > most || g->have > most)
        return fail(ERR_FORMAT, "%s: more than the %s that are allowed", g->url, human_bytes(a, (double)most));
    if (total > g->have && fstatvfs(g->fd, &fs) == 0) {
        uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize;
        if (room < total - g->have)
            return fail(ERR_IO,
                        "%s needs %s more, and there is room for %s: make room, then run the same command again",
                        g->part, human_bytes(a, (double)(total - g->have)), human_bytes(b, (double)room));
    }
    return ERR_OK;
}

/* The answer's body begins: is it the rest that was asked for, or the file from its beginning? */
static err_t body_begin(struct get *g)
{
    g->begun = true;
    if (g->r.status == 206) {
        if (!g->r.ranged || g->r.range_from != g->from)
            return fail(ERR_IO, "%s: the server sent another part than the one that was asked for", g->url);
        g->total = g->r.range_total;
        g->resumed = true;
    } else {
        if (g->have) TRY(part_restart(g));
        g->total = g->r.length;
        snprintf(g->etag, sizeof g->etag, "%s", g->r.etag);
        snprintf(g->modified, sizeof g->modified, "%s", g->r.modified);
    }
    TRY(size_check(g, g->total));
    if (!g->total) g->total = g->o->size;
    return info_write(g);
}

static size_t on_body(char *data, size_t one, size_t n, void *ctx)
{
    struct get *g = ctx;
    n *= one;
    if (!g->begun) g->err = body_begin(g);
    for (size_t done = 0; done < n && !g->err;) {
        ssize_t k = pwrite(g->fd, data + done, n - done, (off_t)g->have);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) g->err = part_lost(g, k < 0 ? errno : ENOSPC);
        else done += (size_t)k, g->have += (uint64_t)k;
    }
    if (!g->err && g->have > (g->o->size ? g->o->size : g->o->most ? g->o->most : SIZE_MOST)) {
        g->err = fail(ERR_FORMAT, "%s: more bytes than the file should have", g->url);
    }
    bar_draw(g);
    return g->err ? 0 : n;
}

static int on_progress(void *ctx, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    (void)a, (void)b, (void)c, (void)d;
    bar_draw(ctx);
    return stop ? 1 : 0;
}

/* ---- one attempt ---------------------------------------------------------------------------------------------------------------------- */

/* From where the rest may be asked for: a part of unknown origin is only of use where a hash will tell. */
static struct curl_slist *range_ask(struct get *g, CURL *c)
{
    char text[300];
    bool strong = g->etag[0] && strncmp(g->etag, "W/", 2);
    g->from = strong || g->modified[0] || g->o->sha256 ? g->have : 0;
    if (!g->from) return NULL;
    snprintf(text, sizeof text, "%llu-", (unsigned long long)g->from);
    curl_easy_setopt(c, CURLOPT_RANGE, text);
    if (!strong && !g->modified[0]) return NULL;
    snprintf(text, sizeof text, "If-Range: %s", strong ? g->etag : g->modified);
    return curl_slist_append(NULL, text);
}

static void options_set(struct get *g, CURL *c, char *why)
{
    const char *ca = getenv("ECT_CA_FILE");
    long silence = g->o->silence_s ? g->o->silence_s : SILENCE_S;
    curl_easy_setopt(c, CURLOPT_URL, g->url);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "https");
    curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, "https");
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(c, CURLOPT_MAXREDIRS, (long)REDIRECTS);
    curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 2L);
    curl_easy_setopt(c, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (ca && *ca) {
        curl_easy_setopt(c, CURLOPT_CAINFO, ca);
        curl_easy_setopt(c, CURLOPT_CAPATH, NULL);
    }
    curl_easy_setopt(c, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "ect/" ECT_VERSION);
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, silence);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, silence);
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, why);
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, g);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, g);
    curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(c, CURLOPT_XFERINFODATA, g);
}

/* May the next attempt go better? */
static bool passing(const struct get *g, CURLcode rc)
{
    switch (rc) {
    case CURLE_HTTP_RETURNED_ERROR:
        return g->r.status == 408 || g->r.status == 429 || (g->r.status >= 500 && g->r.status != 501);
    case CURLE_COULDNT_CONNECT:
    case CURLE_PARTIAL_FILE:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM: return true;
    case CURLE_COULDNT_RESOLVE_HOST: return g->best > 0; /* there was a network before */
    default: return false;
    }
}

static err_t say_why(const struct get *g, CURLcode rc, const char *why)
{
    char has[NUM_TEXT];
    const char *text = *why ? why : curl_easy_strerror(rc);
    if (rc == CURLE_ABORTED_BY_CALLBACK || stop)
        return fail(ERR_INTERRUPTED, "stopped; %s are kept in %s, and the same command goes on from there",
                    human_bytes(has, (double)g->have), g->part);
    if (rc == CURLE_HTTP_RETURNED_ERROR && (g->r.status == 404 || g->r.status == 410))
        return fail(ERR_IO, "%s: the server has no such file (%ld); it may have moved", g->url, g->r.status);
    if (rc == CURLE_HTTP_RETURNED_ERROR) return fail(ERR_IO, "%s: the server answered %ld", g->url, g->r.status);
    if (rc == CURLE_UNSUPPORTED_PROTOCOL)
        return fail(ERR_IO, "%s: it leads away from HTTPS, which is refused (%s)", g->url, text);
    if (rc == CURLE_PEER_FAILED_VERIFICATION || rc == CURLE_SSL_CACERT_BADFILE)
        return fail(ERR_IO,
                    "%s: the server's certificate is not trusted (%s); $ECT_CA_FILE names a file of other "
                    "authorities",
                    g->url, text);
    if (g->have)
        return fail(ERR_IO, "%s: %s; %s are kept, and the same command goes on from there", g->url, text,
                    human_bytes(has, (double)g->have));
    return fail(ERR_IO, "%s: %s", g->url, text);
}

/* *again: the failure may pass, or is dealt with; then wait_s seconds are to be let pass first. */
static err_t attempt(struct get *g, bool *again, double *wait_s)
{
    char why[CURL_ERROR_SIZE] = "";
    CURL *c = curl_easy_init();
    *again = false, *wait_s = 0;
    if (!c) return fail(ERR_FAILED, "the transfer library did not start");
    g->r = (struct response){0};
    g->begun = false, g->err = ERR_OK;
    options_set(g, c, why);
    struct curl_slist *headers = range_ask(g, c);
    if (headers) curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
    CURLcode rc = curl_easy_perform(c);
    curl_off_t later = 0;
    curl_easy_getinfo(c, CURLINFO_RETRY_AFTER, &later);
    curl_slist_free_all(headers);
    curl_easy_cleanup(c);
    if (g->err) return g->err;
    if (rc == CURLE_OK) {
        if (!g->begun) TRY(body_begin(g)); /* an empty file */
        if (!g->total || g->have == g->total) return ERR_OK;
        *again = true;
        return fail(ERR_IO, "%s: the connection ended after %llu of %llu bytes", g->url, (unsigned long long)g->have,
                    (unsigned long long)g->total);
    }
    if (rc == CURLE_HTTP_RETURNED_ERROR && g->r.status == 416 && g->from) { /* there is nothing behind what is here */
        if (g->r.range_total == g->have && g->have) return ERR_OK;
        *again = true;
        return part_restart(g);
    }
    *again = !stop && passing(g, rc);
    *wait_s = later > WAIT_MOST_S ? WAIT_MOST_S : (double)later;
    return say_why(g, rc, why);
}

static void let_pass(double s)
{
    for (int64_t end = now_ms() + (int64_t)(s * 1e3); now_ms() < end && !stop;)
        nanosleep(&(struct timespec){0, 50000000}, NULL);
}

/* Until all bytes are there. Attempts that brought new bytes are not counted: a file of many gigabytes may break often. */
static err_t transfer(struct get *g)
{
    int tries = g->o->tries ? g->o->tries : TRIES, idle = 0;
    if (g->o->size && g->have == g->o->size) return ERR_OK; /* the last process ended just before the rename */
    for (;;) {
        bool again;
        double wait_s, back_off;
        err_t err = attempt(g, &again, &wait_s);
        if (!err && !again) return ERR_OK;
        if (!again) return err;
        idle = g->have > g->best ? 0 : idle + 1;
        if (g->have > g->best) g->best = g->have;
        if (idle >= tries) return err;
        if (!err) continue;
        bar_end(g);
        back_off = 0.5 * (double)(1 << (idle < 6 ? idle : 6));
        if (wait_s < back_off) wait_s = back_off;
        if (!g->o->quiet) log_info("%s; trying again", err_text());
        let_pass(wait_s);
        if (stop) return say_why(g, CURLE_ABORTED_BY_CALLBACK, "");
    }
}

/* ---- all of it ------------------------------------------------------------------------------------------------------------------------- */

/* The hash decides; then the name appears. */
static err_t file_finish(struct get *g, struct http_got *got, bool *restart)
{
    const char *want = g->o->sha256;
    *restart = false;
    TRY(sha256_file(g->part, got->sha256));
    if (want && strncasecmp(got->sha256, want, strlen(want))) {
        if ((g->resumed || g->resumed_at) &&
            !g->once_more) { /* its beginning may be of another file: once more, from there */
            *restart = g->once_more = true;
            return part_restart(g);
        }
        unlink(g->part);
        unlink(g->info);
        return fail(ERR_FORMAT, "%s: refused: its SHA-256 is %s and should be %s%s; nothing was installed", g->url,
                    got->sha256, want, strlen(want) < SHA256_TEXT - 1 ? "..." : "");
    }
    if (g->o->check) {
        err_t err = g->o->check(g->o->ctx, g->part);
        if (err) {
            unlink(g->part);
            unlink(g->info);
            return fail_in(err, "%s: refused, nothing was installed", g->url);
        }
    }
    if (fsync(g->fd))
        return part_lost(g, errno); /* before the rename: a crash must not leave an empty file under its name */
    if (rename(g->part, g->to)) return fail(ERR_IO, "rename %s to %s: %s", g->part, g->to, strerror(errno));
    unlink(g->info);
    got->size = g->have;
    got->resumed_at = g->resumed_at;
    return ERR_OK;
}

static err_t get_locked(struct get *g, struct http_got *got)
{
    err_t err;
    bool restart = false;
    info_read(g);
    g->best = g->resumed_at = g->have;
    do {
        err = transfer(g);
        bar_end(g);
        if (err == ERR_FORMAT) { /* not the file: none of it is of use */
            unlink(g->part);
            unlink(g->info);
        }
        if (!err) err = file_finish(g, got, &restart);
    } while (!err && restart);
    return err;
}

err_t http_get(const char *url, const char *to, const struct http_opts *o, struct http_got *got)
{
    const char *term = getenv("TERM");
    struct sigaction act = {.sa_handler = on_signal}, ignore = {.sa_handler = SIG_IGN}, was[3];
    struct get g = {.url = url, .to = to, .o = o, .fd = -1};
    *got = (struct http_got){0};
    if (strncasecmp(url, "https://", 8)) return fail(ERR_USAGE, "%s: only https:// addresses are fetched", url);
    if (curl_global_init(CURL_GLOBAL_DEFAULT)) return fail(ERR_FAILED, "the transfer library did not start");
    stop = 0;
    sigaction(SIGINT, &act, &was[0]);
    sigaction(SIGTERM, &act, &was[1]);
    sigaction(SIGPIPE, &ignore, &was[2]); /* a broken connection is an error of the attempt */
    g.bar = !o->quiet && isatty(STDERR_FILENO) && term && strcmp(term, "dumb");
    g.part = mem_printf("%s.part", to);
    g.info = mem_printf("%s.part.from", to);
    err_t err = part_open(&g, got);
    if (!err && !got->by_other) err = get_locked(&g, got);
    if (err && g.fd >= 0 && !g.have) { /* nothing to keep */
        unlink(g.part);
        unlink(g.info);
    }
    if (g.fd >= 0) close(g.fd);
    mem_free(g.part);
    mem_free(g.info);
    sigaction(SIGINT, &was[0], NULL);
    sigaction(SIGTERM, &was[1], NULL);
    sigaction(SIGPIPE, &was[2], NULL);
    curl_global_cleanup();
    return err;
}
