/* Large requests against a broker that is pretended: cut, handed over, waited for, fetched. */
#include "client/weir.h"
#include "proto/base/bytes.h"
#include "tests/integration/pretend_cluster.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct trial {
    struct pretend_cluster cluster;
    struct weir_client *client;
    char out[65536], err[65536]; /* of the program's last run */
};

static int setup(void **state)
{
    struct trial *t = calloc(1, sizeof *t);
    if (!t) return -1;
    pretend_cluster_prepare(&t->cluster);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct trial *t = *state;
    weir_client_close(&t->client);
    pretend_cluster_stop(&t->cluster);
    free(t);
    return 0;
}

static void start(struct trial *t)
{
    struct weir_error error = { .words = "" };
    pretend_cluster_start(&t->cluster);
    if (weir_client_open(t->cluster.dir, &t->client, &error) != WEIR_OK) fail_msg("%s", error.words);
}

struct told {
    uint32_t lines[1024];
    size_t count, calls;
    bool waited;
    char words[400];
};

static bool take_progress(void *context, const struct weir_batch_progress *progress)
{
    struct told *told = context;
    told->calls++;
    told->waited |= progress->waiting;
    assert_true(progress->parts_accepted <= progress->parts && progress->prompts_accepted <= progress->prompts);
    return true;
}

static void take_refused(void *context, uint32_t line, const struct weir_error *why)
{
    struct told *told = context;
    assert_true(told->count < 1024);
    told->lines[told->count++] = line;
    snprintf(told->words, sizeof told->words, "%s", why->words);
}

static struct weir_batch *batch_of(struct trial *t, const struct weir_request *request, const char *key, uint32_t count)
{
    struct weir_batch *batch;
    struct weir_error error = { .words = "" };
    if (weir_batch_open(t->client, request, key, &batch, &error) != WEIR_OK) fail_msg("%s", error.words);
    for (uint32_t i = 0; i < count; i++) {
        char text[64];
        struct weir_prompt prompt = WEIR_PROMPT_INIT;
        snprintf(text, sizeof text, "prompt number %u", i + 1);
        prompt.text = text;
        if (weir_batch_add(batch, &prompt, &error) != WEIR_OK) fail_msg("%s", error.words);
    }
    return batch;
}

static void submit(struct trial *t, struct weir_batch *batch, struct told *told)
{
    struct weir_error error = { .words = "" };
    memset(told, 0, sizeof *told);
    if (weir_client_submit_batch(t->client, batch, take_progress, take_refused, told, &error) != WEIR_OK) {
        fail_msg("%s", error.words);
    }
}

/* Every line from 1 to `count` lies in the jobs of the batch once, in order, but those that are a multiple of `without`. */
static void holds_lines(struct trial *t, uint32_t count, uint32_t without)
{
    uint32_t line = 0;
    for (uint32_t part = 0, found = 1; found; part++) {
        found = 0;
        for (int i = 0; i < t->cluster.job_count; i++) {
            const struct pretend_job *job = &t->cluster.jobs[i];
            if (job->part != part) continue;
            found = 1;
            for (size_t p = 0; p < job->spec->n_prompts; p++) {
                line++;
                if (without && line % without == 0) line++;
                assert_int_equal(job->spec->prompts[p]->line, line);
            }
        }
    }
    if (without && (line + 1) % without == 0) line++;
    assert_int_equal(line, count);
}

