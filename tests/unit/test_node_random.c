/*
 * The node under random requests, checked from outside: by what its callers were told.
 *
 * Callers open, claim, unlock, write, unlink and close, several threads through one
 * descriptor included. Interrupts come at any moment, the disk stands still for longer than the
 * operation timeout, the log runs out of room, the daemon drains, and power goes. After each step:
 *
 *  - no two descriptors rely on claims that exclude each other, where to rely means: success was
 *    told, and neither an unlock nor the other mode was asked for since;
 *  - who relies on a claim has a number, unless somebody unlinked it, and is named by looks;
 *  - numbers grow in the order of grants, restarts included, and none is given twice;
 *  - who lost a claim reads no number from `token`;
 *  - where nobody can hold a lock, nobody is told that it is held;
 *  - unlock and unlink find room;
 *  - the node has not given up.
 *
 * Every now and then all is closed. Then every request has its answer, nothing that was given up is
 * left, and nothing is counted, pinned or taken any more.
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

enum {
    DIRS = 4, /* the root is the first */
    NAMES = 2,
    FILES = 12,
    THREADS = 3,    /* that use one descriptor at a time */
    PROBE_SLOT = 0, /* of bench_lookup() and the like */
    SLOTS = BENCH_SLOTS,
    GIVEN_UP = 8,
    TOKENS = BENCH_ENTRIES, /* a grant is an entry */
    ROUND_STEPS = 6000,
    STRANGER = 99999,
};

static const uint64_t plenty = UINT64_C(1) << 40;

/* Small, so that limits are met. */
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
    .pending_entries = 128,
    .pending_bytes = 1 << 18,
};

struct dir {
    bool used;
    bool removing; /* RMDIR was asked for: it may be gone */
    bool removed;
    bool unlinking; /* as the kernel has it: one at a time in a directory */
    uint64_t inode;
    char name[16];
};

/* An open file, and what its callers rely on. */
struct file {
    uint64_t number;
    uint64_t inode;
    uint64_t sent[4];    /* when it last asked for each enum node_flock, */
    uint64_t settled[4]; /* the write that ends the last one that was given up, */
    int open[4];         /* and how many of them are under way */
    int requests;        /* under way */
    int dir;
    int name;
    uint32_t pid;
    enum node_flock mode; /* relies on a claim by flock, 0: no */
    bool created;         /* relies on its claim by creating */
    bool used;
    bool asked;      /* it may hold something, whatever the answers were */
    bool endangered; /* somebody unlinked its name, */
    bool by_itself;  /* its own process perhaps: that is no loss */
    bool lost;       /* it said ESTALE */
};

struct asked {
    uint64_t sent;
    uint64_t token; /* the highest one told when it was sent */
    enum node_op op;
    int file; /* -1: none */
    int dir;
    int name;
    enum node_flock how;
    uint32_t pid;
    bool used;
    bool wait;
    bool fresh;   /* FLOCK: it held nothing, so its number is a new one */
    bool tainted; /* FLOCK: another one was under way, which may come after it */
    bool free;    /* nobody could hold what it asks for */
    char text[16];
};

enum seen {
    SEEN_CREATED,
    SEEN_EEXIST,
    SEEN_FLOCK,
    SEEN_AGAIN,
    SEEN_EWOULDBLOCK,
    SEEN_WAITED,
    SEEN_UNLOCKED,
    SEEN_EINTR,
    SEEN_ETIMEDOUT,
    SEEN_ENOSPC,
    SEEN_ENOLCK,
    SEEN_ESTALE,
    SEEN_LOST,
    SEEN_MKDIR,
    SEEN_RMDIR,
    SEEN_WRITTEN,
    SEEN_UNLINKED,
    SEEN_GIVEN_BACK,
    SEEN_RESTART,
    SEEN_DRAINED,
    SEEN_QUIET,
    SEEN_COUNT,
};

