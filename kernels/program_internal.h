/* program_internal: what program.c (building, placing, running) and program_ops.c (the ops' builders) share.
 *
 * Errors   the first one sticks in the program: every function here does nothing after it, and says so by false or none
 * Threads  as program.h: one builds
 */
#ifndef WEIR_KERNELS_PROGRAM_INTERNAL_H
#define WEIR_KERNELS_PROGRAM_INTERNAL_H

#include "kernels/check.h"
#include "kernels/program.h"

#define NAME_BYTES_MAX 64
#define OPS_MAX (1u << 20) /* a network of 1.4 G parameters has 3,000 */

struct value {
    struct weir_dims dims;
    enum weir_dtype dtype;
    uint32_t storage;
    size_t offset; /* bytes from the storage's begin: of a part of another value */
};

struct storage {
    size_t bytes, offset;
    uint32_t first, last; /* time; first 0 before anything wrote it */
    uint32_t same_as;     /* itself, or the storage that it was merged into */
    uint32_t external;    /* index + 1 among the externs, or 0 */
    bool input, kept;     /* an input; an input or output: never merged */
};

struct op {
    struct weir_plan *plan;
    const struct weir_packed *layer; /* or NULL; for profiles */
    struct weir_value operands[WEIR_OPERANDS_MAX];
    uint32_t y, y_may_be; /* operand indices; y_may_be = WEIR_OPERANDS_MAX when y must be apart */
};

struct named {
    char name[NAME_BYTES_MAX];
    struct weir_value value;
    bool external;
};

struct weir_program {
    struct weir_device *device;
    enum weir_dtype dtype;
    struct value *values; /* [0] is "none" */
    uint32_t value_count, value_room;
    struct storage *storages;
    uint32_t storage_count, storage_room;
    struct op *ops;
    uint32_t op_count, op_room;
    struct named names[WEIR_PROGRAM_NAMES_MAX];
    uint32_t name_count, extern_count;
    size_t workspace_bytes, workspace_offset, arena_bytes;
    enum weir_status status; /* sticky */
    struct weir_error error;
    bool finished;
    struct weir_program_graphs *graphs; /* or NULL: the device has none */
};

static const struct weir_value weir_program_none = { 0 };

#define FAIL(p, code, ...) ((p)->status = weir_fail(&(p)->error, code, __VA_ARGS__))

/* Elements of a row. The dims of existing values were checked when they were made. */
static inline uint64_t row_elements(const struct weir_dims *d)
{
    return (uint64_t)d->frames * d->height * d->width * d->channels;
}

static inline uint32_t tokens_of(const struct weir_dims *d)
{
    return d->frames * d->height * d->width;
}

/* The dims of a value that is to be made: BAD_SHAPE in the words of `what` when they are impossible. */
bool weir_program_check_dims(struct weir_program *p, const char *what, const struct weir_dims *d);
/* A new value with a storage of its own, which the next op writes. */
struct weir_value weir_program_add_value(struct weir_program *p, const char *what, enum weir_dtype dtype,
                                         const struct weir_dims *dims);

/* "linear fc1: residual is [..] i32, but must be [..] f32" */
bool weir_program_check_operand(struct weir_program *p, enum weir_op op, const struct weir_packed *layer,
                                const char *what, struct weir_value value, enum weir_dtype dtype,
                                const struct weir_dims *wanted);
/* That the layer given is one of this op. */
bool weir_program_check_layer(struct weir_program *p, enum weir_op op, const struct weir_packed *layer);

/* Appends a planned op. `y` and `y_may_be` as in struct op; ops that update in place give y = WEIR_OPERANDS_MAX. */
void weir_program_add_op(struct weir_program *p, enum weir_op op, const struct weir_packed *layer, const void *shape,
                         const struct weir_value operands[WEIR_OPERANDS_MAX], uint32_t y, uint32_t y_may_be);
#define OPERANDS(...) ((const struct weir_value[WEIR_OPERANDS_MAX]){ __VA_ARGS__ })
#define APART WEIR_OPERANDS_MAX

/* Enqueues every op; `memory` is that of the externs, by their number. */
enum weir_status weir_program_run_ops(const struct weir_program *p, struct weir_stream *stream, void *arena,
                                      void *const memory[]);

/* Graphs (program_graphs.c). create makes none, and says OK, on a device that has none. */
#define WEIR_PROGRAM_GRAPHS_MAX 8
enum weir_status weir_program_graphs_create(struct weir_program *p, struct weir_error *error);
void weir_program_graphs_destroy(struct weir_program *p);
enum weir_status weir_program_graphs_run(const struct weir_program *p, struct weir_stream *stream, void *arena,
                                         void *const memory[]);

#endif
