/* A folder that this build cannot run is refused when it is opened, before any weight is read, in words that name the
 * file, the key and what does not fit. Each case is tiny-a, or where it says so a folder of Sana, with one thing changed. */
#include "tests/nets/golden.h"

#include "worker/pipelines/pipeline.h"

#include <sys/stat.h>
#include <unistd.h>

#define FILES_MAX 10
/* A folder of tests/golden without its weights. */
struct base {
    const char *name, *files[FILES_MAX], *folders[FILES_MAX];
};
static const struct base film = { "tiny-a",
                                  { "model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json",
                                    "tokenizer/vocab.json", "tokenizer/merges.txt", "tokenizer/special_tokens_map.json",
                                    "tokenizer/tokenizer_config.json", "unet/config.json", "vae/config.json" },
                                  { "scheduler", "text_encoder", "tokenizer", "unet", "vae" } };
#define SANA_PARTS                                                                                                     \
    { "model_index.json",         "scheduler/scheduler_config.json", "text_encoder/config.json",                       \
      "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json", "transformer/config.json",                        \
      "vae/config.json" },                                                                                             \
    {                                                                                                                  \
        "scheduler", "text_encoder", "tokenizer", "transformer", "vae"                                                 \
    }
static const struct base sana = { "tiny-sana-a", SANA_PARTS }, sprint = { "tiny-sana-b", SANA_PARTS };
static const struct base control = {
    "tiny-sana-control",
    { "model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json", "tokenizer/tokenizer.json",
      "tokenizer/tokenizer_config.json", "transformer/config.json", "controlnet/config.json", "vae/config.json" },
    { "scheduler", "text_encoder", "tokenizer", "transformer", "controlnet", "vae" }
};

struct change {
    const char *file;        /* NULL: none */
    const char *from, *to;   /* text replaced once; to NULL: the file is left out */
    const char *weir_json;   /* NULL: none */
    const struct base *base; /* NULL: film */
};

static const struct base *base_of(const struct change *change)
{
    return change->base ? change->base : &film;
}

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
    snprintf(from, sizeof from, "%s/tests/golden/%s/%s", WEIR_SOURCE_DIR, base_of(change)->name, name);
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
    for (const char *const *folder = base_of(change)->folders; *folder; folder++) {
        snprintf(path, sizeof path, "%s/%s", root, *folder);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    for (const char *const *file = base_of(change)->files; *file; file++) copy_file(root, *file, change);
    snprintf(path, sizeof path, "%s/weir.json", root);
    if (change->weir_json) write_text(path, change->weir_json, strlen(change->weir_json));
}

