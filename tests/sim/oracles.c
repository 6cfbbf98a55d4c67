/*
 * What must hold, in true time. Some of it is what callers and states show, and ends any run:
 * states that differ at the same entry, a command applied twice, an answer without an entry, a look
 * that is too old. The rest are invariants of the core (RAFT-PITFALLS), which a run with a mutant
 * only counts.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

static struct known_command *known_command(struct sim *sim, uint64_t command)
{
    struct oracles *oracles = &sim->oracles;
    size_t before = oracles->commands_capacity;

    oracles->commands = sim_grow(oracles->commands, &oracles->commands_capacity, command + 1,
                                 sizeof(*oracles->commands));
    memset(oracles->commands + before, 0,
           (oracles->commands_capacity - before) * sizeof(*oracles->commands));
    return &oracles->commands[command];
}

struct known_leader *oracle_leader(struct sim *sim, uint64_t term)
{
    struct oracles *oracles = &sim->oracles;
    size_t before = oracles->leaders_capacity;

    if (term > 10000000)
        sim_fail(sim, SIM_LIVENESS, "terms inflate: %" PRIu64, term);
    oracles->leaders =
        sim_grow(oracles->leaders, &oracles->leaders_capacity, term + 1, sizeof(*oracles->leaders));
    memset(oracles->leaders + before, 0,
           (oracles->leaders_capacity - before) * sizeof(*oracles->leaders));
    return &oracles->leaders[term];
}

/* What callers and states show */

uint64_t oracle_floor(const struct sim *sim)
{
    return sim->oracles.floor;
}

void oracle_applied(struct server *server, uint64_t index, const struct entry *entry)
{
    struct sim *sim = server->sim;
    struct oracles *oracles = &sim->oracles;
    const struct machine *machine = sim->kind->get_machine(server);

    if (index <= oracles->applied_count) {
        const struct applied_entry *applied = &oracles->applied[index - 1];
        if (applied->hash != machine->hash)
            sim_fail(sim, SIM_SAFETY,
                     "server %" PRIu64 " applies entry %" PRIu64 " with command %" PRIu64
                     ", another one applied command %" PRIu64 " there: states differ",
                     server->id, index, entry->command, applied->command);
        return;
    }
    if (index != oracles->applied_count + 1)
        sim_broken(sim, server, "applies entry %" PRIu64 " after %" PRIu64, index,
                   oracles->applied_count);
    oracles->applied =
        sim_grow(oracles->applied, &oracles->applied_capacity, index, sizeof(*oracles->applied));
    oracles->applied_count = index;
    oracles->applied[index - 1] =
        (struct applied_entry){.hash = machine->hash, .command = entry->command};
    if (entry->raft.type == RAFT_ENTRY_CHANGE)
        oracles->newest = *machine;
    if (entry->command != 0) {
        struct known_command *command = known_command(sim, entry->command);
        if (command->applied_index != 0)
            sim_fail(sim, SIM_SAFETY,
                     "command %" PRIu64 " is applied twice, as entries %" PRIu64 " and %" PRIu64,
                     entry->command, command->applied_index, index);
        command->applied_index = index;
    }
}

static bool same_members(const struct raft_member *a, size_t a_count, const struct raft_member *b,
                         size_t b_count)
{
    size_t same = 0;

    for (size_t i = 0; i < a_count; i++)
        for (size_t j = 0; j < b_count; j++)
            if (a[i].id == b[j].id && a[i].voter == b[j].voter)
                same++;
    return same == a_count && a_count == b_count;
}

void oracle_restored(struct server *server, const struct raft_member *members, size_t count)
{
    struct sim *sim = server->sim;
    const struct machine *machine = sim->kind->get_machine(server);

    if (machine->applied > sim->oracles.applied_count ||
        machine->hash != sim->oracles.applied[machine->applied - 1].hash)
        sim_fail(sim, SIM_SAFETY,
                 "server %" PRIu64 " restores entry %" PRIu64 " of another history: states differ",
                 server->id, machine->applied);
    if (!same_members(machine->members, machine->members_count, members, count))
        sim_broken(sim, server, "a snapshot has other members than its state");
}

void oracle_done(struct server *server, uint64_t command, uint64_t index)
{
    struct sim *sim = server->sim;
    struct known_command *known = known_command(sim, command);

    if (known->applied_index != index)
        sim_fail(sim, SIM_SAFETY,
                 "a caller of server %" PRIu64 " is told that command %" PRIu64
                 " is done as entry %" PRIu64 ", which is another one",
                 server->id, command, index);
    known->done_index = index;
    sim->stats->proposals_done++;
    sim->oracles.done_count++;
    if (sim->oracles.floor < index)
        sim->oracles.floor = index;
    trace_say(sim, server, "tells a caller: command %llu is done, entry %llu", command, index, 0);
}

void oracle_read(struct server *server, const struct call *call)
{
    struct sim *sim = server->sim;
    const struct machine *machine = sim->kind->get_machine(server);

    sim->stats->reads_answered++;
    trace_say(sim, server, "answers read %llu: entry %llu, wanted is %llu", call->first,
              machine->register_index, call->floor);
    if (sim->plan.clocks_beyond)
        return;
    if (machine->register_index < call->floor)
        sim_fail(sim, SIM_SAFETY,
                 "server %" PRIu64 " answers read %" PRIu64 " with entry %" PRIu64
                 "; before it began, a caller knew of entry %" PRIu64 ": a stale read",
                 server->id, call->first, machine->register_index, call->floor);
    if (sim->oracles.floor < machine->register_index)
        sim->oracles.floor = machine->register_index;
}

/* Invariants of the core */