static void a_batch_is_cut_into_jobs_that_share_its_id(void **state)
{
    struct trial *t = *state;
    struct told told;
    const struct weir_request request = WEIR_REQUEST_INIT;
    start(t);
    struct weir_batch *batch = batch_of(t, &request, NULL, 1100);
    assert_int_equal(weir_batch_parts(batch), 3);
    submit(t, batch, &told);
    assert_int_equal(t->cluster.job_count, 3);
    assert_true(t->cluster.most_at_once > 1 && t->cluster.most_at_once <= 4);
    char id[WEIR_JOB_BYTES];
    for (int i = 0; i < 3; i++) {
        const struct pretend_job *job = &t->cluster.jobs[i];
        weir_hex_write(job->batch, sizeof job->batch, id);
        assert_string_equal(id, weir_batch_id(batch));
        assert_int_equal(job->parts, 3);
        assert_int_equal(job->spec->n_prompts, job->part < 2 ? 512 : 76);
        assert_true(job->spec->prompts[0]->has_seed);
        assert_false(job->spec->has_seed);
        assert_int_not_equal(job->spec->prompts[0]->seed, job->spec->prompts[1]->seed);
    }
    holds_lines(t, 1100, 0);
    struct weir_job_line *lines;
    size_t count;
    assert_int_equal(weir_client_list_batch(t->client, id, &lines, &count, NULL), WEIR_OK);
    assert_int_equal(count, 3);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(lines[i].part, i);
        assert_string_equal(lines[i].job, weir_batch_job(batch, (uint32_t)i));
    }
    free(lines);
    weir_batch_close(&batch);
    assert_int_equal(weir_client_list_batch(t->client, "00112233445566778899aabbccddeeff", &lines, &count, NULL),
                     WEIR_NOT_FOUND);
}

static void items_bytes_and_shapes_have_a_limit_a_job(void **state)
{
    struct trial *t = *state;
    struct weir_request request = WEIR_REQUEST_INIT;
    struct weir_error error = { .words = "" };
    struct weir_prompt prompt = WEIR_PROMPT_INIT;
    start(t);
    request.n = 4;
    struct weir_batch *batch = batch_of(t, &request, NULL, 129);
    assert_int_equal(weir_batch_parts(batch), 2);
    weir_batch_close(&batch);
    request.n = 513;
    assert_int_equal(weir_batch_open(t->client, &request, NULL, &batch, &error), WEIR_BAD_ARGUMENT);
    assert_non_null(strstr(error.words, "513"));

    request.n = 0;
    batch = batch_of(t, &request, NULL, 0);
    prompt.text = "x";
    for (uint32_t i = 1; i <= 96; i++) { /* 32 sizes, each three times in turn; then a new one */
        prompt.width = 8 * (1 + i % 32);
        assert_int_equal(weir_batch_add(batch, &prompt, &error), WEIR_OK);
    }
    assert_int_equal(weir_batch_parts(batch), 1);
    prompt.guidance = 1;
    assert_int_equal(weir_batch_add(batch, &prompt, &error), WEIR_OK);
    assert_int_equal(weir_batch_parts(batch), 2);
    weir_batch_close(&batch);

    static char text[10241];
    memset(text, 'x', 10240);
    prompt = (struct weir_prompt)WEIR_PROMPT_INIT;
    prompt.text = text;
    batch = batch_of(t, &request, NULL, 0);
    for (int i = 0; i < 100; i++) assert_int_equal(weir_batch_add(batch, &prompt, &error), WEIR_OK);
    assert_int_equal(weir_batch_parts(batch), 3); /* a million bytes */
    text[0] = '\xff';
    assert_int_equal(weir_batch_add(batch, &prompt, &error), WEIR_BAD_ARGUMENT);
    assert_non_null(strstr(error.words, "UTF-8"));
    weir_batch_close(&batch);
}

static void a_broker_that_has_enough_is_waited_for(void **state)
{
    struct trial *t = *state;
    struct told told;
    const struct weir_request request = WEIR_REQUEST_INIT;
    t->cluster.busy = 30;
    start(t);
    struct weir_batch *batch = batch_of(t, &request, NULL, 1100);
    submit(t, batch, &told);
    assert_int_equal(t->cluster.job_count, 3);
    assert_int_equal(t->cluster.submits, 33);
    assert_true(told.waited);
    weir_batch_close(&batch);
}

