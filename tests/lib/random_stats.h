/* Counts what random commands met, so that a test can tell that it saw all there is to see. */
#ifndef TESTS_RANDOM_STATS_H
#define TESTS_RANDOM_STATS_H

#include "tests/lib/naive_model.h"

enum random_stat {
    STAT_GRANTS,
    STAT_SHARED_GRANTS,
    STAT_PASSES,
    STAT_BESIDE,
    STAT_LOCK_TTL,
    STAT_AGAIN,
    STAT_EEXIST,
    STAT_EWOULDBLOCK,
    STAT_WAITS,
    STAT_HAND_OFFS,
    STAT_HAND_OFFS_PAST,
    STAT_HAND_OFFS_AGAIN,
    STAT_CONVERSIONS,
    STAT_RELEASES,
    STAT_CANCELLED_WAITS,
    STAT_CANCELLED_CLAIMS,
    STAT_CANCELLED_MKDIRS,
    STAT_CANCELLED_CONVERSIONS,
    STAT_FCNTL_GRANTS,
    STAT_FCNTL_AGAIN,
    STAT_UPGRADES,
    STAT_UPGRADES_PAST,
    STAT_DOWNGRADES,
    STAT_REFUSED_CONVERSIONS,
    STAT_WAITING_CONVERSIONS,
    STAT_WAITING_CONVERSIONS_BEHIND,
    STAT_WAITED_CONVERSIONS,
    STAT_FCNTL_UNLOCKS,
    STAT_UNLOCKS_ELSEWHERE,
    STAT_LIMITS_RAISED,
    STAT_RAISED_HAND_OFFS,
    STAT_LIMITS_LOWERED,
    STAT_LIMITS_HELD,
    STAT_LIMITS_WAITED_FOR,
    STAT_TO_UNLIMITED,
    STAT_TO_NUMBER,
    STAT_LIMITS_EINVAL,
    STAT_SETTINGS_EINVAL,
    STAT_EXIT_GRANTS,
    STAT_EXIT_CLOSED,
    STAT_EXIT_ENDED,
    STAT_ENDED,
    STAT_FORCED_TOKENS,
    STAT_FORCED_FILES,
    STAT_FORCED_CLAIMS,
    STAT_FORCED_WAITS,
    STAT_ENODATA,
    STAT_DELAYS,
    STAT_DELAYS_ANEW,
    STAT_DELAYED_REFUSALS,
    STAT_DELAYED_WAITS,
    STAT_DELAYED_RMDIRS,
    STAT_DELAYS_ENDED,
    STAT_DELAYS_ENDED_HAND_OFFS,
    STAT_DELAYS_DEAD,
    STAT_DELAYS_WRONG,
    STAT_OBSTACLES,
    STAT_NO_OBSTACLES,
    STAT_MKDIRS,
    STAT_RMDIRS,
    STAT_UNLINKS,
    STAT_WRITES,
    STAT_INCARNATIONS,
    STAT_ENDED_BY_INCARNATION,
    STAT_ENOLCK,
    STAT_ENOSPC,
    STAT_ENOSPC_SESSIONS,
    STAT_EFBIG,
    STAT_ENAMETOOLONG,
    STAT_ENOTEMPTY,
    STAT_EBUSY,
    STAT_EPERM,
    STAT_EINVAL,
    STAT_ENOENT,
    STAT_ESTALE,
    STAT_EPROTO,
    RANDOM_STATS,
};

struct random_stats {
    uint64_t counts[RANDOM_STATS];
    /* Of the model, before the present command. */
    uint64_t token;
    uint64_t passes;
    size_t locks;
    size_t delays;
    uint64_t highest_delay;
    bool is_held; /* ACQUIRE: what it asks for, by its owner, in held_mode */
    enum claim_mode held_mode;
    bool is_delayed;   /* ACQUIRE: the resource */
    bool converted;    /* CANCEL: its target is an exclusive claim by fcntl that replaced another */
    bool elsewhere;    /* UNLOCK: of a claim by fcntl that came through another handle */
    uint32_t limit;    /* SET_LOCK */
    bool in_use;       /* SET_LOCK: held or waited for */
    bool waited_for;   /* SET_LOCK */
    bool only_delayed; /* RMDIR: a delay is all that is in the lock */
};

extern const char *const random_stat_names[RANDOM_STATS];

/* To be called before the model applies the command, and after. */
void random_stats_before(struct random_stats *stats, const struct naive_model *model,
                         const struct command *command);
void random_stats_after(struct random_stats *stats, const struct naive_model *model,
                        const struct command *command, const struct command_result *result,
                        const struct effect *effects, size_t effects_count);

#endif
