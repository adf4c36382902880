#include "proto/job.h"

#include "proto/base/clock.h"

#include <assert.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const stage_names[] = {
#define X(name, number, words) [number] = words,
    WEIR_STAGE_TABLE(X)
#undef X
};
static const struct state {
    const char *words;
    bool closed;
} job_states[] = {
#define X(name, number, words, terminal) [number] = { words, terminal },
    WEIR_JOB_STATE_TABLE(X)
#undef X
},
  task_states[] = {
#define X(name, number, words, closed) [number] = { words, closed },
      WEIR_TASK_STATE_TABLE(X)
#undef X
  };

/* Bit t of row f: the move from f to t is an arrow of PROTOCOL.md. */
#define TO(name) (1u << WEIR_JOB_##name)
static const uint8_t job_moves[WEIR_JOB_STATE_COUNT] = {
    [WEIR_JOB_QUEUED] = TO(RUNNING) | TO(CANCELLING) | TO(FAILED) | TO(EXPIRED),
    [WEIR_JOB_RUNNING] = TO(SUCCEEDED) | TO(CANCELLING) | TO(FAILED) | TO(EXPIRED),
    [WEIR_JOB_CANCELLING] = TO(CANCELLED) | TO(EXPIRED),
};
#undef TO
#define TO(name) (1u << WEIR_TASK_##name)
static const uint8_t task_moves[WEIR_TASK_STATE_COUNT] = {
    [WEIR_TASK_BLOCKED] = TO(READY) | TO(CANCELLED),
    [WEIR_TASK_READY] = TO(LEASED) | TO(CANCELLED) | TO(BLOCKED),
    [WEIR_TASK_DELAYED] = TO(READY) | TO(CANCELLED) | TO(BLOCKED),
    [WEIR_TASK_LEASED] = TO(DONE) | TO(DEAD) | TO(DELAYED) | TO(READY) | TO(BLOCKED) | TO(CANCELLED),
    [WEIR_TASK_DONE] = TO(READY) | TO(BLOCKED),
};
#undef TO

const char *weir_stage_name(uint32_t stage)
{
    return stage < WEIR_COUNT(stage_names) ? stage_names[stage] : "?";
}

const char *weir_job_state_name(uint32_t state)
{
    return state < WEIR_COUNT(job_states) ? job_states[state].words : "?";
}

const char *weir_task_state_name(uint32_t state)
{
    return state < WEIR_COUNT(task_states) ? task_states[state].words : "?";
}

bool weir_job_state_terminal(uint32_t state)
{
    return state < WEIR_COUNT(job_states) && job_states[state].closed;
}

bool weir_task_state_closed(uint32_t state)
{
    return state < WEIR_COUNT(task_states) && task_states[state].closed;
}

bool weir_job_move_legal(enum weir_job_state from, enum weir_job_state to)
{
    return job_moves[from] >> to & 1u;
}

bool weir_task_move_legal(enum weir_task_state from, enum weir_task_state to)
{
    return task_moves[from] >> to & 1u;
}

struct weir_job_id weir_job_id_new(void)
{
    struct weir_job_id id;
    weir_random_bytes(id.bytes, sizeof id.bytes);
    const uint64_t now_ms = weir_clock_wall_ms();
    for (int i = 0; i < 6; i++) id.bytes[i] = (uint8_t)(now_ms >> (40 - 8 * i));
    return id;
}

