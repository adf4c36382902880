/* The ops' builders: each reads its operands' dims, checks what must agree, makes y and appends the op. What a shape
 * may be is the plan's to say; a builder asks earlier only where the dims of y depend on it. */
#include "kernels/program_internal.h"

/* The dims of a linear's y; false, and the sticky error, when the layer or an operand does not fit. */
static bool linear_dims(struct weir_program *p, const struct weir_packed *layer, struct weir_value x,
                        const struct weir_linear_call *call, struct weir_dims *y)
{
    if (!weir_program_check_layer(p, WEIR_OP_LINEAR, layer)) return false;
    if (!weir_program_check_operand(p, WEIR_OP_LINEAR, layer, "x", x, p->dtype, NULL)) return false;
    *y = weir_program_dims(p, x);
    y->channels = weir_activation_is_gated(call->activation) ? layer->out / 2 : layer->out;
    if (call->residual.index &&
        !weir_program_check_operand(p, WEIR_OP_LINEAR, layer, "residual", call->residual, p->dtype, y))
        return false;
    if (call->gate.index) {
        struct weir_dims gate = weir_program_dims(p, call->gate);
        gate.rows = y->rows;
        gate.channels = y->channels;
        if (!weir_program_check_operand(p, WEIR_OP_LINEAR, layer, "gate", call->gate, p->dtype, &gate)) return false;
    }
    return true;
}

static void add_linear(struct weir_program *p, const struct weir_packed *layer, struct weir_value x,
                       const struct weir_linear_call *call, struct weir_value y, bool may_lie_over)
{
    const struct weir_dims d = weir_program_dims(p, x), gate = weir_program_dims(p, call->gate);
    const bool residual = call->residual.index != 0;
    const struct weir_linear shape = { .rows = d.rows,
                                       .tokens = tokens_of(&d),
                                       .in = d.channels,
                                       .out = layer->out,
                                       .activation = call->activation,
                                       .residual = residual,
                                       .gate_vectors = call->gate.index ? tokens_of(&gate) : 0,
                                       .gate_vector = call->gate_vector,
                                       .dtype = p->dtype };
    weir_program_add_op(p, WEIR_OP_LINEAR, layer, &shape, OPERANDS(x, call->residual, call->gate, y), WEIR_LINEAR_Y,
                        residual && may_lie_over ? WEIR_LINEAR_RESIDUAL : APART);
}

static const struct weir_linear_call plain_linear = { 0 };

struct weir_value weir_program_linear(struct weir_program *p, const struct weir_packed *layer, struct weir_value x,
                                      const struct weir_linear_call *call)
{
    struct weir_dims dims;
    if (!call) call = &plain_linear;
    if (!linear_dims(p, layer, x, call, &dims)) return weir_program_none;
    const struct weir_value y = weir_program_add_value(p, "linear's y", p->dtype, &dims);
    add_linear(p, layer, x, call, y, true);
    return p->status == WEIR_OK ? y : weir_program_none;
}

void weir_program_linear_into(struct weir_program *p, const struct weir_packed *layer, struct weir_value x,
                              const struct weir_linear_call *call, struct weir_value y)
{
    struct weir_dims dims;
    if (!call) call = &plain_linear;
    if (!linear_dims(p, layer, x, call, &dims)) return;
    if (weir_program_check_operand(p, WEIR_OP_LINEAR, layer, "y", y, p->dtype, &dims))
        add_linear(p, layer, x, call, y, false);
}

void weir_program_low_rank(struct weir_program *p, struct weir_value x, const struct weir_low_rank_call *call,
                           struct weir_value y)
{
    if (!weir_program_check_operand(p, WEIR_OP_LOW_RANK, NULL, "x", x, p->dtype, NULL)) return;
    const struct weir_dims d = weir_program_dims(p, x), a = weir_program_dims(p, call->a);
    const struct weir_dims b = weir_program_dims(p, call->b), to = weir_program_dims(p, y);
    struct weir_dims gate = weir_program_dims(p, call->gate);
    if (!weir_program_check_operand(p, WEIR_OP_LOW_RANK, NULL, "a", call->a, WEIR_F32,
                                    &(struct weir_dims){ 1, 1, 1, d.channels, a.channels }) ||
        !weir_program_check_operand(p, WEIR_OP_LOW_RANK, NULL, "b", call->b, WEIR_F32,
                                    &(struct weir_dims){ 1, 1, 1, a.channels, b.channels }) ||
        !weir_program_check_operand(p, WEIR_OP_LOW_RANK, NULL, "y", y, p->dtype,
                                    &(struct weir_dims){ d.rows, 1, 1, tokens_of(&d), to.channels })) {
        return;
    }
    if (call->gate.index) {
        gate.rows = d.rows;
        gate.channels = to.channels;
        if (!weir_program_check_operand(p, WEIR_OP_LOW_RANK, NULL, "gate", call->gate, p->dtype, &gate)) return;
    }
    const struct weir_low_rank shape = { .rows = d.rows,
                                         .tokens = tokens_of(&d),
                                         .in = d.channels,
                                         .rank = a.channels,
                                         .out = b.channels,
                                         .y_channels = to.channels,
                                         .channel = call->channel,
                                         .gate_vectors = call->gate.index ? tokens_of(&gate) : 0,
                                         .gate_vector = call->gate_vector,
                                         .dtype = p->dtype };
    weir_program_add_op(p, WEIR_OP_LOW_RANK, NULL, &shape, OPERANDS(x, call->a, call->b, call->gate, y), APART, APART);
}

