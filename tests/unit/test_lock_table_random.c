/*
 * Random commands for the lock table, beside the naive model: after each command the results and
 * effects of the two must agree, and often everything that can be seen of their states. A second
 * table that gets the same commands must have the same digest.
 *
 * SEED repeats a run, STEPS says how many commands in all, PROFILE picks one profile by its name.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "fs/lock_table.h"
#include "tests/lib/naive_compare.h"
#include "tests/lib/naive_model.h"
#include "tests/lib/random_commands.h"
#include "tests/lib/tap.h"

#define HISTORY 30

#define WEIGHTS(inc, mkd, rmd, acq, rel, unl, del, can, wri, tru, setl, setc)                      \
    {                                                                                              \
        0, inc, mkd, rmd, acq, rel, unl, del, can, wri, tru, setl, setc                            \
    }

static const struct profile profiles[] = {
    {"tiny",
     {5, 6, 4, 3, 70, 6000},
     20,
     3000,
     1,
     4,
     6,
     8,
     20,
     4200,
     30,
     60,
     40,
     30,
     20,
     20,
     WEIGHTS(1, 10, 5, 60, 12, 6, 6, 8, 12, 4, 3, 3)},
    {"crowd",
     {6, 100, 60, 3, 1000, 50000},
     15,
     6000,
     1,
     3,
     12,
     4,
     6,
     50,
     30,
     70,
     50,
     20,
     10,
     10,
     WEIGHTS(1, 2, 1, 100, 25, 15, 6, 12, 3, 2, 2, 2)},
    {"root",
     {8, 200, 100, 3, 2000, 50000},
     12,
     6000,
     2,
     3,
     16,
     12,
     8,
     60,
     92,
     60,
     45,
     25,
     10,
     10,
     WEIGHTS(1, 3, 2, 90, 25, 12, 8, 10, 5, 2, 2, 2)},
    {"numbered",
     {12, 200, 100, 3, 2000, 50000},
     12,
     6000,
     2,
     3,
     16,
     10,
     8,
     60,
     5,
     60,
     60,
     25,
     10,
     10,
     WEIGHTS(1, 6, 3, 90, 25, 12, 8, 10, 5, 2, 2, 2)},
    {"deep",
     {40, 60, 40, 3, 1500, 50000},
     10,
     5000,
     4,
     2,
     10,
     10,
     12,
     60,
     10,
     50,
     40,
     25,
     70,
     15,
     WEIGHTS(1, 45, 22, 50, 14, 6, 6, 14, 3, 2, 8, 3)},
    {"restarts",
     {8, 100, 60, 4, 1000, 50000},
     10,
     5000,
     1,
     4,
     10,
     6,
     8,
     60,
     40,
     70,
     50,
     25,
     10,
     120,
     WEIGHTS(12, 6, 3, 90, 10, 6, 4, 8, 4, 2, 2, 2)},
    {"contents",
     {6, 40, 20, 3, 1000, 20000},
     10,
     4000,
     4,
     3,
     10,
     10,
     8,
     4300,
     60,
     40,
     40,
     40,
     10,
     10,
     WEIGHTS(1, 3, 2, 40, 10, 5, 5, 5, 60, 25, 1, 1)},
    {"long names",
     {12, 40, 20, 3, 2600, 20000},
     6,
     4000,
     2,
     3,
     10,
     16,
     255,
     40,
     40,
     60,
     40,
     30,
     30,
     10,
     WEIGHTS(1, 12, 6, 60, 12, 6, 6, 6, 4, 2, 2, 2)},
    {"wide",
     {100, 2000, 1000, 6, 50000, 500000},
     5,
     20000,
     500,
     6,
     150,
     64,
     40,
     100,
     40,
     60,
     50,
     40,
     20,
     5,
     WEIGHTS(0, 10, 3, 110, 12, 8, 6, 6, 8, 3, 3, 3)},
};

struct effects {
    struct effect *items;
    size_t count;
    size_t room;
};

struct past {
    uint64_t step;
    struct command command;
    char name[LIMIT_NAME_BYTES];
    struct command_result result;
};

enum stat {
    STAT_GRANTS,
    STAT_SHARED_GRANTS,
    STAT_PASSES,
    STAT_KEPT,
    STAT_EEXIST,
    STAT_EWOULDBLOCK,
    STAT_WAITS,
    STAT_HAND_OFFS,
    STAT_CONVERSIONS,
    STAT_RELEASES,
    STAT_CANCELLED_WAITS,
    STAT_CANCELLED_CLAIMS,
    STAT_CANCELLED_MKDIRS,
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
    STATS,
};

static const char *const stat_names[STATS] = {
    [STAT_GRANTS] = "grants at once",
    [STAT_SHARED_GRANTS] = "of these shared",
    [STAT_PASSES] = "of these past waiters",
    [STAT_KEPT] = "flock claims asked for again",
    [STAT_EEXIST] = "refusals, EEXIST",
    [STAT_EWOULDBLOCK] = "refusals, EWOULDBLOCK",
    [STAT_WAITS] = "waits",
    [STAT_HAND_OFFS] = "hand-offs",
    [STAT_CONVERSIONS] = "conversions",
    [STAT_RELEASES] = "claims released",
    [STAT_CANCELLED_WAITS] = "cancelled waits",
    [STAT_CANCELLED_CLAIMS] = "cancelled claims",
    [STAT_CANCELLED_MKDIRS] = "cancelled mkdirs",
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

struct run {
    const struct profile *profile;
    uint64_t seed;
    uint64_t steps_total;
    uint64_t step;
    void *memory;
    void *twin_memory;
    struct lock_table *table;
    struct lock_table *twin; /* gets the same commands */
    struct naive_model *model;
    struct effects effects;
    struct effects twin_effects;
    struct effects expected;
    struct naive_compare compare;
    struct random_commands commands;
    uint64_t digest;
    bool changed; /* since `digest` was taken */
    struct past history[HISTORY];
    bool failed;
    uint64_t stats[STATS];
};

