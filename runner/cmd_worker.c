/* worker: one run in this process. Started by the scheduler; by hand only to look at a failure in a debugger. */
#include "runner/runner.h"
#include "runner/worker.h"

static err_t worker_command(struct args *a)
{
    int64_t sweep = 0, threads = 1, pipe_fd = -1, above = 0;
    TRY(args_int(a, "sweep", 1, INT64_MAX, &sweep));
    TRY(args_int(a, "threads", 1, 1024, &threads));
    TRY(args_int(a, "pipe", 3, 1 << 20, &pipe_fd));
    TRY(args_int(a, "above", 1, INT32_MAX, &above));
    if (!sweep) return fail(ERR_USAGE, "worker: --sweep is needed");
    const char *rev = args_get(a, "git-revision"), *diff = args_get(a, "git-diff");
    struct worker_opts o = {.ledger = args_ledger(a),
                            .run = a->pos[0],
                            .device = args_get(a, "device"),
                            .sweep = sweep,
                            .threads = (int)threads,
                            .pipe = (int)pipe_fd,
                            .pid_above = (int)above,
                            .git_revision = rev ? rev : "",
                            .git_diff = diff ? diff : ""};
    return worker_run(&o);
}

static const struct opt worker_opts[] = {OPT_LEDGER,
                                         {"sweep", 0, "ROW", "sweep row whose script declares the run"},
                                         {"threads", 0, "N", "threads"},
                                         {"device", 0, "NAME", "device, where the run has none yet"},
                                         {"pipe", 0, "FD", "where to tell progress"},
                                         {"above", 0, "PID", "stop when this is no longer the parent process"},
                                         {"git-revision", 0, "REV", "of the script's directory"},
                                         {"git-diff", 0, "SHA", "of its uncommitted changes"},
                                         OPT_END};
const struct command cmd_worker = {.name = "worker",
                                   .args = "RUN",
                                   .help = "do one run in this process (started by `ect run`)",
                                   .min_pos = 1,
                                   .max_pos = 1,
                                   .opts = worker_opts,
                                   .run = worker_command,
                                   .hidden = true};
