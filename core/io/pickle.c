/* The machine of pickle.h. Two things keep it inert: a name is only ever text, and REDUCE knows a short table of names whose
 * effect is written here; the rest is refused. Two keep it bounded: an opcode makes O(its own bytes) of values, and the budget
 * counts them anyway. */
#include "core/io/pickle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    VALUE_BYTES_PER_BYTE = 96, /* one opcode of one byte can make one value and grow an array */
    CHUNK = 16 << 10,
    LONG_MOST = 1024, /* bytes of an integer; its decimal text takes quadratic time */
    NAME_MOST = 1000
};

struct machine {
    struct pickle *p;
    const uint8_t *data;
    size_t n, at;
    struct pv **stack;
    size_t depth, stack_cap;
    struct pv **memo;
    size_t memo_cap, memo_next; /* memo_next: what MEMOIZE fills */
    bool stopped;
};

static struct pv mark = {.kind = PV_MARK}, none = {.kind = PV_NONE};
static struct pv yes = {.kind = PV_BOOL, .b = true}, no = {.kind = PV_BOOL};

/* ---- memory ------------------------------------------------------------------------------------------------------ */

void pickle_init(struct pickle *p, size_t file_size)
{
    *p = (struct pickle){0};
    arena_init(&p->arena);
    if (__builtin_mul_overflow(file_size, (size_t)VALUE_BYTES_PER_BYTE, &p->budget)) p->budget = SIZE_MAX / 2;
    p->budget += 64 << 10;
}

void pickle_done(struct pickle *p)
{
    arena_done(&p->arena);
}

err_t pickle_over(void)
{
    return fail(ERR_FORMAT, "the pickle asks for more memory than a file of its size can need");
}

void *pickle_alloc(struct pickle *p, size_t bytes)
{
    if (bytes > SIZE_MAX / 2) return NULL;
    size_t want = (bytes + 7) & ~(size_t)7;
    if (want > p->budget) return NULL;
    p->budget -= want;
    if (want > CHUNK / 4) return arena_alloc(&p->arena, want);
    if (want > p->chunk_left) {
        p->chunk = arena_alloc(&p->arena, CHUNK);
        p->chunk_left = CHUNK;
    }
    void *out = p->chunk;
    p->chunk += want;
    p->chunk_left -= want;
    return out;
}

static err_t value_new(struct machine *m, enum pv_kind kind, struct pv **out)
{
    *out = pickle_alloc(m->p, sizeof **out);
    if (!*out) return pickle_over();
    (*out)->kind = kind;
    m->p->nvalues++;
    return ERR_OK;
}

/* Room for one more element. */
static err_t seq_reserve(struct machine *m, struct pv *v, size_t slots)
{
    if (slots <= v->cap) return ERR_OK;
    size_t cap = v->cap * 2 > slots ? v->cap * 2 : slots;
    struct pv **at = pickle_alloc(m->p, cap * sizeof *at);
    if (!at) return pickle_over();
    size_t used = v->kind == PV_DICT ? 2 * v->count : v->count;
    if (used) memcpy(at, v->at, used * sizeof *at);
    v->at = at;
    v->cap = cap;
    return ERR_OK;
}

static err_t seq_add(struct machine *m, struct pv *v, struct pv *x)
{
    TRY(seq_reserve(m, v, v->count + 1));
    v->at[v->count++] = x;
    return ERR_OK;
}

static err_t dict_add(struct machine *m, struct pv *v, struct pv *key, struct pv *x)
{
    TRY(seq_reserve(m, v, 2 * v->count + 2));
    v->at[2 * v->count] = key;
    v->at[2 * v->count + 1] = x;
    v->count++;
    return ERR_OK;
}

/* ---- names: what may be mentioned, what may be called -------------------------------------------------------------- */

/* No checkpoint has a reason to name anything in these. */
static const char *const refused_modules[] = {
    "os",       "posix",      "nt",     "subprocess", "sys",      "shutil",         "socket", "importlib",
    "imp",      "runpy",      "ctypes", "pty",        "commands", "code",           "timeit", "pdb",
    "bdb",      "webbrowser", "pip",    "asyncio",    "popen2",   "cffi",           "signal", "platform",
    "tempfile", "webbrowser", "urllib", "requests",   "http",     "multiprocessing"};
/* Of builtins, only these. */
static const char *const plain_builtins[] = {"set",     "frozenset", "list",  "dict",      "tuple",   "int",
                                             "float",   "bool",      "bytes", "bytearray", "complex", "object",
                                             "getattr", "slice",     "range", "str"};

