/* What a wish becomes: lists of prompts. (One prompt alone, with every refusal, is tried through the real worker in
 * tests/integration/test_worker.c.) A model of pictures, known by its facts alone. */
#include "worker/spec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const uint8_t digest[WEIR_SHA256_BYTES] = { 1, 2, 3 };
static const struct weir_model_facts facts = { .family = "sana",
                                               .size_min = 32,
                                               .size_multiple = 32,
                                               .latent_channels = 4,
                                               .latent_factor = 32,
                                               .text_tokens = 8,
                                               .text_rows = 9,
                                               .text_channels = 4,
                                               .train_timesteps = 1000,
                                               .width = 512,
                                               .height = 256,
                                               .frames = 1,
                                               .steps = 20,
                                               .fps = 1,
                                               .frames_max = 1,
                                               .guidance = 4.5,
                                               .sampler = WEIR_ITEM_SAMPLER_FLOW_DPM_SOLVER,
                                               .samplers = 1u << WEIR_ITEM_SAMPLER_FLOW_DPM_SOLVER,
                                               .loras = true };
static const struct weir_spec_model model = { "tiny", digest, "SanaPipeline", &facts, "f32" };

/* A wish with a list, its resolved spec, and what was said. */
struct trial {
    Weir__Pb__JobSpec wish, spec;
    Weir__Pb__Prompt prompts[WEIR_JOB_PROMPTS_MAX], *list[WEIR_JOB_PROMPTS_MAX];
    char texts[WEIR_JOB_PROMPTS_MAX][16];
    struct weir_spec_list resolved;
    struct weir_error error;
};

static struct trial *begin(const char *const *texts, size_t count)
{
    struct trial *t = calloc(1, sizeof *t);
    assert_non_null(t);
    weir__pb__job_spec__init(&t->wish);
    t->wish.n_prompts = count;
    t->wish.prompts = t->list;
    for (size_t k = 0; k < count; k++) {
        weir__pb__prompt__init(&t->prompts[k]);
        snprintf(t->texts[k], sizeof t->texts[k], "%zu", k);
        t->prompts[k].text = texts ? (char *)(uintptr_t)texts[k] : t->texts[k];
        t->list[k] = &t->prompts[k];
    }
    return t;
}

static enum weir_status resolve(struct trial *t)
{
    weir_spec_list_deinit(&t->resolved);
    return weir_spec_resolve_all(&t->wish, &model, NULL, &t->spec, &t->resolved, &t->error);
}

static void see_resolved(struct trial *t)
{
    if (resolve(t) != WEIR_OK) fail_msg("%s", t->error.words);
}

static void see_refused(struct trial *t, enum weir_status status, const char *words)
{
    assert_int_equal(resolve(t), status);
    if (strstr(t->error.words, words) == NULL) fail_msg("\"%s\" does not say \"%s\"", t->error.words, words);
}

static void end(struct trial *t)
{
    weir_spec_list_deinit(&t->resolved);
    free(t);
}

