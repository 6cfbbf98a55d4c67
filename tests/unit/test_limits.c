/*
 * Every limit of fs/limits.h that the lock table and the node keep: what callers are told there,
 * that what is held can still be given back (DESIGN C10), and that it goes on when there is room
 * again. Where that takes seconds, at the values that the daemon has.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/lib/node_bench.h"
#include "tests/lib/tap.h"

/* The table alone */

enum { NODES = LIMIT_SESSIONS + 2 };

struct world {
    void *memory;
    struct lock_table *table;
    uint64_t seqs[NODES]; /* by node */
    uint32_t granted;     /* waiters */
    uint32_t ended;
};

static void count_effect(void *context, const struct effect *effect)
{
    struct world *world = context;
    world->granted += effect->type == EFFECT_GRANTED;
    world->ended += effect->type == EFFECT_ENDED;
}

static struct command_result apply(struct world *world, struct command command)
{
    command.node = command.node ? command.node : 1;
    if (command.type != COMMAND_INCARNATION)
        command.seq = ++world->seqs[command.node];
    command.incarnation = command.node * 100;
    return lock_table_apply(world->table, &command, count_effect, world);
}

static int join(struct world *world, uint64_t node)
{
    return apply(world, (struct command){.type = COMMAND_INCARNATION, .node = node}).error;
}

static struct world *world_open(const struct lock_table_limits *limits)
{
    struct world *world = calloc(1, sizeof *world);
    world->memory = calloc(1, lock_table_size(limits));
    world->table = lock_table_init(world->memory, limits);
    if (join(world, 1))
        tap_ok(false, "a node joins");
    return world;
}

static void world_close(struct world *world)
{
    free(world->memory);
    free(world);
}

static struct lock_table_counts counts(const struct world *world)
{
    struct lock_table_counts counts;
    lock_table_get_counts(world->table, &counts);
    return counts;
}

static struct span span_of(const char *name)
{
    return (struct span){name, strlen(name)};
}

/* A name for a number, `len` bytes long, or as long as it must be. */
static struct span numbered(char *buffer, uint32_t number, size_t len)
{
    int used = snprintf(buffer, sizeof "4294967295.", "%u.", number);
    if (len > (size_t)used)
        memset(buffer + used, 'n', len - (size_t)used);
    return (struct span){buffer, len > (size_t)used ? len : (size_t)used};
}

static struct command_result make(struct world *world, uint64_t parent, struct span name)
{
    return apply(world, (struct command){.type = COMMAND_MKDIR, .lock = parent, .name = name});
}

static int unmake(struct world *world, uint64_t parent, struct span name)
{
    return apply(world, (struct command){.type = COMMAND_RMDIR, .lock = parent, .name = name})
        .error;
}

static struct command_result claim(struct world *world, uint64_t lock, struct span name,
                                   uint64_t handle, enum claim_kind kind, bool wait)
{
    return apply(world, (struct command){.type = COMMAND_ACQUIRE,
                                         .lock = lock,
                                         .name = name,
                                         .handle = handle,
                                         .kind = kind,
                                         .claim_mode = CLAIM_EXCLUSIVE,
                                         .wait = wait});
}

static int release(struct world *world, uint64_t handle)
{
    return apply(world, (struct command){.type = COMMAND_RELEASE, .handle = handle}).error;
}

static void test_locks(void)
{
    struct world *world = world_open(&lock_table_limits_default);
    char name[LIMIT_NAME_BYTES + 1];
    uint32_t made = 1; /* the root */
    int error = 0;
    while (!error && made <= LIMIT_LOCKS) {
        error = make(world, LOCK_TABLE_ROOT, numbered(name, made, 0)).error;
        made += error == 0;
    }
    tap_equal(error, -ENOSPC, "one lock too many: ENOSPC");
    tap_equal(made, LIMIT_LOCKS, "there are %d", LIMIT_LOCKS);
    uint64_t first = lock_table_find(world->table, LOCK_TABLE_ROOT, span_of("1."));
    tap_equal(claim(world, first, span_of("f"), 7, CLAIM_CREATE, false).error, 0, "they work");
    tap_equal(release(world, 7), 0, "both ways");
    tap_equal(unmake(world, LOCK_TABLE_ROOT, span_of("2.")), 0, "one is removed");
    tap_equal(make(world, first, span_of("child")).error, 0, "so there is room for another");
    tap_equal(make(world, first, span_of("second")).error, -ENOSPC, "for one");
    world_close(world);
}

