/* log: one event a line, with fields: `lease expired job=... stage=denoise worker=3 held_ms=1000`.
 *
 * Levels   error: someone must act; warn: we coped; info: a job's life; debug. Never per step at info.
 * Memory   the log is the caller's; `program` must outlive it
 * Threads  any: a line is one write(2)
 */
#ifndef WEIR_PROTO_BASE_LOG_H
#define WEIR_PROTO_BASE_LOG_H

enum weir_log_level { WEIR_LOG_ERROR, WEIR_LOG_WARN, WEIR_LOG_INFO, WEIR_LOG_DEBUG };

struct weir_log {
    const char *program; /* "weir-broker" */
    enum weir_log_level level;
    int fd;
};

/* Lines over 1,023 bytes are cut; control characters are replaced. A NULL log says nothing. */
void weir_log(const struct weir_log *log, enum weir_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* "error", "warn", "info", "debug" -> level; 0 and false when it is none of them. */
_Bool weir_log_level_parse(const char *text, enum weir_log_level *out);

#endif
