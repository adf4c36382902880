#include "client/cli/prompts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a reader said: one line of text a prompt or fault. */
struct seen {
    char text[8192];
    size_t prompts, faults;
};

static bool take_prompt(void *context, const struct weir_prompt *p)
{
    struct seen *seen = context;
    char *at = seen->text + strlen(seen->text);
    at += sprintf(at, "%u [%.300s]", p->line, p->text);
    if (p->negative) at += sprintf(at, " not [%.100s]", p->negative);
    if (p->width || p->height) at += sprintf(at, " %ux%u", p->width, p->height);
    if (p->steps) at += sprintf(at, " steps %u", p->steps);
    if (p->guidance >= 0) at += sprintf(at, " guidance %g", p->guidance);
    if (p->seed_given) at += sprintf(at, " seed %llu", (unsigned long long)p->seed);
    for (size_t i = 0; i < p->lora_count; i++) at += sprintf(at, " lora %s %g", p->loras[i].path, p->loras[i].weight);
    sprintf(at, "\n");
    seen->prompts++;
    return true;
}

static void take_fault(void *context, uint32_t line, const struct weir_error *why)
{
    struct seen *seen = context;
    sprintf(seen->text + strlen(seen->text), "%u! %s\n", line, why->words);
    seen->faults++;
}

static enum weir_status read_bytes(enum weir_cli_prompts_kind kind, const char *bytes, size_t count, size_t piece,
                                   struct seen *seen, struct weir_error *error)
{
    const struct weir_cli_prompts_sink sink = { take_prompt, take_fault, seen };
    struct weir_cli_prompts *prompts;
    enum weir_status status = WEIR_OK;
    memset(seen, 0, sizeof *seen);
    assert_int_equal(weir_cli_prompts_open(kind, &sink, &prompts, error), WEIR_OK);
    for (size_t at = 0; at < count && status == WEIR_OK; at += piece) {
        status = weir_cli_prompts_feed(prompts, bytes + at, count - at < piece ? count - at : piece, error);
    }
    if (status == WEIR_OK) status = weir_cli_prompts_finish(prompts, error);
    weir_cli_prompts_close(&prompts);
    return status;
}

/* In pieces of every size it must come to the same. */
static void reads(enum weir_cli_prompts_kind kind, const char *bytes, size_t count, const char *wanted)
{
    for (size_t piece = 1; piece <= count + 1; piece += piece < 8 ? 1 : count / 3 + 1) {
        struct seen seen;
        struct weir_error error = { .words = "" };
        if (read_bytes(kind, bytes, count, piece, &seen, &error) != WEIR_OK) fail_msg("%s", error.words);
        assert_string_equal(seen.text, wanted);
    }
}
#define READS(kind, bytes, wanted) reads(WEIR_CLI_PROMPTS_##kind, bytes, sizeof(bytes) - 1, wanted)

static void a_text_file_has_a_prompt_a_line(void **state)
{
    (void)state;
    READS(TXT, "a red circle\n\n \t \n# none\n a # star \nlast", "1 [a red circle]\n5 [ a # star ]\n6 [last]\n");
    READS(TXT,
          "\xef\xbb\xbf"
          "a\r\nb\r\n",
          "1 [a]\n2 [b]\n");
    READS(TXT, "", "");
    READS(TXT, "ok\nb\xff\nc\xc3\xa9\n\xed\xa0\x80\nok\n",
          "1 [ok]\n2! not UTF-8\n3 [c\xc3\xa9]\n4! not UTF-8\n5 [ok]\n");
    READS(TXT, "a\0b\nc\n", "1! a NUL byte in a line\n2 [c]\n");
}

static void a_json_line_says_what_it_wants(void **state)
{
    (void)state;
    READS(
        JSONL,
        "{\"prompt\":\"a \\u00e9\",\"negative\":\"b\",\"seed\":9223372036854774784,\"size\":\"64x32\",\"steps\":5,"
        "\"guidance\":2.5}\n\n{\"prompt\":\"c\",\"width\":8,\"height\":16,\"loras\":[{\"file\":\"x\",\"weight\":-0.5},"
        "{\"file\":\"y\"}]}",
        "1 [a \xc3\xa9] not [b] 64x32 steps 5 guidance 2.5 seed 9223372036854774784\n3 [c] 8x16 lora x -0.5 lora y 1\n");
}

