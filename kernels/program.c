/* How it works. Every value is a view of a storage: a run of bytes with a first and a last op. Building appends values,
 * storages and ops; finish() lets an op write over an operand that dies there where ops.h allows it, then places the
 * storages, largest first, each at the lowest offset that is free during its whole life. Largest first wastes least
 * with the few big and many small values of a network, and needs no search. All workspaces share one region behind
 * them, so that it stays in the caches.
 *
 * Storage lives are in units of ops: op i reads and writes at time i + 1; inputs live from time 0 and outputs until the
 * time after the last op. */
#include "kernels/program.h"

#include "kernels/check.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NAME_BYTES_MAX 64
#define OPS_MAX (1u << 20) /* a network of 1.4 G parameters has 3,000 */

struct value {
    struct weir_dims dims;
    enum weir_dtype dtype;
    uint32_t storage;
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
};

enum weir_status weir_program_create(struct weir_device *device, enum weir_dtype dtype, struct weir_program **out)
{
    struct weir_program *p = calloc(1, sizeof *p);
    *out = NULL;
    if (!p) return WEIR_NO_MEMORY;
    p->device = device;
    p->dtype = dtype;
    p->values = calloc(1, sizeof *p->values);
    if (!p->values) {
        free(p);
        return WEIR_NO_MEMORY;
    }
    p->value_count = p->value_room = 1;
    *out = p;
    return WEIR_OK;
}

void weir_program_destroy(struct weir_program **program)
{
    struct weir_program *p = *program;
    if (!p) return;
    for (uint32_t i = 0; i < p->op_count; i++) p->device->ops->plan_destroy(p->ops[i].plan);
    free(p->values);
    free(p->storages);
    free(p->ops);
    free(p);
    *program = NULL;
}

/* --- building ----------------------------------------------------------------------------------------------------- */

static const struct weir_value none = { 0 };

#define FAIL(p, code, ...) ((p)->status = weir_fail(&(p)->error, code, __VA_ARGS__))

/* Room for one more element of an array that doubles; false and the sticky error when there is none. */
static bool make_room(struct weir_program *p, void **array, uint32_t count, uint32_t *room, size_t element_bytes)
{
    if (count < *room) return true;
    const uint32_t wanted = *room ? *room * 2 : 64;
    void *grown = wanted <= OPS_MAX * 2 ? realloc(*array, (size_t)wanted * element_bytes) : NULL;
    if (!grown) {
        FAIL(p, WEIR_NO_MEMORY, "no memory for a program of %u parts", wanted);
        return false;
    }
    *array = grown;
    *room = wanted;
    return true;
}

/* Elements of a row. The dims of existing values were checked when they were made. */
static uint64_t row_elements(const struct weir_dims *d)
{
    return (uint64_t)d->frames * d->height * d->width * d->channels;
}

static uint32_t tokens_of(const struct weir_dims *d)
{
    return d->frames * d->height * d->width;
}

static bool check_dims(struct weir_program *p, const char *what, const struct weir_dims *d)
{
    uint64_t ignored, tokens;
    const uint32_t all[] = { d->rows, d->frames, d->height, d->width, d->channels };
    if (weir_elements(all, WEIR_COUNT(all), &ignored) && weir_elements(all, 4, &tokens) &&
        tokens <= WEIR_DIMENSION_MAX) {
        return true;
    }
    FAIL(p, WEIR_BAD_SHAPE, "%s has the dimensions [%u, %u, %u, %u, %u]; each must be at least 1 and all at most 2^40",
         what, d->rows, d->frames, d->height, d->width, d->channels);
    return false;
}

static struct weir_value add_view(struct weir_program *p, enum weir_dtype dtype, const struct weir_dims *dims,
                                  uint32_t storage)
{
    if (!make_room(p, (void **)&p->values, p->value_count, &p->value_room, sizeof *p->values)) return none;
    p->values[p->value_count] = (struct value){ .dims = *dims, .dtype = dtype, .storage = storage };
    return (struct weir_value){ p->value_count++ };
}

static struct weir_value add_value(struct weir_program *p, const char *what, enum weir_dtype dtype,
                                   const struct weir_dims *dims)
{
    if (p->status != WEIR_OK || !check_dims(p, what, dims)) return none;
    if (!make_room(p, (void **)&p->storages, p->storage_count, &p->storage_room, sizeof *p->storages)) return none;
    const uint32_t storage = p->storage_count++;
    p->storages[storage] = (struct storage){
        .bytes = (size_t)(dims->rows * row_elements(dims)) * weir_dtype_bytes(dtype),
        .same_as = storage,
    };
    return add_view(p, dtype, dims, storage);
}

static void add_name(struct weir_program *p, const char *name, struct weir_value value, bool external)
{
    if (p->status != WEIR_OK) return;
    if (p->name_count == WEIR_PROGRAM_NAMES_MAX || strlen(name) >= NAME_BYTES_MAX) {
        FAIL(p, WEIR_TOO_LARGE, "%s: a program has at most %d names of at most %d bytes", name, WEIR_PROGRAM_NAMES_MAX,
             NAME_BYTES_MAX - 1);
        return;
    }
    for (uint32_t i = 0; i < p->name_count; i++) assert(strcmp(p->names[i].name, name) != 0);
    struct named *named = &p->names[p->name_count++];
    snprintf(named->name, sizeof named->name, "%s", name);
    named->value = value;
    named->external = external;
}

