/* weir: the C SDK. A prompt goes in, a film or an image comes out.
 *
 *   struct weir_client *client;
 *   struct weir_report *report;
 *   struct weir_request request = WEIR_REQUEST_INIT;
 *   char job[WEIR_JOB_BYTES];
 *   request.prompt = "a red circle moving right on a navy background";
 *   if (weir_client_open("/var/lib/weir", &client, &error) == WEIR_OK &&
 *       weir_client_submit(client, &request, NULL, job, &error) == WEIR_OK &&
 *       weir_client_wait(client, job, NULL, NULL, &report, &error) == WEIR_OK)
 *       weir_client_fetch(client, report, 0, "circle.mp4", &error);
 *
 * Errors   every call that can fail returns a status and fills `error` (may be NULL) with a sentence for a person
 * Memory   what a call hands out is the caller's until the matching destroy; strings in a report live as long as it
 * Threads  a client belongs to one thread at a time; use one client a thread
 * Blocks   calls wait for the broker at most WEIR_CLIENT_ANSWER_MS, except wait and fetch, which say how long
 */
#ifndef WEIR_CLIENT_WEIR_H
#define WEIR_CLIENT_WEIR_H

#include "proto/status.h"

#include <stdbool.h>

#define WEIR_JOB_BYTES 33 /* 32 hex digits and a NUL; of a job's id and of a batch's */
#define WEIR_CLIENT_ANSWER_MS 30000

struct weir_client;

/* A low-rank adapter. `path`: a file of at most 4 GiB, put into the store by submit; else `digest`, the 64 hex digits of
 * one that lies there already. */
struct weir_lora {
    const char *path, *digest;
    double weight;
};

/* One prompt of many. Absent (NULL, 0, guidance < 0, seed_given false, no loras): what the request says. */
struct weir_prompt {
    const char *text, *negative; /* UTF-8, at most 10,240 bytes each */
    uint32_t width, height, steps;
    double guidance;
    bool seed_given; /* else the request's; else one is drawn for this prompt */
    uint64_t seed;
    const struct weir_lora *loras;
    size_t lora_count; /* at most 8 */
    uint32_t line;     /* of the file it came from; 0: its number in the list, from 1 */
};
#define WEIR_PROMPT_INIT                                                                                               \
    {                                                                                                                  \
        .guidance = -1.0                                                                                               \
    }

/* What is asked for. Absent: NULL, 0, guidance < 0, seed_given false: the model's weir.json, then its pipeline decides. */
struct weir_request {
    const char *prompt;                /* UTF-8, at most 10,240 bytes */
    const struct weir_prompt *prompts; /* instead of prompt: n items of each; prompt_count * n is at most 512 */
    size_t prompt_count;
    const char *negative;     /* NULL: none */
    const char *model;        /* as the workers announce it; NULL: the only one that they serve */
    const char *model_digest; /* 64 hex digits: CONFLICT when the model has another; NULL: any */
    uint32_t width, height, frames, fps, steps;
    double guidance;
    bool seed_given; /* else one is drawn by submit: of the key where there is one, so that it may be asked again */
    uint64_t seed;
    uint32_t n;            /* items of a prompt; item i has seed + i */
    const char *sampler;   /* "ddim", "dpm++", "flow-dpm++", "flow-euler", "scm" */
    const char *noise;     /* "f32", "f16" */
    const char *format;    /* films: "mp4", "webm", "gif"; images, of one frame: "jpeg", "webp"; "png": an image when
                          * there is one frame, else a folder of them */
    bool folder;           /* with png: a folder, also of one frame */
    const char *codec;     /* "h264", "av1", "vp9" */
    const char *precision; /* "f32", "bf16": UNSUPPORTED when the workers compute in another; NULL: in what they do */
    const struct weir_lora *loras; /* of every prompt that names none of its own */
    size_t lora_count;             /* at most 8 */
    const char *control;           /* a picture file that a ControlNet looks at, at most 64 MiB */
    double control_scale;          /* < 0: absent */
    const char *start_image;       /* a picture file that the items begin from, at most 64 MiB */
    double strength;               /* how far they may go from it, over 0 to 1; < 0: absent */
    uint64_t deadline_ms;          /* from admission; 0: none */
};
#define WEIR_REQUEST_INIT                                                                                              \
    {                                                                                                                  \
        .guidance = -1.0, .control_scale = -1.0, .strength = -1.0                                                      \
    }

