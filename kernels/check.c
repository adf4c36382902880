#include "kernels/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const op_names[WEIR_OP_COUNT] = {
#define X(op, OP) #op,
    WEIR_OP_TABLE(X)
#undef X
};

const char *weir_op_name(enum weir_op op)
{
    return (unsigned)op < WEIR_OP_COUNT ? op_names[op] : "?";
}

bool weir_elements(const uint32_t *factors, size_t count, uint64_t *out)
{
    uint64_t product = 1;
    for (size_t i = 0; i < count; i++) {
        if (factors[i] == 0 || factors[i] > WEIR_DIMENSION_MAX) return false;
        product *= factors[i]; /* < 2^40 * 2^30 */
        if (product > WEIR_TENSOR_ELEMENTS_MAX) return false;
    }
    *out = product;
    return true;
}

/* "conv2d down_blocks.0.conv_in" */
static const char *subject(char *text, size_t room, enum weir_op op, const char *name)
{
    snprintf(text, room, "%s%s%s", weir_op_name(op), name && name[0] ? " " : "", name ? name : "");
    return text;
}
#define SUBJECT(op, name) subject((char[160]){ 0 }, 160, op, name)

static enum weir_status check_count(enum weir_op op, const char *name, const char *tensor, const uint32_t *factors,
                                    size_t count, struct weir_error *error)
{
    uint64_t ignored;
    if (weir_elements(factors, count, &ignored)) return WEIR_OK;
    char dims[120] = "";
    for (size_t i = 0, used = 0; i < count && used < sizeof dims; i++) {
        used += (size_t)snprintf(dims + used, sizeof dims - used, "%s%u", i ? ", " : "", factors[i]);
    }
    return weir_fail(error, WEIR_BAD_SHAPE,
                     "%s: %s has the dimensions [%s]; each must be at least 1 and all together at most 2^40 elements",
                     SUBJECT(op, name), tensor, dims);
}
#define CHECK_COUNT(op, packed, tensor, ...)                                                                           \
    WEIR_TRY(check_count(op, (packed) ? (packed)->name : NULL, tensor, (const uint32_t[]){ __VA_ARGS__ },              \
                         sizeof((const uint32_t[]){ __VA_ARGS__ }) / sizeof(uint32_t), error))

static enum weir_status check_dtype(enum weir_op op, enum weir_dtype dtype, struct weir_error *error)
{
    if (dtype == WEIR_F32 || dtype == WEIR_BF16) return WEIR_OK;
    return weir_fail(error, WEIR_UNSUPPORTED, "%s: activations are f32 or bf16, not dtype %d", weir_op_name(op),
                     (int)dtype);
}

static enum weir_status check_equal(enum weir_op op, const struct weir_packed *packed, const char *what, uint32_t value,
                                    uint32_t wanted, struct weir_error *error)
{
    if (value == wanted) return WEIR_OK;
    return weir_fail(error, WEIR_BAD_SHAPE, "%s: %s is %u, but the layer's is %u",
                     SUBJECT(op, packed ? packed->name : NULL), what, value, wanted);
}

static enum weir_status check_layer(enum weir_op op, const struct weir_packed *packed, struct weir_error *error)
{
    if (packed && packed->op == op) return WEIR_OK;
    return weir_fail(error, WEIR_BAD_SHAPE, "%s: the layer given is %s", weir_op_name(op),
                     packed ? weir_op_name(packed->op) : "none");
}

uint64_t weir_weight_count(const struct weir_parameters *q)
{
    const uint64_t matrix = (uint64_t)q->out * q->in;
    switch (q->op) {
    case WEIR_OP_LINEAR:
    case WEIR_OP_EMBED:
    case WEIR_OP_TABLE_ADD:
        return matrix;
    case WEIR_OP_GROUPED_LINEAR:
        return matrix / q->kernel;
    case WEIR_OP_DEPTHWISE_CONV:
        return (uint64_t)q->out * q->kernel * q->kernel;
    case WEIR_OP_CONV2D:
        return matrix * q->kernel * q->kernel;
    case WEIR_OP_CONV_TEMPORAL:
        return matrix * 3;
    default:
        return q->out;
    }
}

uint64_t weir_bias_count(const struct weir_parameters *q)
{
    if (!q->bias) return 0;
    return q->op == WEIR_OP_EMBED ? (uint64_t)q->kernel * q->in : q->out;
}

void weir_packed_head(struct weir_packed *head, struct weir_device *device, const struct weir_parameters *q)
{
    *head = (struct weir_packed){ .device = device,
                                  .op = q->op,
                                  .out = q->out,
                                  .in = q->in,
                                  .kernel = q->kernel,
                                  .bias = q->bias != NULL,
                                  .geglu = q->geglu,
                                  .dtype = q->dtype };
    if (q->name) snprintf(head->name, sizeof head->name, "%s", q->name);
}

