/* The node, on a workbench: requests in, answers out, and what a daemon's death leaves. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/lib/node_bench.h"
#include "tests/lib/tap.h"

static void test_create(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t lock, inode, handle, token = 0;
    char text[256];

    tap_equal(bench_mkdir(bench, NODE_ROOT_INODE, "backup", &lock), 0, "mkdir makes a lock");
    tap_equal(bench_mkdir(bench, NODE_ROOT_INODE, "backup", NULL), -EEXIST, "once");
    tap_equal(bench_lookup(bench, lock, "web1", NULL), -ENOENT, "nobody has claimed web1");
    tap_equal(bench_control(bench, lock, "token", 7, 0, text, sizeof text), -ENODATA,
              "a free lock has no token");
    tap_equal(bench_create(bench, lock, "web1", true, 7, &inode, &handle), 0, "acquired");
    tap_equal(bench_lookup(bench, lock, "web1", NULL), 0, "web1 is there now");
    tap_equal(bench_create(bench, lock, "web2", true, 8, NULL, NULL), -EEXIST,
              "the lock is held, under whatever name");
    tap_equal(bench_token(bench, inode, handle, &token), 0, "the handle has a token");
    tap_equal(token, 1, "which is the first");
    tap_equal(bench_control(bench, lock, "token", 7, 0, text, sizeof text), 0, "token is readable");
    tap_ok(strcmp(text, "1\n") == 0, "and says 1");
    tap_equal(bench_control(bench, lock, "holders", 9, 0, text, sizeof text), 0, "holders");
    tap_ok(strcmp(text, "1 exclusive 1 7 0 0 web1 test\n") == 0, "one line: %s", text);
    tap_equal(node_claims_held(bench->node), 1, "one claim is held");

    bench->auto_persist = false;
    bench_release(bench, inode, handle);
    tap_equal(bench_lookup(bench, lock, "web1", NULL), -ENOENT,
              "after close, web1 is gone for this node at once");
    tap_equal(bench_control(bench, lock, "holders", 9, 0, text, sizeof text), 0, "holders");
    tap_ok(text[0] == 0, "nobody, before the release is durable");
    tap_equal(bench_create(bench, lock, "web1", true, 8, NULL, NULL), -EINPROGRESS,
              "the next acquire waits behind the release");
    bench_persist(bench);
    tap_ok(bench_reply(bench, 0) && bench_reply(bench, 0)->type == NODE_REPLY_CREATED,
           "and is granted");
    tap_equal(node_claims_held(bench->node), 1, "one claim is held");
    bench_close(bench);
}

static void test_nothing_before_durable(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t lock;
    bench_mkdir(bench, NODE_ROOT_INODE, "l", &lock);
    bench->auto_persist = false;
    tap_equal(bench_create(bench, lock, "f", true, 7, NULL, NULL), -EINPROGRESS,
              "no answer before the write is durable");
    bench_restart(bench, &bench_limits);
    bench_lookup(bench, NODE_ROOT_INODE, "l", &lock);
    tap_equal(bench_create(bench, lock, "f", true, 7, NULL, NULL), 0,
              "what was not durable never happened");
    bench_close(bench);
}

static void test_plain_open(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t lock, first, second, one, two;
    bench_mkdir(bench, NODE_ROOT_INODE, "l", &lock);
    tap_equal(bench_create(bench, lock, "f", false, 7, &first, &one), 0, "a plain open");
    tap_equal(bench_lookup(bench, lock, "f", NULL), -ENOENT, "claims nothing");
    tap_equal(bench_create(bench, lock, "f", false, 8, &second, &two), 0, "another");
    tap_ok(first == second && one != two, "joins the open inode");
    tap_equal(bench_write(bench, first, one, "x"), -EPERM, "writes nothing");
    tap_equal(bench_flock(bench, 1, first, one, NODE_FLOCK_EXCLUSIVE, false, 7), 0, "flock");
    tap_equal(bench_write(bench, first, one, "x"), 0, "makes it a claim, which may be written");
    tap_equal(bench_lookup(bench, lock, "f", NULL), 0, "and be seen");
    tap_equal(bench_flock(bench, 2, second, two, NODE_FLOCK_EXCLUSIVE, false, 8), -EWOULDBLOCK,
              "held");
    tap_equal(bench_flock(bench, 2, second, two, NODE_FLOCK_EXCLUSIVE, true, 8), -EINPROGRESS,
              "waits");
    bench_release(bench, first, one);
    tap_ok(bench_reply(bench, 2) && bench_reply(bench, 2)->type == NODE_REPLY_DONE,
           "the waiter is granted");
    uint64_t token = 0;
    bench_token(bench, second, two, &token);
    tap_equal(token, 2, "with the next number");
    tap_equal(bench_named(bench, NODE_OP_UNLINK, lock, "f", 7), 0, "unlink of a flock claim");
    tap_equal(bench_token(bench, second, two, &token), 0, "changes nothing");
    tap_equal(bench_flock(bench, 1, second, two, NODE_FLOCK_UNLOCK, false, 8), 0, "unlock");
    tap_equal(bench_token(bench, second, two, &token), -ENODATA, "holds nothing any more");
    bench_close(bench);
}

static void test_interrupt(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t inode, one, two;
    char text[256];
    bench_create(bench, NODE_ROOT_INODE, "f", false, 7, &inode, &one);
    bench_create(bench, NODE_ROOT_INODE, "f", false, 8, &inode, &two);
    bench_flock(bench, 1, inode, one, NODE_FLOCK_EXCLUSIVE, true, 7);
    bench_flock(bench, 2, inode, two, NODE_FLOCK_EXCLUSIVE, true, 8);
    bench->auto_persist = false;
    struct node_event interrupt = {.type = NODE_EVENT_INTERRUPT, .interrupt = {2}};
    bench_step(bench, &interrupt);
    tap_ok(bench_reply(bench, 2) && bench_reply(bench, 2)->error == -EINTR, "EINTR at once");
    bench_control(bench, NODE_ROOT_INODE, "waiters", 9, 0, text, sizeof text);
    tap_ok(!text[0], "and is no waiter for those who look");
    bench_step(bench, &interrupt);
    tap_ok(true, "a second interrupt finds nothing");
    bench_persist(bench);
    bench_release(bench, inode, one);
    bench_persist(bench);
    tap_equal(node_claims_held(bench->node), 0, "a given-up wait is never granted");

    /* The grant is under way when the interrupt comes. */
    uint64_t three;
    bench_create(bench, NODE_ROOT_INODE, "f", false, 9, &inode, &three);
    tap_equal(bench_flock(bench, 3, inode, three, NODE_FLOCK_EXCLUSIVE, true, 9), -EINPROGRESS,
              "flock is under way");
    interrupt.interrupt.slot = 3;
    bench_step(bench, &interrupt);
    tap_ok(bench_reply(bench, 3) && bench_reply(bench, 3)->error == -EINTR, "EINTR");
    bench_persist(bench);
    tap_equal(node_claims_held(bench->node), 0, "its late grant is given back");
    uint64_t token;
    tap_equal(bench_token(bench, inode, three, &token), -ENODATA, "the handle holds nothing");
    bench_close(bench);
}

