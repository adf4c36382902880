#include "kernels/ref/ref.h"

#include <math.h>

size_t weir_ref_scratch_attention(const struct weir_attention *s)
{
    return (size_t)s->key_length + s->head_dim;
}

/* Token i of sequence q of row r, counted from the tensor's first token. */
static size_t token_of(const struct weir_sequence_layout *l, uint32_t r, uint32_t q, uint32_t i)
{
    return (size_t)r * l->row_tokens + (size_t)(q / l->inner) * l->outer_step + (size_t)(q % l->inner) * l->inner_step +
           (size_t)i * l->token_step;
}

/* Keys that query i of row r may see: the first ones. */
static uint32_t keys_of(const struct weir_attention *s, const int32_t *lengths, uint32_t r, uint32_t i)
{
    uint32_t keys = s->causal ? i + 1 : s->key_length;
    if (s->lengths && (uint32_t)lengths[r] < keys) keys = (uint32_t)lengths[r];
    return keys;
}

/* One query of one head: y = sum_j softmax_j(cap(scale q . k_j)) v_j over the keys that it may see. */
static void attend(const struct weir_attention *s, void *const operands[], uint32_t r, uint32_t sequence, uint32_t i,
                   uint32_t h, double *weights, double *sum)
{
    const uint32_t keys = keys_of(s, operands[WEIR_ATTENTION_LENGTHS], r, i);
    const size_t channel = (size_t)h * s->head_dim;
    const size_t kv_channel = (size_t)(h / (s->heads / s->kv_heads)) * s->head_dim;
    const size_t query = token_of(&s->query, r, sequence, i);
    const float *q = (const float *)operands[WEIR_ATTENTION_Q] + query * s->q_stride + s->q_channel + channel;
    float *y = (float *)operands[WEIR_ATTENTION_Y] + query * s->y_stride + channel;

    double largest = -INFINITY, total = 0;
    for (uint32_t j = 0; j < keys; j++) {
        const float *k = (const float *)operands[WEIR_ATTENTION_K] + token_of(&s->key, r, sequence, j) * s->k_stride +
                         s->k_channel + kv_channel;
        double product = 0;
        for (uint32_t d = 0; d < s->head_dim; d++) product += (double)q[d] * (double)k[d];
        weights[j] = (double)s->scale * product;
        if (s->softcap != 0) weights[j] = (double)s->softcap * tanh(weights[j] / (double)s->softcap);
        largest = fmax(largest, weights[j]);
    }
    for (uint32_t j = 0; j < keys; j++) total += weights[j] = exp(weights[j] - largest);
    for (uint32_t d = 0; d < s->head_dim; d++) sum[d] = 0;
    for (uint32_t j = 0; j < keys; j++) {
        const float *v = (const float *)operands[WEIR_ATTENTION_V] + token_of(&s->key, r, sequence, j) * s->v_stride +
                         s->v_channel + kv_channel;
        for (uint32_t d = 0; d < s->head_dim; d++) sum[d] += weights[j] * (double)v[d];
    }
    for (uint32_t d = 0; d < s->head_dim; d++) y[d] = (float)(sum[d] / total);
}

void weir_ref_attention(const struct weir_attention *s, const struct weir_ref_packed *layer, void *const operands[],
                        double *scratch)
{
    (void)layer;
    for (uint32_t r = 0; r < s->rows; r++) {
        for (uint32_t sequence = 0; sequence < s->sequences; sequence++) {
            for (uint32_t i = 0; i < s->query_length; i++) {
                for (uint32_t h = 0; h < s->heads; h++) {
                    attend(s, operands, r, sequence, i, h, scratch, scratch + s->key_length);
                }
            }
        }
    }
}
