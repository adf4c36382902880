/* depthwise_conv: an item is a band of rows of one image for a block of channels. It walks down the rows and keeps those
 * that the kernel reaches as a ring in its slice, with their padding, so that x comes from memory once and the loops
 * know no borders. Blocks of channels keep the ring in the caches even where an image's channels are many; in memory,
 * pixels of 16 KiB each would fall on the same lines of a cache. With glu a block has the value's channels and those of
 * the gate, and y is made of both while the sums are in registers.
 *
 * A channel's sums go over the taps in order, whatever the cut. */
#include "kernels/cpu/cpu.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK_CHANNELS 128 /* of y at most: memory is read in runs of 512 bytes */
#define BLOCK_CHANNELS_MIN 16
#define RING_BYTES 196608 /* part of a core's second cache */
#define ITEMS_WANTED 8    /* of one image, */
#define BAND_KERNELS 4    /* if a band is no shorter than so many kernels: its first rows are read twice */

struct depthwise_plan {
    struct weir_cpu_plan head;
    struct weir_depthwise_conv shape;
    uint32_t y_channels, halves;     /* halves: 2 with glu, else 1 */
    uint32_t block_channels, blocks; /* of y */
    uint32_t band_rows, bands;
    size_t padded;                   /* a block's channels in the slice; a pixel has `halves` times as many */
    size_t bias_offset, ring_offset; /* in the slice, in floats; the weights are first */
};

/* Rows of the ring begin with the padding before them and end with that behind. */
static size_t ring_row_floats(const struct depthwise_plan *plan)
{
    return (plan->shape.width + plan->shape.kernel - 1) * plan->padded * plan->halves;
}

/* Row `y` of the image into its place of the ring: zeros where there is none. */
static void ring_load(const struct depthwise_plan *plan, const struct weir_cpu_simd *simd, const float *image,
                      int64_t y, size_t first_channel, size_t channels, float *ring)
{
    const struct weir_depthwise_conv *s = &plan->shape;
    const size_t stride = plan->padded * plan->halves, pad = s->kernel / 2;
    float *to = ring + (size_t)(y + s->kernel) % s->kernel * ring_row_floats(plan);
    if (y < 0 || y >= s->height) {
        memset(to, 0, ring_row_floats(plan) * sizeof(float));
        return;
    }
    memset(to, 0, pad * stride * sizeof(float));
    memset(to + (pad + s->width) * stride, 0, pad * stride * sizeof(float));
    for (uint32_t half = 0; half < plan->halves; half++) {
        simd->gather(image + (size_t)y * s->width * s->channels + half * plan->y_channels + first_channel, s->channels,
                     s->width, channels, to + pad * stride + half * plan->padded, stride, plan->padded, s->activation);
    }
}

/* The block's weights and bias as simd wants them. */
static void gather_weights(const struct depthwise_plan *plan, const struct weir_cpu_simd *simd, size_t first_channel,
                           size_t channels, float *weight, float *bias)
{
    const struct weir_depthwise_conv *s = &plan->shape;
    const struct weir_cpu_packed *layer = plan->head.layer;
    const size_t stride = plan->padded * plan->halves, taps = (size_t)s->kernel * s->kernel;
    for (uint32_t half = 0; half < plan->halves; half++) {
        const size_t from = half * plan->y_channels + first_channel, to = half * plan->padded;
        simd->gather(layer->vector_weight + from, s->channels, taps, channels, weight + to, stride, plan->padded,
                     false);
        if (layer->bias) {
            simd->gather(layer->bias + from, 0, 1, channels, bias + to, 0, plan->padded, WEIR_ACT_NONE);
        } else {
            memset(bias + to, 0, plan->padded * sizeof(float));
        }
    }
}

