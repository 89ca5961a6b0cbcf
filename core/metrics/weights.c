/* Weights come from files that users bring: a name leads to one file, and the file's hash, not its name, says what it is. */
#include "core/metrics/weights.h"

#include <stdlib.h>
#include <string.h>

#include "core/io/safetensors.h"

struct weights {
    char *path, sha[SHA256_TEXT];
    struct st_file *st;
};

char *weights_dir(void)
{
    const char *own = getenv("ECT_WEIGHTS"), *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    if (own && *own) return mem_strdup(own);
    if (data && *data) return mem_printf("%s/ect/weights", data);
    return mem_printf("%s/.local/share/ect/weights", home ? home : "");
}

err_t weights_find(const char *name, char **path)
{
    static const char *const ends[] = {"safetensors"};
    char *dir = weights_dir();
    err_t err = ERR_OK;
    *path = NULL;
    for (size_t i = 0; i < ARRAY_LEN(ends) && !*path; i++) {
        *path = mem_printf("%s/%s.%s", dir, name, ends[i]);
        if (file_exists(*path)) continue;
        mem_free(*path);
        *path = NULL;
    }
    if (!*path)
        err = fail(ERR_NO_DATA,
                   "the weights '%s' are not in %s: get them with `ect weights get %s`, or add a file with `ect "
                   "weights add %s FILE`",
                   name, dir, name, name);
    mem_free(dir);
    return err;
}

err_t weights_open(struct weights **out, const char *path)
{
    struct weights *w = mem_alloc(sizeof *w);
    *out = NULL;
    w->path = mem_strdup(path);
    err_t err = sha256_file(path, w->sha);
    if (!err) err = st_open(&w->st, path);
    if (err) weights_close(w);
    else *out = w;
    return err;
}

void weights_close(struct weights *w)
{
    if (!w) return;
    if (w->st) st_close(w->st);
    mem_free(w->path);
    mem_free(w);
}

const char *weights_sha(const struct weights *w)
{
    return w->sha;
}
const char *weights_path(const struct weights *w)
{
    return w->path;
}

int weights_dims(const struct weights *w, const char *name, int64_t dims[8])
{
    const struct st_tensor *t = st_find(w->st, name);
    if (!t) return -1;
    memcpy(dims, t->dims, sizeof t->dims);
    return t->ndim;
}

err_t weights_get(const struct weights *w, const char *name, float *out, size_t count)
{
    const struct st_tensor *t = st_find(w->st, name);
    if (!t) return fail(ERR_FORMAT, "%s: no tensor '%s'", w->path, name);
    err_t err = st_read_f32(t, out, count);
    return err ? fail_in(err, "%s: %s", w->path, name) : ERR_OK;
}
