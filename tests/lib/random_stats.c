/* Counts what random commands met. See random_stats.h. */
#include "tests/lib/random_stats.h"

#include <errno.h>
#include <string.h>

const char *const random_stat_names[RANDOM_STATS] = {
    [STAT_GRANTS] = "grants at once",
    [STAT_SHARED_GRANTS] = "of these shared",
    [STAT_PASSES] = "of these past waiters",
    [STAT_BESIDE] = "of these beside another owner, not all shared",
    [STAT_LOCK_TTL] = "of these with the lock's TTL",
    [STAT_AGAIN] = "flock claims asked for again",
    [STAT_EEXIST] = "refusals, EEXIST",
    [STAT_EWOULDBLOCK] = "refusals, EWOULDBLOCK",
    [STAT_WAITS] = "waits",
    [STAT_HAND_OFFS] = "hand-offs",
    [STAT_HAND_OFFS_PAST] = "of these past other waiters",
    [STAT_HAND_OFFS_AGAIN] = "waits for what was held by then",
    [STAT_CONVERSIONS] = "conversions",
    [STAT_RELEASES] = "claims released",
    [STAT_CANCELLED_WAITS] = "cancelled waits",
    [STAT_CANCELLED_CLAIMS] = "cancelled claims",
    [STAT_CANCELLED_MKDIRS] = "cancelled mkdirs",
    [STAT_CANCELLED_CONVERSIONS] = "cancelled upgrades",
    [STAT_FCNTL_GRANTS] = "fcntl grants at once",
    [STAT_FCNTL_AGAIN] = "fcntl claims asked for again",
    [STAT_UPGRADES] = "upgrades at once",
    [STAT_UPGRADES_PAST] = "of these past waiters",
    [STAT_DOWNGRADES] = "downgrades at once",
    [STAT_REFUSED_CONVERSIONS] = "refused conversions, the fcntl claim kept",
    [STAT_WAITING_CONVERSIONS] = "conversions that wait, the fcntl claim kept",
    [STAT_WAITING_CONVERSIONS_BEHIND] = "of these with others waiting",
    [STAT_WAITED_CONVERSIONS] = "fcntl conversions after a wait",
    [STAT_FCNTL_UNLOCKS] = "fcntl claims unlocked",
    [STAT_UNLOCKS_ELSEWHERE] = "of these through another handle",
    [STAT_LIMITS_RAISED] = "limits raised",
    [STAT_RAISED_HAND_OFFS] = "of these with a hand-off",
    [STAT_LIMITS_LOWERED] = "limits lowered",
    [STAT_LIMITS_HELD] = "limits changed while held",
    [STAT_LIMITS_WAITED_FOR] = "limits changed while waited for",
    [STAT_TO_UNLIMITED] = "limits from a number to unlimited",
    [STAT_TO_NUMBER] = "limits from unlimited to a number",
    [STAT_LIMITS_EINVAL] = "limits that cannot be now",
    [STAT_SETTINGS_EINVAL] = "settings that can never be",
    [STAT_EXIT_GRANTS] = "claims until exit",
    [STAT_EXIT_CLOSED] = "claims until exit that a close left",
    [STAT_EXIT_ENDED] = "claims until exit that ended by it",
    [STAT_ENDED] = "claims that ended by an exit",
    [STAT_FORCED_TOKENS] = "claims forced by token",
    [STAT_FORCED_FILES] = "files forced",
    [STAT_FORCED_CLAIMS] = "claims that these ended",
    [STAT_FORCED_WAITS] = "waits that these ended",
    [STAT_ENODATA] = "ENODATA",
    [STAT_DELAYS] = "delays",
    [STAT_DELAYS_ANEW] = "of these of what was delayed already",
    [STAT_DELAYED_REFUSALS] = "refusals under a delay",
    [STAT_DELAYED_WAITS] = "waits under a delay",
    [STAT_DELAYED_RMDIRS] = "rmdirs refused for a delay alone",
    [STAT_DELAYS_ENDED] = "delays ended",
    [STAT_DELAYS_ENDED_HAND_OFFS] = "of these with a hand-off",
    [STAT_DELAYS_DEAD] = "ends of delays that were over",
    [STAT_DELAYS_WRONG] = "ends of delays that never were",
    [STAT_OBSTACLES] = "obstacles seen",
    [STAT_NO_OBSTACLES] = "looks for obstacles without any",
    [STAT_MKDIRS] = "mkdirs",
    [STAT_RMDIRS] = "rmdirs",
    [STAT_UNLINKS] = "unlinks",
    [STAT_WRITES] = "writes",
    [STAT_INCARNATIONS] = "incarnations",
    [STAT_ENDED_BY_INCARNATION] = "claims and waits that these ended",
    [STAT_ENOLCK] = "ENOLCK",
    [STAT_ENOSPC] = "ENOSPC",
    [STAT_ENOSPC_SESSIONS] = "ENOSPC of sessions",
    [STAT_EFBIG] = "EFBIG",
    [STAT_ENAMETOOLONG] = "ENAMETOOLONG",
    [STAT_ENOTEMPTY] = "ENOTEMPTY",
    [STAT_EBUSY] = "EBUSY",
    [STAT_EPERM] = "EPERM",
    [STAT_EINVAL] = "EINVAL",
    [STAT_ENOENT] = "ENOENT",
    [STAT_ESTALE] = "ESTALE",
    [STAT_EPROTO] = "EPROTO",
};

