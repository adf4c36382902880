/* Each network gives what transformers and diffusers give, on every device of this build: three tiny configs, odd
 * sizes. The vectors and the folders are made by tests/golden/make_tiny_folders.py. */
#include "tests/nets/golden.h"

#include "worker/nets/autoencoder_kl.h"
#include "worker/nets/clip_text.h"
#include "worker/nets/unet3d.h"
#include "worker/samplers/noise.h"
#include "worker/samplers/sampler.h"

/* ---- CLIP's text model ---- */

static void check_clip_text(struct weir_device *device, const char *name)
{
    struct weir_model_dir *model = tiny_open(name);
    struct vectors v = vectors_open(name);
    struct weir_config *config = NULL;
    struct weir_weights *weights = NULL;
    struct weir_clip_text_config c;
    struct weir_clip_text *net = NULL;
    struct weir_program *p = NULL;
    char what[64];
    OK(weir_model_dir_config(model, "text_encoder", &config, &error));
    OK(weir_clip_text_config_read(config, &c, &error));
    OK(weir_model_dir_weights(model, "text_encoder", &weights, &error));
    OK(weir_clip_text_open(device, &c, weights, device->values, &net, &error));

    const struct weir_weight ids = vector_find(&v, "text.ids"), wanted = vector_find(&v, "text.embedding");
    const struct weir_dims dims = { (uint32_t)ids.shape[0], 1, 1, (uint32_t)ids.shape[1], 1 };
    assert_int_equal(ids.dtype, WEIR_WEIGHT_I32);
    assert_int_equal(weir_program_create(device, device->values, &p), WEIR_OK);
    const struct weir_value embedding = weir_clip_text_build(net, p, weir_program_input(p, "ids", WEIR_I32, &dims));
    weir_program_output(p, "y", weir_program_widen(p, embedding));
    OK(weir_program_finish(p, &error));

    float *y = malloc(wanted.elements * sizeof *y), *b = vector_read(&wanted);
    void *ids_copy = malloc(ids.bytes); /* tensors of a file need not be aligned */
    memcpy(ids_copy, ids.data, ids.bytes);
    run_program(device, p, &(struct io){ "ids", ids_copy, ids.bytes }, 1,
                &(struct io){ "y", y, wanted.elements * sizeof *y }, 1, NULL, 0);
    snprintf(what, sizeof what, "net=clip_text folder=%s", name);
    see_close(device, what, y, b, wanted.elements);

    free(ids_copy), free(y), free(b);
    weir_program_destroy(&p);
    weir_clip_text_close(&net);
    weir_weights_close(&weights);
    weir_config_close(&config);
    vectors_close(&v);
    weir_model_dir_close(&model);
}

/* ---- UNet3D ---- */

/* The keys and values of a text, as the slots of a step want them. */
struct slots {
    uint32_t count;
    float *values[WEIR_PROGRAM_NAMES_MAX];
    size_t bytes[WEIR_PROGRAM_NAMES_MAX];
    char names[WEIR_PROGRAM_NAMES_MAX][WEIR_UNET3D_SLOT_NAME_BYTES];
};

static void prepare(struct weir_device *device, const struct weir_unet3d *net, const struct weir_weight *text,
                    struct slots *slots)
{
    struct weir_program *p = NULL;
    struct io outputs[WEIR_PROGRAM_NAMES_MAX];
    float *values = vector_read(text);
    assert_int_equal(weir_program_create(device, device->values, &p), WEIR_OK);
    weir_unet3d_build_prepare(net, p, (uint32_t)text->shape[0], (uint32_t)text->shape[1], NULL);
    OK(weir_program_finish(p, &error));
    slots->count = weir_unet3d_slot_count(net);
    for (uint32_t i = 0; i < slots->count; i++) {
        weir_unet3d_slot_name(i, slots->names[i]);
        slots->bytes[i] = weir_program_bytes(p, slots->names[i]);
        slots->values[i] = malloc(slots->bytes[i]);
        outputs[i] = (struct io){ slots->names[i], slots->values[i], slots->bytes[i] };
    }
    run_program(device, p, &(struct io){ "text", values, text->elements * sizeof *values }, 1, outputs, slots->count,
                NULL, 0);
    free(values);
    weir_program_destroy(&p);
}

