#include "worker/task.h"

#include "worker/spec.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum weir_status weir_task_create(const Weir__Pb__Lease *lease, struct weir_task **out, struct weir_error *error)
{
    *out = NULL;
    struct weir_task *task = calloc(1, sizeof *task);
    if (!task) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a task");
    task->lease = lease;
    enum weir_status status = WEIR_OK;
    if (!weir_task_id_read(lease->task, &task->id) || !weir_tenant_valid(lease->tenant)) {
        status = weir_fail(error, WEIR_PROTOCOL, "a lease of no known stage or tenant");
    } else {
        status = weir_spec_item(lease->spec, &task->item, error);
    }
    if (status == WEIR_OK)
        *out = task;
    else
        free(task);
    return status;
}

void weir_task_destroy(struct weir_task **task_p)
{
    struct weir_task *task = *task_p;
    if (!task) return;
    free(task->outputs);
    free(task->note);
    free(task);
    *task_p = NULL;
}

enum weir_status weir_task_output(struct weir_task *task, struct weir_output **out, struct weir_error *error)
{
    if (task->output_count == WEIR_TASK_OUTPUTS_MAX) {
        return weir_fail(error, WEIR_TOO_LARGE, "a task with over %d outputs", WEIR_TASK_OUTPUTS_MAX);
    }
    if (task->output_count == task->output_room) {
        const size_t room = task->output_room ? 2 * task->output_room : 4;
        struct weir_output *outputs = realloc(task->outputs, room * sizeof *outputs);
        if (!outputs) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a task's outputs");
        task->outputs = outputs;
        task->output_room = room;
    }
    *out = &task->outputs[task->output_count++];
    return WEIR_OK;
}

void weir_task_progress(struct weir_task *task, uint32_t step, uint32_t steps)
{
    atomic_store(&task->steps, steps);
    atomic_store(&task->step, step);
    if (task->progressed) task->progressed(task->progress_context);
}

enum weir_status weir_task_check(const struct weir_task *task, struct weir_error *error)
{
    return atomic_load(&task->cancel) ? weir_fail(error, WEIR_CANCELLED, "cancelled") : WEIR_OK;
}

enum weir_status weir_task_input(struct weir_task *task, struct weir_link *link, size_t index, void **out,
                                 size_t *out_bytes, struct weir_error *error)
{
    *out = NULL;
    if (index >= task->lease->n_inputs) {
        return weir_fail(error, WEIR_PROTOCOL, "the lease of %s-%u has %zu inputs, number %zu is needed",
                         weir_stage_name(task->id.stage), task->id.index, task->lease->n_inputs, index);
    }
    const Weir__Pb__Input *input = task->lease->inputs[index];
    const enum weir_status status = weir_link_get(link, task->lease->tenant, input, out, out_bytes, error);
    if (status == WEIR_INPUT_LOST) task->has_lost_input = weir_task_id_read(input->from, &task->lost_input);
    return status;
}
