/* What a worker does with leases, whatever happens around it. The real program with a tiny model, a broker of the
 * test's own. */
#include "proto/base/clock.h"
#include "tests/integration/pretend_broker.h"

#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

/* Steps of a task that must still run while the test does something, and of one that is interrupted after 12. */
#if defined(__SANITIZE_THREAD__)
enum { LONG = 60, SPLIT = 30 };
#elif defined(__SANITIZE_ADDRESS__)
enum { LONG = 150, SPLIT = 60 };
#else
enum { LONG = 400, SPLIT = 150 };
#endif

static const struct lease_options text = { .stage = WEIR_STAGE_TEXT };

/* Nothing but sockets is in the run folder. */
static void see_no_scratch(const struct broker *b)
{
    DIR *folder = opendir(b->run_dir);
    assert_non_null(folder);
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        if (strncmp(entry->d_name, "task-", 5) == 0) fail_msg("%s was left behind", entry->d_name);
    }
    closedir(folder);
}

static void a_worker_says_what_it_is_and_takes_one_lease_more_than_it_runs(void **state)
{
    struct broker *b = *state;
    worker_start(b, (const char *const[]){ "--stages", "denoise,decode", NULL });
    struct weir_message m = see(b, WEIR_MESSAGE_HELLO);
    const Weir__Pb__Hello *hello = m.body.hello;
    assert_int_equal(hello->pid, b->pid);
    assert_int_equal(hello->stages, 1u << WEIR_STAGE_DENOISE | 1u << WEIR_STAGE_DECODE);
    assert_int_equal(hello->slots, 16 + 2); /* what its largest batch may have, and what may be left to be written */
    assert_string_equal(hello->device, "cpu");
    assert_int_equal(hello->n_models, 1);
    assert_string_equal(hello->models[0]->name, "tiny-a");
    assert_string_equal(hello->models[0]->pipeline, "TextToVideoSDPipeline");
    assert_int_equal(hello->n_held, 0);
    assert_true(hello->memory_bytes > 1 << 20);
    assert_non_null(strstr(hello->tensor_endpoint, b->run_dir));
    weir_message_release(&m);
    worker_greet(b); /* HELLO comes again until it is answered */
    see_credit(b, 2);
}

/* Shapes are planned once, as long as they are remembered: whichever way it was found, a shape's memory is the same. */
static void a_shape_takes_the_memory_that_its_first_quote_said(void **state)
{
    enum { SIZES = 20, SHAPES = 3 * SIZES }; /* more than are remembered */
    struct broker *b = *state;
    Weir__Pb__JobSpec wish;
    uint64_t first[SHAPES];
    worker_start(b, NULL);
    worker_greet(b);
    for (uint32_t turn = 0; turn < 3; turn++) {
        for (uint32_t k = 0; k < SHAPES; k++) {
            const uint32_t shape = turn == 1 ? SHAPES - 1 - k : k, size = shape % SIZES;
            wish_init(&wish, 4);
            wish.frames = shape < SIZES ? 16 : 17;
            wish.has_guidance = true;
            wish.guidance = shape < 2 * SIZES ? 3 : 1;
            wish.width = 64 + 8 * (size % 5);
            wish.height = 64 + 8 * (size / 5);
            const uint64_t bytes = quote(b, &wish);
            if (turn == 0) first[shape] = bytes;
            assert_int_equal(bytes, first[shape]);
            assert_int_equal(quote(b, &wish), bytes);
        }
    }
    for (uint32_t size = 0; size < SIZES; size++) {
        assert_true(first[size] < first[SIZES + size]);             /* a frame more */
        assert_true(first[2 * SIZES + size] < first[SIZES + size]); /* no guidance */
        assert_true(size == 0 || first[size] != first[size - 1]);
    }
}

