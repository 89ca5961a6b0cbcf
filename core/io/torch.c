/* PyTorch files, pickles with modules in them, TorchScript's tensors. The pickle machine hands over what claims to be a storage or a
 * tensor; each claim is checked when it is made (also one that nothing reaches later), the storages are read when all are known, and
 * only then does a walk over the values collect names. A storage's location ("cuda:0") means nothing here.
 *
 * torch.save's two formats: a zip with NAME/data.pkl and one stored entry NAME/data/KEY a storage; before 1.6 five pickles (magic,
 * protocol, system, object, keys) and then, in the order of keys, each storage as a count and its values. */
#include <stdlib.h>
#include <string.h>

#include "core/io/tensors_file.h"

enum { DEPTH_MOST = 200, NAME_MOST = 1000 };

struct storage_ref { /* a PV_STORAGE's */
    struct storage *s;
    enum st_dtype dtype;
    int64_t numel;
};
struct tensor_ref { /* a PV_TENSOR's; t.data is set once s is read */
    struct tensor t;
    struct storage *s;
    size_t offset; /* bytes into s */
};

struct torch {
    struct tensors *f;
    bool storages;         /* persistent ids mean something here */
    bool nested;           /* inside _load_from_bytes */
    struct storage **hash; /* by key */
    size_t hash_cap, hash_used;
    const char *root; /* zip: "NAME/" */
    size_t visits;
    struct text name;
};

/* ---- storages -------------------------------------------------------------------------------------------------------- */

static size_t key_hash(const char *s, size_t n)
{
    uint64_t h = 1469598103934665603u;
    for (size_t i = 0; i < n; i++) h = (h ^ (uint8_t)s[i]) * 1099511628211u;
    return (size_t)(h ^ h >> 32);
}

static struct storage **hash_slot(struct storage **hash, size_t cap, const char *key, size_t n)
{
    size_t i = key_hash(key, n) & (cap - 1);
    while (hash[i] && (strlen(hash[i]->key) != n || memcmp(hash[i]->key, key, n))) i = (i + 1) & (cap - 1);
    return &hash[i];
}

/* The storage of that key, made if new. */
static struct storage *storage_get(struct torch *t, const char *key, size_t n)
{
    if (t->hash_used * 2 >= t->hash_cap) {
        size_t cap = t->hash_cap ? 2 * t->hash_cap : 64;
        struct storage **hash = mem_array(cap, sizeof *hash);
        for (size_t i = 0; i < t->hash_cap; i++)
            if (t->hash[i]) *hash_slot(hash, cap, t->hash[i]->key, strlen(t->hash[i]->key)) = t->hash[i];
        mem_free(t->hash);
        t->hash = hash;
        t->hash_cap = cap;
    }
    struct storage **slot = hash_slot(t->hash, t->hash_cap, key, n);
    if (!*slot) {
        struct storage *s = mem_alloc(sizeof *s);
        char *copy = arena_alloc(&t->f->names, n + 1);
        memcpy(copy, key, n);
        s->key = copy;
        s->next = t->f->storages;
        t->f->storages = *slot = s;
        t->hash_used++;
    }
    return *slot;
}

static err_t storage_dtype(const struct pv *type, enum st_dtype *d)
{
    static const struct {
        const char *name;
        enum st_dtype dtype;
    } types[] = {{"FloatStorage", ST_F32},  {"DoubleStorage", ST_F64},    {"HalfStorage", ST_F16},
                 {"LongStorage", ST_I64},   {"BFloat16Storage", ST_BF16}, {"IntStorage", ST_I32},
                 {"ShortStorage", ST_I16},  {"CharStorage", ST_I8},       {"ByteStorage", ST_U8},
                 {"BoolStorage", ST_BOOL},  {"UntypedStorage", ST_U8},    {"_UntypedStorage", ST_U8},
                 {"UInt16Storage", ST_U16}, {"UInt32Storage", ST_U32},    {"UInt64Storage", ST_U64}};
    if (type->kind != PV_NAME || strncmp(type->module, "torch", 5))
        return fail(ERR_FORMAT, "a storage of no known type");
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        if (strcmp(type->name, types[i].name)) continue;
        *d = types[i].dtype;
        return ERR_OK;
    }
    return fail(ERR_FORMAT, "values of type %s.%s are not supported", type->module, type->name);
}

