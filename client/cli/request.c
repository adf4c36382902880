#include "client/cli/request.h"

#include "client/cli/prompts.h"

#include <ctype.h>
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void weir_cli_request_rows(struct weir_option rows[WEIR_CLI_REQUEST_ROWS], size_t offset)
{
#define AT(field) offset + offsetof(struct weir_cli_request, field)
    const struct weir_option own[WEIR_CLI_REQUEST_ROWS] = {
        { "model", 'm', WEIR_OPTION_TEXT, AT(model), 0, 4096, "DIR|NAME",
          "a diffusers model folder, or the name of one that `weir models` lists (default: shapes-modelscope)" },
        { "frames", 0, WEIR_OPTION_INT, AT(frames), 1, 100000, "N",
          "frames of the film; 1 makes an image where the format can be one (default: the model's)" },
        { "size", 0, WEIR_OPTION_TEXT, AT(size), 0, 32, "WxH", "pixels, e.g. 128x128 (default: the model's)" },
        { "steps", 0, WEIR_OPTION_INT, AT(steps), 1, 1000, "N", "denoising steps (default: the model's)" },
        { "guidance", 0, WEIR_OPTION_REAL, AT(guidance), 0, 100, "G",
          "guidance scale; up to 1 is none (default: the model's)" },
        { "seed", 0, WEIR_OPTION_INT, AT(seed), 0, 9223372036854774784.0, "S",
          "same seed, same bytes (default: a random one, which is printed)" },
        { "negative", 0, WEIR_OPTION_TEXT, AT(negative), 0, 10240, "TEXT", "what not to show" },
        { "n", 'n', WEIR_OPTION_INT, AT(n), 1, 4096, "N",
          "films or images a prompt, with seeds S, S+1, ... (default: 1)" },
        { "fps", 0, WEIR_OPTION_INT, AT(fps), 1, 240, "N", "frames a second of the film (default: the model's)" },
        { "sampler", 0, WEIR_OPTION_CHOICE, AT(sampler), 0, 0, "ddim|dpm++", "solver (default: the model's)" },
        { "noise", 0, WEIR_OPTION_CHOICE, AT(noise), 0, 0, "f32|f16",
          "type in which the initial noise is drawn, as diffusers would (default: f32)" },
        { "format", 0, WEIR_OPTION_CHOICE, AT(format), 0, 0, "mp4|webm|gif|png|jpeg|webp",
          "jpeg, webp: an image of one frame; png: an image of one frame, a folder of more (default: from -o's ending, "
          "else mp4, or png where the model makes images)" },
        { "codec", 0, WEIR_OPTION_CHOICE, AT(codec), 0, 0, "h264|av1|vp9",
          "video codec (default: h264 where the encoder has it; vp9 for webm)" },
        { "precision", 0, WEIR_OPTION_CHOICE, AT(precision), 0, 0, "f32|bf16",
          "what the networks compute in; bf16 is faster on cuda and on processors with AMX or AVX512-BF16 (default: "
          "f32; of a cluster: what its workers compute in)" },
        { "prompts", 0, WEIR_OPTION_TEXT, AT(prompts), 1, 4000, "FILE",
          "many prompts: .txt, one a line; .jsonl, an object a line; .csv with a header row; keys and columns: prompt, "
          "negative, seed, width, height, size, steps, guidance, loras" },
        { "lora", 0, WEIR_OPTION_TEXTS, AT(loras), 1, WEIR_CLI_PATH_BYTES - 1, "FILE[:W]",
          "a low-rank adapter, a .safetensors of at most 4 GiB, with weight W (default: 1); up to 8 times" },
        { "control", 0, WEIR_OPTION_TEXT, AT(control), 1, WEIR_CLI_PATH_BYTES - 1, "FILE[:SCALE]",
          "a picture of at most 64 MiB that the model's ControlNet looks at, 0 to 10 strongly (default: the model's)" },
        { "image", 0, WEIR_OPTION_TEXT, AT(image), 1, WEIR_CLI_PATH_BYTES - 1, "FILE",
          "a picture of at most 64 MiB to begin from" },
        { "strength", 0, WEIR_OPTION_REAL, AT(strength), 0.001, 1, "S",
          "how far --image may be left, 0.001 to 1 (default: the model's)" },
    };
#undef AT
    memcpy(rows, own, sizeof own);
}

