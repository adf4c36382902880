/* The broker's rules with a clock that is moved by hand: no socket, no ledger. What sched decides is read from its
 * actions. */
#include "broker/sched.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct world {
    struct weir_sched *sched;
    struct weir_sched_options options;
    struct weir_actions actions;
    uint64_t now_ms, chance;
    uint32_t jobs;
};

static const uint8_t model[WEIR_SHA256_BYTES] = { 1 };

static void chance(void *context, void *out, size_t count)
{
    struct world *w = context;
    for (size_t k = 0; k < count; k++) {
        w->chance = w->chance * 6364136223846793005u + 1442695040888963407u;
        ((uint8_t *)out)[k] = (uint8_t)(w->chance >> 56);
    }
}

static struct world *begin_with(struct weir_sched_options options)
{
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->now_ms = 1000000;
    w->options = options;
    w->options.random = chance;
    w->options.random_context = w;
    assert_int_equal(weir_sched_create(&w->options, &w->sched, NULL), WEIR_OK);
    return w;
}

static struct world *begin(void)
{
    return begin_with(weir_sched_options_default(false, false));
}

static void end(struct world *w)
{
    weir_sched_destroy(&w->sched);
    free(w);
}

/* ---- what happens ---- */

static void clear(struct world *w)
{
    w->actions.count = 0;
}

static void advance(struct world *w, uint64_t ms)
{
    w->now_ms += ms;
    clear(w);
    weir_sched_tick(w->sched, w->now_ms, 0, &w->actions);
}

static void event(struct world *w, struct weir_event e)
{
    clear(w);
    weir_sched_handle(w->sched, w->now_ms, &e, &w->actions);
}

struct job_wish {
    uint32_t items, frames;
    int32_t priority;
    uint64_t deadline_ms;
};

static enum weir_status try_submit_planned(struct world *w, const struct weir_plan *plan, struct job_wish wish,
                                           struct weir_job_id *out)
{
    struct weir_ledger_job job = { .tenant = "t",
                                   .numerics_class = "",
                                   .words = "",
                                   .priority = wish.priority,
                                   .deadline_ms = wish.deadline_ms,
                                   .cost_ms = 1000 };
    struct weir_ledger_task *tasks = calloc(weir_plan_tasks(plan), sizeof *tasks);
    job.id.bytes[7] = (uint8_t)++w->jobs;
    for (uint32_t k = 0; k < weir_plan_tasks(plan); k++) {
        weir_plan_at(plan, k, &tasks[k].stage, &tasks[k].index);
        tasks[k].state = tasks[k].stage == WEIR_STAGE_TEXT ? WEIR_TASK_READY : WEIR_TASK_BLOCKED;
    }
    const enum weir_status status =
        weir_sched_load(w->sched, w->now_ms, &job, plan, model, 7, tasks, weir_plan_tasks(plan), NULL);
    free(tasks);
    if (out != NULL) *out = job.id;
    return status;
}

static enum weir_status try_submit(struct world *w, struct job_wish wish, struct weir_job_id *out)
{
    const struct weir_plan plan = { .items = wish.items, .frames = wish.frames, .segments = (wish.frames + 15) / 16 };
    return try_submit_planned(w, &plan, wish, out);
}

static struct weir_job_id submit(struct world *w, struct job_wish wish)
{
    struct weir_job_id id;
    assert_int_equal(try_submit(w, wish, &id), WEIR_OK);
    return id;
}

static uint32_t join_as(struct world *w, uint8_t name, uint32_t slots, uint32_t stages, const char *numerics_class)
{
    struct weir_worker_facts facts = { .pid = name, .stages = stages, .slots = slots, .model_count = 1 };
    facts.id[0] = name;
    strcpy(facts.numerics_class, numerics_class);
    memcpy(facts.models[0], model, sizeof model);
    clear(w);
    const struct weir_event hello = { .type = WEIR_EVENT_HELLO, .u.hello = { &facts, true, NULL, 0 } };
    const uint32_t slot = weir_sched_handle(w->sched, w->now_ms, &hello, &w->actions);
    assert_true(slot != WEIR_ROSTER_NONE);
    event(w, (struct weir_event){ .type = WEIR_EVENT_CREDIT, .worker = slot, .u.credit.leases = slots + 1 });
    return slot;
}

static uint32_t join(struct world *w, uint8_t name)
{
    return join_as(w, name, 1, WEIR_STAGES_ALL, "c");
}

static void credit(struct world *w, uint32_t worker, uint32_t leases)
{
    event(w, (struct weir_event){ .type = WEIR_EVENT_CREDIT, .worker = worker, .u.credit.leases = leases });
}

struct grant {
    uint32_t worker;
    struct weir_task_id task;
    uint8_t token[WEIR_TOKEN_BYTES];
};

/* ---- what is seen ---- */

static size_t count_of(const struct world *w, enum weir_lease_message message)
{
    size_t count = 0;
    for (size_t k = 0; k < w->actions.count; k++) {
        count += w->actions.items[k].type == WEIR_ACTION_SEND && w->actions.items[k].u.send.message == message;
    }
    return count;
}

static const struct weir_ledger_call *see_call(struct world *w, enum weir_ledger_op op)
{
    for (size_t k = 0; k < w->actions.count; k++) {
        const struct weir_action *action = &w->actions.items[k];
        if (action->type == WEIR_ACTION_LEDGER && action->u.call.op == op) return &action->u.call;
    }
    fail_msg("no call %d of the ledger", (int)op);
    return NULL;
}

static void see_no_call(struct world *w)
{
    for (size_t k = 0; k < w->actions.count; k++) assert_int_not_equal(w->actions.items[k].type, WEIR_ACTION_LEDGER);
}

/* The only LEASE among the actions; its ledger call stands before it. */
static struct grant see_grant(struct world *w)
{
    struct grant grant = { 0 };
    bool written = false, sent = false;
    assert_int_equal(count_of(w, WEIR_SEND_LEASE), 1);
    for (size_t k = 0; k < w->actions.count; k++) {
        const struct weir_action *action = &w->actions.items[k];
        if (action->type == WEIR_ACTION_LEDGER && action->u.call.op == WEIR_LEDGER_LEASE) written = true;
        if (action->type != WEIR_ACTION_SEND || action->u.send.message != WEIR_SEND_LEASE) continue;
        assert_true(written);
        sent = true;
        grant.worker = action->worker;
        grant.task = action->u.send.task;
        memcpy(grant.token, action->u.send.token, sizeof grant.token);
    }
    assert_true(sent);
    return grant;
}

