// SPDX-License-Identifier: GPL-3.0-or-later
#include "worker/video_encoder/probe.h"

#include "proto/base/bytes.h"
#include "worker/video_encoder/container.h"
#include "worker/video_encoder/output.h"
#include "worker/video_encoder/png_folder.h"

#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct facts {
    const char *format, *codec, *pixels, *matrix; /* static texts */
    int64_t width, height, frames, bytes;
    double fps, duration_s; /* 0: the format does not say */
    char *comment;          /* or NULL; owned */
};

/* Where decoded frames go; without `take` nothing is decoded. */
struct sink {
    enum weir_status (*take)(void *taker, const uint8_t *rgb, size_t bytes, struct weir_error *error);
    void *taker;
};

struct decoder {
    AVCodecContext *context;
    AVFrame *frame;
    struct SwsContext *scaler;
    uint8_t *rgb;
    int64_t frames;
    const char *path;
};

static void decoder_deinit(struct decoder *d)
{
    sws_freeContext(d->scaler);
    av_frame_free(&d->frame);
    avcodec_free_context(&d->context);
    free(d->rgb);
}

static enum weir_status decoder_init(struct decoder *d, const struct weir_demuxer *demuxer, struct weir_error *error)
{
    const AVCodecParameters *p = demuxer->stream->codecpar;
    const AVCodec *codec = avcodec_find_decoder(p->codec_id);
    if (!codec) return weir_fail(error, WEIR_UNSUPPORTED, "the installed libavcodec cannot decode %s",
                                 avcodec_get_name(p->codec_id));
    d->path = demuxer->path;
    d->context = avcodec_alloc_context3(codec);
    d->frame = av_frame_alloc();
    d->rgb = malloc((size_t)p->width * (size_t)p->height * 3);
    if (!d->context || !d->frame || !d->rgb) return weir_fail(error, WEIR_NO_MEMORY, "out of memory");
    int code = avcodec_parameters_to_context(d->context, p);
    d->context->thread_count = 1;
    d->context->err_recognition = AV_EF_CRCCHECK | AV_EF_BUFFER | AV_EF_EXPLODE;
    if (code >= 0) code = avcodec_open2(d->context, codec, NULL);
    return code < 0 ? weir_container_fail(error, WEIR_INTERNAL, code, codec->name) : WEIR_OK;
}

static enum weir_status convert(struct decoder *d, struct weir_error *error)
{
    const AVFrame *f = d->frame;
    if (!d->scaler) {
        const int matrix = f->colorspace == AVCOL_SPC_BT709 ? SWS_CS_ITU709 : SWS_CS_ITU601;
        const int *table = sws_getCoefficients(matrix);
        d->scaler = sws_getContext(f->width, f->height, f->format, f->width, f->height, AV_PIX_FMT_RGB24,
                                   SWS_BICUBIC | SWS_ACCURATE_RND | SWS_BITEXACT | SWS_FULL_CHR_H_INT, NULL, NULL,
                                   NULL);
        if (!d->scaler) return weir_fail(error, WEIR_NO_MEMORY, "%s: no converter to RGB", d->path);
        sws_setColorspaceDetails(d->scaler, table, f->color_range == AVCOL_RANGE_JPEG, table, 1, 0, 1 << 16, 1 << 16);
    }
    uint8_t *const planes[1] = { d->rgb };
    sws_scale(d->scaler, (const uint8_t *const *)f->data, f->linesize, 0, f->height, planes, &(int){ 3 * f->width });
    return WEIR_OK;
}

/* NULL: the end; what the decoder still holds comes out. */
static enum weir_status decoder_give(struct decoder *d, const AVPacket *packet, const struct sink *sink,
                                     struct weir_error *error)
{
    int code = avcodec_send_packet(d->context, packet);
    while (code >= 0) {
        code = avcodec_receive_frame(d->context, d->frame);
        if (code < 0) break;
        if (d->frame->width != d->context->width || d->frame->height != d->context->height) code = AVERROR_INVALIDDATA;
        if (d->frame->decode_error_flags) code = AVERROR_INVALIDDATA;
        if (code < 0) break;
        enum weir_status status = convert(d, error);
        const size_t bytes = (size_t)d->frame->width * (size_t)d->frame->height * 3;
        if (status == WEIR_OK) status = sink->take(sink->taker, d->rgb, bytes, error);
        if (status != WEIR_OK) return status;
        d->frames++;
    }
    if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) return WEIR_OK;
    char what[256];
    snprintf(what, sizeof what, "%.200s: decoding frame %lld", d->path, (long long)d->frames);
    return weir_container_fail(error, WEIR_BAD_FILE, code, what);
}

