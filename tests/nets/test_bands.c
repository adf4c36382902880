/* A decode in bands gives the bytes of the undivided one, on every device of this build, in the memory that was
 * planned.
 *
 *   test_bands FOLDER DEVICE HEIGHT WIDTH [COUNT...]    by hand: of vae/config.json and weights in FOLDER, latents of
 *                                                      that size, in so many bands (5, 2 and 1)
 */
#include "tests/nets/golden.h"
#include "tests/unit/scratch.h"

#include "proto/base/clock.h"
#include "worker/folder.h"
#include "worker/nets/autoencoder_dc.h"
#include "worker/pipelines/internal.h"

#include <sys/resource.h>

static const char *const dc_names[] = { "tiny-sana-a", "tiny-sana-b", "tiny-sana-c" };
static const char *const devices[] = { "ref", "cpu", "cuda" };

/* A component's folder by itself, opened on a device. */
struct dc {
    struct weir_device *device;
    struct weir_folder folder;
    struct weir_weights *weights;
    struct weir_autoencoder_dc_config config;
    struct weir_autoencoder_dc *net;
};

static struct dc dc_open(struct weir_device *device, const char *path)
{
    struct dc dc = { .device = device };
    struct weir_config *config = NULL;
    char file[600];
    snprintf(file, sizeof file, "%s/vae/config.json", path);
    OK(weir_folder_init(&dc.folder, path, "", false, &error));
    OK(weir_weights_open(&dc.folder, "vae", NULL, &dc.weights, &error));
    OK(weir_config_open(file, &config, &error));
    OK(weir_autoencoder_dc_config_read(config, &dc.config, &error));
    OK(weir_autoencoder_dc_open(device, &dc.config, WEIR_AUTOENCODER_DC_DECODER, dc.weights, WEIR_F32, &dc.net,
                                &error));
    weir_config_close(&config);
    return dc;
}

static struct dc tiny_dc_open(struct weir_device *device, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/tests/golden/%s", WEIR_SOURCE_DIR, name);
    return dc_open(device, path);
}

static void dc_close(struct dc *dc)
{
    weir_autoencoder_dc_close(&dc->net);
    weir_weights_close(&dc->weights);
    weir_folder_deinit(&dc->folder);
}

/* NULL when this build has no such device. */
static struct weir_device *device_open(const char *name)
{
    struct weir_device *device = NULL;
    struct weir_error fault;
    const enum weir_status status = weir_device_open(name, 2, &device, &fault);
    if (status != WEIR_OK && status != WEIR_UNSUPPORTED && status != WEIR_NOT_FOUND)
        fail_msg("%s: %s", name, fault.words);
    return device;
}

static size_t count_of(const struct weir_dims *d)
{
    return (size_t)d->rows * d->frames * d->height * d->width * d->channels;
}

/* ---- steps over a whole picture, and in bands ---- */

/* Steps first..last as a program from "x" to "y". */
static struct weir_program *plan_steps(const struct dc *dc, const struct weir_dims *dims, uint32_t first, uint32_t last)
{
    struct weir_program *p = NULL;
    assert_int_equal(weir_program_create(dc->device, WEIR_F32, &p), WEIR_OK);
    const struct weir_value in = weir_program_input(p, "x", WEIR_F32, dims);
    weir_program_output(p, "y", weir_autoencoder_dc_build_steps(dc->net, p, in, first, last));
    OK(weir_program_finish(p, &error));
    return p;
}

static void run_steps(const struct dc *dc, const struct weir_program *p, const float *x, float *y)
{
    const size_t in = weir_program_bytes(p, "x"), out = weir_program_bytes(p, "y");
    float *copy = malloc(in);
    assert_non_null(copy);
    memcpy(copy, x, in);
    run_program(dc->device, p, &(struct io){ "x", copy, in }, 1, &(struct io){ "y", y, out }, 1, NULL, 0);
    free(copy);
}

