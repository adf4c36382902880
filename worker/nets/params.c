#include "worker/nets/params.h"

#include "worker/weights.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HASH_NONFATAL_OOM 1 /* an entry that could not be added has no table */
#include <uthash.h>

struct layer {
    char name[WEIR_PARAMS_NAME_MAX];
    struct weir_packed *packed;
    UT_hash_handle hh;
};

/* A linear, or a part of a stack. */
struct part {
    char name[WEIR_PARAMS_NAME_MAX];
    uint32_t number, in, out;
    UT_hash_handle hh;
};

/* Values on their way to the device: kept between layers, since fresh pages cost as much as the copy; but not those of a
 * table of words, which would lie beside all that is loaded after it. */
#define SCRATCH_KEPT_MAX ((size_t)64 << 20) /* values: 256 MiB */
struct scratch {
    float *values;
    size_t room;
};

struct weir_params {
    struct weir_device *device;
    const struct weir_weights *weights; /* borrowed; NULL: shapes alone */
    enum weir_dtype dtype;              /* of activations */
    struct weir_load *load;             /* NULL: the device has none, or it has ended */
    struct layer *layers;
    struct part *parts, **numbered; /* numbered: the same by their numbers */
    uint32_t part_room;
    struct scratch scratch[2]; /* weight, bias; given back by seal() */
    uint64_t count;
    enum weir_status status; /* sticky */
    struct weir_error error;
    bool sealed, shapes_only;
};

enum weir_status weir_params_create(struct weir_device *device, const struct weir_weights *weights,
                                    enum weir_dtype dtype, struct weir_params **out, struct weir_error *error)
{
    struct weir_params *params = calloc(1, sizeof *params);
    if (!params) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a table of layers");
    params->device = device;
    params->weights = weights;
    params->shapes_only = weights == NULL;
    params->dtype = dtype;
    if (weights && device->ops->load_begin) {
        const enum weir_status status = device->ops->load_begin(device, &params->load, error);
        if (status != WEIR_OK) {
            free(params);
            return status;
        }
    }
    *out = params;
    return WEIR_OK;
}

static void drop_scratch(struct weir_params *params, size_t kept_max)
{
    for (size_t i = 0; i < WEIR_COUNT(params->scratch); i++) {
        if (params->scratch[i].room <= kept_max) continue;
        free(params->scratch[i].values);
        params->scratch[i] = (struct scratch){ 0 };
    }
}

void weir_params_destroy(struct weir_params **params_p)
{
    struct weir_params *params = *params_p;
    if (!params) return;
    if (params->load) (void)params->device->ops->load_end(&params->load, NULL);
    struct layer *layer, *next;
    HASH_ITER(hh, params->layers, layer, next)
    {
        HASH_DEL(params->layers, layer);
        params->device->ops->packed_destroy(layer->packed);
        free(layer);
    }
    struct part *part, *next_part;
    HASH_ITER(hh, params->parts, part, next_part)
    {
        HASH_DEL(params->parts, part);
        free(part);
    }
    free(params->numbered);
    drop_scratch(params, 0);
    free(params);
    *params_p = NULL;
}

#define FORMAT_NAME(name, format)                                                                                      \
    char name[WEIR_PARAMS_NAME_MAX];                                                                                   \
    do {                                                                                                               \
        va_list arguments;                                                                                             \
        va_start(arguments, format);                                                                                   \
        const int length = vsnprintf(name, sizeof name, format, arguments);                                            \
        va_end(arguments);                                                                                             \
        assert(length > 0 && (size_t)length < sizeof name);                                                            \
        (void)length;                                                                                                  \
    } while (0)

bool weir_params_has(const struct weir_params *params, const char *format, ...)
{
    struct weir_weight ignored;
    FORMAT_NAME(name, format);
    return params->weights && weir_weights_find(params->weights, name, &ignored);
}

/* ---- reading a tensor ---- */

/* What a layer is made of: up to a stack of tensors of one shape, one after the other. */
struct tensors {
    char name[WEIR_PARAMS_STACK_MAX][WEIR_PARAMS_NAME_MAX + 16];
    uint32_t count;
    size_t rank;
    uint64_t shape[WEIR_WEIGHT_RANK_MAX];
    float scale, offset; /* each value read counts as scale * value + offset, in f32; scale 0 means 1 */
};

static uint64_t elements_of(const struct tensors *t)
{
    uint64_t elements = 1; /* every size here was bounded when the config was read */
    for (size_t i = 0; i < t->rank; i++) elements *= t->shape[i];
    return elements;
}

