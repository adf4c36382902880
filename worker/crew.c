#include "worker/crew.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { TO_COMPUTE, DONE, TO_QUOTE, QUOTED, BOXES };

struct weir_crew {
    struct weir_stages *stages;
    struct weir_quoter *quoter;
    struct weir_mailbox boxes[BOXES];
    int box_count; /* that were made */
    pthread_t threads[2];
    int thread_count;
    atomic_uint boundaries;
};

static struct weir_task *next_task(void *context)
{
    struct weir_crew *crew = context;
    return (struct weir_task *)weir_mailbox_take(&crew->boxes[TO_COMPUTE]);
}

static void task_ended(void *context, struct weir_task *task)
{
    struct weir_crew *crew = context;
    weir_mailbox_put(&crew->boxes[DONE], &task->mail);
}

static void batch_stepped(void *context)
{
    struct weir_crew *crew = context;
    atomic_fetch_add(&crew->boundaries, 1);
    weir_mailbox_wake(&crew->boxes[DONE]);
}

static void *compute(void *context)
{
    struct weir_crew *crew = context;
    const struct weir_task_flow flow = { crew, next_task, task_ended, batch_stepped };
    struct weir_mail *mail;
    while ((mail = weir_mailbox_wait(&crew->boxes[TO_COMPUTE])) != NULL) {
        weir_stages_run(crew->stages, (struct weir_task *)mail, &flow);
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

enum weir_status weir_crew_start(struct weir_stages *stages, struct weir_quoter *quoter, struct weir_crew **out,
                                 struct weir_error *error)
{
    enum weir_status status = WEIR_OK;
    void *(*const work[2])(void *) = { compute, quote };
    struct weir_crew *crew = calloc(1, sizeof *crew);
    *out = NULL;
    if (!crew) return weir_fail(error, WEIR_NO_MEMORY, "no memory for the threads");
    crew->stages = stages;
    crew->quoter = quoter;
    for (; crew->box_count < BOXES; crew->box_count++) {
        WEIR_TRY(weir_mailbox_init(&crew->boxes[crew->box_count], error));
    }
    for (; crew->thread_count < 2; crew->thread_count++) {
        const int failed = pthread_create(&crew->threads[crew->thread_count], NULL, work[crew->thread_count], crew);
        if (failed) WEIR_TRY(weir_fail(error, WEIR_INTERNAL, "a thread could not be started: %s", strerror(failed)));
    }
    *out = crew;
    crew = NULL;
cleanup:
    weir_crew_stop(&crew);
    return status;
}

void weir_crew_stop(struct weir_crew **crew_p)
{
    struct weir_crew *crew = *crew_p;
    if (!crew) return;
    if (crew->box_count == BOXES) {
        weir_mailbox_close(&crew->boxes[TO_COMPUTE]);
        weir_mailbox_close(&crew->boxes[TO_QUOTE]);
    }
    for (int i = 0; i < crew->thread_count; i++) pthread_join(crew->threads[i], NULL);
    for (struct weir_quote *left; crew->box_count == BOXES && (left = weir_crew_take_quote(crew)) != NULL;) {
        weir_quote_destroy(&left);
    }
    for (int i = 0; i < crew->box_count; i++) weir_mailbox_deinit(&crew->boxes[i]);
    free(crew);
    *crew_p = NULL;
}

void weir_crew_compute(struct weir_crew *crew, struct weir_task *task)
{
    weir_mailbox_put(&crew->boxes[TO_COMPUTE], &task->mail);
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
