/* Stages beside each other: a real worker of three lanes with a tiny model, a broker of the test's own. The bytes are
 * those that a worker of one lane makes. */
#include "tests/integration/pretend_broker.h"

#include "proto/base/clock.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LONG = 990, /* steps of what runs until it is cancelled */
    SHORT = 20,
    TIGHT_MIB = 6, /* room for the denoiser (3.5 MiB) or the decoder (4.0 MiB), not for both */
};

/* A film made on one lane: what each of its stages should give. */
struct made {
    Weir__Pb__JobSpec *spec, *endless;
    Weir__Pb__Done *embedding, *latents;
    uint8_t segment[WEIR_SHA256_BYTES];
};

static struct lease_options decode_of(const struct made *made)
{
    return (struct lease_options){
        .stage = WEIR_STAGE_DECODE, .frame_count = 16, .spec = made->spec, .inputs = { made->latents }
    };
}

static struct lease_options denoise_of(const struct made *made, uint32_t index, const Weir__Pb__JobSpec *spec)
{
    return (struct lease_options){
        .stage = WEIR_STAGE_DENOISE, .index = index, .item = index, .spec = spec, .inputs = { made->embedding }
    };
}

static void restart(struct broker *b, const char *const *flags)
{
    worker_kill(b);
    worker_start(b, flags);
    worker_greet(b);
}

/* Everything once on one lane; then a worker with these flags, and as much credit as three lanes have. */
static void make_on_one_lane(struct broker *b, struct made *made, const char *const *flags)
{
    Weir__Pb__JobSpec wish;
    made->embedding = ready(b, SHORT, (const char *const[]){ "--lanes", "1", NULL });
    made->spec = copy_spec(b->spec);
    struct lease_options denoise = denoise_of(made, 0, made->spec);
    made->latents = run_task(b, &denoise);
    struct lease_options decode = decode_of(made);
    Weir__Pb__Done *segment = run_task(b, &decode);
    digest_of(segment, made->segment);
    done_free(segment);
    wish_init(&wish, LONG);
    quote(b, &wish);
    made->endless = copy_spec(b->spec);
    restart(b, flags);
    see_credit(b, 6);
}

static void made_free(struct made *made)
{
    weir__pb__job_spec__free_unpacked(made->spec, NULL);
    weir__pb__job_spec__free_unpacked(made->endless, NULL);
    done_free(made->embedding);
    done_free(made->latents);
}

static void see_digest(struct broker *b, const struct ticketed *t, const uint8_t expected[WEIR_SHA256_BYTES])
{
    Weir__Pb__Done *done = see_done(b, t);
    assert_memory_equal(done->artefacts[0]->digest.data, expected, WEIR_SHA256_BYTES);
    done_free(done);
}

/* Until the workers' logs have these words. */
static void see_logged(struct broker *b, const char *words, uint32_t times)
{
    const uint64_t end_ms = weir_clock_now_ms() + SEE_MS;
    while (log_count(b, words) < times) {
        if (weir_clock_now_ms() >= end_ms) fail_msg("\"%s\" is not in the log %u times", words, times);
        see_nothing(b, 20);
    }
}

static void a_decode_and_a_text_end_while_a_batch_runs(void **state)
{
    struct broker *b = *state;
    struct made made;
    struct ticketed long_one, mate, decode, text, again;
    make_on_one_lane(b, &made, (const char *const[]){ "--lanes", "3", NULL });
    const struct lease_options first = denoise_of(&made, 1, made.endless), second = denoise_of(&made, 2, made.spec);
    struct lease_options third = decode_of(&made);
    lease(b, &long_one, &first);
    see_until(b, &b->step, 3);
    lease(b, &mate, &second);
    lease(b, &decode, &third);
    see_digest(b, &decode, made.segment);
    lease(b, &text, &(struct lease_options){ .stage = WEIR_STAGE_TEXT, .index = 3, .spec = made.spec });
    done_free(see_done(b, &text));
    lease(b, &again, &third); /* in the same job, under another token */
    see_digest(b, &again, made.segment);
    cancel(b, &long_one);
    done_free(see_done(b, &mate));
    see_credit(b, 6);
    made_free(&made);
}

