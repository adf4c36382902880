/* unicode_text: what the tokenizers do with text before they cut it, with the Unicode tables that the pinned tokenizers
 * library has.
 *
 * ICU does the work; three tables of the library are of other years than Debian's ICU (Unicode 15), and where they
 * differ the library's answer is given: its NFC is of Unicode 9 (later characters are neither composed nor put in
 * order), its classes are of Unicode 16, its lower case of Unicode 17. All 1,112,063 code points were compared.
 *
 * Memory   results are malloc'ed; the caller frees them
 * Threads  weir_unicode is read-only after open: any number of threads
 * Source   judged by the Python package tokenizers 0.23.3: tests/golden/live_tokenizer.py --unicode
 */
#ifndef WEIR_WORKER_TOKENIZERS_UNICODE_TEXT_H
#define WEIR_WORKER_TOKENIZERS_UNICODE_TEXT_H

#include "proto/status.h"

#include <stdbool.h>

enum weir_char_class { WEIR_CHAR_SPACE, WEIR_CHAR_LETTER, WEIR_CHAR_NUMBER, WEIR_CHAR_OTHER };

/* \s, \p{L}, \p{N} and the rest. */
enum weir_char_class weir_char_class(int32_t code_point);
/* \w: what may be part of a word beside a special token. */
bool weir_char_is_word(int32_t code_point);

/* The code point at bytes[*at], which is moved past it. The text must be checked UTF-8 and *at < count. */
int32_t weir_char_next(const char *bytes, size_t count, size_t *at);
/* The code point before bytes[*at], which is moved to it; *at > 0. */
int32_t weir_char_previous(const char *bytes, size_t *at);

/* BAD_ARGUMENT where the bytes are no UTF-8 or hold a NUL; the words name the offset of the first such byte. */
enum weir_status weir_utf8_check(const char *bytes, size_t count, struct weir_error *error);

struct weir_unicode;
enum weir_status weir_unicode_open(struct weir_unicode **out, struct weir_error *error);
void weir_unicode_close(struct weir_unicode **unicode_p);

/* The text as Python's str.lower() and then str.strip() leave it: lower case by the rules of Unicode for whole texts
 * (U+0130 becomes two characters, a capital sigma at the end of a word a final one), without the white space at both
 * ends, which for Python includes U+001C to U+001F. `out` has a NUL after its *out_count bytes. The text must be
 * checked UTF-8 of at most 256 MiB. Judged by Python 3.11, whose characters (Unicode 14) all agree. */
enum weir_status weir_unicode_lower_strip(const char *bytes, size_t count, char **out, size_t *out_count,
                                          struct weir_error *error);

/* NFC, then each run of white space to one space, then lower case by character (U+0130 becomes two). `out` has a NUL
 * after its *out_count bytes. The text must be checked UTF-8 of at most 256 MiB. */
enum weir_status weir_unicode_normalise(const struct weir_unicode *unicode, const char *bytes, size_t count, char **out,
                                        size_t *out_count, struct weir_error *error);

#endif
