/* The first picture says what all others have to be; the file is laid out from that and the number of pictures; then every thread puts
 * pictures where they belong, so the result does not depend on their order. */
#include "core/io/import.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/io/dataset_store.h"
#include "core/io/import_source.h"

enum { THREADS_MOST = 64, TOLD_EVERY = 256 };

struct work {
    struct source *src;
    const struct import_options *o;
    int h, w, c;
    uint8_t *px;
    atomic_int next, done;
    atomic_bool stop, jpeg;
    pthread_mutex_t lock;
    int bad; /* the first picture that failed */
    err_t err;
    char why[1024];
};

/* ---- one picture ------------------------------------------------------------------------------------------------------- */

/* To the size and channels asked for. label: what to call it where that cannot be. */
static err_t picture_fit(struct picture *p, const struct import_options *o, const char *label)
{
    if (o->crop) picture_crop(p);
    if (o->size && (p->h != o->size || p->w != o->size)) {
        if (p->h != p->w)
            return fail(ERR_USAGE, "%s: %d x %d pixels are no square: --crop takes the one in the middle", label, p->w,
                        p->h);
        if (p->h < o->size)
            return fail(ERR_USAGE, "%s: %d x %d pixels are fewer than --size %d: nothing is enlarged", label, p->w,
                        p->h, o->size);
        if (o->box && p->h % o->size)
            return fail(ERR_USAGE, "%s: --box: %d is no multiple of %d", label, p->h, o->size);
        picture_shrink(p, o->size);
    }
    if (o->channels) picture_channels(p, o->channels);
    return ERR_OK;
}

static err_t picture_same(const struct work *k, const struct picture *p, const char *label)
{
    if (p->c != k->c)
        return fail(ERR_FORMAT, "%s is %s, the first is %s: --channels 3 or 1 makes them alike", label,
                    p->c == 1 ? "grey" : "in colour", k->c == 1 ? "grey" : "in colour");
    if (p->h != k->h || p->w != k->w)
        return fail(ERR_FORMAT, "%s has %d x %d pixels, the first %d x %d: --crop --size N makes them alike", label,
                    p->w, p->h, k->w, k->h);
    return ERR_OK;
}

static err_t place(struct work *k, int i)
{
    struct picture p;
    char label[600];
    TRY(k->src->get(k->src, i, &p));
    k->src->label(k->src, i, label, sizeof label);
    if (p.jpeg) atomic_store(&k->jpeg, true);
    err_t err = picture_fit(&p, k->o, label);
    if (!err) err = picture_same(k, &p, label);
    size_t per = (size_t)k->h * (size_t)k->w * (size_t)k->c;
    if (!err) memcpy(k->px + (size_t)i * per, p.px, per);
    picture_done(&p);
    return err;
}

/* ---- all of them --------------------------------------------------------------------------------------------------------- */

static void note_failure(struct work *k, int i, err_t err)
{
    pthread_mutex_lock(&k->lock);
    if (!k->err || i < k->bad) {
        k->err = err, k->bad = i;
        snprintf(k->why, sizeof k->why, "%s", err_text());
    }
    pthread_mutex_unlock(&k->lock);
    atomic_store(&k->stop, true);
}

static void *decode_some(void *arg)
{
    struct work *k = arg;
    int i;
    while (!atomic_load(&k->stop) && (i = atomic_fetch_add(&k->next, 1)) < k->src->n) {
        err_t err = place(k, i);
        if (err) note_failure(k, i, err);
        int done = atomic_fetch_add(&k->done, 1) + 1;
        if (k->o->progress && (done % TOLD_EVERY == 0 || done == k->src->n)) {
            pthread_mutex_lock(&k->lock);
            k->o->progress(k->o->ctx, done, k->src->n);
            pthread_mutex_unlock(&k->lock);
        }
    }
    return NULL;
}

static err_t decode_all(struct work *k)
{
    pthread_t t[THREADS_MOST];
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int want = k->o->threads ? k->o->threads : 2 * (int)(cores > 0 ? cores : 1), have = 0;
    if (want > THREADS_MOST) want = THREADS_MOST;
    pthread_mutex_init(&k->lock, NULL);
    while (have + 1 < want && !pthread_create(&t[have], NULL, decode_some, k)) have++;
    decode_some(k); /* this thread is one of them, and the only one where none can be made */
    while (have) pthread_join(t[--have], NULL);
    pthread_mutex_destroy(&k->lock);
    return k->err ? fail(k->err, "%s", k->why) : ERR_OK;
}

/* ---- names --------------------------------------------------------------------------------------------------------------- */

