/* Pictures that requests bring: read as diffusers' load_image reads them, resized as Pillow resizes, refused by name.
 * The vectors are made by tests/golden/make_rgb.py. */
#include "worker/rgb/rgb.h"
#include "proto/base/bytes.h"
#include "worker/weights.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <stdio.h>

#define RESIZES 8

static char *file_bytes;
static struct weir_weights *vectors;

static int setup(void **state)
{
    struct weir_error error;
    size_t count;
    const char *path = WEIR_SOURCE_DIR "/tests/golden/rgb.safetensors";
    (void)state;
    if (weir_file_read(path, (size_t)1 << 20, &file_bytes, &count, &error) != WEIR_OK ||
        weir_weights_parse(file_bytes, count, path, &vectors, &error) != WEIR_OK) {
        fprintf(stderr, "%s\n", error.words);
        return 1;
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    weir_weights_close(&vectors);
    free(file_bytes);
    return 0;
}

static struct weir_weight find(const char *format, ...) __attribute__((format(printf, 1, 2)));
static struct weir_weight find(const char *format, ...)
{
    char name[64];
    struct weir_weight w = { 0 };
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    if (!weir_weights_find(vectors, name, &w)) fail_msg("no vector %s", name);
    return w;
}

static void see_same(const char *what, const struct weir_rgb *picture, const struct weir_weight *wanted)
{
    assert_int_equal(picture->height, wanted->shape[0]);
    assert_int_equal(picture->width, wanted->shape[1]);
    const uint8_t *bytes = wanted->data;
    for (size_t i = 0; i < wanted->bytes; i++) {
        if (picture->pixels[i] != bytes[i])
            fail_msg("%s: value %zu of %zu is %d, wanted %d", what, i, (size_t)wanted->bytes, picture->pixels[i],
                     bytes[i]);
    }
}

static void a_file_gives_the_pixels_that_pillow_gives(void **state)
{
    (void)state;
    static const char *const names[] = {
        "png_rgb",
        "png_rgba",
        "png_gray",
        "png_gray_alpha",
        "png_palette",
        "png_palette_clear",
        "png_one_bit",
        "png_two_bits",
        "png_four_bits",
        "png_clear_colour",
        "png_rgb_deep",
        "png_rgba_deep",
        "png_gray_alpha_deep",
        "png_gamma",
        "png_interlaced",
        "png_turned",
        "jpeg_rgb",
        "jpeg_full",
        "jpeg_progressive",
        "jpeg_gray",
        "jpeg_cmyk",
        "jpeg_way_1",
        "jpeg_way_2",
        "jpeg_way_3",
        "jpeg_way_4",
        "jpeg_way_5",
        "jpeg_way_6",
        "jpeg_way_7",
        "jpeg_way_8",
        "jpeg_way_9",
        "webp_lossy",
        "webp_lossless",
        "webp_rgba",
        "webp_turned",
    };
    for (size_t i = 0; i < WEIR_COUNT(names); i++) {
        const struct weir_weight file = find("%s.file", names[i]), wanted = find("%s.rgb", names[i]);
        struct weir_rgb picture;
        struct weir_error error = { 0 };
        if (weir_rgb_read(file.data, file.bytes, names[i], &picture, &error) != WEIR_OK) fail_msg("%s", error.words);
        see_same(names[i], &picture, &wanted);
        weir_rgb_deinit(&picture);
    }
}

static void a_picture_is_resized_to_the_bytes_of_pillow(void **state)
{
    (void)state;
    for (int i = 0; i < RESIZES; i++) {
        const struct weir_weight from = find("resize.%d.from", i), to = find("resize.%d.to", i);
        char what[32];
        uint8_t *pixels = malloc(from.bytes);
        memcpy(pixels, from.data, from.bytes);
        struct weir_rgb picture = { (uint32_t)from.shape[1], (uint32_t)from.shape[0], pixels }, resized;
        struct weir_error error = { 0 };
        assert_int_equal(weir_rgb_resize(&picture, (uint32_t)to.shape[1], (uint32_t)to.shape[0], &resized, &error),
                         WEIR_OK);
        snprintf(what, sizeof what, "resize %d", i);
        see_same(what, &resized, &to);
        weir_rgb_deinit(&resized);
        weir_rgb_deinit(&picture);
    }
}

static void see_refused(const void *bytes, size_t count, enum weir_status wanted, const char *word)
{
    struct weir_rgb picture = { 1, 1, NULL };
    struct weir_error error = { 0 };
    const enum weir_status status = weir_rgb_read(bytes, count, "a.png", &picture, &error);
    if (status != wanted || strncmp(error.words, "a.png: ", 7) != 0 || !strstr(error.words, word))
        fail_msg("%s \"%s\", wanted %s with \"%s\"", weir_status_name(status), error.words, weir_status_name(wanted),
                 word);
    assert_null(picture.pixels);
}

static void what_is_no_whole_picture_is_refused(void **state)
{
    (void)state;
    static const char *const names[] = { "png_rgb", "png_interlaced", "jpeg_rgb", "jpeg_progressive", "webp_lossy" };
    see_refused("", 0, WEIR_BAD_ARGUMENT, "not a PNG, JPEG or WebP picture");
    see_refused("hello, world", 12, WEIR_BAD_ARGUMENT, "not a PNG, JPEG or WebP picture");
    for (size_t i = 0; i < WEIR_COUNT(names); i++) {
        const struct weir_weight file = find("%s.file", names[i]);
        for (size_t count = 12; count < file.bytes - 12; count += 7) { /* but for an end that lacks its checksum */
            uint8_t *part = malloc(count);
            memcpy(part, file.data, count);
            see_refused(part, count, WEIR_BAD_ARGUMENT,
                        names[i][0] == 'w'   ? "WebP"
                        : names[i][0] == 'p' ? "PNG"
                                             : "JPEG");
            free(part);
        }
    }
}

/* Files of more bytes, more pixels or more bits than are read. */
static void what_is_too_large_or_of_another_kind_is_refused_by_name(void **state)
{
    (void)state;
    const struct weir_weight file = find("png_one_bit.file");
    uint8_t *bytes = malloc(file.bytes);
    memcpy(bytes, file.data, file.bytes);
    see_refused(bytes, WEIR_RGB_FILE_BYTES_MAX + 1, WEIR_TOO_LARGE, "at most 67108864 are read");
    free(bytes);
    /* 16,384 x 16,384 in gray of 8 bits, and 1 x 1 of 16, each with the checksum that is due */
    static const uint8_t wide[] = "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x40\0\0\0\x40\0\x08\0\0\0\0\x8c\xa3\x4f\x58";
    static const uint8_t deep[] = "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x10\0\0\0\0\x6a\xee\x47\x16";
    see_refused(wide, sizeof wide - 1, WEIR_TOO_LARGE, "100 million");
    see_refused(deep, sizeof deep - 1, WEIR_BAD_ARGUMENT, "16 bits");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_gives_the_pixels_that_pillow_gives),
        cmocka_unit_test(a_picture_is_resized_to_the_bytes_of_pillow),
        cmocka_unit_test(what_is_no_whole_picture_is_refused),
        cmocka_unit_test(what_is_too_large_or_of_another_kind_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
