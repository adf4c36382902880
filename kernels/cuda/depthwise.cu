/* depthwise_conv, and its gated form with the product of value and gate in the same kernel. A thread makes COLUMNS
 * neighbours of one channel, so that a window's columns are read once for all of them. */
#include "kernels/cuda/kernel.cuh"

#define COLUMNS 8

/* x as the products read it: what `activate` would have stored. */
template <typename T> static __device__ __forceinline__ float read_as(const struct weir_depthwise_conv &s, const T *p)
{
    const float value = weir_read(p);
    if (s.activation == WEIR_ACT_NONE) return value;
    const bool fast = sizeof(T) == sizeof(bf16) && s.channels % WEIR_EIGHT == 0;
    T stored;
    weir_write(&stored, fast ? weir_act_fast<WEIR_ACT_SILU>(value) : weir_act(WEIR_ACT_SILU, value));
    return weir_read(&stored);
}

/* The sums of channel c at row v, columns u .. u + COLUMNS - 1; bias first, then taps in order. With KERNEL 0 the
 * size of the window is s.kernel, and nothing is kept. */
template <int KERNEL, typename T>
static __device__ __forceinline__ void sums_of(const struct weir_depthwise_conv &s, const T *image, const float *weight,
                                               const float *bias, uint32_t v, uint32_t u, uint32_t c,
                                               float sums[COLUMNS])
{
    const int32_t kernel = KERNEL ? KERNEL : (int32_t)s.kernel, pad = kernel / 2;
#pragma unroll
    for (int n = 0; n < COLUMNS; n++) sums[n] = bias ? bias[c] : 0.0f;
#pragma unroll
    for (int32_t ky = 0; ky < kernel; ky++) {
        const int32_t row = (int32_t)v + ky - pad;
        if (row < 0 || row >= (int32_t)s.height) continue;
        const T *line = image + (uint64_t)row * s.width * s.channels + c;
        float kept[KERNEL ? COLUMNS + KERNEL - 1 : 1];
        if (KERNEL) {
#pragma unroll
            for (int n = 0; n < COLUMNS + KERNEL - 1; n++) {
                const int32_t column = (int32_t)u + n - pad;
                const bool inside = column >= 0 && column < (int32_t)s.width;
                kept[n] = inside ? read_as(s, line + (uint64_t)column * s.channels) : 0.0f;
            }
        }
#pragma unroll
        for (int32_t kx = 0; kx < kernel; kx++) {
            const float w = weight[(uint64_t)(ky * kernel + kx) * s.channels + c];
#pragma unroll
            for (int n = 0; n < COLUMNS; n++) {
                float value;
                if (KERNEL) {
                    value = kept[n + kx];
                } else {
                    const int32_t column = (int32_t)u + n + kx - pad;
                    const bool inside = column >= 0 && column < (int32_t)s.width;
                    value = inside ? read_as(s, line + (uint64_t)column * s.channels) : 0.0f;
                }
                sums[n] = fmaf(w, value, sums[n]);
            }
        }
    }
}

template <int KERNEL, typename T>
__global__ void depthwise(struct weir_depthwise_conv s, uint64_t count, uint32_t steps, const T *x, const float *weight,
                          const float *bias, T *y)
{
    const uint32_t width = s.glu ? s.channels / 2 : s.channels; /* of y */
    WEIR_EACH(i, count)
    {
        const struct weir_split pixel = weir_split_by(i, width), line = weir_split_by(pixel.quotient, steps);
        const struct weir_split whole = weir_split_by(line.quotient, s.height);
        const uint32_t c = pixel.rest, u = line.rest * COLUMNS, v = whole.rest;
        const uint64_t image = whole.quotient, plane = (uint64_t)s.height * s.width;
        float values[COLUMNS], gates[COLUMNS];
        sums_of<KERNEL>(s, x + image * plane * s.channels, weight, bias, v, u, c, values);
        if (s.glu) sums_of<KERNEL>(s, x + image * plane * s.channels, weight, bias, v, u, width + c, gates);
        T *to = y + (image * plane + (uint64_t)v * s.width + u) * width + c;
        for (uint32_t n = 0; n < COLUMNS && u + n < s.width; n++) {
            const float value = s.glu ? values[n] * weir_act(WEIR_ACT_SILU, gates[n]) : values[n];
            weir_write(to + (uint64_t)n * width, value);
        }
    }
}

