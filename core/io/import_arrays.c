/* Data sets that are arrays already: CIFAR's batches (rows of 3072 bytes, planes of red, green and blue), MNIST's IDX, NumPy's npz. Each
 * becomes one or more blocks of pixels in memory; a picture is a row of one. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#include "core/io/import_source.h"
#include "core/io/pickle.h"
#include "core/io/tensors.h"

enum { BLOCKS = 6, CIFAR_SIDE = 32, CIFAR_BYTES = 3072, LOT = 1 << 30 };
static const char cifar_known[] = "CIFAR, A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009";

struct block {
    const uint8_t *px;
    int n;
    size_t stride; /* bytes from row to row */
};
struct arrays {
    char *path;
    int h, w, c;
    bool planes; /* [c, h, w] rows, else [h, w, c] */
    struct block blocks[BLOCKS];
    int nblocks, cap; /* of labels */
    char *owned[BLOCKS];
    struct pickle pickles[BLOCKS];
    int npickles;
    struct tensors *file;
};

/* ---- pictures of blocks -------------------------------------------------------------------------------------------------- */

static err_t arrays_get(struct source *s, int i, struct picture *p)
{
    struct arrays *a = s->ctx;
    const struct block *b = a->blocks;
    while (i >= b->n) i -= b->n, b++;
    const uint8_t *from = b->px + (size_t)i * b->stride;
    size_t area = (size_t)a->h * (size_t)a->w, c = (size_t)a->c;
    *p = (struct picture){.h = a->h, .w = a->w, .c = a->c, .px = mem_array(area, c)};
    if (!a->planes) memcpy(p->px, from, area * c);
    for (size_t k = 0; a->planes && k < area * c; k++) p->px[k] = from[k % c * area + k / c];
    return ERR_OK;
}

static void arrays_label(struct source *s, int i, char *out, size_t size)
{
    snprintf(out, size, "%s: image %d", ((struct arrays *)s->ctx)->path, i);
}

static void arrays_close(struct source *s)
{
    struct arrays *a = s->ctx;
    for (int i = 0; i < a->npickles; i++) pickle_done(&a->pickles[i]);
    for (int i = 0; i < BLOCKS; i++) mem_free(a->owned[i]);
    tensors_close(a->file);
    mem_free(a->path);
    mem_free(a);
}

static struct arrays *arrays_begin(struct source *s, const char *path, const char *kind, const char *known)
{
    struct arrays *a = mem_alloc(sizeof *a);
    a->path = mem_strdup(path);
    s->ctx = a;
    s->get = arrays_get, s->label = arrays_label, s->close = arrays_close;
    s->kind = kind, s->known = known;
    return a;
}

static void add_block(struct source *s, const uint8_t *px, int n, size_t stride)
{
    struct arrays *a = s->ctx;
    a->blocks[a->nblocks++] = (struct block){px, n, stride};
    s->labels = mem_grow(s->labels, (size_t)s->n * sizeof *s->labels, (size_t)(s->n + n) * sizeof *s->labels);
    s->n += n;
}

err_t gz_file_read(const char *path, char **data, size_t *n)
{
    err_t err = ERR_OK;
    struct text t = {0};
    static const size_t piece = 1 << 16;
    char *buf = mem_alloc(piece);
    errno = 0;
    gzFile f = gzopen(path, "rbe");
    if (!f)
        TRYD(fail(errno == ENOENT ? ERR_NO_DATA : ERR_IO, "open %s: %s", path,
                  errno ? strerror(errno) : "out of memory"));
    for (;;) {
        int got = gzread(f, buf, (unsigned)piece), code;
        gzerror(f, &code);
        if (code == Z_ERRNO) TRYD(fail(ERR_IO, "read %s: %s", path, strerror(errno)));
        if (got < 0 || code == Z_BUF_ERROR || code == Z_DATA_ERROR)
            TRYD(fail(ERR_FORMAT, "%s: a gzip file cut short or damaged", path));
        if (!got) break;
        text_addn(&t, buf, (size_t)got);
        if (t.len > LOT) TRYD(fail(ERR_FORMAT, "%s: unpacks to more than 1 GB", path));
    }
    *n = t.len;
    *data = t.s ? t.s : mem_alloc(1);
    t.s = NULL;
done:
    if (f) gzclose(f);
    mem_free(buf);
    text_done(&t);
    return err;
}

