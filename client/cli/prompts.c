#include "client/cli/prompts.h"

#include "proto/base/bytes.h"

#include <ctype.h>
#include <csv.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    TEXT_BYTES_MAX = 10240,
    PATH_BYTES_MAX = 4000,
    LORAS_MAX = 8,
    READ_BYTES = 1 << 16,
    LINE_MAX = WEIR_CLI_PROMPT_LINE_BYTES_MAX
};

enum field { PROMPT, NEGATIVE, SEED, WIDTH, HEIGHT, SIZE, STEPS, GUIDANCE, LORAS, FIELDS };
enum kind { TEXT, WHOLE, REAL, PIXELS, LIST };
static const struct {
    const char *name;
    enum kind kind;
    double min, max;
} fields[FIELDS] = {
    [PROMPT] = { "prompt", TEXT, 1, TEXT_BYTES_MAX },
    [NEGATIVE] = { "negative", TEXT, 0, TEXT_BYTES_MAX },
    [SEED] = { "seed", WHOLE, 0, 9223372036854774784.0 },
    [WIDTH] = { "width", WHOLE, 1, 65536 },
    [HEIGHT] = { "height", WHOLE, 1, 65536 },
    [SIZE] = { "size", PIXELS, 0, 0 },
    [STEPS] = { "steps", WHOLE, 1, 1000 },
    [GUIDANCE] = { "guidance", REAL, 0, 100 },
    [LORAS] = { "loras", LIST, 0, LORAS_MAX },
};
static const char field_names[] = "prompt, negative, seed, width, height, size, steps, guidance, loras";

/* A prompt that is being put together, and its first fault. */
struct making {
    struct weir_prompt prompt;
    struct weir_lora loras[LORAS_MAX];
    bool given[FIELDS];
    struct weir_error fault;
};

struct weir_cli_prompts {
    enum weir_cli_prompts_kind kind;
    struct weir_cli_prompts_sink sink;
    char line[LINE_MAX + 2]; /* and its end, and a NUL */
    size_t used;
    bool over, stopped;
    uint32_t number, made;    /* of the line that is being read, from 1; prompts so far */
    struct weir_error failed; /* of the file as a whole */
    /* CSV: the row that is being read */
    struct csv_parser csv;
    bool csv_ready, has_header, row_full;
    uint32_t row_line;
    size_t row_bytes, row_used, column_count, field_count;
    char row[LINE_MAX + 1 + FIELDS + 1];
    char *values[FIELDS];
    enum field columns[FIELDS];
};

/* ---- what both forms share ----------------------------------------------------------------------------------------- */

size_t weir_cli_split_number(const char *text, double *number)
{
    const char *colon = strrchr(text, ':');
    char *end = NULL;
    if (!colon || colon == text || !colon[1] || isspace((unsigned char)colon[1])) return strlen(text);
    const double value = strtod(colon + 1, &end);
    if (*end || !isfinite(value)) return strlen(text);
    *number = value;
    return (size_t)(colon - text);
}

bool weir_cli_size_read(const char *text, uint32_t *width, uint32_t *height)
{
    char *end = NULL;
    const unsigned long w = isdigit((unsigned char)text[0]) ? strtoul(text, &end, 10) : 0;
    const unsigned long h = end && *end == 'x' && isdigit((unsigned char)end[1]) ? strtoul(end + 1, &end, 10) : 0;
    if (!end || *end || w < 1 || h < 1 || w > 65536 || h > 65536) return false;
    *width = (uint32_t)w;
    *height = (uint32_t)h;
    return true;
}

static void making_begin(struct making *making, uint32_t line)
{
    memset(making->given, 0, sizeof making->given);
    making->prompt = (struct weir_prompt)WEIR_PROMPT_INIT;
    making->prompt.line = line;
    making->prompt.loras = making->loras;
    making->fault.code = WEIR_OK;
}

