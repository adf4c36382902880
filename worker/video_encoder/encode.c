// SPDX-License-Identifier: GPL-3.0-or-later
#include "worker/video_encoder/encode.h"

#include "proto/base/bytes.h"
#include "worker/video_encoder/container.h"
#include "worker/video_encoder/frames.h"
#include "worker/video_encoder/guard.h"
#include "worker/video_encoder/output.h"
#include "worker/video_encoder/palette.h"
#include "worker/video_encoder/png_folder.h"
#include "worker/video_encoder/probe.h"

#include <libavutil/opt.h>
#include <libswscale/swscale.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { KEYFRAME_FRAMES = 64, FINGERPRINT_FRAMES = 8, FINGERPRINT_SIDE = 64 };

/* Quality: flat colours within 3 levels after decoding (tests/integration/test_encode.c measures it). */
static const struct codec {
    const char *name, *encoder;
    int64_t side_min;
    const char *options[6][2];
} codecs[] = {
    { "h264",
      "libx264",
      2,
      { { "preset", "medium" },
        { "crf", "16" },
        /* cpu-independent: no algorithm is chosen by what the processor offers */
        { "x264-params", "scenecut=0:open-gop=0:cpu-independent=1:sliced-threads=0:lookahead-threads=1:"
                         "sync-lookahead=0" } } },
    { "av1",
      "libsvtav1",
      64,
      { { "preset", "8" }, { "crf", "18" }, { "svtav1-params", "lp=1:pred-struct=1:scd=0:enable-overlays=0" } } },
    { "vp9",
      "libvpx-vp9",
      2,
      { { "crf", "14" },
        { "deadline", "good" },
        { "cpu-used", "3" },
        { "lag-in-frames", "0" },
        { "auto-alt-ref", "0" },
        { "row-mt", "0" } } },
    { "gif", "gif", 1, { { "gifflags", "+offsetting+transdiff" } } },
};

struct encoder {
    AVCodecContext *context;
    AVFrame *frame;
    AVPacket *packet;
    struct SwsContext *scaler;    /* NULL: a palette is used */
    struct weir_palette *palette; /* NULL: the scaler is */
    int64_t sent, received;
    enum weir_status (*take)(void *taker, AVPacket *packet, struct weir_error *error);
    void *taker;
};

static enum weir_status find_codec(const char *name, const struct codec **out, struct weir_error *error)
{
    for (size_t i = 0; i < WEIR_COUNT(codecs); i++) {
        if (strcmp(codecs[i].name, name) != 0) continue;
        *out = &codecs[i];
        if (avcodec_find_encoder_by_name(codecs[i].encoder)) return WEIR_OK;
        return weir_fail(error, WEIR_UNSUPPORTED, "--codec %s: the installed libavcodec has no %s", name,
                         codecs[i].encoder);
    }
    return weir_fail(error, WEIR_BAD_ARGUMENT, "--codec %s: not known", name);
}

static enum weir_status choose_codec(const struct weir_encode *encode, const struct weir_container *container,
                                     const struct codec **out, struct weir_error *error)
{
    for (const char *const *name = container->codecs; *name; name++) {
        if (encode->codec && strcmp(encode->codec, *name) != 0) continue;
        const enum weir_status status = find_codec(*name, out, error);
        if (status == WEIR_OK || encode->codec) return status;
    }
    if (!encode->codec) return WEIR_UNSUPPORTED; /* in words: the last one tried */
    return weir_fail(error, WEIR_BAD_ARGUMENT, "--codec %s: --format %s does not carry it", encode->codec,
                     container->name);
}

static enum weir_status check_size(const struct weir_encode *encode, const struct weir_container *container,
                                   const struct codec *codec, struct weir_error *error)
{
    const struct {
        const char *flag;
        int64_t value;
    } sides[] = { { "width", encode->width }, { "height", encode->height } };
    for (size_t i = 0; i < WEIR_COUNT(sides); i++) {
        if (sides[i].value < codec->side_min) {
            return weir_fail(error, WEIR_BAD_ARGUMENT, "--%s %lld: %s needs at least %lld", sides[i].flag,
                             (long long)sides[i].value, codec->encoder, (long long)codec->side_min);
        }
        if (codec->side_min > 1 && sides[i].value % 2 != 0) {
            return weir_fail(error, WEIR_BAD_ARGUMENT, "--%s %lld: %s films need an even one; gif and png take any",
                             sides[i].flag, (long long)sides[i].value, container->name);
        }
    }
    if (encode->fps > container->fps_max) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--fps %lld: a %s film has at most %lld", (long long)encode->fps,
                         container->name, (long long)container->fps_max);
    }
    return WEIR_OK;
}

