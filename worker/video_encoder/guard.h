// SPDX-License-Identifier: GPL-3.0-or-later
/* guard: what keeps weir-encode from outliving, outgrowing or littering: limits, the parent's death, signals.
 *
 * SIGINT, SIGTERM, SIGHUP and SIGXCPU stay blocked: nothing is cut in the middle, and weir_guard_check(), called
 * between frames and writes, says when one of them waits. Only weir_guard_read() sleeps, and there the first three
 * wake it. So there is no handler with work to do and no variable shared with one.
 *
 * Threads  the calls act on the process; before any thread is made
 */
#ifndef WEIR_VIDEO_ENCODER_GUARD_H
#define WEIR_VIDEO_ENCODER_GUARD_H

#include "proto/status.h"

#include <stdbool.h>

struct weir_guard_limits { /* 0: as the parent has it */
    int64_t cpu_seconds, memory_mib, file_mib;
};

/* `leaves_files`: signals are held back as said above; else they end the process at once, which then leaves nothing.
 * Errors   BAD_ARGUMENT: a limit over what the parent allows, in words */
enum weir_status weir_guard_start(const struct weir_guard_limits *limits, bool leaves_files, struct weir_error *error);

/* To be called when nothing of ours lies about any more: from here a signal ends the process, so that a library which
 * hangs while it is closed can be stopped. */
void weir_guard_release(void);

/* INTERRUPTED or EXPIRED (--cpu-seconds) when such a signal waits. */
enum weir_status weir_guard_check(struct weir_error *error);

/* Fills `bytes` up to `count`; `*got` is less at the end of the input only.
 * Errors   IO, INTERRUPTED, EXPIRED */
enum weir_status weir_guard_read(int fd, void *bytes, size_t count, size_t *got, struct weir_error *error);

#endif