static bool is_held(const struct naive_model *model, uint64_t lock)
{
    for (size_t i = 0; i < model->claims.count; i++) {
        if (naive_claim_at(model, i)->lock == lock)
            return true;
    }
    return false;
}

/* Whether somebody waits for what the command asks for. */
static bool is_waited_for(const struct naive_model *model, const struct command *command)
{
    for (size_t i = 0; i < model->waiters.count; i++) {
        const struct naive_claim *waiter = naive_waiter_at(model, i);
        if (waiter->lock == command->lock && (naive_lock(model, command->lock)->limit != 0 ||
                                              naive_same_name(waiter->name, command->name)))
            return true;
    }
    return false;
}

static bool is_lock_waited_for(const struct naive_model *model, uint64_t lock)
{
    for (size_t i = 0; i < model->waiters.count; i++) {
        if (naive_waiter_at(model, i)->lock == lock)
            return true;
    }
    return false;
}

static bool has_locks(const struct naive_model *model, uint64_t lock)
{
    for (size_t i = 0; i < model->locks.count; i++) {
        if (naive_lock_at(model, i)->parent == lock)
            return true;
    }
    return false;
}

void random_stats_before(struct random_stats *stats, const struct naive_model *model,
                         const struct command *command)
{
    const struct naive_lock *lock = naive_lock(model, command->lock);
    const struct naive_claim *held =
        naive_fcntl_claim(model, command->lock, command->name, command->node, command->owner);
    stats->token = model->token;
    stats->passes = model->passes;
    stats->locks = model->locks.count;
    stats->delays = model->delays.count;
    stats->highest_delay = model->highest_delay;
    stats->is_held = command->kind == CLAIM_FCNTL && held;
    stats->held_mode = held ? held->claim_mode : 0;
    stats->elsewhere =
        command->type == COMMAND_UNLOCK && stats->is_held && held->handle != command->handle;
    stats->is_delayed = false;
    if (command->type == COMMAND_ACQUIRE && lock) {
        for (size_t i = 0; i < model->delays.count; i++) {
            const struct naive_delay *delay = naive_delay_at(model, i);
            stats->is_delayed |= delay->lock == lock->id &&
                                 (lock->limit != 0 || naive_same_name(delay->name, command->name));
        }
    }
    stats->converted = false;
    for (size_t i = 0; command->type == COMMAND_CANCEL && i < model->claims.count; i++) {
        const struct naive_claim *claim = naive_claim_at(model, i);
        stats->converted |= claim->node == command->node && claim->handle == command->handle &&
                            claim->seq == command->target && claim->converted &&
                            claim->claim_mode == CLAIM_EXCLUSIVE;
    }
    if (command->type == COMMAND_SET_LOCK && lock) {
        stats->limit = lock->limit;
        stats->in_use = is_held(model, lock->id);
        stats->waited_for = is_lock_waited_for(model, lock->id);
    }
    stats->only_delayed = false;
    if (command->type == COMMAND_RMDIR && lock) {
        const struct naive_lock *child = naive_child(model, lock->id, command->name);
        stats->only_delayed = child && !is_held(model, child->id) &&
                              !is_lock_waited_for(model, child->id) && !has_locks(model, child->id);
    }
}