/* A key names a zip entry, so it is plain text. */
static bool key_is_plain(const struct pv *key)
{
    if (key->kind != PV_STR || !key->n || key->n > NAME_MOST) return false;
    for (size_t i = 0; i < key->n; i++)
        if ((unsigned char)key->s[i] < 32 || key->s[i] == '/') return false;
    return true;
}

static err_t torch_persid(void *ctx, struct pv *id, struct pv **out)
{
    struct torch *t = ctx;
    if (!t->storages) return fail(ERR_FORMAT, "a storage outside of a PyTorch file");
    if (id->kind == PV_TUPLE && id->count == 4 && pv_is_str(id->at[0], "module") && id->at[1]->kind == PV_NAME) {
        *out = id->at[1]; /* the class of a module, with its source text, which means nothing here */
        return ERR_OK;
    }
    if (id->kind != PV_TUPLE || id->count < 5 || id->count > 6 || !pv_is_str(id->at[0], "storage"))
        return fail(ERR_FORMAT, "a persistent id that is no storage");
    struct pv **a = id->at;
    enum st_dtype dtype = ST_F32;
    size_t bytes;
    TRY(storage_dtype(a[1], &dtype));
    if (!key_is_plain(a[2]) || a[4]->kind != PV_INT || a[4]->i < 0)
        return fail(ERR_FORMAT, "a storage with a bad key or size");
    if (id->count == 6 && a[5]->kind != PV_NONE)
        return fail(ERR_FORMAT,
                    "a view of a storage as PyTorch before 0.4 wrote it; save the file again with a newer one");
    if (__builtin_mul_overflow((size_t)a[4]->i, st_dtype_size(dtype), &bytes) || bytes > t->f->n)
        return fail(ERR_FORMAT, "storage %.*s of %lld values in a file of %zu bytes", (int)a[2]->n, a[2]->s,
                    (long long)a[4]->i, t->f->n);
    struct storage_ref *ref = pickle_alloc(&t->f->pickle, sizeof *ref);
    struct pv *v = pickle_alloc(&t->f->pickle, sizeof *v);
    if (!ref || !v) return pickle_over();
    *ref = (struct storage_ref){.s = storage_get(t, a[2]->s, a[2]->n), .dtype = dtype, .numel = a[4]->i};
    if (ref->s->need < bytes) ref->s->need = bytes;
    *v = (struct pv){.kind = PV_STORAGE, .ptr = ref};
    *out = v;
    return ERR_OK;
}

/* ---- tensors ---------------------------------------------------------------------------------------------------------- */

static err_t dims_read(const struct pv *v, int64_t out[8], int *n)
{
    if ((v->kind != PV_TUPLE && v->kind != PV_LIST) || v->count > 8)
        return fail(ERR_FORMAT, "a tensor's shape is no tuple of at most 8 numbers");
    *n = (int)v->count;
    for (size_t i = 0; i < v->count; i++) {
        if (v->at[i]->kind != PV_INT) return fail(ERR_FORMAT, "a tensor's shape is no tuple of numbers");
        out[i] = v->at[i]->i;
    }
    return ERR_OK;
}

static err_t tensor_value(struct torch *t, struct pv *v, const struct tensor_ref *made)
{
    struct tensor_ref *ref = pickle_alloc(&t->f->pickle, sizeof *ref);
    if (!ref) return pickle_over();
    *ref = *made;
    *v = (struct pv){.kind = PV_TENSOR, .ptr = ref};
    return ERR_OK;
}