/* A process asks again for the flock that it has, and is killed meanwhile. */
static void test_killed_while_asking_again(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t inode, handle;
    bench_create(bench, NODE_ROOT_INODE, "f", false, 7, &inode, &handle);
    bench_flock(bench, 1, inode, handle, NODE_FLOCK_EXCLUSIVE, true, 7);
    bench->auto_persist = false;
    tap_equal(bench_flock(bench, 1, inode, handle, NODE_FLOCK_EXCLUSIVE, true, 7), -EINPROGRESS,
              "the flock is asked for again");
    struct node_event interrupt = {.type = NODE_EVENT_INTERRUPT, .interrupt = {1}};
    bench_step(bench, &interrupt);
    bench_release(bench, inode, handle);
    bench_persist(bench);
    tap_equal(node_claims_held(bench->node), 0, "nothing is counted as held");
    bench->auto_persist = true;
    bench_create(bench, NODE_ROOT_INODE, "f", true, 8, &inode, &handle);
    tap_equal(bench_lookup(bench, NODE_ROOT_INODE, "f", NULL), 0, "the next claim is visible");
    bench_close(bench);
}

/* Two threads ask through one handle, and one of them gives up: the other's success must be true.
 */
static void test_given_up_by_one_thread(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t inode, handle, other, token = 0;
    bench_create(bench, NODE_ROOT_INODE, "f", false, 7, &inode, &handle);
    bench_create(bench, NODE_ROOT_INODE, "f", false, 8, &inode, &other);
    bench->auto_persist = false;
    bench_flock(bench, 1, inode, handle, NODE_FLOCK_EXCLUSIVE, true, 7);
    bench_flock(bench, 2, inode, handle, NODE_FLOCK_EXCLUSIVE, true, 7);
    struct node_event interrupt = {.type = NODE_EVENT_INTERRUPT, .interrupt = {1}};
    bench_step(bench, &interrupt);
    bench->auto_persist = true;
    bench_persist(bench);
    tap_ok(bench_reply(bench, 2) && bench_reply(bench, 2)->type == NODE_REPLY_DONE,
           "the thread that did not give up is told that it has the lock");
    tap_equal(bench_token(bench, inode, handle, &token), 0, "it has");
    tap_equal(bench_flock(bench, 3, inode, other, NODE_FLOCK_EXCLUSIVE, false, 8), -EWOULDBLOCK,
              "and nobody else");
    tap_equal(node_claims_held(bench->node), 1, "there is one claim");

    /* The same at a hand-over: the other one waits, too, and gives up as it is granted. */
    bench_flock(bench, 1, inode, handle, NODE_FLOCK_UNLOCK, false, 7);
    tap_equal(bench_flock(bench, 3, inode, other, NODE_FLOCK_EXCLUSIVE, false, 8), 0,
              "now somebody else has it");
    bench_flock(bench, 1, inode, handle, NODE_FLOCK_EXCLUSIVE, true, 7);
    bench_flock(bench, 2, inode, handle, NODE_FLOCK_EXCLUSIVE, true, 7);
    bench->auto_persist = false;
    bench_flock(bench, 3, inode, other, NODE_FLOCK_UNLOCK, false, 8);
    interrupt.interrupt.slot = 2;
    bench_step(bench, &interrupt);
    bench->auto_persist = true;
    bench_persist(bench);
    tap_ok(bench_reply(bench, 1) && bench_reply(bench, 1)->type == NODE_REPLY_DONE,
           "one thread is granted");
    tap_equal(bench_token(bench, inode, handle, &token), 0, "and keeps it");
    tap_equal(bench_flock(bench, 3, inode, other, NODE_FLOCK_EXCLUSIVE, false, 8), -EWOULDBLOCK,
              "although the other one gave up");
    bench_release(bench, inode, handle);
    tap_equal(node_claims_held(bench->node), 0, "close gives all back");
    bench_close(bench);
}

