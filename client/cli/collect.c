#include "client/cli/collect.h"

#include "client/cli/encoder.h"
#include "client/cli/request.h"
#include "proto/base/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAME_BYTES = 48, TOLD_MAX = 1000 };

struct collecting {
    struct weir_client *client;
    const char *folder;
    bool json;
    int line_digits, index_digits;
    struct weir_cli_collected *out;
    FILE *manifest;
    bool any; /* something stands in the manifest */
    char (*pictures)[NAME_BYTES];
    size_t picture_count;
};

/* ---- one item ------------------------------------------------------------------------------------------------------ */

static bool has_bytes(const char *path, const struct weir_object_report *object)
{
    uint8_t bytes[1 << 16], digest[WEIR_SHA256_BYTES];
    char hex[WEIR_SHA256_HEX_BYTES];
    struct weir_sha256 sha;
    struct stat facts;
    ssize_t got;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return false;
    if (fstat(fd, &facts) != 0 || !S_ISREG(facts.st_mode) || (uint64_t)facts.st_size != object->bytes) {
        close(fd);
        return false;
    }
    weir_sha256_init(&sha);
    while ((got = read(fd, bytes, sizeof bytes)) > 0) weir_sha256_update(&sha, bytes, (size_t)got);
    weir_sha256_final(&sha, digest);
    close(fd);
    weir_hex_write(digest, sizeof digest, hex);
    return got == 0 && strcmp(hex, object->sha256) == 0;
}

/* A folder of frames is there when all of them are. */
static bool is_there(const char *path, const struct weir_object_report *objects, size_t count, bool is_folder)
{
    for (size_t i = 0; i < count; i++) {
        char frame[PATH_MAX + 80];
        snprintf(frame, sizeof frame, "%s/%s", path, objects[i].name);
        if (!has_bytes(is_folder ? frame : path, &objects[i])) return false;
    }
    return true;
}

static json_t *files_json(const struct weir_object_report *objects, size_t count)
{
    json_t *files = json_array();
    for (size_t i = 0; i < count; i++) {
        json_array_append_new(files, json_pack("{s:s,s:s,s:I}", "name", objects[i].name, "sha256", objects[i].sha256,
                                               "bytes", (json_int_t)objects[i].bytes));
    }
    return files;
}

/* Takes the entry over. */
static enum weir_status write_entry(struct collecting *c, json_t *entry, struct weir_error *error)
{
    char *text = entry ? json_dumps(entry, JSON_COMPACT) : NULL;
    json_decref(entry);
    if (!text) return weir_fail(error, WEIR_NO_MEMORY, "no memory for the manifest");
    fprintf(c->manifest, "%s\n%s", c->any ? "," : "", text);
    c->any = true;
    if (c->json) puts(text);
    free(text);
    return ferror(c->manifest) ? weir_fail(error, WEIR_IO, "%s/manifest.json: %s", c->folder, strerror(errno))
                               : WEIR_OK;
}

static void miss(struct collecting *c, const struct weir_report *report, uint32_t line, uint32_t index, json_t *entry)
{
    const char *words = !report->terminal ? "not made yet" : report->words[0] ? report->words : report->state;
    json_object_set_new(entry, "error", json_string(words));
    if (!report->terminal) {
        c->out->open++;
        return;
    }
    if (c->out->lost++ < TOLD_MAX) fprintf(stderr, "weir: line %u, item %u is lost: %s\n", line, index, words);
}

