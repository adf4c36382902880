/* AutoencoderDC gives what diffusers gives, both ways, on every device of this build: three tiny configs, odd sizes.
 * The vectors and the folders are made by tests/golden/make_tiny_dc.py. */
#include "tests/nets/golden.h"

#include "worker/folder.h"
#include "worker/nets/autoencoder_dc.h"

static const char *const dc_names[] = { "tiny-dc-a", "tiny-dc-b", "tiny-dc-c" };
static const char *const half_names[] = { "decode", "encode" };

/* A component's folder by itself; it lies beside the networks that use its latents. */
struct dc {
    struct weir_folder folder;
    struct weir_weights *weights;
    struct weir_autoencoder_dc_config config;
};

static struct dc dc_open(const char *name)
{
    struct dc dc = { 0 };
    struct weir_config *config = NULL;
    char path[512], file[600];
    snprintf(path, sizeof path, "%s/tests/golden/tiny-sana-%s", WEIR_SOURCE_DIR, name + strlen("tiny-dc-"));
    snprintf(file, sizeof file, "%s/vae/config.json", path);
    OK(weir_folder_init(&dc.folder, path, "", false, &error));
    OK(weir_weights_open(&dc.folder, "vae", NULL, &dc.weights, &error));
    OK(weir_config_open(file, &config, &error));
    OK(weir_autoencoder_dc_config_read(config, &dc.config, &error));
    weir_config_close(&config);
    return dc;
}

static void dc_close(struct dc *dc)
{
    weir_weights_close(&dc->weights);
    weir_folder_deinit(&dc->folder);
}

static struct weir_autoencoder_dc *net_open(struct weir_device *device, const struct dc *dc,
                                            enum weir_autoencoder_dc_half half)
{
    struct weir_autoencoder_dc *net = NULL;
    OK(weir_autoencoder_dc_open(device, &dc->config, half, dc->weights, device->values, &net, &error));
    return net;
}

/* The planned program from "x" to "y", both in diffusers' order. */
static struct weir_program *plan(struct weir_device *device, const struct weir_autoencoder_dc *net,
                                 enum weir_autoencoder_dc_half half, const struct weir_dims *dims)
{
    const struct weir_dims unpacked = { dims->rows, dims->channels, 1, dims->height * dims->width, 1 };
    struct weir_program *p = NULL;
    assert_int_equal(weir_program_create(device, device->values, &p), WEIR_OK);
    const struct weir_value in = weir_program_input(p, "x", WEIR_F32, &unpacked);
    struct weir_value h = weir_program_latents_pack(p, in, 1, 1, dims);
    h = half == WEIR_AUTOENCODER_DC_DECODER ? weir_autoencoder_dc_build_decode(net, p, h)
                                            : weir_autoencoder_dc_build_encode(net, p, h);
    weir_program_output(p, "y", weir_program_guidance(p, h, (struct weir_value){ 0 }, 1));
    OK(weir_program_finish(p, &error));
    return p;
}

/* Vectors of one shape: what goes in, what diffusers gives, and what a device does. */
struct shape {
    struct weir_weight x, y;
    struct weir_dims dims;
    char what[96];
};

static struct shape shape_of(const struct vectors *v, const char *name, enum weir_autoencoder_dc_half half,
                             uint32_t factor, int number)
{
    const bool decode = half == WEIR_AUTOENCODER_DC_DECODER;
    struct shape s = { .x = vector_find(v, "%s.%d.%s", half_names[half], number, decode ? "z" : "x"),
                       .y = vector_find(v, "%s.%d.y", half_names[half], number) };
    s.dims = (struct weir_dims){ (uint32_t)s.x.shape[0], 1, (uint32_t)s.x.shape[2], (uint32_t)s.x.shape[3],
                                 (uint32_t)s.x.shape[1] };
    for (size_t i = 2; i < 4; i++)
        assert_int_equal(decode ? s.y.shape[i] : s.x.shape[i], (decode ? s.x.shape[i] : s.y.shape[i]) * factor);
    snprintf(s.what, sizeof s.what, "net=autoencoder_dc folder=%s half=%s rows=%u size=%ux%u", name, half_names[half],
             s.dims.rows, s.dims.height, s.dims.width);
    return s;
}

