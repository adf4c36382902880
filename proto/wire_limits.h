/* wire_limits: how long every text, bytes and repeated field may be, which fields must be there, and the ranges of
 * numbers that index something. wire.c walks a decoded body against this table; nobody checks sizes again after it. */
#ifndef WEIR_PROTO_WIRE_LIMITS_H
#define WEIR_PROTO_WIRE_LIMITS_H

#include "proto/status.h"

#include <protobuf-c/protobuf-c.h>

/* PROTOCOL naming the message, the field, its size and the limit. Bounded by the body's own size. */
enum weir_status weir_wire_limits_check(const ProtobufCMessage *message, struct weir_error *error);

#endif
