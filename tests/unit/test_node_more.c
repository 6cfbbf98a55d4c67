/* The node, attacked: what several callers do at once, and what little room does to them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/node_internal.h"
#include "tests/lib/node_bench.h"
#include "tests/lib/tap.h"

static size_t charged;

/* What was appended takes room, and only that does. */
static void charge(struct bench *bench)
{
    for (; charged < bench->entries_count; charged++) {
        uint64_t cost = bench->entries[charged].len + LIMIT_RECORD_OVERHEAD_BYTES;
        bench->log_room -= cost < bench->log_room ? cost : bench->log_room;
    }
}

static int setlk(struct bench *bench, uint32_t slot, uint64_t inode, uint64_t handle,
                 enum node_flock how, bool wait, uint64_t owner, uint32_t uid)
{
    struct node_request request = {
        .op = NODE_OP_SETLK, .inode = inode, .handle = handle, .uid = uid};
    request.fcntl.how = how;
    request.fcntl.wait = wait;
    request.fcntl.whole_file = true;
    request.fcntl.owner = owner;
    const struct node_reply *reply = bench_request(bench, request, slot, (uint32_t)owner);
    return !reply ? -EINPROGRESS : reply->type == NODE_REPLY_ERROR ? reply->error : 0;
}

static int result(struct bench *bench, uint32_t slot)
{
    const struct node_reply *reply = bench_reply(bench, slot);
    return !reply ? -EINPROGRESS : reply->type == NODE_REPLY_ERROR ? reply->error : 0;
}

static void flush(struct bench *bench, uint64_t inode, uint64_t handle, uint64_t owner)
{
    struct node_request request = {.op = NODE_OP_FLUSH, .inode = inode, .handle = handle};
    request.fcntl.owner = owner;
    bench_request(bench, request, 60, (uint32_t)owner);
}

static void interrupt(struct bench *bench, uint32_t slot)
{
    bench_step(bench, &(struct node_event){.type = NODE_EVENT_INTERRUPT, .interrupt = {slot}});
}

/* DESIGN C8: CANCEL returns only what its owner has not locked since. */
static void test_interrupted_conversion(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t lock, inode, a, b;
    bench_mkdir(bench, NODE_ROOT_INODE, "l", &lock);
    bench_create(bench, lock, "f", false, 1, &inode, &a);
    bench_create(bench, lock, "f", false, 2, &inode, &b);
    tap_equal(setlk(bench, 1, inode, a, NODE_FLOCK_SHARED, false, 1, 0), 0, "process 1 shares");
    bench->auto_persist = false;
    setlk(bench, 1, inode, a, NODE_FLOCK_EXCLUSIVE, false, 1, 0);
    setlk(bench, 2, inode, a, NODE_FLOCK_EXCLUSIVE, false, 1, 0);
    interrupt(bench, 1);
    tap_equal(result(bench, 1), -EINTR, "one thread's conversion is interrupted");
    bench_persist(bench);
    tap_equal(result(bench, 2), 0, "the other thread is told that it holds, exclusively");
    bench->auto_persist = true;
    bench_persist(bench);
    tap_equal(setlk(bench, 3, inode, b, NODE_FLOCK_SHARED, false, 2, 0), -EWOULDBLOCK,
              "so process 2 gets nothing");
    bench_close(bench);
}