/* On a full disk, many unlocks at once must not use up the room that releases need. */
static void test_unlock_flood(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t inode, handle;
    bench_create(bench, NODE_ROOT_INODE, "f", false, 7, &inode, &handle);
    bench_flock(bench, 1, inode, handle, NODE_FLOCK_EXCLUSIVE, false, 7);
    bench_create(bench, NODE_ROOT_INODE, "g", true, 8, NULL, NULL);
    bench->auto_persist = false;
    uint64_t room = node_log_reserve(bench->node);
    size_t counted = bench->entries_count;
    uint32_t refused = 0;
    for (uint32_t n = 0; n < 2000; n++) {
        bench->log_room = room;
        refused +=
            bench_flock(bench, 1 + n % 32, inode, handle, NODE_FLOCK_UNLOCK, false, 7) == -ENOSPC;
        for (; counted < bench->entries_count; counted++)
            room -= bench->entries[counted].len + LIMIT_RECORD_OVERHEAD_BYTES;
        if (n % 32 == 31) {
            bench_persist(bench);
            bench->log_room = room;
        }
    }
    tap_ok(refused > 0, "some of these find no room");
    tap_ok(room >= node_log_reserve(bench->node), "what is held can still be given back");
    tap_ok(!bench->failed, "nothing failed");
    bench_close(bench);
}

