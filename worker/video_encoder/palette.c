// SPDX-License-Identifier: GPL-3.0-or-later
#include "worker/video_encoder/palette.h"

#include <string.h>

struct box {
    size_t first, end; /* in `order` */
    uint64_t count;    /* pixels */
    int axis, extent;  /* its longest side; 0: one cell, not to be cut */
};

static int cell_at(uint16_t cell, int axis)
{
    return cell >> (10 - 5 * axis) & 31;
}

static struct box box_of(const struct weir_palette *palette, size_t first, size_t end)
{
    struct box box = { .first = first, .end = end };
    for (size_t i = first; i < end; i++) box.count += palette->cells[palette->order[i]].count;
    for (int axis = 0; axis < 3; axis++) {
        int low = 31, high = 0;
        for (size_t i = first; i < end; i++) {
            const int at = cell_at(palette->order[i], axis);
            if (at < low) low = at;
            if (at > high) high = at;
        }
        if (high - low > box.extent) {
            box.extent = high - low;
            box.axis = axis;
        }
    }
    return box;
}

/* By place along the box's axis; stable, so that the result is one and the same everywhere. */
static void sort_box(struct weir_palette *palette, const struct box *box)
{
    uint16_t sorted[WEIR_PALETTE_CELLS];
    size_t at = 0;
    for (int value = 0; value < 32; value++) {
        for (size_t i = box->first; i < box->end; i++) {
            if (cell_at(palette->order[i], box->axis) == value) sorted[at++] = palette->order[i];
        }
    }
    memcpy(palette->order + box->first, sorted, at * sizeof *sorted);
}

static size_t median_of(const struct weir_palette *palette, const struct box *box)
{
    uint64_t seen = 0;
    size_t at = box->first;
    while (at < box->end - 1 && seen < box->count / 2) seen += palette->cells[palette->order[at++]].count;
    return at > box->first ? at : box->first + 1;
}

static void fill(struct weir_palette *palette, const struct box *box, uint8_t index)
{
    uint64_t sum[3] = { 0 };
    for (size_t i = box->first; i < box->end; i++) {
        const struct weir_palette_cell *cell = &palette->cells[palette->order[i]];
        for (int c = 0; c < 3; c++) sum[c] += cell->sum[c];
        palette->index_of[palette->order[i]] = index;
    }
    uint32_t argb = 0xff;
    for (int c = 0; c < 3; c++) argb = argb << 8 | (uint32_t)((sum[c] + box->count / 2) / box->count);
    palette->argb[index] = argb;
}

void weir_palette_make(struct weir_palette *palette, const uint8_t *rgb, size_t pixels)
{
    struct box boxes[WEIR_PALETTE_COLOURS];
    size_t box_count = 1, used = 0;
    memset(palette->cells, 0, sizeof palette->cells);
    for (size_t i = 0; i < pixels; i++, rgb += 3) {
        struct weir_palette_cell *cell = &palette->cells[(rgb[0] >> 3) << 10 | (rgb[1] >> 3) << 5 | rgb[2] >> 3];
        cell->count++;
        for (int c = 0; c < 3; c++) cell->sum[c] += rgb[c];
    }
    for (size_t cell = 0; cell < WEIR_PALETTE_CELLS; cell++) {
        if (palette->cells[cell].count) palette->order[used++] = (uint16_t)cell;
    }
    boxes[0] = box_of(palette, 0, used);
    while (box_count < WEIR_PALETTE_COLOURS) {
        struct box *worst = &boxes[0];
        for (size_t i = 1; i < box_count; i++) {
            if (boxes[i].count * (uint64_t)boxes[i].extent > worst->count * (uint64_t)worst->extent) worst = &boxes[i];
        }
        if (worst->extent == 0) break;
        sort_box(palette, worst);
        const size_t cut = median_of(palette, worst);
        boxes[box_count++] = box_of(palette, cut, worst->end);
        *worst = box_of(palette, worst->first, cut);
    }
    for (size_t i = 0; i < WEIR_PALETTE_COLOURS; i++) palette->argb[i] = 0xff000000;
    for (size_t i = 0; i < box_count; i++) fill(palette, &boxes[i], (uint8_t)i);
}
