/* What can be wrong with a place or a file, and that nothing recorded is lost by it. */
#include "tests/db/lab.h"

#include <sqlite3.h>
#include <sys/file.h>
#include <sys/resource.h>

static void write_file(const char *path, const void *p, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    fclose(f);
}

static void plain_sql(const char *path, const char *sql)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static const enum ledger_mode modes[] = {LEDGER_READ, LEDGER_WRITE, LEDGER_CREATE};

/* The file must be byte for byte what it was, and nothing may lie beside it. */
static void refuse_in_all_modes(const char *dir, const char *path, err_t want, const char *says)
{
    char before[SHA256_TEXT], after[SHA256_TEXT], beside[320];
    struct ledger *l;
    struct stat st;
    (void)dir;
    assert_ok(sha256_file(path, before));
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        assert_err(want, ledger_open(&l, path, modes[i]));
        assert_null(l);
        assert_has(err_text(), says);
        assert_has(err_text(), path);
        assert_ok(sha256_file(path, after));
        assert_string_equal(before, after);
    }
    snprintf(beside, sizeof beside, "%s-wal", path);
    assert_int_equal(stat(beside, &st), -1);
}

static void a_newer_ledger(void **state)
{
    (void)state;
    struct lab b;
    lab_begin(&b);
    lab_end(&b);
    plain_sql(b.path,
              "PRAGMA journal_mode = DELETE; CREATE TABLE was AS SELECT user_version AS v FROM pragma_user_version;"
              "PRAGMA user_version = 99");
    refuse_in_all_modes(b.dir, b.path, ERR_NEWER, "newer");
    assert_has(err_text(), "99");
    char back[64];
    sqlite3 *db;
    sqlite3_stmt *st;
    assert_int_equal(sqlite3_open(b.path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT v FROM was", -1, &st, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(st), SQLITE_ROW);
    snprintf(back, sizeof back, "PRAGMA user_version = %d; DROP TABLE was", sqlite3_column_int(st, 0));
    sqlite3_finalize(st);
    sqlite3_close(db);
    plain_sql(b.path, back);
    assert_ok(ledger_open(&b.l, b.path, LEDGER_WRITE));
    lab_end(&b);
}

static void not_a_ledger(void **state)
{
    (void)state;
    char dir[256], path[300];
    struct ledger *l;
    test_dir(dir, sizeof dir);
    snprintf(path, sizeof path, "%s/text.db", dir);
    write_file(path, "hello, this is a text file and no database at all\n", 50);
    refuse_in_all_modes(dir, path, ERR_FORMAT, "not a ledger");
    snprintf(path, sizeof path, "%s/short.db", dir);
    write_file(path, "SQLite", 6);
    refuse_in_all_modes(dir, path, ERR_FORMAT, "not a ledger");
    snprintf(path, sizeof path, "%s/head.db", dir);
    char page[4096] = "SQLite format 3";
    memset(page + 16, 0xee, sizeof page - 16);
    write_file(path, page, sizeof page);
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) assert_err(ERR_FORMAT, ledger_open(&l, path, modes[i]));
    snprintf(path, sizeof path, "%s/other.db", dir);
    plain_sql(path, "CREATE TABLE mine(x); INSERT INTO mine VALUES(1)");
    refuse_in_all_modes(dir, path, ERR_FORMAT, "not a ledger");
    snprintf(path, sizeof path, "%s/app.db", dir);
    plain_sql(path, "PRAGMA application_id = 77; PRAGMA user_version = 1; CREATE TABLE mine(x)");
    refuse_in_all_modes(dir, path, ERR_FORMAT, "not a ledger");
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        assert_err(ERR_FORMAT, ledger_open(&l, dir, modes[i]));
        assert_has(err_text(), "not a regular file");
    }
}