/* DESIGN C10: what gives nothing back uses no reserved room. */
static void test_unlock_of_nothing(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t inode, a, b, c;
    bench_create(bench, NODE_ROOT_INODE, "f", false, 1, &inode, &a);
    bench_create(bench, NODE_ROOT_INODE, "f", false, 2, &inode, &b);
    bench_create(bench, NODE_ROOT_INODE, "f", false, 3, &inode, &c);
    setlk(bench, 1, inode, a, NODE_FLOCK_EXCLUSIVE, false, 1, 0);
    setlk(bench, 2, inode, b, NODE_FLOCK_EXCLUSIVE, true, 2, 0);
    bench->log_room = node_log_reserve(bench->node) + 100;
    charged = bench->entries_count;
    for (int i = 0; i < 2000; i++) {
        setlk(bench, 3, inode, c, NODE_FLOCK_UNLOCK, false, 3, 1000);
        charge(bench);
    }
    tap_ok(bench->log_room >= node_log_reserve(bench->node),
           "process 3 unlocks what it does not hold, and the reserve is there: %llu of %llu",
           (unsigned long long)bench->log_room, (unsigned long long)node_log_reserve(bench->node));
    bench_release(bench, inode, a);
    tap_ok(!bench->failed, "process 1 can close: %s", bench->failed ? bench->failed : "");
    bench_close(bench);
}

/* DESIGN C10: every claim has room for its end. */
static void test_two_unlocks_at_once(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t inode, a, b, c;
    bench_create(bench, NODE_ROOT_INODE, "f", false, 1, &inode, &a);
    bench_create(bench, NODE_ROOT_INODE, "f", false, 2, &inode, &b);
    bench_create(bench, NODE_ROOT_INODE, "f", false, 3, &inode, &c);
    setlk(bench, 1, inode, a, NODE_FLOCK_SHARED, false, 1, 0);
    setlk(bench, 2, inode, b, NODE_FLOCK_SHARED, false, 2, 0);
    bench->log_room = node_log_reserve(bench->node);
    bench->auto_persist = false;
    setlk(bench, 1, inode, a, NODE_FLOCK_UNLOCK, false, 1, 0);
    tap_equal(setlk(bench, 2, inode, b, NODE_FLOCK_UNLOCK, false, 2, 0), -EINPROGRESS,
              "two processes unlock one file while the log is full");
    bench_persist(bench);
    bench->auto_persist = true;
    struct lock_table_counts counts;
    lock_table_get_counts(node_table(bench->node), &counts);
    tap_equal(counts.claims, 0, "both claims have ended");
    bench_close(bench);

    bench = bench_open(&bench_limits);
    bench_create(bench, NODE_ROOT_INODE, "f", false, 1, &inode, &a);
    bench_create(bench, NODE_ROOT_INODE, "f", false, 2, &inode, &b);
    setlk(bench, 1, inode, a, NODE_FLOCK_SHARED, false, 1, 0);
    setlk(bench, 2, inode, b, NODE_FLOCK_SHARED, false, 2, 0);
    bench->log_room = node_log_reserve(bench->node);
    bench->auto_persist = false;
    flush(bench, inode, a, 1);
    flush(bench, inode, b, 2);
    bench->log_room = UINT64_C(1) << 40;
    bench_persist(bench);
    lock_table_get_counts(node_table(bench->node), &counts);
    tap_equal(counts.claims, 0, "two processes close a copy of their descriptors: both end");
    bench_close(bench);
}

/* Write permission on a lock is the right to claim. */
static void test_permission_by_unlock(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t lock, inode, a, b, c;
    bench_mkdir(bench, NODE_ROOT_INODE, "l", &lock); /* 0755 or stricter, of root */
    bench_create(bench, lock, "f", true, 1, &inode, &a);
    bench_create(bench, lock, "f", false, 2, NULL, &b);
    struct node_request open = {.op = NODE_OP_OPEN, .inode = inode, .uid = 1000, .gid = 1000};
    c = bench_request(bench, open, 0, 3)->handle;
    setlk(bench, 2, inode, b, NODE_FLOCK_EXCLUSIVE, true, 2, 0); /* waits */
    struct node_request request = {
        .op = NODE_OP_FLOCK, .inode = inode, .handle = c, .uid = 1000, .gid = 1000};
    request.flock.how = NODE_FLOCK_EXCLUSIVE;
    request.flock.wait = true;
    const struct node_reply *reply = bench_request(bench, request, 4, 3);
    tap_ok(reply && reply->error == -EACCES, "user 1000 may not claim");
    bench->auto_persist = false;
    setlk(bench, 3, inode, c, NODE_FLOCK_UNLOCK, false, 3, 1000);
    reply = bench_request(bench, request, 5, 3);
    tap_ok(reply && reply->error == -EACCES, "nor while it unlocks what it does not hold");
    bench_close(bench);
}

