/* Fetching from a tensor socket: what a peer may answer and what is made of it, by itself and by the client. */
#include "proto/fetch.h"

#include "client/internal.h"
#include "proto/base/bytes.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>

enum { CHUNK = WEIR_WIRE_CHUNK_BYTES_MAX, PARTS = 6, BYTES = (PARTS - 1) * CHUNK + 12345, PATIENCE_MS = 200 };

enum answer {
    WHOLE,
    REFUSED,
    NOTHING,
    ONE_THEN_NOTHING,
    SHORT,
    OTHER_OFFSET,
    OTHER_TOTAL,
    OTHER_NUMBER,
    FIRST_TWICE,
    OTHER_BYTES
};

struct world {
    char dir[64], endpoint[96], path[96];
    void *zmq, *socket;
    uint8_t *bytes, *got;
    uint64_t taken; /* bytes */
    uint8_t digest[WEIR_SHA256_BYTES], ticket[16];
    Weir__Pb__Artefact artefact;
    enum weir_status take_says;
    pthread_t thread;
    atomic_bool serves, goes_on;
    enum answer answer;
    unsigned waiting_most; /* FETCHes at a time */
};

/* ---- the peer: it answers when as much as may be is asked for at once, and nothing more comes ---- */

static void answer(struct world *w, const struct weir_message *message, uint64_t sequence)
{
    const Weir__Pb__Fetch *fetch = message->body.fetch;
    Weir__Pb__Refused refused = WEIR__PB__REFUSED__INIT;
    refused.has_number = refused.has_status = 1;
    refused.number = fetch->number;
    refused.status = WEIR_NOT_FOUND;
    Weir__Pb__Chunk chunk = WEIR__PB__CHUNK__INIT;
    chunk.has_number = chunk.has_offset = chunk.has_total = chunk.has_data = 1;
    chunk.number = w->answer == FIRST_TWICE && fetch->number == 2 ? 1 : fetch->number + (w->answer == OTHER_NUMBER);
    chunk.offset = fetch->offset + (w->answer == OTHER_OFFSET);
    chunk.total = BYTES - (w->answer == OTHER_TOTAL);
    chunk.data = (ProtobufCBinaryData){ fetch->bytes - (w->answer == SHORT), w->bytes + fetch->offset };
    if (w->answer == NOTHING || (w->answer == ONE_THEN_NOTHING && fetch->number > 1)) return;
    (void)weir_wire_send(w->socket, &message->from, w->answer == REFUSED ? WEIR_MESSAGE_REFUSED : WEIR_MESSAGE_CHUNK,
                         sequence, w->answer == REFUSED ? &refused.base : &chunk.base, NULL);
}

static void *serve(void *context)
{
    struct world *w = context;
    struct weir_message waiting[16];
    unsigned count = 0, answered = 0;
    uint64_t sequence = 0;
    while (atomic_load(&w->serves)) {
        uint32_t seen;
        zmq_pollitem_t item = { .socket = w->socket, .events = ZMQ_POLLIN };
        if (zmq_poll(&item, 1, 20) > 0) {
            if (count < WEIR_COUNT(waiting) &&
                weir_wire_receive(w->socket, true, WEIR_DIRECTION_F, &waiting[count], &seen, NULL) == WEIR_OK) {
                count++;
            }
            continue;
        }
        const unsigned left = PARTS - answered;
        if (count < (left < WEIR_FETCH_OUTSTANDING_MAX ? left : WEIR_FETCH_OUTSTANDING_MAX)) continue;
        if (count > w->waiting_most) w->waiting_most = count;
        for (unsigned i = 0; i < count; i++) {
            answer(w, &waiting[i], ++sequence);
            weir_message_release(&waiting[i]);
        }
        answered += count;
        count = 0;
    }
    for (unsigned i = 0; i < count; i++) weir_message_release(&waiting[i]);
    return NULL;
}

static void serve_as(struct world *w, enum answer how)
{
    w->answer = how;
    assert_int_equal(weir_wire_bind(w->zmq, w->endpoint, WEIR_SOCKET_TENSOR, false, &w->socket, NULL, NULL), WEIR_OK);
    atomic_store(&w->serves, true);
    assert_int_equal(pthread_create(&w->thread, NULL, serve, w), 0);
}