bool weir_job_id_equal(const struct weir_job_id *a, const struct weir_job_id *b)
{
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

bool weir_task_id_equal(const struct weir_task_id *a, const struct weir_task_id *b)
{
    return a->stage == b->stage && a->index == b->index && weir_job_id_equal(&a->job, &b->job);
}

void weir_job_id_text(const struct weir_job_id *id, char out[WEIR_ID_HEX_BYTES])
{
    weir_hex_write(id->bytes, sizeof id->bytes, out);
}

bool weir_job_id_parse(const char *text, struct weir_job_id *out)
{
    return weir_hex_read(text, out->bytes, sizeof out->bytes);
}

bool weir_task_id_read(const Weir__Pb__TaskId *message, struct weir_task_id *out)
{
    if (!message || message->job.len != WEIR_ID_BYTES || message->stage >= WEIR_STAGE_COUNT) return false;
    memcpy(out->job.bytes, message->job.data, WEIR_ID_BYTES);
    out->stage = (enum weir_stage)message->stage;
    out->index = message->index;
    return true;
}

/* One line "number:bytes:value\n" a field: the length makes texts with line ends unambiguous. */
static void hash_field(struct weir_sha256 *sha, unsigned number, const void *value, size_t bytes)
{
    char head[48];
    const int used = snprintf(head, sizeof head, "%u:%zu:", number, bytes);
    weir_sha256_update(sha, head, (size_t)used);
    weir_sha256_update(sha, value, bytes);
    weir_sha256_update(sha, "\n", 1);
}

static void hash_text(struct weir_sha256 *sha, unsigned number, const char *text)
{
    if (text) hash_field(sha, number, text, strlen(text));
}

static void hash_number(struct weir_sha256 *sha, unsigned number, protobuf_c_boolean has, const char *format, ...)
{
    if (!has) return;
    char text[64];
    va_list arguments;
    va_start(arguments, format);
    const int used = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    hash_field(sha, number, text, (size_t)used);
}

/* A field that is a message counts by the hash of its own fields. */
static void hash_nested(struct weir_sha256 *sha, unsigned number, struct weir_sha256 *nested)
{
    uint8_t digest[WEIR_SHA256_BYTES];
    weir_sha256_final(nested, digest);
    hash_field(sha, number, digest, sizeof digest);
}

/* Its name is for people: equal bytes are the same file. */
static void hash_file(struct weir_sha256 *sha, unsigned number, const Weir__Pb__FileRef *file)
{
    if (file) hash_field(sha, number, file->digest.data, file->digest.len);
}

static void hash_loras(struct weir_sha256 *sha, unsigned number, Weir__Pb__Lora *const *loras, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct weir_sha256 one;
        weir_sha256_init(&one);
        hash_file(&one, 1, loras[i]->file);
        hash_number(&one, 2, loras[i]->has_weight, "%a", loras[i]->weight);
        hash_nested(sha, number, &one);
    }
}

static void hash_prompt(struct weir_sha256 *sha, unsigned number, const Weir__Pb__Prompt *p)
{
    struct weir_sha256 one;
    weir_sha256_init(&one);
    hash_text(&one, 1, p->text);
    hash_text(&one, 2, p->negative);
    hash_number(&one, 3, p->has_width, "%u", p->width);
    hash_number(&one, 4, p->has_height, "%u", p->height);
    hash_number(&one, 5, p->has_steps, "%u", p->steps);
    hash_number(&one, 6, p->has_guidance, "%a", p->guidance);
    hash_number(&one, 7, p->has_seed, "%llu", (unsigned long long)p->seed);
    hash_loras(&one, 8, p->loras, p->n_loras);
    hash_number(&one, 9, p->has_line, "%u", p->line);
    hash_nested(sha, number, &one);
}

void weir_spec_fingerprint(const Weir__Pb__JobSpec *s, uint8_t out[WEIR_SHA256_BYTES])
{
    struct weir_sha256 sha;
    weir_sha256_init(&sha);
    hash_number(&sha, 1, s->has_spec_version, "%u", s->spec_version);
    hash_text(&sha, 2, s->model);
    if (s->has_model_digest) hash_field(&sha, 3, s->model_digest.data, s->model_digest.len);
    hash_text(&sha, 4, s->pipeline);
    hash_text(&sha, 5, s->prompt);
    hash_text(&sha, 6, s->negative);
    hash_number(&sha, 7, s->has_width, "%u", s->width);
    hash_number(&sha, 8, s->has_height, "%u", s->height);
    hash_number(&sha, 9, s->has_frames, "%u", s->frames);
    hash_number(&sha, 10, s->has_fps, "%u", s->fps);
    hash_number(&sha, 11, s->has_steps, "%u", s->steps);
    hash_number(&sha, 12, s->has_guidance, "%a", s->guidance);
    hash_number(&sha, 13, s->has_seed, "%llu", (unsigned long long)s->seed);
    hash_number(&sha, 14, s->has_n, "%u", s->n);
    hash_text(&sha, 15, s->sampler);
    hash_text(&sha, 16, s->noise);
    hash_text(&sha, 17, s->format);
    hash_text(&sha, 18, s->codec);
    hash_text(&sha, 19, s->precision);
    hash_number(&sha, 20, s->has_image, "%d", s->image != 0);
    for (size_t i = 0; i < s->n_prompts; i++) hash_prompt(&sha, 21, s->prompts[i]);
    hash_loras(&sha, 22, s->loras, s->n_loras);
    hash_file(&sha, 23, s->control);
    hash_number(&sha, 24, s->has_control_scale, "%a", s->control_scale);
    hash_file(&sha, 25, s->start_image);
    hash_number(&sha, 26, s->has_strength, "%a", s->strength);
    weir_sha256_final(&sha, out);
}

