#include "client/cli/receipt.h"

#include "client/cli/encoder.h"
#include "proto/base/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RECEIPT_BYTES_MAX = 1 << 16 };

enum weir_status weir_cli_receipt_read(const char *path, char **text, struct weir_error *error)
{
    *text = calloc(1, RECEIPT_BYTES_MAX + 1);
    if (!*text) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a receipt");
    const char *const words[] = { "probe", "--receipt", WEIR_CLI_ENCODER_LIMITS, "--", path, NULL };
    bool over = false;
    enum weir_status status = weir_cli_encoder_run(words, NULL, *text, RECEIPT_BYTES_MAX, &over, path, error);
    if (status == WEIR_OK && over) {
        status = weir_fail(error, WEIR_BAD_FILE, "%s: a receipt of over %d bytes", path, RECEIPT_BYTES_MAX);
    }
    if (status != WEIR_OK) {
        free(*text);
        *text = NULL;
    }
    return status;
}

/* ---- understanding ----------------------------------------------------------------------------------------------- */

struct fields {
    json_t *object;
    const char *path;
    const char *missing; /* the first field that is not what it should be; NULL: none yet */
};

static const char *text_of(struct fields *from, const char *name, size_t bytes_min, size_t bytes_max)
{
    const json_t *value = json_object_get(from->object, name);
    const char *text = json_string_value(value);
    const size_t bytes = text ? json_string_length(value) : 0;
    const bool good = text && bytes >= bytes_min && bytes <= bytes_max && strlen(text) == bytes;
    if (!good && !from->missing) from->missing = name;
    return good ? text : "";
}

static uint64_t number_of(struct fields *from, const char *name, uint64_t min, uint64_t max)
{
    const json_t *value = json_object_get(from->object, name);
    const uint64_t number =
        (uint64_t)json_integer_value(value); /* a seed of 2^63 and more is written as a negative one */
    const bool good = json_is_integer(value) && number >= min && number <= max;
    if (!good && !from->missing) from->missing = name;
    return good ? number : min;
}

static double real_of(struct fields *from, const char *name)
{
    const json_t *value = json_object_get(from->object, name);
    const double number = json_number_value(value);
    const bool good = json_is_number(value) && isfinite(number) && number >= 0;
    if (!good && !from->missing) from->missing = name;
    return good ? number : 0;
}

/* A name of a place of ours or of a hub (ORG/NAME), and nothing that could be a path elsewhere. */
static bool is_name(const char *model)
{
    return model[0] && model[0] != '/' && model[0] != '.' && model[0] != '-' && !strstr(model, "/.") &&
           !strstr(model, "//");
}

static const char *digest_of(struct fields *from, const char *name)
{
    uint8_t digest[WEIR_SHA256_BYTES];
    const char *text = text_of(from, name, 64, 64);
    if (text[0] && !weir_hex_read(text, digest, sizeof digest) && !from->missing) from->missing = name;
    return text;
}

static void add_file(struct weir_cli_receipt *out, const char *what, const char *flag, const char *digest)
{
    out->files[out->file_count++] = (struct weir_cli_receipt_file){ .what = what, .flag = flag, .digest = digest };
}

/* The LoRAs come first, so that files[i] is of loras[i]. */
static void read_files(struct fields *spec, struct weir_cli_receipt *out)
{
    struct weir_request *r = &out->request;
    const json_t *loras = json_object_get(spec->object, "loras");
    const size_t count = json_array_size(loras);
    if ((loras && !json_is_array(loras)) || count > WEIR_COUNT(out->loras)) {
        if (!spec->missing) spec->missing = "loras";
        return;
    }
    for (size_t i = 0; i < count; i++) {
        struct fields lora = { .object = json_array_get(loras, i) };
        const json_t *weight = json_object_get(lora.object, "weight");
        add_file(out, "LoRA", "--lora", digest_of(&lora, "file"));
        if ((lora.missing || !json_is_number(weight)) && !spec->missing) spec->missing = "loras";
        out->loras[i].weight = json_number_value(weight);
    }
    r->loras = out->loras;
    r->lora_count = count;
    if (json_object_get(spec->object, "control")) {
        add_file(out, "control image", "--control", digest_of(spec, "control"));
        if (json_object_get(spec->object, "control_scale")) r->control_scale = real_of(spec, "control_scale");
    }
    if (json_object_get(spec->object, "start_image")) {
        add_file(out, "start image", "--image", digest_of(spec, "start_image"));
        if (json_object_get(spec->object, "strength")) r->strength = real_of(spec, "strength");
    }
}

