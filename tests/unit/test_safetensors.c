#include "proto/base/half.h"
#include "worker/safetensors.h"
#include "proto/base/bytes.h"
#include "scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define A(dtype, shape, begin, end)                                                                                    \
    "\"a\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"
#define B(dtype, shape, begin, end)                                                                                    \
    "\"b\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"
#define REST "\"data_offsets\":[0,4]}}"

static enum weir_status parse(const uint8_t *bytes, size_t count, struct weir_safetensors *table,
                              struct weir_error *error)
{
    return weir_safetensors_init(table, bytes, count, "m.safetensors", error);
}

static void see_words(const struct weir_error *error, const char *part)
{
    if (!strstr(error->words, part)) fail_msg("\"%s\" does not say \"%s\"", error->words, part);
}

static void a_good_file_gives_its_tensors_in_the_order_of_their_data(void **state)
{
    (void)state;
    size_t count;
    uint8_t *bytes = safetensors_make(
        "{\"__metadata__\":{\"format\":\"pt\"}," B("F16", "[3]", 16, 22) "," A(
            "F32", "[2,2]", 0, 16) ",\"empty\":{\"dtype\":\"I64\",\"shape\":[0,7],"
                                   "\"data_offsets\":[16,16]},\"scalar\":{\"dtype\":\"BF16\",\"shape\":[],"
                                   "\"data_offsets\":[22,24]}}   ",
        24, &count);
    struct weir_safetensors table;
    struct weir_error error = { 0 };
    assert_int_equal(parse(bytes, count, &table, &error), WEIR_OK);
    assert_int_equal(table.count, 4);
    const struct weir_weight *t = table.tensors;
    assert_string_equal(t[0].name, "a");
    assert_string_equal(t[1].name, "empty");
    assert_string_equal(t[2].name, "b");
    assert_string_equal(t[3].name, "scalar");
    assert_int_equal(t[0].rank, 2);
    assert_int_equal(t[0].shape[1], 2);
    assert_int_equal(t[0].bytes, 16);
    assert_string_equal(t[0].file, "m.safetensors");
    assert_ptr_equal(t[2].data, bytes + 8 + table.header_bytes + 16);
    assert_int_equal(t[1].elements, 0);
    assert_int_equal(t[3].rank, 0);
    assert_int_equal(t[3].elements, 1);
    assert_string_equal(weir_weight_dtype_name(t[3].dtype), "BF16");
    assert_int_equal(weir_weight_dtype_bytes(t[3].dtype), 2);
    weir_safetensors_deinit(&table);
    free(bytes);
}

