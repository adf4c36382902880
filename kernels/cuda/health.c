#include "kernels/cuda/health.h"

#ifdef WEIR_HAVE_NVML

#include <dlfcn.h>
#include <nvml.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROCESSES_MAX 128
#define PROCESSES_NAMED_MAX 4
#define EVENTS_MAX 64 /* in a look; more are left for the next */

/* X(member, function, needed) */
#define FUNCTION_TABLE(X)                                                                                              \
    X(init, nvmlInit_v2, true)                                                                                         \
    X(shutdown, nvmlShutdown, true)                                                                                    \
    X(words, nvmlErrorString, true)                                                                                    \
    X(find, nvmlDeviceGetHandleByPciBusId_v2, true)                                                                    \
    X(memory, nvmlDeviceGetMemoryInfo, true)                                                                           \
    X(processes, nvmlDeviceGetComputeRunningProcesses_v3, false)                                                       \
    X(ecc_errors, nvmlDeviceGetTotalEccErrors, false)                                                                  \
    X(remapped_rows, nvmlDeviceGetRemappedRows, false)                                                                 \
    X(retired_pending, nvmlDeviceGetRetiredPagesPendingStatus, false)                                                  \
    X(clock_reasons, nvmlDeviceGetCurrentClocksEventReasons, false)                                                    \
    X(temperature, nvmlDeviceGetTemperature, false)                                                                    \
    X(event_set_create, nvmlEventSetCreate, false)                                                                     \
    X(event_set_free, nvmlEventSetFree, false)                                                                         \
    X(event_register, nvmlDeviceRegisterEvents, false)                                                                 \
    X(event_wait, nvmlEventSetWait_v2, false)

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* older drivers have these alone */
struct weir_cuda_health {
    void *library;
#define X(member, function, needed) __typeof__(function) *member;
    FUNCTION_TABLE(X)
#undef X
    bool is_started;
    nvmlDevice_t device;
    nvmlEventSet_t events; /* NULL: they are not to be had */
    nvmlReturn_t refused;  /* why not */
    unsigned long long ecc_errors_before;
};
#pragma GCC diagnostic pop

static enum weir_status load(struct weir_cuda_health *h, struct weir_error *error)
{
    h->library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!h->library) return weir_fail(error, WEIR_UNSUPPORTED, "%s", dlerror());
