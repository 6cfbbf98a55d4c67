/*
 * The life of a server, whatever kind it is of: it starts from its disk, takes turns, is paused,
 * stopped in the middle of a step, crashes and starts again. In a turn it reads its clock once, or
 * before each event, and always after what it is given has arrived.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

enum {
    TURN_ENDS_MAX = 1000, /* in one turn; more is a loop */
};

static void turn(struct server *server);

void item_release(struct item *item)
{
    message_unref(item->message);
    blob_unref(item->blob);
    *item = (struct item){.type = ITEM_NONE};
}

static void items_clear(struct items *items, size_t from)
{
    for (size_t i = from; i < items->count; i++)
        item_release(&items->list[i]);
    items->count = 0;
}

static uint64_t clock_us_at(const struct server *server, uint64_t true_us)
{
    return server->local_us + (true_us - server->true_us) * server->rate / 1000000;
}

uint64_t server_clock_ms(const struct server *server)
{
    return clock_us_at(server, server->sim->now_us) / 1000;
}

/* The true time at which this server's clock shows that. */
static uint64_t true_us_of(const struct server *server, uint64_t clock_ms)
{
    uint64_t wanted_us;

    if (clock_ms > UINT64_MAX / 2000000000)
        return UINT64_MAX;
    wanted_us = clock_ms * 1000;
    if (wanted_us <= server->local_us)
        return server->sim->now_us;
    return server->true_us +
           ((wanted_us - server->local_us) * 1000000 + server->rate - 1) / server->rate;
}

void server_set_rate(struct server *server, uint64_t rate)
{
    server->local_us = clock_us_at(server, server->sim->now_us);
    server->true_us = server->sim->now_us;
    server->rate = rate;
}

static void schedule_own(struct server *server, uint64_t us, enum event_type type)
{
    schedule_add(server->sim, us,
                 (struct event){.type = type, .slot = server->slot, .boot = server->boot});
}

void server_create(struct sim *sim, unsigned slot, bool starts_cluster)
{
    struct server *server = &sim->servers[slot];

    assert(server->state == SERVER_UNUSED && sim->ids + 1 < SIM_IDS_MAX);
    server->sim = sim;
    server->slot = slot;
    server->id = ++sim->ids;
    sim->slot_of_id[server->id] = slot;
    server->state = SERVER_DOWN;
    server->starts_cluster = starts_cluster;
    server->was_member = starts_cluster;
    server->held_down = false;
    server->rate = rng_between(&sim->rng, sim->plan.rate_min, sim->plan.rate_max);
    server->local_us = rng_below(&sim->rng, 1000000000);
    server->true_us = sim->now_us;
    server->timer_us = UINT64_MAX;
    sim->kind->create(server);
    server_restart(server);
}

void server_destroy(struct server *server)
{
    struct sim *sim = server->sim;

    if (server->state == SERVER_UNUSED)
        return;
    items_clear(&server->inbox, 0);
    items_clear(&server->batch, server->batch_next);
    item_release(&server->item);
    free(server->inbox.list);
    free(server->batch.list);
    disk_wipe(server);
    sim->kind->destroy(server);
    sim->slot_of_id[server->id] = SIM_SERVERS_MAX;
    /* The place is as new, but for events of this one that are still to come. */
    *server = (struct server){.sim = sim, .slot = server->slot, .boot = server->boot + 1};
}

struct server *server_by_id(struct sim *sim, uint64_t id)
{
    unsigned slot = id < SIM_IDS_MAX ? sim->slot_of_id[id] : SIM_SERVERS_MAX;

    return slot == SIM_SERVERS_MAX ? NULL : &sim->servers[slot];
}

bool server_leads(const struct server *server)
{
    return server->state == SERVER_UP &&
           raft_get_role(server->sim->kind->get_raft(server)) == RAFT_LEADER;
}

struct server *sim_leader(struct sim *sim)
{
    struct server *leader = NULL;

    for (unsigned slot = 0; slot < SIM_SERVERS_MAX; slot++) {
        struct server *server = &sim->servers[slot];
        if (server_leads(server) &&
            (leader == NULL || raft_get_term(sim->kind->get_raft(server)) >
                                   raft_get_term(sim->kind->get_raft(leader))))
            leader = server;
    }
    return leader;
}

/* Life and death */

