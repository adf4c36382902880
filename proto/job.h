/* job: ids, stages, states and their legal moves; the fingerprint of a request; the keys of the store.
 *
 * The state machines are drawn in PROTOCOL.md. Numbers lie in ledgers and travel on the wire: append only.
 * Threads  all functions are pure
 */
#ifndef WEIR_PROTO_JOB_H
#define WEIR_PROTO_JOB_H

#include "proto/base/bytes.h"
#include "proto/weir.pb-c.h"

#define WEIR_ID_BYTES 16
#define WEIR_ID_HEX_BYTES (2 * WEIR_ID_BYTES + 1)
#define WEIR_TOKEN_BYTES 16
#define WEIR_SPEC_VERSION 1
#define WEIR_PLAN_FILM 1 /* versions of the plan; the job's row has its own */
#define WEIR_PLAN_IMAGE 2
#define WEIR_PLAN_PROMPTS 3
#define WEIR_JOB_PROMPTS_MAX 512        /* of one job; also its items when it has a list of prompts */
#define WEIR_JOB_LORAS_MAX 8            /* of one item */
#define WEIR_JOB_SHAPES_MAX 32          /* different sizes, guided or not, of one job */
#define WEIR_SPEC_BYTES_MAX (512 << 10) /* packed and resolved */

/* X(name, number, what people see) */
#define WEIR_STAGE_TABLE(X)                                                                                            \
    X(TEXT, 0, "text")                                                                                                 \
    X(DENOISE, 1, "denoise")                                                                                           \
    X(DECODE, 2, "decode")                                                                                             \
    X(ASSEMBLE, 3, "assemble")
enum weir_stage {
#define X(name, number, words) WEIR_STAGE_##name = number,
    WEIR_STAGE_TABLE(X)
#undef X
        WEIR_STAGE_COUNT
};
#define WEIR_STAGES_ALL ((1u << WEIR_STAGE_COUNT) - 1u)

#define WEIR_JOB_STATE_TABLE(X)                                                                                        \
    X(QUEUED, 0, "queued", 0)                                                                                          \
    X(RUNNING, 1, "running", 0)                                                                                        \
    X(CANCELLING, 2, "cancelling", 0)                                                                                  \
    X(SUCCEEDED, 3, "succeeded", 1)                                                                                    \
    X(FAILED, 4, "failed", 1)                                                                                          \
    X(CANCELLED, 5, "cancelled", 1)                                                                                    \
    X(EXPIRED, 6, "expired", 1)
enum weir_job_state {
#define X(name, number, words, terminal) WEIR_JOB_##name = number,
    WEIR_JOB_STATE_TABLE(X)
#undef X
        WEIR_JOB_STATE_COUNT
};

#define WEIR_TASK_STATE_TABLE(X)                                                                                       \
    X(BLOCKED, 0, "blocked", 0)                                                                                        \
    X(READY, 1, "ready", 0)                                                                                            \
    X(DELAYED, 2, "delayed", 0)                                                                                        \
    X(LEASED, 3, "leased", 0)                                                                                          \
    X(DONE, 4, "done", 1)                                                                                              \
    X(DEAD, 5, "dead", 1)                                                                                              \
    X(CANCELLED, 6, "cancelled", 1)
enum weir_task_state {
#define X(name, number, words, closed) WEIR_TASK_##name = number,
    WEIR_TASK_STATE_TABLE(X)
#undef X
        WEIR_TASK_STATE_COUNT
};

/* "text", "queued", ...; "?" for an unknown number. */
const char *weir_stage_name(uint32_t stage);
const char *weir_job_state_name(uint32_t state);
const char *weir_task_state_name(uint32_t state);
bool weir_job_state_terminal(uint32_t state);
bool weir_task_state_closed(uint32_t state);
/* Whether the state machine has the arrow. Staying is no move. */
bool weir_job_move_legal(enum weir_job_state from, enum weir_job_state to);
bool weir_task_move_legal(enum weir_task_state from, enum weir_task_state to);

struct weir_job_id {
    uint8_t bytes[WEIR_ID_BYTES];
};
struct weir_task_id {
    struct weir_job_id job;
    enum weir_stage stage;
    uint32_t index;
};

/* A new id: 48 bits of wall-clock milliseconds, so that ids sort by age, and 80 random bits. */
struct weir_job_id weir_job_id_new(void);
bool weir_job_id_equal(const struct weir_job_id *a, const struct weir_job_id *b);
bool weir_task_id_equal(const struct weir_task_id *a, const struct weir_task_id *b);
void weir_job_id_text(const struct weir_job_id *id, char out[WEIR_ID_HEX_BYTES]);
bool weir_job_id_parse(const char *text, struct weir_job_id *out);
/* From the wire; the message was checked by wire.c, so that only the stage can be wrong. */
bool weir_task_id_read(const Weir__Pb__TaskId *message, struct weir_task_id *out);

/* The request's fingerprint: SHA-256 over its fields in one fixed textual form, present fields only, in the order of
 * their numbers. Equal requests have equal fingerprints whatever wrote their protobuf bytes. */
void weir_spec_fingerprint(const Weir__Pb__JobSpec *spec, uint8_t out[WEIR_SHA256_BYTES]);

/* The resolved spec of one item: of its prompt where there is a list of them, with its own seed and n = 1; what a LEASE
 * carries and a receipt says. `out` shares the texts of `spec`. `item` is below n, or prompts * n. */
void weir_spec_of_item(const Weir__Pb__JobSpec *spec, uint32_t item, Weir__Pb__JobSpec *out);

/* The resolved spec as one JSON object with sorted keys, for receipts and for people; free() it. */
char *weir_spec_json(const Weir__Pb__JobSpec *spec);

/* Keys of the store. `out` holds WEIR_KEY_BYTES. tenant was checked: [a-z0-9-]{1,32}.
 *   t/<tenant>/j/<job>/<stage>-<index>/<sha256>
 *   t/<tenant>/j/<job>/<stage>-<index>/ckpt/<step, six digits>
 *   t/<tenant>/in/<sha256>       what a client gave
 *   t/<tenant>/emb/<text key>    the embedding of one text, for all jobs of the tenant */
#define WEIR_KEY_BYTES 256
void weir_key_artefact(const char *tenant, const struct weir_task_id *task, const uint8_t digest[WEIR_SHA256_BYTES],
                       char out[WEIR_KEY_BYTES]);
void weir_key_checkpoint(const char *tenant, const struct weir_task_id *task, uint32_t step, char out[WEIR_KEY_BYTES]);
void weir_key_checkpoints(const char *tenant, const struct weir_task_id *task, char out[WEIR_KEY_BYTES]); /* prefix */
void weir_key_job(const char *tenant, const struct weir_job_id *job, char out[WEIR_KEY_BYTES]);           /* prefix */
void weir_key_file(const char *tenant, const uint8_t digest[WEIR_SHA256_BYTES], char out[WEIR_KEY_BYTES]);
/* text_key: as weir_pipeline_text_key writes it */
void weir_key_embedding(const char *tenant, const char *text_key, char out[WEIR_KEY_BYTES]);
bool weir_tenant_valid(const char *tenant);

#endif