static void test_timeout(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t lock, token, inode, plain;
    bench_mkdir(bench, NODE_ROOT_INODE, "l", &lock);
    bench_create(bench, lock, "g", false, 7, &inode, &plain);
    bench->auto_persist = false;
    bench_create(bench, lock, "f", true, 7, NULL, NULL);
    tap_equal(bench->timer_at_ms, bench->now_ms + 5000, "the operation timeout is set");
    struct node_request mkdir = {
        .op = NODE_OP_MKDIR, .inode = NODE_ROOT_INODE, .name = {"ghost", 5}, .mode = 0755};
    bench_request(bench, mkdir, 1, 7);
    bench_flock(bench, 2, inode, plain, NODE_FLOCK_EXCLUSIVE, true, 7);
    bench->now_ms += 5000;
    struct node_event timer = {.type = NODE_EVENT_TIMER};
    bench_step(bench, &timer);
    tap_ok(bench_reply(bench, 0) && bench_reply(bench, 0)->error == -ETIMEDOUT,
           "create: ETIMEDOUT");
    tap_ok(bench_reply(bench, 1) && bench_reply(bench, 1)->error == -ETIMEDOUT, "mkdir: ETIMEDOUT");
    tap_ok(!bench_reply(bench, 2), "a blocking flock waits through it");
    tap_equal(bench->notices[0], NODE_NOTICE_STALLED, "the operator is told");
    tap_equal(bench_create(bench, lock, "f", true, 7, NULL, NULL), -ETIMEDOUT,
              "from then on at once");
    bench_persist(bench);
    tap_equal(bench_lookup(bench, lock, "f", NULL), -ENOENT, "the late grant was given back");
    tap_equal(bench_lookup(bench, NODE_ROOT_INODE, "ghost", NULL), -ENOENT, "so was the lock");
    tap_ok(bench_reply(bench, 2) && bench_reply(bench, 2)->type == NODE_REPLY_DONE,
           "the flock is granted when the log is back");
    bench->auto_persist = true;
    tap_equal(bench_token(bench, inode, plain, &token), 0, "for good");
    tap_equal(bench_create(bench, NODE_ROOT_INODE, "f", true, 7, NULL, NULL), 0, "all is well");
    bench_close(bench);
}

static void test_loss(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t lock, inode, handle, token;
    char text[256];
    bench_mkdir(bench, NODE_ROOT_INODE, "l", &lock);
    bench_create(bench, lock, "f", true, 7, &inode, &handle);
    struct node_request wish = {
        .op = NODE_OP_IOC_ON_LOSS, .inode = inode, .handle = handle, .signal = {10}};
    bench_request(bench, wish, 0, 7);
    tap_equal(bench_named(bench, NODE_OP_UNLINK, lock, "f", 8), 0, "somebody unlinks the claim");
    tap_equal(bench->lost_handle, handle, "its pollers are woken");
    tap_equal(bench->signal_sent, 10, "its process gets the signal");
    tap_equal(bench->notices[0], NODE_NOTICE_UNLINKED, "the log names who did it");
    tap_equal(bench_token(bench, inode, handle, &token), -ESTALE, "the handle is stale");
    tap_equal(bench_write(bench, inode, handle, "x"), -ESTALE, "write: ESTALE");
    tap_equal(bench_flock(bench, 1, inode, handle, NODE_FLOCK_EXCLUSIVE, true, 7), -ESTALE,
              "flock: ESTALE");
    tap_equal(bench_control(bench, lock, "token", 7, 0, text, sizeof text), -ESTALE,
              "the loser reads ESTALE");
    tap_equal(bench_control(bench, lock, "token", 70, 7, text, sizeof text), -ESTALE,
              "so does its child");
    tap_equal(bench_control(bench, lock, "token", 9, 0, text, sizeof text), -ESTALE,
              "and a stranger, while the handle is open");
    uint64_t other, held;
    tap_equal(bench_create(bench, lock, "f", true, 9, &other, &held), 0, "the next one holds");
    tap_equal(bench_control(bench, lock, "token", 9, 0, text, sizeof text), 0, "and reads");
    tap_ok(strcmp(text, "2\n") == 0, "its own number");
    tap_equal(bench_control(bench, lock, "token", 7, 0, text, sizeof text), -ESTALE,
              "the loser still reads ESTALE");
    bench_release(bench, inode, handle);
    tap_equal(bench_control(bench, lock, "token", 7, 0, text, sizeof text), 0,
              "when it has closed the handle, it is a bystander");
    tap_ok(strcmp(text, "2\n") == 0, "who reads the holder's number");
    tap_equal(bench_named(bench, NODE_OP_UNLINK, lock, "f", 9), 0, "a holder unlinks its own");
    tap_equal(bench_token(bench, other, held, &token), -ESTALE, "its handle is stale too");
    tap_equal(bench_control(bench, lock, "token", 10, 0, text, sizeof text), -ENODATA,
              "but nobody lost anything");
    bench_close(bench);
}

