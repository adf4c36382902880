// SPDX-License-Identifier: GPL-3.0-or-later
/* JPEG through libjpeg-turbo's libjpeg interface: its TurboJPEG one cannot write or read a COM segment. */
#include "worker/video_encoder/picture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>
#include <setjmp.h>

enum { QUALITY = 95, COMMENT_BYTES_MAX = 65533 };

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

struct encoding {
    struct fault fault;
    struct jpeg_compress_struct jpeg;
    unsigned char *bytes;
    unsigned long count;
};

/* What is changed after setjmp() lies in *e, where a jump does not lose it. */
static bool encode_guarded(struct encoding *e, const struct weir_picture *picture)
{
    struct jpeg_compress_struct *jpeg = &e->jpeg;
    if (setjmp(e->fault.jump)) return false;
    jpeg_create_compress(jpeg);
    jpeg_mem_dest(jpeg, &e->bytes, &e->count);
    jpeg->image_width = picture->width;
    jpeg->image_height = picture->height;
    jpeg->input_components = 3;
    jpeg->in_color_space = JCS_RGB;
    jpeg_set_defaults(jpeg);
    jpeg_set_quality(jpeg, QUALITY, TRUE);
    jpeg->dct_method = JDCT_ISLOW; /* integers: the same on every processor */
    for (int i = 0; i < jpeg->num_components; i++) {
        jpeg->comp_info[i].h_samp_factor = jpeg->comp_info[i].v_samp_factor = 1;
    }
    jpeg_start_compress(jpeg, TRUE);
    if (picture->comment) {
        jpeg_write_marker(jpeg, JPEG_COM, (const JOCTET *)picture->comment, (unsigned)strlen(picture->comment));
    }
    while (jpeg->next_scanline < jpeg->image_height) {
        JSAMPROW row = picture->rgb + (size_t)jpeg->next_scanline * picture->width * 3;
        jpeg_write_scanlines(jpeg, &row, 1);
    }
    jpeg_finish_compress(jpeg);
    return true;
}

static enum weir_status encode(const struct weir_picture *picture, uint8_t **out, size_t *bytes,
                               struct weir_error *error)
{
    struct encoding e = { .count = 0 };
    e.jpeg.err = fault_begin(&e.fault);
    const bool done = encode_guarded(&e, picture);
    jpeg_destroy_compress(&e.jpeg);
    if (!done) {
        free(e.bytes);
        return fault_end(&e.fault, WEIR_INTERNAL, error);
    }
    *out = e.bytes;
    *bytes = e.count;
    return WEIR_OK;
}

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
    .decode = decode,
};
