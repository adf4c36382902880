/* Several denoise tasks at once, and items with adapters: a real worker with a tiny model, a broker of the test's own. */
#include "tests/integration/pretend_broker.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Steps of tasks that others must join in time. */
#if defined(__SANITIZE_THREAD__)
enum { BATCHED = 60 };
#elif defined(__SANITIZE_ADDRESS__)
enum { BATCHED = 80 };
#else
enum { BATCHED = 150 };
#endif

static const struct lease_options text = { .stage = WEIR_STAGE_TEXT };

/* ---- batches ---- */

static struct lease_options denoise_of(uint32_t index, const Weir__Pb__Done *embedding)
{
    return (
        struct lease_options){ .stage = WEIR_STAGE_DENOISE, .index = index, .item = index, .inputs = { embedding } };
}

/* Leases as credit comes: the first two at once, the others as those before them have joined. */
static void lease_all(struct broker *b, struct ticketed *tickets, const struct lease_options *options, uint32_t count)
{
    b->runner_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (i >= 2) see_until(b, &b->runner_count, i);
        lease(b, &tickets[i], &options[i]);
    }
    see_until(b, &b->runner_count, count); /* all run, and none has ended */
}

static void see_same(struct broker *b, const struct ticketed *t, const uint8_t alone[WEIR_SHA256_BYTES])
{
    Weir__Pb__Done *done = see_done(b, t);
    assert_memory_equal(done->artefacts[0]->digest.data, alone, WEIR_SHA256_BYTES);
    done_free(done);
}

/* Four tasks of two jobs, of other steps, guidance and sampler, run beside each other; one is cancelled; the others have
 * the bytes that they have alone. The worker then takes up work of another stage. */
static void a_batch_gives_each_the_bytes_it_has_alone(void **state)
{
    struct broker *b = *state;
    uint8_t alone[4][WEIR_SHA256_BYTES];
    struct ticketed tickets[4], other;
    Weir__Pb__JobSpec wish;
    Weir__Pb__Done *embedding = ready(b, BATCHED, (const char *const[]){ "--batch", "4", NULL });
    Weir__Pb__JobSpec *first = copy_spec(b->spec);
    wish_init(&wish, BATCHED + 20);
    wish.has_guidance = 1;
    wish.guidance = 3;
    wish.sampler = (char *)(uintptr_t) "dpm++";
    quote(b, &wish);
    struct lease_options options[4];
    for (uint32_t i = 0; i < 4; i++) {
        options[i] = denoise_of(i, embedding);
        options[i].spec = i == 2 ? b->spec : first;
        Weir__Pb__Done *done = run_task(b, &options[i]);
        digest_of(done, alone[i]);
        done_free(done);
    }
    for (uint32_t i = 0; i < 4; i++) assert_memory_not_equal(alone[i], alone[(i + 1) % 4], WEIR_SHA256_BYTES);
    weir_random_bytes(b->job, sizeof b->job); /* the same again as another job */
    lease_all(b, tickets, options, 4);
    cancel(b, &tickets[1]);
    lease(b, &other, &text); /* of another stage: its turn comes when all are done */
    see_same(b, &tickets[0], alone[0]);
    see_same(b, &tickets[3], alone[3]);
    see_same(b, &tickets[2], alone[2]); /* which has more steps */
    done_free(see_done(b, &other));
    see_credit(b, 2);
    weir__pb__job_spec__free_unpacked(first, NULL);
    done_free(embedding);
}

/* The embedding with numbers that are none, as another artefact of the same task. */
static Weir__Pb__Done *spoil(const struct broker *b, const Weir__Pb__Done *embedding)
{
    uint8_t packed[4096], digest[WEIR_SHA256_BYTES];
    char key[WEIR_KEY_BYTES];
    void *bytes;
    size_t count;
    struct weir_task_id id = { .stage = WEIR_STAGE_TEXT };
    assert_int_equal(weir_store_get(b->store, embedding->artefacts[0]->key, 1 << 20, &bytes, &count, NULL), WEIR_OK);
    memset((uint8_t *)bytes + 64, 0xff, count - 64);
    weir_sha256_of(bytes, count, digest);
    memcpy(id.job.bytes, b->job, WEIR_ID_BYTES);
    weir_key_artefact("local", &id, digest, key);
    assert_int_equal(weir_store_put(b->store, key, bytes, count, NULL), WEIR_OK);
    free(bytes);
    Weir__Pb__Done *bad = weir__pb__done__unpack(NULL, weir__pb__done__pack(embedding, packed), packed);
    memcpy(bad->artefacts[0]->digest.data, digest, sizeof digest);
    return bad;
}