static void folder_remove(const char *root, const struct base *base)
{
    char path[512];
    for (const char *const *file = base->files; *file; file++) {
        snprintf(path, sizeof path, "%s/%s", root, *file);
        unlink(path);
    }
    snprintf(path, sizeof path, "%s/weir.json", root);
    unlink(path);
    for (const char *const *folder = base->folders; *folder; folder++) {
        snprintf(path, sizeof path, "%s/%s", root, *folder);
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
    folder_remove(root, base_of(change));
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
        { { "model_index.json", "TextToVideoSDPipeline", "StableDiffusionPipeline", NULL, NULL },
          WEIR_UNSUPPORTED,
          { "StableDiffusionPipeline", "TextToVideoSDPipeline" } },
        { { "model_index.json", "CLIPTextModel", "T5EncoderModel", NULL, NULL },
          WEIR_BAD_MODEL,
          { "T5EncoderModel", "CLIPTextModel" } },
        { { "model_index.json", "UNet3DConditionModel", "UNet2DConditionModel", NULL, NULL },
          WEIR_BAD_MODEL,
          { "UNet2DConditionModel", "unet" } },
        { { "unet/config.json", "\"cross_attention_dim\": 24", "\"cross_attention_dim\": 32", NULL, NULL },
          WEIR_BAD_MODEL,
          { "cross_attention_dim is 32", "hidden_size is 24" } },
        { { "unet/config.json", "\"out_channels\": 4", "\"out_channels\": 8", NULL, NULL },
          WEIR_BAD_MODEL,
          { "out_channels is 8", "in_channels is 4" } },
        { { "vae/config.json", "\"latent_channels\": 4", "\"latent_channels\": 16", NULL, NULL },
          WEIR_BAD_MODEL,
          { "latent_channels is 16", "in_channels is 4" } },
        { { "text_encoder/config.json", "\"vocab_size\": 572", "\"vocab_size\": 571", NULL, NULL },
          WEIR_BAD_MODEL,
          { "572 tokens", "vocab_size is 571" } },
        { { "tokenizer/tokenizer_config.json", "\"model_max_length\": 77", "\"model_max_length\": 78", NULL, NULL },
          WEIR_BAD_MODEL,
          { "model_max_length is 78", "max_position_embeddings is 77" } },
        { { "unet/config.json", "\"act_fn\": \"silu\"", "\"act_fn\": \"gelu\"", NULL, NULL },
          WEIR_UNSUPPORTED,
          { "unet/config.json", "act_fn" } },
        { { "unet/config.json", "\"layers_per_block\": 1", "\"layers_per_block\": \"1\"", NULL, NULL },
          WEIR_BAD_MODEL,
          { "unet/config.json", "layers_per_block" } },
        { { "vae/config.json", "\"out_channels\": 3", "\"out_channels\": 0", NULL, NULL },
          WEIR_BAD_MODEL,
          { "vae/config.json", "out_channels" } },
        { { "scheduler/scheduler_config.json", "\"thresholding\": false", "\"thresholding\": true", NULL, NULL },
          WEIR_UNSUPPORTED,
          { "scheduler_config.json", "thresholding" } },
        { { "vae/config.json", "", NULL, NULL, NULL }, WEIR_NOT_FOUND, { "vae/config.json", "" } },
        { { "tokenizer/merges.txt", "", NULL, NULL, NULL }, WEIR_NOT_FOUND, { "merges.txt", "" } },
        { { NULL, NULL, NULL, "{\"sampler\": \"euler\"}", NULL }, WEIR_BAD_MODEL, { "weir.json", "euler" } },
        { { "model_index.json", "SanaPipeline", "SanaPAGPipeline", NULL, &sana },
          WEIR_UNSUPPORTED,
          { "SanaPAGPipeline", "TextToVideoSDPipeline, SanaPipeline, SanaControlNetPipeline, SanaSprintPipeline" } },
        { { "model_index.json", "Gemma2Model", "T5EncoderModel", NULL, &sana },
          WEIR_BAD_MODEL,
          { "T5EncoderModel", "Gemma2Model" } },
        { { "model_index.json", "GemmaTokenizerFast", "T5Tokenizer", NULL, &sprint },
          WEIR_BAD_MODEL,
          { "T5Tokenizer", "tokenizer" } },
        { { "model_index.json", "AutoencoderDC", "AutoencoderKL", NULL, &sana },
          WEIR_BAD_MODEL,
          { "AutoencoderKL", "AutoencoderDC" } },
        { { "transformer/config.json", "\"caption_channels\": 24", "\"caption_channels\": 25", NULL, &sana },
          WEIR_BAD_MODEL,
          { "caption_channels is 25", "hidden_size is 24" } },
        { { "transformer/config.json", "\"out_channels\": 4", "\"out_channels\": 8", NULL, &sana },
          WEIR_BAD_MODEL,
          { "out_channels is 8", "in_channels is 4" } },
        { { "vae/config.json", "\"latent_channels\": 5", "\"latent_channels\": 10", NULL, &sprint },
          WEIR_BAD_MODEL,
          { "latent_channels is 10", "in_channels is 5" } },
        { { "text_encoder/config.json", "\"vocab_size\": 64", "\"vocab_size\": 20", NULL, &sana },
          WEIR_BAD_MODEL,
          { "tokens", "vocab_size is 20" } },
        { { "model_index.json", "SanaPipeline", "SanaSprintPipeline", NULL, &sana },
          WEIR_BAD_MODEL,
          { "guidance_embeds is false", "SanaSprintPipeline" } },
        { { "model_index.json", "SanaSprintPipeline", "SanaPipeline", NULL, &sprint },
          WEIR_BAD_MODEL,
          { "guidance_embeds is true", "SanaPipeline" } },
        { { "scheduler/scheduler_config.json", "\"thresholding\": false", "\"thresholding\": true", NULL, &sana },
          WEIR_UNSUPPORTED,
          { "scheduler_config.json", "thresholding" } },
        { { "transformer/config.json", "\"patch_size\": 1", "\"patch_size\": 2", NULL, &sana },
          WEIR_UNSUPPORTED,
          { "transformer/config.json", "patch_size" } },
        { { "model_index.json", "SanaControlNetModel", "ControlNetModel", NULL, &control },
          WEIR_BAD_MODEL,
          { "ControlNetModel", "SanaControlNetModel" } },
        { { "model_index.json", "SanaPipeline", "SanaControlNetPipeline", NULL, &sana },
          WEIR_BAD_MODEL,
          { "controlnet", "" } },
        { { "controlnet/config.json", "\"caption_channels\": 24", "\"caption_channels\": 25", NULL, &control },
          WEIR_BAD_MODEL,
          { "controlnet: caption_channels is 25", "transformer: caption_channels is 24" } },
        { { "controlnet/config.json", "\"in_channels\": 4", "\"in_channels\": 5", NULL, &control },
          WEIR_BAD_MODEL,
          { "controlnet: in_channels is 5", "is 4" } },
        { { "controlnet/config.json", "\"patch_size\": 1", "\"patch_size\": 2", NULL, &control },
          WEIR_UNSUPPORTED,
          { "controlnet/config.json", "patch_size" } },
        { { NULL, NULL, NULL, "{\"sampler\": \"scm\"}", &sana }, WEIR_BAD_MODEL, { "scm", "flow-dpm++, flow-euler" } },
        { { NULL, NULL, NULL, "{\"sampler\": \"flow-euler\"}", &sprint }, WEIR_BAD_MODEL, { "flow-euler", "scm" } },
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

static void defaults_of_pictures_are_the_folders_else_the_pipelines(void **state)
{
    (void)state;
    struct weir_model_facts facts;
    OK(open_changed(&(struct change){ .base = &sana }, &facts, &error));
    assert_string_equal(facts.family, "sana");
    assert_int_equal(facts.steps, 20);
    assert_int_equal(facts.frames, 1);
    assert_int_equal(facts.frames_max, 1);
    assert_int_equal(facts.width, 512); /* sample_size 16 times a factor of 32 */
    assert_int_equal(facts.height, 512);
    assert_int_equal(facts.bins, 16);
    assert_int_equal(facts.size_multiple, 1);
    assert_true(facts.guidance == 4.5 && !facts.guidance_inside);
    assert_int_equal(facts.sampler, WEIR_ITEM_SAMPLER_FLOW_DPM_SOLVER);
    assert_int_equal(facts.text_tokens, 300);

    OK(open_changed(&(struct change){ .base = &sana,
                                      .file = "transformer/config.json",
                                      .from = "\"sample_size\": 16",
                                      .to = "\"sample_size\": 30" }, /* films' */
                    &facts, &error));
    assert_int_equal(facts.bins, 0);
    assert_int_equal(facts.size_multiple, 32);

    OK(open_changed(&(struct change){ .base = &sprint }, &facts, &error));
    assert_string_equal(facts.family, "sana-sprint");
    assert_int_equal(facts.steps, 2);
    assert_int_equal(facts.bins, 0);
    assert_true(facts.guidance == 4.5 && facts.guidance_inside);
    assert_int_equal(facts.sampler, WEIR_ITEM_SAMPLER_SCM);

    static const uint32_t sizes[][2] = { { 32, 32 }, { 16, 0 }, { 64, 0 } }; /* Sprint has the table of 32 alone */
    for (size_t i = 0; i < WEIR_COUNT(sizes); i++) {
        char to[32];
        snprintf(to, sizeof to, "\"sample_size\": %u", sizes[i][0]);
        OK(open_changed(&(struct change){ "transformer/config.json", "\"sample_size\": 6", to, NULL, &sprint }, &facts,
                        &error));
        assert_int_equal(facts.bins, sizes[i][1]);
    }

    OK(open_changed(&(struct change){ .base = &sana,
                                      .weir_json = "{\"steps\": 8, \"guidance\": 2, \"width\": 100, \"height\": "
                                                   "50, \"sampler\": \"flow-euler\"}" },
                    &facts, &error));
    assert_int_equal(facts.steps, 8);
    assert_int_equal(facts.width, 100);
    assert_int_equal(facts.height, 50);
    assert_true(facts.guidance == 2);
    assert_int_equal(facts.sampler, WEIR_ITEM_SAMPLER_FLOW_EULER);

    OK(open_changed(&(struct change){ "model_index.json", "DPMSolverMultistepScheduler",
                                      "FlowMatchEulerDiscreteScheduler", NULL, &sana },
                    &facts, &error));
    assert_int_equal(facts.sampler, WEIR_ITEM_SAMPLER_FLOW_EULER);
}

/* A folder whose scheduler is not offered can still be run by naming one that is. */
static void a_scheduler_that_is_not_offered_needs_a_named_one(void **state)
{
    (void)state;
    struct weir_model_facts facts;
    struct weir_item item;
    struct weir_item_wish wish = WEIR_ITEM_WISH_NONE;
    struct weir_error refusal;
    OK(open_changed(&(struct change){ "model_index.json", "DDIMScheduler", "PNDMScheduler", NULL, NULL }, &facts,
                    &error));
    assert_int_equal(weir_item_resolve(&facts, &wish, &item, &refusal), WEIR_UNSUPPORTED);
    assert_non_null(strstr(refusal.words, "--sampler"));
    wish.sampler = "dpm++";
    OK(weir_item_resolve(&facts, &wish, &item, &error));

    static const char *const others[] = { "DEISMultistepScheduler", "DDIMScheduler" };
    for (size_t i = 0; i < WEIR_COUNT(others); i++) {
        OK(open_changed(&(struct change){ "model_index.json", "DPMSolverMultistepScheduler", others[i], NULL, &sana },
                        &facts, &error));
        wish.sampler = NULL;
        assert_int_equal(weir_item_resolve(&facts, &wish, &item, &refusal), WEIR_UNSUPPORTED);
        assert_non_null(strstr(refusal.words, "takes: flow-dpm++, flow-euler"));
        wish.sampler = "flow-euler";
        OK(weir_item_resolve(&facts, &wish, &item, &error));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folders_that_cannot_be_run_are_refused_in_words),
        cmocka_unit_test(defaults_are_the_folders_else_the_pipelines),
        cmocka_unit_test(defaults_of_pictures_are_the_folders_else_the_pipelines),
        cmocka_unit_test(a_scheduler_that_is_not_offered_needs_a_named_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
