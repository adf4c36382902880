/* The networks of the Sana family that read text and denoise give what transformers and diffusers give, on every device
 * of this build. The vectors and the folders are made by tests/golden/make_tiny_sana.py. */
#include "tests/nets/golden.h"

#include "worker/folder.h"
#include "worker/nets/gemma2.h"
#include "worker/nets/sana_controlnet.h"
#include "worker/nets/sana_transformer.h"

#define TOKENS 519 /* the longest text of the family: what configs are read for */

static const char *const sana_names[3] = { "tiny-sana-a", "tiny-sana-b", "tiny-sana-c" };

/* Config and weights of one network. */
struct part {
    struct weir_config *config;
    struct weir_weights *weights;
};

static struct part part_open(const char *name, const char *component)
{
    struct part part = { 0 };
    struct weir_folder folder;
    char path[512];
    snprintf(path, sizeof path, "%s/tests/golden/%s", WEIR_SOURCE_DIR, name);
    OK(weir_folder_init(&folder, path, "", false, &error));
    OK(weir_weights_open(&folder, component, NULL, &part.weights, &error));
    weir_folder_deinit(&folder);
    snprintf(path, sizeof path, "%s/tests/golden/%s/%s/config.json", WEIR_SOURCE_DIR, name, component);
    OK(weir_config_open(path, &part.config, &error));
    return part;
}

static void part_close(struct part *part)
{
    weir_weights_close(&part->weights);
    weir_config_close(&part->config);
}

/* A copy, for tensors of a file need not be aligned; free() it. */
static struct io io_of(const char *name, const struct weir_weight *w)
{
    struct io io = { name, malloc(w->bytes), w->bytes };
    assert_non_null(io.host);
    memcpy(io.host, w->data, w->bytes);
    return io;
}

static void see_nothing_unused(void *context, const struct weir_weight *w)
{
    fail_msg("%s: tensor %s was never read", (const char *)context, w->name);
}

/* ---- Gemma-2 ---- */

/* What real tokens give; what stands behind them, if `lengths` says so, is left out. */
static void see_close_text(struct weir_device *device, const char *what, const float *y, const float *wanted,
                           const struct weir_weight *shape, const int32_t *lengths)
{
    const size_t rows = shape->shape[0], tokens = shape->shape[1], width = shape->shape[2];
    float *a = malloc(shape->elements * sizeof *a), *b = malloc(shape->elements * sizeof *b);
    size_t count = 0;
    for (size_t r = 0; r < rows; r++) {
        const size_t real = (lengths ? (size_t)lengths[r] : tokens) * width;
        memcpy(a + count, y + r * tokens * width, real * sizeof *a);
        memcpy(b + count, wanted + r * tokens * width, real * sizeof *b);
        count += real;
    }
    see_close(device, what, a, b, count);
    free(a), free(b);
}

static void check_gemma2_text(struct weir_device *device, const struct weir_gemma2 *net, const char *name,
                              const struct vectors *v, int number)
{
    const struct weir_weight ids = vector_find(v, "text.%d.ids", number), wanted = vector_find(v, "text.%d.y", number);
    const struct weir_dims dims = { (uint32_t)ids.shape[0], 1, 1, (uint32_t)ids.shape[1], 1 };
    struct weir_program *p = NULL;
    struct io in = io_of("ids", &ids), lengths = { 0 };
    char what[96];
    if (number == 1) {
        const struct weir_weight w = vector_find(v, "text.1.lengths");
        lengths = io_of("lengths", &w);
    }
    assert_int_equal(weir_program_create(device, device->values, &p), WEIR_OK);
    const struct weir_value embedding = weir_gemma2_build(net, p, weir_program_input(p, "ids", WEIR_I32, &dims));
    weir_program_output(p, "y", weir_program_widen(p, embedding));
    OK(weir_program_finish(p, &error));

    float *y = malloc(wanted.elements * sizeof *y), *b = vector_read(&wanted);
    run_program(device, p, &in, 1, &(struct io){ "y", y, wanted.elements * sizeof *y }, 1, NULL, 0);
    snprintf(what, sizeof what, "net=gemma2 folder=%s rows=%u tokens=%u", name, dims.rows, dims.width);
    see_close_text(device, what, y, b, &wanted, lengths.host);
    free(in.host), free(lengths.host), free(y), free(b);
    weir_program_destroy(&p);
}