static const struct {
    const char *header;
    size_t data_bytes;
    enum weir_status status;
    const char *words;
} malformed[] = {
    /* not a header */
    { " {}", 0, WEIR_BAD_MODEL, "does not start with {" },
    { "[]", 0, WEIR_BAD_MODEL, "does not start with {" },
    { "x}", 0, WEIR_BAD_MODEL, "does not start with {" },
    { "{}\n", 0, WEIR_BAD_MODEL, "does not end with } and spaces" },
    { "{}\t ", 0, WEIR_BAD_MODEL, "does not end with } and spaces" },
    { "{} x", 0, WEIR_BAD_MODEL, "does not end with } and spaces" },
    { "{}{}", 0, WEIR_BAD_MODEL, "line 1" },
    { "{\"a\":}", 0, WEIR_BAD_MODEL, "line 1, in a" },
    { "{\"a\xff\":1}", 0, WEIR_BAD_MODEL, "line 1" },
    { "{\"a\":{\"dtype\":[[[[1]]]]}}", 0, WEIR_TOO_LARGE, "nested deeper than 4 levels" },
    /* names */
    { "{" A("F32", "[1]", 0, 4) "," A("F32", "[1]", 4, 8) "}", 8, WEIR_BAD_MODEL, "duplicate object key near '\"a\"'" },
    { "{" A("F32", "[1]", 0, 4) ",\"\\u0061\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8,
      WEIR_BAD_MODEL, "duplicate object key" },
    { "{\"\":{\"dtype\":\"F32\",\"shape\":[1]," REST, 4, WEIR_BAD_MODEL, "tensor name \"\" of 0 bytes" },
    { "{\"a\\nb\":{\"dtype\":\"F32\",\"shape\":[1]," REST, 4, WEIR_BAD_MODEL, "tensor name \"a?b\"" },
    { "{\"a\x7f\":{\"dtype\":\"F32\",\"shape\":[1]," REST, 4, WEIR_BAD_MODEL, "without control characters" },
    { "{\"a\\u009b\":{\"dtype\":\"F32\",\"shape\":[1]," REST, 4, WEIR_BAD_MODEL, "without control characters" },
    { "{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[1]," REST, 4, WEIR_BAD_MODEL, "line 1" },
    /* what a tensor is */
    { "{\"a\":3}", 0, WEIR_BAD_MODEL, "tensor a: not an object" },
    { "{\"a\":{}}", 0, WEIR_BAD_MODEL, "tensor a: dtype is missing" },
    { "{\"a\":{\"dtype\":\"F32\"}}", 0, WEIR_BAD_MODEL, "tensor a: shape is missing" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, WEIR_BAD_MODEL, "tensor a: data_offsets is missing" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"more\":1," REST, 4, WEIR_BAD_MODEL, "tensor a: more than dtype" },
    { "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F16\",\"shape\":[1]," REST, 4, WEIR_BAD_MODEL, "in a: duplicate" },
    { "{" A("F33", "[1]", 0, 4) "}", 4, WEIR_BAD_MODEL, "tensor a: dtype is \"F33\", wanted F32" },
    { "{" A("f32", "[1]", 0, 4) "}", 4, WEIR_BAD_MODEL, "tensor a: dtype is \"f32\"" },
    { "{\"a\":{\"dtype\":32,\"shape\":[1]," REST, 4, WEIR_BAD_MODEL, "tensor a: dtype is 32" },
    /* shapes */
    { "{" A("F32", "1", 0, 4) "}", 4, WEIR_BAD_MODEL, "tensor a: shape is 1, wanted a list of at most 8" },
    { "{" A("F32", "[1,1,1,1,1,1,1,1,1]", 0, 4) "}", 4, WEIR_BAD_MODEL, "wanted a list of at most 8 integers" },
    { "{" A("F32", "[-1]", 0, 4) "}", 4, WEIR_BAD_MODEL, "tensor a: a number with a sign" },
    { "{" A("F32", "[-0]", 0, 0) "}", 0, WEIR_BAD_MODEL, "tensor a: a number with a sign" },
    { "{" A("F32", "[1.0]", 0, 4) "}", 4, WEIR_BAD_MODEL, "tensor a: shape is [1.0], wanted plain integers" },
    { "{" A("F32", "[1e0]", 0, 4) "}", 4, WEIR_BAD_MODEL, "tensor a: shape is [1.0], wanted plain integers" },
    { "{" A("F32", "[\"1\"]", 0, 4) "}", 4, WEIR_BAD_MODEL, "tensor a: shape is [\"1\"]" },
    { "{" A("F32", "[null]", 0, 4) "}", 4, WEIR_BAD_MODEL, "tensor a: shape is [null]" },
    { "{" A("F32", "[true]", 0, 4) "}", 4, WEIR_BAD_MODEL, "tensor a: shape is [true]" },
    { "{" A("F32", "[01]", 0, 4) "}", 4, WEIR_BAD_MODEL, "line 1, in a" },
    { "{" A("F32", "[9007199254740993]", 0, 4) "}", 4, WEIR_BAD_MODEL, "plain integers up to 2^53" },
    { "{" A("F32", "[99999999999999999999]", 0, 4) "}", 4, WEIR_BAD_MODEL, "in a: too big integer" },
    { "{" A("F32", "[9007199254740992,2048]", 0, 4) "}", 4, WEIR_BAD_MODEL, "a product of 64 bits" },
    { "{" A("F32", "[9007199254740992,2048,0]", 0, 0) "}", 0, WEIR_BAD_MODEL, "a product of 64 bits" },
    { "{" A("F32", "[9007199254740992,512]", 0, 4) "}", 4, WEIR_BAD_MODEL, "a size of 64 bits" },
    { "{" A("F64", "[2305843009213693952]", 0, 4) "}", 4, WEIR_BAD_MODEL, "plain integers up to 2^53" },
    /* offsets */
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":4}}", 4, WEIR_BAD_MODEL,
      "tensor a: data_offsets is 4" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, WEIR_BAD_MODEL, "data_offsets is [0]" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,4]}}", 4, WEIR_BAD_MODEL, "[0, 4, 4]" },
    { "{" A("F32", "[1]", 0, 4.0) "}", 4, WEIR_BAD_MODEL, "tensor a: data_offsets is [0, 4.0], wanted two plain" },
    { "{" A("F32", "[1]", -4, 0) "}", 4, WEIR_BAD_MODEL, "tensor a: a number with a sign" },
    { "{" A("F32", "[1]", 4, 0) "}", 4, WEIR_BAD_MODEL, "wanted two plain integers, begin and end" },
    { "{" A("F32", "[1]", 0, 9007199254740993) "}", 4, WEIR_BAD_MODEL, "wanted two plain integers" },
    { "{" A("F32", "[2]", 0, 4) "}", 4, WEIR_BAD_MODEL, "tensor a: data_offsets hold 4 bytes, its shape needs 8" },
    { "{" A("F16", "[1]", 0, 4) "}", 4, WEIR_BAD_MODEL, "tensor a: data_offsets hold 4 bytes, its shape needs 2" },
    /* how they cover the data */
    { "{" A("F32", "[1]", 0, 4) "}", 3, WEIR_BAD_MODEL, "cut short: tensor a ends at byte 4 of 3 bytes of data" },
    { "{" A("F32", "[1]", 0, 4) "}", 0, WEIR_BAD_MODEL, "cut short: tensor a ends at byte 4 of 0" },
    { "{" A("F32", "[1]", 0, 4) "}", 5, WEIR_BAD_MODEL, "1 bytes at the end belong to no tensor" },
    { "{}", 1, WEIR_BAD_MODEL, "1 bytes at the end belong to no tensor" },
    { "{" A("F32", "[1]", 4, 8) "}", 8, WEIR_BAD_MODEL, "tensor a: its data begins at byte 4, not where" },
    { "{" A("F32", "[1]", 0, 4) "," B("F32", "[1]", 8, 12) "}", 12, WEIR_BAD_MODEL,
      "tensor b: its data begins at byte 8, not" },
    { "{" A("F32", "[2]", 0, 8) "," B("F32", "[1]", 4, 8) "}", 8, WEIR_BAD_MODEL,
      "tensor b: its data begins at byte 4, inside" },
    { "{" A("F32", "[1]", 0, 4) "," B("F32", "[1]", 0, 4) "}", 4, WEIR_BAD_MODEL,
      "tensor b: its data begins at byte 0, inside" },
    { "{" A("F32", "[1]", 0, 4) "," B("F32", "[0]", 2, 2) "}", 4, WEIR_BAD_MODEL,
      "tensor b: its data begins at byte 2, inside" },
    /* metadata */
    { "{\"__metadata__\":3}", 0, WEIR_BAD_MODEL, "__metadata__ is not an object" },
    { "{\"__metadata__\":{\"format\":1}}", 0, WEIR_BAD_MODEL, "__metadata__ format is not a text" },
};

