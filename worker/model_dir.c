#include "worker/model_dir.h"

#include "worker/file_hash.h"
#include "worker/folder.h"
#include "worker/model_places.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DIGEST_FILES_MAX 4096
#define HASH_THREADS_MAX 7 /* beside the one that asks */

/* What a component may have beside its weights, and what this project reads of it. */
static const char *const read_files[] = { "config.json",       "scheduler_config.json",  "vocab.json",
                                          "merges.txt",        "tokenizer.json",         "tokenizer_config.json",
                                          "added_tokens.json", "special_tokens_map.json" };

struct weir_model_dir {
    struct weir_folder folder;
    char *variant; /* or NULL */
    struct weir_model_index index;
    struct weir_defaults defaults;
};

static enum weir_status check_variant(const struct weir_model_dir *model, struct weir_error *error)
{
    bool found = !model->variant;
    for (size_t i = 0; i < model->index.component_count && !found; i++) {
        const enum weir_status status =
            weir_weights_find_variant(&model->folder, model->index.components[i].name, model->variant, &found, error);
        if (status != WEIR_OK) return status;
    }
    if (found) return WEIR_OK;
    return weir_fail(error, WEIR_NOT_FOUND, "%.200s: no component has weights of the variant \"%.32s\"",
                     model->folder.path, model->variant);
}

static enum weir_status read_index(struct weir_model_dir *model, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    char label[WEIR_FOLDER_LABEL_BYTES];
    char *text = NULL;
    size_t bytes = 0;

    bool found = false;
    WEIR_TRY(weir_folder_find_file(&model->folder, "model_index.json", &found, error));
    if (!found) {
        return weir_fail(error, WEIR_NOT_FOUND, "%.200s: no model_index.json in it, so it is no diffusers folder",
                         model->folder.path);
    }
    weir_folder_label(&model->folder, "model_index.json", label, sizeof label);
    WEIR_TRY(weir_folder_read_file(&model->folder, "model_index.json", WEIR_CONFIG_BYTES_MAX, &text, &bytes, error));
    WEIR_TRY(weir_model_index_init(&model->index, text, bytes, label, error));
    WEIR_TRY(weir_folder_find_file(&model->folder, "weir.json", &found, error));
    if (found) {
        free(text);
        text = NULL;
        weir_folder_label(&model->folder, "weir.json", label, sizeof label);
        WEIR_TRY(weir_folder_read_file(&model->folder, "weir.json", WEIR_CONFIG_BYTES_MAX, &text, &bytes, error));
        WEIR_TRY(weir_defaults_init(&model->defaults, text, bytes, label, error));
    }
cleanup:
    free(text);
    return status;
}

enum weir_status weir_model_dir_open(const char *dir_or_name, const char *variant, struct weir_model_dir **out,
                                     struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_model_place place = { 0 };
    struct weir_model_dir *model = calloc(1, sizeof *model);
    if (model) {
        model->folder.root_fd = -1;
        model->defaults = WEIR_DEFAULTS_ABSENT;
        if (variant) model->variant = strdup(variant);
    }
    if (!model || (variant && !model->variant)) {
        status = weir_fail(error, WEIR_NO_MEMORY, "model %.200s: no memory to open it", dir_or_name);
        goto cleanup;
    }
    WEIR_TRY(weir_model_place_find(dir_or_name, &place, error));
    WEIR_TRY(weir_folder_init(&model->folder, place.root, place.inside, place.hub, error));
    WEIR_TRY(read_index(model, error));
    WEIR_TRY(check_variant(model, error));
    *out = model;
    model = NULL;

cleanup:
    weir_model_place_deinit(&place);
    weir_model_dir_close(&model);
    return status;
}

void weir_model_dir_close(struct weir_model_dir **model_p)
{
    struct weir_model_dir *model = *model_p;
    if (!model) return;
    weir_defaults_deinit(&model->defaults);
    weir_model_index_deinit(&model->index);
    weir_folder_deinit(&model->folder);
    free(model->variant);
    free(model);
    *model_p = NULL;
}

const char *weir_model_dir_path(const struct weir_model_dir *model)
{
    return model->folder.path;
}

const char *weir_model_dir_class_name(const struct weir_model_dir *model)
{
    return model->index.class_name;
}

