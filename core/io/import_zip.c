/* Zips of pictures. The archive hands out bytes to one thread at a time; decoding them is the larger part and runs beside. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/io/archive.h"
#include "core/io/import_source.h"

struct pack {
    char *path;
    void *map;
    size_t bytes;
    struct archive *zip;
    pthread_mutex_t lock;
    const char **names; /* [n] sorted */
};

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* ---- dataset.json ------------------------------------------------------------------------------------------------------- */

/* Sets the label of one ["name", class]. Names of other files (a data set of which a part was packed) are refused: they would be a sign of
 * another archive's dataset.json. */
static err_t set_label(json_t *pair, size_t k, const char *const *sorted, int n, int32_t *label, const char *what)
{
    json_t *name = json_array_get(pair, 0), *value = json_array_get(pair, 1);
    if (json_array_size(pair) != 2 || !json_is_string(name))
        return fail(ERR_FORMAT, "%s: label %zu is not [\"file\", class]", what, k);
    const char *s = json_string_value(name);
    if (!json_is_integer(value))
        return fail(ERR_FORMAT, "%s: the label of %s is no whole number: only classes can be imported", what, s);
    if (json_integer_value(value) < 0 || json_integer_value(value) >= IMPORT_CLASSES)
        return fail(ERR_FORMAT, "%s: %s has label %lld: labels are 0..%d", what, s,
                    (long long)json_integer_value(value), IMPORT_CLASSES - 1);
    const char *const *at = bsearch(&s, sorted, (size_t)n, sizeof *sorted, by_bytes);
    if (!at) return fail(ERR_FORMAT, "%s: a label for %s, which is no picture of this data set", what, s);
    int32_t *to = &label[at - sorted];
    if (*to >= 0 && *to != (int32_t)json_integer_value(value))
        return fail(ERR_FORMAT, "%s: two labels for %s", what, s);
    *to = (int32_t)json_integer_value(value);
    return ERR_OK;
}

err_t dataset_json_labels(const char *json, size_t len, const char *const *sorted, int n, int32_t *label, bool *found,
                          const char *what)
{
    json_error_t why;
    err_t err = ERR_OK;
    json_t *all = json_loadb(json, len, JSON_REJECT_DUPLICATES, &why), *list;
    *found = false;
    if (!all) return fail(ERR_FORMAT, "%s: line %d: %s", what, why.line, why.text);
    list = json_object_get(all, "labels");
    if (!json_is_object(all) || !list) TRYD(fail(ERR_FORMAT, "%s: no \"labels\" in it", what));
    if (json_is_null(list)) goto done;
    if (!json_is_array(list)) TRYD(fail(ERR_FORMAT, "%s: \"labels\" is no list", what));
    for (int i = 0; i < n; i++) label[i] = -1;
    for (size_t k = 0; k < json_array_size(list); k++)
        TRYD(set_label(json_array_get(list, k), k, sorted, n, label, what));
    for (int i = 0; i < n; i++)
        if (label[i] < 0)
            TRYD(fail(ERR_FORMAT, "%s: no label for %s: it has %zu for %d pictures", what, sorted[i],
                      json_array_size(list), n));
    *found = true;
done:
    json_decref(all);
    return err;
}

/* ---- the archive ---------------------------------------------------------------------------------------------------------- */

static err_t pack_bytes(struct pack *z, int entry, char **data, size_t *n)
{
    pthread_mutex_lock(&z->lock);
    err_t err = archive_read(z->zip, entry, data, n);
    pthread_mutex_unlock(&z->lock);
    return err;
}

static void pack_label(struct source *s, int i, char *out, size_t size)
{
    struct pack *z = s->ctx;
    snprintf(out, size, "%s: %s", z->path, z->names[i]);
}

