/* Sizes of the Sana family against diffusers', and resizing against torch's, from tests/golden/sana_bins.json. */
#include "worker/pipelines/sana_bins.h"
#include "worker/samplers/noise.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NUMBERS_MAX 4096

static json_t *root;

static uint32_t number(const json_t *list, size_t index)
{
    return (uint32_t)json_integer_value(json_array_get(list, index));
}

static void every_size_gets_the_bin_of_diffusers(void **state)
{
    (void)state;
    const json_t *tables = json_object_get(root, "bins");
    assert_int_equal(json_array_size(tables), 4);
    for (size_t t = 0; t < json_array_size(tables); t++) {
        const json_t *table = json_array_get(tables, t), *rows = json_object_get(table, "rows");
        const uint32_t sample_size = (uint32_t)json_integer_value(json_object_get(table, "sample_size"));
        assert_true(json_array_size(rows) > 100);
        for (size_t i = 0; i < json_array_size(rows); i++) {
            const json_t *row = json_array_get(rows, i);
            struct weir_sana_size bin = { 0 };
            assert_int_equal(weir_sana_bin(sample_size, number(row, 1), number(row, 0), &bin, NULL), WEIR_OK);
            if (bin.height != number(row, 2) || bin.width != number(row, 3))
                fail_msg("sample_size %u, %ux%u: bin %ux%u", sample_size, number(row, 1), number(row, 0), bin.width,
                         bin.height);
        }
    }
}

static void a_sample_size_without_bins_is_named(void **state)
{
    (void)state;
    const uint32_t bad[] = { 0, 15, 22, 30, 256 };
    for (size_t i = 0; i < WEIR_COUNT(bad); i++) {
        struct weir_sana_size bin;
        struct weir_error error = { 0 };
        char value[16];
        snprintf(value, sizeof value, "%u", bad[i]);
        assert_int_equal(weir_sana_bin(bad[i], 512, 512, &bin, &error), WEIR_UNSUPPORTED);
        assert_non_null(strstr(error.words, "sample_size"));
        assert_non_null(strstr(error.words, value));
    }
}

/* [C, H, W] of torch as [H, W, C]. */
static void to_channels_last(const float *in, uint32_t channels, size_t pixels, float *out)
{
    for (size_t p = 0; p < pixels; p++) {
        for (uint32_t c = 0; c < channels; c++) *out++ = in[c * pixels + p];
    }
}

static void see_picture(const json_t *golden)
{
    static float drawn[NUMBERS_MAX], picture[NUMBERS_MAX], out[NUMBERS_MAX];
    const json_t *shape = json_object_get(golden, "from"), *wish = json_object_get(golden, "to");
    const uint32_t channels = number(shape, 0);
    const struct weir_sana_size from = { number(shape, 2), number(shape, 1) },
                                to = { number(wish, 1), number(wish, 0) };
    const char *bits = json_string_value(json_object_get(golden, "bits"));
    const size_t pixels = (size_t)to.width * to.height, count = (size_t)channels * from.width * from.height;
    assert_true(count <= NUMBERS_MAX && pixels * channels <= NUMBERS_MAX);
    assert_int_equal(strlen(bits), 8 * pixels * channels);
    weir_noise_draw((uint64_t)json_integer_value(json_object_get(golden, "seed")), false, 0, drawn, count);
    to_channels_last(drawn, channels, (size_t)from.width * from.height, picture);
    out[pixels * channels] = 77;
    weir_resize_and_crop(picture, from, channels, to, out);
    assert_true(out[pixels * channels] == 77);
    for (size_t i = 0; i < pixels * channels; i++) {
        char word[9] = "";
        memcpy(word, bits + 8 * ((i % channels) * pixels + i / channels), 8);
        const uint32_t value = (uint32_t)strtoul(word, NULL, 16);
        float want;
        memcpy(&want, &value, sizeof want);
        if (!(fabsf(out[i] - want) <= 5e-7f)) /* values of about 1 to 4: two units in the last place */
            fail_msg("%ux%u to %ux%u, number %zu: %.9g instead of %.9g", from.width, from.height, to.width, to.height,
                     i, (double)out[i], (double)want);
    }
}

static void pictures_are_resized_and_cropped_as_torch_does(void **state)
{
    (void)state;
    const json_t *pictures = json_object_get(root, "pictures");
    assert_true(json_array_size(pictures) > 8);
    for (size_t i = 0; i < json_array_size(pictures); i++) see_picture(json_array_get(pictures, i));
}

static void a_crop_covers_the_wish_and_lies_in_the_middle(void **state)
{
    (void)state;
    for (uint32_t w = 1; w < 60; w++) {
        for (uint32_t h = 1; h < 60; h++) {
            for (uint32_t wish = 1; wish < 60; wish++) {
                const struct weir_sana_size from = { w, h }, to = { wish, 29 };
                const struct weir_crop crop = weir_crop_of(from, to);
                assert_true(crop.width >= to.width && crop.height >= to.height);
                assert_true(crop.width == to.width || crop.height == to.height);
                assert_int_equal(crop.left, (crop.width - to.width) / 2);
                assert_int_equal(crop.top, (crop.height - to.height) / 2);
            }
        }
    }
    /* a side that comes out one short in diffusers: 49 * (1.0 / 49) is below 1 */
    const struct weir_crop one = weir_crop_of((struct weir_sana_size){ 49, 49 }, (struct weir_sana_size){ 1, 1 });
    assert_true(one.width == 1 && one.height == 1 && one.left == 0 && one.top == 0);
    const struct weir_crop known =
        weir_crop_of((struct weir_sana_size){ 1344, 768 }, (struct weir_sana_size){ 1280, 720 });
    assert_true(known.width == 1280 && known.height == 731 && known.left == 0 && known.top == 5);
}

static int open_golden(void **state)
{
    (void)state;
    root = json_load_file(WEIR_SOURCE_DIR "/tests/golden/sana_bins.json", 0, NULL);
    return root ? 0 : 1;
}

static int close_golden(void **state)
{
    (void)state;
    json_decref(root);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_size_gets_the_bin_of_diffusers),
        cmocka_unit_test(a_sample_size_without_bins_is_named),
        cmocka_unit_test(pictures_are_resized_and_cropped_as_torch_does),
        cmocka_unit_test(a_crop_covers_the_wish_and_lies_in_the_middle),
    };
    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
