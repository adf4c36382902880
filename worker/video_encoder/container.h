// SPDX-License-Identifier: GPL-3.0-or-later
/* container: MP4, WebM and GIF files, written and read through descriptors that we opened ourselves.
 *
 * libavformat never sees a path: its protocols (http:, concat:, ...) cannot be reached, and what a file refers to
 * outside itself is refused. Writing is bitexact: no dates, no versions, no random ids. Frame i lies at i/fps exactly
 * as far as the container's clock allows (MP4: exact; WebM: milliseconds; GIF: 1/100 s), whatever times the packets
 * came with.
 *
 * Memory   create/destroy pairs; `path` is used in messages only and must outlive the object
 * Threads  one
 */
#ifndef WEIR_VIDEO_ENCODER_CONTAINER_H
#define WEIR_VIDEO_ENCODER_CONTAINER_H

#include "proto/status.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <stdbool.h>

struct weir_container { /* one row a format */
    const char *name;     /* "mp4": also what libavformat calls the writer */
    const char *reader;
    const char *magic;
    size_t magic_at, magic_bytes;
    const char *codecs[4]; /* which it carries, the default first; NULL ends */
    int64_t fps_max;
};

/* NULL when there is none of this name (png is a folder, not a container). */
const struct weir_container *weir_container_find(const char *name);

/* IO and INTERRUPTED stay what they are; else `otherwise` with libav's words. */
enum weir_status weir_container_fail(struct weir_error *error, enum weir_status otherwise, int av_code,
                                     const char *what);

struct weir_muxer;
/* Errors   IO, NO_MEMORY, INTERRUPTED, INTERNAL.  `comment` (may be NULL) goes in as the `comment` tag; in a GIF as a
 * comment extension at its end. `parameters` is borrowed for the call. */
enum weir_status weir_muxer_create(struct weir_muxer **out, int fd, const char *path,
                                   const struct weir_container *container, const AVCodecParameters *parameters,
                                   int64_t fps, const char *comment, struct weir_error *error);
/* The next frame's packet, which is left blank. */
enum weir_status weir_muxer_write(struct weir_muxer *muxer, AVPacket *packet, struct weir_error *error);
enum weir_status weir_muxer_finish(struct weir_muxer *muxer, struct weir_error *error);
void weir_muxer_destroy(struct weir_muxer **muxer);

struct weir_demuxer {
    const struct weir_container *container;
    const AVStream *stream; /* the only one */
    const char *comment;    /* or NULL; a GIF's is known after its last packet */
    int64_t packets;        /* read so far */
    AVFormatContext *context;
    struct weir_descriptor *descriptor;
    const char *path;
};
/* Errors   BAD_FILE (another kind, damaged, not exactly one film stream of a codec we write), IO, NO_MEMORY */
enum weir_status weir_demuxer_create(struct weir_demuxer **out, int fd, const char *path, struct weir_error *error);
/* `*more` is false at the end. Errors   BAD_FILE: damaged, or fewer packets than the file's index promises */
enum weir_status weir_demuxer_read(struct weir_demuxer *demuxer, AVPacket *packet, bool *more,
                                   struct weir_error *error);
void weir_demuxer_destroy(struct weir_demuxer **demuxer);

#endif
