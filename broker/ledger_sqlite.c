/* The ledger of the embedded default: one SQLite file, one connection, one thread.
 *
 * WAL with synchronous=FULL: a transaction is one fsync. The loop gives one batch a turn (group commit), so a busy
 * broker pays one fsync for hundreds of changes and an idle one answers after a single fsync. Calling SQLite on the
 * loop's own thread was chosen over a writer thread with a queue: there is then no state between "asked to write" and
 * "durable" that another event could see, and a commit (0.2 ms here) is far below a heartbeat.
 *
 * A second broker is kept out three times: by a lock file (flock), by locking_mode=EXCLUSIVE, and by the epoch row
 * that every transaction compares. Any error of SQLite inside a transaction ends acknowledgements for good: `failed`
 * stays set, since after a failed fsync the connection would happily go on.
 */
#include "broker/ledger.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define SCHEMA_VERSION 2
#define APPLICATION_ID 0x57454952 /* "WEIR" */

/* X(name, SQL) */
#define STATEMENT_TABLE(X)                                                                                             \
    X(BEGIN, "BEGIN IMMEDIATE")                                                                                        \
    X(COMMIT, "COMMIT")                                                                                                \
    X(ROLLBACK, "ROLLBACK")                                                                                            \
    X(EPOCH, "SELECT i FROM meta WHERE k='epoch'")                                                                     \
    X(EPOCH_NEXT, "UPDATE meta SET i=i+1 WHERE k='epoch' RETURNING i")                                                 \
    X(KEY_FIND, "SELECT job, fp FROM idem WHERE tenant=?1 AND key_h=?2")                                               \
    X(KEY_ADD, "INSERT INTO idem(tenant,key_h,job,fp) VALUES(?1,?2,?3,?4)")                                            \
    X(JOB_ADD, "INSERT INTO job(id,tenant,state,prio,plan,cost,fp,deadline_ms,created_ms,finished_ms,class,cause,"     \
               "words,swept,manifest,batch,part,parts,tasks,tasks_done) "                                              \
               "VALUES(?1,?2,0,?3,?4,?5,?6,?7,?8,0,'',0,'',0,NULL,?9,?10,?11,0,0)")                                    \
    X(SPEC_ADD, "INSERT INTO spec(job,bytes) VALUES(?1,?2)")                                                           \
    X(JOB_STATE, "SELECT state, class, cause, words FROM job WHERE id=?1")                                             \
    X(JOB_RUN, "UPDATE job SET state=1, class=?2 WHERE id=?1")                                                         \
    X(JOB_MOVE, "UPDATE job SET state=?2 WHERE id=?1")                                                                 \
    X(JOB_BLAME, "UPDATE job SET cause=?2, words=?3 WHERE id=?1")                                                      \
    X(JOB_END, "UPDATE job SET state=?2, finished_ms=?3, cause=?4, words=?5, "                                         \
               "tasks=(SELECT count(*) FROM task WHERE job=?1), "                                                      \
               "tasks_done=(SELECT count(*) FROM task WHERE job=?1 AND state=4) WHERE id=?1")                          \
    X(JOB_MANIFEST, "UPDATE job SET manifest=?2 WHERE id=?1")                                                          \
    X(JOB_SWEPT, "UPDATE job SET swept=1 WHERE id=?1 AND state>=3")                                                    \
    X(JOB_DROP, "DELETE FROM job WHERE id=?1 AND state>=3")                                                            \
    X(KEY_DROP, "DELETE FROM idem WHERE job=?1")                                                                       \
    X(TASK_ADD, "INSERT INTO task(job,stage,idx,state,token,worker,pid,attempt,crash,fail,expired,released,regress,"   \
                "ckpt,delay_ms) VALUES(?1,?2,?3,?4,zeroblob(16),zeroblob(16),0,0,0,0,0,0,0,0,0)")                      \
    X(TASK_STATE, "SELECT state, token, artefacts FROM task WHERE job=?1 AND stage=?2 AND idx=?3")                     \
    X(TASK_LEASE, "UPDATE task SET state=3, token=?4, worker=?5, pid=?6, attempt=attempt+1, delay_ms=0 "               \
                  "WHERE job=?1 AND stage=?2 AND idx=?3 AND state IN (1,2)")                                           \
    X(TASK_DONE, "UPDATE task SET state=4, artefacts=?5, facts=?6 "                                                    \
                 "WHERE job=?1 AND stage=?2 AND idx=?3 AND state=3 AND token=?4 "                                      \
                 "AND (SELECT state FROM job WHERE id=?1) IN (0,1)")                                                   \
    X(TASK_LEAVE, "UPDATE task SET state=?5, delay_ms=?6, fail=fail+?7, released=released+?8, crash=crash+?9, "        \
                  "expired=expired+?10, ckpt=max(ckpt,?11) "                                                           \
                  "WHERE job=?1 AND stage=?2 AND idx=?3 AND state=3 AND token=?4")                                     \
    X(TASK_REGRESS, "UPDATE task SET state=?4, regress=regress+1 WHERE job=?1 AND stage=?2 AND idx=?3 AND state=4")    \
    X(TASKS_READY, "UPDATE task SET state=1 WHERE job=?1 AND stage=?2 AND idx>=?3 AND idx<?4 AND state=0")             \
    X(TASKS_BLOCK, "UPDATE task SET state=0, delay_ms=0 "                                                              \
                   "WHERE job=?1 AND stage=?2 AND idx>=?3 AND idx<?4 AND state IN (1,2)")                              \
    X(TASKS_LOSE, "UPDATE task SET state=6, delay_ms=0 "                                                               \
                  "WHERE job=?1 AND stage=?2 AND idx>=?3 AND idx<?4 AND state IN (0,1,2,3)")                           \
    X(TASKS_CANCEL, "UPDATE task SET state=6, delay_ms=0 WHERE job=?1 AND state IN (0,1,2)")                           \
    X(TASKS_CANCEL_ALL, "UPDATE task SET state=6, delay_ms=0 WHERE job=?1 AND state IN (0,1,2,3)")                     \
    X(TASKS_LEASED, "SELECT count(*) FROM task WHERE job=?1 AND state=3")                                              \
    X(TASKS_MADE, "SELECT artefacts FROM task WHERE job=?1 AND state=4 AND "                                           \
                  "stage=(SELECT max(stage) FROM task WHERE job=?1) ORDER BY idx")                                     \
    X(JOB_READ, "SELECT " JOB_COLUMNS ", CASE WHEN ?2 THEN " JOB_SPEC " END FROM job WHERE id=?1")                     \
    X(TASKS_READ, "SELECT " TASK_COLUMNS " FROM task WHERE job=?1 ORDER BY stage, idx")                                \
    X(TASKS_READ_RANGE, "SELECT " TASK_COLUMNS " FROM task WHERE job=?1 AND stage=?2 AND idx>=?3 AND idx<?4 "          \
                        "ORDER BY idx")                                                                                \
    X(PAGE_UP, "SELECT " JOB_PAGE " WHERE id>?1 AND " PAGE_FILTER " ORDER BY id LIMIT ?3")                             \
    X(PAGE_DOWN, "SELECT " JOB_PAGE " WHERE id<?1 AND " PAGE_FILTER " ORDER BY id DESC LIMIT ?3")                      \
    X(BATCH_UP, "SELECT " JOB_PAGE " WHERE batch=?4 AND id>?1 AND " PAGE_FILTER " ORDER BY id LIMIT ?3")               \
    X(BATCH_DOWN, "SELECT " JOB_PAGE " WHERE batch=?4 AND id<?1 AND " PAGE_FILTER " ORDER BY id DESC LIMIT ?3")