static void test_names_bytes(void)
{
    struct world *world = world_open(&lock_table_limits_default);
    char name[LIMIT_NAME_BYTES + 1];
    uint32_t made = 0;
    while (!make(world, LOCK_TABLE_ROOT, numbered(name, made, LIMIT_NAME_BYTES)).error)
        made++;
    tap_equal(make(world, LOCK_TABLE_ROOT, numbered(name, made, LIMIT_NAME_BYTES)).error, -ENOSPC,
              "a name too many, of a lock: ENOSPC");
    tap_equal(made, LIMIT_NAMES_BYTES / LIMIT_NAME_BYTES, "%u names of %d bytes", made,
              LIMIT_NAME_BYTES);
    tap_equal(claim(world, LOCK_TABLE_ROOT, numbered(name, made, LIMIT_NAME_BYTES), 1, CLAIM_CREATE,
                    false)
                  .error,
              -ENOLCK, "of a claim: ENOLCK");
    size_t rest = (size_t)LIMIT_NAMES_BYTES - (size_t)made * LIMIT_NAME_BYTES;
    struct span last = numbered(name, made, rest);
    tap_equal(claim(world, LOCK_TABLE_ROOT, last, 1, CLAIM_FLOCK, false).error, 0,
              "a name of %zu bytes fills it up", rest);
    tap_equal(claim(world, LOCK_TABLE_ROOT, span_of("w"), 2, CLAIM_FLOCK, true).error, -ENOLCK,
              "then one of one byte is too long");
    tap_ok(claim(world, LOCK_TABLE_ROOT, last, 2, CLAIM_FLOCK, true).queued,
           "who waits under a name that is there needs no room");
    tap_equal(release(world, 1), 0, "a release");
    tap_equal(world->granted, 1, "lets it in");
    tap_equal(release(world, 2), 0, "its release");
    tap_equal(claim(world, LOCK_TABLE_ROOT, span_of("w"), 3, CLAIM_FLOCK, false).error, 0,
              "makes room for a name");
    tap_equal(unmake(world, LOCK_TABLE_ROOT, numbered(name, 0, LIMIT_NAME_BYTES)), 0, "rmdir");
    tap_equal(make(world, LOCK_TABLE_ROOT, numbered(name, made, LIMIT_NAME_BYTES)).error, 0,
              "also");
    world_close(world);
}

/* Waiters become claims beyond the limit of claims: whoever was let into the queue has a place. */
static void test_claims_and_waiters(void)
{
    struct world *world = world_open(&lock_table_limits_default);
    char name[LIMIT_NAME_BYTES + 1];
    uint32_t claims = 0;
    int error = 0;
    while (!error && claims <= LIMIT_CLAIMS) {
        error = claim(world, LOCK_TABLE_ROOT, numbered(name, claims, 0), claims + 1,
                      claims % 2 ? CLAIM_FLOCK : CLAIM_CREATE, false)
                    .error;
        claims += error == 0;
    }
    tap_equal(error, -ENOLCK, "one claim too many: ENOLCK");
    tap_equal(claims, LIMIT_CLAIMS, "there are %d", LIMIT_CLAIMS);
    tap_equal(claim(world, LOCK_TABLE_ROOT, span_of("1."), 2, CLAIM_FLOCK, false).error, 0,
              "to ask for what one has needs no room");

    uint32_t waiters = 0;
    struct command_result result;
    do {
        result = claim(world, LOCK_TABLE_ROOT, numbered(name, waiters, 0),
                       UINT64_C(1) << 32 | waiters, CLAIM_FLOCK, true);
        waiters += result.queued;
    } while (result.queued && waiters <= LIMIT_WAITERS);
    tap_equal(result.error, -ENOLCK, "one waiter too many: ENOLCK");
    tap_equal(waiters, LIMIT_WAITERS, "there are %d", LIMIT_WAITERS);
    tap_equal(release(world, 2), 0, "a release");
    tap_equal(world->granted, 1, "lets in who waited for it");
    tap_equal(counts(world).claims, LIMIT_CLAIMS, "which is a claim more again");
    result = claim(world, LOCK_TABLE_ROOT, span_of("0."), 9999999, CLAIM_FLOCK, true);
    tap_equal(result.error, 0, "and a waiter less: another one may wait");
    tap_ok(result.queued, "it waits");
    tap_equal(claim(world, LOCK_TABLE_ROOT, span_of("new"), 8888888, CLAIM_CREATE, false).error,
              -ENOLCK, "but no new claim");

    for (uint32_t i = 0; i < LIMIT_CLAIMS; i++)
        error |= i != 1 && release(world, i + 1);
    tap_equal(world->granted, LIMIT_WAITERS, "all releases let in all who waited");
    for (uint32_t i = 0; i < LIMIT_WAITERS; i++)
        error |= release(world, UINT64_C(1) << 32 | i);
    tap_equal(counts(world).claims, 1, "who release, too, but for the last who came");
    release(world, 9999999);
    tap_equal(counts(world).claims + counts(world).waiters, 0, "nothing is left");
    tap_equal(claim(world, LOCK_TABLE_ROOT, span_of("new"), 1, CLAIM_CREATE, false).error, 0,
              "and all is free");
    world_close(world);
}

