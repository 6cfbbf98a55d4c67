/*
 * Callers that sit on a node: at the leader's, since others serve nobody. Each works on one
 * descriptor with one request at a time, and knows only what it was told. To rely on a claim is to
 * have been told of it, and to have asked for nothing since that ends it.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "node_kind.h"

enum {
    NAMES = 3, /* in a lock, at a time */
    PIDS = 5,
};

struct name {
    char text[32];
    struct span span;
};

static void set_name(struct name *name, char letter, uint64_t number)
{
    int len = snprintf(name->text, sizeof(name->text), "%c%" PRIu64, letter, number);

    name->span = (struct span){name->text, (size_t)len};
}

static uint64_t draw(struct server *server, uint64_t count)
{
    return rng_below(&server->sim->rng, count);
}

static struct process process_of(const struct server *server, uint32_t pid)
{
    return (struct process){.pid = pid, .start = server->boot * 1000 + pid, .comm = "caller"};
}

static int error_of(const struct node_reply *reply)
{
    return reply->type == NODE_REPLY_ERROR ? reply->error : 0;
}

static void forget_inode(struct server *server, uint64_t inode)
{
    struct node_event event = {.type = NODE_EVENT_FORGET, .forget = {inode, 1}};

    node_kind_step(server, &event);
}

static struct node_reply ask(struct server *server, enum node_op op, uint64_t inode,
                             uint64_t handle, struct span name)
{
    struct node_request request = {.op = op,
                                   .process = process_of(server, 1),
                                   .inode = inode,
                                   .handle = handle,
                                   .name = name,
                                   .mode = 0644};

    return node_kind_ask(server, &request);
}

static const struct span no_name = {"", 0};

/* A request that may be answered later. 0: there is no slot for it. */
static uint32_t send(struct server *server, const struct desk_ask *ask,
                     const struct node_request *from)
{
    struct sim *sim = server->sim;
    struct desk *desk = desk_of(server);
    struct world *world = world_of(sim);
    struct node_event event = {.type = NODE_EVENT_REQUEST, .request = *from};
    uint32_t slot = 1;

    while (slot < DESK_SLOTS && desk->asks[slot].used)
        slot++;
    if (slot == DESK_SLOTS)
        return 0;
    desk->asks[slot] = *ask;
    desk->asks[slot].used = true;
    desk->asks[slot].op = from->op;
    desk->asks[slot].order = ++world->asked;
    desk->asks[slot].token = world->token;
    desk->asks[slot].recovering = sim->recovering;
    if (ask->file >= 0)
        desk->files[ask->file].slot = slot;
    event.request.slot = slot;
    event.request.mode = 0755;
    sim->stats->requests++;
    trace_say(sim, server, "a caller asks: operation %llu, slot %llu, file %llu", from->op, slot,
              (uint64_t)ask->file);
    node_kind_step(server, &event);
    return slot;
}

/* The inode of a lock that callers use; 0: none, or this node has no answer. */
static uint64_t dir_inode(struct server *server, unsigned at)
{
    struct desk *desk = desk_of(server);
    const struct world_dir *dir = &world_of(server->sim)->dirs[at];
    struct name name = {.text = ""};
    struct node_reply reply;

    if (at == 0)
        return NODE_ROOT_INODE;
    if (!dir->usable)
        return 0;
    if (desk->numbers[at] == dir->number && desk->dirs[at] != 0)
        return desk->dirs[at];
    set_name(&name, 'd', dir->number);
    reply = ask(server, NODE_OP_LOOKUP, NODE_ROOT_INODE, 0, name.span);
    /* One that leads no more, and does not know it yet, may not know all. */
    if (reply.type != NODE_REPLY_ENTRY &&
        raft_get_term(server->sim->kind->get_raft(server)) < server->sim->oracles.last_term_led)
        return 0;
    if (reply.type != NODE_REPLY_ENTRY)
        sim_fail(server->sim, SIM_SAFETY,
                 "lock %s was made and is not there any more on server %" PRIu64 ": error %d",
                 name.text, server->id, error_of(&reply));
    desk->numbers[at] = dir->number;
    return desk->dirs[at] = reply.inode;
}

/* Claims */

static int free_file(const struct desk *desk)
{
    for (int i = 0; i < DESK_FILES; i++)
        if (!desk->files[i].used)
            return i;
    return -1;
}

