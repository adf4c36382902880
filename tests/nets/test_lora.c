/* Adapters give what diffusers and PEFT give with them, in networks and in whole pipelines, several at once, on every
 * device of this build; rows that have none keep their bytes; and files that are not what they should be are refused in
 * words. The vectors and the files are made by tests/golden/make_tiny_loras.py. */
#include "tests/nets/bench.h"
#include "tests/nets/lora_file.h"

#include "proto/base/bytes.h"
#include "worker/folder.h"
#include "worker/nets/sana_transformer.h"
#include "worker/nets/unet3d.h"

static const double weights_used[] = { 0.7, -0.3 };
static const char *const labels[] = { "one", "two" };

/* ---- a network with its two adapters ---- */

struct net {
    struct weir_device *device;
    struct weir_model_dir *model; /* NULL: opened without */
    struct weir_config *config;
    struct weir_weights *weights;
    struct weir_sana_transformer *sana; /* or */
    struct weir_unet3d *unet;
    const struct weir_params *params;
    struct vectors v;
    struct weir_lora *loras[2];
};

static struct weir_lora *open_lora(const struct weir_params *params, const char *folder, const char *label)
{
    struct weir_lora *lora = NULL;
    char path[512], *bytes = NULL;
    size_t count;
    snprintf(path, sizeof path, "%s/tests/golden/loras/%s-%s.safetensors", WEIR_SOURCE_DIR, folder, label);
    OK(weir_file_read(path, (size_t)1 << 20, &bytes, &count, &error));
    OK(weir_lora_parse(bytes, count, path, params, &lora, &error));
    free(bytes);
    return lora;
}

/* Before anything is opened that a skipped test would leave behind. */
static void need_cuda(void)
{
    struct weir_device *device = device_or_skip("cuda", 1);
    weir_device_close(&device);
}

static struct net net_open(const char *device, const char *folder)
{
    struct net n = { .device = device_or_skip(device, 2), .v = vectors_open(folder) };
    const bool is_sana = strncmp(folder, "tiny-sana", 9) == 0;
    const char *component = is_sana ? "transformer" : "unet";
    struct weir_folder place;
    char path[512];
    snprintf(path, sizeof path, "%s/tests/golden/%s", WEIR_SOURCE_DIR, folder);
    OK(weir_folder_init(&place, path, "", false, &error));
    OK(weir_weights_open(&place, component, NULL, &n.weights, &error));
    weir_folder_deinit(&place);
    snprintf(path, sizeof path, "%s/tests/golden/%s/%s/config.json", WEIR_SOURCE_DIR, folder, component);
    OK(weir_config_open(path, &n.config, &error));
    if (is_sana) {
        struct weir_sana_transformer_config c;
        OK(weir_sana_transformer_config_read(n.config, &c, &error));
        OK(weir_sana_transformer_open(n.device, &c, n.weights, n.device->values, &n.sana, &error));
        n.params = weir_sana_transformer_params(n.sana);
    } else {
        struct weir_unet3d_config c;
        OK(weir_unet3d_config_read(n.config, &c, &error));
        OK(weir_unet3d_open(n.device, &c, n.weights, n.device->values, &n.unet, &error));
        n.params = weir_unet3d_params(n.unet);
    }
    for (size_t i = 0; i < 2; i++) n.loras[i] = open_lora(n.params, folder, labels[i]);
    return n;
}

static void net_close(struct net *n)
{
    for (size_t i = 0; i < 2; i++) weir_lora_destroy(&n->loras[i]);
    weir_sana_transformer_close(&n->sana);
    weir_unet3d_close(&n->unet);
    weir_weights_close(&n->weights);
    weir_config_close(&n->config);
    vectors_close(&n->v);
    weir_device_close(&n->device);
}

/* The sets of a run and their matrices, one behind the other. */
#define SETS_MAX 2
struct sets {
    struct weir_adapter_shape shapes[SETS_MAX];
    struct weir_adapter_set sets[SETS_MAX];
    struct weir_adapters adapters;
    float *factors;
    size_t floats;
};

static void add_set(struct sets *s, const struct net *n, uint32_t first_row, uint32_t row_count,
                    const struct weir_lora_use *uses, size_t count)
{
    struct weir_adapter_shape *shape = &s->shapes[s->adapters.count];
    OK(weir_lora_shape(uses, count, shape, &error));
    const size_t floats = (size_t)weir_adapter_floats(n->params, shape);
    s->factors = realloc(s->factors, (s->floats + floats + 1) * sizeof *s->factors);
    weir_lora_write(n->params, uses, count, shape, s->factors + s->floats);
    s->floats += floats;
    s->sets[s->adapters.count] = (struct weir_adapter_set){ first_row, row_count, shape };
    s->adapters.count++;
    s->adapters.sets = s->sets;
}

static void sets_free(struct sets *s)
{
    for (uint32_t i = 0; i < s->adapters.count; i++) weir_lora_shape_free(&s->shapes[i]);
    free(s->factors);
}

