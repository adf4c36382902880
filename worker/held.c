#include "worker/held.h"

#include <assert.h>
#include <string.h>

enum { TRUST_PERCENT = 70, DEFAULT_LEASE_MS = 30000, DEFAULT_RENEW_MS = 5000 };

static_assert(WEIR_ROWS_MAX + 1 + 2 * (WEIR_LANES_MAX - 1) + WEIR_RESTS_MAX < WEIR_HELD_MAX,
              "a full batch, one of each other lane, one that waits in each, what left, and room for answers");

void weir_held_init(struct weir_held_table *table)
{
    memset(table, 0, sizeof *table);
    table->slots = 1;
    table->lanes = (struct weir_lanes){ .count = 1, .rests = WEIR_RESTS_MAX };
    table->stage_mask = WEIR_STAGES_ALL;
    table->lease_ms = DEFAULT_LEASE_MS;
    table->renew_ms = DEFAULT_RENEW_MS;
}

void weir_held_deinit(struct weir_held_table *table)
{
    for (size_t i = 0; i < WEIR_HELD_MAX; i++) weir_held_drop(table, &table->rows[i]);
}

size_t weir_held_count(const struct weir_held_table *table, enum weir_held_state state)
{
    size_t count = 0;
    for (size_t i = 0; i < WEIR_HELD_MAX; i++) count += table->rows[i].state == state;
    return count;
}

void weir_held_set_lanes(struct weir_held_table *table, const struct weir_lanes *lanes, unsigned stage_mask)
{
    table->lanes = *lanes;
    table->stage_mask = stage_mask;
}

/* ---- lanes ---- */

static uint32_t lane_of(const struct weir_held_table *table, const struct weir_held *held)
{
    return table->lanes.of[held->task->id.stage];
}

static bool has_left(const struct weir_held *held)
{
    return held->state == WEIR_HELD_RUNNING && atomic_load(&held->task->left);
}

static uint32_t stages_of(const struct weir_held_table *table, uint32_t lane)
{
    uint32_t stages = 0;
    for (uint32_t i = 0; i < WEIR_STAGE_COUNT; i++) {
        if (table->lanes.of[i] == lane) stages |= 1u << i;
    }
    return stages & table->stage_mask;
}

static uint32_t slots_of(const struct weir_held_table *table, uint32_t lane)
{
    return lane == table->lanes.of[WEIR_STAGE_DENOISE] ? table->slots : 1;
}

/* In that state, and in the lane. */
static uint32_t count_in(const struct weir_held_table *table, uint32_t lane, enum weir_held_state state)
{
    uint32_t count = 0;
    for (size_t i = 0; i < WEIR_HELD_MAX; i++) {
        const struct weir_held *held = &table->rows[i];
        count += held->state == state && lane_of(table, held) == lane && !has_left(held);
    }
    return count;
}

static uint32_t count_left(const struct weir_held_table *table)
{
    uint32_t count = 0;
    for (size_t i = 0; i < WEIR_HELD_MAX; i++) count += has_left(&table->rows[i]);
    return count;
}

/* ---- credit ---- */

static uint32_t held_in(const struct weir_held_table *table, uint32_t lane)
{
    return count_in(table, lane, WEIR_HELD_WAITING) + count_in(table, lane, WEIR_HELD_RUNNING);
}

uint32_t weir_held_slots_most(const struct weir_held_table *table, uint32_t most)
{
    uint32_t count = table->lanes.rests;
    for (uint32_t lane = 0; lane < table->lanes.count; lane++) {
        const uint32_t stages = stages_of(table, lane);
        if (stages) count += 1 + (stages >> WEIR_STAGE_DENOISE & 1 ? most : 1);
    }
    return count - 1; /* one that waits is not counted */
}

uint32_t weir_held_credits(const struct weir_held_table *table, struct weir_held_credit out[WEIR_LANES_MAX])
{
    uint32_t count = 0, room = (uint32_t)weir_held_count(table, WEIR_HELD_FREE);
    for (uint32_t lane = 0; lane < table->lanes.count; lane++) {
        const uint32_t held = held_in(table, lane), most = slots_of(table, lane) + 1;
        const uint32_t wanted = held < most ? most - held : 0;
        const struct weir_held_credit credit = { stages_of(table, lane), wanted < room ? wanted : room };
        if (!credit.stages) continue;
        room -= credit.leases;
        out[count++] = credit;
    }
    return count;
}