enum call { /* what REDUCE does with a name */
            CALL_REFUSED,
            CALL_RECORD,   /* keep name and arguments; the hook may know more */
            CALL_DICT,     /* OrderedDict([pairs]) */
            CALL_SEQUENCE, /* set, list ... of one sequence */
            CALL_FIRST,    /* its first argument */
            CALL_BYTES,    /* bytes(): how old protocols write none */
            CALL_ENCODE,   /* _codecs.encode: bytes as text in old protocols */
            CALL_GETATTR   /* a bound method of an inert object */
};
static const struct {
    const char *module, *name;
    enum call call;
} calls[] = {
    {"collections", "OrderedDict", CALL_DICT},
    {"collections", "defaultdict", CALL_RECORD},
    {"collections", "Counter", CALL_DICT},
    {"builtins", "dict", CALL_DICT},
    {"builtins", "set", CALL_SEQUENCE},
    {"builtins", "frozenset", CALL_SEQUENCE},
    {"builtins", "list", CALL_SEQUENCE},
    {"builtins", "tuple", CALL_SEQUENCE},
    {"builtins", "bytes", CALL_BYTES},
    {"builtins", "bytearray", CALL_RECORD},
    {"builtins", "complex", CALL_RECORD},
    {"builtins", "slice", CALL_RECORD},
    {"builtins", "range", CALL_RECORD},
    {"builtins", "getattr", CALL_GETATTR},
    {"copyreg", "_reconstructor", CALL_RECORD},
    {"_codecs", "encode", CALL_ENCODE},
    {"torch", "Size", CALL_SEQUENCE},
    {"torch", "device", CALL_RECORD},
    {"torch._utils", "_rebuild_tensor", CALL_RECORD},
    {"torch._utils", "_rebuild_tensor_v2", CALL_RECORD},
    {"torch._utils", "_rebuild_tensor_v3", CALL_RECORD},
    {"torch._utils", "_rebuild_parameter", CALL_RECORD},
    {"torch._utils", "_rebuild_parameter_with_state", CALL_RECORD},
    {"torch._tensor", "_rebuild_from_type_v2", CALL_RECORD},
    {"torch.storage", "_load_from_bytes", CALL_RECORD},
    {"torch.serialization", "_get_layout", CALL_RECORD},
    {"torch.jit._pickle", "build_intlist", CALL_FIRST},
    {"torch.jit._pickle", "build_doublelist", CALL_FIRST},
    {"torch.jit._pickle", "build_boollist", CALL_FIRST},
    {"torch.jit._pickle", "build_tensorlist", CALL_FIRST},
    {"torch.jit._pickle", "restore_type_tag", CALL_FIRST},
    {"torch_utils.persistence", "_reconstruct_persistent_obj", CALL_RECORD},
    {"numpy", "dtype", CALL_RECORD},
    {"numpy.core.multiarray", "scalar", CALL_RECORD},
    {"numpy.core.multiarray", "_reconstruct", CALL_RECORD},
    {"numpy.core.numeric", "_frombuffer", CALL_RECORD},
    {"pathlib", "PosixPath", CALL_RECORD},
    {"pathlib", "PurePosixPath", CALL_RECORD},
    {"pathlib", "WindowsPath", CALL_RECORD},
    {"pathlib", "PureWindowsPath", CALL_RECORD},
    {"datetime", "datetime", CALL_RECORD},
};

/* One name for what Python 2, 3 and two generations of NumPy call differently. */
static const char *module_now(const char *module)
{
    if (!strcmp(module, "__builtin__")) return "builtins";
    if (!strcmp(module, "copy_reg")) return "copyreg";
    if (!strcmp(module, "numpy._core.multiarray")) return "numpy.core.multiarray";
    if (!strcmp(module, "numpy._core.numeric")) return "numpy.core.numeric";
    return module;
}

static bool in_list(const char *const *list, size_t n, const char *s, size_t len)
{
    for (size_t i = 0; i < n; i++)
        if (strlen(list[i]) == len && !memcmp(list[i], s, len)) return true;
    return false;
}

static err_t name_check(const char *module, const char *name)
{
    for (const char *s = module; *s; s++)
        if ((unsigned char)*s <= 32 || *s == 127 || *s == '"' || *s == '\\')
            return fail(ERR_FORMAT, "a module's name with odd characters");
    for (const char *s = name; *s; s++)
        if ((unsigned char)*s <= 32 || *s == 127 || *s == '"' || *s == '\\')
            return fail(ERR_FORMAT, "a class's name with odd characters");
    size_t head = strcspn(module, ".");
    bool bad = in_list(refused_modules, ARRAY_LEN(refused_modules), module, head);
    if (!strcmp(module, "builtins")) bad = !in_list(plain_builtins, ARRAY_LEN(plain_builtins), name, strlen(name));
    if (bad) return fail(ERR_FORMAT, "refused: the file names %s.%s, which no checkpoint needs", module, name);
    return ERR_OK;
}

/* ---- the stack ----------------------------------------------------------------------------------------------------- */

static err_t push(struct machine *m, struct pv *v)
{
    if (m->depth == m->stack_cap) {
        size_t cap = m->stack_cap ? 2 * m->stack_cap : 64;
        m->stack = mem_grow(m->stack, m->stack_cap * sizeof *m->stack, cap * sizeof *m->stack);
        m->stack_cap = cap;
    }
    m->stack[m->depth++] = v;
    return ERR_OK;
}