static const char *const seen_names[SEEN_COUNT] = {
    "created", "EEXIST",    "flock",    "again",      "EWOULDBLOCK", "waited",  "unlocked",
    "EINTR",   "ETIMEDOUT", "ENOSPC",   "ENOLCK",     "ESTALE",      "lost",    "mkdir",
    "rmdir",   "written",   "unlinked", "given back", "restart",     "drained", "quiet",
};

static struct dir dirs[DIRS];
static struct file files[FILES];
static struct asked slots[SLOTS];
static char given_up[GIVEN_UP][16]; /* names of locks whose MKDIR was given up */
static size_t given_up_count;
static uint64_t order;
static uint64_t token_told;
static uint64_t token_owner[TOKENS];
static uint32_t next_pid;
static uint32_t next_name;
static size_t entries_charged;
static bool draining;
static bool tight;
static uint64_t seen[SEEN_COUNT];
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

/* What was appended takes room, and only that does. */
static void charge(void)
{
    for (; entries_charged < run.bench->entries_count; entries_charged++) {
        uint64_t cost = run.bench->entries[entries_charged].len + LIMIT_RECORD_OVERHEAD_BYTES;
        run.bench->log_room -= cost < run.bench->log_room ? cost : run.bench->log_room;
    }
    if (run.bench->failed)
        fail("the node gave up: %s", run.bench->failed);
    if (node_snapshot_bytes(run.bench->node) > run.bench->snapshot_room)
        fail("a snapshot may take %" PRIu64 " bytes of %" PRIu64,
             node_snapshot_bytes(run.bench->node), run.bench->snapshot_room);
}

/* A snapshot is as large as it may be, or smaller. */
static void check_snapshot(void)
{
    struct node_cursor cursor = {0};
    char record[LIMIT_SNAPSHOT_RECORD_BYTES];
    uint64_t bytes = LIMIT_SNAPSHOT_ENDS_BYTES;
    for (size_t len; (len = node_save(run.bench->node, &cursor, record));)
        bytes += len + LIMIT_SNAPSHOT_FRAME_BYTES;
    if (bytes > node_snapshot_bytes(run.bench->node))
        fail("a snapshot takes %" PRIu64 " bytes, not %" PRIu64, bytes,
             node_snapshot_bytes(run.bench->node));
}

static void step(struct node_event event)
{
    random_node_step(&run, event);
}

static bool one_resource(const struct file *a, const struct file *b)
{
    return a->dir == b->dir && (a->dir != 0 || a->name == b->name);
}

static bool relies(const struct file *file)
{
    return file->used && (file->created || file->mode);
}

static uint64_t number_of(struct file *file)
{
    uint64_t token = 0;
    int error = bench_token(run.bench, file->inode, file->number, &token);
    if (error == 0)
        return token;
    if (error == -ESTALE && dirs[file->dir].removing && !relies(file))
        return 0; /* idle, in a lock that is gone */
    if (error == -ESTALE && !file->lost) {
        if (!file->endangered)
            fail("handle %" PRIx64 " lost a claim that nobody unlinked", file->number);
        file->lost = true;
        file->created = false;
        file->mode = 0;
        seen[SEEN_LOST]++;
    }
    if (error == -ENODATA && relies(file))
        fail("handle %" PRIx64 " was told that it holds (%s), and has no number", file->number,
             file->created ? "created" : "flock");
    return 0;
}

static void check_exclusion(void)
{
    for (int i = 0; i < FILES; i++)
        if (relies(&files[i]))
            number_of(&files[i]);
    for (int i = 0; i < FILES; i++) {
        for (int k = i + 1; k < FILES; k++) {
            const struct file *a = &files[i];
            const struct file *b = &files[k];
            if (!relies(a) || !relies(b) || !one_resource(a, b))
                continue;
            bool a_shares = !a->created && a->mode == NODE_FLOCK_SHARED;
            bool b_shares = !b->created && b->mode == NODE_FLOCK_SHARED;
            if (!a_shares || !b_shares)
                fail("handles %" PRIx64 " and %" PRIx64 " both hold", a->number, b->number);
        }
    }
}

