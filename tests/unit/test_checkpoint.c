/* Checkpoints are a cache: whatever is not exactly ours and whole is passed over, and an older one is taken. */
#include "worker/denoiser/checkpoint.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { COUNT = 50 };

struct world {
    char dir[64];
    struct weir_store *store;
    struct weir_task_id task;
    struct weir_checkpoint_place place;
    struct weir_checkpoint_owner owner;
    float latents[COUNT], history[COUNT];
};

static int remove_one(const char *path, const struct stat *facts, int kind, struct FTW *where)
{
    (void)facts, (void)kind, (void)where;
    return remove(path);
}

static int begin(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    if (!w) return -1;
    strcpy(w->dir, "/tmp/weir-ckpt-XXXXXX");
    if (!mkdtemp(w->dir) || weir_store_open(w->dir, &w->store, NULL) != WEIR_OK) return -1;
    w->task = (struct weir_task_id){ .stage = WEIR_STAGE_DENOISE, .index = 2 };
    w->place = (struct weir_checkpoint_place){ w->store, NULL, "local", &w->task };
    w->owner = (struct weir_checkpoint_owner){
        .numerics_class = "ref-f32", .sampler = "dpm++", .latent_count = COUNT, .history_count = COUNT, .step_count = 25
    };
    memset(w->owner.spec_digest, 1, WEIR_SHA256_BYTES);
    memset(w->owner.model_digest, 2, WEIR_SHA256_BYTES);
    for (int i = 0; i < COUNT; i++) {
        w->latents[i] = (float)i;
        w->history[i] = (float)-i;
    }
    *state = w;
    return 0;
}

