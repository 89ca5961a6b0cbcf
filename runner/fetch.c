/* One table of addresses, data only; a file is accepted when its hash is the table's, else the recorded one, else any. */
#include "runner/fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <unistd.h>

#include "runner/http.h"
#include "runner/runner.h"

/* clang-format off */
#define DINOV2(size, sha, bytes, use)                                                                                  \
    {"dinov2-" size, FETCH_WEIGHTS, "dinov2-" size ".pth",                                                              \
     "https://dl.fbaipublicfiles.com/dinov2/dinov2_" size "/dinov2_" size "_pretrain.pth", sha, bytes, use,             \
     "Apache 2.0", NULL}
#define EDM(name, file, use)                                                                                           \
    {"edm-" name, FETCH_WEIGHTS, "edm-" name ".pkl", "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/edm-" file ".pkl", \
     NULL, 0, use, "CC BY-NC-SA 4.0", NULL}
#define EDM2(size, file)                                                                                               \
    {"edm2-img64-" size, FETCH_WEIGHTS, "edm2-img64-" size ".pkl",                                                      \
     "https://nvlabs-fi-cdn.nvidia.com/edm2/posthoc-reconstructions/edm2-img64-" file ".pkl", NULL, 0,                  \
     "init: EDM2 on ImageNet 64x64, the EMA best by FID", "CC BY-NC-SA 4.0", NULL}

const struct fetch_row fetch_rows[] = {
    {"inception", FETCH_WEIGHTS, "inception.pth",
     "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
     "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2", 95628359, "fid, kid", "Apache 2.0", NULL},
    DINOV2("vits14", "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9", 88283115, "fd_dinov2-vits14"),
    DINOV2("vitb14", "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73", 346378731, "fd_dinov2-vitb14"),
    DINOV2("vitl14", "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428", 1217586395,
           "fd_dinov2, kd_dinov2, precision_dinov2"),
    DINOV2("vitg14", NULL, 0, "fd_dinov2-vitg14"),
    {"lpips-vgg", FETCH_WEIGHTS, "lpips-vgg.pth",
     "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/vgg.pth",
     "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868", 0, "metric = lpips", "BSD 2-clause", "vgg16"},
    {"vgg16", FETCH_WEIGHTS, "vgg16.pth", "https://download.pytorch.org/models/vgg16-397923af.pth",
     "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0", 553433881, "metric = lpips, with lpips-vgg",
     "BSD 3-clause", NULL},
    EDM("cifar10-uncond-vp", "cifar10-32x32-uncond-vp", "init: EDM on CIFAR-10, DDPM++"),
    EDM("cifar10-cond-vp", "cifar10-32x32-cond-vp", "init: EDM on CIFAR-10 with classes, DDPM++"),
    EDM("cifar10-uncond-ve", "cifar10-32x32-uncond-ve", "init: EDM on CIFAR-10, NCSN++"),
    EDM("cifar10-cond-ve", "cifar10-32x32-cond-ve", "init: EDM on CIFAR-10 with classes, NCSN++"),
    EDM("ffhq-uncond-vp", "ffhq-64x64-uncond-vp", "init: EDM on FFHQ 64x64, DDPM++"),
    EDM("ffhq-uncond-ve", "ffhq-64x64-uncond-ve", "init: EDM on FFHQ 64x64, NCSN++"),
    EDM("afhqv2-uncond-vp", "afhqv2-64x64-uncond-vp", "init: EDM on AFHQv2 64x64, DDPM++"),
    EDM("afhqv2-uncond-ve", "afhqv2-64x64-uncond-ve", "init: EDM on AFHQv2 64x64, NCSN++"),
    EDM("imagenet-cond-adm", "imagenet-64x64-cond-adm", "init: EDM on ImageNet 64x64 with classes, ADM"),
    EDM2("s", "s-1073741-0.075"),
    EDM2("m", "m-2147483-0.060"),
    EDM2("l", "l-1073741-0.040"),
    EDM2("xl", "xl-0671088-0.040"),
    {"cifar10", FETCH_DATA, "cifar-10-binary.tar.gz", "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
     "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd", 170052171,
     "60,000 pictures of 32x32, 10 classes (A. Krizhevsky, 2009)", "none stated by the publisher", NULL},
    {NULL, FETCH_DATA, NULL, NULL, NULL, 0, NULL, NULL, NULL}};
/* clang-format on */

enum { NAMES_MOST = 64 };

/* The publishers' file names say the size of the pictures, which the names here leave out. */
static bool same_name(const char *row, const char *given)
{
    static const char *const sizes[] = {"-32x32", "-64x64"};
    if (!strcmp(row, given)) return true;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        const char *at = strstr(given, sizes[i]);
        if (!at) continue;
        size_t n = (size_t)(at - given);
        if (!strncmp(row, given, n) && !strcmp(row + n, at + strlen(sizes[i]))) return true;
    }
    return false;
}

const struct fetch_row *fetch_find(enum fetch_kind kind, const char *name)
{
    for (const struct fetch_row *r = fetch_rows; r->name; r++)
        if (r->kind == kind && same_name(r->name, name)) return r;
    return NULL;
}

err_t fetch_unknown(enum fetch_kind kind, const char *name)
{
    const char *names[NAMES_MOST];
    size_t n = 0;
    struct text all = {0};
    for (const struct fetch_row *r = fetch_rows; r->name; r++) {
        if (r->kind != kind) continue;
        text_addf(&all, "%s%s", n ? ", " : "", r->name);
        names[n++] = r->name;
    }
    const char *near = nearest_name(name, names, n);
    err_t err = near ? fail(ERR_USAGE, "no address is known for '%s'; did you mean %s?", name, near)
                     : fail(ERR_USAGE, "no address is known for '%s' (there are %s)", name, text_str(&all));
    text_done(&all);
    return err;
}

