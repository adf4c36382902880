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
    const char *precision; /* what this worker computes in; another one asked for is UNSUPPORTED */
};
/* One prompt; a list in `wish` is not looked at. What is made, a film or images, is decided as PROTOCOL.md section 7 says.
 * `out` shares the texts of `wish` and of the model, and the adapters of `wish`, in which a weight that was left out becomes
 * 1; every field is set, `image` where it is true. A seed that nobody asked for is random.
 * Errors   BAD_ARGUMENT, TOO_LARGE, UNSUPPORTED: the words name the flag, the value and the limit */
enum weir_status weir_spec_resolve(const Weir__Pb__JobSpec *wish, const struct weir_spec_model *model,
                                   struct weir_encoders *encoders, Weir__Pb__JobSpec *out, struct weir_error *error);

/* The prompts of a resolved spec that has a list. */
struct weir_spec_list {
    Weir__Pb__Prompt *prompts; /* in the order of the wish */
    Weir__Pb__Prompt **order;  /* equal texts together, as spec.prompts has them */
};
/* The same of a wish that may have a list of prompts, each of which is resolved as if it were the only one; what it does
 * not say the job says. A prompt without a seed gets the job's (random where nobody gave one) plus n for each prompt
 * before it, so that no two items are alike. Fields of the job that a prompt has, too, are those of its first prompt.
 * list   deinit it when `out` is no longer needed, also after an error
 * Errors   as above, behind "line 17: " of the prompt; TOO_LARGE for over WEIR_JOB_PROMPTS_MAX items or
 *          WEIR_SPEC_BYTES_MAX; NO_MEMORY */
enum weir_status weir_spec_resolve_all(const Weir__Pb__JobSpec *wish, const struct weir_spec_model *model,
                                       struct weir_encoders *encoders, Weir__Pb__JobSpec *out,
                                       struct weir_spec_list *list, struct weir_error *error);
void weir_spec_list_deinit(struct weir_spec_list *list);
/* Puts "line 17: " before the words of an error about a prompt; returns the error's code. */
enum weir_status weir_spec_blame(const Weir__Pb__Prompt *prompt, enum weir_status status, struct weir_error *error);

/* Whether a resolved spec is that of an image job. */
bool weir_spec_is_image(const Weir__Pb__JobSpec *spec);
/* What determines the bytes of one film or image (PROTOCOL.md section 10), as JSON with sorted keys; free() it. NULL:
 * no memory. spec: of one item */
char *weir_spec_receipt(const Weir__Pb__JobSpec *spec, const char *numerics_class, const char *encoder);

#endif
