#include "worker/nets/lora.h"

#include "worker/json_text.h"
#include "worker/safetensors.h"
#include "worker/weights.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN 160 /* bytes of a tensor's name in words */

enum half { HALF_A, HALF_B, HALVES, ALPHA = HALVES };

/* A module of the file. */
struct module {
    uint32_t part; /* of the network */
    uint32_t rank;
    float scale; /* alpha / rank */
    size_t at[HALVES];
    const struct weir_weight *tensors[HALVES + 1]; /* of the file; while it is read */
};

struct weir_lora {
    struct module *modules; /* in rising order of parts */
    uint32_t count;
    float *values;
    uint64_t value_count;
};

void weir_lora_destroy(struct weir_lora **lora_p)
{
    struct weir_lora *lora = *lora_p;
    if (!lora) return;
    free(lora->modules);
    free(lora->values);
    free(lora);
    *lora_p = NULL;
}

uint64_t weir_lora_bytes(const struct weir_lora *lora)
{
    return sizeof *lora + lora->count * sizeof *lora->modules + lora->value_count * sizeof(float);
}

static const struct module *find_module(const struct weir_lora *lora, uint32_t part)
{
    uint32_t low = 0, high = lora->count;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (lora->modules[middle].part == part) return &lora->modules[middle];
        if (lora->modules[middle].part < part)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

float weir_lora_scale(const struct weir_lora *lora, uint32_t part)
{
    const struct module *module = find_module(lora, part);
    return module ? module->scale : 0;
}

/* ---- names ---- */

static bool drop_prefix(const char **name, const char *prefix)
{
    if (strncmp(*name, prefix, strlen(prefix)) != 0) return false;
    *name += strlen(prefix);
    return true;
}

static bool drop_suffix(char *name, const char *suffix)
{
    const size_t length = strlen(name), end = strlen(suffix);
    if (length < end || strcmp(name + length - end, suffix) != 0) return false;
    name[length - end] = '\0';
    return true;
}

/* attn1.processor.to_q_lora -> attn1.to_q; the output was a list's first already then. */
static bool from_processor(char *module)
{
    static const char between[] = ".processor.";
    char *at = strstr(module, between);
    if (!at || !drop_suffix(module, "_lora")) return false;
    memmove(at + 1, at + sizeof between - 1, strlen(at + sizeof between - 1) + 1);
    if (strcmp(at + 1, "to_out") == 0) strcpy(at + 1, "to_out.0"); /* shorter than what was taken away */
    return true;
}

/* Which module's which half a tensor is; false for names of no known kind. `module` has the name's room. */
static bool split_name(const char *name, char *module, enum half *half)
{
    static const struct {
        const char *suffix;
        enum half half;
    } styles[] = { { ".lora_A.weight", HALF_A },
                   { ".lora_B.weight", HALF_B },
                   { ".lora.down.weight", HALF_A },
                   { ".lora.up.weight", HALF_B },
                   { ".lora_linear_layer.down.weight", HALF_A },
                   { ".lora_linear_layer.up.weight", HALF_B },
                   { ".alpha", ALPHA } };
    drop_prefix(&name, "base_model.model.");
    if (!drop_prefix(&name, "transformer.")) drop_prefix(&name, "unet.");
    drop_prefix(&name, "base_model.model.");
    strcpy(module, name);
    for (size_t i = 0; i < WEIR_COUNT(styles); i++) {
        if (!drop_suffix(module, styles[i].suffix)) continue;
        *half = styles[i].half;
        return true;
    }
    if (drop_suffix(module, "_lora.down.weight"))
        *half = HALF_A;
    else if (drop_suffix(module, "_lora.up.weight"))
        *half = HALF_B;
    else
        return false;
    strcat(module, "_lora"); /* shorter than what was taken away */
    return from_processor(module);
}

static enum weir_status refuse_name(const struct weir_weight *tensor, struct weir_error *error)
{
    const char *what = "no half of a low-rank adapter that is known here";
    if (strstr(tensor->name, "text_encoder") == tensor->name) what = "of the text encoder, which takes no adapters";
    if (strstr(tensor->name, "dora_scale") || strstr(tensor->name, "lora_magnitude_vector"))
        what = "of DoRA, which this build has not";
    if (strstr(tensor->name, ".bias")) what = "a bias; adapters with biases are not taken";
    return weir_fail(error, WEIR_UNSUPPORTED, "%s: tensor %.*s is %s", tensor->file, SHOWN, tensor->name, what);
}

static enum weir_status find_part(const struct weir_weight *tensor, const struct weir_params *params,
                                  const char *module, uint32_t *part, struct weir_error *error)
{
    *part = weir_params_part_find(params, module);
    if (*part != WEIR_PARAMS_NO_PART) return WEIR_OK;
    const char *kind = weir_params_kind(params, module);
    if (kind)
        return weir_fail(error, WEIR_UNSUPPORTED, "%s: tensor %.*s adapts a %s of the network; only linears are",
                         tensor->file, SHOWN, tensor->name, kind);
    return weir_fail(error, WEIR_BAD_FILE, "%s: tensor %.*s: the network has no linear %.*s", tensor->file, SHOWN,
                     tensor->name, SHOWN, module);
}

/* ---- tensors ---- */

static const char *shape_words(const struct weir_weight *tensor, char *out, size_t room)
{
    size_t used = (size_t)snprintf(out, room, "[");
    for (size_t i = 0; i < tensor->rank && used < room; i++)
        used +=
            (size_t)snprintf(out + used, room - used, "%s%llu", i ? ", " : "", (unsigned long long)tensor->shape[i]);
    if (used < room) snprintf(out + used, room - used, "]");
    return out;
}

static bool is_matrix(const struct weir_weight *tensor)
{
    return tensor->rank == 2 || (tensor->rank == 4 && tensor->shape[2] == 1 && tensor->shape[3] == 1);
}

/* That both halves are there, fit each other and the linear; takes the rank from them. */
static enum weir_status check_halves(const struct weir_params *params, struct module *module, struct weir_error *error)
{
    const struct weir_params_part part = weir_params_part_at(params, module->part);
    const struct weir_weight *a = module->tensors[HALF_A], *b = module->tensors[HALF_B];
    char has[96];
    if (!a || !b) {
        const struct weir_weight *other = a ? a : b ? b : module->tensors[ALPHA];
        return weir_fail(error, WEIR_BAD_FILE, "%s: tensor %.*s: %s is missing", other->file, SHOWN, other->name,
                         a ? "its other half, lora_B," : "the half lora_A of its module");
    }
    if (!is_matrix(a) || a->shape[1] != part.in || a->shape[0] == 0)
        return weir_fail(error, WEIR_BAD_FILE, "%s: tensor %.*s is %s; the linear of %u inputs wants [rank, %u]",
                         a->file, SHOWN, a->name, shape_words(a, has, sizeof has), part.in, part.in);
    if (a->shape[0] > WEIR_LORA_RANK_MAX)
        return weir_fail(error, WEIR_TOO_LARGE, "%s: tensor %.*s has rank %llu; the most is %d", a->file, SHOWN,
                         a->name, (unsigned long long)a->shape[0], WEIR_LORA_RANK_MAX);
    module->rank = (uint32_t)a->shape[0];
    if (!is_matrix(b) || b->shape[0] != part.out || b->shape[1] != module->rank)
        return weir_fail(error, WEIR_BAD_FILE, "%s: tensor %.*s is %s; the linear of %u outputs wants [%u, %u]",
                         b->file, SHOWN, b->name, shape_words(b, has, sizeof has), part.out, part.out, module->rank);
    return WEIR_OK;
}

static enum weir_status refuse_number(const struct weir_weight *tensor, float value, struct weir_error *error)
{
    return weir_fail(error, WEIR_BAD_FILE, "%s: tensor %.*s holds %s; its numbers must be finite", tensor->file, SHOWN,
                     tensor->name,
                     isnan(value) ? "NaN"
                     : value > 0  ? "inf"
                                  : "-inf");
}

/* A tensor's numbers, turned round: columns by rows. */
static enum weir_status read_turned(const struct weir_weight *tensor, float *scratch, float *out,
                                    struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const size_t rows = (size_t)tensor->shape[0], columns = (size_t)tensor->shape[1];
    WEIR_TRY(weir_weight_read_f32(tensor, scratch, error));
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < columns; c++) {
            const float value = scratch[r * columns + c];
            if (!isfinite(value)) return refuse_number(tensor, value, error);
            out[c * rows + r] = value;
        }
    }
