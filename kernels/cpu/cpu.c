/* The cpu device's table: opening, planning, running. The arithmetic is in the files of the ops. */
#include "kernels/cpu/cpu.h"

#include "kernels/host.h"
#include "kernels/internal.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

size_t weir_cpu_aligned(size_t bytes)
{
    return (bytes + WEIR_ALIGNMENT - 1) / WEIR_ALIGNMENT * WEIR_ALIGNMENT;
}

uint32_t weir_cpu_piece(uint64_t total, uint64_t wanted)
{
    uint64_t pieces = wanted > 0 ? (total + wanted / 2) / wanted : total;
    if (pieces < 1) pieces = 1;
    if (pieces > total) pieces = total;
    return (uint32_t)((total + pieces - 1) / pieces);
}

void *weir_cpu_slice(const struct weir_cpu_run *run, uint32_t slot)
{
    return run->workspace + slot * run->plan->slice_bytes;
}

void *weir_cpu_shared(const struct weir_cpu_run *run)
{
    return run->workspace + weir_pool_slots(run->cpu->pool) * run->plan->slice_bytes;
}

void weir_cpu_items(struct weir_cpu_run *run, uint32_t items, void (*work)(void *run, uint32_t item, uint32_t slot))
{
    weir_pool_run(run->cpu->pool, items, work, run);
}

void weir_cpu_fault(struct weir_cpu_run *run)
{
    __atomic_store_n(&run->fault, true, __ATOMIC_RELAXED); /* read after the pool is done, which orders it */
}

static void plan_destroy(struct weir_plan *head)
{
    struct weir_cpu_plan *plan = (struct weir_cpu_plan *)head;
    if (!plan) return;
    if (plan->deinit) plan->deinit((struct weir_cpu *)plan->head.device, plan);
    free(plan);
}

static enum weir_status plan_finish(struct weir_cpu *cpu, enum weir_op op, struct weir_cpu_plan *plan,
                                    struct weir_plan **out, size_t *workspace_bytes, const struct weir_error *error)
{
    if (!plan) return error->code;
    plan->head = (struct weir_plan){ .device = &cpu->head, .op = op };
    plan->slice_bytes = weir_cpu_aligned(plan->slice_bytes);
    *workspace_bytes = plan->slice_bytes * weir_pool_slots(cpu->pool) + plan->shared_bytes;
    *out = &plan->head;
    return WEIR_OK;
}