/* Inputs of vectors NAME.NUMBER.*: a copy each, for tensors of a file need not be aligned. */
struct inputs {
    struct io io[4];
    size_t count;
};

static const struct weir_weight *add_input(struct inputs *in, const struct net *n, const char *vector, const char *name,
                                           struct weir_weight *w)
{
    *w = vector_find(&n->v, "%s.%s", vector, name);
    void *values = malloc(w->bytes);
    memcpy(values, w->data, w->bytes);
    in->io[in->count++] = (struct io){ name, values, w->bytes };
    return w;
}

static struct weir_value build(const struct net *n, struct weir_program *p, const struct weir_weight *x, bool guided,
                               uint32_t tokens, const struct weir_adapters *adapters)
{
    const uint32_t rows = (uint32_t)x->shape[0], channels = (uint32_t)x->shape[1];
    const uint32_t frames = n->unet ? (uint32_t)x->shape[2] : 1, height = (uint32_t)x->shape[x->rank - 2];
    const uint32_t width = (uint32_t)x->shape[x->rank - 1];
    const struct weir_dims latents = { rows, channels, frames, height * width, 1 }, one = { rows, 1, 1, 1, 1 };
    const struct weir_dims packed = { rows, frames, height, width, channels };
    const struct weir_value in =
        weir_program_latents_pack(p, weir_program_input(p, "x", WEIR_F32, &latents), 1, 1, &packed);
    const struct weir_value t = weir_program_input(p, "t", WEIR_F32, &one);
    if (n->unet) return weir_unet3d_build_step(n->unet, p, in, t, tokens, adapters);
    struct weir_sana_transformer_step step = { .x = in, .t = t, .tokens = tokens, .adapters = adapters };
    step.lengths = weir_program_input(p, "lengths", WEIR_I32, &one);
    if (guided) step.guidance = weir_program_input(p, "guidance", WEIR_F32, &one);
    return weir_sana_transformer_build_step(n->sana, p, &step);
}

/* A copy in the device's memory. */
static struct weir_binding there(struct weir_device *device, const char *name, const void *host, size_t bytes)
{
    struct weir_binding binding = { .name = name };
    OK(device->table->memory_alloc(device, bytes, &binding.memory, &error));
    if (bytes) to_device(device, binding.memory, host, bytes);
    return binding;
}

/* What the network makes of vector NAME with those sets; free() it. */
static float *run_net(const struct net *n, const char *vector, const struct sets *s, size_t *count)
{
    static const struct sets none = { .floats = 0 };
    struct inputs in = { .count = 0 };
    struct weir_weight x, t, text, other, y = vector_find(&n->v, "%s.y", vector);
    struct weir_program *prepare = NULL, *step = NULL;
    struct weir_binding bindings[WEIR_PROGRAM_NAMES_MAX];
    struct io outputs[WEIR_PROGRAM_NAMES_MAX] = { { 0 } }, text_io;
    char names[WEIR_PROGRAM_NAMES_MAX][16];
    const bool guided = n->sana && weir_sana_transformer_config_of(n->sana)->guidance_embeds;
    if (!s) s = &none;
    add_input(&in, n, vector, "x", &x), add_input(&in, n, vector, "t", &t);
    if (n->sana) add_input(&in, n, vector, "lengths", &other);
    if (guided) add_input(&in, n, vector, "guidance", &other);
    text = vector_find(&n->v, "%s.text", vector);
    text_io = (struct io){ "text", vector_read(&text), text.elements * sizeof(float) };
    const uint32_t rows = (uint32_t)x.shape[0], tokens = (uint32_t)text.shape[1];

    assert_int_equal(weir_program_create(n->device, n->device->values, &prepare), WEIR_OK);
    if (n->unet)
        weir_unet3d_build_prepare(n->unet, prepare, rows, tokens, &s->adapters);
    else
        weir_sana_transformer_build_prepare(n->sana, prepare, rows, tokens, &s->adapters);
    OK(weir_program_finish(prepare, &error));
    const uint32_t slots = n->unet ? weir_unet3d_slot_count(n->unet) : weir_sana_transformer_slot_count(n->sana);
    for (uint32_t i = 0; i < slots; i++) {
        snprintf(names[i], sizeof names[i], "kv%u", i);
        outputs[i] = (struct io){ names[i], NULL, weir_program_bytes(prepare, names[i]) };
        outputs[i].host = malloc(outputs[i].bytes);
    }
    const size_t extra = s->floats ? 1 : 0;
    bindings[slots] = there(n->device, WEIR_ADAPTERS_NAME, s->factors, s->floats * sizeof *s->factors);
    run_program(n->device, prepare, &text_io, 1, outputs, slots, bindings + slots, extra);
    for (uint32_t i = 0; i < slots; i++) {
        bindings[i] = there(n->device, names[i], outputs[i].host, outputs[i].bytes);
        free(outputs[i].host);
    }

    assert_int_equal(weir_program_create(n->device, n->device->values, &step), WEIR_OK);
    const struct weir_value out = build(n, step, &x, guided, tokens, &s->adapters);
    weir_program_output(step, "y", weir_program_guidance(step, out, (struct weir_value){ 0 }, 1));
    OK(weir_program_finish(step, &error));
    float *ys = malloc(y.elements * sizeof *ys);
    run_program(n->device, step, in.io, in.count, &(struct io){ "y", ys, y.elements * sizeof *ys }, 1, bindings,
                slots + extra);
    for (uint32_t i = 0; i <= slots; i++) n->device->table->memory_free(n->device, bindings[i].memory);
    for (size_t i = 0; i < in.count; i++) free(in.io[i].host);
    free(text_io.host);
    weir_program_destroy(&step);
    weir_program_destroy(&prepare);
    *count = y.elements;
    return ys;
}

