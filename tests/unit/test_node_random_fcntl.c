/*
 * The node under random requests for fcntl claims, claims that outlive their descriptor, force,
 * settings and delays: by what its callers were told, and by what it counts.
 *
 * A process is an owner. It uses its own descriptors and inherited ones, with several threads;
 * closing any descriptor of a file gives up what the process has on it. After each step:
 *
 *  - no more processes rely on a resource than its limit ever was;
 *  - where nobody can hold a lock, nobody is told that it is held;
 *  - what the node counts is what the table has.
 *
 * Every now and then all ends. Then nothing is counted any more.
 *
 * SEED repeats a run, STEPS says how many steps. A failure prints both.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/node_internal.h"
#include "tests/lib/random_node.h"
#include "tests/lib/tap.h"

enum { DIRS = 3, NAMES = 2, FILES = 10, PIDS = 4, SLOTS = BENCH_SLOTS, SETTLE_MS = 9000 };

static const struct node_limits limits = {
    .table =
        {
            .locks = 8,
            .claims = 10,
            .waiters = 6,
            .sessions = 2,
            .names_bytes = 256,
            .contents_bytes = 8192,
        },
    .handles = 16,
    .requests = SLOTS,
    .inodes = 24,
    .pending_entries = 256,
    .pending_bytes = 1 << 18,
};

/* A process's fcntl claim on a file. */
struct lock {
    uint64_t sent[4];
    uint64_t settled[4];
    int open[4];
    enum node_flock mode;
};

struct file {
    bool used;
    bool created; /* relies on its claim by creating */
    bool asked;
    uint64_t number;
    uint64_t inode;
    int dir;
    int name;
    int pid; /* its place */
    int requests;
};

struct asked {
    uint64_t sent;
    enum node_op op;
    enum node_flock how;
    int file;
    int dir;
    int name;
    int pid;
    uint32_t limit;
    bool used;
    bool tainted;
    bool free;
};

static const char *const names[NAMES] = {"one", "two"};
static const char *const dir_names[DIRS] = {"", "close", "exit"};

static uint64_t dirs[DIRS];
static uint32_t limit_max[DIRS];
static struct lock locks[PIDS][DIRS][NAMES];
static int outlives[PIDS][DIRS][NAMES];     /* claims whose descriptor is closed */
static bool may_outlive[PIDS][DIRS][NAMES]; /* or claims that may have been taken away */
static uint64_t taken_away[DIRS][NAMES];
static struct file files[FILES];
static struct asked slots[SLOTS];
static uint32_t pids[PIDS];
static uint32_t next_pid;
static uint64_t order;
static bool draining;
static uint64_t granted, refused, interrupted, ended, forced, restarts, quiets, outlived;

static struct random_node run;

#define fail(...) random_node_fail(&run, __VA_ARGS__)

static uint32_t below(uint32_t bound)
{
    return random_node_below(&run, bound);
}

static bool one_in(uint32_t n)
{
    return random_node_one_in(&run, n);
}

/* What is counted */

static uint32_t unseen_claims(uint64_t lock, const char *name)
{
    struct claim_view view;
    uint32_t count = 0;
    for (uint64_t after = 0; lock_table_next_claim(run.bench->node->table, lock, after, &view);
         after = view.token)
        count +=
            (!name || strcmp(view.name, name) == 0) && !node__visible_claim(run.bench->node, &view);
    return count;
}

static void check_inode(uint32_t slot)
{
    const struct node *node = run.bench->node;
    const struct inode *inode = tree_at(&node->tree, slot);
    char buffer[LIMIT_NAME_BYTES + 1] = "";
    if (inode->parent)
        buffer[tree_name(&node->tree, inode, buffer).len] = 0;
    uint32_t unseen = unseen_claims(inode->lock, inode->parent ? buffer : NULL);
    if (inode->gone_claims != unseen)
        fail("%u claims on '%s' are gone, and %u are counted", unseen, buffer, inode->gone_claims);
}