static void shape_words(const uint64_t *shape, size_t rank, char *out, size_t room)
{
    size_t used = (size_t)snprintf(out, room, "[");
    for (size_t i = 0; i < rank && used < room; i++) {
        used += (size_t)snprintf(out + used, room - used, "%s%llu", i ? ", " : "", (unsigned long long)shape[i]);
    }
    if (used < room) snprintf(out + used, room - used, "]");
}

/* Equal but for axes of length 1 at the end: files hold [C, C, 1, 1] for a linear layer, or [O, I, 3, 1, 1] for a
 * convolution over time. */
static bool same_shape(const struct weir_weight *found, const struct tensors *t)
{
    const size_t rank = found->rank > t->rank ? found->rank : t->rank;
    for (size_t i = 0; i < rank; i++) {
        const uint64_t a = i < found->rank ? found->shape[i] : 1, b = i < t->rank ? t->shape[i] : 1;
        if (a != b) return false;
    }
    return true;
}

/* All tensors of a layer, found and of the right shape: before memory is taken that a config alone asked for. */
static enum weir_status find_tensors(const struct weir_params *params, const struct tensors *t,
                                     struct weir_weight found[WEIR_PARAMS_STACK_MAX], struct weir_error *error)
{
    for (uint32_t i = 0; i < t->count; i++) {
        if (!weir_weights_find(params->weights, t->name[i], &found[i])) {
            return weir_fail(error, WEIR_BAD_MODEL, "%s: tensor %s is missing", weir_weights_label(params->weights),
                             t->name[i]);
        }
        if (!same_shape(&found[i], t)) {
            char has[96], wanted[96];
            shape_words(found[i].shape, found[i].rank, has, sizeof has);
            shape_words(t->shape, t->rank, wanted, sizeof wanted);
            return weir_fail(error, WEIR_BAD_MODEL, "%s: tensor %s is %s, but the config asks for %s", found[i].file,
                             t->name[i], has, wanted);
        }
        const enum weir_status status = weir_weight_check_float(&found[i], error);
        if (status != WEIR_OK) return status;
    }
    return WEIR_OK;
}

static enum weir_dtype dtype_of(const struct weir_weight *found)
{
    return found->dtype == WEIR_WEIGHT_F16 ? WEIR_F16 : found->dtype == WEIR_WEIGHT_BF16 ? WEIR_BF16 : WEIR_F32;
}

static struct weir_numbers numbers_of(const struct tensors *t, const struct weir_weight found[WEIR_PARAMS_STACK_MAX])
{
    _Static_assert(WEIR_PARAMS_STACK_MAX <= WEIR_NUMBERS_RUNS_MAX, "a stack is numbers");
    struct weir_numbers numbers = {
        .run_count = t->count, .run_length = elements_of(t), .scale = t->scale, .offset = t->offset
    };
    for (uint32_t i = 0; i < t->count; i++) {
        numbers.run[i].bytes = found[i].data;
        numbers.run[i].dtype = dtype_of(&found[i]);
    }
    return numbers;
}

static enum weir_status read_numbers(struct scratch *scratch, const char *name, const struct weir_numbers *numbers,
                                     struct weir_error *error)
{
    const size_t wanted = (size_t)numbers->run_length * numbers->run_count;
    if (scratch->room < wanted) {
        free(scratch->values);
        scratch->values = malloc(wanted * sizeof *scratch->values);
        scratch->room = scratch->values ? wanted : 0;
    }
    if (!scratch->values) {
        return weir_fail(error, WEIR_NO_MEMORY, "%s: no memory for its %zu bytes", name,
                         wanted * sizeof *scratch->values);
    }
    weir_numbers_f32(numbers, 0, wanted, scratch->values);
    return WEIR_OK;
}

/* ---- a layer ---- */

static const struct weir_packed *find_layer(const struct weir_params *params, const char *name)
{
    const struct layer *layer;
    HASH_FIND_STR(params->layers, name, layer);
    return layer ? layer->packed : NULL;
}

static enum weir_status add_layer(struct weir_params *params, const char *name, struct weir_packed **packed_p,
                                  struct weir_error *error)
{
    struct layer *layer = calloc(1, sizeof *layer);
    if (!layer) return weir_fail(error, WEIR_NO_MEMORY, "%s: no memory for its entry", name);
    snprintf(layer->name, sizeof layer->name, "%s", name);
    HASH_ADD_STR(params->layers, name, layer);
    if (!layer->hh.tbl) {
        free(layer);
        return weir_fail(error, WEIR_NO_MEMORY, "%s: no memory for its entry", name);
    }
    layer->packed = *packed_p;
    *packed_p = NULL;
    return WEIR_OK;
}

