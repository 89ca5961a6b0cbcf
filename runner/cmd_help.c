/* help: the list of commands, one command, or all settings. */
#include <string.h>

#include "core/nets.h"
#include "core/spec.h"
#include "lua/script.h"
#include "runner/commands.h"

static void help_all(struct text *t)
{
    text_add(t, "ect: a laboratory for consistency models\n\nusage: ect COMMAND ...\n\n");
    for (int i = 0; commands[i]; i++)
        if (!commands[i]->hidden) text_addf(t, "  %-8s %s\n", commands[i]->name, commands[i]->help);
    text_add(t, "\n  ect help COMMAND    what it takes\n"
                "  ect help settings   every setting, its default and range\n"
                "  ect help recipes    recipes and networks by name\n"
                "  ect --version\n\n"
                "Exit codes: 0 ok, 1 failed, 2 usage or bad script, 3 some cells failed, 4 stale report,\n"
                "5 device missing, 6 data or weights missing, 75 interrupted and resumable.\n");
}

static void help_recipes(struct text *t)
{
    const char *const *names;
    int n = script_recipes(&names);
    text_add(t, "recipes (for scripts and `ect train`):\n");
    for (int i = 0; i < n; i++) text_addf(t, "  %s\n", names[i]);
    text_add(t, "\nnetworks (net = \"NAME\" or net = { \"NAME\", width = 64 } in scripts, `ect flops NAME`):\n");
    for (const struct net_preset *p = net_presets; p->name; p++) text_addf(t, "  %-24s %s\n", p->name, p->help);
}

static err_t help_run(struct args *a)
{
    struct text t = {0};
    err_t err = ERR_OK;
    if (!a->npos) help_all(&t);
    else if (!strcmp(a->pos[0], "settings")) spec_help(&t);
    else if (!strcmp(a->pos[0], "recipes")) help_recipes(&t);
    else if (command_find(a->pos[0])) command_help(command_find(a->pos[0]), &t);
    else err = fail(ERR_USAGE, "no help on %s (a command, `settings` or `recipes`)", a->pos[0]);
    fputs(text_str(&t), stdout);
    text_done(&t);
    return err;
}

const struct command cmd_help = {.name = "help",
                                 .args = "[COMMAND|settings|recipes]",
                                 .help = "this list; one command; every setting",
                                 .max_pos = 1,
                                 .run = help_run};
