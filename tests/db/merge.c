/* Merging: the same records whichever way round, the same again when done twice, conflicts told, runs as far as the further one. */
#include "tests/db/lab.h"

/* What a ledger holds, by names instead of row numbers. */
static const char *const dump[] = {"SELECT run, cell, replicate, status, config_hash, flops_executed, flops_total, "
                                   "step, parent, reason, kind FROM v_run "
                                   "ORDER BY 1",
                                   "SELECT run, key, step, value, special FROM v_metric ORDER BY 1, 2, 3",
                                   "SELECT * FROM v_summary ORDER BY 1, 2",
                                   "SELECT run, key, text, num, class, is_default FROM v_param ORDER BY 1, 3, 2",
                                   "SELECT * FROM v_eval ORDER BY run, evaluator, metric",
                                   "SELECT * FROM v_control ORDER BY 1, 2",
                                   "SELECT sweep, ordinal, cell, factors, replicate, run FROM v_trial ORDER BY 1, 2, 5",
                                   "SELECT sweep, seed, declared FROM v_sweep ORDER BY 1, 2",
                                   "SELECT * FROM v_segment ORDER BY 1, 2",
                                   "SELECT * FROM v_checkpoint ORDER BY 1, 3",
                                   "SELECT * FROM v_provenance ORDER BY 1, 2",
                                   "SELECT * FROM v_tag ORDER BY 1, 2",
                                   "SELECT sha, size FROM blob ORDER BY 1"};

static char *all_of(const char *path)
{
    struct ledger *l;
    struct text t = {0};
    text_add(&t, "");
    assert_ok(ledger_open(&l, path, LEDGER_READ));
    for (size_t i = 0; i < ARRAY_LEN(dump); i++) text_addf(&t, "-- %zu\n%s", i, lab_rows(l, dump[i]));
    ledger_close(l);
    return t.s;
}

static void ended(struct ledger *l, const char *id, double loss, enum run_status status, int64_t step)
{
    int fd;
    int64_t token = lab_claim(l, id, &fd);
    assert_true(token > 0);
    assert_ok(ledger_segment(l, id, token, 0));
    struct ledger_point p[] = {{"loss", 10, 1}, {"loss", step, loss}};
    assert_ok(ledger_points(l, id, token, p, ARRAY_LEN(p)));
    assert_ok(ledger_checkpoint_note(l, id, token, step, "ckpt/a", "sha", true));
    assert_ok(ledger_provenance(l, id, "host.name", "h"));
    struct ledger_outcome o = {.status = status, .step = step, .flops_executed = 100 * (double)step, .reason = ""};
    assert_ok(ledger_finish(l, id, token, &o));
    close(fd);
}

static void evaluated(struct ledger *l, const char *id, double value)
{
    struct ledger_eval e = {.run_id = id,
                            .weights = "raw",
                            .step = 500,
                            .evaluator_sha = "e",
                            .evaluator_canon = "metric=fd_pixel",
                            .metric = "fd_pixel",
                            .sampler = "ect",
                            .nfe = 2,
                            .samples = 100,
                            .value = value};
    assert_ok(ledger_put_eval(l, &e));
    assert_ok(ledger_put_control(l, "data", "real_half", &e));
}

static void in_sweep(struct ledger *l, const char *declared, const char *const *ids, int n)
{
    char sha[SHA256_TEXT], cell[16];
    int64_t sweep;
    assert_ok(ledger_put_blob(l, "-- script", 9, "text/x-lua", sha));
    assert_ok(
        ledger_put_sweep(l, &(struct ledger_sweep){.name = "s", .script_sha = sha, .declared = declared}, &sweep));
    for (int i = 0; i < n; i++) {
        snprintf(cell, sizeof cell, "cell%d", i);
        struct ledger_trial t = {.sweep = sweep, .ordinal = i, .cell = cell, .replicate = 1, .run_id = ids[i]};
        assert_ok(ledger_put_trial(l, &t));
    }
}

/* Two ledgers of one sweep: a run done in both, one done here and cut off there, one of each alone. */
static void two_ledgers(const char *a, const char *b)
{
    struct ledger *l;
    char both[RUN_ID_TEXT], mixed[RUN_ID_TEXT], own[RUN_ID_TEXT];
    assert_ok(ledger_open(&l, a, LEDGER_CREATE));
    lab_run(l, "both", 1, NULL, both);
    lab_run(l, "mixed", 1, both, mixed);
    lab_run(l, "only-a", 1, NULL, own);
    ended(l, both, 0.5, RUN_DONE, 500);
    ended(l, mixed, 0.25, RUN_DONE, 500);
    evaluated(l, both, 3);
    in_sweep(l, "{\"a\":1}", (const char *[]){both, mixed, own}, 3);
    ledger_close(l);
    usleep(3000);
    assert_ok(ledger_open(&l, b, LEDGER_CREATE));
    lab_run(l, "only-b", 1, NULL, own); /* other row numbers than in a */
    ended(l, own, NAN, RUN_DIVERGED, 77);
    lab_run(l, "both", 1, NULL, both);
    lab_run(l, "mixed", 1, both, mixed);
    ended(l, both, 0.5, RUN_DONE, 500);
    ended(l, mixed, 0.75, RUN_INTERRUPTED, 200);
    evaluated(l, both, 3);
    in_sweep(l, "{\"b\":2}", (const char *[]){both, mixed}, 2);
    ledger_close(l);
}

