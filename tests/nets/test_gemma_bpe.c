/* Gemma's tokenizer against the library tokenizers, from tests/golden/gemma_bpe.json; its limits; files nobody vouches
 * for; and what Sana's pipelines make of a prompt. */
#include "proto/base/bytes.h"
#include "tests/unit/scratch.h"
#include "worker/model_dir.h"
#include "worker/tokenizers/gemma_folder.h"
#include "worker/tokenizers/gemma_internal.h"
#include "worker/tokenizers/gemma_prompt.h"
#include "worker/tokenizers/unicode_text.h"

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
#define MARK "\xe2\x96\x81"

#if defined(__SANITIZE_THREAD__)
#define SLACK 50.0
#elif defined(__SANITIZE_ADDRESS__)
#define SLACK 10.0
#else
#define SLACK 1.0
#endif

static struct weir_gemma_bpe_bytes bytes_of(const char *text)
{
    return (struct weir_gemma_bpe_bytes){ text, text ? strlen(text) : 0 };
}

static enum weir_status open_files(const char *whole, const char *config, const char *map, struct weir_gemma_bpe **out,
                                   struct weir_error *error)
{
    const struct weir_gemma_bpe_files files = { .tokenizer_json = bytes_of(whole),
                                                .tokenizer_config = bytes_of(config),
                                                .special_tokens_map = bytes_of(map),
                                                .label = "tokenizer" };
    return weir_gemma_bpe_open(&files, out, error);
}

/* ---- against tokenizers ---- */

static json_t *golden_load(void)
{
    json_t *root = json_load_file(GOLDEN "gemma_bpe.json", 0, NULL);
    assert_non_null(root);
    return root;
}

static struct weir_gemma_bpe *open_style(const json_t *root, const char *name)
{
    struct weir_gemma_bpe *tokenizer = NULL;
    struct weir_error error = { 0 };
    const json_t *style = json_object_get(json_object_get(root, "styles"), name);
    json_t *file = json_deep_copy(json_object_get(root, "file"));
    json_object_update(file, json_object_get(style, ""));
    json_object_update(json_object_get(file, "model"), json_object_get(style, "model"));
    char *text = json_dumps(file, JSON_INDENT(1));
    assert_non_null(text);
    if (open_files(text, NULL, NULL, &tokenizer, &error) != WEIR_OK) fail_msg("style %s: %s", name, error.words);
    free(text);
    json_decref(file);
    return tokenizer;
}

static json_int_t number_of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static void see_case(const struct weir_gemma_bpe *tokenizer, const json_t *golden, json_int_t pad)
{
    const json_t *text = json_object_get(golden, "text"), *want = json_object_get(golden, "ids");
    const size_t bytes = json_string_length(text), times = (size_t)number_of(golden, "times");
    char *whole = malloc(bytes * times + (bytes == 0)); /* as long as the text, so that a read past it is seen */
    int32_t ids[WINDOW];
    struct weir_gemma_bpe_counts counts;
    struct weir_error error = { 0 };
    assert_non_null(whole);
    for (size_t i = 0; i < times; i++) memcpy(whole + i * bytes, json_string_value(text), bytes);
    if (weir_gemma_bpe_encode(tokenizer, whole, bytes * times, WINDOW, ids, &counts, &error) != WEIR_OK)
        fail_msg("\"%s\": %s", json_string_value(text), error.words);
    free(whole);
    for (size_t i = 0; i < WINDOW; i++) {
        const json_int_t id = i < json_array_size(want) ? json_integer_value(json_array_get(want, i)) : pad;
        if (ids[i] != id)
            fail_msg("style %s, \"%.200s\": id %zu is %d, not %lld",
                     json_string_value(json_object_get(golden, "style")), json_string_value(text), i, ids[i],
                     (long long)id);
        assert_true(ids[i] >= 0 && ids[i] < weir_gemma_bpe_facts(tokenizer).id_bound);
    }
    assert_int_equal(counts.real, json_array_size(want));
    assert_int_equal(counts.whole, number_of(golden, "whole"));
}

static void ids_are_those_of_tokenizers_in_every_style_of_file(void **state)
{
    (void)state;
    json_t *root = golden_load();
    const json_t *cases = json_object_get(root, "cases");
    const char *name;
    json_t *style;
    size_t seen = 0;
    json_object_foreach(json_object_get(root, "styles"), name, style)
    {
        struct weir_gemma_bpe *tokenizer = open_style(root, name);
        for (size_t i = 0; i < json_array_size(cases); i++) {
            const json_t *golden = json_array_get(cases, i);
            if (strcmp(json_string_value(json_object_get(golden, "style")), name) != 0) continue;
            see_case(tokenizer, golden, number_of(root, "pad"));
            seen++;
        }
        weir_gemma_bpe_close(&tokenizer);
        assert_null(tokenizer);
    }
    assert_int_equal(seen, json_array_size(cases));
    assert_true(seen >= 500);
    json_decref(root);
}

static void lower_case_and_white_space_are_those_of_python(void **state)
{
    (void)state;
    json_t *root = golden_load();
    const json_t *rows = json_object_get(root, "lowered");
    assert_true(json_array_size(rows) >= 25);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *text = json_array_get(json_array_get(rows, i), 0),
                     *want = json_array_get(json_array_get(rows, i), 1);
        char *out = NULL, *own = malloc(json_string_length(text) + 1);
        size_t count = 0;
        assert_non_null(own);
        memcpy(own, json_string_value(text), json_string_length(text));
        assert_int_equal(weir_unicode_lower_strip(own, json_string_length(text), &out, &count, NULL), WEIR_OK);
        if (count != json_string_length(want) || strcmp(out, json_string_value(want)) != 0)
            fail_msg("\"%s\" becomes \"%s\", not \"%s\"", json_string_value(text), out, json_string_value(want));
        free(out);
        free(own);
    }
    json_decref(root);
}

/* ---- prompts ---- */

static void see_prompt(const struct weir_gemma_bpe *tokenizer, const json_t *golden)
{
    const char *instruction = json_string_value(json_object_get(golden, "instruction"));
    const json_t *text = json_object_get(golden, "text"), *want = json_object_get(golden, "ids");
    const json_t *kept = json_object_get(golden, "kept");
    struct weir_gemma_prompt *prompt = NULL;
    struct weir_gemma_prompt_ids *ids = malloc(sizeof *ids);
    struct weir_error error = { 0 };
    assert_non_null(ids);
    if (weir_gemma_prompt_open(tokenizer, *instruction ? instruction : NULL, &prompt, &error) != WEIR_OK)
        fail_msg("%s", error.words);
    assert_int_equal(
        weir_gemma_prompt_encode(prompt, json_string_value(text), json_string_length(text), true, ids, &error),
        WEIR_OK);
    assert_int_equal(ids->count, json_array_size(want));
    assert_int_equal(ids->whole, number_of(golden, "whole"));
    for (size_t i = 0; i < ids->count; i++) assert_int_equal(ids->ids[i], json_integer_value(json_array_get(want, i)));
    assert_int_equal(ids->kept, json_array_size(kept));
    for (size_t i = 0; i < ids->kept; i++)
        assert_int_equal(i == 0 ? 0 : ids->first + i - 1, json_integer_value(json_array_get(kept, i)));
    weir_gemma_prompt_close(&prompt);
    assert_null(prompt);
    free(ids);
}

