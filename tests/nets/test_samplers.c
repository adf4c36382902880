/* The samplers against diffusers', bit for bit, from tests/golden/samplers.json; and what their configs may say. */
#include "worker/config.h"
#include "worker/samplers/noise.h"
#include "worker/samplers/sampler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define N 16
#define SHOWN 4 /* values a step in the golden file */

static enum weir_status read_config(const char *text, const char *class_name, const char *kind,
                                    struct weir_sampler_config *out, struct weir_error *error)
{
    struct weir_config *config = NULL;
    enum weir_sampler_kind asked;
    assert_int_equal(weir_config_parse(text, strlen(text), "scheduler_config.json", &config, error), WEIR_OK);
    const bool overridden = kind && weir_sampler_kind_parse(kind, &asked);
    const enum weir_status status =
        weir_sampler_config_read(config, class_name, overridden ? &asked : NULL, out, error);
    weir_config_close(&config);
    return status;
}

static struct weir_sampler *sampler_of(const char *text, const char *kind, int64_t steps)
{
    struct weir_sampler_config config;
    struct weir_sampler *sampler = NULL;
    assert_int_equal(read_config(text, NULL, kind, &config, NULL), WEIR_OK);
    assert_int_equal(weir_sampler_create(&config, steps, &sampler, NULL), WEIR_OK);
    return sampler;
}

static void start(float *x, uint64_t seed)
{
    weir_noise_draw(seed, false, 0, x, N);
}

/* One step, with a network of m = 0.5 in + 0.125. */
static void take_step(const struct weir_sampler *sampler, uint32_t step, uint64_t seed, float *x, float *last)
{
    const float in_x = weir_sampler_coefficients(sampler, step)->in_x;
    float m[N];
    if (weir_sampler_draws(sampler, step)) weir_noise_draw(seed, false, step + 1, last, N);
    for (int i = 0; i < N; i++) m[i] = 0.5f * (in_x * x[i]) + 0.125f;
    weir_sampler_step(sampler, step, m, x, last, N);
}

static void see_case(const json_t *golden, const char *config)
{
    const int64_t steps = json_integer_value(json_object_get(golden, "steps"));
    const json_t *timesteps = json_object_get(golden, "timesteps"), *rows = json_object_get(golden, "x");
    struct weir_sampler *sampler = sampler_of(config, json_string_value(json_object_get(golden, "kind")), steps);
    float x[N], last[N];
    assert_int_equal(weir_sampler_step_count(sampler), json_array_size(timesteps));
    start(x, (uint64_t)steps);
    for (uint32_t i = 0; i < weir_sampler_step_count(sampler); i++) {
        char bits[8 * SHOWN + 1];
        assert_true(weir_sampler_timestep(sampler, i) == json_number_value(json_array_get(timesteps, i)));
        take_step(sampler, i, (uint64_t)steps, x, last);
        for (int k = 0; k < SHOWN; k++) {
            uint32_t word;
            memcpy(&word, &x[k], sizeof word);
            snprintf(bits + 8 * k, 9, "%08x", word);
        }
        const char *want = json_string_value(json_array_get(rows, i));
        if (strcmp(bits, want) != 0)
            fail_msg("%s, %lld steps, step %u: %s instead of %s", json_string_value(json_object_get(golden, "name")),
                     (long long)steps, i, bits, want);
    }
    weir_sampler_destroy(&sampler);
    assert_null(sampler);
}

static void timesteps_and_every_step_are_those_of_diffusers(void **state)
{
    (void)state;
    json_t *root = json_load_file(WEIR_SOURCE_DIR "/tests/golden/samplers.json", 0, NULL);
    assert_non_null(root);
    const json_t *cases = json_object_get(root, "cases");
    assert_true(json_array_size(cases) > 190);
    const char *config = NULL; /* in the first case of a name */
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *golden = json_array_get(cases, i), *own = json_object_get(golden, "config");
        if (own) config = json_string_value(own);
        see_case(golden, config);
    }
    json_decref(root);
}

static const char ddim[] = "{\"_class_name\": \"DDIMScheduler\"}";
static const char dpm[] = "{\"_class_name\": \"DPMSolverMultistepScheduler\"}";
static const char flow_dpm[] = "{\"_class_name\": \"DPMSolverMultistepScheduler\", \"use_flow_sigmas\": true,"
                               " \"prediction_type\": \"flow_prediction\", \"flow_shift\": 3.0}";
