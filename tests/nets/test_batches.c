/* An item's latents after each of its steps are the same bytes alone and among others: in a batch of two, three and
 * eight, in any seat, with mates that come and go and have other texts, seeds, steps, guidances, samplers and adapters. */
#include "tests/nets/bench.h"
#include "tests/nets/lora_file.h"

enum { ITEMS = 10 };

static const struct batch { /* items of one shape */
    const char *folder;
    int64_t width, height, frames;
    const char *samplers[2];
    bool guided;
    bool adapted; /* every third item by one adapter, every third by another, by both of them one */
} batches[] = {
    { "tiny-a", 40, 32, 3, { "ddim", "dpm++" }, true, true },
    { "tiny-b", 40, 32, 5, { "ddim", "dpm++" }, false, false },
    { "tiny-sana-a", 72, 56, 1, { "flow-dpm++", "flow-euler" }, true, true },
    { "tiny-sana-a", 72, 56, 1, { "flow-dpm++", "flow-euler" }, false, false },
    { "tiny-sana-b", 32, 64, 1, { "scm", "scm" }, false, true },
};

/* One item and where it stands after every step when it is alone. */
struct one {
    struct weir_item item;
    float *embedding, *steps, *previous; /* of step s at s * count */
    struct weir_factors *factors;        /* or NULL */
    uint32_t step_count;
    bool looks_back;
};

struct world {
    struct bench bench;
    struct one ones[ITEMS];
    struct weir_lora *loras[2];
    size_t lora_bytes[2];
    size_t count; /* floats of latents */
    float *read;
    uint32_t random;
};

static uint32_t dice(struct world *w, uint32_t sides)
{
    w->random = w->random * 1664525 + 1013904223;
    return (w->random >> 16) % sides;
}

static struct weir_denoiser_input input_of(const struct one *one)
{
    return (struct weir_denoiser_input){ .embedding = one->embedding, .factors = one->factors };
}

/* Item 0 has none; the last one has both, and so the most. */
static void adapt_one(struct world *w, uint32_t i)
{
    struct one *one = &w->ones[i];
    struct weir_lora_use uses[2];
    for (uint32_t k = 0; k < 2; k++) {
        if (i != ITEMS - 1 && i % 3 != k + 1) continue;
        one->item.loras[one->item.lora_count].bytes = w->lora_bytes[k];
        uses[one->item.lora_count++] = (struct weir_lora_use){ w->loras[k], i % 2 ? 1 : -0.5 };
    }
    if (one->item.lora_count) one->factors = factors_of(&w->bench, uses, one->item.lora_count);
}

static void make_one(struct world *w, const struct batch *batch, uint32_t i)
{
    static const char *const prompts[] = { "a red circle", "two blue stars over a long green line", "a square" };
    struct one *one = &w->ones[i];
    struct weir_item_wish wish = WEIR_ITEM_WISH_NONE;
    wish.width = batch->width, wish.height = batch->height, wish.frames = batch->frames;
    wish.steps = 1 + i * 3 % 7;
    wish.guidance = batch->guided ? 1.5 + i : w->bench.facts->guidance_inside ? 2 + i : 1;
    wish.sampler = batch->samplers[i % 2];
    wish.noise = i % 3 == 0 ? "f16" : "f32";
    wish.seed = 100 + i;
    OK(weir_item_resolve(w->bench.facts, &wish, &one->item, &error));
    one->step_count = steps_of(&w->bench, &one->item, &one->looks_back);
    if (batch->adapted) adapt_one(w, i);
    one->embedding = bench_embed(&w->bench, prompts[i % 3], i % 2 ? "blurred" : "", &one->item);
    one->steps = malloc((one->step_count + 1) * w->count * sizeof *one->steps);
    one->previous = malloc((one->step_count + 1) * w->count * sizeof *one->previous);
}

static void run_alone(struct world *w, struct weir_denoiser *alone, struct one *one)
{
    const struct weir_denoiser_input input = input_of(one);
    uint32_t seat;
    OK(weir_denoiser_begin(alone, &one->item, &input, NULL, &seat, &error));
    for (uint32_t s = 0;; s++) {
        OK(weir_denoiser_read(alone, seat, one->steps + s * w->count, one->previous + s * w->count, &error));
        if (s == one->step_count) break;
        OK(weir_denoiser_step(alone, &error));
    }
    OK(weir_denoiser_leave(alone, seat, &error));
}

