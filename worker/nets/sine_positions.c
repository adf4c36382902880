#include "worker/nets/sine_positions.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct table {
    uint32_t height, width;
    struct weir_packed *packed;
    struct table *next;
};

struct weir_sine_positions {
    struct weir_device *device;
    struct weir_sine_positions_config config;
    pthread_mutex_t lock; /* of what follows */
    struct table *tables;
};

enum weir_status weir_sine_positions_create(struct weir_device *device, const struct weir_sine_positions_config *config,
                                            struct weir_sine_positions **out, struct weir_error *error)
{
    struct weir_sine_positions *positions = calloc(1, sizeof *positions);
    if (!positions) return weir_fail(error, WEIR_NO_MEMORY, "no memory for tables of positions");
    assert(config->channels % 4 == 0);
    positions->device = device;
    positions->config = *config;
    pthread_mutex_init(&positions->lock, NULL);
    *out = positions;
    return WEIR_OK;
}

void weir_sine_positions_destroy(struct weir_sine_positions **positions_p)
{
    struct weir_sine_positions *positions = *positions_p;
    if (!positions) return;
    while (positions->tables) {
        struct table *table = positions->tables;
        positions->tables = table->next;
        positions->device->ops->packed_destroy(table->packed);
        free(table);
    }
    pthread_mutex_destroy(&positions->lock);
    free(positions);
    *positions_p = NULL;
}

/* sin and cos of one coordinate: channels / 2 numbers. */
static void fill_axis(const struct weir_sine_positions_config *c, uint32_t index, uint32_t length, float *out)
{
    const uint32_t count = c->channels / 4;
    const float step = (float)((double)length / c->base), at = (float)index / step / c->scale;
    for (uint32_t k = 0; k < count; k++) {
        const double angle = at * (1 / pow(10000, (double)k / count));
        out[k] = (float)sin(angle);
        out[count + k] = (float)cos(angle);
    }
}

static void fill(const struct weir_sine_positions_config *c, uint32_t height, uint32_t width, float *out)
{
    const size_t half = c->channels / 2, row = (size_t)width * c->channels;
    for (uint32_t x = 0; x < width; x++) {
        float *first = out + (size_t)x * c->channels;
        fill_axis(c, x, width, first);
        for (uint32_t y = 1; y < height; y++) memcpy(first + y * row, first, half * sizeof *out);
    }
    for (uint32_t y = 0; y < height; y++) {
        float *first = out + y * row + half;
        fill_axis(c, y, height, first);
        for (uint32_t x = 1; x < width; x++) memcpy(first + (size_t)x * c->channels, first, half * sizeof *out);
    }
}

static struct table *make(struct weir_sine_positions *positions, uint32_t height, uint32_t width)
{
    const struct weir_sine_positions_config *c = &positions->config;
    static const float nothing = 0;
    const size_t count = (size_t)height * width * c->channels;
    char name[48];
    struct weir_error ignored;
    float *values = c->shape_only ? NULL : malloc(count * sizeof *values);
    struct table *table = calloc(1, sizeof *table);
    struct weir_parameters q = { .op = WEIR_OP_TABLE_ADD,
                                 .weight = c->shape_only ? &nothing : values,
                                 .out = height * width,
                                 .in = c->channels,
                                 .dtype = c->dtype,
                                 .name = name,
                                 .shape_only = c->shape_only };
    snprintf(name, sizeof name, "positions of %ux%u", height, width);
    if (!table || !q.weight) goto cleanup;
    if (values) fill(c, height, width, values);
    table->height = height;
    table->width = width;
    if (positions->device->ops->pack(positions->device, &q, &table->packed, &ignored) != WEIR_OK) goto cleanup;
    free(values);
    return table;
cleanup:
    free(values);
    free(table);
    return NULL;
}

const struct weir_packed *weir_sine_positions_table(struct weir_sine_positions *positions, uint32_t height,
                                                    uint32_t width)
{
    pthread_mutex_lock(&positions->lock);
    struct table *table = positions->tables;
    while (table && (table->height != height || table->width != width)) table = table->next;
    if (!table && (table = make(positions, height, width))) {
        table->next = positions->tables;
        positions->tables = table;
    }
    pthread_mutex_unlock(&positions->lock);
    return table ? table->packed : NULL;
}

uint64_t weir_sine_positions_bytes(struct weir_sine_positions *positions)
{
    uint64_t bytes = 0;
    pthread_mutex_lock(&positions->lock);
    for (const struct table *table = positions->tables; table; table = table->next)
        bytes += positions->device->ops->packed_bytes(table->packed);
    pthread_mutex_unlock(&positions->lock);
    return bytes;
}