static const struct {
    const char *folder, *vector;
} networks[] = {
    { "tiny-sana-a", "sana.0" }, { "tiny-sana-b", "sana.0" }, { "tiny-sana-c", "sana.0" }, { "tiny-a", "unet.1" }
};

static void see_networks(const char *device)
{
    struct vectors wanted = vectors_open("loras/vectors");
    for (size_t i = 0; i < WEIR_COUNT(networks); i++) {
        struct net n = net_open(device, networks[i].folder);
        struct sets s = { .floats = 0 };
        const struct weir_lora_use uses[] = { { n.loras[0], weights_used[0] }, { n.loras[1], weights_used[1] } };
        const struct weir_weight w = vector_find(&wanted, "%s.y", networks[i].folder);
        float *values = vector_read(&w);
        char what[64];
        size_t count;
        const struct weir_weight x = vector_find(&n.v, "%s.x", networks[i].vector);
        add_set(&s, &n, 0, (uint32_t)x.shape[0], uses, 2);
        float *y = run_net(&n, networks[i].vector, &s, &count);
        assert_int_equal(count, w.elements);
        snprintf(what, sizeof what, "net=%s adapters=2", networks[i].folder);
        see_close(n.device, what, y, values, count);
        free(y), free(values);
        sets_free(&s);
        net_close(&n);
    }
    vectors_close(&wanted);
}

static void networks_with_two_adapters_give_what_diffusers_gives_on_ref(void **state)
{
    (void)state;
    see_networks("ref");
}

static void networks_with_two_adapters_give_what_diffusers_gives_on_cpu(void **state)
{
    (void)state;
    see_networks("cpu");
}

static void networks_with_two_adapters_give_what_diffusers_gives_on_cuda(void **state)
{
    (void)state;
    need_cuda();
    see_networks("cuda");
    see_networks("cuda bf16");
}

/* Two rows, each with adapters of its own, or one with and one without: each has the bytes that it has where both rows
 * are treated as it is. */
static void see_rows(const char *device)
{
    static const struct {
        const char *folder, *vector;
    } pairs[] = { { "tiny-sana-a", "sana.0" }, { "tiny-sana-b", "sana.0" }, { "tiny-a", "unet.0" } };
    for (size_t i = 0; i < WEIR_COUNT(pairs); i++) {
        struct net n = net_open(device, pairs[i].folder);
        float *alike[3], *y; /* none, one, two on both rows */
        size_t count, other;
        for (size_t k = 0; k < 3; k++) {
            struct sets s = { .floats = 0 };
            if (k) add_set(&s, &n, 0, 2, &(struct weir_lora_use){ n.loras[k - 1], 1 }, 1);
            alike[k] = run_net(&n, pairs[i].vector, k ? &s : NULL, &count);
            sets_free(&s);
        }
        assert_memory_not_equal(alike[0], alike[1], count * sizeof(float));
        assert_memory_not_equal(alike[0], alike[2], count * sizeof(float));
        for (size_t first = 0; first < 3; first++) {
            for (size_t second = 0; second < 3; second++) {
                struct sets s = { .floats = 0 };
                if (first) add_set(&s, &n, 0, 1, &(struct weir_lora_use){ n.loras[first - 1], 1 }, 1);
                if (second) add_set(&s, &n, 1, 1, &(struct weir_lora_use){ n.loras[second - 1], 1 }, 1);
                y = run_net(&n, pairs[i].vector, &s, &other);
                assert_memory_equal(y, alike[first], count / 2 * sizeof(float));
                assert_memory_equal(y + count / 2, alike[second] + count / 2, count / 2 * sizeof(float));
                free(y);
                sets_free(&s);
            }
        }
        for (size_t k = 0; k < 3; k++) free(alike[k]);
        net_close(&n);
    }
}

static void rows_have_the_bytes_of_their_own_adapters_on_ref(void **state)
{
    (void)state;
    see_rows("ref");
}

static void rows_have_the_bytes_of_their_own_adapters_on_cpu(void **state)
{
    (void)state;
    see_rows("cpu");
}

static void rows_have_the_bytes_of_their_own_adapters_on_cuda(void **state)
{
    (void)state;
    need_cuda();
    see_rows("cuda");
    see_rows("cuda bf16");
}