/* objects[0..count) are those of `item`; none: it was not made. */
static enum weir_status take_item(struct collecting *c, const struct weir_report *report, uint32_t item,
                                  const struct weir_object_report *objects, size_t count, struct weir_error *error)
{
    const uint32_t n = report->items / (uint32_t)report->prompt_count, index = item % n;
    const struct weir_prompt_report *prompt = &report->prompts[item / n];
    const uint32_t line = prompt->line ? prompt->line : 1;
    json_t *entry = json_pack("{s:i,s:i,s:s,s:I}", "line", (int)line, "index", (int)index, "prompt", prompt->text,
                              "seed", (json_int_t)(prompt->seed + index));
    if (!entry) return weir_fail(error, WEIR_NO_MEMORY, "no memory for the manifest");
    if (count == 0) {
        miss(c, report, line, index, entry);
        return write_entry(c, entry, error);
    }
    char name[NAME_BYTES], path[PATH_MAX];
    const char *ending = weir_cli_ending(report);
    snprintf(name, sizeof name, "%0*u-%0*u%s%.8s", c->line_digits, line, c->index_digits, index, ending[0] ? "." : "",
             ending);
    enum weir_status status = WEIR_OK;
    if (snprintf(path, sizeof path, "%s/%s", c->folder, name) >= PATH_MAX) {
        status = weir_fail(error, WEIR_BAD_ARGUMENT, "-o %s: the path is too long", c->folder);
    } else if (is_there(path, objects, count, !ending[0])) {
        c->out->kept++;
    } else {
        status = weir_client_fetch(c->client, report, item, path, error);
    }
    if (status != WEIR_OK) {
        json_decref(entry);
        return status;
    }
    c->out->made++;
    json_object_set_new(entry, "file", json_string(name));
    if (ending[0]) {
        json_object_set_new(entry, "sha256", json_string(objects[0].sha256));
        json_object_set_new(entry, "bytes", json_integer((json_int_t)objects[0].bytes));
    } else {
        json_object_set_new(entry, "files", files_json(objects, count));
    }
    if (report->image && c->picture_count < WEIR_CLI_SHEET_MAX) {
        memcpy(c->pictures[c->picture_count++], name, sizeof name);
    }
    if (!c->json) puts(path);
    return write_entry(c, entry, error);
}

/* ---- one job --------------------------------------------------------------------------------------------------------- */

struct place { /* of an item: where its line is, and its objects */
    uint32_t line, item;
    size_t first, count;
};

static int by_line(const void *a, const void *b)
{
    const struct place *one = a, *other = b;
    if (one->line != other->line) return one->line < other->line ? -1 : 1;
    return one->item < other->item ? -1 : one->item > other->item;
}

static enum weir_status take_report(struct collecting *c, const struct weir_report *report, struct weir_error *error)
{
    const uint32_t n = report->items / (uint32_t)report->prompt_count;
    struct place *places = calloc(report->items, sizeof *places);
    if (!places) return weir_fail(error, WEIR_NO_MEMORY, "no memory for %u items", report->items);
    for (uint32_t i = 0; i < report->items; i++) places[i] = (struct place){ report->prompts[i / n].line, i, 0, 0 };
    for (size_t i = 0; i < report->object_count; i++) { /* item after item */
        const uint32_t item = report->objects[i].item;
        if (item >= report->items) continue;
        if (places[item].count == 0) places[item].first = i;
        if (places[item].first + places[item].count == i) places[item].count++;
    }
    qsort(places, report->items, sizeof *places, by_line);
    enum weir_status status = WEIR_OK;
    for (uint32_t i = 0; i < report->items && status == WEIR_OK; i++) {
        status = take_item(c, report, places[i].item, report->objects + places[i].first, places[i].count, error);
    }
    free(places);
    if (report->terminal && !report->succeeded && c->out->cause == WEIR_OK) {
        c->out->cause = report->cause ? report->cause : WEIR_CANCELLED;
        snprintf(c->out->words, sizeof c->out->words, "job %s %s: %s", report->job, report->state, report->words);
    }
    return status;
}

static int digits_of(uint32_t number)
{
    int digits = 1;
    while (number /= 10) digits++;
    return digits;
}

/* The last part has the largest line. */
static enum weir_status measure(struct collecting *c, const struct weir_cli_jobs *jobs, struct weir_error *error)
{
    struct weir_report *report;
    const enum weir_status status = weir_client_show(c->client, jobs->lines[jobs->count - 1].job, &report, error);
    if (status != WEIR_OK) return status;
    uint32_t line = 1;
    for (size_t i = 0; i < report->prompt_count; i++) {
        if (report->prompts[i].line > line) line = report->prompts[i].line;
    }
    c->line_digits = digits_of(line);
    c->index_digits = digits_of(report->items / (uint32_t)report->prompt_count - 1);
    weir_report_destroy(&report);
    return WEIR_OK;
}

