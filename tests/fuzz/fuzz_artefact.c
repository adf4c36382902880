/* What a worker takes from the store or from a peer: tensors and checkpoints. The first byte chooses; a checkpoint gets a
 * right digest at its end half of the time, so that the digest does not keep the fuzzer out. */
#include "worker/denoiser/checkpoint.h"
#include "worker/link/artefact.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LATENTS = 6 };

static void read_all(const float *values, size_t count)
{
    volatile float sum = 0;
    for (size_t i = 0; i < count; i++) sum = sum + values[i];
}

static void tensor(const uint8_t *bytes, size_t count)
{
    struct weir_artefact_tensor tensor;
    struct weir_error error;
    if (weir_artefact_parse(bytes, count, &tensor, &error) != WEIR_OK) return;
    const uint32_t dims[WEIR_ARTEFACT_RANK_MAX] = { 2, 3 };
    (void)weir_artefact_expect(&tensor, "it", 2, dims, &error);
    if (weir_artefact_expect(&tensor, "it", tensor.rank, tensor.dims, &error) != WEIR_OK) abort();
    read_all(tensor.values, tensor.count);
    void *again;
    size_t again_bytes, again_count;
    float *values;
    if (weir_artefact_create(tensor.rank, tensor.dims, &again, &again_bytes, &values, &again_count, &error) != WEIR_OK)
        abort();
    memcpy(values, tensor.values, again_count * sizeof *values);
    if (again_bytes != count || memcmp(again, bytes, count) != 0) abort(); /* one shape, one way to write it */
    free(again);
}

static void checkpoint(uint8_t *bytes, size_t count, bool seal, bool history)
{
    struct weir_checkpoint_owner owner = { .numerics_class = "ref-f32",
                                           .sampler = "dpm++",
                                           .latent_count = LATENTS,
                                           .history_count = history ? LATENTS : 0,
                                           .step_count = 25 };
    struct weir_checkpoint_state state;
    struct weir_error error;
    memset(owner.spec_digest, 1, sizeof owner.spec_digest);
    memset(owner.model_digest, 2, sizeof owner.model_digest);
    if (seal && count >= WEIR_SHA256_BYTES) {
        weir_sha256_of(bytes, count - WEIR_SHA256_BYTES, bytes + count - WEIR_SHA256_BYTES);
    }
    if (weir_checkpoint_parse(bytes, count, &owner, &state, &error) != WEIR_OK) return;
    if (state.step < 1 || state.step >= 25) abort();
    read_all(state.latents, LATENTS);
    if (history) read_all(state.history, LATENTS);
    void *again;
    size_t again_bytes;
    if (weir_checkpoint_write(&owner, &state, &again, &again_bytes, &error) != WEIR_OK) abort();
    if (again_bytes != count || memcmp(again, bytes, count) != 0) abort();
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    uint8_t *bytes = malloc(size); /* aligned as the worker's own buffers are, and exactly as long */
    memcpy(bytes, data + 1, size - 1);
    if (data[0] & 1)
        tensor(bytes, size - 1);
    else
        checkpoint(bytes, size - 1, data[0] & 2, data[0] & 4);
    free(bytes);
    return 0;
}
