/* A stored data set is a safetensors file whose header is written last: its size is fixed before the pixels come, with room for what is
 * only known after them, and blanks fill what is left, as the format allows. So a data set larger than memory can be imported. */
#include "core/io/dataset_store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/io/safetensors.h"

enum { CLASSES_MOST = 10000, SLACK = 2048 };
static const char store_format[] = "ect dataset 1", ending[] = ".safetensors";

/* ---- names ------------------------------------------------------------------------------------------------------------ */

char *dataset_dir(void)
{
    const char *own = getenv("ECT_DATA"), *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    if (own && *own) return mem_strdup(own);
    if (data && *data) return mem_printf("%s/ect/data", data);
    return mem_printf("%s/.local/share/ect/data", home ? home : "");
}

char *dataset_path(const char *name)
{
    char *dir = dataset_dir(), *path = mem_printf("%s/%s%s", dir, name, ending);
    mem_free(dir);
    return path;
}

err_t dataset_name_check(const char *name)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    if (!*name || name[n] || *name == '.' || *name == '-')
        return fail(ERR_USAGE, "'%s' is no name for a data set: letters, digits, '-', '_' and '.'", name);
    if (n >= sizeof((struct dataset *)0)->name)
        return fail(ERR_USAGE, "the name %s is too long: at most 63 letters", name);
    return ERR_OK;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

err_t dataset_list(char ***names, int *n)
{
    char *dir = dataset_dir(), **list = NULL;
    int have = 0, cap = 0;
    err_t err = ERR_OK;
    DIR *f = opendir(dir);
    *names = NULL, *n = 0;
    if (!f && errno != ENOENT) err = fail(ERR_IO, "open %s: %s", dir, strerror(errno));
    for (struct dirent *e; f && (e = readdir(f));) {
        size_t len = strlen(e->d_name), end = strlen(ending);
        if (e->d_name[0] == '.' || len <= end || strcmp(e->d_name + len - end, ending) != 0) continue;
        if (have == cap) {
            int more = cap ? 2 * cap : 16;
            list = mem_grow(list, (size_t)cap * sizeof *list, (size_t)more * sizeof *list);
            cap = more;
        }
        list[have] = mem_strdup(e->d_name);
        list[have++][len - end] = 0;
    }
    if (f) closedir(f);
    if (have) qsort(list, (size_t)have, sizeof *list, by_text);
    mem_free(dir);
    *names = list, *n = have;
    return err;
}

/* ---- reading ---------------------------------------------------------------------------------------------------------- */

static err_t no_such(const char *name)
{
    static const char *const built[] = {"digits", "swissroll", "gauss8", "gaussian"};
    char **names, *dir = dataset_dir();
    int n;
    struct text t = {0};
    err_t err = dataset_list(&names, &n);
    if (!err) {
        const char **all = mem_array((size_t)n + ARRAY_LEN(built), sizeof *all);
        size_t count = 0;
        for (size_t i = 0; i < ARRAY_LEN(built); i++) all[count++] = built[i];
        for (int i = 0; i < n; i++) all[count++] = names[i];
        for (size_t i = 0; i < count && i < 20; i++) text_addf(&t, "%s%s", i ? ", " : "", all[i]);
        const char *near = nearest_name(name, all, count);
        err =
            fail(ERR_NO_DATA,
                 "no data set named '%s'%s%s%s (there are: %s; imported ones are looked for in %s): %s`ect data import "
                 "PATH --name %s`",
                 name, near ? ", did you mean " : "", near ? near : "", near ? "?" : "", text_str(&t), dir,
                 strcmp(name, "cifar10") ? "" : "`ect data get cifar10`, or ", name);
        mem_free(all);
    }
    for (int i = 0; i < n; i++) mem_free(names[i]);
    mem_free(names);
    mem_free(dir);
    text_done(&t);
    return err;
}

const char *dataset_about(const struct dataset *d, const char *key)
{
    return d->file ? st_meta(d->file, key) : NULL;
}