enum weir_status weir_check_parameters(const struct weir_parameters *q, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const char *fault = NULL;
    struct weir_packed head; /* only its name is read here */
    const struct weir_packed *const named = &head;
    weir_packed_head(&head, NULL, q);

    if (!q->weight) return weir_fail(error, WEIR_BAD_SHAPE, "%s: no weight", SUBJECT(q->op, q->name));
    switch (q->op) {
    case WEIR_OP_LINEAR:
        CHECK_COUNT(q->op, named, "weight", q->out, q->in);
        if (q->geglu && q->out % 2 != 0) {
            fault = "GEGLU needs an even number of outputs";
        }
        break;
    case WEIR_OP_GROUPED_LINEAR:
        CHECK_COUNT(q->op, named, "weight", q->out, q->in);
        if (q->kernel == 0 || q->out % q->kernel != 0 || q->in % q->kernel != 0) {
            fault = "the groups must divide the inputs and the outputs";
        } else if (q->bias) {
            fault = "a grouped linear has no bias";
        }
        break;
    case WEIR_OP_CONV2D:
        CHECK_COUNT(q->op, named, "weight", q->out, q->in, q->kernel, q->kernel);
        break;
    case WEIR_OP_DEPTHWISE_CONV:
        CHECK_COUNT(q->op, named, "weight", q->out, q->kernel, q->kernel);
        if (q->kernel % 2 == 0) fault = "the kernel's size must be odd";
        break;
    case WEIR_OP_CONV_TEMPORAL:
        CHECK_COUNT(q->op, named, "weight", q->out, q->in, 3);
        break;
    case WEIR_OP_GROUP_NORM:
    case WEIR_OP_LAYER_NORM:
        CHECK_COUNT(q->op, named, "weight", q->out);
        if (!q->bias) fault = "a norm needs gamma and beta";
        break;
    case WEIR_OP_RMS_NORM:
        CHECK_COUNT(q->op, named, "weight", q->out);
        break;
    case WEIR_OP_TABLE_ADD:
        CHECK_COUNT(q->op, named, "table", q->out, q->in);
        if (q->bias) fault = "a table has no bias";
        break;
    case WEIR_OP_EMBED:
        CHECK_COUNT(q->op, named, "table", q->out, q->in);
        if (q->bias) CHECK_COUNT(q->op, named, "positions", q->kernel, q->in);
        break;
    default:
        fault = "this op has no parameters";
        break;
    }
    if (q->geglu && q->op != WEIR_OP_LINEAR) fault = "GEGLU is linear's alone";
    if (q->doubled && (q->op != WEIR_OP_CONV2D || q->kernel != 3)) fault = "doubled is for conv2d of kernel 3";
    if (fault) return weir_fail(error, WEIR_BAD_SHAPE, "%s: %s", SUBJECT(q->op, q->name), fault);
    WEIR_TRY(check_dtype(q->op, q->dtype, error));

cleanup:
    return status;
}

bool weir_activation_is_gated(enum weir_activation activation)
{
    return activation == WEIR_ACT_GEGLU || activation == WEIR_ACT_GEGLU_TANH;
}

uint32_t weir_linear_width(const struct weir_linear *s)
{
    return weir_activation_is_gated(s->activation) ? s->out / 2 : s->out;
}

uint32_t weir_rms_norm_width(const struct weir_rms_norm *s)
{
    return s->parts * s->channels + s->rest;
}

/* "rms_norm norm1: eps is 0; it must be above 0" */
static enum weir_status check_eps(enum weir_op op, const struct weir_packed *packed, float eps,
                                  struct weir_error *error)
{
    if (eps > 0 && isfinite(eps)) return WEIR_OK;
    return weir_fail(error, WEIR_BAD_SHAPE, "%s: eps is %g; it must be above 0",
                     SUBJECT(op, packed ? packed->name : NULL), (double)eps);
}

/* That operand `what` has a vector number `index`. */
static enum weir_status check_vector(enum weir_op op, const struct weir_packed *packed, const char *what,
                                     uint32_t index, uint32_t vectors, struct weir_error *error)
{
    if (index < vectors) return WEIR_OK;
    return weir_fail(error, WEIR_BAD_SHAPE, "%s: %s is vector %u of %u, counted from 0",
                     SUBJECT(op, packed ? packed->name : NULL), what, index, vectors);
}

enum weir_status weir_check_linear(const struct weir_packed *packed, const struct weir_linear *s,
                                   struct weir_error *error)
{
    enum weir_status status = WEIR_OK;

