#include "worker/file_hash.h"
#include "worker/folder.h"
#include "worker/model_dir.h"
#include "worker/model_places.h"
#include "scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define INDEX_JSON                                                                                                     \
    "{\"_class_name\": \"TextToVideoSDPipeline\", \"_diffusers_version\": \"0.30.0\","                                 \
    " \"unet\": [\"diffusers\", \"UNet3DConditionModel\"], \"vae\": [\"diffusers\", \"AutoencoderKL\"],"               \
    " \"scheduler\": [\"diffusers\", \"DDIMScheduler\"], \"tokenizer\": [\"transformers\", \"CLIPTokenizer\"],"        \
    " \"safety_checker\": [null, null], \"requires_safety_checker\": false}"
#define TENSOR "{\"one\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}}"
#define ORG_MODEL "hub/models--Some-Org--A-Model"
#define SNAPSHOT ORG_MODEL "/snapshots/0123abcd"

/* A home of its own, without any place to look for models but those a test makes. */
struct world {
    struct scratch scratch;
    struct weir_model_dir *model;
    struct weir_error error;
};

static struct world world_begin(void)
{
    struct world w = { .scratch = scratch_begin() };
    static const char *const variables[] = { "WEIR_MODELS", "HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME" };
    for (size_t i = 0; i < WEIR_COUNT(variables); i++) unsetenv(variables[i]);
    setenv("HOME", scratch_path(&w.scratch, "home"), 1);
    return w;
}

static void world_end(struct world *w)
{
    weir_model_dir_close(&w->model);
    scratch_end(&w->scratch);
}

static enum weir_status open_model(struct world *w, const char *where, const char *variant)
{
    weir_model_dir_close(&w->model);
    w->error.words[0] = '\0';
    return weir_model_dir_open(where, variant, &w->model, &w->error);
}

static void see_open(struct world *w, const char *where, const char *variant)
{
    if (open_model(w, where, variant) != WEIR_OK) fail_msg("%s: %s", where, w->error.words);
}

static void see_words(const struct world *w, const char *part)
{
    if (!strstr(w->error.words, part)) fail_msg("\"%s\" does not say \"%s\"", w->error.words, part);
}

static void see_path_ends(const struct world *w, const char *end)
{
    const char *path = weir_model_dir_path(w->model);
    const size_t bytes = strlen(path), end_bytes = strlen(end);
    if (bytes < end_bytes || strcmp(path + bytes - end_bytes, end) != 0) fail_msg("%s, wanted .../%s", path, end);
}

static void write_in(struct world *w, const char *folder, const char *file, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    scratch_text(&w->scratch, path, text);
}

/* A whole model in `folder` of the scratch folder. */
static void make_model(struct world *w, const char *folder)
{
    char path[512];
    write_in(w, folder, "model_index.json", INDEX_JSON);
    write_in(w, folder, "unet/config.json", "{\"sample_size\": 16}");
    write_in(w, folder, "vae/config.json", "{}");
    write_in(w, folder, "scheduler/scheduler_config.json", "{\"lambda_min_clipped\": -Infinity}");
    write_in(w, folder, "tokenizer/vocab.json", "{}");
    write_in(w, folder, "tokenizer/merges.txt", "#version\n");
    static const char *const files[] = { "unet/diffusion_pytorch_model.safetensors",
                                         "vae/diffusion_pytorch_model.fp16.safetensors" };
    for (size_t i = 0; i < WEIR_COUNT(files); i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        scratch_safetensors(&w->scratch, path, TENSOR, 24);
    }
}

static const char *at(struct world *w, const char *path)
{
    return scratch_path(&w->scratch, path);
}

