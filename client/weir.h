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

#define WEIR_JOB_BYTES 33 /* 32 hex digits and a NUL */
#define WEIR_CLIENT_ANSWER_MS 30000

struct weir_client;

/* What is asked for. Absent: NULL, 0, guidance < 0, seed_given false: the model's weir.json, then its pipeline decides. */
struct weir_request {
    const char *prompt;   /* UTF-8, at most 10,240 bytes */
    const char *negative; /* NULL: none */
    const char *model;    /* as the workers announce it; NULL: the only one that they serve */
    const char *model_digest; /* 64 hex digits: CONFLICT when the model has another; NULL: any */
    uint32_t width, height, frames, fps, steps;
    double guidance;
    bool seed_given; /* else a random seed is drawn by submit */
    uint64_t seed;
    uint32_t n;          /* items; item i has seed + i */
    const char *sampler; /* "ddim", "dpm++", "flow-dpm++", "flow-euler", "scm" */
    const char *noise;   /* "f32", "f16" */
    const char *format;  /* films: "mp4", "webm", "gif"; images, of one frame: "jpeg", "webp"; "png": an image when
                          * there is one frame, else a folder of them */
    bool folder;         /* with png: a folder, also of one frame */
    const char *codec;   /* "h264", "av1", "vp9" */
    const char *precision; /* "f32", "bf16": UNSUPPORTED when the workers compute in another; NULL: in what they do */
    uint64_t deadline_ms; /* from admission; 0: none */
};
#define WEIR_REQUEST_INIT { .guidance = -1.0 }

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

struct weir_report {
    char job[WEIR_JOB_BYTES];
    const char *state; /* "succeeded" */
    bool terminal, succeeded;
    enum weir_status cause; /* of a failed job */
    const char *words;      /* why it failed, "" otherwise */
    const char *model, *prompt, *negative, *sampler, *format, *codec;
    uint32_t width, height, frames, fps, steps, n;
    bool image; /* every item is one picture in one file, none a film or a folder of frames */
    double guidance;
    uint64_t seed;
    uint64_t created_ms, finished_ms; /* wall clock */
    uint32_t queue_position;
    uint64_t expected_ms;
    const struct weir_object_report *objects; /* the manifest, item after item */
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

/* Returns when the job is durable. key: at most 128 bytes; the same key and request give the same job, another request
 * with the same key is CONFLICT; NULL: a random one, so that only this call's own retries are covered.
 * Errors  what the job breaks, BUSY, UNAVAILABLE (nobody serves the model, or no broker answers) */
enum weir_status weir_client_submit(struct weir_client *client, const struct weir_request *request, const char *key,
                                    char job[WEIR_JOB_BYTES], struct weir_error *error);

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

/* Writes item `item` to `path`: a file, or for a folder of PNGs a directory of frames. Digests are checked, then it is
 * fsynced and renamed; what was there is replaced (of a directory: only an empty one). From the store's path where this machine has it, else from the
 * worker's tensor socket. Blocks: as long as the bytes take. */
enum weir_status weir_client_fetch(struct weir_client *client, const struct weir_report *report, uint32_t item,
                                   const char *path, struct weir_error *error);

struct weir_job_line {
    char job[WEIR_JOB_BYTES];
    const char *state, *prompt;
    uint64_t created_ms;
    uint32_t tasks_done, tasks;
};
/* Newest first. The array and its strings are one block: free(). `before`: a job id to page on, or NULL. */
enum weir_status weir_client_list(struct weir_client *client, uint32_t limit, const char *before, bool open_only,
                                  struct weir_job_line **out, size_t *count, struct weir_error *error);

/* How many workers the broker knows, the names of the models they serve ("a, b"), and their numerics classes. */
struct weir_cluster_report {
    uint64_t broker_pid, epoch;
    uint32_t workers, jobs_open;
    char models[1024], numerics_classes[1024];
};
enum weir_status weir_client_status(struct weir_client *client, struct weir_cluster_report *out,
                                    struct weir_error *error);

#endif