    WEIR_TRY(check_layer(WEIR_OP_LINEAR, packed, error));
    WEIR_TRY(check_dtype(WEIR_OP_LINEAR, s->dtype, error));
    WEIR_TRY(check_equal(WEIR_OP_LINEAR, packed, "the input's number of channels", s->in, packed->in, error));
    WEIR_TRY(check_equal(WEIR_OP_LINEAR, packed, "the number of outputs", s->out, packed->out, error));
    CHECK_COUNT(WEIR_OP_LINEAR, packed, "x", s->rows, s->tokens, s->in);
    CHECK_COUNT(WEIR_OP_LINEAR, packed, "y", s->rows, s->tokens, s->out);
    const bool gated = weir_activation_is_gated(s->activation);
    if ((unsigned)s->activation > WEIR_ACT_GEGLU_TANH ||
        (gated != packed->geglu && (gated || s->activation != WEIR_ACT_NONE))) {
        status =
            weir_fail(error, WEIR_BAD_SHAPE, "%s: activation %d on a layer packed %s GEGLU",
                      SUBJECT(WEIR_OP_LINEAR, packed->name), (int)s->activation, packed->geglu ? "for" : "without");
        goto cleanup;
    }
    if (s->gate_vectors || s->gate_vector) {
        WEIR_TRY(check_vector(WEIR_OP_LINEAR, packed, "the gate", s->gate_vector, s->gate_vectors, error));
        CHECK_COUNT(WEIR_OP_LINEAR, packed, "the gate", s->rows, s->gate_vectors, weir_linear_width(s));
    }

cleanup:
    return status;
}

enum weir_status weir_check_low_rank(const struct weir_packed *packed, const struct weir_low_rank *s,
                                     struct weir_error *error)
{
    enum weir_status status = WEIR_OK;

    WEIR_TRY(check_dtype(WEIR_OP_LOW_RANK, s->dtype, error));
    CHECK_COUNT(WEIR_OP_LOW_RANK, packed, "x", s->rows, s->tokens, s->in);
    CHECK_COUNT(WEIR_OP_LOW_RANK, packed, "a", s->in, s->rank);
    CHECK_COUNT(WEIR_OP_LOW_RANK, packed, "b", s->rank, s->out);
    CHECK_COUNT(WEIR_OP_LOW_RANK, packed, "y", s->rows, s->tokens, s->y_channels);
    if (s->channel > s->y_channels || s->out > s->y_channels - s->channel) {
        status = weir_fail(error, WEIR_BAD_SHAPE, "low_rank: %u outputs from channel %u on do not fit y's %u", s->out,
                           s->channel, s->y_channels);
        goto cleanup;
    }
    if (s->gate_vectors || s->gate_vector) {
        WEIR_TRY(check_vector(WEIR_OP_LOW_RANK, packed, "the gate", s->gate_vector, s->gate_vectors, error));
        CHECK_COUNT(WEIR_OP_LOW_RANK, packed, "the gate", s->rows, s->gate_vectors, s->y_channels);
    }

cleanup:
    return status;
}

enum weir_status weir_check_grouped_linear(const struct weir_packed *packed, const struct weir_grouped_linear *s,
                                           struct weir_error *error)
{
    enum weir_status status = WEIR_OK;

    WEIR_TRY(check_layer(WEIR_OP_GROUPED_LINEAR, packed, error));
    WEIR_TRY(check_dtype(WEIR_OP_GROUPED_LINEAR, s->dtype, error));
    WEIR_TRY(check_equal(WEIR_OP_GROUPED_LINEAR, packed, "the input's number of channels", s->in, packed->in, error));
    WEIR_TRY(check_equal(WEIR_OP_GROUPED_LINEAR, packed, "the number of outputs", s->out, packed->out, error));
    WEIR_TRY(check_equal(WEIR_OP_GROUPED_LINEAR, packed, "the number of groups", s->groups, packed->kernel, error));
    CHECK_COUNT(WEIR_OP_GROUPED_LINEAR, packed, "x", s->rows, s->tokens, s->in);
    CHECK_COUNT(WEIR_OP_GROUPED_LINEAR, packed, "y", s->rows, s->tokens, s->out);

cleanup:
    return status;
}

struct weir_conv2d_size weir_conv2d_size_of(const struct weir_conv2d *s)
{
    struct weir_conv2d_size size = { s->height, s->width, 0, 0 };
    if (s->resize_height) size.source_height = s->resize_height;
    if (s->resize_width) size.source_width = s->resize_width;
    const uint32_t padded_height = size.source_height + s->pad + s->pad_end;
    const uint32_t padded_width = size.source_width + s->pad + s->pad_end;
    if (padded_height >= s->kernel) size.height = (padded_height - s->kernel) / s->stride + 1;
    if (padded_width >= s->kernel) size.width = (padded_width - s->kernel) / s->stride + 1;
    return size;
}

enum weir_status weir_check_conv2d(const struct weir_packed *packed, const struct weir_conv2d *s,
                                   struct weir_error *error)
{
    enum weir_status status = WEIR_OK;

