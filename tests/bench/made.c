#include "tests/bench/made.h"

#include "tests/bench/marks.h"
#include "tests/kernels/run_cases.h"

#include <assert.h>

#define POOL ((size_t)1 << 22) /* normal numbers, used again and again */

static struct {
    struct weir_ops ops;            /* ours */
    struct weir_device_table table; /* ours */
    const struct weir_ops *inner_ops;
    const struct weir_device_table *inner_table;
    float *pool;
    size_t at;
    struct weir_made_op *noted;
    size_t count, room, profiled;
    bool profiling;
    struct weir_marks *marks;
} made;

void weir_made_values(float *to, size_t count, float scale, float offset)
{
    while (count > 0) {
        const size_t here = count < POOL - made.at ? count : POOL - made.at;
        const float *from = made.pool + made.at;
        for (size_t i = 0; i < here; i++) to[i] = from[i] * scale + offset;
        made.at = (made.at + here) % POOL;
        to += here;
        count -= here;
    }
}

static bool is_norm(enum weir_op op)
{
    return op == WEIR_OP_GROUP_NORM || op == WEIR_OP_LAYER_NORM || op == WEIR_OP_RMS_NORM;
}

static enum weir_status pack(struct weir_device *device, const struct weir_parameters *given, struct weir_packed **out,
                             struct weir_error *error)
{
    struct weir_parameters q = *given;
    if (!q.shape_only) return made.inner_ops->pack(device, given, out, error);
    const enum weir_status checked = weir_check_parameters(&q, error);
    if (checked != WEIR_OK) return checked;
    const size_t weights = weir_weight_count(&q), biases = q.bias ? weir_bias_count(&q) : 0;
    float *weight = malloc(weights * sizeof *weight), *bias = biases ? malloc(biases * sizeof *bias) : NULL;
    enum weir_status status;
    if (!weight || (biases && !bias)) {
        status = weir_fail(error, WEIR_NO_MEMORY, "no memory for %zu made values", weights + biases);
    } else {
        const double terms = q.op == WEIR_OP_EMBED || q.op == WEIR_OP_TABLE_ADD ? 1 : (double)weights / q.out;
        const float scale = is_norm(q.op) ? 0.1f : (float)(1 / sqrt(terms));
        weir_made_values(weight, weights, scale, is_norm(q.op) ? 1 : 0);
        if (biases) weir_made_values(bias, biases, 0.1f, 0);
        q.weight = weight;
        q.bias = bias;
        q.shape_only = false;
        status = made.inner_ops->pack(device, &q, out, error);
    }
    free(weight);
    free(bias);
    return status;
}

/* --- what is planned ---------------------------------------------------------------------------------------------- */

static void name_op(const struct kernel_case *c, char *out, size_t room)
{
    const char *op = weir_op_name(c->op);
    switch (c->op) {
    case WEIR_OP_LINEAR: {
        const struct weir_linear *s = &c->shape.linear;
        snprintf(out, room, "%s %u x %u -> %u act %d%s%s", op, s->tokens, s->in, s->out, s->activation,
                 s->gate_vectors ? " gate" : "", s->residual ? " residual" : "");
        break;
    }
    case WEIR_OP_CONV2D: {
        const struct weir_conv2d *s = &c->shape.conv2d;
        snprintf(out, room, "%s %u of %u x %u, %u -> %u, k%u%s%s%s", op, s->frames, s->height, s->width, s->in, s->out,
                 s->kernel, s->resize_height ? " resize" : "", s->row_bias ? " row_bias" : "",
                 s->residual ? " residual" : "");
        break;
    }
    case WEIR_OP_CONV_TEMPORAL: {
        const struct weir_conv_temporal *s = &c->shape.conv_temporal;
        snprintf(out, room, "%s %u x %u, %u -> %u%s", op, s->frames, s->pixels, s->in, s->out,
                 s->residual ? " residual" : "");
        break;
    }
    case WEIR_OP_ATTENTION: {
        const struct weir_attention *s = &c->shape.attention;
        snprintf(out, room, "%s %u of %u x %u, %u heads of %u", op, s->sequences, s->query_length, s->key_length,
                 s->heads, s->head_dim);
        break;
    }
    default: {
        const struct operand_sizes n = sizes_of(c);
        snprintf(out, room, "%s of %zu", op, n.row[n.y]);
    }
    }
}