static void prompts_are_laid_out_and_kept_as_in_diffusers(void **state)
{
    (void)state;
    json_t *root = golden_load();
    struct weir_gemma_bpe *tokenizer = open_style(root, "gemma");
    const json_t *prompts = json_object_get(root, "prompts");
    assert_true(json_array_size(prompts) >= 20);
    for (size_t i = 0; i < json_array_size(prompts); i++) see_prompt(tokenizer, json_array_get(prompts, i));
    weir_gemma_bpe_close(&tokenizer);
    json_decref(root);
}

/* A negative prompt stands alone although there is an instruction, and positions 0..299 are kept of it. */
static void a_negative_prompt_has_no_instruction(void **state)
{
    (void)state;
    json_t *root = golden_load();
    struct weir_gemma_bpe *tokenizer = open_style(root, "gemma");
    struct weir_gemma_prompt *prompt = NULL;
    struct weir_gemma_prompt_ids with, without;
    assert_int_equal(weir_gemma_prompt_open(tokenizer, "Say more: ", &prompt, NULL), WEIR_OK);
    assert_string_equal(weir_gemma_prompt_instruction(prompt), "Say more: ");
    assert_int_equal(weir_gemma_prompt_encode(prompt, "", 0, true, &with, NULL), WEIR_OK);
    assert_int_equal(weir_gemma_prompt_encode(prompt, "", 0, false, &without, NULL), WEIR_OK);
    assert_int_equal(with.count, weir_gemma_prompt_instruction_ids(prompt));
    assert_int_equal(with.first, with.count - 1);
    assert_int_equal(with.kept, 2); /* <bos> and the instruction's last space */
    assert_int_equal(without.count, 1);
    assert_int_equal(without.first, 1);
    assert_int_equal(without.kept, 1);
    weir_gemma_prompt_close(&prompt);
    weir_gemma_bpe_close(&tokenizer);
    json_decref(root);
}

/* ---- a small file made here ---- */

#define ADDED(id, text)                                                                                                \
    "{\"id\": " #id ", \"content\": \"" text "\", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, "      \
    "\"normalized\": false, \"special\": true}"

static const char small_json[] =
    "{\"version\": \"1.0\", \"truncation\": {\"max_length\": 3}, \"padding\": {\"length\": 9},\n"
    " \"added_tokens\": [" ADDED(0, "<pad>") ", " ADDED(1, "<bos>") ", " ADDED(
        2,
        "<unk>") "],\n"
                 " \"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"" MARK
                 "\"},\n"
                 " \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"String\": \" \"}, \"behavior\": \"MergedWithPrevious\", "
                 "\"invert\": false},\n"
                 " \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<bos>\"}}, "
                 "{\"Sequence\": {\"id\": \"A\"}}], \"special_tokens\": {\"<bos>\": {\"id\": \"<bos>\", \"ids\": [1]}}},\n"
                 " \"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": \"<unk>\", \"ignore_merges\": false, "
                 "\"fuse_unk\": true, \"byte_fallback\": true,\n"
                 "  \"vocab\": {\"<pad>\": 0, \"<bos>\": 1, \"<unk>\": 2, \"a\": 3, \"b\": 4, \"ab\": 5, \"abab\": 6, \"" MARK
                 "\": 7},\n"
                 "  \"merges\": [\"a b\", [\"ab\", \"ab\"]]}}";

/* small_json with the first `from` in it written as `to`. */
static char *small_with(const char *from, const char *to)
{
    char *out = malloc(sizeof small_json + strlen(to));
    const char *found = strstr(small_json, from);
    assert_non_null(out);
    assert_non_null(found);
    memcpy(out, small_json, (size_t)(found - small_json));
    strcpy(out + (found - small_json), to);
    strcat(out, found + strlen(from));
    return out;
}

static struct weir_gemma_bpe *small(void)
{
    struct weir_gemma_bpe *tokenizer = NULL;
    struct weir_error error = { 0 };
    if (open_files(small_json, NULL, NULL, &tokenizer, &error) != WEIR_OK) fail_msg("%s", error.words);
    return tokenizer;
}

static enum weir_status encode(const struct weir_gemma_bpe *tokenizer, const char *text, size_t bytes,
                               struct weir_gemma_bpe_counts *counts, struct weir_error *error)
{
    int32_t ids[WEIR_GEMMA_BPE_WINDOW_MIN];
    return weir_gemma_bpe_encode(tokenizer, text, bytes, WEIR_COUNT(ids), ids, counts, error);
}

static void a_text_is_padded_and_cut_on_the_right(void **state)
{
    (void)state;
    struct weir_gemma_bpe *tokenizer = small();
    struct weir_gemma_bpe_counts counts;
    int32_t ids[17];
    ids[16] = -7;
    assert_int_equal(weir_gemma_bpe_encode(tokenizer, "ababab a?<pad>", 14, 16, ids, &counts, NULL), WEIR_OK);
    const int32_t padded[17] = { 1, 6, 5, 7, 3, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -7 };
    assert_memory_equal(ids, padded, sizeof padded);
    assert_int_equal(counts.real, 7); /* the last is the <pad> of the text */
    assert_int_equal(counts.whole, 7);
    assert_int_equal(weir_gemma_bpe_encode(tokenizer, "aaaaaaaaaaaaaaaab", 17, 16, ids, &counts, NULL), WEIR_OK);
    const int32_t cut[17] = { 1, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, -7 };
    assert_memory_equal(ids, cut, sizeof cut);
    assert_int_equal(counts.real, 16);
    assert_int_equal(counts.whole, 17);
    weir_gemma_bpe_close(&tokenizer);
}

static void the_facts_are_those_of_the_files(void **state)
{
    (void)state;
    struct weir_gemma_bpe *tokenizer = small();
    struct weir_gemma_bpe_facts facts = weir_gemma_bpe_facts(tokenizer);
    size_t bytes = 0;
    assert_int_equal(facts.id_bound, 8);
    assert_int_equal(facts.entries, 8);
    assert_int_equal(facts.pad, 0);
    assert_int_equal(facts.bos, 1);
    assert_int_equal(facts.unk, 2);
    assert_int_equal(facts.eos, -1);
    assert_int_equal(facts.before, 1);
    assert_int_equal(facts.after, 0);
    assert_memory_equal(weir_gemma_bpe_piece(tokenizer, 6, &bytes), "abab", 4);
    assert_int_equal(bytes, 4);
    assert_null(weir_gemma_bpe_piece(tokenizer, 8, &bytes));
    assert_null(weir_gemma_bpe_piece(tokenizer, -1, &bytes));
    weir_gemma_bpe_close(&tokenizer);

    char *more = small_with("}],\n \"nor", "}, " ADDED(8, "<eos>") "],\n \"nor");
    const char config[] =
        "{\"add_bos_token\": true, \"add_eos_token\": false, \"bos_token\": {\"content\": \"<eos>\"}, "
        "\"unk_token\": null, \"padding_side\": \"left\", \"model_max_length\": 1000000000000000019884624838656}";
    const char map[] = "{\"bos_token\": \"<bos>\", \"additional_special_tokens\": [\"<eos>\"]}";
    struct weir_error error = { 0 };
    if (open_files(more, config, map, &tokenizer, &error) != WEIR_OK) fail_msg("%s", error.words);
    facts = weir_gemma_bpe_facts(tokenizer);
    assert_int_equal(facts.id_bound, 9);
    assert_int_equal(facts.entries, 9);
    assert_int_equal(facts.eos, 8);
    assert_int_equal(facts.bos, 1); /* the map wins where the config has no added_tokens_decoder */
    assert_int_equal(facts.unk, -1);
    weir_gemma_bpe_close(&tokenizer);
    free(more);
}