    WEIR_TRY(check_layer(WEIR_OP_CONV2D, packed, error));
    WEIR_TRY(check_dtype(WEIR_OP_CONV2D, s->dtype, error));
    WEIR_TRY(check_equal(WEIR_OP_CONV2D, packed, "the input's number of channels", s->in, packed->in, error));
    WEIR_TRY(check_equal(WEIR_OP_CONV2D, packed, "the number of outputs", s->out, packed->out, error));
    WEIR_TRY(check_equal(WEIR_OP_CONV2D, packed, "the kernel's size", s->kernel, packed->kernel, error));
    CHECK_COUNT(WEIR_OP_CONV2D, packed, "x", s->rows, s->frames, s->height, s->width, s->in);
    if ((s->resize_height == 0) != (s->resize_width == 0) || s->stride == 0 || s->pad >= s->kernel ||
        s->pad_end >= s->kernel) {
        status = weir_fail(error, WEIR_BAD_SHAPE,
                           "%s: resize %ux%u, stride %u, padding %u and %u: both resize lengths or none, stride at "
                           "least 1, padding below the kernel's %u",
                           SUBJECT(WEIR_OP_CONV2D, packed->name), s->resize_height, s->resize_width, s->stride, s->pad,
                           s->pad_end, s->kernel);
        goto cleanup;
    }
    if (s->silu && s->residual) {
        status = weir_fail(error, WEIR_BAD_SHAPE, "%s: SiLU and a residual exclude each other",
                           SUBJECT(WEIR_OP_CONV2D, packed->name));
        goto cleanup;
    }
    if (s->resize_height) {
        CHECK_COUNT(WEIR_OP_CONV2D, packed, "x resized", s->rows, s->frames, s->resize_height, s->resize_width, s->in);
    }
    const struct weir_conv2d_size size = weir_conv2d_size_of(s);
    CHECK_COUNT(WEIR_OP_CONV2D, packed, "y", s->rows, s->frames, size.height, size.width, s->out);

cleanup:
    return status;
}

enum weir_status weir_check_conv_temporal(const struct weir_packed *packed, const struct weir_conv_temporal *s,
                                          struct weir_error *error)
{
    enum weir_status status = WEIR_OK;

    WEIR_TRY(check_layer(WEIR_OP_CONV_TEMPORAL, packed, error));
    WEIR_TRY(check_dtype(WEIR_OP_CONV_TEMPORAL, s->dtype, error));
    WEIR_TRY(check_equal(WEIR_OP_CONV_TEMPORAL, packed, "the input's number of channels", s->in, packed->in, error));
    WEIR_TRY(check_equal(WEIR_OP_CONV_TEMPORAL, packed, "the number of outputs", s->out, packed->out, error));
    CHECK_COUNT(WEIR_OP_CONV_TEMPORAL, packed, "x", s->rows, s->frames, s->pixels, s->in);
    CHECK_COUNT(WEIR_OP_CONV_TEMPORAL, packed, "y", s->rows, s->frames, s->pixels, s->out);

cleanup:
    return status;
}

enum weir_status weir_check_depthwise_conv(const struct weir_packed *packed, const struct weir_depthwise_conv *s,
                                           struct weir_error *error)
{
    enum weir_status status = WEIR_OK;

    WEIR_TRY(check_layer(WEIR_OP_DEPTHWISE_CONV, packed, error));
    WEIR_TRY(check_dtype(WEIR_OP_DEPTHWISE_CONV, s->dtype, error));
    WEIR_TRY(check_equal(WEIR_OP_DEPTHWISE_CONV, packed, "the number of channels", s->channels, packed->out, error));
    WEIR_TRY(check_equal(WEIR_OP_DEPTHWISE_CONV, packed, "the kernel's size", s->kernel, packed->kernel, error));
    CHECK_COUNT(WEIR_OP_DEPTHWISE_CONV, packed, "x", s->rows, s->frames, s->height, s->width, s->channels);
    if (s->activation != WEIR_ACT_NONE && s->activation != WEIR_ACT_SILU) {
        status = weir_fail(error, WEIR_BAD_SHAPE, "%s: activation %d; none and silu are possible",
                           SUBJECT(WEIR_OP_DEPTHWISE_CONV, packed->name), (int)s->activation);
    } else if (s->glu && s->channels % 2 != 0) {
        status = weir_fail(error, WEIR_BAD_SHAPE, "%s: %u channels are no value and gate of one size",
                           SUBJECT(WEIR_OP_DEPTHWISE_CONV, packed->name), s->channels);
    }

cleanup:
    return status;
}

enum weir_status weir_check_group_norm(const struct weir_packed *packed, const struct weir_group_norm *s,
                                       struct weir_error *error)
{
    enum weir_status status = WEIR_OK;

    WEIR_TRY(check_layer(WEIR_OP_GROUP_NORM, packed, error));
    WEIR_TRY(check_dtype(WEIR_OP_GROUP_NORM, s->dtype, error));
    WEIR_TRY(check_equal(WEIR_OP_GROUP_NORM, packed, "the number of channels", s->channels, packed->out, error));
    CHECK_COUNT(WEIR_OP_GROUP_NORM, packed, "x", s->rows, s->batch, s->pixels, s->channels);
    if (s->groups == 0 || s->channels % s->groups != 0) {
        status = weir_fail(error, WEIR_BAD_SHAPE, "%s: %u channels do not divide into %u groups",
                           SUBJECT(WEIR_OP_GROUP_NORM, packed->name), s->channels, s->groups);
        goto cleanup;
    }
    WEIR_TRY(check_eps(WEIR_OP_GROUP_NORM, packed, s->eps, error));

cleanup:
    return status;
}

