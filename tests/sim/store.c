#include "tests/sim/world_internal.h"

#include <stdlib.h>
#include <string.h>

static uint64_t hash_text(const char *text)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (; *text != 0; text++) hash = (hash ^ (uint8_t)*text) * 0x100000001b3u;
    return hash;
}

struct sim_object *sim_find(struct sim *sim, const char *key)
{
    const uint64_t hash = hash_text(key);
    for (size_t k = sim->object_count; k > 0; k--) {
        struct sim_object *object = &sim->objects[k - 1];
        if (object->hash == hash && !object->gone && strcmp(object->key, key) == 0) return object;
    }
    return NULL;
}

void sim_put(struct sim *sim, const char *key, uint64_t bytes, uint64_t made)
{
    if (sim_find(sim, key) != NULL) return; /* objects never change */
    if (sim->object_count == SIM_OBJECTS_MAX) {
        check_fail(&sim->check, "over %d objects in one seed", SIM_OBJECTS_MAX);
        return;
    }
    char *own = sim_memory(sim, strlen(key) + 1);
    strcpy(own, key);
    sim->objects[sim->object_count++] = (struct sim_object){ own, hash_text(key), bytes, made, false };
}

enum weir_status sim_stat(void *context, const char *key, uint64_t *bytes, struct weir_error *error)
{
    const struct sim_object *object = sim_find(context, key);
    if (object == NULL) return weir_fail(error, WEIR_NOT_FOUND, "%s is not there", key);
    *bytes = object->bytes;
    return WEIR_OK;
}

enum weir_status sim_list(void *context, const char *prefix, bool (*each)(void *each_context, const char *key),
                          void *each_context, struct weir_error *error)
{
    struct sim *sim = context;
    const size_t count = strlen(prefix);
    (void)error;
    for (size_t k = 0; k < sim->object_count; k++) {
        const struct sim_object *object = &sim->objects[k];
        if (!object->gone && strncmp(object->key, prefix, count) == 0 && !each(each_context, object->key)) break;
    }
    return WEIR_OK;
}

enum weir_status sim_remove(void *context, const char *prefix, struct weir_error *error)
{
    struct sim *sim = context;
    const size_t count = strlen(prefix);
    (void)error;
    for (size_t k = 0; k < sim->object_count; k++) {
        if (strncmp(sim->objects[k].key, prefix, count) == 0) sim->objects[k].gone = true;
    }
    return WEIR_OK;
}

uint32_t sim_newest_checkpoint(struct sim *sim, const struct weir_task_id *task)
{
    char prefix[WEIR_KEY_BYTES];
    weir_key_checkpoints("default", task, prefix);
    const size_t count = strlen(prefix);
    uint32_t newest = 0;
    for (size_t k = 0; k < sim->object_count; k++) {
        const struct sim_object *object = &sim->objects[k];
        if (object->gone || object->made != 0 || strncmp(object->key, prefix, count) != 0) continue;
        const uint32_t step = (uint32_t)strtoul(strrchr(object->key, '/') + 1, NULL, 10);
        if (step > newest) newest = step;
    }
    return newest;
}
