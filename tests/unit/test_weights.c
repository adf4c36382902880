#include "worker/folder.h"
#include "worker/mapping.h"
#include "worker/weights.h"
#include "scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ONE "{\"one\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}}"
#define TWO "{\"two\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[0,8]}}"
#define THREE                                                                                                          \
    "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"I64\",\"shape\":[1],"          \
    "\"data_offsets\":[8,16]},\"c\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[16,18]}}"

struct world {
    struct scratch scratch;
    struct weir_folder folder;
    struct weir_weights *weights;
    struct weir_error error;
};

static struct world world_begin(void)
{
    struct world w = { .scratch = scratch_begin() };
    assert_int_equal(weir_folder_init(&w.folder, w.scratch.path, "", false, NULL), WEIR_OK);
    return w;
}

static void world_end(struct world *w)
{
    weir_weights_close(&w->weights);
    weir_folder_deinit(&w->folder);
    scratch_end(&w->scratch);
}

static enum weir_status open_unet(struct world *w, const char *variant)
{
    weir_weights_close(&w->weights);
    return weir_weights_open(&w->folder, "unet", variant, &w->weights, &w->error);
}

static void see_words(const struct world *w, const char *part)
{
    if (!strstr(w->error.words, part)) fail_msg("\"%s\" does not say \"%s\"", w->error.words, part);
}

static void see_tensor(const struct world *w, const char *name)
{
    struct weir_weight weight;
    if (!weir_weights_find(w->weights, name, &weight)) fail_msg("no tensor %s", name);
}

static void a_single_file_is_found_and_its_tensors_are_read(void **state)
{
    (void)state;
    struct world w = world_begin();
    struct weir_weight weight;
    float values[2], scalar;
    scratch_safetensors(&w.scratch, "unet/diffusion_pytorch_model.safetensors", THREE, 18);
    assert_int_equal(open_unet(&w, NULL), WEIR_OK);
    assert_int_equal(weir_weights_count(w.weights), 3);
    assert_int_equal(weir_weights_bytes(w.weights), 18);
    assert_int_equal(weir_weights_file_count(w.weights), 1);
    assert_string_equal(weir_weights_file(w.weights, 0), "unet/diffusion_pytorch_model.safetensors");
    assert_non_null(strstr(weir_weights_label(w.weights), "unet/diffusion_pytorch_model.safetensors"));
    assert_int_equal(weir_weights_require(w.weights, "a", 1, (uint64_t[]){ 2 }, &weight, &w.error), WEIR_OK);
    assert_int_equal(weir_weight_read_f32(&weight, values, &w.error), WEIR_OK);
    assert_memory_equal(values, "\x00\x01\x02\x03\x04\x05\x06\x07", 8);
    assert_int_equal(weir_weights_require(w.weights, "c", 0, NULL, &weight, &w.error), WEIR_OK);
    assert_int_equal(weir_weight_read_f32(&weight, &scalar, &w.error), WEIR_OK);
    assert_memory_equal(&scalar, "\x00\x00\x10\x11", 4); /* the data counts up: bytes 16 and 17 */
    world_end(&w);
}

