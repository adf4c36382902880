/* The generator against torch's, from tests/golden/noise.json. */
#include "proto/base/bytes.h"
#include "worker/samplers/noise.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void draw(struct weir_noise *noise, const char *type, float *out, size_t count)
{
    (strcmp(type, "f16") == 0 ? weir_noise_normal_f16 : weir_noise_normal_f32)(noise, out, count);
}

/* One generator, several calls: the first numbers of each and the digest of all are torch's. */
static void see_case(const json_t *golden)
{
    const char *type = json_string_value(json_object_get(golden, "type"));
    const json_t *counts = json_object_get(golden, "counts"), *head = json_object_get(golden, "head");
    struct weir_noise noise;
    struct weir_sha256 sha;
    weir_noise_init(&noise, strtoull(json_string_value(json_object_get(golden, "seed")), NULL, 10));
    weir_sha256_init(&sha);
    for (size_t call = 0; call < json_array_size(counts); call++) {
        const size_t count = (size_t)json_integer_value(json_array_get(counts, call));
        float *out = malloc(count * sizeof *out);
        assert_non_null(out);
        draw(&noise, type, out, count);
        char bits[4 * 8 + 1] = "";
        for (size_t i = 0; i < count && i < 4; i++) {
            uint32_t word;
            memcpy(&word, &out[i], sizeof word);
            snprintf(bits + 8 * i, 9, "%08x", word);
        }
        assert_string_equal(bits, json_string_value(json_array_get(head, call)));
        weir_sha256_update(&sha, out, count * sizeof *out);
        free(out);
    }
    uint8_t digest[WEIR_SHA256_BYTES];
    char hex[WEIR_SHA256_HEX_BYTES];
    weir_sha256_final(&sha, digest);
    weir_hex_write(digest, sizeof digest, hex);
    assert_string_equal(hex, json_string_value(json_object_get(golden, "sha256")));
}

static void every_number_has_the_bits_of_torch(void **state)
{
    (void)state;
    json_error_t fault;
    json_t *root = json_load_file(WEIR_SOURCE_DIR "/tests/golden/noise.json", 0, &fault);
    assert_non_null(root);
    const json_t *cases = json_object_get(root, "cases");
    assert_true(json_array_size(cases) >= 30);
    for (size_t i = 0; i < json_array_size(cases); i++) see_case(json_array_get(cases, i));
    json_decref(root);
}

static void only_the_low_half_of_a_seed_counts(void **state)
{
    (void)state;
    struct weir_noise a, b;
    float x[32], y[32];
    weir_noise_init(&a, 7);
    weir_noise_init(&b, (UINT64_C(9) << 32) + 7);
    weir_noise_normal_f32(&a, x, 32);
    weir_noise_normal_f32(&b, y, 32);
    assert_memory_equal(x, y, sizeof x);
    weir_noise_init(&b, 8);
    weir_noise_normal_f32(&b, y, 32);
    assert_memory_not_equal(x, y, sizeof x);
}

static void a_call_for_nothing_draws_nothing(void **state)
{
    (void)state;
    struct weir_noise a, b;
    weir_noise_init(&a, 7);
    weir_noise_init(&b, 7);
    float none = 3;
    weir_noise_normal_f32(&a, &none, 0);
    weir_noise_normal_f16(&a, &none, 0);
    assert_true(none == 3);
    assert_memory_equal(a.words, b.words, sizeof a.words);
    assert_int_equal(a.next, b.next);
}

/* A state saved between any two calls, spare number and all, goes on in another generator as the first does. */
static void a_saved_state_goes_on_with_the_same_numbers(void **state)
{
    (void)state;
    static const size_t calls[] = { 3, 40, 1, 7, 1000, 15, 16, 2 };
    for (size_t cut = 0; cut <= WEIR_COUNT(calls); cut++) {
        struct weir_noise first, second;
        uint8_t saved[WEIR_NOISE_STATE_BYTES], again[WEIR_NOISE_STATE_BYTES];
        float x[1000], y[1000];
        weir_noise_init(&first, 99);
        for (size_t i = 0; i < cut; i++) weir_noise_normal_f32(&first, x, calls[i]);
        weir_noise_save(&first, saved);
        memset(&second, 0xa5, sizeof second);
        assert_int_equal(weir_noise_load(&second, saved, sizeof saved, NULL), WEIR_OK);
        weir_noise_save(&second, again);
        assert_memory_equal(saved, again, sizeof saved);
        for (size_t i = cut; i < WEIR_COUNT(calls); i++) {
            weir_noise_normal_f32(&first, x, calls[i]);
            weir_noise_normal_f32(&second, y, calls[i]);
            assert_memory_equal(x, y, calls[i] * sizeof *x);
        }
    }
}