static void a_quote_fills_every_blank_or_says_why_not(void **state)
{
    struct broker *b = *state;
    Weir__Pb__JobSpec wish;
    wish_init(&wish, 4);
    worker_start(b, (const char *const[]){ "--memory-mib", "16", NULL });
    worker_greet(b);
    quote(b, &wish);
    assert_int_equal(b->spec->spec_version, WEIR_SPEC_VERSION);
    assert_int_equal(b->spec->n, 1);
    assert_int_equal(b->spec->seed, 7);
    assert_int_equal(b->spec->model_digest.len, WEIR_SHA256_BYTES);
    assert_string_equal(b->spec->sampler, "ddim");
    assert_string_equal(b->spec->noise, "f32");
    assert_string_equal(b->spec->precision, "f32");
    assert_string_equal(b->spec->format, "mp4");
    assert_true(strlen(b->spec->codec) > 0);
    assert_true(b->spec->has_guidance);

    wish.precision = (char *)(uintptr_t) "bf16";
    quote_refused(b, &wish, WEIR_UNSUPPORTED, "--precision bf16: this worker computes in f32");
    wish.precision = (char *)(uintptr_t) "f32";
    quote(b, &wish);
    wish.precision = NULL;

    wish.width = 65;
    quote_refused(b, &wish, WEIR_BAD_ARGUMENT, "65");
    wish.width = 0;
    quote_refused(b, &wish, WEIR_BAD_ARGUMENT, "--size");
    wish.width = 64;
    wish.format = (char *)(uintptr_t) "avi";
    quote_refused(b, &wish, WEIR_BAD_ARGUMENT, "avi");
    wish.format = (char *)(uintptr_t) "webm";
    wish.codec = (char *)(uintptr_t) "h264";
    quote_refused(b, &wish, WEIR_BAD_ARGUMENT, "h264");
    wish.codec = NULL;
    wish.format = (char *)(uintptr_t) "gif";
    wish.fps = 50;
    quote(b, &wish);
    wish.fps = 51;
    quote_refused(b, &wish, WEIR_TOO_LARGE, "--fps 51");
    wish.fps = 8;
    wish.format = (char *)(uintptr_t) "png";
    wish.frames = 2049;
    quote_refused(b, &wish, WEIR_TOO_LARGE, "2048");
    wish.frames = 16;
    wish.format = (char *)(uintptr_t) "jpeg";
    quote_refused(b, &wish, WEIR_BAD_ARGUMENT, "--frames 16");
    wish.format = NULL;
    wish.width = wish.height = 512;
    quote_refused(b, &wish, WEIR_TOO_LARGE, "16.0 MiB");
    wish.width = 8200;
    quote_refused(b, &wish, WEIR_TOO_LARGE, "8192");
    wish.width = wish.height = 64;
    wish.model = (char *)(uintptr_t) "other";
    quote_refused(b, &wish, WEIR_UNAVAILABLE, "other");
    wish.model = NULL;
    wish.prompt = NULL;
    quote_refused(b, &wish, WEIR_BAD_ARGUMENT, "prompt");
}

static void the_four_stages_make_a_film_with_its_receipt(void **state)
{
    struct broker *b = *state;
    Weir__Pb__Done *embedding = ready(b, 7, NULL);
    assert_string_equal(embedding->artefacts[0]->name, "embedding");
    assert_int_equal(embedding->artefacts[0]->bytes, 64 + 2 * 77 * 24 * 4);
    Weir__Pb__Done *latents =
        run_task(b, &(struct lease_options){ .stage = WEIR_STAGE_DENOISE, .inputs = { embedding } });
    assert_string_equal(latents->artefacts[0]->name, "latents");
    assert_int_equal(latents->artefacts[0]->bytes, 64 + 4 * 20 * 6 * 8 * 4);
    assert_int_equal(latents->facts->steps_run, 7);
    assert_int_equal(latents->facts->resumed_step, 0);
    assert_int_equal(latents->facts->worker_pid, b->pid);
    Weir__Pb__Done *first =
        run_task(b, &(struct lease_options){ .stage = WEIR_STAGE_DECODE, .frame_count = 16, .inputs = { latents } });
    Weir__Pb__Done *second = run_task(
        b, &(struct lease_options){
               .stage = WEIR_STAGE_DECODE, .index = 1, .frame_first = 16, .frame_count = 4, .inputs = { latents } });
    assert_string_equal(first->artefacts[0]->name, "segment");
    Weir__Pb__Done *film =
        run_task(b, &(struct lease_options){ .stage = WEIR_STAGE_ASSEMBLE, .inputs = { first, second } });
    assert_int_equal(film->n_artefacts, 1);
    assert_string_equal(film->artefacts[0]->name, "film.mp4");
    assert_string_equal(film->artefacts[0]->media_type, "video/mp4");
    static const char *const said[] = { "\"encoder\":", "\"model_digest\":", "\"numerics_class\":", "\"n\":1",
                                        "\"seed\":7" };
    for (size_t i = 0; i < WEIR_COUNT(said); i++) assert_non_null(strstr(film->facts->note, said[i]));
    see_no_scratch(b);
    done_free(film);
    done_free(second);
    done_free(first);
    done_free(latents);
    done_free(embedding);
}

