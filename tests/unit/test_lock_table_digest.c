/* The digest of the lock table: equal for equal states whatever path led there, and changed by each
 * part of the state. */
#include <stdlib.h>
#include <string.h>

#include "fs/lock_table.h"
#include "tests/lib/tap.h"

static const struct lock_table_limits limits = {
    .locks = 10,
    .claims = 20,
    .waiters = 20,
    .sessions = 4,
    .names_bytes = 1000,
    .contents_bytes = 20000,
};

struct world {
    void *memory;
    struct lock_table *table;
    uint64_t seqs[4]; /* by node */
    uint64_t locks[2];
};

static struct span span_of(const char *name)
{
    return (struct span){name, strlen(name)};
}

static void ignore_effect(void *context, const struct effect *effect)
{
    (void)context;
    (void)effect;
}

/* Applies a command, its seq and incarnation filled in; it must succeed. */
static struct command_result apply(struct world *world, struct command command)
{
    if (command.type != COMMAND_INCARNATION) {
        command.seq = ++world->seqs[command.node];
        command.incarnation = command.node * 100;
    }
    struct command_result result = lock_table_apply(world->table, &command, ignore_effect, NULL);
    if (result.error != 0)
        tap_ok(false, "command of type %d succeeds (%d)", (int)command.type, result.error);
    return result;
}

static void world_free(struct world *world)
{
    free(world->memory);
}

/* What can differ between two small worlds. */
enum variation {
    AS_IT_IS = 0,
    BOOT_ID,
    MKDIR_NAME,
    MKDIR_MODE,
    MKDIR_UID,
    MKDIR_GID,
    MKDIR_STAMP,
    MKDIR_SEQ,
    ROOT_MODE,
    HANDLE,
    CREATE_MODE,
    CREATE_UID,
    CREATE_STAMP,
    PID,
    START,
    COMM,
    DATA,
    DATA_LEN,
    ZEROS_AT_END,
    FLOCK_MODE,
    FLOCK_KIND,
    WAITER_MODE,
    WAITER_NAME,
    WAITER_HANDLE,
    WAITERS_ORDER,
    SEQ,
    TOKEN,
    LOCK_LIMIT,
    LOCK_UNLIMITED,
    LOCK_TTL,
    LOCK_RELEASE,
    LOCK_DELAY,
    CLAIM_TTL,
    CLAIM_RELEASE,
    FCNTL_KIND,
    FCNTL_MODE,
    FCNTL_OWNER,
    FCNTL_CONVERTED,
    WAITER_TTL,
    WAITER_OWNER,
    DELAY_ENDED,
    DELAY_FILE,
    DELAY_MS,
    DELAY_STAMP,
    VARIATIONS,
};

static const char *const variation_names[VARIATIONS] = {
    "nothing",
    "the boot id",
    "the name of a lock",
    "its mode",
    "its owner",
    "its group",
    "its stamp",
    "the command that made it",
    "the root's mode",
    "the handle of a claim",
    "the mode of a claim by creating",
    "its owner",
    "its stamp",
    "its pid",
    "its start time",
    "its comm",
    "a byte of content",
    "the length of content",
    "zeros at its end",
    "the mode of a flock claim",
    "the kind of a claim",
    "the mode of a waiter",
    "the file of a waiter",
    "the handle of a waiter",
    "the order of two waiters",
    "the number of commands",
    "the counter of tokens",
    "the limit of a lock",
    "that it is unlimited",
    "its TTL",
    "its release mode",
    "its delay",
    "the TTL of a claim",
    "its release mode",
    "that a claim is by fcntl",
    "its mode",
    "its owner",
    "that it replaced another one",
    "the TTL of a waiter",
    "the owner of a waiter",
    "that a delay is over",
    "the file of a delay",
    "the length of a delay",
    "when a delay began",
};

static void world_init(struct world *world)
{
    size_t size = lock_table_size(&limits);
    memset(world, 0, sizeof(*world));
    if (posix_memalign(&world->memory, 16, size) != 0)
        abort();
    memset(world->memory, 0, size);
    world->table = lock_table_init(world->memory, &limits);
}

/* A lock of its own, with settings. */
static uint64_t add_lock(struct world *world, struct command settings, const char *name)
{
    settings.type = COMMAND_SET_LOCK;
    settings.node = 1;
    settings.lock =
        apply(world,
              (struct command){
                  .type = COMMAND_MKDIR, .node = 1, .lock = LOCK_TABLE_ROOT, .name = span_of(name)})
            .lock;
    settings.attributes = ATTRIBUTE_LIMIT | ATTRIBUTE_TTL | ATTRIBUTE_RELEASE | ATTRIBUTE_DELAY;
    apply(world, settings);
    return settings.lock;
}

