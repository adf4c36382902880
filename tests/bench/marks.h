/* marks: moments in a stream, and the time between them. On cuda events that lie in the stream; on a device that does its
 * work in the call, the clock of the wall. Faults of the driver end the program. */
#ifndef WEIR_TESTS_BENCH_MARKS_H
#define WEIR_TESTS_BENCH_MARKS_H

#include "kernels/device.h"

struct weir_marks;
struct weir_marks *weir_marks_create(size_t count);
void weir_marks_destroy(struct weir_marks *marks);
void weir_marks_set(struct weir_marks *marks, size_t index, struct weir_stream *stream);
/* From one to a later one, both passed: the stream was waited for. */
double weir_marks_ms(const struct weir_marks *marks, size_t from, size_t to);

/* Queues a copy of `bytes` within the device. */
void weir_marks_copy(struct weir_stream *stream, void *to, const void *from, size_t bytes);

#endif