static struct grant tick_grant(struct world *w)
{
    advance(w, 0);
    return see_grant(w);
}

static struct weir_event about(const struct grant *grant, enum weir_event_type type)
{
    struct weir_event e = { .type = type, .worker = grant->worker, .task = grant->task };
    memcpy(e.token, grant->token, sizeof e.token);
    return e;
}

static void done(struct world *w, const struct grant *grant)
{
    event(w, about(grant, WEIR_EVENT_DONE));
}

static void keep_heard(struct world *w, uint32_t worker)
{
    weir_sched_heard(w->sched, worker, w->now_ms);
}

/* Lets time pass with both kept alive. */
static void live(struct world *w, uint64_t ms, uint32_t a, uint32_t b)
{
    for (; ms > 0; ms -= ms < 1000 ? ms : 1000) {
        keep_heard(w, a);
        keep_heard(w, b);
        advance(w, ms < 1000 ? ms : 1000);
    }
}

static struct grant run_to(struct world *w, uint32_t worker, enum weir_stage stage)
{
    for (int k = 0; k < 100; k++) {
        const struct grant grant = tick_grant(w);
        if (grant.task.stage == stage) return grant;
        done(w, &grant);
        assert_int_equal(count_of(w, WEIR_SEND_DONE_ACK), 1);
        credit(w, worker, 1);
    }
    fail_msg("the stage never came");
    return (struct grant){ 0 };
}

/* ---- claims ---- */

static void an_expired_lease_moves_the_task_and_refuses_the_late_answer(void **state)
{
    (void)state;
    struct world *w = begin();
    const uint32_t first = join(w, 1);
    submit(w, (struct job_wish){ 1, 16, 0, 0 });
    const struct grant old = tick_grant(w);
    const uint32_t second = join(w, 2);
    live(w, w->options.lease_ms - 1, first, second);
    see_no_call(w); /* one millisecond before its end nothing may move */
    keep_heard(w, first);
    keep_heard(w, second);
    advance(w, 1);
    assert_int_equal(see_call(w, WEIR_LEDGER_EXPIRE)->u.expire.charged, false);
    const struct grant again = see_grant(w);
    assert_int_equal(again.worker, second);
    assert_memory_not_equal(old.token, again.token, WEIR_TOKEN_BYTES);
    done(w, &old);
    assert_int_equal(count_of(w, WEIR_SEND_STALE), 1);
    see_no_call(w);
    done(w, &again);
    assert_int_equal(count_of(w, WEIR_SEND_DONE_ACK), 1);
    see_call(w, WEIR_LEDGER_COMMIT);
    end(w);
}

static void a_renewal_gives_a_full_period_again(void **state)
{
    (void)state;
    struct world *w = begin();
    const uint32_t worker = join(w, 1);
    submit(w, (struct job_wish){ 1, 16, 0, 0 });
    const struct grant grant = tick_grant(w);
    live(w, w->options.lease_ms - 1, worker, worker);
    event(w, about(&grant, WEIR_EVENT_RENEW));
    assert_int_equal(count_of(w, WEIR_SEND_RENEW_ACK), 1);
    live(w, w->options.lease_ms - 1, worker, worker);
    assert_non_null(weir_sched_holds(w->sched, &grant.task, grant.token));
    struct weir_event stale = about(&grant, WEIR_EVENT_RENEW);
    stale.token[3] ^= 1;
    event(w, stale);
    assert_int_equal(count_of(w, WEIR_SEND_STALE), 1);
    keep_heard(w, worker);
    advance(w, 1);
    assert_null(weir_sched_holds(w->sched, &grant.task, grant.token)); /* the stale one renewed nothing */
    end(w);
}

static void later_stages_go_before_new_films_and_priority_before_both(void **state)
{
    (void)state;
    struct world *w = begin();
    const uint32_t worker = join_as(w, 1, 1, WEIR_STAGES_ALL, "c");
    credit(w, worker, 1);
    const struct weir_job_id old = submit(w, (struct job_wish){ 1, 16, 0, 0 });
    submit(w, (struct job_wish){ 1, 16, 0, 0 });
    struct grant grant = tick_grant(w);
    assert_true(weir_job_id_equal(&grant.task.job, &old));
    const enum weir_stage order[] = { WEIR_STAGE_TEXT, WEIR_STAGE_DENOISE, WEIR_STAGE_DECODE };
    for (size_t k = 0; k < WEIR_COUNT(order); k++) {
        assert_int_equal(grant.task.stage, order[k]);
        assert_true(weir_job_id_equal(&grant.task.job, &old));
        done(w, &grant);
        credit(w, worker, 1);
        if (k + 1 < WEIR_COUNT(order)) grant = tick_grant(w);
    }
    const struct weir_job_id urgent = submit(w, (struct job_wish){ 1, 16, 5, 0 });
    grant = tick_grant(w);
    assert_true(weir_job_id_equal(&grant.task.job, &urgent));
    end(w);
}

/* A worker with room for decodes alone gets no text, whatever waits; and no more than each lane has room for. */
static void a_stage_gets_no_more_than_its_lane_has_credit_for(void **state)
{
    (void)state;
    struct world *w = begin();
    const uint32_t worker = join_as(w, 1, 8, WEIR_STAGES_ALL, "c");
    const uint32_t rest = WEIR_STAGES_ALL & ~(1u << WEIR_STAGE_TEXT);
    struct weir_worker_credit lanes = { 4, 2, { { 1u << WEIR_STAGE_TEXT, 0 }, { rest, 4 } } };
    event(w, (struct weir_event){ .type = WEIR_EVENT_CREDIT, .worker = worker, .u.credit = lanes });
    for (int k = 0; k < 4; k++) submit(w, (struct job_wish){ 1, 16, 0, 0 });
    advance(w, 0);
    assert_int_equal(count_of(w, WEIR_SEND_LEASE), 0);
    lanes.lanes[0].leases = 2;
    lanes.leases = 6;
    event(w, (struct weir_event){ .type = WEIR_EVENT_CREDIT, .worker = worker, .u.credit = lanes });
    advance(w, 0);
    assert_int_equal(count_of(w, WEIR_SEND_LEASE), 2);
    lanes.lane_count = 1; /* the other stages are of no lane */
    lanes.lanes[0].leases = 1;
    event(w, (struct weir_event){ .type = WEIR_EVENT_CREDIT, .worker = worker, .u.credit = lanes });
    const struct grant text = tick_grant(w);
    assert_int_equal(text.task.stage, WEIR_STAGE_TEXT);
    done(w, &text);
    advance(w, 0);
    assert_int_equal(count_of(w, WEIR_SEND_LEASE), 0); /* neither its denoise nor the fourth text */
    credit(w, worker, 2);                              /* without lanes any stage may have all */
    advance(w, 0);
    assert_int_equal(count_of(w, WEIR_SEND_LEASE), 2);
    end(w);
}

