#include "proto/wire_limits.h"

#include "proto/job.h"

#include <stdbool.h>
#include <string.h>

enum { ID = WEIR_ID_BYTES, TOKEN = WEIR_TOKEN_BYTES, DIGEST = WEIR_SHA256_BYTES, MUST = 1, MAY = 0 };

/* What a row bounds: the bytes of a text or bytes field, the count of a repeated one, the value of a number. */
struct limit {
    const char *field;
    bool required;
    uint64_t min, max;
};
struct message_limits {
    const char *message; /* of package weir.pb */
    struct limit rows[14];
};

/* Fields that no row names: texts up to 255 bytes, numbers of any value. Bytes and repeated fields must have a row. */
enum { TEXT_MAX = 255 };

#define TASK_AND_TOKEN { "task", MUST, 0, 0 }, { "token", MUST, TOKEN, TOKEN }

static const struct message_limits table[] = {
    { "FileRef",
      { { "digest", MUST, DIGEST, DIGEST }, { "bytes", MUST, 1, UINT64_C(1) << 40 }, { "name", MAY, 0, 255 } } },
    { "Lora", { { "file", MUST, 0, 0 } } },
    { "Prompt",
      { { "text", MAY, 0, 10240 }, { "negative", MAY, 0, 10240 }, { "loras", MAY, 0, WEIR_JOB_LORAS_MAX } } },
    { "JobSpec",
      { { "model", MAY, 1, 4096 }, { "model_digest", MAY, DIGEST, DIGEST }, { "prompt", MAY, 0, 10240 },
        { "negative", MAY, 0, 10240 }, { "pipeline", MAY, 1, 64 }, { "sampler", MAY, 0, 16 }, { "noise", MAY, 0, 8 },
        { "format", MAY, 0, 8 }, { "codec", MAY, 0, 8 }, { "precision", MAY, 0, 8 },
        { "prompts", MAY, 0, WEIR_JOB_PROMPTS_MAX }, { "loras", MAY, 0, WEIR_JOB_LORAS_MAX },
        { "bands", MAY, 1, WEIR_JOB_BANDS_MAX } } },
    { "TaskId", { { "job", MUST, ID, ID }, { "stage", MUST, 0, WEIR_STAGE_COUNT - 1 }, { "index", MUST, 0, 1u << 24 } } },
    { "Artefact",
      { { "name", MUST, 1, 64 }, { "digest", MUST, DIGEST, DIGEST }, { "bytes", MUST, 0, UINT64_C(1) << 40 },
        { "media_type", MUST, 1, 64 }, { "key", MUST, 1, WEIR_KEY_BYTES - 1 }, { "endpoint", MAY, 1, 127 },
        { "ticket", MAY, TOKEN, TOKEN } } },
    { "TaskFacts", { { "numerics_class", MAY, 0, 127 }, { "note", MAY, 0, 65536 } } },
    { "Input", { { "from", MUST, 0, 0 }, { "artefact", MUST, 0, 0 } } },
    { "ModelFacts",
      { { "name", MUST, 1, 4096 }, { "digest", MUST, DIGEST, DIGEST }, { "pipeline", MUST, 1, 64 },
        { "path", MAY, 0, 4096 } } },
    { "HeldLease", { TASK_AND_TOKEN } },
    { "Hello",
      { { "protocol_min", MUST, 1, UINT32_MAX }, { "protocol_max", MUST, 1, UINT32_MAX }, { "worker", MUST, ID, ID },
        { "numerics_class", MUST, 1, 127 }, { "stages", MUST, 1, WEIR_STAGES_ALL }, { "slots", MUST, 1, 64 },
        { "tensor_endpoint", MAY, 1, 127 }, { "models", MAY, 0, 64 }, { "held", MAY, 0, 128 } } },
    { "LaneCredit", { { "stages", MUST, 1, WEIR_STAGES_ALL }, { "leases", MUST, 0, 128 } } },
    { "Credit", { { "leases", MUST, 0, 128 }, { "lanes", MAY, 0, WEIR_STAGE_COUNT } } },
    { "Renew", { TASK_AND_TOKEN } },
    { "Done", { TASK_AND_TOKEN, { "artefacts", MAY, 0, 4096 } } },
    { "Fail", { TASK_AND_TOKEN, { "status", MUST, 1, WEIR_STATUS_COUNT - 1 }, { "words", MAY, 0, 1024 } } },
    { "Release", { TASK_AND_TOKEN } },
    { "Quoted", { { "number", MUST, 0, UINT64_MAX }, { "status", MUST, 0, WEIR_STATUS_COUNT - 1 },
                  { "words", MAY, 0, 1024 } } },
    { "Welcome",
      { { "protocol", MUST, 1, UINT32_MAX }, { "heartbeat_ms", MUST, 10, 600000 }, { "lease_ms", MUST, 100, 86400000 },
        { "renew_ms", MUST, 10, 86400000 } } },
    { "Lease",
      { TASK_AND_TOKEN, { "tenant", MUST, 1, 32 }, { "spec", MUST, 0, 0 }, { "lease_ms", MUST, 100, 86400000 },
        { "inputs", MAY, 0, 4096 }, { "band", MAY, 0, WEIR_JOB_BANDS_MAX - 1 } } },
    { "LeaseOk", { TASK_AND_TOKEN } },
    { "RenewAck", { TASK_AND_TOKEN } },
    { "DoneAck", { TASK_AND_TOKEN } },
    { "FailAck", { TASK_AND_TOKEN } },
    { "ReleaseAck", { TASK_AND_TOKEN } },
    { "Cancel", { TASK_AND_TOKEN } },
    { "Stale", { TASK_AND_TOKEN } },
    { "Quote", { { "number", MUST, 0, UINT64_MAX }, { "spec", MUST, 0, 0 } } },
    { "Submit",
      { { "number", MUST, 0, UINT64_MAX }, { "tenant", MAY, 1, 32 }, { "idempotency_key", MAY, 1, 128 },
        { "spec", MUST, 0, 0 }, { "deadline_ms", MAY, 0, UINT64_C(1) << 40 }, { "batch", MAY, ID, ID } } },
    { "Show", { { "number", MUST, 0, UINT64_MAX }, { "job", MUST, ID, ID } } },
    { "List", { { "number", MUST, 0, UINT64_MAX }, { "limit", MAY, 1, 1000 }, { "before", MAY, ID, ID },
                { "batch", MAY, ID, ID } } },
    { "CancelJob", { { "number", MUST, 0, UINT64_MAX }, { "job", MUST, ID, ID } } },
    { "Watch", { { "number", MUST, 0, UINT64_MAX }, { "job", MUST, ID, ID } } },
    { "Accepted", { { "number", MUST, 0, UINT64_MAX }, { "job", MUST, ID, ID } } },
    { "Refused", { { "number", MUST, 0, UINT64_MAX }, { "status", MUST, 1, WEIR_STATUS_COUNT - 1 },
                   { "words", MAY, 0, 1024 } } },
    { "JobView",
      { { "number", MUST, 0, UINT64_MAX }, { "job", MUST, ID, ID }, { "state", MUST, 0, WEIR_JOB_STATE_COUNT - 1 },
        { "words", MAY, 0, 1024 }, { "manifest", MAY, 0, 4096 }, { "tasks", MAY, 0, 4096 }, { "batch", MAY, ID, ID } } },
    { "TaskView", { { "stage", MUST, 0, WEIR_STAGE_COUNT - 1 }, { "state", MUST, 0, WEIR_TASK_STATE_COUNT - 1 } } },
    { "JobLine", { { "job", MUST, ID, ID }, { "state", MUST, 0, WEIR_JOB_STATE_COUNT - 1 }, { "prompt", MAY, 0, 160 },
        { "batch", MAY, ID, ID } } },
    { "Jobs", { { "number", MUST, 0, UINT64_MAX }, { "jobs", MAY, 0, 1000 } } },
    { "Event",
      { { "number", MUST, 0, UINT64_MAX }, { "job", MUST, ID, ID }, { "job_state", MUST, 0, WEIR_JOB_STATE_COUNT - 1 },
        { "stage", MAY, 0, WEIR_STAGE_COUNT - 1 }, { "task_state", MAY, 0, WEIR_TASK_STATE_COUNT - 1 } } },
    { "WorkerView", { { "worker", MUST, ID, ID }, { "models", MAY, 0, 64 } } },
    { "StatusView", { { "number", MUST, 0, UINT64_MAX }, { "store", MAY, 0, 4096 }, { "workers", MAY, 0, 1024 } } },
    { "Fetch",
      { { "number", MUST, 0, UINT64_MAX }, { "digest", MUST, DIGEST, DIGEST }, { "ticket", MUST, TOKEN, TOKEN },
        { "offset", MUST, 0, UINT64_C(1) << 40 }, { "bytes", MUST, 1, 4u << 20 } } },
    { "Chunk",
      { { "number", MUST, 0, UINT64_MAX }, { "offset", MUST, 0, UINT64_C(1) << 40 },
        { "total", MUST, 0, UINT64_C(1) << 40 }, { "data", MUST, 0, 4u << 20 } } },
};