/* Closes a descriptor without a request under way. */
static void close_file(struct server *server, struct desk_file *file)
{
    struct node_request flush = {.op = NODE_OP_FLUSH,
                                 .process = process_of(server, file->pid),
                                 .inode = file->inode,
                                 .handle = file->handle,
                                 .fcntl = {.owner = file->owner}};
    const struct desk_file closed = *file;

    assert(file->used && file->slot == 0);
    memset(file, 0, sizeof(*file));
    if (closed.kind == CLAIM_FCNTL)
        node_kind_ask(server, &flush);
    ask(server, NODE_OP_RELEASE, closed.inode, closed.handle, no_name);
    forget_inode(server, closed.inode);
    server->sim->stats->closes++;
}

static void ask_to_lock(struct server *server, int at, enum node_flock how, bool wait)
{
    struct desk_file *file = &desk_of(server)->files[at];
    struct desk_ask asked = {.file = at,
                             .place = file->place,
                             .how = how,
                             .acquires = how != NODE_FLOCK_UNLOCK,
                             .waits = wait && how != NODE_FLOCK_UNLOCK};
    struct node_request request = {
        .process = process_of(server, file->pid), .inode = file->inode, .handle = file->handle};

    file->mode = 0; /* a conversion may lose it */
    asked.contended = oracle_is_held(server->sim, &file->place);
    if (file->kind == CLAIM_FLOCK) {
        request.op = NODE_OP_FLOCK;
        request.flock.how = how;
        request.flock.wait = wait;
    } else {
        request.op = NODE_OP_SETLK;
        request.fcntl.how = how;
        request.fcntl.wait = wait;
        request.fcntl.whole_file = true;
        request.fcntl.owner = file->owner;
    }
    send(server, &asked, &request);
}

static void claim(struct server *server)
{
    struct sim *sim = server->sim;
    struct desk *desk = desk_of(server);
    const struct world *world = world_of(sim);
    const unsigned dir = (unsigned)draw(server, WORLD_DIRS);
    const uint64_t parent = dir_inode(server, dir);
    const enum claim_kind kind = (enum claim_kind)rng_between(&sim->rng, CLAIM_CREATE, CLAIM_FCNTL);
    const uint32_t pid = 1 + (uint32_t)draw(server, PIDS);
    const int at = free_file(desk);
    struct node_request request = {.op = NODE_OP_CREATE,
                                   .process = process_of(server, pid),
                                   .inode = parent,
                                   .mode = 0644,
                                   .open = {.exclusive = kind == CLAIM_CREATE, .write = true}};
    struct desk_ask asked = {.file = at, .how = NODE_FLOCK_EXCLUSIVE, .acquires = true};
    struct desk_file *file;
    struct node_reply reply;
    struct name name = {.text = ""};

    if (parent == 0 || at < 0)
        return;
    file = &desk->files[at];
    asked.place.dir = world->dirs[dir].number;
    asked.place.name = world->names_from + draw(server, NAMES);
    set_name(&name, 'f', asked.place.name);
    request.name = name.span;
    *file = (struct desk_file){.used = true, .place = asked.place, .kind = kind, .pid = pid};
    if (kind == CLAIM_CREATE) {
        if (send(server, &asked, &request) == 0)
            file->used = false;
        return;
    }
    reply = node_kind_ask(server, &request);
    if (reply.type != NODE_REPLY_CREATED) {
        file->used = false;
        return;
    }
    file->handle = reply.handle;
    file->inode = reply.inode;
    file->owner = kind == CLAIM_FCNTL ? ++desk->owners : 0;
    ask_to_lock(server, at, draw(server, 3) == 0 ? NODE_FLOCK_SHARED : NODE_FLOCK_EXCLUSIVE,
                draw(server, 3) != 0);
}

static void interrupt(struct server *server, uint32_t slot)
{
    struct node_event event = {.type = NODE_EVENT_INTERRUPT, .interrupt = {slot}};

    server->sim->stats->interrupts++;
    node_kind_step(server, &event);
}

static void write_content(struct server *server, int at)
{
    static const char text[] = "what the holder of this claim has to say";
    struct desk_file *file = &desk_of(server)->files[at];
    struct desk_ask asked = {.file = at, .place = file->place};
    struct node_request request = {
        .op = NODE_OP_WRITE,
        .process = process_of(server, file->pid),
        .inode = file->inode,
        .handle = file->handle,
        .write = {.append = draw(server, 2) == 0, .data = {text, 1 + draw(server, sizeof(text))}}};

    send(server, &asked, &request);
}

