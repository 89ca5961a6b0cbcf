/* Kills. A child process (this program again) trains with dropout, two EMAs and two threads; it is killed with SIGKILL at random moments,
 * also while it writes a checkpoint, and started again until it is done. The last checkpoint has the bytes of a run never killed, and so
 * has its stream of metrics. */
#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/core/trainer.h"

#define ITERS "40"

/* ---- the child: DIR KILL-AFTER-SAVES MICROSECONDS FSIZE-AFTER-FIRST ---------------------------------------------------------------------- */

struct child {
    FILE *log; /* "step key value" lines, appended; a killed process's last line may be cut */
    int saves, kill_at, fsize;
    long delay_us;
};

static void *killer(void *arg)
{
    long us = *(long *)arg;
    struct timespec t = {us / 1000000, us % 1000000 * 1000};
    nanosleep(&t, NULL);
    raise(SIGKILL);
    return NULL;
}

static err_t on_saving(void *ctx, int64_t step)
{
    struct child *c = ctx;
    pthread_t thread;
    (void)step;
    fflush(c->log);
    if (++c->saves == c->kill_at && pthread_create(&thread, NULL, killer, &c->delay_us)) abort();
    return ERR_OK;
}

static err_t on_checkpoint(void *ctx, int64_t step, const char *path)
{
    struct child *c = ctx;
    (void)step;
    if (c->fsize) { /* the disk is full from now on, after half a checkpoint */
        char *data;
        size_t n;
        TRY(file_read(path, 0, &data, &n));
        mem_free(data);
        struct rlimit limit = {n / 2, n / 2};
        setrlimit(RLIMIT_FSIZE, &limit);
    }
    return ERR_OK;
}

static void on_metric(void *ctx, const char *key, int64_t step, double value)
{
    fprintf(((struct child *)ctx)->log, "%lld %s %a\n", (long long)step, key, value);
}

static int child_main(char **argv)
{
    /* METHOD: "ema": an EMA teacher on a grid; "logvar": EDM2 with its uncertainty head; else plain ECT */
    const char *method = getenv("METHOD");
    struct toy toy = toy_default();
    bool averaged = method && !strcmp(method, "ema"), head = method && !strcmp(method, "logvar");
    toy.levels = averaged ? 5 : 0;
    toy.mu = 0.9;
    struct design design = toy_design(&toy);
    struct dataset *data = toy_data();
    struct spec spec;
    struct child c = {.kill_at = atoi(argv[1]), .delay_us = atol(argv[2]), .fsize = atoi(argv[3])};
    struct observer o = {.ctx = &c, .metric = on_metric, .saving = on_saving, .checkpoint = on_checkpoint};
    struct train_result result;
    char *log = mem_printf("%s/log", argv[0]);
    toy_spec(&spec);
    signal(SIGXFSZ, SIG_IGN); /* as the program does: a full disk is an error, not a death */
    c.log = fopen(log, "a");
    mem_free(log);
    if (!c.log || spec_set(&spec, "iters", ITERS) || spec_set(&spec, "ckpt.every", "3")) return 9;
    if (averaged && (spec_set(&spec, "target", "ct") || spec_set(&spec, "loss.teacher", "ema"))) return 9;
    if (head &&
        (spec_set(&spec, "target", "edm") || spec_set(&spec, "net", "edm2") || spec_set(&spec, "net.logvar", "true")))
        return 9;
    struct train_config config = {
        .spec = &spec, .design = &design, .data = data, .seed = 11, .ckpt_dir = argv[0], .observer = &o};
    err_t err = kernels_find("cpu", &config.kernels);
    if (!err) err = config.kernels->open(&config.dev, "cpu", 2);
    if (!err) err = train_run(&config, &result);
    if (err) fprintf(stderr, "%s\n", err_text());
    if (config.dev) config.kernels->close(config.dev);
    fclose(c.log);
    toy_data_free(data);
    return err ? err_exit_code(err) : 0;
}

/* ---- the parent ------------------------------------------------------------------------------------------------------------------------------- */

static const char *self;