static void pictures_and_gifs_pass_through_the_assembler(void **state)
{
    struct broker *b = *state;
    static const char *const formats[] = { "png", "gif" };
    Weir__Pb__JobSpec wish;
    wish_init(&wish, 2);
    worker_start(b, NULL);
    worker_greet(b);
    for (size_t i = 0; i < WEIR_COUNT(formats); i++) {
        wish.format = (char *)(uintptr_t)formats[i];
        quote(b, &wish);
        Weir__Pb__Done *embedding = run_task(b, &text);
        Weir__Pb__Done *latents = run_task(
            b, &(struct lease_options){ .stage = WEIR_STAGE_DENOISE, .index = 2, .item = 2, .inputs = { embedding } });
        Weir__Pb__Done *frames = run_task(
            b, &(struct lease_options){
                   .stage = WEIR_STAGE_DECODE, .index = 2, .item = 2, .frame_count = 20, .inputs = { latents } });
        Weir__Pb__Done *film = run_task(
            b, &(struct lease_options){ .stage = WEIR_STAGE_ASSEMBLE, .index = 2, .item = 2, .inputs = { frames } });
        assert_int_equal(film->n_artefacts, i == 0 ? 20 : 1);
        assert_string_equal(film->artefacts[0]->name, i == 0 ? "00000.png" : "film.gif");
        assert_non_null(strstr(film->artefacts[0]->key, "assemble-2/"));
        for (size_t k = 0; k < film->n_artefacts; k++) {
            assert_true(film->artefacts[k]->has_item);
            assert_int_equal(film->artefacts[k]->item, 2);
        }
        assert_false(frames->artefacts[0]->has_item);             /* the manifest does not name them */
        assert_non_null(strstr(film->facts->note, "\"seed\":9")); /* item 2 of seed 7 */
        done_free(film);
        done_free(frames);
        done_free(latents);
        done_free(embedding);
    }
    see_no_scratch(b);
}

/* PROTOCOL.md section 7, row by row. */
static void one_frame_is_an_image_where_the_format_can_be_one(void **state)
{
    struct broker *b = *state;
    static const struct {
        const char *format; /* NULL: not said */
        int image;          /* -1: not said */
        uint32_t frames;
        const char *made; /* NULL: refused */
        bool is_image;
    } rows[] = {
        { NULL, -1, 1, "mp4", false },   { NULL, 1, 1, "png", true },    { "mp4", -1, 1, "mp4", false },
        { "mp4", 1, 1, NULL, false },    { "gif", 1, 1, NULL, false },   { "webm", 0, 1, "webm", false },
        { "png", -1, 1, "png", true },   { "png", -1, 2, "png", false }, { "png", 1, 1, "png", true },
        { "png", 1, 2, NULL, false },    { "png", 0, 1, "png", false },  { "png", 0, 2, "png", false },
        { "jpeg", -1, 1, "jpeg", true }, { "jpeg", -1, 2, NULL, false }, { "jpeg", 0, 1, NULL, false },
        { "webp", 1, 1, "webp", true },  { "webp", 0, 1, NULL, false },
    };
    worker_start(b, NULL);
    worker_greet(b);
    for (size_t i = 0; i < WEIR_COUNT(rows); i++) {
        Weir__Pb__JobSpec wish;
        wish_init(&wish, 2);
        wish.frames = rows[i].frames;
        wish.format = (char *)(uintptr_t)rows[i].format;
        wish.has_image = rows[i].image >= 0;
        wish.image = rows[i].image > 0;
        if (!rows[i].made) {
            quote_refused(b, &wish, WEIR_BAD_ARGUMENT, rows[i].frames > 1 ? "--frames 2" : rows[i].format);
            continue;
        }
        quote(b, &wish);
        assert_string_equal(b->spec->format, rows[i].made);
        assert_int_equal(b->spec->has_image, rows[i].is_image); /* a film's spec has no word of it */
        assert_int_equal(b->spec->image, rows[i].is_image);
        if (rows[i].is_image) {
            assert_int_equal(b->spec->frames, 1);
            assert_int_equal(b->spec->fps, 1);
            assert_string_equal(b->spec->codec, "");
        }
    }
    Weir__Pb__JobSpec wish;
    wish_init(&wish, 2);
    wish.frames = 1;
    wish.format = (char *)(uintptr_t) "webp";
    wish.codec = (char *)(uintptr_t) "vp9";
    quote_refused(b, &wish, WEIR_BAD_ARGUMENT, "--codec vp9");
}