static void force_own(struct server *server, int at)
{
    struct desk_file *file = &desk_of(server)->files[at];
    struct desk_ask asked = {.file = at, .place = file->place};
    struct node_request request = {.op = NODE_OP_IOC_FORCE,
                                   .process = process_of(server, file->pid),
                                   .inode = file->inode,
                                   .handle = file->handle,
                                   .force = {file->token}};

    file->mode = 0;
    file->ended = true;
    send(server, &asked, &request);
}

static void unlink_own(struct server *server, int at)
{
    struct desk *desk = desk_of(server);
    const struct world *world = world_of(server->sim);
    struct desk_file *file = &desk->files[at];
    struct desk_ask asked = {.file = at, .place = file->place};
    struct node_request request = {.op = NODE_OP_UNLINK, .process = process_of(server, file->pid)};
    struct name name = {.text = ""};

    for (unsigned dir = 0; dir < WORLD_DIRS; dir++)
        if (world->dirs[dir].number == file->place.dir && (dir == 0 || world->dirs[dir].usable))
            request.inode = dir_inode(server, dir);
    if (desk->unlinking || request.inode == 0)
        return;
    set_name(&name, 'f', file->place.name);
    request.name = name.span;
    file->mode = 0;
    file->ended = true;
    desk->unlinking = send(server, &asked, &request) != 0;
}

static void use_file(struct server *server, int at)
{
    struct desk_file *file = &desk_of(server)->files[at];
    const uint64_t what = draw(server, 12);

    if (file->slot != 0) {
        if (desk_of(server)->asks[file->slot].acquires && what < 2)
            interrupt(server, file->slot);
        return;
    }
    if (file->mode == 0 || what < 4)
        close_file(server, file);
    else if (what < 6)
        write_content(server, at);
    else if (what == 6)
        force_own(server, at);
    else if (file->kind == CLAIM_CREATE && what == 7)
        unlink_own(server, at);
    else if (file->kind != CLAIM_CREATE && what < 10)
        ask_to_lock(server, at, NODE_FLOCK_UNLOCK, false);
    else if (file->kind == CLAIM_FLOCK && what == 10)
        ask_to_lock(server, at,
                    file->mode == NODE_FLOCK_SHARED ? NODE_FLOCK_EXCLUSIVE : NODE_FLOCK_SHARED,
                    draw(server, 2) == 0);
}

/* A process ends: what it waits for is given up, and all that it has open is closed. */
static void die(struct server *server, uint32_t pid)
{
    struct desk *desk = desk_of(server);

    server->sim->stats->deaths++;
    for (int i = 0; i < DESK_FILES; i++) {
        struct desk_file *file = &desk->files[i];
        if (!file->used || file->pid != pid)
            continue;
        if (file->slot != 0) {
            struct desk_ask *asked = &desk->asks[file->slot];
            if (!asked->acquires)
                continue; /* is answered soon */
            interrupt(server, file->slot);
            if (asked->op == NODE_OP_CREATE)
                continue; /* there is nothing to close */
            asked->file = -1;
            file->slot = 0;
        }
        close_file(server, file);
    }
}

/* Locks */

static void make_dir(struct server *server)
{
    struct world *world = world_of(server->sim);
    const unsigned at = 1 + (unsigned)draw(server, WORLD_DIRS - 1);
    struct desk_ask asked = {.file = -1, .dir = at};
    struct node_request request = {
        .op = NODE_OP_MKDIR, .process = process_of(server, 1), .inode = NODE_ROOT_INODE};
    struct name name = {.text = ""};

    /* The one before it, if any, is left alone from now on. */
    world->dirs[at] = (struct world_dir){.number = ++world->dirs_made};
    world->limits = sim_grow(world->limits, &world->limits_capacity, world->dirs_made + 1,
                             sizeof(*world->limits));
    world->limits[world->dirs_made] = 1;
    asked.place.dir = world->dirs[at].number;
    set_name(&name, 'd', asked.place.dir);
    request.name = name.span;
    send(server, &asked, &request);
}

