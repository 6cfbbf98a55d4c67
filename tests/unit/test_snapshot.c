/*
 * Snapshots of the lock table as records: what is restored is what was saved, goes on as the first
 * one does, and bytes that are no snapshot do no harm.
 *
 * SEED repeats a run, ROUNDS says how many tables of each profile.
 */
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "fs/lock_table.h"
#include "tests/lib/naive_model.h"
#include "tests/lib/random_commands.h"
#include "tests/lib/tap.h"

enum { STEPS_BEFORE = 1500, STEPS_AFTER = 1500, ROUNDS = 4, DAMAGES = 400, EFFECTS_MAX = 4096 };

struct table {
    void *memory;
    struct lock_table *table;
};

static struct table table_new(const struct lock_table_limits *limits)
{
    struct table made;
    size_t size = (lock_table_size(limits) + 15) / 16 * 16;
    made.memory = aligned_alloc(16, size);
    memset(made.memory, 0, size);
    made.table = lock_table_init(made.memory, limits);
    return made;
}

static uint64_t random_state;

static uint64_t random_below(uint64_t end)
{
    /* xorshift64* (Vigna 2016) */
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return ((random_state * 0x2545f4914f6cdd1dULL) >> 16) % end;
}

/* A snapshot in memory. */

struct records {
    size_t count;
    size_t capacity;
    size_t *starts; /* one more than there are */
    char *bytes;
};

static void records_free(struct records *records)
{
    free(records->starts);
    free(records->bytes);
}

static struct records save(const struct lock_table *table)
{
    struct records records = {0};
    struct lock_table_cursor cursor = {0};
    size_t used = 0;
    size_t len;

    do {
        records.bytes = realloc(records.bytes, used + LIMIT_SNAPSHOT_RECORD_BYTES);
        if (records.count + 2 > records.capacity) {
            records.capacity = records.capacity * 2 + 64;
            records.starts = realloc(records.starts, records.capacity * sizeof *records.starts);
        }
        len = lock_table_save(table, &cursor, records.bytes + used);
        records.starts[records.count] = used;
        used += len;
        records.count += len != 0;
    } while (len);
    records.starts[records.count] = used;
    return records;
}

static struct span record_at(const struct records *records, size_t i)
{
    return (struct span){records->bytes + records->starts[i],
                         records->starts[i + 1] - records->starts[i]};
}

static bool is_same(const struct records *a, const struct records *b)
{
    return a->count == b->count && a->starts[a->count] == b->starts[b->count] &&
           memcmp(a->bytes, b->bytes, a->starts[a->count]) == 0;
}

/* Whether they take no more of a file than they may. */
static bool is_in_bound(const struct records *records, const struct lock_table *table)
{
    return records->starts[records->count] + records->count * LIMIT_SNAPSHOT_FRAME_BYTES <=
           lock_table_snapshot_bytes(table);
}

static bool restore(struct lock_table *table, const struct records *records)
{
    struct lock_table_restoring restoring = {0};
    for (size_t i = 0; i < records->count; i++)
        if (!lock_table_restore(table, &restoring, record_at(records, i)))
            return false;
    return lock_table_is_restored(table, &restoring);
}

/* Commands */

struct effects {
    size_t count;
    struct effect items[EFFECTS_MAX];
};

static void keep_effect(void *context, const struct effect *effect)
{
    struct effects *effects = context;
    if (effects->count < EFFECTS_MAX)
        effects->items[effects->count++] = *effect;
}

static void drop_effect(void *context, const struct effect *effect)
{
    (void)context;
    (void)effect;
}

static bool is_same_effect(const struct effect *a, const struct effect *b)
{
    return a->type == b->type && a->cause == b->cause && a->node == b->node &&
           a->handle == b->handle && a->seq == b->seq && a->token == b->token &&
           a->lock == b->lock && a->kind == b->kind && a->claim_mode == b->claim_mode &&
           a->ttl_ms == b->ttl_ms && a->release == b->release && a->same_boot == b->same_boot &&
           a->process.pid == b->process.pid && a->process.start == b->process.start &&
           strcmp(a->process.comm, b->process.comm) == 0;
}

static bool is_same_result(const struct command_result *a, const struct command_result *b)
{
    return a->error == b->error && a->queued == b->queued && a->token == b->token &&
           a->lock == b->lock && a->ttl_ms == b->ttl_ms;
}

struct life {
    struct random_commands commands;
    struct naive_model *model;
    struct table table;
    struct table twin; /* restored from a snapshot; table NULL: not yet */
    struct effects effects;
    struct effects twin_effects;
    uint64_t beyond_growth; /* commands that made a snapshot larger than they may */
};