static void check_counts(void)
{
    const struct node *node = run.bench->node;
    struct lock_table_counts counts;
    uint32_t open = 0, claims = 0, waits = 0, slot;
    lock_table_get_counts(node->table, &counts);
    for (uint32_t i = 1; i <= node->handles.touched; i++) {
        const struct handle *handle = node__handle_at(node, i);
        if (!handle->type)
            continue;
        open += !handle->closed;
        claims += handle->claims;
        waits += handle->waits;
    }
    if (claims != counts.claims || node->claims_held != claims || waits != counts.waiters ||
        open != node->handles_open)
        fail("claims %u %u %u, waits %u %u, open %u %u", counts.claims, node->claims_held, claims,
             counts.waiters, waits, open, node->handles_open);
    for (int dir = 0; dir < DIRS; dir++) {
        slot = tree_slot(dirs[dir]);
        check_inode(slot);
        uint64_t lock = tree_at(&node->tree, slot)->lock;
        for (int name = 0; name < NAMES; name++) {
            struct span span = {names[name], strlen(names[name])};
            if ((slot = tree_find_file(&node->tree, lock, span)))
                check_inode(slot);
        }
    }
    if (run.bench->failed)
        fail("the node gave up: %s", run.bench->failed);
}

static void step(struct node_event event)
{
    random_node_step(&run, event);
}

/* What is relied on */

static bool is_at(int dir, int name, int other_name)
{
    return dir != 0 || name == other_name;
}

static void check_exclusion(void)
{
    for (int dir = 0; dir < DIRS; dir++) {
        for (int name = 0; name < (dir ? 1 : NAMES); name++) {
            uint32_t exclusive = 0, shared = 0;
            for (int pid = 0; pid < PIDS; pid++) {
                int mode = 0;
                for (int i = 0; i < NAMES; i++) {
                    if (!is_at(dir, name, i))
                        continue;
                    if ((int)locks[pid][dir][i].mode > mode)
                        mode = (int)locks[pid][dir][i].mode;
                    if (outlives[pid][dir][i])
                        mode = NODE_FLOCK_EXCLUSIVE;
                }
                for (int i = 0; i < FILES; i++)
                    if (files[i].used && files[i].created && files[i].pid == pid &&
                        files[i].dir == dir && is_at(dir, name, files[i].name))
                        mode = NODE_FLOCK_EXCLUSIVE;
                exclusive += mode == NODE_FLOCK_EXCLUSIVE;
                shared += mode == NODE_FLOCK_SHARED;
            }
            if (exclusive + (shared != 0) > limit_max[dir])
                fail("%u hold %s/%s exclusively, %u share it", exclusive, dir_names[dir],
                     names[name], shared);
        }
    }
}

static bool nobody_can_hold(int dir, int name)
{
    struct delay_view delay;
    if (lock_table_next_delay(run.bench->node->table, 0, &delay))
        return false;
    for (int i = 0; i < FILES; i++)
        if (files[i].used && files[i].asked && files[i].dir == dir &&
            is_at(dir, name, files[i].name))
            return false;
    for (int slot = 1; slot < SLOTS; slot++)
        if (slots[slot].used && slots[slot].dir == dir)
            return false;
    for (int pid = 0; pid < PIDS; pid++)
        for (int i = 0; i < NAMES; i++)
            if (is_at(dir, name, i) && may_outlive[pid][dir][i])
                return false;
    return true;
}

/* Answers */

