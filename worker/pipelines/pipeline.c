/* The driver that all families share: which family a folder is of, loading, planning, keys. The runs have files of
 * their own: text.c, denoiser.c, decoder.c. */
#include "worker/pipelines/internal.h"
#include "worker/model_dir.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __GLIBC__ /* which <stdlib.h> has said */
#include <malloc.h>
#endif

#define FAMILY_WORDS 128
#define WHOLE_BYTES_MAX ((uint64_t)2 << 30) /* bands do some rows twice: 1024 x 1024 in 1.5 GiB goes without */

static const struct weir_pipeline_family *const families[] = { &weir_pipeline_modelscope, &weir_pipeline_sana,
                                                               &weir_pipeline_sana_control,
                                                               &weir_pipeline_sana_sprint };

const char *weir_pipeline_stage_name(enum weir_pipeline_stage stage)
{
    static const char *const names[WEIR_PIPELINE_NET_COUNT] = { "text", "denoise", "decode", "encode" };
    return (unsigned)stage < WEIR_PIPELINE_NET_COUNT ? names[stage] : "none";
}

/* ---- the model understood ---- */

static const struct weir_pipeline_family *family_of(const char *class_name)
{
    for (size_t i = 0; i < WEIR_COUNT(families); i++) {
        if (strcmp(families[i]->class_name, class_name) == 0) return families[i];
    }
    return NULL;
}

enum weir_status weir_pipeline_open(const struct weir_model_dir *model, struct weir_pipeline **out,
                                    struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const char *class_name = weir_model_dir_class_name(model);
    const struct weir_pipeline_family *family = family_of(class_name);
    if (!family) {
        char names[FAMILY_WORDS] = "";
        for (size_t i = 0, at = 0; i < WEIR_COUNT(families); i++) {
            at += (size_t)snprintf(names + at, sizeof names - at, i ? ", %s" : "%s", families[i]->class_name);
            assert(at < sizeof names);
        }
        return weir_fail(error, WEIR_UNSUPPORTED, "%s: _class_name is \"%.64s\"; this build runs %s",
                         weir_model_dir_path(model), class_name, names);
    }
    struct weir_pipeline *pipeline = calloc(1, sizeof *pipeline);
    if (!pipeline) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a pipeline");
    pthread_mutex_init(&pipeline->lock, NULL);
    pthread_mutex_init(&pipeline->loading, NULL);
    pipeline->family = family;
    pipeline->model = model;
    pipeline->guidance_factor = pipeline->time_factor = pipeline->latent_factor = 1;
    const uint64_t whole_mib = (uint64_t)weir_model_dir_defaults(model)->decode_whole_mib;
    pipeline->whole_max = whole_mib ? whole_mib << 20 : WHOLE_BYTES_MAX;
    WEIR_TRY(family->open(pipeline, &pipeline->state, error));
    *out = pipeline;
    pipeline = NULL;
cleanup:
    weir_pipeline_close(&pipeline);
    return status;
}

void weir_pipeline_close(struct weir_pipeline **pipeline_p)
{
    struct weir_pipeline *pipeline = *pipeline_p;
    if (!pipeline) return;
    for (int stage = 0; stage < WEIR_PIPELINE_NET_COUNT; stage++) {
        weir_pipeline_unload(pipeline, (enum weir_pipeline_stage)stage);
    }
    if (pipeline->state) pipeline->family->close(pipeline->state);
    pthread_mutex_destroy(&pipeline->lock);
    pthread_mutex_destroy(&pipeline->loading);
    free(pipeline);
    *pipeline_p = NULL;
}

const struct weir_model_facts *weir_pipeline_facts(const struct weir_pipeline *pipeline)
{
    return &pipeline->facts;
}

const char *const *weir_pipeline_components(const struct weir_pipeline *pipeline)
{
    return pipeline->family->components;
}

static size_t count_texts(const char *const *texts)
{
    size_t count = 0;
    while (texts[count]) count++;
    return count;
}

