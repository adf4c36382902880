/* What the SQLite ledger promises beyond the reference model (tests/sim/model compares the two): what it keeps over a
 * restart, whom it lets in, and which files it refuses. */
#include "broker/ledger.h"

#include <fcntl.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct place {
    char dir[64], path[96];
};

static struct place begin(void)
{
    struct place p = { "/tmp/weir-ledger-XXXXXX", "" };
    assert_non_null(mkdtemp(p.dir));
    snprintf(p.path, sizeof p.path, "%s/ledger.db", p.dir);
    return p;
}

static void end(const struct place *p)
{
    static const char *const names[] = { "ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.lock",
                                         "ledger.db-journal" };
    char path[160];
    for (size_t k = 0; k < WEIR_COUNT(names); k++) {
        snprintf(path, sizeof path, "%s/%s", p->dir, names[k]);
        unlink(path);
    }
    assert_int_equal(rmdir(p->dir), 0); /* nothing else was left behind */
}

static struct weir_ledger *open_ledger(const struct place *p, uint64_t epoch_wanted)
{
    struct weir_ledger *ledger = NULL;
    struct weir_error error = { 0 };
    uint64_t epoch = 0;
    if (weir_ledger_sqlite_open(p->path, &ledger, &error) != WEIR_OK) fail_msg("%s", error.words);
    assert_int_equal(weir_ledger_takeover(ledger, &epoch, NULL), WEIR_OK);
    assert_int_equal(epoch, epoch_wanted);
    return ledger;
}

static enum weir_ledger_reply apply(struct weir_ledger *ledger, struct weir_ledger_call *call)
{
    struct weir_ledger_call *const calls[] = { call };
    struct weir_error error = { 0 };
    if (weir_ledger_apply(ledger, calls, 1, &error) != WEIR_OK) fail_msg("%s", error.words);
    return call->reply;
}

static const struct weir_job_id job_id = { { 1, 2, 3 } };

static enum weir_ledger_reply submit(struct weir_ledger *ledger, uint8_t fingerprint)
{
    struct weir_ledger_job job = { .id = job_id,
                                   .tenant = "default",
                                   .plan_version = 1,
                                   .numerics_class = "",
                                   .words = "",
                                   .spec = { "spec", 4 },
                                   .fingerprint = { fingerprint } };
    struct weir_ledger_call call = { .op = WEIR_LEDGER_SUBMIT, .task.job = job_id };
    call.u.submit.job = &job;
    for (int k = 0; k < WEIR_STAGE_COUNT; k++) call.u.submit.counts[k] = 1;
    call.u.submit.ready = (struct weir_plan_range){ WEIR_STAGE_TEXT, 0, 1 };
    call.u.submit.keyed = true;
    call.u.submit.key[0] = 42;
    return apply(ledger, &call);
}

struct seen {
    size_t jobs, tasks;
    enum weir_job_state state;
    enum weir_task_state text;
    uint8_t token;
    uint32_t attempt;
    char class_text[16];
};

static bool see(void *context, const struct weir_ledger_job *job, const struct weir_ledger_task *tasks, size_t count)
{
    struct seen *seen = context;
    seen->jobs++;
    seen->tasks = count;
    seen->state = job->state;
    seen->text = tasks[0].state;
    seen->token = tasks[0].token[0];
    seen->attempt = tasks[0].attempt;
    snprintf(seen->class_text, sizeof seen->class_text, "%s", job->numerics_class);
    return true;
}

