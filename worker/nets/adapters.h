/* adapters: low-rank products (LoRA) that a program adds to linears of some of its rows, each item its own.
 *
 * A builder asks for its linears here instead of from program.h and params.h. Without adapters it gets the very ops it
 * got without this file. With them, rows that a set covers get its products; all others get the bytes they have alone.
 * What a program depends on is which linears are adapted and at which rank; the matrices themselves are in one extern
 * that the caller binds at run time, so that another adapter of the same shape needs no other program.
 *
 *   struct weir_adapted adapted = weir_adapted_begin(p, params, adapters);
 *   q = weir_adapted_linear(&adapted, &shape, x, NULL, "%s.to_q", prefix);
 *
 * Shapes   the extern "adapters", f32: set after set, part after part, a [in, rank] and b [rank, out], each from a
 *          multiple of 16 floats on. b has the weight of the adapter in it, and alpha / rank
 * Memory   sets and shapes are borrowed while a program is built
 * Errors   those of the program
 * Threads  as program.h
 * Source   Hu et al., arXiv:2106.09685
 */
#ifndef WEIR_WORKER_NETS_ADAPTERS_H
#define WEIR_WORKER_NETS_ADAPTERS_H

#include "worker/nets/params.h"

#define WEIR_ADAPTERS_NAME "adapters"

/* Which linears of a network one item adapts. */
struct weir_adapter_part {
    uint32_t part; /* its number: weir_params_part_find */
    uint32_t rank; /* of all adapters of the item together, at least 1 */
};
struct weir_adapter_shape {
    struct weir_adapter_part *parts; /* in rising order of `part`, each once */
    uint32_t count;
};

/* One item's. Sets come in rising order of rows, and no row has two. */
struct weir_adapter_set {
    uint32_t first_row, row_count;
    const struct weir_adapter_shape *shape;
};
struct weir_adapters {
    const struct weir_adapter_set *sets;
    uint32_t count; /* 0: none */
};

/* Where the matrices of a part lie, in floats from the begin of a set. */
struct weir_adapter_place {
    uint64_t a, b, end;
};
/* Of the part that begins at float `at`; the next begins at `end`. */
struct weir_adapter_place weir_adapter_place(struct weir_params_part part, uint32_t rank, uint64_t at);
/* Floats of one set. */
uint64_t weir_adapter_floats(const struct weir_params *params, const struct weir_adapter_shape *shape);
bool weir_adapter_shapes_equal(const struct weir_adapter_shape *a, const struct weir_adapter_shape *b);

struct weir_adapted {
    struct weir_program *p;
    struct weir_params *params;
    struct weir_adapters adapters;
    struct weir_value factors; /* or none */
};
/* Adds the extern when there are adapters. NULL: none. */
struct weir_adapted weir_adapted_begin(struct weir_program *p, struct weir_params *params,
                                       const struct weir_adapters *adapters);
/* weir_program_linear of weir_params_linear, with what the adapters add to it before the activation. Where they add
 * something, an activation comes without residual and gate. */
struct weir_value weir_adapted_linear(const struct weir_adapted *adapted, const struct weir_linear_params *shape,
                                      struct weir_value x, const struct weir_linear_call *call, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

#endif
