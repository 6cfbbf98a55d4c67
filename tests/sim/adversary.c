/*
 * What random faults alone hardly ever build, done on purpose. An adversary may see everything,
 * the disks and who leads, but does nothing that a network, a disk or a scheduler could not do.
 *
 *     wake      cut off the leader, stop it, let others elect and write, wake it
 *     hunt      for a while, cut off or crash each new leader, or the one before it
 *     duel      keep back one candidate's requests for votes until another one leads in its term
 *     hand-over cut off a leader when its go-ahead to another has left
 *     strike    when a leader has just committed something, cut it off and crash whoever has writes
 *               under way
 *     deafen    cut only the way from the leader to one other server
 *     replay    deliver old acknowledgements again to a new leader
 */
#include "sim.h"

static uint64_t some_time_us(struct sim *sim)
{
    const uint64_t election_us = 1000 * sim->plan.election_ms;

    return rng_skewed(&sim->rng, election_us / 10, election_us * 8);
}

/* As long as a few messages and writes take. */
static uint64_t a_moment_us(struct sim *sim)
{
    return rng_skewed(&sim->rng, 0, 4 * sim->plan.delay_max_us + 2 * sim->plan.sync_max_us);
}

void adversary_isolate(struct server *server, uint64_t until_us)
{
    struct sim *sim = server->sim;
    const uint64_t how = rng_below(&sim->rng, 4);

    trace_say(sim, server, "is cut off (%llu)", how, 0, 0);
    for (unsigned slot = 0; slot < SIM_SERVERS_MAX; slot++) {
        if (how != 0)
            network_cut(sim, server->slot, slot, until_us);
        if (how != 1)
            network_cut(sim, slot, server->slot, until_us);
    }
}

static void cut_off(struct server *server, uint64_t until_us)
{
    struct sim *sim = server->sim;

    trace_say(sim, server, "is cut off", 0, 0, 0);
    for (unsigned slot = 0; slot < SIM_SERVERS_MAX; slot++) {
        network_cut(sim, server->slot, slot, until_us);
        network_cut(sim, slot, server->slot, until_us);
    }
}

static void join_again(struct server *server)
{
    for (unsigned slot = 0; slot < SIM_SERVERS_MAX; slot++) {
        server->sim->network.cut_until[slot][server->slot] = 0;
        server->sim->network.cut_until[server->slot][slot] = 0;
    }
}

static void plan_strike(struct server *server, enum strike strike, uint64_t us)
{
    schedule_add(
        server->sim, server->sim->now_us + us,
        (struct event){
            .type = EVENT_STRIKE, .slot = server->slot, .boot = server->boot, .strike = strike});
}

static void crash_soon_back(struct server *server)
{
    struct sim *sim = server->sim;

    server_crash(server, sim->now_us + rng_skewed(&sim->rng, 100, 300 * sim->plan.election_ms));
}

void adversary_strike(struct sim *sim, const struct event *event)
{
    struct server *server = &sim->servers[event->slot];

    if (sim->recovering || server->boot != event->boot)
        return;
    switch (event->strike) {
    case STRIKE_ISOLATE:
        sim->stats->leaders_isolated++;
        cut_off(server, sim->now_us + some_time_us(sim));
        break;
    case STRIKE_CRASH:
        crash_soon_back(server);
        break;
    case STRIKE_COMMIT:
        cut_off(server, sim->now_us + 2 * some_time_us(sim));
        for (unsigned slot = 0; slot < SIM_SERVERS_MAX; slot++) {
            struct server *other = &sim->servers[slot];
            if (other != server && other->disk.pending_count > 0)
                crash_soon_back(other);
        }
        break;
    }
}

/* Another server no longer hears the leader, whom all others hear, while nobody writes. */
void adversary_deafen(struct sim *sim)
{
    struct server *leader = sim_leader(sim);
    struct server *other = &sim->servers[rng_below(&sim->rng, SIM_SERVERS_MAX)];

    if (leader == NULL || other == leader || other->state != SERVER_UP)
        return;
    sim->adversary.deaf_until =
        sim->now_us + 1000 * sim->plan.election_ms * rng_between(&sim->rng, 2, 6);
    trace_say(sim, other, "does not hear the leader any more", 0, 0, 0);
    network_cut(sim, leader->slot, other->slot, sim->adversary.deaf_until);
    /* It misses nothing meanwhile, so that its log could win. */
    sim->callers.quiet_until = sim->adversary.deaf_until;
}

/* Duel */

static void release_held(struct sim *sim)
{
    struct adversary *adversary = &sim->adversary;

    for (unsigned i = 0; i < adversary->held_count; i++)
        network_deliver_soon(sim, adversary->held[i]);
    adversary->held_count = 0;
}

static void end_duel(struct sim *sim)
{
    struct adversary *adversary = &sim->adversary;

    release_held(sim);
    if (adversary->duel == DUEL_HELD || adversary->duel == DUEL_RELEASED)
        server_resume(&sim->servers[adversary->duelist]);
    adversary->duel = DUEL_NONE;
}

