/* CLIP's tokenizer against transformers, from tests/golden/clip_bpe.json; its limits; and files nobody vouches for. */
#include "proto/base/bytes.h"
#include "tests/unit/scratch.h"
#include "worker/model_dir.h"
#include "worker/tokenizers/clip_folder.h"
#include "worker/tokenizers/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define GOLDEN WEIR_SOURCE_DIR "/tests/golden/"
#define WINDOW 77

static struct weir_clip_bpe_bytes bytes_of(const char *text)
{
    return (struct weir_clip_bpe_bytes){ text, text ? strlen(text) : 0 };
}

static char *file_of(const char *path)
{
    char *bytes = NULL;
    size_t count;
    assert_int_equal(weir_file_read(path, 1u << 20, &bytes, &count, NULL), WEIR_OK);
    return bytes;
}

/* ---- against transformers ---- */

static const char *style_file(const json_t *style, const char *name)
{
    return json_string_value(json_object_get(style, name));
}

static struct weir_clip_bpe *open_style(const json_t *style, const char *vocab, const char *merges)
{
    struct weir_clip_bpe *tokenizer = NULL;
    struct weir_error error = { 0 };
    const char *whole = style_file(style, "tokenizer.json");
    const struct weir_clip_bpe_files files = { .vocab = bytes_of(whole ? NULL : vocab),
                                               .merges = bytes_of(whole ? NULL : merges),
                                               .special_tokens_map =
                                                   bytes_of(style_file(style, "special_tokens_map.json")),
                                               .tokenizer_config = bytes_of(style_file(style, "tokenizer_config.json")),
                                               .tokenizer_json = bytes_of(whole),
                                               .label = "tokenizer" };
    if (weir_clip_bpe_open(&files, &tokenizer, &error) != WEIR_OK) fail_msg("%s", error.words);
    return tokenizer;
}

static void see_case(const struct weir_clip_bpe *tokenizer, const json_t *golden)
{
    const json_t *text = json_object_get(golden, "text"), *want = json_object_get(golden, "ids");
    const size_t bytes = json_string_length(text), times = (size_t)json_integer_value(json_object_get(golden, "times"));
    char *whole = malloc(bytes * times + 1); /* as long as the text, so that a read past it is seen */
    int32_t ids[WINDOW];
    struct weir_clip_bpe_counts counts;
    struct weir_error error = { 0 };
    assert_non_null(whole);
    for (size_t i = 0; i < times; i++) memcpy(whole + i * bytes, json_string_value(text), bytes);
    if (weir_clip_bpe_encode(tokenizer, whole, bytes * times, WINDOW, ids, &counts, &error) != WEIR_OK)
        fail_msg("\"%s\": %s", json_string_value(text), error.words);
    free(whole);
    assert_int_equal(counts.real, json_array_size(want));
    assert_int_equal(counts.whole, json_integer_value(json_object_get(golden, "whole")));
    for (size_t i = 0; i < WINDOW; i++) {
        const json_int_t id = i < counts.real ? json_integer_value(json_array_get(want, i))
                                              : json_integer_value(json_object_get(golden, "pad"));
        if (ids[i] != id)
            fail_msg("style %s, \"%.200s\": id %zu is %d, not %lld",
                     json_string_value(json_object_get(golden, "style")), json_string_value(text), i, ids[i],
                     (long long)id);
        assert_true(ids[i] >= 0 && ids[i] < weir_clip_bpe_id_bound(tokenizer));
    }
}

