#include "runner/pictures.h"
#include "db/query.h"

#include <string.h>

#include "core/io/image.h"
#include "core/io/points.h"

enum { PICTURE_POINTS = 2000, PICTURE_SIDE = 160 }; /* of a scatter plot */
#define PICTURE_HALF 2.6                            /* its plane is [-half, half]^2 */

err_t picture_png(const uint8_t *px, int n, int h, int w, int c, void **png, size_t *size)
{
    uint8_t *grid;
    int gh, gw, zoom = h >= 32 ? 2 : 4;
    image_grid(px, n, h, w, c, PICTURE_COLS, zoom, PICTURE_GAP, &grid, &gh, &gw);
    err_t err = png_encode(grid, gh, gw, c, png, size);
    mem_free(grid);
    return err;
}

err_t picture_points_png(const double *x, int n, void **png, size_t *size)
{
    uint8_t *px = mem_alloc((size_t)PICTURE_SIDE * PICTURE_SIDE);
    image_scatter(x, n, PICTURE_HALF, PICTURE_SIDE, px);
    err_t err = png_encode(px, PICTURE_SIDE, PICTURE_SIDE, 1, png, size);
    mem_free(px);
    return err;
}

/* One picture: what is sampled, with which weights. */
struct picture {
    char role[48], nearest[48]; /* nearest "": none */
    const struct spec *eval;    /* NULL: the data */
    int nfe;
};
enum { PICTURES = 16 };

/* The distinct (sampler, nfe) of a cell's evaluation sets; one-step and n-step samples of a tuned model also get their nearest. */
static int pictures_of(const struct script_cell *c, struct picture *p)
{
    int n = 0;
    bool tuned = strcmp(c->spec.target.s, "edm") != 0, points = points_find(c->spec.data.s) != NULL;
    if (!tuned || (points && !strcmp(c->spec.target.s, "flow"))) p[n++] = (struct picture){.role = "grid:data"};
    for (int e = 0; e < c->nevals; e++)
        for (int i = 0; i < c->evals[e].eval_nfe.n && n < PICTURES; i++) {
            struct picture x = {.eval = &c->evals[e], .nfe = (int)c->evals[e].eval_nfe.v[i]};
            bool ect = !strcmp(x.eval->eval_sampler.s, "ect"), seen = false;
            snprintf(x.role, sizeof x.role, ect ? "grid:%.16s@%d" : "grid:%.16s%d", x.eval->eval_sampler.s, x.nfe);
            if (ect && tuned && !points) snprintf(x.nearest, sizeof x.nearest, "grid:nearest@%d", x.nfe);
            for (int k = 0; k < n; k++) seen |= !strcmp(p[k].role, x.role);
            if (!seen) p[n++] = x;
        }
    return n;
}

static bool has_role(struct ledger *l, const char *run_id, const char *role)
{
    struct table t = {0};
    if (query(l, &t, "SELECT 1 FROM v_artifact WHERE run = ? AND role = ?", "ss", run_id, role)) return false;
    bool has = t.nrows > 0;
    table_done(&t);
    return has;
}

bool pictures_missing(struct ledger *l, const char *run_id, const struct script_cell *c)
{
    struct picture p[PICTURES];
    int n = pictures_of(c, p);
    for (int i = 0; i < n; i++)
        if (!has_role(l, run_id, p[i].role)) return true;
    return false;
}

/* Takes the picture. */
static err_t put_png(struct lab *b, const char *run_id, const char *role, void *png, size_t size)
{
    char sha[SHA256_TEXT];
    err_t err = ledger_put_blob(b->ledger, png, size, "image/png", sha);
    mem_free(png);
    if (err) return err;
    return ledger_put_artifact(b->ledger, run_id, role, sha);
}

static err_t put_picture(struct lab *b, const char *run_id, const char *role, const uint8_t *px,
                         const struct dataset *d)
{
    void *png;
    size_t size;
    TRY(picture_png(px, PICTURE_IMAGES, d->h, d->w, d->c, &png, &size));
    return put_png(b, run_id, role, png, size);
}

