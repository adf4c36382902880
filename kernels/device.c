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
#define OPEN_CPU weir_cpu_open
#else
#define CPU_NAME ""
#define OPEN_CPU NULL
#endif
#ifdef WEIR_HAVE_CUDA
#define CUDA_NAME ", cuda"
#define OPEN_CUDA weir_cuda_open
#else
#define CUDA_NAME ""
#define OPEN_CUDA NULL
#endif
#define NAMES "ref" CPU_NAME CUDA_NAME

static enum weir_status (*const open_cpu)(int threads, struct weir_device **out, struct weir_error *error) = OPEN_CPU;
static enum weir_status (*const open_cuda)(const char *which, struct weir_device **out,
                                           struct weir_error *error) = OPEN_CUDA;

/* What stands behind "cuda:", "" for "cuda" itself, NULL for other names. */
static const char *cuda_which(const char *name)
{
    if (strncmp(name, "cuda", 4) != 0) return NULL;
    if (name[4] == '\0') return name + 4;
    return name[4] == ':' && name[5] ? name + 5 : NULL;
}

enum weir_status weir_device_open(const char *name, int threads, struct weir_device **out, struct weir_error *error)
{
    const bool any = strcmp(name, "auto") == 0;
    const char *which = any ? "" : cuda_which(name);
    *out = NULL;
    if (threads < 0 || threads > WEIR_DEVICE_THREADS_MAX) {
        return weir_fail(error, WEIR_BAD_ARGUMENT, "%d threads; 0 (one per core) to %d are possible", threads,
                         WEIR_DEVICE_THREADS_MAX);
    }
    if (which && open_cuda) {
        const enum weir_status status = open_cuda(which, out, error);
        if (!any || (status != WEIR_NOT_FOUND && status != WEIR_UNSUPPORTED)) return status;
    }
    if ((any || strcmp(name, "cpu") == 0) && open_cpu) return open_cpu(threads, out, error);
    if (any || strcmp(name, "ref") == 0) return weir_ref_open(out, error);
    if (which || strcmp(name, "cpu") == 0) {
        return weir_fail(error, WEIR_UNSUPPORTED, "device %s is not in this build, which has " NAMES, name);
    }
    return weir_fail(error, WEIR_UNSUPPORTED, "no device is called %s; there are auto, " NAMES, name);
}

void weir_device_close(struct weir_device **device)
{
    if (!*device) return;
    (*device)->table->close(*device);
    *device = NULL;
}
