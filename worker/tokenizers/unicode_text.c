#include "worker/tokenizers/unicode_text.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unicode/ucasemap.h>
#include <unicode/uchar.h>
#include <unicode/unorm2.h>
#include <unicode/uset.h>
#include <unicode/ustring.h>
#include <unicode/utf16.h>
#include <unicode/utf8.h>

#define UTF8_PER_UNIT_MAX 3 /* bytes a UTF-16 unit comes to, in lower case too */
#define NFC_GROWTH_MAX 3    /* UTF-16 units that one unit may become */

struct range {
    int32_t first, last;
};

/* Letters and numbers that came with Unicode 15.1 and 16. */
static const struct range letters_new[] = {
    { 0x1c89, 0x1c8a },   { 0xa7cb, 0xa7cd },   { 0xa7da, 0xa7dc },   { 0x105c0, 0x105f3 }, { 0x10d4a, 0x10d65 },
    { 0x10d6f, 0x10d85 }, { 0x10ec2, 0x10ec4 }, { 0x11380, 0x11389 }, { 0x1138b, 0x1138b }, { 0x1138e, 0x1138e },
    { 0x11390, 0x113b5 }, { 0x113b7, 0x113b7 }, { 0x113d1, 0x113d1 }, { 0x113d3, 0x113d3 }, { 0x11bc0, 0x11be0 },
    { 0x13460, 0x143fa }, { 0x16100, 0x1611d }, { 0x16d40, 0x16d6c }, { 0x18cff, 0x18cff }, { 0x1e5d0, 0x1e5ed },
    { 0x1e5f0, 0x1e5f0 }, { 0x2ebf0, 0x2ee5d },
};
static const struct range numbers_new[] = {
    { 0x10d40, 0x10d49 }, { 0x116d0, 0x116e3 }, { 0x11bf0, 0x11bf9 }, { 0x16130, 0x16139 },
    { 0x16d70, 0x16d79 }, { 0x1ccf0, 0x1ccf9 }, { 0x1e5f1, 0x1e5fa },
};

/* Capitals that came with Unicode 16 and 17: each of a range is `step` above its small letter. */
static const struct {
    int32_t first, last, step;
} capitals_new[] = {
    { 0x1c89, 0x1c89, 1 },      { 0xa7cb, 0xa7cb, 0x264 - 0xa7cb },
    { 0xa7cc, 0xa7cc, 1 },      { 0xa7ce, 0xa7ce, 1 },
    { 0xa7d2, 0xa7d2, 1 },      { 0xa7d4, 0xa7d4, 1 },
    { 0xa7da, 0xa7da, 1 },      { 0xa7dc, 0xa7dc, 0x19b - 0xa7dc },
    { 0x10d50, 0x10d65, 0x20 }, { 0x16ea0, 0x16eb8, 0x1b },
};

static bool in_ranges(const struct range *ranges, size_t count, int32_t code_point)
{
    for (size_t i = 0; i < count; i++) {
        if (code_point >= ranges[i].first && code_point <= ranges[i].last) return true;
    }
    return false;
}

enum weir_char_class weir_char_class(int32_t code_point)
{
    if (u_isUWhiteSpace(code_point)) return WEIR_CHAR_SPACE;
    const uint32_t category = U_GET_GC_MASK(code_point);
    if (category & U_GC_L_MASK) return WEIR_CHAR_LETTER;
    if (category & U_GC_N_MASK) return WEIR_CHAR_NUMBER;
    if (category & U_GC_CN_MASK) {
        if (in_ranges(letters_new, WEIR_COUNT(letters_new), code_point)) return WEIR_CHAR_LETTER;
        if (in_ranges(numbers_new, WEIR_COUNT(numbers_new), code_point)) return WEIR_CHAR_NUMBER;
    }
    return WEIR_CHAR_OTHER;
}

bool weir_char_is_word(int32_t code_point)
{
    const uint32_t category = U_GET_GC_MASK(code_point);
    return (category & (U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK)) != 0 ||
           u_hasBinaryProperty(code_point, UCHAR_ALPHABETIC) || u_hasBinaryProperty(code_point, UCHAR_JOIN_CONTROL);
}

static int32_t lower_case(int32_t code_point)
{
    const int32_t lower = u_tolower(code_point);
    if (lower != code_point || code_point < capitals_new[0].first) return lower;
    for (size_t i = 0; i < WEIR_COUNT(capitals_new); i++) {
        if (code_point >= capitals_new[i].first && code_point <= capitals_new[i].last)
            return code_point + capitals_new[i].step;
    }
    return lower;
}

int32_t weir_char_next(const char *bytes, size_t count, size_t *at)
{
    const uint8_t *text = (const uint8_t *)bytes;
    int32_t code_point;
    (void)count;
    assert(*at < count);
    U8_NEXT_UNSAFE(text, *at, code_point);
    return code_point;
}

int32_t weir_char_previous(const char *bytes, size_t *at)
{
    assert(*at > 0);
    do (*at)--;
    while (U8_IS_TRAIL(bytes[*at]));
    size_t start = *at;
    return weir_char_next(bytes, SIZE_MAX, &start);
}

enum weir_status weir_utf8_check(const char *bytes, size_t count, struct weir_error *error)
{
    const uint8_t *text = (const uint8_t *)bytes;
    for (size_t at = 0; at < count;) {
        const size_t start = at;
        int32_t code_point;
        U8_NEXT(text, at, count, code_point);
        if (code_point < 0)
            return weir_fail(error, WEIR_BAD_ARGUMENT, "the text is not UTF-8: byte 0x%02x at offset %zu", text[start],
                             start);
        if (code_point == 0) return weir_fail(error, WEIR_BAD_ARGUMENT, "the text holds a NUL at offset %zu", start);
    }
    return WEIR_OK;
}

