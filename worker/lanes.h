/* lanes: which stages of a worker take turns, and which run beside each other.
 *
 * A lane is a thread that runs one task, or one batch, at a time; every stage belongs to one lane. On a device that
 * runs programs of several streams at once (weir_device_table.overlaps) text, denoise and decode have a lane each, so
 * that what one leaves idle the others take; where all share the same cores there is one lane, since two would only
 * slow each other. Assembling computes nothing: it goes with decode, and hands over what it does as files' work
 * (stage.h: rest).
 *
 * Bytes never depend on the number of lanes.
 */
#ifndef WEIR_WORKER_LANES_H
#define WEIR_WORKER_LANES_H

#include "kernels/device.h"
#include "proto/job.h"

#define WEIR_LANES_MAX 3
#define WEIR_RESTS_MAX 8

struct weir_lanes {
    uint32_t count;               /* 1..WEIR_LANES_MAX */
    uint32_t rests;               /* that are under way at once, 1..WEIR_RESTS_MAX */
    uint8_t of[WEIR_STAGE_COUNT]; /* a stage's lane, 0..count-1 */
};

/* As many as keep up with a GPU (a large PNG takes six times as long as its decode there); where the encoders share the
 * cores with the networks, one that works and one that ends. */
uint32_t weir_lanes_rests(const struct weir_device *device);

/* wish 1: one for all; 2: denoise has its own; 3: text has, too; 0: as the device gains by. */
struct weir_lanes weir_lanes_choose(uint32_t wish, const struct weir_device *device);

#endif
