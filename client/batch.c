/* A batch: prompts cut into parts of one job's worth, and all parts handed over, several at a time.
 *
 * A part is kept as it travels: the bytes of its prompts in the form of JobSpec.prompts, one after the other. So a prompt
 * costs its own bytes and no heap object, and a part is unpacked only while it is being sent. */
#include "client/internal.h"

#include "proto/base/clock.h"
#include "proto/wire_limits.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PART_BYTES_MAX = 400 << 10, /* of 512 KiB, since the resolved spec has every field of every prompt */
    RESOLVED_MORE_BYTES = 80,   /* what fields that were absent may add to a prompt */
    PART_SHAPES_MAX = 32,
    PARTS_MAX = 100000,
    KEY_BYTES_MAX = 112,
    FLIGHTS = 4,
    RESEND_MS = 2000,
    BACKOFF_MS = 100,
    BUSY_MS = 1000,
    PROMPTS_FIELD = 21, /* JobSpec.prompts */
};

struct part {
    uint8_t *bytes;
    size_t used, resolved;
    uint32_t prompts, dropped; /* prompts: of them now; dropped: refused ones that were taken out */
    bool accepted;
    char job[WEIR_JOB_BYTES];
};

struct weir_batch {
    struct weir_client *client;
    const struct weir_request *request;
    struct weir_client_spec base;
    char key[KEY_BYTES_MAX + 1], id_text[WEIR_JOB_BYTES];
    bool key_given;
    uint8_t id[WEIR_ID_BYTES];
    struct part *parts;
    size_t part_count, part_room, open_room; /* open_room: bytes of the last part's buffer */
    uint64_t shapes[PART_SHAPES_MAX];        /* of the last part */
    size_t shape_count;
    uint32_t n;
    uint64_t prompts, prompts_accepted;
    uint32_t parts_accepted;
};

/* ---- collecting ---------------------------------------------------------------------------------------------------- */

/* A key names the batch, too: asked for again, it is the same one. */
static void name_batch(struct weir_batch *batch, const char *key)
{
    struct weir_job_id id = weir_job_id_new();
    if (key) {
        uint8_t digest[WEIR_SHA256_BYTES];
        char text[KEY_BYTES_MAX + 16];
        const int used = snprintf(text, sizeof text, "batch %s", key);
        weir_sha256_of(text, (size_t)used, digest);
        memcpy(id.bytes, digest, sizeof id.bytes);
        snprintf(batch->key, sizeof batch->key, "%s", key);
    } else {
        weir_job_id_text(&id, batch->key);
    }
    memcpy(batch->id, id.bytes, sizeof batch->id);
    weir_job_id_text(&id, batch->id_text);
}

enum weir_status weir_batch_open(struct weir_client *client, const struct weir_request *request, const char *key,
                                 struct weir_batch **out, struct weir_error *error)
{
    *out = NULL;
    if (key && (!key[0] || strlen(key) > KEY_BYTES_MAX)) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "a batch's key of %zu bytes, 1 to %d are wanted", strlen(key),
                         KEY_BYTES_MAX);
    }
    if (request->n > WEIR_JOB_PROMPTS_MAX) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "n %u: of a prompt in a list at most %d items can be made",
                         request->n, WEIR_JOB_PROMPTS_MAX);
    }
    struct weir_batch *batch = calloc(1, sizeof *batch);
    if (!batch) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a batch");
    batch->client = client;
    batch->request = request;
    batch->key_given = key != NULL;
    batch->n = request->n ? request->n : 1;
    name_batch(batch, key);
    const enum weir_status status = weir_client_spec_of(client, request, &batch->base, error);
    if (status == WEIR_OK)
        *out = batch;
    else
        weir_batch_close(&batch);
    return status;
}

void weir_batch_close(struct weir_batch **batch_p)
{
    struct weir_batch *batch = *batch_p;
    if (!batch) return;
    for (size_t i = 0; i < batch->part_count; i++) free(batch->parts[i].bytes);
    free(batch->parts);
    free(batch);
    *batch_p = NULL;
}

const char *weir_batch_id(const struct weir_batch *batch)
{
    return batch->id_text;
}

uint32_t weir_batch_parts(const struct weir_batch *batch)
{
    return (uint32_t)batch->part_count;
}

const char *weir_batch_job(const struct weir_batch *batch, uint32_t part)
{
    return part < batch->part_count && batch->parts[part].accepted ? batch->parts[part].job : NULL;
}

/* What makes items differ in shape, as far as the request says it: sizes, and whether they are guided. */
static uint64_t shape_of(const Weir__Pb__Prompt *prompt)
{
    const uint64_t guided = !prompt->has_guidance ? 0 : prompt->guidance > 1 ? 1 : 2;
    return (uint64_t)prompt->width << 34 | (uint64_t)(prompt->height & 0xffffffff) << 2 | guided;
}