/* --- bf16, channels of y counted in eights ------------------------------------------------------------------------ */

/* A block walks down the rows of a band of one image: PAIRS pairs of channels beside each other, of the value and with
 * glu of the gate, and up to GROUPS times ACROSS columns. Rows of x come into a ring in shared memory, activated
 * there once by who brought them; a thread makes ACROSS columns of a pair, and keeps the sums of all rows of y that a
 * row of x reaches. So x comes from memory once, but for what surrounds a tile, and taps are added in order. */
#define PAIRS 16           /* 64 bytes of a pixel */
#define PIXEL (4 * PAIRS)  /* those */
#define PARTS (PIXEL / 16) /* of 16 bytes, which are brought at once */
#define ACROSS 4
#define GROUPS 8
#define STAGES 4          /* rows of the ring */
#define RESIDENT 4        /* blocks of a multiprocessor: 128 registers a thread */
#define BLOCKS_WANTED 264 /* of an op, */
#define BAND_ROWS_MIN 8   /* if bands are no shorter than so many rows: some are read twice */

/* How an op is cut into blocks: y does not depend on it. */
struct cut {
    uint32_t slices, tiles, bands; /* of channels, columns, rows; a tile has `groups` times ACROSS columns */
    uint32_t groups, band_rows;
};

/* 16 bytes in 32 banks: every other group of four pixels changes places within its pairs, so that the two groups that a
 * warp reads lie in different halves of the banks. */
static __device__ __forceinline__ uint32_t place_of(uint32_t column)
{
    return (column ^ (column >> 2 & 1)) * PIXEL;
}
/* One pixel more: a column's gate is in the other half of the banks. */
static __host__ __device__ __forceinline__ uint32_t half_bytes_of(uint32_t columns)
{
    return (columns + 1) * PIXEL;
}

/* A number that the compiler shall keep: it would make some anew for every row. */
static __device__ __forceinline__ uint32_t kept_as_it_is(uint32_t number)
{
    asm volatile("" : "+r"(number));
    return number;
}

/* Shared memory by its own addresses of 32 bits. */
static __device__ __forceinline__ uint32_t shared_word(uint32_t at)
{
    uint32_t word;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(word) : "r"(at));
    return word;
}
static __device__ __forceinline__ void shared_part(uint32_t at, uint32_t words[4])
{
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(at)
                 : "memory");
}
static __device__ __forceinline__ void set_shared_part(uint32_t at, const uint32_t words[4])
{
    asm volatile("st.shared.v4.u32 [%4], {%0, %1, %2, %3};" ::"r"(words[0]), "r"(words[1]), "r"(words[2]),
                 "r"(words[3]), "r"(at)
                 : "memory");
}
static __device__ __forceinline__ void activate(uint32_t words[4])
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        words[i] = weir_pair(weir_act_fast<WEIR_ACT_SILU>(weir_low(words[i])),
                             weir_act_fast<WEIR_ACT_SILU>(weir_high(words[i])));
    }
}
/* Behind a branch, what makes the number would wait for it, too. */
static __device__ __forceinline__ void store_if(bool wanted, bf16 *to, uint32_t pair)
{
    asm volatile("{ .reg .pred p; setp.ne.u32 p, %0, 0; @p st.global.u32 [%1], %2; }" ::"r"((uint32_t)wanted), "l"(to),
                 "r"(pair)
                 : "memory");
}