static void check_unet3d_shape(struct weir_device *device, const struct weir_unet3d *net, const char *name,
                               const struct vectors *v, int number)
{
    const struct weir_weight x = vector_find(v, "unet.%d.x", number), t = vector_find(v, "unet.%d.t", number),
                             text = vector_find(v, "unet.%d.text", number), y = vector_find(v, "unet.%d.y", number);
    const uint32_t rows = (uint32_t)x.shape[0], channels = (uint32_t)x.shape[1], frames = (uint32_t)x.shape[2],
                   height = (uint32_t)x.shape[3], width = (uint32_t)x.shape[4];
    const struct weir_dims latents = { rows, channels, frames, height * width, 1 }, t_dims = { rows, 1, 1, 1, 1 };
    const struct weir_dims packed = { rows, frames, height, width, channels };
    struct weir_program *p = NULL;
    struct slots slots;
    struct weir_binding bindings[WEIR_PROGRAM_NAMES_MAX];
    char what[96];

    prepare(device, net, &text, &slots);
    for (uint32_t i = 0; i < slots.count; i++) {
        void *memory = NULL;
        OK(device->table->memory_alloc(device, slots.bytes[i], &memory, &error));
        to_device(device, memory, slots.values[i], slots.bytes[i]);
        bindings[i] = (struct weir_binding){ slots.names[i], memory };
    }
    assert_int_equal(weir_program_create(device, device->values, &p), WEIR_OK);
    const struct weir_value in = weir_program_input(p, "x", WEIR_F32, &latents);
    const struct weir_value noise =
        weir_unet3d_build_step(net, p, weir_program_latents_pack(p, in, 1, 1, &packed),
                               weir_program_input(p, "t", WEIR_F32, &t_dims), (uint32_t)text.shape[1], NULL);
    weir_program_output(p, "y", weir_program_guidance(p, noise, (struct weir_value){ 0 }, 1));
    OK(weir_program_finish(p, &error));

    float *xs = vector_read(&x), *ts = vector_read(&t), *wanted = vector_read(&y);
    float *ys = malloc(y.elements * sizeof *ys);
    run_program(device, p, (struct io[]){ { "x", xs, x.elements * sizeof *xs }, { "t", ts, t.elements * sizeof *ts } },
                2, &(struct io){ "y", ys, y.elements * sizeof *ys }, 1, bindings, slots.count);
    snprintf(what, sizeof what, "net=unet3d folder=%s rows=%u size=%ux%ux%u", name, rows, frames, height, width);
    see_close(device, what, ys, wanted, y.elements);

    for (uint32_t i = 0; i < slots.count; i++) {
        device->table->memory_free(device, bindings[i].memory);
        free(slots.values[i]);
    }
    free(xs), free(ts), free(wanted), free(ys);
    weir_program_destroy(&p);
}

static void check_unet3d(struct weir_device *device, const char *name)
{
    struct weir_model_dir *model = tiny_open(name);
    struct vectors v = vectors_open(name);
    struct weir_config *config = NULL;
    struct weir_weights *weights = NULL;
    struct weir_unet3d_config c;
    struct weir_unet3d *net = NULL, *shapes = NULL;
    OK(weir_model_dir_config(model, "unet", &config, &error));
    OK(weir_unet3d_config_read(config, &c, &error));
    OK(weir_model_dir_weights(model, "unet", &weights, &error));
    OK(weir_unet3d_open(device, &c, weights, device->values, &net, &error));
    for (int i = 0; i < 2; i++) check_unet3d_shape(device, net, name, &v, i);

    /* What is planned from shapes alone is what loading then takes. */
    OK(weir_unet3d_open(device, &c, NULL, device->values, &shapes, &error));
    assert_int_equal(weir_unet3d_weight_bytes(shapes), weir_unet3d_weight_bytes(net));
    assert_int_equal(weir_unet3d_parameter_count(shapes), weir_unet3d_parameter_count(net));

    weir_unet3d_close(&shapes);
    weir_unet3d_close(&net);
    weir_weights_close(&weights);
    weir_config_close(&config);
    vectors_close(&v);
    weir_model_dir_close(&model);
}

