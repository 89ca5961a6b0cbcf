/* The door: what the first bytes say decides who reads, and every view of memory passes one check. */
#include "core/io/tensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/io/tensors_file.h"

enum { VIEW_RATIO = 16, VIEW_FREE = 1 << 20, JSON_MOST = 8 << 20 };

/* ---- what the readers use ------------------------------------------------------------------------------------------ */

err_t tensor_view_check(const struct tensors *f, struct tensor *t, int64_t offset, size_t avail)
{
    size_t size = st_dtype_size(t->dtype);
    int64_t last = offset; /* the farthest element that is touched */
    bool empty = false;
    t->count = 1;
    if (offset < 0) return fail(ERR_FORMAT, "a tensor before its storage's begin");
    for (int i = 0; i < t->ndim; i++) {
        if (t->dims[i] < 0) return fail(ERR_FORMAT, "a tensor of negative size");
        if (t->strides[i] < 0) return fail(ERR_FORMAT, "a tensor with a negative stride");
        if (!t->dims[i]) empty = true;
    }
    for (int i = 0; i < t->ndim && !empty; i++) {
        int64_t span;
        if (__builtin_mul_overflow(t->dims[i] - 1, t->strides[i], &span) || __builtin_add_overflow(last, span, &last) ||
            __builtin_mul_overflow(t->count, (size_t)t->dims[i], &t->count))
            return fail(ERR_FORMAT, "a tensor's shape overflows");
    }
    if (empty) t->count = 0;
    if (__builtin_mul_overflow(t->count, size, &t->bytes)) return fail(ERR_FORMAT, "a tensor's shape overflows");
    if (!empty && (uint64_t)last >= avail / size)
        return fail(ERR_FORMAT, "a tensor reaches element %lld of a storage of %zu", (long long)last, avail / size);
    if (t->bytes > VIEW_FREE && t->bytes - VIEW_FREE > f->n && (t->bytes - VIEW_FREE) / VIEW_RATIO > f->n)
        return fail(ERR_FORMAT, "a tensor of %zu bytes in a file of %zu", t->bytes, f->n);
    return ERR_OK;
}

err_t tensors_add(struct tensors *f, const struct tensor *t)
{
    if (f->count == f->cap) {
        int cap = f->cap ? 2 * f->cap : 64;
        f->list = mem_grow(f->list, (size_t)f->cap * sizeof *f->list, (size_t)cap * sizeof *f->list);
        f->cap = cap;
    }
    f->list[f->count] = *t;
    f->list[f->count].name = arena_strdup(&f->names, t->name);
    f->count++;
    return ERR_OK;
}

void tensors_own(struct tensors *f, char *block)
{
    if (!(f->nblocks & (f->nblocks - 1))) { /* 0 or a power of two: full */
        size_t now = (size_t)f->nblocks * sizeof *f->blocks;
        f->blocks = mem_grow(f->blocks, now, now ? 2 * now : sizeof *f->blocks);
    }
    f->blocks[f->nblocks++] = block;
}

/* ---- opening --------------------------------------------------------------------------------------------------------- */

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

static err_t safetensors_open(struct tensors *f)
{
    f->kind = "safetensors";
    TRY(st_open_bytes(&f->st, f->data, f->n));
    for (int i = 0; i < st_count(f->st); i++) {
        const struct st_tensor *s = st_at(f->st, i);
        struct tensor t = {
            .name = s->name, .dtype = s->dtype, .ndim = s->ndim, .count = s->count, .bytes = s->bytes, .data = s->data};
        int64_t stride = 1;
        for (int k = s->ndim - 1; k >= 0; k--) {
            t.dims[k] = s->dims[k];
            t.strides[k] = stride;
            if (s->count) stride *= s->dims[k]; /* cannot overflow: the count did not */
        }
        TRY(tensors_add(f, &t));
    }
    return ERR_OK;
}