static void test_sessions(void)
{
    struct world *world = world_open(&lock_table_limits_default);
    uint64_t node = 1;
    while (node < LIMIT_SESSIONS && !join(world, node + 1))
        node++;
    tap_equal(node, LIMIT_SESSIONS, "%d nodes", LIMIT_SESSIONS);
    tap_equal(join(world, node + 1), -ENOSPC, "one more: ENOSPC");
    tap_equal(apply(world, (struct command){.type = COMMAND_ACQUIRE,
                                            .node = LIMIT_SESSIONS,
                                            .lock = LOCK_TABLE_ROOT,
                                            .name = span_of("f"),
                                            .handle = 1,
                                            .kind = CLAIM_CREATE,
                                            .claim_mode = CLAIM_EXCLUSIVE})
                  .error,
              0, "those that are in work");
    tap_equal(apply(world, (struct command){.type = COMMAND_INCARNATION,
                                            .node = LIMIT_SESSIONS,
                                            .replaces = LIMIT_SESSIONS * 100})
                  .error,
              0, "and start anew");
    tap_equal(world->ended, 1, "which ends their claims");
    world_close(world);
}

static void test_depth(void)
{
    struct world *world = world_open(&lock_table_limits_default);
    uint64_t lock = LOCK_TABLE_ROOT;
    uint64_t parent = lock;
    struct command_result result;
    int levels = 0;
    for (; !(result = make(world, lock, span_of("d"))).error; levels++) {
        parent = lock;
        lock = result.lock;
    }
    tap_equal(result.error, -ENAMETOOLONG, "one level too many: ENAMETOOLONG");
    tap_equal(levels, LIMIT_DEPTH, "there are %d", LIMIT_DEPTH);
    tap_equal(claim(world, lock, span_of("f"), 1, CLAIM_CREATE, false).error, 0, "a claim there");
    tap_equal(release(world, 1), 0, "is no level");
    tap_equal(unmake(world, parent, span_of("d")), 0, "the lowest goes");
    tap_equal(make(world, parent, span_of("e")).error, 0, "and another comes");
    world_close(world);
}

/* Resources that are delayed keep their names, and so their places in the table. */
static void test_delayed_files(void)
{
    const struct lock_table_limits limits = {.locks = 4,
                                             .claims = 3,
                                             .waiters = 1,
                                             .sessions = 2,
                                             .names_bytes = 1000,
                                             .contents_bytes = 1000};
    enum { FILES = 3 + 2 * 1 };
    struct world *world = world_open(&limits);
    char name[LIMIT_NAME_BYTES + 1];
    uint64_t incarnation = 100;
    uint32_t delayed = 0;
    apply(world, (struct command){.type = COMMAND_SET_LOCK,
                                  .lock = LOCK_TABLE_ROOT,
                                  .attributes = ATTRIBUTE_DELAY,
                                  .delay_ms = 1000});
    int error = 0;
    while (delayed <= FILES) {
        error =
            claim(world, LOCK_TABLE_ROOT, numbered(name, delayed, 0), 1, CLAIM_CREATE, false).error;
        if (error)
            break;
        delayed++;
        apply(world, (struct command){.type = COMMAND_INCARNATION, .replaces = incarnation});
        world->seqs[1] = 0;
    }
    tap_equal(error, -ENOLCK, "all places are delayed names: ENOLCK");
    tap_equal(delayed, FILES, "there are as many as claims and twice the waiters");
    tap_equal(claim(world, LOCK_TABLE_ROOT, span_of("0."), 1, CLAIM_CREATE, false).error, -EEXIST,
              "one of them: delayed");
    struct delay_view delay = {0};
    tap_ok(lock_table_next_delay(world->table, 0, &delay), "a delay");
    tap_equal(apply(world, (struct command){.type = COMMAND_END_DELAY, .target = delay.id}).error,
              0, "ends");
    tap_equal(claim(world, LOCK_TABLE_ROOT, span_of("other"), 1, CLAIM_CREATE, false).error, 0,
              "which makes room");
    world_close(world);
}