/* What a thread brings of each row, in parts of 16 bytes: HALVES of the tile's columns, and some threads more, of the
 * columns beside it. What lies beside the image becomes zero. */
template <int KERNEL, int HALVES> struct bringer {
    static constexpr int pad = KERNEL / 2, rounds = (HALVES * (2 + pad) + 1) / 2;
    static_assert(ACROSS * PARTS == PAIRS, "the tile's own columns are HALVES parts a thread");
    const char *from[rounds]; /* of the next row */
    uint32_t to[rounds];      /* in its stage */
    uint32_t bytes[rounds];   /* 16, or 0: beside the image */
    bool mine[rounds];
    uint64_t row_bytes;

    __device__ __forceinline__ void begin(const struct weir_depthwise_conv &s, uint32_t groups, const bf16 *image,
                                          int32_t row, uint32_t tile, uint32_t slice)
    {
        const uint32_t inner = groups * ACROSS, columns = inner + 2 * pad, width = s.channels / HALVES;
        row_bytes = (uint64_t)s.width * s.channels * sizeof(bf16);
#pragma unroll
        for (int k = 0; k < rounds; k++) {
            const uint32_t id = threadIdx.x + k * blockDim.x, part = id % PARTS, half = id / PARTS % HALVES;
            const uint32_t n = id / PARTS / HALVES, before = n - inner;
            const uint32_t column = n < inner ? n + pad : before < pad ? before : n;
            const int32_t u = (int32_t)(tile * inner + column) - pad;
            const uint32_t c = slice * (2 * PAIRS) + part * 8;
            to[k] = half * half_bytes_of(columns) + place_of(column) + part * 16;
            from[k] = reinterpret_cast<const char *>(image) + row * (int64_t)row_bytes +
                      ((int64_t)u * s.channels + half * width + c) * (int64_t)sizeof(bf16);
            bytes[k] = u >= 0 && u < (int32_t)s.width && c < width ? 16 : 0;
            mine[k] = k < HALVES || n < columns;
        }
    }

    /* The next row, if the band has one. */
    __device__ __forceinline__ void bring(bool there, uint32_t stage)
    {
        if (there) {
#pragma unroll
            for (int k = 0; k < rounds; k++) {
                if (mine[k])
                    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(stage + to[k]), "l"(from[k]),
                                 "r"(bytes[k]));
            }
        }
#pragma unroll
        for (int k = 0; k < rounds; k++) from[k] += row_bytes;
        asm volatile("cp.async.commit_group;\n");
    }

    /* SiLU of the columns beside the tile, in place; those of the tile are activated while products are made. */
    __device__ __forceinline__ void activate_beside(uint32_t stage) const
    {
#pragma unroll
        for (int k = HALVES; k < rounds; k++) {
            if (!mine[k] || bytes[k] == 0) continue;
            uint32_t words[4];
            shared_part(stage + to[k], words);
            activate(words);
            set_shared_part(stage + to[k], words);
        }
    }
};

/* Adds a row of x to the KERNEL rows of y that it reaches, of half h of the channels. sums[i] is of the row of y that
 * lacks i + 1 rows of x before this and i behind it: so the first is done, and a new one begins with the bias.
 * `from` is where the thread's columns lie, `turned` a pixel's bytes where they changed places. */