/* The pickle of a PyTorch archive is the one NAME/data.pkl at the top. */
static err_t zip_detect(struct tensors *f)
{
    int pkl = -1, npy = 0;
    TRY(archive_open(&f->zip, f->data, f->n, f->label));
    for (int i = 0; i < archive_count(f->zip); i++) {
        const char *name = archive_name(f->zip, i), *slash = strchr(name, '/');
        if (slash && !strcmp(slash + 1, "data.pkl")) {
            if (pkl >= 0) return fail(ERR_FORMAT, "two pickles, %s and %s", archive_name(f->zip, pkl), name);
            pkl = i;
        }
        npy += ends_with(name, ".npy");
    }
    if (pkl >= 0) return torch_open_zip(f, pkl);
    if (npy && npy == archive_count(f->zip)) return npz_open(f);
    return fail(ERR_FORMAT, "a zip file that holds neither a PyTorch checkpoint nor NumPy arrays");
}

static int by_name(const void *pa, const void *pb, void *ctx)
{
    const struct tensor *list = ctx;
    return strcmp(list[*(const int *)pa].name, list[*(const int *)pb].name);
}

static err_t names_sort(struct tensors *f)
{
    f->sorted = mem_array((size_t)f->count + 1, sizeof *f->sorted);
    for (int i = 0; i < f->count; i++) f->sorted[i] = i;
    if (f->count) qsort_r(f->sorted, (size_t)f->count, sizeof *f->sorted, by_name, f->list);
    for (int i = 1; i < f->count; i++)
        if (!strcmp(f->list[f->sorted[i]].name, f->list[f->sorted[i - 1]].name))
            return fail(ERR_FORMAT, "two tensors named %s", f->list[f->sorted[i]].name);
    return ERR_OK;
}

static bool looks_like_safetensors(const struct tensors *f)
{
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--) n = n << 8 | (uint8_t)f->data[i];
    return n >= 2 && n <= f->n - 8 && f->data[8] == '{';
}

static err_t detect(struct tensors *f)
{
    if (ends_with(f->label, ".safetensors")) return safetensors_open(f);
    if (f->n >= 4 && (!memcmp(f->data, "PK\3\4", 4) || !memcmp(f->data, "PK\5\6", 4))) return zip_detect(f);
    if (f->n >= 6 && !memcmp(f->data, "\x93NUMPY", 6)) return npy_open(f);
    if (f->n >= 9 && looks_like_safetensors(f)) return safetensors_open(f);
    if (!f->n) return fail(ERR_FORMAT, "an empty file");
    /* a pickle begins with its protocol, or (before protocol 2) with one of a few opcodes */
    if ((uint8_t)f->data[0] == 0x80 || memchr("(]}lcdINVSJKGF", f->data[0], 14)) return torch_open_pickle(f);
    return fail(ERR_FORMAT, "no safetensors, PyTorch, pickle or NumPy file");
}

static err_t tensors_begin(struct tensors **out, struct tensors *f)
{
    err_t err = detect(f);
    if (!err) err = names_sort(f);
    if (err && strncmp(err_text(), f->label, strlen(f->label))) err = fail_in(err, "%s", f->label);
    if (err) tensors_close(f);
    else *out = f;
    return err;
}

err_t tensors_open(struct tensors **out, const char *path)
{
    err_t err = ERR_OK;
    struct stat s;
    struct tensors *f = mem_alloc(sizeof *f);
    *out = NULL;
    f->label = f->path = mem_strdup(path);
    arena_init(&f->names);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) TRYD(fail(ERR_IO, "open %s: %s", path, strerror(errno)));
    if (fstat(fd, &s)) TRYD(fail(ERR_IO, "stat %s: %s", path, strerror(errno)));
    if (!S_ISREG(s.st_mode)) TRYD(fail(ERR_FORMAT, "%s: not a regular file", path));
    f->data = "";
    if (s.st_size > 0) {
        void *m = mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (m == MAP_FAILED) TRYD(fail(ERR_IO, "map %s: %s", path, strerror(errno)));
        f->data = m;
        f->n = (size_t)s.st_size;
        f->mapped = true;
    }