cleanup:
    return status;
}

static enum weir_status read_alpha(const struct weir_weight *tensor, double *alpha, struct weir_error *error)
{
    float value;
    char has[96];
    if (tensor->elements != 1)
        return weir_fail(error, WEIR_BAD_FILE, "%s: tensor %.*s is %s, wanted one number", tensor->file, SHOWN,
                         tensor->name, shape_words(tensor, has, sizeof has));
    const enum weir_status status = weir_weight_read_f32(tensor, &value, error);
    if (status != WEIR_OK) return status;
    if (!isfinite(value)) return refuse_number(tensor, value, error);
    *alpha = (double)value;
    return WEIR_OK;
}

/* ---- the metadata ---- */

#define METADATA_KEY "lora_adapter_metadata"

/* A setting of the network's adapters: diffusers puts the component's name before each. */
static const json_t *setting(const json_t *metadata, const char *name)
{
    static const char *const prefixes[] = { "transformer.", "unet.", "" };
    char key[64];
    for (size_t i = 0; i < WEIR_COUNT(prefixes); i++) {
        snprintf(key, sizeof key, "%s%s", prefixes[i], name);
        const json_t *value = json_object_get(metadata, key);
        if (value && !json_is_null(value)) return value;
    }
    return NULL;
}

static enum weir_status refuse_setting(const char *label, const char *name, const json_t *value, const char *wanted,
                                       struct weir_error *error)
{
    char shown[64];
    weir_json_show(value, shown, sizeof shown);
    return weir_fail(error, WEIR_UNSUPPORTED, "%s: " METADATA_KEY ": %.64s is %s; %s", label, name, shown, wanted);
}