struct weir_value weir_program_input(struct weir_program *p, const char *name, enum weir_dtype dtype,
                                     const struct weir_dims *dims)
{
    const struct weir_value value = add_value(p, name, dtype, dims);
    if (p->status == WEIR_OK) {
        struct storage *storage = &p->storages[p->values[value.index].storage];
        storage->input = storage->kept = true;
    }
    add_name(p, name, value, false);
    return value;
}

struct weir_value weir_program_extern(struct weir_program *p, const char *name, enum weir_dtype dtype,
                                      const struct weir_dims *dims)
{
    const struct weir_value value = add_value(p, name, dtype, dims);
    if (p->status == WEIR_OK) p->storages[p->values[value.index].storage].external = ++p->extern_count;
    add_name(p, name, value, true);
    return value;
}

/* Asserts: a value of another program, or one never made, is our own fault. */
static const struct value *value_of(const struct weir_program *p, struct weir_value value)
{
    assert(value.index > 0 && value.index < p->value_count);
    return &p->values[value.index];
}

void weir_program_output(struct weir_program *p, const char *name, struct weir_value value)
{
    if (p->status != WEIR_OK) return;
    p->storages[value_of(p, value)->storage].kept = true;
    add_name(p, name, value, false);
}

struct weir_dims weir_program_dims(const struct weir_program *p, struct weir_value value)
{
    if (p->status != WEIR_OK || value.index == 0) return (struct weir_dims){ 0 };
    return value_of(p, value)->dims;
}

struct weir_value weir_program_view(struct weir_program *p, struct weir_value value, const struct weir_dims *dims)
{
    if (p->status != WEIR_OK || !check_dims(p, "a view", dims)) return none;
    const struct value *v = value_of(p, value);
    if (dims->rows != v->dims.rows || row_elements(dims) != row_elements(&v->dims)) {
        FAIL(p, WEIR_BAD_SHAPE, "a view of [%u, %u, %u, %u, %u] as [%u, %u, %u, %u, %u] changes a row's size",
             v->dims.rows, v->dims.frames, v->dims.height, v->dims.width, v->dims.channels, dims->rows, dims->frames,
             dims->height, dims->width, dims->channels);
        return none;
    }
    return add_view(p, v->dtype, dims, v->storage);
}

/* Appends a planned op. `y` and `y_may_be` as in struct op; ops that update in place give y = WEIR_OPERANDS_MAX. */
static void add_op(struct weir_program *p, enum weir_op op, const struct weir_packed *layer, const void *shape,
                   const struct weir_value operands[WEIR_OPERANDS_MAX], uint32_t y, uint32_t y_may_be)
{
    size_t workspace_bytes = 0;
    if (p->status != WEIR_OK) return;
    assert(!p->finished);
    if (p->op_count == OPS_MAX) {
        FAIL(p, WEIR_TOO_LARGE, "a program has at most %u ops", OPS_MAX);
        return;
    }
    if (!make_room(p, (void **)&p->ops, p->op_count, &p->op_room, sizeof *p->ops)) return;
    struct op *added = &p->ops[p->op_count];
    p->status = p->device->ops->plan[op](p->device, layer, shape, &added->plan, &workspace_bytes, &p->error);
    if (p->status != WEIR_OK) return;
    if (workspace_bytes > p->workspace_bytes) p->workspace_bytes = workspace_bytes;
    added->layer = layer;
    memcpy(added->operands, operands, sizeof added->operands);
    added->y = y;
    added->y_may_be = y_may_be;
    const uint32_t time = ++p->op_count;
    for (size_t i = 0; i < WEIR_OPERANDS_MAX; i++) {
        if (operands[i].index == 0) continue;
        struct storage *storage = &p->storages[value_of(p, operands[i])->storage];
        assert(i == y || storage->first > 0 || storage->input || storage->external); /* read before written */
        if (storage->first == 0) storage->first = time;
        storage->last = time;
    }
}
#define OPERANDS(...) ((const struct weir_value[WEIR_OPERANDS_MAX]){ __VA_ARGS__ })
#define APART WEIR_OPERANDS_MAX

