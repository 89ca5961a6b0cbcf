/* commands: the names of all commands, from commands.def. */
#ifndef RUNNER_COMMANDS_H
#define RUNNER_COMMANDS_H

#include "runner/runner.h"

#define COMMAND(name) extern const struct command cmd_##name;
#include "runner/commands.def"
#undef COMMAND

#endif
