/* pretend_cluster: a broker for clients, in a thread, whose items are made as soon as they are asked for: all of one
 * picture. It keeps no promise but those that a client can see, and breaks them when told to.
 *
 * Threads  the fields above the mutex are set before start() only; counters may be read at any time under the lock
 */
#ifndef WEIR_TESTS_PRETEND_CLUSTER_H
#define WEIR_TESTS_PRETEND_CLUSTER_H

#include "proto/job.h"
#include "store/store.h"

#include <pthread.h>
#include <stdbool.h>

enum { CLUSTER_JOBS_MAX = 1200 };

struct pretend_job {
    struct weir_job_id id;
    char key[129];
    uint8_t fingerprint[WEIR_SHA256_BYTES], batch[WEIR_ID_BYTES];
    Weir__Pb__JobSpec *spec; /* as asked for */
    bool in_batch;
    uint32_t part, parts;
    enum weir_job_state state;
};

struct pretend_cluster {
    char dir[64], store_path[80];
    /* what it does to those who ask; each is counted down */
    int busy, deaf, no_workers;
    uint32_t refuse_line; /* "line N: ..." to every list that has it; 0: none */
    uint32_t refuse_step; /* ... and to every line that is a multiple of it; 0: none */
    uint32_t lose_line;   /* its items are lost, the job fails */
    bool stay_open;       /* jobs stay RUNNING */
    bool reversed;        /* what is resolved has the prompts in the other order */
    bool hide_store;      /* STATUS_VIEW names a path that is not here */
    pthread_mutex_t mutex;
    int submits, most_at_once;
    struct pretend_job jobs[CLUSTER_JOBS_MAX];
    int job_count;
    /* its own */
    pthread_t thread;
    void *zmq, *socket;
    struct weir_store *store;
    uint64_t sequence;
    bool stop;
    uint8_t *picture, digest[WEIR_SHA256_BYTES];
    size_t picture_bytes;
};

/* Makes the folder, the store and the picture; then set what it shall do, and start. */
void pretend_cluster_prepare(struct pretend_cluster *cluster);
void pretend_cluster_start(struct pretend_cluster *cluster);
void pretend_cluster_stop(struct pretend_cluster *cluster); /* and removes everything */

#endif
