#include "broker/roster.h"

#include <stdlib.h>
#include <string.h>

#define PACES 1024 /* a power of two */

struct pace {
    uint64_t shape; /* mixed with the stage; 0: free */
    uint64_t ms;
};

struct weir_roster {
    uint32_t workers_max, end;
    struct weir_worker *workers;
    uint32_t model_count, class_count;
    uint8_t models[WEIR_ROSTER_MODELS_MAX][WEIR_SHA256_BYTES];
    char classes[WEIR_ROSTER_CLASSES_MAX][WEIR_LEDGER_CLASS_BYTES];
    struct pace paces[PACES];
};

enum weir_status weir_roster_create(uint32_t workers_max, struct weir_roster **out)
{
    struct weir_roster *roster = calloc(1, sizeof *roster);
    if (roster == NULL) return WEIR_NO_MEMORY;
    roster->workers_max = workers_max;
    roster->workers = calloc(workers_max, sizeof *roster->workers);
    if (roster->workers == NULL) {
        free(roster);
        return WEIR_NO_MEMORY;
    }
    *out = roster;
    return WEIR_OK;
}

void weir_roster_destroy(struct weir_roster **roster)
{
    if (*roster == NULL) return;
    free((*roster)->workers);
    free(*roster);
    *roster = NULL;
}

struct weir_worker *weir_roster_find(struct weir_roster *roster, const uint8_t id[WEIR_ID_BYTES])
{
    for (uint32_t k = 0; k < roster->end; k++) {
        struct weir_worker *worker = &roster->workers[k];
        if (worker->used && memcmp(worker->facts.id, id, WEIR_ID_BYTES) == 0) return worker;
    }
    return NULL;
}

struct weir_worker *weir_roster_at(struct weir_roster *roster, uint32_t slot)
{
    return slot < roster->end && roster->workers[slot].used ? &roster->workers[slot] : NULL;
}

uint32_t weir_roster_end(const struct weir_roster *roster)
{
    return roster->end;
}

struct weir_worker *weir_roster_hello(struct weir_roster *roster, const struct weir_worker_facts *facts,
                                      uint64_t now_ms)
{
    uint32_t numbers[WEIR_WORKER_MODELS_MAX];
    for (uint32_t k = 0; k < facts->model_count; k++) {
        numbers[k] = weir_roster_model(roster, facts->models[k]);
        if (numbers[k] == WEIR_ROSTER_NONE) return NULL;
    }
    const uint32_t class_number = weir_roster_class(roster, facts->numerics_class);
    if (class_number == WEIR_ROSTER_NONE) return NULL;

    struct weir_worker *worker = weir_roster_find(roster, facts->id);
    if (worker == NULL) {
        uint32_t slot = 0;
        while (slot < roster->workers_max && roster->workers[slot].used) slot++;
        if (slot == roster->workers_max) return NULL;
        worker = &roster->workers[slot];
        *worker = (struct weir_worker){ .used = true, .slot = slot };
        if (slot >= roster->end) roster->end = slot + 1;
    }
    worker->facts = *facts;
    memcpy(worker->model_numbers, numbers, facts->model_count * sizeof numbers[0]);
    worker->class_number = class_number;
    worker->connected = true;
    worker->draining = false;
    worker->credit = (struct weir_worker_credit){ 0 };
    worker->heard_ms = worker->said_ms = now_ms;
    worker->lost_ms = 0;
    return worker;
}

void weir_roster_remove(struct weir_roster *roster, struct weir_worker *worker)
{
    worker->used = false;
    while (roster->end > 0 && !roster->workers[roster->end - 1].used) roster->end--;
}

uint32_t weir_roster_model(struct weir_roster *roster, const uint8_t digest[WEIR_SHA256_BYTES])
{
    for (uint32_t k = 0; k < roster->model_count; k++) {
        if (memcmp(roster->models[k], digest, WEIR_SHA256_BYTES) == 0) return k;
    }
    if (roster->model_count == WEIR_ROSTER_MODELS_MAX) return WEIR_ROSTER_NONE;
    memcpy(roster->models[roster->model_count], digest, WEIR_SHA256_BYTES);
    return roster->model_count++;
}

