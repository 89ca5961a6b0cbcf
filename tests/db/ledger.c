/* The ledger's rows: what goes in comes out, twice is once, and the views have the columns that are promised. */
#include "tests/db/lab.h"

static void views_have_the_promised_columns(void **state)
{
    (void)state;
    static const char *const promised[][2] = {
        {"v_run", "run, sweep, cell, replicate, status, config_hash, flops_executed, flops_nominal, flops_ancestors, "
                  "flops_total, "
                  "units_paper, seconds, started, rundir, parent, step, iters, images_per_s, reason, seed, threads, "
                  "device, kind"},
        {"v_tag", "run, tag"},
        {"v_note", "run, made, text"},
        {"v_summary", "run, key, points, specials, last, last_step, min, min_step, max, max_step"},
        {"v_eval", "run, metric, value, nfe, sampler, weights, samples, seed, step, evaluator, seconds, flops"},
        {"v_metric", "run, key, step, value, special"},
        {"v_param", "run, config_hash, key, text, num, class, is_default"},
        {"v_trial", "sweep, sweep_id, ordinal, cell, factors, replicate, run"},
        {"v_sweep", "sweep, sweep_id, seed, script, script_sha, declared, created, sets"},
        {"v_evaluator", "evaluator, canon"},
        {"v_control", "dataset, name, metric, value, samples, seed, evaluator"},
        {"v_artifact", "run, role, sha, size"},
        {"v_provenance", "run, key, value"},
        {"v_segment", "run, segment, from_step, started"},
        {"v_checkpoint", "run, step, file, sha, keep"},
    };
    struct lab b;
    lab_begin(&b);
    for (size_t i = 0; i < ARRAY_LEN(promised); i++) {
        char sql[128];
        struct table t;
        struct text cols = {0};
        snprintf(sql, sizeof sql, "PRAGMA table_info(%s)", promised[i][0]);
        assert_ok(query(b.l, &t, sql, ""));
        for (int r = 0; r < t.nrows; r++)
            text_addf(&cols, "%s%s", r ? ", " : "", table_at(&t, r, table_col(&t, "name"))->text);
        assert_string_equal(text_str(&cols), promised[i][1]);
        text_done(&cols);
        table_done(&t);
        /* the view answers, and carries its own documentation */
        snprintf(sql, sizeof sql, "SELECT count(*) FROM %s", promised[i][0]);
        assert_int_equal((int)lab_num(b.l, sql), 0);
        snprintf(sql, sizeof sql, "SELECT sql LIKE '%%AS%%-- %%SELECT%%' FROM sqlite_schema WHERE name = '%s'",
                 promised[i][0]);
        assert_int_equal((int)lab_num(b.l, sql), 1);
    }
    assert_int_equal((int)lab_num(b.l, "SELECT count(*) FROM sqlite_schema WHERE type = 'view'"),
                     (int)ARRAY_LEN(promised));
    lab_end(&b);
}

static void blobs_are_their_bytes(void **state)
{
    (void)state;
    struct lab b;
    char sha[SHA256_TEXT], again[SHA256_TEXT], want[SHA256_TEXT];
    static const char bytes[] = "a\0b\xff";
    lab_begin(&b);
    assert_ok(ledger_put_blob(b.l, bytes, 4, "image/png", sha));
    assert_ok(ledger_put_blob(b.l, bytes, 4, "image/png", again));
    sha256_text(bytes, 4, want);
    assert_string_equal(sha, want);
    assert_string_equal(again, want);
    assert_int_equal((int)lab_num(b.l, "SELECT count(*) FROM blob"), 1);
    char *data;
    size_t n;
    assert_ok(ledger_get_blob(b.l, sha, &data, &n));
    assert_int_equal(n, 4);
    assert_memory_equal(data, bytes, 4);
    mem_free(data);
    assert_ok(ledger_put_blob(b.l, NULL, 0, NULL, sha));
    assert_ok(ledger_get_blob(b.l, sha, &data, &n));
    assert_int_equal(n, 0);
    mem_free(data);
    sha[0] = sha[0] == '0' ? '1' : '0';
    assert_err(ERR_NOT_FOUND, ledger_get_blob(b.l, sha, &data, &n));
    lab_end(&b);
}