struct weir_value weir_program_grouped_linear(struct weir_program *p, const struct weir_packed *layer,
                                              struct weir_value x)
{
    if (!weir_program_check_layer(p, WEIR_OP_GROUPED_LINEAR, layer)) return weir_program_none;
    if (!weir_program_check_operand(p, WEIR_OP_GROUPED_LINEAR, layer, "x", x, p->dtype, NULL)) return weir_program_none;
    struct weir_dims d = weir_program_dims(p, x);
    const struct weir_grouped_linear shape = { .rows = d.rows,
                                               .tokens = tokens_of(&d),
                                               .in = d.channels,
                                               .out = layer->out,
                                               .groups = layer->kernel,
                                               .dtype = p->dtype };
    d.channels = layer->out;
    const struct weir_value y = weir_program_add_value(p, "grouped_linear's y", p->dtype, &d);
    weir_program_add_op(p, WEIR_OP_GROUPED_LINEAR, layer, &shape, OPERANDS(x, y), WEIR_GROUPED_LINEAR_Y, APART);
    return p->status == WEIR_OK ? y : weir_program_none;
}

struct weir_value weir_program_conv2d(struct weir_program *p, const struct weir_packed *layer, struct weir_value x,
                                      const struct weir_conv2d_call *call)
{
    if (!weir_program_check_layer(p, WEIR_OP_CONV2D, layer)) return weir_program_none;
    if (!weir_program_check_operand(p, WEIR_OP_CONV2D, layer, "x", x, p->dtype, NULL)) return weir_program_none;
    const struct weir_dims d = weir_program_dims(p, x);
    const struct weir_conv2d shape = { .rows = d.rows,
                                       .frames = d.frames,
                                       .height = d.height,
                                       .width = d.width,
                                       .in = d.channels,
                                       .out = layer->out,
                                       .kernel = layer->kernel,
                                       .stride = call->stride ? call->stride : 1,
                                       .pad = call->pad,
                                       .pad_end = call->pad_end,
                                       .resize_height = call->resize_height,
                                       .resize_width = call->resize_width,
                                       .residual = call->residual.index != 0,
                                       .row_bias = call->row_bias.index != 0,
                                       .silu = call->silu,
                                       .dtype = p->dtype };
    p->status = weir_check_conv2d(layer, &shape, &p->error); /* before the size of y is asked for */
    if (p->status != WEIR_OK) return weir_program_none;
    const struct weir_conv2d_size size = weir_conv2d_size_of(&shape);
    const struct weir_dims y_dims = { d.rows, d.frames, size.height, size.width, layer->out };
    const struct weir_dims row_dims = { d.rows, 1, 1, 1, layer->out };
    if (shape.residual &&
        !weir_program_check_operand(p, WEIR_OP_CONV2D, layer, "residual", call->residual, p->dtype, &y_dims)) {
        return weir_program_none;
    }
    if (shape.row_bias &&
        !weir_program_check_operand(p, WEIR_OP_CONV2D, layer, "row_bias", call->row_bias, p->dtype, &row_dims)) {
        return weir_program_none;
    }
    const struct weir_value y = weir_program_add_value(p, "conv2d's y", p->dtype, &y_dims);
    weir_program_add_op(p, WEIR_OP_CONV2D, layer, &shape, OPERANDS(x, call->row_bias, call->residual, y), WEIR_CONV2D_Y,
                        shape.residual ? WEIR_CONV2D_RESIDUAL : APART);
    return p->status == WEIR_OK ? y : weir_program_none;
}

struct weir_value weir_program_conv_temporal(struct weir_program *p, const struct weir_packed *layer,
                                             struct weir_value x, struct weir_value residual)
{
    if (!weir_program_check_layer(p, WEIR_OP_CONV_TEMPORAL, layer)) return weir_program_none;
    if (!weir_program_check_operand(p, WEIR_OP_CONV_TEMPORAL, layer, "x", x, p->dtype, NULL)) return weir_program_none;
    const struct weir_dims d = weir_program_dims(p, x);
    struct weir_dims y_dims = d;
    y_dims.channels = layer->out;
    const struct weir_conv_temporal shape = { .rows = d.rows,
                                              .frames = d.frames,
                                              .pixels = d.height * d.width,
                                              .in = d.channels,
                                              .out = layer->out,
                                              .residual = residual.index != 0,
                                              .dtype = p->dtype };
    if (shape.residual &&
        !weir_program_check_operand(p, WEIR_OP_CONV_TEMPORAL, layer, "residual", residual, p->dtype, &y_dims)) {
        return weir_program_none;
    }
    const struct weir_value y = weir_program_add_value(p, "conv_temporal's y", p->dtype, &y_dims);
    weir_program_add_op(p, WEIR_OP_CONV_TEMPORAL, layer, &shape, OPERANDS(x, residual, y), WEIR_CONV_TEMPORAL_Y,
                        shape.residual ? WEIR_CONV_TEMPORAL_RESIDUAL : APART);
    return p->status == WEIR_OK ? y : weir_program_none;
}