static void check_gemma2(struct weir_device *device, const char *name)
{
    struct part part = part_open(name, "text_encoder");
    struct vectors v = vectors_open(name);
    struct weir_gemma2_config c;
    struct weir_gemma2 *net = NULL, *shapes = NULL;
    OK(weir_gemma2_config_read(part.config, TOKENS, &c, &error));
    OK(weir_gemma2_open(device, &c, part.weights, device->values, &net, &error));
    weir_weights_unused(part.weights, see_nothing_unused, (void *)(uintptr_t)name);
    for (int i = 0; i < 2; i++) check_gemma2_text(device, net, name, &v, i);

    /* What is planned from shapes alone is what loading then takes. */
    OK(weir_gemma2_open(device, &c, NULL, device->values, &shapes, &error));
    assert_int_equal(weir_gemma2_weight_bytes(shapes), weir_gemma2_weight_bytes(net));
    assert_int_equal(weir_gemma2_parameter_count(shapes), weir_gemma2_parameter_count(net));
    weir_gemma2_close(&shapes);
    weir_gemma2_close(&net);
    vectors_close(&v);
    part_close(&part);
}

/* ---- the transformer ---- */

/* The keys and values of a text, in memory of the device as a step wants them. */
struct slots {
    uint32_t count;
    struct weir_binding bindings[WEIR_PROGRAM_NAMES_MAX];
    char names[WEIR_PROGRAM_NAMES_MAX][WEIR_SANA_TRANSFORMER_SLOT_NAME_BYTES];
};

/* A ControlNet beside the transformer, with what it looks at. */
struct control {
    const struct weir_sana_controlnet *net;
    const struct weir_weight *latents; /* [R, C, H, W] */
    float scale;
};

/* Its inputs in a prepare program, which has `text`; the values of the second in *scales. */
static void add_control(const struct control *control, struct weir_program *p, struct weir_value text,
                        struct io *inputs, float **scales)
{
    const struct weir_sana_transformer_config *c = weir_sana_controlnet_config_of(control->net);
    const struct weir_weight *w = control->latents;
    const uint32_t rows = (uint32_t)w->shape[0], height = (uint32_t)w->shape[2], width = (uint32_t)w->shape[3];
    const struct weir_dims latents = { rows, c->in_channels, 1, height * width, 1 };
    const struct weir_dims packed = { rows, 1, height, width, c->in_channels };
    const struct weir_value x = weir_program_input(p, "latents", WEIR_F32, &latents);
    weir_sana_controlnet_build_prepare(control->net, p, text, weir_program_latents_pack(p, x, 1, 1, &packed));
    *scales = malloc((size_t)rows * c->width * sizeof **scales);
    for (uint32_t i = 0; i < rows * c->width; i++) (*scales)[i] = control->scale;
    inputs[0] = io_of("latents", w);
    inputs[1] = (struct io){ "control_scale", *scales, (size_t)rows * c->width * sizeof **scales };
}

static void prepare(struct weir_device *device, const struct weir_sana_transformer *net, const struct control *control,
                    const struct weir_weight *text, struct slots *slots)
{
    struct weir_program *p = NULL;
    struct io in[3] = { io_of("text", text) }, outputs[WEIR_PROGRAM_NAMES_MAX];
    const uint32_t own = weir_sana_transformer_slot_count(net);
    float *scales = NULL;
    assert_int_equal(weir_program_create(device, device->values, &p), WEIR_OK);
    const struct weir_value words =
        weir_sana_transformer_build_prepare(net, p, (uint32_t)text->shape[0], (uint32_t)text->shape[1], NULL);
    if (control) add_control(control, p, words, in + 1, &scales);
    OK(weir_program_finish(p, &error));
    slots->count = own + (control ? weir_sana_controlnet_slot_count(control->net) : 0);
    for (uint32_t i = 0; i < slots->count; i++) {
        if (i < own)
            weir_sana_transformer_slot_name(i, slots->names[i]);
        else
            weir_sana_controlnet_slot_name(i - own, slots->names[i]);
        outputs[i] = (struct io){ slots->names[i], NULL, weir_program_bytes(p, slots->names[i]) };
        outputs[i].host = malloc(outputs[i].bytes);
        assert_non_null(outputs[i].host);
    }
    run_program(device, p, in, control ? 3 : 1, outputs, slots->count, NULL, 0);
    for (uint32_t i = 0; i < slots->count; i++) {
        void *memory = NULL;
        OK(device->table->memory_alloc(device, outputs[i].bytes, &memory, &error));
        to_device(device, memory, outputs[i].host, outputs[i].bytes);
        slots->bindings[i] = (struct weir_binding){ slots->names[i], memory };
        free(outputs[i].host);
    }
    free(in[0].host), free(in[1].host), free(scales);
    weir_program_destroy(&p);
}

static void slots_free(struct weir_device *device, struct slots *slots)
{
    for (uint32_t i = 0; i < slots->count; i++) device->table->memory_free(device, slots->bindings[i].memory);
}

