/* What is made of each thing that NVML can say, with a library that says it when asked to: a healthy GPU says nothing of
 * most of them. What the real one says is in test_cuda. */
#include "kernels/cuda/health.h"
#include "tests/kernels/fake_nvml.h"

#include <dlfcn.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define BUS_ID "0000:00:06.0"
#define GIB ((unsigned long long)1 << 30)

static struct fake_nvml *fake;
static struct weir_cuda_health *health;
static struct weir_health now;

/* The library, which lies beside this program, and a sound GPU of 80 GiB of which this process has 2 and another 1. */
static void *load(const char *name)
{
    char path[PATH_MAX];
    const ssize_t length = readlink("/proc/self/exe", path, sizeof path - strlen(name));
    if (length <= 0 || (size_t)length == sizeof path - strlen(name)) fail_msg("/proc/self/exe: no path");
    path[length] = '\0';
    strcpy(strrchr(path, '/') + 1, name);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) fail_msg("%s", dlerror());
    fake = dlsym(library, "fake_nvml");
    assert_non_null(fake);
    *fake = (struct fake_nvml){ .bus_id = BUS_ID, .temperature = 41, .process_count = 2 };
    fake->memory = (nvmlMemory_t){ .total = 80 * GIB, .used = 3 * GIB, .free = 77 * GIB };
    fake->processes[0] = (nvmlProcessInfo_t){ .pid = (unsigned int)getpid(), .usedGpuMemory = 2 * GIB };
    fake->processes[1] = (nvmlProcessInfo_t){ .pid = 4711, .usedGpuMemory = GIB };
    return library;
}

static void open_health(void)
{
    struct weir_error error = { 0 };
    if (weir_cuda_health_open(BUS_ID, &health, &error) != WEIR_OK) fail_msg("%s", error.words);
}

static int begin(void **state)
{
    *state = load(FAKE_NVML);
    open_health();
    return 0;
}

static int end(void **state)
{
    weir_cuda_health_close(&health);
    assert_int_equal(fake->starts, 0);
    assert_int_equal(fake->sets, 0);
    return dlclose(*state);
}

static void look(void)
{
    weir_cuda_health_look(health, 70 * GIB, &now);
}

static void assert_silent_but(int notice)
{
    for (int i = 0; i < WEIR_HEALTH_NOTICES; i++) {
        if (i != notice) assert_string_equal(now.notices[i], "");
    }
}

static void assert_says(const char *text, const char *part)
{
    if (!strstr(text, part)) fail_msg("\"%s\" does not say \"%s\"", text, part);
}

static void assert_fails(const char *part)
{
    look();
    assert_says(now.failure, part);
}

static void a_sound_gpu_has_figures_alone(void **state)
{
    (void)state;
    look();
    assert_string_equal(now.failure, "");
    assert_silent_but(-1);
    assert_string_equal(now.figures, "used_mib=3072 free_mib=78848 own_mib=2048 others_mib=1024 temperature_c=41 "
                                     "clock_reasons=0x0 ecc_uncorrected=0 remapped_rows=2+1");
}

static void errors_before_it_was_opened_are_no_failure_and_later_ones_are(void **state)
{
    (void)state;
    weir_cuda_health_close(&health);
    fake->ecc_errors = 3;
    open_health();
    look();
    assert_string_equal(now.failure, "");
    fake->ecc_errors = 5;
    assert_fails("2 uncorrected memory errors");
}

static void a_row_that_cannot_be_remapped_is_a_failure(void **state)
{
    (void)state;
    fake->rows_failed = 1;
    assert_fails("could not be remapped");
}

static void what_waits_for_a_reset_is_worn(void **state)
{
    (void)state;
    fake->rows_pending = 1;
    fake->retired_pending = NVML_FEATURE_ENABLED;
    look();
    assert_string_equal(now.failure, "");
    assert_silent_but(WEIR_HEALTH_WORN);
    assert_says(now.notices[WEIR_HEALTH_WORN], "a row of its memory");
    assert_says(now.notices[WEIR_HEALTH_WORN], "a page of its memory");
}

