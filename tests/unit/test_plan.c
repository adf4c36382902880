/* The plan and the heap: pure arithmetic, tried over every small job and many random orders. */
#include "broker/heap.h"
#include "broker/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static enum weir_status make_of(const char *format, bool image, uint32_t n, uint32_t frames, struct weir_plan *out)
{
    Weir__Pb__JobSpec spec = WEIR__PB__JOB_SPEC__INIT;
    spec.has_image = spec.image = image;
    spec.has_n = spec.has_frames = true;
    spec.n = n;
    spec.frames = frames;
    spec.format = (char *)(uintptr_t)format;
    return weir_plan_make(&spec, out, NULL);
}

static enum weir_status make(const char *format, uint32_t n, uint32_t frames, struct weir_plan *out)
{
    return make_of(format, false, n, frames, out);
}

static void films_are_cut_into_segments_of_16_frames_and_pictures_are_not(void **state)
{
    (void)state;
    struct weir_plan plan;
    uint32_t first, count;
    const struct {
        const char *format;
        uint32_t frames, segments, last;
    } rows[] = { { "mp4", 1, 1, 1 },   { "mp4", 16, 1, 16 },   { "mp4", 17, 2, 1 }, { "webm", 32, 2, 16 },
                 { "webm", 33, 3, 1 }, { "gif", 100, 1, 100 }, { "png", 17, 1, 17 } };
    for (size_t k = 0; k < WEIR_COUNT(rows); k++) {
        assert_int_equal(make(rows[k].format, 1, rows[k].frames, &plan), WEIR_OK);
        assert_int_equal(plan.segments, rows[k].segments);
        weir_plan_frames(&plan, WEIR_STAGE_DECODE, plan.segments - 1, &first, &count);
        assert_int_equal(count, rows[k].last);
        assert_int_equal(first + count, rows[k].frames);
    }
}

static void the_limit_of_tasks_holds_from_both_sides_and_numbers_do_not_overflow(void **state)
{
    (void)state;
    struct weir_plan plan;
    assert_int_equal(make("gif", 1365, 16, &plan), WEIR_OK); /* 1 + 1365 * 3 = 4096 */
    assert_int_equal(weir_plan_tasks(&plan), WEIR_PLAN_TASKS_MAX);
    assert_int_equal(make("gif", 1366, 16, &plan), WEIR_TOO_LARGE);
    assert_int_equal(make("mp4", UINT32_MAX, UINT32_MAX, &plan), WEIR_TOO_LARGE);
    assert_int_equal(make("mp4", 0, 16, &plan), WEIR_BAD_ARGUMENT);
    assert_int_equal(make("mp4", 1, 0, &plan), WEIR_BAD_ARGUMENT);
    assert_int_equal(make(NULL, 1, 16, &plan), WEIR_BAD_ARGUMENT);
}

/* Whatever wrote the row of a film before there were images reads it back as it was. */
static void a_film_keeps_its_plan_and_an_image_has_another_version(void **state)
{
    (void)state;
    static const char *const formats[] = { "mp4", "webm", "gif", "png" };
    struct weir_plan plan;
    for (size_t k = 0; k < WEIR_COUNT(formats); k++) {
        assert_int_equal(make(formats[k], 2, 1, &plan), WEIR_OK); /* also of one frame, png among them */
        assert_int_equal(weir_plan_version(&plan), 1);
        assert_int_equal(weir_plan_tasks(&plan), 7);
        assert_int_equal(weir_plan_count(&plan, WEIR_STAGE_ASSEMBLE), 2);
        assert_int_equal(weir_plan_last(&plan), WEIR_STAGE_ASSEMBLE);
    }
    assert_int_equal(make_of("png", true, 2, 1, &plan), WEIR_OK);
    assert_int_equal(weir_plan_version(&plan), 2);
    assert_int_equal(weir_plan_tasks(&plan), 5);
    assert_int_equal(weir_plan_count(&plan, WEIR_STAGE_DECODE), 2);
    assert_int_equal(weir_plan_count(&plan, WEIR_STAGE_ASSEMBLE), 0);
    assert_false(weir_plan_has(&plan, WEIR_STAGE_ASSEMBLE, 0));
    assert_int_equal(weir_plan_last(&plan), WEIR_STAGE_DECODE);
    assert_int_equal(make_of("webp", true, 2047, 1, &plan), WEIR_OK); /* 1 + 2047 * 2 = 4095 */
    assert_int_equal(make_of("webp", true, 2048, 1, &plan), WEIR_TOO_LARGE);
    assert_int_equal(make_of("webp", true, 1, 2, &plan), WEIR_BAD_ARGUMENT);
}

