#include "worker/samplers/ddim.h"
#include "worker/samplers/dpm_solver.h"
#include "worker/samplers/flow_euler.h"
#include "worker/samplers/scm.h"

#include "worker/config.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BETA_MAX 0.999 /* of squaredcos_cap_v2 */
#define SHIFT_MIN 1e-3
#define SHIFT_MAX 1e3

typedef enum weir_status plan_function(struct weir_sampler *sampler, const struct weir_schedule *schedule,
                                       uint32_t steps, struct weir_error *error);

typedef enum weir_status read_function(const struct weir_config *config, bool overridden,
                                       struct weir_sampler_config *out, struct weir_error *error);
static read_function read_ddim, read_dpm_solver, read_flow_euler, read_scm;

#define PREDICTS(prediction) (1u << WEIR_PREDICT_##prediction)
#define PREDICTS_BETAS (PREDICTS(EPSILON) | PREDICTS(V) | PREDICTS(SAMPLE))

static const struct kind {
    const char *name, *class_name;
    read_function *read;
    plan_function *plan;
    unsigned predictions; /* bits; the words beside are what an error says */
    const char *predictions_words;
    bool has_betas; /* a schedule of training steps */
} kinds[WEIR_SAMPLER_KIND_COUNT] = {
    [WEIR_SAMPLER_DDIM] = { "ddim", "DDIMScheduler", read_ddim, weir_ddim_plan, PREDICTS_BETAS,
                            "epsilon, v_prediction or sample", true },
    [WEIR_SAMPLER_DPM_SOLVER] = { "dpm++", "DPMSolverMultistepScheduler", read_dpm_solver, weir_dpm_solver_plan,
                                  PREDICTS_BETAS, "epsilon, v_prediction or sample", true },
    [WEIR_SAMPLER_FLOW_DPM_SOLVER] = { "flow-dpm++", "DPMSolverMultistepScheduler", read_dpm_solver,
                                       weir_dpm_solver_plan, PREDICTS_BETAS | PREDICTS(FLOW),
                                       "flow_prediction, epsilon, v_prediction or sample", true },
    [WEIR_SAMPLER_FLOW_EULER] = { "flow-euler", "FlowMatchEulerDiscreteScheduler", read_flow_euler,
                                  weir_flow_euler_plan, PREDICTS(FLOW), "flow_prediction", false },
    [WEIR_SAMPLER_SCM] = { "scm", "SCMScheduler", read_scm, weir_scm_plan, PREDICTS(TRIGFLOW), "trigflow", false },
};

static const char *const beta_schedules[] = { "linear", "scaled_linear", "squaredcos_cap_v2", NULL };
static const char *const spacings[] = { "leading", "linspace", "trailing", NULL };
static const char *const predictions[WEIR_PREDICTION_COUNT] = {
    [WEIR_PREDICT_EPSILON] = "epsilon",      [WEIR_PREDICT_V] = "v_prediction",    [WEIR_PREDICT_SAMPLE] = "sample",
    [WEIR_PREDICT_FLOW] = "flow_prediction", [WEIR_PREDICT_TRIGFLOW] = "trigflow",
};

bool weir_sampler_kind_parse(const char *name, enum weir_sampler_kind *out)
{
    for (size_t i = 0; i < WEIR_COUNT(kinds); i++) {
        if (strcmp(name, kinds[i].name) == 0) {
            *out = (enum weir_sampler_kind)i;
            return true;
        }
    }
    return false;
}

const char *weir_sampler_kind_name(enum weir_sampler_kind kind)
{
    assert(kind < WEIR_SAMPLER_KIND_COUNT);
    return kinds[kind].name;
}

bool weir_sampler_predicts(enum weir_sampler_kind kind, enum weir_prediction prediction)
{
    assert(kind < WEIR_SAMPLER_KIND_COUNT && prediction < WEIR_PREDICTION_COUNT);
    return kinds[kind].predictions >> prediction & 1;
}

