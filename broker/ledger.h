/* ledger: what has happened, durably. Eleven calls, one contract for SQLite, memory (the reference model) and later
 * Redis. The ledger decides, the wire hints: nothing is said to anybody before the call that makes it true came back.
 *
 * The eleven: submit, lease, commit, fail, release, expire, cancel, purge change rows and travel in batches through
 * weir_ledger_apply(); takeover begins an epoch; replay reads one job again as it was committed; page_open walks over
 * jobs (all open ones at a start, the latest ones for a list).
 *
 * Every change is a compare-and-set on task state + token + epoch + job state. It is idempotent for the same token: a
 * call repeated after an unknown outcome answers REPEATED and changes nothing. What else moves with it (successors
 * READY, job SUCCEEDED and its manifest, open tasks CANCELLED) moves in the same transaction. Ledgers know states and
 * tokens, not plans: which tasks become READY comes as a range.
 *
 * Units    durations in milliseconds (delay_ms, deadline_ms start again in full after a restart: no rule looks at the
 *          wall clock); created_ms and finished_ms are wall clock, for people
 * Threads  a ledger belongs to one thread
 */
#ifndef WEIR_BROKER_LEDGER_H
#define WEIR_BROKER_LEDGER_H

#include "broker/plan.h"

#define WEIR_LEDGER_BATCH_MAX 4096
#define WEIR_LEDGER_WORDS_BYTES 240
#define WEIR_LEDGER_LEAD_BYTES 64
#define WEIR_LEDGER_CLASS_BYTES 129
#define WEIR_TENANT_BYTES 33

struct weir_blob {
    const void *bytes; /* borrowed */
    size_t count;
};

/* Rows as they are read. Pointers are good during the callback only. */
struct weir_ledger_job {
    struct weir_job_id id;
    const char *tenant;
    enum weir_job_state state;
    int32_t priority;
    uint32_t plan_version;
    uint64_t cost_ms;
    uint64_t deadline_ms; /* 0: none */
    uint64_t created_ms;
    uint64_t finished_ms; /* 0: not yet */
    uint8_t fingerprint[WEIR_SHA256_BYTES];
    const char *numerics_class; /* "" until the first lease binds it */
    enum weir_status cause;     /* of a job that failed; while it is open, of its first dead task */
    const char *words;          /* "" or the cause in words */
    bool swept;                 /* the store was cleaned behind it */
    bool batched;               /* the client named a batch: */
    uint8_t batch[WEIR_ID_BYTES];
    uint32_t part, parts;
    uint32_t task_count, tasks_done; /* of an ended job; 0 while it is open */
    struct weir_blob spec;           /* packed JobSpec, resolved */
    struct weir_blob manifest;       /* packed Done, artefacts alone */
};
struct weir_ledger_task {
    enum weir_stage stage;
    uint32_t index;
    enum weir_task_state state;
    uint8_t token[WEIR_TOKEN_BYTES]; /* of the latest lease; zeros before the first */
    uint8_t worker[WEIR_ID_BYTES];   /* who has or had that lease */
    uint64_t worker_pid;
    uint32_t attempt, crash, fail, expired, released, regress;
    uint32_t checkpoint_step;   /* the newest checkpoint when a crash was last looked at */
    uint64_t delay_ms;          /* while DELAYED */
    struct weir_blob artefacts; /* packed Done, artefacts alone; of the commit */
    struct weir_blob facts;     /* packed TaskFacts */
};

enum weir_ledger_op {
    WEIR_LEDGER_SUBMIT,
    WEIR_LEDGER_LEASE,
    WEIR_LEDGER_COMMIT,
    WEIR_LEDGER_FAIL,
    WEIR_LEDGER_RELEASE,
    WEIR_LEDGER_EXPIRE,
    WEIR_LEDGER_CANCEL,
    WEIR_LEDGER_PURGE,
};

enum weir_ledger_reply {
    WEIR_LEDGER_APPLIED,
    WEIR_LEDGER_REPEATED, /* was so already, by the same token */
    WEIR_LEDGER_STALE,    /* state or token is another: nothing changed */
    WEIR_LEDGER_EXISTS,   /* submit: the key names a job with this fingerprint: `existing` */
    WEIR_LEDGER_CONFLICT, /* submit: the key names a job with another fingerprint */
    WEIR_LEDGER_NOT_FOUND,
};

