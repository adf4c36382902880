/* programs: what a denoise run is planned as: one pair of programs without adapters, and one for each choice of adapted
 * linears, ranks and rows that was asked for lately.
 *
 * Memory   at most WEIR_PROGRAMS_MAX pairs; the one without adapters stays, of the others that which was taken longest
 *          ago makes room. Plans alone: arenas are the caller's
 * Errors   those of planning; then nothing has changed
 * Threads  one
 */
#ifndef WEIR_WORKER_PIPELINES_PROGRAMS_H
#define WEIR_WORKER_PIPELINES_PROGRAMS_H

#include "worker/pipelines/internal.h"

#define WEIR_PROGRAMS_MAX 4

/* Sets of adapters, copied whole. */
struct weir_programs_sets {
    struct weir_adapter_set *sets;
    struct weir_adapter_shape *shapes;
    uint32_t count;
};
struct weir_program_pair {
    struct weir_program *prepare, *step;
    struct weir_programs_sets own; /* what it is for */
    uint64_t taken;                /* when, by the count of takings */
};
struct weir_programs {
    struct weir_program_pair pairs[WEIR_PROGRAMS_MAX]; /* [0] has no adapters */
    uint32_t count;
    uint64_t takings;
};

/* What they are planned for; the same in every call. */
struct weir_programs_ground {
    const struct weir_pipeline *pipeline;
    struct weir_device *device;
    const void *net;
    const struct weir_item *item;
};
/* The first call is for no adapters. *out is good until the next call. */
enum weir_status weir_programs_take(struct weir_programs *programs, const struct weir_programs_ground *ground,
                                    const struct weir_adapters *adapters, const struct weir_program_pair **out,
                                    struct weir_error *error);
void weir_programs_deinit(struct weir_programs *programs);

#endif