static err_t torch_dtype(const struct pv *v, enum st_dtype *d)
{
    static const char *const names[] = {
        [ST_F32] = "float32", [ST_F64] = "float64", [ST_F16] = "float16", [ST_BF16] = "bfloat16", [ST_I64] = "int64",
        [ST_I32] = "int32",   [ST_I16] = "int16",   [ST_I8] = "int8",     [ST_U8] = "uint8",      [ST_BOOL] = "bool",
        [ST_U16] = "uint16",  [ST_U32] = "uint32",  [ST_U64] = "uint64"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (!pv_is_name(v, "torch", names[i])) continue;
        *d = (enum st_dtype)i;
        return ERR_OK;
    }
    return fail(ERR_FORMAT, "a tensor of a type that is not supported");
}

/* (storage, offset, size, stride, ...): v3 has a dtype of its own as the 7th. */
static err_t rebuild_tensor(struct torch *t, struct pv *v, const struct pv *args, bool v3)
{
    struct tensor_ref made = {0};
    int ndim = 0;
    if (args->count < 4 || args->at[0]->kind != PV_STORAGE || args->at[1]->kind != PV_INT || (v3 && args->count < 7))
        return fail(ERR_FORMAT, "a tensor without storage");
    const struct storage_ref *ref = args->at[0]->ptr;
    size_t avail = (size_t)ref->numel * st_dtype_size(ref->dtype);
    made.s = ref->s;
    made.t.dtype = ref->dtype;
    if (v3) TRY(torch_dtype(args->at[6], &made.t.dtype));
    TRY(dims_read(args->at[2], made.t.dims, &made.t.ndim));
    TRY(dims_read(args->at[3], made.t.strides, &ndim));
    if (ndim != made.t.ndim) return fail(ERR_FORMAT, "a tensor with %d sizes and %d strides", made.t.ndim, ndim);
    TRY(tensor_view_check(t->f, &made.t, args->at[1]->i, avail));
    if (made.t.count) made.offset = (size_t)args->at[1]->i * st_dtype_size(made.t.dtype);
    return tensor_value(t, v, &made);
}

static err_t rebuild_parameter(struct pv *v, const struct pv *args)
{
    if (!args->count || args->at[0]->kind != PV_TENSOR) return fail(ERR_FORMAT, "a parameter that is no tensor");
    *v = (struct pv){.kind = PV_TENSOR, .ptr = args->at[0]->ptr};
    return ERR_OK;
}

static bool is_rebuild(const struct pv *what)
{
    return what->kind == PV_NAME && !strcmp(what->module, "torch._utils") && !strncmp(what->name, "_rebuild_", 9);
}

static err_t rebuild(struct torch *t, struct pv *v, const struct pv *what, const struct pv *args)
{
    if (strstr(what->name, "_parameter")) return rebuild_parameter(v, args);
    return rebuild_tensor(t, v, args, !strcmp(what->name, "_rebuild_tensor_v3"));
}

/* (function, type, args, state): a subclass of Tensor. */
static err_t rebuild_from_type(struct torch *t, struct pv *v, const struct pv *args)
{
    if (args->count < 3 || !is_rebuild(args->at[0]) || args->at[2]->kind != PV_TUPLE)
        return fail(ERR_FORMAT, "a tensor's subclass made from something else than a tensor");
    return rebuild(t, v, args->at[0], args->at[2]);
}

static err_t legacy_read(struct torch *t, const char *data, size_t n, struct pv **root);

/* A storage as a complete file of its own, within the pickle. */
static err_t load_from_bytes(struct torch *t, struct pv *v, const struct pv *args)
{
    if (args->count != 1 || args->at[0]->kind != PV_BYTES)
        return fail(ERR_FORMAT, "_load_from_bytes of something but bytes");
    struct pv *src = args->at[0], *root = NULL;
    if (!src->parsed) {
        if (t->nested) return fail(ERR_FORMAT, "a storage within a storage");
        struct torch inner = {.f = t->f, .storages = true, .nested = true};
        t->f->pickle.ctx = &inner;
        err_t err = legacy_read(&inner, src->s, src->n, &root);
        t->f->pickle.ctx = t;
        mem_free(inner.hash);
        if (err) return fail_in(err, "_load_from_bytes");
        if (root->kind != PV_STORAGE) return fail(ERR_FORMAT, "_load_from_bytes gives something but a storage");
        src->parsed = root;
    }
    *v = *src->parsed;
    return ERR_OK;
}

