/* A tokenizer's folder and a prompt. The input is five files, vocab.json, merges.txt, special_tokens_map.json,
 * tokenizer_config.json and tokenizer.json, each after two bytes of length (least first; 0xffff: there is no such file;
 * more than is left: all that is left), then the prompt. What opens must encode within its own bounds and alike twice;
 * what does not must say why. */
#include "worker/tokenizers/clip_bpe.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

#define FILE_COUNT 5
#define WINDOW 24
#define WINDOW_WIDE 512

static void expect(bool kept)
{
    if (!kept) abort();
}

/* A file in memory of its own size, so that a read past its end is seen. */
static struct weir_clip_bpe_bytes take(const uint8_t **bytes, size_t *count)
{
    struct weir_clip_bpe_bytes file = { NULL, 0 };
    if (*count < 2) return file;
    size_t wanted = (size_t)((*bytes)[0] | (*bytes)[1] << 8);
    *bytes += 2;
    *count -= 2;
    if (wanted == 0xffff) return file;
    if (wanted > *count) wanted = *count;
    char *copy = malloc(wanted + (wanted == 0));
    expect(copy != NULL);
    memcpy(copy, *bytes, wanted);
    *bytes += wanted;
    *count -= wanted;
    return (struct weir_clip_bpe_bytes){ copy, wanted };
}

static void see_ids(const struct weir_clip_bpe *tokenizer, const char *text, size_t count)
{
    int32_t ids[WINDOW], again[WINDOW], wide[WINDOW_WIDE];
    struct weir_clip_bpe_counts counts, counts_again, counts_wide;
    struct weir_error error = { .code = WEIR_OK };
    const enum weir_status status = weir_clip_bpe_encode(tokenizer, text, count, WINDOW, ids, &counts, &error);
    expect(weir_clip_bpe_encode(tokenizer, text, count, WINDOW, again, &counts_again, NULL) == status);
    expect(weir_clip_bpe_encode(tokenizer, text, count, WINDOW_WIDE, wide, &counts_wide, NULL) == status);
    if (status != WEIR_OK) {
        expect(error.code == status && error.words[0] && memchr(error.words, 0, sizeof error.words));
        return;
    }
    expect(memcmp(ids, again, sizeof ids) == 0 && counts.real == counts_again.real);
    expect(counts.whole == counts_wide.whole && counts.real >= 2 && counts.real <= WINDOW);
    expect(counts.real == (counts.whole < WINDOW ? counts.whole : WINDOW));
    for (int i = 0; i < WINDOW_WIDE; i++) expect(wide[i] >= 0 && wide[i] < weir_clip_bpe_id_bound(tokenizer));
    for (uint32_t i = 0; i + 1 < counts.real; i++) expect(ids[i] == wide[i]);
    expect(ids[counts.real - 1] == wide[(counts_wide.real) - 1]);
    for (uint32_t i = counts.real + 1; i < WINDOW; i++) expect(ids[i] == ids[counts.real]);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    struct weir_clip_bpe_bytes file[FILE_COUNT];
    struct weir_clip_bpe *tokenizer = NULL;
    struct weir_error error = { .code = WEIR_OK };
    for (int i = 0; i < FILE_COUNT; i++) file[i] = take(&bytes, &count);
    const struct weir_clip_bpe_files files = { .vocab = file[0],
                                               .merges = file[1],
                                               .special_tokens_map = file[2],
                                               .tokenizer_config = file[3],
                                               .tokenizer_json = file[4],
                                               .label = "fuzz" };
    const enum weir_status status = weir_clip_bpe_open(&files, &tokenizer, &error);
    for (int i = 0; i < FILE_COUNT; i++) free((char *)file[i].bytes);
    expect((status == WEIR_OK) == (tokenizer != NULL));
    if (status == WEIR_OK) {
        char *text = malloc(count + (count == 0)); /* the prompt, too, in memory of its own size */
        expect(text != NULL && weir_clip_bpe_window(tokenizer) <= WEIR_CLIP_BPE_WINDOW_MAX);
        memcpy(text, bytes, count);
        see_ids(tokenizer, text, count);
        free(text);
        weir_clip_bpe_close(&tokenizer);
    } else {
        expect(error.code == status && strncmp(error.words, "fuzz", 4) == 0);
    }
    return 0;
}
