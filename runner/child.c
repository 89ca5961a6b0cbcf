/* child: other programs, run and listened to. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner/runner.h"

void child_capture(const char *dir, const char *const *argv, size_t limit, struct text *out, int *status)
{
    int p[2];
    *status = -1;
    if (pipe2(p, O_CLOEXEC)) return;
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        signal(SIGPIPE, SIG_DFL);
        if (null >= 0 && dup2(null, 0) >= 0 && dup2(null, 2) >= 0 && dup2(p[1], 1) >= 0 &&
            (!dir || !*dir || chdir(dir) == 0))
            execvp(argv[0], (char *const *)argv);
        _exit(127);
    }
    close(p[1]);
    char buf[65536];
    for (ssize_t n; pid > 0;) {
        n = read(p[0], buf, sizeof buf);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        size_t room = limit - out->len;
        text_addn(out, buf, (size_t)n < room ? (size_t)n : room);
        if (out->len >= limit) break;
    }
    close(p[0]);
    int st = 0;
    while (pid > 0 && waitpid(pid, &st, 0) < 0 && errno == EINTR) {}
    if (pid > 0 && WIFEXITED(st) && WEXITSTATUS(st) != 127) *status = WEXITSTATUS(st);
}
