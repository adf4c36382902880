/* What a worker does with the pictures that a request brings: a real worker with tiny models, a broker of the test's own,
 * files in the store as a client puts them. */
#include "tests/integration/pretend_broker.h"
#include "worker/weights.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOLDEN WEIR_SOURCE_DIR "/tests/golden/"

static const char *const looking[] = { "--model", GOLDEN "tiny-sana-control", NULL };
static const char *const sprinting[] = { "--model", GOLDEN "tiny-sana-b", NULL };
static const struct lease_options text = { .stage = WEIR_STAGE_TEXT };

static void picture_wish(Weir__Pb__JobSpec *wish, const char *model)
{
    weir__pb__job_spec__init(wish);
    wish->model = (char *)(uintptr_t)model;
    wish->prompt = (char *)(uintptr_t) "a red circle left of a blue star";
    wish->has_seed = 1;
    wish->seed = 7;
}

/* A file that a client has put into the store before it submits. */
struct file {
    Weir__Pb__FileRef ref;
    uint8_t digest[WEIR_SHA256_BYTES];
};

static void file_name(struct file *file, const void *bytes, size_t count, const char *name)
{
    weir__pb__file_ref__init(&file->ref);
    weir_sha256_of(bytes, count, file->digest);
    file->ref.has_digest = file->ref.has_bytes = 1;
    file->ref.digest = (ProtobufCBinaryData){ sizeof file->digest, file->digest };
    file->ref.bytes = count;
    file->ref.name = (char *)(uintptr_t)name;
}

static void file_put(struct broker *b, const struct file *file, const void *bytes, size_t count)
{
    char key[WEIR_KEY_BYTES];
    struct weir_error error = { 0 };
    weir_key_file("local", file->digest, key);
    if (weir_store_put(b->store, key, bytes, count, &error) != WEIR_OK) fail_msg("%s", error.words);
}

/* One of the small pictures that make_rgb.py made. */
static void picture_put(struct broker *b, struct file *file, const char *name)
{
    const char *path = GOLDEN "rgb.safetensors";
    struct weir_error error = { 0 };
    struct weir_weights *table = NULL;
    struct weir_weight w;
    char *bytes, tensor[64];
    size_t count;
    snprintf(tensor, sizeof tensor, "%s.file", name);
    if (weir_file_read(path, (size_t)1 << 20, &bytes, &count, &error) != WEIR_OK ||
        weir_weights_parse(bytes, count, path, &table, &error) != WEIR_OK)
        fail_msg("%s", error.words);
    assert_true(weir_weights_find(table, tensor, &w));
    file_name(file, w.data, w.bytes, name);
    file_put(b, file, w.data, w.bytes);
    weir_weights_close(&table);
    free(bytes);
}

static void start(struct broker *b, const char *const *flags)
{
    worker_start(b, flags);
    worker_greet(b);
    see_credit(b, 2);
}

static void see_failed(struct broker *b, const struct lease_options *options, enum weir_status status,
                       const char *words)
{
    struct ticketed t;
    lease(b, &t, options);
    struct weir_message m = see(b, WEIR_MESSAGE_FAIL);
    if (m.body.fail->status != status || !strstr(m.body.fail->words, words))
        fail_msg("FAIL %s: %s", weir_status_name((enum weir_status)m.body.fail->status), m.body.fail->words);
    assert_int_equal(weir_status_retry(status), WEIR_RETRY_NEVER);
    Weir__Pb__FailAck ack = WEIR__PB__FAIL_ACK__INIT;
    ack.task = m.body.fail->task;
    ack.has_token = 1;
    ack.token = m.body.fail->token;
    say(b, WEIR_MESSAGE_FAIL_ACK, &ack.base);
    weir_message_release(&m);
    see_credit(b, 2);
}

static void see_picture_fail(struct broker *b, Weir__Pb__Done *embedding, enum weir_status status, const char *words)
{
    see_failed(b, &(struct lease_options){ .stage = WEIR_STAGE_DENOISE, .inputs = { embedding } }, status, words);
}

/* The digest of an item's latents. */
static void denoise(struct broker *b, Weir__Pb__Done *embedding, uint8_t out[WEIR_SHA256_BYTES])
{
    weir_random_bytes(b->job, sizeof b->job);
    Weir__Pb__Done *done = run_task(b, &(struct lease_options){ .stage = WEIR_STAGE_DENOISE, .inputs = { embedding } });
    memcpy(out, done->artefacts[0]->digest.data, WEIR_SHA256_BYTES);
    done_free(done);
}

