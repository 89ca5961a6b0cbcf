/* A run's states: who may take it, who may end it, and what a resume does to its curve. */
#include "tests/db/lab.h"

static struct ledger_outcome outcome(enum run_status s, const char *reason)
{
    return (struct ledger_outcome){.status = s,
                                   .reason = reason,
                                   .step = 500,
                                   .nimg = 32000,
                                   .flops_executed = 5,
                                   .seconds = 1,
                                   .images_per_s = 10};
}

static void only_the_holder_of_the_lock_claims(void **state)
{
    (void)state;
    struct lab b;
    char id[RUN_ID_TEXT];
    int fd, fd2;
    lab_begin(&b);
    lab_run(b.l, "one", 1, NULL, id);
    struct ledger_claim c = {.device = "cpu", .threads = 2};
    int64_t token;
    assert_err(ERR_FAILED, ledger_claim(b.l, id, &c, &token));
    assert_true(token == 0 && lab_status(b.l, id) == RUN_PENDING);
    assert_false(ledger_run_alive(b.l, id));
    assert_true(lab_claim(b.l, id, &fd) == 1);
    assert_true(ledger_run_alive(b.l, id));
    assert_true(lab_status(b.l, id) == RUN_RUNNING);

    /* another process's handle */
    struct ledger *other;
    assert_ok(ledger_open(&other, b.path, LEDGER_WRITE));
    assert_err(ERR_STALE, ledger_run_lock(other, id, &fd2));
    char pid[32];
    snprintf(pid, sizeof pid, "pid %ld", (long)getpid());
    assert_has(err_text(), pid);
    assert_ok(ledger_claim(other, id, &c, &token));
    assert_true(token == 0);
    bool stale;
    assert_ok(ledger_reap(other, id, 0, &stale));
    assert_false(stale);
    assert_err(ERR_STALE, ledger_run_reset(other, id));
    assert_true(lab_status(b.l, id) == RUN_RUNNING);
    ledger_close(other);
    close(fd);
    assert_false(ledger_run_alive(b.l, id));
    lab_end(&b);
}

static void claims_keep_the_first_thread_count(void **state)
{
    (void)state;
    struct lab b;
    char id[RUN_ID_TEXT];
    int fd;
    int64_t token;
    lab_begin(&b);
    lab_run(b.l, "one", 1, NULL, id);
    token = lab_claim(b.l, id, &fd);
    struct ledger_outcome o = outcome(RUN_INTERRUPTED, "Ctrl-C");
    assert_ok(ledger_finish(b.l, id, token, &o));
    struct ledger_claim c = {.device = "cpu", .threads = 8};
    assert_ok(ledger_claim(b.l, id, &c, &token));
    assert_true(token == 2 && c.threads == 2);
    struct ledger_run r;
    assert_ok(ledger_get_run(b.l, id, &r));
    assert_true(r.threads == 2 && r.attempt == 2 && r.token == 2 && r.status == RUN_RUNNING);
    assert_string_equal(r.reason, "");
    ledger_run_done(&r);
    close(fd);
    lab_end(&b);
}

static void an_old_token_changes_nothing(void **state)
{
    (void)state;
    struct lab b;
    char id[RUN_ID_TEXT];
    int fd, fd2;
    bool stale;
    lab_begin(&b);
    lab_run(b.l, "one", 1, NULL, id);
    int64_t old = lab_claim(b.l, id, &fd);
    assert_ok(ledger_segment(b.l, id, old, 0));
    struct ledger_point p = {"loss", 1, 1.0};
    assert_ok(ledger_points(b.l, id, old, &p, 1));
    close(fd); /* the first process is believed dead */
    assert_ok(ledger_reap(b.l, id, SIGKILL, &stale));
    assert_true(stale);
    int64_t token = lab_claim(b.l, id, &fd2);
    assert_true(token == old + 1);
    assert_ok(ledger_segment(b.l, id, token, 0));

    /* and wakes */
    struct ledger_outcome o = outcome(RUN_FAILED, "I am late");
    p.value = 666;
    struct ledger_progress g = {.step = 9, .flops_executed = 1e9};
    assert_err(ERR_STALE, ledger_finish(b.l, id, old, &o));
    assert_err(ERR_STALE, ledger_points(b.l, id, old, &p, 1));
    assert_err(ERR_STALE, ledger_segment(b.l, id, old, 0));
    assert_err(ERR_STALE, ledger_progress(b.l, id, old, &g));
    assert_err(ERR_STALE, ledger_checkpoint_note(b.l, id, old, 1, "f", "s", true));
    assert_true(lab_status(b.l, id) == RUN_RUNNING);
    assert_int_equal((int)lab_num(b.l, "SELECT count(*) FROM point WHERE value = 666"), 0);
    assert_int_equal((int)lab_num(b.l, "SELECT count(*) FROM segment"), 2);
    assert_int_equal((int)lab_num(b.l, "SELECT count(*) FROM checkpoint"), 0);

    o = outcome(RUN_DONE, "");
    assert_ok(ledger_finish(b.l, id, token, &o));
    assert_err(ERR_STALE, ledger_finish(b.l, id, token, &o)); /* once */
    assert_true(lab_num(b.l, "SELECT flops_executed FROM v_run") == 5);
    int64_t none = -1;
    struct ledger_claim c = {.threads = 1};
    assert_ok(ledger_claim(b.l, id, &c, &none)); /* done is done */
    assert_true(none == 0);
    close(fd2);
    lab_end(&b);
}