static void each_malformed_header_gives_one_line_that_names_the_file_and_the_tensor(void **state)
{
    (void)state;
    for (size_t i = 0; i < WEIR_COUNT(malformed); i++) {
        size_t count;
        uint8_t *bytes = safetensors_make(malformed[i].header, malformed[i].data_bytes, &count);
        struct weir_safetensors table;
        struct weir_error error = { 0 };
        const enum weir_status status = parse(bytes, count, &table, &error);
        if (status != malformed[i].status) {
            fail_msg("%s: %s \"%s\"", malformed[i].header, weir_status_name(status), error.words);
        }
        see_words(&error, malformed[i].words);
        see_words(&error, "m.safetensors: ");
        assert_null(strchr(error.words, '\n'));
        assert_null(table.tensors);
        free(bytes);
    }
}

static void a_file_cut_at_any_byte_is_refused(void **state)
{
    (void)state;
    size_t count;
    uint8_t *bytes = safetensors_make("{" A("F32", "[2,2]", 0, 16) "," B("F16", "[3]", 16, 22) "}  ", 22, &count);
    struct weir_safetensors table;
    struct weir_error error = { 0 };
    for (size_t cut = 0; cut < count; cut++) {
        uint8_t *part = malloc(cut + !cut); /* exactly the bytes, so that a read past them is seen */
        assert_non_null(part);
        memcpy(part, bytes, cut);
        assert_int_equal(parse(part, cut, &table, &error), WEIR_BAD_MODEL);
        see_words(&error, cut < 10 ? "too short" : "cut short");
        free(part);
    }
    assert_int_equal(parse(bytes, count, &table, &error), WEIR_OK);
    weir_safetensors_deinit(&table);
    free(bytes);
}