static void a_task_goes_where_its_input_was_made_unless_only_a_waiting_place_is_free_there(void **state)
{
    (void)state;
    struct world *w = begin();
    join(w, 1);
    submit(w, (struct job_wish){ 2, 16, 0, 0 });
    const struct grant text = tick_grant(w);
    const uint32_t second = join(w, 2);
    credit(w, text.worker, 2);
    done(w, &text);
    credit(w, text.worker, 2);
    advance(w, 0);
    assert_int_equal(count_of(w, WEIR_SEND_LEASE), 2);
    uint32_t workers[2], seen = 0;
    for (size_t k = 0; k < w->actions.count; k++) {
        const struct weir_action *action = &w->actions.items[k];
        if (action->type == WEIR_ACTION_SEND && action->u.send.message == WEIR_SEND_LEASE)
            workers[seen++] = action->worker;
    }
    assert_int_equal(workers[0], text.worker); /* both were free: nearness decides */
    assert_int_equal(workers[1], second);      /* the first had a waiting place only */
    end(w);
}

static void an_image_job_ends_with_its_last_picture_and_assembles_nothing(void **state)
{
    (void)state;
    struct world *w = begin();
    const struct weir_plan plan = { .items = 2, .frames = 1, .segments = 1, .is_image = true };
    const uint32_t worker = join(w, 1);
    struct weir_job_id id;
    assert_int_equal(try_submit_planned(w, &plan, (struct job_wish){ 2, 1, 0, 0 }, &id), WEIR_OK);
    uint32_t decoded = 0;
    for (uint32_t k = 0; k < 5; k++) { /* text, two of denoise, two of decode */
        assert_int_equal(weir_sched_counts(w->sched).jobs, 1);
        const struct grant grant = tick_grant(w);
        done(w, &grant);
        decoded += grant.task.stage == WEIR_STAGE_DECODE;
        const struct weir_ledger_call *commit = see_call(w, WEIR_LEDGER_COMMIT);
        assert_int_equal(commit->job_to, decoded == 2 ? WEIR_JOB_SUCCEEDED : WEIR_JOB_QUEUED);
        if (grant.task.stage == WEIR_STAGE_DECODE) assert_int_equal(commit->u.commit.ready.count, 0);
        credit(w, worker, 1);
    }
    assert_int_equal(decoded, 2);
    assert_int_equal(weir_sched_counts(w->sched).jobs, 0);
    end(w);
}

static void nobody_gets_more_than_its_slots_and_one_waiting(void **state)
{
    (void)state;
    struct world *w = begin();
    const uint32_t worker = join_as(w, 1, 2, WEIR_STAGES_ALL, "c");
    for (int k = 0; k < 6; k++) submit(w, (struct job_wish){ 1, 16, 0, 0 });
    credit(w, worker, 100);
    advance(w, 0);
    assert_int_equal(count_of(w, WEIR_SEND_LEASE), 3);
    credit(w, worker, 100);
    advance(w, 0);
    assert_int_equal(count_of(w, WEIR_SEND_LEASE), 0);
    end(w);
}

static void a_job_stays_with_the_class_of_its_first_lease(void **state)
{
    (void)state;
    struct world *w = begin();
    const uint32_t cpu = join_as(w, 1, 1, 1u << WEIR_STAGE_TEXT, "cpu");
    join_as(w, 2, 1, 1u << WEIR_STAGE_DENOISE, "cuda");
    submit(w, (struct job_wish){ 1, 16, 0, 0 });
    const struct grant text = tick_grant(w);
    assert_int_equal(text.worker, cpu);
    assert_string_equal(see_call(w, WEIR_LEDGER_LEASE)->u.lease.numerics_class, "cpu");
    done(w, &text);
    advance(w, 0);
    assert_int_equal(count_of(w, WEIR_SEND_LEASE), 0);
    const uint32_t other = join_as(w, 3, 1, 1u << WEIR_STAGE_DENOISE, "cpu");
    assert_int_equal(tick_grant(w).worker, other);
    end(w);
}

/* The worker dies; after the grace the newest checkpoint is asked for and told. */
static const struct weir_ledger_call *crash(struct world *w, const struct grant *grant, uint32_t checkpoint_step)
{
    event(w, (struct weir_event){ .type = WEIR_EVENT_LOST, .worker = grant->worker });
    advance(w, w->options.grace_ms - 1);
    see_no_call(w);
    advance(w, 1);
    bool asked = false;
    for (size_t k = 0; k < w->actions.count; k++) asked |= w->actions.items[k].type == WEIR_ACTION_PROBE;
    assert_true(asked);
    see_no_call(w);
    struct weir_event told = about(grant, WEIR_EVENT_PROBED);
    told.u.checkpoint_step = checkpoint_step;
    event(w, told);
    return see_call(w, WEIR_LEDGER_EXPIRE);
}

static void a_crash_is_charged_only_without_a_newer_checkpoint(void **state)
{
    (void)state;
    struct world *w = begin();
    uint32_t worker = join(w, 1);
    submit(w, (struct job_wish){ 1, 16, 0, 0 });
    struct grant grant = run_to(w, worker, WEIR_STAGE_DENOISE);
    assert_true(crash(w, &grant, 0)->u.expire.charged);
    worker = join(w, 2);
    live(w, 1000, worker, worker); /* the back-off ends within a second */
    grant = see_grant(w);
    assert_false(crash(w, &grant, 5)->u.expire.charged);
    join(w, 3);
    grant = tick_grant(w); /* at once */
    assert_true(crash(w, &grant, 5)->u.expire.charged);
    end(w);
}