static struct world world_open(const char *device, const struct batch *batch)
{
    struct world w = { .bench = bench_open(device, batch->folder), .random = 7 };
    struct weir_denoiser *alone = NULL;
    struct weir_item_wish wish = WEIR_ITEM_WISH_NONE;
    struct weir_item item;
    wish.width = batch->width, wish.height = batch->height, wish.frames = batch->frames;
    wish.guidance = batch->guided ? 5 : 1;
    wish.sampler = batch->samplers[0];
    OK(weir_item_resolve(w.bench.facts, &wish, &item, &error));
    assert_true(weir_item_guided(w.bench.facts, &item) == batch->guided);
    w.count = weir_item_latent_count(w.bench.facts, &item);
    w.read = malloc(w.count * sizeof *w.read);
    OK(weir_denoiser_create(w.bench.pipeline, &item, 1, &alone, &error));
    for (uint32_t k = 0; k < 2 && batch->adapted; k++) {
        char name[64];
        snprintf(name, sizeof name, "%s-%s", batch->folder, k ? "two" : "one");
        w.loras[k] = golden_lora(&w.bench, name, &w.lora_bytes[k]);
    }
    for (uint32_t i = 0; i < ITEMS; i++) make_one(&w, batch, i);
    for (uint32_t i = 0; i < ITEMS; i++) run_alone(&w, alone, &w.ones[i]);
    weir_denoiser_destroy(&alone);
    return w;
}

static void world_close(struct world *w)
{
    for (uint32_t i = 0; i < ITEMS; i++) weir_factors_destroy(&w->ones[i].factors);
    for (uint32_t k = 0; k < 2; k++) weir_lora_destroy(&w->loras[k]);
    for (uint32_t i = 0; i < ITEMS; i++) free(w->ones[i].embedding), free(w->ones[i].steps), free(w->ones[i].previous);
    free(w->read);
    bench_close(&w->bench);
}

/* Who sits where; an entry of ITEMS is free. */
struct room {
    struct weir_denoiser *denoiser;
    uint32_t of_seat[WEIR_DENOISER_SEATS_MAX];
};

static void check_all(struct world *w, const struct room *room, const char *what)
{
    for (uint32_t seat = 0; seat < weir_denoiser_seats(room->denoiser); seat++) {
        if (room->of_seat[seat] == ITEMS) continue;
        const struct one *one = &w->ones[room->of_seat[seat]];
        const uint32_t step = weir_denoiser_step_index(room->denoiser, seat);
        OK(weir_denoiser_read(room->denoiser, seat, w->read, NULL, &error));
        if (memcmp(w->read, one->steps + step * w->count, w->count * sizeof *w->read) == 0) continue;
        fail_msg("%s: item %u in seat %u of %u, %u beside it: step %u has other bytes than alone", what,
                 room->of_seat[seat], seat, weir_denoiser_seats(room->denoiser),
                 weir_denoiser_seated(room->denoiser) - 1, step);
    }
}

/* Half of them come from where they stood alone, as behind a checkpoint. */
static void seat_one(struct world *w, struct room *room, uint32_t who)
{
    const struct one *one = &w->ones[who];
    const uint32_t from = dice(w, 2) ? dice(w, one->step_count) : 0;
    const struct weir_denoiser_state state = { from, one->steps + from * w->count,
                                               one->looks_back ? one->previous + from * w->count : NULL };
    const struct weir_denoiser_input input = input_of(one);
    uint32_t seat = WEIR_DENOISER_SEATS_MAX;
    OK(weir_denoiser_begin(room->denoiser, &one->item, &input, from ? &state : NULL, &seat, &error));
    assert_true(seat < weir_denoiser_seats(room->denoiser) && room->of_seat[seat] == ITEMS);
    room->of_seat[seat] = who;
}

static void clear_seats(struct world *w, struct room *room)
{
    for (uint32_t seat = 0; seat < weir_denoiser_seats(room->denoiser); seat++) {
        if (room->of_seat[seat] == ITEMS) continue;
        const bool is_done =
            weir_denoiser_step_index(room->denoiser, seat) == weir_denoiser_step_count(room->denoiser, seat);
        if (!is_done && dice(w, 12) != 0) continue; /* some leave before their end */
        OK(weir_denoiser_leave(room->denoiser, seat, &error));
        room->of_seat[seat] = ITEMS;
    }
}

/* Planned for one that has the most adapters, which is enough for all, or for one that has none. */
static void come_and_go(struct world *w, uint32_t seats, uint32_t planned, const char *what)
{
    struct room room = { .denoiser = NULL };
    uint32_t waiting = 3 * ITEMS;
    OK(weir_denoiser_create(w->bench.pipeline, &w->ones[planned].item, seats, &room.denoiser, &error));
    const uint64_t bytes = weir_denoiser_bytes(room.denoiser);
    for (uint32_t i = 0; i < WEIR_DENOISER_SEATS_MAX; i++) room.of_seat[i] = ITEMS;
    while (waiting > 0 || weir_denoiser_seated(room.denoiser) > 0) {
        while (waiting > 0 && weir_denoiser_seated(room.denoiser) < seats &&
               (weir_denoiser_seated(room.denoiser) == 0 || dice(w, 3) > 0))
            seat_one(w, &room, --waiting % ITEMS);
        check_all(w, &room, what);
        OK(weir_denoiser_step(room.denoiser, &error));
        check_all(w, &room, what);
        clear_seats(w, &room);
        check_all(w, &room, what); /* a mate that left may have been replaced */
    }
    assert_true(planned == 0 || weir_denoiser_bytes(room.denoiser) == bytes);
    weir_denoiser_destroy(&room.denoiser);
}