/* What comes of `xs`; free() it. */
static float *compute_of(struct weir_device *device, const struct weir_autoencoder_dc *net,
                         enum weir_autoencoder_dc_half half, const struct shape *s, float *xs)
{
    struct weir_program *p = plan(device, net, half, &s->dims);
    float *ys = malloc(s->y.elements * sizeof *ys);
    run_program(device, p, &(struct io){ "x", xs, s->x.elements * sizeof *xs }, 1,
                &(struct io){ "y", ys, s->y.elements * sizeof *ys }, 1, NULL, 0);
    weir_program_destroy(&p);
    return ys;
}

/* free() it. */
static float *compute(struct weir_device *device, const struct weir_autoencoder_dc *net,
                      enum weir_autoencoder_dc_half half, const struct shape *s)
{
    float *xs = vector_read(&s->x), *ys = compute_of(device, net, half, s, xs);
    free(xs);
    return ys;
}

static void check_vectors(struct weir_device *device, const struct weir_autoencoder_dc *net, const char *name,
                          const struct vectors *v, enum weir_autoencoder_dc_half half, int number)
{
    const struct shape s = shape_of(v, name, half, weir_autoencoder_dc_config_of(net)->factor, number);
    float *wanted = vector_read(&s.y), *ys = compute(device, net, half, &s);
    see_close(device, s.what, ys, wanted, s.y.elements);
    free(wanted), free(ys);
}

static void check_half(struct weir_device *device, const char *name, enum weir_autoencoder_dc_half half)
{
    struct dc dc = dc_open(name);
    struct vectors v = vectors_open(name);
    struct weir_autoencoder_dc *net = net_open(device, &dc, half), *shapes = NULL;
    /* What is planned from shapes alone is what loading then takes. */
    OK(weir_autoencoder_dc_open(device, &dc.config, half, NULL, device->values, &shapes, &error));
    assert_int_equal(weir_autoencoder_dc_weight_bytes(shapes), weir_autoencoder_dc_weight_bytes(net));
    assert_int_equal(weir_autoencoder_dc_parameter_count(shapes), weir_autoencoder_dc_parameter_count(net));

    for (int i = 0; i < 2; i++) check_vectors(device, net, name, &v, half, i);
    weir_autoencoder_dc_close(&shapes);
    weir_autoencoder_dc_close(&net);
    vectors_close(&v);
    dc_close(&dc);
}

static void every_tiny_on(const char *device_name, enum weir_autoencoder_dc_half half)
{
    struct weir_device *device = device_or_skip(device_name, 2);
    for (size_t i = 0; i < WEIR_COUNT(dc_names); i++) check_half(device, dc_names[i], half);
    weir_device_close(&device);
}

/* Latents of 1 x 1 and 2 x 2 are among them, for which diffusers takes another order of the same sums. */
static void the_decoder_gives_what_diffusers_gives_on_ref(void **state)
{
    (void)state;
    every_tiny_on("ref", WEIR_AUTOENCODER_DC_DECODER);
}

static void the_decoder_gives_what_diffusers_gives_on_cpu(void **state)
{
    (void)state;
    every_tiny_on("cpu", WEIR_AUTOENCODER_DC_DECODER);
}

static void the_decoder_gives_what_diffusers_gives_on_cuda(void **state)
{
    (void)state;
    every_tiny_on("cuda", WEIR_AUTOENCODER_DC_DECODER);
}

static void the_encoder_gives_what_diffusers_gives_on_ref(void **state)
{
    (void)state;
    every_tiny_on("ref", WEIR_AUTOENCODER_DC_ENCODER);
}

