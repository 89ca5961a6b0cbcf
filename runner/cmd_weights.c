/* weights: the published networks that metrics and starting points need: what there is, getting them, adding a file by hand, checking. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "core/io/tensors.h"
#include "core/metrics/weights.h"
#include "runner/fetch.h"
#include "runner/fetch_check.h"
#include "runner/runner.h"

static const char *const endings[] = {"safetensors", "pth", "pt", "pkl", "npz"};
enum { COPY_AT_ONCE = 1 << 20 };

/* ---- files of a name ------------------------------------------------------------------------------------------------ */

static const char *base_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Where the name's file is, or NULL; mem_free. */
static char *installed(const char *name)
{
    char *path = NULL;
    return weights_find(name, &path) == ERR_OK ? path : NULL;
}

/* Removes the files of a name but `keep` (or NULL), with their records. */
static err_t remove_others(const char *dir, const char *name, const char *keep, int *removed)
{
    err_t err = ERR_OK;
    *removed = 0;
    for (size_t i = 0; i < ARRAY_LEN(endings) && !err; i++) {
        char *file = mem_printf("%s.%s", name, endings[i]), *path = mem_printf("%s/%s", dir, file);
        if ((!keep || strcmp(keep, file)) && file_exists(path)) {
            if (unlink(path)) err = fail(ERR_IO, "remove %s: %s", path, strerror(errno));
            else err = sums_set(dir, file, NULL);
            ++*removed;
        }
        mem_free(file);
        mem_free(path);
    }
    return err;
}

static err_t row_of(const char *name, const struct fetch_row **row)
{
    *row = fetch_find(FETCH_WEIGHTS, name);
    return *row ? ERR_OK : fetch_unknown(FETCH_WEIGHTS, name);
}

/* ---- ls ------------------------------------------------------------------------------------------------------------- */

static void list_row(const struct fetch_row *r, json_t *list)
{
    char *path = installed(r->name), size[NUM_TEXT];
    uint64_t bytes = r->size;
    FILE *f = path ? fopen(path, "rb") : NULL;
    if (f) {
        if (fseeko(f, 0, SEEK_END) == 0) bytes = (uint64_t)ftello(f);
        fclose(f);
    }
    if (list)
        json_array_append_new(list,
                              json_pack("{s:s, s:b, s:s?, s:I, s:s, s:s?, s:s, s:s}", "name", r->name, "installed",
                                        path != NULL, "path", path, "bytes", (json_int_t)bytes, "url", r->url, "sha256",
                                        r->sha256, "use", r->use, "licence", r->licence));
    else
        printf("%-4s %-23s %8s  %s (%s)\n", path ? "ok" : "--", r->name, bytes ? human_bytes(size, (double)bytes) : "",
               r->use, r->licence);
    mem_free(path);
}

static err_t weights_ls(struct args *a)
{
    json_t *list = args_has(a, "json") ? json_array() : NULL;
    for (const struct fetch_row *r = fetch_rows; r->name; r++)
        if (r->kind == FETCH_WEIGHTS) list_row(r, list);
    if (list) {
        json_dumpf(list, stdout, JSON_INDENT(1));
        putchar('\n');
        json_decref(list);
    } else {
        char *dir = weights_dir();
        printf("in %s; `ect weights get NAME` gets one, `ect weights add NAME FILE` takes a file brought by hand\n",
               dir);
        mem_free(dir);
    }
    return ERR_OK;
}

/* ---- get ------------------------------------------------------------------------------------------------------------ */

static err_t get_one(const struct fetch_row *row, const struct fetch_opts *o)
{
    char *dir = weights_dir(), *path = installed(row->name);
    struct fetch_got got = {0};
    err_t err = ERR_OK;
    if (path && strcmp(base_of(path), row->file)) { /* of another form, so brought by hand */
        printf("%s is there, added by hand: %s (`ect weights rm %s` removes it)\n", row->name, path, row->name);
        goto done;
    }
    TRYD(fetch_get(row, dir, o, fetch_check, &got));
    printf("%s %s: %s\n     SHA-256 %s, %s; licence: %s\n", row->name, got.here ? "is there" : "is installed", got.path,
           got.sha256,
           row->sha256    ? "the publisher's"
           : got.recorded ? "recorded now: no published hash is known, so this first file is what later ones must equal"
                          : "as recorded at first",
           row->licence);
done:
    mem_free(got.path);
    mem_free(path);
    mem_free(dir);
    return err;
}

/* The table's row, with what the command line adds. */
static err_t row_wanted(const struct args *a, const char *name, struct fetch_row *row)
{
    const char *sha = args_get(a, "sha256");
    const struct fetch_row *known;
    TRY(row_of(name, &known));
    *row = *known;
    if (!sha) return ERR_OK;
    if (strlen(sha) != SHA256_TEXT - 1 || strspn(sha, "0123456789abcdefABCDEF") != SHA256_TEXT - 1)
        return fail(ERR_USAGE, "--sha256 %s: not 64 hexadecimal digits", sha);
    if (row->sha256 && strcasecmp(sha, row->sha256))
        return fail(ERR_USAGE, "--sha256: the published %s has the SHA-256 %s", name, row->sha256);
    row->sha256 = sha;
    return ERR_OK;
}