static void answered(int slot)
{
    struct asked asked = slots[slot];
    const struct node_reply *reply = bench_reply(run.bench, (uint32_t)slot);
    int error = reply->type == NODE_REPLY_ERROR ? reply->error : 0;
    slots[slot].used = false;
    if (asked.file >= 0)
        files[asked.file].requests--;
    if ((error == -EEXIST || error == -EWOULDBLOCK) && asked.op != NODE_OP_MKDIR) {
        refused++;
        if (asked.free)
            fail("%s/%s is held, and nobody can hold it", dir_names[asked.dir], names[asked.name]);
    }
    interrupted += error == -EINTR;
    if (asked.op == NODE_OP_SETLK) {
        struct lock *lock = &locks[asked.pid][asked.dir][asked.name];
        lock->open[asked.how]--;
        if (error == -EINTR || error == -ETIMEDOUT)
            lock->settled[asked.how] = run.bench->write;
        bool stands = !asked.tainted && asked.sent > taken_away[asked.dir][asked.name];
        for (int how = NODE_FLOCK_SHARED; how <= NODE_FLOCK_UNLOCK; how++)
            if (how != (int)asked.how && lock->sent[how] > asked.sent)
                stands = false;
        if (!error && stands && asked.how != NODE_FLOCK_UNLOCK) {
            lock->mode = asked.how;
            granted++;
        }
    } else if (asked.op == NODE_OP_CREATE && !error) {
        int at = 0;
        while (files[at].used)
            at++;
        bool exclusive = asked.how == NODE_FLOCK_EXCLUSIVE;
        files[at] =
            (struct file){.used = true,
                          .number = reply->handle,
                          .inode = reply->inode,
                          .dir = asked.dir,
                          .name = asked.name,
                          .pid = asked.pid,
                          .asked = exclusive,
                          .created = exclusive && asked.sent > taken_away[asked.dir][asked.name]};
        granted += exclusive;
    }
}

static void collect(void)
{
    for (int slot = 1; slot < SLOTS; slot++)
        if (slots[slot].used && run.bench->answered[slot])
            answered(slot);
    check_exclusion();
}

/* Requests */

static void ask(int slot, struct asked asked, struct node_request request)
{
    asked.used = true;
    asked.op = request.op;
    asked.sent = ++order;
    slots[slot] = asked;
    if (asked.file >= 0)
        files[asked.file].requests++;
    bench_request(run.bench, request, (uint32_t)slot, pids[asked.pid]);
    check_counts();
    collect();
}

static struct file *some_file(void)
{
    for (int tries = 0; tries < 8; tries++) {
        struct file *file = &files[below(FILES)];
        if (file->used)
            return file;
    }
    return NULL;
}

static void do_create(int slot)
{
    struct asked asked = {.file = -1,
                          .dir = (int)below(DIRS),
                          .name = (int)below(NAMES),
                          .pid = (int)below(PIDS),
                          .how = one_in(3) ? NODE_FLOCK_EXCLUSIVE : 0};
    int count = 0;
    for (int i = 0; i < FILES; i++)
        count += files[i].used;
    for (int i = 1; i < SLOTS; i++)
        count += slots[i].used && slots[i].op == NODE_OP_CREATE;
    if (count >= FILES)
        return;
    asked.free = asked.how && nobody_can_hold(asked.dir, asked.name);
    struct node_request request = {.op = NODE_OP_CREATE,
                                   .inode = dirs[asked.dir],
                                   .name = {names[asked.name], strlen(names[asked.name])},
                                   .open = {asked.how != 0, true},
                                   .mode = 0644};
    ask(slot, asked, request);
}

static void do_setlk(int slot)
{
    struct file *file = some_file();
    if (!file || file->requests >= 3)
        return;
    int pid = !file->created && one_in(8) ? (int)below(PIDS) : file->pid;
    struct asked asked = {.file = (int)(file - files),
                          .dir = file->dir,
                          .name = file->name,
                          .pid = pid,
                          .how = (enum node_flock)(1 + below(3))};
    struct lock *lock = &locks[pid][file->dir][file->name];
    asked.free = asked.how != NODE_FLOCK_UNLOCK && nobody_can_hold(file->dir, file->name);
    for (int how = NODE_FLOCK_SHARED; how <= NODE_FLOCK_UNLOCK; how++)
        if (how != (int)asked.how && (lock->open[how] || lock->settled[how] > run.bench->durable))
            asked.tainted = true;
    struct node_request request = {
        .op = NODE_OP_SETLK, .inode = file->inode, .handle = file->number};
    request.fcntl.how = asked.how;
    request.fcntl.wait = one_in(2);
    request.fcntl.whole_file = true;
    request.fcntl.owner = pids[pid];
    file->asked = true;
    lock->sent[asked.how] = order + 1;
    lock->open[asked.how]++;
    if (asked.how != lock->mode)
        lock->mode = 0;
    ask(slot, asked, request);
}