/* One command to both; the model goes along, since commands are made up from it. */
static bool step(struct life *life)
{
    struct command command;
    struct command_result twin_result;
    struct delay_view delay = {0};
    uint64_t highest_lock = life->model->highest_lock;
    bool same = true;
    uint64_t bytes = lock_table_snapshot_bytes(life->table.table);

    random_commands_next(&life->commands, &command);
    char *name = malloc(command.name.len + 1);
    if (command.name.len)
        memcpy(name, command.name.data, command.name.len);
    command.name.data = name;
    life->effects.count = life->twin_effects.count = 0;
    struct command_result result =
        lock_table_apply(life->table.table, &command, keep_effect, &life->effects);
    bytes += lock_table_snapshot_growth(&command);
    life->beyond_growth += lock_table_snapshot_bytes(life->table.table) > bytes;
    if (life->twin.table) {
        twin_result =
            lock_table_apply(life->twin.table, &command, keep_effect, &life->twin_effects);
        same = is_same_result(&result, &twin_result) &&
               life->effects.count == life->twin_effects.count;
        for (size_t i = 0; same && i < life->effects.count; i++)
            same = is_same_effect(&life->effects.items[i], &life->twin_effects.items[i]);
    }
    struct command_result expected = naive_apply(life->model, &command, drop_effect, NULL,
                                                 life->effects.items, life->effects.count);
    if (expected.lock && result.lock > highest_lock)
        naive_set_lock_id(life->model, expected.lock, result.lock);
    while (lock_table_next_delay(life->table.table, delay.id, &delay))
        if (delay.id > life->model->highest_delay)
            naive_set_delay_id(life->model, delay.lock, (struct span){delay.name, delay.name_len},
                               delay.id);
    free(name);
    return same;
}

static void life_begin(struct life *life, const struct profile *profile, uint64_t seed)
{
    memset(life, 0, sizeof *life);
    life->table = table_new(&profile->limits);
    life->model = naive_new(&profile->limits);
    random_commands_init(&life->commands, profile, seed);
    life->commands.model = life->model;
}

static void life_end(struct life *life)
{
    naive_free(life->model);
    free(life->table.memory);
    free(life->twin.memory);
}

/* What the tests saw. */
static struct {
    uint64_t records;
    uint64_t claims;
    uint64_t waiters;
    uint64_t contents;
    uint64_t delays;
    uint64_t commands;
    uint64_t damages;
    uint64_t refused;
} seen;

static void count(const struct lock_table *table)
{
    struct lock_table_counts counts;
    struct delay_view delay = {0};
    lock_table_get_counts(table, &counts);
    seen.claims += counts.claims;
    seen.waiters += counts.waiters;
    seen.contents += counts.contents_bytes;
    while (lock_table_next_delay(table, delay.id, &delay))
        seen.delays++;
}

static void test_round_trips(const struct profile *profile, uint64_t seed, uint64_t rounds)
{
    static struct life life;
    bool restored = true, same_digest = true, same_bytes = true, same_answers = true;
    bool in_bound = true;

    for (uint64_t round = 0; round < rounds; round++) {
        life_begin(&life, profile, seed + round);
        for (uint64_t i = random_below(STEPS_BEFORE) + 1; i > 0; i--)
            step(&life);
        struct records records = save(life.table.table);
        life.twin = table_new(&profile->limits);
        restored = restore(life.twin.table, &records) && restored;
        same_digest = lock_table_digest(life.twin.table) == lock_table_digest(life.table.table) &&
                      same_digest;
        struct records again = save(life.twin.table);
        same_bytes = is_same(&records, &again) && same_bytes;
        in_bound = is_in_bound(&records, life.table.table) && in_bound;
        seen.records += records.count;
        count(life.table.table);
        for (int i = 0; i < STEPS_AFTER; i++) {
            same_answers = step(&life) && same_answers;
            seen.commands++;
        }
        same_digest = lock_table_digest(life.twin.table) == lock_table_digest(life.table.table) &&
                      same_digest;
        in_bound = in_bound && !life.beyond_growth;
        records_free(&again);
        records_free(&records);
        life_end(&life);
    }
    tap_ok(restored, "%s: what was saved is restored", profile->name);
    tap_ok(same_digest, "%s: the states are the same, and stay so", profile->name);
    tap_ok(same_bytes, "%s: saved again it is the same bytes", profile->name);
    tap_ok(in_bound, "%s: it is never larger than it may be", profile->name);
    tap_ok(same_answers, "%s: and goes on with the same answers and effects", profile->name);
}

