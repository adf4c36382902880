/* tokenizer_tool: what the tokenizers make of texts, for tests/golden/live_tokenizer.py to set beside upstream.
 *
 *   tokenizer_tool FOLDER WINDOW < records                    CLIP's
 *   tokenizer_tool --gemma FOLDER WINDOW < records            Gemma's
 *   tokenizer_tool --prompt FOLDER INSTRUCTION < records      Gemma's, as Sana's pipelines have it; "" is the
 *   tokenizer_tool --negative FOLDER INSTRUCTION < records    instruction of the vocabulary
 *   tokenizer_tool --time FOLDER TEXT                         Gemma's: time to open, to encode TEXT; memory at most
 *
 * A record is a u32 length and as many bytes of text. For each, u32 real, u32 whole and WINDOW i32 ids are printed, or
 * u32 0 and the u32 number of the status; of a prompt, u32 count, whole, first, kept and count ids. */
#include "proto/base/bytes.h"
#include "worker/tokenizers/clip_bpe.h"
#include "worker/tokenizers/gemma_prompt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define USAGE                                                                                                          \
    "usage: tokenizer_tool [--gemma | --prompt | --negative | --time] FOLDER WINDOW|INSTRUCTION|TEXT < records\n"

enum mode { MODE_CLIP, MODE_GEMMA, MODE_PROMPT, MODE_NEGATIVE, MODE_TIME };
static const char *const modes[] = { "", "--gemma", "--prompt", "--negative", "--time" };

struct tool {
    enum mode mode;
    struct weir_clip_bpe *clip;
    struct weir_gemma_bpe *gemma;
    struct weir_gemma_prompt *prompt;
    uint32_t window;
    int32_t *ids;
};

static char *file_read(const char *folder, const char *name, size_t *count)
{
    char path[4096];
    char *bytes = NULL;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (weir_file_read(path, WEIR_CLIP_BPE_FILE_BYTES_MAX, &bytes, count, NULL) != WEIR_OK) bytes = NULL;
    return bytes;
}

static struct weir_clip_bpe_bytes clip_file(const char *folder, const char *name)
{
    size_t count = 0;
    char *bytes = file_read(folder, name, &count);
    return (struct weir_clip_bpe_bytes){ bytes, count };
}

static struct weir_gemma_bpe_bytes gemma_file(const char *folder, const char *name)
{
    size_t count = 0;
    char *bytes = file_read(folder, name, &count);
    return (struct weir_gemma_bpe_bytes){ bytes, count };
}

static enum weir_status clip_open(struct tool *tool, const char *folder, struct weir_error *error)
{
    const struct weir_clip_bpe_files files = { .vocab = clip_file(folder, "vocab.json"),
                                               .merges = clip_file(folder, "merges.txt"),
                                               .special_tokens_map = clip_file(folder, "special_tokens_map.json"),
                                               .tokenizer_config = clip_file(folder, "tokenizer_config.json"),
                                               .tokenizer_json = clip_file(folder, "tokenizer.json"),
                                               .label = folder };
    const enum weir_status status = weir_clip_bpe_open(&files, &tool->clip, error);
    free((char *)files.vocab.bytes);
    free((char *)files.merges.bytes);
    free((char *)files.special_tokens_map.bytes);
    free((char *)files.tokenizer_config.bytes);
    free((char *)files.tokenizer_json.bytes);
    return status;
}

static enum weir_status gemma_open(struct tool *tool, const char *folder, struct weir_error *error)
{
    const struct weir_gemma_bpe_files files = { .tokenizer_json = gemma_file(folder, "tokenizer.json"),
                                                .tokenizer_config = gemma_file(folder, "tokenizer_config.json"),
                                                .special_tokens_map = gemma_file(folder, "special_tokens_map.json"),
                                                .label = folder };
    const enum weir_status status = weir_gemma_bpe_open(&files, &tool->gemma, error);
    free((char *)files.tokenizer_json.bytes);
    free((char *)files.tokenizer_config.bytes);
    free((char *)files.special_tokens_map.bytes);
    return status;
}

static void put(const void *bytes, size_t size, size_t count)
{
    if (fwrite(bytes, size, count, stdout) != count) exit(2);
}

static void put_prompt(const struct tool *tool, const char *text, size_t bytes)
{
    static struct weir_gemma_prompt_ids ids;
    const enum weir_status status =
        weir_gemma_prompt_encode(tool->prompt, text, bytes, tool->mode == MODE_PROMPT, &ids, NULL);
    const uint32_t head[4] = { status == WEIR_OK ? ids.count : 0, status == WEIR_OK ? ids.whole : status, ids.first,
                               ids.kept };
    put(head, sizeof *head, 4);
    if (status == WEIR_OK) put(ids.ids, sizeof *ids.ids, ids.count);
}