/* DESIGN C10: ends of delays have room. */
static void test_room_for_delays(void)
{
    enum { CLAIMS = 900 };
    struct node_limits limits = node_limits_default;
    limits.table.locks = 8;
    limits.table.claims = limits.handles = limits.inodes = limits.requests = 1000;
    limits.table.waiters = 10;
    limits.pending_entries = 4096;
    struct bench *bench = bench_open(&limits);
    uint64_t lock, inode;
    char name[16];
    bench_mkdir(bench, NODE_ROOT_INODE, "l", &lock);
    const char *const settings[] = {".limit", "unlimited", ".delay", "10"};
    for (int i = 0; i < 4; i += 2) {
        bench_lookup(bench, lock, settings[i], &inode);
        struct node_request open = {.op = NODE_OP_OPEN, .inode = inode, .open = {.write = true}};
        uint64_t handle = bench_request(bench, open, 0, 1)->handle;
        tap_equal(bench_write(bench, inode, handle, settings[i + 1]), 0, "%s", settings[i]);
    }
    for (int i = 0; i < CLAIMS; i++) {
        snprintf(name, sizeof name, "f%d", i);
        if (bench_create(bench, lock, name, true, 1, NULL, NULL))
            tap_ok(false, "create %d", i);
    }
    bench_restart(bench, &limits);
    bench->log_room = node_log_reserve(bench->node);
    charged = bench->entries_count;
    bench->now_ms += 10000;
    bench_step(bench, &(struct node_event){.type = NODE_EVENT_TIMER});
    tap_equal((long long)(bench->entries_count - charged), CLAIMS, "all delays end");
    tap_ok(!bench->failed, "in the reserved room: %s", bench->failed ? bench->failed : "");
    bench_close(bench);
}

/* DESIGN A2: closing any descriptor of a file drops what the process has on it by fcntl. */
static void test_fcntl_by_creator(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t lock, inode;
    bench_mkdir(bench, NODE_ROOT_INODE, "l", &lock);
    bench_lookup(bench, lock, ".release", &inode);
    struct node_request open = {.op = NODE_OP_OPEN, .inode = inode, .open = {.write = true}};
    bench_write(bench, inode, bench_request(bench, open, 0, 1)->handle, "exit");
    struct node_request create = {.op = NODE_OP_CREATE,
                                  .inode = lock,
                                  .name = {"f", 1},
                                  .mode = 0644,
                                  .open = {.exclusive = true, .write = true}};
    struct node_reply made = *bench_request(bench, create, 0, 1);
    tap_equal(setlk(bench, 1, made.inode, made.handle, NODE_FLOCK_EXCLUSIVE, false, 1, 0), 0,
              "who created locks it, too");
    /* A child has inherited the descriptor; process 1 ends, and the kernel sends what it may. */
    if (!made.no_flush)
        flush(bench, made.inode, made.handle, 1);
    bench_step(bench, &(struct node_event){.type = NODE_EVENT_PROCESS_ENDED,
                                           .process_ended = {.pid = 1, .start = 10}});
    tap_equal(bench_create(bench, lock, "g", true, 2, NULL, NULL), 0,
              "after its end the lock is free");
    bench_close(bench);
}

