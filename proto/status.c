#include "proto/status.h"

#include <stdarg.h>
#include <stdio.h>

struct row {
    const char *name, *words;
    enum weir_retry retry;
    int exit_code;
};

static const struct row rows[] = {
#define X(name, number, words, retry, exit_code) [number] = { #name, words, WEIR_RETRY_##retry, exit_code },
    WEIR_STATUS_TABLE(X)
#undef X
};

static const struct row *row_of(enum weir_status status)
{
    const size_t index = (size_t)status;
    return &rows[index < WEIR_COUNT(rows) ? index : (size_t)WEIR_INTERNAL];
}

const char *weir_status_name(enum weir_status status)
{
    return row_of(status)->name;
}

const char *weir_status_words(enum weir_status status)
{
    return row_of(status)->words;
}

enum weir_retry weir_status_retry(enum weir_status status)
{
    return row_of(status)->retry;
}

int weir_status_exit_code(enum weir_status status)
{
    return row_of(status)->exit_code;
}

enum weir_status weir_fail(struct weir_error *error, enum weir_status status, const char *format, ...)
{
    if (!error) return status;
    error->code = status;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->words, sizeof error->words, format, arguments);
    va_end(arguments);
    for (char *c = error->words; *c; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    }
    return status;
}
