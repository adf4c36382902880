#include "worker/model_places.h"

#include "worker/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_BYTES_MAX 64
#define REVISION_BYTES_MAX 64
#define REF_BYTES_MAX 256
#define LISTED_MAX 4096

static const char hub_prefix[] = "models--";

/* A folder of models: one a subfolder, or a hub cache. */
struct shelf {
    char *path;
    bool hub;
};

struct shelves {
    struct shelf list[WEIR_MODEL_PLACES_MAX];
    size_t count;
};

bool weir_model_name_is_valid(const char *name)
{
    const size_t length = strlen(name);
    if (length < 1 || length > NAME_BYTES_MAX) return false;
    if (strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789._-") != length) return false;
    return !strchr("._-", name[0]);
}

static enum weir_status fail_memory(struct weir_error *error)
{
    return weir_fail(error, WEIR_NO_MEMORY, "no memory to look for models");
}

static enum weir_status add_shelf(struct shelves *shelves, bool hub, const char *path, size_t path_bytes,
                                  const char *more, struct weir_error *error)
{
    if (path_bytes == 0) return WEIR_OK;
    if (shelves->count == WEIR_MODEL_PLACES_MAX) {
        return weir_fail(error, WEIR_TOO_LARGE, "WEIR_MODELS: more than %d folders to look in", WEIR_MODEL_PLACES_MAX);
    }
    struct shelf *shelf = &shelves->list[shelves->count];
    shelf->hub = hub;
    if (asprintf(&shelf->path, "%.*s%s", (int)path_bytes, path, more) < 0) {
        shelf->path = NULL;
        return fail_memory(error);
    }
    shelves->count++;
    return WEIR_OK;
}

static enum weir_status add_hub(struct shelves *shelves, struct weir_error *error)
{
    static const struct {
        const char *variable, *more;
    } homes[] = { { "HF_HUB_CACHE", "" },
                  { "HF_HOME", "/hub" },
                  { "XDG_CACHE_HOME", "/huggingface/hub" },
                  { "HOME", "/.cache/huggingface/hub" } };
    for (size_t i = 0; i < WEIR_COUNT(homes); i++) {
        const char *path = getenv(homes[i].variable);
        if (path && *path) return add_shelf(shelves, true, path, strlen(path), homes[i].more, error);
    }
    return WEIR_OK;
}

static void shelves_deinit(struct shelves *shelves)
{
    for (size_t i = 0; i < shelves->count; i++) free(shelves->list[i].path);
    shelves->count = 0;
}

static enum weir_status shelves_init(struct shelves *shelves, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const char *own = getenv("WEIR_MODELS");
    shelves->count = 0;
    while (own && *own) {
        const size_t bytes = strcspn(own, ":");
        WEIR_TRY(add_shelf(shelves, false, own, bytes, "", error));
        own += bytes + (own[bytes] == ':');
    }
    WEIR_TRY(add_shelf(shelves, false, WEIR_MODELS_SOURCE, strlen(WEIR_MODELS_SOURCE), "", error));
    WEIR_TRY(add_shelf(shelves, false, WEIR_MODELS_INSTALLED, strlen(WEIR_MODELS_INSTALLED), "", error));
    WEIR_TRY(add_hub(shelves, error));
cleanup:
    if (status != WEIR_OK) shelves_deinit(shelves);
    return status;
}

void weir_model_place_deinit(struct weir_model_place *place)
{
    free(place->root);
    free(place->inside);
    *place = (struct weir_model_place){ 0 };
}

static bool is_revision(const char *text)
{
    const size_t length = strlen(text);
    return length >= 1 && length <= REVISION_BYTES_MAX && text[0] != '.' &&
           strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == length;
}

static bool is_hub_folder(const char *name)
{
    return strncmp(name, hub_prefix, sizeof hub_prefix - 1) == 0;
}

/* The revision that refs/main names; without refs/main, the only snapshot. */
static enum weir_status main_revision(const char *root, char out[REVISION_BYTES_MAX + 1], struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_folder folder = { .root_fd = -1 };
    char *text = NULL, **names = NULL;
    size_t bytes = 0, count = 0;

    bool found = false;
    WEIR_TRY(weir_folder_init(&folder, root, "", true, error));
    WEIR_TRY(weir_folder_find_file(&folder, "refs/main", &found, error));
    if (found) {
        WEIR_TRY(weir_folder_read_file(&folder, "refs/main", REF_BYTES_MAX, &text, &bytes, error));
        text[strcspn(text, " \r\n")] = '\0';
        if (!is_revision(text)) {
            status = weir_fail(error, WEIR_BAD_MODEL, "%s/refs/main: \"%.64s\" is not a revision", root, text);
            goto cleanup;
        }
        strcpy(out, text);
        goto cleanup;
    }
    WEIR_TRY(weir_folder_names(&folder, "snapshots", &names, &count, error));
    if (count != 1 || !is_revision(names[0])) {
        status = weir_fail(error, WEIR_NOT_FOUND, "%s: no refs/main and %zu snapshots: give one snapshot's folder",
                           root, count);
        goto cleanup;
    }
    strcpy(out, names[0]);

cleanup:
    weir_folder_names_free(&names, count);
    free(text);
    weir_folder_deinit(&folder);
    return status;
}

/* `path` is absolute and without symlinks. A snapshot's root is two folders up. */
static bool split_snapshot(char *path, const char **inside)
{
    char *revision = strrchr(path, '/');
    if (!revision || revision == path) return false;
    *revision = '\0';
    char *snapshots = strrchr(path, '/');
    *revision = '/';
    if (!snapshots || snapshots == path || strncmp(snapshots, "/snapshots/", 11) != 0) return false;
    *snapshots = '\0';
    const char *folder = strrchr(path, '/');
    if (folder && is_hub_folder(folder + 1)) {
        *inside = snapshots + 1;
        return true;
    }
    *snapshots = '/';
    return false;
}

/* True when `link` of the folder leads to ../SIBLING/..., and SIBLING is a model folder itself. */
static bool leads_to_sibling_model(int folder, const char *link)
{
    char target[PATH_MAX], index[PATH_MAX + sizeof "/model_index.json"];
    struct stat facts;
    const ssize_t length = readlinkat(folder, link, target, sizeof target - 1);
    if (length < 0) return false;
    target[length] = '\0';
    if (strncmp(target, "../", 3) != 0 || target[3] == '.' || target[3] == '/') return false;
    const size_t sibling = 3 + strcspn(target + 3, "/");
    if (target[sibling] == '\0') return false;
    snprintf(index, sizeof index, "%.*s/model_index.json", (int)sibling, target);
    return fstatat(folder, index, &facts, 0) == 0 && S_ISREG(facts.st_mode);
}

/* `path` is absolute and without symlinks. What two models of one family have in common lies in one of them, and the
 * other has links to it; such a folder's root is the folder that holds both. */
static void split_sibling(char *path, const char **inside)
{
    char *name = strrchr(path, '/');
    DIR *stream = name == path ? NULL : opendir(path);
    bool found = false;
    if (!stream) return;
    for (const struct dirent *entry; !found && (entry = readdir(stream));)
        found = leads_to_sibling_model(dirfd(stream), entry->d_name);
    closedir(stream);
    if (!found) return;
    *name = '\0';
    *inside = name + 1;
}

/* What a folder that exists is: a model of its own, a hub cache's folder of one, or a snapshot in such a folder. */
static enum weir_status place_at(const char *path, struct weir_model_place *out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    char revision[REVISION_BYTES_MAX + 1];
    const char *inside = "";
    char *whole = realpath(path, NULL), *made = NULL;
    struct stat facts;

    if (!whole) {
        if (errno == ENOMEM) return fail_memory(error);
        return weir_fail(error, errno == ENOENT || errno == ENOTDIR ? WEIR_NOT_FOUND : WEIR_IO, "%.200s: %s", path,
                         errno == ENOENT ? "no such folder" : strerror(errno));
    }
    if (stat(whole, &facts) != 0 || !S_ISDIR(facts.st_mode)) {
        status = weir_fail(error, WEIR_NOT_FOUND, "%.200s: not a folder", path);
        goto cleanup;
    }
    const char *name = strrchr(whole, '/') + 1;
    bool hub = split_snapshot(whole, &inside);
    if (!hub && is_hub_folder(name)) {
        WEIR_TRY(main_revision(whole, revision, error));
        if (asprintf(&made, "snapshots/%s", revision) < 0) made = NULL;
        hub = true;
    } else {
        if (!hub) split_sibling(whole, &inside);
        made = strdup(inside);
    }
    if (!made) {
        status = weir_fail(error, WEIR_NO_MEMORY, "%.200s: no memory to open it", path);
        goto cleanup;
    }
    *out = (struct weir_model_place){ .root = whole, .inside = made, .hub = hub };
    whole = made = NULL;

cleanup:
    free(whole);
    free(made);
    return status;
}

static bool is_folder(const char *path)
{
    struct stat facts;
    return stat(path, &facts) == 0 && S_ISDIR(facts.st_mode);
}

/* "models--ORG--NAME" -> ORG and NAME; false when it is not of that form. Names may hold single dashes only. */
static bool split_hub_folder(const char *folder, const char **organisation, size_t *organisation_bytes,
                             const char **name)
{
    if (!is_hub_folder(folder)) return false;
    *organisation = folder + sizeof hub_prefix - 1;
    const char *middle = strstr(*organisation, "--");
    if (!middle || middle == *organisation || !middle[2]) return false;
    *organisation_bytes = (size_t)(middle - *organisation);
    *name = middle + 2;
    return true;
}

/* Looks for any ORG's NAME. `*found` is set to a new path, or left NULL. */
static enum weir_status search_hub(const char *hub, const char *wanted, char **found, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct dirent *entry;
    const char *organisation, *name;
    size_t organisation_bytes, looked = 0;
    DIR *stream = opendir(hub);
    while (stream && looked++ < LISTED_MAX && (entry = readdir(stream))) {
        if (!split_hub_folder(entry->d_name, &organisation, &organisation_bytes, &name)) continue;
        if (strcasecmp(name, wanted) != 0) continue;
        if (*found) {
            status = weir_fail(error, WEIR_CONFLICT, "model %s: %s and %s are both in %.160s: give ORG/NAME", wanted,
                               strrchr(*found, '/') + 1, entry->d_name, hub);
            break;
        }
        if (asprintf(found, "%s/%s", hub, entry->d_name) < 0) {
            *found = NULL;
            status = fail_memory(error);
            break;
        }
    }
    if (stream) closedir(stream);
    if (status != WEIR_OK) {
        free(*found);
        *found = NULL;
    }
    return status;
}

/* SHELF/NAME as a new path when it has a model_index.json; else `*path` stays NULL. */
static enum weir_status search_folder(const char *shelf, const char *name, char **path, struct weir_error *error)
{
    char *index = NULL;
    if (asprintf(&index, "%s/%s/model_index.json", shelf, name) < 0) return fail_memory(error);
    if (access(index, F_OK) == 0 && asprintf(path, "%s/%s", shelf, name) < 0) {
        *path = NULL;
        free(index);
        return fail_memory(error);
    }
    free(index);
    return WEIR_OK;
}

static enum weir_status find_name(const struct shelves *shelves, const char *name, char **found,
                                  struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    char looked[256] = "";
    for (size_t i = 0; i < shelves->count && !*found; i++) {
        const struct shelf *shelf = &shelves->list[i];
        const size_t used = strlen(looked);
        snprintf(looked + used, sizeof looked - used, "%s%s", i ? ", " : "", shelf->path);
        if (shelf->hub) {
            WEIR_TRY(search_hub(shelf->path, name, found, error));
        } else {
            WEIR_TRY(search_folder(shelf->path, name, found, error));
        }
    }
    if (!*found && is_folder(name)) {
        *found = strdup(name);
        return *found ? WEIR_OK : fail_memory(error);
    }
    if (!*found) {
        status = weir_fail(error, WEIR_NOT_FOUND, "model %s: not found in %s, nor is it a folder here", name, looked);
    }
cleanup:
    return status;
}

/* ORG/NAME in the hub caches. `*found` stays NULL when the words have another form or nothing is there. */
static enum weir_status find_repository(const struct shelves *shelves, const char *words, char **found,
                                        struct weir_error *error)
{
    const char *slash = strchr(words, '/');
    if (!slash || slash == words || !slash[1] || strchr(slash + 1, '/') || words[0] == '.') return WEIR_OK;
    for (size_t i = 0; i < shelves->count && !*found; i++) {
        if (!shelves->list[i].hub) continue;
        if (asprintf(found, "%s/%s%.*s--%s", shelves->list[i].path, hub_prefix, (int)(slash - words), words,
                     slash + 1) < 0) {
            *found = NULL;
            return fail_memory(error);
        }
        if (!is_folder(*found)) {
            free(*found);
            *found = NULL;
        }
    }
    return WEIR_OK;
}

enum weir_status weir_model_place_find(const char *dir_or_name, struct weir_model_place *out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct shelves shelves = { .count = 0 };
    char *found = NULL;

    *out = (struct weir_model_place){ 0 };
    if (!*dir_or_name || strlen(dir_or_name) >= PATH_MAX) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "model: its path has %zu bytes, wanted 1 to %d", strlen(dir_or_name),
                         PATH_MAX - 1);
    }
    WEIR_TRY(shelves_init(&shelves, error));
    if (weir_model_name_is_valid(dir_or_name)) {
        WEIR_TRY(find_name(&shelves, dir_or_name, &found, error));
    } else if (!is_folder(dir_or_name)) {
        WEIR_TRY(find_repository(&shelves, dir_or_name, &found, error));
    }
    status = place_at(found ? found : dir_or_name, out, error);

