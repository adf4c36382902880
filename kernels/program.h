/* program: a network made ready for one shape: a list of planned ops over one arena.
 *
 * A network is a builder: it names its inputs, calls one function an op, and marks its outputs. Nothing is computed
 * then. weir_program_finish() gives every value its place in the arena by its first and last use, so the memory of a
 * network is known, to the byte, before anything is allocated. weir_program_run() enqueues the ops in order: no
 * allocation, no synchronisation, so that a device may capture it in a graph.
 *
 *   struct weir_program *p;
 *   weir_program_create(device, &p);
 *   struct weir_value x = weir_program_input(p, "x", WEIR_F32, &(struct weir_dims){ rows, tokens, 48 });
 *   struct weir_value h = weir_program_layer_norm(p, norm, x, 1e-5f);
 *   h = weir_program_linear(p, fc1, h, &(struct weir_linear_call){ .activation = WEIR_ACT_GELU });
 *   weir_program_output(p, "y", h);
 *   WEIR_TRY(weir_program_finish(p, &error));
 *
 * Errors   the first one sticks: later calls do nothing and return a void value, and finish() reports it. So builders
 *          need no check on every line
 * Memory   packed layers are borrowed and must outlive the program; inputs and outputs lie in the arena
 * Graphs   on a device that has them the second run with the same arena and externs is captured, later ones replayed
 * Threads  build on one thread; run one stream at a time per arena
 */
#ifndef WEIR_KERNELS_PROGRAM_H
#define WEIR_KERNELS_PROGRAM_H

#include "kernels/ops.h"

#define WEIR_PROGRAM_NAMES_MAX 256 /* inputs and outputs of one program */

struct weir_program;

/* A value of a program. index 0 is "none". */
struct weir_value {
    uint32_t index;
};

/* Every value is [rows, frames, height, width, channels]; tokens = frames * height * width. */
struct weir_dims {
    uint32_t rows, frames, height, width, channels;
};

enum weir_status weir_program_create(struct weir_device *device, enum weir_dtype dtype, struct weir_program **out);
void weir_program_destroy(struct weir_program **program);

/* Inputs and outputs keep their memory during the whole run and are found again by name. */
struct weir_value weir_program_input(struct weir_program *p, const char *name, enum weir_dtype dtype,
                                     const struct weir_dims *dims);
void weir_program_output(struct weir_program *p, const char *name, struct weir_value value);
/* An input whose memory the caller gives at run time instead of the arena (text K/V slots, latents of an item). */
struct weir_value weir_program_extern(struct weir_program *p, const char *name, enum weir_dtype dtype,
                                      const struct weir_dims *dims);

/* Before finish: the memory of the input or output `name` is given at run time, as that of an extern, instead of lying in
 * the arena. An unknown name, or one that lies elsewhere already, is our own fault and asserts. */
void weir_program_put_elsewhere(struct weir_program *p, const char *name);

/* What the program's values lie in, but those of another dtype that the words here name. */
enum weir_dtype weir_program_dtype(const struct weir_program *p);
/* An f32 value in the program's dtype, and one of that dtype in f32: the value itself where that is f32. */
struct weir_value weir_program_narrow(struct weir_program *p, struct weir_value value);
struct weir_value weir_program_widen(struct weir_program *p, struct weir_value value);

struct weir_dims weir_program_dims(const struct weir_program *p, struct weir_value value);
/* The same memory seen with other frames/height/width/channels; the number of elements a row must stay. */
struct weir_value weir_program_view(struct weir_program *p, struct weir_value value, const struct weir_dims *dims);

/* A part of the value's memory as a value of its own: `dims` from element number `first` on; rows of the value, or
 * tables that a caller laid side by side. Ops read it and write into it as into any other. */
struct weir_value weir_program_part(struct weir_program *p, struct weir_value value, uint64_t first,
                                    const struct weir_dims *dims);
/* `dims` of its own, which ops fill through parts of it. */
struct weir_value weir_program_room(struct weir_program *p, const struct weir_dims *dims);

/* The ops. Shapes come from the values; a wrong one is BAD_SHAPE naming the op and the layer. */
struct weir_linear_call {
    enum weir_activation activation;
    struct weir_value residual; /* or none */
    struct weir_value gate;     /* or none; dims [rows, 1, 1, vectors, out] */
    uint32_t gate_vector;
};
struct weir_value weir_program_linear(struct weir_program *p, const struct weir_packed *layer, struct weir_value x,
                                      const struct weir_linear_call *call);
