#include "proto/base/log.h"

#include "proto/base/clock.h"
#include "proto/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const level_names[] = { "error", "warn", "info", "debug" };

void weir_log(const struct weir_log *log, enum weir_log_level level, const char *format, ...)
{
    if (!log || level > log->level) return;

    char line[1024];
    const uint64_t wall_ms = weir_clock_wall_ms();
    const time_t seconds = (time_t)(wall_ms / 1000);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    size_t used = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &utc);
    used += (size_t)snprintf(line + used, sizeof line - used, ".%03uZ %s %s[%d] ", (unsigned)(wall_ms % 1000),
                             level_names[level], log->program, (int)getpid());
    const size_t room = sizeof line - used - 1;
    va_list arguments;
    va_start(arguments, format);
    const int wanted = vsnprintf(line + used, room, format, arguments);
    va_end(arguments);
    if (wanted > 0) used += (size_t)wanted < room ? (size_t)wanted : room - 1;
    for (char *c = line; c < line + used; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    }
    line[used++] = '\n';
    const ssize_t ignored = write(log->fd, line, used); /* nobody is left to tell when the log itself fails */
    (void)ignored;
}

_Bool weir_log_level_parse(const char *text, enum weir_log_level *out)
{
    for (size_t i = 0; i < WEIR_COUNT(level_names); i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *out = (enum weir_log_level)i;
            return 1;
        }
    }
    return 0;
}
