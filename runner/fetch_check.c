/* A feature network's file is read as the metric will read it; of a checkpoint to start from only what it says it is, because the settings
 * of a run say which network it must fit. */
#include "runner/fetch_check.h"

#include <string.h>

#include "core/io/tensors.h"
#include "core/metrics/published.h"
#include "core/metrics/weights.h"
#include "core/nets/features.h"
#include "kernels/kernels.h"

static err_t check_published(const char *name, const char *path)
{
    const struct kernels *k;
    struct kdev *dev;
    TRY(kernels_find("cpu", &k));
    TRY(k->open(&dev, "cpu", 0));
    err_t err = published_check(name, path, k, dev);
    k->close(dev);
    return err;
}

/* VGG16's 13 convolutions of 3x3, each as many in as the one before has out. */
static err_t check_vgg(const struct weights *w, int64_t width[VGG_STAGES])
{
    int64_t in = 3;
    for (int s = 0; s < VGG_STAGES; s++)
        for (int i = 0; i < vgg_depth[s]; i++) {
            char name[64];
            int64_t d[8];
            snprintf(name, sizeof name, "features.%d.weight", vgg_index(s, i));
            int n = weights_dims(w, name, d);
            if (n < 0) return fail(ERR_FORMAT, "no VGG16: there is no tensor '%s'", name);
            if (n != 4 || d[1] != in || d[2] != 3 || d[3] != 3)
                return fail(ERR_FORMAT, "no VGG16: '%s' has another shape", name);
            in = width[s] = d[0];
            snprintf(name, sizeof name, "features.%d.bias", vgg_index(s, i));
            if (weights_dims(w, name, d) != 1 || d[0] != in)
                return fail(ERR_FORMAT, "no VGG16: '%s' is missing or has another shape", name);
        }
    return ERR_OK;
}

/* LPIPS's five weightings of channels; VGG16 may be in the same file. */
static err_t check_lpips(const struct weights *w)
{
    int64_t width[VGG_STAGES] = {64, 128, 256, 512, 512}, d[8];
    if (weights_dims(w, "features.0.weight", d) >= 0) TRY(check_vgg(w, width));
    for (int s = 0; s < VGG_STAGES; s++) {
        char name[64];
        snprintf(name, sizeof name, "lin%d.weight", s);
        int n = weights_dims(w, name, d);
        if (n < 0) {
            snprintf(name, sizeof name, "lin%d.model.1.weight", s);
            n = weights_dims(w, name, d);
        }
        int64_t count = n < 0 ? 0 : 1;
        for (int i = 0; i < n; i++) count *= d[i];
        if (count != width[s])
            return fail(ERR_FORMAT, "not LPIPS's weights for VGG: '%s' %s", name,
                        n < 0 ? "is missing" : "has another shape");
    }
    return ERR_OK;
}

static err_t check_vggs(const char *name, const char *path)
{
    struct weights *w;
    int64_t width[VGG_STAGES];
    TRY(weights_open(&w, path));
    err_t err = strcmp(name, "vgg16") ? check_lpips(w) : check_vgg(w, width);
    weights_close(w);
    return err;
}

/* EDM's and EDM2's networks, as pickles of theirs or as a state_dict under their names. */
static err_t check_diffusion(const char *path)
{
    struct tensors *f;
    bool found = false;
    TRY(tensors_open(&f, path));
    for (int i = 0; i < tensors_count(f) && !found; i++) found = strstr(tensors_at(f, i)->name, "enc.") != NULL;
    tensors_close(f);
    return found ? ERR_OK : fail(ERR_FORMAT, "no network of EDM or EDM2: none of its tensors has a name like 'enc.'");
}

static err_t check_any(const char *path)
{
    struct tensors *f;
    TRY(tensors_open(&f, path));
    int n = tensors_count(f);
    tensors_close(f);
    return n ? ERR_OK : fail(ERR_FORMAT, "there are no tensors in it");
}

err_t fetch_check(const struct fetch_row *row, const char *path)
{
    const char *name = row->name;
    if (row->kind != FETCH_WEIGHTS) return ERR_OK;
    if (published_exists(name)) return check_published(name, path);
    if (!strcmp(name, "vgg16") || !strcmp(name, "lpips-vgg")) return check_vggs(name, path);
    if (!strncmp(name, "edm", 3)) return check_diffusion(path);
    return check_any(path);
}
