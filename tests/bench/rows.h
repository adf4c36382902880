/* rows: the work that is measured: networks of full size with made weights, each in a program of one shape.
 *
 * Memory   a row's network is kept for the next row when that is one of the same, so rows of one network stand together
 * Errors   of opening and planning, in the words of the network or the device
 * Threads  one
 */
#ifndef WEIR_TESTS_BENCH_ROWS_H
#define WEIR_TESTS_BENCH_ROWS_H

#include "kernels/program.h"

struct weir_bench_row {
    const char *name; /* "sana-1024-2" */
    const char *work; /* "Sana-1.6B step 1024 x 1024" */
    uint32_t rows;
    double limit_ms; /* what it must not take in bf16 on an H100; 0: nothing was set */
    bool asked;      /* measured only when it is asked for by name */
    /* How it is made. */
    const struct weir_bench_net *net;
    uint32_t frames, height, width, tokens; /* of the latents; of the text */
};

extern const struct weir_bench_row weir_bench_rows[];
extern const size_t weir_bench_row_count;

#define WEIR_BENCH_SLOTS_MAX 80

/* A row made ready. */
struct weir_bench_work {
    struct weir_program *program;
    void *arena, *text_arena; /* the second holds what the step reads in slots; or NULL */
    struct weir_program *text;
    struct weir_binding bindings[WEIR_BENCH_SLOTS_MAX];
    char slots[WEIR_BENCH_SLOTS_MAX][16];
    size_t binding_count;
    uint64_t parameters, bytes; /* of the network; of weights, values and slots together */
};

enum weir_status weir_bench_work_open(const struct weir_bench_row *row, struct weir_device *device,
                                      struct weir_stream *stream, enum weir_dtype dtype, struct weir_bench_work *out,
                                      struct weir_error *error);
void weir_bench_work_close(struct weir_bench_work *work, struct weir_device *device);
/* The network that was kept. */
void weir_bench_nets_close(void);

#endif