static enum weir_status add_part(struct weir_params *params, const char *name, uint32_t in, uint32_t out,
                                 struct weir_error *error)
{
    const uint32_t count = HASH_COUNT(params->parts);
    struct part *part = calloc(1, sizeof *part);
    if (part && count == params->part_room) {
        const uint32_t room = count ? 2 * count : 64;
        struct part **numbered = realloc(params->numbered, room * sizeof(struct part *));
        if (numbered) params->numbered = numbered, params->part_room = room;
    }
    if (part && count < params->part_room) {
        snprintf(part->name, sizeof part->name, "%s", name);
        part->number = count, part->in = in, part->out = out;
        HASH_ADD_STR(params->parts, name, part);
        if (part->hh.tbl) {
            params->numbered[count] = part;
            return WEIR_OK;
        }
    }
    free(part);
    return weir_fail(error, WEIR_NO_MEMORY, "%s: no memory for its entry", name);
}

uint32_t weir_params_part_count(const struct weir_params *params)
{
    return HASH_COUNT(params->parts);
}

struct weir_params_part weir_params_part_at(const struct weir_params *params, uint32_t number)
{
    assert(number < weir_params_part_count(params));
    const struct part *part = params->numbered[number];
    return (struct weir_params_part){ part->name, part->in, part->out };
}

uint32_t weir_params_part_find(const struct weir_params *params, const char *name)
{
    const struct part *part;
    HASH_FIND_STR(params->parts, name, part);
    return part ? part->number : WEIR_PARAMS_NO_PART;
}

const char *weir_params_kind(const struct weir_params *params, const char *name)
{
    const struct weir_packed *layer = find_layer(params, name);
    return layer ? weir_op_name(layer->op) : NULL;
}

/* Packed by itself, from values in f32. */
static enum weir_status pack_alone(struct weir_params *params, struct weir_parameters *q,
                                   const struct weir_numbers *weight, const struct weir_numbers *bias,
                                   struct weir_packed **packed, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    WEIR_TRY(read_numbers(&params->scratch[0], q->name, weight, error));
    q->weight = params->scratch[0].values;
    if (bias->run_count) {
        WEIR_TRY(read_numbers(&params->scratch[1], q->name, bias, error));
        q->bias = params->scratch[1].values;
    }
    WEIR_TRY(params->device->ops->pack(params->device, q, packed, error));
    drop_scratch(params, SCRATCH_KEPT_MAX);
cleanup:
    return status;
}

static enum weir_status pack(struct weir_params *params, struct weir_parameters *q, const struct tensors *weight,
                             const struct tensors *bias, struct weir_packed **packed, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    static const float nothing = 0;
    const struct weir_ops *ops = params->device->ops;
    struct weir_weight found[2][WEIR_PARAMS_STACK_MAX];
    q->shape_only = params->shapes_only;
    q->weight = &nothing; /* that they exist */
    q->bias = bias->count ? &nothing : NULL;
    if (params->shapes_only) return ops->pack(params->device, q, packed, error);

    WEIR_TRY(find_tensors(params, weight, found[0], error));
    WEIR_TRY(find_tensors(params, bias, found[1], error));
    const struct weir_numbers weights = numbers_of(weight, found[0]), biases = numbers_of(bias, found[1]);
    if (params->load)
        WEIR_TRY(ops->load_pack(params->load, q, &weights, &biases, packed, error));
    else
        WEIR_TRY(pack_alone(params, q, &weights, &biases, packed, error));
cleanup:
    return status;
}

static enum weir_status load(struct weir_params *params, const char *name, struct weir_parameters *q,
                             const struct tensors *weight, const struct tensors *bias, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_packed *packed = NULL; /* owned here until it is in the table */

    q->name = name;
    q->dtype = params->device->precision;
    WEIR_TRY(pack(params, q, weight, bias, &packed, error));
    WEIR_TRY(add_layer(params, name, &packed, error));
    params->count += elements_of(weight) * weight->count + (bias->count ? elements_of(bias) * bias->count : 0);

cleanup:
    if (packed) { /* it is not to be destroyed while it travels */
        if (params->load) (void)params->device->ops->load_end(&params->load, NULL);
        params->device->ops->packed_destroy(packed);
    }
    return status;
}

