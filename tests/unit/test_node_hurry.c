/* For which entries somebody waits, so that they go to the disk at once, and which ones ride along
 * with the next. */
#include <errno.h>
#include <stdlib.h>

#include "tests/lib/node_bench.h"
#include "tests/lib/tap.h"

static const enum node_flock shared = NODE_FLOCK_SHARED;
static const enum node_flock exclusive = NODE_FLOCK_EXCLUSIVE;
static const enum node_flock unlock = NODE_FLOCK_UNLOCK;

struct file {
    uint64_t inode;
    uint64_t handle;
};

/* An open file without a claim. */
static struct file open_file(struct bench *bench, uint64_t lock, const char *name)
{
    struct file file;
    if (bench_create(bench, lock, name, false, 7, &file.inode, &file.handle))
        abort();
    return file;
}

static int flock_file(struct bench *bench, uint32_t slot, struct file file, enum node_flock how)
{
    return bench_flock(bench, slot, file.inode, file.handle, how, true, 7);
}

static int fcntl_file(struct bench *bench, uint32_t slot, struct file file, enum node_flock how,
                      uint64_t owner)
{
    struct node_request request = {.op = NODE_OP_SETLK,
                                   .inode = file.inode,
                                   .handle = file.handle,
                                   .fcntl = {how, true, true, owner}};
    const struct node_reply *reply = bench_request(bench, request, slot, (uint32_t)owner);
    if (!reply)
        return -EINPROGRESS;
    return reply->type == NODE_REPLY_ERROR ? reply->error : 0;
}

static void close_file(struct bench *bench, struct file file)
{
    bench_release(bench, file.inode, file.handle);
}

/* Whether anything was hurried since the last look. Nothing is durable by itself any more. */
static bool take_hurry(struct bench *bench)
{
    bool hurry = bench->hurry;
    bench->hurry = bench->auto_persist = false;
    return hurry;
}

/* All is durable and applied. */
static void settle(struct bench *bench)
{
    bench_persist(bench);
    take_hurry(bench);
}

static void test_nobody_waits(void)
{
    struct bench *bench = bench_open(&bench_limits);
    struct file file = {0};
    take_hurry(bench);
    tap_equal(bench_create(bench, NODE_ROOT_INODE, "f", true, 7, NULL, NULL), -EINPROGRESS,
              "a create");
    tap_ok(take_hurry(bench), "somebody waits for its grant");
    bench_persist(bench);
    bench->auto_persist = true;
    bench_create(bench, NODE_ROOT_INODE, "g", true, 7, &file.inode, &file.handle);
    settle(bench);
    close_file(bench, file);
    tap_ok(!take_hurry(bench), "nobody waits for a close");
    tap_equal(bench_lookup(bench, NODE_ROOT_INODE, "g", NULL), -ENOENT, "which counts at once");
    tap_equal(bench_create(bench, NODE_ROOT_INODE, "g", true, 7, NULL, NULL), -EINPROGRESS,
              "a create behind it");
    tap_ok(take_hurry(bench), "hurries both");
    bench_persist(bench);
    const struct node_reply *reply = bench_reply(bench, 0);
    tap_ok(reply && reply->type == NODE_REPLY_CREATED, "and is granted");
    bench_close(bench);
}

