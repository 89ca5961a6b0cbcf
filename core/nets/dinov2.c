/* dinov2: a pre-norm vision transformer. The patch convolution is a product, because its windows do not overlap; the class token enters as a
 * patch of zeros whose row of the position table holds it; LayerScale is multiplied into the layer before it. */
#include "core/nets/features.h"

#include <math.h>
#include <string.h>

#include "core/ops.h"

static const double norm_eps = 1e-6;

int dinov2_hidden(const struct dinov2_config *c)
{
    return c->swiglu ? (4 * c->dim * 2 / 3 + 7) / 8 * 8 : 4 * c->dim;
}

struct build {
    struct graph *g;
    int block; /* -1: outside the blocks */
};

static struct node *param(const struct build *b, const char *name, int ndim, const int *dims)
{
    char at[96];
    if (b->block >= 0) snprintf(at, sizeof at, "blocks.%d.%s", b->block, name);
    else snprintf(at, sizeof at, "%s", name);
    return graph_param(b->g, at, ndim, dims, (struct init){.kind = INIT_ZERO});
}
static struct node *linear(const struct build *b, const char *name, struct node *x, int out)
{
    char at[2][64];
    snprintf(at[0], sizeof at[0], "%s.weight", name);
    snprintf(at[1], sizeof at[1], "%s.bias", name);
    struct node *w = param(b, at[0], 2, (int[]){out, node_channels(x)});
    return op_linear(b->g, x, w, param(b, at[1], 1, &out));
}
static struct node *norm(const struct build *b, const char *name, struct node *x)
{
    char at[2][64];
    int c = node_channels(x);
    snprintf(at[0], sizeof at[0], "%s.weight", name);
    snprintf(at[1], sizeof at[1], "%s.bias", name);
    struct node *gamma = param(b, at[0], 1, &c);
    return op_layer_norm(b->g, x, gamma, param(b, at[1], 1, &c), norm_eps);
}

void dinov2_build(struct graph *g, const struct dinov2_config *c)
{
    struct build b = {.g = g, .block = -1};
    int table = DINOV2_TOKENS * c->dim, hidden = dinov2_hidden(c);
    struct node *x = graph_input(g, "patches", DINOV2_TOKENS, 1, DINOV2_VALUES);
    x = op_linear(g, x, param(&b, "patch_embed.proj.weight", 2, (int[]){c->dim, DINOV2_VALUES}), NULL);
    x = op_add_table(g, x, param(&b, "pos_embed", 1, &table));
    for (b.block = 0; b.block < c->depth; b.block++) {
        struct node *a = linear(&b, "attn.qkv", norm(&b, "norm1", x), 3 * c->dim);
        x = op_add(g, linear(&b, "attn.proj", op_attention(g, a, c->heads), c->dim), x, 1);
        struct node *m = norm(&b, "norm2", x);
        if (c->swiglu) m = linear(&b, "mlp.w3", op_swiglu(g, linear(&b, "mlp.w12", m, 2 * hidden)), c->dim);
        else m = linear(&b, "mlp.fc2", op_gelu(g, linear(&b, "mlp.fc1", m, hidden)), c->dim);
        x = op_add(g, m, x, 1);
    }
    b.block = -1;
    graph_output(g, "features", norm(&b, "norm", op_first_pixel(g, x)));
}

/* ---- input ------------------------------------------------------------------------------------------------------------- */

void dinov2_patches(const float *chw, float *patches)
{
    memset(patches, 0, DINOV2_VALUES * sizeof *patches);
    for (int t = 0; t < DINOV2_GRID * DINOV2_GRID; t++) {
        float *to = patches + (ptrdiff_t)(t + 1) * DINOV2_VALUES;
        int y0 = t / DINOV2_GRID * DINOV2_PATCH, x0 = t % DINOV2_GRID * DINOV2_PATCH;
        for (int c = 0; c < 3; c++)
            for (int r = 0; r < DINOV2_PATCH; r++, to += DINOV2_PATCH)
                memcpy(to, chw + ((ptrdiff_t)c * DINOV2_SIDE + y0 + r) * DINOV2_SIDE + x0, DINOV2_PATCH * sizeof *to);
    }
}

/* ---- position table ---------------------------------------------------------------------------------------------------- */

struct cubic { /* four neighbours, clamped to the border, and their weights */
    int at[4];
    float w[4];
};

/* Keys' kernel with a = -0.75, coordinates in float as published: 37 / 16.1 puts them off the pixel grid's symmetric places. */
static struct cubic cubic_of(int i, int side, int grid)
{
    const float a = -0.75f;
    float scale = (float)(1.0 / ((grid + 0.1) / side)), src = scale * ((float)i + 0.5f) - 0.5f, t = src - floorf(src);
    float d[4] = {t + 1, t, 1 - t, 2 - t};
    struct cubic q;
    for (int k = 0; k < 4; k++) {
        int at = (int)floorf(src) - 1 + k;
        q.at[k] = at < 0 ? 0 : at >= side ? side - 1 : at;
        q.w[k] = d[k] <= 1 ? ((a + 2) * d[k] - (a + 3)) * d[k] * d[k] + 1
                           : ((a * d[k] - 5 * a) * d[k] + 8 * a) * d[k] - 4 * a;
    }
    return q;
}