static const struct weir_packed *take(struct weir_params *params, const char *name, struct weir_parameters *q,
                                      const struct tensors *weight, const struct tensors *bias)
{
    if (params->status != WEIR_OK) return NULL;
    const struct weir_packed *packed = find_layer(params, name);
    if (packed) return packed;
    assert(!params->sealed);
    params->status = load(params, name, q, weight, bias, &params->error);
    return params->status == WEIR_OK ? find_layer(params, name) : NULL;
}

static void set_shape(struct tensors *t, size_t rank, const uint64_t *shape)
{
    t->rank = rank;
    memcpy(t->shape, shape, rank * sizeof *shape);
}
#define SHAPE(...)                                                                                                     \
    sizeof((uint64_t[]){ __VA_ARGS__ }) / sizeof(uint64_t), (uint64_t[])                                               \
    {                                                                                                                  \
        __VA_ARGS__                                                                                                    \
    }

static void add_name(struct tensors *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add_name(struct tensors *t, const char *format, ...)
{
    va_list arguments;
    assert(t->count < WEIR_PARAMS_STACK_MAX);
    va_start(arguments, format);
    const int length = vsnprintf(t->name[t->count++], sizeof t->name[0], format, arguments);
    va_end(arguments);
    assert(length > 0 && (size_t)length < sizeof t->name[0]);
    (void)length;
}

/* The layer's name, "NAME.PART+PART" of a stack, and the names of its tensors; parts 0: it is one of its own. */
static void add_parts(const char *name, uint32_t parts, const char *const part[WEIR_PARAMS_STACK_MAX],
                      char key[WEIR_PARAMS_NAME_MAX], struct tensors *weight, struct tensors *bias)
{
    size_t used = (size_t)snprintf(key, WEIR_PARAMS_NAME_MAX, "%s", name);
    for (uint32_t i = 0; i < (parts ? parts : 1); i++) {
        const char *own = parts ? part[i] : "", *dot = parts ? "." : "";
        add_name(weight, "%s%s%s.weight", name, dot, own);
        if (bias) add_name(bias, "%s%s%s.bias", name, dot, own);
        if (parts) used += (size_t)snprintf(key + used, WEIR_PARAMS_NAME_MAX - used, "%s%s", i ? "+" : dot, own);
        assert(used < WEIR_PARAMS_NAME_MAX);
    }
}

const struct weir_packed *weir_params_linear(struct weir_params *params, const struct weir_linear_params *shape,
                                             const char *format, ...)
{
    struct tensors weight = { .count = 0 }, bias = { .count = 0 };
    const uint32_t parts = shape->parts ? shape->parts : 1;
    char key[WEIR_PARAMS_NAME_MAX];
    FORMAT_NAME(name, format);

    assert(parts <= WEIR_PARAMS_STACK_MAX && shape->out % parts == 0);
    add_parts(name, shape->parts, shape->part, key, &weight, shape->bias ? &bias : NULL);
    set_shape(&weight, SHAPE(shape->out / parts, shape->in));
    set_shape(&bias, SHAPE(shape->out / parts));
    struct weir_parameters q = { .op = WEIR_OP_LINEAR, .out = shape->out, .in = shape->in, .geglu = shape->geglu };
    const struct weir_packed *known = params->status == WEIR_OK ? find_layer(params, key) : NULL;
    if (known) return known;
    const struct weir_packed *packed = take(params, key, &q, &weight, &bias);
    for (uint32_t i = 0; packed && i < parts && params->status == WEIR_OK; i++) {
        char *end = strrchr(weight.name[i], '.');
        *end = '\0'; /* ".weight" */
        params->status = add_part(params, weight.name[i], shape->in, shape->out / parts, &params->error);
    }
    return params->status == WEIR_OK ? packed : NULL;
}

const struct weir_packed *weir_params_grouped_linear(struct weir_params *params, uint32_t in, uint32_t out,
                                                     uint32_t groups, const char *format, ...)
{
    struct tensors weight = { .count = 0 }, bias = { .count = 0 };
    FORMAT_NAME(name, format);
    assert(groups > 0 && in % groups == 0);
    add_name(&weight, "%s.weight", name);
    set_shape(&weight, SHAPE(out, in / groups));
    struct weir_parameters q = { .op = WEIR_OP_GROUPED_LINEAR, .out = out, .in = in, .kernel = groups };
    return take(params, name, &q, &weight, &bias);
}

/* NAME.weight of that shape, and NAME.bias, as long as its first axis. */
static const struct weir_packed *take_pair(struct weir_params *params, const char *name, struct weir_parameters q,
                                           bool with_bias, size_t rank, const uint64_t *shape)
{
    struct tensors weight = { .count = 0 }, bias = { .count = 0 };
    add_name(&weight, "%s.weight", name);
    if (with_bias) add_name(&bias, "%s.bias", name);
    set_shape(&weight, rank, shape);
    set_shape(&bias, SHAPE(shape[0]));
    return take(params, name, &q, &weight, &bias);
}

const struct weir_packed *weir_params_conv2d(struct weir_params *params, const struct weir_conv2d_params *shape,
                                             const char *format, ...)
{
    FORMAT_NAME(name, format);
    return take_pair(params, name,
                     (struct weir_parameters){ .op = WEIR_OP_CONV2D,
                                               .out = shape->out,
                                               .in = shape->in,
                                               .kernel = shape->kernel,
                                               .doubled = shape->doubled },
                     !shape->no_bias, SHAPE(shape->out, shape->in, shape->kernel, shape->kernel));
}

const struct weir_packed *weir_params_conv_temporal(struct weir_params *params, uint32_t in, uint32_t out,
                                                    const char *format, ...)
{
    FORMAT_NAME(name, format);
    return take_pair(params, name, (struct weir_parameters){ .op = WEIR_OP_CONV_TEMPORAL, .out = out, .in = in }, true,
                     SHAPE(out, in, 3));
}

const struct weir_packed *weir_params_group_norm(struct weir_params *params, uint32_t channels, const char *format, ...)
{
    FORMAT_NAME(name, format);
    return take_pair(params, name, (struct weir_parameters){ .op = WEIR_OP_GROUP_NORM, .out = channels }, true,
                     SHAPE(channels));
}

const struct weir_packed *weir_params_layer_norm(struct weir_params *params, uint32_t channels, const char *format, ...)
{
    FORMAT_NAME(name, format);
    return take_pair(params, name, (struct weir_parameters){ .op = WEIR_OP_LAYER_NORM, .out = channels }, true,
                     SHAPE(channels));
}

const struct weir_packed *weir_params_depthwise_conv(struct weir_params *params, uint32_t channels, uint32_t kernel,
                                                     bool bias, const char *format, ...)
{
    FORMAT_NAME(name, format);
    return take_pair(params, name,
                     (struct weir_parameters){ .op = WEIR_OP_DEPTHWISE_CONV, .out = channels, .kernel = kernel }, bias,
                     SHAPE(channels, 1, kernel, kernel));
}

const struct weir_packed *weir_params_rms_norm(struct weir_params *params, const struct weir_rms_norm_params *shape,
                                               const char *format, ...)
{
    struct tensors weight = { .offset = shape->unit_offset ? 1 : 0 }, bias = { .count = 0 };
    const uint32_t parts = shape->parts ? shape->parts : 1;
    char key[WEIR_PARAMS_NAME_MAX];
    FORMAT_NAME(name, format);

    assert(parts <= WEIR_PARAMS_STACK_MAX && shape->channels % parts == 0);
    add_parts(name, shape->parts, shape->part, key, &weight, shape->bias ? &bias : NULL);
    set_shape(&weight, SHAPE(shape->channels / parts));
    set_shape(&bias, SHAPE(shape->channels / parts));
    struct weir_parameters q = { .op = WEIR_OP_RMS_NORM, .out = shape->channels };
    return take(params, key, &q, &weight, &bias);
}

static const struct weir_packed *take_table(struct weir_params *params, const char *name, struct tensors *table,
                                            uint32_t vectors, uint32_t channels)
{
    struct tensors bias = { .count = 0 };
    add_name(table, "%s", name);
    set_shape(table, SHAPE(vectors, channels));
    struct weir_parameters q = { .op = WEIR_OP_TABLE_ADD, .out = vectors, .in = channels };
    return take(params, name, &q, table, &bias);
}

const struct weir_packed *weir_params_table(struct weir_params *params, uint32_t vectors, uint32_t channels,
                                            const char *format, ...)
{
    FORMAT_NAME(name, format);
    return take_table(params, name, &(struct tensors){ .count = 0 }, vectors, channels);
}

/* More tensors than a stack has: they are put together here, in f32. */
static enum weir_status load_tables(struct weir_params *params, const char *key, struct weir_parameters *q,
                                    uint32_t count, const char *prefix, const char *name, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_packed *packed = NULL;
    float *values = NULL;
    const uint32_t vectors = q->out / count;
    const size_t each = (size_t)vectors * q->in;
    for (uint32_t i = 0; i < count && !params->shapes_only; i++) {
        struct tensors table = { .count = 0 };
        struct weir_weight found[WEIR_PARAMS_STACK_MAX];
        add_name(&table, "%s.%u.%s", prefix, i, name);
        set_shape(&table, SHAPE(vectors, q->in));
        WEIR_TRY(find_tensors(params, &table, found, error));
        if (!values) values = malloc(count * each * sizeof *values); /* one is there */
        if (!values) WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "%s: no memory for its values", key));
        const struct weir_numbers numbers = numbers_of(&table, found);
        weir_numbers_f32(&numbers, 0, each, values + i * each);
    }
    static const float nothing = 0;
    q->name = key;
    q->dtype = params->device->precision;
    q->shape_only = params->shapes_only;
    q->weight = values ? values : &nothing;
    WEIR_TRY(params->device->ops->pack(params->device, q, &packed, error));
    WEIR_TRY(add_layer(params, key, &packed, error));
    params->count += count * each;
