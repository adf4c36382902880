/* Which GPU is meant. */
#include "kernels/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "GPU-01020304-0506-0708-090a-0b0c0d0e0f10", as nvidia-smi -L prints it. */
#define UUID_TEXT_BYTES 41
static void uuid_text(const struct cudaDeviceProp *facts, char text[UUID_TEXT_BYTES])
{
    size_t at = (size_t)snprintf(text, UUID_TEXT_BYTES, "GPU-");
    for (size_t i = 0; i < 16; i++) {
        const bool dash = i == 4 || i == 6 || i == 8 || i == 10;
        at += (size_t)snprintf(text + at, UUID_TEXT_BYTES - at, "%s%02x", dash ? "-" : "",
                               (unsigned)(unsigned char)facts->uuid.bytes[i]);
    }
}

enum weir_status weir_cuda_find(const char *which, int *index, struct weir_error *error)
{
    int count = 0;
    const cudaError_t fault = cudaGetDeviceCount(&count);
    if (fault != cudaSuccess || count == 0) { /* without a driver it says that the driver is too old */
        return weir_fail(error, WEIR_NOT_FOUND, "device cuda: no GPU is there (%s)",
                         fault == cudaSuccess ? "none is visible" : cudaGetErrorString(fault));
    }
    if (which[0] == '\0') {
        *index = 0;
        return WEIR_OK;
    }
    if (strncmp(which, "GPU-", 4) == 0) {
        for (int i = 0; i < count; i++) {
            struct cudaDeviceProp facts;
            char text[UUID_TEXT_BYTES];
            if (cudaGetDeviceProperties(&facts, i) != cudaSuccess) continue;
            uuid_text(&facts, text);
            if (strcmp(text, which) != 0) continue;
            *index = i;
            return WEIR_OK;
        }
        return weir_fail(error, WEIR_NOT_FOUND, "device cuda: none of the %d GPUs is %s", count, which);
    }
    char *end;
    const long number = strtol(which, &end, 10);
    if (*end || which[0] < '0' || which[0] > '9') {
        return weir_fail(error, WEIR_BAD_ARGUMENT,
                         "device cuda:%s: after the colon stands a number from 0 to %d or a UUID that begins with GPU-",
                         which, count - 1);
    }
    if (number >= count) {
        return weir_fail(error, WEIR_NOT_FOUND, "device cuda:%s: there are %d GPUs, counted from 0", which, count);
    }
    *index = (int)number;
    return WEIR_OK;
}