static void bytes_that_are_no_text_are_named_by_offset(void **state)
{
    (void)state;
    struct weir_gemma_bpe *tokenizer = small();
    struct weir_gemma_prompt *prompt = NULL;
    struct weir_gemma_prompt_ids out;
    const struct {
        const char *text;
        size_t bytes;
        const char *offset;
    } rows[] = { { "\x80", 1, "offset 0" },          { "ab\xc3", 3, "offset 2" },
                 { "ab\xc3(", 4, "offset 2" },       { "\xc0\xaf", 2, "offset 0" },
                 { "a\xed\xa0\x80", 4, "offset 1" }, { "abc\xf4\x90\x80\x80", 7, "offset 3" },
                 { "a\0b", 3, "NUL at offset 1" } };
    assert_int_equal(weir_gemma_prompt_open(tokenizer, "a ", &prompt, NULL), WEIR_OK);
    for (size_t i = 0; i < WEIR_COUNT(rows); i++) {
        struct weir_gemma_bpe_counts counts;
        struct weir_error error = { 0 };
        char *text = malloc(rows[i].bytes);
        assert_non_null(text);
        memcpy(text, rows[i].text, rows[i].bytes);
        assert_int_equal(encode(tokenizer, text, rows[i].bytes, &counts, &error), WEIR_BAD_ARGUMENT);
        if (!strstr(error.words, rows[i].offset)) fail_msg("row %zu: %s", i, error.words);
        error.words[0] = 0;
        assert_int_equal(weir_gemma_prompt_encode(prompt, text, rows[i].bytes, true, &out, &error), WEIR_BAD_ARGUMENT);
        if (!strstr(error.words, rows[i].offset)) fail_msg("row %zu: %s", i, error.words);
        free(text);
    }
    weir_gemma_prompt_close(&prompt);
    weir_gemma_bpe_close(&tokenizer);
}

/* ---- limits ---- */

static void a_text_has_a_limit_on_both_sides(void **state)
{
    (void)state;
    struct weir_gemma_bpe *tokenizer = small();
    struct weir_gemma_prompt *prompt = NULL;
    struct weir_gemma_bpe_counts counts;
    struct weir_gemma_prompt_ids out;
    struct weir_error error;
    char *text = malloc(WEIR_GEMMA_BPE_TEXT_BYTES_MAX + 1);
    assert_non_null(text);
    memset(text, ' ', WEIR_GEMMA_BPE_TEXT_BYTES_MAX + 1);
    assert_int_equal(encode(tokenizer, text, WEIR_GEMMA_BPE_TEXT_BYTES_MAX, &counts, &error), WEIR_OK);
    assert_int_equal(counts.whole, WEIR_GEMMA_BPE_TEXT_BYTES_MAX + 1);
    assert_int_equal(encode(tokenizer, text, WEIR_GEMMA_BPE_TEXT_BYTES_MAX + 1, &counts, &error), WEIR_TOO_LARGE);
    assert_non_null(strstr(error.words, "65536"));

    /* The longest prompt there is, which grows by half when lowered, behind the longest instruction. */
    char *instruction = calloc(1, WEIR_GEMMA_INSTRUCTION_BYTES_MAX + 2);
    assert_non_null(instruction);
    for (size_t at = 0; at < WEIR_GEMMA_INSTRUCTION_BYTES_MAX; at += 16)
        memcpy(instruction + at, "????????????????", 16);
    assert_int_equal(weir_gemma_prompt_open(tokenizer, instruction, &prompt, &error), WEIR_OK); /* one <unk> */
    for (size_t at = 0; at < WEIR_GEMMA_PROMPT_TEXT_BYTES_MAX; at += 2) memcpy(text + at, "\xc8\xba", 2);
    assert_int_equal(weir_gemma_prompt_encode(prompt, text, WEIR_GEMMA_PROMPT_TEXT_BYTES_MAX, true, &out, &error),
                     WEIR_OK);
    assert_int_equal(out.count, 2);
    assert_int_equal(weir_gemma_prompt_encode(prompt, text, WEIR_GEMMA_PROMPT_TEXT_BYTES_MAX + 1, true, &out, &error),
                     WEIR_TOO_LARGE);
    weir_gemma_prompt_close(&prompt);
    instruction[WEIR_GEMMA_INSTRUCTION_BYTES_MAX] = '?';
    assert_int_equal(weir_gemma_prompt_open(tokenizer, instruction, &prompt, &error), WEIR_TOO_LARGE);
    free(instruction);
    free(text);
    weir_gemma_bpe_close(&tokenizer);
}

static void a_text_that_grows_is_refused_before_it_fills_the_memory(void **state)
{
    (void)state;
    char *json =
        small_with("{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"" MARK "\"}",
                   "{\"type\": \"Sequence\", \"normalizers\": ["
                   "{\"type\": \"Replace\", \"pattern\": {\"String\": \"a\"}, \"content\": \"aaaaaaaaaaaaaaaa\"}, "
                   "{\"type\": \"Replace\", \"pattern\": {\"String\": \"a\"}, \"content\": \"aaaaaaaaaaaaaaaa\"}, "
                   "{\"type\": \"Replace\", \"pattern\": {\"String\": \"a\"}, \"content\": \"aaaaaaaaaaaaaaaa\"}]}");
    struct weir_gemma_bpe *tokenizer = NULL;
    struct weir_gemma_bpe_counts counts;
    struct weir_error error = { 0 };
    char text[257];
    if (open_files(json, NULL, NULL, &tokenizer, &error) != WEIR_OK) fail_msg("%s", error.words);
    memset(text, 'a', sizeof text);
    assert_int_equal(encode(tokenizer, text, 256, &counts, &error), WEIR_OK);
    assert_int_equal(counts.whole, (1 << 20) + 1);
    assert_int_equal(encode(tokenizer, text, 257, &counts, &error), WEIR_TOO_LARGE);
    weir_gemma_bpe_close(&tokenizer);
    free(json);
}