static err_t top(struct machine *m, struct pv **v)
{
    if (!m->depth || m->stack[m->depth - 1]->kind == PV_MARK)
        return fail(ERR_FORMAT, "takes a value off an empty stack");
    *v = m->stack[m->depth - 1];
    return ERR_OK;
}

static err_t pop(struct machine *m, struct pv **v)
{
    TRY(top(m, v));
    m->depth--;
    return ERR_OK;
}

/* The values above the last mark; the mark goes, the values stay readable until the next push. */
static err_t pop_mark(struct machine *m, struct pv ***values, size_t *n)
{
    size_t i = m->depth;
    while (i > 0 && m->stack[i - 1]->kind != PV_MARK) i--;
    if (!i) return fail(ERR_FORMAT, "looks for a mark that is not there");
    *values = m->stack + i;
    *n = m->depth - i;
    m->depth = i - 1;
    return ERR_OK;
}

static err_t push_seq(struct machine *m, enum pv_kind kind, struct pv **values, size_t n)
{
    struct pv *v = NULL;
    TRY(value_new(m, kind, &v));
    if (n) {
        TRY(seq_reserve(m, v, n));
        memcpy(v->at, values, n * sizeof *values);
    }
    v->count = n;
    return push(m, v);
}

static err_t push_dict(struct machine *m, struct pv **values, size_t n)
{
    struct pv *v = NULL;
    if (n % 2) return fail(ERR_FORMAT, "a dict with an odd number of keys and values");
    TRY(value_new(m, PV_DICT, &v));
    if (n) {
        TRY(seq_reserve(m, v, n));
        memcpy(v->at, values, n * sizeof *values);
    }
    v->count = n / 2;
    return push(m, v);
}

static err_t push_tuple(struct machine *m, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (m->depth <= i || m->stack[m->depth - 1 - i]->kind == PV_MARK)
            return fail(ERR_FORMAT, "takes a value off an empty stack");
    m->depth -= n;
    return push_seq(m, PV_TUPLE, m->stack + m->depth, n);
}

/* ---- reading the program --------------------------------------------------------------------------------------------- */

static err_t bytes_take(struct machine *m, uint64_t n, const uint8_t **out)
{
    if (n > m->n - m->at)
        return fail(ERR_FORMAT, "%llu bytes are announced, %zu are left", (unsigned long long)n, m->n - m->at);
    *out = m->data + m->at;
    m->at += (size_t)n;
    return ERR_OK;
}

static err_t number_take(struct machine *m, int bytes, uint64_t *v)
{
    const uint8_t *p = NULL;
    TRY(bytes_take(m, (uint64_t)bytes, &p));
    *v = 0;
    for (int i = bytes; i-- > 0;) *v = *v << 8 | p[i];
    return ERR_OK;
}

static err_t line_take(struct machine *m, const char **s, size_t *n)
{
    const uint8_t *p = m->data + m->at, *end = m->n > m->at ? memchr(p, '\n', m->n - m->at) : NULL;
    if (!end) return fail(ERR_FORMAT, "a line without end");
    *s = (const char *)p;
    *n = (size_t)(end - p);
    m->at += *n + 1;
    return ERR_OK;
}

static err_t push_int(struct machine *m, int64_t i)
{
    struct pv *v = NULL;
    TRY(value_new(m, PV_INT, &v));
    v->i = i;
    return push(m, v);
}

static err_t push_bytes(struct machine *m, enum pv_kind kind, const char *s, size_t n)
{
    struct pv *v = NULL;
    if (kind == PV_STR && !pv_utf8(s, n)) return fail(ERR_FORMAT, "a text that is not UTF-8");
    TRY(value_new(m, kind, &v));
    v->s = s;
    v->n = n;
    return push(m, v);
}

/* Text with a length of `width` bytes in front. */
static err_t push_counted(struct machine *m, enum pv_kind kind, int width)
{
    uint64_t n = 0;
    const uint8_t *p = NULL;
    TRY(number_take(m, width, &n));
    TRY(bytes_take(m, n, &p));
    return push_bytes(m, kind, (const char *)p, (size_t)n);
}

/* A Python 2 string can be text or bytes: what is UTF-8 is text. */
static err_t push_string(struct machine *m, const char *s, size_t n)
{
    return push_bytes(m, pv_utf8(s, n) ? PV_STR : PV_BYTES, s, n);
}

