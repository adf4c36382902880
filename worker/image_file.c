#include "worker/image_file.h"

#include "worker/spec.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { CPU_SECONDS_BASE = 60, MEMORY_MIB_BASE = 2048, FILE_MIB_BASE = 64, WORD_BYTES = 24 };

static enum weir_status write_receipt(const struct weir_stage_ground *ground, struct weir_task *task, const char *path,
                                      struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const Weir__Pb__JobSpec *spec = task->lease->spec;
    char build[WEIR_ENCODER_BUILD_BYTES];
    WEIR_TRY(weir_encoders_image_build(ground->encoders, spec->format, build, error));
    task->note = weir_spec_receipt(spec, ground->device->numerics_class, build);
    if (!task->note) WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "no memory for the receipt"));
    WEIR_TRY(weir_scratch_write(path, task->note, strlen(task->note), error));
cleanup:
    return status;
}

static enum weir_status start(struct weir_image_file *file, const struct weir_stage_ground *ground,
                              const struct weir_task *task, const char *receipt, struct weir_error *error)
{
    const uint64_t mib = (weir_item_frame_bytes(&task->item) >> 20) + 1;
    char width[WORD_BYTES], height[WORD_BYTES], cpu[WORD_BYTES], memory[WORD_BYTES], limit[WORD_BYTES];
    snprintf(width, sizeof width, "%" PRIu32, task->item.width);
    snprintf(height, sizeof height, "%" PRIu32, task->item.height);
    snprintf(cpu, sizeof cpu, "%" PRIu64, CPU_SECONDS_BASE + 4 * mib);
    snprintf(memory, sizeof memory, "%" PRIu64, MEMORY_MIB_BASE + 65 * mib);
    snprintf(limit, sizeof limit, "%" PRIu64, FILE_MIB_BASE + 2 * mib);
    const char *words[20] = {
        "image",      "--width", width,           "--height", height,       "--format", task->lease->spec->format,
        "--metadata", receipt,   "--cpu-seconds", cpu,        "--file-mib", limit,      "--scratch",
        "-o",         file->path
    };
    if (WEIR_ENCODER_LIMITS_MEMORY) {
        words[16] = "--memory-mib";
        words[17] = memory;
    }
    return weir_encoder_child_start(weir_encoders_program(ground->encoders), words, &task->cancel, &file->child, error);
}

enum weir_status weir_image_file_begin(struct weir_image_file *file, const struct weir_stage_ground *ground,
                                       struct weir_task *task, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    char receipt[WEIR_SCRATCH_PATH_BYTES];
    *file = (struct weir_image_file){ .format = weir_image_format(task->lease->spec->format) };
    if (!file->format)
        return weir_fail(error, WEIR_BAD_ARGUMENT, "no format \"%s\" of images", task->lease->spec->format);
    WEIR_TRY(weir_scratch_open(&file->scratch, ground->run_dir, error));
    weir_scratch_name(&file->scratch, "out", file->path);
    weir_scratch_name(&file->scratch, "receipt.json", receipt);
    WEIR_TRY(write_receipt(ground, task, receipt, error));
    WEIR_TRY(start(file, ground, task, receipt, error));
cleanup:
    if (status != WEIR_OK) weir_image_file_close(file);
    return status;
}

enum weir_status weir_image_file_put(struct weir_image_file *file, const struct weir_stage_ground *ground,
                                     struct weir_task *task, const uint8_t *rgb, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_output *output;
    WEIR_TRY(weir_encoder_child_write(file->child, rgb, weir_item_frame_bytes(&task->item), error));
    WEIR_TRY(weir_encoder_child_finish(&file->child, NULL, error));
    WEIR_TRY(weir_task_output(task, &output, error));
    WEIR_TRY(weir_link_put_file(ground->link, task->lease->tenant, &task->id, file->format->file,
                                file->format->media_type, file->path, output, error));
cleanup:
    return status;
}

void weir_image_file_close(struct weir_image_file *file)
{
    weir_encoder_child_stop(&file->child);
    weir_scratch_close(&file->scratch);
}