void weir_spec_of_item(const Weir__Pb__JobSpec *spec, uint32_t item, Weir__Pb__JobSpec *out)
{
    uint32_t index = item;
    *out = *spec;
    out->n_prompts = 0;
    out->prompts = NULL;
    if (spec->n_prompts > 0) {
        const uint32_t n = spec->n ? spec->n : 1;
        assert(item / n < spec->n_prompts);
        const Weir__Pb__Prompt *prompt = spec->prompts[item / n];
        index = item % n;
        out->prompt = prompt->text;
        out->negative = prompt->negative;
        out->width = prompt->width;
        out->height = prompt->height;
        out->steps = prompt->steps;
        out->guidance = prompt->guidance;
        out->seed = prompt->seed;
        out->has_width = out->has_height = out->has_steps = out->has_guidance = out->has_seed = 1;
        out->n_loras = prompt->n_loras;
        out->loras = prompt->loras;
    }
    out->seed += index;
    out->has_n = 1;
    out->n = 1;
}

static void set_text(json_t *object, const char *name, const char *text)
{
    if (text) json_object_set_new(object, name, json_string(text));
}

static void set_number(json_t *object, const char *name, protobuf_c_boolean has, uint64_t value)
{
    if (has) json_object_set_new(object, name, json_integer((json_int_t)value));
}

static void set_real(json_t *object, const char *name, protobuf_c_boolean has, double value)
{
    if (has) json_object_set_new(object, name, json_real(value));
}

static void set_file(json_t *object, const char *name, const Weir__Pb__FileRef *file)
{
    char digest[WEIR_SHA256_HEX_BYTES];
    if (!file || file->digest.len != WEIR_SHA256_BYTES) return;
    weir_hex_write(file->digest.data, WEIR_SHA256_BYTES, digest);
    set_text(object, name, digest);
}

static void set_loras(json_t *object, Weir__Pb__Lora *const *loras, size_t count)
{
    json_t *list = count ? json_array() : NULL;
    for (size_t i = 0; i < count; i++) {
        json_t *one = json_object();
        set_file(one, "file", loras[i]->file);
        set_real(one, "weight", loras[i]->has_weight, loras[i]->weight);
        json_array_append_new(list, one);
    }
    if (list) json_object_set_new(object, "loras", list);
}

static void set_prompts(json_t *object, Weir__Pb__Prompt *const *prompts, size_t count)
{
    json_t *list = count ? json_array() : NULL;
    for (size_t i = 0; i < count; i++) {
        const Weir__Pb__Prompt *p = prompts[i];
        json_t *one = json_object();
        set_text(one, "prompt", p->text);
        set_text(one, "negative", p->negative);
        set_number(one, "width", p->has_width, p->width);
        set_number(one, "height", p->has_height, p->height);
        set_number(one, "steps", p->has_steps, p->steps);
        set_real(one, "guidance", p->has_guidance, p->guidance);
        set_number(one, "seed", p->has_seed, p->seed);
        set_loras(one, p->loras, p->n_loras);
        set_number(one, "line", p->has_line, p->line);
        json_array_append_new(list, one);
    }
    if (list) json_object_set_new(object, "prompts", list);
}