static void the_encoder_gives_what_diffusers_gives_on_cpu(void **state)
{
    (void)state;
    every_tiny_on("cpu", WEIR_AUTOENCODER_DC_ENCODER);
}

static void the_encoder_gives_what_diffusers_gives_on_cuda(void **state)
{
    (void)state;
    every_tiny_on("cuda", WEIR_AUTOENCODER_DC_ENCODER);
}

#define NUDGES 24

/* How far the judge comes from the golden output at most, for inputs each of whose numbers is up to a bf16 step away. */
static double furthest(struct weir_device *ref, const struct weir_autoencoder_dc *judge,
                       enum weir_autoencoder_dc_half half, const struct shape *s, const float *golden)
{
    double most = 0;
    uint32_t random = 1;
    for (uint32_t n = 0; n < NUDGES; n++) {
        float *xs = vector_read(&s->x);
        for (size_t i = 0; i < s->x.elements; i++) {
            random = random * 1664525 + 1013904223;
            xs[i] *= 1 + ((float)(random >> 16) / 32768 - 1) / 256;
        }
        float *ys = compute_of(ref, judge, half, s, xs);
        most = fmax(most, compare(ys, golden, s->y.elements).norm);
        free(xs), free(ys);
    }
    return most;
}

static void check_half_beside_the_judge(struct weir_device *cuda, struct weir_device *ref, const char *name,
                                        enum weir_autoencoder_dc_half half, int number)
{
    struct dc dc = dc_open(name);
    struct vectors v = vectors_open(name);
    struct weir_autoencoder_dc *judge = net_open(ref, &dc, half), *net = net_open(cuda, &dc, half);
    const struct shape s = shape_of(&v, name, half, weir_autoencoder_dc_config_of(net)->factor, number);
    float *ys = compute(cuda, net, half, &s), *golden = vector_read(&s.y);
    const struct closeness away = compare(ys, golden, s.y.elements);
    const double judged = furthest(ref, judge, half, &s, golden), most = fmax(tolerance_of(cuda).norm, 1.5 * judged);
    printf("parity device=cuda precision=bf16 %s norm=%.2e max=%.2e; ref in bf16: norm up to %.2e\n", s.what, away.norm,
           away.max, judged);
    if (away.norm > most) fail_msg("%s in bf16: norm %.3g (at most %.3g)", s.what, away.norm, most);
    free(ys), free(golden);
    weir_autoencoder_dc_close(&judge);
    weir_autoencoder_dc_close(&net);
    vectors_close(&v);
    dc_close(&dc);
}

/* Of what is said below: what such a network makes of bf16 is decided by single roundings (one encoder is 0.01 to 0.12
 * of the norm away, as its input lies within a step of bf16), and values in bf16 are rounded elsewhere than the judge's.
 * So they are no further from diffusers than what the judge makes of inputs near by, half as much again, or what other
 * networks are. */
static void both_halves_in_bf16_are_as_near_as_the_judge_on_cuda(void **state)
{
    (void)state;
    struct weir_device *cuda = device_or_skip("cuda bf16", 1), *ref = device_or_skip("ref bf16", 1);
    for (size_t k = 0; k < 4 * WEIR_COUNT(dc_names); k++) {
        check_half_beside_the_judge(cuda, ref, dc_names[k / 4],
                                    k / 2 % 2 ? WEIR_AUTOENCODER_DC_ENCODER : WEIR_AUTOENCODER_DC_DECODER, (int)k % 2);
    }
    weir_device_close(&ref);
    weir_device_close(&cuda);
}

/* These random networks attend over few tokens, with a quotient of sums that may be nearly 0: rounding to 8 bits moves
 * some outputs by half of themselves (0.69 of the norm for one cell of tiny-dc-a), on every device alike. So the judge
 * in bf16 is what cpu in bf16 is held against; how far both are from diffusers is printed. */