static void configs_keep_every_setting(void **state)
{
    (void)state;
    struct lab b;
    char id[RUN_ID_TEXT], *text;
    lab_begin(&b);
    lab_run(b.l, "one", 1, NULL, id);
    struct ledger_run r;
    assert_ok(ledger_get_run(b.l, id, &r));
    assert_ok(ledger_get_config(b.l, r.config_hash, &text));
    assert_string_equal(text, "config-one");
    mem_free(text);
    assert_ok(ledger_get_param(b.l, r.config_hash, "lr", &text));
    assert_string_equal(text, "0.0004");
    mem_free(text);
    assert_err(ERR_NOT_FOUND, ledger_get_param(b.l, r.config_hash, "lrr", &text));
    assert_err(ERR_NOT_FOUND, ledger_get_config(b.l, "nothing", &text));
    assert_string_equal(lab_rows(b.l, "SELECT key, text, num, class, is_default FROM v_param ORDER BY key"),
                        "iters|500|500.0|train|0\nlr|0.0004|0.0004|train|1\nthreads|auto||exec|1\n");
    /* an exec setting of the same configuration: as last declared */
    struct ledger_param p = {"threads", "4", "exec", false};
    assert_ok(ledger_put_config(b.l, r.config_hash, "config-one", &p, 1));
    assert_string_equal(lab_rows(b.l, "SELECT text, num, is_default FROM v_param WHERE key = 'threads'"), "4|4.0|0\n");
    ledger_run_done(&r);
    lab_end(&b);
}

static void runs_are_one_by_config_and_replicate(void **state)
{
    (void)state;
    struct lab b;
    char a[RUN_ID_TEXT], again[RUN_ID_TEXT], c[RUN_ID_TEXT], sha[SHA256_TEXT], text[80];
    bool created;
    lab_begin(&b);
    lab_run(b.l, "one", 1, NULL, a);
    lab_run(b.l, "one", 1, NULL, again);
    lab_run(b.l, "one", 2, NULL, c);
    assert_string_equal(a, again);
    assert_string_not_equal(a, c);
    sha256_text("config-one", 10, sha);
    snprintf(text, sizeof text, "%s:1", sha);
    char id_sha[SHA256_TEXT];
    sha256_text(text, strlen(text), id_sha);
    assert_memory_equal(a, id_sha, 16);
    assert_int_equal((int)lab_num(b.l, "SELECT count(*) FROM v_run"), 2);
    struct ledger_run_new r = {.config_hash = "no such", .replicate = 1};
    assert_err(ERR_NOT_FOUND, ledger_put_run(b.l, &r, a, &created));
    r = (struct ledger_run_new){.config_hash = sha, .replicate = 3, .parent_run = "0000000000000000"};
    assert_err(ERR_NOT_FOUND, ledger_put_run(b.l, &r, a, &created));
    r = (struct ledger_run_new){.config_hash = sha, .replicate = 3, .seed = UINT64_MAX};
    assert_ok(ledger_put_run(b.l, &r, a, &created));
    assert_true(created);
    struct ledger_run row;
    assert_ok(ledger_get_run(b.l, a, &row));
    assert_true(row.seed == UINT64_MAX && row.replicate == 3 && row.status == RUN_PENDING && row.token == 0);
    ledger_run_done(&row);
    assert_string_equal(lab_rows(b.l, "SELECT seed FROM v_run WHERE replicate = 3"), "18446744073709551615\n");
    assert_int_equal((int)lab_num(b.l, "SELECT count(*) FROM v_run WHERE seed = 7"), 2);
    assert_err(ERR_NOT_FOUND, ledger_get_run(b.l, "0123456789abcdef", &row));
    ledger_run_done(&row);
    lab_end(&b);
}

static int64_t put_sweep(struct ledger *l, const char *name, const char *script)
{
    char sha[SHA256_TEXT];
    int64_t id;
    assert_ok(ledger_put_blob(l, script, strlen(script), "text/x-lua", sha));
    struct ledger_sweep s = {
        .name = name, .script_sha = sha, .script_name = "demo.lua", .sets = "", .seed = 5, .declared = "{}"};
    assert_ok(ledger_put_sweep(l, &s, &id));
    return id;
}