/* ---- the decoder of AutoencoderKL ---- */

static void check_decoder_shape(struct weir_device *device, const struct weir_autoencoder_kl *net, const char *name,
                                const struct vectors *v, int number)
{
    const struct weir_weight z = vector_find(v, "vae.%d.z", number), y = vector_find(v, "vae.%d.y", number);
    const uint32_t rows = (uint32_t)z.shape[0], height = (uint32_t)z.shape[2], width = (uint32_t)z.shape[3];
    const uint32_t factor = weir_autoencoder_kl_config_of(net)->factor;
    const struct weir_dims latents = { rows, (uint32_t)z.shape[1], 1, height * width, 1 };
    const struct weir_dims packed = { rows, 1, height, width, (uint32_t)z.shape[1] };
    struct weir_program *p = NULL;
    char what[96];

    assert_int_equal(weir_program_create(device, device->values, &p), WEIR_OK);
    const struct weir_value in = weir_program_input(p, "z", WEIR_F32, &latents);
    const struct weir_value picture =
        weir_autoencoder_kl_build_decode(net, p, weir_program_latents_pack(p, in, 1, 1, &packed));
    weir_program_output(p, "y", weir_program_guidance(p, picture, (struct weir_value){ 0 }, 1));
    OK(weir_program_finish(p, &error));
    assert_int_equal(y.shape[2], height * factor);
    assert_int_equal(y.shape[3], width * factor);

    float *zs = vector_read(&z), *wanted = vector_read(&y), *ys = malloc(y.elements * sizeof *ys);
    run_program(device, p, &(struct io){ "z", zs, z.elements * sizeof *zs }, 1,
                &(struct io){ "y", ys, y.elements * sizeof *ys }, 1, NULL, 0);
    snprintf(what, sizeof what, "net=autoencoder_kl folder=%s rows=%u size=%ux%u", name, rows, height, width);
    see_close(device, what, ys, wanted, y.elements);
    free(zs), free(wanted), free(ys);
    weir_program_destroy(&p);
}

static void check_autoencoder_kl(struct weir_device *device, const char *name)
{
    struct weir_model_dir *model = tiny_open(name);
    struct vectors v = vectors_open(name);
    struct weir_config *config = NULL;
    struct weir_weights *weights = NULL;
    struct weir_autoencoder_kl_config c;
    struct weir_autoencoder_kl *net = NULL;
    OK(weir_model_dir_config(model, "vae", &config, &error));
    OK(weir_autoencoder_kl_config_read(config, &c, &error));
    OK(weir_model_dir_weights(model, "vae", &weights, &error));
    OK(weir_autoencoder_kl_open(device, &c, weights, device->values, &net, &error));
    for (int i = 0; i < 2; i++) check_decoder_shape(device, net, name, &v, i);
    weir_autoencoder_kl_close(&net);
    weir_weights_close(&weights);
    weir_config_close(&config);
    vectors_close(&v);
    weir_model_dir_close(&model);
}

/* ---- every device of this build ---- */

static void every_tiny_on(const char *device_name, void (*check)(struct weir_device *device, const char *name))
{
    struct weir_device *device = device_or_skip(device_name, 2);
    for (size_t i = 0; i < WEIR_COUNT(tiny_names); i++) check(device, tiny_names[i]);
    weir_device_close(&device);
}

static void clip_text_gives_what_transformers_gives_on_ref(void **state)
{
    (void)state;
    every_tiny_on("ref", check_clip_text);
}

static void clip_text_gives_what_transformers_gives_on_cpu(void **state)
{
    (void)state;
    every_tiny_on("cpu", check_clip_text);
}

static void clip_text_gives_what_transformers_gives_on_cuda(void **state)
{
    (void)state;
    every_tiny_on("cuda", check_clip_text);
}