static void an_instruction_has_limits(void **state)
{
    (void)state;
    struct weir_gemma_bpe *tokenizer = small();
    struct weir_gemma_prompt *prompt = NULL;
    struct weir_error error = { 0 };
    char text[WEIR_GEMMA_INSTRUCTION_IDS_MAX + 1];
    memset(text, 'a', sizeof text);
    text[WEIR_GEMMA_INSTRUCTION_IDS_MAX] = '\0';
    assert_int_equal(weir_gemma_prompt_open(tokenizer, text, &prompt, &error), WEIR_TOO_LARGE);
    text[WEIR_GEMMA_INSTRUCTION_IDS_MAX - 1] = '\0';
    assert_int_equal(weir_gemma_prompt_open(tokenizer, text, &prompt, &error), WEIR_OK);
    assert_int_equal(weir_gemma_prompt_instruction_ids(prompt), WEIR_GEMMA_INSTRUCTION_IDS_MAX);
    weir_gemma_prompt_close(&prompt);
    assert_int_equal(weir_gemma_prompt_open(tokenizer, "", &prompt, &error), WEIR_BAD_ARGUMENT);
    assert_int_equal(weir_gemma_prompt_open(tokenizer, "a\xff", &prompt, &error), WEIR_BAD_ARGUMENT);
    assert_int_equal(weir_gemma_prompt_open(tokenizer, NULL, &prompt, &error), WEIR_OK); /* none of its own */
    assert_int_equal(weir_gemma_prompt_instruction_ids(prompt), 0);
    assert_null(weir_gemma_prompt_instruction(prompt));
    weir_gemma_prompt_close(&prompt);
    weir_gemma_bpe_close(&tokenizer);

    char *bare = small_with("\"special_tokens\": {\"<bos>\": {\"id\": \"<bos>\", \"ids\": [1]}}",
                            "\"special_tokens\": {\"<bos>\": {\"id\": \"<bos>\", \"ids\": []}}");
    assert_int_equal(open_files(bare, NULL, NULL, &tokenizer, &error), WEIR_OK);
    assert_int_equal(weir_gemma_prompt_open(tokenizer, "a ", &prompt, &error), WEIR_UNSUPPORTED);
    weir_gemma_bpe_close(&tokenizer);
    free(bare);
}

/* ---- files nobody vouches for ---- */

struct row {
    const char *from, *to;
    enum weir_status status;
    const char *words;
};

static void see_rows(const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct weir_gemma_bpe *tokenizer = NULL;
        struct weir_error error = { 0 };
        char *json = small_with(rows[i].from, rows[i].to);
        const enum weir_status status = open_files(json, NULL, NULL, &tokenizer, &error);
        if (status != rows[i].status || !strstr(error.words, rows[i].words))
            fail_msg("row %zu, \"%s\": %s: %s", i, rows[i].to, weir_status_name(status), error.words);
        assert_true((status == WEIR_OK) == (tokenizer != NULL));
        if (status != WEIR_OK) assert_memory_equal(error.words, "tokenizer/tokenizer.json", 24);
        weir_gemma_bpe_close(&tokenizer);
        free(json);
    }
}

static void a_bad_model_is_refused_and_named(void **state)
{
    (void)state;
    static const struct row rows[] = {
        { "\"BPE\"", "\"Unigram\"", WEIR_UNSUPPORTED, "model.type" },
        { "\"type\": \"BPE\", ", "", WEIR_OK, "" },
        { "\"BPE\"", "3", WEIR_UNSUPPORTED, "model.type" },
        { "\"dropout\": null", "\"dropout\": 0.1", WEIR_UNSUPPORTED, "model.dropout" },
        { "\"dropout\": null", "\"dropout\": 0.0", WEIR_OK, "" },
        { "\"dropout\": null", "\"end_of_word_suffix\": \"</w>\"", WEIR_UNSUPPORTED, "end_of_word_suffix" },
        { "\"dropout\": null", "\"continuing_subword_prefix\": \"##\"", WEIR_UNSUPPORTED, "continuing_subword_prefix" },
        { "\"dropout\": null", "\"continuing_subword_prefix\": \"\"", WEIR_OK, "" },
        { "\"ignore_merges\": false", "\"ignore_merges\": true", WEIR_UNSUPPORTED, "model.ignore_merges" },
        { "\"byte_fallback\": true", "\"byte_fallback\": 1", WEIR_BAD_MODEL, "model.byte_fallback" },
        { "\"fuse_unk\": true", "\"fuse_unk\": \"yes\"", WEIR_BAD_MODEL, "model.fuse_unk" },
        { "\"unk_token\": \"<unk>\"", "\"unk_token\": 3", WEIR_BAD_MODEL, "model.unk_token" },
        { "\"unk_token\": \"<unk>\"", "\"unk_token\": \"<gone>\"", WEIR_BAD_MODEL, "model.unk_token" },
        { "\"unk_token\": \"<unk>\"", "\"unk_token\": null", WEIR_OK, "" },
        { "\"model\"", "\"models\"", WEIR_BAD_MODEL, "model is missing" },
        { "\"vocab\"", "\"vocabs\"", WEIR_BAD_MODEL, "model.vocab" },
        { "\"vocab\"", "\"voc\\u0061b\"", WEIR_OK, "" },
        { "\"vocab\": {", "\"vocab\": {\"x\": 9}, \"vocab\": {", WEIR_BAD_MODEL, "vocab" },
        { "\"vocab\": {", "\"vocab\": [], \"other\": {", WEIR_BAD_MODEL, "model.vocab" },
        { "\"vocab\": {", "\"vocab\": {}, \"other\": {", WEIR_BAD_MODEL, "model.vocab is empty" },
        { "\"a\": 3", "\"a\": -3", WEIR_BAD_MODEL, "entry 4" },
        { "\"a\": 3", "\"a\": 3.0", WEIR_BAD_MODEL, "entry 4" },
        { "\"a\": 3", "\"a\": 03", WEIR_BAD_MODEL, "entry 4" },
        { "\"a\": 3", "\"a\": \"3\"", WEIR_BAD_MODEL, "entry 4" },
        { "\"a\": 3", "\"a\": 524288", WEIR_BAD_MODEL, "entry 4" },
        { "\"a\": 3", "\"a\": 99999999999999999999", WEIR_BAD_MODEL, "entry 4" },
        { "\"a\": 3", "\"a\": 524287", WEIR_OK, "" },
        { "\"a\": 3", "\"a\" 3", WEIR_BAD_MODEL, "model.vocab, entry 4" },
        { "\"a\": 3", "\"a\": 3, \"a\": 3", WEIR_BAD_MODEL, "\"a\" twice" },
        { "\"a\": 3", "\"\\u0061\": 3", WEIR_OK, "" },
        { "\"a\": 3", "\"a\": 3, \"\\ud83d\\ude42\": 8, \"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0000\": 9", WEIR_OK, "" },
        { "\"a\": 3", "\"a\": 3, \"\\ud83d\": 8", WEIR_BAD_MODEL, "surrogate" },
        { "\"a\": 3", "\"a\": 3, \"\\ud83dx\": 8", WEIR_BAD_MODEL, "surrogate" },
        { "\"a\": 3", "\"a\": 3, \"\\ud83d\\u0041\": 8", WEIR_BAD_MODEL, "surrogate" },
        { "\"a\": 3", "\"a\": 3, \"\\x\": 8", WEIR_BAD_MODEL, "escape" },
        { "\"a\": 3", "\"a\": 3, \"\\u12g4\": 8", WEIR_BAD_MODEL, "hex digits" },
        { "\"a\": 3", "\"a\": 3, \"\xff\": 8", WEIR_BAD_MODEL, "UTF-8" },
        { "\"a\": 3", "\"a\": 3, \"\n\": 8", WEIR_BAD_MODEL, "control character" },
        { "\"a\": 3", "\"a\": 3, ", WEIR_BAD_MODEL, "entry 5" },
        { "\"merges\"", "\"merge\"", WEIR_BAD_MODEL, "model.merges" },
        { "\"merges\": [", "\"merges\": {}, \"other\": [", WEIR_BAD_MODEL, "model.merges" },
        { "\"a b\"", "\"ab\"", WEIR_BAD_MODEL, "model.merges, entry 1" },
        { "\"a b\"", "\"a  b\"", WEIR_BAD_MODEL, "model.merges, entry 1" },
        { "\"a b\"", "3", WEIR_BAD_MODEL, "model.merges, entry 1" },
        { "\"a b\"", "\"x b\"", WEIR_BAD_MODEL, "left token" },
        { "\"a b\"", "\"a x\"", WEIR_BAD_MODEL, "right token" },
        { "\"a b\"", "\"b a\"", WEIR_BAD_MODEL, "joined token" },
        { "[\"ab\", \"ab\"]", "[\"ab\"]", WEIR_BAD_MODEL, "model.merges, entry 2" },
        { "[\"ab\", \"ab\"]", "[\"ab\", \"ab\", \"ab\"]", WEIR_BAD_MODEL, "model.merges, entry 2" },
        { "[\"ab\", \"ab\"]", "[\"ab\", 3]", WEIR_BAD_MODEL, "model.merges, entry 2" },
        { "[\"ab\", \"ab\"]", "", WEIR_BAD_MODEL, "model.merges, entry 2" },
        { "\"a b\", [\"ab\", \"ab\"]", "", WEIR_OK, "" },
        { "}}", "}", WEIR_BAD_MODEL, "line 5, in post_processor" },
        { "\"abab\": 6, \"" MARK "\": 7},\n  ", "\n\n\"abab\": 6, \"" MARK "\": 7},\n  \"other\": nul, ",
          WEIR_BAD_MODEL, "line 10, in model" }, /* lines are counted in the tables, too */
        { "\"merges\"", "\"x\": [[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]], \"merges\"", WEIR_TOO_LARGE, "nested" },
    };
    see_rows(rows, WEIR_COUNT(rows));
}