/* Names as PEFT matches them: whole, or the end of one behind a dot. */
static bool names_module(const char *pattern, const char *module)
{
    if (*pattern == '^') return strcmp(pattern + 1, module) == 0;
    const size_t length = strlen(module), end = strlen(pattern);
    if (end > length || strcmp(module + length - end, pattern) != 0) return false;
    return end == length || module[length - end - 1] == '.';
}

static enum weir_status check_metadata(const json_t *metadata, const char *label, struct weir_error *error)
{
    static const char *const off[] = { "use_dora", "lora_bias" };
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.";
    const char *key;
    json_t *value;
    for (size_t i = 0; i < WEIR_COUNT(off); i++) {
        const json_t *found = setting(metadata, off[i]);
        if (json_is_true(found)) return refuse_setting(label, off[i], found, "this build has not that", error);
    }
    const json_t *alpha = setting(metadata, "lora_alpha"), *patterns = setting(metadata, "alpha_pattern");
    if (alpha && !json_is_number(alpha)) return refuse_setting(label, "lora_alpha", alpha, "wanted a number", error);
    if (patterns && !json_is_object(patterns))
        return refuse_setting(label, "alpha_pattern", patterns, "wanted names and numbers", error);
    json_object_foreach((json_t *)(uintptr_t)patterns, key, value)
    {
        if (!json_is_number(value)) return refuse_setting(label, key, value, "wanted a number", error);
        const char *name = key + (*key == '^');
        if (name[strspn(name, plain)] != '\0')
            return refuse_setting(label, "alpha_pattern", patterns, "its keys are names here, not patterns", error);
    }
    return WEIR_OK;
}

/* *out: NULL when the file has none. */
static enum weir_status open_metadata(const void *bytes, size_t count, const char *label, json_t **out,
                                      struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    char *text = NULL, name[128];
    snprintf(name, sizeof name, "%.80s: " METADATA_KEY, label);
    WEIR_TRY(weir_safetensors_metadata(bytes, count, label, METADATA_KEY, &text, error));
    if (!text) goto cleanup;
    WEIR_TRY(weir_json_parse(text, strlen(text), &WEIR_JSON_CONFIG_LIMITS, name, out, error));
    WEIR_TRY(check_metadata(*out, label, error));
cleanup:
    free(text);
    return status;
}

/* What the metadata says of a module; NaN when nothing. */
static double alpha_of(const json_t *metadata, const char *module)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)setting(metadata, "alpha_pattern"), key, value)
    {
        if (names_module(key, module)) return json_number_value(value);
    }
    const json_t *alpha = setting(metadata, "lora_alpha");
    return alpha ? json_number_value(alpha) : (double)NAN;
}

