/* A JobView as plain C structs that point into the decoded message. */
#include "client/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *text_or_empty(const char *text)
{
    return text ? text : "";
}

static bool is_image(const Weir__Pb__JobView *view)
{
    return view->spec && view->spec->has_image && view->spec->image;
}

/* The item that a manifest's object belongs to: the index of the task of the last stage that made it, from the key. */
static uint32_t item_of(const char *key, bool image)
{
    const char *stage = image ? "/decode-" : "/assemble-", *found = key ? strstr(key, stage) : NULL;
    return found ? (uint32_t)strtoul(found + strlen(stage), NULL, 10) : 0;
}

static void fill_object(struct weir_object_report *out, const Weir__Pb__Artefact *from, bool image)
{
    *out = (struct weir_object_report){ .item = item_of(from->key, image),
                                        .name = text_or_empty(from->name),
                                        .media_type = text_or_empty(from->media_type),
                                        .key = text_or_empty(from->key),
                                        .bytes = from->bytes };
    weir_hex_write(from->digest.data, from->digest.len, out->sha256); /* the wire checked its 32 bytes */
}

static void fill_task(struct weir_task_report *out, const Weir__Pb__TaskView *from)
{
    const Weir__Pb__TaskFacts *facts = from->facts;
    *out = (struct weir_task_report){ .stage = weir_stage_name(from->stage),
                                      .state = weir_task_state_name(from->state),
                                      .index = from->index,
                                      .attempt = from->attempt,
                                      .crashes = from->crash,
                                      .step = from->step,
                                      .steps = from->steps,
                                      .worker_pid = facts && facts->has_worker_pid ? facts->worker_pid : from->worker_pid,
                                      .milliseconds = facts ? facts->milliseconds : 0,
                                      .steps_run = facts ? facts->steps_run : 0,
                                      .resumed_step = facts ? facts->resumed_step : 0,
                                      .numerics_class = text_or_empty(facts ? facts->numerics_class : NULL) };
}

static void fill_report(struct weir_client_report *r, const Weir__Pb__JobView *view)
{
    static const Weir__Pb__JobSpec no_spec = WEIR__PB__JOB_SPEC__INIT;
    const Weir__Pb__JobSpec *spec = view->spec ? view->spec : &no_spec;
    r->report = (struct weir_report){ .state = weir_job_state_name(view->state),
                                      .terminal = weir_job_state_terminal(view->state),
                                      .succeeded = view->state == WEIR_JOB_SUCCEEDED,
                                      .cause = (enum weir_status)view->cause,
                                      .words = text_or_empty(view->words),
                                      .model = text_or_empty(spec->model),
                                      .prompt = text_or_empty(spec->prompt),
                                      .negative = text_or_empty(spec->negative),
                                      .sampler = text_or_empty(spec->sampler),
                                      .format = text_or_empty(spec->format),
                                      .codec = text_or_empty(spec->codec),
                                      .width = spec->width,
                                      .height = spec->height,
                                      .frames = spec->frames,
                                      .fps = spec->fps,
                                      .steps = spec->steps,
                                      .n = spec->n,
                                      .image = is_image(view),
                                      .guidance = spec->guidance,
                                      .seed = spec->seed,
                                      .created_ms = view->created_ms,
                                      .finished_ms = view->finished_ms,
                                      .queue_position = view->queue_position,
                                      .expected_ms = view->expected_ms,
                                      .objects = r->objects,
                                      .object_count = view->n_manifest,
                                      .tasks = r->tasks,
                                      .task_count = view->n_tasks };
    weir_hex_write(view->job.data, view->job.len, r->report.job);
    for (size_t i = 0; i < view->n_manifest; i++) fill_object(&r->objects[i], view->manifest[i], r->report.image);
    for (size_t i = 0; i < view->n_tasks; i++) fill_task(&r->tasks[i], view->tasks[i]);
}

enum weir_status weir_client_report_create(struct weir_message *message, struct weir_report **out,
                                           struct weir_error *error)
{
    const Weir__Pb__JobView *view = message->body.job_view;
    struct weir_client_report *r = calloc(1, sizeof *r);
    struct weir_object_report *objects = calloc(view->n_manifest + 1, sizeof *objects);
    struct weir_task_report *tasks = calloc(view->n_tasks + 1, sizeof *tasks);
    if (!r || !objects || !tasks) {
        free(r);
        free(objects);
        free(tasks);
        weir_message_release(message);
        return weir_fail(error, WEIR_NO_MEMORY, "no memory for a report");
    }
    r->message = *message;
    r->objects = objects;
    r->tasks = tasks;
    fill_report(r, view);
    *out = &r->report;
    return WEIR_OK;
}

const Weir__Pb__JobView *weir_client_report_view(const struct weir_report *report)
{
    return ((const struct weir_client_report *)report)->message.body.job_view;
}

void weir_report_destroy(struct weir_report **report_p)
{
    struct weir_client_report *r = (struct weir_client_report *)*report_p;
    if (!r) return;
    weir_message_release(&r->message);
    free(r->objects);
    free(r->tasks);
    free(r);
    *report_p = NULL;
}

const char *weir_report_receipt(const struct weir_report *report, uint32_t item)
{
    const Weir__Pb__JobView *view = weir_client_report_view(report);
    const enum weir_stage last = report->image ? WEIR_STAGE_DECODE : WEIR_STAGE_ASSEMBLE;
    for (size_t i = 0; i < view->n_tasks; i++) {
        const Weir__Pb__TaskView *task = view->tasks[i];
        if (task->stage == last && task->index == item && task->facts) return task->facts->note;
    }
    return NULL;
}