void server_restart(struct server *server)
{
    struct sim *sim = server->sim;

    if (server->state != SERVER_DOWN || server->held_down)
        return;
    server->state = SERVER_RECOVERING;
    server->boot++;
    if (rng_below(&sim->rng, 2) == 0) { /* the machine, too: its clock begins anew */
        server->local_us = rng_below(&sim->rng, 1000000000);
        server->true_us = sim->now_us;
    }
    schedule_own(server, sim->now_us + rng_skewed(&sim->rng, 100, 50000), EVENT_RECOVERED);
}

static void recovered(struct server *server)
{
    struct sim *sim = server->sim;

    disk_recover(server);
    server->state = SERVER_UP;
    server->in_turn = true; /* START's actions may be stopped on the way, too */
    server->tick_first = false;
    server->tick_done = true;
    server->turn_ends = 0;
    server->batch_next = 0;
    server->now_ms = server_clock_ms(server);
    sim->stats->restarts++;
    sim->kind->start(server, server->now_ms);
    turn(server);
}

void server_crash(struct server *server, uint64_t restart_us)
{
    struct sim *sim = server->sim;

    if (server->state != SERVER_UP && server->state != SERVER_RECOVERING)
        return;
    trace_say(sim, server, "crashes, %llu writes not durable", server->disk.pending_count, 0, 0);
    sim->stats->crashes++;
    if (server->state == SERVER_RECOVERING)
        sim->stats->crashes_in_recovery++;
    else
        sim->kind->forget(server);
    disk_crash(server);
    items_clear(&server->inbox, 0);
    items_clear(&server->batch, server->batch_next);
    item_release(&server->item);
    server->state = SERVER_DOWN;
    server->boot++;
    server->in_turn = false;
    server->turn_scheduled = false;
    server->timer_us = UINT64_MAX;
    server->paused_until = 0;
    server->stall_us = 0;
    server->stops = false;
    schedule_own(server, restart_us, EVENT_RESTART);
}

/* Pauses */

void server_pause(struct server *server, uint64_t until_us)
{
    if (server->state != SERVER_UP || until_us <= server->paused_until)
        return;
    trace_say(server->sim, server, "is stopped until %llu us", until_us, 0, 0);
    server->paused_until = until_us;
    server->sim->stats->pauses++;
    if (until_us != UINT64_MAX)
        schedule_own(server, until_us, EVENT_RESUME);
}

bool server_stalls(struct server *server)
{
    struct sim *sim = server->sim;

    if (server->stall_us == 0 && !sim->recovering && rng_chance(&sim->rng, sim->plan.stall_chance))
        server->stall_us = rng_skewed(&sim->rng, 1000, 4000 * sim->plan.election_ms);
    /* At any of the places where it can. */
    if (server->stall_us == 0 || rng_below(&sim->rng, 2) == 0)
        return false;
    trace_say(sim, server, "is stopped in a step for %llu us", server->stall_us, 0, 0);
    sim->stats->stalls++;
    server->paused_until = sim->now_us + server->stall_us;
    server->stall_us = 0;
    schedule_own(server, server->paused_until, EVENT_RESUME);
    return true;
}

static void schedule_turn(struct server *server)
{
    struct sim *sim = server->sim;

    if (server->state != SERVER_UP || server->turn_scheduled || server->in_turn ||
        server->paused_until != 0)
        return;
    server->turn_scheduled = true;
    schedule_own(server, sim->now_us + rng_skewed(&sim->rng, 0, sim->plan.turn_max_us), EVENT_TURN);
}

void server_resume(struct server *server)
{
    if (server->state != SERVER_UP || server->paused_until == 0)
        return;
    trace_say(server->sim, server, "goes on", 0, 0, 0);
    server->paused_until = 0;
    disk_go_on(server);
    if (server->in_turn)
        turn(server);
    else
        schedule_turn(server);
}

/* Turns */

void server_post(struct server *server, struct item item)
{
    struct items *inbox = &server->inbox;

    if (server->state != SERVER_UP) {
        item_release(&item);
        return;
    }
    inbox->list = sim_grow(inbox->list, &inbox->capacity, inbox->count + 1, sizeof(*inbox->list));
    inbox->list[inbox->count++] = item;
    schedule_turn(server);
}