static void the_third_charged_crash_ends_the_job_and_not_the_second(void **state)
{
    (void)state;
    struct world *w = begin();
    submit(w, (struct job_wish){ 1, 16, 0, 0 });
    for (uint8_t k = 1; k <= 3; k++) {
        const uint32_t worker = join(w, k);
        struct grant grant = { 0 };
        for (int s = 0; s < 5 && grant.task.stage == 0 && grant.worker == 0 && count_of(w, WEIR_SEND_LEASE) == 0; s++) {
            live(w, 1000, worker, worker);
        }
        grant = see_grant(w);
        const struct weir_ledger_call *call = crash(w, &grant, 0);
        assert_int_equal(call->u.expire.to == WEIR_TASK_DEAD, k == 3);
        if (k == 3) assert_int_equal(call->cause, WEIR_CRASHED);
    }
    assert_int_equal(weir_sched_counts(w->sched).jobs, 0);
    end(w);
}

static void a_lease_that_only_waited_is_not_charged(void **state)
{
    (void)state;
    struct world *w = begin();
    const uint32_t worker = join(w, 1);
    submit(w, (struct job_wish){ 1, 16, 0, 0 });
    submit(w, (struct job_wish){ 1, 16, 0, 0 });
    advance(w, 0);
    assert_int_equal(count_of(w, WEIR_SEND_LEASE), 2);
    event(w, (struct weir_event){ .type = WEIR_EVENT_LOST, .worker = worker });
    advance(w, w->options.grace_ms);
    size_t probes = 0, expired = 0;
    for (size_t k = 0; k < w->actions.count; k++) {
        const struct weir_action *action = &w->actions.items[k];
        probes += action->type == WEIR_ACTION_PROBE;
        expired += action->type == WEIR_ACTION_LEDGER && action->u.call.op == WEIR_LEDGER_EXPIRE &&
                   !action->u.call.u.expire.charged && action->u.call.u.expire.to == WEIR_TASK_READY;
    }
    assert_int_equal(probes, 1);
    assert_int_equal(expired, 1);
    end(w);
}

static void silence_of_three_heartbeats_is_loss_and_a_word_in_time_is_not(void **state)
{
    (void)state;
    struct world *w = begin();
    const uint32_t worker = join(w, 1);
    advance(w, 3 * w->options.heartbeat_ms);
    assert_true(weir_roster_at(weir_sched_roster(w->sched), worker)->connected);
    advance(w, 1);
    assert_false(weir_roster_at(weir_sched_roster(w->sched), worker)->connected);
    advance(w, w->options.grace_ms);
    assert_null(weir_roster_at(weir_sched_roster(w->sched), worker));
    end(w);
}

static void a_broker_that_was_away_takes_no_lease_for_it(void **state)
{
    (void)state;
    struct world *w = begin();
    const uint32_t worker = join(w, 1);
    submit(w, (struct job_wish){ 1, 16, 0, 0 });
    const struct grant grant = tick_grant(w);
    advance(w, 100 * w->options.lease_ms); /* the machine slept */
    see_no_call(w);
    live(w, w->options.lease_ms - 1, worker, worker);
    assert_non_null(weir_sched_holds(w->sched, &grant.task, grant.token));
    keep_heard(w, worker);
    advance(w, 1);
    see_call(w, WEIR_LEDGER_EXPIRE); /* but it has no longer than that */
    end(w);
}

/* Found by the simulator: the window ran out while nobody listened. */
static void a_broker_that_was_away_in_the_reassert_window_begins_it_again(void **state)
{
    (void)state;
    struct world *w = begin();
    const struct weir_plan plan = { .items = 1, .frames = 16, .segments = 1 };
    const struct weir_ledger_job job = { .tenant = "t", .numerics_class = "c", .words = "", .state = WEIR_JOB_RUNNING };
    const struct weir_ledger_task tasks[] = { { .stage = WEIR_STAGE_TEXT, .state = WEIR_TASK_LEASED, .attempt = 1 },
                                              { .stage = WEIR_STAGE_DENOISE },
                                              { .stage = WEIR_STAGE_DECODE },
                                              { .stage = WEIR_STAGE_ASSEMBLE } };
    assert_int_equal(weir_sched_load(w->sched, w->now_ms, &job, &plan, model, 1, tasks, 4, NULL), WEIR_OK);
    advance(w, w->options.reassert_ms / 2); /* a short absence takes its part of the window */
    advance(w, w->options.reassert_ms / 2 + 1);
    for (uint64_t ms = 0; ms < w->options.reassert_ms - 1000; ms += 1000) {
        advance(w, 1000);
        see_no_call(w);
    }
    advance(w, 1000);
    see_call(w, WEIR_LEDGER_EXPIRE);
    end(w);
}

static void a_worker_that_comes_back_within_the_grace_keeps_its_lease(void **state)
{
    (void)state;
    struct world *w = begin();
    const uint32_t worker = join(w, 1);
    submit(w, (struct job_wish){ 1, 16, 0, 0 });
    const struct grant grant = tick_grant(w);
    event(w, (struct weir_event){ .type = WEIR_EVENT_LOST, .worker = worker });
    advance(w, w->options.grace_ms - 1);
    struct weir_held_lease held = { .task = grant.task };
    memcpy(held.token, grant.token, sizeof held.token);
    const struct weir_worker_facts facts = weir_roster_at(weir_sched_roster(w->sched), worker)->facts;
    event(w, (struct weir_event){ .type = WEIR_EVENT_HELLO, .u.hello = { &facts, true, &held, 1 } });
    assert_int_equal(count_of(w, WEIR_SEND_LEASE_OK), 1);
    live(w, w->options.lease_ms - 1, worker, worker);
    assert_non_null(weir_sched_holds(w->sched, &grant.task, grant.token));
    end(w);
}

static void a_lease_that_its_returning_worker_does_not_know_is_given_away_at_once(void **state)
{
    (void)state;
    struct world *w = begin();
    const uint32_t worker = join(w, 1);
    submit(w, (struct job_wish){ 1, 16, 0, 0 });
    tick_grant(w);
    const struct weir_worker_facts facts = weir_roster_at(weir_sched_roster(w->sched), worker)->facts;
    event(w, (struct weir_event){ .type = WEIR_EVENT_HELLO, .u.hello = { &facts, false, NULL, 0 } });
    see_no_call(w); /* a HELLO repeated on the same connection: the LEASE may be on its way */
    event(w, (struct weir_event){ .type = WEIR_EVENT_HELLO, .u.hello = { &facts, true, NULL, 0 } });
    assert_int_equal(see_call(w, WEIR_LEDGER_EXPIRE)->u.expire.charged, false);
    end(w);
}

static struct weir_event failure(const struct grant *grant, enum weir_status status)
{
    struct weir_event e = about(grant, WEIR_EVENT_FAIL);
    e.u.fail.status = status;
    e.u.fail.words = "words";
    return e;
}