uint32_t weir_roster_class(struct weir_roster *roster, const char *numerics_class)
{
    for (uint32_t k = 0; k < roster->class_count; k++) {
        if (strcmp(roster->classes[k], numerics_class) == 0) return k;
    }
    if (roster->class_count == WEIR_ROSTER_CLASSES_MAX || strlen(numerics_class) >= WEIR_LEDGER_CLASS_BYTES) {
        return WEIR_ROSTER_NONE;
    }
    strcpy(roster->classes[roster->class_count], numerics_class);
    return roster->class_count++;
}

const char *weir_roster_class_text(const struct weir_roster *roster, uint32_t number)
{
    return number < roster->class_count ? roster->classes[number] : "";
}

bool weir_worker_fits(const struct weir_worker *worker, enum weir_stage stage, uint32_t model, uint32_t class_number)
{
    if (!worker->used || !worker->connected || worker->draining) return false;
    if ((worker->facts.stages >> stage & 1u) == 0) return false;
    if (class_number != WEIR_ROSTER_NONE && class_number != worker->class_number) return false;
    for (uint32_t k = 0; k < worker->facts.model_count; k++) {
        if (worker->model_numbers[k] == model) return true;
    }
    return false;
}

bool weir_worker_has_room(const struct weir_worker *worker, enum weir_stage stage)
{
    const struct weir_worker_credit *credit = &worker->credit;
    uint32_t leases = credit->lane_count == 0 ? credit->leases : 0;
    for (uint32_t k = 0; k < credit->lane_count; k++) {
        if (credit->lanes[k].stages >> stage & 1u) leases = credit->lanes[k].leases;
    }
    return leases > 0 && worker->held_count < worker->facts.slots + 1;
}

void weir_worker_take_credit(struct weir_worker *worker, enum weir_stage stage)
{
    struct weir_worker_credit *credit = &worker->credit;
    if (credit->leases > 0) credit->leases--;
    for (uint32_t k = 0; k < credit->lane_count; k++) {
        if (credit->lanes[k].stages >> stage & 1u && credit->lanes[k].leases > 0) credit->lanes[k].leases--;
    }
}

static uint64_t pace_key(enum weir_stage stage, uint64_t shape)
{
    const uint64_t mixed = (shape ^ ((uint64_t)stage + 1) * 0x9e3779b97f4a7c15u) * 0xff51afd7ed558ccdu;
    return mixed == 0 ? 1 : mixed;
}

/* Two places for a key; when both are taken the first is given up: these are hints. */
static uint64_t pace_place(uint64_t key, int which)
{
    return (key >> (which == 0 ? 20 : 40)) & (PACES - 1);
}

void weir_roster_measured(struct weir_roster *roster, enum weir_stage stage, uint64_t shape, uint64_t ms)
{
    const uint64_t key = pace_key(stage, shape);
    struct pace *at = NULL;
    for (int which = 1; which >= 0; which--) {
        struct pace *pace = &roster->paces[pace_place(key, which)];
        if (pace->shape == key) {
            pace->ms = (3 * pace->ms + ms + 2) / 4;
            return;
        }
        if (pace->shape == 0 || which == 0) at = at != NULL && at->shape == 0 ? at : pace;
    }
    *at = (struct pace){ .shape = key, .ms = ms == 0 ? 1 : ms };
}

uint64_t weir_roster_expected_ms(const struct weir_roster *roster, enum weir_stage stage, uint64_t shape)
{
    const uint64_t key = pace_key(stage, shape);
    for (int which = 0; which < 2; which++) {
        const struct pace *pace = &roster->paces[pace_place(key, which)];
        if (pace->shape == key) return pace->ms;
    }
    return 0;
}
