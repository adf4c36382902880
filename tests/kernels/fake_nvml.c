#include "tests/kernels/fake_nvml.h"

#include <string.h>

struct fake_nvml fake_nvml;

static int gpu; /* only its address is used */

nvmlReturn_t nvmlInit_v2(void)
{
    if (fake_nvml.init == NVML_SUCCESS) fake_nvml.starts++;
    return fake_nvml.init;
}

nvmlReturn_t nvmlShutdown(void)
{
    fake_nvml.starts--;
    return NVML_SUCCESS;
}

const char *nvmlErrorString(nvmlReturn_t result)
{
    switch (result) {
    case NVML_ERROR_NO_PERMISSION:
        return "Insufficient Permissions";
    case NVML_ERROR_GPU_IS_LOST:
        return "GPU is lost";
    case NVML_ERROR_RESET_REQUIRED:
        return "GPU requires reset";
    case NVML_ERROR_FUNCTION_NOT_FOUND:
        return "Function Not Found";
    case NVML_ERROR_DRIVER_NOT_LOADED:
        return "Driver Not Loaded";
    case NVML_ERROR_NOT_FOUND:
        return "Not Found";
    default:
        return "other";
    }
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device)
{
    if (strcmp(bus_id, fake_nvml.bus_id) != 0) return NVML_ERROR_NOT_FOUND;
    *device = (nvmlDevice_t)(void *)&gpu;
    return NVML_SUCCESS;
}

static nvmlReturn_t of_gpu(nvmlDevice_t device, nvmlReturn_t fault)
{
    return (void *)device == &gpu ? fault : NVML_ERROR_INVALID_ARGUMENT;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    *memory = fake_nvml.memory;
    return of_gpu(device, fake_nvml.memory_fault);
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, nvmlTemperatureSensors_t sensor, unsigned int *celsius)
{
    *celsius = fake_nvml.temperature;
    return sensor == NVML_TEMPERATURE_GPU ? of_gpu(device, NVML_SUCCESS) : NVML_ERROR_INVALID_ARGUMENT;
}

#ifndef FAKE_NVML_OLD

static int set; /* likewise */

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *list)
{
    if (*count < fake_nvml.process_count) return NVML_ERROR_INSUFFICIENT_SIZE;
    *count = fake_nvml.process_count;
    memcpy(list, fake_nvml.processes, fake_nvml.process_count * sizeof *list);
    return of_gpu(device, fake_nvml.processes_fault);
}

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, nvmlMemoryErrorType_t type, nvmlEccCounterType_t counter,
                                         unsigned long long *count)
{
    const int is_meant = type == NVML_MEMORY_ERROR_TYPE_UNCORRECTED && counter == NVML_VOLATILE_ECC;
    *count = fake_nvml.ecc_errors;
    return is_meant ? of_gpu(device, fake_nvml.ecc_fault) : NVML_ERROR_INVALID_ARGUMENT;
}

nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned int *correctable, unsigned int *uncorrectable,
                                       unsigned int *pending, unsigned int *failed)
{
    *correctable = 2;
    *uncorrectable = 1;
    *pending = fake_nvml.rows_pending;
    *failed = fake_nvml.rows_failed;
    return of_gpu(device, fake_nvml.rows_fault);
}

nvmlReturn_t nvmlDeviceGetRetiredPagesPendingStatus(nvmlDevice_t device, nvmlEnableState_t *pending)
{
    *pending = fake_nvml.retired_pending;
    return of_gpu(device, NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, unsigned long long *reasons)
{
    *reasons = fake_nvml.clock_reasons;
    return of_gpu(device, fake_nvml.clocks_fault);
}

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *out)
{
    *out = (nvmlEventSet_t)(void *)&set;
    fake_nvml.sets++;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t given)
{
    fake_nvml.sets--;
    return (void *)given == &set ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT;
}

nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t given)
{
    if ((void *)given != &set || !(types & nvmlEventTypeXidCriticalError)) return NVML_ERROR_INVALID_ARGUMENT;
    return of_gpu(device, fake_nvml.event_fault);
}

nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t given, nvmlEventData_t *event, unsigned int wait_ms)
{
    if ((void *)given != &set || wait_ms != 0) return NVML_ERROR_INVALID_ARGUMENT;
    if (fake_nvml.event_count == 0) return NVML_ERROR_TIMEOUT;
    memset(event, 0, sizeof *event);
    event->device = (nvmlDevice_t)(void *)&gpu;
    event->eventType = fake_nvml.events[0].type;
    event->eventData = fake_nvml.events[0].data;
    memmove(fake_nvml.events, fake_nvml.events + 1, sizeof fake_nvml.events - sizeof fake_nvml.events[0]);
    fake_nvml.event_count--;
    return NVML_SUCCESS;
}

#endif
