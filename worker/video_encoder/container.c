// SPDX-License-Identifier: GPL-3.0-or-later
#include "worker/video_encoder/container.h"

#include "worker/video_encoder/guard.h"

#include <libavutil/opt.h>
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 16, GIF_BLOCK_BYTES = 255, GIF_TRAILER = 0x3b };

static const struct weir_container containers[] = {
    { "mp4", "mov", "ftyp", 4, 4, { "h264", "av1", "vp9" }, 240 },
    { "webm", "matroska", "\x1a\x45\xdf\xa3", 0, 4, { "vp9", "av1" }, 240 },
    /* its clock counts 1/100 s, and browsers play anything under 2/100 at 10/100 */
    { "gif", "gif", "GIF8", 0, 4, { "gif" }, 50 },
};

const struct weir_container *weir_container_find(const char *name)
{
    for (size_t i = 0; i < WEIR_COUNT(containers); i++) {
        if (strcmp(containers[i].name, name) == 0) return &containers[i];
    }
    return NULL;
}

enum weir_status weir_container_fail(struct weir_error *error, enum weir_status otherwise, int av_code,
                                     const char *what)
{
    char words[AV_ERROR_MAX_STRING_SIZE] = "";
    av_strerror(av_code, words, sizeof words);
    return weir_fail(error, av_code == AVERROR(ENOMEM) ? WEIR_NO_MEMORY : otherwise, "%s: %s", what, words);
}

/* A descriptor with a position of its own, as libavformat wants it. */
struct weir_descriptor {
    AVIOContext *avio;
    int fd;
    const char *path;
    int64_t position;
    struct weir_error fault; /* the first one; its code is OK without */
};

static int descriptor_fault(struct weir_descriptor *d)
{
    if (d->fault.code == WEIR_OK) weir_fail(&d->fault, WEIR_IO, "%s: %s", d->path, strerror(errno));
    return AVERROR(EIO);
}

static int descriptor_write(void *opaque, uint8_t *bytes, int count)
{
    struct weir_descriptor *d = opaque;
    if (d->fault.code != WEIR_OK) return AVERROR(EIO);
    if (weir_guard_check(&d->fault) != WEIR_OK) return AVERROR_EXIT;
    for (int written = 0; written < count;) {
        const ssize_t done = pwrite(d->fd, bytes + written, (size_t)(count - written), d->position);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return descriptor_fault(d);
        written += (int)done;
        d->position += done;
    }
    return count;
}

static int descriptor_read(void *opaque, uint8_t *bytes, int count)
{
    struct weir_descriptor *d = opaque;
    if (weir_guard_check(&d->fault) != WEIR_OK) return AVERROR_EXIT;
    const ssize_t done = pread(d->fd, bytes, (size_t)count, d->position);
    if (done < 0) return descriptor_fault(d);
    d->position += done;
    return done == 0 ? AVERROR_EOF : (int)done;
}

static int64_t descriptor_seek(void *opaque, int64_t offset, int whence)
{
    struct weir_descriptor *d = opaque;
    struct stat facts;
    whence &= ~AVSEEK_FORCE;
    if ((whence == AVSEEK_SIZE || whence == SEEK_END) && fstat(d->fd, &facts) != 0) return descriptor_fault(d);
    if (whence == AVSEEK_SIZE) return facts.st_size;
    const int64_t from = whence == SEEK_END ? facts.st_size : whence == SEEK_CUR ? d->position : 0;
    if (offset < -from) return AVERROR(EINVAL);
    d->position = from + offset;
    return d->position;
}

static void descriptor_destroy(struct weir_descriptor **d_p)
{
    struct weir_descriptor *d = *d_p;
    if (!d) return;
    if (d->avio) av_freep(&d->avio->buffer);
    avio_context_free(&d->avio);
    free(d);
    *d_p = NULL;
}

static struct weir_descriptor *descriptor_create(int fd, const char *path, bool for_writing)
{
    struct weir_descriptor *d = calloc(1, sizeof *d);
    uint8_t *buffer = av_malloc(BUFFER_BYTES);
    if (d && buffer) {
        d->fd = fd;
        d->path = path;
        d->avio = avio_alloc_context(buffer, BUFFER_BYTES, for_writing, d, for_writing ? NULL : descriptor_read,
                                     for_writing ? descriptor_write : NULL, descriptor_seek);
    }
    if (d && d->avio) return d;
    av_free(buffer);
    free(d);
    return NULL;
}