static const char flow_euler[] = "{\"_class_name\": \"FlowMatchEulerDiscreteScheduler\", \"shift\": 8.0}";
static const char scm[] = "{\"_class_name\": \"SCMScheduler\"}";

/* A run that is cut after any step and goes on from what a checkpoint holds and the seed ends with the same bits. */
static void a_run_resumes_at_any_step(void **state)
{
    (void)state;
    const struct {
        const char *text;
        bool looks_back;
    } configs[] = { { ddim, false }, { dpm, true }, { flow_dpm, true }, { flow_euler, false }, { scm, false } };
    for (size_t kind = 0; kind < WEIR_COUNT(configs); kind++) {
        struct weir_sampler *sampler = sampler_of(configs[kind].text, NULL, 16);
        const size_t kept = weir_sampler_state_bytes(sampler, N);
        assert_int_equal(kept, configs[kind].looks_back ? N * sizeof(float) : 0);
        float whole[N], x[N], x0[N];
        start(whole, 1);
        for (uint32_t i = 0; i < 16; i++) take_step(sampler, i, 1, whole, x0);
        for (uint32_t cut = 0; cut <= 16; cut++) {
            float saved_x[N], saved_x0[N];
            start(x, 1);
            for (uint32_t i = 0; i < 16; i++) {
                if (i == cut) { /* another process: only what a checkpoint holds is left */
                    memcpy(saved_x, x, sizeof x);
                    memcpy(saved_x0, x0, kept);
                    memset(x, 0xff, sizeof x);
                    memset(x0, 0xff, sizeof x0);
                    memcpy(x, saved_x, sizeof x);
                    memcpy(x0, saved_x0, kept);
                }
                take_step(sampler, i, 1, x, x0);
            }
            assert_memory_equal(x, whole, sizeof x);
        }
        weir_sampler_destroy(&sampler);
    }
}

static void step_0_reads_nothing_of_a_step_before(void **state)
{
    (void)state;
    struct weir_sampler *sampler = sampler_of(dpm, NULL, 4);
    float x[N], y[N], m[N], x0[N], y0[N];
    start(x, 1);
    start(y, 1);
    memcpy(m, x, sizeof m);
    memset(x0, 0xff, sizeof x0); /* NaN */
    memset(y0, 0, sizeof y0);
    weir_sampler_step(sampler, 0, m, x, x0, N);
    weir_sampler_step(sampler, 0, m, y, y0, N);
    assert_memory_equal(x, y, sizeof x);
    assert_memory_equal(x0, y0, sizeof x0);
    weir_sampler_destroy(&sampler);
}

static void only_scm_draws_and_not_at_its_last_step(void **state)
{
    (void)state;
    const char *configs[] = { ddim, dpm, flow_dpm, flow_euler, scm };
    for (size_t i = 0; i < WEIR_COUNT(configs); i++) {
        struct weir_sampler *sampler = sampler_of(configs[i], NULL, 4);
        for (uint32_t step = 0; step < 4; step++) {
            assert_int_equal(weir_sampler_draws(sampler, step), configs[i] == scm && step < 3);
            const bool scales = weir_sampler_coefficients(sampler, step)->in_x != 1.0f;
            assert_true(scales == (configs[i] == scm));
        }
        weir_sampler_destroy(&sampler);
    }
}

/* A step that needs nothing of before and no noise runs without the array. */
static void last_may_be_absent_where_nothing_reads_it(void **state)
{
    (void)state;
    const char *configs[] = { ddim, flow_euler, scm };
    for (size_t i = 0; i < WEIR_COUNT(configs); i++) {
        struct weir_sampler *sampler = sampler_of(configs[i], NULL, 1);
        float x[N], y[N], m[N], last[N];
        start(x, 5);
        memcpy(y, x, sizeof y);
        memcpy(m, x, sizeof m);
        memset(last, 0xff, sizeof last);
        weir_sampler_step(sampler, 0, m, x, NULL, N);
        weir_sampler_step(sampler, 0, m, y, last, N);
        assert_memory_equal(x, y, sizeof x);
        weir_sampler_destroy(&sampler);
    }
}