static void one_that_is_not_finite_fails_alone(void **state)
{
    struct broker *b = *state;
    uint8_t alone[3][WEIR_SHA256_BYTES];
    struct ticketed tickets[3];
    Weir__Pb__Done *embedding = ready(b, BATCHED, (const char *const[]){ "--batch", "3", NULL });
    Weir__Pb__Done *bad = spoil(b, embedding);
    struct lease_options options[3];
    for (uint32_t i = 0; i < 3; i++) {
        options[i] = denoise_of(i, embedding);
        Weir__Pb__Done *done = run_task(b, &options[i]);
        digest_of(done, alone[i]);
        done_free(done);
    }
    options[1].inputs[0] = bad;
    options[1].index = options[1].item = 7;
    options[0].index = 8; /* no checkpoint of what was done is of use */
    options[2].index = 9;
    lease(b, &tickets[0], &options[0]);
    lease(b, &tickets[1], &options[1]);
    see_fail(b, &tickets[1], WEIR_BAD_MODEL, "not finite");
    lease(b, &tickets[2], &options[2]);
    see_same(b, &tickets[0], alone[0]);
    see_same(b, &tickets[2], alone[2]);
    done_free(bad);
    done_free(embedding);
}

/* A drained batch is given back whole, each behind its checkpoint. */
static void a_drained_batch_goes_on_elsewhere(void **state)
{
    struct broker *b = *state;
    uint8_t alone[3][WEIR_SHA256_BYTES];
    struct ticketed tickets[3];
    Weir__Pb__Done *embedding = ready(b, BATCHED, (const char *const[]){ "--batch", "3", NULL });
    struct lease_options options[3];
    for (uint32_t i = 0; i < 3; i++) {
        options[i] = denoise_of(i, embedding);
        Weir__Pb__Done *done = run_task(b, &options[i]);
        digest_of(done, alone[i]);
        done_free(done);
    }
    weir_random_bytes(b->job, sizeof b->job);
    lease_all(b, tickets, options, 3);
    kill(b->pid, SIGTERM);
    for (int i = 0; i < 3; i++) {
        struct weir_message m = see(b, WEIR_MESSAGE_RELEASE);
        Weir__Pb__ReleaseAck ack = WEIR__PB__RELEASE_ACK__INIT;
        ack.task = m.body.release->task;
        ack.has_token = 1;
        ack.token = m.body.release->token;
        say(b, WEIR_MESSAGE_RELEASE_ACK, &ack.base);
        weir_message_release(&m);
    }
    struct weir_message bye = see(b, WEIR_MESSAGE_BYE);
    weir_message_release(&bye);
    assert_int_equal(worker_end(b), 0);
    worker_start(b, NULL);
    worker_greet(b);
    for (uint32_t i = 0; i < 3; i++) {
        Weir__Pb__Done *done = run_task(b, &options[i]);
        assert_memory_equal(done->artefacts[0]->digest.data, alone[i], WEIR_SHA256_BYTES);
        assert_int_equal(done->facts->resumed_step + done->facts->steps_run, BATCHED);
        if (i == 0) assert_true(done->facts->resumed_step > 0);
        done_free(done);
    }
    done_free(embedding);
}

/* What is learned is in the log; then a second seat is tried, in a run that grows under who sits. */
static void steps_are_measured_and_seats_follow(void **state)
{
    struct broker *b = *state;
    uint8_t alone[2][WEIR_SHA256_BYTES];
    struct ticketed tickets[2];
    b->logs = true;
    Weir__Pb__Done *embedding = ready(b, BATCHED, NULL);
    struct lease_options options[2];
    assert_int_equal(log_count(b, "denoise measured"), 0);
    for (uint32_t i = 0; i < 2; i++) {
        options[i] = denoise_of(i, embedding);
        Weir__Pb__Done *done = run_task(b, &options[i]);
        digest_of(done, alone[i]);
        done_free(done);
    }
    assert_int_equal(log_count(b, "denoise measured"), 1);
    assert_int_equal(log_count(b, "wanted=2"), 1);
    assert_int_equal(log_count(b, "stage=denoise seats=2"), 0);
    weir_random_bytes(b->job, sizeof b->job);
    lease_all(b, tickets, options, 2);
    see_same(b, &tickets[0], alone[0]);
    see_same(b, &tickets[1], alone[1]);
    assert_int_equal(log_count(b, "stage=denoise seats=2"), 1);
    done_free(embedding);
}

