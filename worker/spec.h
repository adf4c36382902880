/* spec: a job's spec as the wire has it <-> what a pipeline computes; and the receipt inside a film.
 *
 * Threads  all functions are pure
 */
#ifndef WEIR_WORKER_SPEC_H
#define WEIR_WORKER_SPEC_H

#include "proto/job.h"
#include "worker/encoders.h"
#include "worker/pipelines/item.h"

/* What the resolved spec of one item (weir_spec_of_item) computes: sizes, steps, guidance, seed.
 * Errors   BAD_ARGUMENT naming what is missing or no known word */
enum weir_status weir_spec_item(const Weir__Pb__JobSpec *spec, struct weir_item *out, struct weir_error *error);

/* Who resolves: the model that was asked for and what can be made of its frames here. */
struct weir_spec_model {
    const char *name;
    const uint8_t *digest; /* WEIR_SHA256_BYTES */
    const char *pipeline;  /* class name */
    const struct weir_model_facts *facts;
};
/* What is made, a film or images, is decided as PROTOCOL.md section 7 says.
 * `out` shares the texts of `wish` and of the model, and the adapters of `wish`, in which a weight that was left out becomes
 * 1; every field is set, `image` where it is true. A seed that nobody asked for is random.
 * Errors   BAD_ARGUMENT, TOO_LARGE, UNSUPPORTED: the words name the flag, the value and the limit */
enum weir_status weir_spec_resolve(const Weir__Pb__JobSpec *wish, const struct weir_spec_model *model,
                                   struct weir_encoders *encoders, Weir__Pb__JobSpec *out, struct weir_error *error);

/* Whether a resolved spec is that of an image job. */
bool weir_spec_is_image(const Weir__Pb__JobSpec *spec);
/* What determines the bytes of one film or image (PROTOCOL.md section 10), as JSON with sorted keys; free() it. NULL:
 * no memory. spec: of one item */
char *weir_spec_receipt(const Weir__Pb__JobSpec *spec, const char *numerics_class, const char *encoder);

#endif