#define X(op, OP)                                                                                                      \
    static enum weir_status plan_##op(struct weir_device *device, const struct weir_packed *packed, const void *shape, \
                                      struct weir_plan **out, size_t *workspace_bytes, struct weir_error *error)       \
    {                                                                                                                  \
        struct weir_error local = { 0 };                                                                               \
        struct weir_error *said = error ? error : &local;                                                              \
        const enum weir_status status = weir_check_##op(packed, shape, said);                                          \
        if (status != WEIR_OK) return status;                                                                          \
        if (((const struct weir_##op *)shape)->dtype != WEIR_F32) {                                                    \
            return weir_fail(said, WEIR_UNSUPPORTED, "device cpu: " #op " works in f32 alone");                        \
        }                                                                                                              \
        struct weir_cpu *cpu = (struct weir_cpu *)device;                                                              \
        union { /* plans may add layouts to a layer, which is why they need it writable */                             \
            const struct weir_packed *given;                                                                           \
            struct weir_cpu_packed *layer;                                                                             \
        } layer = { packed };                                                                                          \
        return plan_finish(cpu, WEIR_OP_##OP, weir_cpu_plan_##op(cpu, layer.layer, shape, said), out, workspace_bytes, \
                           said);                                                                                      \
    }
WEIR_OP_TABLE(X)
#undef X

static enum weir_status run(const struct weir_plan *head, struct weir_stream *stream, void *const operands[],
                            void *workspace)
{
    const struct weir_cpu_plan *plan = (const struct weir_cpu_plan *)head;
    struct weir_cpu_run run = {
        .cpu = (const struct weir_cpu *)stream->device, .plan = plan, .operands = operands, .workspace = workspace
    };
    const int before = weir_cpu_alone_begin();
    plan->run(&run);
    weir_cpu_alone_end(before);
    return run.fault ? WEIR_DEVICE : WEIR_OK;
}

static void thread_start(void)
{
    omp_set_num_threads(1); /* for as long as the pool's thread lives */
}

static void cpu_close(struct weir_device *device)
{
    struct weir_cpu *cpu = (struct weir_cpu *)device;
    const uint32_t slots = cpu->pool ? weir_pool_slots(cpu->pool) : 0;
    for (uint32_t i = 0; cpu->streams && i < slots; i++) {
        if (cpu->streams[i]) dnnl_stream_destroy(cpu->streams[i]);
    }
    free(cpu->streams);
    if (cpu->planning_stream) dnnl_stream_destroy(cpu->planning_stream);
    if (cpu->engine) dnnl_engine_destroy(cpu->engine);
    weir_pool_destroy(&cpu->pool);
    pthread_mutex_destroy(&cpu->planning);
    free(cpu);
}

static const char *isa_name(dnnl_cpu_isa_t isa)
{
    switch ((unsigned)isa) {
    case dnnl_cpu_isa_sse41:
        return "sse41";
    case dnnl_cpu_isa_avx:
        return "avx";
    case dnnl_cpu_isa_avx2:
        return "avx2";
    case dnnl_cpu_isa_avx2_vnni:
        return "avx2_vnni";
    case dnnl_cpu_isa_avx512_core:
        return "avx512_core";
    case dnnl_cpu_isa_avx512_core_vnni:
        return "avx512_core_vnni";
    case dnnl_cpu_isa_avx512_core_bf16:
        return "avx512_core_bf16";
    case dnnl_cpu_isa_avx512_core_amx:
        return "avx512_core_amx";
    default:
        return "generic";
    }
}

/* Our own loops follow what oneDNN may use, so that capping it (ONEDNN_MAX_CPU_ISA) caps both, and the class says so.
 */
static const struct weir_cpu_simd *simd_for(dnnl_cpu_isa_t isa)
{
#if defined(__x86_64__)
    const bool fma = __builtin_cpu_supports("fma") > 0;
    if (((unsigned)isa & dnnl_cpu_isa_avx512_core) == dnnl_cpu_isa_avx512_core) return &weir_cpu_simd_avx512;
    if (((unsigned)isa & dnnl_cpu_isa_avx2) == dnnl_cpu_isa_avx2 && fma) return &weir_cpu_simd_avx2;
#endif
    return &weir_cpu_simd_base;
}

static long cache_kib(int name)
{
    const long bytes = sysconf(name);
    return bytes > 0 ? bytes / 1024 : 0;
}

/* Logical processors that share the last cache as the processor says it: what oneDNN divides that cache by. */
static unsigned sharing(void)
{
#if defined(__x86_64__)
    unsigned a, b, c, d;
    if (__get_cpuid_count(0x0b, 1, &a, &b, &c, &d)) return b & 0xffff;
#endif
    return 1;
}

/* "cpu-avx512-avx512_core-onednn2.6.3-f32-cache48.1280.49152x2": our loops, oneDNN's instruction set and version, what
 * products read, and the sizes that oneDNN cuts its sums by. */
static void name_class(struct weir_cpu *cpu)
{
    const dnnl_version_t *version = dnnl_version();
    snprintf(cpu->head.numerics_class, sizeof cpu->head.numerics_class,
             "cpu-%s-%s%s-onednn%d.%d.%d-%s-cache%ld.%ld.%ldx%u", cpu->simd->name, isa_name(cpu->isa),
             dnnl_get_cpu_isa_hints() == dnnl_cpu_isa_prefer_ymm ? "-ymm" : "", version->major, version->minor,
             version->patch, weir_precision_name(cpu->head.precision), cache_kib(_SC_LEVEL1_DCACHE_SIZE),
             cache_kib(_SC_LEVEL2_CACHE_SIZE), cache_kib(_SC_LEVEL3_CACHE_SIZE), sharing());
}

enum weir_status weir_cpu_offers(const struct weir_cpu *cpu, enum weir_dtype dtype, struct weir_error *error)
{
    const bool multiplies_bf16 = ((unsigned)cpu->isa & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16;
    if (dtype == WEIR_F32 || (dtype == WEIR_BF16 && multiplies_bf16)) return WEIR_OK;
    if (dtype == WEIR_BF16) { /* oneDNN would make it of f32 products, more slowly than f32 itself */
        return weir_fail(error, WEIR_UNSUPPORTED,
                         "--precision bf16: this processor has neither AMX nor AVX512-BF16; f32 is offered");
    }
    return weir_fail(error, WEIR_UNSUPPORTED, "device cpu: layers are f32 or bf16, not dtype %d", (int)dtype);
}

static enum weir_status cpu_set_precision(struct weir_device *device, enum weir_dtype precision,
                                          struct weir_error *error)
{
    struct weir_cpu *cpu = (struct weir_cpu *)device;
    const enum weir_status status = weir_cpu_offers(cpu, precision, error);
    if (status != WEIR_OK) return status;
    device->precision = precision;
    name_class(cpu);
    return WEIR_OK;
}

static const struct weir_device_table cpu_table = {
    .name = "cpu",
    .close = cpu_close,
    .memory_alloc = weir_host_memory_alloc,
    .memory_free = weir_host_memory_free,
    .set_precision = cpu_set_precision,
    .upload = weir_host_copy_in,
    .download = weir_host_copy_out,
    .copy = weir_host_copy_in, /* one memory */
    .stream_create = weir_host_stream_create,
    .stream_destroy = weir_host_stream_destroy,
    .stream_sync = weir_host_stream_sync,
};

static const struct weir_ops cpu_ops = {
    .pack = weir_cpu_pack,
    .packed_destroy = weir_cpu_packed_destroy,
    .packed_bytes = weir_cpu_packed_bytes,
    .plan = {
#define X(op, OP) [WEIR_OP_##OP] = plan_##op,
        WEIR_OP_TABLE(X)
#undef X
    },
    .plan_destroy = plan_destroy,
    .run = run,
};

enum weir_status weir_cpu_open(int threads, struct weir_device **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    if (threads == 0) {
        threads = weir_host_processors();
        if (threads > WEIR_DEVICE_THREADS_MAX) threads = WEIR_DEVICE_THREADS_MAX;
    }
    struct weir_cpu *cpu = calloc(1, sizeof *cpu);
    if (!cpu) return weir_fail(error, WEIR_NO_MEMORY, "device cpu: no memory");
    cpu->head.table = &cpu_table;
    cpu->head.ops = &cpu_ops;
    cpu->head.memory_bytes = cpu->head.memory_all = weir_host_memory_bytes();
    pthread_mutex_init(&cpu->planning, NULL);
    WEIR_TRY(weir_pool_create(threads, thread_start, &cpu->pool, error));
    cpu->streams = calloc((size_t)threads, sizeof *cpu->streams);
    dnnl_status_t fault = cpu->streams ? dnnl_engine_create(&cpu->engine, dnnl_cpu, 0) : dnnl_out_of_memory;
    if (fault == dnnl_success) {
        fault = dnnl_stream_create(&cpu->planning_stream, cpu->engine, dnnl_stream_default_flags);
    }
    for (int i = 0; i < threads && fault == dnnl_success; i++) {
        fault = dnnl_stream_create(&cpu->streams[i], cpu->engine, dnnl_stream_default_flags);
    }
    if (fault != dnnl_success) {
        status = weir_fail(error, fault == dnnl_out_of_memory ? WEIR_NO_MEMORY : WEIR_DEVICE,
                           "device cpu: oneDNN would not start (its status %d)", (int)fault);
        goto cleanup;
    }
    cpu->isa = dnnl_get_effective_cpu_isa();
    cpu->simd = simd_for(cpu->isa);
    name_class(cpu);
    *out = &cpu->head;
    cpu = NULL;

cleanup:
    if (cpu) cpu_close(&cpu->head);
    return status;
}
