/* What both ledgers do alike. */
#include "broker/ledger.h"

#include <stdio.h>
#include <string.h>

void weir_ledger_words(const char *lead, const char *words, char out[WEIR_LEDGER_WORDS_BYTES])
{
    const int wanted = snprintf(out, WEIR_LEDGER_WORDS_BYTES, "%s%s", lead, words);
    if (wanted < WEIR_LEDGER_WORDS_BYTES) return;
    /* Back to where the last character begins; it may be whole, but then it is one of many. */
    size_t end = WEIR_LEDGER_WORDS_BYTES - 1;
    while (end > 0 && ((unsigned char)out[end - 1] & 0xc0) == 0x80) end--;
    if (end > 0 && ((unsigned char)out[end - 1] & 0x80) != 0) end--;
    out[end] = 0;
}