/* A child takes the run and is killed: the lock says so at once, and only then may the run be reaped or taken over. */
static void a_killed_process_is_noticed(void **state)
{
    (void)state;
    struct lab b;
    char id[RUN_ID_TEXT], go;
    int ready[2];
    bool stale;
    lab_begin(&b);
    lab_run(b.l, "one", 1, NULL, id);
    lab_end(&b); /* no handle crosses a fork */
    assert_int_equal(pipe(ready), 0);
    pid_t pid = lab_fork();
    if (!pid) {
        struct ledger *l;
        int fd;
        child_need(!ledger_open(&l, b.path, LEDGER_WRITE));
        int64_t token = lab_claim(l, id, &fd);
        child_need(token == 1);
        child_need(!ledger_segment(l, id, token, 0));
        struct ledger_progress p = {.step = 40, .nimg = 2560, .flops_executed = 11, .seconds = 3, .images_per_s = 7};
        child_need(!ledger_progress(l, id, token, &p));
        child_need(write(ready[1], "x", 1) == 1);
        pause();
    }
    assert_int_equal(read(ready[0], &go, 1), 1);
    assert_ok(ledger_open(&b.l, b.path, LEDGER_WRITE));
    assert_true(ledger_run_alive(b.l, id));
    assert_ok(ledger_reap(b.l, id, 0, &stale));
    assert_false(stale);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_false(ledger_run_alive(b.l, id));
    assert_true(lab_status(b.l, id) == RUN_RUNNING); /* what the table says; nobody said goodbye */
    assert_ok(ledger_reap(b.l, id, SIGKILL, &stale));
    assert_true(stale);
    assert_string_equal(lab_rows(b.l, "SELECT status, step, flops_executed, seconds FROM v_run"),
                        "interrupted|40|11.0|3.0\n");
    assert_has(lab_rows(b.l, "SELECT reason FROM v_run"), "signal 9");
    assert_ok(ledger_reap(b.l, id, SIGKILL, &stale));
    assert_false(stale);
    close(ready[0]);
    close(ready[1]);
    lab_end(&b);
}

static void a_vanished_run_can_be_taken_over_without_a_reap(void **state)
{
    (void)state;
    struct lab b;
    char id[RUN_ID_TEXT];
    int fd;
    lab_begin(&b);
    lab_run(b.l, "one", 1, NULL, id);
    int64_t token = lab_claim(b.l, id, &fd);
    assert_ok(ledger_segment(b.l, id, token, 0));
    struct ledger_progress p = {.step = 40, .flops_executed = 11, .seconds = 3};
    assert_ok(ledger_progress(b.l, id, token, &p));
    close(fd);
    assert_true(lab_claim(b.l, id, &fd) == 2);
    assert_ok(ledger_segment(b.l, id, 2, 30));
    struct ledger_outcome o = outcome(RUN_DONE, "");
    assert_ok(ledger_finish(b.l, id, 2, &o));
    assert_string_equal(lab_rows(b.l, "SELECT flops_executed, seconds FROM v_run"), "16.0|4.0\n");
    assert_string_equal(lab_rows(b.l, "SELECT segment, from_step FROM v_segment ORDER BY 1"), "1|0\n2|30\n");
    close(fd);
    lab_end(&b);
}

static void crashes_are_failures(void **state)
{
    (void)state;
    struct lab b;
    char id[RUN_ID_TEXT];
    int fd;
    bool stale;
    lab_begin(&b);
    lab_run(b.l, "one", 1, NULL, id);
    assert_true(lab_claim(b.l, id, &fd) == 1);
    close(fd);
    assert_ok(ledger_reap(b.l, id, SIGSEGV, &stale));
    assert_true(stale && lab_status(b.l, id) == RUN_FAILED);
    assert_true(lab_claim(b.l, id, &fd) == 2); /* failed runs are tried again */
    close(fd);
    lab_end(&b);
}

static void resets(void **state)
{
    (void)state;
    static const struct {
        enum run_status from;
        err_t want;
    } cases[] = {{RUN_FAILED, ERR_OK}, {RUN_INTERRUPTED, ERR_OK}, {RUN_DONE, ERR_USAGE}, {RUN_DIVERGED, ERR_USAGE}};
    struct lab b;
    lab_begin(&b);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char id[RUN_ID_TEXT];
        int fd;
        lab_run(b.l, "one", (int)i + 1, NULL, id);
        assert_ok(ledger_run_reset(b.l, id)); /* pending already */
        int64_t token = lab_claim(b.l, id, &fd);
        struct ledger_outcome o = outcome(cases[i].from, "why");
        assert_ok(ledger_finish(b.l, id, token, &o));
        assert_err(cases[i].want, ledger_run_reset(b.l, id));
        assert_true(lab_status(b.l, id) == (cases[i].want ? cases[i].from : RUN_PENDING));
        close(fd);
    }
    char id[RUN_ID_TEXT];
    int fd;
    lab_run(b.l, "one", 9, NULL, id);
    assert_true(lab_claim(b.l, id, &fd) == 1);
    close(fd); /* running, but dead */
    assert_ok(ledger_run_reset(b.l, id));
    assert_true(lab_status(b.l, id) == RUN_PENDING);
    assert_err(ERR_NOT_FOUND, ledger_run_reset(b.l, "0000000000000000"));
    lab_end(&b);
}