static void ids_are_those_of_transformers_in_every_style_of_folder(void **state)
{
    (void)state;
    json_t *root = json_load_file(GOLDEN "clip_bpe.json", 0, NULL);
    assert_non_null(root);
    char *vocab = file_of(GOLDEN "clip_bpe/vocab.json"), *merges = file_of(GOLDEN "clip_bpe/merges.txt");
    const json_t *cases = json_object_get(root, "cases");
    const char *name;
    json_t *style;
    size_t seen = 0;
    json_object_foreach(json_object_get(root, "styles"), name, style)
    {
        struct weir_clip_bpe *tokenizer = open_style(style, vocab, merges);
        for (size_t i = 0; i < json_array_size(cases); i++) {
            const json_t *golden = json_array_get(cases, i);
            if (strcmp(json_string_value(json_object_get(golden, "style")), name) != 0) continue;
            see_case(tokenizer, golden);
            seen++;
        }
        weir_clip_bpe_close(&tokenizer);
        assert_null(tokenizer);
    }
    assert_int_equal(seen, json_array_size(cases));
    assert_true(seen >= 400);
    free(vocab);
    free(merges);
    json_decref(root);
}

/* ---- a small tokenizer made here ---- */

static char *small_vocab(const char *more)
{
    char *out = malloc(1u << 15);
    size_t at = 0;
    assert_non_null(out);
    out[at++] = '{';
    for (int i = 0; i < 512; i++) {
        char letter[4];
        weir_clip_byte_letter((uint8_t)(i % 256), letter);
        const char *escape = letter[0] == '"' || letter[0] == '\\' ? "\\" : "";
        at += (size_t)snprintf(out + at, 64, "\"%s%s%s\": %d, ", escape, letter, i < 256 ? "" : "</w>", i);
    }
    snprintf(out + at, 512,
             "\"ab\": 512, \"abab\": 513, \"ab</w>\": 514, \"<|startoftext|>\": 515, "
             "\"<|endoftext|>\": 516%s}",
             more);
    return out;
}

static const char small_merges[] = "#version: 0.2\na b\nab ab\na b</w>\n";

static enum weir_status open_small(const char *vocab, const char *merges, const char *map, const char *config,
                                   struct weir_clip_bpe **out, struct weir_error *error)
{
    const struct weir_clip_bpe_files files = { .vocab = bytes_of(vocab),
                                               .merges = bytes_of(merges),
                                               .special_tokens_map = bytes_of(map),
                                               .tokenizer_config = bytes_of(config),
                                               .label = "tokenizer" };
    return weir_clip_bpe_open(&files, out, error);
}

static struct weir_clip_bpe *small(void)
{
    struct weir_clip_bpe *tokenizer = NULL;
    char *vocab = small_vocab("");
    assert_int_equal(open_small(vocab, small_merges, NULL, NULL, &tokenizer, NULL), WEIR_OK);
    free(vocab);
    return tokenizer;
}

static enum weir_status encode(const struct weir_clip_bpe *tokenizer, const char *text, size_t bytes,
                               struct weir_clip_bpe_counts *counts, struct weir_error *error)
{
    static const uint32_t window = 16;
    int32_t ids[16];
    return weir_clip_bpe_encode(tokenizer, text, bytes, window, ids, counts, error);
}

/* "ababab" of merges ab, abab, ab</w>: the two leftmost join, the last stays. */
static void merges_go_by_rank_and_then_from_the_left(void **state)
{
    (void)state;
    struct weir_clip_bpe *tokenizer = small();
    struct weir_clip_bpe_counts counts;
    int32_t ids[8];
    assert_int_equal(weir_clip_bpe_encode(tokenizer, "abababab", 8, 8, ids, &counts, NULL), WEIR_OK);
    const int32_t want[] = { 515, 513, 512, 514, 516, 516, 516, 516 };
    assert_memory_equal(ids, want, sizeof want);
    assert_int_equal(counts.real, 5);
    assert_int_equal(counts.whole, 5);
    assert_int_equal(weir_clip_bpe_id_bound(tokenizer), 517);
    assert_int_equal(weir_clip_bpe_window(tokenizer), 0);
    weir_clip_bpe_close(&tokenizer);
}