static enum weir_prediction prediction_default(enum weir_sampler_kind kind)
{
    switch (kind) {
    case WEIR_SAMPLER_FLOW_DPM_SOLVER:
    case WEIR_SAMPLER_FLOW_EULER:
        return WEIR_PREDICT_FLOW;
    case WEIR_SAMPLER_SCM:
        return WEIR_PREDICT_TRIGFLOW;
    default:
        return WEIR_PREDICT_EPSILON;
    }
}

void weir_sampler_config_default(enum weir_sampler_kind kind, struct weir_sampler_config *out)
{
    *out = (struct weir_sampler_config){
        .kind = kind,
        .num_train_timesteps = 1000,
        .beta_start = 0.0001,
        .beta_end = 0.02,
        .beta_schedule = WEIR_BETA_LINEAR,
        .prediction_type = prediction_default(kind),
        .timestep_spacing = kind == WEIR_SAMPLER_DDIM ? WEIR_SPACING_LEADING : WEIR_SPACING_LINSPACE,
        .clip_sample = true,
        .clip_sample_range = 1.0,
        .set_alpha_to_one = true,
        .solver_order = 2,
        .lower_order_final = true,
        .lambda_min_clipped = -INFINITY,
        .flow_shift = 1.0,
    };
}

/* ---- reading a config ---- */

static bool kind_is(const char *class_name, bool flow, enum weir_sampler_kind kind)
{
    return strcmp(class_name, kinds[kind].class_name) == 0 &&
           (flow ? kind != WEIR_SAMPLER_DPM_SOLVER : kind != WEIR_SAMPLER_FLOW_DPM_SOLVER);
}

enum weir_status weir_sampler_kind_find(const struct weir_config *config, const char *class_name,
                                        enum weir_sampler_kind *out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    char words[200] = "";
    bool flow = false;
    if (!class_name) WEIR_TRY(weir_config_text(config, "_class_name", NULL, &class_name, error));
    if (strcmp(class_name, kinds[WEIR_SAMPLER_FLOW_DPM_SOLVER].class_name) == 0)
        WEIR_TRY(weir_config_bool(config, "use_flow_sigmas", false, &flow, error));
    for (size_t i = 0; i < WEIR_COUNT(kinds); i++) {
        if (kind_is(class_name, flow, (enum weir_sampler_kind)i)) {
            *out = (enum weir_sampler_kind)i;
            return WEIR_OK;
        }
        const size_t used = strlen(words);
        snprintf(words + used, sizeof words - used, "%s%s", i == 0 ? "" : ", ", kinds[i].name);
    }
    return weir_fail(error, WEIR_UNSUPPORTED, "%s: scheduler %.64s is not offered; --sampler can name one that is: %s",
                     weir_config_label(config), class_name, words);
cleanup:
    return status;
}

/* A flag that must not be set. */
static enum weir_status flag_refuse(const struct weir_config *config, const char *key, struct weir_error *error)
{
    bool set;
    const enum weir_status status = weir_config_bool(config, key, false, &set, error);
    if (status != WEIR_OK || !set) return status;
    return weir_config_refuse(config, key, "false", error);
}

/* A word that must be one of `offered`; other words get UNSUPPORTED, since they are right elsewhere. */
static enum weir_status word_read(const struct weir_config *config, const char *key, const char *word_default,
                                  const char *const *offered, const char *wanted, size_t *out, struct weir_error *error)
{
    const char *word;
    const enum weir_status status = weir_config_text(config, key, word_default, &word, error);
    if (status != WEIR_OK) return status;
    for (size_t i = 0; offered[i]; i++) {
        if (strcmp(word, offered[i]) == 0) {
            *out = i;
            return WEIR_OK;
        }
    }
    return weir_config_refuse(config, key, wanted, error);
}

static enum weir_status read_prediction(const struct weir_config *config, struct weir_sampler_config *out,
                                        struct weir_error *error)
{
    const struct kind *kind = &kinds[out->kind];
    const char *word;
    const enum weir_status status =
        weir_config_text(config, "prediction_type", predictions[out->prediction_type], &word, error);
    if (status != WEIR_OK) return status;
    for (int i = 0; i < WEIR_PREDICTION_COUNT; i++) {
        if (strcmp(word, predictions[i]) != 0 || !weir_sampler_predicts(out->kind, (enum weir_prediction)i)) continue;
        out->prediction_type = (enum weir_prediction)i;
        return WEIR_OK;
    }
    return weir_config_refuse(config, "prediction_type", kind->predictions_words, error);
}

