#include "worker/encoders.h"

#include "worker/encoder_child.h"

#include <assert.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct weir_film_format formats[] = {
    { "mp4", "video/mp4", { "h264", "av1", "vp9" }, true, 240, 2, 65536 },
    { "webm", "video/webm", { "vp9", "av1" }, true, 240, 2, 65536 },
    { "gif", "image/gif", { NULL }, false, 50, 1, 65536 },
    { "png", "image/png", { NULL }, false, 240, 1, 2048 }, /* one output a frame: as many as one DONE carries */
};

static const struct weir_image_format images[] = {
    { "png", "image/png", "image.png" },
    { "jpeg", "image/jpeg", "image.jpg" },
    { "webp", "image/webp", "image.webp" },
};

const struct weir_image_format *weir_image_format(const char *name)
{
    for (size_t i = 0; i < WEIR_COUNT(images); i++) {
        if (strcmp(images[i].name, name) == 0) return &images[i];
    }
    return NULL;
}

const struct weir_film_format *weir_film_format(const char *name)
{
    for (size_t i = 0; i < WEIR_COUNT(formats); i++) {
        if (strcmp(formats[i].name, name) == 0) return &formats[i];
    }
    return NULL;
}

static const char *const known[] = { "h264", "av1", "vp9", "gif", "png" };
enum { KNOWN = WEIR_COUNT(known) };

struct weir_encoders {
    pthread_mutex_t lock;
    const char *program;
    bool is_read;
    char builds[KNOWN][WEIR_ENCODER_BUILD_BYTES]; /* "": not installed */
    char image_builds[WEIR_COUNT(images)][WEIR_ENCODER_BUILD_BYTES];
};

enum weir_status weir_encoders_create(const char *program, struct weir_encoders **out, struct weir_error *error)
{
    struct weir_encoders *encoders = calloc(1, sizeof *encoders);
    *out = encoders;
    if (!encoders) return weir_fail(error, WEIR_NO_MEMORY, "no memory for the table of encoders");
    pthread_mutex_init(&encoders->lock, NULL);
    encoders->program = program;
    return WEIR_OK;
}

void weir_encoders_destroy(struct weir_encoders **encoders_p)
{
    struct weir_encoders *encoders = *encoders_p;
    if (!encoders) return;
    pthread_mutex_destroy(&encoders->lock);
    free(encoders);
    *encoders_p = NULL;
}

const char *weir_encoders_program(const struct weir_encoders *encoders)
{
    return encoders->program;
}

static int place_of(const char *codec)
{
    for (int i = 0; i < KNOWN; i++) {
        if (strcmp(known[i], codec) == 0) return i;
    }
    return -1;
}

/* {"encoder": "libx264", "fingerprint": "..."} as "libx264 ..."; "" when it is something else. */
static void read_build(json_t *entry, char out[WEIR_ENCODER_BUILD_BYTES])
{
    const char *encoder = json_string_value(json_object_get(entry, "encoder"));
    const char *fingerprint = json_string_value(json_object_get(entry, "fingerprint"));
    out[0] = '\0';
    if (encoder && fingerprint) snprintf(out, WEIR_ENCODER_BUILD_BYTES, "%s %s", encoder, fingerprint);
}

/* {"encoders": {"h264": BUILD, ...}, "pictures": {"png": BUILD, ...}, ...} */
static enum weir_status parse(struct weir_encoders *encoders, const char *text, struct weir_error *error)
{
    json_error_t fault;
    json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, &fault);
    json_t *films = json_object_get(object, "encoders"), *pictures = json_object_get(object, "pictures");
    enum weir_status status = WEIR_OK;
    if (!json_is_object(films) || !json_is_object(pictures)) {
        status = weir_fail(error, WEIR_INTERNAL, "%s version: not the JSON that this build knows", encoders->program);
    }
    for (int i = 0; i < KNOWN; i++) read_build(json_object_get(films, known[i]), encoders->builds[i]);
    for (size_t i = 0; i < WEIR_COUNT(images); i++) {
        read_build(json_object_get(pictures, images[i].name), encoders->image_builds[i]);
    }
    json_decref(object);
    return status;
}

