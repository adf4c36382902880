/* Packing of layers, and the primitives that use them. */
#include "kernels/cpu/cpu.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

int weir_cpu_alone_begin(void)
{
    const int before = omp_get_max_threads();
    omp_set_num_threads(1);
    return before;
}

void weir_cpu_alone_end(int before)
{
    omp_set_num_threads(before);
}

static int planning_begin(struct weir_cpu *cpu)
{
    pthread_mutex_lock(&cpu->planning);
    return weir_cpu_alone_begin();
}

static void planning_end(struct weir_cpu *cpu, int before)
{
    weir_cpu_alone_end(before);
    pthread_mutex_unlock(&cpu->planning);
}

static enum weir_status dnnl_failed(dnnl_status_t fault, const char *what, const struct weir_packed *layer,
                                    struct weir_error *error)
{
    const enum weir_status status = fault == dnnl_out_of_memory ? WEIR_NO_MEMORY : WEIR_DEVICE;
    return weir_fail(error, status, "device cpu: %s of %s %s failed with oneDNN's status %d", what,
                     weir_op_name(layer->op), layer->name, (int)fault);
}

/* --- descriptions ------------------------------------------------------------------------------------------------- */

/* What a primitive is made of, apart from the layout of its weights. */
struct recipe {
    const struct weir_packed *layer;
    bool convolution;
    union {
        struct weir_cpu_product product;
        struct weir_cpu_convolution convolution;
    } shape;
    bool add;
};

/* What oneDNN's products read of x and of the weights; bias, sums and y are f32. */
static dnnl_data_type_t read_type(const struct weir_packed *layer)
{
    return layer->dtype == WEIR_BF16 ? dnnl_bf16 : dnnl_f32;
}

/* The layer's weights in the order of the model file: [out, in, ...], or for products its transpose [in, out]. */
static void weight_dims(const struct weir_packed *layer, dnnl_dims_t dims, dnnl_memory_desc_t *plain)
{
    if (layer->op == WEIR_OP_LINEAR) {
        dims[0] = layer->in, dims[1] = layer->out;
        dnnl_memory_desc_init_by_tag(plain, 2, dims, dnnl_f32, dnnl_ba);
        return;
    }
    dims[0] = layer->out, dims[1] = layer->in;
    dims[2] = layer->op == WEIR_OP_CONV2D ? layer->kernel : 3;
    dims[3] = layer->op == WEIR_OP_CONV2D ? layer->kernel : 1;
    dnnl_memory_desc_init_by_tag(plain, 4, dims, dnnl_f32, dnnl_oihw);
}

struct descriptions {
    dnnl_memory_desc_t x, bias, y;
};