/* A job of many prompts, and the refusals that name one of them. */
static void a_list_is_quoted_prompt_by_prompt(void **state)
{
    struct broker *b = *state;
    Weir__Pb__JobSpec wish;
    Weir__Pb__Prompt prompts[40], *list[40];
    char texts[40][24];
    wish_init(&wish, 2);
    wish.prompt = NULL;
    wish.frames = 1;
    wish.format = (char *)(uintptr_t) "png";
    wish.prompts = list;
    for (uint32_t k = 0; k < 40; k++) {
        weir__pb__prompt__init(&prompts[k]);
        snprintf(texts[k], sizeof texts[k], "a red circle %u", k % 2);
        prompts[k].text = texts[k];
        list[k] = &prompts[k];
    }
    worker_start(b, (const char *const[]){ "--stages", "text,denoise,decode", "--memory-mib", "16", NULL });
    worker_greet(b);
    wish.n_prompts = 3;
    prompts[1].has_width = 1;
    prompts[1].width = 32;
    quote(b, &wish);
    assert_int_equal(b->spec->n_prompts, 3);
    assert_null(b->spec->prompt);
    static const uint32_t lines[] = { 1, 3, 2 }, widths[] = { 64, 64, 32 };
    for (uint32_t k = 0; k < 3; k++) {
        assert_int_equal(b->spec->prompts[k]->line, lines[k]);
        assert_int_equal(b->spec->prompts[k]->width, widths[k]);
        assert_int_equal(b->spec->prompts[k]->seed, 7 + lines[k] - 1);
    }
    /* Item 2 is the second line: its own size and seed, and a receipt like that of any job. */
    Weir__Pb__Done *embedding = run_task(b, &(struct lease_options){ .stage = WEIR_STAGE_TEXT, .index = 1, .item = 2 });
    Weir__Pb__Done *latents = run_task(
        b, &(struct lease_options){ .stage = WEIR_STAGE_DENOISE, .index = 2, .item = 2, .inputs = { embedding } });
    Weir__Pb__Done *image =
        run_task(b, &(struct lease_options){
                        .stage = WEIR_STAGE_DECODE, .index = 2, .item = 2, .frame_count = 1, .inputs = { latents } });
    assert_int_equal(image->artefacts[0]->item, 2);
    static const char *const said[] = { "\"prompt\":\"a red circle 1\"", "\"seed\":8", "\"width\":32", "\"n\":1" };
    for (size_t i = 0; i < WEIR_COUNT(said); i++) assert_non_null(strstr(image->facts->note, said[i]));
    assert_null(strstr(image->facts->note, "\"prompts\""));
    assert_null(strstr(image->facts->note, "\"line\""));
    done_free(image);
    done_free(latents);
    done_free(embedding);

    prompts[1].width = 33;
    quote_refused(b, &wish, WEIR_BAD_ARGUMENT, "line 2: --size");
    prompts[1].width = 32;
    prompts[2].has_line = 1;
    prompts[2].line = 17;
    prompts[2].has_steps = 1;
    prompts[2].steps = 100000;
    quote_refused(b, &wish, WEIR_TOO_LARGE, "line 17: --steps");
    prompts[2].has_steps = 0;
    prompts[2].has_width = prompts[2].has_height = 1;
    prompts[2].width = prompts[2].height = 1024;
    quote_refused(b, &wish, WEIR_TOO_LARGE, "line 17: ");
    quote_refused(b, &wish, WEIR_TOO_LARGE, "16.0 MiB");
    wish.n_prompts = 40;
    for (uint32_t k = 0; k < 40; k++) {
        prompts[k].has_width = prompts[k].has_height = 1;
        prompts[k].width = 32 + 8 * (k % 32);
        prompts[k].height = 32;
    }
    quote(b, &wish); /* 32 different shapes */
    prompts[39].has_guidance = 1;
    prompts[39].guidance = 1; /* and one more */
    quote_refused(b, &wish, WEIR_TOO_LARGE, "line 40: --size 88x32, not guided: one job has at most 32");
    wish.n_prompts = 1;
    wish.has_n = 1;
    wish.n = 513;
    quote_refused(b, &wish, WEIR_TOO_LARGE, "at most 512");
}

static void an_image_is_done_when_it_is_decoded(void **state)
{
    struct broker *b = *state;
    static const char *const rows[][3] = { { "png", "image.png", "image/png" },
                                           { "jpeg", "image.jpg", "image/jpeg" },
                                           { "webp", "image.webp", "image/webp" } };
    Weir__Pb__JobSpec wish;
    wish_init(&wish, 2);
    wish.frames = 1;
    worker_start(b, (const char *const[]){ "--stages", "text,denoise,decode", NULL });
    worker_greet(b);
    for (size_t i = 0; i < WEIR_COUNT(rows); i++) {
        wish.format = (char *)(uintptr_t)rows[i][0];
        quote(b, &wish);
        Weir__Pb__Done *embedding = run_task(b, &text);
        Weir__Pb__Done *latents = run_task(
            b, &(struct lease_options){ .stage = WEIR_STAGE_DENOISE, .index = 2, .item = 2, .inputs = { embedding } });
        assert_int_equal(latents->artefacts[0]->bytes, 64 + 4 * 1 * 6 * 8 * 4);
        Weir__Pb__Done *image = run_task(
            b, &(struct lease_options){
                   .stage = WEIR_STAGE_DECODE, .index = 2, .item = 2, .frame_count = 1, .inputs = { latents } });
        assert_int_equal(image->n_artefacts, 1);
        assert_string_equal(image->artefacts[0]->name, rows[i][1]);
        assert_string_equal(image->artefacts[0]->media_type, rows[i][2]);
        assert_non_null(strstr(image->artefacts[0]->key, "decode-2/"));
        static const char *const said[] = { "\"encoder\":\"lib", "\"image\":true", "\"n\":1", "\"seed\":9" };
        for (size_t k = 0; k < WEIR_COUNT(said); k++) assert_non_null(strstr(image->facts->note, said[k]));
        done_free(image);
        done_free(latents);
        done_free(embedding);
    }
    see_no_scratch(b);
}