/* ---- CIFAR ----------------------------------------------------------------------------------------------------------------- */

static const struct cifar {
    const char *probe, *kind, *train[BLOCKS], *test, *meta, *original, *labels, *names;
    int prefix; /* bytes in front of a row; its label is the last of them; 0: pickles */
} cifars[] = {
    {"data_batch_1",
     "CIFAR-10, python version",
     {"data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"},
     "test_batch",
     "batches.meta",
     "cifar10",
     "labels",
     "label_names",
     0},
    {"data_batch_1.bin",
     "CIFAR-10, binary version",
     {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"},
     "test_batch.bin",
     "batches.meta.txt",
     "cifar10",
     NULL,
     NULL,
     1},
    {"train", "CIFAR-100, python version", {"train"}, "test", "meta", "cifar100", "fine_labels", "fine_label_names", 0},
    {"train.bin",
     "CIFAR-100, binary version",
     {"train.bin"},
     "test.bin",
     "fine_label_names.txt",
     "cifar100",
     NULL,
     NULL,
     2}};

static bool is_file(const char *dir, const char *name)
{
    struct stat st;
    char *path = mem_printf("%s/%s", dir, name);
    bool yes = !stat(path, &st) && S_ISREG(st.st_mode);
    mem_free(path);
    return yes;
}

static err_t read_pickle(struct arrays *a, const char *path, char **bytes, struct pv **root)
{
    size_t n, used;
    TRY(file_read(path, LOT, bytes, &n));
    struct pickle *p = &a->pickles[a->npickles++];
    pickle_init(p, n);
    err_t err = pickle_read(p, *bytes, n, root, &used);
    return err ? fail_in(err, "%s", path) : ERR_OK;
}

/* The bytes of a numpy array as the reader leaves it: state = (version, shape, dtype, fortran order, bytes). */
static const struct pv *array_bytes(const struct pv *v)
{
    const struct pv *state = v && v->kind == PV_RECORD ? v->state : NULL;
    if (!state || state->kind != PV_TUPLE || state->count != 5) return NULL;
    const struct pv *fortran = state->at[3], *bytes = state->at[4];
    bool rows = (fortran->kind == PV_BOOL && !fortran->b) || (fortran->kind == PV_INT && !fortran->i);
    return rows && (bytes->kind == PV_BYTES || bytes->kind == PV_STR) ? bytes : NULL;
}

static err_t cifar_pickle(struct source *s, const struct cifar *f, const char *path, char **bytes)
{
    struct pv *root;
    TRY(read_pickle(s->ctx, path, bytes, &root));
    const struct pv *px = array_bytes(pv_get(root, "data")), *labels = pv_get(root, f->labels);
    if (!px || !px->n || px->n % CIFAR_BYTES || px->n / CIFAR_BYTES > INT32_MAX)
        return fail(ERR_FORMAT, "%s: no array 'data' of rows of %d bytes", path, CIFAR_BYTES);
    int n = (int)(px->n / CIFAR_BYTES), from = s->n;
    if (!labels || labels->kind != PV_LIST || labels->count != (size_t)n)
        return fail(ERR_FORMAT, "%s: %zu labels for %d images", path,
                    labels && labels->kind == PV_LIST ? labels->count : 0, n);
    add_block(s, (const uint8_t *)px->s, n, CIFAR_BYTES);
    for (int i = 0; i < n; i++) {
        const struct pv *v = labels->at[i];
        if (v->kind != PV_INT || v->i < 0 || v->i >= IMPORT_CLASSES)
            return fail(ERR_FORMAT, "%s: the label of image %d is no class", path, i);
        s->labels[from + i] = (int32_t)v->i;
    }
    return ERR_OK;
}

static err_t cifar_binary(struct source *s, const struct cifar *f, const char *path, char **bytes)
{
    size_t len, row = CIFAR_BYTES + (size_t)f->prefix;
    TRY(file_read(path, LOT, bytes, &len));
    if (!len || len % row)
        return fail(ERR_FORMAT, "%s: %zu bytes are no whole number of images of %zu: cut short?", path, len, row);
    int n = (int)(len / row), from = s->n;
    add_block(s, (const uint8_t *)*bytes + f->prefix, n, row);
    for (int i = 0; i < n; i++) s->labels[from + i] = (uint8_t)(*bytes)[(size_t)i * row + (size_t)f->prefix - 1];
    return ERR_OK;
}

static err_t cifar_add(struct source *s, const struct cifar *f, const char *dir, const char *name)
{
    struct arrays *a = s->ctx;
    char *path = mem_printf("%s/%s", dir, name), **bytes = &a->owned[a->nblocks];
    err_t err = f->prefix ? cifar_binary(s, f, path, bytes) : cifar_pickle(s, f, path, bytes);
    mem_free(path);
    return err;
}

static void take_names(struct source *s, int n, const char *(*at)(const void *, int, size_t *), const void *from)
{
    s->names = arena_alloc(&s->arena, (size_t)n * sizeof *s->names);
    for (int i = 0; i < n; i++) {
        size_t len;
        const char *name = at(from, i, &len);
        s->names[i] = arena_printf(&s->arena, "%.*s", (int)len, name);
    }
    s->nclasses = n;
}

static const char *pv_name(const void *from, int i, size_t *len)
{
    const struct pv *list = from;
    *len = list->at[i]->n;
    return list->at[i]->s;
}

static const char *line_name(const void *from, int i, size_t *len)
{
    const char *at = from;
    for (; i; i--) at = strchr(at, '\n') + 1;
    *len = strcspn(at, "\r\n");
    return at;
}

/* Class names are a comfort: a data set without them is as good. But where they are, they say how many classes there are. */
static void cifar_names(struct source *s, const struct cifar *f, const char *dir)
{
    struct arrays meta = {0};
    char *path = mem_printf("%s/%s", dir, f->meta), *bytes = NULL;
    struct pv *root;
    size_t n;
    int lines = 0;
    if (f->prefix) {
        if (!file_read(path, 1 << 20, &bytes, &n)) {
            for (char *c = bytes; *c && *c != '\n'; c = strchr(c, '\n') + 1) {
                if (!strchr(c, '\n')) break;
                lines++;
            }
            if (lines && lines <= IMPORT_CLASSES) take_names(s, lines, line_name, bytes);
        }
    } else if (is_file(dir, f->meta) && !read_pickle(&meta, path, &bytes, &root)) {
        const struct pv *list = pv_get(root, f->names);
        bool good = list && list->kind == PV_LIST && list->count && list->count <= IMPORT_CLASSES;
        for (size_t i = 0; good && i < list->count; i++) good = list->at[i]->kind == PV_STR && list->at[i]->n < 200;
        if (good) take_names(s, (int)list->count, pv_name, list);
    }
    if (meta.npickles) pickle_done(&meta.pickles[0]);
    mem_free(bytes);
    mem_free(path);
}

err_t source_cifar(struct source *s, const char *dir, enum import_split split)
{
    const struct cifar *f = NULL;
    for (size_t i = 0; i < ARRAY_LEN(cifars) && !f; i++)
        if (is_file(dir, cifars[i].probe) && (is_file(dir, cifars[i].meta) || is_file(dir, cifars[i].test)))
            f = &cifars[i];
    if (!f) return ERR_OK;
    struct arrays *a = arrays_begin(s, dir, f->kind, cifar_known);
    a->h = a->w = CIFAR_SIDE, a->c = 3, a->planes = true;
    s->original = split == SPLIT_TRAIN ? f->original : NULL;
    s->rest = split == SPLIT_TRAIN && is_file(dir, f->test);
    for (int i = 0; split != SPLIT_TEST && i < BLOCKS && f->train[i]; i++) TRY(cifar_add(s, f, dir, f->train[i]));
    if (split != SPLIT_TRAIN) TRY(cifar_add(s, f, dir, f->test));
    cifar_names(s, f, dir);
    return ERR_OK;
}

/* ---- IDX -------------------------------------------------------------------------------------------------------------------- */

static int64_t be32(const char *p)
{
    const uint8_t *b = (const uint8_t *)p;
    return (int64_t)b[0] << 24 | b[1] << 16 | b[2] << 8 | b[3];
}

/* Magic 0, 0, 8 (bytes), number of dimensions; then those, big-endian. */
static bool idx_head(const char *data, size_t n, int ndim, int64_t dims[4])
{
    if (n < 4 + 4 * (size_t)ndim || memcmp(data, "\0\0\x08", 3) != 0 || data[3] != ndim) return false;
    int64_t room = (int64_t)n - 4 - 4 * ndim, all = 1;
    for (int i = 0; i < ndim; i++) {
        dims[i] = be32(data + 4 + 4 * i);
        if (dims[i] < 1 || dims[i] > room / all) return false;
        all *= dims[i];
    }
    return all == room;
}

/* The labels' path beside the images': "images" and "idx3" become "labels" and "idx1". NULL: that is not how it is named. */
static char *idx_labels_path(const char *path)
{
    const char *file = strrchr(path, '/'), *at = strstr(file ? file : path, "images");
    if (!at) return NULL;
    char *to = mem_printf("%.*slabels%s", (int)(at - path), path, at + strlen("images")),
         *three = strstr(to + (at - path), "idx3");
    if (three) three[3] = '1';
    return to;
}

static err_t idx_labels(struct source *s, const char *path)
{
    err_t err = ERR_OK;
    char *labels = idx_labels_path(path), *data = NULL;
    size_t n;
    int64_t dims[4];
    bool none = !labels || !file_exists(labels);
    if (!none) TRYD(gz_file_read(labels, &data, &n));
    if (!none && !idx_head(data, n, 1, dims)) TRYD(fail(ERR_FORMAT, "%s: no IDX file of labels, or cut short", labels));
    if (!none && dims[0] != s->n)
        TRYD(fail(ERR_FORMAT, "%s: %lld labels for %d images", labels, (long long)dims[0], s->n));
    for (int i = 0; !none && i < s->n; i++) s->labels[i] = (uint8_t)data[8 + i];
    if (none) {
        mem_free(s->labels);
        s->labels = NULL;
    }
done:
    mem_free(data);
    mem_free(labels);
    return err;
}

static err_t idx_file(struct source *s, const char *path)
{
    char *data;
    size_t n;
    int64_t dims[4];
    TRY(gz_file_read(path, &data, &n));
    struct arrays *a = arrays_begin(s, path, "IDX", NULL);
    a->owned[0] = data;
    if (!idx_head(data, n, 3, dims) || dims[1] > PICTURE_SIDE || dims[2] > PICTURE_SIDE)
        return fail(ERR_FORMAT, "%s: no IDX file of images [n, h, w] in bytes, or cut short", path);
    a->h = (int)dims[1], a->w = (int)dims[2], a->c = 1;
    add_block(s, (const uint8_t *)data + 16, (int)dims[0], (size_t)a->h * (size_t)a->w);
    return idx_labels(s, path);
}

err_t source_idx(struct source *s, const char *path, bool directory, enum import_split split)
{
    static const char *const ends[] = {"images-idx3-ubyte", "images-idx3-ubyte.gz", "images.idx3-ubyte",
                                       "images.idx3-ubyte.gz"};
    const char *file = strrchr(path, '/');
    if (!directory) return strstr(file ? file : path, "idx3") ? idx_file(s, path) : ERR_OK;
    for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
        char name[64], test[64];
        snprintf(name, sizeof name, "%s-%s", split == SPLIT_TEST ? "t10k" : "train", ends[i]);
        snprintf(test, sizeof test, "t10k-%s", ends[i]);
        if (!is_file(path, name)) continue;
        if (split == SPLIT_ALL)
            return fail(ERR_USAGE, "%s: --split all is not for IDX files: import one split a time", path);
        char *full = mem_printf("%s/%s", path, name);
        err_t err = idx_file(s, full);
        mem_free(full);
        s->rest = split == SPLIT_TRAIN && is_file(path, test);
        struct arrays *a = s->ctx;
        if (!err && a->h == 28 && a->w == 28 && (s->n == 60000 || s->n == 10000)) s->kind = "IDX (as MNIST is)";
        return err;
    }
    return ERR_OK;
}