/* Two's complement, little-endian. */
static err_t push_long(struct machine *m, const uint8_t *p, size_t n)
{
    bool negative = n && p[n - 1] & 0x80;
    if (n <= 8) {
        uint64_t u = negative ? UINT64_MAX : 0;
        for (size_t i = n; i-- > 0;) u = u << 8 | p[i];
        return push_int(m, (int64_t)u);
    }
    if (n > LONG_MOST) return fail(ERR_FORMAT, "an integer of %zu bytes", n);
    uint8_t mag[LONG_MOST];
    unsigned carry = negative;
    for (size_t i = 0; i < n; i++) {
        unsigned b = (negative ? (uint8_t)~p[i] : p[i]) + carry;
        mag[i] = (uint8_t)b;
        carry = b >> 8;
    }
    char digits[LONG_MOST * 5 / 2 + 2];
    size_t len = 0, left = n;
    while (left && !mag[left - 1]) left--;
    while (left) {
        unsigned rest = 0;
        for (size_t i = left; i-- > 0;) {
            unsigned v = rest << 8 | mag[i];
            mag[i] = (uint8_t)(v / 10);
            rest = v % 10;
        }
        digits[len++] = (char)('0' + rest);
        while (left && !mag[left - 1]) left--;
    }
    if (!len) digits[len++] = '0';
    if (negative) digits[len++] = '-';
    char *s = pickle_alloc(m->p, len + 1);
    if (!s) return pickle_over();
    for (size_t i = 0; i < len; i++) s[i] = digits[len - 1 - i];
    TRY(push_bytes(m, PV_BIG, s, len));
    return ERR_OK;
}

/* Protocol 0: "12", "12L", "01" is True and "00" False. */
static err_t push_int_line(struct machine *m, bool is_long)
{
    const char *s = NULL;
    char buf[32], *end;
    size_t n = 0;
    TRY(line_take(m, &s, &n));
    if (!is_long && n == 2 && s[0] == '0' && (s[1] == '0' || s[1] == '1')) return push(m, s[1] == '1' ? &yes : &no);
    if (n && s[n - 1] == 'L') n--;
    if (n > LONG_MOST) return fail(ERR_FORMAT, "an integer of %zu digits", n);
    size_t from = n && s[0] == '-';
    for (size_t i = from; i < n; i++)
        if (s[i] < '0' || s[i] > '9') return fail(ERR_FORMAT, "a bad integer");
    if (n == from) return fail(ERR_FORMAT, "a bad integer");
    if (n < sizeof buf) {
        memcpy(buf, s, n);
        buf[n] = 0;
        errno = 0;
        long long v = strtoll(buf, &end, 10);
        if (!errno) return push_int(m, v);
    }
    return push_bytes(m, PV_BIG, s, n);
}

static err_t push_float_line(struct machine *m)
{
    const char *s = NULL;
    char buf[64];
    size_t n = 0;
    struct pv *v = NULL;
    TRY(line_take(m, &s, &n));
    if (n >= sizeof buf) return fail(ERR_FORMAT, "a bad number");
    memcpy(buf, s, n);
    buf[n] = 0;
    TRY(value_new(m, PV_FLOAT, &v));
    if (!num_parse(buf, &v->f)) return fail(ERR_FORMAT, "a bad number");
    return push(m, v);
}

static err_t push_float(struct machine *m)
{
    const uint8_t *p = NULL;
    struct pv *v = NULL;
    TRY(bytes_take(m, 8, &p));
    uint64_t bits = 0;
    for (int i = 0; i < 8; i++) bits = bits << 8 | p[i];
    TRY(value_new(m, PV_FLOAT, &v));
    memcpy(&v->f, &bits, 8);
    return push(m, v);
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static size_t utf8_put(char *out, uint32_t c)
{
    if (c < 0x80) return (void)(out[0] = (char)c), 1;
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 63));
        out[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 63));
    out[2] = (char)(0x80 | (c >> 6 & 63));
    out[3] = (char)(0x80 | (c & 63));
    return 4;
}

/* Protocol 0's 'text' with Python's escapes. */
static err_t push_string_line(struct machine *m)
{
    const char *s = NULL;
    size_t n = 0, len = 0;
    TRY(line_take(m, &s, &n));
    if (n < 2 || (s[0] != '\'' && s[0] != '"') || s[n - 1] != s[0]) return fail(ERR_FORMAT, "a text without quotes");
    char *out = pickle_alloc(m->p, n);
    if (!out) return pickle_over();
    for (size_t i = 1; i < n - 1; i++) {
        if (s[i] != '\\') {
            out[len++] = s[i];
            continue;
        }
        char c = ++i < n - 1 ? s[i] : 0;
        if (c == 'n') out[len++] = '\n';
        else if (c == 't') out[len++] = '\t';
        else if (c == 'r') out[len++] = '\r';
        else if (c == '\\' || c == '\'' || c == '"') out[len++] = c;
        else if (c == 'x' && i + 2 < n - 1 && hex_digit(s[i + 1]) >= 0 && hex_digit(s[i + 2]) >= 0) {
            out[len++] = (char)(hex_digit(s[i + 1]) << 4 | hex_digit(s[i + 2]));
            i += 2;
        } else return fail(ERR_FORMAT, "a text with a bad escape");
    }
    return push_string(m, out, len);
}