static void what_gets_no_answer_is_sent_again(void **state)
{
    struct trial *t = *state;
    struct told told;
    const struct weir_request request = WEIR_REQUEST_INIT;
    t->cluster.deaf = 2;
    start(t);
    struct weir_batch *batch = batch_of(t, &request, NULL, 1100);
    submit(t, batch, &told);
    assert_int_equal(t->cluster.job_count, 3);
    holds_lines(t, 1100, 0);
    weir_batch_close(&batch);
}

static void a_refused_line_costs_itself(void **state)
{
    struct trial *t = *state;
    struct told told;
    const struct weir_request request = WEIR_REQUEST_INIT;
    t->cluster.refuse_step = 11;
    start(t);
    struct weir_batch *batch = batch_of(t, &request, "a key", 1100);
    submit(t, batch, &told);
    assert_int_equal(told.count, 100);
    for (size_t i = 0; i < told.count; i++) assert_int_equal(told.lines[i] % 11, 0);
    assert_string_equal(told.words, "--size 33x33: a multiple of 8 is wanted");
    holds_lines(t, 1100, 11);
    weir_batch_close(&batch);

    /* the same key and prompts: the same jobs, by the same refusals */
    batch = batch_of(t, &request, "a key", 1100);
    submit(t, batch, &told);
    assert_int_equal(told.count, 100);
    assert_int_equal(t->cluster.job_count, 3);
    weir_batch_close(&batch);
    batch = batch_of(t, &request, "a key", 1099);
    struct weir_error error = { .words = "" };
    t->cluster.refuse_step = 0;
    assert_int_equal(weir_client_submit_batch(t->client, batch, NULL, NULL, NULL, &error), WEIR_OK);
    assert_int_equal(t->cluster.job_count, 6); /* without refusals these are other requests, under other keys */
    weir_batch_close(&batch);
}

static void a_part_that_loses_every_line_is_left_out(void **state)
{
    struct trial *t = *state;
    struct told told;
    const struct weir_request request = WEIR_REQUEST_INIT;
    t->cluster.refuse_step = 1;
    start(t);
    struct weir_batch *batch = batch_of(t, &request, NULL, 20);
    submit(t, batch, &told);
    assert_int_equal(told.count, 20);
    assert_null(weir_batch_job(batch, 0));
    assert_int_equal(t->cluster.job_count, 0);
    weir_batch_close(&batch);
}

static void a_refusal_of_all_is_an_error_and_can_be_gone_on_from(void **state)
{
    struct trial *t = *state;
    struct weir_error error = { .words = "" };
    const struct weir_request request = WEIR_REQUEST_INIT;
    t->cluster.no_workers = 3;
    start(t);
    struct weir_batch *batch = batch_of(t, &request, NULL, 1100);
    assert_int_equal(weir_client_submit_batch(t->client, batch, NULL, NULL, NULL, &error), WEIR_UNAVAILABLE);
    assert_string_equal(error.words, "nobody serves a model");
    struct told told;
    submit(t, batch, &told);
    assert_int_equal(t->cluster.job_count, 3);
    holds_lines(t, 1100, 0);
    weir_batch_close(&batch);
}

static void a_list_of_more_jobs_than_a_page_is_whole(void **state)
{
    struct trial *t = *state;
    struct told told;
    struct weir_request request = WEIR_REQUEST_INIT;
    request.n = 512;
    start(t);
    struct weir_batch *batch = batch_of(t, &request, NULL, 1100);
    submit(t, batch, &told);
    struct weir_job_line *lines;
    size_t count;
    assert_int_equal(weir_client_list_batch(t->client, weir_batch_id(batch), &lines, &count, NULL), WEIR_OK);
    assert_int_equal(count, 1100);
    for (size_t i = 0; i < count; i++) assert_int_equal(lines[i].part, i);
    free(lines);
    weir_batch_close(&batch);
}

/* ---- files --------------------------------------------------------------------------------------------------------- */

static const char *write_file(struct trial *t, const char *name, const char *text)
{
    static char path[128];
    struct weir_error error = { .words = "" };
    snprintf(path, sizeof path, "%s/%s", t->cluster.dir, name);
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(weir_fd_write(fd, text, strlen(text), path, &error), WEIR_OK);
    close(fd);
    return path;
}

