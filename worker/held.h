/* held: the leases a worker has, from LEASE to the broker's last word on them. Pure rules: time comes in as a number,
 * nothing is sent here.
 *
 *   LEASE --> WAITING --begins--> RUNNING --ends--> ANSWERED --DONE_ACK, FAIL_ACK, RELEASE_ACK, STALE--> gone
 *                |                   | STALE, CANCEL: stops at its next step
 *                +- RELEASE, STALE --+
 *
 * A lease is trusted for 70% of lease_ms from when its last acknowledged renewal was sent. One that waits is not begun
 * while it is not trusted; one that runs goes on at its own risk. An answer is sent again, after 1 s doubling to 10 s,
 * until it is acknowledged, and at once when a broker says WELCOME.
 *
 * Each lane (lanes.h) has its own order: tasks begin in the order they came. One runs by itself there, but denoise
 * tasks of one shape run beside each other, up to `slots`: the oldest that waits joins when it is of that shape; when
 * it is not, nobody joins, and what runs comes to its end first, so that nothing waits for longer than what was there
 * before it takes. A task that left its lane, and is files to be written, is nobody's mate; there are at most
 * lanes.rests of those.
 *
 * One that its worker crashed over runs with nobody beside it in any lane: who came after it waits for it, and it for
 * all that run.
 *
 * `slots` follows the work: it is 1 when nothing runs; at each step boundary it doubles, up to what is wanted, while
 * there is one that waits and could join, else it falls back to what runs. So credit grows only with a queue of one's
 * own, and work that is there for many workers goes to all of them before one takes more. Every lane has its own
 * credit: so a full batch keeps no decode out, and texts no batch.
 *
 * Units    milliseconds of weir_clock_now_ms()
 * Memory   the table owns the lease messages and tasks in it; a RUNNING task is lent to the crew
 * Threads  one
 */
#ifndef WEIR_WORKER_HELD_H
#define WEIR_WORKER_HELD_H

#include "proto/wire.h"
#include "worker/crew.h"
#include "worker/lanes.h"
#include "worker/rows.h"

#define WEIR_HELD_MAX 40
#define WEIR_HELD_RESEND_MS 1000
#define WEIR_HELD_RESEND_MS_MAX 10000
#define WEIR_HELD_PROGRESS_MS 200 /* at most so often is progress told beside renewals */

enum weir_held_state { WEIR_HELD_FREE, WEIR_HELD_WAITING, WEIR_HELD_RUNNING, WEIR_HELD_ANSWERED };

struct weir_held {
    enum weir_held_state state;
    uint64_t order;               /* of arrival */
    struct weir_message message;  /* LEASE */
    const Weir__Pb__Lease *lease; /* its body */
    struct weir_task *task;
    bool is_abandoned; /* RUNNING, but the lease is gone: say nothing when it ends */
    bool told_running;
    uint64_t confirmed_ms, unacked_ms; /* when the last acknowledged renewal, the oldest other one, was sent; 0: none */
    uint64_t renewed_ms, begun_ms;
    uint32_t told_step;
    enum weir_message_type answer; /* DONE, FAIL, RELEASE */
    enum weir_status status;       /* of FAIL */
    char words[400];
    uint64_t resend_at_ms;
    uint32_t resend_ms;
};

struct weir_held_table {
    struct weir_held rows[WEIR_HELD_MAX];
    uint64_t orders;
    struct weir_lanes lanes;
    unsigned stage_mask; /* what is run at all */
    uint32_t slots;      /* denoise tasks that may run at once, now; in every other lane it is one task */
    uint32_t lease_ms, renew_ms;
};

/* Leases that can be taken now: `leases` of the stages in `stages`, a bit each. */
struct weir_held_credit {
    uint32_t stages, leases;
};

/* One lane for all stages. */
void weir_held_init(struct weir_held_table *table);
void weir_held_set_lanes(struct weir_held_table *table, const struct weir_lanes *lanes, unsigned stage_mask);
/* Frees everything; no task may be in the crew's hands. */
void weir_held_deinit(struct weir_held_table *table);

/* The most that may ever run, with `most` denoise tasks at once. */
uint32_t weir_held_slots_most(const struct weir_held_table *table, uint32_t most);
/* Of each lane that has stages: slots, and one that waits, less what is held; nothing while no row is free. Returns how
 * many lanes there are. */
uint32_t weir_held_credits(const struct weir_held_table *table, struct weir_held_credit out[WEIR_LANES_MAX]);
/* Their sum, less what other lanes hold beyond theirs, from a broker that knows no lanes. */
uint32_t weir_held_credit(const struct weir_held_table *table);
size_t weir_held_count(const struct weir_held_table *table, enum weir_held_state state);

/* Takes the message over into a WAITING row. NULL when no row is free. */
struct weir_held *weir_held_add(struct weir_held_table *table, struct weir_message *message, uint64_t now_ms);
/* The row of this task and token; NULL when there is none. */
struct weir_held *weir_held_find(struct weir_held_table *table, const Weir__Pb__TaskId *task,
                                 const ProtobufCBinaryData *token);
struct weir_held *weir_held_of(struct weir_held_table *table, const struct weir_task *task);
/* Of some lane the oldest that waits and is trusted, when it may begin now; NULL: nothing may. */
struct weir_held *weir_held_next(struct weir_held_table *table, uint64_t now_ms);
/* One that runs and others could join; NULL when there is none. */
struct weir_held *weir_held_batch(struct weir_held_table *table);
/* A step boundary of what runs was passed, of which `wanted` at once are wanted; or no batch runs: sets `slots`. */
void weir_held_pace(struct weir_held_table *table, uint32_t wanted, uint64_t now_ms);
void weir_held_drop(struct weir_held_table *table, struct weir_held *held);

bool weir_held_trusted(const struct weir_held_table *table, const struct weir_held *held, uint64_t now_ms);
void weir_held_confirm(struct weir_held *held, uint64_t sent_ms);
/* A RENEW_ACK came: it confirms the oldest renewal that was not answered. */
void weir_held_renewed(struct weir_held *held);

/* Makes it ANSWERED, to be sent at once. */
void weir_held_answer(struct weir_held *held, enum weir_message_type answer, uint64_t now_ms);
/* Whether a renewal, or progress, should be told now. */
bool weir_held_renew_due(const struct weir_held_table *table, const struct weir_held *held, uint64_t now_ms);
void weir_held_renew_sent(struct weir_held *held, uint64_t now_ms);
void weir_held_answer_sent(struct weir_held *held, uint64_t now_ms);
/* Milliseconds until something of the table is due, at most `most`. */
uint64_t weir_held_wait_ms(const struct weir_held_table *table, uint64_t now_ms, uint64_t most);

#endif
