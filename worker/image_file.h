/* image_file: one picture to one file with the receipt inside, in the store: how a task that is an image's last ends.
 *
 *   begin   starts weir-encode, which loads its libraries while the picture is still made
 *   put     gives it the pixels, and puts the file that it wrote in a scratch folder in the store
 *   close   whatever happened; after it neither process nor folder is left
 *
 * Errors   BAD_ARGUMENT (the spec's format is none of images), UNSUPPORTED (no encoder of it is installed), and what
 *          running weir-encode and putting a file give
 * Threads  one at a time
 */
#ifndef WEIR_WORKER_IMAGE_FILE_H
#define WEIR_WORKER_IMAGE_FILE_H

#include "worker/encoder_child.h"
#include "worker/scratch.h"
#include "worker/stage.h"

struct weir_image_file {
    const struct weir_image_format *format;
    struct weir_scratch scratch;
    struct weir_encoder_child *child;
    char path[WEIR_SCRATCH_PATH_BYTES];
};

/* The receipt becomes the task's note. */
enum weir_status weir_image_file_begin(struct weir_image_file *file, const struct weir_stage_ground *ground,
                                       struct weir_task *task, struct weir_error *error);
/* rgb: [height, width, 3] of the task's item. Adds the file to the task's outputs. */
enum weir_status weir_image_file_put(struct weir_image_file *file, const struct weir_stage_ground *ground,
                                     struct weir_task *task, const uint8_t *rgb, struct weir_error *error);
/* Of one that never began, too, when it is zeroed. */
void weir_image_file_close(struct weir_image_file *file);

#endif