enum weir_status weir_check_layer_norm(const struct weir_packed *packed, const struct weir_layer_norm *s,
                                       struct weir_error *error)
{
    enum weir_status status = WEIR_OK;

    WEIR_TRY(check_layer(WEIR_OP_LAYER_NORM, packed, error));
    WEIR_TRY(check_dtype(WEIR_OP_LAYER_NORM, s->dtype, error));
    WEIR_TRY(check_equal(WEIR_OP_LAYER_NORM, packed, "the number of channels", s->channels, packed->out, error));
    CHECK_COUNT(WEIR_OP_LAYER_NORM, packed, "x", s->rows, s->tokens, s->channels);
    WEIR_TRY(check_eps(WEIR_OP_LAYER_NORM, packed, s->eps, error));

cleanup:
    return status;
}

enum weir_status weir_check_rms_norm(const struct weir_packed *packed, const struct weir_rms_norm *s,
                                     struct weir_error *error)
{
    enum weir_status status = WEIR_OK;

    WEIR_TRY(check_layer(WEIR_OP_RMS_NORM, packed, error));
    WEIR_TRY(check_dtype(WEIR_OP_RMS_NORM, s->dtype, error));
    if ((uint64_t)s->parts * s->channels != packed->out) {
        status = weir_fail(error, WEIR_BAD_SHAPE, "%s: the layer has %u channels, not %u parts of %u each",
                           SUBJECT(WEIR_OP_RMS_NORM, packed->name), packed->out, s->parts, s->channels);
        goto cleanup;
    }
    if (s->rest > WEIR_DIMENSION_MAX) {
        status = weir_fail(error, WEIR_BAD_SHAPE, "%s: a rest of %u channels; at most %u are possible",
                           SUBJECT(WEIR_OP_RMS_NORM, packed->name), s->rest, WEIR_DIMENSION_MAX);
        goto cleanup;
    }
    CHECK_COUNT(WEIR_OP_RMS_NORM, packed, "x", s->rows, s->tokens, weir_rms_norm_width(s));
    if (s->residual && (s->parts > 1 || s->rest > 0)) {
        status = weir_fail(error, WEIR_BAD_SHAPE, "%s: a residual goes with one part and no rest, not %u and %u",
                           SUBJECT(WEIR_OP_RMS_NORM, packed->name), s->parts, s->rest);
        goto cleanup;
    }
    WEIR_TRY(check_eps(WEIR_OP_RMS_NORM, packed, s->eps, error));
    if (s->activation != WEIR_ACT_NONE && s->activation != WEIR_ACT_RELU && s->activation != WEIR_ACT_SILU) {
        status = weir_fail(error, WEIR_BAD_SHAPE, "%s: activation %d; none, relu and silu are possible",
                           SUBJECT(WEIR_OP_RMS_NORM, packed->name), (int)s->activation);
    }

cleanup:
    return status;
}

enum weir_status weir_check_modulated_norm(const struct weir_packed *packed, const struct weir_modulated_norm *s,
                                           struct weir_error *error)
{
    enum weir_status status = WEIR_OK;

    WEIR_TRY(check_dtype(WEIR_OP_MODULATED_NORM, s->dtype, error));
    CHECK_COUNT(WEIR_OP_MODULATED_NORM, packed, "x", s->rows, s->tokens, s->channels);
    CHECK_COUNT(WEIR_OP_MODULATED_NORM, packed, "m", s->rows, s->vectors, s->channels);
    WEIR_TRY(check_vector(WEIR_OP_MODULATED_NORM, packed, "the shift", s->shift, s->vectors, error));
    WEIR_TRY(check_vector(WEIR_OP_MODULATED_NORM, packed, "the scale", s->scale, s->vectors, error));
    WEIR_TRY(check_eps(WEIR_OP_MODULATED_NORM, packed, s->eps, error));

cleanup:
    return status;
}

enum weir_status weir_check_table_add(const struct weir_packed *packed, const struct weir_table_add *s,
                                      struct weir_error *error)
{
    enum weir_status status = WEIR_OK;

    WEIR_TRY(check_layer(WEIR_OP_TABLE_ADD, packed, error));
    WEIR_TRY(check_dtype(WEIR_OP_TABLE_ADD, s->dtype, error));
    WEIR_TRY(check_equal(WEIR_OP_TABLE_ADD, packed, "the number of vectors", s->vectors, packed->out, error));
    WEIR_TRY(check_equal(WEIR_OP_TABLE_ADD, packed, "the number of channels", s->channels, packed->in, error));
    CHECK_COUNT(WEIR_OP_TABLE_ADD, packed, "y", s->rows, s->vectors, s->channels);
    if (s->given == 0 || s->vectors % s->given != 0) {
        status = weir_fail(error, WEIR_BAD_SHAPE, "%s: %u vectors, again and again, do not make %u",
                           SUBJECT(WEIR_OP_TABLE_ADD, packed->name), s->given, s->vectors);
    }

cleanup:
    return status;
}