static void begin_turn(struct server *server)
{
    struct items batch = server->batch;

    assert(!server->in_turn && batch.count == 0);
    server->batch = server->inbox;
    server->inbox = batch;
    server->batch_next = 0;
    server->in_turn = true;
    server->tick_first = rng_below(&server->sim->rng, 2) == 0;
    server->tick_done = false;
    server->turn_ends = 0;
    server->now_ms = server_clock_ms(server);
}

static bool tick_is_due(const struct server *server)
{
    return server->sim->kind->get_deadline_ms(server) <= server->now_ms;
}

/* The turn's next item; false: it is over. */
static bool next_item(struct server *server, struct item *ret_item)
{
    if (server->tick_first && !server->tick_done) {
        server->tick_done = true;
        if (tick_is_due(server)) {
            *ret_item = (struct item){.type = ITEM_TICK};
            return true;
        }
    }
    if (server->batch_next < server->batch.count) {
        *ret_item = server->batch.list[server->batch_next++];
        return true;
    }
    if (!server->tick_done) {
        server->tick_done = true;
        if (tick_is_due(server)) {
            *ret_item = (struct item){.type = ITEM_TICK};
            return true;
        }
    }
    if (server->sim->kind->wants_turn_end(server)) {
        if (++server->turn_ends > TURN_ENDS_MAX)
            sim_fail(server->sim, SIM_LIVENESS, "server %u: a turn does not end",
                     (unsigned)server->id);
        *ret_item = (struct item){.type = ITEM_TURN_END};
        return true;
    }
    return false;
}

static void set_timer(struct server *server)
{
    uint64_t deadline_ms = server->sim->kind->get_deadline_ms(server);
    uint64_t us = true_us_of(server, deadline_ms);

    if (us == UINT64_MAX || us >= server->timer_us)
        return;
    /* Timers are never early and often late. */
    us += rng_skewed(&server->sim->rng, 0, 1000);
    server->timer_us = us;
    schedule_own(server, us, EVENT_TIMER);
}

static void turn(struct server *server)
{
    struct sim *sim = server->sim;
    const uint64_t boot = server->boot;

    for (;;) {
        if (!sim->kind->carry_out(server))
            return;
        if (server->state != SERVER_UP || server->boot != boot)
            return;
        item_release(&server->item);
        if (sim->plan.read_clock_often)
            server->now_ms = server_clock_ms(server);
        if (server_stalls(server))
            return;
        if (!next_item(server, &server->item))
            break;
        sim->stats->steps++;
        sim->kind->step(server, &server->item, server->now_ms);
    }
    server->batch.count = 0;
    server->in_turn = false;
    if (server->inbox.count > 0)
        schedule_turn(server);
    set_timer(server);
}

static void on_timer(struct server *server)
{
    server->timer_us = UINT64_MAX;
    if (server->in_turn)
        return;
    if (server->paused_until != 0) /* the turn after the pause sees to it */
        return;
    if (server->sim->kind->get_deadline_ms(server) <= server_clock_ms(server))
        schedule_turn(server);
    else
        set_timer(server);
}

void server_event(struct server *server, const struct event *event)
{
    struct sim *sim = server->sim;

    if (event->boot != server->boot) {
        if (event->type == EVENT_SNAPSHOT_STORED || event->type == EVENT_SNAPSHOT_RECEIVED)
            blob_unref(event->blob);
        return;
    }
    switch (event->type) {
    case EVENT_TURN:
        server->turn_scheduled = false;
        if (server->paused_until == 0 && !server->in_turn) {
            begin_turn(server);
            turn(server);
        }
        break;
    case EVENT_TIMER:
        on_timer(server);
        break;
    case EVENT_RESUME:
        if (server->paused_until <= sim->now_us)
            server_resume(server);
        break;
    case EVENT_SYNCED:
        disk_synced(server, event->failed);
        break;
    case EVENT_SNAPSHOT_STORED:
    case EVENT_SNAPSHOT_RECEIVED:
        disk_snapshot_stored(server, event->blob, event->type == EVENT_SNAPSHOT_STORED);
        break;
    case EVENT_STOP:
        server_crash(server, sim->now_us + rng_skewed(&sim->rng, 1000, 1000000));
        break;
    case EVENT_RESTART:
        server_restart(server);
        break;
    case EVENT_RECOVERED:
        recovered(server);
        break;
    default:
        assert(false);
    }
}