static void an_empty_or_absent_file(void **state)
{
    (void)state;
    char dir[256], path[300];
    struct ledger *l;
    test_dir(dir, sizeof dir);
    snprintf(path, sizeof path, "%s/none.db", dir);
    assert_err(ERR_NOT_FOUND, ledger_open(&l, path, LEDGER_READ));
    assert_has(err_text(), "--ledger");
    assert_err(ERR_NOT_FOUND, ledger_open(&l, path, LEDGER_WRITE));
    assert_false(file_exists(path));
    snprintf(path, sizeof path, "%s/empty.db", dir);
    write_file(path, "", 0);
    assert_err(ERR_FORMAT, ledger_open(&l, path, LEDGER_READ));
    assert_has(err_text(), "empty");
    assert_err(ERR_FORMAT, ledger_open(&l, path, LEDGER_WRITE));
    assert_ok(ledger_open(&l, path, LEDGER_CREATE));
    ledger_close(l);
    lab_check_file(path);
    snprintf(path, sizeof path, "%s/deep/er/ect.db", dir);
    assert_ok(ledger_open(&l, path, LEDGER_CREATE));
    ledger_close(l);
    lab_check_file(path);
}

/* Killed between creating the file and the end of the first migration: the next one goes on. */
static void a_creation_that_was_cut_short(void **state)
{
    (void)state;
    char dir[256], path[300];
    struct ledger *l;
    test_dir(dir, sizeof dir);
    snprintf(path, sizeof path, "%s/ect.db", dir);
    plain_sql(path, "PRAGMA journal_mode = WAL; CREATE TABLE t(x); DROP TABLE t");
    assert_err(ERR_FORMAT, ledger_open(&l, path, LEDGER_READ));
    assert_ok(ledger_open(&l, path, LEDGER_CREATE));
    ledger_close(l);
    lab_check_file(path);
}

/* Permissions do not bind root, so the unwritable places are ones that nobody can write. */
static void an_unwritable_place(void **state)
{
    (void)state;
    char dir[256], path[300];
    struct ledger *l;
    test_dir(dir, sizeof dir);
    snprintf(path, sizeof path, "%s/file", dir);
    write_file(path, "x", 1);
    snprintf(path, sizeof path, "%s/file/ect.db", dir);
    assert_err(ERR_IO, ledger_open(&l, path, LEDGER_CREATE));
    assert_has(err_text(), "cannot be written");
    assert_err(ERR_NOT_FOUND, ledger_open(&l, path, LEDGER_WRITE));
    assert_err(ERR_IO, ledger_open(&l, "/proc/ect.db", LEDGER_CREATE));
    assert_has(err_text(), "--ledger");
    if (geteuid() != 0) {
        snprintf(path, sizeof path, "%s/ect.db", dir);
        assert_int_equal(chmod(dir, 0500), 0);
        assert_err(ERR_IO, ledger_open(&l, path, LEDGER_CREATE));
        assert_int_equal(chmod(dir, 0700), 0);
    }
}

/* In a child that is nobody, if we are root: permissions bind it. */
static void nobody_reads_but_cannot_write(const char *path)
{
    struct ledger *l;
    if (geteuid() == 0) child_need(!setgid(65534) && !setuid(65534));
    child_need(ledger_open(&l, path, LEDGER_WRITE) == ERR_IO);
    child_need(strstr(err_text(), "cannot be written"));
    child_need(ledger_open(&l, path, LEDGER_CREATE) == ERR_IO);
    child_need(!ledger_open(&l, path, LEDGER_READ));
    struct table t;
    child_need(!query(l, &t, "SELECT count(*) FROM v_run", "") && table_at(&t, 0, 0)->num == 1);
    table_done(&t);
    child_need(!query_user(l, &t, "SELECT rundir FROM v_run", 5));
    table_done(&t);
    ledger_close(l);
    _exit(0);
}

/* A finished ledger on a read-only medium can be read, though SQLite could not make its shared memory there. */
static void a_directory_that_is_read_only(void **state)
{
    (void)state;
    struct lab b;
    char id[RUN_ID_TEXT];
    lab_begin(&b);
    lab_run(b.l, "one", 1, NULL, id);
    lab_end(&b);
    assert_int_equal(chmod(b.dir, 0555), 0);
    pid_t pid = lab_fork();
    if (!pid) nobody_reads_but_cannot_write(b.path);
    lab_wait_ok(pid);
    assert_int_equal(chmod(b.dir, 0700), 0);
}

static long pretend_nfs(const char *path)
{
    (void)path;
    return 0x6969;
}

static long pretend_cifs(const char *path)
{
    (void)path;
    return (long)0xffffffffff534d42; /* as a 32-bit magic comes out of a signed field */
}

