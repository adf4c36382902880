/* Memory runs out at every place where a model folder asks for some, one place after the other: the answer is
 * WEIR_NO_MEMORY, or the right result where the memory was for a cache only; nothing leaks (the asan preset looks) and
 * nothing half-made is given out. The linker puts the functions below before the C library's (--wrap). */
#include "worker/model_dir.h"
#include "scratch.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <fcntl.h>

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
char *__real_strdup(const char *text);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
char *__wrap_strdup(const char *text);
int __wrap_asprintf(char **out, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Which request fails, counted from 1; 0: none. The functions under test have no argument for it. */
static struct {
    unsigned asked, fails;
    bool was_jansson;
} memory;

static bool refuse(void)
{
    return ++memory.asked == memory.fails;
}

/* jansson's scanner takes a token for which it has no memory for a broken one, so it is told apart here. */
static void *jansson_malloc(size_t bytes)
{
    if (!refuse()) return __real_malloc(bytes);
    memory.was_jansson = true;
    return NULL;
}

void *__wrap_malloc(size_t bytes)
{
    return refuse() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    return refuse() ? NULL : __real_calloc(count, bytes);
}

char *__wrap_strdup(const char *text)
{
    return refuse() ? NULL : __real_strdup(text);
}

int __wrap_asprintf(char **out, const char *format, ...)
{
    if (refuse()) return -1;
    va_list arguments;
    va_start(arguments, format);
    const int bytes = vasprintf(out, format, arguments);
    va_end(arguments);
    return bytes;
}

#define TENSOR "{\"one\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}}"

static void make_model(struct scratch *scratch)
{
    scratch_text(scratch, "m/model_index.json",
                 "{\"_class_name\": \"P\", \"unet\": [\"diffusers\", \"U\"], \"scheduler\": [\"diffusers\", \"S\"]}");
    scratch_text(scratch, "m/weir.json", "{\"steps\": 25, \"sampler\": \"ddim\"}");
    scratch_text(scratch, "m/scheduler/scheduler_config.json", "{\"a\": -Infinity}");
    scratch_text(scratch, "m/unet/config.json", "{\"sample_size\": 16}");
    scratch_safetensors(scratch, "m/unet/s-1.safetensors", TENSOR, 24);
    scratch_text(scratch, "m/unet/model.safetensors.index.fp16.json",
                 "{\"weight_map\": {\"one\": \"s-1.safetensors\"}}");
    const struct timespec old[2] = { { .tv_sec = 1000 }, { .tv_sec = 1000 } };
    assert_int_equal(utimensat(AT_FDCWD, scratch_path(scratch, "m/unet/config.json"), old, 0), 0);
}

/* Everything that a worker does with a folder. */
static enum weir_status use_model(const char *where, char digest[WEIR_SHA256_HEX_BYTES], struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_model_dir *model = NULL;
    struct weir_config *config = NULL;
    struct weir_weights *weights = NULL;
    struct weir_weight weight;
    char *text = NULL;
    size_t bytes = 0;
    WEIR_TRY(weir_model_dir_open(where, "fp16", &model, error));
    assert_int_equal(weir_model_dir_defaults(model)->steps, 25);
    assert_int_equal(weir_model_dir_component_count(model), 2);
    WEIR_TRY(weir_model_dir_config(model, "scheduler", &config, error));
    WEIR_TRY(weir_model_dir_weights(model, "unet", &weights, error));
    assert_int_equal(weir_weights_require(weights, "one", 2, (uint64_t[]){ 2, 3 }, &weight, error), WEIR_OK);
    WEIR_TRY(weir_model_dir_read(model, "unet/config.json", 100, &text, &bytes, error));
    WEIR_TRY(weir_model_dir_digest(model, NULL, 0, false, digest, error));
cleanup:
    free(text);
    weir_weights_close(&weights);
    weir_config_close(&config);
    weir_model_dir_close(&model);
    return status;
}

static void see_every_request_fail_once(const char *where)
{
    char wanted[WEIR_SHA256_HEX_BYTES], digest[WEIR_SHA256_HEX_BYTES];
    struct weir_error error = { 0 };
    unsigned refused = 0;
    memory.fails = 0;
    if (use_model(where, wanted, &error) != WEIR_OK) fail_msg("%s", error.words);
    for (memory.fails = 1;; memory.fails++) {
        memory.asked = 0;
        memory.was_jansson = false;
        const enum weir_status status = use_model(where, digest, &error);
        if (memory.asked < memory.fails) {
            assert_int_equal(status, WEIR_OK);
            break;
        }
        if (status == WEIR_OK) {
            assert_string_equal(digest, wanted);
        } else {
            const bool said = status == WEIR_NO_MEMORY || (memory.was_jansson && status == WEIR_BAD_MODEL);
            if (!said) fail_msg("request %u: %s", memory.fails, error.words);
            refused++;
        }
    }
    memory.fails = 0;
    assert_true(refused > 50);
}

static void no_memory_is_said_so_wherever_it_runs_out(void **state)
{
    (void)state;
    struct scratch scratch = scratch_begin();
    setenv("HOME", scratch_path(&scratch, "home"), 1);
    unsetenv("XDG_CACHE_HOME");
    unsetenv("HF_HOME");
    setenv("HF_HUB_CACHE", scratch_path(&scratch, "hub"), 1);
    setenv("WEIR_MODELS", scratch.path, 1);
    make_model(&scratch);
    see_every_request_fail_once(scratch_path(&scratch, "m"));
    see_every_request_fail_once("m");

    assert_int_equal(mkdir(scratch_path(&scratch, "hub"), 0700), 0);
    assert_int_equal(mkdir(scratch_path(&scratch, "hub/models--a--zz"), 0700), 0);
    assert_int_equal(mkdir(scratch_path(&scratch, "hub/models--a--zz/snapshots"), 0700), 0);
    assert_int_equal(rename(scratch_path(&scratch, "m"), scratch_path(&scratch, "hub/models--a--zz/snapshots/abc")), 0);
    see_every_request_fail_once("zz");
    see_every_request_fail_once("a/zz");
    scratch_end(&scratch);
}

int main(void)
{
    json_set_alloc_funcs(jansson_malloc, free);
    const struct CMUnitTest tests[] = { cmocka_unit_test(no_memory_is_said_so_wherever_it_runs_out) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