static void a_bad_step_is_refused_and_named(void **state)
{
    (void)state;
    static const struct row rows[] = {
        { "\"type\": \"Replace\"", "\"type\": \"NFKC\"", WEIR_UNSUPPORTED, "normalizer is of type \"NFKC\"" },
        { "\"type\": \"Replace\"", "\"type\": 3", WEIR_BAD_MODEL, "normalizer" },
        { "\"type\": \"Replace\"", "\"type\": \"Sequence\"", WEIR_BAD_MODEL, "normalizer.normalizers" },
        { "\"type\": \"Replace\"", "\"type\": \"Prepend\"", WEIR_BAD_MODEL, "normalizer.prepend" },
        { "\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}",
          "\"type\": \"Replace\", \"pattern\": {\"Regex\": \" \"}", WEIR_UNSUPPORTED, "normalizer.pattern" },
        { "\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}",
          "\"type\": \"Replace\", \"pattern\": {\"String\": \"\"}", WEIR_UNSUPPORTED, "normalizer.pattern" },
        { "\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}", "\"type\": \"Replace\"", WEIR_BAD_MODEL,
          "normalizer.pattern" },
        { "\"content\": \"" MARK "\"", "\"content\": \"123456789012345678901234567890123\"", WEIR_UNSUPPORTED,
          "normalizer.content" },
        { "\"content\": \"" MARK "\"", "\"content\": \"12345678901234567890123456789012\"", WEIR_OK, "" },
        { "\"type\": \"Split\"", "\"type\": \"Metaspace\"", WEIR_UNSUPPORTED,
          "pre_tokenizer is of type \"Metaspace\"" },
        { "\"type\": \"Split\"", "\"type\": \"Sequence\"", WEIR_BAD_MODEL, "pre_tokenizer.pretokenizers" },
        { "\"type\": \"Split\", \"pattern\": {\"String\": \" \"}",
          "\"type\": \"Split\", \"pattern\": {\"String\": \"a\"}", WEIR_UNSUPPORTED, "pre_tokenizer.pattern" },
        { "\"type\": \"Split\", \"pattern\": {\"String\": \" \"}",
          "\"type\": \"Split\", \"pattern\": {\"Regex\": \"a\"}", WEIR_UNSUPPORTED, "pre_tokenizer.pattern" },
        { "\"type\": \"Split\", \"pattern\": {\"String\": \" \"}", "\"type\": \"Split\"", WEIR_BAD_MODEL,
          "pre_tokenizer.pattern" },
        { "\"invert\": false", "\"invert\": true", WEIR_UNSUPPORTED, "pre_tokenizer.invert" },
        { "\"MergedWithPrevious\"", "\"Isolated\"", WEIR_OK, "" },
        { "\"MergedWithPrevious\"", "3", WEIR_BAD_MODEL, "pre_tokenizer.behavior" },
        { "\"content\": \"" MARK "\"},\n \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"String\": \" \"}, "
          "\"behavior\": \"MergedWithPrevious\"",
          "\"content\": \" " MARK "\"},\n \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"String\": \" \"}, "
          "\"behavior\": \"Isolated\"",
          WEIR_UNSUPPORTED, "pre_tokenizer.behavior" },
        { "\"TemplateProcessing\"", "\"RobertaProcessing\"", WEIR_UNSUPPORTED, "post_processor is of type" },
        { "{\"type\": \"TemplateProcessing\"", "{\"types\": \"TemplateProcessing\"", WEIR_BAD_MODEL, "post_processor" },
        { "\"single\"", "\"double\"", WEIR_BAD_MODEL, "post_processor.single" },
        { "{\"Sequence\": {\"id\": \"A\"}}", "{\"Sequence\": {\"id\": \"B\"}}", WEIR_BAD_MODEL,
          "post_processor.single" },
        { ", {\"Sequence\": {\"id\": \"A\"}}", "", WEIR_BAD_MODEL, "post_processor.single" },
        { "{\"Sequence\": {\"id\": \"A\"}}", "{\"Sequence\": {\"id\": \"A\"}}, {\"Sequence\": {\"id\": \"A\"}}",
          WEIR_BAD_MODEL, "post_processor.single" },
        { "\"ids\": [1]", "\"ids\": [8]", WEIR_BAD_MODEL, "post_processor.special_tokens" },
        { "\"ids\": [1]", "\"ids\": [-1]", WEIR_BAD_MODEL, "post_processor.special_tokens" },
        { "\"ids\": [1]", "\"ids\": 1", WEIR_BAD_MODEL, "post_processor.special_tokens" },
        { "\"ids\": [1]", "\"ids\": [1, 1, 1, 1, 1, 1, 1, 1]", WEIR_OK, "" },
        { "\"ids\": [1]", "\"ids\": [1, 1, 1, 1, 1, 1, 1, 1, 1]", WEIR_TOO_LARGE, "post_processor" },
        { "{\"SpecialToken\": {\"id\": \"<bos>\"}}", "{\"SpecialToken\": {\"id\": \"<eos>\"}}", WEIR_BAD_MODEL,
          "post_processor.special_tokens" },
    };
    see_rows(rows, WEIR_COUNT(rows));
}

