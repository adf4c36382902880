/* request: the options that describe a film or image, shared by run and submit. */
#ifndef WEIR_CLIENT_CLI_REQUEST_H
#define WEIR_CLIENT_CLI_REQUEST_H

#include "client/weir.h"
#include "proto/base/options.h"

#define WEIR_CLI_PATH_BYTES 4001

/* --lora and --control, taken apart. */
struct weir_cli_files {
    struct weir_lora loras[WEIR_OPTION_TEXTS_MAX];
    size_t lora_count;
    char paths[WEIR_OPTION_TEXTS_MAX][WEIR_CLI_PATH_BYTES], control[WEIR_CLI_PATH_BYTES];
    double control_scale;
};

/* As the options parser fills it. Numbers are 0 and texts NULL when absent. */
struct weir_cli_request {
    const char *model, *negative, *size, *sampler, *noise, *format, *codec, *output, *precision, *control, *image,
        *prompts;
    int64_t frames, steps, seed, n, fps;
    double guidance, strength;
    struct weir_option_texts loras;
    struct weir_cli_files files;
};
#define WEIR_CLI_REQUEST_INIT                                                                                          \
    {                                                                                                                  \
        .guidance = -1.0, .seed = -1, .strength = -1.0                                                                 \
    }

/* The rows for a struct that holds a weir_cli_request at `offset`. A command puts them first into its own table. */
#define WEIR_CLI_REQUEST_ROWS 19
void weir_cli_request_rows(struct weir_option rows[WEIR_CLI_REQUEST_ROWS], size_t offset);

/* Fills `files` from what was parsed; once, before any read. What they name lives as long as the request.
 * BAD_ARGUMENT for a weight, scale or strength that cannot be. */
enum weir_status weir_cli_request_files(struct weir_cli_request *request, struct weir_error *error);

/* prompt NULL: a list of prompts is put there by the caller. BAD_ARGUMENT for a --size that is no WxH, or a --format that
 * contradicts -o. The format comes from --format, else from -o's ending (.mp4 .webm .gif; .jpg .jpeg .webp: an image; .png:
 * an image when there is one frame, else a folder; a final '/': a folder of PNGs), else it is absent. */
enum weir_status weir_cli_request_read(const struct weir_cli_request *from, const char *prompt,
                                       struct weir_request *out, struct weir_error *error);

/* What the name of a result ends in, behind a dot: "mp4", "jpg"; "" of a folder. */
const char *weir_cli_ending(const struct weir_report *report);

/* Where item `item` of prompt `prompt_index` goes: -o itself when only one film is made, else with -PPP-III before its
 * ending. Without -o, in the current directory, and for a picture in a -o that ends in '/', a folder that is made here: a
 * name of the prompt's words and the seed that is not taken yet. `out` holds PATH_MAX bytes. */
enum weir_status weir_cli_output_path(const char *output, const struct weir_report *report, size_t prompt_index,
                                      size_t prompt_count, uint32_t item, char *out, struct weir_error *error);

/* BAD_ARGUMENT when -o's directory does not exist or is not writable: said before any work is done. */
enum weir_status weir_cli_output_check(const char *output, struct weir_error *error);

#endif
