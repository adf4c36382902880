/* A worker's leases by the clock: credit, trust, who runs beside whom, renewals, answers said again. Time is moved by
 * hand, nothing is sent. */
#include "worker/held.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BEGIN 1000000u /* some time */

struct world {
    struct weir_held_table table;
    uint8_t tokens;
};

static int begin(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    if (!w) return -1;
    weir_held_init(&w->table);
    w->table.lease_ms = 1000;
    w->table.renew_ms = 300;
    *state = w;
    return 0;
}

static int end(void **state)
{
    struct world *w = *state;
    weir_held_deinit(&w->table);
    free(w);
    return 0;
}

/* A LEASE of denoise/index, decoded as if it had come. */
static struct weir_held *take(struct world *w, uint32_t index, uint64_t now_ms)
{
    Weir__Pb__Lease lease = WEIR__PB__LEASE__INIT;
    Weir__Pb__TaskId id = WEIR__PB__TASK_ID__INIT;
    Weir__Pb__JobSpec spec = WEIR__PB__JOB_SPEC__INIT;
    uint8_t job[WEIR_ID_BYTES] = { 1 }, token[WEIR_TOKEN_BYTES] = { ++w->tokens }, header[WEIR_WIRE_HEADER_BYTES];
    id.has_job = id.has_stage = id.has_index = 1;
    id.job = (ProtobufCBinaryData){ WEIR_ID_BYTES, job };
    id.stage = WEIR_STAGE_DENOISE;
    id.index = index;
    lease.task = &id;
    lease.spec = &spec;
    lease.tenant = (char *)(uintptr_t) "local";
    lease.has_token = lease.has_lease_ms = 1;
    lease.token = (ProtobufCBinaryData){ WEIR_TOKEN_BYTES, token };
    lease.lease_ms = 1000;
    const size_t count = weir__pb__lease__get_packed_size(&lease);
    uint8_t *bytes = malloc(count);
    struct weir_message message;
    struct weir_error error = { .words = "" };
    uint32_t seen;
    weir__pb__lease__pack(&lease, bytes);
    weir_wire_header(WEIR_MESSAGE_LEASE, 1, bytes, count, header);
    if (weir_wire_decode(header, sizeof header, bytes, count, WEIR_DIRECTION_B, &message, &seen, &error) != WEIR_OK) {
        fail_msg("%s", error.words);
    }
    free(bytes);
    struct weir_held *held = weir_held_add(&w->table, &message, now_ms);
    weir_message_release(&message);
    if (held) held->task = calloc(1, sizeof *held->task);
    return held;
}

/* The same for a task that others of its shape can join. */
static struct weir_held *take_of(struct world *w, uint32_t index, uint32_t side)
{
    struct weir_held *held = take(w, index, BEGIN);
    held->task->id.stage = WEIR_STAGE_DENOISE;
    held->task->joins = true;
    held->task->shape.dims[2] = held->task->shape.dims[3] = side;
    return held;
}

static void run(struct weir_held *held)
{
    held->state = WEIR_HELD_RUNNING;
}

static void credit_is_slots_and_one_less_what_is_held(void **state)
{
    struct world *w = *state;
    assert_int_equal(weir_held_credit(&w->table), 2);
    struct weir_held *first = take(w, 0, BEGIN);
    assert_int_equal(weir_held_credit(&w->table), 1);
    run(first);
    struct weir_held *second = take(w, 1, BEGIN);
    assert_int_equal(weir_held_credit(&w->table), 0);
    take(w, 2, BEGIN); /* more than was granted */
    assert_int_equal(weir_held_credit(&w->table), 0);
    weir_held_answer(first, WEIR_MESSAGE_DONE, BEGIN);
    assert_int_equal(weir_held_credit(&w->table), 0);
    weir_held_drop(&w->table, second);
    assert_int_equal(weir_held_credit(&w->table), 1); /* what is answered takes no slot */
}

static void a_full_table_takes_nothing_and_gives_no_credit(void **state)
{
    struct world *w = *state;
    struct weir_held *last = NULL;
    for (uint32_t i = 0; i < WEIR_HELD_MAX; i++) {
        last = take(w, i, BEGIN);
        assert_non_null(last);
        weir_held_answer(last, WEIR_MESSAGE_DONE, BEGIN);
        assert_int_equal(weir_held_credit(&w->table), i + 1 == WEIR_HELD_MAX ? 0 : i + 2 == WEIR_HELD_MAX ? 1 : 2);
    }
    assert_null(take(w, 99, BEGIN));
    weir_held_drop(&w->table, last);
    assert_non_null(take(w, 99, BEGIN));
}