static void the_store_has(struct trial *t, const Weir__Pb__FileRef *file, const char *text)
{
    uint8_t digest[WEIR_SHA256_BYTES];
    char key[WEIR_KEY_BYTES];
    void *bytes;
    size_t count;
    weir_sha256_of(text, strlen(text), digest);
    assert_memory_equal(file->digest.data, digest, sizeof digest);
    assert_int_equal(file->bytes, strlen(text));
    weir_key_file("default", digest, key);
    assert_int_equal(weir_store_get(t->cluster.store, key, 1000, &bytes, &count, NULL), WEIR_OK);
    assert_int_equal(count, strlen(text));
    assert_memory_equal(bytes, text, count);
    free(bytes);
}

static void files_of_a_request_are_in_the_store_before_it_is_sent(void **state)
{
    struct trial *t = *state;
    char lora[128], control[128], image[128], job[WEIR_JOB_BYTES];
    struct weir_error error = { .words = "" };
    start(t);
    snprintf(lora, sizeof lora, "%s", write_file(t, "x.safetensors", "a LoRA"));
    snprintf(control, sizeof control, "%s", write_file(t, "edges.png", "edges"));
    snprintf(image, sizeof image, "%s", write_file(t, "start.png", "start"));
    const struct weir_lora loras[] = { { .path = lora, .weight = 0.5 }, { .path = lora, .weight = 2 } };
    struct weir_request request = WEIR_REQUEST_INIT;
    request.prompt = "x";
    request.loras = loras;
    request.lora_count = 2;
    request.control = control;
    request.control_scale = 0.75;
    request.start_image = image;
    request.strength = 0.25;
    if (weir_client_submit(t->client, &request, NULL, job, &error) != WEIR_OK) fail_msg("%s", error.words);
    const Weir__Pb__JobSpec *spec = t->cluster.jobs[0].spec;
    assert_int_equal(spec->n_loras, 2);
    assert_true(spec->loras[0]->weight == 0.5 && spec->loras[1]->weight == 2);
    assert_true(spec->control_scale == 0.75 && spec->strength == 0.25);
    assert_string_equal(spec->loras[0]->file->name, "x.safetensors");
    the_store_has(t, spec->loras[1]->file, "a LoRA");
    the_store_has(t, spec->control, "edges");
    the_store_has(t, spec->start_image, "start");

    /* by its digest, without the file; and a file that has changed meanwhile is another one */
    uint8_t digest[WEIR_SHA256_BYTES];
    char hex[WEIR_SHA256_HEX_BYTES];
    weir_sha256_of("a LoRA", 6, digest);
    weir_hex_write(digest, sizeof digest, hex);
    write_file(t, "x.safetensors", "another LoRA");
    const struct weir_lora again[] = { { .digest = hex, .weight = 1 }, { .path = lora, .weight = 1 } };
    request.loras = again;
    if (weir_client_submit(t->client, &request, NULL, job, &error) != WEIR_OK) fail_msg("%s", error.words);
    the_store_has(t, t->cluster.jobs[1].spec->loras[0]->file, "a LoRA");
    the_store_has(t, t->cluster.jobs[1].spec->loras[1]->file, "another LoRA");
    hex[0] = hex[0] == '0' ? '1' : '0';
    assert_int_equal(weir_client_submit(t->client, &request, NULL, job, &error), WEIR_NOT_FOUND);
    assert_non_null(strstr(error.words, hex));
}