static const struct limit *rows_of(const char *message)
{
    for (size_t i = 0; i < WEIR_COUNT(table); i++) {
        if (strcmp(table[i].message, message) == 0) return table[i].rows;
    }
    return NULL;
}

static const struct limit *row_of(const struct limit *rows, const char *field)
{
    for (const struct limit *row = rows; row && row->field; row++) {
        if (strcmp(row->field, field) == 0) return row;
    }
    return NULL;
}

/* One field of one message, as the walk sees it. */
struct place {
    const char *message;
    const ProtobufCFieldDescriptor *field;
    const struct limit *row; /* or NULL */
};

static enum weir_status out_of_bounds(const struct place *place, const char *what, uint64_t value,
                                      struct weir_error *error)
{
    return weir_fail(error, WEIR_PROTOCOL, "%s.%s: %s %llu, %llu to %llu is allowed", place->message, place->field->name,
                     what, (unsigned long long)value, place->row ? (unsigned long long)place->row->min : 0ull,
                     place->row ? (unsigned long long)place->row->max : (unsigned long long)TEXT_MAX);
}

static bool within(const struct place *place, uint64_t value, uint64_t max_without_row)
{
    if (!place->row) return value <= max_without_row;
    return value >= place->row->min && value <= place->row->max;
}

static enum weir_status check_value(const struct place *place, const void *value, struct weir_error *error)
{
    switch (place->field->type) {
    case PROTOBUF_C_TYPE_STRING: {
        const char *text = *(char *const *)value;
        if (!within(place, strlen(text), TEXT_MAX)) return out_of_bounds(place, "bytes", strlen(text), error);
        if (!weir_utf8_valid(text, strlen(text))) {
            return weir_fail(error, WEIR_PROTOCOL, "%s.%s: not UTF-8", place->message, place->field->name);
        }
        return WEIR_OK;
    }
    case PROTOBUF_C_TYPE_BYTES: {
        const ProtobufCBinaryData *data = value;
        return within(place, data->len, 0) ? WEIR_OK : out_of_bounds(place, "bytes", data->len, error);
    }
    case PROTOBUF_C_TYPE_UINT32: {
        const uint32_t number = *(const uint32_t *)value;
        return within(place, number, UINT64_MAX) ? WEIR_OK : out_of_bounds(place, "value", number, error);
    }
    case PROTOBUF_C_TYPE_UINT64: {
        const uint64_t number = *(const uint64_t *)value;
        return within(place, number, UINT64_MAX) ? WEIR_OK : out_of_bounds(place, "value", number, error);
    }
    case PROTOBUF_C_TYPE_MESSAGE: return weir_wire_limits_check(*(ProtobufCMessage *const *)value, error);
    default: return WEIR_OK; /* bool, int32, double: any value */
    }
}

