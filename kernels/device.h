/* device: what one piece of hardware offers, as a table of functions. Networks are written once against it.
 *
 * A device knows memory, streams and the ops of ops.h; nothing of jobs, models or files. There are three: `ref` (plain
 * C, f32: the judge, always built), `cpu` (oneDNN; f32, and bf16 products where the processor has them) and `cuda`.
 *
 * Memory   pointers from memory_alloc are the device's: on ref and cpu the host may read them, on cuda not
 * Threads  a device may be shared by threads; a stream belongs to one thread at a time
 */
#ifndef WEIR_KERNELS_DEVICE_H
#define WEIR_KERNELS_DEVICE_H

#include "proto/status.h"

#include <stdbool.h>

enum weir_dtype { WEIR_F32, WEIR_BF16, WEIR_F16, WEIR_I32, WEIR_U8, WEIR_DTYPE_COUNT };
size_t weir_dtype_bytes(enum weir_dtype dtype);

/* "f32", "bf16": the words of --precision. parse: false when it is neither. */
const char *weir_precision_name(enum weir_dtype precision);
bool weir_precision_parse(const char *name, enum weir_dtype *out);

struct weir_device;
struct weir_stream;
struct weir_ops;   /* ops.h */
struct weir_graph; /* work that was queued once and may be done again */

#define WEIR_HEALTH_WORDS 256
enum weir_health_notice {
    WEIR_HEALTH_SLOWED, /* by heat, or by its power supply */
    WEIR_HEALTH_TAKEN,  /* others hold memory that is planned with */
    WEIR_HEALTH_WORN,   /* it should be reset or looked after, and works meanwhile */
    WEIR_HEALTH_FAULTS, /* since the last look it reported a fault that may be another process's */
    WEIR_HEALTH_NOTICES
};

/* How a device is. All are words for people, "" where there is nothing to say. */
struct weir_health {
    char failure[WEIR_HEALTH_WORDS]; /* it will not be right again while this process lives */
    char notices[WEIR_HEALTH_NOTICES][WEIR_HEALTH_WORDS];
    char figures[WEIR_HEALTH_WORDS]; /* "temperature_c=41 free_mib=143000 ..." */
};

#define WEIR_NUMERICS_CLASS_MAX 128
#define WEIR_ALIGNMENT 64 /* of every allocation, arena offset and packed weight, in bytes */

struct weir_device_table {
    const char *name; /* "ref", "cpu", "cuda" */
    bool overlaps;    /* what several streams hold runs at the same time, each with what the others leave idle */
    void (*close)(struct weir_device *device);
    /* NO_MEMORY in words with the bytes wanted. Contents undefined. Aligned to WEIR_ALIGNMENT. Where other processes took
     * what was planned with, it waits for them for some seconds. */
    enum weir_status (*memory_alloc)(struct weir_device *device, size_t bytes, void **out, struct weir_error *error);
    void (*memory_free)(struct weir_device *device, void *memory);
    /* Memory of the host that copies go to without a stop on their way (page-locked). NULL, both, where any is as good.
     * Taking it is slow, so it is kept. NO_MEMORY in words with the bytes wanted. */
    enum weir_status (*host_alloc)(struct weir_device *device, size_t bytes, void **out, struct weir_error *error);
    void (*host_free)(struct weir_device *device, void *memory);
    /* See weir_device_set_precision; NULL: f32 alone. */
    enum weir_status (*set_precision)(struct weir_device *device, enum weir_dtype precision, struct weir_error *error);
    /* Queued on the stream; host memory must stay until stream_sync. */
    enum weir_status (*upload)(struct weir_stream *stream, void *to, const void *host, size_t bytes);
    enum weir_status (*download)(struct weir_stream *stream, void *host, const void *from, size_t bytes);
    /* Queued on the stream: from device memory to device memory, which do not overlap. */
    enum weir_status (*copy)(struct weir_stream *stream, void *to, const void *from, size_t bytes);
    enum weir_status (*stream_create)(struct weir_device *device, struct weir_stream **out, struct weir_error *error);
    void (*stream_destroy)(struct weir_stream *stream);
    /* Waits until all that was queued is done. DEVICE when any of it failed. */
    enum weir_status (*stream_sync)(struct weir_stream *stream, struct weir_error *error);

    /* Graphs: NULL, all four, on a device that gains nothing by them. Ops that are run between begin and end are not
     * done but kept, with the memory they name; launch queues them all at once, as often as wanted. A begin is followed
     * by an end, whatever failed between; *out is NULL when that says anything but OK. */
    enum weir_status (*graph_begin)(struct weir_stream *stream);
    enum weir_status (*graph_end)(struct weir_stream *stream, struct weir_graph **out);
    enum weir_status (*graph_launch)(struct weir_stream *stream, const struct weir_graph *graph);
    void (*graph_destroy)(struct weir_graph *graph);

    /* NULL on a device that has nobody to ask. It may take seconds, and waits for no work. One thread at a time. */
    void (*health)(struct weir_device *device, struct weir_health *out);
};

/* The head of every device's own struct. */
struct weir_device {
    const struct weir_device_table *table;
    const struct weir_ops *ops;
    /* What output bytes depend on beside the job and the model: device kind, instruction set or SM version, library
     * versions, precision: "cpu-avx512-onednn2.6.3-f32". */
    char numerics_class[WEIR_NUMERICS_CLASS_MAX];
    enum weir_dtype precision; /* what networks have their layers' products read (weir_parameters.dtype): F32 or BF16 */
    /* What networks' values lie in, between their ops, at this precision: F32 on ref and cpu always, the precision on
     * cuda, where a value that is half as wide is read in half the time. What comes from outside a network and what
     * leaves it (latents, a sampler's numbers, embeddings, pictures) is F32 on every device. */
    enum weir_dtype values;
    /* What may be planned for: of a GPU what was free when it was opened, else installed memory, less what the system
     * or the libraries keep; and the same, had nobody else taken any. */
    uint64_t memory_bytes, memory_all;
};

#define WEIR_DEVICE_THREADS_MAX 256

/* Opens "ref", "cpu", "cuda", or "auto" = the best that is built and present. "cuda" is the first GPU that this process
 * sees, "cuda:1" the second, "cuda:GPU-0a1b2c3d-..." the one of that UUID.
 * threads  how many threads the device's own pool uses (ref: 1 always; cuda: ignored); 0 = one per core
 * Errors   BAD_ARGUMENT (threads not in 0..WEIR_DEVICE_THREADS_MAX), UNSUPPORTED (not built in; the words list what
 *          is; a GPU older than compute capability 8.0), NOT_FOUND (no GPU, or not that one), DEVICE (also: a GPU that
 *          its driver calls unfit, with the reason), NO_MEMORY (also: a GPU that others have filled) */
enum weir_status weir_device_open(const char *name, int threads, struct weir_device **out, struct weir_error *error);
/* What the device computes in from now on: networks that are opened afterwards ask it of each layer they pack, and the
 * numerics class says it. Every device opens as f32.
 * Errors   UNSUPPORTED, naming what is missing and what is offered */
enum weir_status weir_device_set_precision(struct weir_device *device, enum weir_dtype precision,
                                           struct weir_error *error);
void weir_device_close(struct weir_device **device);

#endif