static void a_result_is_told_until_it_is_acknowledged(void **state)
{
    struct broker *b = *state;
    struct ticketed t;
    done_free(ready(b, 2, NULL));
    lease(b, &t, &text);
    const uint64_t begin_ms = weir_clock_now_ms();
    for (int i = 0; i < 2; i++) {
        struct weir_message m = see(b, WEIR_MESSAGE_DONE);
        assert_memory_equal(m.body.done->token.data, t.token, WEIR_TOKEN_BYTES);
        weir_message_release(&m);
    }
    assert_in_range(weir_clock_now_ms() - begin_ms, 1000, 10000);
    done_free(see_done(b, &t));
    see_nothing(b, 2500); /* acknowledged: the fourth would come two to four seconds after the third */
}

static void what_runs_is_renewed_with_progress_and_a_waiting_lease_too(void **state)
{
    struct broker *b = *state;
    struct ticketed running, waiting, third;
    Weir__Pb__Done *embedding = ready(b, 990, (const char *const[]){ "--batch", "1", NULL });
    const struct lease_options o = { .stage = WEIR_STAGE_DENOISE, .inputs = { embedding } };
    const struct lease_options p = { .stage = WEIR_STAGE_DENOISE, .index = 1, .item = 1, .inputs = { embedding } };
    const struct lease_options q = { .stage = WEIR_STAGE_DENOISE, .index = 2, .item = 2, .inputs = { embedding } };
    lease(b, &running, &o);
    see_until(b, &b->step, 3);
    assert_int_equal(b->steps, 990);
    lease(b, &waiting, &p);
    lease(b, &third, &q); /* more than was granted */
    see_release(b, &third);
    b->renewals = 0;
    see_until(b, &b->renewals, 6);

    b->cancel = true; /* both are wanted no more */
    struct weir_message m[2] = { see(b, WEIR_MESSAGE_RELEASE), see(b, WEIR_MESSAGE_RELEASE) };
    for (int i = 0; i < 2; i++) {
        Weir__Pb__ReleaseAck ack = WEIR__PB__RELEASE_ACK__INIT;
        ack.task = m[i].body.release->task;
        ack.has_token = 1;
        ack.token = m[i].body.release->token;
        say(b, WEIR_MESSAGE_RELEASE_ACK, &ack.base);
        weir_message_release(&m[i]);
    }
    b->cancel = false;
    see_credit(b, 2);
    see_no_scratch(b);
    done_free(embedding);
}

static void a_stale_lease_is_dropped_without_a_word(void **state)
{
    struct broker *b = *state;
    struct ticketed t;
    Weir__Pb__Done *embedding = ready(b, 990, NULL);
    lease(b, &t, &(struct lease_options){ .stage = WEIR_STAGE_DENOISE, .inputs = { embedding } });
    see_until(b, &b->step, 2);
    Weir__Pb__Stale stale = WEIR__PB__STALE__INIT;
    uint8_t wrong[WEIR_TOKEN_BYTES] = { 1 };
    stale.task = &t.id;
    stale.has_token = 1;
    stale.token = (ProtobufCBinaryData){ WEIR_TOKEN_BYTES, wrong };
    say(b, WEIR_MESSAGE_STALE, &stale.base); /* of a lease that it does not hold */
    const uint32_t step = b->step;
    see_until(b, &b->step, step + 2);
    stale.token.data = t.token;
    say(b, WEIR_MESSAGE_STALE, &stale.base);
    b->credit = -1;
    see_credit(b, 2);
    see_nothing(b, 1500);
    done_free(embedding);
}

static void a_broker_that_comes_back_is_told_what_is_held_and_gets_the_result(void **state)
{
    struct broker *b = *state;
    struct ticketed t;
    Weir__Pb__Done *embedding = ready(b, LONG, NULL);
    lease(b, &t, &(struct lease_options){ .stage = WEIR_STAGE_DENOISE, .inputs = { embedding } });
    see_until(b, &b->step, 2);
    broker_unbind(b);
    broker_bind(b);
    b->hellos = 0;
    b->forgot = true;
    see_until(b, &b->hellos, 1);
    assert_int_equal(b->held, 1);
    assert_memory_equal(b->held_token, t.token, WEIR_TOKEN_BYTES);
    Weir__Pb__Done *latents = see_done(b, &t);
    assert_int_equal(latents->facts->steps_run, LONG); /* it went on meanwhile */
    done_free(latents);

    b->mute = true; /* one that says nothing any more is greeted again */
    b->hellos = 0;
    see_until(b, &b->hellos, 1);
    assert_int_equal(b->held, 0);
    b->mute = false;
    see_credit(b, 2);
    done_free(embedding);
}

