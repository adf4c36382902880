/* Whole runs that look at a picture (SanaControlNetPipeline) or begin at one (SanaSprintImg2ImgPipeline) give the
 * pixels that diffusers gives; and the same bytes wherever they are cut. The vectors and folders are made by
 * tests/golden/make_tiny_sana_control.py and make_tiny_sana_start.py. */
#include "tests/nets/bench.h"
#include "tests/nets/lora_file.h"

#include "worker/rgb/rgb.h"

static const char prompt[] = "A red Circle left of a blue star";
static const struct run {
    const char *folder, *vectors, *label, *negative, *sampler;
    double guidance, scale, strength; /* a NaN: the default */
    uint32_t steps, taken;
    uint64_t seed;
} runs[] = {
    { "tiny-sana-control", "tiny-sana-control-pictures", "dpm", "blue square", NULL, 4.5, NAN, NAN, 8, 8, 61 },
    { "tiny-sana-control", "tiny-sana-control-pictures", "euler", "", "flow-euler", 2, 0.6, NAN, 6, 6, 61 },
    { "tiny-sana-control", "tiny-sana-control-pictures", "plain", NULL, NULL, 1, 1, NAN, 4, 4, 61 },
    { "tiny-sana-b", "tiny-sana-b-starts", "both", NULL, NULL, 4.5, NAN, NAN, 2, 2, 43 },
    { "tiny-sana-b", "tiny-sana-b-starts", "second", NULL, NULL, 4.5, NAN, 0.5, 2, 1, 43 },
    { "tiny-sana-b", "tiny-sana-b-starts", "little", NULL, NULL, 4.5, NAN, 0.1, 2, 1, 43 },
    { "tiny-sana-b", "tiny-sana-b-starts", "three", NULL, NULL, 4.5, NAN, 0.6, 4, 3, 43 },
    { "tiny-sana-b", "tiny-sana-b-starts", "whole", NULL, NULL, 4.5, NAN, 1.0, 1, 1, 43 },
};
enum { CONTROLLED = 0, STARTED = 6 }; /* one of either, of several steps */

static const uint8_t digest[WEIR_SHA256_BYTES] = { 1, 2, 3 }; /* of no file: nothing here reads one */

static bool looks(const struct run *run)
{
    return strcmp(run->folder, "tiny-sana-control") == 0;
}

static struct weir_item resolve(const struct bench *b, const struct run *run)
{
    struct weir_item item;
    struct weir_item_wish wish = WEIR_ITEM_WISH_NONE;
    wish.width = looks(run) ? 72 : 32;
    wish.height = looks(run) ? 56 : 64;
    wish.steps = run->steps;
    wish.guidance = run->guidance;
    wish.sampler = run->sampler;
    wish.seed = run->seed;
    *(looks(run) ? &wish.control : &wish.start) = digest;
    wish.control_scale = run->scale;
    wish.strength = run->strength;
    OK(weir_item_resolve(b->facts, &wish, &item, &error));
    return item;
}

static float *encode(const struct bench *b, const struct vectors *v, const struct run *run,
                     const struct weir_item *item)
{
    const struct weir_weight w = vector_find(v, looks(run) ? "control" : "image");
    float *latents = malloc(weir_item_latent_count(b->facts, item) * sizeof *latents);
    uint8_t *pixels = malloc(w.bytes);
    struct weir_encoder *encoder = NULL;
    memcpy(pixels, w.data, w.bytes);
    struct weir_rgb picture = { (uint32_t)w.shape[1], (uint32_t)w.shape[0], pixels };
    OK(weir_pipeline_load(b->pipeline, b->device, WEIR_PIPELINE_ENCODE, &error));
    OK(weir_encoder_create(b->pipeline, item, &encoder, &error));
    OK(weir_encoder_run(encoder, &picture, latents, &error));
    weir_encoder_destroy(&encoder);
    weir_rgb_deinit(&picture);
    return latents;
}