struct weir_task_report {
    const char *stage, *state; /* "denoise", "done" */
    uint32_t index, attempt, crashes, step, steps;
    uint64_t worker_pid, milliseconds;
    uint32_t steps_run, resumed_step; /* denoise: computed by the attempt that counts; the checkpoint it began from */
    const char *numerics_class;
};

struct weir_object_report {
    uint32_t item;
    const char *name, *media_type, *key;
    char sha256[65];
    uint64_t bytes;
};

/* One prompt of a job, as it was resolved. Of a list the order may be another than was asked: `line` says which it is. */
struct weir_prompt_report {
    const char *text, *negative;
    uint32_t width, height, steps, line;
    double guidance;
    uint64_t seed; /* of its first item */
};

struct weir_report {
    char job[WEIR_JOB_BYTES];
    const char *state; /* "succeeded" */
    bool terminal, succeeded;
    enum weir_status cause; /* of a failed job */
    const char *words;      /* why it failed, "" otherwise */
    const char *model, *prompt, *negative, *sampler, *format, *codec;
    uint32_t width, height, frames, fps, steps, n;
    uint32_t items;                           /* prompt_count * n; item i is number i % n of prompts[i / n] */
    const struct weir_prompt_report *prompts; /* one, of line 0, where no list was asked for */
    size_t prompt_count;
    char batch[WEIR_JOB_BYTES]; /* "": of none */
    uint32_t part, parts;
    bool image; /* every item is one picture in one file, none a film or a folder of frames */
    double guidance;
    uint64_t seed;
    uint64_t created_ms, finished_ms; /* wall clock */
    uint32_t queue_position;
    uint64_t expected_ms;
    const struct weir_object_report *objects; /* the manifest, item after item; of a failed job what was made */
    size_t object_count;
    const struct weir_task_report *tasks;
    size_t task_count;
};

/* A task moved or took a step; or, with stage and task_state NULL, the job's own state changed. */
struct weir_progress {
    const char *job, *job_state, *stage, *task_state;
    uint32_t index, step, steps, attempt, tasks_done, tasks;
};
/* Called on the caller's thread. Returning false makes wait return INTERRUPTED; the job goes on. */
typedef bool weir_on_progress(void *context, const struct weir_progress *progress);

/* where  the directory of a `weir serve`, or an endpoint: ipc:///PATH, tcp://127.0.0.1:PORT (with insecure_dev) */
enum weir_status weir_client_open(const char *where, struct weir_client **out, struct weir_error *error);
enum weir_status weir_client_open_insecure(const char *where, struct weir_client **out, struct weir_error *error);
void weir_client_close(struct weir_client **client);

/* `on_idle` is called at least every 200 ms while any call waits; when it returns false that call ends with INTERRUPTED. */
typedef bool weir_on_idle(void *context);
void weir_client_on_idle(struct weir_client *client, weir_on_idle *on_idle, void *context);

/* Returns when the job is durable. Files that the request names are put into the store first: UNAVAILABLE where this
 * machine cannot write to it. key: at most 128 bytes; the same key and request give the same job, another request
 * with the same key is CONFLICT; NULL: a random one, so that only this call's own retries are covered.
 * Errors  what the job breaks, BUSY, UNAVAILABLE (nobody serves the model, or no broker answers), TOO_LARGE (a file; more
 *         than one job's worth, which is a batch) */
enum weir_status weir_client_submit(struct weir_client *client, const struct weir_request *request, const char *key,
                                    char job[WEIR_JOB_BYTES], struct weir_error *error);

/* ---- batches: requests of any size, as several jobs that are asked for and listed together ---- */

struct weir_batch;
struct weir_batch_progress {
    uint32_t parts, parts_accepted;
    uint64_t prompts, prompts_accepted;
    bool waiting; /* the broker has enough for now; it is asked again */
};
typedef bool weir_on_batch_progress(void *context, const struct weir_batch_progress *progress);
/* The prompts of this line were refused, and why; the others go on. */
typedef void weir_on_refused(void *context, uint32_t line, const struct weir_error *why);