/* A grant was told. `floor`: its number is above this one. */
static void told(struct file *file, uint64_t floor)
{
    uint64_t token = number_of(file);
    if (!token || token >= TOKENS)
        fail("no number after a grant");
    if (token <= floor)
        fail("number %" PRIu64 " granted after %" PRIu64, token, floor);
    if (token_owner[token] && token_owner[token] != file->number)
        fail("number %" PRIu64 " granted twice", token);
    token_owner[token] = file->number;
    if (token > token_told)
        token_told = token;
}

/* Answers */

static void answered_create(struct asked *asked, const struct node_reply *reply, int error)
{
    if (error) {
        if (error == -EEXIST)
            seen[SEEN_EEXIST]++;
        if (error == -EEXIST && asked->free)
            fail("EEXIST where nobody can hold %d/%d", asked->dir, asked->name);
        return;
    }
    int at = 0;
    while (files[at].used)
        at++;
    struct file *file = &files[at];
    bool exclusive = asked->how == NODE_FLOCK_EXCLUSIVE;
    *file = (struct file){
        .used = true,
        .number = reply->handle,
        .inode = reply->inode,
        .dir = asked->dir,
        .name = asked->name,
        .pid = asked->pid,
        .asked = exclusive,
        .created = exclusive,
    };
    if (exclusive) {
        seen[SEEN_CREATED]++;
        told(file, asked->token);
    }
}

static void answered_flock(struct asked *asked, int error)
{
    struct file *file = &files[asked->file];
    file->open[asked->how]--;
    /* Room is reserved for one unlock of a handle at a time. */
    bool only_one =
        !file->open[NODE_FLOCK_UNLOCK] && file->settled[NODE_FLOCK_UNLOCK] <= run.bench->durable;
    if (asked->how == NODE_FLOCK_UNLOCK && only_one && (error == -ENOSPC || error == -ENOLCK))
        fail("no room to unlock: %d", error);
    if (error == -EINTR || error == -ETIMEDOUT)
        file->settled[asked->how] = run.bench->write;
    if (error == -EWOULDBLOCK) {
        seen[SEEN_EWOULDBLOCK]++;
        if (asked->wait)
            fail("EWOULDBLOCK for who waits");
        if (asked->free)
            fail("EWOULDBLOCK where nobody can hold");
    }
    if (error)
        return;
    if (asked->how == NODE_FLOCK_UNLOCK) {
        seen[SEEN_UNLOCKED]++;
        return;
    }
    seen[asked->fresh ? SEEN_FLOCK : SEEN_AGAIN]++;
    bool stands = !asked->tainted;
    for (int how = NODE_FLOCK_SHARED; how <= NODE_FLOCK_UNLOCK; how++)
        if (how != (int)asked->how && file->sent[how] > asked->sent)
            stands = false;
    if (!stands || file->lost || file->endangered)
        return;
    file->mode = asked->how;
    told(file, asked->fresh ? asked->token : 0);
    if (one_in(16)) {
        /* The answer reached nobody. */
        struct node_request request = {.op = NODE_OP_FLOCK,
                                       .slot = NODE_NO_SLOT,
                                       .inode = file->inode,
                                       .handle = file->number,
                                       .flock = {NODE_FLOCK_UNLOCK, false}};
        file->mode = 0;
        file->sent[NODE_FLOCK_UNLOCK] = ++order;
        file->settled[NODE_FLOCK_UNLOCK] = run.bench->write + 1;
        seen[SEEN_GIVEN_BACK]++;
        step((struct node_event){.type = NODE_EVENT_REQUEST, .request = request});
    }
}

