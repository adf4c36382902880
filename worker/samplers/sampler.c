#include "worker/samplers/ddim.h"
#include "worker/samplers/dpm_solver.h"

#include "worker/config.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BETA_MAX 0.999 /* of squaredcos_cap_v2 */

typedef enum weir_status plan_function(struct weir_sampler *sampler, const struct weir_schedule *schedule,
                                       uint32_t steps, struct weir_error *error);

static const struct kind {
    const char *name, *class_name;
    plan_function *plan;
} kinds[WEIR_SAMPLER_KIND_COUNT] = {
    [WEIR_SAMPLER_DDIM] = { "ddim", "DDIMScheduler", weir_ddim_plan },
    [WEIR_SAMPLER_DPM_SOLVER] = { "dpm++", "DPMSolverMultistepScheduler", weir_dpm_solver_plan },
};

static const char *const beta_schedules[] = { "linear", "scaled_linear", "squaredcos_cap_v2", NULL };
static const char *const spacings[] = { "leading", "linspace", "trailing", NULL };

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

void weir_sampler_config_default(enum weir_sampler_kind kind, struct weir_sampler_config *out)
{
    *out = (struct weir_sampler_config){
        .kind = kind,
        .num_train_timesteps = 1000,
        .beta_start = 0.0001,
        .beta_end = 0.02,
        .beta_schedule = WEIR_BETA_LINEAR,
        .prediction_type = WEIR_PREDICT_EPSILON,
        .timestep_spacing = kind == WEIR_SAMPLER_DDIM ? WEIR_SPACING_LEADING : WEIR_SPACING_LINSPACE,
        .clip_sample = true,
        .clip_sample_range = 1.0,
        .set_alpha_to_one = true,
        .solver_order = 2,
        .lower_order_final = true,
        .lambda_min_clipped = -INFINITY,
    };
}

/* ---- reading a config ---- */

/* The class the config is for, by the caller, the index of the model or the file itself. */
static enum weir_status kind_find(const struct weir_config *config, const char *class_name,
                                  const enum weir_sampler_kind *override, enum weir_sampler_kind *out,
                                  struct weir_error *error)
{
    if (override) {
        *out = *override;
        return WEIR_OK;
    }
    enum weir_status status = WEIR_OK;
    if (!class_name) WEIR_TRY(weir_config_text(config, "_class_name", NULL, &class_name, error));
    for (size_t i = 0; i < WEIR_COUNT(kinds); i++) {
        if (strcmp(class_name, kinds[i].class_name) == 0) {
            *out = (enum weir_sampler_kind)i;
            return WEIR_OK;
        }
    }
    return weir_fail(error, WEIR_UNSUPPORTED,
                     "%s: scheduler %.64s is not offered, only %s and %s; --sampler %s or %s uses one of these instead",
                     weir_config_label(config), class_name, kinds[WEIR_SAMPLER_DDIM].class_name,
                     kinds[WEIR_SAMPLER_DPM_SOLVER].class_name, kinds[WEIR_SAMPLER_DDIM].name,
                     kinds[WEIR_SAMPLER_DPM_SOLVER].name);
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

static enum weir_status read_ddim(const struct weir_config *config, struct weir_sampler_config *out,
                                  struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    WEIR_TRY(weir_config_bool(config, "clip_sample", out->clip_sample, &out->clip_sample, error));
    WEIR_TRY(
        weir_config_real(config, "clip_sample_range", out->clip_sample_range, 0, 1e6, &out->clip_sample_range, error));
    WEIR_TRY(weir_config_bool(config, "set_alpha_to_one", out->set_alpha_to_one, &out->set_alpha_to_one, error));
cleanup:
    return status;
}

static enum weir_status read_dpm_solver(const struct weir_config *config, struct weir_sampler_config *out,
                                        struct weir_error *error)
{
    /* diffusers reads deis and the words of other solvers as these, too */
    static const char *const algorithms[] = { "dpmsolver++", "deis", NULL };
    static const char *const solvers[] = { "midpoint", "heun", "logrho", "bh1", "bh2", NULL };
    static const char *const finals[] = { "zero", "sigma_min", NULL };
    static const char *const never[] = { "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas",
                                         "use_flow_sigmas" };
    static const char *const karras_ends[] = { "sigma_min", "sigma_max" };
    enum weir_status status = WEIR_OK;
    size_t word;

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
    WEIR_TRY(weir_config_bool(config, "use_karras_sigmas", out->use_karras_sigmas, &out->use_karras_sigmas, error));
    for (size_t i = 0; i < WEIR_COUNT(karras_ends) && out->use_karras_sigmas; i++) {
        if (weir_config_has(config, karras_ends[i]))
            return weir_config_refuse(config, karras_ends[i], "null (the ends of the training schedule)", error);
    }
    WEIR_TRY(weir_config_real(config, "lambda_min_clipped", out->lambda_min_clipped, -INFINITY, 100,
                              &out->lambda_min_clipped, error));
cleanup:
    return status;
}

enum weir_status weir_sampler_config_read(const struct weir_config *config, const char *class_name,
                                          const enum weir_sampler_kind *override, struct weir_sampler_config *out,
                                          struct weir_error *error)
{
    static const char *const predictions[] = { "epsilon", "v_prediction", "sample", NULL };
    enum weir_status status = WEIR_OK;
    enum weir_sampler_kind kind = WEIR_SAMPLER_KIND_COUNT;
    struct weir_sampler_config read;
    size_t word;