static void a_quote_takes_a_picture_from_models_that_can_and_asks_for_it(void **state)
{
    struct broker *b = *state;
    Weir__Pb__JobSpec wish;
    struct file file;
    file_name(&file, "x", 1, "edges.png");
    picture_wish(&wish, "tiny-sana-control");
    start(b, looking);
    quote_refused(b, &wish, WEIR_BAD_ARGUMENT, "--control is missing");
    wish.control = &file.ref;
    quote(b, &wish);
    assert_memory_equal(b->spec->control->digest.data, file.digest, sizeof file.digest);
    assert_string_equal(b->spec->control->name, "edges.png");
    assert_true(b->spec->has_control_scale && b->spec->control_scale == 1.0 && !b->spec->has_strength);
    assert_true(b->spec->image);
    wish.has_control_scale = 1;
    wish.control_scale = 11;
    quote_refused(b, &wish, WEIR_BAD_ARGUMENT, "11; 0 to 10");
    wish.control_scale = 0.5;
    quote(b, &wish);
    assert_true(b->spec->control_scale == 0.5);
    wish.start_image = &file.ref;
    quote_refused(b, &wish, WEIR_UNSUPPORTED, "--image");
    wish.start_image = NULL;
    file.ref.bytes = ((uint64_t)64 << 20) + 1;
    quote_refused(b, &wish, WEIR_TOO_LARGE, "67108865");
}

static void a_start_is_resolved_with_the_strength_of_the_pipeline(void **state)
{
    struct broker *b = *state;
    Weir__Pb__JobSpec wish;
    struct file file;
    file_name(&file, "x", 1, "start.png");
    picture_wish(&wish, "tiny-sana-b");
    start(b, sprinting);
    quote(b, &wish);
    assert_false(b->spec->has_strength || b->spec->start_image || b->spec->control);
    wish.start_image = &file.ref;
    quote(b, &wish);
    assert_true(b->spec->has_strength && b->spec->strength == 0.6);
    wish.has_strength = 1;
    wish.strength = 1.5;
    quote_refused(b, &wish, WEIR_BAD_ARGUMENT, "--strength is 1.5");
    wish.start_image = NULL;
    quote_refused(b, &wish, WEIR_BAD_ARGUMENT, "no --image");
    wish.has_strength = 0;
    wish.control = &file.ref;
    quote_refused(b, &wish, WEIR_UNSUPPORTED, "no ControlNet");
}

static void a_file_that_is_no_picture_fails_its_task_for_good(void **state)
{
    struct broker *b = *state;
    static const char words[] = "these are words", others[] = "these are others";
    Weir__Pb__JobSpec wish;
    struct file file, nowhere, changed;
    file_name(&file, words, sizeof words, "edges.png");
    file_put(b, &file, words, sizeof words);
    file_name(&nowhere, "y", 1, "nowhere.png");
    file_name(&changed, "z", 1, "changed.png");
    file_put(b, &changed, others, sizeof others);
    picture_wish(&wish, "tiny-sana-control");
    wish.control = &file.ref;
    start(b, looking);
    quote(b, &wish);
    Weir__Pb__Done *embedding = run_task(b, &text);
    see_picture_fail(b, embedding, WEIR_BAD_ARGUMENT, "edges.png: not a PNG, JPEG or WebP picture");
    wish.control = &nowhere.ref;
    quote(b, &wish);
    see_picture_fail(b, embedding, WEIR_NOT_FOUND, "nowhere.png");
    wish.control = &changed.ref;
    quote(b, &wish);
    see_picture_fail(b, embedding, WEIR_BAD_FILE, "changed.png");
    picture_put(b, &file, "png_rgb"); /* and the worker goes on */
    wish.control = &file.ref;
    quote(b, &wish);
    uint8_t digest[WEIR_SHA256_BYTES];
    denoise(b, embedding, digest);
    done_free(embedding);
}

/* The latents of the last picture are at hand for the next task; bytes must not depend on it. */
static void latents_depend_on_the_picture_and_not_on_what_was_before(void **state)
{
    struct broker *b = *state;
    Weir__Pb__JobSpec wish;
    struct file one, other;
    uint8_t first[WEIR_SHA256_BYTES], again[WEIR_SHA256_BYTES];
    picture_put(b, &one, "png_rgb");
    picture_put(b, &other, "jpeg_progressive");
    picture_wish(&wish, "tiny-sana-control");
    wish.control = &one.ref;
    start(b, looking);
    quote(b, &wish);
    Weir__Pb__Done *embedding = run_task(b, &text);
    denoise(b, embedding, first);
    denoise(b, embedding, again); /* with latents that are kept */
    assert_memory_equal(first, again, sizeof first);
    wish.control = &other.ref;
    quote(b, &wish);
    denoise(b, embedding, again);
    assert_memory_not_equal(first, again, sizeof first);
    wish.control = &one.ref;
    wish.has_width = wish.has_height = 1; /* made at another size */
    wish.width = 200;
    wish.height = 50;
    quote(b, &wish);
    denoise(b, embedding, again);
    assert_memory_not_equal(first, again, sizeof first);
    wish.has_width = wish.has_height = 0;
    quote(b, &wish);
    denoise(b, embedding, again);
    assert_memory_equal(first, again, sizeof first);
    done_free(embedding);
}

