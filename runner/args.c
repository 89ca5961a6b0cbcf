/* args: one parser for all commands. A command declares its options in a table; nothing here knows a command. */
#include <stdlib.h>
#include <string.h>

#include "runner/runner.h"

static err_t unknown_option(const struct command *cmd, const char *given)
{
    const char *names[64];
    size_t n = 0;
    for (const struct opt *o = cmd->opts; o && o->name && n < ARRAY_LEN(names); o++) names[n++] = o->name;
    char word[128];
    snprintf(word, sizeof word, "%s", given);
    word[strcspn(word, "=")] = 0;
    const char *bare = word;
    while (*bare == '-') bare++;
    const char *near = nearest_name(bare, names, n);
    if (near) return fail(ERR_USAGE, "%s: unknown option %s; did you mean --%s?", cmd->name, word, near);
    return fail(ERR_USAGE, "%s: unknown option %s (see `ect help %s`)", cmd->name, word, cmd->name);
}

static const struct opt *opt_long(const struct command *cmd, const char *s, size_t n)
{
    for (const struct opt *o = cmd->opts; o && o->name; o++)
        if (strlen(o->name) == n && !strncmp(o->name, s, n)) return o;
    return NULL;
}

static const struct opt *opt_short(const struct command *cmd, char c)
{
    for (const struct opt *o = cmd->opts; o && o->name; o++)
        if (o->letter && o->letter == c) return o;
    return NULL;
}

/* One option word argv[*i]; takes the next word where its value stands there. */
static err_t parse_option(struct args *a, const struct command *cmd, int argc, char **argv, int *i)
{
    const char *s = argv[*i], *value = NULL;
    const struct opt *o;
    if (s[1] == '-') {
        size_t n = strcspn(s + 2, "=");
        o = opt_long(cmd, s + 2, n);
        if (o && s[2 + n] == '=') value = s + 3 + n;
        if (o && value && !o->arg) return fail(ERR_USAGE, "%s: --%s takes no value", cmd->name, o->name);
    } else {
        o = opt_short(cmd, s[1]);
        if (o && s[2] && !o->arg) return unknown_option(cmd, s);
        if (o && s[2]) value = s[2] == '=' ? s + 3 : s + 2;
    }
    if (!o) return unknown_option(cmd, s);
    if (o->arg && !value) {
        if (*i + 1 >= argc) return fail(ERR_USAGE, "%s: --%s needs a value: %s", cmd->name, o->name, o->arg);
        value = argv[++*i];
    }
    a->set[a->nset++] = (struct arg_value){o, value ? value : ""};
    return ERR_OK;
}

err_t args_parse(struct args *a, const struct command *cmd, int argc, char **argv)
{
    *a = (struct args){.cmd = cmd};
    a->pos = mem_array((size_t)argc + 1, sizeof *a->pos);
    a->set = mem_array((size_t)argc + 1, sizeof *a->set);
    bool rest = false;
    for (int i = 0; i < argc; i++) {
        if (!rest && !strcmp(argv[i], "--")) {
            rest = true;
        } else if (!rest && argv[i][0] == '-' && argv[i][1]) {
            TRY(parse_option(a, cmd, argc, argv, &i));
        } else {
            a->pos[a->npos++] = argv[i];
        }
    }
    if (a->npos < cmd->min_pos) return fail(ERR_USAGE, "usage: ect %s %s", cmd->name, cmd->args);
    if (cmd->max_pos >= 0 && a->npos > cmd->max_pos)
        return fail(ERR_USAGE, "%s: unexpected argument %s (usage: ect %s%s%s)", cmd->name, a->pos[cmd->max_pos],
                    cmd->name, *cmd->args ? " " : "", cmd->args);
    return ERR_OK;
}

void args_done(struct args *a)
{
    mem_free(a->pos);
    mem_free(a->set);
}

const char *args_get(const struct args *a, const char *name)
{
    for (int i = a->nset - 1; i >= 0; i--)
        if (!strcmp(a->set[i].opt->name, name)) return a->set[i].value;
    return NULL;
}

bool args_has(const struct args *a, const char *name)
{
    return args_get(a, name) != NULL;
}

int args_all(const struct args *a, const char *name, const char ***values)
{
    int n = 0;
    *values = mem_array((size_t)a->nset + 1, sizeof **values);
    for (int i = 0; i < a->nset; i++)
        if (!strcmp(a->set[i].opt->name, name)) (*values)[n++] = a->set[i].value;
    return n;
}

err_t args_int(const struct args *a, const char *name, int64_t lo, int64_t hi, int64_t *v)
{
    const char *s = args_get(a, name);
    if (!s) return ERR_OK;
    int64_t x;
    if (!int_parse(s, &x) || x < lo || x > hi)
        return fail(ERR_USAGE, "--%s %s: not a whole number from %lld to %lld", name, s, (long long)lo, (long long)hi);
    *v = x;
    return ERR_OK;
}

const char *args_ledger(const struct args *a)
{
    const char *s = args_get(a, "ledger");
    if (!s) s = getenv("ECT_LEDGER");
    return s && *s ? s : "ect.db";
}

err_t args_open_ledger(const struct args *a, enum ledger_mode mode, struct ledger **l)
{
    err_t err = ledger_open(l, args_ledger(a), mode);
    if (err == ERR_NOT_FOUND)
        return fail(ERR_NOT_FOUND,
                    "no ledger at %s; `ect run SCRIPT` makes one, --ledger FILE or $ECT_LEDGER names another",
                    args_ledger(a));
    return err;
}

void command_help(const struct command *c, struct text *out)
{
    text_addf(out, "usage: ect %s%s%s%s\n\n%s\n", c->name, *c->args ? " " : "", c->args, c->opts ? " [options]" : "",
              c->help);
    if (c->more) text_addf(out, "\n%s\n", c->more);
    if (!c->opts) return;
    text_add(out, "\noptions:\n");
    for (const struct opt *o = c->opts; o->name; o++) {
        char name[64], letter[8] = "";
        if (o->letter) snprintf(letter, sizeof letter, "-%c, ", o->letter);
        snprintf(name, sizeof name, "%s--%s%s%s", letter, o->name, o->arg ? " " : "", o->arg ? o->arg : "");
        text_addf(out, "  %-24s %s\n", name, o->help);
    }
}