/* "linear fc1: residual is [..] i32, but must be [..] f32" */
static bool check_operand(struct weir_program *p, enum weir_op op, const struct weir_packed *layer, const char *what,
                          struct weir_value value, enum weir_dtype dtype, const struct weir_dims *wanted)
{
    if (p->status != WEIR_OK) return false;
    const struct value *v = value_of(p, value);
    const struct weir_dims *d = &v->dims;
    if (v->dtype == dtype && (!wanted || (d->rows == wanted->rows && tokens_of(d) == tokens_of(wanted) &&
                                          d->channels == wanted->channels))) {
        return true;
    }
    const char *name = layer && layer->name[0] ? layer->name : "";
    if (v->dtype != dtype) {
        FAIL(p, WEIR_BAD_SHAPE, "%s %s: %s has dtype %d, but must have %d", weir_op_name(op), name, what, (int)v->dtype,
             (int)dtype);
    } else {
        FAIL(p, WEIR_BAD_SHAPE, "%s %s: %s is [%u, %u, %u], but must be [%u, %u, %u] (rows, tokens, channels)",
             weir_op_name(op), name, what, d->rows, tokens_of(d), d->channels, wanted->rows, tokens_of(wanted),
             wanted->channels);
    }
    return false;
}

static bool check_layer(struct weir_program *p, enum weir_op op, const struct weir_packed *layer)
{
    if (p->status != WEIR_OK) return false;
    if (layer && layer->op == op) return true;
    FAIL(p, WEIR_BAD_SHAPE, "%s %s: the layer given is %s", weir_op_name(op), layer ? layer->name : "",
         layer ? weir_op_name(layer->op) : "none");
    return false;
}

/* --- the ops ------------------------------------------------------------------------------------------------------ */

struct weir_value weir_program_linear(struct weir_program *p, const struct weir_packed *layer, struct weir_value x,
                                      const struct weir_linear_call *call)
{
    const struct weir_linear_call plain = { 0 };
    if (!call) call = &plain;
    if (!check_layer(p, WEIR_OP_LINEAR, layer)) return none;
    if (!check_operand(p, WEIR_OP_LINEAR, layer, "x", x, p->dtype, NULL)) return none;
    const struct weir_dims d = weir_program_dims(p, x);
    struct weir_dims y_dims = d;
    y_dims.channels = call->activation == WEIR_ACT_GEGLU ? layer->out / 2 : layer->out;
    const bool residual = call->residual.index != 0;
    if (residual && !check_operand(p, WEIR_OP_LINEAR, layer, "residual", call->residual, p->dtype, &y_dims))
        return none;
    const struct weir_value y = add_value(p, "linear's y", p->dtype, &y_dims);
    const struct weir_linear shape = { .rows = d.rows,
                                       .tokens = tokens_of(&d),
                                       .in = d.channels,
                                       .out = layer->out,
                                       .activation = call->activation,
                                       .residual = residual,
                                       .dtype = p->dtype };
    add_op(p, WEIR_OP_LINEAR, layer, &shape, OPERANDS(x, call->residual, y), WEIR_LINEAR_Y,
           residual ? WEIR_LINEAR_RESIDUAL : APART);
    return p->status == WEIR_OK ? y : none;
}

struct weir_value weir_program_conv2d(struct weir_program *p, const struct weir_packed *layer, struct weir_value x,
                                      const struct weir_conv2d_call *call)
{
    if (!check_layer(p, WEIR_OP_CONV2D, layer)) return none;
    if (!check_operand(p, WEIR_OP_CONV2D, layer, "x", x, p->dtype, NULL)) return none;
    const struct weir_dims d = weir_program_dims(p, x);
    const struct weir_conv2d shape = { .rows = d.rows,
                                       .frames = d.frames,
                                       .height = d.height,
                                       .width = d.width,
                                       .in = d.channels,
                                       .out = layer->out,
                                       .kernel = layer->kernel,
                                       .stride = call->stride ? call->stride : 1,
                                       .pad = call->pad,
                                       .pad_end = call->pad_end,
                                       .resize_height = call->resize_height,
                                       .resize_width = call->resize_width,
                                       .residual = call->residual.index != 0,
                                       .row_bias = call->row_bias.index != 0,
                                       .dtype = p->dtype };
    p->status = weir_check_conv2d(layer, &shape, &p->error); /* before the size of y is asked for */
    if (p->status != WEIR_OK) return none;
    const struct weir_conv2d_size size = weir_conv2d_size_of(&shape);
    const struct weir_dims y_dims = { d.rows, d.frames, size.height, size.width, layer->out };
    const struct weir_dims row_dims = { d.rows, 1, 1, 1, layer->out };
    if (shape.residual && !check_operand(p, WEIR_OP_CONV2D, layer, "residual", call->residual, p->dtype, &y_dims)) {
        return none;
    }
    if (shape.row_bias && !check_operand(p, WEIR_OP_CONV2D, layer, "row_bias", call->row_bias, p->dtype, &row_dims)) {
        return none;
    }
    const struct weir_value y = add_value(p, "conv2d's y", p->dtype, &y_dims);
    add_op(p, WEIR_OP_CONV2D, layer, &shape, OPERANDS(x, call->row_bias, call->residual, y), WEIR_CONV2D_Y,
           shape.residual ? WEIR_CONV2D_RESIDUAL : APART);
    return p->status == WEIR_OK ? y : none;
}