static void a_bad_added_token_is_refused_and_named(void **state)
{
    (void)state;
    static const struct row rows[] = {
        { "\"single_word\": false", "\"single_word\": true", WEIR_UNSUPPORTED, "\"<pad>\" has single_word" },
        { "\"lstrip\": false", "\"lstrip\": true", WEIR_UNSUPPORTED, "\"<pad>\" has lstrip" },
        { "\"rstrip\": false", "\"rstrip\": true", WEIR_UNSUPPORTED, "\"<pad>\" has rstrip" },
        { "\"normalized\": false", "\"normalized\": 1", WEIR_BAD_MODEL, "\"<pad>\"" },
        { "\"content\": \"<pad>\"", "\"content\": \"\"", WEIR_OK, "" },
        { "\"content\": \"<pad>\"", "\"content\": \"<bos>\"", WEIR_BAD_MODEL, "\"<bos>\" has not the id 1" },
        { "\"content\": \"<pad>\"", "\"contents\": \"<pad>\"", WEIR_BAD_MODEL, "added_tokens" },
        { "{\"id\": 0,", "{\"id\": 5,", WEIR_BAD_MODEL, "\"<pad>\" has not the id 0" },
        { "{\"id\": 0,", "{", WEIR_BAD_MODEL, "\"<pad>\" has not the id 0" },
        { "{\"id\": 0, \"content\": \"<pad>\"", "{\"id\": 1, \"content\": \"<bos>\"", WEIR_BAD_MODEL,
          "\"<bos>\" is there twice" },
        { "{\"id\": 0, \"content\": \"<pad>\"", "{\"id\": 9, \"content\": \"new\"", WEIR_BAD_MODEL,
          "\"new\" has not the id 8" },
        { "\"added_tokens\": [", "\"added_tokens\": 3, \"other\": [", WEIR_BAD_MODEL, "added_tokens" },
        { "\"added_tokens\": [", "\"added_tokens\": [3, ", WEIR_BAD_MODEL, "added_tokens" },
        { "\"<pad>\": 0", "\"<padding>\": 0", WEIR_BAD_MODEL, "\"<pad>\" has not the id 8" },
    };
    see_rows(rows, WEIR_COUNT(rows));
}

static void a_contradicting_config_is_refused_and_named(void **state)
{
    (void)state;
    static const struct {
        const char *config, *map;
        enum weir_status status;
        const char *words;
    } rows[] = {
        { "{", NULL, WEIR_BAD_MODEL, "tokenizer_config.json" },
        { NULL, "[]", WEIR_BAD_MODEL, "special_tokens_map.json" },
        { "{\"add_bos_token\": false}", NULL, WEIR_UNSUPPORTED, "add_bos_token" },
        { "{\"add_eos_token\": true}", NULL, WEIR_UNSUPPORTED, "add_eos_token" },
        { "{\"add_bos_token\": true, \"add_eos_token\": false}", NULL, WEIR_OK, "" },
        { "{\"bos_token\": \"<unk>\", \"add_bos_token\": true}", NULL, WEIR_UNSUPPORTED, "add_bos_token" },
        { "{\"split_special_tokens\": true}", NULL, WEIR_UNSUPPORTED, "split_special_tokens" },
        { "{\"truncation_side\": \"left\"}", NULL, WEIR_UNSUPPORTED, "truncation_side" },
        { "{\"padding_side\": \"left\"}", NULL, WEIR_OK, "" },
        { "{\"pad_token\": \"<new>\"}", NULL, WEIR_UNSUPPORTED, "pad_token" },
        { "{\"pad_token\": {\"contents\": \"<pad>\"}}", NULL, WEIR_BAD_MODEL, "pad_token" },
        { "{\"pad_token\": {\"content\": \"<pad>\", \"lstrip\": true}}", NULL, WEIR_UNSUPPORTED, "pad_token" },
        { "{\"pad_token\": null}", NULL, WEIR_BAD_MODEL, "pad token" },
        { "{\"mask_token\": \"<mask>\"}", NULL, WEIR_UNSUPPORTED, "mask_token" },
        { NULL, "{\"mask_token\": \"<mask>\"}", WEIR_UNSUPPORTED, "special_tokens_map.json: mask_token" },
        { "{\"added_tokens_decoder\": {}}", "{\"mask_token\": \"<mask>\"}", WEIR_OK, "" },
        { "{\"extra_special_tokens\": {\"x\": \"<y>\"}}", NULL, WEIR_UNSUPPORTED, "extra_special_tokens" },
        { "{\"additional_special_tokens\": [3]}", NULL, WEIR_BAD_MODEL, "additional_special_tokens" },
        { "{\"additional_special_tokens\": [\"<unk>\"]}", NULL, WEIR_OK, "" },
        { "{\"added_tokens_decoder\": {\"0\": {\"content\": \"<pad>\"}, \"1\": {\"content\": \"<bos>\"}}}", NULL,
          WEIR_OK, "" },
        { "{\"added_tokens_decoder\": {\"7\": {\"content\": \"<pad>\"}}}", NULL, WEIR_UNSUPPORTED,
          "added_tokens_decoder" },
        { "{\"added_tokens_decoder\": {\"8\": {\"content\": \"<new>\"}}}", NULL, WEIR_UNSUPPORTED,
          "added_tokens_decoder" },
        { "{\"added_tokens_decoder\": {\"8\": 3}}", NULL, WEIR_BAD_MODEL, "added_tokens_decoder" },
    };
    for (size_t i = 0; i < WEIR_COUNT(rows); i++) {
        struct weir_gemma_bpe *tokenizer = NULL;
        struct weir_error error = { 0 };
        const enum weir_status status = open_files(small_json, rows[i].config, rows[i].map, &tokenizer, &error);
        if (status != rows[i].status || !strstr(error.words, rows[i].words))
            fail_msg("row %zu: %s: %s", i, weir_status_name(status), error.words);
        assert_true((status == WEIR_OK) == (tokenizer != NULL));
        weir_gemma_bpe_close(&tokenizer);
    }
}

/* A file cut anywhere is refused; none reads past its end. */
static void a_file_cut_short_is_refused_wherever_it_is_cut(void **state)
{
    (void)state;
    for (size_t count = 0; count < sizeof small_json - 1; count++) {
        struct weir_gemma_bpe *tokenizer = NULL;
        char *cut = malloc(count + (count == 0));
        assert_non_null(cut);
        memcpy(cut, small_json, count);
        const struct weir_gemma_bpe_files files = { .tokenizer_json = { cut, count }, .label = "tokenizer" };
        assert_int_equal(weir_gemma_bpe_open(&files, &tokenizer, NULL), WEIR_BAD_MODEL);
        assert_null(tokenizer);
        free(cut);
    }
}

static void tokens_have_a_limit_on_both_sides(void **state)
{
    (void)state;
    for (size_t bytes = WEIR_GEMMA_BPE_TOKEN_BYTES_MAX; bytes <= WEIR_GEMMA_BPE_TOKEN_BYTES_MAX + 1; bytes++) {
        const bool fits = bytes <= WEIR_GEMMA_BPE_TOKEN_BYTES_MAX;
        char token[WEIR_GEMMA_BPE_TOKEN_BYTES_MAX + 2] = "", entry[1200];
        struct weir_gemma_bpe *tokenizer = NULL;
        struct weir_error error;
        memset(token, 'q', bytes);
        snprintf(entry, sizeof entry, "\"vocab\": {\"%s\": 8, ", token);
        char *json = small_with("\"vocab\": {", entry);
        assert_int_equal(open_files(json, NULL, NULL, &tokenizer, &error), fits ? WEIR_OK : WEIR_BAD_MODEL);
        weir_gemma_bpe_close(&tokenizer);
        free(json);
        snprintf(entry, sizeof entry, "\"added_tokens\": [{\"id\": 8, \"content\": \"%s\"}, ", token);
        json = small_with("\"added_tokens\": [", entry);
        assert_int_equal(open_files(json, NULL, NULL, &tokenizer, &error), fits ? WEIR_OK : WEIR_TOO_LARGE);
        weir_gemma_bpe_close(&tokenizer);
        free(json);
    }
}