/* A request is granted, and in the same command converted by what its process waits for. */
static void test_granted_and_converted(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t lock, inode, control, a, b, q, r;
    bench_mkdir(bench, NODE_ROOT_INODE, "l", &lock);
    bench_lookup(bench, lock, ".limit", &control);
    struct node_request open = {.op = NODE_OP_OPEN, .inode = control, .open = {.write = true}};
    bench_write(bench, control, bench_request(bench, open, 0, 1)->handle, "2");
    bench_create(bench, lock, "f", true, 1, &inode, &a);
    bench_create(bench, lock, "f", false, 1, NULL, &b);
    bench_create(bench, lock, "f", false, 2, NULL, &q);
    bench_create(bench, lock, "f", false, 3, NULL, &r);
    tap_equal(setlk(bench, 1, inode, r, NODE_FLOCK_SHARED, false, 3, 0), 0, "3 shares");
    tap_equal(setlk(bench, 2, inode, q, NODE_FLOCK_EXCLUSIVE, true, 2, 0), -EINPROGRESS, "2 waits");
    tap_equal(setlk(bench, 3, inode, b, NODE_FLOCK_SHARED, true, 1, 0), -EINPROGRESS,
              "1 waits behind it");
    tap_equal(setlk(bench, 4, inode, a, NODE_FLOCK_EXCLUSIVE, false, 1, 0), 0,
              "through what it created, 1 is granted");
    tap_equal(result(bench, 3), 0, "and then what it waited for");
    tap_equal(bench_lookup(bench, lock, "f", NULL), 0, "the file is there");
    tap_equal(bench->node->fcntl_records.used, 2, "1 and 3 have a claim each");
    tap_equal(setlk(bench, 5, inode, b, NODE_FLOCK_UNLOCK, false, 1, 0), 0, "1 unlocks");
    tap_equal(bench->node->fcntl_records.used, 1, "3 has one");
    uint64_t token = 0;
    tap_equal(bench_token(bench, inode, b, &token), -ENODATA,
              "the descriptor that 1 waited through has no number: %llu",
              (unsigned long long)token);
    tap_equal(bench_lookup(bench, lock, "f", NULL), 0, "the file is there");
    bench_close(bench);
}

static void set(struct bench *bench, uint64_t lock, const char *setting, const char *value)
{
    uint64_t inode;
    bench_lookup(bench, lock, setting, &inode);
    struct node_request open = {.op = NODE_OP_OPEN, .inode = inode, .open = {.write = true}};
    uint64_t handle = bench_request(bench, open, 0, 1)->handle;
    tap_equal(bench_write(bench, inode, handle, value), 0, "%s %s", setting, value);
    bench_release(bench, inode, handle);
}

/* The end of a delay finds no room: it is tried again, and nothing else waits for it. */
static void test_delay_without_room(void)
{
    struct bench *bench = bench_open(&bench_limits);
    struct node_event timer = {.type = NODE_EVENT_TIMER};
    uint64_t lock, inode, handle, token;
    bench_mkdir(bench, NODE_ROOT_INODE, "l", &lock);
    set(bench, lock, ".delay", "2");
    bench_create(bench, lock, "f", true, 1, NULL, NULL);
    bench_restart(bench, &bench_limits);
    bench_lookup(bench, NODE_ROOT_INODE, "l", &lock);
    uint64_t due_ms = bench->now_ms + 2000;
    tap_equal(bench->timer_at_ms, due_ms, "a restart begins a delay, and times its end");
    bench_create(bench, lock, "f", false, 2, &inode, &handle);
    tap_equal(bench_flock(bench, 1, inode, handle, NODE_FLOCK_EXCLUSIVE, true, 2), -EINPROGRESS,
              "process 2 waits");

    bench->log_room = 10;
    for (int tries = 0; tries < 3; tries++) {
        size_t entries = bench->entries_count;
        bench->now_ms = due_ms;
        bench_step(bench, &timer);
        tap_equal((long long)(bench->entries_count - entries), 0, "no room: its end is not logged");
        tap_ok(bench->timer_at_ms > due_ms && bench->timer_at_ms <= due_ms + 1000,
               "and is tried again within a second");
        due_ms = bench->timer_at_ms;
    }
    tap_equal(result(bench, 1), -EINPROGRESS, "process 2 waits on");
    tap_ok(!bench->failed, "and nothing failed");

    bench->log_room = UINT64_C(1) << 40;
    bench->now_ms = due_ms - 1;
    bench_step(bench, &timer);
    tap_equal(result(bench, 1), -EINPROGRESS, "not before its time");
    bench->now_ms = due_ms;
    bench_step(bench, &timer);
    tap_equal(result(bench, 1), 0, "with room again it ends, and process 2 is granted");
    tap_equal(bench_token(bench, inode, handle, &token), 0, "for good");
    tap_equal(bench->node->delays.used, 0, "no delay is left");
    size_t entries = bench->entries_count;
    bench->now_ms += 3600000;
    bench_step(bench, &timer);
    tap_equal((long long)(bench->entries_count - entries), 0, "and none is ended twice");
    bench_close(bench);
}

