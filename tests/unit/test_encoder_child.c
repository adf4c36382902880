/* A child that encodes, in all the ways in which it can end. /bin/sh stands in for weir-encode. */
#include "worker/encoder_child.h"
#include "worker/scratch.h"

#include "proto/base/clock.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static struct weir_encoder_child *start(const char *script, const atomic_bool *cancel)
{
    const char *const words[] = { "-c", script, NULL };
    struct weir_encoder_child *child;
    struct weir_error error;
    if (weir_encoder_child_start("/bin/sh", words, cancel, &child, &error) != WEIR_OK) fail_msg("%s", error.words);
    return child;
}

static int open_fds(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (readdir(folder)) count++;
    closedir(folder);
    return count;
}

static void see_no_child(void)
{
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

static void its_exit_code_is_the_status_and_its_last_line_the_words(void **state)
{
    (void)state;
    static const struct {
        const char *script;
        enum weir_status status;
        const char *words;
    } rows[] = {
        { "exit 0", WEIR_OK, "" },
        { "echo a line >&2; exit 0", WEIR_OK, "" },
        { "echo first >&2; echo the last one >&2; exit 74", WEIR_BAD_FILE, "the last one" },
        { "printf 'no newline' >&2; exit 75", WEIR_IO, "no newline" },
        { "exit 71", WEIR_NO_MEMORY, "code 71" },
        { "exit 64", WEIR_INTERNAL, "code 64" },
        { "echo gone >&2; kill -9 $$", WEIR_INTERNAL, "signal 9: gone" },
        { "kill -SEGV $$", WEIR_INTERNAL, "signal 11" },
        { "i=0; while [ $i -lt 3000 ]; do echo 'a long line that fills the pipe, over and over' >&2; i=$((i+1)); done; exit 74",
          WEIR_BAD_FILE, "a l" },
    };
    const int before = open_fds();
    for (size_t i = 0; i < WEIR_COUNT(rows); i++) {
        struct weir_error error = { .words = "" };
        struct weir_encoder_child *child = start(rows[i].script, NULL);
        const enum weir_status status = weir_encoder_child_finish(&child, NULL, &error);
        if (status != rows[i].status || !strstr(error.words, rows[i].words)) {
            fail_msg("%s: %s: %s", rows[i].script, weir_status_name(status), error.words);
        }
        assert_null(child);
        see_no_child();
    }
    assert_int_equal(open_fds(), before);
}

static void what_is_written_arrives_and_what_it_prints_comes_back(void **state)
{
    (void)state;
    enum { BYTES = 3000000 };
    char text[WEIR_ENCODER_TEXT_BYTES];
    uint8_t *bytes = calloc(1, BYTES);
    struct weir_encoder_child *child = start("wc -c", NULL);
    assert_int_equal(weir_encoder_child_write(child, bytes, BYTES / 3, NULL), WEIR_OK);
    assert_int_equal(weir_encoder_child_write(child, bytes, BYTES - BYTES / 3, NULL), WEIR_OK);
    assert_int_equal(weir_encoder_child_finish(&child, text, NULL), WEIR_OK);
    assert_int_equal(atoi(text), BYTES);
    free(bytes);
}

static void one_that_leaves_early_says_why(void **state)
{
    (void)state;
    enum { BYTES = 3000000 };
    struct weir_error error;
    uint8_t *bytes = calloc(1, BYTES);
    struct weir_encoder_child *child = start("exec 0<&-; echo not even frames >&2; exit 74", NULL);
    enum weir_status status = WEIR_OK;
    for (int i = 0; status == WEIR_OK && i < 10; i++) status = weir_encoder_child_write(child, bytes, BYTES, &error);
    assert_int_equal(status, WEIR_BAD_FILE);
    assert_string_equal(error.words, "not even frames");
    weir_encoder_child_stop(&child);
    see_no_child();
    child = start("exec 0<&-; exit 0", NULL); /* content, but it did not take everything */
    status = WEIR_OK;
    for (int i = 0; status == WEIR_OK && i < 10; i++) status = weir_encoder_child_write(child, bytes, BYTES, &error);
    assert_int_equal(status, WEIR_INTERNAL);
    weir_encoder_child_stop(&child);
    see_no_child();
    free(bytes);
}

static void *cancel_later(void *context)
{
    usleep(100000);
    atomic_store((atomic_bool *)context, true);
    return NULL;
}

static void a_cancel_ends_a_wait_and_the_child(void **state)
{
    (void)state;
    enum { BYTES = 3000000 };
    static const char *const scripts[] = { "exec sleep 1000", "exec 0<&-; exec sleep 1000" };
    uint8_t *bytes = calloc(1, BYTES);
    for (int i = 0; i < 2; i++) {
        atomic_bool cancel = false;
        pthread_t thread;
        const uint64_t begin_ms = weir_clock_now_ms();
        struct weir_encoder_child *child = start(scripts[i], &cancel);
        pthread_create(&thread, NULL, cancel_later, &cancel);
        const enum weir_status status = i == 0 ? weir_encoder_child_write(child, bytes, BYTES, NULL)
                                               : weir_encoder_child_finish(&child, NULL, NULL);
        assert_int_equal(status, WEIR_CANCELLED);
        weir_encoder_child_stop(&child);
        pthread_join(thread, NULL);
        see_no_child();
        assert_true(weir_clock_now_ms() - begin_ms < 60000);
    }
    free(bytes);
}

static void a_program_that_is_not_there_is_named(void **state)
{
    (void)state;
    const int before = open_fds();
    const char *const words[] = { "version", NULL };
    struct weir_encoder_child *child;
    struct weir_error error;
    assert_int_equal(weir_encoder_child_start("/nowhere/weir-encode", words, NULL, &child, &error), WEIR_UNSUPPORTED);
    assert_null(child);
    assert_non_null(strstr(error.words, "/nowhere/weir-encode"));
    assert_int_equal(open_fds(), before);
}

static void it_has_the_signals_of_a_fresh_program(void **state)
{
    (void)state;
    char text[WEIR_ENCODER_TEXT_BYTES];
    sigset_t held, old;
    sigfillset(&held);
    pthread_sigmask(SIG_BLOCK, &held, &old);
    struct weir_encoder_child *child = start("grep -E '^Sig(Blk|Ign)' /proc/self/status", NULL);
    assert_int_equal(weir_encoder_child_finish(&child, text, NULL), WEIR_OK);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    assert_non_null(strstr(text, "SigBlk:\t0000000000000000"));
    const char *ignored = strstr(text, "SigIgn:");
    assert_non_null(ignored);
    assert_int_equal(strtoull(ignored + 7, NULL, 16) & (1ull << (SIGPIPE - 1) | 1ull << (SIGXFSZ - 1)), 0);
}

static void scratch_goes_with_its_task_and_with_a_dead_worker(void **state)
{
    (void)state;
    char dir[] = "/tmp/weir-scratch-XXXXXX", path[WEIR_SCRATCH_PATH_BYTES], other[64], dead[64];
    struct weir_scratch scratch;
    struct stat facts;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(weir_scratch_open(&scratch, dir, NULL), WEIR_OK);
    weir_scratch_name(&scratch, "frames", path);
    assert_int_equal(mkdir(path, 0700), 0);
    weir_scratch_name(&scratch, "frames/00000.png", path);
    assert_int_equal(weir_scratch_write(path, "x", 1, NULL), WEIR_OK);
    assert_int_equal(weir_scratch_write(path, "x", 1, NULL), WEIR_IO); /* there already */

    const pid_t gone = fork();
    if (gone == 0) _exit(0);
    while (waitpid(gone, NULL, 0) < 0) assert_int_equal(errno, EINTR);
    snprintf(dead, sizeof dead, "%s/task-%ld-0011", dir, (long)gone);
    snprintf(other, sizeof other, "%s/task-x", dir);
    assert_int_equal(mkdir(dead, 0700), 0);
    assert_int_equal(mkdir(other, 0700), 0);
    weir_scratch_sweep(dir); /* ours is alive, and what is no task's is not touched */
    assert_int_not_equal(stat(dead, &facts), 0);
    assert_int_equal(stat(other, &facts), 0);
    assert_int_equal(stat(path, &facts), 0);
    weir_scratch_close(&scratch);
    assert_int_not_equal(stat(path, &facts), 0);
    assert_int_equal(rmdir(other), 0);
    assert_int_equal(rmdir(dir), 0); /* nothing else is left */
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(its_exit_code_is_the_status_and_its_last_line_the_words),
        cmocka_unit_test(what_is_written_arrives_and_what_it_prints_comes_back),
        cmocka_unit_test(one_that_leaves_early_says_why),
        cmocka_unit_test(a_cancel_ends_a_wait_and_the_child),
        cmocka_unit_test(a_program_that_is_not_there_is_named),
        cmocka_unit_test(it_has_the_signals_of_a_fresh_program),
        cmocka_unit_test(scratch_goes_with_its_task_and_with_a_dead_worker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