/* `count` times `text`, in which a %zu is the number of the time, between small_json's `from` and what follows it. */
static char *small_with_many(const char *from, const char *format, size_t count)
{
    const size_t room = count * (strlen(format) + 16);
    char *entries = malloc(room + strlen(from) + 1);
    assert_non_null(entries);
    size_t at = (size_t)sprintf(entries, "%s", from);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    for (size_t i = 0; i < count; i++) at += (size_t)sprintf(entries + at, format, i);
#pragma GCC diagnostic pop
    char *json = small_with(from, entries);
    free(entries);
    return json;
}

static void tables_have_a_limit_on_both_sides(void **state)
{
    (void)state;
    static const struct {
        const char *from, *format;
        size_t most;
    } rows[] = { { "\"vocab\": {", "\"t%zu\": 9, ", WEIR_GEMMA_BPE_VOCAB_MAX - 8 },
                 { "\"merges\": [", "\"a b\", ", WEIR_GEMMA_BPE_MERGES_MAX - 2 },
                 { "\"added_tokens\": [", "{\"content\": \"\"}, ", WEIR_GEMMA_BPE_ADDED_MAX - 3 } };
    for (size_t i = 0; i < WEIR_COUNT(rows); i++) {
        for (size_t count = rows[i].most; count <= rows[i].most + 1; count++) {
            struct weir_gemma_bpe *tokenizer = NULL;
            struct weir_error error = { 0 };
            char *json = small_with_many(rows[i].from, rows[i].format, count);
            const enum weir_status want = count > rows[i].most ? WEIR_TOO_LARGE : WEIR_OK;
            if (open_files(json, NULL, NULL, &tokenizer, &error) != want) fail_msg("row %zu: %s", i, error.words);
            weir_gemma_bpe_close(&tokenizer);
            free(json);
        }
    }
    const struct weir_gemma_bpe_files files = { .tokenizer_json = { "{}", WEIR_GEMMA_BPE_FILE_BYTES_MAX + 1 } };
    struct weir_gemma_bpe *tokenizer = NULL;
    assert_int_equal(weir_gemma_bpe_open(&files, &tokenizer, NULL), WEIR_TOO_LARGE);
}

/* ---- of Gemma's size ---- */

static double cpu_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
enum { LETTER_COUNT = 63, GEMMA_ENTRIES = 256000, GEMMA_MERGES = 580604 };

/* All words of up to three letters, merged in all ways, and fillers: 256,000 entries, 580,604 merges. */
static char *large_json(void)
{
    char *json = malloc((size_t)24 << 20);
    assert_non_null(json);
    const char *end = strstr(small_json, "\"merges\"");
    char *at = stpcpy(json, small_json);
    at = strstr(json, "\"a\": 3"); /* after the specials */
    assert_non_null(at);
    int id = 3, merges = 0;
    for (int i = 0; i < LETTER_COUNT; i++) at += sprintf(at, "\"%c\": %d, ", LETTERS[i], id++);
    for (int i = 0; i < LETTER_COUNT * LETTER_COUNT; i++)
        at += sprintf(at, "\"%c%c\": %d, ", LETTERS[i / LETTER_COUNT], LETTERS[i % LETTER_COUNT], id++);
    for (int i = 0; i < LETTER_COUNT * LETTER_COUNT * LETTER_COUNT; i++)
        at += sprintf(at, "\"%c%c%c\": %d, ", LETTERS[i / LETTER_COUNT / LETTER_COUNT],
                      LETTERS[i / LETTER_COUNT % LETTER_COUNT], LETTERS[i % LETTER_COUNT], id++);
    while (id < GEMMA_ENTRIES - 1) at += sprintf(at, "\"<filler%d>\": %d, ", id, id), id++;
    at += sprintf(at, "\"" MARK "\": %d},\n  \"merges\": [", id);
    for (int i = 0; merges < GEMMA_MERGES; i = (i + 1) % (LETTER_COUNT * LETTER_COUNT * LETTER_COUNT)) {
        const char a = LETTERS[i / LETTER_COUNT / LETTER_COUNT], b = LETTERS[i / LETTER_COUNT % LETTER_COUNT];
        const char c = LETTERS[i % LETTER_COUNT];
        at += sprintf(at, "%s\"%c %c%c\", [\"%c%c\", \"%c\"]", merges ? ", " : "", a, b, c, a, b, c);
        merges += 2;
        if (c == 'a' && merges < GEMMA_MERGES - 1) at += sprintf(at, ", \"%c %c\"", a, b), merges++;
    }
    assert_int_equal(merges, GEMMA_MERGES);
    assert_non_null(end);
    strcpy(at, "]}}");
    return json;
}

/* Opening takes a second of this thread at most, a prompt of 2 kB a millisecond. What has Gemma's ids but not its texts
 * gets no instruction by chance: it is refused, until one is given. */
static void a_file_of_gemmas_size_is_read_in_a_second(void **state)
{
    (void)state;
    char *json = large_json(), text[2001];
    struct weir_gemma_bpe *tokenizer = NULL;
    struct weir_gemma_prompt *prompt = NULL;
    struct weir_gemma_prompt_ids ids;
    struct weir_error error = { 0 };
    double start = cpu_ms(), best = 1e9;
    if (open_files(json, NULL, NULL, &tokenizer, &error) != WEIR_OK) fail_msg("%s", error.words);
    const double open_ms = cpu_ms() - start;
    const struct weir_gemma_bpe_facts facts = weir_gemma_bpe_facts(tokenizer);
    assert_int_equal(facts.id_bound, GEMMA_ENTRIES);
    assert_int_equal(facts.entries, GEMMA_ENTRIES);
    assert_int_equal(weir_gemma_prompt_open(tokenizer, NULL, &prompt, &error), WEIR_UNSUPPORTED);
    assert_non_null(strstr(error.words, "weir.json"));
    assert_int_equal(weir_gemma_prompt_open(tokenizer, "Say more: ", &prompt, &error), WEIR_OK);
    for (size_t i = 0; i < sizeof text; i++) text[i] = i % 7 == 6 ? ' ' : LETTERS[(i * i + i / 9) % 26];
    for (int run = 0; run < 10; run++) {
        start = cpu_ms();
        assert_int_equal(weir_gemma_prompt_encode(prompt, text, 2000, true, &ids, &error), WEIR_OK);
        if (cpu_ms() - start < best) best = cpu_ms() - start;
    }
    print_message("%zu bytes opened in %.0f ms, a prompt of 2,000 bytes encoded in %.3f ms\n", strlen(json), open_ms,
                  best);
    assert_true(open_ms <= 1000 * SLACK);
    assert_true(best <= SLACK);
    weir_gemma_prompt_close(&prompt);
    weir_gemma_bpe_close(&tokenizer);
    free(json);
}

static double milliseconds_of(const struct weir_gemma_bpe *tokenizer, const char *text, size_t bytes)
{
    double best = 1e9;
    for (int run = 0; run < 10; run++) {
        struct weir_gemma_bpe_counts counts;
        const double start = cpu_ms();
        assert_int_equal(encode(tokenizer, text, bytes, &counts, NULL), WEIR_OK);
        if (cpu_ms() - start < best) best = cpu_ms() - start;
    }
    return best;
}