static void the_length_of_the_header_is_bounded_before_it_is_used(void **state)
{
    (void)state;
    size_t count;
    uint8_t *bytes = safetensors_make("{}", 0, &count);
    struct weir_safetensors table;
    struct weir_error error = { 0 };
    assert_int_equal(count, 10);
    assert_int_equal(parse(bytes, count, &table, &error), WEIR_OK); /* the smallest file: no tensors */
    assert_int_equal(table.count, 0);
    weir_safetensors_deinit(&table);
    static const struct {
        uint64_t said;
        enum weir_status status;
        const char *words;
    } lengths[] = {
        { 0, WEIR_BAD_MODEL, "does not start with {" },
        { 1, WEIR_BAD_MODEL, "does not start with {" },
        { 3, WEIR_BAD_MODEL, "a header of 3 bytes, but only 2 follow" },
        { 16 << 20, WEIR_BAD_MODEL, "but only 2 follow" },
        { (16 << 20) + 1, WEIR_TOO_LARGE, "16777217 bytes, at most 16777216 are read" },
        { UINT64_MAX - 7, WEIR_TOO_LARGE, "at most 16777216" }, /* 8 + N would be 0 */
        { UINT64_MAX, WEIR_TOO_LARGE, "at most 16777216" },
    };
    for (size_t i = 0; i < WEIR_COUNT(lengths); i++) {
        weir_store_u64(bytes, lengths[i].said);
        assert_int_equal(parse(bytes, count, &table, &error), lengths[i].status);
        see_words(&error, lengths[i].words);
    }
    free(bytes);
}

static void names_have_up_to_512_bytes(void **state)
{
    (void)state;
    for (size_t length = 512; length <= 513; length++) {
        char name[514], header[700];
        memset(name, 'n', length);
        name[length] = '\0';
        snprintf(header, sizeof header, "{\"%s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", name);
        size_t count;
        uint8_t *bytes = safetensors_make(header, 1, &count);
        struct weir_safetensors table;
        struct weir_error error = { 0 };
        assert_int_equal(parse(bytes, count, &table, &error), length == 512 ? WEIR_OK : WEIR_BAD_MODEL);
        if (length == 513) see_words(&error, "of 513 bytes, wanted 1 to 512");
        weir_safetensors_deinit(&table);
        free(bytes);
    }
}

