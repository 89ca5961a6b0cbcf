/* What the ledger's tests share: a fresh ledger, a run in it, a claim. */
#ifndef TESTS_DB_LAB_H
#define TESTS_DB_LAB_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "db/query.h"
#include "tests/test.h"

/* An open ledger at DIR/ect.db in a fresh directory. */
struct lab {
    char dir[256], path[300];
    struct ledger *l;
};

static inline void lab_begin(struct lab *b)
{
    test_dir(b->dir, sizeof b->dir);
    snprintf(b->path, sizeof b->path, "%s/ect.db", b->dir);
    assert_ok(ledger_open(&b->l, b->path, LEDGER_CREATE));
}

static inline void lab_end(struct lab *b)
{
    ledger_close(b->l);
    b->l = NULL;
}

/* A pending run of configuration "config-NAME". */
static inline void lab_run(struct ledger *l, const char *name, int replicate, const char *parent, char id[RUN_ID_TEXT])
{
    char canon[64], hash[SHA256_TEXT];
    bool created;
    snprintf(canon, sizeof canon, "config-%s", name);
    sha256_text(canon, strlen(canon), hash);
    struct ledger_param params[] = {
        {"iters", "500", "train", false}, {"lr", "0.0004", "train", true}, {"threads", "auto", "exec", true}};
    assert_ok(ledger_put_config(l, hash, canon, params, ARRAY_LEN(params)));
    struct ledger_run_new r = {.config_hash = hash,
                               .replicate = replicate,
                               .seed = 7,
                               .parent_run = parent,
                               .flops_nominal = 100,
                               .iters = 500};
    assert_ok(ledger_put_run(l, &r, id, &created));
}

/* Lock and claim; returns the token (0: not ours). *fd -1 if locked elsewhere. */
static inline int64_t lab_claim(struct ledger *l, const char *id, int *fd)
{
    struct ledger_claim c = {.device = "cpu", .threads = 2, .host = "here", .boot_id = "b", .pid = getpid()};
    int64_t token = 0;
    err_t err = ledger_run_lock(l, id, fd);
    if (err == ERR_STALE) return 0;
    assert_ok(err);
    assert_ok(ledger_claim(l, id, &c, &token));
    return token;
}

/* One number of one SELECT. */
static inline double lab_num(struct ledger *l, const char *sql)
{
    struct table t;
    assert_ok(query(l, &t, sql, ""));
    assert_int_equal(t.nrows, 1);
    double v = table_at(&t, 0, 0)->num;
    table_done(&t);
    return v;
}

/* All rows as "a|b\nc|d\n"; valid until the next call. */
static inline const char *lab_rows(struct ledger *l, const char *sql)
{
    static struct text s;
    struct table t;
    s.len = 0;
    text_add(&s, "");
    assert_ok(query(l, &t, sql, ""));
    for (int i = 0; i < t.nrows; i++)
        for (int j = 0; j < t.ncols; j++) text_addf(&s, "%s%s", table_at(&t, i, j)->text, j + 1 < t.ncols ? "|" : "\n");
    table_done(&t);
    return text_str(&s);
}

static inline enum run_status lab_status(struct ledger *l, const char *id)
{
    struct ledger_run r;
    assert_ok(ledger_get_run(l, id, &r));
    enum run_status s = r.status;
    ledger_run_done(&r);
    return s;
}

static inline void lab_check_file(const char *path)
{
    struct ledger *l;
    assert_ok(ledger_open(&l, path, LEDGER_READ));
    assert_string_equal(lab_rows(l, "PRAGMA integrity_check"), "ok\n");
    assert_string_equal(lab_rows(l, "PRAGMA foreign_key_check"), "");
    ledger_close(l);
}

/* In a child process: everything that fails prints and exits non-zero; the parent checks. */
#define child_need(cond)                                                                                               \
    do {                                                                                                               \
        if (!(cond)) {                                                                                                 \
            fprintf(stderr, "child: %s:%d: %s: %s\n", __FILE__, __LINE__, #cond, err_text());                          \
            _exit(9);                                                                                                  \
        }                                                                                                              \
    } while (0)

/* A child that does not outlive us: a failed test must leave no process behind. */
static inline pid_t lab_fork(void)
{
    pid_t parent = getpid(), pid = fork();
    if (!pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(9);
    }
    return pid;
}

static inline void lab_wait_ok(pid_t pid)
{
    int st;
    assert_int_equal(waitpid(pid, &st, 0), pid);
    if (!WIFEXITED(st) || WEXITSTATUS(st)) fail_msg("child ended with status 0x%x", st);
}

#endif