static int getlk(struct bench *bench, uint64_t inode, uint64_t handle, uint32_t owner,
                 enum node_flock how, uint32_t *ret_pid)
{
    struct node_request request = {.op = NODE_OP_GETLK, .inode = inode, .handle = handle};
    request.fcntl.how = how;
    request.fcntl.whole_file = true;
    request.fcntl.owner = owner;
    const struct node_reply *reply = bench_request(bench, request, 0, owner);
    *ret_pid = reply->pid;
    return (int)reply->number;
}

/* What this node has given back is in nobody's way here, before the table says so. */
static void test_getlk_after_close(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t lock, inode, handles[6];
    uint32_t pid;
    bench_mkdir(bench, NODE_ROOT_INODE, "l", &lock);
    set(bench, lock, ".limit", "2");
    for (uint32_t i = 1; i < 6; i++)
        bench_create(bench, lock, "f", false, i, &inode, &handles[i]);
    setlk(bench, 1, inode, handles[1], NODE_FLOCK_EXCLUSIVE, false, 1, 0);
    setlk(bench, 2, inode, handles[2], NODE_FLOCK_EXCLUSIVE, false, 2, 0);
    tap_equal(getlk(bench, inode, handles[3], 3, NODE_FLOCK_EXCLUSIVE, &pid), NODE_FLOCK_EXCLUSIVE,
              "limit 2, held by two: one is in the way");
    tap_equal(pid, 1, "the first");
    tap_equal(getlk(bench, inode, handles[1], 1, NODE_FLOCK_EXCLUSIVE, &pid), NODE_FLOCK_UNLOCK,
              "but not in its own");
    bench->auto_persist = false;
    bench_release(bench, inode, handles[1]);
    tap_equal(getlk(bench, inode, handles[3], 3, NODE_FLOCK_EXCLUSIVE, &pid), NODE_FLOCK_UNLOCK,
              "one of them has just closed: nobody is");
    bench_persist(bench);
    bench->auto_persist = true;
    bench_persist(bench);

    /* Shared ones have one place together. */
    setlk(bench, 3, inode, handles[3], NODE_FLOCK_SHARED, false, 3, 0);
    setlk(bench, 4, inode, handles[4], NODE_FLOCK_SHARED, false, 4, 0);
    bench->auto_persist = false;
    flush(bench, inode, handles[3], 3);
    tap_equal(getlk(bench, inode, handles[5], 5, NODE_FLOCK_EXCLUSIVE, &pid), NODE_FLOCK_EXCLUSIVE,
              "one of two that share has just closed: the other one is in a writer's way");
    tap_ok(pid == 2 || pid == 4, "one who holds is named: %u", pid);
    tap_equal(getlk(bench, inode, handles[5], 5, NODE_FLOCK_SHARED, &pid), NODE_FLOCK_UNLOCK,
              "and nobody in a reader's");
    flush(bench, inode, handles[4], 4);
    tap_equal(getlk(bench, inode, handles[5], 5, NODE_FLOCK_EXCLUSIVE, &pid), NODE_FLOCK_UNLOCK,
              "both have: nobody is in the way");

    /* An owner with two claims keeps its place while it has one. */
    bench->auto_persist = true;
    bench_persist(bench);
    uint64_t other, second;
    bench_create(bench, lock, "g", false, 2, &other, &second);
    setlk(bench, 2, other, second, NODE_FLOCK_EXCLUSIVE, false, 2, 0);
    setlk(bench, 3, inode, handles[3], NODE_FLOCK_EXCLUSIVE, false, 3, 0);
    bench->auto_persist = false;
    flush(bench, other, second, 2);
    tap_equal(getlk(bench, inode, handles[5], 5, NODE_FLOCK_EXCLUSIVE, &pid), NODE_FLOCK_EXCLUSIVE,
              "a process has closed one of its two files: it holds its place");
    flush(bench, inode, handles[2], 2);
    tap_equal(getlk(bench, inode, handles[5], 5, NODE_FLOCK_EXCLUSIVE, &pid), NODE_FLOCK_UNLOCK,
              "both: it does not");
    bench_close(bench);
}