static void count_effect(struct random_stats *stats, const struct command *command,
                         const struct effect *effect)
{
    uint64_t *counts = stats->counts;
    bool ended = effect->type == EFFECT_ENDED;
    bool dropped = effect->type == EFFECT_DROPPED;
    counts[STAT_HAND_OFFS] += effect->type == EFFECT_GRANTED && !effect->again;
    counts[STAT_HAND_OFFS_AGAIN] += effect->type == EFFECT_GRANTED && effect->again;
    counts[STAT_CONVERSIONS] += ended && effect->cause == CAUSE_CONVERTED;
    counts[STAT_WAITED_CONVERSIONS] += effect->type == EFFECT_GRANTED && effect->converted;
    counts[STAT_RELEASES] += ended && effect->cause == CAUSE_RELEASED;
    counts[STAT_FCNTL_UNLOCKS] += ended && command->type == COMMAND_UNLOCK &&
                                  effect->kind == CLAIM_FCNTL && effect->cause == CAUSE_RELEASED;
    counts[STAT_CANCELLED_CLAIMS] += ended && effect->cause == CAUSE_CANCELLED;
    counts[STAT_CANCELLED_WAITS] += dropped && effect->cause == CAUSE_CANCELLED;
    counts[STAT_ENDED_BY_INCARNATION] += effect->cause == CAUSE_INCARNATION;
    counts[STAT_ENDED] += ended && effect->cause == CAUSE_EXITED;
    counts[STAT_EXIT_ENDED] += ended && effect->cause == CAUSE_EXITED &&
                               effect->kind == CLAIM_CREATE && effect->release == RELEASE_EXIT;
    counts[STAT_FORCED_CLAIMS] += ended && effect->cause == CAUSE_FORCED;
    counts[STAT_FORCED_WAITS] += dropped && effect->cause == CAUSE_FORCED;
    counts[STAT_DELAYS] += effect->type == EFFECT_DELAYED;
}

static void count_error(struct random_stats *stats, const struct command *command, int error)
{
    static const enum random_stat by_error[] = {
        [EEXIST] = STAT_EEXIST,       [EWOULDBLOCK] = STAT_EWOULDBLOCK,
        [ENOLCK] = STAT_ENOLCK,       [ENOSPC] = STAT_ENOSPC,
        [EFBIG] = STAT_EFBIG,         [ENAMETOOLONG] = STAT_ENAMETOOLONG,
        [ENOTEMPTY] = STAT_ENOTEMPTY, [EBUSY] = STAT_EBUSY,
        [EPERM] = STAT_EPERM,         [EINVAL] = STAT_EINVAL,
        [ENOENT] = STAT_ENOENT,       [ESTALE] = STAT_ESTALE,
        [EPROTO] = STAT_EPROTO,       [ENODATA] = STAT_ENODATA,
    };
    uint64_t *counts = stats->counts;
    if (command->type == COMMAND_INCARNATION && error == -ENOSPC)
        counts[STAT_ENOSPC_SESSIONS]++;
    else if (command->type == COMMAND_SET_LOCK && error == -EINVAL)
        counts[command->limit > LIMIT_CLAIMS || command->release < RELEASE_CLOSE ||
                       command->release > RELEASE_EXIT
                   ? STAT_SETTINGS_EINVAL
                   : STAT_LIMITS_EINVAL]++;
    else if (command->type == COMMAND_ACQUIRE || error != -EEXIST)
        counts[by_error[-error]]++;
    counts[STAT_DELAYED_REFUSALS] += command->type == COMMAND_ACQUIRE && stats->is_delayed &&
                                     (error == -EEXIST || error == -EWOULDBLOCK);
    counts[STAT_REFUSED_CONVERSIONS] +=
        command->type == COMMAND_ACQUIRE && stats->is_held && error == -EWOULDBLOCK;
    counts[STAT_DELAYED_RMDIRS] +=
        command->type == COMMAND_RMDIR && error == -ENOTEMPTY && stats->only_delayed;
}

static void count_acquire(struct random_stats *stats, const struct naive_model *model,
                          const struct command *command, const struct command_result *result)
{
    uint64_t *counts = stats->counts;
    const struct naive_lock *lock = naive_lock(model, command->lock);
    bool waited_for = is_waited_for(model, command);
    bool converts = stats->is_held && stats->held_mode != command->claim_mode;
    if (result->queued) {
        counts[STAT_WAITS]++;
        counts[STAT_DELAYED_WAITS] += stats->is_delayed;
        counts[STAT_WAITING_CONVERSIONS] += converts;
        for (size_t i = 0; converts && i < model->waiters.count; i++) {
            const struct naive_claim *waiter = naive_waiter_at(model, i);
            if (waiter->lock == command->lock && waiter->owner != command->owner &&
                (lock->limit != 0 || naive_same_name(waiter->name, command->name))) {
                counts[STAT_WAITING_CONVERSIONS_BEHIND]++;
                break;
            }
        }
        return;
    }
    if (result->again) {
        counts[command->kind == CLAIM_FCNTL ? STAT_FCNTL_AGAIN : STAT_AGAIN]++;
        return;
    }
    counts[STAT_GRANTS]++;
    counts[STAT_SHARED_GRANTS] += command->claim_mode == CLAIM_SHARED;
    counts[STAT_PASSES] += waited_for;
    counts[STAT_LOCK_TTL] += lock->ttl_ms != 0;
    counts[STAT_FCNTL_GRANTS] += command->kind == CLAIM_FCNTL;
    counts[STAT_EXIT_GRANTS] += command->kind == CLAIM_CREATE && result->release == RELEASE_EXIT;
    counts[STAT_UPGRADES] += converts && command->claim_mode == CLAIM_EXCLUSIVE;
    counts[STAT_UPGRADES_PAST] += converts && command->claim_mode == CLAIM_EXCLUSIVE && waited_for;
    counts[STAT_DOWNGRADES] += converts && command->claim_mode == CLAIM_SHARED;
    if (lock->limit > 1 && naive_held(model, lock->id, "") > 1)
        counts[STAT_BESIDE]++;
}