static void encoder_deinit(struct encoder *e)
{
    sws_freeContext(e->scaler);
    free(e->palette);
    av_frame_free(&e->frame);
    av_packet_free(&e->packet);
    avcodec_free_context(&e->context);
}

/* RGB24 to limited-range BT.709, rounded to nearest, the same on every processor. */
static struct SwsContext *scaler_create(int width, int height)
{
    struct SwsContext *scaler =
        sws_getContext(width, height, AV_PIX_FMT_RGB24, width, height, AV_PIX_FMT_YUV420P,
                       SWS_BICUBIC | SWS_ACCURATE_RND | SWS_BITEXACT | SWS_FULL_CHR_H_INP, NULL, NULL, NULL);
    const int *bt709 = sws_getCoefficients(SWS_CS_ITU709);
    if (scaler && sws_setColorspaceDetails(scaler, bt709, 1, bt709, 0, 0, 1 << 16, 1 << 16) < 0) {
        sws_freeContext(scaler);
        scaler = NULL;
    }
    return scaler;
}

static void describe(AVCodecContext *context, const struct codec *codec, int width, int height, int fps)
{
    const bool is_gif = strcmp(codec->name, "gif") == 0;
    context->width = width;
    context->height = height;
    context->time_base = (AVRational){ 1, fps };
    context->framerate = (AVRational){ fps, 1 };
    context->pix_fmt = is_gif ? AV_PIX_FMT_PAL8 : AV_PIX_FMT_YUV420P;
    context->thread_count = 1;
    context->flags |= (int)(AV_CODEC_FLAG_BITEXACT | AV_CODEC_FLAG_CLOSED_GOP | AV_CODEC_FLAG_GLOBAL_HEADER);
    if (is_gif) return;
    context->gop_size = KEYFRAME_FRAMES;
    context->max_b_frames = 0;
    context->color_range = AVCOL_RANGE_MPEG;
    context->colorspace = AVCOL_SPC_BT709;
    context->color_primaries = AVCOL_PRI_BT709;
    context->color_trc = AVCOL_TRC_BT709;
    context->chroma_sample_location = AVCHROMA_LOC_LEFT;
}

/* On error the caller still calls encoder_deinit(). */
static enum weir_status encoder_init(struct encoder *e, const struct codec *codec, int width, int height, int fps,
                                     struct weir_error *error)
{
    const AVCodec *implementation = avcodec_find_encoder_by_name(codec->encoder);
    AVDictionary *options = NULL;
    e->context = avcodec_alloc_context3(implementation);
    e->frame = av_frame_alloc();
    e->packet = av_packet_alloc();
    if (!e->context || !e->frame || !e->packet) return weir_fail(error, WEIR_NO_MEMORY, "out of memory");
    describe(e->context, codec, width, height, fps);
    e->frame->width = width;
    e->frame->height = height;
    e->frame->format = e->context->pix_fmt;
    e->frame->color_range = e->context->color_range;
    e->frame->colorspace = e->context->colorspace;
    if (e->context->pix_fmt == AV_PIX_FMT_PAL8)
        e->palette = malloc(sizeof *e->palette);
    else
        e->scaler = scaler_create(width, height);
    if ((!e->palette && !e->scaler) || av_frame_get_buffer(e->frame, 0) < 0) {
        return weir_fail(error, WEIR_NO_MEMORY, "out of memory for frames of %dx%d", width, height);
    }
    int code = 0;
    for (size_t i = 0; code >= 0 && i < WEIR_COUNT(codec->options) && codec->options[i][0]; i++) {
        code = av_dict_set(&options, codec->options[i][0], codec->options[i][1], 0);
    }
    if (code >= 0) code = avcodec_open2(e->context, implementation, &options);
    const bool all_taken = av_dict_count(options) == 0;
    av_dict_free(&options);
    if (code < 0) return weir_container_fail(error, WEIR_INTERNAL, code, codec->encoder);
    if (!all_taken) return weir_fail(error, WEIR_UNSUPPORTED, "%s: does not know an option we give it", codec->encoder);
    return WEIR_OK;
}

