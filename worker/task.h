/* task: one leased stage task on its way through a worker: what the broker asked for, the flags by which the control
 * thread speaks to the stage while it runs, and what came of it.
 *
 * Threads  one at a time: the control thread makes it, its lane runs it, a finisher writes what is left, the control
 *          thread answers with it. Only the atomics are touched by two at once
 */
#ifndef WEIR_WORKER_TASK_H
#define WEIR_WORKER_TASK_H

#include "proto/job.h"
#include "worker/link/link.h"
#include "worker/mailbox.h"
#include "worker/pipelines/pipeline.h"

#include <stdatomic.h>

/* What items have in common that are denoised together. */
struct weir_shape {
    uint32_t model;   /* index */
    uint32_t dims[4]; /* of the latents */
    bool guided;
};
bool weir_shape_same(const struct weir_shape *a, const struct weir_shape *b);

struct weir_task {
    struct weir_mail mail; /* a task goes from thread to thread as a letter */

    /* asked for */
    struct weir_task_id id;
    const Weir__Pb__Lease *lease; /* tenant, resolved spec, frames, inputs; owned by whoever holds the lease */
    size_t model_index;
    struct weir_item item; /* of the spec, with this item's own seed */
    bool joins;            /* a denoise task of a sound item: others of its shape can run beside it */
    bool alone;            /* its worker crashed over it, or beside it: what it does to a mate is not found out again */
    struct weir_shape shape;

    /* while it runs */
    atomic_bool cancel; /* stop at the next step; nothing is wanted any more */
    atomic_bool yield;  /* stop where nothing is lost: denoise writes a checkpoint and ends INTERRUPTED */
    atomic_uint step, steps;
    atomic_bool left;                  /* its lane can take the next: what remains is files */
    void (*progressed)(void *context); /* after step or left changed */
    void *progress_context;
    struct weir_rest *rest; /* stage.h; NULL: nothing remains */

    /* what came of it */
    enum weir_status status;
    struct weir_error error;
    struct weir_output *outputs;
    size_t output_count, output_room;
    uint32_t steps_run, resumed_step;
    bool has_lost_input;
    struct weir_task_id lost_input;
    char *note;            /* or NULL */
    uint64_t milliseconds; /* of the device: of a step for several, its share */
};

/* The largest number of artefacts that one DONE carries. */
#define WEIR_TASK_OUTPUTS_MAX 2048

/* Reads the lease: ids, tenant, spec. The item is checked against the model by the stage.
 * Errors   PROTOCOL, BAD_ARGUMENT (a field that a resolved spec must have is missing) */
enum weir_status weir_task_create(const Weir__Pb__Lease *lease, struct weir_task **out, struct weir_error *error);
/* Fills model_index, joins and shape. */
void weir_task_set_model(struct weir_task *task, size_t model_index, const struct weir_model_facts *facts);
/* Whether the two can be in one batch: of one shape, and with the same pictures of the same tenant, since one
 * is encoded while nobody sits. */
bool weir_task_joins(const struct weir_task *a, const struct weir_task *b);
void weir_task_destroy(struct weir_task **task_p);

/* Room for one more output; the pointer is good until the next call. */
enum weir_status weir_task_output(struct weir_task *task, struct weir_output **out, struct weir_error *error);
void weir_task_progress(struct weir_task *task, uint32_t step, uint32_t steps);
/* CANCELLED when the flag is set. */
enum weir_status weir_task_check(const struct weir_task *task, struct weir_error *error);
/* Input number `index`, its digest checked; free(*out). An INPUT_LOST is noted with its producer. */
enum weir_status weir_task_input(struct weir_task *task, struct weir_link *link, size_t index, void **out,
                                 size_t *out_bytes, struct weir_error *error);

#endif
