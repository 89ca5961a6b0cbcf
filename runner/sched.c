#include "runner/sched.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner/machine.h"
#include "runner/progress.h"

enum { RETRIES = 2, ELSEWHERE_MS = 1000, SAME_STOP_MS = 500 };

struct worker {
    pid_t pid; /* 0: free */
    int fd, job;
    char line[1024];
    size_t len;
    char *error;
    struct progress_run shown;
};
struct sched {
    struct plan *p;
    const struct sched_opts *o;
    struct worker *w;
    int nw, threads;
    struct progress progress;
    struct git_state git;
    bool stopping, killed, failed_once;
    int64_t looked_ms;  /* at runs held elsewhere */
    int64_t stopped_ms; /* when the first signal was heeded */
    struct sched_result *result;
};

/* Signals are counted by the handler and acted on by the loop, which a pipe wakes. */
static volatile sig_atomic_t stops;
static int wake[2] = {-1, -1};

static void on_signal(int sig)
{
    int e = errno;
    if (sig != SIGCHLD) stops++;
    if (write(wake[1], "", 1) < 0) {} /* full: the loop wakes anyway */
    errno = e;
}

/* ---- starting ------------------------------------------------------------------------------------------------------------ */

enum { ARGC = 24, TEXTS = 8 };

/* The environment of a worker: threads are fixed before any library starts, and idle threads sleep instead of spinning. */
static char **worker_env(int threads)
{
    static const char *const own[] = {"OMP_NUM_THREADS=", "OMP_WAIT_POLICY=", "OPENBLAS_NUM_THREADS=", "OMP_DYNAMIC="};
    size_t n = 0, kept = 0;
    while (environ[n]) n++;
    char **env = mem_array(n + ARRAY_LEN(own) + 1, sizeof *env);
    for (size_t i = 0; i < n; i++) {
        bool mine = false;
        for (size_t k = 0; k < ARRAY_LEN(own); k++) mine |= !strncmp(environ[i], own[k], strlen(own[k]));
        if (!mine) env[kept++] = mem_strdup(environ[i]);
    }
    env[kept++] = mem_printf("OMP_NUM_THREADS=%d", threads);
    env[kept++] = mem_printf("OPENBLAS_NUM_THREADS=%d", threads);
    env[kept++] = mem_strdup("OMP_WAIT_POLICY=passive");
    env[kept++] = mem_strdup("OMP_DYNAMIC=false");
    return env;
}

static void free_strings(char **v)
{
    for (size_t i = 0; v[i]; i++) mem_free(v[i]);
    mem_free(v);
}

/* In the child: only calls that are safe between fork and exec. Its own process group, so that Ctrl-C reaches it through the scheduler
 * only; a signal when the scheduler dies. */
static void child_exec(char **argv, char **env, int log, int pipe_fd, pid_t above)
{
    int null = open("/dev/null", O_RDONLY);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != above) _exit(75);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGCHLD, SIG_DFL);
    fcntl(pipe_fd, F_SETFD, 0);
    if (null >= 0) dup2(null, 0);
    if (log >= 0) {
        dup2(log, 1);
        dup2(log, 2);
    }
    /* By its own name where it still has one: debuggers and valgrind see through readlink but not through the link itself. A binary
     * that was rebuilt meanwhile ("... (deleted)") is run by the link, so that all workers of a sweep are the same program. */
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    if (n > 0 && !strstr(self, " (deleted)")) execve(self, argv, env);
    execve("/proc/self/exe", argv, env);
    _exit(127);
}

static err_t open_log(struct sched *s, const struct job *j, int *fd)
{
    char *dir = ledger_run_dir(s->p->lab->ledger, j->id), *path = mem_printf("%s/log.txt", dir);
    err_t err = dir_make(dir);
    if (!err) {
        *fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
        if (*fd < 0) err = fail(ERR_IO, "open %s: %s", path, strerror(errno));
    }
    mem_free(path);
    mem_free(dir);
    return err;
}

