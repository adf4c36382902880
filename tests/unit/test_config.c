#include "worker/config.h"
#include "worker/json_text.h"
#include "scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static struct weir_config *parse(const char *text)
{
    struct weir_config *config = NULL;
    struct weir_error error = { 0 };
    if (weir_config_parse(text, strlen(text), "unet/config.json", &config, &error) != WEIR_OK) {
        fail_msg("%s", error.words);
    }
    return config;
}

static void see_words(const struct weir_error *error, const char *part)
{
    if (!strstr(error->words, part)) fail_msg("\"%s\" does not say \"%s\"", error->words, part);
}

static void values_of_the_right_type_are_read_and_absent_or_null_ones_take_the_default(void **state)
{
    (void)state;
    struct weir_config *config = parse("{\"heads\": 8, \"eps\": 1e-6, \"scale\": 2, \"act\": \"silu\", \"bias\": true,"
                                       " \"nothing\": null, \"blocks\": [64, 128], \"mean\": [0.5, 1],"
                                       " \"types\": [\"A\", \"B\"]}");
    struct weir_error error;
    int64_t integer = 0, integers[4];
    double real = 0, reals[4];
    bool flag = false;
    const char *text = NULL, *texts[4];
    size_t count = 0;
    assert_int_equal(weir_config_int(config, "heads", 1, 1, 8, &integer, &error), WEIR_OK);
    assert_int_equal(integer, 8);
    assert_int_equal(weir_config_int(config, "nothing", 5, 1, 3, &integer, &error), WEIR_OK);
    assert_int_equal(integer, 5);
    assert_int_equal(weir_config_int(config, "absent", 6, 1, 3, &integer, &error), WEIR_OK);
    assert_int_equal(integer, 6);
    assert_int_equal(weir_config_real(config, "eps", 1, 0, 1, &real, &error), WEIR_OK);
    assert_true(real > 0.99e-6 && real < 1.01e-6);
    assert_int_equal(weir_config_real(config, "scale", 1, 0, 2, &real, &error), WEIR_OK);
    assert_true(real >= 2 && real <= 2);
    assert_int_equal(weir_config_bool(config, "bias", false, &flag, &error), WEIR_OK);
    assert_true(flag);
    assert_int_equal(weir_config_bool(config, "absent", false, &flag, &error), WEIR_OK);
    assert_false(flag);
    assert_int_equal(weir_config_text(config, "act", NULL, &text, &error), WEIR_OK);
    assert_string_equal(text, "silu");
    assert_int_equal(weir_config_text(config, "nothing", "gelu", &text, &error), WEIR_OK);
    assert_string_equal(text, "gelu");
    assert_int_equal(weir_config_int_list(config, "blocks", NULL, 0, 1, 128, 4, integers, &count, &error), WEIR_OK);
    assert_int_equal(count, 2);
    assert_int_equal(integers[1], 128);
    assert_int_equal(
        weir_config_int_list(config, "absent", (int64_t[]){ 7, 8, 9 }, 3, 1, 128, 4, integers, &count, &error),
        WEIR_OK);
    assert_int_equal(count, 3);
    assert_int_equal(integers[2], 9);
    assert_int_equal(weir_config_real_list(config, "mean", NULL, 0, 0, 1, 2, reals, &count, &error), WEIR_OK);
    assert_true(count == 2 && reals[0] >= 0.5 && reals[0] <= 0.5);
    assert_int_equal(weir_config_text_list(config, "types", NULL, 0, 2, texts, &count, &error), WEIR_OK);
    assert_string_equal(texts[1], "B");
    assert_true(weir_config_has(config, "heads"));
    assert_false(weir_config_has(config, "nothing"));
    assert_string_equal(weir_config_label(config), "unet/config.json");
    weir_config_close(&config);
    assert_null(config);
    weir_config_close(&config);
}