static struct weir_denoiser_input input_of(const struct run *run, const float *embedding, const float *picture)
{
    return (struct weir_denoiser_input){ .embedding = embedding,
                                         .control = looks(run) ? picture : NULL,
                                         .start = looks(run) ? NULL : picture };
}

static void check_run(const char *device_name, const struct run *run)
{
    struct bench b = bench_open(device_name, run->folder);
    const struct weir_item item = resolve(&b, run);
    struct vectors v = vectors_open(run->vectors);
    const struct weir_weight wanted = vector_find(&v, "%s.latents", run->label),
                             pixels = vector_find(&v, "%s.rgb", run->label);
    const size_t count = weir_item_latent_count(b.facts, &item), rgb_bytes = weir_item_frame_bytes(&item);
    float *picture = encode(&b, &v, run, &item), *embedding = bench_embed(&b, prompt, run->negative, &item);
    float *latents = malloc(count * sizeof *latents), *values = vector_read(&wanted);
    uint8_t *rgb = malloc(rgb_bytes);
    const struct weir_denoiser_input input = input_of(run, embedding, picture);
    struct weir_denoiser *denoiser = NULL;
    struct weir_decoder *decoder = NULL;
    uint32_t steps;
    bool looks_back;
    char what[96];
    OK(weir_denoiser_create(b.pipeline, &item, 1, &denoiser, &error));
    denoise_from(denoiser, &item, &input, NULL, run->taken, latents, NULL);
    OK(weir_pipeline_walk(b.pipeline, &item, &steps, &looks_back, &error));
    assert_int_equal(steps, run->taken);
    OK(weir_decoder_create(b.pipeline, &item, 0, &decoder, &error));
    OK(weir_decoder_run(decoder, &item, latents, 0, 1, rgb, &error));

    snprintf(what, sizeof what, "device=%s picture=%s/%s steps=%u", device_name, run->folder, run->label, run->taken);
    assert_true(wanted.elements <= count); /* the vectors have the first of them */
    assert_int_equal(pixels.bytes, rgb_bytes);
    const struct closeness c = compare(latents, values, wanted.elements);
    printf("latents %s norm=%.2e max=%.2e\n", what, c.norm, c.max);
    see_pixels(what, rgb, pixels.data, pixels.bytes);

    weir_decoder_destroy(&decoder);
    weir_denoiser_destroy(&denoiser);
    free(picture), free(embedding), free(latents), free(values), free(rgb);
    vectors_close(&v);
    bench_close(&b);
}

static void whole_runs_give_diffusers_pixels_on_ref(void **state)
{
    (void)state;
    for (size_t i = 0; i < WEIR_COUNT(runs); i++) check_run("ref", &runs[i]);
}

static void whole_runs_give_diffusers_pixels_on_cuda(void **state)
{
    (void)state;
    for (size_t i = 0; i < WEIR_COUNT(runs); i++) check_run("cuda", &runs[i]);
}

static void whole_runs_give_diffusers_pixels_on_cpu(void **state)
{
    (void)state;
    for (size_t i = 0; i < WEIR_COUNT(runs); i++) check_run("cpu", &runs[i]);
}