static void look_again(struct sim *sim, uint64_t us)
{
    schedule_add(sim, sim->now_us + us, (struct event){.type = EVENT_DUEL});
}

void adversary_begin_duel(struct sim *sim)
{
    struct adversary *adversary = &sim->adversary;
    struct server *leader = sim_leader(sim);

    if (adversary->duel != DUEL_NONE || leader == NULL)
        return;
    adversary->duel = DUEL_ARMED;
    adversary->duel_until = sim->now_us + 10000 * sim->plan.election_ms;
    adversary->duel_crashes = rng_below(&sim->rng, 3) != 0;
    adversary->duel_transfers = rng_below(&sim->rng, 2) == 0;
    if (adversary->duel_transfers)
        callers_transfer(leader);
    else
        crash_soon_back(leader);
    look_again(sim, 1000 * sim->plan.election_ms);
}

static bool keep_vote(struct server *server, struct message *message)
{
    struct sim *sim = server->sim;
    struct adversary *adversary = &sim->adversary;

    if (adversary->duel == DUEL_ARMED &&
        (!adversary->duel_transfers || message->raft.vote.transfer)) {
        adversary->duel = DUEL_HELD;
        adversary->duelist = server->slot;
        adversary->duel_term = message->raft.vote.campaign_term;
        server_pause(server, UINT64_MAX);
    }
    if (adversary->duel != DUEL_HELD || adversary->duelist != server->slot ||
        message->raft.vote.campaign_term != adversary->duel_term ||
        adversary->held_count == sizeof(adversary->held) / sizeof(adversary->held[0]))
        return false;
    trace_say(sim, server, "its request for a vote is kept back", 0, 0, 0);
    adversary->held[adversary->held_count++] = message;
    return true;
}

/* Another candidate has won the term: nobody is to know of it, and those who voted are to forget.
 */
static void win_duel(struct server *winner)
{
    struct sim *sim = winner->sim;
    struct adversary *adversary = &sim->adversary;

    sim->stats->duels++;
    adversary->duel_won = true;
    cut_off(winner, sim->now_us + 8000 * sim->plan.election_ms);
    for (unsigned slot = 0; slot < SIM_SERVERS_MAX && adversary->duel_crashes; slot++)
        if (slot != winner->slot && slot != adversary->duelist)
            plan_strike(&sim->servers[slot], STRIKE_CRASH, 0);
    look_again(sim,
               1000 * rng_between(&sim->rng, adversary->duel_crashes ? sim->plan.election_ms : 0,
                                  2 * sim->plan.election_ms));
}

void adversary_duel_event(struct sim *sim)
{
    struct adversary *adversary = &sim->adversary;

    if (adversary->duel == DUEL_HELD && adversary->duel_won) {
        release_held(sim);
        adversary->duel = DUEL_RELEASED;
        adversary->duel_won = false;
        look_again(sim, a_moment_us(sim));
    } else if (adversary->duel == DUEL_RELEASED || sim->now_us > adversary->duel_until ||
               sim->recovering) {
        end_duel(sim);
    } else if (adversary->duel != DUEL_NONE && !adversary->duel_won) {
        look_again(sim, 1000 * sim->plan.election_ms);
    }
}

/* What it sees */

bool adversary_sends(struct server *server, struct message *message)
{
    struct sim *sim = server->sim;
    struct adversary *adversary = &sim->adversary;

    if (sim->recovering)
        return false;
    switch (message->raft.type) {
    case RAFT_MESSAGE_VOTE:
        return keep_vote(server, message);
    case RAFT_MESSAGE_TIMEOUT_NOW:
        if (adversary->duel == DUEL_ARMED && adversary->duel_transfers)
            plan_strike(server, STRIKE_CRASH, 0);
        else if (sim->now_us < adversary->hand_over_until)
            plan_strike(server, STRIKE_ISOLATE, 0);
        break;
    case RAFT_MESSAGE_APPEND_REPLY:
        if (sim->plan.replays != 0 && rng_below(&sim->rng, sim->plan.replays) == 0) {
            struct message **old = &adversary->old[adversary->old_next++ % ADVERSARY_OLD_MESSAGES];
            message_unref(*old);
            *old = message;
            message->refs++;
        }
        break;
    default:
        break;
    }
    return false;
}

static void replay_to(struct server *leader)
{
    struct sim *sim = leader->sim;

    for (unsigned i = 0; i < ADVERSARY_OLD_MESSAGES; i++) {
        struct message *message = sim->adversary.old[i];
        if (message != NULL && message->raft.to == leader->id && rng_below(&sim->rng, 2) == 0) {
            message->refs++;
            schedule_add(
                sim, sim->now_us + rng_skewed(&sim->rng, 0, 2000 * sim->plan.election_ms),
                (struct event){.type = EVENT_DELIVER, .slot = leader->slot, .message = message});
        }
    }
}

