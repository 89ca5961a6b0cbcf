/* Reading: bound parameters, the user's SQL that cannot write, and the Pareto front against brute force. */
#include "tests/db/lab.h"

static void rows_and_kinds(void **state)
{
    (void)state;
    struct lab b;
    struct table t;
    lab_begin(&b);
    assert_ok(query(b.l, &t, "SELECT ? AS a, ? AS b, ? AS c, NULL AS d, x'00ff' AS e, ? AS f", "sids", "text",
                    INT64_MIN, 0.1, NULL));
    assert_int_equal(t.nrows, 1);
    assert_int_equal(t.ncols, 6);
    assert_int_equal(table_col(&t, "c"), 2);
    assert_int_equal(table_col(&t, "nope"), -1);
    const struct cell *c = table_at(&t, 0, 0);
    assert_true(c[0].kind == CELL_TEXT && isnan(c[0].num) && c[0].bytes == 4);
    assert_string_equal(c[0].text, "text");
    assert_true(c[1].kind == CELL_INT);
    assert_string_equal(c[1].text, "-9223372036854775808");
    assert_true(c[2].kind == CELL_REAL && c[2].num == 0.1);
    assert_true(c[3].kind == CELL_NULL && isnan(c[3].num));
    assert_string_equal(c[3].text, "");
    assert_true(c[4].kind == CELL_BLOB && c[4].bytes == 2 && !memcmp(c[4].text, "\0\xff", 2));
    assert_true(c[5].kind == CELL_NULL);
    table_done(&t);
    /* many rows, and one text larger than a block */
    assert_ok(query(
        b.l, &t,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) SELECT i, 'row ' || i FROM n",
        ""));
    assert_int_equal(t.nrows, 3000);
    for (int i = 0; i < 3000; i += 7) {
        char want[32];
        snprintf(want, sizeof want, "row %d", i + 1);
        assert_true(table_at(&t, i, 0)->num == i + 1);
        assert_string_equal(table_at(&t, i, 1)->text, want);
    }
    table_done(&t);
    assert_ok(query(b.l, &t, "SELECT hex(zeroblob(100000))", ""));
    assert_int_equal(table_at(&t, 0, 0)->bytes, 200000);
    assert_int_equal(strspn(table_at(&t, 0, 0)->text, "0"), 200000);
    table_done(&t);
    assert_ok(query(b.l, &t, "SELECT 1 AS one WHERE 0", ""));
    assert_int_equal(t.nrows, 0);
    assert_int_equal(table_col(&t, "one"), 0);
    table_done(&t);
    assert_true(query(b.l, &t, "SELECT nothing FROM nowhere", "") != ERR_OK);
    table_done(&t);
    lab_end(&b);
}

static void user_sql_reads_only(void **state)
{
    (void)state;
    static const char *const refused[] = {
        "INSERT INTO key(name) VALUES('x')",
        "DELETE FROM run",
        "UPDATE run SET status = 'done'",
        "CREATE TABLE mine(x)",
        "CREATE TEMP TABLE mine(x)",
        "DROP VIEW v_run",
        "ATTACH 'other.db' AS other",
        "DETACH main",
        "PRAGMA user_version = 7",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA query_only = 0",
        "PRAGMA writable_schema = ON",
        "PRAGMA wal_checkpoint",
        "PRAGMA wal_autocheckpoint = 9",
        "PRAGMA busy_timeout = 1",
        "BEGIN",
        "COMMIT",
        "SAVEPOINT s",
        "VACUUM",
        "VACUUM INTO 'copy.db'",
        "ANALYZE",
        "REINDEX",
        "SELECT load_extension('x')",
        "WITH x AS (SELECT 1) INSERT INTO key(name) SELECT * FROM x",
        "INSERT INTO key(name) VALUES('x') RETURNING n",
        "SELECT 1; SELECT 2",
        "SELECT 1; DELETE FROM run",
        "/* c */ ; -- only comments",
        "",
        "SELECT no_such_column FROM v_run",
        "SELECT \"misspelt\" FROM v_run",
        "SELEC 1",
        "SELECT * FROM pareto('DELETE FROM run', 'min', 'min')",
        "SELECT * FROM pareto('SELECT 1, 2, 3; DELETE FROM run', 'min', 'min')",
        "EXPLAIN DELETE FROM run",
    };
    struct lab b;
    struct table t;
    char id[RUN_ID_TEXT], before[SHA256_TEXT], after[SHA256_TEXT];
    lab_begin(&b);
    lab_run(b.l, "one", 1, NULL, id);
    lab_end(&b);
    assert_ok(sha256_file(b.path, before));
    assert_ok(ledger_open(&b.l, b.path, LEDGER_WRITE)); /* even on a handle that could */
    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        err_t err = query_user(b.l, &t, refused[i], 5);
        if (err != ERR_USAGE)
            fail_msg("\"%s\": error %d instead of %d: %s", refused[i], err, ERR_USAGE, err ? err_text() : "accepted");
        assert_has(err_text(), ":");
        table_done(&t);
    }
    static const char *const fine[] = {
        "SELECT run, status FROM v_run",
        "  -- a comment\n SELECT count(*) FROM v_run; ",
        "PRAGMA table_info(v_run)",
        "PRAGMA user_version",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10) SELECT sum(i) FROM n",
        "VALUES(1), (2)",
        "SELECT json_extract('{\"a\":1}', '$.a')",
        "EXPLAIN QUERY PLAN SELECT * FROM v_metric",
        "SELECT rundir FROM v_run /* tail */ ; ;"};
    for (size_t i = 0; i < ARRAY_LEN(fine); i++) {
        assert_ok(query_user(b.l, &t, fine[i], 5));
        assert_true(t.nrows > 0);
        table_done(&t);
    }
    /* afterwards our own writes go through again */
    lab_run(b.l, "one", 2, NULL, id);
    lab_end(&b);
    assert_ok(ledger_open(&b.l, b.path, LEDGER_READ));
    assert_int_equal((int)lab_num(b.l, "SELECT count(*) FROM v_run"), 2);
    lab_end(&b);
    assert_ok(sha256_file(b.path, after));
    assert_string_not_equal(before, after); /* the comparison can fail */
}