/* ---- NumPy in pickles --------------------------------------------------------------------------------------------------- */

/* A dtype record: ("f8", False, True) and, by BUILD, (3, "<", ...). */
static err_t numpy_dtype(const struct pv *v, enum st_dtype *d)
{
    if (v->kind != PV_RECORD || !pv_is_name(v->what, "numpy", "dtype") || !v->args || !v->args->count ||
        v->args->at[0]->kind != PV_STR)
        return fail(ERR_FORMAT, "an array of no plain type");
    if (v->state && v->state->kind == PV_TUPLE && v->state->count > 1 && pv_is_str(v->state->at[1], ">"))
        return fail(ERR_FORMAT, "a big-endian array");
    return npy_dtype(v->args->at[0]->s, v->args->at[0]->n, d);
}

static err_t numpy_scalar(struct pv *v, const struct pv *args)
{
    enum st_dtype d = ST_F32;
    if (args->count != 2 || (args->at[1]->kind != PV_BYTES && args->at[1]->kind != PV_STR))
        return ERR_OK; /* stays a record */
    TRY(numpy_dtype(args->at[0], &d));
    if (args->at[1]->n != st_dtype_size(d)) return fail(ERR_FORMAT, "a scalar of %zu bytes", args->at[1]->n);
    const char *p = args->at[1]->s;
    if (d <= ST_BF16) *v = (struct pv){.kind = PV_FLOAT, .f = st_value(d, p)};
    else if (d == ST_BOOL) *v = (struct pv){.kind = PV_BOOL, .b = *p != 0};
    else if (d == ST_I64 || d == ST_U64) {
        int64_t i;
        memcpy(&i, p, 8);
        *v = d == ST_U64 && i < 0 ? (struct pv){.kind = PV_FLOAT, .f = (double)(uint64_t)i}
                                  : (struct pv){.kind = PV_INT, .i = i};
    } else *v = (struct pv){.kind = PV_INT, .i = (int64_t)st_value(d, p)};
    return ERR_OK;
}

static err_t numpy_tensor(struct torch *t, struct pv *v, const struct pv *bytes, const struct pv *dtype,
                          const struct pv *shape, bool fortran)
{
    struct tensor_ref made = {0};
    TRY(numpy_dtype(dtype, &made.t.dtype));
    TRY(dims_read(shape, made.t.dims, &made.t.ndim));
    int64_t stride = 1;
    for (int k = 0; k < made.t.ndim; k++) {
        int i = fortran ? k : made.t.ndim - 1 - k;
        made.t.strides[i] = stride;
        if (__builtin_mul_overflow(stride, made.t.dims[i] ? made.t.dims[i] : 1, &stride))
            return fail(ERR_FORMAT, "an array's shape overflows");
    }
    TRY(tensor_view_check(t->f, &made.t, 0, bytes->n));
    if (made.t.bytes != bytes->n) return fail(ERR_FORMAT, "an array of %zu bytes in %zu", made.t.bytes, bytes->n);
    made.t.data = bytes->s;
    return tensor_value(t, v, &made);
}

static bool is_bytes(const struct pv *v)
{
    return v->kind == PV_BYTES || v->kind == PV_STR;
}

/* _reconstruct(ndarray, (0,), b"b") and, by BUILD, (1, shape, dtype, fortran, bytes); an array of objects stays a record. */
static err_t numpy_array(struct torch *t, struct pv *v)
{
    const struct pv *s = v->state;
    if (!s || s->kind != PV_TUPLE || s->count != 5 || !is_bytes(s->at[4])) return ERR_OK;
    return numpy_tensor(t, v, s->at[4], s->at[2], s->at[1], s->at[3]->kind == PV_BOOL && s->at[3]->b);
}

/* _frombuffer(bytes, dtype, shape, order): protocol 5. */
static err_t numpy_buffer(struct torch *t, struct pv *v, const struct pv *args)
{
    if (args->count != 4 || !is_bytes(args->at[0])) return ERR_OK;
    return numpy_tensor(t, v, args->at[0], args->at[1], args->at[2], pv_is_str(args->at[3], "F"));
}