static void one_number_stands_for_a_list_where_that_is_asked_for(void **state)
{
    (void)state;
    struct weir_config *config = parse("{\"one\": 2, \"many\": [1, 2, 3], \"short\": [1, 2]}");
    struct weir_error error;
    int64_t out[3] = { 0 };
    assert_int_equal(weir_config_int_spread(config, "one", 1, 1, 9, 3, out, &error), WEIR_OK);
    assert_true(out[0] == 2 && out[2] == 2);
    assert_int_equal(weir_config_int_spread(config, "many", 1, 1, 9, 3, out, &error), WEIR_OK);
    assert_true(out[0] == 1 && out[2] == 3);
    assert_int_equal(weir_config_int_spread(config, "absent", 5, 1, 9, 3, out, &error), WEIR_OK);
    assert_int_equal(out[1], 5);
    assert_int_equal(weir_config_int_spread(config, "short", 5, 1, 9, 3, out, &error), WEIR_BAD_MODEL);
    see_words(&error, "short has 2 values, wanted 3");
    weir_config_close(&config);
}

static void one_text_stands_for_all_and_lists_hold_lists(void **state)
{
    (void)state;
    struct weir_config *config = parse("{\"one\": \"A\", \"many\": [\"A\", \"B\"], \"lists\": [[], [5], [3, 7], [9]]}");
    struct weir_error error;
    const char *texts[2] = { NULL };
    int64_t out[3 * 2] = { 0 };
    size_t counts[3] = { 77, 77, 77 };
    assert_int_equal(weir_config_text_spread(config, "one", "C", 2, texts, &error), WEIR_OK);
    assert_true(strcmp(texts[0], "A") == 0 && strcmp(texts[1], "A") == 0);
    assert_int_equal(weir_config_text_spread(config, "many", "C", 2, texts, &error), WEIR_OK);
    assert_true(strcmp(texts[0], "A") == 0 && strcmp(texts[1], "B") == 0);
    assert_int_equal(weir_config_text_spread(config, "absent", "C", 2, texts, &error), WEIR_OK);
    assert_string_equal(texts[1], "C");
    assert_int_equal(weir_config_int_lists(config, "absent", 1, 9, 3, 2, out, counts, &error), WEIR_OK);
    assert_true(counts[0] == 77 && out[2] == 0);
    assert_int_equal(weir_config_int_lists(config, "lists", 1, 9, 3, 2, out, counts, &error), WEIR_OK);
    assert_true(counts[0] == 0 && counts[1] == 1 && counts[2] == 2);
    assert_true(out[2] == 5 && out[4] == 3 && out[5] == 7);
    weir_config_close(&config);
}

/* Each row asks key "k" in its own way and must hear file, key, value found and value wanted. */
enum ask {
    INT,
    INT_REQUIRED,
    REAL,
    REAL_REQUIRED,
    BOOL,
    BOOL_REQUIRED,
    TEXT,
    TEXT_REQUIRED,
    CHOICE,
    CHOICE_REQUIRED,
    INTS,
    INTS_REQUIRED,
    REALS,
    TEXTS,
    SPREAD,
    TEXT_SPREAD,
    LISTS
};