static void a_nan_of_the_network_is_not_clipped_away(void **state)
{
    (void)state;
    struct weir_sampler *sampler = sampler_of(ddim, NULL, 4); /* clip_sample is the class default */
    float x[2] = { 1, 100 }, m[2] = { NAN, 0 }, x0[2];
    assert_true(weir_sampler_coefficients(sampler, 0)->clip == 1.0f);
    weir_sampler_step(sampler, 0, m, x, x0, 2);
    assert_true(isnan(x[0]) && isnan(x0[0]));
    assert_true(x0[1] == 1.0f);
    weir_sampler_destroy(&sampler);
}

static void defaults_are_those_of_the_class(void **state)
{
    (void)state;
    struct weir_sampler_config read;
    assert_int_equal(read_config(ddim, NULL, NULL, &read, NULL), WEIR_OK);
    assert_int_equal(read.kind, WEIR_SAMPLER_DDIM);
    assert_int_equal(read.timestep_spacing, WEIR_SPACING_LEADING);
    assert_true(read.clip_sample && read.set_alpha_to_one && !read.rescale_betas_zero_snr);
    assert_int_equal(read_config(dpm, NULL, NULL, &read, NULL), WEIR_OK);
    assert_int_equal(read.kind, WEIR_SAMPLER_DPM_SOLVER);
    assert_int_equal(read.timestep_spacing, WEIR_SPACING_LINSPACE);
    assert_true(read.solver_order == 2 && read.lower_order_final && !read.solver_heun && !read.final_sigma_min);
    assert_int_equal(read_config(flow_euler, NULL, NULL, &read, NULL), WEIR_OK);
    assert_int_equal(read.kind, WEIR_SAMPLER_FLOW_EULER);
    assert_int_equal(read.prediction_type, WEIR_PREDICT_FLOW);
    assert_int_equal(read_config(scm, NULL, NULL, &read, NULL), WEIR_OK);
    assert_int_equal(read.kind, WEIR_SAMPLER_SCM);
    assert_int_equal(read.prediction_type, WEIR_PREDICT_TRIGFLOW);
}

/* One class of diffusers, two kinds; and the shift, which has a name in either class, goes with the network. */
static void flow_is_read_from_the_file_or_from_the_name_asked_for(void **state)
{
    (void)state;
    struct weir_sampler_config read;
    struct weir_error error;
    assert_int_equal(read_config(flow_dpm, NULL, NULL, &read, NULL), WEIR_OK);
    assert_int_equal(read.kind, WEIR_SAMPLER_FLOW_DPM_SOLVER);
    assert_true(read.flow_shift == 3.0 && read.prediction_type == WEIR_PREDICT_FLOW);
    assert_int_equal(read_config(flow_dpm, NULL, "dpm++", &read, &error), WEIR_UNSUPPORTED);
    assert_int_equal(read_config(flow_dpm, NULL, "flow-euler", &read, NULL), WEIR_OK);
    assert_true(read.kind == WEIR_SAMPLER_FLOW_EULER && read.flow_shift == 3.0);
    assert_int_equal(read_config(flow_euler, NULL, "flow-dpm++", &read, NULL), WEIR_OK);
    assert_true(read.kind == WEIR_SAMPLER_FLOW_DPM_SOLVER && read.flow_shift == 8.0);
    assert_int_equal(read.prediction_type, WEIR_PREDICT_FLOW);
    assert_int_equal(read_config("{\"shift\": 2.0, \"flow_shift\": 4.0}", NULL, "flow-euler", &read, NULL), WEIR_OK);
    assert_true(read.flow_shift == 2.0);
    /* the class's own default, when the file is of the class */
    const char silent[] = "{\"_class_name\": \"DPMSolverMultistepScheduler\", \"use_flow_sigmas\": true, \"shift\": 2}";
    assert_int_equal(read_config(silent, NULL, NULL, &read, NULL), WEIR_OK);
    assert_true(read.prediction_type == WEIR_PREDICT_EPSILON && read.flow_shift == 1.0);
    /* networks that do not fit the kind asked for */
    assert_int_equal(read_config(flow_dpm, NULL, "scm", &read, &error), WEIR_UNSUPPORTED);
    assert_non_null(strstr(error.words, "prediction_type"));
    assert_int_equal(read_config("{\"prediction_type\": \"trigflow\"}", NULL, "flow-dpm++", &read, &error),
                     WEIR_UNSUPPORTED);
    assert_non_null(strstr(error.words, "prediction_type"));
}

