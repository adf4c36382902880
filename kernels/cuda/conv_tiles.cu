/* What of conv_tiles.cuh runs for which convolution, and how it is launched. The bytes are the same whatever is chosen:
 * only time depends on it, so that it may be chosen by all images. */
#include "kernels/cuda/conv_tiles.cuh"

/* A function of the driver, which is not linked to: NULL when it has none. */
static void *driver_function(const char *name)
{
    cudaDriverEntryPointQueryResult result;
    void *entry = NULL;
    if (cudaGetDriverEntryPointByVersion(name, &entry, 12000, cudaEnableDefault, &result) != cudaSuccess ||
        result != cudaDriverEntryPointSuccess)
        return NULL;
    return entry;
}

#define AXES 4
static void strides_of(cuuint32_t axes, const cuuint64_t *dims, cuuint64_t *strides)
{
    cuuint64_t bytes = sizeof(bf16);
    for (cuuint32_t i = 0; i + 1 < axes; i++) strides[i] = bytes *= dims[i];
}

/* Boxes of numbers that lie without gaps, the first axis fastest. */
static bool map_boxes(CUtensorMap *map, cuuint32_t axes, const void *memory, const cuuint64_t *dims,
                      const cuuint32_t *box)
{
    typedef CUresult (*encode_function)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                                        const cuuint64_t *, const cuuint32_t *, const cuuint32_t *,
                                        CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion,
                                        CUtensorMapFloatOOBfill);
    static const encode_function encode = (encode_function)driver_function("cuTensorMapEncodeTiled");
    const cuuint32_t every[AXES] = { 1, 1, 1, 1 };
    cuuint64_t strides[AXES];
    strides_of(axes, dims, strides);
    return encode && encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, axes, const_cast<void *>(memory), dims, strides, box,
                            every, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                            CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

