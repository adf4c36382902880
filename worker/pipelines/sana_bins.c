#include "worker/pipelines/sana_bins.h"

#include "proto/base/bytes.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define SIDE_MAX (1u << 20)

struct bin {
    double ratio; /* height / width, as the table has it: rounded */
    uint16_t height, width;
    bool large; /* only in the tables of 2048 and more */
};

/* At 512 pixels a side; the tables of 1024, 2048 and 4096 are multiples. */
static const struct bin pictures[] = {
    { 0.25, 256, 1024, false }, { 0.26, 256, 992, true },  { 0.27, 256, 960, true },  { 0.28, 256, 928, false },
    { 0.32, 288, 896, false },  { 0.33, 288, 864, false }, { 0.35, 288, 832, false }, { 0.4, 320, 800, false },
    { 0.42, 320, 768, false },  { 0.48, 352, 736, false }, { 0.5, 352, 704, false },  { 0.52, 352, 672, false },
    { 0.57, 384, 672, false },  { 0.6, 384, 640, false },  { 0.68, 416, 608, false }, { 0.72, 416, 576, false },
    { 0.78, 448, 576, false },  { 0.82, 448, 544, false }, { 0.88, 480, 544, false }, { 0.94, 480, 512, false },
    { 1.0, 512, 512, false },   { 1.07, 512, 480, false }, { 1.13, 544, 480, false }, { 1.21, 544, 448, false },
    { 1.29, 576, 448, false },  { 1.38, 576, 416, false }, { 1.46, 608, 416, false }, { 1.67, 640, 384, false },
    { 1.75, 672, 384, false },  { 2.0, 704, 352, false },  { 2.09, 736, 352, false }, { 2.4, 768, 320, false },
    { 2.5, 800, 320, false },   { 2.89, 832, 288, true },  { 3.0, 864, 288, false },  { 3.11, 896, 288, true },
    { 3.62, 928, 256, true },   { 3.75, 960, 256, true },  { 3.88, 992, 256, true },  { 4.0, 1024, 256, false },
};

static const struct table {
    uint32_t sample_size, scale;
    bool large;
} tables[] = { { 16, 1, false }, { 32, 2, false }, { 64, 4, true }, { 128, 8, true } };

static const struct bin *nearest(const struct table *table, double ratio)
{
    const struct bin *best = NULL;
    for (size_t i = 0; i < WEIR_COUNT(pictures); i++) {
        const struct bin *bin = &pictures[i];
        if (bin->large && !table->large) continue;
        if (!best || fabs(bin->ratio - ratio) < fabs(best->ratio - ratio)) best = bin;
    }
    return best;
}

enum weir_status weir_sana_bin(uint32_t sample_size, uint32_t width, uint32_t height, struct weir_sana_size *out,
                               struct weir_error *error)
{
    assert(width > 0 && height > 0);
    for (size_t i = 0; i < WEIR_COUNT(tables); i++) {
        if (tables[i].sample_size != sample_size) continue;
        const struct bin *bin = nearest(&tables[i], (double)height / width);
        out->width = bin->width * tables[i].scale;
        out->height = bin->height * tables[i].scale;
        return WEIR_OK;
    }
    return weir_fail(error, WEIR_UNSUPPORTED, "sample_size is %u; sizes are known for 16, 32, 64 and 128", sample_size);
}

static uint32_t resized(uint32_t from, double ratio, uint32_t least)
{
    const uint32_t side = (uint32_t)(from * ratio);
    return side < least ? least : side;
}

struct weir_crop weir_crop_of(struct weir_sana_size from, struct weir_sana_size to)
{
    struct weir_crop crop = { .width = to.width, .height = to.height };
    assert(from.width - 1 < SIDE_MAX && from.height - 1 < SIDE_MAX && to.width - 1 < SIDE_MAX &&
           to.height - 1 < SIDE_MAX);
    if (from.width == to.width && from.height == to.height) return crop;
    const double high = (double)to.height / from.height, wide = (double)to.width / from.width;
    const double ratio = high > wide ? high : wide;
    crop.width = resized(from.width, ratio, to.width);
    crop.height = resized(from.height, ratio, to.height);
    crop.left = (crop.width - to.width) / 2;
    crop.top = (crop.height - to.height) / 2;
    return crop;
}

/* The two neighbours of a place along one axis, and how much of each: one rounding for the place, as in torch, since
 * far from 0 one more would be seen in the weights. */
struct between {
    uint32_t first, second;
    float of_first, of_second;
};

static struct between between_of(uint32_t place, uint32_t from, uint32_t to)
{
    const float scale = (float)from / (float)to;
    float at = fmaf(scale, (float)place + 0.5f, -0.5f);
    if (at < 0) at = 0;
    uint32_t first = (uint32_t)at;
    if (first > from - 1) first = from - 1;
    float second = at - (float)first;
    if (second > 1) second = 1;
    return (struct between){ first, first + (first < from - 1), 1.0f - second, second };
}

void weir_resize_and_crop(const float *picture, struct weir_sana_size from, uint32_t channels, struct weir_sana_size to,
                          float *out)
{
    const struct weir_crop crop = weir_crop_of(from, to);
    const size_t row = (size_t)from.width * channels;
    if (to.width == from.width && to.height == from.height) {
        memcpy(out, picture, row * from.height * sizeof *out);
        return;
    }
    for (uint32_t y = 0; y < to.height; y++) {
        const struct between v = between_of(y + crop.top, from.height, crop.height);
        const float *above = picture + v.first * row, *below = picture + v.second * row;
        for (uint32_t x = 0; x < to.width; x++) {
            const struct between h = between_of(x + crop.left, from.width, crop.width);
            const size_t left = (size_t)h.first * channels, right = (size_t)h.second * channels;
            for (uint32_t c = 0; c < channels; c++) {
                const float high = above[left + c] * h.of_first + above[right + c] * h.of_second;
                const float low = below[left + c] * h.of_first + below[right + c] * h.of_second;
                *out++ = high * v.of_first + low * v.of_second;
            }
        }
    }
}
