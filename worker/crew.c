#include "worker/crew.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { DONE, LEFT, TO_QUOTE, QUOTED, TO_COMPUTE, BOXES = TO_COMPUTE + WEIR_LANES_MAX };
enum { THREADS_MAX = WEIR_LANES_MAX + WEIR_RESTS_MAX + 1 };

struct lane {
    struct weir_crew *crew;
    struct weir_mailbox *box;
};

struct weir_crew {
    struct weir_stages *stages;
    struct weir_quoter *quoter;
    struct weir_lanes lanes;
    struct lane lane[WEIR_LANES_MAX];
    struct weir_mailbox boxes[BOXES];
    int box_count; /* that were made */
    pthread_t threads[THREADS_MAX];
    int thread_count, lane_threads; /* the lanes' come first */
    atomic_uint boundaries;
};

static struct weir_task *next_task(void *context)
{
    const struct lane *lane = context;
    return (struct weir_task *)weir_mailbox_take(lane->box);
}

static void task_ended(void *context, struct weir_task *task)
{
    const struct lane *lane = context;
    weir_mailbox_put(&lane->crew->boxes[DONE], &task->mail);
}

static void task_left(void *context, struct weir_task *task)
{
    struct weir_crew *crew = ((const struct lane *)context)->crew;
    atomic_store(&task->left, true);
    weir_mailbox_put(&crew->boxes[LEFT], &task->mail);
    weir_mailbox_wake(&crew->boxes[DONE]);
}

static void batch_stepped(void *context)
{
    struct weir_crew *crew = ((const struct lane *)context)->crew;
    atomic_fetch_add(&crew->boundaries, 1);
    weir_mailbox_wake(&crew->boxes[DONE]);
}

static void *compute(void *context)
{
    struct lane *lane = context;
    const struct weir_task_flow flow = { lane, next_task, task_ended, task_left, batch_stepped };
    struct weir_mail *mail;
    while ((mail = weir_mailbox_wait(lane->box)) != NULL) {
        weir_stages_run(lane->crew->stages, (struct weir_task *)mail, &flow);
    }
    return NULL;
}

static void *finish(void *context)
{
    struct weir_crew *crew = context;
    struct weir_mail *mail;
    while ((mail = weir_mailbox_wait(&crew->boxes[LEFT])) != NULL) {
        weir_stages_finish(crew->stages, (struct weir_task *)mail);
        weir_mailbox_put(&crew->boxes[DONE], mail);
    }
    return NULL;
}

static void *quote(void *context)
{
    struct weir_crew *crew = context;
    struct weir_mail *mail;
    weir_quoter_prepare(crew->quoter);
    while ((mail = weir_mailbox_wait(&crew->boxes[TO_QUOTE])) != NULL) {
        weir_quoter_answer(crew->quoter, (struct weir_quote *)mail);
        weir_mailbox_put(&crew->boxes[QUOTED], mail);
    }
    return NULL;
}

static enum weir_status start_thread(struct weir_crew *crew, void *(*work)(void *), void *context,
                                     struct weir_error *error)
{
    const int failed = pthread_create(&crew->threads[crew->thread_count], NULL, work, context);
    if (failed) return weir_fail(error, WEIR_INTERNAL, "a thread could not be started: %s", strerror(failed));
    crew->thread_count++;
    return WEIR_OK;
}

enum weir_status weir_crew_start(struct weir_stages *stages, const struct weir_lanes *lanes, struct weir_quoter *quoter,
                                 struct weir_crew **out, struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    struct weir_crew *crew = calloc(1, sizeof *crew);
    *out = NULL;
    if (!crew) return weir_fail(error, WEIR_NO_MEMORY, "no memory for the threads");
    crew->stages = stages;
    crew->quoter = quoter;
    crew->lanes = *lanes;
    for (; crew->box_count < BOXES; crew->box_count++) {
        WEIR_TRY(weir_mailbox_init(&crew->boxes[crew->box_count], error));
    }
    for (uint32_t i = 0; i < lanes->count; i++) {
        crew->lane[i] = (struct lane){ crew, &crew->boxes[TO_COMPUTE + i] };
        WEIR_TRY(start_thread(crew, compute, &crew->lane[i], error));
        crew->lane_threads++;
    }
    for (int i = 0; i < (int)lanes->rests; i++) WEIR_TRY(start_thread(crew, finish, crew, error));
    WEIR_TRY(start_thread(crew, quote, crew, error));
    *out = crew;
    crew = NULL;
cleanup:
    weir_crew_stop(&crew);
    return status;
}

void weir_crew_stop(struct weir_crew **crew_p)
{
    struct weir_crew *crew = *crew_p;
    int thread = 0;
    if (!crew) return;
    for (int i = TO_COMPUTE; crew->box_count == BOXES && i < BOXES; i++) weir_mailbox_close(&crew->boxes[i]);
    for (; thread < crew->lane_threads; thread++) pthread_join(crew->threads[thread], NULL);
    if (crew->box_count == BOXES) { /* what lanes left is there by now */
        weir_mailbox_close(&crew->boxes[LEFT]);
        weir_mailbox_close(&crew->boxes[TO_QUOTE]);
    }
    for (; thread < crew->thread_count; thread++) pthread_join(crew->threads[thread], NULL);
    for (struct weir_quote *left; crew->box_count == BOXES && (left = weir_crew_take_quote(crew)) != NULL;) {
        weir_quote_destroy(&left);
    }
    for (int i = 0; i < crew->box_count; i++) weir_mailbox_deinit(&crew->boxes[i]);
    free(crew);
    *crew_p = NULL;
}

void weir_crew_compute(struct weir_crew *crew, struct weir_task *task)
{
    weir_mailbox_put(&crew->boxes[TO_COMPUTE + crew->lanes.of[task->id.stage]], &task->mail);
}

void weir_crew_quote(struct weir_crew *crew, struct weir_quote *asked)
{
    weir_mailbox_put(&crew->boxes[TO_QUOTE], &asked->mail);
}

struct weir_task *weir_crew_take_task(struct weir_crew *crew)
{
    return (struct weir_task *)weir_mailbox_take(&crew->boxes[DONE]);
}

struct weir_quote *weir_crew_take_quote(struct weir_crew *crew)
{
    return (struct weir_quote *)weir_mailbox_take(&crew->boxes[QUOTED]);
}

int weir_crew_task_fd(const struct weir_crew *crew)
{
    return crew->boxes[DONE].fd;
}

int weir_crew_quote_fd(const struct weir_crew *crew)
{
    return crew->boxes[QUOTED].fd;
}

unsigned weir_crew_boundaries(const struct weir_crew *crew)
{
    return atomic_load(&crew->boundaries);
}

void weir_crew_progressed(void *context)
{
    struct weir_crew *crew = context;
    weir_mailbox_wake(&crew->boxes[DONE]);
}
