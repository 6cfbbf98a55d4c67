/*
 * Callers sit on servers. They propose commands, each with a number of its own, and read. A caller
 * is told "done" only where its server has applied what it logged as leader; otherwise it never
 * learns what became of it.
 */
#include "sim.h"

uint32_t callers_command_bytes(const struct sim *sim, uint64_t command)
{
    struct rng rng = {.state = sim->options.seed ^ (command << 20)};

    return (uint32_t)rng_skewed(&rng, 0, sim->plan.entry_bytes_max);
}

void callers_propose(struct server *server, uint32_t count)
{
    struct sim *sim = server->sim;
    struct call call = {.type = CALL_PROPOSE,
                        .began_us = sim->now_us,
                        .first = sim->callers.commands + 1,
                        .count = count};

    sim->callers.commands += count;
    server_post(server, (struct item){.type = ITEM_CALL, .call = call});
}

void callers_read(struct server *server)
{
    struct sim *sim = server->sim;
    struct call call = {.type = CALL_READ,
                        .began_us = sim->now_us,
                        .first = ++sim->callers.reads,
                        .floor = oracle_floor(sim)};

    server_post(server, (struct item){.type = ITEM_CALL, .call = call});
}

void callers_transfer(struct server *server)
{
    struct sim *sim = server->sim;
    struct call call = {.type = CALL_TRANSFER, .began_us = sim->now_us};
    const struct raft *raft = sim->kind->get_raft(server);
    struct raft_member members[RAFT_MEMBERS_MAX];
    const size_t count = raft_get_members_at(raft, raft_get_last_index(raft), members);

    if (count == 0)
        return;
    call.to = members[rng_below(&sim->rng, count)].id;
    server_post(server, (struct item){.type = ITEM_CALL, .call = call});
}

/* Nearly always one that takes itself for the leader. */
static struct server *pick_server(struct sim *sim)
{
    struct server *up[SIM_SERVERS_MAX];
    struct server *leading[SIM_SERVERS_MAX];
    size_t up_count = 0;
    size_t leading_count = 0;

    for (unsigned slot = 0; slot < SIM_SERVERS_MAX; slot++) {
        struct server *server = &sim->servers[slot];
        if (server->state == SERVER_UP)
            up[up_count++] = server;
        if (server_leads(server))
            leading[leading_count++] = server;
    }
    if (leading_count > 0 && (sim->recovering || rng_below(&sim->rng, 20) != 0))
        return leading[rng_below(&sim->rng, leading_count)];
    return up_count == 0 ? NULL : up[rng_below(&sim->rng, up_count)];
}

void callers_event(struct sim *sim)
{
    const struct plan *plan = &sim->plan;
    uint64_t count = rng_below(&sim->rng, 30) == 0 ? rng_between(&sim->rng, 2, 30) : 1;

    if (sim->callers.stopped)
        return;
    for (uint64_t i = 0; i < count; i++) {
        struct server *server = pick_server(sim);
        if (server == NULL)
            break;
        if (rng_below(&sim->rng, 100) < plan->reads_percent ||
            (!sim->recovering && sim->now_us < sim->callers.quiet_until))
            callers_read(server);
        else
            callers_propose(server, (uint32_t)rng_skewed(&sim->rng, 1, plan->batch_max));
    }
    schedule_add(sim, sim->now_us + rng_between(&sim->rng, 1, 2 * plan->call_us),
                 (struct event){.type = EVENT_CALL});
}