/* ---- whole pipelines ---- */

static const struct run {
    const char *folder, *prompt, *negative;
    int64_t width, height, frames;
    uint32_t steps;
    double guidance;
} runs[] = {
    { "tiny-sana-a", "A red Circle left of a blue star", "blue square", 40, 32, 1, 6, 4.5 },
    { "tiny-sana-b", "A red Circle left of a blue star", NULL, 32, 32, 1, 2, 4.5 },
    { "tiny-a", "a red circle moving right on a blue background", "blue square", 32, 24, 2, 6, 5 },
};

static struct weir_item resolve(const struct bench *b, const struct run *r)
{
    struct weir_item item;
    struct weir_item_wish wish = WEIR_ITEM_WISH_NONE;
    wish.width = r->width, wish.height = r->height, wish.frames = r->frames;
    wish.steps = r->steps, wish.guidance = r->guidance, wish.seed = 51;
    OK(weir_item_resolve(b->facts, &wish, &item, &error));
    return item;
}

/* Two adapters for a pipeline. */
static void open_both(const struct bench *b, const char *folder, struct weir_lora *out[2], size_t bytes[2])
{
    for (size_t i = 0; i < 2; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s-%s", folder, labels[i]);
        out[i] = golden_lora(b, name, &bytes[i]);
    }
}

/* With those adapters, and as many said by the item. */
static void denoise_with(const struct bench *b, struct weir_denoiser *denoiser, struct weir_item *item,
                         const float *embedding, const struct weir_lora_use *uses, uint32_t count, uint32_t steps,
                         float *latents)
{
    struct weir_factors *factors = factors_of(b, uses, count);
    const struct weir_denoiser_input input = { .embedding = embedding, .factors = factors };
    item->lora_count = count;
    denoise_from(denoiser, item, &input, NULL, steps, latents, NULL);
    weir_factors_destroy(&factors);
}

static void see_pipelines(const char *device)
{
    struct vectors v = vectors_open("loras/vectors");
    for (size_t i = 0; i < WEIR_COUNT(runs); i++) {
        const struct run *r = &runs[i];
        struct bench b = bench_open(device, r->folder);
        struct weir_item item = resolve(&b, r);
        const struct weir_weight wanted = vector_find(&v, "%s.latents", r->folder),
                                 pixels = vector_find(&v, "%s.rgb", r->folder);
        const size_t count = weir_item_latent_count(b.facts, &item);
        float *embedding = bench_embed(&b, r->prompt, r->negative, &item), *values = vector_read(&wanted);
        float *latents = malloc(count * sizeof *latents);
        uint8_t *rgb = malloc(item.frames * weir_item_frame_bytes(&item));
        struct weir_denoiser *denoiser = NULL;
        struct weir_decoder *decoder = NULL;
        struct weir_lora *loras[2];
        size_t bytes[2];
        char what[96];
        open_both(&b, r->folder, loras, bytes);
        const struct weir_lora_use uses[] = { { loras[0], weights_used[0] }, { loras[1], weights_used[1] } };
        OK(weir_denoiser_create(b.pipeline, &item, 1, &denoiser, &error));
        denoise_with(&b, denoiser, &item, embedding, uses, 2, r->steps, latents);
        OK(weir_decoder_create(b.pipeline, &item, 0, &decoder, &error));
        OK(weir_decoder_run(decoder, &item, latents, 0, item.frames, rgb, &error));
        const struct closeness c = compare(latents, values, wanted.elements);
        assert_int_equal(pixels.bytes, item.frames * weir_item_frame_bytes(&item));
        snprintf(what, sizeof what, "device=%s folder=%s adapters=2 steps=%u", device, r->folder, r->steps);
        printf("latents %s norm=%.2e max=%.2e\n", what, c.norm, c.max);
        see_pixels(what, rgb, pixels.data, pixels.bytes);
        for (size_t k = 0; k < 2; k++) weir_lora_destroy(&loras[k]);
        weir_decoder_destroy(&decoder);
        weir_denoiser_destroy(&denoiser);
        free(embedding), free(values), free(latents), free(rgb);
        bench_close(&b);
    }
    vectors_close(&v);
}

static void pipelines_with_two_adapters_give_diffusers_pixels_on_ref(void **state)
{
    (void)state;
    see_pipelines("ref");
}

static void pipelines_with_two_adapters_give_diffusers_pixels_on_cpu(void **state)
{
    (void)state;
    see_pipelines("cpu");
}

static void pipelines_with_two_adapters_give_diffusers_pixels_on_cuda(void **state)
{
    (void)state;
    need_cuda();
    see_pipelines("cuda");
}

/* In one handle: none, then adapters of five shapes, then weight 0, then none. What is without them, or with none of
 * them, has the same bytes always; so has what is with them. The memory is what was planned for files of that size. */
