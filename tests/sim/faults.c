/* What goes wrong: at random, by the weights of the plan. */
#include <string.h>

#include "sim.h"

static struct server *random_server(struct sim *sim)
{
    struct server *up[SIM_SERVERS_MAX] = {NULL};
    size_t count = 0;

    for (unsigned slot = 0; slot < SIM_SERVERS_MAX; slot++)
        if (sim->servers[slot].state == SERVER_UP)
            up[count++] = &sim->servers[slot];
    return count == 0 ? NULL : up[rng_below(&sim->rng, count)];
}

static struct server *leader_or_random(struct sim *sim)
{
    struct server *leader = rng_below(&sim->rng, 5) == 0 ? NULL : sim_leader(sim);

    return leader != NULL ? leader : random_server(sim);
}

/* Mostly about as long as an election, at times much longer. */
static uint64_t some_time_us(struct sim *sim)
{
    const uint64_t election_us = 1000 * sim->plan.election_ms;

    return rng_skewed(&sim->rng, election_us / 10, election_us * 8);
}

static void crash(struct sim *sim, struct server *server)
{
    uint64_t us = sim->now_us + rng_skewed(&sim->rng, 100, 4000 * sim->plan.election_ms);

    if (server != NULL)
        server_crash(server, us);
}

static void lose_power(struct sim *sim)
{
    const bool all = rng_below(&sim->rng, 2) == 0;

    sim->stats->power_losses++;
    for (unsigned slot = 0; slot < SIM_SERVERS_MAX; slot++)
        if (all || rng_below(&sim->rng, 2) == 0)
            crash(sim, &sim->servers[slot]);
}

static void partition(struct sim *sim)
{
    const uint64_t sides = rng_next(&sim->rng);
    const uint64_t until = sim->now_us + some_time_us(sim);

    sim->stats->partitions++;
    trace_say(sim, NULL, "the network is in two parts until %llu us", until, 0, 0);
    for (unsigned from = 0; from < SIM_SERVERS_MAX; from++)
        for (unsigned to = 0; to < SIM_SERVERS_MAX; to++)
            if ((sides >> from & 1) != (sides >> to & 1))
                network_cut(sim, from, to, until);
}

static void cut_one_way(struct sim *sim)
{
    struct server *from = leader_or_random(sim);
    struct server *to = random_server(sim);

    if (from == NULL || to == NULL)
        return;
    if (rng_below(&sim->rng, 2) == 0) {
        struct server *other = from;
        from = to;
        to = other;
    }
    sim->stats->one_way_cuts++;
    trace_say(sim, from, "reaches %llu no more for a while", to->id, 0, 0);
    network_cut(sim, from->slot, to->slot, sim->now_us + some_time_us(sim));
}

static void fail_write(struct sim *sim, struct server *server)
{
    if (server == NULL)
        return;
    server->disk.fail_next = true;
    /* So that something is written, and on its way to others first. */
    if (server_leads(server) && rng_below(&sim->rng, 2) == 0) {
        server->disk.slow_until_us = sim->now_us + some_time_us(sim);
        callers_propose(server, 1);
    }
}

/* Members */

static void ask_change(struct server *leader, enum raft_change_type type, uint64_t id)
{
    struct call call = {
        .type = CALL_CHANGE, .began_us = leader->sim->now_us, .change = {.type = type, .id = id}};

    server_post(leader, (struct item){.type = ITEM_CALL, .call = call});
}

static bool is_member(const struct machine *machine, uint64_t id)
{
    for (uint32_t i = 0; i < machine->members_count; i++)
        if (machine->members[i].id == id)
            return true;
    return false;
}

/* A removed server may go, or keep its disk and come back under its id. A new one takes its place.
 */
void faults_tidy_members(struct sim *sim)
{
    for (unsigned slot = 0; slot < SIM_SERVERS_MAX; slot++) {
        struct server *server = &sim->servers[slot];
        if (server->state == SERVER_UNUSED)
            continue;
        if (is_member(&sim->oracles.newest, server->id)) {
            server->was_member = true;
        } else if (server->was_member && rng_below(&sim->rng, 20) == 0 && !server->held_down) {
            trace_say(sim, server, "is wiped", 0, 0, 0);
            server_destroy(server);
        }
    }
}

