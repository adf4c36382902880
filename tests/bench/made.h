/* made: a device that fills layers by itself and keeps account of what is planned and of how long it takes.
 *
 * weir_made_tap() puts functions of its own before those of a device:
 *   pack   a layer of which only the shape is known gets made values: normal numbers of a fixed seed, in products divided
 *          by the root of the terms of a sum, in norms about 1. So a network that is opened without weights can be run
 *   plan   between weir_made_count() and the next one each op is noted, in the order of its program
 *   run    while weir_made_profile() runs a program, each op is measured by itself
 *
 * Threads  one
 */
#ifndef WEIR_TESTS_BENCH_MADE_H
#define WEIR_TESTS_BENCH_MADE_H

#include "kernels/program.h"

struct weir_made_op {
    enum weir_op op;
    char label[112];     /* "linear 1024 x 2240 -> 6720" */
    double flops, bytes; /* of its products; of its operands and weights, each once */
    double ms;           /* of the last profile */
};

enum weir_status weir_made_tap(struct weir_device *device, struct weir_error *error);
void weir_made_untap(struct weir_device *device);

void weir_made_count(void);                              /* begins anew */
const struct weir_made_op *weir_made_ops(size_t *count); /* until the next call of count */

/* Runs the program once, each op measured. */
enum weir_status weir_made_profile(const struct weir_program *p, struct weir_stream *stream, void *arena,
                                   const struct weir_binding *bindings, size_t binding_count, struct weir_error *error);

/* `count` normal numbers times `scale` plus `offset`. */
void weir_made_values(float *to, size_t count, float scale, float offset);

#endif
