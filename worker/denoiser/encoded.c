#include "worker/denoiser/encoded.h"

#include "worker/rgb/rgb.h"

#include <stdlib.h>
#include <string.h>

bool weir_encoded_has(const struct weir_encoded *encoded, const struct weir_model_facts *facts,
                      const struct weir_task *task, const uint8_t digest[WEIR_SHA256_BYTES])
{
    const struct weir_sana_size made = weir_item_made(facts, &task->item);
    return encoded->latents && encoded->size.width == made.width && encoded->size.height == made.height &&
           memcmp(encoded->digest, digest, WEIR_SHA256_BYTES) == 0 && strcmp(encoded->tenant, task->lease->tenant) == 0;
}

static enum weir_status read_picture(const struct weir_stage_ground *ground, const struct weir_task *task,
                                     const Weir__Pb__FileRef *file, struct weir_rgb *out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const char *name = file->name && file->name[0] ? file->name : "a picture of the request";
    void *bytes = NULL;
    size_t count;
    WEIR_TRY(
        weir_link_get_file(ground->link, task->lease->tenant, file, WEIR_RGB_FILE_BYTES_MAX, &bytes, &count, error));
    WEIR_TRY(weir_rgb_read(bytes, count, name, out, error));
cleanup:
    free(bytes);
    return status;
}

enum weir_status weir_encoded_make(struct weir_encoded *encoded, const struct weir_stage_ground *ground,
                                   const struct weir_task *task, const Weir__Pb__FileRef *file,
                                   struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_model_facts *facts = weir_pipeline_facts(ground->pipeline);
    const size_t count = weir_item_latent_count(facts, &task->item);
    struct weir_encoder *encoder = NULL;
    struct weir_rgb picture = { 0 };
    weir_encoded_deinit(encoded);
    WEIR_TRY(weir_task_check(task, error));
    WEIR_TRY(read_picture(ground, task, file, &picture, error));
    encoded->latents = malloc(count * sizeof *encoded->latents);
    encoded->tenant = strdup(task->lease->tenant);
    if (!encoded->latents || !encoded->tenant)
        WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "no memory for %zu latents", count));
    WEIR_TRY(weir_pipeline_load(ground->pipeline, ground->device, WEIR_PIPELINE_ENCODE, error));
    WEIR_TRY(weir_encoder_create(ground->pipeline, &task->item, &encoder, error));
    WEIR_TRY(weir_encoder_run(encoder, &picture, encoded->latents, error));
    memcpy(encoded->digest, file->digest.data, sizeof encoded->digest);
    encoded->size = weir_item_made(facts, &task->item);
    weir_log(ground->log, WEIR_LOG_INFO, "picture encoded index=%u from=%ux%u size=%ux%u", task->id.index,
             picture.width, picture.height, encoded->size.width, encoded->size.height);
cleanup:
    weir_encoder_destroy(&encoder);
    weir_pipeline_unload(ground->pipeline, WEIR_PIPELINE_ENCODE);
    weir_rgb_deinit(&picture);
    if (status != WEIR_OK) weir_encoded_deinit(encoded);
    return status;
}

void weir_encoded_deinit(struct weir_encoded *encoded)
{
    free(encoded->latents);
    free(encoded->tenant);
    *encoded = (struct weir_encoded){ 0 };
}
