/* world: one seed of the simulator. The real broker (rules, turns, ledger) with pretend workers, clients, a pretend
 * network and store, on a clock that jumps from event to event. Everything that happens follows from the seed.
 *
 * Faults (each seed switches a random half of the kinds off; none after FAULTS_MS): messages lost, doubled, overtaken;
 * connections reset; workers killed, paused beyond their leases, failing, giving leases back, saying DONE twice with
 * other bytes; outputs lost from the store; the broker killed between any two of its calls and sends, and started
 * again; clients that repeat themselves, cancel, set deadlines.
 */
#ifndef WEIR_SIM_WORLD_H
#define WEIR_SIM_WORLD_H

#include "broker/broker.h"

#include "tests/sim/check.h"

#define SIM_WORKERS_MAX 5
#define SIM_JOBS_MAX 10
#define SIM_HELD_MAX 8
#define SIM_FAULTS_MS 6000
#define SIM_END_MS 240000 /* by then everything must have ended */

enum sim_ledger { SIM_MEMORY, SIM_SQLITE };

struct sim_totals {
    uint64_t seeds, jobs, lost, second_results, kills, broker_kills, pauses, resets, duplicates, dropped, stale,
        regressed, resumed, cancelled, failed, partly, lists, expired, succeeded, executions, messages;
    uint64_t seen[14]; /* T1 .. T13 */
};

/* Runs one seed; NULL when all went well, else what was violated (static text, or in `words`). */
const char *sim_run(uint64_t seed, enum sim_ledger ledger, bool verbose, struct sim_totals *totals, char words[400]);

#endif
