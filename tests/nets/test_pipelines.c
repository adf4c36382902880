/* Whole runs give the pixels that diffusers gives, from a prompt to 8-bit frames, and give them however they are cut
 * up: resumed at any step, decoded in any ranges, in handles that did other work before. The vectors and the folders
 * are made by tests/golden/make_tiny_folders.py. */
#include "tests/nets/bench.h"

/* What make_tiny_folders.py asked for. */
static const char prompt[] = "a red circle moving right on a blue background";
static const char long_prompt[] =
    "STAR, star; 3 stars\xe2\x80\xa6 \xe2\x9c\xa8 "
    "the star up the star up the star up the star up the star up the star up the star up the star up the star up "
    "the star up the star up the star up the star up the star up the star up the star up the star up the star up "
    "the star up the star up the star up the star up the star up the star up the star up the star up the star up "
    "the star up the star up the star up the star up the star up the star up the star up the star up the star up "
    "the star up the star up the star up the star up ";
static const struct film {
    const char *folder, *label, *prompt, *negative, *sampler;
    double guidance;
    int64_t frames, height, width;
    uint64_t seed;
} films[] = {
    { "tiny-a", "ddim", prompt, "blue square", NULL, 5, 3, 40, 56, 1011 },
    { "tiny-a", "dpm", prompt, "", "dpm++", 5, 3, 40, 56, 1011 },
    { "tiny-b", "ddim", prompt, "blue square", NULL, 5, 5, 40, 56, 1012 },
    { "tiny-b", "dpm", prompt, "", "dpm++", 5, 5, 40, 56, 1012 },
    { "tiny-b", "plain", long_prompt, NULL, NULL, 1, 5, 40, 56, 1012 },
    { "tiny-c", "ddim", prompt, "blue square", "ddim", 5, 2, 40, 72, 1013 },
    { "tiny-c", "dpm", prompt, "", "dpm++", 5, 2, 40, 72, 1013 },
};

static struct weir_item resolve(const struct bench *b, const struct film *film)
{
    struct weir_item item;
    struct weir_item_wish wish = WEIR_ITEM_WISH_NONE;
    wish.width = film->width;
    wish.height = film->height;
    wish.frames = film->frames;
    wish.steps = 25;
    wish.guidance = film->guidance;
    wish.sampler = film->sampler;
    wish.seed = film->seed;
    OK(weir_item_resolve(b->facts, &wish, &item, &error));
    return item;
}

static float *embed(const struct bench *b, const struct film *film, const struct weir_item *item)
{
    return bench_embed(b, film->prompt, film->negative, item);
}

static void check_film(const char *device_name, const struct film *film)
{
    struct bench b = bench_open(device_name, film->folder);
    struct vectors v = vectors_open(film->folder);
    const struct weir_item item = resolve(&b, film);
    const size_t count = weir_item_latent_count(b.facts, &item), frame_bytes = weir_item_frame_bytes(&item);
    struct weir_denoiser *denoiser = NULL;
    struct weir_decoder *decoder = NULL;
    float *embedding = embed(&b, film, &item), *latents = malloc(count * sizeof *latents);
    uint8_t *rgb = malloc(item.frames * frame_bytes);
    const struct weir_weight wanted = vector_find(&v, "film.%s.latents", film->label),
                             pixels = vector_find(&v, "film.%s.rgb", film->label);
    char what[96];
    bool looks_back;

    OK(weir_denoiser_create(b.pipeline, &item, 1, &denoiser, &error));
    denoise(denoiser, &item, embedding, NULL, 25, latents, NULL);
    assert_int_equal(steps_of(&b, &item, &looks_back), 25);
    OK(weir_decoder_create(b.pipeline, &item, 0, &decoder, &error));
    OK(weir_decoder_run(decoder, &item, latents, 0, item.frames, rgb, &error));

    float *values = vector_read(&wanted);
    assert_int_equal(wanted.elements, count);
    assert_int_equal(pixels.bytes, item.frames * frame_bytes);
    const struct closeness c = compare(latents, values, count);
    snprintf(what, sizeof what, "device=%s film=%s/%s steps=25", device_name, film->folder, film->label);
    printf("latents %s norm=%.2e max=%.2e\n", what, c.norm, c.max);
    see_pixels(what, rgb, pixels.data, pixels.bytes);

    free(values), free(rgb), free(latents), free(embedding);
    weir_decoder_destroy(&decoder);
    weir_denoiser_destroy(&denoiser);
    vectors_close(&v);
    bench_close(&b);
}