static void what_was_written_is_there_after_a_restart(void **state)
{
    (void)state;
    const struct place p = begin();
    struct weir_ledger *ledger = open_ledger(&p, 1);
    assert_int_equal(submit(ledger, 1), WEIR_LEDGER_APPLIED);
    struct weir_ledger_call lease = { .op = WEIR_LEDGER_LEASE,
                                      .task = { job_id, WEIR_STAGE_TEXT, 0 },
                                      .token = { 77 } };
    strcpy(lease.u.lease.numerics_class, "cpu");
    assert_int_equal(apply(ledger, &lease), WEIR_LEDGER_APPLIED);
    weir_ledger_close(&ledger);

    ledger = open_ledger(&p, 2);
    const struct weir_ledger_page page = { .filter = WEIR_LEDGER_OPEN, .limit = 10 };
    struct seen seen = { 0 };
    assert_int_equal(weir_ledger_page_open(ledger, &page, see, &seen, NULL), WEIR_OK);
    assert_int_equal(seen.jobs, 1);
    assert_int_equal(seen.tasks, 4);
    assert_int_equal(seen.state, WEIR_JOB_RUNNING);
    assert_int_equal(seen.text, WEIR_TASK_LEASED);
    assert_int_equal(seen.token, 77);
    assert_int_equal(seen.attempt, 1);
    assert_string_equal(seen.class_text, "cpu");
    assert_int_equal(apply(ledger, &lease),
                     WEIR_LEDGER_REPEATED); /* the outcome was unknown: said again, nothing changes */
    assert_int_equal(submit(ledger, 1), WEIR_LEDGER_EXISTS);
    assert_int_equal(submit(ledger, 2), WEIR_LEDGER_CONFLICT);
    weir_ledger_close(&ledger);
    end(&p);
}

static void only_one_has_the_ledger_at_a_time(void **state)
{
    (void)state;
    const struct place p = begin();
    struct weir_ledger *first = open_ledger(&p, 1), *second = NULL;
    struct weir_error error = { 0 };
    assert_int_equal(weir_ledger_sqlite_open(p.path, &second, &error), WEIR_BUSY);
    assert_non_null(strstr(error.words, "another broker serves this directory"));
    assert_null(second);
    weir_ledger_close(&first);
    first = open_ledger(&p, 2);
    weir_ledger_close(&first);
    end(&p);
}

