/* scratch: a temporary folder for one test, and files in it. Everything asserts; nothing is returned to check. */
#ifndef WEIR_TESTS_UNIT_SCRATCH_H
#define WEIR_TESTS_UNIT_SCRATCH_H

#include <stddef.h>
#include <stdint.h>

#define SCRATCH_PATHS 8

struct scratch {
    char path[64];
    char paths[SCRATCH_PATHS][1024]; /* what scratch_path gave last, in turn */
    size_t turn;
};

struct scratch scratch_begin(void);
void scratch_end(struct scratch *scratch); /* removes the folder with all in it */

/* Makes the folders that are missing, too. `path` is within the scratch folder. */
void scratch_write(struct scratch *scratch, const char *path, const void *bytes, size_t count);
void scratch_text(struct scratch *scratch, const char *path, const char *text);
void scratch_link(struct scratch *scratch, const char *path, const char *target);
void scratch_folder(struct scratch *scratch, const char *path);
/* The whole path; good until it was asked for eight others. */
const char *scratch_path(struct scratch *scratch, const char *path);

/* A safetensors file: the header as JSON, then `data_bytes` bytes of data that count up from 0. Freed with free(). */
uint8_t *safetensors_make(const char *header, size_t data_bytes, size_t *count);
void scratch_safetensors(struct scratch *scratch, const char *path, const char *header, size_t data_bytes);

#endif