const struct weir_defaults *weir_model_dir_defaults(const struct weir_model_dir *model)
{
    return &model->defaults;
}

size_t weir_model_dir_component_count(const struct weir_model_dir *model)
{
    return model->index.component_count;
}

const struct weir_component *weir_model_dir_component_at(const struct weir_model_dir *model, size_t index)
{
    return index < model->index.component_count ? &model->index.components[index] : NULL;
}

const struct weir_component *weir_model_dir_component(const struct weir_model_dir *model, const char *name)
{
    for (size_t i = 0; i < model->index.component_count; i++) {
        if (strcmp(model->index.components[i].name, name) == 0) return &model->index.components[i];
    }
    return NULL;
}

enum weir_status weir_model_dir_require(const struct weir_model_dir *model, const char *name,
                                        const char *const *classes, struct weir_error *error)
{
    char label[WEIR_FOLDER_LABEL_BYTES], wanted[128] = "";
    const struct weir_component *component = weir_model_dir_component(model, name);
    for (size_t i = 0; classes[i]; i++) {
        if (component && strcmp(component->class_name, classes[i]) == 0) return WEIR_OK;
        const size_t used = strlen(wanted);
        snprintf(wanted + used, sizeof wanted - used, "%s%s", used ? " or " : "", classes[i]);
    }
    weir_folder_label(&model->folder, "model_index.json", label, sizeof label);
    return weir_fail(error, WEIR_BAD_MODEL, "%s: component %s is %s, wanted %s", label, name,
                     component ? component->class_name : "absent", wanted);
}

/* COMPONENT/FILE as a new text. */
static char *path_of(const char *component, const char *file)
{
    char *path = NULL;
    return asprintf(&path, "%s/%s", component, file) < 0 ? NULL : path;
}

enum weir_status weir_model_dir_config(const struct weir_model_dir *model, const char *component,
                                       struct weir_config **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    char label[WEIR_FOLDER_LABEL_BYTES];
    char *text = NULL;
    size_t bytes = 0;
    bool found = false;
    char *path = path_of(component, "scheduler_config.json");
    if (path) WEIR_TRY(weir_folder_find_file(&model->folder, path, &found, error));
    if (path && !found) {
        free(path);
        path = path_of(component, "config.json");
    }
    if (!path) return weir_fail(error, WEIR_NO_MEMORY, "%s: no memory to read its config", component);
    weir_folder_label(&model->folder, path, label, sizeof label);
    WEIR_TRY(weir_folder_read_file(&model->folder, path, WEIR_CONFIG_BYTES_MAX, &text, &bytes, error));
    WEIR_TRY(weir_config_parse(text, bytes, label, out, error));
cleanup:
    free(text);
    free(path);
    return status;
}

enum weir_status weir_model_dir_weights(const struct weir_model_dir *model, const char *component,
                                        struct weir_weights **out, struct weir_error *error)
{
    return weir_weights_open(&model->folder, component, model->variant, out, error);
}

enum weir_status weir_model_dir_read(const struct weir_model_dir *model, const char *path, size_t bytes_max, char **out,
                                     size_t *out_bytes, struct weir_error *error)
{
    return weir_folder_read_file(&model->folder, path, bytes_max, out, out_bytes, error);
}

bool weir_model_dir_has(const struct weir_model_dir *model, const char *path)
{
    bool found = false;
    return weir_folder_find_file(&model->folder, path, &found, NULL) == WEIR_OK && found;
}

void weir_model_dir_list(void (*each)(void *context, const char *name, const char *path), void *context)
{
    weir_model_places_list(each, context);
}

/* The digest: paths are gathered, sorted, and hashed by several threads, each a file at a time. */

struct file_list {
    char *paths[DIGEST_FILES_MAX];
    size_t count;
};

/* Takes `path`, a new text or NULL. */
static enum weir_status add_path(struct file_list *files, char *path, struct weir_error *error)
{
    if (!path) return weir_fail(error, WEIR_NO_MEMORY, "no memory for the model's digest");
    if (files->count == DIGEST_FILES_MAX) {
        free(path);
        return weir_fail(error, WEIR_TOO_LARGE, "the model has more than %d files", DIGEST_FILES_MAX);
    }
    files->paths[files->count++] = path;
    return WEIR_OK;
}