static void what_is_required_must_be_there_in_its_shape_and_a_float(void **state)
{
    (void)state;
    struct world w = world_begin();
    struct weir_weight weight = { .rank = 77 };
    float values[2];
    scratch_safetensors(&w.scratch, "unet/model.safetensors", THREE, 18);
    assert_int_equal(open_unet(&w, NULL), WEIR_OK);
    assert_int_equal(weir_weights_require(w.weights, "x.weight", 2, (uint64_t[]){ 4, 3 }, &weight, &w.error),
                     WEIR_BAD_MODEL);
    see_words(&w, "unet/model.safetensors: tensor x.weight is missing, wanted [4, 3]");
    assert_int_equal(weir_weights_require(w.weights, "a", 1, (uint64_t[]){ 3 }, &weight, &w.error), WEIR_BAD_MODEL);
    see_words(&w, "unet/model.safetensors: tensor a is [2], wanted [3]");
    assert_int_equal(weir_weights_require(w.weights, "a", 2, (uint64_t[]){ 2, 1 }, &weight, &w.error), WEIR_BAD_MODEL);
    see_words(&w, "tensor a is [2], wanted [2, 1]");
    assert_int_equal(weir_weights_require(w.weights, "c", 1, (uint64_t[]){ 1 }, &weight, &w.error), WEIR_BAD_MODEL);
    see_words(&w, "tensor c is [], wanted [1]");
    assert_int_equal(weir_weights_require(w.weights, "b", 1, (uint64_t[]){ 1 }, &weight, &w.error), WEIR_BAD_MODEL);
    see_words(&w, "tensor b is I64, wanted F32, F16 or BF16");
    assert_int_equal(weight.rank, 77); /* a refusal gives nothing */
    assert_true(weir_weights_find(w.weights, "b", &weight));
    assert_int_equal(weir_weight_read_f32(&weight, values, &w.error), WEIR_BAD_MODEL);
    see_words(&w, "tensor b is I64");
    assert_false(weir_weights_find(w.weights, "d", &weight));
    world_end(&w);
}

static void join_name(void *context, const struct weir_weight *weight)
{
    char *names = context;
    strcat(names, weight->name);
    strcat(names, " ");
}

static void tensors_that_nobody_asked_for_are_named(void **state)
{
    (void)state;
    struct world w = world_begin();
    struct weir_weight weight;
    char names[64] = "";
    scratch_safetensors(&w.scratch, "unet/model.safetensors", THREE, 18);
    assert_int_equal(open_unet(&w, NULL), WEIR_OK);
    weir_weights_unused(w.weights, join_name, names);
    assert_string_equal(names, "a b c ");
    names[0] = '\0';
    assert_true(weir_weights_find(w.weights, "b", &weight));
    assert_false(weir_weights_find(w.weights, "z", &weight));
    weir_weights_unused(w.weights, join_name, names);
    assert_string_equal(names, "a c ");
    world_end(&w);
}

static void a_variant_is_chosen_by_name_and_never_merged(void **state)
{
    (void)state;
    struct world w = world_begin();
    scratch_safetensors(&w.scratch, "unet/diffusion_pytorch_model.fp16.safetensors", TWO, 8);
    assert_int_equal(open_unet(&w, NULL), WEIR_OK); /* the only set there is */
    see_tensor(&w, "two");
    bool found = false;
    assert_int_equal(weir_weights_find_variant(&w.folder, "unet", "fp16", &found, &w.error), WEIR_OK);
    assert_true(found);
    assert_int_equal(weir_weights_find_variant(&w.folder, "unet", "", &found, &w.error), WEIR_OK);
    assert_false(found);
    assert_int_equal(weir_weights_find_variant(&w.folder, "vae", "fp16", &found, &w.error), WEIR_OK);
    assert_false(found);
    assert_int_equal(open_unet(&w, "bf16"), WEIR_NOT_FOUND);
    see_words(&w, "unet: weights are there only as the variants fp16; wanted bf16");

    scratch_safetensors(&w.scratch, "unet/diffusion_pytorch_model.bf16.safetensors", ONE, 24);
    assert_int_equal(open_unet(&w, NULL), WEIR_NOT_FOUND);
    see_words(&w, "only as the variants bf16, fp16; wanted a plain set, or the name of one of them");
    assert_int_equal(open_unet(&w, "bf16"), WEIR_OK);
    see_tensor(&w, "one");
    assert_int_equal(weir_weights_count(w.weights), 1);

    scratch_safetensors(&w.scratch, "unet/diffusion_pytorch_model.safetensors", ONE, 24);
    assert_int_equal(open_unet(&w, NULL), WEIR_OK); /* the plain one goes first */
    see_tensor(&w, "one");
    assert_int_equal(open_unet(&w, "fp16"), WEIR_OK);
    see_tensor(&w, "two");
    assert_int_equal(open_unet(&w, "fp8"), WEIR_OK); /* not in this component: its plain set */
    see_tensor(&w, "one");
    world_end(&w);
}