/* What the kinds with a schedule of betas share. */
static enum weir_status read_betas(const struct weir_config *config, struct weir_sampler_config *out,
                                   struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    size_t word;
    WEIR_TRY(weir_config_real(config, "beta_start", out->beta_start, 0, 1, &out->beta_start, error));
    WEIR_TRY(weir_config_real(config, "beta_end", out->beta_end, 0, 1, &out->beta_end, error));
    if (weir_config_has(config, "trained_betas"))
        return weir_config_refuse(config, "trained_betas", "null (a beta_schedule)", error);
    WEIR_TRY(word_read(config, "beta_schedule", beta_schedules[out->beta_schedule], beta_schedules,
                       "linear, scaled_linear or squaredcos_cap_v2", &word, error));
    out->beta_schedule = (enum weir_beta_schedule)word;
    WEIR_TRY(word_read(config, "timestep_spacing", spacings[out->timestep_spacing], spacings,
                       "leading, linspace or trailing", &word, error));
    out->timestep_spacing = (enum weir_spacing)word;
    WEIR_TRY(weir_config_int(config, "steps_offset", out->steps_offset, 0, WEIR_SAMPLER_TRAIN_TIMESTEPS_MAX,
                             &out->steps_offset, error));
    WEIR_TRY(weir_config_bool(config, "rescale_betas_zero_snr", out->rescale_betas_zero_snr,
                              &out->rescale_betas_zero_snr, error));
    WEIR_TRY(flag_refuse(config, "thresholding", error));
cleanup:
    return status;
}

static enum weir_status read_ddim(const struct weir_config *config, bool overridden, struct weir_sampler_config *out,
                                  struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    (void)overridden;
    WEIR_TRY(read_betas(config, out, error));
    WEIR_TRY(weir_config_bool(config, "clip_sample", out->clip_sample, &out->clip_sample, error));
    WEIR_TRY(
        weir_config_real(config, "clip_sample_range", out->clip_sample_range, 0, 1e6, &out->clip_sample_range, error));
    WEIR_TRY(weir_config_bool(config, "set_alpha_to_one", out->set_alpha_to_one, &out->set_alpha_to_one, error));
cleanup:
    return status;
}

/* `other` is the key of the other class over flow: what a file that is not of the asked kind may call it. */
static enum weir_status read_shift(const struct weir_config *config, const char *key, const char *other,
                                   bool overridden, struct weir_sampler_config *out, struct weir_error *error)
{
    const bool by_other = overridden && !weir_config_has(config, key);
    return weir_config_real(config, by_other ? other : key, out->flow_shift, SHIFT_MIN, SHIFT_MAX, &out->flow_shift,
                            error);
}

/* The levels of the solver's two kinds. */
static enum weir_status read_levels(const struct weir_config *config, bool overridden, struct weir_sampler_config *out,
                                    struct weir_error *error)
{
    static const char *const karras_ends[] = { "sigma_min", "sigma_max" };
    enum weir_status status = WEIR_OK;
    if (out->kind == WEIR_SAMPLER_FLOW_DPM_SOLVER) {
        WEIR_TRY(flag_refuse(config, "use_karras_sigmas", error));
        WEIR_TRY(read_shift(config, "flow_shift", "shift", overridden, out, error));
    } else {
        bool flow;
        WEIR_TRY(weir_config_bool(config, "use_flow_sigmas", false, &flow, error));
        if (flow) return weir_config_refuse(config, "use_flow_sigmas", "false (or --sampler flow-dpm++)", error);
        WEIR_TRY(weir_config_bool(config, "use_karras_sigmas", out->use_karras_sigmas, &out->use_karras_sigmas, error));
    }
    for (size_t i = 0; i < WEIR_COUNT(karras_ends) && out->use_karras_sigmas; i++) {
        if (weir_config_has(config, karras_ends[i]))
            return weir_config_refuse(config, karras_ends[i], "null (the ends of the training schedule)", error);
    }
    WEIR_TRY(weir_config_real(config, "lambda_min_clipped", out->lambda_min_clipped, -INFINITY, 100,
                              &out->lambda_min_clipped, error));
cleanup:
    return status;
}