/* "/data/CIFAR images/" -> "cifar-images"; "x.zip" -> "x" */
static void name_of_path(const char *path, char *out, size_t size)
{
    const char *end = path + strlen(path);
    while (end > path && end[-1] == '/') end--;
    const char *at = end;
    while (at > path && at[-1] != '/') at--;
    size_t n = 0;
    for (; at < end && n + 1 < size; at++) {
        bool plain = (*at >= '0' && *at <= '9') || (*at >= 'a' && *at <= 'z') || *at == '_' || (*at == '.' && n);
        if (*at >= 'A' && *at <= 'Z') out[n++] = (char)(*at - 'A' + 'a');
        else if (plain) out[n++] = *at;
        else if (n && out[n - 1] != '-') out[n++] = '-';
    }
    out[n] = 0;
    static const char *const ends[] = {".zip", ".npz", ".npy", ".gz", "-idx3-ubyte", "-images", ".idx3-ubyte"};
    for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
        size_t e = strlen(ends[i]);
        if (n > e && !strcmp(out + n - e, ends[i])) out[n -= e] = 0;
    }
}

static err_t name_choose(struct import_result *r, const struct source *s, const struct import_options *o,
                         const char *path)
{
    static const char *const originals[] = {"cifar10", "cifar-10", "cifar100", "cifar-100", "mnist"};
    char base[48], full[96];
    if (o->name) {
        TRY(dataset_name_check(o->name));
        snprintf(r->name, sizeof r->name, "%s", o->name);
        for (size_t i = 0; i < ARRAY_LEN(originals); i++)
            if (r->jpeg && !strcmp(r->name, originals[i]))
                return fail(ERR_USAGE, "JPEGs are not the original %s, whose numbers are published: --name %s-jpeg",
                            r->name, r->name);
    } else {
        if (s->original) snprintf(base, sizeof base, "%s", s->original);
        else name_of_path(path, base, sizeof base);
        bool said = strstr(base, "jpeg") || strstr(base, "jpg");
        snprintf(full, sizeof full, "%s%s", base, r->jpeg && !said ? "-jpeg" : "");
        if (o->size) snprintf(full + strlen(full), sizeof full - strlen(full), "-%d", o->size);
        if (dataset_name_check(full)) return fail(ERR_USAGE, "%s gives no name for a data set: --name NAME", path);
        snprintf(r->name, sizeof r->name, "%.63s", full);
    }
    if (dataset_built_in(r->name)) return fail(ERR_USAGE, "%s is built in: --name another", r->name);
    return ERR_OK;
}

/* ---- sources --------------------------------------------------------------------------------------------------------------- */

static err_t split_of(const char *text, enum import_split *split)
{
    *split = SPLIT_TRAIN;
    if (!text || !strcmp(text, "train")) return ERR_OK;
    if (!strcmp(text, "test")) *split = SPLIT_TEST;
    else if (!strcmp(text, "all")) *split = SPLIT_ALL;
    else return fail(ERR_USAGE, "--split %s: train, test or all", text);
    return ERR_OK;
}

static err_t source_open(struct source *s, const char *path, enum import_split split)
{
    struct stat st;
    if (stat(path, &st)) return fail(errno == ENOENT ? ERR_NO_DATA : ERR_IO, "%s: %s", path, strerror(errno));
    if (S_ISDIR(st.st_mode)) {
        TRY(source_cifar(s, path, split));
        if (!s->n) TRY(source_idx(s, path, true, split));
        if (!s->n) TRY(source_folder(s, path, split));
        return s->n ? ERR_OK
                    : fail(ERR_FORMAT, "%s: no pictures, no directories of pictures, no CIFAR batches, no IDX files",
                           path);
    }
    const char *dot = strrchr(path, '.');
    if (strstr(path, ".tar") || (dot && (!strcmp(dot, ".tgz") || !strcmp(dot, ".txz"))))
        return fail(ERR_USAGE, "%s: unpack it first (tar xf), then import the directory", path);
    TRY(source_idx(s, path, false, split));
    if (!s->n) TRY(source_zip(s, path));
    if (!s->n) TRY(source_arrays(s, path));
    return s->n ? ERR_OK : fail(ERR_FORMAT, "%s: no zip, npz, npy or IDX file of images (`ect help data`)", path);
}

static void source_close(struct source *s)
{
    if (s->close) s->close(s);
    mem_free(s->labels);
    arena_done(&s->arena);
}