/* The handle has run another item before; of an item that begins at a picture, a state needs that no more. */
static void a_resumed_run_ends_with_the_same_bytes(void **state)
{
    (void)state;
    static const size_t which[] = { CONTROLLED, STARTED };
    for (size_t w = 0; w < WEIR_COUNT(which); w++) {
        const struct run *run = &runs[which[w]];
        struct bench b = bench_open("cpu", run->folder);
        struct vectors v = vectors_open(run->vectors);
        const struct weir_item item = resolve(&b, run);
        const size_t bytes = weir_item_latent_count(b.facts, &item) * sizeof(float);
        float *picture = encode(&b, &v, run, &item), *again = encode(&b, &v, run, &item);
        float *embedding = bench_embed(&b, prompt, run->negative, &item);
        float *whole = malloc(bytes), *half = malloc(bytes), *previous = malloc(bytes), *end = malloc(bytes);
        const struct weir_denoiser_input input = input_of(run, embedding, picture);
        struct weir_denoiser_input later = input;
        struct weir_item other = item;
        struct weir_denoiser *first = NULL, *second = NULL;
        assert_memory_equal(picture, again, bytes);
        later.start = NULL;
        *(looks(run) ? &other.control_scale : &other.strength) = 0.3;
        OK(weir_denoiser_create(b.pipeline, &item, 1, &first, &error));
        OK(weir_denoiser_create(b.pipeline, &item, 1, &second, &error));
        bool looks_back;
        assert_int_equal(steps_of(&b, &item, &looks_back), run->taken);
        denoise_from(first, &item, &input, NULL, run->taken, whole, NULL);
        for (uint32_t stop = 0; stop <= run->taken; stop++) {
            denoise_from(second, &other, &input, NULL, 1, end, NULL);
            denoise_from(first, &item, &input, NULL, stop, half, previous);
            const struct weir_denoiser_state at = { stop, half, looks_back ? previous : NULL };
            denoise_from(second, &item, &later, &at, run->taken, end, NULL);
            assert_memory_equal(end, whole, bytes);
        }
        denoise_from(second, &other, &input, NULL, looks(run) ? run->taken : 2, end, NULL);
        assert_memory_not_equal(end, whole, bytes); /* the number counts */
        weir_denoiser_destroy(&second);
        weir_denoiser_destroy(&first);
        free(picture), free(again), free(embedding), free(whole), free(half), free(previous), free(end);
        vectors_close(&v);
        bench_close(&b);
    }
}

/* An adapter of linears that a ControlNet has by the same names. */
static struct weir_lora *adapter(const struct bench *b, const struct run *run)
{
    static struct file f;
    struct weir_lora *lora = NULL;
    const uint32_t width = looks(run) ? 10 : 20, channels = looks(run) ? 4 : 5, inner = looks(run) ? 12 : 20;
    char in[16], out[16], pixel[16], cross[16];
    snprintf(in, sizeof in, "2,%u", width);
    snprintf(out, sizeof out, "%u,2", width);
    snprintf(pixel, sizeof pixel, "2,%u", channels);
    snprintf(cross, sizeof cross, "2,%u", inner);
    file_begin(&f, NULL);
    file_add(&f, "transformer.patch_embed.proj.lora_A.weight", pixel, 2 * channels, 0.1f, true);
    file_add(&f, "transformer.patch_embed.proj.lora_B.weight", out, 2 * width, -0.3f, true);
    file_add(&f, "transformer.transformer_blocks.0.attn1.to_out.0.lora_A.weight", in, 2 * width, 0.2f, true);
    file_add(&f, "transformer.transformer_blocks.0.attn1.to_out.0.lora_B.weight", out, 2 * width, -0.2f, true);
    file_add(&f, "transformer.transformer_blocks.1.attn2.to_out.0.lora_B.weight", out, 2 * width, 0.1f, false);
    file_add(&f, "transformer.transformer_blocks.1.attn2.to_out.0.lora_A.weight", cross, 2 * inner, 0.1f, true);
    file_end(&f);
    OK(weir_pipeline_lora(b->pipeline, f.bytes, f.count, "made here", &lora, &error));
    return lora;
}