static void test_restart(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t lock, inode, handle, token = 0;
    char text[512];
    bench_mkdir(bench, NODE_ROOT_INODE, "l", &lock);
    bench_create(bench, lock, "f", true, 7, &inode, &handle);
    uint64_t digest = lock_table_digest(node_table(bench->node));
    bench_restart(bench, &bench_limits);
    tap_ok(lock_table_digest(node_table(bench->node)) != digest,
           "the incarnation changed the table");
    tap_equal(bench_lookup(bench, NODE_ROOT_INODE, "l", &lock), 0, "the lock is there");
    tap_equal(bench_lookup(bench, lock, "f", NULL), -ENOENT, "its claim ended with the daemon");
    tap_equal(bench_control(bench, lock, "token", 7, 0, text, sizeof text), -ESTALE,
              "the process that had it reads ESTALE");
    tap_equal(bench_control(bench, lock, "token", 9, 0, text, sizeof text), -ESTALE,
              "and so do others while it lives");
    struct process lost;
    uint64_t file;
    bench_lookup(bench, lock, "token", &file);
    tap_ok(node_reads_token(bench->node, file), "the node wants to know the reader's ancestors");
    tap_ok(node_lost_process(bench->node, file, 0, &lost) && lost.pid == 7 && lost.start == 70,
           "and whether process 7 lives");
    bench_restart(bench, &bench_limits);
    bench_lookup(bench, NODE_ROOT_INODE, "l", &lock);
    tap_equal(bench_control(bench, lock, "token", 9, 0, text, sizeof text), -ESTALE,
              "also after one more restart");
    struct node_event ended = {.type = NODE_EVENT_PROCESS_ENDED, .process_ended = lost};
    bench_step(bench, &ended);
    tap_equal(bench_control(bench, lock, "token", 9, 0, text, sizeof text), -ENODATA,
              "it has ended: the lock is free");
    bench_create(bench, lock, "f", true, 7, &inode, &handle);
    bench_token(bench, inode, handle, &token);
    tap_equal(token, 2, "numbers go on over restarts");
    bench_close(bench);
}

static void test_drain(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t inode, one, two, other;
    bench_create(bench, NODE_ROOT_INODE, "f", true, 7, &inode, &one);
    bench_create(bench, NODE_ROOT_INODE, "f", false, 8, &other, &two);
    bench_flock(bench, 2, other, two, NODE_FLOCK_EXCLUSIVE, true, 8);
    struct node_event drain = {.type = NODE_EVENT_DRAIN};
    bench_step(bench, &drain);
    tap_ok(bench_reply(bench, 2) && bench_reply(bench, 2)->error == -ENOLCK, "a waiter: ENOLCK");
    tap_equal(bench_create(bench, NODE_ROOT_INODE, "g", true, 9, NULL, NULL), -ENOLCK,
              "a new claim: ENOLCK");
    tap_ok(!bench->drained, "a claim is left");
    bench_release(bench, inode, one);
    tap_ok(bench->drained, "drained");
    bench_close(bench);
}

static void test_full_log(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t inode, handle;
    tap_equal(bench_create(bench, NODE_ROOT_INODE, "f", true, 7, &inode, &handle), 0, "a claim");
    bench->log_room = node_log_reserve(bench->node);
    tap_equal(bench_create(bench, NODE_ROOT_INODE, "g", true, 7, NULL, NULL), -ENOSPC,
              "no room for another");
    tap_equal(bench->notices[0], NODE_NOTICE_LOG_FULL, "the operator is told");
    tap_equal(bench_mkdir(bench, NODE_ROOT_INODE, "l", NULL), -ENOSPC, "nor for a lock");
    bench_release(bench, inode, handle);
    tap_equal(node_claims_held(bench->node), 0, "a release finds room");
    tap_ok(!bench->failed, "and nothing failed");
    bench->log_room = UINT64_MAX / 2;
    tap_equal(bench_create(bench, NODE_ROOT_INODE, "g", true, 7, NULL, NULL), 0,
              "with room again, all goes on");
    bench_close(bench);
}