/* Begins whatever may begin; how many run then. */
static size_t begin_all(struct world *w)
{
    for (struct weir_held *held; (held = weir_held_next(&w->table, BEGIN)) != NULL;) run(held);
    return weir_held_count(&w->table, WEIR_HELD_RUNNING);
}

static void a_batch_doubles_at_each_boundary_while_there_is_a_queue(void **state)
{
    struct world *w = *state;
    static const uint32_t wanted[] = { 1, 2, 4, 8, 8 };
    uint32_t index = 0;
    for (size_t i = 0; i < WEIR_COUNT(wanted); i++) {
        if (i > 0) weir_held_pace(&w->table, 8, BEGIN);
        while (weir_held_credit(&w->table) > 0) take_of(w, index++, 32); /* a broker that has plenty */
        assert_int_equal(begin_all(w), wanted[i]);
        assert_int_equal(weir_held_count(&w->table, WEIR_HELD_WAITING), 1);
    }
}

/* Eight tasks for four workers: each takes what runs and one that waits, and no more while there is nothing left. */
static void credit_grows_with_a_queue_only(void **state)
{
    struct world *w = *state;
    assert_int_equal(weir_held_credit(&w->table), 2);
    take_of(w, 0, 32);
    take_of(w, 1, 32);
    assert_int_equal(begin_all(w), 1);
    assert_int_equal(weir_held_credit(&w->table), 0);
    weir_held_pace(&w->table, 8, BEGIN);
    assert_int_equal(begin_all(w), 2);
    assert_int_equal(weir_held_credit(&w->table), 1); /* one more was joined, one more is asked for */
    weir_held_pace(&w->table, 8, BEGIN);              /* and none came */
    assert_int_equal(weir_held_credit(&w->table), 1);
    weir_held_drop(&w->table, weir_held_batch(&w->table));
    weir_held_pace(&w->table, 8, BEGIN);
    assert_int_equal(weir_held_credit(&w->table), 1);
    weir_held_drop(&w->table, weir_held_batch(&w->table));
    weir_held_pace(&w->table, 1, BEGIN);
    assert_int_equal(weir_held_credit(&w->table), 2);
}

static void another_shape_or_stage_waits_and_lets_nobody_past(void **state)
{
    struct world *w = *state;
    struct weir_held *first = take_of(w, 0, 32);
    assert_int_equal(begin_all(w), 1);
    struct weir_held *other = take_of(w, 1, 64), *later = take_of(w, 2, 32);
    weir_held_pace(&w->table, 8, BEGIN);
    assert_null(weir_held_next(&w->table, BEGIN)); /* the older one is of another shape */
    assert_int_equal(w->table.slots, 1);
    weir_held_drop(&w->table, first);
    assert_ptr_equal(weir_held_next(&w->table, BEGIN), other);
    run(other);
    weir_held_pace(&w->table, 8, BEGIN);
    assert_null(weir_held_next(&w->table, BEGIN));
    weir_held_drop(&w->table, other);
    struct weir_held *decode = take(w, 3, BEGIN);
    assert_ptr_equal(weir_held_next(&w->table, BEGIN), later);
    run(later);
    struct weir_held *last = take_of(w, 4, 32);
    weir_held_pace(&w->table, 8, BEGIN);
    assert_null(weir_held_next(&w->table, BEGIN)); /* so is one of another stage */
    weir_held_drop(&w->table, later);
    assert_ptr_equal(weir_held_next(&w->table, BEGIN), decode);
    run(decode);
    weir_held_pace(&w->table, 8, BEGIN);
    assert_null(weir_held_next(&w->table, BEGIN)); /* which runs alone */
    weir_held_drop(&w->table, decode);
    assert_ptr_equal(weir_held_next(&w->table, BEGIN), last);
}

/* Else the mates of one that ends its worker every time would spend their budgets with it. */
static void what_a_worker_crashed_over_has_no_mates(void **state)
{
    struct world *w = *state;
    struct weir_held *sound = take_of(w, 0, 32), *suspect = take_of(w, 1, 32), *last = take_of(w, 2, 32);
    suspect->task->alone = true;
    w->table.slots = 4;
    run(sound);
    assert_null(weir_held_next(&w->table, BEGIN));
    weir_held_drop(&w->table, sound);
    assert_ptr_equal(weir_held_next(&w->table, BEGIN), suspect);
    run(suspect);
    assert_null(weir_held_next(&w->table, BEGIN));
    weir_held_drop(&w->table, suspect);
    assert_ptr_equal(weir_held_next(&w->table, BEGIN), last);
}

