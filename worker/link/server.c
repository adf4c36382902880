#include "worker/link/link.h"

/* A peer that went away, or that does not read, gets nothing: it will ask the store. */
static void answer(struct weir_server *server, const struct weir_routing *to, enum weir_message_type type,
                   const ProtobufCMessage *body)
{
    (void)weir_wire_send(server->socket, to, type, ++server->sequence, body, NULL);
}

static void serve(struct weir_server *server, const struct weir_routing *to, const Weir__Pb__Fetch *fetch)
{
    struct weir_error error;
    size_t got = 0;
    uint64_t total = 0;
    const enum weir_status status = weir_shelf_read(server->shelf, fetch->digest.data, fetch->ticket.data,
                                                    fetch->offset, server->chunk, fetch->bytes, &got, &total, &error);
    if (status == WEIR_OK) {
        Weir__Pb__Chunk body = WEIR__PB__CHUNK__INIT;
        body.has_number = body.has_offset = body.has_total = body.has_data = 1;
        body.number = fetch->number;
        body.offset = fetch->offset;
        body.total = total;
        body.data = (ProtobufCBinaryData){ got, server->chunk };
        answer(server, to, WEIR_MESSAGE_CHUNK, &body.base);
        return;
    }
    Weir__Pb__Refused body = WEIR__PB__REFUSED__INIT;
    body.has_number = body.has_status = 1;
    body.number = fetch->number;
    body.status = (uint32_t)status;
    body.words = error.words;
    answer(server, to, WEIR_MESSAGE_REFUSED, &body.base);
}

unsigned weir_server_turn(struct weir_server *server, unsigned turns)
{
    unsigned done = 0;
    for (; done < turns; done++) {
        struct weir_message message;
        uint32_t type_seen;
        const enum weir_status status =
            weir_wire_receive(server->socket, true, WEIR_DIRECTION_F, &message, &type_seen, NULL);
        if (status == WEIR_TIMEOUT) break;
        if (status == WEIR_UNSUPPORTED) {
            Weir__Pb__Unsupported body = WEIR__PB__UNSUPPORTED__INIT;
            body.has_type = 1;
            body.type = type_seen;
            answer(server, &message.from, WEIR_MESSAGE_UNSUPPORTED, &body.base);
        }
        if (status != WEIR_OK) continue; /* malformed: dropped */
        serve(server, &message.from, message.body.fetch);
        weir_message_release(&message);
    }
    return done;
}