/* A step's program over inputs "x" [R, C, H, W], "t", "lengths" and perhaps "guidance", with the output "y". */
static struct weir_program *step_program(struct weir_device *device, const struct weir_sana_transformer *net,
                                         const struct weir_sana_controlnet *controlnet, uint32_t rows, uint32_t height,
                                         uint32_t width, uint32_t tokens)
{
    const uint32_t channels = weir_sana_transformer_config_of(net)->in_channels;
    const struct weir_dims latents = { rows, channels, 1, height * width, 1 }, one = { rows, 1, 1, 1, 1 };
    const struct weir_dims packed = { rows, 1, height, width, channels };
    struct weir_program *p = NULL;
    struct weir_sana_transformer_step step = { .tokens = tokens, .controlnet = controlnet };
    assert_int_equal(weir_program_create(device, device->values, &p), WEIR_OK);
    step.x = weir_program_latents_pack(p, weir_program_input(p, "x", WEIR_F32, &latents), 1, 1, &packed);
    step.t = weir_program_input(p, "t", WEIR_F32, &one);
    step.lengths = weir_program_input(p, "lengths", WEIR_I32, &one);
    if (weir_sana_transformer_config_of(net)->guidance_embeds)
        step.guidance = weir_program_input(p, "guidance", WEIR_F32, &one);
    const struct weir_value y = weir_sana_transformer_build_step(net, p, &step);
    weir_program_output(p, "y", weir_program_guidance(p, y, (struct weir_value){ 0 }, 1));
    OK(weir_program_finish(p, &error));
    return p;
}

static void check_transformer_shape(struct weir_device *device, const struct weir_sana_transformer *net,
                                    const char *name, const struct vectors *v, int number)
{
    const bool guided = weir_sana_transformer_config_of(net)->guidance_embeds;
    const struct weir_weight x = vector_find(v, "sana.%d.x", number), t = vector_find(v, "sana.%d.t", number),
                             text = vector_find(v, "sana.%d.text", number), y = vector_find(v, "sana.%d.y", number),
                             lengths = vector_find(v, "sana.%d.lengths", number);
    const uint32_t rows = (uint32_t)x.shape[0], height = (uint32_t)x.shape[2], width = (uint32_t)x.shape[3];
    struct slots slots;
    struct io inputs[4] = { io_of("x", &x), io_of("t", &t), io_of("lengths", &lengths) };
    char what[96];
    if (guided) {
        const struct weir_weight guidance = vector_find(v, "sana.%d.guidance", number);
        inputs[3] = io_of("guidance", &guidance);
    }
    prepare(device, net, NULL, &text, &slots);
    struct weir_program *p = step_program(device, net, NULL, rows, height, width, (uint32_t)text.shape[1]);
    float *wanted = vector_read(&y), *ys = malloc(y.elements * sizeof *ys);
    run_program(device, p, inputs, guided ? 4 : 3, &(struct io){ "y", ys, y.elements * sizeof *ys }, 1, slots.bindings,
                slots.count);
    snprintf(what, sizeof what, "net=sana_transformer folder=%s rows=%u size=%ux%u tokens=%u", name, rows, height,
             width, (uint32_t)text.shape[1]);
    see_close(device, what, ys, wanted, y.elements);

    slots_free(device, &slots);
    for (size_t i = 0; i < WEIR_COUNT(inputs); i++) free(inputs[i].host);
    free(wanted), free(ys);
    weir_program_destroy(&p);
}

static uint64_t bytes_after(struct weir_device *device, const struct weir_sana_transformer *net, uint32_t height,
                            uint32_t width)
{
    struct weir_program *p = step_program(device, net, NULL, 1, height, width, 2);
    weir_program_destroy(&p);
    return weir_sana_transformer_weight_bytes(net);
}

static void check_transformer(struct weir_device *device, const char *name)
{
    struct part part = part_open(name, "transformer");
    struct vectors v = vectors_open(name);
    struct weir_sana_transformer_config c;
    struct weir_sana_transformer *net = NULL, *shapes = NULL;
    OK(weir_sana_transformer_config_read(part.config, &c, &error));
    OK(weir_sana_transformer_open(device, &c, part.weights, device->values, &net, &error));
    weir_weights_unused(part.weights, see_nothing_unused, (void *)(uintptr_t)name);

    /* What is planned from shapes alone is what loading and planning then take. */
    OK(weir_sana_transformer_open(device, &c, NULL, device->values, &shapes, &error));
    assert_int_equal(weir_sana_transformer_parameter_count(shapes), weir_sana_transformer_parameter_count(net));
    assert_int_equal(weir_sana_transformer_weight_bytes(shapes), weir_sana_transformer_weight_bytes(net));
    assert_int_equal(bytes_after(device, shapes, 5, 6), bytes_after(device, net, 5, 6));

    for (int i = 0; i < 2; i++) check_transformer_shape(device, net, name, &v, i);
    weir_sana_transformer_close(&shapes);
    weir_sana_transformer_close(&net);
    vectors_close(&v);
    part_close(&part);
}