/* Printing. */

static const char *type_name(enum command_type type)
{
    static const char *const names[COMMAND_TYPES] = {
        "?",      "INCARNATION", "MKDIR", "RMDIR",    "ACQUIRE",  "RELEASE",   "UNLOCK",
        "UNLINK", "CANCEL",      "WRITE", "TRUNCATE", "SET_LOCK", "SET_CLAIM",
    };
    return names[type];
}

static const char *mode_name(enum claim_mode mode)
{
    return mode == CLAIM_SHARED ? "shared" : "exclusive";
}

static const char *error_name(int error)
{
    return error == 0 ? "0" : strerrorname_np(-error);
}

static void print_name(const char *name, size_t len)
{
    printf(" \"");
    for (size_t i = 0; i < len && i < 12; i++)
        printf(name[i] > ' ' && name[i] < 127 ? "%c" : "\\x%02x", (unsigned char)name[i]);
    if (len > 12)
        printf("...\" of %zu bytes", len);
    else
        printf("\"");
}

static void print_past(const struct past *past)
{
    const struct command *c = &past->command;
    printf("# %" PRIu64 ": %s node %" PRIu64 " incarnation %" PRIu64 " seq %" PRIu64, past->step,
           type_name(c->type), c->node, c->incarnation, c->seq);
    switch (c->type) {
    case COMMAND_INCARNATION:
        printf(" replaces %" PRIu64 " boot %02x%02x", c->replaces, c->boot_id[0], c->boot_id[1]);
        break;
    case COMMAND_ACQUIRE:
        printf(" handle %" PRIx64 " %s %s%s", c->handle,
               c->kind == CLAIM_CREATE ? "create" : "flock", mode_name(c->claim_mode),
               c->wait ? " wait" : "");
        break;
    case COMMAND_UNLINK:
    case COMMAND_SET_CLAIM:
        printf(" token %" PRIu64, c->token);
        break;
    case COMMAND_CANCEL:
        printf(" handle %" PRIx64 " target %" PRIu64, c->handle, c->target);
        break;
    case COMMAND_RELEASE:
    case COMMAND_UNLOCK:
        printf(" handle %" PRIx64, c->handle);
        break;
    case COMMAND_WRITE:
    case COMMAND_TRUNCATE:
        printf(" handle %" PRIx64 " offset %" PRIu64 "%s, %zu bytes", c->handle, c->offset,
               c->append ? " append" : "", c->data.len);
        break;
    case COMMAND_MKDIR:
    case COMMAND_RMDIR:
    case COMMAND_SET_LOCK:
        break;
    }
    printf(" lock %" PRIu64, c->lock);
    print_name(past->name, c->name.len);
    printf(" -> %s", error_name(past->result.error));
    if (past->result.token)
        printf(" token %" PRIu64, past->result.token);
    if (past->result.lock)
        printf(" lock %" PRIu64, past->result.lock);
    printf("%s\n", past->result.queued ? " queued" : "");
}

