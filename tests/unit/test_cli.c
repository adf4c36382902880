#include "client/cli/receipt.h"
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
    const char *bad[] = { "",       "128",      "128x",    "x64",    "0x64",  "128x0",
                          "-1x64",  "128x64x3", "65537x1", "128X64", "1e3x5", "99999999999999999999x1",
                          " 128x64" };
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
    const char *const pairs[][2] = { { "x.mp4", "mp4" },   { "x.webm", "webm" }, { "x.gif", "gif" },
                                     { "x/", "png" },      { "x.png", "png" },   { "x.jpg", "jpeg" },
                                     { "x.jpeg", "jpeg" }, { "x.webp", "webp" } };
    for (size_t i = 0; i < WEIR_COUNT(pairs); i++) {
        assert_int_equal(read_request(NULL, NULL, pairs[i][0], &request, &error), WEIR_OK);
        assert_string_equal(request.format, pairs[i][1]);
        assert_int_equal(request.folder, strcmp(pairs[i][0], "x/") == 0);
    }
    assert_int_equal(read_request(NULL, NULL, NULL, &request, &error), WEIR_OK);
    assert_null(request.format);
    assert_int_equal(read_request(NULL, "gif", "film", &request, &error), WEIR_OK);
    assert_string_equal(request.format, "gif");
    assert_int_equal(read_request(NULL, NULL, "film", &request, &error), WEIR_BAD_ARGUMENT);
    assert_int_equal(read_request(NULL, "jpeg", "x.jpg", &request, &error), WEIR_OK);
    assert_int_equal(read_request(NULL, "jpeg", "x/", &request, &error), WEIR_BAD_ARGUMENT);
    assert_int_equal(read_request(NULL, "webp", "x.png", &request, &error), WEIR_BAD_ARGUMENT);
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
    report.image = true;
    assert_int_equal(weir_cli_output_path(NULL, &report, 0, 1, 0, path, &error), WEIR_OK);
    snprintf(wanted, sizeof wanted, "%s/weir-5.png", folder);
    assert_string_equal(path, wanted);
    report.format = "jpeg";
    assert_int_equal(weir_cli_output_path(NULL, &report, 0, 1, 0, path, &error), WEIR_OK);
    snprintf(wanted, sizeof wanted, "%s/weir-5.jpg", folder);
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

#define DIGEST "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

/* A receipt in which `from` (NULL: nothing) is replaced by `to`. */
static enum weir_status read_receipt(const char *from, const char *to, struct weir_cli_receipt *out,
                                     struct weir_error *error)
{
    static const char sound[] =
        "{\"encoder\":\"libx 1\",\"model_digest\":\"" DIGEST "\",\"numerics_class\":\"cpu-x\",\"spec\":{"
        "\"codec\":\"\",\"format\":\"png\",\"fps\":1,\"frames\":1,\"guidance\":2.5,\"height\":48,\"image\":true,"
        "\"model\":\"tiny\",\"model_digest\":\"" DIGEST "\",\"n\":1,\"negative\":\"\",\"noise\":\"f32\","
        "\"pipeline\":\"P\",\"precision\":\"f32\",\"prompt\":\"a \\u00e9\",\"sampler\":\"ddim\",\"seed\":-1,"
        "\"spec_version\":1,\"steps\":7,\"width\":64},\"weir\":1}";
    char text[2048];
    const char *at = from ? strstr(sound, from) : sound;
    assert_non_null(at);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - sound), sound, to ? to : "", at + (from ? strlen(from) : 0));
    return weir_cli_receipt_parse(text, "cat.png", out, error);
}

static void a_receipt_becomes_the_request_that_made_it(void **state)
{
    (void)state;
    struct weir_cli_receipt receipt;
    struct weir_error error;
    assert_int_equal(read_receipt(NULL, NULL, &receipt, &error), WEIR_OK);
    assert_string_equal(receipt.model, "tiny");
    assert_string_equal(receipt.numerics_class, "cpu-x");
    assert_string_equal(receipt.encoder, "libx 1");
    const struct weir_request *r = &receipt.request;
    assert_null(r->model); /* of the cluster that is started for it */
    assert_string_equal(r->model_digest, DIGEST);
    assert_string_equal(r->prompt, "a \xc3\xa9");
    assert_true(r->seed_given);
    assert_true(r->seed == UINT64_MAX); /* JSON's integers end at 2^63 */
    assert_int_equal(r->width, 64);
    assert_int_equal(r->height, 48);
    assert_int_equal(r->steps, 7);
    assert_int_equal(r->n, 1);
    assert_true(r->guidance == 2.5);
    assert_string_equal(r->precision, "f32");
    assert_false(r->folder);
    weir_cli_receipt_destroy(&receipt);
    assert_int_equal(read_receipt("\"image\":true,", "", &receipt, &error), WEIR_OK);
    assert_true(receipt.request.folder); /* a folder of one frame, as png was before there were images */
    weir_cli_receipt_destroy(&receipt);
}

