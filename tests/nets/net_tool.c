/* net_tool: one network of a model folder by itself: what tests/golden/full_size.py sets beside diffusers and
 * transformers.
 *
 *   net_tool KIND MODEL COMPONENT DEVICE PRECISION IN OUT
 *
 *   KIND       one of the table at the end of this file; what IN holds for each stands there, too
 *   COMPONENT  the folder of MODEL with config.json and weights, "unet"
 *   PRECISION  f32 or bf16
 *   IN         a safetensors file of F32 and I32 tensors, as diffusers takes them
 *   OUT        a safetensors file with the one tensor "y", F32: [R, L, C] or [R, C, T, H, W]
 *
 * Seconds of loading and running, and the device's class, go to stdout. */
#include "kernels/program.h"
#include "proto/base/bytes.h"
#include "proto/base/clock.h"
#include "worker/config.h"
#include "worker/folder.h"
#include "worker/nets/autoencoder_dc.h"
#include "worker/nets/autoencoder_kl.h"
#include "worker/nets/clip_text.h"
#include "worker/nets/gemma2.h"
#include "worker/nets/sana_transformer.h"
#include "worker/nets/unet3d.h"
#include "worker/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INPUTS_BYTES_MAX ((size_t)256 << 20)
#define SLOT_NAME_BYTES 24

struct tool {
    const char *component, *out;
    struct weir_device *device;
    struct weir_stream *stream;
    struct weir_folder model;
    struct weir_config *config;
    struct weir_weights *weights, *inputs;
    char *input_bytes;
    /* The network, of which one is open. */
    struct weir_clip_text *clip_text;
    struct weir_gemma2 *gemma2;
    struct weir_unet3d *unet3d;
    struct weir_sana_transformer *sana;
    struct weir_autoencoder_kl *kl;
    struct weir_autoencoder_dc *dc;
    /* Keys and values of a text, for networks that keep them: outputs of prepare, externs of the step. */
    struct weir_binding slots[WEIR_PROGRAM_NAMES_MAX];
    char slot_names[WEIR_PROGRAM_NAMES_MAX][SLOT_NAME_BYTES];
    uint32_t slot_count;
    struct weir_error error;
};

static double seconds(void)
{
    return (double)weir_clock_now_ms() / 1e3;
}

static struct weir_program *program_create(const struct tool *tool)
{
    struct weir_program *p = NULL;
    if (weir_program_create(tool->device, tool->device->values, &p) != WEIR_OK) abort(); /* no memory for a handle */
    return p;
}

/* --- inputs and outputs ------------------------------------------------------------------------------------------- */

/* An input of that rank, whose shape is then looked at. */
static enum weir_status find(struct tool *tool, const char *name, enum weir_weight_dtype dtype, size_t rank,
                             struct weir_weight *out)
{
    if (!weir_weights_find(tool->inputs, name, out))
        return weir_fail(&tool->error, WEIR_BAD_ARGUMENT, "the inputs have no tensor %s", name);
    if (out->dtype != dtype || out->rank != rank)
        return weir_fail(&tool->error, WEIR_BAD_ARGUMENT, "input %s is %s of rank %zu, wanted %s of rank %zu", name,
                         weir_weight_dtype_name(out->dtype), out->rank, weir_weight_dtype_name(dtype), rank);
    for (size_t i = 0; i < rank; i++)
        if (out->shape[i] == 0 || out->shape[i] > UINT16_MAX)
            return weir_fail(&tool->error, WEIR_BAD_ARGUMENT, "input %s has a side of %llu, wanted 1 to %d", name,
                             (unsigned long long)out->shape[i], UINT16_MAX);
    return WEIR_OK;
}