static void test_hand_off(void)
{
    struct bench *bench = bench_open(&bench_limits);
    struct file a = open_file(bench, NODE_ROOT_INODE, "f");
    struct file b = open_file(bench, NODE_ROOT_INODE, "f");
    struct file c = open_file(bench, NODE_ROOT_INODE, "f");
    struct file other = open_file(bench, NODE_ROOT_INODE, "other");
    settle(bench);

    flock_file(bench, 1, a, exclusive);
    tap_ok(take_hurry(bench), "somebody waits for a lock that is free");
    bench_persist(bench);
    flock_file(bench, 2, b, exclusive);
    tap_ok(!take_hurry(bench), "a request that will only queue need not hurry");
    flock_file(bench, 3, other, exclusive);
    tap_ok(take_hurry(bench), "one for another file does");
    bench_persist(bench);
    close_file(bench, other);
    tap_ok(!take_hurry(bench), "its close does not: who waits there waits for another file");

    flock_file(bench, 1, a, unlock);
    tap_ok(take_hurry(bench), "an unlock hurries: its caller waits");
    flock_file(bench, 4, c, exclusive);
    tap_ok(!take_hurry(bench), "who comes meanwhile does not: somebody else is next");
    uint64_t write = bench->write - 1;
    bench_persist_until(bench, write);
    tap_ok(bench_reply(bench, 2) && !take_hurry(bench), "who is next has it, without hurry");
    close_file(bench, b);
    tap_ok(take_hurry(bench), "a close hurries while somebody is on the way to the queue");
    bench_persist(bench);
    tap_ok(bench_reply(bench, 4) != NULL, "who then has it");
    flock_file(bench, 5, a, exclusive);
    settle(bench);
    close_file(bench, c);
    tap_ok(take_hurry(bench), "a close hurries while somebody is in the queue");
    struct file d = open_file(bench, NODE_ROOT_INODE, "f");
    flock_file(bench, 6, d, exclusive);
    tap_ok(!take_hurry(bench), "who comes behind those need not");
    bench_persist(bench);
    tap_ok(bench_reply(bench, 5) != NULL, "who then has it");
    bench_close(bench);
}

/* A request that found a lock held, of which the end was on its way. */
static void test_held_no_more(void)
{
    struct bench *bench = bench_open(&bench_limits);
    struct file a = open_file(bench, NODE_ROOT_INODE, "f");
    struct file b = open_file(bench, NODE_ROOT_INODE, "f");
    flock_file(bench, 1, a, exclusive);
    settle(bench);

    flock_file(bench, 1, a, unlock);
    take_hurry(bench);
    uint64_t write = bench->write;
    flock_file(bench, 2, b, exclusive);
    tap_ok(!take_hurry(bench), "behind an unlock that is on its way nothing is gained by hurry");
    bench_persist_until(bench, write);
    tap_ok(take_hurry(bench), "but when that is done");
    bench_persist(bench);
    tap_ok(bench_reply(bench, 2) != NULL, "it is granted");

    settle(bench);
    close_file(bench, b);
    tap_ok(!take_hurry(bench), "behind a close that nobody hurried");
    flock_file(bench, 3, a, exclusive);
    tap_ok(take_hurry(bench), "it hurries that, too");
    bench_persist(bench);
    tap_ok(bench_reply(bench, 3) != NULL, "and is granted");
    bench_close(bench);
}

static void test_conversion(void)
{
    struct bench *bench = bench_open(&bench_limits);
    struct file a = open_file(bench, NODE_ROOT_INODE, "f");
    struct file b = open_file(bench, NODE_ROOT_INODE, "f");
    struct file c = open_file(bench, NODE_ROOT_INODE, "f");
    flock_file(bench, 1, a, shared);
    flock_file(bench, 2, b, shared);
    settle(bench);
    flock_file(bench, 3, c, exclusive);
    tap_ok(!take_hurry(bench), "exclusive beside two shared ones will queue");
    flock_file(bench, 2, b, exclusive);
    tap_ok(take_hurry(bench), "a conversion gives something back, and hurries");
    bench_close(bench);
}

/* Where the limit is a number, all files of a lock are one resource. */
static void test_one_resource(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t lock;
    bench_mkdir(bench, NODE_ROOT_INODE, "l", &lock);
    struct file a = open_file(bench, lock, "a");
    struct file b = open_file(bench, lock, "b");
    flock_file(bench, 1, a, exclusive);
    settle(bench);
    flock_file(bench, 2, b, exclusive);
    tap_ok(!take_hurry(bench), "a request for another file of the lock will queue");
    close_file(bench, a);
    tap_ok(take_hurry(bench), "and the close is awaited");
    bench_persist(bench);
    tap_ok(bench_reply(bench, 2) != NULL, "since it hands the lock over");
    settle(bench);
    close_file(bench, b);
    take_hurry(bench);
    struct file c = open_file(bench, lock, "c");
    flock_file(bench, 3, c, exclusive);
    tap_ok(take_hurry(bench), "a close of another file on its way: the request hurries both");
    bench_close(bench);
}