static void put_text(const struct tool *tool, const char *text, size_t bytes)
{
    uint32_t head[2] = { 0, 0 };
    enum weir_status status;
    if (tool->clip) {
        struct weir_clip_bpe_counts counts;
        status = weir_clip_bpe_encode(tool->clip, text, bytes, tool->window, tool->ids, &counts, NULL);
        if (status == WEIR_OK) memcpy(head, &(uint32_t[]){ counts.real, counts.whole }, sizeof head);
    } else {
        struct weir_gemma_bpe_counts counts;
        status = weir_gemma_bpe_encode(tool->gemma, text, bytes, tool->window, tool->ids, &counts, NULL);
        if (status == WEIR_OK) memcpy(head, &(uint32_t[]){ counts.real, counts.whole }, sizeof head);
    }
    if (status != WEIR_OK) head[1] = status;
    put(head, sizeof *head, 2);
    if (status == WEIR_OK) put(tool->ids, sizeof *tool->ids, tool->window);
}

static int answer(const struct tool *tool)
{
    uint32_t count;
    while (fread(&count, sizeof count, 1, stdin) == 1) {
        char *text = malloc((size_t)count + 1);
        if (!text || fread(text, 1, count, stdin) != count) return 2;
        if (tool->prompt)
            put_prompt(tool, text, count);
        else
            put_text(tool, text, count);
        free(text);
    }
    return 0;
}

static double now_s(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* The most memory this program had: VmHWM, since what getrusage says may be of the one that started it. */
static long memory_mib(void)
{
    char line[256];
    long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "VmHWM: %ld", &kib) == 1) break;
    }
    if (file) fclose(file);
    return kib / 1024;
}

static int show_times(struct tool *tool, const char *text, double open_s, double open_cpu_s)
{
    struct weir_gemma_bpe_counts counts = { 0, 0 };
    double best_s = 1e9;
    for (int run = 0; run < 20; run++) {
        const double start_s = now_s(CLOCK_THREAD_CPUTIME_ID);
        if (weir_gemma_bpe_encode(tool->gemma, text, strlen(text), tool->window, tool->ids, &counts, NULL) != WEIR_OK)
            return 1;
        const double taken_s = now_s(CLOCK_THREAD_CPUTIME_ID) - start_s;
        if (taken_s < best_s) best_s = taken_s;
    }
    printf("open %.3f s (%.3f s of CPU), %zu bytes to %u ids in %.3f ms, %ld MiB at most\n", open_s, open_cpu_s,
           strlen(text), counts.whole, best_s * 1e3, memory_mib());
    return 0;
}

int main(int argc, char **argv)
{
    struct tool tool = { .mode = MODE_CLIP };
    struct weir_error error = { 0 };
    for (size_t i = 1; argc == 4 && i < WEIR_COUNT(modes); i++) {
        if (strcmp(argv[1], modes[i]) == 0) tool.mode = (enum mode)i;
    }
    if (argc != (tool.mode == MODE_CLIP ? 3 : 4)) {
        fputs(USAGE, stderr);
        return 64;
    }
    const char *folder = argv[argc - 2], *last = argv[argc - 1];
    const bool takes_window = tool.mode == MODE_CLIP || tool.mode == MODE_GEMMA;
    const double start_s = now_s(CLOCK_MONOTONIC), start_cpu_s = now_s(CLOCK_THREAD_CPUTIME_ID);
    enum weir_status status =
        tool.mode == MODE_CLIP ? clip_open(&tool, folder, &error) : gemma_open(&tool, folder, &error);
    const double open_s = now_s(CLOCK_MONOTONIC) - start_s;
    const double open_cpu_s = now_s(CLOCK_THREAD_CPUTIME_ID) - start_cpu_s;
    if (status == WEIR_OK && (tool.mode == MODE_PROMPT || tool.mode == MODE_NEGATIVE))
        status = weir_gemma_prompt_open(tool.gemma, *last ? last : NULL, &tool.prompt, &error);
    tool.window = takes_window ? (uint32_t)strtoul(last, NULL, 10) : WEIR_GEMMA_BPE_WINDOW_MAX;
    const uint32_t window_min = tool.gemma ? WEIR_GEMMA_BPE_WINDOW_MIN : 2;
    tool.ids = malloc(WEIR_GEMMA_BPE_WINDOW_MAX * sizeof *tool.ids);
    int code = 1;
    if (status != WEIR_OK || !tool.ids || tool.window < window_min || tool.window > WEIR_GEMMA_BPE_WINDOW_MAX)
        fprintf(stderr, "%s: %s\n", weir_status_name(status), error.words);
    else
        code = tool.mode == MODE_TIME ? show_times(&tool, last, open_s, open_cpu_s) : answer(&tool);
    free(tool.ids);
    weir_gemma_prompt_close(&tool.prompt);
    weir_gemma_bpe_close(&tool.gemma);
    weir_clip_bpe_close(&tool.clip);
    return code;
}