/* Memory for one item and not for two: the batch stays as it is. */
static void seats_stop_where_memory_ends(void **state)
{
    struct broker *b = *state;
    struct ticketed first, second;
    b->logs = true;
    Weir__Pb__Done *embedding = ready(b, BATCHED, (const char *const[]){ "--batch", "16", "--memory-mib", "16", NULL });
    struct lease_options o = denoise_of(0, embedding), p = denoise_of(1, embedding);
    lease(b, &first, &o);
    lease(b, &second, &p);
    done_free(see_done(b, &first));
    done_free(see_done(b, &second));
    assert_int_equal(log_count(b, "memory planned stage=denoise seats=16"), 0);
    assert_true(log_count(b, "memory planned stage=denoise seats=") > 0);
    done_free(embedding);
}

/* ---- adapters ---- */

/* A file in the store, where a client of the tenant puts it. */
static void put_file(struct broker *b, const char *name, const void *bytes, size_t count, Weir__Pb__FileRef *file,
                     uint8_t digest[WEIR_SHA256_BYTES])
{
    char key[WEIR_KEY_BYTES];
    struct weir_error error;
    weir_sha256_of(bytes, count, digest);
    weir_key_file("local", digest, key);
    assert_int_equal(weir_store_put(b->store, key, bytes, count, &error), WEIR_OK);
    weir__pb__file_ref__init(file);
    file->has_digest = file->has_bytes = 1;
    file->digest = (ProtobufCBinaryData){ WEIR_SHA256_BYTES, digest };
    file->bytes = count;
    file->name = (char *)(uintptr_t)name;
}

/* One of tests/golden/loras; its last number, of 16 bits, becomes a NaN on request. */
static void put_lora(struct broker *b, const char *name, bool spoilt, Weir__Pb__FileRef *file,
                     uint8_t digest[WEIR_SHA256_BYTES])
{
    char path[512];
    static uint8_t bytes[65536];
    snprintf(path, sizeof path, "%s/tests/golden/loras/%s.safetensors", WEIR_SOURCE_DIR, name);
    FILE *stream = fopen(path, "rb");
    assert_non_null(stream);
    const size_t count = fread(bytes, 1, sizeof bytes, stream);
    fclose(stream);
    assert_true(count > 0 && count < sizeof bytes);
    if (spoilt) memset(bytes + count - 2, 0xff, 2);
    put_file(b, name, bytes, count, file, digest);
}

/* Finite numbers with which no step is. */
static void put_huge_lora(struct broker *b, Weir__Pb__FileRef *file, uint8_t digest[WEIR_SHA256_BYTES])
{
    static uint8_t bytes[512];
    const int header = snprintf((char *)bytes + 8, sizeof bytes - 8,
                                "{\"time_embedding.linear_2.lora_A.weight\":{\"dtype\":\"F32\",\"shape\":[1,16],"
                                "\"data_offsets\":[0,64]},\"time_embedding.linear_2.lora_B.weight\":{\"dtype\":\"F32\","
                                "\"shape\":[16,1],\"data_offsets\":[64,128]}}");
    const float huge = 3e38f;
    weir_store_u64(bytes, (uint64_t)header);
    for (size_t i = 0; i < 32; i++) memcpy(bytes + 8 + header + 4 * i, &huge, sizeof huge);
    put_file(b, "huge", bytes, 8 + (size_t)header + 128, file, digest);
}

static void denoised(struct broker *b, const Weir__Pb__JobSpec *wish, const Weir__Pb__Done *embedding, uint32_t index,
                     uint8_t digest[WEIR_SHA256_BYTES])
{
    quote(b, wish);
    Weir__Pb__Done *done =
        run_task(b, &(struct lease_options){ .stage = WEIR_STAGE_DENOISE, .index = index, .inputs = { embedding } });
    digest_of(done, digest);
    done_free(done);
}

