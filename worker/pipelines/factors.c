#include "worker/pipelines/internal.h"

#include <stdlib.h>

enum weir_status weir_factors_create(const struct weir_pipeline *pipeline, const struct weir_lora_use *uses,
                                     size_t count, struct weir_factors **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    void *net;
    struct weir_factors *factors = calloc(1, sizeof *factors);
    *out = NULL;
    if (!factors) return weir_fail(error, WEIR_NO_MEMORY, "no memory for %zu adapters", count);
    WEIR_TRY(weir_pipeline_net(pipeline, WEIR_PIPELINE_DENOISE, &net, error));
    const struct weir_params *params = pipeline->family->adapted_params(net);
    WEIR_TRY(weir_lora_shape(uses, count, &factors->shape, error));
    factors->use_count = count;
    factors->bytes = (size_t)weir_adapter_floats(params, &factors->shape) * sizeof(float);
    factors->values = malloc(factors->bytes + 1);
    if (!factors->values) {
        WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "no memory for %zu bytes of adapters", factors->bytes));
    }
    weir_lora_write(params, uses, count, &factors->shape, factors->values);
    *out = factors;
    factors = NULL;
cleanup:
    weir_factors_destroy(&factors);
    return status;
}

void weir_factors_destroy(struct weir_factors **factors_p)
{
    struct weir_factors *factors = *factors_p;
    if (!factors) return;
    weir_lora_shape_free(&factors->shape);
    free(factors->values);
    free(factors);
    *factors_p = NULL;
}
