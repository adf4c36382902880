#include "worker/lanes.h"

uint32_t weir_lanes_rests(const struct weir_device *device)
{
    return device->table->overlaps ? WEIR_RESTS_MAX : 2;
}

struct weir_lanes weir_lanes_choose(uint32_t wish, const struct weir_device *device)
{
    struct weir_lanes lanes = { .count = wish ? wish : device->table->overlaps ? WEIR_LANES_MAX : 1 };
    lanes.rests = weir_lanes_rests(device);
    if (lanes.count >= 2) lanes.of[WEIR_STAGE_DENOISE] = 1;
    if (lanes.count >= 3) lanes.of[WEIR_STAGE_TEXT] = 2;
    return lanes;
}
