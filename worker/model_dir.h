/* model_dir: a model as it lies on disk: diffusers' folder layout, on its own or in a hub cache.
 *
 *   MODEL/model_index.json          which pipeline class, which components of which class
 *   MODEL/COMPONENT/config.json     (scheduler/scheduler_config.json)
 *   MODEL/COMPONENT/STEM.safetensors  weights.h
 *   MODEL/tokenizer/...             read with weir_model_dir_read
 *   MODEL/weir.json                 optional: what to use where a request says nothing
 *
 * Where    a DIR is any path with a slash in it, or `.`; a hub cache's models--ORG--NAME or a snapshot in it will do.
 *          A NAME, ^[a-z0-9][a-z0-9._-]{0,63}$, is looked up in $WEIR_MODELS (folders of models, separated by colons),
 *          the source tree's deploy/models, the install prefix, the hub cache ($HF_HUB_CACHE, $HF_HOME/hub,
 *          ~/.cache/huggingface/hub; any ORG, letter case aside), and last as a folder here. ORG/NAME is looked up in
 *          the hub cache when there is no such folder.
 * Safety   files are data: no pickle, no code. Nothing outside of the model's root is read (folder.h).
 * Memory   texts live as long as the model
 * Errors   NOT_FOUND (words list where was looked), BAD_MODEL, BAD_FILE, TOO_LARGE, CONFLICT (a NAME of two ORGs), IO
 * Threads  reading is safe from any; open and close belong to one
 */
#ifndef WEIR_WORKER_MODEL_DIR_H
#define WEIR_WORKER_MODEL_DIR_H

#include "proto/base/bytes.h"
#include "worker/config.h"
#include "worker/model_index.h"
#include "worker/weights.h"

struct weir_model_dir;

/* `variant` names a set of weights ("fp16"), or NULL: see weights.h. */
enum weir_status weir_model_dir_open(const char *dir_or_name, const char *variant, struct weir_model_dir **out,
                                     struct weir_error *error);
void weir_model_dir_close(struct weir_model_dir **model_p);

const char *weir_model_dir_path(const struct weir_model_dir *model);       /* absolute */
const char *weir_model_dir_class_name(const struct weir_model_dir *model); /* "TextToVideoSDPipeline" */
/* weir.json, or all absent. */
const struct weir_defaults *weir_model_dir_defaults(const struct weir_model_dir *model);

size_t weir_model_dir_component_count(const struct weir_model_dir *model);
const struct weir_component *weir_model_dir_component_at(const struct weir_model_dir *model, size_t index);
/* NULL when model_index.json does not name it, or says [null, null]. */
const struct weir_component *weir_model_dir_component(const struct weir_model_dir *model, const char *name);
/* BAD_MODEL unless the component is there with one of the classes (NULL-terminated). */
enum weir_status weir_model_dir_require(const struct weir_model_dir *model, const char *name,
                                        const char *const *classes, struct weir_error *error);

/* COMPONENT/config.json; COMPONENT/scheduler_config.json where that is there instead. */
enum weir_status weir_model_dir_config(const struct weir_model_dir *model, const char *component,
                                       struct weir_config **out, struct weir_error *error);
enum weir_status weir_model_dir_weights(const struct weir_model_dir *model, const char *component,
                                        struct weir_weights **out, struct weir_error *error);
/* Any file inside, whole, with a NUL after its bytes; freed with free(). */
enum weir_status weir_model_dir_read(const struct weir_model_dir *model, const char *path, size_t bytes_max, char **out,
                                     size_t *out_bytes, struct weir_error *error);
/* False also where it cannot be looked at: reading it says why. */
bool weir_model_dir_has(const struct weir_model_dir *model, const char *path);

/* The model digest: SHA-256 over the lines that `sha256sum` prints for the files used, sorted by path: 64 hex digits,
 * two spaces, path within the model, newline. The files are model_index.json, weir.json, and of every component in
 * `components` (NULL: all that are there) its configs, tokenizer files and chosen weights; a worker with one stage and
 * a worker with all of them thus agree when they give the same list.
 * Files are hashed side by side. A file's hash is remembered under ${XDG_CACHE_HOME:-~/.cache}/weir by (device, inode, size, mtime); a hub blob named
 * by 64 hex digits is taken at its word. `verify` reads every byte again, and BAD_FILE names a blob that lies. */
enum weir_status weir_model_dir_digest(const struct weir_model_dir *model, const char *const *components, size_t count,
                                       bool verify, char out[WEIR_SHA256_HEX_BYTES], struct weir_error *error);

/* Calls `each` once for every name that weir_model_dir_open would find, in the order of the search; a name hidden by an
 * earlier one is left out. At most 4,096 a folder are looked at. */
void weir_model_dir_list(void (*each)(void *context, const char *name, const char *path), void *context);

#endif