#define JOB_COLUMNS                                                                                                    \
    "id,tenant,state,prio,plan,cost,deadline_ms,created_ms,finished_ms,fp,class,cause,words,swept,manifest,batch,"     \
    "part,parts,tasks,tasks_done"
#define JOB_SPEC "(SELECT bytes FROM spec WHERE spec.job=job.id)"
#define JOB_PAGE JOB_COLUMNS "," JOB_SPEC " FROM job"
#define TASK_COLUMNS                                                                                                   \
    "stage,idx,state,token,worker,pid,attempt,crash,fail,expired,released,regress,ckpt,delay_ms,artefacts,facts"
#define PAGE_FILTER "(?2=1 OR (?2=0 AND state<3) OR (?2=2 AND state>=3 AND swept=0))"

enum statement {
#define X(name, sql) S_##name,
    STATEMENT_TABLE(X)
#undef X
        S_COUNT
};
static const char *const statement_text[] = {
#define X(name, sql) sql,
    STATEMENT_TABLE(X)
#undef X
};

/* A spec may be large and is never changed: beside its job's row, which changes with every step of the job. */
#define SPEC_TABLE                                                                                                     \
    "CREATE TABLE spec(job BLOB PRIMARY KEY REFERENCES job(id) ON DELETE CASCADE, bytes BLOB NOT NULL)"                \
    " STRICT, WITHOUT ROWID;"
#define BATCH_INDEX "CREATE INDEX job_batch ON job(batch,id) WHERE batch IS NOT NULL;"
static const char schema[] =
    "CREATE TABLE meta(k TEXT PRIMARY KEY, i INTEGER, b BLOB) STRICT, WITHOUT ROWID;"
    "CREATE TABLE job(id BLOB PRIMARY KEY, tenant TEXT NOT NULL, state INTEGER NOT NULL, prio INTEGER NOT NULL,"
    " plan INTEGER NOT NULL, cost INTEGER NOT NULL, fp BLOB NOT NULL, deadline_ms INTEGER NOT NULL,"
    " created_ms INTEGER NOT NULL, finished_ms INTEGER NOT NULL, class TEXT NOT NULL, cause INTEGER NOT NULL,"
    " words TEXT NOT NULL, swept INTEGER NOT NULL, manifest BLOB, batch BLOB, part INTEGER NOT NULL,"
    " parts INTEGER NOT NULL, tasks INTEGER NOT NULL, tasks_done INTEGER NOT NULL) STRICT, WITHOUT ROWID;" SPEC_TABLE
        BATCH_INDEX "CREATE INDEX job_open ON job(id) WHERE state<3;"
    "CREATE INDEX job_unswept ON job(id) WHERE state>=3 AND swept=0;"
    "CREATE TABLE task(job BLOB NOT NULL REFERENCES job(id) ON DELETE CASCADE, stage INTEGER NOT NULL,"
    " idx INTEGER NOT NULL, state INTEGER NOT NULL, token BLOB NOT NULL, worker BLOB NOT NULL, pid INTEGER NOT NULL,"
    " attempt INTEGER NOT NULL, crash INTEGER NOT NULL, fail INTEGER NOT NULL, expired INTEGER NOT NULL,"
    " released INTEGER NOT NULL, regress INTEGER NOT NULL, ckpt INTEGER NOT NULL, delay_ms INTEGER NOT NULL,"
    " artefacts BLOB, facts BLOB, PRIMARY KEY(job,stage,idx)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE idem(tenant TEXT NOT NULL, key_h BLOB NOT NULL, job BLOB NOT NULL, fp BLOB NOT NULL,"
    " PRIMARY KEY(tenant,key_h)) STRICT, WITHOUT ROWID;"
    "CREATE INDEX idem_job ON idem(job);"
    "INSERT INTO meta VALUES('epoch',0,NULL);";

/* A file of schema 1, whose jobs know no batches and have their specs in their rows. */
static const char from_1[] =
    "ALTER TABLE job ADD COLUMN batch BLOB;"
    "ALTER TABLE job ADD COLUMN part INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE job ADD COLUMN parts INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE job ADD COLUMN tasks INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE job ADD COLUMN tasks_done INTEGER NOT NULL DEFAULT 0;" SPEC_TABLE
    "INSERT INTO spec SELECT id, spec FROM job;"
    "ALTER TABLE job DROP COLUMN spec;"
    "UPDATE job SET tasks=(SELECT count(*) FROM task WHERE job=id),"
    " tasks_done=(SELECT count(*) FROM task WHERE job=id AND task.state=4) WHERE state>=3;" BATCH_INDEX;

struct sqlite_ledger {
    struct weir_ledger base;
    sqlite3 *db;
    sqlite3_stmt *statements[S_COUNT];
    uint64_t epoch;
    int lock_fd; /* or -1 */
    bool failed; /* an error was seen: nothing may be acknowledged any more */
};

static enum weir_status fail_sqlite(struct sqlite_ledger *ledger, struct weir_error *error, const char *doing)
{
    ledger->failed = true;
    const int code = sqlite3_extended_errcode(ledger->db);
    const char *path = sqlite3_db_filename(ledger->db, "main");
    const int first_word = (int)strcspn(doing, ";=");
    return weir_fail(error, WEIR_STORE, "the ledger %s failed at %.*s: %s (%d)", path ? path : "", first_word, doing,
                     sqlite3_errmsg(ledger->db), code);
}

/* Steps a statement that gives no rows, and readies it again. */
static enum weir_status run(struct sqlite_ledger *ledger, enum statement which, struct weir_error *error)
{
    sqlite3_stmt *statement = ledger->statements[which];
    const int code = sqlite3_step(statement);
    enum weir_status status = WEIR_OK;
    if (code != SQLITE_DONE && code != SQLITE_ROW) status = fail_sqlite(ledger, error, statement_text[which]);
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    return status;
}

static void bind_blob(sqlite3_stmt *statement, int at, const void *bytes, size_t count)
{
    /* A NULL pointer would bind NULL, and an empty blob is not NULL. */
    sqlite3_bind_blob64(statement, at, count == 0 ? (const void *)"" : bytes, count, SQLITE_STATIC);
}

static void bind_task(sqlite3_stmt *statement, const struct weir_task_id *task)
{
    bind_blob(statement, 1, task->job.bytes, WEIR_ID_BYTES);
    sqlite3_bind_int64(statement, 2, task->stage);
    sqlite3_bind_int64(statement, 3, task->index);
}