/* Thousands of lockfiles, all delayed: to go from one to the next, or to one by its id, is no walk
 * past all others, during which the daemon would serve nobody. */
static void test_many_delays(void)
{
    enum { FILES = 60000, SECONDS = 2 };
    const struct lock_table_limits limits = {.locks = 4,
                                             .claims = FILES,
                                             .waiters = 1,
                                             .sessions = 2,
                                             .names_bytes = 16 * FILES,
                                             .contents_bytes = 1000};
    struct world *world = world_open(&limits);
    char name[LIMIT_NAME_BYTES + 1];
    apply(world, (struct command){.type = COMMAND_SET_LOCK,
                                  .lock = LOCK_TABLE_ROOT,
                                  .attributes = ATTRIBUTE_DELAY,
                                  .delay_ms = 1000});
    for (uint32_t i = 0; i < FILES; i++)
        claim(world, LOCK_TABLE_ROOT, numbered(name, i, 0), i + 1, CLAIM_CREATE, false);
    apply(world, (struct command){.type = COMMAND_INCARNATION, .replaces = 100});
    world->seqs[1] = 0;

    uint64_t *ids = calloc(FILES, sizeof *ids);
    struct delay_view delay = {0};
    uint32_t count = 0;
    clock_t start = clock();
    while (ids && count < FILES && lock_table_next_delay(world->table, delay.id, &delay))
        ids[count++] = delay.id;
    tap_equal(count, FILES, "all lockfiles are delayed");
    for (uint32_t left = count; left; left--) {
        bool found = lock_table_next_delay(world->table, ids[left - 1] - 1, &delay);
        count -= found && delay.id == ids[left - 1];
        apply(world, (struct command){.type = COMMAND_END_DELAY, .target = ids[left - 1]});
    }
    tap_equal(count, 0, "each is found by its id, the last ones first");
    tap_ok(!lock_table_next_delay(world->table, 0, &delay), "and ends");
    tap_ok(clock() - start < SECONDS * CLOCKS_PER_SEC, "in no more than a moment");
    free(ids);
    world_close(world);
}

/* Through the node */

static int error_of(const struct node_reply *reply)
{
    return !reply ? -EINPROGRESS : reply->type == NODE_REPLY_ERROR ? reply->error : 0;
}

static int open_file(struct bench *bench, uint64_t inode, uint64_t *ret_handle)
{
    struct node_request request = {.op = NODE_OP_OPEN, .inode = inode, .open = {.write = true}};
    const struct node_reply *reply = bench_request(bench, request, 0, 7);
    if (error_of(reply) == 0)
        *ret_handle = reply->handle;
    return error_of(reply);
}

static void forget(struct bench *bench, uint64_t inode)
{
    bench_step(bench, &(struct node_event){.type = NODE_EVENT_FORGET, .forget = {inode, 1}});
}

static void no_harm(struct bench *bench)
{
    tap_ok(!bench->failed, "the node goes on: %s", bench->failed ? bench->failed : "");
}