struct weir_value weir_program_depthwise_conv(struct weir_program *p, const struct weir_packed *layer,
                                              struct weir_value x, const struct weir_depthwise_conv_call *call)
{
    if (!weir_program_check_layer(p, WEIR_OP_DEPTHWISE_CONV, layer)) return weir_program_none;
    if (!weir_program_check_operand(p, WEIR_OP_DEPTHWISE_CONV, layer, "x", x, p->dtype, NULL)) return weir_program_none;
    struct weir_dims d = weir_program_dims(p, x);
    const struct weir_depthwise_conv shape = { .rows = d.rows,
                                               .frames = d.frames,
                                               .height = d.height,
                                               .width = d.width,
                                               .channels = d.channels,
                                               .kernel = layer->kernel,
                                               .activation = call->activation,
                                               .glu = call->glu,
                                               .dtype = p->dtype };
    p->status = weir_check_depthwise_conv(layer, &shape, &p->error); /* before the channels are halved */
    if (call->glu) d.channels /= 2;
    const struct weir_value y = weir_program_add_value(p, "depthwise_conv's y", p->dtype, &d);
    weir_program_add_op(p, WEIR_OP_DEPTHWISE_CONV, layer, &shape, OPERANDS(x, y), WEIR_DEPTHWISE_CONV_Y, APART);
    return p->status == WEIR_OK ? y : weir_program_none;
}

struct weir_value weir_program_group_norm(struct weir_program *p, const struct weir_packed *layer, struct weir_value x,
                                          uint32_t groups, float eps, bool silu, bool over_frames)
{
    if (!weir_program_check_layer(p, WEIR_OP_GROUP_NORM, layer)) return weir_program_none;
    if (!weir_program_check_operand(p, WEIR_OP_GROUP_NORM, layer, "x", x, p->dtype, NULL)) return weir_program_none;
    const struct weir_dims d = weir_program_dims(p, x);
    const struct weir_group_norm shape = { .rows = d.rows,
                                           .batch = over_frames ? 1 : d.frames,
                                           .pixels = d.height * d.width * (over_frames ? d.frames : 1),
                                           .channels = d.channels,
                                           .groups = groups,
                                           .eps = eps,
                                           .silu = silu,
                                           .dtype = p->dtype };
    const struct weir_value y = weir_program_add_value(p, "group_norm's y", p->dtype, &d);
    weir_program_add_op(p, WEIR_OP_GROUP_NORM, layer, &shape, OPERANDS(x, y), WEIR_GROUP_NORM_Y, WEIR_GROUP_NORM_X);
    return p->status == WEIR_OK ? y : weir_program_none;
}

struct weir_value weir_program_layer_norm(struct weir_program *p, const struct weir_packed *layer, struct weir_value x,
                                          float eps)
{
    if (!weir_program_check_layer(p, WEIR_OP_LAYER_NORM, layer)) return weir_program_none;
    if (!weir_program_check_operand(p, WEIR_OP_LAYER_NORM, layer, "x", x, p->dtype, NULL)) return weir_program_none;
    const struct weir_dims d = weir_program_dims(p, x);
    const struct weir_layer_norm shape = {
        .rows = d.rows, .tokens = tokens_of(&d), .channels = d.channels, .eps = eps, .dtype = p->dtype
    };
    const struct weir_value y = weir_program_add_value(p, "layer_norm's y", p->dtype, &d);
    weir_program_add_op(p, WEIR_OP_LAYER_NORM, layer, &shape, OPERANDS(x, y), WEIR_LAYER_NORM_Y, WEIR_LAYER_NORM_X);
    return p->status == WEIR_OK ? y : weir_program_none;
}

struct weir_value weir_program_rms_norm(struct weir_program *p, const struct weir_packed *layer, struct weir_value x,
                                        const struct weir_rms_norm_call *call)
{
    if (!weir_program_check_layer(p, WEIR_OP_RMS_NORM, layer)) return weir_program_none;
    struct weir_dims d = weir_program_dims(p, x);
    d.channels = layer->out + call->rest;
    if (!weir_program_check_operand(p, WEIR_OP_RMS_NORM, layer, "x", x, p->dtype, &d)) return weir_program_none;
    const uint32_t parts = call->parts ? call->parts : 1;
    const bool residual = call->residual.index != 0;
    if (residual && !weir_program_check_operand(p, WEIR_OP_RMS_NORM, layer, "residual", call->residual, p->dtype, &d)) {
        return weir_program_none;
    }
    const struct weir_rms_norm shape = { .rows = d.rows,
                                         .tokens = tokens_of(&d),
                                         .parts = parts,
                                         .channels = layer->out / parts,
                                         .rest = call->rest,
                                         .eps = call->eps,
                                         .activation = call->activation,
                                         .residual = residual,
                                         .dtype = p->dtype };
    const struct weir_value y = weir_program_add_value(p, "rms_norm's y", p->dtype, &d);
    weir_program_add_op(p, WEIR_OP_RMS_NORM, layer, &shape, OPERANDS(x, call->residual, y), WEIR_RMS_NORM_Y,
                        WEIR_RMS_NORM_X); /* x more often dies here than the residual */
    return p->status == WEIR_OK ? y : weir_program_none;
}