#define SHARD_1 "unet/diffusion_pytorch_model-00001-of-00002.safetensors"
#define SHARD_2 "unet/diffusion_pytorch_model-00002-of-00002.safetensors"
#define INDEX "unet/diffusion_pytorch_model.safetensors.index.json"

static void a_sharded_set_is_what_its_index_says(void **state)
{
    (void)state;
    struct world w = world_begin();
    char names[64] = "";
    scratch_safetensors(&w.scratch, SHARD_1, ONE, 24);
    scratch_safetensors(&w.scratch, SHARD_2, THREE, 18);
    scratch_text(&w.scratch, INDEX,
                 "{\"metadata\":{\"total_size\":34},\"weight_map\":{"
                 "\"one\":\"diffusion_pytorch_model-00001-of-00002.safetensors\","
                 "\"a\":\"diffusion_pytorch_model-00002-of-00002.safetensors\","
                 "\"c\":\"diffusion_pytorch_model-00002-of-00002.safetensors\"}}");
    assert_int_equal(open_unet(&w, NULL), WEIR_OK);
    assert_int_equal(weir_weights_count(w.weights), 3);
    assert_int_equal(weir_weights_bytes(w.weights), 24 + 8 + 2);
    see_tensor(&w, "one");
    see_tensor(&w, "c");
    weir_weights_unused(w.weights, join_name, names);
    assert_string_equal(names, "a b "); /* b lies in a shard, but the index does not give it */
    assert_int_equal(weir_weights_file_count(w.weights), 3);
    assert_string_equal(weir_weights_file(w.weights, 0), SHARD_1);
    assert_string_equal(weir_weights_file(w.weights, 1), SHARD_2);
    assert_string_equal(weir_weights_file(w.weights, 2), INDEX);
    world_end(&w);
}

static void both_ways_to_name_the_variant_of_a_sharded_set_are_known(void **state)
{
    (void)state;
    struct world w = world_begin();
    scratch_safetensors(&w.scratch, "unet/model.fp16-00001-of-00001.safetensors", ONE, 24);
    scratch_text(&w.scratch, "unet/model.safetensors.index.fp16.json",
                 "{\"weight_map\":{\"one\":\"model.fp16-00001-of-00001.safetensors\"}}");
    scratch_safetensors(&w.scratch, "unet/model-00001-of-00001.bf16.safetensors", TWO, 8);
    scratch_text(&w.scratch, "unet/model.safetensors.index.bf16.json",
                 "{\"weight_map\":{\"two\":\"model-00001-of-00001.bf16.safetensors\"}}");
    assert_int_equal(open_unet(&w, "fp16"), WEIR_OK);
    see_tensor(&w, "one");
    assert_int_equal(open_unet(&w, "bf16"), WEIR_OK);
    see_tensor(&w, "two");
    assert_int_equal(open_unet(&w, NULL), WEIR_NOT_FOUND);
    world_end(&w);
}