#define X(member, function, needed)                                                                                    \
    *(void **)&h->member = dlsym(h->library, #function);                                                               \
    if (needed && !h->member) return weir_fail(error, WEIR_UNSUPPORTED, "libnvidia-ml.so.1 has no %s", #function);
    FUNCTION_TABLE(X)
#undef X
    return WEIR_OK;
}

static enum weir_status check(const struct weir_cuda_health *h, nvmlReturn_t fault, const char *what,
                              struct weir_error *error)
{
    return fault == NVML_SUCCESS ? WEIR_OK : weir_fail(error, WEIR_UNSUPPORTED, "NVML: %s: %s", what, h->words(fault));
}

/* Events need rights that a container may not have. */
static void open_events(struct weir_cuda_health *h)
{
    nvmlEventSet_t set = NULL;
    h->refused = NVML_ERROR_FUNCTION_NOT_FOUND;
    if (!h->event_set_create || !h->event_set_free || !h->event_register || !h->event_wait) return;
    h->refused = h->event_set_create(&set);
    if (h->refused != NVML_SUCCESS) return;
    h->refused = h->event_register(h->device, nvmlEventTypeXidCriticalError | nvmlEventTypeDoubleBitEccError, set);
    if (h->refused == NVML_SUCCESS)
        h->events = set;
    else
        h->event_set_free(set);
}

/* False when the card does not count them. */
static bool read_ecc_errors(const struct weir_cuda_health *h, unsigned long long *count, nvmlReturn_t *fault)
{
    *count = 0;
    *fault = h->ecc_errors ? h->ecc_errors(h->device, NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_VOLATILE_ECC, count)
                           : NVML_ERROR_FUNCTION_NOT_FOUND;
    return *fault == NVML_SUCCESS;
}

enum weir_status weir_cuda_health_open(const char *bus_id, struct weir_cuda_health **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    nvmlReturn_t fault;
    struct weir_cuda_health *h = calloc(1, sizeof *h);
    *out = NULL;
    if (!h) return weir_fail(error, WEIR_NO_MEMORY, "no memory for the GPU's health");
    WEIR_TRY(load(h, error));
    WEIR_TRY(check(h, h->init(), "starting", error));
    h->is_started = true;
    WEIR_TRY(check(h, h->find(bus_id, &h->device), bus_id, error));
    open_events(h);
    (void)read_ecc_errors(h, &h->ecc_errors_before, &fault);
    *out = h;
    h = NULL;

cleanup:
    weir_cuda_health_close(&h);
    return status;
}

void weir_cuda_health_close(struct weir_cuda_health **health)
{
    struct weir_cuda_health *h = *health;
    if (!h) return;
    if (h->events) h->event_set_free(h->events);
    if (h->is_started) h->shutdown();
    if (h->library) dlclose(h->library);
    free(h);
    *health = NULL;
}

/* --- words -------------------------------------------------------------------------------------------------------- */

static void append(char *text, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void append(char *text, size_t size, const char *format, ...)
{
    const size_t length = strlen(text);
    va_list values;
    va_start(values, format);
    vsnprintf(text + length, size - length, format, values);
    va_end(values);
}

#define SAY(text, ...) append(text, WEIR_HEALTH_WORDS, __VA_ARGS__)
#define FIGURE(out, format, ...) SAY((out)->figures, "%s" format, (out)->figures[0] ? " " : "", __VA_ARGS__)

static unsigned long long mib(unsigned long long bytes)
{
    return bytes >> 20;
}

/* --- memory ------------------------------------------------------------------------------------------------------- */

/* Who holds memory of the GPU. A process whose share is not told counts as 0. */
struct holders {
    nvmlProcessInfo_t list[PROCESSES_MAX];
    unsigned int count;
    bool is_self_listed;
    unsigned long long own_bytes, other_bytes;
};

/* False when it is not known: in a container the driver may name nobody, or by numbers of another namespace. */
static bool read_holders(const struct weir_cuda_health *h, struct holders *holders)
{
    *holders = (struct holders){ .count = PROCESSES_MAX };
    if (!h->processes || h->processes(h->device, &holders->count, holders->list) != NVML_SUCCESS) return false;
    for (unsigned int i = 0; i < holders->count; i++) {
        nvmlProcessInfo_t *process = &holders->list[i];
        if (process->usedGpuMemory == (unsigned long long)NVML_VALUE_NOT_AVAILABLE) process->usedGpuMemory = 0;
        if (process->pid == (unsigned int)getpid()) {
            holders->is_self_listed = true;
            holders->own_bytes += process->usedGpuMemory;
        } else {
            holders->other_bytes += process->usedGpuMemory;
        }
    }
    return true;
}

static void name_others(const struct holders *holders, char *text, size_t size)
{
    unsigned int named = 0;
    for (unsigned int i = 0; i < holders->count && named < PROCESSES_NAMED_MAX; i++) {
        const nvmlProcessInfo_t *process = &holders->list[i];
        if (process->pid == (unsigned int)getpid()) continue;
        append(text, size, "%sprocess %u: %llu MiB", named++ ? ", " : "", process->pid, mib(process->usedGpuMemory));
    }
    if (holders->count - holders->is_self_listed > named) append(text, size, ", and more");
}

void weir_cuda_health_others(struct weir_cuda_health *h, char *text, size_t size)
{
    struct holders holders;
    text[0] = '\0';
    if (!read_holders(h, &holders) || holders.count == holders.is_self_listed) return;
    append(text, size, "; others hold %llu MiB (", mib(holders.other_bytes));
    name_others(&holders, text, size);
    append(text, size, ")");
}

/* --- looking ------------------------------------------------------------------------------------------------------ */

/* Whatever is asked, these two say that nothing more will come of this GPU. */
static void note_fault(const struct weir_cuda_health *h, nvmlReturn_t fault, struct weir_health *out)
{
    if (out->failure[0] || (fault != NVML_ERROR_GPU_IS_LOST && fault != NVML_ERROR_RESET_REQUIRED)) return;
    SAY(out->failure, "NVML: %s", h->words(fault));
}

/* What is missing of planned_bytes, as long as others hold anything. */
static unsigned long long taken_bytes(const nvmlMemory_t *memory, const struct holders *holders,
                                      unsigned long long planned_bytes)
{
    const unsigned long long within_reach = memory->free + holders->own_bytes;
    return holders->other_bytes > 0 && within_reach < planned_bytes ? planned_bytes - within_reach : 0;
}

bool weir_cuda_health_is_crowded(struct weir_cuda_health *h, uint64_t planned_bytes)
{
    nvmlMemory_t memory = { 0 };
    struct holders holders;
    return h->memory(h->device, &memory) == NVML_SUCCESS && read_holders(h, &holders) && holders.is_self_listed &&
           taken_bytes(&memory, &holders, planned_bytes) > 0;
}

static void look_at_memory(const struct weir_cuda_health *h, unsigned long long planned_bytes, struct weir_health *out)
{
    nvmlMemory_t memory = { 0 };
    struct holders holders;
    const nvmlReturn_t fault = h->memory(h->device, &memory);
    note_fault(h, fault, out);
    if (fault != NVML_SUCCESS) return;
    FIGURE(out, "used_mib=%llu free_mib=%llu", mib(memory.used), mib(memory.free));
    if (!read_holders(h, &holders) || !holders.is_self_listed) return;
    FIGURE(out, "own_mib=%llu others_mib=%llu", mib(holders.own_bytes), mib(holders.other_bytes));
    const unsigned long long missing = taken_bytes(&memory, &holders, planned_bytes);
    char *taken = out->notices[WEIR_HEALTH_TAKEN];
    if (missing == 0) return;
    SAY(taken, "%llu MiB of the memory that is planned with are others' (", mib(missing));
    name_others(&holders, taken, WEIR_HEALTH_WORDS);
    SAY(taken, ")");
}

static void look_at_errors(const struct weir_cuda_health *h, struct weir_health *out)
{
    unsigned long long errors;
    unsigned int correctable, uncorrectable, pending = 0, failed = 0;
    nvmlEnableState_t retired_pending = NVML_FEATURE_DISABLED;
    nvmlReturn_t fault;
    char *worn = out->notices[WEIR_HEALTH_WORN];
    if (read_ecc_errors(h, &errors, &fault)) {
        FIGURE(out, "ecc_uncorrected=%llu", errors);
        if (errors > h->ecc_errors_before && !out->failure[0]) {
            SAY(out->failure, "%llu uncorrected memory errors (ECC) since the device was opened",
                errors - h->ecc_errors_before);
        }
    }
    note_fault(h, fault, out);
    if (h->remapped_rows) {
        fault = h->remapped_rows(h->device, &correctable, &uncorrectable, &pending, &failed);
        note_fault(h, fault, out);
        if (fault == NVML_SUCCESS) {
            FIGURE(out, "remapped_rows=%u+%u", correctable, uncorrectable);
            if (failed && !out->failure[0]) {
                SAY(out->failure, "a row of its memory could not be remapped: the card must be replaced");
            }
            if (pending) SAY(worn, "a row of its memory is remapped at the next reset");
        }
    }
    if (h->retired_pending) {
        fault = h->retired_pending(h->device, &retired_pending);
        note_fault(h, fault, out);
        if (fault == NVML_SUCCESS && retired_pending == NVML_FEATURE_ENABLED) {
            SAY(worn, "%sa page of its memory is retired at the next reset", worn[0] ? ", " : "");
        }
    }
}

/* SwPowerCap is not among them: it is how a card that is fully used keeps to its power. */
static const struct {
    unsigned long long bit;
    const char *words;
} slowdowns[] = {
    { nvmlClocksEventReasonSwThermalSlowdown, "by its driver, for heat" },
    { nvmlClocksThrottleReasonHwThermalSlowdown, "to half and less, for heat" },
    { nvmlClocksThrottleReasonHwPowerBrakeSlowdown, "by the power supply" },
    { nvmlClocksThrottleReasonHwSlowdown, "to half and less" },
};

static void look_at_clocks(const struct weir_cuda_health *h, struct weir_health *out)
{
    unsigned int celsius = 0;
    unsigned long long reasons = 0;
    char *slowed = out->notices[WEIR_HEALTH_SLOWED];
    const nvmlReturn_t fault =
        h->temperature ? h->temperature(h->device, NVML_TEMPERATURE_GPU, &celsius) : NVML_ERROR_FUNCTION_NOT_FOUND;
    note_fault(h, fault, out);
    if (fault == NVML_SUCCESS) FIGURE(out, "temperature_c=%u", celsius);
    if (!h->clock_reasons || h->clock_reasons(h->device, &reasons) != NVML_SUCCESS) return;
    FIGURE(out, "clock_reasons=0x%llx", reasons);
    for (size_t i = 0; i < sizeof slowdowns / sizeof slowdowns[0]; i++) {
        if (!(reasons & slowdowns[i].bit)) continue;
        SAY(slowed, "%s%s", slowed[0] ? ", " : "slowed down ", slowdowns[i].words);
    }
    if (slowed[0] && fault == NVML_SUCCESS) SAY(slowed, ", at %u degrees Celsius", celsius);
}

/* After these the driver wants the GPU reset; the others that it calls critical may be any process's own fault. */
static bool is_final(unsigned long long xid)
{
    static const unsigned int final[] = { 48, 62, 64, 79, 95, 119, 120, 140 };
    for (size_t i = 0; i < sizeof final / sizeof final[0]; i++) {
        if (xid == final[i]) return true;
    }
    return false;
}

static void look_at_events(const struct weir_cuda_health *h, struct weir_health *out)
{
    nvmlEventData_t event;
    char *faults = out->notices[WEIR_HEALTH_FAULTS];
    if (!h->events) {
        FIGURE(out, "events=\"%s\"", h->words(h->refused));
        return;
    }
    for (int i = 0; i < EVENTS_MAX; i++) {
        const nvmlReturn_t fault = h->event_wait(h->events, &event, 0);
        note_fault(h, fault, out);
        if (fault != NVML_SUCCESS) return; /* TIMEOUT: there is none */
        if (event.eventType == nvmlEventTypeDoubleBitEccError) {
            if (!out->failure[0]) SAY(out->failure, "an uncorrected memory error (ECC)");
        } else if (is_final(event.eventData)) {
            if (!out->failure[0]) SAY(out->failure, "the driver reported XID %llu", event.eventData);
        } else {
            SAY(faults, "%s%llu", faults[0] ? ", " : "the driver reported, for this process or another, XID ",
                event.eventData);
        }
    }
}

void weir_cuda_health_look(struct weir_cuda_health *h, uint64_t planned_bytes, struct weir_health *out)
{
    memset(out, 0, sizeof *out);
    look_at_memory(h, planned_bytes, out);
    look_at_clocks(h, out);
    look_at_errors(h, out);
    look_at_events(h, out);
}

#else

enum weir_status weir_cuda_health_open(const char *bus_id, struct weir_cuda_health **out, struct weir_error *error)
{
    *out = NULL;
    return weir_fail(error, WEIR_UNSUPPORTED, "GPU %s: this build was made without nvml.h", bus_id);
}

/* There is none to give them. */
void weir_cuda_health_close(struct weir_cuda_health **health)
{
    (void)health;
}

void weir_cuda_health_look(struct weir_cuda_health *health, uint64_t planned_bytes, struct weir_health *out)
{
    (void)health, (void)planned_bytes, (void)out;
}

void weir_cuda_health_others(struct weir_cuda_health *health, char *text, size_t size)
{
    (void)health, (void)size;
    text[0] = '\0';
}

bool weir_cuda_health_is_crowded(struct weir_cuda_health *health, uint64_t planned_bytes)
{
    (void)health, (void)planned_bytes;
    return false;
}

#endif