/* ---- its ControlNet ---- */

static const char *const control_names[WEIR_COUNT(sana_names)] = { "tiny-sana-control", "tiny-sana-control-b",
                                                                   "tiny-sana-control-c" };

static void check_control_shape(struct weir_device *device, const struct weir_sana_transformer *net,
                                const struct weir_sana_controlnet *controlnet, const char *name,
                                const struct vectors *v, int number)
{
    const struct weir_weight x = vector_find(v, "sana.%d.x", number), t = vector_find(v, "sana.%d.t", number),
                             text = vector_find(v, "sana.%d.text", number), y = vector_find(v, "sana.%d.y", number),
                             lengths = vector_find(v, "sana.%d.lengths", number),
                             latents = vector_find(v, "sana.%d.control", number),
                             scale = vector_find(v, "sana.%d.scale", number);
    const uint32_t rows = (uint32_t)x.shape[0], height = (uint32_t)x.shape[2], width = (uint32_t)x.shape[3];
    struct slots slots;
    struct io inputs[] = { io_of("x", &x), io_of("t", &t), io_of("lengths", &lengths) };
    float *wanted = vector_read(&y), *ys = malloc(y.elements * sizeof *ys), *scales = vector_read(&scale);
    char what[96];
    prepare(device, net, &(struct control){ controlnet, &latents, scales[0] }, &text, &slots);
    struct weir_program *p = step_program(device, net, controlnet, rows, height, width, (uint32_t)text.shape[1]);
    run_program(device, p, inputs, WEIR_COUNT(inputs), &(struct io){ "y", ys, y.elements * sizeof *ys }, 1,
                slots.bindings, slots.count);
    snprintf(what, sizeof what, "net=sana_controlnet folder=%s rows=%u size=%ux%u scale=%.2f", name, rows, height,
             width, (double)scales[0]);
    see_close(device, what, ys, wanted, y.elements);

    slots_free(device, &slots);
    for (size_t i = 0; i < WEIR_COUNT(inputs); i++) free(inputs[i].host);
    free(wanted), free(ys), free(scales);
    weir_program_destroy(&p);
}

static void check_control(struct weir_device *device, const char *name)
{
    struct part base = part_open(name, "transformer"), part = part_open(name, "controlnet");
    struct vectors v = vectors_open(name);
    struct weir_sana_transformer_config of_base, of_control;
    struct weir_sana_transformer *net = NULL;
    struct weir_sana_controlnet *controlnet = NULL, *shapes = NULL;
    OK(weir_sana_transformer_config_read(base.config, &of_base, &error));
    OK(weir_sana_controlnet_config_read(part.config, of_base.layers, &of_control, &error));
    OK(weir_sana_transformer_open(device, &of_base, base.weights, device->values, &net, &error));
    OK(weir_sana_controlnet_open(device, &of_control, part.weights, device->values, &controlnet, &error));
    if (strcmp(name, "tiny-sana-control-b") != 0) /* which has more blocks than are of use */
        weir_weights_unused(part.weights, see_nothing_unused, (void *)(uintptr_t)name);
    else
        assert_int_equal(of_control.layers, 1);
    OK(weir_sana_controlnet_open(device, &of_control, NULL, device->values, &shapes, &error));
    assert_int_equal(weir_sana_controlnet_parameter_count(shapes), weir_sana_controlnet_parameter_count(controlnet));
    assert_int_equal(weir_sana_controlnet_weight_bytes(shapes), weir_sana_controlnet_weight_bytes(controlnet));
    for (int i = 0; i < 2; i++) check_control_shape(device, net, controlnet, name, &v, i);
    weir_sana_controlnet_close(&shapes);
    weir_sana_controlnet_close(&controlnet);
    weir_sana_transformer_close(&net);
    vectors_close(&v);
    part_close(&part);
    part_close(&base);
}

/* ---- every device of this build ---- */

static void every_one_on(const char *device_name, const char *const *names,
                         void (*check)(struct weir_device *device, const char *name))
{
    struct weir_device *device = device_or_skip(device_name, 2);
    for (size_t i = 0; i < WEIR_COUNT(sana_names); i++) check(device, names[i]);
    weir_device_close(&device);
}

static void every_tiny_on(const char *device_name, void (*check)(struct weir_device *device, const char *name))
{
    every_one_on(device_name, sana_names, check);
}

static void gemma2_gives_what_transformers_gives_on_ref(void **state)
{
    (void)state;
    every_tiny_on("ref", check_gemma2);
}

