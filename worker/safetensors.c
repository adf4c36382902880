#include "worker/safetensors.h"

#include "proto/base/bytes.h"
#include "worker/json_text.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define INTEGER_MAX ((json_int_t)1 << 53)
#define NAME_SHOWN_BYTES 128

static const struct {
    const char *name;
    size_t bytes;
} dtypes[WEIR_WEIGHT_DTYPE_COUNT] = {
#define X(name, bytes) [WEIR_WEIGHT_##name] = { #name, bytes },
    WEIR_WEIGHT_DTYPE_TABLE(X)
#undef X
};

/* An object, its shape, its offsets and what is in them: 14 values a tensor of the highest rank, by json_text's count;
 * the rest is room for metadata. */
static const struct weir_json_limits header_limits = {
    .bytes_max = WEIR_SAFETENSORS_HEADER_BYTES_MAX,
    .depth_max = 4,
    .values_max = (size_t)1 << 20,
};

const char *weir_weight_dtype_name(enum weir_weight_dtype dtype)
{
    return dtypes[dtype].name;
}

size_t weir_weight_dtype_bytes(enum weir_weight_dtype dtype)
{
    return dtypes[dtype].bytes;
}

/* The header as text: where it is, and that it is all there. */
static enum weir_status find_header(const uint8_t *bytes, size_t count, const char *label, const char **header,
                                    size_t *header_bytes, struct weir_error *error)
{
    if (count < 10) {
        return weir_fail(error, WEIR_BAD_MODEL, "%s: %zu bytes, too short to be safetensors (at least 10)", label,
                         count);
    }
    const uint64_t said = weir_load_u64(bytes);
    if (said > WEIR_SAFETENSORS_HEADER_BYTES_MAX) {
        return weir_fail(error, WEIR_TOO_LARGE, "%s: it claims a header of %llu bytes, at most %zu are read", label,
                         (unsigned long long)said, WEIR_SAFETENSORS_HEADER_BYTES_MAX);
    }
    if (said > count - 8) {
        return weir_fail(error, WEIR_BAD_MODEL, "%s: cut short: a header of %llu bytes, but only %zu follow", label,
                         (unsigned long long)said, count - 8);
    }
    *header = (const char *)bytes + 8;
    *header_bytes = (size_t)said;
    if (said < 2 || **header != '{') {
        return weir_fail(error, WEIR_BAD_MODEL, "%s: the header does not start with {", label);
    }
    size_t end = (size_t)said;
    while ((*header)[end - 1] == ' ') end--;
    if ((*header)[end - 1] != '}') {
        return weir_fail(error, WEIR_BAD_MODEL, "%s: the header does not end with } and spaces", label);
    }
    return WEIR_OK;
}

/* `-0` is an integer to jansson; here no number has a sign. */
static enum weir_status refuse_signs(const char *header, size_t count, const char *label, struct weir_error *error)
{
    bool quoted = false;
    for (size_t i = 0; i < count; i++) {
        if (quoted && header[i] == '\\') {
            i++;
        } else if (header[i] == '"') {
            quoted = !quoted;
        } else if (header[i] == '-' && !quoted) {
            char name[NAME_SHOWN_BYTES];
            weir_json_key_at(header, count, i, name, sizeof name);
            return weir_fail(error, WEIR_BAD_MODEL, "%s: tensor %s: a number with a sign", label, name);
        }
    }
    return WEIR_OK;
}

/* The name is UTF-8 already: jansson took it. C1 controls are two bytes, 0xc2 and 0x80..0x9f. */
static bool name_is_plain(const char *name)
{
    const size_t length = strlen(name);
    if (length < 1 || length > WEIR_SAFETENSORS_NAME_BYTES_MAX) return false;
    for (const unsigned char *c = (const unsigned char *)name; *c; c++) {
        if (*c < 0x20 || *c == 0x7f || (c[0] == 0xc2 && c[1] < 0xa0)) return false;
    }
    return true;
}

static enum weir_status check_metadata(const json_t *metadata, const char *label, struct weir_error *error)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata)) {
        return weir_fail(error, WEIR_BAD_MODEL, "%s: __metadata__ is not an object", label);
    }
    json_object_foreach((json_t *)metadata, key, value)
    {
        if (!json_is_string(value)) {
            return weir_fail(error, WEIR_BAD_MODEL, "%s: __metadata__ %.*s is not a text", label, NAME_SHOWN_BYTES,
                             key);
        }
    }
    return WEIR_OK;
}

static enum weir_status fail_tensor(const struct weir_weight *tensor, const json_t *value, const char *field,
                                    const char *wanted, struct weir_error *error)
{
    char shown[64] = "missing";
    if (value) weir_json_show(value, shown, sizeof shown);
    return weir_fail(error, WEIR_BAD_MODEL, "%s: tensor %.*s: %s is %s, wanted %s", tensor->file, NAME_SHOWN_BYTES,
                     tensor->name, field, shown, wanted);
}