uint32_t weir_held_credit(const struct weir_held_table *table)
{
    struct weir_held_credit credits[WEIR_LANES_MAX];
    uint32_t leases = 0, beyond = 0;
    for (uint32_t i = weir_held_credits(table, credits); i > 0; i--) leases += credits[i - 1].leases;
    for (uint32_t lane = 0; lane < table->lanes.count; lane++) {
        const uint32_t held = held_in(table, lane), most = slots_of(table, lane) + 1;
        if (held > most) beyond += held - most;
    }
    return leases > beyond ? leases - beyond : 0;
}

/* ---- leases ---- */

struct weir_held *weir_held_add(struct weir_held_table *table, struct weir_message *message, uint64_t now_ms)
{
    for (size_t i = 0; i < WEIR_HELD_MAX; i++) {
        struct weir_held *held = &table->rows[i];
        if (held->state != WEIR_HELD_FREE) continue;
        *held = (struct weir_held){ .state = WEIR_HELD_WAITING,
                                    .order = ++table->orders,
                                    .message = *message,
                                    .confirmed_ms = now_ms,
                                    .renewed_ms = now_ms };
        held->lease = held->message.body.lease;
        message->body.base = NULL;
        message->arena = NULL;
        return held;
    }
    return NULL;
}

static bool same(const struct weir_held *held, const Weir__Pb__TaskId *task, const ProtobufCBinaryData *token)
{
    const Weir__Pb__TaskId *own = held->lease->task;
    return held->lease->token.len == token->len && memcmp(held->lease->token.data, token->data, token->len) == 0 &&
           own->stage == task->stage && own->index == task->index && own->job.len == task->job.len &&
           memcmp(own->job.data, task->job.data, task->job.len) == 0;
}

struct weir_held *weir_held_find(struct weir_held_table *table, const Weir__Pb__TaskId *task,
                                 const ProtobufCBinaryData *token)
{
    for (size_t i = 0; i < WEIR_HELD_MAX; i++) {
        struct weir_held *held = &table->rows[i];
        if (held->state != WEIR_HELD_FREE && same(held, task, token)) return held;
    }
    return NULL;
}

struct weir_held *weir_held_of(struct weir_held_table *table, const struct weir_task *task)
{
    for (size_t i = 0; i < WEIR_HELD_MAX; i++) {
        if (table->rows[i].state != WEIR_HELD_FREE && table->rows[i].task == task) return &table->rows[i];
    }
    return NULL;
}

bool weir_held_trusted(const struct weir_held_table *table, const struct weir_held *held, uint64_t now_ms)
{
    return now_ms - held->confirmed_ms < (uint64_t)table->lease_ms * TRUST_PERCENT / 100;
}

static struct weir_held *oldest_waiting(struct weir_held_table *table, uint32_t lane, uint64_t now_ms)
{
    struct weir_held *found = NULL;
    for (size_t i = 0; i < WEIR_HELD_MAX; i++) {
        struct weir_held *held = &table->rows[i];
        if (held->state != WEIR_HELD_WAITING || !weir_held_trusted(table, held, now_ms)) continue;
        if (lane_of(table, held) != lane) continue;
        if (!found || held->order < found->order) found = held;
    }
    return found;
}

struct weir_held *weir_held_batch(struct weir_held_table *table)
{
    for (size_t i = 0; i < WEIR_HELD_MAX; i++) {
        if (table->rows[i].state == WEIR_HELD_RUNNING && table->rows[i].task->joins) return &table->rows[i];
    }
    return NULL;
}

/* Whether one that must have no mate forbids this one to begin: it runs, or came before it, or is this one, and others
 * run. */
static bool is_kept_out(const struct weir_held_table *table, const struct weir_held *held, uint64_t now_ms)
{
    for (size_t i = 0; i < WEIR_HELD_MAX; i++) {
        const struct weir_held *other = &table->rows[i];
        if (other->state == WEIR_HELD_RUNNING && (other->task->alone || held->task->alone)) return true;
        if (other->state == WEIR_HELD_WAITING && other->task->alone && other->order < held->order &&
            weir_held_trusted(table, other, now_ms))
            return true;
    }
    return false;
}

/* The oldest that waits in the lane, when nothing runs there or it could run beside what does. */
static struct weir_held *could_begin(struct weir_held_table *table, uint32_t lane, uint64_t now_ms)
{
    struct weir_held *oldest = oldest_waiting(table, lane, now_ms);
    const struct weir_held *batch = weir_held_batch(table);
    if (!oldest || is_kept_out(table, oldest, now_ms)) return NULL;
    if (count_in(table, lane, WEIR_HELD_RUNNING) == 0) return oldest;
    return batch && weir_task_joins(oldest->task, batch->task) ? oldest : NULL;
}