static const struct {
    const char *json;
    enum ask ask;
    const char *words;
} wrong[] = {
    { "{\"k\": 0}", INT, "unet/config.json: k is 0, wanted an integer from 1 to 10" },
    { "{\"k\": 11}", INT, "k is 11, wanted an integer from 1 to 10" },
    { "{\"k\": 2.0}", INT, "k is 2.0, wanted an integer" },
    { "{\"k\": \"2\"}", INT, "k is \"2\", wanted an integer" },
    { "{\"k\": true}", INT, "k is true, wanted an integer" },
    { "{\"k\": [2]}", INT, "k is [2], wanted an integer" },
    { "{\"k\": NaN}", INT, "k is NaN, wanted an integer" },
    { "{}", INT_REQUIRED, "k is missing, wanted an integer from 1 to 10" },
    { "{\"k\": null}", INT_REQUIRED, "k is missing" },
    { "{\"k\": 1.5}", REAL, "k is 1.5, wanted a number from 0 to 1" },
    { "{\"k\": -1}", REAL, "k is -1, wanted a number from 0 to 1" },
    { "{\"k\": NaN}", REAL, "k is NaN, wanted a number" },
    { "{\"k\": Infinity}", REAL, "k is Infinity, wanted a number" },
    { "{\"k\": -Infinity}", REAL, "k is -Infinity, wanted a number" },
    { "{\"k\": \"1\"}", REAL, "k is \"1\", wanted a number" },
    { "{}", REAL_REQUIRED, "k is missing, wanted a number from 0 to 1" },
    { "{\"k\": 1}", BOOL, "k is 1, wanted true or false" },
    { "{\"k\": \"true\"}", BOOL, "k is \"true\", wanted true or false" },
    { "{}", BOOL_REQUIRED, "k is missing, wanted true or false" },
    { "{\"k\": 1}", TEXT, "k is 1, wanted a text" },
    { "{\"k\": NaN}", TEXT, "k is NaN, wanted a text" },
    { "{\"k\": {\"a\": 1}}", TEXT, "k is {\"a\": 1}, wanted a text" },
    { "{}", TEXT_REQUIRED, "k is missing, wanted a text" },
    { "{\"k\": \"relu\"}", CHOICE, "k is \"relu\", wanted one of silu, gelu" },
    { "{\"k\": 3}", CHOICE, "k is 3, wanted one of silu, gelu" },
    { "{}", CHOICE_REQUIRED, "k is missing, wanted one of silu, gelu" },
    { "{\"k\": []}", INTS, "k is [], wanted a list of 1 to 3 integers" },
    { "{\"k\": [1,2,3,4]}", INTS, "wanted a list of 1 to 3 integers" },
    { "{\"k\": 1}", INTS, "k is 1, wanted a list" },
    { "{\"k\": [1, 11]}", INTS, "k[1] is 11, wanted an integer from 1 to 10" },
    { "{\"k\": [1, \"2\"]}", INTS, "k[1] is \"2\"" },
    { "{\"k\": [1, null]}", INTS, "k[1] is null" },
    { "{}", INTS_REQUIRED, "k is missing, wanted a list of 1 to 3 integers" },
    { "{\"k\": [0.5, 2]}", REALS, "k[1] is 2, wanted a number from 0 to 1" },
    { "{\"k\": [\"a\", 2]}", TEXTS, "k[1] is 2, wanted a text" },
    { "{\"k\": [1, 2]}", SPREAD, "k has 2 values, wanted 3, or one for all" },
    { "{\"k\": [1, 2, 0]}", SPREAD, "k[2] is 0" },
    { "{\"k\": \"x\"}", SPREAD, "k is \"x\"" },
    { "{\"k\": [\"a\", \"b\"]}", TEXT_SPREAD, "k has 2 values, wanted 3, or one for all" },
    { "{\"k\": [\"a\", \"b\", 3]}", TEXT_SPREAD, "k[2] is 3, wanted a text" },
    { "{\"k\": 3}", TEXT_SPREAD, "k is 3, wanted a text" },
    { "{\"k\": [[1]]}", LISTS, "k is [[1]], wanted a list of at least 2 lists" },
    { "{\"k\": [1, 2]}", LISTS, "k[0] is 1, wanted a list of 0 to 2 integers from 1 to 10" },
    { "{\"k\": [[], [1, 2, 3]]}", LISTS, "k[1] is [1, 2, 3], wanted a list of 0 to 2 integers from 1 to 10" },
    { "{\"k\": [[1], [11]]}", LISTS, "k[1] is [11], wanted a list of 0 to 2 integers from 1 to 10" },
};

