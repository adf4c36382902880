#include "worker/tokenizers/internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* The ids of one text as they are found: those of the window are kept, all are counted. */
struct sink {
    const struct weir_clip_bpe *tokenizer;
    int32_t *ids; /* [room] */
    size_t room;
    size_t count;
    struct weir_bpe_word word;
    int32_t *pieces; /* ids of one piece, [piece_room] */
    size_t piece_room;
};

struct span {
    size_t start, end;
};

static void put(struct sink *sink, int32_t id)
{
    if (sink->count < sink->room) sink->ids[sink->count] = id;
    sink->count++;
}

/* One piece of text, spelled in bytes and merged. */
static void put_piece(struct sink *sink, const char *text, struct span piece)
{
    const struct weir_clip_bpe *tokenizer = sink->tokenizer;
    const size_t count = piece.end - piece.start;
    assert(count > 0 && count <= sink->piece_room);
    for (size_t i = 0; i < count; i++) {
        const uint8_t byte = (uint8_t)text[piece.start + i];
        const int32_t id = i + 1 == count ? tokenizer->byte_end_ids[byte] : tokenizer->byte_ids[byte];
        sink->pieces[i] = id == WEIR_ID_NONE ? tokenizer->unknown_id : id;
    }
    const size_t left = weir_bpe_merge(&tokenizer->merges, &sink->word, sink->pieces, count);
    for (size_t i = 0; i < left; i++) put(sink, sink->pieces[i]);
}

/* The first of `words` that stands at text[at]; its length, 0 when none. */
static size_t literal_at(const char *const *words, size_t word_count, const char *text, size_t at, size_t end)
{
    for (size_t i = 0; i < word_count; i++) {
        const size_t bytes = strlen(words[i]);
        if (bytes <= end - at && memcmp(text + at, words[i], bytes) == 0) return bytes;
    }
    return 0;
}

/* The end of the run of one class that begins at `at`. */
static size_t run_end(enum weir_char_class class, const char *text, size_t at, size_t end)
{
    while (at < end) {
        size_t next = at;
        if (weir_char_class(weir_char_next(text, end, &next)) != class) break;
        at = next;
    }
    return at;
}

/* Cuts normalised text into pieces. At each place the first that fits of: a special token spelled out, a contraction, a
 * run of letters, one number, a run of anything else but white space. */
static void put_text(struct sink *sink, const char *text, struct span span)
{
    static const char *const spelled[] = { "<|startoftext|>", "<|endoftext|>" };
    static const char *const contractions[] = { "'s", "'t", "'re", "'ve", "'m", "'ll", "'d" };
    for (size_t at = span.start; at < span.end;) {
        size_t next = at;
        const enum weir_char_class class = weir_char_class(weir_char_next(text, span.end, &next));
        if (class == WEIR_CHAR_SPACE) {
            at = next;
            continue;
        }
        const size_t token = literal_at(spelled, WEIR_COUNT(spelled), text, at, span.end);
        const size_t contraction = literal_at(contractions, WEIR_COUNT(contractions), text, at, span.end);
        if (token > 0) { /* the byte-level step cuts it once more: brackets, letters, brackets */
            put_piece(sink, text, (struct span){ at, at + 2 });
            put_piece(sink, text, (struct span){ at + 2, at + token - 2 });
            put_piece(sink, text, (struct span){ at + token - 2, at + token });
            at += token;
            continue;
        }
        if (contraction > 0)
            next = at + contraction;
        else if (class != WEIR_CHAR_NUMBER)
            next = run_end(class, text, next, span.end);
        put_piece(sink, text, (struct span){ at, next });
        at = next;
    }
}

/* The longest special that begins at text[at], or NULL. */
static const struct weir_special *special_at(const struct weir_special_set *set, const char *text, size_t at,
                                             size_t end)
{
    const struct weir_special *longest = NULL;
    if (!set->starts[(uint8_t)text[at]]) return NULL;
    for (size_t i = 0; i < set->count; i++) {
        const struct weir_special *special = &set->specials[i];
        if (special->bytes <= end - at && (!longest || special->bytes > longest->bytes) &&
            memcmp(text + at, special->text, special->bytes) == 0)
            longest = special;
    }
    return longest;
}

static bool stands_alone(const char *text, size_t count, struct span found)
{
    size_t left = found.start, right = found.end;
    if (left > 0 && weir_char_is_word(weir_char_previous(text, &left))) return false;
    return right == count || !weir_char_is_word(weir_char_next(text, count, &right));
}

