/* What travels between workers: tensors as bytes, what is at hand, and fetching from a peer. */
#include "worker/link/artefact.h"
#include "worker/link/link.h"

#include <ftw.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>

/* ---- tensors ---- */

static void a_tensor_is_read_back_as_it_was_written(void **state)
{
    (void)state;
    const uint32_t dims[] = { 2, 3, 4 };
    void *bytes;
    size_t byte_count, count;
    float *values;
    struct weir_artefact_tensor tensor;
    struct weir_error error;
    assert_int_equal(weir_artefact_create(3, dims, &bytes, &byte_count, &values, &count, &error), WEIR_OK);
    assert_int_equal(byte_count, 64 + 24 * 4);
    for (size_t i = 0; i < count; i++) values[i] = (float)i / 3.0f;
    assert_int_equal(weir_artefact_parse(bytes, byte_count, &tensor, &error), WEIR_OK);
    assert_int_equal(tensor.count, 24);
    assert_memory_equal(tensor.values, values, 24 * 4);
    assert_int_equal(weir_artefact_expect(&tensor, "it", 3, dims, &error), WEIR_OK);
    assert_int_equal(weir_artefact_expect(&tensor, "it", 2, dims, &error), WEIR_BAD_FILE);
    assert_non_null(strstr(error.words, "2x3x4"));
    assert_int_equal(weir_artefact_expect(&tensor, "it", 3, (const uint32_t[]){ 2, 3, 5 }, &error), WEIR_BAD_FILE);
    free(bytes);
}

static void every_damaged_header_is_refused(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        uint32_t value;
    } damages[] = { { 0, 0 },  { 8, 2 },  { 12, 1 },    { 16, 0 },          { 16, 7 },         { 16, 3 },
                    { 20, 0 }, { 20, 5 }, { 28, 1 },    { 40, 1 },          { 44, 1 },         { 48, 1 },
                    { 52, 1 }, { 60, 1 }, { 24, 1000 }, { 20, UINT32_MAX }, { 24, UINT32_MAX } };
    const uint32_t dims[] = { 2, 3 };
    void *bytes;
    size_t byte_count, count;
    float *values;
    struct weir_artefact_tensor tensor;
    assert_int_equal(weir_artefact_create(2, dims, &bytes, &byte_count, &values, &count, NULL), WEIR_OK);
    memset(values, 0, count * sizeof *values);
    for (size_t i = 0; i < WEIR_COUNT(damages); i++) {
        uint8_t copy[64 + 24] __attribute__((aligned(16)));
        memcpy(copy, bytes, sizeof copy);
        weir_store_u32(copy + damages[i].at, damages[i].value);
        assert_int_equal(weir_artefact_parse(copy, sizeof copy, &tensor, NULL), WEIR_BAD_FILE);
    }
    for (size_t cut = 0; cut < byte_count; cut++) {
        assert_int_equal(weir_artefact_parse(bytes, cut, &tensor, NULL), WEIR_BAD_FILE);
    }
    assert_int_equal(weir_artefact_parse(bytes, byte_count, &tensor, NULL), WEIR_OK);
    free(bytes);
}

/* ---- at hand ---- */

struct world {
    char dir[64], endpoint[96];
    struct weir_store *store;
    struct weir_shelf *shelf, *other;
    void *zmq;
    struct weir_server server;
    pthread_t thread;
    atomic_bool serving;
    struct weir_link link; /* of somebody else, who has `other` */
};

static int remove_one(const char *path, const struct stat *facts, int kind, struct FTW *where)
{
    (void)facts, (void)kind, (void)where;
    return remove(path);
}

static int begin(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    if (!w) return -1;
    strcpy(w->dir, "/tmp/weir-link-XXXXXX");
    if (!mkdtemp(w->dir) || weir_store_open(w->dir, &w->store, NULL) != WEIR_OK) return -1;
    snprintf(w->endpoint, sizeof w->endpoint, "ipc://%s/~tensor", w->dir);
    if (weir_shelf_create(&(struct weir_shelf_limits){ 4, 1000 }, w->store, &w->shelf, NULL) != WEIR_OK) return -1;
    if (weir_shelf_create(&(struct weir_shelf_limits){ 4, 64 << 20 }, w->store, &w->other, NULL) != WEIR_OK) return -1;
    w->zmq = zmq_ctx_new();
    w->link =
        (struct weir_link){ .zmq = w->zmq, .store = w->store, .shelf = w->other, .first_ms = 2000, .stall_ms = 2000 };
    *state = w;
    return 0;
}