static void a_failure_is_tried_elsewhere_and_the_third_ends_the_job(void **state)
{
    (void)state;
    struct weir_sched_options options = weir_sched_options_default(false, true); /* the first retry at once */
    struct world *w = begin_with(options);
    const uint32_t first = join(w, 1), second = join(w, 2);
    submit(w, (struct job_wish){ 1, 16, 0, 0 });
    struct grant grant = tick_grant(w);
    const uint32_t failed_on = grant.worker;
    event(w, failure(&grant, WEIR_NO_MEMORY));
    assert_int_equal(see_call(w, WEIR_LEDGER_FAIL)->u.fail.to, WEIR_TASK_READY);
    credit(w, failed_on, 2);
    grant = tick_grant(w);
    assert_int_not_equal(grant.worker, failed_on);
    event(w, failure(&grant, WEIR_NO_MEMORY));
    assert_int_equal(see_call(w, WEIR_LEDGER_FAIL)->u.fail.to, WEIR_TASK_DELAYED);
    assert_in_range(see_call(w, WEIR_LEDGER_FAIL)->u.fail.delay_ms, 1, 2000);
    for (int k = 0; k < 3 && count_of(w, WEIR_SEND_LEASE) == 0; k++) live(w, 1000, first, second);
    grant = see_grant(w);
    event(w, failure(&grant, WEIR_NO_MEMORY));
    assert_int_equal(see_call(w, WEIR_LEDGER_FAIL)->u.fail.to, WEIR_TASK_DEAD);
    assert_string_equal(see_call(w, WEIR_LEDGER_FAIL)->words, "text/0: words");
    assert_int_equal(see_call(w, WEIR_LEDGER_FAIL)->job_to, WEIR_JOB_FAILED); /* of one item: as it is said */
    assert_string_equal(see_call(w, WEIR_LEDGER_FAIL)->lead, "");
    end(w);
}

static void a_failure_of_the_only_worker_is_tried_there_again(void **state)
{
    (void)state;
    struct world *w = begin_with(weir_sched_options_default(false, true));
    const uint32_t only = join(w, 1);
    submit(w, (struct job_wish){ 1, 16, 0, 0 });
    const struct grant grant = tick_grant(w);
    event(w, failure(&grant, WEIR_NO_MEMORY));
    credit(w, only, 2);
    assert_int_equal(tick_grant(w).worker, only);
    end(w);
}

static void what_is_wrong_for_good_is_not_tried_again(void **state)
{
    (void)state;
    struct world *w = begin();
    join(w, 1);
    submit(w, (struct job_wish){ 1, 16, 0, 0 });
    const struct grant grant = tick_grant(w);
    event(w, failure(&grant, WEIR_BAD_SHAPE));
    assert_int_equal(see_call(w, WEIR_LEDGER_FAIL)->u.fail.to, WEIR_TASK_DEAD);
    assert_int_equal(weir_sched_counts(w->sched).jobs, 0);
    end(w);
}

/* ---- a dead task costs its items ---- */

/* `texts` prompts of `each` items: images. */
static struct weir_plan list_plan(uint32_t texts, uint32_t each)
{
    return (struct weir_plan){ .items = texts * each,
                               .frames = 1,
                               .segments = 1,
                               .is_image = true,
                               .each = each,
                               .texts = texts,
                               .begins = { (UINT64_C(1) << texts) - 1 } };
}

/* Runs what is granted until a task of this stage and index is; what was granted beside it is done. */
static struct grant run_to_index(struct world *w, uint32_t worker, enum weir_stage stage, uint32_t index)
{
    for (int k = 0; k < 200; k++) {
        const struct grant grant = tick_grant(w);
        if (grant.task.stage == stage && grant.task.index == index) return grant;
        done(w, &grant);
        credit(w, worker, 1);
    }
    fail_msg("the task never came");
    return (struct grant){ 0 };
}

static bool covers(const struct weir_ledger_call *call, enum weir_stage stage, uint32_t index)
{
    const struct weir_plan_range *range = &call->lost[stage];
    return range->stage == stage && index >= range->first && index - range->first < range->count;
}

static void a_dead_task_costs_its_item_and_the_others_run_on(void **state)
{
    (void)state;
    struct world *w = begin();
    const uint32_t worker = join(w, 1);
    const struct weir_job_id job = submit(w, (struct job_wish){ 3, 32, 0, 0 }); /* films of two segments */
    const struct grant grant = run_to_index(w, worker, WEIR_STAGE_DENOISE, 1);
    event(w, failure(&grant, WEIR_BAD_SHAPE));
    const struct weir_ledger_call *call = see_call(w, WEIR_LEDGER_FAIL);
    assert_int_equal(call->u.fail.to, WEIR_TASK_DEAD);
    assert_int_equal(call->job_to, WEIR_JOB_QUEUED); /* it goes on */
    assert_string_equal(call->words, "item 1: denoise/1: words");
    for (uint32_t item = 0; item < 3; item++) {
        assert_int_equal(covers(call, WEIR_STAGE_DECODE, 2 * item), item == 1);
        assert_int_equal(covers(call, WEIR_STAGE_DECODE, 2 * item + 1), item == 1);
        assert_int_equal(covers(call, WEIR_STAGE_ASSEMBLE, item), item == 1);
    }
    assert_int_equal(weir_sched_counts(w->sched).jobs, 1);
    credit(w, worker, 1);
    const struct grant last = run_to_index(w, worker, WEIR_STAGE_ASSEMBLE, 2);
    done(w, &last);
    call = see_call(w, WEIR_LEDGER_COMMIT);
    assert_int_equal(call->job_to, WEIR_JOB_FAILED);
    assert_string_equal(call->lead, "1 of 3 items failed; the first, ");
    assert_true(weir_job_id_equal(&call->task.job, &job));
    assert_int_equal(weir_sched_counts(w->sched).jobs, 0);
    end(w);
}

