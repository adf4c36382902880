/* clock: the two clocks of the project.
 *
 * Rules run on weir_clock_now_ms() alone. The wall clock is only ever shown to people.
 * Units    milliseconds; nanoseconds where the name says so
 * Threads  any
 */
#ifndef WEIR_PROTO_BASE_CLOCK_H
#define WEIR_PROTO_BASE_CLOCK_H

#include <stdint.h>

uint64_t weir_clock_now_ms(void);  /* CLOCK_BOOTTIME: never jumps, counts time asleep */
uint64_t weir_clock_now_ns(void);  /* the same clock, for measuring */
uint64_t weir_clock_wall_ms(void); /* since 1970-01-01 UTC */

#endif
