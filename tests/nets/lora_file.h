/* lora_file: safetensors files of adapters, written in memory. */
#ifndef WEIR_TESTS_NETS_LORA_FILE_H
#define WEIR_TESTS_NETS_LORA_FILE_H

#include "proto/base/bytes.h"
#include "tests/nets/golden.h"

/* A safetensors file of f32 tensors, written one after the other. */
struct file {
    char header[4096];
    float data[4096];
    size_t header_bytes, floats;
    uint8_t bytes[8 + 4096 + 4 * 4096];
    size_t count;
};

static inline void file_begin(struct file *f, const char *metadata)
{
    *f = (struct file){ .floats = 0 };
    f->header_bytes = (size_t)snprintf(f->header, sizeof f->header, "{\"__metadata__\":{%s}", metadata ? metadata : "");
}

/* dims: "4,6"; every number is `value`, or counts up from it by 1/16 where step */
static inline void file_add(struct file *f, const char *name, const char *dims, size_t elements, float value, bool step)
{
    f->header_bytes += (size_t)snprintf(f->header + f->header_bytes, sizeof f->header - f->header_bytes,
                                        ",\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}", name,
                                        dims, 4 * f->floats, 4 * (f->floats + elements));
    for (size_t i = 0; i < elements; i++) f->data[f->floats++] = value + (step ? (float)i / 16 : 0);
}

static inline void file_end(struct file *f)
{
    f->header[f->header_bytes++] = '}';
    assert_true(f->header_bytes < sizeof f->header && f->floats <= WEIR_COUNT(f->data));
    weir_store_u64(f->bytes, f->header_bytes);
    memcpy(f->bytes + 8, f->header, f->header_bytes);
    memcpy(f->bytes + 8 + f->header_bytes, f->data, 4 * f->floats);
    f->count = 8 + f->header_bytes + 4 * f->floats;
}

#endif