struct weir_value weir_program_conv_temporal(struct weir_program *p, const struct weir_packed *layer,
                                             struct weir_value x, struct weir_value residual)
{
    if (!check_layer(p, WEIR_OP_CONV_TEMPORAL, layer)) return none;
    if (!check_operand(p, WEIR_OP_CONV_TEMPORAL, layer, "x", x, p->dtype, NULL)) return none;
    const struct weir_dims d = weir_program_dims(p, x);
    struct weir_dims y_dims = d;
    y_dims.channels = layer->out;
    const struct weir_conv_temporal shape = { .rows = d.rows,
                                              .frames = d.frames,
                                              .pixels = d.height * d.width,
                                              .in = d.channels,
                                              .out = layer->out,
                                              .residual = residual.index != 0,
                                              .dtype = p->dtype };
    if (shape.residual && !check_operand(p, WEIR_OP_CONV_TEMPORAL, layer, "residual", residual, p->dtype, &y_dims)) {
        return none;
    }
    const struct weir_value y = add_value(p, "conv_temporal's y", p->dtype, &y_dims);
    add_op(p, WEIR_OP_CONV_TEMPORAL, layer, &shape, OPERANDS(x, residual, y), WEIR_CONV_TEMPORAL_Y,
           shape.residual ? WEIR_CONV_TEMPORAL_RESIDUAL : APART);
    return p->status == WEIR_OK ? y : none;
}

struct weir_value weir_program_group_norm(struct weir_program *p, const struct weir_packed *layer, struct weir_value x,
                                          uint32_t groups, float eps, bool silu, bool over_frames)
{
    if (!check_layer(p, WEIR_OP_GROUP_NORM, layer)) return none;
    if (!check_operand(p, WEIR_OP_GROUP_NORM, layer, "x", x, p->dtype, NULL)) return none;
    const struct weir_dims d = weir_program_dims(p, x);
    const struct weir_group_norm shape = { .rows = d.rows,
                                           .batch = over_frames ? 1 : d.frames,
                                           .pixels = d.height * d.width * (over_frames ? d.frames : 1),
                                           .channels = d.channels,
                                           .groups = groups,
                                           .eps = eps,
                                           .silu = silu,
                                           .dtype = p->dtype };
    const struct weir_value y = add_value(p, "group_norm's y", p->dtype, &d);
    add_op(p, WEIR_OP_GROUP_NORM, layer, &shape, OPERANDS(x, y), WEIR_GROUP_NORM_Y, WEIR_GROUP_NORM_X);
    return p->status == WEIR_OK ? y : none;
}

struct weir_value weir_program_layer_norm(struct weir_program *p, const struct weir_packed *layer, struct weir_value x,
                                          float eps)
{
    if (!check_layer(p, WEIR_OP_LAYER_NORM, layer)) return none;
    if (!check_operand(p, WEIR_OP_LAYER_NORM, layer, "x", x, p->dtype, NULL)) return none;
    const struct weir_dims d = weir_program_dims(p, x);
    const struct weir_layer_norm shape = {
        .rows = d.rows, .tokens = tokens_of(&d), .channels = d.channels, .eps = eps, .dtype = p->dtype
    };
    const struct weir_value y = add_value(p, "layer_norm's y", p->dtype, &d);
    add_op(p, WEIR_OP_LAYER_NORM, layer, &shape, OPERANDS(x, y), WEIR_LAYER_NORM_Y, WEIR_LAYER_NORM_X);
    return p->status == WEIR_OK ? y : none;
}

struct weir_value weir_program_attention(struct weir_program *p, const struct weir_attention_call *call)
{
    if (!check_operand(p, WEIR_OP_ATTENTION, NULL, "q", call->q, p->dtype, NULL)) return none;
    const struct weir_dims d = weir_program_dims(p, call->q), k = weir_program_dims(p, call->k),
                           v = weir_program_dims(p, call->v);
    struct weir_dims k_wanted = call->kind == WEIR_ATTENTION_TEMPORAL || call->kind == WEIR_ATTENTION_CAUSAL ? d : k;
    struct weir_dims y_dims = d;
    y_dims.channels = call->heads * call->head_dim;
    k_wanted.rows = d.rows;
    k_wanted.channels = k.channels;
    if (!check_operand(p, WEIR_OP_ATTENTION, NULL, "k", call->k, p->dtype, &k_wanted)) return none;
    k_wanted.channels = v.channels;
    if (!check_operand(p, WEIR_OP_ATTENTION, NULL, "v", call->v, p->dtype, &k_wanted)) return none;
    if (call->kind == WEIR_ATTENTION_SPATIAL && k.frames != d.frames) {
        FAIL(p, WEIR_BAD_SHAPE, "attention: queries of %u frames, keys of %u", d.frames, k.frames);
        return none;
    }

