/* Zip through libzip, which is handed the file's bytes in memory, so what was checked is what is read. A lie about a size
 * shows as a short read or as bytes beyond the end, a lie about contents as a wrong CRC. */
#include "core/io/archive.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zip.h>

enum { BOMB_RATIO = 16, BOMB_FREE = 64 << 20, NAME_MOST = 4096 };

struct archive {
    zip_t *zip;
    const char *label;
    size_t n; /* of the file */
    struct entry {
        const char *name;
        uint64_t size, packed;
        bool encrypted, read;
    } * entries;
    int count, *sorted; /* by name */
    uint64_t left;      /* bytes that may still be unpacked */
};

static int by_name(const void *pa, const void *pb, void *ctx)
{
    const struct entry *e = ctx;
    return strcmp(e[*(const int *)pa].name, e[*(const int *)pb].name);
}

static err_t entries_list(struct archive *a)
{
    zip_int64_t count = zip_get_num_entries(a->zip, 0);
    /* an entry takes at least 46 + 30 bytes of the file */
    if (count < 0 || (uint64_t)count > a->n / 46 || count > INT32_MAX)
        return fail(ERR_FORMAT, "%s: a directory of %lld entries", a->label, (long long)count);
    a->entries = mem_array((size_t)count + 1, sizeof *a->entries);
    a->sorted = mem_array((size_t)count + 1, sizeof *a->sorted);
    for (int i = 0; i < (int)count; i++) {
        struct zip_stat s;
        if (zip_stat_index(a->zip, (zip_uint64_t)i, ZIP_FL_ENC_RAW, &s))
            return fail(ERR_FORMAT, "%s: entry %d: %s", a->label, i, zip_strerror(a->zip));
        if (!(s.valid & ZIP_STAT_NAME) || !(s.valid & ZIP_STAT_SIZE) || !(s.valid & ZIP_STAT_COMP_SIZE) || !s.name[0])
            return fail(ERR_FORMAT, "%s: entry %d has no name or no size", a->label, i);
        if (strlen(s.name) > NAME_MOST) return fail(ERR_FORMAT, "%s: entry %d has an endless name", a->label, i);
        a->entries[i] =
            (struct entry){.name = s.name,
                           .size = s.size,
                           .packed = s.comp_size,
                           .encrypted = s.valid & ZIP_STAT_ENCRYPTION_METHOD && s.encryption_method != ZIP_EM_NONE};
        a->sorted[i] = i;
        a->count++;
    }
    if (a->count) qsort_r(a->sorted, (size_t)a->count, sizeof *a->sorted, by_name, a->entries);
    for (int i = 1; i < a->count; i++)
        if (!strcmp(a->entries[a->sorted[i]].name, a->entries[a->sorted[i - 1]].name))
            return fail(ERR_FORMAT, "%s: two entries named %s", a->label, a->entries[a->sorted[i]].name);
    return ERR_OK;
}

err_t archive_open(struct archive **out, const void *data, size_t n, const char *label)
{
    err_t err = ERR_OK;
    zip_error_t ze;
    zip_error_init(&ze);
    struct archive *a = mem_alloc(sizeof *a);
    *out = NULL;
    a->label = label;
    a->n = n;
    a->left = (uint64_t)n * BOMB_RATIO + BOMB_FREE;
    zip_source_t *src = zip_source_buffer_create(data, n, 0, &ze);
    if (!src) TRYD(fail(ERR_FORMAT, "%s: %s", label, zip_error_strerror(&ze)));
    a->zip = zip_open_from_source(src, ZIP_RDONLY, &ze);
    if (!a->zip) {
        zip_source_free(src);
        TRYD(fail(ERR_FORMAT, "%s: damaged zip file: %s", label, zip_error_strerror(&ze)));
    }
    err = entries_list(a);
done:
    zip_error_fini(&ze);
    if (err) archive_close(a);
    else *out = a;
    return err;
}

void archive_close(struct archive *a)
{
    if (!a) return;
    if (a->zip) zip_discard(a->zip);
    mem_free(a->entries);
    mem_free(a->sorted);
    mem_free(a);
}

int archive_count(const struct archive *a)
{
    return a->count;
}

const char *archive_name(const struct archive *a, int i)
{
    return a->entries[i].name;
}

size_t archive_size(const struct archive *a, int i)
{
    return (size_t)a->entries[i].size;
}

int archive_find(const struct archive *a, const char *name)
{
    int lo = 0, hi = a->count - 1;
    while (lo <= hi) {
        int mid = lo + (hi - lo) / 2, c = strcmp(a->entries[a->sorted[mid]].name, name);
        if (!c) return a->sorted[mid];
        if (c < 0) lo = mid + 1;
        else hi = mid - 1;
    }
    return -1;
}

/* Reads until n bytes or the end; the count in *got. */
static err_t entry_fill(struct archive *a, zip_file_t *f, const char *name, char *buf, uint64_t n, uint64_t *got)
{
    *got = 0;
    while (*got < n) {
        zip_int64_t r = zip_fread(f, buf + *got, n - *got);
        if (r < 0) return fail(ERR_FORMAT, "%s: %s: %s", a->label, name, zip_file_strerror(f));
        if (!r) break;
        *got += (uint64_t)r;
    }
    return ERR_OK;
}