/* SHA-256 of "abc" and of nothing. */
#define ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define NOTHING "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static void files_of_a_receipt_are_found_by_their_digest(void **state)
{
    (void)state;
    char path[] = "/tmp/weir-test-cli-XXXXXX";
    struct weir_cli_receipt receipt;
    struct weir_error error;
    const int fd = mkstemp(path);
    assert_int_equal(write(fd, "abc", 3), 3);
    close(fd);
    static const char with[] = "\"steps\":7,\"loras\":[{\"file\":\"" ABC "\",\"weight\":0.5},{\"file\":\"" NOTHING
                               "\",\"weight\":-1}],\"control\":\"" ABC
                               "\",\"control_scale\":0.25,\"start_image\":\"" ABC "\",\"strength\":0.75";
    assert_int_equal(read_receipt("\"steps\":7", with, &receipt, &error), WEIR_OK);
    assert_int_equal(receipt.file_count, 4);
    assert_string_equal(receipt.request.precision, "f32");
    assert_int_equal(weir_cli_receipt_complete(&receipt, &error), WEIR_BAD_ARGUMENT);
    assert_non_null(strstr(error.words, "LoRA of digest " ABC ": --lora FILE"));
    assert_int_equal(weir_cli_receipt_give(&receipt, "--lora", path, &error), WEIR_OK);
    assert_int_equal(weir_cli_receipt_give(&receipt, "--lora", "/nowhere/x", &error), WEIR_NOT_FOUND);
    assert_int_equal(weir_cli_receipt_complete(&receipt, &error), WEIR_BAD_ARGUMENT);
    assert_non_null(strstr(error.words, NOTHING));
    assert_int_equal(weir_cli_receipt_give(&receipt, "--lora", "/dev/null", &error), WEIR_OK);
    assert_int_equal(weir_cli_receipt_give(&receipt, "--image", path, &error), WEIR_OK);
    assert_int_equal(weir_cli_receipt_complete(&receipt, &error), WEIR_BAD_ARGUMENT);
    assert_non_null(strstr(error.words, "control image of digest " ABC ": --control FILE"));
    assert_int_equal(weir_cli_receipt_give(&receipt, "--control", "/dev/null", &error), WEIR_BAD_ARGUMENT);
    assert_non_null(strstr(error.words, "--control /dev/null: the receipt names none of its digest " NOTHING));
    assert_int_equal(weir_cli_receipt_give(&receipt, "--control", path, &error), WEIR_OK);
    assert_int_equal(weir_cli_receipt_complete(&receipt, &error), WEIR_OK);
    const struct weir_request *r = &receipt.request;
    assert_int_equal(r->lora_count, 2);
    assert_string_equal(r->loras[0].path, path);
    assert_string_equal(r->loras[1].path, "/dev/null");
    assert_true(r->loras[0].weight == 0.5 && r->loras[1].weight == -1);
    assert_string_equal(r->control, path);
    assert_string_equal(r->start_image, path);
    assert_true(r->control_scale == 0.25 && r->strength == 0.75);
    weir_cli_receipt_destroy(&receipt);
    unlink(path);
}