static void flush(const struct file *file, int pid)
{
    struct lock *lock = &locks[pid][file->dir][file->name];
    struct node_request request = {
        .op = NODE_OP_FLUSH, .inode = file->inode, .handle = file->number};
    request.fcntl.owner = pids[pid];
    lock->mode = 0;
    lock->sent[NODE_FLOCK_UNLOCK] = ++order;
    lock->settled[NODE_FLOCK_UNLOCK] = run.bench->write + 1;
    bench_request(run.bench, request, 0, pids[pid]);
    check_counts();
}

static void close_file(struct file *file)
{
    for (int pid = 0; pid < PIDS; pid++)
        flush(file, pid);
    struct node_request request = {
        .op = NODE_OP_RELEASE, .slot = NODE_NO_SLOT, .inode = file->inode, .handle = file->number};
    if (file->created && file->dir == 2) {
        outlives[file->pid][file->dir][file->name]++;
        outlived++;
    }
    if (file->asked && file->dir == 2)
        may_outlive[file->pid][file->dir][file->name] = true;
    file->used = false;
    step((struct node_event){.type = NODE_EVENT_REQUEST, .request = request});
    step((struct node_event){.type = NODE_EVENT_FORGET, .forget = {file->inode, 1}});
}

static bool is_busy(int pid)
{
    for (int slot = 1; slot < SLOTS; slot++)
        if (slots[slot].used && slots[slot].pid == pid)
            return true;
    return false;
}

static void end_process(int pid)
{
    if (is_busy(pid))
        return;
    for (int i = 0; i < FILES; i++) {
        if (!files[i].used)
            continue;
        flush(&files[i], pid);
        if (files[i].pid != pid)
            continue;
        if (!files[i].requests && one_in(2))
            close_file(&files[i]);
        else if (files[i].dir == 2)
            files[i].created = false;
    }
    struct process process = {.pid = pids[pid], .start = (uint64_t)pids[pid] * 10};
    memset(outlives[pid], 0, sizeof outlives[pid]);
    memset(may_outlive[pid], 0, sizeof may_outlive[pid]);
    step((struct node_event){.type = NODE_EVENT_PROCESS_ENDED, .process_ended = process});
    for (int i = 0; i < FILES; i++) /* children have inherited what is open */
        if (files[i].used && files[i].pid == pid && files[i].created)
            return;
    memset(locks[pid], 0, sizeof locks[pid]);
    pids[pid] = ++next_pid;
    ended++;
}

static void take_away(int dir, int name)
{
    taken_away[dir][name] = ++order;
    for (int pid = 0; pid < PIDS; pid++) {
        locks[pid][dir][name].mode = 0;
        outlives[pid][dir][name] = 0;
    }
    for (int i = 0; i < FILES; i++)
        if (files[i].used && files[i].dir == dir && files[i].name == name)
            files[i].created = false;
}

static void do_force(int slot)
{
    struct file *file = some_file();
    if (!file || file->requests >= 3)
        return;
    struct asked asked = {
        .file = (int)(file - files), .dir = file->dir, .name = file->name, .pid = file->pid};
    take_away(file->dir, file->name);
    forced++;
    ask(slot, asked,
        (struct node_request){
            .op = NODE_OP_IOC_FORCE, .inode = file->inode, .handle = file->number});
}