static enum weir_status find_scale(const struct weir_params *params, const json_t *metadata, const char *label,
                                   struct module *module, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const bool root = json_is_true(setting(metadata, "use_rslora"));
    const char *name = weir_params_part_at(params, module->part).name;
    double alpha = alpha_of(metadata, name);
    if (module->tensors[ALPHA]) WEIR_TRY(read_alpha(module->tensors[ALPHA], &alpha, error));
    module->scale = isnan(alpha) ? 1 : (float)(alpha / (root ? sqrt(module->rank) : module->rank));
    if (!isfinite(module->scale))
        status =
            weir_fail(error, WEIR_BAD_FILE, "%s: alpha of %.*s is %g, too large for f32", label, SHOWN, name, alpha);
cleanup:
    return status;
}

/* ---- a file ---- */

static int by_part(const void *a, const void *b)
{
    const struct module *x = a, *y = b;
    return x->part < y->part ? -1 : x->part > y->part;
}

/* Finds the linear of every tensor. `slots`: of each part of the network the module that is its, + 1. */
static enum weir_status take_tensors(struct weir_lora *lora, const struct weir_safetensors *table,
                                     const struct weir_params *params, uint32_t *slots, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    char name[WEIR_SAFETENSORS_NAME_BYTES_MAX + 1];
    for (size_t i = 0; i < table->count; i++) {
        const struct weir_weight *tensor = &table->tensors[i];
        enum half half = HALF_A;
        uint32_t part;
        if (strncmp(tensor->name, "text_encoder", 12) == 0 || !split_name(tensor->name, name, &half))
            WEIR_TRY(refuse_name(tensor, error));
        WEIR_TRY(find_part(tensor, params, name, &part, error));
        if (!slots[part]) {
            slots[part] = ++lora->count;
            lora->modules[lora->count - 1].part = part;
        }
        struct module *module = &lora->modules[slots[part] - 1];
        if (module->tensors[half])
            WEIR_TRY(weir_fail(error, WEIR_BAD_FILE, "%s: tensor %.*s says again what %.*s says", tensor->file, SHOWN,
                               tensor->name, SHOWN, module->tensors[half]->name));
        module->tensors[half] = tensor;
    }
    qsort(lora->modules, lora->count, sizeof *lora->modules, by_part);
cleanup:
    return status;
}

static enum weir_status read_modules(struct weir_lora *lora, const struct weir_params *params, const json_t *metadata,
                                     const char *label, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    size_t largest = 0;
    float *scratch = NULL;
    for (uint32_t m = 0; m < lora->count; m++) {
        struct module *module = &lora->modules[m];
        WEIR_TRY(check_halves(params, module, error));
        WEIR_TRY(find_scale(params, metadata, label, module, error));
        for (int half = 0; half < HALVES; half++) {
            module->at[half] = (size_t)lora->value_count;
            lora->value_count += module->tensors[half]->elements;
            if (module->tensors[half]->elements > largest) largest = module->tensors[half]->elements;
        }
    }
    scratch = malloc((largest + 1) * sizeof *scratch);
    lora->values = malloc((size_t)(lora->value_count + 1) * sizeof *lora->values);
    if (!scratch || !lora->values)
        WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "%s: no memory for %llu numbers", label,
                           (unsigned long long)lora->value_count));
    for (uint32_t m = 0; m < lora->count; m++) {
        for (int half = 0; half < HALVES; half++)
            WEIR_TRY(
                read_turned(lora->modules[m].tensors[half], scratch, lora->values + lora->modules[m].at[half], error));
        memset(lora->modules[m].tensors, 0, sizeof lora->modules[m].tensors);
    }
cleanup:
    free(scratch);
    return status;
}