err_t archive_read(struct archive *a, int i, char **out, size_t *n)
{
    err_t err = ERR_OK;
    struct entry *e = &a->entries[i];
    char *buf = NULL, beyond;
    uint64_t got = 0, more = 0;
    zip_file_t *f = NULL;
    if (e->encrypted) return fail(ERR_FORMAT, "%s: %s is encrypted", a->label, e->name);
    if (e->packed > a->n) return fail(ERR_FORMAT, "%s: %s is larger than the file", a->label, e->name);
    if (!e->read && e->size > a->left)
        return fail(ERR_FORMAT,
                    "%s: %s unpacks to %llu bytes, far more than a file of %zu bytes should: a decompression bomb?",
                    a->label, e->name, (unsigned long long)e->size, a->n);
    if (!e->read) a->left -= e->size;
    e->read = true;
    f = zip_fopen_index(a->zip, (zip_uint64_t)i, 0);
    if (!f) return fail(ERR_FORMAT, "%s: %s: %s", a->label, e->name, zip_strerror(a->zip));
    buf = mem_alloc((size_t)e->size + 1);
    TRYD(entry_fill(a, f, e->name, buf, e->size, &got));
    if (got < e->size)
        TRYD(fail(ERR_FORMAT, "%s: %s ends after %llu of %llu bytes", a->label, e->name, (unsigned long long)got,
                  (unsigned long long)e->size));
    TRYD(entry_fill(a, f, e->name, &beyond, 1, &more)); /* the CRC is compared when the end is seen */
    if (more) TRYD(fail(ERR_FORMAT, "%s: %s is longer than its directory entry says", a->label, e->name));
    *out = buf;
    *n = (size_t)e->size;
    buf = NULL;
done:
    zip_fclose(f);
    mem_free(buf);
    return err;
}

/* ---- writing ------------------------------------------------------------------------------------------------------- */

struct archive_writer {
    zip_t *zip;
    char *path, *tmp;
};

err_t archive_create(struct archive_writer **out, const char *path)
{
    int code = 0;
    struct archive_writer *w = mem_alloc(sizeof *w);
    *out = NULL;
    w->path = mem_strdup(path);
    w->tmp = mem_printf("%s.tmp-%ld", path, (long)getpid());
    w->zip = zip_open(w->tmp, ZIP_CREATE | ZIP_TRUNCATE, &code);
    if (!w->zip) {
        zip_error_t ze;
        zip_error_init_with_code(&ze, code);
        err_t err = fail(ERR_IO, "write %s: %s", path, zip_error_strerror(&ze));
        zip_error_fini(&ze);
        archive_abandon(w);
        return err;
    }
    *out = w;
    return ERR_OK;
}

err_t archive_add(struct archive_writer *w, const char *name, const void *data, size_t n, bool stored)
{
    void *copy = n ? malloc(n) : NULL; /* libzip frees it with free, but not one of no bytes */
    if (n && !copy) return fail(ERR_FAILED, "%s: no memory for %zu bytes", w->path, n);
    if (n) memcpy(copy, data, n);
    zip_source_t *src = zip_source_buffer(w->zip, copy, n, n > 0);
    if (!src) {
        free(copy);
        return fail(ERR_FAILED, "%s: %s: %s", w->path, name, zip_strerror(w->zip));
    }
    zip_int64_t i = zip_file_add(w->zip, name, src, ZIP_FL_ENC_UTF_8);
    if (i < 0) {
        zip_source_free(src);
        return fail(ERR_FAILED, "%s: %s: %s", w->path, name, zip_strerror(w->zip));
    }
    /* 1980-01-01 00:00: the same contents give the same bytes */
    if (zip_set_file_compression(w->zip, (zip_uint64_t)i, stored ? ZIP_CM_STORE : ZIP_CM_DEFLATE, 0) ||
        zip_file_set_dostime(w->zip, (zip_uint64_t)i, 0, 0x21, 0))
        return fail(ERR_FAILED, "%s: %s: %s", w->path, name, zip_strerror(w->zip));
    return ERR_OK;
}

err_t archive_finish(struct archive_writer *w)
{
    err_t err = ERR_OK;
    if (zip_close(w->zip)) TRYD(fail(ERR_IO, "write %s: %s", w->path, zip_strerror(w->zip)));
    w->zip = NULL;
    int fd = open(w->tmp, O_RDWR | O_CLOEXEC);
    int rc = fd < 0 ? -1 : fsync(fd);
    if (fd >= 0) close(fd);
    if (rc) TRYD(fail(ERR_IO, "sync %s: %s", w->path, strerror(errno)));
    if (rename(w->tmp, w->path)) TRYD(fail(ERR_IO, "rename %s to %s: %s", w->tmp, w->path, strerror(errno)));
done:
    archive_abandon(w);
    return err;
}

void archive_abandon(struct archive_writer *w)
{
    if (!w) return;
    if (w->zip) zip_discard(w->zip);
    if (w->tmp) unlink(w->tmp);
    mem_free(w->tmp);
    mem_free(w->path);
    mem_free(w);
}