/* mp4's faststart opens what it has written once more, to move it behind the index: it gets our own file again. */
static int reopen(AVFormatContext *context, AVIOContext **out, const char *url, int flags, AVDictionary **options)
{
    (void)url, (void)options;
    struct weir_descriptor *own = context->opaque;
    if (flags != AVIO_FLAG_READ || !context->oformat) return AVERROR(EPERM);
    struct weir_descriptor *again = descriptor_create(own->fd, own->path, false);
    if (!again) return AVERROR(ENOMEM);
    *out = again->avio;
    return 0;
}

static int close_again(AVFormatContext *context, AVIOContext *avio)
{
    (void)context;
    struct weir_descriptor *again = avio->opaque;
    descriptor_destroy(&again);
    return 0;
}

static void keep_inside(AVFormatContext *context, struct weir_descriptor *descriptor)
{
    context->pb = descriptor->avio;
    context->opaque = descriptor;
    context->io_open = reopen;
    context->io_close2 = close_again;
    context->flags |= AVFMT_FLAG_BITEXACT | AVFMT_FLAG_CUSTOM_IO;
}

/* A fault of the file explains what libavformat says about it. */
static enum weir_status fail(const struct weir_descriptor *d, enum weir_status otherwise, int av_code, const char *what,
                             struct weir_error *error)
{
    if (d && d->fault.code != WEIR_OK) return weir_fail(error, d->fault.code, "%s", d->fault.words);
    return weir_container_fail(error, otherwise, av_code, what);
}

/* writing */

struct weir_muxer {
    AVFormatContext *context;
    struct weir_descriptor *descriptor;
    const struct weir_container *container;
    char *comment;
    AVRational frame; /* seconds a frame */
    int64_t packets;
    bool is_open; /* between header and trailer */
};

void weir_muxer_destroy(struct weir_muxer **muxer_p)
{
    struct weir_muxer *muxer = *muxer_p;
    if (!muxer) return;
    if (muxer->is_open && strcmp(muxer->container->name, "gif") == 0) {
        /* libavformat 59's GIF writer frees the frame it holds back here only; nothing is written any more. */
        if (muxer->descriptor->fault.code == WEIR_OK) weir_fail(&muxer->descriptor->fault, WEIR_INTERNAL, "given up");
        av_write_trailer(muxer->context);
    }
    avformat_free_context(muxer->context);
    descriptor_destroy(&muxer->descriptor);
    free(muxer->comment);
    free(muxer);
    *muxer_p = NULL;
}

enum weir_status weir_muxer_create(struct weir_muxer **out, int fd, const char *path,
                                   const struct weir_container *container, const AVCodecParameters *parameters,
                                   int64_t fps, const char *comment, struct weir_error *error)
{
    enum weir_status status = WEIR_NO_MEMORY;
    AVDictionary *options = NULL;
    struct weir_muxer *muxer = calloc(1, sizeof *muxer);
    if (!muxer) return weir_fail(error, WEIR_NO_MEMORY, "out of memory");
    muxer->container = container;
    muxer->frame = (AVRational){ 1, (int)fps };
    muxer->descriptor = descriptor_create(fd, path, true);
    if (comment) muxer->comment = strdup(comment);
    int code = avformat_alloc_output_context2(&muxer->context, NULL, container->name, NULL);
    AVStream *stream = code < 0 ? NULL : avformat_new_stream(muxer->context, NULL);
    if (!muxer->descriptor || !stream || (comment && !muxer->comment)) {
        weir_fail(error, status, "out of memory, or no writer for %s", container->name);
        goto cleanup;
    }
    keep_inside(muxer->context, muxer->descriptor);
    stream->time_base = muxer->frame;
    stream->avg_frame_rate = av_inv_q(muxer->frame);
    code = avcodec_parameters_copy(stream->codecpar, parameters);
    stream->codecpar->codec_tag = 0; /* the writer's own, whatever the segment's was */
    if (code >= 0 && comment) code = av_dict_set(&muxer->context->metadata, "comment", comment, 0);
    if (code >= 0) code = av_dict_set(&options, "movflags", "+faststart", 0); /* other writers leave it unused */
    if (code >= 0) code = avformat_write_header(muxer->context, &options);
    if (code < 0) {
        status = fail(muxer->descriptor, WEIR_INTERNAL, code, "writing the header", error);
        goto cleanup;
    }
    muxer->is_open = true;
    *out = muxer;
    muxer = NULL;
    status = WEIR_OK;

cleanup:
    av_dict_free(&options);
    weir_muxer_destroy(&muxer);
    return status;
}

