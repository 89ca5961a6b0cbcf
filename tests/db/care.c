/* A sound ledger is called sound, and each kind of damage is named. */
#include <sqlite3.h>

#include "tests/db/lab.h"

static void damage(const char *path, const char *sql)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void each_damage_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *sql, *undo, *says;
    } cases[] = {
        {"UPDATE blob SET data = zeroblob(4)", "UPDATE blob SET data = x'74657874'", "blob of another hash"},
        {"UPDATE run SET id = 'ffffffffffffffff' WHERE n = 1", NULL, "run whose id is not"},
        {"UPDATE chunk SET points = points + 1", "UPDATE chunk SET points = points - 1", "chunk of another size"},
        {"DELETE FROM summary", NULL, "curve without summary"},
        {"INSERT INTO point VALUES(99, 1, 1, 1, 1, 0)", "DELETE FROM point WHERE run = 99", "points of no run"},
        {"UPDATE run SET parent = 77 WHERE n = 1", "UPDATE run SET parent = NULL", "reference: run"}};
    struct lab b;
    struct text bad = {0};
    int fd;
    char id[RUN_ID_TEXT], sha[SHA256_TEXT];
    lab_begin(&b);
    lab_run(b.l, "x", 1, NULL, id);
    int64_t token = lab_claim(b.l, id, &fd);
    assert_ok(ledger_segment(b.l, id, token, 0));
    assert_ok(ledger_points(b.l, id, token, (struct ledger_point[]){{"loss", 1, 2}, {"loss", 2, 3}}, 2));
    assert_ok(ledger_finish(b.l, id, token, &(struct ledger_outcome){.status = RUN_DONE, .step = 2}));
    assert_ok(ledger_put_blob(b.l, "text", 4, "text/plain", sha));
    close(fd);
    text_add(&bad, "");
    assert_ok(ledger_check(b.l, &bad));
    assert_string_equal(text_str(&bad), "");
    lab_end(&b);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        damage(b.path, cases[i].sql);
        assert_ok(ledger_open(&b.l, b.path, LEDGER_WRITE));
        bad.len = 0;
        text_add(&bad, "");
        assert_ok(ledger_check(b.l, &bad));
        assert_has(text_str(&bad), cases[i].says);
        lab_end(&b);
        if (cases[i].undo) damage(b.path, cases[i].undo);
    }
    text_done(&bad);
}

static void backup_while_others_write(void **state)
{
    (void)state;
    struct lab b;
    struct ledger *reader, *copy;
    char to[320], id[RUN_ID_TEXT];
    lab_begin(&b);
    lab_run(b.l, "x", 1, NULL, id);
    snprintf(to, sizeof to, "%s.copy", b.path);
    assert_ok(ledger_begin(b.l)); /* a writer in the middle of something */
    lab_run(b.l, "y", 1, NULL, id);
    assert_ok(ledger_open(&reader, b.path, LEDGER_READ));
    assert_ok(ledger_backup(reader, to));
    assert_err(ERR_USAGE, ledger_backup(reader, to));
    ledger_close(reader);
    assert_ok(ledger_commit(b.l));
    assert_ok(ledger_open(&copy, to, LEDGER_READ));
    assert_string_equal(lab_rows(copy, "SELECT count(*) FROM v_run"), "1\n");
    ledger_close(copy);
    lab_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_damage_is_named),
                                       cmocka_unit_test(backup_while_others_write)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