static void a_file_that_cannot_be_handed_over_is_said(void **state)
{
    struct trial *t = *state;
    char job[WEIR_JOB_BYTES], path[128];
    struct weir_error error = { .words = "" };
    struct weir_request request = WEIR_REQUEST_INIT;
    t->cluster.hide_store = true;
    start(t);
    request.prompt = "x";
    request.control = "/nowhere/x.png";
    assert_int_equal(weir_client_submit(t->client, &request, NULL, job, &error), WEIR_NOT_FOUND);
    assert_non_null(strstr(error.words, "control image /nowhere/x.png"));
    request.control = t->cluster.dir;
    assert_int_equal(weir_client_submit(t->client, &request, NULL, job, &error), WEIR_BAD_FILE);
    snprintf(path, sizeof path, "%s", write_file(t, "large.png", ""));
    request.control = path;
    assert_int_equal(weir_client_submit(t->client, &request, NULL, job, &error), WEIR_BAD_FILE);
    assert_int_equal(truncate(path, (64 << 20) + 1), 0);
    assert_int_equal(weir_client_submit(t->client, &request, NULL, job, &error), WEIR_TOO_LARGE);
    assert_non_null(strstr(error.words, "67108865 bytes, at most 67108864 are allowed"));
    assert_int_equal(truncate(path, 100), 0);
    assert_int_equal(weir_client_submit(t->client, &request, NULL, job, &error), WEIR_UNAVAILABLE);
    assert_non_null(strstr(error.words, "/nowhere/store cannot be"));
    assert_int_equal(t->cluster.job_count, 0);
}

static void a_list_of_one_job_needs_no_batch(void **state)
{
    struct trial *t = *state;
    char job[WEIR_JOB_BYTES];
    struct weir_error error = { .words = "" };
    struct weir_report *report;
    const struct weir_prompt prompts[] = {
        { .text = "one", .guidance = -1 }, { .text = "two", .guidance = 0, .steps = 7, .seed_given = true, .seed = 9 }
    };
    struct weir_request request = WEIR_REQUEST_INIT;
    request.prompts = prompts;
    request.prompt_count = 2;
    request.n = 3;
    t->cluster.reversed = true;
    start(t);
    if (weir_client_submit(t->client, &request, "key", job, &error) != WEIR_OK) fail_msg("%s", error.words);
    assert_int_equal(weir_client_show(t->client, job, &report, &error), WEIR_OK);
    assert_int_equal(report->items, 6);
    assert_int_equal(report->prompt_count, 2);
    assert_string_equal(report->prompts[0].text, "two");
    assert_int_equal(report->prompts[0].line, 2);
    assert_int_equal(report->prompts[0].seed, 9);
    assert_int_equal(report->object_count, 6);
    weir_report_destroy(&report);
    char again[WEIR_JOB_BYTES];
    assert_int_equal(weir_client_submit(t->client, &request, "key", again, &error), WEIR_OK);
    assert_string_equal(job, again); /* the seed that nobody gave is of the key */
    request.n = 300;
    assert_int_equal(weir_client_submit(t->client, &request, NULL, job, &error), WEIR_TOO_LARGE);
}

/* ---- the program --------------------------------------------------------------------------------------------------- */

static void read_back(const char *folder, const char *name, char *out, size_t room)
{
    char path[192];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    out[fread(out, 1, room - 1, file)] = '\0';
    fclose(file);
}

/* Runs `weir WORDS` in the cluster's folder; $D is that folder. Its exit code. */
static int weir(struct trial *t, const char *words)
{
    char command[2048];
    snprintf(command, sizeof command, "cd %s && D=%s && %s/weir %s >stdout 2>stderr", t->cluster.dir, t->cluster.dir,
             WEIR_BIN_DIR, words);
    const int state = system(command);
    read_back(t->cluster.dir, "stdout", t->out, sizeof t->out);
    read_back(t->cluster.dir, "stderr", t->err, sizeof t->err);
    assert_true(WIFEXITED(state));
    return WEXITSTATUS(state);
}

static void says(const char *text, const char *wanted)
{
    if (!strstr(text, wanted)) fail_msg("\"%s\" does not say \"%s\"", text, wanted);
}

static bool has_file(struct trial *t, const char *name)
{
    char path[192];
    snprintf(path, sizeof path, "%s/%s", t->cluster.dir, name);
    return access(path, F_OK) == 0;
}