static enum weir_status encoder_drain(struct encoder *e, struct weir_error *error)
{
    for (;;) {
        const int code = avcodec_receive_packet(e->context, e->packet);
        if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) return WEIR_OK;
        if (code < 0) return weir_container_fail(error, WEIR_INTERNAL, code, e->context->codec->name);
        const bool is_key = e->packet->flags & AV_PKT_FLAG_KEY;
        if (e->packet->pts != e->received || (e->received == 0 && !is_key)) {
            return weir_fail(error, WEIR_INTERNAL, "%s: frame %lld came out of order", e->context->codec->name,
                             (long long)e->packet->pts);
        }
        e->received++;
        const enum weir_status status = e->take(e->taker, e->packet, error);
        av_packet_unref(e->packet);
        if (status != WEIR_OK) return status;
    }
}

static void paint(struct encoder *e, const uint8_t *rgb)
{
    const int width = e->frame->width, height = e->frame->height;
    if (e->scaler) {
        const uint8_t *const planes[1] = { rgb };
        sws_scale(e->scaler, planes, &(int){ 3 * width }, 0, height, e->frame->data, e->frame->linesize);
        return;
    }
    weir_palette_make(e->palette, rgb, (size_t)width * (size_t)height);
    memcpy(e->frame->data[1], e->palette->argb, sizeof e->palette->argb);
    for (int y = 0; y < height; y++) {
        uint8_t *row = e->frame->data[0] + (ptrdiff_t)y * e->frame->linesize[0];
        for (int x = 0; x < width; x++, rgb += 3) row[x] = weir_palette_index(e->palette, rgb);
    }
}

/* NULL: no more frames. What comes out is for encoder_drain(). */
static enum weir_status encoder_send(struct encoder *e, const uint8_t *rgb, struct weir_error *error)
{
    int code = rgb ? av_frame_make_writable(e->frame) : 0;
    if (code >= 0 && rgb) {
        paint(e, rgb);
        e->frame->pts = e->sent++;
    }
    if (code >= 0) code = avcodec_send_frame(e->context, rgb ? e->frame : NULL);
    return code < 0 ? weir_container_fail(error, WEIR_INTERNAL, code, e->context->codec->name) : WEIR_OK;
}

static enum weir_status encoder_give(struct encoder *e, const uint8_t *rgb, struct weir_error *error)
{
    enum weir_status status = encoder_send(e, rgb, error);
    if (status == WEIR_OK) status = encoder_drain(e, error);
    if (status != WEIR_OK || rgb || e->received == e->sent) return status;
    return weir_fail(error, WEIR_INTERNAL, "%s: %lld frames went in, %lld came out", e->context->codec->name,
                     (long long)e->sent, (long long)e->received);
}

static enum weir_status read_frames(const struct weir_encode *encode, int in_fd, weir_frame_taker *take, void *taker,
                                    struct weir_error *error)
{
    struct weir_frames frames = { encode->width, encode->height, encode->frames, in_fd, 0 };
    return weir_frames_read(&frames, take, taker, error);
}

struct film {
    const struct weir_encode *encode;
    const struct weir_container *container;
    const struct codec *codec;
    struct encoder encoder;
    struct weir_output output;
    struct weir_muxer *muxer;
};

static enum weir_status mux_packet(void *taker, AVPacket *packet, struct weir_error *error)
{
    return weir_muxer_write(taker, packet, error);
}

/* The encoder is opened when its first frame is there and gets it before anything else can fail: SVT-AV1 1.4.1 waits
 * for ever when it is closed without having had one. */
static enum weir_status begin_film(struct film *film, const uint8_t *rgb, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_encode *encode = film->encode;
    AVCodecParameters *parameters = avcodec_parameters_alloc();
    if (!parameters) return weir_fail(error, WEIR_NO_MEMORY, "out of memory");
    WEIR_TRY(
        encoder_init(&film->encoder, film->codec, (int)encode->width, (int)encode->height, (int)encode->fps, error));
    WEIR_TRY(encoder_send(&film->encoder, rgb, error));
    const int code = avcodec_parameters_from_context(parameters, film->encoder.context);
    if (code < 0) {
        status = weir_container_fail(error, WEIR_NO_MEMORY, code, "parameters");
        goto cleanup;
    }
    WEIR_TRY(weir_muxer_create(&film->muxer, film->output.fd, encode->path, film->container, parameters, encode->fps,
                               encode->comment, error));
    film->encoder.take = mux_packet;
    film->encoder.taker = film->muxer;
    WEIR_TRY(encoder_drain(&film->encoder, error));

cleanup:
    avcodec_parameters_free(&parameters);
    return status;
}

static enum weir_status encode_frame(void *taker, int64_t index, uint8_t *rgb, struct weir_error *error)
{
    struct film *film = taker;
    return index == 0 ? begin_film(film, rgb, error) : encoder_give(&film->encoder, rgb, error);
}