static void answered_mkdir(struct asked *asked, const struct node_reply *reply, int error)
{
    if ((error == -EINTR || error == -ETIMEDOUT) && given_up_count < GIVEN_UP)
        memcpy(given_up[given_up_count++], asked->text, sizeof asked->text);
    if (error)
        return;
    seen[SEEN_MKDIR]++;
    for (int i = 1; i < DIRS; i++) {
        if (dirs[i].used)
            continue;
        dirs[i] = (struct dir){.used = true, .inode = reply->inode};
        memcpy(dirs[i].name, asked->text, sizeof asked->text);
        return;
    }
}

static void answered(uint32_t slot)
{
    struct asked asked = slots[slot];
    const struct node_reply *reply = bench_reply(run.bench, slot);
    int error = reply->type == NODE_REPLY_ERROR ? reply->error : 0;
    slots[slot].used = false;
    if (asked.file >= 0)
        files[asked.file].requests--;
    seen[SEEN_EINTR] += error == -EINTR;
    seen[SEEN_ETIMEDOUT] += error == -ETIMEDOUT;
    seen[SEEN_ENOSPC] += error == -ENOSPC;
    seen[SEEN_ENOLCK] += error == -ENOLCK;
    seen[SEEN_ESTALE] += error == -ESTALE;
    switch (asked.op) {
    case NODE_OP_CREATE:
        answered_create(&asked, reply, error);
        break;
    case NODE_OP_FLOCK:
        answered_flock(&asked, error);
        break;
    case NODE_OP_MKDIR:
        answered_mkdir(&asked, reply, error);
        break;
    case NODE_OP_RMDIR:
        if (error && error != -ETIMEDOUT)
            dirs[asked.dir].removing = false;
        if (!error) {
            seen[SEEN_RMDIR]++;
            dirs[asked.dir].removed = true;
            for (int i = 0; i < FILES; i++)
                if (relies(&files[i]) && files[i].dir == asked.dir && number_of(&files[i]))
                    fail("rmdir of a lock that is held");
        }
        break;
    case NODE_OP_UNLINK:
        dirs[asked.dir].unlinking = false;
        if (error == -ENOSPC || error == -ENOLCK)
            fail("no room to unlink: %d", error);
        seen[SEEN_UNLINKED] += error == 0;
        break;
    case NODE_OP_WRITE:
        seen[SEEN_WRITTEN] += error == 0;
        break;
    default:
        break;
    }
}

static void collect(void)
{
    bool any = false;
    for (uint32_t slot = 1; slot < SLOTS; slot++) {
        if (slots[slot].used && run.bench->answered[slot]) {
            any = true;
            answered(slot);
        }
    }
    if (any)
        check_exclusion();
}

/* Requests */

static uint32_t free_slot(void)
{
    uint32_t slot = 1;
    while (slot < SLOTS && slots[slot].used)
        slot++;
    return slot < SLOTS ? slot : 0;
}

static void ask(uint32_t slot, const struct asked *asked, struct node_request request)
{
    slots[slot] = *asked;
    slots[slot].used = true;
    slots[slot].op = request.op;
    slots[slot].token = token_told;
    slots[slot].sent = ++order;
    if (asked->file >= 0)
        files[asked->file].requests++;
    bench_request(run.bench, request, slot, asked->pid);
    charge();
    collect();
}

/* Nobody but `self` can hold what this file would compete for. */
static bool nobody_can_hold(int dir, int name, int self)
{
    struct file wanted = {.dir = dir, .name = name};
    for (int i = 0; i < FILES; i++)
        if (i != self && files[i].used && files[i].asked && one_resource(&files[i], &wanted))
            return false;
    /* What was sent before and is still on its way. */
    for (uint32_t slot = 1; slot < SLOTS; slot++)
        if (slots[slot].used && slots[slot].op == NODE_OP_CREATE && slots[slot].dir == dir)
            return false;
    return true;
}

static const char *const names[NAMES] = {"one", "two"};

static int some_dir(void)
{
    int dir = (int)below(DIRS);
    return dirs[dir].used && !dirs[dir].removed ? dir : 0;
}

