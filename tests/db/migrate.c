/* A ledger of an older schema becomes one of today: the views say the same before and after, many may try at once, and a copy of
 * the old file is kept. */
#include <sqlite3.h>

#include "tests/db/lab.h"

/* What a program of schema 1 left: a tuned run, killed at step 40 and resumed from step 20, with special values, and its parent. */
static const char rows_1[] =
    "INSERT INTO blob VALUES('aa', 1, 'text/x-lua', x'00', 1);"
    "INSERT INTO config VALUES(1, 'c1', 'numerics=1', 5), (2, 'c2', 'numerics=1\nlr=0.1', 6);"
    "INSERT INTO param VALUES(1, 'lr', '0.0004', 0.0004, 'train', 1), (1, 'threads', '0', 0, 'exec', 1),"
    " (2, 'lr', '0.1', 0.1, 'train', 0), (2, 'threads', '4', 4, 'exec', 0), (2, 'data', 'digits', NULL, 'train', 1);"
    "INSERT INTO sweep VALUES(1, 's', 'aa', 's.lua', '', 0, '{}', 7);"
    "INSERT INTO run(id, config, replicate, seed, parent, status, flops_closed, created_ms, started_ms) VALUES"
    " ('0123456789abcdef', 1, 1, 7, NULL, 'done', 1000, 5, 6), ('fedcba9876543210', 2, 1, -7, 1, 'done', 50, 5, 6),"
    " ('00000000000000aa', 2, 2, 8, 1, 'pending', 0, 5, NULL);"
    "INSERT INTO trial VALUES(1, 1, 0, 'base', '{}', 1, 2, 0), (2, 1, 0, 'base', '{}', 2, 3, 0);"
    "INSERT INTO segment VALUES(2, 1, 0, 1, 5), (2, 2, 20, 2, 6);"
    "INSERT INTO key VALUES(1, 'loss'), (2, 'lr');"
    "INSERT INTO point VALUES(2, 1, 10, 1, 1.5, 0), (2, 1, 20, 1, NULL, 1), (2, 1, 30, 1, 9, 0), (2, 1, 40, 1, 8, 0),"
    " (2, 1, 30, 2, 0.1, 0), (2, 1, 40, 2, NULL, 2), (2, 1, 50, 2, 2.25, 0), (2, 2, 50, 2, 0.1, 0);"
    "INSERT INTO evaluator VALUES(1, 'e', 'metric=fd_pixel');"
    "INSERT INTO eval VALUES(2, 50, 'raw', 1, 'fd_pixel', 'ect', 2, 100, 0, 3.25, 1, 2, 9);";

static const char *const views[] = {
    "SELECT run, config_hash, key, text, num, class, is_default FROM v_param ORDER BY 1, 3",
    "SELECT * FROM v_metric ORDER BY run, key, step",
    "SELECT run, sweep, cell, replicate, status, flops_executed, flops_ancestors, flops_total, seed, parent FROM v_run "
    "ORDER BY run",
    "SELECT * FROM v_eval",
    "SELECT * FROM v_trial",
    "SELECT * FROM v_segment"};

static void old_ledger(const char *path)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, embed_find("db/0001.sql")->data, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, rows_1, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA user_version = 1; PRAGMA journal_mode = WAL", NULL, NULL, NULL),
                     SQLITE_OK);
    sqlite3_close(db);
}

static int add_row(void *ctx, int n, char **v, char **names)
{
    (void)names;
    for (int i = 0; i < n; i++) text_addf(ctx, "%s%s", v[i] ? v[i] : "", i + 1 < n ? "|" : "\n");
    return 0;
}

static char *old_rows(const char *path, const char *sql)
{
    sqlite3 *db;
    struct text t = {0};
    text_add(&t, "");
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, add_row, &t, NULL), SQLITE_OK);
    sqlite3_close(db);
    return t.s;
}