static void see_denoise_fail(struct broker *b, const Weir__Pb__JobSpec *wish, const Weir__Pb__Done *embedding,
                             uint32_t index, enum weir_status status, const char *words)
{
    struct ticketed t;
    quote(b, wish);
    lease(b, &t, &(struct lease_options){ .stage = WEIR_STAGE_DENOISE, .index = index, .inputs = { embedding } });
    struct weir_message m = see(b, WEIR_MESSAGE_FAIL);
    assert_int_equal(m.body.fail->status, status);
    if (!strstr(m.body.fail->words, words)) fail_msg("%s", m.body.fail->words);
    Weir__Pb__FailAck ack = WEIR__PB__FAIL_ACK__INIT;
    ack.task = m.body.fail->task;
    ack.has_token = 1;
    ack.token = m.body.fail->token;
    say(b, WEIR_MESSAGE_FAIL_ACK, &ack.base);
    weir_message_release(&m);
    see_credit(b, 2);
}

/* Items with adapters between items without, on one worker: each has its own bytes, always the same. */
static void adapters_change_the_item_that_names_them_alone(void **state)
{
    struct broker *b = *state;
    Weir__Pb__JobSpec wish;
    Weir__Pb__FileRef files[2];
    Weir__Pb__Lora loras[2] = { WEIR__PB__LORA__INIT, WEIR__PB__LORA__INIT }, *list[] = { &loras[0], &loras[1] };
    uint8_t digests[2][WEIR_SHA256_BYTES], base[WEIR_SHA256_BYTES], one[WEIR_SHA256_BYTES], again[WEIR_SHA256_BYTES];
    Weir__Pb__Done *embedding = ready(b, 6, NULL);
    wish_init(&wish, 6);
    wish.width = 32, wish.height = 24, wish.frames = 2;
    for (size_t i = 0; i < 2; i++) {
        put_lora(b, i ? "tiny-a-two" : "tiny-a-one", false, &files[i], digests[i]);
        loras[i].file = &files[i];
    }
    wish.loras = list;
    denoised(b, &wish, embedding, 0, base);
    wish.n_loras = 1; /* its weight is 1 when none is said */
    denoised(b, &wish, embedding, 1, one);
    assert_true(b->spec->n_loras == 1 && b->spec->loras[0]->has_weight && b->spec->loras[0]->weight == 1);
    assert_memory_not_equal(one, base, sizeof one);
    loras[0].has_weight = loras[1].has_weight = 1;
    loras[0].weight = 1, loras[1].weight = -0.5;
    wish.n_loras = 2;
    denoised(b, &wish, embedding, 2, again);
    assert_memory_not_equal(again, one, sizeof one);
    assert_memory_not_equal(again, base, sizeof one);
    wish.n_loras = 0;
    denoised(b, &wish, embedding, 3, again);
    assert_memory_equal(again, base, sizeof base);
    wish.n_loras = 2;
    loras[1].weight = 0;
    denoised(b, &wish, embedding, 4, again);
    assert_memory_equal(again, one, sizeof one);
    loras[0].weight = 0;
    denoised(b, &wish, embedding, 5, again);
    assert_memory_equal(again, base, sizeof base);
    done_free(embedding);
}