static enum weir_status take_apart(const char *name, const char *text, double min, double max, char *path,
                                   double *number, struct weir_error *error)
{
    const size_t bytes = weir_cli_split_number(text, number);
    if (bytes < strlen(text) && !(*number >= min && *number <= max)) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--%s %s: a number from %g to %g is wanted behind the colon", name,
                         text, min, max);
    }
    if (bytes < 1 || bytes >= WEIR_CLI_PATH_BYTES) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--%s: a file's name of 1 to %d bytes is wanted", name,
                         WEIR_CLI_PATH_BYTES - 1);
    }
    snprintf(path, WEIR_CLI_PATH_BYTES, "%.*s", (int)bytes, text);
    return WEIR_OK;
}

enum weir_status weir_cli_request_files(struct weir_cli_request *request, struct weir_error *error)
{
    struct weir_cli_files *files = &request->files;
    enum weir_status status = WEIR_OK;
    for (size_t i = 0; i < request->loras.count && status == WEIR_OK; i++) {
        files->loras[i] = (struct weir_lora){ .path = files->paths[i], .weight = 1 };
        status =
            take_apart("lora", request->loras.texts[i], -100, 100, files->paths[i], &files->loras[i].weight, error);
    }
    files->lora_count = request->loras.count;
    files->control_scale = -1;
    if (status == WEIR_OK && request->control) {
        status = take_apart("control", request->control, 0, 10, files->control, &files->control_scale, error);
    }
    if (status == WEIR_OK && request->strength >= 0 && !request->image) {
        status =
            weir_fail(error, WEIR_BAD_ARGUMENT, "--strength %g: there is no --image to begin from", request->strength);
    }
    return status;
}

static bool ends_with(const char *text, const char *ending)
{
    const size_t length = strlen(text), wanted = strlen(ending);
    return length >= wanted && strcmp(text + length - wanted, ending) == 0;
}

static const char *format_of_path(const char *path)
{
    static const char *const endings[][2] = { { ".mp4", "mp4" },   { ".webm", "webm" }, { ".gif", "gif" },
                                              { ".png", "png" },   { "/", "png" },      { ".jpg", "jpeg" },
                                              { ".jpeg", "jpeg" }, { ".webp", "webp" } };
    for (size_t i = 0; i < WEIR_COUNT(endings); i++) {
        if (ends_with(path, endings[i][0])) return endings[i][1];
    }
    return NULL;
}

static enum weir_status read_size(const char *text, uint32_t *width, uint32_t *height, struct weir_error *error)
{
    if (weir_cli_size_read(text, width, height)) return WEIR_OK;
    return weir_fail(error, WEIR_BAD_ARGUMENT, "--size %s: WIDTHxHEIGHT is wanted, each from 1 to 65536", text);
}

enum weir_status weir_cli_request_read(const struct weir_cli_request *from, const char *prompt,
                                       struct weir_request *out, struct weir_error *error)
{
    *out = (struct weir_request){ .prompt = prompt,
                                  .negative = from->negative,
                                  .frames = (uint32_t)from->frames,
                                  .fps = (uint32_t)from->fps,
                                  .steps = (uint32_t)from->steps,
                                  .guidance = from->guidance,
                                  .seed_given = from->seed >= 0,
                                  .seed = (uint64_t)from->seed,
                                  .n = (uint32_t)from->n,
                                  .sampler = from->sampler,
                                  .noise = from->noise,
                                  .format = from->format,
                                  .codec = from->codec,
                                  .precision = from->precision,
                                  .loras = from->files.loras,
                                  .lora_count = from->files.lora_count,
                                  .control = from->control ? from->files.control : NULL,
                                  .control_scale = from->control ? from->files.control_scale : -1,
                                  .start_image = from->image,
                                  .strength = from->strength };
    if (prompt && strlen(prompt) > 10240) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "a prompt of %zu bytes, at most 10240 are allowed", strlen(prompt));
    }
    const char *of_path = from->output ? format_of_path(from->output) : NULL;
    if (of_path && from->format && strcmp(of_path, from->format) != 0) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--format %s contradicts -o %s", from->format, from->output);
    }
    if (from->output && !of_path && !from->format) {
        return weir_fail(
            error, WEIR_BAD_ARGUMENT,
            "-o %s: an ending .mp4, .webm, .gif, .png, .jpg, .webp or / (a folder of PNGs) is wanted, or --format",
            from->output);
    }
    if (!out->format) out->format = of_path;
    out->folder = from->output && ends_with(from->output, "/");
    return from->size ? read_size(from->size, &out->width, &out->height, error) : WEIR_OK;
}