static bool shape_known(const struct weir_batch *batch, uint64_t shape)
{
    for (size_t i = 0; i < batch->shape_count; i++) {
        if (batch->shapes[i] == shape) return true;
    }
    return false;
}

static bool fits(const struct weir_batch *batch, const struct part *part, size_t resolved, uint64_t shape)
{
    return (part->prompts + 1) * batch->n <= WEIR_JOB_PROMPTS_MAX && part->resolved + resolved <= PART_BYTES_MAX &&
           (batch->shape_count < PART_SHAPES_MAX || shape_known(batch, shape));
}

static enum weir_status begin_part(struct weir_batch *batch, struct weir_error *error)
{
    if (batch->part_count == PARTS_MAX) {
        return weir_fail(error, WEIR_TOO_LARGE, "more than %d parts in one batch", PARTS_MAX);
    }
    if (batch->part_count == batch->part_room) {
        const size_t room = batch->part_room ? 2 * batch->part_room : 16;
        struct part *parts = realloc(batch->parts, room * sizeof *parts);
        if (!parts) return weir_fail(error, WEIR_NO_MEMORY, "no memory for %zu parts", room);
        batch->parts = parts;
        batch->part_room = room;
    }
    if (batch->part_count) { /* the last one stays as it is now */
        struct part *last = &batch->parts[batch->part_count - 1];
        uint8_t *bytes = realloc(last->bytes, last->used);
        if (bytes) last->bytes = bytes;
    }
    batch->parts[batch->part_count++] = (struct part){ .used = 0 };
    batch->open_room = 0;
    batch->shape_count = 0;
    return WEIR_OK;
}

static enum weir_status make_room(struct weir_batch *batch, struct part *part, size_t bytes, struct weir_error *error)
{
    size_t room = batch->open_room ? batch->open_room : 4096;
    while (room < part->used + bytes) room *= 2;
    if (room == batch->open_room) return WEIR_OK;
    uint8_t *grown = realloc(part->bytes, room);
    if (!grown) return weir_fail(error, WEIR_NO_MEMORY, "no memory for %zu bytes of prompts", room);
    part->bytes = grown;
    batch->open_room = room;
    return WEIR_OK;
}

static size_t varint(uint8_t *out, size_t value)
{
    size_t used = 0;
    for (; value >= 0x80; value >>= 7) out[used++] = (uint8_t)(value | 0x80);
    out[used++] = (uint8_t)value;
    return used;
}

enum weir_status weir_batch_add(struct weir_batch *batch, const struct weir_prompt *prompt, struct weir_error *error)
{
    struct weir_client_prompt made;
    enum weir_status status =
        weir_client_prompt_of(batch->client, batch->request, prompt, batch->key_given ? batch->key : NULL,
                              (uint32_t)batch->prompts + 1, &made, error);
    if (status != WEIR_OK) return status;
    const size_t bytes = weir__pb__prompt__get_packed_size(&made.prompt);
    const size_t negative_bytes = prompt->negative || !batch->request->negative ? 0 : strlen(batch->request->negative);
    const size_t lora_bytes = prompt->lora_count ? 0 : batch->request->lora_count * 320;
    const size_t resolved = bytes + RESOLVED_MORE_BYTES + negative_bytes + lora_bytes;
    const uint64_t shape = shape_of(&made.prompt);
    if (!batch->part_count || !fits(batch, &batch->parts[batch->part_count - 1], resolved, shape)) {
        status = begin_part(batch, error);
    }
    struct part *part = batch->part_count ? &batch->parts[batch->part_count - 1] : NULL;
    if (status == WEIR_OK) status = make_room(batch, part, bytes + 16, error);
    if (status != WEIR_OK) return status;
    part->used += varint(part->bytes + part->used, PROMPTS_FIELD << 3 | 2);
    part->used += varint(part->bytes + part->used, bytes);
    part->used += weir__pb__prompt__pack(&made.prompt, part->bytes + part->used);
    part->resolved += resolved;
    part->prompts++;
    batch->prompts++;
    if (!shape_known(batch, shape)) batch->shapes[batch->shape_count++] = shape;
    return WEIR_OK;
}

/* ---- handing over -------------------------------------------------------------------------------------------------- */

/* One part that was sent, or is to be sent at due_ms. */
struct flight {
    bool used;
    size_t part;
    uint64_t number, begun_ms, due_ms;
};