/* sigterm: drained; else killed. */
static void interrupted_and_resumed(struct broker *b, bool sigterm, const char *sampler)
{
    uint8_t whole[WEIR_SHA256_BYTES], resumed[WEIR_SHA256_BYTES];
    struct ticketed t, waiting;
    Weir__Pb__JobSpec wish;
    wish_init(&wish, SPLIT);
    wish.sampler = (char *)(uintptr_t)sampler;
    worker_start(b, (const char *const[]){ "--batch", "1", NULL });
    worker_greet(b);
    see_credit(b, 2);
    quote(b, &wish);
    Weir__Pb__Done *embedding = run_task(b, &text);
    const struct lease_options o = { .stage = WEIR_STAGE_DENOISE, .inputs = { embedding } };
    const struct lease_options p = { .stage = WEIR_STAGE_DENOISE, .index = 1, .item = 1, .inputs = { embedding } };
    Weir__Pb__Done *done = run_task(b, &o);
    digest_of(done, whole);
    done_free(done);
    weir_random_bytes(b->job, sizeof b->job); /* the same again as another job */
    lease(b, &t, &o);
    b->step = 0;
    see_until(b, &b->step, 12);
    if (sigterm) {
        lease(b, &waiting, &p);
        b->renewals = 0;
        see_until(b, &b->renewals, 4); /* it came, and is renewed like the other */
        kill(b->pid, SIGTERM);
        see_release(b, &waiting);
        see_release(b, &t);
        struct weir_message m = see(b, WEIR_MESSAGE_BYE);
        weir_message_release(&m);
        assert_int_equal(worker_end(b), 0);
    } else {
        worker_kill(b);
    }
    worker_start(b, NULL);
    worker_greet(b);
    see_credit(b, 2);
    done = run_task(b, &o);
    digest_of(done, resumed);
    assert_true(done->facts->resumed_step >= 10);
    assert_int_equal(done->facts->resumed_step + done->facts->steps_run, SPLIT);
    assert_memory_equal(whole, resumed, sizeof whole);
    done_free(done);
    done_free(embedding);
}

static void a_drained_worker_gives_back_and_another_goes_on_to_the_same_bytes(void **state)
{
    interrupted_and_resumed(*state, true, "ddim");
}

static void a_killed_worker_costs_five_steps_and_no_byte(void **state)
{
    interrupted_and_resumed(*state, false, "dpm++");
}

/* ---- the tenant's cache of embeddings ---- */

static void see_text(struct broker *b, const char *tenant, const char *prompt, const char *negative, uint32_t computed,
                     uint8_t digest[WEIR_SHA256_BYTES])
{
    Weir__Pb__JobSpec wish;
    wish_init(&wish, 2);
    wish.prompt = (char *)(uintptr_t)prompt;
    wish.negative = (char *)(uintptr_t)negative;
    quote(b, &wish);
    weir_random_bytes(b->job, sizeof b->job);
    Weir__Pb__Done *done = run_task(b, &(struct lease_options){ .stage = WEIR_STAGE_TEXT, .tenant = tenant });
    if (done->facts->steps_run != computed)
        fail_msg("%s, \"%s\" without \"%s\": %u texts computed", tenant, prompt, negative, done->facts->steps_run);
    digest_of(done, digest);
    done_free(done);
}

struct damage {
    const struct broker *broker;
    uint32_t count;
};

static bool flip_a_byte(void *context, const char *key)
{
    struct damage *damage = context;
    char path[4096];
    uint8_t byte;
    assert_true(weir_store_path(damage->broker->store, key, path, sizeof path));
    assert_int_equal(chmod(path, 0600), 0);
    FILE *file = fopen(path, "r+");
    assert_non_null(file);
    fseek(file, 100, SEEK_SET);
    assert_int_equal(fread(&byte, 1, 1, file), 1);
    byte ^= 1;
    fseek(file, 100, SEEK_SET);
    assert_int_equal(fwrite(&byte, 1, 1, file), 1);
    fclose(file);
    damage->count++;
    return true;
}

static void a_text_is_computed_once_for_a_tenant(void **state)
{
    struct broker *b = *state;
    uint8_t first[WEIR_SHA256_BYTES], again[WEIR_SHA256_BYTES];
    b->logs = true;
    worker_start(b, NULL);
    worker_greet(b);
    see_text(b, "ada", "a red circle", "blurred", 2, first);
    see_text(b, "ada", "a red circle", "blurred", 0, again);
    assert_memory_equal(first, again, sizeof first);
    see_text(b, "ada", "a red circle", "dark", 1, again);
    assert_memory_not_equal(first, again, sizeof first);
    see_text(b, "bob", "a red circle", "blurred", 2, again); /* nothing is shared between tenants */
    assert_memory_equal(first, again, sizeof first);

    struct damage damage = { .broker = b };
    assert_int_equal(weir_store_list(b->store, "t/ada/emb/", flip_a_byte, &damage, NULL), WEIR_OK);
    assert_int_equal(damage.count, 3);
    see_text(b, "ada", "a red circle", "blurred", 2, again);
    assert_memory_equal(first, again, sizeof first);
    assert_int_equal(log_count(b, "embedding passed over"), 2);
    see_text(b, "ada", "a red circle", "blurred", 0, again); /* what was damaged was made anew */

    worker_kill(b); /* a worker that finds all there does not open the text encoder */
    const uint32_t opened = log_count(b, "memory planned stage=text");
    assert_true(opened > 0);
    worker_start(b, NULL);
    worker_greet(b);
    see_text(b, "ada", "a red circle", "blurred", 0, again);
    assert_memory_equal(first, again, sizeof first);
    assert_int_equal(log_count(b, "memory planned stage=text"), opened);
}