static void a_folder_tells_its_class_its_components_their_configs_and_weights(void **state)
{
    (void)state;
    struct world w = world_begin();
    struct weir_config *config = NULL;
    struct weir_weights *weights = NULL;
    double real = 0;
    char *text = NULL;
    size_t bytes = 0;
    make_model(&w, "m");
    see_open(&w, at(&w, "m"), NULL);
    see_path_ends(&w, "/m");
    assert_string_equal(weir_model_dir_class_name(w.model), "TextToVideoSDPipeline");
    assert_int_equal(weir_model_dir_component_count(w.model), 4);
    assert_string_equal(weir_model_dir_component_at(w.model, 0)->name, "unet");
    assert_null(weir_model_dir_component_at(w.model, 4));
    assert_string_equal(weir_model_dir_component(w.model, "tokenizer")->library, "transformers");
    assert_null(weir_model_dir_component(w.model, "safety_checker"));
    assert_null(weir_model_dir_component(w.model, "requires_safety_checker"));

    static const char *const right[] = { "UNet2DConditionModel", "UNet3DConditionModel", NULL };
    static const char *const wrong[] = { "AutoencoderDC", "AutoencoderTiny", NULL };
    assert_int_equal(weir_model_dir_require(w.model, "unet", right, &w.error), WEIR_OK);
    assert_int_equal(weir_model_dir_require(w.model, "vae", wrong, &w.error), WEIR_BAD_MODEL);
    see_words(&w, "m/model_index.json: component vae is AutoencoderKL, wanted AutoencoderDC or AutoencoderTiny");
    assert_int_equal(weir_model_dir_require(w.model, "text_encoder", right, &w.error), WEIR_BAD_MODEL);
    see_words(&w, "component text_encoder is absent");

    assert_int_equal(weir_model_dir_config(w.model, "scheduler", &config, &w.error), WEIR_OK);
    assert_int_equal(weir_config_real(config, "lambda_min_clipped", 0, -INFINITY, 0, &real, &w.error), WEIR_OK);
    assert_true(isinf(real));
    weir_config_close(&config);
    assert_int_equal(weir_model_dir_config(w.model, "unet", &config, &w.error), WEIR_OK);
    assert_non_null(strstr(weir_config_label(config), "m/unet/config.json"));
    weir_config_close(&config);
    assert_int_equal(weir_model_dir_config(w.model, "text_encoder", &config, &w.error), WEIR_NOT_FOUND);
    see_words(&w, "m/text_encoder/config.json: no such file");

    assert_int_equal(weir_model_dir_weights(w.model, "vae", &weights, &w.error), WEIR_OK);
    assert_string_equal(weir_weights_file(weights, 0), "vae/diffusion_pytorch_model.fp16.safetensors");
    weir_weights_close(&weights);

    assert_true(weir_model_dir_has(w.model, "tokenizer/merges.txt"));
    assert_false(weir_model_dir_has(w.model, "tokenizer"));
    assert_int_equal(weir_model_dir_read(w.model, "tokenizer/merges.txt", 9, &text, &bytes, &w.error), WEIR_OK);
    assert_int_equal(bytes, 9);
    assert_string_equal(text, "#version\n");
    free(text);
    assert_int_equal(weir_model_dir_read(w.model, "tokenizer/merges.txt", 8, &text, &bytes, &w.error), WEIR_TOO_LARGE);
    see_words(&w, "m/tokenizer/merges.txt: 9 bytes, at most 8 are read");
    assert_int_equal(weir_model_dir_read(w.model, "../m/model_index.json", 999, &text, &bytes, &w.error),
                     WEIR_BAD_MODEL);
    see_words(&w, "it leads out of the model's folder");
    assert_true(isnan(weir_model_dir_defaults(w.model)->guidance));
    assert_int_equal(weir_model_dir_defaults(w.model)->steps, 0);
    assert_null(weir_model_dir_defaults(w.model)->sampler);
    world_end(&w);
}

static void a_variant_must_be_of_some_component(void **state)
{
    (void)state;
    struct world w = world_begin();
    make_model(&w, "m");
    see_open(&w, at(&w, "m"), "fp16");
    assert_int_equal(open_model(&w, at(&w, "m"), "fp61"), WEIR_NOT_FOUND);
    see_words(&w, "m: no component has weights of the variant \"fp61\"");
    world_end(&w);
}

static const struct {
    const char *json;
    enum weir_status status;
    const char *words;
} bad_indexes[] = {
    { "", WEIR_BAD_MODEL, "m/model_index.json: line 1" },
    { "{}", WEIR_BAD_MODEL, "m/model_index.json: _class_name is missing, wanted a text" },
    { "{\"_class_name\": 3}", WEIR_BAD_MODEL, "_class_name is 3, wanted a text" },
    { "{\"_class_name\": \"a b\"}", WEIR_BAD_MODEL, "_class_name is \"a b\", wanted the name of a pipeline class" },
    { "{\"_class_name\": \"P\", \"unet\": [\"diffusers\", 3]}", WEIR_BAD_MODEL,
      "component unet is [\"diffusers\", 3]" },
    { "{\"_class_name\": \"P\", \"unet\": [\"diffusers\", null]}", WEIR_BAD_MODEL, "wanted [\"library\"" },
    { "{\"_class_name\": \"P\", \"unet\": [\"diffusers\"]}", WEIR_BAD_MODEL, "wanted [\"library\", \"ClassName\"]" },
    { "{\"_class_name\": \"P\", \"unet\": [\"a\", \"B\", \"c\"]}", WEIR_BAD_MODEL, "wanted [\"library\"" },
    { "{\"_class_name\": \"P\", \"../up\": [\"diffusers\", \"U\"]}", WEIR_BAD_MODEL, "component ../up is" },
    { "{\"_class_name\": \"P\", \"unet\": [\"../d\", \"U\"]}", WEIR_BAD_MODEL, "component unet is [\"../d\", \"U\"]" },
    { "{\"_class_name\": \"P\", \"_class_name\": \"P\"}", WEIR_BAD_MODEL, "duplicate object key" },
};

static void a_bad_model_index_is_refused_with_the_key(void **state)
{
    (void)state;
    struct world w = world_begin();
    for (size_t i = 0; i < WEIR_COUNT(bad_indexes); i++) {
        scratch_text(&w.scratch, "m/model_index.json", bad_indexes[i].json);
        if (open_model(&w, at(&w, "m"), NULL) != bad_indexes[i].status) {
            fail_msg("%s: %s", bad_indexes[i].json, w.error.words);
        }
        see_words(&w, bad_indexes[i].words);
    }
    for (int components = 32; components <= 33; components++) {
        char json[2048] = "{\"_class_name\": \"P\"";
        for (int i = 0; i < components; i++) sprintf(json + strlen(json), ", \"c%d\": [\"l\", \"C\"]", i);
        strcat(json, "}");
        scratch_text(&w.scratch, "m/model_index.json", json);
        assert_int_equal(open_model(&w, at(&w, "m"), NULL), components == 32 ? WEIR_OK : WEIR_TOO_LARGE);
    }
    see_words(&w, "more than 32 components");
    world_end(&w);
}