struct weir_ledger_call {
    enum weir_ledger_op op;
    struct weir_task_id task; /* submit, cancel, purge: its job alone */
    uint8_t token[WEIR_TOKEN_BYTES];
    char words[WEIR_LEDGER_WORDS_BYTES]; /* fail and expire to DEAD, cancel: why */
    enum weir_status cause;              /* likewise */
    uint64_t now_wall_ms;                /* becomes finished_ms when the job ends by it */
    /* Commit, fail and expire: what becomes of the job. SUCCEEDED or FAILED when no task of it is open any more; all
     * else: it goes on. Its manifest is the artefacts of its last stage's DONE tasks by index. The cause of a FAILED
     * one is that of its first dead task, its words are `lead` and then that task's. */
    enum weir_job_state job_to;
    char lead[WEIR_LEDGER_LEAD_BYTES];
    struct weir_plan_range lost[WEIR_STAGE_COUNT]; /* fail and expire to DEAD: open ones in them become CANCELLED */
    union {
        struct {                               /* T1 */
            const struct weir_ledger_job *job; /* borrowed until applied; state, numerics_class.. start empty */
            uint32_t counts[WEIR_STAGE_COUNT];
            struct weir_plan_range ready; /* READY from the start; all others BLOCKED */
            bool keyed;
            uint8_t key[WEIR_SHA256_BYTES]; /* of the idempotency key, within the tenant */
        } submit;
        struct
        { /* T2: READY, or DELAYED whose time is over -> LEASED, attempt + 1, job RUNNING, class bound. STALE when
                  * the job is bound to another class */
            uint8_t worker[WEIR_ID_BYTES];
            uint64_t worker_pid;
            char numerics_class[WEIR_LEDGER_CLASS_BYTES];
        } lease;
        struct { /* T4: LEASED -> DONE; BLOCKED ones of the range -> READY */
            struct weir_blob artefacts, facts;
            struct weir_plan_range ready;
        } commit;
        struct { /* T5, T11. LEASED -> to: READY, DELAYED, DEAD (what is `lost` with it CANCELLED; cause and words are
                  * the job's unless it has some), CANCELLED, or BLOCKED: an input is lost, released + 1 unless charged;
                  * when `regress`: its producer DONE -> producer_to (READY, or BLOCKED when its own inputs are gone,
                  * too) with regress + 1, READY and DELAYED ones of `block` -> BLOCKED */
            enum weir_task_state to;
            uint64_t delay_ms;
            bool charged; /* fail + 1 */
            bool regress;
            enum weir_stage producer_stage;
            uint32_t producer_index;
            enum weir_task_state producer_to;
            struct weir_plan_range block;
        } fail;
        struct { /* T6: LEASED -> READY, BLOCKED or CANCELLED, released + 1 */
            enum weir_task_state to;
        } release;
        struct { /* T7: LEASED -> READY, BLOCKED, DELAYED, DEAD (as in fail) or CANCELLED; crash + 1 when charged, else
           * expired + 1 */
            enum weir_task_state to;
            uint64_t delay_ms;
            bool charged;
            uint32_t checkpoint_step;
        } expire;
        struct { /* T8 CANCELLING: open unleased tasks CANCELLED. T9 CANCELLED: from CANCELLING without a lease. T10
                  * EXPIRED: all open tasks CANCELLED */
            enum weir_job_state to;
        } cancel;
        struct { /* marks a terminal job as swept, or removes its rows */
            bool rows;
        } purge;
    } u;
    /* the answer */
    enum weir_ledger_reply reply;
    enum weir_job_state job_state;   /* after the call; of NOT_FOUND: 0 */
    enum weir_task_state task_state; /* likewise, of calls about a task */
    struct weir_job_id existing;     /* submit: the job's id, new or old */
};

