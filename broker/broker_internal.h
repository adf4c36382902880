/* What the files of the broker share. broker.c: turns and workers; admission.c: submits and quotes; clients.c: what
 * people ask and watch; sweep.c: the store behind ended jobs. */
#ifndef WEIR_BROKER_BROKER_INTERNAL_H
#define WEIR_BROKER_BROKER_INTERNAL_H

#include "broker/broker.h"
#include "broker/sabotage.h"

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

struct peer {
    UT_hash_handle hh;
    struct weir_routing routing;
    uint64_t sequence; /* of the last message sent */
    uint32_t slot;     /* of the worker; NONE */
    uint32_t malformed;
};

/* Memory that lives until the end of the turn. */
struct scratch {
    struct scratch *next;
};

struct admission {
    bool used;
    struct weir_message submit; /* owned */
    char tenant[WEIR_TENANT_BYTES];
    bool keyed;
    uint8_t key[WEIR_SHA256_BYTES];
    uint8_t fingerprint[WEIR_SHA256_BYTES];
    uint64_t number; /* of the QUOTE */
    uint32_t worker; /* asked now; NONE: nobody yet */
    uint32_t asked;
    uint64_t until_ms, ask_until_ms;
    enum weir_status refusal; /* of the last worker that said "not me" */
    char words[WEIR_LEDGER_WORDS_BYTES];
};

/* A job whose submit is in this turn's transaction. */
struct submission {
    struct weir_routing client;
    uint64_t number;
    struct weir_ledger_job row;
    struct weir_plan plan;
    uint8_t model[WEIR_SHA256_BYTES];
    uint64_t shape;
    struct weir_ledger_call call;
};

/* An answer to a client that waits for the turn's transaction. */
struct answer {
    struct weir_routing client;
    uint64_t number;
    struct weir_job_id job;
};

/* What a LEASE is made of beside its inputs; a job's spec never changes. */
#define SPECS_KEPT_MAX 4
struct kept_spec {
    struct weir_job_id job;
    Weir__Pb__JobSpec *spec; /* owned; NULL: nothing is kept here */
    struct weir_plan plan;
};

struct watch {
    struct weir_routing client;
    uint64_t number;
    struct weir_job_id job;
    uint64_t progress_ms; /* when the last one that only told a step was sent */
    uint64_t retry_ms;    /* an event could not be sent: tell the state again then; 0: nothing is owed */
    uint64_t failing_ms;  /* since when sending fails; 0: it works */
};

#define SWEEPS_MAX 1024
struct sweep {
    struct weir_job_id job;
    char tenant[WEIR_TENANT_BYTES];
    uint64_t due_ms;
};

struct weir_broker {
    struct weir_broker_options options;
    struct weir_ledger *ledger;
    struct weir_sched *sched;
    uint64_t epoch;
    bool closed;
    struct weir_actions *actions, *performing; /* filled by sched, and being performed */
    struct weir_message *messages;             /* of this turn */
    size_t message_count;
    struct scratch *scratch;
    struct submission *submissions[WEIR_TURN_MESSAGES_MAX];
    size_t submission_count;
    uint32_t submission_tasks;
    struct answer cancels[WEIR_TURN_MESSAGES_MAX];
    size_t cancel_count;
    const struct weir_message
        *late_asks[WEIR_TURN_MESSAGES_MAX]; /* WATCH and LIST: answered when the turn is durable */
    size_t late_ask_count;
    struct peer *peers[2];
    struct peer **worker_peers;  /* by slot; NULL while it has no connection */
    struct weir_message *hellos; /* by slot: what the worker said of itself */
    struct admission admissions[WEIR_ADMISSIONS_MAX];
    uint64_t quote_number;
    struct watch watches[WEIR_WATCHES_MAX];
    size_t watch_count;
    struct sweep sweeps[SWEEPS_MAX];
    size_t sweep_count;
    struct kept_spec specs[SPECS_KEPT_MAX]; /* of the jobs that were leased from last */
    size_t spec_next;                       /* the place that is used again next */
    bool sweeps_missed;                     /* some did not fit: look for them in the ledger */
    uint64_t sweep_look_ms;
};

/* broker.c */
void *weir_broker_scratch(struct weir_broker *broker, size_t bytes); /* zeroed; NULL: no memory */
enum weir_status weir_broker_send(struct weir_broker *broker, enum weir_side side, const struct weir_routing *to,
                                  enum weir_message_type type, const ProtobufCMessage *body);
enum weir_status weir_broker_send_worker(struct weir_broker *broker, uint64_t now_ms, uint32_t slot,
                                         enum weir_message_type type, const ProtobufCMessage *body);
struct weir_blob weir_broker_pack(struct weir_broker *broker, const ProtobufCMessage *message);

/* admission.c */
void weir_broker_submit(struct weir_broker *broker, uint64_t now_ms, struct weir_message *message);
void weir_broker_quoted(struct weir_broker *broker, uint64_t now_ms, uint64_t wall_ms, uint32_t slot,
                        const Weir__Pb__Quoted *quoted);
/* Asks on where a worker was lost or is too slow; refuses what is over its time. Returns the time until the next
 * one. */
uint64_t weir_broker_admissions_tick(struct weir_broker *broker, uint64_t now_ms);
/* The turn's submits are durable: loads the jobs and answers. */
enum weir_status weir_broker_submitted(struct weir_broker *broker, uint64_t now_ms, struct weir_error *error);
void weir_broker_refuse(struct weir_broker *broker, const struct weir_routing *client, uint64_t number,
                        enum weir_status status, uint32_t retry_after_ms, const char *format, ...)
    __attribute__((format(printf, 6, 7)));
/* The spec's numbers by which equal work is known; its model's digest. */
uint64_t weir_broker_shape(const Weir__Pb__JobSpec *spec);

/* clients.c */
void weir_broker_client(struct weir_broker *broker, uint64_t now_ms, uint64_t wall_ms,
                        const struct weir_message *message);
void weir_broker_answer_cancels(struct weir_broker *broker);
/* WATCH and LIST. */
void weir_broker_late_ask(struct weir_broker *broker, uint64_t now_ms, const struct weir_message *message);
void weir_broker_note(struct weir_broker *broker, uint64_t now_ms, const struct weir_note *note);
uint64_t weir_broker_watches_tick(struct weir_broker *broker, uint64_t now_ms);

/* sweep.c */
void weir_broker_sweep_later(struct weir_broker *broker, uint64_t now_ms, const struct weir_job_id *job,
                             const char *tenant);
enum weir_status weir_broker_sweeps_tick(struct weir_broker *broker, uint64_t now_ms, struct weir_error *error);
uint32_t weir_broker_newest_checkpoint(struct weir_broker *broker, const char *tenant, const struct weir_task_id *task,
                                       bool *known);

#endif