static void a_handle_goes_from_adapters_to_adapters(void **state)
{
    (void)state;
    for (size_t i = 0; i < WEIR_COUNT(runs); i++) {
        const struct run *r = &runs[i];
        struct bench b = bench_open("cpu", r->folder);
        const struct weir_item item = resolve(&b, r);
        struct weir_item adapted = item;
        const size_t size = weir_item_latent_count(b.facts, &item) * sizeof(float);
        float *embedding = bench_embed(&b, r->prompt, r->negative, &item);
        float *base = malloc(size), *first = malloc(size), *again = malloc(size);
        struct weir_denoiser *denoiser = NULL;
        struct weir_pipeline_memory plain, planned;
        struct weir_lora *loras[2];
        size_t bytes[2];
        open_both(&b, r->folder, loras, bytes);
        const struct weir_lora_use shapes[][3] = { { { loras[0], 1 }, { loras[1], 1 } },
                                                   { { loras[0], 1 } },
                                                   { { loras[1], 1 } },
                                                   { { loras[0], 1 }, { loras[1], 0.5 }, { loras[0], -0.5 } },
                                                   { { loras[1], 1 }, { loras[1], 1 } } };
        static const uint32_t counts[] = { 2, 1, 1, 3, 2 };
        adapted.lora_count = 2;
        adapted.loras[0].bytes = bytes[0], adapted.loras[1].bytes = bytes[1];
        OK(weir_pipeline_plan_memory(b.pipeline, b.device, WEIR_PIPELINE_DENOISE, &item, &plain, &error));
        OK(weir_pipeline_plan_memory(b.pipeline, b.device, WEIR_PIPELINE_DENOISE, &adapted, &planned, &error));
        assert_true(planned.arena > plain.arena && planned.host > plain.host);
        OK(weir_denoiser_create(b.pipeline, &item, 1, &denoiser, &error));
        denoise(denoiser, &item, embedding, NULL, r->steps, base, NULL);
        assert_true(weir_denoiser_bytes(denoiser) == plain.arena + plain.host);
        denoise_with(&b, denoiser, &adapted, embedding, shapes[0], 2, r->steps, first);
        assert_true(weir_denoiser_bytes(denoiser) <= planned.arena + planned.host);
        weir_denoiser_destroy(&denoiser);
        OK(weir_denoiser_create(b.pipeline, &adapted, 1, &denoiser, &error));
        denoise_with(&b, denoiser, &adapted, embedding, shapes[0], 2, r->steps, again);
        assert_memory_equal(again, first, size);
        assert_true(weir_denoiser_bytes(denoiser) == planned.arena + planned.host);
        assert_memory_not_equal(first, base, size);
        for (size_t k = 0; k < WEIR_COUNT(shapes); k++) {
            denoise_with(&b, denoiser, &adapted, embedding, shapes[k], counts[k], r->steps, again);
            if (k) assert_memory_not_equal(again, first, size);
            if (!k) assert_memory_equal(again, first, size);
        }
        denoise_with(&b, denoiser, &adapted, embedding, shapes[0], 2, r->steps, again);
        assert_memory_equal(again, first, size);
        const struct weir_lora_use nothing[] = { { loras[0], 0 }, { loras[1], -0.0 } };
        denoise_with(&b, denoiser, &adapted, embedding, nothing, 2, r->steps, again);
        assert_memory_equal(again, base, size);
        /* What the item says and what it is given must agree. */
        struct weir_error why = { 0 };
        struct weir_factors *factors = factors_of(&b, nothing, 2);
        const struct weir_denoiser_input input = { .embedding = embedding, .factors = factors };
        uint32_t seat;
        assert_int_equal(weir_denoiser_begin(denoiser, &item, &input, NULL, &seat, &why), WEIR_BAD_ARGUMENT);
        assert_non_null(strstr(why.words, "the item has 0 adapters, but 2 are given"));
        weir_factors_destroy(&factors);
        denoise(denoiser, &item, embedding, NULL, r->steps, again, NULL);
        assert_memory_equal(again, base, size);
        for (size_t k = 0; k < 2; k++) weir_lora_destroy(&loras[k]);
        weir_denoiser_destroy(&denoiser);
        free(embedding), free(base), free(first), free(again);
        bench_close(&b);
    }
}

/* ---- files ---- */

/* A network of four linears of 6 inputs and 4 outputs, two of them one stack, and a convolution. */
static struct weir_params *params_open(struct weir_device *device)
{
    struct weir_params *params = NULL;
    const struct weir_linear_params one = { .in = 6, .out = 4 };
    const struct weir_linear_params stack = { .in = 6, .out = 8, .parts = 2, .part = { "to_q", "to_k" } };
    OK(weir_params_create(device, NULL, WEIR_F32, &params, &error));
    weir_params_linear(params, &stack, "blocks.0.attn1");
    weir_params_linear(params, &one, "blocks.0.attn1.to_out.0");
    weir_params_linear(params, &one, "proj_out");
    weir_params_conv2d(params, &(struct weir_conv2d_params){ .in = 6, .out = 4, .kernel = 3 }, "conv_in");
    OK(weir_params_status(params, &error));
    assert_int_equal(weir_params_part_count(params), 4);
    assert_string_equal(weir_params_part_at(params, 1).name, "blocks.0.attn1.to_k");
    assert_int_equal(weir_params_part_at(params, 1).out, 4);
    assert_int_equal(weir_params_part_find(params, "proj_out"), 3);
    assert_int_equal(weir_params_part_find(params, "blocks.0.attn1"), WEIR_PARAMS_NO_PART);
    assert_string_equal(weir_params_kind(params, "conv_in"), "conv2d");
    return params;
}