static void remove_dir(struct server *server)
{
    struct world *world = world_of(server->sim);
    const unsigned at = 1 + (unsigned)draw(server, WORLD_DIRS - 1);
    struct desk_ask asked = {.file = -1, .dir = at, .place = {.dir = world->dirs[at].number}};
    struct node_request request = {
        .op = NODE_OP_RMDIR, .process = process_of(server, 1), .inode = NODE_ROOT_INODE};
    struct name name = {.text = ""};

    if (!world->dirs[at].usable)
        return;
    set_name(&name, 'd', world->dirs[at].number);
    request.name = name.span;
    world->dirs[at].usable = false; /* whatever comes of it */
    send(server, &asked, &request);
}

static void set_limit(struct server *server, unsigned at, uint32_t limit)
{
    struct world *world = world_of(server->sim);
    const uint64_t inode = desk_of(server)->dirs[at];
    struct desk_ask asked = {
        .file = -1, .dir = at, .place = {.dir = world->dirs[at].number}, .limit = limit};
    struct node_request request = {.op = NODE_OP_WRITE, .process = process_of(server, 1)};
    struct node_request open = {
        .op = NODE_OP_OPEN, .process = process_of(server, 1), .open = {.write = true}};
    struct node_reply reply;
    char text[16];

    reply = ask(server, NODE_OP_LOOKUP, inode, 0, (struct span){".limit", 6});
    if (reply.type != NODE_REPLY_ENTRY)
        return;
    asked.inode = open.inode = reply.inode;
    reply = node_kind_ask(server, &open);
    if (reply.type != NODE_REPLY_OPENED) {
        forget_inode(server, asked.inode);
        return;
    }
    asked.handle = request.handle = reply.handle;
    request.inode = asked.inode;
    snprintf(text, sizeof(text), limit == 0 ? "unlimited\n" : "%" PRIu32 "\n", limit);
    request.write.data = (struct span){text, strlen(text)};
    if (limit > world->limits[asked.place.dir])
        world->limits[asked.place.dir] = limit;
    world->dirs[at].setting = true;
    if (send(server, &asked, &request) == 0) {
        ask(server, NODE_OP_RELEASE, asked.inode, asked.handle, no_name);
        forget_inode(server, asked.inode);
    }
}

static void change_limit(struct server *server)
{
    const unsigned at = 1 + (unsigned)draw(server, WORLD_DIRS - 1);
    const struct world *world = world_of(server->sim);
    const struct world_dir *dir = &world->dirs[at];

    if (dir->usable && !dir->setting && world->limits[dir->number] != 0 &&
        dir_inode(server, at) != 0)
        set_limit(server, at, 1 + (uint32_t)draw(server, 3));
}

/* What they do */

void desk_ready(struct server *server)
{
    struct sim *sim = server->sim;
    struct world *world = world_of(sim);

    trace_say(sim, server, "serves callers", 0, 0, 0);
    sim->stats->desks_opened++;
    desk_of(server)->ready = true;
    oracle_claims(server);
    /* What others left behind blocks the names that they used, and locks; for some time. */
    world->names_from += NAMES;
    for (unsigned at = 1; at < WORLD_DIRS; at++)
        if (rng_below(&sim->rng, 2) == 0)
            world->dirs[at].usable = false;
}

void desk_act(struct server *server)
{
    struct desk *desk = desk_of(server);
    const uint64_t what = draw(server, 100);
    const int at = (int)draw(server, DESK_FILES);

    if (!desk->ready) {
        struct node_request request = {
            .op = NODE_OP_GETATTR, .process = process_of(server, 1), .inode = NODE_ROOT_INODE};
        struct node_reply reply = node_kind_ask(server, &request);
        if (error_of(&reply) != -EAGAIN)
            sim_fail(server->sim, SIM_SAFETY, "server %" PRIu64 " answers although it is not ready",
                     server->id);
        server->sim->stats->requests_not_ready++;
        return;
    }
    if (what < 45)
        claim(server);
    else if (what < 90 && desk->files[at].used)
        use_file(server, at);
    else if (what >= 97)
        die(server, 1 + (uint32_t)draw(server, PIDS));
    else if (what >= 95)
        change_limit(server);
    else if (what == 94)
        remove_dir(server);
    else if (what >= 90)
        make_dir(server);
}

/* Answers */

