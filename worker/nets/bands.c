#include "worker/nets/bands.h"

#include <assert.h>

static uint32_t pieces(uint32_t total, uint32_t each)
{
    return (total + each - 1) / each;
}

struct weir_bands weir_bands_cut(uint32_t height, uint32_t scale, uint32_t halo, uint64_t window_max)
{
    const uint32_t own_min = halo ? halo : 1;
    uint64_t own = window_max > 2 * (uint64_t)halo ? window_max - 2 * (uint64_t)halo : 0;
    if (own < own_min) own = own_min;
    if (window_max < height && own + 2 * (uint64_t)halo < height) {
        /* As equal as whole rows can be: no narrow last band. */
        const uint32_t even = pieces(height, pieces(height, (uint32_t)own));
        return (struct weir_bands){ height, scale, halo, even + 2 * halo, even, pieces(height, even) };
    }
    return (struct weir_bands){ height, scale, halo, height, height, 1 };
}

struct weir_band weir_bands_at(const struct weir_bands *bands, uint32_t index)
{
    assert(index < bands->count);
    struct weir_band band = { .first = index * bands->own };
    const uint32_t left = bands->height - band.first, last = bands->height - bands->window;
    band.count = left < bands->own ? left : bands->own;
    band.from = band.first > bands->halo ? band.first - bands->halo : 0;
    if (band.from > last) band.from = last;
    return band;
}
