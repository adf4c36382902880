/* Wire frames: any bytes as header and body, and any bytes as the body of a correct header, so that the checksum does
 * not keep the fuzzer out. What decodes must pack and decode again to the same bytes. */
#include "proto/wire.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must_come_back(const struct weir_message *message, unsigned accepts)
{
    const size_t bytes = protobuf_c_message_get_packed_size(message->body.base);
    uint8_t *again = malloc(bytes + 1), header[WEIR_WIRE_HEADER_BYTES];
    protobuf_c_message_pack(message->body.base, again);
    weir_wire_header(message->type, 1, again, bytes, header);
    struct weir_message second;
    struct weir_error error;
    uint32_t seen;
    if (weir_wire_decode(header, sizeof header, again, bytes, accepts, &second, &seen, &error) != WEIR_OK) abort();
    if (protobuf_c_message_get_packed_size(second.body.base) != bytes) abort();
    weir_message_release(&second);
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) return 0;
    const unsigned accepts = data[0] & 63;
    const uint8_t type = data[1];
    struct weir_message message;
    struct weir_error error;
    uint32_t seen;
    enum weir_status status;
    if (data[0] & 64) {
        const size_t header = size - 2 < WEIR_WIRE_HEADER_BYTES ? size - 2 : WEIR_WIRE_HEADER_BYTES;
        status = weir_wire_decode(data + 2, header, data + 2 + header, size - 2 - header, accepts, &message, &seen, &error);
    } else {
        uint8_t header[WEIR_WIRE_HEADER_BYTES];
        weir_wire_header((enum weir_message_type)type, 1, data + 2, size - 2, header);
        status = weir_wire_decode(header, sizeof header, data + 2, size - 2, accepts, &message, &seen, &error);
    }
    if (status == WEIR_OK) {
        must_come_back(&message, accepts);
        weir_message_release(&message);
    }
    return 0;
}
