/* runner: what the commands share. A command is one file cmd_NAME.c with one struct command and one row in main.c's table. Commands
 * return err_t; the message is printed and turned into an exit code by main, which holds the only exit().
 */
#ifndef RUNNER_RUNNER_H
#define RUNNER_RUNNER_H

#include "core/base.h"
#include "db/ledger.h"
#include "db/query.h"

/* ---- commands and their arguments ---------------------------------------------------------------------------------- */

struct opt {
    const char *name; /* long name without dashes */
    char letter;      /* or 0 */
    const char *arg;  /* what its value is called in help; NULL: a flag */
    const char *help;
};
#define OPT_LEDGER                                                                                                     \
    {                                                                                                                  \
        "ledger", 0, "FILE", "the ledger ($ECT_LEDGER, else ./ect.db)"                                                 \
    }
#define OPT_JSON                                                                                                       \
    {                                                                                                                  \
        "json", 0, NULL, "print JSON"                                                                                  \
    }
#define OPT_SET                                                                                                        \
    {                                                                                                                  \
        "set", 0, "KEY=VALUE", "override a setting (may be repeated)"                                                  \
    }
#define OPT_END                                                                                                        \
    {                                                                                                                  \
        NULL, 0, NULL, NULL                                                                                            \
    }

struct args;
struct command {
    const char *name, *args, *help; /* "RUN [FILE]"; one line */
    int min_pos, max_pos;           /* positional arguments; max -1: any number */
    const struct opt *opts;         /* ends with OPT_END; NULL: none */
    const char *more;               /* further paragraphs for `ect help NAME`, or NULL */
    err_t (*run)(struct args *a);
    bool hidden;
};
extern const struct command *const commands[]; /* ends with NULL */
const struct command *command_find(const char *name);

struct args {
    const struct command *cmd;
    const char **pos;
    int npos;
    int nset;
    struct arg_value {
        const struct opt *opt;
        const char *value; /* "" for a flag */
    } * set;
    int status; /* exit code where a command ends well but not with 0 (3: some cells failed; 75: interrupted) */
};
/* argv after the command's name. Options may stand before or after positional arguments; "--" ends them. */
err_t args_parse(struct args *a, const struct command *cmd, int argc, char **argv) MUST_USE;
void args_done(struct args *a);
const char *args_get(const struct args *a, const char *name); /* last value, or NULL */
bool args_has(const struct args *a, const char *name);
int args_all(const struct args *a, const char *name, const char ***values); /* mem_free(*values) */
err_t args_int(const struct args *a, const char *name, int64_t lo, int64_t hi,
               int64_t *v) MUST_USE; /* unset: *v stays */
const char *args_ledger(const struct args *a);
err_t args_open_ledger(const struct args *a, enum ledger_mode mode, struct ledger **l) MUST_USE;
void command_help(const struct command *c, struct text *out);

/* ---- printing -------------------------------------------------------------------------------------------------------- */

bool print_color(void);  /* standard output is a terminal and NO_COLOR is unset */
int print_width(int fd); /* columns of a terminal; 0 if it is not one */
int text_columns(const char *utf8);
/* Adds a result to standard output: columns that fit the terminal, or JSON where --json was given. */
void print_table(const struct args *a, const struct table *t);
/* 12345 -> "12.3k"; 42383048704 -> "42.4G" */
char *human_count(char buf[NUM_TEXT], double v);
char *human_seconds(char buf[NUM_TEXT], double s); /* "3.2 s", "4 min 10 s", "2 h 05 min" */
char *human_bytes(char buf[NUM_TEXT], double v);

/* ---- other programs ---------------------------------------------------------------------------------------------------- */

/* Runs argv (argv[0] looked up in PATH) in dir and keeps at most limit bytes of its output. *status is its exit status, -1 if it
 * could not be started or was killed. */
void child_capture(const char *dir, const char *const *argv, size_t limit, struct text *out, int *status);

#endif