static void every_batch_on(const char *device)
{
    static const uint32_t seats[] = { 1, 2, 3, 8 };
    for (size_t i = 0; i < WEIR_COUNT(batches); i++) {
        char what[64];
        struct world w = world_open(device, &batches[i]);
        snprintf(what, sizeof what, "%s on %s", batches[i].folder, device);
        for (size_t k = 0; k < WEIR_COUNT(seats); k++) {
            come_and_go(&w, seats[k], ITEMS - 1, what);
            if (batches[i].adapted) come_and_go(&w, seats[k], 0, what);
        }
        world_close(&w);
    }
}

static void mates_do_not_change_a_byte_on_ref(void **state)
{
    (void)state;
    every_batch_on("ref");
}

static void mates_do_not_change_a_byte_on_cpu(void **state)
{
    (void)state;
    every_batch_on("cpu");
}

static void mates_do_not_change_a_byte_on_cpu_in_bf16(void **state)
{
    (void)state;
    every_batch_on("cpu bf16");
}

static void mates_do_not_change_a_byte_on_cuda(void **state)
{
    (void)state;
    every_batch_on("cuda");
}

static void mates_do_not_change_a_byte_on_cuda_in_bf16(void **state)
{
    (void)state;
    every_batch_on("cuda bf16");
}

/* Numbers of an adapter that are finite, and nothing behind them is. */
static void an_adapter_that_overflows_is_its_items_alone(void **state)
{
    (void)state;
    static struct file f;
    struct world w = world_open("cpu", &batches[2]);
    struct room room = { .denoiser = NULL };
    struct weir_lora *lora = NULL;
    struct weir_item item = w.ones[6].item;
    uint32_t seat;
    bool finite = true;
    file_begin(&f, NULL);
    file_add(&f, "transformer.proj_out.lora_A.weight", "1,24", 24, 3e38f, false);
    file_add(&f, "transformer.proj_out.lora_B.weight", "4,1", 4, 3e38f, false);
    file_end(&f);
    OK(weir_pipeline_lora(w.bench.pipeline, f.bytes, f.count, "huge", &lora, &error));
    struct weir_factors *factors = factors_of(&w.bench, &(struct weir_lora_use){ lora, 1 }, 1);
    const struct weir_denoiser_input input = { .embedding = w.ones[6].embedding, .factors = factors };
    item.lora_count = 1;
    for (uint32_t i = 0; i < WEIR_DENOISER_SEATS_MAX; i++) room.of_seat[i] = ITEMS;
    OK(weir_denoiser_create(w.bench.pipeline, &w.ones[ITEMS - 1].item, 8, &room.denoiser, &error));
    for (uint32_t i = 1; i < 5; i++) seat_one(&w, &room, i);
    OK(weir_denoiser_begin(room.denoiser, &item, &input, NULL, &seat, &error));
    for (uint32_t i = 7; i < ITEMS; i++) seat_one(&w, &room, i);
    OK(weir_denoiser_step(room.denoiser, &error));
    check_all(&w, &room, "beside an adapter that overflows");
    OK(weir_denoiser_read(room.denoiser, seat, w.read, NULL, &error));
    for (size_t i = 0; i < w.count; i++) finite &= isfinite(w.read[i]) != 0;
    assert_false(finite);
    OK(weir_denoiser_leave(room.denoiser, seat, &error));
    check_all(&w, &room, "after it");
    weir_denoiser_destroy(&room.denoiser);
    weir_factors_destroy(&factors);
    weir_lora_destroy(&lora);
    world_close(&w);
}

