/* conv2d and conv_temporal: both are convolutions of images, cut into bands of output rows.
 *
 * For conv2d an image is one frame of one row. For conv_temporal it is a whole row of the batch: its rows are the
 * frames, its columns the pixels, and the kernel is 3 x 1. Where that makes rows too wide (oneDNN then generates code for
 * minutes), a frame is `dilation` rows one after another, and the kernel's rows lie so far apart. A band reads its own input rows and those the kernel reaches
 * beyond; what lies outside the image is the primitive's padding, so first, middle and last bands are primitives of
 * their own.
 *
 * Bands serve three ends: enough items for many threads when a row has few images, a resized input that stays in the
 * cache, and a rounded one (of a bf16 layer, before any resize) that takes little memory. Otherwise an image is one
 * band. A conv2d with row_bias adds it to the bias first, one small vector an item. */
#include "kernels/cpu/cpu.h"

#include <stdlib.h>
#include <string.h>

#define ITEMS_WANTED 8           /* of one row of the batch, */
#define BAND_FLOPS_MIN 6000000   /* if they are no smaller than this: about 50 us */
#define BAND_BYTES_MAX 2097152   /* of a resized input and its output */
#define BAND_ROUNDED_MAX 4194304 /* bytes of an input rounded to bf16 */
#define WIDTH_MAX 8192           /* columns of a conv_temporal, where the pixels have a divisor for it */

struct image {                          /* what conv2d and conv_temporal come down to */
    uint32_t rows, images;              /* images of each row of the batch */
    uint32_t given_height, given_width; /* as it lies in x */
    uint32_t height, width;             /* after the resize */
    uint32_t in, out, out_height, out_width;
    uint32_t kernel_height, kernel_width, stride, pad_top, pad_left, pad_right;
    uint32_t dilation; /* rows of the image from one row of the kernel to the next */
    bool residual, row_bias, silu;
};

struct band {
    uint32_t first, count;       /* rows of y */
    uint32_t in_first, in_count; /* rows of x, resized */
    uint32_t primitive;
};

struct conv_plan {
    struct weir_cpu_plan head;
    struct image image;
    struct band *bands;
    struct weir_cpu_primitive *primitives;
    struct weir_cpu_convolution *shapes; /* of the primitives */
    uint32_t band_count, primitive_count;
    size_t value_bytes;                                 /* of x as the product reads it */
    size_t bias_offset, rounded_offset, resized_offset; /* in the slice */
    uint32_t x, residual, row_bias, y;                  /* operand numbers */
};

static bool is_resized(const struct image *m)
{
    return m->height != m->given_height || m->width != m->given_width;
}

/* The row of the image given that row v of the resized one is. */
static uint32_t given_row(const struct image *m, uint32_t v)
{
    return (uint32_t)((uint64_t)v * m->given_height / m->height);
}

/* Rows first.. of the resized image, by the nearest pixel below, of `given`, whose first row is given_row(first); equal
 * neighbours are copied whole. */
static void resize(const struct image *m, const char *given, size_t pixel_bytes, uint32_t first, uint32_t count,
                   char *to)
{
    const size_t row_bytes = m->width * pixel_bytes;
    const uint32_t top = given_row(m, first);
    uint32_t last = UINT32_MAX;
    for (uint32_t v = first; v < first + count; v++, to += row_bytes) {
        const uint32_t from = given_row(m, v);
        if (from == last) {
            memcpy(to, to - row_bytes, row_bytes);
            continue;
        }
        last = from;
        const char *row = given + (from - top) * m->given_width * pixel_bytes;
        for (uint32_t u = 0; u < m->width; u++) {
            memcpy(to + u * pixel_bytes, row + (uint64_t)u * m->given_width / m->width * pixel_bytes, pixel_bytes);
        }
    }
}

/* Rows of x that a band reads, as they are given. */
static uint32_t given_count(const struct image *m, const struct band *band)
{
    return given_row(m, band->in_first + band->in_count - 1) - given_row(m, band->in_first) + 1;
}

