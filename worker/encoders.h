/* encoders: what the weir-encode beside this program can make, asked once with `weir-encode version`.
 *
 * Errors   UNSUPPORTED (no encoder installed for a format, or not the codec asked for), and what running the program
 *          gives (encoder_child.h)
 * Threads  any
 * Blocks   the first call, for as long as weir-encode takes to encode its eight frames with every codec
 */
#ifndef WEIR_WORKER_ENCODERS_H
#define WEIR_WORKER_ENCODERS_H

#include "proto/status.h"

#include <stdbool.h>

#define WEIR_ENCODER_BUILD_BYTES 160

struct weir_encoders;

/* program  path of weir-encode, borrowed */
enum weir_status weir_encoders_create(const char *program, struct weir_encoders **out, struct weir_error *error);
void weir_encoders_destroy(struct weir_encoders **encoders_p);
const char *weir_encoders_program(const struct weir_encoders *encoders);

/* The codec a film of this format gets: `wish` where the format carries it and it is installed, the format's first
 * installed one when `wish` is NULL or "". "" for gif and png. */
enum weir_status weir_encoders_codec(struct weir_encoders *encoders, const char *format, const char *wish,
                                     const char **out, struct weir_error *error);
/* The encoder build, as a receipt has it: name and fingerprint of what encodes this codec. */
enum weir_status weir_encoders_build(struct weir_encoders *encoders, const char *format, const char *codec,
                                     char out[WEIR_ENCODER_BUILD_BYTES], struct weir_error *error);

/* The encoder build of an image of this format, likewise: name, version and fingerprint of the library. */
enum weir_status weir_encoders_image_build(struct weir_encoders *encoders, const char *format,
                                           char out[WEIR_ENCODER_BUILD_BYTES], struct weir_error *error);

/* One row a format of films; of png, a folder of frames. */
struct weir_film_format {
    const char *name;       /* "mp4" */
    const char *media_type; /* of one output */
    const char *codecs[4];  /* what it carries, the default first; NULL ends; none for gif and png */
    bool is_joined;         /* made of segments */
    uint32_t fps_max, size_multiple, frames_max;
};
const struct weir_film_format *weir_film_format(const char *name); /* NULL: none of that name */

/* One row a format of images: one picture, one file. */
struct weir_image_format {
    const char *name;       /* "jpeg" */
    const char *media_type; /* "image/jpeg" */
    const char *file;       /* "image.jpg": the name of the output */
};
const struct weir_image_format *weir_image_format(const char *name); /* NULL: none of that name */

#endif