static void print_effects(const char *whose, const struct effects *effects)
{
    static const char *const types[] = {"?", "GRANTED", "DROPPED", "ENDED"};
    static const char *const causes[] = {"",         "released",  "converted",
                                         "unlinked", "cancelled", "incarnation"};
    for (size_t i = 0; i < effects->count; i++) {
        const struct effect *e = &effects->items[i];
        printf("# %s %s %s node %" PRIu64 " handle %" PRIx64 " seq %" PRIu64 " token %" PRIu64
               " lock %" PRIu64 " %s %s pid %" PRIu32 "%s\n",
               whose, types[e->type], causes[e->cause], e->node, e->handle, e->seq, e->token,
               e->lock, e->kind == CLAIM_CREATE ? "create" : "flock", mode_name(e->claim_mode),
               e->process.pid, e->same_boot ? " same boot" : "");
    }
}

/* Says once what went wrong and how the tables came there. */
static void report(struct run *run, const char *what)
{
    if (run->failed)
        return;
    run->failed = true;
    tap_note("MISMATCH at step %" PRIu64 ": %s", run->step, what);
    tap_note("repeat with SEED=%" PRIu64 " STEPS=%" PRIu64 " PROFILE='%s'", run->seed,
             run->steps_total, run->profile->name);
    for (uint64_t i = 0; i < HISTORY; i++) {
        const struct past *past = &run->history[(run->step + 1 + i) % HISTORY];
        if (past->command.type)
            print_past(past);
    }
    print_effects("table:", &run->effects);
    print_effects("model:", &run->expected);
}

/* Applying and comparing. */

static void keep_effect(void *context, const struct effect *effect)
{
    struct effects *effects = context;
    if (effects->count == effects->room) {
        effects->room = effects->room * 2 + 16;
        effects->items = realloc(effects->items, effects->room * sizeof(*effects->items));
    }
    /* Without the fields that say nothing in an effect of its type. */
    struct effect *kept = &effects->items[effects->count++];
    *kept = *effect;
    if (effect->type == EFFECT_GRANTED)
        kept->cause = CAUSE_NONE;
    if (effect->type == EFFECT_DROPPED)
        kept->token = 0;
    if (effect->type != EFFECT_ENDED || effect->cause != CAUSE_INCARNATION)
        kept->same_boot = false;
}

static bool same_effect(const struct effect *a, const struct effect *b)
{
    return a->type == b->type && a->cause == b->cause && a->node == b->node &&
           a->handle == b->handle && a->seq == b->seq && a->token == b->token &&
           a->lock == b->lock && a->kind == b->kind && a->claim_mode == b->claim_mode &&
           a->process.pid == b->process.pid && a->process.start == b->process.start &&
           strcmp(a->process.comm, b->process.comm) == 0 && a->same_boot == b->same_boot;
}