/* Beside a picture, adapters do what they do alone: with weight 0 nothing, else something, the same after a resume. */
static void see_adapters(const char *device)
{
    static const size_t which[] = { CONTROLLED, STARTED };
    for (size_t w = 0; w < WEIR_COUNT(which); w++) {
        const struct run *run = &runs[which[w]];
        struct bench b = bench_open(device, run->folder);
        struct vectors v = vectors_open(run->vectors);
        struct weir_item item = resolve(&b, run), plain = item;
        const size_t bytes = weir_item_latent_count(b.facts, &item) * sizeof(float);
        float *picture = encode(&b, &v, run, &item), *embedding = bench_embed(&b, prompt, run->negative, &item);
        float *none = malloc(bytes), *whole = malloc(bytes), *half = malloc(bytes), *previous = malloc(bytes),
              *end = malloc(bytes);
        struct weir_denoiser_input input = input_of(run, embedding, picture);
        struct weir_denoiser *denoiser = NULL;
        struct weir_lora *lora = adapter(&b, run);
        struct weir_factors *nothing = factors_of(&b, &(struct weir_lora_use){ lora, 0 }, 1);
        struct weir_factors *factors = factors_of(&b, &(struct weir_lora_use){ lora, 1 }, 1);
        bool looks_back;
        assert_int_equal(steps_of(&b, &item, &looks_back), run->taken);
        item.lora_count = 1;
        OK(weir_denoiser_create(b.pipeline, &item, 1, &denoiser, &error));
        denoise_from(denoiser, &plain, &input, NULL, run->taken, none, NULL);
        input.factors = nothing;
        denoise_from(denoiser, &item, &input, NULL, run->taken, end, NULL);
        assert_memory_equal(end, none, bytes);
        input.factors = factors;
        denoise_from(denoiser, &item, &input, NULL, run->taken, whole, NULL);
        assert_memory_not_equal(whole, none, bytes);
        denoise_from(denoiser, &item, &input, NULL, 2, half, previous);
        const struct weir_denoiser_state at = { 2, half, looks_back ? previous : NULL };
        input.start = NULL;
        denoise_from(denoiser, &item, &input, &at, run->taken, end, NULL);
        assert_memory_equal(end, whole, bytes);
        weir_denoiser_destroy(&denoiser);
        weir_factors_destroy(&nothing);
        weir_factors_destroy(&factors);
        weir_lora_destroy(&lora);
        free(picture), free(embedding), free(none), free(whole), free(half), free(previous), free(end);
        vectors_close(&v);
        bench_close(&b);
    }
}

static void adapters_work_beside_a_picture_on_cuda(void **state)
{
    (void)state;
    see_adapters("cuda");
}

static void adapters_work_beside_a_picture_on_ref(void **state)
{
    (void)state;
    see_adapters("ref");
}

static void adapters_work_beside_a_picture_on_cpu(void **state)
{
    (void)state;
    see_adapters("cpu");
}

/* Beside others that look at other pictures, or begin at them, with other weights: a control scale is a row's own. */
static void mates_with_other_pictures_change_nothing(void **state)
{
    (void)state;
    static const size_t which[] = { CONTROLLED, STARTED };
    for (size_t w = 0; w < WEIR_COUNT(which); w++) {
        const struct run *run = &runs[which[w]];
        struct bench b = bench_open("cpu", run->folder);
        struct vectors v = vectors_open(run->vectors);
        const struct weir_item item = resolve(&b, run);
        const size_t count = weir_item_latent_count(b.facts, &item), bytes = count * sizeof(float);
        float *picture = encode(&b, &v, run, &item), *inverse = malloc(bytes);
        float *embedding = bench_embed(&b, prompt, run->negative, &item), *whole = malloc(bytes), *end = malloc(bytes);
        const struct weir_denoiser_input input = input_of(run, embedding, picture),
                                         another = input_of(run, embedding, inverse);
        struct weir_item other = item;
        struct weir_denoiser *alone = NULL, *among = NULL;
        uint32_t seats[3];
        for (size_t i = 0; i < count; i++) inverse[i] = -picture[i];
        other.seed++;
        if (looks(run)) other.control_scale = 0.3;
        OK(weir_denoiser_create(b.pipeline, &item, 1, &alone, &error));
        denoise_from(alone, &item, &input, NULL, run->taken, whole, NULL);
        OK(weir_denoiser_create(b.pipeline, &item, 3, &among, &error));
        OK(weir_denoiser_begin(among, &other, &another, NULL, &seats[0], &error));
        OK(weir_denoiser_step(among, &error));
        OK(weir_denoiser_begin(among, &other, &another, NULL, &seats[1], &error));
        OK(weir_denoiser_begin(among, &item, &input, NULL, &seats[2], &error));
        OK(weir_denoiser_leave(among, seats[0], &error)); /* the one that is looked at takes its place */
        while (weir_denoiser_step_index(among, seats[2]) < run->taken) OK(weir_denoiser_step(among, &error));
        OK(weir_denoiser_read(among, seats[2], end, NULL, &error));
        assert_memory_equal(end, whole, bytes);
        OK(weir_denoiser_read(among, seats[1], end, NULL, &error));
        assert_memory_not_equal(end, whole, bytes);
        weir_denoiser_destroy(&among);
        weir_denoiser_destroy(&alone);
        free(picture), free(inverse), free(embedding), free(whole), free(end);
        vectors_close(&v);
        bench_close(&b);
    }
}

