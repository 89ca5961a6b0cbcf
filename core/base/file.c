/* Files. A file that matters is never half written: it is complete under another name, and on disk, before it takes
 * its own. */
#include "core/base.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef ECT_PREFIX
#define ECT_PREFIX "/usr/local"
#endif

err_t file_read(const char *path, size_t limit, char **data, size_t *n)
{
    err_t err = ERR_OK;
    char *buf = NULL;
    size_t len = 0, cap = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail(ERR_IO, "open %s: %s", path, strerror(errno));
    struct stat st;
    if (fstat(fd, &st)) TRYD(fail(ERR_IO, "stat %s: %s", path, strerror(errno)));
    if (S_ISDIR(st.st_mode)) TRYD(fail(ERR_IO, "read %s: it is a directory", path));
    /* the size is a hint only: pipes and /proc say 0, and a file may grow while it is read */
    cap = st.st_size > 0 && (!limit || (size_t)st.st_size <= limit) ? (size_t)st.st_size + 1 : 4096;
    buf = mem_alloc(cap);
    for (;;) {
        if (len + 1 >= cap) {
            buf = mem_grow(buf, len, cap * 2);
            cap *= 2;
        }
        ssize_t got = read(fd, buf + len, cap - 1 - len);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) TRYD(fail(ERR_IO, "read %s: %s", path, strerror(errno)));
        if (got == 0) break;
        len += (size_t)got;
        if (limit && len > limit) TRYD(fail(ERR_FORMAT, "%s: larger than the %zu bytes allowed", path, limit));
    }
    buf[len] = 0;
    *data = buf;
    *n = len;
    buf = NULL;
done:
    mem_free(buf);
    close(fd);
    return err;
}

static err_t write_all(int fd, const char *path, const char *p, size_t n)
{
    while (n) {
        ssize_t put = write(fd, p, n < 1u << 30 ? n : 1u << 30);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return fail(ERR_IO, "write %s: %s", path, strerror(errno));
        p += put, n -= (size_t)put;
    }
    return ERR_OK;
}

/* Makes a rename last. File systems that cannot sync a directory say EINVAL, and there is nothing better to do. */
static err_t dir_sync(const char *path)
{
    char *dir = mem_strdup(path), *slash = strrchr(dir, '/');
    if (!slash) strcpy(dir, ".");
    else slash[slash == dir] = 0;
    err_t err = ERR_OK;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || (fsync(fd) && errno != EINVAL && errno != ENOTSUP))
        err = fail(ERR_IO, "sync %s: %s", dir, strerror(errno));
    if (fd >= 0) close(fd);
    mem_free(dir);
    return err;
}

err_t file_write_atomic(const char *path, const void *data, size_t n)
{
    return file_write_parts(path, &(struct file_part){data, n}, 1);
}

err_t file_write_parts(const char *path, const struct file_part *parts, int nparts)
{
    err_t err = ERR_OK;
    char *tmp = mem_printf("%s.tmp-%ld", path, (long)getpid());
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        err = fail(ERR_IO, "open %s: %s", tmp, strerror(errno));
        mem_free(tmp);
        return err;
    }
    for (int i = 0; i < nparts; i++) TRYD(write_all(fd, path, parts[i].data, parts[i].n));
    if (fsync(fd)) TRYD(fail(ERR_IO, "sync %s: %s", path, strerror(errno)));
    int rc = close(fd); /* a full quota on a network disk may be told only here */
    fd = -1;
    if (rc) TRYD(fail(ERR_IO, "close %s: %s", path, strerror(errno)));
    if (rename(tmp, path)) TRYD(fail(ERR_IO, "rename %s to %s: %s", tmp, path, strerror(errno)));
    mem_free(tmp);
    tmp = NULL;
    TRYD(dir_sync(path));
done:
    if (fd >= 0) close(fd);
    if (tmp) unlink(tmp);
    mem_free(tmp);
    return err;
}

err_t dir_make(const char *path)
{
    err_t err = ERR_OK;
    char *part = mem_strdup(path);
    for (char *p = part; *p; p++) {
        bool last = !p[1];
        if (!last && (p[1] != '/' || *p == '/')) continue;
        char kept = p[1];
        p[1] = 0;
        struct stat st;
        if (mkdir(part, 0777) && (errno != EEXIST || (stat(part, &st) == 0 && !S_ISDIR(st.st_mode)))) {
            /* on read-only and automounted paths mkdir of an existing parent may say EROFS or EACCES */
            int why = errno;
            if (stat(part, &st) || !S_ISDIR(st.st_mode))
                TRYD(fail(ERR_IO, "make directory %s: %s", part, strerror(why == EEXIST ? ENOTDIR : why)));
        }
        p[1] = kept;
    }
done:
    mem_free(part);
    return err;
}

bool file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

/* dir/name if it is there, else NULL; takes over dir. */
static char *share_try(char *dir, const char *name, struct text *tried)
{
    char *path = mem_printf("%s/%s", dir, name);
    mem_free(dir);
    if (file_exists(path)) return path;
    text_addf(tried, "%s%s", tried->len ? ", " : "", path);
    mem_free(path);
    return NULL;
}

err_t share_find(const char *name, char **path)
{
    struct text tried = {0};
    char exe[PATH_MAX];
    const char *env = getenv("ECT_DATA");
    *path = NULL;
    if (env && *env) *path = share_try(mem_strdup(env), name, &tried);
    if (!*path) *path = share_try(mem_strdup("experiments"), name, &tried);
    ssize_t n = *path ? -1 : readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n > 0) {
        exe[n] = 0;
        char *slash = strrchr(exe, '/');
        if (slash) *slash = 0;
        *path = share_try(mem_printf("%s/../experiments", exe), name, &tried);
    }
    if (!*path) *path = share_try(mem_strdup(ECT_PREFIX "/share/ect/experiments"), name, &tried);
    err_t err = ERR_OK;
    if (!*path)
        err = fail(ERR_NO_DATA, "%s not found (looked at %s); set ECT_DATA to the directory that holds it", name,
                   text_str(&tried));
    text_done(&tried);
    return err;
}
