/* Embeddings without padding: what is packed comes back, and what cannot be is refused in words. */
#include "worker/text_encoder/embedding.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { TOKENS = 6, ROWS = TOKENS + 1, CHANNELS = 4, COPIES_MAX = 2, MAX = COPIES_MAX * ROWS * CHANNELS };

static const struct weir_model_facts counted = { .text_tokens = TOKENS, .text_rows = ROWS, .text_channels = CHANNELS };
static const struct weir_model_facts whole = { .text_tokens = ROWS, .text_rows = ROWS, .text_channels = CHANNELS };

/* Copies of so many tokens each. */
static void make(uint32_t copies, const uint32_t *tokens, float *out)
{
    for (uint32_t copy = 0; copy < copies; copy++, out += ROWS * CHANNELS) {
        memset(out, 0, ROWS * CHANNELS * sizeof *out);
        for (uint32_t i = 0; i < tokens[copy] * CHANNELS; i++) out[i] = (float)(100 * copy + i + 1);
        out[TOKENS * CHANNELS] = (float)tokens[copy];
    }
}

static struct weir_artefact_tensor tensor_of(uint32_t rank, uint32_t copies, uint32_t rows, const float *values)
{
    struct weir_artefact_tensor tensor = { .rank = rank, .values = values, .count = copies * rows * CHANNELS };
    if (rank == 3) tensor.dims[0] = copies;
    tensor.dims[rank - 2] = rows;
    tensor.dims[rank - 1] = CHANNELS;
    return tensor;
}

static void what_is_packed_comes_back_for_every_number_of_tokens(void **state)
{
    (void)state;
    for (uint32_t a = 1; a <= TOKENS; a++) {
        for (uint32_t b = 1; b <= TOKENS; b++) {
            const uint32_t tokens[] = { a, b };
            float full[MAX], packed[MAX], back[MAX];
            make(2, tokens, full);
            const uint32_t rows = weir_embedding_rows(&counted, 2, full);
            assert_int_equal(rows, (a > b ? a : b) + 1);
            weir_embedding_pack(&counted, 2, rows, full, packed);
            const struct weir_artefact_tensor tensor = tensor_of(3, 2, rows, packed);
            assert_int_equal(weir_embedding_unpack(&counted, 2, &tensor, back, NULL), WEIR_OK);
            assert_memory_equal(back, full, sizeof full);
        }
    }
}

static void all_rows_and_one_copy_of_two_dimensions_are_read_too(void **state)
{
    (void)state;
    const uint32_t tokens[] = { 3 };
    float full[MAX], packed[MAX], back[MAX];
    make(1, tokens, full);
    const struct weir_artefact_tensor unpacked = tensor_of(3, 1, ROWS, full);
    assert_int_equal(weir_embedding_unpack(&counted, 1, &unpacked, back, NULL), WEIR_OK);
    assert_memory_equal(back, full, ROWS * CHANNELS * sizeof *full);
    weir_embedding_pack(&counted, 1, 4, full, packed);
    const struct weir_artefact_tensor flat = tensor_of(2, 1, 4, packed);
    assert_int_equal(weir_embedding_unpack(&counted, 1, &flat, back, NULL), WEIR_OK);
    assert_memory_equal(back, full, ROWS * CHANNELS * sizeof *full);
}

static void families_that_count_nothing_keep_all_rows(void **state)
{
    (void)state;
    float full[MAX], packed[MAX], back[MAX];
    for (int i = 0; i < MAX; i++) full[i] = (float)(i % 3);
    assert_int_equal(weir_embedding_rows(&whole, 2, full), ROWS);
    weir_embedding_pack(&whole, 2, ROWS, full, packed);
    const struct weir_artefact_tensor tensor = tensor_of(3, 2, ROWS, packed), fewer = tensor_of(3, 2, 3, packed);
    assert_int_equal(weir_embedding_unpack(&whole, 2, &tensor, back, NULL), WEIR_OK);
    assert_memory_equal(back, full, sizeof full);
    assert_int_equal(weir_embedding_unpack(&whole, 2, &fewer, back, NULL), WEIR_BAD_FILE);
}

static void other_shapes_and_impossible_counts_are_refused(void **state)
{
    (void)state;
    const uint32_t tokens[] = { 2, 3 };
    static const float counts[] = { 0, -1, 4, 2.5f, 1e30f };
    float full[MAX], packed[MAX], back[MAX];
    struct weir_error error;
    make(2, tokens, full);
    weir_embedding_pack(&counted, 2, 4, full, packed);
    const struct weir_artefact_tensor good = tensor_of(3, 2, 4, packed);
    struct weir_artefact_tensor bad = good;
    bad.dims[0] = 1; /* one copy */
    assert_int_equal(weir_embedding_unpack(&counted, 2, &bad, back, &error), WEIR_BAD_FILE);
    bad = good, bad.dims[1] = 1; /* nothing but a count */
    assert_int_equal(weir_embedding_unpack(&counted, 2, &bad, back, &error), WEIR_BAD_FILE);
    bad = good, bad.dims[1] = ROWS + 1;
    assert_int_equal(weir_embedding_unpack(&counted, 2, &bad, back, &error), WEIR_BAD_FILE);
    bad = good, bad.dims[2] = CHANNELS + 1;
    assert_int_equal(weir_embedding_unpack(&counted, 2, &bad, back, &error), WEIR_BAD_FILE);
    assert_non_null(strstr(error.words, "the embedding is 2x4x5"));
    bad = good, bad.rank = 2;
    assert_int_equal(weir_embedding_unpack(&counted, 2, &bad, back, &error), WEIR_BAD_FILE);
    for (size_t i = 0; i < WEIR_COUNT(counts); i++) {
        packed[3 * CHANNELS] = counts[i];
        assert_int_equal(weir_embedding_unpack(&counted, 2, &good, back, &error), WEIR_BAD_FILE);
        assert_non_null(strstr(error.words, "3 rows of tokens"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_packed_comes_back_for_every_number_of_tokens),
        cmocka_unit_test(all_rows_and_one_copy_of_two_dimensions_are_read_too),
        cmocka_unit_test(families_that_count_nothing_keep_all_rows),
        cmocka_unit_test(other_shapes_and_impossible_counts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