static void a_gpu_that_is_lost_fails_whatever_is_asked(void **state)
{
    (void)state;
    nvmlReturn_t *const faults[] = { &fake->memory_fault, &fake->ecc_fault, &fake->rows_fault };
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        *faults[i] = NVML_ERROR_GPU_IS_LOST;
        assert_fails("GPU is lost");
        *faults[i] = NVML_ERROR_RESET_REQUIRED;
        assert_fails("GPU requires reset");
        *faults[i] = NVML_ERROR_NO_PERMISSION;
        look();
        assert_string_equal(now.failure, "");
        *faults[i] = NVML_SUCCESS;
    }
}

static void event(unsigned long long type, unsigned long long data)
{
    fake->events[fake->event_count].type = type;
    fake->events[fake->event_count++].data = data;
}

static void an_xid_is_final_or_somebody_s_fault(void **state)
{
    (void)state;
    event(nvmlEventTypeXidCriticalError, 31);
    event(nvmlEventTypeXidCriticalError, 43);
    look();
    assert_string_equal(now.failure, "");
    assert_silent_but(WEIR_HEALTH_FAULTS);
    assert_says(now.notices[WEIR_HEALTH_FAULTS], "XID 31, 43");
    look();
    assert_silent_but(-1); /* each is heard once */
    event(nvmlEventTypeXidCriticalError, 79);
    assert_fails("XID 79");
    event(nvmlEventTypeDoubleBitEccError, 0);
    assert_fails("ECC");
}

static void without_rights_to_events_all_else_is_looked_at(void **state)
{
    (void)state;
    weir_cuda_health_close(&health);
    fake->event_fault = NVML_ERROR_NO_PERMISSION;
    open_health();
    fake->rows_failed = 1;
    assert_fails("remapped");
    assert_says(now.figures, "events=\"Insufficient Permissions\"");
}

static void heat_and_power_supply_slow_it_and_the_power_limit_does_not(void **state)
{
    (void)state;
    fake->clock_reasons = nvmlClocksEventReasonSwPowerCap | nvmlClocksEventReasonGpuIdle;
    look();
    assert_silent_but(-1);
    fake->clock_reasons = nvmlClocksThrottleReasonHwThermalSlowdown | nvmlClocksThrottleReasonHwPowerBrakeSlowdown;
    fake->temperature = 91;
    look();
    assert_string_equal(now.failure, "");
    assert_silent_but(WEIR_HEALTH_SLOWED);
    assert_string_equal(now.notices[WEIR_HEALTH_SLOWED],
                        "slowed down to half and less, for heat, by the power supply, at 91 degrees Celsius");
    fake->clock_reasons = nvmlClocksEventReasonSwThermalSlowdown;
    look();
    assert_says(now.notices[WEIR_HEALTH_SLOWED], "by its driver, for heat");
    fake->clock_reasons = nvmlClocksThrottleReasonHwSlowdown;
    look();
    assert_says(now.notices[WEIR_HEALTH_SLOWED], "to half and less");
}