static void a_network_file_system(void **state)
{
    (void)state;
    struct lab b;
    lab_begin(&b);
    lab_end(&b);
    long (*real)(const char *) = host.fs_type;
    host.fs_type = pretend_nfs;
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        assert_err(ERR_IO, ledger_open(&b.l, b.path, modes[i]));
        assert_has(err_text(), "NFS");
        assert_has(err_text(), "local disk");
    }
    host.fs_type = pretend_cifs;
    assert_err(ERR_IO, ledger_open(&b.l, b.path, LEDGER_WRITE));
    assert_has(err_text(), "CIFS");
    host.fs_type = real;
    assert_ok(ledger_open(&b.l, b.path, LEDGER_WRITE));
    lab_end(&b);
}

static void limit_file_size(rlim_t bytes)
{
    struct rlimit r;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &r), 0);
    r.rlim_cur = bytes == RLIM_INFINITY ? r.rlim_max : bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0);
}

/* The disk fills in the middle of logging: a clear error, everything before it intact, and the same handle goes on once
 * there is room. */
static void a_full_disk(void **state)
{
    (void)state;
    struct lab b;
    char id[RUN_ID_TEXT], wal[320];
    int fd;
    int64_t step = 0;
    struct stat st;
    signal(SIGXFSZ, SIG_IGN);
    lab_begin(&b);
    snprintf(wal, sizeof wal, "%s-wal", b.path);
    lab_run(b.l, "one", 1, NULL, id);
    int64_t token = lab_claim(b.l, id, &fd);
    assert_ok(ledger_segment(b.l, id, token, 0));
    for (; step < 100; step++) {
        struct ledger_point p = {"loss", step, 1};
        assert_ok(ledger_points(b.l, id, token, &p, 1));
    }
    assert_int_equal(stat(wal, &st), 0);
    limit_file_size((rlim_t)st.st_size + 40000);
    err_t err = ERR_OK;
    int64_t stop = step + 1000;
    while (!err && step < stop) {
        struct ledger_point p = {"loss", step, 1};
        err = ledger_points(b.l, id, token, &p, 1);
        if (!err) step++;
    }
    assert_int_equal(err, ERR_IO);
    assert_has(err_text(), "no space left");
    assert_has(err_text(), b.path);
    assert_true(step > 100 && step < stop);
    struct ledger_outcome o = {.status = RUN_DONE, .step = step};
    char *big = mem_alloc(300000), sha[SHA256_TEXT];
    assert_err(ERR_IO, ledger_put_blob(b.l, big, 300000, "x", sha));
    /* a group fails as a whole */
    assert_ok(ledger_begin(b.l));
    assert_ok(ledger_provenance(b.l, id, "cpu", "x"));
    err = ledger_put_blob(b.l, big, 300000, "x", sha);
    if (!err) err = ledger_commit(b.l);
    else ledger_rollback(b.l);
    assert_int_equal(err, ERR_IO);
    mem_free(big);
    /* another process reads all of it meanwhile */
    limit_file_size(RLIM_INFINITY);
    lab_check_file(b.path);
    assert_true((int64_t)lab_num(b.l, "SELECT count(*) FROM v_metric") == step);
    assert_int_equal((int)lab_num(b.l, "SELECT count(*) FROM blob"), 0);
    assert_int_equal((int)lab_num(b.l, "SELECT count(*) FROM provenance"), 0);
    /* room again */
    assert_ok(ledger_finish(b.l, id, token, &o));
    close(fd);
    lab_end(&b);
    lab_check_file(b.path);
    assert_ok(ledger_open(&b.l, b.path, LEDGER_READ));
    assert_true((int64_t)lab_num(b.l, "SELECT count(*) FROM v_metric") == step);
    assert_string_equal(lab_rows(b.l, "SELECT status FROM v_run"), "done\n");
    lab_end(&b);
}

static void a_full_disk_at_creation(void **state)
{
    (void)state;
    char dir[256], path[300];
    struct ledger *l;
    signal(SIGXFSZ, SIG_IGN);
    test_dir(dir, sizeof dir);
    snprintf(path, sizeof path, "%s/ect.db", dir);
    limit_file_size(20000);
    err_t err = ledger_open(&l, path, LEDGER_CREATE);
    limit_file_size(RLIM_INFINITY);
    assert_int_equal(err, ERR_IO);
    assert_null(l);
    assert_has(err_text(), "no space left");
    assert_ok(ledger_open(&l, path, LEDGER_CREATE));
    ledger_close(l);
    lab_check_file(path);
}

