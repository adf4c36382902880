#include "worker/spec.h"

#include "worker/rgb/rgb.h"

#include <assert.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { ENCODER_SIDE_MAX = 8192, ITEMS_MAX = 4096 };
#define FILE_BYTES_MAX (UINT64_C(4) << 30)

static int sampler_of(const char *name)
{
    for (int i = 0; i < WEIR_ITEM_SAMPLER_COUNT; i++) {
        if (name && strcmp(name, weir_item_sampler_name((enum weir_item_sampler)i)) == 0) return i;
    }
    return -1;
}

static int noise_of(const char *name)
{
    for (int i = 0; i < WEIR_ITEM_NOISE_COUNT; i++) {
        if (name && strcmp(name, weir_item_noise_name((enum weir_item_noise)i)) == 0) return i;
    }
    return -1;
}

/* A picture that a request names: NULL where there is none. */
static enum weir_status check_file(const char *flag, const Weir__Pb__FileRef *file, struct weir_error *error)
{
    if (!file) return WEIR_OK;
    if (file->digest.len != WEIR_SHA256_BYTES)
        return weir_fail(error, WEIR_BAD_ARGUMENT, "%s: the file's digest has %zu bytes, wanted %d", flag,
                         file->digest.len, WEIR_SHA256_BYTES);
    if (file->bytes > WEIR_RGB_FILE_BYTES_MAX)
        return weir_fail(error, WEIR_TOO_LARGE, "%s: a picture of %llu bytes; at most %zu are read", flag,
                         (unsigned long long)file->bytes, WEIR_RGB_FILE_BYTES_MAX);
    return WEIR_OK;
}

static enum weir_status check_files(const Weir__Pb__JobSpec *spec, struct weir_error *error)
{
    const enum weir_status status = check_file("--control", spec->control, error);
    return status == WEIR_OK ? check_file("--image", spec->start_image, error) : status;
}

bool weir_spec_is_image(const Weir__Pb__JobSpec *spec)
{
    return spec->has_image && spec->image;
}

/* The adapters of a spec; a weight that is not said is 1. */
static enum weir_status read_loras(const Weir__Pb__JobSpec *spec, struct weir_item *out, struct weir_error *error)
{
    static_assert(WEIR_ITEM_LORAS_MAX == WEIR_JOB_LORAS_MAX, "an item holds what the wire can say");
    if (spec->n_loras > WEIR_ITEM_LORAS_MAX) {
        return weir_fail(error, WEIR_TOO_LARGE, "--lora: %zu adapters; the most is %d", spec->n_loras,
                         WEIR_ITEM_LORAS_MAX);
    }
    for (size_t i = 0; i < spec->n_loras; i++) {
        const Weir__Pb__Lora *lora = spec->loras[i];
        const Weir__Pb__FileRef *file = lora->file;
        if (!file || !file->has_digest || file->digest.len != WEIR_SHA256_BYTES || !file->has_bytes ||
            file->bytes > FILE_BYTES_MAX) {
            return weir_fail(error, WEIR_BAD_ARGUMENT,
                             "--lora: adapter %zu names no file with a digest and a size of at most 4 GiB", i + 1);
        }
        struct weir_item_lora *to = &out->loras[out->lora_count++];
        memcpy(to->digest, file->digest.data, sizeof to->digest);
        to->bytes = file->bytes;
        to->weight = lora->has_weight ? lora->weight : 1;
    }
    return WEIR_OK;
}