static bool read_integer(const json_t *value, uint64_t *out)
{
    if (!json_is_integer(value)) return false;
    const json_int_t number = json_integer_value(value);
    if (number < 0 || number > INTEGER_MAX) return false;
    *out = (uint64_t)number;
    return true;
}

static enum weir_status read_dtype(const json_t *value, struct weir_weight *tensor, struct weir_error *error)
{
    if (json_is_string(value)) {
        for (int i = 0; i < WEIR_WEIGHT_DTYPE_COUNT; i++) {
            if (strcmp(json_string_value(value), dtypes[i].name) == 0) {
                tensor->dtype = (enum weir_weight_dtype)i;
                return WEIR_OK;
            }
        }
    }
    return fail_tensor(tensor, value, "dtype", "F32, F16, BF16 or another known type", error);
}

static enum weir_status read_shape(const json_t *value, struct weir_weight *tensor, struct weir_error *error)
{
    uint64_t elements = 1, bytes = 0;
    if (!json_is_array(value) || json_array_size(value) > WEIR_WEIGHT_RANK_MAX) {
        return fail_tensor(tensor, value, "shape", "a list of at most 8 integers", error);
    }
    tensor->rank = json_array_size(value);
    for (size_t i = 0; i < tensor->rank; i++) {
        if (!read_integer(json_array_get(value, i), &tensor->shape[i])) {
            return fail_tensor(tensor, value, "shape", "plain integers up to 2^53", error);
        }
        if (__builtin_mul_overflow(elements, tensor->shape[i], &elements)) {
            return fail_tensor(tensor, value, "shape", "a product of 64 bits", error);
        }
    }
    if (__builtin_mul_overflow(elements, (uint64_t)dtypes[tensor->dtype].bytes, &bytes) || bytes > SIZE_MAX) {
        return fail_tensor(tensor, value, "shape", "a size of 64 bits", error);
    }
    tensor->elements = (size_t)elements;
    tensor->bytes = (size_t)bytes;
    return WEIR_OK;
}

static enum weir_status read_offsets(const json_t *value, const uint8_t *data, size_t data_bytes,
                                     struct weir_weight *tensor, struct weir_error *error)
{
    uint64_t begin, end;
    if (!json_is_array(value) || json_array_size(value) != 2 || !read_integer(json_array_get(value, 0), &begin) ||
        !read_integer(json_array_get(value, 1), &end) || begin > end) {
        return fail_tensor(tensor, value, "data_offsets", "two plain integers, begin and end", error);
    }
    if (end - begin != tensor->bytes) {
        return weir_fail(error, WEIR_BAD_MODEL, "%s: tensor %.*s: data_offsets hold %llu bytes, its shape needs %zu",
                         tensor->file, NAME_SHOWN_BYTES, tensor->name, (unsigned long long)(end - begin),
                         tensor->bytes);
    }
#ifndef WEIR_FUZZ_PLANTED /* tests/fuzz leaves this check out once, to prove that the harness would find it missing */
    if (end > data_bytes) {
        return weir_fail(error, WEIR_BAD_MODEL, "%s: cut short: tensor %.*s ends at byte %llu of %zu bytes of data",
                         tensor->file, NAME_SHOWN_BYTES, tensor->name, (unsigned long long)end, data_bytes);
    }
#else
    (void)data_bytes;
#endif
    tensor->data = data + begin;
    return WEIR_OK;
}

static enum weir_status read_tensor(const json_t *value, const uint8_t *data, size_t data_bytes,
                                    struct weir_weight *tensor, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    if (!json_is_object(value)) {
        return weir_fail(error, WEIR_BAD_MODEL, "%s: tensor %.*s: not an object", tensor->file, NAME_SHOWN_BYTES,
                         tensor->name);
    }
    WEIR_TRY(read_dtype(json_object_get(value, "dtype"), tensor, error));
    WEIR_TRY(read_shape(json_object_get(value, "shape"), tensor, error));
    WEIR_TRY(read_offsets(json_object_get(value, "data_offsets"), data, data_bytes, tensor, error));
    if (json_object_size(value) != 3) {
        status = weir_fail(error, WEIR_BAD_MODEL, "%s: tensor %.*s: more than dtype, shape and data_offsets",
                           tensor->file, NAME_SHOWN_BYTES, tensor->name);
    }
cleanup:
    return status;
}

/* By begin, then end: an empty tensor comes before the one that starts where it lies; names break ties, so that the
 * order does not depend on the sorter. */