    const uint32_t pixels = d.height * d.width, key_pixels = k.height * k.width;
    struct weir_attention shape = { .rows = d.rows,
                                    .heads = call->heads,
                                    .head_dim = call->head_dim,
                                    .q_stride = d.channels,
                                    .q_channel = call->q_channel,
                                    .k_stride = k.channels,
                                    .k_channel = call->k_channel,
                                    .v_stride = v.channels,
                                    .v_channel = call->v_channel,
                                    .y_stride = y_dims.channels,
                                    .scale = call->scale,
                                    .causal = call->kind == WEIR_ATTENTION_CAUSAL,
                                    .dtype = p->dtype };
    shape.query.row_tokens = tokens_of(&d);
    shape.key.row_tokens = tokens_of(&k);
    shape.query.inner = shape.key.inner = 1;
    switch (call->kind) {
    case WEIR_ATTENTION_SPATIAL:
        shape.sequences = d.frames;
        shape.query_length = pixels;
        shape.key_length = key_pixels;
        shape.query.outer_step = pixels;
        shape.key.outer_step = key_pixels;
        shape.query.token_step = shape.key.token_step = 1;
        break;
    case WEIR_ATTENTION_TEMPORAL:
        shape.sequences = pixels;
        shape.query_length = shape.key_length = d.frames;
        shape.query.inner = pixels;
        shape.query.inner_step = 1;
        shape.query.token_step = pixels;
        shape.key = shape.query;
        break;
    case WEIR_ATTENTION_CROSS: /* all frames see the same keys: one long sequence, whose keys are read once */
    case WEIR_ATTENTION_CAUSAL:
        shape.sequences = 1;
        shape.query_length = shape.query.row_tokens;
        shape.key_length = shape.key.row_tokens;
        shape.query.token_step = shape.key.token_step = 1;
        break;
    }
    const struct weir_value y = add_value(p, "attention's y", p->dtype, &y_dims);
    add_op(p, WEIR_OP_ATTENTION, NULL, &shape, OPERANDS(call->q, call->k, call->v, y), WEIR_ATTENTION_Y, APART);
    return p->status == WEIR_OK ? y : none;
}

struct weir_value weir_program_embed(struct weir_program *p, const struct weir_packed *layer, struct weir_value ids)
{
    if (!check_layer(p, WEIR_OP_EMBED, layer)) return none;
    if (!check_operand(p, WEIR_OP_EMBED, layer, "ids", ids, WEIR_I32, NULL)) return none;
    struct weir_dims d = weir_program_dims(p, ids);
    if (d.channels != 1) {
        FAIL(p, WEIR_BAD_SHAPE, "embed %s: ids have %u channels, but must have 1", layer->name, d.channels);
        return none;
    }
    const struct weir_embed shape = { .rows = d.rows,
                                      .tokens = tokens_of(&d),
                                      .channels = layer->in,
                                      .vocabulary = layer->out,
                                      .positions = layer->bias ? layer->kernel : 0,
                                      .dtype = p->dtype };
    d.channels = layer->in;
    const struct weir_value y = add_value(p, "embed's y", p->dtype, &d);
    add_op(p, WEIR_OP_EMBED, layer, &shape, OPERANDS(ids, y), WEIR_EMBED_Y, APART);
    return p->status == WEIR_OK ? y : none;
}

struct weir_value weir_program_timestep_embedding(struct weir_program *p, struct weir_value t, uint32_t dim,
                                                  bool flip_sin_to_cos, float downscale_freq_shift)
{
    const uint32_t rows = weir_program_dims(p, t).rows;
    const struct weir_dims t_dims = { rows, 1, 1, 1, 1 }, y_dims = { rows, 1, 1, 1, dim };
    if (!check_operand(p, WEIR_OP_TIMESTEP_EMBEDDING, NULL, "t", t, WEIR_F32, &t_dims)) return none;
    const struct weir_timestep_embedding shape = { .rows = rows,
                                                   .dim = dim,
                                                   .flip_sin_to_cos = flip_sin_to_cos,
                                                   .downscale_freq_shift = downscale_freq_shift,
                                                   .dtype = p->dtype };
    const struct weir_value y = add_value(p, "timestep_embedding's y", p->dtype, &y_dims);
    add_op(p, WEIR_OP_TIMESTEP_EMBEDDING, NULL, &shape, OPERANDS(t, y), WEIR_TIMESTEP_EMBEDDING_Y, APART);
    return p->status == WEIR_OK ? y : none;
}

struct weir_value weir_program_activate(struct weir_program *p, struct weir_value x, enum weir_activation activation)
{
    if (!check_operand(p, WEIR_OP_ACTIVATE, NULL, "x", x, p->dtype, NULL)) return none;
    const struct weir_dims d = weir_program_dims(p, x);
    const struct weir_activate shape = {
        .rows = d.rows, .tokens = tokens_of(&d), .channels = d.channels, .activation = activation, .dtype = p->dtype
    };
    const struct weir_value y = add_value(p, "activate's y", p->dtype, &d);
    add_op(p, WEIR_OP_ACTIVATE, NULL, &shape, OPERANDS(x, y), WEIR_ACTIVATE_Y, WEIR_ACTIVATE_X);
    return p->status == WEIR_OK ? y : none;
}