/* The primitive's description with weights as `weights` says, or as oneDNN likes best when that is NULL. */
static dnnl_status_t describe(const struct weir_cpu *cpu, const struct recipe *recipe,
                              const dnnl_memory_desc_t *weights, struct descriptions *out,
                              dnnl_primitive_desc_t *primitive)
{
    const struct weir_packed *layer = recipe->layer;
    dnnl_dims_t dims;
    dnnl_memory_desc_t w;
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_post_ops_t after = NULL;
    dnnl_status_t fault;
    const dnnl_data_type_t read = read_type(layer);

    weight_dims(layer, dims, &w);
    if (weights) {
        w = *weights;
    } else {
        fault = dnnl_memory_desc_init_by_tag(&w, w.ndims, dims, read, dnnl_format_tag_any);
        if (fault != dnnl_success) return fault;
    }
    fault = dnnl_primitive_attr_create(&attributes);
    if (fault == dnnl_success) fault = dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user);
    /* Whatever ONEDNN_DEFAULT_FPMATH_MODE says: f32 is f32. */
    if (fault == dnnl_success) fault = dnnl_primitive_attr_set_fpmath_mode(attributes, dnnl_fpmath_mode_strict);
    if (fault == dnnl_success && recipe->add) {
        fault = dnnl_post_ops_create(&after);
        if (fault == dnnl_success) fault = dnnl_post_ops_append_sum(after, 1);
        if (fault == dnnl_success) fault = dnnl_primitive_attr_set_post_ops(attributes, after);
    }
    if (fault != dnnl_success) goto cleanup;

    if (recipe->convolution) {
        const struct weir_cpu_convolution *s = &recipe->shape.convolution;
        const dnnl_dims_t x = { 1, layer->in, s->in_height, s->in_width }, y = { 1, layer->out, s->height, s->width };
        const dnnl_dims_t bias = { layer->out }, strides = { s->stride, s->stride }, dilates = { s->dilation - 1, 0 };
        const dnnl_dims_t before = { s->pad_top, s->pad_left }, behind = { s->pad_bottom, s->pad_right };
        dnnl_convolution_desc_t desc;
        dnnl_memory_desc_init_by_tag(&out->x, 4, x, read, dnnl_nhwc);
        dnnl_memory_desc_init_by_tag(&out->y, 4, y, dnnl_f32, dnnl_nhwc);
        dnnl_memory_desc_init_by_tag(&out->bias, 1, bias, dnnl_f32, dnnl_a);
        fault =
            dnnl_dilated_convolution_forward_desc_init(&desc, dnnl_forward_inference, dnnl_convolution_direct, &out->x,
                                                       &w, &out->bias, &out->y, strides, dilates, before, behind);
        if (fault == dnnl_success) fault = dnnl_primitive_desc_create(primitive, &desc, attributes, cpu->engine, NULL);
    } else {
        const uint32_t tokens = recipe->shape.product.tokens;
        const dnnl_dims_t x = { tokens, layer->in }, y = { tokens, layer->out }, bias = { 1, layer->out };
        dnnl_matmul_desc_t desc;
        dnnl_memory_desc_init_by_tag(&out->x, 2, x, read, dnnl_ab);
        dnnl_memory_desc_init_by_tag(&out->y, 2, y, dnnl_f32, dnnl_ab);
        dnnl_memory_desc_init_by_tag(&out->bias, 2, bias, dnnl_f32, dnnl_ab);
        fault = dnnl_matmul_desc_init(&desc, &out->x, &w, &out->bias, &out->y);
        if (fault == dnnl_success) fault = dnnl_primitive_desc_create(primitive, &desc, attributes, cpu->engine, NULL);
    }

cleanup:
    if (after) dnnl_post_ops_destroy(after);
    if (attributes) dnnl_primitive_attr_destroy(attributes);
    return fault;
}

/* --- layouts ------------------------------------------------------------------------------------------------------ */

static void layout_deinit(struct weir_cpu_layout *layout)
{
    if (layout->memory) dnnl_memory_destroy(layout->memory);
    free(layout->data);
    *layout = (struct weir_cpu_layout){ 0 };
}

/* Makes `layout` of `desc` with the weights that `from` holds; of the shape alone when that is NULL. */
static enum weir_status layout_init(const struct weir_cpu *cpu, const struct weir_packed *layer, dnnl_memory_t from,
                                    const dnnl_memory_desc_t *desc, struct weir_cpu_layout *layout,
                                    struct weir_error *error)
{
    const dnnl_memory_desc_t *from_desc = NULL;
    dnnl_primitive_desc_t description = NULL;
    dnnl_primitive_t reorder = NULL;
    const size_t bytes = dnnl_memory_desc_get_size(desc);

    if (!from) {
        *layout = (struct weir_cpu_layout){ .desc = *desc };
        return WEIR_OK;
    }
    *layout = (struct weir_cpu_layout){ .desc = *desc, .data = aligned_alloc(WEIR_ALIGNMENT, weir_cpu_aligned(bytes)) };
    if (!layout->data) {
        return weir_fail(error, WEIR_NO_MEMORY, "device cpu: no memory for %zu bytes of weights of %s %s", bytes,
                         weir_op_name(layer->op), layer->name);
    }
    dnnl_status_t fault = dnnl_memory_create(&layout->memory, desc, cpu->engine, layout->data);
    if (fault == dnnl_success) fault = dnnl_memory_get_memory_desc(from, &from_desc);
    if (fault == dnnl_success) {
        fault = dnnl_reorder_primitive_desc_create(&description, from_desc, cpu->engine, desc, cpu->engine, NULL);
    }
    if (fault == dnnl_success) fault = dnnl_primitive_create(&reorder, description);
    if (fault == dnnl_success) {
        const dnnl_exec_arg_t arguments[] = { { DNNL_ARG_FROM, from }, { DNNL_ARG_TO, layout->memory } };
        fault = dnnl_primitive_execute(reorder, cpu->planning_stream, 2, arguments);
    }
    if (fault == dnnl_success) fault = dnnl_stream_wait(cpu->planning_stream);
    if (reorder) dnnl_primitive_destroy(reorder);
    if (description) dnnl_primitive_desc_destroy(description);
    if (fault == dnnl_success) return WEIR_OK;
    layout_deinit(layout);
    return dnnl_failed(fault, "packing", layer, error);
}