static void clip_text_nearly_gives_what_transformers_gives_on_cpu_in_bf16(void **state)
{
    (void)state;
    every_tiny_on("cpu bf16", check_clip_text);
}

static void unet3d_gives_what_diffusers_gives_on_ref(void **state)
{
    (void)state;
    every_tiny_on("ref", check_unet3d);
}

static void unet3d_gives_what_diffusers_gives_on_cpu(void **state)
{
    (void)state;
    every_tiny_on("cpu", check_unet3d);
}

static void unet3d_gives_what_diffusers_gives_on_cuda(void **state)
{
    (void)state;
    every_tiny_on("cuda", check_unet3d);
}

static void unet3d_nearly_gives_what_diffusers_gives_on_cpu_in_bf16(void **state)
{
    (void)state;
    every_tiny_on("cpu bf16", check_unet3d);
}

static void autoencoder_kl_gives_what_diffusers_gives_on_ref(void **state)
{
    (void)state;
    every_tiny_on("ref", check_autoencoder_kl);
}

static void autoencoder_kl_gives_what_diffusers_gives_on_cpu(void **state)
{
    (void)state;
    every_tiny_on("cpu", check_autoencoder_kl);
}

static void autoencoder_kl_gives_what_diffusers_gives_on_cuda(void **state)
{
    (void)state;
    every_tiny_on("cuda", check_autoencoder_kl);
}

static void the_networks_nearly_give_what_diffusers_gives_on_cuda_in_bf16(void **state)
{
    (void)state;
    every_tiny_on("cuda bf16", check_clip_text);
    every_tiny_on("cuda bf16", check_unet3d);
    every_tiny_on("cuda bf16", check_autoencoder_kl);
}

static void autoencoder_kl_nearly_gives_what_diffusers_gives_on_cpu_in_bf16(void **state)
{
    (void)state;
    every_tiny_on("cpu bf16", check_autoencoder_kl);
}

/* ---- the sampler's step ---- */

static void see_same_steps(struct weir_device *device, const struct weir_sampler *sampler)
{
    enum { N = 257 };
    const struct weir_dims latents = { 1, 1, 1, N, 1 }, k_dims = { 1, 1, 1, 1, WEIR_SAMPLER_COEFFICIENTS };
    const struct weir_dims packed = { 1, 1, 1, N, 1 };
    struct weir_program *p = NULL;
    float x[N], x0[N] = { 0 }, m[N], given[N], x_seen[N], previous_seen[N];
    void *x_there, *previous_there;
    assert_int_equal(weir_program_create(device, device->values, &p), WEIR_OK);
    const struct weir_value in = weir_program_extern(p, "x", WEIR_F32, &latents);
    const struct weir_value previous = weir_program_extern(p, "previous", WEIR_F32, &latents);
    const struct weir_value output = weir_program_input(p, "m", WEIR_F32, &latents);
    const struct weir_value row = weir_program_input(p, "k", WEIR_F32, &k_dims);
    weir_program_output(p, "in", weir_program_latents_pack_scaled(p, in, row, 1, 1, &packed));
    weir_program_sampler_step(p, in, output, previous, row);
    OK(weir_program_finish(p, &error));
    OK(device->table->memory_alloc(device, sizeof x, &x_there, &error));
    OK(device->table->memory_alloc(device, sizeof x, &previous_there, &error));

    for (int i = 0; i < N; i++) x[i] = 3 * sinf((float)i);
    to_device(device, x_there, x, sizeof x);
    nan_to_device(device, previous_there, sizeof x); /* the first step must not read it */
    for (uint32_t step = 0; step < weir_sampler_step_count(sampler); step++) {
        struct weir_sampler_coefficients k = *weir_sampler_coefficients(sampler, step);
        for (int i = 0; i < N; i++) m[i] = 0.5f * x[i] + cosf((float)(i + (int)step));
        if (weir_sampler_draws(sampler, step)) {
            weir_noise_draw(3, false, step + 1, x0, N);
            to_device(device, previous_there, x0, sizeof x0);
        }
        run_program(device, p, (struct io[]){ { "m", m, sizeof m }, { "k", &k, sizeof k } }, 2,
                    (struct io[]){ { "in", given, sizeof given } }, 1,
                    (struct weir_binding[]){ { "x", x_there }, { "previous", previous_there } }, 2);
        for (int i = 0; i < N; i++) assert_true(given[i] == k.in_x * x[i]);
        weir_sampler_step(sampler, step, m, x, x0, N);
        from_device(device, x_seen, x_there, sizeof x);
        from_device(device, previous_seen, previous_there, sizeof x0);
        assert_memory_equal(x_seen, x, sizeof x);
        assert_memory_equal(previous_seen, x0, sizeof x0);
    }
    device->table->memory_free(device, previous_there);
    device->table->memory_free(device, x_there);
    weir_program_destroy(&p);
}

