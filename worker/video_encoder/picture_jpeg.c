// SPDX-License-Identifier: GPL-3.0-or-later
/* JPEG through libjpeg-turbo's libjpeg interface: its TurboJPEG one cannot write or read a COM segment.
 *
 * A picture is written in stripes, of which several threads compress one each. Between stripes stand restart markers,
 * which make them independent of each other and cost two bytes. Each is compressed as a picture of its own; what follows
 * its header are the very bytes that libjpeg writes in one piece with `restart_in_rows`. How many there are depends on
 * the height alone, how many threads there are on the machine. */
#include "worker/video_encoder/picture.h"

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>
#include <setjmp.h>

enum { QUALITY = 95, COMMENT_BYTES_MAX = 65533, STRIPE_ROWS = 32, SINK_BYTES = 4096, SOF0 = 0xc0, SOS = 0xda };
enum { HANDS_MAX = 8, STACK_BYTES = 256 << 10 };

/* libjpeg reports through a jump, and takes a damaged file for a warning: to us that is an error, too. */
struct fault {
    struct jpeg_error_mgr manager;
    jmp_buf jump;
    char words[JMSG_LENGTH_MAX];
    bool no_memory;
};

static void on_error(j_common_ptr jpeg)
{
    struct fault *fault = (struct fault *)jpeg->err;
    jpeg->err->format_message(jpeg, fault->words);
    fault->no_memory = jpeg->err->msg_code == JERR_OUT_OF_MEMORY;
    longjmp(fault->jump, 1);
}

static void on_message(j_common_ptr jpeg, int level)
{
    if (level < 0) on_error(jpeg);
}

static struct jpeg_error_mgr *fault_begin(struct fault *fault)
{
    jpeg_std_error(&fault->manager);
    fault->manager.error_exit = on_error;
    fault->manager.emit_message = on_message;
    return &fault->manager;
}

static enum weir_status fault_end(const struct fault *fault, enum weir_status otherwise, struct weir_error *error)
{
    return weir_fail(error, fault->no_memory ? WEIR_NO_MEMORY : otherwise, "JPEG: %s", fault->words);
}

static void library(char out[64])
{
#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
    snprintf(out, 64, "libjpeg-turbo %s", TEXT(LIBJPEG_TURBO_VERSION));
#undef TEXT
#undef TEXT_OF
}

/* ---- encoding ---- */

/* A file on its way into memory. libjpeg's own such destination loses what it had when its memory ends. */
struct sink {
    struct jpeg_destination_mgr manager;
    unsigned char *bytes; /* free() */
    size_t count, room;
};

static void sink_begin(j_compress_ptr jpeg)
{
    struct sink *sink = (struct sink *)jpeg->dest;
    sink->manager.next_output_byte = sink->bytes;
    sink->manager.free_in_buffer = sink->room;
}

/* It is full, whatever free_in_buffer says. */
static boolean sink_grow(j_compress_ptr jpeg)
{
    struct sink *sink = (struct sink *)jpeg->dest;
    const size_t room = 2 * sink->room;
    unsigned char *bytes = realloc(sink->bytes, room);
    if (!bytes) ERREXIT1(jpeg, JERR_OUT_OF_MEMORY, 0);
    sink->manager.next_output_byte = bytes + sink->room;
    sink->manager.free_in_buffer = room - sink->room;
    sink->bytes = bytes;
    sink->room = room;
    return TRUE;
}

static void sink_end(j_compress_ptr jpeg)
{
    struct sink *sink = (struct sink *)jpeg->dest;
    sink->count = sink->room - sink->manager.free_in_buffer;
}

static bool sink_open(struct sink *sink, size_t room)
{
    *sink = (struct sink){
        .manager = { .init_destination = sink_begin, .empty_output_buffer = sink_grow, .term_destination = sink_end },
        .bytes = malloc(room),
        .room = room
    };
    return sink->bytes != NULL;
}

/* A picture that is cut into stripes, which are compressed in order, each as soon as its rows are there. */
struct job {
    const struct weir_picture *picture;
    struct sink *stripes;
    uint32_t count;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t more;
    uint32_t there, next; /* the first whose rows are missing, and that nobody has begun */
    bool is_over;         /* no more will come: the picture failed */
};