/* ---- NumPy -------------------------------------------------------------------------------------------------------------------- */

static const struct tensor *first_of(const struct tensors *f, const char *const *names)
{
    for (; *names; names++) {
        const struct tensor *t = tensors_find(f, *names);
        if (t) return t;
    }
    return NULL;
}

static err_t numpy_labels(struct source *s, const char *path, const struct tensor *t)
{
    bool whole = t->dtype == ST_I64 || t->dtype == ST_I32 || t->dtype == ST_I16 || t->dtype == ST_U8 ||
                 t->dtype == ST_I8 || t->dtype == ST_U16 || t->dtype == ST_U32 || t->dtype == ST_U64;
    if (!whole || t->ndim != 1 || t->dims[0] != s->n)
        return fail(ERR_FORMAT, "%s: %s is no list of %d whole numbers", path, t->name, s->n);
    double *v = mem_array(t->count, sizeof *v);
    err_t err = tensor_read_f64(t, v, t->count);
    for (int i = 0; !err && i < s->n; i++) s->labels[i] = v[i] >= 0 && v[i] < IMPORT_CLASSES ? (int32_t)v[i] : -1;
    mem_free(v);
    return err;
}

err_t source_arrays(struct source *s, const char *path)
{
    static const char *const images[] = {"images", "arr_0", "x_train", "", "data", NULL}, *const labels[] = {
                                                                                              "labels", "arr_1",
                                                                                              "y_train", NULL};
    struct arrays *a = arrays_begin(s, path, "NumPy arrays", NULL);
    TRY(tensors_open(&a->file, path));
    const char *kind = tensors_kind(a->file);
    if (strcmp(kind, "npz") != 0 && strcmp(kind, "npy") != 0)
        return fail(ERR_FORMAT, "%s: a file of weights (%s), not of images", path, kind);
    const struct tensor *t = strcmp(kind, "npy") ? first_of(a->file, images) : tensors_at(a->file, 0),
                        *l = first_of(a->file, labels);
    if (!t && tensors_find(a->file, "mu"))
        return fail(ERR_FORMAT, "%s: statistics of features, not images: for --set eval.stats", path);
    if (!t) return fail(ERR_FORMAT, "%s: no array named images or arr_0", path);
    if (t->dtype != ST_U8 || (t->ndim != 4 && t->ndim != 3))
        return fail(ERR_FORMAT, "%s: images must be uint8 [n, h, w, c]", path);
    int64_t c = t->ndim == 4 ? t->dims[3] : 1;
    for (int i = 0; i < 3; i++)
        if (t->dims[i] < 1 || t->dims[i] > (i ? PICTURE_SIDE : INT32_MAX))
            return fail(ERR_FORMAT, "%s: images with a side of %lld", path, (long long)t->dims[i]);
    if (c != 1 && c != 3)
        return fail(ERR_FORMAT, "%s: images [n, h, w, c] with c = %lld: 1 or 3 (is the array [n, c, h, w]?)", path,
                    (long long)c);
    a->h = (int)t->dims[1], a->w = (int)t->dims[2], a->c = (int)c;
    a->owned[0] = mem_alloc(t->bytes);
    tensor_read_raw(t, a->owned[0]);
    add_block(s, (const uint8_t *)a->owned[0], (int)t->dims[0], (size_t)a->h * (size_t)a->w * (size_t)c);
    if (l) return numpy_labels(s, path, l);
    mem_free(s->labels);
    s->labels = NULL;
    return ERR_OK;
}