static bool same_effects_in_order(const struct effects *a, const struct effects *b)
{
    for (size_t i = 0; i < a->count && i < b->count; i++) {
        if (!same_effect(&a->items[i], &b->items[i]))
            return false;
    }
    return a->count == b->count;
}

static size_t count_equal(const struct effects *effects, const struct effect *effect)
{
    size_t count = 0;
    for (size_t i = 0; i < effects->count; i++)
        count += same_effect(&effects->items[i], effect);
    return count;
}

static bool same_effects(const struct effects *a, const struct effects *b)
{
    for (size_t i = 0; i < a->count; i++) {
        if (count_equal(a, &a->items[i]) != count_equal(b, &a->items[i]))
            return false;
    }
    return a->count == b->count;
}

static bool tokens_increase(const struct effects *effects, uint64_t token_before)
{
    uint64_t highest = token_before;
    for (size_t i = 0; i < effects->count; i++) {
        if (effects->items[i].type != EFFECT_GRANTED)
            continue;
        if (effects->items[i].token <= highest)
            return false;
        highest = effects->items[i].token;
    }
    return true;
}

static bool same_result(const struct command_result *a, const struct command_result *b)
{
    return a->error == b->error && a->queued == b->queued && a->token == b->token &&
           a->lock == b->lock;
}

static void count_effects(struct run *run)
{
    uint64_t *stats = run->stats;
    for (size_t i = 0; i < run->effects.count; i++) {
        const struct effect *effect = &run->effects.items[i];
        bool ended = effect->type == EFFECT_ENDED;
        stats[STAT_HAND_OFFS] += effect->type == EFFECT_GRANTED;
        stats[STAT_CONVERSIONS] += ended && effect->cause == CAUSE_CONVERTED;
        stats[STAT_RELEASES] += ended && effect->cause == CAUSE_RELEASED;
        stats[STAT_CANCELLED_CLAIMS] += ended && effect->cause == CAUSE_CANCELLED;
        stats[STAT_CANCELLED_WAITS] +=
            effect->type == EFFECT_DROPPED && effect->cause == CAUSE_CANCELLED;
        stats[STAT_ENDED_BY_INCARNATION] += effect->cause == CAUSE_INCARNATION;
    }
}

/* Whether somebody waits for what the command asks for. */
static bool waited_for(const struct naive_model *model, const struct command *command)
{
    for (size_t i = 0; i < model->waiters.count; i++) {
        const struct naive_claim *waiter = naive_waiter_at(model, i);
        if (waiter->lock == command->lock && (naive_lock(model, command->lock)->limit != 0 ||
                                              naive_same_name(waiter->name, command->name)))
            return true;
    }
    return false;
}

static void count_result(struct run *run, const struct command *command,
                         const struct command_result *result, uint64_t token_before)
{
    static const enum stat by_error[] = {
        [EEXIST] = STAT_EEXIST,       [EWOULDBLOCK] = STAT_EWOULDBLOCK,
        [ENOLCK] = STAT_ENOLCK,       [ENOSPC] = STAT_ENOSPC,
        [EFBIG] = STAT_EFBIG,         [ENAMETOOLONG] = STAT_ENAMETOOLONG,
        [ENOTEMPTY] = STAT_ENOTEMPTY, [EBUSY] = STAT_EBUSY,
        [EPERM] = STAT_EPERM,         [EINVAL] = STAT_EINVAL,
        [ENOENT] = STAT_ENOENT,       [ESTALE] = STAT_ESTALE,
        [EPROTO] = STAT_EPROTO,
    };
    uint64_t *stats = run->stats;
    if (result->error) {
        if (command->type == COMMAND_INCARNATION && result->error == -ENOSPC)
            stats[STAT_ENOSPC_SESSIONS]++;
        else if (command->type == COMMAND_ACQUIRE || result->error != -EEXIST)
            stats[by_error[-result->error]]++;
        return;
    }
    if (command->type == COMMAND_ACQUIRE && result->queued) {
        stats[STAT_WAITS]++;
    } else if (command->type == COMMAND_ACQUIRE && result->token > token_before) {
        stats[STAT_GRANTS]++;
        stats[STAT_SHARED_GRANTS] += command->claim_mode == CLAIM_SHARED;
        stats[STAT_PASSES] += waited_for(run->model, command);
    } else if (command->type == COMMAND_ACQUIRE) {
        stats[STAT_KEPT]++;
    }
    stats[STAT_MKDIRS] += command->type == COMMAND_MKDIR;
    stats[STAT_RMDIRS] += command->type == COMMAND_RMDIR;
    stats[STAT_UNLINKS] += command->type == COMMAND_UNLINK;
    stats[STAT_WRITES] += command->type == COMMAND_WRITE;
    stats[STAT_INCARNATIONS] += command->type == COMMAND_INCARNATION;
}