/* Who compresses them: the caller and its threads. */
struct hand {
    struct fault fault;
    struct jpeg_compress_struct jpeg;
    struct job *job;
    pthread_t thread;
    bool is_done; /* without a fault */
};

static uint32_t stripe_rows(const struct job *job, uint32_t number)
{
    const uint32_t left = job->picture->height - number * STRIPE_ROWS;
    return left < STRIPE_ROWS ? left : STRIPE_ROWS;
}

static void set_up(struct jpeg_compress_struct *jpeg, const struct job *job)
{
    jpeg->image_width = job->picture->width;
    jpeg->input_components = 3;
    jpeg->in_color_space = JCS_RGB;
    jpeg_set_defaults(jpeg);
    jpeg_set_quality(jpeg, QUALITY, TRUE);
    jpeg->dct_method = JDCT_ISLOW; /* integers: the same on every processor */
    for (int i = 0; i < jpeg->num_components; i++) {
        jpeg->comp_info[i].h_samp_factor = jpeg->comp_info[i].v_samp_factor = 1;
    }
    jpeg->restart_in_rows = job->count > 1 ? STRIPE_ROWS / DCTSIZE : 0;
}

/* As a picture of its own. The first carries what the file begins with. */
static void compress(struct jpeg_compress_struct *jpeg, const struct job *job, uint32_t number)
{
    const struct weir_picture *picture = job->picture;
    const size_t row_bytes = (size_t)picture->width * 3;
    uint8_t *rgb = picture->rgb + number * STRIPE_ROWS * row_bytes;
    struct sink *sink = &job->stripes[number];
    jpeg->image_height = stripe_rows(job, number);
    if (!sink_open(sink, SINK_BYTES + jpeg->image_height * row_bytes / 4)) ERREXIT1(jpeg, JERR_OUT_OF_MEMORY, 0);
    jpeg->dest = &sink->manager;
    jpeg_start_compress(jpeg, TRUE);
    if (number == 0 && picture->comment) {
        jpeg_write_marker(jpeg, JPEG_COM, (const JOCTET *)picture->comment, (unsigned)strlen(picture->comment));
    }
    while (jpeg->next_scanline < jpeg->image_height) {
        JSAMPROW row = rgb + jpeg->next_scanline * row_bytes;
        jpeg_write_scanlines(jpeg, &row, 1);
    }
    jpeg_finish_compress(jpeg);
}

/* Waits for one whose rows are there. False: there are none left. */
static bool take(struct job *job, uint32_t *number)
{
    pthread_mutex_lock(&job->lock);
    while (!job->is_over && job->next < job->count && job->next >= job->there) {
        pthread_cond_wait(&job->more, &job->lock);
    }
    const bool goes_on = !job->is_over && job->next < job->count;
    if (goes_on) *number = job->next++;
    pthread_mutex_unlock(&job->lock);
    return goes_on;
}

static void tell(struct job *job, uint32_t there, bool is_over)
{
    pthread_mutex_lock(&job->lock);
    job->there = there;
    job->is_over |= is_over;
    pthread_cond_broadcast(&job->more);
    pthread_mutex_unlock(&job->lock);
}

/* What is changed after setjmp() lies in *hand and *job, where a jump does not lose it. */
static void *work(void *context)
{
    struct hand *hand = context;
    struct job *job = hand->job;
    hand->jpeg.err = fault_begin(&hand->fault);
    if (setjmp(hand->fault.jump) == 0) {
        jpeg_create_compress(&hand->jpeg);
        set_up(&hand->jpeg, job);
        for (uint32_t number; take(job, &number);) compress(&hand->jpeg, job, number);
        hand->is_done = true;
    }
    jpeg_destroy_compress(&hand->jpeg);
    return NULL;
}