/* Runs a child; its standard error goes to DIR/stderr. kill_us >= 0: kills it from outside after that long. */
static int spawn(const char *dir, int kill_at, long delay_us, int fsize, long kill_us)
{
    char at[16], us[24], full[8], err_path[320];
    snprintf(at, sizeof at, "%d", kill_at);
    snprintf(us, sizeof us, "%ld", delay_us);
    snprintf(full, sizeof full, "%d", fsize);
    snprintf(err_path, sizeof err_path, "%s/stderr", dir);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        int fd = open(err_path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        if (fd < 0 || dup2(fd, 2) < 0) _exit(8);
        execl(self, self, "child", dir, at, us, full, (char *)NULL);
        _exit(8);
    }
    if (kill_us >= 0) {
        struct timespec t = {kill_us / 1000000, kill_us % 1000000 * 1000};
        nanosleep(&t, NULL);
        kill(pid, SIGKILL);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void last_checkpoint(const char *dir, char hash[SHA256_TEXT])
{
    char path[320];
    snprintf(path, sizeof path, "%s/step-%09d.safetensors", dir, atoi(ITERS));
    assert_ok(sha256_file(path, hash));
}

static void assert_stderr(const char *dir, const char *part)
{
    char path[320], *text;
    size_t n;
    snprintf(path, sizeof path, "%s/stderr", dir);
    assert_ok(file_read(path, 0, &text, &n));
    assert_has(text, part);
    mem_free(text);
}

/* Lines of a log by (step, key), the last one standing; sorted text of all. */
static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}
static size_t label(const char *line) /* length of "step key" */
{
    const char *space = strchr(line, ' ');
    return space ? strcspn(space + 1, " ") + (size_t)(space + 1 - line) : 0;
}

static char *stream(const char *dir)
{
    char path[320], *text, *lines[8192];
    size_t n;
    int count = 0;
    struct text out = {0};
    snprintf(path, sizeof path, "%s/log", dir);
    assert_ok(file_read(path, 0, &text, &n));
    for (char *p = strtok(text, "\n"); p; p = strtok(NULL, "\n")) {
        for (int i = 0; i < count; i++) {
            if (label(p) == label(lines[i]) && !strncmp(p, lines[i], label(p))) lines[i] = lines[--count];
        }
        lines[count++] = p;
        assert_true(count < 8192);
    }
    qsort(lines, (size_t)count, sizeof lines[0], by_text);
    for (int i = 0; i < count; i++) text_addf(&out, "%s\n", lines[i]);
    mem_free(text);
    return out.s;
}

static char whole_dir[256], whole_hash[SHA256_TEXT];
static char *whole_stream;
static double whole_seconds;

static double now(void)
{
    return (double)host.mono_ns() * 1e-9;
}

static int run_whole(void **state)
{
    (void)state;
    test_dir(whole_dir, sizeof whole_dir);
    double began = now();
    if (spawn(whole_dir, 0, 0, 0, -1)) return -1;
    whole_seconds = now() - began;
    last_checkpoint(whole_dir, whole_hash);
    whole_stream = stream(whole_dir);
    return 0;
}

static int free_whole(void **state)
{
    (void)state;
    mem_free(whole_stream);
    return 0;
}

static uint32_t random_state = 12345;
static uint32_t draw(uint32_t n)
{
    random_state = random_state * 1664525U + 1013904223U;
    return (uint32_t)(((uint64_t)random_state * n) >> 32);
}

static void finish_and_compare(const char *dir)
{
    char hash[SHA256_TEXT];
    assert_int_equal(spawn(dir, 0, 0, 0, -1), 0);
    last_checkpoint(dir, hash);
    assert_string_equal(hash, whole_hash);
}

static void killed_at_random_steps(void **state)
{
    (void)state;
    char dir[256];
    int killed = 0;
    test_dir(dir, sizeof dir);
    for (int i = 0; i < 6; i++) {
        int rc = spawn(dir, 0, 0, 0, (long)(draw(1000) * whole_seconds * 1000));
        assert_true(rc == 0 || rc == -SIGKILL);
        killed += rc == -SIGKILL;
    }
    assert_true(killed > 0);
    finish_and_compare(dir);
}

static void killed_while_writing_checkpoints(void **state)
{
    (void)state;
    char dir[256];
    int killed = 0;
    test_dir(dir, sizeof dir);
    for (int i = 0; i < 10; i++) {
        int rc = spawn(dir, 1 + (int)draw(3), draw(3000), 0, -1);
        assert_true(rc == 0 || rc == -SIGKILL);
        killed += rc == -SIGKILL;
    }
    assert_true(killed > 0);
    finish_and_compare(dir);
    /* every metric is there with its value: what was lost was logged again, what was not lost was flushed before the checkpoint */
    char *mine = stream(dir);
    assert_string_equal(mine, whole_stream);
    mem_free(mine);
}

static void newest_checkpoint_is_cut(void **state)
{
    (void)state;
    char dir[256], path[320];
    test_dir(dir, sizeof dir);
    assert_int_equal(spawn(dir, 5, 0, 0, -1), -SIGKILL);
    char *newest;
    int64_t step;
    assert_ok(train_find_checkpoint(dir, -1, &newest, &step));
    assert_true(step >= 9);
    assert_int_equal(truncate(newest, 3000), 0);
    mem_free(newest);
    finish_and_compare(dir);
    assert_stderr(dir, "going back");
    snprintf(path, sizeof path, "step-%09lld", (long long)step);
    assert_stderr(dir, path);
}

static void all_checkpoints_are_cut(void **state)
{
    (void)state;
    char dir[256];
    test_dir(dir, sizeof dir);
    assert_int_equal(spawn(dir, 4, 0, 0, -1), -SIGKILL);
    for (int i = 0; i <= atoi(ITERS); i++) {
        char path[320];
        snprintf(path, sizeof path, "%s/step-%09d.safetensors", dir, i);
        if (file_exists(path)) assert_int_equal(truncate(path, 100), 0);
    }
    finish_and_compare(dir); /* from the beginning */
}

static void disk_is_full(void **state)
{
    (void)state;
    char dir[256], *path;
    int64_t step;
    test_dir(dir, sizeof dir);
    assert_int_equal(spawn(dir, 0, 0, 1, -1), err_exit_code(ERR_IO));
    assert_stderr(dir, "checkpoint of step 6");
    assert_stderr(dir, strerror(EFBIG));
    assert_ok(train_find_checkpoint(dir, -1, &path, &step));
    assert_int_equal(step, 3); /* the one before is whole */
    mem_free(path);
    finish_and_compare(dir);
}

static void leftovers_are_swept(void **state)
{
    (void)state;
    char dir[256], path[320];
    test_dir(dir, sizeof dir);
    snprintf(path, sizeof path, "%s/step-000000007.safetensors.tmp-4711", dir);
    assert_ok(file_write_atomic(path, "half", 4));
    assert_int_equal(spawn(dir, 0, 0, 0, -1), 0);
    assert_false(file_exists(path));
}

static void foreign_checkpoint(void **state)
{
    (void)state;
    char from[320], to[320], dir[256], *data;
    size_t n;
    test_dir(dir, sizeof dir);
    snprintf(from, sizeof from, "%s/step-%09d.safetensors", whole_dir, atoi(ITERS));
    snprintf(to, sizeof to, "%s/step-%09d.safetensors", dir, atoi(ITERS));
    assert_ok(file_read(from, 0, &data, &n));
    char *seed = memmem(data, n, "000000000000000b", 16); /* seed 11 */
    assert_non_null(seed);
    seed[15] = 'c';
    assert_ok(file_write_atomic(to, data, n));
    mem_free(data);
    assert_int_equal(spawn(dir, 0, 0, 0, -1), err_exit_code(ERR_FORMAT));
    assert_stderr(dir, "another configuration or seed");
}

/* An EMA teacher, forced weight normalisation and an uncertainty head survive a kill as well. */
static void other_methods(void **state)
{
    (void)state;
    static const char *const methods[] = {"ema", "logvar"};
    for (size_t m = 0; m < ARRAY_LEN(methods); m++) {
        char whole[256], dir[256], want[SHA256_TEXT], got[SHA256_TEXT];
        int killed = 0;
        setenv("METHOD", methods[m], 1);
        assert_int_equal(spawn(test_dir(whole, sizeof whole), 0, 0, 0, -1), 0);
        last_checkpoint(whole, want);
        assert_string_not_equal(want, whole_hash);
        test_dir(dir, sizeof dir);
        for (int i = 0; i < 4; i++) killed += spawn(dir, 1 + (int)draw(3), draw(3000), 0, -1) == -SIGKILL;
        assert_true(killed > 0);
        assert_int_equal(spawn(dir, 0, 0, 0, -1), 0);
        last_checkpoint(dir, got);
        assert_string_equal(got, want);
    }
    unsetenv("METHOD");
}

int main(int argc, char **argv)
{
    if (argc == 6 && !strcmp(argv[1], "child")) return child_main(argv + 2);
    self = argv[0];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_at_random_steps),
        cmocka_unit_test(killed_while_writing_checkpoints),
        cmocka_unit_test(newest_checkpoint_is_cut),
        cmocka_unit_test(all_checkpoints_are_cut),
        cmocka_unit_test(disk_is_full),
        cmocka_unit_test(leftovers_are_swept),
        cmocka_unit_test(foreign_checkpoint),
        cmocka_unit_test(other_methods),
    };
    return cmocka_run_group_tests(tests, run_whole, free_whole);
}