static const char *implementation(dnnl_primitive_desc_t primitive)
{
    const char *words = "";
    dnnl_primitive_desc_query(primitive, dnnl_query_impl_info_str, 0, &words);
    return words;
}

/* The layout for a primitive that would like `wanted`, adding it to the layer when it is new. */
static enum weir_status layout_find(const struct weir_cpu *cpu, struct weir_cpu_packed *layer,
                                    const dnnl_memory_desc_t *wanted, const struct weir_cpu_layout **out,
                                    struct weir_error *error)
{
    for (uint32_t i = 0; i < layer->layout_count; i++) {
        if (dnnl_memory_desc_equal(&layer->layouts[i].desc, wanted)) {
            *out = &layer->layouts[i];
            return WEIR_OK;
        }
    }
    if (layer->layout_count == WEIR_CPU_LAYOUTS_MAX) {
        return weir_fail(error, WEIR_TOO_LARGE, "device cpu: %s %s is used in more than %d layouts",
                         weir_op_name(layer->head.op), layer->head.name, WEIR_CPU_LAYOUTS_MAX);
    }
    struct weir_cpu_layout *added = &layer->layouts[layer->layout_count];
    const enum weir_status status = layout_init(cpu, &layer->head, layer->layouts[0].memory, wanted, added, error);
    if (status != WEIR_OK) return status;
    layer->layout_count++;
    *out = added;
    return WEIR_OK;
}

/* --- primitives --------------------------------------------------------------------------------------------------- */

struct weir_cpu_arguments {
    dnnl_memory_t x, bias, y, scratch;
};

void weir_cpu_primitive_destroy(struct weir_cpu *cpu, struct weir_cpu_primitive *p)
{
    for (uint32_t slot = 0; p->slots && slot < weir_pool_slots(cpu->pool); slot++) {
        dnnl_memory_t all[] = { p->slots[slot].x, p->slots[slot].bias, p->slots[slot].y, p->slots[slot].scratch };
        for (size_t i = 0; i < WEIR_COUNT(all); i++) {
            if (all[i]) dnnl_memory_destroy(all[i]);
        }
    }
    free(p->slots);
    if (p->primitive) dnnl_primitive_destroy(p->primitive);
    *p = (struct weir_cpu_primitive){ 0 };
}

/* Which layout depends on the shape alone: the layer's first one if oneDNN computes as well with it, else the wanted.
 */