static enum weir_status read_dpm_solver(const struct weir_config *config, bool overridden,
                                        struct weir_sampler_config *out, struct weir_error *error)
{
    /* diffusers reads deis and the words of other solvers as these, too */
    static const char *const algorithms[] = { "dpmsolver++", "deis", NULL };
    static const char *const solvers[] = { "midpoint", "heun", "logrho", "bh1", "bh2", NULL };
    static const char *const finals[] = { "zero", "sigma_min", NULL };
    static const char *const never[] = { "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas",
                                         "use_dynamic_shifting" };
    enum weir_status status = WEIR_OK;
    size_t word;

    WEIR_TRY(read_betas(config, out, error));
    WEIR_TRY(word_read(config, "algorithm_type", "dpmsolver++", algorithms, "dpmsolver++", &word, error));
    WEIR_TRY(word_read(config, "solver_type", "midpoint", solvers, "midpoint or heun", &word, error));
    out->solver_heun = word == 1;
    WEIR_TRY(word_read(config, "final_sigmas_type", "zero", finals, "zero or sigma_min", &word, error));
    out->final_sigma_min = word == 1;
    for (size_t i = 0; i < WEIR_COUNT(never); i++) WEIR_TRY(flag_refuse(config, never[i], error));
    if (weir_config_has(config, "variance_type"))
        return weir_config_refuse(config, "variance_type", "null (a variance learned by the network is not read)",
                                  error);
    WEIR_TRY(weir_config_int(config, "solver_order", out->solver_order, 1, 3, &out->solver_order, error));
    if (out->solver_order > 2) return weir_config_refuse(config, "solver_order", "1 or 2", error);
    WEIR_TRY(weir_config_bool(config, "lower_order_final", out->lower_order_final, &out->lower_order_final, error));
    WEIR_TRY(weir_config_bool(config, "euler_at_final", out->euler_at_final, &out->euler_at_final, error));
    WEIR_TRY(read_levels(config, overridden, out, error));
cleanup:
    return status;
}

static enum weir_status read_flow_euler(const struct weir_config *config, bool overridden,
                                        struct weir_sampler_config *out, struct weir_error *error)
{
    static const char *const never[] = { "use_dynamic_shifting", "stochastic_sampling",    "invert_sigmas",
                                         "use_karras_sigmas",    "use_exponential_sigmas", "use_beta_sigmas" };
    enum weir_status status = WEIR_OK;
    for (size_t i = 0; i < WEIR_COUNT(never); i++) WEIR_TRY(flag_refuse(config, never[i], error));
    if (weir_config_has(config, "shift_terminal"))
        return weir_config_refuse(config, "shift_terminal", "null (the last noise level as it comes)", error);
    WEIR_TRY(read_shift(config, "shift", "flow_shift", overridden, out, error));
cleanup:
    return status;
}

/* sigma_data is a unit that latents are kept free of: it must only be one. */
static enum weir_status read_scm(const struct weir_config *config, bool overridden, struct weir_sampler_config *out,
                                 struct weir_error *error)
{
    double sigma_data;
    (void)overridden;
    (void)out;
    return weir_config_real(config, "sigma_data", 0.5, 1e-6, 1e6, &sigma_data, error);
}

enum weir_status weir_sampler_config_read(const struct weir_config *config, const char *class_name,
                                          const enum weir_sampler_kind *override, struct weir_sampler_config *out,
                                          struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    enum weir_sampler_kind kind = override ? *override : WEIR_SAMPLER_KIND_COUNT;
    struct weir_sampler_config read;

    if (!override) WEIR_TRY(weir_sampler_kind_find(config, class_name, &kind, error));
    weir_sampler_config_default(kind, &read);
    /* a file of the class that says nothing means the class's default, as odd as it is over a flow */
    if (!override && kind == WEIR_SAMPLER_FLOW_DPM_SOLVER) read.prediction_type = WEIR_PREDICT_EPSILON;
    WEIR_TRY(weir_config_int(config, "num_train_timesteps", read.num_train_timesteps, 1,
                             WEIR_SAMPLER_TRAIN_TIMESTEPS_MAX, &read.num_train_timesteps, error));
    WEIR_TRY(read_prediction(config, &read, error));
    WEIR_TRY(kinds[kind].read(config, override != NULL, &read, error));
    *out = read;
cleanup:
    return status;
}

