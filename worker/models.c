#include "worker/models.h"

#include <stdlib.h>
#include <string.h>

/* What comes behind "models--" in a hub cache's path, "--" as '/'; NULL when it is none. */
static char *hub_name(const char *path)
{
    const char *start = strstr(path, "/models--");
    if (!start) return NULL;
    start += strlen("/models--");
    const size_t length = strcspn(start, "/");
    char *name = strndup(start, length);
    char *dashes = name ? strstr(name, "--") : NULL;
    if (dashes) {
        *dashes = '/';
        memmove(dashes + 1, dashes + 2, strlen(dashes + 2) + 1);
    }
    return name;
}

static char *name_of(const char *asked, const struct weir_model_dir *dir)
{
    const char *path = weir_model_dir_path(dir);
    if (!strchr(asked, '/') && strcmp(asked, ".") != 0 && strcmp(asked, "..") != 0) return strdup(asked);
    char *name = hub_name(path);
    if (name) return name;
    const char *last = strrchr(path, '/');
    return strdup(last && last[1] ? last + 1 : path);
}

static void close_one(struct weir_model *model)
{
    weir_pipeline_close(&model->pipeline);
    weir_pipeline_close(&model->quotes);
    weir_model_dir_close(&model->dir);
    free(model->name);
    model->name = NULL;
}

static enum weir_status digest_of(struct weir_model *model, struct weir_error *error)
{
    char hex[WEIR_SHA256_HEX_BYTES];
    const char *const *components = weir_pipeline_components(model->pipeline);
    size_t count = 0;
    while (components[count]) count++;
    const enum weir_status status = weir_model_dir_digest(model->dir, components, count, false, hex, error);
    if (status == WEIR_OK && !weir_hex_read(hex, model->digest, sizeof model->digest)) {
        return weir_fail(error, WEIR_INTERNAL, "model %s: its digest is no digest", model->name);
    }
    return status;
}

enum weir_status weir_models_add(struct weir_models *models, const char *dir_or_name, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_model model = { 0 };
    if (models->count == WEIR_MODELS_MAX) {
        return weir_fail(error, WEIR_TOO_LARGE, "--model %s: a worker serves at most %d", dir_or_name, WEIR_MODELS_MAX);
    }
    WEIR_TRY(weir_model_dir_open(dir_or_name, NULL, &model.dir, error));
    model.name = name_of(dir_or_name, model.dir);
    if (!model.name) WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "no memory for a model's name"));
    for (size_t i = 0; i < models->count; i++) {
        if (strcmp(models->items[i].name, model.name) != 0) continue;
        WEIR_TRY(weir_fail(error, WEIR_CONFLICT, "--model %s: %s has the name %s too", dir_or_name,
                           weir_model_dir_path(models->items[i].dir), model.name));
    }
    WEIR_TRY(weir_pipeline_open(model.dir, &model.pipeline, error));
    WEIR_TRY(weir_pipeline_open(model.dir, &model.quotes, error));
    WEIR_TRY(digest_of(&model, error));
    models->items[models->count++] = model;
cleanup:
    if (status != WEIR_OK) close_one(&model);
    return status;
}

void weir_models_close(struct weir_models *models)
{
    while (models->count > 0) close_one(&models->items[--models->count]);
}

const struct weir_model *weir_models_find(const struct weir_models *models, const char *name)
{
    if (!name || !name[0]) return models->count == 1 ? &models->items[0] : NULL;
    for (size_t i = 0; i < models->count; i++) {
        if (strcmp(models->items[i].name, name) == 0) return &models->items[i];
    }
    return NULL;
}