/* The last token any sequence touches must be a token of its row. */
static bool layout_fits(const struct weir_sequence_layout *l, uint32_t sequences, uint32_t length)
{
    if (l->inner == 0) return false;
    const uint64_t outer = (sequences - 1) / l->inner;
    const uint64_t inner = sequences < l->inner ? sequences - 1 : l->inner - 1;
    const uint64_t parts[] = { outer * l->outer_step, inner * l->inner_step, (uint64_t)(length - 1) * l->token_step };
    uint64_t last = 0;
    for (size_t i = 0; i < WEIR_COUNT(parts); i++) {
        if (parts[i] >= l->row_tokens || last + parts[i] >= l->row_tokens) return false;
        last += parts[i];
    }
    return true;
}

enum weir_status weir_check_attention(const struct weir_packed *packed, const struct weir_attention *s,
                                      struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    const char *fault = NULL;
    (void)packed;

    WEIR_TRY(check_dtype(WEIR_OP_ATTENTION, s->dtype, error));
    CHECK_COUNT(WEIR_OP_ATTENTION, packed, "the queries", s->rows, s->sequences, s->query_length, s->heads,
                s->head_dim);
    CHECK_COUNT(WEIR_OP_ATTENTION, packed, "the keys", s->rows, s->sequences, s->key_length, s->heads, s->head_dim);
    CHECK_COUNT(WEIR_OP_ATTENTION, packed, "q", s->rows, s->query.row_tokens, s->q_stride);
    CHECK_COUNT(WEIR_OP_ATTENTION, packed, "k", s->rows, s->key.row_tokens, s->k_stride);
    CHECK_COUNT(WEIR_OP_ATTENTION, packed, "v", s->rows, s->key.row_tokens, s->v_stride);
    CHECK_COUNT(WEIR_OP_ATTENTION, packed, "y", s->rows, s->query.row_tokens, s->y_stride);
    const uint64_t width = (uint64_t)s->heads * s->head_dim, kv_width = (uint64_t)s->kv_heads * s->head_dim;
    if (s->kv_heads == 0 || s->heads % s->kv_heads != 0) {
        status = weir_fail(error, WEIR_BAD_SHAPE, "attention: %u heads cannot share %u heads of keys and values evenly",
                           s->heads, s->kv_heads);
        goto cleanup;
    }
    if (s->q_channel + width > s->q_stride || s->k_channel + kv_width > s->k_stride ||
        s->v_channel + kv_width > s->v_stride || width > s->y_stride) {
        fault = "the heads do not fit a token's channels";
    } else if (!layout_fits(&s->query, s->sequences, s->query_length)) {
        fault = "a query lies outside its row";
    } else if (!layout_fits(&s->key, s->sequences, s->key_length)) {
        fault = "a key lies outside its row";
    } else if (s->causal && s->query_length != s->key_length) {
        fault = "causal attention needs as many keys as queries";
    } else if (!isfinite(s->scale)) {
        fault = "the scale is not finite";
    } else if (!(s->softcap >= 0) || !isfinite(s->softcap)) {
        fault = "the softcap is neither 0 nor above it";
    }
    if (fault) {
        status = weir_fail(error, WEIR_BAD_SHAPE, "attention: %s (%u heads of %u, %u queries, %u keys, %u sequences)",
                           fault, s->heads, s->head_dim, s->query_length, s->key_length, s->sequences);
    }

cleanup:
    return status;
}

enum weir_status weir_check_linear_attention(const struct weir_packed *packed, const struct weir_linear_attention *s,
                                             struct weir_error *error)
{
    enum weir_status status = WEIR_OK;

    WEIR_TRY(check_dtype(WEIR_OP_LINEAR_ATTENTION, s->dtype, error));
    CHECK_COUNT(WEIR_OP_LINEAR_ATTENTION, packed, "x", s->rows, s->frames, s->pixels, s->stride);
    CHECK_COUNT(WEIR_OP_LINEAR_ATTENTION, packed, "y", s->rows, s->frames, s->pixels, s->heads, s->head_dim);
    const uint32_t channels[] = { s->q_channel, s->k_channel, s->v_channel };
    const uint64_t last_head = (uint64_t)(s->heads - 1) * s->head_step;
    for (size_t i = 0; i < WEIR_COUNT(channels); i++) {
        if (last_head + channels[i] + s->head_dim <= s->stride) continue;
        status = weir_fail(error, WEIR_BAD_SHAPE,
                           "linear_attention: %u heads of %u, one every %u channels from channel %u, do not fit a "
                           "token's %u channels",
                           s->heads, s->head_dim, s->head_step, channels[i], s->stride);
        goto cleanup;
    }
    WEIR_TRY(check_eps(WEIR_OP_LINEAR_ATTENTION, packed, s->eps, error));

cleanup:
    return status;
}

