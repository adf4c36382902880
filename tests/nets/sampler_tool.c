/* sampler_tool: prints what the generator and the samplers make, for tests/golden/live_*.py to set beside upstream.
 *
 *   sampler_tool noise SEED f32|f16 COUNT...              raw f32 of each call after the other
 *   sampler_tool run CONFIG KIND STEPS N SEED             KIND: as --sampler, or - (what the config says)
 *       u32 step count, f64 timesteps, then N f32 after each step; the network is m = 0.5 in + 0.125
 * A refusal is its status and words on stderr, exit code 1. */
#include "worker/config.h"
#include "worker/samplers/noise.h"
#include "worker/samplers/sampler.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put(const void *bytes, size_t size, size_t count)
{
    if (fwrite(bytes, size, count, stdout) != count) exit(2);
}

static int noise(int argc, char **argv)
{
    struct weir_noise generator;
    weir_noise_init(&generator, strtoull(argv[2], NULL, 0));
    for (int i = 4; i < argc; i++) {
        const size_t count = strtoull(argv[i], NULL, 0);
        float *out = malloc(count * sizeof *out + 1);
        if (!out) return 2;
        (strcmp(argv[3], "f16") == 0 ? weir_noise_normal_f16 : weir_noise_normal_f32)(&generator, out, count);
        put(out, sizeof *out, count);
        free(out);
    }
    return 0;
}

static int run(char **argv)
{
    struct weir_error error = { 0 };
    struct weir_config *config = NULL;
    struct weir_sampler *sampler = NULL;
    struct weir_sampler_config read;
    enum weir_sampler_kind kind;
    const bool overridden = weir_sampler_kind_parse(argv[3], &kind);
    const size_t n = strtoull(argv[5], NULL, 0);
    enum weir_status status = weir_config_open(argv[2], &config, &error);
    if (status == WEIR_OK) status = weir_sampler_config_read(config, NULL, overridden ? &kind : NULL, &read, &error);
    if (status == WEIR_OK) status = weir_sampler_create(&read, strtoll(argv[4], NULL, 0), &sampler, &error);
    if (status != WEIR_OK) {
        fprintf(stderr, "%s: %s\n", weir_status_name(status), error.words);
        weir_config_close(&config);
        return 1;
    }
    const uint64_t seed = strtoull(argv[6], NULL, 0);
    float *x = malloc(n * sizeof *x + 1), *m = malloc(n * sizeof *m + 1), *last = malloc(n * sizeof *last + 1);
    if (!x || !m || !last) return 2;
    weir_noise_draw(seed, false, 0, x, n);
    const uint32_t count = weir_sampler_step_count(sampler);
    put(&count, sizeof count, 1);
    for (uint32_t i = 0; i < count; i++) {
        const double timestep = weir_sampler_timestep(sampler, i);
        put(&timestep, sizeof timestep, 1);
    }
    for (uint32_t i = 0; i < count; i++) {
        const float in_x = weir_sampler_coefficients(sampler, i)->in_x;
        if (weir_sampler_draws(sampler, i)) weir_noise_draw(seed, false, i + 1, last, n);
        for (size_t k = 0; k < n; k++) m[k] = 0.5f * (in_x * x[k]) + 0.125f;
        weir_sampler_step(sampler, i, m, x, last, n);
        put(x, sizeof *x, n);
    }
    free(x);
    free(m);
    free(last);
    weir_sampler_destroy(&sampler);
    weir_config_close(&config);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc >= 4 && strcmp(argv[1], "noise") == 0) return noise(argc, argv);
    if (argc == 7 && strcmp(argv[1], "run") == 0) return run(argv);
    fprintf(stderr, "usage: sampler_tool noise SEED f32|f16 COUNT... | run CONFIG KIND STEPS N SEED\n");
    return 64;
}