struct weir_value weir_program_modulated_norm(struct weir_program *p, struct weir_value x, struct weir_value m,
                                              uint32_t shift, uint32_t scale, float eps)
{
    if (!weir_program_check_operand(p, WEIR_OP_MODULATED_NORM, NULL, "x", x, p->dtype, NULL)) return weir_program_none;
    const struct weir_dims d = weir_program_dims(p, x);
    struct weir_dims m_dims = weir_program_dims(p, m);
    m_dims.rows = d.rows;
    m_dims.channels = d.channels;
    if (!weir_program_check_operand(p, WEIR_OP_MODULATED_NORM, NULL, "m", m, p->dtype, &m_dims)) {
        return weir_program_none;
    }
    const struct weir_modulated_norm shape = { .rows = d.rows,
                                               .tokens = tokens_of(&d),
                                               .channels = d.channels,
                                               .vectors = tokens_of(&m_dims),
                                               .shift = shift,
                                               .scale = scale,
                                               .eps = eps,
                                               .dtype = p->dtype };
    const struct weir_value y = weir_program_add_value(p, "modulated_norm's y", p->dtype, &d);
    weir_program_add_op(p, WEIR_OP_MODULATED_NORM, NULL, &shape, OPERANDS(x, m, y), WEIR_MODULATED_NORM_Y,
                        WEIR_MODULATED_NORM_X);
    return p->status == WEIR_OK ? y : weir_program_none;
}

struct weir_value weir_program_table_add(struct weir_program *p, const struct weir_packed *layer, struct weir_value x)
{
    if (!weir_program_check_layer(p, WEIR_OP_TABLE_ADD, layer)) return weir_program_none;
    if (!weir_program_check_operand(p, WEIR_OP_TABLE_ADD, layer, "x", x, p->dtype, NULL)) return weir_program_none;
    const struct weir_dims d = weir_program_dims(p, x);
    const uint32_t vectors = layer->out, channels = layer->in, tokens = tokens_of(&d);
    const bool alike = tokens == vectors && d.channels == channels;
    const uint32_t given = tokens == 1 ? d.channels / channels : tokens;
    if ((uint64_t)given * channels != (uint64_t)tokens * d.channels || given == 0 || vectors % given != 0) {
        FAIL(p, WEIR_BAD_SHAPE,
             "table_add %s: x has %u tokens of %u channels, the table %u vectors of %u: tokens or, in the channels of "
             "one token, vectors whose number divides the table's are possible",
             layer->name, tokens, d.channels, vectors, channels);
        return weir_program_none;
    }
    const struct weir_table_add shape = {
        .rows = d.rows, .vectors = vectors, .given = given, .channels = channels, .dtype = p->dtype
    };
    const struct weir_dims y_dims = { d.rows, 1, 1, vectors, channels };
    const struct weir_value y = weir_program_add_value(p, "table_add's y", p->dtype, alike ? &d : &y_dims);
    weir_program_add_op(p, WEIR_OP_TABLE_ADD, layer, &shape, OPERANDS(x, y), WEIR_TABLE_ADD_Y,
                        given == vectors ? WEIR_TABLE_ADD_X : APART);
    return p->status == WEIR_OK ? y : weir_program_none;
}

struct weir_value weir_program_attention(struct weir_program *p, const struct weir_attention_call *call)
{
    if (!weir_program_check_operand(p, WEIR_OP_ATTENTION, NULL, "q", call->q, p->dtype, NULL)) return weir_program_none;
    const struct weir_dims d = weir_program_dims(p, call->q), k = weir_program_dims(p, call->k),
                           v = weir_program_dims(p, call->v);
    struct weir_dims k_wanted = call->kind == WEIR_ATTENTION_TEMPORAL || call->kind == WEIR_ATTENTION_CAUSAL ? d : k;
    struct weir_dims y_dims = d;
    y_dims.channels = call->heads * call->head_dim;
    k_wanted.rows = d.rows;
    k_wanted.channels = k.channels;
    if (!weir_program_check_operand(p, WEIR_OP_ATTENTION, NULL, "k", call->k, p->dtype, &k_wanted))
        return weir_program_none;
    k_wanted.channels = v.channels;
    if (!weir_program_check_operand(p, WEIR_OP_ATTENTION, NULL, "v", call->v, p->dtype, &k_wanted))
        return weir_program_none;
    if (call->kind == WEIR_ATTENTION_SPATIAL && k.frames != d.frames) {
        FAIL(p, WEIR_BAD_SHAPE, "attention: queries of %u frames, keys of %u", d.frames, k.frames);
        return weir_program_none;
    }

    const struct weir_dims lengths_dims = { d.rows, 1, 1, 1, 1 };
    if (call->lengths.index &&
        !weir_program_check_operand(p, WEIR_OP_ATTENTION, NULL, "lengths", call->lengths, WEIR_I32, &lengths_dims)) {
        return weir_program_none;
    }

