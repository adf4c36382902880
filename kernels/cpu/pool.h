/* pool: the threads of a cpu device. A job is a number of items; threads take items until none is left.
 *
 * Which thread takes which item is chance, so an item's result may depend on its number alone. The thread that asks
 * takes part as slot 0 and returns when all items are done. Slots name who works at the same time: an item may use what
 * belongs to its slot without locks.
 *
 * Waiting threads look for work for at most WEIR_POOL_SPINS turns (some ten microseconds) and sleep then.
 *
 * Threads  any thread may call run; calls from several are done one after the other
 */
#ifndef WEIR_KERNELS_CPU_POOL_H
#define WEIR_KERNELS_CPU_POOL_H

#include "proto/status.h"

#define WEIR_POOL_SPINS 1000

struct weir_pool;

/* `threads` in all, the caller of run among them: threads - 1 are started.
 * start    called once by each started thread before its first item; or NULL
 * Errors   NO_MEMORY; nothing is left running */
enum weir_status weir_pool_create(int threads, void (*start)(void), struct weir_pool **out, struct weir_error *error);
/* Nobody may be inside run. */
void weir_pool_destroy(struct weir_pool **pool);
uint32_t weir_pool_slots(const struct weir_pool *pool);

void weir_pool_run(struct weir_pool *pool, uint32_t items, void (*work)(void *context, uint32_t item, uint32_t slot),
                   void *context);

#endif