static void copy(const char *from, const char *to)
{
    char *data;
    size_t n;
    assert_ok(file_read(from, 1 << 30, &data, &n));
    assert_ok(file_write_atomic(to, data, n));
    mem_free(data);
}

static struct ledger_merge merge_of(const char *into, const char *from)
{
    struct ledger *l;
    struct ledger_merge m;
    assert_ok(ledger_open(&l, into, LEDGER_WRITE));
    assert_ok(ledger_merge(l, from, &m));
    ledger_close(l);
    lab_check_file(into);
    return m;
}

static void either_way_round(void **state)
{
    (void)state;
    char dir[256], a[300], b[300], ab[300], ba[300];
    test_dir(dir, sizeof dir);
    snprintf(a, sizeof a, "%s/a.db", dir);
    snprintf(b, sizeof b, "%s/b.db", dir);
    snprintf(ab, sizeof ab, "%s/ab.db", dir);
    snprintf(ba, sizeof ba, "%s/ba.db", dir);
    two_ledgers(a, b);
    copy(a, ab);
    copy(b, ba);
    struct ledger_merge m = merge_of(ab, b);
    assert_int_equal((int)m.runs, 3);
    assert_int_equal((int)m.run_conflicts, 0);
    assert_int_equal((int)m.eval_conflicts, 0);
    merge_of(ba, a);
    char *one = all_of(ab), *other = all_of(ba);
    assert_string_equal(one, other);
    assert_has(one, "{\"b\":2}");
    mem_free(other);
    m = merge_of(ab, b);
    assert_int_equal((int)m.taken, 0);
    merge_of(ab, a);
    char *again = all_of(ab);
    assert_string_equal(one, again);
    struct ledger *l;
    assert_ok(ledger_open(&l, ab, LEDGER_READ));
    assert_string_equal(lab_rows(l, "SELECT status, step, count(*) FROM v_run GROUP BY 1, 2 ORDER BY 1"),
                        "diverged|77|1\ndone|500|2\npending|0|1\n");
    assert_string_equal(lab_rows(l, "SELECT last FROM v_summary WHERE key = 'loss' ORDER BY 1"), "\n0.25\n0.5\n");
    assert_string_equal(lab_rows(l, "SELECT flops_total FROM v_run WHERE parent IS NOT NULL"), "100000.0\n");
    ledger_close(l);
    mem_free(one);
    mem_free(again);
}

static void conflicts_are_told(void **state)
{
    (void)state;
    char dir[256], a[300], b[300], id[RUN_ID_TEXT];
    struct ledger *l;
    double loss[] = {0.5, 0.6};
    test_dir(dir, sizeof dir);
    snprintf(a, sizeof a, "%s/a.db", dir);
    snprintf(b, sizeof b, "%s/b.db", dir);
    for (int i = 0; i < 2; i++) {
        assert_ok(ledger_open(&l, i ? b : a, LEDGER_CREATE));
        lab_run(l, "x", 1, NULL, id);
        ended(l, id, loss[i], RUN_DONE, 500);
        evaluated(l, id, loss[i]);
        ledger_close(l);
        usleep(3000);
    }
    struct ledger_merge m = merge_of(a, b);
    assert_int_equal((int)m.run_conflicts, 1);
    assert_int_equal((int)m.eval_conflicts, 1);
    assert_ok(ledger_open(&l, a, LEDGER_READ));
    assert_string_equal(lab_rows(l, "SELECT value FROM v_eval"), "0.5\n"); /* the first */
    ledger_close(l);
}

static void what_is_no_ledger(void **state)
{
    (void)state;
    struct lab b;
    struct ledger_merge m;
    char path[300];
    lab_begin(&b);
    snprintf(path, sizeof path, "%s/none.db", b.dir);
    assert_err(ERR_NOT_FOUND, ledger_merge(b.l, path, &m));
    assert_false(file_exists(path));
    assert_ok(file_write_atomic(path, "hello, no database at all, but long enough", 40));
    assert_err(ERR_FORMAT, ledger_merge(b.l, path, &m));
    assert_ok(ledger_put_blob(b.l, "x", 1, "text/plain", (char[SHA256_TEXT]){0})); /* the handle goes on */
    lab_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(either_way_round), cmocka_unit_test(conflicts_are_told),
                                       cmocka_unit_test(what_is_no_ledger)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