/* Every number of an I32 input is within bounds. */
static enum weir_status check_ids(struct tool *tool, const struct weir_weight *w, int32_t least, uint32_t most)
{
    for (size_t i = 0; i < w->elements; i++) {
        int32_t id;
        memcpy(&id, (const char *)w->data + i * sizeof id, sizeof id);
        if (id < least || (uint32_t)id > most)
            return weir_fail(&tool->error, WEIR_BAD_ARGUMENT, "input %s has a %d, wanted %d to %u", w->name, id, least,
                             most);
    }
    return WEIR_OK;
}

static enum weir_status write_output(struct tool *tool, const uint64_t *shape, size_t rank, const float *values,
                                     size_t count)
{
    char header[256], size[8];
    int bytes = snprintf(header, sizeof header, "{\"y\":{\"dtype\":\"F32\",\"shape\":[");
    for (size_t i = 0; i < rank; i++)
        bytes += snprintf(header + bytes, sizeof header - (size_t)bytes, "%s%llu", i ? "," : "",
                          (unsigned long long)shape[i]);
    bytes +=
        snprintf(header + bytes, sizeof header - (size_t)bytes, "],\"data_offsets\":[0,%zu]}}", count * sizeof *values);
    weir_store_u64(size, (uint64_t)bytes);
    FILE *file = fopen(tool->out, "wb");
    const bool good = file && fwrite(size, 1, sizeof size, file) == sizeof size &&
                      fwrite(header, 1, (size_t)bytes, file) == (size_t)bytes &&
                      fwrite(values, sizeof *values, count, file) == count;
    if (!file || fclose(file) != 0 || !good)
        return weir_fail(&tool->error, WEIR_IO, "%s could not be written", tool->out);
    return WEIR_OK;
}

/* Runs a program with those inputs of the file that it names; the output "y", if `values` is given, goes there. */
static enum weir_status run(struct tool *tool, const struct weir_program *p, const char *const *names, size_t count,
                            float *values)
{
    struct weir_error *error = &tool->error;
    const struct weir_device_table *table = tool->device->table;
    enum weir_status status = WEIR_OK;
    void *arena = NULL, *host[8] = { 0 };
    const double begin = seconds();
    WEIR_TRY(table->memory_alloc(tool->device, weir_program_arena_bytes(p), &arena, error));
    for (size_t i = 0; i < count; i++) {
        struct weir_weight w;
        if (!weir_weights_find(tool->inputs, names[i], &w) || w.bytes != weir_program_bytes(p, names[i]))
            WEIR_TRY(weir_fail(error, WEIR_BAD_ARGUMENT,
                               "input %s is missing, or does not fit the others and the config", names[i]));
        host[i] = malloc(w.bytes); /* tensors of a file need not be aligned */
        if (!host[i]) WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "no memory for input %s", names[i]));
        memcpy(host[i], w.data, w.bytes);
        WEIR_TRY(table->upload(tool->stream, (char *)arena + weir_program_offset(p, names[i]), host[i], w.bytes));
    }
    WEIR_TRY(weir_program_run(p, tool->stream, arena, tool->slots, tool->slot_count));
    if (values)
        WEIR_TRY(table->download(tool->stream, values, (char *)arena + weir_program_offset(p, "y"),
                                 weir_program_bytes(p, "y")));
    WEIR_TRY(table->stream_sync(tool->stream, error));
    printf("run arena=%zu ops=%u seconds=%.3f\n", weir_program_arena_bytes(p), weir_program_op_count(p),
           seconds() - begin);
cleanup:
    for (size_t i = 0; i < WEIR_COUNT(host); i++) free(host[i]);
    if (arena) table->memory_free(tool->device, arena);
    return status;
}