/* ---- the record of hashes ----------------------------------------------------------------------------------------- */

static char *sums_path(const char *dir)
{
    return mem_printf("%s/SHA256SUMS", dir);
}

static bool sums_line(const char *line, size_t n, const char *file)
{
    size_t head = SHA256_TEXT - 1 + 2;
    return n == head + strlen(file) && !strncmp(line + head, file, n - head);
}

/* Calls for every line; lines hold no newline. */
static void sums_copy(const char *text, const char *file, char found[SHA256_TEXT], struct text *others)
{
    while (text && *text) {
        size_t n = strcspn(text, "\n");
        if (sums_line(text, n, file)) snprintf(found, SHA256_TEXT, "%.*s", SHA256_TEXT - 1, text);
        else if (n && others) text_addf(others, "%.*s\n", (int)n, text);
        text += n + (text[n] == '\n');
    }
}

err_t sums_find(const char *dir, const char *file, char sha256[SHA256_TEXT])
{
    char *path = sums_path(dir), *text = NULL;
    size_t n;
    err_t err = ERR_OK;
    sha256[0] = 0;
    if (file_exists(path)) err = file_read(path, 1 << 20, &text, &n);
    if (!err) sums_copy(text, file, sha256, NULL);
    mem_free(path);
    mem_free(text);
    return err;
}

/* Under a lock of the directory: two processes that get two files both add a line. */
err_t sums_set(const char *dir, const char *file, const char *sha256)
{
    char *path = sums_path(dir), *text = NULL, old[SHA256_TEXT];
    size_t n;
    struct text all = {0};
    err_t err = ERR_OK;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) TRYD(fail(ERR_IO, "open %s: %s", dir, strerror(errno)));
    if (flock(fd, LOCK_EX)) TRYD(fail(ERR_IO, "lock %s: %s", dir, strerror(errno)));
    if (file_exists(path)) TRYD(file_read(path, 1 << 20, &text, &n));
    sums_copy(text, file, old, &all);
    if (sha256) text_addf(&all, "%s  %s\n", sha256, file);
    TRYD(file_write_atomic(path, text_str(&all), all.len));
done:
    if (fd >= 0) close(fd);
    text_done(&all);
    mem_free(path);
    mem_free(text);
    return err;
}

/* ---- getting one -------------------------------------------------------------------------------------------------- */

/* The hash that binds: the publisher's, else the recorded one, else "". */
static err_t wanted(const struct fetch_row *row, const char *dir, char sha256[SHA256_TEXT])
{
    if (!row->sha256) return sums_find(dir, row->file, sha256);
    snprintf(sha256, SHA256_TEXT, "%s", row->sha256);
    return ERR_OK;
}

/* Is it there, and right? */
static err_t look(const struct fetch_row *row, const char *want, const char *dir, struct fetch_got *got)
{
    if (!file_exists(got->path)) return ERR_OK;
    TRY(sha256_file(got->path, got->sha256));
    if (*want && strcasecmp(want, got->sha256)) {
        log_warn("%s is there, but its SHA-256 is %.12s... and should be %.12s...: it is fetched again", got->path,
                 got->sha256, want);
        return ERR_OK;
    }
    got->here = true;
    got->recorded = !*want;
    return sums_set(dir, row->file, got->sha256);
}

static err_t advise(err_t err, const struct fetch_row *row, const char *url)
{
    if (err == ERR_INTERRUPTED || err == ERR_USAGE) return err;
    char *why = mem_strdup(err_text());
    err = row->kind == FETCH_WEIGHTS
              ? fail(err, "%s\n     Without a network: get %s elsewhere, then `ect weights add %s FILE`", why, url,
                     row->name)
              : fail(err, "%s\n     Without a network: get %s elsewhere, then `ect data import %s --name %s`", why, url,
                     row->file, row->name);
    mem_free(why);
    return err;
}

struct checking {
    const struct fetch_row *row;
    err_t (*check)(const struct fetch_row *row, const char *path);
};
static err_t call_check(void *ctx, const char *path)
{
    struct checking *c = ctx;
    return c->check ? c->check(c->row, path) : ERR_OK;
}

err_t fetch_get(const struct fetch_row *row, const char *dir, const struct fetch_opts *o,
                err_t (*check)(const struct fetch_row *row, const char *path), struct fetch_got *got)
{
    const char *url = o->url ? o->url : row->url;
    char want[SHA256_TEXT];
    struct checking checking = {row, check};
    struct http_opts h = {.label = row->name,
                          .size = row->size,
                          .silence_s = o->silence_s,
                          .tries = o->tries,
                          .quiet = o->quiet,
                          .check = call_check,
                          .ctx = &checking};
    struct http_got r;
    err_t err;
    *got = (struct fetch_got){.path = mem_printf("%s/%s", dir, row->file)};
    TRYD(dir_make(dir));
    do {
        TRYD(wanted(row, dir, want));
        TRYD(look(row, want, dir, got));
        if (got->here) goto done;
        h.sha256 = *want ? want : NULL;
        err = http_get(url, got->path, &h, &r);
        if (err) TRYD(advise(err, row, url));
    } while (r.by_other); /* then it is looked at like any that is there */
    memcpy(got->sha256, r.sha256, SHA256_TEXT);
    got->recorded = !*want;
    TRYD(sums_set(dir, row->file, got->sha256));
done:
    if (err) {
        mem_free(got->path);
        got->path = NULL;
    }
    return err;
}
