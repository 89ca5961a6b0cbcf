/* A tar archive is blocks of 512 bytes: a header says how many follow it. Every header has a sum, so a damaged one is noticed before its size
 * is believed; sizes are bounded by what may still be unpacked. */
#include "core/io/tar.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

enum { BLOCK = 512, AT_ONCE = 128 * BLOCK, NAME_AT = 0, SIZE_AT = 124, SUM_AT = 148, TYPE_AT = 156, PREFIX_AT = 345 };

struct tar {
    const char *path, *dir;
    gzFile gz;
    uint64_t left;
    unsigned char head[BLOCK];
};

static err_t damaged(const struct tar *t, const char *what)
{
    return fail(ERR_FORMAT, "%s: %s", t->path, what);
}

/* Whole blocks, or *end where the archive ends before the first byte. */
static err_t blocks_read(struct tar *t, void *to, unsigned n, bool *end)
{
    int k = gzread(t->gz, to, n);
    if (k < 0) return damaged(t, "the gzip data is damaged");
    if (end) *end = k == 0;
    if (k == (int)n || (end && k == 0)) return ERR_OK;
    return damaged(t, "it is cut");
}

/* A field of octal digits, with blanks or NULs round them. */
static bool octal(const unsigned char *p, int n, uint64_t *v)
{
    int i = 0;
    *v = 0;
    while (i < n && p[i] == ' ') i++;
    for (; i < n && p[i] >= '0' && p[i] <= '7'; i++) {
        if (*v >> 60) return false;
        *v = *v * 8 + (uint64_t)(p[i] - '0');
    }
    for (; i < n; i++)
        if (p[i] && p[i] != ' ') return false;
    return true;
}

static bool head_is_right(const unsigned char *h)
{
    uint64_t said, sum = 0;
    for (int i = 0; i < BLOCK; i++) sum += i >= SUM_AT && i < SUM_AT + 8 ? ' ' : h[i];
    return octal(h + SUM_AT, 8, &said) && said == sum;
}

/* A name that stays inside: relative, without "..". */
static bool name_is_inside(const char *s)
{
    if (!*s || *s == '/') return false;
    for (const char *p = s; *p; p += strcspn(p, "/"), p += *p == '/') {
        size_t n = strcspn(p, "/");
        if (n == 2 && p[0] == '.' && p[1] == '.') return false;
    }
    return true;
}

static err_t file_unpack(struct tar *t, const char *to, uint64_t size)
{
    char *buf = mem_alloc(AT_ONCE);
    err_t err = ERR_OK;
    int fd = -1;
    char *parent = mem_strdup(to);
    *strrchr(parent, '/') = 0;
    TRYD(dir_make(parent));
    fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd < 0) TRYD(fail(ERR_IO, "open %s: %s", to, strerror(errno)));
    while (size) {
        uint64_t take = size < AT_ONCE ? size : AT_ONCE, padded = (take + BLOCK - 1) / BLOCK * BLOCK;
        TRYD(blocks_read(t, buf, (unsigned)padded, NULL));
        for (uint64_t done = 0; done < take;) {
            ssize_t k = write(fd, buf + done, (size_t)(take - done));
            if (k <= 0) TRYD(fail(ERR_IO, "write %s: %s", to, strerror(k < 0 ? errno : ENOSPC)));
            done += (uint64_t)k;
        }
        size -= take;
    }
done:
    if (fd >= 0 && close(fd) && !err) err = fail(ERR_IO, "close %s: %s", to, strerror(errno));
    mem_free(parent);
    mem_free(buf);
    return err;
}

static err_t skip(struct tar *t, uint64_t size)
{
    unsigned char b[BLOCK];
    for (uint64_t at = 0; at < size; at += BLOCK) TRY(blocks_read(t, b, BLOCK, NULL));
    return ERR_OK;
}

static err_t entry_unpack(struct tar *t)
{
    const char *h = (const char *)t->head;
    char name[300];
    uint64_t size;
    bool prefixed = !memcmp(h + 257, "ustar", 6) && h[PREFIX_AT]; /* POSIX; GNU's has a blank there and no prefix */
    if (!head_is_right(t->head) || !octal(t->head + SIZE_AT, 12, &size))
        return damaged(t, "no tar archive, or a damaged one");
    snprintf(name, sizeof name, "%.155s%s%.100s", prefixed ? h + PREFIX_AT : "", prefixed ? "/" : "", h + NAME_AT);
    if (size > t->left) return damaged(t, "it unpacks to more than is allowed");
    t->left -= size;
    char type = h[TYPE_AT];
    if (type == 'x' || type == 'g') return skip(t, size); /* dates and owners */
    if (!name_is_inside(name)) return fail(ERR_FORMAT, "%s: refused: '%s' leads out of the directory", t->path, name);
    if (type != '0' && type != 0 && type != '5')
        return fail(ERR_FORMAT, "%s: refused: '%s' is neither a file nor a directory", t->path, name);
    char *to = mem_printf("%s/%s", t->dir, name);
    size_t n = strlen(to);
    err_t err = type == '5' || to[n - 1] == '/' ? dir_make(to) : file_unpack(t, to, size);
    mem_free(to);
    return err;
}

err_t tar_unpack(const char *path, const char *dir, uint64_t most)
{
    static const unsigned char zeros[BLOCK];
    struct tar t = {.path = path, .dir = dir, .left = most};
    err_t err = dir_make(dir);
    if (err) return err;
    t.gz = gzopen(path, "rb");
    if (!t.gz) return fail(ERR_IO, "open %s: %s", path, strerror(errno));
    for (int n = 0;; n++) {
        bool end;
        TRYD(blocks_read(&t, t.head, BLOCK, &end));
        if (end && !n) TRYD(damaged(&t, "it is empty"));
        if (end || !memcmp(t.head, zeros, BLOCK)) break;
        TRYD(entry_unpack(&t));
    }
    while (gzread(t.gz, t.head, BLOCK) > 0) {} /* padding; and zlib compares its sum at the end */
    int rc;
    gzerror(t.gz, &rc);
    if (rc != Z_OK && rc != Z_STREAM_END) err = damaged(&t, "the gzip data is damaged or cut");
done:
    gzclose(t.gz);
    return err;
}