/* The same for a program that ends in `y`: of texts as they are, of latents and pictures in diffusers' order. */
static enum weir_status run_last(struct tool *tool, struct weir_program *p, struct weir_value y, bool text,
                                 const char *const *names, size_t count)
{
    enum weir_status status = WEIR_OK;
    const struct weir_dims d = weir_program_dims(p, y);
    const uint64_t of_text[] = { d.rows, d.width, d.channels };
    const uint64_t of_latents[] = { d.rows, d.channels, d.frames, d.height, d.width };
    float *values = NULL;
    weir_program_output(p, "y",
                        text ? weir_program_widen(p, y) : weir_program_guidance(p, y, (struct weir_value){ 0 }, 1));
    WEIR_TRY(weir_program_finish(p, &tool->error));
    values = malloc(weir_program_bytes(p, "y"));
    if (!values) WEIR_TRY(weir_fail(&tool->error, WEIR_NO_MEMORY, "no memory for the result"));
    WEIR_TRY(run(tool, p, names, count, values));
    WEIR_TRY(write_output(tool, text ? of_text : of_latents, text ? WEIR_COUNT(of_text) : WEIR_COUNT(of_latents),
                          values, weir_program_bytes(p, "y") / sizeof *values));
cleanup:
    free(values);
    return status;
}

/* Finishes and runs a text's program, whose outputs, named already, then lie in memory of their own. */
static enum weir_status run_prepare(struct tool *tool, struct weir_program *p)
{
    static const char *const names[] = { "text" };
    enum weir_status status = WEIR_OK;
    for (uint32_t i = 0; i < tool->slot_count; i++) {
        tool->slots[i].name = tool->slot_names[i];
        weir_program_put_elsewhere(p, tool->slot_names[i]);
    }
    WEIR_TRY(weir_program_finish(p, &tool->error));
    for (uint32_t i = 0; i < tool->slot_count; i++)
        WEIR_TRY(tool->device->table->memory_alloc(tool->device, weir_program_bytes(p, tool->slot_names[i]),
                                                   &tool->slots[i].memory, &tool->error));
    WEIR_TRY(run(tool, p, names, 1, NULL));
cleanup:
    return status;
}

/* x [R, C, H, W] or [R, C, T, H, W] as a network takes it. */
static struct weir_value packed(struct weir_program *p, const struct weir_weight *x)
{
    const bool film = x->rank == 5;
    const uint32_t rows = (uint32_t)x->shape[0], channels = (uint32_t)x->shape[1],
                   frames = film ? (uint32_t)x->shape[2] : 1, height = (uint32_t)x->shape[x->rank - 2],
                   width = (uint32_t)x->shape[x->rank - 1];
    const struct weir_dims as_given = { rows, channels, frames, height * width, 1 };
    return weir_program_latents_pack(p, weir_program_input(p, "x", WEIR_F32, &as_given), 1, 1,
                                     &(struct weir_dims){ rows, frames, height, width, channels });
}

/* --- networks ----------------------------------------------------------------------------------------------------- */

static enum weir_status clip_text(struct tool *tool)
{
    static const char *const names[] = { "ids" };
    enum weir_status status = WEIR_OK;
    struct weir_clip_text_config c;
    struct weir_weight ids;
    struct weir_program *p = NULL;
    WEIR_TRY(weir_clip_text_config_read(tool->config, &c, &tool->error));
    WEIR_TRY(find(tool, "ids", WEIR_WEIGHT_I32, 2, &ids));
    WEIR_TRY(check_ids(tool, &ids, 0, c.vocabulary - 1));
    WEIR_TRY(
        weir_clip_text_open(tool->device, &c, tool->weights, tool->device->values, &tool->clip_text, &tool->error));
    p = program_create(tool);
    const struct weir_dims dims = { (uint32_t)ids.shape[0], 1, 1, (uint32_t)ids.shape[1], 1 };
    const struct weir_value y = weir_clip_text_build(tool->clip_text, p, weir_program_input(p, "ids", WEIR_I32, &dims));
    WEIR_TRY(run_last(tool, p, y, true, names, WEIR_COUNT(names)));
cleanup:
    weir_program_destroy(&p);
    return status;
}