static void do_create(uint32_t slot)
{
    int count = 0;
    for (int i = 0; i < FILES; i++)
        count += files[i].used;
    for (uint32_t i = 1; i < SLOTS; i++)
        count += slots[i].used && slots[i].op == NODE_OP_CREATE;
    if (count == FILES)
        return;
    bool exclusive = one_in(2);
    struct asked asked = {
        .file = -1,
        .dir = some_dir(),
        .name = (int)below(NAMES),
        .how = exclusive ? NODE_FLOCK_EXCLUSIVE : 0,
        .pid = ++next_pid,
    };
    asked.free = nobody_can_hold(asked.dir, asked.name, -1);
    const char *name = names[asked.name];
    ask(slot, &asked,
        (struct node_request){.op = NODE_OP_CREATE,
                              .inode = dirs[asked.dir].inode,
                              .name = {name, strlen(name)},
                              .mode = 0600,
                              .open = {exclusive, true}});
}

static struct file *some_file(void)
{
    struct file *file = &files[below(FILES)];
    return file->used ? file : NULL;
}

static void do_flock(uint32_t slot)
{
    struct file *file = some_file();
    if (!file || file->requests == THREADS)
        return;
    struct asked asked = {
        .file = (int)(file - files),
        .dir = file->dir,
        .name = file->name,
        .how = (enum node_flock)(1 + below(3)),
        .wait = one_in(2),
        .pid = file->pid,
    };
    uint64_t token;
    asked.fresh = !file->requests && bench_token(run.bench, file->inode, file->number, &token) != 0;
    asked.wait = asked.wait && asked.how != NODE_FLOCK_UNLOCK;
    asked.free = asked.how != NODE_FLOCK_UNLOCK && !file->requests &&
                 nobody_can_hold(file->dir, file->name, asked.file);
    for (int how = NODE_FLOCK_SHARED; how <= NODE_FLOCK_UNLOCK; how++)
        if (how != (int)asked.how && (file->open[how] || file->settled[how] > run.bench->durable))
            asked.tainted = true;
    asked.fresh = asked.fresh && !asked.tainted && file->settled[asked.how] <= run.bench->durable;
    file->asked = true;
    file->sent[asked.how] = order + 1;
    file->open[asked.how]++;
    if (asked.how != file->mode)
        file->mode = 0;
    ask(slot, &asked,
        (struct node_request){.op = NODE_OP_FLOCK,
                              .inode = file->inode,
                              .handle = file->number,
                              .flock = {asked.how, asked.wait}});
    if (slots[slot].used && asked.wait)
        seen[SEEN_WAITED]++;
}

static void do_write(uint32_t slot)
{
    static const char data[4096];
    struct file *file = some_file();
    if (!file || file->requests == THREADS)
        return;
    struct asked asked = {.file = (int)(file - files), .dir = file->dir, .pid = file->pid};
    struct node_request request = {
        .op = NODE_OP_WRITE, .inode = file->inode, .handle = file->number};
    request.write.data = (struct span){data, one_in(4) ? below(sizeof data) + 1 : 1 + below(9)};
    request.write.offset = one_in(2) ? 0 : below(5000);
    request.write.append = one_in(4);
    ask(slot, &asked, request);
}

static void close_file(struct file *file)
{
    struct node_request request = {
        .op = NODE_OP_RELEASE, .inode = file->inode, .handle = file->number};
    request.slot = NODE_NO_SLOT;
    file->used = false;
    step((struct node_event){.type = NODE_EVENT_REQUEST, .request = request});
    step((struct node_event){.type = NODE_EVENT_FORGET, .forget = {file->inode, 1}});
}

static void do_close(void)
{
    struct file *file = some_file();
    if (file && !file->requests)
        close_file(file);
}

