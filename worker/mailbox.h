/* mailbox: letters from one thread to another, in order. The letter is the caller's struct, of which a struct weir_mail
 * is the first member; how many there can be is bounded by whoever makes them.
 *
 * The reader either sleeps in wait() or polls `fd`, which is readable while there may be something.
 *
 * Threads  put, close and wake from any; take from one, wait from one or several
 */
#ifndef WEIR_WORKER_MAILBOX_H
#define WEIR_WORKER_MAILBOX_H

#include "proto/status.h"

#include <pthread.h>
#include <stdbool.h>

struct weir_mail {
    struct weir_mail *next;
};

struct weir_mailbox {
    pthread_mutex_t lock;
    pthread_cond_t filled;
    struct weir_mail *first, **last;
    bool is_closed;
    int fd; /* an eventfd */
};

enum weir_status weir_mailbox_init(struct weir_mailbox *box, struct weir_error *error);
/* Letters that are left stay whose they are. */
void weir_mailbox_deinit(struct weir_mailbox *box);

void weir_mailbox_put(struct weir_mailbox *box, struct weir_mail *mail);
/* Makes fd readable without a letter. */
void weir_mailbox_wake(struct weir_mailbox *box);
/* No more letters: wait() returns NULL once what is there was taken. */
void weir_mailbox_close(struct weir_mailbox *box);

struct weir_mail *weir_mailbox_take(struct weir_mailbox *box); /* NULL: empty. Also quiets fd when it is */
struct weir_mail *weir_mailbox_wait(struct weir_mailbox *box); /* NULL: closed and empty */

#endif