static void a_dead_text_costs_all_items_of_its_prompt(void **state)
{
    (void)state;
    struct world *w = begin();
    const struct weir_plan plan = list_plan(3, 2);
    const uint32_t worker = join(w, 1);
    credit(w, worker, 1);
    assert_int_equal(try_submit_planned(w, &plan, (struct job_wish){ 0 }, NULL), WEIR_OK);
    const struct grant grant = run_to_index(w, worker, WEIR_STAGE_TEXT, 1);
    event(w, failure(&grant, WEIR_BAD_ARGUMENT));
    const struct weir_ledger_call *call = see_call(w, WEIR_LEDGER_FAIL);
    assert_string_equal(call->words, "item 2: text/1: words");
    for (uint32_t item = 0; item < 6; item++) {
        assert_int_equal(covers(call, WEIR_STAGE_DENOISE, item), item / 2 == 1);
        assert_int_equal(covers(call, WEIR_STAGE_DECODE, item), item / 2 == 1);
    }
    credit(w, worker, 1);
    const struct grant last = run_to_index(w, worker, WEIR_STAGE_DECODE, 5);
    done(w, &last);
    assert_string_equal(see_call(w, WEIR_LEDGER_COMMIT)->lead, "2 of 6 items failed; the first, ");
    end(w);
}

static void the_last_item_that_is_lost_ends_the_job(void **state)
{
    (void)state;
    struct world *w = begin();
    const struct weir_plan plan = list_plan(2, 1);
    const uint32_t worker = join(w, 1);
    credit(w, worker, 1);
    assert_int_equal(try_submit_planned(w, &plan, (struct job_wish){ 0 }, NULL), WEIR_OK);
    for (uint32_t k = 0; k < 2; k++) {
        const struct grant grant = run_to_index(w, worker, WEIR_STAGE_DENOISE, k);
        event(w, failure(&grant, WEIR_BAD_SHAPE));
        assert_int_equal(see_call(w, WEIR_LEDGER_FAIL)->job_to, k == 0 ? WEIR_JOB_QUEUED : WEIR_JOB_FAILED);
        assert_string_equal(see_call(w, WEIR_LEDGER_FAIL)->lead, k == 0 ? "" : "2 of 2 items failed; the first, ");
        if (k == 0) credit(w, worker, 1);
    }
    assert_int_equal(weir_sched_counts(w->sched).jobs, 0);
    end(w);
}

static void what_runs_of_a_lost_item_is_cancelled_and_its_result_refused(void **state)
{
    (void)state;
    struct world *w = begin();
    const uint32_t worker = join_as(w, 1, 2, WEIR_STAGES_ALL, "c");
    credit(w, worker, 1);
    submit(w, (struct job_wish){ 2, 32, 0, 0 });
    const struct grant first = run_to_index(w, worker, WEIR_STAGE_DECODE, 0);
    credit(w, worker, 1);
    const struct grant second = tick_grant(w);
    assert_int_equal(second.task.stage, WEIR_STAGE_DECODE);
    assert_int_equal(second.task.index, 1);
    event(w, failure(&first, WEIR_BAD_SHAPE));
    assert_int_equal(count_of(w, WEIR_SEND_CANCEL), 1);
    assert_null(weir_sched_holds(w->sched, &second.task, second.token));
    done(w, &second);
    assert_int_equal(count_of(w, WEIR_SEND_STALE), 1);
    see_no_call(w);
    event(w, about(&second, WEIR_EVENT_RELEASE)); /* it did as it was told */
    assert_int_equal(count_of(w, WEIR_SEND_RELEASE_ACK), 1);
    see_no_call(w);
    end(w);
}

/* The text of two items is being made again for the one while the other is lost, and then for nobody. */
static void a_text_is_made_again_only_while_an_item_wants_it(void **state)
{
    (void)state;
    struct world *w = begin();
    const struct weir_plan plan = list_plan(1, 2);
    const uint32_t worker = join_as(w, 1, 2, WEIR_STAGES_ALL, "c");
    credit(w, worker, 1);
    assert_int_equal(try_submit_planned(w, &plan, (struct job_wish){ 0 }, NULL), WEIR_OK);
    const struct grant a = run_to_index(w, worker, WEIR_STAGE_DENOISE, 0);
    credit(w, worker, 1);
    const struct grant b = tick_grant(w);
    struct weir_event lost = failure(&a, WEIR_INPUT_LOST);
    lost.u.fail.has_input = true;
    lost.u.fail.input_stage = WEIR_STAGE_TEXT;
    event(w, lost);
    assert_true(see_call(w, WEIR_LEDGER_FAIL)->u.fail.regress);
    event(w, failure(&b, WEIR_BAD_SHAPE)); /* the other one dies: the text is still wanted */
    assert_int_equal(see_call(w, WEIR_LEDGER_FAIL)->lost[WEIR_STAGE_TEXT].count, 0);
    credit(w, worker, 1);
    const struct grant text = tick_grant(w);
    assert_int_equal(text.task.stage, WEIR_STAGE_TEXT);
    done(w, &text);
    assert_int_equal(see_call(w, WEIR_LEDGER_COMMIT)->u.commit.ready.count, 2); /* the closed one stays closed */
    credit(w, worker, 1);
    const struct grant again = tick_grant(w);
    assert_int_equal(again.task.stage, WEIR_STAGE_DENOISE);
    assert_int_equal(again.task.index, 0);
    end(w);
}

static void a_text_that_nobody_wants_any_more_goes_with_its_last_item(void **state)
{
    (void)state;
    struct world *w = begin();
    const uint32_t worker = join_as(w, 1, 2, WEIR_STAGES_ALL, "c");
    credit(w, worker, 1);
    submit(w, (struct job_wish){ 1, 32, 0, 0 });
    const struct grant first = run_to_index(w, worker, WEIR_STAGE_DECODE, 0);
    credit(w, worker, 1);
    const struct grant second = tick_grant(w);
    struct weir_event lost = failure(&first, WEIR_INPUT_LOST);
    lost.u.fail.has_input = true;
    lost.u.fail.input_stage = WEIR_STAGE_DENOISE;
    event(w, lost);
    credit(w, worker, 1);
    const struct grant denoise = tick_grant(w);
    assert_int_equal(denoise.task.stage, WEIR_STAGE_DENOISE);
    lost = failure(&denoise, WEIR_INPUT_LOST);
    lost.u.fail.has_input = true;
    lost.u.fail.input_stage = WEIR_STAGE_TEXT;
    event(w, lost); /* the text is READY, both others wait for it */
    event(w, failure(&second, WEIR_BAD_SHAPE));
    const struct weir_ledger_call *call = see_call(w, WEIR_LEDGER_FAIL);
    assert_true(covers(call, WEIR_STAGE_TEXT, 0));
    assert_int_equal(call->job_to, WEIR_JOB_FAILED);
    assert_int_equal(weir_sched_counts(w->sched).jobs, 0);
    end(w);
}