/* ---- arithmetic ---- */

float weir_log_f32(float x)
{
    return (float)log((double)x);
}

float weir_exp_f32(float x)
{
    return (float)exp((double)x);
}

float weir_sin_f32(float x)
{
    return (float)sin((double)x);
}

float weir_cos_f32(float x)
{
    return (float)cos((double)x);
}

void weir_linspace_f32(double from, double to, size_t count, float *out)
{
    const float start = (float)from, end = (float)to;
    const float step = count > 1 ? (end - start) / (float)(count - 1) : 0;
    for (size_t i = 0; i < count; i++)
        out[i] = i < count / 2 ? fmaf(step, (float)i, start) : fmaf(-step, (float)(count - i - 1), end);
    if (count == 1) out[0] = start;
}

double weir_linspace_f64(double from, double to, size_t count, size_t i)
{
    if (count > 1 && i == count - 1) return to;
    return count > 1 ? (double)i * ((to - from) / (double)(count - 1)) + from : from;
}

double weir_flow_shift(double sigma, double shift)
{
    return shift * sigma / (1.0 + (shift - 1.0) * sigma);
}

enum weir_status weir_sampler_check_first(const struct weir_sampler *sampler, struct weir_error *error)
{
    for (uint32_t i = 1; i < sampler->step_count; i++) {
        if (sampler->timesteps[i] == sampler->timesteps[0])
            return weir_fail(error, WEIR_BAD_MODEL, "the scheduler config makes timestep %g twice at %u steps",
                             sampler->timesteps[0], sampler->step_count);
    }
    return WEIR_OK;
}

void weir_spaced_even(double last, uint32_t count, double *out)
{
    const double step = count > 1 ? last / (count - 1) : 0;
    for (uint32_t i = 0; i < count; i++) out[i] = rint(i * step);
    if (count > 1) out[count - 1] = rint(last);
}

uint32_t weir_spaced_down(double start, double ratio, double *out, uint32_t capacity)
{
    const double length = ceil(start / ratio);
    const uint32_t count = length > capacity ? capacity : (uint32_t)length;
    const double step = (start - ratio) - start; /* as rounded by the first difference */
    for (uint32_t i = 0; i < count; i++) out[i] = rint(start + i * step) - 1;
    return count;
}

struct weir_sampler_coefficients weir_sampler_coefficients_blank(void)
{
    return (struct weir_sampler_coefficients){ .x0_divisor = 1.0f, .clip = INFINITY, .e_divisor = 1.0f, .in_x = 1.0f };
}

static double squared_cos(double t)
{
    const double c = cos((t + 0.008) / 1.008 * 3.14159265358979323846 / 2);
    return c * c;
}

static void betas_fill(const struct weir_sampler_config *config, size_t count, float *betas)
{
    switch (config->beta_schedule) {
    case WEIR_BETA_SCALED_LINEAR:
        weir_linspace_f32(sqrt(config->beta_start), sqrt(config->beta_end), count, betas);
        for (size_t i = 0; i < count; i++) betas[i] *= betas[i];
        break;
    case WEIR_BETA_SQUARED_COS:
        for (size_t i = 0; i < count; i++) {
            const double beta =
                1 - squared_cos((double)(i + 1) / (double)count) / squared_cos((double)i / (double)count);
            betas[i] = (float)(beta < BETA_MAX ? beta : BETA_MAX);
        }
        break;
    default:
        weir_linspace_f32(config->beta_start, config->beta_end, count, betas);
    }
}

