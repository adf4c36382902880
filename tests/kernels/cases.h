/* cases: every op over a table of shapes: smallest, odd, real. A case is an op's shape and its layer's parameters;
 * run_cases.h runs it. */
#ifndef WEIR_TESTS_KERNELS_CASES_H
#define WEIR_TESTS_KERNELS_CASES_H

#include "kernels/ops.h"

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
            .parts = 1,                                                                                                \
            .channels = C,                                                                                             \
            .eps = 1e-5f,                                                                                              \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }
#define RMS_NORM_PARTS(L, PARTS, C, REST, ...)                                                                         \
    {                                                                                                                  \
        .label = "rms_norm " #L " x (" #PARTS " x " #C " + " #REST ") " #__VA_ARGS__, .op = WEIR_OP_RMS_NORM,          \
        .shape.rms_norm = {                                                                                            \
            .rows = 2,                                                                                                 \
            .tokens = L,                                                                                               \
            .parts = PARTS,                                                                                            \
            .channels = C,                                                                                             \
            .rest = REST,                                                                                              \
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
#define TABLE_ADD(N, GIVEN, C)                                                                                         \
    {                                                                                                                  \
        .label = "table_add " #N " x " #C " to " #GIVEN, .op = WEIR_OP_TABLE_ADD, .no_bias = true,                     \
        .shape.table_add = {                                                                                           \
            .rows = 2,                                                                                                 \
            .vectors = N,                                                                                              \
            .given = GIVEN,                                                                                            \
            .channels = C                                                                                              \
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
    GROUP_NORM(10, 1700, 256, 8),
    GROUP_NORM(1, 7000, 320, 32, .silu = true),
    GROUP_NORM(5, 7300, 288, 9),
    GROUP_NORM(4, 16, 1280, 32, .silu = true),
    GROUP_NORM(1, 2900, 64, 2),
    GROUP_NORM(1, 9, 960, 1),

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
    TEMPORAL(16, 40, 2, 64),
    TEMPORAL(13, 9, 3, 104),
    TEMPORAL(20, 9, 2, 24),
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
    DEPTHWISE_CONV(1, 6, 5, 33, 3, .activation = WEIR_ACT_SILU),
    DEPTHWISE_CONV(2, 4, 8, 24, 5, .activation = WEIR_ACT_SILU),
    DEPTHWISE_CONV(1, 9, 6, 30, 3, .activation = WEIR_ACT_SILU, .glu = true),
    DEPTHWISE_CONV(1, 16, 16, 1120, 3, .activation = WEIR_ACT_SILU, .glu = true),
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
      .shape.rms_norm = { .rows = 2, .tokens = 300, .parts = 1, .channels = 230, .eps = 1e-6f } },
    RMS_NORM_PARTS(1, 1, 1, 1),
    RMS_NORM_PARTS(7, 2, 5, 3),
    RMS_NORM_PARTS(5, 3, 33, 0, .activation = WEIR_ACT_SILU),
    RMS_NORM_PARTS(5, 3, 24, 8, .activation = WEIR_ACT_RELU),
    RMS_NORM_PARTS(9, 1, 96, 1000),
    RMS_NORM_PARTS(9, 2, 40, 12),
    RMS_NORM_PARTS(30, 3, 320, 0),
    RMS_NORM_PARTS(30, 2, 2240, 2240),
    RMS_NORM_PARTS(3, 2, 3080, 16),
    { .label = "rms_norm 50 x (2 x 1152 + 1152) without beta",
      .op = WEIR_OP_RMS_NORM,
      .no_bias = true,
      .shape.rms_norm = { .rows = 2, .tokens = 50, .parts = 2, .channels = 1152, .rest = 1152, .eps = 1e-5f } },

    MODULATED_NORM(1, 1, 1, 0, 0),
    MODULATED_NORM(5, 7, 6, 3, 4),
    MODULATED_NORM(1024, 224, 2, 0, 1),
    MODULATED_NORM(30, 2240, 6, 3, 4),

    TABLE_ADD(1, 1, 1),
    TABLE_ADD(6, 6, 7),
    TABLE_ADD(2, 1, 33),
    TABLE_ADD(12, 4, 5),
    TABLE_ADD(120, 6, 2240),
    TABLE_ADD(1024, 1024, 224),

    SPATIAL(2, 3, 5, 2, 3, .lengths = true),
    SPATIAL(1, 100, 37, 4, 20, .softcap = 0.5f),
    CROSS(1, 300, 77, 6, 32, .lengths = true),
    CAUSAL(19, 6, 5, .lengths = true),
    SHARED(19, 6, 3, 5),
    SHARED(33, 4, 1, 20, .lengths = true),
    SHARED(77, 8, 4, 32, .softcap = 2, .lengths = true),
    SHARED(150, 4, 2, 256, .softcap = 5),
    CROSS(1, 300, 150, 3, 112, .lengths = true),
    CROSS(3, 70, 340, 2, 112, .lengths = true), /* more tiles of keys than are in memory at once */
    SPATIAL(2, 450, 81, 3, 64, .softcap = 3),
    SPATIAL(1, 65, 33, 1, 80, .softcap = 0.7f),
    CAUSAL(230, 3, 64, .lengths = true),
    SHARED(500, 4, 2, 96),
    SPATIAL(80, 65, 33, 2, 64), /* more passes than multiprocessors */
    SPATIAL(1, 40, 90, 2, 64),  /* few queries */
    SPATIAL(1, 40, 90, 2, 112),

    LINEAR_ATTENTION(1, 1, 1, 1, 3, 1, 0, 1, 2),
    LINEAR_ATTENTION(2, 7, 3, 5, 46, 5, 0, 15, 30),
    LINEAR_ATTENTION(1, 33, 4, 9, 108, 27, 0, 9, 18),
    LINEAR_ATTENTION(1, 300, 2, 40, 240, 40, 0, 80, 160),
    LINEAR_ATTENTION(1, 1024, 7, 32, 672, 32, 0, 224, 448),
    LINEAR_ATTENTION(1, 256, 12, 32, 1152, 96, 0, 32, 64),
    LINEAR_ATTENTION(2, 1300, 3, 32, 288, 32, 0, 96, 192),
    LINEAR_ATTENTION(1, 90, 5, 32, 480, 96, 0, 32, 64),
    LINEAR_ATTENTION(3, 400, 1, 32, 96, 96, 0, 32, 64),

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
    CONV2D(1, 65, 65, 5, 40, 1, 1, 0, 0),
    CONV2D(1, 8, 64, 8, 8, 1, 1, 0, 0, .residual = true),
    CONV2D(1, 32, 64, 8, 8, 3, 2, 1, 1, .row_bias = true),
    CONV2D(1, 8, 16, 8, 8, 3, 1, 1, 1, .silu = true, .resize_height = 16, .resize_width = 32),
    CONV2D(1, 17, 17, 64, 64, 3, 1, 1, 1, .resize_height = 33, .resize_width = 33),
    CONV2D(1, 43, 42, 64, 33, 3, 1, 1, 1, .row_bias = true, .residual = true),
    CONV2D(1, 56, 56, 36, 36, 3, 1, 1, 1, .silu = true),
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
    DEPTHWISE_CONV(1, 4, 8, 24, 3, .activation = WEIR_ACT_SILU, .glu = true),
    DEPTHWISE_CONV(1, 70, 40, 48, 3, .activation = WEIR_ACT_SILU, .glu = true),
    DEPTHWISE_CONV(2, 37, 3, 144, 3, .activation = WEIR_ACT_SILU),
    DEPTHWISE_CONV(1, 20, 33, 72, 5, .activation = WEIR_ACT_SILU),
    DEPTHWISE_CONV(1, 70, 64, 40, 5),
    DEPTHWISE_CONV(1, 3, 13, 80, 5, .activation = WEIR_ACT_SILU, .glu = true),
};

#endif
