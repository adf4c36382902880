#include "proto/base/clock.h"

#include <time.h>

static uint64_t read_ms(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now); /* cannot fail for these two clocks */
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

uint64_t weir_clock_now_ms(void)
{
    return read_ms(CLOCK_BOOTTIME);
}

uint64_t weir_clock_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t weir_clock_wall_ms(void)
{
    return read_ms(CLOCK_REALTIME);
}