static void copy_blob(sqlite3_stmt *statement, int column, void *out, size_t count)
{
    memset(out, 0, count);
    const void *bytes = sqlite3_column_blob(statement, column);
    const int have = sqlite3_column_bytes(statement, column);
    if (bytes != NULL && have >= 0 && (size_t)have == count) memcpy(out, bytes, count);
}

static void copy_text(sqlite3_stmt *statement, int column, char *out, size_t out_bytes)
{
    const char *text = (const char *)sqlite3_column_text(statement, column);
    snprintf(out, out_bytes, "%s", text != NULL ? text : "");
}

/* ---- calls ---- */

/* What a call must know of its job. */
struct head {
    bool found;
    enum weir_status cause;
    char numerics_class[WEIR_LEDGER_CLASS_BYTES], words[WEIR_LEDGER_WORDS_BYTES];
};

/* Reads the job's state into the answer; NOT_FOUND in the reply when there is none. */
static enum weir_status read_head(struct sqlite_ledger *ledger, struct weir_ledger_call *call, struct head *out,
                                  struct weir_error *error)
{
    sqlite3_stmt *statement = ledger->statements[S_JOB_STATE];
    bind_blob(statement, 1, call->task.job.bytes, WEIR_ID_BYTES);
    const int code = sqlite3_step(statement);
    out->found = code == SQLITE_ROW;
    if (out->found) {
        call->job_state = (enum weir_job_state)sqlite3_column_int(statement, 0);
        copy_text(statement, 1, out->numerics_class, sizeof out->numerics_class);
        out->cause = (enum weir_status)sqlite3_column_int(statement, 2);
        copy_text(statement, 3, out->words, sizeof out->words);
    }
    const enum weir_status status =
        code == SQLITE_ROW || code == SQLITE_DONE ? WEIR_OK : fail_sqlite(ledger, error, statement_text[S_JOB_STATE]);
    sqlite3_reset(statement);
    return status;
}

/* What is there? Answers NOT_FOUND, REPEATED or else STALE, the task's state, and whether its latest lease was ours. */
static enum weir_status explain(struct sqlite_ledger *ledger, struct weir_ledger_call *call, bool *out_mine,
                                struct weir_error *error)
{
    sqlite3_stmt *statement = ledger->statements[S_TASK_STATE];
    bind_task(statement, &call->task);
    const int code = sqlite3_step(statement);
    enum weir_status status = WEIR_OK;
    if (code == SQLITE_DONE) {
        call->reply = WEIR_LEDGER_NOT_FOUND;
    } else if (code != SQLITE_ROW) {
        status = fail_sqlite(ledger, error, statement_text[S_TASK_STATE]);
    } else {
        uint8_t token[WEIR_TOKEN_BYTES];
        call->task_state = (enum weir_task_state)sqlite3_column_int(statement, 0);
        copy_blob(statement, 1, token, sizeof token);
        const bool mine = *out_mine = memcmp(token, call->token, sizeof token) == 0;
        bool repeated = false;
        if (call->op == WEIR_LEDGER_LEASE) {
            repeated = mine && call->task_state == WEIR_TASK_LEASED;
        } else if (call->op == WEIR_LEDGER_COMMIT) {
            const struct weir_blob *made = &call->u.commit.artefacts;
            const int have = sqlite3_column_bytes(statement, 2);
            const void *bytes = sqlite3_column_blob(statement, 2);
            repeated = mine && call->task_state == WEIR_TASK_DONE && have >= 0 && (size_t)have == made->count &&
                       (made->count == 0 || memcmp(bytes, made->bytes, made->count) == 0);
        } else {
            repeated = mine && call->task_state != WEIR_TASK_LEASED && call->task_state != WEIR_TASK_DONE;
        }
        call->reply = repeated ? WEIR_LEDGER_REPEATED : WEIR_LEDGER_STALE;
    }
    sqlite3_reset(statement);
    return status;
}

static enum weir_status range_run(struct sqlite_ledger *ledger, enum statement which, const struct weir_job_id *job,
                                  const struct weir_plan_range *range, struct weir_error *error)
{
    if (range->count == 0) return WEIR_OK;
    sqlite3_stmt *statement = ledger->statements[which];
    bind_blob(statement, 1, job->bytes, WEIR_ID_BYTES);
    sqlite3_bind_int64(statement, 2, range->stage);
    sqlite3_bind_int64(statement, 3, range->first);
    sqlite3_bind_int64(statement, 4, (int64_t)range->first + range->count);
    return run(ledger, which, error);
}

static enum weir_status job_run(struct sqlite_ledger *ledger, enum statement which, const struct weir_job_id *job,
                                struct weir_error *error)
{
    bind_blob(ledger->statements[which], 1, job->bytes, WEIR_ID_BYTES);
    return run(ledger, which, error);
}

/* The job reaches a terminal state by this call. */
static enum weir_status end_job(struct sqlite_ledger *ledger, struct weir_ledger_call *call, enum weir_job_state state,
                                enum weir_status cause, const char *lead, const char *words, struct weir_error *error)
{
    char whole[WEIR_LEDGER_WORDS_BYTES];
    weir_ledger_words(lead, words, whole);
    sqlite3_stmt *statement = ledger->statements[S_JOB_END];
    bind_blob(statement, 1, call->task.job.bytes, WEIR_ID_BYTES);
    sqlite3_bind_int64(statement, 2, state);
    sqlite3_bind_int64(statement, 3, (int64_t)call->now_wall_ms);
    sqlite3_bind_int64(statement, 4, cause);
    sqlite3_bind_text(statement, 5, whole, -1, SQLITE_STATIC);
    call->job_state = state;
    return run(ledger, S_JOB_END, error);
}