static void a_text_over_the_window_is_cut_before_the_end(void **state)
{
    (void)state;
    struct weir_clip_bpe *tokenizer = small();
    struct weir_clip_bpe_counts counts;
    int32_t ids[5] = { 0, 0, 0, 0, -7 };
    assert_int_equal(weir_clip_bpe_encode(tokenizer, "a 1 2 3", 7, 4, ids, &counts, NULL), WEIR_OK);
    assert_int_equal(ids[0], 515);
    assert_int_equal(ids[1], 256 + 'a');
    assert_int_equal(ids[2], 256 + '1');
    assert_int_equal(ids[3], 516);
    assert_int_equal(ids[4], -7);
    assert_int_equal(counts.real, 4);
    assert_int_equal(counts.whole, 6);
    assert_int_equal(weir_clip_bpe_encode(tokenizer, "a", 1, 2, ids, &counts, NULL), WEIR_OK);
    assert_int_equal(ids[1], 516);
    assert_int_equal(counts.whole, 3);
    weir_clip_bpe_close(&tokenizer);
}

static void bytes_that_are_no_text_are_named_by_offset(void **state)
{
    (void)state;
    struct weir_clip_bpe *tokenizer = small();
    const struct {
        const char *text;
        size_t bytes;
        const char *offset;
    } rows[] = {
        { "\x80", 1, "offset 0" },                /* a tail alone */
        { "ab\xc3", 3, "offset 2" },              /* cut in a character */
        { "ab\xc3(", 4, "offset 2" },             /* a tail missing */
        { "\xc0\xaf", 2, "offset 0" },            /* longer than needed */
        { "a\xed\xa0\x80", 4, "offset 1" },       /* half of a pair */
        { "abc\xf4\x90\x80\x80", 7, "offset 3" }, /* past U+10FFFF */
        { "\xff", 1, "offset 0" },
        { "a\0b", 3, "NUL at offset 1" },
        { "\0", 1, "NUL at offset 0" },
    };
    for (size_t i = 0; i < WEIR_COUNT(rows); i++) {
        struct weir_clip_bpe_counts counts;
        struct weir_error error = { 0 };
        char *text = malloc(rows[i].bytes);
        assert_non_null(text);
        memcpy(text, rows[i].text, rows[i].bytes);
        assert_int_equal(encode(tokenizer, text, rows[i].bytes, &counts, &error), WEIR_BAD_ARGUMENT);
        if (!strstr(error.words, rows[i].offset)) fail_msg("row %zu: %s", i, error.words);
        free(text);
    }
    weir_clip_bpe_close(&tokenizer);
}

static void a_text_has_a_limit_on_both_sides(void **state)
{
    (void)state;
    struct weir_clip_bpe *tokenizer = small();
    struct weir_clip_bpe_counts counts;
    struct weir_error error;
    char *text = malloc(WEIR_CLIP_BPE_TEXT_BYTES_MAX + 1);
    assert_non_null(text);
    memset(text, 'a', WEIR_CLIP_BPE_TEXT_BYTES_MAX + 1);
    assert_int_equal(encode(tokenizer, text, WEIR_CLIP_BPE_TEXT_BYTES_MAX, &counts, &error), WEIR_OK);
    assert_int_equal(counts.whole, WEIR_CLIP_BPE_TEXT_BYTES_MAX + 2);
    assert_int_equal(encode(tokenizer, text, WEIR_CLIP_BPE_TEXT_BYTES_MAX + 1, &counts, &error), WEIR_TOO_LARGE);
    assert_non_null(strstr(error.words, "65536"));
    free(text);
    weir_clip_bpe_close(&tokenizer);
}

static double milliseconds_of(const struct weir_clip_bpe *tokenizer, const char *text, size_t bytes)
{
    double best = 1e9;
    for (int run = 0; run < 10; run++) {
        struct timespec before, after;
        struct weir_clip_bpe_counts counts;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
        assert_int_equal(encode(tokenizer, text, bytes, &counts, NULL), WEIR_OK);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
        const double taken =
            (double)(after.tv_sec - before.tv_sec) * 1e3 + (double)(after.tv_nsec - before.tv_nsec) / 1e6;
        if (taken < best) best = taken;
    }
    return best;
}