/* Makes the file with these numbers in its head. */
static void make_file(const struct place *p, const char *sql)
{
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(p->path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void see_refused(const struct place *p, enum weir_status status, const char *words)
{
    struct weir_ledger *ledger = NULL;
    struct weir_error error = { 0 };
    assert_int_equal(weir_ledger_sqlite_open(p->path, &ledger, &error), status);
    if (strstr(error.words, words) == NULL) fail_msg("\"%s\" does not say \"%s\"", error.words, words);
    assert_null(ledger);
}

static void a_ledger_of_a_newer_version_is_refused(void **state)
{
    (void)state;
    const struct place p = begin();
    struct weir_ledger *ledger = open_ledger(&p, 1);
    weir_ledger_close(&ledger);
    make_file(&p, "PRAGMA user_version=3");
    see_refused(&p, WEIR_CONFLICT, "has schema 3; this broker knows up to 2");
    end(&p);
}

/* As brokers before there were lists and batches wrote it: one job that runs, one that is over. */
static const char schema_1[] =
    "CREATE TABLE meta(k TEXT PRIMARY KEY, i INTEGER, b BLOB) STRICT, WITHOUT ROWID;"
    "CREATE TABLE job(id BLOB PRIMARY KEY, tenant TEXT NOT NULL, state INTEGER NOT NULL, prio INTEGER NOT NULL,"
    " plan INTEGER NOT NULL, cost INTEGER NOT NULL, fp BLOB NOT NULL, spec BLOB NOT NULL, deadline_ms INTEGER NOT NULL,"
    " created_ms INTEGER NOT NULL, finished_ms INTEGER NOT NULL, class TEXT NOT NULL, cause INTEGER NOT NULL,"
    " words TEXT NOT NULL, swept INTEGER NOT NULL, manifest BLOB) STRICT, WITHOUT ROWID;"
    "CREATE INDEX job_open ON job(id) WHERE state<3;"
    "CREATE INDEX job_unswept ON job(id) WHERE state>=3 AND swept=0;"
    "CREATE TABLE task(job BLOB NOT NULL REFERENCES job(id) ON DELETE CASCADE, stage INTEGER NOT NULL,"
    " idx INTEGER NOT NULL, state INTEGER NOT NULL, token BLOB NOT NULL, worker BLOB NOT NULL, pid INTEGER NOT NULL,"
    " attempt INTEGER NOT NULL, crash INTEGER NOT NULL, fail INTEGER NOT NULL, expired INTEGER NOT NULL,"
    " released INTEGER NOT NULL, regress INTEGER NOT NULL, ckpt INTEGER NOT NULL, delay_ms INTEGER NOT NULL,"
    " artefacts BLOB, facts BLOB, PRIMARY KEY(job,stage,idx)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE idem(tenant TEXT NOT NULL, key_h BLOB NOT NULL, job BLOB NOT NULL, fp BLOB NOT NULL,"
    " PRIMARY KEY(tenant,key_h)) STRICT, WITHOUT ROWID;"
    "CREATE INDEX idem_job ON idem(job);"
    "INSERT INTO meta VALUES('epoch',5,NULL);"
    "INSERT INTO job VALUES(x'01020300000000000000000000000000','default',1,0,1,7,zeroblob(32),CAST('spec' AS BLOB),0,1,0,"
    "'cpu',0,'',0,NULL);"
    "INSERT INTO job VALUES(x'01020400000000000000000000000000','default',3,0,1,7,zeroblob(32),CAST('old' AS BLOB),0,1,2,"
    "'cpu',0,'',1,CAST('made' AS BLOB));"
    "INSERT INTO task VALUES(x'01020300000000000000000000000000',0,0,3,x'4D000000000000000000000000000000',zeroblob(16),1,"
    "1,0,0,0,0,0,0,0,NULL,NULL);"
    "INSERT INTO task VALUES(x'01020400000000000000000000000000',0,0,4,zeroblob(16),zeroblob(16),1,1,0,0,0,0,0,0,0,"
    "NULL,NULL);"
    "INSERT INTO task VALUES(x'01020400000000000000000000000000',3,0,4,zeroblob(16),zeroblob(16),1,1,0,0,0,0,0,0,0,"
    "CAST('made' AS BLOB),NULL);"
    "PRAGMA application_id=1464158546; PRAGMA user_version=1;";

struct old_seen {
    size_t jobs;
    bool right;
};

static bool see_old(void *context, const struct weir_ledger_job *job, const struct weir_ledger_task *tasks,
                    size_t count)
{
    struct old_seen *seen = context;
    const bool over = job->state == WEIR_JOB_SUCCEEDED;
    const char *spec = over ? "old" : "spec";
    seen->jobs++;
    seen->right = seen->right && !job->batched && job->spec.count == strlen(spec) &&
                  memcmp(job->spec.bytes, spec, strlen(spec)) == 0 && job->tasks_done == (over ? 2 : 0) &&
                  job->task_count == (over ? 2 : 0) && job->manifest.count == (over ? 4 : 0) && job->cost_ms == 7 &&
                  strcmp(job->numerics_class, "cpu") == 0 && job->swept == over && count == (over ? 2 : 1) &&
                  tasks[0].token[0] == (over ? 0 : 77);
    return true;
}

static void a_ledger_of_before_the_batches_is_taken_over_with_all_its_jobs(void **state)
{
    (void)state;
    const struct place p = begin();
    make_file(&p, schema_1);
    for (uint64_t epoch = 6; epoch <= 7; epoch++) { /* brought up to date, and then opened as such */
        struct weir_ledger *ledger = open_ledger(&p, epoch);
        const struct weir_ledger_page page = { .filter = WEIR_LEDGER_ALL, .limit = 10 };
        struct old_seen seen = { 0, true };
        assert_int_equal(weir_ledger_page_open(ledger, &page, see_old, &seen, NULL), WEIR_OK);
        assert_int_equal(seen.jobs, 2);
        assert_true(seen.right);
        weir_ledger_close(&ledger);
    }
    struct weir_ledger *ledger = open_ledger(&p, 8);
    struct weir_ledger_call commit = { .op = WEIR_LEDGER_COMMIT,
                                       .task = { job_id, WEIR_STAGE_TEXT, 0 },
                                       .token = { 77 } };
    commit.job_to = WEIR_JOB_SUCCEEDED;
    assert_int_equal(apply(ledger, &commit), WEIR_LEDGER_APPLIED);
    weir_ledger_close(&ledger);
    end(&p);
}

/* ---- what is lost and what is left ---- */

struct ended {
    enum weir_job_state state;
    enum weir_status cause;
    char words[WEIR_LEDGER_WORDS_BYTES], manifest[16];
    uint32_t done, cancelled, dead;
};

static bool see_ended(void *context, const struct weir_ledger_job *job, const struct weir_ledger_task *tasks,
                      size_t count)
{
    struct ended *ended = context;
    *ended = (struct ended){ .state = job->state, .cause = job->cause };
    snprintf(ended->words, sizeof ended->words, "%s", job->words);
    assert_true(job->manifest.count < sizeof ended->manifest);
    if (job->manifest.count > 0) memcpy(ended->manifest, job->manifest.bytes, job->manifest.count);
    for (size_t k = 0; k < count; k++) {
        ended->done += tasks[k].state == WEIR_TASK_DONE;
        ended->cancelled += tasks[k].state == WEIR_TASK_CANCELLED;
        ended->dead += tasks[k].state == WEIR_TASK_DEAD;
    }
    return true;
}

static struct ended look(struct weir_ledger *ledger)
{
    const struct weir_ledger_query query = { .job = job_id };
    struct ended ended;
    assert_int_equal(weir_ledger_replay(ledger, &query, see_ended, &ended, NULL), WEIR_OK);
    return ended;
}

static void lease(struct weir_ledger *ledger, enum weir_stage stage, uint32_t index)
{
    struct weir_ledger_call call = { .op = WEIR_LEDGER_LEASE, .task = { job_id, stage, index }, .token = { 1 } };
    strcpy(call.u.lease.numerics_class, "cpu");
    assert_int_equal(apply(ledger, &call), WEIR_LEDGER_APPLIED);
}

static void commit(struct weir_ledger *ledger, enum weir_stage stage, uint32_t index, const char *made,
                   enum weir_job_state job_to, const char *lead)
{
    struct weir_ledger_call call = { .op = WEIR_LEDGER_COMMIT, .task = { job_id, stage, index }, .token = { 1 } };
    call.u.commit.artefacts = (struct weir_blob){ made, strlen(made) };
    call.u.commit.ready =
        (struct weir_plan_range){ (enum weir_stage)((int)stage + 1), 0, stage == WEIR_STAGE_TEXT ? 3 : 0 };
    call.job_to = job_to;
    snprintf(call.lead, sizeof call.lead, "%s", lead);
    assert_int_equal(apply(ledger, &call), WEIR_LEDGER_APPLIED);
}

static void die(struct weir_ledger *ledger, uint32_t item, const char *words)
{
    struct weir_ledger_call call = { .op = WEIR_LEDGER_FAIL,
                                     .task = { job_id, WEIR_STAGE_DENOISE, item },
                                     .token = { 1 } };
    call.cause = WEIR_BAD_SHAPE;
    snprintf(call.words, sizeof call.words, "%s", words);
    call.u.fail.to = WEIR_TASK_DEAD;
    call.lost[WEIR_STAGE_DECODE] = (struct weir_plan_range){ WEIR_STAGE_DECODE, item, 1 };
    assert_int_equal(apply(ledger, &call), WEIR_LEDGER_APPLIED);
}

/* Three images: the first two are lost, the third is made. */
static void a_job_with_lost_items_fails_when_the_last_is_made_and_keeps_what_was(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        const struct place p = begin();
        struct weir_ledger *ledger = NULL;
        uint64_t epoch = 0;
        if (kind == 0) {
            ledger = open_ledger(&p, 1);
        } else {
            assert_int_equal(weir_ledger_memory_open(&ledger, NULL), WEIR_OK);
            assert_int_equal(weir_ledger_takeover(ledger, &epoch, NULL), WEIR_OK);
        }
        struct weir_ledger_job job = {
            .id = job_id, .tenant = "t", .numerics_class = "", .words = "", .spec = { "s", 1 }
        };
        struct weir_ledger_call call = { .op = WEIR_LEDGER_SUBMIT, .task.job = job_id };
        call.u.submit.job = &job;
        call.u.submit.counts[WEIR_STAGE_TEXT] = 1;
        call.u.submit.counts[WEIR_STAGE_DENOISE] = call.u.submit.counts[WEIR_STAGE_DECODE] = 3;
        call.u.submit.ready = (struct weir_plan_range){ WEIR_STAGE_TEXT, 0, 1 };
        assert_int_equal(apply(ledger, &call), WEIR_LEDGER_APPLIED);
        lease(ledger, WEIR_STAGE_TEXT, 0);
        commit(ledger, WEIR_STAGE_TEXT, 0, "t", WEIR_JOB_QUEUED, "");
        for (uint32_t item = 0; item < 3; item++) lease(ledger, WEIR_STAGE_DENOISE, item);
        die(ledger, 1, "item 1: the first");
        die(ledger, 0, "item 0: the second");
        struct ended ended = look(ledger);
        assert_int_equal(ended.state, WEIR_JOB_RUNNING);
        assert_int_equal(ended.dead, 2);
        assert_int_equal(ended.cancelled, 2);
        if (kind == 0) { /* what is said of the first is said after a restart, too */
            weir_ledger_close(&ledger);
            ledger = open_ledger(&p, 2);
        }
        struct weir_ledger_call ready = { .op = WEIR_LEDGER_COMMIT,
                                          .task = { job_id, WEIR_STAGE_DENOISE, 2 },
                                          .token = { 1 } };
        ready.u.commit.ready = (struct weir_plan_range){ WEIR_STAGE_DECODE, 0, 3 }; /* the closed ones stay closed */
        assert_int_equal(apply(ledger, &ready), WEIR_LEDGER_APPLIED);
        lease(ledger, WEIR_STAGE_DECODE, 2);
        commit(ledger, WEIR_STAGE_DECODE, 2, "third", WEIR_JOB_FAILED, "2 of 3 items failed; the first, ");
        ended = look(ledger);
        assert_int_equal(ended.state, WEIR_JOB_FAILED);
        assert_int_equal(ended.cause, WEIR_BAD_SHAPE);
        assert_string_equal(ended.words, "2 of 3 items failed; the first, item 1: the first");
        assert_string_equal(ended.manifest, "third");
        assert_int_equal(ended.done, 3);
        weir_ledger_close(&ledger);
        end(&p);
    }
}

static void words_are_cut_to_whole_characters(void **state)
{
    (void)state;
    char words[300], out[WEIR_LEDGER_WORDS_BYTES];
    for (size_t ascii = 0; ascii < 8; ascii++) {
        size_t used = 0;
        for (; used < ascii; used++) words[used] = 'a';
        for (; used + 3 < sizeof words; used += 3) memcpy(words + used, "\xe2\x82\xac", 3);
        words[used] = 0;
        weir_ledger_words("lead: ", words, out);
        assert_in_range(strlen(out), WEIR_LEDGER_WORDS_BYTES - 6, WEIR_LEDGER_WORDS_BYTES - 1);
        assert_int_equal((strlen(out) - 6 - ascii) % 3, 0);
    }
    weir_ledger_words("lead: ", "short", out);
    assert_string_equal(out, "lead: short");
}

static void a_database_of_another_program_is_refused_and_left_alone(void **state)
{
    (void)state;
    const struct place p = begin();
    make_file(&p, "PRAGMA application_id=7; CREATE TABLE theirs(x)");
    see_refused(&p, WEIR_CONFLICT, "is a database of another program");
    make_file(&p, "INSERT INTO theirs VALUES(1); PRAGMA application_id=0");
    see_refused(&p, WEIR_CONFLICT, "is a database of another program"); /* one that does not say whose it is */
    end(&p);
}

static void a_file_that_is_no_database_is_refused_in_words(void **state)
{
    (void)state;
    const struct place p = begin();
    const int fd = open(p.path, O_CREAT | O_WRONLY, 0600);
    static const char junk[4096] = "this is no database, and it is long enough to be looked at";
    assert_int_equal(write(fd, junk, sizeof junk), sizeof junk);
    close(fd);
    see_refused(&p, WEIR_STORE, "not a database");
    end(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_there_after_a_restart),
        cmocka_unit_test(only_one_has_the_ledger_at_a_time),
        cmocka_unit_test(a_ledger_of_a_newer_version_is_refused),
        cmocka_unit_test(a_ledger_of_before_the_batches_is_taken_over_with_all_its_jobs),
        cmocka_unit_test(a_job_with_lost_items_fails_when_the_last_is_made_and_keeps_what_was),
        cmocka_unit_test(words_are_cut_to_whole_characters),
        cmocka_unit_test(a_database_of_another_program_is_refused_and_left_alone),
        cmocka_unit_test(a_file_that_is_no_database_is_refused_in_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