/* The list of class names in the metadata; the texts go behind the pointers, in one block. */
static err_t names_parse(struct dataset *d, const char *path, const char *text)
{
    err_t err = ERR_OK;
    size_t bytes = 0, pointers = (size_t)d->nclasses * sizeof(char *);
    json_t *list = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_array(list) || json_array_size(list) != (size_t)d->nclasses)
        TRYD(fail(ERR_FORMAT, "%s: class_names is no list of %d names", path, d->nclasses));
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (!json_is_string(json_array_get(list, i))) TRYD(fail(ERR_FORMAT, "%s: a class name is no text", path));
        bytes += json_string_length(json_array_get(list, i)) + 1;
    }
    d->class_names = mem_alloc(pointers + bytes);
    char *to = (char *)d->class_names + pointers;
    for (int i = 0; i < d->nclasses; i++) {
        json_t *name = json_array_get(list, (size_t)i);
        d->class_names[i] = to;
        memcpy(to, json_string_value(name), json_string_length(name) + 1);
        to += json_string_length(name) + 1;
    }
done:
    json_decref(list);
    return err;
}

static bool is_sha(const char *s)
{
    return s && strlen(s) == SHA256_TEXT - 1 && strspn(s, "0123456789abcdef") == SHA256_TEXT - 1;
}

static err_t stored_labels(struct dataset *d, const char *path)
{
    const struct st_tensor *t = st_find(d->file, "labels");
    const char *names = st_meta(d->file, "class_names");
    if (!d->nclasses) return t ? fail(ERR_FORMAT, "%s: labels of no classes", path) : ERR_OK;
    if (!t || t->dtype != ST_I32 || t->ndim != 1 || t->dims[0] != d->n)
        return fail(ERR_FORMAT, "%s: no int32 label for each of the %d images", path, d->n);
    if ((uintptr_t)t->data % sizeof(int32_t))
        return fail(ERR_FORMAT, "%s: labels at an odd place: import it again", path);
    d->labels = (int32_t *)t->data; /* never written to */
    for (int i = 0; i < d->n; i++)
        if (d->labels[i] < 0 || d->labels[i] >= d->nclasses)
            return fail(ERR_FORMAT, "%s: image %d has label %d of %d classes", path, i, d->labels[i], d->nclasses);
    return names ? names_parse(d, path, names) : ERR_OK;
}

static err_t stored_fill(struct dataset *d, const char *path)
{
    const char *format = st_meta(d->file, "format"), *std = st_meta(d->file, "std"), *sha = st_meta(d->file, "sha"),
               *classes = st_meta(d->file, "classes"), *name = st_meta(d->file, "name");
    const struct st_tensor *t = st_find(d->file, "images");
    int64_t nclasses;
    if (!format || strncmp(format, "ect dataset ", 12) != 0)
        return fail(ERR_FORMAT, "%s: not a data set of ect: `ect data import` makes one", path);
    if (strcmp(format, store_format) != 0) return fail(ERR_NEWER, "%s: written by a newer ect (%s)", path, format);
    if (!t || t->dtype != ST_U8 || t->ndim != 4) return fail(ERR_FORMAT, "%s: no uint8 images [n, h, w, c]", path);
    for (int i = 0; i < 4; i++)
        if (t->dims[i] < 1 || t->dims[i] > INT32_MAX)
            return fail(ERR_FORMAT, "%s: a side of images is %lld", path, (long long)t->dims[i]);
    if (t->count / (size_t)t->dims[0] > INT32_MAX) return fail(ERR_FORMAT, "%s: images too large", path);
    if (!is_sha(sha) || !std || !num_parse(std, &d->std) || !(d->std >= 0) || !name || dataset_name_check(name))
        return fail(ERR_FORMAT, "%s: no name, sha or std in its metadata: the import was not finished", path);
    if (!classes || !int_parse(classes, &nclasses) || nclasses < 0 || nclasses > CLASSES_MOST)
        return fail(ERR_FORMAT, "%s: no number of classes in its metadata", path);
    d->n = (int)t->dims[0], d->h = (int)t->dims[1], d->w = (int)t->dims[2], d->c = (int)t->dims[3];
    d->nclasses = (int)nclasses;
    d->pixels = (uint8_t *)t->data; /* never written to */
    d->attribution = st_meta(d->file, "attribution");
    strcpy(d->sha, sha);
    strcpy(d->name, name);
    return stored_labels(d, path);
}