static void both_halves_in_bf16_give_what_the_judge_gives(void **state)
{
    (void)state;
    struct weir_device *ref = NULL, *cpu = NULL;
    struct weir_error fault;
    OK(device_open_as("ref bf16", 1, &ref, &error));
    const enum weir_status status = device_open_as("cpu bf16", 2, &cpu, &fault);
    if (status != WEIR_OK) {
        weir_device_close(&ref);
        if (status == WEIR_UNSUPPORTED) skip();
        fail_msg("%s", fault.words);
    }
    for (size_t k = 0; k < 4 * WEIR_COUNT(dc_names); k++) {
        const char *name = dc_names[k / 4];
        const enum weir_autoencoder_dc_half half =
            k / 2 % 2 ? WEIR_AUTOENCODER_DC_ENCODER : WEIR_AUTOENCODER_DC_DECODER;
        struct dc dc = dc_open(name);
        struct vectors v = vectors_open(name);
        struct weir_autoencoder_dc *judge = net_open(ref, &dc, half), *net = net_open(cpu, &dc, half);
        const struct shape s = shape_of(&v, name, half, weir_autoencoder_dc_config_of(net)->factor, (int)k % 2);
        float *wanted = compute(ref, judge, half, &s), *ys = compute(cpu, net, half, &s), *golden = vector_read(&s.y);
        const struct closeness away = compare(ys, golden, s.y.elements);
        printf("parity device=cpu precision=bf16 %s of diffusers in f32: norm=%.2e max=%.2e\n", s.what, away.norm,
               away.max);
        see_close(cpu, s.what, ys, wanted, s.y.elements);
        free(wanted), free(ys), free(golden);
        weir_autoencoder_dc_close(&judge);
        weir_autoencoder_dc_close(&net);
        vectors_close(&v);
        dc_close(&dc);
    }
    weir_device_close(&ref);
    weir_device_close(&cpu);
}

/* ---- halves and steps ---- */

static void name_unused(void *context, const struct weir_weight *weight)
{
    (void)weight;
    ++*(size_t *)context;
}

static void the_two_halves_use_every_tensor_of_the_file_and_neither_uses_the_others(void **state)
{
    (void)state;
    struct weir_device *device = NULL;
    OK(weir_device_open("ref", 1, &device, &error));
    for (size_t i = 0; i < WEIR_COUNT(dc_names); i++) {
        struct dc dc = dc_open(dc_names[i]);
        size_t after_one = 0, after_both = 0;
        struct weir_autoencoder_dc *decoder = net_open(device, &dc, WEIR_AUTOENCODER_DC_DECODER);
        weir_weights_unused(dc.weights, name_unused, &after_one);
        struct weir_autoencoder_dc *encoder = net_open(device, &dc, WEIR_AUTOENCODER_DC_ENCODER);
        weir_weights_unused(dc.weights, name_unused, &after_both);
        assert_true(after_one > 0 && after_one < weir_weights_count(dc.weights));
        assert_int_equal(after_both, 0);
        weir_autoencoder_dc_close(&encoder);
        weir_autoencoder_dc_close(&decoder);
        dc_close(&dc);
    }
    weir_device_close(&device);
}

/* Steps first..last as a program by itself, from memory to memory that the caller frees. */
static float *run_steps(struct weir_device *device, const struct weir_autoencoder_dc *net, struct weir_dims *dims,
                        const float *x, uint32_t first, uint32_t last)
{
    struct weir_program *p = NULL;
    assert_int_equal(weir_program_create(device, device->values, &p), WEIR_OK);
    const struct weir_value in = weir_program_input(p, "x", WEIR_F32, dims);
    const struct weir_value out = weir_autoencoder_dc_build_steps(net, p, in, first, last);
    *dims = weir_program_dims(p, out);
    weir_program_output(p, "y", out);
    OK(weir_program_finish(p, &error));
    const size_t bytes = weir_program_bytes(p, "y");
    float *y = malloc(bytes), *copy = malloc(weir_program_bytes(p, "x"));
    assert_non_null(y);
    assert_non_null(copy);
    memcpy(copy, x, weir_program_bytes(p, "x"));
    run_program(device, p, &(struct io){ "x", copy, weir_program_bytes(p, "x") }, 1, &(struct io){ "y", y, bytes }, 1,
                NULL, 0);
    free(copy);
    weir_program_destroy(&p);
    return y;
}