static int force(struct bench *bench, uint32_t slot, uint64_t inode, uint64_t handle,
                 uint64_t token)
{
    struct node_request request = {
        .op = NODE_OP_IOC_FORCE, .inode = inode, .handle = handle, .force = {token}};
    const struct node_reply *reply = bench_request(bench, request, slot, 9);
    return !reply ? -EINPROGRESS : reply->type == NODE_REPLY_ERROR ? reply->error : 0;
}

/* DESIGN C10: force has room, and what it would end in vain, or for the second time, has none. */
static void test_force_of_nothing(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t lock, inode, other, a, b, idle, token = 0;
    bench_mkdir(bench, NODE_ROOT_INODE, "l", &lock);
    bench_create(bench, lock, "f", true, 1, &inode, &a);
    bench_create(bench, lock, "g", false, 2, &other, &idle);
    bench_create(bench, NODE_ROOT_INODE, "h", true, 3, NULL, &b);
    bench_token(bench, inode, a, &token);
    bench->log_room = node_log_reserve(bench->node);
    charged = bench->entries_count;
    int wrong = 0;
    for (int i = 0; i < 500; i++) {
        wrong += force(bench, 1, other, idle, 0) != -ENODATA;
        wrong += force(bench, 1, other, idle, token) != -ENODATA;
        wrong += force(bench, 1, inode, a, token + 1) != -ENODATA;
        charge(bench);
    }
    tap_equal(wrong, 0, "force of what nobody holds: ENODATA, also in a full log");
    tap_ok(bench->log_room >= node_log_reserve(bench->node), "and the reserve is there");

    bench->auto_persist = false;
    uint32_t under_way = 0;
    for (uint32_t slot = 1; slot < 60; slot++) {
        under_way += force(bench, slot, inode, a, 0) == -EINPROGRESS;
        charge(bench);
    }
    tap_equal(under_way, 1, "of many at once, one has room in a full log");
    bench_persist(bench);
    charge(bench);
    tap_equal(bench_token(bench, inode, a, &token), -ESTALE, "which revokes the claim");
    tap_ok(bench->log_room >= node_log_reserve(bench->node), "and the reserve is there");
    bench->auto_persist = true;
    tap_equal(force(bench, 1, inode, a, 0), -ESTALE, "the lost handle asks for nothing");
    bench_release(bench, inode, a);
    tap_ok(!bench->failed, "what is held can be given back: %s",
           bench->failed ? bench->failed : "");
    bench_close(bench);
}