static enum weir_status gemma2(struct tool *tool)
{
    static const char *const names[] = { "ids" };
    enum weir_status status = WEIR_OK;
    struct weir_gemma2_config c;
    struct weir_weight ids;
    struct weir_program *p = NULL;
    WEIR_TRY(find(tool, "ids", WEIR_WEIGHT_I32, 2, &ids));
    WEIR_TRY(weir_gemma2_config_read(tool->config, (uint32_t)ids.shape[1], &c, &tool->error));
    WEIR_TRY(check_ids(tool, &ids, 0, c.vocabulary - 1));
    WEIR_TRY(weir_gemma2_open(tool->device, &c, tool->weights, tool->device->values, &tool->gemma2, &tool->error));
    p = program_create(tool);
    const struct weir_dims dims = { (uint32_t)ids.shape[0], 1, 1, (uint32_t)ids.shape[1], 1 };
    const struct weir_value y = weir_gemma2_build(tool->gemma2, p, weir_program_input(p, "ids", WEIR_I32, &dims));
    WEIR_TRY(run_last(tool, p, y, true, names, WEIR_COUNT(names)));
cleanup:
    weir_program_destroy(&p);
    return status;
}

static enum weir_status unet3d(struct tool *tool)
{
    static const char *const names[] = { "x", "t" };
    enum weir_status status = WEIR_OK;
    struct weir_unet3d_config c;
    struct weir_weight x, text;
    struct weir_program *p = NULL, *prepare = NULL;
    WEIR_TRY(weir_unet3d_config_read(tool->config, &c, &tool->error));
    WEIR_TRY(find(tool, "x", WEIR_WEIGHT_F32, 5, &x));
    WEIR_TRY(find(tool, "text", WEIR_WEIGHT_F32, 3, &text));
    WEIR_TRY(weir_unet3d_open(tool->device, &c, tool->weights, tool->device->values, &tool->unet3d, &tool->error));
    prepare = program_create(tool);
    weir_unet3d_build_prepare(tool->unet3d, prepare, (uint32_t)text.shape[0], (uint32_t)text.shape[1], NULL);
    tool->slot_count = weir_unet3d_slot_count(tool->unet3d);
    for (uint32_t i = 0; i < tool->slot_count; i++) weir_unet3d_slot_name(i, tool->slot_names[i]);
    WEIR_TRY(run_prepare(tool, prepare));
    p = program_create(tool);
    const struct weir_dims one = { (uint32_t)x.shape[0], 1, 1, 1, 1 };
    const struct weir_value y = weir_unet3d_build_step(
        tool->unet3d, p, packed(p, &x), weir_program_input(p, "t", WEIR_F32, &one), (uint32_t)text.shape[1], NULL);
    WEIR_TRY(run_last(tool, p, y, false, names, WEIR_COUNT(names)));
cleanup:
    weir_program_destroy(&prepare);
    weir_program_destroy(&p);
    return status;
}

static enum weir_status sana_transformer(struct tool *tool)
{
    static const char *const names[] = { "x", "t", "lengths", "guidance" };
    enum weir_status status = WEIR_OK;
    struct weir_sana_transformer_config c;
    struct weir_weight x, text, lengths;
    struct weir_program *p = NULL, *prepare = NULL;
    WEIR_TRY(weir_sana_transformer_config_read(tool->config, &c, &tool->error));
    WEIR_TRY(find(tool, "x", WEIR_WEIGHT_F32, 4, &x));
    WEIR_TRY(find(tool, "text", WEIR_WEIGHT_F32, 3, &text));
    WEIR_TRY(find(tool, "lengths", WEIR_WEIGHT_I32, 1, &lengths));
    WEIR_TRY(check_ids(tool, &lengths, 1, (uint32_t)text.shape[1]));
    WEIR_TRY(
        weir_sana_transformer_open(tool->device, &c, tool->weights, tool->device->values, &tool->sana, &tool->error));
    prepare = program_create(tool);
    weir_sana_transformer_build_prepare(tool->sana, prepare, (uint32_t)text.shape[0], (uint32_t)text.shape[1], NULL);
    tool->slot_count = weir_sana_transformer_slot_count(tool->sana);
    for (uint32_t i = 0; i < tool->slot_count; i++) weir_sana_transformer_slot_name(i, tool->slot_names[i]);
    WEIR_TRY(run_prepare(tool, prepare));
    p = program_create(tool);
    const struct weir_dims one = { (uint32_t)x.shape[0], 1, 1, 1, 1 };
    struct weir_sana_transformer_step step = { .x = packed(p, &x),
                                               .t = weir_program_input(p, "t", WEIR_F32, &one),
                                               .lengths = weir_program_input(p, "lengths", WEIR_I32, &one),
                                               .tokens = (uint32_t)text.shape[1] };
    if (c.guidance_embeds) step.guidance = weir_program_input(p, "guidance", WEIR_F32, &one);
    const struct weir_value y = weir_sana_transformer_build_step(tool->sana, p, &step);
    WEIR_TRY(run_last(tool, p, y, false, names, c.guidance_embeds ? 4 : 3));
cleanup:
    weir_program_destroy(&prepare);
    weir_program_destroy(&p);
    return status;
}