static void change_members(struct sim *sim, struct server *leader)
{
    const struct raft *raft = sim->kind->get_raft(leader);
    struct raft_member members[RAFT_MEMBERS_MAX];
    const size_t count = raft_get_members_at(raft, raft_get_last_index(raft), members);
    const struct raft_member *member;
    size_t voters = 0;

    for (size_t i = 0; i < count; i++)
        voters += members[i].voter;
    if (rng_below(&sim->rng, 3) == 0) {
        /* Add one that there is, or a new one. */
        const unsigned slot = (unsigned)rng_below(&sim->rng, SIM_SERVERS_MAX);
        struct server *server = &sim->servers[slot];
        if (server->state == SERVER_UNUSED) {
            if (sim->ids + 1 >= SIM_IDS_MAX || slot > sim->plan.servers + 3)
                return;
            server_create(sim, slot, false);
        }
        ask_change(leader, RAFT_CHANGE_ADD_LEARNER, server->id);
        return;
    }
    if (count == 0)
        return;
    member = &members[rng_below(&sim->rng, count)];
    if (!member->voter && rng_below(&sim->rng, 4) != 0)
        ask_change(leader, RAFT_CHANGE_PROMOTE, member->id);
    else if (!member->voter)
        ask_change(leader, RAFT_CHANGE_REMOVE, member->id);
    else if (voters > 1 && (voters > sim->plan.servers || rng_below(&sim->rng, 3) == 0))
        ask_change(leader, rng_below(&sim->rng, 2) == 0 ? RAFT_CHANGE_DEMOTE : RAFT_CHANGE_REMOVE,
                   member->id);
}

/* One change, or several at once, of which one at most may be taken; by whoever thinks it leads. */
static void ask_changes(struct sim *sim)
{
    const uint64_t count = rng_below(&sim->rng, 3) == 0 ? rng_between(&sim->rng, 2, 8) : 1;

    faults_tidy_members(sim);
    for (unsigned slot = 0; slot < SIM_SERVERS_MAX; slot++)
        for (uint64_t i = 0; i < count && server_leads(&sim->servers[slot]); i++)
            change_members(sim, &sim->servers[slot]);
}

static void ask_transfer(struct sim *sim)
{
    struct server *leader = sim_leader(sim);

    if (leader == NULL)
        return;
    callers_transfer(leader);
    switch (rng_below(&sim->rng, 3)) {
    case 0: /* the go-ahead may come late, when it was given up */
        sim->network.slow_type = RAFT_MESSAGE_TIMEOUT_NOW;
        sim->network.slow_until = sim->now_us + some_time_us(sim);
        break;
    case 1:
        sim->adversary.hand_over_until = sim->now_us + some_time_us(sim);
        break;
    default:
        break;
    }
}

