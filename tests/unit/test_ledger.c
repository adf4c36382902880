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
    make_file(&p, "PRAGMA user_version=2");
    see_refused(&p, WEIR_CONFLICT, "has schema 2; this broker knows up to 1");
    end(&p);
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
        cmocka_unit_test(a_database_of_another_program_is_refused_and_left_alone),
        cmocka_unit_test(a_file_that_is_no_database_is_refused_in_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