static err_t torch_reduced(void *ctx, struct pv *v)
{
    struct torch *t = ctx;
    const struct pv *what = v->what, *args = v->args;
    if (pv_is_name(what, "numpy.core.multiarray", "_reconstruct")) return numpy_array(t, v);
    if (v->state) return ERR_OK;
    if (is_rebuild(what)) return rebuild(t, v, what, args);
    if (pv_is_name(what, "torch._tensor", "_rebuild_from_type_v2")) return rebuild_from_type(t, v, args);
    if (pv_is_name(what, "torch.storage", "_load_from_bytes")) return load_from_bytes(t, v, args);
    if (pv_is_name(what, "numpy.core.multiarray", "scalar")) return numpy_scalar(v, args);
    if (pv_is_name(what, "numpy.core.numeric", "_frombuffer")) return numpy_buffer(t, v, args);
    return ERR_OK;
}

/* ---- names -------------------------------------------------------------------------------------------------------------- */

static err_t walk(struct torch *t, struct pv *v, int depth);

static err_t name_push(struct torch *t, const char *sep, const char *s, size_t n)
{
    if (t->name.len + n + 1 > NAME_MOST)
        return fail(ERR_FORMAT, "a tensor's name of more than %d characters", NAME_MOST);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] < 32) return fail(ERR_FORMAT, "a tensor's name with control characters");
    if (t->name.len && t->name.s[t->name.len - 1] != '/') text_add(&t->name, sep);
    text_addn(&t->name, s, n);
    return ERR_OK;
}

static void name_cut(struct torch *t, size_t len)
{
    t->name.len = len;
    if (t->name.s) t->name.s[len] = 0;
}

static err_t emit(struct torch *t, const struct pv *v)
{
    const struct tensor_ref *ref = v->ptr;
    struct tensor x = ref->t;
    if (ref->s) x.data = ref->s->data ? ref->s->data + ref->offset : "";
    x.name = text_str(&t->name);
    return tensors_add(t->f, &x);
}

/* The dict of an object's attributes, or NULL. */
static struct pv *state_of(const struct pv *v)
{
    struct pv *s = v->kind == PV_RECORD ? v->state : NULL;
    if (v->kind == PV_RECORD && pv_is_name(v->what, "torch_utils.persistence", "_reconstruct_persistent_obj") &&
        v->args && v->args->count) {
        struct pv *meta = v->args->at[0];
        if (meta->kind == PV_RECORD) meta = meta->items; /* an EasyDict */
        s = pv_get(meta, "state");
    }
    if (s && s->kind == PV_TUPLE && s->count) s = s->at[0]; /* (__dict__, slots) */
    return s && s->kind == PV_DICT ? s : NULL;
}

static bool is_script(const struct pv *v)
{
    return v->kind == PV_RECORD && v->what && v->what->kind == PV_NAME && !strncmp(v->what->module, "__torch__", 9);
}

/* pv_get, counted: a table of a million keys can be shared by a million objects. */
static struct pv *look(struct torch *t, const struct pv *dict, const char *key)
{
    if (dict && dict->kind == PV_DICT) t->visits += dict->count / 8;
    return pv_get(dict, key);
}

static bool set_has(const struct pv *set, const struct pv *key)
{
    for (size_t i = 0; set && set->kind == PV_SET && i < set->count; i++)
        if (set->at[i]->kind == PV_STR && set->at[i]->n == key->n && !memcmp(set->at[i]->s, key->s, key->n))
            return true;
    return false;
}

static err_t visit(struct torch *t, int depth)
{
    /* each value is reached a few times in any real file; a maze of shared lists would be reached without end */
    if (++t->visits > 16 * t->f->pickle.nvalues + 1000)
        return fail(ERR_FORMAT, "values shared so often that listing them has no end");
    if (depth > DEPTH_MOST) return fail(ERR_FORMAT, "values nested more than %d deep", DEPTH_MOST);
    return ERR_OK;
}