static void serve_end(struct world *w)
{
    if (!atomic_exchange(&w->serves, false)) return;
    pthread_join(w->thread, NULL);
    zmq_close(w->socket);
}

static int begin(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    if (!w) return -1;
    strcpy(w->dir, "/tmp/weir-fetch-XXXXXX");
    if (!mkdtemp(w->dir)) return -1;
    snprintf(w->endpoint, sizeof w->endpoint, "ipc://%s/~tensor", w->dir);
    snprintf(w->path, sizeof w->path, "%s/file", w->dir);
    w->zmq = zmq_ctx_new();
    w->bytes = malloc(BYTES);
    w->got = malloc(BYTES);
    if (!w->zmq || !w->bytes || !w->got) return -1;
    for (size_t i = 0; i < BYTES; i++) w->bytes[i] = (uint8_t)(i * 2654435761u >> 13);
    weir_sha256_of(w->bytes, BYTES, w->digest);
    weir__pb__artefact__init(&w->artefact);
    w->artefact.name = (char *)(uintptr_t) "film.mp4";
    w->artefact.has_digest = w->artefact.has_bytes = w->artefact.has_ticket = 1;
    w->artefact.digest = (ProtobufCBinaryData){ sizeof w->digest, w->digest };
    w->artefact.ticket = (ProtobufCBinaryData){ sizeof w->ticket, w->ticket };
    w->artefact.bytes = BYTES;
    w->artefact.endpoint = w->endpoint;
    atomic_store(&w->goes_on, true);
    *state = w;
    return 0;
}

static int end(void **state)
{
    struct world *w = *state;
    serve_end(w);
    zmq_ctx_term(w->zmq);
    unlink(w->path);
    unlink(w->endpoint + strlen("ipc://"));
    rmdir(w->dir);
    free(w->bytes);
    free(w->got);
    free(w);
    return 0;
}

/* ---- by itself ---- */

static enum weir_status take(void *context, uint64_t offset, const void *part, size_t count, struct weir_error *error)
{
    struct world *w = context;
    assert_int_equal(offset, w->taken);
    assert_true(count <= BYTES - w->taken);
    memcpy(w->got + offset, part, count);
    w->taken += count;
    return w->take_says == WEIR_OK ? WEIR_OK : weir_fail(error, w->take_says, "the disk is full");
}

static bool goes_on(void *context)
{
    return atomic_load(&((struct world *)context)->goes_on);
}

static enum weir_status fetch(struct world *w, struct weir_error *error)
{
    const struct weir_fetch fetch = { .zmq = w->zmq,
                                      .artefact = &w->artefact,
                                      .first_ms = w->answer == NOTHING ? PATIENCE_MS : 20000,
                                      .stall_ms = w->answer == ONE_THEN_NOTHING ? PATIENCE_MS : 20000,
                                      .take = take,
                                      .goes_on = goes_on,
                                      .context = w };
    w->taken = 0;
    return weir_fetch_run(&fetch, error);
}

static void an_object_comes_whole_and_four_parts_are_asked_for_at_a_time(void **state)
{
    struct world *w = *state;
    struct weir_error error = { .words = "" };
    serve_as(w, WHOLE);
    if (fetch(w, &error) != WEIR_OK) fail_msg("%s", error.words);
    assert_int_equal(w->taken, BYTES);
    assert_memory_equal(w->got, w->bytes, BYTES);
    serve_end(w);
    assert_int_equal(w->waiting_most, WEIR_FETCH_OUTSTANDING_MAX);
}