static void user_sql_has_a_time_limit(void **state)
{
    (void)state;
    struct lab b;
    struct table t;
    lab_begin(&b);
    int64_t start = host.mono_ns();
    assert_err(ERR_USAGE,
               query_user(b.l, &t,
                          "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
                          0.1));
    assert_has(err_text(), "0.1 s");
    assert_err(ERR_USAGE,
               query_user(b.l, &t,
                          "SELECT * FROM pareto('WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
                          "SELECT max(i), 1, 2 FROM n', 'min', 'min')",
                          0.1));
    assert_true(host.mono_ns() - start < 10 * 1000000000LL);
    assert_ok(query_user(b.l, &t, "SELECT 1", 0.1));
    table_done(&t);
    lab_end(&b);
}

/* By the definition. */
static bool beaten(int n, int k, const double *obj, const bool *min, int row)
{
    for (int i = 0; i < n; i++) {
        bool worse = false, better = false, nan = false;
        for (int j = 0; j < k; j++) {
            double a = obj[i * k + j], c = obj[row * k + j];
            nan |= isnan(a);
            worse |= min[j] ? a > c : a < c;
            better |= min[j] ? a < c : a > c;
        }
        if (!nan && better && !worse) return true;
    }
    return false;
}

static void fronts_match_brute_force(void **state)
{
    (void)state;
    enum { MAXN = 60 };
    uint64_t s = 88172645463325252ull;
    int fronts = 0, ties = 0;
    for (int round = 0; round < 1500; round++) {
        s ^= s << 13, s ^= s >> 7, s ^= s << 17;
        int n = (int)(s % MAXN), k = 1 + (int)((s >> 20) % 4),
            values = 2 + (int)((s >> 30) % 20); /* few values: many ties */
        double obj[MAXN * 4];
        bool min[4], on[MAXN];
        for (int j = 0; j < k; j++) min[j] = (s >> (40 + j)) & 1;
        for (int i = 0; i < n * k; i++) {
            s ^= s << 13, s ^= s >> 7, s ^= s << 17;
            int v = (int)(s % (uint64_t)values);
            obj[i] = s % 37 == 0 ? NAN : s % 41 == 0 ? INFINITY : s % 43 == 0 ? -INFINITY : v;
        }
        pareto_front(n, k, obj, min, on);
        for (int i = 0; i < n; i++) {
            bool nan = false;
            for (int j = 0; j < k; j++) nan |= isnan(obj[i * k + j]);
            bool want = !nan && !beaten(n, k, obj, min, i);
            if (on[i] != want)
                fail_msg("round %d: row %d of %d, %d objectives: %d, by definition %d", round, i, n, k, on[i], want);
            fronts += want;
            for (int j = 0; j < i && want; j++)
                ties += on[j] && !memcmp(obj + i * k, obj + j * k, (size_t)k * sizeof *obj);
        }
    }
    assert_true(fronts > 1000 && ties > 100);
}

static void large_fronts_are_fast(void **state)
{
    (void)state;
    enum { N = 200000 };
    double *obj = mem_array(2 * N, sizeof *obj);
    bool *on = mem_array(N, sizeof *on), min[2] = {true, false};
    for (int i = 0; i < N; i++)
        obj[2 * i] = i, obj[2 * i + 1] = i; /* all are on it: the worst case of a comparison with the front */
    pareto_front(N, 2, obj, min, on);
    for (int i = 0; i < N; i++) assert_true(on[i]);
    mem_free(obj);
    mem_free(on);
}