static enum weir_status encode_film(const struct weir_encode *encode, const struct weir_container *container, int in_fd,
                                    struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct film film = { .encode = encode, .container = container };
    WEIR_TRY(choose_codec(encode, container, &film.codec, error));
    WEIR_TRY(check_size(encode, container, film.codec, error));
    WEIR_TRY(weir_output_open(&film.output, encode->path, false, error));
    WEIR_TRY(read_frames(encode, in_fd, encode_frame, &film, error));
    WEIR_TRY(encoder_give(&film.encoder, NULL, error));
    WEIR_TRY(weir_muxer_finish(film.muxer, error));
    WEIR_TRY(
        weir_probe_verify(film.output.fd, false, encode->path, encode->width, encode->height, encode->frames, error));
    WEIR_TRY(weir_guard_check(error));
    WEIR_TRY(weir_output_commit(&film.output, encode->is_scratch, error));

cleanup:
    weir_muxer_destroy(&film.muxer);
    weir_output_close(&film.output);
    weir_guard_release();
    encoder_deinit(&film.encoder);
    return status;
}

struct folder {
    const struct weir_encode *encode;
    int fd;
};

static enum weir_status write_png(void *taker, int64_t index, uint8_t *rgb, struct weir_error *error)
{
    const struct folder *folder = taker;
    const struct weir_picture picture = { .width = (uint32_t)folder->encode->width,
                                          .height = (uint32_t)folder->encode->height,
                                          .comment = (char *)folder->encode->comment,
                                          .rgb = rgb };
    return weir_png_write(folder->fd, folder->encode->path, index, &picture, folder->encode->is_scratch, error);
}

static enum weir_status encode_folder(const struct weir_encode *encode, int in_fd, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_output output = { 0 };
    if (encode->codec) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--codec %s: --format png has none", encode->codec);
    }
    WEIR_TRY(weir_output_open(&output, encode->path, true, error));
    struct folder folder = { .encode = encode, .fd = output.fd };
    WEIR_TRY(read_frames(encode, in_fd, write_png, &folder, error));
    WEIR_TRY(weir_probe_verify(output.fd, true, encode->path, encode->width, encode->height, encode->frames, error));
    WEIR_TRY(weir_guard_check(error));
    WEIR_TRY(weir_output_commit(&output, encode->is_scratch, error));

cleanup:
    weir_output_close(&output);
    return status;
}

enum weir_status weir_encode_run(const struct weir_encode *encode, int in_fd, struct weir_error *error)
{
    const struct weir_container *container = weir_container_find(encode->format);
    return container ? encode_film(encode, container, in_fd, error) : encode_folder(encode, in_fd, error);
}

static enum weir_status hash_packet(void *taker, AVPacket *packet, struct weir_error *error)
{
    (void)error;
    weir_sha256_update(taker, packet->data, (size_t)packet->size);
    return WEIR_OK;
}

enum weir_status weir_encode_fingerprint(const char *name, const char **implementation, uint8_t out[32],
                                         struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct codec *codec = NULL;
    struct weir_sha256 sha;
    struct encoder encoder = { .take = hash_packet, .taker = &sha };
    uint8_t rgb[FINGERPRINT_SIDE * FINGERPRINT_SIDE * 3];
    weir_sha256_init(&sha);
    WEIR_TRY(find_codec(name, &codec, error));
    *implementation = codec->encoder;
    WEIR_TRY(encoder_init(&encoder, codec, FINGERPRINT_SIDE, FINGERPRINT_SIDE, FINGERPRINT_FRAMES, error));
    if (encoder.context->extradata_size > 0) {
        weir_sha256_update(&sha, encoder.context->extradata, (size_t)encoder.context->extradata_size);
    }
    uint32_t noise = 1;
    for (int frame = 0; frame < FINGERPRINT_FRAMES; frame++) {
        for (size_t i = 0; i < sizeof rgb; i++) { /* a moving slope with noise on it: something for every tool */
            noise = noise * 1664525 + 1013904223;
            rgb[i] = (uint8_t)((i / 3 + 5 * (size_t)frame) % FINGERPRINT_SIDE * 3 + i % 3 * 16 + (noise >> 28));
        }
        WEIR_TRY(encoder_give(&encoder, rgb, error));
    }
    WEIR_TRY(encoder_give(&encoder, NULL, error));

cleanup:
    weir_sha256_final(&sha, out);
    encoder_deinit(&encoder);
    return status;
}