static err_t walk_module(struct torch *t, struct pv *v, const char *sep, int depth);

/* Tensors of one of a module's dicts; those of except are no part of its state. */
static err_t walk_tensors(struct torch *t, const struct pv *dict, const struct pv *except, const char *sep)
{
    size_t len = t->name.len;
    for (size_t i = 0; dict && dict->kind == PV_DICT && i < dict->count; i++) {
        const struct pv *key = dict->at[2 * i], *x = dict->at[2 * i + 1];
        if (except && except->kind == PV_SET) t->visits += except->count / 8;
        TRY(visit(t, 0));
        if (key->kind != PV_STR || x->kind != PV_TENSOR || set_has(except, key)) continue;
        TRY(name_push(t, sep, key->s, key->n));
        TRY(emit(t, x));
        name_cut(t, len);
    }
    return ERR_OK;
}

/* A module's state_dict: parameters, buffers, then the children; below the module names join with ".". A TorchScript object has all of
 * its attributes in one dict. */
static err_t walk_module(struct torch *t, struct pv *v, const char *sep, int depth)
{
    struct pv *state = state_of(v);
    TRY(visit(t, depth));
    if (!state || v->open) return ERR_OK;
    const struct pv *children = is_script(v) ? state : look(t, state, "_modules");
    size_t len = t->name.len;
    v->open = true;
    if (is_script(v)) TRY(walk_tensors(t, state, NULL, sep));
    else {
        TRY(walk_tensors(t, look(t, state, "_parameters"), NULL, sep));
        TRY(walk_tensors(t, look(t, state, "_buffers"), look(t, state, "_non_persistent_buffers_set"), sep));
    }
    for (size_t i = 0; children && children->kind == PV_DICT && i < children->count; i++) {
        const struct pv *key = children->at[2 * i];
        struct pv *child = children->at[2 * i + 1];
        if (key->kind != PV_STR || child->kind != PV_RECORD) continue;
        TRY(name_push(t, sep, key->s, key->n));
        TRY(walk_module(t, child, ".", depth + 1));
        name_cut(t, len);
    }
    v->open = false;
    return ERR_OK;
}

static err_t walk_pairs(struct torch *t, const struct pv *v, int depth)
{
    size_t len = t->name.len;
    char num[24];
    for (size_t i = 0; i < v->count; i++) {
        const struct pv *key = v->at[2 * i];
        if (key->kind == PV_INT) snprintf(num, sizeof num, "%lld", (long long)key->i);
        else if (key->kind != PV_STR) continue; /* a tuple or an object as key: nothing of ours */
        TRY(name_push(t, "/", key->kind == PV_INT ? num : key->s, key->kind == PV_INT ? strlen(num) : key->n));
        TRY(walk(t, v->at[2 * i + 1], depth + 1));
        name_cut(t, len);
    }
    return ERR_OK;
}

static err_t walk_items(struct torch *t, const struct pv *v, int depth)
{
    size_t len = t->name.len;
    char num[24];
    for (size_t i = 0; i < v->count; i++) {
        snprintf(num, sizeof num, "%zu", i);
        TRY(name_push(t, "/", num, strlen(num)));
        TRY(walk(t, v->at[i], depth + 1));
        name_cut(t, len);
    }
    return ERR_OK;
}

static err_t walk_record(struct torch *t, struct pv *v, int depth)
{
    struct pv *state = state_of(v);
    size_t len = t->name.len;
    if (is_script(v) || (state && look(t, state, "_parameters") && look(t, state, "_modules"))) {
        if (len) text_add(&t->name, "/");
        TRY(walk_module(t, v, ".", depth));
        name_cut(t, len);
        return ERR_OK;
    }
    v->open = true;
    if (state) TRY(walk_pairs(t, state, depth));
    if (v->items && v->items->kind == PV_DICT) TRY(walk_pairs(t, v->items, depth));
    if (v->items && v->items->kind == PV_LIST) TRY(walk_items(t, v->items, depth));
    v->open = false;
    return ERR_OK;
}