static void every_film_on(const char *device_name)
{
    for (size_t i = 0; i < WEIR_COUNT(films); i++) check_film(device_name, &films[i]);
}

static void whole_runs_give_diffusers_pixels_on_ref(void **state)
{
    (void)state;
    every_film_on("ref");
}

static void whole_runs_give_diffusers_pixels_on_cpu(void **state)
{
    (void)state;
    every_film_on("cpu");
}

static void whole_runs_give_diffusers_pixels_on_cuda(void **state)
{
    (void)state;
    every_film_on("cuda");
}

/* A run that is stopped after any number of steps, carried to another handle and taken up there ends with the same
 * bytes; and so does one in a handle that has just done something else. */
static void a_resumed_run_ends_with_the_same_bytes(void **state)
{
    (void)state;
    static const uint32_t stops[] = { 0, 1, 7, 24, 25 };
    for (size_t f = 0; f < 2; f++) { /* DDIM and DPM-Solver++ */
        const struct film *film = &films[f];
        struct bench b = bench_open("ref", film->folder);
        const struct weir_item item = resolve(&b, film);
        const size_t count = weir_item_latent_count(b.facts, &item), bytes = count * sizeof(float);
        struct weir_item other = item;
        float *embedding = embed(&b, film, &item);
        float *whole = malloc(bytes), *half = malloc(bytes), *previous = malloc(bytes), *end = malloc(bytes);
        struct weir_denoiser *first = NULL, *second = NULL;
        OK(weir_denoiser_create(b.pipeline, &item, 1, &first, &error));
        OK(weir_denoiser_create(b.pipeline, &item, 1, &second, &error));
        denoise(first, &item, embedding, NULL, 25, whole, NULL);
        bool looks_back;
        assert_int_equal(steps_of(&b, &item, &looks_back), 25);
        assert_true(looks_back == (f == 1));
        other.seed++;
        for (size_t i = 0; i < WEIR_COUNT(stops); i++) {
            denoise(second, &other, embedding, NULL, 2, end, NULL);
            assert_memory_not_equal(end, whole, bytes);
            denoise(first, &item, embedding, NULL, stops[i], half, previous);
            const struct weir_denoiser_state at = { stops[i], half, looks_back ? previous : NULL };
            denoise(second, &item, embedding, &at, 25, end, NULL);
            assert_memory_equal(end, whole, bytes);
        }
        free(embedding), free(whole), free(half), free(previous), free(end);
        weir_denoiser_destroy(&second);
        weir_denoiser_destroy(&first);
        bench_close(&b);
    }
}

static void a_frame_has_the_same_bytes_however_it_is_decoded(void **state)
{
    (void)state;
    const struct film *film = &films[2];
    static const char *const devices[] = { "ref", "cpu", "cuda" };
    for (size_t d = 0; d < WEIR_COUNT(devices); d++) {
        if (d > 0) {
            struct weir_device *there = NULL;
            if (weir_device_open(devices[d], 1, &there, NULL) != WEIR_OK) continue; /* said by the tests above */
            weir_device_close(&there);
        }
        struct bench b = bench_open(devices[d], film->folder);
        const struct weir_item item = resolve(&b, film);
        const size_t count = weir_item_latent_count(b.facts, &item), frame = weir_item_frame_bytes(&item);
        float *latents = malloc(count * sizeof *latents);
        uint8_t *whole = malloc(item.frames * frame), *part = malloc(item.frames * frame);
        struct weir_decoder *decoder = NULL;
        for (size_t i = 0; i < count; i++) latents[i] = sinf((float)i);
        OK(weir_decoder_create(b.pipeline, &item, 5, &decoder, &error));
        OK(weir_decoder_run(decoder, &item, latents, 0, 5, whole, &error));
        weir_decoder_destroy(&decoder);
        for (uint32_t at_once = 1; at_once <= 4; at_once++) {
            OK(weir_decoder_create(b.pipeline, &item, at_once, &decoder, &error));
            OK(weir_decoder_run(decoder, &item, latents, 0, 5, part, &error));
            assert_memory_equal(part, whole, 5 * frame);
            OK(weir_decoder_run(decoder, &item, latents, 3, 2, part, &error));
            assert_memory_equal(part, whole + 3 * frame, 2 * frame);
            weir_decoder_destroy(&decoder);
        }
        free(latents), free(whole), free(part);
        bench_close(&b);
    }
}

