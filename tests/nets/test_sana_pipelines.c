/* Whole runs of the Sana families give the pixels that diffusers gives, from a prompt to an 8-bit picture, at sizes
 * that are resized from a bin and at sizes that are not; and the same bytes however they are cut up. The vectors and
 * the folders are made by tests/golden/make_tiny_sana_pipelines.py. */
#include "tests/nets/bench.h"

/* What make_tiny_sana_pipelines.py asked for. */
static const char prompt[] = "A red Circle left of a blue star";
static char long_prompt[1200]; /* filled by main */
static const struct picture {
    const char *folder, *label, *prompt, *negative, *sampler;
    double guidance;
    int64_t width, height;
    uint32_t steps, real; /* tokens of the prompt that the networks see */
    uint64_t seed;
} pictures[] = {
    { "tiny-sana-a", "dpm", prompt, "blue square", NULL, 4.5, 72, 56, 8, 15, 41 },
    { "tiny-sana-a", "euler", prompt, "", "flow-euler", 2, 72, 56, 6, 15, 41 },
    { "tiny-sana-a", "plain", long_prompt, NULL, NULL, 1, 72, 56, 20, 300, 41 },
    { "tiny-sana-b", "one", prompt, NULL, NULL, 4.5, 32, 64, 1, 15, 42 },
    { "tiny-sana-b", "two", prompt, NULL, NULL, 4.5, 32, 64, 2, 15, 42 },
    { "tiny-sana-b", "four", long_prompt, NULL, NULL, 1, 32, 64, 4, 300, 42 },
};

static struct weir_item resolve(const struct bench *b, const struct picture *picture)
{
    struct weir_item item;
    struct weir_item_wish wish = WEIR_ITEM_WISH_NONE;
    wish.width = picture->width;
    wish.height = picture->height;
    wish.steps = picture->steps;
    wish.guidance = picture->guidance;
    wish.sampler = picture->sampler;
    wish.seed = picture->seed;
    OK(weir_item_resolve(b->facts, &wish, &item, &error));
    return item;
}

/* Latents and picture of a whole run; free() both. */
struct outcome {
    float *latents;
    uint8_t *rgb;
    size_t latent_count, rgb_bytes;
};

static struct outcome make(const struct bench *b, const struct picture *picture, const struct weir_item *item)
{
    struct weir_denoiser *denoiser = NULL;
    struct weir_decoder *decoder = NULL;
    struct outcome o = { .latent_count = weir_item_latent_count(b->facts, item),
                         .rgb_bytes = weir_item_frame_bytes(item) };
    float *embedding = bench_embed(b, picture->prompt, picture->negative, item);
    const float *counted = embedding + weir_item_embedding_count(b->facts, item) - b->facts->text_channels;
    assert_int_equal((uint32_t)counted[0], picture->real);
    bool looks_back;
    o.latents = malloc(o.latent_count * sizeof *o.latents);
    o.rgb = malloc(o.rgb_bytes);
    OK(weir_denoiser_create(b->pipeline, item, 1, &denoiser, &error));
    denoise(denoiser, item, embedding, NULL, picture->steps, o.latents, NULL);
    assert_int_equal(steps_of(b, item, &looks_back), picture->steps);
    OK(weir_decoder_create(b->pipeline, item, 0, &decoder, &error));
    OK(weir_decoder_run(decoder, item, o.latents, 0, 1, o.rgb, &error));
    weir_decoder_destroy(&decoder);
    weir_denoiser_destroy(&denoiser);
    free(embedding);
    return o;
}

static void outcome_free(struct outcome *o)
{
    free(o->latents), free(o->rgb);
}

