#include "worker/held.h"

#include <assert.h>
#include <string.h>

enum { TRUST_PERCENT = 70, DEFAULT_LEASE_MS = 30000, DEFAULT_RENEW_MS = 5000 };

static_assert(WEIR_ROWS_MAX + 1 < WEIR_HELD_MAX, "a full batch, one that waits, and room for answers");

void weir_held_init(struct weir_held_table *table)
{
    memset(table, 0, sizeof *table);
    table->slots = 1;
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

uint32_t weir_held_credit(const struct weir_held_table *table)
{
    const size_t held = weir_held_count(table, WEIR_HELD_WAITING) + weir_held_count(table, WEIR_HELD_RUNNING);
    const size_t room = weir_held_count(table, WEIR_HELD_FREE);
    const size_t wanted = held < table->slots + 1 ? table->slots + 1 - held : 0;
    return (uint32_t)(wanted < room ? wanted : room);
}

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

static struct weir_held *oldest_waiting(struct weir_held_table *table, uint64_t now_ms)
{
    struct weir_held *found = NULL;
    for (size_t i = 0; i < WEIR_HELD_MAX; i++) {
        struct weir_held *held = &table->rows[i];
        if (held->state != WEIR_HELD_WAITING || !weir_held_trusted(table, held, now_ms)) continue;
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

/* The oldest that waits, when nothing runs or it could run beside what does. */
static struct weir_held *could_begin(struct weir_held_table *table, uint64_t now_ms)
{
    struct weir_held *oldest = oldest_waiting(table, now_ms);
    const struct weir_held *batch = weir_held_batch(table);
    if (!oldest || weir_held_count(table, WEIR_HELD_RUNNING) == 0) return oldest;
    return batch && weir_task_joins(oldest->task, batch->task) ? oldest : NULL;
}

struct weir_held *weir_held_next(struct weir_held_table *table, uint64_t now_ms)
{
    const size_t running = weir_held_count(table, WEIR_HELD_RUNNING);
    return running == 0 || running < table->slots ? could_begin(table, now_ms) : NULL;
}

void weir_held_pace(struct weir_held_table *table, uint32_t wanted, uint64_t now_ms)
{
    const uint32_t running = (uint32_t)weir_held_count(table, WEIR_HELD_RUNNING);
    uint32_t slots = running;
    if (running > 0 && could_begin(table, now_ms)) slots = 2 * running;
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