/* Protocol 0's raw-unicode-escape: Latin-1 with \uXXXX and \UXXXXXXXX. */
static err_t push_unicode_line(struct machine *m)
{
    const char *s = NULL;
    size_t n = 0, len = 0;
    TRY(line_take(m, &s, &n));
    char *out = pickle_alloc(m->p, 2 * n + 1);
    if (!out) return pickle_over();
    for (size_t i = 0; i < n; i++) {
        uint32_t c = (uint8_t)s[i];
        size_t digits = c == '\\' && i + 1 < n ? (s[i + 1] == 'u' ? 4 : s[i + 1] == 'U' ? 8 : 0) : 0;
        if (digits) {
            if (i + 1 + digits >= n) return fail(ERR_FORMAT, "a text with a bad escape");
            c = 0;
            for (size_t k = 0; k < digits; k++) {
                int d = hex_digit(s[i + 2 + k]);
                if (d < 0) return fail(ERR_FORMAT, "a text with a bad escape");
                c = c << 4 | (uint32_t)d;
            }
            if (c > 0x10ffff) return fail(ERR_FORMAT, "a text with a bad escape");
            i += 1 + digits;
        }
        len += utf8_put(out + len, c);
    }
    return push_bytes(m, PV_STR, out, len);
}

/* ---- objects -------------------------------------------------------------------------------------------------------- */

static err_t push_name(struct machine *m, const char *module, size_t nm, const char *name, size_t nn)
{
    struct pv *v = NULL;
    if (!nm || !nn || nm > NAME_MOST || nn > NAME_MOST) return fail(ERR_FORMAT, "a name without end, or none");
    if (memchr(module, 0, nm) || memchr(name, 0, nn) || !pv_utf8(module, nm) || !pv_utf8(name, nn))
        return fail(ERR_FORMAT, "a class's name with odd characters");
    TRY(value_new(m, PV_NAME, &v));
    char *s = pickle_alloc(m->p, nm + nn + 2);
    if (!s) return pickle_over();
    memcpy(s, module, nm);
    memcpy(s + nm + 1, name, nn);
    v->module = module_now(s);
    v->name = s + nm + 1;
    TRY(name_check(v->module, v->name));
    return push(m, v);
}

static err_t push_record(struct machine *m, struct pv *what, struct pv *args)
{
    struct pv *v = NULL;
    TRY(value_new(m, PV_RECORD, &v));
    v->what = what;
    v->args = args;
    if (m->p->reduced) TRY(m->p->reduced(m->p->ctx, v));
    return push(m, v);
}

static err_t refused_call(const struct pv *what)
{
    return fail(ERR_FORMAT, "refused: the file asks to call %s.%s; nothing in a checkpoint is ever called",
                what->module, what->name);
}

static bool is_sequence(const struct pv *v)
{
    return v->kind == PV_LIST || v->kind == PV_TUPLE || v->kind == PV_SET;
}

static err_t call_dict(struct machine *m, const struct pv *args)
{
    struct pv *v = NULL;
    TRY(value_new(m, PV_DICT, &v));
    if (args->count > 1) return fail(ERR_FORMAT, "a dict of %zu arguments", args->count);
    const struct pv *from = args->count ? args->at[0] : NULL;
    if (from && from->kind == PV_DICT) {
        for (size_t i = 0; i < from->count; i++) TRY(dict_add(m, v, from->at[2 * i], from->at[2 * i + 1]));
    } else if (from && is_sequence(from)) {
        for (size_t i = 0; i < from->count; i++) {
            const struct pv *pair = from->at[i];
            if (!is_sequence(pair) || pair->count != 2) return fail(ERR_FORMAT, "a dict of something but pairs");
            TRY(dict_add(m, v, pair->at[0], pair->at[1]));
        }
    } else if (from) return fail(ERR_FORMAT, "a dict of something but pairs");
    return push(m, v);
}

static err_t call_sequence(struct machine *m, const struct pv *what, const struct pv *args)
{
    enum pv_kind kind = !strcmp(what->name, "list") ? PV_LIST : strstr(what->name, "set") ? PV_SET : PV_TUPLE;
    if (args->count > 1 || (args->count && !is_sequence(args->at[0])))
        return fail(ERR_FORMAT, "%s of something but a sequence", what->name);
    return args->count ? push_seq(m, kind, args->at[0]->at, args->at[0]->count) : push_seq(m, kind, NULL, 0);
}

