/* Convolutions in bf16 by cuDNN's graph API, where conv_tiles.cu does not take them: other processors than sm_90, few
 * pixels, channels that are no eights. The engine is asked for once, for the shape of one row, and rows run one after
 * the other, or together by the same engine with the same settings. None counts that sums in an order of its own, or
 * is compiled as it runs. Plans of one shape are shared: a network has hundreds of convolutions of a dozen shapes. (In
 * f32 the heuristics of cuDNN 9.19 left none for our shapes that does without TF32 and Winograd.) */
#include "kernels/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

#pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* later releases take a graph's handle from elsewhere */

#define WORKSPACE_BYTES_MAX ((int64_t)64 << 20)
#define WORKSPACE_ALIGNMENT ((size_t)256)
#define ALIGNMENT_MIN 16
#define CONFIGS_MAX 24 /* that the heuristics are asked for */

typedef cudnnBackendDescriptor_t descriptor;

enum { X_ID = 1, WEIGHT_ID, Y_ID, ID_COUNT = 3 };

/* An engine and what it was set to. */
#define KNOBS_MAX 32
struct setting {
    int64_t engine, knob_count;
    cudnnBackendKnobType_t knobs[KNOBS_MAX];
    int64_t values[KNOBS_MAX];
    bool known; /* it could be read whole */
};

struct weir_cuda_convolution {
    struct weir_cuda_convolution *next; /* of the device's, while `planning` is held */
    uint32_t users;
    struct weir_cuda_window window; /* of one row, or of more: then images are a multiple of frames */
    struct setting setting;
    descriptor x, weight, y, shape, operation, graph, plan;
    size_t workspace_bytes;
};

static bool set(descriptor d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
                const void *values)
{
    return cudnnBackendSetAttribute(d, name, type, count, values) == CUDNN_STATUS_SUCCESS;
}

static bool make(cudnnBackendDescriptorType_t type, descriptor *out)
{
    return cudnnBackendCreateDescriptor(type, out) == CUDNN_STATUS_SUCCESS;
}

static bool finish(descriptor d)
{
    return cudnnBackendFinalize(d) == CUDNN_STATUS_SUCCESS;
}

static void drop(descriptor *d)
{
    if (*d) cudnnBackendDestroyDescriptor(*d);
    *d = NULL;
}

/* [count, channels, height, width] to cuDNN, channels last in memory. */
static bool make_tensor(int64_t id, enum weir_dtype dtype, uint32_t alignment, const int64_t dims[4], descriptor *out)
{
    const cudnnDataType_t type = dtype == WEIR_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
    const int64_t strides[4] = { dims[1] * dims[2] * dims[3], 1, dims[1] * dims[3], dims[1] }, bytes = alignment;
    return make(CUDNN_BACKEND_TENSOR_DESCRIPTOR, out) &&
           set(*out, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id) &&
           set(*out, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type) &&
           set(*out, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &bytes) &&
           set(*out, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims) &&
           set(*out, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides) && finish(*out);
}

static bool make_graph(struct weir_cuda *cuda, struct weir_cuda_convolution *c)
{
    const struct weir_cuda_window *w = &c->window;
    const size_t element = weir_dtype_bytes(w->dtype);
    const int64_t images = (int64_t)w->images, spatial = 2;
    const int64_t x[4] = { images, w->in, w->source_height, w->source_width };
    const int64_t weight[4] = { w->out, w->in, w->kernel_y, w->kernel_x };
    const int64_t y[4] = { images, w->out, w->height, w->width };
    const int64_t before[2] = { w->pad_y, w->pad_x }, behind[2] = { w->end_y, w->end_x };
    const int64_t strides[2] = { w->stride, w->stride }, dilations[2] = { 1, 1 };
    const cudnnDataType_t sums = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const float one = 1, none = 0;
    /* x may begin at any row of an image, where bands of a picture do, and y at any image, whatever runs together. */
    const uint32_t x_alignment = weir_cuda_alignment((size_t)(x[1] * x[3]) * element);
    const uint32_t y_alignment = weir_cuda_alignment((size_t)(y[1] * y[2] * y[3]) * element);
    if (x_alignment < ALIGNMENT_MIN || y_alignment < ALIGNMENT_MIN) return false;
    return make_tensor(X_ID, w->dtype, x_alignment, x, &c->x) &&
           make_tensor(WEIGHT_ID, w->dtype, WEIR_ALIGNMENT, weight, &c->weight) &&
           make_tensor(Y_ID, w->dtype, y_alignment, y, &c->y) &&
           make(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, &c->shape) &&
           set(c->shape, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &sums) &&
           set(c->shape, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode) &&
           set(c->shape, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &spatial) &&
           set(c->shape, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, before) &&
           set(c->shape, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, behind) &&
           set(c->shape, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, strides) &&
           set(c->shape, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilations) && finish(c->shape) &&
           make(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, &c->operation) &&
           set(c->operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &c->x) &&
           set(c->operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
               &c->weight) &&
           set(c->operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &c->y) &&
           set(c->operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
               &c->shape) &&
           set(c->operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, &one) &&
           set(c->operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, &none) &&
           finish(c->operation) && make(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, &c->graph) &&
           set(c->graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &cuda->dnn) &&
           set(c->graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &c->operation) &&
           finish(c->graph);
}