static enum weir_status apply_submit(struct sqlite_ledger *ledger, struct weir_ledger_call *call,
                                     struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_ledger_job *job = call->u.submit.job;
    sqlite3_stmt *statement;
    struct head head;

    call->existing = job->id;
    if (call->u.submit.keyed) {
        statement = ledger->statements[S_KEY_FIND];
        sqlite3_bind_text(statement, 1, job->tenant, -1, SQLITE_STATIC);
        bind_blob(statement, 2, call->u.submit.key, WEIR_SHA256_BYTES);
        const int code = sqlite3_step(statement);
        if (code == SQLITE_ROW) {
            uint8_t fingerprint[WEIR_SHA256_BYTES];
            copy_blob(statement, 0, call->existing.bytes, WEIR_ID_BYTES);
            copy_blob(statement, 1, fingerprint, sizeof fingerprint);
            call->reply = memcmp(fingerprint, job->fingerprint, sizeof fingerprint) == 0 ? WEIR_LEDGER_EXISTS
                                                                                         : WEIR_LEDGER_CONFLICT;
        } else if (code != SQLITE_DONE) {
            status = fail_sqlite(ledger, error, statement_text[S_KEY_FIND]);
        }
        sqlite3_reset(statement);
        if (code != SQLITE_DONE) return status;
    }
    WEIR_TRY(read_head(ledger, call, &head, error));
    if (head.found) {
        call->reply = WEIR_LEDGER_REPEATED;
        return WEIR_OK;
    }
    statement = ledger->statements[S_JOB_ADD];
    bind_blob(statement, 1, job->id.bytes, WEIR_ID_BYTES);
    sqlite3_bind_text(statement, 2, job->tenant, -1, SQLITE_STATIC);
    sqlite3_bind_int64(statement, 3, job->priority);
    sqlite3_bind_int64(statement, 4, job->plan_version);
    sqlite3_bind_int64(statement, 5, (int64_t)job->cost_ms);
    bind_blob(statement, 6, job->fingerprint, WEIR_SHA256_BYTES);
    sqlite3_bind_int64(statement, 7, (int64_t)job->deadline_ms);
    sqlite3_bind_int64(statement, 8, (int64_t)job->created_ms);
    if (job->batched) bind_blob(statement, 9, job->batch, WEIR_ID_BYTES); /* else NULL */
    sqlite3_bind_int64(statement, 10, job->part);
    sqlite3_bind_int64(statement, 11, job->parts);
    WEIR_TRY(run(ledger, S_JOB_ADD, error));
    bind_blob(ledger->statements[S_SPEC_ADD], 1, job->id.bytes, WEIR_ID_BYTES);
    bind_blob(ledger->statements[S_SPEC_ADD], 2, job->spec.bytes, job->spec.count);
    WEIR_TRY(run(ledger, S_SPEC_ADD, error));
    if (call->u.submit.keyed) {
        statement = ledger->statements[S_KEY_ADD];
        sqlite3_bind_text(statement, 1, job->tenant, -1, SQLITE_STATIC);
        bind_blob(statement, 2, call->u.submit.key, WEIR_SHA256_BYTES);
        bind_blob(statement, 3, job->id.bytes, WEIR_ID_BYTES);
        bind_blob(statement, 4, job->fingerprint, WEIR_SHA256_BYTES);
        WEIR_TRY(run(ledger, S_KEY_ADD, error));
    }
    const struct weir_plan_range *ready = &call->u.submit.ready;
    for (int stage = 0; stage < WEIR_STAGE_COUNT; stage++) {
        for (uint32_t index = 0; index < call->u.submit.counts[stage]; index++) {
            const bool open =
                (int)ready->stage == stage && index >= ready->first && index - ready->first < ready->count;
            const struct weir_task_id id = { job->id, (enum weir_stage)stage, index };
            bind_task(ledger->statements[S_TASK_ADD], &id);
            sqlite3_bind_int64(ledger->statements[S_TASK_ADD], 4, open ? WEIR_TASK_READY : WEIR_TASK_BLOCKED);
            WEIR_TRY(run(ledger, S_TASK_ADD, error));
        }
    }
    call->job_state = WEIR_JOB_QUEUED;
    call->reply = WEIR_LEDGER_APPLIED;
cleanup:
    return status;
}

static enum weir_status apply_lease(struct sqlite_ledger *ledger, struct weir_ledger_call *call,
                                    struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    sqlite3_stmt *statement;
    struct head head;
    bool mine = false;

    WEIR_TRY(read_head(ledger, call, &head, error));
    if (!head.found) return WEIR_OK;
    WEIR_TRY(explain(ledger, call, &mine, error));
    if (call->reply != WEIR_LEDGER_STALE) return WEIR_OK;
    if (call->task_state != WEIR_TASK_READY && call->task_state != WEIR_TASK_DELAYED) return WEIR_OK;
    if (call->job_state != WEIR_JOB_QUEUED && call->job_state != WEIR_JOB_RUNNING) return WEIR_OK;
    const char *class_text = call->u.lease.numerics_class;
    const bool bound = head.numerics_class[0] != 0;
    if (bound && strcmp(head.numerics_class, class_text) != 0) return WEIR_OK;

    if (!bound || call->job_state != WEIR_JOB_RUNNING) {
        statement = ledger->statements[S_JOB_RUN];
        bind_blob(statement, 1, call->task.job.bytes, WEIR_ID_BYTES);
        sqlite3_bind_text(statement, 2, class_text, -1, SQLITE_STATIC);
        WEIR_TRY(run(ledger, S_JOB_RUN, error));
    }
    statement = ledger->statements[S_TASK_LEASE];
    bind_task(statement, &call->task);
    bind_blob(statement, 4, call->token, WEIR_TOKEN_BYTES);
    bind_blob(statement, 5, call->u.lease.worker, WEIR_ID_BYTES);
    sqlite3_bind_int64(statement, 6, (int64_t)call->u.lease.worker_pid);
    WEIR_TRY(run(ledger, S_TASK_LEASE, error));
    assert(sqlite3_changes(ledger->db) == 1);
    call->job_state = WEIR_JOB_RUNNING;
    call->task_state = WEIR_TASK_LEASED;
    call->reply = WEIR_LEDGER_APPLIED;
cleanup:
    return status;
}

/* The artefacts of the tasks of the job's last stage, one after another: packed messages with repeated fields alone
 * join to one message when their bytes are joined. */
static enum weir_status write_manifest(struct sqlite_ledger *ledger, const struct weir_job_id *job,
                                       struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    sqlite3_stmt *statement = ledger->statements[S_TASKS_MADE];
    char *manifest = NULL;
    size_t count = 0;
    int code;

    bind_blob(statement, 1, job->bytes, WEIR_ID_BYTES);
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
        const size_t more = (size_t)sqlite3_column_bytes(statement, 0);
        char *grown = realloc(manifest, count + more + 1);
        if (grown == NULL) {
            status = weir_fail(error, WEIR_STORE, "no memory for a manifest of %zu bytes", count + more);
            goto cleanup;
        }
        manifest = grown;
        if (more > 0) memcpy(manifest + count, sqlite3_column_blob(statement, 0), more);
        count += more;
    }
    if (code != SQLITE_DONE) {
        status = fail_sqlite(ledger, error, statement_text[S_TASKS_MADE]);
        goto cleanup;
    }
    bind_blob(ledger->statements[S_JOB_MANIFEST], 1, job->bytes, WEIR_ID_BYTES);
    bind_blob(ledger->statements[S_JOB_MANIFEST], 2, manifest, count);
    status = run(ledger, S_JOB_MANIFEST, error);
cleanup:
    sqlite3_reset(statement);
    free(manifest);
    return status;
}

/* A commit, fail or expire was the last of its job, if it says so. head: as it is after the call's other changes. */
static enum weir_status close_job(struct sqlite_ledger *ledger, struct weir_ledger_call *call, const struct head *head,
                                  struct weir_error *error)
{
    const bool failed = call->job_to == WEIR_JOB_FAILED;
    if (!failed && call->job_to != WEIR_JOB_SUCCEEDED) return WEIR_OK;
    const enum weir_status status = write_manifest(ledger, &call->task.job, error);
    if (status != WEIR_OK) return status;
    return end_job(ledger, call, call->job_to, failed ? head->cause : WEIR_OK, failed ? call->lead : "",
                   failed ? head->words : "", error);
}

