/* How it works. Every value is a view of a storage: a run of bytes with a first and a last op. Building appends values,
 * storages and ops; finish() lets an op write over an operand that dies there where ops.h allows it, then places the
 * storages, largest first, each at the lowest offset that is free during its whole life. Largest first wastes least
 * with the few big and many small values of a network, and needs no search. All workspaces share one region behind
 * them, so that it stays in the caches.
 *
 * Storage lives are in units of ops: op i reads and writes at time i + 1; inputs live from time 0 and outputs until the
 * time after the last op. */
#include "kernels/program_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

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
    weir_program_graphs_destroy(p);
    for (uint32_t i = 0; i < p->op_count; i++) p->device->ops->plan_destroy(p->ops[i].plan);
    free(p->values);
    free(p->storages);
    free(p->ops);
    free(p);
    *program = NULL;
}

/* --- building ----------------------------------------------------------------------------------------------------- */

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

bool weir_program_check_dims(struct weir_program *p, const char *what, const struct weir_dims *d)
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
    if (!make_room(p, (void **)&p->values, p->value_count, &p->value_room, sizeof *p->values)) return weir_program_none;
    p->values[p->value_count] = (struct value){ .dims = *dims, .dtype = dtype, .storage = storage };
    return (struct weir_value){ p->value_count++ };
}

struct weir_value weir_program_add_value(struct weir_program *p, const char *what, enum weir_dtype dtype,
                                         const struct weir_dims *dims)
{
    if (p->status != WEIR_OK || !weir_program_check_dims(p, what, dims)) return weir_program_none;
    if (!make_room(p, (void **)&p->storages, p->storage_count, &p->storage_room, sizeof *p->storages))
        return weir_program_none;
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
    const struct weir_value value = weir_program_add_value(p, name, dtype, dims);
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
    const struct weir_value value = weir_program_add_value(p, name, dtype, dims);
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

void weir_program_put_elsewhere(struct weir_program *p, const char *name)
{
    if (p->status != WEIR_OK) return;
    struct named *named = NULL;
    for (uint32_t i = 0; i < p->name_count; i++) {
        if (strcmp(p->names[i].name, name) == 0) named = &p->names[i];
    }
    assert(!p->finished && named && !named->external);
    struct storage *storage = &p->storages[value_of(p, named->value)->storage];
    assert(!storage->external);
    storage->external = ++p->extern_count;
    named->external = true;
}

struct weir_dims weir_program_dims(const struct weir_program *p, struct weir_value value)
{
    if (p->status != WEIR_OK || value.index == 0) return (struct weir_dims){ 0 };
    return value_of(p, value)->dims;
}

struct weir_value weir_program_view(struct weir_program *p, struct weir_value value, const struct weir_dims *dims)
{
    if (p->status != WEIR_OK || !weir_program_check_dims(p, "a view", dims)) return weir_program_none;
    const struct value *v = value_of(p, value);
    if (dims->rows != v->dims.rows || row_elements(dims) != row_elements(&v->dims)) {
        FAIL(p, WEIR_BAD_SHAPE, "a view of [%u, %u, %u, %u, %u] as [%u, %u, %u, %u, %u] changes a row's size",
             v->dims.rows, v->dims.frames, v->dims.height, v->dims.width, v->dims.channels, dims->rows, dims->frames,
             dims->height, dims->width, dims->channels);
        return weir_program_none;
    }
    const size_t offset = v->offset; /* adding moves the table */
    const struct weir_value view = add_view(p, v->dtype, dims, v->storage);
    if (view.index) p->values[view.index].offset = offset;
    return view;
}

struct weir_value weir_program_part(struct weir_program *p, struct weir_value value, uint64_t first,
                                    const struct weir_dims *dims)
{
    if (p->status != WEIR_OK || !weir_program_check_dims(p, "a part", dims)) return weir_program_none;
    const struct value v = *value_of(p, value);
    const uint64_t whole = v.dims.rows * row_elements(&v.dims), count = dims->rows * row_elements(dims);
    if (first > whole || count > whole - first) {
        FAIL(p, WEIR_BAD_SHAPE, "a part of %llu elements from %llu on leaves a value of %llu",
             (unsigned long long)count, (unsigned long long)first, (unsigned long long)whole);
        return weir_program_none;
    }
    const struct weir_value part = add_view(p, v.dtype, dims, v.storage);
    if (part.index) p->values[part.index].offset = v.offset + (size_t)first * weir_dtype_bytes(v.dtype);
    return part;
}

struct weir_value weir_program_room(struct weir_program *p, const struct weir_dims *dims)
{
    return weir_program_add_value(p, "room", p->dtype, dims);
}

void weir_program_add_op(struct weir_program *p, enum weir_op op, const struct weir_packed *layer, const void *shape,
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

bool weir_program_check_operand(struct weir_program *p, enum weir_op op, const struct weir_packed *layer,
                                const char *what, struct weir_value value, enum weir_dtype dtype,
                                const struct weir_dims *wanted)
{
    if (p->status != WEIR_OK) return false;
    const struct value *v = value_of(p, value);
    const struct weir_dims *d = &v->dims;
    if (v->dtype == dtype && (!wanted || (d->rows == wanted->rows && tokens_of(d) == tokens_of(wanted) &&
                                          d->channels == wanted->channels))) {
        return true;
    }
    const char *name = layer ? layer->name : "", *space = name[0] ? " " : "";
    if (v->dtype != dtype) {
        FAIL(p, WEIR_BAD_SHAPE, "%s%s%s: %s has dtype %d, but must have %d", weir_op_name(op), space, name, what,
             (int)v->dtype, (int)dtype);
    } else {
        FAIL(p, WEIR_BAD_SHAPE, "%s%s%s: %s is [%u, %u, %u], but must be [%u, %u, %u] (rows, tokens, channels)",
             weir_op_name(op), space, name, what, d->rows, tokens_of(d), d->channels, wanted->rows, tokens_of(wanted),
             wanted->channels);
    }
    return false;
}

bool weir_program_check_layer(struct weir_program *p, enum weir_op op, const struct weir_packed *layer)
{
    if (p->status != WEIR_OK) return false;
    if (layer && layer->op == op) return true;
    FAIL(p, WEIR_BAD_SHAPE, "%s %s: the layer given is %s", weir_op_name(op), layer ? layer->name : "",
         layer ? weir_op_name(layer->op) : "none");
    return false;
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
        source->bytes != target->bytes || target->first != index + 1) {
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
    enum weir_status status = place(p, error);
    if (status == WEIR_OK) status = weir_program_graphs_create(p, error);
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
        char *begin = storage->external ? memory[storage->external - 1] : arena + storage->offset;
        operands[i] = begin + p->values[op->operands[i].index].offset;
    }
    return p->device->ops->run(op->plan, stream, operands, arena + p->workspace_offset);
}

enum weir_status weir_program_run_ops(const struct weir_program *p, struct weir_stream *stream, void *arena,
                                      void *const memory[])
{
    enum weir_status status = WEIR_OK;
    for (uint32_t i = 0; i < p->op_count && status == WEIR_OK; i++) {
        status = run_op(p, &p->ops[i], stream, arena, memory);
    }
    return status;
}

enum weir_status weir_program_run(const struct weir_program *p, struct weir_stream *stream, void *arena,
                                  const struct weir_binding *bindings, size_t binding_count)
{
    void *memory[WEIR_PROGRAM_NAMES_MAX];

    assert(p->finished);
    bind(p, bindings, binding_count, memory);
    return p->graphs ? weir_program_graphs_run(p, stream, arena, memory)
                     : weir_program_run_ops(p, stream, arena, memory);
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