static void sweeps_point_at_runs(void **state)
{
    (void)state;
    struct lab b;
    char base[RUN_ID_TEXT], mine[RUN_ID_TEXT];
    lab_begin(&b);
    lab_run(b.l, "base", 1, NULL, base);
    lab_run(b.l, "mine", 1, NULL, mine);
    int64_t s = put_sweep(b.l, "mapping", "text 1"), other = put_sweep(b.l, "other", "text 1");
    assert_true(s != other);
    assert_true(put_sweep(b.l, "mapping", "text 1") == s);
    assert_true(put_sweep(b.l, "mapping", "text 2") != s);
    assert_int_equal((int)lab_num(b.l, "SELECT count(*) FROM v_sweep"), 3);

    /* the same script with other --set lines is a sweep beside it: workers of the first still read their own lines */
    char sha[SHA256_TEXT];
    int64_t with_sets;
    assert_ok(ledger_put_blob(b.l, "text 1", strlen("text 1"), "text/x-lua", sha));
    struct ledger_sweep set = {.name = "mapping", .script_sha = sha, .script_name = "demo.lua", .sets = "iters=3\n"};
    assert_ok(ledger_put_sweep(b.l, &set, &with_sets));
    assert_true(with_sets != s);
    assert_true(put_sweep(b.l, "mapping", "text 1") == s);
    assert_string_equal(lab_rows(b.l, "SELECT sets FROM v_sweep WHERE sets <> ''"), "iters=3\n\n");

    struct ledger_trial t = {.sweep = s, .ordinal = 0, .cell = "base", .factors = "{}", .replicate = 1, .run_id = base};
    assert_ok(ledger_put_trial(b.l, &t));
    assert_ok(ledger_put_trial(b.l, &t));
    t = (struct ledger_trial){.sweep = s,
                              .ordinal = 1,
                              .cell = "mapping=mine",
                              .factors = "{\"mapping\":\"mine\"}",
                              .replicate = 1,
                              .run_id = mine};
    assert_ok(ledger_put_trial(b.l, &t));
    t = (struct ledger_trial){.sweep = other, .ordinal = 0, .cell = "start", .replicate = 1, .run_id = base};
    assert_ok(ledger_put_trial(b.l, &t));
    assert_string_equal(lab_rows(b.l, "SELECT sweep, ordinal, cell, factors FROM v_trial ORDER BY sweep, ordinal"),
                        "mapping|0|base|{}\nmapping|1|mapping=mine|{\"mapping\":\"mine\"}\nother|0|start|{}\n");
    /* one row a run, though base is in two sweeps */
    assert_int_equal((int)lab_num(b.l, "SELECT count(*) FROM v_run"), 2);
    assert_string_equal(lab_rows(b.l, "SELECT sweep, cell FROM v_run WHERE cell LIKE 'mapping%'"),
                        "mapping|mapping=mine\n");

    /* the script lost a cell: its trial is hidden, its run stays, and putting it again shows it again */
    assert_ok(ledger_hide_trials_after(b.l, s, 1));
    assert_string_equal(lab_rows(b.l, "SELECT cell FROM v_trial WHERE sweep = 'mapping'"), "base\n");
    assert_int_equal((int)lab_num(b.l, "SELECT count(*) FROM v_run"), 2);
    t = (struct ledger_trial){.sweep = s, .ordinal = 0, .cell = "mapping=mine", .replicate = 1, .run_id = mine};
    assert_ok(ledger_put_trial(b.l, &t)); /* now it is first, and base is gone */
    assert_string_equal(lab_rows(b.l, "SELECT cell FROM v_trial WHERE sweep = 'mapping'"), "mapping=mine\n");
    t.run_id = "0000000000000000";
    assert_err(ERR_NOT_FOUND, ledger_put_trial(b.l, &t));
    struct ledger_sweep lost = {.name = "lost", .script_sha = "no such blob"};
    assert_err(ERR_NOT_FOUND, ledger_put_sweep(b.l, &lost, &s));
    lab_end(&b);
}

