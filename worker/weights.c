/* One component's tensors: the files are mapped and their headers checked at open, then all names go into one table
 * sorted by name. A sharded set is what its index says: a tensor counts only in the file that the index gives it. */
#include "worker/weights.h"

#include "worker/folder.h"
#include "proto/base/half.h"
#include "worker/mapping.h"
#include "worker/model_index.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAME_SHOWN_BYTES 128
#define SHAPE_SHOWN_BYTES 96
#define VARIANTS_SHOWN_BYTES 128

static const char *const stems[] = { "diffusion_pytorch_model", "model" };
static const char extension[] = ".safetensors", index_middle[] = ".safetensors.index", index_extension[] = ".json";

struct shard {
    char *path; /* of the folder: "unet/diffusion_pytorch_model.safetensors" */
    struct weir_mapping mapping;
    struct weir_safetensors table;
};

struct entry {
    const struct weir_weight *tensor;
    atomic_bool used;
};

struct weir_weights {
    char *label;
    struct shard *shards;
    size_t shard_count;
    char *index_path; /* or NULL */
    struct weir_weights_index index;
    struct entry *entries; /* sorted by name */
    size_t entry_count;
};

/* What lies in a component's folder, as far as it names weights. */
struct choice {
    const char *file; /* borrowed from the list of names */
    bool sharded;
};