static enum weir_status text_digest(struct weir_pipeline *pipeline, char out[WEIR_SHA256_HEX_BYTES],
                                    struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const char *const *components = pipeline->family->text_components;
    pthread_mutex_lock(&pipeline->lock);
    if (!pipeline->text_digest[0]) {
        WEIR_TRY(weir_model_dir_digest(pipeline->model, components, count_texts(components), false,
                                       pipeline->text_digest, error));
    }
    memcpy(out, pipeline->text_digest, WEIR_SHA256_HEX_BYTES);
cleanup:
    pthread_mutex_unlock(&pipeline->lock);
    return status;
}

enum weir_status weir_pipeline_text_tokens(const struct weir_pipeline *pipeline, const char *text, bool is_negative,
                                           uint32_t *real, uint32_t *whole, struct weir_error *error)
{
    struct weir_text_tokens tokens = { 0 };
    int32_t *ids = malloc(pipeline->text_window * sizeof *ids);
    if (!ids) return weir_fail(error, WEIR_NO_MEMORY, "no memory for %u token ids", pipeline->text_window);
    const enum weir_status status = pipeline->family->tokens(pipeline, text, is_negative, ids, &tokens, error);
    *real = tokens.real;
    *whole = tokens.whole;
    free(ids);
    return status;
}

enum weir_status weir_pipeline_check_sampler(const struct weir_pipeline *pipeline, const struct weir_item *item,
                                             struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_error why;
    struct weir_sampler_config config;
    struct weir_sampler *sampler = NULL;
    WEIR_TRY(pipeline->family->sampler_config(pipeline, item->sampler, &config, error));
    status = weir_sampler_create(&config, item->steps, &sampler, &why);
    if (status == WEIR_NO_MEMORY)
        *error = why;
    else if (status != WEIR_OK)
        status = weir_fail(error, WEIR_BAD_ARGUMENT, "--steps %u with --sampler %s: %s", item->steps,
                           weir_item_sampler_name(item->sampler), why.words);
cleanup:
    weir_sampler_destroy(&sampler);
    return status;
}

enum weir_status weir_pipeline_walk(const struct weir_pipeline *pipeline, const struct weir_item *item, uint32_t *steps,
                                    bool *looks_back, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_sampler *sampler = NULL;
    struct weir_sampler_start start;
    WEIR_TRY(weir_pipeline_sampler(pipeline, item, &sampler, &start, error));
    *steps = weir_sampler_step_count(sampler);
    *looks_back = weir_sampler_state_bytes(sampler, 1) > 0;
cleanup:
    weir_sampler_destroy(&sampler);
    return status;
}

enum weir_status weir_pipeline_sampler(const struct weir_pipeline *pipeline, const struct weir_item *item,
                                       struct weir_sampler **out, struct weir_sampler_start *start,
                                       struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_sampler_config config;
    WEIR_TRY(pipeline->family->sampler_config(pipeline, item->sampler, &config, error));
    WEIR_TRY(weir_sampler_create(&config, item->steps, out, error));
    if (item->has_start) WEIR_TRY(weir_sampler_start_at(*out, weir_item_first_step(item), start, error));
cleanup:
    if (status != WEIR_OK) weir_sampler_destroy(out);
    return status;
}