template <int KERNEL, int HALVES>
static __device__ __forceinline__ void
add_row(float2 (&sums)[KERNEL - 1][HALVES][ACROSS], float2 (&done)[HALVES][ACROSS], int h,
        const float2 (&w)[KERNEL * KERNEL], float2 start, uint32_t from, uint32_t turned)
{
    constexpr int columns = ACROSS + 2 * (KERNEL / 2);
    /* Of columns that changed places the first of a pair is a pixel behind; so are the next four if these did not. */
    const uint32_t ways[2] = { from + turned, from + PIXEL - turned };
    float2 kept[columns];
#pragma unroll
    for (int n = 0; n < columns; n++) {
        const uint32_t word = shared_word(ways[(n ^ n >> 2) & 1] + (n & ~1) * PIXEL);
        kept[n] = make_float2(weir_low(word), weir_high(word));
    }
#pragma unroll
    for (int i = 0; i < KERNEL; i++) {
        const int ky = KERNEL - 1 - i;
#pragma unroll
        for (int n = 0; n < ACROSS; n++) {
            float2 sum = ky == 0 ? start : sums[i][h][n];
#pragma unroll
            for (int kx = 0; kx < KERNEL; kx++) {
                const float2 factor = w[ky * KERNEL + kx];
                sum.x = fmaf(factor.x, kept[n + kx].x, sum.x);
                sum.y = fmaf(factor.y, kept[n + kx].y, sum.y);
            }
            if (i == 0) {
                done[h][n] = sum;
            } else {
                sums[i - 1][h][n] = sum;
            }
        }
    }
}

template <int HALVES>
static __device__ __forceinline__ void store_row(const float2 (&sums)[HALVES][ACROSS], bf16 *to, uint32_t width,
                                                 uint32_t columns)
{
#pragma unroll
    for (int n = 0; n < ACROSS; n++) {
        float2 value = sums[0][n];
        if (HALVES == 2) {
            value.x *= weir_act_fast<WEIR_ACT_SILU>(sums[1 % HALVES][n].x);
            value.y *= weir_act_fast<WEIR_ACT_SILU>(sums[1 % HALVES][n].y);
        }
        store_if(n < columns, to + (uint64_t)n * width, weir_pair(value.x, value.y));
    }
}

/* Of what this thread brought, all but the last ROWS rows. */
template <int ROWS> static __device__ __forceinline__ void all_came_but()
{
    asm volatile("cp.async.wait_group %0;\n" ::"n"(ROWS) : "memory");
}