static void test_fcntl(void)
{
    struct bench *bench = bench_open(&bench_limits);
    struct file a = open_file(bench, NODE_ROOT_INODE, "f");
    struct file b = open_file(bench, NODE_ROOT_INODE, "f");
    struct node_request flush = {.op = NODE_OP_FLUSH, .inode = a.inode, .handle = a.handle};
    flush.fcntl.owner = 50;
    fcntl_file(bench, 1, a, exclusive, 50);
    settle(bench);
    bench_request(bench, flush, 4, 50);
    tap_ok(!take_hurry(bench), "nobody waits for what a close drops");
    settle(bench);
    fcntl_file(bench, 1, a, shared, 50);
    settle(bench);
    fcntl_file(bench, 1, a, exclusive, 50);
    tap_ok(take_hurry(bench), "what its own owner holds does not stand in a request's way");
    settle(bench);
    fcntl_file(bench, 1, b, shared, 50);
    tap_ok(take_hurry(bench), "through whatever handle");
    settle(bench);
    struct file c = open_file(bench, NODE_ROOT_INODE, "f");
    fcntl_file(bench, 2, c, exclusive, 60);
    tap_ok(!take_hurry(bench), "a request that will queue need not hurry");
    bench_request(bench, flush, 4, 50);
    tap_ok(take_hurry(bench), "but what it waits for");
    bench_persist(bench);
    tap_ok(bench_reply(bench, 2) != NULL, "which hands the lock over");
    bench_close(bench);
}

static void test_exit(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t lock, limit;
    struct file claim, waiter;
    bench_mkdir(bench, NODE_ROOT_INODE, "l", &lock);
    bench_lookup(bench, lock, ".release", &limit);
    struct node_request open = {.op = NODE_OP_OPEN, .inode = limit, .open = {.write = true}};
    const struct node_reply *reply = bench_request(bench, open, 0, 7);
    tap_equal(bench_write(bench, limit, reply ? reply->handle : 0, "exit\n"), 0, "set to exit");
    struct node_event ended = {.type = NODE_EVENT_PROCESS_ENDED,
                               .process_ended = {.pid = 8, .start = 80}};
    for (int awaited = 0; awaited < 2; awaited++) {
        bench->auto_persist = true;
        bench_create(bench, lock, "f", true, 8, &claim.inode, &claim.handle);
        waiter = open_file(bench, lock, "g");
        if (awaited)
            flock_file(bench, 2, waiter, exclusive);
        settle(bench);
        bench_step(bench, &ended);
        tap_equal(take_hurry(bench), awaited, "the end of a process hurries where it is awaited");
        settle(bench);
    }
    tap_ok(bench_reply(bench, 2) != NULL, "and hands the lock over");
    bench_close(bench);
}

static void test_drain(void)
{
    struct bench *bench = bench_open(&bench_limits);
    struct file file;
    bench_create(bench, NODE_ROOT_INODE, "f", true, 7, &file.inode, &file.handle);
    bench_step(bench, &(struct node_event){.type = NODE_EVENT_DRAIN});
    settle(bench);
    close_file(bench, file);
    tap_ok(take_hurry(bench), "a daemon that drains waits for each close");
    bench_persist(bench);
    tap_ok(bench->drained, "and has drained then");
    bench_close(bench);
}

/* Without hurry the entry is as good as any: what waits for it is answered when it is durable. */
static void test_answers(void)
{
    struct bench *bench = bench_open(&bench_limits);
    struct file a = open_file(bench, NODE_ROOT_INODE, "f");
    struct file b = open_file(bench, NODE_ROOT_INODE, "f");
    flock_file(bench, 1, a, exclusive);
    settle(bench);
    flock_file(bench, 2, b, exclusive);
    bench_persist(bench);
    tap_ok(!bench_reply(bench, 2), "a request in the queue waits");
    take_hurry(bench);
    close_file(bench, a);
    tap_ok(!bench_reply(bench, 2), "also while the close that hands over is not durable");
    bench_persist(bench);
    tap_ok(bench_reply(bench, 2) && bench_reply(bench, 2)->type == NODE_REPLY_DONE,
           "and has it when it is");
    bench_close(bench);
}

int main(void)
{
    test_nobody_waits();
    test_hand_off();
    test_held_no_more();
    test_conversion();
    test_one_resource();
    test_fcntl();
    test_exit();
    test_drain();
    test_answers();
    return tap_done();
}
