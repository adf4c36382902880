/* What a worker says of its device's health, and when: from looks that are made up, into a log that is read back. */
#include "worker/watch.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static struct weir_log lines; /* into memory */
static char text[4096];

static int begin(void **state)
{
    (void)state;
    lines = (struct weir_log){ "test_watch", WEIR_LOG_INFO, memfd_create("test_watch", MFD_CLOEXEC) };
    return lines.fd < 0;
}

static int end(void **state)
{
    (void)state;
    return close(lines.fd);
}

static unsigned count(const char *part)
{
    const ssize_t length = pread(lines.fd, text, sizeof text - 1, 0);
    unsigned found = 0;
    assert_true(length >= 0);
    text[length] = '\0';
    for (const char *at = text; (at = strstr(at, part)) != NULL; at++) found++;
    return found;
}

static void look(struct weir_watch_notes *notes, const char *slowed, const char *taken)
{
    struct weir_health health = { .figures = "temperature_c=41" };
    strcpy(health.notices[WEIR_HEALTH_SLOWED], slowed);
    strcpy(health.notices[WEIR_HEALTH_TAKEN], taken);
    weir_watch_step(notes, "cuda", &health, &lines);
}

static void a_notice_is_said_when_it_begins_and_when_it_has_ended(void **state)
{
    (void)state;
    struct weir_watch_notes notes = { .is_told = false };
    look(&notes, "", "");
    assert_int_equal(count("device health name=cuda temperature_c=41"), 1);
    for (int i = 0; i < 5; i++) look(&notes, i % 2 ? "hot" : "hotter", "");
    assert_int_equal(count("slowed"), 1);
    assert_int_equal(count("device slowed begins name=cuda words=\"hotter\""), 1);
    for (int i = 1; i < WEIR_WATCH_QUIET_LOOKS; i++) look(&notes, "", "");
    look(&notes, "hot", ""); /* not long enough */
    for (int i = 1; i < WEIR_WATCH_QUIET_LOOKS; i++) look(&notes, "", "");
    assert_int_equal(count("slowed"), 1);
    for (int i = 0; i < 9; i++) look(&notes, "", "");
    assert_int_equal(count("device slowed ended name=cuda"), 1);
    look(&notes, "hot", "");
    assert_int_equal(count("device slowed begins"), 2);
    assert_int_equal(count("device health"), 1);
}

static void notices_are_told_apart(void **state)
{
    (void)state;
    struct weir_watch_notes notes = { .is_told = false };
    look(&notes, "hot", "process 4711");
    look(&notes, "hot", "");
    look(&notes, "hot", "");
    look(&notes, "hot", "");
    assert_int_equal(count("device memory begins name=cuda words=\"process 4711\""), 1);
    assert_int_equal(count("device memory ended"), 1);
    assert_int_equal(count("device slowed begins"), 1);
    assert_int_equal(count("device slowed ended"), 0);
}

static void fails(struct weir_device *device, struct weir_health *out)
{
    (void)device;
    *out = (struct weir_health){ .failure = "GPU is lost", .figures = "none" };
}

static void is_sound(struct weir_device *device, struct weir_health *out)
{
    (void)device;
    *out = (struct weir_health){ .figures = "all" };
}

static bool is_readable(int fd, int wait_ms)
{
    struct pollfd one = { fd, POLLIN, 0 };
    return poll(&one, 1, wait_ms) == 1;
}

static void a_device_that_fails_is_told_once(void **state)
{
    (void)state;
    const struct weir_device_table table = { .name = "cuda", .health = fails };
    struct weir_device device = { .table = &table };
    struct weir_watch *watch;
    struct weir_error why = { 0 };
    assert_int_equal(weir_watch_start(&device, &lines, &watch, NULL), WEIR_OK);
    assert_true(is_readable(weir_watch_fd(watch), 10000));
    assert_true(weir_watch_failed(watch, &why));
    assert_int_equal(why.code, WEIR_DEVICE);
    assert_string_equal(why.words, "GPU is lost");
    assert_false(is_readable(weir_watch_fd(watch), 0));
    assert_false(weir_watch_failed(watch, &why));
    weir_watch_stop(&watch);
    assert_null(watch);
}

static void a_watch_ends_when_it_is_told_to(void **state)
{
    (void)state;
    const struct weir_device_table sound = { .name = "cuda", .health = is_sound }, unasked = { .name = "cpu" };
    const struct weir_device_table *const tables[] = { &sound, &unasked };
    for (int i = 0; i < 2; i++) {
        struct weir_device device = { .table = tables[i] };
        struct weir_watch *watch;
        struct weir_error why = { 0 };
        assert_int_equal(weir_watch_start(&device, &lines, &watch, NULL), WEIR_OK);
        assert_false(weir_watch_failed(watch, &why));
        weir_watch_stop(&watch);
    }
    assert_int_equal(count("device health name=cuda all"), 1);
    assert_int_equal(count("cpu"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_notice_is_said_when_it_begins_and_when_it_has_ended, begin, end),
        cmocka_unit_test_setup_teardown(notices_are_told_apart, begin, end),
        cmocka_unit_test_setup_teardown(a_device_that_fails_is_told_once, begin, end),
        cmocka_unit_test_setup_teardown(a_watch_ends_when_it_is_told_to, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
