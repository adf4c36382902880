#include "client/cli/encoder.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORDS_MAX = 512, OUT = 0, ERR = 1, PIPES = 2 };

/* What a pipe said, up to its limit; more than that is read away and makes `over` true. */
struct heard {
    char *text;
    size_t count, limit;
    int fd;
    bool over;
};

static void hear_some(struct heard *heard)
{
    char bytes[4096];
    const ssize_t got = read(heard->fd, bytes, sizeof bytes);
    if (got < 0 && errno == EINTR) return;
    if (got <= 0) {
        close(heard->fd);
        heard->fd = -1;
        return;
    }
    const size_t room = heard->limit - heard->count, take = (size_t)got < room ? (size_t)got : room;
    heard->over |= take < (size_t)got;
    memcpy(heard->text + heard->count, bytes, take);
    heard->count += take;
    heard->text[heard->count] = '\0';
}

static void hear(struct heard heard[PIPES])
{
    while (heard[OUT].fd >= 0 || heard[ERR].fd >= 0) {
        struct pollfd polled[PIPES] = { { heard[OUT].fd, POLLIN, 0 }, { heard[ERR].fd, POLLIN, 0 } };
        if (poll(polled, PIPES, -1) < 0 && errno != EINTR) break;
        for (int i = 0; i < PIPES; i++) {
            if (heard[i].fd >= 0 && polled[i].revents) hear_some(&heard[i]);
        }
    }
}

static enum weir_status start(const char *const *arguments, const char *folder, int ours[PIPES], pid_t *pid,
                              struct weir_error *error)
{
    char self[PATH_MAX], program[PATH_MAX + 16];
    int theirs[PIPES] = { -1, -1 }, ends[2];
    const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length < 0) return weir_fail(error, WEIR_IO, "/proc/self/exe: %s", strerror(errno));
    self[length] = '\0';
    snprintf(program, sizeof program, "%s/weir-encode", dirname(self));
    for (int i = 0; i < PIPES; i++) {
        if (pipe2(ends, O_CLOEXEC) != 0) {
            const int code = errno;
            if (i > 0) close(ours[OUT]), close(theirs[OUT]);
            return weir_fail(error, WEIR_IO, "starting weir-encode: %s", strerror(code));
        }
        ours[i] = ends[0];
        theirs[i] = ends[1];
    }
    size_t count = 0;
    while (arguments[count]) count++;
    const char **words = calloc(count + 2, sizeof *words);
    if (words) {
        words[0] = program;
        memcpy(words + 1, arguments, count * sizeof *words);
    }
    *pid = words ? fork() : -1;
    if (*pid == 0) {
        dup2(theirs[OUT], 1);
        dup2(theirs[ERR], 2);
        if (folder && chdir(folder) != 0) {
            dprintf(2, "%s: %s\n", folder, strerror(errno));
            _exit(75);
        }
        execv(program, (char *const *)(uintptr_t)words);
        dprintf(2, "%s: %s\n", program, strerror(errno));
        _exit(70);
    }
    const int code = errno;
    free(words);
    for (int i = 0; i < PIPES; i++) {
        close(theirs[i]);
        if (*pid < 0) close(ours[i]);
    }
    return *pid < 0 ? weir_fail(error, WEIR_IO, "starting weir-encode: %s", strerror(code)) : WEIR_OK;
}

/* Its one line is our words, without its name in front. */
static enum weir_status explain(const char *path, int state, const char *words, struct weir_error *error)
{
    static const char own_name[] = "weir-encode: ";
    if (!WIFEXITED(state) || !words[0]) {
        return weir_fail(error, WEIR_INTERNAL, "%s: weir-encode did not survive it", path);
    }
    if (strncmp(words, own_name, sizeof own_name - 1) == 0) words += sizeof own_name - 1;
    const int code = WEXITSTATUS(state), line_bytes = (int)strcspn(words, "\n");
    const enum weir_status status = code == 64   ? WEIR_BAD_ARGUMENT
                                    : code == 71 ? WEIR_NO_MEMORY
                                    : code == 74 ? WEIR_BAD_FILE
                                    : code == 75 ? WEIR_IO
                                                 : WEIR_INTERNAL;
    return weir_fail(error, status, "%.*s", line_bytes, words);
}

enum weir_status weir_cli_encoder_run(const char *const *arguments, const char *folder, char *text, size_t text_bytes,
                                      bool *over, const char *path, struct weir_error *error)
{
    int ours[PIPES], state = 0;
    pid_t pid;
    char words[WORDS_MAX + 1] = "";
    const enum weir_status status = start(arguments, folder, ours, &pid, error);
    if (status != WEIR_OK) return status;
    struct heard heard[PIPES] = { { text, 0, text_bytes, ours[OUT], false },
                                  { words, 0, WORDS_MAX, ours[ERR], false } };
    hear(heard);
    while (waitpid(pid, &state, 0) < 0 && errno == EINTR) continue;
    *over = heard[OUT].over;
    return WIFEXITED(state) && WEXITSTATUS(state) == 0 ? WEIR_OK : explain(path, state, words, error);
}
