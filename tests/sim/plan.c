/* What a seed chooses. Each choice comes from the seed alone, so that giving one option changes
 * nothing else. */
#include <string.h>

#include "sim.h"

static const char *const profile_names[PROFILES_COUNT] = {
    [PROFILE_CALM] = "calm",     [PROFILE_LOSSY] = "lossy",   [PROFILE_CRASHY] = "crashy",
    [PROFILE_DISKS] = "disks",   [PROFILE_CLOCKS] = "clocks", [PROFILE_MEMBERS] = "members",
    [PROFILE_HUNTED] = "hunted", [PROFILE_ALL] = "all",       [PROFILE_BEYOND] = "beyond",
};

/* How often a seed has which profile. */
static const unsigned profile_weights[PROFILES_COUNT] = {
    [PROFILE_CALM] = 1,   [PROFILE_LOSSY] = 3,  [PROFILE_CRASHY] = 3,
    [PROFILE_DISKS] = 3,  [PROFILE_CLOCKS] = 3, [PROFILE_MEMBERS] = 3,
    [PROFILE_HUNTED] = 4, [PROFILE_ALL] = 8,    [PROFILE_BEYOND] = 1,
};

/* How often a fault is which one. */
static const uint8_t weights[PROFILES_COUNT][FAULTS_COUNT] = {
    [PROFILE_CALM] = {[FAULT_SNAPSHOT] = 1, [FAULT_TRANSFER] = 1},
    [PROFILE_LOSSY] = {[FAULT_PARTITION] = 4,
                       [FAULT_ONE_WAY_CUT] = 4,
                       [FAULT_ISOLATE_LEADER] = 4,
                       [FAULT_SLOW_TYPE] = 3,
                       [FAULT_LOSS] = 2,
                       [FAULT_SNAPSHOT] = 2,
                       [FAULT_TRANSFER] = 1,
                       [FAULT_HUNT] = 2,
                       [FAULT_DEAFEN] = 3,
                       [FAULT_WAKE_LEADER] = 1},
    [PROFILE_CRASHY] = {[FAULT_CRASH] = 4,
                        [FAULT_CRASH_LEADER] = 4,
                        [FAULT_POWER_LOSS] = 2,
                        [FAULT_SLOW_DISK] = 2,
                        [FAULT_ISOLATE_LEADER] = 2,
                        [FAULT_HUNT] = 3,
                        [FAULT_DUEL] = 4,
                        [FAULT_TRANSFER] = 1,
                        [FAULT_STRIKE] = 3,
                        [FAULT_SNAPSHOT] = 2},
    [PROFILE_DISKS] = {[FAULT_CRASH] = 2,
                       [FAULT_POWER_LOSS] = 2,
                       [FAULT_WRITE_ERROR] = 3,
                       [FAULT_WRITE_ERROR_LEADER] = 4,
                       [FAULT_SLOW_DISK] = 6,
                       [FAULT_FULL_DISK] = 1,
                       [FAULT_PARTITION] = 2,
                       [FAULT_HUNT] = 2,
                       [FAULT_STRIKE] = 6,
                       [FAULT_SNAPSHOT] = 3},
    [PROFILE_CLOCKS] = {[FAULT_PAUSE] = 4,
                        [FAULT_PAUSE_LEADER] = 4,
                        [FAULT_STALL] = 6,
                        [FAULT_RATE] = 2,
                        [FAULT_ISOLATE_LEADER] = 2,
                        [FAULT_ONE_WAY_CUT] = 2,
                        [FAULT_TRANSFER] = 3,
                        [FAULT_SLOW_TYPE] = 3,
                        [FAULT_HUNT] = 3,
                        [FAULT_DEAFEN] = 3,
                        [FAULT_WAKE_LEADER] = 4},
    [PROFILE_MEMBERS] = {[FAULT_CHANGE] = 20,
                         [FAULT_CRASH] = 2,
                         [FAULT_CRASH_LEADER] = 2,
                         [FAULT_PARTITION] = 3,
                         [FAULT_ISOLATE_LEADER] = 3,
                         [FAULT_TRANSFER] = 2,
                         [FAULT_SNAPSHOT] = 4},
    [PROFILE_HUNTED] = {[FAULT_HUNT] = 6,
                        [FAULT_PARTITION] = 3,
                        [FAULT_ISOLATE_LEADER] = 2,
                        [FAULT_CRASH_LEADER] = 1,
                        [FAULT_SLOW_DISK] = 1},
};

const char *profile_name(enum profile profile)
{
    return profile_names[profile];
}

static void choose_faults(struct plan *plan, struct rng *rng)
{
    for (unsigned fault = 0; fault < FAULTS_COUNT; fault++) {
        if (plan->profile != PROFILE_ALL && plan->profile != PROFILE_BEYOND)
            plan->weights[fault] = weights[plan->profile][fault];
        else if (rng_below(rng, 3) != 0) /* of all, some */
            plan->weights[fault] = (uint32_t)rng_between(rng, 1, 10);
    }
    plan->weights[FAULT_SNAPSHOT]++; /* not all may be 0 */
    plan->fault_us = 1000 * plan->election_ms * rng_between(rng, 1, 12) / 4;
}