static const struct {
    const char *index;
    enum weir_status status;
    const char *words;
} bad_indexes[] = {
    { "{\"weight_map\":{\"one\":\"gone.safetensors\"}}", WEIR_NOT_FOUND, "unet/gone.safetensors: no such file" },
    { "{\"weight_map\":{\"one\":\"../secret.safetensors\"}}", WEIR_BAD_MODEL,
      "weight_map puts tensor one in \"../secret.safetensors\", wanted the bare name" },
    { "{\"weight_map\":{\"one\":\"/etc/secret.safetensors\"}}", WEIR_BAD_MODEL, "wanted the bare name" },
    { "{\"weight_map\":{\"one\":\"..safetensors\"}}", WEIR_BAD_MODEL, "wanted the bare name" },
    { "{\"weight_map\":{\"one\":\".safetensors\"}}", WEIR_BAD_MODEL, "wanted the bare name" },
    { "{\"weight_map\":{\"one\":\"model.bin\"}}", WEIR_BAD_MODEL, "wanted the bare name of a .safetensors file" },
    { "{\"weight_map\":{\"one\":\"a b.safetensors\"}}", WEIR_BAD_MODEL, "wanted the bare name" },
    { "{\"weight_map\":{\"one\":3}}", WEIR_BAD_MODEL, "weight_map puts tensor one in 3" },
    { "{\"weight_map\":{\"nine\":\"s.safetensors\"}}", WEIR_BAD_MODEL,
      "tensor nine is said to be in s.safetensors, and is not" },
    { "{\"weight_map\":{}}", WEIR_BAD_MODEL, "weight_map is missing or empty" },
    { "{\"weight_map\":[]}", WEIR_BAD_MODEL, "weight_map is missing or empty" },
    { "{}", WEIR_BAD_MODEL, "weight_map is missing or empty" },
    { "{\"weight_map\":{\"one\":\"s.safetensors\",\"one\":\"s.safetensors\"}}", WEIR_BAD_MODEL, "duplicate" },
    { "{\"weight_map\":", WEIR_BAD_MODEL, "line 1, in weight_map" },
};

static void a_bad_index_is_refused_with_the_tensor_and_the_file(void **state)
{
    (void)state;
    struct world w = world_begin();
    scratch_safetensors(&w.scratch, "secret.safetensors", ONE, 24);
    scratch_safetensors(&w.scratch, "unet/s.safetensors", ONE, 24);
    for (size_t i = 0; i < WEIR_COUNT(bad_indexes); i++) {
        scratch_text(&w.scratch, INDEX, bad_indexes[i].index);
        const enum weir_status status = open_unet(&w, NULL);
        if (status != bad_indexes[i].status) {
            fail_msg("%s: %s \"%s\"", bad_indexes[i].index, weir_status_name(status), w.error.words);
        }
        see_words(&w, bad_indexes[i].words);
        assert_null(w.weights);
    }
    world_end(&w);
}

static void a_damaged_shard_is_named(void **state)
{
    (void)state;
    struct world w = world_begin();
    scratch_safetensors(&w.scratch, "unet/s.safetensors", ONE, 23);
    scratch_text(&w.scratch, INDEX, "{\"weight_map\":{\"one\":\"s.safetensors\"}}");
    assert_int_equal(open_unet(&w, NULL), WEIR_BAD_MODEL);
    see_words(&w, "unet/s.safetensors: cut short: tensor one ends at byte 24 of 23");
    scratch_write(&w.scratch, "unet/s.safetensors", "", 0);
    assert_int_equal(open_unet(&w, NULL), WEIR_BAD_MODEL);
    see_words(&w, "unet/s.safetensors: 0 bytes, too short");
    world_end(&w);
}

static void pickles_are_never_read(void **state)
{
    (void)state;
    struct world w = world_begin();
    assert_int_equal(open_unet(&w, NULL), WEIR_NOT_FOUND);
    see_words(&w, "unet: no such file");
    scratch_text(&w.scratch, "unet/config.json", "{}");
    assert_int_equal(open_unet(&w, NULL), WEIR_NOT_FOUND);
    see_words(&w, "unet: no weights");
    assert_null(strstr(w.error.words, "pickle"));
    scratch_text(&w.scratch, "unet/diffusion_pytorch_model.bin", "x");
    assert_int_equal(open_unet(&w, NULL), WEIR_NOT_FOUND);
    see_words(&w, "its .bin files are pickles, which can run code and are never read");
    world_end(&w);
}