static void add_settings(struct world *world, enum variation v)
{
    struct command settings = {
        .limit = v == LOCK_UNLIMITED ? 0
                 : v == LOCK_LIMIT   ? 3
                                     : 2,
        .ttl_ms = v == LOCK_TTL ? 20000 : 0,
        .release = v == LOCK_RELEASE ? RELEASE_EXIT : RELEASE_CLOSE,
        .delay_ms = v == LOCK_DELAY ? 1000 : 0,
    };
    add_lock(world, settings, "settings");
    /* A claim keeps what its lock had. */
    settings = (struct command){
        .limit = 1,
        .ttl_ms = v == CLAIM_TTL ? 30000 : 20000,
        .release = v == CLAIM_RELEASE ? RELEASE_EXIT : RELEASE_CLOSE,
    };
    uint64_t lock = add_lock(world, settings, "kept");
    apply(world, (struct command){.type = COMMAND_ACQUIRE,
                                  .node = 1,
                                  .handle = 20,
                                  .lock = lock,
                                  .name = span_of("f"),
                                  .kind = CLAIM_CREATE,
                                  .claim_mode = CLAIM_EXCLUSIVE});
    apply(world, (struct command){.type = COMMAND_SET_LOCK,
                                  .node = 1,
                                  .lock = lock,
                                  .attributes = ATTRIBUTE_TTL | ATTRIBUTE_RELEASE,
                                  .release = RELEASE_CLOSE});
}

static void add_fcntl(struct world *world, enum variation v)
{
    /* Another claim before, of the same owner or of another one, which makes no difference later.
     */
    struct command acquire = {
        .type = COMMAND_ACQUIRE,
        .node = 1,
        .handle = 30,
        .lock = LOCK_TABLE_ROOT,
        .name = span_of("fcntl"),
        .kind = CLAIM_FCNTL,
        .claim_mode = CLAIM_SHARED,
        .owner = v == FCNTL_CONVERTED ? 30 : 31,
        .ttl_ms = 10000,
    };
    struct command unlock = {
        .type = COMMAND_UNLOCK,
        .node = 1,
        .lock = LOCK_TABLE_ROOT,
        .name = span_of("fcntl"),
        .kind = CLAIM_FCNTL,
        .owner = 31,
    };
    apply(world, acquire);
    apply(world, unlock);
    acquire.kind = v == FCNTL_KIND ? CLAIM_FLOCK : CLAIM_FCNTL;
    acquire.claim_mode = v == FCNTL_MODE ? CLAIM_SHARED : CLAIM_EXCLUSIVE;
    acquire.owner = v == FCNTL_OWNER ? 32 : 30;
    apply(world, acquire);
    acquire.handle = 33;
    acquire.kind = CLAIM_FCNTL;
    acquire.claim_mode = CLAIM_EXCLUSIVE;
    acquire.owner = v == WAITER_OWNER ? 34 : 33;
    acquire.ttl_ms = v == WAITER_TTL ? 20000 : 10000;
    acquire.wait = true;
    apply(world, acquire);
}

static void add_delay(struct world *world, enum variation v)
{
    struct command start = {.type = COMMAND_INCARNATION, .node = 3, .incarnation = 300};
    struct command settings = {.release = RELEASE_CLOSE, .delay_ms = v == DELAY_MS ? 2000 : 1000};
    uint64_t lock = add_lock(world, settings, "delayed");
    apply(world, start);
    apply(world, (struct command){.type = COMMAND_ACQUIRE,
                                  .node = 3,
                                  .handle = 1,
                                  .lock = lock,
                                  .name = span_of(v == DELAY_FILE ? "g" : "f"),
                                  .kind = CLAIM_FLOCK,
                                  .claim_mode = CLAIM_EXCLUSIVE});
    start.incarnation = 301;
    start.replaces = 300;
    start.stamp_ms = v == DELAY_STAMP ? 41 : 40;
    apply(world, start);
    apply(world,
          (struct command){
              .type = COMMAND_SET_LOCK, .node = 1, .lock = lock, .attributes = ATTRIBUTE_DELAY});
    struct delay_view delay = {0};
    if (!lock_table_next_delay(world->table, 0, &delay))
        tap_ok(false, "a delay began");
    apply(world, (struct command){.type = COMMAND_END_DELAY,
                                  .node = 1,
                                  .target = v == DELAY_ENDED ? delay.id : delay.id + 1000});
}