/* encode(text, "latin1"): each character one byte. */
static err_t call_encode(struct machine *m, const struct pv *args)
{
    if (!args->count || args->count > 2 || args->at[0]->kind != PV_STR ||
        (args->count == 2 && !pv_is_str(args->at[1], "latin1") && !pv_is_str(args->at[1], "latin-1")))
        return fail(ERR_FORMAT, "_codecs.encode of something but Latin-1");
    struct pv *src = args->at[0];
    if (!src->parsed) { /* once, however often it is asked for */
        const uint8_t *s = (const uint8_t *)src->s;
        char *out = pickle_alloc(m->p, src->n + 1);
        size_t len = 0;
        if (!out) return pickle_over();
        for (size_t i = 0; i < src->n; i++) {
            uint32_t c = s[i];
            if (c >= 0x80) {
                if (c > 0xc3) return fail(ERR_FORMAT, "_codecs.encode of something but Latin-1");
                c = (c & 31) << 6 | (s[++i] & 63); /* valid UTF-8: there is one more */
            }
            out[len++] = (char)c;
        }
        TRY(value_new(m, PV_BYTES, &src->parsed));
        src->parsed->s = out;
        src->parsed->n = len;
    }
    return push(m, src->parsed);
}

static err_t do_reduce(struct machine *m)
{
    struct pv *args = NULL, *what = NULL;
    enum call call = CALL_REFUSED;
    TRY(pop(m, &args));
    TRY(pop(m, &what));
    if (args->kind != PV_TUPLE) return fail(ERR_FORMAT, "a call whose arguments are no tuple");
    if (what->kind != PV_NAME) return fail(ERR_FORMAT, "refused: the file asks to call something it computed");
    for (size_t i = 0; i < ARRAY_LEN(calls); i++)
        if (!strcmp(calls[i].name, what->name) && !strcmp(calls[i].module, what->module)) call = calls[i].call;
    switch (call) {
    case CALL_REFUSED: break;
    case CALL_RECORD: return push_record(m, what, args);
    case CALL_DICT: return call_dict(m, args);
    case CALL_SEQUENCE: return call_sequence(m, what, args);
    case CALL_FIRST:
        if (!args->count) return fail(ERR_FORMAT, "%s without arguments", what->name);
        return push(m, args->at[0]);
    case CALL_BYTES:
        if (args->count) break;
        return push_bytes(m, PV_BYTES, "", 0);
    case CALL_ENCODE: return call_encode(m, args);
    case CALL_GETATTR:
        if (args->count == 2 && args->at[0]->kind == PV_RECORD && args->at[1]->kind == PV_STR)
            return push_record(m, what, args);
        return fail(ERR_FORMAT, "refused: getattr of something but an object of this file");
    }
    return refused_call(what);
}

/* NEWOBJ makes an empty object of a class: an inert record, whatever the class. */
static err_t do_newobj(struct machine *m, bool ex)
{
    struct pv *args = NULL, *what = NULL, *kw = NULL;
    if (ex) TRY(pop(m, &kw));
    TRY(pop(m, &args));
    TRY(pop(m, &what));
    if (what->kind != PV_NAME || args->kind != PV_TUPLE || (kw && kw->kind != PV_DICT))
        return fail(ERR_FORMAT, "an object of something but a class");
    if (kw && kw->count) return fail(ERR_FORMAT, "an object of %s with keyword arguments", what->name);
    return push_record(m, what, args);
}

static err_t do_build(struct machine *m)
{
    struct pv *state = NULL, *v = NULL;
    TRY(pop(m, &state));
    TRY(top(m, &v));
    if (v->kind == PV_DICT || v->kind == PV_LIST) return ERR_OK; /* attributes of a container, such as _metadata */
    if (v->kind == PV_TENSOR) return ERR_OK;                     /* likewise: hooks, Python attributes */
    if (v->kind != PV_RECORD) return fail(ERR_FORMAT, "state for something that is no object");
    v->state = state;
    return m->p->reduced ? m->p->reduced(m->p->ctx, v) : ERR_OK;
}

static err_t items_of(struct machine *m, struct pv *v, enum pv_kind kind, struct pv **out)
{
    *out = v;
    if (v->kind == kind) return ERR_OK;
    if (v->kind != PV_RECORD || (v->items && v->items->kind != kind))
        return fail(ERR_FORMAT, "items for something that has none");
    if (!v->items) TRY(value_new(m, kind, &v->items));
    *out = v->items;
    return ERR_OK;
}

static err_t do_setitems(struct machine *m, struct pv **values, size_t n)
{
    struct pv *v = NULL;
    TRY(top(m, &v));
    TRY(items_of(m, v, PV_DICT, &v));
    if (n % 2) return fail(ERR_FORMAT, "a dict with an odd number of keys and values");
    TRY(seq_reserve(m, v, 2 * v->count + n)); /* values lie above the stack's top, which nothing here moves */
    for (size_t i = 0; i < n; i += 2) TRY(dict_add(m, v, values[i], values[i + 1]));
    return ERR_OK;
}

static err_t do_append(struct machine *m, enum pv_kind kind, struct pv **values, size_t n)
{
    struct pv *v = NULL;
    TRY(top(m, &v));
    TRY(items_of(m, v, kind, &v));
    for (size_t i = 0; i < n; i++) TRY(seq_add(m, v, values[i]));
    return ERR_OK;
}

/* ---- the memo --------------------------------------------------------------------------------------------------------- */