static void a_restart_remembers_what_was_lost(void **state)
{
    (void)state;
    struct world *w = begin();
    const struct weir_plan plan = list_plan(2, 1);
    const struct weir_ledger_job job = { .tenant = "t", .numerics_class = "c", .words = "", .state = WEIR_JOB_RUNNING };
    struct weir_ledger_task tasks[6] = { { .stage = WEIR_STAGE_TEXT, .state = WEIR_TASK_DONE },
                                         { .stage = WEIR_STAGE_TEXT, .index = 1, .state = WEIR_TASK_DONE },
                                         { .stage = WEIR_STAGE_DENOISE, .state = WEIR_TASK_DEAD },
                                         { .stage = WEIR_STAGE_DENOISE, .index = 1, .state = WEIR_TASK_DONE },
                                         { .stage = WEIR_STAGE_DECODE, .state = WEIR_TASK_CANCELLED },
                                         { .stage = WEIR_STAGE_DECODE, .index = 1, .state = WEIR_TASK_DONE } };
    /* Nothing is open: then the job is not. */
    assert_int_equal(weir_sched_load(w->sched, w->now_ms, &job, &plan, model, 1, tasks, 6, NULL), WEIR_CONFLICT);
    tasks[5].state = WEIR_TASK_READY;
    assert_int_equal(weir_sched_load(w->sched, w->now_ms, &job, &plan, model, 1, tasks, 6, NULL), WEIR_OK);
    join(w, 1);
    const struct grant grant = tick_grant(w);
    done(w, &grant);
    assert_int_equal(see_call(w, WEIR_LEDGER_COMMIT)->job_to, WEIR_JOB_FAILED);
    assert_string_equal(see_call(w, WEIR_LEDGER_COMMIT)->lead, "1 of 2 items failed; the first, ");
    end(w);
}

static void tasks_spread_over_the_workers_by_their_slots(void **state)
{
    (void)state;
    struct world *w = begin();
    uint32_t given[3] = { 0 };
    const uint32_t large = join_as(w, 1, 8, WEIR_STAGES_ALL, "c"), small = join_as(w, 2, 2, WEIR_STAGES_ALL, "c");
    for (int k = 0; k < 5; k++) submit(w, (struct job_wish){ 1, 16, 0, 0 });
    advance(w, 0);
    for (size_t k = 0; k < w->actions.count; k++) {
        const struct weir_action *action = &w->actions.items[k];
        if (action->type == WEIR_ACTION_SEND && action->u.send.message == WEIR_SEND_LEASE) given[action->worker]++;
    }
    assert_int_equal(given[large], 4); /* half of each */
    assert_int_equal(given[small], 1);
    end(w);
}

static void a_released_lease_costs_nothing(void **state)
{
    (void)state;
    struct world *w = begin();
    const uint32_t worker = join(w, 1);
    submit(w, (struct job_wish){ 1, 16, 0, 0 });
    for (uint32_t k = 0; k < 2 * w->options.lease_max; k++) {
        const struct grant grant = tick_grant(w);
        event(w, about(&grant, WEIR_EVENT_RELEASE));
        assert_int_equal(see_call(w, WEIR_LEDGER_RELEASE)->u.release.to, WEIR_TASK_READY);
        credit(w, worker, 1);
    }
    end(w);
}

static void a_lost_input_is_made_again_three_times(void **state)
{
    (void)state;
    struct world *w = begin();
    const uint32_t worker = join(w, 1);
    submit(w, (struct job_wish){ 1, 16, 0, 0 });
    for (uint32_t k = 0; k <= w->options.regress_max; k++) {
        const struct grant grant = run_to(w, worker, WEIR_STAGE_DENOISE);
        struct weir_event lost = failure(&grant, WEIR_INPUT_LOST);
        lost.u.fail.has_input = true;
        lost.u.fail.input_stage = WEIR_STAGE_TEXT;
        event(w, lost);
        const struct weir_ledger_call *call = see_call(w, WEIR_LEDGER_FAIL);
        assert_int_equal(call->u.fail.to, k < w->options.regress_max ? WEIR_TASK_BLOCKED : WEIR_TASK_DEAD);
        assert_int_equal(call->u.fail.regress, k < w->options.regress_max);
        credit(w, worker, 1);
    }
    end(w);
}

static void a_cancelled_job_takes_no_result_and_ends_with_its_last_lease(void **state)
{
    (void)state;
    struct world *w = begin();
    join(w, 1);
    const struct weir_job_id job = submit(w, (struct job_wish){ 1, 16, 0, 0 });
    const struct grant grant = tick_grant(w);
    event(w, (struct weir_event){ .type = WEIR_EVENT_CANCEL, .worker = WEIR_ROSTER_NONE, .task.job = job });
    assert_int_equal(see_call(w, WEIR_LEDGER_CANCEL)->u.cancel.to, WEIR_JOB_CANCELLING);
    assert_int_equal(count_of(w, WEIR_SEND_CANCEL), 1);
    done(w, &grant);
    assert_int_equal(count_of(w, WEIR_SEND_STALE), 1);
    assert_int_equal(see_call(w, WEIR_LEDGER_RELEASE)->u.release.to, WEIR_TASK_CANCELLED);
    assert_int_equal(see_call(w, WEIR_LEDGER_CANCEL)->u.cancel.to, WEIR_JOB_CANCELLED);
    assert_int_equal(weir_sched_counts(w->sched).jobs, 0);
    end(w);
}

static void a_deadline_ends_a_job_in_time_and_not_before(void **state)
{
    (void)state;
    struct world *w = begin();
    const uint32_t worker = join(w, 1);
    submit(w, (struct job_wish){ 1, 16, 0, 5000 });
    advance(w, 0);
    live(w, 4999, worker, worker);
    see_no_call(w);
    keep_heard(w, worker);
    advance(w, 1);
    assert_int_equal(see_call(w, WEIR_LEDGER_CANCEL)->u.cancel.to, WEIR_JOB_EXPIRED);
    assert_int_equal(count_of(w, WEIR_SEND_CANCEL), 1);
    end(w);
}