/* The band's rows of x as the product reads them: rounded, then resized, where either is wanted. */
static const void *band_input(const struct weir_cpu_simd *simd, const struct conv_plan *plan, const struct band *band,
                              const float *image, char *slice)
{
    const struct image *m = &plan->image;
    const size_t row_count = (size_t)m->given_width * m->in;
    const void *x = image + given_row(m, band->in_first) * row_count;
    if (plan->head.layer->head.dtype == WEIR_BF16) {
        uint16_t *rounded = (uint16_t *)(void *)(slice + plan->rounded_offset);
        simd->round_bf16(x, rounded, given_count(m, band) * row_count);
        x = rounded;
    }
    if (is_resized(m)) {
        char *resized = slice + plan->resized_offset;
        resize(m, x, m->in * plan->value_bytes, band->in_first, band->in_count, resized);
        x = resized;
    }
    return x;
}

static void conv_item(void *context, uint32_t item, uint32_t slot)
{
    struct weir_cpu_run *run = context;
    const struct conv_plan *plan = (const struct conv_plan *)run->plan;
    const struct image *m = &plan->image;
    const struct band *band = &plan->bands[item % plan->band_count];
    const size_t image = item / plan->band_count;
    char *slice = weir_cpu_slice(run, slot);
    const float *bias = plan->head.layer->bias;
    const float *given = (const float *)run->operands[plan->x] + image * m->given_height * m->given_width * m->in;
    const size_t y_offset = (image * m->out_height + band->first) * m->out_width * m->out;
    float *y = (float *)run->operands[plan->y] + y_offset;

    const void *x = band_input(run->cpu->simd, plan, band, given, slice);
    if (m->row_bias) {
        const float *row_bias = (const float *)run->operands[plan->row_bias] + image / m->images * m->out;
        float *sum = (float *)(void *)(slice + plan->bias_offset);
        for (uint32_t o = 0; o < m->out; o++) sum[o] = bias[o] + row_bias[o];
        bias = sum;
    }
    if (m->residual) {
        const float *residual = (const float *)run->operands[plan->residual] + y_offset;
        if (residual != y) memcpy(y, residual, (size_t)band->count * m->out_width * m->out * sizeof(float));
    }
    if (!weir_cpu_primitive_run(run->cpu, &plan->primitives[band->primitive], slot, x, bias, y, slice)) {
        weir_cpu_fault(run);
    }
    if (m->silu) {
        run->cpu->simd->activate(WEIR_ACT_SILU, y, NULL, y, (size_t)band->count * m->out_width * m->out);
    }
}

static void conv_run(struct weir_cpu_run *run)
{
    const struct conv_plan *plan = (const struct conv_plan *)run->plan;
    weir_cpu_items(run, plan->image.rows * plan->image.images * plan->band_count, conv_item);
}

static void conv_deinit(struct weir_cpu *cpu, struct weir_cpu_plan *head)
{
    struct conv_plan *plan = (struct conv_plan *)head;
    for (uint32_t i = 0; i < plan->primitive_count; i++) weir_cpu_primitive_destroy(cpu, &plan->primitives[i]);
    free(plan->primitives);
    free(plan->shapes);
    free(plan->bands);
}

/* Rows of y in a band: see the top of this file. By the image's shape alone, never by `rows`. */
static uint32_t band_rows(const struct image *m, enum weir_dtype dtype)
{
    const uint64_t flops = 2 * (uint64_t)m->kernel_height * m->kernel_width * m->in * m->out * m->out_width;
    uint64_t bands = (ITEMS_WANTED + m->images - 1) / m->images;
    const uint64_t worthwhile = flops * m->out_height / BAND_FLOPS_MIN;
    if (bands > worthwhile) bands = worthwhile;
    if (is_resized(m)) {
        const uint64_t bytes =
            sizeof(float) * ((uint64_t)m->height * m->width * m->in + (uint64_t)m->out_height * m->out_width * m->out);
        const uint64_t by_bytes = bytes / BAND_BYTES_MAX + 1;
        if (bands < by_bytes) bands = by_bytes;
    }
    if (dtype == WEIR_BF16) {
        const uint64_t bytes = sizeof(uint16_t) * (uint64_t)m->given_height * m->given_width * m->in;
        if (bands < bytes / BAND_ROUNDED_MAX + 1) bands = bytes / BAND_ROUNDED_MAX + 1;
    }
    if (bands < 1) bands = 1;
    if (bands > m->out_height) bands = m->out_height;
    return (uint32_t)((m->out_height + bands - 1) / bands);
}