static void an_input_that_is_nowhere_is_reported_with_who_made_it(void **state)
{
    struct broker *b = *state;
    struct ticketed t;
    Weir__Pb__Done *embedding = ready(b, 2, NULL);
    embedding->artefacts[0]->digest.data[0] ^= 1;
    lease(b, &t, &(struct lease_options){ .stage = WEIR_STAGE_DENOISE, .inputs = { embedding } });
    struct weir_message m = see(b, WEIR_MESSAGE_FAIL);
    assert_int_equal(m.body.fail->status, WEIR_INPUT_LOST);
    assert_non_null(m.body.fail->lost_input);
    assert_int_equal(m.body.fail->lost_input->stage, WEIR_STAGE_TEXT);
    assert_non_null(strstr(m.body.fail->words, "text-0"));
    Weir__Pb__FailAck ack = WEIR__PB__FAIL_ACK__INIT;
    ack.task = m.body.fail->task;
    ack.has_token = 1;
    ack.token = m.body.fail->token;
    say(b, WEIR_MESSAGE_FAIL_ACK, &ack.base);
    weir_message_release(&m);
    see_credit(b, 2);
    done_free(embedding);
}

/* A cluster may have workers of two precisions; the one that resolved the spec need not be the one that is asked. */
static void a_lease_in_another_precision_is_refused_by_name(void **state)
{
    struct broker *b = *state;
    struct ticketed t;
    Weir__Pb__Done *embedding = ready(b, 2, NULL);
    char *own = b->spec->precision;
    b->spec->precision = (char *)(uintptr_t) "bf16";
    lease(b, &t, &(struct lease_options){ .stage = WEIR_STAGE_DENOISE, .inputs = { embedding } });
    b->spec->precision = own;
    struct weir_message m = see(b, WEIR_MESSAGE_FAIL);
    assert_int_equal(m.body.fail->status, WEIR_UNSUPPORTED);
    assert_non_null(strstr(m.body.fail->words, "precision bf16, but this worker computes in f32"));
    weir_message_release(&m);
    done_free(embedding);
}

/* The attempt is not held against the task, and the exit code is the device's. */
static void a_worker_whose_device_reports_a_fault_says_so_and_ends(void **state)
{
    struct broker *b = *state;
    Weir__Pb__FailAck ack = WEIR__PB__FAIL_ACK__INIT;
    struct ticketed t;
    char fault[128];
    snprintf(fault, sizeof fault, "%s/fault", b->dir);
    assert_int_equal(setenv("WEIR_TEST_FAULT", fault, 1), 0);
    b->program = "weir-worker-faulty";
    Weir__Pb__Done *embedding = ready(b, 2, NULL); /* until there is that file it is sound */
    FILE *file = fopen(fault, "w");
    assert_non_null(file);
    fputs("once", file);
    fclose(file);
    lease(b, &t, &(struct lease_options){ .stage = WEIR_STAGE_DENOISE, .inputs = { embedding } });
    struct weir_message m = see(b, WEIR_MESSAGE_FAIL);
    assert_int_equal(m.body.fail->status, WEIR_DEVICE);
    assert_true(m.body.fail->has_device_suspect && m.body.fail->device_suspect);
    assert_non_null(strstr(m.body.fail->words, "device cpu"));
    assert_int_equal(access(fault, F_OK), -1);
    ack.task = m.body.fail->task;
    ack.has_token = 1;
    ack.token = m.body.fail->token;
    say(b, WEIR_MESSAGE_FAIL_ACK, &ack.base);
    weir_message_release(&m);
    m = see(b, WEIR_MESSAGE_BYE);
    weir_message_release(&m);
    assert_int_equal(worker_end(b), 71);
    unsetenv("WEIR_TEST_FAULT");
    done_free(embedding);
}