static void check_picture(const char *device_name, const struct picture *picture)
{
    struct bench b = bench_open(device_name, picture->folder);
    const struct weir_item item = resolve(&b, picture);
    char vectors[64], what[96];
    snprintf(vectors, sizeof vectors, "%s-pictures", picture->folder);
    struct vectors v = vectors_open(vectors);
    struct outcome o = make(&b, picture, &item);
    const struct weir_weight wanted = vector_find(&v, "%s.latents", picture->label),
                             pixels = vector_find(&v, "%s.rgb", picture->label);
    const struct weir_weight tokens = vector_find(&v, "%s.tokens", picture->label);
    float *values = vector_read(&wanted), *real = vector_read(&tokens);
    assert_true(real[0] == (float)picture->real);
    snprintf(what, sizeof what, "device=%s picture=%s/%s steps=%u", device_name, picture->folder, picture->label,
             picture->steps);
    assert_true(wanted.elements <= o.latent_count); /* the vectors have the first of them */
    assert_int_equal(pixels.bytes, o.rgb_bytes);
    const struct closeness c = compare(o.latents, values, wanted.elements);
    printf("latents %s norm=%.2e max=%.2e\n", what, c.norm, c.max);
    see_pixels(what, o.rgb, pixels.data, pixels.bytes);
    free(values), free(real);
    outcome_free(&o);
    vectors_close(&v);
    bench_close(&b);
}

static void every_picture_on(const char *device_name)
{
    for (size_t i = 0; i < WEIR_COUNT(pictures); i++) check_picture(device_name, &pictures[i]);
}

static void whole_runs_give_diffusers_pixels_on_ref(void **state)
{
    (void)state;
    every_picture_on("ref");
}

static void whole_runs_give_diffusers_pixels_on_cpu(void **state)
{
    (void)state;
    every_picture_on("cpu");
}

static void whole_runs_give_diffusers_pixels_on_cuda(void **state)
{
    (void)state;
    every_picture_on("cuda");
}

/* Stopped after any step, carried to another handle and taken up there; the noise of scm is drawn again. */
static void a_resumed_run_ends_with_the_same_bytes(void **state)
{
    (void)state;
    static const size_t which[] = { 0, 1, 5 }; /* flow-dpm++, flow-euler, scm */
    for (size_t w = 0; w < WEIR_COUNT(which); w++) {
        const struct picture *picture = &pictures[which[w]];
        struct bench b = bench_open("cpu", picture->folder);
        const struct weir_item item = resolve(&b, picture);
        const size_t bytes = weir_item_latent_count(b.facts, &item) * sizeof(float);
        float *embedding = bench_embed(&b, picture->prompt, picture->negative, &item);
        float *whole = malloc(bytes), *half = malloc(bytes), *previous = malloc(bytes), *end = malloc(bytes);
        struct weir_item other = item;
        struct weir_denoiser *first = NULL, *second = NULL;
        OK(weir_denoiser_create(b.pipeline, &item, 1, &first, &error));
        OK(weir_denoiser_create(b.pipeline, &item, 1, &second, &error));
        denoise(first, &item, embedding, NULL, picture->steps, whole, NULL);
        bool looks_back;
        steps_of(&b, &item, &looks_back);
        assert_true(looks_back == (w == 0));
        other.seed++;
        for (uint32_t stop = 0; stop <= picture->steps; stop++) {
            denoise(second, &other, embedding, NULL, 1, end, NULL);
            assert_memory_not_equal(end, whole, bytes);
            denoise(first, &item, embedding, NULL, stop, half, previous);
            const struct weir_denoiser_state at = { stop, half, looks_back ? previous : NULL };
            denoise(second, &item, embedding, &at, picture->steps, end, NULL);
            assert_memory_equal(end, whole, bytes);
        }
        free(embedding), free(whole), free(half), free(previous), free(end);
        weir_denoiser_destroy(&second);
        weir_denoiser_destroy(&first);
        bench_close(&b);
    }
}