static void read_spec(struct fields *spec, struct weir_cli_receipt *out)
{
    struct weir_request *r = &out->request;
    number_of(spec, "spec_version", 1, 1);
    number_of(spec, "n", 1, 1);
    r->n = 1;
    out->model = text_of(spec, "model", 1, 4096);
    r->model_digest = text_of(spec, "model_digest", 64, 64);
    r->prompt = text_of(spec, "prompt", 0, 10240);
    r->negative = text_of(spec, "negative", 0, 10240);
    r->width = (uint32_t)number_of(spec, "width", 1, UINT32_MAX);
    r->height = (uint32_t)number_of(spec, "height", 1, UINT32_MAX);
    r->frames = (uint32_t)number_of(spec, "frames", 1, UINT32_MAX);
    r->fps = (uint32_t)number_of(spec, "fps", 1, UINT32_MAX);
    r->steps = (uint32_t)number_of(spec, "steps", 1, UINT32_MAX);
    r->guidance = real_of(spec, "guidance");
    r->seed = number_of(spec, "seed", 0, UINT64_MAX);
    r->seed_given = true;
    r->sampler = text_of(spec, "sampler", 1, 16);
    r->noise = text_of(spec, "noise", 1, 8);
    r->format = text_of(spec, "format", 1, 8);
    r->codec = text_of(spec, "codec", 0, 8);
    if (json_object_get(spec->object, "precision")) r->precision = text_of(spec, "precision", 1, 8);
    read_files(spec, out);
    r->folder = strcmp(r->format, "png") == 0 && !json_is_true(json_object_get(spec->object, "image"));
}

enum weir_status weir_cli_receipt_parse(const char *text, const char *path, struct weir_cli_receipt *out,
                                        struct weir_error *error)
{
    json_error_t fault;
    *out = (struct weir_cli_receipt){ .request = WEIR_REQUEST_INIT };
    json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, &fault);
    if (!object) return weir_fail(error, WEIR_BAD_FILE, "%s: its receipt is no JSON: %s", path, fault.text);
    out->json = object;
    struct fields whole = { .object = object, .path = path };
    struct fields spec = { .object = json_object_get(object, "spec"), .path = path };
    number_of(&whole, "weir", 1, 1);
    out->numerics_class = text_of(&whole, "numerics_class", 1, 127);
    out->encoder = text_of(&whole, "encoder", 1, 255);
    if (!json_is_object(spec.object) && !whole.missing) whole.missing = "spec";
    if (!whole.missing) read_spec(&spec, out);
    const char *missing = whole.missing ? whole.missing : spec.missing;
    enum weir_status status = WEIR_OK;
    if (missing) {
        status = weir_fail(error, WEIR_BAD_FILE,
                           "%s: its receipt is none that this build can replay: %s%s is missing or "
                           "not what it should be",
                           path, spec.missing ? "spec." : "", missing);
    } else if (!is_name(out->model)) {
        status = weir_fail(error, WEIR_BAD_FILE, "%s: its receipt calls the model \"%.80s\", which is no name", path,
                           out->model);
    }
    if (status != WEIR_OK) weir_cli_receipt_destroy(out);
    return status;
}

static enum weir_status digest_of_file(const char *flag, const char *path, char out[WEIR_SHA256_HEX_BYTES],
                                       struct weir_error *error)
{
    uint8_t bytes[1 << 16], digest[WEIR_SHA256_BYTES];
    struct weir_sha256 sha;
    ssize_t got = -1;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return weir_fail(error, errno == ENOENT ? WEIR_NOT_FOUND : WEIR_IO, "%s %s: %s", flag, path, strerror(errno));
    }
    weir_sha256_init(&sha);
    while ((got = read(fd, bytes, sizeof bytes)) > 0) weir_sha256_update(&sha, bytes, (size_t)got);
    const int code = errno;
    weir_sha256_final(&sha, digest);
    close(fd);
    weir_hex_write(digest, sizeof digest, out);
    return got < 0 ? weir_fail(error, WEIR_IO, "%s %s: %s", flag, path, strerror(code)) : WEIR_OK;
}

enum weir_status weir_cli_receipt_give(struct weir_cli_receipt *receipt, const char *flag, const char *path,
                                       struct weir_error *error)
{
    char digest[WEIR_SHA256_HEX_BYTES];
    bool found = false;
    const enum weir_status status = digest_of_file(flag, path, digest, error);
    if (status != WEIR_OK) return status;
    for (size_t i = 0; i < receipt->file_count; i++) {
        struct weir_cli_receipt_file *file = &receipt->files[i];
        if (strcmp(file->flag, flag) != 0 || strcasecmp(file->digest, digest) != 0) continue;
        file->path = path;
        found = true;
    }
    if (found) return WEIR_OK;
    return weir_fail(error, WEIR_BAD_ARGUMENT, "%s %s: the receipt names none of its digest %s", flag, path, digest);
}

enum weir_status weir_cli_receipt_complete(struct weir_cli_receipt *receipt, struct weir_error *error)
{
    for (size_t i = 0; i < receipt->file_count; i++) {
        const struct weir_cli_receipt_file *file = &receipt->files[i];
        if (!file->path) {
            return weir_fail(error, WEIR_BAD_ARGUMENT, "it was made with the %s of digest %s: %s FILE gives it again",
                             file->what, file->digest, file->flag);
        }
        if (i < receipt->request.lora_count)
            receipt->loras[i].path = file->path;
        else
            *(file->flag[2] == 'c' ? &receipt->request.control : &receipt->request.start_image) = file->path;
    }
    receipt->request.loras = receipt->loras;
    return WEIR_OK;
}

void weir_cli_receipt_destroy(struct weir_cli_receipt *receipt)
{
    json_decref(receipt->json);
    *receipt = (struct weir_cli_receipt){ .json = NULL };
}