static void wrong_value(struct making *making, enum field field, const char *value)
{
    if (making->fault.code != WEIR_OK) return;
    const char *name = fields[field].name;
    switch (fields[field].kind) {
    case TEXT:
        weir_fail(&making->fault, WEIR_BAD_ARGUMENT, "%s %.80s: a text is wanted", name, value);
        break;
    case WHOLE:
        weir_fail(&making->fault, WEIR_BAD_ARGUMENT, "%s %.80s: a whole number from %.0f to %.0f is wanted", name,
                  value, fields[field].min, fields[field].max);
        break;
    case REAL:
        weir_fail(&making->fault, WEIR_BAD_ARGUMENT, "%s %.80s: a number from %g to %g is wanted", name, value,
                  fields[field].min, fields[field].max);
        break;
    case PIXELS:
        weir_fail(&making->fault, WEIR_BAD_ARGUMENT, "%s %.80s: WIDTHxHEIGHT is wanted, each from 1 to 65536", name,
                  value);
        break;
    case LIST:
        weir_fail(&making->fault, WEIR_BAD_ARGUMENT, "%s %.80s: a list of LoRAs is wanted", name, value);
        break;
    }
}

static void set_text(struct making *making, enum field field, const char *text)
{
    const size_t bytes = strlen(text);
    if (field == SIZE) {
        if (!weir_cli_size_read(text, &making->prompt.width, &making->prompt.height)) wrong_value(making, SIZE, text);
        return;
    }
    if ((double)bytes < fields[field].min || (double)bytes > fields[field].max) {
        if (making->fault.code != WEIR_OK) return;
        weir_fail(&making->fault, WEIR_BAD_ARGUMENT, "%s: %zu bytes, %.0f to %.0f are allowed", fields[field].name,
                  bytes, fields[field].min, fields[field].max);
        return;
    }
    *(field == PROMPT ? &making->prompt.text : &making->prompt.negative) = text;
}

static void set_number(struct making *making, enum field field, int64_t whole, double real, const char *value)
{
    struct weir_prompt *p = &making->prompt;
    const double number = fields[field].kind == REAL ? real : (double)whole;
    if (!(number >= fields[field].min && number <= fields[field].max)) {
        wrong_value(making, field, value);
        return;
    }
    switch (field) {
    case SEED:
        p->seed = (uint64_t)whole;
        p->seed_given = true;
        break;
    case WIDTH:
        p->width = (uint32_t)whole;
        break;
    case HEIGHT:
        p->height = (uint32_t)whole;
        break;
    case STEPS:
        p->steps = (uint32_t)whole;
        break;
    default:
        p->guidance = real;
        break;
    }
}

static void add_lora(struct making *making, const char *path, double weight)
{
    struct weir_error *fault = making->fault.code == WEIR_OK ? &making->fault : NULL;
    const size_t bytes = path ? strlen(path) : 0;
    if (making->prompt.lora_count == LORAS_MAX) {
        weir_fail(fault, WEIR_BAD_ARGUMENT, "loras: more than %d", LORAS_MAX);
    } else if (bytes < 1 || bytes > PATH_BYTES_MAX) {
        weir_fail(fault, WEIR_BAD_ARGUMENT, "loras: a file's name of %zu bytes, 1 to %d are allowed", bytes,
                  PATH_BYTES_MAX);
    } else if (!(weight >= -100 && weight <= 100)) {
        weir_fail(fault, WEIR_BAD_ARGUMENT, "loras %.80s: a weight of %g, -100 to 100 is allowed", path, weight);
    } else {
        making->loras[making->prompt.lora_count++] = (struct weir_lora){ .path = path, .weight = weight };
    }
}

static void tell_fault(struct weir_cli_prompts *p, uint32_t line, const struct weir_error *why)
{
    p->sink.fault(p->sink.context, line, why);
}

