/* watch: how the device is, asked every few seconds by a thread of its own, since a driver in trouble may take long to
 * answer.
 *
 * What people should know is one line at warn when it begins and one when it has been away for a while, whatever numbers
 * change between. A device that will not be right again is told to the control thread, through `fd`. Devices that
 * nobody can be asked about have a watch that stays silent.
 *
 * Threads  start, failed and stop from one; step is pure but for the log
 */
#ifndef WEIR_WORKER_WATCH_H
#define WEIR_WORKER_WATCH_H

#include "kernels/device.h"
#include "proto/base/log.h"

#define WEIR_WATCH_MS 5000
#define WEIR_WATCH_QUIET_LOOKS 3 /* without a thing until it is said to have ended */

struct weir_watch;

/* Device and log are borrowed; the device must stay open until stop. */
enum weir_status weir_watch_start(struct weir_device *device, const struct weir_log *log, struct weir_watch **out,
                                  struct weir_error *error);
/* Waits for a look that is under way. NULL is fine. */
void weir_watch_stop(struct weir_watch **watch);
int weir_watch_fd(const struct weir_watch *watch); /* readable once the device has failed */
/* True once, with the words. */
bool weir_watch_failed(struct weir_watch *watch, struct weir_error *why);

/* What was said and not taken back; zeroed before the first step. */
struct weir_watch_notes {
    unsigned quiet_looks[WEIR_HEALTH_NOTICES];
    bool is_on[WEIR_HEALTH_NOTICES];
    bool is_told;
};
/* What one look adds to the log. */
void weir_watch_step(struct weir_watch_notes *notes, const char *device, const struct weir_health *health,
                     const struct weir_log *log);

#endif