/* Two cores or one, the film is the same; and a device opened with any number of threads says the same class. */
static void see_same_bytes_with_threads(const char *device_name)
{
    const struct film *film = &films[2];
    float *latents[3];
    uint8_t *rgb[3];
    char class[WEIR_NUMERICS_CLASS_MAX];
    size_t latent_bytes = 0, rgb_bytes = 0;
    for (int threads = 1; threads <= 3; threads++) {
        struct bench b = bench_open_threads(device_name, film->folder, threads);
        struct weir_item item = resolve(&b, film);
        struct weir_denoiser *denoiser = NULL;
        struct weir_decoder *decoder = NULL;
        item.steps = 3;
        latent_bytes = weir_item_latent_count(b.facts, &item) * sizeof(float);
        rgb_bytes = weir_item_frame_bytes(&item) * item.frames;
        float *embedding = embed(&b, film, &item), *z = latents[threads - 1] = malloc(latent_bytes);
        uint8_t *pixels = rgb[threads - 1] = malloc(rgb_bytes);
        OK(weir_denoiser_create(b.pipeline, &item, 1, &denoiser, &error));
        denoise(denoiser, &item, embedding, NULL, 3, z, NULL);
        OK(weir_decoder_create(b.pipeline, &item, 0, &decoder, &error));
        OK(weir_decoder_run(decoder, &item, z, 0, item.frames, pixels, &error));
        if (threads == 1) memcpy(class, b.device->numerics_class, sizeof class);
        assert_string_equal(b.device->numerics_class, class);
        weir_decoder_destroy(&decoder);
        weir_denoiser_destroy(&denoiser);
        free(embedding);
        bench_close(&b);
    }
    for (int i = 0; i < 3; i++) {
        assert_memory_equal(latents[i], latents[0], latent_bytes);
        assert_memory_equal(rgb[i], rgb[0], rgb_bytes);
    }
    for (int i = 0; i < 3; i++) free(latents[i]), free(rgb[i]);
}

static void threads_do_not_change_a_byte(void **state)
{
    (void)state;
    see_same_bytes_with_threads("cpu");
}

static void threads_do_not_change_a_byte_in_bf16(void **state)
{
    (void)state;
    see_same_bytes_with_threads("cpu bf16");
}

/* The smallest film a model allows runs, one frame of it too. */
static void the_smallest_film_runs(void **state)
{
    (void)state;
    for (size_t i = 0; i < WEIR_COUNT(tiny_names); i++) {
        struct bench b = bench_open("ref", tiny_names[i]);
        struct weir_item_wish wish = WEIR_ITEM_WISH_NONE;
        struct weir_item item;
        struct weir_denoiser *denoiser = NULL;
        struct weir_decoder *decoder = NULL;
        wish.width = wish.height = b.facts->size_min;
        wish.frames = wish.steps = 1;
        OK(weir_item_resolve(b.facts, &wish, &item, &error));
        float *embedding = embed(&b, &films[0], &item);
        float *latents = malloc(weir_item_latent_count(b.facts, &item) * sizeof *latents);
        uint8_t *rgb = malloc(weir_item_frame_bytes(&item));
        OK(weir_denoiser_create(b.pipeline, &item, 1, &denoiser, &error));
        denoise(denoiser, &item, embedding, NULL, 1, latents, NULL);
        OK(weir_decoder_create(b.pipeline, &item, 0, &decoder, &error));
        OK(weir_decoder_run(decoder, &item, latents, 0, 1, rgb, &error));
        weir_decoder_destroy(&decoder);
        weir_denoiser_destroy(&denoiser);
        free(embedding), free(latents), free(rgb);
        bench_close(&b);
    }
}