static err_t walk(struct torch *t, struct pv *v, int depth)
{
    TRY(visit(t, depth));
    if (v->kind == PV_TENSOR) {
        if (!t->name.len) text_add(&t->name, "tensor"); /* the file is one tensor */
        return emit(t, v);
    }
    if (v->open) return ERR_OK; /* contains itself: listed already */
    if (v->kind == PV_RECORD) return walk_record(t, v, depth);
    if (v->kind != PV_DICT && v->kind != PV_LIST && v->kind != PV_TUPLE) return ERR_OK;
    v->open = true;
    if (v->kind == PV_DICT) TRY(walk_pairs(t, v, depth));
    else TRY(walk_items(t, v, depth));
    v->open = false;
    return ERR_OK;
}

/* ---- the two formats ------------------------------------------------------------------------------------------------------ */

static void torch_begin(struct torch *t, struct tensors *f)
{
    *t = (struct torch){.f = f};
    pickle_init(&f->pickle, f->n);
    f->pickle.ctx = t;
    f->pickle.persid = torch_persid;
    f->pickle.reduced = torch_reduced;
}

static err_t torch_end(struct torch *t, err_t err)
{
    if (!err) err = walk(t, t->f->root, 0);
    text_done(&t->name);
    mem_free(t->hash);
    t->f->pickle.ctx = NULL;
    return err;
}

static err_t zip_storages(struct torch *t)
{
    struct tensors *f = t->f;
    for (struct storage *s = f->storages; s; s = s->next) {
        if (s->data) continue;
        size_t n = 0;
        char *name = mem_printf("%sdata/%s", t->root, s->key);
        int i = archive_find(f->zip, name);
        mem_free(name);
        if (i < 0) return fail(ERR_FORMAT, "the file has no storage %s, which its pickle needs", s->key);
        if (archive_size(f->zip, i) < s->need)
            return fail(ERR_FORMAT, "storage %s has %zu bytes instead of %zu", s->key, archive_size(f->zip, i),
                        s->need);
        TRY(archive_read(f->zip, i, &s->owned, &n));
        s->data = s->owned;
    }
    return ERR_OK;
}

/* Records of newer versions. Torch before 2.1 ignores the byte order and would read other values than it wrote. */
static err_t zip_byteorder(struct torch *t)
{
    char *name = mem_printf("%sbyteorder", t->root), *text = NULL;
    int i = archive_find(t->f->zip, name);
    size_t n = 0;
    mem_free(name);
    if (i < 0) return ERR_OK;
    TRY(archive_read(t->f->zip, i, &text, &n));
    bool little = n == 6 && !memcmp(text, "little", 6);
    mem_free(text);
    return little ? ERR_OK
                  : fail(ERR_FORMAT, "its byteorder record does not say \"little\": written on a big-endian machine");
}

err_t torch_open_zip(struct tensors *f, int data_pkl)
{
    err_t err = ERR_OK;
    struct torch t;
    char *pkl = NULL, *root = mem_strdup(archive_name(f->zip, data_pkl));
    size_t n = 0, used = 0;
    torch_begin(&t, f);
    root[strlen(root) - strlen("data.pkl")] = 0;
    t.root = root;
    t.storages = true;
    char *code = mem_printf("%sconstants.pkl", root);
    f->kind = archive_find(f->zip, code) >= 0 ? "torchscript" : "torch zip";
    mem_free(code);
    TRYD(zip_byteorder(&t));
    TRYD(archive_read(f->zip, data_pkl, &pkl, &n));
    tensors_own(f, pkl);
    err = pickle_read(&f->pickle, pkl, n, &f->root, &used);
    if (err) err = fail_in(err, "data.pkl");
    else if (used != n) err = fail(ERR_FORMAT, "data.pkl: %zu bytes follow the end", n - used);
    else err = zip_storages(&t);
done:
    err = torch_end(&t, err);
    mem_free(root);
    return err;
}