static enum weir_status apply_commit(struct sqlite_ledger *ledger, struct weir_ledger_call *call,
                                     struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct head head;
    bool mine = false;

    WEIR_TRY(read_head(ledger, call, &head, error));
    if (!head.found) return WEIR_OK;
    sqlite3_stmt *statement = ledger->statements[S_TASK_DONE];
    bind_task(statement, &call->task);
    bind_blob(statement, 4, call->token, WEIR_TOKEN_BYTES);
    bind_blob(statement, 5, call->u.commit.artefacts.bytes, call->u.commit.artefacts.count);
    bind_blob(statement, 6, call->u.commit.facts.bytes, call->u.commit.facts.count);
    WEIR_TRY(run(ledger, S_TASK_DONE, error));
    if (sqlite3_changes(ledger->db) == 0) return explain(ledger, call, &mine, error);

    WEIR_TRY(range_run(ledger, S_TASKS_READY, &call->task.job, &call->u.commit.ready, error));
    WEIR_TRY(close_job(ledger, call, &head, error));
    call->task_state = WEIR_TASK_DONE;
    call->reply = WEIR_LEDGER_APPLIED;
cleanup:
    return status;
}

/* fail, release and expire: a lease ends without a result. */
struct leave {
    enum weir_task_state to;
    uint64_t delay_ms;
    int failed, released, crashed, expired;
    uint32_t checkpoint_step;
};

static struct leave leave_of(const struct weir_ledger_call *call)
{
    switch (call->op) {
    case WEIR_LEDGER_FAIL:
        return (struct leave){ .to = call->u.fail.to,
                               .delay_ms = call->u.fail.delay_ms,
                               .failed = call->u.fail.charged,
                               .released = call->u.fail.to == WEIR_TASK_BLOCKED && !call->u.fail.charged };
    case WEIR_LEDGER_RELEASE:
        return (struct leave){ .to = call->u.release.to, .released = 1 };
    default:
        assert(call->op == WEIR_LEDGER_EXPIRE);
    }
    return (struct leave){ .to = call->u.expire.to,
                           .delay_ms = call->u.expire.delay_ms,
                           .crashed = call->u.expire.charged,
                           .expired = !call->u.expire.charged,
                           .checkpoint_step = call->u.expire.checkpoint_step };
}

/* What a task that is DEAD takes with it; the first one's cause is kept. */
static enum weir_status lose(struct sqlite_ledger *ledger, const struct weir_ledger_call *call, struct head *head,
                             struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    for (int stage = 0; stage < WEIR_STAGE_COUNT; stage++) {
        WEIR_TRY(range_run(ledger, S_TASKS_LOSE, &call->task.job, &call->lost[stage], error));
    }
    if (head->cause != WEIR_OK) return WEIR_OK;
    head->cause = call->cause;
    weir_ledger_words("", call->words, head->words);
    sqlite3_stmt *statement = ledger->statements[S_JOB_BLAME];
    bind_blob(statement, 1, call->task.job.bytes, WEIR_ID_BYTES);
    sqlite3_bind_int64(statement, 2, head->cause);
    sqlite3_bind_text(statement, 3, head->words, -1, SQLITE_STATIC);
    WEIR_TRY(run(ledger, S_JOB_BLAME, error));
cleanup:
    return status;
}

static enum weir_status apply_leave(struct sqlite_ledger *ledger, struct weir_ledger_call *call,
                                    struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct leave leave = leave_of(call);
    struct head head;
    bool mine = false;

    WEIR_TRY(read_head(ledger, call, &head, error));
    if (!head.found) return WEIR_OK;
    WEIR_TRY(explain(ledger, call, &mine, error));
    if (!mine || call->task_state != WEIR_TASK_LEASED) return WEIR_OK;
    /* A job that is being cancelled gets no task back: its leases can only end. */
    if (leave.to != WEIR_TASK_CANCELLED && call->job_state == WEIR_JOB_CANCELLING) return WEIR_OK;
    if (call->op == WEIR_LEDGER_FAIL && leave.to == WEIR_TASK_BLOCKED && call->u.fail.regress) {
        const struct weir_task_id producer = { call->task.job, call->u.fail.producer_stage,
                                               call->u.fail.producer_index };
        bind_task(ledger->statements[S_TASK_REGRESS], &producer);
        sqlite3_bind_int64(ledger->statements[S_TASK_REGRESS], 4, call->u.fail.producer_to);
        WEIR_TRY(run(ledger, S_TASK_REGRESS, error));
        if (sqlite3_changes(ledger->db) == 0) return WEIR_OK; /* the producer is not DONE */
        WEIR_TRY(range_run(ledger, S_TASKS_BLOCK, &call->task.job, &call->u.fail.block, error));
    }
    sqlite3_stmt *statement = ledger->statements[S_TASK_LEAVE];
    bind_task(statement, &call->task);
    bind_blob(statement, 4, call->token, WEIR_TOKEN_BYTES);
    sqlite3_bind_int64(statement, 5, leave.to);
    sqlite3_bind_int64(statement, 6, (int64_t)leave.delay_ms);
    sqlite3_bind_int64(statement, 7, leave.failed);
    sqlite3_bind_int64(statement, 8, leave.released);
    sqlite3_bind_int64(statement, 9, leave.crashed);
    sqlite3_bind_int64(statement, 10, leave.expired);
    sqlite3_bind_int64(statement, 11, leave.checkpoint_step);
    WEIR_TRY(run(ledger, S_TASK_LEAVE, error));
    assert(sqlite3_changes(ledger->db) == 1);
    if (leave.to == WEIR_TASK_DEAD) {
        WEIR_TRY(lose(ledger, call, &head, error));
        WEIR_TRY(close_job(ledger, call, &head, error));
    }
    call->task_state = leave.to;
    call->reply = WEIR_LEDGER_APPLIED;
cleanup:
    return status;
}

static enum weir_status count_leased(struct sqlite_ledger *ledger, const struct weir_job_id *job, int64_t *leased,
                                     struct weir_error *error)
{
    sqlite3_stmt *statement = ledger->statements[S_TASKS_LEASED];
    bind_blob(statement, 1, job->bytes, WEIR_ID_BYTES);
    enum weir_status status = WEIR_OK;
    if (sqlite3_step(statement) == SQLITE_ROW)
        *leased = sqlite3_column_int64(statement, 0);
    else
        status = fail_sqlite(ledger, error, statement_text[S_TASKS_LEASED]);
    sqlite3_reset(statement);
    return status;
}

