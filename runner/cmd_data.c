/* data: the data sets of this machine. What is imported becomes one file in the data directory, opened by name from then on. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/io/dataset_store.h"
#include "core/io/image.h"
#include "core/io/import.h"
#include "core/io/points.h"
#include "runner/fetch_data.h"
#include "runner/runner.h"

static void shape_text(const struct dataset *d, char *out, size_t size)
{
    if (d->values) snprintf(out, size, "%d values", d->w * d->c);
    else snprintf(out, size, "%dx%dx%d", d->h, d->w, d->c);
}

/* ---- ls ----------------------------------------------------------------------------------------------------------------- */

static void ls_line(const char *name, int width)
{
    struct dataset *d;
    char shape[48];
    if (dataset_open(&d, name)) {
        printf("%-*s  %s\n", width, name, err_text());
        return;
    }
    shape_text(d, shape, sizeof shape);
    printf("%-*s  %8d  %-11s  %5d  %.12s  %s\n", width, name, d->n, shape, d->nclasses, d->sha,
           d->file     ? "imported"
           : d->values ? "drawn"
                       : "shipped");
    dataset_free(d);
}

static json_t *data_json(const struct dataset *d)
{
    json_t *j = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:f, s:s}", "name", d->name, "n", d->n, "h", d->h, "w", d->w,
                          "c", d->c, "classes", d->nclasses, "std", d->std, "sha", d->sha);
    static const char *const texts[] = {"form", "source", "codec", "how"};
    if (d->attribution) json_object_set_new(j, "attribution", json_string(d->attribution));
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        if (dataset_about(d, texts[i])) json_object_set_new(j, texts[i], json_string(dataset_about(d, texts[i])));
    if (d->file) {
        char *path = dataset_path(d->name);
        json_object_set_new(j, "path", json_string(path));
        mem_free(path);
    }
    json_t *names = d->class_names ? json_array() : NULL;
    for (int i = 0; names && i < d->nclasses; i++) json_array_append_new(names, json_string(d->class_names[i]));
    if (names) json_object_set_new(j, "class_names", names);
    return j;
}

static void print_json(json_t *j)
{
    char *s = json_dumps(j, JSON_INDENT(1));
    puts(s ? s : "null");
    free(s);
    json_decref(j);
}

/* The names of all: built in, then imported. mem_free each and the list. */
static err_t all_names(char ***out, int *n)
{
    char **stored, **all;
    int nstored, have = 0, built = 1;
    TRY(dataset_list(&stored, &nstored));
    while (points_sources[built - 1].name) built++;
    all = mem_array((size_t)(nstored + built), sizeof *all);
    all[have++] = mem_strdup("digits");
    for (int i = 0; points_sources[i].name; i++) all[have++] = mem_strdup(points_sources[i].name);
    for (int i = 0; i < nstored; i++) all[have++] = stored[i];
    mem_free(stored);
    *out = all, *n = have;
    return ERR_OK;
}

static err_t data_ls(struct args *a)
{
    char **names, *dir = dataset_dir();
    int n = 0, width = 4;
    json_t *list = args_has(a, "json") ? json_array() : NULL;
    err_t err = all_names(&names, &n);
    for (int i = 0; i < n; i++)
        if ((int)strlen(names[i]) > width) width = (int)strlen(names[i]);
    if (!err && !list) printf("%-*s  %8s  %-11s  %5s  %-12s\n", width, "name", "images", "shape", "class", "sha");
    for (int i = 0; i < n; i++) {
        struct dataset *d;
        if (!list) ls_line(names[i], width);
        else if (dataset_open(&d, names[i]))
            json_array_append_new(list, json_pack("{s:s, s:s}", "name", names[i], "error", err_text()));
        else {
            json_array_append_new(list, data_json(d));
            dataset_free(d);
        }
        mem_free(names[i]);
    }
    if (!err) mem_free(names);
    if (!err && list) print_json(list);
    else if (!err) printf("imported ones are in %s\n", dir);
    mem_free(dir);
    return err;
}

/* ---- show, check, rm ------------------------------------------------------------------------------------------------------- */