static enum weir_status ask(const struct weir_config *config, enum ask how, struct weir_error *error)
{
    static const char *const choices[] = { "silu", "gelu", NULL };
    static const int64_t defaults[] = { 1 };
    static const double real_defaults[] = { 1 };
    static const char *const text_defaults[] = { "a" };
    int64_t integer = 77, integers[3] = { 77, 77, 77 };
    double real = 77, reals[3];
    bool flag = false;
    const char *text = "untouched", *texts[3] = { "untouched" };
    size_t choice = 77, count = 77;
    enum weir_status status = WEIR_INTERNAL;
    switch (how) {
    case INT:
        status = weir_config_int(config, "k", 1, 1, 10, &integer, error);
        break;
    case INT_REQUIRED:
        status = weir_config_int(config, "k", WEIR_CONFIG_REQUIRED_INT, 1, 10, &integer, error);
        break;
    case REAL:
        status = weir_config_real(config, "k", 1, 0, 1, &real, error);
        break;
    case REAL_REQUIRED:
        status = weir_config_real(config, "k", WEIR_CONFIG_REQUIRED_REAL, 0, 1, &real, error);
        break;
    case BOOL:
        status = weir_config_bool(config, "k", false, &flag, error);
        break;
    case BOOL_REQUIRED:
        status = weir_config_bool_required(config, "k", &flag, error);
        break;
    case TEXT:
        status = weir_config_text(config, "k", "d", &text, error);
        break;
    case TEXT_REQUIRED:
        status = weir_config_text(config, "k", NULL, &text, error);
        break;
    case CHOICE:
        status = weir_config_choice(config, "k", "silu", choices, &choice, error);
        break;
    case CHOICE_REQUIRED:
        status = weir_config_choice(config, "k", NULL, choices, &choice, error);
        break;
    case INTS:
        status = weir_config_int_list(config, "k", defaults, 1, 1, 10, 3, integers, &count, error);
        break;
    case INTS_REQUIRED:
        status = weir_config_int_list(config, "k", NULL, 0, 1, 10, 3, integers, &count, error);
        break;
    case REALS:
        status = weir_config_real_list(config, "k", real_defaults, 1, 0, 1, 3, reals, &count, error);
        break;
    case TEXTS:
        status = weir_config_text_list(config, "k", text_defaults, 1, 3, texts, &count, error);
        break;
    case SPREAD:
        status = weir_config_int_spread(config, "k", 1, 1, 10, 3, integers, error);
        break;
    case TEXT_SPREAD:
        status = weir_config_text_spread(config, "k", "d", 3, texts, error);
        break;
    case LISTS:
        status = weir_config_int_lists(config, "k", 1, 10, 2, 2, integers, &count, error);
        break;
    }
    /* a refusal leaves the caller's values alone */
    assert_int_equal(integer, 77);
    assert_int_equal(integers[0], 77);
    assert_true(real > 76 && choice == 77 && count == 77);
    assert_string_equal(text, "untouched");
    assert_string_equal(texts[0], "untouched");
    return status;
}

static void a_wrong_value_is_named_with_its_file_its_key_and_what_is_wanted(void **state)
{
    (void)state;
    for (size_t i = 0; i < WEIR_COUNT(wrong); i++) {
        struct weir_error error = { 0 };
        struct weir_config *config = parse(wrong[i].json);
        if (ask(config, wrong[i].ask, &error) != WEIR_BAD_MODEL) fail_msg("%s was taken", wrong[i].json);
        see_words(&error, wrong[i].words);
        see_words(&error, "unet/config.json: ");
        weir_config_close(&config);
    }
}

static void bare_infinities_are_read_as_numbers_and_only_outside_of_texts(void **state)
{
    (void)state;
    struct weir_config *config = parse("{\"a\": -Infinity, \"b\": Infinity, \"c\": \"-Infinity NaN\", \"d\": [NaN],"
                                       " \"NaN\": 1, \"e\": \"\\\" NaN\"}");
    struct weir_error error;
    double real = 0;
    int64_t integer = 0;
    const char *text = NULL;
    assert_int_equal(weir_config_real(config, "a", 0, -INFINITY, INFINITY, &real, &error), WEIR_OK);
    assert_true(isinf(real) && real < 0);
    assert_int_equal(weir_config_real(config, "b", 0, -INFINITY, INFINITY, &real, &error), WEIR_OK);
    assert_true(isinf(real) && real > 0);
    assert_int_equal(weir_config_text(config, "c", NULL, &text, &error), WEIR_OK);
    assert_string_equal(text, "-Infinity NaN");
    assert_int_equal(weir_config_text(config, "e", NULL, &text, &error), WEIR_OK);
    assert_string_equal(text, "\" NaN");
    assert_int_equal(weir_config_int(config, "NaN", 0, 0, 9, &integer, &error), WEIR_OK);
    weir_config_close(&config);
}

static void a_choice_gives_its_place_and_a_refusal_names_the_value(void **state)
{
    (void)state;
    static const char *const choices[] = { "silu", "gelu", NULL };
    struct weir_config *config = parse("{\"act\": \"gelu\", \"n\": 3}");
    struct weir_error error;
    size_t choice = 9;
    assert_int_equal(weir_config_choice(config, "act", "silu", choices, &choice, &error), WEIR_OK);
    assert_int_equal(choice, 1);
    assert_int_equal(weir_config_choice(config, "absent", "silu", choices, &choice, &error), WEIR_OK);
    assert_int_equal(choice, 0);
    assert_int_equal(weir_config_refuse(config, "n", "2", &error), WEIR_UNSUPPORTED);
    see_words(&error, "unet/config.json: n is 3, which is not supported, wanted 2");
    assert_int_equal(weir_config_refuse(config, "m", "2", &error), WEIR_UNSUPPORTED);
    see_words(&error, "m is absent");
    weir_config_close(&config);
}