/* The op that ends a step and the sampler's own loop are one formula, rounded at the same places. */
static void a_devices_sampler_step_has_the_bits_of_the_samplers_own(void **state)
{
    (void)state;
    static const char *const devices[] = { "ref", "cpu", "cuda" };
    for (size_t d = 0; d < WEIR_COUNT(devices); d++) {
        struct weir_device *device = NULL;
        if (weir_device_open(devices[d], 2, &device, NULL) != WEIR_OK) continue; /* said by the tests above */
        for (int kind = 0; kind < WEIR_SAMPLER_KIND_COUNT; kind++) {
            for (int prediction = 0; prediction < WEIR_PREDICTION_COUNT; prediction++) {
                struct weir_sampler_config config;
                struct weir_sampler *sampler = NULL;
                weir_sampler_config_default((enum weir_sampler_kind)kind, &config);
                if (!weir_sampler_predicts((enum weir_sampler_kind)kind, (enum weir_prediction)prediction)) continue;
                config.prediction_type = (enum weir_prediction)prediction;
                OK(weir_sampler_create(&config, 7, &sampler, &error));
                see_same_steps(device, sampler);
                weir_sampler_destroy(&sampler);
            }
        }
        weir_device_close(&device);
    }
}

/* ---- files of other years ---- */

/* The same tensors under other names, as one file in memory. */
struct renamed {
    const char *from[8], *to[8]; /* parts of names; NULL ends */
    const char *before;          /* every name begins with it */
    bool pointwise;              /* renamed matrices become [out, in, 1, 1] */
    char *header, *data;
    size_t header_bytes, data_bytes;
};

static void rename_one(void *context, const struct weir_weight *w)
{
    struct renamed *r = context;
    char name[256], shape[96] = "";
    const char *part = NULL;
    size_t k = 0;
    for (; r->from[k] && !part; k++) part = strstr(w->name, r->from[k]);
    if (part) {
        k--;
        snprintf(name, sizeof name, "%s%.*s%s%s", r->before, (int)(part - w->name), w->name, r->to[k],
                 part + strlen(r->from[k]));
    } else {
        snprintf(name, sizeof name, "%s%s", r->before, w->name);
    }
    for (size_t i = 0, used = 0; i < w->rank; i++)
        used += (size_t)snprintf(shape + used, sizeof shape - used, "%s%llu", i ? "," : "",
                                 (unsigned long long)w->shape[i]);
    const char *more = part && r->pointwise && w->rank == 2 ? ",1,1" : "";
    const size_t room = strlen(name) + strlen(shape) + 128;
    r->header = realloc(r->header, r->header_bytes + room);
    r->header_bytes += (size_t)snprintf(r->header + r->header_bytes, room,
                                        "%c\"%s\":{\"dtype\":\"%s\",\"shape\":[%s%s],\"data_offsets\":[%zu,%zu]}",
                                        r->header_bytes ? ',' : '{', name, weir_weight_dtype_name(w->dtype), shape,
                                        more, r->data_bytes, r->data_bytes + w->bytes);
    r->data = realloc(r->data, r->data_bytes + w->bytes);
    memcpy(r->data + r->data_bytes, w->data, w->bytes);
    r->data_bytes += w->bytes;
}