struct weir_unicode {
    USet *known;
    UNormalizer2 *nfc;
};

enum weir_status weir_unicode_open(struct weir_unicode **out, struct weir_error *error)
{
    static const UChar unicode_9[] = u"[:age=9.0:]";
    UErrorCode fault = U_ZERO_ERROR;
    struct weir_unicode *unicode = calloc(1, sizeof *unicode);
    if (!unicode) return weir_fail(error, WEIR_NO_MEMORY, "no memory for the tables of a tokenizer");
    unicode->known = uset_openPattern(unicode_9, -1, &fault);
    if (U_SUCCESS(fault)) {
        uset_freeze(unicode->known);
        unicode->nfc = unorm2_openFiltered(unorm2_getNFCInstance(&fault), unicode->known, &fault);
    }
    if (U_FAILURE(fault)) {
        weir_unicode_close(&unicode);
        return weir_fail(error, WEIR_INTERNAL, "ICU could not make its tables: %s", u_errorName(fault));
    }
    *out = unicode;
    return WEIR_OK;
}

void weir_unicode_close(struct weir_unicode **unicode_p)
{
    struct weir_unicode *unicode = *unicode_p;
    if (!unicode) return;
    if (unicode->nfc) unorm2_close(unicode->nfc);
    if (unicode->known) uset_close(unicode->known);
    free(unicode);
    *unicode_p = NULL;
}

/* White space and case, from UTF-16 to UTF-8; returns the bytes written. */
static size_t fold(const UChar *units, int32_t count, uint8_t *out)
{
    size_t written = 0;
    bool after_space = false;
    for (int32_t i = 0; i < count;) {
        uint32_t c = units[i++];
        if (U16_IS_LEAD(c)) c = 0x10000u + ((c - 0xd800u) << 10) + (units[i++] - 0xdc00u); /* never alone here */
        const bool space = u_isUWhiteSpace((UChar32)c);
        if (space && after_space) continue;
        after_space = space;
        const bool dotted_i = c == 0x130; /* the one letter whose small form is two characters */
        c = space ? ' ' : dotted_i ? 'i' : (uint32_t)lower_case((int32_t)c);
        U8_APPEND_UNSAFE(out, written, c);
        if (dotted_i) U8_APPEND_UNSAFE(out, written, 0x307u);
    }
    return written;
}

enum weir_status weir_unicode_normalise(const struct weir_unicode *unicode, const char *bytes, size_t count, char **out,
                                        size_t *out_count, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    UErrorCode fault = U_ZERO_ERROR;
    int32_t units = 0, composed_units = 0;
    assert(count <= (size_t)256 << 20);
    const int32_t units_max = (int32_t)count; /* UTF-8 never has fewer bytes than UTF-16 has units */
    UChar *raw = malloc((count + 1) * sizeof *raw);
    UChar *composed = malloc((count * NFC_GROWTH_MAX + 1) * sizeof *composed);
    char *text = NULL;
    if (raw && composed) {
        u_strFromUTF8(raw, units_max, &units, bytes, (int32_t)count, &fault);
        if (fault == U_STRING_NOT_TERMINATED_WARNING) fault = U_ZERO_ERROR;
        composed_units = unorm2_normalize(unicode->nfc, raw, units, composed, units_max * NFC_GROWTH_MAX, &fault);
        if (fault == U_STRING_NOT_TERMINATED_WARNING) fault = U_ZERO_ERROR;
        assert(U_SUCCESS(fault)); /* checked UTF-8, into enough room */
        text = malloc((size_t)composed_units * UTF8_PER_UNIT_MAX + 1);
    }
    if (!text) {
        WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "no memory for a text of %zu bytes", count));
    }
    *out_count = fold(composed, composed_units, (uint8_t *)text);
    text[*out_count] = 0;
    *out = text;
cleanup:
    free(raw);
    free(composed);
    return status;
}

static bool python_strips(int32_t code_point)
{
    return u_isUWhiteSpace(code_point) || (code_point >= 0x1c && code_point <= 0x1f);
}

enum weir_status weir_unicode_lower_strip(const char *bytes, size_t count, char **out, size_t *out_count,
                                          struct weir_error *error)
{
    UErrorCode fault = U_ZERO_ERROR;
    assert(count <= (size_t)256 << 20);
    const int32_t room = (int32_t)(count + count / 2 + 1); /* two bytes become three at most */
    UCaseMap *map = ucasemap_open("", 0, &fault);
    char *text = malloc((size_t)room + 1);
    if (!map || !text) {
        ucasemap_close(map);
        free(text);
        return weir_fail(error, WEIR_NO_MEMORY, "no memory for a text of %zu bytes", count);
    }
    const int32_t written = ucasemap_utf8ToLower(map, text, room, bytes, (int32_t)count, &fault);
    ucasemap_close(map);
    assert(U_SUCCESS(fault) && written < room); /* checked UTF-8, into enough room */

    size_t start = 0, end = (size_t)written;
    for (size_t next = 0; start < end; start = next) {
        if (!python_strips(weir_char_next(text, end, &next))) break;
    }
    for (size_t before = end; end > start; end = before) {
        if (!python_strips(weir_char_previous(text, &before))) break;
    }
    memmove(text, text + start, end - start);
    text[end - start] = 0;
    *out = text;
    *out_count = end - start;
    return WEIR_OK;
}