static enum weir_status primitive_create(struct weir_cpu *cpu, struct weir_cpu_packed *layer,
                                         const struct recipe *recipe, struct weir_cpu_primitive *out,
                                         struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct descriptions descs;
    dnnl_primitive_desc_t best = NULL, usual = NULL, *chosen = &usual;
    const int before = planning_begin(cpu);

    *out = (struct weir_cpu_primitive){ 0 };
    dnnl_status_t fault = describe(cpu, recipe, NULL, &descs, &best);
    if (fault != dnnl_success) goto cleanup;
    if (describe(cpu, recipe, &layer->layouts[0].desc, &descs, &usual) == dnnl_success &&
        strcmp(implementation(best), implementation(usual)) == 0) {
        out->weights = &layer->layouts[0];
    } else {
        chosen = &best;
        status =
            layout_find(cpu, layer, dnnl_primitive_desc_query_md(best, dnnl_query_weights_md, 0), &out->weights, error);
        if (status != WEIR_OK) goto cleanup;
    }
    fault = dnnl_primitive_create(&out->primitive, *chosen);
    if (fault != dnnl_success) goto cleanup;
    const dnnl_memory_desc_t *scratch = dnnl_primitive_desc_query_md(*chosen, dnnl_query_scratchpad_md, 0);
    out->scratch_bytes = weir_cpu_aligned(dnnl_memory_desc_get_size(scratch));
    out->slots = calloc(weir_pool_slots(cpu->pool), sizeof *out->slots);
    if (!out->slots) fault = dnnl_out_of_memory;
    for (uint32_t slot = 0; slot < weir_pool_slots(cpu->pool) && fault == dnnl_success; slot++) {
        struct weir_cpu_arguments *a = &out->slots[slot];
        fault = dnnl_memory_create(&a->x, &descs.x, cpu->engine, NULL);
        if (fault == dnnl_success) fault = dnnl_memory_create(&a->bias, &descs.bias, cpu->engine, NULL);
        if (fault == dnnl_success) fault = dnnl_memory_create(&a->y, &descs.y, cpu->engine, NULL);
        if (fault == dnnl_success) fault = dnnl_memory_create(&a->scratch, scratch, cpu->engine, NULL);
    }

cleanup:
    if (best) dnnl_primitive_desc_destroy(best);
    if (usual) dnnl_primitive_desc_destroy(usual);
    if (fault != dnnl_success) status = dnnl_failed(fault, "planning", &layer->head, error);
    if (status != WEIR_OK) weir_cpu_primitive_destroy(cpu, out);
    planning_end(cpu, before);
    return status;
}

enum weir_status weir_cpu_product_create(struct weir_cpu *cpu, struct weir_cpu_packed *layer,
                                         const struct weir_cpu_product *shape, struct weir_cpu_primitive *out,
                                         struct weir_error *error)
{
    const struct recipe recipe = { .layer = &layer->head, .shape = { .product = *shape }, .add = shape->add };
    return primitive_create(cpu, layer, &recipe, out, error);
}

enum weir_status weir_cpu_convolution_create(struct weir_cpu *cpu, struct weir_cpu_packed *layer,
                                             const struct weir_cpu_convolution *shape, struct weir_cpu_primitive *out,
                                             struct weir_error *error)
{
    const struct recipe recipe = {
        .layer = &layer->head, .convolution = true, .shape = { .convolution = *shape }, .add = shape->add
    };
    return primitive_create(cpu, layer, &recipe, out, error);
}

bool weir_cpu_primitive_run(const struct weir_cpu *cpu, const struct weir_cpu_primitive *p, uint32_t slot,
                            const void *x, const float *bias, float *y, void *scratch)
{
    const struct weir_cpu_arguments *a = &p->slots[slot];
    dnnl_stream_t stream = cpu->streams[slot];
    union { /* oneDNN's handles are not const, though it only reads these */
        const void *from;
        void *to;
    } x_handle = { x }, bias_handle = { bias };
    if (dnnl_memory_set_data_handle(a->x, x_handle.to) != dnnl_success ||
        dnnl_memory_set_data_handle(a->bias, bias_handle.to) != dnnl_success ||
        dnnl_memory_set_data_handle(a->y, y) != dnnl_success ||
        dnnl_memory_set_data_handle(a->scratch, scratch) != dnnl_success) {
        return false;
    }
    const dnnl_exec_arg_t arguments[] = { { DNNL_ARG_SRC, a->x },
                                          { DNNL_ARG_WEIGHTS, p->weights->memory },
                                          { DNNL_ARG_BIAS, a->bias },
                                          { DNNL_ARG_DST, a->y },
                                          { DNNL_ARG_SCRATCHPAD, a->scratch } };
    return dnnl_primitive_execute(p->primitive, stream, (int)WEIR_COUNT(arguments), arguments) == dnnl_success;
}

/* --- layers ------------------------------------------------------------------------------------------------------- */

/* The shape that a layer's first layout is made for: a film's middle sizes. */
#define USUAL_TOKENS 128
#define USUAL_SIDE 16
#define USUAL_FRAMES 4

