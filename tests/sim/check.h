/* check: what must be true, told by a third party. It keeps its own small model of jobs and tasks from the ledger calls
 * that were answered APPLIED, and from what was really sent. It shares no code with the ledgers and the rules.
 *
 *   a LEASE is sent only when it is written, with a token that was never used before
 *   a result is taken only under the token of the latest lease, once, and never after a cancel was answered
 *   DONE_ACK, FAIL_ACK, RELEASE_ACK, RENEW_ACK, ACCEPTED say only what is written
 *   a manifest, once seen, never changes; a job's state never goes back
 *   an attempt begins at the newest checkpoint that any attempt before it has written
 *   one key, one job
 *   a dead task closes the open tasks of its items, and of no others; a job whose last task is closed has ended, SUCCEEDED
 *   or FAILED as its tasks say, and its manifest names what the items that were not lost made
 *   when only the broker is killed and stopped, no task is executed twice
 */
#ifndef WEIR_SIM_CHECK_H
#define WEIR_SIM_CHECK_H

#include "broker/ledger.h"

#define CHECK_JOBS_MAX 64
#define CHECK_TASKS_MAX 64 /* of one job */
#define CHECK_TOKENS_MAX 8192

struct check_task {
    enum weir_task_state state;
    uint8_t token[WEIR_TOKEN_BYTES];     /* of the latest lease */
    uint8_t old_token[WEIR_TOKEN_BYTES]; /* of the lease before, which ended in transaction number old_batch */
    uint64_t old_batch;
    uint8_t done_token[WEIR_TOKEN_BYTES]; /* of the latest result that was taken */
    uint32_t checkpoint;                  /* the newest that was written */
    uint32_t crashes, regress, begun;
};

struct check_job {
    struct weir_job_id id;
    struct weir_plan plan;
    enum weir_job_state state;
    bool accepted, cancel_answered;
    uint8_t key[WEIR_SHA256_BYTES];
    enum weir_job_state seen;          /* the furthest that a client was told */
    uint64_t manifest;                 /* hash of the first one that a client was told; 0: none yet */
    uint32_t text_of[CHECK_TASKS_MAX]; /* item -> the index of its text's task */
    struct check_task tasks[CHECK_TASKS_MAX];
};

struct check {
    struct weir_ledger base; /* a ledger that passes everything on to `inner` */
    struct weir_ledger *inner;
    struct check_job jobs[CHECK_JOBS_MAX];
    size_t job_count;
    uint64_t tokens[CHECK_TOKENS_MAX]; /* a hash set of all that were leased; 0: free */
    size_t token_count;
    uint64_t batch;    /* transactions so far */
    uint64_t charged;  /* crashes */
    uint64_t seen[14]; /* transitions */
    bool violated, second_result;
    bool once; /* only the broker suffers in this seed: nothing may be executed twice */
    char words[400];
    /* The world kills the broker here: asked before and after each transaction. */
    bool (*dies)(void *context);
    void *context;
    bool dead;
};

void check_begin(struct check *check, struct weir_ledger *inner, bool (*dies)(void *context), void *context);
void check_fail(struct check *check, const char *format, ...) __attribute__((format(printf, 2, 3)));
struct check_job *check_job(struct check *check, const struct weir_job_id *id);
uint32_t check_items_made(const struct check_job *job); /* items whose film or image is there */
struct check_task *check_task(struct check *check, const struct weir_task_id *id);

/* What the broker really sends. */
void check_lease_sent(struct check *check, const struct weir_task_id *task, const uint8_t *token);
void check_renew_ack_sent(struct check *check, const struct weir_task_id *task, const uint8_t *token);
void check_done_ack_sent(struct check *check, const struct weir_task_id *task, const uint8_t *token);
void check_ended_sent(struct check *check, const struct weir_task_id *task,
                      const uint8_t *token); /* FAIL_, RELEASE_ACK */
void check_accepted_sent(struct check *check, const struct weir_job_id *job);
void check_cancel_answered(struct check *check, const struct weir_job_id *job);
void check_state_seen(struct check *check, const struct weir_job_id *job, enum weir_job_state state);
/* manifest: its hash; count: its objects. */
void check_manifest_seen(struct check *check, const struct weir_job_id *job, uint64_t manifest, size_t count);
/* At the end: the ledger's rows are what its calls said. */
void check_rows(struct check *check);
/* What workers really do. step: of the checkpoint, 0 of other stages. */
void check_checkpoint_written(struct check *check, const struct weir_task_id *task, uint32_t step);
void check_attempt_begins(struct check *check, const struct weir_task_id *task, const uint8_t *token, uint32_t step);

#endif
