#include "proto/base/bytes.h"
#include "proto/base/log.h"
#include "proto/base/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct values {
    int64_t steps;
    double guidance;
    const char *model, *format;
    struct weir_option_texts loras;
    bool json;
};

static const struct weir_option rows[] = {
    { "steps", 0, WEIR_OPTION_INT, offsetof(struct values, steps), 1, 1000, "N", "denoising steps" },
    { "guidance", 'g', WEIR_OPTION_REAL, offsetof(struct values, guidance), 0, 100, "G", "guidance scale" },
    { "model", 'm', WEIR_OPTION_TEXT, offsetof(struct values, model), 0, 8, "DIR", "model folder" },
    { "format", 0, WEIR_OPTION_CHOICE, offsetof(struct values, format), 0, 0, "mp4|webm|gif", "container" },
    { "json", 0, WEIR_OPTION_FLAG, offsetof(struct values, json), 0, 0, NULL, "one object a result" },
    { "lora", 0, WEIR_OPTION_TEXTS, offsetof(struct values, loras), 0, 4, "FILE", "adapters" },
};

static enum weir_status parse(struct values *values, uint64_t *given, int *word, struct weir_error *error, int argc,
                              ...)
{
    char *argv[16] = { (char *)"weir" };
    va_list arguments;
    va_start(arguments, argc);
    for (int i = 1; i <= argc; i++) argv[i] = va_arg(arguments, char *);
    va_end(arguments);
    return weir_options_parse(rows, WEIR_COUNT(rows), argc + 1, argv, values, given, word, error);
}

static void options_are_read_in_both_forms_around_words(void **state)
{
    (void)state;
    struct values v = { .steps = 7 };
    uint64_t given;
    int word;
    struct weir_error error;
    assert_int_equal(parse(&v, &given, &word, &error, 6, "--guidance=2.5", "a prompt", "-m", "demo", "--json", "b"),
                     WEIR_OK);
    assert_int_equal(v.steps, 7);
    assert_true(v.guidance > 2.49 && v.guidance < 2.51);
    assert_string_equal(v.model, "demo");
    assert_true(v.json);
    assert_int_equal(given, 2 | 4 | 16);
    assert_int_equal(word, 5);
}

static void some_options_may_be_given_again(void **state)
{
    (void)state;
    struct values v = { .steps = 7 };
    uint64_t given;
    int word;
    struct weir_error error;
    assert_int_equal(parse(&v, &given, &word, &error, 5, "--lora", "a", "word", "--lora=b", "--lora=a"), WEIR_OK);
    assert_int_equal(v.loras.count, 3);
    assert_string_equal(v.loras.texts[0], "a");
    assert_string_equal(v.loras.texts[1], "b");
    assert_int_equal(given, 32);
    assert_int_equal(parse(&v, &given, &word, &error, 1, "--lora=abcde"), WEIR_BAD_ARGUMENT);
    assert_non_null(strstr(error.words, "--lora: 5 bytes, at most 4"));
    v.loras.count = WEIR_OPTION_TEXTS_MAX;
    assert_int_equal(parse(&v, &given, &word, &error, 1, "--lora=x"), WEIR_BAD_ARGUMENT);
    assert_non_null(strstr(error.words, "--lora x: it is given more than 8 times"));
}

static void utf_8_is_strict(void **state)
{
    (void)state;
    static const char *const good[] = { "", "a", "\xc3\xa9", "\xed\x9f\xbf", "\xf4\x8f\xbf\xbf" };
    static const char *const bad[] = { "\x80",         "\xc0\xaf",         "\xc3", "\xe0\x80\xaf",
                                       "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xff" };
    for (size_t i = 0; i < WEIR_COUNT(good); i++) assert_true(weir_utf8_valid(good[i], strlen(good[i])));
    for (size_t i = 0; i < WEIR_COUNT(bad); i++) assert_false(weir_utf8_valid(bad[i], strlen(bad[i])));
    assert_false(weir_utf8_valid("a\0b", 3));
    assert_false(weir_utf8_valid("\xc3\xa9", 1));
}