/* The plan is made before a weight is read, and says what is then taken. */
static void memory_is_known_before_it_is_taken(void **state)
{
    (void)state;
    struct weir_device *device = NULL;
    struct weir_model_dir *model = tiny_open("tiny-a");
    struct weir_pipeline *pipeline = NULL;
    OK(weir_device_open("ref", 1, &device, &error));
    OK(weir_pipeline_open(model, &pipeline, &error));
    struct bench b = { device, model, pipeline, weir_pipeline_facts(pipeline) };
    const struct weir_item item = resolve(&b, &films[0]);
    struct weir_denoiser *denoiser = NULL;
    struct weir_pipeline_memory before, after;
    for (int stage = 0; stage < WEIR_PIPELINE_STAGE_COUNT; stage++) {
        const enum weir_pipeline_stage s = (enum weir_pipeline_stage)stage;
        OK(weir_pipeline_plan_memory(pipeline, device, s, &item, &before, &error));
        assert_false(weir_pipeline_loaded(pipeline, s));
        assert_int_equal(weir_pipeline_weight_bytes(pipeline, s), 0);
        OK(weir_pipeline_load(pipeline, device, s, &error));
        assert_int_equal(weir_pipeline_weight_bytes(pipeline, s), before.weights);
        OK(weir_pipeline_plan_memory(pipeline, device, s, &item, &after, &error));
        assert_memory_equal(&before, &after, sizeof before);
        assert_true(before.weights > 0 && before.arena > 0 && before.host > 0);
    }
    OK(weir_denoiser_create(pipeline, &item, 1, &denoiser, &error));
    OK(weir_pipeline_plan_memory(pipeline, device, WEIR_PIPELINE_DENOISE, &item, &after, &error));
    assert_int_equal(weir_denoiser_bytes(denoiser), after.arena + after.host);
    weir_denoiser_destroy(&denoiser);
    bench_close(&b);
}