static void flops_add_over_attempts_and_ancestors(void **state)
{
    (void)state;
    struct lab b;
    char pre[RUN_ID_TEXT], mid[RUN_ID_TEXT], tune[RUN_ID_TEXT];
    int fd;
    lab_begin(&b);
    lab_run(b.l, "pre", 1, NULL, pre);
    lab_run(b.l, "mid", 1, pre, mid);
    lab_run(b.l, "tune", 1, mid, tune);
    const char *ids[] = {pre, mid, tune};
    for (int i = 0; i < 3; i++)
        for (int attempt = 0; attempt < 2; attempt++) {
            int64_t token = lab_claim(b.l, ids[i], &fd);
            assert_true(token == attempt + 1);
            assert_ok(ledger_segment(b.l, ids[i], token, attempt * 10));
            struct ledger_outcome o = {.status = attempt ? RUN_DONE : RUN_INTERRUPTED,
                                       .step = 20,
                                       .nimg = 1280,
                                       .flops_executed = 10 * (i + 1),
                                       .seconds = 1.5,
                                       .images_per_s = 99,
                                       .exit_code = 0};
            assert_ok(ledger_finish(b.l, ids[i], token, &o));
            close(fd);
        }
    assert_string_equal(
        lab_rows(
            b.l,
            "SELECT flops_executed, flops_ancestors, flops_total, seconds, status FROM v_run ORDER BY flops_executed"),
        "20.0|0.0|20.0|3.0|done\n40.0|20.0|60.0|3.0|done\n60.0|60.0|120.0|3.0|done\n");
    char want[64];
    snprintf(want, sizeof want, "%s\n", mid);
    assert_string_equal(lab_rows(b.l, "SELECT parent FROM v_run ORDER BY flops_executed DESC LIMIT 1"), want);
    snprintf(want, sizeof want, "%s", tune);
    struct ledger_run r;
    assert_ok(ledger_get_run(b.l, tune, &r));
    assert_string_equal(r.parent_run, mid);
    assert_int_equal(r.attempt, 2);
    ledger_run_done(&r);
    char *dir = ledger_run_dir(b.l, tune);
    struct table t;
    assert_ok(query(b.l, &t, "SELECT rundir, started FROM v_run WHERE run = ?", "s", tune));
    struct stat here, there;
    assert_int_equal(stat(dir, &here), 0);
    assert_int_equal(stat(table_at(&t, 0, 0)->text, &there), 0);
    assert_true(here.st_ino == there.st_ino);
    assert_int_equal(strlen(table_at(&t, 0, 1)->text), strlen("2026-01-01T00:00:00Z"));
    table_done(&t);
    mem_free(dir);
    lab_end(&b);
}

