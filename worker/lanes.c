#include "worker/lanes.h"

struct weir_lanes weir_lanes_choose(uint32_t wish, const struct weir_device *device)
{
    struct weir_lanes lanes = { .count = wish ? wish : device->table->overlaps ? WEIR_LANES_MAX : 1 };
    if (lanes.count >= 2) lanes.of[WEIR_STAGE_DENOISE] = 1;
    if (lanes.count >= 3) lanes.of[WEIR_STAGE_TEXT] = 2;
    return lanes;
}