enum weir_status weir_check_rope(const struct weir_packed *packed, const struct weir_rope *s, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;

    WEIR_TRY(check_dtype(WEIR_OP_ROPE, s->dtype, error));
    CHECK_COUNT(WEIR_OP_ROPE, packed, "x", s->rows, s->tokens, s->channels);
    CHECK_COUNT(WEIR_OP_ROPE, packed, "the heads", s->rows, s->tokens, s->heads, s->head_dim);
    if ((uint64_t)s->heads * s->head_dim > s->channels || s->head_dim % 2 != 0) {
        status = weir_fail(error, WEIR_BAD_SHAPE,
                           "rope: %u heads of %u in %u channels; they must fit, and a head's size be even", s->heads,
                           s->head_dim, s->channels);
    } else if (!(s->theta > 0) || !isfinite(s->theta)) {
        status = weir_fail(error, WEIR_BAD_SHAPE, "rope: theta is %g; it must be above 0", (double)s->theta);
    }

cleanup:
    return status;
}

enum weir_status weir_check_embed(const struct weir_packed *packed, const struct weir_embed *s,
                                  struct weir_error *error)
{
    enum weir_status status = WEIR_OK;

    WEIR_TRY(check_layer(WEIR_OP_EMBED, packed, error));
    WEIR_TRY(check_dtype(WEIR_OP_EMBED, s->dtype, error));
    WEIR_TRY(check_equal(WEIR_OP_EMBED, packed, "the vocabulary", s->vocabulary, packed->out, error));
    WEIR_TRY(check_equal(WEIR_OP_EMBED, packed, "the number of channels", s->channels, packed->in, error));
    CHECK_COUNT(WEIR_OP_EMBED, packed, "y", s->rows, s->tokens, s->channels);
    if (packed->bias) {
        WEIR_TRY(check_equal(WEIR_OP_EMBED, packed, "the number of positions", s->positions, packed->kernel, error));
        if (s->tokens > s->positions) {
            status = weir_fail(error, WEIR_BAD_SHAPE, "%s: %u tokens, but the layer knows %u positions",
                               SUBJECT(WEIR_OP_EMBED, packed->name), s->tokens, s->positions);
        }
    }

cleanup:
    return status;
}

enum weir_status weir_check_timestep_embedding(const struct weir_packed *packed,
                                               const struct weir_timestep_embedding *s, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;

    WEIR_TRY(check_dtype(WEIR_OP_TIMESTEP_EMBEDDING, s->dtype, error));
    CHECK_COUNT(WEIR_OP_TIMESTEP_EMBEDDING, packed, "y", s->rows, s->dim);
    if (s->dim % 2 != 0 || !((float)(s->dim / 2) - s->downscale_freq_shift > 0)) {
        status = weir_fail(error, WEIR_BAD_SHAPE,
                           "timestep_embedding: dim %u must be even, and half of it above the shift %g", s->dim,
                           (double)s->downscale_freq_shift);
    }

cleanup:
    return status;
}

enum weir_status weir_check_activate(const struct weir_packed *packed, const struct weir_activate *s,
                                     struct weir_error *error)
{
    enum weir_status status = WEIR_OK;

    WEIR_TRY(check_dtype(WEIR_OP_ACTIVATE, s->dtype, error));
    CHECK_COUNT(WEIR_OP_ACTIVATE, packed, "x", s->rows, s->tokens, s->channels);
    if ((unsigned)s->activation > WEIR_ACT_GEGLU_TANH) {
        status = weir_fail(error, WEIR_BAD_SHAPE, "activate: activation %d is none of ops.h", (int)s->activation);
        goto cleanup;
    }
    if (weir_activation_is_gated(s->activation))
        CHECK_COUNT(WEIR_OP_ACTIVATE, packed, "x", s->rows, s->tokens, s->channels, 2);

cleanup:
    return status;
}

enum weir_status weir_check_concat(const struct weir_packed *packed, const struct weir_concat *s,
                                   struct weir_error *error)
{
    enum weir_status status = WEIR_OK;

    WEIR_TRY(check_dtype(WEIR_OP_CONCAT, s->dtype, error));
    CHECK_COUNT(WEIR_OP_CONCAT, packed, "a", s->rows, s->tokens, s->a_channels);
    CHECK_COUNT(WEIR_OP_CONCAT, packed, "b", s->rows, s->tokens, s->b_channels);
    CHECK_COUNT(WEIR_OP_CONCAT, packed, "y", s->rows, s->tokens, s->a_channels + s->b_channels);

cleanup:
    return status;
}

enum weir_status weir_check_regroup(const struct weir_packed *packed, const struct weir_regroup *s,
                                    struct weir_error *error)
{
    enum weir_status status = WEIR_OK;