static void a_picture_is_made_from_a_control_image_with_its_receipt(void **state)
{
    struct broker *b = *state;
    Weir__Pb__JobSpec wish;
    struct file file;
    char hex[WEIR_SHA256_HEX_BYTES];
    picture_put(b, &file, "webp_lossy");
    weir_hex_write(file.digest, sizeof file.digest, hex);
    picture_wish(&wish, "tiny-sana-control");
    wish.control = &file.ref;
    start(b, looking);
    quote(b, &wish);
    Weir__Pb__Done *embedding = run_task(b, &text);
    Weir__Pb__Done *latents =
        run_task(b, &(struct lease_options){ .stage = WEIR_STAGE_DENOISE, .inputs = { embedding } });
    Weir__Pb__Done *image =
        run_task(b, &(struct lease_options){ .stage = WEIR_STAGE_DECODE, .frame_count = 1, .inputs = { latents } });
    assert_string_equal(image->artefacts[0]->name, "image.png");
    assert_non_null(strstr(image->facts->note, hex));
    assert_non_null(strstr(image->facts->note, "\"control_scale\":1.0"));
    done_free(image);
    done_free(latents);
    done_free(embedding);
}

/* The model's pictures are small, and decoded undivided; what no broker would say of them is refused in words. */
static void a_lease_and_its_spec_agree_about_bands(void **state)
{
    struct broker *b = *state;
    Weir__Pb__JobSpec wish;
    picture_wish(&wish, "tiny-sana-b");
    start(b, sprinting);
    quote(b, &wish);
    assert_false(b->spec->has_bands);
    Weir__Pb__Done *embedding = run_task(b, &text);
    Weir__Pb__Done *latents =
        run_task(b, &(struct lease_options){ .stage = WEIR_STAGE_DENOISE, .inputs = { embedding } });
    struct lease_options decode = { .stage = WEIR_STAGE_DECODE, .frame_count = 1, .band = 1, .inputs = { latents } };
    const struct lease_options assemble = { .stage = WEIR_STAGE_ASSEMBLE, .inputs = { latents } };
    see_failed(b, &decode, WEIR_PROTOCOL, "a lease of a band, of a picture in 1");
    see_failed(b, &assemble, WEIR_PROTOCOL, "of an image that is one decode task's");
    b->spec->has_bands = 1;
    b->spec->bands = 2;
    see_failed(b, &decode, WEIR_BAD_ARGUMENT, "in 2 bands; it is decoded in 1");
    decode.band = 0;
    see_failed(b, &decode, WEIR_BAD_ARGUMENT, "in 2 bands; it is decoded in 1");
    see_failed(b, &assemble, WEIR_BAD_ARGUMENT, "in 2 bands; it is decoded in 1");
    done_free(latents);
    done_free(embedding);
}

/* A worker that goes on has the picture to look at again, but none to begin at. */
static void resumed(struct broker *b, const char *const *flags, const char *model, bool is_start)
{
    uint8_t whole[WEIR_SHA256_BYTES];
    struct ticketed t;
    Weir__Pb__JobSpec wish;
    struct file file;
    picture_put(b, &file, "png_rgb");
    picture_wish(&wish, model);
    *(is_start ? &wish.start_image : &wish.control) = &file.ref;
    wish.has_steps = 1;
    wish.steps = is_start ? 900 : 400;           /* long enough to be killed in the middle, */
    wish.has_width = wish.has_height = is_start; /* the second at a size where a step takes long enough */
    wish.width = wish.height = 128;
    start(b, flags);
    quote(b, &wish);
    Weir__Pb__Done *embedding = run_task(b, &text);
    denoise(b, embedding, whole);
    weir_random_bytes(b->job, sizeof b->job); /* the same again as another job */
    const struct lease_options o = { .stage = WEIR_STAGE_DENOISE, .inputs = { embedding } };
    lease(b, &t, &o);
    see_until(b, &b->step, 6);
    worker_kill(b);
    start(b, flags);
    if (is_start) { /* what was begun at is not needed any more */
        char key[WEIR_KEY_BYTES];
        weir_key_file("local", file.digest, key);
        assert_int_equal(weir_store_remove(b->store, key, NULL), WEIR_OK);
    }
    Weir__Pb__Done *done = run_task(b, &o);
    assert_true(done->facts->resumed_step >= 5);
    assert_int_equal(done->facts->resumed_step + done->facts->steps_run, is_start ? 540 : 400);
    assert_memory_equal(done->artefacts[0]->digest.data, whole, sizeof whole);
    done_free(done);
    done_free(embedding);
}

static void a_killed_worker_that_looked_at_a_picture_costs_no_byte(void **state)
{
    resumed(*state, looking, "tiny-sana-control", false);
}

static void a_killed_worker_that_began_at_a_picture_costs_no_byte(void **state)
{
    resumed(*state, sprinting, "tiny-sana-b", true);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, broker_setup, broker_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_quote_takes_a_picture_from_models_that_can_and_asks_for_it),
        CASE(a_start_is_resolved_with_the_strength_of_the_pipeline),
        CASE(a_file_that_is_no_picture_fails_its_task_for_good),
        CASE(latents_depend_on_the_picture_and_not_on_what_was_before),
        CASE(a_picture_is_made_from_a_control_image_with_its_receipt),
        CASE(a_lease_and_its_spec_agree_about_bands),
        CASE(a_killed_worker_that_looked_at_a_picture_costs_no_byte),
        CASE(a_killed_worker_that_began_at_a_picture_costs_no_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
