#include "kernels/device.h"

#include "kernels/internal.h"

#include <string.h>

size_t weir_dtype_bytes(enum weir_dtype dtype)
{
    switch (dtype) {
    case WEIR_F32:
    case WEIR_I32:
        return 4;
    case WEIR_BF16:
    case WEIR_F16:
        return 2;
    case WEIR_U8:
        return 1;
    case WEIR_DTYPE_COUNT:
        break;
    }
    return 0;
}

const char *weir_precision_name(enum weir_dtype precision)
{
    return precision == WEIR_BF16 ? "bf16" : "f32";
}

bool weir_precision_parse(const char *name, enum weir_dtype *out)
{
    if (strcmp(name, "f32") != 0 && strcmp(name, "bf16") != 0) return false;
    *out = name[0] == 'b' ? WEIR_BF16 : WEIR_F32;
    return true;
}

enum weir_status weir_device_set_precision(struct weir_device *device, enum weir_dtype precision,
                                           struct weir_error *error)
{
    if (device->table->set_precision) return device->table->set_precision(device, precision, error);
    if (precision == WEIR_F32) return WEIR_OK;
    return weir_fail(error, WEIR_UNSUPPORTED, "--precision %s: device %s has none but f32",
                     weir_precision_name(precision), device->table->name);
}

#ifdef WEIR_HAVE_CPU
#define CPU_NAME ", cpu"
#else
#define CPU_NAME ""
#endif

enum weir_status weir_device_open(const char *name, int threads, struct weir_device **out, struct weir_error *error)
{
    *out = NULL;
    if (threads < 0 || threads > WEIR_DEVICE_THREADS_MAX) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "%d threads; 0 (one per core) to %d are possible", threads,
                         WEIR_DEVICE_THREADS_MAX);
    }
#ifdef WEIR_HAVE_CPU
    if (strcmp(name, "cpu") == 0 || strcmp(name, "auto") == 0) return weir_cpu_open(threads, out, error);
#else
    if (strcmp(name, "auto") == 0) return weir_ref_open(out, error);
#endif
    if (strcmp(name, "ref") == 0) return weir_ref_open(out, error);
    if (strcmp(name, "cpu") == 0 || strcmp(name, "cuda") == 0) {
        return weir_fail(error, WEIR_UNSUPPORTED, "device %s is not in this build, which has ref" CPU_NAME, name);
    }
    return weir_fail(error, WEIR_UNSUPPORTED, "no device is called %s; there are auto, ref" CPU_NAME, name);
}

void weir_device_close(struct weir_device **device)
{
    if (!*device) return;
    (*device)->table->close(*device);
    *device = NULL;
}
