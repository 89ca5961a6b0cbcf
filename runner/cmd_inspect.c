/* inspect: what is in a file of weights, without running any of it; and the same as safetensors. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "core/io/tensors.h"
#include "runner/runner.h"

enum { VALUE_MOST = 400 };

static uint32_t tensor_crc(const struct tensor *t)
{
    char *raw = mem_alloc(t->bytes + 1);
    tensor_read_raw(t, raw);
    uint32_t crc = crc32_of(0, raw, t->bytes);
    mem_free(raw);
    return crc;
}

static void shape_text(const struct tensor *t, struct text *out)
{
    text_add(out, "[");
    for (int i = 0; i < t->ndim; i++) text_addf(out, "%s%lld", i ? ", " : "", (long long)t->dims[i]);
    text_add(out, "]");
}

static void print_json(const struct tensors *f)
{
    json_t *list = json_array();
    for (int i = 0; i < tensors_count(f); i++) {
        const struct tensor *t = tensors_at(f, i);
        json_t *shape = json_array();
        for (int k = 0; k < t->ndim; k++) json_array_append_new(shape, json_integer(t->dims[k]));
        json_array_append_new(list, json_pack("{s:s, s:s, s:o, s:I}", "name", t->name, "dtype", st_dtype_name(t->dtype),
                                              "shape", shape, "crc32", (json_int_t)tensor_crc(t)));
    }
    json_t *all = json_pack("{s:s, s:o}", "kind", tensors_kind(f), "tensors", list);
    char *s = json_dumps(all, JSON_INDENT(1));
    puts(s);
    free(s);
    json_decref(all);
}

/* The objects of a network pickle, with the arguments they were made from. */
static void print_objects(const struct tensors *f)
{
    static const char *const paths[] = {"ema", "net", "model", ""};
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        char *class = tensors_class(f, paths[i]);
        char *at = mem_printf("%s%s_init_kwargs", paths[i], *paths[i] ? "/" : ""),
             *kwargs = class ? tensors_json(f, at) : NULL;
        if (class)
            printf("%-10s %s%s%.*s\n", *paths[i] ? paths[i] : "object", class, kwargs ? " " : "", VALUE_MOST,
                   kwargs ? kwargs : "");
        mem_free(class);
        mem_free(at);
        mem_free(kwargs);
    }
}

static void print_text(const struct tensors *f)
{
    long long values = 0;
    int wide = 4;
    for (int i = 0; i < tensors_count(f); i++) {
        int n = (int)strlen(tensors_at(f, i)->name);
        values += (long long)tensors_at(f, i)->count;
        if (n > wide) wide = n;
    }
    printf("kind       %s\n", tensors_kind(f));
    print_objects(f);
    printf("tensors    %d, %lld values\n", tensors_count(f), values);
    for (int i = 0; i < tensors_count(f); i++) {
        const struct tensor *t = tensors_at(f, i);
        struct text shape = {0};
        shape_text(t, &shape);
        printf("%-*s  %-4s  %08x  %s\n", wide, t->name, st_dtype_name(t->dtype), tensor_crc(t), shape.s);
        text_done(&shape);
    }
}

static err_t save(const struct tensors *f, const char *path)
{
    struct st_writer *w = st_writer_new();
    st_writer_meta(w, "converted_from", tensors_kind(f));
    char *kwargs = tensors_json(f, "ema/_init_kwargs");
    if (kwargs) st_writer_meta(w, "config", kwargs);
    mem_free(kwargs);
    for (int i = 0; i < tensors_count(f); i++) {
        const struct tensor *t = tensors_at(f, i);
        char *raw = mem_alloc(t->bytes + 1);
        tensor_read_raw(t, raw);
        st_writer_add(w, t->name, t->dtype, t->ndim, t->dims, raw);
        mem_free(raw);
    }
    err_t err = st_writer_save(w, path);
    st_writer_free(w);
    if (!err) printf("wrote %s: %d tensors\n", path, tensors_count(f));
    return err;
}

static err_t inspect(struct args *a)
{
    struct tensors *f;
    const char *out = args_get(a, "save");
    size_t n = out ? strlen(out) : 0;
    err_t err = ERR_OK;
    if (out && (n < 13 || strcmp(out + n - 12, ".safetensors")))
        return fail(ERR_USAGE, "--save %s: the name must end in .safetensors", out);
    TRY(tensors_open(&f, a->pos[0]));
    if (out) err = save(f, out);
    else if (args_has(a, "json")) print_json(f);
    else print_text(f);
    tensors_close(f);
    return err;
}

static const struct opt inspect_opts[] = {{"save", 0, "FILE.safetensors", "write all tensors to this file instead"},
                                          {"json", 0, NULL, "print JSON"},
                                          OPT_END};
const struct command cmd_inspect = {
    .name = "inspect",
    .args = "FILE",
    .help = "what is in a checkpoint of any kind; nothing in it is run",
    .min_pos = 1,
    .max_pos = 1,
    .opts = inspect_opts,
    .more = "Reads safetensors, PyTorch files (.pth, .pt, older ones, TorchScript), network pickles and training\n"
            "states of EDM, EDM2 and ECT, .npz and .npy. The CRC-32 is of a tensor's values in row-major order.",
    .run = inspect};