/* A lane each for denoise, text, and decode with assemble. */
static void use_lanes(struct world *w)
{
    static const struct weir_lanes lanes = { 3, WEIR_RESTS_MAX, { [WEIR_STAGE_DENOISE] = 1, [WEIR_STAGE_TEXT] = 2 } };
    weir_held_set_lanes(&w->table, &lanes, WEIR_STAGES_ALL);
}

static struct weir_held *take_stage(struct world *w, enum weir_stage stage)
{
    struct weir_held *held = take(w, w->tokens, BEGIN);
    held->task->id.stage = stage;
    return held;
}

/* That of a stage's lane; how many have to be there in all. */
static uint32_t credit_of(const struct world *w, enum weir_stage stage, uint32_t lanes)
{
    struct weir_held_credit credits[WEIR_LANES_MAX];
    uint32_t found = UINT32_MAX;
    assert_int_equal(weir_held_credits(&w->table, credits), lanes);
    for (uint32_t i = 0; i < lanes; i++) {
        if (!(credits[i].stages >> stage & 1)) continue;
        assert_int_equal(found, UINT32_MAX); /* no stage is in two */
        found = credits[i].leases;
    }
    return found;
}

static void a_full_batch_keeps_no_other_lane_from_its_credit(void **state)
{
    struct world *w = *state;
    use_lanes(w);
    assert_int_equal(weir_held_credit(&w->table), 6);
    assert_int_equal(weir_held_slots_most(&w->table, 16), 17 + 2 + 2 - 1 + WEIR_RESTS_MAX);
    for (uint32_t i = 0; i < 4; i++) run(take_of(w, i, 32));
    take_of(w, 4, 32);
    weir_held_pace(&w->table, 4, BEGIN);
    assert_int_equal(credit_of(w, WEIR_STAGE_DENOISE, 3), 0);
    assert_int_equal(credit_of(w, WEIR_STAGE_TEXT, 3), 2);
    assert_int_equal(credit_of(w, WEIR_STAGE_DECODE, 3), 2);
    take_stage(w, WEIR_STAGE_ASSEMBLE);
    assert_int_equal(credit_of(w, WEIR_STAGE_DECODE, 3), 1);
    assert_int_equal(credit_of(w, WEIR_STAGE_ASSEMBLE, 3), 1);
    assert_int_equal(credit_of(w, WEIR_STAGE_TEXT, 3), 2);
    struct weir_lanes two = w->table.lanes;
    weir_held_set_lanes(&w->table, &two, 1u << WEIR_STAGE_DENOISE | 1u << WEIR_STAGE_DECODE);
    assert_int_equal(credit_of(w, WEIR_STAGE_DECODE, 2), 1);
    assert_int_equal(credit_of(w, WEIR_STAGE_TEXT, 2), UINT32_MAX); /* a stage that is not run has no lane */
    weir_held_set_lanes(&w->table, &two, WEIR_STAGES_ALL);
    assert_int_equal(weir_held_credit(&w->table), 0 + 1 + 2);
    for (uint32_t i = 0; i < 3; i++) take_stage(w, WEIR_STAGE_DECODE); /* from a broker that goes by the sum */
    assert_int_equal(credit_of(w, WEIR_STAGE_TEXT, 3), 2);
    assert_int_equal(weir_held_credit(&w->table), 0);
}

static void lanes_begin_beside_each_other_each_in_its_own_order(void **state)
{
    struct world *w = *state;
    use_lanes(w);
    struct weir_held *batch = take_of(w, 0, 32), *other = take_of(w, 1, 64);
    struct weir_held *text = take_stage(w, WEIR_STAGE_TEXT), *later = take_stage(w, WEIR_STAGE_TEXT);
    struct weir_held *decode = take_stage(w, WEIR_STAGE_DECODE);
    assert_int_equal(begin_all(w), 3);
    assert_int_equal(batch->state, WEIR_HELD_RUNNING);
    assert_int_equal(text->state, WEIR_HELD_RUNNING);
    assert_int_equal(decode->state, WEIR_HELD_RUNNING);
    weir_held_pace(&w->table, 8, BEGIN);
    assert_int_equal(w->table.slots, 1); /* who waits in the batch's lane is of another shape */
    weir_held_drop(&w->table, text);
    assert_ptr_equal(weir_held_next(&w->table, BEGIN), later);
    run(later);
    assert_null(weir_held_next(&w->table, BEGIN));
    weir_held_drop(&w->table, batch);
    assert_ptr_equal(weir_held_next(&w->table, BEGIN), other);
}