/* All handles hold claims, so there is room for that many claims and their ends. */
static void test_handles(void)
{
    struct bench *bench = bench_open(&node_limits_default);
    static uint64_t handles[LIMIT_HANDLES];
    static uint64_t inodes[LIMIT_HANDLES];
    char name[LIMIT_NAME_BYTES + 1];
    uint64_t inode, handle;
    uint32_t count = 0;
    int error = 0;
    while (!error && count < LIMIT_HANDLES) {
        snprintf(name, sizeof name, "f%u", count);
        error =
            bench_create(bench, NODE_ROOT_INODE, name, true, 7, &inodes[count], &handles[count]);
        count += error == 0;
    }
    tap_equal(count, LIMIT_HANDLES, "%d handles, each with a claim", LIMIT_HANDLES);
    tap_equal(bench_create(bench, NODE_ROOT_INODE, "one-more", true, 7, NULL, NULL), -ENOLCK,
              "one more claim: ENOLCK");
    tap_equal(bench_create(bench, NODE_ROOT_INODE, "one-more", false, 7, NULL, NULL), -ENOLCK,
              "an open, too");
    bench_lookup(bench, NODE_ROOT_INODE, "holders", &inode);
    tap_equal(open_file(bench, inode, &handle), -ENOLCK, "of a control file, too");
    struct node_request opendir = {.op = NODE_OP_OPENDIR, .inode = NODE_ROOT_INODE};
    tap_equal(error_of(bench_request(bench, opendir, 0, 7)), -ENOLCK, "of a directory, too");
    tap_equal(bench_lookup(bench, NODE_ROOT_INODE, "f1", NULL), 0, "a look goes on");
    bench_release(bench, inodes[0], handles[0]);
    tap_equal(bench_create(bench, NODE_ROOT_INODE, "one-more", true, 7, &inodes[0], &handles[0]), 0,
              "when one is closed, another may come");
    bench->auto_persist = false;
    for (uint32_t i = 0; i < LIMIT_HANDLES; i++)
        bench_release(bench, inodes[i], handles[i]);
    no_harm(bench);
    bench_persist(bench);
    no_harm(bench);
    tap_equal(node_claims_held(bench->node), 0, "all are closed at once, and nothing is held");
    bench->auto_persist = true;
    tap_equal(bench_create(bench, NODE_ROOT_INODE, "f1", true, 7, NULL, NULL), 0, "all is free");
    bench_close(bench);
}

static void test_control_readers(void)
{
    struct bench *bench = bench_open(&node_limits_default);
    static uint64_t handles[LIMIT_CONTROL_READERS];
    uint64_t inode, handle;
    uint32_t count = 0;
    int error = 0;
    bench_lookup(bench, NODE_ROOT_INODE, "holders", &inode);
    while (!error && count < LIMIT_CONTROL_READERS) {
        error = open_file(bench, inode, &handles[count]);
        count += error == 0;
    }
    tap_equal(count, LIMIT_CONTROL_READERS, "%d open control files", LIMIT_CONTROL_READERS);
    tap_equal(open_file(bench, inode, &handle), -ENOLCK, "one more: ENOLCK");
    uint64_t claimed;
    tap_equal(bench_create(bench, NODE_ROOT_INODE, "f", true, 7, &claimed, &handle), 0,
              "claims go on");
    bench_release(bench, claimed, handle);
    bench_release(bench, inode, handles[0]);
    tap_equal(open_file(bench, inode, &handle), 0, "when one is closed, another may be opened");
    bench_close(bench);
}

static void test_contents(void)
{
    enum { FILES = LIMIT_CONTENTS_BYTES / LIMIT_CONTENT_BYTES };
    struct bench *bench = bench_open(&node_limits_default);
    static uint64_t handles[FILES + 1];
    static uint64_t inodes[FILES + 1];
    char text[LIMIT_CONTENT_BYTES + 2];
    char name[LIMIT_NAME_BYTES + 1];
    int error = 0;
    uint32_t written = 0;
    memset(text, 'x', sizeof text);
    text[LIMIT_CONTENT_BYTES] = 0;
    for (uint32_t i = 0; i <= FILES; i++) {
        snprintf(name, sizeof name, "f%u", i);
        error |= bench_create(bench, NODE_ROOT_INODE, name, true, 7, &inodes[i], &handles[i]);
    }
    tap_equal(error, 0, "%d claims", FILES + 1);
    while (written < FILES && !bench_write(bench, inodes[written], handles[written], text))
        written++;
    tap_equal(written, FILES, "%d contents of %d bytes", FILES, LIMIT_CONTENT_BYTES);
    tap_equal(bench_write(bench, inodes[FILES], handles[FILES], "x"), -ENOSPC,
              "a byte more: ENOSPC");
    struct node_request truncate = {.op = NODE_OP_SETATTR,
                                    .inode = inodes[FILES],
                                    .handle = handles[FILES],
                                    .setattr = {.valid = NODE_SET_SIZE, .size = 1}};
    tap_equal(error_of(bench_request(bench, truncate, 0, 7)), -ENOSPC, "ftruncate: ENOSPC");
    struct node_request statfs = {.op = NODE_OP_STATFS, .inode = NODE_ROOT_INODE};
    const struct node_reply *reply = bench_request(bench, statfs, 0, 7);
    tap_equal(reply->statfs.blocks_free, 0, "df shows it");
    tap_equal(bench_write(bench, inodes[0], handles[0], "y"), 0, "what is there can be changed");
    text[LIMIT_CONTENT_BYTES] = 'x';
    text[LIMIT_CONTENT_BYTES + 1] = 0;
    tap_equal(bench_write(bench, inodes[0], handles[0], text), -EFBIG, "4097 bytes: EFBIG");
    bench_release(bench, inodes[1], handles[1]);
    tap_equal(bench_write(bench, inodes[FILES], handles[FILES], "x"), 0,
              "a release makes room for contents");
    tap_equal(bench_create(bench, NODE_ROOT_INODE, "new", true, 7, NULL, NULL), 0,
              "claims without content need none");
    for (uint32_t i = 0; i <= FILES; i++)
        bench_release(bench, inodes[i], handles[i]);
    struct lock_table_counts counts;
    lock_table_get_counts(node_table(bench->node), &counts);
    tap_equal(counts.contents_bytes, 0, "all is given back");
    no_harm(bench);
    bench_close(bench);
}