static void a_ledger_deleted_while_open(void **state)
{
    (void)state;
    struct lab b;
    char id[RUN_ID_TEXT], sha[SHA256_TEXT];
    struct ledger *second;
    lab_begin(&b);
    lab_run(b.l, "one", 1, NULL, id);
    assert_int_equal(unlink(b.path), 0);
    assert_err(ERR_IO, ledger_put_blob(b.l, "x", 1, "x", sha));
    assert_has(err_text(), "deleted");
    /* and another in its place: ours must not touch that one, nor its log when it closes */
    char side[320];
    snprintf(side, sizeof side, "%s-wal", b.path);
    unlink(side);
    snprintf(side, sizeof side, "%s-shm", b.path);
    unlink(side);
    assert_ok(ledger_open(&second, b.path, LEDGER_CREATE));
    assert_ok(ledger_put_blob(second, "y", 1, "x", sha));
    assert_err(ERR_IO, ledger_put_blob(b.l, "x", 1, "x", sha));
    lab_end(&b);
    snprintf(side, sizeof side, "%s-wal", b.path);
    assert_true(file_exists(side));
    assert_ok(ledger_put_blob(second, "z", 1, "x", sha));
    assert_int_equal((int)lab_num(second, "SELECT count(*) FROM blob"), 2);
    ledger_close(second);
    lab_check_file(b.path);
}

/* A process that has the deleted lock file open must still wait for one that holds the new one. */
static void the_lock_file_may_be_deleted(void **state)
{
    (void)state;
    struct lab b;
    char sha[SHA256_TEXT], lock[320], c;
    int to_child[2], to_parent[2];
    struct ledger *second;
    lab_begin(&b);
    lab_end(&b);
    snprintf(lock, sizeof lock, "%s-lock", b.path);
    assert_int_equal(pipe(to_child) + pipe(to_parent), 0);
    pid_t pid = lab_fork();
    if (!pid) {
        child_need(!ledger_open(&b.l, b.path, LEDGER_WRITE));
        child_need(!ledger_put_blob(b.l, "first", 5, "x", sha));
        child_need(write(to_parent[1], "x", 1) == 1 && read(to_child[0], &c, 1) == 1);
        int64_t start = host.mono_ns();
        child_need(!ledger_put_blob(b.l, "second", 6, "x", sha));
        child_need(host.mono_ns() - start > 100000000);
        ledger_close(b.l);
        _exit(0);
    }
    assert_int_equal(read(to_parent[0], &c, 1), 1);
    assert_int_equal(unlink(lock), 0);
    assert_ok(ledger_open(&second, b.path, LEDGER_WRITE)); /* makes a new one */
    /* hold nothing but the flock, so that SQLite's own lock is not what the child waits for */
    int fd = open(lock, O_RDWR);
    assert_true(fd >= 0 && flock(fd, LOCK_EX) == 0);
    assert_int_equal(write(to_child[1], "x", 1), 1);
    usleep(200000);
    close(fd);
    lab_wait_ok(pid);
    assert_int_equal((int)lab_num(second, "SELECT count(*) FROM blob"), 2);
    ledger_close(second);
}

static void a_reader_cannot_write(void **state)
{
    (void)state;
    struct lab b;
    char sha[SHA256_TEXT];
    lab_begin(&b);
    lab_end(&b);
    assert_ok(ledger_open(&b.l, b.path, LEDGER_READ));
    assert_true(ledger_put_blob(b.l, "x", 1, "x", sha) != ERR_OK);
    assert_has(err_text(), "reading only");
    lab_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_newer_ledger),
        cmocka_unit_test(not_a_ledger),
        cmocka_unit_test(an_empty_or_absent_file),
        cmocka_unit_test(a_creation_that_was_cut_short),
        cmocka_unit_test(an_unwritable_place),
        cmocka_unit_test(a_directory_that_is_read_only),
        cmocka_unit_test(a_network_file_system),
        cmocka_unit_test(a_full_disk),
        cmocka_unit_test(a_full_disk_at_creation),
        cmocka_unit_test(a_ledger_deleted_while_open),
        cmocka_unit_test(the_lock_file_may_be_deleted),
        cmocka_unit_test(a_reader_cannot_write),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