/* Pixels of x begin at multiples of 16 bytes, and so do their gates. */
template <int KERNEL, bool GLU, bool SILU>
__global__ void __launch_bounds__(PAIRS *GROUPS, RESIDENT)
    depthwise_rows(struct weir_depthwise_conv s, struct cut cut, const bf16 *x, const float *weight, const float *bias,
                   bf16 *y)
{
    constexpr int pad = KERNEL / 2, halves = GLU ? 2 : 1;
    extern __shared__ __align__(16) char ring[];
    const uint32_t width = s.channels / halves; /* of y */
    const uint32_t half_bytes = half_bytes_of(cut.groups * ACROSS + 2 * pad), stage_bytes = halves * half_bytes;
    const uint32_t slice = blockIdx.x % cut.slices, tile = blockIdx.x / cut.slices % cut.tiles;
    const uint32_t band = blockIdx.x / cut.slices / cut.tiles % cut.bands;
    const uint64_t image = blockIdx.x / cut.slices / cut.tiles / cut.bands, plane = (uint64_t)s.height * s.width;
    const int32_t first = (int32_t)(band * cut.band_rows), height = (int32_t)s.height;
    const int32_t end = min(first + (int32_t)cut.band_rows, height);
    const int32_t from = max(first - pad, 0), behind = min(end + pad, height); /* rows of x */
    const uint32_t ring_begin = kept_as_it_is((uint32_t)__cvta_generic_to_shared(ring)),
                   ring_end = ring_begin + STAGES * stage_bytes;

    struct bringer<KERNEL, halves> bringer;
    bringer.begin(s, cut.groups, x + image * plane * s.channels, from, tile, slice);
    for (int i = 0; i < STAGES - 1; i++) bringer.bring(from + i < behind, ring_begin + i * stage_bytes);

    const uint32_t pair = threadIdx.x % PAIRS, group = threadIdx.x / PAIRS;
    const uint32_t wanted = (slice * PAIRS + pair) * 2, c = wanted < width ? wanted : 0;
    const uint32_t u = (tile * cut.groups + group) * ACROSS, left = u < s.width ? s.width - u : 0;
    const uint32_t columns = wanted < width ? left : 0; /* that are stored */
    bf16 *to = y + (image * plane + (uint64_t)first * s.width + u) * width + c;
    float2 w[halves][KERNEL * KERNEL], start[halves];
#pragma unroll
    for (int h = 0; h < halves; h++) {
#pragma unroll
        for (int tap = 0; tap < KERNEL * KERNEL; tap++) {
            w[h][tap] = *reinterpret_cast<const float2 *>(weight + (uint64_t)tap * s.channels + h * width + c);
        }
        start[h] = bias ? *reinterpret_cast<const float2 *>(bias + h * width + c) : make_float2(0, 0);
    }
    /* Where the thread's columns lie: those that changed places and those that did not. */
    const uint32_t column_0 = kept_as_it_is(group * ACROSS * PIXEL + pair * 4), turned = (group & 1) * PIXEL;

    /* Rows of y whose first rows of x are above the image begin here. */
    float2 sums[KERNEL - 1][halves][ACROSS];
#pragma unroll
    for (int i = 0; i < (KERNEL - 1) * halves * ACROSS; i++) {
        sums[i / ACROSS / halves][i / ACROSS % halves][i % ACROSS] = start[i / ACROSS % halves];
    }
    uint32_t stage = ring_begin, ahead = ring_end - stage_bytes;
    if (SILU) {
        all_came_but<STAGES - 2>();
#pragma unroll
        for (int h = 0; h < halves; h++) {
            uint32_t words[4];
            shared_part(stage + bringer.to[h], words);
            activate(words);
            set_shared_part(stage + bringer.to[h], words);
        }
        bringer.activate_beside(stage);
    }
#pragma unroll 1
    for (int32_t row = from; row < behind; row++) {
        if (!SILU) all_came_but<STAGES - 2>();
        __syncthreads(); /* the row is there, and nobody reads the one before it */
        bringer.bring(row + STAGES - 1 < behind, ahead);
        if (SILU) all_came_but<STAGES - 2>(); /* the next row, which is activated meanwhile */
        const uint32_t next = stage + stage_bytes == ring_end ? ring_begin : stage + stage_bytes;
        float2 done[halves][ACROSS];
#pragma unroll
        for (int h = 0; h < halves; h++) {
            uint32_t words[4];
            if (SILU) shared_part(next + bringer.to[h], words);
            add_row<KERNEL, halves>(sums, done, h, w[h], start[h], stage + column_0 + h * half_bytes, turned);
            if (SILU) {
                activate(words);
                set_shared_part(next + bringer.to[h], words);
            }
        }
        if (SILU) bringer.activate_beside(next);
        if (row - pad >= first) { /* all taps of that row of y are in */
            store_row<halves>(done, to, width, columns);
            to += (uint64_t)s.width * width;
        }
        stage = next;
        ahead = ahead + stage_bytes == ring_end ? ring_begin : ahead + stage_bytes;
    }
    if (behind < end + pad) { /* the rest is below the image */
#pragma unroll
        for (int i = 0; i < pad; i++) {
            if (behind - pad + i < first || behind - pad + i >= end) continue;
            store_row<halves>(sums[i], to, width, columns);
            to += (uint64_t)s.width * width;
        }
    }
}

static uint32_t over(uint32_t n, uint32_t d)
{
    return (n + d - 1) / d;
}