static struct weir_weights *rename_all(const struct weir_weights *weights, struct renamed *r, char **file)
{
    struct weir_weights *table = NULL;
    weir_weights_unused(weights, rename_one, r);
    *file = malloc(8 + r->header_bytes + 1 + r->data_bytes);
    weir_store_u64(*file, r->header_bytes + 1);
    memcpy(*file + 8, r->header, r->header_bytes);
    (*file)[8 + r->header_bytes] = '}';
    memcpy(*file + 8 + r->header_bytes + 1, r->data, r->data_bytes);
    OK(weir_weights_parse(*file, 8 + r->header_bytes + 1 + r->data_bytes, "renamed", &table, &error));
    free(r->header);
    free(r->data);
    return table;
}

/* Decoders of before 2023 call the parts of their attention query, key, value and proj_attn, some as 1x1
 * convolutions. */
static void old_names_of_a_decoders_attention_are_read(void **state)
{
    (void)state;
    struct weir_device *device = NULL;
    struct weir_model_dir *model = tiny_open("tiny-a");
    struct vectors v = vectors_open("tiny-a");
    struct weir_config *config = NULL;
    struct weir_autoencoder_kl_config c;
    OK(weir_device_open("ref", 1, &device, &error));
    OK(weir_model_dir_config(model, "vae", &config, &error));
    OK(weir_autoencoder_kl_config_read(config, &c, &error));
    for (int pointwise = 0; pointwise <= 1; pointwise++) {
        struct weir_weights *weights = NULL, *old = NULL;
        struct weir_autoencoder_kl *net = NULL;
        char *file = NULL;
        struct renamed r = { .from = { ".to_q.", ".to_k.", ".to_v.", ".to_out.0." },
                             .to = { ".query.", ".key.", ".value.", ".proj_attn." },
                             .before = "",
                             .pointwise = pointwise };
        OK(weir_model_dir_weights(model, "vae", &weights, &error));
        old = rename_all(weights, &r, &file);
        OK(weir_autoencoder_kl_open(device, &c, old, device->values, &net, &error));
        check_decoder_shape(device, net, "tiny-a renamed", &v, 1);
        weir_autoencoder_kl_close(&net);
        weir_weights_close(&old);
        weir_weights_close(&weights);
        free(file);
    }
    weir_config_close(&config);
    vectors_close(&v);
    weir_model_dir_close(&model);
    weir_device_close(&device);
}

/* transformers 5 drops the prefix text_model. that all files before it have; the golden folders are of the new kind. */
static void text_models_with_and_without_their_prefix_are_read(void **state)
{
    (void)state;
    struct weir_device *device = NULL;
    struct weir_model_dir *model = tiny_open("tiny-a");
    struct weir_config *config = NULL;
    struct weir_clip_text_config c;
    struct weir_clip_text *net = NULL, *prefixed = NULL;
    struct weir_weights *weights = NULL, *old = NULL;
    char *file = NULL;
    struct renamed r = { .before = "text_model." };
    OK(weir_device_open("ref", 1, &device, &error));
    OK(weir_model_dir_config(model, "text_encoder", &config, &error));
    OK(weir_clip_text_config_read(config, &c, &error));
    OK(weir_model_dir_weights(model, "text_encoder", &weights, &error));
    old = rename_all(weights, &r, &file);
    OK(weir_clip_text_open(device, &c, weights, device->values, &net, &error));
    OK(weir_clip_text_open(device, &c, old, device->values, &prefixed, &error));
    assert_int_equal(weir_clip_text_parameter_count(net), weir_clip_text_parameter_count(prefixed));
    weir_clip_text_close(&prefixed);
    weir_clip_text_close(&net);
    weir_weights_close(&old);
    weir_weights_close(&weights);
    weir_config_close(&config);
    weir_model_dir_close(&model);
    weir_device_close(&device);
    free(file);
}

/* ---- what cannot be honoured is refused by name ---- */