static const struct {
    const char *text;
    enum weir_status status;
    const char *words;
} broken[] = {
    { "", WEIR_BAD_MODEL, "unet/config.json: line 1: " },
    { "{", WEIR_BAD_MODEL, "line 1" },
    { "{\"a\": 1,\n\"b\": }", WEIR_BAD_MODEL, "line 2, in b" },
    { "{\"a\": 1, \"a\": 2}", WEIR_BAD_MODEL, "duplicate object key" },
    { "{\"a\": 1, \"\\u0061\": 2}", WEIR_BAD_MODEL, "duplicate object key" },
    { "{\"x\": {\"a\": 1, \"a\": 2}}", WEIR_BAD_MODEL, "in x: duplicate object key" },
    { "[1]", WEIR_BAD_MODEL, "it is a list, wanted one JSON object" },
    { "3", WEIR_BAD_MODEL, "line 1" },
    { "{} {}", WEIR_BAD_MODEL, "line 1" },
    { "{\"a\": 'b'}", WEIR_BAD_MODEL, "in a" },
    { "{\"a\": 1e999}", WEIR_BAD_MODEL, "in a" },
    { "{\"a\": 99999999999999999999}", WEIR_BAD_MODEL, "in a: too big integer" },
    { "{\"a\": \"\\u0000\"}", WEIR_BAD_MODEL, "in a" },
    { "{\"a\": \"\xff\"}", WEIR_BAD_MODEL, "in a" },
    { "{\"a\": \"\\", WEIR_BAD_MODEL, "in a" },
    { "{\"a\": \"b", WEIR_BAD_MODEL, "in a" },
    { "{\"a\": -NaN}", WEIR_BAD_MODEL, "in a" },
    { "{\"a\": 1Infinity}", WEIR_BAD_MODEL, "in a" },
    { "{\"a\": Infinit}", WEIR_BAD_MODEL, "in a" },
    { "{\"a\": --Infinity}", WEIR_BAD_MODEL, "in a" },
    { "{NaN: 1", WEIR_BAD_MODEL, "line 1" },
    { "{\"a\": [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}", WEIR_TOO_LARGE, "nested deeper than 16 levels at byte 21" },
};

static void an_object_within_is_a_config_of_its_own_and_null_is_told_from_absent(void **state)
{
    (void)state;
    struct weir_config *config = parse("{\"rope\": {\"theta\": 500, \"type\": 3}, \"cap\": null, \"n\": 1}");
    struct weir_config *within = NULL, *nothing = config;
    struct weir_error error;
    int64_t theta = 0;
    const char *text = NULL;
    assert_int_equal(weir_config_within(config, "absent", &nothing, &error), WEIR_OK);
    assert_null(nothing);
    assert_int_equal(weir_config_within(config, "cap", &nothing, &error), WEIR_OK);
    assert_null(nothing);
    assert_int_equal(weir_config_within(config, "n", &nothing, &error), WEIR_BAD_MODEL);
    see_words(&error, "unet/config.json: n is 1, wanted an object");
    assert_true(weir_config_is_null(config, "cap"));
    assert_false(weir_config_is_null(config, "n"));
    assert_false(weir_config_is_null(config, "absent"));
    assert_int_equal(weir_config_refuse(config, "cap", "a number", &error), WEIR_UNSUPPORTED);
    see_words(&error, "cap is null");
    assert_int_equal(weir_config_within(config, "rope", &within, &error), WEIR_OK);
    weir_config_close(&config);
    assert_int_equal(weir_config_int(within, "theta", 1, 1, 1000, &theta, &error), WEIR_OK);
    assert_int_equal(theta, 500);
    assert_int_equal(weir_config_text(within, "type", "default", &text, &error), WEIR_BAD_MODEL);
    see_words(&error, "unet/config.json: rope: type is 3");
    weir_config_close(&within);
}

static void what_is_not_json_is_refused_with_the_line_and_the_key(void **state)
{
    (void)state;
    for (size_t i = 0; i < WEIR_COUNT(broken); i++) {
        struct weir_config *config = NULL;
        struct weir_error error = { 0 };
        const enum weir_status status =
            weir_config_parse(broken[i].text, strlen(broken[i].text), "unet/config.json", &config, &error);
        if (status != broken[i].status) fail_msg("%s: %s, %s", broken[i].text, weir_status_name(status), error.words);
        assert_null(config);
        see_words(&error, broken[i].words);
        see_words(&error, "unet/config.json: ");
    }
    struct weir_config *config = parse("{\"a\": [[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]}"); /* sixteen levels are fine */
    weir_config_close(&config);
}