enum weir_status weir_spec_item(const Weir__Pb__JobSpec *spec, struct weir_item *out, struct weir_error *error)
{
    const int sampler = sampler_of(spec->sampler), noise = noise_of(spec->noise);
    if (!spec->has_spec_version || spec->spec_version != WEIR_SPEC_VERSION) {
        return weir_fail(error, WEIR_UNSUPPORTED, "a resolved spec of version %u, this build runs %d",
                         spec->spec_version, WEIR_SPEC_VERSION);
    }
    if (!spec->model || !spec->has_model_digest || !spec->prompt || !spec->has_width || !spec->has_height ||
        !spec->has_frames || !spec->has_fps || !spec->has_steps || !spec->has_guidance || !spec->has_seed ||
        !spec->format || sampler < 0 || noise < 0 || (spec->control && !spec->has_control_scale) ||
        (spec->start_image && !spec->has_strength)) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "a resolved spec lacks a field, or names no known sampler or noise");
    }
    const enum weir_status status = check_files(spec, error);
    if (status != WEIR_OK) return status;
    *out = (struct weir_item){ .width = spec->width,
                               .height = spec->height,
                               .frames = spec->frames,
                               .fps = spec->fps,
                               .steps = spec->steps,
                               .guidance = spec->guidance,
                               .seed = spec->seed,
                               .sampler = (enum weir_item_sampler)sampler,
                               .noise = (enum weir_item_noise)noise,
                               .has_control = spec->control != NULL,
                               .has_start = spec->start_image != NULL,
                               .bands = weir_spec_bands(spec) };
    if (spec->control) {
        memcpy(out->control, spec->control->digest.data, sizeof out->control);
        out->control_scale = spec->control_scale;
    }
    if (spec->start_image) {
        memcpy(out->start, spec->start_image->digest.data, sizeof out->start);
        out->strength = spec->strength;
    }
    return read_loras(spec, out, error);
}

static int64_t wished(protobuf_c_boolean has, uint32_t value)
{
    return has ? (int64_t)value : WEIR_ITEM_UNSET;
}

/* What the film format asks of an item, beside what the model asks. */
static enum weir_status check_film(const struct weir_film_format *format, const struct weir_item *item, uint32_t n,
                                   struct weir_error *error)
{
    if (item->width % format->size_multiple || item->height % format->size_multiple) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--size %ux%u: %s films need even sizes; gif and png take any",
                         item->width, item->height, format->name);
    }
    if (item->width > ENCODER_SIDE_MAX || item->height > ENCODER_SIDE_MAX) {
        return weir_fail(error, WEIR_TOO_LARGE, "--size %ux%u: a film is at most %d pixels wide and high", item->width,
                         item->height, ENCODER_SIDE_MAX);
    }
    if (item->fps > format->fps_max) {
        return weir_fail(error, WEIR_TOO_LARGE, "--fps %u: %s takes at most %u", item->fps, format->name,
                         format->fps_max);
    }
    if (item->frames > format->frames_max) {
        return weir_fail(error, WEIR_TOO_LARGE, "--frames %u: %s takes at most %u", item->frames, format->name,
                         format->frames_max);
    }
    if (!format->is_joined && format->size_multiple == 1 && strcmp(format->name, "png") == 0 &&
        (uint64_t)n * item->frames > format->frames_max) {
        return weir_fail(error, WEIR_TOO_LARGE, "%u times %u frames as png: one job makes at most %u pictures", n,
                         item->frames, format->frames_max);
    }
    return WEIR_OK;
}

/* The rows of PROTOCOL.md section 7. */
static enum weir_status choose_format(const Weir__Pb__JobSpec *wish, const struct weir_model_facts *facts,
                                      const struct weir_item *item, const char **format, bool *is_image,
                                      struct weir_error *error)
{
    const bool image_wished = wish->has_image && wish->image;
    const char *unsaid = image_wished || (facts->frames == 1 && item->frames == 1) ? "png" : "mp4";
    const char *name = wish->format && wish->format[0] ? wish->format : unsaid;
    const struct weir_film_format *film = weir_film_format(name);
    const struct weir_image_format *image = weir_image_format(name);
    if (!film && !image) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--format %s: mp4, webm, gif, png, jpeg and webp are offered", name);
    }
    const bool folder_wished =
        wish->has_image && !wish->image && facts->frames_max != 1; /* else there is one to hold */
    *is_image = !folder_wished && (image_wished || !film || (image && item->frames == 1));
    if (*is_image && !image) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--format %s: it holds films; an image is png, jpeg or webp", name);
    }
    if (!*is_image && !film) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--format %s: it holds one picture; a folder of frames is png",
                         name);
    }
    if (*is_image && item->frames != 1) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "--frames %u: a %s image holds 1; --frames 1 makes one",
                         item->frames, image->name);
    }
    *format = image ? image->name : film->name;
    return WEIR_OK;
}

