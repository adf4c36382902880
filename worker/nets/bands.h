/* bands: how the part of a network that looks at near rows alone runs over a picture in bands of rows.
 *
 * A band's window is its own rows and `halo` more on either side, so that what its own rows become is what the undivided
 * picture would have given. All windows have the same height, one program for all: at the picture's two ends a window
 * is moved inside instead of being cut short, and the picture's true edge is the window's edge there.
 *
 * Units    rows of what that part is given; each becomes `scale` rows of the picture
 * Threads  all functions are pure
 */
#ifndef WEIR_WORKER_NETS_BANDS_H
#define WEIR_WORKER_NETS_BANDS_H

#include <stdint.h>

struct weir_bands {
    uint32_t height; /* of the whole */
    uint32_t scale, halo;
    uint32_t window; /* rows that a run is given */
    uint32_t own;    /* rows of a band; the last may have fewer */
    uint32_t count;  /* 1: undivided */
    uint32_t groups; /* of neighbouring bands: the tasks that may share the picture; 1 to count */
};

struct weir_band {
    uint32_t from;         /* where its window begins */
    uint32_t first, count; /* its own rows */
};

/* Bands of one group. */
struct weir_band_group {
    uint32_t begin, bands; /* the first of them, and how many */
    uint32_t first, count; /* their own rows */
};

/* As few bands as windows of at most `window_max` rows allow, and then as many more as give each of `groups` (at least
 * 1) as many; but none of fewer own rows than the halo: then more is done twice than once. Where that leaves nothing to
 * save, one. */
struct weir_bands weir_bands_cut(uint32_t height, uint32_t scale, uint32_t halo, uint64_t window_max, uint32_t groups);
struct weir_band weir_bands_at(const struct weir_bands *bands, uint32_t index);
/* The bands of group `index` of `groups`, at most bands->count; the groups differ by a band at most. */
struct weir_band_group weir_bands_group(const struct weir_bands *bands, uint32_t groups, uint32_t index);

#endif
