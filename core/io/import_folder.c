/* Folders of pictures: one directory a class, classes and files in the order of their names as bytes, so the labels of a data set do not
 * depend on a disk's order or a locale. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "core/io/import_source.h"

enum { FILE_MOST = 256 << 20 };
struct names {
    char **at;
    int n, cap;
};
struct folder {
    struct names files; /* paths */
};

static void names_add(struct names *l, char *name)
{
    if (l->n == l->cap) {
        int cap = l->cap ? 2 * l->cap : 64;
        l->at = mem_grow(l->at, (size_t)l->cap * sizeof *l->at, (size_t)cap * sizeof *l->at);
        l->cap = cap;
    }
    l->at[l->n++] = name;
}

static void names_done(struct names *l)
{
    for (int i = 0; i < l->n; i++) mem_free(l->at[i]);
    mem_free(l->at);
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_directory(const char *dir, const struct dirent *e)
{
    struct stat st;
    if (e->d_type == DT_DIR || e->d_type == DT_REG) return e->d_type == DT_DIR;
    char *path = mem_printf("%s/%s", dir, e->d_name);
    bool yes = !stat(path, &st) && S_ISDIR(st.st_mode);
    mem_free(path);
    return yes;
}

/* Pictures and directories of dir, sorted; what starts with a dot is left out. */
static err_t list(const char *dir, struct names *files, struct names *dirs)
{
    DIR *f = opendir(dir);
    if (!f) return fail(ERR_IO, "open %s: %s", dir, strerror(errno));
    for (struct dirent *e; (e = readdir(f));) {
        if (e->d_name[0] == '.') continue;
        if (is_directory(dir, e)) names_add(dirs, mem_strdup(e->d_name));
        else if (picture_name(e->d_name)) names_add(files, mem_printf("%s/%s", dir, e->d_name));
    }
    closedir(f);
    if (files->n) qsort(files->at, (size_t)files->n, sizeof *files->at, by_bytes);
    if (dirs->n) qsort(dirs->at, (size_t)dirs->n, sizeof *dirs->at, by_bytes);
    return ERR_OK;
}

/* Adds the pictures of dir/class. */
static err_t add_class(struct folder *f, const char *dir, const char *class, int *added)
{
    struct names files = {0}, dirs = {0};
    char *path = mem_printf("%s/%s", dir, class);
    err_t err = list(path, &files, &dirs);
    if (!err && dirs.n)
        err = fail(
            ERR_FORMAT,
            "%s holds directories (%s ...): one directory a class, with pictures in it; which one is to be imported?",
            path, dirs.at[0]);
    *added = err ? 0 : files.n;
    for (int i = 0; !err && i < files.n; i++) {
        names_add(&f->files, files.at[i]);
        files.at[i] = NULL;
    }
    names_done(&files);
    names_done(&dirs);
    mem_free(path);
    return err;
}

static int find(const struct names *l, const char *const *any)
{
    for (; *any; any++)
        for (int i = 0; i < l->n; i++)
            if (!strcasecmp(l->at[i], *any)) return i;
    return -1;
}

static err_t folder_get(struct source *s, int i, struct picture *p)
{
    struct folder *f = s->ctx;
    char *data;
    size_t n;
    TRY(file_read(f->files.at[i], FILE_MOST, &data, &n));
    err_t err = picture_decode(p, data, n, f->files.at[i]);
    mem_free(data);
    return err;
}

static void folder_label(struct source *s, int i, char *out, size_t size)
{
    snprintf(out, size, "%s", ((struct folder *)s->ctx)->files.at[i]);
}

static void folder_close(struct source *s)
{
    struct folder *f = s->ctx;
    names_done(&f->files);
    mem_free(f);
}

/* The classes of root; where they are those of an earlier root (train, then test), they must be the same ones. */
static err_t add_classes(struct source *s, const char *root, const struct names *dirs, struct names *labels)
{
    int next = 0;
    for (int i = 0; i < dirs->n; i++) {
        int added;
        TRY(add_class(s->ctx, root, dirs->at[i], &added));
        if (!added) continue; /* of something else */
        if (labels->n > next && (s->nclasses > next) && strcmp(s->names[next], dirs->at[i]) != 0)
            return fail(ERR_FORMAT, "%s: the class %s where the training set has %s", root, dirs->at[i],
                        s->names[next]);
        if (next >= IMPORT_CLASSES) return fail(ERR_FORMAT, "%s: more than %d classes", root, IMPORT_CLASSES);
        if (next == labels->n) names_add(labels, mem_strdup(dirs->at[i]));
        next++;
        struct folder *f = s->ctx;
        s->labels = mem_grow(s->labels, (size_t)s->n * sizeof *s->labels, (size_t)f->files.n * sizeof *s->labels);
        while (s->n < f->files.n) s->labels[s->n++] = next - 1;
    }
    return ERR_OK;
}

static err_t add_root(struct source *s, const char *root, struct names *classes)
{
    struct names files = {0}, dirs = {0};
    struct folder *f = s->ctx;
    err_t err = list(root, &files, &dirs);
    if (!err && files.n) { /* pictures here: no classes */
        if (classes->n || s->labels) err = fail(ERR_FORMAT, "%s: pictures beside directories of classes", root);
        for (int i = 0; !err && i < files.n; i++) {
            names_add(&f->files, files.at[i]);
            files.at[i] = NULL;
        }
        s->n = f->files.n;
    } else if (!err) {
        if (s->n && !s->labels)
            err = fail(ERR_FORMAT, "%s: directories of classes where the training set has none", root);
        else err = add_classes(s, root, &dirs, classes);
    }
    names_done(&files);
    names_done(&dirs);
    return err;
}

static void names_keep(struct source *s, const struct names *classes)
{
    if (!classes->n) return;
    s->nclasses = classes->n;
    s->names = arena_alloc(&s->arena, (size_t)classes->n * sizeof *s->names);
    for (int i = 0; i < classes->n; i++) s->names[i] = arena_strdup(&s->arena, classes->at[i]);
}

err_t source_folder(struct source *s, const char *dir, enum import_split split)
{
    static const char *const trains[] = {"train", "training", NULL}, *const tests[] = {"test", "testing", NULL};
    struct names files = {0}, dirs = {0}, classes = {0};
    struct folder *f = mem_alloc(sizeof *f);
    s->ctx = f;
    s->get = folder_get, s->label = folder_label, s->close = folder_close;
    s->kind = "image folder";
    err_t err = list(dir, &files, &dirs);
    int train = err || files.n ? -1 : find(&dirs, trains), test = err || files.n ? -1 : find(&dirs, tests);
    if (!err && (train < 0 || (test < 0 && dirs.n > 2))) {
        if (split == SPLIT_TEST)
            err = fail(ERR_USAGE, "%s: no train and test inside, so --split has nothing to choose", dir);
        else err = add_root(s, dir, &classes);
        names_keep(s, &classes);
    } else if (!err) {
        int roots[2] = {split == SPLIT_TEST ? -1 : train, split == SPLIT_TRAIN ? -1 : test};
        s->rest = split == SPLIT_TRAIN && test >= 0;
        for (int k = 0; !err && k < 2; k++) {
            if (roots[k] < 0) continue;
            char *root = mem_printf("%s/%s", dir, dirs.at[roots[k]]);
            err = add_root(s, root, &classes);
            if (!s->names) names_keep(s, &classes);
            mem_free(root);
        }
    }
    if (!err && classes.n > s->nclasses)
        err = fail(ERR_FORMAT, "%s: the test set has classes that the training set has not", dir);
    names_done(&files);
    names_done(&dirs);
    names_done(&classes);
    return err;
}