static enum weir_status check_image(const char *format, const struct weir_item *item, const char *codec,
                                    struct weir_error *error)
{
    if (item->width > ENCODER_SIDE_MAX || item->height > ENCODER_SIDE_MAX) {
        return weir_fail(error, WEIR_TOO_LARGE, "--size %ux%u: an image is at most %d pixels wide and high",
                         item->width, item->height, ENCODER_SIDE_MAX);
    }
    if (!codec || codec[0] == '\0') return WEIR_OK;
    return weir_fail(error, WEIR_BAD_ARGUMENT, "--codec %s: %s has none to choose", codec, format);
}

enum weir_status weir_spec_resolve(const Weir__Pb__JobSpec *wish, const struct weir_spec_model *model,
                                   struct weir_encoders *encoders, Weir__Pb__JobSpec *out, struct weir_error *error)
{
    struct weir_item item;
    struct weir_item_wish blanks = WEIR_ITEM_WISH_NONE;
    const uint32_t n = wish->has_n ? wish->n : 1;
    const char *codec = "", *format = NULL;
    bool is_image = false;
    enum weir_status status = WEIR_OK;

    if (!wish->prompt) return weir_fail(error, WEIR_BAD_ARGUMENT, "a prompt is missing");
    if (wish->has_spec_version && wish->spec_version != WEIR_SPEC_VERSION) {
        return weir_fail(error, WEIR_UNSUPPORTED, "spec version %u: this build takes %d", wish->spec_version,
                         WEIR_SPEC_VERSION);
    }
    if (wish->precision && wish->precision[0] && strcmp(wish->precision, model->precision) != 0) {
        return weir_fail(error, WEIR_UNSUPPORTED, "--precision %s: this worker computes in %s", wish->precision,
                         model->precision);
    }
    if (wish->has_model_digest && memcmp(wish->model_digest.data, model->digest, WEIR_SHA256_BYTES) != 0) {
        return weir_fail(error, WEIR_CONFLICT, "model %s: its files have another digest than the one asked for",
                         model->name);
    }
    blanks.width = wished(wish->has_width, wish->width);
    blanks.height = wished(wish->has_height, wish->height);
    blanks.frames = wished(wish->has_frames, wish->frames);
    blanks.steps = wished(wish->has_steps, wish->steps);
    blanks.fps = wished(wish->has_fps, wish->fps);
    if (wish->has_guidance) blanks.guidance = wish->guidance;
    if (wish->sampler && wish->sampler[0]) blanks.sampler = wish->sampler;
    if (wish->noise && wish->noise[0]) blanks.noise = wish->noise;
    WEIR_TRY(check_files(wish, error));
    if (wish->control) blanks.control = wish->control->digest.data;
    if (wish->has_control_scale) blanks.control_scale = wish->control_scale;
    if (wish->start_image) blanks.start = wish->start_image->digest.data;
    if (wish->has_strength) blanks.strength = wish->strength;
    blanks.seed = wish->seed;
    if (!wish->has_seed) { /* 32 bits: short enough to be written down */
        uint32_t random;
        weir_random_bytes(&random, sizeof random);
        blanks.seed = random;
    }
    WEIR_TRY(weir_item_resolve(model->facts, &blanks, &item, error));
    WEIR_TRY(read_loras(wish, &item, error));
    WEIR_TRY(weir_item_check(model->facts, &item, error));
    if (model->facts->guidance_inside && wish->negative && wish->negative[0]) {
        WEIR_TRY(weir_fail(error, WEIR_BAD_ARGUMENT, "--negative: model %s takes none", model->name));
    }
    if (n < 1 || n > ITEMS_MAX) {
        WEIR_TRY(weir_fail(error, n ? WEIR_TOO_LARGE : WEIR_BAD_ARGUMENT, "--n %u: 1 to %d is allowed", n, ITEMS_MAX));
    }
    WEIR_TRY(choose_format(wish, model->facts, &item, &format, &is_image, error));
    if (is_image) {
        WEIR_TRY(check_image(format, &item, wish->codec, error));
        item.fps = 1; /* its bytes do not depend on it */
    } else {
        WEIR_TRY(weir_encoders_codec(encoders, format, wish->codec, &codec, error));
        WEIR_TRY(check_film(weir_film_format(format), &item, n, error));
    }