static void do_unlink(int slot)
{
    struct asked asked = {
        .file = -1, .dir = (int)below(DIRS), .name = (int)below(NAMES), .pid = (int)below(PIDS)};
    const char *name = names[asked.name];
    take_away(asked.dir, asked.name);
    ask(slot, asked,
        (struct node_request){
            .op = NODE_OP_UNLINK, .inode = dirs[asked.dir], .name = {name, strlen(name)}});
}

static int set(int dir, const char *setting, const char *text)
{
    uint64_t inode;
    bool before = run.bench->auto_persist;
    run.bench->auto_persist = true;
    if (bench_lookup(run.bench, dirs[dir], setting, &inode))
        fail("%s is not there", setting);
    struct node_request open = {.op = NODE_OP_OPEN, .inode = inode, .open = {.write = true}};
    const struct node_reply *reply = bench_request(run.bench, open, 0, 1);
    if (reply->type != NODE_REPLY_OPENED)
        fail("%s cannot be opened", setting);
    uint64_t handle = reply->handle;
    int error = bench_write(run.bench, inode, handle, text);
    bench_persist(run.bench);
    bench_release(run.bench, inode, handle);
    step((struct node_event){.type = NODE_EVENT_FORGET, .forget = {inode, 1}});
    run.bench->auto_persist = before;
    collect();
    return error;
}

static void do_set(void)
{
    int dir = 1 + (int)below(DIRS - 1);
    uint32_t limit = 1 + below(3);
    char text[8];
    snprintf(text, sizeof text, "%u", limit);
    if (limit_max[dir] < limit)
        limit_max[dir] = limit;
    if (one_in(2))
        set(dir, ".limit", text);
    else if (one_in(2))
        set(dir, ".delay", one_in(3) ? "2" : "0");
}

static void persist(bool all)
{
    uint64_t most = random_node_unwritten(&run);
    if (most)
        random_node_persist(&run, all ? most : 1 + below((uint32_t)most));
}

static bool is_used(uint32_t slot)
{
    return slots[slot].used;
}

static void find_dirs(void)
{
    dirs[0] = NODE_ROOT_INODE;
    for (int dir = 1; dir < DIRS; dir++)
        if (bench_lookup(run.bench, NODE_ROOT_INODE, dir_names[dir], &dirs[dir]))
            fail("%s is gone", dir_names[dir]);
}

static void forget_all(void)
{
    memset(files, 0, sizeof files);
    memset(slots, 0, sizeof slots);
    memset(locks, 0, sizeof locks);
    memset(outlives, 0, sizeof outlives);
    memset(may_outlive, 0, sizeof may_outlive);
    draining = false;
}

/* Records of a snapshot lead to an equal table. */
static void check_snapshot(void)
{
    struct node_config config = run.bench->node->config;
    void *memory = calloc(1, node_size(&limits)); /* what is not touched costs nothing */
    struct node *other = node_init(memory, &limits, &config);
    struct node_cursor cursor = {0};
    struct node_restoring restoring = {0};
    static char buffer[LIMIT_SNAPSHOT_RECORD_BYTES];
    size_t len;
    while ((len = node_save(run.bench->node, &cursor, buffer)))
        if (!node_restore(other, &restoring, (struct span){buffer, len}))
            fail("a record of a snapshot is refused");
    if (!node_is_restored(other, &restoring) ||
        lock_table_digest(other->table) != lock_table_digest(run.bench->node->table) ||
        other->lost_processes.used != run.bench->node->lost_processes.used)
        fail("a snapshot leads elsewhere");
    free(memory);
}

static void restart(void)
{
    forget_all();
    bench_restart(run.bench, &limits);
    run.bench->auto_persist = false;
    find_dirs();
    check_counts();
    restarts++;
}

static void close_all(void)
{
    for (int turn = 0; turn < 2 * FILES; turn++) {
        persist(true);
        for (uint32_t slot = 1; slot < SLOTS; slot++)
            if (slots[slot].used)
                step((struct node_event){.type = NODE_EVENT_INTERRUPT, .interrupt = {slot}});
        collect();
        for (int i = 0; i < FILES; i++)
            if (files[i].used && !files[i].requests)
                close_file(&files[i]);
        for (int pid = 0; pid < PIDS; pid++)
            end_process(pid);
    }
    persist(true);
    random_node_let_time_pass(&run, SETTLE_MS);
    persist(true);
}