static enum weir_status apply_cancel(struct sqlite_ledger *ledger, struct weir_ledger_call *call,
                                     struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const enum weir_job_state to = call->u.cancel.to;
    struct head head;
    int64_t leased = 0;

    WEIR_TRY(read_head(ledger, call, &head, error));
    if (!head.found) return WEIR_OK;
    if (call->job_state == to || (to == WEIR_JOB_CANCELLING && call->job_state == WEIR_JOB_CANCELLED)) {
        call->reply = WEIR_LEDGER_REPEATED;
        return WEIR_OK;
    }
    call->reply = WEIR_LEDGER_STALE;
    if (!weir_job_move_legal(call->job_state, to)) return WEIR_OK;
    if (to == WEIR_JOB_CANCELLED) {
        WEIR_TRY(count_leased(ledger, &call->task.job, &leased, error));
        if (leased > 0) return WEIR_OK;
    }
    if (to == WEIR_JOB_CANCELLING) {
        WEIR_TRY(job_run(ledger, S_TASKS_CANCEL, &call->task.job, error));
        sqlite3_stmt *statement = ledger->statements[S_JOB_MOVE];
        bind_blob(statement, 1, call->task.job.bytes, WEIR_ID_BYTES);
        sqlite3_bind_int64(statement, 2, to);
        WEIR_TRY(run(ledger, S_JOB_MOVE, error));
        call->job_state = to;
    } else {
        WEIR_TRY(job_run(ledger, S_TASKS_CANCEL_ALL, &call->task.job, error));
        WEIR_TRY(end_job(ledger, call, to, call->cause, "", call->words, error));
    }
    call->reply = WEIR_LEDGER_APPLIED;
cleanup:
    return status;
}

static enum weir_status apply_purge(struct sqlite_ledger *ledger, struct weir_ledger_call *call,
                                    struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct head head;

    WEIR_TRY(read_head(ledger, call, &head, error));
    if (!head.found) return WEIR_OK;
    call->reply = WEIR_LEDGER_STALE;
    if (!weir_job_state_terminal(call->job_state)) return WEIR_OK;
    if (call->u.purge.rows) {
        WEIR_TRY(job_run(ledger, S_KEY_DROP, &call->task.job, error));
        WEIR_TRY(job_run(ledger, S_JOB_DROP, &call->task.job, error));
    } else {
        WEIR_TRY(job_run(ledger, S_JOB_SWEPT, &call->task.job, error));
    }
    call->reply = WEIR_LEDGER_APPLIED;
cleanup:
    return status;
}

static enum weir_status apply_one(struct sqlite_ledger *ledger, struct weir_ledger_call *call, struct weir_error *error)
{
    call->reply = WEIR_LEDGER_NOT_FOUND;
    call->job_state = WEIR_JOB_QUEUED;
    call->task_state = WEIR_TASK_BLOCKED;
    call->existing = call->task.job;
    switch (call->op) {
    case WEIR_LEDGER_SUBMIT:
        return apply_submit(ledger, call, error);
    case WEIR_LEDGER_LEASE:
        return apply_lease(ledger, call, error);
    case WEIR_LEDGER_COMMIT:
        return apply_commit(ledger, call, error);
    case WEIR_LEDGER_FAIL:
    case WEIR_LEDGER_RELEASE:
    case WEIR_LEDGER_EXPIRE:
        return apply_leave(ledger, call, error);
    case WEIR_LEDGER_CANCEL:
        return apply_cancel(ledger, call, error);
    case WEIR_LEDGER_PURGE:
        return apply_purge(ledger, call, error);
    }
    assert(false); /* an operation that is none */
    return WEIR_INTERNAL;
}

static enum weir_status check_epoch(struct sqlite_ledger *ledger, struct weir_error *error)
{
    sqlite3_stmt *statement = ledger->statements[S_EPOCH];
    enum weir_status status = WEIR_OK;
    if (sqlite3_step(statement) != SQLITE_ROW) {
        status = fail_sqlite(ledger, error, statement_text[S_EPOCH]);
    } else if ((uint64_t)sqlite3_column_int64(statement, 0) != ledger->epoch) {
        status = weir_fail(error, WEIR_STALE, "another broker has taken over the ledger: its epoch is %lld, ours %llu",
                           (long long)sqlite3_column_int64(statement, 0), (unsigned long long)ledger->epoch);
    }
    sqlite3_reset(statement);
    return status;
}

static enum weir_status sqlite_apply(struct weir_ledger *base, struct weir_ledger_call *const calls[], size_t count,
                                     struct weir_error *error)
{
    struct sqlite_ledger *ledger = (struct sqlite_ledger *)base;
    enum weir_status status = WEIR_OK;

    assert(count <= WEIR_LEDGER_BATCH_MAX);
    if (ledger->failed) return weir_fail(error, WEIR_STORE, "the ledger failed before and takes no more writes");
    WEIR_TRY(run(ledger, S_BEGIN, error));
    WEIR_TRY(check_epoch(ledger, error));
    for (size_t k = 0; k < count; k++) WEIR_TRY(apply_one(ledger, calls[k], error));
    WEIR_TRY(run(ledger, S_COMMIT, error));
cleanup:
    if (status != WEIR_OK && !sqlite3_get_autocommit(ledger->db)) run(ledger, S_ROLLBACK, NULL);
    return status;
}

static enum weir_status sqlite_takeover(struct weir_ledger *base, uint64_t *epoch, struct weir_error *error)
{
    struct sqlite_ledger *ledger = (struct sqlite_ledger *)base;
    sqlite3_stmt *statement = ledger->statements[S_EPOCH_NEXT];
    enum weir_status status = WEIR_OK;

    if (sqlite3_step(statement) != SQLITE_ROW) {
        status = fail_sqlite(ledger, error, statement_text[S_EPOCH_NEXT]);
        sqlite3_reset(statement);
        return status;
    }
    const uint64_t next = (uint64_t)sqlite3_column_int64(statement, 0);
    if (sqlite3_step(statement) != SQLITE_DONE) status = fail_sqlite(ledger, error, statement_text[S_EPOCH_NEXT]);
    if (sqlite3_reset(statement) != SQLITE_OK && status == WEIR_OK) {
        status = fail_sqlite(ledger, error, statement_text[S_EPOCH_NEXT]);
    }
    if (status == WEIR_OK) *epoch = ledger->epoch = next;
    return status;
}

/* ---- reading ---- */

/* Rows of one job; blobs are copied into one growing arena, since a statement's memory ends with its next step. */
struct rows {
    struct weir_ledger_task *tasks;
    size_t count, capacity;
    char *arena;
    size_t arena_count, arena_capacity;
};

static bool rows_keep(struct rows *rows, sqlite3_stmt *statement, int column, size_t *offset, size_t *count)
{
    *count = (size_t)sqlite3_column_bytes(statement, column);
    *offset = rows->arena_count;
    if (rows->arena_count + *count > rows->arena_capacity) {
        const size_t capacity = 2 * (rows->arena_count + *count) + 4096;
        char *grown = realloc(rows->arena, capacity);
        if (grown == NULL) return false;
        rows->arena = grown;
        rows->arena_capacity = capacity;
    }
    if (*count > 0) memcpy(rows->arena + *offset, sqlite3_column_blob(statement, column), *count);
    rows->arena_count += *count;
    return true;
}