static void every_blank_of_a_prompt_is_filled_from_the_job_and_then_the_model(void **state)
{
    (void)state;
    static const char *const texts[] = { "a", "b" };
    struct trial *t = begin(texts, 2);
    t->wish.negative = (char *)(uintptr_t) "of the job";
    t->wish.has_steps = 1;
    t->wish.steps = 7;
    t->wish.has_seed = 1;
    t->wish.seed = 100;
    t->prompts[1].has_width = t->prompts[1].has_steps = t->prompts[1].has_guidance = t->prompts[1].has_seed = 1;
    t->prompts[1].width = 64;
    t->prompts[1].steps = 3;
    t->prompts[1].guidance = 1;
    t->prompts[1].seed = 5;
    t->prompts[1].negative = (char *)(uintptr_t) "own";
    t->prompts[1].has_line = 1;
    t->prompts[1].line = 17;
    see_resolved(t);
    assert_int_equal(t->spec.n_prompts, 2);
    assert_null(t->spec.prompt);
    assert_int_equal(t->spec.n, 1);
    assert_true(t->spec.has_image && t->spec.image);
    assert_string_equal(t->spec.format, "png");
    const Weir__Pb__Prompt *a = t->spec.prompts[0], *b = t->spec.prompts[1];
    assert_string_equal(a->text, "a");
    assert_string_equal(a->negative, "of the job");
    assert_true(a->has_width && a->has_height && a->has_steps && a->has_guidance && a->has_seed && a->has_line);
    assert_int_equal(a->width, 512);
    assert_int_equal(a->height, 256);
    assert_int_equal(a->steps, 7);
    assert_true(a->guidance == 4.5);
    assert_int_equal(a->seed, 100);
    assert_int_equal(a->line, 1);
    assert_string_equal(b->negative, "own");
    assert_int_equal(b->width, 64);
    assert_int_equal(b->height, 256);
    assert_int_equal(b->steps, 3);
    assert_true(b->guidance == 1);
    assert_int_equal(b->seed, 5);
    assert_int_equal(b->line, 17);
    assert_int_equal(t->spec.width, 512); /* the job's own are those of the first */

    /* What a worker gets of it is a job of one prompt. */
    Weir__Pb__JobSpec one;
    struct weir_item item;
    weir_spec_of_item(&t->spec, 1, &one);
    assert_int_equal(weir_spec_item(&one, &item, NULL), WEIR_OK);
    assert_int_equal(item.width, 64);
    assert_int_equal(item.seed, 5);
    end(t);
}

static void no_two_items_have_one_seed(void **state)
{
    (void)state;
    static const char *const texts[] = { "a", "b", "a", "c" };
    struct trial *t = begin(texts, 4);
    t->wish.has_n = 1;
    t->wish.n = 3;
    t->wish.has_seed = 1;
    t->wish.seed = 1000;
    see_resolved(t);
    /* a, a, b, c: grouped, but the seeds are those of their lines */
    const uint64_t seeds[] = { 1000, 1006, 1003, 1009 };
    for (size_t k = 0; k < 4; k++) assert_int_equal(t->spec.prompts[k]->seed, seeds[k]);
    t->wish.has_seed = 0;
    see_resolved(t);
    assert_true(t->spec.seed <= UINT32_MAX);
    for (size_t k = 0; k < 4; k++) assert_int_equal(t->spec.prompts[k]->seed, t->spec.seed + seeds[k] - 1000);
    end(t);
}

static void equal_texts_come_together_in_their_order(void **state)
{
    (void)state;
    static const char *const texts[] = { "a", "b", "a", "b", "a", "c" };
    static const double guidance[] = { 4, 4, 1, 7, 2, 4 };
    static const uint32_t lines[] = { 1, 5, 2, 4, 3, 6 };
    struct trial *t = begin(texts, 6);
    for (size_t k = 0; k < 6; k++) {
        t->prompts[k].has_guidance = 1;
        t->prompts[k].guidance = guidance[k];
    }
    see_resolved(t);
    for (size_t k = 0; k < 6; k++) assert_int_equal(t->spec.prompts[k]->line, lines[k]);
    t->prompts[4].negative = (char *)(uintptr_t) "x"; /* no longer like the first */
    see_resolved(t);
    assert_int_equal(t->spec.prompts[1]->line, 2);
    assert_int_equal(t->spec.prompts[4]->line, 5);
    end(t);
}

static void what_is_wrong_names_its_line(void **state)
{
    (void)state;
    static const char *const texts[] = { "a", "b", "c" };
    struct trial *t = begin(texts, 3);
    t->prompts[2].has_width = 1;
    t->prompts[2].width = 33;
    see_refused(t, WEIR_BAD_ARGUMENT, "line 3: --size: width is 33");
    t->prompts[2].has_line = 1;
    t->prompts[2].line = 17;
    see_refused(t, WEIR_BAD_ARGUMENT, "line 17: --size: width is 33");
    t->prompts[2].has_width = 0;
    t->prompts[1].text = NULL;
    see_refused(t, WEIR_BAD_ARGUMENT, "line 2: a prompt is missing");
    t->prompts[1].text = (char *)(uintptr_t) "b";
    t->wish.prompt = (char *)(uintptr_t) "and one more";
    see_refused(t, WEIR_BAD_ARGUMENT, "a prompt and a list of 3 prompts");
    t->wish.prompt = NULL;
    t->wish.has_n = 1;
    t->wish.n = 0;
    see_refused(t, WEIR_BAD_ARGUMENT, "--n 0");
    t->wish.n = 170;
    see_resolved(t); /* 510 */
    t->wish.n = 171;
    see_refused(t, WEIR_TOO_LARGE, "at most 512");
    t->wish.n = UINT32_MAX;
    see_refused(t, WEIR_TOO_LARGE, "at most 512");
    end(t);
}

