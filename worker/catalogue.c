#include "worker/catalogue.h"

#include "worker/model_dir.h"
#include "worker/pipelines/pipeline.h"

#include <stdio.h>

struct printing {
    bool verify;
    unsigned count;
    enum weir_status worst;
    struct weir_error *error;
};

static enum weir_status digest_of(const struct weir_model_dir *model, const struct weir_pipeline *pipeline, bool verify,
                                  char hex[WEIR_SHA256_HEX_BYTES], struct weir_error *error)
{
    const char *const *components = weir_pipeline_components(pipeline);
    size_t count = 0;
    while (components[count]) count++;
    return weir_model_dir_digest(model, components, count, verify, hex, error);
}

static void print_facts(const char *name, const struct weir_model_dir *model, const struct weir_model_facts *facts,
                        const char *digest)
{
    char what[64], sizes[64];
    snprintf(what, sizeof what, "%u frames at %u/s, ", facts->frames, facts->fps);
    snprintf(sizes, sizeof sizes, "sizes in multiples of %u", facts->size_multiple);
    if (facts->frames_max == 1) what[0] = '\0';
    if (facts->bins) snprintf(sizes, sizeof sizes, "any size, made at the nearest that it was trained on");
    printf("%-24s %s: text to %s, %ux%u, %s%u steps, guidance %g, sampler %s\n", name, weir_model_dir_class_name(model),
           facts->frames_max == 1 ? "image" : "video", facts->width, facts->height, what, facts->steps, facts->guidance,
           facts->sampler == WEIR_ITEM_SAMPLER_COUNT ? "to be named" : weir_item_sampler_name(facts->sampler));
    if (facts->loras) printf("%-24s takes LoRA files (--lora FILE[:WEIGHT])\n", "");
    if (facts->control) printf("%-24s looks at a picture (--control FILE[:SCALE])\n", "");
    if (facts->start) printf("%-24s also begins at a picture (--image FILE, --strength %g)\n", "", facts->strength);
    printf("%-24s %s; digest %.16s; %s\n", "", sizes, digest, weir_model_dir_path(model));
}

static void print_one(void *context, const char *name, const char *path)
{
    struct printing *p = context;
    struct weir_model_dir *model = NULL;
    struct weir_pipeline *pipeline = NULL;
    struct weir_error error = { .code = WEIR_OK };
    char digest[WEIR_SHA256_HEX_BYTES];
    enum weir_status status = WEIR_OK;
    p->count++;
    WEIR_TRY(weir_model_dir_open(path, NULL, &model, &error));
    WEIR_TRY(weir_pipeline_open(model, &pipeline, &error));
    WEIR_TRY(digest_of(model, pipeline, p->verify, digest, &error));
    print_facts(name, model, weir_pipeline_facts(pipeline), digest);

cleanup:
    if (status != WEIR_OK) printf("%-24s unusable: %s\n", name, error.words);
    if (status == WEIR_BAD_FILE && p->verify) {
        p->worst = status;
        if (p->error) *p->error = error;
    }
    weir_pipeline_close(&pipeline);
    weir_model_dir_close(&model);
}

enum weir_status weir_catalogue_print(bool verify, struct weir_error *error)
{
    struct printing p = { .verify = verify, .error = error };
    weir_model_dir_list(print_one, &p);
    if (p.count == 0) puts("no models; WEIR_MODELS names folders of them, and --model DIR takes any diffusers folder");
    return p.worst;
}