static struct recipe usual_recipe(const struct weir_packed *layer)
{
    struct recipe recipe = { .layer = layer, .convolution = layer->op != WEIR_OP_LINEAR };
    if (layer->op == WEIR_OP_LINEAR) {
        recipe.shape.product.tokens = USUAL_TOKENS;
    } else if (layer->op == WEIR_OP_CONV2D) {
        const uint32_t side = layer->kernel > USUAL_SIDE ? layer->kernel : USUAL_SIDE;
        const uint32_t before = (layer->kernel - 1) / 2, behind = layer->kernel - 1 - before;
        recipe.shape.convolution = (struct weir_cpu_convolution){ .in_height = side,
                                                                  .in_width = side,
                                                                  .height = side,
                                                                  .width = side,
                                                                  .kernel_height = layer->kernel,
                                                                  .kernel_width = layer->kernel,
                                                                  .stride = 1,
                                                                  .dilation = 1,
                                                                  .pad_top = before,
                                                                  .pad_bottom = behind,
                                                                  .pad_left = before,
                                                                  .pad_right = behind };
    } else {
        recipe.shape.convolution = (struct weir_cpu_convolution){ .in_height = USUAL_FRAMES + 2,
                                                                  .in_width = USUAL_SIDE * USUAL_SIDE,
                                                                  .height = USUAL_FRAMES,
                                                                  .width = USUAL_SIDE * USUAL_SIDE,
                                                                  .kernel_height = 3,
                                                                  .kernel_width = 1,
                                                                  .stride = 1,
                                                                  .dilation = 1 };
    }
    return recipe;
}

static enum weir_status pack_blocks(const struct weir_cpu *cpu, const struct weir_parameters *q,
                                    struct weir_cpu_packed *packed, struct weir_error *error)
{
    const struct recipe recipe = usual_recipe(&packed->head);
    struct descriptions descs;
    dnnl_dims_t dims;
    dnnl_memory_desc_t plain;
    dnnl_memory_t from = NULL;
    dnnl_primitive_desc_t best = NULL;
    enum weir_status status = WEIR_OK;
    union {
        const float *from;
        void *to;
    } weight = { q->weight };

    weight_dims(&packed->head, dims, &plain);
    dnnl_status_t fault = describe(cpu, &recipe, NULL, &descs, &best);
    if (fault == dnnl_success && !q->shape_only) fault = dnnl_memory_create(&from, &plain, cpu->engine, weight.to);
    if (fault != dnnl_success) {
        status = dnnl_failed(fault, "packing", &packed->head, error);
    } else {
        status = layout_init(cpu, &packed->head, from, dnnl_primitive_desc_query_md(best, dnnl_query_weights_md, 0),
                             &packed->layouts[0], error);
    }
    if (status == WEIR_OK) packed->layout_count = 1;
    if (from) dnnl_memory_destroy(from);
    if (best) dnnl_primitive_desc_destroy(best);
    return status;
}

static float *floats_alloc(uint64_t count)
{
    return aligned_alloc(WEIR_ALIGNMENT, weir_cpu_aligned((size_t)count * sizeof(float)));
}

/* `from`, or zeros when that is NULL. */
static float *copy_floats(const float *from, uint64_t count)
{
    float *copy = floats_alloc(count);
    if (!copy) return NULL;
    if (from) {
        memcpy(copy, from, (size_t)count * sizeof *copy);
    } else {
        memset(copy, 0, (size_t)count * sizeof *copy);
    }
    return copy;
}

/* Floats of vector_weight. */
static uint64_t vector_count(const struct weir_parameters *q)
{
    if (q->op != WEIR_OP_GROUPED_LINEAR) return weir_weight_count(q);
    return (uint64_t)q->in * weir_cpu_padded(q->out / q->kernel);
}

/* [C, taps] -> [taps, C] */
static void turn_depthwise(const struct weir_parameters *q, float *to)
{
    const size_t taps = (size_t)q->kernel * q->kernel;
    for (size_t k = 0; k < taps; k++) {
        for (size_t c = 0; c < q->out; c++) to[k * q->out + c] = q->weight[c * taps + k];
    }
}