static void inputs_come_from_a_peer_when_the_store_has_lost_them(void **state)
{
    struct broker *b = *state;
    Weir__Pb__Done *embedding = ready(b, 2, NULL);
    const pid_t maker = b->pid;
    assert_non_null(embedding->artefacts[0]->endpoint);
    assert_int_equal(weir_store_remove(b->store, embedding->artefacts[0]->key, NULL), WEIR_OK);
    broker_unbind(b); /* the second worker speaks to a broker of its own */
    snprintf(b->endpoint, sizeof b->endpoint, "ipc://%s/other", b->dir);
    broker_bind(b);
    worker_start(b, NULL);
    worker_greet(b);
    Weir__Pb__Done *latents =
        run_task(b, &(struct lease_options){ .stage = WEIR_STAGE_DENOISE, .inputs = { embedding } });
    assert_int_equal(latents->facts->worker_pid, b->pid);
    done_free(latents);

    const pid_t taker = b->pid; /* without the ticket nothing is given; and the taker keeps what it fetched */
    worker_kill(b);
    (void)taker;
    embedding->artefacts[0]->ticket.data[3] ^= 1;
    worker_start(b, NULL);
    worker_greet(b);
    struct ticketed t;
    lease(b, &t, &(struct lease_options){ .stage = WEIR_STAGE_DENOISE, .inputs = { embedding } });
    struct weir_message m = see(b, WEIR_MESSAGE_FAIL);
    assert_int_equal(m.body.fail->status, WEIR_INPUT_LOST);
    weir_message_release(&m);
    worker_kill(b);
    b->pid = maker;
    done_free(embedding);
}

static void garbage_on_its_sockets_changes_nothing(void **state)
{
    struct broker *b = *state;
    Weir__Pb__Done *embedding = ready(b, 2, NULL);
    void *peer = zmq_socket(b->zmq, ZMQ_DEALER);
    assert_int_equal(zmq_connect(peer, embedding->artefacts[0]->endpoint), 0);
    uint8_t noise[300];
    weir_random_bytes(noise, sizeof noise);
    for (size_t i = 0; i < 40; i++) {
        zmq_send(peer, noise, i * 7, i % 3 ? ZMQ_SNDMORE : 0);
        zmq_send(b->socket, b->worker.bytes, b->worker.length, ZMQ_SNDMORE);
        zmq_send(b->socket, noise + i, i * 5, i % 2 ? ZMQ_SNDMORE : 0);
        if (i % 2) zmq_send(b->socket, noise, 32, 0);
    }
    zmq_send(peer, noise, 1, 0);
    done_free(run_task(b, &text));
    int linger_ms = 0;
    zmq_setsockopt(peer, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
    zmq_close(peer);
    done_free(embedding);
}

static void a_bad_start_is_one_line_and_an_exit_code(void **state)
{
    struct broker *b = *state;
    static const struct {
        const char *flags[8];
        int code;
    } rows[] = {
        { { "--stages", "text,paint", NULL }, 64 },
        { { "--device", "abacus", NULL }, 64 },
        { { "--model", "/nowhere/at/all", NULL }, 74 },
        { { "--lost-seconds", "0", NULL }, 64 },
        { { "--run-dir", "/proc/nothing", NULL }, 75 },
        { { "--store", "/proc/nothing", NULL }, 75 },
        { { "--broker", "tcp://10.0.0.1:5", NULL }, 64 },
        { { "--broker", "ipc:///tmp/weir-nobody-there", "--lost-seconds", "1", NULL }, 69 },
    };
    for (size_t i = 0; i < WEIR_COUNT(rows); i++) {
        worker_start(b, rows[i].flags);
        const int code = worker_end(b);
        if (code != rows[i].code) fail_msg("%s %s: exit code %d", rows[i].flags[0], rows[i].flags[1], code);
    }
    see_no_scratch(b);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, broker_setup, broker_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_worker_says_what_it_is_and_takes_one_lease_more_than_it_runs),
        CASE(a_shape_takes_the_memory_that_its_first_quote_said),
        CASE(a_quote_fills_every_blank_or_says_why_not),
        CASE(the_four_stages_make_a_film_with_its_receipt),
        CASE(pictures_and_gifs_pass_through_the_assembler),
        CASE(one_frame_is_an_image_where_the_format_can_be_one),
        CASE(a_list_is_quoted_prompt_by_prompt),
        CASE(an_image_is_done_when_it_is_decoded),
        CASE(a_result_is_told_until_it_is_acknowledged),
        CASE(what_runs_is_renewed_with_progress_and_a_waiting_lease_too),
        CASE(a_stale_lease_is_dropped_without_a_word),
        CASE(a_broker_that_comes_back_is_told_what_is_held_and_gets_the_result),
        CASE(a_drained_worker_gives_back_and_another_goes_on_to_the_same_bytes),
        CASE(a_killed_worker_costs_five_steps_and_no_byte),
        CASE(a_text_is_computed_once_for_a_tenant),
        CASE(an_input_that_is_nowhere_is_reported_with_who_made_it),
        CASE(a_lease_in_another_precision_is_refused_by_name),
        CASE(a_worker_whose_device_reports_a_fault_says_so_and_ends),
        CASE(inputs_come_from_a_peer_when_the_store_has_lost_them),
        CASE(garbage_on_its_sockets_changes_nothing),
        CASE(a_bad_start_is_one_line_and_an_exit_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
