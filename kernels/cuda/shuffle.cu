/* pixel_shuffle and pixel_unshuffle, each with its shortcut. */
#include "kernels/cuda/kernel.cuh"

template <typename T>
__global__ void pixel_shuffle(struct weir_pixel_shuffle s, uint64_t count, const T *x, const T *residual, T *y)
{
    const uint32_t copies = 4 * s.out / s.in;
    WEIR_EACH(i, count)
    {
        const struct weir_split pixel = weir_split_by(i, s.out), line = weir_split_by(pixel.quotient, 2 * s.width);
        const struct weir_split whole = weir_split_by(line.quotient, 2 * s.height);
        const uint32_t c = pixel.rest, u = line.rest, v = whole.rest;
        const uint64_t image = whole.quotient;
        const T *from = x + ((image * s.height + v / 2) * s.width + u / 2) * s.in;
        float value = weir_read(from + (4 * c + 2 * (v % 2) + u % 2) / copies);
        if (s.residual) value += weir_read(residual + i);
        weir_write(y + i, value);
    }
}

/* Eight channels of each of the four pixels a thread: together they are one piece of x. */
template <int COPIES>
__global__ void pixel_shuffle_8(struct weir_pixel_shuffle s, uint64_t count, const bf16 *x, const bf16 *residual,
                                bf16 *y)
{
    constexpr int read = 32 / COPIES;
    const uint32_t eights = s.out / 8;
    WEIR_EACH(i, count)
    {
        const struct weir_split pixel = weir_split_by(i, eights), line = weir_split_by(pixel.quotient, s.width);
        const uint32_t c = pixel.rest * 8;
        float values[read];
#pragma unroll
        for (int n = 0; n < read; n += 8) weir_read_8(x + pixel.quotient * s.in + 4 * c / COPIES + n, values + n);
#pragma unroll
        for (int to = 0; to < 4; to++) {
            const uint64_t at =
                ((2 * line.quotient + to / 2) * (2 * (uint64_t)s.width) + 2 * line.rest + to % 2) * s.out + c;
            float results[8], others[8];
#pragma unroll
            for (int n = 0; n < 8; n++) results[n] = values[(4 * n + to) / COPIES];
            if (s.residual) {
                weir_read_8(residual + at, others);
#pragma unroll
                for (int n = 0; n < 8; n++) results[n] += others[n];
            }
            weir_write_8(y + at, results);
        }
    }
}

/* false: not for this shape. */
static bool launch_shuffle_8(const struct weir_pixel_shuffle *s, cudaStream_t stream, const bf16 *x,
                             const bf16 *residual, bf16 *y)
{
    const uint32_t copies = 4 * s->out / s->in;
    const uint64_t count = (uint64_t)s->rows * s->frames * s->height * s->width * (s->out / 8);
    const unsigned blocks = weir_blocks(count, THREADS);
    if (s->dtype != WEIR_BF16 || s->out % WEIR_EIGHT != 0 || 4 * s->out % s->in != 0) return false;
    if (copies == 1) {
        pixel_shuffle_8<1><<<blocks, THREADS, 0, stream>>>(*s, count, x, residual, y);
    } else if (copies == 2) {
        pixel_shuffle_8<2><<<blocks, THREADS, 0, stream>>>(*s, count, x, residual, y);
    } else if (copies == 4) {
        pixel_shuffle_8<4><<<blocks, THREADS, 0, stream>>>(*s, count, x, residual, y);
    } else {
        return false;
    }
    return true;
}

enum weir_status weir_cuda_run_pixel_shuffle(const struct weir_cuda_run *run)
{
    const struct weir_pixel_shuffle *s = &run->plan->shape.pixel_shuffle;
    const uint64_t count = (uint64_t)s->rows * s->frames * s->height * s->width * 4 * s->out;
    if (launch_shuffle_8(s, run->stream->stream, (const bf16 *)run->operands[WEIR_PIXEL_SHUFFLE_X],
                         (const bf16 *)run->operands[WEIR_PIXEL_SHUFFLE_RESIDUAL],
                         (bf16 *)run->operands[WEIR_PIXEL_SHUFFLE_Y]))
        return weir_launched();
    WEIR_BY_TYPE(s->dtype, T,
                 (pixel_shuffle<T><<<weir_blocks(count, THREADS), THREADS, 0, run->stream->stream>>>(
                     *s, count, (const T *)run->operands[WEIR_PIXEL_SHUFFLE_X],
                     (const T *)run->operands[WEIR_PIXEL_SHUFFLE_RESIDUAL], (T *)run->operands[WEIR_PIXEL_SHUFFLE_Y])));
    return weir_launched();
}

template <typename T>
__global__ void pixel_unshuffle(struct weir_pixel_unshuffle s, uint64_t count, const T *x, const T *residual, T *y)
{
    const uint32_t together = 4 * s.in / s.out, height = s.height / 2, width = s.width / 2;
    WEIR_EACH(i, count)
    {
        const struct weir_split pixel = weir_split_by(i, s.out), line = weir_split_by(pixel.quotient, width);
        const struct weir_split whole = weir_split_by(line.quotient, height);
        const uint32_t o = pixel.rest, u = line.rest, v = whole.rest;
        const T *image = x + whole.quotient * s.height * s.width * s.in;
        float sum = 0;
        for (uint32_t n = 0; n < together; n++) {
            const uint32_t k = o * together + n;
            const uint64_t row = 2 * v + k % 4 / 2, column = 2 * u + k % 2;
            sum += weir_read(image + (row * s.width + column) * s.in + k / 4);
        }
        sum /= (float)together;
        if (s.residual) sum += weir_read(residual + i);
        weir_write(y + i, sum);
    }
}

enum weir_status weir_cuda_run_pixel_unshuffle(const struct weir_cuda_run *run)
{
    const struct weir_pixel_unshuffle *s = &run->plan->shape.pixel_unshuffle;
    const uint64_t count = (uint64_t)s->rows * s->frames * (s->height / 2) * (s->width / 2) * s->out;
    WEIR_BY_TYPE(
        s->dtype, T,
        (pixel_unshuffle<T><<<weir_blocks(count, THREADS), THREADS, 0, run->stream->stream>>>(
            *s, count, (const T *)run->operands[WEIR_PIXEL_UNSHUFFLE_X],
            (const T *)run->operands[WEIR_PIXEL_UNSHUFFLE_RESIDUAL], (T *)run->operands[WEIR_PIXEL_UNSHUFFLE_Y])));
    return weir_launched();
}