static void names_of_every_age_mean_the_same(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b, *alpha, *module, *metadata;
        float scale;
    } styles[] = {
        { "transformer.proj_out.lora_A.weight", "transformer.proj_out.lora_B.weight", NULL, "proj_out", NULL, 1 },
        { "unet.proj_out.lora_A.weight", "unet.proj_out.lora_B.weight", "unet.proj_out.alpha", "proj_out", NULL, 2 },
        { "base_model.model.proj_out.lora_A.weight", "base_model.model.proj_out.lora_B.weight", NULL, "proj_out", NULL,
          1 },
        { "transformer.base_model.model.proj_out.lora_A.weight", "transformer.base_model.model.proj_out.lora_B.weight",
          NULL, "proj_out", "\"lora_adapter_metadata\":\"{\\\"transformer.lora_alpha\\\": 6}\"", 3 },
        { "blocks.0.attn1.to_k.lora.down.weight", "blocks.0.attn1.to_k.lora.up.weight", "blocks.0.attn1.to_k.alpha",
          "blocks.0.attn1.to_k", "\"lora_adapter_metadata\":\"{\\\"lora_alpha\\\": 6}\"", 2 },
        { "unet.blocks.0.attn1.to_q.lora_linear_layer.down.weight",
          "unet.blocks.0.attn1.to_q.lora_linear_layer.up.weight", NULL, "blocks.0.attn1.to_q",
          "\"lora_adapter_metadata\":\"{\\\"unet.alpha_pattern\\\": {\\\"attn1.to_q\\\": 5, \\\"to_k\\\": 7}}\"",
          2.5f },
        { "unet.blocks.0.attn1.processor.to_q_lora.down.weight", "unet.blocks.0.attn1.processor.to_q_lora.up.weight",
          NULL, "blocks.0.attn1.to_q", NULL, 1 },
        { "unet.blocks.0.attn1.processor.to_out_lora.down.weight",
          "unet.blocks.0.attn1.processor.to_out_lora.up.weight", NULL, "blocks.0.attn1.to_out.0", NULL, 1 },
        { "transformer.proj_out.lora_A.weight", "transformer.proj_out.lora_B.weight", NULL, "proj_out",
          "\"lora_adapter_metadata\":\"{\\\"transformer.lora_alpha\\\": 4, \\\"transformer.use_rslora\\\": true}\"",
          2.82842712f },
        { "transformer.proj_out.lora_A.weight", "transformer.proj_out.lora_B.weight", NULL, "proj_out",
          "\"lora_adapter_metadata\":\"{\\\"transformer.alpha_pattern\\\": {\\\"^proj_out\\\": 1}}\"", 0.5f },
    };
    struct weir_device *device = device_or_skip("ref", 2);
    struct weir_params *params = params_open(device);
    for (size_t i = 0; i < WEIR_COUNT(styles); i++) {
        static struct file f;
        struct weir_lora *lora = NULL;
        struct weir_adapter_shape shape;
        float factors[64];
        file_begin(&f, styles[i].metadata);
        file_add(&f, styles[i].b, i % 2 ? "4,2,1,1" : "4,2", 8, 1, true);
        file_add(&f, styles[i].a, i % 2 ? "2,6,1,1" : "2,6", 12, -1, true);
        if (styles[i].alpha) file_add(&f, styles[i].alpha, i % 2 ? "" : "1", 1, 4, false);
        file_end(&f);
        OK(weir_lora_parse(f.bytes, f.count, "file", params, &lora, &error));
        const uint32_t part = weir_params_part_find(params, styles[i].module);
        assert_true(weir_lora_scale(lora, part) == styles[i].scale);
        const struct weir_lora_use use = { lora, 2 };
        OK(weir_lora_shape(&use, 1, &shape, &error));
        assert_true(shape.count == 1 && shape.parts[0].part == part && shape.parts[0].rank == 2);
        assert_int_equal(weir_adapter_floats(params, &shape), 32);
        weir_lora_write(params, &use, 1, &shape, factors);
        for (size_t k = 0; k < 12; k++) assert_true(factors[k] == -1 + (float)(k % 2 * 6 + k / 2) / 16);
        for (size_t k = 0; k < 8; k++)
            assert_true(factors[16 + k] == 2 * styles[i].scale * (1 + (float)(k % 4 * 2 + k / 4) / 16));
        weir_lora_shape_free(&shape);
        weir_lora_destroy(&lora);
    }
    weir_params_destroy(&params);
    weir_device_close(&device);
}