/* 8 KiB that merge all the way up take 5 ms at most, and four times as much no more than n log n says. */
static void one_letter_without_end_costs_n_log_n(void **state)
{
    (void)state;
    enum { SHORT = 8192, LONG = 4 * SHORT };
#if defined(__SANITIZE_THREAD__)
    const double slack = 50;
#elif defined(__SANITIZE_ADDRESS__)
    const double slack = 10;
#else
    const double slack = 1;
#endif
    char *vocab = file_of(GOLDEN "clip_bpe/vocab.json"), *merges = file_of(GOLDEN "clip_bpe/merges.txt");
    struct weir_clip_bpe *tokenizer = NULL;
    assert_int_equal(open_small(vocab, merges, NULL, NULL, &tokenizer, NULL), WEIR_OK);
    char *text = malloc(LONG);
    assert_non_null(text);
    for (size_t unit = 1; unit <= 2; unit++) {
        for (size_t i = 0; i < LONG; i++) text[i] = "ha"[i % unit];
        const double small_ms = milliseconds_of(tokenizer, text, SHORT);
        const double large_ms = milliseconds_of(tokenizer, text, LONG);
        print_message("%d bytes: %.2f ms, %d bytes: %.2f ms\n", SHORT, small_ms, LONG, large_ms);
        assert_true(small_ms <= 5 * slack);
        assert_true(large_ms <= 10 * small_ms + slack);
    }
    free(text);
    weir_clip_bpe_close(&tokenizer);
    free(vocab);
    free(merges);
}

/* ---- files nobody vouches for ---- */