/* `request` without prompt and prompts: what all of them share. It, what it points to and the client must outlive the
 * batch. key: at most 112 bytes; the same key, request and prompts give the same jobs again, under the same batch id;
 * NULL: random. */
enum weir_status weir_batch_open(struct weir_client *client, const struct weir_request *request, const char *key,
                                 struct weir_batch **out, struct weir_error *error);
void weir_batch_close(struct weir_batch **batch);
/* Takes a copy, in its form on the wire. A prompt that cannot be is refused by name and is not in the batch.
 * Errors   BAD_ARGUMENT, TOO_LARGE, NOT_FOUND, UNAVAILABLE (a file of it), NO_MEMORY */
enum weir_status weir_batch_add(struct weir_batch *batch, const struct weir_prompt *prompt, struct weir_error *error);
/* Hands every part over, four at a time, until all are durable; BUSY is waited out. After an error it may be called again
 * and goes on where it was.
 * Errors   those of weir_client_submit; INTERRUPTED when on_progress returned false */
enum weir_status weir_client_submit_batch(struct weir_client *client, struct weir_batch *batch,
                                          weir_on_batch_progress *on_progress, weir_on_refused *on_refused,
                                          void *context, struct weir_error *error);
const char *weir_batch_id(const struct weir_batch *batch); /* 32 hex digits */
uint32_t weir_batch_parts(const struct weir_batch *batch); /* one: a job like any other, of no batch */
const char *weir_batch_job(const struct weir_batch *batch,
                           uint32_t part); /* NULL: not accepted, or nothing left of it */

enum weir_status weir_client_show(struct weir_client *client, const char *job, struct weir_report **out,
                                  struct weir_error *error);
void weir_report_destroy(struct weir_report **report);
/* The receipt of an item's film or image as JSON, or NULL when it is not made yet. */
const char *weir_report_receipt(const struct weir_report *report, uint32_t item);

/* Waits until the job is terminal, through restarts of the broker. A failed job is a success of this call.
 * Blocks   until then; gives up with UNAVAILABLE after 60 s without any answer */
enum weir_status weir_client_wait(struct weir_client *client, const char *job, weir_on_progress *on_progress,
                                  void *context, struct weir_report **out, struct weir_error *error);

/* OK also when the job was being cancelled already; CONFLICT, with its state, when it is terminal. */
enum weir_status weir_client_cancel(struct weir_client *client, const char *job, struct weir_error *error);

/* Writes item `item` to `path`: a file, or for a folder of PNGs a directory of frames; also of a failed job what it made.
 * Digests are checked, then it is fsynced and renamed; what was there is replaced (of a directory: only an empty one).
 * From the store's path where this machine has it, else from the worker's tensor socket. NOT_FOUND: the item is not there.
 * Blocks: as long as the bytes take. */
enum weir_status weir_client_fetch(struct weir_client *client, const struct weir_report *report, uint32_t item,
                                   const char *path, struct weir_error *error);

struct weir_job_line {
    char job[WEIR_JOB_BYTES];
    const char *state, *prompt;
    uint64_t created_ms;
    uint32_t tasks_done, tasks;
    char batch[WEIR_JOB_BYTES]; /* "": of none */
    uint32_t part, parts;
};
/* Newest first. The array and its strings are one block: free(). `before`: a job id to page on, or NULL. */
enum weir_status weir_client_list(struct weir_client *client, uint32_t limit, const char *before, bool open_only,
                                  struct weir_job_line **out, size_t *count, struct weir_error *error);

/* All jobs of a batch, by part. Likewise one block. NOT_FOUND: none has this batch id. */
enum weir_status weir_client_list_batch(struct weir_client *client, const char *batch, struct weir_job_line **out,
                                        size_t *count, struct weir_error *error);

/* How many workers the broker knows, the names of the models they serve ("a, b"), and their numerics classes. */
struct weir_cluster_report {
    uint64_t broker_pid, epoch;
    uint32_t workers, jobs_open;
    char models[1024], numerics_classes[1024];
};
enum weir_status weir_client_status(struct weir_client *client, struct weir_cluster_report *out,
                                    struct weir_error *error);

#endif