    const uint32_t pixels = d.height * d.width, key_pixels = k.height * k.width;
    struct weir_attention shape = { .rows = d.rows,
                                    .heads = call->heads,
                                    .head_dim = call->head_dim,
                                    .q_stride = d.channels,
                                    .q_channel = call->q_channel,
                                    .k_stride = k.channels,
                                    .k_channel = call->k_channel,
                                    .v_stride = v.channels,
                                    .v_channel = call->v_channel,
                                    .y_stride = y_dims.channels,
                                    .scale = call->scale,
                                    .causal = call->kind == WEIR_ATTENTION_CAUSAL,
                                    .kv_heads = call->kv_heads ? call->kv_heads : call->heads,
                                    .softcap = call->softcap,
                                    .lengths = call->lengths.index != 0,
                                    .dtype = p->dtype };
    shape.query.row_tokens = tokens_of(&d);
    shape.key.row_tokens = tokens_of(&k);
    shape.query.inner = shape.key.inner = 1;
    switch (call->kind) {
    case WEIR_ATTENTION_SPATIAL:
        shape.sequences = d.frames;
        shape.query_length = pixels;
        shape.key_length = key_pixels;
        shape.query.outer_step = pixels;
        shape.key.outer_step = key_pixels;
        shape.query.token_step = shape.key.token_step = 1;
        break;
    case WEIR_ATTENTION_TEMPORAL:
        shape.sequences = pixels;
        shape.query_length = shape.key_length = d.frames;
        shape.query.inner = pixels;
        shape.query.inner_step = 1;
        shape.query.token_step = pixels;
        shape.key = shape.query;
        break;
    case WEIR_ATTENTION_CROSS: /* all frames see the same keys: one long sequence, whose keys are read once */
    case WEIR_ATTENTION_CAUSAL:
        shape.sequences = 1;
        shape.query_length = shape.query.row_tokens;
        shape.key_length = shape.key.row_tokens;
        shape.query.token_step = shape.key.token_step = 1;
        break;
    }
    const struct weir_value y = weir_program_add_value(p, "attention's y", p->dtype, &y_dims);
    weir_program_add_op(p, WEIR_OP_ATTENTION, NULL, &shape, OPERANDS(call->q, call->k, call->v, call->lengths, y),
                        WEIR_ATTENTION_Y, APART);
    return p->status == WEIR_OK ? y : weir_program_none;
}

struct weir_value weir_program_linear_attention(struct weir_program *p, struct weir_value x,
                                                const struct weir_linear_attention_call *call)
{
    if (!weir_program_check_operand(p, WEIR_OP_LINEAR_ATTENTION, NULL, "x", x, p->dtype, NULL))
        return weir_program_none;
    struct weir_dims d = weir_program_dims(p, x);
    const struct weir_linear_attention shape = { .rows = d.rows,
                                                 .frames = d.frames,
                                                 .pixels = d.height * d.width,
                                                 .stride = d.channels,
                                                 .heads = call->heads,
                                                 .head_dim = call->head_dim,
                                                 .head_step = call->head_step,
                                                 .q_channel = call->q_channel,
                                                 .k_channel = call->k_channel,
                                                 .v_channel = call->v_channel,
                                                 .eps = call->eps,
                                                 .dtype = p->dtype };
    p->status = weir_check_linear_attention(NULL, &shape, &p->error); /* before the heads are multiplied */
    d.channels = call->heads * call->head_dim;
    const struct weir_value y = weir_program_add_value(p, "linear_attention's y", p->dtype, &d);
    weir_program_add_op(p, WEIR_OP_LINEAR_ATTENTION, NULL, &shape, OPERANDS(x, y), WEIR_LINEAR_ATTENTION_Y, APART);
    return p->status == WEIR_OK ? y : weir_program_none;
}

struct weir_value weir_program_rope(struct weir_program *p, struct weir_value x, uint32_t heads, uint32_t head_dim,
                                    float theta)
{
    if (!weir_program_check_operand(p, WEIR_OP_ROPE, NULL, "x", x, p->dtype, NULL)) return weir_program_none;
    const struct weir_dims d = weir_program_dims(p, x);
    const struct weir_rope shape = { .rows = d.rows,
                                     .tokens = tokens_of(&d),
                                     .channels = d.channels,
                                     .heads = heads,
                                     .head_dim = head_dim,
                                     .theta = theta,
                                     .dtype = p->dtype };
    const struct weir_value y = weir_program_add_value(p, "rope's y", p->dtype, &d);
    weir_program_add_op(p, WEIR_OP_ROPE, NULL, &shape, OPERANDS(x, y), WEIR_ROPE_Y, WEIR_ROPE_X);
    return p->status == WEIR_OK ? y : weir_program_none;
}

struct weir_value weir_program_embed(struct weir_program *p, const struct weir_packed *layer, struct weir_value ids)
{
    if (!weir_program_check_layer(p, WEIR_OP_EMBED, layer)) return weir_program_none;
    if (!weir_program_check_operand(p, WEIR_OP_EMBED, layer, "ids", ids, WEIR_I32, NULL)) return weir_program_none;
    struct weir_dims d = weir_program_dims(p, ids);
    if (d.channels != 1) {
        FAIL(p, WEIR_BAD_SHAPE, "embed %s: ids have %u channels, but must have 1", layer->name, d.channels);
        return weir_program_none;
    }
    const struct weir_embed shape = { .rows = d.rows,
                                      .tokens = tokens_of(&d),
                                      .channels = layer->in,
                                      .vocabulary = layer->out,
                                      .positions = layer->bias ? layer->kernel : 0,
                                      .dtype = p->dtype };
    d.channels = layer->in;
    const struct weir_value y = weir_program_add_value(p, "embed's y", p->dtype, &d);
    weir_program_add_op(p, WEIR_OP_EMBED, layer, &shape, OPERANDS(ids, y), WEIR_EMBED_Y, APART);
    return p->status == WEIR_OK ? y : weir_program_none;
}