static void steps_built_by_themselves_give_the_bytes_of_the_whole(void **state)
{
    (void)state;
    struct weir_device *device = NULL;
    OK(weir_device_open("ref", 1, &device, &error));
    for (size_t i = 0; i < WEIR_COUNT(dc_names); i++) {
        struct dc dc = dc_open(dc_names[i]);
        for (int half = 0; half < 2; half++) {
            const uint32_t stages = dc.config.stages, size = half ? dc.config.factor : 1;
            struct weir_autoencoder_dc *net = net_open(device, &dc, (enum weir_autoencoder_dc_half)half);
            const struct weir_dims dims = { 1, 1, 2 * size, 3 * size,
                                            half ? dc.config.in_channels : dc.config.latent_channels };
            const size_t elements = (size_t)dims.height * dims.width * dims.channels;
            float *x = malloc(elements * sizeof *x);
            for (size_t k = 0; k < elements; k++) x[k] = sinf((float)k);
            struct weir_dims whole_dims = dims, dims_now = dims;
            float *whole = run_steps(device, net, &whole_dims, x, 0, stages + 1);
            for (uint32_t step = 0; step <= stages + 1; step++) {
                float *y = run_steps(device, net, &dims_now, x, step, step);
                free(x);
                x = y;
            }
            assert_memory_equal(&dims_now, &whole_dims, sizeof dims_now);
            assert_memory_equal(x, whole, (size_t)dims_now.height * dims_now.width * dims_now.channels * sizeof *whole);
            free(x), free(whole);
            weir_autoencoder_dc_close(&net);
        }
        dc_close(&dc);
    }
    weir_device_close(&device);
}

/* ---- the sizes of real models ---- */

/* What vae/config.json of Sana says. */
static const char sana[] =
    "{\"attention_head_dim\": 32, \"in_channels\": 3, \"latent_channels\": 32, \"scaling_factor\": 0.41407,"
    " \"downsample_block_type\": \"Conv\", \"upsample_block_type\": \"interpolate\","
    " \"decoder_norm_types\": [\"rms_norm\", \"rms_norm\", \"rms_norm\", \"rms_norm\", \"rms_norm\", \"rms_norm\"],"
    " \"decoder_act_fns\": [\"silu\", \"silu\", \"silu\", \"silu\", \"silu\", \"silu\"],"
    " \"encoder_block_types\": [\"ResBlock\", \"ResBlock\", \"ResBlock\", \"EfficientViTBlock\","
    " \"EfficientViTBlock\", \"EfficientViTBlock\"],"
    " \"encoder_block_out_channels\": [128, 256, 512, 512, 1024, 1024],"
    " \"encoder_layers_per_block\": [2, 2, 2, 3, 3, 3],"
    " \"encoder_qkv_multiscales\": [[], [], [], [5], [5], [5]],"
    " \"decoder_block_types\": [\"ResBlock\", \"ResBlock\", \"ResBlock\", \"EfficientViTBlock\","
    " \"EfficientViTBlock\", \"EfficientViTBlock\"],"
    " \"decoder_block_out_channels\": [128, 256, 512, 512, 1024, 1024],"
    " \"decoder_layers_per_block\": [3, 3, 3, 3, 3, 3],"
    " \"decoder_qkv_multiscales\": [[], [], [], [5], [5], [5]]}";