static void gemma2_gives_what_transformers_gives_on_cpu(void **state)
{
    (void)state;
    every_tiny_on("cpu", check_gemma2);
}

static void gemma2_gives_what_transformers_gives_on_cuda(void **state)
{
    (void)state;
    every_tiny_on("cuda", check_gemma2);
}

static void gemma2_nearly_gives_what_transformers_gives_on_cpu_in_bf16(void **state)
{
    (void)state;
    every_tiny_on("cpu bf16", check_gemma2);
}

static void sana_transformer_gives_what_diffusers_gives_on_ref(void **state)
{
    (void)state;
    every_tiny_on("ref", check_transformer);
}

static void sana_transformer_gives_what_diffusers_gives_on_cpu(void **state)
{
    (void)state;
    every_tiny_on("cpu", check_transformer);
}

static void sana_transformer_gives_what_diffusers_gives_on_cuda(void **state)
{
    (void)state;
    every_tiny_on("cuda", check_transformer);
}

static void a_controlnet_adds_what_diffusers_adds_on_ref(void **state)
{
    (void)state;
    every_one_on("ref", control_names, check_control);
}

static void a_controlnet_adds_what_diffusers_adds_on_cpu(void **state)
{
    (void)state;
    every_one_on("cpu", control_names, check_control);
}

static void a_controlnet_adds_what_diffusers_adds_on_cuda(void **state)
{
    (void)state;
    every_one_on("cuda", control_names, check_control);
}

static void the_networks_nearly_give_what_diffusers_gives_on_cuda_in_bf16(void **state)
{
    (void)state;
    every_tiny_on("cuda bf16", check_gemma2);
    every_tiny_on("cuda bf16", check_transformer);
    every_one_on("cuda bf16", control_names, check_control);
}

static void sana_transformer_nearly_gives_what_diffusers_gives_on_cpu_in_bf16(void **state)
{
    (void)state;
    every_tiny_on("cpu bf16", check_transformer);
}

/* ---- positions ---- */

static void a_size_leaves_one_table_of_positions_behind(void **state)
{
    (void)state;
    struct weir_device *device = NULL;
    struct part part = part_open("tiny-sana-c", "transformer");
    struct weir_sana_transformer_config c;
    struct weir_sana_transformer *net = NULL;
    OK(weir_device_open("ref", 1, &device, &error));
    OK(weir_sana_transformer_config_read(part.config, &c, &error));
    OK(weir_sana_transformer_open(device, &c, part.weights, device->values, &net, &error));
    const uint64_t none = weir_sana_transformer_weight_bytes(net), first = bytes_after(device, net, 3, 5);
    assert_true(first >= none + (uint64_t)3 * 5 * c.width * sizeof(float));
    assert_int_equal(bytes_after(device, net, 3, 5), first);
    assert_true(bytes_after(device, net, 5, 3) > first);
    weir_sana_transformer_close(&net);
    part_close(&part);
    weir_device_close(&device);
}

/* ---- what cannot be honoured is refused by name ---- */

struct refusal {
    const char *json, *word;
    enum weir_status status;
};

static void see_refused(const struct refusal *refusal,
                        enum weir_status (*read)(const struct weir_config *config, struct weir_error *error))
{
    struct weir_config *config = NULL;
    struct weir_error words = { 0 };
    OK(weir_config_parse(refusal->json, strlen(refusal->json), "config.json", &config, &error));
    const enum weir_status status = read(config, &words);
    if (status != refusal->status || !strstr(words.words, refusal->word) || !strstr(words.words, "config.json"))
        fail_msg("%s: %s \"%s\", wanted %s with the word %s", refusal->json, weir_status_name(status), words.words,
                 weir_status_name(refusal->status), refusal->word);
    weir_config_close(&config);
}

static enum weir_status read_gemma2(const struct weir_config *config, struct weir_error *error)
{
    struct weir_gemma2_config out;
    return weir_gemma2_config_read(config, TOKENS, &out, error);
}

static enum weir_status read_transformer(const struct weir_config *config, struct weir_error *error)
{
    struct weir_sana_transformer_config out;
    return weir_sana_transformer_config_read(config, &out, error);
}