static void files_of_a_command_line_are_taken_apart(void **state)
{
    (void)state;
    struct weir_cli_request from = WEIR_CLI_REQUEST_INIT;
    struct weir_request request;
    struct weir_error error;
    from.loras = (struct weir_option_texts){ 2, { "a.safetensors:0.5", "d:/b" } };
    from.control = "edges.png:0.75";
    assert_int_equal(weir_cli_request_files(&from, &error), WEIR_OK);
    assert_int_equal(weir_cli_request_read(&from, "x", &request, &error), WEIR_OK);
    assert_int_equal(request.lora_count, 2);
    assert_string_equal(request.loras[0].path, "a.safetensors");
    assert_string_equal(request.loras[1].path, "d:/b");
    assert_true(request.loras[0].weight == 0.5 && request.loras[1].weight == 1);
    assert_string_equal(request.control, "edges.png");
    assert_true(request.control_scale == 0.75 && request.strength < 0);
    from.control = "edges.png:-1";
    assert_int_equal(weir_cli_request_files(&from, &error), WEIR_BAD_ARGUMENT);
    assert_non_null(strstr(error.words, "--control edges.png:-1: a number from 0 to 10"));
}

static void a_receipt_that_cannot_be_believed_is_refused_by_field(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *says;
    } bad[] = {
        { "{\"encoder\"", "\"encoder\"", "no JSON" },
        { "\"weir\":1", "\"weir\":2", "weir is missing" },
        { "\"encoder\":\"libx 1\"", "\"encoder\":1", "encoder" },
        { "\"cpu-x\"", "\"\"", "numerics_class" },
        { "\"spec\"", "\"speck\"", "spec is missing" },
        { "\"n\":1", "\"n\":2", "spec.n" },
        { "\"spec_version\":1", "\"spec_version\":9", "spec.spec_version" },
        { "\"width\":64", "\"width\":0", "spec.width" },
        { "\"width\":64", "\"width\":4294967296", "spec.width" },
        { "\"height\":48", "\"height\":\"48\"", "spec.height" },
        { "\"guidance\":2.5", "\"guidance\":-1", "spec.guidance" },
        { "\"steps\":7", "\"steps\":7.5", "spec.steps" },
        { "\"prompt\":", "\"promt\":", "spec.prompt" },
        { "\"precision\":\"f32\"", "\"precision\":32", "spec.precision" },
        { "\"sampler\":\"ddim\"", "\"sampler\":\"12345678901234567\"", "spec.sampler" },
        { "\"model\":\"tiny\",\"model_digest\":\"0011", "\"model\":\"tiny\",\"model_digest\":\"0",
          "spec.model_digest" },
        { "\"model\":\"tiny\"", "\"model\":\"/etc\"", "/etc" },
        { "\"model\":\"tiny\"", "\"model\":\"../tiny\"", "no name" },
        { "\"model\":\"tiny\"", "\"model\":\"a/../../b\"", "no name" },
        { "\"model\":\"tiny\"", "\"model\":\"--help\"", "no name" },
        { "\"steps\":7", "\"steps\":7,\"loras\":{}", "spec.loras" },
        { "\"steps\":7", "\"steps\":7,\"loras\":[1]", "spec.loras" },
        { "\"steps\":7", "\"steps\":7,\"loras\":[1,1,1,1,1,1,1,1,1]", "spec.loras" },
        { "\"steps\":7", "\"steps\":7,\"loras\":[{\"file\":\"" ABC "\"}]", "spec.loras" },
        { "\"steps\":7", "\"steps\":7,\"control\":\"x\"", "spec.control" },
        { "\"steps\":7", "\"steps\":7,\"start_image\":\"" ABC "\",\"strength\":\"1\"", "spec.strength" },
    };
    for (size_t i = 0; i < WEIR_COUNT(bad); i++) {
        struct weir_cli_receipt receipt;
        struct weir_error error = { 0 };
        assert_int_equal(read_receipt(bad[i].from, bad[i].to, &receipt, &error), WEIR_BAD_FILE);
        if (!strstr(error.words, bad[i].says) || !strstr(error.words, "cat.png")) {
            fail_msg("\"%s\" does not say \"%s\"", error.words, bad[i].says);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_size_is_two_numbers_with_an_x),
        cmocka_unit_test(the_ending_of_the_output_chooses_the_format),
        cmocka_unit_test(several_films_get_numbers_before_the_ending),
        cmocka_unit_test(without_an_output_the_prompt_names_a_file_that_is_free),
        cmocka_unit_test(an_output_that_cannot_be_is_said_beforehand),
        cmocka_unit_test(a_receipt_becomes_the_request_that_made_it),
        cmocka_unit_test(files_of_a_receipt_are_found_by_their_digest),
        cmocka_unit_test(files_of_a_command_line_are_taken_apart),
        cmocka_unit_test(a_receipt_that_cannot_be_believed_is_refused_by_field),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