/* The variant in a file name: "" for the plain set. False when it names no set of this stem. */
static bool variant_in(const char *file, const char *stem, bool sharded, char out[WEIR_WEIGHTS_VARIANT_BYTES_MAX + 1])
{
    const char *head = sharded ? index_middle : "", *tail = sharded ? index_extension : extension;
    const size_t stem_bytes = strlen(stem), head_bytes = strlen(head), tail_bytes = strlen(tail);
    const size_t bytes = strlen(file);
    if (bytes < stem_bytes + head_bytes + tail_bytes) return false;
    if (strncmp(file, stem, stem_bytes) != 0 || strncmp(file + stem_bytes, head, head_bytes) != 0) return false;
    if (strcmp(file + bytes - tail_bytes, tail) != 0) return false;
    const char *word = file + stem_bytes + head_bytes;
    const size_t word_bytes = bytes - stem_bytes - head_bytes - tail_bytes;
    if (word_bytes == 0) {
        out[0] = '\0';
        return true;
    }
    if (word[0] != '.' || word_bytes < 2 || word_bytes - 1 > WEIR_WEIGHTS_VARIANT_BYTES_MAX) return false;
    memcpy(out, word + 1, word_bytes - 1);
    out[word_bytes - 1] = '\0';
    return strspn(out, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == word_bytes - 1;
}

/* Finds the set called `variant` ("": plain) of any stem; a single file goes before an index. */
static bool find_set(char **names, size_t count, const char *variant, struct choice *out)
{
    char found[WEIR_WEIGHTS_VARIANT_BYTES_MAX + 1];
    for (size_t s = 0; s < WEIR_COUNT(stems); s++) {
        for (int sharded = 0; sharded < 2; sharded++) {
            for (size_t i = 0; i < count; i++) {
                if (variant_in(names[i], stems[s], sharded, found) && strcmp(found, variant) == 0) {
                    *out = (struct choice){ .file = names[i], .sharded = sharded };
                    return true;
                }
            }
        }
    }
    return false;
}

/* The variants that are there: how many different ones, the first of them, and a text that lists them. */
static size_t list_variants(char **names, size_t count, char first[WEIR_WEIGHTS_VARIANT_BYTES_MAX + 1],
                            char shown[VARIANTS_SHOWN_BYTES])
{
    char found[WEIR_WEIGHTS_VARIANT_BYTES_MAX + 1], seen[16][WEIR_WEIGHTS_VARIANT_BYTES_MAX + 1];
    size_t seen_count = 0;
    shown[0] = first[0] = '\0';
    for (size_t i = 0; i < 2 * WEIR_COUNT(stems) * count && seen_count < WEIR_COUNT(seen); i++) {
        const size_t s = i / count % WEIR_COUNT(stems);
        if (!variant_in(names[i % count], stems[s], i / count >= WEIR_COUNT(stems), found)) continue;
        bool known = false;
        for (size_t k = 0; k < seen_count && !known; k++) known = strcmp(seen[k], found) == 0;
        if (known) continue;
        strcpy(seen[seen_count++], found);
        if (seen_count == 1) strcpy(first, found);
        const size_t used = strlen(shown);
        snprintf(shown + used, VARIANTS_SHOWN_BYTES - used, "%s%s", used ? ", " : "", found);
    }
    return seen_count;
}

enum weir_status weir_weights_find_variant(const struct weir_folder *folder, const char *component, const char *variant,
                                           bool *found, struct weir_error *error)
{
    char **names = NULL;
    size_t count = 0;
    struct choice choice;
    const enum weir_status status = weir_folder_names(folder, component, &names, &count, error);
    if (status != WEIR_OK && status != WEIR_NOT_FOUND) return status;
    *found = status == WEIR_OK && find_set(names, count, variant, &choice);
    weir_folder_names_free(&names, count);
    return WEIR_OK;
}

static enum weir_status choose(char **names, size_t count, const char *label, const char *variant, struct choice *out,
                               struct weir_error *error)
{
    char only[WEIR_WEIGHTS_VARIANT_BYTES_MAX + 1], shown[VARIANTS_SHOWN_BYTES];
    if (variant && find_set(names, count, variant, out)) return WEIR_OK;
    if (find_set(names, count, "", out)) return WEIR_OK;
    const size_t variants = list_variants(names, count, only, shown);
    if (!variant && variants == 1 && find_set(names, count, only, out)) return WEIR_OK;
    if (variants) {
        return weir_fail(error, WEIR_NOT_FOUND, "%s: weights are there only as the variants %s; wanted %s", label,
                         shown, variant ? variant : "a plain set, or the name of one of them");
    }
    bool pickled = false;
    for (size_t i = 0; i < count; i++) {
        const size_t bytes = strlen(names[i]);
        pickled = pickled || (bytes > 4 && strcmp(names[i] + bytes - 4, ".bin") == 0);
    }
    return weir_fail(error, WEIR_NOT_FOUND, "%s: no weights (diffusion_pytorch_model or model).safetensors%s", label,
                     pickled ? "; its .bin files are pickles, which can run code and are never read" : "");
}

static char *join(const char *component, const char *file)
{
    char *path = NULL;
    return asprintf(&path, "%s%s%s", component, *component ? "/" : "", file) < 0 ? NULL : path;
}

static enum weir_status open_shard(const struct weir_folder *folder, const char *component, const char *file,
                                   struct shard *shard, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    char label[WEIR_FOLDER_LABEL_BYTES];
    int fd = -1;
    shard->path = join(component, file);
    if (!shard->path) return weir_fail(error, WEIR_NO_MEMORY, "%s: no memory to open it", file);
    weir_folder_label(folder, shard->path, label, sizeof label);
    WEIR_TRY(weir_folder_open_file(folder, shard->path, &fd, error));
    WEIR_TRY(weir_mapping_init(&shard->mapping, fd, label, error));
    WEIR_TRY(weir_safetensors_init(&shard->table, shard->mapping.bytes, shard->mapping.count, label, error));
cleanup:
    if (fd >= 0) close(fd);
    return status;
}

static enum weir_status open_shards(struct weir_weights *weights, const struct weir_folder *folder,
                                    const char *component, const struct choice *choice, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    char *text = NULL;
    size_t text_bytes = 0;
    const char *const *files = &choice->file;
    weights->shard_count = 1;

    if (choice->sharded) {
        weights->index_path = join(component, choice->file);
        if (!weights->index_path) return weir_fail(error, WEIR_NO_MEMORY, "%s: no memory to open it", choice->file);
        WEIR_TRY(weir_folder_read_file(folder, weights->index_path, WEIR_WEIGHTS_INDEX_BYTES_MAX, &text, &text_bytes,
                                       error));
        WEIR_TRY(weir_weights_index_init(&weights->index, text, text_bytes, weights->label, error));
        files = weights->index.files;
        weights->shard_count = weights->index.file_count;
    }
    weights->shards = calloc(weights->shard_count, sizeof *weights->shards);
    if (!weights->shards) {
        weights->shard_count = 0;
        status = weir_fail(error, WEIR_NO_MEMORY, "%s: no memory to open it", weights->label);
        goto cleanup;
    }
    for (size_t i = 0; i < weights->shard_count; i++) {
        WEIR_TRY(open_shard(folder, component, files[i], &weights->shards[i], error));
    }

cleanup:
    free(text);
    return status;
}

/* The last piece of the path, as the index writes it. */
static const char *shard_name(const struct shard *shard)
{
    const char *slash = strrchr(shard->path, '/');
    return slash ? slash + 1 : shard->path;
}

static bool counts_here(const struct weir_weights *weights, const struct shard *shard, const char *tensor)
{
    if (!weights->index.root) return true;
    const char *file = weir_weights_index_file(&weights->index, tensor);
    return file && strcmp(file, shard_name(shard)) == 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->tensor->name, ((const struct entry *)b)->tensor->name);
}