static void show_classes(const struct dataset *d)
{
    int *count = mem_array((size_t)d->nclasses, sizeof *count), least = d->n, most = 0;
    for (int i = 0; i < d->n; i++) count[d->labels[i]]++;
    for (int i = 0; i < d->nclasses; i++) {
        if (count[i] < least) least = count[i];
        if (count[i] > most) most = count[i];
    }
    printf("classes      %d, of %d to %d images\n", d->nclasses, least, most);
    for (int i = 0; d->class_names && i < d->nclasses && i < 20; i++)
        printf("%s%s", i ? ", " : "             ", d->class_names[i]);
    if (d->class_names) printf("%s\n", d->nclasses > 20 ? ", ..." : "");
    mem_free(count);
}

static err_t data_show(struct args *a)
{
    static const char *const texts[][2] = {
        {"form", "read from"}, {"source", "path"}, {"codec", "codec"}, {"how", "changed by"}};
    struct dataset *d;
    char shape[48];
    TRY(dataset_open(&d, a->pos[1]));
    if (args_has(a, "json")) {
        print_json(data_json(d));
        dataset_free(d);
        return ERR_OK;
    }
    shape_text(d, shape, sizeof shape);
    printf("name         %s\n%-12s %d of %s\n", d->name, d->values ? "points" : "images", d->n, shape);
    if (d->nclasses) show_classes(d);
    printf("std          %.6f\nsha          %s\n", d->std, d->sha);
    if (d->attribution) printf("by           %s\n", d->attribution);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        if (dataset_about(d, texts[i][0])) printf("%-12s %s\n", texts[i][1], dataset_about(d, texts[i][0]));
    if (d->file) {
        char *path = dataset_path(d->name);
        printf("file         %s\n", path);
        mem_free(path);
    }
    dataset_free(d);
    return ERR_OK;
}

static err_t check_one(const char *name)
{
    struct dataset *d;
    TRY(dataset_open(&d, name));
    err_t err = dataset_verify(d);
    if (!err) printf("%s: %d images hash to %.16s... as they should\n", name, d->n, d->sha);
    dataset_free(d);
    return err;
}

static err_t data_check(struct args *a)
{
    char **names;
    int n;
    if (a->npos > 1) return check_one(a->pos[1]);
    TRY(dataset_list(&names, &n));
    err_t err = ERR_OK;
    for (int i = 0; i < n; i++) {
        if (!err) err = check_one(names[i]);
        mem_free(names[i]);
    }
    mem_free(names);
    return err;
}

static err_t data_rm(struct args *a)
{
    const char *name = a->pos[1];
    if (dataset_built_in(name)) return fail(ERR_USAGE, "%s is built in: nothing to remove", name);
    TRY(dataset_name_check(name));
    char *path = dataset_path(name);
    err_t err = ERR_OK;
    if (!unlink(path)) printf("removed %s\n", path);
    else if (errno == ENOENT) err = fail(ERR_NOT_FOUND, "no data set %s: there is no %s", name, path);
    else err = fail(ERR_IO, "remove %s: %s", path, strerror(errno));
    mem_free(path);
    return err;
}

/* ---- import ------------------------------------------------------------------------------------------------------------------ */

static void told(void *ctx, int done, int total)
{
    (void)ctx;
    fprintf(stderr, "\r%d of %d images%s", done, total, done == total ? "\n" : "");
}

static void said(const struct import_result *r, const char *path)
{
    printf("%s %s: %d images of %dx%dx%d", r->had ? "had already" : "imported", r->name, r->n, r->h, r->w, r->c);
    if (r->nclasses) printf(", %d classes", r->nclasses);
    printf("\nread from    %s (%s)\nstd          %.6f\nsha          %s\nfile         %s\n", path, r->kind, r->std,
           r->sha, r->path);
    if (r->rest) printf("the test images were left out: --split all takes both\n");
    if (r->jpeg)
        printf("made from JPEGs: another data set than an original without their losses; its numbers stand for "
               "themselves\n");
    printf("train on it with --set data=%s\n", r->name);
}

static err_t import_path(const struct args *a, const char *path, const char *name)
{
    struct import_options o = {.name = name,
                               .split = args_get(a, "split"),
                               .attribution = args_get(a, "attribution"),
                               .crop = args_has(a, "crop"),
                               .box = args_has(a, "box"),
                               .replace = args_has(a, "replace"),
                               .unlabelled = args_has(a, "no-labels"),
                               .progress = isatty(STDERR_FILENO) ? told : NULL};
    struct import_result r;
    int64_t size = 0, channels = 0, threads = 0;
    TRY(args_int(a, "size", 1, 16384, &size));
    TRY(args_int(a, "channels", 1, 3, &channels));
    TRY(args_int(a, "threads", 1, 64, &threads));
    o.size = (int)size, o.channels = (int)channels, o.threads = (int)threads;
    TRY(import_data(path, &o, &r));
    said(&r, path);
    mem_free(r.path);
    return ERR_OK;
}