static void a_run_refuses_what_it_was_not_made_for(void **state)
{
    (void)state;
    struct bench b = bench_open("ref", "tiny-a");
    const struct weir_item item = resolve(&b, &films[0]);
    struct weir_item other = item;
    struct weir_denoiser *denoiser = NULL;
    struct weir_decoder *decoder = NULL;
    struct weir_error refusal;
    uint32_t seat;
    const size_t count = weir_item_latent_count(b.facts, &item);
    float *embedding = embed(&b, &films[0], &item), *latents = calloc(count, sizeof *latents);
    uint8_t *rgb = malloc(item.frames * weir_item_frame_bytes(&item));
    OK(weir_denoiser_create(b.pipeline, &item, 1, &denoiser, &error));

    assert_int_equal(weir_denoiser_step(denoiser, &refusal), WEIR_BAD_ARGUMENT); /* nothing was begun */
    other.frames = 4;
    assert_false(weir_denoiser_fits(denoiser, &other));
    assert_int_equal(weir_denoiser_begin(denoiser, &other, &(struct weir_denoiser_input){ .embedding = embedding },
                                         NULL, &seat, &refusal),
                     WEIR_BAD_ARGUMENT);
    other = item;
    other.guidance = 1;
    assert_int_equal(weir_denoiser_begin(denoiser, &other, &(struct weir_denoiser_input){ .embedding = embedding },
                                         NULL, &seat, &refusal),
                     WEIR_BAD_ARGUMENT);
    other.guidance = 1.5;
    other.steps = 3;
    OK(weir_denoiser_begin(denoiser, &other, &(struct weir_denoiser_input){ .embedding = embedding }, NULL, &seat,
                           &error)); /* same shape, other numbers */
    assert_int_equal(weir_denoiser_begin(denoiser, &other, &(struct weir_denoiser_input){ .embedding = embedding },
                                         NULL, &seat, &refusal),
                     WEIR_BAD_ARGUMENT);
    assert_non_null(strstr(refusal.words, "seats")); /* there was one */
    for (int i = 0; i < 3; i++) OK(weir_denoiser_step(denoiser, &error));
    assert_int_equal(weir_denoiser_step(denoiser, &refusal), WEIR_BAD_ARGUMENT); /* all are done */
    OK(weir_denoiser_leave(denoiser, seat, &error));
    assert_int_equal(weir_denoiser_step(denoiser, &refusal), WEIR_BAD_ARGUMENT); /* nobody sits */
    OK(weir_denoiser_begin(denoiser, &other, &(struct weir_denoiser_input){ .embedding = embedding },
                           &(struct weir_denoiser_state){ 3, latents, NULL }, &seat, &error));
    OK(weir_denoiser_leave(denoiser, seat, &error));
    assert_int_equal(weir_denoiser_begin(denoiser, &other, &(struct weir_denoiser_input){ .embedding = embedding },
                                         &(struct weir_denoiser_state){ 4, latents, NULL }, &seat, &refusal),
                     WEIR_BAD_ARGUMENT);
    other.sampler = WEIR_ITEM_SAMPLER_DPM_SOLVER;
    assert_int_equal(weir_denoiser_begin(denoiser, &other, &(struct weir_denoiser_input){ .embedding = embedding },
                                         &(struct weir_denoiser_state){ 2, latents, NULL }, &seat, &refusal),
                     WEIR_BAD_ARGUMENT);

    OK(weir_decoder_create(b.pipeline, &item, 2, &decoder, &error));
    assert_int_equal(weir_decoder_run(decoder, &item, latents, 0, 0, rgb, &refusal), WEIR_BAD_ARGUMENT);
    assert_int_equal(weir_decoder_run(decoder, &item, latents, 3, 1, rgb, &refusal), WEIR_BAD_ARGUMENT);
    assert_int_equal(weir_decoder_run(decoder, &item, latents, 1, 3, rgb, &refusal), WEIR_BAD_ARGUMENT);
    assert_int_equal(weir_decoder_run(decoder, &item, latents, 0, UINT32_MAX, rgb, &refusal), WEIR_BAD_ARGUMENT);
    OK(weir_decoder_run(decoder, &item, latents, 2, 1, rgb, &error));
    weir_decoder_destroy(&decoder);
    weir_denoiser_destroy(&denoiser);

    weir_pipeline_unload(b.pipeline, WEIR_PIPELINE_DECODE);
    assert_int_equal(weir_decoder_create(b.pipeline, &item, 1, &decoder, &refusal), WEIR_BAD_ARGUMENT);
    assert_non_null(strstr(refusal.words, "decode"));
    free(embedding), free(latents), free(rgb);
    bench_close(&b);
}

static void texts_have_keys_that_tell_them_apart(void **state)
{
    (void)state;
    struct bench b = bench_open("ref", "tiny-b");
    char one[WEIR_SHA256_HEX_BYTES], two[WEIR_SHA256_HEX_BYTES];
    uint32_t real, whole;
    OK(weir_pipeline_text_key(b.pipeline, "class-1", "a red circle", false, one, &error));
    OK(weir_pipeline_text_key(b.pipeline, "class-1", "A  RED circle", false, two, &error)); /* the same ids */
    assert_string_equal(one, two);
    OK(weir_pipeline_text_key(b.pipeline, "class-1", "a red square", false, two, &error));
    assert_string_not_equal(one, two);
    OK(weir_pipeline_text_key(b.pipeline, "class-2", "a red circle", false, two, &error));
    assert_string_not_equal(one, two);
    OK(weir_pipeline_text_tokens(b.pipeline, "a red circle", false, &real, &whole, &error));
    assert_int_equal(real, 5);
    assert_int_equal(whole, 5);
    OK(weir_pipeline_text_tokens(b.pipeline, long_prompt, false, &real, &whole, &error));
    assert_int_equal(real, 16);
    assert_true(whole > 16);
    bench_close(&b);
}

/* ---- wishes ---- */