static void a_bad_file_is_refused_and_named(void **state)
{
    (void)state;
    char *vocab = small_vocab("");
    const struct {
        const char *vocab, *merges, *map, *config;
        enum weir_status status;
        const char *words;
    } rows[] = {
        { NULL, small_merges, NULL, NULL, WEIR_BAD_MODEL, "vocab.json" },
        { vocab, NULL, NULL, NULL, WEIR_BAD_MODEL, "merges.txt" },
        { "", small_merges, NULL, NULL, WEIR_BAD_MODEL, "vocab.json" },
        { "[]", small_merges, NULL, NULL, WEIR_BAD_MODEL, "vocab.json" },
        { "{}", small_merges, NULL, NULL, WEIR_BAD_MODEL, "empty" },
        { "{\"a\": 1", small_merges, NULL, NULL, WEIR_BAD_MODEL, "vocab.json" },
        { "{\"a\": -1}", small_merges, NULL, NULL, WEIR_BAD_MODEL, "\"a\" has id -1" },
        { "{\"a\": 524288}", "", NULL, NULL, WEIR_BAD_MODEL, "524287" },
        { "{\"a\": 524287, \"<|endoftext|>\": 0}", "", NULL, NULL, WEIR_OK, "" },
        { "{\"a\": \"b\"}", small_merges, NULL, NULL, WEIR_BAD_MODEL, "\"a\"" },
        { "{\"a\": 1.5}", small_merges, NULL, NULL, WEIR_BAD_MODEL, "1.5" },
        { "{\"a\": {\"b\": 1}}", small_merges, NULL, NULL, WEIR_TOO_LARGE, "vocab.json" },
        { "{\"a\": 1, \"b\": 2}", "", NULL, NULL, WEIR_BAD_MODEL, "unknown token" },
        { vocab, "#version: 0.2\na", NULL, NULL, WEIR_BAD_MODEL, "merge 2" },
        { vocab, "a b\n\n", NULL, NULL, WEIR_BAD_MODEL, "merge 2" },
        { vocab, "a b c\n", NULL, NULL, WEIR_BAD_MODEL, "merge 1" },
        { vocab, "a  b\n", NULL, NULL, WEIR_BAD_MODEL, "merge 1" },
        { vocab, "q\303\203 b\n", NULL, NULL, WEIR_BAD_MODEL, "left token" },
        { vocab, "a bb\n", NULL, NULL, WEIR_BAD_MODEL, "right token" },
        { vocab, "b a\n", NULL, NULL, WEIR_BAD_MODEL, "joined token" },
        { vocab, "a b\r\nab ab\r\n", NULL, NULL, WEIR_OK, "" },
        { vocab, "a b", NULL, NULL, WEIR_OK, "" },
        { vocab, "", NULL, NULL, WEIR_OK, "" },
        { vocab, small_merges, "{\"bos_token\": 3}", NULL, WEIR_BAD_MODEL, "bos_token" },
        { vocab, small_merges, "{\"bos_token\": {\"contents\": \"x\"}}", NULL, WEIR_BAD_MODEL, "bos_token" },
        { vocab, small_merges, "{\"eos_token\": \"\"}", NULL, WEIR_BAD_MODEL, "eos_token is empty" },
        { vocab, small_merges, "{\"eos_token\": {\"content\": \"x\", \"lstrip\": 1}}", NULL, WEIR_BAD_MODEL, "lstrip" },
        { vocab, small_merges, "{\"additional_special_tokens\": [1]}", NULL, WEIR_BAD_MODEL, "extra_special_tokens" },
        { vocab, small_merges, NULL, "{\"pad_token\": null}", WEIR_BAD_MODEL, "pad_token is null" },
        { vocab, small_merges, NULL, "{\"added_tokens_decoder\": {\"1\": \"x\"}}", WEIR_BAD_MODEL, "added token" },
        { vocab, small_merges, NULL, "{\"added_tokens_decoder\": 1}", WEIR_BAD_MODEL, "added tokens" },
        { vocab, small_merges, NULL, "{\"padding_side\": \"left\"}", WEIR_UNSUPPORTED, "padding_side" },
        { vocab, small_merges, NULL, "{\"truncation_side\": \"left\"}", WEIR_UNSUPPORTED, "truncation_side" },
        { vocab, small_merges, NULL, "{\"split_special_tokens\": true}", WEIR_UNSUPPORTED, "split_special_tokens" },
        { vocab, small_merges, NULL, "{", WEIR_BAD_MODEL, "tokenizer_config.json" },
        { vocab, small_merges, "nothing", NULL, WEIR_BAD_MODEL, "special_tokens_map.json" },
        { vocab, small_merges, "{}", "{\"padding_side\": \"right\", \"mask_token\": null}", WEIR_OK, "" },
    };
    for (size_t i = 0; i < WEIR_COUNT(rows); i++) {
        struct weir_clip_bpe *tokenizer = NULL;
        struct weir_error error = { 0 };
        const enum weir_status status =
            open_small(rows[i].vocab, rows[i].merges, rows[i].map, rows[i].config, &tokenizer, &error);
        if (status != rows[i].status) fail_msg("row %zu: %s: %s", i, weir_status_name(status), error.words);
        if (!strstr(error.words, rows[i].words)) fail_msg("row %zu: %s", i, error.words);
        assert_true((status == WEIR_OK) == (tokenizer != NULL));
        weir_clip_bpe_close(&tokenizer);
    }
    free(vocab);
}

static void a_bad_tokenizer_json_is_refused_and_named(void **state)
{
    (void)state;
    const struct {
        const char *text, *words;
    } rows[] = {
        { "{}", "model.vocab" },
        { "{\"model\": {\"type\": \"Unigram\", \"vocab\": {}}}", "model.type" },
        { "{\"model\": {\"vocab\": []}}", "model.vocab" },
        { "{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": {}}}", "model.merges" },
        { "{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [1]}}", "merge 1" },
        { "{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [[\"a\"]]}}", "merge 1" },
        { "{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [\"a\"]}}", "merge 1" },
        { "{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [[\"a\", \"a\"]]}}", "joined token" },
        { "{\"added_tokens\": 3, \"model\": {\"vocab\": {\"a\": 0}, \"merges\": []}}", "added tokens" },
    };
    for (size_t i = 0; i < WEIR_COUNT(rows); i++) {
        struct weir_clip_bpe *tokenizer = NULL;
        struct weir_error error = { 0 };
        const struct weir_clip_bpe_files files = { .tokenizer_json = bytes_of(rows[i].text), .label = "tokenizer" };
        assert_int_equal(weir_clip_bpe_open(&files, &tokenizer, &error), WEIR_BAD_MODEL);
        if (!strstr(error.words, rows[i].words)) fail_msg("row %zu: %s", i, error.words);
    }
}