static struct weir_cpu_convolution band_shape(const struct image *m, struct band *band)
{
    const int64_t top = (int64_t)band->first * m->stride - m->pad_top;
    const int64_t reach = (int64_t)(m->kernel_height - 1) * m->dilation + 1;
    const int64_t bottom = top + (int64_t)(band->count - 1) * m->stride + reach; /* one beyond */
    const int64_t from = top > 0 ? top : 0, to = bottom < m->height ? bottom : m->height;
    band->in_first = (uint32_t)from;
    band->in_count = (uint32_t)(to - from);
    return (struct weir_cpu_convolution){ .in_height = band->in_count,
                                          .in_width = m->width,
                                          .height = band->count,
                                          .width = m->out_width,
                                          .kernel_height = m->kernel_height,
                                          .kernel_width = m->kernel_width,
                                          .stride = m->stride,
                                          .dilation = m->dilation,
                                          .pad_top = (uint32_t)(from - top),
                                          .pad_bottom = (uint32_t)(bottom - to),
                                          .pad_left = m->pad_left,
                                          .pad_right = m->pad_right,
                                          .add = m->residual };
}

static bool same_shape(const struct weir_cpu_convolution *a, const struct weir_cpu_convolution *b)
{
    return a->in_height == b->in_height && a->height == b->height && a->pad_top == b->pad_top &&
           a->pad_bottom == b->pad_bottom; /* all else is the layer's and the image's */
}

/* Finds or makes the primitive of a band. */
static enum weir_status band_primitive(struct weir_cpu *cpu, struct conv_plan *plan, struct band *band,
                                       struct weir_error *error)
{
    const struct weir_cpu_convolution shape = band_shape(&plan->image, band);
    for (uint32_t i = 0; i < plan->primitive_count; i++) {
        if (same_shape(&shape, &plan->shapes[i])) {
            band->primitive = i;
            return WEIR_OK;
        }
    }
    const enum weir_status status =
        weir_cpu_convolution_create(cpu, plan->head.layer, &shape, &plan->primitives[plan->primitive_count], error);
    if (status != WEIR_OK) return status;
    plan->shapes[plan->primitive_count] = shape;
    band->primitive = plan->primitive_count++;
    return WEIR_OK;
}

static struct weir_cpu_plan *conv_plan_create(struct weir_cpu *cpu, struct weir_cpu_packed *layer,
                                              const struct image *m, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const uint32_t each = band_rows(m, layer->head.dtype), bands = (m->out_height + each - 1) / each;
    struct conv_plan *plan = calloc(1, sizeof *plan);
    if (plan) {
        plan->bands = calloc(bands, sizeof *plan->bands);
        plan->primitives = calloc(bands, sizeof *plan->primitives);
        plan->shapes = calloc(bands, sizeof *plan->shapes);
    }
    if (!plan || !plan->bands || !plan->primitives || !plan->shapes) {
        status = weir_fail(error, WEIR_NO_MEMORY, "device cpu: no memory for a plan");
        goto cleanup;
    }
    plan->head.layer = layer;
    plan->head.run = conv_run;
    plan->head.deinit = conv_deinit;
    plan->image = *m;
    plan->band_count = bands;
    plan->value_bytes = weir_dtype_bytes(layer->head.dtype);
    size_t scratch_bytes = 0, rounded_rows = 0, resized_rows = 0;
    for (uint32_t i = 0; i < bands; i++) {
        struct band *band = &plan->bands[i];
        band->first = i * each;
        band->count = m->out_height - band->first < each ? m->out_height - band->first : each;
        WEIR_TRY(band_primitive(cpu, plan, band, error));
        if (plan->primitives[band->primitive].scratch_bytes > scratch_bytes) {
            scratch_bytes = plan->primitives[band->primitive].scratch_bytes;
        }
        if (is_resized(m) && band->in_count > resized_rows) resized_rows = band->in_count;
        if (layer->head.dtype == WEIR_BF16 && given_count(m, band) > rounded_rows) rounded_rows = given_count(m, band);
    }
    plan->bias_offset = weir_cpu_aligned(scratch_bytes);
    plan->rounded_offset = plan->bias_offset + (m->row_bias ? weir_cpu_aligned(m->out * sizeof(float)) : 0);
    plan->resized_offset =
        plan->rounded_offset + weir_cpu_aligned(rounded_rows * m->given_width * m->in * sizeof(uint16_t));
    plan->head.slice_bytes = plan->resized_offset + resized_rows * m->width * m->in * plan->value_bytes;

cleanup:
    if (status != WEIR_OK) {
        if (plan) conv_deinit(cpu, &plan->head);
        free(plan);
        return NULL;
    }
    return &plan->head;
}