/* What the steps that run once give, of any latents; free() it. */
static float *run_once(const struct dc *dc, const struct weir_autoencoder_dc_cut *cut, uint32_t height, uint32_t width)
{
    const struct weir_dims z = { 1, 1, height, width, dc->config.latent_channels };
    struct weir_program *p = plan_steps(dc, &z, 0, cut->step - 1);
    float *latents = malloc(count_of(&z) * sizeof *latents), *x = malloc(weir_program_bytes(p, "y"));
    for (size_t i = 0; i < count_of(&z); i++) latents[i] = sinf((float)i);
    assert_int_equal(weir_program_bytes(p, "y"),
                     (size_t)cut->bands.height * cut->width * cut->channels * sizeof(float));
    run_steps(dc, p, latents, x);
    weir_program_destroy(&p);
    free(latents);
    return x;
}

static double seconds(void)
{
    return (double)weir_clock_now_ms() / 1e3;
}

/* Of all threads: what a busy machine leaves comparable. */
static double processor_seconds(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

/* The steps from `cut->step` on in `bands`; free() it. `spent`: the processor's seconds of each band, or NULL. */
static float *run_bands(const struct dc *dc, const struct weir_autoencoder_dc_cut *cut, const struct weir_bands *bands,
                        const float *x, size_t *arena_bytes, double *spent)
{
    const struct weir_dims window = { 1, 1, bands->window, cut->width, cut->channels };
    struct weir_program *p = plan_steps(dc, &window, cut->step, dc->config.stages + 1);
    const size_t row = weir_program_bytes(p, "y") / sizeof(float) / bands->window; /* of what one row becomes */
    assert_int_equal(row, (size_t)bands->scale * bands->scale * cut->width * dc->config.in_channels);
    float *y = malloc(bands->height * row * sizeof *y), *made = malloc(weir_program_bytes(p, "y"));
    assert_non_null(y);
    assert_non_null(made);
    for (uint32_t i = 0; i < bands->count; i++) {
        const struct weir_band band = weir_bands_at(bands, i);
        const double begin = processor_seconds();
        run_steps(dc, p, x + (size_t)band.from * cut->width * cut->channels, made);
        memcpy(y + band.first * row, made + (band.first - band.from) * row, band.count * row * sizeof *y);
        if (spent) spent[i] = processor_seconds() - begin;
    }
    if (arena_bytes) *arena_bytes = weir_program_arena_bytes(p);
    weir_program_destroy(&p);
    free(made);
    return y;
}

static struct weir_bands bands_of(const struct weir_autoencoder_dc_cut *cut, uint32_t halo, uint32_t own)
{
    const uint32_t height = cut->bands.height;
    return (struct weir_bands){ height, cut->bands.scale, halo, own + 2 * halo, own, (height + own - 1) / own, 1 };
}

static size_t picture_bytes(const struct dc *dc, const struct weir_autoencoder_dc_cut *cut)
{
    const uint32_t scale = cut->bands.scale;
    return (size_t)cut->bands.height * scale * cut->width * scale * dc->config.in_channels * sizeof(float);
}

static void bands_of_any_height_give_the_bytes_of_the_whole(void **state)
{
    (void)state;
    for (size_t d = 0; d < WEIR_COUNT(devices); d++) {
        struct weir_device *device = device_open(devices[d]);
        for (size_t i = 0; device && i < WEIR_COUNT(dc_names); i++) {
            struct dc dc = tiny_dc_open(device, dc_names[i]);
            const uint32_t height = 26 / dc.config.factor + 3, width = 3;
            const struct weir_autoencoder_dc_cut cut =
                weir_autoencoder_dc_cut_decode(&dc.config, height, width, UINT64_MAX);
            const uint32_t halo = cut.bands.halo;
            assert_int_equal(cut.bands.count, 1);
            float *x = run_once(&dc, &cut, height, width), *whole = run_bands(&dc, &cut, &cut.bands, x, NULL, NULL);
            uint32_t tried = 0;
            for (uint32_t own = 1; own + 2 * halo < cut.bands.height; own++, tried++) {
                const struct weir_bands bands = bands_of(&cut, halo, own);
                float *y = run_bands(&dc, &cut, &bands, x, NULL, NULL);
                if (memcmp(y, whole, picture_bytes(&dc, &cut)) != 0) {
                    const struct closeness c = compare(y, whole, picture_bytes(&dc, &cut) / sizeof *y);
                    fail_msg("%s on %s: bands of %u rows: norm %.3g max %.3g", dc_names[i], devices[d], own, c.norm,
                             c.max);
                }
                free(y);
            }
            printf("bands device=%s folder=%s rows=%u halo=%u scale=%u heights=%u\n", devices[d], dc_names[i],
                   cut.bands.height, halo, cut.bands.scale, tried);
            assert_true(tried > 3);
            free(x), free(whole);
            dc_close(&dc);
        }
        weir_device_close(&device);
    }
}

static void with_one_row_less_around_them_they_do_not(void **state)
{
    (void)state;
    struct weir_device *device = device_open("ref");
    for (size_t i = 0; i < WEIR_COUNT(dc_names); i++) {
        struct dc dc = tiny_dc_open(device, dc_names[i]);
        const struct weir_autoencoder_dc_cut cut = weir_autoencoder_dc_cut_decode(&dc.config, 5, 3, UINT64_MAX);
        float *x = run_once(&dc, &cut, 5, 3), *whole = run_bands(&dc, &cut, &cut.bands, x, NULL, NULL);
        const struct weir_bands bands = bands_of(&cut, cut.bands.halo - 1, 2);
        float *y = run_bands(&dc, &cut, &bands, x, NULL, NULL);
        assert_memory_not_equal(y, whole, picture_bytes(&dc, &cut));
        free(x), free(y), free(whole);
        dc_close(&dc);
    }
    weir_device_close(&device);
}

/* ---- where it is cut ---- */

/* All rows are of one group, whatever the number of groups; and those that a cut wishes for are as large as can be. */
static void see_groups(const struct weir_bands *b)
{
    assert_in_range(b->groups, 1, b->count);
    for (uint32_t groups = 1; groups <= b->count; groups++) {
        uint32_t next = 0, bands = 0;
        for (uint32_t i = 0; i < groups; i++) {
            const struct weir_band_group group = weir_bands_group(b, groups, i);
            assert_int_equal(group.begin, bands);
            assert_int_equal(group.first, next);
            assert_true(group.bands >= b->count / groups && group.bands <= b->count / groups + 1);
            assert_true(group.count > 0 && group.count <= group.bands * b->own);
            next += group.count;
            bands += group.bands;
        }
        assert_int_equal(next, b->height);
        assert_int_equal(bands, b->count);
    }
}

static void every_row_is_of_one_band_and_its_window_holds_all_that_it_looks_at(void **state)
{
    (void)state;
    uint32_t cuts = 0;
    for (uint32_t height = 1; height < 70; height++) {
        for (uint32_t halo = 0; halo < 9; halo++) {
            for (uint32_t most = 0; most < 75; most++) {
                const struct weir_bands b = weir_bands_cut(height, 4, halo, most, 1 + (height + most) % 4);
                uint32_t next = 0;
                assert_int_equal(b.height, height);
                assert_int_equal(b.scale, 4);
                assert_true(b.count >= 1 && b.window <= height);
                if (most >= height) assert_int_equal(b.count, 1);
                if (b.count > 1) assert_true(b.window <= most || b.own <= (halo ? halo : 1));
                for (uint32_t i = 0; i < b.count; i++) {
                    const struct weir_band band = weir_bands_at(&b, i);
                    const uint32_t end = band.first + band.count, wanted = end + halo < height ? end + halo : height;
                    assert_int_equal(band.first, next);
                    assert_true(band.count > 0);
                    assert_true(band.from + (band.first < halo ? band.first : halo) <= band.first);
                    assert_true(band.from + b.window >= wanted && band.from + b.window <= height);
                    next = end;
                }
                assert_int_equal(next, height);
                see_groups(&b);
                cuts += b.count > 1;
            }
        }
    }
    assert_true(cuts > 1000);
}

/* ---- a family that decodes in bands ---- */

#define ADDED(id, content)                                                                                             \
    "{\"id\": " #id ", \"content\": \"" content                                                                        \
    "\", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, \"special\": true}"
static const char tokenizer_json[] =
    "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null,"
    " \"added_tokens\": [" ADDED(0, "<pad>") ", " ADDED(1, "<bos>") ", " ADDED(
        2,
        "<unk>") "],"
                 " \"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"\xe2\x96\x81\"},"
                 " \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"String\": \" \"}, \"behavior\": \"MergedWithPrevious\","
                 " \"invert\": false},"
                 " \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<bos>\"}},"
                 " {\"Sequence\": {\"id\": \"A\"}}], \"special_tokens\": {\"<bos>\": {\"id\": \"<bos>\", \"ids\": [1]}}},"
                 " \"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": \"<unk>\", \"ignore_merges\": false,"
                 " \"fuse_unk\": true, \"byte_fallback\": true, \"vocab\": {\"<pad>\": 0, \"<bos>\": 1, \"<unk>\": 2, \"a\": 3,"
                 " \"b\": 4, \"ab\": 5, \"\xe2\x96\x81\": 6}, \"merges\": [\"a b\"]}}";
static const char text_json[] =
    "{\"vocab_size\": 64, \"hidden_size\": 24, \"intermediate_size\": 40, \"num_hidden_layers\": 1,"
    " \"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"head_dim\": 8, \"query_pre_attn_scalar\": 8}";
static const char index_json[] =
    "{\"_class_name\": \"SanaPipeline\", \"scheduler\": [\"diffusers\", \"FlowMatchEulerDiscreteScheduler\"],"
    " \"text_encoder\": [\"transformers\", \"Gemma2Model\"], \"tokenizer\": [\"transformers\", \"GemmaTokenizerFast\"],"
    " \"transformer\": [\"diffusers\", \"SanaTransformer2DModel\"], \"vae\": [\"diffusers\", \"AutoencoderDC\"]}";
/* What vae/config.json of Sana says of the decoder. */
static const char sana_vae_json[] =
    "{\"attention_head_dim\": 32, \"in_channels\": 3, \"latent_channels\": 32, \"scaling_factor\": 0.41407,"
    " \"upsample_block_type\": \"interpolate\", \"decoder_block_out_channels\": [128, 256, 512, 512, 1024, 1024],"
    " \"decoder_block_types\": [\"ResBlock\", \"ResBlock\", \"ResBlock\", \"EfficientViTBlock\","
    " \"EfficientViTBlock\", \"EfficientViTBlock\"], \"decoder_qkv_multiscales\": [[], [], [], [5], [5], [5]]}";

/* A model of Sana's family with that vae, without weights; 0: sizes are made as they are wished. */
static void write_model(struct scratch *scratch, const char *vae_json, uint32_t latent_channels, uint32_t bins)
{
    char transformer[512];
    snprintf(transformer, sizeof transformer,
             "{\"in_channels\": %u, \"out_channels\": %u, \"num_attention_heads\": 6, \"attention_head_dim\": 4,"
             " \"num_cross_attention_heads\": 3, \"cross_attention_head_dim\": 8, \"cross_attention_dim\": 24,"
             " \"caption_channels\": 24, \"num_layers\": 1, \"sample_size\": %u}",
             latent_channels, latent_channels, bins ? bins : 8);
    scratch_text(scratch, "model_index.json", index_json);
    scratch_text(scratch, "weir.json", "{\"instruction\": \"ab\"}");
    scratch_text(scratch, "scheduler/scheduler_config.json", "{\"shift\": 3.0}");
    scratch_text(scratch, "tokenizer/tokenizer.json", tokenizer_json);
    scratch_text(scratch, "text_encoder/config.json", text_json);
    scratch_text(scratch, "transformer/config.json", transformer);
    scratch_text(scratch, "vae/config.json", vae_json);
}

struct bench {
    struct scratch scratch;
    struct weir_model_dir *model;
    struct weir_pipeline *pipeline;
};

static struct bench bench_open(const char *vae_json, uint32_t latent_channels, uint32_t bins)
{
    struct bench b = { .scratch = scratch_begin() };
    write_model(&b.scratch, vae_json, latent_channels, bins);
    OK(weir_model_dir_open(b.scratch.path, NULL, &b.model, &error));
    OK(weir_pipeline_open(b.model, &b.pipeline, &error));
    return b;
}

/* With the configuration and weights of tests/golden/tiny-sana-a/vae. */
static struct bench tiny_bench_open(uint32_t bins)
{
    char *config, *weights, path[512];
    size_t config_count, count;
    snprintf(path, sizeof path, "%s/tests/golden/tiny-sana-a/vae/config.json", WEIR_SOURCE_DIR);
    OK(weir_file_read(path, 1 << 20, &config, &config_count, &error));
    struct bench b = bench_open(config, 4, bins);
    snprintf(path, sizeof path, "%s/tests/golden/tiny-sana-a/vae/diffusion_pytorch_model.safetensors", WEIR_SOURCE_DIR);
    OK(weir_file_read(path, 1 << 20, &weights, &count, &error));
    scratch_write(&b.scratch, "vae/diffusion_pytorch_model.safetensors", weights, count);
    free(config), free(weights);
    return b;
}

static void bench_close(struct bench *b)
{
    weir_pipeline_close(&b->pipeline);
    weir_model_dir_close(&b->model);
    scratch_end(&b->scratch);
}

static struct weir_item item_of(const struct bench *b, uint32_t width, uint32_t height)
{
    struct weir_item item;
    struct weir_item_wish wish = WEIR_ITEM_WISH_NONE;
    wish.width = width;
    wish.height = height;
    OK(weir_item_resolve(weir_pipeline_facts(b->pipeline), &wish, &item, &error));
    return item;
}

struct decoded {
    uint8_t *rgb;
    float *f32;
    uint64_t bytes;
};

static struct decoded decode(const struct bench *b, const struct weir_item *item, const float *latents)
{
    const size_t bytes = weir_item_frame_bytes(item);
    struct decoded out = { malloc(bytes), malloc(bytes * sizeof(float)), 0 };
    struct weir_decoder *decoder = NULL;
    OK(weir_decoder_create(b->pipeline, item, 0, &decoder, &error));
    out.bytes = weir_decoder_bytes(decoder);
    OK(weir_decoder_run(decoder, item, latents, 0, 1, out.rgb, &error));
    OK(weir_decoder_run_f32(decoder, item, latents, 0, 1, out.f32, &error));
    OK(weir_decoder_run(decoder, item, latents, 0, 1, out.rgb, &error)); /* again: nothing is left of the last */
    weir_decoder_destroy(&decoder);
    return out;
}

/* The same picture from `bands` tasks, each as if it were of another worker, laid together; then all in one worker. */
static void see_shared(const struct bench *b, const struct weir_item *whole, uint32_t bands, const float *latents,
                       const struct decoded *wanted)
{
    struct weir_item item = *whole;
    struct weir_decoder *decoder = NULL;
    struct weir_pipeline_rows rows;
    struct weir_pipeline_memory planned;
    uint32_t next = 0;
    item.bands = bands;
    const struct weir_sana_size size = weir_item_made(weir_pipeline_facts(b->pipeline), &item);
    const size_t row = (size_t)size.width * 3, rgb_bytes = weir_item_frame_bytes(&item);
    float *made = malloc(size.height * row * sizeof *made), *again = malloc(size.height * row * sizeof *made);
    uint8_t *rgb = malloc(rgb_bytes);
    OK(weir_pipeline_plan_memory(b->pipeline, b->pipeline->device, WEIR_PIPELINE_DECODE, &item, &planned, &error));
    for (uint32_t band = 0; band < bands; band++) {
        OK(weir_pipeline_band_rows(b->pipeline, &item, band, &rows, &error));
        assert_int_equal(rows.first, next);
        assert_int_equal(rows.width * rows.channels, row);
        next += rows.count;
        OK(weir_decoder_create(b->pipeline, &item, 0, &decoder, &error));
        assert_int_equal(planned.arena + planned.host, weir_decoder_bytes(decoder));
        OK(weir_decoder_run_band(decoder, &item, latents, band, made + rows.first * row, &error));
        weir_decoder_destroy(&decoder);
    }
    assert_int_equal(next, size.height);
    OK(weir_pipeline_finish_picture(b->pipeline, &item, made, rgb, &error));
    assert_memory_equal(rgb, wanted->rgb, rgb_bytes);

    float *others = malloc(weir_item_latent_count(weir_pipeline_facts(b->pipeline), &item) * sizeof *others);
    for (size_t i = 0; i < weir_item_latent_count(weir_pipeline_facts(b->pipeline), &item); i++) others[i] = 0.1f;
    OK(weir_decoder_create(b->pipeline, &item, 0, &decoder, &error));
    assert_false(weir_decoder_fits(decoder, whole)); /* whose memory is planned otherwise */
    for (uint32_t i = 0; i < bands; i++) { /* from the last one up, with another picture's band between two of them */
        const uint32_t band = bands - 1 - i;
        OK(weir_pipeline_band_rows(b->pipeline, &item, band, &rows, &error));
        if (i == 1) OK(weir_decoder_run_band(decoder, &item, others, 0, again, &error));
        OK(weir_decoder_run_band(decoder, &item, latents, band, again + rows.first * row, &error));
    }
    assert_memory_equal(again, made, size.height * row * sizeof *made);
    weir_decoder_destroy(&decoder);
    free(made), free(again), free(rgb), free(others);
}

static void see_no_such_bands(const struct bench *b, const struct weir_item *whole, uint32_t count)
{
    struct weir_item item = *whole;
    struct weir_pipeline_rows rows;
    struct weir_error fault;
    assert_int_equal(weir_pipeline_band_rows(b->pipeline, &item, 0, &rows, &fault), WEIR_BAD_ARGUMENT);
    item.bands = count + 1;
    assert_int_equal(weir_pipeline_band_rows(b->pipeline, &item, 0, &rows, &fault), WEIR_BAD_ARGUMENT);
    item.bands = 2;
    assert_int_equal(weir_pipeline_band_rows(b->pipeline, &item, 2, &rows, &fault), WEIR_BAD_ARGUMENT);
    assert_non_null(strstr(fault.words, "band 2 of 2"));
}

static void check_decoder(const char *device_name, struct bench *b, uint32_t width, uint32_t height)
{
    struct weir_device *device = device_open(device_name);
    if (!device) return;
    const struct weir_item item = item_of(b, width, height);
    const size_t count = weir_item_latent_count(weir_pipeline_facts(b->pipeline), &item);
    const uint64_t whole_max = b->pipeline->whole_max;
    float *latents = malloc(count * sizeof *latents);
    for (size_t i = 0; i < count; i++) latents[i] = cosf(3 * (float)i);
    OK(weir_pipeline_load(b->pipeline, device, WEIR_PIPELINE_DECODE, &error));

    assert_int_equal(b->pipeline->family->decode_bands(b->pipeline, &item).count, 1);
    struct decoded whole = decode(b, &item, latents);
    b->pipeline->whole_max = 0;
    const struct weir_bands bands = b->pipeline->family->decode_bands(b->pipeline, &item);
    assert_true(bands.count > 1);
    struct decoded banded = decode(b, &item, latents);
    assert_int_equal(weir_pipeline_bands(b->pipeline, &item), 2);
    for (uint32_t shared = 2; shared <= 4; shared++) see_shared(b, &item, shared, latents, &whole);
    see_shared(b, &item, bands.count, latents, &whole);
    see_no_such_bands(b, &item, bands.count);
    struct weir_pipeline_memory planned;
    OK(weir_pipeline_plan_memory(b->pipeline, device, WEIR_PIPELINE_DECODE, &item, &planned, &error));
    b->pipeline->whole_max = whole_max;

    const size_t bytes = weir_item_frame_bytes(&item);
    printf("decoder device=%s size=%ux%u bands=%u whole=%llu banded=%llu bytes\n", device_name, width, height,
           bands.count, (unsigned long long)whole.bytes, (unsigned long long)banded.bytes);
    assert_memory_equal(banded.rgb, whole.rgb, bytes);
    assert_memory_equal(banded.f32, whole.f32, bytes * sizeof(float));
    assert_int_equal(planned.arena + planned.host, banded.bytes);
    assert_true(banded.bytes < whole.bytes);
    free(whole.rgb), free(whole.f32), free(banded.rgb), free(banded.f32), free(latents);
    weir_pipeline_unload(b->pipeline, WEIR_PIPELINE_DECODE);
    weir_device_close(&device);
}

static void a_decoder_in_bands_gives_the_same_picture_in_less_memory(void **state)
{
    (void)state;
    struct bench b = tiny_bench_open(0);
    for (size_t d = 0; d < WEIR_COUNT(devices); d++) {
        check_decoder(devices[d], &b, 96, 352);
        check_decoder(devices[d], &b, 32, 480);
    }
    bench_close(&b);
}

static void a_picture_that_is_resized_afterwards_too(void **state)
{
    (void)state;
    struct bench b = tiny_bench_open(16);
    for (size_t d = 0; d < WEIR_COUNT(devices); d++) check_decoder(devices[d], &b, 60, 100);
    bench_close(&b);
}

/* Nothing is planned above what the gated convolution of the last attention stage takes: its input, both halves and
 * their product, 13 times 512 channels on an eighth of each side; beside it only what threads work in. */
static void sanas_decoder_at_2048_and_4096_is_planned_in_what_its_attention_takes(void **state)
{
    (void)state;
    static const uint32_t sides[] = { 1024, 2048, 4096 };
    struct bench b = bench_open(sana_vae_json, 32, 0);
    for (size_t d = 0; d < WEIR_COUNT(devices); d++) {
        struct weir_device *device = device_open(devices[d]);
        for (size_t i = 0; device && i < WEIR_COUNT(sides); i++) {
            const struct weir_item item = item_of(&b, sides[i], sides[i]);
            const struct weir_bands bands = b.pipeline->family->decode_bands(b.pipeline, &item);
            const double pixels = (double)sides[i] * sides[i], whole = 3 * 128 * pixels * sizeof(float);
            const double attention = 13 * 512 * pixels / 64 * sizeof(float);
            struct weir_pipeline_memory planned;
            OK(weir_pipeline_plan_memory(b.pipeline, device, WEIR_PIPELINE_DECODE, &item, &planned, &error));
            printf("plan device=%s size=%ux%u bands=%u window=%u own=%u halo=%u arena=%.0f MiB undivided=%.0f MiB\n",
                   devices[d], sides[i], sides[i], bands.count, bands.window, bands.own, bands.halo,
                   (double)planned.arena / (1 << 20), whole / (1 << 20));
            assert_int_equal(bands.count > 1, sides[i] > 1024);
            assert_int_equal(weir_pipeline_bands(b.pipeline, &item), sides[i] / 1024); /* 1, 2, 4 */
            if (sides[i] == 1024) continue;
            assert_true((double)planned.arena < (d == 0 ? 1.15 : 1.35) * attention);
            assert_true((double)planned.arena < 0.4 * whole);
            assert_true((double)bands.count * bands.window < 1.4 * bands.height); /* rows done twice */
        }
        weir_device_close(&device);
    }
    bench_close(&b);
}

/* ---- by hand ---- */

static double peak_gib(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)used.ru_maxrss / (1 << 20);
}