static void test_full_snapshot(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t inode, handle;
    tap_equal(bench_create(bench, NODE_ROOT_INODE, "f", true, 7, &inode, &handle), 0, "a claim");
    bench->snapshot_room = node_snapshot_bytes(bench->node) + LIMIT_SNAPSHOT_GROWTH_BYTES;
    bench->auto_persist = false;
    tap_equal(bench_mkdir(bench, NODE_ROOT_INODE, "l", NULL), -EINPROGRESS, "the last new work");
    tap_ok(node_snapshot_bytes(bench->node) > bench->snapshot_room - LIMIT_SNAPSHOT_GROWTH_BYTES,
           "counts from the moment that it is under way");
    tap_equal(bench_flock(bench, 1, inode, handle, NODE_FLOCK_SHARED, false, 8), -ENOSPC,
              "no room for more");
    tap_equal(bench->notices[0], NODE_NOTICE_LOG_FULL, "the operator is told");
    bench_persist(bench);
    bench->auto_persist = true;
    tap_equal(bench_named(bench, NODE_OP_RMDIR, NODE_ROOT_INODE, "l", 8), 0,
              "what makes nothing larger is done");
    bench->snapshot_room = node_snapshot_bytes(bench->node);
    uint64_t bytes = node_snapshot_bytes(bench->node);
    bench_release(bench, inode, handle);
    tap_equal(node_claims_held(bench->node), 0, "a release needs none");
    tap_ok(node_snapshot_bytes(bench->node) < bytes, "and makes some");
    bench->snapshot_room = UINT64_MAX / 2;
    tap_equal(bench_create(bench, NODE_ROOT_INODE, "g", true, 7, NULL, NULL), 0,
              "with room again, all goes on");
    bench_close(bench);
}

static void test_limits(void)
{
    struct node_limits limits = bench_limits;
    struct bench *bench = bench_open(&limits);
    char name[32];
    int error = 0;
    uint32_t claims = 0;
    while (!error && claims < 1000) {
        snprintf(name, sizeof name, "f%u", claims);
        error = bench_create(bench, NODE_ROOT_INODE, name, true, 7, NULL, NULL);
        claims += error == 0;
    }
    tap_equal(error, -ENOLCK, "claims are limited");
    tap_equal(claims, limits.table.claims, "to what the table has");
    uint32_t plain = 0;
    for (error = 0; !error && plain < 1000; plain += error == 0) {
        snprintf(name, sizeof name, "g%u", plain);
        error = bench_create(bench, NODE_ROOT_INODE, name, false, 7, NULL, NULL);
    }
    tap_equal(error, -ENOLCK, "handles are limited");
    tap_equal(claims + plain, limits.handles, "to what the node has");
    uint32_t locks = 0;
    for (error = 0; !error && locks < 1000; locks += error == 0) {
        snprintf(name, sizeof name, "d%u", locks);
        error = bench_mkdir(bench, NODE_ROOT_INODE, name, NULL);
    }
    tap_equal(error, -ENOSPC, "locks are limited");
    tap_equal(locks + 1, limits.table.locks, "to what the table has");

    bench_close(bench);
    limits.inodes = 8;
    bench = bench_open(&limits);
    uint32_t inodes = 1;
    for (error = 0; !error && inodes < 1000; inodes += error == 0) {
        snprintf(name, sizeof name, "d%u", inodes);
        error = bench_create(bench, NODE_ROOT_INODE, name, false, 7, NULL, NULL);
    }
    tap_equal(error, -ENOLCK, "inodes are limited");
    tap_equal(inodes, limits.inodes, "to what the node has");
    bench_close(bench);
}