static void hand_over(struct weir_cli_prompts *p, struct making *making)
{
    if (making->fault.code == WEIR_OK && !making->given[PROMPT]) {
        weir_fail(&making->fault, WEIR_BAD_ARGUMENT, "prompt is missing");
    }
    if (making->fault.code == WEIR_OK && making->given[SIZE] && (making->given[WIDTH] || making->given[HEIGHT])) {
        weir_fail(&making->fault, WEIR_BAD_ARGUMENT, "size and %s: one of the two is wanted",
                  making->given[WIDTH] ? "width" : "height");
    }
    if (making->fault.code != WEIR_OK) {
        tell_fault(p, making->prompt.line, &making->fault);
        return;
    }
    if (p->made++ == WEIR_CLI_PROMPTS_MAX) {
        weir_fail(&p->failed, WEIR_TOO_LARGE, "more than %d prompts in one file", WEIR_CLI_PROMPTS_MAX);
        return;
    }
    p->stopped = !p->sink.prompt(p->sink.context, &making->prompt);
}

/* ---- JSON ------------------------------------------------------------------------------------------------------------ */

static void json_loras(struct making *making, const json_t *list)
{
    size_t i;
    json_t *one;
    if (!json_is_array(list)) {
        wrong_value(making, LORAS, "");
        return;
    }
    json_array_foreach(list, i, one)
    {
        const json_t *file = json_object_get(one, "file"), *weight = json_object_get(one, "weight");
        const size_t known = (size_t)(file != NULL) + (size_t)(weight != NULL);
        if (json_object_size(one) != known || !json_is_string(file) || (weight && !json_is_number(weight))) {
            if (making->fault.code != WEIR_OK) return;
            weir_fail(&making->fault, WEIR_BAD_ARGUMENT,
                      "loras: number %zu is not {\"file\": PATH, \"weight\": NUMBER}", i + 1);
            return;
        }
        add_lora(making, json_string_value(file), weight ? json_number_value(weight) : 1.0);
    }
}

static void json_field(struct making *making, enum field field, const json_t *value)
{
    char *shown = NULL;
    const enum kind kind = fields[field].kind;
    const bool fits = kind == TEXT || kind == PIXELS ? json_is_string(value)
                      : kind == WHOLE                ? json_is_integer(value)
                      : kind == REAL                 ? json_is_number(value)
                                                     : json_is_array(value);
    making->given[field] = true;
    if (!fits || kind == WHOLE || kind == REAL) shown = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    if (!fits)
        wrong_value(making, field, shown ? shown : "");
    else if (kind == LIST)
        json_loras(making, value);
    else if (kind == TEXT || kind == PIXELS)
        set_text(making, field, json_string_value(value));
    else
        set_number(making, field, json_integer_value(value), json_number_value(value), shown ? shown : "");
    free(shown);
}

static void take_json(struct weir_cli_prompts *p, const char *line, size_t bytes)
{
    struct making making;
    json_error_t wrong;
    const char *name;
    json_t *value;
    making_begin(&making, p->number);
    json_t *object = json_loadb(line, bytes, JSON_REJECT_DUPLICATES, &wrong);
    if (!json_is_object(object)) {
        weir_fail(&making.fault, WEIR_BAD_ARGUMENT, "not a JSON object: %s", object ? "another kind" : wrong.text);
    }
    json_object_foreach(object, name, value)
    {
        enum field field = 0;
        while (field < FIELDS && strcmp(fields[field].name, name) != 0) field++;
        if (field < FIELDS) {
            json_field(&making, field, value);
        } else if (making.fault.code == WEIR_OK) {
            weir_fail(&making.fault, WEIR_BAD_ARGUMENT, "%.80s: no such key; there are %s", name, field_names);
        }
    }
    hand_over(p, &making);
    json_decref(object);
}

/* ---- CSV ------------------------------------------------------------------------------------------------------------- */

static int no_space(unsigned char c)
{
    (void)c;
    return 0; /* RFC 4180: spaces are part of a field */
}

static void csv_reset(struct weir_cli_prompts *p)
{
    if (p->csv_ready) csv_free(&p->csv);
    p->csv_ready = csv_init(&p->csv, CSV_STRICT | CSV_STRICT_FINI | CSV_APPEND_NULL) == 0;
    if (p->csv_ready) csv_set_space_func(&p->csv, no_space);
    p->row_used = p->row_bytes = p->field_count = 0;
    p->row_full = false;
}

