/* The graphs of a program, on a device that has them: one for each arena with its externs, of which the last used are
 * kept. The first run with a memory is an ordinary one: libraries load their code as it is first used, and many
 * programs run once only. The second is captured, later ones are replayed. */
#include "kernels/program_internal.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct kept {
    const void *arena; /* NULL: free */
    void **memory;     /* of the externs */
    struct weir_graph *graph;
    bool refused; /* it could not be captured, and is not tried again */
    uint64_t used;
};

struct weir_program_graphs {
    pthread_mutex_t lock;
    struct kept kept[WEIR_PROGRAM_GRAPHS_MAX];
    void **memory;
    uint64_t clock;
};

enum weir_status weir_program_graphs_create(struct weir_program *p, struct weir_error *error)
{
    if (!p->device->table->graph_begin) return WEIR_OK;
    struct weir_program_graphs *g = calloc(1, sizeof *g);
    const size_t externs = p->extern_count ? p->extern_count : 1;
    if (g) g->memory = calloc(WEIR_PROGRAM_GRAPHS_MAX * externs, sizeof *g->memory);
    if (!g || !g->memory) {
        free(g);
        return weir_fail(error, WEIR_NO_MEMORY, "no memory for the graphs of a program");
    }
    for (size_t i = 0; i < WEIR_PROGRAM_GRAPHS_MAX; i++) g->kept[i].memory = g->memory + i * externs;
    pthread_mutex_init(&g->lock, NULL);
    p->graphs = g;
    return WEIR_OK;
}

void weir_program_graphs_destroy(struct weir_program *p)
{
    struct weir_program_graphs *g = p->graphs;
    if (!g) return;
    for (size_t i = 0; i < WEIR_PROGRAM_GRAPHS_MAX; i++) {
        if (g->kept[i].graph) p->device->table->graph_destroy(g->kept[i].graph);
    }
    pthread_mutex_destroy(&g->lock);
    free(g->memory);
    free(g);
    p->graphs = NULL;
}

/* What is kept for this memory, or NULL, with the place of the longest unused made its own. */
static struct kept *find(const struct weir_program *p, const void *arena, void *const memory[])
{
    struct weir_program_graphs *g = p->graphs;
    const size_t bytes = p->extern_count * sizeof *memory;
    struct kept *oldest = &g->kept[0];
    for (size_t i = 0; i < WEIR_PROGRAM_GRAPHS_MAX; i++) {
        struct kept *k = &g->kept[i];
        if (k->arena == arena && (bytes == 0 || memcmp(k->memory, memory, bytes) == 0)) {
            k->used = ++g->clock;
            return k;
        }
        if (k->used < oldest->used) oldest = k;
    }
    if (oldest->graph) p->device->table->graph_destroy(oldest->graph);
    oldest->graph = NULL;
    oldest->refused = false;
    oldest->arena = arena;
    oldest->used = ++g->clock;
    if (bytes) memcpy(oldest->memory, memory, bytes);
    return NULL;
}

static void capture(const struct weir_program *p, struct weir_stream *stream, void *arena, void *const memory[],
                    struct kept *k)
{
    const struct weir_device_table *table = p->device->table;
    k->refused = true;
    if (table->graph_begin(stream) != WEIR_OK) return;
    const enum weir_status queued = weir_program_run_ops(p, stream, arena, memory);
    const enum weir_status ended = table->graph_end(stream, &k->graph);
    if (queued == WEIR_OK && ended == WEIR_OK) {
        k->refused = false;
    } else if (k->graph) {
        table->graph_destroy(k->graph);
        k->graph = NULL;
    }
}

enum weir_status weir_program_graphs_run(const struct weir_program *p, struct weir_stream *stream, void *arena,
                                         void *const memory[])
{
    struct weir_program_graphs *g = p->graphs;
    pthread_mutex_lock(&g->lock);
    struct kept *k = find(p, arena, memory);
    if (k && !k->graph && !k->refused) capture(p, stream, arena, memory, k);
    const bool replayed = k && k->graph;
    const enum weir_status status = replayed ? p->device->table->graph_launch(stream, k->graph) : WEIR_OK;
    pthread_mutex_unlock(&g->lock);
    return replayed ? status : weir_program_run_ops(p, stream, arena, memory);
}
