// SPDX-License-Identifier: GPL-3.0-or-later
/* join: segments to one film by copying their packets, nothing is encoded again.
 *
 * The film decodes to the concatenation of the segments' frames; its bytes depend on the segments and the receipt
 * only. What is checked of a segment: format, codec, size, pixel format, colour tags, clock, rate and codec headers
 * equal to the first's; a key frame first; no reordered frame; as many frames as its index promises. Damage inside a
 * packet is not seen here: whoever brings a segment checks its digest.
 */
#ifndef WEIR_VIDEO_ENCODER_JOIN_H
#define WEIR_VIDEO_ENCODER_JOIN_H

#include "proto/status.h"

#include <stdbool.h>

struct weir_join {
    const char *format; /* mp4, webm: also that of the segments */
    const char *comment; /* the receipt; may be NULL */
    const char *path;
    char *const *segments;
    int segment_count; /* at least 1 */
    bool is_scratch;   /* nothing is fsynced */
};

/* Errors   BAD_FILE with the segment's name, NOT_FOUND, TOO_LARGE (frames), IO, NO_MEMORY, INTERRUPTED, EXPIRED,
 *          INTERNAL; nothing is left behind */
enum weir_status weir_join_run(const struct weir_join *join, struct weir_error *error);

#endif