static void latents_that_are_missing_are_refused(void **state)
{
    (void)state;
    static const size_t which[] = { CONTROLLED, STARTED };
    for (size_t w = 0; w < WEIR_COUNT(which); w++) {
        const struct run *run = &runs[which[w]];
        struct bench b = bench_open("cpu", run->folder);
        const struct weir_item item = resolve(&b, run);
        float *embedding = bench_embed(&b, prompt, run->negative, &item);
        struct weir_denoiser *denoiser = NULL;
        struct weir_error refusal = { 0 };
        uint32_t seat;
        OK(weir_denoiser_create(b.pipeline, &item, 1, &denoiser, &error));
        assert_int_equal(weir_denoiser_begin(denoiser, &item, &(struct weir_denoiser_input){ .embedding = embedding },
                                             NULL, &seat, &refusal),
                         WEIR_BAD_ARGUMENT);
        assert_non_null(strstr(refusal.words, w == 0 ? "control image" : "begin at"));
        weir_denoiser_destroy(&denoiser);
        free(embedding);
        bench_close(&b);
    }
}

/* The encoder's plan too is made before a weight is read. */
static void memory_is_known_before_it_is_taken(void **state)
{
    (void)state;
    static const size_t which[] = { CONTROLLED, STARTED };
    for (size_t w = 0; w < WEIR_COUNT(which); w++) {
        struct weir_device *device = NULL;
        struct weir_model_dir *model = tiny_open(runs[which[w]].folder);
        struct weir_pipeline *pipeline = NULL;
        device = device_or_skip("cpu", 1);
        OK(weir_pipeline_open(model, &pipeline, &error));
        struct bench b = { device, model, pipeline, weir_pipeline_facts(pipeline) };
        const struct weir_item item = resolve(&b, &runs[which[w]]);
        for (int stage = 0; stage < WEIR_PIPELINE_NET_COUNT; stage++) {
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

static void see_refused(const struct weir_model_facts *facts, const struct weir_item_wish *wish,
                        enum weir_status wanted, const char *word)
{
    struct weir_item item;
    struct weir_error refusal = { 0 };
    const enum weir_status status = weir_item_resolve(facts, wish, &item, &refusal);
    if (status != wanted || !strstr(refusal.words, word))
        fail_msg("%s \"%s\", wanted %s with \"%s\"", weir_status_name(status), refusal.words, weir_status_name(wanted),
                 word);
}

static void a_picture_is_taken_by_models_that_can_and_asked_for_by_those_that_must(void **state)
{
    (void)state;
    static const char *const names[] = { "tiny-sana-a", "tiny-sana-control", "tiny-sana-b" };
    struct weir_model_dir *models[3];
    struct weir_pipeline *pipelines[3] = { NULL };
    const struct weir_model_facts *facts[3];
    struct weir_item item;
    for (int i = 0; i < 3; i++) {
        models[i] = tiny_open(names[i]);
        OK(weir_pipeline_open(models[i], &pipelines[i], &error));
        facts[i] = weir_pipeline_facts(pipelines[i]);
    }
    struct weir_item_wish none = WEIR_ITEM_WISH_NONE, control = none, start = none;
    control.control = start.start = digest;
    see_refused(facts[0], &control, WEIR_UNSUPPORTED, "--control: this model has no ControlNet");
    see_refused(facts[2], &control, WEIR_UNSUPPORTED, "--control: this model has no ControlNet");
    see_refused(facts[0], &start, WEIR_UNSUPPORTED, "--image: a model of the family sana ");
    see_refused(facts[1], &none, WEIR_BAD_ARGUMENT, "--control is missing");
    OK(weir_item_resolve(facts[1], &control, &item, &error));
    assert_true(item.has_control && !item.has_start && item.control_scale == 1.0);
    assert_memory_equal(item.control, digest, sizeof digest);
    control.control_scale = 10.5;
    see_refused(facts[1], &control, WEIR_BAD_ARGUMENT, "10.5; 0 to 10");
    control.control_scale = -0.1;
    see_refused(facts[1], &control, WEIR_BAD_ARGUMENT, "-0.1; 0 to 10");
    control.control_scale = INFINITY;
    see_refused(facts[1], &control, WEIR_BAD_ARGUMENT, "inf; 0 to 10");
    OK(weir_item_resolve(facts[2], &start, &item, &error));
    assert_true(item.has_start && !item.has_control && item.strength == 0.6);
    start.strength = 0;
    see_refused(facts[2], &start, WEIR_BAD_ARGUMENT, "--strength is 0; over 0 to 1");
    start.strength = 1.01;
    see_refused(facts[2], &start, WEIR_BAD_ARGUMENT, "--strength is 1.01; over 0 to 1");
    start.strength = 1e-20; /* less than a step can say */
    see_refused(facts[2], &start, WEIR_BAD_ARGUMENT, "--strength is 1e-20: of --steps 2 none is left");
    none.strength = 0.5;
    see_refused(facts[2], &none, WEIR_BAD_ARGUMENT, "no --image");

    /* A lease is no more trusted than a wish. */
    struct weir_error refusal = { 0 };
    item.strength = NAN;
    assert_int_equal(weir_item_check(facts[2], &item, &refusal), WEIR_BAD_ARGUMENT);
    assert_non_null(strstr(refusal.words, "--strength is nan"));
    control.control_scale = NAN;
    OK(weir_item_resolve(facts[1], &control, &item, &error));
    OK(weir_item_check(facts[1], &item, &error));
    item.has_control = false;
    assert_int_equal(weir_item_check(facts[1], &item, &refusal), WEIR_BAD_ARGUMENT);
    assert_non_null(strstr(refusal.words, "--control is missing"));
    for (int i = 0; i < 3; i++) {
        weir_pipeline_close(&pipelines[i]);
        weir_model_dir_close(&models[i]);
    }
}

static void a_family_without_pictures_has_no_encoder(void **state)
{
    (void)state;
    struct bench b = bench_open("ref", "tiny-sana-a");
    struct weir_error refusal = { 0 };
    assert_int_equal(weir_pipeline_load(b.pipeline, b.device, WEIR_PIPELINE_ENCODE, &refusal), WEIR_UNSUPPORTED);
    assert_non_null(strstr(refusal.words, "encodes no pictures"));
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_runs_give_diffusers_pixels_on_ref),
        cmocka_unit_test(whole_runs_give_diffusers_pixels_on_cpu),
        cmocka_unit_test(whole_runs_give_diffusers_pixels_on_cuda),
        cmocka_unit_test(a_resumed_run_ends_with_the_same_bytes),
        cmocka_unit_test(adapters_work_beside_a_picture_on_ref),
        cmocka_unit_test(adapters_work_beside_a_picture_on_cpu),
        cmocka_unit_test(adapters_work_beside_a_picture_on_cuda),
        cmocka_unit_test(mates_with_other_pictures_change_nothing),
        cmocka_unit_test(latents_that_are_missing_are_refused),
        cmocka_unit_test(memory_is_known_before_it_is_taken),
        cmocka_unit_test(a_picture_is_taken_by_models_that_can_and_asked_for_by_those_that_must),
        cmocka_unit_test(a_family_without_pictures_has_no_encoder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