static char **worker_argv(const struct sched *s, const struct job *j, int threads, int pipe_fd)
{
    char **v = mem_array(ARGC, sizeof *v);
    int n = 0;
    v[n++] = mem_strdup("ect");
    v[n++] = mem_strdup("worker");
    v[n++] = mem_strdup(j->id);
    v[n++] = mem_printf("--ledger=%s", ledger_path(s->p->lab->ledger));
    v[n++] = mem_printf("--sweep=%lld", (long long)j->sweep);
    v[n++] = mem_printf("--threads=%d", threads);
    v[n++] = mem_printf("--pipe=%d", pipe_fd);
    v[n++] = mem_printf("--above=%d", (int)getpid());
    v[n++] = mem_printf("--git-revision=%s", s->git.revision);
    v[n++] = mem_printf("--git-diff=%s", s->git.diff_sha);
    if (s->o->device) v[n++] = mem_printf("--device=%s", s->o->device);
    return v;
}

static void label_of(const struct plan *p, const struct job *j, char *buf, size_t n)
{
    const struct script_cell *c = plan_cell(p, j);
    snprintf(buf, n, "%.24s/%.24s #%d", c->sweep, c->cell, j->replicate);
}

static err_t start(struct sched *s, struct worker *w, int job)
{
    struct job *j = &s->p->jobs[job];
    const struct script_cell *c = plan_cell(s->p, j);
    int threads = j->threads ? j->threads : c->spec.threads ? (int)c->spec.threads : s->threads;
    int p[2], log = -1;
    TRY(open_log(s, j, &log));
    if (pipe2(p, O_CLOEXEC)) {
        close(log);
        return fail(ERR_FAILED, "pipe: %s", strerror(errno));
    }
    char **argv = worker_argv(s, j, threads, p[1]), **env = worker_env(threads);
    pid_t above = getpid(), pid = fork();
    if (pid == 0) child_exec(argv, env, log, p[1], above);
    int e = errno;
    free_strings(argv);
    free_strings(env);
    close(p[1]);
    close(log);
    if (pid < 0) {
        close(p[0]);
        return fail(ERR_FAILED, "fork: %s", strerror(e));
    }
    setpgid(pid, pid);
    fcntl(p[0], F_SETFL, O_NONBLOCK);
    int64_t now = host.mono_ns() / 1000000;
    *w = (struct worker){.pid = pid, .fd = p[0], .job = job, .shown = {.began_ms = now, .told_ms = now}};
    label_of(s->p, j, w->shown.label, sizeof w->shown.label);
    memcpy(w->shown.id, j->id, sizeof w->shown.id);
    bool again = j->retries > 0;
    j->state = JOB_ACTIVE;
    s->result->started++;
    if (!s->progress.live)
        progress_say(&s->progress, "%s  run %s: %s, %d thread%s", w->shown.label, j->id,
                     j->need == NEED_EVALS ? "evaluating"
                     : again || j->step    ? "going on"
                                           : "training",
                     threads, threads == 1 ? "" : "s");
    return ERR_OK;
}

/* ---- choosing ------------------------------------------------------------------------------------------------------------ */

static bool parent_bad(const struct plan *p, const struct job *j)
{
    if (j->parent < 0) return false;
    const struct job *up = &p->jobs[j->parent];
    return up->need == NEED_TRAINING &&
           (up->state == JOB_FAILED || up->state == JOB_DIVERGED || up->state == JOB_BLOCKED);
}

/* A parent whose training is done lets its children begin, whatever becomes of its evaluations. */
static bool parent_ready(const struct plan *p, const struct job *j)
{
    if (j->parent < 0) return true;
    const struct job *up = &p->jobs[j->parent];
    return up->state == JOB_FINISHED || up->need != NEED_TRAINING;
}

static int next_job(const struct plan *p)
{
    for (int i = 0; i < p->njobs; i++)
        if (p->jobs[i].state == JOB_WAIT && parent_ready(p, &p->jobs[i])) return i;
    return -1;
}

static err_t block_children(struct sched *s)
{
    struct plan *p = s->p;
    for (int i = 0; i < p->njobs; i++) {
        struct job *j = &p->jobs[i];
        if (j->state != JOB_WAIT || j->need != NEED_TRAINING || !parent_bad(p, j)) continue;
        struct job *up = &p->jobs[j->parent];
        char *why = mem_printf("its starting weights are missing: run %s %s", up->id,
                               up->state == JOB_DIVERGED  ? "diverged"
                               : up->state == JOB_BLOCKED ? "is blocked"
                                                          : "failed");
        err_t err = ledger_block_children(p->lab->ledger, up->id, why);
        j->state = JOB_BLOCKED;
        mem_free(j->reason);
        j->reason = why;
        if (err) return err;
    }
    return ERR_OK;
}