static struct entry *find_entry(const struct weir_weights *weights, const char *name)
{
    size_t low = 0, high = weights->entry_count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const int order = strcmp(name, weights->entries[middle].tensor->name);
        if (order == 0) return &weights->entries[middle];
        if (order < 0) high = middle;
        if (order > 0) low = middle + 1;
    }
    return NULL;
}

static enum weir_status fill_entries(struct weir_weights *weights, struct weir_error *error)
{
    size_t count = 0;
    for (size_t s = 0; s < weights->shard_count; s++) count += weights->shards[s].table.count;
    weights->entries = calloc(count + 1, sizeof *weights->entries);
    if (!weights->entries) return weir_fail(error, WEIR_NO_MEMORY, "%s: no memory for its table", weights->label);
    for (size_t s = 0; s < weights->shard_count; s++) {
        const struct shard *shard = &weights->shards[s];
        for (size_t i = 0; i < shard->table.count; i++) {
            if (!counts_here(weights, shard, shard->table.tensors[i].name)) continue;
            weights->entries[weights->entry_count++].tensor = &shard->table.tensors[i];
        }
    }
    qsort(weights->entries, weights->entry_count, sizeof *weights->entries, by_name);
    return WEIR_OK;
}

struct promise {
    const struct weir_weights *weights;
    struct weir_error *error;
    enum weir_status status;
};

static bool check_promise(void *context, const char *tensor, const char *file)
{
    struct promise *promise = context;
    if (find_entry(promise->weights, tensor)) return true;
    promise->status = weir_fail(promise->error, WEIR_BAD_MODEL, "%s: tensor %.*s is said to be in %s, and is not",
                                promise->weights->label, NAME_SHOWN_BYTES, tensor, file);
    return false;
}

enum weir_status weir_weights_open(const struct weir_folder *folder, const char *component, const char *variant,
                                   struct weir_weights **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    char label[WEIR_FOLDER_LABEL_BYTES];
    struct choice choice = { 0 };
    char **names = NULL, *path = NULL;
    size_t name_count = 0;
    struct weir_weights *weights = calloc(1, sizeof *weights);

    weir_folder_label(folder, component, label, sizeof label);
    WEIR_TRY(weir_folder_names(folder, component, &names, &name_count, error));
    WEIR_TRY(choose(names, name_count, label, variant, &choice, error));
    path = join(component, choice.file);
    if (path) weir_folder_label(folder, path, label, sizeof label);
    if (weights) weights->label = strdup(label);
    if (!weights || !weights->label || !path) {
        status = weir_fail(error, WEIR_NO_MEMORY, "%s: no memory to open it", label);
        goto cleanup;
    }
    WEIR_TRY(open_shards(weights, folder, component, &choice, error));
    WEIR_TRY(fill_entries(weights, error));
    if (weights->index.root) {
        struct promise promise = { .weights = weights, .error = error };
        weir_weights_index_each(&weights->index, check_promise, &promise);
        WEIR_TRY(promise.status);
    }
    *out = weights;
    weights = NULL;

cleanup:
    weir_weights_close(&weights);
    weir_folder_names_free(&names, name_count);
    free(path);
    return status;
}

enum weir_status weir_weights_parse(const void *bytes, size_t count, const char *label, struct weir_weights **out,
                                    struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_weights *weights = calloc(1, sizeof *weights);
    if (weights) weights->label = strdup(label);
    if (weights) weights->shards = calloc(1, sizeof *weights->shards);
    if (!weights || !weights->label || !weights->shards) {
        status = weir_fail(error, WEIR_NO_MEMORY, "%s: no memory to read it", label);
        goto cleanup;
    }
    weights->shard_count = 1;
    WEIR_TRY(weir_safetensors_init(&weights->shards[0].table, bytes, count, label, error));
    WEIR_TRY(fill_entries(weights, error));
    *out = weights;
    weights = NULL;

cleanup:
    weir_weights_close(&weights);
    return status;
}

void weir_weights_close(struct weir_weights **weights_p)
{
    struct weir_weights *weights = *weights_p;
    if (!weights) return;
    for (size_t i = 0; weights->shards && i < weights->shard_count; i++) {
        weir_safetensors_deinit(&weights->shards[i].table);
        weir_mapping_deinit(&weights->shards[i].mapping);
        free(weights->shards[i].path);
    }
    free(weights->shards);
    weir_weights_index_deinit(&weights->index);
    free(weights->index_path);
    free(weights->entries);
    free(weights->label);
    free(weights);
    *weights_p = NULL;
}

bool weir_weights_find(const struct weir_weights *weights, const char *name, struct weir_weight *out)
{
    struct entry *entry = find_entry(weights, name);
    if (!entry) return false;
    atomic_store_explicit(&entry->used, true, memory_order_relaxed);
    *out = *entry->tensor;
    return true;
}

