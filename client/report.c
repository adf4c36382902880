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
    *out = (struct weir_object_report){ .item = from->has_item ? from->item : item_of(from->key, image),
                                        .name = text_or_empty(from->name),
                                        .media_type = text_or_empty(from->media_type),
                                        .key = text_or_empty(from->key),
                                        .bytes = from->bytes };
    weir_hex_write(from->digest.data, from->digest.len, out->sha256); /* the wire checked its 32 bytes */
}

static void fill_task(struct weir_task_report *out, const Weir__Pb__TaskView *from)
{
    const Weir__Pb__TaskFacts *facts = from->facts;
    *out =
        (struct weir_task_report){ .stage = weir_stage_name(from->stage),
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

/* A job without a list has one prompt: its own. */
static void fill_prompts(struct weir_prompt_report *out, const Weir__Pb__JobSpec *spec)
{
    const struct weir_prompt_report of_job = { .text = text_or_empty(spec->prompt),
                                               .negative = text_or_empty(spec->negative),
                                               .width = spec->width,
                                               .height = spec->height,
                                               .steps = spec->steps,
                                               .guidance = spec->guidance,
                                               .seed = spec->seed };
    out[0] = of_job;
    for (size_t i = 0; i < spec->n_prompts; i++) {
        const Weir__Pb__Prompt *p = spec->prompts[i];
        out[i] = (struct weir_prompt_report){ .text = text_or_empty(p->text),
                                              .negative = p->negative ? p->negative : of_job.negative,
                                              .width = p->has_width ? p->width : of_job.width,
                                              .height = p->has_height ? p->height : of_job.height,
                                              .steps = p->has_steps ? p->steps : of_job.steps,
                                              .line = p->line ? p->line : (uint32_t)i + 1,
                                              .guidance = p->has_guidance ? p->guidance : of_job.guidance,
                                              .seed = p->has_seed ? p->seed : of_job.seed };
    }
}

static void fill_report(struct weir_client_report *r, const Weir__Pb__JobView *view)
{
    static const Weir__Pb__JobSpec no_spec = WEIR__PB__JOB_SPEC__INIT;
    const Weir__Pb__JobSpec *spec = view->spec ? view->spec : &no_spec;
    const size_t prompt_count = spec->n_prompts ? spec->n_prompts : 1;
    fill_prompts(r->prompts, spec);
    r->report = (struct weir_report){ .state = weir_job_state_name(view->state),
                                      .terminal = weir_job_state_terminal(view->state),
                                      .succeeded = view->state == WEIR_JOB_SUCCEEDED,
                                      .cause = (enum weir_status)view->cause,
                                      .words = text_or_empty(view->words),
                                      .model = text_or_empty(spec->model),
                                      .prompt = r->prompts[0].text,
                                      .negative = r->prompts[0].negative,
                                      .sampler = text_or_empty(spec->sampler),
                                      .format = text_or_empty(spec->format),
                                      .codec = text_or_empty(spec->codec),
                                      .width = r->prompts[0].width,
                                      .height = r->prompts[0].height,
                                      .frames = spec->frames,
                                      .fps = spec->fps,
                                      .steps = r->prompts[0].steps,
                                      .n = spec->n,
                                      .items = (spec->n ? spec->n : 1) * (uint32_t)prompt_count,
                                      .prompts = r->prompts,
                                      .prompt_count = prompt_count,
                                      .part = view->part,
                                      .parts = view->parts,
                                      .image = is_image(view),
                                      .guidance = r->prompts[0].guidance,
                                      .seed = r->prompts[0].seed,
                                      .created_ms = view->created_ms,
                                      .finished_ms = view->finished_ms,
                                      .queue_position = view->queue_position,
                                      .expected_ms = view->expected_ms,
                                      .objects = r->objects,
                                      .object_count = view->n_manifest,
                                      .tasks = r->tasks,
                                      .task_count = view->n_tasks };
    weir_hex_write(view->job.data, view->job.len, r->report.job);
    if (view->has_batch) weir_hex_write(view->batch.data, view->batch.len, r->report.batch);
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
    struct weir_prompt_report *prompts = calloc((view->spec ? view->spec->n_prompts : 0) + 1, sizeof *prompts);
    if (!r || !objects || !tasks || !prompts) {
        free(r);
        free(objects);
        free(tasks);
        free(prompts);
        weir_message_release(message);
        return weir_fail(error, WEIR_NO_MEMORY, "no memory for a report");
    }
    r->message = *message;
    r->objects = objects;
    r->tasks = tasks;
    r->prompts = prompts;
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
    free(r->prompts);
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
