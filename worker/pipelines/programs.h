/* programs: what a denoise run is planned as: prepare for one item and a step for each number of items, without adapters;
 * and either for each choice of adapted linears, ranks and rows that was asked for lately.
 *
 * Memory   those without adapters stay; at most WEIR_PROGRAMS_ADAPTED_MAX with them, of which the one that was taken
 *          longest ago makes room. Plans alone: arenas are the caller's
 * Errors   those of planning; then nothing has changed
 * Threads  one
 */
#ifndef WEIR_WORKER_PIPELINES_PROGRAMS_H
#define WEIR_WORKER_PIPELINES_PROGRAMS_H

#include "worker/pipelines/internal.h"

#define WEIR_PROGRAMS_ADAPTED_MAX 8
#define WEIR_PROGRAMS_PREPARE 0 /* in place of a number of items */

/* Sets of adapters, copied whole. */
struct weir_programs_sets {
    struct weir_adapter_set *sets;
    struct weir_adapter_shape *shapes;
    uint32_t count;
};
struct weir_programs_adapted {
    struct weir_program *program;
    uint32_t items;
    struct weir_programs_sets own; /* what it is for */
    uint64_t taken;                /* when, by the count of takings */
};
struct weir_programs {
    struct weir_program *plain[WEIR_DENOISER_SEATS_MAX + 1]; /* by number of items, 0: prepare; NULL: not planned yet */
    struct weir_programs_adapted adapted[WEIR_PROGRAMS_ADAPTED_MAX];
    uint32_t adapted_count;
    uint64_t takings;
};

/* What they are planned for; the same in every call. */
struct weir_programs_ground {
    const struct weir_pipeline *pipeline;
    struct weir_device *device;
    const void *net;
    const struct weir_item *item;
};
/* The step of so many items, or prepare, whose slots lie elsewhere. *out is good until the next call. */
enum weir_status weir_programs_take(struct weir_programs *programs, const struct weir_programs_ground *ground,
                                    uint32_t items, const struct weir_adapters *adapters,
                                    const struct weir_program **out, struct weir_error *error);
void weir_programs_deinit(struct weir_programs *programs);

#endif