static void a_prompt_has_its_own_loras_or_those_of_the_job(void **state)
{
    (void)state;
    static const char *const texts[] = { "a", "b" };
    static uint8_t digests[3][WEIR_SHA256_BYTES] = { { 1 }, { 2 }, { 3 } };
    struct trial *t = begin(texts, 2);
    Weir__Pb__FileRef files[3];
    Weir__Pb__Lora loras[3], *of_job[] = { &loras[0] }, *own[] = { &loras[1], &loras[2] };
    for (size_t i = 0; i < 3; i++) {
        weir__pb__file_ref__init(&files[i]);
        files[i].has_digest = files[i].has_bytes = 1;
        files[i].digest = (ProtobufCBinaryData){ WEIR_SHA256_BYTES, digests[i] };
        files[i].bytes = 100;
        weir__pb__lora__init(&loras[i]);
        loras[i].file = &files[i];
    }
    t->wish.n_loras = 1;
    t->wish.loras = of_job;
    t->prompts[1].n_loras = 2;
    t->prompts[1].loras = own;
    loras[2].has_weight = 1;
    loras[2].weight = -0.5;
    see_resolved(t);
    assert_int_equal(t->spec.n_loras, 0); /* each prompt says its own */
    const Weir__Pb__Prompt *a = t->spec.prompts[0], *b = t->spec.prompts[1];
    assert_true(a->n_loras == 1 && a->loras[0]->has_weight && a->loras[0]->weight == 1);
    assert_true(b->n_loras == 2 && b->loras[0]->has_weight && b->loras[0]->weight == 1);
    assert_true(b->loras[1]->weight == -0.5);

    Weir__Pb__JobSpec one;
    struct weir_item item;
    weir_spec_of_item(&t->spec, 1, &one);
    assert_int_equal(weir_spec_item(&one, &item, NULL), WEIR_OK);
    assert_true(item.lora_count == 2 && item.loras[1].weight == -0.5 && item.loras[1].digest[0] == 3);

    loras[2].weight = 101;
    see_refused(t, WEIR_BAD_ARGUMENT, "line 2: --lora: the weight of adapter 2 is 101");
    loras[2].weight = 1;
    files[1].has_digest = 0;
    see_refused(t, WEIR_BAD_ARGUMENT, "line 2: --lora: adapter 1 names no file");
    end(t);
}

static void a_full_list_fits_a_message_and_a_longer_one_is_refused(void **state)
{
    (void)state;
    static char long_text[1200];
    struct trial *t = begin(NULL, WEIR_JOB_PROMPTS_MAX);
    see_resolved(t);
    assert_int_equal(t->spec.n_prompts, WEIR_JOB_PROMPTS_MAX);
    memset(long_text, 'x', sizeof long_text - 1);
    t->wish.negative = long_text; /* of each */
    see_refused(t, WEIR_TOO_LARGE, "one job may have 524288");
    long_text[900] = 0;
    see_resolved(t);
    assert_true(protobuf_c_message_get_packed_size(&t->spec.base) <= WEIR_SPEC_BYTES_MAX);
    end(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_blank_of_a_prompt_is_filled_from_the_job_and_then_the_model),
        cmocka_unit_test(no_two_items_have_one_seed),
        cmocka_unit_test(equal_texts_come_together_in_their_order),
        cmocka_unit_test(what_is_wrong_names_its_line),
        cmocka_unit_test(a_prompt_has_its_own_loras_or_those_of_the_job),
        cmocka_unit_test(a_full_list_fits_a_message_and_a_longer_one_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
