/* JPEG through libjpeg-turbo's libjpeg interface. */
#include "worker/rgb/internal.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>
#include <setjmp.h>

enum { SCANS_MAX = 100, EXIF_HEAD_BYTES = 6 };

static const char exif_head[EXIF_HEAD_BYTES] = "Exif\0";

/* libjpeg reports through a jump, and takes a damaged file for a warning: to us that is an error, too. */
struct decoding {
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    struct jpeg_decompress_struct jpeg;
    jmp_buf jump;
    enum weir_status status; /* why it was left */
    struct weir_error *error;
    struct weir_rgb *out;
    uint8_t *inks; /* a row of CMYK; NULL of anything else */
    unsigned orientation;
};

static struct decoding *decoding_of(j_common_ptr jpeg)
{
    return jpeg->client_data;
}

_Noreturn static void leave(struct decoding *d, enum weir_status status)
{
    d->status = status;
    longjmp(d->jump, 1);
}

_Noreturn static void on_error(j_common_ptr jpeg)
{
    struct decoding *d = decoding_of(jpeg);
    char words[JMSG_LENGTH_MAX];
    jpeg->err->format_message(jpeg, words);
    const bool no_memory = jpeg->err->msg_code == JERR_OUT_OF_MEMORY;
    leave(d, weir_fail(d->error, no_memory ? WEIR_NO_MEMORY : WEIR_BAD_ARGUMENT, "JPEG: %s", words));
}

static void on_message(j_common_ptr jpeg, int level)
{
    if (level < 0) on_error(jpeg);
}

/* Each scan of a small file may go over all pixels again. */
static void on_progress(j_common_ptr jpeg)
{
    struct decoding *d = decoding_of(jpeg);
    if (d->jpeg.input_scan_number > SCANS_MAX)
        leave(d, weir_fail(d->error, WEIR_BAD_ARGUMENT, "a JPEG of more than %d scans", SCANS_MAX));
}

static void take_orientation(struct decoding *d)
{
    for (jpeg_saved_marker_ptr marker = d->jpeg.marker_list; marker; marker = marker->next) {
        if (marker->data_length < EXIF_HEAD_BYTES || memcmp(marker->data, exif_head, EXIF_HEAD_BYTES) != 0) continue;
        d->orientation =
            weir_rgb_orientation(marker->data + EXIF_HEAD_BYTES, marker->data_length - (size_t)EXIF_HEAD_BYTES);
        return;
    }
}

/* What is left of white behind four inks; Adobe stores how much white, not how much ink. */
static void row_of_inks(const uint8_t *inks, uint32_t width, uint8_t *rgb)
{
    for (uint32_t x = 0; x < width; x++, inks += 4) {
        const unsigned white = inks[3];
        for (unsigned c = 0; c < 3; c++) {
            const unsigned product = white * (255u - inks[c]) + 128;
            *rgb++ = (uint8_t)(white - ((product >> 8) + product) / 256);
        }
    }
}

/* What is changed after setjmp() lies in *d, where a jump does not lose it. */
static void decode_guarded(struct decoding *d, const uint8_t *bytes, size_t count)
{
    struct jpeg_decompress_struct *jpeg = &d->jpeg;
    if (setjmp(d->jump)) return;
    jpeg_create_decompress(jpeg);
    jpeg->progress = &d->progress;
    jpeg_mem_src(jpeg, bytes, (unsigned long)count);
    jpeg_save_markers(jpeg, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(jpeg, TRUE);
    take_orientation(d);
    const int channels = jpeg->num_components;
    if (jpeg->data_precision != 8 || (channels != 1 && channels != 3 && channels != 4))
        leave(d, weir_fail(d->error, WEIR_BAD_ARGUMENT, "a JPEG of %d channels of %d bits", channels,
                           jpeg->data_precision));
    const enum weir_status status = weir_rgb_alloc(jpeg->image_width, jpeg->image_height, d->out, d->error);
    if (status != WEIR_OK) leave(d, status);
    jpeg->out_color_space = channels == 4 ? JCS_CMYK : JCS_RGB;
    jpeg->dct_method = JDCT_ISLOW; /* integers: the same on every processor */
    if (channels == 4 && !(d->inks = malloc((size_t)jpeg->image_width * 4))) ERREXIT1(jpeg, JERR_OUT_OF_MEMORY, 0);
    jpeg_start_decompress(jpeg);
    while (jpeg->output_scanline < jpeg->output_height) {
        uint8_t *rgb = d->out->pixels + (size_t)jpeg->output_scanline * jpeg->output_width * 3;
        JSAMPROW row = d->inks ? d->inks : rgb;
        jpeg_read_scanlines(jpeg, &row, 1);
        if (d->inks) row_of_inks(d->inks, jpeg->output_width, rgb);
    }
    jpeg_finish_decompress(jpeg);
}

enum weir_status weir_rgb_read_jpeg(const uint8_t *bytes, size_t count, struct weir_rgb *out, unsigned *orientation,
                                    struct weir_error *error)
{
    struct decoding d = { .out = out, .error = error, .orientation = 1 };
    d.jpeg.err = jpeg_std_error(&d.errors);
    d.jpeg.client_data = &d;
    d.errors.error_exit = on_error;
    d.errors.emit_message = on_message;
    d.progress.progress_monitor = on_progress;
    decode_guarded(&d, bytes, count);
    jpeg_destroy_decompress(&d.jpeg);
    free(d.inks);
    *orientation = d.orientation;
    return d.status;
}