static struct weir_autoencoder_dc_config config_parse(const char *json)
{
    struct weir_config *config = NULL;
    struct weir_autoencoder_dc_config c = { 0 };
    OK(weir_config_parse(json, strlen(json), "config.json", &config, &error));
    OK(weir_autoencoder_dc_config_read(config, &c, &error));
    weir_config_close(&config);
    return c;
}

static void the_class_defaults_and_sanas_config_have_the_parameters_that_diffusers_counts(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        uint64_t parameters[2]; /* decoder, encoder: sum(p.numel() for p in half.parameters()) */
    } known[] = { { "{}", { 218280451, 144613472 } }, { sana, { 159223171, 153027104 } } };
    struct weir_device *device = NULL;
    OK(weir_device_open("ref", 1, &device, &error));
    for (size_t i = 0; i < WEIR_COUNT(known); i++) {
        const struct weir_autoencoder_dc_config c = config_parse(known[i].json);
        assert_int_equal(c.factor, 32);
        for (int half = 0; half < 2; half++) {
            struct weir_autoencoder_dc *net = NULL;
            OK(weir_autoencoder_dc_open(device, &c, (enum weir_autoencoder_dc_half)half, NULL, device->values, &net,
                                        &error));
            assert_int_equal(weir_autoencoder_dc_parameter_count(net), known[i].parameters[half]);
            weir_autoencoder_dc_close(&net);
        }
    }
    weir_device_close(&device);
}

/* Three values of the widest stage and no more are ever alive: input, and what goes in and out of a convolution. */
static void a_picture_of_1024_pixels_a_side_is_planned_in_three_values_of_its_widest_stage(void **state)
{
    (void)state;
    static const char *const devices[] = { "ref", "cpu", "cuda" };
    const struct weir_autoencoder_dc_config c = config_parse(sana);
    const struct weir_dims dims[] = { { 1, 1, 32, 32, 32 }, { 1, 1, 1024, 1024, 3 } };
    for (size_t i = 0; i < WEIR_COUNT(devices); i++) {
        struct weir_device *device = NULL;
        if (weir_device_open(devices[i], 2, &device, NULL) != WEIR_OK) continue; /* said by the tests above */
        for (int half = 0; half < 2; half++) {
            struct weir_autoencoder_dc *net = NULL;
            OK(weir_autoencoder_dc_open(device, &c, (enum weir_autoencoder_dc_half)half, NULL, device->values, &net,
                                        &error));
            struct weir_program *p = plan(device, net, (enum weir_autoencoder_dc_half)half, &dims[half]);
            const double widest = 4.0 * 128 * 1024 * 1024, arena = (double)weir_program_arena_bytes(p);
            printf("plan device=%s net=autoencoder_dc half=%s size=1024x1024 arena=%.0f MiB weights=%.0f MiB ops=%u\n",
                   devices[i], half_names[half], arena / (1 << 20),
                   (double)weir_autoencoder_dc_weight_bytes(net) / (1 << 20), weir_program_op_count(p));
            if (i == 0) assert_true(arena >= 3 * widest && arena < 3.1 * widest);
            weir_program_destroy(&p);
            weir_autoencoder_dc_close(&net);
        }
        weir_device_close(&device);
    }
}

/* ---- what cannot be honoured is refused by name ---- */

