/* JPEG in stripes: the bytes that libjpeg writes in one piece with restart markers, the pixels that it writes without;
 * on one processor as on many, and without the memory for all. */
#include "worker/video_encoder/picture.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <jpeglib.h>

enum { STRIPE_ROWS = 32, QUALITY = 95 };

static const uint32_t sizes[][2] = { { 1, 1 },   { 7, 31 },  { 64, 32 },    { 1, 33 },   { 64, 33 },
                                     { 40, 64 }, { 65, 65 }, { 100, 1000 }, { 3, 8192 }, { 8192, 40 } };

/* A slope with noise on it. */
static struct weir_picture picture_of(uint32_t width, uint32_t height)
{
    struct weir_picture picture = { width, height, malloc((size_t)width * height * 3), NULL };
    uint32_t noise = width;
    assert_non_null(picture.rgb);
    for (size_t i = 0; i < (size_t)width * height * 3; i++) {
        noise = noise * 1664525 + 1013904223;
        picture.rgb[i] = (uint8_t)(i / 3 % width + i % 3 * 40 + (noise >> 26));
    }
    return picture;
}

static uint8_t *encoded(const struct weir_picture *picture, size_t *bytes)
{
    struct weir_error error = { .words = "" };
    uint8_t *out;
    const enum weir_status status = weir_picture_encode(&weir_picture_jpeg, picture, &out, bytes, &error);
    if (status != WEIR_OK) fail_msg("%ux%u: %s", picture->width, picture->height, error.words);
    return out;
}

/* By libjpeg in one piece. */
static uint8_t *in_one_piece(const struct weir_picture *picture, int restart_in_rows, size_t *bytes)
{
    struct jpeg_error_mgr errors;
    struct jpeg_compress_struct jpeg = { .err = jpeg_std_error(&errors) };
    unsigned char *out = NULL;
    unsigned long count = 0;
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &out, &count);
    jpeg.image_width = picture->width;
    jpeg.image_height = picture->height;
    jpeg.input_components = 3;
    jpeg.in_color_space = JCS_RGB;
    jpeg_set_defaults(&jpeg);
    jpeg_set_quality(&jpeg, QUALITY, TRUE);
    jpeg.dct_method = JDCT_ISLOW;
    jpeg.restart_in_rows = restart_in_rows;
    for (int i = 0; i < 3; i++) jpeg.comp_info[i].h_samp_factor = jpeg.comp_info[i].v_samp_factor = 1;
    jpeg_start_compress(&jpeg, TRUE);
    if (picture->comment)
        jpeg_write_marker(&jpeg, JPEG_COM, (const JOCTET *)picture->comment, (unsigned)strlen(picture->comment));
    while (jpeg.next_scanline < jpeg.image_height) {
        JSAMPROW row = picture->rgb + (size_t)jpeg.next_scanline * picture->width * 3;
        jpeg_write_scanlines(&jpeg, &row, 1);
    }
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    *bytes = count;
    return out;
}

static void the_bytes_are_those_of_one_piece_with_restart_markers(void **state)
{
    (void)state;
    char *receipt = calloc(65534, 1);
    assert_non_null(receipt);
    memset(receipt, 'r', 65533);
    for (size_t i = 0; i < WEIR_COUNT(sizes); i++) {
        struct weir_picture picture = picture_of(sizes[i][0], sizes[i][1]);
        for (int with_receipt = 0; with_receipt < 2; with_receipt++) {
            size_t count, wanted_count;
            picture.comment = with_receipt ? receipt : NULL;
            const int restart_in_rows = picture.height > STRIPE_ROWS ? STRIPE_ROWS / DCTSIZE : 0;
            uint8_t *bytes = encoded(&picture, &count),
                    *wanted = in_one_piece(&picture, restart_in_rows, &wanted_count);
            assert_int_equal(count, wanted_count);
            assert_memory_equal(bytes, wanted, count);
            free(bytes);
            free(wanted);
        }
        picture.comment = NULL;
        weir_picture_deinit(&picture);
    }
    free(receipt);
}

static void the_pixels_are_those_of_a_picture_without_stripes(void **state)
{
    (void)state;
    for (size_t i = 0; i < WEIR_COUNT(sizes); i++) {
        struct weir_picture picture = picture_of(sizes[i][0], sizes[i][1]), found[2];
        const struct weir_picture_kind *kind;
        struct weir_error error;
        size_t counts[2];
        uint8_t *files[2] = { encoded(&picture, &counts[0]), in_one_piece(&picture, 0, &counts[1]) };
        for (int k = 0; k < 2; k++) {
            assert_int_equal(weir_picture_decode(files[k], counts[k], true, &kind, &found[k], &error), WEIR_OK);
            assert_int_equal(found[k].width, picture.width);
            assert_int_equal(found[k].height, picture.height);
            free(files[k]);
        }
        assert_memory_equal(found[0].rgb, found[1].rgb, (size_t)picture.width * picture.height * 3);
        for (int k = 0; k < 2; k++) weir_picture_deinit(&found[k]);
        weir_picture_deinit(&picture);
    }
}

static void one_processor_writes_what_many_write(void **state)
{
    (void)state;
    struct weir_picture picture = picture_of(320, 500);
    cpu_set_t all, one;
    size_t count, alone_count;
    uint8_t *bytes = encoded(&picture, &count);
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    CPU_ZERO(&one);
    for (size_t i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++) {
        if (CPU_ISSET(i, &all)) CPU_SET(i, &one);
    }
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    uint8_t *alone = encoded(&picture, &alone_count);
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
    assert_int_equal(count, alone_count);
    assert_memory_equal(bytes, alone, count);
    free(bytes);
    free(alone);
    weir_picture_deinit(&picture);
}