static void describe(struct facts *facts, const struct weir_demuxer *demuxer, double end_s)
{
    const AVCodecParameters *p = demuxer->stream->codecpar;
    facts->format = demuxer->container->name;
    facts->codec = avcodec_get_name(p->codec_id);
    facts->pixels = av_get_pix_fmt_name(p->format);
    facts->matrix = av_color_space_name(p->color_space);
    facts->width = p->width;
    facts->height = p->height;
    facts->frames = demuxer->packets;
    facts->duration_s = end_s;
    facts->fps = av_q2d(demuxer->stream->avg_frame_rate);
    /* A GIF's clock is too coarse for the rate of two neighbours to say what was meant. */
    if (strcmp(facts->format, "gif") == 0 && end_s > 0) facts->fps = (double)facts->frames / end_s;
    if (demuxer->comment) facts->comment = strdup(demuxer->comment);
}

static enum weir_status read_film(int fd, const char *path, const struct sink *sink, struct facts *facts,
                                  struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_demuxer *demuxer = NULL;
    struct decoder decoder = { 0 };
    struct stat info;
    double end_s = 0;
    AVPacket *packet = av_packet_alloc();
    if (!packet) return weir_fail(error, WEIR_NO_MEMORY, "out of memory");
    WEIR_TRY(weir_demuxer_create(&demuxer, fd, path, error));
    if (sink) WEIR_TRY(decoder_init(&decoder, demuxer, error));
    for (bool more = true; more;) {
        WEIR_TRY(weir_demuxer_read(demuxer, packet, &more, error));
        if (more) end_s = (double)(packet->pts + packet->duration) * av_q2d(demuxer->stream->time_base);
        if (sink) WEIR_TRY(decoder_give(&decoder, more ? packet : NULL, sink, error));
    }
    if (demuxer->packets == 0 || (sink && decoder.frames != demuxer->packets)) {
        status = weir_fail(error, WEIR_BAD_FILE, "%s: of %lld frames %lld could be decoded", path,
                           (long long)demuxer->packets, (long long)decoder.frames);
        goto cleanup;
    }
    describe(facts, demuxer, end_s);
    if (fstat(fd, &info) == 0) facts->bytes = info.st_size;

cleanup:
    decoder_deinit(&decoder);
    weir_demuxer_destroy(&demuxer);
    av_packet_free(&packet);
    return status;
}

static enum weir_status read_folder(int fd, const char *path, const struct sink *sink, struct facts *facts,
                                    struct weir_error *error)
{
    *facts = (struct facts){ .format = "png", .codec = "png", .pixels = "rgb24", .matrix = "gbr" };
    for (int64_t i = 0; i < WEIR_OUTPUT_FRAMES_MAX; i++) {
        struct weir_picture png;
        enum weir_status status = weir_png_read(fd, path, i, sink != NULL, &png, error);
        if (status == WEIR_NOT_FOUND && i > 0) return WEIR_OK;
        if (status != WEIR_OK) return status;
        if (i > 0 && (png.width != facts->width || png.height != facts->height)) {
            status = weir_fail(error, WEIR_BAD_FILE, "%s: frame %lld is %ux%u, the first %lldx%lld", path, (long long)i,
                               png.width, png.height, (long long)facts->width, (long long)facts->height);
        }
        const size_t bytes = (size_t)png.width * png.height * 3;
        if (status == WEIR_OK && sink) status = sink->take(sink->taker, png.rgb, bytes, error);
        facts->width = png.width;
        facts->height = png.height;
        facts->frames = i + 1;
        if (i == 0) {
            facts->comment = png.comment;
            png.comment = NULL;
        }
        weir_picture_deinit(&png);
        if (status != WEIR_OK) return status;
    }
    return WEIR_OK;
}

static enum weir_status read_picture(int fd, const char *path, bool with_pixels, const struct sink *sink,
                                     struct facts *facts, struct weir_error *error)
{
    struct weir_picture picture;
    const struct weir_picture_kind *kind;
    size_t bytes;
    enum weir_status status = weir_picture_read(fd, path, with_pixels, &kind, &picture, &bytes, error);
    if (status != WEIR_OK) return status;
    *facts = (struct facts){ .format = kind->name, .codec = kind->name, .pixels = kind->pixels, .matrix = kind->matrix,
                             .width = picture.width, .height = picture.height, .frames = 1, .bytes = (int64_t)bytes,
                             .comment = picture.comment };
    picture.comment = NULL;
    if (sink) status = sink->take(sink->taker, picture.rgb, (size_t)picture.width * picture.height * 3, error);
    weir_picture_deinit(&picture);
    return status;
}

static bool is_picture(int fd)
{
    uint8_t head[16];
    return pread(fd, head, sizeof head, 0) == sizeof head && weir_picture_kind_of(head, sizeof head);
}

