/* rows: how many items a denoise batch should hold, learned from the steps that were run.
 *
 * For each shape the table keeps the quickest step of 1, 2, 4, 8 and 16 items. Wanted is what doubling leads to: from 1 on,
 * as long as the next number gives at least 3% more items a second, or was not measured yet and is tried; never more
 * than memory has room for. So a shape that nothing is known of has 1, and one number more is tried at a time. What did
 * not pay is tried again after 2,000 steps.
 *
 * Threads  any: the denoise lane teaches, the control thread asks
 */
#ifndef WEIR_WORKER_ROWS_H
#define WEIR_WORKER_ROWS_H

#include "proto/base/log.h"
#include "worker/task.h"

#define WEIR_ROWS_MAX WEIR_DENOISER_SEATS_MAX

struct weir_rows;

/* fixed: so many items for every shape, and nothing is learned; 0: learn. */
enum weir_status weir_rows_create(uint32_t fixed, const struct weir_log *log, struct weir_rows **out,
                                  struct weir_error *error);
void weir_rows_destroy(struct weir_rows **rows_p);

/* The most that is ever wanted. */
uint32_t weir_rows_most(const struct weir_rows *rows);
/* 1..weir_rows_most(). */
uint32_t weir_rows_wanted(struct weir_rows *rows, const struct weir_shape *shape);
/* What would be wanted if memory had room for it. */
uint32_t weir_rows_wished(struct weir_rows *rows, const struct weir_shape *shape);

/* A step of `items` items took so long. The first one of a number is not counted: plans are made in it. */
void weir_rows_measured(struct weir_rows *rows, const struct weir_shape *shape, uint32_t items, uint64_t nanoseconds);
/* Memory has room for so many items of the shape; WEIR_ROWS_MAX: for all that may be wanted. */
void weir_rows_allow(struct weir_rows *rows, const struct weir_shape *shape, uint32_t items);

#endif
