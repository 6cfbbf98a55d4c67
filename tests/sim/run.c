/* One run: a phase with faults, and then one without, in which the cluster must come to agree. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

enum {
    EVENTS_AT_A_TIME_MAX = 1000000, /* at one moment of virtual time */
    RECOVERY_ELECTIONS = 200,       /* election timeouts that recovery may take */
    RECOVERY_MS = 30000,            /* and these on top */
    RECOVERY_STEPS = 300000,        /* in which much less is to be done */
    LOOK_US = 2000,
};

void *sim_alloc(size_t size)
{
    void *memory = malloc(size == 0 ? 1 : size);

    assert(memory != NULL);
    return memory;
}

void *sim_grow(void *list, size_t *capacity, size_t wanted, size_t item_size)
{
    size_t larger = *capacity < 16 ? 16 : *capacity;

    if (wanted <= *capacity)
        return list;
    while (larger < wanted)
        larger *= 2;
    list = realloc(list, larger * item_size);
    assert(list != NULL);
    *capacity = larger;
    return list;
}

static void create_cluster(struct sim *sim)
{
    const unsigned servers = sim->plan.servers;

    for (unsigned slot = 0; slot < servers; slot++)
        sim->first_members[slot] = (struct raft_member){.id = slot + 1, .voter = true};
    machine_init(&sim->oracles.newest, sim->first_members, servers);
    for (unsigned id = 0; id < SIM_IDS_MAX; id++)
        sim->slot_of_id[id] = SIM_SERVERS_MAX;
    for (unsigned slot = 0; slot < SIM_SERVERS_MAX; slot++) {
        sim->servers[slot].sim = sim;
        sim->servers[slot].slot = slot;
    }
    for (unsigned slot = 0; slot < servers; slot++)
        server_create(sim, slot, true);
}

static void handle(struct sim *sim, const struct event *event)
{
    switch (event->type) {
    case EVENT_DELIVER:
        network_deliver(sim, event->slot, event->message);
        break;
    case EVENT_CALL:
        callers_event(sim);
        break;
    case EVENT_FAULT:
        faults_event(sim);
        break;
    case EVENT_SCENARIO:
        adversary_wake_event(sim);
        break;
    case EVENT_STRIKE:
        adversary_strike(sim, event);
        break;
    case EVENT_DUEL:
        adversary_duel_event(sim);
        break;
    case EVENT_CHECK:
        break;
    default:
        server_event(&sim->servers[event->slot], event);
        break;
    }
}

static void next(struct sim *sim, unsigned *at_a_time)
{
    struct event event;

    if (!schedule_next(sim, &event))
        sim_fail(sim, SIM_LIVENESS, "nothing will ever happen again");
    *at_a_time = event.us == sim->now_us ? *at_a_time + 1 : 0;
    if (*at_a_time > EVENTS_AT_A_TIME_MAX)
        sim_fail(sim, SIM_LIVENESS, "virtual time stands still at %" PRIu64 " us", sim->now_us);
    sim->now_us = event.us;
    handle(sim, &event);
}

static bool is_any_done(const struct sim *sim, uint64_t after)
{
    for (uint64_t command = after + 1; command < sim->oracles.commands_capacity; command++)
        if (sim->oracles.commands[command].done_index != 0)
            return true;
    return false;
}

static bool is_served(struct sim *sim, uint64_t after)
{
    return sim->kind->is_served != NULL ? sim->kind->is_served(sim) : is_any_done(sim, after);
}

/* Callers go on until one of them, who came after the faults, is told "done", and all members have
 * what had been applied by then, under that load; then all agree. */
static void recover(struct sim *sim, unsigned *at_a_time)
{
    const uint64_t before = sim->callers.commands;
    const uint64_t steps_max = sim->stats->steps + RECOVERY_STEPS;
    uint64_t deadline_us;
    char why[SIM_MESSAGE_CHARS / 2] = "no command is done";
    uint64_t mark = 0; /* entries applied when the first of those callers was told "done" */

    sim->recovering = true;
    faults_end(sim);
    deadline_us =
        sim->now_us + 1000 * (RECOVERY_MS + (uint64_t)RECOVERY_ELECTIONS * sim->plan.election_ms);
    while (sim->now_us < deadline_us && sim->stats->steps < steps_max) {
        const uint64_t look_us = sim->now_us + LOOK_US;
        schedule_add(sim, look_us, (struct event){.type = EVENT_CHECK});
        while (sim->now_us < look_us)
            next(sim, at_a_time);
        if (!sim->callers.stopped) {
            if (mark == 0 && is_served(sim, before))
                mark = sim->oracles.applied_count;
            sim->callers.stopped = mark != 0 && oracle_caught_up(sim, mark, why, sizeof(why));
        } else if (oracle_converged(sim, why, sizeof(why)))
            return;
    }
    sim_fail(sim, SIM_LIVENESS, "no recovery without faults: %s", why);
}

void sim_run(const struct options *options, struct sim_shared *shared)
{
    struct sim *sim = sim_alloc(sizeof(*sim));
    unsigned at_a_time = 0;

    memset(sim, 0, sizeof(*sim));
    sim->options = *options;
    sim->shared = shared;
    sim->stats = sim_shared_stats(shared);
    sim->kind = options->nodes ? &server_node : &server_raft;
    mutants_choose(options->mutant, &sim->stats->assertions_failed);
    sim->rng.state = rng_mix(options->seed * 8 + 7);
    plan_make(&sim->plan, options);
    create_cluster(sim);
    schedule_add(sim, 0, (struct event){.type = EVENT_CALL});
    schedule_add(sim, 1000 * sim->plan.election_ms, (struct event){.type = EVENT_FAULT});

    while (sim->stats->steps < sim->plan.events)
        next(sim, &at_a_time);
    recover(sim, &at_a_time);
    sim->stats->virtual_ms = sim->now_us / 1000;

    for (unsigned slot = 0; slot < SIM_SERVERS_MAX; slot++)
        server_destroy(&sim->servers[slot]);
    adversary_destroy(sim);
    schedule_destroy(sim);
    oracles_destroy(sim);
    if (sim->kind->end != NULL)
        sim->kind->end(sim);
    free(sim);
}
