/* What a GPU's illegal access is to whoever uses the device: DEVICE, now and for as long as the process lives. A
 * program of its own, since nothing on that GPU works in it afterwards. Without a GPU it is skipped. */
#include "tests/kernels/harness.h"

static struct weir_device *cuda;

/* Neither here nor in a thread of the load is anything waited for. */
static void see_load_fail(const struct weir_parameters *q)
{
    const uint64_t count = (uint64_t)q->out * q->in;
    const struct weir_numbers weight = { .run = { { q->weight, WEIR_F32 } }, .run_count = 1, .run_length = count };
    const struct weir_numbers bias = { .run_count = 0 };
    struct weir_load *load = NULL;
    struct weir_packed *layer = NULL;
    struct weir_error error = { 0 };
    assert_int_equal(cuda->ops->load_begin(cuda, &load, &error), WEIR_OK);
    assert_int_equal(cuda->ops->load_pack(load, q, &weight, &bias, &layer, &error), WEIR_DEVICE);
    assert_null(layer);
    assert_int_equal(cuda->ops->load_end(&load, &error), WEIR_DEVICE);
    assert_null(load);
}

static void an_illegal_access_fails_every_later_call(void **state)
{
    (void)state;
    enum { CHANNELS = 64 };
    uint64_t seed = 5;
    float *table = random_floats(&seed, 2 * CHANNELS, 1);
    const struct weir_parameters q = { .op = WEIR_OP_EMBED, .weight = table, .out = 2, .in = CHANNELS };
    const struct weir_embed shape = { .rows = 1, .tokens = 1, .channels = CHANNELS, .vocabulary = 2 };
    const int32_t id = INT32_MAX; /* half a terabyte behind the table; the caller checks ids, this one does not */
    const struct weir_device_table *table_of = cuda->table;
    struct weir_packed *layer = pack_layer(cuda, &q);
    struct weir_plan *plan = NULL;
    struct weir_stream *stream = NULL;
    struct weir_error error = { 0 };
    void *operands[WEIR_OPERANDS_MAX] = { NULL }, *more = NULL;
    size_t workspace_bytes;
    assert_int_equal(table_of->stream_create(cuda, &stream, &error), WEIR_OK);
    assert_int_equal(cuda->ops->plan[WEIR_OP_EMBED](cuda, layer, &shape, &plan, &workspace_bytes, &error), WEIR_OK);
    assert_int_equal(table_of->memory_alloc(cuda, sizeof id, &operands[WEIR_EMBED_IDS], &error), WEIR_OK);
    assert_int_equal(table_of->memory_alloc(cuda, CHANNELS * sizeof(float), &operands[WEIR_EMBED_Y], &error), WEIR_OK);
    assert_int_equal(table_of->upload(stream, operands[WEIR_EMBED_IDS], &id, sizeof id), WEIR_OK);
    assert_int_equal(cuda->ops->run(plan, stream, operands, NULL), WEIR_OK);

    assert_int_equal(table_of->stream_sync(stream, &error), WEIR_DEVICE);
    print_message("the words: %s\n", error.words);
    assert_non_null(strstr(error.words, "device cuda: "));
    assert_int_equal(table_of->stream_sync(stream, &error), WEIR_DEVICE);
    assert_int_equal(table_of->memory_alloc(cuda, 4096, &more, &error), WEIR_DEVICE);
    assert_int_equal(cuda->ops->run(plan, stream, operands, NULL), WEIR_DEVICE);
    see_load_fail(&q);

    table_of->memory_free(cuda, operands[WEIR_EMBED_IDS]);
    table_of->memory_free(cuda, operands[WEIR_EMBED_Y]);
    cuda->ops->plan_destroy(plan);
    cuda->ops->packed_destroy(layer);
    table_of->stream_destroy(stream);
    free(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(an_illegal_access_fails_every_later_call) };
    struct weir_error error = { 0 };
    const enum weir_status status = weir_device_open("cuda", 0, &cuda, &error);
    if (status == WEIR_NOT_FOUND) {
        printf("skipped: %zu test of the cuda device: %s\n", WEIR_COUNT(tests), error.words);
        return 77;
    }
    if (status != WEIR_OK) {
        fprintf(stderr, "%s\n", error.words);
        return 1;
    }
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    weir_device_close(&cuda);
    return failed;
}
