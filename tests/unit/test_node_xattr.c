/* The node: what extended attributes tell about a claim, and whom. */
#include <errno.h>
#include <string.h>

#include "tests/lib/node_bench.h"
#include "tests/lib/tap.h"

#define TOKEN "user.lockfs.token"
#define NODE  "user.lockfs.node"
#define MODE  "user.lockfs.mode"

static const char all_names[] = TOKEN "\0" NODE "\0" MODE;

/* Both leave the answer in bench->data[0]. */
static int get(struct bench *bench, uint64_t inode, const char *name)
{
    struct node_request request = {
        .op = NODE_OP_GETXATTR, .inode = inode, .name = {name, strlen(name)}};
    const struct node_reply *reply = bench_request(bench, request, 0, 9);
    return reply->type == NODE_REPLY_ERROR ? reply->error : 0;
}

static int list(struct bench *bench, uint64_t inode)
{
    struct node_request request = {.op = NODE_OP_LISTXATTR, .inode = inode};
    const struct node_reply *reply = bench_request(bench, request, 0, 9);
    return reply->type == NODE_REPLY_ERROR ? reply->error : (int)reply->data.len;
}

static void is(struct bench *bench, uint64_t inode, const char *name, const char *value)
{
    int error = get(bench, inode, name);
    tap_ok(!error && strcmp(bench->data[0], value) == 0, "%s is %s: %s", name, value,
           error ? strerror(-error) : bench->data[0]);
}

static void has_none(struct bench *bench, uint64_t inode, const char *what)
{
    tap_equal(get(bench, inode, TOKEN), -ENODATA, "%s: no token", what);
    tap_equal(get(bench, inode, NODE), -ENODATA, "%s: no node", what);
    tap_equal(get(bench, inode, MODE), -ENODATA, "%s: no mode", what);
    tap_equal(list(bench, inode), 0, "%s: nothing to list", what);
}

static void test_one_claim(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t lock, inode, plain, handle;
    bench_mkdir(bench, NODE_ROOT_INODE, "l", &lock);
    has_none(bench, lock, "a lock");
    has_none(bench, NODE_ROOT_INODE, "the root");
    bench_lookup(bench, lock, "holders", &inode);
    has_none(bench, inode, "a control file");
    bench_create(bench, lock, "f", false, 7, &inode, &plain);
    has_none(bench, inode, "an open file that nobody claims");

    bench_create(bench, lock, "f", true, 8, &inode, &handle);
    is(bench, inode, TOKEN, "1");
    is(bench, inode, NODE, "1");
    is(bench, inode, MODE, "exclusive");
    tap_equal(list(bench, inode), sizeof all_names, "all three are listed");
    tap_ok(memcmp(bench->data[0], all_names, sizeof all_names) == 0, "by their names");
    tap_equal(get(bench, inode, TOKEN "s"), -ENODATA, "a longer name");
    tap_equal(get(bench, inode, "user.lockfs."), -ENODATA, "a shorter one");
    has_none(bench, lock, "its lock");

    size_t entries = bench->entries_count;
    for (int i = 0; i < 100; i++)
        get(bench, inode, TOKEN);
    tap_equal(bench->entries_count, entries, "looks leave nothing in the log");

    bench_flock(bench, 1, inode, plain, NODE_FLOCK_SHARED, true, 7);
    bench->auto_persist = false;
    bench_release(bench, inode, handle);
    has_none(bench, inode, "closed, and the release is not durable");
    bench->auto_persist = true;
    bench_persist(bench);
    is(bench, inode, TOKEN, "2");
    is(bench, inode, MODE, "shared");
    bench_release(bench, inode, plain);
    has_none(bench, inode, "free again, and the kernel still knows the inode");

    tap_equal(bench_named(bench, NODE_OP_RMDIR, NODE_ROOT_INODE, "l", 7), 0, "rmdir");
    tap_equal(get(bench, inode, TOKEN), -ESTALE, "a file of a lock that is gone");
    tap_equal(list(bench, inode), -ESTALE, "a list of it");
    tap_equal(get(bench, 12345, TOKEN), -ESTALE, "an inode that never was");
    bench_close(bench);
}