/* Damage */

enum damage {
    DAMAGE_BIT,
    DAMAGE_CUT,
    DAMAGE_MISSING,
    DAMAGE_TWICE,
    DAMAGE_SWAP,
    DAMAGE_NOISE,
    DAMAGES_KINDS,
};

/* Hands over the records with something wrong in them. True where all were taken. */
static bool restore_damaged(struct lock_table *table, const struct records *records,
                            enum damage damage)
{
    struct lock_table_restoring restoring = {0};
    size_t at = random_below(records->count);
    char bytes[LIMIT_SNAPSHOT_RECORD_BYTES];

    for (size_t i = 0; i < records->count; i++) {
        struct span record = record_at(records, i);
        if (damage == DAMAGE_SWAP && i == at && at + 1 < records->count)
            record = record_at(records, at + 1);
        else if (damage == DAMAGE_SWAP && i == at + 1)
            record = record_at(records, at);
        memcpy(bytes, record.data, record.len);
        if (i == at && damage == DAMAGE_BIT)
            bytes[random_below(record.len)] ^= (char)(1 << random_below(8));
        if (i == at && damage == DAMAGE_CUT)
            record.len = random_below(record.len);
        if (i == at && damage == DAMAGE_NOISE)
            for (size_t n = random_below(4) + 1; n > 0; n--)
                bytes[random_below(record.len)] = (char)random_below(256);
        if (i == at && damage == DAMAGE_MISSING)
            continue;
        if (!lock_table_restore(table, &restoring, (struct span){bytes, record.len}))
            return false;
        if (i == at && damage == DAMAGE_TWICE &&
            !lock_table_restore(table, &restoring, (struct span){bytes, record.len}))
            return false;
    }
    return lock_table_is_restored(table, &restoring);
}

/* A record that was changed may still be one, with another user id, say: on disk the checksum
 * tells. But whatever is taken is a table that can be lived with. */
static void test_damage(const struct profile *profile, uint64_t seed)
{
    static const bool must_refuse[DAMAGES_KINDS] = {[DAMAGE_MISSING] = true, [DAMAGE_TWICE] = true};
    static struct life life;
    static struct effects effects;
    uint64_t taken[DAMAGES_KINDS] = {0};

    life_begin(&life, profile, seed);
    for (int i = 0; i < STEPS_BEFORE; i++)
        step(&life);
    struct records records = save(life.table.table);
    for (int i = 0; i < DAMAGES; i++) {
        struct table table = table_new(&profile->limits);
        enum damage damage = (enum damage)(i % DAMAGES_KINDS);
        seen.damages++;
        if (!restore_damaged(table.table, &records, damage)) {
            seen.refused++;
            free(table.memory);
            continue;
        }
        taken[damage]++;
        lock_table_digest(table.table);
        struct random_commands commands = life.commands;
        for (int n = 0; n < 200; n++) {
            struct command command;
            random_commands_next(&commands, &command);
            struct session_view session;
            if (lock_table_get_session(table.table, command.node, &session) &&
                command.type != COMMAND_INCARNATION) {
                command.incarnation = session.incarnation;
                command.seq = session.seq + 1;
            }
            effects.count = 0;
            lock_table_apply(table.table, &command, keep_effect, &effects);
        }
        free(table.memory);
    }
    for (int i = 0; i < DAMAGES_KINDS; i++)
        if (must_refuse[i])
            tap_equal(taken[i], 0, "%s: damage of kind %d is always found", profile->name, i);
    tap_ok(true, "%s: damage of any kind does no harm", profile->name);
    records_free(&records);
    life_end(&life);
}

/* Each record must be as it is: cut off anywhere, a record is refused, or the table is not whole.
 */
static void test_truncation(const struct profile *profile, uint64_t seed)
{
    static struct life life;
    uint64_t cuts = 0, taken = 0;

    life_begin(&life, profile, seed);
    for (int i = 0; i < STEPS_BEFORE; i++)
        step(&life);
    struct records records = save(life.table.table);
    uint64_t digest = lock_table_digest(life.table.table);
    for (size_t at = 0; at < records.count; at++) {
        struct span record = record_at(&records, at);
        for (size_t len = 0; len < record.len; len += len < 64 ? 1 : 97) {
            struct table table = table_new(&profile->limits);
            struct lock_table_restoring restoring = {0};
            bool fine = true;
            for (size_t i = 0; fine && i < records.count; i++) {
                struct span bytes = record_at(&records, i);
                bytes.len = i == at ? len : bytes.len;
                fine = lock_table_restore(table.table, &restoring, bytes);
            }
            fine = fine && lock_table_is_restored(table.table, &restoring);
            taken += fine && lock_table_digest(table.table) == digest;
            taken += fine;
            cuts++;
            free(table.memory);
        }
    }
    tap_ok(cuts > 100, "%s: records were cut at %" PRIu64 " places", profile->name, cuts);
    tap_equal(taken, 0, "%s: and none was taken", profile->name);
    records_free(&records);
    life_end(&life);
}

