/* How large a batch should be, from the milliseconds of steps. */
#include "worker/rows.h"

#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

static const struct weir_log quiet = { "test_rows", WEIR_LOG_ERROR, STDERR_FILENO };
static const struct weir_shape shape = { .model = 1, .dims = { 32, 1, 8, 8 }, .guided = true };

static struct weir_rows *rows_of(uint32_t fixed)
{
    struct weir_rows *rows;
    assert_int_equal(weir_rows_create(fixed, &quiet, &rows, NULL), WEIR_OK);
    return rows;
}

/* Enough steps to know, the first of which says nothing. */
static void teach(struct weir_rows *rows, const struct weir_shape *of, uint32_t items, uint64_t ns)
{
    weir_rows_measured(rows, of, items, 1);
    for (uint64_t i = 0; i < 7; i++) weir_rows_measured(rows, of, items, ns + i % 2 * ns);
}

static void it_doubles_while_that_pays(void **state)
{
    (void)state;
    struct weir_rows *rows = rows_of(0);
    assert_int_equal(weir_rows_wanted(rows, &shape), 1); /* nothing is known */
    teach(rows, &shape, 1, 1000);
    assert_int_equal(weir_rows_wanted(rows, &shape), 2); /* to be tried */
    teach(rows, &shape, 2, 1940);                        /* 3.1% more a second */
    assert_int_equal(weir_rows_wanted(rows, &shape), 4);
    teach(rows, &shape, 3, 1); /* is no doubling */
    assert_int_equal(weir_rows_wanted(rows, &shape), 4);
    teach(rows, &shape, 4, 3800); /* 2.1% */
    assert_int_equal(weir_rows_wanted(rows, &shape), 2);
    weir_rows_measured(rows, &shape, 4, 3700); /* it was the machine: 4.9% */
    assert_int_equal(weir_rows_wanted(rows, &shape), 8);
    teach(rows, &shape, 8, 5000);
    teach(rows, &shape, 16, 9000);
    assert_int_equal(weir_rows_wanted(rows, &shape), 16);
    assert_int_equal(weir_rows_most(rows), 16);
    weir_rows_destroy(&rows);
}

static void it_takes_more_than_one_step_to_know(void **state)
{
    (void)state;
    struct weir_rows *rows = rows_of(0);
    for (int i = 0; i < 7; i++) {
        weir_rows_measured(rows, &shape, 1, 1000);
        assert_int_equal(weir_rows_wanted(rows, &shape), 1);
    }
    weir_rows_measured(rows, &shape, 1, 1000);
    assert_int_equal(weir_rows_wanted(rows, &shape), 2);
    weir_rows_destroy(&rows);
}

static void what_did_not_pay_is_tried_again(void **state)
{
    (void)state;
    struct weir_rows *rows = rows_of(0);
    teach(rows, &shape, 1, 1000);
    teach(rows, &shape, 2, 2000);
    assert_int_equal(weir_rows_wanted(rows, &shape), 1);
    for (int i = 16; i < 1999; i++) weir_rows_measured(rows, &shape, 1, 1000);
    assert_int_equal(weir_rows_wanted(rows, &shape), 1);
    weir_rows_measured(rows, &shape, 1, 1000);
    assert_int_equal(weir_rows_wanted(rows, &shape), 2);
    teach(rows, &shape, 2, 1500);
    assert_int_equal(weir_rows_wanted(rows, &shape), 4);
    weir_rows_destroy(&rows);
}

static void shapes_are_known_apart_and_the_oldest_is_forgotten(void **state)
{
    (void)state;
    struct weir_rows *rows = rows_of(0);
    struct weir_shape other = shape;
    teach(rows, &shape, 1, 1000);
    other.guided = false;
    assert_int_equal(weir_rows_wanted(rows, &other), 1);
    other.guided = true;
    other.model = 0;
    assert_int_equal(weir_rows_wanted(rows, &other), 1);
    assert_int_equal(weir_rows_wanted(rows, &shape), 2);
    for (uint32_t i = 0; i < 64; i++) {
        other.dims[3] = 100 + i;
        assert_int_equal(weir_rows_wanted(rows, &other), 1);
    }
    assert_int_equal(weir_rows_wanted(rows, &shape), 1);
    weir_rows_destroy(&rows);
}

static void memory_is_the_limit(void **state)
{
    (void)state;
    struct weir_rows *rows = rows_of(0);
    teach(rows, &shape, 1, 1000);
    teach(rows, &shape, 2, 1200);
    weir_rows_allow(rows, &shape, 2);
    assert_int_equal(weir_rows_wanted(rows, &shape), 2);
    assert_int_equal(weir_rows_wished(rows, &shape), 4);
    weir_rows_allow(rows, &shape, WEIR_ROWS_MAX);
    assert_int_equal(weir_rows_wanted(rows, &shape), 4);
    weir_rows_destroy(&rows);
}

static void a_number_that_was_set_is_not_learned(void **state)
{
    (void)state;
    struct weir_rows *rows = rows_of(3);
    assert_int_equal(weir_rows_most(rows), 3);
    assert_int_equal(weir_rows_wanted(rows, &shape), 3);
    teach(rows, &shape, 1, 1000);
    teach(rows, &shape, 2, 9000);
    assert_int_equal(weir_rows_wanted(rows, &shape), 3);
    weir_rows_allow(rows, &shape, 1);
    assert_int_equal(weir_rows_wanted(rows, &shape), 1);
    weir_rows_destroy(&rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_doubles_while_that_pays),
        cmocka_unit_test(it_takes_more_than_one_step_to_know),
        cmocka_unit_test(what_did_not_pay_is_tried_again),
        cmocka_unit_test(shapes_are_known_apart_and_the_oldest_is_forgotten),
        cmocka_unit_test(memory_is_the_limit),
        cmocka_unit_test(a_number_that_was_set_is_not_learned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
