/* Ops that this device has no loops for yet: planning them says so. */
#include "kernels/cpu/cpu.h"

#define MISSING(op)                                                                                                    \
    struct weir_cpu_plan *weir_cpu_plan_##op(struct weir_cpu *cpu, struct weir_cpu_packed *layer,                      \
                                             const struct weir_##op *s, struct weir_error *error)                      \
    {                                                                                                                  \
        (void)cpu;                                                                                                     \
        (void)layer;                                                                                                   \
        (void)s;                                                                                                       \
        weir_fail(error, WEIR_UNSUPPORTED, "device cpu: " #op " is not there yet");                                    \
        return NULL;                                                                                                   \
    }
MISSING(grouped_linear)
MISSING(depthwise_conv)
MISSING(rms_norm)
MISSING(modulated_norm)
MISSING(table_add)
MISSING(linear_attention)
MISSING(rope)
MISSING(regroup)
MISSING(pixel_shuffle)
MISSING(pixel_unshuffle)