static void go_quiet(void)
{
    bool drain = one_in(4);
    if (drain)
        step((struct node_event){.type = NODE_EVENT_DRAIN});
    collect();
    close_all();
    random_node_check_quiet(&run, DIRS);
    if (drain && !run.bench->drained)
        fail("drain does not end");
    quiets++;
    if (drain)
        restart();
}

/* How eager the disk is, so that much is under way now and then. */
static uint32_t eagerness;

static void random_step(void)
{
    int slot = 1;
    uint32_t dice = below(100);
    if (one_in(100))
        eagerness = below(4);
    while (slot < SLOTS && slots[slot].used)
        slot++;
    if (slot == SLOTS)
        dice = 75 + below(25);
    if (dice < 14) {
        run.what = "create";
        do_create(slot);
    } else if (dice < 50) {
        run.what = "setlk";
        do_setlk(slot);
    } else if (dice < 60) {
        run.what = "close";
        struct file *file = some_file();
        if (file && !file->requests)
            close_file(file);
    } else if (dice < 64) {
        run.what = "flush";
        struct file *file = some_file();
        if (file)
            flush(file, one_in(2) ? file->pid : (int)below(PIDS));
        collect();
    } else if (dice < 66) {
        run.what = "force";
        do_force(slot);
    } else if (dice < 68) {
        run.what = "unlink";
        do_unlink(slot);
    } else if (dice < 71) {
        run.what = "end";
        end_process((int)below(PIDS));
    } else if (dice < 72) {
        run.what = "set";
        do_set();
    } else if (dice < 80) {
        run.what = "interrupt";
        random_node_interrupt(&run, is_used);
    } else if (dice < 84) {
        run.what = "time";
        random_node_let_time_pass(&run, one_in(4) ? 2500 : below(100));
    } else if (dice < 98) {
        run.what = "persist";
        if (below(4) <= eagerness)
            persist(one_in(4));
    } else if (one_in(8)) {
        run.what = "snapshot";
        check_snapshot();
    } else if (one_in(20)) {
        run.what = "restart";
        restart();
    } else if (one_in(20)) {
        run.what = "quiet";
        go_quiet();
    }
}

static void run_round(void)
{
    run.bench = bench_open(&limits);
    forget_all();
    memset(taken_away, 0, sizeof taken_away);
    for (int pid = 0; pid < PIDS; pid++)
        pids[pid] = ++next_pid;
    dirs[0] = NODE_ROOT_INODE;
    for (int dir = 0; dir < DIRS; dir++) {
        limit_max[dir] = 1;
        if (dir && bench_mkdir(run.bench, NODE_ROOT_INODE, dir_names[dir], &dirs[dir]))
            fail("mkdir");
    }
    if (set(2, ".release", "exit\n"))
        fail("no exit claims");
    run.bench->auto_persist = false;
    for (int i = 0; i < 4000 && run.step_number < run.steps_max; i++, run.step_number++)
        random_step();
    run.what = "quiet";
    go_quiet();
    bench_close(run.bench);
}

int main(void)
{
    run.stepped = check_counts;
    run.collect = collect;
    random_node_begin(&run, 250000);
    while (run.step_number < run.steps_max)
        run_round();
    tap_ok(true, "%" PRIu64 " random steps", run.step_number);
    tap_ok(granted && refused && interrupted && ended && forced && restarts && quiets && outlived,
           "granted %" PRIu64 ", refused %" PRIu64 ", interrupted %" PRIu64 ", ended %" PRIu64
           ", forced %" PRIu64 ", restarts %" PRIu64 ", quiet %" PRIu64 ", outlived %" PRIu64,
           granted, refused, interrupted, ended, forced, restarts, quiets, outlived);
    return tap_done();
}
