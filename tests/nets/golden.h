/* golden: what tests of networks share: vectors made by diffusers and transformers, and how close is close. */
#ifndef WEIR_TESTS_NETS_GOLDEN_H
#define WEIR_TESTS_NETS_GOLDEN_H

#include "kernels/program.h"
#include "worker/model_dir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const tiny_names[] = { "tiny-a", "tiny-b", "tiny-c" };

/* A call that must succeed; its words are printed when it does not. */
#define OK(call)                                                                                                       \
    do {                                                                                                               \
        struct weir_error error = { 0 };                                                                               \
        const enum weir_status status_ = (call);                                                                       \
        if (status_ != WEIR_OK) fail_msg("%s: %s (%s)", #call, error.words, weir_status_name(status_));                \
    } while (0)

/* weir_device_open(), of which "cpu bf16", "ref bf16" and "cuda bf16" compute in bf16. UNSUPPORTED where it has
 * none. */
static inline enum weir_status device_open_as(const char *name, int threads, struct weir_device **out,
                                              struct weir_error *error)
{
    const char *space = strchr(name, ' ');
    const bool bf16 = space && strcmp(space, " bf16") == 0;
    char device[16];
    snprintf(device, sizeof device, "%.*s", (int)(space ? space - name : 8), name);
    enum weir_status status = weir_device_open(device, threads, out, error);
    if (status == WEIR_OK && bf16) status = weir_device_set_precision(*out, WEIR_BF16, error);
    if (status != WEIR_OK) weir_device_close(out);
    return status;
}

struct vectors {
    char *bytes;
    struct weir_weights *table;
};

static inline struct vectors vectors_open(const char *name)
{
    struct vectors v = { 0 };
    char path[512];
    size_t count;
    snprintf(path, sizeof path, "%s/tests/golden/%s.safetensors", WEIR_SOURCE_DIR, name);
    OK(weir_file_read(path, (size_t)16 << 20, &v.bytes, &count, &error));
    OK(weir_weights_parse(v.bytes, count, path, &v.table, &error));
    return v;
}

static inline void vectors_close(struct vectors *v)
{
    weir_weights_close(&v->table);
    free(v->bytes);
}

static inline struct weir_weight vector_find(const struct vectors *v, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static inline struct weir_weight vector_find(const struct vectors *v, const char *format, ...)
{
    char name[64];
    struct weir_weight w = { 0 };
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    if (!weir_weights_find(v->table, name, &w)) fail_msg("no vector %s", name);
    return w;
}

/* The values as f32; free() it. */
static inline float *vector_read(const struct weir_weight *w)
{
    float *values = malloc(w->elements * sizeof *values);
    assert_non_null(values);
    OK(weir_weight_read_f32(w, values, &error));
    return values;
}

static inline struct weir_model_dir *tiny_open(const char *name)
{
    struct weir_model_dir *model = NULL;
    char path[512];
    snprintf(path, sizeof path, "%s/tests/golden/%s", WEIR_SOURCE_DIR, name);
    OK(weir_model_dir_open(path, NULL, &model, &error));
    return model;
}

/* A device, or a skipped test where this build or this machine has none of it; the words of other failures matter. */
static inline struct weir_device *device_or_skip(const char *name, int threads)
{
    struct weir_device *device = NULL;
    struct weir_error error = { 0 };
    const enum weir_status status = device_open_as(name, threads, &device, &error);
    if (status == WEIR_UNSUPPORTED || status == WEIR_NOT_FOUND) {
        print_message("skipped: %s\n", error.words);
        skip();
    }
    if (status != WEIR_OK) fail_msg("%s: %s", name, error.words);
    return device;
}

/* Host values in the device's memory, and that memory filled with what shows when it is read. */
static inline void to_device(struct weir_device *device, void *to, const void *host, size_t bytes)
{
    struct weir_stream *stream = NULL;
    OK(device->table->stream_create(device, &stream, &error));
    assert_int_equal(device->table->upload(stream, to, host, bytes), WEIR_OK);
    OK(device->table->stream_sync(stream, &error));
    device->table->stream_destroy(stream);
}

static inline void from_device(struct weir_device *device, void *host, const void *from, size_t bytes)
{
    struct weir_stream *stream = NULL;
    OK(device->table->stream_create(device, &stream, &error));
    assert_int_equal(device->table->download(stream, host, from, bytes), WEIR_OK);
    OK(device->table->stream_sync(stream, &error));
    device->table->stream_destroy(stream);
}

static inline void nan_to_device(struct weir_device *device, void *to, size_t bytes)
{
    void *nan = malloc(bytes);
    assert_non_null(nan);
    memset(nan, 0xff, bytes);
    to_device(device, to, nan, bytes);
    free(nan);
}

struct closeness {
    double norm, max; /* ||a - b|| / ||b||, max |a - b| / max |b| */
};

static inline struct closeness compare(const float *a, const float *b, size_t count)
{
    double difference = 0, length = 0, difference_max = 0, max = 0;
    for (size_t i = 0; i < count; i++) {
        const double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= 1e30)) fail_msg("element %zu is %g, wanted %g", i, (double)a[i], (double)b[i]);
        difference += d * d;
        length += (double)b[i] * (double)b[i];
        if (d > difference_max) difference_max = d;
        if (fabs((double)b[i]) > max) max = fabs((double)b[i]);
    }
    return (struct closeness){ sqrt(difference / length), difference_max / max };
}

