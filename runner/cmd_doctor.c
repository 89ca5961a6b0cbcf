/* doctor: what this program found on this machine, and what is missing and why. */
#include <jansson.h>
#include <string.h>

#include "core/io/dataset.h"
#include "core/metrics/weights.h"
#include "core/spec.h"
#include "kernels/kernels.h"
#include "lua/script.h"
#include "runner/machine.h"
#include "runner/runner.h"

struct findings {
    json_t *o;
};

static void found(struct findings *f, const char *what, bool good, const char *text)
{
    json_object_set_new(f->o, what, json_pack("{s:b,s:s}", "ok", good, "found", text));
}

static void find_device(struct findings *f, const char *spec)
{
    const struct kernels *k;
    struct kdev *dev;
    char name[64];
    snprintf(name, sizeof name, "device %s", spec);
    err_t err = kernels_find(spec, &k);
    if (!err) err = k->open(&dev, spec, 0);
    if (err) {
        found(f, name, false, err_text());
        return;
    }
    found(f, name, true, k->describe(dev));
    k->close(dev);
}

static void find_data(struct findings *f, const char *name)
{
    struct dataset *d;
    char key[96], text[256];
    snprintf(key, sizeof key, "data %s", name);
    if (dataset_open(&d, name)) {
        found(f, key, false, err_text());
        return;
    }
    snprintf(text, sizeof text, "%d images %dx%dx%d, %d classes, std %.4f, sha %.12s", d->n, d->h, d->w, d->c,
             d->nclasses, d->std, d->sha);
    found(f, key, true, text);
    dataset_free(d);
}

static void find_ledger(struct findings *f, const struct args *a)
{
    struct ledger *l = NULL;
    struct table t = {0};
    char text[512];
    const char *path = args_ledger(a);
    if (!file_exists(path)) {
        snprintf(text, sizeof text, "none yet at %.400s", path);
        found(f, "ledger", true, text);
        return;
    }
    err_t err = ledger_open(&l, path, LEDGER_READ);
    if (!err) err = query(l, &t, "SELECT count(*), sum(status = 'done') FROM v_run", "");
    if (!err) {
        snprintf(text, sizeof text, "%.400s: %s runs, %s done", path, table_at(&t, 0, 0)->text,
                 table_at(&t, 0, 1)->kind == CELL_NULL ? "0" : table_at(&t, 0, 1)->text);
        table_done(&t);
    }
    found(f, "ledger", !err, err ? err_text() : text);
    ledger_close(l);
}

/* Feature networks whose weights files metrics need. */
static void find_weights(struct findings *f)
{
    static const struct {
        const char *name, *metrics;
    } all[] = {
        {"inception", "fid:pytorch, kid:pytorch; fid:nvidia (unverified: never compared with NVIDIA's own numbers)"},
        {"dinov2-vitl14", "fd_dinov2, kd_dinov2, precision_dinov2, ..."},
        {"lpips-vgg", "metric = lpips"}};
    char key[64], text[600];
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        char *path;
        bool here = weights_find(all[i].name, &path) == ERR_OK;
        snprintf(key, sizeof key, "weights %s", all[i].name);
        if (here) snprintf(text, sizeof text, "%.300s: %s", path, all[i].metrics);
        else snprintf(text, sizeof text, "not installed (ect weights get %s); for %s", all[i].name, all[i].metrics);
        found(f, key, here, text);
        mem_free(path);
    }
}

static err_t doctor_run(struct args *a)
{
    struct findings f = {json_object()};
    char buf[512];
    snprintf(buf, sizeof buf, "ect %s, numerics %d", ECT_VERSION, SPEC_NUMERICS);
    found(&f, "program", true, buf);
    machine_cpu(buf, sizeof buf);
    found(&f, "cpu", true, buf);
    machine_isa(buf, sizeof buf);
    found(&f, "isa", true, buf);
    snprintf(buf, sizeof buf, "%d usable", machine_cores());
    found(&f, "cores", true, buf);
    find_device(&f, "cpu");
    find_device(&f, "cpu-portable");
    find_device(&f, "cuda");
    snprintf(buf, sizeof buf, "SQLite %s", ledger_library());
    found(&f, "database", true, buf);
    found(&f, "scripts", true, script_library());
    bool gnuplot = machine_program("gnuplot", buf, sizeof buf);
    found(&f, "gnuplot", gnuplot, gnuplot ? buf : "not in PATH: reports have no figures (apt-get install gnuplot-nox)");
    bool git = machine_program("git", buf, sizeof buf);
    found(&f, "git", git, git ? buf : "not in PATH: the revision of scripts is not recorded");
    find_data(&f, "digits");
    find_weights(&f);
    find_ledger(&f, a);
    if (args_has(a, "json")) {
        json_dumpf(f.o, stdout, JSON_INDENT(1));
        putchar('\n');
    } else {
        const char *key;
        json_t *v;
        json_object_foreach(f.o, key, v) printf("%-4s %-22s %s\n", json_is_true(json_object_get(v, "ok")) ? "ok" : "--",
                                                key, json_string_value(json_object_get(v, "found")));
    }
    json_decref(f.o);
    return ERR_OK;
}

static const struct opt doctor_opts[] = {OPT_LEDGER, OPT_JSON, OPT_END};
const struct command cmd_doctor = {.name = "doctor",
                                   .args = "",
                                   .help = "what was found on this machine, and what is missing",
                                   .opts = doctor_opts,
                                   .run = doctor_run};