struct weir_value weir_program_concat(struct weir_program *p, struct weir_value a, struct weir_value b)
{
    if (!check_operand(p, WEIR_OP_CONCAT, NULL, "a", a, p->dtype, NULL)) return none;
    struct weir_dims d = weir_program_dims(p, a), b_dims = d;
    b_dims.channels = weir_program_dims(p, b).channels;
    if (!check_operand(p, WEIR_OP_CONCAT, NULL, "b", b, p->dtype, &b_dims)) return none;
    const struct weir_concat shape = { .rows = d.rows,
                                       .tokens = tokens_of(&d),
                                       .a_channels = d.channels,
                                       .b_channels = b_dims.channels,
                                       .dtype = p->dtype };
    d.channels += b_dims.channels;
    const struct weir_value y = add_value(p, "concat's y", p->dtype, &d);
    add_op(p, WEIR_OP_CONCAT, NULL, &shape, OPERANDS(a, b, y), WEIR_CONCAT_Y, APART);
    return p->status == WEIR_OK ? y : none;
}

struct weir_value weir_program_latents_pack(struct weir_program *p, struct weir_value x, uint32_t copies, float factor,
                                            const struct weir_dims *packed_dims)
{
    return weir_program_latents_pack_scaled(p, x, none, copies, factor, packed_dims);
}

struct weir_value weir_program_latents_pack_scaled(struct weir_program *p, struct weir_value x, struct weir_value k,
                                                   uint32_t copies, float factor, const struct weir_dims *packed_dims)
{
    if (!check_operand(p, WEIR_OP_LATENTS_PACK, NULL, "x", x, WEIR_F32, NULL)) return none;
    const struct weir_dims d = weir_program_dims(p, x), y = *packed_dims;
    if (!check_dims(p, "latents_pack's y", &y)) return none;
    if (copies == 0 || (uint64_t)d.rows * copies != y.rows || d.frames != y.channels || d.height != y.frames ||
        (uint64_t)d.width * d.channels != (uint64_t)y.height * y.width) {
        FAIL(p, WEIR_BAD_SHAPE, "latents_pack: x is [%u, %u, %u, %u] and %u copies, y is [%u, %u, %u, %u, %u]", d.rows,
             d.frames, d.height, d.width, copies, y.rows, y.frames, y.height, y.width, y.channels);
        return none;
    }
    const struct weir_dims k_dims = { d.rows, 1, 1, 1, WEIR_SAMPLER_COEFFICIENTS };
    if (k.index != 0 && !check_operand(p, WEIR_OP_LATENTS_PACK, NULL, "k", k, WEIR_F32, &k_dims)) return none;
    const struct weir_latents_pack shape = { .items = d.rows,
                                             .copies = copies,
                                             .frames = y.frames,
                                             .pixels = y.height * y.width,
                                             .channels = y.channels,
                                             .factor = factor,
                                             .scaled = k.index != 0,
                                             .dtype = p->dtype };
    const struct weir_value packed = add_value(p, "latents_pack's y", p->dtype, &y);
    add_op(p, WEIR_OP_LATENTS_PACK, NULL, &shape, OPERANDS(x, k, packed), WEIR_LATENTS_PACK_Y, APART);
    return p->status == WEIR_OK ? packed : none;
}

struct weir_value weir_program_guidance(struct weir_program *p, struct weir_value x, struct weir_value scale,
                                        uint32_t copies)
{
    if (!check_operand(p, WEIR_OP_GUIDANCE, NULL, "x", x, p->dtype, NULL)) return none;
    const struct weir_dims d = weir_program_dims(p, x);
    if (copies == 0 || d.rows % copies != 0) {
        FAIL(p, WEIR_BAD_SHAPE, "guidance: %u rows do not divide into %u copies of each item", d.rows, copies);
        return none;
    }
    const uint32_t items = d.rows / copies;
    const struct weir_dims scale_dims = { items, 1, 1, 1, 1 };
    const struct weir_dims y_dims = { items, d.channels, d.frames, d.height * d.width, 1 };
    if ((copies > 1 || scale.index != 0) &&
        !check_operand(p, WEIR_OP_GUIDANCE, NULL, "scale", scale, WEIR_F32, &scale_dims)) {
        return none;
    }
    const struct weir_guidance shape = { .items = items,
                                         .copies = copies,
                                         .frames = d.frames,
                                         .pixels = d.height * d.width,
                                         .channels = d.channels,
                                         .dtype = p->dtype };
    const struct weir_value y = add_value(p, "guidance's y", WEIR_F32, &y_dims);
    add_op(p, WEIR_OP_GUIDANCE, NULL, &shape, OPERANDS(x, scale, y), WEIR_GUIDANCE_Y, APART);
    return p->status == WEIR_OK ? y : none;
}

