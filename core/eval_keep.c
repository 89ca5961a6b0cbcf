#include "core/eval_keep.h"

#include <string.h>

#include "core/io/safetensors.h"

static void name_of(char out[32], const char *what, int i)
{
    snprintf(out, 32, "%s%d", what, i);
}

err_t eval_state_save(const char *path, const struct eval_state *s)
{
    char name[32];
    double clock[2] = {(double)s->done, s->seconds};
    struct st_writer *w = st_writer_new();
    st_writer_meta(w, "pass", s->key);
    st_writer_add(w, "clock", ST_F64, 1, (int64_t[]){2}, clock);
    st_writer_add(w, "own", ST_F64, 1, (int64_t[]){s->n}, s->own);
    for (int i = 0; i < s->n; i++) {
        const struct feature_set *f = s->set[i];
        int64_t d = f->m.d;
        name_of(name, "mean", i);
        st_writer_add(w, name, ST_F64, 1, &d, f->m.mean);
        name_of(name, "m2.", i);
        st_writer_add(w, name, ST_F64, 2, (int64_t[]){d, d}, f->m.m2);
        name_of(name, "rows", i);
        if (f->keep) st_writer_add(w, name, ST_F32, 2, (int64_t[]){f->n, d}, f->rows);
    }
    err_t err = st_writer_save(w, path);
    st_writer_free(w);
    return err;
}

static const struct st_tensor *part(const struct st_file *f, const char *what, int i, size_t count)
{
    char name[32];
    name_of(name, what, i);
    const struct st_tensor *t = st_find(f, name);
    return t && t->count == count ? t : NULL;
}

static err_t set_load(const struct st_file *f, int i, int64_t done, struct feature_set *to)
{
    size_t d = (size_t)to->m.d, rows = (size_t)done * d;
    const struct st_tensor *mean = part(f, "mean", i, d), *m2 = part(f, "m2.", i, d * d), *x = part(f, "rows", i, rows);
    if (!mean || !m2 || (to->keep && !x)) return fail(ERR_FORMAT, "set %d is not whole", i);
    TRY(st_read_f64(mean, to->m.mean, d));
    TRY(st_read_f64(m2, to->m.m2, d * d));
    if (to->keep) {
        mem_free(to->rows);
        to->rows = mem_array(rows, sizeof *to->rows);
        to->cap = done;
        TRY(st_read_f32(x, to->rows, rows));
    }
    to->n = to->m.n = done;
    return ERR_OK;
}

/* Sets that were partly filled are emptied again: a pass begins anew rather than with something that is not its own. */
static void empty(struct feature_set *f)
{
    memset(f->m.mean, 0, (size_t)f->m.d * sizeof *f->m.mean);
    memset(f->m.m2, 0, (size_t)f->m.d * (size_t)f->m.d * sizeof *f->m.m2);
    f->n = f->m.n = 0;
}

static err_t state_read(const struct st_file *f, struct eval_state *s)
{
    double clock[2];
    const struct st_tensor *t = st_find(f, "clock"), *own = st_find(f, "own");
    if (!t || t->count != 2 || !own || own->count != (size_t)s->n) return fail(ERR_FORMAT, "no state of a pass");
    TRY(st_read_f64(t, clock, 2));
    TRY(st_read_f64(own, s->own, (size_t)s->n));
    if (!(clock[0] >= 1 && clock[0] <= UINT32_MAX)) return fail(ERR_FORMAT, "%g samples", clock[0]);
    for (int i = 0; i < s->n; i++) TRY(set_load(f, i, (int64_t)clock[0], s->set[i]));
    s->done = (int64_t)clock[0];
    s->seconds = clock[1];
    return ERR_OK;
}

bool eval_state_load(const char *path, struct eval_state *s)
{
    struct st_file *f;
    if (!file_exists(path)) return false;
    if (st_open(&f, path)) {
        log_warn("%s: %s; the evaluation begins anew", path, err_text());
        return false;
    }
    const char *key = st_meta(f, "pass");
    bool ours = key && !strcmp(key, s->key);
    if (ours && state_read(f, s)) {
        log_warn("%s: %s; the evaluation begins anew", path, err_text());
        for (int i = 0; i < s->n; i++) empty(s->set[i]), s->own[i] = 0;
        ours = false;
    }
    st_close(f);
    return ours;
}