static void weir_json_says_what_a_request_leaves_open(void **state)
{
    (void)state;
    struct world w = world_begin();
    make_model(&w, "m");
    scratch_text(&w.scratch, "m/weir.json",
                 "{\"steps\": 25, \"guidance\": 5, \"width\": 128, \"height\": 64, \"frames\": 16, \"fps\": 8,"
                 " \"sampler\": \"dpm++\", \"instruction\": \"Say more.\", \"decode_whole_mib\": 3}");
    see_open(&w, at(&w, "m"), NULL);
    const struct weir_defaults *d = weir_model_dir_defaults(w.model);
    assert_int_equal(d->steps, 25);
    assert_true(d->guidance > 4.99 && d->guidance < 5.01);
    assert_int_equal(d->width, 128);
    assert_int_equal(d->height, 64);
    assert_int_equal(d->frames, 16);
    assert_int_equal(d->fps, 8);
    assert_string_equal(d->sampler, "dpm++");
    assert_string_equal(d->instruction, "Say more.");
    assert_int_equal(d->decode_whole_mib, 3);

    static const struct {
        const char *json, *words;
    } bad[] = {
        { "{\"step\": 25}", "m/weir.json: unknown key step, wanted steps, guidance" },
        { "{\"steps\": 0}", "m/weir.json: steps is 0, wanted an integer from 1 to 1000" },
        { "{\"steps\": 1001}", "steps is 1001" },
        { "{\"steps\": \"25\"}", "steps is \"25\"" },
        { "{\"guidance\": -1}", "guidance is -1, wanted a number from 0 to 100" },
        { "{\"guidance\": NaN}", "guidance is NaN" },
        { "{\"width\": 7}", "width is 7, wanted an integer from 8 to 16384" },
        { "{\"height\": 16385}", "height is 16385" },
        { "{\"frames\": 0}", "frames is 0" },
        { "{\"fps\": 241}", "fps is 241, wanted an integer from 1 to 240" },
        { "{\"sampler\": \"no such!\"}", "sampler is \"no such!\"" },
        { "{\"sampler\": 1}", "sampler is 1" },
        { "{\"instruction\": [\"a\"]}", "instruction is [\"a\"]" },
        { "{\"decode_whole_mib\": 0}", "decode_whole_mib is 0, wanted an integer from 1 to 1048576" },
        { "[]", "m/weir.json: it is a list" },
    };
    for (size_t i = 0; i < WEIR_COUNT(bad); i++) {
        scratch_text(&w.scratch, "m/weir.json", bad[i].json);
        if (open_model(&w, at(&w, "m"), NULL) != WEIR_BAD_MODEL) fail_msg("%s was taken", bad[i].json);
        see_words(&w, bad[i].words);
    }
    for (size_t bytes = 16384; bytes <= 16385; bytes++) {
        char *json = malloc(bytes + 64);
        assert_non_null(json);
        strcpy(json, "{\"instruction\": \"");
        memset(json + 17, 'x', bytes);
        strcpy(json + 17 + bytes, "\"}");
        scratch_text(&w.scratch, "m/weir.json", json);
        assert_int_equal(open_model(&w, at(&w, "m"), NULL), bytes == 16384 ? WEIR_OK : WEIR_TOO_LARGE);
        free(json);
    }
    see_words(&w, "instruction has 16385 bytes, at most 16384");
    world_end(&w);
}

static void what_is_no_model_is_refused_with_its_path(void **state)
{
    (void)state;
    struct world w = world_begin();
    scratch_folder(&w.scratch, "empty");
    scratch_text(&w.scratch, "file", "x");
    assert_int_equal(open_model(&w, at(&w, "gone"), NULL), WEIR_NOT_FOUND);
    see_words(&w, "/gone: no such folder");
    assert_int_equal(open_model(&w, at(&w, "file"), NULL), WEIR_NOT_FOUND);
    see_words(&w, "/file: not a folder");
    assert_int_equal(open_model(&w, at(&w, "empty"), NULL), WEIR_NOT_FOUND);
    see_words(&w, "/empty: no model_index.json in it");
    assert_int_equal(open_model(&w, "", NULL), WEIR_BAD_ARGUMENT);
    char *long_path = malloc(5001);
    assert_non_null(long_path);
    memset(long_path, 'a', 5000);
    long_path[5000] = '\0';
    assert_int_equal(open_model(&w, long_path, NULL), WEIR_BAD_ARGUMENT);
    see_words(&w, "its path has 5000 bytes, wanted 1 to 4095");
    free(long_path);
    world_end(&w);
}