static void a_broken_json_line_costs_itself_and_says_why(void **state)
{
    (void)state;
    static const char *const lines[][2] = {
        { "{\"prompt\":\"a\",\"steps\":0}", "steps 0: a whole number from 1 to 1000 is wanted" },
        { "{\"prompt\":\"a\",\"steps\":1.5}", "steps 1.5: a whole number from 1 to 1000 is wanted" },
        { "{\"prompt\":\"a\",\"steps\":\"7\"}", "steps \"7\": a whole number" },
        { "{\"prompt\":\"a\",\"width\":65537}", "width 65537: a whole number from 1 to 65536 is wanted" },
        { "{\"prompt\":\"a\",\"seed\":-1}", "seed -1" },
        { "{\"prompt\":\"a\",\"seed\":99999999999999999999}", "not a JSON object" },
        { "{\"prompt\":\"a\",\"guidance\":100.5}", "guidance 100.5: a number from 0 to 100 is wanted" },
        { "{\"prompt\":\"a\",\"guidance\":true}", "guidance true" },
        { "{\"prompt\":\"a\",\"size\":\"33x\"}", "size 33x: WIDTHxHEIGHT is wanted" },
        { "{\"prompt\":\"a\",\"size\":33}", "size 33: WIDTHxHEIGHT is wanted" },
        { "{\"prompt\":\"a\",\"size\":\"8x8\",\"height\":8}", "size and height" },
        { "{\"prompt\":[1]}", "prompt [1]: a text is wanted" },
        { "{\"prompt\":\"\"}", "prompt: 0 bytes, 1 to 10240 are allowed" },
        { "{\"negative\":\"a\"}", "prompt is missing" },
        { "{\"prompt\":\"a\",\"n\":4}", "n: no such key; there are prompt, negative" },
        { "{\"prompt\":\"a\",\"prompt\":\"b\"}", "not a JSON object: duplicate" },
        { "{\"prompt\":\"a\\u0000b\"}", "not a JSON object" },
        { "[\"a\"]", "not a JSON object: another kind" },
        { "{\"prompt\":", "not a JSON object" },
        { "{\"prompt\":\"a\",\"loras\":[{\"weight\":1}]}", "loras: number 1 is not {\"file\": PATH" },
        { "{\"prompt\":\"a\",\"loras\":[{\"file\":\"x\",\"weight\":101}]}", "loras x: a weight of 101" },
        { "{\"prompt\":\"a\",\"loras\":\"x\"}", "loras \"x\": a list of LoRAs is wanted" },
    };
    for (size_t i = 0; i < WEIR_COUNT(lines); i++) {
        char text[512];
        struct seen seen;
        struct weir_error error;
        snprintf(text, sizeof text, "{\"prompt\":\"one\"}\n%s\n{\"prompt\":\"three\"}\n", lines[i][0]);
        assert_int_equal(read_bytes(WEIR_CLI_PROMPTS_JSONL, text, strlen(text), 7, &seen, &error), WEIR_OK);
        assert_int_equal(seen.prompts, 2);
        assert_int_equal(seen.faults, 1);
        const char *fault = strstr(seen.text, "2! ");
        if (!fault || strncmp(fault + 3, lines[i][1], strlen(lines[i][1])) != 0) {
            fail_msg("%s gives %s", lines[i][0], seen.text);
        }
    }
}

static void a_csv_row_has_the_columns_of_its_header(void **state)
{
    (void)state;
    READS(
        CSV, "steps,prompt,size\n5,a,8x16\n,\"b, \"\"c\"\"\r\nd\",\n\n 7,e,\n3, f ,\n",
        "2 [a] 8x16 steps 5\n3 [b, \"c\"\r\nd]\n6! steps  7: a whole number from 1 to 1000 is wanted\n7 [ f ] steps 3\n");
    READS(CSV, "\xef\xbb\xbfprompt,loras,seed,guidance\r\na,x:0.5;y;d:/z,7,1e1\r\n",
          "2 [a] guidance 10 seed 7 lora x 0.5 lora y 1 lora d:/z 1\n");
    READS(CSV, "prompt,seed\na\nb,1,2\n,5\nc,0x1\nlast,3",
          "2! 1 fields; the header row has 2\n3! 3 fields; the header row has 2\n4! prompt is missing\n"
          "5! seed 0x1: a whole number from 0 to 9223372036854774784 is wanted\n6 [last] seed 3\n");
}

static void a_broken_quote_costs_its_row(void **state)
{
    (void)state;
    READS(CSV, "prompt\na\"b\nc\n",
          "2! a quote inside a field; a field that holds one is quoted as a whole, the one in it "
          "written twice\n3 [c]\n");
    READS(CSV, "prompt\na\n\"b\nc\n", "2 [a]\n3! a quote that is never closed\n");
    READS(CSV, "prompt\n\"b\n\xff\nc\n", "2! not UTF-8\n4 [c]\n");
    READS(CSV, "prompt\n\xff\nc\n", "2! not UTF-8\n3 [c]\n");
}