/* The first words of the prompt as a file name: lower-case ASCII letters and digits, joined by '-'. */
static void slug(const char *prompt, char out[49])
{
    size_t used = 0;
    bool gap = false;
    for (const char *c = prompt; *c && used < 47; c++) {
        if (!isalnum((unsigned char)*c) || (unsigned char)*c >= 0x80) {
            gap = used > 0;
            continue;
        }
        if (gap) out[used++] = '-';
        gap = false;
        out[used++] = (char)tolower((unsigned char)*c);
    }
    out[used] = '\0';
    if (!used) strcpy(out, "weir");
}

const char *weir_cli_ending(const struct weir_report *report)
{
    if (strcmp(report->format, "png") == 0 && !report->image) return "";
    return strcmp(report->format, "jpeg") == 0 ? "jpg" : report->format;
}

static enum weir_status free_name(const char *folder, const struct weir_report *report, uint32_t item, char *out,
                                  struct weir_error *error)
{
    char words[49];
    slug(report->prompt, words);
    const char *ending = weir_cli_ending(report);
    for (int attempt = 1; attempt < 10000; attempt++) {
        char again[16] = "";
        if (attempt > 1) snprintf(again, sizeof again, "-%d", attempt);
        snprintf(out, PATH_MAX, "%.*s/%s-%llu%s%s%.8s", PATH_MAX - 128, folder, words,
                 (unsigned long long)(report->seed + item), again, ending[0] ? "." : "", ending);
        if (access(out, F_OK) != 0) return WEIR_OK;
    }
    return weir_fail(error, WEIR_CONFLICT, "%s: the name and 9999 like it are taken; -o gives another", out);
}

enum weir_status weir_cli_output_path(const char *output, const struct weir_report *report, size_t prompt_index,
                                      size_t prompt_count, uint32_t item, char *out, struct weir_error *error)
{
    char folder[PATH_MAX - 128];
    if (!output) {
        if (getcwd(folder, sizeof folder)) return free_name(folder, report, item, out, error);
        return weir_fail(error, WEIR_IO, "the current directory: %s", strerror(errno));
    }
    size_t length = strlen(output);
    const bool into_folder = report->image && ends_with(output, "/");
    while (length > 1 && output[length - 1] == '/') length--;
    if (into_folder) {
        if (length >= sizeof folder)
            return weir_fail(error, WEIR_BAD_ARGUMENT, "-o: a path of %zu bytes is too long", length);
        snprintf(folder, sizeof folder, "%.*s", (int)length, output);
        if (mkdir(folder, 0777) == 0 || errno == EEXIST) return free_name(folder, report, item, out, error);
        return weir_fail(error, WEIR_IO, "-o %s: %s", output, strerror(errno));
    }
    const char *ending = memrchr(output, '.', length), *slash = memrchr(output, '/', length);
    if (!ending || (slash && ending < slash)) ending = output + length;
    int used;
    if (prompt_count == 1 && report->n == 1) {
        used = snprintf(out, PATH_MAX, "%.*s", (int)length, output);
    } else {
        used = snprintf(out, PATH_MAX, "%.*s-%03zu-%03u%.*s", (int)(ending - output), output, prompt_index, item,
                        (int)(output + length - ending), ending);
    }
    return used < PATH_MAX ? WEIR_OK : weir_fail(error, WEIR_BAD_ARGUMENT, "-o: a path of %d bytes is too long", used);
}

enum weir_status weir_cli_output_check(const char *output, struct weir_error *error)
{
    if (!output) {
        if (access(".", W_OK) == 0) return WEIR_OK;
        return weir_fail(error, WEIR_BAD_ARGUMENT, "the current directory is not writable (%s); -o gives another place",
                         strerror(errno));
    }
    char copy[PATH_MAX];
    if (!output[0] || strlen(output) >= sizeof copy) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "-o: a path of 1 to %d bytes is wanted", PATH_MAX - 1);
    }
    snprintf(copy, sizeof copy, "%s", output);
    const char *folder = dirname(copy);
    struct stat facts;
    if (stat(folder, &facts) != 0)
        return weir_fail(error, WEIR_BAD_ARGUMENT, "-o %s: %s: %s", output, folder, strerror(errno));
    if (!S_ISDIR(facts.st_mode))
        return weir_fail(error, WEIR_BAD_ARGUMENT, "-o %s: %s is not a directory", output, folder);
    if (access(folder, W_OK) != 0)
        return weir_fail(error, WEIR_BAD_ARGUMENT, "-o %s: %s: %s", output, folder, strerror(errno));
    if (format_of_path(output) && strcmp(format_of_path(output), "png") != 0 && stat(output, &facts) == 0 &&
        S_ISDIR(facts.st_mode)) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "-o %s: a directory of that name is there", output);
    }
    return WEIR_OK;
}