static void strike(struct sim *sim, enum fault fault)
{
    struct server *server;

    switch (fault) {
    case FAULT_CRASH:
        crash(sim, random_server(sim));
        break;
    case FAULT_CRASH_LEADER:
        crash(sim, leader_or_random(sim));
        break;
    case FAULT_POWER_LOSS:
        lose_power(sim);
        break;
    case FAULT_PAUSE:
    case FAULT_PAUSE_LEADER:
        server = fault == FAULT_PAUSE ? random_server(sim) : leader_or_random(sim);
        if (server != NULL)
            server_pause(server, sim->now_us + some_time_us(sim));
        break;
    case FAULT_STALL:
        server = leader_or_random(sim);
        if (server != NULL)
            server->stall_us = some_time_us(sim);
        break;
    case FAULT_PARTITION:
        partition(sim);
        break;
    case FAULT_ONE_WAY_CUT:
        cut_one_way(sim);
        break;
    case FAULT_ISOLATE_LEADER:
        server = leader_or_random(sim);
        if (server != NULL) {
            sim->stats->leaders_isolated++;
            adversary_isolate(server, sim->now_us + some_time_us(sim));
        }
        break;
    case FAULT_SLOW_TYPE:
        sim->network.slow_type = (enum raft_message_type)rng_between(
            &sim->rng, RAFT_MESSAGE_PRE_VOTE, RAFT_MESSAGE_TIMEOUT_NOW);
        sim->network.slow_until = sim->now_us + some_time_us(sim);
        break;
    case FAULT_LOSS:
        sim->network.lossy_until = sim->now_us + some_time_us(sim);
        break;
    case FAULT_WRITE_ERROR:
        fail_write(sim, random_server(sim));
        break;
    case FAULT_WRITE_ERROR_LEADER:
        fail_write(sim, leader_or_random(sim));
        break;
    case FAULT_SLOW_DISK:
        server = leader_or_random(sim);
        if (server != NULL) {
            sim->stats->slow_disks++;
            server->disk.slow_until_us = sim->now_us + some_time_us(sim);
        }
        break;
    case FAULT_FULL_DISK:
        server = leader_or_random(sim);
        if (server != NULL) {
            sim->stats->full_disks++;
            server->disk.full_until_us = sim->now_us + some_time_us(sim);
        }
        break;
    case FAULT_RATE:
        server = random_server(sim);
        if (server != NULL) {
            sim->stats->rate_changes++;
            server_set_rate(server, rng_between(&sim->rng, sim->plan.rate_min, sim->plan.rate_max));
        }
        break;
    case FAULT_SNAPSHOT:
        server = leader_or_random(sim);
        if (server != NULL)
            server_post(server, (struct item){.type = ITEM_CALL, .call = {.type = CALL_SNAPSHOT}});
        break;
    case FAULT_CHANGE:
        ask_changes(sim);
        break;
    case FAULT_TRANSFER:
        ask_transfer(sim);
        break;
    case FAULT_WAKE_LEADER:
        adversary_begin_wake(sim);
        break;
    case FAULT_HUNT:
        sim->adversary.hunt_until = sim->now_us + 4 * some_time_us(sim);
        break;
    case FAULT_DUEL:
        adversary_begin_duel(sim);
        break;
    case FAULT_STRIKE:
        sim->adversary.strike_until = sim->now_us + some_time_us(sim);
        break;
    case FAULT_DEAFEN:
        adversary_deafen(sim);
        break;
    case FAULTS_COUNT:
        break;
    }
}

void faults_event(struct sim *sim)
{
    const struct plan *plan = &sim->plan;
    uint64_t all = 0;
    uint64_t at;
    unsigned fault = 0;

    if (sim->recovering)
        return;
    for (unsigned i = 0; i < FAULTS_COUNT; i++)
        all += plan->weights[i];
    at = rng_below(&sim->rng, all);
    while (at >= plan->weights[fault])
        at -= plan->weights[fault++];
    strike(sim, (enum fault)fault);
    schedule_add(sim, sim->now_us + rng_between(&sim->rng, 1, 2 * plan->fault_us),
                 (struct event){.type = EVENT_FAULT});
}

/* A voter may stay down for good where every configuration that a server has can do without it. */
static struct server *choose_victim(struct sim *sim)
{
    struct server *victim = &sim->servers[rng_below(&sim->rng, SIM_SERVERS_MAX)];

    if (victim->state == SERVER_UNUSED || rng_below(&sim->rng, 2) == 0)
        return NULL;
    for (unsigned slot = 0; slot < SIM_SERVERS_MAX; slot++) {
        const struct server *server = &sim->servers[slot];
        struct raft_member members[RAFT_MEMBERS_MAX];
        size_t voters = 0;
        size_t count;
        if (server->state == SERVER_UNUSED)
            continue;
        if (server->state != SERVER_UP) /* who knows what it has */
            return NULL;
        count = raft_get_members_at(sim->kind->get_raft(server),
                                    raft_get_last_index(sim->kind->get_raft(server)), members);
        for (size_t i = 0; i < count; i++)
            voters += members[i].voter;
        if (count > 0 && voters < 3)
            return NULL;
    }
    return victim;
}

void faults_end(struct sim *sim)
{
    struct server *victim = choose_victim(sim);

    trace_say(sim, NULL, "all faults end", 0, 0, 0);
    network_heal(sim);
    adversary_end(sim);
    for (unsigned slot = 0; slot < SIM_SERVERS_MAX; slot++) {
        struct server *server = &sim->servers[slot];
        server->disk.slow_until_us = 0;
        server->disk.full_until_us = 0;
        server->disk.fail_next = false;
        server->stall_us = 0;
        server_resume(server);
    }
    if (victim != NULL) {
        trace_say(sim, victim, "stays down", 0, 0, 0);
        victim->held_down = true;
        server_crash(victim, sim->now_us);
    }
    for (unsigned slot = 0; slot < SIM_SERVERS_MAX; slot++)
        server_restart(&sim->servers[slot]);
}