/* For every task of every small job: places go there and back, frames of an item are covered once, and a task is among
 * the consumers of exactly those tasks that are its inputs. */
static void every_small_plan_fits_together(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= 4; n++) {
        for (uint32_t frames = 0; frames <= 50; frames++) { /* 0: a job of images */
            struct weir_plan plan;
            assert_int_equal(make_of(frames ? "mp4" : "png", frames == 0, n, frames ? frames : 1, &plan), WEIR_OK);
            uint32_t covered = 0;
            for (uint32_t place = 0; place < weir_plan_tasks(&plan); place++) {
                enum weir_stage stage, from;
                uint32_t index, other, first, count;
                weir_plan_at(&plan, place, &stage, &index);
                assert_int_equal(weir_plan_place(&plan, stage, index), place);
                assert_in_range(weir_plan_item(&plan, stage, index), 0, n - 1);
                weir_plan_frames(&plan, stage, index, &first, &count);
                if (stage == WEIR_STAGE_DECODE) covered += count;
                const struct weir_plan_range inputs = weir_plan_inputs(&plan, stage, index);
                for (uint32_t p = 0; p < weir_plan_tasks(&plan); p++) {
                    weir_plan_at(&plan, p, &from, &other);
                    const struct weir_plan_range consumers = weir_plan_consumers(&plan, from, other);
                    const bool is_input =
                        from == inputs.stage && other >= inputs.first && other - inputs.first < inputs.count;
                    const bool consumes = stage == consumers.stage && index >= consumers.first &&
                                          index - consumers.first < consumers.count;
                    assert_int_equal(is_input, consumes);
                }
            }
            assert_int_equal(covered, n * (frames ? frames : 1));
        }
    }
}

/* ---- lists of prompts ---- */

struct list_wish {
    const char *text, *negative;
    double guidance;
};

/* A spec whose prompts are as wished, complete as a resolver leaves them. */
struct list_spec {
    Weir__Pb__JobSpec spec;
    Weir__Pb__Prompt prompts[WEIR_JOB_PROMPTS_MAX + 1], *list[WEIR_JOB_PROMPTS_MAX + 1];
};

static struct list_spec *list_of(const struct list_wish *wishes, size_t count, uint32_t n, bool image, uint32_t frames)
{
    struct list_spec *s = calloc(1, sizeof *s);
    assert_non_null(s);
    weir__pb__job_spec__init(&s->spec);
    s->spec.has_n = s->spec.has_frames = true;
    s->spec.has_image = s->spec.image = image;
    s->spec.n = n;
    s->spec.frames = frames;
    s->spec.format = (char *)(uintptr_t)(image ? "png" : "mp4");
    s->spec.n_prompts = count;
    s->spec.prompts = s->list;
    for (size_t k = 0; k < count; k++) {
        Weir__Pb__Prompt *p = s->list[k] = &s->prompts[k];
        weir__pb__prompt__init(p);
        p->text = (char *)(uintptr_t)wishes[k].text;
        p->negative = (char *)(uintptr_t)wishes[k].negative;
        p->guidance = wishes[k].guidance;
        p->has_width = p->has_height = p->has_steps = p->has_guidance = p->has_seed = true;
    }
    return s;
}

