#include "client/cli/request.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static enum weir_status read_request(const char *size, const char *format, const char *output, struct weir_request *out,
                                     struct weir_error *error)
{
    struct weir_cli_request from = WEIR_CLI_REQUEST_INIT;
    from.size = size;
    from.format = format;
    from.output = output;
    return weir_cli_request_read(&from, "a prompt", out, error);
}

static void a_size_is_two_numbers_with_an_x(void **state)
{
    (void)state;
    struct weir_request request;
    struct weir_error error;
    assert_int_equal(read_request("128x64", NULL, NULL, &request, &error), WEIR_OK);
    assert_int_equal(request.width, 128);
    assert_int_equal(request.height, 64);
    assert_int_equal(read_request("65536x1", NULL, NULL, &request, &error), WEIR_OK);
    const char *bad[] = { "", "128", "128x", "x64", "0x64", "128x0", "-1x64", "128x64x3", "65537x1", "128X64", "1e3x5",
                          "99999999999999999999x1", " 128x64" };
    for (size_t i = 0; i < WEIR_COUNT(bad); i++) {
        assert_int_equal(read_request(bad[i], NULL, NULL, &request, &error), WEIR_BAD_ARGUMENT);
        assert_non_null(strstr(error.words, "--size"));
    }
}

static void the_ending_of_the_output_chooses_the_format(void **state)
{
    (void)state;
    struct weir_request request;
    struct weir_error error;
    const char *const pairs[][2] = { { "x.mp4", "mp4" }, { "x.webm", "webm" }, { "x.gif", "gif" }, { "x/", "png" },
                                     { "x.png", "png" } };
    for (size_t i = 0; i < WEIR_COUNT(pairs); i++) {
        assert_int_equal(read_request(NULL, NULL, pairs[i][0], &request, &error), WEIR_OK);
        assert_string_equal(request.format, pairs[i][1]);
    }
    assert_int_equal(read_request(NULL, NULL, NULL, &request, &error), WEIR_OK);
    assert_null(request.format);
    assert_int_equal(read_request(NULL, "gif", "film", &request, &error), WEIR_OK);
    assert_string_equal(request.format, "gif");
    assert_int_equal(read_request(NULL, NULL, "film", &request, &error), WEIR_BAD_ARGUMENT);
    assert_int_equal(read_request(NULL, "gif", "film.mp4", &request, &error), WEIR_BAD_ARGUMENT);
    assert_non_null(strstr(error.words, "film.mp4"));
}

static void several_films_get_numbers_before_the_ending(void **state)
{
    (void)state;
    char path[PATH_MAX];
    struct weir_error error;
    struct weir_report report = { .n = 1, .format = "mp4", .prompt = "p", .seed = 5 };
    assert_int_equal(weir_cli_output_path("a.b/film.mp4", &report, 0, 1, 0, path, &error), WEIR_OK);
    assert_string_equal(path, "a.b/film.mp4");
    report.n = 2;
    assert_int_equal(weir_cli_output_path("a.b/film.mp4", &report, 0, 1, 1, path, &error), WEIR_OK);
    assert_string_equal(path, "a.b/film-000-001.mp4");
    assert_int_equal(weir_cli_output_path("a.b/frames/", &report, 3, 4, 1, path, &error), WEIR_OK);
    assert_string_equal(path, "a.b/frames-003-001");
}

static void without_an_output_the_prompt_names_a_file_that_is_free(void **state)
{
    (void)state;
    char folder[] = "/tmp/weir-test-cli-XXXXXX", path[PATH_MAX], wanted[PATH_MAX];
    assert_non_null(mkdtemp(folder));
    assert_int_equal(chdir(folder), 0);
    struct weir_error error;
    struct weir_report report = { .n = 1, .format = "mp4", .prompt = "A red/..\xc3\xa9 circle!", .seed = 5 };
    assert_int_equal(weir_cli_output_path(NULL, &report, 0, 1, 2, path, &error), WEIR_OK);
    snprintf(wanted, sizeof wanted, "%s/a-red-circle-7.mp4", folder);
    assert_string_equal(path, wanted);
    fclose(fopen(path, "w"));
    assert_int_equal(weir_cli_output_path(NULL, &report, 0, 1, 2, path, &error), WEIR_OK);
    unlink(wanted);
    snprintf(wanted, sizeof wanted, "%s/a-red-circle-7-2.mp4", folder);
    assert_string_equal(path, wanted);
    report.prompt = "\xe2\x98\x83";
    report.format = "png";
    assert_int_equal(weir_cli_output_path(NULL, &report, 0, 1, 0, path, &error), WEIR_OK);
    snprintf(wanted, sizeof wanted, "%s/weir-5", folder);
    assert_string_equal(path, wanted);
    assert_int_equal(chdir("/"), 0);
    rmdir(folder);
}

static void an_output_that_cannot_be_is_said_beforehand(void **state)
{
    (void)state;
    struct weir_error error;
    assert_int_equal(weir_cli_output_check("/nowhere/film.mp4", &error), WEIR_BAD_ARGUMENT);
    assert_non_null(strstr(error.words, "/nowhere"));
    assert_int_equal(weir_cli_output_check("/dev/null/film.mp4", &error), WEIR_BAD_ARGUMENT);
    assert_int_equal(weir_cli_output_check("", &error), WEIR_BAD_ARGUMENT);
    assert_int_equal(weir_cli_output_check("/tmp/film.mp4", &error), WEIR_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_size_is_two_numbers_with_an_x),
        cmocka_unit_test(the_ending_of_the_output_chooses_the_format),
        cmocka_unit_test(several_films_get_numbers_before_the_ending),
        cmocka_unit_test(without_an_output_the_prompt_names_a_file_that_is_free),
        cmocka_unit_test(an_output_that_cannot_be_is_said_beforehand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
