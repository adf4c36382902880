/* status: the one table of what can go wrong, what a person reads, and what the broker does about it.
 *
 * A fault of the outside world (peer, disk, device, user) is a status; a fault of our own code is an assert.
 * What a person will read also fills a caller's `struct weir_error`, always the last argument, which may be NULL.
 *
 * Threads  all functions are pure
 */
#ifndef WEIR_PROTO_STATUS_H
#define WEIR_PROTO_STATUS_H

#include <stddef.h>
#include <stdint.h>

/* What the broker does with a task that failed so: never again, on another worker, or later anywhere. */
enum weir_retry { WEIR_RETRY_NEVER, WEIR_RETRY_ELSEWHERE, WEIR_RETRY_LATER };

/* Numbers travel on the wire and lie in ledgers: append only. X(name, number, words, retry, exit code of a program) */
#define WEIR_STATUS_TABLE(X)                                                                                           \
    X(OK, 0, "ok", NEVER, 0)                                                                                           \
    X(BAD_ARGUMENT, 1, "an argument is not usable", NEVER, 64)                                                         \
    X(BAD_SHAPE, 2, "a tensor breaks the shape rules", NEVER, 70)                                                      \
    X(BAD_MODEL, 3, "the model folder is not usable", NEVER, 74)                                                       \
    X(BAD_FILE, 4, "a file is damaged or of another kind", NEVER, 74)                                                  \
    X(NOT_FOUND, 5, "no such thing", NEVER, 74)                                                                        \
    X(UNSUPPORTED, 6, "not offered by this build", NEVER, 64)                                                          \
    X(TOO_LARGE, 7, "over a limit", NEVER, 64)                                                                         \
    X(NO_MEMORY, 8, "host or device memory ran out", ELSEWHERE, 71)                                                    \
    X(DEVICE, 9, "the device reported a fault", ELSEWHERE, 71)                                                         \
    X(STORE, 10, "the store refused or timed out", LATER, 75)                                                          \
    X(IO, 11, "reading or writing failed", LATER, 75)                                                                  \
    X(PROTOCOL, 12, "a message breaks the protocol", NEVER, 70)                                                        \
    X(STALE, 13, "the lease has ended", NEVER, 70)                                                                     \
    X(INPUT_LOST, 14, "an input is no longer there", LATER, 70)                                                        \
    X(CANCELLED, 15, "cancelled", NEVER, 74)                                                                           \
    X(TIMEOUT, 16, "no answer in time", LATER, 70)                                                                     \
    X(UNAVAILABLE, 17, "nobody is there to do it", LATER, 70)                                                          \
    X(CONFLICT, 18, "it contradicts what was said before", NEVER, 64)                                                  \
    X(BUSY, 19, "over capacity, try again later", LATER, 75)                                                           \
    X(INTERNAL, 20, "a program failed", ELSEWHERE, 70)                                                                 \
    X(CRASHED, 21, "the worker died", ELSEWHERE, 70)                                                                   \
    X(EXPIRED, 22, "the deadline passed", NEVER, 74)                                                                   \
    X(INTERRUPTED, 23, "interrupted", NEVER, 130)

enum weir_status {
#define X(name, number, words, retry, exit_code) WEIR_##name = number,
    WEIR_STATUS_TABLE(X)
#undef X
        WEIR_STATUS_COUNT
};

/* words: one sentence without a final full stop, naming the flag, field or file, the value and the limit. */
struct weir_error {
    enum weir_status code;
    char words[400];
};

/* The table's columns; an unknown number reads as INTERNAL. */
const char *weir_status_name(enum weir_status status);  /* "BAD_SHAPE" */
const char *weir_status_words(enum weir_status status); /* "a tensor breaks the shape rules" */
enum weir_retry weir_status_retry(enum weir_status status);
int weir_status_exit_code(enum weir_status status);

/* Fills `error` (may be NULL) and returns `status`, so that it reads `return weir_fail(error, WEIR_IO, "...")`.
 * Control characters in the result are replaced, so that outside text cannot draw on a terminal. */
enum weir_status weir_fail(struct weir_error *error, enum weir_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Needs a local `status` and a label `cleanup`; both are spelled the same in every function. */
#define WEIR_TRY(call)                                                                                                 \
    do {                                                                                                               \
        status = (call);                                                                                               \
        if (status != WEIR_OK) goto cleanup;                                                                           \
    } while (0)

#define WEIR_COUNT(array) (sizeof(array) / sizeof((array)[0]))

#endif