enum weir_status weir_probe_verify(int fd, bool is_folder, const char *path, int64_t width, int64_t height,
                                   int64_t frames, struct weir_error *error)
{
    struct facts facts = { 0 };
    enum weir_status status = is_folder ? read_folder(fd, path, NULL, &facts, error)
                                        : read_film(fd, path, NULL, &facts, error);
    free(facts.comment);
    if (status == WEIR_OK && (facts.width != width || facts.height != height || facts.frames != frames)) {
        status = weir_fail(error, WEIR_INTERNAL, "%s: read back as %lld frames of %lldx%lld", path,
                           (long long)facts.frames, (long long)facts.width, (long long)facts.height);
    }
    return status;
}

static enum weir_status take_digest(void *taker, const uint8_t *rgb, size_t bytes, struct weir_error *error)
{
    uint8_t digest[WEIR_SHA256_BYTES];
    char hex[WEIR_SHA256_HEX_BYTES];
    weir_sha256_of(rgb, bytes, digest);
    weir_hex_write(digest, sizeof digest, hex);
    if (json_array_append_new(taker, json_string(hex)) == 0) return WEIR_OK;
    return weir_fail(error, WEIR_NO_MEMORY, "out of memory");
}

static enum weir_status take_raw(void *taker, const uint8_t *rgb, size_t bytes, struct weir_error *error)
{
    (void)taker;
    return weir_fd_write(STDOUT_FILENO, rgb, bytes, "standard output", error);
}

static json_t *text_or_null(const char *text)
{
    json_t *value = text ? json_string(text) : NULL;
    return value ? value : json_null();
}

static enum weir_status print_facts(const struct facts *f, json_t *digests, struct weir_error *error)
{
    json_t *object = json_pack("{s:o, s:o, s:I, s:I, s:I, s:o, s:o, s:I, s:o, s:o, s:o}", "format",
                               text_or_null(f->format), "codec", text_or_null(f->codec), "width", (json_int_t)f->width,
                               "height", (json_int_t)f->height, "frames", (json_int_t)f->frames, "fps",
                               f->fps > 0 ? json_real(f->fps) : json_null(), "duration_s",
                               f->duration_s > 0 ? json_real(f->duration_s) : json_null(), "bytes",
                               (json_int_t)f->bytes, "pixels", text_or_null(f->pixels), "matrix",
                               text_or_null(f->matrix), "comment", text_or_null(f->comment));
    if (object && digests) json_object_set(object, "frame_sha256", digests);
    char *text = object ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(10)) : NULL;
    json_decref(object);
    if (!text) return weir_fail(error, WEIR_NO_MEMORY, "out of memory");
    const bool written = puts(text) >= 0 && fflush(stdout) == 0;
    free(text);
    return written ? WEIR_OK : weir_fail(error, WEIR_IO, "standard output: %s", strerror(errno));
}

static enum weir_status print_receipt(const char *path, const struct facts *facts, struct weir_error *error)
{
    if (!facts->comment) return weir_fail(error, WEIR_BAD_FILE, "%s: carries no receipt", path);
    return weir_fd_write(STDOUT_FILENO, facts->comment, strlen(facts->comment), "standard output", error);
}

enum weir_status weir_probe_run(const char *path, enum weir_probe_mode mode, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct facts facts = { 0 };
    struct stat info;
    json_t *digests = mode == WEIR_PROBE_FRAMES ? json_array() : NULL;
    const struct sink sinks[] = { [WEIR_PROBE_FRAMES] = { take_digest, digests },
                                  [WEIR_PROBE_RAW] = { take_raw, NULL } };
    const struct sink *sink = mode == WEIR_PROBE_FRAMES || mode == WEIR_PROBE_RAW ? &sinks[mode] : NULL;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a fifo must not hold us */
    if (fd < 0 || fstat(fd, &info) != 0) {
        status = weir_fail(error, errno == ENOENT ? WEIR_NOT_FOUND : WEIR_IO, "%s: %s", path, strerror(errno));
        goto cleanup;
    }
    if (S_ISDIR(info.st_mode)) {
        WEIR_TRY(read_folder(fd, path, sink, &facts, error));
    } else if (S_ISREG(info.st_mode) && is_picture(fd)) {
        WEIR_TRY(read_picture(fd, path, mode != WEIR_PROBE_RECEIPT, sink, &facts, error));
    } else if (S_ISREG(info.st_mode)) {
        WEIR_TRY(read_film(fd, path, sink, &facts, error));
    } else {
        status = weir_fail(error, WEIR_BAD_FILE, "%s: neither a file nor a folder", path);
        goto cleanup;
    }
    if (mode == WEIR_PROBE_RECEIPT) WEIR_TRY(print_receipt(path, &facts, error));
    else if (mode != WEIR_PROBE_RAW) WEIR_TRY(print_facts(&facts, digests, error));

cleanup:
    free(facts.comment);
    json_decref(digests);
    if (fd >= 0) close(fd);
    return status;
}