static void adapters_that_cannot_be_are_refused_and_fail_for_ever(void **state)
{
    struct broker *b = *state;
    Weir__Pb__JobSpec wish;
    Weir__Pb__FileRef file;
    Weir__Pb__Lora lora = WEIR__PB__LORA__INIT, *list[] = { &lora };
    uint8_t digest[WEIR_SHA256_BYTES], base[WEIR_SHA256_BYTES], after[WEIR_SHA256_BYTES];
    Weir__Pb__Done *embedding = ready(b, 2, NULL);
    wish_init(&wish, 2);
    wish.width = 32, wish.height = 24, wish.frames = 2;
    denoised(b, &wish, embedding, 0, base);
    put_lora(b, "tiny-a-one", false, &file, digest);
    lora.file = &file;
    wish.n_loras = 1;
    wish.loras = list;
    lora.has_weight = 1;
    lora.weight = 100.5;
    quote_refused(b, &wish, WEIR_BAD_ARGUMENT, "--lora: the weight of adapter 1 is 100.5; -100 to 100 is allowed");
    lora.weight = (double)NAN;
    quote_refused(b, &wish, WEIR_BAD_ARGUMENT, "--lora: the weight of adapter 1 is nan");
    lora.weight = 1;
    file.bytes = (UINT64_C(4) << 30) + 1;
    quote_refused(b, &wish, WEIR_BAD_ARGUMENT, "adapter 1 names no file with a digest and a size of at most 4 GiB");
    file.bytes = 7; /* in truth it has more */
    see_denoise_fail(b, &wish, embedding, 1, WEIR_BAD_FILE, "--lora tiny-a-one: it has");
    put_lora(b, "tiny-a-one", true, &file, digest);
    see_denoise_fail(b, &wish, embedding, 2, WEIR_BAD_FILE, "holds NaN; its numbers must be finite");
    put_lora(b, "tiny-sana-a-one", false, &file, digest);
    see_denoise_fail(b, &wish, embedding, 3, WEIR_BAD_FILE, "the network has no linear transformer_blocks.0");
    put_huge_lora(b, &file, digest);
    see_denoise_fail(b, &wish, embedding, 6, WEIR_BAD_MODEL, "after step 2 of 2 the latents are not finite");
    put_lora(b, "tiny-sana-a-one", false, &file, digest);
    digest[0] ^= 1;
    see_denoise_fail(b, &wish, embedding, 4, WEIR_NOT_FOUND, "tiny-sana-a-one: it is not in the store");
    wish.n_loras = 0;
    denoised(b, &wish, embedding, 5, after);
    assert_memory_equal(after, base, sizeof base);
    done_free(embedding);
}

/* The spec of that many steps with those adapters, of weight 1; weir__pb__job_spec__free_unpacked() it. */
static Weir__Pb__JobSpec *adapted_spec(struct broker *b, Weir__Pb__FileRef *const files[], size_t count)
{
    Weir__Pb__JobSpec wish;
    Weir__Pb__Lora loras[2] = { WEIR__PB__LORA__INIT, WEIR__PB__LORA__INIT }, *list[] = { &loras[0], &loras[1] };
    for (size_t i = 0; i < count; i++) loras[i].file = files[i];
    wish_init(&wish, BATCHED);
    wish.n_loras = count;
    wish.loras = list;
    quote(b, &wish);
    return copy_spec(b->spec);
}

/* A worker that has nothing open yet, and the same work as another job. */
static void start_anew(struct broker *b, const char *const *options)
{
    kill(b->pid, SIGTERM);
    struct weir_message bye = see(b, WEIR_MESSAGE_BYE);
    weir_message_release(&bye);
    assert_int_equal(worker_end(b), 0);
    worker_start(b, options);
    worker_greet(b);
    weir_random_bytes(b->job, sizeof b->job);
}

/* None, one, another or both, beside each other and beside one that overflows: seven of eight have the bytes that they have
 * alone. The first has none, so the run grows under who sits. */
static void items_with_different_adapters_share_a_batch(void **state)
{
    enum { ITEMS = 8, BAD = ITEMS - 1 };
    struct broker *b = *state;
    uint8_t alone[ITEMS][WEIR_SHA256_BYTES], digests[3][WEIR_SHA256_BYTES];
    Weir__Pb__FileRef files[3];
    Weir__Pb__FileRef *const sets[][2] = { { &files[0] }, { &files[1] }, { &files[0], &files[1] }, { &files[2] } };
    Weir__Pb__JobSpec *specs[5];
    struct ticketed tickets[ITEMS];
    struct lease_options options[ITEMS];
    b->logs = true;
    Weir__Pb__Done *embedding = ready(b, BATCHED, (const char *const[]){ "--batch", "8", NULL });
    put_lora(b, "tiny-a-one", false, &files[0], digests[0]);
    put_lora(b, "tiny-a-two", false, &files[1], digests[1]);
    put_huge_lora(b, &files[2], digests[2]);
    specs[0] = adapted_spec(b, NULL, 0);
    for (size_t i = 0; i < 4; i++) specs[i + 1] = adapted_spec(b, sets[i], i == 2 ? 2 : 1);
    for (uint32_t i = 0; i < ITEMS; i++) {
        options[i] = denoise_of(i, embedding);
        options[i].spec = i == BAD ? specs[4] : specs[i % 4];
        if (i == BAD) continue;
        Weir__Pb__Done *done = run_task(b, &options[i]);
        digest_of(done, alone[i]);
        done_free(done);
    }
    start_anew(b, (const char *const[]){ "--batch", "8", NULL });
    lease_all(b, tickets, options, ITEMS);
    see_fail(b, &tickets[BAD], WEIR_BAD_MODEL, "the latents are not finite");
    for (uint32_t i = 0; i < BAD; i++) see_same(b, &tickets[i], alone[i]);
    assert_true(log_count(b, "stage=denoise seats=8") > 1);
    for (size_t i = 0; i < 5; i++) weir__pb__job_spec__free_unpacked(specs[i], NULL);
    done_free(embedding);
}