/* DESIGN A5: what blocks waits through a log that stands still; what does not gets ETIMEDOUT. */
static void test_setlkw_stalled(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t inode, a, b, token;
    bench_create(bench, NODE_ROOT_INODE, "f", false, 1, &inode, &a);
    bench_create(bench, NODE_ROOT_INODE, "g", false, 2, NULL, &b);
    bench->auto_persist = false;
    setlk(bench, 1, inode, a, NODE_FLOCK_EXCLUSIVE, true, 1, 0);
    setlk(bench, 2, inode, b, NODE_FLOCK_EXCLUSIVE, false, 2, 0);
    for (int i = 0; i < 3; i++) {
        bench->now_ms += 5000;
        bench_step(bench, &(struct node_event){.type = NODE_EVENT_TIMER});
    }
    tap_equal(result(bench, 2), -ETIMEDOUT, "F_SETLK gets ETIMEDOUT");
    tap_equal(result(bench, 1), -EINPROGRESS, "F_SETLKW waits on");
    tap_equal(setlk(bench, 3, inode, a, NODE_FLOCK_SHARED, false, 3, 0), -ETIMEDOUT,
              "a later F_SETLK gets it at once");
    tap_equal(setlk(bench, 4, inode, a, NODE_FLOCK_SHARED, true, 4, 0), -EINPROGRESS,
              "a later F_SETLKW waits");
    bench->auto_persist = true;
    bench_persist(bench);
    tap_equal(result(bench, 1), 0, "it is granted when the log is back");
    tap_equal(result(bench, 4), -EINPROGRESS, "the later one behind it");
    tap_equal(bench_token(bench, inode, a, &token), 0, "for good");
    interrupt(bench, 4);
    tap_equal(result(bench, 4), -EINTR, "and can be interrupted");
    bench_close(bench);
}

static int read_token(struct bench *bench, uint64_t lock, uint32_t pid, uint64_t start)
{
    struct process reader = {.pid = pid, .start = start};
    uint64_t inode;
    bench_lookup(bench, lock, "token", &inode);
    struct node_request open = {.op = NODE_OP_OPEN, .inode = inode};
    uint64_t handle = bench_request(bench, open, 0, pid)->handle;
    struct node_request read = {
        .op = NODE_OP_READ, .inode = inode, .handle = handle, .read = {0, 4096, &reader, 1}};
    const struct node_reply *reply = bench_request(bench, read, 0, pid);
    int got = reply->type == NODE_REPLY_ERROR ? reply->error : atoi(bench->data[0]);
    bench_release(bench, inode, handle);
    return got;
}

/* A number of a process is given again: its start time tells it from the one before. */
static void test_pid_again(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t lock, inode, handle, token = 0;
    bench_mkdir(bench, NODE_ROOT_INODE, "l", &lock);
    bench_create(bench, lock, "f", true, 7, NULL, NULL);
    bench_restart(bench, &bench_limits);
    bench_lookup(bench, NODE_ROOT_INODE, "l", &lock);
    tap_equal(read_token(bench, lock, 7, 70), -ESTALE, "process 7 lost a claim by a restart");
    bench_create(bench, lock, "f", true, 8, &inode, &handle);
    bench_token(bench, inode, handle, &token);
    tap_equal(read_token(bench, lock, 8, 80), (long long)token, "process 8 reads its own number");
    tap_equal(read_token(bench, lock, 8, 99), -ESTALE, "another process 8 is a bystander");
    struct node_event ended = {.type = NODE_EVENT_PROCESS_ENDED,
                               .process_ended = {.pid = 7, .start = 99}};
    bench_step(bench, &ended);
    tap_equal(read_token(bench, lock, 9, 90), -ESTALE, "the end of another process 7 is not its");
    ended.process_ended.start = 70;
    bench_step(bench, &ended);
    tap_equal(read_token(bench, lock, 9, 90), (long long)token, "its end is");
    tap_equal(read_token(bench, lock, 7, 99), (long long)token, "and process 7 is now a bystander");
    bench_close(bench);
}

int main(void)
{
    test_setlkw_stalled();
    test_pid_again();
    test_delay_without_room();
    test_getlk_after_close();
    test_force_of_nothing();
    test_granted_and_converted();
    test_room_for_delays();
    test_fcntl_by_creator();
    test_interrupted_conversion();
    test_unlock_of_nothing();
    test_two_unlocks_at_once();
    test_permission_by_unlock();
    return tap_done();
}
