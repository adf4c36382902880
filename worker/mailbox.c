#include "worker/mailbox.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum weir_status weir_mailbox_init(struct weir_mailbox *box, struct weir_error *error)
{
    box->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (box->fd < 0) return weir_fail(error, WEIR_INTERNAL, "eventfd: %s", strerror(errno));
    pthread_mutex_init(&box->lock, NULL);
    pthread_cond_init(&box->filled, NULL);
    box->first = NULL;
    box->last = &box->first;
    box->is_closed = false;
    return WEIR_OK;
}

void weir_mailbox_deinit(struct weir_mailbox *box)
{
    close(box->fd);
    pthread_cond_destroy(&box->filled);
    pthread_mutex_destroy(&box->lock);
}

void weir_mailbox_wake(struct weir_mailbox *box)
{
    const uint64_t one = 1;
    const ssize_t put = write(box->fd, &one, sizeof one); /* fails only when it is readable anyway */
    (void)put;
}

void weir_mailbox_put(struct weir_mailbox *box, struct weir_mail *mail)
{
    mail->next = NULL;
    pthread_mutex_lock(&box->lock);
    *box->last = mail;
    box->last = &mail->next;
    pthread_cond_signal(&box->filled);
    pthread_mutex_unlock(&box->lock);
    weir_mailbox_wake(box);
}

void weir_mailbox_close(struct weir_mailbox *box)
{
    pthread_mutex_lock(&box->lock);
    box->is_closed = true;
    pthread_cond_broadcast(&box->filled);
    pthread_mutex_unlock(&box->lock);
}

static struct weir_mail *pop(struct weir_mailbox *box)
{
    struct weir_mail *mail = box->first;
    if (!mail) return NULL;
    box->first = mail->next;
    if (!box->first) box->last = &box->first;
    return mail;
}

struct weir_mail *weir_mailbox_take(struct weir_mailbox *box)
{
    uint64_t count;
    const ssize_t got = read(box->fd, &count, sizeof count);
    (void)got;
    pthread_mutex_lock(&box->lock);
    struct weir_mail *mail = pop(box);
    const bool more = box->first != NULL;
    pthread_mutex_unlock(&box->lock);
    if (more) weir_mailbox_wake(box);
    return mail;
}

struct weir_mail *weir_mailbox_wait(struct weir_mailbox *box)
{
    pthread_mutex_lock(&box->lock);
    while (!box->first && !box->is_closed) pthread_cond_wait(&box->filled, &box->lock);
    struct weir_mail *mail = pop(box);
    pthread_mutex_unlock(&box->lock);
    return mail;
}