/* The index of the model, not the file, names the class; --sampler beats both, and then any class will do. */
static void the_class_is_chosen_as_diffusers_does(void **state)
{
    (void)state;
    struct weir_sampler_config read;
    struct weir_error error;
    assert_int_equal(read_config(ddim, "DPMSolverMultistepScheduler", NULL, &read, NULL), WEIR_OK);
    assert_int_equal(read.kind, WEIR_SAMPLER_DPM_SOLVER);
    assert_int_equal(read_config(ddim, "DDIMScheduler", "dpm++", &read, NULL), WEIR_OK);
    assert_int_equal(read.kind, WEIR_SAMPLER_DPM_SOLVER);

    const char pndm[] = "{\"_class_name\": \"PNDMScheduler\", \"steps_offset\": 1, \"skip_prk_steps\": true}";
    assert_int_equal(read_config(pndm, NULL, NULL, &read, &error), WEIR_UNSUPPORTED);
    assert_non_null(strstr(error.words, "PNDMScheduler"));
    assert_non_null(strstr(error.words, "--sampler"));
    assert_int_equal(read_config(pndm, NULL, "ddim", &read, NULL), WEIR_OK);
    assert_int_equal(read.steps_offset, 1);
    assert_int_equal(read_config("{}", NULL, NULL, &read, &error), WEIR_BAD_MODEL);
    assert_non_null(strstr(error.words, "_class_name"));

    enum weir_sampler_kind kind;
    for (int i = 0; i < WEIR_SAMPLER_KIND_COUNT; i++) {
        assert_true(weir_sampler_kind_parse(weir_sampler_kind_name((enum weir_sampler_kind)i), &kind));
        assert_int_equal(kind, i);
    }
    assert_false(weir_sampler_kind_parse("euler", &kind));
    for (int i = 0; i < WEIR_SAMPLER_KIND_COUNT; i++) {
        struct weir_sampler_config config;
        weir_sampler_config_default((enum weir_sampler_kind)i, &config);
        assert_true(weir_sampler_predicts(config.kind, config.prediction_type));
    }
}