enum weir_status weir_pipeline_text_key(struct weir_pipeline *pipeline, const char *numerics_class, const char *text,
                                        bool is_negative, char out[WEIR_SHA256_HEX_BYTES], struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const uint32_t window = pipeline->text_window;
    char digest[WEIR_SHA256_HEX_BYTES];
    uint8_t sum[WEIR_SHA256_BYTES], word[4];
    struct weir_text_tokens tokens;
    struct weir_sha256 sha;
    int32_t *ids = malloc(window * sizeof *ids);
    if (!ids) return weir_fail(error, WEIR_NO_MEMORY, "no memory for %u token ids", window);

    WEIR_TRY(pipeline->family->tokens(pipeline, text, is_negative, ids, &tokens, error));
    WEIR_TRY(text_digest(pipeline, digest, error));
    weir_sha256_init(&sha);
    weir_sha256_update(&sha, digest, WEIR_SHA256_HEX_BYTES);
    weir_sha256_update(&sha, numerics_class, strlen(numerics_class) + 1);
    weir_store_u32(word, window);
    weir_sha256_update(&sha, word, sizeof word);
    weir_store_u32(word, tokens.first); /* the same ids may be read for other outputs */
    weir_sha256_update(&sha, word, sizeof word);
    for (uint32_t i = 0; i < window; i++) {
        weir_store_u32(word, (uint32_t)ids[i]);
        weir_sha256_update(&sha, word, sizeof word);
    }
    weir_sha256_final(&sha, sum);
    weir_hex_write(sum, sizeof sum, out);
cleanup:
    free(ids);
    return status;
}

/* ---- weights ---- */

static enum weir_status check_stage(const struct weir_pipeline *pipeline, enum weir_pipeline_stage stage,
                                    struct weir_error *error)
{
    if (stage != WEIR_PIPELINE_ENCODE || pipeline->facts.control || pipeline->facts.start) return WEIR_OK;
    return weir_fail(error, WEIR_UNSUPPORTED, "%s: a model of the family %s encodes no pictures",
                     weir_model_dir_path(pipeline->model), pipeline->family->name);
}

/* That all stages are on one device: this one, from now on. */
static enum weir_status choose_device(struct weir_pipeline *pipeline, struct weir_device *device,
                                      struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    pthread_mutex_lock(&pipeline->loading);
    for (int other = 0; other < WEIR_PIPELINE_NET_COUNT; other++) {
        if (!pipeline->nets[other] || pipeline->device == device) continue;
        WEIR_TRY(weir_fail(error, WEIR_BAD_ARGUMENT, "%s: its stage %s is on another device",
                           weir_model_dir_path(pipeline->model),
                           weir_pipeline_stage_name((enum weir_pipeline_stage)other)));
    }
    if (pipeline->device != device) pipeline->device = device;
cleanup:
    pthread_mutex_unlock(&pipeline->loading);
    return status;
}

static void set_net(struct weir_pipeline *pipeline, enum weir_pipeline_stage stage, void *net)
{
    pthread_mutex_lock(&pipeline->loading);
    pipeline->nets[stage] = net;
    pthread_mutex_unlock(&pipeline->loading);
}

enum weir_status weir_pipeline_load(struct weir_pipeline *pipeline, struct weir_device *device,
                                    enum weir_pipeline_stage stage, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    void *net = NULL;
    if (pipeline->nets[stage]) return WEIR_OK;
    WEIR_TRY(check_stage(pipeline, stage, error));
    WEIR_TRY(choose_device(pipeline, device, error));
    WEIR_TRY(pipeline->family->net_open(pipeline, device, stage, false, &net, error));
    set_net(pipeline, stage, net);
cleanup:
    return status;
}

void weir_pipeline_unload(struct weir_pipeline *pipeline, enum weir_pipeline_stage stage)
{
    if (!pipeline->nets[stage]) return;
    pipeline->family->net_close(stage, pipeline->nets[stage]);
    set_net(pipeline, stage, NULL);
#ifdef __GLIBC__ /* which else keeps what layers leave between others: room that the next stage counts on */
    malloc_trim(0);
#endif
}

bool weir_pipeline_loaded(const struct weir_pipeline *pipeline, enum weir_pipeline_stage stage)
{
    return pipeline->nets[stage] != NULL;
}

uint64_t weir_pipeline_weight_bytes(const struct weir_pipeline *pipeline, enum weir_pipeline_stage stage)
{
    return pipeline->nets[stage] ? pipeline->family->net_bytes(stage, pipeline->nets[stage]) : 0;
}

