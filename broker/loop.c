#include "broker/loop.h"

#include "proto/base/clock.h"
#include "store/store.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

struct loop {
    const struct weir_loop_options *options;
    void *zmq;
    void *sockets[2]; /* by side */
    char bound[2][WEIR_ENDPOINT_BYTES];
    struct weir_store *store;
    struct weir_ledger *ledger;
    struct weir_broker *broker;
};

/* ---- the port ---- */

static enum weir_status port_send(void *context, enum weir_side side, const struct weir_routing *to,
                                  enum weir_message_type type, uint64_t sequence, const ProtobufCMessage *body)
{
    struct loop *loop = context;
    return weir_wire_send(loop->sockets[side], to, type, sequence, body, NULL);
}

static enum weir_status port_stat(void *context, const char *key, uint64_t *bytes, struct weir_error *error)
{
    return weir_store_stat(((struct loop *)context)->store, key, bytes, error);
}

static enum weir_status port_list(void *context, const char *prefix, bool (*each)(void *each_context, const char *key),
                                  void *each_context, struct weir_error *error)
{
    return weir_store_list(((struct loop *)context)->store, prefix, each, each_context, error);
}

static enum weir_status port_remove(void *context, const char *prefix, struct weir_error *error)
{
    return weir_store_remove(((struct loop *)context)->store, prefix, error);
}

static struct weir_job_id port_job_id(void *context)
{
    (void)context;
    return weir_job_id_new();
}

static void port_random(void *context, void *out, size_t count)
{
    (void)context;
    weir_random_bytes(out, count);
}

/* ---- turns ---- */

/* Takes up to `budget` messages from one socket. */
static enum weir_status take_messages(struct loop *loop, enum weir_side side, int budget, struct weir_error *error)
{
    const unsigned accepts = side == WEIR_SIDE_WORKERS ? WEIR_DIRECTION_W : WEIR_DIRECTION_C;
    for (int k = 0; k < budget; k++) {
        struct weir_message message = { 0 };
        struct weir_error words = { 0 };
        uint32_t type_seen = 0;
        const enum weir_status got =
            weir_wire_receive(loop->sockets[side], true, accepts, &message, &type_seen, &words);
        if (got == WEIR_TIMEOUT) break;
        const uint64_t now_ms = weir_clock_now_ms();
        if (got == WEIR_OK) {
            const enum weir_status status =
                weir_broker_take(loop->broker, now_ms, weir_clock_wall_ms(), side, &message, error);
            if (status != WEIR_OK) return status;
        } else if (got == WEIR_PROTOCOL || got == WEIR_UNSUPPORTED) {
            weir_broker_take_malformed(loop->broker, now_ms, side, &message.from, got, type_seen, words.words);
        }
    }
    return WEIR_OK;
}

static enum weir_status serve(struct loop *loop, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    uint64_t wait_ms = 0;
    zmq_pollitem_t items[] = {
        { .socket = loop->sockets[WEIR_SIDE_WORKERS], .events = ZMQ_POLLIN },
        { .socket = loop->sockets[WEIR_SIDE_CLIENTS], .events = ZMQ_POLLIN },
        { .fd = loop->options->stop_fd, .events = ZMQ_POLLIN },
    };
    while ((items[2].revents & ZMQ_POLLIN) == 0) {
        if (zmq_poll(items, (int)WEIR_COUNT(items), (long)(wait_ms < 60000 ? wait_ms : 60000)) < 0 &&
            zmq_errno() != EINTR) {
            return weir_fail(error, WEIR_IO, "waiting for messages: %s", zmq_strerror(zmq_errno()));
        }
        /* Workers first, and half a turn for each: neither side can starve the other. */
        WEIR_TRY(take_messages(loop, WEIR_SIDE_WORKERS, WEIR_TURN_MESSAGES_MAX / 2, error));
        WEIR_TRY(take_messages(loop, WEIR_SIDE_CLIENTS, WEIR_TURN_MESSAGES_MAX / 2, error));
        WEIR_TRY(weir_broker_flush(loop->broker, weir_clock_now_ms(), weir_clock_wall_ms(), &wait_ms, error));
    }
    weir_broker_close_doors(loop->broker);
    WEIR_TRY(take_messages(loop, WEIR_SIDE_WORKERS, WEIR_TURN_MESSAGES_MAX / 2, error));
    WEIR_TRY(weir_broker_flush(loop->broker, weir_clock_now_ms(), weir_clock_wall_ms(), &wait_ms, error));
    weir_log(loop->options->log, WEIR_LOG_INFO, "broker stopped");
cleanup:
    return status;
}

enum weir_status weir_loop_run(const struct weir_loop_options *options, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct loop loop = { .options = options };
    struct weir_broker_options broker = {
        .sched = weir_sched_options_default(options->test_timers, options->embedded),
        .port = { &loop, port_send, port_stat, port_list, port_remove, port_job_id },
        .log = options->log,
        .build = WEIR_VERSION,
        .pid = (uint64_t)getpid(),
        .sweep_after_ms = WEIR_SWEEP_AFTER_MS,
    };
    broker.sched.random = port_random;

    WEIR_TRY(
        weir_ledger_sqlite_open(options->ledger_path, &loop.ledger, error)); /* first: it keeps a second broker out */
    WEIR_TRY(weir_store_open(options->store_url, &loop.store, error));
    broker.store = weir_store_url(loop.store);
    loop.zmq = zmq_ctx_new();
    if (loop.zmq == NULL) {
        status = weir_fail(error, WEIR_NO_MEMORY, "no memory for sockets");
        goto cleanup;
    }
    WEIR_TRY(weir_broker_create(&broker, loop.ledger, weir_clock_now_ms(), weir_clock_wall_ms(), &loop.broker, error));
    WEIR_TRY(weir_wire_bind(loop.zmq, options->workers_endpoint, WEIR_SOCKET_CONTROL, options->insecure_dev,
                            &loop.sockets[WEIR_SIDE_WORKERS], loop.bound[WEIR_SIDE_WORKERS], error));
    WEIR_TRY(weir_wire_bind(loop.zmq, options->clients_endpoint, WEIR_SOCKET_CONTROL, options->insecure_dev,
                            &loop.sockets[WEIR_SIDE_CLIENTS], loop.bound[WEIR_SIDE_CLIENTS], error));
    printf("ready workers=%s clients=%s\n", loop.bound[WEIR_SIDE_WORKERS], loop.bound[WEIR_SIDE_CLIENTS]);
    fflush(stdout);
    status = serve(&loop, error);
cleanup:
    weir_broker_destroy(&loop.broker);
    for (int side = 0; side < 2; side++) {
        if (loop.sockets[side] != NULL) zmq_close(loop.sockets[side]);
    }
    if (loop.zmq != NULL) zmq_ctx_term(loop.zmq);
    weir_store_close(&loop.store);
    weir_ledger_close(&loop.ledger);
    return status;
}