void weir_program_sampler_step(struct weir_program *p, struct weir_value x, struct weir_value m,
                               struct weir_value previous, struct weir_value k)
{
    if (!check_operand(p, WEIR_OP_SAMPLER_STEP, NULL, "x", x, WEIR_F32, NULL)) return;
    const struct weir_dims d = weir_program_dims(p, x), k_dims = { d.rows, 1, 1, 1, WEIR_SAMPLER_COEFFICIENTS };
    const struct weir_value alike[] = { m, previous };
    for (size_t i = 0; i < WEIR_COUNT(alike); i++) {
        const struct weir_dims other = weir_program_dims(p, alike[i]);
        if (other.rows != d.rows || row_elements(&other) != row_elements(&d) || row_elements(&d) > WEIR_DIMENSION_MAX) {
            FAIL(p, WEIR_BAD_SHAPE,
                 "sampler_step: x has %u items of %llu numbers, the model's output or the last "
                 "prediction %u of %llu; at most 2^30",
                 d.rows, (unsigned long long)row_elements(&d), other.rows, (unsigned long long)row_elements(&other));
            return;
        }
        if (!check_operand(p, WEIR_OP_SAMPLER_STEP, NULL, "m or previous", alike[i], WEIR_F32, NULL)) return;
    }
    if (!check_operand(p, WEIR_OP_SAMPLER_STEP, NULL, "k", k, WEIR_F32, &k_dims)) return;
    const struct weir_sampler_step shape = { .items = d.rows, .n = (uint32_t)row_elements(&d) };
    add_op(p, WEIR_OP_SAMPLER_STEP, NULL, &shape, OPERANDS(x, m, previous, k), APART, APART);
}

struct weir_value weir_program_to_rgb8(struct weir_program *p, struct weir_value x, bool round)
{
    if (!check_operand(p, WEIR_OP_TO_RGB8, NULL, "x", x, p->dtype, NULL)) return none;
    struct weir_dims d = weir_program_dims(p, x);
    const struct weir_to_rgb8 shape = {
        .rows = d.rows, .tokens = tokens_of(&d), .channels = d.channels, .round = round, .dtype = p->dtype
    };
    d.channels = 3;
    const struct weir_value y = add_value(p, "to_rgb8's y", WEIR_U8, &d);
    add_op(p, WEIR_OP_TO_RGB8, NULL, &shape, OPERANDS(x, y), WEIR_TO_RGB8_Y, APART);
    return p->status == WEIR_OK ? y : none;
}

/* --- placing ------------------------------------------------------------------------------------------------------ */

static uint32_t root_of(const struct weir_program *p, uint32_t storage)
{
    while (p->storages[storage].same_as != storage) storage = p->storages[storage].same_as;
    return storage;
}

/* Lets y of op `index` lie over the operand it may be, when that one is read here for the last time and by nothing else
 * of this op. */
static void merge(struct weir_program *p, uint32_t index)
{
    const struct op *op = &p->ops[index];
    if (op->y_may_be == APART) return;
    const uint32_t from = root_of(p, p->values[op->operands[op->y_may_be].index].storage);
    const uint32_t to = p->values[op->operands[op->y].index].storage;
    struct storage *source = &p->storages[from], *target = &p->storages[to];
    if (source->kept || source->external || target->kept || source->last != index + 1 ||
        source->bytes != target->bytes) {
        return;
    }
    for (uint32_t i = 0; i < WEIR_OPERANDS_MAX; i++) {
        if (i == op->y_may_be || i == op->y || op->operands[i].index == 0) continue;
        if (root_of(p, p->values[op->operands[i].index].storage) == from) return;
    }
    target->same_as = from;
    source->last = target->last;
}

/* A storage to be placed: what qsort() sees. */
struct placement {
    size_t bytes, offset;
    uint32_t first, last, storage;
};

static int larger_first(const void *a, const void *b)
{
    const struct placement *x = a, *y = b;
    if (x->bytes != y->bytes) return x->bytes > y->bytes ? -1 : 1;
    return x->storage < y->storage ? -1 : 1;
}

static int lower_first(const void *a, const void *b)
{
    const struct placement *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return x->storage < y->storage ? -1 : 1;
}

static size_t aligned(size_t bytes)
{
    return (bytes + WEIR_ALIGNMENT - 1) / WEIR_ALIGNMENT * WEIR_ALIGNMENT;
}

/* The lowest offset where `one` fits between those of `beside` (room for `count`) that live at the same time. */
static size_t lowest_gap(const struct placement *placed, uint32_t count, const struct placement *one,
                         struct placement *beside)
{
    uint32_t beside_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (placed[i].first <= one->last && one->first <= placed[i].last) beside[beside_count++] = placed[i];
    }
    qsort(beside, beside_count, sizeof *beside, lower_first);
    size_t offset = 0;
    for (uint32_t i = 0; i < beside_count; i++) {
        if (beside[i].offset >= offset + one->bytes) break;
        if (beside[i].offset + beside[i].bytes > offset) offset = beside[i].offset + beside[i].bytes;
    }
    return offset;
}

static enum weir_status place(struct weir_program *p, struct weir_error *error)
{
    const uint32_t room = p->storage_count ? p->storage_count : 1;
    struct placement *placed = malloc(2 * (size_t)room * sizeof *placed);
    if (!placed) return weir_fail(error, WEIR_NO_MEMORY, "no memory to place %u values", p->storage_count);