static bool rows_add(struct rows *rows, sqlite3_stmt *s)
{
    if (rows->count == rows->capacity) {
        const size_t capacity = 2 * rows->capacity + 64;
        struct weir_ledger_task *grown = realloc(rows->tasks, capacity * sizeof *grown);
        if (grown == NULL) return false;
        rows->tasks = grown;
        rows->capacity = capacity;
    }
    size_t artefacts = 0, facts = 0;
    struct weir_ledger_task *task = &rows->tasks[rows->count];
    *task = (struct weir_ledger_task){ .stage = (enum weir_stage)sqlite3_column_int(s, 0),
                                       .index = (uint32_t)sqlite3_column_int64(s, 1),
                                       .state = (enum weir_task_state)sqlite3_column_int(s, 2),
                                       .worker_pid = (uint64_t)sqlite3_column_int64(s, 5),
                                       .attempt = (uint32_t)sqlite3_column_int64(s, 6),
                                       .crash = (uint32_t)sqlite3_column_int64(s, 7),
                                       .fail = (uint32_t)sqlite3_column_int64(s, 8),
                                       .expired = (uint32_t)sqlite3_column_int64(s, 9),
                                       .released = (uint32_t)sqlite3_column_int64(s, 10),
                                       .regress = (uint32_t)sqlite3_column_int64(s, 11),
                                       .checkpoint_step = (uint32_t)sqlite3_column_int64(s, 12),
                                       .delay_ms = (uint64_t)sqlite3_column_int64(s, 13) };
    copy_blob(s, 3, task->token, sizeof task->token);
    copy_blob(s, 4, task->worker, sizeof task->worker);
    if (!rows_keep(rows, s, 14, &artefacts, &task->artefacts.count)) return false;
    if (!rows_keep(rows, s, 15, &facts, &task->facts.count)) return false;
    /* Offsets, not pointers, until the last row is read: the arena may still move. */
    task->artefacts.bytes = (const void *)(uintptr_t)artefacts;
    task->facts.bytes = (const void *)(uintptr_t)facts;
    rows->count++;
    return true;
}

static enum weir_status rows_read(struct sqlite_ledger *ledger, const struct weir_job_id *job,
                                  const struct weir_ledger_query *query, struct rows *rows, struct weir_error *error)
{
    const enum statement which = query != NULL && query->ranged ? S_TASKS_READ_RANGE : S_TASKS_READ;
    sqlite3_stmt *statement = ledger->statements[which];
    enum weir_status status = WEIR_OK;
    int code;

    rows->count = 0;
    rows->arena_count = 0;
    bind_blob(statement, 1, job->bytes, WEIR_ID_BYTES);
    if (which == S_TASKS_READ_RANGE) {
        sqlite3_bind_int64(statement, 2, query->range.stage);
        sqlite3_bind_int64(statement, 3, query->range.first);
        sqlite3_bind_int64(statement, 4, (int64_t)query->range.first + query->range.count);
    }
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
        if (!rows_add(rows, statement)) {
            status = weir_fail(error, WEIR_NO_MEMORY, "no memory to read %zu tasks of a job", rows->count);
            break;
        }
    }
    if (status == WEIR_OK && code != SQLITE_DONE) status = fail_sqlite(ledger, error, statement_text[which]);
    sqlite3_reset(statement);
    for (size_t k = 0; k < rows->count; k++) {
        struct weir_ledger_task *task = &rows->tasks[k];
        task->artefacts.bytes = rows->arena + (uintptr_t)task->artefacts.bytes;
        task->facts.bytes = rows->arena + (uintptr_t)task->facts.bytes;
    }
    return status;
}

static void rows_deinit(struct rows *rows)
{
    free(rows->tasks);
    free(rows->arena);
}

/* The row under the statement's cursor; good until its next step. */
static struct weir_ledger_job job_row(sqlite3_stmt *s)
{
    struct weir_ledger_job job = { .tenant = (const char *)sqlite3_column_text(s, 1),
                                   .state = (enum weir_job_state)sqlite3_column_int(s, 2),
                                   .priority = sqlite3_column_int(s, 3),
                                   .plan_version = (uint32_t)sqlite3_column_int64(s, 4),
                                   .cost_ms = (uint64_t)sqlite3_column_int64(s, 5),
                                   .deadline_ms = (uint64_t)sqlite3_column_int64(s, 6),
                                   .created_ms = (uint64_t)sqlite3_column_int64(s, 7),
                                   .finished_ms = (uint64_t)sqlite3_column_int64(s, 8),
                                   .numerics_class = (const char *)sqlite3_column_text(s, 10),
                                   .cause = (enum weir_status)sqlite3_column_int(s, 11),
                                   .words = (const char *)sqlite3_column_text(s, 12),
                                   .swept = sqlite3_column_int(s, 13) != 0 };
    copy_blob(s, 0, job.id.bytes, WEIR_ID_BYTES);
    copy_blob(s, 9, job.fingerprint, WEIR_SHA256_BYTES);
    job.manifest = (struct weir_blob){ sqlite3_column_blob(s, 14), (size_t)sqlite3_column_bytes(s, 14) };
    job.spec = (struct weir_blob){ sqlite3_column_blob(s, 20), (size_t)sqlite3_column_bytes(s, 20) };
    job.batched = sqlite3_column_type(s, 15) != SQLITE_NULL;
    copy_blob(s, 15, job.batch, WEIR_ID_BYTES);
    job.part = (uint32_t)sqlite3_column_int64(s, 16);
    job.parts = (uint32_t)sqlite3_column_int64(s, 17);
    job.task_count = (uint32_t)sqlite3_column_int64(s, 18);
    job.tasks_done = (uint32_t)sqlite3_column_int64(s, 19);
    return job;
}

static enum weir_status find_key(struct sqlite_ledger *ledger, const struct weir_ledger_query *query,
                                 struct weir_job_id *out, struct weir_error *error)
{
    sqlite3_stmt *statement = ledger->statements[S_KEY_FIND];
    sqlite3_bind_text(statement, 1, query->tenant, -1, SQLITE_STATIC);
    bind_blob(statement, 2, query->key, WEIR_SHA256_BYTES);
    const int code = sqlite3_step(statement);
    enum weir_status status = WEIR_OK;
    if (code == SQLITE_ROW)
        copy_blob(statement, 0, out->bytes, WEIR_ID_BYTES);
    else if (code == SQLITE_DONE)
        status = WEIR_NOT_FOUND;
    else
        status = fail_sqlite(ledger, error, statement_text[S_KEY_FIND]);
    sqlite3_reset(statement);
    return status;
}

static enum weir_status sqlite_replay(struct weir_ledger *base, const struct weir_ledger_query *query,
                                      weir_ledger_each *each, void *context, struct weir_error *error)
{
    struct sqlite_ledger *ledger = (struct sqlite_ledger *)base;
    sqlite3_stmt *statement = ledger->statements[S_JOB_READ];
    enum weir_status status = WEIR_OK;
    struct weir_job_id id = query->job;
    struct rows rows = { 0 };

    if (query->by_key) {
        status = find_key(ledger, query, &id, error);
        if (status != WEIR_OK) return status;
    }
    bind_blob(statement, 1, id.bytes, WEIR_ID_BYTES);
    sqlite3_bind_int(statement, 2, !query->no_spec);
    const int code = sqlite3_step(statement);
    if (code != SQLITE_ROW) {
        status = code == SQLITE_DONE ? WEIR_NOT_FOUND : fail_sqlite(ledger, error, statement_text[S_JOB_READ]);
        goto cleanup;
    }
    if (!query->no_tasks) WEIR_TRY(rows_read(ledger, &id, query, &rows, error));
    const struct weir_ledger_job job = job_row(statement);
    each(context, &job, rows.tasks, rows.count);
cleanup:
    sqlite3_reset(statement);
    rows_deinit(&rows);
    return status;
}