static void count_settings(struct random_stats *stats, const struct command *command,
                           size_t effects_count)
{
    uint64_t *counts = stats->counts;
    if (!(command->attributes & ATTRIBUTE_LIMIT) || command->limit == stats->limit)
        return;
    if (command->limit == 0) {
        counts[STAT_TO_UNLIMITED]++;
    } else if (stats->limit == 0) {
        counts[STAT_TO_NUMBER]++;
    } else {
        counts[STAT_LIMITS_RAISED] += command->limit > stats->limit;
        counts[STAT_RAISED_HAND_OFFS] += command->limit > stats->limit && effects_count > 0;
        counts[STAT_LIMITS_LOWERED] += command->limit < stats->limit;
        counts[STAT_LIMITS_HELD] += stats->in_use;
        counts[STAT_LIMITS_WAITED_FOR] += stats->waited_for;
    }
}

static void count_end_of_delay(struct random_stats *stats, const struct naive_model *model,
                               const struct command *command, size_t effects_count)
{
    uint64_t *counts = stats->counts;
    if (model->delays.count < stats->delays) {
        counts[STAT_DELAYS_ENDED]++;
        counts[STAT_DELAYS_ENDED_HAND_OFFS] += effects_count > 0;
    } else if (command->target != 0 && command->target <= stats->highest_delay) {
        counts[STAT_DELAYS_DEAD]++;
    } else {
        counts[STAT_DELAYS_WRONG]++;
    }
}

void random_stats_after(struct random_stats *stats, const struct naive_model *model,
                        const struct command *command, const struct command_result *result,
                        const struct effect *effects, size_t effects_count)
{
    uint64_t *counts = stats->counts;
    size_t begun = 0;
    for (size_t i = 0; i < effects_count; i++) {
        count_effect(stats, command, &effects[i]);
        begun += effects[i].type == EFFECT_DELAYED;
    }
    if (command->type == COMMAND_INCARNATION)
        counts[STAT_DELAYS_ANEW] += stats->delays + begun - model->delays.count;
    counts[STAT_HAND_OFFS_PAST] += model->passes - stats->passes;
    if (result->error) {
        count_error(stats, command, result->error);
        return;
    }
    switch (command->type) {
    case COMMAND_ACQUIRE:
        count_acquire(stats, model, command, result);
        break;
    case COMMAND_RELEASE:
        for (size_t i = 0; i < model->claims.count; i++) {
            const struct naive_claim *claim = naive_claim_at(model, i);
            counts[STAT_EXIT_CLOSED] +=
                claim->node == command->node && claim->handle == command->handle;
        }
        break;
    case COMMAND_UNLOCK:
        counts[STAT_UNLOCKS_ELSEWHERE] += stats->elsewhere;
        break;
    case COMMAND_SET_LOCK:
        count_settings(stats, command, effects_count);
        break;
    case COMMAND_FORCE:
        counts[command->token ? STAT_FORCED_TOKENS : STAT_FORCED_FILES]++;
        break;
    case COMMAND_END_DELAY:
        count_end_of_delay(stats, model, command, effects_count);
        break;
    case COMMAND_CANCEL:
        counts[STAT_CANCELLED_MKDIRS] += model->locks.count < stats->locks;
        counts[STAT_CANCELLED_CONVERSIONS] += stats->converted;
        break;
    case COMMAND_MKDIR:
        counts[STAT_MKDIRS]++;
        break;
    case COMMAND_RMDIR:
        counts[STAT_RMDIRS]++;
        break;
    case COMMAND_UNLINK:
        counts[STAT_UNLINKS]++;
        break;
    case COMMAND_WRITE:
        counts[STAT_WRITES]++;
        break;
    case COMMAND_INCARNATION:
        counts[STAT_INCARNATIONS]++;
        break;
    case COMMAND_TRUNCATE:
    case COMMAND_SET_CLAIM:
    case COMMAND_END:
        break;
    }
}