static void csv_field(void *bytes, size_t count, void *context)
{
    struct weir_cli_prompts *p = context;
    if (p->field_count < FIELDS && p->row_used + count + 1 <= sizeof p->row) {
        p->values[p->field_count] = p->row + p->row_used;
        if (count) memcpy(p->row + p->row_used, bytes, count);
        p->row[p->row_used + count] = '\0';
        p->row_used += count + 1;
    } else {
        p->row_full = true;
    }
    p->field_count++;
}

static void take_header(struct weir_cli_prompts *p)
{
    bool seen[FIELDS] = { false };
    for (size_t i = 0; i < p->field_count && !p->row_full; i++) {
        enum field field = 0;
        while (field < FIELDS && strcmp(fields[field].name, p->values[i]) != 0) field++;
        if (field == FIELDS || seen[field]) {
            weir_fail(&p->failed, WEIR_BAD_FILE, "line %u: column %zu is \"%.40s\"%s; a header row names some of %s",
                      p->row_line, i + 1, p->values[i], field == FIELDS ? "" : " again", field_names);
            return;
        }
        seen[field] = true;
        p->columns[i] = field;
    }
    if (p->row_full) {
        weir_fail(&p->failed, WEIR_BAD_FILE, "line %u: a header of %zu columns; it names some of %s", p->row_line,
                  p->field_count, field_names);
    } else if (!seen[PROMPT]) {
        weir_fail(&p->failed, WEIR_BAD_FILE, "line %u: a header row without \"prompt\"; it names some of %s",
                  p->row_line, field_names);
    }
    p->column_count = p->field_count;
    p->has_header = true;
}

static void csv_loras(struct making *making, char *text)
{
    for (char *rest = text, *one; (one = strsep(&rest, ";"));) {
        double weight = 1;
        one[weir_cli_split_number(one, &weight)] = '\0';
        add_lora(making, one, weight);
    }
}

static void csv_value(struct making *making, enum field field, char *text)
{
    char *end = NULL;
    making->given[field] = true;
    switch (fields[field].kind) {
    case TEXT:
    case PIXELS:
        set_text(making, field, text);
        return;
    case LIST:
        csv_loras(making, text);
        return;
    case WHOLE: {
        errno = 0;
        const long long whole = strtoll(text, &end, 10);
        if (!isdigit((unsigned char)text[0]) || *end || errno)
            wrong_value(making, field, text);
        else
            set_number(making, field, whole, 0, text);
        return;
    }
    case REAL: {
        const double real = strtod(text, &end);
        if (isspace((unsigned char)text[0]) || *end)
            wrong_value(making, field, text);
        else
            set_number(making, field, 0, real, text);
        return;
    }
    }
}

static void take_row(struct weir_cli_prompts *p)
{
    struct making making;
    making_begin(&making, p->row_line);
    if (p->field_count != p->column_count) {
        weir_fail(&making.fault, WEIR_BAD_ARGUMENT, "%zu fields; the header row has %zu", p->field_count,
                  p->column_count);
    }
    for (size_t i = 0; i < p->column_count && making.fault.code == WEIR_OK; i++) {
        if (p->values[i][0]) csv_value(&making, p->columns[i], p->values[i]);
    }
    hand_over(p, &making);
}

static void csv_row_end(int end, void *context)
{
    struct weir_cli_prompts *p = context;
    (void)end;
    if (p->failed.code == WEIR_OK && !p->stopped) {
        if (p->has_header)
            take_row(p);
        else
            take_header(p);
    }
    p->row_used = p->row_bytes = p->field_count = 0;
    p->row_full = false;
    p->row_line = p->number;
}