/* signal[i] = product of 1 - beta up to i: rounded once each, carried in double. */
static void signal_fill(const float *betas, size_t count, float *signal)
{
    double product = 1;
    for (size_t i = 0; i < count; i++) {
        product *= (double)(1.0f - betas[i]);
        signal[i] = (float)product;
    }
}

/* Lin et al., arXiv:2305.08891, algorithm 1: shifts and scales so that nothing is left of the signal at the end. */
static void betas_rescale(float *betas, size_t count, float *signal)
{
    signal_fill(betas, count, signal);
    for (size_t i = 0; i < count; i++) signal[i] = sqrtf(signal[i]);
    const float first = signal[0], last = signal[count - 1];
    const float scale = first / (first - last);
    for (size_t i = 0; i < count; i++) {
        const float root = (signal[i] - last) * scale;
        signal[i] = root * root;
    }
    for (size_t i = 0; i < count; i++) betas[i] = 1.0f - (i == 0 ? signal[0] : signal[i] / signal[i - 1]);
}

static enum weir_status schedule_make(const struct weir_sampler_config *config, struct weir_schedule *out,
                                      struct weir_error *error)
{
    const size_t count = (size_t)config->num_train_timesteps;
    float *betas = malloc(count * sizeof *betas);
    float *signal = malloc(count * sizeof *signal);
    if (!betas || !signal) {
        free(betas);
        free(signal);
        return weir_fail(error, WEIR_NO_MEMORY, "no memory for a noise schedule of %zu steps", count);
    }
    betas_fill(config, count, betas);
    if (config->rescale_betas_zero_snr) betas_rescale(betas, count, signal);
    signal_fill(betas, count, signal);
    /* The solver divides by the signal: diffusers leaves it the smallest half. */
    if (config->rescale_betas_zero_snr && config->kind != WEIR_SAMPLER_DDIM) signal[count - 1] = 0x1p-24f;
    free(betas);
    *out = (struct weir_schedule){ .signal = signal, .count = count };
    return WEIR_OK;
}

/* ---- the table ---- */

static bool row_usable(const struct weir_sampler_coefficients *c)
{
    const float all[] = { c->x0_x, c->x0_m, c->x0_divisor, c->e_x,     c->e_m,  c->e_divisor, c->x_x,
                          c->x_x0, c->x_e,  c->x_d,        c->d_scale, c->in_x, c->x0_e,      c->x_n };
    for (size_t i = 0; i < WEIR_COUNT(all); i++) {
        if (!isfinite(all[i])) return false;
    }
    return c->x0_divisor != 0 && c->e_divisor != 0 && !isnan(c->clip);
}

enum weir_status weir_sampler_create(const struct weir_sampler_config *config, int64_t steps, struct weir_sampler **out,
                                     struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_schedule schedule = { 0 };
    struct weir_sampler *sampler = NULL;
    assert(config->kind < WEIR_SAMPLER_KIND_COUNT);
    assert(config->num_train_timesteps >= 1 && config->num_train_timesteps <= WEIR_SAMPLER_TRAIN_TIMESTEPS_MAX);
    assert(config->solver_order == 1 || config->solver_order == 2);
    assert(weir_sampler_predicts(config->kind, config->prediction_type));

    const int64_t most =
        config->num_train_timesteps < WEIR_SAMPLER_STEPS_MAX ? config->num_train_timesteps : WEIR_SAMPLER_STEPS_MAX;
    if (steps < 1 || steps > most)
        return weir_fail(error, WEIR_BAD_ARGUMENT, "%lld steps are not within 1 to %lld, the sampler's most",
                         (long long)steps, (long long)most);

    sampler = calloc(1, sizeof *sampler);
    if (!sampler) return weir_fail(error, WEIR_NO_MEMORY, "no memory for a sampler");
    sampler->config = *config;
    sampler->timesteps = calloc(WEIR_SAMPLER_STEPS_MAX + 1, sizeof *sampler->timesteps);
    sampler->coefficients = calloc(WEIR_SAMPLER_STEPS_MAX + 1, sizeof *sampler->coefficients);
    if (!sampler->timesteps || !sampler->coefficients)
        WEIR_TRY(weir_fail(error, WEIR_NO_MEMORY, "no memory for a sampler of %lld steps", (long long)steps));
    if (kinds[config->kind].has_betas) WEIR_TRY(schedule_make(config, &schedule, error));
    WEIR_TRY(kinds[config->kind].plan(sampler, &schedule, (uint32_t)steps, error));
    for (uint32_t i = 0; i < sampler->step_count; i++) {
        if (!row_usable(&sampler->coefficients[i]))
            WEIR_TRY(weir_fail(error, WEIR_BAD_MODEL,
                               "the scheduler config leaves the finite numbers at step %u of %u (timestep %g)", i,
                               sampler->step_count, sampler->timesteps[i]));
    }
    *out = sampler;
    sampler = NULL;

cleanup:
    free(schedule.signal);
    weir_sampler_destroy(&sampler);
    return status;
}