/* `weir WORDS ID MORE` with the id that the last run printed. */
static int weir_of_id(struct trial *t, const char *verb, const char *more)
{
    static char id[WEIR_JOB_BYTES];
    char words[512];
    if (strspn(t->out, "0123456789abcdef") == 32) snprintf(id, sizeof id, "%.32s", t->out);
    snprintf(words, sizeof words, "%s --dir $D %s %s", verb, id, more);
    return weir(t, words);
}

static void a_file_of_prompts_becomes_a_folder_of_pictures(void **state)
{
    struct trial *t = *state;
    t->cluster.reversed = true;
    t->cluster.refuse_line = 2;
    start(t);
    write_file(t, "p.jsonl",
               "{\"prompt\":\"one\",\"seed\":5}\n{\"prompt\":\"two\",\"size\":\"33x33\"}\n{\"prompt\":\"three\"\n"
               "{\"prompt\":\"four\",\"steps\":0}\n\n{\"prompt\":\"six\"}\n{\"prompt\":\"a\"}\n{\"prompt\":\"b\"}\n"
               "{\"prompt\":\"c\"}\n{\"prompt\":\"ten\",\"seed\":7}\n");
    assert_int_equal(weir(t, "submit --dir $D --prompts p.jsonl --n 2"), 3);
    assert_int_equal(strspn(t->out, "0123456789abcdef"), 32);
    assert_int_equal(strncmp(t->err, "p.jsonl:2: --size 33x33: a multiple of 8 is wanted\np.jsonl:3: not a JSON", 70),
                     0);
    says(t->err, "p.jsonl:4: steps 0: a whole number from 1 to 1000 is wanted\n");
    assert_int_equal(weir_of_id(t, "wait", ""), 0);
    says(t->out, " succeeded, 12 of 12 images\n");
    char id[33];
    snprintf(id, sizeof id, "%.32s", t->out);
    assert_int_equal(weir_of_id(t, "fetch", "-o out/"), 0);
    says(t->out, "out/01-0.png\nout/01-1.png\nout/06-0.png\n");
    says(t->out, "out/10-1.png\n");
    char manifest[65536];
    read_back(t->cluster.dir, "out/manifest.json", manifest, sizeof manifest);
    says(manifest, id);
    says(manifest, "{\"line\":1,\"index\":1,\"prompt\":\"one\",\"seed\":6,\"file\":\"01-1.png\",\"sha256\":\"");
    says(manifest, "{\"line\":10,\"index\":0,\"prompt\":\"ten\",\"seed\":7,\"file\":\"10-0.png\"");
    char command[256];
    snprintf(command, sizeof command,
             "%s/weir-encode probe %s/out/contact-sheet.png | grep -q '\"width\":660,\"height\":316'", WEIR_BIN_DIR,
             t->cluster.dir);
    if (system(command) != 0) fail_msg("the contact sheet is not of 4 x 3 cells of 160 x 100");
}

static void a_fetch_goes_on_where_it_stopped(void **state)
{
    struct trial *t = *state;
    struct stat kept, after;
    char path[128];
    start(t);
    write_file(t, "p.txt", "one\ntwo\nthree\n");
    assert_int_equal(weir(t, "submit --dir $D --prompts p.txt"), 0);
    assert_int_equal(weir_of_id(t, "fetch", "-o out"), 0);
    snprintf(path, sizeof path, "%s/out/1-0.png", t->cluster.dir);
    assert_int_equal(stat(path, &kept), 0);
    write_file(t, "out/2-0.png", "damaged");
    snprintf(path, sizeof path, "%s/out/3-0.png", t->cluster.dir);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(weir_of_id(t, "fetch", "-o out"), 0);
    assert_true(has_file(t, "out/3-0.png"));
    snprintf(path, sizeof path, "%s/out/2-0.png", t->cluster.dir);
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(after.st_size, t->cluster.picture_bytes);
    snprintf(path, sizeof path, "%s/out/1-0.png", t->cluster.dir);
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(after.st_ino, kept.st_ino);
}

