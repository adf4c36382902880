/* JSON of model folders: the first byte says which file the rest is (m: model_index.json, i: a weights index,
 * w: weir.json, anything else: a config), so that one corpus feeds all four readers. A getter that says
 * OK must have kept its bounds; one that does not must have said why. */
#include "worker/json_text.h"
#include "worker/model_index.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

#define LIST_MAX 4

static void expect(bool kept)
{
    if (!kept) abort();
}

static void said_why(enum weir_status status, const struct weir_error *error, const char *key)
{
    expect(status == error->code && strncmp(error->words, "fuzz: ", 6) == 0);
    if (status == WEIR_BAD_MODEL && strlen(key) < 64 && !strpbrk(key, "\x7f\t\n\r")) {
        for (const char *c = key; *c; c++) {
            if ((unsigned char)*c < 0x20) return;
        }
        expect(strstr(error->words, key) != NULL);
    }
}

static void ask_numbers(const struct weir_config *config, const char *key)
{
    struct weir_error error;
    int64_t integer = 5, integers[LIST_MAX];
    double real = 0.5, reals[LIST_MAX];
    size_t count = 0;
    enum weir_status status = weir_config_int(config, key, WEIR_CONFIG_REQUIRED_INT, 1, 10, &integer, &error);
    if (status != WEIR_OK) said_why(status, &error, key);
    expect(integer >= 1 && integer <= 10);
    status = weir_config_int(config, key, 3, 0, INT64_MAX, &integer, &error);
    expect(integer >= 0);
    status = weir_config_int(config, key, 3, 7, 7, &integer, &error);
    status = weir_config_real(config, key, WEIR_CONFIG_REQUIRED_REAL, -1, 1, &real, &error);
    if (status != WEIR_OK) said_why(status, &error, key);
    expect(real >= -1 && real <= 1);
    status = weir_config_int_list(config, key, (int64_t[]){ 1, 2 }, 2, 1, 9, LIST_MAX, integers, &count, &error);
    if (status != WEIR_OK) said_why(status, &error, key);
    for (size_t i = 0; status == WEIR_OK && i < count; i++) expect(integers[i] >= 1 && integers[i] <= 9);
    status = weir_config_int_spread(config, key, 2, 1, 9, 3, integers, &error);
    if (status != WEIR_OK) said_why(status, &error, key);
    count = 0;
    status = weir_config_int_lists(config, key, 1, 9, 1, LIST_MAX, integers, &count, &error);
    if (status != WEIR_OK) said_why(status, &error, key);
    for (size_t i = 0; status == WEIR_OK && i < count; i++) expect(integers[i] >= 1 && integers[i] <= 9);
    status = weir_config_real_list(config, key, (double[]){ 1 }, 1, -INFINITY, 9, LIST_MAX, reals, &count, &error);
    if (status != WEIR_OK) said_why(status, &error, key);
    for (size_t i = 0; status == WEIR_OK && i < count; i++) expect(reals[i] <= 9);
}

static void ask_words(const struct weir_config *config, const char *key)
{
    static const char *const choices[] = { "silu", "gelu", NULL };
    struct weir_error error;
    const char *text = NULL, *texts[LIST_MAX];
    bool flag = false;
    size_t choice = 0, count = 0;
    enum weir_status status = weir_config_text(config, key, NULL, &text, &error);
    if (status != WEIR_OK) said_why(status, &error, key);
    expect((status == WEIR_OK) == (text != NULL));
    status = weir_config_bool(config, key, true, &flag, &error);
    if (status != WEIR_OK) said_why(status, &error, key);
    status = weir_config_bool_required(config, key, &flag, &error);
    if (status != WEIR_OK) said_why(status, &error, key);
    status = weir_config_choice(config, key, NULL, choices, &choice, &error);
    if (status != WEIR_OK) said_why(status, &error, key);
    expect(choice < 2);
    status = weir_config_choice(config, key, "gelu", choices, &choice, &error);
    expect(choice < 2);
    status = weir_config_text_list(config, key, (const char *const[]){ "a" }, 1, LIST_MAX, texts, &count, &error);
    if (status != WEIR_OK) said_why(status, &error, key);
    for (size_t i = 0; status == WEIR_OK && i < count; i++) expect(strlen(texts[i]) < (size_t)1 << 20);
    status = weir_config_text_spread(config, key, "a", LIST_MAX, texts, &error);
    if (status != WEIR_OK) said_why(status, &error, key);
    for (size_t i = 0; status == WEIR_OK && i < LIST_MAX; i++) expect(strlen(texts[i]) < (size_t)1 << 20);
    status = weir_config_refuse(config, key, "another", &error);
    expect(status == WEIR_UNSUPPORTED);
}