static void numbers_come_back_as_they_were(void **state)
{
    (void)state;
    struct lab b;
    char id[RUN_ID_TEXT];
    int fd;
    lab_begin(&b);
    lab_run(b.l, "one", 1, NULL, id);
    int64_t token = lab_claim(b.l, id, &fd);
    struct ledger_point p[] = {{"loss", 0, NAN},
                               {"loss", 1, INFINITY},
                               {"loss", 2, -INFINITY},
                               {"loss", 3, 0.1},
                               {"a/b.\"'%_[lnt=-3]", 3, -0.0}};
    assert_err(ERR_FAILED, ledger_points(b.l, id, token, p, 5)); /* no segment yet */
    assert_ok(ledger_segment(b.l, id, token, 0));
    assert_ok(ledger_points(b.l, id, token, p, 5));
    assert_ok(ledger_points(b.l, id, token, p, 5)); /* the same batch again is no harm */
    assert_string_equal(
        lab_rows(b.l, "SELECT key, step, value, special FROM v_metric WHERE key = 'loss' ORDER BY step"),
        "loss|0||nan\nloss|1||inf\nloss|2||-inf\nloss|3|0.1|\n");
    assert_int_equal((int)lab_num(b.l, "SELECT count(*) FROM v_metric"), 5);
    assert_true(lab_num(b.l, "SELECT value FROM v_metric WHERE step = 3 AND key = 'loss'") == 0.1);
    struct ledger_run r;
    assert_ok(ledger_get_run(b.l, id, &r));
    assert_true(r.step == 3);
    ledger_run_done(&r);

    struct ledger_eval e = {.run_id = id,
                            .weights = "std05",
                            .step = 500,
                            .evaluator_sha = "e1",
                            .evaluator_canon = "metric=fd_pixel\n",
                            .metric = "fd_pixel",
                            .sampler = "ect",
                            .nfe = 1,
                            .samples = 10000,
                            .seed = 3,
                            .value = NAN,
                            .seconds = 2,
                            .flops = 9};
    assert_false(ledger_has_eval(b.l, id, 500, "std05", "e1"));
    assert_ok(ledger_put_eval(b.l, &e));
    assert_true(ledger_has_eval(b.l, id, 500, "std05", "e1"));
    assert_false(ledger_has_eval(b.l, id, 500, "raw", "e1"));
    assert_false(ledger_has_eval(b.l, id, 400, "std05", "e1"));
    assert_false(ledger_has_eval(b.l, id, 500, "std05", "e2"));
    assert_string_equal(lab_rows(b.l, "SELECT typeof(value) FROM v_eval"), "null\n");
    e.value = INFINITY;
    assert_ok(ledger_put_eval(b.l, &e)); /* the same key: the same row */
    assert_true(isinf(lab_num(b.l, "SELECT value FROM v_eval")));
    e.value = 0.1 + 0.2;
    e.evaluator_sha = "e2";
    assert_ok(ledger_put_eval(b.l, &e));
    assert_true(lab_num(b.l, "SELECT value FROM v_eval WHERE evaluator = 'e2'") == 0.1 + 0.2);

    assert_false(ledger_has_control(b.l, "d", "real_half", "e1"));
    assert_ok(ledger_put_control(b.l, "d", "real_half", &e));
    assert_ok(ledger_put_control(b.l, "d", "real_half", &e));
    assert_true(ledger_has_control(b.l, "d", "real_half", "e2"));
    assert_string_equal(lab_rows(b.l, "SELECT dataset, name, metric, samples, evaluator FROM v_control"),
                        "d|real_half|fd_pixel|10000|e2\n");
    close(fd);
    lab_end(&b);
}

static void what_a_run_leaves_behind(void **state)
{
    (void)state;
    struct lab b;
    char id[RUN_ID_TEXT], sha[SHA256_TEXT];
    int fd;
    lab_begin(&b);
    lab_run(b.l, "one", 1, NULL, id);
    int64_t token = lab_claim(b.l, id, &fd);
    assert_ok(ledger_provenance(b.l, id, "git.revision", "abc"));
    assert_ok(ledger_provenance(b.l, id, "cpu", "x"));
    struct ledger_outcome o = {.status = RUN_INTERRUPTED, .reason = "stopped"};
    assert_ok(ledger_finish(b.l, id, token, &o));
    close(fd);
    token = lab_claim(b.l, id, &fd);
    assert_ok(ledger_provenance(b.l, id, "git.revision", "def"));
    assert_string_equal(lab_rows(b.l, "SELECT key, value FROM v_provenance ORDER BY key"), "cpu|x\ngit.revision|def\n");
    assert_int_equal((int)lab_num(b.l, "SELECT count(*) FROM provenance"), 3);

    assert_ok(ledger_checkpoint_note(b.l, id, token, 100, "ckpt/last.safetensors", "s1", false));
    assert_ok(ledger_checkpoint_note(b.l, id, token, 125, "ckpt/125.safetensors", "s2", true));
    assert_ok(ledger_checkpoint_note(b.l, id, token, 200, "ckpt/last.safetensors", "s3", false));
    assert_string_equal(lab_rows(b.l, "SELECT step, file, sha, keep FROM v_checkpoint ORDER BY step"),
                        "125|ckpt/125.safetensors|s2|1\n200|ckpt/last.safetensors|s3|0\n");
    assert_ok(ledger_put_blob(b.l, "png", 3, "image/png", sha));
    assert_ok(ledger_put_artifact(b.l, id, "grid:data", sha));
    assert_ok(ledger_put_artifact(b.l, id, "grid:data", sha));
    assert_string_equal(lab_rows(b.l, "SELECT role, size FROM v_artifact"), "grid:data|3\n");
    assert_err(ERR_NOT_FOUND, ledger_put_artifact(b.l, id, "grid:ect@1", "no such"));
    close(fd);
    lab_end(&b);
}

