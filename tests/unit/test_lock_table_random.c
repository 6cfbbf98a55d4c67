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
#include "fs/memory.h"
#include "tests/lib/naive_compare.h"
#include "tests/lib/naive_model.h"
#include "tests/lib/random_commands.h"
#include "tests/lib/random_stats.h"
#include "tests/lib/tap.h"

#define HISTORY 30

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
    struct random_stats stats;
};

/* Printing. */

static const char *type_name(enum command_type type)
{
    static const char *const names[COMMAND_TYPES] = {
        "?",         "INCARNATION", "MKDIR",  "RMDIR",     "ACQUIRE",  "RELEASE",
        "UNLOCK",    "UNLINK",      "CANCEL", "WRITE",     "TRUNCATE", "SET_LOCK",
        "SET_CLAIM", "END",         "FORCE",  "END_DELAY",
    };
    return names[type];
}

static const char *kind_name(enum claim_kind kind)
{
    return kind == CLAIM_CREATE ? "create" : kind == CLAIM_FLOCK ? "flock" : "fcntl";
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
        printf(" handle %" PRIx64 " owner %" PRIx64 " %s %s ttl %" PRIu32 "%s", c->handle, c->owner,
               kind_name(c->kind), mode_name(c->claim_mode), c->ttl_ms, c->wait ? " wait" : "");
        break;
    case COMMAND_UNLINK:
    case COMMAND_SET_CLAIM:
    case COMMAND_END:
    case COMMAND_FORCE:
        printf(" token %" PRIu64, c->token);
        break;
    case COMMAND_CANCEL:
        printf(" handle %" PRIx64 " target %" PRIu64, c->handle, c->target);
        break;
    case COMMAND_RELEASE:
        printf(" handle %" PRIx64, c->handle);
        break;
    case COMMAND_UNLOCK:
        printf(" handle %" PRIx64 " owner %" PRIx64 " %s", c->handle, c->owner, kind_name(c->kind));
        break;
    case COMMAND_WRITE:
    case COMMAND_TRUNCATE:
        printf(" handle %" PRIx64 " offset %" PRIu64 "%s, %zu bytes", c->handle, c->offset,
               c->append ? " append" : "", c->data.len);
        break;
    case COMMAND_SET_LOCK:
        if (c->attributes & ATTRIBUTE_LIMIT)
            printf(" limit %" PRIu32, c->limit);
        if (c->attributes & ATTRIBUTE_TTL)
            printf(" ttl %" PRIu32, c->ttl_ms);
        if (c->attributes & ATTRIBUTE_RELEASE)
            printf(" release %d", (int)c->release);
        if (c->attributes & ATTRIBUTE_DELAY)
            printf(" delay %" PRIu32, c->delay_ms);
        break;
    case COMMAND_END_DELAY:
        printf(" target %" PRIu64, c->target);
        break;
    case COMMAND_MKDIR:
    case COMMAND_RMDIR:
        break;
    }
    printf(" lock %" PRIu64, c->lock);
    print_name(past->name, c->name.len);
    printf(" -> %s", error_name(past->result.error));
    if (past->result.token)
        printf(" token %" PRIu64, past->result.token);
    if (past->result.lock)
        printf(" lock %" PRIu64, past->result.lock);
    printf("%s%s%s\n", past->result.queued ? " queued" : "", past->result.again ? " again" : "",
           past->result.converted ? " converted" : "");
}

static void print_effects(const char *whose, const struct effects *effects)
{
    static const char *const types[] = {"?", "GRANTED", "DROPPED", "ENDED", "DELAYED"};
    static const char *const causes[] = {"",          "released",    "converted", "unlinked",
                                         "cancelled", "incarnation", "exited",    "forced"};
    for (size_t i = 0; i < effects->count; i++) {
        const struct effect *e = &effects->items[i];
        printf("# %s %s %s node %" PRIu64 " handle %" PRIx64 " seq %" PRIu64 " token %" PRIu64
               " owner %" PRIx64 " ttl %" PRIu32 " release %d lock %" PRIu64 " %s %s pid %" PRIu32
               "%s%s%s\n",
               whose, types[e->type], causes[e->cause], e->node, e->handle, e->seq, e->token,
               e->owner, e->ttl_ms, (int)e->release, e->lock, kind_name(e->kind),
               mode_name(e->claim_mode), e->process.pid, e->same_boot ? " same boot" : "",
               e->again ? " again" : "", e->converted ? " converted" : "");
    }
}

static void print_claim(const struct run *run, const struct naive_claim *claim)
{
    printf("# model has %s node %" PRIu64 " handle %" PRIx64 " seq %" PRIu64 " token %" PRIu64
           " owner %" PRIx64 " lock %" PRIu64 " of limit %" PRIu32 " %s %s",
           claim->token ? "claim" : "wait ", claim->node, claim->handle, claim->seq, claim->token,
           claim->owner, claim->lock, naive_lock(run->model, claim->lock)->limit,
           kind_name(claim->kind), mode_name(claim->claim_mode));
    print_name(claim->name, strlen(claim->name));
    printf("\n");
}

