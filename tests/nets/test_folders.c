/* A folder that this build cannot run is refused when it is opened, before any weight is read, in words that name the
 * file, the key and what does not fit. Each case is tiny-a with one thing changed. */
#include "tests/nets/golden.h"

#include "worker/pipelines/pipeline.h"

#include <sys/stat.h>
#include <unistd.h>

static const char *const files[] = { "model_index.json",
                                     "scheduler/scheduler_config.json",
                                     "text_encoder/config.json",
                                     "tokenizer/vocab.json",
                                     "tokenizer/merges.txt",
                                     "tokenizer/special_tokens_map.json",
                                     "tokenizer/tokenizer_config.json",
                                     "unet/config.json",
                                     "vae/config.json" };
static const char *const folders[] = { "scheduler", "text_encoder", "tokenizer", "unet", "vae" };

struct change {
    const char *file;      /* NULL: none */
    const char *from, *to; /* text replaced once; to NULL: the file is left out */
    const char *weir_json; /* NULL: none */
};

static void write_text(const char *path, const char *text, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

static void copy_file(const char *root, const char *name, const struct change *change)
{
    char from[512], to[512], *text = NULL;
    size_t bytes;
    snprintf(from, sizeof from, "%s/tests/golden/tiny-a/%s", WEIR_SOURCE_DIR, name);
    snprintf(to, sizeof to, "%s/%s", root, name);
    OK(weir_file_read(from, 1 << 20, &text, &bytes, &error));
    if (!change->file || strcmp(change->file, name) != 0) {
        write_text(to, text, bytes);
    } else if (change->to) {
        const char *at = strstr(text, change->from);
        if (!at) fail_msg("%s has no %s", name, change->from);
        char *changed = malloc(bytes + strlen(change->to) + 1);
        const int length = sprintf(changed, "%.*s%s%s", (int)(at - text), text, change->to, at + strlen(change->from));
        write_text(to, changed, (size_t)length);
        free(changed);
    }
    free(text);
}

static void folder_make(char root[64], const struct change *change)
{
    char path[512];
    strcpy(root, "/tmp/weir-folder-XXXXXX");
    assert_non_null(mkdtemp(root));
    for (size_t i = 0; i < WEIR_COUNT(folders); i++) {
        snprintf(path, sizeof path, "%s/%s", root, folders[i]);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    for (size_t i = 0; i < WEIR_COUNT(files); i++) copy_file(root, files[i], change);
    snprintf(path, sizeof path, "%s/weir.json", root);
    if (change->weir_json) write_text(path, change->weir_json, strlen(change->weir_json));
}

static void folder_remove(const char *root)
{
    char path[512];
    for (size_t i = 0; i < WEIR_COUNT(files); i++) {
        snprintf(path, sizeof path, "%s/%s", root, files[i]);
        unlink(path);
    }
    snprintf(path, sizeof path, "%s/weir.json", root);
    unlink(path);
    for (size_t i = 0; i < WEIR_COUNT(folders); i++) {
        snprintf(path, sizeof path, "%s/%s", root, folders[i]);
        rmdir(path);
    }
    assert_int_equal(rmdir(root), 0);
}

/* Opens the changed folder; the facts when it can be run. */
static enum weir_status open_changed(const struct change *change, struct weir_model_facts *facts,
                                     struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_model_dir *model = NULL;
    struct weir_pipeline *pipeline = NULL;
    char root[64];
    folder_make(root, change);
    WEIR_TRY(weir_model_dir_open(root, NULL, &model, error));
    WEIR_TRY(weir_pipeline_open(model, &pipeline, error));
    *facts = *weir_pipeline_facts(pipeline);
cleanup:
    weir_pipeline_close(&pipeline);
    weir_model_dir_close(&model);
    folder_remove(root);
    return status;
}

static void folders_that_cannot_be_run_are_refused_in_words(void **state)
{
    (void)state;
    static const struct {
        struct change change;
        enum weir_status status;
        const char *words[2];
    } cases[] = {
        { { "model_index.json", "TextToVideoSDPipeline", "StableDiffusionPipeline", NULL },
          WEIR_UNSUPPORTED,
          { "StableDiffusionPipeline", "TextToVideoSDPipeline" } },
        { { "model_index.json", "CLIPTextModel", "T5EncoderModel", NULL },
          WEIR_BAD_MODEL,
          { "T5EncoderModel", "CLIPTextModel" } },
        { { "model_index.json", "UNet3DConditionModel", "UNet2DConditionModel", NULL },
          WEIR_BAD_MODEL,
          { "UNet2DConditionModel", "unet" } },
        { { "unet/config.json", "\"cross_attention_dim\": 24", "\"cross_attention_dim\": 32", NULL },
          WEIR_BAD_MODEL,
          { "cross_attention_dim is 32", "hidden_size is 24" } },
        { { "unet/config.json", "\"out_channels\": 4", "\"out_channels\": 8", NULL },
          WEIR_BAD_MODEL,
          { "out_channels is 8", "in_channels is 4" } },
        { { "vae/config.json", "\"latent_channels\": 4", "\"latent_channels\": 16", NULL },
          WEIR_BAD_MODEL,
          { "latent_channels is 16", "in_channels is 4" } },
        { { "text_encoder/config.json", "\"vocab_size\": 572", "\"vocab_size\": 571", NULL },
          WEIR_BAD_MODEL,
          { "572 tokens", "vocab_size is 571" } },
        { { "tokenizer/tokenizer_config.json", "\"model_max_length\": 77", "\"model_max_length\": 78", NULL },
          WEIR_BAD_MODEL,
          { "model_max_length is 78", "max_position_embeddings is 77" } },
        { { "unet/config.json", "\"act_fn\": \"silu\"", "\"act_fn\": \"gelu\"", NULL },
          WEIR_UNSUPPORTED,
          { "unet/config.json", "act_fn" } },
        { { "unet/config.json", "\"layers_per_block\": 1", "\"layers_per_block\": \"1\"", NULL },
          WEIR_BAD_MODEL,
          { "unet/config.json", "layers_per_block" } },
        { { "vae/config.json", "\"out_channels\": 3", "\"out_channels\": 0", NULL },
          WEIR_BAD_MODEL,
          { "vae/config.json", "out_channels" } },
        { { "scheduler/scheduler_config.json", "\"thresholding\": false", "\"thresholding\": true", NULL },
          WEIR_UNSUPPORTED,
          { "scheduler_config.json", "thresholding" } },
        { { "vae/config.json", "", NULL, NULL }, WEIR_NOT_FOUND, { "vae/config.json", "" } },
        { { "tokenizer/merges.txt", "", NULL, NULL }, WEIR_NOT_FOUND, { "merges.txt", "" } },
        { { NULL, NULL, NULL, "{\"sampler\": \"euler\"}" }, WEIR_BAD_MODEL, { "weir.json", "euler" } },
    };
    for (size_t i = 0; i < WEIR_COUNT(cases); i++) {
        struct weir_error refusal = { 0 };
        struct weir_model_facts facts;
        const enum weir_status status = open_changed(&cases[i].change, &facts, &refusal);
        if (status != cases[i].status || !strstr(refusal.words, cases[i].words[0]) ||
            !strstr(refusal.words, cases[i].words[1]))
            fail_msg("case %zu: %s \"%s\", wanted %s with \"%s\" and \"%s\"", i, weir_status_name(status),
                     refusal.words, weir_status_name(cases[i].status), cases[i].words[0], cases[i].words[1]);
    }
}

static void defaults_are_the_folders_else_the_pipelines(void **state)
{
    (void)state;
    struct weir_model_facts facts;
    OK(open_changed(&(struct change){ 0 }, &facts, &error));
    assert_string_equal(facts.family, "modelscope");
    assert_int_equal(facts.steps, 50);
    assert_int_equal(facts.frames, 16);
    assert_int_equal(facts.width, 64); /* sample_size 8 times a factor of 8 */
    assert_int_equal(facts.height, 64);
    assert_int_equal(facts.fps, 8);
    assert_true(facts.guidance > 8.99 && facts.guidance < 9.01);
    assert_int_equal(facts.sampler, WEIR_ITEM_SAMPLER_DDIM);
    assert_int_equal(facts.text_tokens, 77);
    assert_int_equal(facts.text_channels, 24);
    assert_int_equal(facts.size_multiple, 8);

    OK(open_changed(&(struct change){ .weir_json = "{\"steps\": 25, \"guidance\": 1, \"frames\": 3, \"width\": 32, "
                                                   "\"height\": 40, \"fps\": 12, \"sampler\": \"dpm++\"}" },
                    &facts, &error));
    assert_int_equal(facts.steps, 25);
    assert_int_equal(facts.frames, 3);
    assert_int_equal(facts.width, 32);
    assert_int_equal(facts.height, 40);
    assert_int_equal(facts.fps, 12);
    assert_true(facts.guidance < 1.01);
    assert_int_equal(facts.sampler, WEIR_ITEM_SAMPLER_DPM_SOLVER);
}

/* A folder whose scheduler is not offered can still be run by naming one that is. */
static void a_scheduler_that_is_not_offered_needs_a_named_one(void **state)
{
    (void)state;
    struct weir_model_facts facts;
    struct weir_item item;
    struct weir_item_wish wish = WEIR_ITEM_WISH_NONE;
    struct weir_error refusal;
    OK(open_changed(&(struct change){ "model_index.json", "DDIMScheduler", "PNDMScheduler", NULL }, &facts, &error));
    assert_int_equal(weir_item_resolve(&facts, &wish, &item, &refusal), WEIR_UNSUPPORTED);
    assert_non_null(strstr(refusal.words, "--sampler"));
    wish.sampler = "dpm++";
    OK(weir_item_resolve(&facts, &wish, &item, &error));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folders_that_cannot_be_run_are_refused_in_words),
        cmocka_unit_test(defaults_are_the_folders_else_the_pipelines),
        cmocka_unit_test(a_scheduler_that_is_not_offered_needs_a_named_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