static void depthwise_item(void *context, uint32_t item, uint32_t slot)
{
    struct weir_cpu_run *run = context;
    const struct depthwise_plan *plan = (const struct depthwise_plan *)run->plan;
    const struct weir_depthwise_conv *s = &plan->shape;
    const struct weir_cpu_simd *simd = run->cpu->simd;
    const size_t first_channel = (size_t)(item % plan->blocks) * plan->block_channels;
    const size_t left = plan->y_channels - first_channel;
    const size_t channels = left < plan->block_channels ? left : plan->block_channels;
    item /= plan->blocks;
    const uint32_t first = item % plan->bands * plan->band_rows;
    const uint32_t end = s->height - first < plan->band_rows ? s->height : first + plan->band_rows;
    const size_t pixel = (size_t)(item / plan->bands) * s->height * s->width;
    const float *image = (const float *)run->operands[WEIR_DEPTHWISE_CONV_X] + pixel * s->channels;
    float *y = (float *)run->operands[WEIR_DEPTHWISE_CONV_Y] + pixel * plan->y_channels + first_channel;
    float *weight = weir_cpu_slice(run, slot), *bias = weight + plan->bias_offset, *ring = weight + plan->ring_offset;
    const int64_t pad = s->kernel / 2;

    gather_weights(plan, simd, first_channel, channels, weight, bias);
    for (int64_t above = first - pad; above < first + pad; above++) {
        ring_load(plan, simd, image, above, first_channel, channels, ring);
    }
    for (uint32_t row = first; row < end; row++) {
        ring_load(plan, simd, image, row + pad, first_channel, channels, ring);
        simd->depthwise(&(struct weir_cpu_depthwise){ .ring = ring,
                                                      .weight = weight,
                                                      .bias = bias,
                                                      .kernel = s->kernel,
                                                      .first = (size_t)(row - pad + s->kernel) % s->kernel,
                                                      .stride = plan->padded * plan->halves,
                                                      .gate = s->glu ? plan->padded : 0,
                                                      .width = s->width,
                                                      .channels = channels,
                                                      .y = y + (size_t)row * s->width * plan->y_channels,
                                                      .y_stride = plan->y_channels });
    }
}

static void depthwise_run(struct weir_cpu_run *run)
{
    const struct depthwise_plan *plan = (const struct depthwise_plan *)run->plan;
    weir_cpu_items(run, plan->shape.rows * plan->shape.frames * plan->bands * plan->blocks, depthwise_item);
}

static void cut(struct depthwise_plan *plan, const struct weir_depthwise_conv *s)
{
    const uint64_t ring_bytes = sizeof(float) * (uint64_t)s->kernel * (s->width + s->kernel - 1) * plan->halves;
    uint64_t channels = RING_BYTES / ring_bytes / BLOCK_CHANNELS_MIN * BLOCK_CHANNELS_MIN;
    if (channels > BLOCK_CHANNELS) channels = BLOCK_CHANNELS;
    if (channels < BLOCK_CHANNELS_MIN) channels = BLOCK_CHANNELS_MIN;
    plan->block_channels = channels < plan->y_channels ? (uint32_t)channels : plan->y_channels;
    plan->blocks = (plan->y_channels + plan->block_channels - 1) / plan->block_channels;
    uint32_t bands = (ITEMS_WANTED + plan->blocks - 1) / plan->blocks;
    const uint32_t worthwhile = s->height / (BAND_KERNELS * s->kernel);
    if (bands > worthwhile) bands = worthwhile;
    if (bands < 1) bands = 1;
    plan->band_rows = (s->height + bands - 1) / bands;
    plan->bands = (s->height + plan->band_rows - 1) / plan->band_rows;
}

struct weir_cpu_plan *weir_cpu_plan_depthwise_conv(struct weir_cpu *cpu, struct weir_cpu_packed *layer,
                                                   const struct weir_depthwise_conv *s, struct weir_error *error)
{
    (void)cpu;
    struct depthwise_plan *plan = calloc(1, sizeof *plan);
    if (!plan) {
        weir_fail(error, WEIR_NO_MEMORY, "device cpu: no memory for a plan");
        return NULL;
    }
    plan->shape = *s;
    plan->halves = s->glu ? 2 : 1;
    plan->y_channels = s->channels / plan->halves;
    cut(plan, s);
    plan->padded = weir_cpu_padded(plan->block_channels);
    const size_t stride = plan->padded * plan->halves, taps = (size_t)s->kernel * s->kernel;
    plan->bias_offset = taps * stride;
    plan->ring_offset = plan->bias_offset + stride;
    plan->head.layer = layer;
    plan->head.run = depthwise_run;
    plan->head.slice_bytes = (plan->ring_offset + s->kernel * ring_row_floats(plan)) * sizeof(float);
    return &plan->head;
}