static void a_header_that_cannot_be_ends_the_file(void **state)
{
    (void)state;
    static const char *const files[][2] = {
        { "a red circle\nb\n", "line 1: column 1 is \"a red circle\"; a header row names some of prompt, negative" },
        { "seed,steps\n1,2\n", "line 1: a header row without \"prompt\"" },
        { "\nprompt,prompt\na,b\n", "line 2: column 2 is \"prompt\" again" },
        { "prompt,negative,seed,width,height,size,steps,guidance,loras,x\n", "line 1: a header of 10 columns" },
        { "pro\"mpt\n", "line 1: the header row: a quote" },
        { "", "no header row" },
    };
    for (size_t i = 0; i < WEIR_COUNT(files); i++) {
        struct seen seen;
        struct weir_error error;
        assert_int_equal(read_bytes(WEIR_CLI_PROMPTS_CSV, files[i][0], strlen(files[i][0]), 9, &seen, &error),
                         WEIR_BAD_FILE);
        if (strncmp(error.words, files[i][1], strlen(files[i][1])) != 0) fail_msg("%s", error.words);
        assert_int_equal(seen.prompts + seen.faults, 0);
    }
}

static void a_line_has_at_most_65536_bytes(void **state)
{
    (void)state;
    const size_t bytes = WEIR_CLI_PROMPT_LINE_BYTES_MAX;
    char *text = malloc(bytes + 64);
    struct seen seen;
    struct weir_error error;
    assert_non_null(text);
    for (int over = 0; over < 2; over++) {
        const size_t used = bytes + (size_t)over;
        memset(text, '#', used);
        strcpy(text + used, "\nb\n");
        assert_int_equal(read_bytes(WEIR_CLI_PROMPTS_TXT, text, used + 3, 1000, &seen, &error), WEIR_OK);
        assert_string_equal(seen.text, over ? "1! a line of over 65536 bytes\n2 [b]\n" : "2 [b]\n");
    }
    memset(text, 'a', 10241);
    strcpy(text + 10241, "\nb\n");
    assert_int_equal(read_bytes(WEIR_CLI_PROMPTS_TXT, text, 10244, 1000, &seen, &error), WEIR_OK);
    assert_string_equal(seen.text, "1! prompt: 10241 bytes, 1 to 10240 are allowed\n2 [b]\n");
    /* a quote that swallows the rest of a large file costs 64 KiB of it, not all */
    memset(text, 'a', bytes);
    memcpy(text, "prompt\n\"", 8);
    for (size_t i = 99; i < bytes; i += 100) text[i] = '\n';
    strcpy(text + bytes, "\nb\nc\nlast\n");
    assert_int_equal(read_bytes(WEIR_CLI_PROMPTS_CSV, text, strlen(text), 1000, &seen, &error), WEIR_OK);
    if (strncmp(seen.text, "2! a row of over 65536 bytes", 28) != 0) fail_msg("%s", seen.text);
    assert_int_equal(seen.faults, 1);
    free(text);
}

static void the_ending_chooses_the_form(void **state)
{
    (void)state;
    struct seen seen = { .prompts = 0 };
    const struct weir_cli_prompts_sink sink = { take_prompt, take_fault, &seen };
    struct weir_error error;
    assert_int_equal(weir_cli_prompts_read("prompts.json", &sink, &error), WEIR_BAD_ARGUMENT);
    assert_non_null(strstr(error.words, "--prompts prompts.json: an ending .txt, .jsonl or .csv is wanted"));
    assert_int_equal(weir_cli_prompts_read("/nowhere/prompts.txt", &sink, &error), WEIR_NOT_FOUND);
    assert_non_null(strstr(error.words, "/nowhere/prompts.txt"));
    assert_int_equal(weir_cli_prompts_read("/dev/.txt", &sink, &error), WEIR_NOT_FOUND);
}

static void a_number_behind_a_colon_is_taken_off_a_name(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t bytes;
        double number;
    } rows[] = { { "x.safetensors", 13, 9 }, { "x:0.5", 1, 0.5 }, { "x:-1", 1, -1 },
                 { "a:b:2", 3, 2 },          { "x:", 2, 9 },      { "x:y", 3, 9 },
                 { ":0.5", 4, 9 },           { "x: 1", 4, 9 },    { "x:nan", 5, 9 },
                 { "x:inf", 5, 9 },          { "d:/1/x:2", 6, 2 } };
    for (size_t i = 0; i < WEIR_COUNT(rows); i++) {
        double number = 9;
        assert_int_equal(weir_cli_split_number(rows[i].text, &number), rows[i].bytes);
        assert_true(number == rows[i].number);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_file_has_a_prompt_a_line),
        cmocka_unit_test(a_json_line_says_what_it_wants),
        cmocka_unit_test(a_broken_json_line_costs_itself_and_says_why),
        cmocka_unit_test(a_csv_row_has_the_columns_of_its_header),
        cmocka_unit_test(a_broken_quote_costs_its_row),
        cmocka_unit_test(a_header_that_cannot_be_ends_the_file),
        cmocka_unit_test(a_line_has_at_most_65536_bytes),
        cmocka_unit_test(the_ending_chooses_the_form),
        cmocka_unit_test(a_number_behind_a_colon_is_taken_off_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