static void print_model(const struct run *run)
{
    const struct naive_model *model = run->model;
    for (size_t i = 0; i < model->claims.count && i < HISTORY; i++)
        print_claim(run, naive_claim_at(model, i));
    for (size_t i = 0; i < model->waiters.count && i < HISTORY; i++)
        print_claim(run, naive_waiter_at(model, i));
    for (size_t i = 0; i < model->delays.count && i < HISTORY; i++) {
        const struct naive_delay *delay = naive_delay_at(model, i);
        printf("# model has delay %" PRIu64 " lock %" PRIu64, delay->id, delay->lock);
        print_name(delay->name, strlen(delay->name));
        printf("\n");
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
    print_model(run);
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
    if (effect->type == EFFECT_DELAYED) {
        *kept =
            (struct effect){.type = EFFECT_DELAYED, .token = effect->token, .lock = effect->lock};
        return;
    }
    *kept = *effect;
    /* The bytes live for the call only. */
    kept->name = (struct span){NULL, hash_bytes(0, effect->name.data, effect->name.len)};
    if (effect->type == EFFECT_GRANTED)
        kept->cause = CAUSE_NONE;
    else
        kept->again = kept->converted = false;
    if (kept->again) { /* of the claim or of the wait? */
        memset(&kept->process, 0, sizeof(kept->process));
        kept->uid = 0;
    }
    if (effect->type == EFFECT_DROPPED)
        kept->token = kept->ttl_ms = 0;
    if (effect->kind != CLAIM_FCNTL)
        kept->owner = 0;
    if (effect->kind != CLAIM_CREATE)
        kept->release = 0;
    if (effect->type != EFFECT_ENDED || effect->cause != CAUSE_INCARNATION)
        kept->same_boot = false;
}

static bool same_effect(const struct effect *a, const struct effect *b)
{
    return a->type == b->type && a->cause == b->cause && a->node == b->node &&
           a->handle == b->handle && a->seq == b->seq && a->token == b->token &&
           a->owner == b->owner && a->ttl_ms == b->ttl_ms && a->release == b->release &&
           a->again == b->again && a->converted == b->converted && a->lock == b->lock &&
           a->name.len == b->name.len && a->uid == b->uid && a->kind == b->kind &&
           a->claim_mode == b->claim_mode && a->process.pid == b->process.pid &&
           a->process.start == b->process.start && strcmp(a->process.comm, b->process.comm) == 0 &&
           a->same_boot == b->same_boot;
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
        if (effects->items[i].type != EFFECT_GRANTED || effects->items[i].again)
            continue;
        if (effects->items[i].token <= highest)
            return false;
        highest = effects->items[i].token;
    }
    return true;
}

static bool same_result(const struct command_result *a, const struct command_result *b)
{
    return a->error == b->error && a->queued == b->queued && a->again == b->again &&
           a->converted == b->converted && a->token == b->token && a->lock == b->lock &&
           (a->token == 0 || (a->ttl_ms == b->ttl_ms && a->release == b->release));
}

/* Gives the delays that have begun in the model the ids that the table chose: those of its last
 * delays, in their order. Whether they are the same ones shows when the states are compared. */
static void adopt_delays(struct run *run)
{
    struct naive_model *model = run->model;
    uint64_t before = model->highest_delay;
    struct delay_view view;
    while (lock_table_next_delay(run->table, model->highest_delay, &view)) {
        if (!naive_set_delay_id(model, view.lock, (struct span){view.name, view.name_len},
                                view.id)) {
            report(run, "a delay began that should not");
            return;
        }
    }
    for (size_t i = 0; i < run->effects.count; i++) {
        struct effect *effect = &run->effects.items[i];
        if (effect->type != EFFECT_DELAYED)
            continue;
        if (effect->token <= before || effect->token > model->highest_delay)
            report(run, "the id of a delay");
        effect->token = 0;
    }
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
        tap_note("the table's result: %s%s%s%s token %" PRIu64 " lock %" PRIu64 " ttl %" PRIu32
                 " release %d",
                 error_name(result->error), result->queued ? " queued" : "",
                 result->again ? " again" : "", result->converted ? " converted" : "",
                 result->token, result->lock, result->ttl_ms, (int)result->release);
    }
    adopt_delays(run);
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
    uint64_t highest_lock = model->highest_lock;
    uint64_t token_before = model->token;
    struct command_result result =
        lock_table_apply(run->table, &command, keep_effect, &run->effects);
    struct command_result twin_result =
        lock_table_apply(run->twin, &command, keep_effect, &run->twin_effects);
    random_stats_before(&run->stats, model, &command);
    struct command_result expected = naive_apply(model, &command, keep_effect, &run->expected,
                                                 run->effects.items, run->effects.count);
    if (expected.lock && result.lock > highest_lock) {
        naive_set_lock_id(model, expected.lock, result.lock);
        expected.lock = result.lock;
    }
    past->result = result;
    compare_answers(run, &result, &twin_result, &expected, token_before);
    run->changed |= !was_void(run, &command, expected.error);

    random_stats_after(&run->stats, model, &command, &expected, run->expected.items,
                       run->expected.count);
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
    run->stats.counts[STAT_OBSTACLES] += run->compare.obstacles;
    run->stats.counts[STAT_NO_OBSTACLES] += run->compare.free_ways;
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
                         run->seed + (uint64_t)(profile - random_profiles) * 0x632be59bd9b4e019u);
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
    run.steps_total = from_environment("STEPS", 1000000);
    tap_note("SEED=%" PRIu64 " STEPS=%" PRIu64, run.seed, run.steps_total);
    for (size_t i = 0; i < random_profiles_count && !run.failed; i++) {
        if (only && strcmp(only, random_profiles[i].name) != 0)
            continue;
        run_profile(&run, &random_profiles[i]);
        steps_made += run.step;
    }
    tap_note("%" PRIu64 " commands in all", steps_made);
    for (int i = 0; i < RANDOM_STATS; i++) {
        /* One profile, or a few steps, need not see everything. */
        if (only || run.failed || run.steps_total < 1000000)
            tap_note("%s: %" PRIu64, random_stat_names[i], run.stats.counts[i]);
        else
            tap_ok(run.stats.counts[i] > 0, "%s: %" PRIu64, random_stat_names[i],
                   run.stats.counts[i]);
    }
    free(run.effects.items);
    free(run.twin_effects.items);
    free(run.expected.items);
    return tap_done();
}