static void limits_hold_from_both_sides(void **state)
{
    (void)state;
    struct weir_sched_options options = weir_sched_options_default(false, false);
    options.jobs_max = 2;
    options.tasks_max = 9;
    struct world *w = begin_with(options);
    submit(w, (struct job_wish){ 1, 16, 0, 0 });                                        /* 4 tasks */
    assert_int_equal(try_submit(w, (struct job_wish){ 1, 48, 0, 0 }, NULL), WEIR_BUSY); /* 6 more are too many */
    submit(w, (struct job_wish){ 1, 32, 0, 0 });                                        /* 5 are not */
    assert_int_equal(try_submit(w, (struct job_wish){ 1, 16, 0, 0 }, NULL), WEIR_BUSY); /* a third job */
    end(w);

    options.workers_max = 1;
    w = begin_with(options);
    join(w, 1);
    struct weir_worker_facts facts = { .stages = 1, .slots = 1, .numerics_class = "c" };
    facts.id[0] = 2;
    clear(w);
    const struct weir_event hello = { .type = WEIR_EVENT_HELLO, .u.hello = { &facts, true, NULL, 0 } };
    assert_int_equal(weir_sched_handle(w->sched, w->now_ms, &hello, &w->actions), WEIR_ROSTER_NONE);
    end(w);
}

static void rows_that_are_not_those_of_the_plan_are_refused(void **state)
{
    (void)state;
    struct world *w = begin();
    const struct weir_plan plan = { .items = 1, .frames = 16, .segments = 1 };
    struct weir_ledger_job job = { .tenant = "t", .numerics_class = "", .words = "" };
    const struct weir_ledger_task good[] = { { .stage = WEIR_STAGE_TEXT, .state = WEIR_TASK_READY },
                                             { .stage = WEIR_STAGE_DENOISE },
                                             { .stage = WEIR_STAGE_DECODE },
                                             { .stage = WEIR_STAGE_ASSEMBLE } };
    struct weir_ledger_task bad[4];
    assert_int_equal(weir_sched_load(w->sched, w->now_ms, &job, &plan, model, 1, good, 3, NULL), WEIR_CONFLICT);
    memcpy(bad, good, sizeof bad);
    bad[2].index = 1;
    assert_int_equal(weir_sched_load(w->sched, w->now_ms, &job, &plan, model, 1, bad, 4, NULL), WEIR_CONFLICT);
    memcpy(bad, good, sizeof bad);
    bad[3].state = (enum weir_task_state)99;
    assert_int_equal(weir_sched_load(w->sched, w->now_ms, &job, &plan, model, 1, bad, 4, NULL), WEIR_CONFLICT);
    job.state = WEIR_JOB_SUCCEEDED;
    assert_int_equal(weir_sched_load(w->sched, w->now_ms, &job, &plan, model, 1, good, 4, NULL), WEIR_CONFLICT);
    job.state = WEIR_JOB_QUEUED;
    assert_int_equal(weir_sched_load(w->sched, w->now_ms, &job, &plan, model, 1, good, 4, NULL), WEIR_OK);
    end(w);
}

static void the_expected_end_follows_what_was_measured(void **state)
{
    (void)state;
    struct world *w = begin();
    join(w, 1);
    const struct weir_job_id first = submit(w, (struct job_wish){ 1, 16, 0, 0 });
    const struct weir_job_id second = submit(w, (struct job_wish){ 1, 16, 0, 0 });
    struct weir_sched_standing standing;
    assert_true(weir_sched_standing(w->sched, &first, &standing));
    assert_int_equal(standing.position, 0);
    assert_int_equal(standing.expected_ms, 1000); /* its quote */
    for (int stage = 0; stage < WEIR_STAGE_COUNT; stage++) {
        weir_roster_measured(weir_sched_roster(w->sched), (enum weir_stage)stage, 7, 100);
    }
    assert_true(weir_sched_standing(w->sched, &second, &standing));
    assert_int_equal(standing.position, 1);
    assert_int_equal(standing.expected_ms, 800);
    end(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_expired_lease_moves_the_task_and_refuses_the_late_answer),
        cmocka_unit_test(a_renewal_gives_a_full_period_again),
        cmocka_unit_test(later_stages_go_before_new_films_and_priority_before_both),
        cmocka_unit_test(a_stage_gets_no_more_than_its_lane_has_credit_for),
        cmocka_unit_test(a_task_goes_where_its_input_was_made_unless_only_a_waiting_place_is_free_there),
        cmocka_unit_test(an_image_job_ends_with_its_last_picture_and_assembles_nothing),
        cmocka_unit_test(nobody_gets_more_than_its_slots_and_one_waiting),
        cmocka_unit_test(a_job_stays_with_the_class_of_its_first_lease),
        cmocka_unit_test(a_crash_is_charged_only_without_a_newer_checkpoint),
        cmocka_unit_test(the_third_charged_crash_ends_the_job_and_not_the_second),
        cmocka_unit_test(a_lease_that_only_waited_is_not_charged),
        cmocka_unit_test(silence_of_three_heartbeats_is_loss_and_a_word_in_time_is_not),
        cmocka_unit_test(a_broker_that_was_away_takes_no_lease_for_it),
        cmocka_unit_test(a_broker_that_was_away_in_the_reassert_window_begins_it_again),
        cmocka_unit_test(a_worker_that_comes_back_within_the_grace_keeps_its_lease),
        cmocka_unit_test(a_lease_that_its_returning_worker_does_not_know_is_given_away_at_once),
        cmocka_unit_test(a_failure_is_tried_elsewhere_and_the_third_ends_the_job),
        cmocka_unit_test(a_failure_of_the_only_worker_is_tried_there_again),
        cmocka_unit_test(what_is_wrong_for_good_is_not_tried_again),
        cmocka_unit_test(a_dead_task_costs_its_item_and_the_others_run_on),
        cmocka_unit_test(a_dead_text_costs_all_items_of_its_prompt),
        cmocka_unit_test(the_last_item_that_is_lost_ends_the_job),
        cmocka_unit_test(what_runs_of_a_lost_item_is_cancelled_and_its_result_refused),
        cmocka_unit_test(a_text_is_made_again_only_while_an_item_wants_it),
        cmocka_unit_test(a_text_that_nobody_wants_any_more_goes_with_its_last_item),
        cmocka_unit_test(a_restart_remembers_what_was_lost),
        cmocka_unit_test(tasks_spread_over_the_workers_by_their_slots),
        cmocka_unit_test(a_released_lease_costs_nothing),
        cmocka_unit_test(a_lost_input_is_made_again_three_times),
        cmocka_unit_test(a_cancelled_job_takes_no_result_and_ends_with_its_last_lease),
        cmocka_unit_test(a_deadline_ends_a_job_in_time_and_not_before),
        cmocka_unit_test(limits_hold_from_both_sides),
        cmocka_unit_test(rows_that_are_not_those_of_the_plan_are_refused),
        cmocka_unit_test(the_expected_end_follows_what_was_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