static void show_shape(size_t rank, const uint64_t *shape, char out[SHAPE_SHOWN_BYTES])
{
    size_t used = (size_t)snprintf(out, SHAPE_SHOWN_BYTES, "[");
    for (size_t i = 0; i < rank && used < SHAPE_SHOWN_BYTES; i++) {
        used += (size_t)snprintf(out + used, SHAPE_SHOWN_BYTES - used, "%s%llu", i ? ", " : "",
                                 (unsigned long long)shape[i]);
    }
    if (used < SHAPE_SHOWN_BYTES) snprintf(out + used, SHAPE_SHOWN_BYTES - used, "]");
}

static bool same_shape(const struct weir_weight *weight, size_t rank, const uint64_t *shape)
{
    if (weight->rank != rank) return false;
    for (size_t i = 0; i < rank; i++) {
        if (weight->shape[i] != shape[i]) return false;
    }
    return true;
}

static bool is_plain_float(enum weir_weight_dtype dtype)
{
    return dtype == WEIR_WEIGHT_F32 || dtype == WEIR_WEIGHT_F16 || dtype == WEIR_WEIGHT_BF16;
}

enum weir_status weir_weight_check_float(const struct weir_weight *weight, struct weir_error *error)
{
    if (is_plain_float(weight->dtype)) return WEIR_OK;
    return weir_fail(error, WEIR_BAD_MODEL, "%s: tensor %.*s is %s, wanted F32, F16 or BF16", weight->file,
                     NAME_SHOWN_BYTES, weight->name, weir_weight_dtype_name(weight->dtype));
}

enum weir_status weir_weights_require(const struct weir_weights *weights, const char *name, size_t rank,
                                      const uint64_t *shape, struct weir_weight *out, struct weir_error *error)
{
    char wanted[SHAPE_SHOWN_BYTES], found[SHAPE_SHOWN_BYTES];
    struct weir_weight weight;
    show_shape(rank, shape, wanted);
    if (!weir_weights_find(weights, name, &weight)) {
        return weir_fail(error, WEIR_BAD_MODEL, "%s: tensor %.*s is missing, wanted %s", weights->label,
                         NAME_SHOWN_BYTES, name, wanted);
    }
    if (!same_shape(&weight, rank, shape)) {
        show_shape(weight.rank, weight.shape, found);
        return weir_fail(error, WEIR_BAD_MODEL, "%s: tensor %.*s is %s, wanted %s", weight.file, NAME_SHOWN_BYTES, name,
                         found, wanted);
    }
    const enum weir_status status = weir_weight_check_float(&weight, error);
    if (status == WEIR_OK) *out = weight;
    return status;
}

enum weir_status weir_weight_read_f32(const struct weir_weight *weight, float *out, struct weir_error *error)
{
    switch (weight->dtype) {
    case WEIR_WEIGHT_F32:
        if (weight->bytes) memcpy(out, weight->data, weight->bytes);
        return WEIR_OK;
    case WEIR_WEIGHT_F16:
        weir_f16_to_f32(weight->data, weight->elements, out);
        return WEIR_OK;
    case WEIR_WEIGHT_BF16:
        weir_bf16_to_f32(weight->data, weight->elements, out);
        return WEIR_OK;
    default:
        return weir_weight_check_float(weight, error);
    }
}

void weir_weights_unused(const struct weir_weights *weights,
                         void (*each)(void *context, const struct weir_weight *weight), void *context)
{
    for (size_t s = 0; s < weights->shard_count; s++) {
        const struct weir_safetensors *table = &weights->shards[s].table;
        for (size_t i = 0; i < table->count; i++) {
            const struct entry *entry = find_entry(weights, table->tensors[i].name);
            if (entry && entry->tensor == &table->tensors[i] && atomic_load(&entry->used)) continue;
            each(context, &table->tensors[i]);
        }
    }
}

const char *weir_weights_label(const struct weir_weights *weights)
{
    return weights->label;
}

size_t weir_weights_count(const struct weir_weights *weights)
{
    return weights->entry_count;
}

uint64_t weir_weights_bytes(const struct weir_weights *weights)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < weights->entry_count; i++) bytes += weights->entries[i].tensor->bytes;
    return bytes;
}

size_t weir_weights_file_count(const struct weir_weights *weights)
{
    if (weights->shards[0].path == NULL) return 0; /* parsed from memory */
    return weights->shard_count + (weights->index_path ? 1 : 0);
}

const char *weir_weights_file(const struct weir_weights *weights, size_t index)
{
    return index < weights->shard_count ? weights->shards[index].path : weights->index_path;
}