static void settings_that_cannot_be_honoured_are_refused_by_key(void **state)
{
    (void)state;
    static const struct refusal gemma2[] = {
        { "{\"hidden_activation\": \"gelu\"}", "hidden_activation", WEIR_UNSUPPORTED },
        { "{\"attention_bias\": true}", "attention_bias", WEIR_UNSUPPORTED },
        { "{\"use_bidirectional_attention\": true}", "use_bidirectional_attention", WEIR_UNSUPPORTED },
        { "{\"sliding_window\": 518}", "sliding_window is 518", WEIR_UNSUPPORTED },
        { "{\"sliding_window\": 0}", "sliding_window", WEIR_BAD_MODEL },
        { "{\"num_hidden_layers\": 2, \"layer_types\": [\"full_attention\"]}", "layer_types", WEIR_UNSUPPORTED },
        { "{\"num_hidden_layers\": 1, \"layer_types\": [\"chunked_attention\"]}", "layer_types", WEIR_UNSUPPORTED },
        { "{\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 2}}", "rope_scaling: rope_type is \"linear\"",
          WEIR_UNSUPPORTED },
        { "{\"rope_scaling\": {\"type\": \"dynamic\"}}", "rope_scaling: type is \"dynamic\"", WEIR_UNSUPPORTED },
        { "{\"rope_scaling\": \"linear\"}", "rope_scaling", WEIR_BAD_MODEL },
        { "{\"rope_parameters\": {\"rope_type\": \"yarn\"}}", "rope_parameters: rope_type is \"yarn\"",
          WEIR_UNSUPPORTED },
        { "{\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"default\"}}}",
          "rope_parameters: full_attention", WEIR_UNSUPPORTED },
        { "{\"rope_parameters\": {\"rope_theta\": 0}}", "rope_parameters: rope_theta", WEIR_BAD_MODEL },
        { "{\"num_key_value_heads\": 3}", "num_key_value_heads", WEIR_UNSUPPORTED },
        { "{\"head_dim\": 255}", "head_dim", WEIR_UNSUPPORTED },
        { "{\"attn_logit_softcapping\": 0}", "attn_logit_softcapping", WEIR_BAD_MODEL },
        { "{\"num_hidden_layers\": 65}", "num_hidden_layers", WEIR_BAD_MODEL },
    }, transformer[] = {
        { "{\"patch_size\": 2}", "patch_size", WEIR_UNSUPPORTED },
        { "{\"norm_elementwise_affine\": true}", "norm_elementwise_affine", WEIR_UNSUPPORTED },
        { "{\"qk_norm\": \"layer_norm\"}", "qk_norm", WEIR_UNSUPPORTED },
        { "{\"cross_attention_dim\": null}", "cross_attention_dim is null", WEIR_UNSUPPORTED },
        { "{\"num_cross_attention_heads\": null}", "num_cross_attention_heads", WEIR_UNSUPPORTED },
        { "{\"cross_attention_dim\": 2304}", "cross_attention_dim", WEIR_UNSUPPORTED },
        { "{\"num_attention_heads\": 71}", "cross_attention_dim", WEIR_UNSUPPORTED },
        { "{\"num_attention_heads\": 1024, \"attention_head_dim\": 1024}", "num_attention_heads", WEIR_UNSUPPORTED },
        { "{\"cross_attention_head_dim\": 1024}", "num_cross_attention_heads", WEIR_UNSUPPORTED },
        { "{\"mlp_ratio\": 0}", "mlp_ratio", WEIR_BAD_MODEL },
        { "{\"interpolation_scale\": 0}", "interpolation_scale", WEIR_BAD_MODEL },
        { "{\"interpolation_scale\": 1, \"num_attention_heads\": 3, \"attention_head_dim\": 7,"
          " \"cross_attention_dim\": 21}",
          "interpolation_scale", WEIR_UNSUPPORTED },
        { "{\"num_layers\": 129}", "num_layers", WEIR_BAD_MODEL },
        { "{\"guidance_embeds\": 1}", "guidance_embeds", WEIR_BAD_MODEL },
    };
    for (size_t i = 0; i < WEIR_COUNT(gemma2); i++) see_refused(&gemma2[i], read_gemma2);
    for (size_t i = 0; i < WEIR_COUNT(transformer); i++) see_refused(&transformer[i], read_transformer);
}

static struct weir_config *parse(const char *json)
{
    struct weir_config *config = NULL;
    OK(weir_config_parse(json, strlen(json), "config.json", &config, &error));
    return config;
}

/* What the classes fill in for keys that a file leaves out. */
static void an_empty_config_is_the_classes_own(void **state)
{
    (void)state;
    struct weir_config *config = parse("{}");
    struct weir_gemma2_config g;
    struct weir_sana_transformer_config s;
    OK(weir_gemma2_config_read(config, TOKENS, &g, &error));
    OK(weir_sana_transformer_config_read(config, &s, &error));
    weir_config_close(&config);
    assert_int_equal(g.vocabulary, 256000);
    assert_int_equal(g.width, 2304);
    assert_int_equal(g.feed_forward, 9216);
    assert_int_equal(g.layers, 26);
    assert_int_equal(g.heads, 8);
    assert_int_equal(g.kv_heads, 4);
    assert_int_equal(g.head_dim, 256);
    assert_true(g.softcap == 50 && g.score_scale == 0.0625f && g.rope_theta == 10000 && g.norm_eps == 1e-6f);
    assert_int_equal(s.in_channels, 32);
    assert_int_equal(s.out_channels, 32);
    assert_int_equal(s.caption_channels, 2304);
    assert_int_equal(s.layers, 20);
    assert_int_equal(s.width, 2240);
    assert_int_equal(s.cross_heads, 20);
    assert_int_equal(s.cross_head_dim, 112);
    assert_int_equal(s.hidden, 5600);
    assert_int_equal(s.sample_size, 32);
    assert_false(s.attention_bias || s.qk_norm || s.guidance_embeds);
    assert_true(s.interpolation_scale == 0 && s.norm_eps == 1e-6f);
    assert_true(s.guidance_embeds_scale == 0.1 && s.timestep_scale == 1);
}