    weir__pb__job_spec__init(out);
    out->has_spec_version = out->has_model_digest = out->has_width = out->has_height = out->has_frames = out->has_fps =
        out->has_steps = out->has_guidance = out->has_seed = out->has_n = 1;
    out->spec_version = WEIR_SPEC_VERSION;
    out->model = (char *)(uintptr_t)model->name;
    out->model_digest = (ProtobufCBinaryData){ WEIR_SHA256_BYTES, (uint8_t *)(uintptr_t)model->digest };
    out->pipeline = (char *)(uintptr_t)model->pipeline;
    out->prompt = wish->prompt;
    out->negative = wish->negative ? wish->negative : (char *)(uintptr_t) "";
    out->width = item.width;
    out->height = item.height;
    out->frames = item.frames;
    out->fps = item.fps;
    out->steps = item.steps;
    out->guidance = item.guidance;
    out->seed = item.seed;
    out->n = n;
    out->sampler = (char *)(uintptr_t)weir_item_sampler_name(item.sampler);
    out->noise = (char *)(uintptr_t)weir_item_noise_name(item.noise);
    out->format = (char *)(uintptr_t)format;
    out->codec = (char *)(uintptr_t)codec;
    out->precision = (char *)(uintptr_t)model->precision;
    out->has_image = out->image = is_image;
    out->control = wish->control;
    out->has_control_scale = item.has_control;
    out->control_scale = item.control_scale;
    out->start_image = wish->start_image;
    out->has_strength = item.has_start;
    out->strength = item.strength;
    out->n_loras = wish->n_loras;
    out->loras = wish->loras;
    for (size_t i = 0; i < out->n_loras; i++) {
        out->loras[i]->has_weight = 1;
        out->loras[i]->weight = item.loras[i].weight;
    }
    out->bands = is_image && model->bands ? model->bands(model->bands_context, &item) : 1;
    out->has_bands = out->bands > 1;
cleanup:
    return status;
}

char *weir_spec_receipt(const Weir__Pb__JobSpec *spec, const char *numerics_class, const char *encoder)
{
    char digest[WEIR_SHA256_HEX_BYTES];
    weir_hex_write(spec->model_digest.data, WEIR_SHA256_BYTES, digest);
    Weir__Pb__JobSpec bytes = *spec;
    bytes.has_bands = 0;
    char *resolved = weir_spec_json(&bytes), *text = NULL;
    json_t *object = resolved ? json_loads(resolved, 0, NULL) : NULL;
    json_t *receipt = json_pack("{s:i, s:o, s:s, s:s, s:s}", "weir", 1, "spec", object, "model_digest", digest,
                                "numerics_class", numerics_class, "encoder", encoder);
    if (receipt) text = json_dumps(receipt, JSON_SORT_KEYS | JSON_COMPACT);
    json_decref(receipt);
    free(resolved);
    return text;
}