/* Whether a task of that stage leaves files to be written, which is for a finisher that is free. */
static bool may_leave(enum weir_stage stage)
{
    return stage == WEIR_STAGE_DECODE || stage == WEIR_STAGE_ASSEMBLE;
}

struct weir_held *weir_held_next(struct weir_held_table *table, uint64_t now_ms)
{
    for (uint32_t lane = 0; lane < table->lanes.count; lane++) {
        const uint32_t running = count_in(table, lane, WEIR_HELD_RUNNING);
        if (running > 0 && running >= slots_of(table, lane)) continue;
        struct weir_held *held = could_begin(table, lane, now_ms);
        if (!held || (may_leave(held->task->id.stage) && count_left(table) >= table->lanes.rests)) continue;
        return held;
    }
    return NULL;
}

void weir_held_pace(struct weir_held_table *table, uint32_t wanted, uint64_t now_ms)
{
    const uint32_t lane = table->lanes.of[WEIR_STAGE_DENOISE], running = count_in(table, lane, WEIR_HELD_RUNNING);
    uint32_t slots = running;
    if (running > 0 && could_begin(table, lane, now_ms)) slots = 2 * running;
    if (slots > wanted) slots = wanted;
    table->slots = slots > 1 ? slots : 1;
}

void weir_held_drop(struct weir_held_table *table, struct weir_held *held)
{
    (void)table;
    if (held->state == WEIR_HELD_FREE) return;
    weir_task_destroy(&held->task);
    weir_message_release(&held->message);
    memset(held, 0, sizeof *held);
}

void weir_held_confirm(struct weir_held *held, uint64_t sent_ms)
{
    if (sent_ms > held->confirmed_ms) held->confirmed_ms = sent_ms;
}

void weir_held_renewed(struct weir_held *held)
{
    if (held->unacked_ms) weir_held_confirm(held, held->unacked_ms);
    held->unacked_ms = 0;
}

void weir_held_answer(struct weir_held *held, enum weir_message_type answer, uint64_t now_ms)
{
    held->state = WEIR_HELD_ANSWERED;
    held->answer = answer;
    held->resend_at_ms = now_ms;
    held->resend_ms = WEIR_HELD_RESEND_MS;
}

/* When the next RENEW is due. */
static uint64_t renew_at_ms(const struct weir_held_table *table, const struct weir_held *held)
{
    const uint64_t renew = held->renewed_ms + table->renew_ms, soon = held->renewed_ms + WEIR_HELD_PROGRESS_MS;
    if (held->state != WEIR_HELD_RUNNING || held->is_abandoned) return renew;
    if (!held->told_running) return 0;
    const bool moved = atomic_load(&held->task->step) != held->told_step;
    return moved && soon < renew ? soon : renew;
}

bool weir_held_renew_due(const struct weir_held_table *table, const struct weir_held *held, uint64_t now_ms)
{
    if (held->state != WEIR_HELD_WAITING && held->state != WEIR_HELD_RUNNING) return false;
    return !held->is_abandoned && now_ms >= renew_at_ms(table, held);
}

void weir_held_renew_sent(struct weir_held *held, uint64_t now_ms)
{
    held->renewed_ms = now_ms;
    if (!held->unacked_ms) held->unacked_ms = now_ms;
    if (held->state == WEIR_HELD_RUNNING) held->told_running = true;
}

void weir_held_answer_sent(struct weir_held *held, uint64_t now_ms)
{
    held->resend_at_ms = now_ms + held->resend_ms;
    held->resend_ms = held->resend_ms * 2 < WEIR_HELD_RESEND_MS_MAX ? held->resend_ms * 2 : WEIR_HELD_RESEND_MS_MAX;
}

uint64_t weir_held_wait_ms(const struct weir_held_table *table, uint64_t now_ms, uint64_t most)
{
    uint64_t at_ms = now_ms + most;
    for (size_t i = 0; i < WEIR_HELD_MAX; i++) {
        const struct weir_held *held = &table->rows[i];
        uint64_t due_ms = at_ms;
        if (held->state == WEIR_HELD_ANSWERED) due_ms = held->resend_at_ms;
        if ((held->state == WEIR_HELD_WAITING || held->state == WEIR_HELD_RUNNING) && !held->is_abandoned) {
            due_ms = renew_at_ms(table, held);
        }
        if (due_ms < at_ms) at_ms = due_ms;
    }
    return at_ms > now_ms ? at_ms - now_ms : 0;
}