static int by_place(const void *a, const void *b)
{
    const struct weir_weight *x = a, *y = b;
    if (x->data != y->data) return (const uint8_t *)x->data < (const uint8_t *)y->data ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

static enum weir_status check_cover(const struct weir_safetensors *table, const uint8_t *data, size_t data_bytes,
                                    struct weir_error *error)
{
    size_t covered = 0;
    for (size_t i = 0; i < table->count; i++) {
        const struct weir_weight *tensor = &table->tensors[i];
        const size_t begin = (size_t)((const uint8_t *)tensor->data - data);
        if (begin != covered) {
            return weir_fail(
                error, WEIR_BAD_MODEL, "%s: tensor %.*s: its data begins at byte %zu, %s, which ends at %zu",
                table->label, NAME_SHOWN_BYTES, tensor->name, begin,
                begin < covered ? "inside of the tensor before it" : "not where the one before it ends", covered);
        }
        covered += tensor->bytes;
    }
    if (covered < data_bytes) { /* more cannot be: each tensor ends within the data */
        return weir_fail(error, WEIR_BAD_MODEL, "%s: %zu bytes at the end belong to no tensor", table->label,
                         data_bytes - covered);
    }
    return WEIR_OK;
}

/* Copies the names into one block; returns what the table needs before its tensors are read. */
static enum weir_status take_names(struct weir_safetensors *table, const json_t *root, struct weir_error *error)
{
    const char *key;
    json_t *value;
    size_t name_bytes = 0;
    const size_t count = json_object_size(root) - (json_object_get(root, "__metadata__") ? 1 : 0);
    if (count > WEIR_SAFETENSORS_TENSORS_MAX) {
        return weir_fail(error, WEIR_TOO_LARGE, "%s: %zu tensors, at most %d are read", table->label, count,
                         WEIR_SAFETENSORS_TENSORS_MAX);
    }
    json_object_foreach((json_t *)root, key, value)
    {
        if (!name_is_plain(key)) {
            return weir_fail(error, WEIR_BAD_MODEL,
                             "%s: tensor name \"%.*s\" of %zu bytes, wanted 1 to %d without control characters",
                             table->label, NAME_SHOWN_BYTES, key, strlen(key), WEIR_SAFETENSORS_NAME_BYTES_MAX);
        }
        name_bytes += strlen(key) + 1;
    }
    table->names = malloc(name_bytes + 1);
    table->tensors = calloc(count + 1, sizeof *table->tensors);
    if (!table->names || !table->tensors) {
        return weir_fail(error, WEIR_NO_MEMORY, "%s: no memory for a table of %zu tensors", table->label, count);
    }
    char *to = table->names;
    json_object_foreach((json_t *)root, key, value)
    {
        if (strcmp(key, "__metadata__") == 0) continue;
        struct weir_weight *tensor = &table->tensors[table->count++];
        tensor->name = to;
        tensor->file = table->label;
        to = stpcpy(to, key) + 1;
    }
    return WEIR_OK;
}

enum weir_status weir_safetensors_init(struct weir_safetensors *table, const void *bytes, size_t count,
                                       const char *label, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const char *header = NULL;
    json_t *root = NULL;

    memset(table, 0, sizeof *table);
    table->label = strdup(label);
    if (!table->label) return weir_fail(error, WEIR_NO_MEMORY, "%s: no memory to read it", label);
    WEIR_TRY(find_header(bytes, count, label, &header, &table->header_bytes, error));
    WEIR_TRY(weir_json_parse(header, table->header_bytes, &header_limits, label, &root, error));
    WEIR_TRY(refuse_signs(header, table->header_bytes, label, error));
    const json_t *metadata = json_object_get(root, "__metadata__");
    if (metadata) WEIR_TRY(check_metadata(metadata, label, error));
    WEIR_TRY(take_names(table, root, error));

    const uint8_t *data = (const uint8_t *)bytes + 8 + table->header_bytes;
    const size_t data_bytes = count - 8 - table->header_bytes;
    for (size_t i = 0; i < table->count; i++) {
        struct weir_weight *tensor = &table->tensors[i];
        WEIR_TRY(read_tensor(json_object_get(root, tensor->name), data, data_bytes, tensor, error));
    }
    qsort(table->tensors, table->count, sizeof *table->tensors, by_place);
    WEIR_TRY(check_cover(table, data, data_bytes, error));

cleanup:
    json_decref(root);
    if (status != WEIR_OK) weir_safetensors_deinit(table);
    return status;
}

enum weir_status weir_safetensors_metadata(const void *bytes, size_t count, const char *label, const char *key,
                                           char **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const char *header = NULL;
    size_t header_bytes = 0;
    json_t *root = NULL;

    *out = NULL;
    WEIR_TRY(find_header(bytes, count, label, &header, &header_bytes, error));
    WEIR_TRY(weir_json_parse(header, header_bytes, &header_limits, label, &root, error));
    const char *text = json_string_value(json_object_get(json_object_get(root, "__metadata__"), key));
    if (text && !(*out = strdup(text))) status = weir_fail(error, WEIR_NO_MEMORY, "%s: no memory to read it", label);
cleanup:
    json_decref(root);
    return status;
}

void weir_safetensors_deinit(struct weir_safetensors *table)
{
    free(table->tensors);
    free(table->names);
    free(table->label);
    memset(table, 0, sizeof *table);
}