static void what_is_not_offered_is_refused_by_its_key(void **state)
{
    (void)state;
    const struct {
        const char *kind, *key, *value;
        enum weir_status status;
    } rows[] = {
        { "ddim", "thresholding", "true", WEIR_UNSUPPORTED },
        { "ddim", "trained_betas", "[0.1]", WEIR_UNSUPPORTED },
        { "ddim", "prediction_type", "\"flow_prediction\"", WEIR_UNSUPPORTED },
        { "ddim", "prediction_type", "3", WEIR_BAD_MODEL },
        { "ddim", "beta_schedule", "\"sigmoid\"", WEIR_UNSUPPORTED },
        { "ddim", "timestep_spacing", "\"even\"", WEIR_UNSUPPORTED },
        { "ddim", "num_train_timesteps", "0", WEIR_BAD_MODEL },
        { "ddim", "num_train_timesteps", "100001", WEIR_BAD_MODEL },
        { "ddim", "num_train_timesteps", "10.5", WEIR_BAD_MODEL },
        { "ddim", "steps_offset", "-1", WEIR_BAD_MODEL },
        { "ddim", "beta_start", "1.5", WEIR_BAD_MODEL },
        { "ddim", "beta_end", "\"big\"", WEIR_BAD_MODEL },
        { "ddim", "clip_sample", "1", WEIR_BAD_MODEL },
        { "ddim", "clip_sample_range", "NaN", WEIR_BAD_MODEL },
        { "dpm++", "thresholding", "true", WEIR_UNSUPPORTED },
        { "dpm++", "solver_order", "3", WEIR_UNSUPPORTED },
        { "dpm++", "solver_order", "0", WEIR_BAD_MODEL },
        { "dpm++", "algorithm_type", "\"sde-dpmsolver++\"", WEIR_UNSUPPORTED },
        { "dpm++", "solver_type", "\"rk4\"", WEIR_UNSUPPORTED },
        { "dpm++", "final_sigmas_type", "\"half\"", WEIR_UNSUPPORTED },
        { "dpm++", "use_flow_sigmas", "true", WEIR_UNSUPPORTED },
        { "dpm++", "use_exponential_sigmas", "true", WEIR_UNSUPPORTED },
        { "dpm++", "use_beta_sigmas", "true", WEIR_UNSUPPORTED },
        { "dpm++", "use_lu_lambdas", "true", WEIR_UNSUPPORTED },
        { "dpm++", "variance_type", "\"learned\"", WEIR_UNSUPPORTED },
        { "dpm++", "prediction_type", "\"flow_prediction\"", WEIR_UNSUPPORTED },
        { "dpm++", "use_dynamic_shifting", "true", WEIR_UNSUPPORTED },
        { "flow-dpm++", "use_karras_sigmas", "true", WEIR_UNSUPPORTED },
        { "flow-dpm++", "use_dynamic_shifting", "true", WEIR_UNSUPPORTED },
        { "flow-dpm++", "prediction_type", "\"trigflow\"", WEIR_UNSUPPORTED },
        { "flow-dpm++", "solver_order", "3", WEIR_UNSUPPORTED },
        { "flow-dpm++", "flow_shift", "0", WEIR_BAD_MODEL },
        { "flow-dpm++", "flow_shift", "1001", WEIR_BAD_MODEL },
        { "flow-dpm++", "flow_shift", "\"3\"", WEIR_BAD_MODEL },
        { "flow-dpm++", "shift", "-1", WEIR_BAD_MODEL },
        { "flow-euler", "shift", "0", WEIR_BAD_MODEL },
        { "flow-euler", "shift", "NaN", WEIR_BAD_MODEL },
        { "flow-euler", "flow_shift", "1e9", WEIR_BAD_MODEL },
        { "flow-euler", "use_dynamic_shifting", "true", WEIR_UNSUPPORTED },
        { "flow-euler", "stochastic_sampling", "true", WEIR_UNSUPPORTED },
        { "flow-euler", "invert_sigmas", "true", WEIR_UNSUPPORTED },
        { "flow-euler", "shift_terminal", "0.1", WEIR_UNSUPPORTED },
        { "flow-euler", "use_karras_sigmas", "true", WEIR_UNSUPPORTED },
        { "flow-euler", "use_exponential_sigmas", "true", WEIR_UNSUPPORTED },
        { "flow-euler", "use_beta_sigmas", "true", WEIR_UNSUPPORTED },
        { "flow-euler", "prediction_type", "\"epsilon\"", WEIR_UNSUPPORTED },
        { "flow-euler", "num_train_timesteps", "0", WEIR_BAD_MODEL },
        { "scm", "prediction_type", "\"epsilon\"", WEIR_UNSUPPORTED },
        { "scm", "sigma_data", "0", WEIR_BAD_MODEL },
        { "scm", "num_train_timesteps", "0", WEIR_BAD_MODEL },
    };
    for (size_t i = 0; i < WEIR_COUNT(rows); i++) {
        char text[200];
        struct weir_sampler_config read;
        struct weir_error error = { 0 };
        snprintf(text, sizeof text, "{\"%s\": %s}", rows[i].key, rows[i].value);
        if (read_config(text, NULL, rows[i].kind, &read, &error) != rows[i].status)
            fail_msg("%s: %s", text, error.words);
        assert_non_null(strstr(error.words, rows[i].key));
    }
    struct weir_error error = { 0 };
    assert_int_equal(read_config("{\"use_karras_sigmas\": true, \"sigma_max\": 80}", NULL, "dpm++",
                                 &(struct weir_sampler_config){ 0 }, &error),
                     WEIR_UNSUPPORTED);
    assert_non_null(strstr(error.words, "sigma_max"));
    /* the same keys with what is offered */
    struct weir_sampler_config read;
    assert_int_equal(
        read_config(
            "{\"thresholding\": false, \"trained_betas\": null, \"num_train_timesteps\": 100000, \"sigma_max\": 80,"
            "\"use_flow_sigmas\": false, \"solver_order\": 1, \"lambda_min_clipped\": -Infinity,"
            "\"variance_type\": null, \"algorithm_type\": \"dpmsolver++\"}",
            NULL, "dpm++", &read, NULL),
        WEIR_OK);
}

