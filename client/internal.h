/* internal: what client.c, report.c and fetch.c share. */
#ifndef WEIR_CLIENT_INTERNAL_H
#define WEIR_CLIENT_INTERNAL_H

#include "client/weir.h"
#include "proto/job.h"
#include "proto/wire.h"

struct weir_client {
    void *zmq, *socket;
    uint64_t sequence; /* messages sent on this connection */
    uint64_t number;   /* of the last request */
    char where[4096];  /* as the user said it, for messages */
    bool insecure;
    weir_on_idle *on_idle;
    void *idle_context;
    char store[4096]; /* the store's path on this machine; "" until asked for */
};

/* The report and what it points into. */
struct weir_client_report {
    struct weir_report report; /* first: one pointer is both */
    struct weir_message message;
    struct weir_object_report *objects;
    struct weir_task_report *tasks;
};

/* Takes the message over, also on failure. */
enum weir_status weir_client_report_create(struct weir_message *message, struct weir_report **out,
                                           struct weir_error *error);
const Weir__Pb__JobView *weir_client_report_view(const struct weir_report *report);

/* Reads one artefact to a file descriptor over a tensor socket, checking its digest.
 * Errors  INPUT_LOST: the socket does not have it; UNAVAILABLE: no answer; IO */
enum weir_status weir_client_fetch_socket(struct weir_client *client, const Weir__Pb__Artefact *artefact, int fd,
                                          const char *path, struct weir_error *error);

#endif