static uint64_t transformer_count(struct weir_device *device, const char *json)
{
    struct weir_config *config = parse(json);
    struct weir_sana_transformer_config c;
    struct weir_sana_transformer *net = NULL;
    OK(weir_sana_transformer_config_read(config, &c, &error));
    OK(weir_sana_transformer_open(device, &c, NULL, device->values, &net, &error));
    const uint64_t count = weir_sana_transformer_parameter_count(net);
    weir_sana_transformer_close(&net);
    weir_config_close(&config);
    return count;
}

static uint64_t controlnet_count(struct weir_device *device, const char *json)
{
    struct weir_config *config = parse(json);
    struct weir_sana_transformer_config c;
    struct weir_sana_controlnet *net = NULL;
    OK(weir_sana_controlnet_config_read(config, 20, &c, &error));
    OK(weir_sana_controlnet_open(device, &c, NULL, device->values, &net, &error));
    const uint64_t count = weir_sana_controlnet_parameter_count(net);
    weir_sana_controlnet_close(&net);
    weir_config_close(&config);
    return count;
}

/* The released sizes, as the classes of upstream count them. */
static void released_models_have_their_number_of_parameters(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        uint64_t count;
    } cases[] = {
        { "{}", 1604462752 },
        { "{\"num_layers\": 28, \"num_attention_heads\": 36, \"num_cross_attention_heads\": 16,"
          " \"cross_attention_head_dim\": 72, \"cross_attention_dim\": 1152}",
          591747872 },
        { "{\"qk_norm\": \"rms_norm_across_heads\"}", 1604641952 },
        { "{\"qk_norm\": \"rms_norm_across_heads\", \"num_layers\": 60}", 4721825952 },
        { "{\"qk_norm\": \"rms_norm_across_heads\", \"guidance_embeds\": true}", 1610237472 },
    };
    struct weir_device *device = NULL;
    struct weir_config *config = parse("{}");
    struct weir_gemma2_config c;
    struct weir_gemma2 *gemma2 = NULL;
    OK(weir_device_open("ref", 1, &device, &error));
    for (size_t i = 0; i < WEIR_COUNT(cases); i++)
        assert_int_equal(transformer_count(device, cases[i].json), cases[i].count);
    assert_int_equal(controlnet_count(device, "{}"), 631576960);
    assert_int_equal(controlnet_count(device, "{\"num_attention_heads\": 36, \"num_cross_attention_heads\": 16,"
                                              " \"cross_attention_head_dim\": 72, \"cross_attention_dim\": 1152}"),
                     168765696);
    OK(weir_gemma2_config_read(config, TOKENS, &c, &error));
    OK(weir_gemma2_open(device, &c, NULL, device->values, &gemma2, &error));
    assert_int_equal(weir_gemma2_parameter_count(gemma2), 2614341888);
    weir_gemma2_close(&gemma2);
    weir_config_close(&config);
    weir_device_close(&device);
}

/* Where null, absence and the two spellings of transformers part. */
static void null_is_not_absent_and_either_spelling_of_rope_counts(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        float softcap, theta;
    } cases[] = {
        { "{\"attn_logit_softcapping\": null, \"rope_theta\": 500}", 0, 500 },
        { "{\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 70}, \"rope_theta\": 500}", 50, 70 },
        { "{\"rope_scaling\": {\"type\": \"default\"}, \"rope_theta\": 500}", 50, 500 },
        { "{\"rope_scaling\": null, \"sliding_window\": null}", 50, 10000 },
        { "{\"sliding_window\": 519}", 50, 10000 },
        { "{\"num_hidden_layers\": 1, \"layer_types\": [\"full_attention\"], \"sliding_window\": 8}", 50, 10000 },
    };
    for (size_t i = 0; i < WEIR_COUNT(cases); i++) {
        struct weir_config *config = parse(cases[i].json);
        struct weir_gemma2_config c = { 0 };
        OK(weir_gemma2_config_read(config, TOKENS, &c, &error));
        if (c.softcap != cases[i].softcap || c.rope_theta != cases[i].theta)
            fail_msg("%s: softcap %g, theta %g", cases[i].json, (double)c.softcap, (double)c.rope_theta);
        weir_config_close(&config);
    }
    struct weir_config *config = parse("{\"in_channels\": 16, \"out_channels\": null}");
    struct weir_sana_transformer_config s;
    OK(weir_sana_transformer_config_read(config, &s, &error));
    assert_int_equal(s.out_channels, 16);
    weir_config_close(&config);
}

