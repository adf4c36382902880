#include "worker/tokenizers/gemma_internal.h"

#include "worker/tokenizers/unicode_text.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* The ids of one text as they are found: those of the window are kept, all are counted. */
struct sink {
    const struct weir_gemma_bpe *tokenizer;
    int32_t *ids; /* [room] */
    size_t room;
    size_t count;
    struct weir_bpe_word word;
    int32_t *pieces; /* ids of one word, [piece_room] */
    size_t piece_room;
};

static void put(struct sink *sink, int32_t id)
{
    if (sink->count < sink->room) sink->ids[sink->count] = id;
    sink->count++;
}

/* ---- normalising ---- */

static const char *find(const char *text, size_t count, const struct weir_gemma_step *step)
{
    return count > 0 ? memmem(text, count, step->from, step->from_bytes) : NULL;
}

static size_t count_of(const char *text, size_t count, const struct weir_gemma_step *step)
{
    const char *at = text, *end = text + count, *found;
    size_t times = 0;
    for (; (found = find(at, (size_t)(end - at), step)) != NULL; at = found + step->from_bytes) times++;
    return times;
}

/* Into `out`, which has the room. */
static void replace(const char *text, size_t count, const struct weir_gemma_step *step, char *out)
{
    const char *at = text, *end = text + count, *found;
    while ((found = find(at, (size_t)(end - at), step)) != NULL) {
        memcpy(out, at, (size_t)(found - at));
        out += found - at;
        memcpy(out, step->to, step->to_bytes);
        out += step->to_bytes;
        at = found + step->from_bytes;
    }
    memcpy(out, at, (size_t)(end - at));
}

enum weir_status weir_gemma_normalise(const struct weir_gemma_bpe *tokenizer, const char *text, size_t count,
                                      char **out, size_t *out_count, struct weir_error *error)
{
    char *now = malloc(count + 1);
    if (!now) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a text of %zu bytes", count);
    memcpy(now, text, count);
    for (size_t i = 0; i < tokenizer->step_count; i++) {
        const struct weir_gemma_step *step = &tokenizer->steps[i];
        const bool prepends = step->from_bytes == 0;
        const size_t times = prepends ? count > 0 : count_of(now, count, step);
        const size_t more = count + times * step->to_bytes - times * step->from_bytes;
        char *next = more <= WEIR_GEMMA_BPE_NORMALISED_BYTES_MAX ? malloc(more + 1) : NULL;
        if (!next) {
            free(now);
            if (more > WEIR_GEMMA_BPE_NORMALISED_BYTES_MAX)
                return weir_fail(error, WEIR_TOO_LARGE,
                                 "the text has %zu bytes once normalised; the tokenizer takes %u", more,
                                 WEIR_GEMMA_BPE_NORMALISED_BYTES_MAX);
            return weir_fail(error, WEIR_NO_MEMORY, "no memory for a text of %zu bytes", more);
        }
        if (prepends) {
            memcpy(next, step->to, times * step->to_bytes);
            memcpy(next + times * step->to_bytes, now, count);
        } else {
            replace(now, count, step, next);
        }
        free(now);
        now = next;
        count = more;
    }
    *out = now;
    *out_count = count;
    return WEIR_OK;
}

/* ---- a word ---- */

/* The bytes of a character as ids; false where the vocabulary lacks one of them. */
static bool spell(const struct weir_gemma_bpe *tokenizer, const char *bytes, size_t count, int32_t *out)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = tokenizer->byte_ids[(uint8_t)bytes[i]];
        if (out[i] == WEIR_TOKEN_NONE) return false;
    }
    return true;
}

/* One word, merged. The unknown token is put down when the next character of the vocabulary comes, or at the end: bytes
 * in between come before it, as upstream. */
static void put_word(struct sink *sink, const char *text, size_t count)
{
    const struct weir_gemma_bpe *tokenizer = sink->tokenizer;
    int32_t *pieces = sink->pieces;
    size_t used = 0;
    bool unknown = false;
    assert(count <= sink->piece_room);
    for (size_t at = 0; at < count;) {
        size_t next = at;
        weir_char_next(text, count, &next);
        const size_t bytes = next - at;
        const int32_t id = weir_token_table_id(&tokenizer->vocab, text + at, bytes);
        if (id != WEIR_TOKEN_NONE) {
            if (unknown) pieces[used++] = tokenizer->unknown_id;
            unknown = false;
            pieces[used++] = id;
        } else if (spell(tokenizer, text + at, bytes, pieces + used)) {
            used += bytes;
        } else if (tokenizer->unknown_id != WEIR_TOKEN_NONE) {
            if (unknown && !tokenizer->fuse_unknown) pieces[used++] = tokenizer->unknown_id;
            unknown = true;
        }
        at = next;
    }
    if (unknown) pieces[used++] = tokenizer->unknown_id;
    const size_t left = weir_bpe_merge(&tokenizer->merges, &sink->word, pieces, used);
    for (size_t i = 0; i < left; i++) put(sink, pieces[i]);
}

