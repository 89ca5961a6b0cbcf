/* help: the list of commands, one command, or all settings. */
#include <string.h>

#include "core/nets.h"
#include "core/spec.h"
#include "core/target.h"
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
                "  ect help targets    training objectives, and the metrics of their losses\n"
                "  ect help script     the script language: one script with every part of it\n"
                "  ect help design     every design function with its equation\n"
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

static void help_targets(struct text *t)
{
    text_add(t, "targets (setting target), with the forward passes F of an image that full accounting counts:\n");
    for (int i = 0; targets[i]; i++) {
        const struct target *x = targets[i];
        text_addf(t, "  %-6s %gF  %s%s%s\n", x->name, x->nominal_forwards, x->help,
                  x->needs_pair ? "; needs pair and curriculum" : "", x->solves ? ", and init" : "");
    }
    text_add(t, "\nmetrics of the loss (setting metric), with D = D_t - D_r:\n"
                "  pseudo-huber  sqrt(||D||^2 + c^2) - c\n"
                "  l2            ||D||^2 / (||D||^2 + c^2)^p, the denominator taken as a constant\n"
                "  l1            sum of |D|\n"
                "  l2-mean, l1-mean  over the elements of an image, as CT and CD were trained\n"
                "  l2-32         l2-mean of the images resized to 32x32\n"
                "  lpips         needs its weights: `ect weights get lpips-vgg`\n"
                "\nloss.teacher says whose weights the second pass takes: self, ema (loss.teacher_ema), frozen.\n"
                "Recipes of each: `ect help recipes`; pair, curriculum and the like: `ect help design`.\n");
}

static err_t help_run(struct args *a)
{
    struct text t = {0};
    err_t err = ERR_OK;
    if (!a->npos) help_all(&t);
    else if (!strcmp(a->pos[0], "settings")) spec_help(&t);
    else if (!strcmp(a->pos[0], "recipes")) help_recipes(&t);
    else if (!strcmp(a->pos[0], "targets")) help_targets(&t);
    else if (!strcmp(a->pos[0], "script")) text_add(&t, embed_find("experiments/example.lua")->data);
    else if (!strcmp(a->pos[0], "design")) text_add(&t, embed_find("lua/ect/design.lua")->data);
    else if (command_find(a->pos[0])) command_help(command_find(a->pos[0]), &t);
    else
        err = fail(ERR_USAGE, "no help on %s (a command, `settings`, `recipes`, `targets`, `script` or `design`)",
                   a->pos[0]);
    fputs(text_str(&t), stdout);
    text_done(&t);
    return err;
}

const struct command cmd_help = {.name = "help",
                                 .args = "[COMMAND|settings|recipes|targets|script|design]",
                                 .help = "this list; one command; every setting",
                                 .max_pos = 1,
                                 .run = help_run};