/* The same into `y`, which may be a part. */
void weir_program_linear_into(struct weir_program *p, const struct weir_packed *layer, struct weir_value x,
                              const struct weir_linear_call *call, struct weir_value y);

/* Changes y. a has dims [1, 1, 1, in, rank], b [1, 1, 1, rank, out], both f32. */
struct weir_low_rank_call {
    struct weir_value a, b;
    uint32_t channel;       /* of y, of the first output */
    struct weir_value gate; /* or none; dims [rows, 1, 1, vectors, channels of y] */
    uint32_t gate_vector;
};
void weir_program_low_rank(struct weir_program *p, struct weir_value x, const struct weir_low_rank_call *call,
                           struct weir_value y);

struct weir_value weir_program_grouped_linear(struct weir_program *p, const struct weir_packed *layer,
                                              struct weir_value x);

struct weir_conv2d_call {
    uint32_t stride, pad, pad_end;        /* stride 0 means 1 */
    uint32_t resize_height, resize_width; /* nearest resize before it, or 0 */
    struct weir_value row_bias, residual; /* or none; row_bias has dims [rows, 1, 1, 1, out] */
    bool silu;                            /* of y; with no residual */
};
struct weir_value weir_program_conv2d(struct weir_program *p, const struct weir_packed *layer, struct weir_value x,
                                      const struct weir_conv2d_call *call);
struct weir_value weir_program_conv_temporal(struct weir_program *p, const struct weir_packed *layer,
                                             struct weir_value x, struct weir_value residual);
/* over_frames: statistics over all frames of a row, else per frame. */
struct weir_value weir_program_group_norm(struct weir_program *p, const struct weir_packed *layer, struct weir_value x,
                                          uint32_t groups, float eps, bool silu, bool over_frames);
struct weir_value weir_program_layer_norm(struct weir_program *p, const struct weir_packed *layer, struct weir_value x,
                                          float eps);

struct weir_depthwise_conv_call {
    enum weir_activation activation; /* of x */
    bool glu;
};
struct weir_value weir_program_depthwise_conv(struct weir_program *p, const struct weir_packed *layer,
                                              struct weir_value x, const struct weir_depthwise_conv_call *call);

/* x has the layer's channels, in parts, and `rest` more. */
struct weir_rms_norm_call {
    float eps;
    enum weir_activation activation;
    struct weir_value residual; /* or none */
    uint32_t parts, rest;       /* parts 0 means 1 */
};
struct weir_value weir_program_rms_norm(struct weir_program *p, const struct weir_packed *layer, struct weir_value x,
                                        const struct weir_rms_norm_call *call);
/* m has dims [rows, 1, 1, vectors, channels of x]. */
struct weir_value weir_program_modulated_norm(struct weir_program *p, struct weir_value x, struct weir_value m,
                                              uint32_t shift, uint32_t scale, float eps);
/* x has as many tokens as the table vectors, or a number that divides theirs, and is repeated; or, of dims [rows, 1, 1, 1,
 * that number * C], all of them in its channels (what a linear makes). y has x's dims in the first case, else [rows, 1, 1,
 * vectors, C]. */
struct weir_value weir_program_table_add(struct weir_program *p, const struct weir_packed *layer, struct weir_value x);

/* q, k, v may be channel ranges of the same value (a fused projection). */
enum weir_attention_kind {
    WEIR_ATTENTION_SPATIAL,  /* every frame by itself over its pixels */
    WEIR_ATTENTION_TEMPORAL, /* every pixel by itself over the frames */
    WEIR_ATTENTION_CROSS,    /* every frame's pixels over the key value's tokens, alike for all frames */
    WEIR_ATTENTION_CAUSAL,   /* over all tokens of the row, looking back only */
};
struct weir_attention_call {
    enum weir_attention_kind kind;
    struct weir_value q, k, v;
    uint32_t q_channel, k_channel, v_channel; /* where the heads begin in a token */
    uint32_t heads, head_dim;
    uint32_t kv_heads; /* 0: as many as heads */
    float scale;
    float softcap;             /* 0: none */
    struct weir_value lengths; /* or none; i32, dims [rows, 1, 1, 1, 1]: real keys of each row */
};
struct weir_value weir_program_attention(struct weir_program *p, const struct weir_attention_call *call);