static void test_names_and_depth(void)
{
    struct bench *bench = bench_open(&node_limits_default);
    char name[LIMIT_NAME_BYTES + 2];
    memset(name, 'n', sizeof name);
    name[LIMIT_NAME_BYTES + 1] = 0;
    static const enum node_op ops[] = {NODE_OP_LOOKUP,  NODE_OP_MKDIR,  NODE_OP_RMDIR,
                                       NODE_OP_UNLINK,  NODE_OP_RENAME, NODE_OP_LINK,
                                       NODE_OP_SYMLINK, NODE_OP_MKNOD,  NODE_OP_CREATE};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        tap_equal(bench_named(bench, ops[i], NODE_ROOT_INODE, name, 7), -ENAMETOOLONG,
                  "operation %d with a name of 256 bytes: ENAMETOOLONG", (int)ops[i]);
    name[LIMIT_NAME_BYTES] = 0;
    uint64_t lock = NODE_ROOT_INODE;
    int levels = 0;
    int error;
    while (!(error = bench_mkdir(bench, lock, name, &lock)))
        levels++;
    tap_equal(error, -ENAMETOOLONG, "one level too many: ENAMETOOLONG");
    tap_equal(levels, LIMIT_DEPTH, "%d levels of names of %d bytes", levels, LIMIT_NAME_BYTES);
    tap_equal(bench_create(bench, lock, name, true, 7, NULL, NULL), 0, "and a claim below");
    bench_close(bench);
}

/* The table's limits, small: ENOLCK and ENOSPC come through, and what was half done is undone. */
static void test_small_node(void)
{
    struct node_limits limits = bench_limits;
    limits.table.waiters = 2;
    limits.table.claims = 3;
    limits.table.names_bytes = 60;
    struct bench *bench = bench_open(&limits);
    uint64_t inode, handles[5];
    char name[64];
    for (uint32_t i = 0; i < 5; i++)
        bench_create(bench, NODE_ROOT_INODE, "f", false, i + 1, &inode, &handles[i]);
    bench_flock(bench, 1, inode, handles[0], NODE_FLOCK_EXCLUSIVE, true, 1);
    for (uint32_t i = 1; i < 3; i++)
        tap_equal(bench_flock(bench, 1 + i, inode, handles[i], NODE_FLOCK_EXCLUSIVE, true, i + 1),
                  -EINPROGRESS, "a waiter");
    tap_equal(bench_flock(bench, 4, inode, handles[3], NODE_FLOCK_EXCLUSIVE, true, 4), -ENOLCK,
              "one too many: ENOLCK");
    tap_equal(bench_flock(bench, 4, inode, handles[3], NODE_FLOCK_EXCLUSIVE, false, 4),
              -EWOULDBLOCK, "who does not wait is told that it is held");
    bench_release(bench, inode, handles[0]);
    tap_equal(error_of(bench_reply(bench, 2)), 0, "a release lets the first one in");
    tap_equal(bench_flock(bench, 4, inode, handles[3], NODE_FLOCK_EXCLUSIVE, true, 4), -EINPROGRESS,
              "and one more may wait");
    bench_step(bench, &(struct node_event){.type = NODE_EVENT_INTERRUPT, .interrupt = {4}});
    tap_equal(bench_flock(bench, 5, inode, handles[4], NODE_FLOCK_EXCLUSIVE, true, 5), -EINPROGRESS,
              "who gives up makes room as well");

    numbered(name, 1, 50);
    name[50] = 0;
    tap_equal(bench_create(bench, NODE_ROOT_INODE, name, true, 7, NULL, NULL), 0, "a long name");
    tap_equal(bench_mkdir(bench, NODE_ROOT_INODE, "too-long-a-name", NULL), -ENOSPC,
              "no room for the name of a lock: ENOSPC");
    tap_equal(bench_create(bench, NODE_ROOT_INODE, "too-long-a-name", true, 7, NULL, NULL), -ENOLCK,
              "of a claim: ENOLCK");
    tap_equal(bench_lookup(bench, NODE_ROOT_INODE, "too-long-a-name", NULL), -ENOENT,
              "nothing is there");
    tap_equal(bench_create(bench, NODE_ROOT_INODE, "g", true, 7, NULL, NULL), 0, "a third claim");
    tap_equal(bench_create(bench, NODE_ROOT_INODE, "h", true, 7, NULL, NULL), -ENOLCK,
              "a fourth: ENOLCK");
    tap_equal(bench_named(bench, NODE_OP_UNLINK, NODE_ROOT_INODE, "g", 7), 0, "unlink");
    tap_equal(bench_create(bench, NODE_ROOT_INODE, "h", true, 7, NULL, NULL), 0, "makes room");
    no_harm(bench);
    bench_close(bench);
}