static enum weir_status check_repeated(const struct place *place, const uint8_t *base, struct weir_error *error)
{
    const size_t count = *(const size_t *)(base + place->field->quantifier_offset);
    if (!within(place, count, 0)) return out_of_bounds(place, "entries", count, error);
    ProtobufCMessage *const *entries = *(ProtobufCMessage **const *)(base + place->field->offset);
    for (size_t i = 0; i < count; i++) { /* all repeated fields of the schema are messages */
        const enum weir_status status = weir_wire_limits_check(entries[i], error);
        if (status != WEIR_OK) return status;
    }
    return WEIR_OK;
}

static bool is_present(const ProtobufCFieldDescriptor *field, const uint8_t *base)
{
    if (field->type == PROTOBUF_C_TYPE_STRING || field->type == PROTOBUF_C_TYPE_MESSAGE) {
        return *(void *const *)(base + field->offset) != NULL;
    }
    return *(const protobuf_c_boolean *)(base + field->quantifier_offset) != 0;
}

enum weir_status weir_wire_limits_check(const ProtobufCMessage *message, struct weir_error *error)
{
    const uint8_t *base = (const uint8_t *)message;
    const char *name = message->descriptor->short_name;
    const struct limit *rows = rows_of(name);
    for (unsigned i = 0; i < message->n_unknown_fields; i++) {
        /* protobuf-c takes field number 0 in a long form of its key, but not in the short one that it would write */
        if (message->unknown_fields[i].tag == 0) return weir_fail(error, WEIR_PROTOCOL, "%s: a field numbered 0", name);
    }
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        struct place place = { name, field, row_of(rows, field->name) };
        enum weir_status status = WEIR_OK;
        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
            status = check_repeated(&place, base, error);
        } else if (is_present(field, base)) {
            status = check_value(&place, base + field->offset, error);
        } else if (place.row && place.row->required) {
            status = weir_fail(error, WEIR_PROTOCOL, "%s.%s is missing", name, field->name);
        }
        if (status != WEIR_OK) return status;
    }
    return WEIR_OK;
}
