/* tokenizer_tool: what the CLIP tokenizer makes of texts, for tests/golden/live_tokenizer.py to set beside upstream.
 *
 *   tokenizer_tool FOLDER WINDOW < records
 * A record is a u32 length and as many bytes of text; for each, u32 real, u32 whole and WINDOW i32 ids are printed, or
 * u32 0 and the u32 number of the status. */
#include "proto/base/bytes.h"
#include "worker/tokenizers/clip_bpe.h"

#include <stdio.h>
#include <stdlib.h>

static struct weir_clip_bpe_bytes file_read(const char *folder, const char *name)
{
    char path[4096];
    char *bytes = NULL;
    size_t count = 0;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (weir_file_read(path, WEIR_CLIP_BPE_FILE_BYTES_MAX, &bytes, &count, NULL) != WEIR_OK) bytes = NULL;
    return (struct weir_clip_bpe_bytes){ bytes, count };
}

static void put(const void *bytes, size_t size, size_t count)
{
    if (fwrite(bytes, size, count, stdout) != count) exit(2);
}

int main(int argc, char **argv)
{
    struct weir_error error = { 0 };
    struct weir_clip_bpe *tokenizer = NULL;
    if (argc != 3) {
        fprintf(stderr, "usage: tokenizer_tool FOLDER WINDOW < records\n");
        return 64;
    }
    const uint32_t window = (uint32_t)strtoul(argv[2], NULL, 10);
    struct weir_clip_bpe_files files = { .vocab = file_read(argv[1], "vocab.json"),
                                         .merges = file_read(argv[1], "merges.txt"),
                                         .special_tokens_map = file_read(argv[1], "special_tokens_map.json"),
                                         .tokenizer_config = file_read(argv[1], "tokenizer_config.json"),
                                         .tokenizer_json = file_read(argv[1], "tokenizer.json"),
                                         .label = argv[1] };
    const enum weir_status opened = weir_clip_bpe_open(&files, &tokenizer, &error);
    free((char *)files.vocab.bytes);
    free((char *)files.merges.bytes);
    free((char *)files.special_tokens_map.bytes);
    free((char *)files.tokenizer_config.bytes);
    free((char *)files.tokenizer_json.bytes);
    if (opened != WEIR_OK || window < 2 || window > WEIR_CLIP_BPE_WINDOW_MAX) {
        fprintf(stderr, "%s: %s\n", weir_status_name(opened), error.words);
        weir_clip_bpe_close(&tokenizer);
        return 1;
    }
    int32_t *ids = malloc(window * sizeof *ids);
    uint32_t count;
    while (ids && fread(&count, sizeof count, 1, stdin) == 1) {
        struct weir_clip_bpe_counts counts;
        char *text = malloc((size_t)count + 1);
        if (!text || fread(text, 1, count, stdin) != count) return 2;
        const enum weir_status status = weir_clip_bpe_encode(tokenizer, text, count, window, ids, &counts, &error);
        free(text);
        const uint32_t head[2] = { status == WEIR_OK ? counts.real : 0, status == WEIR_OK ? counts.whole : status };
        put(head, sizeof *head, 2);
        if (status == WEIR_OK) put(ids, sizeof *ids, window);
    }
    free(ids);
    weir_clip_bpe_close(&tokenizer);
    return 0;
}