done:
    if (fd >= 0) close(fd);
    if (!err) return tensors_begin(out, f);
    tensors_close(f);
    return err;
}

err_t tensors_open_bytes(struct tensors **out, const void *data, size_t n, const char *label)
{
    struct tensors *f = mem_alloc(sizeof *f);
    *out = NULL;
    f->label = label;
    f->data = data;
    f->n = n;
    arena_init(&f->names);
    return tensors_begin(out, f);
}

void tensors_close(struct tensors *f)
{
    if (!f) return;
    for (struct storage *s = f->storages, *next; s; s = next) {
        next = s->next;
        mem_free(s->owned);
        mem_free(s);
    }
    for (int i = 0; i < f->nblocks; i++) mem_free(f->blocks[i]);
    mem_free(f->blocks);
    mem_free(f->list);
    mem_free(f->sorted);
    pickle_done(&f->pickle);
    archive_close(f->zip);
    st_close(f->st);
    arena_done(&f->names);
    if (f->mapped) munmap((void *)(uintptr_t)f->data, f->n);
    mem_free(f->path);
    mem_free(f);
}

/* ---- asking ------------------------------------------------------------------------------------------------------------ */

const char *tensors_kind(const struct tensors *f)
{
    return f->kind;
}

int tensors_count(const struct tensors *f)
{
    return f->count;
}

const struct tensor *tensors_at(const struct tensors *f, int i)
{
    return &f->list[i];
}

const struct tensor *tensors_find(const struct tensors *f, const char *name)
{
    int lo = 0, hi = f->count - 1;
    while (lo <= hi) {
        int mid = lo + (hi - lo) / 2, c = strcmp(f->list[f->sorted[mid]].name, name);
        if (!c) return &f->list[f->sorted[mid]];
        if (c < 0) lo = mid + 1;
        else hi = mid - 1;
    }
    return NULL;
}

/* Values of a view in row-major order: rows along the last dimension, the others counted like an odometer. */
struct rows {
    const struct tensor *t;
    size_t size, n, done; /* n: values a row */
    int64_t at[8];
    const char *row;
};

static struct rows rows_begin(const struct tensor *t)
{
    struct rows r = {
        .t = t, .size = st_dtype_size(t->dtype), .n = t->ndim ? (size_t)t->dims[t->ndim - 1] : 1, .row = t->data};
    return r;
}

static bool rows_next(struct rows *r)
{
    r->done += r->n;
    if (r->done >= r->t->count) return false;
    for (int i = r->t->ndim - 2; i >= 0; i--) {
        r->row += r->t->strides[i] * (int64_t)r->size;
        if (++r->at[i] < r->t->dims[i]) return true;
        r->row -= r->t->strides[i] * r->t->dims[i] * (int64_t)r->size;
        r->at[i] = 0;
    }
    return true;
}

static size_t row_step(const struct tensor *t)
{
    return st_dtype_size(t->dtype) * (t->ndim ? (size_t)t->strides[t->ndim - 1] : 1);
}

static err_t count_check(const struct tensor *t, size_t count)
{
    if (t->count == count) return ERR_OK;
    return fail(ERR_FORMAT, "tensor %s: %zu values where %zu are needed", t->name, t->count, count);
}

void tensor_read_raw(const struct tensor *t, void *out)
{
    struct rows r = rows_begin(t);
    size_t step = row_step(t);
    char *to = out;
    if (!t->count) return;
    do {
        if (step == r.size) memcpy(to, r.row, r.n * r.size);
        else
            for (size_t i = 0; i < r.n; i++) memcpy(to + i * r.size, r.row + i * step, r.size);
        to += r.n * r.size;
    } while (rows_next(&r));
}

err_t tensor_read_f32(const struct tensor *t, float *out, size_t count)
{
    struct rows r = rows_begin(t);
    size_t step = row_step(t);
    TRY(count_check(t, count));
    if (t->dtype == ST_F32) tensor_read_raw(t, out);
    else if (count) do {
            for (size_t i = 0; i < r.n; i++) *out++ = (float)st_value(t->dtype, r.row + i * step);
        } while (rows_next(&r));
    return ERR_OK;
}