static void what_is_lost_is_named_and_the_rest_is_there(void **state)
{
    struct trial *t = *state;
    char manifest[65536];
    t->cluster.lose_line = 2;
    start(t);
    write_file(t, "p.csv", "prompt\none\ntwo\nthree\n"); /* lines 2 to 4 */
    assert_int_equal(weir(t, "submit --dir $D --prompts p.csv --n 2"), 0);
    char id[33];
    snprintf(id, sizeof id, "%.32s", t->out);
    assert_int_equal(weir_of_id(t, "show", "--json"), 0); /* the pretended job fails when it is looked at */
    snprintf(t->out, sizeof t->out, "%s\n", id);
    assert_int_equal(weir_of_id(t, "wait", ""), 3);
    says(t->out, " failed, 4 of 6 images\n");
    says(t->err, "weir: 2 of 6 are lost: the device is gone; items are lost\n");
    assert_int_equal(weir_of_id(t, "fetch", "-o out"), 3);
    assert_false(has_file(t, "out/2-0.png"));
    assert_true(has_file(t, "out/3-1.png") && has_file(t, "out/contact-sheet.png"));
    says(t->err, "weir: line 2, item 1 is lost: the device is gone");
    read_back(t->cluster.dir, "out/manifest.json", manifest, sizeof manifest);
    says(manifest, "\"line\":2,\"index\":0,\"prompt\":\"one\",\"seed\":");
    says(manifest, "\"error\":\"the device is gone; items are lost\"}");
}

static void write_many(struct trial *t, const char *name, int count)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", t->cluster.dir, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (int i = 0; i < count; i++) fprintf(file, "a red circle number %d\n", i);
    fclose(file);
}

static void a_batch_is_shown_listed_and_cancelled_by_its_id(void **state)
{
    struct trial *t = *state;
    t->cluster.stay_open = true;
    start(t);
    write_many(t, "p.txt", 1200);
    assert_int_equal(weir(t, "submit --dir $D --prompts p.txt --json"), 0);
    says(t->out, "{\"batch\":\"");
    says(t->out, "\"parts\":3,\"refused\":0,\"jobs\":[\"");
    char id[33], words[128];
    snprintf(id, sizeof id, "%.32s", t->out + strlen("{\"batch\":\""));
    assert_int_equal(weir(t, "ls --dir $D"), 0);
    snprintf(words, sizeof words, "batch %s 2/3  a prompt\n", id);
    says(t->out, words);
    snprintf(t->out, sizeof t->out, "%s\n", id);
    assert_int_equal(weir_of_id(t, "show", ""), 0);
    says(t->out, ", 3 jobs\n");
    says(t->out, "3/3  a prompt\n");
    assert_int_equal(weir_of_id(t, "fetch", "-o none"), 70);
    says(t->err, "1200 are not made yet");
    assert_int_equal(weir_of_id(t, "cancel", ""), 0);
    says(t->out, "cancelled, 3 of 3 jobs\n");
    for (int i = 0; i < 3; i++) assert_int_equal(t->cluster.jobs[i].state, WEIR_JOB_CANCELLED);
    snprintf(t->out, sizeof t->out, "%s\n", id);
    assert_int_equal(weir_of_id(t, "cancel", ""), 64);
    assert_int_equal(weir_of_id(t, "wait", ""), 74);
    says(t->out, " cancelled, 0 of 1200 images\n");
    assert_int_equal(weir(t, "wait --dir $D 00112233445566778899aabbccddeeff"), 74);
    says(t->err, "00112233445566778899aabbccddeeff: no job and no batch has this id\n");
}

