/* json_scan: a cursor over JSON text, for tables too long to become a tree: a tokenizer's half a million merges are
 * forty megabytes of text, which one pass reads in a tenth of a second and a tree turns into a quarter of a gigabyte.
 *
 * Every function skips white space first. A false answer leaves `at` where the fault is; `fault` says what it is,
 * unless the function says otherwise.
 *
 * Memory   the text is borrowed
 * Threads  a scan belongs to one thread
 */
#ifndef WEIR_WORKER_TOKENIZERS_JSON_SCAN_H
#define WEIR_WORKER_TOKENIZERS_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct weir_json_scan {
    const char *text;
    size_t count, at;
    const char *fault; /* "a quote is missing" */
};

/* The next character, not taken; NUL at the end. */
char weir_json_scan_peek(struct weir_json_scan *scan);
/* Takes `c` if it comes next; false, without a fault, when not. */
bool weir_json_scan_take(struct weir_json_scan *scan, char c);
/* As take, but another character is a fault. */
bool weir_json_scan_expect(struct weir_json_scan *scan, char c);
/* A text, its escapes undone, into out[0..room): *bytes of UTF-8, without a NUL at the end. One that is longer or is no
 * UTF-8 is a fault. */
bool weir_json_scan_text(struct weir_json_scan *scan, char *out, size_t room, size_t *bytes);
/* A whole number of 0 to `max`, plainly written. */
bool weir_json_scan_number(struct weir_json_scan *scan, int32_t max, int32_t *out);
/* Any value, looked at no closer than to find its end. */
bool weir_json_scan_skip(struct weir_json_scan *scan);

#endif