static void names_have_one_to_64_plain_characters(void **state)
{
    (void)state;
    static const char sixty_four[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    assert_true(weir_model_name_is_valid("a"));
    assert_true(weir_model_name_is_valid("shapes-modelscope"));
    assert_true(weir_model_name_is_valid("0.5_b-c"));
    assert_true(weir_model_name_is_valid(sixty_four));
    static const char *const wrong[] = { "", "A", "-a", ".a", "_a", "a/b", "a b", "..", "a\n", "\xc3\xa9" };
    for (size_t i = 0; i < WEIR_COUNT(wrong); i++) assert_false(weir_model_name_is_valid(wrong[i]));
    char longer[66] = "a";
    strcat(longer, sixty_four);
    assert_false(weir_model_name_is_valid(longer));
}

static void a_name_is_looked_up_in_order_and_last_of_all_here(void **state)
{
    (void)state;
    struct world w = world_begin();
    char paths[512], here[4096];
    assert_non_null(getcwd(here, sizeof here));
    make_model(&w, "here/zz-model");
    assert_int_equal(chdir(at(&w, "here")), 0);
    see_open(&w, "zz-model", NULL);
    see_path_ends(&w, "/here/zz-model");
    see_open(&w, "./zz-model", NULL);

    make_model(&w, "hub/models--any--ZZ-Model/snapshots/abc");
    write_in(&w, "hub/models--any--ZZ-Model", "refs/main", "abc\n");
    setenv("HF_HUB_CACHE", at(&w, "hub"), 1);
    see_open(&w, "zz-model", NULL);
    see_path_ends(&w, "/hub/models--any--ZZ-Model/snapshots/abc");

    make_model(&w, "second/zz-model");
    scratch_folder(&w.scratch, "first");
    snprintf(paths, sizeof paths, "%s::%s", at(&w, "first"), at(&w, "second"));
    setenv("WEIR_MODELS", paths, 1);
    see_open(&w, "zz-model", NULL);
    see_path_ends(&w, "/second/zz-model");
    make_model(&w, "first/zz-model");
    see_open(&w, "zz-model", NULL);
    see_path_ends(&w, "/first/zz-model");

    assert_int_equal(open_model(&w, "zz-gone", NULL), WEIR_NOT_FOUND);
    see_words(&w, "model zz-gone: not found in ");
    see_words(&w, "/first, ");
    assert_int_equal(chdir(here), 0);
    world_end(&w);
}

static void too_many_places_to_look_in_are_refused(void **state)
{
    (void)state;
    struct world w = world_begin();
    char paths[128] = "";
    for (int i = 0; i < 29; i++) strcat(paths, "/n:"); /* with the source tree, the prefix and the hub: 32 */
    setenv("WEIR_MODELS", paths, 1);
    assert_int_equal(open_model(&w, "zz-gone", NULL), WEIR_NOT_FOUND);
    strcat(paths, "/n");
    setenv("WEIR_MODELS", paths, 1);
    assert_int_equal(open_model(&w, "zz-gone", NULL), WEIR_TOO_LARGE);
    see_words(&w, "WEIR_MODELS: more than 32 folders to look in");
    world_end(&w);
}

/* A snapshot as the hub's own client leaves it: links into blobs/, large files named by their SHA-256. */
static void make_hub_model(struct world *w)
{
    static const char *const small[] = { "unet/config.json", "scheduler/scheduler_config.json", "vae/config.json",
                                         "tokenizer/vocab.json", "tokenizer/merges.txt" };
    char path[512], target[512], hex[WEIR_SHA256_HEX_BYTES];
    uint8_t digest[WEIR_SHA256_BYTES];
    size_t count = 0;
    uint8_t *bytes = safetensors_make(TENSOR, 24, &count);
    weir_sha256_of(bytes, count, digest);
    weir_hex_write(digest, sizeof digest, hex);
    snprintf(path, sizeof path, ORG_MODEL "/blobs/%s", hex);
    scratch_write(&w->scratch, path, bytes, count);
    snprintf(target, sizeof target, "../../../blobs/%s", hex);
    scratch_link(&w->scratch, SNAPSHOT "/unet/diffusion_pytorch_model.safetensors", target);
    scratch_link(&w->scratch, SNAPSHOT "/vae/diffusion_pytorch_model.fp16.safetensors", target);
    free(bytes);
    for (size_t i = 0; i < WEIR_COUNT(small); i++) {
        snprintf(path, sizeof path, ORG_MODEL "/blobs/%040zu", i);
        scratch_text(&w->scratch, path,
                     i == 0   ? "{\"sample_size\": 16}"
                     : i == 1 ? "{\"lambda_min_clipped\": -Infinity}"
                     : i == 4 ? "#version\n"
                              : "{}");
        snprintf(path, sizeof path, SNAPSHOT "/%s", small[i]);
        snprintf(target, sizeof target, "../../../blobs/%040zu", i);
        scratch_link(&w->scratch, path, target);
    }
    scratch_text(&w->scratch, ORG_MODEL "/blobs/index", INDEX_JSON);
    scratch_link(&w->scratch, SNAPSHOT "/model_index.json", "../../blobs/index");
    scratch_text(&w->scratch, ORG_MODEL "/refs/main", "0123abcd");
    setenv("HF_HUB_CACHE", at(w, "hub"), 1);
}

static void a_model_of_the_hub_cache_opens_by_all_its_names(void **state)
{
    (void)state;
    struct world w = world_begin();
    struct weir_weights *weights = NULL;
    make_hub_model(&w);
    const char *const names[] = { "a-model", "Some-Org/A-Model", at(&w, ORG_MODEL), at(&w, SNAPSHOT),
                                  at(&w, SNAPSHOT "/") };
    for (size_t i = 0; i < WEIR_COUNT(names); i++) {
        see_open(&w, names[i], NULL);
        see_path_ends(&w, "/" SNAPSHOT);
        assert_int_equal(weir_model_dir_weights(w.model, "unet", &weights, &w.error), WEIR_OK);
        weir_weights_close(&weights);
    }
    unsetenv("HF_HUB_CACHE");
    assert_int_equal(open_model(&w, "a-model", NULL), WEIR_NOT_FOUND);
    assert_int_equal(rename(at(&w, "hub"), at(&w, "moved")), 0);
    scratch_folder(&w.scratch, "home/.cache/huggingface/x");
    assert_int_equal(rename(at(&w, "moved"), at(&w, "home/.cache/huggingface/hub")), 0);
    see_open(&w, "a-model", NULL);
    setenv("HF_HOME", at(&w, "elsewhere"), 1);
    assert_int_equal(open_model(&w, "a-model", NULL), WEIR_NOT_FOUND);
    setenv("HF_HOME", at(&w, "home/.cache/huggingface"), 1);
    see_open(&w, "a-model", NULL);
    world_end(&w);
}

static void a_name_of_two_organisations_must_be_given_in_full(void **state)
{
    (void)state;
    struct world w = world_begin();
    make_hub_model(&w);
    make_model(&w, "hub/models--other--a-model/snapshots/abc");
    write_in(&w, "hub/models--other--a-model", "refs/main", "abc");
    assert_int_equal(open_model(&w, "a-model", NULL), WEIR_CONFLICT);
    see_words(&w, "give ORG/NAME");
    see_words(&w, "models--Some-Org--A-Model");
    see_words(&w, "models--other--a-model");
    see_open(&w, "other/a-model", NULL);
    assert_int_equal(open_model(&w, "third/a-model", NULL), WEIR_NOT_FOUND);
    world_end(&w);
}

static void without_refs_main_a_lone_snapshot_is_it(void **state)
{
    (void)state;
    struct world w = world_begin();
    make_hub_model(&w);
    unlink(at(&w, ORG_MODEL "/refs/main"));
    see_open(&w, "a-model", NULL);
    scratch_folder(&w.scratch, ORG_MODEL "/snapshots/other");
    assert_int_equal(open_model(&w, "a-model", NULL), WEIR_NOT_FOUND);
    see_words(&w, "no refs/main and 2 snapshots: give one snapshot's folder");
    see_open(&w, at(&w, SNAPSHOT), NULL);
    scratch_text(&w.scratch, ORG_MODEL "/refs/main", "../../x");
    assert_int_equal(open_model(&w, "a-model", NULL), WEIR_BAD_MODEL);
    see_words(&w, "refs/main: \"../../x\" is not a revision");
    scratch_text(&w.scratch, ORG_MODEL "/refs/main", "gone");
    assert_int_equal(open_model(&w, "a-model", NULL), WEIR_NOT_FOUND);
    see_words(&w, "snapshots/gone: no such");
    world_end(&w);
}

static void links_of_a_snapshot_may_not_leave_its_models_folder(void **state)
{
    (void)state;
    struct world w = world_begin();
    struct weir_config *config = NULL;
    make_hub_model(&w);
    make_model(&w, "hub/models--other--b/snapshots/abc");
    unlink(at(&w, SNAPSHOT "/unet/config.json"));
    scratch_link(&w.scratch, SNAPSHOT "/unet/config.json",
                 "../../../../models--other--b/snapshots/abc/unet/config.json");
    see_open(&w, "a-model", NULL);
    assert_int_equal(weir_model_dir_config(w.model, "unet", &config, &w.error), WEIR_BAD_MODEL);
    see_words(&w, "unet/config.json: it leads out of the model's folder");
    world_end(&w);
}

static void links_into_a_sibling_model_are_followed_and_no_others(void **state)
{
    (void)state;
    struct world w = world_begin();
    struct weir_config *config = NULL;
    make_model(&w, "pair/base");
    make_model(&w, "pair/fast");
    unlink(at(&w, "pair/fast/unet/config.json"));
    unlink(at(&w, "pair/fast/unet/diffusion_pytorch_model.safetensors"));
    assert_int_equal(rmdir(at(&w, "pair/fast/unet")), 0);
    scratch_link(&w.scratch, "pair/fast/unet", "../base/unet");
    see_open(&w, at(&w, "pair/fast"), NULL);
    assert_int_equal(weir_model_dir_config(w.model, "unet", &config, &w.error), WEIR_OK);
    assert_non_null(strstr(weir_config_label(config), "pair/fast/unet/config.json"));
    weir_config_close(&config);
    weir_model_dir_close(&w.model);

    unlink(at(&w, "pair/base/model_index.json")); /* now it is any folder */
    see_open(&w, at(&w, "pair/fast"), NULL);
    assert_int_equal(weir_model_dir_config(w.model, "unet", &config, &w.error), WEIR_BAD_MODEL);
    see_words(&w, "it leads out of the model's folder");
    world_end(&w);
}

static void digest_of(struct world *w, bool verify, char hex[WEIR_SHA256_HEX_BYTES])
{
    if (weir_model_dir_digest(w->model, NULL, 0, verify, hex, &w->error) != WEIR_OK) fail_msg("%s", w->error.words);
}

/* The digest is that of the text that sha256sum prints; here it is worked out from the files by another road. */
static void the_digest_is_that_of_the_lines_sha256sum_prints(void **state)
{
    (void)state;
    static const char *const files[] = { "model_index.json",     "scheduler/scheduler_config.json",
                                         "tokenizer/merges.txt", "tokenizer/vocab.json",
                                         "unet/config.json",     "unet/diffusion_pytorch_model.safetensors",
                                         "vae/config.json",      "vae/diffusion_pytorch_model.fp16.safetensors" };
    struct world w = world_begin();
    struct weir_sha256 sha;
    uint8_t digest[WEIR_SHA256_BYTES];
    char hex[WEIR_SHA256_HEX_BYTES], line[256], path[64], wanted[WEIR_SHA256_HEX_BYTES];
    make_model(&w, "m");
    write_in(&w, "m", "README.md", "not used, so not in the digest");
    write_in(&w, "m", "unet/diffusion_pytorch_model.fp32.safetensors", "not chosen");
    weir_sha256_init(&sha);
    for (size_t i = 0; i < WEIR_COUNT(files); i++) {
        char *text = NULL;
        size_t bytes = 0;
        snprintf(path, sizeof path, "m/%s", files[i]);
        assert_int_equal(weir_file_read(at(&w, path), 4096, &text, &bytes, &w.error), WEIR_OK);
        weir_sha256_of(text, bytes, digest);
        free(text);
        weir_hex_write(digest, sizeof digest, hex);
        weir_sha256_update(&sha, line, (size_t)snprintf(line, sizeof line, "%s  %s\n", hex, files[i]));
    }
    weir_sha256_final(&sha, digest);
    weir_hex_write(digest, sizeof digest, wanted);
    see_open(&w, at(&w, "m"), NULL);
    digest_of(&w, false, hex);
    assert_string_equal(hex, wanted);
    digest_of(&w, true, hex);
    assert_string_equal(hex, wanted);
    world_end(&w);
}

static void set_mtime(struct world *w, const char *path, time_t seconds)
{
    const struct timespec times[2] = { { .tv_sec = seconds }, { .tv_sec = seconds } };
    assert_int_equal(utimensat(AT_FDCWD, at(w, path), times, 0), 0);
}

static void the_digest_changes_with_any_file_and_with_the_components_asked_for(void **state)
{
    (void)state;
    static const char *const two[] = { "vae", "unet" }, *const two_swapped[] = { "unet", "vae", "unet" };
    struct world w = world_begin();
    char first[WEIR_SHA256_HEX_BYTES], hex[WEIR_SHA256_HEX_BYTES], again[WEIR_SHA256_HEX_BYTES];
    make_model(&w, "m");
    see_open(&w, at(&w, "m"), NULL);
    digest_of(&w, false, first);
    assert_int_equal(weir_model_dir_digest(w.model, two, 2, false, hex, &w.error), WEIR_OK);
    assert_string_not_equal(hex, first);
    assert_int_equal(weir_model_dir_digest(w.model, two_swapped, 3, false, again, &w.error), WEIR_OK);
    assert_string_equal(hex, again); /* neither order nor repetition counts */

    make_model(&w, "copy");
    see_open(&w, at(&w, "copy"), NULL);
    digest_of(&w, false, hex);
    assert_string_equal(hex, first); /* where the folder lies does not count */
    write_in(&w, "copy", "weir.json", "{\"steps\": 3}");
    digest_of(&w, false, hex);
    assert_string_not_equal(hex, first);
    unlink(at(&w, "copy/weir.json"));
    write_in(&w, "copy", "unet/config.json", "{\"sample_size\": 17}");
    digest_of(&w, false, hex);
    assert_string_not_equal(hex, first);
    unlink(at(&w, "copy/unet/config.json"));
    digest_of(&w, false, hex);
    assert_string_not_equal(hex, first);
    assert_int_equal(weir_model_dir_digest(w.model, (const char *const[]){ "gone" }, 1, false, hex, &w.error),
                     WEIR_NOT_FOUND);
    see_words(&w, "copy/gone: no such");
    world_end(&w);
}

static void a_files_hash_is_remembered_by_its_inode_size_and_mtime_unless_verified(void **state)
{
    (void)state;
    struct world w = world_begin();
    char first[WEIR_SHA256_HEX_BYTES], hex[WEIR_SHA256_HEX_BYTES];
    make_model(&w, "m");
    set_mtime(&w, "m/unet/config.json", 1000);
    see_open(&w, at(&w, "m"), NULL);
    digest_of(&w, false, first);
    assert_int_equal(access(at(&w, "home/.cache/weir/hashes-1"), R_OK), 0);

    /* other bytes under the same facts: what is remembered counts, but not for verify */
    scratch_text(&w.scratch, "m/unet/config.json", "{\"sample_size\": 17}");
    set_mtime(&w, "m/unet/config.json", 1000);
    digest_of(&w, false, hex);
    assert_string_equal(hex, first);
    digest_of(&w, true, hex);
    assert_string_not_equal(hex, first);
    digest_of(&w, false, hex);
    assert_string_not_equal(hex, first); /* verify put it right */

    /* a new mtime is a new file */
    scratch_text(&w.scratch, "m/unet/config.json", "{\"sample_size\": 16}");
    set_mtime(&w, "m/unet/config.json", 1001);
    digest_of(&w, false, hex);
    assert_string_equal(hex, first);
    world_end(&w);
}

static void a_file_written_just_now_is_not_remembered(void **state)
{
    (void)state;
    struct world w = world_begin();
    char hex[WEIR_SHA256_HEX_BYTES], text[64];
    make_model(&w, "m");
    set_mtime(&w, "m/unet/config.json", 1000);
    see_open(&w, at(&w, "m"), NULL);
    digest_of(&w, false, hex);
    const int fd = open(at(&w, "home/.cache/weir/hashes-1"), O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    char cached[4096];
    const ssize_t bytes = read(fd, cached, sizeof cached - 1);
    close(fd);
    assert_true(bytes > 0);
    cached[bytes] = '\0';
    struct stat facts;
    assert_int_equal(stat(at(&w, "m/unet/config.json"), &facts), 0);
    snprintf(text, sizeof text, " %llu ", (unsigned long long)facts.st_ino);
    assert_non_null(strstr(cached, text));
    assert_int_equal(stat(at(&w, "m/vae/config.json"), &facts), 0);
    snprintf(text, sizeof text, " %llu ", (unsigned long long)facts.st_ino);
    assert_null(strstr(cached, text));
    world_end(&w);
}

static void a_damaged_or_unwritable_cache_costs_nothing_but_time(void **state)
{
    (void)state;
    struct world w = world_begin();
    char first[WEIR_SHA256_HEX_BYTES], hex[WEIR_SHA256_HEX_BYTES];
    make_model(&w, "m");
    set_mtime(&w, "m/unet/config.json", 1000);
    see_open(&w, at(&w, "m"), NULL);
    setenv("XDG_CACHE_HOME", at(&w, "cache"), 1);
    scratch_text(&w.scratch, "cache/weir/hashes-1", "\n1 2 3\n1 2 3 4 5 zz\n-1 2 3 4 5 x\n99999999999999999999999 x");
    digest_of(&w, false, first);
    digest_of(&w, false, hex);
    assert_string_equal(hex, first);
    scratch_text(&w.scratch, "file", "x");
    setenv("XDG_CACHE_HOME", at(&w, "file"), 1); /* no folder can be made in it */
    digest_of(&w, false, hex);
    assert_string_equal(hex, first);
    unsetenv("XDG_CACHE_HOME");
    unsetenv("HOME");
    digest_of(&w, false, hex);
    assert_string_equal(hex, first);
    world_end(&w);
}

static void the_cache_of_hashes_forgets_the_oldest_when_full(void **state)
{
    (void)state;
    struct world w = world_begin();
    struct weir_file_hashes hashes;
    char *text = malloc(WEIR_FILE_HASHES_MAX * 128), hex[WEIR_SHA256_HEX_BYTES];
    assert_non_null(text);
    size_t used = 0;
    for (int i = 0; i < WEIR_FILE_HASHES_MAX; i++) used += (size_t)sprintf(text + used, "0 %d 1 2 3 %064d\n", i, i);
    scratch_text(&w.scratch, "home/.cache/weir/hashes-1", text);
    scratch_text(&w.scratch, "new", "x");
    set_mtime(&w, "new", 1000);
    const int fd = open(at(&w, "new"), O_RDONLY | O_CLOEXEC);
    for (int turn = 0; turn < 2; turn++) { /* the second turn finds it in the file that the first has written */
        assert_int_equal(weir_file_hashes_init(&hashes, &w.error), WEIR_OK);
        assert_int_equal(hashes.count, WEIR_FILE_HASHES_MAX);
        assert_int_equal(weir_file_hash(&hashes, fd, "new", false, hex, &w.error), WEIR_OK);
        assert_int_equal(hashes.count, WEIR_FILE_HASHES_MAX);
        assert_int_equal(hashes.changed, turn == 0);
        weir_file_hashes_deinit(&hashes);
    }
    close(fd);
    free(text);
    world_end(&w);
}

static void a_blob_of_the_hub_is_taken_at_its_word_unless_verified(void **state)
{
    (void)state;
    struct world w = world_begin();
    char hub[WEIR_SHA256_HEX_BYTES], plain[WEIR_SHA256_HEX_BYTES], path[512];
    make_hub_model(&w);
    make_model(&w, "m");
    see_open(&w, at(&w, "m"), NULL);
    digest_of(&w, false, plain);
    see_open(&w, "a-model", NULL);
    digest_of(&w, false, hub);
    assert_string_equal(hub, plain); /* the same files, the same digest, in either layout */
    digest_of(&w, true, hub);
    assert_string_equal(hub, plain);

    ssize_t bytes = readlink(at(&w, SNAPSHOT "/unet/diffusion_pytorch_model.safetensors"), path, sizeof path - 1);
    assert_true(bytes > 0);
    path[bytes] = '\0';
    char blob[512];
    snprintf(blob, sizeof blob, ORG_MODEL "/blobs/%s", strrchr(path, '/') + 1);
    scratch_safetensors(&w.scratch, blob, TENSOR " ", 24);
    digest_of(&w, false, hub);
    assert_string_equal(hub, plain);
    assert_int_equal(weir_model_dir_digest(w.model, NULL, 0, true, hub, &w.error), WEIR_BAD_FILE);
    see_words(&w, "unet/diffusion_pytorch_model.safetensors: its blob's name says ");
    world_end(&w);
}

static void join_name(void *context, const char *name, const char *path)
{
    char *names = context;
    assert_int_equal(path[0], '/');
    if (strncmp(name, "zz", 2) != 0 && !strchr(name, '/')) return; /* what the source tree has */
    strcat(names, name);
    strcat(names, " ");
}

static void all_models_that_a_name_would_find_are_listed_once(void **state)
{
    (void)state;
    struct world w = world_begin();
    char names[256] = "", paths[512];
    make_hub_model(&w);
    scratch_folder(&w.scratch, "hub/models--broken--x");
    make_model(&w, "first/zz-a");
    make_model(&w, "second/zz-a");
    make_model(&w, "second/zz-b");
    make_model(&w, "second/ZZ-upper");
    scratch_folder(&w.scratch, "second/zz-empty");
    snprintf(paths, sizeof paths, "%s:%s", at(&w, "first"), at(&w, "second"));
    setenv("WEIR_MODELS", paths, 1);
    weir_model_dir_list(join_name, names);
    assert_string_equal(names, "zz-a zz-b Some-Org/A-Model ");
    world_end(&w);
}

static void a_folder_with_too_many_files_is_refused(void **state)
{
    (void)state;
    struct world w = world_begin();
    struct weir_folder folder;
    char **names = NULL, path[32];
    size_t count = 0;
    for (int i = 0; i < WEIR_FOLDER_ENTRIES_MAX; i++) {
        snprintf(path, sizeof path, "f/%d", i);
        scratch_text(&w.scratch, path, "");
    }
    assert_int_equal(weir_folder_init(&folder, w.scratch.path, "", false, &w.error), WEIR_OK);
    assert_int_equal(weir_folder_names(&folder, "f", &names, &count, &w.error), WEIR_OK);
    assert_int_equal(count, WEIR_FOLDER_ENTRIES_MAX);
    assert_string_equal(names[0], "0");
    assert_string_equal(names[count - 1], "999");
    weir_folder_names_free(&names, count);
    scratch_text(&w.scratch, "f/one-more", "");
    assert_int_equal(weir_folder_names(&folder, "f", &names, &count, &w.error), WEIR_TOO_LARGE);
    see_words(&w, "/f: more than 4096 files in one folder");
    weir_folder_deinit(&folder);
    world_end(&w);
}

static void a_long_path_is_shown_by_its_end(void **state)
{
    (void)state;
    struct world w = world_begin();
    char path[512], label[WEIR_FOLDER_LABEL_BYTES];
    struct weir_folder folder;
    memset(path, 'x', 220);
    strcpy(path + 220, "/model");
    scratch_folder(&w.scratch, path);
    assert_int_equal(weir_folder_init(&folder, at(&w, path), "", false, &w.error), WEIR_OK);
    weir_folder_label(&folder, "unet/config.json", label, sizeof label);
    assert_int_equal(strlen(label), 3 + 160 + 17);
    assert_memory_equal(label, "...xxx", 6);
    assert_non_null(strstr(label, "x/model/unet/config.json"));
    weir_folder_deinit(&folder);
    world_end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_folder_tells_its_class_its_components_their_configs_and_weights),
        cmocka_unit_test(a_variant_must_be_of_some_component),
        cmocka_unit_test(a_bad_model_index_is_refused_with_the_key),
        cmocka_unit_test(weir_json_says_what_a_request_leaves_open),
        cmocka_unit_test(what_is_no_model_is_refused_with_its_path),
        cmocka_unit_test(names_have_one_to_64_plain_characters),
        cmocka_unit_test(a_name_is_looked_up_in_order_and_last_of_all_here),
        cmocka_unit_test(too_many_places_to_look_in_are_refused),
        cmocka_unit_test(a_model_of_the_hub_cache_opens_by_all_its_names),
        cmocka_unit_test(a_name_of_two_organisations_must_be_given_in_full),
        cmocka_unit_test(without_refs_main_a_lone_snapshot_is_it),
        cmocka_unit_test(links_of_a_snapshot_may_not_leave_its_models_folder),
        cmocka_unit_test(links_into_a_sibling_model_are_followed_and_no_others),
        cmocka_unit_test(the_digest_is_that_of_the_lines_sha256sum_prints),
        cmocka_unit_test(the_digest_changes_with_any_file_and_with_the_components_asked_for),
        cmocka_unit_test(a_files_hash_is_remembered_by_its_inode_size_and_mtime_unless_verified),
        cmocka_unit_test(a_file_written_just_now_is_not_remembered),
        cmocka_unit_test(a_damaged_or_unwritable_cache_costs_nothing_but_time),
        cmocka_unit_test(the_cache_of_hashes_forgets_the_oldest_when_full),
        cmocka_unit_test(a_blob_of_the_hub_is_taken_at_its_word_unless_verified),
        cmocka_unit_test(all_models_that_a_name_would_find_are_listed_once),
        cmocka_unit_test(a_folder_with_too_many_files_is_refused),
        cmocka_unit_test(a_long_path_is_shown_by_its_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