static void neighbours_of_one_text_share_its_task(void **state)
{
    (void)state;
    const struct list_wish wishes[] = { { "a", "", 7.5 }, { "a", "", 3 }, /* both guided: one text */
                                        { "a", "", 1 },                   /* not guided */
                                        { "a", "x", 1 },                  /* another negative */
                                        { "b", "x", 1 },  { "a", "", 7.5 } };
    const uint32_t text_of[] = { 0, 0, 1, 2, 3, 4 };
    struct list_spec *s = list_of(wishes, 6, 2, true, 1);
    struct weir_plan plan;
    assert_int_equal(weir_plan_make(&s->spec, &plan, NULL), WEIR_OK);
    assert_int_equal(weir_plan_version(&plan), 3);
    assert_int_equal(weir_plan_count(&plan, WEIR_STAGE_TEXT), 5);
    assert_int_equal(weir_plan_count(&plan, WEIR_STAGE_DENOISE), 12);
    assert_int_equal(weir_plan_tasks(&plan), 5 + 12 + 12);
    for (uint32_t item = 0; item < 12; item++) {
        const struct weir_plan_range input = weir_plan_inputs(&plan, WEIR_STAGE_DENOISE, item);
        assert_int_equal(input.first, text_of[item / 2]);
        assert_int_equal(input.count, 1);
    }
    assert_int_equal(weir_plan_item(&plan, WEIR_STAGE_TEXT, 1), 4);
    assert_int_equal(weir_plan_item_count(&plan, WEIR_STAGE_TEXT, 0), 4);
    assert_int_equal(weir_plan_item_count(&plan, WEIR_STAGE_TEXT, 4), 2);
    free(s);
}

/* Every task of random lists: its consumers are exactly those that have it among their inputs, and the items of the
 * texts are all items once, in order. */
static void every_list_fits_together(void **state)
{
    (void)state;
    static const char *const texts[] = { "a", "b", "c" };
    unsigned seed = 5;
    for (int round = 0; round < 60; round++) {
        struct list_wish wishes[WEIR_JOB_PROMPTS_MAX];
        const bool image = rand_r(&seed) % 2;
        const size_t count = round < 40 ? 1 + (size_t)rand_r(&seed) % 20 : 63 + (size_t)rand_r(&seed) % 70;
        for (size_t k = 0; k < count; k++) {
            wishes[k] = (struct list_wish){ texts[rand_r(&seed) % 3], "", rand_r(&seed) % 2 ? 7 : 1 };
        }
        const uint32_t n = 1 + (uint32_t)rand_r(&seed) % 2;
        struct list_spec *s = list_of(wishes, count, n, image, image ? 1 : 1 + (uint32_t)rand_r(&seed) % 40);
        struct weir_plan plan;
        assert_int_equal(weir_plan_make(&s->spec, &plan, NULL), WEIR_OK);
        uint32_t next = 0;
        for (uint32_t t = 0; t < weir_plan_count(&plan, WEIR_STAGE_TEXT); t++) {
            assert_int_equal(weir_plan_item(&plan, WEIR_STAGE_TEXT, t), next);
            next += weir_plan_item_count(&plan, WEIR_STAGE_TEXT, t);
        }
        assert_int_equal(next, count * n);
        for (uint32_t place = 0; place < weir_plan_tasks(&plan); place++) {
            enum weir_stage stage;
            uint32_t index, consumers = 0;
            weir_plan_at(&plan, place, &stage, &index);
            assert_int_equal(weir_plan_place(&plan, stage, index), place);
            const struct weir_plan_range range = weir_plan_consumers(&plan, stage, index);
            for (uint32_t k = 0; stage != WEIR_STAGE_ASSEMBLE && k < weir_plan_count(&plan, range.stage); k++) {
                const struct weir_plan_range inputs = weir_plan_inputs(&plan, range.stage, k);
                const bool is_input = index >= inputs.first && index - inputs.first < inputs.count;
                assert_int_equal(is_input, k >= range.first && k - range.first < range.count);
                consumers += is_input;
            }
            if (stage != weir_plan_last(&plan)) assert_true(consumers > 0);
        }
        free(s);
    }
}