    WEIR_TRY(check_dtype(WEIR_OP_REGROUP, s->dtype, error));
    CHECK_COUNT(WEIR_OP_REGROUP, packed, "x", s->rows, s->tokens, s->in);
    CHECK_COUNT(WEIR_OP_REGROUP, packed, "y", s->rows, s->tokens, s->out);
    if (s->in % s->out != 0 && s->out % s->in != 0) {
        status =
            weir_fail(error, WEIR_BAD_SHAPE, "regroup: of %u and %u channels neither divides the other", s->in, s->out);
    }

cleanup:
    return status;
}

enum weir_status weir_check_pixel_shuffle(const struct weir_packed *packed, const struct weir_pixel_shuffle *s,
                                          struct weir_error *error)
{
    enum weir_status status = WEIR_OK;

    WEIR_TRY(check_dtype(WEIR_OP_PIXEL_SHUFFLE, s->dtype, error));
    CHECK_COUNT(WEIR_OP_PIXEL_SHUFFLE, packed, "x", s->rows, s->frames, s->height, s->width, s->in);
    CHECK_COUNT(WEIR_OP_PIXEL_SHUFFLE, packed, "y", s->rows, s->frames, 2 * s->height, 2 * s->width, s->out);
    if (4 * (uint64_t)s->out % s->in != 0) {
        status = weir_fail(error, WEIR_BAD_SHAPE, "pixel_shuffle: %u channels do not divide 4 times %u", s->in, s->out);
    }

cleanup:
    return status;
}

enum weir_status weir_check_pixel_unshuffle(const struct weir_packed *packed, const struct weir_pixel_unshuffle *s,
                                            struct weir_error *error)
{
    enum weir_status status = WEIR_OK;

    WEIR_TRY(check_dtype(WEIR_OP_PIXEL_UNSHUFFLE, s->dtype, error));
    CHECK_COUNT(WEIR_OP_PIXEL_UNSHUFFLE, packed, "x", s->rows, s->frames, s->height, s->width, s->in);
    if (s->height % 2 != 0 || s->width % 2 != 0) {
        status = weir_fail(error, WEIR_BAD_SHAPE, "pixel_unshuffle: a picture of %ux%u; both must be even", s->height,
                           s->width);
        goto cleanup;
    }
    CHECK_COUNT(WEIR_OP_PIXEL_UNSHUFFLE, packed, "y", s->rows, s->frames, s->height / 2, s->width / 2, s->out);
    if (4 * (uint64_t)s->in % s->out != 0) {
        status =
            weir_fail(error, WEIR_BAD_SHAPE, "pixel_unshuffle: %u channels do not divide 4 times %u", s->out, s->in);
    }

cleanup:
    return status;
}

enum weir_status weir_check_latents_pack(const struct weir_packed *packed, const struct weir_latents_pack *s,
                                         struct weir_error *error)
{
    enum weir_status status = WEIR_OK;

    WEIR_TRY(check_dtype(WEIR_OP_LATENTS_PACK, s->dtype, error));
    CHECK_COUNT(WEIR_OP_LATENTS_PACK, packed, "y", s->items, s->copies, s->frames, s->pixels, s->channels);

cleanup:
    return status;
}

enum weir_status weir_check_guidance(const struct weir_packed *packed, const struct weir_guidance *s,
                                     struct weir_error *error)
{
    enum weir_status status = WEIR_OK;

    WEIR_TRY(check_dtype(WEIR_OP_GUIDANCE, s->dtype, error));
    CHECK_COUNT(WEIR_OP_GUIDANCE, packed, "x", s->items, s->copies, s->frames, s->pixels, s->channels);
    if (s->copies > 2) {
        status = weir_fail(error, WEIR_BAD_SHAPE, "guidance: %u copies of an item; 1 or 2 have a meaning", s->copies);
    }

cleanup:
    return status;
}

enum weir_status weir_check_sampler_step(const struct weir_packed *packed, const struct weir_sampler_step *s,
                                         struct weir_error *error)
{
    enum weir_status status = WEIR_OK;

    WEIR_TRY(check_dtype(WEIR_OP_SAMPLER_STEP, s->dtype, error));
    CHECK_COUNT(WEIR_OP_SAMPLER_STEP, packed, "x", s->items, s->n);

cleanup:
    return status;
}

enum weir_status weir_check_to_rgb8(const struct weir_packed *packed, const struct weir_to_rgb8 *s,
                                    struct weir_error *error)
{
    enum weir_status status = WEIR_OK;

    WEIR_TRY(check_dtype(WEIR_OP_TO_RGB8, s->dtype, error));
    CHECK_COUNT(WEIR_OP_TO_RGB8, packed, "x", s->rows, s->tokens, s->channels);
    if (s->channels < 3) {
        status = weir_fail(error, WEIR_BAD_SHAPE, "to_rgb8: %u channels; at least 3 are needed", s->channels);
    }

cleanup:
    return status;
}
