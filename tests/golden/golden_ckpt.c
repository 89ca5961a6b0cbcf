/* The family "checkpoints": a directory with expect.json says of each file whether it must be read (and to which values), must be
 * refused, or may be either as long as nothing is executed, nothing crashes and memory stays in proportion. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/io/tensors.h"
#include "tests/golden/golden.h"

static const char mark[] = "pwned.mark"; /* what the hostile files would create in the working directory */

static void equal_tensor(struct part *p, const struct tensor *t, const struct st_tensor *want)
{
    if (t->dtype != want->dtype || t->ndim != want->ndim || memcmp(t->dims, want->dims, sizeof t->dims)) {
        part_fail(p, "%s: another type or shape than the reference", want->name);
        return;
    }
    size_t n = want->count;
    char *raw = mem_alloc(t->bytes + 1);
    double *got = mem_array(n + 1, sizeof *got), *ref = mem_array(n + 1, sizeof *ref);
    tensor_read_raw(t, raw);
    if (t->bytes && memcmp(raw, want->data, t->bytes)) part_fail(p, "%s: not the reference's bits", want->name);
    if (tensor_read_f64(t, got, n) || st_read_f64(want, ref, n)) part_fail(p, "%s", err_text());
    for (size_t i = 0; i < n; i++) { /* their bits were compared above; here they only have to equal themselves */
        if (!(fabs(ref[i]) < 0x1p52) && !(fabs(got[i]) < 0x1p52)) ref[i] = got[i] = 0;
    }
    part_equal(p, "checkpoint", want->name, got, ref, n);
    mem_free(raw);
    mem_free(got);
    mem_free(ref);
}

static void equal_json(struct part *p, const struct tensors *f, const char *path, const json_t *want)
{
    char *text = tensors_json(f, path);
    json_t *got = text ? json_loads(text, JSON_DECODE_ANY, NULL) : NULL;
    if (!got) part_fail(p, "no value %s", path);
    else if (json_is_number(want) && json_is_number(got) ? json_number_value(want) != json_number_value(got)
                                                         : !json_equal(got, (json_t *)(uintptr_t)want))
        part_fail(p, "%s: %s is not the reference's value", path, text);
    p->values++;
    json_decref(got);
    mem_free(text);
}

/* The scalars, the network's configuration and the optimiser's groups, as the reference's metadata has them. */
static void equal_values(struct part *p, const struct tensors *f, struct gfile *ref, const char *root)
{
    json_t *scalars = meta_json(ref, "scalars"), *config = meta_json(ref, "config"), *v;
    json_t *groups = meta_json(ref, "param_groups");
    const char *key;
    size_t i;
    json_object_foreach(scalars, key, v) equal_json(p, f, key, v);
    json_object_foreach(config, key, v)
    {
        char *path = mem_printf("%s/_init_kwargs/%s", root ? root : "net", key);
        equal_json(p, f, path, v);
        mem_free(path);
    }
    json_array_foreach(groups, i, v)
    {
        json_t *x;
        json_object_foreach(v, key, x)
        {
            char *path = mem_printf("optimizer_state/param_groups/%zu/%s", i, key);
            equal_json(p, f, path, x);
            mem_free(path);
        }
    }
    json_decref(scalars);
    json_decref(config);
    json_decref(groups);
}

static void equal_reference(struct part *p, const struct tensors *f, const char *path)
{
    struct gfile ref = *p->f;
    if (st_open(&ref.st, path)) {
        part_fail(p, "reference: %s", err_text());
        return;
    }
    const char *root = st_meta(ref.st, "root_key");
    size_t skip = root ? strlen(root) + 1 : 0;
    for (int i = 0; i < st_count(ref.st); i++) {
        const struct st_tensor *want = st_at(ref.st, i);
        char *name = mem_printf("%s%s%s", root ? root : "", root ? "/" : "", want->name);
        const struct tensor *t = tensors_find(f, name);
        if (t) equal_tensor(p, t, want);
        else part_fail(p, "no tensor %s", name);
        mem_free(name);
    }
    for (int i = 0; i < tensors_count(f); i++) { /* and none but those */
        const char *name = tensors_at(f, i)->name;
        if (root && (strncmp(name, root, skip - 1) || name[skip - 1] != '/')) continue;
        if (!st_find(ref.st, name + skip)) part_fail(p, "a tensor %s that the reference does not have", name);
    }
    equal_values(p, f, &ref, root);
    st_close(ref.st);
}

static void check_one(struct gfile *dir, const char *name, const json_t *entry)
{
    struct part p;
    struct tensors *f = NULL;
    struct stat st;
    const char *expect = json_string_value(json_object_get(entry, "expect"));
    const char *reference = json_string_value(json_object_get(entry, "reference"));
    char *path = mem_printf("%s/%s", dir->path, name);
    char *ref_path = reference ? mem_printf("%s/%s", dir->path, reference) : NULL;
    uint64_t peak = mem_peak(), size = stat(path, &st) ? 0 : (uint64_t)st.st_size;

    part_begin(&p, dir, "%s", name);
    if (!file_exists(path)) part_fail(&p, "the file is missing");
    err_t err = tensors_open(&f, path);
    if (err && err != ERR_FORMAT) part_fail(&p, "error %d: %s", err, err_text());
    p.values++;
    if (err) part_note(&p, "%.150s", err_text() + (strncmp(err_text(), path, strlen(path)) ? 0 : strlen(path) + 2));
    if (!expect) part_fail(&p, "expect.json does not say what to expect");
    else if (!strcmp(expect, "accept")) {
        if (err) part_fail(&p, "refused: %s", err_text());
        else if (ref_path) equal_reference(&p, f, ref_path);
        else part_fail(&p, "no reference");
    } else if (!strcmp(expect, "reject")) {
        if (!err) part_fail(&p, "accepted");
    } else if (!strcmp(expect, "reject_or_correct")) {
        if (!err && ref_path) equal_reference(&p, f, ref_path);
    } else if (strcmp(expect, "no_exec") && strcmp(expect, "no_crash"))
        part_fail(&p, "expectation '%s' is not known", expect);
    tensors_close(f);
    if (mem_peak() > peak + 512 * size + (64 << 20)) part_fail(&p, "took far more memory than its size");
    if (!access(mark, F_OK)) {
        part_fail(&p, "executed: %s is there", mark);
        unlink(mark);
    }
    part_end(&p);
    mem_free(path);
    mem_free(ref_path);
}

void check_checkpoints(struct golden *g, const char *dir, const char *shown)
{
    struct gfile f = {.g = g, .path = dir, .name = shown};
    char *path = mem_printf("%s/expect.json", dir);
    json_error_t je;
    json_t *list = json_load_file(path, JSON_REJECT_DUPLICATES, &je), *entry;
    const char *name;
    unlink(mark);
    if (!json_is_object(list)) {
        struct part p;
        part_begin(&p, &f, "expect.json");
        part_fail(&p, "%s", list ? "no object" : je.text);
        part_end(&p);
    }
    json_object_foreach(list, name, entry) check_one(&f, name, entry);
    json_decref(list);
    mem_free(path);
}