static bool names_weights(const char *file)
{
    return strstr(file, ".safetensors") != NULL;
}

static enum weir_status add_weights(const struct weir_model_dir *model, const char *component, struct file_list *files,
                                    struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_weights *weights = NULL;
    WEIR_TRY(weir_model_dir_weights(model, component, &weights, error));
    for (size_t i = 0; i < weir_weights_file_count(weights); i++) {
        WEIR_TRY(add_path(files, strdup(weir_weights_file(weights, i)), error));
    }
cleanup:
    weir_weights_close(&weights);
    return status;
}

static enum weir_status add_component_files(const struct weir_model_dir *model, const char *component,
                                            struct file_list *files, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    char **names = NULL;
    size_t count = 0;
    bool weights = false;
    WEIR_TRY(weir_folder_names(&model->folder, component, &names, &count, error));
    for (size_t i = 0; i < count; i++) {
        weights = weights || names_weights(names[i]);
        for (size_t k = 0; k < WEIR_COUNT(read_files); k++) {
            if (strcmp(names[i], read_files[k]) != 0) continue;
            WEIR_TRY(add_path(files, path_of(component, names[i]), error));
        }
    }
    if (weights) WEIR_TRY(add_weights(model, component, files, error));
cleanup:
    weir_folder_names_free(&names, count);
    return status;
}

static enum weir_status gather(const struct weir_model_dir *model, const char *const *components, size_t count,
                               struct file_list *files, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    bool found = false;
    WEIR_TRY(add_path(files, strdup("model_index.json"), error));
    WEIR_TRY(weir_folder_find_file(&model->folder, "weir.json", &found, error));
    if (found) WEIR_TRY(add_path(files, strdup("weir.json"), error));
    for (size_t i = 0; i < (components ? count : model->index.component_count); i++) {
        const char *name = components ? components[i] : model->index.components[i].name;
        WEIR_TRY(add_component_files(model, name, files, error));
    }
cleanup:
    return status;
}

/* The name of a hub blob is the hash of its bytes when it has 64 hex digits (small files have a git hash of 40).
 * The kernel says under which name the file was really opened, whatever links led to it. */
static bool blob_name(const struct weir_model_dir *model, int fd, char out[WEIR_SHA256_HEX_BYTES])
{
    char link[64], path[PATH_MAX];
    uint8_t digest[WEIR_SHA256_BYTES];
    if (!model->folder.hub) return false;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t bytes = readlink(link, path, sizeof path - 1);
    if (bytes <= 0) return false;
    path[bytes] = '\0';
    const char *name = strrchr(path, '/');
    static const char folder[] = "/blobs";
    if (!name || (size_t)(name - path) < sizeof folder - 1) return false;
    if (memcmp(name - (sizeof folder - 1), folder, sizeof folder - 1) != 0) return false;
    if (!weir_hex_read(name + 1, digest, sizeof digest)) return false;
    weir_hex_write(digest, sizeof digest, out);
    return true;
}