struct weir_cpu_plan *weir_cpu_plan_conv2d(struct weir_cpu *cpu, struct weir_cpu_packed *layer,
                                           const struct weir_conv2d *s, struct weir_error *error)
{
    const struct weir_conv2d_size size = weir_conv2d_size_of(s);
    const struct image image = { .rows = s->rows,
                                 .images = s->frames,
                                 .given_height = s->height,
                                 .given_width = s->width,
                                 .height = size.source_height,
                                 .width = size.source_width,
                                 .in = s->in,
                                 .out = s->out,
                                 .out_height = size.height,
                                 .out_width = size.width,
                                 .kernel_height = s->kernel,
                                 .kernel_width = s->kernel,
                                 .stride = s->stride,
                                 .dilation = 1,
                                 .pad_top = s->pad,
                                 .pad_left = s->pad,
                                 .pad_right = s->pad_end,
                                 .residual = s->residual,
                                 .row_bias = s->row_bias,
                                 .silu = s->silu };
    struct weir_cpu_plan *plan = conv_plan_create(cpu, layer, &image, error);
    if (!plan) return NULL;
    struct conv_plan *conv = (struct conv_plan *)plan;
    conv->x = WEIR_CONV2D_X;
    conv->row_bias = WEIR_CONV2D_ROW_BIAS;
    conv->residual = WEIR_CONV2D_RESIDUAL;
    conv->y = WEIR_CONV2D_Y;
    return plan;
}

/* The fewest rows, all alike, that a frame of so many pixels can be cut into with at most WIDTH_MAX columns; 1 where
 * there is no such number. */
static uint32_t rows_of_frame(uint32_t frames, uint32_t pixels)
{
    const uint32_t most = WEIR_DIMENSION_MAX / frames;
    for (uint32_t rows = (pixels + WIDTH_MAX - 1) / WIDTH_MAX; rows <= most && rows <= pixels / 2; rows++) {
        if (pixels % rows == 0) return rows;
    }
    return 1;
}

struct weir_cpu_plan *weir_cpu_plan_conv_temporal(struct weir_cpu *cpu, struct weir_cpu_packed *layer,
                                                  const struct weir_conv_temporal *s, struct weir_error *error)
{
    const uint32_t fold = rows_of_frame(s->frames, s->pixels), height = s->frames * fold, width = s->pixels / fold;
    const struct image image = { .rows = s->rows,
                                 .images = 1,
                                 .given_height = height,
                                 .given_width = width,
                                 .height = height,
                                 .width = width,
                                 .in = s->in,
                                 .out = s->out,
                                 .out_height = height,
                                 .out_width = width,
                                 .kernel_height = 3,
                                 .kernel_width = 1,
                                 .stride = 1,
                                 .dilation = fold,
                                 .pad_top = fold,
                                 .residual = s->residual };
    struct weir_cpu_plan *plan = conv_plan_create(cpu, layer, &image, error);
    if (!plan) return NULL;
    struct conv_plan *conv = (struct conv_plan *)plan;
    conv->x = WEIR_CONV_TEMPORAL_X;
    conv->residual = WEIR_CONV_TEMPORAL_RESIDUAL;
    conv->y = WEIR_CONV_TEMPORAL_Y;
    return plan;
}