static void what_is_files_to_be_written_keeps_no_lane_but_there_are_not_many(void **state)
{
    struct world *w = *state;
    struct weir_held *left[WEIR_RESTS_MAX];
    for (uint32_t i = 0; i < WEIR_RESTS_MAX; i++) {
        left[i] = take_stage(w, WEIR_STAGE_DECODE);
        assert_ptr_equal(weir_held_next(&w->table, BEGIN), left[i]);
        run(left[i]);
        assert_int_equal(weir_held_credit(&w->table), 1);
        atomic_store(&left[i]->task->left, true);
        assert_int_equal(weir_held_credit(&w->table), 2);
    }
    struct weir_held *decode = take_stage(w, WEIR_STAGE_DECODE);
    assert_null(weir_held_next(&w->table, BEGIN));
    weir_held_drop(&w->table, left[2]);
    assert_ptr_equal(weir_held_next(&w->table, BEGIN), decode);
    run(decode);
    struct weir_held *denoise = take_of(w, 90, 32);
    assert_null(weir_held_next(&w->table, BEGIN)); /* one lane for all, and the decode is in it */
    atomic_store(&decode->task->left, true);
    assert_ptr_equal(weir_held_next(&w->table, BEGIN), denoise); /* which leaves nothing */
}

static void what_a_worker_crashed_over_has_no_mates_in_any_lane(void **state)
{
    struct world *w = *state;
    use_lanes(w);
    struct weir_held *decode = take_stage(w, WEIR_STAGE_DECODE), *suspect = take_of(w, 1, 32);
    struct weir_held *text = take_stage(w, WEIR_STAGE_TEXT);
    suspect->task->alone = true;
    assert_int_equal(begin_all(w), 1);
    assert_int_equal(decode->state, WEIR_HELD_RUNNING); /* it came before */
    atomic_store(&decode->task->left, true);
    assert_null(weir_held_next(&w->table, BEGIN));
    weir_held_drop(&w->table, decode);
    assert_ptr_equal(weir_held_next(&w->table, BEGIN), suspect);
    run(suspect);
    assert_null(weir_held_next(&w->table, BEGIN));
    weir_held_drop(&w->table, suspect);
    assert_ptr_equal(weir_held_next(&w->table, BEGIN), text);
}

static void a_batch_that_shrinks_takes_nobody_until_it_has(void **state)
{
    struct world *w = *state;
    for (uint32_t i = 0; i < 4; i++) run(take_of(w, i, 32));
    take_of(w, 4, 32);
    weir_held_pace(&w->table, 2, BEGIN);
    assert_int_equal(weir_held_credit(&w->table), 0);
    assert_null(weir_held_next(&w->table, BEGIN));
    for (int i = 0; i < 3; i++) weir_held_drop(&w->table, weir_held_batch(&w->table));
    weir_held_pace(&w->table, 2, BEGIN);
    assert_non_null(weir_held_next(&w->table, BEGIN));
}

static void a_lease_is_found_by_task_and_token_together(void **state)
{
    struct world *w = *state;
    struct weir_held *held = take(w, 4, BEGIN), *other = take(w, 5, BEGIN);
    assert_ptr_equal(weir_held_find(&w->table, held->lease->task, &held->lease->token), held);
    assert_null(weir_held_find(&w->table, held->lease->task, &other->lease->token));
    assert_ptr_equal(weir_held_of(&w->table, other->task), other);
}

static void the_oldest_begins_when_a_slot_is_free_and_the_lease_is_trusted(void **state)
{
    struct world *w = *state;
    struct weir_held *first = take(w, 0, BEGIN), *second = take(w, 1, BEGIN + 500);
    assert_ptr_equal(weir_held_next(&w->table, BEGIN + 500), first);
    assert_ptr_equal(weir_held_next(&w->table, BEGIN + 699), first);
    assert_ptr_equal(weir_held_next(&w->table, BEGIN + 700), second); /* 70% of a second without a word */
    assert_null(weir_held_next(&w->table, BEGIN + 1200));
    weir_held_confirm(first, BEGIN + 1000);
    assert_ptr_equal(weir_held_next(&w->table, BEGIN + 1200), first);
    weir_held_confirm(first, BEGIN); /* an older word takes nothing back */
    assert_ptr_equal(weir_held_next(&w->table, BEGIN + 1200), first);
    run(first);
    weir_held_confirm(second, BEGIN + 1200);
    assert_null(weir_held_next(&w->table, BEGIN + 1200));
}