err_t tensor_read_f64(const struct tensor *t, double *out, size_t count)
{
    struct rows r = rows_begin(t);
    size_t step = row_step(t);
    TRY(count_check(t, count));
    if (count) do {
            for (size_t i = 0; i < r.n; i++) *out++ = st_value(t->dtype, r.row + i * step);
        } while (rows_next(&r));
    return ERR_OK;
}

/* ---- everything else in a file --------------------------------------------------------------------------------------------- */

/* An object's attributes: of one that EDM's persistence wrote, those inside. */
static const struct pv *attributes(const struct pv *v)
{
    if (v->args && v->args->count && pv_is_name(v->what, "torch_utils.persistence", "_reconstruct_persistent_obj")) {
        const struct pv *meta = v->args->at[0];
        return pv_get(meta->kind == PV_RECORD ? meta->items : meta, "state");
    }
    if (v->state && v->state->kind == PV_TUPLE && v->state->count) return v->state->at[0];
    return v->state;
}

/* The value of that part of path; *rest: behind it. A key may itself hold a "/". */
static const struct pv *child(const struct pv *dict, const char *path, const char **rest)
{
    char num[24];
    for (size_t i = 0; dict && dict->kind == PV_DICT && i < dict->count; i++) {
        const struct pv *key = dict->at[2 * i];
        const char *s = key->s;
        size_t n = key->n;
        if (key->kind == PV_INT) {
            snprintf(num, sizeof num, "%lld", (long long)key->i);
            s = num;
            n = strlen(num);
        } else if (key->kind != PV_STR) continue;
        if (strncmp(path, s, n) || (path[n] && path[n] != '/')) continue;
        *rest = path + n + (path[n] == '/');
        return dict->at[2 * i + 1];
    }
    return NULL;
}

static const struct pv *find(const struct tensors *f, const char *path)
{
    const struct pv *v = f->root;
    while (v && *path) {
        const char *rest = path;
        const struct pv *next = NULL;
        if (v->kind == PV_DICT) next = child(v, path, &rest);
        else if (v->kind == PV_RECORD) {
            next = child(attributes(v), path, &rest);
            if (!next) next = child(v->items, path, &rest);
        } else if (v->kind == PV_LIST || v->kind == PV_TUPLE) {
            char *end;
            unsigned long i = strtoul(path, &end, 10);
            if (end != path && (!*end || *end == '/') && i < v->count) {
                next = v->at[i];
                rest = end + (*end == '/');
            }
        }
        v = next;
        path = rest;
    }
    return v;
}

char *tensors_json(const struct tensors *f, const char *path)
{
    if (f->st) {
        const char *s = st_meta(f->st, path);
        struct pv v = {.kind = PV_STR, .s = s, .n = s ? strlen(s) : 0};
        return s ? pv_json(&v, JSON_MOST) : NULL;
    }
    const struct pv *v = f->root ? find(f, path) : NULL;
    return v ? pv_json(v, JSON_MOST) : NULL;
}

char *tensors_class(const struct tensors *f, const char *path)
{
    const struct pv *v = f->root ? find(f, path) : NULL;
    if (!v || v->kind != PV_RECORD) return NULL;
    if (v->args && v->args->count && pv_is_name(v->what, "torch_utils.persistence", "_reconstruct_persistent_obj")) {
        const struct pv *meta = v->args->at[0];
        const struct pv *name = pv_get(meta->kind == PV_RECORD ? meta->items : meta, "class_name");
        return name && name->kind == PV_STR ? mem_printf("%.*s", (int)name->n, name->s) : NULL;
    }
    if (v->args && v->args->count && pv_is_name(v->what, "copyreg", "_reconstructor") &&
        v->args->at[0]->kind == PV_NAME)
        return mem_strdup(v->args->at[0]->name);
    return mem_strdup(v->what->name);
}

const struct pv *tensors_root(const struct tensors *f)
{
    return f->root;
}