struct weir_value weir_program_timestep_embedding(struct weir_program *p, struct weir_value t, uint32_t dim,
                                                  bool flip_sin_to_cos, float downscale_freq_shift)
{
    const uint32_t rows = weir_program_dims(p, t).rows;
    const struct weir_dims t_dims = { rows, 1, 1, 1, 1 }, y_dims = { rows, 1, 1, 1, dim };
    if (!weir_program_check_operand(p, WEIR_OP_TIMESTEP_EMBEDDING, NULL, "t", t, WEIR_F32, &t_dims))
        return weir_program_none;
    const struct weir_timestep_embedding shape = { .rows = rows,
                                                   .dim = dim,
                                                   .flip_sin_to_cos = flip_sin_to_cos,
                                                   .downscale_freq_shift = downscale_freq_shift,
                                                   .dtype = p->dtype };
    const struct weir_value y = weir_program_add_value(p, "timestep_embedding's y", p->dtype, &y_dims);
    weir_program_add_op(p, WEIR_OP_TIMESTEP_EMBEDDING, NULL, &shape, OPERANDS(t, y), WEIR_TIMESTEP_EMBEDDING_Y, APART);
    return p->status == WEIR_OK ? y : weir_program_none;
}

static void add_activate(struct weir_program *p, struct weir_value x, enum weir_activation activation,
                         struct weir_value y, bool may_lie_over)
{
    const struct weir_dims d = weir_program_dims(p, y);
    const struct weir_activate shape = {
        .rows = d.rows, .tokens = tokens_of(&d), .channels = d.channels, .activation = activation, .dtype = p->dtype
    };
    weir_program_add_op(p, WEIR_OP_ACTIVATE, NULL, &shape, OPERANDS(x, y), WEIR_ACTIVATE_Y,
                        may_lie_over ? WEIR_ACTIVATE_X : APART);
}

/* The dims of activate's y; false, and the sticky error, when x does not fit. */
static bool activate_dims(struct weir_program *p, struct weir_value x, enum weir_activation activation,
                          struct weir_dims *y)
{
    if (!weir_program_check_operand(p, WEIR_OP_ACTIVATE, NULL, "x", x, p->dtype, NULL)) return false;
    *y = weir_program_dims(p, x);
    if (!weir_activation_is_gated(activation)) return true;
    if (y->channels % 2 != 0) {
        FAIL(p, WEIR_BAD_SHAPE, "activate: x has %u channels; a GEGLU needs two halves", y->channels);
        return false;
    }
    y->channels /= 2;
    return true;
}

struct weir_value weir_program_activate(struct weir_program *p, struct weir_value x, enum weir_activation activation)
{
    struct weir_dims dims;
    if (!activate_dims(p, x, activation, &dims)) return weir_program_none;
    const struct weir_value y = weir_program_add_value(p, "activate's y", p->dtype, &dims);
    add_activate(p, x, activation, y, !weir_activation_is_gated(activation));
    return p->status == WEIR_OK ? y : weir_program_none;
}

void weir_program_activate_into(struct weir_program *p, struct weir_value x, enum weir_activation activation,
                                struct weir_value y)
{
    struct weir_dims dims;
    if (activate_dims(p, x, activation, &dims) &&
        weir_program_check_operand(p, WEIR_OP_ACTIVATE, NULL, "y", y, p->dtype, &dims)) {
        add_activate(p, x, activation, y, false);
    }
}

struct weir_value weir_program_concat(struct weir_program *p, struct weir_value a, struct weir_value b)
{
    if (!weir_program_check_operand(p, WEIR_OP_CONCAT, NULL, "a", a, p->dtype, NULL)) return weir_program_none;
    struct weir_dims d = weir_program_dims(p, a), b_dims = d;
    b_dims.channels = weir_program_dims(p, b).channels;
    if (!weir_program_check_operand(p, WEIR_OP_CONCAT, NULL, "b", b, p->dtype, &b_dims)) return weir_program_none;
    const struct weir_concat shape = { .rows = d.rows,
                                       .tokens = tokens_of(&d),
                                       .a_channels = d.channels,
                                       .b_channels = b_dims.channels,
                                       .dtype = p->dtype };
    d.channels += b_dims.channels;
    const struct weir_value y = weir_program_add_value(p, "concat's y", p->dtype, &d);
    weir_program_add_op(p, WEIR_OP_CONCAT, NULL, &shape, OPERANDS(a, b, y), WEIR_CONCAT_Y, APART);
    return p->status == WEIR_OK ? y : weir_program_none;
}

struct weir_value weir_program_regroup(struct weir_program *p, struct weir_value x, uint32_t channels)
{
    if (!weir_program_check_operand(p, WEIR_OP_REGROUP, NULL, "x", x, p->dtype, NULL)) return weir_program_none;
    struct weir_dims d = weir_program_dims(p, x);
    const struct weir_regroup shape = {
        .rows = d.rows, .tokens = tokens_of(&d), .in = d.channels, .out = channels, .dtype = p->dtype
    };
    d.channels = channels;
    const struct weir_value y = weir_program_add_value(p, "regroup's y", p->dtype, &d);
    weir_program_add_op(p, WEIR_OP_REGROUP, NULL, &shape, OPERANDS(x, y), WEIR_REGROUP_Y, APART);
    return p->status == WEIR_OK ? y : weir_program_none;
}

