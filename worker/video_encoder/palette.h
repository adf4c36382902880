// SPDX-License-Identifier: GPL-3.0-or-later
/* palette: at most 256 colours for one picture, by median cut, without dither.
 *
 * A cell is a cube of 8 x 8 x 8 colours. Boxes of cells are cut in two, the one with the largest count x extent
 * first, at the median of its longest side. A flat area that is alone in its cell keeps its colour exactly, which is
 * what drawn scenes consist of; a dither would make them crawl from frame to frame.
 *
 * Threads  one a struct; equal pictures give equal results
 */
#ifndef WEIR_VIDEO_ENCODER_PALETTE_H
#define WEIR_VIDEO_ENCODER_PALETTE_H

#include <stddef.h>
#include <stdint.h>

#define WEIR_PALETTE_COLOURS 256
#define WEIR_PALETTE_CELLS (32 * 32 * 32)

struct weir_palette {
    uint32_t argb[WEIR_PALETTE_COLOURS]; /* opaque; what is not used is black */
    struct weir_palette_cell {
        uint64_t count, sum[3];
    } cells[WEIR_PALETTE_CELLS];
    uint16_t order[WEIR_PALETTE_CELLS]; /* the cells in use, box after box */
    uint8_t index_of[WEIR_PALETTE_CELLS];
};

/* rgb [pixels, 3] */
void weir_palette_make(struct weir_palette *palette, const uint8_t *rgb, size_t pixels);
/* The colour's place in `argb`; of a picture the palette was made for. */
static inline uint8_t weir_palette_index(const struct weir_palette *palette, const uint8_t *rgb)
{
    return palette->index_of[(rgb[0] >> 3) << 10 | (rgb[1] >> 3) << 5 | rgb[2] >> 3];
}

#endif