static enum weir_status kl_decoder(struct tool *tool)
{
    static const char *const names[] = { "x" };
    enum weir_status status = WEIR_OK;
    struct weir_autoencoder_kl_config c;
    struct weir_weight x;
    struct weir_program *p = NULL;
    WEIR_TRY(weir_autoencoder_kl_config_read(tool->config, &c, &tool->error));
    WEIR_TRY(find(tool, "x", WEIR_WEIGHT_F32, 4, &x));
    WEIR_TRY(weir_autoencoder_kl_open(tool->device, &c, tool->weights, tool->device->values, &tool->kl, &tool->error));
    p = program_create(tool);
    WEIR_TRY(run_last(tool, p, weir_autoencoder_kl_build_decode(tool->kl, p, packed(p, &x)), false, names,
                      WEIR_COUNT(names)));
cleanup:
    weir_program_destroy(&p);
    return status;
}

static enum weir_status dc_half(struct tool *tool, enum weir_autoencoder_dc_half half)
{
    static const char *const names[] = { "x" };
    enum weir_status status = WEIR_OK;
    struct weir_autoencoder_dc_config c;
    struct weir_weight x;
    struct weir_program *p = NULL;
    WEIR_TRY(weir_autoencoder_dc_config_read(tool->config, &c, &tool->error));
    WEIR_TRY(find(tool, "x", WEIR_WEIGHT_F32, 4, &x));
    WEIR_TRY(
        weir_autoencoder_dc_open(tool->device, &c, half, tool->weights, tool->device->values, &tool->dc, &tool->error));
    p = program_create(tool);
    const struct weir_value in = packed(p, &x);
    WEIR_TRY(run_last(tool, p,
                      half == WEIR_AUTOENCODER_DC_DECODER ? weir_autoencoder_dc_build_decode(tool->dc, p, in)
                                                          : weir_autoencoder_dc_build_encode(tool->dc, p, in),
                      false, names, WEIR_COUNT(names)));
cleanup:
    weir_program_destroy(&p);
    return status;
}

static enum weir_status dc_decoder(struct tool *tool)
{
    return dc_half(tool, WEIR_AUTOENCODER_DC_DECODER);
}

static enum weir_status dc_encoder(struct tool *tool)
{
    return dc_half(tool, WEIR_AUTOENCODER_DC_ENCODER);
}

static const struct kind {
    const char *name;
    enum weir_status (*run)(struct tool *tool);
} kinds[] = {
    { "clip_text", clip_text },   /* ids I32 [R, L] */
    { "gemma2", gemma2 },         /* ids I32 [R, L]: what stands behind a text's end changes nothing before it */
    { "unet3d", unet3d },         /* x [R, C, T, H, W], t [R], text [R, L, C] */
    { "sana", sana_transformer }, /* x [R, C, H, W], t [R], text [R, L, C], lengths I32 [R]; Sprint: guidance [R] */
    { "kl_decoder", kl_decoder }, /* x [R, C, H, W], already divided by scaling_factor */
    { "dc_decoder", dc_decoder }, /* the same */
    { "dc_encoder", dc_encoder }, /* x [R, 3, H, W] in -1..1 */
};