static void a_state_that_nobody_saved_is_refused(void **state)
{
    (void)state;
    struct weir_noise noise, before;
    struct weir_error error;
    uint8_t good[WEIR_NOISE_STATE_BYTES], bad[WEIR_NOISE_STATE_BYTES];
    const size_t tail = 4 + 4 * WEIR_NOISE_WORDS;
    weir_noise_init(&noise, 1);
    before = noise;
    weir_noise_save(&noise, good);

    const struct {
        size_t at;
        uint32_t value;
    } faults[] = {
        { 0, 2 }, { tail, WEIR_NOISE_WORDS + 1 }, { tail + 4, 2 }, { tail + 12, 0x7ff00000 }, { tail + 8, 1 }
    };
    for (size_t i = 0; i < WEIR_COUNT(faults); i++) {
        memcpy(bad, good, sizeof bad);
        weir_store_u32(bad + faults[i].at, faults[i].value);
        assert_int_equal(weir_noise_load(&noise, bad, sizeof bad, &error), WEIR_BAD_FILE);
        assert_memory_equal(&noise, &before, sizeof noise);
    }
    assert_int_equal(weir_noise_load(&noise, good, sizeof good - 1, &error), WEIR_BAD_FILE);
    assert_int_equal(weir_noise_load(&noise, good, sizeof good, &error), WEIR_OK);
}

/* f16 numbers are halves: 11 significant bits, or multiples of 2^-24 where they are tiny; and near the f32 ones. */
static void half_noise_is_the_float_noise_rounded(void **state)
{
    (void)state;
    enum { N = 1 << 16 };
    struct weir_noise a, b;
    float *x = malloc(N * sizeof *x), *y = malloc(N * sizeof *y);
    assert_non_null(x);
    assert_non_null(y);
    weir_noise_init(&a, 5);
    weir_noise_init(&b, 5);
    weir_noise_normal_f32(&a, x, N);
    weir_noise_normal_f16(&b, y, N);
    for (size_t i = 0; i < N; i++) {
        const double quantum = fabsf(y[i]) < 0x1p-14f ? 0x1p-24 : ldexp(1, ilogb(y[i]) - 10);
        assert_true(fmod(y[i], quantum) == 0);
        assert_true(fabs((double)x[i] - (double)y[i]) <= quantum / 2);
    }
    free(x);
    free(y);
}

/* Number i of a seed's draws is the i-th call of one generator: also where a call leaves a number over for the next. */
static void any_draw_of_a_seed_can_be_had_alone(void **state)
{
    (void)state;
    enum { MOST = 1300, DRAWS = 4 }; /* over two of the 624 words that are made at once */
    const size_t counts[] = { 0, 1, 5, 15, 16, 37, 100, 624, MOST };
    float in_row[MOST], alone[MOST];
    for (size_t c = 0; c < WEIR_COUNT(counts); c++) {
        for (int first_f16 = 0; first_f16 < 2; first_f16++) {
            struct weir_noise noise;
            weir_noise_init(&noise, 77);
            for (uint32_t i = 0; i < DRAWS; i++) {
                memset(in_row, 0, sizeof in_row);
                memset(alone, 0, sizeof alone);
                (first_f16 && i == 0 ? weir_noise_normal_f16 : weir_noise_normal_f32)(&noise, in_row, counts[c]);
                weir_noise_draw(77, first_f16, i, alone, counts[c]);
                assert_memory_equal(alone, in_row, sizeof alone);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_number_has_the_bits_of_torch),
        cmocka_unit_test(only_the_low_half_of_a_seed_counts),
        cmocka_unit_test(a_call_for_nothing_draws_nothing),
        cmocka_unit_test(a_saved_state_goes_on_with_the_same_numbers),
        cmocka_unit_test(a_state_that_nobody_saved_is_refused),
        cmocka_unit_test(half_noise_is_the_float_noise_rounded),
        cmocka_unit_test(any_draw_of_a_seed_can_be_had_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