static void a_file_has_up_to_65536_tensors(void **state)
{
    (void)state;
    for (size_t tensors = 65536; tensors <= 65537; tensors++) {
        char *header = malloc(tensors * 64 + 8);
        assert_non_null(header);
        size_t used = 0;
        for (size_t i = 0; i < tensors; i++) {
            used += (size_t)sprintf(header + used, "%s\"%zx\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}",
                                    i ? "," : "{", i);
        }
        strcpy(header + used, "}");
        size_t count;
        uint8_t *bytes = safetensors_make(header, 0, &count);
        struct weir_safetensors table;
        struct weir_error error = { 0 };
        assert_int_equal(parse(bytes, count, &table, &error), tensors == 65536 ? WEIR_OK : WEIR_TOO_LARGE);
        if (tensors == 65537) see_words(&error, "65537 tensors, at most 65536");
        weir_safetensors_deinit(&table);
        free(bytes);
        free(header);
    }
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Every f16 there is, against its value worked out in double; in one long run, and each alone (the long run takes the
 * wide road where the processor has one, a lone value never does). */
static void all_65536_half_floats_convert_exactly(void **state)
{
    (void)state;
    uint16_t *halves = malloc(65536 * sizeof *halves);
    float *values = malloc(65536 * sizeof *values);
    assert_non_null(halves);
    assert_non_null(values);
    for (uint32_t i = 0; i < 65536; i++) halves[i] = (uint16_t)i;
    weir_f16_to_f32(halves, 65536, values);
    for (uint32_t i = 0; i < 65536; i++) {
        const int exponent = (int)(i >> 10 & 31), fraction = (int)(i & 1023);
        double wanted = exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);
        if (i & 0x8000) wanted = -wanted;
        float alone;
        weir_f16_to_f32(&halves[i], 1, &alone);
        assert_int_equal(bits_of(alone), bits_of(values[i]));
        if (exponent == 31) {
            assert_true(fraction ? isnan(values[i]) : isinf(values[i]));
            assert_int_equal(signbit(values[i]) != 0, i >> 15);
        } else {
            assert_int_equal(bits_of(values[i]), bits_of((float)wanted));
        }
    }
    weir_bf16_to_f32(halves, 65536, values);
    for (uint32_t i = 0; i < 65536; i++) {
        float alone;
        weir_bf16_to_f32(&halves[i], 1, &alone);
        assert_int_equal(bits_of(alone), i << 16);
        assert_int_equal(bits_of(values[i]), i << 16);
    }
    free(halves);
    free(values);
}

/* For every bf16 but NaNs: itself, what lies a quarter, half and three quarters of the way to the next one, and a NaN of
 * each sign; in a long run, and each alone (the long run takes the wide road). */
static void every_f32_between_two_bf16_goes_to_the_nearest_or_the_even_one(void **state)
{
    enum { EACH = 4, COUNT = 65536 * EACH };
    (void)state;
    float *values = malloc(COUNT * sizeof *values);
    uint16_t *halves = malloc(COUNT * sizeof *halves);
    assert_non_null(values);
    assert_non_null(halves);
    for (uint32_t i = 0; i < COUNT; i++) {
        const uint32_t bits = i / EACH << 16 | i % EACH * 0x4000;
        memcpy(&values[i], &bits, sizeof bits);
    }
    weir_f32_to_bf16(values, COUNT, halves);
    for (uint32_t i = 0; i < COUNT; i++) {
        const uint16_t half = (uint16_t)(i / EACH);
        const uint32_t part = i % EACH;
        uint16_t alone;
        weir_f32_to_bf16(&values[i], 1, &alone);
        assert_int_equal(alone, halves[i]);
        if (isnan(values[i]))
            assert_true((halves[i] & 0x7f80) == 0x7f80 && (halves[i] & 0x7f) != 0 && halves[i] >> 15 == half >> 15);
        else
            assert_int_equal(halves[i], half + (part == 3 || (part == 2 && half % 2 == 1)));
    }
    free(values);
    free(halves);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_file_gives_its_tensors_in_the_order_of_their_data),
        cmocka_unit_test(each_malformed_header_gives_one_line_that_names_the_file_and_the_tensor),
        cmocka_unit_test(a_file_cut_at_any_byte_is_refused),
        cmocka_unit_test(the_length_of_the_header_is_bounded_before_it_is_used),
        cmocka_unit_test(names_have_up_to_512_bytes),
        cmocka_unit_test(a_file_has_up_to_65536_tensors),
        cmocka_unit_test(all_65536_half_floats_convert_exactly),
        cmocka_unit_test(every_f32_between_two_bf16_goes_to_the_nearest_or_the_even_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
