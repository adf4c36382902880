/* broker: all of the broker but its sockets and clocks. Decoded messages go in, messages come out through a port.
 *
 * A turn: take() hands in what has come, each message is turned into an event for sched, or into a question about the
 * ledger; flush() lets time pass, writes all ledger calls of the turn in one transaction, and only then sends. The loop
 * runs this with sockets, the simulator with pretend workers and crashes: the order "ledger first, then send" is here,
 * once, for both.
 *
 * Units    now_ms monotonic; wall_ms for people
 * Memory   a message that is taken belongs to the broker; it is released when its turn is over
 * Threads  a broker belongs to one thread
 * Blocks   take() and flush() as long as the ledger and the store take
 */
#ifndef WEIR_BROKER_BROKER_H
#define WEIR_BROKER_BROKER_H

#include "broker/sched.h"
#include "proto/base/log.h"
#include "proto/wire.h"

#define WEIR_TURN_MESSAGES_MAX 256
#define WEIR_TURN_TASKS_MAX 8192 /* of new jobs, written in one transaction, unless one job alone has more */
#define WEIR_ADMISSIONS_MAX 256  /* submits that wait for a quote */
#define WEIR_WATCHES_MAX 4096
#define WEIR_WATCHES_PER_CLIENT_MAX 64
#define WEIR_PEERS_MAX 4096         /* known connections, on each side */
#define WEIR_MALFORMED_MAX 3        /* from one connection; then it is ignored */
#define WEIR_QUOTE_MS_MAX 30000     /* from SUBMIT to an answer */
#define WEIR_QUOTE_ASK_MS_MAX 10000 /* until another worker is asked */
#define WEIR_PROGRESS_MS_MIN 200    /* between two events that only tell a step */
#define WEIR_SWEEP_AFTER_MS (60 * 60 * 1000)
#define WEIR_LIST_MAX 1000

enum weir_side { WEIR_SIDE_WORKERS, WEIR_SIDE_CLIENTS };

/* The outside world. */
struct weir_broker_port {
    void *context;
    /* Never blocks. UNAVAILABLE: the peer is gone, or its queue is full. A success proves nothing about arrival. */
    enum weir_status (*send)(void *context, enum weir_side side, const struct weir_routing *to,
                             enum weir_message_type type, uint64_t sequence, const ProtobufCMessage *body);
    /* As in store.h. */
    enum weir_status (*stat)(void *context, const char *key, uint64_t *bytes, struct weir_error *error);
    enum weir_status (*list)(void *context, const char *prefix, bool (*each)(void *each_context, const char *key),
                             void *each_context, struct weir_error *error);
    enum weir_status (*remove)(void *context, const char *prefix, struct weir_error *error);
    struct weir_job_id (*job_id)(void *context);
};

struct weir_broker_options {
    struct weir_sched_options sched;
    struct weir_broker_port port;
    const struct weir_log *log;
    const char *store; /* told to clients */
    const char *build;
    uint64_t pid;
    uint64_t sweep_after_ms; /* from a job's end until what its manifest does not list is removed */
};

struct weir_broker;

/* Takes over the ledger (T12) and loads its open jobs. The ledger stays the caller's and must outlive the broker. */
enum weir_status weir_broker_create(const struct weir_broker_options *options, struct weir_ledger *ledger,
                                    uint64_t now_ms, uint64_t wall_ms, struct weir_broker **out,
                                    struct weir_error *error);
void weir_broker_destroy(struct weir_broker **broker);

/* One message. At most WEIR_TURN_MESSAGES_MAX are taken before a flush(); it flushes by itself when its lists are full.
 * Errors   those of flush() */
enum weir_status weir_broker_take(struct weir_broker *broker, uint64_t now_ms, uint64_t wall_ms, enum weir_side side,
                                  struct weir_message *message, struct weir_error *error);
/* What came was no message: PROTOCOL or UNSUPPORTED of weir_wire_receive(). */
void weir_broker_take_malformed(struct weir_broker *broker, uint64_t now_ms, enum weir_side side,
                                const struct weir_routing *from, enum weir_status status, uint32_t type_seen,
                                const char *words);
/* Ends the turn. *wait_ms: how long the loop may sleep.
 * Errors   STORE (the ledger failed: nothing of this turn was sent; stop), STALE (another broker has taken over),
 *          INTERNAL */
enum weir_status weir_broker_flush(struct weir_broker *broker, uint64_t now_ms, uint64_t wall_ms, uint64_t *wait_ms,
                                   struct weir_error *error);
/* No new jobs from now on: SUBMIT is answered BUSY. */
void weir_broker_close_doors(struct weir_broker *broker);

struct weir_sched *weir_broker_sched(struct weir_broker *broker);

#endif