/* One that finds no room waits for what runs, may be cancelled meanwhile, and has its turn before who comes later. */
static void who_waits_for_memory_comes_before_whoever_comes_later(void **state)
{
    struct broker *b = *state;
    struct made made;
    struct ticketed long_one, later, unwanted, decode;
    char tight[8];
    snprintf(tight, sizeof tight, "%d", TIGHT_MIB);
    b->logs = true;
    make_on_one_lane(b, &made, (const char *const[]){ "--lanes", "3", "--memory-mib", tight, NULL });
    const struct lease_options first = denoise_of(&made, 1, made.endless), second = denoise_of(&made, 0, made.spec);
    struct lease_options third = decode_of(&made);
    lease(b, &long_one, &first);
    see_until(b, &b->step, 3);
    lease(b, &unwanted, &third);
    see_logged(b, "stage waits stage=decode", 1);
    cancel(b, &unwanted);
    lease(b, &decode, &third);
    see_logged(b, "stage waits stage=decode", 2);
    lease(b, &later, &second);
    see_nothing(b, 300);
    cancel(b, &long_one);
    see_digest(b, &decode, made.segment);
    uint8_t latents[WEIR_SHA256_BYTES];
    digest_of(made.latents, latents);
    see_digest(b, &later, latents);
    assert_true(log_count(b, "stage closed") >= 2); /* the denoiser for the decoder, and the other way round */
    see_credit(b, 6);
    made_free(&made);
}

static void take_releases(struct broker *b, int count)
{
    for (int i = 0; i < count; i++) {
        struct weir_message m = see(b, WEIR_MESSAGE_RELEASE);
        Weir__Pb__ReleaseAck ack = WEIR__PB__RELEASE_ACK__INIT;
        ack.task = m.body.release->task;
        ack.has_token = 1;
        ack.token = m.body.release->token;
        say(b, WEIR_MESSAGE_RELEASE_ACK, &ack.base);
        weir_message_release(&m);
    }
}

static void a_drained_worker_gives_back_what_runs_and_what_waits_for_memory(void **state)
{
    struct broker *b = *state;
    struct made made;
    struct ticketed long_one, decode, waiting;
    char tight[8];
    snprintf(tight, sizeof tight, "%d", TIGHT_MIB);
    b->logs = true;
    make_on_one_lane(b, &made, (const char *const[]){ "--lanes", "3", "--memory-mib", tight, NULL });
    const struct lease_options first = denoise_of(&made, 1, made.endless);
    struct lease_options second = decode_of(&made);
    lease(b, &long_one, &first);
    see_until(b, &b->step, 3);
    lease(b, &decode, &second);
    see_logged(b, "stage waits stage=decode", 1);
    lease(b, &waiting, &second);
    kill(b->pid, SIGTERM);
    take_releases(b, 3);
    struct weir_message bye = see(b, WEIR_MESSAGE_BYE);
    weir_message_release(&bye);
    assert_int_equal(worker_end(b), 0);
    made_free(&made);
}

/* A device that failed in one lane fails in all; each task's attempt is not held against it. */
static void a_device_that_is_lost_ends_all_lanes(void **state)
{
    struct broker *b = *state;
    struct made made;
    struct ticketed long_one;
    char fault[128];
    snprintf(fault, sizeof fault, "%s/fault", b->dir);
    assert_int_equal(setenv("WEIR_TEST_FAULT", fault, 1), 0);
    b->program = "weir-worker-faulty";
    make_on_one_lane(b, &made, (const char *const[]){ "--lanes", "3", NULL });
    const struct lease_options first = denoise_of(&made, 1, made.endless);
    lease(b, &long_one, &first);
    see_until(b, &b->step, 3);
    FILE *file = fopen(fault, "w");
    assert_non_null(file);
    fputs("once", file);
    fclose(file);
    struct weir_message m = see(b, WEIR_MESSAGE_FAIL);
    assert_int_equal(m.body.fail->status, WEIR_DEVICE);
    Weir__Pb__FailAck ack = WEIR__PB__FAIL_ACK__INIT;
    ack.task = m.body.fail->task;
    ack.has_token = 1;
    ack.token = m.body.fail->token;
    say(b, WEIR_MESSAGE_FAIL_ACK, &ack.base);
    weir_message_release(&m);
    m = see(b, WEIR_MESSAGE_BYE);
    weir_message_release(&m);
    assert_int_equal(worker_end(b), 71);
    unsetenv("WEIR_TEST_FAULT");
    made_free(&made);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, broker_setup, broker_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_decode_and_a_text_end_while_a_batch_runs),
        CASE(who_waits_for_memory_comes_before_whoever_comes_later),
        CASE(a_drained_worker_gives_back_what_runs_and_what_waits_for_memory),
        CASE(a_device_that_is_lost_ends_all_lanes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