static void links_work_inside_of_the_root_and_not_out_of_it(void **state)
{
    (void)state;
    struct world w = world_begin();
    struct scratch outside = scratch_begin();
    const char *file = "unet/diffusion_pytorch_model.safetensors";
    scratch_safetensors(&outside, "m.safetensors", ONE, 24);
    scratch_safetensors(&w.scratch, "blobs/m", ONE, 24);
    scratch_link(&w.scratch, file, "../blobs/m");
    assert_int_equal(open_unet(&w, NULL), WEIR_OK);

    char target[256];
    const char *const escapes[] = { "absolute", "dots", "loop", "dangling", "fifo" };
    for (size_t i = 0; i < WEIR_COUNT(escapes); i++) {
        unlink(scratch_path(&w.scratch, file));
        switch (i) {
        case 0:
            scratch_link(&w.scratch, file, scratch_path(&outside, "m.safetensors"));
            break;
        case 1:
            snprintf(target, sizeof target, "../../%s/m.safetensors", strrchr(outside.path, '/') + 1);
            scratch_link(&w.scratch, file, target);
            break;
        case 2:
            scratch_link(&w.scratch, file, "diffusion_pytorch_model.safetensors");
            break;
        case 3:
            scratch_link(&w.scratch, file, "nowhere");
            break;
        case 4:
            assert_int_equal(mkfifo(scratch_path(&w.scratch, file), 0600), 0);
            break;
        default:
            break;
        }
        static const struct {
            enum weir_status status;
            const char *words;
        } wanted[] = { { WEIR_BAD_MODEL, "it leads out of the model's folder" },
                       { WEIR_BAD_MODEL, "it leads out of the model's folder" },
                       { WEIR_BAD_MODEL, "its symlinks go round in circles" },
                       { WEIR_NOT_FOUND, "no such file" },
                       { WEIR_BAD_FILE, "not a regular file" } };
        const enum weir_status status = open_unet(&w, NULL);
        if (status != wanted[i].status) fail_msg("%s: %s", escapes[i], w.error.words);
        see_words(&w, "unet/diffusion_pytorch_model.safetensors: ");
        see_words(&w, wanted[i].words);
    }
    scratch_end(&outside);
    world_end(&w);
}

static void bytes_in_memory_are_weights_too(void **state)
{
    (void)state;
    size_t count;
    struct weir_weights *weights = NULL;
    struct weir_weight weight;
    struct weir_error error;
    uint8_t *bytes = safetensors_make(ONE, 24, &count);
    assert_int_equal(weir_weights_parse(bytes, count, "m", &weights, &error), WEIR_OK);
    assert_int_equal(weir_weights_require(weights, "one", 2, (uint64_t[]){ 2, 3 }, &weight, &error), WEIR_OK);
    weir_weights_close(&weights);
    assert_null(weights);
    assert_int_equal(weir_weights_parse(bytes, count - 1, "m", &weights, &error), WEIR_BAD_MODEL);
    free(bytes);
}

