/* roster: the workers that are known: what they can run, what they may be given, when they were last heard.
 *
 * Pure bookkeeping for sched: no socket, no clock. A worker is known by the random id of its HELLO; a peer that comes
 * back with a new routing id under the same worker id is the same worker. Models and numerics classes are kept as small
 * numbers, so that sched can sort tasks by them.
 *
 * Units    now_ms on one monotonic clock
 * Memory   tables of fixed size, allocated at creation
 */
#ifndef WEIR_BROKER_ROSTER_H
#define WEIR_BROKER_ROSTER_H

#include "broker/ledger.h"

#define WEIR_WORKER_MODELS_MAX 64
#define WEIR_WORKER_SLOTS_MAX 64
#define WEIR_ROSTER_MODELS_MAX 128
#define WEIR_ROSTER_CLASSES_MAX 64
#define WEIR_ROSTER_NONE UINT32_MAX

struct weir_sched_task; /* sched's own */

/* What HELLO says of a worker. */
struct weir_worker_facts {
    uint8_t id[WEIR_ID_BYTES];
    uint64_t pid;
    uint32_t stages; /* bit s: runs stage s */
    uint32_t slots;  /* leases it runs at once, 1..WEIR_WORKER_SLOTS_MAX */
    uint64_t memory_bytes;
    char numerics_class[WEIR_LEDGER_CLASS_BYTES];
    uint32_t model_count;
    uint8_t models[WEIR_WORKER_MODELS_MAX][WEIR_SHA256_BYTES];
};

/* Leases it will take now, as far as is known. Where there are lanes, so many of each lane's stages, and none of a
 * stage that is in no lane; `leases` counts where there are none. */
struct weir_worker_credit {
    uint32_t leases, lane_count;
    struct {
        uint32_t stages, leases;
    } lanes[WEIR_STAGE_COUNT];
};

struct weir_worker {
    bool used;
    bool connected; /* false: lost, and its leases wait for the grace to end */
    bool draining;  /* said BYE or RELEASEs everything: gets nothing more */
    uint32_t slot;  /* in the roster */
    struct weir_worker_facts facts;
    uint32_t model_numbers[WEIR_WORKER_MODELS_MAX];
    uint32_t class_number;
    struct weir_worker_credit credit;
    uint32_t held_count; /* leases it has */
    struct weir_sched_task *held;
    uint64_t heard_ms, said_ms, lost_ms;
};

struct weir_roster;

enum weir_status weir_roster_create(uint32_t workers_max, struct weir_roster **out);
void weir_roster_destroy(struct weir_roster **roster);

/* The worker with this id, or NULL. */
struct weir_worker *weir_roster_find(struct weir_roster *roster, const uint8_t id[WEIR_ID_BYTES]);
/* By slot; NULL when nobody is there. */
struct weir_worker *weir_roster_at(struct weir_roster *roster, uint32_t slot);
/* One past the highest slot in use, to walk over. */
uint32_t weir_roster_end(const struct weir_roster *roster);
/* Adds the worker or updates what is known of it; connected from now on, without credit. NULL when the roster, its
 * models or classes are full. */
struct weir_worker *weir_roster_hello(struct weir_roster *roster, const struct weir_worker_facts *facts,
                                      uint64_t now_ms);
void weir_roster_remove(struct weir_roster *roster, struct weir_worker *worker);

/* A number for a model's digest or a class's text; the same for equal ones; NONE when the table is full. */
uint32_t weir_roster_model(struct weir_roster *roster, const uint8_t digest[WEIR_SHA256_BYTES]);
uint32_t weir_roster_class(struct weir_roster *roster, const char *numerics_class);
const char *weir_roster_class_text(const struct weir_roster *roster, uint32_t number);

/* Whether it runs such tasks at all; class NONE: not bound yet. */
bool weir_worker_fits(const struct weir_worker *worker, enum weir_stage stage, uint32_t model, uint32_t class_number);
/* Whether it can be given one more lease of that stage now. */
bool weir_worker_has_room(const struct weir_worker *worker, enum weir_stage stage);
/* It was given one. */
void weir_worker_take_credit(struct weir_worker *worker, enum weir_stage stage);

/* Measured seconds: a mean that forgets, kept for every (stage, shape). shape: any number that is equal for like
 * work. */
void weir_roster_measured(struct weir_roster *roster, enum weir_stage stage, uint64_t shape, uint64_t ms);
/* 0: nothing measured yet. */
uint64_t weir_roster_expected_ms(const struct weir_roster *roster, enum weir_stage stage, uint64_t shape);

#endif
