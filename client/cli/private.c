#include "client/cli/private.h"

#include "client/cli/commands.h"
#include "proto/base/clock.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool weir_cli_private_goes_on(const struct weir_cli_private *own)
{
    return !*own->interrupted && weir_cluster_failed(own->cluster, NULL) == WEIR_OK;
}

/* What a waiting call looks at every 200 ms. */
static bool goes_on(void *context)
{
    return weir_cli_private_goes_on(context);
}

enum weir_status weir_cli_private_explain(const struct weir_cli_private *own, enum weir_status status,
                                          struct weir_error *error)
{
    if (status != WEIR_INTERRUPTED || *own->interrupted) return status;
    return weir_cluster_failed(own->cluster, error);
}

enum weir_status weir_cli_private_submit(const struct weir_cli_private *own, const struct weir_request *request,
                                         char job[WEIR_JOB_BYTES], struct weir_error *error)
{
    const uint64_t begin_ms = weir_clock_now_ms();
    for (;;) {
        const enum weir_status status = weir_client_submit(own->client, request, NULL, job, error);
        if (status != WEIR_UNAVAILABLE || weir_clock_now_ms() - begin_ms > WEIR_CLI_WORKERS_WAIT_MS) return status;
        if (!weir_cli_private_goes_on(own)) return weir_fail(error, WEIR_INTERRUPTED, "interrupted");
        usleep(50000); /* the workers are loading: there is nothing to wait on but the broker's next answer */
    }
}

static int remove_entry(const char *path, const struct stat *facts, int kind, struct FTW *place)
{
    (void)facts;
    (void)kind;
    (void)place;
    return remove(path);
}

static enum weir_status make_temporary(char out[PATH_MAX], struct weir_error *error)
{
    const char *base = getenv("TMPDIR");
    snprintf(out, PATH_MAX, "%s/weir-XXXXXX", base && base[0] == '/' && strlen(base) < 64 ? base : "/tmp");
    if (mkdtemp(out)) return WEIR_OK;
    const enum weir_status status = weir_fail(error, WEIR_IO, "a temporary directory %s: %s", out, strerror(errno));
    out[0] = '\0';
    return status;
}

enum weir_status weir_cli_private_start(const struct weir_cluster_options *options, struct weir_cli_private *out,
                                        struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    *out = (struct weir_cli_private){ .interrupted = weir_cli_catch_signals() };
    WEIR_TRY(make_temporary(out->folder, error));
    struct weir_cluster_options own = *options;
    own.dir = out->folder;
    WEIR_TRY(weir_cluster_start(&own, &out->cluster, error));
    WEIR_TRY(weir_client_open(out->folder, &out->client, error));
    weir_client_on_idle(out->client, goes_on, out);

cleanup:
    return status;
}

void weir_cli_private_stop(struct weir_cli_private *own)
{
    weir_client_close(&own->client);
    weir_cluster_stop(&own->cluster);
    if (own->folder[0]) nftw(own->folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    own->folder[0] = '\0';
}