/* An adapter whose file is large beside the model. */
static void put_wide_lora(struct broker *b, Weir__Pb__FileRef *file, uint8_t digest[WEIR_SHA256_BYTES])
{
    enum { RANK = 4096, NUMBERS = 2 * RANK * 16 };
    static uint8_t bytes[512 + 4 * NUMBERS];
    const int header = snprintf((char *)bytes + 8, 504,
                                "{\"time_embedding.linear_2.lora_A.weight\":{\"dtype\":\"F32\",\"shape\":[%d,16],"
                                "\"data_offsets\":[0,%d]},\"time_embedding.linear_2.lora_B.weight\":{\"dtype\":\"F32\","
                                "\"shape\":[16,%d],\"data_offsets\":[%d,%d]}}",
                                RANK, 2 * NUMBERS, RANK, 2 * NUMBERS, 4 * NUMBERS);
    const float small = 0.001f;
    weir_store_u64(bytes, (uint64_t)header);
    for (size_t i = 0; i < NUMBERS; i++) memcpy(bytes + 8 + header + 4 * i, &small, sizeof small);
    put_file(b, "wide", bytes, 8 + (size_t)header + 4 * NUMBERS, file, digest);
}

/* Memory is there for two without adapters, and for one with large ones: they run one after the other. */
static void large_adapters_wait_for_the_room_that_others_take(void **state)
{
    struct broker *b = *state;
    uint8_t alone[2][WEIR_SHA256_BYTES], digest[WEIR_SHA256_BYTES];
    Weir__Pb__FileRef file, *const set[] = { &file };
    Weir__Pb__JobSpec *specs[2];
    struct ticketed tickets[2];
    struct lease_options options[2];
    b->logs = true;
    static const char *const flags[] = { "--batch", "2", "--memory-mib", "10", NULL };
    Weir__Pb__Done *embedding = ready(b, BATCHED, flags);
    put_wide_lora(b, &file, digest);
    for (uint32_t i = 0; i < 2; i++) {
        specs[i] = adapted_spec(b, set, i);
        options[i] = denoise_of(i, embedding);
        options[i].spec = specs[i];
    }
    for (uint32_t i = 0; i < 2; i++) {
        Weir__Pb__Done *done = run_task(b, &options[i]);
        digest_of(done, alone[i]);
        done_free(done);
    }
    assert_memory_not_equal(alone[0], alone[1], WEIR_SHA256_BYTES);
    start_anew(b, flags);
    const uint32_t for_two = log_count(b, "stage=denoise seats=2"), for_one = log_count(b, "stage=denoise seats=1");
    lease(b, &tickets[0], &options[0]);
    lease(b, &tickets[1], &options[1]);
    see_same(b, &tickets[0], alone[0]);
    see_same(b, &tickets[1], alone[1]);
    assert_int_equal(log_count(b, "stage=denoise seats=2"), for_two + 1);
    assert_int_equal(log_count(b, "stage=denoise seats=1"), for_one + 1);
    for (uint32_t i = 0; i < 2; i++) weir__pb__job_spec__free_unpacked(specs[i], NULL);
    done_free(embedding);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, broker_setup, broker_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_batch_gives_each_the_bytes_it_has_alone),
        CASE(one_that_is_not_finite_fails_alone),
        CASE(a_drained_batch_goes_on_elsewhere),
        CASE(steps_are_measured_and_seats_follow),
        CASE(seats_stop_where_memory_ends),
        CASE(adapters_change_the_item_that_names_them_alone),
        CASE(adapters_that_cannot_be_are_refused_and_fail_for_ever),
        CASE(items_with_different_adapters_share_a_batch),
        CASE(large_adapters_wait_for_the_room_that_others_take),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