    WEIR_TRY(kind_find(config, class_name, override, &kind, error));
    weir_sampler_config_default(kind, &read);
    WEIR_TRY(weir_config_int(config, "num_train_timesteps", read.num_train_timesteps, 1,
                             WEIR_SAMPLER_TRAIN_TIMESTEPS_MAX, &read.num_train_timesteps, error));
    WEIR_TRY(weir_config_real(config, "beta_start", read.beta_start, 0, 1, &read.beta_start, error));
    WEIR_TRY(weir_config_real(config, "beta_end", read.beta_end, 0, 1, &read.beta_end, error));
    if (weir_config_has(config, "trained_betas"))
        return weir_config_refuse(config, "trained_betas", "null (a beta_schedule)", error);
    WEIR_TRY(word_read(config, "beta_schedule", beta_schedules[read.beta_schedule], beta_schedules,
                       "linear, scaled_linear or squaredcos_cap_v2", &word, error));
    read.beta_schedule = (enum weir_beta_schedule)word;
    WEIR_TRY(word_read(config, "prediction_type", predictions[read.prediction_type], predictions,
                       "epsilon, v_prediction or sample", &word, error));
    read.prediction_type = (enum weir_prediction)word;
    WEIR_TRY(word_read(config, "timestep_spacing", spacings[read.timestep_spacing], spacings,
                       "leading, linspace or trailing", &word, error));
    read.timestep_spacing = (enum weir_spacing)word;
    WEIR_TRY(weir_config_int(config, "steps_offset", read.steps_offset, 0, WEIR_SAMPLER_TRAIN_TIMESTEPS_MAX,
                             &read.steps_offset, error));
    WEIR_TRY(weir_config_bool(config, "rescale_betas_zero_snr", read.rescale_betas_zero_snr,
                              &read.rescale_betas_zero_snr, error));
    WEIR_TRY(flag_refuse(config, "thresholding", error));
    if (kind == WEIR_SAMPLER_DDIM)
        WEIR_TRY(read_ddim(config, &read, error));
    else
        WEIR_TRY(read_dpm_solver(config, &read, error));
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
    return (struct weir_sampler_coefficients){ .x0_divisor = 1.0f, .clip = INFINITY, .e_divisor = 1.0f };
}

/* torch.linspace: from both ends towards the middle, each value one fused multiply-add. */
static void linspace_f32(double from, double to, size_t count, float *out)
{
    const float start = (float)from, end = (float)to;
    const float step = count > 1 ? (end - start) / (float)(count - 1) : 0;
    for (size_t i = 0; i < count; i++)
        out[i] = i < count / 2 ? fmaf(step, (float)i, start) : fmaf(-step, (float)(count - i - 1), end);
    if (count == 1) out[0] = start;
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
        linspace_f32(sqrt(config->beta_start), sqrt(config->beta_end), count, betas);
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
        linspace_f32(config->beta_start, config->beta_end, count, betas);
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
    if (config->rescale_betas_zero_snr && config->kind == WEIR_SAMPLER_DPM_SOLVER) signal[count - 1] = 0x1p-24f;
    free(betas);
    *out = (struct weir_schedule){ .signal = signal, .count = count };
    return WEIR_OK;
}

/* ---- the table ---- */

static bool row_usable(const struct weir_sampler_coefficients *c)
{
    const float all[] = { c->x0_x, c->x0_m, c->x0_divisor, c->e_x, c->e_m,    c->e_divisor,
                          c->x_x,  c->x_x0, c->x_e,        c->x_d, c->d_scale };
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
    WEIR_TRY(schedule_make(config, &schedule, error));
    WEIR_TRY(kinds[config->kind].plan(sampler, &schedule, (uint32_t)steps, error));
    for (uint32_t i = 0; i < sampler->step_count; i++) {
        if (!row_usable(&sampler->coefficients[i]))
            WEIR_TRY(weir_fail(error, WEIR_BAD_MODEL,
                               "the scheduler config leaves the finite numbers at step %u of %u (timestep %.0f)", i,
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

void weir_sampler_step(const struct weir_sampler *sampler, uint32_t step, const float *model_output, float *x,
                       float *x0, size_t n)
{
    const struct weir_sampler_coefficients c = *weir_sampler_coefficients(sampler, step);
    const bool looks_back = c.x_d != 0, has_e = c.x_e != 0;
    assert(x0 || !sampler->keeps_x0);
    for (size_t i = 0; i < n; i++) {
        const float xi = x[i], m = model_output[i];
        float x0_now = (c.x0_x * xi + c.x0_m * m) / c.x0_divisor;
        x0_now = x0_now < -c.clip ? -c.clip : x0_now > c.clip ? c.clip : x0_now; /* a NaN stays one */
        float next = c.x_x * xi + c.x_x0 * x0_now;
        if (has_e) next += c.x_e * ((c.e_x * xi + c.e_m * m) / c.e_divisor);
        if (looks_back) next += c.x_d * (c.d_scale * (x0_now - x0[i]));
        x[i] = next;
        if (x0) x0[i] = x0_now;
    }
}