/* May an engine with these notes be taken? */
static bool is_allowed(descriptor config)
{
    cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    cudnnBackendBehaviorNote_t habits[CUDNN_BEHAVIOR_NOTE_TYPE_COUNT];
    int64_t count = 0, note_count = 0, habit_count = 0;
    descriptor engine = NULL;
    bool allowed =
        make(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) &&
        cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count,
                                 &engine) == CUDNN_STATUS_SUCCESS &&
        cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                 CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &note_count, notes) == CUDNN_STATUS_SUCCESS &&
        cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE,
                                 CUDNN_BEHAVIOR_NOTE_TYPE_COUNT, &habit_count, habits) == CUDNN_STATUS_SUCCESS;
    for (int64_t i = 0; allowed && i < note_count; i++) {
        allowed = notes[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE || notes[i] == CUDNN_NUMERICAL_NOTE_STRICT_NAN_PROP;
    }
    for (int64_t i = 0; allowed && i < habit_count; i++) { /* what is compiled as it runs takes seconds to plan */
        allowed = habits[i] != CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION;
    }
    drop(&engine);
    return allowed;
}

/* The configuration made ready, when the engine takes the shape in little enough workspace. */
static bool make_plan(struct weir_cuda *cuda, struct weir_cuda_convolution *c, descriptor config)
{
    int64_t bytes = 0, count = 0;
    if (make(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &c->plan) &&
        set(c->plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &cuda->dnn) &&
        set(c->plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config) &&
        finish(c->plan) &&
        cudnnBackendGetAttribute(c->plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &count,
                                 &bytes) == CUDNN_STATUS_SUCCESS &&
        bytes <= WORKSPACE_BYTES_MAX) {
        c->workspace_bytes = (size_t)bytes;
        return true;
    }
    drop(&c->plan);
    return false;
}

