/* Weights come from files that users bring: a name leads to one file, and the file's hash, not its name, says what it is. */
#include "core/metrics/weights.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/io/tensors.h"

struct weights {
    char *path, sha[SHA256_TEXT];
    struct tensors *file;
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
    static const char *const ends[] = {"safetensors", "pth", "pt", "pkl", "npz"};
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

err_t weights_file_sha(const char *path, char sha[SHA256_TEXT])
{
    static _Thread_local struct {
        struct stat st;
        char sha[SHA256_TEXT];
    } known[4];
    static _Thread_local unsigned next;
    struct stat st;
    if (stat(path, &st)) return fail(ERR_IO, "%s: %s", path, strerror(errno));
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (known[i].sha[0] && known[i].st.st_dev == st.st_dev && known[i].st.st_ino == st.st_ino &&
            known[i].st.st_size == st.st_size && known[i].st.st_mtim.tv_sec == st.st_mtim.tv_sec &&
            known[i].st.st_mtim.tv_nsec == st.st_mtim.tv_nsec) {
            memcpy(sha, known[i].sha, SHA256_TEXT);
            return ERR_OK;
        }
    TRY(sha256_file(path, sha));
    unsigned to = next++ % ARRAY_LEN(known);
    known[to].st = st;
    memcpy(known[to].sha, sha, SHA256_TEXT);
    return ERR_OK;
}

err_t weights_open(struct weights **out, const char *path)
{
    struct weights *w = mem_alloc(sizeof *w);
    *out = NULL;
    w->path = mem_strdup(path);
    err_t err = weights_file_sha(path, w->sha);
    if (!err) err = tensors_open(&w->file, path);
    if (err) weights_close(w);
    else *out = w;
    return err;
}

void weights_close(struct weights *w)
{
    if (!w) return;
    if (w->file) tensors_close(w->file);
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
    const struct tensor *t = tensors_find(w->file, name);
    if (!t) return -1;
    memcpy(dims, t->dims, sizeof t->dims);
    return t->ndim;
}

err_t weights_get(const struct weights *w, const char *name, float *out, size_t count)
{
    const struct tensor *t = tensors_find(w->file, name);
    if (!t) return fail(ERR_FORMAT, "%s: no tensor '%s'", w->path, name);
    err_t err = tensor_read_f32(t, out, count);
    return err ? fail_in(err, "%s: %s", w->path, name) : ERR_OK;
}
