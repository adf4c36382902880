#include "worker/tokenizers/json_scan.h"

#include <string.h>
#include <unicode/utf16.h>
#include <unicode/utf8.h>

static bool fault(struct weir_json_scan *scan, const char *words)
{
    scan->fault = words;
    return false;
}

char weir_json_scan_peek(struct weir_json_scan *scan)
{
    while (scan->at < scan->count && memchr(" \t\r\n", scan->text[scan->at], 4)) scan->at++;
    return scan->at < scan->count ? scan->text[scan->at] : '\0';
}

bool weir_json_scan_take(struct weir_json_scan *scan, char c)
{
    if (weir_json_scan_peek(scan) != c || scan->at == scan->count) return false;
    scan->at++;
    return true;
}

bool weir_json_scan_expect(struct weir_json_scan *scan, char c)
{
    if (weir_json_scan_take(scan, c)) return true;
    switch (c) {
    case '{':
        return fault(scan, "wanted is {");
    case '}':
        return fault(scan, "wanted is , or }");
    case '[':
        return fault(scan, "wanted is [");
    case ']':
        return fault(scan, "wanted is , or ]");
    case ':':
        return fault(scan, "wanted is :");
    default:
        return fault(scan, "wanted is a text in quotes");
    }
}

/* Four hex digits after \u. */
static bool read_unit(struct weir_json_scan *scan, uint32_t *unit)
{
    *unit = 0;
    for (int i = 0; i < 4; i++, scan->at++) {
        const char c = scan->at < scan->count ? scan->text[scan->at] : '\0';
        const uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                               : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                               : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                                      : 16;
        if (digit == 16) return fault(scan, "\\u without four hex digits");
        *unit = *unit * 16 + digit;
    }
    return true;
}

/* What stands after a backslash. */
static bool read_escape(struct weir_json_scan *scan, uint32_t *code_point)
{
    static const char letters[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    const char c = scan->at < scan->count ? scan->text[scan->at] : '\0';
    const char *letter = c ? strchr(letters, c) : NULL;
    uint32_t low;
    if (c == 'u') {
        scan->at++;
        if (!read_unit(scan, code_point)) return false;
        if (!U16_IS_SURROGATE(*code_point)) return true;
        const bool pair = U16_IS_LEAD(*code_point) && scan->count - scan->at >= 2 && scan->text[scan->at] == '\\' &&
                          scan->text[scan->at + 1] == 'u';
        if (!pair) return fault(scan, "half of a surrogate pair");
        scan->at += 2;
        if (!read_unit(scan, &low)) return false;
        if (!U16_IS_TRAIL(low)) return fault(scan, "half of a surrogate pair");
        *code_point = (uint32_t)U16_GET_SUPPLEMENTARY(*code_point, low);
        return true;
    }
    if (!letter) return fault(scan, "an unknown escape");
    *code_point = (uint8_t)meant[letter - letters];
    scan->at++;
    return true;
}

bool weir_json_scan_text(struct weir_json_scan *scan, char *out, size_t room, size_t *bytes)
{
    const uint8_t *text = (const uint8_t *)scan->text;
    uint8_t *to = (uint8_t *)out;
    size_t written = 0;
    if (!weir_json_scan_expect(scan, '"')) return false;
    while (scan->at < scan->count && text[scan->at] != '"') {
        const size_t start = scan->at;
        uint32_t code_point = text[start];
        if (code_point < 0x20) return fault(scan, "a control character in a text");
        if (code_point == '\\') {
            scan->at++;
            if (!read_escape(scan, &code_point)) return false;
        } else if (code_point < 0x80) {
            scan->at++;
        } else {
            int32_t read;
            size_t at = start;
            U8_NEXT(text, at, scan->count, read);
            if (read < 0) return fault(scan, "bytes that are no UTF-8");
            scan->at = at;
            code_point = (uint32_t)read;
        }
        if (room - written < (size_t)U8_LENGTH(code_point)) {
            scan->at = start;
            return fault(scan, "a text longer than is read");
        }
        U8_APPEND_UNSAFE(to, written, code_point);
    }
    if (scan->at == scan->count) return fault(scan, "a text without an end");
    scan->at++;
    *bytes = written;
    return true;
}

bool weir_json_scan_number(struct weir_json_scan *scan, int32_t max, int32_t *out)
{
    int64_t value = 0;
    weir_json_scan_peek(scan);
    const size_t start = scan->at;
    while (scan->at < scan->count && scan->text[scan->at] >= '0' && scan->text[scan->at] <= '9' && value <= max)
        value = value * 10 + (scan->text[scan->at++] - '0');
    const size_t digits = scan->at - start;
    const char after = weir_json_scan_peek(scan);
    const bool plain = digits > 0 && (digits == 1 || scan->text[start] != '0') &&
                       (after == ',' || after == '}' || after == ']' || after == '\0');
    if (!plain || value > max) {
        scan->at = start;
        return fault(scan, "no whole number in the range that is read");
    }
    *out = (int32_t)value;
    return true;
}

static bool skip_text(struct weir_json_scan *scan)
{
    for (scan->at++; scan->at < scan->count; scan->at++) {
        if (scan->text[scan->at] == '"') {
            scan->at++;
            return true;
        }
        if (scan->text[scan->at] == '\\' && scan->at + 1 < scan->count) scan->at++;
    }
    return fault(scan, "a text without an end");
}

bool weir_json_scan_skip(struct weir_json_scan *scan)
{
    size_t depth = 0;
    for (char c = weir_json_scan_peek(scan); c != '\0'; c = weir_json_scan_peek(scan)) {
        const bool separates = c == ',' || c == ':' || c == '}' || c == ']';
        if (depth == 0 && separates) return fault(scan, "wanted is a value");
        if (c == '"') {
            if (!skip_text(scan)) return false;
        } else if (separates || c == '{' || c == '[') {
            depth += c == '{' || c == '[';
            depth -= c == '}' || c == ']';
            scan->at++;
        } else { /* a number or a word */
            while (scan->at < scan->count && !memchr(" \t\r\n,:{}[]\"", scan->text[scan->at], 11)) scan->at++;
        }
        if (depth == 0) return true;
    }
    return fault(scan, "a value without an end");
}