static const struct weir_model_facts some_facts = { .family = "test",
                                                    .size_multiple = 8,
                                                    .latent_channels = 4,
                                                    .latent_factor = 8,
                                                    .text_tokens = 77,
                                                    .text_rows = 77,
                                                    .frames_max = WEIR_ITEM_FRAMES_MAX,
                                                    .text_channels = 10,
                                                    .train_timesteps = 500,
                                                    .width = 128,
                                                    .height = 64,
                                                    .frames = 16,
                                                    .steps = 25,
                                                    .fps = 8,
                                                    .guidance = 5,
                                                    .sampler = WEIR_ITEM_SAMPLER_DPM_SOLVER,
                                                    .samplers = 1u << WEIR_ITEM_SAMPLER_DDIM |
                                                                1u << WEIR_ITEM_SAMPLER_DPM_SOLVER };

static void blanks_are_filled_from_the_model(void **state)
{
    (void)state;
    struct weir_item item;
    struct weir_item_wish wish = WEIR_ITEM_WISH_NONE;
    OK(weir_item_resolve(&some_facts, &wish, &item, &error));
    assert_int_equal(item.width, 128);
    assert_int_equal(item.height, 64);
    assert_int_equal(item.frames, 16);
    assert_int_equal(item.steps, 25);
    assert_int_equal(item.fps, 8);
    assert_int_equal(item.sampler, WEIR_ITEM_SAMPLER_DPM_SOLVER);
    assert_int_equal(item.noise, WEIR_ITEM_NOISE_F32);
    assert_true(weir_item_guided(&some_facts, &item));
    assert_int_equal(weir_item_latent_count(&some_facts, &item), 4 * 16 * 16 * 8);
    assert_int_equal(weir_item_embedding_count(&some_facts, &item), 2 * 77 * 10);
    assert_int_equal(weir_item_frame_bytes(&item), 128 * 64 * 3);
    OK(weir_item_check(&some_facts, &item, &error));

    wish.sampler = "ddim";
    wish.noise = "f16";
    wish.guidance = 1;
    OK(weir_item_resolve(&some_facts, &wish, &item, &error));
    assert_int_equal(item.sampler, WEIR_ITEM_SAMPLER_DDIM);
    assert_int_equal(item.noise, WEIR_ITEM_NOISE_F16);
    assert_false(weir_item_guided(&some_facts, &item));
}

static void a_wish_over_a_limit_is_refused_with_flag_value_and_limit(void **state)
{
    (void)state;
    static const struct {
        size_t offset;
        int64_t good_min, good_max, bad[4];
        const char *flag;
    } limits[] = {
        { offsetof(struct weir_item_wish, width), 8, 16384, { 0, -8, 12, 16392 }, "width" },
        { offsetof(struct weir_item_wish, height), 8, 16384, { 0, INT64_MAX, 7, 20000 }, "height" },
        { offsetof(struct weir_item_wish, frames), 1, 65536, { 0, -1, 65537, INT64_MAX }, "--frames" },
        { offsetof(struct weir_item_wish, steps), 1, 500, { 0, -5, 501, INT64_MAX }, "--steps" },
        { offsetof(struct weir_item_wish, fps), 1, 240, { 0, -1, 241, INT64_MAX }, "--fps" },
    };
    struct weir_item item;
    struct weir_error refusal;
    for (size_t i = 0; i < WEIR_COUNT(limits); i++) {
        struct weir_item_wish wish = WEIR_ITEM_WISH_NONE;
        int64_t *field = (int64_t *)(void *)((char *)&wish + limits[i].offset);
        *field = limits[i].good_min;
        OK(weir_item_resolve(&some_facts, &wish, &item, &error));
        *field = limits[i].good_max;
        OK(weir_item_resolve(&some_facts, &wish, &item, &error));
        for (size_t k = 0; k < WEIR_COUNT(limits[i].bad); k++) {
            char value[32];
            *field = limits[i].bad[k];
            snprintf(value, sizeof value, "%lld", (long long)*field);
            if (weir_item_resolve(&some_facts, &wish, &item, &refusal) == WEIR_OK)
                fail_msg("%s %s was taken", limits[i].flag, value);
            assert_non_null(strstr(refusal.words, limits[i].flag));
            assert_non_null(strstr(refusal.words, value));
        }
    }
    struct weir_item_wish wish = WEIR_ITEM_WISH_NONE;
    wish.guidance = -0.5;
    assert_int_equal(weir_item_resolve(&some_facts, &wish, &item, &refusal), WEIR_BAD_ARGUMENT);
    wish.guidance = INFINITY;
    assert_int_equal(weir_item_resolve(&some_facts, &wish, &item, &refusal), WEIR_TOO_LARGE);
    wish.guidance = WEIR_ITEM_GUIDANCE_MAX;
    OK(weir_item_resolve(&some_facts, &wish, &item, &error));
    wish.sampler = "euler";
    assert_int_equal(weir_item_resolve(&some_facts, &wish, &item, &refusal), WEIR_BAD_ARGUMENT);
    assert_non_null(strstr(refusal.words, "euler"));
    assert_non_null(strstr(refusal.words, "ddim, dpm++"));
    assert_null(strstr(refusal.words, "scm"));

    struct weir_model_facts deep = some_facts;
    deep.size_min = 32;
    wish = WEIR_ITEM_WISH_NONE;
    wish.width = 32;
    OK(weir_item_resolve(&deep, &wish, &item, &error));
    wish.width = 24;
    assert_int_equal(weir_item_resolve(&deep, &wish, &item, &refusal), WEIR_BAD_ARGUMENT);
    assert_non_null(strstr(refusal.words, "32"));

    struct weir_model_facts no_sampler = some_facts;
    no_sampler.sampler = WEIR_ITEM_SAMPLER_COUNT;
    wish = WEIR_ITEM_WISH_NONE;
    assert_int_equal(weir_item_resolve(&no_sampler, &wish, &item, &refusal), WEIR_UNSUPPORTED);
    assert_non_null(strstr(refusal.words, "--sampler"));
}