static void views_say_the_same(void **state)
{
    (void)state;
    struct lab b;
    char *before[ARRAY_LEN(views)], copy[320];
    test_dir(b.dir, sizeof b.dir);
    snprintf(b.path, sizeof b.path, "%s/ect.db", b.dir);
    old_ledger(b.path);
    for (size_t i = 0; i < ARRAY_LEN(views); i++) before[i] = old_rows(b.path, views[i]);
    assert_err(ERR_FORMAT, ledger_open(&b.l, b.path, LEDGER_READ)); /* reading changes nothing */
    assert_ok(ledger_open(&b.l, b.path, LEDGER_WRITE));
    for (size_t i = 0; i < ARRAY_LEN(views); i++) {
        assert_true(strlen(before[i]) > 20);
        assert_string_equal(lab_rows(b.l, views[i]), before[i]);
    }
    assert_string_equal(lab_rows(b.l,
                                 "SELECT key, points, specials, last, last_step, min, min_step, max, max_step FROM "
                                 "v_summary ORDER BY key"),
                        "loss|5|2|2.25|50|0.1|30|2.25|50\nlr|1|0|0.1|50|0.1|50|0.1|50\n");
    lab_end(&b);
    lab_check_file(b.path);
    snprintf(copy, sizeof copy, "%s.schema-1", b.path);
    for (size_t i = 0; i < ARRAY_LEN(views); i++) {
        char *kept = old_rows(copy, views[i]);
        assert_string_equal(kept, before[i]);
        mem_free(kept);
        mem_free(before[i]);
    }
}

static void many_at_once(void **state)
{
    (void)state;
    enum { PROCESSES = 16 };
    struct lab b;
    pid_t pids[PROCESSES];
    test_dir(b.dir, sizeof b.dir);
    snprintf(b.path, sizeof b.path, "%s/ect.db", b.dir);
    old_ledger(b.path);
    for (int i = 0; i < PROCESSES; i++) {
        pids[i] = lab_fork();
        if (pids[i]) continue;
        child_need(!ledger_open(&b.l, b.path, LEDGER_WRITE));
        child_need(!strcmp(lab_rows(b.l, "SELECT count(*) FROM v_metric"), "6\n"));
        ledger_close(b.l);
        _exit(0);
    }
    for (int i = 0; i < PROCESSES; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    lab_check_file(b.path);
}

/* Rows of a run that goes on become chunks when it ends, and nobody sees a difference. */
static void sealing_changes_nothing(void **state)
{
    (void)state;
    struct lab b;
    int fd;
    char id[RUN_ID_TEXT], *before;
    static const char sql[] = "SELECT key, step, value, special FROM v_metric ORDER BY key, step";
    lab_begin(&b);
    lab_run(b.l, "sealed", 1, NULL, id);
    int64_t token = lab_claim(b.l, id, &fd);
    assert_ok(ledger_segment(b.l, id, token, 0));
    struct ledger_point p[] = {{"loss", 1, 0.1},   {"loss", 2, NAN},       {"loss", 3, -INFINITY},
                               {"loss", 4, 1e300}, {"odd steps", 1, -0.0}, {"odd steps", 3, 5e-324},
                               {"odd steps", 4, 3}};
    assert_ok(ledger_points(b.l, id, token, p, ARRAY_LEN(p)));
    assert_ok(ledger_segment(b.l, id, token, 2)); /* went back to step 2: loss 3 and 4 are a tail */
    struct ledger_point q[] = {{"loss", 3, 0.25}, {"loss", 5, 0.05}};
    assert_ok(ledger_points(b.l, id, token, q, ARRAY_LEN(q)));
    before = mem_strdup(lab_rows(b.l, sql));
    assert_has(before, "loss|3|0.25|\nloss|5|0.05|\nodd steps|1|");
    assert_string_equal(lab_rows(b.l, "SELECT points, specials, last, min, max FROM v_summary WHERE key = 'loss'"),
                        "4|1|0.05|0.05|0.25\n");
    struct ledger_outcome o = {.status = RUN_DONE, .step = 5};
    assert_ok(ledger_finish(b.l, id, token, &o));
    assert_string_equal(lab_rows(b.l, sql), before);
    assert_string_equal(lab_rows(b.l, "SELECT count(*) FROM point"), "0\n");
    assert_string_equal(
        lab_rows(b.l, "SELECT p.step, p.value FROM chunk c JOIN curve_points(c.data, c.first_step, c.stride) p "
                      "WHERE hidden ORDER BY 1, c.key"),
        "3|\n3|4.94065645841247e-324\n4|1.0e+300\n4|3.0\n");
    mem_free(before);
    close(fd);
    lab_end(&b);
    lab_check_file(b.path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(views_say_the_same), cmocka_unit_test(many_at_once),
                                       cmocka_unit_test(sealing_changes_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