err_t dataset_open_file(struct dataset **out, const char *path)
{
    struct dataset *d = mem_alloc(sizeof *d);
    *out = NULL;
    err_t err = st_open(&d->file, path);
    if (!err) err = stored_fill(d, path);
    if (err) dataset_free(d);
    else *out = d;
    return err;
}

err_t dataset_open_stored(struct dataset **d, const char *name)
{
    *d = NULL;
    if (dataset_name_check(name)) return no_such(name);
    char *path = dataset_path(name);
    err_t err = file_exists(path) ? dataset_open_file(d, path) : no_such(name);
    if (!err) snprintf((*d)->name, sizeof(*d)->name, "%s", name); /* a renamed file has its new name */
    mem_free(path);
    return err;
}

err_t dataset_verify(const struct dataset *d)
{
    struct dataset again = *d;
    dataset_measure(&again);
    if (strcmp(again.sha, d->sha) != 0)
        return fail(
            ERR_FORMAT,
            "data set %s: its pixels and labels hash to %.16s..., not to %.16s... as its file says: import it again",
            d->name, again.sha, d->sha);
    if (fabs(again.std - d->std) > 1e-9)
        return fail(ERR_FORMAT, "data set %s: its standard deviation is %g, not %g", d->name, again.std, d->std);
    return ERR_OK;
}

/* ---- writing ---------------------------------------------------------------------------------------------------------- */

struct dataset_writer {
    char *path, *tmp;
    int fd;
    char *map;
    size_t bytes, head; /* of the file; of its header with the length in front */
    struct dataset d;   /* pixels and labels in the map */
    json_t *about;
};

static json_t *tensor_json(const char *dtype, json_t *shape, size_t from, size_t to)
{
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype, "shape", shape, "data_offsets", (json_int_t)from,
                     (json_int_t)to);
}