/* A child maps a file of four pages, somebody cuts it, the child reads on. Its stderr goes to a file. */
static int child_that_reads_a_cut_file(struct scratch *scratch, const char *variation, char *said, size_t said_bytes)
{
    static const char header[] = "{\"a\":{\"dtype\":\"U8\",\"shape\":[16384],\"data_offsets\":[0,16384]}}";
    int status = 0;
    scratch_safetensors(scratch, "unet/model.safetensors", header, 16384);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct weir_folder folder;
        struct weir_weights *weights = NULL;
        struct weir_weight weight;
        const int fd = open(scratch_path(scratch, "stderr"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0 || dup2(fd, STDERR_FILENO) < 0) _exit(1);
        weir_weights_guard_install("weir-worker");
        if (strcmp(variation, "killed") == 0) raise(SIGBUS);
        if (weir_folder_init(&folder, scratch->path, "", false, NULL) != WEIR_OK) _exit(2);
        if (weir_weights_open(&folder, "unet", NULL, &weights, NULL) != WEIR_OK) _exit(3);
        if (!weir_weights_find(weights, "a", &weight)) _exit(4);
        if (strcmp(variation, "another's") == 0) {
            const int other = open(scratch_path(scratch, "other"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
            const volatile char *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, other, 0);
            _exit(page[0]); /* the file is empty */
        }
        if (truncate(scratch_path(scratch, "unet/model.safetensors"), 100) != 0) _exit(5);
        const volatile uint8_t *data = weight.data;
        _exit(data[16000] == 0 ? 6 : 7);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    const int fd = open(scratch_path(scratch, "stderr"), O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    const ssize_t bytes = read(fd, said, said_bytes - 1);
    assert_true(bytes >= 0);
    said[bytes] = '\0';
    close(fd);
    return status;
}

static void a_file_cut_while_it_is_in_use_ends_the_process_with_one_clear_line(void **state)
{
    (void)state;
    struct scratch scratch = scratch_begin();
    char said[1024], wanted[256];
    const int status = child_that_reads_a_cut_file(&scratch, "cut", said, sizeof said);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 74);
    snprintf(wanted, sizeof wanted,
             "weir-worker: %s/unet/model.safetensors: the file was cut short, or could not be read, while in use\n",
             scratch.path);
    assert_string_equal(said, wanted);
    scratch_end(&scratch);
}

static void a_sigbus_of_another_kind_stays_what_it_is(void **state)
{
    (void)state;
    struct scratch scratch = scratch_begin();
    char said[1024];
    int status = child_that_reads_a_cut_file(&scratch, "another's", said, sizeof said);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
    assert_string_equal(said, "");
    status = child_that_reads_a_cut_file(&scratch, "killed", said, sizeof said);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
    assert_string_equal(said, "");
    scratch_end(&scratch);
}

static void more_mappings_than_the_guard_can_name_are_mapped_all_the_same(void **state)
{
    (void)state;
    struct scratch scratch = scratch_begin();
    struct weir_mapping *mappings = calloc(WEIR_MAPPINGS_GUARDED_MAX + 1, sizeof *mappings);
    assert_non_null(mappings);
    scratch_text(&scratch, "file", "bytes");
    const int fd = open(scratch_path(&scratch, "file"), O_RDONLY | O_CLOEXEC);
    for (int i = 0; i <= WEIR_MAPPINGS_GUARDED_MAX; i++) {
        assert_int_equal(weir_mapping_init(&mappings[i], fd, "file", NULL), WEIR_OK);
        assert_memory_equal(mappings[i].bytes, "bytes", 5);
        assert_true(i < WEIR_MAPPINGS_GUARDED_MAX ? mappings[i].guard >= 0 : mappings[i].guard == -1);
    }
    for (int i = 0; i <= WEIR_MAPPINGS_GUARDED_MAX; i++) weir_mapping_deinit(&mappings[i]);
    assert_int_equal(weir_mapping_init(&mappings[0], fd, "file", NULL), WEIR_OK);
    assert_true(mappings[0].guard >= 0); /* rows come back */
    weir_mapping_deinit(&mappings[0]);
    close(fd);
    free(mappings);
    scratch_end(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_single_file_is_found_and_its_tensors_are_read),
        cmocka_unit_test(what_is_required_must_be_there_in_its_shape_and_a_float),
        cmocka_unit_test(tensors_that_nobody_asked_for_are_named),
        cmocka_unit_test(a_variant_is_chosen_by_name_and_never_merged),
        cmocka_unit_test(a_sharded_set_is_what_its_index_says),
        cmocka_unit_test(both_ways_to_name_the_variant_of_a_sharded_set_are_known),
        cmocka_unit_test(a_bad_index_is_refused_with_the_tensor_and_the_file),
        cmocka_unit_test(a_damaged_shard_is_named),
        cmocka_unit_test(pickles_are_never_read),
        cmocka_unit_test(links_work_inside_of_the_root_and_not_out_of_it),
        cmocka_unit_test(bytes_in_memory_are_weights_too),
        cmocka_unit_test(a_file_cut_while_it_is_in_use_ends_the_process_with_one_clear_line),
        cmocka_unit_test(a_sigbus_of_another_kind_stays_what_it_is),
        cmocka_unit_test(more_mappings_than_the_guard_can_name_are_mapped_all_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