struct weir_value weir_program_pixel_shuffle(struct weir_program *p, struct weir_value x, uint32_t channels,
                                             struct weir_value residual)
{
    if (!weir_program_check_operand(p, WEIR_OP_PIXEL_SHUFFLE, NULL, "x", x, p->dtype, NULL)) return weir_program_none;
    const struct weir_dims d = weir_program_dims(p, x);
    const struct weir_pixel_shuffle shape = { .rows = d.rows,
                                              .frames = d.frames,
                                              .height = d.height,
                                              .width = d.width,
                                              .in = d.channels,
                                              .out = channels,
                                              .residual = residual.index != 0,
                                              .dtype = p->dtype };
    p->status = weir_check_pixel_shuffle(NULL, &shape, &p->error); /* before the size of y is asked for */
    const struct weir_dims y_dims = { d.rows, d.frames, 2 * d.height, 2 * d.width, channels };
    if (shape.residual &&
        !weir_program_check_operand(p, WEIR_OP_PIXEL_SHUFFLE, NULL, "residual", residual, p->dtype, &y_dims)) {
        return weir_program_none;
    }
    const struct weir_value y = weir_program_add_value(p, "pixel_shuffle's y", p->dtype, &y_dims);
    weir_program_add_op(p, WEIR_OP_PIXEL_SHUFFLE, NULL, &shape, OPERANDS(x, residual, y), WEIR_PIXEL_SHUFFLE_Y,
                        shape.residual ? WEIR_PIXEL_SHUFFLE_RESIDUAL : APART);
    return p->status == WEIR_OK ? y : weir_program_none;
}

struct weir_value weir_program_pixel_unshuffle(struct weir_program *p, struct weir_value x, uint32_t channels,
                                               struct weir_value residual)
{
    if (!weir_program_check_operand(p, WEIR_OP_PIXEL_UNSHUFFLE, NULL, "x", x, p->dtype, NULL)) return weir_program_none;
    const struct weir_dims d = weir_program_dims(p, x);
    const struct weir_pixel_unshuffle shape = { .rows = d.rows,
                                                .frames = d.frames,
                                                .height = d.height,
                                                .width = d.width,
                                                .in = d.channels,
                                                .out = channels,
                                                .residual = residual.index != 0,
                                                .dtype = p->dtype };
    p->status = weir_check_pixel_unshuffle(NULL, &shape, &p->error); /* before the size of y is asked for */
    const struct weir_dims y_dims = { d.rows, d.frames, d.height / 2, d.width / 2, channels };
    if (shape.residual &&
        !weir_program_check_operand(p, WEIR_OP_PIXEL_UNSHUFFLE, NULL, "residual", residual, p->dtype, &y_dims)) {
        return weir_program_none;
    }
    const struct weir_value y = weir_program_add_value(p, "pixel_unshuffle's y", p->dtype, &y_dims);
    weir_program_add_op(p, WEIR_OP_PIXEL_UNSHUFFLE, NULL, &shape, OPERANDS(x, residual, y), WEIR_PIXEL_UNSHUFFLE_Y,
                        shape.residual ? WEIR_PIXEL_UNSHUFFLE_RESIDUAL : APART);
    return p->status == WEIR_OK ? y : weir_program_none;
}

struct weir_value weir_program_latents_pack(struct weir_program *p, struct weir_value x, uint32_t copies, float factor,
                                            const struct weir_dims *packed_dims)
{
    return weir_program_latents_pack_scaled(p, x, weir_program_none, copies, factor, packed_dims);
}

struct weir_value weir_program_latents_pack_scaled(struct weir_program *p, struct weir_value x, struct weir_value k,
                                                   uint32_t copies, float factor, const struct weir_dims *packed_dims)
{
    if (!weir_program_check_operand(p, WEIR_OP_LATENTS_PACK, NULL, "x", x, WEIR_F32, NULL)) return weir_program_none;
    const struct weir_dims d = weir_program_dims(p, x), y = *packed_dims;
    if (!weir_program_check_dims(p, "latents_pack's y", &y)) return weir_program_none;
    if (copies == 0 || (uint64_t)d.rows * copies != y.rows || d.frames != y.channels || d.height != y.frames ||
        (uint64_t)d.width * d.channels != (uint64_t)y.height * y.width) {
        FAIL(p, WEIR_BAD_SHAPE, "latents_pack: x is [%u, %u, %u, %u] and %u copies, y is [%u, %u, %u, %u, %u]", d.rows,
             d.frames, d.height, d.width, copies, y.rows, y.frames, y.height, y.width, y.channels);
        return weir_program_none;
    }
    const struct weir_dims k_dims = { d.rows, 1, 1, 1, WEIR_SAMPLER_COEFFICIENTS };
    if (k.index != 0 && !weir_program_check_operand(p, WEIR_OP_LATENTS_PACK, NULL, "k", k, WEIR_F32, &k_dims))
        return weir_program_none;
    const struct weir_latents_pack shape = { .items = d.rows,
                                             .copies = copies,
                                             .frames = y.frames,
                                             .pixels = y.height * y.width,
                                             .channels = y.channels,
                                             .factor = factor,
                                             .scaled = k.index != 0,
                                             .dtype = p->dtype };
    const struct weir_value packed = weir_program_add_value(p, "latents_pack's y", p->dtype, &y);
    weir_program_add_op(p, WEIR_OP_LATENTS_PACK, NULL, &shape, OPERANDS(x, k, packed), WEIR_LATENTS_PACK_Y, APART);
    return p->status == WEIR_OK ? packed : weir_program_none;
}