/* Rows that come from a whole picture, as long as they may. */
struct rows {
    const uint8_t *rgb;
    size_t at, end;
};

static enum weir_status next_rows(void *context, uint8_t *rgb, size_t count, struct weir_error *error)
{
    struct rows *rows = context;
    if (rows->at + count > rows->end) return weir_fail(error, WEIR_INTERRUPTED, "after %zu bytes", rows->at);
    memcpy(rgb, rows->rgb + rows->at, count);
    rows->at += count;
    if (rows->at % 3 == 0) sched_yield(); /* so that others begin */
    return WEIR_OK;
}

static enum weir_status encode_rows(const struct weir_picture *picture, size_t end, uint8_t **out, size_t *count,
                                    struct weir_error *error)
{
    struct rows rows = { picture->rgb, 0, end };
    const struct weir_picture_source source = { next_rows, &rows };
    struct weir_picture room = { picture->width, picture->height, malloc((size_t)picture->width * picture->height * 3),
                                 NULL };
    assert_non_null(room.rgb);
    const enum weir_status status = weir_picture_encode_from(&weir_picture_jpeg, &room, &source, out, count, error);
    if (status == WEIR_OK) assert_int_equal(rows.at, (size_t)picture->width * picture->height * 3);
    free(room.rgb);
    return status;
}

static void rows_that_come_later_give_the_same_bytes(void **state)
{
    (void)state;
    for (size_t i = 0; i < WEIR_COUNT(sizes); i++) {
        struct weir_picture picture = picture_of(sizes[i][0], sizes[i][1]);
        struct weir_error error;
        size_t count, wanted_count;
        uint8_t *bytes, *wanted = encoded(&picture, &wanted_count);
        assert_int_equal(encode_rows(&picture, SIZE_MAX, &bytes, &count, &error), WEIR_OK);
        assert_int_equal(count, wanted_count);
        assert_memory_equal(bytes, wanted, count);
        free(bytes);
        free(wanted);
        weir_picture_deinit(&picture);
    }
}

static void rows_that_do_not_come_end_it_with_the_source_s_words(void **state)
{
    (void)state;
    struct weir_picture picture = picture_of(320, 500);
    const size_t stripe_bytes = (size_t)320 * 3 * STRIPE_ROWS;
    for (size_t stripes = 0; stripes < 16; stripes++) {
        struct weir_error error = { .words = "" };
        char words[64];
        uint8_t *bytes;
        size_t count;
        assert_int_equal(encode_rows(&picture, stripes * stripe_bytes + 1, &bytes, &count, &error), WEIR_INTERRUPTED);
        snprintf(words, sizeof words, "after %zu bytes", stripes * stripe_bytes);
        assert_string_equal(error.words, words);
        assert_null(bytes);
    }
    weir_picture_deinit(&picture);
}

/* In a process that may have so much more address space: 0 the right bytes, 1 words about memory, 2 something else. */
static int with_memory(const struct weir_picture *picture, const uint8_t *wanted, size_t wanted_count, size_t more)
{
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        unsigned long pages = 0;
        struct weir_error error;
        size_t count;
        uint8_t *bytes;
        FILE *facts = fopen("/proc/self/statm", "r");
        if (!facts || fscanf(facts, "%lu", &pages) != 1) _exit(3);
        fclose(facts);
        const rlim_t limit = pages * (rlim_t)sysconf(_SC_PAGESIZE) + more;
        if (setrlimit(RLIMIT_AS, &(struct rlimit){ limit, limit }) != 0) _exit(3);
        const enum weir_status status = weir_picture_encode(&weir_picture_jpeg, picture, &bytes, &count, &error);
        if (status == WEIR_OK) _exit(count == wanted_count && memcmp(bytes, wanted, count) == 0 ? 0 : 2);
        _exit(status == WEIR_NO_MEMORY && strlen(error.words) > 0 ? 1 : 2);
    }
    int result;
    assert_int_equal(waitpid(pid, &result, 0), pid);
    assert_true(WIFEXITED(result));
    return WEXITSTATUS(result);
}

/* From none to plenty: either the picture, the same one, or an error in words; at last the picture. */
static void too_little_memory_is_an_error_in_words(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* they reserve terabytes of address space */
#endif
    struct weir_picture picture = picture_of(2048, 1024);
    size_t count;
    uint8_t *bytes = encoded(&picture, &count);
    int refused = 0, last = -1;
    for (size_t more = 0; more <= (size_t)16 << 20; more += 256 << 10) {
        last = with_memory(&picture, bytes, count, more);
        assert_in_range(last, 0, 1);
        refused += last;
    }
    assert_int_equal(last, 0);
    assert_true(refused > 0);
    free(bytes);
    weir_picture_deinit(&picture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_bytes_are_those_of_one_piece_with_restart_markers),
        cmocka_unit_test(the_pixels_are_those_of_a_picture_without_stripes),
        cmocka_unit_test(one_processor_writes_what_many_write),
        cmocka_unit_test(rows_that_come_later_give_the_same_bytes),
        cmocka_unit_test(rows_that_do_not_come_end_it_with_the_source_s_words),
        cmocka_unit_test(too_little_memory_is_an_error_in_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