static void pick(const struct dataset *d, const int32_t *index, uint8_t *px)
{
    size_t per = (size_t)d->h * (size_t)d->w * (size_t)d->c;
    for (int i = 0; i < PICTURE_IMAGES; i++) memcpy(px + (size_t)i * per, d->pixels + (size_t)index[i] * per, per);
}

static err_t draw(struct lab *b, struct sampling *s, const char *run_id, const char *ckpt_dir, const struct picture *p,
                  double *x, uint8_t *px)
{
    const struct dataset *d = s->data;
    int32_t index[PICTURE_IMAGES];
    uint32_t seeds[PICTURE_IMAGES];
    for (int i = 0; i < PICTURE_IMAGES; i++)
        index[i] = (int32_t)((int64_t)i * d->n / PICTURE_IMAGES), seeds[i] = (uint32_t)i;
    if (!p->eval) {
        pick(d, index, px);
        return put_picture(b, run_id, p->role, px, d);
    }
    struct eval_request q;
    TRY(eval_request_init(&q, s->spec, p->eval, "fd_pixel", p->nfe));
    TRY(sampling_load(s, ckpt_dir, s->spec->iters, p->eval->eval_ema.s));
    TRY(eval_samples(s->eval, s->params, &q, q.seed, seeds, PICTURE_IMAGES, x));
    image_view_u8(x, px, (size_t)PICTURE_IMAGES * (size_t)d->h * (size_t)d->w * (size_t)d->c);
    TRY(put_picture(b, run_id, p->role, px, d));
    if (!*p->nearest) return ERR_OK;
    eval_nearest(d, x, PICTURE_IMAGES, index);
    pick(d, index, px);
    return put_picture(b, run_id, p->nearest, px, d);
}

static err_t draw_points(struct lab *b, struct sampling *s, const char *run_id, const char *ckpt_dir,
                         const struct picture *p)
{
    const struct dataset *d = s->data;
    int n = d->n < PICTURE_POINTS ? d->n : PICTURE_POINTS;
    void *png;
    size_t size;
    err_t err = ERR_OK;
    double *x = mem_array((size_t)n * (size_t)d->c, sizeof *x);
    uint32_t *seeds = mem_array((size_t)n, sizeof *seeds);
    for (int i = 0; i < n; i++) seeds[i] = (uint32_t)i;
    if (p->eval) {
        struct eval_request q;
        TRYD(eval_request_init(&q, s->spec, p->eval, "energy", p->nfe));
        TRYD(sampling_load(s, ckpt_dir, s->spec->iters, p->eval->eval_ema.s));
        TRYD(eval_samples(s->eval, s->params, &q, q.seed, seeds, n, x));
    } else {
        for (int i = 0; i < n * d->c; i++) x[i] = (double)d->values[i];
    }
    TRYD(picture_points_png(x, n, &png, &size));
    err = put_png(b, run_id, p->role, png, size);
done:
    mem_free(seeds);
    mem_free(x);
    return err;
}

err_t pictures_run(struct lab *b, struct sampling *s, const char *run_id, const char *ckpt_dir,
                   const struct script_cell *c)
{
    struct picture p[PICTURES];
    const struct dataset *d = s->data;
    size_t count = (size_t)PICTURE_IMAGES * (size_t)d->h * (size_t)d->w * (size_t)d->c;
    double *x = mem_array(count, sizeof *x);
    uint8_t *px = mem_array(count, 1);
    int n = pictures_of(c, p);
    err_t err = ERR_OK;
    for (int i = 0; i < n && !err; i++)
        err = d->values ? draw_points(b, s, run_id, ckpt_dir, &p[i]) : draw(b, s, run_id, ckpt_dir, &p[i], x, px);
    mem_free(x);
    mem_free(px);
    return err;
}