static void do_unlink(uint32_t slot)
{
    struct asked asked = {
        .file = -1, .dir = some_dir(), .name = (int)below(NAMES), .pid = STRANGER};
    if (dirs[asked.dir].unlinking)
        return;
    dirs[asked.dir].unlinking = true;
    for (int i = 0; i < FILES; i++) {
        struct file *file = &files[i];
        if (!file->used || file->dir != asked.dir || file->name != asked.name)
            continue;
        if (file->created)
            file->endangered = true;
        if (file->created && one_in(4)) {
            asked.pid = file->pid;
            file->by_itself = true;
        }
    }
    const char *name = names[asked.name];
    ask(slot, &asked,
        (struct node_request){
            .op = NODE_OP_UNLINK, .inode = dirs[asked.dir].inode, .name = {name, strlen(name)}});
}

static void do_mkdir(uint32_t slot)
{
    struct asked asked = {.file = -1, .pid = 1};
    int count = 1;
    for (int i = 1; i < DIRS; i++)
        count += dirs[i].used;
    for (uint32_t i = 1; i < SLOTS; i++)
        count += slots[i].used && slots[i].op == NODE_OP_MKDIR;
    if (count == DIRS)
        return;
    snprintf(asked.text, sizeof asked.text, "d%u", ++next_name);
    ask(slot, &asked,
        (struct node_request){.op = NODE_OP_MKDIR,
                              .inode = NODE_ROOT_INODE,
                              .name = {asked.text, strlen(asked.text)},
                              .mode = 0700});
}

static void do_rmdir(uint32_t slot)
{
    struct asked asked = {.file = -1, .dir = some_dir(), .pid = 1};
    if (!asked.dir || dirs[asked.dir].removing)
        return;
    dirs[asked.dir].removing = true;
    ask(slot, &asked,
        (struct node_request){.op = NODE_OP_RMDIR,
                              .inode = NODE_ROOT_INODE,
                              .name = {dirs[asked.dir].name, strlen(dirs[asked.dir].name)}});
}

/* Looks */

static bool has_line(const char *text, uint64_t token)
{
    while (*text && strtoull(text, NULL, 10) != token)
        text += strcspn(text, "\n") + 1;
    return *text != 0;
}

/* What `holders` and `token` say of those who hold, and of those who have lost. */
static void look_at_control(int dir)
{
    uint64_t inode = dirs[dir].inode;
    char text[4096];
    char own[64];
    int error = bench_control(run.bench, inode, "holders", STRANGER, 0, text, sizeof text);
    if (error)
        fail("holders: %d", error);
    for (int i = 0; i < FILES; i++) {
        struct file *file = &files[i];
        if (!file->used || file->dir != dir)
            continue;
        uint64_t token = number_of(file);
        if (!relies(file) && !file->lost)
            continue;
        error = bench_control(run.bench, inode, "token", file->pid, 0, own, sizeof own);
        if (file->lost && !file->by_itself && error != -ESTALE)
            fail("who lost a claim reads a number: %d %s", error, own);
        if (file->lost)
            continue;
        if (error || strtoull(own, NULL, 10) != token)
            fail("token: %d %s, expected %" PRIu64, error, own, token);
        /* A flock's number stays when it has ended, while the claim by creating goes on. */
        bool flocked = file->sent[NODE_FLOCK_SHARED] || file->sent[NODE_FLOCK_EXCLUSIVE];
        if (!(file->created && flocked) && !has_line(text, token))
            fail("%" PRIu64 " holds, and holders says: %s", token, text);
    }
}

static void look_up(int dir, int name)
{
    bool must = false;
    bool can = false;
    uint64_t inode;
    for (int i = 0; i < FILES; i++) {
        const struct file *file = &files[i];
        if (!file->used || file->dir != dir || file->name != name)
            continue;
        must = must || relies(file);
        can = can || file->asked;
    }
    int error = bench_lookup(run.bench, dirs[dir].inode, names[name], &inode);
    if (error != 0 && error != -ENOENT && error != -ENOLCK)
        fail("lookup: %d", error);
    if (error == -ENOENT && must)
        fail("a claim that is held is not there");
    if (error == 0 && !can)
        fail("a name is there that nobody can hold");
    if (!error)
        step((struct node_event){.type = NODE_EVENT_FORGET, .forget = {inode, 1}});
}

