/* Opening the cpu device, packing layers and planning each op: whichever of our allocations fails, the answer is
 * NO_MEMORY in words, and all that was taken is given back (AddressSanitizer looks for leaks). */
#include "tests/kernels/run_cases.h"

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);

static long allocations_left = -1; /* -1: all succeed */

static bool allocation_fails(void)
{
    if (allocations_left < 0) return false;
    return allocations_left-- == 0;
}

void *__wrap_malloc(size_t bytes)
{
    return allocation_fails() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    return allocation_fails() ? NULL : __real_calloc(count, bytes);
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
    return allocation_fails() ? NULL : __real_aligned_alloc(alignment, bytes);
}

static enum weir_status pack_and_plan(struct weir_device *device, const struct running_case *r,
                                      struct weir_error *error)
{
    struct weir_packed *packed = NULL;
    struct weir_plan *plan = NULL;
    size_t workspace_bytes;
    enum weir_status status = WEIR_OK;
    if (r->weight) status = device->ops->pack(device, &r->parameters, &packed, error);
    if (status == WEIR_OK) {
        status = device->ops->plan[r->c.op](device, packed, &r->c.shape, &plan, &workspace_bytes, error);
    }
    if (plan) device->ops->plan_destroy(plan);
    if (packed) device->ops->packed_destroy(packed);
    return status;
}

static void each_failed_allocation_of_a_plan_is_no_memory(void **state)
{
    (void)state;
    struct weir_device *device = open_device("cpu", 2);
    for (size_t i = 0; i < WEIR_COUNT(kernel_cases); i++) {
        struct running_case r = case_begin(&kernel_cases[i], 0, 1);
        for (long n = 0;; n++) {
            struct weir_error error = { 0 };
            allocations_left = n;
            const enum weir_status status = pack_and_plan(device, &r, &error);
            const bool failed = allocations_left < 0;
            allocations_left = -1;
            if (!failed) {
                if (status != WEIR_OK || n == 0) fail_msg("%s: %s", r.c.label, error.words);
                break;
            }
            if (status != WEIR_NO_MEMORY || !error.words[0]) {
                fail_msg("%s: allocation %ld failed, and the answer is %s", r.c.label, n, weir_status_name(status));
            }
        }
        case_end(&r);
    }
    weir_device_close(&device);
}

static void each_failed_allocation_of_a_device_is_no_memory(void **state)
{
    (void)state;
    for (long n = 0;; n++) {
        struct weir_device *device = NULL;
        struct weir_stream *stream = NULL;
        struct weir_error error = { 0 };
        void *memory = NULL;
        allocations_left = n;
        enum weir_status status = weir_device_open("cpu", 3, &device, &error);
        if (status == WEIR_OK) status = device->table->stream_create(device, &stream, &error);
        if (status == WEIR_OK) status = device->table->memory_alloc(device, 100, &memory, &error);
        const bool failed = allocations_left < 0;
        allocations_left = -1;
        if (memory) device->table->memory_free(device, memory);
        if (stream) device->table->stream_destroy(stream);
        weir_device_close(&device);
        if (!failed) {
            assert_int_equal(status, WEIR_OK);
            assert_true(n >= 5);
            break;
        }
        assert_int_equal(status, WEIR_NO_MEMORY);
        assert_true(error.words[0]);
    }
}

static void more_memory_than_there_is_is_refused_with_its_size(void **state)
{
    (void)state;
    struct weir_device *device = open_device("cpu", 1);
    struct weir_error error = { 0 };
    void *memory = &memory;
    assert_int_equal(device->table->memory_alloc(device, SIZE_MAX, &memory, &error), WEIR_NO_MEMORY);
    assert_null(memory);
    assert_non_null(strstr(error.words, "18446744073709551615"));
    weir_device_close(&device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_failed_allocation_of_a_device_is_no_memory),
        cmocka_unit_test(each_failed_allocation_of_a_plan_is_no_memory),
        cmocka_unit_test(more_memory_than_there_is_is_refused_with_its_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