static enum weir_status ask(struct weir_encoders *encoders, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    pthread_mutex_lock(&encoders->lock);
    if (!encoders->is_read) {
        static const char *const words[] = { "version", NULL };
        char text[WEIR_ENCODER_TEXT_BYTES];
        struct weir_encoder_child *child = NULL;
        WEIR_TRY(weir_encoder_child_start(encoders->program, words, NULL, &child, error));
        WEIR_TRY(weir_encoder_child_finish(&child, text, error));
        WEIR_TRY(parse(encoders, text, error));
        encoders->is_read = true;
    }
cleanup:
    pthread_mutex_unlock(&encoders->lock);
    return status;
}

enum weir_status weir_encoders_codec(struct weir_encoders *encoders, const char *format, const char *wish,
                                     const char **out, struct weir_error *error)
{
    const struct weir_film_format *row = weir_film_format(format);
    const bool any = !wish || wish[0] == '\0';
    char carried[64] = "";
    *out = "";
    if (!row) return weir_fail(error, WEIR_BAD_ARGUMENT, "--format %s: films are mp4, webm, gif and png", format);
    if (!row->codecs[0]) {
        return any ? WEIR_OK : weir_fail(error, WEIR_BAD_ARGUMENT, "--codec %s: %s has none to choose", wish, format);
    }
    const enum weir_status status = ask(encoders, error);
    if (status != WEIR_OK) return status;
    for (size_t i = 0; row->codecs[i]; i++) {
        const bool installed = encoders->builds[place_of(row->codecs[i])][0] != '\0';
        if (!any && strcmp(row->codecs[i], wish) == 0) {
            if (!installed)
                return weir_fail(error, WEIR_UNSUPPORTED, "--codec %s: no encoder of it is installed", wish);
        } else if (!any || !installed) {
            strcat(strcat(carried, carried[0] ? ", " : ""), row->codecs[i]);
            continue;
        }
        *out = row->codecs[i];
        return WEIR_OK;
    }
    if (any)
        return weir_fail(error, WEIR_UNSUPPORTED, "--format %s: none of its encoders (%s) is installed", format,
                         carried);
    return weir_fail(error, WEIR_BAD_ARGUMENT, "--codec %s: %s carries %s", wish, format, carried);
}

enum weir_status weir_encoders_build(struct weir_encoders *encoders, const char *format, const char *codec,
                                     char out[WEIR_ENCODER_BUILD_BYTES], struct weir_error *error)
{
    const enum weir_status status = ask(encoders, error);
    if (status != WEIR_OK) return status;
    const char *what = codec[0] ? codec : format;
    const int place = place_of(what);
    if (place >= 0 && encoders->builds[place][0]) {
        strcpy(out, encoders->builds[place]);
        return WEIR_OK;
    }
    if (strcmp(what, "png") == 0) { /* lossless: the pixels do not depend on who wrote it */
        strcpy(out, "png");
        return WEIR_OK;
    }
    return weir_fail(error, WEIR_UNSUPPORTED, "no encoder of %s is installed", what);
}

enum weir_status weir_encoders_image_build(struct weir_encoders *encoders, const char *format,
                                           char out[WEIR_ENCODER_BUILD_BYTES], struct weir_error *error)
{
    const enum weir_status status = ask(encoders, error);
    const struct weir_image_format *row = weir_image_format(format);
    if (status != WEIR_OK) return status;
    if (!row || !encoders->image_builds[row - images][0]) {
        return weir_fail(error, WEIR_UNSUPPORTED, "no encoder of %s images is installed", format);
    }
    strcpy(out, encoders->image_builds[row - images]);
    return WEIR_OK;
}