static void tokens_have_a_limit_on_both_sides(void **state)
{
    (void)state;
    for (size_t bytes = WEIR_CLIP_BPE_TOKEN_BYTES_MAX; bytes <= WEIR_CLIP_BPE_TOKEN_BYTES_MAX + 1; bytes++) {
        const enum weir_status want = bytes > WEIR_CLIP_BPE_TOKEN_BYTES_MAX ? WEIR_TOO_LARGE : WEIR_OK;
        char token[WEIR_CLIP_BPE_TOKEN_BYTES_MAX + 2] = "", more[1200], map[1200];
        struct weir_clip_bpe *tokenizer = NULL;
        struct weir_error error;
        memset(token, 'q', bytes);
        snprintf(more, sizeof more, "{\"<|endoftext|>\": 0, \"%s\": 1}", token);
        assert_int_equal(open_small(more, "", NULL, NULL, &tokenizer, &error), want);
        weir_clip_bpe_close(&tokenizer);
        char *vocab = small_vocab("");
        snprintf(map, sizeof map, "{\"mask_token\": \"%s\"}", token);
        assert_int_equal(open_small(vocab, "", map, NULL, &tokenizer, &error), want);
        weir_clip_bpe_close(&tokenizer);
        free(vocab);
    }
}

static void special_tokens_have_a_limit_on_both_sides(void **state)
{
    (void)state;
    char *vocab = small_vocab("");
    for (int extras = WEIR_CLIP_BPE_SPECIALS_MAX - 2; extras <= WEIR_CLIP_BPE_SPECIALS_MAX - 1; extras++) {
        char map[1 << 13];
        size_t at = (size_t)snprintf(map, sizeof map, "{\"additional_special_tokens\": [");
        for (int i = 0; i < extras; i++)
            at += (size_t)snprintf(map + at, sizeof map - at, "%s\"<%d>\"", i ? ", " : "", i);
        snprintf(map + at, sizeof map - at, "]}"); /* and <|startoftext|>, <|endoftext|> */
        struct weir_clip_bpe *tokenizer = NULL;
        struct weir_error error;
        const bool fits = extras + 2 <= WEIR_CLIP_BPE_SPECIALS_MAX;
        assert_int_equal(open_small(vocab, "", map, NULL, &tokenizer, &error), fits ? WEIR_OK : WEIR_TOO_LARGE);
        if (fits) assert_int_equal(weir_clip_bpe_id_bound(tokenizer), 517 + extras);
        weir_clip_bpe_close(&tokenizer);
    }
    free(vocab);
}

