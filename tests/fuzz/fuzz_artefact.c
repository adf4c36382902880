/* What a worker takes from the store or from a peer: tensors, embeddings among them, and checkpoints. The first byte chooses; a checkpoint gets a
 * right digest at its end half of the time, so that the digest does not keep the fuzzer out. */
#include "worker/denoiser/checkpoint.h"
#include "worker/link/artefact.h"
#include "worker/text_encoder/embedding.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LATENTS = 6, TOKENS = 3, ROWS = TOKENS + 1, CHANNELS = 2 };

static void read_all(const float *values, size_t count)
{
    volatile float sum = 0;
    for (size_t i = 0; i < count; i++) sum = sum + values[i];
}

/* What is an embedding is one again when it was packed with as few rows as hold it. */
static void embedding(const struct weir_artefact_tensor *tensor, uint32_t copies, uint32_t tokens)
{
    const struct weir_model_facts facts = { .text_tokens = tokens, .text_rows = ROWS, .text_channels = CHANNELS };
    float full[2 * ROWS * CHANNELS], packed[2 * ROWS * CHANNELS], again[2 * ROWS * CHANNELS];
    struct weir_error error;
    if (weir_embedding_unpack(&facts, copies, tensor, full, &error) != WEIR_OK) return;
    read_all(full, (size_t)copies * ROWS * CHANNELS);
    const uint32_t rows = weir_embedding_rows(&facts, copies, full);
    if (rows > ROWS) abort();
    weir_embedding_pack(&facts, copies, rows, full, packed);
    const struct weir_artefact_tensor less = {
        3, { copies, rows, CHANNELS }, packed, (size_t)copies * rows * CHANNELS
    };
    if (weir_embedding_unpack(&facts, copies, &less, again, &error) != WEIR_OK) abort();
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
    for (uint32_t copies = 1; copies <= 2; copies++) {
        embedding(&tensor, copies, TOKENS);
        embedding(&tensor, copies, ROWS); /* a family that counts nothing */
    }
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