static void choose_network(struct plan *plan, struct rng *rng)
{
    const bool calm = plan->profile == PROFILE_CALM;

    plan->delay_min_us = rng_skewed(rng, 10, 2000);
    plan->delay_max_us = plan->delay_min_us + rng_skewed(rng, 10, 300 * plan->heartbeat_ms);
    plan->late_max_us = 4000 * plan->election_ms;
    plan->in_order = rng_below(rng, 3) == 0;
    if (calm)
        return;
    if (rng_below(rng, 2) == 0)
        plan->loss = rng_skewed(rng, 100, plan->profile == PROFILE_LOSSY ? 200000 : 20000);
    if (rng_below(rng, 2) == 0)
        plan->repeat = rng_skewed(rng, 100, 50000);
    if (rng_below(rng, 2) == 0)
        plan->late = rng_skewed(rng, 100, 20000);
}

static void choose_clocks(struct plan *plan, struct rng *rng)
{
    uint64_t drift;

    plan->max_drift_permille = (uint32_t)(rng_below(rng, 3) == 0 ? rng_below(rng, 200) : 50);
    drift =
        plan->profile == PROFILE_CLOCKS || rng_below(rng, 3) == 0 ? plan->max_drift_permille : 0;
    plan->clocks_beyond = plan->profile == PROFILE_BEYOND;
    if (plan->clocks_beyond)
        drift = plan->max_drift_permille + rng_between(rng, 100, 1500);
    plan->rate_min = rng_between(rng, 900000, 1000000);
    plan->rate_max = plan->rate_min + plan->rate_min * drift / 1000;
    plan->read_clock_often = rng_below(rng, 2) == 0;
    if (plan->profile == PROFILE_CLOCKS || plan->profile == PROFILE_ALL || plan->clocks_beyond)
        plan->stall_chance = rng_skewed(rng, 0, 2000);
}

static unsigned choose_servers(struct rng *rng)
{
    static const unsigned servers[] = {1, 2, 3, 3, 3, 3, 3, 4, 5, 5, 5, 7};

    return servers[rng_below(rng, sizeof(servers) / sizeof(servers[0]))];
}

static enum profile choose_profile(struct rng *rng)
{
    unsigned all = 0;
    unsigned profile = 0;
    uint64_t at;

    for (unsigned i = 0; i < PROFILES_COUNT; i++)
        all += profile_weights[i];
    at = rng_below(rng, all);
    while (at >= profile_weights[profile])
        at -= profile_weights[profile++];
    return (enum profile)profile;
}

void plan_make(struct plan *plan, const struct options *options)
{
    struct rng rng = {.state = rng_mix(options->seed * 8)};

    memset(plan, 0, sizeof(*plan));
    plan->servers = choose_servers(&rng);
    plan->profile = choose_profile(&rng);
    plan->events = rng_between(&rng, 5000, 40000);
    if (options->servers != 0)
        plan->servers = options->servers;
    if (options->profile >= 0)
        plan->profile = (enum profile)options->profile;
    if (options->events != 0)
        plan->events = options->events;

    plan->election_ms = (uint32_t)rng_between(&rng, 50, 500);
    plan->heartbeat_ms =
        (uint32_t)rng_between(&rng, plan->election_ms / 10, plan->election_ms / 2 - 1);
    rng.state = rng_mix(options->seed * 8 + 1);
    choose_network(plan, &rng);
    rng.state = rng_mix(options->seed * 8 + 2);
    choose_clocks(plan, &rng);
    rng.state = rng_mix(options->seed * 8 + 3);
    choose_faults(plan, &rng);

    rng.state = rng_mix(options->seed * 8 + 4);
    plan->sync_min_us = rng_skewed(&rng, 10, 3000);
    plan->sync_max_us = plan->sync_min_us + rng_skewed(&rng, 10, 200 * plan->heartbeat_ms);
    plan->turn_max_us = rng_skewed(&rng, 1, 2000);
    plan->applies_late = rng_below(&rng, 3) == 0;
    plan->join_reports = rng_below(&rng, 4) != 0;
    plan->call_us = 1000 * plan->election_ms / rng_between(&rng, 5, 100);
    plan->replays = rng_below(&rng, 2) == 0 ? 0 : (uint64_t)1 << rng_between(&rng, 0, 8);
    plan->batch_max = (uint32_t)rng_skewed(&rng, 1, 40);
    /* Large ones, so that what a server missed does not fit in one message. */
    plan->entry_bytes_max =
        (uint32_t)(rng_below(&rng, 3) == 0 ? RAFT_ENTRY_BYTES_MAX
                                           : rng_skewed(&rng, 1, RAFT_ENTRY_BYTES_MAX));
    if (plan->profile == PROFILE_HUNTED) {
        plan->batch_max = 40;
        plan->replays = (uint64_t)1 << rng_between(&rng, 0, 5);
        plan->entry_bytes_max = RAFT_ENTRY_BYTES_MAX;
    }
    plan->reads_percent = (uint32_t)rng_between(&rng, 10, 80);
    plan->snapshot_entries = rng_skewed(&rng, 20, 2000);
    plan->snapshot_bytes_max = (uint32_t)rng_skewed(&rng, 0, 20000);
    plan->chunk_bytes = (uint32_t)rng_between(&rng, 200, 4000);
    /* As of a state that hardly changes, or of any size. */
    plan->snapshot_bytes_min = rng_below(&rng, 2) == 0 ? plan->snapshot_bytes_max : 0;
}