static bool is_magic(const struct pv *v)
{
    static const char magic[] = "119547037146038801333356"; /* 0x1950a86a20f9469cfc6c */
    return v->kind == PV_BIG && v->n == sizeof magic - 1 && !memcmp(v->s, magic, v->n);
}

/* One storage after the pickles: a count of values, then the values. */
static err_t legacy_storage(struct torch *t, const struct pv *key, const char *data, size_t n, size_t *at)
{
    uint64_t count = 0;
    if (key->kind != PV_STR || !t->hash_cap) return fail(ERR_FORMAT, "a key without storage");
    struct storage *s = *hash_slot(t->hash, t->hash_cap, key->s, key->n);
    if (!s || s->data)
        return fail(ERR_FORMAT, "storage %.*s is listed %s", (int)key->n, key->s, s ? "twice" : "but not used");
    if (n - *at < 8) return fail(ERR_FORMAT, "the file ends before storage %s", s->key);
    for (int i = 7; i >= 0; i--) count = count << 8 | (uint8_t)data[*at + (size_t)i];
    *at += 8;
    if (n - *at < s->need) return fail(ERR_FORMAT, "storage %s ends after %zu of %zu bytes", s->key, n - *at, s->need);
    size_t value = count ? s->need / count : 0; /* bytes a value */
    if (count ? s->need % count || (value != 1 && value != 2 && value != 4 && value != 8) : s->need != 0)
        return fail(ERR_FORMAT, "storage %s has %llu values where %zu bytes are needed", s->key,
                    (unsigned long long)count, s->need);
    s->data = data + *at;
    *at += s->need;
    return ERR_OK;
}

static err_t legacy_read(struct torch *t, const char *data, size_t n, struct pv **root)
{
    struct pickle *p = &t->f->pickle;
    struct pv *v = NULL, *keys = NULL;
    size_t at = 0, used = 0;
    TRY(pickle_read(p, data, n, &v, &used));
    at += used;
    if (!is_magic(v)) return fail(ERR_FORMAT, "not a PyTorch file: its magic number is another");
    TRY(pickle_read(p, data + at, n - at, &v, &used));
    at += used;
    if (v->kind != PV_INT || v->i != 1001) return fail(ERR_FORMAT, "PyTorch's file protocol is not 1001");
    TRY(pickle_read(p, data + at, n - at, &v, &used));
    at += used;
    const struct pv *little = pv_get(v, "little_endian");
    if (!little || little->kind != PV_BOOL || !little->b) return fail(ERR_FORMAT, "written on a big-endian machine");
    TRY(pickle_read(p, data + at, n - at, root, &used));
    at += used;
    TRY(pickle_read(p, data + at, n - at, &keys, &used));
    at += used;
    if (keys->kind != PV_LIST) return fail(ERR_FORMAT, "its list of storages is no list");
    for (size_t i = 0; i < keys->count; i++) TRY(legacy_storage(t, keys->at[i], data, n, &at));
    for (size_t i = 0; i < t->hash_cap; i++)
        if (t->hash[i] && !t->hash[i]->data)
            return fail(ERR_FORMAT, "storage %s is used but not there", t->hash[i]->key);
    if (at != n) return fail(ERR_FORMAT, "%zu bytes follow the last storage", n - at);
    return ERR_OK;
}

err_t torch_open_pickle(struct tensors *f)
{
    err_t err = ERR_OK;
    struct torch t;
    size_t used = 0;
    static const char legacy[] = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    torch_begin(&t, f);
    if (f->n >= sizeof legacy - 1 && !memcmp(f->data, legacy, sizeof legacy - 1)) {
        f->kind = "torch legacy";
        t.storages = true;
        TRYD(legacy_read(&t, f->data, f->n, &f->root));
    } else {
        f->kind = "pickle";
        TRYD(pickle_read(&f->pickle, f->data, f->n, &f->root, &used));
        if (used != f->n)
            TRYD(fail(ERR_FORMAT, "%zu bytes follow the pickle's end%s", f->n - used,
                      f->root->kind == PV_BIG ? ": a PyTorch file with a damaged magic number?" : ""));
    }
done:
    return torch_end(&t, err);
}