static void every_answer_that_was_not_asked_for_is_told(void **state)
{
    struct world *w = *state;
    static const struct {
        enum answer answer;
        enum weir_status status;
        const char *words;
        uint64_t taken;
    } cases[] = {
        { REFUSED, WEIR_NOT_FOUND, "does not have it any more", 0 },
        { NOTHING, WEIR_TIMEOUT, "gave 0 of", 0 },
        { ONE_THEN_NOTHING, WEIR_TIMEOUT, "gave 4194304 of", CHUNK },
        { SHORT, WEIR_PROTOCOL, "sent 4194303 bytes at 0 of", 0 },
        { OTHER_OFFSET, WEIR_PROTOCOL, "bytes at 1 of", 0 },
        { OTHER_TOTAL, WEIR_PROTOCOL, "at 0 of 20983864 where", 0 },
        { OTHER_NUMBER, WEIR_PROTOCOL, "was not asked for", 0 },
        { FIRST_TWICE, WEIR_PROTOCOL, "was not asked for", CHUNK },
        { OTHER_BYTES, WEIR_BAD_FILE, "another digest", BYTES },
    };
    for (size_t i = 0; i < WEIR_COUNT(cases); i++) {
        struct weir_error error = { .words = "" };
        w->bytes[BYTES - 1] ^= cases[i].answer == OTHER_BYTES;
        serve_as(w, cases[i].answer);
        const enum weir_status status = fetch(w, &error);
        if (status != cases[i].status || !strstr(error.words, cases[i].words) || w->taken != cases[i].taken) {
            fail_msg("case %zu: %s, \"%s\", %llu bytes taken", i, weir_status_name(status), error.words,
                     (unsigned long long)w->taken);
        }
        serve_end(w);
    }
}

static void nobody_a_full_disk_and_a_cancel_are_heard_at_once(void **state)
{
    struct world *w = *state;
    struct weir_error error;
    assert_int_equal(fetch(w, &error), WEIR_UNAVAILABLE);
    serve_as(w, WHOLE);
    w->take_says = WEIR_IO;
    assert_int_equal(fetch(w, &error), WEIR_IO);
    assert_string_equal(error.words, "the disk is full");
    assert_int_equal(w->taken, CHUNK);
    serve_end(w);
    serve_as(w, NOTHING);
    atomic_store(&w->goes_on, false);
    assert_int_equal(fetch(w, &error), WEIR_CANCELLED);
}

/* ---- as the client does it ---- */

static enum weir_status client_fetch(struct world *w, struct weir_error *error)
{
    struct weir_client client = { .zmq = w->zmq, .on_idle = goes_on, .idle_context = w };
    const int fd = open(w->path, O_RDWR | O_CREAT | O_TRUNC, 0666);
    assert_true(fd >= 0);
    const enum weir_status status = weir_client_fetch_socket(&client, &w->artefact, fd, w->path, error);
    if (status == WEIR_OK) {
        assert_int_equal(lseek(fd, 0, SEEK_END), BYTES);
        assert_int_equal(pread(fd, w->got, BYTES, 0), BYTES);
        assert_memory_equal(w->got, w->bytes, BYTES);
    }
    close(fd);
    return status;
}

static void the_client_writes_the_bytes_to_its_file_or_says_why_not(void **state)
{
    struct world *w = *state;
    struct weir_error error = { .words = "" };
    assert_int_equal(client_fetch(w, &error), WEIR_UNAVAILABLE);
    serve_as(w, WHOLE);
    if (client_fetch(w, &error) != WEIR_OK) fail_msg("%s", error.words);
    serve_end(w);
    serve_as(w, REFUSED);
    assert_int_equal(client_fetch(w, &error), WEIR_INPUT_LOST);
    assert_string_equal(error.words, "film.mp4: the worker no longer has it");
    serve_end(w);
    serve_as(w, NOTHING);
    atomic_store(&w->goes_on, false);
    assert_int_equal(client_fetch(w, &error), WEIR_INTERRUPTED);
    w->artefact.has_ticket = 0;
    assert_int_equal(client_fetch(w, &error), WEIR_INPUT_LOST);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(an_object_comes_whole_and_four_parts_are_asked_for_at_a_time),
        CASE(every_answer_that_was_not_asked_for_is_told),
        CASE(nobody_a_full_disk_and_a_cancel_are_heard_at_once),
        CASE(the_client_writes_the_bytes_to_its_file_or_says_why_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