static err_t memo_put(struct machine *m, uint64_t index)
{
    struct pv *v = NULL;
    TRY(top(m, &v));
    if (index > m->n) return fail(ERR_FORMAT, "memo slot %llu in %zu bytes", (unsigned long long)index, m->n);
    if (index >= m->memo_cap) {
        size_t cap = m->memo_cap ? 2 * m->memo_cap : 64;
        if (cap <= index) cap = (size_t)index + 1;
        m->memo = mem_grow(m->memo, m->memo_cap * sizeof *m->memo, cap * sizeof *m->memo);
        m->memo_cap = cap;
    }
    if (!m->memo[index]) m->memo_next++;
    m->memo[index] = v;
    return ERR_OK;
}

static err_t memo_get(struct machine *m, uint64_t index)
{
    if (index >= m->memo_cap || !m->memo[index])
        return fail(ERR_FORMAT, "memo slot %llu is empty", (unsigned long long)index);
    return push(m, m->memo[index]);
}

static err_t memo_line(struct machine *m, uint64_t *index)
{
    const char *s = NULL;
    char buf[24];
    size_t n = 0;
    int64_t v = -1;
    TRY(line_take(m, &s, &n));
    if (n && n < sizeof buf) {
        memcpy(buf, s, n);
        buf[n] = 0;
        if (!int_parse(buf, &v)) v = -1;
    }
    if (v < 0) return fail(ERR_FORMAT, "a bad memo slot");
    *index = (uint64_t)v;
    return ERR_OK;
}

/* ---- one opcode --------------------------------------------------------------------------------------------------------- */

static err_t op_global(struct machine *m, bool on_stack)
{
    if (on_stack) {
        struct pv *module = NULL, *name = NULL;
        TRY(pop(m, &name));
        TRY(pop(m, &module));
        if (name->kind != PV_STR || module->kind != PV_STR) return fail(ERR_FORMAT, "a name that is no text");
        return push_name(m, module->s, module->n, name->s, name->n);
    }
    const char *module = NULL, *name = NULL;
    size_t nm = 0, nn = 0;
    TRY(line_take(m, &module, &nm));
    TRY(line_take(m, &name, &nn));
    return push_name(m, module, nm, name, nn);
}

static err_t op_persid(struct machine *m)
{
    struct pv *id = NULL, *v = NULL;
    TRY(pop(m, &id));
    if (!m->p->persid) return fail(ERR_FORMAT, "a persistent id where nothing can hold its storage");
    TRY(m->p->persid(m->p->ctx, id, &v));
    return push(m, v);
}

static err_t op_long(struct machine *m, int width)
{
    uint64_t n = 0;
    const uint8_t *p = NULL;
    TRY(number_take(m, width, &n));
    TRY(bytes_take(m, n, &p));
    return push_long(m, p, (size_t)n);
}

/* Opcodes that work on the values above a mark. */
static err_t op_marked(struct machine *m, uint8_t op)
{
    struct pv **values = NULL;
    size_t n = 0;
    TRY(pop_mark(m, &values, &n));
    switch (op) {
    case '1': return ERR_OK;
    case 't': return push_seq(m, PV_TUPLE, values, n);
    case 'l': return push_seq(m, PV_LIST, values, n);
    case 'd': return push_dict(m, values, n);
    case 'e': return do_append(m, PV_LIST, values, n);
    case 'u': return do_setitems(m, values, n);
    case 0x90: return do_append(m, PV_SET, values, n);
    case 0x91: return push_seq(m, PV_SET, values, n);
    default: return fail(ERR_FORMAT, "refused: old opcode '%c', which calls a class by name", op);
    }
}

static err_t op_text(struct machine *m, uint8_t op)
{
    uint64_t n = 0;
    const uint8_t *p = NULL;
    switch (op) {
    case 'S': return push_string_line(m);
    case 'V': return push_unicode_line(m);
    case 'T':
    case 'U':
        TRY(number_take(m, op == 'T' ? 4 : 1, &n));
        TRY(bytes_take(m, n, &p));
        return push_string(m, (const char *)p, (size_t)n);
    case 'X': return push_counted(m, PV_STR, 4);
    case 0x8c: return push_counted(m, PV_STR, 1);
    case 0x8d: return push_counted(m, PV_STR, 8);
    case 'B': return push_counted(m, PV_BYTES, 4);
    case 'C': return push_counted(m, PV_BYTES, 1);
    default: return push_counted(m, PV_BYTES, 8); /* 0x8e, 0x96 */
    }
}

static err_t op_number(struct machine *m, uint8_t op)
{
    uint64_t n = 0;
    switch (op) {
    case 'J': TRY(number_take(m, 4, &n)); return push_int(m, (int32_t)(uint32_t)n);
    case 'K': TRY(number_take(m, 1, &n)); return push_int(m, (int64_t)n);
    case 'M': TRY(number_take(m, 2, &n)); return push_int(m, (int64_t)n);
    case 'I': return push_int_line(m, false);
    case 'L': return push_int_line(m, true);
    case 'F': return push_float_line(m);
    case 'G': return push_float(m);
    case 0x8a: return op_long(m, 1);
    default: return op_long(m, 4); /* 0x8b */
    }
}