/* The newest describes the file, as long as its caller has it. */
static void test_several_claims(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t inode, a, b, c;
    bench_create(bench, NODE_ROOT_INODE, "other", true, 1, NULL, NULL);
    bench_create(bench, NODE_ROOT_INODE, "f", false, 1, &inode, &a);
    bench_create(bench, NODE_ROOT_INODE, "f", false, 2, &inode, &b);
    bench_create(bench, NODE_ROOT_INODE, "f", false, 3, &inode, &c);
    bench_flock(bench, 1, inode, a, NODE_FLOCK_SHARED, false, 1);
    bench_flock(bench, 1, inode, b, NODE_FLOCK_SHARED, false, 2);
    bench_flock(bench, 1, inode, c, NODE_FLOCK_SHARED, false, 3);
    bench_create(bench, NODE_ROOT_INODE, "another", true, 1, NULL, NULL);
    is(bench, inode, TOKEN, "4");
    bench->auto_persist = false;
    bench_release(bench, inode, c);
    is(bench, inode, TOKEN, "3");
    bench_release(bench, inode, a);
    is(bench, inode, TOKEN, "3");
    bench->auto_persist = true;
    bench_persist(bench);
    is(bench, inode, TOKEN, "3");
    bench_flock(bench, 1, inode, b, NODE_FLOCK_EXCLUSIVE, false, 2);
    is(bench, inode, TOKEN, "6");
    is(bench, inode, MODE, "exclusive");
    bench_release(bench, inode, b);
    has_none(bench, inode, "all closed");

    /* By creating and by flock through one handle: it goes by the larger number. */
    bench_create(bench, NODE_ROOT_INODE, "f", true, 1, &inode, &a);
    bench_flock(bench, 1, inode, a, NODE_FLOCK_SHARED, false, 1);
    is(bench, inode, TOKEN, "8");
    is(bench, inode, MODE, "shared");
    bench_flock(bench, 1, inode, a, NODE_FLOCK_UNLOCK, false, 1);
    is(bench, inode, TOKEN, "7");
    is(bench, inode, MODE, "exclusive");
    bench_close(bench);
}

static int get_as(struct bench *bench, uint64_t inode, uint32_t uid, uint32_t gid, uint32_t group,
                  bool listed)
{
    struct node_request request = {.op = listed ? NODE_OP_LISTXATTR : NODE_OP_GETXATTR,
                                   .inode = inode,
                                   .name = {TOKEN, strlen(TOKEN)},
                                   .uid = uid,
                                   .gid = gid};
    if (group && node_wants_groups(bench->node, &request)) {
        request.groups = &group;
        request.groups_count = 1;
    }
    const struct node_reply *reply = bench_request(bench, request, 0, 9);
    return reply->type == NODE_REPLY_ERROR ? reply->error : (int)reply->data.len;
}

static void test_who_may_look(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t lock, inode;
    bench_mkdir(bench, NODE_ROOT_INODE, "l", &lock);
    bench_create(bench, lock, "f", true, 7, &inode, NULL);
    struct node_request change = {
        .op = NODE_OP_SETATTR,
        .inode = lock,
        .mode = 0,
        .setattr = {.valid = NODE_SET_MODE | NODE_SET_UID | NODE_SET_GID, .uid = 10, .gid = 20}};
    for (uint32_t mode = 0; mode <= 0777; mode++) {
        change.mode = mode;
        bench_request(bench, change, 0, 0);
        struct {
            uint32_t uid, gid, group, right;
        } callers[] = {{0, 0, 0, 0777},   {10, 1, 0, 0400},  {10, 20, 0, 0400}, {11, 20, 0, 0040},
                       {11, 1, 20, 0040}, {11, 1, 21, 0004}, {11, 1, 0, 0004}};
        for (size_t i = 0; i < sizeof callers / sizeof *callers; i++) {
            bool may = callers[i].right == 0777 || (mode & callers[i].right);
            int got = get_as(bench, inode, callers[i].uid, callers[i].gid, callers[i].group, false);
            int listed =
                get_as(bench, inode, callers[i].uid, callers[i].gid, callers[i].group, true);
            if (got != (may ? 1 : -EACCES) || listed != (may ? (int)sizeof all_names : 0))
                tap_ok(false, "mode %03o, caller %zu: %d, %d", mode, i, got, listed);
        }
    }
    tap_ok(true, "who may read a lock's directory, and nobody else, sees what it tells");
    bench_close(bench);
}

int main(void)
{
    test_one_claim();
    test_several_claims();
    test_who_may_look();
    return tap_done();
}