static void do_look(void)
{
    int dir = some_dir();
    if (dirs[dir].removing)
        return;
    look_at_control(dir);
    for (int name = 0; name < NAMES; name++)
        look_up(dir, name);
}

/* The disk, the clock, the operator */

static void persist(bool all)
{
    uint64_t most = random_node_unwritten(&run);
    if (most)
        random_node_persist(&run, all ? most : one_in(4) ? 1 + random_node_draw(&run) % most : 1);
}

static bool is_used(uint32_t slot)
{
    return slots[slot].used;
}

static void change_room(void)
{
    tight = !tight;
    run.bench->snapshot_room = tight && one_in(2) ? node_snapshot_bytes(run.bench->node) +
                                                        below(2 * LIMIT_SNAPSHOT_GROWTH_BYTES)
                                                  : plenty;
    run.bench->log_room =
        tight ? node_log_reserve(run.bench->node) + below(4 * LIMIT_COMMAND_BYTES) : plenty;
}

static void forget_all(void)
{
    memset(files, 0, sizeof files);
    memset(slots, 0, sizeof slots);
    draining = false;
}

static void find_dirs(void)
{
    given_up_count = 0;
    for (int i = 1; i < DIRS; i++) {
        struct dir *dir = &dirs[i];
        if (!dir->used)
            continue;
        int error = bench_lookup(run.bench, NODE_ROOT_INODE, dir->name, &dir->inode);
        if (dir->removed && error != -ENOENT)
            fail("a lock is back");
        if (!dir->removing && error)
            fail("a lock is gone that was told to be made: %d", error);
        dir->used = !error;
        dir->removing = dir->removed = dir->unlinking = false;
    }
    dirs[0].unlinking = false;
}

/* Power goes, or a daemon dies. */
static void restart(void)
{
    run.bench->log_room = run.bench->snapshot_room = plenty;
    tight = false;
    forget_all();
    uint64_t bytes = node_snapshot_bytes(run.bench->node);
    bench_restart(run.bench, &limits);
    if (node_snapshot_bytes(run.bench->node) > bytes)
        fail("what a restart has ended takes more of a snapshot than it did");
    run.bench->auto_persist = false;
    entries_charged = run.bench->entries_count;
    seen[SEEN_RESTART]++;
    find_dirs();
}

/* Everybody lets go. */
static void close_all(void)
{
    for (int turn = 0; turn < FILES + 2; turn++) {
        persist(true);
        for (int i = 0; i < FILES; i++)
            if (files[i].used && !files[i].requests)
                close_file(&files[i]);
        /* Who holds and waits behind others, through one descriptor, is interrupted. */
        for (uint32_t slot = 1; slot < SLOTS; slot++)
            if (slots[slot].used && slots[slot].file >= 0 && number_of(&files[slots[slot].file]))
                step((struct node_event){.type = NODE_EVENT_INTERRUPT, .interrupt = {slot}});
        collect();
    }
    for (int i = 0; i < FILES; i++)
        if (files[i].used)
            fail("handle %" PRIx64 " waits for nobody", files[i].number);
    for (uint32_t slot = 1; slot < SLOTS; slot++)
        if (slots[slot].used)
            fail("a request (%d) has no answer", slots[slot].op);
    persist(true);
}

