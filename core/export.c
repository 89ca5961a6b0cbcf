/* What load_state_dict takes, and what made it. */
#include "core/export.h"

#include <string.h>

#include "core/io/safetensors.h"

static void add_ints(struct text *out, const char *key, const int *v, int n)
{
    text_addf(out, ", \"%s\": [", key);
    for (int i = 0; i < n; i++) text_addf(out, "%s%d", i ? ", " : "", v[i]);
    text_add(out, "]");
}

static void add_songunet(struct text *out, const struct net_config *c)
{
    static const char *const coders[] = {"standard", "skip", "residual"};
    static const int plain[] = {1, 1};
    text_addf(
        out,
        ", \"embedding_type\": \"%s\", \"channel_mult_noise\": %d, \"encoder_type\": \"%s\", \"decoder_type\": \"%s\"",
        c->fourier ? "fourier" : "positional", c->noise_mult, coders[c->encoder], coders[c->decoder]);
    if (c->nfilter) add_ints(out, "resample_filter", c->filter, c->nfilter);
    else add_ints(out, "resample_filter", plain, 2);
}

void export_config(const struct net_config *c, struct text *out)
{
    static const struct {
        const char *family, *module;
    } modules[] = {{"songunet", "SongUNet"}, {"adm", "DhariwalUNet"}};
    char num[NUM_TEXT];
    bool edm2 = !strcmp(c->family, "edm2");
    text_addf(out, "{\"img_resolution\": %d, \"img_channels\": %d, \"label_dim\": %d, \"sigma_data\": %s",
              c->resolution, c->in_channels, c->label_dim, num_text(num, c->sigma_data));
    for (size_t i = 0; i < ARRAY_LEN(modules); i++)
        if (!strcmp(modules[i].family, c->family)) text_addf(out, ", \"model_type\": \"%s\"", modules[i].module);
    text_addf(out, ", \"model_channels\": %d, \"num_blocks\": %d", c->width, c->blocks);
    add_ints(out, "channel_mult", c->mult, c->nmult);
    add_ints(out, "attn_resolutions", c->attn, c->nattn);
    if (!edm2 || c->emb_mult) text_addf(out, ", \"channel_mult_emb\": %d", c->emb_mult);
    if (!edm2) text_addf(out, ", \"augment_dim\": %d", c->augment_dim);
    if (!strcmp(c->family, "songunet")) add_songunet(out, c);
    if (edm2) {
        text_addf(out, ", \"channels_per_head\": %d, \"clip_act\": %s", c->head, num_text(num, c->clip));
        if (c->noise_mult) text_addf(out, ", \"channel_mult_noise\": %d", c->noise_mult);
        if (c->logvar) text_addf(out, ", \"logvar_channels\": %d", c->logvar_channels);
    }
    text_add(out, "}");
}

static void add_meta(struct st_writer *w, const struct export_about *a)
{
    struct text t = {0};
    char num[NUM_TEXT], hash[SHA256_TEXT];
    st_writer_meta(w, "format", "ect-weights-1");
    st_writer_meta(w, "version", ECT_VERSION);
    st_writer_meta(w, "family", a->net->family);
    export_config(a->net, &t);
    st_writer_meta(w, "config", text_str(&t));
    text_done(&t);
    spec_canon(a->spec, SPEC_TRAIN, &t);
    st_writer_meta(w, "spec", text_str(&t));
    text_done(&t);
    spec_hash(a->spec, hash);
    st_writer_meta(w, "config_hash", hash);
    st_writer_meta(w, "run", a->run);
    st_writer_meta(w, "weights", a->weights);
    snprintf(num, sizeof num, "%lld", (long long)a->step);
    st_writer_meta(w, "step", num);
}

err_t export_weights(const char *path, const struct graph *g, const struct params *p, const struct export_about *about)
{
    struct st_writer *w = st_writer_new();
    add_meta(w, about);
    for (int i = 0; i < graph_nparams(g); i++) {
        const struct param_info *info = graph_param_info(g, i);
        int64_t dims[4];
        float *values = mem_array(info->count + 1, sizeof *values);
        for (int k = 0; k < info->ndim; k++) dims[k] = info->dims[k];
        params_get(p, i, values);
        st_writer_add(w, info->name, ST_F32, info->ndim, dims, values);
        mem_free(values);
    }
    err_t err = st_writer_save(w, path);
    st_writer_free(w);
    return err;
}