static bool reads_by_lease(const struct server *server)
{
    return server_leads(server) &&
           raft_get_lease_ms(server->sim->kind->get_raft(server)) > server_clock_ms(server);
}

static void check_leases(struct sim *sim)
{
    if (sim->plan.clocks_beyond)
        return;
    for (unsigned slot = 0; slot < SIM_SERVERS_MAX; slot++) {
        const struct server *server = &sim->servers[slot];
        if (server->state == SERVER_UP && reads_by_lease(server) &&
            raft_get_term(sim->kind->get_raft(server)) < sim->oracles.last_term_led)
            sim_broken(sim, server, "reads by lease although term %" PRIu64 " has a leader",
                       sim->oracles.last_term_led);
    }
}

static void check_leader(struct server *server, const struct raft *raft)
{
    struct sim *sim = server->sim;
    const uint64_t term = raft_get_term(raft);
    struct known_leader *leader = oracle_leader(sim, term);

    if (raft_get_role(raft) == RAFT_LEADER) {
        if (leader->id == 0) {
            leader->id = server->id;
            leader->boot = server->boot;
            sim->stats->elections++;
            if (term == sim->oracles.last_term_given)
                sim->stats->transfers_done++;
            if (sim->oracles.last_term_led < term)
                sim->oracles.last_term_led = term;
            check_leases(sim);
            adversary_elected(server, term);
            if (!disk_voted(&server->disk, term, server->id))
                sim_broken(sim, server, "leads a term in which its own vote is not durable");
        } else if (leader->id != server->id || leader->boot != server->boot) {
            sim_broken(sim, server, "a second leader of term %" PRIu64 ", beside %" PRIu64, term,
                       leader->id);
        }
        if (term < sim->oracles.last_term_led && !sim->plan.clocks_beyond && reads_by_lease(server))
            sim_broken(sim, server, "reads by lease although term %" PRIu64 " has a leader",
                       sim->oracles.last_term_led);
    } else if (raft_get_leader(raft) != 0 && raft_get_leader(raft) != leader->id) {
        sim_broken(sim, server, "takes server %" PRIu64 " for the leader of term %" PRIu64,
                   raft_get_leader(raft), term);
    }
}

void oracle_started(struct server *server)
{
    struct sim *sim = server->sim;
    const struct raft *raft = sim->kind->get_raft(server);
    struct server_marks *marks = &sim->oracles.marks[server->slot];

    if (raft_get_term(raft) < server->disk.state.term)
        sim_broken(sim, server, "starts in an older term than its disk has");
    *marks = (struct server_marks){.boot = server->boot, .vote = server->disk.state};
}

void oracle_after_step(struct server *server)
{
    struct sim *sim = server->sim;
    const struct raft *raft = sim->kind->get_raft(server);
    struct server_marks *marks = &sim->oracles.marks[server->slot];

    if (raft_get_term(raft) < marks->term)
        sim_broken(sim, server, "its term goes back");
    if (raft_get_commit(raft) < marks->commit)
        sim_broken(sim, server, "its commit index goes back");
    if (raft_get_commit(raft) > raft_get_last_index(raft))
        sim_broken(sim, server, "commits more than it has");
    marks->term = raft_get_term(raft);
    marks->commit = raft_get_commit(raft);
    check_leader(server, raft);
}

void oracle_persist_state(struct server *server, uint64_t term, uint64_t vote)
{
    struct server_marks *marks = &server->sim->oracles.marks[server->slot];

    if (term < marks->vote.term)
        sim_broken(server->sim, server, "persists an older term");
    if (term == marks->vote.term && marks->vote.vote != 0 && marks->vote.vote != vote)
        sim_broken(server->sim, server, "takes back its vote for %" PRIu64, marks->vote.vote);
    marks->vote = (struct disk_state){.term = term, .vote = vote};
}

/* The end */

bool oracle_caught_up(struct sim *sim, uint64_t index, char *ret_why, size_t why_size)
{
    const struct machine *newest = &sim->oracles.newest;

    if (sim_leader(sim) == NULL) {
        snprintf(ret_why, why_size, "no leader");
        return false;
    }
    for (uint32_t i = 0; i < newest->members_count; i++) {
        const struct server *server = server_by_id(sim, newest->members[i].id);
        const struct machine *machine;
        if (server == NULL || server->held_down)
            continue;
        machine = server->state == SERVER_UP ? sim->kind->get_machine(server) : NULL;
        if (machine == NULL || machine->applied < index) {
            snprintf(ret_why, why_size,
                     "server %" PRIu64 " has applied %" PRIu64 ", wanted are %" PRIu64 " entries",
                     server->id, machine == NULL ? 0 : machine->applied, index);
            return false;
        }
    }
    return true;
}

bool oracle_converged(struct sim *sim, char *ret_why, size_t why_size)
{
    const struct server *leader = sim_leader(sim);

    if (!oracle_caught_up(sim, sim->oracles.applied_count, ret_why, why_size))
        return false;
    if (sim->kind->get_waiting != NULL && sim->kind->get_waiting(leader) > 0) {
        snprintf(ret_why, why_size, "%zu callers of server %" PRIu64 " have no answer",
                 sim->kind->get_waiting(leader), leader->id);
        return false;
    }
    return true;
}

void oracles_destroy(struct sim *sim)
{
    struct oracles *oracles = &sim->oracles;

    for (size_t i = 0; i < oracles->known_capacity; i++) {
        struct known_entry *next;
        for (struct known_entry *known = oracles->known[i]; known != NULL; known = next) {
            next = known->next;
            free(known);
        }
    }
    free(oracles->known);
    free(oracles->committed);
    free(oracles->applied);
    free(oracles->leaders);
    free(oracles->commands);
}
