/* Files: a full disk (here the file size limit), a kill at any moment, unwritable places; finding shipped data. */
#include "tests/test.h"

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int entries(const char *dir)
{
    DIR *d = opendir(dir);
    int n = 0;
    for (struct dirent *e; (e = readdir(d));) n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void reading(void **state)
{
    (void)state;
    char dir[256], path[300], *data;
    size_t n;
    snprintf(path, sizeof path, "%s/f", test_dir(dir, sizeof dir));
    assert_err(ERR_IO, file_read(path, 0, &data, &n));
    assert_has(err_text(), path);
    assert_err(ERR_IO, file_read(dir, 0, &data, &n));
    assert_has(err_text(), "directory");
    assert_ok(file_write_atomic(path, "hello\0you", 9));
    assert_ok(file_read(path, 0, &data, &n));
    assert_int_equal(n, 9);
    assert_memory_equal(data, "hello\0you", 10);
    mem_free(data);
    assert_ok(file_read(path, 9, &data, &n));
    mem_free(data);
    assert_err(ERR_FORMAT, file_read(path, 8, &data, &n));
    assert_ok(file_write_atomic(path, "", 0));
    assert_ok(file_read(path, 0, &data, &n));
    assert_int_equal(n, 0);
    assert_string_equal(data, "");
    mem_free(data);
    assert_ok(file_read("/proc/self/status", 0, &data, &n)); /* says size 0 */
    assert_true(n > 100);
    mem_free(data);
}

static void full_disk(void **state)
{
    (void)state;
    char dir[256], path[300], *data, *big = mem_alloc(1 << 20);
    size_t n;
    snprintf(path, sizeof path, "%s/f", test_dir(dir, sizeof dir));
    assert_ok(file_write_atomic(path, "old", 3));
    struct rlimit was, small;
    getrlimit(RLIMIT_FSIZE, &was);
    small = was;
    small.rlim_cur = 100000;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    err_t e = file_write_atomic(path, big, 1 << 20);
    setrlimit(RLIMIT_FSIZE, &was);
    signal(SIGXFSZ, SIG_DFL);
    assert_int_equal(e, ERR_IO);
    assert_has(err_text(), path);
    assert_has(err_text(), "too large");
    assert_int_equal(entries(dir), 1); /* no temporary file left */
    assert_ok(file_read(path, 0, &data, &n));
    assert_string_equal(data, "old");
    mem_free(data);
    mem_free(big);
}

static void killed(void **state)
{
    (void)state;
    enum { SIZE = 1 << 20 };
    char dir[256], path[300], *big[2] = {mem_alloc(SIZE), mem_alloc(SIZE)}, *data;
    size_t n;
    memset(big[0], 'a', SIZE);
    memset(big[1], 'b', SIZE);
    snprintf(path, sizeof path, "%s/f", test_dir(dir, sizeof dir));
    assert_ok(file_write_atomic(path, big[0], SIZE));
    for (int round = 0; round < 12; round++) {
        pid_t pid = fork();
        if (pid == 0)
            for (int i = 0;; i++)
                if (file_write_atomic(path, big[i & 1], SIZE)) _exit(1);
        usleep(700u * (unsigned)round + 300);
        kill(pid, SIGKILL);
        int st;
        waitpid(pid, &st, 0);
        assert_true(WIFSIGNALED(st));
        assert_ok(file_read(path, 0, &data, &n));
        assert_int_equal(n, SIZE);
        assert_memory_equal(data, big[data[0] == 'b'], SIZE);
        mem_free(data);
    }
    mem_free(big[0]);
    mem_free(big[1]);
}

static void directories(void **state)
{
    (void)state;
    char dir[256], path[400];
    test_dir(dir, sizeof dir);
    snprintf(path, sizeof path, "%s//a/b/c/", dir);
    assert_ok(dir_make(path));
    assert_ok(dir_make(path));
    assert_true(file_exists(path));
    snprintf(path, sizeof path, "%s/a/file", dir);
    assert_ok(file_write_atomic(path, "x", 1));
    snprintf(path, sizeof path, "%s/a/file/below", dir);
    assert_err(ERR_IO, dir_make(path));
    assert_err(ERR_IO, file_write_atomic(path, "x", 1));
    assert_err(ERR_IO, dir_make("/proc/nothing/here"));
    assert_false(file_exists(path));
}

static void shared_data(void **state)
{
    (void)state;
    char dir[256], path[400], *found;
    snprintf(path, sizeof path, "%s/data", test_dir(dir, sizeof dir));
    assert_ok(dir_make(path));
    snprintf(path, sizeof path, "%s/data/digits.csv.gz", dir);
    assert_ok(file_write_atomic(path, "x", 1));
    setenv("ECT_DATA", dir, 1);
    assert_ok(share_find("data/digits.csv.gz", &found));
    assert_string_equal(found, path);
    mem_free(found);
    unsetenv("ECT_DATA");
    assert_ok(share_find("data/digits.csv.gz", &found));
    assert_string_equal(found, "experiments/data/digits.csv.gz");
    mem_free(found);
    assert_err(ERR_NO_DATA, share_find("data/no-such-thing", &found));
    assert_has(err_text(), "ECT_DATA");
    assert_has(err_text(), "data/no-such-thing");
}

static void hosts(void **state)
{
    (void)state;
    int64_t a = host.mono_ns(), b = host.mono_ns();
    assert_true(b >= a);
    assert_true(host.now_ms() > 1500000000000);
    assert_true(strlen(host.hostname()) > 0);
    assert_int_equal(host.fs_type("/proc"), 0x9fa0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(reading),     cmocka_unit_test(full_disk),
                                       cmocka_unit_test(killed),      cmocka_unit_test(directories),
                                       cmocka_unit_test(shared_data), cmocka_unit_test(hosts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