static void a_failed_parent_blocks_its_descendants(void **state)
{
    (void)state;
    struct lab b;
    char pre[RUN_ID_TEXT], child[RUN_ID_TEXT], grand[RUN_ID_TEXT], done[RUN_ID_TEXT], other[RUN_ID_TEXT];
    int fd;
    lab_begin(&b);
    lab_run(b.l, "pre", 1, NULL, pre);
    lab_run(b.l, "child", 1, pre, child);
    lab_run(b.l, "grand", 1, child, grand);
    lab_run(b.l, "done", 1, pre, done);
    lab_run(b.l, "other", 1, NULL, other);
    struct ledger_outcome o = outcome(RUN_DONE, "");
    int64_t token = lab_claim(b.l, done, &fd);
    assert_ok(ledger_finish(b.l, done, token, &o));
    close(fd);
    assert_ok(ledger_block_children(b.l, pre, "pre diverged"));
    assert_true(lab_status(b.l, child) == RUN_BLOCKED && lab_status(b.l, grand) == RUN_BLOCKED);
    assert_true(lab_status(b.l, done) == RUN_DONE && lab_status(b.l, other) == RUN_PENDING &&
                lab_status(b.l, pre) == RUN_PENDING);
    struct ledger_run r;
    assert_ok(ledger_get_run(b.l, child, &r));
    assert_string_equal(r.reason, "pre diverged");
    ledger_run_done(&r);
    assert_true(lab_claim(b.l, child, &fd) == 0); /* not to be taken */
    close(fd);
    assert_ok(ledger_run_reset(b.l, child));
    assert_true(lab_status(b.l, child) == RUN_PENDING);
    lab_end(&b);
}

static void log_steps(struct ledger *l, const char *id, int64_t token, int64_t from, int64_t to, int64_t every,
                      double value)
{
    for (int64_t s = from; s <= to; s += every) {
        struct ledger_point p[] = {{"loss", s, value}, {"lr", s, value}};
        assert_ok(ledger_points(l, id, token, p, 2));
    }
}

/* Logged to 500, resumed from the checkpoint of 400: the curve goes 400 (first), 410 ... (second); the tail is hidden,
 * not gone. */
static void a_resume_hides_the_abandoned_tail(void **state)
{
    (void)state;
    struct lab b;
    char id[RUN_ID_TEXT];
    int fd;
    lab_begin(&b);
    lab_run(b.l, "one", 1, NULL, id);
    int64_t token = lab_claim(b.l, id, &fd);
    assert_ok(ledger_segment(b.l, id, token, 0));
    log_steps(b.l, id, token, 0, 500, 10, 1);
    close(fd);
    token = lab_claim(b.l, id, &fd);
    assert_ok(ledger_segment(b.l, id, token, 400));
    assert_string_equal(lab_rows(b.l, "SELECT count(*), max(step) FROM v_metric WHERE key = 'loss'"), "41|400\n");
    struct ledger_run r;
    assert_ok(ledger_get_run(b.l, id, &r));
    assert_true(r.step == 400);
    ledger_run_done(&r);
    log_steps(b.l, id, token, 410, 440, 10, 2);
    assert_string_equal(lab_rows(b.l, "SELECT count(*), max(step), sum(value) FROM v_metric WHERE key = 'loss'"),
                        "45|440|49.0\n");
    close(fd);
    /* a third process begins before the second did: what both said after 200 is hidden */
    token = lab_claim(b.l, id, &fd);
    assert_ok(ledger_segment(b.l, id, token, 200));
    log_steps(b.l, id, token, 200, 460, 20, 4); /* logs its first step again: the later word wins */
    assert_string_equal(
        lab_rows(b.l, "SELECT value, count(*), min(step), max(step) FROM v_metric WHERE key = 'loss' GROUP BY 1"),
        "1.0|20|0|190\n4.0|14|200|460\n");
    assert_int_equal((int)lab_num(b.l, "SELECT count(*) FROM point"), 2 * (51 + 4 + 14));
    close(fd);
    lab_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_holder_of_the_lock_claims),
        cmocka_unit_test(claims_keep_the_first_thread_count),
        cmocka_unit_test(an_old_token_changes_nothing),
        cmocka_unit_test(a_killed_process_is_noticed),
        cmocka_unit_test(a_vanished_run_can_be_taken_over_without_a_reap),
        cmocka_unit_test(crashes_are_failures),
        cmocka_unit_test(resets),
        cmocka_unit_test(a_failed_parent_blocks_its_descendants),
        cmocka_unit_test(a_resume_hides_the_abandoned_tail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