/* 8 KiB that merge all the way up, or that are nothing but beginnings of added tokens, take 8 ms at most, and four
 * times as much no more than n log n says. */
static void a_text_without_end_costs_n_log_n(void **state)
{
    (void)state;
    enum { SHORT = 8192, LONG = 4 * SHORT };
    static const char *const units[] = { "h", "ha", " ", "\n", "<", "</" };
    json_t *root = golden_load();
    struct weir_gemma_bpe *tokenizer = open_style(root, "gemma");
    char *text = malloc(LONG);
    assert_non_null(text);
    for (size_t unit = 0; unit < WEIR_COUNT(units); unit++) {
        for (size_t i = 0; i < LONG; i++) text[i] = units[unit][i % strlen(units[unit])];
        const double small_ms = milliseconds_of(tokenizer, text, SHORT);
        const double large_ms = milliseconds_of(tokenizer, text, LONG);
        print_message("%d bytes: %.2f ms, %d bytes: %.2f ms\n", SHORT, small_ms, LONG, large_ms);
        assert_true(small_ms <= 8 * SLACK);
        assert_true(large_ms <= 10 * small_ms + SLACK);
    }
    free(text);
    weir_gemma_bpe_close(&tokenizer);
    json_decref(root);
}

/* ---- in a model's folder ---- */

static enum weir_status open_folder(struct scratch *scratch, struct weir_gemma_bpe **out, struct weir_error *error)
{
    struct weir_model_dir *model = NULL;
    assert_int_equal(weir_model_dir_open(scratch->path, NULL, &model, error), WEIR_OK);
    const enum weir_status status = weir_gemma_folder_open(model, "tokenizer", out, error);
    weir_model_dir_close(&model);
    return status;
}

static void a_folder_is_read_by_either_name_of_the_class(void **state)
{
    (void)state;
    static const char *const classes[] = { "GemmaTokenizer", "GemmaTokenizerFast", "CLIPTokenizer" };
    for (size_t i = 0; i < WEIR_COUNT(classes); i++) {
        struct scratch scratch = scratch_begin();
        struct weir_gemma_bpe *tokenizer = NULL;
        struct weir_error error = { 0 };
        char index[160];
        snprintf(index, sizeof index, "{\"_class_name\": \"SanaPipeline\", \"tokenizer\": [\"transformers\", \"%s\"]}",
                 classes[i]);
        scratch_text(&scratch, "model_index.json", index);
        scratch_folder(&scratch, "tokenizer");
        const enum weir_status known = i < 2 ? WEIR_NOT_FOUND : WEIR_BAD_MODEL;
        assert_int_equal(open_folder(&scratch, &tokenizer, &error), known);
        assert_non_null(strstr(error.words, i < 2 ? "tokenizer.json" : "CLIPTokenizer"));
        scratch_text(&scratch, "tokenizer/tokenizer.json", small_json);
        assert_int_equal(open_folder(&scratch, &tokenizer, &error), i < 2 ? WEIR_OK : WEIR_BAD_MODEL);
        weir_gemma_bpe_close(&tokenizer);
        scratch_text(&scratch, "tokenizer/tokenizer_config.json", "{\"add_eos_token\": true}");
        assert_int_equal(open_folder(&scratch, &tokenizer, &error), i < 2 ? WEIR_UNSUPPORTED : WEIR_BAD_MODEL);
        scratch_text(&scratch, "tokenizer/tokenizer_config.json", "{}");
        scratch_text(&scratch, "tokenizer/special_tokens_map.json", "{\"pad_token\": \"<unk>\"}");
        assert_int_equal(open_folder(&scratch, &tokenizer, &error), i < 2 ? WEIR_OK : WEIR_BAD_MODEL);
        if (tokenizer) assert_int_equal(weir_gemma_bpe_facts(tokenizer).pad, 2);
        weir_gemma_bpe_close(&tokenizer);
        scratch_end(&scratch);
    }
}

/* ---- many at once ---- */

static const char shared_text[] =
    "A red circle,  moving\n\n\nright! \xc4\xb0stanbul <bos> caf\x65\xcc\x81 \xf0\x9f\x99\x82 3.14";

struct turn {
    const struct weir_gemma_prompt *prompt;
    const struct weir_gemma_prompt_ids *want;
    bool same;
};

static void *encode_again_and_again(void *context)
{
    struct turn *turn = context;
    struct weir_gemma_prompt_ids *ids = malloc(sizeof *ids);
    turn->same = ids != NULL;
    for (int i = 0; i < 200 && ids; i++) {
        const enum weir_status status =
            weir_gemma_prompt_encode(turn->prompt, shared_text, strlen(shared_text), true, ids, NULL);
        turn->same &= status == WEIR_OK && ids->count == turn->want->count &&
                      memcmp(ids->ids, turn->want->ids, ids->count * sizeof *ids->ids) == 0;
    }
    free(ids);
    return NULL;
}

static void threads_share_a_tokenizer(void **state)
{
    (void)state;
    json_t *root = golden_load();
    struct weir_gemma_bpe *tokenizer = open_style(root, "gemma");
    struct weir_gemma_prompt *prompt = NULL;
    struct weir_gemma_prompt_ids want;
    struct turn turns[4];
    pthread_t threads[4];
    assert_int_equal(weir_gemma_prompt_open(tokenizer, "Say more: ", &prompt, NULL), WEIR_OK);
    assert_int_equal(weir_gemma_prompt_encode(prompt, shared_text, strlen(shared_text), true, &want, NULL), WEIR_OK);
    for (int i = 0; i < 4; i++) {
        turns[i] = (struct turn){ prompt, &want, false };
        assert_int_equal(pthread_create(&threads[i], NULL, encode_again_and_again, &turns[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_true(turns[i].same);
    }
    weir_gemma_prompt_close(&prompt);
    weir_gemma_bpe_close(&tokenizer);
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_those_of_tokenizers_in_every_style_of_file),
        cmocka_unit_test(lower_case_and_white_space_are_those_of_python),
        cmocka_unit_test(prompts_are_laid_out_and_kept_as_in_diffusers),
        cmocka_unit_test(a_negative_prompt_has_no_instruction),
        cmocka_unit_test(a_text_is_padded_and_cut_on_the_right),
        cmocka_unit_test(the_facts_are_those_of_the_files),
        cmocka_unit_test(bytes_that_are_no_text_are_named_by_offset),
        cmocka_unit_test(a_text_has_a_limit_on_both_sides),
        cmocka_unit_test(a_text_that_grows_is_refused_before_it_fills_the_memory),
        cmocka_unit_test(an_instruction_has_limits),
        cmocka_unit_test(a_bad_model_is_refused_and_named),
        cmocka_unit_test(a_bad_step_is_refused_and_named),
        cmocka_unit_test(a_bad_added_token_is_refused_and_named),
        cmocka_unit_test(a_contradicting_config_is_refused_and_named),
        cmocka_unit_test(a_file_cut_short_is_refused_wherever_it_is_cut),
        cmocka_unit_test(tokens_have_a_limit_on_both_sides),
        cmocka_unit_test(tables_have_a_limit_on_both_sides),
        cmocka_unit_test(a_file_of_gemmas_size_is_read_in_a_second),
        cmocka_unit_test(a_text_without_end_costs_n_log_n),
        cmocka_unit_test(a_folder_is_read_by_either_name_of_the_class),
        cmocka_unit_test(threads_share_a_tokenizer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