static void test_inodes(void)
{
    struct node_limits limits = bench_limits;
    limits.inodes = 8;
    struct bench *bench = bench_open(&limits);
    uint64_t lock = 0;
    char name[LIMIT_NAME_BYTES + 1];
    uint32_t made = 0;
    for (int error = 0; !error; made += error == 0) {
        snprintf(name, sizeof name, "d%u", made);
        error = bench_mkdir(bench, NODE_ROOT_INODE, name, made ? NULL : &lock);
        if (error)
            tap_equal(error, -ENOLCK, "mkdir without an inode: ENOLCK");
    }
    tap_equal(made + 1, limits.inodes, "to what the node has");
    tap_equal(lock_table_find(node_table(bench->node), LOCK_TABLE_ROOT, span_of(name)), 0,
              "the lock that was made is undone");
    tap_equal(bench_create(bench, NODE_ROOT_INODE, "f", true, 7, NULL, NULL), -ENOLCK,
              "create: ENOLCK");
    tap_equal(node_claims_held(bench->node), 0, "nothing is held");
    tap_equal(bench_lookup(bench, NODE_ROOT_INODE, "d0", NULL), 0, "a look at what is known");
    forget(bench, lock);
    forget(bench, lock);
    tap_equal(bench_create(bench, NODE_ROOT_INODE, "f", true, 7, NULL, NULL), 0,
              "when the kernel forgets one, there is room");
    tap_equal(bench_lookup(bench, NODE_ROOT_INODE, "d0", NULL), -ENOLCK,
              "a look that needs an inode: ENOLCK");
    no_harm(bench);
    bench_close(bench);

    /* The room for their names. */
    bench = bench_open(&limits);
    uint64_t inodes[2], handles[2];
    for (uint32_t i = 0; i < 2; i++) {
        numbered(name, i, LIMIT_NAME_BYTES);
        name[LIMIT_NAME_BYTES] = 0;
        tap_equal(bench_create(bench, NODE_ROOT_INODE, name, false, 7, &inodes[i], &handles[i]), 0,
                  "a long name");
    }
    numbered(name, 2, LIMIT_NAME_BYTES);
    tap_equal(bench_create(bench, NODE_ROOT_INODE, name, true, 7, NULL, NULL), -ENOLCK,
              "one too many: ENOLCK");
    tap_equal(bench_mkdir(bench, NODE_ROOT_INODE, name, NULL), -ENOLCK, "mkdir: ENOLCK");
    bench_release(bench, inodes[0], handles[0]);
    forget(bench, inodes[0]);
    tap_equal(bench_create(bench, NODE_ROOT_INODE, name, true, 7, NULL, NULL), 0,
              "closed and forgotten, it makes room");
    no_harm(bench);
    bench_close(bench);
}