/* So many threads as there is work and processors for. One that cannot be started leaves its share to the others. */
static unsigned start_threads(struct hand *hands, struct job *job)
{
    pthread_attr_t attributes;
    cpu_set_t processors;
    unsigned wanted = 1, started = 1;
    if (sched_getaffinity(0, sizeof processors, &processors) == 0) wanted = (unsigned)CPU_COUNT(&processors);
    if (wanted > job->count) wanted = job->count;
    if (wanted > HANDS_MAX) wanted = HANDS_MAX;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES); /* --memory-mib counts them */
    for (; started < wanted; started++) {
        hands[started].job = job;
        if (pthread_create(&hands[started].thread, &attributes, work, &hands[started]) != 0) break;
    }
    pthread_attr_destroy(&attributes);
    return started;
}

static enum weir_status read_stripes(struct job *job, const struct weir_picture_source *source,
                                     struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const size_t row_bytes = (size_t)job->picture->width * 3;
    for (uint32_t i = 0; source && i < job->count; i++) {
        WEIR_TRY(source->read(source->context, job->picture->rgb + i * STRIPE_ROWS * row_bytes,
                              stripe_rows(job, i) * row_bytes, error));
        tell(job, i + 1, false);
    }
    tell(job, job->count, false);
cleanup:
    if (status != WEIR_OK) tell(job, 0, true);
    return status;
}

static enum weir_status compress_all(struct job *job, const struct weir_picture_source *source,
                                     struct weir_error *error)
{
    struct hand hands[HANDS_MAX] = { { .job = job } };
    const unsigned count = start_threads(hands, job);
    const enum weir_status status = read_stripes(job, source, error);
    work(&hands[0]);
    for (unsigned i = 1; i < count; i++) pthread_join(hands[i].thread, NULL);
    for (unsigned i = 0; status == WEIR_OK && i < count; i++) {
        if (!hands[i].is_done) return fault_end(&hands[i].fault, WEIR_INTERNAL, error);
    }
    return status;
}

/* Where a stripe's compressed data begin: behind the segment SOS; *frame: where the segment SOF0 lies. */
static size_t data_of(const struct sink *stripe, size_t *frame)
{
    size_t at = 2; /* SOI */
    for (bool is_scan = false; !is_scan; at += 2 + ((size_t)stripe->bytes[at + 2] << 8 | stripe->bytes[at + 3])) {
        const uint8_t marker = stripe->bytes[at + 1];
        assert(stripe->bytes[at] == 0xff && at + 4 < stripe->count);
        if (marker == SOF0) *frame = at;
        is_scan = marker == SOS;
    }
    return at;
}

/* The first stripe's header with the whole height, and all stripes' data, between which stand restart markers. */
static enum weir_status join(const struct job *job, uint8_t **out, size_t *bytes, struct weir_error *error)
{
    size_t room = 0, frame = 0;
    for (uint32_t i = 0; i < job->count; i++) room += job->stripes[i].count;
    uint8_t *to = *out = malloc(room);
    if (!to) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a JPEG of %zu bytes", room);
    for (uint32_t i = 0; i < job->count; i++) {
        const struct sink *stripe = &job->stripes[i];
        const size_t data = data_of(stripe, &frame), begin = i == 0 ? 0 : data;
        const size_t end = stripe->count - 2; /* EOI */
        memcpy(to, stripe->bytes + begin, end - begin);
        to += end - begin;
        if (i == 0) {
            (*out)[frame + 5] = (uint8_t)(job->picture->height >> 8); /* behind marker, length and precision */
            (*out)[frame + 6] = (uint8_t)job->picture->height;
        }
        *to++ = 0xff;
        *to++ = (uint8_t)(i + 1 < job->count ? JPEG_RST0 + i % 8 : JPEG_EOI);
    }
    *bytes = (size_t)(to - *out);
    return WEIR_OK;
}

static enum weir_status encode_from(const struct weir_picture *picture, const struct weir_picture_source *source,
                                    uint8_t **out, size_t *bytes, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct job job = { .picture = picture, .count = (picture->height + STRIPE_ROWS - 1) / STRIPE_ROWS };
    job.stripes = calloc(job.count, sizeof *job.stripes);
    if (!job.stripes) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a JPEG");
    pthread_mutex_init(&job.lock, NULL);
    pthread_cond_init(&job.more, NULL);
    WEIR_TRY(compress_all(&job, source, error));
    WEIR_TRY(join(&job, out, bytes, error));
cleanup:
    pthread_cond_destroy(&job.more);
    pthread_mutex_destroy(&job.lock);
    for (uint32_t i = 0; i < job.count; i++) free(job.stripes[i].bytes);
    free(job.stripes);
    return status;
}