cleanup:
    free(values);
    if (packed) params->device->ops->packed_destroy(packed);
    return status;
}

const struct weir_packed *weir_params_tables(struct weir_params *params, uint32_t count, uint32_t vectors,
                                             uint32_t channels, const char *prefix, const char *name)
{
    char key[2 * WEIR_PARAMS_NAME_MAX];
    struct weir_parameters q = { .op = WEIR_OP_TABLE_ADD, .out = count * vectors, .in = channels };
    const int length = snprintf(key, sizeof key, "%s.*.%s", prefix, name);
    assert(length > 0 && length < WEIR_PARAMS_NAME_MAX);
    (void)length;
    if (params->status != WEIR_OK) return NULL;
    const struct weir_packed *known = find_layer(params, key);
    if (known) return known;
    assert(!params->sealed);
    params->status = load_tables(params, key, &q, count, prefix, name, &params->error);
    return params->status == WEIR_OK ? find_layer(params, key) : NULL;
}

const struct weir_packed *weir_params_embed(struct weir_params *params, const struct weir_embed_params *shape,
                                            const char *table, const char *positions)
{
    struct tensors weight = { .scale = shape->scale }, bias = { .count = 0 };
    add_name(&weight, "%s", table);
    if (shape->positions) add_name(&bias, "%s", positions);
    set_shape(&weight, SHAPE(shape->vocabulary, shape->channels));
    set_shape(&bias, SHAPE(shape->positions, shape->channels));
    struct weir_parameters q = {
        .op = WEIR_OP_EMBED, .out = shape->vocabulary, .in = shape->channels, .kernel = shape->positions
    };
    return take(params, table, &q, &weight, &bias);
}

