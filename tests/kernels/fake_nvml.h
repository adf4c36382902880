/* fake_nvml: a libnvidia-ml.so.1 with one GPU, which is as a test says. The test loads it by its path before anybody asks
 * for it by name, finds `fake_nvml` in it, and changes that. With FAKE_NVML_OLD it lacks what the first drivers lacked. */
#ifndef WEIR_TESTS_KERNELS_FAKE_NVML_H
#define WEIR_TESTS_KERNELS_FAKE_NVML_H

#include <nvml.h>

struct fake_nvml {
    const char *bus_id;
    nvmlReturn_t init, memory_fault, ecc_fault, rows_fault, clocks_fault, event_fault, processes_fault; /* 0: none */
    nvmlMemory_t memory;
    nvmlProcessInfo_t processes[3];
    unsigned int process_count;
    unsigned long long ecc_errors;
    unsigned int rows_pending, rows_failed;
    nvmlEnableState_t retired_pending;
    unsigned long long clock_reasons;
    unsigned int temperature;
    struct {
        unsigned long long type, data;
    } events[4];
    unsigned int event_count;
    int starts, sets; /* that were not given back */
};

#endif