/* ------------------------------------------------------------------------------------------------------------------ */

static enum weir_status open_all(struct tool *tool, char **words)
{
    enum weir_status status = WEIR_OK;
    enum weir_dtype precision;
    char *text = NULL, path[512];
    size_t bytes;
    tool->component = words[2];
    tool->out = words[6];
    if (!weir_precision_parse(words[4], &precision))
        WEIR_TRY(weir_fail(&tool->error, WEIR_BAD_ARGUMENT, "precision %s is neither f32 nor bf16", words[4]));
    WEIR_TRY(weir_device_open(words[3], 0, &tool->device, &tool->error));
    WEIR_TRY(weir_device_set_precision(tool->device, precision, &tool->error));
    WEIR_TRY(tool->device->table->stream_create(tool->device, &tool->stream, &tool->error));
    WEIR_TRY(weir_folder_init(&tool->model, words[1], "", false, &tool->error));
    snprintf(path, sizeof path, "%s/config.json", tool->component);
    WEIR_TRY(weir_folder_read_file(&tool->model, path, WEIR_CONFIG_BYTES_MAX, &text, &bytes, &tool->error));
    WEIR_TRY(weir_config_parse(text, bytes, path, &tool->config, &tool->error));
    WEIR_TRY(weir_weights_open(&tool->model, tool->component, NULL, &tool->weights, &tool->error));
    WEIR_TRY(weir_file_read(words[5], INPUTS_BYTES_MAX, &tool->input_bytes, &bytes, &tool->error));
    WEIR_TRY(weir_weights_parse(tool->input_bytes, bytes, words[5], &tool->inputs, &tool->error));
cleanup:
    free(text);
    return status;
}

static void close_all(struct tool *tool)
{
    weir_clip_text_close(&tool->clip_text);
    weir_gemma2_close(&tool->gemma2);
    weir_unet3d_close(&tool->unet3d);
    weir_sana_transformer_close(&tool->sana);
    weir_autoencoder_kl_close(&tool->kl);
    weir_autoencoder_dc_close(&tool->dc);
    for (uint32_t i = 0; i < tool->slot_count; i++)
        if (tool->slots[i].memory) tool->device->table->memory_free(tool->device, tool->slots[i].memory);
    weir_weights_close(&tool->inputs);
    free(tool->input_bytes);
    weir_weights_close(&tool->weights);
    weir_config_close(&tool->config);
    if (tool->model.path) weir_folder_deinit(&tool->model);
    if (tool->stream) tool->device->table->stream_destroy(tool->stream);
    weir_device_close(&tool->device);
}

static const struct kind *kind_find(const char *name)
{
    for (size_t i = 0; i < WEIR_COUNT(kinds); i++)
        if (strcmp(kinds[i].name, name) == 0) return &kinds[i];
    return NULL;
}

int main(int argc, char **argv)
{
    struct tool tool = { 0 };
    const struct kind *kind = argc == 8 ? kind_find(argv[1]) : NULL;
    const double begin = seconds();
    enum weir_status status =
        kind ? open_all(&tool, argv + 1)
             : weir_fail(&tool.error, WEIR_BAD_ARGUMENT,
                         "use: KIND MODEL COMPONENT DEVICE PRECISION IN OUT, where KIND is clip_text, gemma2, unet3d, "
                         "sana, kl_decoder, dc_decoder or dc_encoder");
    if (status == WEIR_OK) status = kind->run(&tool);
    if (status == WEIR_OK)
        printf("class=%s seconds=%.2f\n", tool.device->numerics_class, seconds() - begin);
    else
        fprintf(stderr, "net_tool: %s (%s)\n", tool.error.words, weir_status_name(status));
    close_all(&tool);
    return weir_status_exit_code(status);
}