static void test_names(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t lock;
    char text[8192];
    static const char *const reserved[] = {"token",  "last", "holders",  "waiters",
                                           ".limit", ".ttl", ".release", ".delay"};
    bench_mkdir(bench, NODE_ROOT_INODE, "l", &lock);
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++) {
        tap_equal(bench_mkdir(bench, lock, reserved[i], NULL), -EEXIST, "mkdir %s", reserved[i]);
        tap_equal(bench_create(bench, lock, reserved[i], true, 7, NULL, NULL), -EEXIST, "create");
        tap_equal(bench_named(bench, NODE_OP_UNLINK, lock, reserved[i], 7), 0,
                  "unlink does nothing");
        tap_equal(bench_control(bench, NODE_ROOT_INODE, reserved[i], 7, 0, text, sizeof text),
                  i == 0 ? -ENODATA : 0, "it opens at the root too");
    }
    tap_equal(bench_mkdir(bench, NODE_ROOT_INODE, "lockfiles", NULL), -EEXIST, "lockfiles");
    tap_equal(bench_mkdir(bench, NODE_ROOT_INODE, ".lockfs", NULL), -EEXIST, ".lockfs");
    tap_equal(bench_create(bench, lock, ".x.swp", true, 7, NULL, NULL), -EPERM, "hidden names");
    tap_equal(bench_create(bench, lock, ".x.swp", false, 7, NULL, NULL), -EPERM, "plain, too");
    tap_equal(bench_create(bench, NODE_ROOT_INODE, ".x.swp", true, 7, NULL, NULL), 0,
              "but not where there is no limit");
    char name[LIMIT_NAME_BYTES + 2];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    tap_equal(bench_mkdir(bench, lock, name, NULL), -ENAMETOOLONG, "256 bytes");
    name[LIMIT_NAME_BYTES] = 0;
    tap_equal(bench_mkdir(bench, lock, name, NULL), 0, "255 bytes");

    struct node_request readdir = {.op = NODE_OP_READDIR, .inode = lock};
    bench_request(bench, readdir, 0, 7);
    char expected[512];
    snprintf(expected, sizeof expected,
             ".\n..\ntoken\nlast\nholders\nwaiters\n.limit\n.ttl\n.release\n.delay\n%s\n", name);
    tap_ok(strcmp(bench->data[0], expected) == 0, "readdir of a lock");
    readdir.inode = NODE_ROOT_INODE;
    bench_request(bench, readdir, 0, 7);
    tap_ok(strcmp(bench->data[0], ".\n..\n.lockfs\nl\n.x.swp\n") == 0, "readdir of the root");
    readdir.readdir.offset = bench->replies[0].number;
    bench_request(bench, readdir, 0, 7);
    tap_equal(bench->replies[0].dirents_count, 0, "ends");

    uint64_t lockfs;
    tap_equal(bench_lookup(bench, NODE_ROOT_INODE, ".lockfs", &lockfs), 0, ".lockfs");
    tap_equal(bench_control(bench, lockfs, "status", 7, 0, text, sizeof text), 0, "status");
    tap_ok(strstr(text, "role leader\nstate serving\n") != NULL, "says who leads");
    tap_equal(bench_named(bench, NODE_OP_RMDIR, NODE_ROOT_INODE, ".lockfs", 7), -EPERM, "stays");
    tap_equal(bench_named(bench, NODE_OP_RMDIR, NODE_ROOT_INODE, "l", 7), -ENOTEMPTY, "not empty");
    tap_equal(bench_named(bench, NODE_OP_RMDIR, lock, name, 7), 0, "rmdir");
    tap_equal(bench_named(bench, NODE_OP_RMDIR, NODE_ROOT_INODE, "l", 7), 0, "empty");
    tap_equal(bench_lookup(bench, lock, "x", NULL), -ESTALE, "what is in a removed lock is stale");
    bench_close(bench);
}

int main(void)
{
    test_create();
    test_nothing_before_durable();
    test_plain_open();
    test_interrupt();
    test_killed_while_asking_again();
    test_given_up_by_one_thread();
    test_unlock_flood();
    test_timeout();
    test_loss();
    test_restart();
    test_drain();
    test_full_log();
    test_full_snapshot();
    test_limits();
    test_names();
    return tap_done();
}