static void settings_that_cannot_be_honoured_are_refused_by_key(void **state)
{
    (void)state;
    static const struct {
        const char *json, *word;
        enum weir_status status;
    } bad[] = {
        { "{\"encoder_block_types\": \"ResBlock2\"}", "encoder_block_types", WEIR_UNSUPPORTED },
        { "{\"decoder_block_types\": [\"ResBlock\", \"ResBlock\"]}", "decoder_block_types", WEIR_BAD_MODEL },
        { "{\"decoder_block_types\": 3}", "decoder_block_types", WEIR_BAD_MODEL },
        { "{\"decoder_norm_types\": \"layer_norm\"}", "decoder_norm_types", WEIR_UNSUPPORTED },
        { "{\"encoder_block_out_channels\": [8, 8], \"decoder_block_out_channels\": [8, 8],"
          " \"decoder_norm_types\": [\"rms_norm\", \"batch_norm\"]}",
          "decoder_norm_types", WEIR_UNSUPPORTED },
        { "{\"decoder_act_fns\": \"mish\"}", "decoder_act_fns", WEIR_UNSUPPORTED },
        { "{\"decoder_act_fns\": [\"silu\"]}", "decoder_act_fns", WEIR_BAD_MODEL },
        { "{\"decoder_conv_act_fn\": \"mish\"}", "decoder_conv_act_fn", WEIR_UNSUPPORTED },
        { "{\"upsample_block_type\": \"bilinear\"}", "upsample_block_type", WEIR_BAD_MODEL },
        { "{\"downsample_block_type\": \"pool\"}", "downsample_block_type", WEIR_BAD_MODEL },
        { "{\"scaling_factor\": 0}", "scaling_factor", WEIR_BAD_MODEL },
        { "{\"in_channels\": 1}", "in_channels", WEIR_BAD_MODEL },
        { "{\"attention_head_dim\": 0}", "attention_head_dim", WEIR_BAD_MODEL },
        { "{\"encoder_block_types\": \"EfficientViTBlock\", \"attention_head_dim\": 129}", "encoder_block_out_channels",
          WEIR_UNSUPPORTED },
        { "{\"decoder_block_types\": \"EfficientViTBlock\", \"decoder_qkv_multiscales\": [[], [], [], [4], [5], [5]]}",
          "decoder_qkv_multiscales", WEIR_UNSUPPORTED },
        { "{\"encoder_qkv_multiscales\": [[], [], []]}", "encoder_qkv_multiscales", WEIR_BAD_MODEL },
        { "{\"encoder_qkv_multiscales\": [5, 5, 5, 5, 5, 5]}", "encoder_qkv_multiscales", WEIR_BAD_MODEL },
        { "{\"encoder_layers_per_block\": [2, 2]}", "encoder_layers_per_block", WEIR_BAD_MODEL },
        { "{\"encoder_layers_per_block\": [2, 0, 2, 3, 3, 3]}", "encoder_layers_per_block", WEIR_UNSUPPORTED },
        { "{\"decoder_block_out_channels\": [128], \"decoder_layers_per_block\": [0]}", "decoder_layers_per_block",
          WEIR_UNSUPPORTED },
        { "{\"decoder_layers_per_block\": [3, 3, 3, 3, 3, 65]}", "decoder_layers_per_block", WEIR_BAD_MODEL },
        { "{\"decoder_block_out_channels\": [128, 256]}", "decoder_block_out_channels", WEIR_UNSUPPORTED },
        { "{\"encoder_block_out_channels\": [128, 256, 512, 512, 1024, 1023]}", "encoder_block_out_channels",
          WEIR_UNSUPPORTED },
        { "{\"encoder_block_out_channels\": [128, 256, 512, 512, 1024, 2], \"latent_channels\": 2}",
          "encoder_block_out_channels", WEIR_UNSUPPORTED }, /* 2 channels cannot be unshuffled to */
        { "{\"decoder_block_out_channels\": [128, 256, 512, 512, 1024, 1024], \"latent_channels\": 48,"
          " \"encoder_out_shortcut\": false}",
          "decoder_block_out_channels", WEIR_UNSUPPORTED },
        { "{\"latent_channels\": 48}", "encoder_block_out_channels", WEIR_UNSUPPORTED },
        { "{\"decoder_block_out_channels\": [100, 256, 512, 512, 1024, 1024]}", "decoder_block_out_channels",
          WEIR_UNSUPPORTED },
        { "{\"encoder_out_shortcut\": 1}", "encoder_out_shortcut", WEIR_BAD_MODEL },
    };
    for (size_t i = 0; i < WEIR_COUNT(bad); i++) {
        struct weir_config *config = NULL;
        struct weir_autoencoder_dc_config out;
        struct weir_error refusal = { 0 };
        OK(weir_config_parse(bad[i].json, strlen(bad[i].json), "config.json", &config, &error));
        const enum weir_status status = weir_autoencoder_dc_config_read(config, &out, &refusal);
        if (status != bad[i].status || !strstr(refusal.words, bad[i].word) || !strstr(refusal.words, "config.json"))
            fail_msg("%s: %s \"%s\", wanted %s with the word %s", bad[i].json, weir_status_name(status), refusal.words,
                     weir_status_name(bad[i].status), bad[i].word);
        weir_config_close(&config);
    }
}

