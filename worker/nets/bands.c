#include "worker/nets/bands.h"

#include <assert.h>

static uint32_t pieces(uint32_t total, uint32_t each)
{
    return (total + each - 1) / each;
}

struct weir_bands weir_bands_cut(uint32_t height, uint32_t scale, uint32_t halo, uint64_t window_max, uint32_t groups)
{
    const uint32_t own_min = halo ? halo : 1;
    uint64_t own = window_max > 2 * (uint64_t)halo ? window_max - 2 * (uint64_t)halo : 0;
    if (own < own_min) own = own_min;
    if (window_max < height && own + 2 * (uint64_t)halo < height) {
        /* As equal as whole rows can be: no narrow last band. */
        const uint32_t least = pieces(height, (uint32_t)own), shared = pieces(least, groups) * groups;
        const uint32_t even = pieces(height, shared) > own_min ? pieces(height, shared) : own_min;
        const uint32_t count = pieces(height, even);
        return (
            struct weir_bands){ height, scale, halo, even + 2 * halo, even, count, groups < count ? groups : count };
    }
    return (struct weir_bands){ height, scale, halo, height, height, 1, 1 };
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

struct weir_band_group weir_bands_group(const struct weir_bands *bands, uint32_t groups, uint32_t index)
{
    assert(index < groups && groups <= bands->count);
    const uint32_t end = (uint32_t)((uint64_t)(index + 1) * bands->count / groups);
    struct weir_band_group group = { .begin = (uint32_t)((uint64_t)index * bands->count / groups) };
    const struct weir_band last = weir_bands_at(bands, end - 1);
    group.bands = end - group.begin;
    group.first = weir_bands_at(bands, group.begin).first;
    group.count = last.first + last.count - group.first;
    return group;
}