static struct worker *free_worker(struct sched *s)
{
    for (int i = 0; i < s->nw; i++)
        if (!s->w[i].pid) return &s->w[i];
    return NULL;
}

static err_t start_ready(struct sched *s)
{
    struct worker *w;
    int job;
    TRY(block_children(s));
    while (!s->stopping && (w = free_worker(s)) && (job = next_job(s->p)) >= 0) TRY(start(s, w, job));
    return ERR_OK;
}

/* ---- listening ------------------------------------------------------------------------------------------------------------ */

static void take_line(struct sched *s, struct worker *w, const char *line)
{
    if (!strncmp(line, "error ", 6)) {
        mem_free(w->error);
        w->error = mem_strdup(line + 6);
    } else if (!strncmp(line, "warn ", 5)) {
        progress_say(&s->progress, "%s  run %s: warning: %s", w->shown.label, w->shown.id, line + 5);
    } else {
        progress_take(&w->shown, line);
    }
}

static void listen_to(struct sched *s, struct worker *w)
{
    for (;;) {
        ssize_t n = read(w->fd, w->line + w->len, sizeof w->line - 1 - w->len);
        if (n <= 0) return;
        w->len += (size_t)n;
        char *end;
        while ((end = memchr(w->line, '\n', w->len))) {
            *end = 0;
            take_line(s, w, w->line);
            size_t used = (size_t)(end + 1 - w->line);
            memmove(w->line, end + 1, w->len - used);
            w->len -= used;
        }
        if (w->len == sizeof w->line - 1) w->len = 0; /* no line is that long */
    }
}

static const char *outcome_word(const struct job *j)
{
    static const char *const word[] = {
        [JOB_WAIT] = "waits",    [JOB_ACTIVE] = "active",     [JOB_ELSEWHERE] = "elsewhere", [JOB_FINISHED] = "done",
        [JOB_FAILED] = "FAILED", [JOB_DIVERGED] = "DIVERGED", [JOB_INTERRUPTED] = "stopped", [JOB_BLOCKED] = "BLOCKED"};
    return word[j->state];
}

/* What became of a worker: the ledger's row is the truth, its exit only says why the row may be behind. */
static err_t settle(struct sched *s, struct worker *w, int status)
{
    struct ledger *l = s->p->lab->ledger;
    struct job *j = &s->p->jobs[w->job];
    int sig = WIFSIGNALED(status) ? WTERMSIG(status) : 0, code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    bool stale;
    if (sig || code == 127) TRY(ledger_reap(l, j->id, sig, &stale));
    TRY(plan_read_job(s->p, w->job));
    if (j->state == JOB_ELSEWHERE) return ERR_OK;
    if (j->state == JOB_FINISHED && code == 0) return ERR_OK;
    if (code == 75) {
        j->state = JOB_INTERRUPTED;
    } else if (sig && !s->stopping && j->retries < RETRIES) {
        j->retries++;
        j->state = JOB_WAIT;
        progress_say(&s->progress, "%s  run %s was killed by signal %d (%s); trying again, %d of %d", w->shown.label,
                     j->id, sig, strsignal(sig), j->retries, RETRIES);
        if (j->need == NEED_TRAINING) return ledger_run_reset(l, j->id);
    } else if (sig && s->stopping) {
        j->state = JOB_INTERRUPTED;
    } else if (j->state != JOB_DIVERGED) {
        j->state = JOB_FAILED;
        if (w->error || !j->reason) {
            mem_free(j->reason);
            j->reason = w->error      ? mem_strdup(w->error)
                        : sig         ? mem_printf("killed by signal %d (%s)", sig, strsignal(sig))
                        : code == 127 ? mem_strdup("the worker could not be started")
                                      : mem_printf("worker ended with exit code %d", code);
        }
    }
    return ERR_OK;
}