static void names_of_runs(void **state)
{
    (void)state;
    struct lab b;
    char ids[20][RUN_ID_TEXT], got[RUN_ID_TEXT], prefix[RUN_ID_TEXT];
    lab_begin(&b);
    assert_err(ERR_NOT_FOUND, ledger_resolve_run(b.l, "@-1", got));
    for (int i = 0; i < 20; i++) lab_run(b.l, "one", i + 1, NULL, ids[i]);
    int ambiguous = 0;
    for (int i = 0; i < 20; i++) {
        assert_ok(ledger_resolve_run(b.l, ids[i], got));
        assert_string_equal(got, ids[i]);
        for (int n = 1; n < 16; n++) {
            int same = 0;
            snprintf(prefix, sizeof prefix, "%.*s", n, ids[i]);
            for (int j = 0; j < 20; j++) same += !strncmp(prefix, ids[j], (size_t)n);
            if (same == 1) {
                assert_ok(ledger_resolve_run(b.l, prefix, got));
                assert_string_equal(got, ids[i]);
            } else {
                ambiguous++;
                assert_err(ERR_USAGE, ledger_resolve_run(b.l, prefix, got));
                assert_has(err_text(), "ambiguous");
                assert_has(err_text(), ids[i]);
            }
        }
    }
    assert_true(ambiguous > 0); /* 20 ids over 16 first digits */
    assert_ok(ledger_resolve_run(b.l, "@-1", got));
    assert_string_equal(got, ids[19]);
    assert_ok(ledger_resolve_run(b.l, "@-20", got));
    assert_string_equal(got, ids[0]);
    assert_err(ERR_NOT_FOUND, ledger_resolve_run(b.l, "@-21", got));
    assert_err(ERR_USAGE, ledger_resolve_run(b.l, "@-0", got));
    assert_err(ERR_NOT_FOUND, ledger_resolve_run(b.l, "", got));
    assert_err(ERR_NOT_FOUND, ledger_resolve_run(b.l, "%", got));
    assert_err(ERR_NOT_FOUND, ledger_resolve_run(b.l, "0123456789abcdef0", got));
    lab_end(&b);
}

static void a_group_is_all_or_nothing(void **state)
{
    (void)state;
    struct lab b;
    char id[RUN_ID_TEXT];
    lab_begin(&b);
    assert_ok(ledger_begin(b.l));
    lab_run(b.l, "one", 1, NULL, id);
    ledger_rollback(b.l);
    assert_int_equal((int)lab_num(b.l, "SELECT count(*) FROM v_run"), 0);
    assert_ok(ledger_begin(b.l));
    lab_run(b.l, "one", 1, NULL, id);
    struct ledger_trial t = {.sweep = 77, .cell = "x", .replicate = 1, .run_id = id}; /* no such sweep: a foreign key */
    assert_true(ledger_put_trial(b.l, &t) != ERR_OK);
    assert_true(ledger_commit(b.l) != ERR_OK);
    assert_int_equal((int)lab_num(b.l, "SELECT count(*) FROM v_run"), 0);
    assert_ok(ledger_begin(b.l));
    lab_run(b.l, "one", 1, NULL, id);
    assert_ok(ledger_commit(b.l));
    assert_int_equal((int)lab_num(b.l, "SELECT count(*) FROM v_run"), 1);
    lab_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(views_have_the_promised_columns),
        cmocka_unit_test(blobs_are_their_bytes),
        cmocka_unit_test(configs_keep_every_setting),
        cmocka_unit_test(runs_are_one_by_config_and_replicate),
        cmocka_unit_test(sweeps_point_at_runs),
        cmocka_unit_test(flops_add_over_attempts_and_ancestors),
        cmocka_unit_test(numbers_come_back_as_they_were),
        cmocka_unit_test(what_a_run_leaves_behind),
        cmocka_unit_test(names_of_runs),
        cmocka_unit_test(a_group_is_all_or_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