struct weir_value weir_program_guidance(struct weir_program *p, struct weir_value x, struct weir_value scale,
                                        uint32_t copies)
{
    if (!weir_program_check_operand(p, WEIR_OP_GUIDANCE, NULL, "x", x, p->dtype, NULL)) return weir_program_none;
    const struct weir_dims d = weir_program_dims(p, x);
    if (copies == 0 || d.rows % copies != 0) {
        FAIL(p, WEIR_BAD_SHAPE, "guidance: %u rows do not divide into %u copies of each item", d.rows, copies);
        return weir_program_none;
    }
    const uint32_t items = d.rows / copies;
    const struct weir_dims scale_dims = { items, 1, 1, 1, 1 };
    const struct weir_dims y_dims = { items, d.channels, d.frames, d.height * d.width, 1 };
    if ((copies > 1 || scale.index != 0) &&
        !weir_program_check_operand(p, WEIR_OP_GUIDANCE, NULL, "scale", scale, WEIR_F32, &scale_dims)) {
        return weir_program_none;
    }
    const struct weir_guidance shape = { .items = items,
                                         .copies = copies,
                                         .frames = d.frames,
                                         .pixels = d.height * d.width,
                                         .channels = d.channels,
                                         .dtype = p->dtype };
    const struct weir_value y = weir_program_add_value(p, "guidance's y", WEIR_F32, &y_dims);
    weir_program_add_op(p, WEIR_OP_GUIDANCE, NULL, &shape, OPERANDS(x, scale, y), WEIR_GUIDANCE_Y, APART);
    return p->status == WEIR_OK ? y : weir_program_none;
}

enum weir_dtype weir_program_dtype(const struct weir_program *p)
{
    return p->dtype;
}

/* The order that latents_pack and guidance change is that of channels, of which these have one. */
struct weir_value weir_program_narrow(struct weir_program *p, struct weir_value value)
{
    const struct weir_dims d = weir_program_dims(p, value);
    if (p->status != WEIR_OK || p->dtype == WEIR_F32) return value;
    const struct weir_dims flat = { d.rows, 1, 1, tokens_of(&d) * d.channels, 1 };
    return weir_program_view(p, weir_program_latents_pack(p, weir_program_view(p, value, &flat), 1, 1, &flat), &d);
}

struct weir_value weir_program_widen(struct weir_program *p, struct weir_value value)
{
    const struct weir_dims d = weir_program_dims(p, value);
    if (p->status != WEIR_OK || p->dtype == WEIR_F32) return value;
    const struct weir_dims flat = { d.rows, 1, 1, tokens_of(&d) * d.channels, 1 };
    return weir_program_view(p, weir_program_guidance(p, weir_program_view(p, value, &flat), weir_program_none, 1), &d);
}

void weir_program_sampler_step(struct weir_program *p, struct weir_value x, struct weir_value m,
                               struct weir_value previous, struct weir_value k)
{
    if (!weir_program_check_operand(p, WEIR_OP_SAMPLER_STEP, NULL, "x", x, WEIR_F32, NULL)) return;
    const struct weir_dims d = weir_program_dims(p, x), k_dims = { d.rows, 1, 1, 1, WEIR_SAMPLER_COEFFICIENTS };
    const struct weir_value alike[] = { m, previous };
    for (size_t i = 0; i < WEIR_COUNT(alike); i++) {
        const struct weir_dims other = weir_program_dims(p, alike[i]);
        if (other.rows != d.rows || row_elements(&other) != row_elements(&d) || row_elements(&d) > WEIR_DIMENSION_MAX) {
            FAIL(p, WEIR_BAD_SHAPE,
                 "sampler_step: x has %u items of %llu numbers, the model's output or the last "
                 "prediction %u of %llu; at most 2^30",
                 d.rows, (unsigned long long)row_elements(&d), other.rows, (unsigned long long)row_elements(&other));
            return;
        }
        if (!weir_program_check_operand(p, WEIR_OP_SAMPLER_STEP, NULL, "m or previous", alike[i], WEIR_F32, NULL))
            return;
    }
    if (!weir_program_check_operand(p, WEIR_OP_SAMPLER_STEP, NULL, "k", k, WEIR_F32, &k_dims)) return;
    const struct weir_sampler_step shape = { .items = d.rows, .n = (uint32_t)row_elements(&d) };
    weir_program_add_op(p, WEIR_OP_SAMPLER_STEP, NULL, &shape, OPERANDS(x, m, previous, k), APART, APART);
}

struct weir_value weir_program_to_rgb8(struct weir_program *p, struct weir_value x, bool round)
{
    if (!weir_program_check_operand(p, WEIR_OP_TO_RGB8, NULL, "x", x, p->dtype, NULL)) return weir_program_none;
    struct weir_dims d = weir_program_dims(p, x);
    const struct weir_to_rgb8 shape = {
        .rows = d.rows, .tokens = tokens_of(&d), .channels = d.channels, .round = round, .dtype = p->dtype
    };
    d.channels = 3;
    const struct weir_value y = weir_program_add_value(p, "to_rgb8's y", WEIR_U8, &d);
    weir_program_add_op(p, WEIR_OP_TO_RGB8, NULL, &shape, OPERANDS(x, y), WEIR_TO_RGB8_Y, APART);
    return p->status == WEIR_OK ? y : weir_program_none;
}