static enum weir_status sqlite_page_open(struct weir_ledger *base, const struct weir_ledger_page *page,
                                         weir_ledger_each *each, void *context, struct weir_error *error)
{
    struct sqlite_ledger *ledger = (struct sqlite_ledger *)base;
    const enum statement which = page->batched ? (page->newest_first ? S_BATCH_DOWN : S_BATCH_UP)
                                               : (page->newest_first ? S_PAGE_DOWN : S_PAGE_UP);
    sqlite3_stmt *statement = ledger->statements[which];
    enum weir_status status = WEIR_OK;
    struct rows rows = { 0 };
    struct weir_job_id from = page->from;
    int code;

    if (!page->bounded) memset(from.bytes, page->newest_first ? 0xff : 0, WEIR_ID_BYTES);
    bind_blob(statement, 1, from.bytes, WEIR_ID_BYTES);
    sqlite3_bind_int(statement, 2, (int)page->filter);
    sqlite3_bind_int64(statement, 3, page->limit);
    if (page->batched) bind_blob(statement, 4, page->batch, WEIR_ID_BYTES);
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
        const struct weir_ledger_job job = job_row(statement);
        if (!page->no_tasks) WEIR_TRY(rows_read(ledger, &job.id, NULL, &rows, error));
        if (!each(context, &job, rows.tasks, rows.count)) goto cleanup;
    }
    if (code != SQLITE_DONE) status = fail_sqlite(ledger, error, statement_text[which]);
cleanup:
    sqlite3_reset(statement);
    rows_deinit(&rows);
    return status;
}

/* ---- opening ---- */

static void sqlite_close(struct weir_ledger *base)
{
    struct sqlite_ledger *ledger = (struct sqlite_ledger *)base;
    for (int k = 0; k < S_COUNT; k++) sqlite3_finalize(ledger->statements[k]);
    sqlite3_close(ledger->db);
    if (ledger->lock_fd >= 0) close(ledger->lock_fd); /* the lock goes with it; the file stays, as a lock file must */
    free(ledger);
}

static enum weir_status take_lock(struct sqlite_ledger *ledger, const char *path, struct weir_error *error)
{
    char lock_path[4096];
    if ((size_t)snprintf(lock_path, sizeof lock_path, "%s.lock", path) >= sizeof lock_path) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "the ledger's path is over %zu bytes", sizeof lock_path);
    }
    ledger->lock_fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (ledger->lock_fd < 0) return weir_fail(error, WEIR_STORE, "%s: %s", lock_path, strerror(errno));
    if (flock(ledger->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        return weir_fail(error, WEIR_BUSY, "another broker serves this directory: %s is locked", lock_path);
    }
    return WEIR_OK;
}

static enum weir_status execute(struct sqlite_ledger *ledger, const char *sql, struct weir_error *error)
{
    return sqlite3_exec(ledger->db, sql, NULL, NULL, NULL) == SQLITE_OK ? WEIR_OK : fail_sqlite(ledger, error, sql);
}

static enum weir_status pragma_number(struct sqlite_ledger *ledger, const char *sql, int64_t *out,
                                      struct weir_error *error)
{
    sqlite3_stmt *statement = NULL;
    enum weir_status status = WEIR_OK;
    if (sqlite3_prepare_v2(ledger->db, sql, -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW) {
        *out = sqlite3_column_int64(statement, 0);
    } else {
        status = fail_sqlite(ledger, error, sql);
    }
    sqlite3_finalize(statement);
    return status;
}

static enum weir_status open_schema(struct sqlite_ledger *ledger, const char *path, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    int64_t version = 0, application = 0, tables = 0;
    char sql[sizeof schema + sizeof from_1 + 200];

    WEIR_TRY(execute(ledger,
                     "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                     "PRAGMA foreign_keys=ON; PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON; PRAGMA mmap_size=0;"
                     "PRAGMA journal_size_limit=67108864;",
                     error));
    WEIR_TRY(pragma_number(ledger, "PRAGMA user_version", &version, error));
    WEIR_TRY(pragma_number(ledger, "PRAGMA application_id", &application, error));
    WEIR_TRY(pragma_number(ledger, "SELECT count(*) FROM sqlite_schema", &tables, error));
    if (version == 0 && application == 0 && tables == 0) {
        snprintf(sql, sizeof sql, "BEGIN IMMEDIATE; %s PRAGMA application_id=%d; PRAGMA user_version=%d; COMMIT;",
                 schema, APPLICATION_ID, SCHEMA_VERSION);
        WEIR_TRY(execute(ledger, sql, error));
    } else if (application != APPLICATION_ID) {
        status = weir_fail(error, WEIR_CONFLICT, "%s is a database of another program", path);
    } else if (version == 1) {
        snprintf(sql, sizeof sql, "BEGIN IMMEDIATE; %s PRAGMA user_version=%d; COMMIT;", from_1, SCHEMA_VERSION);
        WEIR_TRY(execute(ledger, sql, error));
    } else if (version > SCHEMA_VERSION) {
        status = weir_fail(error, WEIR_CONFLICT, "%s has schema %lld; this broker knows up to %d", path,
                           (long long)version, SCHEMA_VERSION);
    }
cleanup:
    return status;
}

enum weir_status weir_ledger_sqlite_open(const char *path, struct weir_ledger **out, struct weir_error *error)
{
    static const struct weir_ledger_ops ops = { sqlite_apply, sqlite_takeover, sqlite_replay, sqlite_page_open,
                                                sqlite_close };
    enum weir_status status = WEIR_OK;
    struct sqlite_ledger *ledger = calloc(1, sizeof *ledger);
    const bool in_memory = strcmp(path, ":memory:") == 0;

    if (ledger == NULL) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a ledger");
    ledger->base.ops = &ops;
    ledger->lock_fd = -1;
    if (!in_memory) WEIR_TRY(take_lock(ledger, path, error));
    if (sqlite3_open_v2(path, &ledger->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL) !=
        SQLITE_OK) {
        status =
            weir_fail(error, WEIR_STORE, "%s: %s", path, ledger->db != NULL ? sqlite3_errmsg(ledger->db) : "no memory");
        goto cleanup;
    }
    sqlite3_extended_result_codes(ledger->db, 1);
    WEIR_TRY(open_schema(ledger, path, error));
    for (int k = 0; k < S_COUNT; k++) {
        if (sqlite3_prepare_v3(ledger->db, statement_text[k], -1, SQLITE_PREPARE_PERSISTENT, &ledger->statements[k],
                               NULL) != SQLITE_OK) {
            status = fail_sqlite(ledger, error, statement_text[k]);
            goto cleanup;
        }
    }
cleanup:
    if (status != WEIR_OK)
        sqlite_close(&ledger->base);
    else
        *out = &ledger->base;
    return status;
}