static void test_empty(void)
{
    struct table table = table_new(&lock_table_limits_default);
    struct table twin = table_new(&lock_table_limits_default);
    struct lock_table_restoring restoring = {0};
    struct records records = save(table.table);

    tap_equal(records.count, 2, "an empty table is its counters and the root");
    tap_ok(!lock_table_is_restored(twin.table, &restoring), "no record at all is not a table");
    tap_ok(!lock_table_restore(twin.table, &restoring, (struct span){"", 0}),
           "an empty record is refused");
    tap_ok(restore(twin.table, &records) &&
               lock_table_digest(twin.table) == lock_table_digest(table.table),
           "it is restored");
    records_free(&records);
    free(table.memory);
    free(twin.memory);
}

/* Where every number is as large as can be. */
static void test_largest(void)
{
    struct table table = table_new(&lock_table_limits_default);
    char name[LIMIT_NAME_BYTES];
    char content[LIMIT_CONTENT_BYTES];
    uint64_t bytes = lock_table_snapshot_bytes(table.table);
    struct command command = {
        .type = COMMAND_INCARNATION,
        .node = UINT64_MAX,
        .incarnation = UINT64_MAX,
        .stamp_ms = -1,
        .lock = LOCK_TABLE_ROOT,
        .name = {name, sizeof name},
        .handle = UINT64_MAX,
        .kind = CLAIM_CREATE,
        .claim_mode = CLAIM_EXCLUSIVE,
        .ttl_ms = UINT32_MAX,
        .process = {.pid = UINT32_MAX, .start = UINT64_MAX, .comm = "of fifteen byte"},
        .mode = 07777,
        .uid = UINT32_MAX,
        .gid = UINT32_MAX,
        .data = {content, sizeof content},
    };
    static const enum command_type types[] = {COMMAND_INCARNATION, COMMAND_MKDIR, COMMAND_ACQUIRE,
                                              COMMAND_WRITE};
    bool in_bound = true;

    memset(name, 'x', sizeof name);
    memset(content, 'y', sizeof content);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        command.type = types[i];
        command.seq = i;
        name[0] = (char)('a' + i);
        bytes += lock_table_snapshot_growth(&command);
        struct command_result result = lock_table_apply(table.table, &command, drop_effect, NULL);
        struct records records = save(table.table);
        in_bound = result.error == 0 && is_in_bound(&records, table.table) &&
                   lock_table_snapshot_bytes(table.table) <= bytes && in_bound;
        records_free(&records);
    }
    tap_ok(in_bound, "the largest records are no larger than they may be");
    free(table.memory);
}

static uint64_t from_environment(const char *name, uint64_t otherwise)
{
    const char *value = getenv(name);
    return value && *value ? strtoull(value, NULL, 0) : otherwise;
}

int main(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t seed = from_environment("SEED", (uint64_t)now.tv_sec * 1000003 + now.tv_nsec);
    uint64_t rounds = from_environment("ROUNDS", ROUNDS);
    tap_note("SEED=%" PRIu64 " ROUNDS=%" PRIu64, seed, rounds);
    random_state = seed | 1;

    test_empty();
    test_largest();
    for (size_t i = 0; i < random_profiles_count; i++) {
        test_round_trips(&random_profiles[i], seed + i * 1000, rounds);
        test_damage(&random_profiles[i], seed + i * 1000 + 500);
    }
    test_truncation(&random_profiles[0], seed);
    tap_note("%" PRIu64 " records, %" PRIu64 " claims, %" PRIu64 " waiters, %" PRIu64
             " bytes of content, %" PRIu64 " delays, %" PRIu64 " commands, %" PRIu64
             " damages, %" PRIu64 " of them refused",
             seen.records, seen.claims, seen.waiters, seen.contents, seen.delays, seen.commands,
             seen.damages, seen.refused);
    tap_ok(seen.claims && seen.waiters && seen.contents && seen.delays && seen.refused,
           "there was something of everything");
    return tap_done();
}