/* Every frame by itself; channels as in struct weir_linear_attention. */
struct weir_linear_attention_call {
    uint32_t heads, head_dim, head_step, q_channel, k_channel, v_channel;
    float eps;
};
struct weir_value weir_program_linear_attention(struct weir_program *p, struct weir_value x,
                                                const struct weir_linear_attention_call *call);
struct weir_value weir_program_rope(struct weir_program *p, struct weir_value x, uint32_t heads, uint32_t head_dim,
                                    float theta);

struct weir_value weir_program_embed(struct weir_program *p, const struct weir_packed *layer, struct weir_value ids);
struct weir_value weir_program_timestep_embedding(struct weir_program *p, struct weir_value t, uint32_t dim,
                                                  bool flip_sin_to_cos, float downscale_freq_shift);
struct weir_value weir_program_activate(struct weir_program *p, struct weir_value x, enum weir_activation activation);
void weir_program_activate_into(struct weir_program *p, struct weir_value x, enum weir_activation activation,
                                struct weir_value y);
struct weir_value weir_program_concat(struct weir_program *p, struct weir_value a, struct weir_value b);
struct weir_value weir_program_regroup(struct weir_program *p, struct weir_value x, uint32_t channels);
/* residual: or none; of y's dims. */
struct weir_value weir_program_pixel_shuffle(struct weir_program *p, struct weir_value x, uint32_t channels,
                                             struct weir_value residual);
struct weir_value weir_program_pixel_unshuffle(struct weir_program *p, struct weir_value x, uint32_t channels,
                                               struct weir_value residual);
/* x has the extern or input dims [items, C, T, H, W] read as {rows = items, frames = C, height = T, width = H * W}. */
struct weir_value weir_program_latents_pack(struct weir_program *p, struct weir_value x, uint32_t copies, float factor,
                                            const struct weir_dims *packed_dims);
/* The same, scaled by the sampler's row k of each item: what the network is given. */
struct weir_value weir_program_latents_pack_scaled(struct weir_program *p, struct weir_value x, struct weir_value k,
                                                   uint32_t copies, float factor, const struct weir_dims *packed_dims);
struct weir_value weir_program_guidance(struct weir_program *p, struct weir_value x, struct weir_value scale,
                                        uint32_t copies);
void weir_program_sampler_step(struct weir_program *p, struct weir_value x, struct weir_value m,
                               struct weir_value previous, struct weir_value k);
struct weir_value weir_program_to_rgb8(struct weir_program *p, struct weir_value x, bool round);

/* Places all values; an op may write over an operand that dies there. After it the program is read-only. A failed
 * program may only be destroyed. Reports the first error of the builder. */
enum weir_status weir_program_finish(struct weir_program *p, struct weir_error *error);

/* Bytes of the arena (values and shared workspace), known after finish. */
size_t weir_program_arena_bytes(const struct weir_program *p);
/* Where an input or output lies in the arena; a name that is unknown or lies elsewhere is our own fault and asserts. */
size_t weir_program_offset(const struct weir_program *p, const char *name);
size_t weir_program_bytes(const struct weir_program *p, const char *name);
uint32_t weir_program_op_count(const struct weir_program *p);

struct weir_binding {
    const char *name;
    void *memory;
};
/* Enqueues all ops. `bindings` gives memory to every extern and whatever lies elsewhere; one left out is our own
 * fault and asserts. */
enum weir_status weir_program_run(const struct weir_program *p, struct weir_stream *stream, void *arena,
                                  const struct weir_binding *bindings, size_t binding_count);

/* The same, measured: waits for each op and adds its time to times[0..op_count-1]. For bench tools. */
struct weir_program_time {
    enum weir_op op;
    const char *layer; /* its name, or "" */
    uint64_t ns;
};
enum weir_status weir_program_profile(const struct weir_program *p, struct weir_stream *stream, void *arena,
                                      const struct weir_binding *bindings, size_t binding_count,
                                      struct weir_program_time *times, struct weir_error *error);

#endif