/* A folder whose config and weights disagree: the words name the file, the tensor and both shapes. */
static void a_tensor_of_another_shape_or_none_is_named(void **state)
{
    (void)state;
    struct weir_device *device = NULL;
    struct dc dc = dc_open("tiny-dc-b");
    struct weir_autoencoder_dc *net = NULL;
    struct weir_error refusal = { 0 };
    struct weir_autoencoder_dc_config c = dc.config;
    OK(weir_device_open("ref", 1, &device, &error));

    c.encoder[1].kernel[1] = 7;
    assert_int_equal(
        weir_autoencoder_dc_open(device, &c, WEIR_AUTOENCODER_DC_ENCODER, dc.weights, device->values, &net, &refusal),
        WEIR_BAD_MODEL);
    assert_null(net);
    assert_non_null(strstr(refusal.words, "encoder.down_blocks.1.0.attn.to_qkv_multiscale.1.proj_in.weight"));
    assert_non_null(strstr(refusal.words, "[30, 1, 5, 5]"));
    assert_non_null(strstr(refusal.words, "[30, 1, 7, 7]"));
    assert_non_null(strstr(refusal.words, "diffusion_pytorch_model.safetensors"));

    c = dc.config;
    c.decoder[1].layers = 2;
    assert_int_equal(
        weir_autoencoder_dc_open(device, &c, WEIR_AUTOENCODER_DC_DECODER, dc.weights, device->values, &net, &refusal),
        WEIR_BAD_MODEL);
    assert_null(net);
    assert_non_null(strstr(refusal.words, "decoder.up_blocks.1.2.conv1.weight"));
    assert_non_null(strstr(refusal.words, "missing"));

    dc_close(&dc);
    weir_device_close(&device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_decoder_gives_what_diffusers_gives_on_ref),
        cmocka_unit_test(the_decoder_gives_what_diffusers_gives_on_cpu),
        cmocka_unit_test(the_decoder_gives_what_diffusers_gives_on_cuda),
        cmocka_unit_test(the_encoder_gives_what_diffusers_gives_on_ref),
        cmocka_unit_test(the_encoder_gives_what_diffusers_gives_on_cpu),
        cmocka_unit_test(the_encoder_gives_what_diffusers_gives_on_cuda),
        cmocka_unit_test(both_halves_in_bf16_are_as_near_as_the_judge_on_cuda),
        cmocka_unit_test(both_halves_in_bf16_give_what_the_judge_gives),
        cmocka_unit_test(the_two_halves_use_every_tensor_of_the_file_and_neither_uses_the_others),
        cmocka_unit_test(steps_built_by_themselves_give_the_bytes_of_the_whole),
        cmocka_unit_test(the_class_defaults_and_sanas_config_have_the_parameters_that_diffusers_counts),
        cmocka_unit_test(a_picture_of_1024_pixels_a_side_is_planned_in_three_values_of_its_widest_stage),
        cmocka_unit_test(settings_that_cannot_be_honoured_are_refused_by_key),
        cmocka_unit_test(a_tensor_of_another_shape_or_none_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