static void merges_and_vocabularies_have_a_limit_on_both_sides(void **state)
{
    (void)state;
    char *vocab = small_vocab("");
    for (size_t count = WEIR_CLIP_BPE_MERGES_MAX; count <= WEIR_CLIP_BPE_MERGES_MAX + 1; count++) {
        char *merges = malloc(4 * count + 1);
        struct weir_clip_bpe *tokenizer = NULL;
        struct weir_error error;
        assert_non_null(merges);
        for (size_t i = 0; i < count; i++) memcpy(merges + 4 * i, "a b\n", 5);
        assert_int_equal(open_small(vocab, merges, NULL, NULL, &tokenizer, &error),
                         count > WEIR_CLIP_BPE_MERGES_MAX ? WEIR_TOO_LARGE : WEIR_OK);
        weir_clip_bpe_close(&tokenizer);
        free(merges);
    }
    free(vocab);
    for (size_t count = WEIR_CLIP_BPE_VOCAB_MAX; count <= WEIR_CLIP_BPE_VOCAB_MAX + 1; count++) {
        char *text = malloc(24 * count + 64);
        struct weir_clip_bpe *tokenizer = NULL;
        struct weir_error error;
        assert_non_null(text);
        size_t at = (size_t)sprintf(text, "{\"<|endoftext|>\": 0");
        for (size_t i = 1; i < count; i++) at += (size_t)sprintf(text + at, ",\"%zu\":1", i);
        strcpy(text + at, "}");
        assert_int_equal(open_small(text, "", NULL, NULL, &tokenizer, &error),
                         count > WEIR_CLIP_BPE_VOCAB_MAX ? WEIR_TOO_LARGE : WEIR_OK);
        weir_clip_bpe_close(&tokenizer);
        free(text);
    }
}

static void the_window_of_the_config_is_read_where_it_can_be_used(void **state)
{
    (void)state;
    const struct {
        const char *config;
        uint32_t window;
    } rows[] = { { "{}", 0 },
                 { "{\"model_max_length\": 77}", 77 },
                 { "{\"model_max_length\": 4096}", 4096 },
                 { "{\"model_max_length\": 4097}", 0 },
                 { "{\"model_max_length\": 2}", 2 },
                 { "{\"model_max_length\": 1}", 0 },
                 { "{\"model_max_length\": -5}", 0 } };
    char *vocab = small_vocab("");
    for (size_t i = 0; i < WEIR_COUNT(rows); i++) {
        struct weir_clip_bpe *tokenizer = NULL;
        assert_int_equal(open_small(vocab, "", NULL, rows[i].config, &tokenizer, NULL), WEIR_OK);
        assert_int_equal(weir_clip_bpe_window(tokenizer), rows[i].window);
        weir_clip_bpe_close(&tokenizer);
    }
    free(vocab);
}

/* ---- in a model's folder ---- */

static enum weir_status open_folder(struct scratch *scratch, struct weir_clip_bpe **out, struct weir_error *error)
{
    struct weir_model_dir *model = NULL;
    assert_int_equal(weir_model_dir_open(scratch->path, NULL, &model, error), WEIR_OK);
    const enum weir_status status = weir_clip_folder_open(model, "tokenizer", out, error);
    weir_model_dir_close(&model);
    return status;
}

/* vocab.json with merges.txt, or tokenizer.json, which wins where both are there; without any, what is missing is
 * named. */
static void a_folder_is_read_in_its_older_and_its_newer_form(void **state)
{
    (void)state;
    struct scratch scratch = scratch_begin();
    struct weir_clip_bpe *tokenizer = NULL;
    struct weir_error error = { 0 };
    char *vocab = small_vocab("");
    scratch_text(&scratch, "model_index.json",
                 "{\"_class_name\": \"TextToVideoSDPipeline\", \"tokenizer\": [\"transformers\", \"CLIPTokenizer\"]}");
    scratch_folder(&scratch, "tokenizer");
    assert_int_equal(open_folder(&scratch, &tokenizer, &error), WEIR_NOT_FOUND);
    assert_non_null(strstr(error.words, "vocab.json"));

    scratch_text(&scratch, "tokenizer/vocab.json", vocab);
    assert_int_equal(open_folder(&scratch, &tokenizer, &error), WEIR_NOT_FOUND);
    assert_non_null(strstr(error.words, "merges.txt"));

    scratch_text(&scratch, "tokenizer/merges.txt", small_merges);
    if (open_folder(&scratch, &tokenizer, &error) != WEIR_OK) fail_msg("%s", error.words);
    assert_int_equal(weir_clip_bpe_id_bound(tokenizer), 517);
    assert_int_equal(weir_clip_bpe_window(tokenizer), 0);
    weir_clip_bpe_close(&tokenizer);

    scratch_text(&scratch, "tokenizer/tokenizer_config.json", "{\"model_max_length\": 77}");
    scratch_text(&scratch, "tokenizer/special_tokens_map.json", "{\"mask_token\": \"<mask>\"}");
    if (open_folder(&scratch, &tokenizer, &error) != WEIR_OK) fail_msg("%s", error.words);
    assert_int_equal(weir_clip_bpe_id_bound(tokenizer), 518);
    assert_int_equal(weir_clip_bpe_window(tokenizer), 77);
    weir_clip_bpe_close(&tokenizer);

    scratch_text(&scratch, "tokenizer/tokenizer.json",
                 "{\"model\": {\"vocab\": {\"<|startoftext|>\": 0, \"<|endoftext|>\": 1, \"a\": 2}, \"merges\": []}}");
    if (open_folder(&scratch, &tokenizer, &error) != WEIR_OK) fail_msg("%s", error.words);
    assert_int_equal(weir_clip_bpe_id_bound(tokenizer), 4);
    weir_clip_bpe_close(&tokenizer);
    free(vocab);
    scratch_end(&scratch);
}

