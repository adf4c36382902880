// SPDX-License-Identifier: GPL-3.0-or-later
#include "worker/video_encoder/join.h"

#include "worker/video_encoder/container.h"
#include "worker/video_encoder/guard.h"
#include "worker/video_encoder/output.h"
#include "worker/video_encoder/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct film {
    const struct weir_join *join;
    struct weir_output output;
    struct weir_muxer *muxer;      /* opened with the first segment */
    AVCodecParameters *parameters; /* of the first segment */
    AVRational time_base;
    int64_t fps, frames;
    AVPacket *packet;
};

static enum weir_status differ(const char *segment, const char *what, const char *here, const char *first,
                               struct weir_error *error)
{
    return weir_fail(error, WEIR_BAD_FILE, "%s: %s is %s, the first segment's is %s", segment, what, here, first);
}

static enum weir_status compare_numbers(const char *segment, const char *what, int64_t here, int64_t first,
                                        struct weir_error *error)
{
    char a[24], b[24];
    if (here == first) return WEIR_OK;
    snprintf(a, sizeof a, "%lld", (long long)here);
    snprintf(b, sizeof b, "%lld", (long long)first);
    return differ(segment, what, a, b, error);
}

static enum weir_status compare(const struct film *film, const struct weir_demuxer *d, int64_t fps,
                                struct weir_error *error)
{
    const AVCodecParameters *p = d->stream->codecpar, *first = film->parameters;
    if (p->codec_id != first->codec_id) {
        return differ(d->path, "the codec", avcodec_get_name(p->codec_id), avcodec_get_name(first->codec_id), error);
    }
    const struct {
        const char *what;
        int64_t here, first;
    } numbers[] = {
        { "the width", p->width, first->width },
        { "the height", p->height, first->height },
        { "the rate in frames a second", fps, film->fps },
        { "the clock in ticks a second", d->stream->time_base.den, film->time_base.den },
        { "the length of a tick", d->stream->time_base.num, film->time_base.num },
        { "the pixel format", p->format, first->format },
        { "the codec profile", p->profile, first->profile },
        { "the colour matrix", p->color_space, first->color_space },
        { "the colour range", p->color_range, first->color_range },
        { "the number of codec header bytes", p->extradata_size, first->extradata_size },
    };
    for (size_t i = 0; i < WEIR_COUNT(numbers); i++) {
        const enum weir_status status =
            compare_numbers(d->path, numbers[i].what, numbers[i].here, numbers[i].first, error);
        if (status != WEIR_OK) return status;
    }
    if (p->extradata_size > 0 && memcmp(p->extradata, first->extradata, (size_t)p->extradata_size) != 0) {
        return weir_fail(error, WEIR_BAD_FILE, "%s: its codec headers are not the first segment's", d->path);
    }
    return WEIR_OK;
}

static enum weir_status begin(struct film *film, const struct weir_demuxer *d, int64_t fps, struct weir_error *error)
{
    const struct weir_container *container = weir_container_find(film->join->format);
    const int code = avcodec_parameters_copy(film->parameters, d->stream->codecpar);
    if (code < 0) return weir_container_fail(error, WEIR_NO_MEMORY, code, d->path);
    film->fps = fps;
    film->time_base = d->stream->time_base;
    return weir_muxer_create(&film->muxer, film->output.fd, film->join->path, container, film->parameters, fps,
                             film->join->comment, error);
}

static enum weir_status check_packet(const struct weir_demuxer *d, const AVPacket *packet, struct weir_error *error)
{
    if (d->packets == 1 && !(packet->flags & AV_PKT_FLAG_KEY)) {
        return weir_fail(error, WEIR_BAD_FILE, "%s: does not begin with a key frame", d->path);
    }
    if (packet->dts != AV_NOPTS_VALUE && packet->pts != packet->dts) {
        return weir_fail(error, WEIR_BAD_FILE, "%s: frame %lld is reordered", d->path, (long long)d->packets - 1);
    }
    return WEIR_OK;
}

static enum weir_status append_packets(struct film *film, struct weir_demuxer *d, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    for (bool more = true;;) {
        WEIR_TRY(weir_demuxer_read(d, film->packet, &more, error));
        if (!more) break;
        WEIR_TRY(check_packet(d, film->packet, error));
        if (++film->frames > WEIR_OUTPUT_FRAMES_MAX) {
            return weir_fail(error, WEIR_TOO_LARGE, "%s: with it the film has over %d frames", d->path,
                             WEIR_OUTPUT_FRAMES_MAX);
        }
        WEIR_TRY(weir_muxer_write(film->muxer, film->packet, error));
    }
    if (d->packets == 0) return weir_fail(error, WEIR_BAD_FILE, "%s: has no frame", d->path);

cleanup:
    return status;
}

static enum weir_status append(struct film *film, const char *segment, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_demuxer *demuxer = NULL;
    const int fd = open(segment, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return weir_fail(error, errno == ENOENT ? WEIR_NOT_FOUND : WEIR_IO, "%s: %s", segment, strerror(errno));
    WEIR_TRY(weir_demuxer_create(&demuxer, fd, segment, error));
    if (strcmp(demuxer->container->name, film->join->format) != 0) {
        status = weir_fail(error, WEIR_BAD_FILE, "%s: is %s, --format is %s", segment, demuxer->container->name,
                           film->join->format);
        goto cleanup;
    }
    const double rate = av_q2d(demuxer->stream->avg_frame_rate);
    const int64_t fps = rate > 0 && rate < 1000 ? llround(rate) : 0;
    if (fps < 1 || fps > demuxer->container->fps_max || fabs(rate - (double)fps) > 0.01) {
        status = weir_fail(error, WEIR_BAD_FILE, "%s: %.3f frames a second, a whole number from 1 to %lld is wanted",
                           segment, rate, (long long)demuxer->container->fps_max);
        goto cleanup;
    }
    if (film->muxer) WEIR_TRY(compare(film, demuxer, fps, error));
    else WEIR_TRY(begin(film, demuxer, fps, error));
    WEIR_TRY(append_packets(film, demuxer, error));

cleanup:
    weir_demuxer_destroy(&demuxer);
    close(fd);
    return status;
}

enum weir_status weir_join_run(const struct weir_join *join, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct film film = { .join = join, .packet = av_packet_alloc(), .parameters = avcodec_parameters_alloc() };
    if (!film.packet || !film.parameters) {
        status = weir_fail(error, WEIR_NO_MEMORY, "out of memory");
        goto cleanup;
    }
    WEIR_TRY(weir_output_open(&film.output, join->path, false, error));
    for (int i = 0; i < join->segment_count; i++) {
        WEIR_TRY(weir_guard_check(error));
        WEIR_TRY(append(&film, join->segments[i], error));
    }
    WEIR_TRY(weir_muxer_finish(film.muxer, error));
    WEIR_TRY(weir_probe_verify(film.output.fd, false, join->path, film.parameters->width, film.parameters->height,
                               film.frames, error));
    WEIR_TRY(weir_guard_check(error));
    WEIR_TRY(weir_output_commit(&film.output, join->is_scratch, error));

cleanup:
    weir_muxer_destroy(&film.muxer);
    weir_output_close(&film.output);
    avcodec_parameters_free(&film.parameters);
    av_packet_free(&film.packet);
    return status;
}