static err_t data_import(struct args *a)
{
    const char *path = a->pos[1], *name = args_get(a, "name");
    size_t n = strlen(path);
    struct unpacked u;
    bool tar = (n > 7 && !strcmp(path + n - 7, ".tar.gz")) || (n > 4 && !strcmp(path + n - 4, ".tgz"));
    if (!tar) return import_path(a, path, name);
    TRY(archive_unpack(&u, path));
    err_t err = import_path(a, u.path, name);
    unpacked_done(&u);
    return err;
}

/* ---- get --------------------------------------------------------------------------------------------------------------------- */

/* Under its own name the whole training set is stored, and nothing that was changed on the way. */
static err_t data_get(struct args *a)
{
    static const char *const changes[] = {"size", "crop", "channels", "split", "no-labels"};
    const struct fetch_row *row = fetch_find(FETCH_DATA, a->pos[1]);
    const char *name = args_get(a, "name");
    struct fetch_opts o = {.url = args_get(a, "url"), .quiet = args_has(a, "quiet")};
    int64_t silence = 0, tries = 0;
    struct unpacked u;
    struct dataset *d;
    if (!row) return fetch_unknown(FETCH_DATA, a->pos[1]);
    TRY(args_int(a, "timeout", 1, 3600, &silence));
    TRY(args_int(a, "tries", 1, 1000, &tries));
    o.silence_s = (int)silence, o.tries = (int)tries;
    bool changed = false;
    for (size_t i = 0; i < ARRAY_LEN(changes); i++) changed = changed || args_has(a, changes[i]);
    if (changed && !name)
        return fail(ERR_USAGE, "data get: what is changed on the way needs a name of its own: --name NAME");
    if (!name) name = row->name;
    if (!args_has(a, "replace") && dataset_open_stored(&d, name) == ERR_OK) {
        printf("%s is there already: %d images of %dx%dx%d (`ect data show %s`)\n", name, d->n, d->h, d->w, d->c, name);
        dataset_free(d);
        return ERR_OK;
    }
    TRY(fetch_data(&u, row, &o));
    err_t err = import_path(a, u.path, name);
    unpacked_done(&u);
    return err;
}

/* One directory a class, where there are labels. */
static err_t folder_write(const struct dataset *d, const char *dir)
{
    size_t per = (size_t)d->h * (size_t)d->w * (size_t)d->c;
    err_t err = dir_make(dir);
    for (int k = 0; k < d->nclasses && !err; k++) {
        char *class = d->class_names ? mem_printf("%s/%s", dir, d->class_names[k]) : mem_printf("%s/%d", dir, k);
        err = dir_make(class);
        mem_free(class);
    }
    for (int i = 0; i < d->n && !err; i++) {
        struct text path = {0};
        text_addf(&path, "%s/", dir);
        if (d->labels && d->class_names) text_addf(&path, "%s/", d->class_names[d->labels[i]]);
        else if (d->labels) text_addf(&path, "%d/", d->labels[i]);
        text_addf(&path, "%06d.png", i);
        err = png_write(path.s, d->pixels + (size_t)i * per, d->h, d->w, d->c);
        text_done(&path);
    }
    return err;
}

static err_t data_export(struct args *a)
{
    struct dataset *d;
    const char *out = a->pos[2], *dot = strrchr(out, '.');
    err_t err = ERR_OK;
    if (dot && strchr(dot, '/')) dot = NULL;
    if (dot && strcmp(dot, ".zip") && strcmp(dot, ".npz"))
        return fail(ERR_USAGE, "%s: .zip (a data set as EDM reads it), .npz, or a directory without a dot in its name",
                    out);
    TRY(dataset_open(&d, a->pos[1]));
    if (!d->pixels) err = fail(ERR_USAGE, "%s: points, not pictures", d->name);
    else if (!dot) err = folder_write(d, out);
    else if (!strcmp(dot, ".zip")) err = zip_write_images(out, d->pixels, d->labels, d->n, d->h, d->w, d->c);
    else err = npz_write_images(out, d->pixels, d->labels, d->n, d->h, d->w, d->c);
    if (!err) printf("wrote %s: %d images of %s\n", out, d->n, d->name);
    dataset_free(d);
    return err;
}