static void check_quiet(void)
{
    for (int i = 1; i < DIRS; i++)
        if (dirs[i].used)
            step((struct node_event){.type = NODE_EVENT_FORGET, .forget = {dirs[i].inode, 1}});
    random_node_check_quiet(&run, 1);
    if (run.bench->node->tree.chunks.used)
        fail("%u chunks of names are left", run.bench->node->tree.chunks.used);
    for (size_t i = 0; i < given_up_count; i++)
        if (bench_lookup(run.bench, NODE_ROOT_INODE, given_up[i], NULL) != -ENOENT)
            fail("%s was given up, and is there", given_up[i]);
    find_dirs();
    /* Nothing that was given up holds anything. */
    for (int dir = 0; dir < DIRS; dir++) {
        uint64_t inode;
        uint64_t handle;
        if (!dirs[dir].used || draining)
            continue;
        int error =
            bench_create(run.bench, dirs[dir].inode, "ghost", true, STRANGER, &inode, &handle);
        if (error != -EINPROGRESS)
            fail("create: %d", error);
        bench_persist(run.bench);
        const struct node_reply *reply = bench_reply(run.bench, PROBE_SLOT);
        if (!reply || reply->type != NODE_REPLY_CREATED)
            fail("a free lock is not to be had: %d", reply ? reply->error : 0);
        struct file file = {.inode = reply->inode, .number = reply->handle};
        told(&file, token_told);
        close_file(&file);
        bench_persist(run.bench);
    }
}

static void go_quiet(void)
{
    run.bench->log_room = run.bench->snapshot_room = plenty;
    tight = false;
    bool drain = one_in(4);
    if (drain) {
        draining = true;
        step((struct node_event){.type = NODE_EVENT_DRAIN});
        collect();
    }
    close_all();
    if (drain && !run.bench->drained)
        fail("drain does not end");
    check_quiet();
    seen[SEEN_QUIET]++;
    if (drain) {
        seen[SEEN_DRAINED]++;
        restart();
    }
}

/* How eager the disk is, so that stalls come and go. */
static uint32_t eagerness;

static void random_step(void)
{
    uint32_t slot = free_slot();
    uint32_t dice = below(100);
    if (one_in(200))
        eagerness = below(4);
    if (below(4) < eagerness) {
        run.what = "persist";
        persist(false);
    }
    if (dice < 16 && slot) {
        run.what = "create";
        do_create(slot);
    } else if (dice < 44 && slot) {
        run.what = "flock";
        do_flock(slot);
    } else if (dice < 58) {
        run.what = "close";
        do_close();
    } else if (dice < 62 && slot) {
        run.what = "write";
        do_write(slot);
    } else if (dice < 66 && slot) {
        run.what = "unlink";
        do_unlink(slot);
    } else if (dice < 68 && slot) {
        run.what = "mkdir";
        do_mkdir(slot);
    } else if (dice < 69 && slot) {
        run.what = "rmdir";
        do_rmdir(slot);
    } else if (dice < 78) {
        run.what = "interrupt";
        random_node_interrupt(&run, is_used);
    } else if (dice < 84) {
        run.what = "time";
        random_node_let_time_pass(&run, one_in(3) ? 2500 : below(100));
    } else if (dice < 90) {
        run.what = "look";
        do_look();
    } else if (dice < 98) {
        run.what = "persist";
        persist(one_in(8));
    } else if (one_in(4)) {
        run.what = "room";
        check_snapshot();
        change_room();
    } else if (one_in(40)) {
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
    run.bench->auto_persist = false;
    run.bench->log_room = run.bench->snapshot_room = plenty;
    entries_charged = run.bench->entries_count;
    tight = false;
    forget_all();
    memset(dirs, 0, sizeof dirs);
    memset(token_owner, 0, sizeof token_owner);
    dirs[0] = (struct dir){.used = true, .inode = NODE_ROOT_INODE};
    token_told = 0;
    given_up_count = 0;
    eagerness = 3;
    for (int i = 0; i < ROUND_STEPS && run.step_number < run.steps_max; i++, run.step_number++)
        random_step();
    run.what = "quiet";
    go_quiet();
    bench_close(run.bench);
}

int main(void)
{
    run.stepped = charge;
    run.collect = collect;
    random_node_begin(&run, 600000);
    while (run.step_number < run.steps_max)
        run_round();
    tap_ok(true, "%" PRIu64 " random steps", run.step_number);
    for (int i = 0; i < SEEN_COUNT; i++)
        tap_ok(seen[i] > 0, "seen %s: %" PRIu64, seen_names[i], seen[i]);
    return tap_done();
}