/* ---- many at once ---- */

struct turn {
    const struct weir_clip_bpe *tokenizer;
    int32_t ids[WINDOW];
    bool same;
};

static const char shared_text[] = "A red circle, moving right! \xc4\xb0stanbul caf\x65\xcc\x81 <|ENDOFTEXT|> 3.14";

static void *encode_again_and_again(void *context)
{
    struct turn *turn = context;
    turn->same = true;
    for (int i = 0; i < 200; i++) {
        int32_t ids[WINDOW];
        struct weir_clip_bpe_counts counts;
        const enum weir_status status =
            weir_clip_bpe_encode(turn->tokenizer, shared_text, strlen(shared_text), WINDOW, ids, &counts, NULL);
        turn->same &= status == WEIR_OK && memcmp(ids, turn->ids, sizeof ids) == 0;
    }
    return NULL;
}

static void threads_share_a_tokenizer(void **state)
{
    (void)state;
    struct weir_clip_bpe *tokenizer = small();
    struct turn turns[4];
    pthread_t threads[4];
    struct weir_clip_bpe_counts counts;
    int32_t ids[WINDOW];
    assert_int_equal(weir_clip_bpe_encode(tokenizer, shared_text, strlen(shared_text), WINDOW, ids, &counts, NULL),
                     WEIR_OK);
    for (int i = 0; i < 4; i++) {
        turns[i].tokenizer = tokenizer;
        memcpy(turns[i].ids, ids, sizeof ids);
        assert_int_equal(pthread_create(&threads[i], NULL, encode_again_and_again, &turns[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_true(turns[i].same);
    }
    weir_clip_bpe_close(&tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_those_of_transformers_in_every_style_of_folder),
        cmocka_unit_test(merges_go_by_rank_and_then_from_the_left),
        cmocka_unit_test(a_text_over_the_window_is_cut_before_the_end),
        cmocka_unit_test(bytes_that_are_no_text_are_named_by_offset),
        cmocka_unit_test(a_text_has_a_limit_on_both_sides),
        cmocka_unit_test(one_letter_without_end_costs_n_log_n),
        cmocka_unit_test(a_bad_file_is_refused_and_named),
        cmocka_unit_test(a_bad_tokenizer_json_is_refused_and_named),
        cmocka_unit_test(tokens_have_a_limit_on_both_sides),
        cmocka_unit_test(special_tokens_have_a_limit_on_both_sides),
        cmocka_unit_test(merges_and_vocabularies_have_a_limit_on_both_sides),
        cmocka_unit_test(the_window_of_the_config_is_read_where_it_can_be_used),
        cmocka_unit_test(a_folder_is_read_in_its_older_and_its_newer_form),
        cmocka_unit_test(threads_share_a_tokenizer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