/* ---- the folder ------------------------------------------------------------------------------------------------------ */

static enum weir_status make_folders(const char *folder, struct weir_error *error)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/", folder) >= PATH_MAX) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "-o %s: the path is too long", folder);
    }
    for (char *slash = path + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = '\0';
        if (mkdir(path, 0777) != 0 && errno != EEXIST) {
            return weir_fail(error, WEIR_IO, "-o %s: %s: %s", folder, path, strerror(errno));
        }
    }
    return WEIR_OK;
}

static enum weir_status draw_sheet(struct collecting *c, struct weir_error *error)
{
    if (c->picture_count == 0) return WEIR_OK;
    const char **words = calloc(c->picture_count + 8, sizeof *words);
    char said[1];
    bool over;
    size_t count = 0;
    if (!words) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a contact sheet");
    words[count++] = "sheet";
    words[count++] = "--cpu-seconds";
    words[count++] = "600";
    words[count++] = "-o";
    words[count++] = "contact-sheet.png";
    words[count++] = "--";
    for (size_t i = 0; i < c->picture_count; i++) words[count++] = c->pictures[i];
    const enum weir_status status = weir_cli_encoder_run(words, c->folder, said, 0, &over, "contact-sheet.png", error);
    free(words);
    return status;
}

static enum weir_status take_jobs(struct collecting *c, const struct weir_cli_jobs *jobs, struct weir_error *error)
{
    enum weir_status status = measure(c, jobs, error);
    for (size_t i = 0; i < jobs->count && status == WEIR_OK; i++) {
        struct weir_report *report = NULL;
        status = weir_client_show(c->client, jobs->lines[i].job, &report, error);
        if (status == WEIR_OK) status = take_report(c, report, error);
        weir_report_destroy(&report);
    }
    return status;
}

static enum weir_status finish_manifest(struct collecting *c, const char *temporary, const char *path,
                                        struct weir_error *error)
{
    fputs("\n]}\n", c->manifest);
    const bool written = fflush(c->manifest) == 0 && fsync(fileno(c->manifest)) == 0;
    if (!written || rename(temporary, path) != 0) return weir_fail(error, WEIR_IO, "%s: %s", path, strerror(errno));
    return WEIR_OK;
}

enum weir_status weir_cli_collect(struct weir_client *client, const struct weir_cli_jobs *jobs, const char *folder,
                                  bool json, struct weir_cli_collected *out, struct weir_error *error)
{
    struct collecting c = { .client = client, .folder = folder, .json = json, .out = out };
    char path[PATH_MAX + 32], temporary[PATH_MAX + 32];
    *out = (struct weir_cli_collected){ .cause = WEIR_OK };
    temporary[0] = '\0';
    enum weir_status status = WEIR_OK;
    c.pictures = calloc(WEIR_CLI_SHEET_MAX, sizeof *c.pictures);
    if (!c.pictures) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a contact sheet");
    WEIR_TRY(make_folders(folder, error));
    snprintf(path, sizeof path, "%s/manifest.json", folder);
    snprintf(temporary, sizeof temporary, "%s/.manifest.json.%d", folder, (int)getpid());
    c.manifest = fopen(temporary, "we");
    if (!c.manifest) {
        status = weir_fail(error, WEIR_IO, "%s: %s", temporary, strerror(errno));
        goto cleanup;
    }
    fprintf(c.manifest, "{\"weir\":1,\"id\":\"%s\",\"items\":[", jobs->id);
    WEIR_TRY(take_jobs(&c, jobs, error));
    WEIR_TRY(finish_manifest(&c, temporary, path, error));
    status = draw_sheet(&c, error);

cleanup:
    if (c.manifest) fclose(c.manifest);
    if (status != WEIR_OK && temporary[0]) unlink(temporary);
    free(c.pictures);
    fflush(stdout);
    return status;
}