/* The pixels [channels, width, height, images] that a kernel's first tap falls on, `pixels` at a time. */
static bool map_pixels(CUtensorMap *map, const void *memory, const cuuint64_t dims[AXES], const int lower[2],
                       const int upper[2], cuuint32_t stride, cuuint32_t pixels)
{
    typedef CUresult (*encode_function)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                                        const cuuint64_t *, const int *, const int *, cuuint32_t, cuuint32_t,
                                        const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                                        CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
    static const encode_function encode = (encode_function)driver_function("cuTensorMapEncodeIm2col");
    const cuuint32_t every[AXES] = { 1, stride, stride, 1 };
    cuuint64_t strides[AXES];
    strides_of(AXES, dims, strides);
    return encode &&
           encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, AXES, const_cast<void *>(memory), dims, strides, lower, upper,
                  CHANNELS, pixels, every, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                  CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

struct work {
    const struct weir_cuda_window *window;
    const void *x, *weight;
    struct following following;
    bool doubled; /* the four kernels of 2 x 2 */
    uint32_t multiprocessors;
    cudaStream_t stream;
};

static struct tiling tiling_of(const struct work *k)
{
    const struct weir_cuda_window *w = k->window;
    const uint32_t scale = k->doubled ? 2 : 1;
    struct tiling t = {};
    t.chunks = (w->in + CHANNELS - 1) / CHANNELS;
    t.taps_x = k->doubled ? 2 : w->kernel_x, t.taps_y = k->doubled ? 2 : w->kernel_y;
    t.stride = w->stride;
    t.height = (int32_t)(w->height / scale), t.width = (int32_t)(w->width / scale);
    t.blocks_x = (w->width / scale + SIDE - 1) / SIDE, t.blocks_y = (w->height / scale + SIDE - 1) / SIDE;
    t.images = (uint32_t)w->images;
    t.phases = scale * scale;
    t.pad_y = (int32_t)w->pad_y, t.pad_x = (int32_t)w->pad_x;
    t.out = w->out, t.frames = w->frames;
    t.image_step = (uint64_t)w->height * w->width * w->out;
    t.phase_line = (uint64_t)w->width * w->out, t.phase_pixel = w->out;
    t.line_step = scale * t.phase_line, t.pixel_step = scale * t.phase_pixel;
    return t;
}

static bool map_x(CUtensorMap *map, const struct work *k, int taps_y, int pixels)
{
    const struct weir_cuda_window *w = k->window;
    const cuuint64_t dims[AXES] = { w->in, w->x_width, w->x_height, w->images };
    const cuuint32_t box[AXES] = { CHANNELS, SIDE, (cuuint32_t)(SIDE + taps_y - 1), 1 };
    const int lower[2] = { -(int)w->pad_x, -(int)w->pad_y };
    const int upper[2] = { (int)w->end_x - (int)w->kernel_x + 1, (int)w->end_y - (int)w->kernel_y + 1 };
    if (taps_y == FLAT) return map_pixels(map, k->x, dims, lower, upper, w->stride, (cuuint32_t)pixels);
    return map_boxes(map, AXES, k->x, dims, box);
}

template <int N, int BLOCKS, int TEAM, int TAPS_Y> static enum weir_status launch(const struct work *k)
{
    using S = sizes<N, BLOCKS, TEAM, TAPS_Y>;
    static_assert(S::x_slots >= 2 && S::w_slots >= 3, "two tiles of x and three of the weight at least");
    constexpr uint32_t together = BLOCKS * TEAM;
    struct tiling t = tiling_of(k);
    CUtensorMap x_map, w_map;
    const uint64_t pixels = (uint64_t)t.images * t.height * t.width;
    const uint64_t blocks =
        TAPS_Y == FLAT ? (pixels + PIXELS - 1) / PIXELS : (uint64_t)t.images * t.blocks_x * t.blocks_y;
    t.tiles_n = (t.out + N - 1) / N;
    t.tiles = (uint32_t)((blocks + together - 1) / together * t.tiles_n * t.phases);
    const cuuint64_t w_dims[3] = { k->window->in, (cuuint64_t)t.taps_x * t.taps_y, (cuuint64_t)t.out * t.phases };
    const cuuint32_t w_box[3] = { CHANNELS, 1, N };
    if (!map_x(&x_map, k, TAPS_Y, together * PIXELS) || !map_boxes(&w_map, 3, k->weight, w_dims, w_box) ||
        cudaFuncSetAttribute(convolve<N, BLOCKS, TEAM, TAPS_Y>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             S::bytes) != cudaSuccess)
        return WEIR_DEVICE;
    const uint32_t grid = t.tiles < k->multiprocessors ? t.tiles : k->multiprocessors;
    convolve<N, BLOCKS, TEAM, TAPS_Y><<<grid, TILE_THREADS, S::bytes, k->stream>>>(x_map, w_map, t, k->following);
    return weir_launched();
}

/* --- choosing ----------------------------------------------------------------------------------------------------- */

/* Channels of y, blocks of a warpgroup, warpgroups of a tile; and how fast that was on an H200, by pictures and flat, of
 * the first (kernels/lab/conv.md). */
#define SHAPES(X)                                                                                                      \
    X(160, 2, 1, 1.00, 0.95)                                                                                           \
    X(160, 1, 2, 1.02, 0.91)                                                                                           \
    X(128, 2, 1, 0.97, 0.84)                                                                                           \
    X(128, 2, 2, 0.97, 0.98)
#define FEW_N 8

/* A team has the tile of two warpgroups that take turns, or twice that, and writes while nobody multiplies: of one block
 * each it is quicker with the many taps of three rows alone, of two blocks where tiles are flat. */
static constexpr bool is_made(int n, int blocks, int team, uint32_t taps_y)
{
    return n == FEW_N || team == 1 || (blocks == 1 ? taps_y == 3 : taps_y == FLAT);
}

template <int N, int BLOCKS, int TEAM, int TAPS_Y> static enum weir_status launch_made(const struct work *k)
{
    if constexpr (is_made(N, BLOCKS, TEAM, TAPS_Y)) return launch<N, BLOCKS, TEAM, TAPS_Y>(k);
    return WEIR_INTERNAL;
}

template <int N, int BLOCKS, int TEAM> static enum weir_status launch_rows(const struct work *k, uint32_t taps_y)
{
    switch (taps_y) {
    case 1:
        return launch_made<N, BLOCKS, TEAM, 1>(k);
    case 2:
        return launch_made<N, BLOCKS, TEAM, 2>(k);
    case 3:
        return launch_made<N, BLOCKS, TEAM, 3>(k);
    default:
        return launch_made<N, BLOCKS, TEAM, FLAT>(k);
    }
}

static uint64_t over(uint64_t n, uint64_t d)
{
    return (n + d - 1) / d;
}

/* Blocks of x by pictures, or flat ones. */
static uint64_t blocks_of(const struct work *k, bool flat)
{
    const struct tiling t = tiling_of(k);
    return flat ? over((uint64_t)t.images * t.height * t.width, PIXELS) : (uint64_t)t.images * t.blocks_x * t.blocks_y;
}

/* How long a shape takes: what a multiprocessor has to do, by how fast it is. A team writes its tile while nobody
 * multiplies; warpgroups that take turns do not. */
#define TEAM_TAPS 3 /* that could be multiplied meanwhile */

static double cost_of(const struct work *k, bool flat, uint32_t n, uint32_t blocks, uint32_t team, double rate)
{
    const struct tiling t = tiling_of(k);
    const uint64_t tiles = over(blocks_of(k, flat), blocks * team) * over(t.out, n) * t.phases;
    const uint64_t taps = (uint64_t)t.chunks * t.taps_x * t.taps_y + (team > 1 ? TEAM_TAPS : 0);
    return (double)(over(tiles, k->multiprocessors) * n * blocks * team * taps) / rate;
}

static enum weir_status launch_best(const struct work *k)
{
    const struct weir_cuda_window *w = k->window;
    const uint32_t taps_y = k->doubled ? 2 : w->kernel_y;
    const bool blocks_can = w->stride == 1 && taps_y <= 3;
    double best = 0;
    enum weir_status (*chosen)(const struct work *, uint32_t) = NULL;
    uint32_t rows = FLAT;
    if (w->out <= FEW_N) return launch_rows<FEW_N, 2, 2>(k, blocks_can ? taps_y : FLAT);
    for (int flat = 0; flat < 2; flat++) {
        if (!flat && !blocks_can) continue;
#define X(N, BLOCKS, TEAM, RATE, FLAT_RATE)                                                                            \
    if (is_made(N, BLOCKS, TEAM, flat ? FLAT : taps_y)) {                                                              \
        const double cost = cost_of(k, flat, N, BLOCKS, TEAM, flat ? FLAT_RATE : RATE);                                \
        if (!chosen || cost < best) best = cost, chosen = launch_rows<N, BLOCKS, TEAM>, rows = flat ? FLAT : taps_y;   \
    }
        SHAPES(X)
#undef X
    }
    return chosen(k, rows);
}

#define GENERATION 90
#define KERNEL_MAX 16 /* what maps of pixels can say is more */
#define STRIDE_MAX 8
#define PIXELS_MIN 512        /* of a row: of fewer there are too few tiles for the processors */
#define PIXELS_MAX (1u << 30) /* of a row, and of a launch: they are counted in 32 bits */

static bool is_doubled(const struct weir_cuda_window *w)
{
    return w->source_height == 2 * w->x_height && w->source_width == 2 * w->x_width && w->kernel_y == 3 &&
           w->kernel_x == 3 && w->stride == 1 && w->pad_y == 1 && w->pad_x == 1 && w->end_y == 1 && w->end_x == 1;
}

bool weir_cuda_tiles_take(const struct weir_cuda *cuda, const struct weir_cuda_window *w,
                          const struct weir_cuda_packed *layer)
{
    const bool resized = w->source_height != w->x_height || w->source_width != w->x_width;
    if (resized && (!is_doubled(w) || !layer->has_doubled)) return false;
    if (w->kernel_x > KERNEL_MAX || w->kernel_y > KERNEL_MAX || w->stride > STRIDE_MAX) return false;
    return cuda->generation == GENERATION && w->dtype == WEIR_BF16 && w->y_dtype == WEIR_BF16 &&
           w->in % WEIR_EIGHT == 0 && (w->out % WEIR_EIGHT == 0 || w->out < FEW_N) &&
           (uint64_t)w->frames * w->height * w->width >= PIXELS_MIN &&
           (uint64_t)w->frames * w->height * w->width <= PIXELS_MAX && w->x_stride == w->in && w->y_stride == w->out;
}

enum weir_status weir_cuda_tiles_run(const struct weir_cuda *cuda, const struct weir_cuda_window *w,
                                     cudaStream_t stream, const struct weir_cuda_packed *layer, const void *x,
                                     const void *row_bias, const void *residual, void *y)
{
    const uint64_t of_row = (uint64_t)w->frames * w->height * w->width, rows = w->images / w->frames;
    const uint64_t most = PIXELS_MAX / of_row;
    enum weir_status status = WEIR_OK;
    struct weir_cuda_window part = *w;
    struct work k = {};
    k.window = &part;
    k.doubled = w->source_height != w->x_height || w->source_width != w->x_width;
    k.weight = k.doubled ? layer->doubled : layer->weight;
    k.following.bias = layer->bias;
    k.following.silu = w->silu;
    k.multiprocessors = (uint32_t)cuda->multiprocessors;
    k.stream = stream;
    for (uint64_t row = 0; row < rows && status == WEIR_OK; row += most) {
        const uint64_t image = row * w->frames, at = row * of_row * w->out;
        part.images = (rows - row < most ? rows - row : most) * w->frames;
        k.x = (const bf16 *)x + image * w->x_height * w->x_width * w->in;
        k.following.row_bias = w->row_bias ? (const bf16 *)row_bias + row * w->out : NULL;
        k.following.residual = w->residual ? (const bf16 *)residual + at : NULL;
        k.following.y = (bf16 *)y + at;
        status = launch_best(&k);
    }
    return status;
}