static err_t labels_check(struct source *s)
{
    int top = -1;
    for (int i = 0; s->labels && i < s->n; i++) {
        if (s->labels[i] < 0 || s->labels[i] >= IMPORT_CLASSES)
            return fail(ERR_FORMAT, "image %d has label %d: labels are 0..%d", i, s->labels[i], IMPORT_CLASSES - 1);
        if (s->labels[i] > top) top = s->labels[i];
    }
    if (s->nclasses && top >= s->nclasses) return fail(ERR_FORMAT, "a label %d of %d classes", top, s->nclasses);
    if (!s->nclasses) s->nclasses = top + 1;
    return ERR_OK;
}

/* ---- the import -------------------------------------------------------------------------------------------------------------- */

static void describe(struct dataset_writer *w, const struct work *k, const struct import_options *o, const char *path)
{
    char how[100];
    dataset_writer_about(w, "source", path);
    dataset_writer_about(w, "form", k->src->kind);
    dataset_writer_about(w, "codec", atomic_load(&k->jpeg) ? "jpeg" : "lossless");
    snprintf(how, sizeof how, "%s%s%s", o->crop ? "centre crop" : "", o->crop && o->size ? ", " : "",
             o->size ? "means of areas" : "");
    if (*how) dataset_writer_about(w, "how", how);
}

/* A data set of that name which is there: the same contents are fine, others need replace. */
static err_t settle(const char *path, const struct import_options *o, struct import_result *r)
{
    struct dataset *old;
    if (!file_exists(path) || o->replace) return ERR_OK;
    if (dataset_open_file(&old, path)) return fail_in(ERR_FORMAT, "--replace would put a good file in its place");
    r->had = !strcmp(old->sha, r->sha);
    dataset_free(old);
    if (r->had) return ERR_OK;
    return fail(
        ERR_USAGE,
        "there is a data set %s with other contents, which runs may have been trained on: --name another, or --replace",
        r->name);
}

static err_t fill(struct work *k, const struct dataset *shape, const char *path, struct import_result *r)
{
    struct dataset_writer *w;
    struct dataset measured;
    TRY(dataset_create(&w, r->path, shape));
    k->px = dataset_writer_pixels(w);
    if (shape->nclasses) memcpy(dataset_writer_labels(w), k->src->labels, (size_t)k->src->n * sizeof(int32_t));
    err_t err = decode_all(k);
    if (!err) {
        describe(w, k, k->o, path);
        dataset_writer_measure(w, &measured);
        strcpy(r->sha, measured.sha);
        r->std = measured.std;
        err = settle(r->path, k->o, r);
    }
    if (err || r->had) dataset_abandon(w);
    else err = dataset_finish(w);
    return err;
}

static err_t import_from(struct source *s, const char *path, const struct import_options *o, struct import_result *r)
{
    struct picture first;
    struct work k = {.src = s, .o = o};
    char label[600];
    TRY(labels_check(s));
    s->label(s, 0, label, sizeof label);
    TRY(s->get(s, 0, &first));
    err_t err = picture_fit(&first, o, label);
    k.h = first.h, k.w = first.w, k.c = first.c;
    r->jpeg = first.jpeg;
    picture_done(&first);
    if (err) return err;
    if (o->unlabelled || !s->labels) s->nclasses = 0;
    TRY(name_choose(r, s, o, path));
    char *dir = dataset_dir();
    err = dir_make(dir);
    mem_free(dir);
    if (err) return err;
    r->path = dataset_path(r->name);
    r->n = s->n, r->h = k.h, r->w = k.w, r->c = k.c, r->nclasses = s->nclasses;
    r->kind = s->kind, r->rest = s->rest;
    struct dataset shape = {.n = s->n,
                            .h = k.h,
                            .w = k.w,
                            .c = k.c,
                            .nclasses = s->nclasses,
                            .class_names = s->nclasses ? s->names : NULL,
                            .attribution = o->attribution ? o->attribution : s->known};
    strcpy(shape.name, r->name);
    err = fill(&k, &shape, path, r);
    r->jpeg = r->jpeg || atomic_load(&k.jpeg);
    return err;
}

err_t import_data(const char *path, const struct import_options *o, struct import_result *r)
{
    struct source s = {.n = 0};
    enum import_split split;
    *r = (struct import_result){.n = 0};
    TRY(split_of(o->split, &split));
    if (o->size < 0 || o->size > PICTURE_SIDE || (o->channels && o->channels != 1 && o->channels != 3))
        return fail(ERR_USAGE, "--size is 1..%d, --channels 1 or 3", PICTURE_SIDE);
    if (o->box && !o->size) return fail(ERR_USAGE, "--box needs --size N");
    arena_init(&s.arena);
    err_t err = source_open(&s, path, split);
    if (!err) err = import_from(&s, path, o, r);
    source_close(&s);
    if (err) {
        mem_free(r->path);
        r->path = NULL;
    }
    return err;
}