static uint64_t digest_of(enum variation v)
{
    struct world world;
    uint64_t handle = v == HANDLE ? 77 : 1;
    struct command wait = {
        .type = COMMAND_ACQUIRE,
        .node = 2,
        .handle = 1,
        .name = span_of(v == WAITER_NAME ? "h" : "g"),
        .kind = CLAIM_FLOCK,
        .claim_mode = v == WAITER_MODE ? CLAIM_SHARED : CLAIM_EXCLUSIVE,
        .wait = true,
        .stamp_ms = 30,
    };
    struct command other_wait = wait;
    world_init(&world);
    apply(&world, (struct command){.type = COMMAND_INCARNATION,
                                   .node = 1,
                                   .incarnation = 100,
                                   .boot_id = {1, v == BOOT_ID}});
    apply(&world, (struct command){.type = COMMAND_INCARNATION, .node = 2, .incarnation = 200});
    /* Two commands of node 1 without effect, one of them before or after the mkdir. */
    apply(&world, (struct command){.type = COMMAND_RELEASE, .node = 1, .handle = 50});
    if (v == MKDIR_SEQ)
        apply(&world, (struct command){.type = COMMAND_RELEASE, .node = 1, .handle = 50});
    wait.lock = apply(&world,
                      (struct command){
                          .type = COMMAND_MKDIR,
                          .node = 1,
                          .lock = LOCK_TABLE_ROOT,
                          .name = span_of(v == MKDIR_NAME ? "b" : "a"),
                          .attributes = ATTRIBUTE_MODE | ATTRIBUTE_UID | ATTRIBUTE_GID,
                          .mode = v == MKDIR_MODE ? 0700 : 0755,
                          .uid = v == MKDIR_UID,
                          .gid = v == MKDIR_GID,
                          .stamp_ms = v == MKDIR_STAMP ? 11 : 10,
                      })
                    .lock;
    other_wait.lock = wait.lock;
    if (v != MKDIR_SEQ)
        apply(&world, (struct command){.type = COMMAND_RELEASE, .node = 1, .handle = 50});
    apply(&world, (struct command){.type = COMMAND_SET_LOCK,
                                   .node = 1,
                                   .lock = LOCK_TABLE_ROOT,
                                   .attributes = ATTRIBUTE_MODE,
                                   .mode = v == ROOT_MODE ? 0755 : 01755});
    struct command create = {
        .type = COMMAND_ACQUIRE,
        .node = 1,
        .handle = handle,
        .lock = wait.lock,
        .name = span_of("f"),
        .kind = v == FLOCK_KIND ? CLAIM_FLOCK : CLAIM_CREATE,
        .claim_mode = CLAIM_EXCLUSIVE,
        .process = {.pid = v == PID ? 6 : 5, .start = v == START ? 8 : 7},
        .attributes = ATTRIBUTE_MODE | ATTRIBUTE_UID | ATTRIBUTE_GID,
        .mode = v == CREATE_MODE ? 0600 : 0644,
        .uid = v == CREATE_UID,
        .stamp_ms = v == CREATE_STAMP ? 21 : 20,
    };
    strcpy(create.process.comm, v == COMM ? "dash" : "bash");
    apply(&world, create);
    apply(&world, (struct command){.type = COMMAND_WRITE,
                                   .node = 1,
                                   .handle = handle,
                                   .data = span_of(v == DATA       ? "abd"
                                                   : v == DATA_LEN ? "abcd"
                                                                   : "abc")});
    apply(&world, (struct command){.type = COMMAND_TRUNCATE,
                                   .node = 1,
                                   .handle = handle,
                                   .offset = v == ZEROS_AT_END || v == DATA_LEN ? 4 : 3});
    wait.handle = v == WAITER_HANDLE ? 77 : v == WAITERS_ORDER ? 2 : 1;
    other_wait.handle = v == WAITERS_ORDER ? 1 : 2;
    apply(&world, wait);
    apply(&world, other_wait);
    struct command flock = {
        .type = COMMAND_ACQUIRE,
        .node = 2,
        .handle = 3,
        .lock = LOCK_TABLE_ROOT,
        .name = span_of("r"),
        .kind = CLAIM_FLOCK,
        .claim_mode = v == FLOCK_MODE ? CLAIM_SHARED : CLAIM_EXCLUSIVE,
    };
    apply(&world, flock);
    /* One number more, or one command, and nothing else. */
    flock.handle = 4;
    flock.name = span_of("s");
    struct command release = {.type = COMMAND_RELEASE, .node = 2, .handle = 4};
    apply(&world, v == TOKEN ? flock : release);
    apply(&world, release);
    add_settings(&world, v);
    add_fcntl(&world, v);
    add_delay(&world, v);
    if (v == SEQ)
        apply(&world, release);
    uint64_t digest = lock_table_digest(world.table);
    world_free(&world);
    return digest;
}