    uint32_t count = 0;
    for (uint32_t i = 0; i < p->storage_count; i++) {
        const struct storage *s = &p->storages[i];
        if (s->external || s->same_as != i) continue;
        placed[count++] =
            (struct placement){ .bytes = aligned(s->bytes), .first = s->first, .last = s->last, .storage = i };
    }
    qsort(placed, count, sizeof *placed, larger_first);
    size_t end = 0;
    for (uint32_t i = 0; i < count; i++) {
        placed[i].offset = lowest_gap(placed, i, &placed[i], placed + room);
        p->storages[placed[i].storage].offset = placed[i].offset;
        if (placed[i].offset + placed[i].bytes > end) end = placed[i].offset + placed[i].bytes;
    }
    for (uint32_t i = 0; i < p->storage_count; i++) p->storages[i].offset = p->storages[root_of(p, i)].offset;
    p->workspace_offset = end;
    p->arena_bytes = end + aligned(p->workspace_bytes);
    free(placed);
    return WEIR_OK;
}

enum weir_status weir_program_finish(struct weir_program *p, struct weir_error *error)
{
    assert(!p->finished);
    if (p->status != WEIR_OK) {
        if (error) *error = p->error;
        return p->status;
    }
    for (uint32_t i = 0; i < p->storage_count; i++) {
        struct storage *storage = &p->storages[i];
        if (storage->input) storage->first = 0;
        if (storage->kept) storage->last = p->op_count + 1;
    }
    for (uint32_t i = 0; i < p->op_count; i++) merge(p, i);
    const enum weir_status status = place(p, error);
    p->finished = status == WEIR_OK;
    return status;
}

/* --- using -------------------------------------------------------------------------------------------------------- */

size_t weir_program_arena_bytes(const struct weir_program *p)
{
    assert(p->finished);
    return p->arena_bytes;
}

static const struct named *named_of(const struct weir_program *p, const char *name)
{
    for (uint32_t i = 0; i < p->name_count; i++) {
        if (strcmp(p->names[i].name, name) == 0) return &p->names[i];
    }
    return NULL;
}

size_t weir_program_offset(const struct weir_program *p, const char *name)
{
    const struct named *named = named_of(p, name);
    assert(p->finished && named);
    const struct storage *storage = &p->storages[p->values[named->value.index].storage];
    assert(!storage->external);
    return storage->offset;
}

size_t weir_program_bytes(const struct weir_program *p, const char *name)
{
    const struct named *named = named_of(p, name);
    assert(named);
    return p->storages[p->values[named->value.index].storage].bytes;
}

uint32_t weir_program_op_count(const struct weir_program *p)
{
    return p->op_count;
}

/* The memory of each extern, by its number. A binding left out, or of an unknown name, is our own fault. */
static void bind(const struct weir_program *p, const struct weir_binding *bindings, size_t binding_count,
                 void *memory[WEIR_PROGRAM_NAMES_MAX])
{
    for (uint32_t i = 0; i < p->extern_count; i++) memory[i] = NULL;
    for (size_t i = 0; i < binding_count; i++) {
        const struct named *named = named_of(p, bindings[i].name);
        assert(named && named->external);
        memory[p->storages[p->values[named->value.index].storage].external - 1] = bindings[i].memory;
    }
    for (uint32_t i = 0; i < p->extern_count; i++) assert(memory[i]);
}

static enum weir_status run_op(const struct weir_program *p, const struct op *op, struct weir_stream *stream,
                               char *arena, void *const memory[])
{
    void *operands[WEIR_OPERANDS_MAX] = { NULL };
    for (size_t i = 0; i < WEIR_OPERANDS_MAX; i++) {
        if (op->operands[i].index == 0) continue;
        const struct storage *storage = &p->storages[p->values[op->operands[i].index].storage];
        operands[i] = storage->external ? memory[storage->external - 1] : arena + storage->offset;
    }
    return p->device->ops->run(op->plan, stream, operands, arena + p->workspace_offset);
}

enum weir_status weir_program_run(const struct weir_program *p, struct weir_stream *stream, void *arena,
                                  const struct weir_binding *bindings, size_t binding_count)
{
    enum weir_status status = WEIR_OK;
    void *memory[WEIR_PROGRAM_NAMES_MAX];

    assert(p->finished);
    bind(p, bindings, binding_count, memory);
    for (uint32_t i = 0; i < p->op_count && status == WEIR_OK; i++) {
        status = run_op(p, &p->ops[i], stream, arena, memory);
    }
    return status;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

enum weir_status weir_program_profile(const struct weir_program *p, struct weir_stream *stream, void *arena,
                                      const struct weir_binding *bindings, size_t binding_count,
                                      struct weir_program_time *times, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    void *memory[WEIR_PROGRAM_NAMES_MAX];

    assert(p->finished);
    bind(p, bindings, binding_count, memory);
    for (uint32_t i = 0; i < p->op_count && status == WEIR_OK; i++) {
        const uint64_t before = now_ns();
        status = run_op(p, &p->ops[i], stream, arena, memory);
        if (status == WEIR_OK) status = p->device->table->stream_sync(stream, error);
        times[i].op = p->ops[i].plan->op;
        times[i].layer = p->ops[i].layer ? p->ops[i].layer->name : "";
        times[i].ns += now_ns() - before;
    }
    return status;
}