static err_t op_memo(struct machine *m, uint8_t op)
{
    uint64_t n = 0;
    switch (op) {
    case 'p': TRY(memo_line(m, &n)); return memo_put(m, n);
    case 'q': TRY(number_take(m, 1, &n)); return memo_put(m, n);
    case 'r': TRY(number_take(m, 4, &n)); return memo_put(m, n);
    case 0x94: return memo_put(m, m->memo_next);
    case 'g': TRY(memo_line(m, &n)); return memo_get(m, n);
    case 'h': TRY(number_take(m, 1, &n)); return memo_get(m, n);
    default: TRY(number_take(m, 4, &n)); return memo_get(m, n); /* j */
    }
}

static err_t op_run(struct machine *m, uint8_t op)
{
    struct pv *v = NULL, *pair[2] = {0};
    uint64_t n = 0;
    switch (op) {
    case '(': return push(m, &mark);
    case '.': m->stopped = true; return ERR_OK;
    case '0':
        if (m->depth && m->stack[m->depth - 1]->kind == PV_MARK) return (void)m->depth--, ERR_OK;
        return pop(m, &v);
    case '2': TRY(top(m, &v)); return push(m, v);
    case 'N': return push(m, &none);
    case 0x88: return push(m, &yes);
    case 0x89: return push(m, &no);
    case 0x80:
        TRY(number_take(m, 1, &n));
        return n <= 5 ? ERR_OK : fail(ERR_FORMAT, "pickle protocol %llu", (unsigned long long)n);
    case 0x95:
        TRY(number_take(m, 8, &n));
        if (n > m->n - m->at)
            return fail(ERR_FORMAT, "a frame of %llu bytes, %zu are left", (unsigned long long)n, m->n - m->at);
        return ERR_OK;
    case 'P': return fail(ERR_FORMAT, "refused: a persistent id as text, which no checkpoint has");
    case 'Q': return op_persid(m);
    case 'R': return do_reduce(m);
    case 'b': return do_build(m);
    case 'c': return op_global(m, false);
    case 0x93: return op_global(m, true);
    case 0x81: return do_newobj(m, false);
    case 0x92: return do_newobj(m, true);
    case ']': return push_seq(m, PV_LIST, NULL, 0);
    case ')': return push_seq(m, PV_TUPLE, NULL, 0);
    case '}': return push_dict(m, NULL, 0);
    case 0x8f: return push_seq(m, PV_SET, NULL, 0);
    case 0x85: return push_tuple(m, 1);
    case 0x86: return push_tuple(m, 2);
    case 0x87: return push_tuple(m, 3);
    case 'a': TRY(pop(m, &v)); return do_append(m, PV_LIST, &v, 1);
    case 's':
        TRY(pop(m, &pair[1]));
        TRY(pop(m, &pair[0]));
        return do_setitems(m, pair, 2);
    case 'i':
    case 'o':
    case '1':
    case 't':
    case 'l':
    case 'd':
    case 'e':
    case 'u':
    case 0x90:
    case 0x91: return op_marked(m, op);
    case 'S':
    case 'V':
    case 'T':
    case 'U':
    case 'X':
    case 0x8c:
    case 0x8d:
    case 'B':
    case 'C':
    case 0x8e:
    case 0x96: return op_text(m, op);
    case 'J':
    case 'K':
    case 'M':
    case 'I':
    case 'L':
    case 'F':
    case 'G':
    case 0x8a:
    case 0x8b: return op_number(m, op);
    case 'p':
    case 'q':
    case 'r':
    case 0x94:
    case 'g':
    case 'h':
    case 'j': return op_memo(m, op);
    case 0x82:
    case 0x83:
    case 0x84: return fail(ERR_FORMAT, "refused: an extension code, which no checkpoint has");
    case 0x97:
    case 0x98: return fail(ERR_FORMAT, "refused: an out-of-band buffer, which a file cannot hold");
    default: return fail(ERR_FORMAT, "0x%02x is no opcode", op);
    }
}

err_t pickle_read(struct pickle *p, const void *data, size_t n, struct pv **root, size_t *used)
{
    struct machine m = {.p = p, .data = data, .n = n};
    err_t err = ERR_OK;
    size_t at = 0;
    *root = NULL;
    while (!m.stopped) {
        at = m.at;
        if (m.at == m.n) TRYD(fail(ERR_FORMAT, "the pickle ends without STOP"));
        TRYD(op_run(&m, m.data[m.at++]));
    }
    TRYD(pop(&m, root));
    *used = m.at;
done:
    if (err) err = fail_in(err, "byte %zu", at);
    mem_free(m.stack);
    mem_free(m.memo);
    return err;
}