/* Folders whose config and weights disagree: the words name the file, the tensor and both shapes. */
static void a_tensor_of_another_shape_or_none_is_named(void **state)
{
    (void)state;
    struct weir_device *device = NULL;
    struct part text = part_open("tiny-sana-c", "text_encoder"), transformer = part_open("tiny-sana-a", "transformer");
    struct weir_gemma2_config g;
    struct weir_sana_transformer_config s;
    struct weir_gemma2 *gemma2 = NULL;
    struct weir_sana_transformer *net = NULL;
    struct weir_error refusal = { 0 };
    OK(weir_device_open("ref", 1, &device, &error));
    OK(weir_gemma2_config_read(text.config, TOKENS, &g, &error));
    OK(weir_sana_transformer_config_read(transformer.config, &s, &error));

    g.layers = 3;
    assert_int_equal(weir_gemma2_open(device, &g, text.weights, device->values, &gemma2, &refusal), WEIR_BAD_MODEL);
    assert_null(gemma2);
    assert_non_null(strstr(refusal.words, "model.layers.2.input_layernorm.weight is missing"));
    g.layers = 2;
    g.kv_heads = 1;
    assert_int_equal(weir_gemma2_open(device, &g, text.weights, device->values, &gemma2, &refusal), WEIR_BAD_MODEL);
    assert_non_null(strstr(refusal.words, "model.layers.0.self_attn.k_proj.weight is [30, 18]"));
    assert_non_null(strstr(refusal.words, "[10, 18]"));
    assert_non_null(strstr(refusal.words, "model.fp16.safetensors"));

    s.qk_norm = true;
    assert_int_equal(weir_sana_transformer_open(device, &s, transformer.weights, device->values, &net, &refusal),
                     WEIR_BAD_MODEL);
    assert_null(net);
    assert_non_null(strstr(refusal.words, "transformer_blocks.0.attn2.norm_k.weight is missing"));
    s.qk_norm = false;
    s.hidden = 61;
    assert_int_equal(weir_sana_transformer_open(device, &s, transformer.weights, device->values, &net, &refusal),
                     WEIR_BAD_MODEL);
    assert_non_null(strstr(refusal.words, "transformer_blocks.0.ff.conv_inverted.weight is [120, 24, 1, 1]"));
    assert_non_null(strstr(refusal.words, "[122, 24]"));
    assert_non_null(strstr(refusal.words, "diffusion_pytorch_model.safetensors"));

    part_close(&transformer);
    part_close(&text);
    weir_device_close(&device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gemma2_gives_what_transformers_gives_on_ref),
        cmocka_unit_test(gemma2_gives_what_transformers_gives_on_cpu),
        cmocka_unit_test(gemma2_gives_what_transformers_gives_on_cuda),
        cmocka_unit_test(gemma2_nearly_gives_what_transformers_gives_on_cpu_in_bf16),
        cmocka_unit_test(sana_transformer_gives_what_diffusers_gives_on_ref),
        cmocka_unit_test(sana_transformer_gives_what_diffusers_gives_on_cpu),
        cmocka_unit_test(sana_transformer_gives_what_diffusers_gives_on_cuda),
        cmocka_unit_test(a_controlnet_adds_what_diffusers_adds_on_ref),
        cmocka_unit_test(a_controlnet_adds_what_diffusers_adds_on_cpu),
        cmocka_unit_test(a_controlnet_adds_what_diffusers_adds_on_cuda),
        cmocka_unit_test(the_networks_nearly_give_what_diffusers_gives_on_cuda_in_bf16),
        cmocka_unit_test(sana_transformer_nearly_gives_what_diffusers_gives_on_cpu_in_bf16),
        cmocka_unit_test(a_size_leaves_one_table_of_positions_behind),
        cmocka_unit_test(settings_that_cannot_be_honoured_are_refused_by_key),
        cmocka_unit_test(an_empty_config_is_the_classes_own),
        cmocka_unit_test(released_models_have_their_number_of_parameters),
        cmocka_unit_test(null_is_not_absent_and_either_spelling_of_rope_counts),
        cmocka_unit_test(a_tensor_of_another_shape_or_none_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
