/* Linked into a weir-worker for tests in place of weir_program_run and weir_device_open: a device that reports a fault,
 * and from then on fails every run, as a GPU does after an illegal access. The file that WEIR_TEST_FAULT names says when:
 * `once` (it is removed, and the next process is sound) or `always`; while there is none, nothing happens. With `unwell`
 * (removed, too) all runs succeed, but who asks for the device's health hears that it failed. */
#include "kernels/program.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum weir_status __real_weir_program_run(const struct weir_program *p, struct weir_stream *stream, void *arena,
                                         const struct weir_binding *bindings, size_t binding_count);
enum weir_status __wrap_weir_program_run(const struct weir_program *p, struct weir_stream *stream, void *arena,
                                         const struct weir_binding *bindings, size_t binding_count);

static atomic_bool is_lost; /* lanes have a thread each */

enum weir_status __real_weir_device_open(const char *name, int threads, struct weir_device **out,
                                         struct weir_error *error);
enum weir_status __wrap_weir_device_open(const char *name, int threads, struct weir_device **out,
                                         struct weir_error *error);

static bool is_asked(const char *for_always, const char *for_once)
{
    const char *order = getenv("WEIR_TEST_FAULT");
    char word[16] = "";
    FILE *file = order ? fopen(order, "re") : NULL;
    if (!file) return false;
    const int fields = fscanf(file, "%15s", word);
    fclose(file);
    if (fields != 1) return false;
    return strcmp(word, for_always) == 0 || (strcmp(word, for_once) == 0 && unlink(order) == 0);
}

static void health(struct weir_device *device, struct weir_health *out)
{
    (void)device;
    *out = (struct weir_health){ .figures = "pretended=1" };
    if (is_asked("", "unwell")) strcpy(out->failure, "it was said to be unwell");
}

enum weir_status __wrap_weir_device_open(const char *name, int threads, struct weir_device **out,
                                         struct weir_error *error)
{
    static struct weir_device_table table;
    const enum weir_status status = __real_weir_device_open(name, threads, out, error);
    if (status != WEIR_OK) return status;
    table = *(*out)->table;
    table.health = health;
    (*out)->table = &table;
    return WEIR_OK;
}

enum weir_status __wrap_weir_program_run(const struct weir_program *p, struct weir_stream *stream, void *arena,
                                         const struct weir_binding *bindings, size_t binding_count)
{
    if (!atomic_load(&is_lost) && is_asked("always", "once")) atomic_store(&is_lost, true);
    return atomic_load(&is_lost) ? WEIR_DEVICE : __real_weir_program_run(p, stream, arena, bindings, binding_count);
}