static void note(enum weir_op op, const void *shape, size_t shape_bytes)
{
    struct kernel_case c = { .op = op };
    if (made.count == made.room) {
        made.room = made.room ? 2 * made.room : 1024;
        made.noted = realloc(made.noted, made.room * sizeof *made.noted);
        if (!made.noted) abort();
    }
    memcpy(&c.shape, shape, shape_bytes);
    const struct operand_sizes sizes = sizes_of(&c);
    struct weir_parameters q = parameters_of(&c);
    struct weir_made_op *to = &made.noted[made.count++];
    double values = 0;
    for (size_t i = 0; i < WEIR_OPERANDS_MAX; i++) values += (double)sizes.row[i] * c.shape.linear.rows;
    if (q.out && op != WEIR_OP_EMBED) {
        q.weight = (const float[]){ 0 };
        values += (double)weir_weight_count(&q);
    }
    *to = (struct weir_made_op){ .op = op, .flops = flops_of(&c) };
    to->bytes = values * (double)weir_dtype_bytes(dtype_of(&c));
    name_op(&c, to->label, sizeof to->label);
}

#define X(op, OP)                                                                                                      \
    static enum weir_status plan_##op(struct weir_device *device, const struct weir_packed *packed, const void *shape, \
                                      struct weir_plan **out, size_t *workspace_bytes, struct weir_error *error)       \
    {                                                                                                                  \
        const enum weir_status status =                                                                                \
            made.inner_ops->plan[WEIR_OP_##OP](device, packed, shape, out, workspace_bytes, error);                    \
        if (status == WEIR_OK) note(WEIR_OP_##OP, shape, sizeof(struct weir_##op));                                    \
        return status;                                                                                                 \
    }
WEIR_OP_TABLE(X)
#undef X

void weir_made_count(void)
{
    made.count = 0;
}

const struct weir_made_op *weir_made_ops(size_t *count)
{
    *count = made.count;
    return made.noted;
}

/* --- how long it takes -------------------------------------------------------------------------------------------- */

static enum weir_status run(const struct weir_plan *plan, struct weir_stream *stream, void *const operands[],
                            void *workspace)
{
    if (!made.profiling) return made.inner_ops->run(plan, stream, operands, workspace);
    weir_marks_set(made.marks, 2 * made.profiled, stream);
    const enum weir_status status = made.inner_ops->run(plan, stream, operands, workspace);
    weir_marks_set(made.marks, 2 * made.profiled++ + 1, stream);
    return status;
}

/* A profile waits for nothing between ops: the marks lie in the stream. */
static enum weir_status stream_sync(struct weir_stream *stream, struct weir_error *error)
{
    return made.profiling ? WEIR_OK : made.inner_table->stream_sync(stream, error);
}

enum weir_status weir_made_profile(const struct weir_program *p, struct weir_stream *stream, void *arena,
                                   const struct weir_binding *bindings, size_t binding_count, struct weir_error *error)
{
    const size_t count = weir_program_op_count(p);
    struct weir_program_time *times = calloc(count, sizeof *times);
    enum weir_status status = WEIR_OK;
    assert(times && count == made.count);
    made.profiled = 0;
    made.marks = weir_marks_create(2 * count);
    /* The device is kept busy meanwhile, so that ops wait for one another and not for us. */
    for (int i = 0; i < 2 && status == WEIR_OK; i++) {
        status = weir_program_run(p, stream, arena, bindings, binding_count);
    }
    made.profiling = true;
    if (status == WEIR_OK) status = weir_program_profile(p, stream, arena, bindings, binding_count, times, error);
    made.profiling = false;
    if (status == WEIR_OK) status = made.inner_table->stream_sync(stream, error);
    for (size_t i = 0; i < count && status == WEIR_OK; i++) {
        made.noted[i].ms = weir_marks_ms(made.marks, 2 * i, 2 * i + 1);
    }
    weir_marks_destroy(made.marks);
    free(times);
    return status;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum weir_status weir_made_tap(struct weir_device *device, struct weir_error *error)
{
    uint64_t seed = 1;
    made.pool = malloc(POOL * sizeof *made.pool);
    if (!made.pool) return weir_fail(error, WEIR_NO_MEMORY, "no memory for made values");
    for (size_t i = 0; i < POOL; i++) made.pool[i] = random_normal(&seed);
    made.inner_ops = device->ops;
    made.inner_table = device->table;
    made.ops = *device->ops;
    made.table = *device->table;
    made.ops.pack = pack;
    made.ops.run = run;
    made.table.stream_sync = stream_sync;
#define X(op, OP) made.ops.plan[WEIR_OP_##OP] = plan_##op;
    WEIR_OP_TABLE(X)
#undef X
    device->ops = &made.ops;
    device->table = &made.table;
    return WEIR_OK;
}

void weir_made_untap(struct weir_device *device)
{
    device->ops = made.inner_ops;
    device->table = made.inner_table;
    free(made.pool);
    free(made.noted);
    memset(&made, 0, sizeof made);
}