static err_t weights_get_verb(struct args *a)
{
    int64_t silence = 0, tries = 0;
    struct fetch_opts o = {.url = args_get(a, "url"), .quiet = args_has(a, "quiet")};
    TRY(args_int(a, "timeout", 1, 3600, &silence));
    TRY(args_int(a, "tries", 1, 1000, &tries));
    o.silence_s = (int)silence, o.tries = (int)tries;
    if (a->npos < 2) return fail(ERR_USAGE, "usage: ect weights get NAME... (`ect weights ls` lists the names)");
    if ((o.url || args_has(a, "sha256")) && a->npos > 2)
        return fail(ERR_USAGE, "--url and --sha256 are of one file: give one name");
    for (int i = 1; i < a->npos; i++) {
        struct fetch_row row;
        TRY(row_wanted(a, a->pos[i], &row));
        TRY(get_one(&row, &o));
        if (row.also && !o.url) TRY(get_one(fetch_find(FETCH_WEIGHTS, row.also), &o));
    }
    return ERR_OK;
}

/* ---- add ------------------------------------------------------------------------------------------------------------ */

static err_t copy_hashed(const char *from, const char *to, char sha[SHA256_TEXT])
{
    struct sha256 s;
    uint8_t digest[SHA256_BYTES];
    char *buf = mem_alloc(COPY_AT_ONCE);
    err_t err = ERR_OK;
    int in = open(from, O_RDONLY | O_CLOEXEC), out = -1;
    sha256_init(&s);
    if (in < 0) TRYD(fail(ERR_IO, "open %s: %s", from, strerror(errno)));
    out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (out < 0) TRYD(fail(ERR_IO, "open %s: %s", to, strerror(errno)));
    for (;;) {
        ssize_t n = read(in, buf, COPY_AT_ONCE);
        if (n < 0) TRYD(fail(ERR_IO, "read %s: %s", from, strerror(errno)));
        if (n == 0) break;
        sha256_add(&s, buf, (size_t)n);
        for (ssize_t done = 0, k; done < n; done += k) {
            k = write(out, buf + done, (size_t)(n - done));
            if (k <= 0) TRYD(fail(ERR_IO, "write %s: %s", to, strerror(k < 0 ? errno : ENOSPC)));
        }
    }
    if (fsync(out)) TRYD(fail(ERR_IO, "sync %s: %s", to, strerror(errno)));
    sha256_end(&s, digest);
    sha256_hex(digest, sha);
done:
    if (in >= 0) close(in);
    if (out >= 0) close(out);
    mem_free(buf);
    return err;
}

/* The ending that says how a file is written, from its bytes. */
static err_t ending_of(const char *path, const char **end)
{
    struct tensors *f;
    TRY(tensors_open(&f, path));
    const char *kind = tensors_kind(f);
    *end = !strcmp(kind, "safetensors") ? "safetensors"
           : !strcmp(kind, "npz")       ? "npz"
           : !strcmp(kind, "pickle")    ? "pkl"
           : !strncmp(kind, "torch", 5) ? "pth"
                                        : NULL;
    err_t err = *end ? ERR_OK : fail(ERR_FORMAT, "%s: a file of kind %s holds no network", path, kind);
    tensors_close(f);
    return err;
}

static err_t weights_add(struct args *a)
{
    const struct fetch_row *row;
    char *dir = NULL, *tmp = NULL, *file = NULL, *path = NULL, sha[SHA256_TEXT];
    const char *end = NULL;
    int removed;
    err_t err;
    if (a->npos != 3) return fail(ERR_USAGE, "usage: ect weights add NAME FILE");
    TRY(row_of(a->pos[1], &row));
    dir = weights_dir();
    tmp = mem_printf("%s/%s.add-%ld", dir, row->name, (long)getpid());
    TRYD(dir_make(dir));
    TRYD(copy_hashed(a->pos[2], tmp, sha));
    err = ending_of(tmp, &end);
    if (!err) err = fetch_check(row, tmp); /* the copy is what is looked at: it is what will be used */
    if (err) TRYD(fail_in(err, "%s was not added as %s", a->pos[2], row->name));
    file = mem_printf("%s.%s", row->name, end);
    path = mem_printf("%s/%s", dir, file);
    if (rename(tmp, path)) TRYD(fail(ERR_IO, "rename %s to %s: %s", tmp, path, strerror(errno)));
    TRYD(sums_set(dir, file, sha));
    TRYD(remove_others(dir, row->name, file, &removed));
    printf("%s is installed: %s\n     SHA-256 %s, %s\n", row->name, path, sha,
           !row->sha256                   ? "recorded; no published hash is known"
           : strcasecmp(row->sha256, sha) ? "which is not the published file's: results name the hash of the weights"
                                          : "the publisher's");
done:
    if (err && tmp) unlink(tmp);
    mem_free(dir);
    mem_free(tmp);
    mem_free(file);
    mem_free(path);
    return err;
}

/* ---- check, rm ------------------------------------------------------------------------------------------------------- */