static enum weir_status hash_file(const struct weir_model_dir *model, struct weir_file_hashes *hashes, const char *path,
                                  bool verify, char out[WEIR_SHA256_HEX_BYTES], struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    char label[WEIR_FOLDER_LABEL_BYTES], said[WEIR_SHA256_HEX_BYTES];
    int fd = -1;
    weir_folder_label(&model->folder, path, label, sizeof label);
    WEIR_TRY(weir_folder_open_file(&model->folder, path, &fd, error));
    const bool blob = blob_name(model, fd, said);
    if (blob && !verify) {
        memcpy(out, said, sizeof said);
        goto cleanup;
    }
    WEIR_TRY(weir_file_hash(hashes, fd, label, verify, out, error));
    if (blob && strcmp(said, out) != 0) {
        status = weir_fail(error, WEIR_BAD_FILE, "%s: its blob's name says %.12s..., its bytes have %.12s...", label,
                           said, out);
    }
cleanup:
    if (fd >= 0) close(fd);
    return status;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Each path once. */
static void sort_paths(struct file_list *files)
{
    size_t kept = 0;
    qsort(files->paths, files->count, sizeof *files->paths, by_bytes);
    for (size_t i = 0; i < files->count; i++) {
        if (kept && strcmp(files->paths[i], files->paths[kept - 1]) == 0)
            free(files->paths[i]);
        else
            files->paths[kept++] = files->paths[i];
    }
    files->count = kept;
}

/* Files are taken in order, so that of several that cannot be read the first is told. */
struct hashing {
    const struct weir_model_dir *model;
    const struct file_list *files;
    bool verify;
    struct weir_file_hashes hashes;
    char (*hex)[WEIR_SHA256_HEX_BYTES]; /* of each file */
    pthread_mutex_t mutex;              /* of all below */
    size_t next, failed;                /* failed: the first, files->count: none */
    struct weir_error error;
};

static bool take_file(struct hashing *hashing, size_t *index)
{
    pthread_mutex_lock(&hashing->mutex);
    *index = hashing->next;
    const bool more = hashing->failed == hashing->files->count && *index < hashing->files->count;
    if (more) hashing->next++;
    pthread_mutex_unlock(&hashing->mutex);
    return more;
}

static void *hash_files(void *context)
{
    struct hashing *hashing = context;
    struct weir_error error;
    for (size_t i; take_file(hashing, &i);) {
        if (hash_file(hashing->model, &hashing->hashes, hashing->files->paths[i], hashing->verify, hashing->hex[i],
                      &error) == WEIR_OK)
            continue;
        pthread_mutex_lock(&hashing->mutex);
        if (i < hashing->failed) hashing->failed = i, hashing->error = error;
        pthread_mutex_unlock(&hashing->mutex);
    }
    return NULL;
}

/* By this thread and as many more as there are processors and files for, and as can be started. */
static enum weir_status hash_all(struct hashing *hashing, struct weir_error *error)
{
    pthread_t threads[HASH_THREADS_MAX];
    const long processors = sysconf(_SC_NPROCESSORS_ONLN);
    size_t started = 0;
    hashing->failed = hashing->files->count;
    while (started < HASH_THREADS_MAX && started + 1 < hashing->files->count && (long)started + 1 < processors &&
           pthread_create(&threads[started], NULL, hash_files, hashing) == 0)
        started++;
    hash_files(hashing);
    for (size_t i = 0; i < started; i++) pthread_join(threads[i], NULL);
    if (hashing->failed == hashing->files->count) return WEIR_OK;
    if (error) *error = hashing->error;
    return hashing->error.code;
}

enum weir_status weir_model_dir_digest(const struct weir_model_dir *model, const char *const *components, size_t count,
                                       bool verify, char out[WEIR_SHA256_HEX_BYTES], struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    uint8_t digest[WEIR_SHA256_BYTES];
    struct weir_sha256 sha;
    struct file_list *files = calloc(1, sizeof *files);
    struct hashing hashing = { .model = model, .files = files, .verify = verify };
    if (!files) return weir_fail(error, WEIR_NO_MEMORY, "no memory for the model's digest");

    pthread_mutex_init(&hashing.mutex, NULL);
    weir_sha256_init(&sha);
    WEIR_TRY(gather(model, components, count, files, error));
    sort_paths(files);
    hashing.hex = calloc(files->count, sizeof *hashing.hex);
    if (!hashing.hex) WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "no memory for the model's digest"));
    WEIR_TRY(weir_file_hashes_init(&hashing.hashes, error));
    WEIR_TRY(hash_all(&hashing, error));
    for (size_t i = 0; i < files->count; i++) {
        weir_sha256_update(&sha, hashing.hex[i], sizeof hashing.hex[i] - 1);
        weir_sha256_update(&sha, "  ", 2);
        weir_sha256_update(&sha, files->paths[i], strlen(files->paths[i]));
        weir_sha256_update(&sha, "\n", 1);
    }

cleanup:
    weir_sha256_final(&sha, digest);
    if (status == WEIR_OK) weir_hex_write(digest, sizeof digest, out);
    weir_file_hashes_deinit(&hashing.hashes);
    pthread_mutex_destroy(&hashing.mutex);
    free(hashing.hex);
    for (size_t i = 0; i < files->count; i++) free(files->paths[i]);
    free(files);
    return status;
}