static err_t reap(struct sched *s)
{
    for (int i = 0; i < s->nw; i++) {
        struct worker *w = &s->w[i];
        int status;
        if (!w->pid || waitpid(w->pid, &status, WNOHANG) != w->pid) continue;
        listen_to(s, w);
        close(w->fd);
        w->pid = 0;
        err_t err = settle(s, w, status);
        struct job *j = &s->p->jobs[w->job];
        bool bad = j->state == JOB_FAILED || j->state == JOB_DIVERGED;
        if (!err && (bad || (!s->progress.live && j->state != JOB_WAIT)))
            progress_say(&s->progress, "%s  run %s: %s%s%s", w->shown.label, j->id, outcome_word(j),
                         bad && j->reason ? ": " : "", bad && j->reason ? j->reason : "");
        mem_free(w->error);
        w->error = NULL;
        if (err) return err;
        if (bad) s->failed_once = true;
    }
    return ERR_OK;
}

static void signal_workers(struct sched *s, int sig)
{
    for (int i = 0; i < s->nw; i++)
        if (s->w[i].pid) kill(s->w[i].pid, sig);
}

static void heed_stops(struct sched *s)
{
    if (!s->stopping && (stops > 0 || (s->o->fail_fast && s->failed_once))) {
        s->stopping = true;
        s->result->interrupted = stops > 0;
        s->stopped_ms = host.mono_ns() / 1000000;
        if (stops) progress_say(&s->progress, "stopping: runs write a checkpoint and end; a second signal kills them");
        signal_workers(s, SIGTERM);
    }
    /* timeout(1) and some job systems signal the process and then its group: that is one wish, not two */
    if (stops > 1 && host.mono_ns() / 1000000 - s->stopped_ms < SAME_STOP_MS) stops = 1;
    if (stops > 1 && !s->killed) {
        s->killed = true;
        s->result->interrupted = true;
        signal_workers(s, SIGKILL);
    }
}

/* Runs that another process holds: their state is read again from time to time. */
static err_t look_elsewhere(struct sched *s)
{
    int64_t now = host.mono_ns() / 1000000;
    if (now - s->looked_ms < ELSEWHERE_MS) return ERR_OK;
    s->looked_ms = now;
    for (int i = 0; i < s->p->njobs; i++) {
        struct job *j = &s->p->jobs[i];
        if (j->state != JOB_ELSEWHERE) continue;
        TRY(plan_read_job(s->p, i));
        if (j->state != JOB_INTERRUPTED) continue;
        TRY(ledger_run_reset(s->p->lab->ledger, j->id));
        j->state = JOB_WAIT;
    }
    return ERR_OK;
}

/* Network passes of a run's training: what its time goes by, where the networks are alike. */
static double work_of(const struct plan *p, const struct job *j)
{
    const struct spec *c = &plan_cell(p, j)->spec;
    return (double)(c->iters * c->batch) * (!strcmp(c->target.s, "edm") ? 3 : 4);
}

static double share_done(const struct sched *s)
{
    double all = 0, done = 0;
    for (int i = 0; i < s->p->njobs; i++) {
        const struct job *j = &s->p->jobs[i];
        double work = work_of(s->p, j);
        all += work;
        if (j->need != NEED_TRAINING || j->state == JOB_DIVERGED || j->state == JOB_BLOCKED) done += work;
        else done += work * (double)j->step / (double)j->iters;
    }
    return all > 0 ? done / all : 1;
}

static void draw(struct sched *s)
{
    struct progress_run *runs[256];
    int n = 0;
    for (int i = 0; i < s->nw && n < (int)ARRAY_LEN(runs); i++) {
        if (!s->w[i].pid) continue;
        runs[n++] = &s->w[i].shown;
        if (s->w[i].shown.step) s->p->jobs[s->w[i].job].step = s->w[i].shown.step;
    }
    struct progress_total t = {.done = plan_count(s->p, JOB_FINISHED),
                               .bad = plan_count(s->p, JOB_FAILED) + plan_count(s->p, JOB_DIVERGED) +
                                      plan_count(s->p, JOB_BLOCKED),
                               .jobs = s->p->njobs,
                               .share = share_done(s),
                               .stopping = s->stopping};
    progress_draw(&s->progress, runs, n, &t);
}

static int active(const struct sched *s)
{
    int n = 0;
    for (int i = 0; i < s->nw; i++) n += s->w[i].pid != 0;
    return n;
}

