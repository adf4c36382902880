/* pretend_broker: a broker of a few lines for tests of weir-worker: a ROUTER that the test speaks through, message by
 * message, and a real worker program at its other end.
 *
 * What keeps a worker alive is done by itself: PING is answered PONG, RENEW RENEW_ACK, CREDIT is noted; once it was
 * greeted, a further HELLO is answered WELCOME, and LEASE_OK for what it holds. Everything else must be what the test
 * asked for, or the test fails.
 */
#ifndef WEIR_TESTS_PRETEND_BROKER_H
#define WEIR_TESTS_PRETEND_BROKER_H

#include "proto/base/bytes.h"
#include "proto/job.h"
#include "proto/wire.h"
#include "store/store.h"

#include <stdarg.h>
#include <setjmp.h>
#include <sys/types.h>

#include <cmocka.h>

#define SEE_MS 120000 /* a machine under load; nothing waits so long on an idle one */

struct broker {
    char dir[64], endpoint[96], store_dir[96], run_dir[96], model[256], log[96];
    const char *program; /* of the worker, beside weir-encode; NULL: weir-worker */
    void *zmq, *socket;
    struct weir_store *store;
    pid_t pid;
    struct weir_routing worker;
    uint64_t sequence, epoch;
    Weir__Pb__JobSpec *spec; /* resolved, of the last quote() */
    uint8_t job[WEIR_ID_BYTES];
    /* noted on the way */
    int64_t credit; /* -1: none came */
    uint32_t renewals, step, steps;
    bool running;                          /* of the last RENEW */
    uint8_t runners[16][WEIR_TOKEN_BYTES]; /* leases that were said to run */
    uint32_t runner_count;
    bool cancel;     /* what RENEW_ACK says */
    bool logs;       /* workers write to b->log */
    bool mute;       /* PING and RENEW are not answered */
    bool forgot;     /* whatever comes is answered WHO, until HELLO does */
    bool greets;     /* HELLO is answered by itself */
    uint32_t hellos; /* so answered */
    size_t held;     /* of the last of them */
    uint8_t held_token[WEIR_TOKEN_BYTES];
};

int broker_setup(void **state);
int broker_teardown(void **state);

/* flags: further words for weir-worker, NULL-terminated; may be NULL */
void worker_start(struct broker *b, const char *const *flags);
/* How often the workers' logs have these words; only of workers that were started while b->logs. */
uint32_t log_count(const struct broker *b, const char *words);
void worker_kill(struct broker *b);
/* Waits for its end; the exit code, or 128 + signal. */
int worker_end(struct broker *b);
/* HELLO is seen, WELCOME said; returns once CREDIT came. */
void worker_greet(struct broker *b);
void broker_bind(struct broker *b);
void broker_unbind(struct broker *b);

void say(struct broker *b, enum weir_message_type type, const ProtobufCMessage *body);
/* The next message, which must be of this type. Release it. */
struct weir_message see(struct broker *b, enum weir_message_type type);
/* Nothing but what is answered by itself comes for so long. */
void see_nothing(struct broker *b, uint32_t ms);
/* Listens until *what, which the harness notes, is at least `least`. */
void see_until(struct broker *b, const uint32_t *what, uint32_t least);
void see_credit(struct broker *b, int64_t credit);

Weir__Pb__JobSpec *copy_spec(const Weir__Pb__JobSpec *spec);
/* QUOTE of a wish; QUOTED must be OK. Fills b->spec; returns memory_bytes. */
uint64_t quote(struct broker *b, const Weir__Pb__JobSpec *wish);
void quote_refused(struct broker *b, const Weir__Pb__JobSpec *wish, enum weir_status status, const char *words);

struct ticketed { /* one lease */
    Weir__Pb__TaskId id;
    uint8_t token[WEIR_TOKEN_BYTES];
};
struct lease_options {
    enum weir_stage stage;
    uint32_t index, item, frame_first, frame_count;
    const char *tenant;              /* NULL: local */
    const Weir__Pb__JobSpec *spec;   /* NULL: b->spec */
    uint32_t band;                   /* plus 1; 0: none is said */
    const Weir__Pb__Done *inputs[8]; /* whose artefacts, in order; NULL ends */
};
void lease(struct broker *b, struct ticketed *t, const struct lease_options *options);
/* DONE of that lease, acknowledged; free with weir__pb__done__free_unpacked(done, NULL). */
Weir__Pb__Done *see_done(struct broker *b, const struct ticketed *t);
Weir__Pb__Done *run_task(struct broker *b, const struct lease_options *options);
/* FAIL of that lease, acknowledged. */
void see_fail(struct broker *b, const struct ticketed *t, enum weir_status status, const char *words);
/* CANCEL, answered RELEASE. */
void cancel(struct broker *b, struct ticketed *t);
void see_release(struct broker *b, const struct ticketed *t);

void done_free(Weir__Pb__Done *done);
/* Of its first artefact. */
void digest_of(const Weir__Pb__Done *done, uint8_t out[WEIR_SHA256_BYTES]);

/* A small film of the model that workers have when nobody says otherwise. */
void wish_init(Weir__Pb__JobSpec *wish, uint32_t steps);
/* A worker with a quoted job of so many steps of it, and its text done. */
Weir__Pb__Done *ready(struct broker *b, uint32_t steps, const char *const *flags);

#endif