static const struct {
    const char *name, *arg;
    int least, most; /* of further arguments */
    err_t (*run)(struct args *a);
} verbs[] = {{"ls", "", 0, 0, data_ls},
             {"show", " NAME", 1, 1, data_show},
             {"get", " NAME", 1, 1, data_get},
             {"import", " PATH", 1, 1, data_import},
             {"export", " NAME OUT", 2, 2, data_export},
             {"check", " [NAME]", 0, 1, data_check},
             {"rm", " NAME", 1, 1, data_rm}};

static err_t data_command(struct args *a)
{
    const char *names[ARRAY_LEN(verbs)], *verb = a->npos ? a->pos[0] : "ls";
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        names[i] = verbs[i].name;
        if (strcmp(verb, verbs[i].name) != 0) continue;
        int more = a->npos ? a->npos - 1 : 0;
        if (more < verbs[i].least || more > verbs[i].most)
            return fail(ERR_USAGE, "usage: ect data %s%s", verb, verbs[i].arg);
        return verbs[i].run(a);
    }
    const char *near = nearest_name(verb, names, ARRAY_LEN(verbs));
    return fail(ERR_USAGE, "data: no '%s'%s%s%s (ls, show, get, import, export, check, rm)", verb,
                near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

static const struct opt data_opts[] = {
    {"name", 0, "NAME", "what to call it (default: from the path)"},
    {"size", 0, "N", "N x N pixels, each the mean of the area it covers"},
    {"box", 0, NULL, "only whole pixels in a mean: N must divide the side"},
    {"crop", 0, NULL, "the square in the middle first"},
    {"channels", 0, "1|3", "grey or colour (default: as they are, all alike)"},
    {"split", 0, "NAME", "train (default), test or all, where there is a choice"},
    {"no-labels", 0, NULL, "leave the labels out"},
    {"attribution", 0, "TEXT", "whose data these are"},
    {"threads", 0, "N", "decoders (default: twice the cores)"},
    {"replace", 0, NULL, "put it in place of another data set of that name"},
    {"url", 0, "URL", "get: from this https:// address, a mirror"},
    {"timeout", 0, "SECONDS", "get: a server that is silent for so long failed (30)"},
    {"tries", 0, "N", "get: attempts in a row that bring nothing new (5)"},
    {"quiet", 'q', NULL, "get: no bar"},
    OPT_JSON,
    OPT_END};
const struct command cmd_data = {
    .name = "data",
    .args = "[ls|show NAME|get NAME|import PATH|export NAME OUT|check [NAME]|rm NAME]",
    .help = "data sets: list, show, download, import, export, check, remove",
    .min_pos = 0,
    .max_pos = 3,
    .opts = data_opts,
    .more =
        "get fetches cifar10 from its publisher (the archive stays in $XDG_CACHE_HOME/ect, else ~/.cache/ect) and "
        "imports it.\n"
        "import reads, by several threads: a directory with one directory a class, of PNG or JPEG files; a zip of\n"
        "pictures with the dataset.json of EDM and EDM2; the unpacked CIFAR-10 or CIFAR-100, python or binary "
        "version;\n"
        "MNIST's IDX files; an .npz with uint8 images [n, h, w, c] and labels; .tar.gz archives of any of these. "
        "Nothing in a "
        "file\n"
        "is run; a damaged picture is named; an import that fails leaves nothing behind.\n"
        "\n"
        "A data set is one file NAME.safetensors in $ECT_DATA, else $XDG_DATA_HOME/ect/data, else\n"
        "~/.local/share/ect/data, known by the hash of its shape, pixels and labels. One made from JPEGs has another\n"
        "hash than its original, and statistics of the two never meet.\n"
        "\n"
        "export writes a .zip as EDM reads it, an .npz, or a directory with one directory a class.\n"
        "\n"
        "  ect data import cifar-10-batches-py\n"
        "  ect data import cifar-10-batches-py --size 16 --box --name cifar10-16\n"
        "  ect data import imagenet/train --crop --size 64 --channels 3 --name imagenet64",
    .run = data_command};
