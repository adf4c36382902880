/* cases: every op over a table of shapes (smallest, odd, real), ready to run on any device.
 *
 * A case is an op's shape and its layer's parameters; case_begin fills all operands with seeded numbers. Rows come last
 * to first from one generator a row, so that a row holds the same numbers whatever stands beside it.
 */
#ifndef WEIR_TESTS_KERNELS_CASES_H
#define WEIR_TESTS_KERNELS_CASES_H

#include "tests/kernels/harness.h"

#include "kernels/check.h"

struct kernel_case {
    const char *label;
    enum weir_op op;
    union {
#define X(op, OP) struct weir_##op op;
        WEIR_OP_TABLE(X)
#undef X
    } shape;
    bool no_bias;
    bool geglu;            /* the layer is packed for one, whatever the shape says */
    enum weir_dtype reads; /* of the layer's products */
};

#define LINEAR(L, IN, OUT, ...)                                                                                        \
    {                                                                                                                  \
        .label = "linear " #L " x " #IN " -> " #OUT " " #__VA_ARGS__, .op = WEIR_OP_LINEAR, .shape.linear = {          \
            .rows = 2,                                                                                                 \
            .tokens = L,                                                                                               \
            .in = IN,                                                                                                  \
            .out = OUT,                                                                                                \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }
#define LOW_RANK(L, IN, RANK, OUT, CHANNELS, FIRST, ...)                                                               \
    {                                                                                                                  \
        .label = "low_rank " #L " x " #IN " -> " #RANK " -> " #OUT " of " #CHANNELS " " #__VA_ARGS__,                  \
        .op = WEIR_OP_LOW_RANK, .shape.low_rank = {                                                                    \
            .rows = 2,                                                                                                 \
            .tokens = L,                                                                                               \
            .in = IN,                                                                                                  \
            .rank = RANK,                                                                                              \
            .out = OUT,                                                                                                \
            .y_channels = CHANNELS,                                                                                    \
            .channel = FIRST,                                                                                          \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }
#define CONV2D(T, H, W, IN, OUT, K, S, P, E, ...)                                                                      \
    {                                                                                                                  \
        .label = "conv2d " #T " of " #H "x" #W " " #IN " -> " #OUT " kernel " #K " stride " #S " " #__VA_ARGS__,       \
        .op = WEIR_OP_CONV2D, .shape.conv2d = {                                                                        \
            .rows = 2,                                                                                                 \
            .frames = T,                                                                                               \
            .height = H,                                                                                               \
            .width = W,                                                                                                \
            .in = IN,                                                                                                  \
            .out = OUT,                                                                                                \
            .kernel = K,                                                                                               \
            .stride = S,                                                                                               \
            .pad = P,                                                                                                  \
            .pad_end = E,                                                                                              \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }
#define CONV_TEMPORAL(T, P, IN, OUT, ...)                                                                              \
    {                                                                                                                  \
        .label = "conv_temporal " #T " x " #P " " #IN " -> " #OUT " " #__VA_ARGS__, .op = WEIR_OP_CONV_TEMPORAL,       \
        .shape.conv_temporal = {                                                                                       \
            .rows = 2,                                                                                                 \
            .frames = T,                                                                                               \
            .pixels = P,                                                                                               \
            .in = IN,                                                                                                  \
            .out = OUT,                                                                                                \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }
#define GROUP_NORM(B, P, C, G, ...)                                                                                    \
    {                                                                                                                  \
        .label = "group_norm " #B " x " #P " x " #C " in " #G " " #__VA_ARGS__, .op = WEIR_OP_GROUP_NORM,              \
        .shape.group_norm = {                                                                                          \
            .rows = 2,                                                                                                 \
            .batch = B,                                                                                                \
            .pixels = P,                                                                                               \
            .channels = C,                                                                                             \
            .groups = G,                                                                                               \
            .eps = 1e-5f,                                                                                              \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }
#define LAYER_NORM(L, C)                                                                                               \
    {                                                                                                                  \
        .label = "layer_norm " #L " x " #C, .op = WEIR_OP_LAYER_NORM, .shape.layer_norm = {                            \
            .rows = 2,                                                                                                 \
            .tokens = L,                                                                                               \
            .channels = C,                                                                                             \
            .eps = 1e-5f                                                                                               \
        }                                                                                                              \
    }
#define SPATIAL(T, Q, K, H, D, ...)                                                                                    \
    {                                                                                                                  \
        .label = "attention spatial " #T " of " #Q " x " #K ", " #H " heads of " #D " " #__VA_ARGS__,                  \
        .op = WEIR_OP_ATTENTION, .shape.attention = {                                                                  \
            .rows = 2,                                                                                                 \
            .sequences = T,                                                                                            \
            .query_length = Q,                                                                                         \
            .key_length = K,                                                                                           \
            .heads = H,                                                                                                \
            .head_dim = D,                                                                                             \
            .kv_heads = H,                                                                                             \
            .query = { (T) * (Q), 1, Q, 0, 1 },                                                                        \
            .key = { (T) * (K), 1, K, 0, 1 },                                                                          \
            .q_stride = 3 * (H) * (D),                                                                                 \
            .k_stride = 3 * (H) * (D),                                                                                 \
            .v_stride = 3 * (H) * (D),                                                                                 \
            .k_channel = (H) * (D),                                                                                    \
            .v_channel = 2 * (H) * (D),                                                                                \
            .y_stride = (H) * (D),                                                                                     \
            .scale = 0.25f,                                                                                            \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }
#define TEMPORAL(T, P, H, D)                                                                                           \
    {                                                                                                                  \
        .label = "attention temporal " #T " x " #P ", " #H " heads of " #D, .op = WEIR_OP_ATTENTION,                   \
        .shape.attention = {                                                                                           \
            .rows = 2,                                                                                                 \
            .sequences = P,                                                                                            \
            .query_length = T,                                                                                         \
            .key_length = T,                                                                                           \
            .heads = H,                                                                                                \
            .head_dim = D,                                                                                             \
            .kv_heads = H,                                                                                             \
            .query = { (T) * (P), P, 0, 1, P },                                                                        \
            .key = { (T) * (P), P, 0, 1, P },                                                                          \
            .q_stride = (H) * (D),                                                                                     \
            .k_stride = (H) * (D),                                                                                     \
            .v_stride = (H) * (D),                                                                                     \
            .y_stride = (H) * (D),                                                                                     \
            .scale = 0.25f                                                                                             \
        }                                                                                                              \
    }
#define CROSS(T, Q, K, H, D, ...)                                                                                      \
    {                                                                                                                  \
        .label = "attention cross " #T " of " #Q " x " #K ", " #H " heads of " #D " " #__VA_ARGS__,                    \
        .op = WEIR_OP_ATTENTION, .shape.attention = {                                                                  \
            .rows = 2,                                                                                                 \
            .sequences = T,                                                                                            \
            .query_length = Q,                                                                                         \
            .key_length = K,                                                                                           \
            .heads = H,                                                                                                \
            .head_dim = D,                                                                                             \
            .kv_heads = H,                                                                                             \
            .query = { (T) * (Q), 1, Q, 0, 1 },                                                                        \
            .key = { K, 1, 0, 0, 1 },                                                                                  \
            .q_stride = (H) * (D),                                                                                     \
            .k_stride = (H) * (D),                                                                                     \
            .v_stride = (H) * (D),                                                                                     \
            .y_stride = (H) * (D),                                                                                     \
            .scale = 0.25f,                                                                                            \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }
#define CAUSAL(L, H, D, ...)                                                                                           \
    {                                                                                                                  \
        .label = "attention causal " #L ", " #H " heads of " #D " " #__VA_ARGS__, .op = WEIR_OP_ATTENTION,             \
        .shape.attention = {                                                                                           \
            .rows = 2,                                                                                                 \
            .sequences = 1,                                                                                            \
            .query_length = L,                                                                                         \
            .key_length = L,                                                                                           \
            .heads = H,                                                                                                \
            .head_dim = D,                                                                                             \
            .kv_heads = H,                                                                                             \
            .query = { L, 1, 0, 0, 1 },                                                                                \
            .key = { L, 1, 0, 0, 1 },                                                                                  \
            .q_stride = (H) * (D),                                                                                     \
            .k_stride = (H) * (D),                                                                                     \
            .v_stride = (H) * (D),                                                                                     \
            .y_stride = (H) * (D),                                                                                     \
            .scale = 0.25f,                                                                                            \
            .causal = true,                                                                                            \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }
#define SHARED(L, H, KV, D, ...)                                                                                       \
    {                                                                                                                  \
        .label = "attention causal " #L ", " #H " heads of " #D " on " #KV " " #__VA_ARGS__, .op = WEIR_OP_ATTENTION,  \
        .shape.attention = {                                                                                           \
            .rows = 2,                                                                                                 \
            .sequences = 1,                                                                                            \
            .query_length = L,                                                                                         \
            .key_length = L,                                                                                           \
            .heads = H,                                                                                                \
            .head_dim = D,                                                                                             \
            .kv_heads = KV,                                                                                            \
            .query = { L, 1, 0, 0, 1 },                                                                                \
            .key = { L, 1, 0, 0, 1 },                                                                                  \
            .q_stride = ((H) + 2 * (KV)) * (D),                                                                        \
            .k_stride = ((H) + 2 * (KV)) * (D),                                                                        \
            .v_stride = ((H) + 2 * (KV)) * (D),                                                                        \
            .k_channel = (H) * (D),                                                                                    \
            .v_channel = ((H) + (KV)) * (D),                                                                           \
            .y_stride = (H) * (D),                                                                                     \
            .scale = 0.25f,                                                                                            \
            .causal = true,                                                                                            \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }
#define GROUPED_LINEAR(L, IN, OUT, G)                                                                                  \
    {                                                                                                                  \
        .label = "grouped_linear " #L " x " #IN " -> " #OUT " in " #G, .op = WEIR_OP_GROUPED_LINEAR, .no_bias = true,  \
        .shape.grouped_linear = {                                                                                      \
            .rows = 2,                                                                                                 \
            .tokens = L,                                                                                               \
            .in = IN,                                                                                                  \
            .out = OUT,                                                                                                \
            .groups = G                                                                                                \
        }                                                                                                              \
    }
#define DEPTHWISE_CONV(T, H, W, C, K, ...)                                                                             \
    {                                                                                                                  \
        .label = "depthwise_conv " #T " of " #H "x" #W " " #C " kernel " #K " " #__VA_ARGS__,                          \
        .op = WEIR_OP_DEPTHWISE_CONV, .shape.depthwise_conv = {                                                        \
            .rows = 2,                                                                                                 \
            .frames = T,                                                                                               \
            .height = H,                                                                                               \
            .width = W,                                                                                                \
            .channels = C,                                                                                             \
            .kernel = K,                                                                                               \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }
#define RMS_NORM(L, C, ...)                                                                                            \
    {                                                                                                                  \
        .label = "rms_norm " #L " x " #C " " #__VA_ARGS__, .op = WEIR_OP_RMS_NORM, .shape.rms_norm = {                 \
            .rows = 2,                                                                                                 \
            .tokens = L,                                                                                               \
            .channels = C,                                                                                             \
            .eps = 1e-5f,                                                                                              \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }
#define MODULATED_NORM(L, C, N, SHIFT, SCALE)                                                                          \
    {                                                                                                                  \
        .label = "modulated_norm " #L " x " #C ", " #SHIFT " and " #SCALE " of " #N, .op = WEIR_OP_MODULATED_NORM,     \
        .shape.modulated_norm = {                                                                                      \
            .rows = 2,                                                                                                 \
            .tokens = L,                                                                                               \
            .channels = C,                                                                                             \
            .vectors = N,                                                                                              \
            .shift = SHIFT,                                                                                            \
            .scale = SCALE,                                                                                            \
            .eps = 1e-6f                                                                                               \
        }                                                                                                              \
    }
#define TABLE_ADD(N, C, ...)                                                                                           \
    {                                                                                                                  \
        .label = "table_add " #N " x " #C " " #__VA_ARGS__, .op = WEIR_OP_TABLE_ADD, .no_bias = true,                  \
        .shape.table_add = {                                                                                           \
            .rows = 2,                                                                                                 \
            .vectors = N,                                                                                              \
            .channels = C,                                                                                             \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }
#define LINEAR_ATTENTION(T, P, H, D, STRIDE, STEP, Q, K, V)                                                            \
    {                                                                                                                  \
        .label = "linear_attention " #T " x " #P ", " #H " heads of " #D ", one every " #STEP,                         \
        .op = WEIR_OP_LINEAR_ATTENTION, .shape.linear_attention = {                                                    \
            .rows = 2,                                                                                                 \
            .frames = T,                                                                                               \
            .pixels = P,                                                                                               \
            .stride = STRIDE,                                                                                          \
            .heads = H,                                                                                                \
            .head_dim = D,                                                                                             \
            .head_step = STEP,                                                                                         \
            .q_channel = Q,                                                                                            \
            .k_channel = K,                                                                                            \
            .v_channel = V,                                                                                            \
            .eps = 1e-15f                                                                                              \
        }                                                                                                              \
    }
#define ROPE(L, C, H, D)                                                                                               \
    {                                                                                                                  \
        .label = "rope " #L " x " #C ", " #H " heads of " #D, .op = WEIR_OP_ROPE, .shape.rope = {                      \
            .rows = 2,                                                                                                 \
            .tokens = L,                                                                                               \
            .channels = C,                                                                                             \
            .heads = H,                                                                                                \
            .head_dim = D,                                                                                             \
            .theta = 10000                                                                                             \
        }                                                                                                              \
    }
#define REGROUP(L, IN, OUT)                                                                                            \
    {                                                                                                                  \
        .label = "regroup " #L " x " #IN " -> " #OUT, .op = WEIR_OP_REGROUP, .shape.regroup = {                        \
            .rows = 2,                                                                                                 \
            .tokens = L,                                                                                               \
            .in = IN,                                                                                                  \
            .out = OUT                                                                                                 \
        }                                                                                                              \
    }
#define PIXEL_SHUFFLE(T, H, W, IN, OUT, ...)                                                                           \
    {                                                                                                                  \
        .label = "pixel_shuffle " #T " of " #H "x" #W " " #IN " -> " #OUT " " #__VA_ARGS__,                            \
        .op = WEIR_OP_PIXEL_SHUFFLE, .shape.pixel_shuffle = {                                                          \
            .rows = 2,                                                                                                 \
            .frames = T,                                                                                               \
            .height = H,                                                                                               \
            .width = W,                                                                                                \
            .in = IN,                                                                                                  \
            .out = OUT,                                                                                                \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }
#define PIXEL_UNSHUFFLE(T, H, W, IN, OUT, ...)                                                                         \
    {                                                                                                                  \
        .label = "pixel_unshuffle " #T " of " #H "x" #W " " #IN " -> " #OUT " " #__VA_ARGS__,                          \
        .op = WEIR_OP_PIXEL_UNSHUFFLE, .shape.pixel_unshuffle = {                                                      \
            .rows = 2,                                                                                                 \
            .frames = T,                                                                                               \
            .height = H,                                                                                               \
            .width = W,                                                                                                \
            .in = IN,                                                                                                  \
            .out = OUT,                                                                                                \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }
#define ACTIVATE(L, C, ACT)                                                                                            \
    {                                                                                                                  \
        .label = "activate " #L " x " #C " " #ACT, .op = WEIR_OP_ACTIVATE, .shape.activate = {                         \
            .rows = 2,                                                                                                 \
            .tokens = L,                                                                                               \
            .channels = C,                                                                                             \
            .activation = ACT                                                                                          \
        }                                                                                                              \
    }

/* Every norm of tokens of so many channels. */
#define NORMS(C)                                                                                                       \
    LAYER_NORM(5, C), RMS_NORM(5, C), RMS_NORM(5, C, .activation = WEIR_ACT_RELU),                                     \
        RMS_NORM(5, C, .activation = WEIR_ACT_SILU, .residual = true), MODULATED_NORM(5, C, 3, 0, 2)

static const struct kernel_case kernel_cases[] = {
    LINEAR(1, 1, 1),
    LINEAR(1, 320, 1280, .activation = WEIR_ACT_SILU),
    LINEAR(7, 5, 3, .residual = true),
    LINEAR(77, 33, 65, .activation = WEIR_ACT_QUICK_GELU, .residual = true),
    LINEAR(77, 128, 512, .activation = WEIR_ACT_GELU),
    LINEAR(4096, 48, 48, .residual = true),
    LINEAR(4096, 48, 384, .activation = WEIR_ACT_GEGLU),
    LINEAR(1025, 96, 768, .activation = WEIR_ACT_GEGLU, .residual = true),
    LINEAR(3, 10, 14, .activation = WEIR_ACT_GEGLU),
    LINEAR(256, 144, 432),
    LINEAR(300, 576, 144, .activation = WEIR_ACT_GELU_TANH),
    LINEAR(1000, 320, 320, .residual = true),
    LINEAR(33, 5120, 640),

    { .label = "linear 77 x 33 -> 130, packed for a GEGLU",
      .op = WEIR_OP_LINEAR,
      .geglu = true,
      .shape.linear = { .rows = 2, .tokens = 77, .in = 33, .out = 130 } },
    { .label = "linear 256 x 96 -> 768, packed for a GEGLU",
      .op = WEIR_OP_LINEAR,
      .geglu = true,
      .shape.linear = { .rows = 2, .tokens = 256, .in = 96, .out = 768 } },

    LOW_RANK(1, 1, 1, 1, 1, 0),
    LOW_RANK(7, 5, 3, 3, 9, 4),
    LOW_RANK(77, 33, 4, 65, 65, 0, .gate_vectors = 1),
    LOW_RANK(300, 48, 16, 48, 144, 48),
    LOW_RANK(1025, 96, 32, 96, 100, 3, .gate_vectors = 6, .gate_vector = 5),
    LOW_RANK(3, 2240, 128, 2240, 2240, 0),

    CONV2D(1, 1, 1, 1, 1, 1, 1, 0, 0),
    CONV2D(1, 1, 1, 3, 2, 3, 1, 1, 1),
    CONV2D(2, 5, 3, 4, 7, 3, 1, 1, 1, .row_bias = true, .residual = true),
    CONV2D(3, 7, 9, 17, 33, 3, 2, 1, 1),
    CONV2D(1, 8, 6, 5, 4, 3, 2, 0, 1),
    CONV2D(2, 5, 5, 4, 4, 5, 1, 2, 2, .residual = true),
    CONV2D(2, 3, 5, 6, 8, 3, 1, 1, 1, .resize_height = 7, .resize_width = 10),
    CONV2D(16, 16, 16, 48, 48, 3, 1, 1, 1, .row_bias = true),
    CONV2D(16, 16, 16, 48, 48, 3, 2, 1, 1),
    CONV2D(16, 8, 8, 192, 96, 3, 1, 1, 1, .residual = true),
    CONV2D(16, 4, 4, 144, 144, 3, 1, 1, 1, .residual = true),
    CONV2D(16, 4, 4, 144, 144, 3, 1, 1, 1, .resize_height = 8, .resize_width = 8),
    CONV2D(4, 16, 16, 4, 48, 3, 1, 1, 1),
    CONV2D(4, 16, 16, 48, 4, 3, 1, 1, 1),
    CONV2D(2, 16, 16, 96, 48, 1, 1, 0, 0),
    CONV2D(1, 56, 56, 32, 32, 3, 1, 1, 1, .resize_height = 112, .resize_width = 112),
    CONV2D(1, 32, 32, 128, 128, 3, 1, 1, 1, .residual = true),
    CONV2D(1, 40, 24, 320, 64, 3, 1, 1, 1),
    CONV2D(1, 4, 4, 1280, 320, 3, 1, 1, 1),
    CONV2D(2, 96, 96, 128, 3, 3, 1, 1, 1),
    CONV2D(1, 96, 96, 160, 5, 3, 1, 1, 1, .row_bias = true, .residual = true),
    CONV2D(2, 16, 24, 64, 160, 3, 1, 1, 1, .row_bias = true, .residual = true),
    CONV2D(3, 10, 18, 72, 136, 3, 1, 1, 1, .residual = true),
    CONV2D(2, 5, 9, 64, 48, 3, 1, 1, 1, .residual = true, .resize_height = 10, .resize_width = 18),
    CONV2D(1, 24, 16, 128, 128, 3, 1, 1, 1, .resize_height = 48, .resize_width = 32),
    CONV2D(2, 8, 16, 40, 320, 3, 1, 1, 1, .row_bias = true, .resize_height = 16, .resize_width = 32),
    CONV2D(2, 9, 11, 32, 40, 3, 1, 1, 1, .resize_height = 17, .resize_width = 22),
    CONV2D(2, 20, 12, 64, 64, 3, 2, 1, 1),
    CONV2D(1, 17, 24, 96, 72, 3, 2, 0, 1, .residual = true),
    CONV2D(2, 14, 10, 24, 16, 5, 1, 2, 2, .residual = true),
    CONV2D(2, 24, 8, 200, 640, 1, 1, 0, 0, .residual = true),
    CONV2D(1, 48, 40, 128, 128, 3, 1, 1, 1, .silu = true),
    CONV2D(2, 7, 9, 5, 6, 3, 1, 1, 1, .silu = true, .row_bias = true),
    CONV2D(1, 40, 24, 36, 36, 3, 2, 1, 1, .silu = true),
    CONV2D(1, 40, 24, 64, 3, 3, 1, 1, 1, .silu = true),

    { .label = "conv2d without bias",
      .op = WEIR_OP_CONV2D,
      .no_bias = true,
      .shape.conv2d = { .rows = 2,
                        .frames = 2,
                        .height = 6,
                        .width = 5,
                        .in = 18,
                        .out = 34,
                        .kernel = 3,
                        .stride = 1,
                        .pad = 1,
                        .pad_end = 1 } },

    CONV_TEMPORAL(1, 1, 1, 1),
    CONV_TEMPORAL(2, 3, 5, 7, .residual = true),
    CONV_TEMPORAL(5, 33, 18, 18),
    CONV_TEMPORAL(16, 256, 48, 48, .residual = true),
    CONV_TEMPORAL(16, 64, 96, 96),
    CONV_TEMPORAL(16, 16, 144, 144, .residual = true),
    CONV_TEMPORAL(13, 100, 320, 64),
    CONV_TEMPORAL(3, 16, 1280, 160),
    CONV_TEMPORAL(24, 45, 64, 160, .residual = true),
    CONV_TEMPORAL(16, 64, 320, 320, .residual = true),
    CONV_TEMPORAL(3, 16400, 4, 6, .residual = true), /* wide rows: folded */
    CONV_TEMPORAL(2, 8209, 3, 2),                    /* a prime: not */

    GROUP_NORM(1, 1, 1, 1),
    GROUP_NORM(2, 3, 6, 3, .silu = true),
    GROUP_NORM(1, 7, 33, 11, .silu = true),
    GROUP_NORM(16, 256, 48, 16, .silu = true),
    GROUP_NORM(1, 4096, 48, 16, .silu = true),
    GROUP_NORM(1, 4099, 144, 16),
    GROUP_NORM(16, 16, 144, 16),
    GROUP_NORM(1, 6000, 320, 32, .silu = true),
    GROUP_NORM(2, 900, 2560, 32, .silu = true),
    GROUP_NORM(3, 501, 40, 5),

    LAYER_NORM(1, 1),
    LAYER_NORM(5, 7),
    LAYER_NORM(77, 128),
    LAYER_NORM(4096, 48),
    LAYER_NORM(1000, 320),
    LAYER_NORM(101, 1280),

    SPATIAL(1, 1, 1, 1, 1),
    SPATIAL(2, 3, 5, 2, 3),
    SPATIAL(16, 256, 256, 3, 16),
    SPATIAL(3, 16, 16, 9, 16),
    SPATIAL(1, 1024, 1024, 1, 64),
    SPATIAL(1, 300, 300, 1, 128),
    SPATIAL(1, 700, 65, 1, 40),
    SPATIAL(2, 130, 65, 2, 112),
    SPATIAL(1, 150, 150, 1, 512),
    SPATIAL(1, 70, 100, 2, 256),
    SPATIAL(5, 20, 30, 2, 128),
    SPATIAL(1, 1050, 300, 2, 48),
    TEMPORAL(24, 40, 2, 64),
    TEMPORAL(2, 3, 1, 2),
    TEMPORAL(16, 256, 3, 16),
    TEMPORAL(16, 16, 9, 16),
    TEMPORAL(5, 77, 2, 20),
    CROSS(16, 256, 77, 3, 16),
    CROSS(1, 4096, 20, 3, 16),
    CROSS(2, 9, 11, 1, 7),
    CAUSAL(1, 1, 1),
    CAUSAL(77, 4, 32),
    CAUSAL(19, 3, 5),

    ACTIVATE(77, 33, WEIR_ACT_GEGLU),
    ACTIVATE(1025, 48, WEIR_ACT_GEGLU_TANH),
    ACTIVATE(1000, 100, WEIR_ACT_RELU),
    LINEAR(77, 33, 65, .activation = WEIR_ACT_RELU, .residual = true),

    { .label = "embed 77 of 300 x 48 with positions",
      .op = WEIR_OP_EMBED,
      .shape.embed = { .rows = 2, .tokens = 77, .channels = 48, .vocabulary = 300, .positions = 77 } },
    { .label = "embed 1 of 1 x 1",
      .op = WEIR_OP_EMBED,
      .no_bias = true,
      .shape.embed = { .rows = 2, .tokens = 1, .channels = 1, .vocabulary = 1 } },
    { .label = "timestep_embedding 320",
      .op = WEIR_OP_TIMESTEP_EMBEDDING,
      .shape.timestep_embedding = { .rows = 2, .dim = 320, .flip_sin_to_cos = true } },
    { .label = "timestep_embedding 6 shifted",
      .op = WEIR_OP_TIMESTEP_EMBEDDING,
      .shape.timestep_embedding = { .rows = 2, .dim = 6, .downscale_freq_shift = 1 } },
    ACTIVATE(1, 1, WEIR_ACT_SILU),
    ACTIVATE(100, 33, WEIR_ACT_SILU),
    ACTIVATE(100, 64, WEIR_ACT_SILU),
    ACTIVATE(1000, 100, WEIR_ACT_GELU),
    ACTIVATE(1000, 100, WEIR_ACT_GELU_TANH),
    ACTIVATE(1000, 100, WEIR_ACT_QUICK_GELU),
    ACTIVATE(10, 3, WEIR_ACT_NONE),
    { .label = "concat 4096 of 96 and 48",
      .op = WEIR_OP_CONCAT,
      .shape.concat = { .rows = 2, .tokens = 4096, .a_channels = 96, .b_channels = 48 } },
    { .label = "concat 3 of 1 and 2",
      .op = WEIR_OP_CONCAT,
      .shape.concat = { .rows = 2, .tokens = 3, .a_channels = 1, .b_channels = 2 } },
    { .label = "latents_pack",
      .op = WEIR_OP_LATENTS_PACK,
      .shape.latents_pack = { .items = 2, .copies = 2, .frames = 16, .pixels = 256, .channels = 4, .factor = 5.5f } },
    { .label = "latents_pack scaled by the sampler",
      .op = WEIR_OP_LATENTS_PACK,
      .shape.latents_pack = { .items = 2,
                              .copies = 2,
                              .frames = 3,
                              .pixels = 5,
                              .channels = 4,
                              .factor = 1,
                              .scaled = true } },
    { .label = "guidance",
      .op = WEIR_OP_GUIDANCE,
      .shape.guidance = { .items = 2, .copies = 2, .frames = 16, .pixels = 256, .channels = 4 } },
    { .label = "guidance of one copy",
      .op = WEIR_OP_GUIDANCE,
      .shape.guidance = { .items = 2, .copies = 1, .frames = 3, .pixels = 5, .channels = 2 } },
    { .label = "sampler_step", .op = WEIR_OP_SAMPLER_STEP, .shape.sampler_step = { .items = 2, .n = 1000 } },
    { .label = "to_rgb8 truncated",
      .op = WEIR_OP_TO_RGB8,
      .shape.to_rgb8 = { .rows = 2, .tokens = 20000, .channels = 3 } },
    { .label = "to_rgb8 rounded, of 4 channels",
      .op = WEIR_OP_TO_RGB8,
      .shape.to_rgb8 = { .rows = 2, .tokens = 5, .channels = 4, .round = true } },

    LINEAR(7, 5, 3, .gate_vectors = 1),
    LINEAR(33, 65, 30, .gate_vectors = 6, .gate_vector = 5, .residual = true),
    LINEAR(77, 128, 96, .activation = WEIR_ACT_SILU, .gate_vectors = 3, .gate_vector = 1, .residual = true),
    LINEAR(1024, 96, 192, .activation = WEIR_ACT_GEGLU, .gate_vectors = 2, .gate_vector = 1),
    LINEAR(3, 10, 14, .activation = WEIR_ACT_GEGLU_TANH),
    LINEAR(300, 72, 576, .activation = WEIR_ACT_GEGLU_TANH, .residual = true),

    GROUPED_LINEAR(1, 1, 1, 1),
    GROUPED_LINEAR(5, 6, 9, 3),
    GROUPED_LINEAR(7, 33, 33, 33),
    GROUPED_LINEAR(256, 384, 384, 12),

    DEPTHWISE_CONV(1, 1, 1, 1, 1),
    DEPTHWISE_CONV(2, 3, 5, 6, 3),
    DEPTHWISE_CONV(1, 4, 7, 33, 5),
    DEPTHWISE_CONV(1, 2, 2, 34, 5, .glu = true),
    DEPTHWISE_CONV(3, 5, 3, 14, 3, .glu = true),
    DEPTHWISE_CONV(1, 32, 32, 384, 5),
    DEPTHWISE_CONV(1, 16, 16, 1120, 3, .glu = true),
    DEPTHWISE_CONV(2, 64, 9, 24, 3),
    DEPTHWISE_CONV(1, 5, 1500, 50, 3, .glu = true),
    DEPTHWISE_CONV(1, 8, 17, 20, 7),
    { .label = "depthwise_conv without bias",
      .op = WEIR_OP_DEPTHWISE_CONV,
      .no_bias = true,
      .shape.depthwise_conv = { .rows = 2, .frames = 1, .height = 9, .width = 5, .channels = 17, .kernel = 5 } },

    RMS_NORM(1, 1),
    RMS_NORM(5, 7, .activation = WEIR_ACT_RELU),
    RMS_NORM(300, 288, .activation = WEIR_ACT_SILU, .residual = true),
    RMS_NORM(77, 33, .residual = true),
    RMS_NORM(50, 2304, .residual = true),
    RMS_NORM(999, 128, .activation = WEIR_ACT_SILU),
    RMS_NORM(33, 2560),
    { .label = "rms_norm 300 x 230 without beta",
      .op = WEIR_OP_RMS_NORM,
      .no_bias = true,
      .shape.rms_norm = { .rows = 2, .tokens = 300, .channels = 230, .eps = 1e-6f } },

    MODULATED_NORM(1, 1, 1, 0, 0),
    MODULATED_NORM(5, 7, 6, 3, 4),
    MODULATED_NORM(1024, 224, 2, 0, 1),
    MODULATED_NORM(30, 2240, 6, 3, 4),

    TABLE_ADD(1, 1),
    TABLE_ADD(6, 7),
    TABLE_ADD(2, 33, .one = true),
    TABLE_ADD(1024, 224),

    SPATIAL(2, 3, 5, 2, 3, .lengths = true),
    SPATIAL(1, 100, 37, 4, 20, .softcap = 0.5f),
    CROSS(1, 300, 77, 6, 32, .lengths = true),
    CAUSAL(19, 6, 5, .lengths = true),
    SHARED(19, 6, 3, 5),
    SHARED(33, 4, 1, 20, .lengths = true),
    SHARED(77, 8, 4, 32, .softcap = 2, .lengths = true),
    SHARED(150, 4, 2, 256, .softcap = 5),
    CROSS(1, 300, 150, 3, 112, .lengths = true),

    LINEAR_ATTENTION(1, 1, 1, 1, 3, 1, 0, 1, 2),
    LINEAR_ATTENTION(2, 7, 3, 5, 46, 5, 0, 15, 30),
    LINEAR_ATTENTION(1, 33, 4, 9, 108, 27, 0, 9, 18),
    LINEAR_ATTENTION(1, 300, 2, 40, 240, 40, 0, 80, 160),
    LINEAR_ATTENTION(1, 1024, 7, 32, 672, 32, 0, 224, 448),
    LINEAR_ATTENTION(1, 256, 12, 32, 1152, 96, 0, 32, 64),
    LINEAR_ATTENTION(2, 1300, 3, 32, 288, 32, 0, 96, 192),

    ROPE(1, 2, 1, 2),
    ROPE(19, 33, 3, 6),
    ROPE(300, 512, 6, 64),

    REGROUP(1, 1, 1),
    REGROUP(7, 3, 12),
    REGROUP(33, 35, 5),
    REGROUP(256, 512, 32),

    PIXEL_SHUFFLE(1, 1, 1, 1, 1),
    PIXEL_SHUFFLE(2, 3, 5, 6, 3, .residual = true),
    PIXEL_SHUFFLE(1, 16, 16, 512, 256),
    PIXEL_SHUFFLE(2, 6, 5, 64, 32, .residual = true),
    PIXEL_SHUFFLE(1, 6, 5, 64, 64, .residual = true),
    PIXEL_SHUFFLE(1, 3, 4, 128, 32),
    PIXEL_SHUFFLE(1, 7, 3, 20, 5, .residual = true),
    PIXEL_UNSHUFFLE(1, 2, 2, 1, 1),
    PIXEL_UNSHUFFLE(2, 6, 10, 3, 6, .residual = true),
    PIXEL_UNSHUFFLE(1, 16, 16, 256, 512),
    PIXEL_UNSHUFFLE(1, 4, 2, 5, 20, .residual = true),

    /* What a device does apart for some widths, and the networks' widths do not reach. */
    NORMS(40),
    NORMS(104),
    NORMS(200),
    NORMS(392),
    NORMS(776),
    NORMS(1160),
    NORMS(2056),
    NORMS(2568),
    ACTIVATE(10, 24, WEIR_ACT_NONE),
    ACTIVATE(10, 24, WEIR_ACT_GELU),
    ACTIVATE(10, 24, WEIR_ACT_GELU_TANH),
    ACTIVATE(10, 24, WEIR_ACT_QUICK_GELU),
    ACTIVATE(10, 24, WEIR_ACT_RELU),
    LINEAR(9, 16, 24, .gate_vectors = 2, .gate_vector = 1),
    LINEAR(9, 16, 24, .activation = WEIR_ACT_QUICK_GELU, .residual = true),
    LINEAR(9, 16, 24, .activation = WEIR_ACT_RELU),
    CONV2D(1, 65, 131, 5, 130, 1, 1, 0, 0),
    CONV2D(1, 33, 65, 5, 130, 1, 1, 0, 0, .resize_height = 65, .resize_width = 131),
    CONV2D(1, 33, 33, 6, 40, 3, 1, 1, 1, .resize_height = 65, .resize_width = 65),
    CONV2D(1, 33, 33, 6, 5, 3, 1, 1, 1, .resize_height = 65, .resize_width = 65),
    CONV2D(1, 5, 7, 6, 20, 3, 1, 1, 1, .resize_height = 9, .resize_width = 10),
    CONV2D(1, 45, 45, 12, 40, 3, 1, 1, 1, .resize_height = 90, .resize_width = 90),
    GROUP_NORM(1, 4099, 36, 4),
    SPATIAL(1, 9, 12, 2, 50),
    SPATIAL(1, 9, 12, 1, 100),
    SPATIAL(1, 40, 30, 2, 50),
    SPATIAL(1, 40, 30, 1, 100),
    SPATIAL(1, 20, 30, 1, 150),
    SPATIAL(1, 20, 30, 1, 260),
    DEPTHWISE_CONV(1, 4, 8, 12, 3),
    DEPTHWISE_CONV(1, 4, 7, 16, 3, .glu = true),
    DEPTHWISE_CONV(1, 4, 7, 12, 5),
    DEPTHWISE_CONV(1, 4, 7, 16, 5, .glu = true),
    DEPTHWISE_CONV(1, 4, 8, 16, 5, .glu = true),
};

/* Which operand y may be the same memory as, one of them: in[0], in[1], ... up to WEIR_OPERANDS_MAX, which ends it. */
struct operands_under_y {
    size_t in[3];
};

static inline struct operands_under_y operands_under_y(const struct kernel_case *c)
{
#define UNDER(...) ((struct operands_under_y){ { __VA_ARGS__, WEIR_OPERANDS_MAX } })
    switch (c->op) {
    case WEIR_OP_LINEAR:
        return UNDER(WEIR_LINEAR_RESIDUAL);
    case WEIR_OP_CONV2D:
        return UNDER(WEIR_CONV2D_RESIDUAL);
    case WEIR_OP_CONV_TEMPORAL:
        return UNDER(WEIR_CONV_TEMPORAL_RESIDUAL);
    case WEIR_OP_GROUP_NORM:
        return UNDER(WEIR_GROUP_NORM_X);
    case WEIR_OP_LAYER_NORM:
        return UNDER(WEIR_LAYER_NORM_X);
    case WEIR_OP_RMS_NORM:
        return UNDER(WEIR_RMS_NORM_X, WEIR_RMS_NORM_RESIDUAL);
    case WEIR_OP_MODULATED_NORM:
        return UNDER(WEIR_MODULATED_NORM_X);
    case WEIR_OP_TABLE_ADD:
        return c->shape.table_add.one ? UNDER(WEIR_OPERANDS_MAX) : UNDER(WEIR_TABLE_ADD_X);
    case WEIR_OP_ROPE:
        return UNDER(WEIR_ROPE_X);
    case WEIR_OP_ACTIVATE:
        return weir_activation_is_gated(c->shape.activate.activation) ? UNDER(WEIR_OPERANDS_MAX)
                                                                      : UNDER(WEIR_ACTIVATE_X);
    case WEIR_OP_PIXEL_SHUFFLE:
        return UNDER(WEIR_PIXEL_SHUFFLE_RESIDUAL);
    case WEIR_OP_PIXEL_UNSHUFFLE:
        return UNDER(WEIR_PIXEL_UNSHUFFLE_RESIDUAL);
    default:
        return UNDER(WEIR_OPERANDS_MAX);
    }
#undef UNDER
}

/* Multiplications and additions of products, of all rows; 0 for ops without. */
static inline double flops_of(const struct kernel_case *c)
{
    const double rows = c->shape.linear.rows;
    switch (c->op) {
    case WEIR_OP_LINEAR:
        return 2.0 * rows * c->shape.linear.tokens * c->shape.linear.in * c->shape.linear.out;
    case WEIR_OP_LOW_RANK: {
        const struct weir_low_rank *s = &c->shape.low_rank;
        return 2.0 * rows * s->tokens * s->rank * ((double)s->in + s->out);
    }
    case WEIR_OP_CONV2D: {
        const struct weir_conv2d *s = &c->shape.conv2d;
        const struct weir_conv2d_size size = weir_conv2d_size_of(s);
        return 2.0 * rows * s->frames * size.height * size.width * s->in * s->out * s->kernel * s->kernel;
    }
    case WEIR_OP_CONV_TEMPORAL: {
        const struct weir_conv_temporal *s = &c->shape.conv_temporal;
        return 6.0 * rows * s->frames * s->pixels * s->in * s->out;
    }
    case WEIR_OP_GROUPED_LINEAR: {
        const struct weir_grouped_linear *s = &c->shape.grouped_linear;
        return 2.0 * rows * s->tokens * s->in * (s->out / s->groups);
    }
    case WEIR_OP_LINEAR_ATTENTION: {
        const struct weir_linear_attention *s = &c->shape.linear_attention;
        return 4.0 * rows * s->frames * s->pixels * s->heads * s->head_dim * s->head_dim;
    }
    case WEIR_OP_ATTENTION: {
        const struct weir_attention *s = &c->shape.attention;
        return 4.0 * rows * s->sequences * s->query_length * s->key_length * s->heads * s->head_dim;
    }
    default:
        return 0;
    }
}

/* The type of a shape's activations. */
static inline enum weir_dtype dtype_of(const struct kernel_case *c)
{
    switch (c->op) {
#define X(op, OP)                                                                                                      \
    case WEIR_OP_##OP:                                                                                                 \
        return c->shape.op.dtype;
        WEIR_OP_TABLE(X)
#undef X
    case WEIR_OP_COUNT: break;
    }
    return WEIR_F32;
}

/* Numbers of each operand a row, 0 when the case has none of that kind; and which one is y. */
struct operand_sizes {
    size_t row[WEIR_OPERANDS_MAX];
    size_t all[WEIR_OPERANDS_MAX]; /* of operands that all rows share */
    size_t y;
    bool y_bytes; /* y is uint8 */
};

static inline struct operand_sizes sizes_of(const struct kernel_case *c)
{
    struct operand_sizes n = { .row = { 0 } };
    switch (c->op) {
    case WEIR_OP_LINEAR: {
        const struct weir_linear *s = &c->shape.linear;
        n.y = WEIR_LINEAR_Y;
        n.row[WEIR_LINEAR_X] = (size_t)s->tokens * s->in;
        n.row[n.y] = (size_t)s->tokens * weir_linear_width(s);
        if (s->residual) n.row[WEIR_LINEAR_RESIDUAL] = n.row[n.y];
        n.row[WEIR_LINEAR_GATE] = (size_t)s->gate_vectors * weir_linear_width(s);
        break;
    }
    case WEIR_OP_LOW_RANK: {
        const struct weir_low_rank *s = &c->shape.low_rank;
        n.y = WEIR_LOW_RANK_Y;
        n.row[WEIR_LOW_RANK_X] = (size_t)s->tokens * s->in;
        n.row[n.y] = (size_t)s->tokens * s->y_channels;
        n.row[WEIR_LOW_RANK_GATE] = (size_t)s->gate_vectors * s->y_channels;
        n.all[WEIR_LOW_RANK_A] = (size_t)s->in * s->rank;
        n.all[WEIR_LOW_RANK_B] = (size_t)s->rank * s->out;
        break;
    }
    case WEIR_OP_GROUPED_LINEAR: {
        const struct weir_grouped_linear *s = &c->shape.grouped_linear;
        n.y = WEIR_GROUPED_LINEAR_Y;
        n.row[WEIR_GROUPED_LINEAR_X] = (size_t)s->tokens * s->in;
        n.row[n.y] = (size_t)s->tokens * s->out;
        break;
    }
    case WEIR_OP_CONV2D: {
        const struct weir_conv2d *s = &c->shape.conv2d;
        const struct weir_conv2d_size size = weir_conv2d_size_of(s);
        n.y = WEIR_CONV2D_Y;
        n.row[WEIR_CONV2D_X] = (size_t)s->frames * s->height * s->width * s->in;
        n.row[n.y] = (size_t)s->frames * size.height * size.width * s->out;
        if (s->residual) n.row[WEIR_CONV2D_RESIDUAL] = n.row[n.y];
        if (s->row_bias) n.row[WEIR_CONV2D_ROW_BIAS] = s->out;
        break;
    }
    case WEIR_OP_CONV_TEMPORAL: {
        const struct weir_conv_temporal *s = &c->shape.conv_temporal;
        n.y = WEIR_CONV_TEMPORAL_Y;
        n.row[WEIR_CONV_TEMPORAL_X] = (size_t)s->frames * s->pixels * s->in;
        n.row[n.y] = (size_t)s->frames * s->pixels * s->out;
        if (s->residual) n.row[WEIR_CONV_TEMPORAL_RESIDUAL] = n.row[n.y];
        break;
    }
    case WEIR_OP_DEPTHWISE_CONV: {
        const struct weir_depthwise_conv *s = &c->shape.depthwise_conv;
        n.y = WEIR_DEPTHWISE_CONV_Y;
        n.row[WEIR_DEPTHWISE_CONV_X] = (size_t)s->frames * s->height * s->width * s->channels;
        n.row[n.y] = n.row[WEIR_DEPTHWISE_CONV_X] / (s->glu ? 2 : 1);
        break;
    }
    case WEIR_OP_GROUP_NORM: {
        const struct weir_group_norm *s = &c->shape.group_norm;
        n.y = WEIR_GROUP_NORM_Y;
        n.row[WEIR_GROUP_NORM_X] = n.row[n.y] = (size_t)s->batch * s->pixels * s->channels;
        break;
    }
    case WEIR_OP_LAYER_NORM: {
        const struct weir_layer_norm *s = &c->shape.layer_norm;
        n.y = WEIR_LAYER_NORM_Y;
        n.row[WEIR_LAYER_NORM_X] = n.row[n.y] = (size_t)s->tokens * s->channels;
        break;
    }
    case WEIR_OP_RMS_NORM: {
        const struct weir_rms_norm *s = &c->shape.rms_norm;
        n.y = WEIR_RMS_NORM_Y;
        n.row[WEIR_RMS_NORM_X] = n.row[n.y] = (size_t)s->tokens * s->channels;
        if (s->residual) n.row[WEIR_RMS_NORM_RESIDUAL] = n.row[n.y];
        break;
    }
    case WEIR_OP_MODULATED_NORM: {
        const struct weir_modulated_norm *s = &c->shape.modulated_norm;
        n.y = WEIR_MODULATED_NORM_Y;
        n.row[WEIR_MODULATED_NORM_X] = n.row[n.y] = (size_t)s->tokens * s->channels;
        n.row[WEIR_MODULATED_NORM_M] = (size_t)s->vectors * s->channels;
        break;
    }
    case WEIR_OP_TABLE_ADD: {
        const struct weir_table_add *s = &c->shape.table_add;
        n.y = WEIR_TABLE_ADD_Y;
        n.row[n.y] = (size_t)s->vectors * s->channels;
        n.row[WEIR_TABLE_ADD_X] = s->one ? s->channels : n.row[n.y];
        break;
    }
    case WEIR_OP_ATTENTION: {
        const struct weir_attention *s = &c->shape.attention;
        n.y = WEIR_ATTENTION_Y;
        n.row[WEIR_ATTENTION_Q] = (size_t)s->query.row_tokens * s->q_stride;
        n.row[WEIR_ATTENTION_K] = (size_t)s->key.row_tokens * s->k_stride;
        n.row[WEIR_ATTENTION_V] = (size_t)s->key.row_tokens * s->v_stride;
        n.row[n.y] = (size_t)s->query.row_tokens * s->y_stride;
        if (s->lengths) n.row[WEIR_ATTENTION_LENGTHS] = 1;
        break;
    }
    case WEIR_OP_LINEAR_ATTENTION: {
        const struct weir_linear_attention *s = &c->shape.linear_attention;
        n.y = WEIR_LINEAR_ATTENTION_Y;
        n.row[WEIR_LINEAR_ATTENTION_X] = (size_t)s->frames * s->pixels * s->stride;
        n.row[n.y] = (size_t)s->frames * s->pixels * s->heads * s->head_dim;
        break;
    }
    case WEIR_OP_ROPE:
        n.y = WEIR_ROPE_Y;
        n.row[WEIR_ROPE_X] = n.row[n.y] = (size_t)c->shape.rope.tokens * c->shape.rope.channels;
        break;
    case WEIR_OP_EMBED:
        n.y = WEIR_EMBED_Y;
        n.row[WEIR_EMBED_IDS] = c->shape.embed.tokens;
        n.row[n.y] = (size_t)c->shape.embed.tokens * c->shape.embed.channels;
        break;
    case WEIR_OP_TIMESTEP_EMBEDDING:
        n.y = WEIR_TIMESTEP_EMBEDDING_Y;
        n.row[WEIR_TIMESTEP_EMBEDDING_T] = 1;
        n.row[n.y] = c->shape.timestep_embedding.dim;
        break;
    case WEIR_OP_ACTIVATE:
        n.y = WEIR_ACTIVATE_Y;
        n.row[WEIR_ACTIVATE_X] = n.row[n.y] = (size_t)c->shape.activate.tokens * c->shape.activate.channels;
        if (weir_activation_is_gated(c->shape.activate.activation)) n.row[WEIR_ACTIVATE_X] *= 2;
        break;
    case WEIR_OP_CONCAT: {
        const struct weir_concat *s = &c->shape.concat;
        n.y = WEIR_CONCAT_Y;
        n.row[WEIR_CONCAT_A] = (size_t)s->tokens * s->a_channels;
        n.row[WEIR_CONCAT_B] = (size_t)s->tokens * s->b_channels;
        n.row[n.y] = n.row[WEIR_CONCAT_A] + n.row[WEIR_CONCAT_B];
        break;
    }
    case WEIR_OP_REGROUP:
        n.y = WEIR_REGROUP_Y;
        n.row[WEIR_REGROUP_X] = (size_t)c->shape.regroup.tokens * c->shape.regroup.in;
        n.row[n.y] = (size_t)c->shape.regroup.tokens * c->shape.regroup.out;
        break;
    case WEIR_OP_PIXEL_SHUFFLE: {
        const struct weir_pixel_shuffle *s = &c->shape.pixel_shuffle;
        const size_t pixels = (size_t)s->frames * s->height * s->width;
        n.y = WEIR_PIXEL_SHUFFLE_Y;
        n.row[WEIR_PIXEL_SHUFFLE_X] = pixels * s->in;
        n.row[n.y] = 4 * pixels * s->out;
        if (s->residual) n.row[WEIR_PIXEL_SHUFFLE_RESIDUAL] = n.row[n.y];
        break;
    }
    case WEIR_OP_PIXEL_UNSHUFFLE: {
        const struct weir_pixel_unshuffle *s = &c->shape.pixel_unshuffle;
        const size_t pixels = (size_t)s->frames * s->height * s->width;
        n.y = WEIR_PIXEL_UNSHUFFLE_Y;
        n.row[WEIR_PIXEL_UNSHUFFLE_X] = pixels * s->in;
        n.row[n.y] = pixels / 4 * s->out;
        if (s->residual) n.row[WEIR_PIXEL_UNSHUFFLE_RESIDUAL] = n.row[n.y];
        break;
    }
    case WEIR_OP_LATENTS_PACK: {
        const struct weir_latents_pack *s = &c->shape.latents_pack;
        n.y = WEIR_LATENTS_PACK_Y;
        n.row[WEIR_LATENTS_PACK_X] = (size_t)s->frames * s->pixels * s->channels;
        n.row[n.y] = n.row[WEIR_LATENTS_PACK_X] * s->copies;
        if (s->scaled) n.row[WEIR_LATENTS_PACK_K] = WEIR_SAMPLER_COEFFICIENTS;
        break;
    }
    case WEIR_OP_GUIDANCE: {
        const struct weir_guidance *s = &c->shape.guidance;
        n.y = WEIR_GUIDANCE_Y;
        n.row[n.y] = (size_t)s->frames * s->pixels * s->channels;
        n.row[WEIR_GUIDANCE_X] = n.row[n.y] * s->copies;
        if (s->copies > 1) n.row[WEIR_GUIDANCE_SCALE] = 1;
        break;
    }
    case WEIR_OP_SAMPLER_STEP:
        n.y = WEIR_SAMPLER_STEP_X;
        n.row[WEIR_SAMPLER_STEP_X] = n.row[WEIR_SAMPLER_STEP_M] = c->shape.sampler_step.n;
        n.row[WEIR_SAMPLER_STEP_PREVIOUS] = c->shape.sampler_step.n;
        n.row[WEIR_SAMPLER_STEP_K] = WEIR_SAMPLER_COEFFICIENTS;
        break;
    case WEIR_OP_TO_RGB8:
        n.y = WEIR_TO_RGB8_Y;
        n.row[WEIR_TO_RGB8_X] = (size_t)c->shape.to_rgb8.tokens * c->shape.to_rgb8.channels;
        n.row[n.y] = (size_t)c->shape.to_rgb8.tokens * 3;
        n.y_bytes = true;
        break;
    case WEIR_OP_COUNT:
        break;
    }
    return n;
}

/* The shape's first member is its number of rows, or items. */
static inline uint32_t *rows_of(struct kernel_case *c)
{
    return &c->shape.linear.rows;
}

/* A case with its numbers. */
struct running_case {
    struct kernel_case c;
    struct operand_sizes sizes;
    struct weir_parameters parameters;
    float *weight, *bias;
    float *operands[WEIR_OPERANDS_MAX];
};

static inline struct weir_parameters parameters_of(const struct kernel_case *c)
{
    struct weir_parameters q = { .op = c->op };
    switch (c->op) {
    case WEIR_OP_LINEAR:
        q.out = c->shape.linear.out, q.in = c->shape.linear.in;
        q.geglu = c->geglu || weir_activation_is_gated(c->shape.linear.activation);
        break;
    case WEIR_OP_GROUPED_LINEAR:
        q.out = c->shape.grouped_linear.out, q.in = c->shape.grouped_linear.in;
        q.kernel = c->shape.grouped_linear.groups;
        break;
    case WEIR_OP_DEPTHWISE_CONV:
        q.out = c->shape.depthwise_conv.channels, q.kernel = c->shape.depthwise_conv.kernel;
        break;
    case WEIR_OP_RMS_NORM:
        q.out = c->shape.rms_norm.channels;
        break;
    case WEIR_OP_TABLE_ADD:
        q.out = c->shape.table_add.vectors, q.in = c->shape.table_add.channels;
        break;
    case WEIR_OP_CONV2D:
        q.out = c->shape.conv2d.out, q.in = c->shape.conv2d.in, q.kernel = c->shape.conv2d.kernel;
        q.doubled = q.kernel == 3 && c->shape.conv2d.resize_height > 0;
        break;
    case WEIR_OP_CONV_TEMPORAL:
        q.out = c->shape.conv_temporal.out, q.in = c->shape.conv_temporal.in;
        break;
    case WEIR_OP_GROUP_NORM:
        q.out = c->shape.group_norm.channels;
        break;
    case WEIR_OP_LAYER_NORM:
        q.out = c->shape.layer_norm.channels;
        break;
    case WEIR_OP_EMBED:
        q.out = c->shape.embed.vocabulary, q.in = c->shape.embed.channels, q.kernel = c->shape.embed.positions;
        break;
    default:
        break;
    }
    return q;
}

/* The numbers of rows first_row.. of a case with `rows` rows. Weights come from the case alone. */
static inline struct running_case case_begin(const struct kernel_case *c, uint32_t first_row, uint32_t rows)
{
    struct running_case r = { .c = *c, .sizes = sizes_of(c), .parameters = parameters_of(c) };
    uint64_t seed = 0x1234567;
    *rows_of(&r.c) = rows;
    if (r.parameters.out) {
        r.parameters.weight = (const float[]){ 0 }; /* to be counted */
        r.parameters.bias = c->no_bias ? NULL : r.parameters.weight;
        const bool grouped = c->op == WEIR_OP_GROUPED_LINEAR; /* whose kernel is a number of groups */
        const uint64_t taps = r.parameters.kernel && !grouped ? r.parameters.kernel * r.parameters.kernel : 1;
        const uint64_t fan_in = (r.parameters.in && c->op != WEIR_OP_TABLE_ADD ? r.parameters.in : 1) * taps;
        r.weight = random_floats(&seed, weir_weight_count(&r.parameters), 1 / sqrtf((float)fan_in));
        if (!c->no_bias) r.bias = random_floats(&seed, weir_bias_count(&r.parameters), 1);
        r.parameters.weight = r.weight;
        r.parameters.bias = r.bias;
        r.parameters.dtype = c->reads;
    }
    for (size_t i = 0; i < WEIR_OPERANDS_MAX; i++) {
        uint64_t all_seed = 0x7654321 + i;
        if (r.sizes.all[i]) r.operands[i] = random_floats(&all_seed, r.sizes.all[i], 0.2f);
        if (r.sizes.row[i] == 0) continue;
        r.operands[i] = random_floats(&seed, r.sizes.row[i] * rows, 0);
        for (uint32_t row = 0; row < rows; row++) {
            uint64_t row_seed = 0x9e3779b97f4a7c15ull * (first_row + row + 1) + i;
            for (size_t k = 0; k < r.sizes.row[i]; k++) {
                const float value = random_normal(&row_seed);
                float *at = &r.operands[i][row * r.sizes.row[i] + k];
                if (c->op == WEIR_OP_EMBED && i == WEIR_EMBED_IDS) {
                    const int32_t id = (int32_t)(next_random(&row_seed) % c->shape.embed.vocabulary);
                    memcpy(at, &id, sizeof id);
                } else if (c->op == WEIR_OP_ATTENTION && i == WEIR_ATTENTION_LENGTHS) {
                    const int32_t length = 1 + (int32_t)(next_random(&row_seed) % c->shape.attention.key_length);
                    memcpy(at, &length, sizeof length);
                } else {
                    *at = c->op == WEIR_OP_TIMESTEP_EMBEDDING ? 500 + 200 * value : value;
                }
            }
        }
    }
    return r;
}

static inline void case_end(struct running_case *r)
{
    for (size_t i = 0; i < WEIR_OPERANDS_MAX; i++) free(r->operands[i]);
    free(r->weight);
    free(r->bias);
}

static inline size_t operand_bytes(const struct running_case *r, size_t i)
{
    return (r->sizes.row[i] * r->c.shape.linear.rows + r->sizes.all[i]) * sizeof(float);
}

static inline bool memory_is_the_hosts(const struct weir_device *device)
{
    return strcmp(device->table->name, "cuda") != 0;
}

/* The operands in the device's own memory: those that are the same memory here are so there. */
static inline void operands_to(struct weir_device *device, struct weir_stream *stream, const struct running_case *r,
                               void *there[WEIR_OPERANDS_MAX])
{
    struct weir_error error = { 0 };
    for (size_t i = 0; i < WEIR_OPERANDS_MAX; i++) {
        there[i] = NULL;
        for (size_t k = 0; k < i && r->operands[i]; k++) {
            if (r->operands[k] == r->operands[i]) there[i] = there[k];
        }
        if (there[i] || !r->operands[i]) continue;
        assert_int_equal(device->table->memory_alloc(device, operand_bytes(r, i), &there[i], &error), WEIR_OK);
        assert_int_equal(device->table->upload(stream, there[i], r->operands[i], operand_bytes(r, i)), WEIR_OK);
    }
}

/* And back, all of them: an op that writes over what it may only read shows too. */
static inline void operands_from(struct weir_device *device, struct weir_stream *stream, struct running_case *r,
                                 void *there[WEIR_OPERANDS_MAX])
{
    struct weir_error error = { 0 };
    for (size_t i = 0; i < WEIR_OPERANDS_MAX; i++) {
        if (!there[i]) continue;
        assert_int_equal(device->table->download(stream, r->operands[i], there[i], operand_bytes(r, i)), WEIR_OK);
    }
    if (device->table->stream_sync(stream, &error) != WEIR_OK) fail_msg("%s: %s", r->c.label, error.words);
    for (size_t i = 0; i < WEIR_OPERANDS_MAX; i++) {
        bool freed = !there[i];
        for (size_t k = 0; k < i; k++) freed = freed || there[k] == there[i];
        if (!freed) device->table->memory_free(device, there[i]);
    }
}

static inline void case_run(struct running_case *r, struct weir_device *device)
{
    struct weir_error error = { 0 };
    struct weir_stream *stream = NULL;
    void *operands[WEIR_OPERANDS_MAX];
    for (size_t i = 0; i < WEIR_OPERANDS_MAX; i++) operands[i] = r->operands[i];
    if (!memory_is_the_hosts(device)) {
        assert_int_equal(device->table->stream_create(device, &stream, &error), WEIR_OK);
        operands_to(device, stream, r, operands);
        assert_int_equal(device->table->stream_sync(stream, &error), WEIR_OK);
    }
    if (r->weight) {
        run_layer(device, &r->parameters, &r->c.shape, operands);
    } else {
        run_op(device, r->c.op, NULL, &r->c.shape, operands);
    }
    if (stream) {
        operands_from(device, stream, r, operands);
        device->table->stream_destroy(stream);
    }
}

/* f32 against f64 sums: a product over K terms rounds each of its sums to 2^-24 of its size so far, which is sqrt(K) of
 * a term on average; over K <= 3,000 that stays near 1e-6 of the result, and grows with the root of K beyond. */
#define TOLERANCE 2e-6
#define TOLERANCE_TERMS 3000

static inline double f32_tolerance(const struct kernel_case *c)
{
    double terms = 0;
    if (c->op == WEIR_OP_LINEAR) terms = c->shape.linear.in;
    if (c->op == WEIR_OP_CONV2D) terms = (double)c->shape.conv2d.in * c->shape.conv2d.kernel * c->shape.conv2d.kernel;
    if (c->op == WEIR_OP_CONV_TEMPORAL) terms = 3.0 * c->shape.conv_temporal.in;
    return TOLERANCE * sqrt(terms > TOLERANCE_TERMS ? terms / TOLERANCE_TERMS : 1);
}

/* Whether `got` is near enough to what the judge gives, or, where y is of bytes, the same; else it is said. Raises *worst
 * to the distance. */
static inline bool case_agrees(const struct running_case *wanted, const struct running_case *got, double tolerance,
                               double *worst)
{
    const size_t y = wanted->sizes.y, count = wanted->sizes.row[y] * wanted->c.shape.linear.rows;
    if (wanted->sizes.y_bytes) {
        if (memcmp(got->operands[y], wanted->operands[y], count) == 0) return true;
        print_error("%s: other bytes\n", wanted->c.label);
        return false;
    }
    const double error = relative_error(got->operands[y], wanted->operands[y], count);
    *worst = fmax(*worst, error);
    if (error <= tolerance) return true;
    print_error("%s: relative error %.2e\n", wanted->c.label, error);
    return false;
}

static inline size_t y_bytes(const struct running_case *r, uint32_t rows)
{
    return r->sizes.row[r->sizes.y] * rows * (r->sizes.y_bytes ? 1 : sizeof(float));
}

/* y in the memory of each operand that it may lie over has the bytes of y apart from them all. */
static inline void y_over_what_it_may_be_has_the_bytes_of_y_apart(struct weir_device *device,
                                                                  const struct kernel_case *c)
{
    const struct operands_under_y under = operands_under_y(c);
    for (size_t k = 0; under.in[k] < WEIR_OPERANDS_MAX; k++) {
        struct running_case apart = case_begin(c, 0, 2), over = case_begin(c, 0, 2);
        const size_t y = apart.sizes.y;
        float *own = over.operands[y];
        if (over.operands[under.in[k]]) {
            over.operands[y] = over.operands[under.in[k]];
            case_run(&apart, device);
            case_run(&over, device);
            if (memcmp(apart.operands[y], over.operands[y], y_bytes(&apart, 2)) != 0) {
                fail_msg("%s: other bytes with y over operand %zu", c->label, under.in[k]);
            }
            over.operands[y] = own;
        }
        case_end(&apart);
        case_end(&over);
    }
}

/* Row 1 alone, as the second of two, and as the first of three: always the same bytes. */
static inline void bytes_of_row_one_are_its_own(struct weir_device *device, const struct kernel_case *c)
{
    struct running_case alone = case_begin(c, 1, 1), pair = case_begin(c, 0, 2), three = case_begin(c, 1, 3);
    case_run(&alone, device);
    case_run(&pair, device);
    case_run(&three, device);
    const size_t y = alone.sizes.y, row = y_bytes(&alone, 1);
    if (memcmp(alone.operands[y], (char *)pair.operands[y] + row, row) != 0 ||
        memcmp(alone.operands[y], three.operands[y], row) != 0) {
        fail_msg("%s: a row's bytes depend on the rows beside it", alone.c.label);
    }
    case_end(&alone);
    case_end(&pair);
    case_end(&three);
}

#endif
