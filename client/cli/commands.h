/* commands: what every command of `weir` shares. A command gets its own words (argv[0] is its name) and returns the
 * program's exit code; it has said on stderr, in one line, why it is not 0. */
#ifndef WEIR_CLIENT_CLI_COMMANDS_H
#define WEIR_CLIENT_CLI_COMMANDS_H

#include "client/weir.h"
#include "proto/base/options.h"

#include <signal.h>

int weir_cli_run(int argc, char **argv);
int weir_cli_verify(int argc, char **argv);
int weir_cli_serve(int argc, char **argv);
int weir_cli_submit(int argc, char **argv);
int weir_cli_watch(int argc, char **argv);
int weir_cli_wait(int argc, char **argv);
int weir_cli_ls(int argc, char **argv);
int weir_cli_show(int argc, char **argv);
int weir_cli_cancel(int argc, char **argv);
int weir_cli_fetch(int argc, char **argv);
int weir_cli_models(int argc, char **argv);

/* Says `weir: words` and returns the status's exit code. */
int weir_cli_fail(enum weir_status status, const struct weir_error *error);

/* SIGINT and SIGTERM set the flag from now on; a second one ends the process at once. */
const volatile sig_atomic_t *weir_cli_catch_signals(void);

/* --help of one command: usage line, what it does, its options, an example. */
void weir_cli_help(const char *usage, const char *text, const struct weir_option *rows, size_t count);

#endif