static void see_refused(const char *json, const char *word, enum weir_status wanted,
                        enum weir_status (*read)(const struct weir_config *config, void *out, struct weir_error *error))
{
    struct weir_config *config = NULL;
    struct weir_error refusal = { 0 };
    union {
        struct weir_unet3d_config unet3d;
        struct weir_clip_text_config clip_text;
        struct weir_autoencoder_kl_config autoencoder_kl;
    } out;
    OK(weir_config_parse(json, strlen(json), "config.json", &config, &error));
    const enum weir_status status = read(config, &out, &refusal);
    if (status != wanted || !strstr(refusal.words, word) || !strstr(refusal.words, "config.json"))
        fail_msg("%s: %s \"%s\", wanted %s with the word %s", json, weir_status_name(status), refusal.words,
                 weir_status_name(wanted), word);
    weir_config_close(&config);
}

static enum weir_status read_unet3d(const struct weir_config *config, void *out, struct weir_error *error)
{
    return weir_unet3d_config_read(config, out, error);
}

static enum weir_status read_clip_text(const struct weir_config *config, void *out, struct weir_error *error)
{
    return weir_clip_text_config_read(config, out, error);
}

static enum weir_status read_autoencoder_kl(const struct weir_config *config, void *out, struct weir_error *error)
{
    return weir_autoencoder_kl_config_read(config, out, error);
}

static void settings_that_cannot_be_honoured_are_refused_by_key(void **state)
{
    (void)state;
    static const struct {
        const char *json, *word;
        enum weir_status status;
    } unet3d[] = {
        { "{\"act_fn\": \"gelu\"}", "act_fn", WEIR_UNSUPPORTED },
        { "{\"mid_block_scale_factor\": 2}", "mid_block_scale_factor", WEIR_UNSUPPORTED },
        { "{\"time_cond_proj_dim\": 32}", "time_cond_proj_dim", WEIR_UNSUPPORTED },
        { "{\"num_attention_heads\": 8}", "num_attention_heads", WEIR_UNSUPPORTED },
        { "{\"down_block_types\": [\"DownBlock3D\"]}", "down_block_types", WEIR_UNSUPPORTED },
        { "{\"up_block_types\": [\"UpBlock3D\", \"UpBlockSpatioTemporal\", \"UpBlock3D\", \"UpBlock3D\"]}",
          "up_block_types", WEIR_UNSUPPORTED },
        { "{\"norm_num_groups\": 33}", "block_out_channels", WEIR_UNSUPPORTED },
        { "{\"attention_head_dim\": 321}", "attention_head_dim", WEIR_UNSUPPORTED },
        { "{\"attention_head_dim\": [5, 10, 20, 20]}", "attention_head_dim", WEIR_BAD_MODEL },
        { "{\"layers_per_block\": 0}", "layers_per_block", WEIR_BAD_MODEL },
        { "{\"downsample_padding\": 2}", "downsample_padding", WEIR_BAD_MODEL },
    }, clip_text[] = {
        { "{\"hidden_act\": \"relu\"}", "hidden_act", WEIR_BAD_MODEL },
        { "{\"num_attention_heads\": 7}", "num_attention_heads", WEIR_UNSUPPORTED },
        { "{\"use_attention_mask\": true}", "use_attention_mask", WEIR_UNSUPPORTED },
        { "{\"num_hidden_layers\": 129}", "num_hidden_layers", WEIR_BAD_MODEL },
    }, autoencoder_kl[] = {
        { "{\"up_block_types\": [\"AttnUpDecoderBlock2D\"]}", "up_block_types", WEIR_UNSUPPORTED },
        { "{\"up_block_types\": [\"UpDecoderBlock2D\", \"UpDecoderBlock2D\"]}", "up_block_types", WEIR_UNSUPPORTED },
        { "{\"act_fn\": \"relu\"}", "act_fn", WEIR_UNSUPPORTED },
        { "{\"norm_num_groups\": 7}", "block_out_channels", WEIR_UNSUPPORTED },
        { "{\"scaling_factor\": 0}", "scaling_factor", WEIR_BAD_MODEL },
    };
    for (size_t i = 0; i < WEIR_COUNT(unet3d); i++)
        see_refused(unet3d[i].json, unet3d[i].word, unet3d[i].status, read_unet3d);
    for (size_t i = 0; i < WEIR_COUNT(clip_text); i++)
        see_refused(clip_text[i].json, clip_text[i].word, clip_text[i].status, read_clip_text);
    for (size_t i = 0; i < WEIR_COUNT(autoencoder_kl); i++)
        see_refused(autoencoder_kl[i].json, autoencoder_kl[i].word, autoencoder_kl[i].status, read_autoencoder_kl);
}

