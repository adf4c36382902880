// SPDX-License-Identifier: GPL-3.0-or-later
/* output: a file or a folder that appears under its name whole, or not at all.
 *
 * A file begins without any name (O_TMPFILE; where the file system has none, as `.weir-encode-<16 hex>` beside PATH),
 * so that even SIGKILL leaves nothing. A folder begins as `.weir-encode-<16 hex>`; SIGKILL leaves it behind.
 *
 * Memory   `path` is the caller's and must outlive the output
 * Threads  one
 */
#ifndef WEIR_VIDEO_ENCODER_OUTPUT_H
#define WEIR_VIDEO_ENCODER_OUTPUT_H

#include "proto/status.h"

#include <stdbool.h>

#define WEIR_OUTPUT_FRAMES_MAX 100000 /* what one film may have; a folder's file names have five digits */

struct weir_output {
    const char *path; /* as asked for */
    const char *base; /* its last part */
    int folder_fd;    /* of the folder that holds it */
    int fd;           /* open for reading and writing; a folder: for openat() */
    bool is_folder;
    bool is_named;    /* `temporary` exists */
    char temporary[40];
};

/* PATH may be an existing file (replaced at commit) or, for a folder, an empty folder.
 * Errors   BAD_ARGUMENT (it ends in a slash, is of the other kind, or is a folder that holds something), IO */
enum weir_status weir_output_open(struct weir_output *output, const char *path, bool is_folder,
                                  struct weir_error *error);
/* fsync, rename, fsync of the folder that holds it; of a scratch file only the renaming. On error nothing is left; except
 * that IO which says "may not outlive a power cut" leaves the whole result. */
enum weir_status weir_output_commit(struct weir_output *output, bool is_scratch, struct weir_error *error);
/* Closes; without a commit removes everything. May be called twice and on a zeroed output. */
void weir_output_close(struct weir_output *output);

#endif