void weir_sampler_destroy(struct weir_sampler **sampler_p)
{
    if (!*sampler_p) return;
    free((*sampler_p)->timesteps);
    free((*sampler_p)->coefficients);
    free(*sampler_p);
    *sampler_p = NULL;
}

uint32_t weir_sampler_step_count(const struct weir_sampler *sampler)
{
    return sampler->step_count;
}

double weir_sampler_timestep(const struct weir_sampler *sampler, uint32_t step)
{
    assert(step < sampler->step_count);
    return sampler->timesteps[step];
}

const struct weir_sampler_coefficients *weir_sampler_coefficients(const struct weir_sampler *sampler, uint32_t step)
{
    assert(step < sampler->step_count);
    return &sampler->coefficients[step];
}

size_t weir_sampler_state_bytes(const struct weir_sampler *sampler, size_t n)
{
    return sampler->keeps_x0 ? n * sizeof(float) : 0;
}

enum weir_status weir_sampler_start_at(struct weir_sampler *sampler, uint32_t first, struct weir_sampler_start *out,
                                       struct weir_error *error)
{
    if (sampler->config.kind != WEIR_SAMPLER_SCM)
        return weir_fail(error, WEIR_UNSUPPORTED, "%s does not begin at a picture; scm does",
                         weir_sampler_kind_name(sampler->config.kind));
    if (first >= sampler->step_count)
        return weir_fail(error, WEIR_BAD_ARGUMENT, "of %u steps none is left behind %u", sampler->step_count, first);
    weir_scm_start(sampler->step_count, first, out);
    sampler->step_count -= first;
    memmove(sampler->timesteps, sampler->timesteps + first, sampler->step_count * sizeof *sampler->timesteps);
    memmove(sampler->coefficients, sampler->coefficients + first, sampler->step_count * sizeof *sampler->coefficients);
    return WEIR_OK;
}

bool weir_sampler_draws(const struct weir_sampler *sampler, uint32_t step)
{
    return weir_sampler_coefficients(sampler, step)->x_n != 0;
}

void weir_sampler_step(const struct weir_sampler *sampler, uint32_t step, const float *model_output, float *x,
                       float *last, size_t n)
{
    const struct weir_sampler_coefficients c = *weir_sampler_coefficients(sampler, step);
    const bool looks_back = c.x_d != 0, x0_has_e = c.x0_e != 0, has_e = c.x_e != 0, draws = c.x_n != 0;
    assert(last || (!sampler->keeps_x0 && !draws));
    for (size_t i = 0; i < n; i++) {
        const float xi = x[i], m = model_output[i];
        const float e = (c.e_x * (c.in_x * xi) + c.e_m * m) / c.e_divisor;
        float x0 = c.x0_x * xi + c.x0_m * m;
        if (x0_has_e) x0 += c.x0_e * e;
        x0 /= c.x0_divisor;
        x0 = x0 < -c.clip ? -c.clip : x0 > c.clip ? c.clip : x0; /* a NaN stays one */
        float next = c.x_x * xi + c.x_x0 * x0;
        if (has_e) next += c.x_e * e;
        if (looks_back) next += c.x_d * (c.d_scale * (x0 - last[i]));
        if (draws) next += c.x_n * last[i];
        x[i] = next;
        if (last) last[i] = x0;
    }
}