static err_t check_one(const char *dir, const struct fetch_row *row, const char *path, int *bad)
{
    char sha[SHA256_TEXT], recorded[SHA256_TEXT];
    TRY(sha256_file(path, sha));
    TRY(sums_find(dir, base_of(path), recorded));
    if (*recorded && strcasecmp(recorded, sha)) {
        ++*bad;
        printf("BAD  %-20s %s: SHA-256 %s, and recorded was %s\n", row->name, path, sha, recorded);
        return ERR_OK;
    }
    if (!*recorded) TRY(sums_set(dir, base_of(path), sha));
    printf("ok   %-20s %s: %s\n", row->name, path,
           row->sha256 && !strcasecmp(row->sha256, sha) ? "the publisher's file"
           : !*recorded                                 ? "was not recorded yet; now it is"
           : row->sha256                                ? "as it was added, which is not the publisher's file"
                                                        : "as recorded at first; no published hash is known");
    return ERR_OK;
}

static err_t weights_check(struct args *a)
{
    const struct fetch_row *only = NULL;
    char *dir = weights_dir(), *path = NULL;
    int bad = 0, n = 0;
    err_t err = ERR_OK;
    if (a->npos > 1) {
        TRYD(row_of(a->pos[1], &only));
        TRYD(weights_find(only->name, &path));
        mem_free(path);
    }
    for (const struct fetch_row *r = fetch_rows; r->name && !err; r++) {
        if (r->kind != FETCH_WEIGHTS || (only && r != only)) continue;
        path = installed(r->name);
        if (path) n++, err = check_one(dir, r, path, &bad);
        mem_free(path);
    }
    if (err) goto done;
    if (!n) printf("no weights are in %s\n", dir);
    if (bad)
        err = fail(ERR_FORMAT,
                   "%d of %d files of weights are not what they were: `ect weights get NAME` gets one again", bad, n);
done:
    mem_free(dir);
    return err;
}

static err_t weights_rm(struct args *a)
{
    const struct fetch_row *row;
    char *dir;
    int removed;
    if (a->npos != 2) return fail(ERR_USAGE, "usage: ect weights rm NAME");
    TRY(row_of(a->pos[1], &row));
    dir = weights_dir();
    err_t err = remove_others(dir, row->name, NULL, &removed);
    static const char *const rests[] = {"part", "part.from"};
    for (size_t i = 0; i < ARRAY_LEN(rests) && !err; i++) {
        char *path = mem_printf("%s/%s.%s", dir, row->file, rests[i]);
        if (unlink(path) == 0) removed++;
        mem_free(path);
    }
    if (!err && !removed) err = fail(ERR_NOT_FOUND, "the weights '%s' are not in %s", row->name, dir);
    if (!err) printf("removed %s\n", row->name);
    mem_free(dir);
    return err;
}

/* ---- the command ------------------------------------------------------------------------------------------------------ */

static err_t weights_command(struct args *a)
{
    static const struct {
        const char *name;
        err_t (*run)(struct args *a);
    } verbs[] = {{"ls", weights_ls},
                 {"get", weights_get_verb},
                 {"add", weights_add},
                 {"check", weights_check},
                 {"rm", weights_rm}};
    const char *names[ARRAY_LEN(verbs)];
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        if (!strcmp(a->pos[0], verbs[i].name)) return verbs[i].run(a);
        names[i] = verbs[i].name;
    }
    const char *near = nearest_name(a->pos[0], names, ARRAY_LEN(names));
    return fail(ERR_USAGE, "ect weights has no '%s'%s%s (there are ls, get, add, check, rm)", a->pos[0],
                near ? "; did you mean " : "", near ? near : "");
}

static const struct opt weights_opts[] = {
    {"url", 0, "URL", "get: from this https:// address, a mirror; the hash stays what it must be"},
    {"sha256", 0, "HEX", "get: refuse a file with another SHA-256"},
    {"timeout", 0, "SECONDS", "get: give up on a server that is silent for so long (30)"},
    {"tries", 0, "N", "get: attempts in a row that bring nothing new (5)"},
    {"quiet", 'q', NULL, "get: no bar"},
    OPT_JSON,
    OPT_END};
const struct command cmd_weights = {
    .name = "weights",
    .args = "ls | get NAME... | add NAME FILE | check [NAME] | rm NAME",
    .help = "the published networks that metrics and starting points need",
    .min_pos = 1,
    .max_pos = -1,
    .opts = weights_opts,
    .more = "get fetches from the publisher, over HTTPS only, goes on where an earlier attempt was broken off, and "
            "installs "
            "a file once its\n"
            "SHA-256 is the published one; where none is known, the first file's is recorded and later ones must equal "
            "it.\n"
            "add takes a file that was brought by hand (safetensors, .pth, .pkl, .npz), if it is that network.\n"
            "check hashes everything again. Files are in $ECT_WEIGHTS, else $XDG_DATA_HOME/ect/weights, else\n"
            "~/.local/share/ect/weights, with their hashes in SHA256SUMS. $ECT_CA_FILE names a file of certificate "
            "authorities to\n"
            "trust in place of the system's.",
    .run = weights_command};