static int end(void **state)
{
    struct world *w = *state;
    weir_store_close(&w->store);
    const int failed = nftw(w->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(w);
    return failed;
}

static void save(struct world *w, uint32_t step)
{
    w->latents[0] = (float)step;
    const struct weir_checkpoint_state state = { step, w->latents, w->owner.history_count ? w->history : NULL };
    assert_int_equal(weir_checkpoint_save(&w->place, &w->owner, &state, state.step % 2 == 0, NULL), WEIR_OK);
}

/* The step that would be taken up; 0: none. */
static uint32_t newest(struct world *w)
{
    struct weir_checkpoint_state state;
    void *memory;
    const bool found = weir_checkpoint_load(&w->place, &w->owner, &state, &memory);
    const uint32_t step = state.step;
    if (found) {
        assert_true(state.latents[0] == (float)step);
        assert_memory_equal(state.latents + 1, w->latents + 1, sizeof w->latents - sizeof(float));
        if (w->owner.history_count)
            assert_memory_equal(state.history, w->history, sizeof w->history);
        else
            assert_null(state.history);
    } else {
        assert_int_equal(step, 0);
        assert_null(memory);
    }
    free(memory);
    return step;
}

/* Replaces a checkpoint by `bytes`. */
static void plant(struct world *w, uint32_t step, const void *bytes, size_t count)
{
    char key[WEIR_KEY_BYTES];
    weir_key_checkpoint("local", &w->task, step, key);
    assert_int_equal(weir_store_remove(w->store, key, NULL), WEIR_OK);
    assert_int_equal(weir_store_put(w->store, key, bytes, count, NULL), WEIR_OK);
}

static void the_newest_is_taken_and_two_are_kept(void **state)
{
    struct world *w = *state;
    assert_int_equal(newest(w), 0);
    for (uint32_t step = 5; step < 25; step += 5) {
        save(w, step);
        assert_int_equal(newest(w), step);
    }
    char key[WEIR_KEY_BYTES];
    uint64_t bytes;
    weir_key_checkpoint("local", &w->task, 10, key);
    assert_int_equal(weir_store_stat(w->store, key, &bytes, NULL), WEIR_NOT_FOUND);
    weir_key_checkpoint("local", &w->task, 15, key);
    assert_int_equal(weir_store_stat(w->store, key, &bytes, NULL), WEIR_OK);
    assert_int_equal(bytes, 264 + 2 * COUNT * 4 + 32);
}

static void one_without_history_is_as_good_where_nobody_looks_back(void **state)
{
    struct world *w = *state;
    w->owner.history_count = 0;
    save(w, 5);
    assert_int_equal(newest(w), 5);
    w->owner.history_count = COUNT;
    assert_int_equal(newest(w), 0);
}

static void one_of_another_owner_is_passed_over(void **state)
{
    struct world *w = *state;
    save(w, 5);
    save(w, 10);
    struct weir_checkpoint_owner own = w->owner;
    for (int i = 0; i < 8; i++) {
        w->owner = own;
        switch (i) {
        case 0:
            w->owner.spec_digest[31] ^= 1;
            break;
        case 1:
            w->owner.model_digest[0] ^= 1;
            break;
        case 2:
            w->owner.numerics_class = "ref-f3";
            break;
        case 3:
            w->owner.numerics_class = "ref-f32x";
            break;
        case 4:
            w->owner.sampler = "ddim";
            break;
        case 5:
            w->owner.latent_count--;
            break;
        case 6:
            w->owner.history_count = 0;
            break;
        case 7:
            w->owner.step_count = 5;
            break; /* a run of five steps has no checkpoint 5 */
        }
        assert_int_equal(newest(w), 0);
    }
    w->owner = own;
    w->owner.step_count = 10;
    assert_int_equal(newest(w), 5);
    w->owner.step_count = 11;
    assert_int_equal(newest(w), 10); /* foreign ones were left alone */
}

static void a_damaged_one_is_removed_and_the_one_before_taken(void **state)
{
    struct world *w = *state;
    const struct weir_checkpoint_state good = { 15, w->latents, w->history };
    void *bytes;
    size_t count;
    w->latents[0] = 15;
    assert_int_equal(weir_checkpoint_write(&w->owner, &good, &bytes, &count, NULL), WEIR_OK);
    save(w, 10);
    for (size_t cut = 0; cut < count; cut += 37) { /* truncated */
        plant(w, 15, bytes, cut);
        assert_int_equal(newest(w), 10);
    }
    uint8_t *wrong = malloc(count + 1);
    for (size_t at = 0; at < count; at += 13) { /* one bit flipped */
        memcpy(wrong, bytes, count);
        wrong[at] ^= 0x10;
        plant(w, 15, wrong, count);
        assert_int_equal(newest(w), 10);
    }
    memcpy(wrong, bytes, count); /* one byte more */
    wrong[count] = 0;
    plant(w, 15, wrong, count + 1);
    assert_int_equal(newest(w), 10);
    plant(w, 20, bytes, count); /* whole, but of another step than its name says */
    assert_int_equal(newest(w), 10);
    save(w, 15); /* its place is free again */
    assert_int_equal(newest(w), 15);
    free(wrong);
    free(bytes);
}

static void names_that_are_no_steps_are_passed_over(void **state)
{
    struct world *w = *state;
    char key[WEIR_KEY_BYTES];
    save(w, 5);
    weir_key_checkpoints("local", &w->task, key);
    strcat(key, "zzzzzz");
    assert_int_equal(weir_store_put(w->store, key, "x", 1, NULL), WEIR_OK);
    weir_key_checkpoints("local", &w->task, key);
    strcat(key, "9999999");
    assert_int_equal(weir_store_put(w->store, key, "x", 1, NULL), WEIR_OK);
    assert_int_equal(newest(w), 5);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(the_newest_is_taken_and_two_are_kept),    CASE(one_without_history_is_as_good_where_nobody_looks_back),
        CASE(one_of_another_owner_is_passed_over),     CASE(a_damaged_one_is_removed_and_the_one_before_taken),
        CASE(names_that_are_no_steps_are_passed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