static void a_config_may_have_a_mebibyte_and_fifty_thousand_values_and_no_more(void **state)
{
    (void)state;
    struct weir_error error = { 0 };
    struct weir_config *config = NULL;
    char *text = malloc(WEIR_CONFIG_BYTES_MAX + 1);
    assert_non_null(text);
    memset(text, ' ', WEIR_CONFIG_BYTES_MAX + 1);
    memcpy(text, "{}", 2);
    assert_int_equal(weir_config_parse(text, WEIR_CONFIG_BYTES_MAX, "c", &config, &error), WEIR_OK);
    weir_config_close(&config);
    assert_int_equal(weir_config_parse(text, WEIR_CONFIG_BYTES_MAX + 1, "c", &config, &error), WEIR_TOO_LARGE);
    see_words(&error, "c: 1048577 bytes of JSON, at most 1048576 are read");

    /* the object, the list, and one a comma: 49,997 commas make 50,000 values by the count that is kept */
    memcpy(text, "{\"a\":[0", 7);
    for (size_t i = 0; i < 49998; i++) memcpy(text + 7 + 2 * i, ",0", 2);
    memcpy(text + 7 + 2 * 49997, "]}", 2);
    assert_int_equal(weir_config_parse(text, 7 + 2 * 49997 + 2, "c", &config, &error), WEIR_OK);
    weir_config_close(&config);
    memcpy(text + 7 + 2 * 49997, ",0]}", 4);
    assert_int_equal(weir_config_parse(text, 7 + 2 * 49997 + 4, "c", &config, &error), WEIR_TOO_LARGE);
    see_words(&error, "c: more than 50000 JSON values");
    free(text);
}

static void a_file_is_read_and_a_missing_one_named(void **state)
{
    (void)state;
    struct scratch scratch = scratch_begin();
    struct weir_error error = { 0 };
    struct weir_config *config = NULL;
    int64_t integer = 0;
    scratch_text(&scratch, "config.json", "{\"a\": 3}");
    assert_int_equal(weir_config_open(scratch_path(&scratch, "config.json"), &config, &error), WEIR_OK);
    assert_int_equal(weir_config_int(config, "a", 0, 0, 9, &integer, &error), WEIR_OK);
    assert_int_equal(integer, 3);
    weir_config_close(&config);
    assert_int_equal(weir_config_open(scratch_path(&scratch, "none.json"), &config, &error), WEIR_NOT_FOUND);
    see_words(&error, "none.json");
    scratch_end(&scratch);
}

static void a_value_too_long_for_a_message_is_cut_between_characters(void **state)
{
    (void)state;
    char shown[16];
    json_t *value = json_string("\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9");
    weir_json_show(value, shown, sizeof shown);
    assert_string_equal(shown, "\"\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9...");
    json_decref(value);
    char key[4];
    weir_json_key_at("{\"abcdef\": [1, 2]}", 18, 13, key, sizeof key);
    assert_string_equal(key, "abc");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_of_the_right_type_are_read_and_absent_or_null_ones_take_the_default),
        cmocka_unit_test(one_number_stands_for_a_list_where_that_is_asked_for),
        cmocka_unit_test(one_text_stands_for_all_and_lists_hold_lists),
        cmocka_unit_test(a_wrong_value_is_named_with_its_file_its_key_and_what_is_wanted),
        cmocka_unit_test(bare_infinities_are_read_as_numbers_and_only_outside_of_texts),
        cmocka_unit_test(a_choice_gives_its_place_and_a_refusal_names_the_value),
        cmocka_unit_test(an_object_within_is_a_config_of_its_own_and_null_is_told_from_absent),
        cmocka_unit_test(what_is_not_json_is_refused_with_the_line_and_the_key),
        cmocka_unit_test(a_config_may_have_a_mebibyte_and_fifty_thousand_values_and_no_more),
        cmocka_unit_test(a_file_is_read_and_a_missing_one_named),
        cmocka_unit_test(a_value_too_long_for_a_message_is_cut_between_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