static enum weir_status encode(const struct weir_picture *picture, uint8_t **out, size_t *bytes,
                               struct weir_error *error)
{
    return encode_from(picture, NULL, out, bytes, error);
}

/* ---- decoding ---- */

struct decoding {
    struct fault fault;
    struct jpeg_decompress_struct jpeg;
    struct weir_picture *out;
    const char *refusal; /* or NULL */
};

/* As this program writes it: anything else may cost far more time than it has bytes. */
static const char *refusal_of(struct jpeg_decompress_struct *jpeg)
{
    if (jpeg->image_width > WEIR_PICTURE_SIDE_MAX || jpeg->image_height > WEIR_PICTURE_SIDE_MAX) {
        return "a JPEG over 8192 pixels wide or high";
    }
    if (jpeg->num_components != 3 || jpeg->data_precision != 8) return "a JPEG that is not of 8-bit colours";
    if (jpeg->progressive_mode || jpeg_has_multiple_scans(jpeg)) return "a JPEG of several scans";
    return NULL;
}

static bool decode_guarded(struct decoding *d, const uint8_t *bytes, size_t count, bool with_pixels)
{
    struct jpeg_decompress_struct *jpeg = &d->jpeg;
    if (setjmp(d->fault.jump)) return false;
    jpeg_create_decompress(jpeg);
    jpeg_mem_src(jpeg, bytes, count);
    jpeg_save_markers(jpeg, JPEG_COM, COMMENT_BYTES_MAX);
    jpeg_read_header(jpeg, TRUE);
    d->refusal = refusal_of(jpeg);
    if (d->refusal) return true;
    d->out->width = jpeg->image_width;
    d->out->height = jpeg->image_height;
    for (jpeg_saved_marker_ptr marker = jpeg->marker_list; marker && !d->out->comment; marker = marker->next) {
        d->out->comment = strndup((const char *)marker->data, marker->data_length);
        if (!d->out->comment) ERREXIT1(jpeg, JERR_OUT_OF_MEMORY, 0);
    }
    if (!with_pixels) return true;
    jpeg->out_color_space = JCS_RGB;
    jpeg->dct_method = JDCT_ISLOW;
    const size_t row_bytes = (size_t)jpeg->image_width * 3;
    d->out->rgb = malloc(row_bytes * jpeg->image_height);
    if (!d->out->rgb) ERREXIT1(jpeg, JERR_OUT_OF_MEMORY, 0);
    jpeg_start_decompress(jpeg);
    while (jpeg->output_scanline < jpeg->output_height) {
        JSAMPROW row = d->out->rgb + jpeg->output_scanline * row_bytes;
        jpeg_read_scanlines(jpeg, &row, 1);
    }
    jpeg_finish_decompress(jpeg);
    return true;
}

static enum weir_status decode(const uint8_t *bytes, size_t count, bool with_pixels, struct weir_picture *out,
                               struct weir_error *error)
{
    struct decoding d = { .out = out };
    d.jpeg.err = fault_begin(&d.fault);
    const bool done = decode_guarded(&d, bytes, count, with_pixels);
    jpeg_destroy_decompress(&d.jpeg);
    if (!done) return fault_end(&d.fault, WEIR_BAD_FILE, error);
    return d.refusal ? weir_fail(error, WEIR_BAD_FILE, "%s", d.refusal) : WEIR_OK;
}

const struct weir_picture_kind weir_picture_jpeg = {
    .name = "jpeg",
    .pixels = "yuvj444p",
    .matrix = "bt470bg",
    .magic = "\xff\xd8\xff",
    .magic_bytes = 3,
    .comment_bytes_max = COMMENT_BYTES_MAX,
    .library = library,
    .encode = encode,
    .encode_from = encode_from,
    .decode = decode,
};