struct sending {
    struct weir_batch *batch;
    weir_on_batch_progress *on_progress;
    weir_on_refused *on_refused;
    void *context;
    struct flight flights[FLIGHTS];
    size_t next;              /* part that was not begun yet */
    struct weir_error failed; /* the first refusal that is of no single line */
    bool waiting;
};

static enum weir_status unpack(const struct part *part, Weir__Pb__JobSpec **out, struct weir_error *error)
{
    *out = weir__pb__job_spec__unpack(NULL, part->used, part->bytes);
    return *out ? WEIR_OK : weir_fail(error, WEIR_NO_MEMORY, "no memory for a part of %zu bytes", part->used);
}

static enum weir_status send_part(struct sending *s, const struct flight *flight, struct weir_error *error)
{
    struct weir_batch *batch = s->batch;
    const struct part *part = &batch->parts[flight->part];
    char key[160], dropped[16] = "";
    Weir__Pb__JobSpec *prompts;
    enum weir_status status = unpack(part, &prompts, error);
    if (status != WEIR_OK) return status;
    Weir__Pb__JobSpec spec = batch->base.spec;
    spec.prompts = prompts->prompts;
    spec.n_prompts = prompts->n_prompts;
    Weir__Pb__Submit submit = WEIR__PB__SUBMIT__INIT;
    submit.has_number = 1;
    submit.number = flight->number;
    /* without the lines that were refused it is another request, and the same one when all is asked for again */
    if (part->dropped) snprintf(dropped, sizeof dropped, "-%u", part->dropped);
    snprintf(key, sizeof key, "%s/%zu%s", batch->key, flight->part, dropped);
    submit.idempotency_key = key;
    submit.spec = &spec;
    submit.has_deadline_ms = batch->request->deadline_ms != 0;
    submit.deadline_ms = batch->request->deadline_ms;
    if (batch->part_count > 1) {
        submit.has_batch = submit.has_part = submit.has_parts = 1;
        submit.batch = (ProtobufCBinaryData){ sizeof batch->id, batch->id };
        submit.part = (uint32_t)flight->part;
        submit.parts = (uint32_t)batch->part_count;
    }
    status = weir_wire_limits_check(&submit.base, error);
    if (status != WEIR_OK) {
        status = WEIR_BAD_ARGUMENT; /* it came from our caller */
        if (error) error->code = status;
    } else {
        status = weir_wire_send(batch->client->socket, NULL, WEIR_MESSAGE_SUBMIT, ++batch->client->sequence,
                                &submit.base, error);
    }
    weir__pb__job_spec__free_unpacked(prompts, NULL);
    return status;
}

/* Takes the prompts of a line out of a part; false when it has none. */
static bool drop_line(struct part *part, uint32_t line)
{
    Weir__Pb__JobSpec *spec;
    size_t used = 0;
    uint32_t gone = 0;
    if (unpack(part, &spec, NULL) != WEIR_OK) return false;
    for (size_t i = 0; i < spec->n_prompts; i++) { /* written over itself: the same bytes, further to the front */
        if (spec->prompts[i]->line == line) {
            gone++;
            continue;
        }
        used += varint(part->bytes + used, PROMPTS_FIELD << 3 | 2);
        used += varint(part->bytes + used, weir__pb__prompt__get_packed_size(spec->prompts[i]));
        used += weir__pb__prompt__pack(spec->prompts[i], part->bytes + used);
    }
    weir__pb__job_spec__free_unpacked(spec, NULL);
    assert(used <= part->used);
    part->used = used;
    part->prompts -= gone;
    part->dropped += gone;
    return gone > 0;
}

static void begin(struct sending *s, struct flight *flight, uint64_t due_ms)
{
    flight->used = true;
    flight->number = ++s->batch->client->number; /* a late answer to what was sent before is of another number */
    flight->begun_ms = flight->due_ms = due_ms;
}

/* "line 17: --size 33x33: ..." becomes 17, and `*words` what is behind it; 0: it names no line. */
static uint32_t line_of(const char *words, const char **rest)
{
    char *end = NULL;
    if (strncmp(words, "line ", 5) != 0) return 0;
    const unsigned long line = strtoul(words + 5, &end, 10);
    if (end == words + 5 || strncmp(end, ": ", 2) != 0 || line > UINT32_MAX) return 0;
    *rest = end + 2;
    return (uint32_t)line;
}