static void wait_for_news(struct sched *s)
{
    struct pollfd f[257] = {{.fd = wake[0], .events = POLLIN}};
    int n = 1;
    char drop[64];
    for (int i = 0; i < s->nw && n < (int)ARRAY_LEN(f); i++)
        if (s->w[i].pid) f[n++] = (struct pollfd){.fd = s->w[i].fd, .events = POLLIN};
    poll(f, (nfds_t)n, 200);
    while (read(wake[0], drop, sizeof drop) > 0) {}
    bool hung = false;
    for (int i = 0; i < s->nw; i++)
        if (s->w[i].pid) listen_to(s, &s->w[i]);
    for (int i = 1; i < n; i++) hung |= (f[i].revents & POLLHUP) != 0;
    if (hung) usleep(2000); /* its end is near: the wait for SIGCHLD must not become a busy loop */
}

static err_t loop(struct sched *s)
{
    for (;;) {
        heed_stops(s);
        TRY(reap(s));
        heed_stops(s);
        TRY(look_elsewhere(s));
        TRY(start_ready(s));
        if (!active(s) && (s->stopping || (next_job(s->p) < 0 && !plan_count(s->p, JOB_ELSEWHERE)))) return ERR_OK;
        draw(s);
        wait_for_news(s);
    }
}

/* ---- the whole ------------------------------------------------------------------------------------------------------------- */

static err_t catch_signals(struct sigaction old[3])
{
    static const int sigs[3] = {SIGINT, SIGTERM, SIGCHLD};
    struct sigaction a = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    if (pipe2(wake, O_CLOEXEC | O_NONBLOCK)) return fail(ERR_FAILED, "pipe: %s", strerror(errno));
    stops = 0;
    for (int i = 0; i < 3; i++) sigaction(sigs[i], &a, &old[i]);
    return ERR_OK;
}

static void release_signals(const struct sigaction old[3])
{
    static const int sigs[3] = {SIGINT, SIGTERM, SIGCHLD};
    for (int i = 0; i < 3; i++) sigaction(sigs[i], &old[i], NULL);
    close(wake[0]);
    close(wake[1]);
}

/* Failed, interrupted and blocked runs are to be done again; an outcome (diverged) stands. */
static err_t reset_jobs(struct plan *p)
{
    for (int i = 0; i < p->njobs; i++) {
        struct job *j = &p->jobs[i];
        if (j->state != JOB_FAILED && j->state != JOB_INTERRUPTED && j->state != JOB_BLOCKED) continue;
        if (j->state == JOB_BLOCKED && parent_bad(p, j)) continue;
        TRY(ledger_run_reset(p->lab->ledger, j->id));
        j->state = JOB_WAIT;
        j->need = NEED_TRAINING;
        j->retries = 0;
    }
    return ERR_OK;
}

err_t sched_run(struct plan *p, const struct sched_opts *o, struct sched_result *r)
{
    struct sched s = {.p = p, .o = o, .result = r};
    struct sigaction old[3];
    int cores = machine_cores();
    *r = (struct sched_result){.started = 0};
    TRY(reset_jobs(p));
    if (!plan_count(p, JOB_WAIT) && !plan_count(p, JOB_ELSEWHERE)) return ERR_OK;
    s.nw = o->jobs > 0 ? o->jobs : cores;
    if (s.nw > p->njobs) s.nw = p->njobs;
    /* of the whole plan, not of what is left: a sweep that was interrupted must end as one that was not */
    s.threads = cores / s.nw > 0 ? cores / s.nw : 1;
    s.w = mem_array((size_t)s.nw, sizeof *s.w);
    git_state_of(p->dir, &s.git);
    progress_init(&s.progress, o->quiet);
    err_t err = catch_signals(old);
    if (!err) {
        err = loop(&s);
        char *text = err ? mem_strdup(err_text()) : NULL;
        signal_workers(&s, SIGTERM); /* after an error of our own: nobody is left behind */
        for (int i = 0; i < s.nw; i++)
            if (s.w[i].pid) waitpid(s.w[i].pid, NULL, 0);
        release_signals(old);
        if (err) err = fail(err, "%s", text);
        mem_free(text);
    }
    progress_end(&s.progress);
    for (int i = 0; i < s.nw; i++) mem_free(s.w[i].error);
    mem_free(s.w);
    return err;
}