static void an_interrupted_wait_says_how_to_go_on(void **state)
{
    struct trial *t = *state;
    t->cluster.stay_open = true;
    start(t);
    write_file(t, "p.txt", "one\ntwo\n");
    assert_int_equal(weir(t, "submit --dir $D --prompts p.txt"), 0);
    char id[33], command[640];
    snprintf(id, sizeof id, "%.32s", t->out);
    snprintf(command, sizeof command,
             "cd %s && timeout -s INT --preserve-status 4 %s/weir wait --dir %s %s >stdout 2>stderr", t->cluster.dir,
             WEIR_BIN_DIR, t->cluster.dir, id);
    const int state_of_it = system(command);
    assert_int_equal(WEXITSTATUS(state_of_it), 130);
    read_back(t->cluster.dir, "stderr", t->err, sizeof t->err);
    snprintf(command, sizeof command, "goes on: weir wait --dir %s %s\n", t->cluster.dir, id);
    says(t->err, command);
}

static void bad_words_are_refused_in_a_line(void **state)
{
    struct trial *t = *state;
    static const struct {
        const char *words, *says;
        int code;
    } rows[] = {
        { "submit --dir $D --prompts p.txt x", "either PROMPTs or --prompts FILE", 64 },
        { "submit --dir $D", "either PROMPTs or --prompts FILE", 64 },
        { "submit --dir $D --prompts p.doc", "--prompts p.doc: an ending .txt, .jsonl or .csv is wanted", 64 },
        { "submit --dir $D --prompts none.txt", "none.txt: No such file", 74 },
        { "submit --dir $D --prompts empty.txt", "empty.txt: no prompt in it is usable", 64 },
        { "submit --dir $D --prompts bad.csv", "bad.csv: line 1: column 1 is \"colour\"", 74 },
        { "submit --dir $D --prompts p.txt --n 600", "n 600", 64 },
        { "submit --dir $D --prompts p.txt --strength 0.5", "there is no --image", 64 },
        { "submit --dir $D --prompts p.txt --lora p.txt:1000", "--lora p.txt:1000", 64 },
        { "submit --dir $D --prompts p.txt --lora none", "LoRA none: No such file", 74 },
        { "submit --dir $D --prompts p.txt --precision f8", "--precision f8", 64 },
        { "run --prompts p.txt", "with --prompts a folder is wanted", 64 },
        { "run --prompts p.txt -o x.png", "-o x.png: with --prompts a folder is wanted", 64 },
    };
    start(t);
    write_file(t, "p.txt", "one\n");
    write_file(t, "empty.txt", "# nothing\n");
    write_file(t, "bad.csv", "colour\nred\n");
    for (size_t i = 0; i < WEIR_COUNT(rows); i++) {
        const int code = weir(t, rows[i].words);
        if (code != rows[i].code) fail_msg("weir %s: exit code %d: %s", rows[i].words, code, t->err);
        says(t->err, rows[i].says);
        if (strchr(t->err, '\n') != t->err + strlen(t->err) - 1) fail_msg("weir %s: %s", rows[i].words, t->err);
        assert_string_equal(t->out, "");
    }
    assert_int_equal(t->cluster.job_count, 0);
}

int main(void)
{
#define TRIAL(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TRIAL(a_batch_is_cut_into_jobs_that_share_its_id),
        TRIAL(items_bytes_and_shapes_have_a_limit_a_job),
        TRIAL(a_broker_that_has_enough_is_waited_for),
        TRIAL(what_gets_no_answer_is_sent_again),
        TRIAL(a_refused_line_costs_itself),
        TRIAL(a_part_that_loses_every_line_is_left_out),
        TRIAL(a_refusal_of_all_is_an_error_and_can_be_gone_on_from),
        TRIAL(a_list_of_more_jobs_than_a_page_is_whole),
        TRIAL(files_of_a_request_are_in_the_store_before_it_is_sent),
        TRIAL(a_file_that_cannot_be_handed_over_is_said),
        TRIAL(a_list_of_one_job_needs_no_batch),
        TRIAL(a_file_of_prompts_becomes_a_folder_of_pictures),
        TRIAL(a_fetch_goes_on_where_it_stopped),
        TRIAL(what_is_lost_is_named_and_the_rest_is_there),
        TRIAL(a_batch_is_shown_listed_and_cancelled_by_its_id),
        TRIAL(an_interrupted_wait_says_how_to_go_on),
        TRIAL(bad_words_are_refused_in_a_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
