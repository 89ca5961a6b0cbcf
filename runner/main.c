/* ect: the program. One table of commands; a command returns an error, and only here does an error become a line on stderr and an
 * exit code. `--version` answers before anything else is touched. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "runner/commands.h"
#include "runner/runner.h"

const struct command *const commands[] = {
#define COMMAND(name) &cmd_##name,
#include "runner/commands.def"
#undef COMMAND
    NULL};

const struct command *command_find(const char *name)
{
    for (int i = 0; commands[i]; i++)
        if (!strcmp(commands[i]->name, name)) return commands[i];
    return NULL;
}

static err_t unknown_command(const char *name)
{
    const char *names[64];
    size_t n = 0;
    for (int i = 0; commands[i]; i++)
        if (!commands[i]->hidden) names[n++] = commands[i]->name;
    const char *near = nearest_name(name, names, n);
    if (near) return fail(ERR_USAGE, "unknown command %s; did you mean `ect %s`?", name, near);
    return fail(ERR_USAGE, "unknown command %s (see `ect help`)", name);
}

static err_t run_command(const struct command *c, int argc, char **argv, int *status)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--"); i++) {
        if (strcmp(argv[i], "--help") && strcmp(argv[i], "-h")) continue;
        struct text t = {0};
        command_help(c, &t);
        fputs(text_str(&t), stdout);
        text_done(&t);
        return ERR_OK;
    }
    struct args a;
    err_t err = args_parse(&a, c, argc, argv);
    if (!err) err = c->run(&a);
    *status = a.status;
    args_done(&a);
    return err;
}

static err_t run_program(int argc, char **argv, int *status)
{
    const char *name = argc > 1 ? argv[1] : "help";
    if (!strcmp(name, "--version") || !strcmp(name, "-V")) {
        puts("ect " ECT_VERSION);
        return ERR_OK;
    }
    if (!strcmp(name, "--help") || !strcmp(name, "-h")) name = "help";
    const struct command *c = command_find(name);
    if (!c) return unknown_command(name);
    return run_command(c, argc > 2 ? argc - 2 : 0, argv + 2, status);
}

int main(int argc, char **argv)
{
    int status = 0;
    signal(SIGXFSZ, SIG_IGN); /* a file-size limit is a full disk: an error with a name, not a death */
    err_t err = run_program(argc, argv, &status);
    if (!err && (fflush(stdout) || ferror(stdout))) err = fail(ERR_IO, "writing to standard output failed");
    if (err) {
        fflush(stdout);
        fprintf(stderr, "ect: %s\n", err_text());
        status = err_exit_code(err);
    }
    exit(status);
}