static void csv_fault(struct weir_cli_prompts *p, const char *words)
{
    struct weir_error fault;
    weir_fail(&fault, p->has_header ? WEIR_BAD_ARGUMENT : WEIR_BAD_FILE, "%s", words);
    if (p->has_header)
        tell_fault(p, p->row_line, &fault);
    else
        weir_fail(&p->failed, WEIR_BAD_FILE, "line %u: the header row: %s", p->row_line, words);
    csv_reset(p);
}

/* pstate 0: between rows, in libcsv's words. */
static void take_csv(struct weir_cli_prompts *p, const char *line, size_t bytes)
{
    if (p->csv.pstate == 0) {
        p->row_line = p->number;
        p->row_bytes = 0;
    }
    p->row_bytes += bytes;
    if (p->row_bytes > LINE_MAX + 1) {
        csv_fault(p, "a row of over 65536 bytes, or one whose quote is never closed");
    } else if (csv_parse(&p->csv, line, bytes, csv_field, csv_row_end, p) != bytes) {
        csv_fault(p, csv_error(&p->csv) == CSV_EPARSE ? "a quote inside a field; a field that holds one is quoted as a "
                                                        "whole, the one in it written twice"
                                                      : "out of memory");
    }
}

/* ---- lines ----------------------------------------------------------------------------------------------------------- */

static const char *fault_of_line(const struct weir_cli_prompts *p, const char *line, size_t bytes)
{
    if (p->over) return "a line of over 65536 bytes";
    if (memchr(line, '\0', bytes)) return "a NUL byte in a line";
    return weir_utf8_valid(line, bytes) ? NULL : "not UTF-8";
}

static bool is_blank(const char *line, size_t bytes)
{
    while (bytes && (line[bytes - 1] == ' ' || line[bytes - 1] == '\t')) bytes--;
    return bytes == 0;
}

/* One line, `ended` by LF or by the end of all. */
static void take_line(struct weir_cli_prompts *p, bool ended)
{
    static const char mark[] = "\xef\xbb\xbf";
    char *line = p->line;
    size_t bytes = p->used;
    p->number++;
    if (p->number == 1 && bytes >= 3 && memcmp(line, mark, 3) == 0) line += 3, bytes -= 3;
    const char *wrong = fault_of_line(p, line, bytes);
    if (wrong) {
        struct weir_error fault;
        if (p->kind == WEIR_CLI_PROMPTS_CSV && (p->csv.pstate == 0 || !p->has_header)) p->row_line = p->number;
        weir_fail(&fault, WEIR_BAD_ARGUMENT, "%s", wrong);
        if (p->kind == WEIR_CLI_PROMPTS_CSV)
            csv_fault(p, wrong);
        else
            tell_fault(p, p->number, &fault);
    } else if (p->kind == WEIR_CLI_PROMPTS_CSV) {
        if (ended) line[bytes++] = '\n';
        take_csv(p, line, bytes);
    } else {
        if (bytes && line[bytes - 1] == '\r') bytes--;
        line[bytes] = '\0';
        if (is_blank(line, bytes)) {
            /* nothing is said */
        } else if (p->kind == WEIR_CLI_PROMPTS_JSONL) {
            take_json(p, line, bytes);
        } else if (line[0] != '#') {
            struct making making;
            making_begin(&making, p->number);
            making.given[PROMPT] = true;
            set_text(&making, PROMPT, line);
            hand_over(p, &making);
        }
    }
    p->used = 0;
    p->over = false;
}

enum weir_status weir_cli_prompts_open(enum weir_cli_prompts_kind kind, const struct weir_cli_prompts_sink *sink,
                                       struct weir_cli_prompts **out, struct weir_error *error)
{
    struct weir_cli_prompts *p = *out = calloc(1, sizeof *p);
    if (!p) return weir_fail(error, WEIR_NO_MEMORY, "no memory to read prompts");
    p->kind = kind;
    p->sink = *sink;
    if (kind == WEIR_CLI_PROMPTS_CSV) csv_reset(p);
    return WEIR_OK;
}