/* A folder whose config and weights disagree: the words name the file, the tensor and both shapes. */
static void a_tensor_of_another_shape_or_none_is_named(void **state)
{
    (void)state;
    struct weir_device *device = NULL;
    struct weir_model_dir *model = tiny_open("tiny-a");
    struct weir_config *config = NULL;
    struct weir_weights *weights = NULL;
    struct weir_unet3d_config c;
    struct weir_unet3d *net = NULL;
    struct weir_error refusal = { 0 };
    OK(weir_device_open("ref", 1, &device, &error));
    OK(weir_model_dir_config(model, "unet", &config, &error));
    OK(weir_model_dir_weights(model, "unet", &weights, &error));
    OK(weir_unet3d_config_read(config, &c, &error));

    c.cross_channels = 25;
    assert_int_equal(weir_unet3d_open(device, &c, weights, device->values, &net, &refusal), WEIR_BAD_MODEL);
    assert_null(net);
    assert_non_null(strstr(refusal.words, "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"));
    assert_non_null(strstr(refusal.words, "[4, 24]"));
    assert_non_null(strstr(refusal.words, "[4, 25]"));
    assert_non_null(strstr(refusal.words, "diffusion_pytorch_model.safetensors"));

    c.cross_channels = 24;
    c.layers_per_block = 2;
    assert_int_equal(weir_unet3d_open(device, &c, weights, device->values, &net, &refusal), WEIR_BAD_MODEL);
    assert_non_null(strstr(refusal.words, "down_blocks.0.attentions.1"));
    assert_non_null(strstr(refusal.words, "missing"));

    weir_weights_close(&weights);
    weir_config_close(&config);
    weir_model_dir_close(&model);
    weir_device_close(&device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clip_text_gives_what_transformers_gives_on_ref),
        cmocka_unit_test(clip_text_gives_what_transformers_gives_on_cpu),
        cmocka_unit_test(clip_text_gives_what_transformers_gives_on_cuda),
        cmocka_unit_test(clip_text_nearly_gives_what_transformers_gives_on_cpu_in_bf16),
        cmocka_unit_test(unet3d_gives_what_diffusers_gives_on_ref),
        cmocka_unit_test(unet3d_gives_what_diffusers_gives_on_cpu),
        cmocka_unit_test(unet3d_gives_what_diffusers_gives_on_cuda),
        cmocka_unit_test(unet3d_nearly_gives_what_diffusers_gives_on_cpu_in_bf16),
        cmocka_unit_test(autoencoder_kl_gives_what_diffusers_gives_on_ref),
        cmocka_unit_test(autoencoder_kl_gives_what_diffusers_gives_on_cpu),
        cmocka_unit_test(autoencoder_kl_gives_what_diffusers_gives_on_cuda),
        cmocka_unit_test(the_networks_nearly_give_what_diffusers_gives_on_cuda_in_bf16),
        cmocka_unit_test(autoencoder_kl_nearly_gives_what_diffusers_gives_on_cpu_in_bf16),
        cmocka_unit_test(a_devices_sampler_step_has_the_bits_of_the_samplers_own),
        cmocka_unit_test(old_names_of_a_decoders_attention_are_read),
        cmocka_unit_test(text_models_with_and_without_their_prefix_are_read),
        cmocka_unit_test(settings_that_cannot_be_honoured_are_refused_by_key),
        cmocka_unit_test(a_tensor_of_another_shape_or_none_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