enum weir_status weir_muxer_write(struct weir_muxer *muxer, AVPacket *packet, struct weir_error *error)
{
    const AVRational tick = muxer->context->streams[0]->time_base;
    packet->stream_index = 0;
    packet->pos = -1;
    packet->pts = packet->dts = av_rescale_q(muxer->packets, muxer->frame, tick);
    packet->duration = av_rescale_q(muxer->packets + 1, muxer->frame, tick) - packet->pts;
    packet->time_base = tick;
    muxer->packets++;
    const int code = av_interleaved_write_frame(muxer->context, packet);
    if (code < 0 || muxer->descriptor->fault.code != WEIR_OK) {
        return fail(muxer->descriptor, WEIR_INTERNAL, code, "writing a frame", error);
    }
    return WEIR_OK;
}

/* libavformat reads comment extensions of a GIF but writes none: ours goes where the trailer byte was. */
static enum weir_status append_gif_comment(struct weir_muxer *muxer, struct weir_error *error)
{
    struct weir_descriptor *d = muxer->descriptor;
    const size_t count = strlen(muxer->comment);
    const size_t blocks = (count + GIF_BLOCK_BYTES - 1) / GIF_BLOCK_BYTES;
    uint8_t *bytes = malloc(count + blocks + 4), *at = bytes, last = 0;
    if (!bytes) return weir_fail(error, WEIR_NO_MEMORY, "out of memory");
    *at++ = 0x21;
    *at++ = 0xfe;
    for (size_t i = 0; i < count; i += GIF_BLOCK_BYTES) {
        const size_t block = count - i < GIF_BLOCK_BYTES ? count - i : GIF_BLOCK_BYTES;
        *at++ = (uint8_t)block;
        memcpy(at, muxer->comment + i, block);
        at += block;
    }
    *at++ = 0;
    *at++ = GIF_TRAILER;
    const int64_t end = descriptor_seek(d, -1, SEEK_END);
    const bool is_gif = end >= 0 && pread(d->fd, &last, 1, end) == 1 && last == GIF_TRAILER;
    if (is_gif) descriptor_write(d, bytes, (int)(at - bytes));
    free(bytes);
    return is_gif ? WEIR_OK : weir_fail(error, WEIR_INTERNAL, "the GIF does not end in its trailer");
}

enum weir_status weir_muxer_finish(struct weir_muxer *muxer, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    int code = av_write_trailer(muxer->context);
    muxer->is_open = false;
    avio_flush(muxer->descriptor->avio);
    if (code >= 0) code = muxer->descriptor->avio->error;
    if (code >= 0 && muxer->comment && strcmp(muxer->container->name, "gif") == 0) {
        status = append_gif_comment(muxer, error);
    }
    if (code < 0 || muxer->descriptor->fault.code != WEIR_OK) {
        return fail(muxer->descriptor, WEIR_INTERNAL, code, "writing the end", error);
    }
    return status;
}

/* reading */

static const struct weir_container *recognise(int fd)
{
    uint8_t head[16] = { 0 };
    if (pread(fd, head, sizeof head, 0) < 8) return NULL;
    for (size_t i = 0; i < WEIR_COUNT(containers); i++) {
        const struct weir_container *c = &containers[i];
        if (memcmp(head + c->magic_at, c->magic, c->magic_bytes) == 0) return c;
    }
    return NULL;
}

void weir_demuxer_destroy(struct weir_demuxer **demuxer_p)
{
    struct weir_demuxer *demuxer = *demuxer_p;
    if (!demuxer) return;
    avformat_close_input(&demuxer->context);
    descriptor_destroy(&demuxer->descriptor);
    free(demuxer);
    *demuxer_p = NULL;
}

