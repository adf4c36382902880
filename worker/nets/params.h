/* params: a network's layers, taken from its weights by name and packed for a device.
 *
 * A builder asks for a layer where it uses it. The first time, the tensors are found, checked and packed, one by one in
 * f32 or, where the device has loads (ops.h), all at once as they lie in their files; after that the same name gives the same layer. So a network is written once, as its builder, and opening it
 * is building it once into a program that plans nothing (weir_params_program).
 *
 *   const struct weir_linear_params shape = { .in = 64, .out = 128, .bias = true };
 *   h = weir_program_linear(p, weir_params_linear(params, &shape, "%s.proj_in", prefix), h, NULL);
 *
 * Errors   the first one sticks: from then on every layer is NULL, and weir_params_status() tells what it was. The
 *          words name the file, the tensor, and both shapes
 * Memory   layers live as long as the params; the weights are borrowed until seal()
 * Threads  one, until weir_params_seal(); then any number
 */
#ifndef WEIR_WORKER_NETS_PARAMS_H
#define WEIR_WORKER_NETS_PARAMS_H

#include "kernels/program.h"

#define WEIR_PARAMS_NAME_MAX 192 /* bytes of a layer's name; longer ones are our own fault */
#define WEIR_PARAMS_STACK_MAX 4

struct weir_weights;
struct weir_params;

/* `dtype` is that of activations; what the layers' products read is the device's precision.
 * `weights` NULL: nothing is read, layers know their shapes alone. Programs can be planned with them, not run. */
enum weir_status weir_params_create(struct weir_device *device, const struct weir_weights *weights,
                                    enum weir_dtype dtype, struct weir_params **out, struct weir_error *error);
void weir_params_destroy(struct weir_params **params_p);

/* True when the weights have a tensor of that name (with shapes alone: never). */
bool weir_params_has(const struct weir_params *params, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A stack: `parts` layers of the same input as one, their outputs side by side in order ("to_q", "to_k", "to_v").
 * With parts 0 the layer is the one tensor of the name; else its names are NAME.PART. */
struct weir_linear_params {
    uint32_t in, out; /* out: of all parts together, each the same */
    bool bias, geglu;
    uint32_t parts;
    const char *part[WEIR_PARAMS_STACK_MAX];
};
const struct weir_packed *weir_params_linear(struct weir_params *params, const struct weir_linear_params *shape,
                                             const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The linears asked for so far, each part of a stack by itself, by the name of its tensors without ".weight". Numbered
 * from 0 in the order of asking: alike for all networks of one config. */
struct weir_params_part {
    const char *name; /* lives as long as the params */
    uint32_t in, out;
};
#define WEIR_PARAMS_NO_PART UINT32_MAX
uint32_t weir_params_part_count(const struct weir_params *params);
struct weir_params_part weir_params_part_at(const struct weir_params *params, uint32_t number);
uint32_t weir_params_part_find(const struct weir_params *params, const char *name); /* or NO_PART */
/* What the layer of that name is when it is no linear: "conv2d"; NULL when there is none. */
const char *weir_params_kind(const struct weir_params *params, const char *name);

/* NAME.weight [out, in / groups] or [out, in / groups, 1, 1], no bias */
const struct weir_packed *weir_params_grouped_linear(struct weir_params *params, uint32_t in, uint32_t out,
                                                     uint32_t groups, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

struct weir_conv2d_params {
    uint32_t in, out, kernel;
    bool no_bias;
    bool doubled; /* runs behind a resize to twice the size, if it can */
};
const struct weir_packed *weir_params_conv2d(struct weir_params *params, const struct weir_conv2d_params *shape,
                                             const char *format, ...) __attribute__((format(printf, 3, 4)));
/* [out, in, 3, 1, 1] with bias */
const struct weir_packed *weir_params_conv_temporal(struct weir_params *params, uint32_t in, uint32_t out,
                                                    const char *format, ...) __attribute__((format(printf, 4, 5)));
/* NAME.weight and NAME.bias, both [channels] */
const struct weir_packed *weir_params_group_norm(struct weir_params *params, uint32_t channels, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
const struct weir_packed *weir_params_layer_norm(struct weir_params *params, uint32_t channels, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* NAME.weight [channels, 1, kernel, kernel], NAME.bias [channels] when bias */
const struct weir_packed *weir_params_depthwise_conv(struct weir_params *params, uint32_t channels, uint32_t kernel,
                                                     bool bias, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* With parts: those of a stacked linear, each normed by itself, with names as there. */
struct weir_rms_norm_params {
    uint32_t channels; /* of all parts together, each the same */
    bool bias;         /* NAME.bias too */
    bool unit_offset;  /* what counts is 1 + NAME.weight (Gemma) */
    uint32_t parts;
    const char *part[WEIR_PARAMS_STACK_MAX];
};
const struct weir_packed *weir_params_rms_norm(struct weir_params *params, const struct weir_rms_norm_params *shape,
                                               const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The tensor of that very name (it ends in no .weight), [vectors, channels] */
const struct weir_packed *weir_params_table(struct weir_params *params, uint32_t vectors, uint32_t channels,
                                            const char *format, ...) __attribute__((format(printf, 4, 5)));
/* `count` of them as one, in order: PREFIX.NUMBER.NAME from 0 on, each [vectors, channels] */
const struct weir_packed *weir_params_tables(struct weir_params *params, uint32_t count, uint32_t vectors,
                                             uint32_t channels, const char *prefix, const char *name);
/* A table of rows and a table of positions (positions 0: none), which have names of their own. Rows are multiplied by
 * `scale` (0: not) in f32. */
struct weir_embed_params {
    uint32_t vocabulary, positions, channels;
    float scale;
};
const struct weir_packed *weir_params_embed(struct weir_params *params, const struct weir_embed_params *shape,
                                            const char *table, const char *positions);

/* A program that builders may write into for their layers alone: nothing in it is planned, for a device may make a
 * layer larger for each shape that it plans. Finishing it fails. */
enum weir_status weir_params_program(const struct weir_params *params, struct weir_program **out,
                                     struct weir_error *error);

enum weir_status weir_params_status(const struct weir_params *params, struct weir_error *error);
/* No more layers: asking for a new one is our own fault from here on. Waits until all are where they belong; then what
 * weir_params_status() says. Before it, a layer may be planned with, not run. */
enum weir_status weir_params_seal(struct weir_params *params, struct weir_error *error);
/* Packed, on the device: also what planning has added since, for shapes that want their weights laid out otherwise. */
uint64_t weir_params_bytes(const struct weir_params *params);
uint64_t weir_params_count(const struct weir_params *params); /* numbers in the layers packed */

#endif