/* A sampler of another family of networks would make noise of a good prompt. */
static void a_sampler_that_does_not_fit_the_networks_is_refused(void **state)
{
    (void)state;
    struct weir_item item;
    struct weir_error refusal;
    struct weir_item_wish wish = WEIR_ITEM_WISH_NONE;
    for (int i = 0; i < WEIR_ITEM_SAMPLER_COUNT; i++) {
        const bool fits = i == WEIR_ITEM_SAMPLER_DDIM || i == WEIR_ITEM_SAMPLER_DPM_SOLVER;
        wish.sampler = weir_item_sampler_name((enum weir_item_sampler)i);
        const enum weir_status status = weir_item_resolve(&some_facts, &wish, &item, &refusal);
        assert_int_equal(status, fits ? WEIR_OK : WEIR_UNSUPPORTED);
        if (fits) continue;
        assert_non_null(strstr(refusal.words, wish.sampler));
        wish.sampler = NULL;
        OK(weir_item_resolve(&some_facts, &wish, &item, &error));
        item.sampler = (enum weir_item_sampler)i; /* as a lease may say */
        assert_int_equal(weir_item_check(&some_facts, &item, &refusal), WEIR_UNSUPPORTED);
        assert_non_null(strstr(refusal.words, "ddim, dpm++"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_runs_give_diffusers_pixels_on_ref),
        cmocka_unit_test(whole_runs_give_diffusers_pixels_on_cpu),
        cmocka_unit_test(whole_runs_give_diffusers_pixels_on_cuda),
        cmocka_unit_test(a_resumed_run_ends_with_the_same_bytes),
        cmocka_unit_test(a_frame_has_the_same_bytes_however_it_is_decoded),
        cmocka_unit_test(threads_do_not_change_a_byte),
        cmocka_unit_test(threads_do_not_change_a_byte_in_bf16),
        cmocka_unit_test(the_smallest_film_runs),
        cmocka_unit_test(memory_is_known_before_it_is_taken),
        cmocka_unit_test(a_run_refuses_what_it_was_not_made_for),
        cmocka_unit_test(texts_have_keys_that_tell_them_apart),
        cmocka_unit_test(blanks_are_filled_from_the_model),
        cmocka_unit_test(a_wish_over_a_limit_is_refused_with_flag_value_and_limit),
        cmocka_unit_test(a_sampler_that_does_not_fit_the_networks_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