char *weir_spec_json(const Weir__Pb__JobSpec *s)
{
    json_t *object = json_object();
    char digest[WEIR_SHA256_HEX_BYTES];
    set_number(object, "spec_version", s->has_spec_version, s->spec_version);
    set_text(object, "model", s->model);
    if (s->has_model_digest && s->model_digest.len == WEIR_SHA256_BYTES) {
        weir_hex_write(s->model_digest.data, WEIR_SHA256_BYTES, digest);
        set_text(object, "model_digest", digest);
    }
    set_text(object, "pipeline", s->pipeline);
    set_text(object, "prompt", s->prompt);
    set_text(object, "negative", s->negative);
    set_number(object, "width", s->has_width, s->width);
    set_number(object, "height", s->has_height, s->height);
    set_number(object, "frames", s->has_frames, s->frames);
    set_number(object, "fps", s->has_fps, s->fps);
    set_number(object, "steps", s->has_steps, s->steps);
    set_real(object, "guidance", s->has_guidance, s->guidance);
    set_number(object, "seed", s->has_seed, s->seed);
    set_number(object, "n", s->has_n, s->n);
    set_text(object, "sampler", s->sampler);
    set_text(object, "noise", s->noise);
    set_text(object, "format", s->format);
    set_text(object, "codec", s->codec);
    set_text(object, "precision", s->precision);
    if (s->has_image) json_object_set_new(object, "image", json_boolean(s->image));
    set_prompts(object, s->prompts, s->n_prompts);
    set_loras(object, s->loras, s->n_loras);
    set_file(object, "control", s->control);
    set_real(object, "control_scale", s->has_control_scale, s->control_scale);
    set_file(object, "start_image", s->start_image);
    set_real(object, "strength", s->has_strength, s->strength);
    char *text = json_dumps(object, JSON_SORT_KEYS | JSON_COMPACT);
    json_decref(object);
    return text;
}

static void write_key(char out[WEIR_KEY_BYTES], const char *tenant, const struct weir_job_id *job, const char *format,
                      ...) __attribute__((format(printf, 4, 5)));

static void write_key(char out[WEIR_KEY_BYTES], const char *tenant, const struct weir_job_id *job, const char *format,
                      ...)
{
    char id[WEIR_ID_HEX_BYTES];
    weir_job_id_text(job, id);
    const int used = snprintf(out, WEIR_KEY_BYTES, "t/%s/j/%s", tenant, id);
    va_list arguments;
    va_start(arguments, format);
    const int more = vsnprintf(out + used, WEIR_KEY_BYTES - (size_t)used, format, arguments);
    va_end(arguments);
    assert(used + more < WEIR_KEY_BYTES);
    (void)more;
}

void weir_key_artefact(const char *tenant, const struct weir_task_id *task, const uint8_t digest[WEIR_SHA256_BYTES],
                       char out[WEIR_KEY_BYTES])
{
    char hex[WEIR_SHA256_HEX_BYTES];
    weir_hex_write(digest, WEIR_SHA256_BYTES, hex);
    write_key(out, tenant, &task->job, "/%s-%u/%s", weir_stage_name(task->stage), task->index, hex);
}

void weir_key_checkpoint(const char *tenant, const struct weir_task_id *task, uint32_t step, char out[WEIR_KEY_BYTES])
{
    write_key(out, tenant, &task->job, "/%s-%u/ckpt/%06u", weir_stage_name(task->stage), task->index, step);
}

void weir_key_checkpoints(const char *tenant, const struct weir_task_id *task, char out[WEIR_KEY_BYTES])
{
    write_key(out, tenant, &task->job, "/%s-%u/ckpt/", weir_stage_name(task->stage), task->index);
}

void weir_key_job(const char *tenant, const struct weir_job_id *job, char out[WEIR_KEY_BYTES])
{
    write_key(out, tenant, job, "/");
}

void weir_key_file(const char *tenant, const uint8_t digest[WEIR_SHA256_BYTES], char out[WEIR_KEY_BYTES])
{
    char hex[WEIR_SHA256_HEX_BYTES];
    weir_hex_write(digest, WEIR_SHA256_BYTES, hex);
    const int used = snprintf(out, WEIR_KEY_BYTES, "t/%s/in/%s", tenant, hex);
    assert(used < WEIR_KEY_BYTES);
    (void)used;
}

void weir_key_embedding(const char *tenant, const char *text_key, char out[WEIR_KEY_BYTES])
{
    const int used = snprintf(out, WEIR_KEY_BYTES, "t/%s/emb/%s", tenant, text_key);
    assert(used < WEIR_KEY_BYTES);
    (void)used;
}

bool weir_tenant_valid(const char *tenant)
{
    const size_t length = strlen(tenant);
    return length >= 1 && length <= 32 && strspn(tenant, "abcdefghijklmnopqrstuvwxyz0123456789-") == length;
}
