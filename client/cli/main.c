/* weir: prompts in, films and images out. This file is the table of commands. */
#include "client/cli/commands.h"

#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct command {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
} commands[] = {
    { "run", "make films and images on this machine, leave nothing running", weir_cli_run },
    { "verify", "make a film or image again from its receipt, compare the bytes", weir_cli_verify },
    { "serve", "a small cluster that stays", weir_cli_serve },
    { "submit", "hand films and images to a cluster, print job ids", weir_cli_submit },
    { "watch", "show a job's progress", weir_cli_watch },
    { "wait", "wait for jobs", weir_cli_wait },
    { "ls", "list jobs", weir_cli_ls },
    { "show", "everything about a job", weir_cli_show },
    { "cancel", "cancel jobs", weir_cli_cancel },
    { "fetch", "write a job's films and images to a folder", weir_cli_fetch },
    { "models", "which models are there, and what each can do", weir_cli_models },
};

/* The only mutable variable of the program: signal handlers have no other place to write to. */
static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    if (interrupted) _exit(128 + number);
    interrupted = 1;
}

const volatile sig_atomic_t *weir_cli_catch_signals(void)
{
    struct sigaction action = { .sa_handler = on_signal };
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    return &interrupted;
}

int weir_cli_fail(enum weir_status status, const struct weir_error *error)
{
    fprintf(stderr, "weir: %s\n", error->words[0] ? error->words : weir_status_words(status));
    return weir_status_exit_code(status);
}

void weir_cli_help(const char *usage, const char *text, const struct weir_option *rows, size_t count)
{
    printf("Usage: %s\n\n%s\n\nOptions\n", usage, text);
    weir_options_help(rows, count);
}

/* The worker knows models; the client does not: `weir models` is the worker's own list. */
int weir_cli_models(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--verify") == 0) continue;
        const bool asked = strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0;
        FILE *to = asked ? stdout : stderr;
        if (!asked) fprintf(to, "weir: models: %s: no such option\n", argv[i]);
        else fputs("Usage: weir models [--verify]\n\nLists the models that a NAME finds: in the folders of WEIR_MODELS, the "
                   "source tree, the install prefix and\nthe Hugging Face hub cache; what each is and can do, or why it is "
                   "unusable.\n\n  --verify   hash every file again, and believe no name\n", to);
        return asked ? 0 : 64;
    }
    char self[PATH_MAX], path[PATH_MAX + 16];
    struct weir_error error = { 0 };
    const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length > 0) {
        self[length] = '\0';
        snprintf(path, sizeof path, "%s/weir-worker", dirname(self));
        char **words = calloc((size_t)argc + 2, sizeof *words);
        if (words) {
            words[0] = path;
            words[1] = (char *)"--list-models";
            for (int i = 1; i < argc; i++) words[i + 1] = argv[i];
            execv(path, words);
            free(words);
        }
    }
    return weir_cli_fail(weir_fail(&error, WEIR_IO, "the program weir-worker does not start from beside weir"), &error);
}

static void help(void)
{
    puts("Weir turns prompts into films and images.\n\nUsage: weir COMMAND [options]\n");
    for (size_t i = 0; i < WEIR_COUNT(commands); i++) printf("  %-8s %s\n", commands[i].name, commands[i].summary);
    puts("\nweir COMMAND --help explains one of them.\n\nExample\n  weir run \"a red circle moving right on a navy "
         "background\"");
}

int main(int argc, char **argv)
{
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        help();
        return argc < 2 ? 64 : 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("weir " WEIR_VERSION);
        return 0;
    }
    for (size_t i = 0; i < WEIR_COUNT(commands); i++) {
        if (strcmp(argv[1], commands[i].name) == 0) return commands[i].run(argc - 1, argv + 1);
    }
    fprintf(stderr, "weir: %s: no such command; weir --help lists them\n", argv[1]);
    return 64;
}
