/* Linked into a weir-worker for tests in place of weir_program_run: a device that reports a fault, and from then on
 * fails every run, as a GPU does after an illegal access. The file that WEIR_TEST_FAULT names says when: `once` (it is
 * removed, and the next process is sound) or `always`; while there is none, nothing happens. */
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

static bool is_asked(void)
{
    const char *order = getenv("WEIR_TEST_FAULT");
    char word[16] = "";
    FILE *file = order ? fopen(order, "re") : NULL;
    if (!file) return false;
    const int fields = fscanf(file, "%15s", word);
    fclose(file);
    if (fields != 1) return false;
    return strcmp(word, "always") == 0 || (strcmp(word, "once") == 0 && unlink(order) == 0);
}

enum weir_status __wrap_weir_program_run(const struct weir_program *p, struct weir_stream *stream, void *arena,
                                         const struct weir_binding *bindings, size_t binding_count)
{
    if (!atomic_load(&is_lost) && is_asked()) atomic_store(&is_lost, true);
    return atomic_load(&is_lost) ? WEIR_DEVICE : __real_weir_program_run(p, stream, arena, bindings, binding_count);
}