static void a_list_is_bounded_and_complete(void **state)
{
    (void)state;
    static struct list_wish wishes[WEIR_JOB_PROMPTS_MAX + 1];
    struct weir_plan plan;
    char texts[WEIR_JOB_PROMPTS_MAX + 1][8];
    for (uint32_t k = 0; k <= WEIR_JOB_PROMPTS_MAX; k++) {
        snprintf(texts[k], sizeof texts[k], "%u", k);
        wishes[k] = (struct list_wish){ texts[k], "", 7 };
    }
    struct list_spec *s = list_of(wishes, WEIR_JOB_PROMPTS_MAX, 1, true, 1);
    assert_int_equal(weir_plan_make(&s->spec, &plan, NULL), WEIR_OK);
    assert_int_equal(weir_plan_tasks(&plan), 3 * WEIR_JOB_PROMPTS_MAX);
    for (uint32_t k = 0; k < WEIR_JOB_PROMPTS_MAX; k++) {
        assert_int_equal(weir_plan_inputs(&plan, WEIR_STAGE_DENOISE, k).first, k);
        assert_int_equal(weir_plan_consumers(&plan, WEIR_STAGE_TEXT, k).first, k);
        assert_int_equal(weir_plan_consumers(&plan, WEIR_STAGE_TEXT, k).count, 1);
    }
    s->spec.n = 2;
    assert_int_equal(weir_plan_make(&s->spec, &plan, NULL), WEIR_TOO_LARGE);
    s->spec.n = UINT32_MAX;
    assert_int_equal(weir_plan_make(&s->spec, &plan, NULL), WEIR_TOO_LARGE);
    s->spec.n = 1;
    s->prompts[77].has_seed = false;
    assert_int_equal(weir_plan_make(&s->spec, &plan, NULL), WEIR_BAD_ARGUMENT);
    free(s);
    s = list_of(wishes, WEIR_JOB_PROMPTS_MAX, 1, false, 80); /* 512 + 512 * (1 + 5 + 1) = 4096 */
    assert_int_equal(weir_plan_make(&s->spec, &plan, NULL), WEIR_OK);
    assert_int_equal(weir_plan_tasks(&plan), WEIR_PLAN_TASKS_MAX);
    s->spec.frames = 81;
    assert_int_equal(weir_plan_make(&s->spec, &plan, NULL), WEIR_TOO_LARGE);
    free(s);
}

#define NODES 200

static void a_heap_gives_back_in_order_whatever_left_between(void **state)
{
    (void)state;
    static struct weir_heap_node nodes[NODES];
    unsigned seed = 7;
    for (int round = 0; round < 200; round++) {
        struct weir_heap heap = { NULL };
        bool in[NODES] = { false };
        size_t left = 0;
        for (int step = 0; step < 600; step++) {
            const size_t k = (size_t)rand_r(&seed) % NODES;
            if (in[k]) {
                weir_heap_remove(&heap, &nodes[k]);
                left--;
            } else {
                nodes[k].a = (uint64_t)rand_r(&seed) % 5;
                nodes[k].b = (uint64_t)rand_r(&seed) % 5;
                nodes[k].c = (uint32_t)k;
                weir_heap_add(&heap, &nodes[k]);
                left++;
            }
            in[k] = !in[k];
        }
        struct weir_heap_node *before = NULL;
        while (heap.root != NULL) {
            struct weir_heap_node *node = heap.root;
            weir_heap_remove(&heap, node);
            if (before != NULL) assert_true(weir_heap_before(before, node));
            before = node;
            left--;
        }
        assert_int_equal(left, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(films_are_cut_into_segments_of_16_frames_and_pictures_are_not),
        cmocka_unit_test(the_limit_of_tasks_holds_from_both_sides_and_numbers_do_not_overflow),
        cmocka_unit_test(a_film_keeps_its_plan_and_an_image_has_another_version),
        cmocka_unit_test(every_small_plan_fits_together),
        cmocka_unit_test(neighbours_of_one_text_share_its_task),
        cmocka_unit_test(every_list_fits_together),
        cmocka_unit_test(a_list_is_bounded_and_complete),
        cmocka_unit_test(a_heap_gives_back_in_order_whatever_left_between),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