static void pareto_in_sql(void **state)
{
    (void)state;
    struct lab b;
    struct table t;
    lab_begin(&b);
    const char *rows =
        "FROM (VALUES(''a'', 1, 9, ''g''), (''b'', 2, 5, ''g''), (''c'', 3, 5, ''g''), (''d'', 4, 1, ''h''), "
        "(''e'', 5, 2, ''h''), (''f'', 1, 9, ''h''), (''n'', NULL, 0, ''g''), (''t'', ''x'', 0, ''g''))";
    char sql[600];
    snprintf(sql, sizeof sql,
             "SELECT key, x, y, z, w, by FROM pareto('SELECT column1, column2, column3 %s', 'min', 'min')", rows);
    assert_string_equal(lab_rows(b.l, sql), "a|1.0|9.0|||\nb|2.0|5.0|||\nd|4.0|1.0|||\nf|1.0|9.0|||\n");
    snprintf(sql, sizeof sql, "SELECT key FROM pareto('SELECT column1, column2, column3 %s')",
             rows); /* min is the default */
    assert_string_equal(lab_rows(b.l, sql), "a\nb\nd\nf\n");
    snprintf(sql, sizeof sql, "SELECT key FROM pareto('SELECT column1, column2, column3 %s', 'max', 'min')", rows);
    assert_string_equal(lab_rows(b.l, sql), "d\ne\n");
    snprintf(sql, sizeof sql,
             "SELECT key, by FROM pareto('SELECT column1, column2, column3, column4 %s', 'min', 'min')", rows);
    assert_string_equal(lab_rows(b.l, sql), "a|g\nb|g\nd|h\nf|h\n");
    snprintf(sql, sizeof sql, "SELECT key, x FROM pareto('SELECT column1, column2 %s', 'max') WHERE x > 1 ORDER BY x",
             rows);
    assert_string_equal(lab_rows(b.l, sql), "e|5.0\n");
    /* joined with what the key names, also where the query comes from another table */
    snprintf(sql, sizeof sql,
             "SELECT v.n, p.y FROM (SELECT 'a' AS n UNION SELECT 'd' UNION SELECT 'e') v "
             "JOIN pareto('SELECT column1, column2, column3 %s', 'min', 'min') p ON p.key = v.n ORDER BY 1",
             rows);
    assert_string_equal(lab_rows(b.l, sql), "a|9.0\nd|1.0\n");
    assert_ok(
        query_user(b.l, &t, "SELECT p.key FROM (SELECT 'SELECT 1, 2, 3' AS q) s JOIN pareto(s.q, 'min', 'min') p", 5));
    assert_int_equal(t.nrows, 1);
    table_done(&t);

    static const struct {
        const char *sql, *says;
    } bad[] = {{"SELECT * FROM pareto", "give a query"},
               {"SELECT * FROM pareto('SELECT 1, 2, 3', 'least', 'min')", "'least'"},
               {"SELECT * FROM pareto('SELECT 1', 'min')", "1 to 4 objectives"},
               {"SELECT * FROM pareto('SELECT 1, 2, 3, 4, 5, 6')", "1 to 4 objectives"},
               {"SELECT * FROM pareto('SELECT 1, 2, 3, 4', 'min')", "1 to 4 objectives"},
               {"SELECT * FROM pareto('SELECT nope FROM v_run', 'min')", "no such column"},
               {"SELECT * FROM pareto('', 'min')", "one SELECT"}};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_err(ERR_USAGE, query_user(b.l, &t, bad[i].sql, 5));
        assert_has(err_text(), bad[i].says);
        table_done(&t);
    }
    lab_end(&b);
}

/* The shape the reports ask for. */
static void pareto_of_runs(void **state)
{
    (void)state;
    struct lab b;
    struct table t;
    lab_begin(&b);
    for (int i = 1; i <= 4; i++) {
        char id[RUN_ID_TEXT];
        int fd;
        lab_run(b.l, "one", i, NULL, id);
        int64_t token = lab_claim(b.l, id, &fd);
        struct ledger_outcome o = {.status = RUN_DONE, .flops_executed = i};
        assert_ok(ledger_finish(b.l, id, token, &o));
        close(fd);
        struct ledger_eval e = {.run_id = id,
                                .weights = "std05",
                                .evaluator_sha = "e",
                                .metric = "fd_random",
                                .sampler = "ect",
                                .nfe = 2,
                                .value = i == 3 ? 9 : 5 - i};
        assert_ok(ledger_put_eval(b.l, &e));
    }
    assert_ok(query_user(
        b.l, &t,
        "SELECT r.replicate, p.x, p.y FROM pareto('SELECT run, flops_total, value FROM v_run JOIN v_eval USING (run) "
        "WHERE metric = ''fd_random'' AND nfe = 2', 'min', 'min') p JOIN v_run r ON r.run = p.key ORDER BY p.x",
        5));
    assert_int_equal(t.nrows, 3);
    assert_true(table_at(&t, 0, 0)->num == 1 && table_at(&t, 1, 0)->num == 2 && table_at(&t, 2, 0)->num == 4);
    assert_true(table_at(&t, 2, 2)->num == 1);
    table_done(&t);
    lab_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_and_kinds),
        cmocka_unit_test(user_sql_reads_only),
        cmocka_unit_test(user_sql_has_a_time_limit),
        cmocka_unit_test(fronts_match_brute_force),
        cmocka_unit_test(large_fronts_are_fast),
        cmocka_unit_test(pareto_in_sql),
        cmocka_unit_test(pareto_of_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