/* Sums of f32 differ in their order: 1e-5 is some eighty roundings, on a device that sums in f64 and one that does not.
 * bf16 has 8 bits: each of a product's two factors is off by up to 2^-9, 1.1e-3 on average, and so is, times sqrt(2), a
 * sum of many. Some hundred such layers, of which each adds to what came before, make ten times that, and random
 * networks are louder than trained ones; the largest single number is off by some times the norm. Where values are bf16
 * too, what lies between two products (a norm, an activation, a sum with what came before) is rounded as well, some
 * three roundings to a product's one: sqrt(1 + 3) times as far. */
static inline struct closeness tolerance_of(const struct weir_device *device)
{
    if (device->values == WEIR_BF16) return (struct closeness){ 6e-2, 3e-1 };
    if (device->precision == WEIR_BF16) return (struct closeness){ 3e-2, 1.5e-1 };
    return (struct closeness){ strcmp(device->table->name, "ref") == 0 ? 1e-5 : 2e-5, 1e-3 };
}

static inline void see_close(const struct weir_device *device, const char *what, const float *a, const float *b,
                             size_t count)
{
    const struct closeness c = compare(a, b, count), most = tolerance_of(device);
    const char *name = device->table->name, *precision = weir_precision_name(device->precision);
    printf("parity device=%s precision=%s %s norm=%.2e max=%.2e\n", name, precision, what, c.norm, c.max);
    if (c.norm > most.norm || c.max > most.max)
        fail_msg("%s on %s in %s: norm %.3g (at most %g), max %.3g (at most %g)", what, name, precision, c.norm,
                 most.norm, c.max, most.max);
}

/* Runs a finished program that has no externs but `bindings`, with inputs given by name; reads one output. */
struct io {
    const char *name;
    void *host;
    size_t bytes;
};

static inline void run_program(struct weir_device *device, const struct weir_program *p, const struct io *inputs,
                               size_t input_count, const struct io *outputs, size_t output_count,
                               const struct weir_binding *bindings, size_t binding_count)
{
    struct weir_stream *stream = NULL;
    void *arena = NULL;
    OK(device->table->stream_create(device, &stream, &error));
    OK(device->table->memory_alloc(device, weir_program_arena_bytes(p), &arena, &error));
    nan_to_device(device, arena, weir_program_arena_bytes(p)); /* what is read before it is written shows */
    for (size_t i = 0; i < input_count; i++) {
        assert_int_equal(weir_program_bytes(p, inputs[i].name), inputs[i].bytes);
        assert_int_equal(device->table->upload(stream, (char *)arena + weir_program_offset(p, inputs[i].name),
                                               inputs[i].host, inputs[i].bytes),
                         WEIR_OK);
    }
    assert_int_equal(weir_program_run(p, stream, arena, bindings, binding_count), WEIR_OK);
    for (size_t i = 0; i < output_count; i++) {
        assert_int_equal(weir_program_bytes(p, outputs[i].name), outputs[i].bytes);
        assert_int_equal(device->table->download(stream, outputs[i].host,
                                                 (char *)arena + weir_program_offset(p, outputs[i].name),
                                                 outputs[i].bytes),
                         WEIR_OK);
    }
    OK(device->table->stream_sync(stream, &error));
    device->table->memory_free(device, arena);
    device->table->stream_destroy(stream);
}

#endif