/* Digests: equal to the twin's, and other than before where anything was applied since. */
static void check_digest(struct run *run)
{
    uint64_t digest = lock_table_digest(run->table);
    if (lock_table_digest(run->twin) != digest)
        report(run, "the digests of two tables that got the same commands differ");
    else if (run->changed && digest == run->digest)
        report(run, "the digest did not change with the state");
    else if (!run->changed && digest != run->digest)
        report(run, "the digest changed, the state did not");
    run->digest = digest;
    run->changed = false;
}

static void check_state(struct run *run)
{
    if (!naive_compare(&run->compare))
        report(run, run->compare.message);
    else
        check_digest(run);
}

/* The command's bytes are copied to where the sanitizer sees a read beyond their end, and freed
 * before anybody looks at the state. */
static struct span copy_span(struct span span)
{
    char *copy = calloc(1, span.len);
    if (span.len)
        memcpy(copy, span.data, span.len);
    return (struct span){copy, span.len};
}

/* Whether a command left everything as it was, its session included. */
static bool was_void(const struct run *run, const struct command *command, int error)
{
    const struct naive_session *session = naive_session(run->model, command->node);
    if (command->type == COMMAND_INCARNATION)
        return error != 0;
    return error == -EPROTO || !session || session->incarnation != command->incarnation;
}

static void compare_answers(struct run *run, const struct command_result *result,
                            const struct command_result *twin_result,
                            const struct command_result *expected, uint64_t token_before)
{
    if (!same_result(result, twin_result) ||
        !same_effects_in_order(&run->effects, &run->twin_effects))
        report(run, "two tables with the same past differ");
    if (!same_result(result, expected)) {
        report(run, "the result");
        tap_note("the table's result: %s%s token %" PRIu64 " lock %" PRIu64,
                 error_name(result->error), result->queued ? " queued" : "", result->token,
                 result->lock);
    }
    if (!same_effects(&run->effects, &run->expected))
        report(run, "the effects");
    if (!tokens_increase(&run->effects, token_before))
        report(run, "the tokens of the grants do not increase");
}

static void step(struct run *run)
{
    struct command command;
    struct naive_model *model = run->model;
    random_commands_next(&run->commands, &command);
    command.name = copy_span(command.name);
    command.data = copy_span(command.data);
    struct past *past = &run->history[run->step % HISTORY];
    past->step = run->step;
    past->command = command;
    if (command.name.len)
        memcpy(past->name, command.name.data, command.name.len);

    run->effects.count = run->twin_effects.count = run->expected.count = 0;
    size_t locks = model->locks.count;
    uint64_t highest_lock = model->highest_lock;
    uint64_t token_before = model->token;
    struct command_result result =
        lock_table_apply(run->table, &command, keep_effect, &run->effects);
    struct command_result twin_result =
        lock_table_apply(run->twin, &command, keep_effect, &run->twin_effects);
    struct command_result expected = naive_apply(model, &command, keep_effect, &run->expected,
                                                 run->effects.items, run->effects.count);
    if (expected.lock && result.lock > highest_lock) {
        naive_set_lock_id(model, expected.lock, result.lock);
        expected.lock = result.lock;
    }
    past->result = expected;
    compare_answers(run, &result, &twin_result, &expected, token_before);
    run->changed |= !was_void(run, &command, expected.error);

    count_effects(run);
    count_result(run, &command, &expected, token_before);
    run->stats[STAT_CANCELLED_MKDIRS] +=
        command.type == COMMAND_CANCEL && model->locks.count < locks;
    free((void *)(uintptr_t)command.name.data);
    free((void *)(uintptr_t)command.data.data);
    if (!run->failed && run->step % run->profile->check_steps == 0)
        check_state(run);
    run->step++;
}

