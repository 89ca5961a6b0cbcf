/* golden: what the checks of the families share. A part is one printed line: some tensors of a file compared within a bound. The rule is
 * |x - out64| <= 20 f32_vs_f64 max|out64|, the noise of the published float32 run twenty times over; every other bound is in the table of
 * golden.c with its reason. */
#ifndef TESTS_GOLDEN_H
#define TESTS_GOLDEN_H

#include <jansson.h>

#include "core/graph.h"
#include "core/io/safetensors.h"
#include "core/nets.h"
#include "lua/script.h"

/* Of D where a file has no float64 twin of it: what the families of networks show on average, relative to the largest value. */
#define NET_NOISE 4e-7

enum { GOLDEN_KINDS = 64 };
struct golden {
    const struct kernels *k;
    struct kdev *dev;
    struct script *script; /* design.lua behind script_call */
    bool perturb;          /* also disturb every comparison by three bounds: it must fail */
    int passed, failed, notyet;
    int nkinds;
    struct golden_kind {
        const char *name;
        long caught, missed;
    } kinds[GOLDEN_KINDS];
};

struct gfile {
    struct golden *g;
    const char *path, *name; /* name: printed */
    struct st_file *st;
    bool *read; /* [st_count] */
};

struct part {
    struct gfile *f;
    char name[64], note[160], why[256];
    int tensors;
    long values;
    double worst; /* largest error in bounds */
    bool failed;
};
void part_begin(struct part *p, struct gfile *f, const char *fmt, ...) PRINTF(3, 4);
/* Compares n values; kind groups the comparisons that the perturbation test must see fail. */
void part_close(struct part *p, const char *kind, const char *what, const double *got, const double *want, size_t n,
                double bound);
void part_close_each(struct part *p, const char *kind, const char *what, const double *got, const double *want,
                     size_t n, double relative); /* bound of each value: relative |want| */
void part_equal(struct part *p, const char *kind, const char *what, const double *got, const double *want, size_t n);
void part_same(struct part *p, const char *kind, const char *what, const char *got, const char *want);
void part_fail(struct part *p, const char *fmt, ...) PRINTF(2, 3);
void part_note(struct part *p, const char *fmt, ...) PRINTF(2, 3);
void part_end(struct part *p);
void part_not_yet(struct gfile *f, const char *name, const char *note);

/* Tensors as doubles; mem_free. need_: absent is a failure of the part. n may be NULL. */
double *take(struct gfile *f, size_t *n, const char *fmt, ...) PRINTF(3, 4);
double *need(struct part *p, size_t *n, const char *fmt, ...) PRINTF(3, 4);
bool has_tensor(const struct gfile *f, const char *fmt, ...) PRINTF(2, 3);
json_t *meta_json(const struct gfile *f, const char *key); /* json_decref; NULL if absent or no JSON */
double json_num(const json_t *o, const char *key, double absent);
double max_abs(const double *x, size_t n);
/* What |a - b| of a float run and its twin is at most, as their median says it: one wrong value cannot widen its own bound. */
double noise_between(const double *a, const double *b, size_t n);
double noise_floor(double f32_vs_f64); /* at least half a unit in the last place of a float */
extern const double bound_factor;      /* 20 */

/* A design function of lua/ect/design.lua: f(args, s) -> one number. */
double design_call(struct part *p, const char *expr, const struct design_state *s, const double *args, int nargs);

/* The network of a file: built from metadata "config", with param/ loaded (or made by the portable formula). */
struct gnet {
    struct golden *g;
    struct net_config c;
    struct graph *graph;
    struct params *weights;
    size_t per; /* elements of an image */
};
bool gnet_open(struct gnet *n, struct part *p, double sigma_data);
bool gnet_open_at(struct gnet *n, struct part *p, double sigma_data, double sigma_min); /* of the preconditioning */
void gnet_close(struct gnet *n);
bool gnet_config(const json_t *config, double sigma_data, struct net_config *c, char why[160]);
/* [n, c, h, w] <-> the program's [n, h, w, c] on the device. */
void gnet_upload(const struct gnet *net, float *dev, const double *nchw, size_t n);
double *gnet_download(const struct gnet *net, const float *dev, size_t n);
void nhwc_from_nchw(const struct net_config *c, const double *in, double *out, size_t n);
void nchw_from_nhwc(const struct net_config *c, const double *in, double *out, size_t n);
void device_put(struct golden *g, float *dev, const double *x, size_t n);
float *device_new(struct golden *g, const double *x, size_t n); /* x NULL: zeros */
/* Class labels of a file of n images, one-hot [n, label_dim]; a row of zeros each where the file has none. NULL without classes. */
double *gnet_labels(struct part *p, const struct gnet *net, size_t n);
/* Compares a gradient arena with PREFIXgrad/NAME tensors (grad64/ where there), bound: rule with f32_vs_f64. */
void gnet_compare_grads(struct part *p, const struct gnet *net, const float *grad, const char *prefix,
                        double f32_vs_f64, const json_t *nonfinite);

/* A checkpoint written with the file's weights has the published names, order and shapes. */
void check_written(struct gfile *f, const struct gnet *net);
/* Compares the weights with PREFIXparam_after/NAME, what the forced normalisation leaves; large tensors are stored as sum, norm, first and last
 * value, in PREFIXparam_after_stat/NAME. */
void gnet_compare_weights(struct part *p, const struct gnet *net, const char *prefix);

/* One function a family. */
void check_network(struct gfile *f);
void check_ect_loss(struct gfile *f);
void check_edm_loss(struct gfile *f);
void check_ct_cd_loss(struct gfile *f);
void check_optim(struct gfile *f);
void check_ema(struct gfile *f);
void check_samplers(struct gfile *f);
void check_frechet(struct gfile *f);
void check_kd_prdc(struct gfile *f);
void check_inception(struct gfile *f);
void check_dinov2(struct gfile *f);
void check_checkpoints(struct golden *g, const char *dir, const char *shown); /* by its expect.json */
void check_flops(struct golden *g, const char *path, const char *name);

double portable_u(const char *name, uint32_t i); /* in [-0.5, 0.5): the README's formula, written here a second time */
double portable_hash(uint32_t crc, uint32_t i);  /* the same from the name's CRC-32 */

#endif