static void an_acknowledgement_counts_from_when_the_renewal_was_sent(void **state)
{
    struct world *w = *state;
    struct weir_held *held = take(w, 0, BEGIN);
    weir_held_renew_sent(held, BEGIN + 300);
    weir_held_renew_sent(held, BEGIN + 600); /* two are on their way: the answer is to the first, at worst */
    weir_held_renewed(held);
    assert_true(weir_held_trusted(&w->table, held, BEGIN + 999));
    assert_false(weir_held_trusted(&w->table, held, BEGIN + 1000));
    weir_held_renewed(held); /* an answer to nothing */
    assert_false(weir_held_trusted(&w->table, held, BEGIN + 1000));
}

static void renewals_come_by_the_clock_and_progress_in_between(void **state)
{
    struct world *w = *state;
    struct weir_held *held = take(w, 0, BEGIN);
    assert_false(weir_held_renew_due(&w->table, held, BEGIN + 299));
    assert_true(weir_held_renew_due(&w->table, held, BEGIN + 300));
    run(held); /* that it runs is told at once */
    assert_true(weir_held_renew_due(&w->table, held, BEGIN + 1));
    assert_int_equal(weir_held_wait_ms(&w->table, BEGIN + 1, 5000), 0);
    weir_held_renew_sent(held, BEGIN + 1);
    assert_false(weir_held_renew_due(&w->table, held, BEGIN + 300));
    assert_int_equal(weir_held_wait_ms(&w->table, BEGIN + 1, 5000), 300);
    assert_int_equal(weir_held_wait_ms(&w->table, BEGIN + 1, 100), 100);
    atomic_store(&held->task->step, 3); /* so is a step, but not more often than every 200 ms */
    assert_false(weir_held_renew_due(&w->table, held, BEGIN + 200));
    assert_true(weir_held_renew_due(&w->table, held, BEGIN + 201));
    held->told_step = 3;
    assert_false(weir_held_renew_due(&w->table, held, BEGIN + 201));
    held->is_abandoned = true; /* nobody wants to hear of it any more */
    assert_false(weir_held_renew_due(&w->table, held, BEGIN + 2000));
}

static void an_answer_is_said_again_after_one_two_four_eight_and_ten_seconds(void **state)
{
    struct world *w = *state;
    static const uint32_t waits_ms[] = { 0, 1000, 2000, 4000, 8000, 10000, 10000 };
    struct weir_held *held = take(w, 0, BEGIN);
    uint64_t now_ms = BEGIN;
    run(held);
    weir_held_answer(held, WEIR_MESSAGE_DONE, now_ms);
    for (size_t i = 0; i < WEIR_COUNT(waits_ms); i++) {
        assert_int_equal(weir_held_wait_ms(&w->table, now_ms, 60000), waits_ms[i]);
        now_ms += waits_ms[i];
        weir_held_answer_sent(held, now_ms);
    }
    weir_held_answer(held, held->answer, now_ms); /* a broker came back: from the start */
    assert_int_equal(weir_held_wait_ms(&w->table, now_ms, 60000), 0);
    assert_false(weir_held_renew_due(&w->table, held, now_ms + 10000));
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(credit_is_slots_and_one_less_what_is_held),
        CASE(a_full_table_takes_nothing_and_gives_no_credit),
        CASE(a_batch_doubles_at_each_boundary_while_there_is_a_queue),
        CASE(credit_grows_with_a_queue_only),
        CASE(another_shape_or_stage_waits_and_lets_nobody_past),
        CASE(a_batch_that_shrinks_takes_nobody_until_it_has),
        CASE(what_a_worker_crashed_over_has_no_mates),
        CASE(a_full_batch_keeps_no_other_lane_from_its_credit),
        CASE(lanes_begin_beside_each_other_each_in_its_own_order),
        CASE(what_is_files_to_be_written_keeps_no_lane_but_there_are_not_many),
        CASE(what_a_worker_crashed_over_has_no_mates_in_any_lane),
        CASE(a_lease_is_found_by_task_and_token_together),
        CASE(the_oldest_begins_when_a_slot_is_free_and_the_lease_is_trusted),
        CASE(an_acknowledgement_counts_from_when_the_renewal_was_sent),
        CASE(renewals_come_by_the_clock_and_progress_in_between),
        CASE(an_answer_is_said_again_after_one_two_four_eight_and_ten_seconds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