/* Which rows a reader wants. */
struct weir_ledger_query {
    struct weir_job_id job;
    bool by_key; /* the job that (tenant, key) names, instead of `job` */
    const char *tenant;
    uint8_t key[WEIR_SHA256_BYTES];
    bool no_tasks, no_spec; /* they are left out */
    bool ranged;            /* only the tasks of `range` */
    struct weir_plan_range range;
};
enum weir_ledger_filter { WEIR_LEDGER_OPEN, WEIR_LEDGER_ALL, WEIR_LEDGER_UNSWEPT };
struct weir_ledger_page {
    enum weir_ledger_filter filter; /* UNSWEPT: terminal and not swept */
    bool newest_first;
    bool bounded; /* only jobs after `from` (before it with newest_first) */
    struct weir_job_id from;
    bool batched; /* only those of this batch */
    uint8_t batch[WEIR_ID_BYTES];
    bool no_tasks; /* they are left out */
    uint32_t limit;
};
/* tasks stand stage after stage, index after index. Returns false to stop. */
typedef bool weir_ledger_each(void *context, const struct weir_ledger_job *job, const struct weir_ledger_task *tasks,
                              size_t task_count);

/* The words of a job: `lead`, then `words`, cut to whole characters. `out` may not be one of them. */
void weir_ledger_words(const char *lead, const char *words, char out[WEIR_LEDGER_WORDS_BYTES]);

struct weir_ledger;
struct weir_ledger_ops {
    enum weir_status (*apply)(struct weir_ledger *ledger, struct weir_ledger_call *const calls[], size_t count,
                              struct weir_error *error);
    enum weir_status (*takeover)(struct weir_ledger *ledger, uint64_t *epoch, struct weir_error *error);
    enum weir_status (*replay)(struct weir_ledger *ledger, const struct weir_ledger_query *query,
                               weir_ledger_each *each, void *context, struct weir_error *error);
    enum weir_status (*page_open)(struct weir_ledger *ledger, const struct weir_ledger_page *page,
                                  weir_ledger_each *each, void *context, struct weir_error *error);
    void (*close)(struct weir_ledger *ledger);
};
struct weir_ledger {
    const struct weir_ledger_ops *ops; /* first member of every kind of ledger */
};

/* All calls in order, in one transaction: when it returns OK all of them are durable, else none is.
 * Errors   STALE (another broker has taken over: stop), STORE in words (a full disk, a failed write or fsync: stop
 *          acknowledging, exit 75; what was committed stays) */
static inline enum weir_status weir_ledger_apply(struct weir_ledger *ledger, struct weir_ledger_call *const calls[],
                                                 size_t count, struct weir_error *error)
{
    return count == 0 ? WEIR_OK : ledger->ops->apply(ledger, calls, count, error);
}
/* T12. Writes of earlier epochs are refused from here on. */
static inline enum weir_status weir_ledger_takeover(struct weir_ledger *ledger, uint64_t *epoch,
                                                    struct weir_error *error)
{
    return ledger->ops->takeover(ledger, epoch, error);
}
/* Errors   NOT_FOUND, as above */
static inline enum weir_status weir_ledger_replay(struct weir_ledger *ledger, const struct weir_ledger_query *query,
                                                  weir_ledger_each *each, void *context, struct weir_error *error)
{
    return ledger->ops->replay(ledger, query, each, context, error);
}
static inline enum weir_status weir_ledger_page_open(struct weir_ledger *ledger, const struct weir_ledger_page *page,
                                                     weir_ledger_each *each, void *context, struct weir_error *error)
{
    return ledger->ops->page_open(ledger, page, each, context, error);
}
static inline void weir_ledger_close(struct weir_ledger **ledger)
{
    if (*ledger != NULL) (*ledger)->ops->close(*ledger);
    *ledger = NULL;
}

/* In memory: the reference model, and what the simulator runs on. NO_MEMORY. */
enum weir_status weir_ledger_memory_open(struct weir_ledger **out, struct weir_error *error);
/* path  of the database file, made when missing; ":memory:" for tests. A lock file beside it (path + ".lock") keeps a
 *       second broker out: BUSY in words. A file of an older version becomes one of this; CONFLICT: of a newer one. */
enum weir_status weir_ledger_sqlite_open(const char *path, struct weir_ledger **out, struct weir_error *error);

#endif
