/* image_file: one picture to one file with the receipt inside, in the store: how a task that is an image's last ends.
 *
 * weir-encode makes it in a scratch folder, which is gone afterwards.
 *
 * Errors   BAD_ARGUMENT (the spec's format is none of images), UNSUPPORTED (no encoder of it is installed), and what
 *          running weir-encode and putting a file give
 * Threads  one
 */
#ifndef WEIR_WORKER_IMAGE_FILE_H
#define WEIR_WORKER_IMAGE_FILE_H

#include "worker/stage.h"

/* rgb: [height, width, 3] of the task's item. Adds the file to the task's outputs and its receipt as the task's note. */
enum weir_status weir_image_file_put(const struct weir_stage_ground *ground, struct weir_task *task, const uint8_t *rgb,
                                     struct weir_error *error);

#endif
