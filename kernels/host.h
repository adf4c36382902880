/* host: what the devices whose memory is the machine's own have in common (ref and cpu): memory, copies, streams.
 *
 * A stream of such a device does everything at once, in the thread that asks: upload, download and run have done their
 * work when they return, and sync has nothing to wait for.
 */
#ifndef WEIR_KERNELS_HOST_H
#define WEIR_KERNELS_HOST_H

#include "kernels/ops.h"

enum weir_status weir_host_memory_alloc(struct weir_device *device, size_t bytes, void **out, struct weir_error *error);
void weir_host_memory_free(struct weir_device *device, void *memory);
enum weir_status weir_host_copy_in(struct weir_stream *stream, void *to, const void *host, size_t bytes);
enum weir_status weir_host_copy_out(struct weir_stream *stream, void *host, const void *from, size_t bytes);
enum weir_status weir_host_stream_create(struct weir_device *device, struct weir_stream **out,
                                         struct weir_error *error);
void weir_host_stream_destroy(struct weir_stream *stream);
enum weir_status weir_host_stream_sync(struct weir_stream *stream, struct weir_error *error);

/* What may be planned for: installed memory, or the lowest limit of the cgroups this process is in, less a reserve. */
#define WEIR_HOST_RESERVE_SHARE 8                         /* an eighth is kept for the system and the page cache, */
#define WEIR_HOST_RESERVE_BYTES_MIN ((uint64_t)256 << 20) /* and never less than this */
uint64_t weir_host_memory_bytes(void);
/* The same with `installed` bytes, where cgroups are mounted (v2, or v1 with a folder "memory"), and the file that says
 * which ones this process is in; what cannot be read limits nothing. */
uint64_t weir_host_memory_bytes_from(uint64_t installed, const char *cgroup_root, const char *membership);

/* Processors this process may run on, at least 1. */
int weir_host_processors(void);

#endif