void dinov2_positions(const float *in, int side, float *out, int grid, int dim)
{
    for (int y = 0; y < grid; y++)
        for (int x = 0; x < grid; x++) {
            struct cubic v = cubic_of(y, side, grid), u = cubic_of(x, side, grid);
            for (int k = 0; k < dim; k++) {
                double sum = 0;
                for (int i = 0; i < 4; i++)
                    for (int j = 0; j < 4; j++)
                        sum += (double)v.w[i] * u.w[j] * in[((ptrdiff_t)v.at[i] * side + u.at[j]) * dim + k];
                out[((ptrdiff_t)y * grid + x) * dim + k] = (float)sum;
            }
        }
}

/* ---- weights ------------------------------------------------------------------------------------------------------------ */

/* Row 0: class token and its position. The others: the patch convolution's bias and the interpolated position. */
static err_t table_load(const struct dinov2_config *c, const struct tensor_source *s, float *out)
{
    size_t dim = (size_t)c->dim, side = (size_t)c->trained, rows = 1 + side * side;
    err_t err = ERR_OK;
    float *pos = mem_array(rows * dim, sizeof *pos), *cls = mem_array(2 * dim, sizeof *cls), *bias = cls + dim;
    TRYD(s->get(s->ctx, "pos_embed", pos, rows * dim));
    TRYD(s->get(s->ctx, "cls_token", cls, dim));
    TRYD(s->get(s->ctx, "patch_embed.proj.bias", bias, dim));
    dinov2_positions(pos + dim, c->trained, out + dim, DINOV2_GRID, c->dim);
    for (size_t k = 0; k < dim; k++) {
        out[k] = cls[k] + pos[k];
        for (size_t t = 1; t < DINOV2_TOKENS; t++) out[t * dim + k] += bias[k];
    }
done:
    mem_free(pos);
    mem_free(cls);
    return err;
}

/* Published rows are q of all heads, then k, then v; the attention operator wants head, channel, {q, k, v}. */
static void turn_qkv(const struct dinov2_config *c, const float *in, float *out, size_t row)
{
    int ch = c->dim / c->heads;
    for (int which = 0; which < 3; which++)
        for (int i = 0; i < c->dim; i++) {
            int to = i / ch * 3 * ch + i % ch * 3 + which;
            memcpy(out + (size_t)to * row, in + ((size_t)which * (size_t)c->dim + (size_t)i) * row, row * sizeof *out);
        }
}

/* The LayerScale behind a layer, or NULL: blocks.N.attn.proj -> blocks.N.ls1.gamma, blocks.N.mlp.fc2 or w3 -> ls2. */
static const char *scale_behind(const char *name)
{
    if (strstr(name, "attn.proj.")) return "ls1.gamma";
    return strstr(name, "mlp.fc2.") || strstr(name, "mlp.w3.") ? "ls2.gamma" : NULL;
}

static err_t one_load(const struct param_info *p, const struct dinov2_config *c, const struct tensor_source *s,
                      float *out)
{
    const char *scale = scale_behind(p->name);
    size_t dim = (size_t)c->dim;
    if (!strcmp(p->name, "pos_embed")) return table_load(c, s, out);
    if (strstr(p->name, "attn.qkv.")) {
        float *v = mem_array(p->count, sizeof *v);
        err_t err = s->get(s->ctx, p->name, v, p->count);
        if (!err) turn_qkv(c, v, out, p->count / (3 * dim));
        mem_free(v);
        return err;
    }
    TRY(s->get(s->ctx, p->name, out, p->count));
    if (!scale) return ERR_OK;
    char at[96];
    int block = 0;
    if (sscanf(p->name, "blocks.%d.", &block) != 1) return fail(ERR_FAILED, "%s is in no block", p->name);
    snprintf(at, sizeof at, "blocks.%d.%s", block, scale);
    float *gamma = mem_array(dim, sizeof *gamma);
    err_t err = s->get(s->ctx, at, gamma, dim);
    size_t row = p->count / dim;
    for (size_t i = 0; i < p->count && !err; i++) out[i] *= gamma[i / row];
    mem_free(gamma);
    return err;
}

err_t dinov2_load(const struct graph *g, struct params *p, const struct dinov2_config *c, const struct tensor_source *s)
{
    for (int i = 0; i < graph_nparams(g); i++) {
        const struct param_info *info = graph_param_info(g, i);
        float *v = mem_array(info->count, sizeof *v);
        err_t err = one_load(info, c, s, v);
        if (!err) params_set(p, i, v);
        mem_free(v);
        TRY(err);
    }
    return ERR_OK;
}
