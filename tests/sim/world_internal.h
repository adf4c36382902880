/* What the simulator's files share: world.c runs the clock, the network and the broker; worker.c and client.c pretend;
 * store.c keeps objects. */
#ifndef WEIR_SIM_WORLD_INTERNAL_H
#define WEIR_SIM_WORLD_INTERNAL_H

#include "tests/sim/world.h"

#define SIM_OBJECTS_MAX 4096
#define SIM_STEPS 10
#define SIM_CHECKPOINT_STEPS 3
#define SIM_INPUTS_MAX 4
#define SIM_CLASSES 2
#define SIM_PROMPTS_MAX 4

enum sim_fault { /* kinds, each on or off for a seed */
                 FAULT_DROP,
                 FAULT_DOUBLE,
                 FAULT_OVERTAKE,
                 FAULT_RESET,
                 FAULT_KILL,
                 FAULT_PAUSE,
                 FAULT_FAIL,
                 FAULT_RELEASE,
                 FAULT_OTHER_BYTES,
                 FAULT_LOSE_OUTPUT,
                 FAULT_BROKER,
                 FAULT_BROKER_PAUSE,
                 FAULT_CANCEL,
                 FAULT_DEADLINE,
                 FAULT_REPEAT,
                 FAULT_COUNT
};

/* A message on its way, in either direction. */
struct packet {
    enum weir_message_type type;
    enum weir_side side;
    uint32_t connection; /* it dies with it */
    struct weir_task_id task;
    uint8_t token[WEIR_TOKEN_BYTES];
    uint32_t attempt, inputs, number, status;
    enum weir_stage input_stage;
    uint32_t input_first;
    const char *input_keys[SIM_INPUTS_MAX];
    bool cancel, running, existed;
    uint32_t step, frames, items;
    bool image;
    uint32_t prompt_count; /* of a list; 0: none */
    const char *prompts[SIM_PROMPTS_MAX];
    uint64_t manifest;
    const ProtobufCMessage *body; /* to the broker: built by the sender, in the seed's memory */
};

enum event_kind { EVENT_TO_BROKER, EVENT_TO_PEER, EVENT_BROKER, EVENT_WORKER, EVENT_CLIENT, EVENT_CHAOS };
struct sim_event {
    uint64_t at_ms, order;
    enum event_kind kind;
    uint32_t target, stamp; /* a wake-up counts only if its stamp is the target's latest */
    struct packet *packet;
};

enum held_phase { HELD_WAITING, HELD_RUNNING, HELD_FINISHED, HELD_FAILED, HELD_RELEASED };
struct held_lease {
    bool used;
    struct weir_task_id task;
    uint8_t token[WEIR_TOKEN_BYTES];
    enum held_phase phase;
    uint32_t attempt, step, items, frames;
    uint64_t next_ms, renew_ms, resend_ms, resend_every_ms;
    enum weir_status status;
    bool lost_input;
    struct weir_task_id input;
    uint32_t inputs;
    enum weir_stage input_stage;
    uint32_t input_first;
    const char *input_keys[SIM_INPUTS_MAX];
    uint64_t made; /* what its output's bytes are */
};

struct sim_worker {
    bool alive, welcome;
    uint32_t connection, stamp, slots, stages, class_number;
    uint8_t id[WEIR_ID_BYTES];
    uint64_t pid, paused_until_ms, hello_ms, said_ms, credit_ms;
    struct held_lease held[SIM_HELD_MAX];
};

struct sim_client { /* one job each */
    bool submitted, accepted, refused, done, cancels, cancel_answered, watched;
    uint32_t connection, stamp;
    uint64_t submit_ms, cancel_ms, deadline_ms, said_ms;
    uint32_t frames, items;
    bool image;
    uint32_t prompt_count, texts[SIM_PROMPTS_MAX]; /* of a list; equal numbers: equal texts */
    struct weir_job_id job;
};

struct sim_object {
    const char *key;
    uint64_t hash, bytes, made; /* made: 0 of a checkpoint */
    bool gone;
};

struct chunk; /* memory of a seed */

struct sim {
    struct check check; /* first: the broker's ledger */
    uint64_t random, now_ms, order, seed;
    bool faults[FAULT_COUNT];
    bool verbose;
    uint32_t latency_ms, drop_percent;
    struct sim_event *events;
    size_t event_count, event_capacity;
    struct weir_broker *broker;
    uint32_t broker_stamp;
    uint64_t broker_paused_until_ms;
    uint64_t dies_after; /* ledger boundaries and sends until the broker is killed; 0: not planned */
    struct sim_worker workers[SIM_WORKERS_MAX];
    uint32_t worker_count;
    struct sim_client clients[SIM_JOBS_MAX];
    uint32_t client_count;
    uint32_t connections;
    uint64_t last_arrival_ms[2][SIM_JOBS_MAX]; /* by side and peer, to the broker */
    uint64_t last_delivery_ms[2][SIM_JOBS_MAX];
    struct sim_object objects[SIM_OBJECTS_MAX];
    size_t object_count;
    uint32_t job_number;
    char *memory;
    size_t memory_used, memory_bytes;
    struct sim_totals *totals;
};

/* world.c */
void *sim_memory(struct sim *sim, size_t bytes); /* zeroed; until the seed ends */
uint64_t sim_random(struct sim *sim);
uint32_t sim_below(struct sim *sim, uint32_t limit);
bool sim_chance(struct sim *sim, enum sim_fault fault, uint32_t percent); /* never after SIM_FAULTS_MS */
void sim_fill(struct sim *sim, void *out, size_t count);
void sim_wake(struct sim *sim, enum event_kind kind, uint32_t target, uint32_t *stamp, uint64_t at_ms);
/* A message from worker or client number `peer` to the broker. */
void sim_say(struct sim *sim, enum weir_side side, uint32_t peer, enum weir_message_type type,
             const ProtobufCMessage *body);
void sim_trace(struct sim *sim, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* worker.c */
void sim_worker_start(struct sim *sim, uint32_t number);
void sim_worker_wake(struct sim *sim, uint32_t number);
void sim_worker_hear(struct sim *sim, uint32_t number, const struct packet *packet);
/* client.c */
void sim_client_start(struct sim *sim, uint32_t number);
void sim_client_wake(struct sim *sim, uint32_t number);
void sim_client_hear(struct sim *sim, uint32_t number, const struct packet *packet);

/* store.c */
struct sim_object *sim_find(struct sim *sim, const char *key);
void sim_put(struct sim *sim, const char *key, uint64_t bytes, uint64_t made);
enum weir_status sim_stat(void *context, const char *key, uint64_t *bytes, struct weir_error *error);
enum weir_status sim_list(void *context, const char *prefix, bool (*each)(void *each_context, const char *key),
                          void *each_context, struct weir_error *error);
enum weir_status sim_remove(void *context, const char *prefix, struct weir_error *error);
uint32_t sim_newest_checkpoint(struct sim *sim, const struct weir_task_id *task);

extern const uint8_t sim_model_digest[WEIR_SHA256_BYTES];
/* Bytes are told by a number; a digest is that number spread out. */
void sim_digest(uint64_t made, uint8_t out[WEIR_SHA256_BYTES]);
uint64_t sim_mix(uint64_t a, uint64_t b);

#endif
