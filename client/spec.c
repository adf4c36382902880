/* Requests as messages. */
#include "client/internal.h"

#include "proto/wire_limits.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t lora_bytes_max = UINT64_C(4) << 30, picture_bytes_max = UINT64_C(64) << 20;

static void set_optional(protobuf_c_boolean *has, uint32_t *field, uint32_t value)
{
    *has = value != 0;
    *field = value;
}

static enum weir_status loras_of(struct weir_client *client, const struct weir_lora *loras, size_t count,
                                 struct weir_client_loras *out, struct weir_error *error)
{
    if (count > WEIR_JOB_LORAS_MAX) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "%zu LoRAs, at most %d are allowed", count, WEIR_JOB_LORAS_MAX);
    }
    for (size_t i = 0; i < count; i++) {
        Weir__Pb__Lora *lora = out->pointers[i] = &out->loras[i];
        if (!isfinite(loras[i].weight)) {
            return weir_fail(error, WEIR_BAD_ARGUMENT, "LoRA %s: its weight is not a number",
                             loras[i].path ? loras[i].path : loras[i].digest);
        }
        weir__pb__lora__init(lora);
        lora->has_weight = 1;
        lora->weight = loras[i].weight;
        const enum weir_status status =
            weir_client_file(client, "LoRA", lora_bytes_max, loras[i].path, loras[i].digest, &lora->file, error);
        if (status != WEIR_OK) return status;
    }
    return WEIR_OK;
}

static enum weir_status files_of(struct weir_client *client, const struct weir_request *request,
                                 struct weir_client_spec *out, struct weir_error *error)
{
    enum weir_status status = loras_of(client, request->loras, request->lora_count, &out->loras, error);
    out->spec.n_loras = request->lora_count;
    out->spec.loras = request->lora_count ? out->loras.pointers : NULL;
    if (status == WEIR_OK && request->control) {
        status = weir_client_file(client, "control image", picture_bytes_max, request->control, NULL,
                                  &out->spec.control, error);
    }
    if (status == WEIR_OK && request->start_image) {
        status = weir_client_file(client, "start image", picture_bytes_max, request->start_image, NULL,
                                  &out->spec.start_image, error);
    }
    return status;
}

enum weir_status weir_client_spec_of(struct weir_client *client, const struct weir_request *request,
                                     struct weir_client_spec *out, struct weir_error *error)
{
    Weir__Pb__JobSpec *spec = &out->spec;
    if (isnan(request->guidance)) return weir_fail(error, WEIR_BAD_ARGUMENT, "guidance is not a number");
    if (isnan(request->strength)) return weir_fail(error, WEIR_BAD_ARGUMENT, "strength is not a number");
    if (isnan(request->control_scale)) return weir_fail(error, WEIR_BAD_ARGUMENT, "control_scale is not a number");
    weir__pb__job_spec__init(spec);
    spec->model = (char *)request->model;
    spec->negative = (char *)request->negative;
    spec->sampler = (char *)request->sampler;
    spec->noise = (char *)request->noise;
    spec->format = (char *)request->format;
    spec->codec = (char *)request->codec;
    spec->precision = (char *)request->precision;
    set_optional(&spec->has_width, &spec->width, request->width);
    set_optional(&spec->has_height, &spec->height, request->height);
    set_optional(&spec->has_frames, &spec->frames, request->frames);
    set_optional(&spec->has_fps, &spec->fps, request->fps);
    set_optional(&spec->has_steps, &spec->steps, request->steps);
    set_optional(&spec->has_n, &spec->n, request->n);
    spec->has_guidance = request->guidance >= 0;
    spec->guidance = request->guidance;
    spec->has_control_scale = request->control_scale >= 0;
    spec->control_scale = request->control_scale;
    spec->has_strength = request->strength >= 0;
    spec->strength = request->strength;
    spec->has_seed = request->seed_given;
    spec->seed = request->seed;
    spec->has_image = request->folder; /* that it is none; else who resolves decides */
    if (request->model_digest) {
        if (!weir_hex_read(request->model_digest, out->model_digest, sizeof out->model_digest)) {
            return weir_fail(error, WEIR_BAD_ARGUMENT, "a model digest has 64 hex digits, not \"%.80s\"",
                             request->model_digest);
        }
        spec->has_model_digest = 1;
        spec->model_digest = (ProtobufCBinaryData){ sizeof out->model_digest, out->model_digest };
    }
    return files_of(client, request, out, error);
}

uint64_t weir_client_seed(const char *key, uint32_t number)
{
    uint8_t digest[WEIR_SHA256_BYTES];
    char text[192];
    if (!key) {
        weir_random_bytes(digest, sizeof digest);
        return weir_load_u32(digest);
    }
    const int used = snprintf(text, sizeof text, "seed %u of %s", number, key);
    weir_sha256_of(text, (size_t)used < sizeof text ? (size_t)used : sizeof text - 1, digest);
    return weir_load_u32(digest);
}

enum weir_status weir_client_prompt_of(struct weir_client *client, const struct weir_request *request,
                                       const struct weir_prompt *prompt, const char *key, uint32_t number,
                                       struct weir_client_prompt *out, struct weir_error *error)
{
    Weir__Pb__Prompt *message = &out->prompt;
    if (!prompt->text) return weir_fail(error, WEIR_BAD_ARGUMENT, "a prompt is missing");
    if (isnan(prompt->guidance)) return weir_fail(error, WEIR_BAD_ARGUMENT, "guidance is not a number");
    weir__pb__prompt__init(message);
    message->text = (char *)prompt->text;
    message->negative = (char *)prompt->negative;
    set_optional(&message->has_width, &message->width, prompt->width);
    set_optional(&message->has_height, &message->height, prompt->height);
    set_optional(&message->has_steps, &message->steps, prompt->steps);
    message->has_guidance = prompt->guidance >= 0;
    message->guidance = prompt->guidance;
    message->has_line = 1;
    message->line = prompt->line ? prompt->line : number;
    message->has_seed = 1; /* always: no byte may depend on how a batch was cut into jobs */
    message->seed = prompt->seed_given    ? prompt->seed
                    : request->seed_given ? request->seed
                                          : weir_client_seed(key, message->line);
    enum weir_status status = loras_of(client, prompt->loras, prompt->lora_count, &out->loras, error);
    if (status != WEIR_OK) return status;
    message->n_loras = prompt->lora_count;
    message->loras = prompt->lora_count ? out->loras.pointers : NULL;
    status = weir_wire_limits_check(&message->base, error);
    if (status != WEIR_OK && error) error->code = WEIR_BAD_ARGUMENT;
    return status == WEIR_OK ? status : WEIR_BAD_ARGUMENT;
}