static enum weir_status check_stream(struct weir_demuxer *demuxer, struct weir_error *error)
{
    const AVFormatContext *context = demuxer->context;
    if (context->nb_streams != 1 || context->streams[0]->codecpar->codec_type != AVMEDIA_TYPE_VIDEO) {
        return weir_fail(error, WEIR_BAD_FILE, "%s: %u streams, one film stream alone is wanted", demuxer->path,
                         context->nb_streams);
    }
    demuxer->stream = context->streams[0];
    const AVCodecParameters *p = demuxer->stream->codecpar;
    const char *name = avcodec_get_name(p->codec_id);
    bool known = false;
    for (const char *const *codec = demuxer->container->codecs; *codec; codec++) known |= strcmp(*codec, name) == 0;
    if (!known || p->width < 1 || p->height < 1 || p->width > 8192 || p->height > 8192) {
        return weir_fail(error, WEIR_BAD_FILE, "%s: %s of %dx%d in %s is not read", demuxer->path, name, p->width,
                         p->height, demuxer->container->name);
    }
    return WEIR_OK;
}

enum weir_status weir_demuxer_create(struct weir_demuxer **out, int fd, const char *path, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_container *container = recognise(fd);
    if (!container) return weir_fail(error, WEIR_BAD_FILE, "%s: neither MP4, WebM, GIF nor a picture", path);
    struct weir_demuxer *demuxer = calloc(1, sizeof *demuxer);
    if (!demuxer) return weir_fail(error, WEIR_NO_MEMORY, "out of memory");
    demuxer->container = container;
    demuxer->path = path;
    demuxer->descriptor = descriptor_create(fd, path, false);
    demuxer->context = avformat_alloc_context();
    if (!demuxer->descriptor || !demuxer->context) {
        status = weir_fail(error, WEIR_NO_MEMORY, "out of memory");
        goto cleanup;
    }
    keep_inside(demuxer->context, demuxer->descriptor);
    demuxer->context->codec_whitelist = av_strdup("h264,av1,libdav1d,libaom-av1,vp9,gif");
    demuxer->context->error_recognition = AV_EF_CRCCHECK | AV_EF_EXPLODE;
    int code = avformat_open_input(&demuxer->context, NULL, av_find_input_format(container->reader), NULL);
    if (code >= 0) code = avformat_find_stream_info(demuxer->context, NULL);
    if (code < 0) {
        char what[256];
        snprintf(what, sizeof what, "%.200s: damaged %s", path, container->name);
        status = fail(demuxer->descriptor, WEIR_BAD_FILE, code, what, error);
        goto cleanup;
    }
    WEIR_TRY(check_stream(demuxer, error));
    const AVDictionaryEntry *entry = av_dict_get(demuxer->context->metadata, "comment", NULL, 0);
    demuxer->comment = entry ? entry->value : NULL;
    *out = demuxer;
    return WEIR_OK;

cleanup:
    weir_demuxer_destroy(&demuxer);
    return status;
}

/* MP4 counts its frames, WebM says how long it is, GIF says nothing (0). */
static int64_t frames_promised(const struct weir_demuxer *demuxer)
{
    const AVStream *stream = demuxer->stream;
    if (stream->nb_frames > 0) return stream->nb_frames;
    if (strcmp(demuxer->container->name, "webm") != 0 || demuxer->context->duration <= 0) return 0;
    return av_rescale_q(demuxer->context->duration, AV_TIME_BASE_Q, av_inv_q(stream->avg_frame_rate));
}

enum weir_status weir_demuxer_read(struct weir_demuxer *demuxer, AVPacket *packet, bool *more, struct weir_error *error)
{
    av_packet_unref(packet);
    const int code = av_read_frame(demuxer->context, packet);
    *more = code >= 0;
    if (code >= 0 && (packet->flags & AV_PKT_FLAG_CORRUPT || packet->size == 0)) {
        return weir_fail(error, WEIR_BAD_FILE, "%s: frame %lld is cut short", demuxer->path,
                         (long long)demuxer->packets);
    }
    if (code >= 0) {
        demuxer->packets++;
        return WEIR_OK;
    }
    const AVDictionaryEntry *entry = av_dict_get(demuxer->context->metadata, "comment", NULL, 0);
    demuxer->comment = entry ? entry->value : NULL;
    if (code != AVERROR_EOF || demuxer->descriptor->fault.code != WEIR_OK) {
        char what[256];
        snprintf(what, sizeof what, "%.200s: after frame %lld", demuxer->path, (long long)demuxer->packets);
        return fail(demuxer->descriptor, WEIR_BAD_FILE, code, what, error);
    }
    const int64_t promised = frames_promised(demuxer);
    if (promised > 0 && demuxer->packets != promised) {
        return weir_fail(error, WEIR_BAD_FILE, "%s: has %lld frames, its index promises %lld", demuxer->path,
                         (long long)demuxer->packets, (long long)promised);
    }
    return WEIR_OK;
}