static void see_same_bytes_with_threads(const char *device_name)
{
    static const size_t which[] = { 0, 4 };
    for (size_t w = 0; w < WEIR_COUNT(which); w++) {
        const struct picture *picture = &pictures[which[w]];
        struct outcome outcomes[3];
        for (int threads = 1; threads <= 3; threads++) {
            struct bench b = bench_open_threads(device_name, picture->folder, threads);
            const struct weir_item item = resolve(&b, picture);
            outcomes[threads - 1] = make(&b, picture, &item);
            bench_close(&b);
        }
        for (int i = 0; i < 3; i++) {
            assert_memory_equal(outcomes[i].latents, outcomes[0].latents, outcomes[0].latent_count * sizeof(float));
            assert_memory_equal(outcomes[i].rgb, outcomes[0].rgb, outcomes[0].rgb_bytes);
        }
        for (int i = 0; i < 3; i++) outcome_free(&outcomes[i]);
    }
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

/* A short text after a long one, and one of another length between, is the text alone: the handle keeps a program for
 * the length seen last. What lies behind the real rows is zero. */
static void an_embedding_does_not_depend_on_texts_before_it(void **state)
{
    (void)state;
    struct bench b = bench_open("cpu", "tiny-sana-a");
    const size_t channels = b.facts->text_channels, count = b.facts->text_rows * channels;
    assert_int_equal(b.facts->text_rows, 301);
    float *alone = malloc(count * sizeof *alone), *after = malloc(count * sizeof *after);
    struct weir_text *text = NULL;
    OK(weir_text_create(b.pipeline, &text, &error));
    const uint64_t planned = weir_text_bytes(text);
    OK(weir_text_run(text, prompt, false, alone, &error));
    static const char *const between[] = { long_prompt, "", prompt, "a longer text than the others are, but for one" };
    for (size_t i = 0; i < WEIR_COUNT(between); i++) {
        OK(weir_text_run(text, between[i], i % 2, after, &error));
        OK(weir_text_run(text, prompt, false, after, &error));
        assert_memory_equal(after, alone, count * sizeof *alone);
    }
    assert_int_equal(weir_text_bytes(text), planned);
    assert_true(alone[300 * channels] == 15);
    for (size_t i = 15 * channels; i < 300 * channels; i++) assert_true(alone[i] == 0);
    for (size_t i = 300 * channels + 1; i < count; i++) assert_true(alone[i] == 0);
    /* Without the instruction before it, the same words are something else. */
    OK(weir_text_run(text, prompt, true, after, &error));
    assert_true(after[300 * channels] == 15);
    assert_memory_not_equal(after, alone, 15 * channels * sizeof *alone);
    weir_text_destroy(&text);
    free(alone), free(after);
    bench_close(&b);
}

/* An embedding comes from another machine. */
static void an_embedding_that_counts_no_tokens_is_refused(void **state)
{
    (void)state;
    struct bench b = bench_open("ref", "tiny-sana-b");
    const struct weir_item item = resolve(&b, &pictures[4]);
    const size_t count = weir_item_embedding_count(b.facts, &item);
    assert_int_equal(count, 301 * 20); /* one row: Sprint is told its guidance */
    static const float bad[] = { 0, -1, 301, 1.5f, NAN, INFINITY };
    float *embedding = calloc(count, sizeof *embedding);
    struct weir_denoiser *denoiser = NULL;
    uint32_t seat;
    OK(weir_denoiser_create(b.pipeline, &item, 1, &denoiser, &error));
    for (size_t i = 0; i < WEIR_COUNT(bad); i++) {
        struct weir_error refusal;
        embedding[300 * 20] = bad[i];
        assert_int_equal(weir_denoiser_begin(denoiser, &item, &(struct weir_denoiser_input){ .embedding = embedding },
                                             NULL, &seat, &refusal),
                         WEIR_BAD_FILE);
        assert_non_null(strstr(refusal.words, "300"));
    }
    embedding[300 * 20] = 300;
    OK(weir_denoiser_begin(denoiser, &item, &(struct weir_denoiser_input){ .embedding = embedding }, NULL, &seat,
                           &error));
    weir_denoiser_destroy(&denoiser);
    free(embedding);
    bench_close(&b);
}

/* The f32 picture of the size asked for is what the 8-bit one is rounded from, resized or not. */
static void the_picture_before_it_is_rounded_is_the_same_picture(void **state)
{
    (void)state;
    static const size_t which[] = { 0, 4 };
    for (size_t w = 0; w < WEIR_COUNT(which); w++) {
        const struct picture *picture = &pictures[which[w]];
        struct bench b = bench_open("cpu", picture->folder);
        const struct weir_item item = resolve(&b, picture);
        const struct weir_sana_size made = weir_item_made(b.facts, &item);
        assert_int_equal(made.width, w ? 32 : 576);
        assert_int_equal(made.height, w ? 64 : 448);
        struct outcome o = make(&b, picture, &item);
        struct weir_decoder *decoder = NULL;
        float *values = malloc(o.rgb_bytes * sizeof *values);
        OK(weir_decoder_create(b.pipeline, &item, 0, &decoder, &error));
        OK(weir_decoder_run_f32(decoder, &item, o.latents, 0, 1, values, &error));
        for (size_t i = 0; i < o.rgb_bytes; i++) {
            const float v = values[i] * 0.5f + 0.5f;
            assert_int_equal(o.rgb[i], lrintf((v < 0 ? 0 : v > 1 ? 1 : v) * 255.0f));
        }
        weir_decoder_destroy(&decoder);
        free(values);
        outcome_free(&o);
        bench_close(&b);
    }
}

/* The plan is made before a weight is read, and says what is then taken. */
static void see_memory_known(const char *device_name)
{
    for (size_t i = 0; i < WEIR_COUNT(pictures); i += 3) {
        struct weir_device *device = NULL;
        struct weir_model_dir *model = tiny_open(pictures[i].folder);
        struct weir_pipeline *pipeline = NULL;
        struct weir_error fault;
        const enum weir_status status = device_open_as(device_name, 1, &device, &fault);
        if (status == WEIR_UNSUPPORTED) weir_model_dir_close(&model), skip();
        if (status != WEIR_OK) fail_msg("%s: %s", device_name, fault.words);
        OK(weir_pipeline_open(model, &pipeline, &error));
        struct bench b = { device, model, pipeline, weir_pipeline_facts(pipeline) };
        const struct weir_item item = resolve(&b, &pictures[i]);
        for (int stage = 0; stage < WEIR_PIPELINE_STAGE_COUNT; stage++) {
            const enum weir_pipeline_stage s = (enum weir_pipeline_stage)stage;
            struct weir_pipeline_memory before, after;
            OK(weir_pipeline_plan_memory(pipeline, device, s, &item, &before, &error));
            OK(weir_pipeline_load(pipeline, device, s, &error));
            assert_int_equal(weir_pipeline_weight_bytes(pipeline, s), before.weights);
            OK(weir_pipeline_plan_memory(pipeline, device, s, &item, &after, &error));
            assert_memory_equal(&after, &before, sizeof after);
        }
        bench_close(&b);
    }
}

static void memory_is_known_before_it_is_taken(void **state)
{
    (void)state;
    see_memory_known("cpu");
}

static void memory_is_known_before_it_is_taken_in_bf16(void **state)
{
    (void)state;
    see_memory_known("cpu bf16");
}

/* The smallest picture of either family, and a strip that no bin comes near. */
static void the_smallest_picture_runs_and_so_does_a_strip(void **state)
{
    (void)state;
    static const struct picture small[] = {
        { "tiny-sana-a", "", "", "", NULL, 2, 32, 32, 1, 2, 1 },
        { "tiny-sana-a", "", "", "", "flow-euler", 1, 32, 2000, 1, 2, 1 },
        { "tiny-sana-b", "", "", NULL, NULL, 0, 4, 4, 1, 1, 1 },
    };
    for (size_t i = 0; i < WEIR_COUNT(small); i++) {
        struct bench b = bench_open("cpu", small[i].folder);
        const struct weir_item item = resolve(&b, &small[i]);
        struct outcome o = make(&b, &small[i], &item);
        assert_int_equal(o.rgb_bytes, 3 * small[i].width * small[i].height);
        outcome_free(&o);
        bench_close(&b);
    }
}

static void what_a_model_of_pictures_does_not_do_is_refused(void **state)
{
    (void)state;
    struct weir_model_dir *sana = tiny_open("tiny-sana-a"), *sprint = tiny_open("tiny-sana-b");
    struct weir_pipeline *a = NULL, *b = NULL;
    struct weir_item item;
    struct weir_error refusal;
    OK(weir_pipeline_open(sana, &a, &error));
    OK(weir_pipeline_open(sprint, &b, &error));
    const struct weir_model_facts *of_sana = weir_pipeline_facts(a), *of_sprint = weir_pipeline_facts(b);
    assert_string_equal(of_sana->family, "sana");
    assert_string_equal(of_sprint->family, "sana-sprint");
    assert_int_equal(of_sana->bins, 16);
    assert_int_equal(of_sprint->bins, 0);

    struct weir_item_wish wish = WEIR_ITEM_WISH_NONE;
    OK(weir_item_resolve(of_sana, &wish, &item, &error));
    assert_int_equal(item.width, 72); /* weir.json */
    assert_int_equal(item.steps, 8);
    assert_int_equal(item.frames, 1);
    assert_int_equal(item.sampler, WEIR_ITEM_SAMPLER_FLOW_DPM_SOLVER);
    assert_true(item.guidance == 4.5 && weir_item_guided(of_sana, &item));
    OK(weir_item_resolve(of_sprint, &wish, &item, &error));
    assert_int_equal(item.width, 24); /* sample_size 6, four times as large */
    assert_int_equal(item.steps, 2);
    assert_int_equal(item.sampler, WEIR_ITEM_SAMPLER_SCM);
    assert_true(item.guidance == 4.5 && !weir_item_guided(of_sprint, &item));

    wish.frames = 2;
    assert_int_equal(weir_item_resolve(of_sana, &wish, &item, &refusal), WEIR_BAD_ARGUMENT);
    assert_non_null(strstr(refusal.words, "--frames is 2"));
    assert_non_null(strstr(refusal.words, "pictures"));
    wish.frames = 1;
    wish.width = 73; /* any size is resized to */
    OK(weir_item_resolve(of_sana, &wish, &item, &error));
    assert_int_equal(weir_item_resolve(of_sprint, &wish, &item, &refusal), WEIR_BAD_ARGUMENT);
    assert_non_null(strstr(refusal.words, "multiple of 4"));
    wish.width = WEIR_ITEM_UNSET;
    wish.sampler = "ddim";
    assert_int_equal(weir_item_resolve(of_sana, &wish, &item, &refusal), WEIR_UNSUPPORTED);
    assert_non_null(strstr(refusal.words, "flow-dpm++, flow-euler"));
    wish.sampler = "flow-euler";
    assert_int_equal(weir_item_resolve(of_sprint, &wish, &item, &refusal), WEIR_UNSUPPORTED);
    assert_non_null(strstr(refusal.words, "takes: scm"));
    weir_pipeline_close(&b);
    weir_pipeline_close(&a);
    weir_model_dir_close(&sprint);
    weir_model_dir_close(&sana);
}

int main(void)
{
    for (int i = 0; i < 40; i++) strcat(long_prompt, "the star above the square ");
    strcat(long_prompt, "STAR");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_runs_give_diffusers_pixels_on_ref),
        cmocka_unit_test(whole_runs_give_diffusers_pixels_on_cpu),
        cmocka_unit_test(whole_runs_give_diffusers_pixels_on_cuda),
        cmocka_unit_test(a_resumed_run_ends_with_the_same_bytes),
        cmocka_unit_test(threads_do_not_change_a_byte),
        cmocka_unit_test(threads_do_not_change_a_byte_in_bf16),
        cmocka_unit_test(an_embedding_does_not_depend_on_texts_before_it),
        cmocka_unit_test(an_embedding_that_counts_no_tokens_is_refused),
        cmocka_unit_test(the_picture_before_it_is_rounded_is_the_same_picture),
        cmocka_unit_test(memory_is_known_before_it_is_taken),
        cmocka_unit_test(memory_is_known_before_it_is_taken_in_bf16),
        cmocka_unit_test(the_smallest_picture_runs_and_so_does_a_strip),
        cmocka_unit_test(what_a_model_of_pictures_does_not_do_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