/* The leaders before this one, who may not know yet. */
static void isolate_others(struct server *leader)
{
    struct sim *sim = leader->sim;

    for (unsigned slot = 0; slot < SIM_SERVERS_MAX; slot++)
        if (slot != leader->slot && server_leads(&sim->servers[slot]))
            plan_strike(&sim->servers[slot], STRIKE_ISOLATE, 0);
}

void adversary_elected(struct server *server, uint64_t term)
{
    struct sim *sim = server->sim;
    struct adversary *adversary = &sim->adversary;

    if (sim->recovering)
        return;
    if (sim->plan.replays != 0)
        replay_to(server);
    if (adversary->duel == DUEL_HELD && !adversary->duel_won) {
        if (term == adversary->duel_term && server->slot != adversary->duelist)
            win_duel(server);
        else if (term >= adversary->duel_term)
            adversary->duel_until = 0;
        return;
    }
    if (sim->now_us < adversary->deaf_until) {
        sim->callers.quiet_until = 0;
        isolate_others(server);
        return;
    }
    if (sim->now_us >= adversary->hunt_until)
        return;
    switch (rng_below(&sim->rng, 6)) {
    case 0: /* before anything of its term leaves (thesis, figure 3.7) */
        cut_off(server, sim->now_us + some_time_us(sim));
        break;
    case 1:
        plan_strike(server, STRIKE_ISOLATE, a_moment_us(sim));
        break;
    case 2:
        plan_strike(server, STRIKE_CRASH, a_moment_us(sim));
        break;
    case 3:
    case 4:
        isolate_others(server);
        break;
    default:
        break;
    }
}

void adversary_committed(struct server *server)
{
    struct sim *sim = server->sim;

    const bool hunted = sim->now_us < sim->adversary.hunt_until;
    const uint64_t term = raft_get_term(sim->kind->get_raft(server));
    const bool first = term != sim->adversary.commit_term;

    if (sim->recovering)
        return;
    sim->adversary.commit_term = term;
    if (sim->now_us < sim->adversary.strike_until ||
        (hunted && rng_below(&sim->rng, first ? 2 : 64) == 0)) {
        sim->adversary.strike_until = 0;
        sim->stats->strikes++;
        plan_strike(server, STRIKE_COMMIT, 0);
    }
}

/* Wake */

void adversary_begin_wake(struct sim *sim)
{
    struct scenario *scenario = &sim->scenario;
    struct server *leader = sim_leader(sim);

    if (scenario->step != SCENARIO_NONE || leader == NULL || leader->paused_until != 0)
        return;
    adversary_isolate(leader, sim->now_us + 8 * some_time_us(sim));
    callers_propose(leader, 1);
    callers_read(leader);
    scenario->step = SCENARIO_CUT;
    scenario->slot = leader->slot;
    scenario->boot = leader->boot;
    scenario->term = raft_get_term(sim->kind->get_raft(leader));
    scenario->done_before = sim->oracles.done_count;
    scenario->give_up_us = sim->now_us + 20000 * sim->plan.election_ms;
    schedule_add(sim, sim->now_us + rng_skewed(&sim->rng, 0, 1000 * sim->plan.election_ms),
                 (struct event){.type = EVENT_SCENARIO});
}

static void wake(struct sim *sim, struct server *leader)
{
    if (rng_below(&sim->rng, 3) != 0)
        join_again(leader);
    for (uint64_t i = rng_below(&sim->rng, 4); i > 0; i--)
        callers_read(leader);
    sim->stats->leaders_woken++;
    server_resume(leader);
}

void adversary_wake_event(struct sim *sim)
{
    struct scenario *scenario = &sim->scenario;
    struct server *leader = &sim->servers[scenario->slot];
    const struct server *other = sim_leader(sim);
    bool over;

    if (scenario->step == SCENARIO_NONE)
        return;
    if (leader->boot != scenario->boot || leader->state != SERVER_UP) {
        scenario->step = SCENARIO_NONE;
        return;
    }
    if (scenario->step == SCENARIO_CUT) {
        if (rng_below(&sim->rng, 2) == 0)
            callers_read(leader); /* waits in its inbox */
        server_pause(leader, UINT64_MAX);
        scenario->step = SCENARIO_STOPPED;
    }
    over = other != NULL && other != leader &&
           raft_get_term(sim->kind->get_raft(other)) > scenario->term &&
           sim->oracles.done_count > scenario->done_before + 2;
    if (over || sim->now_us > scenario->give_up_us || sim->recovering) {
        scenario->step = SCENARIO_NONE;
        wake(sim, leader);
        return;
    }
    schedule_add(sim, sim->now_us + rng_between(&sim->rng, 100, 200 * sim->plan.election_ms),
                 (struct event){.type = EVENT_SCENARIO});
}

void adversary_end(struct sim *sim)
{
    end_duel(sim);
    sim->scenario.step = SCENARIO_NONE;
}

void adversary_destroy(struct sim *sim)
{
    for (unsigned i = 0; i < ADVERSARY_OLD_MESSAGES; i++)
        message_unref(sim->adversary.old[i]);
}