static void test_each_part_counts(void)
{
    uint64_t digests[VARIATIONS];
    for (int v = 0; v < VARIATIONS; v++)
        digests[v] = digest_of((enum variation)v);
    tap_ok(digests[0] == digest_of(AS_IT_IS), "the same commands give the same digest");
    for (int v = 1; v < VARIATIONS; v++) {
        bool alone = true;
        for (int other = 0; other < v; other++)
            alone &= digests[v] != digests[other];
        tap_ok(alone, "the digest tells %s", variation_names[v]);
    }
}

/* Two locks, two nodes, and a claim, a wait and content in each, made in one order or the other as
 * far as that leaves no trace in numbers. */
static void two_sides(struct world *world)
{
    world_init(world);
    for (uint64_t node = 1; node <= 2; node++) {
        apply(world, (struct command){
                         .type = COMMAND_INCARNATION, .node = node, .incarnation = node * 100});
        world->locks[node - 1] =
            apply(world, (struct command){.type = COMMAND_MKDIR,
                                          .node = node,
                                          .lock = LOCK_TABLE_ROOT,
                                          .name = span_of(node == 1 ? "a" : "b")})
                .lock;
        for (uint64_t handle = 1; handle <= 3; handle++)
            apply(world,
                  (struct command){.type = COMMAND_ACQUIRE,
                                   .node = node,
                                   .handle = handle,
                                   .lock = handle == 3 ? LOCK_TABLE_ROOT : world->locks[node - 1],
                                   .name = span_of(handle != 3 ? "f"
                                                   : node == 1 ? "x"
                                                               : "y"),
                                   .kind = CLAIM_FLOCK,
                                   .claim_mode = CLAIM_EXCLUSIVE,
                                   .wait = true});
    }
}

/* One step of a node's, none of which meets anything of the other's. */
static void step_of_side(struct world *world, uint64_t node, int step)
{
    struct command command = {.node = node, .handle = 1, .stamp_ms = 99};
    switch (step) {
    case 0:
        command.type = COMMAND_WRITE;
        command.data = span_of("some text of a claim");
        break;
    case 1:
        command.type = COMMAND_SET_LOCK;
        command.lock = world->locks[node - 1];
        command.attributes = ATTRIBUTE_GID;
        command.gid = 5;
        break;
    case 2:
        command.type = COMMAND_WRITE;
        command.handle = 3;
        command.offset = 1000;
        command.data = span_of("more text");
        break;
    case 3: /* the waiter leaves */
        command.type = COMMAND_RELEASE;
        command.handle = 2;
        break;
    case 4: /* and the claims, with their files */
        command.type = COMMAND_RELEASE;
        break;
    default:
        command.type = COMMAND_UNLOCK;
        command.handle = 3;
        break;
    }
    apply(world, command);
}

static void test_path_leaves_no_trace(void)
{
    struct world one;
    struct world other;
    two_sides(&one);
    two_sides(&other);
    for (int step = 0; step < 6; step++) {
        step_of_side(&one, 1, step);
        step_of_side(&one, 2, step);
        step_of_side(&other, 2, step);
        step_of_side(&other, 1, step);
        tap_ok(lock_table_digest(one.table) == lock_table_digest(other.table),
               "the order of independent commands leaves no trace, step %d", step);
    }
    /* What was freed in another order is used again. */
    for (uint64_t handle = 10; handle < 14; handle++) {
        struct command acquire = {
            .type = COMMAND_ACQUIRE,
            .node = 1,
            .handle = handle,
            .lock = LOCK_TABLE_ROOT,
            .name = span_of(handle % 2 ? "a file" : "another file"),
            .kind = CLAIM_FLOCK,
            .claim_mode = CLAIM_SHARED,
        };
        apply(&one, acquire);
        apply(&other, acquire);
    }
    tap_ok(lock_table_digest(one.table) == lock_table_digest(other.table),
           "nor does the order in which memory was given back");
    world_free(&one);
    world_free(&other);
}

static void test_void_commands_leave_no_trace(void)
{
    struct world world;
    two_sides(&world);
    uint64_t digest = lock_table_digest(world.table);
    struct command command = {
        .type = COMMAND_RELEASE, .node = 1, .incarnation = 100, .seq = world.seqs[1], .handle = 1};
    lock_table_apply(world.table, &command, ignore_effect, NULL);
    tap_ok(lock_table_digest(world.table) == digest, "a command applied before changes nothing");
    command.seq = world.seqs[1] + 1;
    command.incarnation = 99;
    lock_table_apply(world.table, &command, ignore_effect, NULL);
    tap_ok(lock_table_digest(world.table) == digest, "nor does one of another incarnation");
    command.incarnation = 100;
    lock_table_apply(world.table, &command, ignore_effect, NULL);
    tap_ok(lock_table_digest(world.table) != digest, "one whose turn it is does");
    world_free(&world);
}

int main(void)
{
    test_each_part_counts();
    test_path_leaves_no_trace();
    test_void_commands_leave_no_trace();
    return tap_done();
}