/* Each with one sound module beside it; of what is wrong the words say what it is. */
static void files_that_do_not_fit_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *name, *dims;
        size_t elements;
        float value;
        const char *metadata;
        enum weir_status status;
        const char *words;
    } faults[] = {
        { "transformer.proj_in.lora_A.weight", "2,6", 12, 1, NULL, WEIR_BAD_FILE,
          "f: tensor transformer.proj_in.lora_A.weight: the network has no linear proj_in" },
        { "transformer.conv_in.lora_A.weight", "2,6", 12, 1, NULL, WEIR_UNSUPPORTED,
          "f: tensor transformer.conv_in.lora_A.weight adapts a conv2d of the network; only linears are" },
        { "text_encoder.proj_out.lora_A.weight", "2,6", 12, 1, NULL, WEIR_UNSUPPORTED,
          "f: tensor text_encoder.proj_out.lora_A.weight is of the text encoder, which takes no adapters" },
        { "proj_out.lora_magnitude_vector", "4", 4, 1, NULL, WEIR_UNSUPPORTED, "is of DoRA, which this build has not" },
        { "proj_out.lora_B.bias", "4", 4, 1, NULL, WEIR_UNSUPPORTED, "is a bias; adapters with biases are not taken" },
        { "proj_out.lokr_w1", "4", 4, 1, NULL, WEIR_UNSUPPORTED,
          "is no half of a low-rank adapter that is known here" },
        { "proj_out.processor_lora.down.weight", "2,6", 12, 1, NULL, WEIR_UNSUPPORTED, "is no half of a low-rank" },
        { "unet.proj_out.lora_A.weight", "2,6", 12, 1, NULL, WEIR_BAD_FILE,
          "f: tensor unet.proj_out.lora_A.weight: its other half, lora_B, is missing" },
        { "unet.proj_out.alpha", "", 1, 1, NULL, WEIR_BAD_FILE,
          "f: tensor unet.proj_out.alpha: the half lora_A of its module is missing" },
        { "blocks.0.attn1.to_q.lora_A.weight", "2,6", 12, 1, NULL, WEIR_BAD_FILE,
          "f: tensor blocks.0.attn1.to_q.lora_A.weight says again what blocks.0.attn1.to_q.lora.down.weight says" },
        { "blocks.0.attn1.to_k.lora_A.weight", "2,5", 10, 1, NULL, WEIR_BAD_FILE,
          "f: tensor blocks.0.attn1.to_k.lora_A.weight is [2, 5]; the linear of 6 inputs wants [rank, 6]" },
        { "blocks.0.attn1.to_k.lora_A.weight", "3,6", 18, 1, NULL, WEIR_BAD_FILE,
          "f: tensor blocks.0.attn1.to_k.lora_B.weight is [4, 2]; the linear of 4 outputs wants [4, 3]" },
        { "blocks.0.attn1.to_k.lora_A.weight", "0,6", 0, 1, NULL, WEIR_BAD_FILE, "is [0, 6]; the linear of 6 inputs" },
        { "blocks.0.attn1.to_k.lora_A.weight", "2,6,3,3", 108, 1, NULL, WEIR_BAD_FILE, "is [2, 6, 3, 3]; the linear" },
        { "blocks.0.attn1.to_k.lora_A.weight", "2,6", 12, NAN, NULL, WEIR_BAD_FILE,
          "f: tensor blocks.0.attn1.to_k.lora_A.weight holds NaN; its numbers must be finite" },
        { "blocks.0.attn1.to_k.lora_A.weight", "2,6", 12, -INFINITY, NULL, WEIR_BAD_FILE, "holds -inf; its numbers" },
        { "blocks.0.attn1.to_q.alpha", "2", 2, 1, NULL, WEIR_BAD_FILE, "to_q.alpha is [2], wanted one number" },
        { "blocks.0.attn1.to_q.alpha", "", 1, NAN, NULL, WEIR_BAD_FILE, "to_q.alpha holds NaN" },
        { NULL, NULL, 0, 0, "\"lora_adapter_metadata\":\"{\\\"unet.use_dora\\\": true}\"", WEIR_UNSUPPORTED,
          "f: lora_adapter_metadata: use_dora is true" },
        { NULL, NULL, 0, 0, "\"lora_adapter_metadata\":\"{\\\"lora_alpha\\\": \\\"4\\\"}\"", WEIR_UNSUPPORTED,
          "f: lora_adapter_metadata: lora_alpha is \"4\"; wanted a number" },
        { NULL, NULL, 0, 0, "\"lora_adapter_metadata\":\"{\\\"alpha_pattern\\\": {\\\"a.*\\\": 4}}\"", WEIR_UNSUPPORTED,
          "its keys are names here, not patterns" },
        { NULL, NULL, 0, 0, "\"lora_adapter_metadata\":\"[]\"", WEIR_BAD_FILE, "f: lora_adapter_metadata" },
        { NULL, NULL, 0, 0, "\"lora_adapter_metadata\":\"{\\\"lora_alpha\\\": 1e300}\"", WEIR_BAD_FILE,
          "f: alpha of blocks.0.attn1.to_q is 1e+300, too large for f32" },
    };
    struct weir_device *device = device_or_skip("ref", 2);
    struct weir_params *params = params_open(device);
    for (size_t i = 0; i < WEIR_COUNT(faults); i++) {
        static struct file f;
        struct weir_lora *lora = NULL;
        struct weir_error error = { 0 };
        file_begin(&f, faults[i].metadata);
        file_add(&f, "blocks.0.attn1.to_q.lora.down.weight", "2,6", 12, 1, true);
        file_add(&f, "blocks.0.attn1.to_q.lora.up.weight", "4,2", 8, 1, true);
        if (faults[i].name && strstr(faults[i].name, "to_k"))
            file_add(&f, "blocks.0.attn1.to_k.lora_B.weight", "4,2", 8, 1, true);
        if (faults[i].name) file_add(&f, faults[i].name, faults[i].dims, faults[i].elements, faults[i].value, false);
        file_end(&f);
        assert_int_equal(weir_lora_parse(f.bytes, f.count, "f", params, &lora, &error), faults[i].status);
        if (!strstr(error.words, faults[i].words)) fail_msg("fault %zu: %s", i, error.words);
        assert_int_equal(error.code, faults[i].status);
        assert_null(lora);
    }
    /* Bytes that are no such file, or hold nothing. */
    static struct file f;
    struct weir_lora *lora = NULL;
    struct weir_error error = { 0 };
    assert_int_equal(weir_lora_parse("no file", 7, "f", params, &lora, &error), WEIR_BAD_FILE);
    assert_int_equal(error.code, WEIR_BAD_FILE);
    memcpy(f.bytes, "\2\0\0\0\0\0\0\0{}", 10);
    assert_int_equal(weir_lora_parse(f.bytes, 10, "f", params, &lora, &error), WEIR_BAD_FILE);
    assert_string_equal(error.words, "f: it holds no adapters");
    weir_params_destroy(&params);
    weir_device_close(&device);
}