static enum weir_status read_config(const char *text, size_t count, struct weir_error *error)
{
    struct weir_config *config = NULL;
    const char *key;
    json_t *value;
    const enum weir_status status = weir_config_parse(text, count, "fuzz", &config, error);
    if (status != WEIR_OK) return status;
    size_t asked = 0;
    json_object_foreach(weir_config_root(config), key, value)
    {
        char shown[24];
        weir_json_show(value, shown, sizeof shown);
        expect(strlen(shown) < sizeof shown);
        ask_numbers(config, key);
        ask_words(config, key);
        if (++asked == 16) break;
    }
    ask_numbers(config, "absent");
    ask_words(config, "absent");
    expect(strcmp(weir_config_label(config), "fuzz") == 0);
    weir_config_close(&config);
    return WEIR_OK;
}

static enum weir_status read_model_index(const char *text, size_t count, struct weir_error *error)
{
    struct weir_model_index index;
    const enum weir_status status = weir_model_index_init(&index, text, count, "fuzz", error);
    if (status == WEIR_OK) expect(index.class_name && index.component_count <= WEIR_COMPONENTS_MAX);
    for (size_t i = 0; i < index.component_count; i++) {
        expect(index.components[i].name[0] && !strpbrk(index.components[i].name, "/.\\"));
    }
    weir_model_index_deinit(&index);
    return status;
}

static bool check_file(void *context, const char *tensor, const char *file)
{
    const struct weir_weights_index *index = context;
    expect(file[0] != '.' && !strpbrk(file, "/\\") && weir_weights_index_file(index, tensor) == file);
    return file[0] != 'z';
}

static enum weir_status read_weights_index(const char *text, size_t count, struct weir_error *error)
{
    struct weir_weights_index index;
    const enum weir_status status = weir_weights_index_init(&index, text, count, "fuzz", error);
    if (status == WEIR_OK) weir_weights_index_each(&index, check_file, &index);
    for (size_t i = 1; i < index.file_count; i++) expect(strcmp(index.files[i - 1], index.files[i]) < 0);
    weir_weights_index_deinit(&index);
    return status;
}

static enum weir_status read_defaults(const char *text, size_t count, struct weir_error *error)
{
    struct weir_defaults defaults;
    const enum weir_status status = weir_defaults_init(&defaults, text, count, "fuzz", error);
    if (status == WEIR_OK) {
        expect(defaults.steps >= 0 && defaults.steps <= 1000 && defaults.width <= 16384 && defaults.fps <= 240);
        expect(isnan(defaults.guidance) || (defaults.guidance >= 0 && defaults.guidance <= 100));
    }
    weir_defaults_deinit(&defaults);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    if (count < 1) return 0;
    struct weir_error error = { .code = WEIR_OK };
    const char *text = (const char *)bytes + 1;
    enum weir_status status = WEIR_OK;
    char key[8];
    weir_json_key_at(text, count - 1, bytes[0], key, sizeof key);
    expect(strlen(key) < sizeof key);
    switch (bytes[0]) {
    case 'm':
        status = read_model_index(text, count - 1, &error);
        break;
    case 'i':
        status = read_weights_index(text, count - 1, &error);
        break;
    case 'w':
        status = read_defaults(text, count - 1, &error);
        break;
    default:
        status = read_config(text, count - 1, &error);
        break;
    }
    if (status != WEIR_OK) expect(error.code == status && strncmp(error.words, "fuzz: ", 6) == 0);
    return 0;
}