enum weir_status weir_pipeline_net(const struct weir_pipeline *pipeline, enum weir_pipeline_stage stage, void **net,
                                   struct weir_error *error)
{
    *net = pipeline->nets[stage];
    if (*net) return WEIR_OK;
    return weir_fail(error, WEIR_BAD_ARGUMENT, "%s: stage %s is not loaded", weir_model_dir_path(pipeline->model),
                     weir_pipeline_stage_name(stage));
}

enum weir_status weir_pipeline_lora(const struct weir_pipeline *pipeline, const void *bytes, size_t count,
                                    const char *label, struct weir_lora **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    void *net;
    WEIR_TRY(weir_pipeline_net(pipeline, WEIR_PIPELINE_DENOISE, &net, error));
    WEIR_TRY(weir_lora_parse(bytes, count, label, pipeline->family->adapted_params(net), out, error));
cleanup:
    return status;
}

/* ---- memory ---- */

static enum weir_status plan_run(struct weir_pipeline *pipeline, struct weir_device *device, const void *net,
                                 enum weir_pipeline_stage stage, const struct weir_item *item, uint32_t seats,
                                 struct weir_pipeline_memory *out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_text *text = NULL;
    struct weir_denoiser *denoiser = NULL;
    struct weir_encoder *encoder = NULL;
    struct weir_decoder *decoder = NULL;
    switch (stage) {
    case WEIR_PIPELINE_TEXT:
        WEIR_TRY(weir_text_plan(pipeline, device, net, &text, error));
        out->host = weir_text_host_bytes(text);
        out->arena = weir_text_bytes(text) - out->host;
        break;
    case WEIR_PIPELINE_DENOISE:
        WEIR_TRY(weir_denoiser_plan(pipeline, device, net, item, seats, &denoiser, error));
        out->host = weir_denoiser_host_bytes(denoiser);
        out->arena = weir_denoiser_bytes(denoiser) - out->host;
        break;
    case WEIR_PIPELINE_ENCODE:
        WEIR_TRY(weir_encoder_plan(pipeline, device, net, item, &encoder, error));
        out->host = weir_encoder_host_bytes(encoder);
        out->arena = weir_encoder_bytes(encoder) - out->host;
        break;
    default:
        WEIR_TRY(weir_decoder_plan(pipeline, device, net, item, 0, &decoder, error));
        out->host = weir_decoder_host_bytes(decoder);
        out->arena = weir_decoder_bytes(decoder) - out->host;
        break;
    }
cleanup:
    weir_decoder_destroy(&decoder);
    weir_encoder_destroy(&encoder);
    weir_denoiser_destroy(&denoiser);
    weir_text_destroy(&text);
    return status;
}

static enum weir_status plan_memory(struct weir_pipeline *pipeline, struct weir_device *device,
                                    enum weir_pipeline_stage stage, const struct weir_item *item, uint32_t seats,
                                    struct weir_pipeline_memory *out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const struct weir_pipeline_family *family = pipeline->family;
    void *shapes = NULL;
    const bool loaded = pipeline->nets[stage] && pipeline->device == device;

    WEIR_TRY(weir_item_check(&pipeline->facts, item, error));
    WEIR_TRY(check_stage(pipeline, stage, error));
    if (!loaded) WEIR_TRY(family->net_open(pipeline, device, stage, true, &shapes, error));
    const void *net = loaded ? pipeline->nets[stage] : shapes;
    WEIR_TRY(plan_run(pipeline, device, net, stage, item, seats, out, error));
    out->weights = family->net_bytes(stage, net);
cleanup:
    if (shapes) family->net_close(stage, shapes);
    return status;
}

enum weir_status weir_pipeline_plan_memory(struct weir_pipeline *pipeline, struct weir_device *device,
                                           enum weir_pipeline_stage stage, const struct weir_item *item,
                                           struct weir_pipeline_memory *out, struct weir_error *error)
{
    return plan_memory(pipeline, device, stage, item, 1, out, error);
}

