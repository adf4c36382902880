/* sabotage: the simulator proves that it can fail. In the product the macro is the constant 0; the simulator builds the
 * rules a second time with WEIR_SABOTAGE_BUILD and plants one of these bugs at a time, each of which it must catch. */
#ifndef WEIR_BROKER_SABOTAGE_H
#define WEIR_BROKER_SABOTAGE_H

/* X(name, what the simulator's --sabotage calls it) */
#define WEIR_SABOTAGE_TABLE(X)                                                                                         \
    X(NONE, "none")                                                                                                    \
    X(ACK_BEFORE_COMMIT, "ack-before-commit")                                                                          \
    X(NO_TOKEN_CHECK, "no-token-check")                                                                                \
    X(LEASE_BEFORE_PERSIST, "lease-sent-before-persist")                                                               \
    X(DONE_TWICE, "done-accepted-twice")                                                                               \
    X(RENEW_STALE, "renew-with-a-stale-token")                                                                         \
    X(TOKEN_REUSED, "token-reused")                                                                                    \
    X(NO_SUCCESSOR, "successor-not-created")                                                                           \
    X(COMMIT_AFTER_CANCEL, "cancel-does-not-block-commit")                                                             \
    X(NO_REARM, "expiry-not-re-armed-after-restart")                                                                   \
    X(FORGET_CHECKPOINT, "retry-forgets-the-checkpoint")                                                               \
    X(DEAD_CLOSES_NEIGHBOURS, "dead-task-closes-other-items")                                                          \
    X(LOST_NOT_ENDED, "last-item-lost-and-job-not-ended")                                                              \
    X(LOST_LEFT_OPEN, "ledger-leaves-lost-tasks-open")

enum weir_sabotage {
#define X(name, words) WEIR_SABOTAGE_##name,
    WEIR_SABOTAGE_TABLE(X)
#undef X
        WEIR_SABOTAGE_COUNT
};

#ifdef WEIR_SABOTAGE_BUILD
extern enum weir_sabotage weir_sabotage_chosen; /* the simulator's */
#define WEIR_SABOTAGE(bug) (weir_sabotage_chosen == WEIR_SABOTAGE_##bug)
#else
#define WEIR_SABOTAGE(bug) 0
#endif

#endif