/* Widens what was found over the white space beside it, on the left not before `floor`. */
static struct span strip(const struct weir_special *special, const char *text, size_t count, size_t floor,
                         struct span found)
{
    while (special->strips_left && found.start > floor) {
        size_t left = found.start;
        if (weir_char_class(weir_char_previous(text, &left)) != WEIR_CHAR_SPACE) break;
        found.start = left;
    }
    while (special->strips_right && found.end < count) {
        size_t right = found.end;
        if (weir_char_class(weir_char_next(text, count, &right)) != WEIR_CHAR_SPACE) break;
        found.end = right;
    }
    return found;
}

/* The next special at or after `from` that counts; false when there is none. `*taken` is what it takes of the text,
 * `*after` where the search goes on. */
static bool special_next(const struct weir_special_set *set, const char *text, size_t count, size_t floor, size_t *from,
                         const struct weir_special **special, struct span *taken)
{
    for (size_t at = *from; at < count; at++) {
        *special = special_at(set, text, at, count);
        if (!*special) continue;
        const struct span found = { at, at + (*special)->bytes };
        *from = found.end;
        if ((*special)->single_word && !stands_alone(text, count, found)) {
            at = found.end - 1;
            continue;
        }
        *taken = strip(*special, text, count, floor, found);
        return true;
    }
    return false;
}

static void put_normalised(struct sink *sink, const char *text, size_t count)
{
    const struct weir_special *special;
    struct span taken;
    size_t done = 0, from = 0;
    while (special_next(&sink->tokenizer->normalised, text, count, done, &from, &special, &taken)) {
        if (taken.start > done) put_text(sink, text, (struct span){ done, taken.start });
        put(sink, special->id);
        done = taken.end;
        if (from < done) from = done;
    }
    put_text(sink, text, (struct span){ done, count });
}

/* Text between two specials: normalised by itself, so that nothing is composed across a special. */
static enum weir_status put_raw(struct sink *sink, const char *text, struct span span, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    char *normalised = NULL;
    size_t count;
    if (span.start >= span.end) return WEIR_OK;
    WEIR_TRY(weir_unicode_normalise(sink->tokenizer->unicode, text + span.start, span.end - span.start, &normalised,
                                    &count, error));
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

enum weir_status weir_clip_bpe_encode(const struct weir_clip_bpe *tokenizer, const char *text, size_t text_bytes,
                                      uint32_t window, int32_t *ids, struct weir_clip_bpe_counts *counts,
                                      struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_special *special;
    struct span taken;
    size_t done = 0, from = 0;
    assert(window >= 2 && window <= WEIR_CLIP_BPE_WINDOW_MAX);
    struct sink sink = { .tokenizer = tokenizer, .ids = ids + 1, .room = window - 2 };

    if (text_bytes > WEIR_CLIP_BPE_TEXT_BYTES_MAX)
        return weir_fail(error, WEIR_TOO_LARGE, "the text has %zu bytes; the tokenizer takes %u", text_bytes,
                         WEIR_CLIP_BPE_TEXT_BYTES_MAX);
    WEIR_TRY(weir_utf8_check(text, text_bytes, error));
    while (special_next(&tokenizer->raw, text, text_bytes, done, &from, &special, &taken)) {
        WEIR_TRY(put_raw(&sink, text, (struct span){ done, taken.start }, error));
        put(&sink, special->id);
        done = taken.end;
        if (from < done) from = done;
    }
    WEIR_TRY(put_raw(&sink, text, (struct span){ done, text_bytes }, error));

    const uint32_t kept = (uint32_t)(sink.count < sink.room ? sink.count : sink.room);
    ids[0] = tokenizer->start_id;
    ids[1 + kept] = tokenizer->end_id;
    for (uint32_t i = kept + 2; i < window; i++) ids[i] = tokenizer->pad_id;
    *counts = (struct weir_clip_bpe_counts){ .real = kept + 2, .whole = (uint32_t)sink.count + 2 };
cleanup:
    weir_bpe_word_deinit(&sink.word);
    free(sink.pieces);
    return status;
}

int32_t weir_clip_bpe_id_bound(const struct weir_clip_bpe *tokenizer)
{
    return tokenizer->id_bound;
}

uint32_t weir_clip_bpe_window(const struct weir_clip_bpe *tokenizer)
{
    return tokenizer->window;
}

static void specials_deinit(struct weir_special_set *set)
{
    for (size_t i = 0; i < set->count; i++) free(set->specials[i].text);
    free(set->specials);
}

void weir_clip_bpe_close(struct weir_clip_bpe **tokenizer_p)
{
    struct weir_clip_bpe *tokenizer = *tokenizer_p;
    if (!tokenizer) return;
    specials_deinit(&tokenizer->raw);
    specials_deinit(&tokenizer->normalised);
    weir_bpe_table_deinit(&tokenizer->merges);
    weir_unicode_close(&tokenizer->unicode);
    free(tokenizer);
    *tokenizer_p = NULL;
}