/* [groups, out, in] -> [groups, in, out padded with zeros] */
static void turn_grouped(const struct weir_parameters *q, float *to)
{
    const size_t in = q->in / q->kernel, out = q->out / q->kernel, padded = weir_cpu_padded((uint32_t)out);
    const float *weight = q->weight;
    for (size_t g = 0; g < q->kernel; g++, weight += in * out, to += in * padded) {
        for (size_t i = 0; i < in; i++) {
            for (size_t o = 0; o < padded; o++) to[i * padded + o] = o < out ? weight[o * in + i] : 0;
        }
    }
}

static float *vector_weight(const struct weir_parameters *q, uint64_t count)
{
    if (q->op != WEIR_OP_DEPTHWISE_CONV && q->op != WEIR_OP_GROUPED_LINEAR) return copy_floats(q->weight, count);
    float *to = floats_alloc(count);
    if (!to) return NULL;
    if (q->op == WEIR_OP_DEPTHWISE_CONV) {
        turn_depthwise(q, to);
    } else {
        turn_grouped(q, to);
    }
    return to;
}

enum weir_status weir_cpu_pack(struct weir_device *device, const struct weir_parameters *q, struct weir_packed **out,
                               struct weir_error *error)
{
    enum weir_status status = weir_check_parameters(q, error);
    if (status != WEIR_OK) return status;
    struct weir_cpu *cpu = (struct weir_cpu *)device;
    if (q->dtype != WEIR_F32 && (status = weir_cpu_offers(cpu, q->dtype, error)) != WEIR_OK) return status;
    struct weir_cpu_packed *packed = calloc(1, sizeof *packed);
    if (!packed) return weir_fail(error, WEIR_NO_MEMORY, "device cpu: no memory for a layer");
    weir_packed_head(&packed->head, device, q);
    const bool blocks = q->op == WEIR_OP_LINEAR || q->op == WEIR_OP_CONV2D || q->op == WEIR_OP_CONV_TEMPORAL;
    if (!blocks) packed->head.dtype = WEIR_F32; /* our own loops */
    const uint64_t bias_count = blocks ? q->out : weir_bias_count(q), weight_count = blocks ? 0 : vector_count(q);
    packed->vector_bytes = (size_t)(weight_count + bias_count) * sizeof(float);
    const bool copies = !q->shape_only;
    if (copies && bias_count) packed->bias = copy_floats(q->bias, bias_count);
    if (copies && weight_count) packed->vector_weight = vector_weight(q, weight_count);
    if (copies && ((bias_count && !packed->bias) || (weight_count && !packed->vector_weight))) {
        status = weir_fail(error, WEIR_NO_MEMORY, "device cpu: no memory for %zu bytes of %s", packed->vector_bytes,
                           weir_op_name(q->op));
    } else if (blocks) {
        const int before = planning_begin(cpu);
        status = pack_blocks(cpu, q, packed, error);
        planning_end(cpu, before);
    }
    if (status != WEIR_OK) {
        weir_cpu_packed_destroy(&packed->head);
        return status;
    }
    *out = &packed->head;
    return WEIR_OK;
}

void weir_cpu_packed_destroy(struct weir_packed *head)
{
    struct weir_cpu_packed *packed = (struct weir_cpu_packed *)head;
    if (!packed) return;
    for (uint32_t i = 0; i < packed->layout_count; i++) layout_deinit(&packed->layouts[i]);
    free(packed->vector_weight);
    free(packed->bias);
    free(packed);
}

size_t weir_cpu_packed_bytes(const struct weir_packed *head)
{
    const struct weir_cpu_packed *packed = (const struct weir_cpu_packed *)head;
    struct weir_cpu *cpu = (struct weir_cpu *)head->device;
    size_t bytes = packed->vector_bytes;
    pthread_mutex_lock(&cpu->planning);
    for (uint32_t i = 0; i < packed->layout_count; i++) bytes += dnnl_memory_desc_get_size(&packed->layouts[i].desc);
    pthread_mutex_unlock(&cpu->planning);
    return bytes;
}