/* Entries on their way into the log, and their bytes. */
static void test_pending(bool bytes)
{
    enum { HELD = 8 };
    struct node_limits limits = bench_limits;
    limits.pending_entries = bytes ? 1024 : 64;
    limits.pending_bytes = bytes ? 128 << 10 : 1 << 20;
    struct bench *bench = bench_open(&limits);
    uint64_t inodes[HELD], handles[HELD];
    char name[LIMIT_NAME_BYTES + 1];
    static char text[LIMIT_CONTENT_BYTES + 1];
    memset(text, 'x', LIMIT_CONTENT_BYTES);
    for (uint32_t i = 0; i < HELD; i++)
        bench_create(bench, NODE_ROOT_INODE, numbered(name, i, 0).data, true, 7, &inodes[i],
                     &handles[i]);
    bench->auto_persist = false;
    uint32_t slot = 1;
    int error = -EINPROGRESS;
    while (error == -EINPROGRESS && slot < BENCH_SLOTS - HELD) {
        struct node_request mkdir = {
            .op = NODE_OP_MKDIR, .inode = NODE_ROOT_INODE, .name = numbered(name, 100 + slot, 0)};
        struct node_request write = {.op = NODE_OP_WRITE,
                                     .inode = inodes[0],
                                     .handle = handles[0],
                                     .write = {.data = span_of(text)}};
        error = error_of(bench_request(bench, bytes ? write : mkdir, slot++, 7));
    }
    tap_equal(error, -ENOLCK, "too many %s under way: ENOLCK", bytes ? "bytes" : "entries");
    if (!bytes)
        tap_equal(bench_create(bench, NODE_ROOT_INODE, "f", true, 7, NULL, NULL), -ENOLCK,
                  "no new claim");
    for (uint32_t i = 0; i < HELD; i += 2) {
        struct node_request unlink = {
            .op = NODE_OP_UNLINK, .inode = NODE_ROOT_INODE, .name = numbered(name, i, 0)};
        tap_equal(error_of(bench_request(bench, unlink, slot++, 7)), -EINPROGRESS,
                  "an unlink finds room");
        bench_release(bench, inodes[i], handles[i]);
        bench_release(bench, inodes[i + 1], handles[i + 1]);
    }
    no_harm(bench);
    bench_persist(bench);
    no_harm(bench);
    tap_equal(node_claims_held(bench->node), 0, "all was given back");
    bench->auto_persist = true;
    tap_equal(bench_create(bench, NODE_ROOT_INODE, "f", true, 7, NULL, NULL), 0,
              "when it is in the log, there is room again");
    bench_close(bench);
}

/* Beyond the limit no bystander is told a number any more, until all of them have ended. */
static void test_lost_processes(void)
{
    struct bench *bench = bench_open(&node_limits_default);
    char name[LIMIT_NAME_BYTES + 1];
    char text[256];
    uint32_t lost = 0;
    uint64_t lock;
    int error = 0;
    bench_mkdir(bench, NODE_ROOT_INODE, "l", NULL);
    while (!error && lost <= LIMIT_LOST_PROCESSES) {
        for (uint32_t i = 0; i < LIMIT_HANDLES / 2 && lost <= LIMIT_LOST_PROCESSES; i++) {
            snprintf(name, sizeof name, "f%u", lost);
            error |= bench_create(bench, NODE_ROOT_INODE, name, true, ++lost, NULL, NULL);
        }
        bench_restart(bench, &node_limits_default);
        bench_lookup(bench, NODE_ROOT_INODE, "l", &lock);
        tap_equal(bench_control(bench, lock, "token", 9999999, 0, text, sizeof text),
                  lost <= LIMIT_LOST_PROCESSES ? -ENODATA : -ESTALE,
                  "%u processes have lost claims elsewhere", lost);
    }
    tap_equal(error, 0, "one process too many");
    struct process process;
    uint32_t listed = 0;
    for (uint32_t cursor = 0; node_next_lost_process(bench->node, &cursor, &process); listed++)
        bench_step(bench, &(struct node_event){.type = NODE_EVENT_PROCESS_ENDED,
                                               .process_ended = process});
    tap_equal(listed, LIMIT_LOST_PROCESSES, "as many are known");
    tap_equal(bench_control(bench, lock, "token", 9999999, 0, text, sizeof text), -ENODATA,
              "when all of them have ended, bystanders may look");
    no_harm(bench);
    bench_close(bench);
}

int main(void)
{
    test_locks();
    test_names_bytes();
    test_claims_and_waiters();
    test_sessions();
    test_depth();
    test_delayed_files();
    test_many_delays();
    test_handles();
    test_control_readers();
    test_contents();
    test_names_and_depth();
    test_small_node();
    test_inodes();
    test_pending(false);
    test_pending(true);
    test_lost_processes();
    return tap_done();
}