/* The header's text; free with free(). */
static char *header_text(const struct dataset_writer *w)
{
    const struct dataset *d = &w->d;
    char std[NUM_TEXT];
    size_t labels = d->nclasses ? (size_t)d->n * sizeof(int32_t) : 0,
           images = (size_t)d->n * (size_t)d->h * (size_t)d->w * (size_t)d->c;
    json_t *meta = json_copy(w->about), *all = json_object();
    json_object_set_new(meta, "format", json_string(store_format));
    json_object_set_new(meta, "name", json_string(d->name));
    json_object_set_new(meta, "sha", json_string(d->sha));
    json_object_set_new(meta, "std", json_string(num_text(std, d->std)));
    json_object_set_new(meta, "classes", json_sprintf("%d", d->nclasses));
    if (d->attribution) json_object_set_new(meta, "attribution", json_string(d->attribution));
    if (d->class_names) {
        json_t *names = json_array();
        for (int i = 0; i < d->nclasses; i++) json_array_append_new(names, json_string(d->class_names[i]));
        char *s = json_dumps(names, JSON_COMPACT);
        json_object_set_new(meta, "class_names", json_string(s ? s : "[]"));
        free(s);
        json_decref(names);
    }
    json_object_set_new(all, "__metadata__", meta);
    if (labels) json_object_set_new(all, "labels", tensor_json("I32", json_pack("[i]", d->n), 0, labels));
    json_object_set_new(all, "images",
                        tensor_json("U8", json_pack("[i, i, i, i]", d->n, d->h, d->w, d->c), labels, labels + images));
    char *s = json_dumps(all, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(all);
    return s;
}

err_t dataset_create(struct dataset_writer **out, const char *path, const struct dataset *shape)
{
    err_t err = ERR_OK;
    struct dataset_writer *w = mem_alloc(sizeof *w);
    *out = NULL;
    *w = (struct dataset_writer){.fd = -1, .d = *shape, .about = json_object()};
    w->d.file = NULL;
    w->d.sha[0] = 0;
    size_t labels = shape->nclasses ? (size_t)shape->n * sizeof(int32_t) : 0;
    char *draft = header_text(w);
    if (!draft) TRYD(fail(ERR_FORMAT, "%s: a class name or the attribution is not UTF-8", path));
    w->head = (8 + strlen(draft) + SLACK + 63) / 64 * 64;
    w->bytes = w->head + labels + (size_t)shape->n * (size_t)shape->h * (size_t)shape->w * (size_t)shape->c;
    w->path = mem_strdup(path);
    w->tmp = mem_printf("%s.tmp-%ld", path, (long)getpid());
    w->fd = open(w->tmp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (w->fd < 0) TRYD(fail(ERR_IO, "create %s: %s", w->tmp, strerror(errno)));
    int why = posix_fallocate(w->fd, 0, (off_t)w->bytes); /* a full disk is told here, not by a signal at some pixel */
    if (why) TRYD(fail(ERR_IO, "reserve %zu bytes for %s: %s", w->bytes, path, strerror(why)));
    void *map = mmap(NULL, w->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, w->fd, 0);
    if (map == MAP_FAILED) TRYD(fail(ERR_IO, "map %s: %s", w->tmp, strerror(errno)));
    w->map = map;
    w->d.labels = labels ? (int32_t *)(w->map + w->head) : NULL;
    w->d.pixels = (uint8_t *)w->map + w->head + labels;
done:
    free(draft);
    if (err) dataset_abandon(w);
    else *out = w;
    return err;
}

uint8_t *dataset_writer_pixels(struct dataset_writer *w)
{
    return w->d.pixels;
}

int32_t *dataset_writer_labels(struct dataset_writer *w)
{
    return w->d.labels;
}

void dataset_writer_about(struct dataset_writer *w, const char *key, const char *value)
{
    json_t *s = json_string(value);
    if (s) json_object_set_new(w->about, key, s); /* what is no UTF-8 is left out */
}

void dataset_writer_measure(struct dataset_writer *w, struct dataset *d)
{
    if (!w->d.sha[0]) dataset_measure(&w->d);
    d->std = w->d.std;
    strcpy(d->sha, w->d.sha);
}

err_t dataset_finish(struct dataset_writer *w)
{
    struct dataset measured;
    err_t err = ERR_OK;
    char *head = NULL;
    for (int i = 0; w->d.labels && i < w->d.n; i++)
        if (w->d.labels[i] < 0 || w->d.labels[i] >= w->d.nclasses)
            TRYD(fail(ERR_FORMAT, "image %d has label %d of %d classes", i, w->d.labels[i], w->d.nclasses));
    dataset_writer_measure(w, &measured);
    head = header_text(w);
    size_t len = head ? strlen(head) : 0, room = w->head - 8;
    if (!head || len > room) TRYD(fail(ERR_FORMAT, "%s: the texts about this data set are too long", w->path));
    for (int i = 0; i < 8; i++) w->map[i] = (char)((uint64_t)room >> 8 * i);
    memset(w->map + 8, ' ', room);
    memcpy(w->map + 8, head, len);
    if (msync(w->map, w->bytes, MS_SYNC) || fsync(w->fd)) TRYD(fail(ERR_IO, "sync %s: %s", w->tmp, strerror(errno)));
    if (rename(w->tmp, w->path)) TRYD(fail(ERR_IO, "rename %s to %s: %s", w->tmp, w->path, strerror(errno)));
    mem_free(w->tmp);
    w->tmp = NULL;
done:
    free(head);
    dataset_abandon(w);
    return err;
}

void dataset_abandon(struct dataset_writer *w)
{
    if (!w) return;
    if (w->map) munmap(w->map, w->bytes);
    if (w->fd >= 0) close(w->fd);
    if (w->tmp) unlink(w->tmp);
    mem_free(w->tmp);
    mem_free(w->path);
    json_decref(w->about);
    mem_free(w);
}
