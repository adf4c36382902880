#include "kernels/host.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum weir_status weir_host_memory_alloc(struct weir_device *device, size_t bytes, void **out, struct weir_error *error)
{
    const size_t wanted = bytes > 0 ? bytes : 1;
    *out = NULL;
    if (wanted <= SIZE_MAX - WEIR_ALIGNMENT) {
        *out = aligned_alloc(WEIR_ALIGNMENT, (wanted + WEIR_ALIGNMENT - 1) / WEIR_ALIGNMENT * WEIR_ALIGNMENT);
    }
    if (*out) return WEIR_OK;
    return weir_fail(error, WEIR_NO_MEMORY, "device %s: no memory for %zu bytes", device->table->name, bytes);
}

void weir_host_memory_free(struct weir_device *device, void *memory)
{
    (void)device;
    free(memory);
}

enum weir_status weir_host_copy_in(struct weir_stream *stream, void *to, const void *host, size_t bytes)
{
    (void)stream;
    if (bytes > 0) memcpy(to, host, bytes);
    return WEIR_OK;
}

enum weir_status weir_host_copy_out(struct weir_stream *stream, void *host, const void *from, size_t bytes)
{
    (void)stream;
    if (bytes > 0) memcpy(host, from, bytes);
    return WEIR_OK;
}

enum weir_status weir_host_stream_create(struct weir_device *device, struct weir_stream **out, struct weir_error *error)
{
    struct weir_stream *stream = malloc(sizeof *stream);
    if (!stream) return weir_fail(error, WEIR_NO_MEMORY, "device %s: no memory for a stream", device->table->name);
    stream->device = device;
    *out = stream;
    return WEIR_OK;
}

void weir_host_stream_destroy(struct weir_stream *stream)
{
    free(stream);
}

enum weir_status weir_host_stream_sync(struct weir_stream *stream, struct weir_error *error)
{
    (void)stream;
    (void)error;
    return WEIR_OK;
}

#define CGROUP_PATH_BYTES_MAX 4096
#define CGROUP_LINES_MAX 64 /* v1 has a dozen hierarchies */

/* A cgroup's limit in bytes; UINT64_MAX when the file is absent or says "max". */
static uint64_t cgroup_limit(const char *path)
{
    uint64_t limit = UINT64_MAX;
    FILE *file = fopen(path, "re");
    if (!file) return limit;
    if (fscanf(file, "%" SCNu64, &limit) != 1) limit = UINT64_MAX;
    fclose(file);
    return limit;
}

/* The lowest limit from the cgroup `group` ("/a/b") up to the root; `group` is cut on the way. */
static uint64_t lowest_limit(const char *root, char *group, const char *file)
{
    uint64_t lowest = UINT64_MAX;
    for (;;) {
        char path[2 * CGROUP_PATH_BYTES_MAX];
        const int length = snprintf(path, sizeof path, "%s%s/%s", root, group, file);
        const uint64_t limit = length > 0 && (size_t)length < sizeof path ? cgroup_limit(path) : UINT64_MAX;
        if (limit < lowest) lowest = limit;
        char *last = strrchr(group, '/');
        if (!last) return lowest;
        *last = '\0';
    }
}

uint64_t weir_host_memory_bytes_from(uint64_t installed, const char *cgroup_root, const char *membership)
{
    uint64_t bytes = installed;
    char line[CGROUP_PATH_BYTES_MAX], v1_root[CGROUP_PATH_BYTES_MAX];
    snprintf(v1_root, sizeof v1_root, "%s/memory", cgroup_root);
    FILE *file = fopen(membership, "re");
    for (int i = 0; file && i < CGROUP_LINES_MAX && fgets(line, sizeof line, file); i++) { /* "5:memory:/a", "0::/a" */
        line[strcspn(line, "\n")] = '\0';
        char *group = strchr(line, '/');
        if (!group) continue;
        const bool v2 = strncmp(line, "0::", 3) == 0, v1 = strstr(line, ":memory:") != NULL;
        const uint64_t limit = v2   ? lowest_limit(cgroup_root, group, "memory.max")
                               : v1 ? lowest_limit(v1_root, group, "memory.limit_in_bytes")
                                    : UINT64_MAX;
        if (limit < bytes) bytes = limit;
    }
    if (file) fclose(file);
    uint64_t reserve = bytes / WEIR_HOST_RESERVE_SHARE;
    if (reserve < WEIR_HOST_RESERVE_BYTES_MIN) reserve = WEIR_HOST_RESERVE_BYTES_MIN;
    return bytes > reserve ? bytes - reserve : 0;
}

uint64_t weir_host_memory_bytes(void)
{
    const long pages = sysconf(_SC_PHYS_PAGES);
    const long page_bytes = sysconf(_SC_PAGESIZE);
    const uint64_t installed = pages > 0 && page_bytes > 0 ? (uint64_t)pages * (uint64_t)page_bytes : 0;
    return weir_host_memory_bytes_from(installed, "/sys/fs/cgroup", "/proc/self/cgroup");
}

int weir_host_processors(void)
{
    cpu_set_t set;
    const int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return count > 0 ? count : 1;
}