static void *table_memory(const struct lock_table_limits *limits)
{
    void *memory = NULL;
    size_t size = lock_table_size(limits);
    if (posix_memalign(&memory, 16, size) != 0)
        abort();
    memset(memory, 0, size);
    return memory;
}

static void begin_run(struct run *run)
{
    const struct lock_table_limits *limits = &run->profile->limits;
    run->memory = table_memory(limits);
    run->twin_memory = table_memory(limits);
    run->table = lock_table_init(run->memory, limits);
    run->twin = lock_table_init(run->twin_memory, limits);
    run->model = naive_new(limits);
    run->commands.model = run->model;
    run->compare = (struct naive_compare){
        .table = run->table,
        .model = run->model,
        .random = run->seed,
        .nodes = run->profile->nodes,
        .names = run->commands.names,
        .names_count = run->profile->names,
    };
    run->digest = lock_table_digest(run->table);
    run->changed = false;
    memset(run->history, 0, sizeof(run->history));
}

static void end_run(struct run *run)
{
    naive_free(run->model);
    free(run->twin_memory);
    free(run->memory);
}

static void run_profile(struct run *run, const struct profile *profile)
{
    uint64_t steps = run->steps_total * profile->steps_share / 100;
    run->profile = profile;
    /* Of its own for each profile, so that PROFILE repeats one of them alone. */
    random_commands_init(&run->commands, profile,
                         run->seed + (uint64_t)(profile - profiles) * 0x632be59bd9b4e019u);
    run->step = 0;
    while (run->step < steps && !run->failed) {
        uint64_t end = run->step + profile->run_steps;
        begin_run(run);
        while (run->step < end && !run->failed)
            step(run);
        if (!run->failed)
            check_state(run);
        end_run(run);
    }
    tap_ok(!run->failed, "%s: %" PRIu64 " commands", profile->name, run->step);
}

static uint64_t from_environment(const char *name, uint64_t otherwise)
{
    const char *value = getenv(name);
    return value && *value ? strtoull(value, NULL, 0) : otherwise;
}

static uint64_t new_seed(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000003 + (uint64_t)now.tv_nsec;
}

int main(void)
{
    static struct run run;
    const char *only = getenv("PROFILE");
    uint64_t steps_made = 0;
    run.seed = from_environment("SEED", new_seed());
    run.steps_total = from_environment("STEPS", 1200000);
    tap_note("SEED=%" PRIu64 " STEPS=%" PRIu64, run.seed, run.steps_total);
    for (size_t i = 0; i < sizeof(profiles) / sizeof(profiles[0]) && !run.failed; i++) {
        if (only && strcmp(only, profiles[i].name) != 0)
            continue;
        run_profile(&run, &profiles[i]);
        steps_made += run.step;
    }
    tap_note("%" PRIu64 " commands in all", steps_made);
    for (int i = 0; i < STATS; i++) {
        /* One profile, or a few steps, need not see everything. */
        if (only || run.failed || run.steps_total < 1000000)
            tap_note("%s: %" PRIu64, stat_names[i], run.stats[i]);
        else
            tap_ok(run.stats[i] > 0, "%s: %" PRIu64, stat_names[i], run.stats[i]);
    }
    free(run.effects.items);
    free(run.twin_effects.items);
    free(run.expected.items);
    return tap_done();
}