static void steps_have_bounds_on_both_sides(void **state)
{
    (void)state;
    struct weir_sampler_config config;
    struct weir_sampler *sampler = NULL;
    struct weir_error error;
    weir_sampler_config_default(WEIR_SAMPLER_DDIM, &config);
    const int64_t bad[] = { 0, -1, WEIR_SAMPLER_STEPS_MAX + 1, INT64_MAX, INT64_MIN };
    for (size_t i = 0; i < WEIR_COUNT(bad); i++) {
        assert_int_equal(weir_sampler_create(&config, bad[i], &sampler, &error), WEIR_BAD_ARGUMENT);
        assert_non_null(strstr(error.words, "1000"));
        assert_null(sampler);
    }
    config.num_train_timesteps = 10;
    assert_int_equal(weir_sampler_create(&config, 11, &sampler, &error), WEIR_BAD_ARGUMENT);
    const int64_t good[] = { 1, 9, 10 };
    for (size_t i = 0; i < WEIR_COUNT(good); i++) {
        assert_int_equal(weir_sampler_create(&config, good[i], &sampler, &error), WEIR_OK);
        assert_int_equal(weir_sampler_step_count(sampler), good[i]);
        weir_sampler_destroy(&sampler);
    }
    config.num_train_timesteps = WEIR_SAMPLER_TRAIN_TIMESTEPS_MAX;
    config.beta_start = config.beta_end = 1e-5; /* so many of the usual size leave no signal in f32 */
    assert_int_equal(weir_sampler_create(&config, WEIR_SAMPLER_STEPS_MAX, &sampler, &error), WEIR_OK);
    weir_sampler_destroy(&sampler);
}

/* What diffusers answers with an index error or with NaN is refused before a step is paid for. */
static void a_config_that_cannot_run_is_refused_at_create(void **state)
{
    (void)state;
    const struct {
        const char *kind, *text, *words;
        int64_t steps;
    } rows[] = {
        { "ddim", "{\"steps_offset\": 1}", "timestep 1000", 1000 },
        { "ddim", "{\"rescale_betas_zero_snr\": true, \"timestep_spacing\": \"trailing\"}", "finite", 4 },
        { "dpm++", "{}", "finite", 1000 },
        { "dpm++", "{\"use_karras_sigmas\": true, \"beta_schedule\": \"squaredcos_cap_v2\"}", "twice", 25 },
        { "dpm++", "{\"beta_start\": 0, \"beta_end\": 0}", "finite", 4 },
        { "dpm++", "{\"lambda_min_clipped\": 50}", "lambda_min_clipped", 4 },
        { "flow-dpm++", "{\"flow_shift\": 8}", "twice", 1000 },
        { "flow-dpm++", "{\"num_train_timesteps\": 1}", "finite", 1 },
    };
    for (size_t i = 0; i < WEIR_COUNT(rows); i++) {
        struct weir_sampler_config config;
        struct weir_sampler *sampler = NULL;
        struct weir_error error = { 0 };
        assert_int_equal(read_config(rows[i].text, NULL, rows[i].kind, &config, NULL), WEIR_OK);
        if (weir_sampler_create(&config, rows[i].steps, &sampler, &error) != WEIR_BAD_MODEL)
            fail_msg("%s was taken: %s", rows[i].text, error.words);
        if (!strstr(error.words, rows[i].words)) fail_msg("%s: %s", rows[i].text, error.words);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timesteps_and_every_step_are_those_of_diffusers),
        cmocka_unit_test(a_run_resumes_at_any_step),
        cmocka_unit_test(step_0_reads_nothing_of_a_step_before),
        cmocka_unit_test(only_scm_draws_and_not_at_its_last_step),
        cmocka_unit_test(last_may_be_absent_where_nothing_reads_it),
        cmocka_unit_test(a_nan_of_the_network_is_not_clipped_away),
        cmocka_unit_test(defaults_are_those_of_the_class),
        cmocka_unit_test(flow_is_read_from_the_file_or_from_the_name_asked_for),
        cmocka_unit_test(the_class_is_chosen_as_diffusers_does),
        cmocka_unit_test(what_is_not_offered_is_refused_by_its_key),
        cmocka_unit_test(steps_have_bounds_on_both_sides),
        cmocka_unit_test(a_config_that_cannot_run_is_refused_at_create),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