/* What a task of each group takes, and what then so many workers would; in processor's seconds. */
static void print_groups(const struct weir_bands *bands, double once, const double *spent)
{
    for (uint32_t groups = 2; groups <= bands->count && groups <= 4; groups *= 2) {
        double whole = once, longest = 0;
        for (uint32_t i = 0; i < groups; i++) {
            const struct weir_band_group group = weir_bands_group(bands, groups, i);
            double own = 0;
            for (uint32_t k = 0; k < group.bands; k++) own += spent[group.begin + k];
            printf("groups=%u group=%u bands=%u rows=%u cpu_s=%.1f\n", groups, i, group.bands, group.count, once + own);
            whole += own;
            if (once + own > longest) longest = once + own;
        }
        printf("groups=%u whole_cpu_s=%.1f longest=%.1f times=%.2f\n", groups, whole, longest, whole / longest);
    }
}

/* Fewer bands later, so that the peaks are their own. */
static int by_hand(char **words, int more)
{
    uint32_t counts[8] = { 5, 2, 1 };
    const size_t runs = more == 0 ? 3 : (size_t)more;
    if (runs > WEIR_COUNT(counts)) return 2;
    for (int i = 0; i < more; i++) counts[i] = (uint32_t)atoi(words[4 + i]);
    const uint32_t height = (uint32_t)atoi(words[2]), width = (uint32_t)atoi(words[3]);
    struct weir_device *device = device_open(words[1]);
    if (!device || !height || !width) return 2;
    struct dc dc = dc_open(device, words[0]);
    const struct weir_autoencoder_dc_cut cut = weir_autoencoder_dc_cut_decode(&dc.config, height, width, UINT64_MAX);
    const size_t bytes = picture_bytes(&dc, &cut);
    const double begin_once = seconds(), begin_once_cpu = processor_seconds();
    float *x = run_once(&dc, &cut, height, width), *made[WEIR_COUNT(counts)];
    const double once = processor_seconds() - begin_once_cpu;
    int differing = 0;
    printf("class=%s rows=%u columns=%u halo=%u scale=%u once_seconds=%.1f once_cpu_s=%.1f peak_gib=%.2f\n",
           device->numerics_class, cut.bands.height, cut.width, cut.bands.halo, cut.bands.scale, seconds() - begin_once,
           once, peak_gib());
    fflush(stdout);
    for (size_t i = 0; i < runs; i++) {
        if (counts[i] == 0 || counts[i] > cut.bands.height) return 2;
        const uint32_t own = (cut.bands.height + counts[i] - 1) / counts[i];
        const struct weir_bands bands = counts[i] > 1 ? bands_of(&cut, cut.bands.halo, own) : cut.bands;
        size_t arena;
        double *spent = calloc(bands.count, sizeof *spent);
        const double begin = seconds();
        if (bands.window > bands.height) return 2; /* latents too low to be cut */
        made[i] = run_bands(&dc, &cut, &bands, x, &arena, spent);
        printf("bands=%u own=%u window=%u arena_mib=%.0f seconds=%.1f peak_gib=%.2f\n", bands.count, bands.own,
               bands.window, (double)arena / (1 << 20), seconds() - begin, peak_gib());
        print_groups(&bands, once, spent);
        fflush(stdout);
        free(spent);
    }
    for (size_t i = 0; i + 1 < runs; i++) {
        const struct closeness c = compare(made[i], made[runs - 1], bytes / sizeof(float));
        const bool same = memcmp(made[i], made[runs - 1], bytes) == 0;
        printf("bands=%u %s norm=%.2e max=%.2e\n", counts[i], same ? "same bits" : "differ", c.norm, c.max);
        differing += !same;
        free(made[i]);
    }
    free(made[runs - 1]), free(x);
    dc_close(&dc);
    weir_device_close(&device);
    return differing != 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bands_of_any_height_give_the_bytes_of_the_whole),
        cmocka_unit_test(with_one_row_less_around_them_they_do_not),
        cmocka_unit_test(every_row_is_of_one_band_and_its_window_holds_all_that_it_looks_at),
        cmocka_unit_test(a_decoder_in_bands_gives_the_same_picture_in_less_memory),
        cmocka_unit_test(a_picture_that_is_resized_afterwards_too),
        cmocka_unit_test(sanas_decoder_at_2048_and_4096_is_planned_in_what_its_attention_takes),
    };
    if (argc >= 5) return by_hand(argv + 1, argc - 5);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