static void a_bad_value_is_named_with_its_flag_and_its_bounds(void **state)
{
    (void)state;
    struct values v;
    uint64_t given;
    int word;
    struct weir_error error;
    const char *bad[][2] = { { "--steps", "0" },
                             { "--steps", "1001" },
                             { "--steps", "5x" },
                             { "--steps", "" },
                             { "--guidance", "nan" },
                             { "--guidance", "-1" },
                             { "--model", "123456789" },
                             { "--format", "avi" },
                             { "--format", "mp4|webm" },
                             { "--format", "" },
                             { "--steps", "99999999999999999999" } };
    for (size_t i = 0; i < WEIR_COUNT(bad); i++) {
        assert_int_equal(parse(&v, &given, &word, &error, 2, bad[i][0], bad[i][1]), WEIR_BAD_ARGUMENT);
        assert_non_null(strstr(error.words, bad[i][0]));
    }
    assert_int_equal(parse(&v, &given, &word, &error, 1, "--steps"), WEIR_BAD_ARGUMENT);
    assert_int_equal(parse(&v, &given, &word, &error, 1, "--nothing"), WEIR_BAD_ARGUMENT);
    assert_non_null(strstr(error.words, "--nothing"));
    assert_int_equal(parse(&v, &given, &word, &error, 1, "-z"), WEIR_BAD_ARGUMENT);
    assert_int_equal(parse(&v, &given, &word, &error, 2, "--steps", "1000"), WEIR_OK);
    assert_int_equal(parse(&v, &given, &word, &error, 2, "--model", "12345678"), WEIR_OK);
}

static void hex_goes_there_and_back_and_refuses_the_rest(void **state)
{
    (void)state;
    uint8_t bytes[4];
    char text[9];
    assert_true(weir_hex_read("00ffA5b6", bytes, 4));
    weir_hex_write(bytes, 4, text);
    assert_string_equal(text, "00ffa5b6");
    assert_false(weir_hex_read("00ffA5b", bytes, 4));
    assert_false(weir_hex_read("00ffA5b6c", bytes, 4));
    assert_false(weir_hex_read("00ffA5g6", bytes, 4));
}

static void a_digest_is_the_standard_one(void **state)
{
    (void)state;
    uint8_t digest[WEIR_SHA256_BYTES];
    char hex[WEIR_SHA256_HEX_BYTES];
    weir_sha256_of("abc", 3, digest);
    weir_hex_write(digest, sizeof digest, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static void a_file_is_read_whole_or_refused_with_its_name(void **state)
{
    (void)state;
    char path[] = "/tmp/weir-test-base-XXXXXX", *text = NULL;
    size_t bytes = 0;
    struct weir_error error;
    const int fd = mkstemp(path);
    assert_int_equal(weir_fd_write(fd, "hello", 5, path, &error), WEIR_OK);
    close(fd);
    assert_int_equal(weir_file_read(path, 5, &text, &bytes, &error), WEIR_OK);
    assert_string_equal(text, "hello");
    free(text);
    assert_int_equal(weir_file_read(path, 4, &text, &bytes, &error), WEIR_TOO_LARGE);
    assert_non_null(strstr(error.words, path));
    unlink(path);
    assert_int_equal(weir_file_read(path, 5, &text, &bytes, &error), WEIR_NOT_FOUND);
    assert_int_equal(weir_file_read("/tmp", 5, &text, &bytes, &error), WEIR_BAD_FILE);
}

static void a_log_line_holds_one_event_however_long_or_dirty(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const struct weir_log log = { "test", WEIR_LOG_INFO, ends[1] };
    char big[3000], line[4096];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    weir_log(&log, WEIR_LOG_DEBUG, "not seen");
    weir_log(&log, WEIR_LOG_INFO, "two\nlines \x1b[31m");
    weir_log(&log, WEIR_LOG_ERROR, "%s", big);
    close(ends[1]);
    size_t used = 0;
    for (ssize_t got; (got = read(ends[0], line + used, sizeof line - 1 - used)) > 0;) used += (size_t)got;
    line[used] = '\0';
    close(ends[0]);
    const char *first_end = strchr(line, '\n');
    assert_non_null(strstr(line, "info test["));
    assert_null(memchr(line, 0x1b, used));
    assert_non_null(strstr(first_end + 1, "error test["));
    assert_ptr_equal(strchr(first_end + 1, '\n'), line + used - 1);
    assert_true(used - (size_t)(first_end + 1 - line) <= 1024);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_are_read_in_both_forms_around_words),
        cmocka_unit_test(some_options_may_be_given_again),
        cmocka_unit_test(utf_8_is_strict),
        cmocka_unit_test(a_bad_value_is_named_with_its_flag_and_its_bounds),
        cmocka_unit_test(hex_goes_there_and_back_and_refuses_the_rest),
        cmocka_unit_test(a_digest_is_the_standard_one),
        cmocka_unit_test(a_file_is_read_whole_or_refused_with_its_name),
        cmocka_unit_test(a_log_line_holds_one_event_however_long_or_dirty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