/* A program whose first value is impossible: its error sticks, so every later call returns at once. */
enum weir_status weir_params_program(const struct weir_params *params, struct weir_program **out,
                                     struct weir_error *error)
{
    const enum weir_status status = weir_program_create(params->device, params->dtype, out);
    if (status != WEIR_OK) return weir_fail(error, status, "no memory for a program");
    weir_program_input(*out, "nothing", params->dtype, &(struct weir_dims){ 0 });
    return WEIR_OK;
}

enum weir_status weir_params_status(const struct weir_params *params, struct weir_error *error)
{
    if (params->status != WEIR_OK && error) *error = params->error;
    return params->status;
}

enum weir_status weir_params_seal(struct weir_params *params, struct weir_error *error)
{
    if (params->load) {
        struct weir_error fault = { .code = WEIR_OK };
        const enum weir_status status = params->device->ops->load_end(&params->load, &fault);
        if (params->status == WEIR_OK && status != WEIR_OK) params->status = status, params->error = fault;
    }
    drop_scratch(params, 0);
    params->sealed = true;
    params->weights = NULL;
    return weir_params_status(params, error);
}

uint64_t weir_params_bytes(const struct weir_params *params)
{
    uint64_t bytes = 0;
    for (const struct layer *layer = params->layers; layer; layer = layer->hh.next)
        bytes += params->device->ops->packed_bytes(layer->packed);
    return bytes;
}

uint64_t weir_params_count(const struct weir_params *params)
{
    return params->count;
}
