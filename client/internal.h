/* internal: what the files of the client share. */
#ifndef WEIR_CLIENT_INTERNAL_H
#define WEIR_CLIENT_INTERNAL_H

#include "client/weir.h"
#include "proto/job.h"
#include "proto/wire.h"

#define WEIR_CLIENT_TENANT "default" /* the broker's, where none is named */

struct weir_store;
struct weir_client_files; /* what was put into the store by this client, by path */

struct weir_client {
    void *zmq, *socket;
    uint64_t sequence; /* messages sent on this connection */
    uint64_t number;   /* of the last request */
    char where[4096];  /* as the user said it, for messages */
    bool insecure;
    weir_on_idle *on_idle;
    void *idle_context;
    char store[4096]; /* the store's path on this machine; "" until asked for */
    struct weir_client_files *files;
};

/* ---- client.c ---- */

/* The next well-formed message, or TIMEOUT once `until_ms` has come. INTERRUPTED by on_idle. */
enum weir_status weir_client_next_message(struct weir_client *client, uint64_t until_ms, struct weir_message *out,
                                          struct weir_error *error);
/* Sends `body`, whose number is client->number, again and again until its answer is there. REFUSED is an error. */
enum weir_status weir_client_ask(struct weir_client *client, enum weir_message_type type, const ProtobufCMessage *body,
                                 enum weir_message_type wanted, uint64_t patience_ms, struct weir_message *out,
                                 struct weir_error *error);

/* ---- files.c ---- */

/* The store when its directory is on this machine and allows `access` (of access(2)), else NULL. */
struct weir_store *weir_client_local_store(struct weir_client *client, int access);
/* A file of a request, hashed and put into the store once; `*out` is the client's. path NULL: `digest`'s, which must lie
 * there already. `what`: "LoRA", for messages.
 * Errors   NOT_FOUND, BAD_FILE, TOO_LARGE, UNAVAILABLE (this machine cannot write to the store), STORE, IO */
enum weir_status weir_client_file(struct weir_client *client, const char *what, uint64_t bytes_max, const char *path,
                                  const char *digest, Weir__Pb__FileRef **out, struct weir_error *error);
void weir_client_files_destroy(struct weir_client_files **files);

/* ---- spec.c: requests as messages. They share the texts of what they are made from, and point into themselves ---- */

struct weir_client_loras {
    Weir__Pb__Lora loras[WEIR_JOB_LORAS_MAX], *pointers[WEIR_JOB_LORAS_MAX];
};
struct weir_client_spec {
    Weir__Pb__JobSpec spec;
    uint8_t model_digest[WEIR_SHA256_BYTES];
    struct weir_client_loras loras;
};
struct weir_client_prompt {
    Weir__Pb__Prompt prompt;
    struct weir_client_loras loras;
};
/* Everything but prompt, prompts and a seed that was not given. */
enum weir_status weir_client_spec_of(struct weir_client *client, const struct weir_request *request,
                                     struct weir_client_spec *out, struct weir_error *error);
/* `number` of the prompt, from 1: its line where it names none. */
enum weir_status weir_client_prompt_of(struct weir_client *client, const struct weir_request *request,
                                       const struct weir_prompt *prompt, const char *key, uint32_t number,
                                       struct weir_client_prompt *out, struct weir_error *error);
/* A seed of 32 bits: the same for the same key and number; random without a key. */
uint64_t weir_client_seed(const char *key, uint32_t number);

/* The report and what it points into. */
struct weir_client_report {
    struct weir_report report; /* first: one pointer is both */
    struct weir_message message;
    struct weir_object_report *objects;
    struct weir_task_report *tasks;
    struct weir_prompt_report *prompts;
};

/* Takes the message over, also on failure. */
enum weir_status weir_client_report_create(struct weir_message *message, struct weir_report **out,
                                           struct weir_error *error);
const Weir__Pb__JobView *weir_client_report_view(const struct weir_report *report);

/* Reads one artefact to a file descriptor over a tensor socket, checking its digest.
 * Errors  INPUT_LOST: the socket does not have it; UNAVAILABLE: no answer; PROTOCOL; BAD_FILE: other bytes; IO;
 *         INTERRUPTED by on_idle */
enum weir_status weir_client_fetch_socket(struct weir_client *client, const Weir__Pb__Artefact *artefact, int fd,
                                          const char *path, struct weir_error *error);

#endif