static struct setting read_setting(descriptor config)
{
    struct setting s = { .known = true };
    int64_t count = 0;
    descriptor engine = NULL, choices[KNOBS_MAX] = { NULL };
    s.known = make(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) &&
              cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count,
                                       &engine) == CUDNN_STATUS_SUCCESS &&
              cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &count,
                                       &s.engine) == CUDNN_STATUS_SUCCESS;
    for (size_t i = 0; s.known && i < KNOBS_MAX; i++) s.known = make(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, &choices[i]);
    s.known =
        s.known && cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                            KNOBS_MAX, &s.knob_count, choices) == CUDNN_STATUS_SUCCESS;
    s.known = s.known && s.knob_count <= KNOBS_MAX;
    for (int64_t i = 0; s.known && i < s.knob_count; i++) {
        s.known = cudnnBackendGetAttribute(choices[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1,
                                           &count, &s.knobs[i]) == CUDNN_STATUS_SUCCESS &&
                  cudnnBackendGetAttribute(choices[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &count,
                                           &s.values[i]) == CUDNN_STATUS_SUCCESS;
    }
    for (size_t i = 0; i < KNOBS_MAX; i++) drop(&choices[i]);
    drop(&engine);
    return s;
}

/* The plan of a setting that was read from another shape's. */
static bool apply(struct weir_cuda *cuda, struct weir_cuda_convolution *c, const struct setting *s)
{
    descriptor engine = NULL, config = NULL, choices[KNOBS_MAX] = { NULL };
    bool good = make(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) &&
                set(engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &c->graph) &&
                set(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &s->engine) && finish(engine);
    for (int64_t i = 0; good && i < s->knob_count; i++) {
        good = make(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, &choices[i]) &&
               set(choices[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &s->knobs[i]) &&
               set(choices[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &s->values[i]) &&
               finish(choices[i]);
    }
    good = good && make(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &config) &&
           set(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &engine) &&
           (s->knob_count == 0 ||
            set(config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, s->knob_count, choices)) &&
           finish(config) && make_plan(cuda, c, config);
    drop(&config);
    for (size_t i = 0; i < KNOBS_MAX; i++) drop(&choices[i]);
    drop(&engine);
    return good;
}

/* The first that the heuristics name and that is allowed. */
static bool choose(struct weir_cuda *cuda, struct weir_cuda_convolution *c)
{
    const cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    descriptor heuristics = NULL, configs[CONFIGS_MAX] = { NULL };
    int64_t count = 0;
    bool chosen = false;
    bool good = make(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, &heuristics) &&
                set(heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &c->graph) &&
                set(heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode) && finish(heuristics);
    for (size_t i = 0; good && i < CONFIGS_MAX; i++) good = make(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &configs[i]);
    good = good && cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                            CONFIGS_MAX, &count, configs) == CUDNN_STATUS_SUCCESS;
    for (int64_t i = 0; good && i < count && i < CONFIGS_MAX && !chosen; i++) {
        chosen = is_allowed(configs[i]) && make_plan(cuda, c, configs[i]);
        if (chosen) c->setting = read_setting(configs[i]);
    }
    for (size_t i = 0; i < CONFIGS_MAX; i++) drop(&configs[i]);
    drop(&heuristics);
    return chosen;
}

static void destroy(struct weir_cuda_convolution *c)
{
    drop(&c->plan);
    drop(&c->graph);
    drop(&c->operation);
    drop(&c->shape);
    drop(&c->y);
    drop(&c->weight);
    drop(&c->x);
    free(c);
}

/* The convolution of that window, new ones with the setting given, or the heuristics'. */
static enum weir_status take(struct weir_cuda *cuda, const struct weir_cuda_window *window,
                             const struct setting *setting, struct weir_cuda_convolution **out,
                             struct weir_error *error)
{
    struct weir_cuda_convolution *c;
    for (c = cuda->convolutions; c; c = c->next) {
        if (memcmp(&c->window, window, sizeof *window) == 0) break;
    }
    if (!c) {
        c = calloc(1, sizeof *c);
        if (!c) return weir_fail(error, WEIR_NO_MEMORY, "device cuda: no memory for a convolution");
        memcpy(&c->window, window, sizeof *window);
        if (!make_graph(cuda, c) || !(setting ? apply(cuda, c, setting) : choose(cuda, c)))
            drop(&c->plan); /* kept all the same: it says that there is none */
        c->next = cuda->convolutions;
        cuda->convolutions = c;
    }
    c->users++;
    *out = c;
    return WEIR_OK;
}

enum weir_status weir_cuda_convolution_create(struct weir_cuda *cuda, const struct weir_cuda_window *window,
                                              struct weir_cuda_convolution **out, struct weir_error *error)
{
    return take(cuda, window, NULL, out, error);
}

enum weir_status weir_cuda_convolution_repeat(struct weir_cuda *cuda, const struct weir_cuda_convolution *one,
                                              uint32_t rows, struct weir_cuda_convolution **out,
                                              struct weir_error *error)
{
    struct weir_cuda_window window;
    *out = NULL;
    if (!one->plan || !one->setting.known) return WEIR_OK;
    memcpy(&window, &one->window, sizeof window);
    window.images *= rows;
    return take(cuda, &window, &one->setting, out, error);
}

void weir_cuda_convolution_release(struct weir_cuda *cuda, struct weir_cuda_convolution *convolution)
{
    struct weir_cuda_convolution **at = &cuda->convolutions;
    if (!convolution || --convolution->users > 0) return;
    while (*at != convolution) at = &(*at)->next;
    *at = convolution->next;
    destroy(convolution);
}

bool weir_cuda_convolution_exists(const struct weir_cuda_convolution *c)
{
    return c && c->plan;
}

size_t weir_cuda_convolution_workspace(const struct weir_cuda_convolution *c)
{
    return c->workspace_bytes ? c->workspace_bytes + WORKSPACE_ALIGNMENT : 0;
}

enum weir_status weir_cuda_convolution_run(const struct weir_cuda_convolution *c, const struct weir_cuda_stream *stream,
                                           const void *x, const void *weight, void *y, void *workspace)
{
    const int64_t ids[ID_COUNT] = { X_ID, WEIGHT_ID, Y_ID };
    const void *const pointers[ID_COUNT] = { x, weight, y };
    const uintptr_t aligned =
        ((uintptr_t)workspace + WORKSPACE_ALIGNMENT - 1) / WORKSPACE_ALIGNMENT * WORKSPACE_ALIGNMENT;
    void *const scratch = c->workspace_bytes ? (void *)aligned : NULL;
    descriptor pack = NULL;
    const bool good = make(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack) &&
                      set(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, ID_COUNT, ids) &&
                      set(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, ID_COUNT, pointers) &&
                      set(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &scratch) && finish(pack) &&
                      cudnnBackendExecute(stream->dnn, c->plan, pack) == CUDNN_STATUS_SUCCESS;
    drop(&pack);
    return good ? WEIR_OK : WEIR_DEVICE;
}