static void take_refusal(struct sending *s, struct flight *flight, const Weir__Pb__Refused *refused)
{
    struct part *part = &s->batch->parts[flight->part];
    const char *words = refused->words ? refused->words : "", *rest = words;
    const enum weir_status why = (enum weir_status)refused->status;
    if (why == WEIR_BUSY) {
        s->waiting = true;
        begin(s, flight, weir_clock_now_ms() + (refused->retry_after_ms ? refused->retry_after_ms : BUSY_MS));
        return;
    }
    const uint32_t line = line_of(words, &rest);
    const uint32_t before = part->prompts;
    if (line && drop_line(part, line)) {
        struct weir_error error;
        weir_fail(&error, why, "%s", rest);
        s->batch->prompts -= before - part->prompts;
        if (s->on_refused) s->on_refused(s->context, line, &error);
        flight->used = part->prompts > 0;
        if (flight->used) begin(s, flight, weir_clock_now_ms());
        return;
    }
    flight->used = false;
    if (s->failed.code == WEIR_OK) weir_fail(&s->failed, why, "%s", words);
}

static bool tell(struct sending *s)
{
    const struct weir_batch *batch = s->batch;
    const struct weir_batch_progress progress = { .parts = (uint32_t)batch->part_count,
                                                  .parts_accepted = batch->parts_accepted,
                                                  .prompts = batch->prompts,
                                                  .prompts_accepted = batch->prompts_accepted,
                                                  .waiting = s->waiting };
    return !s->on_progress || s->on_progress(s->context, &progress);
}

static void take_answer(struct sending *s, const struct weir_message *message)
{
    const bool accepted = message->type == WEIR_MESSAGE_ACCEPTED;
    if (!accepted && message->type != WEIR_MESSAGE_REFUSED) return;
    const uint64_t number = accepted ? message->body.accepted->number : message->body.refused->number;
    for (size_t i = 0; i < FLIGHTS; i++) {
        struct flight *flight = &s->flights[i];
        if (!flight->used || flight->number != number) continue;
        if (!accepted) {
            take_refusal(s, flight, message->body.refused);
            return;
        }
        struct part *part = &s->batch->parts[flight->part];
        weir_hex_write(message->body.accepted->job.data, WEIR_ID_BYTES, part->job);
        part->accepted = true;
        s->batch->parts_accepted++;
        s->batch->prompts_accepted += part->prompts;
        flight->used = s->waiting = false;
    }
}

/* Gives free flights their parts. False when there is nothing left to do. */
static bool assign(struct sending *s, uint64_t now_ms)
{
    bool any = false;
    for (size_t i = 0; i < FLIGHTS; i++) {
        struct flight *flight = &s->flights[i];
        for (; !flight->used && s->failed.code == WEIR_OK && s->next < s->batch->part_count; s->next++) {
            struct part *part = &s->batch->parts[s->next];
            if (part->accepted || part->prompts == 0) continue;
            flight->part = s->next;
            begin(s, flight, now_ms);
        }
        any |= flight->used;
    }
    return any;
}

static enum weir_status send_due(struct sending *s, uint64_t now_ms, uint64_t *until_ms, struct weir_error *error)
{
    *until_ms = now_ms + RESEND_MS;
    for (size_t i = 0; i < FLIGHTS; i++) {
        struct flight *flight = &s->flights[i];
        if (!flight->used) continue;
        if (flight->due_ms <= now_ms) {
            if (now_ms - flight->begun_ms > WEIR_CLIENT_ANSWER_MS + 5000) {
                return weir_fail(error, WEIR_UNAVAILABLE, "%s: no broker answers", s->batch->client->where);
            }
            const enum weir_status status = send_part(s, flight, error);
            if (status != WEIR_OK && status != WEIR_UNAVAILABLE) return status;
            flight->due_ms = now_ms + (status == WEIR_OK ? RESEND_MS : BACKOFF_MS);
        }
        if (flight->due_ms < *until_ms) *until_ms = flight->due_ms;
    }
    return WEIR_OK;
}

enum weir_status weir_client_submit_batch(struct weir_client *client, struct weir_batch *batch,
                                          weir_on_batch_progress *on_progress, weir_on_refused *on_refused,
                                          void *context, struct weir_error *error)
{
    struct sending s = { .batch = batch, .on_progress = on_progress, .on_refused = on_refused, .context = context };
    assert(client == batch->client);
    while (assign(&s, weir_clock_now_ms())) {
        uint64_t until_ms;
        struct weir_message message;
        enum weir_status status = send_due(&s, weir_clock_now_ms(), &until_ms, error);
        if (status != WEIR_OK) return status;
        status = weir_client_next_message(client, until_ms, &message, error);
        if (status == WEIR_OK) {
            take_answer(&s, &message);
            weir_message_release(&message);
        }
        if (status != WEIR_OK && status != WEIR_TIMEOUT) return status;
        if (!tell(&s)) return weir_fail(error, WEIR_INTERRUPTED, "interrupted");
    }
    if (s.failed.code == WEIR_OK) return WEIR_OK;
    return weir_fail(error, s.failed.code, "%s", s.failed.words);
}