static err_t pack_get(struct source *s, int i, struct picture *p)
{
    struct pack *z = s->ctx;
    char *data, label[600];
    size_t n;
    TRY(pack_bytes(z, archive_find(z->zip, z->names[i]), &data, &n));
    pack_label(s, i, label, sizeof label);
    err_t err = picture_decode(p, data, n, label);
    mem_free(data);
    return err;
}

static void pack_close(struct source *s)
{
    struct pack *z = s->ctx;
    archive_close(z->zip);
    if (z->map) munmap(z->map, z->bytes);
    pthread_mutex_destroy(&z->lock);
    mem_free(z->names);
    mem_free(z->path);
    mem_free(z);
}

static err_t pack_map(struct pack *z, bool *zip)
{
    err_t err = ERR_OK;
    struct stat st;
    int fd = open(z->path, O_RDONLY | O_CLOEXEC);
    *zip = false;
    if (fd < 0) return fail(ERR_IO, "open %s: %s", z->path, strerror(errno));
    if (fstat(fd, &st)) TRYD(fail(ERR_IO, "%s: %s", z->path, strerror(errno)));
    if (st.st_size < 4) goto done;
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED) TRYD(fail(ERR_IO, "map %s: %s", z->path, strerror(errno)));
    z->map = map;
    z->bytes = (size_t)st.st_size;
    *zip = !memcmp(map, "PK\3\4", 4) || !memcmp(map, "PK\5\6", 4);
done:
    close(fd);
    return err;
}

/* Pictures of the archive by name; what else it holds decides between a zip of pictures and one of arrays. */
static err_t pack_list(struct source *s)
{
    struct pack *z = s->ctx;
    int count = archive_count(z->zip), arrays = 0;
    z->names = mem_array((size_t)count + 1, sizeof *z->names);
    for (int i = 0; i < count; i++) {
        const char *name = archive_name(z->zip, i), *dot = strrchr(name, '.');
        if (picture_name(name) && strncmp(name, "__MACOSX/", 9) != 0) z->names[s->n++] = name;
        arrays += dot && !strcmp(dot, ".npy");
    }
    if (s->n) qsort(z->names, (size_t)s->n, sizeof *z->names, by_bytes);
    if (s->n && arrays) return fail(ERR_FORMAT, "%s: pictures and arrays in one zip: which are the data?", z->path);
    if (!s->n && !arrays) return fail(ERR_FORMAT, "%s: a zip without PNG or JPEG images", z->path);
    if (!s->n && archive_find(z->zip, "dataset.json") >= 0)
        return fail(ERR_FORMAT, "%s: a data set of latents (.npy), not of pictures: ect trains on pixels", z->path);
    return ERR_OK;
}

static err_t pack_labels(struct source *s)
{
    struct pack *z = s->ctx;
    char *json, what[600];
    size_t len;
    bool found;
    int entry = archive_find(z->zip, "dataset.json");
    if (entry < 0) return ERR_OK;
    snprintf(what, sizeof what, "%s: dataset.json", z->path);
    TRY(pack_bytes(z, entry, &json, &len));
    int32_t *label = mem_array((size_t)s->n, sizeof *label);
    err_t err = dataset_json_labels(json, len, z->names, s->n, label, &found, what);
    mem_free(json);
    if (!err && found) s->labels = label;
    else mem_free(label);
    return err;
}

err_t source_zip(struct source *s, const char *path)
{
    bool zip;
    struct pack *z = mem_alloc(sizeof *z);
    z->path = mem_strdup(path);
    pthread_mutex_init(&z->lock, NULL);
    s->ctx = z;
    s->get = pack_get, s->label = pack_label, s->close = pack_close;
    s->kind = "zip of images";
    err_t err = pack_map(z, &zip);
    if (!err && zip) err = archive_open(&z->zip, z->map, z->bytes, z->path);
    if (!err && zip) err = pack_list(s);
    if (!err && s->n) err = pack_labels(s);
    if (!err && !s->n) { /* another reader's */
        pack_close(s);
        s->close = NULL;
    }
    return err;
}