cleanup:
    free(found);
    shelves_deinit(&shelves);
    return status;
}

struct seen {
    char **names;
    size_t count;
};

static bool is_new(struct seen *seen, const char *name)
{
    for (size_t i = 0; i < seen->count; i++) {
        if (strcmp(seen->names[i], name) == 0) return false;
    }
    if (seen->count == LISTED_MAX) return false;
    char *copy = strdup(name);
    if (!copy) return false;
    seen->names[seen->count++] = copy;
    return true;
}

/* The name under which an entry of a shelf can be asked for, and where it is; false when it is no model. */
static bool name_of_entry(const struct shelf *shelf, const char *entry, char *name, size_t name_bytes, char **path)
{
    const char *organisation, *short_name;
    size_t organisation_bytes;
    if (!shelf->hub) {
        snprintf(name, name_bytes, "%s", entry);
        return weir_model_name_is_valid(entry) && search_folder(shelf->path, entry, path, NULL) == WEIR_OK && *path;
    }
    if (!split_hub_folder(entry, &organisation, &organisation_bytes, &short_name)) return false;
    snprintf(name, name_bytes, "%.*s/%s", (int)organisation_bytes, organisation, short_name);
    return asprintf(path, "%s/%s", shelf->path, entry) >= 0;
}

static bool opens(const char *path)
{
    struct weir_model_place place = { 0 };
    struct weir_folder folder = { .root_fd = -1 };
    bool found = false;
    const bool opened = place_at(path, &place, NULL) == WEIR_OK &&
                        weir_folder_init(&folder, place.root, place.inside, place.hub, NULL) == WEIR_OK &&
                        weir_folder_find_file(&folder, "model_index.json", &found, NULL) == WEIR_OK && found;
    weir_folder_deinit(&folder);
    weir_model_place_deinit(&place);
    return opened;
}

static int plain_entries(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void list_shelf(const struct shelf *shelf, struct seen *seen,
                       void (*each)(void *context, const char *name, const char *path), void *context)
{
    struct dirent **entries = NULL;
    const int count = scandir(shelf->path, &entries, plain_entries, by_bytes);
    for (int i = 0; i < count; i++) {
        char name[NAME_MAX + 2], *path = NULL;
        if (i < LISTED_MAX && name_of_entry(shelf, entries[i]->d_name, name, sizeof name, &path) && opens(path) &&
            is_new(seen, name)) {
            each(context, name, path);
        }
        free(path);
        free(entries[i]);
    }
    free(entries);
}

void weir_model_places_list(void (*each)(void *context, const char *name, const char *path), void *context)
{
    struct shelves shelves;
    struct seen seen = { .names = calloc(LISTED_MAX, sizeof *seen.names) };
    if (seen.names && shelves_init(&shelves, NULL) == WEIR_OK) {
        for (size_t i = 0; i < shelves.count; i++) list_shelf(&shelves.list[i], &seen, each, context);
        shelves_deinit(&shelves);
    }
    for (size_t i = 0; i < seen.count; i++) free(seen.names[i]);
    free(seen.names);
}
