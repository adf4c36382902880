/* sine_positions: tables of two-dimensional sine positions, one for each size of latents that is asked for.
 *
 * Coordinates run over the range that the model was trained on, whatever the size: a token at (y, x) of a grid of
 * height H and width W has  gx = x / (W / base) / scale,  gy = y / (H / base) / scale  (f32), and the table's row
 *   [ sin(gx w_k), cos(gx w_k), sin(gy w_k), cos(gy w_k) ],  w_k = 10000^(-k / (channels / 4)),  k < channels / 4
 * computed in f64 and kept in f32. A table is a layer for weir_program_table_add.
 *
 * Memory   tables stay until destroy(), for programs borrow them: height * width * channels floats a size
 * Threads  any number
 * Source   diffusers models/embeddings.py, get_2d_sincos_pos_embed
 */
#ifndef WEIR_WORKER_NETS_SINE_POSITIONS_H
#define WEIR_WORKER_NETS_SINE_POSITIONS_H

#include "kernels/program.h"

struct weir_sine_positions;

struct weir_sine_positions_config {
    uint32_t channels; /* a multiple of 4 */
    uint32_t base;     /* side of the grid that the model was trained on */
    float scale;
    enum weir_dtype dtype;
    bool shape_only; /* tables without values, for planning */
};

enum weir_status weir_sine_positions_create(struct weir_device *device, const struct weir_sine_positions_config *config,
                                            struct weir_sine_positions **out, struct weir_error *error);
void weir_sine_positions_destroy(struct weir_sine_positions **positions_p);

/* The table of a size, made the first time; NULL when there is no memory for it. */
const struct weir_packed *weir_sine_positions_table(struct weir_sine_positions *positions, uint32_t height,
                                                    uint32_t width);
uint64_t weir_sine_positions_bytes(struct weir_sine_positions *positions); /* of all tables so far */

#endif
