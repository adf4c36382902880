#include "client/cli/receipt.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <libgen.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { RECEIPT_BYTES_MAX = 1 << 16, WORDS_MAX = 512, OUT = 0, ERR = 1, PIPES = 2 };

/* Sanitizers reserve terabytes of address space: there --memory-mib cannot be given. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LIMITS "--cpu-seconds", "60"
#else
#define LIMITS "--cpu-seconds", "60", "--memory-mib", "4096"
#endif

/* ---- reading ----------------------------------------------------------------------------------------------------- */

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

static enum weir_status start(const char *path, int ours[PIPES], pid_t *pid, struct weir_error *error)
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
    const char *const words[] = { program, "probe", "--receipt", LIMITS, "--", path, NULL };
    *pid = fork();
    if (*pid == 0) {
        dup2(theirs[OUT], 1);
        dup2(theirs[ERR], 2);
        execv(program, (char *const *)(uintptr_t)words);
        dprintf(2, "%s: %s\n", program, strerror(errno));
        _exit(70);
    }
    const int code = errno;
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
        return weir_fail(error, WEIR_INTERNAL, "%s: weir-encode did not survive reading it", path);
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

enum weir_status weir_cli_receipt_read(const char *path, char **text, struct weir_error *error)
{
    int ours[PIPES], state = 0;
    pid_t pid;
    char words[WORDS_MAX + 1] = "";
    *text = calloc(1, RECEIPT_BYTES_MAX + 1);
    if (!*text) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a receipt");
    enum weir_status status = start(path, ours, &pid, error);
    if (status == WEIR_OK) {
        struct heard heard[PIPES] = { { *text, 0, RECEIPT_BYTES_MAX, ours[OUT], false },
                                      { words, 0, WORDS_MAX, ours[ERR], false } };
        hear(heard);
        while (waitpid(pid, &state, 0) < 0 && errno == EINTR) continue;
        if (!WIFEXITED(state) || WEXITSTATUS(state) != 0)
            status = explain(path, state, words, error);
        else if (heard[OUT].over) {
            status = weir_fail(error, WEIR_BAD_FILE, "%s: a receipt of over %d bytes", path, RECEIPT_BYTES_MAX);
        }
    }
    if (status != WEIR_OK) {
        free(*text);
        *text = NULL;
    }
    return status;
}

/* ---- understanding ----------------------------------------------------------------------------------------------- */

struct fields {
    json_t *object;
    const char *path;
    const char *missing; /* the first field that is not what it should be; NULL: none yet */
};

static const char *text_of(struct fields *from, const char *name, size_t bytes_min, size_t bytes_max)
{
    const json_t *value = json_object_get(from->object, name);
    const char *text = json_string_value(value);
    const size_t bytes = text ? json_string_length(value) : 0;
    const bool good = text && bytes >= bytes_min && bytes <= bytes_max && strlen(text) == bytes;
    if (!good && !from->missing) from->missing = name;
    return good ? text : "";
}

static uint64_t number_of(struct fields *from, const char *name, uint64_t min, uint64_t max)
{
    const json_t *value = json_object_get(from->object, name);
    const uint64_t number =
        (uint64_t)json_integer_value(value); /* a seed of 2^63 and more is written as a negative one */
    const bool good = json_is_integer(value) && number >= min && number <= max;
    if (!good && !from->missing) from->missing = name;
    return good ? number : min;
}

static double real_of(struct fields *from, const char *name)
{
    const json_t *value = json_object_get(from->object, name);
    const double number = json_number_value(value);
    const bool good = json_is_number(value) && isfinite(number) && number >= 0;
    if (!good && !from->missing) from->missing = name;
    return good ? number : 0;
}

/* A name of a place of ours or of a hub (ORG/NAME), and nothing that could be a path elsewhere. */
static bool is_name(const char *model)
{
    return model[0] && model[0] != '/' && model[0] != '.' && model[0] != '-' && !strstr(model, "/.") &&
           !strstr(model, "//");
}

static void read_spec(struct fields *spec, struct weir_cli_receipt *out)
{
    struct weir_request *r = &out->request;
    number_of(spec, "spec_version", 1, 1);
    number_of(spec, "n", 1, 1);
    r->n = 1;
    out->model = text_of(spec, "model", 1, 4096);
    r->model_digest = text_of(spec, "model_digest", 64, 64);
    r->prompt = text_of(spec, "prompt", 0, 10240);
    r->negative = text_of(spec, "negative", 0, 10240);
    r->width = (uint32_t)number_of(spec, "width", 1, UINT32_MAX);
    r->height = (uint32_t)number_of(spec, "height", 1, UINT32_MAX);
    r->frames = (uint32_t)number_of(spec, "frames", 1, UINT32_MAX);
    r->fps = (uint32_t)number_of(spec, "fps", 1, UINT32_MAX);
    r->steps = (uint32_t)number_of(spec, "steps", 1, UINT32_MAX);
    r->guidance = real_of(spec, "guidance");
    r->seed = number_of(spec, "seed", 0, UINT64_MAX);
    r->seed_given = true;
    r->sampler = text_of(spec, "sampler", 1, 16);
    r->noise = text_of(spec, "noise", 1, 8);
    r->format = text_of(spec, "format", 1, 8);
    r->codec = text_of(spec, "codec", 0, 8);
    r->precision = text_of(spec, "precision", 1, 8);
    r->folder = strcmp(r->format, "png") == 0 && !json_is_true(json_object_get(spec->object, "image"));
}

enum weir_status weir_cli_receipt_parse(const char *text, const char *path, struct weir_cli_receipt *out,
                                        struct weir_error *error)
{
    json_error_t fault;
    *out = (struct weir_cli_receipt){ .request = WEIR_REQUEST_INIT };
    json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, &fault);
    if (!object) return weir_fail(error, WEIR_BAD_FILE, "%s: its receipt is no JSON: %s", path, fault.text);
    out->json = object;
    struct fields whole = { .object = object, .path = path };
    struct fields spec = { .object = json_object_get(object, "spec"), .path = path };
    number_of(&whole, "weir", 1, 1);
    out->numerics_class = text_of(&whole, "numerics_class", 1, 127);
    out->encoder = text_of(&whole, "encoder", 1, 255);
    if (!json_is_object(spec.object) && !whole.missing) whole.missing = "spec";
    if (!whole.missing) read_spec(&spec, out);
    const char *missing = whole.missing ? whole.missing : spec.missing;
    enum weir_status status = WEIR_OK;
    if (missing) {
        status = weir_fail(error, WEIR_BAD_FILE,
                           "%s: its receipt is none that this build can replay: %s%s is missing or "
                           "not what it should be",
                           path, spec.missing ? "spec." : "", missing);
    } else if (!is_name(out->model)) {
        status = weir_fail(error, WEIR_BAD_FILE, "%s: its receipt calls the model \"%.80s\", which is no name", path,
                           out->model);
    }
    if (status != WEIR_OK) weir_cli_receipt_destroy(out);
    return status;
}

void weir_cli_receipt_destroy(struct weir_cli_receipt *receipt)
{
    json_decref(receipt->json);
    *receipt = (struct weir_cli_receipt){ .json = NULL };
}
