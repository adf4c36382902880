/* quote: what a job would be and cost, before it is one: the resolved spec, its memory, its predicted milliseconds.
 *
 * The prediction is work times a speed: positions of the latents times steps times guidance copies, and pixels to decode.
 * Speeds are learned from the tasks that this worker ran, a model each; before the first they are a guess. Memory is planned
 * by building the networks, once for the shapes that were asked for last.
 *
 * Threads  a quote belongs to one thread at a time, one thread answers; speeds may be read and taught from any
 */
#ifndef WEIR_WORKER_QUOTE_H
#define WEIR_WORKER_QUOTE_H

#include "proto/wire.h"
#include "worker/mailbox.h"
#include "worker/models.h"
#include "worker/spec.h"
#include "worker/stage.h"

struct weir_speed { /* nanoseconds a unit of work, 0: not known yet */
    atomic_ullong denoise_ns, decode_ns;
};

struct weir_quote {
    struct weir_mail mail;
    struct weir_message message; /* QUOTE; owns the texts of `spec` */
    uint64_t asked_ms;           /* weir_clock_now_ms() when it came */
    enum weir_status status;
    struct weir_error error;
    Weir__Pb__JobSpec spec;
    struct weir_spec_list list; /* owns the prompts of `spec` */
    uint64_t memory_bytes, cost_ms;
};

/* What an item's memory was found to be; no picture, no adapters. */
struct weir_quote_plan {
    const struct weir_model *model; /* NULL: the row is empty */
    struct weir_item item;
    uint64_t bytes;
};
enum { WEIR_QUOTE_PLANS = 16 };

struct weir_quoter {
    const struct weir_models *models;
    struct weir_device *device;
    struct weir_encoders *encoders;
    struct weir_speed speeds[WEIR_MODELS_MAX];
    struct weir_quote_plan plans[WEIR_QUOTE_PLANS]; /* the last ones; of the thread that answers */
    size_t plan_next;
};

#define WEIR_QUOTE_WAIT_MS 10000 /* so long does a broker wait before it asks another */

/* Fills status, error, spec, memory_bytes and cost_ms. Takes as long as planning a network takes for each shape of the
 * job's items that is new; one that waited for longer than its broker does is answered BUSY without that. */
void weir_quoter_answer(struct weir_quoter *quoter, struct weir_quote *quote);
/* Asks for the encoders that are installed, so that the first quote need not. What fails then, fails again when it is
 * needed, and is said there. */
void weir_quoter_prepare(struct weir_quoter *quoter);
/* A task that succeeded. */
void weir_quoter_learn(struct weir_quoter *quoter, const struct weir_task *task);

void weir_quote_destroy(struct weir_quote **quote_p);

#endif