enum weir_status weir_pipeline_plan_denoise(struct weir_pipeline *pipeline, struct weir_device *device,
                                            const struct weir_item *item, uint32_t seats,
                                            struct weir_pipeline_memory *out, struct weir_error *error)
{
    return plan_memory(pipeline, device, WEIR_PIPELINE_DENOISE, item, seats, out, error);
}

/* ---- what every run is made of ---- */

enum weir_status weir_run_create_program(struct weir_device *device, struct weir_program **out,
                                         struct weir_error *error)
{
    const enum weir_status status = weir_program_create(device, device->values, out);
    return status == WEIR_OK ? WEIR_OK : weir_fail(error, status, "no memory for a program");
}

enum weir_status weir_run_start(struct weir_run *run, struct weir_device *device, size_t bytes,
                                struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    void *memory;
    if (run->stream) return WEIR_OK;
    run->device = device;
    WEIR_TRY(device->table->memory_alloc(device, bytes, &memory, error));
    run->arena = memory;
    WEIR_TRY(device->table->stream_create(device, &run->stream, error));
cleanup:
    if (status != WEIR_OK) weir_run_stop(run);
    return status;
}

void weir_run_stop(struct weir_run *run)
{
    if (run->stream) run->device->table->stream_destroy(run->stream);
    if (run->arena) run->device->table->memory_free(run->device, run->arena);
    *run = (struct weir_run){ 0 };
}

enum weir_status weir_run_enlarge(struct weir_run *run, size_t keep, size_t bytes, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    void *larger = NULL, *old = run->arena;
    if (!run->stream) return WEIR_OK;
    const struct weir_device_table *table = run->device->table;
    WEIR_TRY(table->memory_alloc(run->device, bytes, &larger, error));
    status = table->copy(run->stream, larger, old, keep);
    if (status != WEIR_OK)
        WEIR_TRY(weir_fail(error, status, "device %s: copying %zu bytes over failed", table->name, keep));
    WEIR_TRY(table->stream_sync(run->stream, error));
    run->arena = larger;
    larger = old;
cleanup:
    if (larger) table->memory_free(run->device, larger);
    return status;
}

enum weir_status weir_run_write(struct weir_run *run, size_t offset, const void *host, size_t bytes,
                                struct weir_error *error)
{
    const enum weir_status status = run->device->table->upload(run->stream, run->arena + offset, host, bytes);
    return status == WEIR_OK
               ? WEIR_OK
               : weir_fail(error, status, "device %s: copying %zu bytes in failed", run->device->table->name, bytes);
}

enum weir_status weir_run_read(struct weir_run *run, size_t offset, void *host, size_t bytes, struct weir_error *error)
{
    const enum weir_status status = run->device->table->download(run->stream, host, run->arena + offset, bytes);
    if (status != WEIR_OK)
        return weir_fail(error, status, "device %s: copying %zu bytes out failed", run->device->table->name, bytes);
    return run->device->table->stream_sync(run->stream, error);
}

enum weir_status weir_run_copy(struct weir_run *run, size_t to, size_t from, size_t bytes, struct weir_error *error)
{
    const enum weir_status status = run->device->table->copy(run->stream, run->arena + to, run->arena + from, bytes);
    return status == WEIR_OK
               ? WEIR_OK
               : weir_fail(error, status, "device %s: copying %zu bytes over failed", run->device->table->name, bytes);
}

enum weir_status weir_run_program(struct weir_run *run, const struct weir_program *program, size_t offset,
                                  const struct weir_binding *bindings, size_t binding_count, struct weir_error *error)
{
    const enum weir_status status =
        weir_program_run(program, run->stream, run->arena + offset, bindings, binding_count);
    return status == WEIR_OK
               ? WEIR_OK
               : weir_fail(error, status, "device %s: an op could not be started", run->device->table->name);
}