/* Bands as few as fill the multiprocessors: each reads some rows of its neighbours. */
static struct cut cut_of(const struct weir_depthwise_conv *s)
{
    const uint32_t width = s->glu ? s->channels / 2 : s->channels, groups = over(s->width, ACROSS);
    struct cut cut;
    cut.slices = over(width, 2 * PAIRS);
    cut.tiles = over(groups, GROUPS);
    cut.groups = over(groups, cut.tiles);
    const uint64_t blocks = (uint64_t)s->frames * cut.slices * cut.tiles * s->rows;
    uint64_t bands = 1;
    while (blocks * bands < BLOCKS_WANTED && s->height / (2 * bands) >= BAND_ROWS_MIN) bands *= 2;
    cut.band_rows = over(s->height, (uint32_t)bands);
    cut.bands = over(s->height, cut.band_rows);
    return cut;
}

template <int KERNEL, bool GLU, bool SILU> static bool launch_rows(const struct weir_cuda_run *run)
{
    const struct weir_depthwise_conv *s = &run->plan->shape.depthwise_conv;
    const struct cut cut = cut_of(s);
    const uint64_t blocks = (uint64_t)s->rows * s->frames * cut.bands * cut.tiles * cut.slices;
    const size_t bytes = STAGES * (GLU ? 2 : 1) * half_bytes_of(cut.groups * ACROSS + 2 * (KERNEL / 2));
    if (blocks > 0x7fffffffu) return false;
    depthwise_rows<KERNEL, GLU, SILU><<<(unsigned)blocks, PAIRS * cut.groups, bytes, run->stream->stream>>>(
        *s, cut, (const bf16 *)run->operands[WEIR_DEPTHWISE_CONV_X], (const float *)run->plan->layer->weight,
        run->plan->layer->bias, (bf16 *)run->operands[WEIR_DEPTHWISE_CONV_Y]);
    return true;
}

/* false: not for this shape. */
static bool launch_fast(const struct weir_cuda_run *run)
{
    const struct weir_depthwise_conv *s = &run->plan->shape.depthwise_conv;
    const bool silu = s->activation == WEIR_ACT_SILU;
    if (s->dtype != WEIR_BF16 || s->channels % (s->glu ? 16 : 8) != 0) return false;
    if (s->kernel == 3 && s->glu) return silu ? launch_rows<3, true, true>(run) : launch_rows<3, true, false>(run);
    if (s->kernel == 3) return silu ? launch_rows<3, false, true>(run) : launch_rows<3, false, false>(run);
    if (s->kernel == 5 && !s->glu) return silu ? launch_rows<5, false, true>(run) : launch_rows<5, false, false>(run);
    return false;
}

/* ------------------------------------------------------------------------------------------------------------------ */

template <typename T> static void launch(const struct weir_cuda_run *run)
{
    const struct weir_depthwise_conv *s = &run->plan->shape.depthwise_conv;
    const float *weight = (const float *)run->plan->layer->weight, *bias = run->plan->layer->bias;
    const T *x = (const T *)run->operands[WEIR_DEPTHWISE_CONV_X];
    T *y = (T *)run->operands[WEIR_DEPTHWISE_CONV_Y];
    const uint32_t steps = (s->width + COLUMNS - 1) / COLUMNS, width = s->glu ? s->channels / 2 : s->channels;
    const uint64_t count = (uint64_t)s->rows * s->frames * s->height * steps * width;
    const unsigned blocks = weir_blocks(count, THREADS);
    cudaStream_t stream = run->stream->stream;
    if (s->kernel == 3) {
        depthwise<3, T><<<blocks, THREADS, 0, stream>>>(*s, count, steps, x, weight, bias, y);
    } else if (s->kernel == 5) {
        depthwise<5, T><<<blocks, THREADS, 0, stream>>>(*s, count, steps, x, weight, bias, y);
    } else {
        depthwise<0, T><<<blocks, THREADS, 0, stream>>>(*s, count, steps, x, weight, bias, y);
    }
}

enum weir_status weir_cuda_run_depthwise_conv(const struct weir_cuda_run *run)
{
    if (launch_fast(run)) return weir_launched();
    WEIR_BY_TYPE(run->plan->shape.depthwise_conv.dtype, T, (launch<T>(run)));
    return weir_launched();
}