static void memory_that_is_planned_with_and_others_have_is_told_with_their_numbers(void **state)
{
    (void)state;
    fake->processes[1].usedGpuMemory = 20 * GIB;
    fake->memory.free = 58 * GIB;
    look(); /* 60 GiB are within reach, 70 planned */
    assert_string_equal(now.failure, "");
    assert_silent_but(WEIR_HEALTH_TAKEN);
    assert_string_equal(now.notices[WEIR_HEALTH_TAKEN],
                        "10240 MiB of the memory that is planned with are others' (process 4711: 20480 MiB)");
    assert_true(weir_cuda_health_is_crowded(health, 70 * GIB));
    weir_cuda_health_look(health, 60 * GIB, &now);
    assert_silent_but(-1);
    assert_false(weir_cuda_health_is_crowded(health, 60 * GIB));
    fake->process_count = 1; /* what is missing is nobody's */
    look();
    assert_silent_but(-1);
    fake->process_count = 2;
    fake->processes[0].pid++; /* as in a container that sees the host's numbers */
    look();
    assert_silent_but(-1);
    assert_false(weir_cuda_health_is_crowded(health, 70 * GIB));
    fake->processes[0].pid--;
    fake->processes_fault = NVML_ERROR_NO_PERMISSION;
    look();
    assert_silent_but(-1); /* nobody knows whose it is */
    assert_false(weir_cuda_health_is_crowded(health, 70 * GIB));
}

static void who_holds_memory_is_named(void **state)
{
    (void)state;
    char text[200];
    fake->process_count = 3;
    fake->processes[2] =
        (nvmlProcessInfo_t){ .pid = 12, .usedGpuMemory = (unsigned long long)NVML_VALUE_NOT_AVAILABLE };
    weir_cuda_health_others(health, text, sizeof text);
    assert_string_equal(text, "; others hold 1024 MiB (process 4711: 1024 MiB, process 12: 0 MiB)");
    weir_cuda_health_others(health, text, 20);
    assert_string_equal(text, "; others hold 1024 ");
    fake->process_count = 1;
    weir_cuda_health_others(health, text, sizeof text);
    assert_string_equal(text, "");
}

static void a_library_that_does_not_start_or_know_the_gpu_is_said_so(void **state)
{
    (void)state;
    struct weir_error error = { 0 };
    weir_cuda_health_close(&health);
    fake->init = NVML_ERROR_DRIVER_NOT_LOADED;
    assert_int_equal(weir_cuda_health_open(BUS_ID, &health, &error), WEIR_UNSUPPORTED);
    assert_null(health);
    assert_says(error.words, "Driver Not Loaded");
    fake->init = NVML_SUCCESS;
    assert_int_equal(weir_cuda_health_open("0000:00:99.0", &health, &error), WEIR_UNSUPPORTED);
    assert_says(error.words, "0000:00:99.0: Not Found");
}

static void an_old_library_says_what_it_can(void **state)
{
    (void)state;
    void *library = load(FAKE_NVML_OLD);
    char text[200];
    open_health();
    look();
    assert_string_equal(now.failure, "");
    assert_silent_but(-1);
    assert_string_equal(now.figures, "used_mib=3072 free_mib=78848 temperature_c=41 events=\"Function Not Found\"");
    weir_cuda_health_others(health, text, sizeof text);
    assert_string_equal(text, "");
    fake->memory_fault = NVML_ERROR_GPU_IS_LOST;
    assert_fails("GPU is lost");
    weir_cuda_health_close(&health);
    assert_int_equal(dlclose(library), 0);
}

#define WITH_GPU(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_GPU(a_sound_gpu_has_figures_alone),
        WITH_GPU(errors_before_it_was_opened_are_no_failure_and_later_ones_are),
        WITH_GPU(a_row_that_cannot_be_remapped_is_a_failure),
        WITH_GPU(what_waits_for_a_reset_is_worn),
        WITH_GPU(a_gpu_that_is_lost_fails_whatever_is_asked),
        WITH_GPU(an_xid_is_final_or_somebody_s_fault),
        WITH_GPU(without_rights_to_events_all_else_is_looked_at),
        WITH_GPU(heat_and_power_supply_slow_it_and_the_power_limit_does_not),
        WITH_GPU(memory_that_is_planned_with_and_others_have_is_told_with_their_numbers),
        WITH_GPU(who_holds_memory_is_named),
        WITH_GPU(a_library_that_does_not_start_or_know_the_gpu_is_said_so),
        cmocka_unit_test(an_old_library_says_what_it_can),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