static void told_of_claim(struct server *server, const struct desk_ask *asked,
                          const struct node_reply *reply)
{
    struct desk_file *file = &desk_of(server)->files[asked->file];
    struct node_reply number;

    file->slot = 0;
    if (asked->op == NODE_OP_CREATE) {
        file->handle = reply->handle;
        file->inode = reply->inode;
    }
    number = ask(server, NODE_OP_IOC_TOKEN, file->inode, file->handle, no_name);
    if (number.type != NODE_REPLY_NUMBER)
        sim_fail(server->sim, SIM_SAFETY,
                 "a caller of server %" PRIu64 " is told of a claim that has no number: error %d",
                 server->id, error_of(&number));
    file->mode = asked->how;
    file->token = number.number;
    oracle_told(server, file, asked, number.number);
}

static void refused(struct server *server, const struct desk_ask *asked, int error)
{
    struct sim_stats *stats = server->sim->stats;
    struct desk_file *file = asked->file < 0 ? NULL : &desk_of(server)->files[asked->file];

    stats->requests_refused++;
    if (file == NULL)
        return;
    file->slot = 0;
    if (error == -ETIMEDOUT)
        stats->requests_timed_out++;
    if (error == -ETIMEDOUT || error == -EINTR)
        file->given_up = true;
    /* Nobody could have told how it is with a claim that was given back late. */
    if (!asked->acquires && (error == -ETIMEDOUT || error == -EINTR) && asked->op != NODE_OP_WRITE)
        file->ended = true;
    if (error == -ESTALE && !file->ended && asked->op == NODE_OP_WRITE)
        sim_fail(server->sim, SIM_SAFETY,
                 "a caller of server %" PRIu64 " finds its claim %" PRIu64 " lost", server->id,
                 file->token);
    if (asked->op == NODE_OP_CREATE)
        memset(file, 0, sizeof(*file));
}

static void dir_told(struct server *server, const struct desk_ask *asked,
                     const struct node_reply *reply)
{
    struct desk *desk = desk_of(server);
    struct world_dir *dir = &world_of(server->sim)->dirs[asked->dir];
    const bool current = dir->number == asked->place.dir;

    switch (asked->op) {
    case NODE_OP_MKDIR:
        if (!current)
            break;
        desk->dirs[asked->dir] = reply->inode;
        desk->numbers[asked->dir] = dir->number;
        if (draw(server, 3) == 0)
            set_limit(server, asked->dir, 0); /* before anybody uses it */
        else
            dir->usable = true;
        break;
    case NODE_OP_RMDIR:
        server->sim->stats->dirs_removed++;
        oracle_removed(server, asked->place.dir);
        break;
    case NODE_OP_WRITE:
        if (!current)
            break;
        world_of(server->sim)->limits[dir->number] = asked->limit;
        dir->setting = false;
        if (asked->limit == 0)
            dir->usable = true;
        break;
    default:
        break;
    }
}

void desk_reply(struct server *server, const struct node_reply *reply)
{
    struct sim *sim = server->sim;
    struct desk *desk = desk_of(server);
    const struct desk_ask asked = desk->asks[reply->slot];
    const int error = error_of(reply);

    trace_say(sim, server, "  . answers slot %llu: type %llu, error %llu", reply->slot, reply->type,
              (uint64_t)-error);
    if (!asked.used)
        sim_fail(sim, SIM_SAFETY, "server %" PRIu64 " answers slot %" PRIu32 ", where nobody asks",
                 server->id, reply->slot);
    desk->asks[reply->slot].used = false;
    if (asked.op == NODE_OP_UNLINK)
        desk->unlinking = false;
    if (asked.handle != 0) {
        ask(server, NODE_OP_RELEASE, asked.inode, asked.handle, no_name);
        forget_inode(server, asked.inode);
    }
    if (error != 0) {
        refused(server, &asked, error);
        return;
    }
    sim->stats->requests_done++;
    sim->oracles.done_count++;
    if (asked.file < 0)
        dir_told(server, &asked, reply);
    else if (asked.acquires)
        told_of_claim(server, &asked, reply);
    else
        desk->files[asked.file].slot = 0;
}

void desk_lost(struct server *server, uint64_t handle)
{
    struct desk *desk = desk_of(server);

    for (int i = 0; i < DESK_FILES; i++) {
        struct desk_file *file = &desk->files[i];
        if (!file->used || file->handle != handle)
            continue;
        if (!file->ended)
            sim_fail(server->sim, SIM_SAFETY,
                     "a caller of server %" PRIu64 " loses claim %" PRIu64
                     ", which nobody took away",
                     server->id, file->token);
        file->mode = 0;
    }
}