/* What is not finite stays with its item. */
static void a_mate_that_is_not_finite_changes_nothing(void **state)
{
    (void)state;
    struct world w = world_open("cpu", &batches[2]);
    struct room room = { .denoiser = NULL };
    const size_t bad_count = weir_item_embedding_count(w.bench.facts, &w.ones[1].item);
    float *bad = malloc(bad_count * sizeof *bad);
    uint32_t bad_seat, before;
    bool finite = true;
    memcpy(bad, w.ones[1].embedding, bad_count * sizeof *bad);
    for (uint32_t c = 0; c < w.bench.facts->text_channels; c++) bad[c] = bad[bad_count / 2 + c] = NAN;
    for (uint32_t i = 0; i < WEIR_DENOISER_SEATS_MAX; i++) room.of_seat[i] = ITEMS;
    OK(weir_denoiser_create(w.bench.pipeline, &w.ones[0].item, 3, &room.denoiser, &error));
    seat_one(&w, &room, 6);
    struct weir_denoiser_input input = input_of(&w.ones[1]);
    input.embedding = bad;
    OK(weir_denoiser_begin(room.denoiser, &w.ones[1].item, &input, NULL, &bad_seat, &error));
    seat_one(&w, &room, 2);
    before = weir_denoiser_seated(room.denoiser);
    OK(weir_denoiser_step(room.denoiser, &error));
    check_all(&w, &room, "beside what is not finite");
    OK(weir_denoiser_read(room.denoiser, bad_seat, w.read, NULL, &error));
    for (size_t i = 0; i < w.count; i++) finite &= isfinite(w.read[i]) != 0;
    assert_false(finite);
    OK(weir_denoiser_leave(room.denoiser, bad_seat, &error));
    assert_int_equal(weir_denoiser_seated(room.denoiser), before - 1);
    check_all(&w, &room, "after it");
    weir_denoiser_destroy(&room.denoiser);
    free(bad);
    world_close(&w);
}

static enum weir_status no_sync(struct weir_stream *stream, struct weir_error *error)
{
    (void)stream;
    return weir_fail(error, WEIR_DEVICE, "the test pulled the plug");
}

/* All items are lost with the device, and all seats are free: whoever begins again has his bytes. */
static void a_device_that_fails_frees_all_seats(void **state)
{
    (void)state;
    struct world w = world_open("ref", &batches[2]);
    struct room room = { .denoiser = NULL };
    struct weir_error refusal;
    const struct weir_device_table *whole = w.bench.device->table;
    struct weir_device_table broken = *whole;
    broken.stream_sync = no_sync;
    OK(weir_denoiser_create(w.bench.pipeline, &w.ones[0].item, 3, &room.denoiser, &error));
    for (uint32_t i = 0; i < WEIR_DENOISER_SEATS_MAX; i++) room.of_seat[i] = ITEMS;
    for (uint32_t i = 0; i < 3; i++) seat_one(&w, &room, i);
    w.bench.device->table = &broken;
    assert_int_equal(weir_denoiser_step(room.denoiser, &refusal), WEIR_DEVICE);
    w.bench.device->table = whole;
    assert_int_equal(weir_denoiser_seated(room.denoiser), 0);
    for (uint32_t i = 0; i < 3; i++) room.of_seat[i] = ITEMS;
    for (uint32_t i = 3; i < 6; i++) seat_one(&w, &room, i);
    OK(weir_denoiser_step(room.denoiser, &error));
    check_all(&w, &room, "after the device failed");
    weir_denoiser_destroy(&room.denoiser);
    world_close(&w);
}

/* The plan says what seats cost, and a seat more costs the same each time. */
static void memory_of_seats_is_planned(void **state)
{
    (void)state;
    struct world w = world_open("ref", &batches[0]);
    struct weir_pipeline_memory one, plan, eight;
    OK(weir_pipeline_plan_memory(w.bench.pipeline, w.bench.device, WEIR_PIPELINE_DENOISE, &w.ones[0].item, &one,
                                 &error));
    OK(weir_pipeline_plan_denoise(w.bench.pipeline, w.bench.device, &w.ones[0].item, 1, &plan, &error));
    assert_memory_equal(&one, &plan, sizeof one);
    OK(weir_pipeline_plan_denoise(w.bench.pipeline, w.bench.device, &w.ones[0].item, 8, &eight, &error));
    assert_int_equal(eight.weights, one.weights);
    assert_true(eight.arena > 4 * one.arena && eight.arena <= 8 * one.arena);
    struct weir_denoiser *denoiser = NULL;
    OK(weir_denoiser_create(w.bench.pipeline, &w.ones[0].item, 8, &denoiser, &error));
    assert_int_equal(weir_denoiser_bytes(denoiser), eight.arena + eight.host);
    weir_denoiser_destroy(&denoiser);
    world_close(&w);
}

/* A pattern of names, when one is given, picks the tests: "*_on_cuda". */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mates_do_not_change_a_byte_on_ref),
        cmocka_unit_test(mates_do_not_change_a_byte_on_cpu),
        cmocka_unit_test(mates_do_not_change_a_byte_on_cpu_in_bf16),
        cmocka_unit_test(mates_do_not_change_a_byte_on_cuda),
        cmocka_unit_test(mates_do_not_change_a_byte_on_cuda_in_bf16),
        cmocka_unit_test(an_adapter_that_overflows_is_its_items_alone),
        cmocka_unit_test(a_mate_that_is_not_finite_changes_nothing),
        cmocka_unit_test(a_device_that_fails_frees_all_seats),
        cmocka_unit_test(memory_of_seats_is_planned),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