/* Numbers that a file may hold, but no picture: what comes out says so by not being finite. */
static void huge_numbers_are_seen_in_the_latents(void **state)
{
    (void)state;
    const struct run *r = &runs[0];
    struct bench b = bench_open("cpu", r->folder);
    struct weir_item item = resolve(&b, r);
    const size_t count = weir_item_latent_count(b.facts, &item);
    float *embedding = bench_embed(&b, r->prompt, r->negative, &item), *latents = malloc(count * sizeof *latents);
    struct weir_denoiser *denoiser = NULL;
    struct weir_lora *lora = NULL;
    static struct file f;
    size_t odd = 0;
    file_begin(&f, NULL);
    file_add(&f, "transformer.proj_out.lora_A.weight", "1,24", 24, 3e38f, false);
    file_add(&f, "transformer.proj_out.lora_B.weight", "4,1", 4, 3e38f, false);
    file_end(&f);
    OK(weir_pipeline_lora(b.pipeline, f.bytes, f.count, "huge", &lora, &error));
    OK(weir_denoiser_create(b.pipeline, &item, 1, &denoiser, &error));
    denoise_with(&b, denoiser, &item, embedding, &(struct weir_lora_use){ lora, 1 }, 1, r->steps, latents);
    for (size_t i = 0; i < count; i++) odd += isfinite(latents[i]) ? 0 : 1;
    assert_true(odd > 0);
    weir_lora_destroy(&lora);
    weir_denoiser_destroy(&denoiser);
    free(embedding), free(latents);
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(networks_with_two_adapters_give_what_diffusers_gives_on_ref),
        cmocka_unit_test(networks_with_two_adapters_give_what_diffusers_gives_on_cpu),
        cmocka_unit_test(networks_with_two_adapters_give_what_diffusers_gives_on_cuda),
        cmocka_unit_test(rows_have_the_bytes_of_their_own_adapters_on_ref),
        cmocka_unit_test(rows_have_the_bytes_of_their_own_adapters_on_cpu),
        cmocka_unit_test(rows_have_the_bytes_of_their_own_adapters_on_cuda),
        cmocka_unit_test(pipelines_with_two_adapters_give_diffusers_pixels_on_ref),
        cmocka_unit_test(pipelines_with_two_adapters_give_diffusers_pixels_on_cpu),
        cmocka_unit_test(pipelines_with_two_adapters_give_diffusers_pixels_on_cuda),
        cmocka_unit_test(a_handle_goes_from_adapters_to_adapters),
        cmocka_unit_test(names_of_every_age_mean_the_same),
        cmocka_unit_test(files_that_do_not_fit_are_refused_by_name),
        cmocka_unit_test(huge_numbers_are_seen_in_the_latents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
