#include "worker/rgb/rgb.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define LOBES 3.0
#define FRACTION_BITS 22 /* of a weight: 32 less 8 of a pixel and 2 for what lies beside it */
#define HALF (1 << (FRACTION_BITS - 1))

/* Along one axis: what of the input each place of the output is made of. */
struct taps {
    uint32_t places, room; /* weights a place has room for */
    uint32_t *first, *count;
    int32_t *weights;
};

static double sinc(double x)
{
    return x == 0 ? 1.0 : sin(x * M_PI) / (x * M_PI);
}

static double lanczos(double x)
{
    return x >= -LOBES && x < LOBES ? sinc(x) * sinc(x / LOBES) : 0.0;
}

static int32_t fixed(double weight)
{
    return (int32_t)(weight * (1 << FRACTION_BITS) + (weight < 0 ? -0.5 : 0.5));
}

/* The weights of one place sum up to 1 before each is rounded. */
static void fill_place(struct taps *taps, uint32_t place, uint32_t from, double scale, double *weights)
{
    const double stretch = scale > 1 ? scale : 1, reach = LOBES * stretch, centre = (place + 0.5) * scale;
    const double low = centre - reach + 0.5, high = centre + reach + 0.5;
    const uint32_t first = low < 0 ? 0 : (uint32_t)low, end = high > from ? from : (uint32_t)high;
    double sum = 0;
    taps->first[place] = first;
    taps->count[place] = end - first;
    assert(end - first <= taps->room);
    for (uint32_t i = 0; i < end - first; i++) {
        weights[i] = lanczos(((double)i + first - centre + 0.5) * (1.0 / stretch));
        sum += weights[i];
    }
    for (uint32_t i = 0; i < end - first; i++)
        taps->weights[(size_t)place * taps->room + i] = fixed(sum == 0 ? weights[i] : weights[i] / sum);
}

static void taps_free(struct taps *taps)
{
    free(taps->first);
    free(taps->count);
    free(taps->weights);
}

static enum weir_status taps_create(uint32_t from, uint32_t to, struct taps *out, struct weir_error *error)
{
    const double scale = (double)from / to, stretch = scale > 1 ? scale : 1;
    struct taps taps = { .places = to, .room = (uint32_t)ceil(LOBES * stretch) * 2 + 1 };
    double *weights = malloc(taps.room * sizeof *weights);
    taps.first = malloc(to * sizeof *taps.first);
    taps.count = malloc(to * sizeof *taps.count);
    taps.weights = malloc((size_t)to * taps.room * sizeof *taps.weights);
    if (!weights || !taps.first || !taps.count || !taps.weights) {
        free(weights);
        taps_free(&taps);
        return weir_fail(error, WEIR_NO_MEMORY, "no memory to resize a picture");
    }
    for (uint32_t place = 0; place < to; place++) fill_place(&taps, place, from, scale, weights);
    free(weights);
    *out = taps;
    return WEIR_OK;
}

static uint8_t rounded(int64_t sum)
{
    const int64_t value = (sum + HALF) >> FRACTION_BITS;
    return value < 0 ? 0 : value > 255 ? 255 : (uint8_t)value;
}

static void resize_rows(const struct weir_rgb *from, const struct taps *taps, uint8_t *out)
{
    for (uint32_t y = 0; y < from->height; y++) {
        const uint8_t *row = from->pixels + (size_t)y * from->width * 3;
        for (uint32_t x = 0; x < taps->places; x++) {
            const uint8_t *pixel = row + (size_t)taps->first[x] * 3;
            const int32_t *weight = taps->weights + (size_t)x * taps->room;
            int64_t r = 0, g = 0, b = 0;
            for (uint32_t i = 0; i < taps->count[x]; i++, pixel += 3) {
                r += (int64_t)pixel[0] * weight[i];
                g += (int64_t)pixel[1] * weight[i];
                b += (int64_t)pixel[2] * weight[i];
            }
            *out++ = rounded(r), *out++ = rounded(g), *out++ = rounded(b);
        }
    }
}

static void resize_columns(const struct weir_rgb *from, const struct taps *taps, uint8_t *out)
{
    const size_t row = (size_t)from->width * 3;
    for (uint32_t y = 0; y < taps->places; y++) {
        const uint8_t *top = from->pixels + taps->first[y] * row;
        const int32_t *weight = taps->weights + (size_t)y * taps->room;
        for (size_t x = 0; x < row; x++) {
            int64_t sum = 0;
            for (uint32_t i = 0; i < taps->count[y]; i++) sum += (int64_t)top[i * row + x] * weight[i];
            *out++ = rounded(sum);
        }
    }
}

/* One axis; `from` and `out` may not be the same. */
static enum weir_status pass(const struct weir_rgb *from, bool is_wide, uint32_t to, struct weir_rgb *out,
                             struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct taps taps = { 0 };
    struct weir_rgb made = { is_wide ? to : from->width, is_wide ? from->height : to, NULL };
    WEIR_TRY(taps_create(is_wide ? from->width : from->height, to, &taps, error));
    made.pixels = malloc((size_t)made.width * made.height * 3);
    if (!made.pixels)
        WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "no memory for a picture of %ux%u", made.width, made.height));
    if (is_wide)
        resize_rows(from, &taps, made.pixels);
    else
        resize_columns(from, &taps, made.pixels);
    *out = made;
cleanup:
    taps_free(&taps);
    return status;
}

enum weir_status weir_rgb_resize(const struct weir_rgb *from, uint32_t width, uint32_t height, struct weir_rgb *out,
                                 struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_rgb wide = { 0 };
    assert(width - 1 < WEIR_RGB_SIDE_MAX && height - 1 < WEIR_RGB_SIDE_MAX);
    *out = (struct weir_rgb){ 0 };
    if (from->width != width) WEIR_TRY(pass(from, true, width, &wide, error));
    const struct weir_rgb *last = wide.pixels ? &wide : from;
    if (from->height != height) {
        WEIR_TRY(pass(last, false, height, out, error));
    } else if (wide.pixels) {
        *out = wide;
        wide.pixels = NULL;
    } else {
        const size_t bytes = (size_t)width * height * 3;
        *out = (struct weir_rgb){ width, height, malloc(bytes) };
        if (!out->pixels) WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "no memory for a picture of %ux%u", width, height));
        memcpy(out->pixels, from->pixels, bytes);
    }
cleanup:
    weir_rgb_deinit(&wide);
    return status;
}