static void put_words(struct sink *sink, const char *text, size_t count)
{
    const char *space = NULL;
    while (sink->tokenizer->cut_after_space && count > 0 && (space = memchr(text, ' ', count)) != NULL) {
        const size_t bytes = (size_t)(space + 1 - text);
        put_word(sink, text, bytes);
        text += bytes;
        count -= bytes;
    }
    if (count > 0) put_word(sink, text, count);
}

/* ---- a text ---- */

static void put_normalised(struct sink *sink, const char *text, size_t count)
{
    const struct weir_added_token *token;
    size_t done = 0, start;
    while ((token = weir_added_set_next(&sink->tokenizer->normalised, text, count, done, &start)) != NULL) {
        put_words(sink, text + done, start - done);
        put(sink, token->id);
        done = start + token->bytes;
    }
    put_words(sink, text + done, count - done);
}

/* Text between two added tokens: normalised by itself. */
static enum weir_status put_raw(struct sink *sink, const char *text, size_t count, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    char *normalised = NULL;
    if (count == 0) return WEIR_OK;
    WEIR_TRY(weir_gemma_normalise(sink->tokenizer, text, count, &normalised, &count, error));
    if (count > sink->piece_room) {
        free(sink->pieces);
        sink->piece_room = 0;
        sink->pieces = malloc(count * sizeof *sink->pieces);
        if (!sink->pieces) WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "no memory for a text of %zu bytes", count));
        sink->piece_room = count;
    }
    WEIR_TRY(weir_bpe_word_reserve(&sink->word, count, error));
    put_normalised(sink, normalised, count);
cleanup:
    free(normalised);
    return status;
}

enum weir_status weir_gemma_bpe_encode(const struct weir_gemma_bpe *tokenizer, const char *text, size_t text_bytes,
                                       uint32_t window, int32_t *ids, struct weir_gemma_bpe_counts *counts,
                                       struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_gemma_around *before = &tokenizer->before, *after = &tokenizer->after;
    const struct weir_added_token *token;
    size_t done = 0, start;
    assert(window >= WEIR_GEMMA_BPE_WINDOW_MIN && window <= WEIR_GEMMA_BPE_WINDOW_MAX);
    struct sink sink = { .tokenizer = tokenizer,
                         .ids = ids + before->count,
                         .room = window - before->count - after->count };

    if (text_bytes > WEIR_GEMMA_BPE_TEXT_BYTES_MAX)
        return weir_fail(error, WEIR_TOO_LARGE, "the text has %zu bytes; the tokenizer takes %u", text_bytes,
                         WEIR_GEMMA_BPE_TEXT_BYTES_MAX);
    WEIR_TRY(weir_utf8_check(text, text_bytes, error));
    while ((token = weir_added_set_next(&tokenizer->raw, text, text_bytes, done, &start)) != NULL) {
        WEIR_TRY(put_raw(&sink, text + done, start - done, error));
        put(&sink, token->id);
        done = start + token->bytes;
    }
    WEIR_TRY(put_raw(&sink, text + done, text_bytes - done, error));

    const uint32_t kept = (uint32_t)(sink.count < sink.room ? sink.count : sink.room);
    const uint32_t around = before->count + after->count;
    for (uint32_t i = 0; i < before->count; i++) ids[i] = before->ids[i];
    for (uint32_t i = 0; i < after->count; i++) ids[before->count + kept + i] = after->ids[i];
    for (uint32_t i = around + kept; i < window; i++) ids[i] = tokenizer->facts.pad;
    *counts = (struct weir_gemma_bpe_counts){ .real = around + kept, .whole = around + (uint32_t)sink.count };
cleanup:
    weir_bpe_word_deinit(&sink.word);
    free(sink.pieces);
    return status;
}

/* ---- the rest ---- */

struct weir_gemma_bpe_facts weir_gemma_bpe_facts(const struct weir_gemma_bpe *tokenizer)
{
    return tokenizer->facts;
}

const char *weir_gemma_bpe_piece(const struct weir_gemma_bpe *tokenizer, int32_t id, size_t *bytes)
{
    return weir_token_table_text(&tokenizer->vocab, id, bytes);
}

void weir_gemma_bpe_close(struct weir_gemma_bpe **tokenizer_p)
{
    struct weir_gemma_bpe *tokenizer = *tokenizer_p;
    if (!tokenizer) return;
    weir_added_set_deinit(&tokenizer->raw);
    weir_added_set_deinit(&tokenizer->normalised);
    weir_bpe_table_deinit(&tokenizer->merges);
    weir_token_table_deinit(&tokenizer->vocab);
    free(tokenizer);
    *tokenizer_p = NULL;
}
