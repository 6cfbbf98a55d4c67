/*
 * Random runs of several servers of the core alone, over models of disks, a network that loses,
 * repeats and reorders, and clocks that differ in rate up to the bound: lib/raft_cluster.h says
 * what is checked at every action. Then all goes well for a while, and a leader must be found, and
 * commit.
 *
 * SEED=number replays the run of that seed, RUNS=number says how many there are.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/raft_cluster.h"
#include "tests/lib/tap.h"

enum {
    RUNS = 400,
    EVENTS = 12000,
    SERVERS = 6,
};

struct run {
    struct cluster *cluster;
    uint64_t random;
    double now_ms;
    double rate[SERVERS + 1]; /* of each server's clock, by id */
    uint64_t lost_permille;
    uint64_t change_permille;
    uint64_t crash_permille;
    uint64_t step_us;
    uint64_t reordered_permille;
    size_t queue_max; /* the longer, the older messages get */
    bool slow_disks;
    bool down[SERVERS + 1][SERVERS + 1]; /* messages from the one to the other are lost */
};

/* What was seen over all runs, so that a test that sees nothing is noticed. */
static struct {
    long elections, commits, reads, leases, restores, restarts, changes, transfers, failures;
} seen;

static uint64_t next(struct run *run)
{
    uint64_t z = (run->random += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static uint64_t below(struct run *run, uint64_t limit)
{
    return next(run) % limit;
}

static void watch(void *context, const struct cluster_server *server,
                  const struct raft_action *action, const struct cluster_message *message)
{
    (void)context;
    (void)server;
    (void)message;
    seen.elections += action->type == RAFT_ACTION_ROLE && action->role.role == RAFT_LEADER;
    seen.commits += action->type == RAFT_ACTION_COMMIT;
    seen.reads += action->type == RAFT_ACTION_READ_READY;
    seen.restores += action->type == RAFT_ACTION_RESTORE;
}

static void advance(struct run *run, double ms)
{
    run->now_ms += ms;
    for (size_t i = 0; i < run->cluster->servers_count; i++) {
        struct cluster_server *server = run->cluster->servers[i];
        server->now_ms = (uint64_t)(run->now_ms * run->rate[server->id]);
    }
}

static void tick(struct run *run, struct cluster_server *server)
{
    if (server->started && raft_get_deadline_ms(server->raft) <= server->now_ms)
        cluster_step(run->cluster, server, (struct raft_event){.type = RAFT_EVENT_TICK});
}

static void deliver_at(struct run *run, size_t at)
{
    struct cluster_message *message = cluster_take(run->cluster, at);
    const struct cluster_server *to = cluster_server(run->cluster, message->raft.to);

    if (to == NULL || (!to->cut && !run->down[message->raft.from][message->raft.to]))
        cluster_deliver(run->cluster, message);
    cluster_message_free(message);
}

static void change(struct run *run, struct cluster_server *server)
{
    struct raft_event event = {.type = RAFT_EVENT_CHANGE};

    event.change.type = (enum raft_change_type)(1 + below(run, 4));
    event.change.id = 1 + below(run, SERVERS);
    seen.changes += cluster_step(run->cluster, server, event) == RAFT_OK;
}

static void snapshot(struct run *run, struct cluster_server *server)
{
    uint64_t index = server->commit;

    if (index > raft_get_durable(server->raft))
        index = raft_get_durable(server->raft);
    if (index > server->disk.last)
        index = server->disk.last;
    if (index <= server->snapshot.index || index <= raft_get_log_base(server->raft))
        return;
    cluster_snapshot(run->cluster, server, index, index - below(run, 3) % index,
                     1 + below(run, 40));
}

static void restart(struct run *run, struct cluster_server *server)
{
    uint64_t kept = server->reported + below(run, server->issued - server->reported + 1);

    seen.restarts++;
    if (!cluster_restart(run->cluster, server, kept) ||
        cluster_start(run->cluster, server) != RAFT_OK) {
        tap_note("server %" PRIu64 " refuses what is on its own disk", server->id);
        run->cluster->violations++;
    }
}

static void disk(struct run *run, struct cluster_server *server)
{
    if (server->role == RAFT_FAILED || !server->started)
        return;
    if (server->incoming_whole && below(run, 4) == 0) {
        if (below(run, 10) == 0) {
            server->incoming_whole = false;
            cluster_step(run->cluster, server,
                         (struct raft_event){.type = RAFT_EVENT_SNAPSHOT_REFUSED});
        } else {
            cluster_installed(run->cluster, server);
        }
    }
    if (server->reported < server->issued && (!run->slow_disks || below(run, 4) == 0))
        cluster_persisted(run->cluster, server,
                          server->reported + 1 + below(run, server->issued - server->reported));
}

static void call(struct run *run, struct cluster_server *server)
{
    /* Mostly one that may do it. */
    for (int i = 0; i < 8 && server->role != RAFT_LEADER; i++)
        server = run->cluster->servers[below(run, run->cluster->servers_count)];
    if (!server->started)
        return;
    struct raft_event event = {.type = RAFT_EVENT_PROPOSE};
    uint64_t lease_ms;

    switch (below(run, 8)) {
    case 0:
    case 1:
    case 2:
        event.propose.count = 1 + (uint32_t)below(run, 3);
        event.propose.bytes = (uint32_t)below(run, RAFT_ENTRY_BYTES_MAX);
        cluster_step(run->cluster, server, event);
        break;
    case 3:
    case 4:
    case 5:
        lease_ms = raft_get_lease_ms(server->raft);
        seen.leases += cluster_read(run->cluster, server) == RAFT_OK && lease_ms > server->now_ms;
        break;
    case 6:
        if (below(run, 1000) < run->change_permille)
            change(run, server);
        break;
    case 7:
        event.type = RAFT_EVENT_TRANSFER;
        event.transfer.to = 1 + below(run, SERVERS);
        if (below(run, 4) == 0)
            seen.transfers += cluster_step(run->cluster, server, event) == RAFT_OK;
        break;
    }
}

static void event(struct run *run)
{
    struct cluster_server *server = run->cluster->servers[below(run, run->cluster->servers_count)];
    const uint64_t dice = below(run, 1000);

    advance(run, (double)below(run, run->step_us) / 1000);
    if (run->cluster->queue_count > run->queue_max)
        cluster_message_free(cluster_take(run->cluster, 0));
    if (run->cluster->queue_count > 0 && dice < 500) {
        const size_t count = run->cluster->queue_count;
        const size_t at = below(run, 1000) < run->reordered_permille ? below(run, count) : 0;
        if (below(run, 1000) < run->lost_permille)
            cluster_message_free(cluster_take(run->cluster, at));
        else if (below(run, 1000) < run->lost_permille)
            cluster_put(run->cluster, run->cluster->queue[at]);
        else
            deliver_at(run, at);
    } else if (dice < 700) {
        disk(run, server);
    } else if (dice < 800) {
        tick(run, server);
    } else if (dice < 900) {
        if (server->started)
            cluster_turn_end(run->cluster, server);
    } else if (dice < 970) {
        if (server->started)
            call(run, server);
    } else if (dice < 985) {
        if (server->started && server->role != RAFT_FAILED && below(run, 3) == 0)
            snapshot(run, server);
    } else if (dice < 990) {
        if (below(run, 2) == 0)
            server->cut = below(run, 1000) < 2 * run->lost_permille;
        else
            run->down[server->id][1 + below(run, SERVERS)] =
                below(run, 1000) < 5 * run->lost_permille;
    } else if (below(run, 1000) < run->crash_permille) {
        if (below(run, 5) == 0 && server->started && server->role != RAFT_FAILED) {
            cluster_step(run->cluster, server,
                         (struct raft_event){.type = RAFT_EVENT_PERSIST_FAILED});
            seen.failures++;
        } else {
            restart(run, server);
        }
    } else if (below(run, 20) == 0) {
        advance(run, (double)below(run, 2500));
    }
}

/* All goes well: a leader is found, and what it takes is committed by all its members. */
static bool ends_well(struct run *run)
{
    struct cluster *cluster = run->cluster;

    memset(run->down, 0, sizeof(run->down));
    for (size_t i = 0; i < cluster->servers_count; i++) {
        cluster->servers[i]->cut = false;
        if (cluster->servers[i]->role == RAFT_FAILED)
            restart(run, cluster->servers[i]);
    }
    for (int i = 0; i < 4000 && cluster->violations == 0; i++) {
        struct cluster_server *leader = NULL;
        struct raft_member members[RAFT_MEMBERS_MAX];
        bool all = true;
        advance(run, 20);
        for (size_t j = 0; j < cluster->servers_count; j++)
            tick(run, cluster->servers[j]);
        cluster_settle(cluster);
        for (size_t j = 0; j < cluster->servers_count; j++)
            if (cluster->servers[j]->role == RAFT_LEADER)
                leader = cluster->servers[j];
        if (leader == NULL || i < 1000)
            continue;
        if (leader->snapshot.index == 0 || raft_wants_snapshot(leader->raft))
            snapshot(run, leader);
        if (i % 100 != 99)
            continue;
        cluster_step(cluster, leader,
                     (struct raft_event){.type = RAFT_EVENT_PROPOSE, .propose = {1, 1}});
        cluster_read(cluster, leader);
        cluster_turn_end(cluster, leader);
        cluster_settle(cluster);
        const size_t count = raft_get_members_at(leader->raft, leader->log.last, members);
        for (size_t j = 0; j < count; j++)
            all = all && cluster->servers[members[j].id - 1]->commit == leader->log.last;
        if (all && leader->reads_done == leader->reads && leader->role == RAFT_LEADER)
            return true;
    }
    return false;
}

static void describe(const struct cluster_server *server)
{
    struct raft_member members[RAFT_MEMBERS_MAX];
    const size_t count = raft_get_members_at(server->raft, server->log.last, members);
    char text[3 * RAFT_MEMBERS_MAX] = "";

    for (size_t i = 0; i < count; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), " %c%s",
                 (char)('A' + members[i].id - 1), members[i].voter ? "" : "l");
    tap_note("%c: role %d, term %" PRIu64 ", last %" PRIu64 "/%" PRIu64 ", commit %" PRIu64
             ", base %" PRIu64 ", snapshot %" PRIu64 ", members%s",
             (char)('A' + server->id - 1), server->role, raft_get_term(server->raft),
             server->log.last, raft_get_term_at(server->raft, server->log.last), server->commit,
             raft_get_log_base(server->raft), server->snapshot.index, text);
}

static bool run_seed(uint64_t seed)
{
    struct run run = {.random = seed};
    const size_t voters = 1 + below(&run, 5);
    bool ok;

    run.cluster = cluster_new(voters, SERVERS - voters);
    run.cluster->seed = next(&run);
    run.cluster->watch = watch;
    run.lost_permille = below(&run, 3) * 60;
    run.change_permille = below(&run, 2) * 700;
    run.crash_permille = below(&run, 3) * 100;
    run.slow_disks = below(&run, 2);
    run.step_us = UINT64_C(4000) << below(&run, 5);
    run.reordered_permille = below(&run, 3) * 300;
    run.queue_max = (size_t)40 << below(&run, 5);
    for (uint64_t id = 1; id <= SERVERS; id++)
        run.rate[id] = 1 + (double)below(&run, 51) / 1000;
    for (size_t i = 0; i < run.cluster->servers_count; i++)
        cluster_start(run.cluster, run.cluster->servers[i]);
    for (int i = 0; i < EVENTS && run.cluster->violations == 0; i++)
        event(&run);
    ok = run.cluster->violations == 0;
    if (!ok)
        tap_note("a promise is broken");
    if (ok && !ends_well(&run)) {
        ok = false;
        tap_note("no end: nobody leads, or the log is not committed");
        for (size_t i = 0; i < run.cluster->servers_count; i++)
            describe(run.cluster->servers[i]);
    }
    if (!ok)
        tap_note("replay: SEED=%" PRIu64 " %s", seed, program_invocation_name);
    cluster_free(run.cluster);
    return ok;
}

int main(void)
{
    const char *given = getenv("SEED");
    const char *runs_text = getenv("RUNS");
    const int runs = runs_text != NULL ? atoi(runs_text) : given != NULL ? 1 : RUNS;
    uint64_t seed = given != NULL ? strtoull(given, NULL, 0)
                                  : (uint64_t)time(NULL) * 1000003 + (uint64_t)getpid();
    int bad = 0;

    tap_note("SEED=%" PRIu64, seed);
    for (int i = 0; i < runs && bad < 3; i++)
        bad += !run_seed(seed++);
    tap_equal(bad, 0, "%d random runs of up to %d servers", runs, SERVERS);
    tap_note("%ld elections, %ld commits, %ld reads (%ld by lease), %ld restored snapshots, "
             "%ld restarts, %ld changes, %ld transfers, %ld failures",
             seen.elections, seen.commits, seen.reads, seen.leases, seen.restores, seen.restarts,
             seen.changes, seen.transfers, seen.failures);
    if (given == NULL)
        tap_ok(seen.elections > 0 && seen.commits > 0 && seen.reads > 0 && seen.leases > 0 &&
                   seen.restores > 0 && seen.restarts > 0 && seen.changes > 0 &&
                   seen.transfers > 0 && seen.failures > 0,
               "they saw every kind of event");
    return tap_done();
}
