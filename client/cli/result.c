#include "client/cli/result.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double seconds_of(const struct weir_report *report)
{
    return report->finished_ms > report->created_ms ? (double)(report->finished_ms - report->created_ms) / 1000 : 0;
}

static json_t *task_json(const struct weir_task_report *task)
{
    return json_pack("{s:s,s:i,s:s,s:I,s:i,s:i,s:i,s:i,s:f,s:s}", "stage", task->stage, "index", (int)task->index, "state",
                     task->state, "worker_pid", (json_int_t)task->worker_pid, "attempt", (int)task->attempt, "crashes",
                     (int)task->crashes, "steps_run", (int)task->steps_run, "resumed_step", (int)task->resumed_step,
                     "seconds", (double)task->milliseconds / 1000, "numerics_class", task->numerics_class);
}

static json_t *prompts_json(const struct weir_report *report)
{
    json_t *list = json_array();
    for (size_t i = 0; i < report->prompt_count; i++) {
        const struct weir_prompt_report *p = &report->prompts[i];
        json_array_append_new(list, json_pack("{s:i,s:s,s:s,s:i,s:i,s:i,s:f,s:I}", "line", (int)p->line, "prompt", p->text,
                                              "negative", p->negative, "width", (int)p->width, "height", (int)p->height,
                                              "steps", (int)p->steps, "guidance", p->guidance, "seed",
                                              (json_int_t)p->seed));
    }
    return list;
}

static json_t *job_json(const struct weir_report *report)
{
    json_t *tasks = json_array();
    for (size_t i = 0; i < report->task_count; i++) json_array_append_new(tasks, task_json(&report->tasks[i]));
    json_t *object = json_pack("{s:s,s:s,s:s,s:s,s:s,s:i,s:i,s:i,s:i,s:i,s:f,s:s,s:s,s:f,s:o}", "job", report->job, "state",
                               report->state, "model", report->model, "prompt", report->prompt, "negative",
                               report->negative, "width", (int)report->width, "height", (int)report->height, "frames",
                               (int)report->frames, "fps", (int)report->fps, "steps", (int)report->steps, "guidance",
                               report->guidance, "sampler", report->sampler, "format", report->format, "seconds",
                               seconds_of(report), "tasks", tasks);
    if (object && report->words[0]) json_object_set_new(object, "error", json_string(report->words));
    if (object && report->batch[0]) {
        json_object_set_new(object, "batch", json_string(report->batch));
        json_object_set_new(object, "part", json_integer(report->part));
        json_object_set_new(object, "parts", json_integer(report->parts));
    }
    if (object && report->prompts[0].line) json_object_set_new(object, "prompts", prompts_json(report));
    return object;
}

static void add_item(json_t *object, const struct weir_report *report, uint32_t item, const char *path)
{
    json_object_set_new(object, "path", json_string(path));
    json_object_set_new(object, "item", json_integer(item));
    const uint32_t n = report->items / (uint32_t)report->prompt_count;
    json_object_set_new(object, "seed", json_integer((json_int_t)(report->prompts[item / n].seed + item % n)));
    json_t *files = json_array();
    for (size_t i = 0; i < report->object_count; i++) {
        const struct weir_object_report *o = &report->objects[i];
        if (o->item != item) continue;
        json_array_append_new(files, json_pack("{s:s,s:s,s:I,s:s}", "name", o->name, "sha256", o->sha256, "bytes",
                                               (json_int_t)o->bytes, "media_type", o->media_type));
        if (json_array_size(files) == 1) json_object_set_new(object, "sha256", json_string(o->sha256));
    }
    json_object_set_new(object, "files", files);
    const char *receipt = weir_report_receipt(report, item);
    json_t *parsed = receipt ? json_loads(receipt, 0, NULL) : NULL;
    json_object_set_new(object, "receipt", parsed ? parsed : json_null());
}

void weir_cli_result_json(const struct weir_report *report, uint32_t item, const char *path)
{
    json_t *object = job_json(report);
    if (!object) return; /* only without memory */
    if (path) add_item(object, report, item, path);
    else json_object_set_new(object, "seed", json_integer((json_int_t)report->seed));
    char *text = json_dumps(object, JSON_COMPACT);
    if (text) puts(text);
    free(text);
    json_decref(object);
}

void weir_cli_result_text(const struct weir_report *report)
{
    char created[32];
    const time_t seconds = (time_t)(report->created_ms / 1000);
    struct tm local;
    strftime(created, sizeof created, "%Y-%m-%d %H:%M:%S", localtime_r(&seconds, &local));
    printf("job       %s\nstate     %s%s%s\ncreated   %s\nmodel     %s\nprompt    %s\n", report->job, report->state,
           report->words[0] ? ": " : "", report->words, created, report->model, report->prompt);
    if (report->prompt_count > 1) {
        printf("prompts   %zu, lines %u to %u\n", report->prompt_count, report->prompts[0].line,
               report->prompts[report->prompt_count - 1].line);
    }
    if (report->batch[0]) printf("batch     %s, part %u of %u\n", report->batch, report->part + 1, report->parts);
    char frames[48] = "";
    if (!report->image) snprintf(frames, sizeof frames, " %u frames at %u/s,", report->frames, report->fps);
    printf("%s%ux%u,%s %u steps, guidance %g, seed %llu, n %u, %s %s\n", report->image ? "image     " : "film      ",
           report->width, report->height, frames, report->steps, report->guidance, (unsigned long long)report->seed,
           report->n, report->format, report->codec);
    if (report->terminal) printf("seconds   %.1f\n", seconds_of(report));
    else if (report->queue_position) printf("queue     %u before it\n", report->queue_position);
    for (size_t i = 0; i < report->task_count; i++) {
        const struct weir_task_report *t = &report->tasks[i];
        printf("task      %s-%u %s, attempt %u", t->stage, t->index, t->state, t->attempt);
        if (t->worker_pid) printf(", worker %llu", (unsigned long long)t->worker_pid);
        if (t->steps_run) printf(", %u steps from %u", t->steps_run, t->resumed_step);
        if (t->milliseconds) printf(", %.2f s", (double)t->milliseconds / 1000);
        putchar('\n');
    }
    for (size_t i = 0; i < report->object_count; i++) {
        const struct weir_object_report *o = &report->objects[i];
        printf("object    %u/%s %llu bytes sha256 %s\n", o->item, o->name, (unsigned long long)o->bytes, o->sha256);
    }
}