static void *serve(void *context)
{
    struct world *w = context;
    while (atomic_load(&w->serving)) {
        zmq_pollitem_t item = { .socket = w->server.socket, .events = ZMQ_POLLIN };
        zmq_poll(&item, 1, 20);
        weir_server_turn(&w->server, 16);
    }
    return NULL;
}

static void serve_start(struct world *w)
{
    w->server.shelf = w->shelf;
    w->server.chunk = malloc(WEIR_WIRE_CHUNK_BYTES_MAX);
    assert_int_equal(weir_wire_bind(w->zmq, w->endpoint, WEIR_SOCKET_TENSOR, false, &w->server.socket, NULL, NULL),
                     WEIR_OK);
    atomic_store(&w->serving, true);
    assert_int_equal(pthread_create(&w->thread, NULL, serve, w), 0);
}

static int end(void **state)
{
    struct world *w = *state;
    if (atomic_exchange(&w->serving, false)) pthread_join(w->thread, NULL);
    if (w->server.socket) zmq_close(w->server.socket);
    free(w->server.chunk);
    zmq_ctx_term(w->zmq);
    weir_shelf_destroy(&w->shelf);
    weir_shelf_destroy(&w->other);
    weir_store_close(&w->store);
    const int failed = nftw(w->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(w);
    return failed;
}

static void number(uint8_t digest[WEIR_SHA256_BYTES], uint8_t n)
{
    memset(digest, n, WEIR_SHA256_BYTES);
}

static bool at_hand(struct world *w, uint8_t n)
{
    uint8_t digest[WEIR_SHA256_BYTES];
    void *bytes;
    size_t count;
    number(digest, n);
    const bool found = weir_shelf_get(w->shelf, digest, &bytes, &count);
    free(bytes);
    return found;
}

static void keep(struct world *w, uint8_t n, size_t count)
{
    uint8_t digest[WEIR_SHA256_BYTES], bytes[2000] = { n };
    number(digest, n);
    weir_shelf_keep(w->shelf, digest, bytes, count);
}

static void the_longest_unused_bytes_make_room(void **state)
{
    struct world *w = *state;
    keep(w, 1, 400);
    keep(w, 2, 400);
    assert_true(at_hand(w, 1)); /* used: 2 is the older now */
    keep(w, 3, 200);            /* 1000 bytes: just full */
    assert_true(at_hand(w, 1) && at_hand(w, 3));
    assert_true(at_hand(w, 2));
    keep(w, 4, 1); /* over by one byte: 1 was used the longest time ago */
    assert_false(at_hand(w, 1));
    assert_true(at_hand(w, 2) && at_hand(w, 3) && at_hand(w, 4));
    keep(w, 5, 1001); /* larger than all there is */
    assert_false(at_hand(w, 5));
    assert_true(at_hand(w, 2));
    keep(w, 6, 1);
    keep(w, 7, 1); /* a fifth row: the table has four */
    assert_false(at_hand(w, 3));
    assert_true(at_hand(w, 6) && at_hand(w, 7));
}

static void only_the_right_ticket_opens_what_was_offered(void **state)
{
    struct world *w = *state;
    uint8_t digest[WEIR_SHA256_BYTES], ticket[WEIR_TICKET_BYTES], again[WEIR_TICKET_BYTES], buffer[16];
    size_t got;
    uint64_t total;
    struct weir_error wrong, unknown;
    number(digest, 1);
    assert_int_equal(weir_store_put(w->store, "t/x", "hello", 5, NULL), WEIR_OK);
    assert_true(weir_shelf_offer(w->shelf, digest, "t/x", "hello", 5, ticket));
    assert_int_equal(weir_shelf_read(w->shelf, digest, ticket, 1, buffer, 16, &got, &total, NULL), WEIR_OK);
    assert_int_equal(got, 4);
    assert_int_equal(total, 5);
    assert_memory_equal(buffer, "ello", 4);
    assert_int_equal(weir_shelf_read(w->shelf, digest, ticket, 9, buffer, 16, &got, &total, NULL), WEIR_OK);
    assert_int_equal(got, 0);
    assert_true(
        weir_shelf_offer(w->shelf, digest, "t/x", NULL, 5, again)); /* made twice: the first ticket stays good */
    assert_memory_equal(ticket, again, sizeof ticket);

    ticket[15] ^= 1;
    assert_int_equal(weir_shelf_read(w->shelf, digest, ticket, 0, buffer, 16, &got, &total, &wrong), WEIR_NOT_FOUND);
    number(digest, 2);
    assert_int_equal(weir_shelf_read(w->shelf, digest, ticket, 0, buffer, 16, &got, &total, &unknown), WEIR_NOT_FOUND);
    assert_string_equal(wrong.words, unknown.words); /* the two look alike */

    keep(w, 3, 5); /* kept for itself, given to nobody */
    number(digest, 3);
    memset(ticket, 0, sizeof ticket);
    assert_int_equal(weir_shelf_read(w->shelf, digest, ticket, 0, buffer, 16, &got, &total, NULL), WEIR_NOT_FOUND);
}

static void an_offer_whose_bytes_had_to_go_is_read_from_the_store(void **state)
{
    struct world *w = *state;
    uint8_t digest[WEIR_SHA256_BYTES], ticket[WEIR_TICKET_BYTES], buffer[16];
    size_t got;
    uint64_t total;
    number(digest, 1);
    assert_int_equal(weir_store_put(w->store, "t/x", "hello", 5, NULL), WEIR_OK);
    assert_true(weir_shelf_offer(w->shelf, digest, "t/x", "hello", 5, ticket));
    keep(w, 2, 1000);
    assert_false(at_hand(w, 1));
    assert_int_equal(weir_shelf_read(w->shelf, digest, ticket, 0, buffer, 16, &got, &total, NULL), WEIR_OK);
    assert_memory_equal(buffer, "hello", 5);
    assert_int_equal(weir_store_remove(w->store, "t/x", NULL), WEIR_OK);
    assert_int_equal(weir_shelf_read(w->shelf, digest, ticket, 0, buffer, 16, &got, &total, NULL), WEIR_NOT_FOUND);
}

/* ---- from a peer ---- */

struct thing {
    uint8_t *bytes;
    size_t count;
    uint8_t digest[WEIR_SHA256_BYTES], ticket[WEIR_TICKET_BYTES];
    Weir__Pb__TaskId from;
    Weir__Pb__Artefact artefact;
    Weir__Pb__Input input;
    uint8_t job[WEIR_ID_BYTES];
};

/* Bytes that somebody offers at w->endpoint; in the store under their task's key when `stored`. */
static void thing_init(struct world *w, struct thing *t, size_t count, bool stored)
{
    char key[WEIR_KEY_BYTES];
    struct weir_task_id task = { .stage = WEIR_STAGE_DENOISE, .index = 3 };
    memset(t, 0, sizeof *t);
    memset(t->job, 7, sizeof t->job);
    memcpy(task.job.bytes, t->job, sizeof t->job);
    t->bytes = malloc(count ? count : 1);
    t->count = count;
    for (size_t i = 0; i < count; i++) t->bytes[i] = (uint8_t)(i * 2654435761u >> 13);
    weir_sha256_of(t->bytes, count, t->digest);
    weir_key_artefact("local", &task, t->digest, key);
    if (stored) assert_int_equal(weir_store_put(w->store, key, t->bytes, count, NULL), WEIR_OK);
    assert_true(weir_shelf_offer(w->shelf, t->digest, key, t->bytes, count, t->ticket));
    weir__pb__task_id__init(&t->from);
    t->from.has_job = t->from.has_stage = t->from.has_index = 1;
    t->from.job = (ProtobufCBinaryData){ WEIR_ID_BYTES, t->job };
    t->from.stage = WEIR_STAGE_DENOISE;
    t->from.index = 3;
    weir__pb__artefact__init(&t->artefact);
    t->artefact.name = (char *)(uintptr_t) "latents";
    t->artefact.has_digest = t->artefact.has_bytes = t->artefact.has_ticket = 1;
    t->artefact.digest = (ProtobufCBinaryData){ WEIR_SHA256_BYTES, t->digest };
    t->artefact.bytes = count;
    t->artefact.endpoint = w->endpoint;
    t->artefact.ticket = (ProtobufCBinaryData){ WEIR_TICKET_BYTES, t->ticket };
    weir__pb__input__init(&t->input);
    t->input.from = &t->from;
    t->input.artefact = &t->artefact;
}

static enum weir_status get(struct world *w, struct thing *t, struct weir_error *error)
{
    void *bytes;
    size_t count;
    const enum weir_status status = weir_link_get(&w->link, "local", &t->input, &bytes, &count, error);
    if (status == WEIR_OK) {
        assert_int_equal(count, t->count);
        assert_memory_equal(bytes, t->bytes, count);
    }
    free(bytes);
    return status;
}

static void objects_of_every_size_come_whole_from_a_peer(void **state)
{
    struct world *w = *state;
    static const size_t sizes[] = { 0, 1, WEIR_WIRE_CHUNK_BYTES_MAX, WEIR_WIRE_CHUNK_BYTES_MAX + 1,
                                    6 * (size_t)WEIR_WIRE_CHUNK_BYTES_MAX + 12345 };
    weir_shelf_destroy(&w->shelf);
    assert_int_equal(weir_shelf_create(&(struct weir_shelf_limits){ 8, 64 << 20 }, w->store, &w->shelf, NULL), WEIR_OK);
    serve_start(w);
    for (size_t i = 0; i < WEIR_COUNT(sizes); i++) {
        struct thing t;
        struct weir_error error = { .words = "" };
        thing_init(w, &t, sizes[i], false);
        if (get(w, &t, &error) != WEIR_OK) fail_msg("%zu bytes: %s", sizes[i], error.words);
        free(t.bytes);
    }
}

static void a_wrong_ticket_or_a_dead_peer_leaves_the_store(void **state)
{
    struct world *w = *state;
    struct thing t;
    struct weir_error error;
    serve_start(w);
    thing_init(w, &t, 500, true);
    t.ticket[0] ^= 1;
    assert_int_equal(get(w, &t, &error), WEIR_OK); /* from the store */
    free(t.bytes);

    thing_init(w, &t, 501, false);
    t.ticket[0] ^= 1;
    assert_int_equal(get(w, &t, &error), WEIR_INPUT_LOST);
    assert_non_null(strstr(error.words, "denoise-3"));
    free(t.bytes);

    char nobody[96];
    snprintf(nobody, sizeof nobody, "ipc://%s/~nobody", w->dir);
    thing_init(w, &t, 502, true);
    t.artefact.endpoint = nobody;
    assert_int_equal(get(w, &t, &error), WEIR_OK);
    free(t.bytes);
}

static void bytes_with_another_digest_are_seen_by_nobody(void **state)
{
    struct world *w = *state;
    struct thing t, u;
    struct weir_error error;
    serve_start(w);
    thing_init(w, &t, 600, false);
    thing_init(w, &u, 601, false);
    char key[WEIR_KEY_BYTES]; /* the peer gives other bytes of the right length, and so does the store */
    struct weir_task_id task = { .stage = WEIR_STAGE_DENOISE, .index = 3 };
    memcpy(task.job.bytes, t.job, sizeof t.job);
    t.digest[5] ^= 1;
    weir_key_artefact("local", &task, t.digest, key);
    assert_int_equal(weir_store_put(w->store, key, t.bytes, 600, NULL), WEIR_OK);
    assert_true(weir_shelf_offer(w->shelf, t.digest, key, t.bytes, 600, t.ticket));
    assert_int_equal(get(w, &t, &error), WEIR_INPUT_LOST);
    uint64_t left; /* what is made again finds its place free */
    assert_int_equal(weir_store_stat(w->store, key, &left, NULL), WEIR_NOT_FOUND);
    u.artefact.bytes = 600; /* the peer has one byte more than was promised */
    assert_int_equal(get(w, &u, &error), WEIR_INPUT_LOST);
    u.artefact.bytes = WEIR_LINK_INPUT_BYTES_MAX + 1;
    assert_int_equal(get(w, &u, &error), WEIR_TOO_LARGE);
    free(t.bytes);
    free(u.bytes);
}

static void a_silent_peer_is_left_after_its_time_and_a_cancel_is_heard(void **state)
{
    struct world *w = *state;
    void *silent;
    struct thing t;
    struct weir_error error;
    atomic_bool cancel = true;
    assert_int_equal(weir_wire_bind(w->zmq, w->endpoint, WEIR_SOCKET_TENSOR, false, &silent, NULL, NULL), WEIR_OK);
    w->link.first_ms = 200;
    thing_init(w, &t, 700, false);
    assert_int_equal(get(w, &t, &error), WEIR_INPUT_LOST);
    w->link.cancel = &cancel;
    assert_int_equal(get(w, &t, &error), WEIR_CANCELLED);
    zmq_close(silent);
    free(t.bytes);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tensor_is_read_back_as_it_was_written),
        cmocka_unit_test(every_damaged_header_is_refused),
        CASE(the_longest_unused_bytes_make_room),
        CASE(only_the_right_ticket_opens_what_was_offered),
        CASE(an_offer_whose_bytes_had_to_go_is_read_from_the_store),
        CASE(objects_of_every_size_come_whole_from_a_peer),
        CASE(a_wrong_ticket_or_a_dead_peer_leaves_the_store),
        CASE(bytes_with_another_digest_are_seen_by_nobody),
        CASE(a_silent_peer_is_left_after_its_time_and_a_cancel_is_heard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