enum weir_status weir_lora_parse(const void *bytes, size_t count, const char *label, const struct weir_params *params,
                                 struct weir_lora **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const uint32_t parts = weir_params_part_count(params);
    struct weir_error local, *said = error ? error : &local;
    struct weir_safetensors table = { 0 };
    json_t *metadata = NULL;
    struct weir_lora *lora = calloc(1, sizeof *lora);
    uint32_t *slots = calloc(parts + 1, sizeof *slots);

    if (lora) lora->modules = calloc(parts + 1, sizeof *lora->modules);
    if (!lora || !lora->modules || !slots) WEIR_TRY(weir_fail(said, WEIR_NO_MEMORY, "%s: no memory to read it", label));
    WEIR_TRY(weir_safetensors_init(&table, bytes, count, label, said));
    if (table.count == 0) WEIR_TRY(weir_fail(said, WEIR_BAD_FILE, "%s: it holds no adapters", label));
    WEIR_TRY(open_metadata(bytes, count, label, &metadata, said));
    WEIR_TRY(take_tensors(lora, &table, params, slots, said));
    WEIR_TRY(read_modules(lora, params, metadata, label, said));
    *out = lora;
    lora = NULL;
cleanup:
    if (status == WEIR_BAD_MODEL) status = said->code = WEIR_BAD_FILE; /* as parsers of model folders say it */
    json_decref(metadata);
    weir_safetensors_deinit(&table);
    weir_lora_destroy(&lora);
    free(slots);
    return status;
}

/* ---- several together ---- */

static int by_number(const void *a, const void *b)
{
    const struct weir_adapter_part *x = a, *y = b;
    return x->part < y->part ? -1 : x->part > y->part;
}

enum weir_status weir_lora_shape(const struct weir_lora_use *uses, size_t count, struct weir_adapter_shape *out,
                                 struct weir_error *error)
{
    size_t room = 0, kept = 0;
    *out = (struct weir_adapter_shape){ 0 };
    for (size_t i = 0; i < count; i++) room += uses[i].weight != 0 ? uses[i].lora->count : 0;
    struct weir_adapter_part *parts = malloc((room + 1) * sizeof *parts);
    if (!parts) return weir_fail(error, WEIR_NO_MEMORY, "no memory for %zu adapted linears", room);
    room = 0;
    for (size_t i = 0; i < count; i++) {
        for (uint32_t m = 0; uses[i].weight != 0 && m < uses[i].lora->count; m++)
            parts[room++] = (struct weir_adapter_part){ uses[i].lora->modules[m].part, uses[i].lora->modules[m].rank };
    }
    qsort(parts, room, sizeof *parts, by_number);
    for (size_t i = 0; i < room; i++) {
        if (kept && parts[kept - 1].part == parts[i].part)
            parts[kept - 1].rank += parts[i].rank;
        else
            parts[kept++] = parts[i];
    }
    *out = (struct weir_adapter_shape){ .parts = parts, .count = (uint32_t)kept };
    return WEIR_OK;
}

void weir_lora_shape_free(struct weir_adapter_shape *shape)
{
    free(shape->parts);
    *shape = (struct weir_adapter_shape){ 0 };
}

/* One module's ranks, beside those of others: columns of a, rows of b. */
static void write_module(const struct weir_lora *lora, const struct module *module, struct weir_params_part part,
                         float weight, uint32_t rank, uint32_t first, float *a, float *b)
{
    const float *from_a = lora->values + module->at[HALF_A], *from_b = lora->values + module->at[HALF_B];
    for (size_t i = 0; i < part.in; i++)
        memcpy(a + i * rank + first, from_a + i * module->rank, module->rank * sizeof(float));
    for (size_t i = 0; i < (size_t)module->rank * part.out; i++) b[(size_t)first * part.out + i] = weight * from_b[i];
}

void weir_lora_write(const struct weir_params *params, const struct weir_lora_use *uses, size_t count,
                     const struct weir_adapter_shape *shape, float *out)
{
    uint64_t at = 0;
    memset(out, 0, (size_t)weir_adapter_floats(params, shape) * sizeof *out);
    for (uint32_t i = 0; i < shape->count; i++) {
        const uint32_t rank = shape->parts[i].rank;
        const struct weir_params_part part = weir_params_part_at(params, shape->parts[i].part);
        const struct weir_adapter_place place = weir_adapter_place(part, rank, at);
        uint32_t first = 0;
        for (size_t u = 0; u < count; u++) {
            const struct module *module = uses[u].weight != 0 ? find_module(uses[u].lora, shape->parts[i].part) : NULL;
            if (!module) continue;
            write_module(uses[u].lora, module, part, (float)(uses[u].weight * (double)module->scale), rank, first,
                         out + place.a, out + place.b);
            first += module->rank;
        }
        assert(first == rank);
        at = place.end;
    }
}
