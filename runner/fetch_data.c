/* The archive stays in the cache, so that another import needs no network; what is unpacked from it is gone after the import. */
#include "runner/fetch_data.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/io/tar.h"
#include "runner/runner.h"

enum { OPEN_MOST = 16 };
#define UNPACK_MOST ((uint64_t)4 << 30)

static char *cache_dir(void)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (cache && *cache) return mem_printf("%s/ect", cache);
    return mem_printf("%s/.cache/ect", home ? home : "");
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path) ? -1 : 0;
}

/* The one directory that an archive holds, else dir itself. */
static char *only_child(const char *dir)
{
    DIR *d = opendir(dir);
    char *child = NULL;
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        if (n++ == 0) child = mem_printf("%s/%s", dir, e->d_name);
    }
    if (d) closedir(d);
    struct stat st;
    if (n == 1 && stat(child, &st) == 0 && S_ISDIR(st.st_mode)) return child;
    mem_free(child);
    return mem_strdup(dir);
}

err_t archive_unpack(struct unpacked *u, const char *archive)
{
    char *cache = cache_dir();
    const char *slash = strrchr(archive, '/');
    *u = (struct unpacked){.dir = mem_printf("%s/%s.unpacked-%ld", cache, slash ? slash + 1 : archive, (long)getpid())};
    err_t err = tar_unpack(archive, u->dir, UNPACK_MOST);
    if (!err) u->path = only_child(u->dir);
    else unpacked_done(u);
    mem_free(cache);
    return err;
}

err_t fetch_data(struct unpacked *u, const struct fetch_row *row, const struct fetch_opts *o)
{
    char *cache = cache_dir();
    struct fetch_got got = {0};
    err_t err = fetch_get(row, cache, o, NULL, &got);
    mem_free(cache);
    *u = (struct unpacked){0};
    if (err) return err;
    printf("%s %s: %s (SHA-256 %.16s..., %s)\n", row->file, got.here ? "is there" : "was fetched", got.path, got.sha256,
           row->sha256 ? "the publisher's" : "as recorded at first");
    err = archive_unpack(u, got.path);
    mem_free(got.path);
    return err;
}

void unpacked_done(struct unpacked *u)
{
    if (u->dir && file_exists(u->dir) && nftw(u->dir, remove_one, OPEN_MOST, FTW_DEPTH | FTW_PHYS))
        log_warn("%s was not removed: %s", u->dir, strerror(errno));
    mem_free(u->dir);
    mem_free(u->path);
    *u = (struct unpacked){0};
}
