#include "core/eval_space.h"

#include <string.h>

struct space {
    struct space *next;
    const struct spaces *all;
    char name[METRIC_NAME];
    struct extractor *x;
    struct feature_set ref;
    float *feat; /* [batch, dim] */
};

struct spaces {
    const struct dataset *ref;
    int batch;
    size_t per;
    const struct kernels *k;
    struct kdev *dev;
    struct space *first;
    uint8_t *px; /* [batch, per] */
};

struct spaces *spaces_new(const struct dataset *ref, int batch, const struct kernels *k, struct kdev *dev)
{
    struct spaces *s = mem_alloc(sizeof *s);
    *s = (struct spaces){
        .ref = ref, .batch = batch, .per = (size_t)ref->h * (size_t)ref->w * (size_t)ref->c, .k = k, .dev = dev};
    s->px = mem_array((size_t)batch * s->per, 1);
    return s;
}

static void space_free(struct space *s)
{
    extractor_free(s->x);
    feature_set_done(&s->ref);
    mem_free(s->feat);
    mem_free(s);
}

void spaces_free(struct spaces *s)
{
    if (!s) return;
    for (struct space *p = s->first, *next; p; p = next) {
        next = p->next;
        space_free(p);
    }
    mem_free(s->px);
    mem_free(s);
}

int space_dim(const struct space *s)
{
    return extractor_dim(s->x);
}
const struct feature_set *space_reference(const struct space *s)
{
    return &s->ref;
}

err_t space_add(struct space *s, struct feature_set *to, const uint8_t *px, int n)
{
    for (int at = 0; at < n; at += s->all->batch) {
        int take = n - at < s->all->batch ? n - at : s->all->batch;
        TRY(extractor_run(s->x, px + (size_t)at * s->all->per, take, s->feat));
        feature_set_add(to, s->feat, take);
    }
    return ERR_OK;
}

err_t space_add_data(struct space *s, struct feature_set *to, const uint32_t *idx, int n)
{
    const struct spaces *a = s->all;
    if (!idx) return space_add(s, to, a->ref->pixels, n);
    for (int at = 0; at < n; at += a->batch) {
        int take = n - at < a->batch ? n - at : a->batch;
        for (int i = 0; i < take; i++)
            memcpy(a->px + (size_t)i * a->per, a->ref->pixels + idx[at + i] * a->per, a->per);
        TRY(space_add(s, to, a->px, take));
    }
    return ERR_OK;
}

/* Reference features; made again with their rows where a metric needs those and an earlier one did not. */
static err_t reference_make(struct space *s, bool keep)
{
    if (s->ref.n && (s->ref.keep || !keep)) return ERR_OK;
    feature_set_done(&s->ref);
    TRY(feature_set_init(&s->ref, extractor_dim(s->x), keep));
    return space_add_data(s, &s->ref, NULL, s->all->ref->n);
}

err_t spaces_get(struct spaces *s, const struct metric *m, bool reference, struct space **out)
{
    struct space *p = s->first;
    while (p && strcmp(p->name, m->space) != 0) p = p->next;
    if (!p) {
        p = mem_alloc(sizeof *p);
        p->all = s;
        strcpy(p->name, m->space);
        err_t err = extractor_new(&p->x, m->space, s->ref->h, s->ref->w, s->ref->c, s->batch, s->k, s->dev);
        if (err) {
            space_free(p);
            return fail_in(err, "metric %s", m->name);
        }
        p->feat = mem_array((size_t)s->batch * (size_t)extractor_dim(p->x), sizeof *p->feat);
        p->next = s->first;
        s->first = p;
    }
    *out = p;
    return reference ? reference_make(p, metric_needs_rows(m)) : ERR_OK;
}