void weir_cli_prompts_close(struct weir_cli_prompts **prompts_p)
{
    struct weir_cli_prompts *p = *prompts_p;
    if (!p) return;
    if (p->csv_ready) csv_free(&p->csv);
    free(p);
    *prompts_p = NULL;
}

static enum weir_status state_of(const struct weir_cli_prompts *p, struct weir_error *error)
{
    if (p->failed.code != WEIR_OK) return weir_fail(error, p->failed.code, "%s", p->failed.words);
    return p->stopped ? weir_fail(error, WEIR_INTERRUPTED, "interrupted") : WEIR_OK;
}

enum weir_status weir_cli_prompts_feed(struct weir_cli_prompts *p, const void *bytes, size_t count,
                                       struct weir_error *error)
{
    const char *at = bytes, *const end = at + count;
    while (at < end) {
        const char *lf = memchr(at, '\n', (size_t)(end - at));
        const size_t piece = (size_t)((lf ? lf : end) - at), room = LINE_MAX - p->used;
        const size_t taken = piece < room ? piece : room;
        memcpy(p->line + p->used, at, taken);
        p->used += taken;
        p->over |= taken < piece;
        at += piece;
        if (!lf) break;
        at++;
        take_line(p, true);
        const enum weir_status status = state_of(p, error);
        if (status != WEIR_OK) return status;
    }
    return WEIR_OK;
}

enum weir_status weir_cli_prompts_finish(struct weir_cli_prompts *p, struct weir_error *error)
{
    if (p->used || p->over) take_line(p, false);
    if (p->kind == WEIR_CLI_PROMPTS_CSV && p->failed.code == WEIR_OK && !p->stopped) {
        if (csv_fini(&p->csv, csv_field, csv_row_end, p) != 0) csv_fault(p, "a quote that is never closed");
        if (p->failed.code == WEIR_OK && !p->has_header) {
            weir_fail(&p->failed, WEIR_BAD_FILE, "no header row; it names some of %s", field_names);
        }
    }
    return state_of(p, error);
}

/* ---- files ----------------------------------------------------------------------------------------------------------- */

static bool kind_of(const char *path, enum weir_cli_prompts_kind *kind)
{
    static const char *const endings[] = { ".txt", ".jsonl", ".csv" };
    const size_t length = strlen(path);
    for (size_t i = 0; i < WEIR_COUNT(endings); i++) {
        const size_t bytes = strlen(endings[i]);
        if (length < bytes || strcmp(path + length - bytes, endings[i]) != 0) continue;
        *kind = (enum weir_cli_prompts_kind)i;
        return true;
    }
    return false;
}

static enum weir_status read_all(int fd, struct weir_cli_prompts *p, struct weir_error *error)
{
    char bytes[READ_BYTES];
    for (;;) {
        const ssize_t got = read(fd, bytes, sizeof bytes);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return weir_fail(error, WEIR_IO, "%s", strerror(errno));
        if (got == 0) return weir_cli_prompts_finish(p, error);
        const enum weir_status status = weir_cli_prompts_feed(p, bytes, (size_t)got, error);
        if (status != WEIR_OK) return status;
    }
}

enum weir_status weir_cli_prompts_read(const char *path, const struct weir_cli_prompts_sink *sink,
                                       struct weir_error *error)
{
    enum weir_cli_prompts_kind kind;
    struct weir_cli_prompts *p = NULL;
    struct weir_error own;
    if (!kind_of(path, &kind)) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--prompts %s: an ending .txt, .jsonl or .csv is wanted", path);
    }
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return weir_fail(error, errno == ENOENT ? WEIR_NOT_FOUND : WEIR_IO, "--prompts %s: %s", path, strerror(errno));
    }
    enum weir_status status = weir_cli_prompts_open(kind, sink, &p, &own);
    if (status == WEIR_OK) status = read_all(fd, p, &own);
    weir_cli_prompts_close(&p);
    close(fd);
    return status == WEIR_OK ? status : weir_fail(error, status, "%s: %s", path, own.words);
}
