/* What callers ask of open files: to open, read, write, lock, and tell. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "node_internal.h"

/* The inode of a file in a lock, made where the kernel does not know it yet. 0: no room. */
static uint32_t make_file(struct node *node, uint64_t lock, struct span name)
{
    uint32_t parent = tree_make_lock(&node->tree, lock);
    return parent ? tree_make_file(&node->tree, parent, name) : 0;
}

static void create_plain(struct node *node, const struct node_request *request,
                         struct handle *handle)
{
    uint64_t number = tree_number(handle->inode, CONTROL_NONE);
    struct node_reply reply = {.slot = request->slot,
                               .type = NODE_REPLY_CREATED,
                               .inode = number,
                               .handle = handle->number};
    int error = node__attr(node, number, &reply.attr);
    assert(!error); /* the lock is there: it was looked at in this step */
    tree_at(&node->tree, handle->inode)->lookups++;
    node__reply(node, &reply);
}

/* Whether the lock and the name let anybody claim: 0 or a negative errno. */
static int check_create(const struct node *node, const struct node_request *request,
                        const struct inode *parent, struct lock_view *ret_lock)
{
    if (!parent || parent->parent || !lock_table_get_lock(node->table, parent->lock, ret_lock))
        return -ESTALE;
    int error = names_check(node__place(request->inode), ret_lock->limit != 0, request->name);
    if (error)
        return error;
    if (lock_table_find(node->table, ret_lock->id, request->name))
        return -EEXIST;
    if (!request->open.exclusive)
        return 0;
    if (node->draining)
        return -ENOLCK;
    /* A process that cannot be watched: it is outside of our pid namespace. */
    if (ret_lock->release == RELEASE_EXIT && !request->process.pid)
        return -EOPNOTSUPP;
    return node__is_taken(node, ret_lock->id, request->name, CLAIM_EXCLUSIVE) ? -EEXIST : 0;
}

void node__create(struct node *node, const struct node_request *request)
{
    const struct inode *parent = tree_inode(&node->tree, request->inode);
    struct lock_view lock;
    int error = check_create(node, request, parent, &lock);
    uint32_t inode = error ? 0 : make_file(node, lock.id, request->name);
    struct handle *handle =
        inode ? node__handle_open(node, HANDLE_FILE, inode, &request->process) : NULL;
    if (!handle) {
        if (inode)
            tree_drop_unused(&node->tree, inode);
        node__reply_error(node, request->slot, error ? error : -ENOLCK);
        return;
    }
    handle->may_claim = true;
    if (!request->open.exclusive) {
        create_plain(node, request, handle);
        return;
    }

    struct command command = {
        .type = COMMAND_ACQUIRE,
        .lock = lock.id,
        .name = request->name,
        .handle = handle->number,
        .kind = CLAIM_CREATE,
        .claim_mode = CLAIM_EXCLUSIVE,
        .ttl_ms = node->config.ttl_ms,
        .process = request->process,
        .mode = request->mode,
        .uid = request->uid,
        .gid = request->gid,
    };
    if (node__submit(node, request, &command, handle->number, false)) {
        handle->commands++;
    } else {
        node__handle_abandon(node, handle);
        node__handle_drop_unused(node, handle);
    }
}

void node__create_applied(struct node *node, uint32_t slot, int error)
{
    struct request request = *node__request_at(node, slot);
    node__finish(node, slot);
    struct handle *handle = node__handle(node, request.handle);
    struct node_reply reply = {.slot = slot,
                               .type = NODE_REPLY_CREATED,
                               .inode = tree_number(handle->inode, CONTROL_NONE),
                               .handle = request.handle,
                               .no_flush = handle->release == RELEASE_CLOSE,
                               .attr_valid_ms = NODE_CREATE_ATTR_VALID_MS};
    if (!error) {
        error = node__attr(node, reply.inode, &reply.attr);
        assert(!error); /* its lock has a claim */
    } else {
        /* Dropped by the caller, when this command is counted as applied. */
        node__handle_abandon(node, handle);
        node__reply_error(node, slot, error);
        return;
    }
    tree_at(&node->tree, handle->inode)->lookups++;
    node__reply(node, &reply);
}

bool node__may(const struct lock_view *lock, const struct node_request *request,
               enum node_right right)
{
    if (request->uid == 0)
        return true;
    if (request->uid == lock->uid)
        return lock->mode & right << 6;
    bool member = request->gid == lock->gid;
    for (size_t i = 0; i < request->groups_count && !member; i++)
        member = request->groups[i] == lock->gid;
    return lock->mode & right << (member ? 3 : 0);
}

/* The kernel asks for the right to claim when a file is made; who has opened a file of somebody
 * else's claim must be asked here. */
static bool may_claim(const struct lock_view *lock, const struct node_request *request)
{
    return node__may(lock, request, NODE_RIGHT_TO_CLAIM);
}

bool node_wants_groups(const struct node *node, const struct node_request *request)
{
    const struct inode *inode = tree_inode(&node->tree, request->inode);
    struct lock_view lock;
    if (!inode || !inode->parent || !lock_table_get_lock(node->table, inode->lock, &lock))
        return false;
    bool looks = request->op == NODE_OP_GETXATTR || request->op == NODE_OP_LISTXATTR;
    uint32_t right = looks ? NODE_RIGHT_TO_LOOK : NODE_RIGHT_TO_CLAIM;
    bool same = !(lock.mode & right << 3) == !(lock.mode & right);
    return request->uid != 0 && request->uid != lock.uid && request->gid != lock.gid && !same;
}

void node__open(struct node *node, const struct node_request *request)
{
    const struct inode *inode = tree_inode(&node->tree, request->inode);
    enum control control = tree_control(request->inode);
    bool directory = request->op == NODE_OP_OPENDIR;
    struct lock_view lock;
    if (!inode || !lock_table_get_lock(node->table, inode->lock, &lock)) {
        node__reply_error(node, request->slot, -ESTALE);
        return;
    }
    if (directory && request->open.exclusive) {
        struct node_action notice = {
            .type = NODE_ACTION_NOTICE,
            .notice = {.type = NODE_NOTICE_DIRECTORY_LOCK, .process = request->process}};
        notice.notice.path = node__path(node, inode->lock, (struct span){NULL, 0});
        node__emit(node, &notice);
        node__reply_error(node, request->slot, -EOPNOTSUPP);
        return;
    }
    enum handle_type type = directory ? HANDLE_DIRECTORY : control ? HANDLE_CONTROL : HANDLE_FILE;
    struct handle *handle =
        node__handle_open(node, type, tree_slot(request->inode), &request->process);
    if (!handle) {
        node__reply_error(node, request->slot, -ENOLCK);
        return;
    }
    handle->control = control;
    handle->may_claim = type == HANDLE_FILE && may_claim(&lock, request);
    node__reply(node, &(struct node_reply){.slot = request->slot,
                                           .type = NODE_REPLY_OPENED,
                                           .no_seek = control == CONTROL_LOCKS,
                                           .handle = handle->number});
}

/* The open file of a request. Answers ESTALE and returns NULL where it can do nothing any more. */
static struct handle *live_handle(struct node *node, const struct node_request *request)
{
    struct handle *handle = node__handle(node, request->handle);
    struct lock_view lock;
    bool stale = !handle || handle->closed || handle->lost || handle->unlinked;
    if (!stale && handle->type == HANDLE_FILE && !node__handle_holds(handle))
        stale = !lock_table_get_lock(node->table, tree_at(&node->tree, handle->inode)->lock, &lock);
    if (stale) {
        node__reply_error(node, request->slot, -ESTALE);
        return NULL;
    }
    return handle;
}

void node__read(struct node *node, const struct node_request *request)
{
    struct handle *handle = live_handle(node, request);
    if (!handle)
        return;
    if (handle->type == HANDLE_CONTROL) {
        control__read(node, request, handle);
        return;
    }
    if (handle->type != HANDLE_FILE) {
        node__reply_error(node, request->slot, -EISDIR);
        return;
    }
    const struct inode *inode = tree_at(&node->tree, handle->inode);
    char buffer[LIMIT_NAME_BYTES];
    struct span name = tree_name(&node->tree, inode, buffer);
    struct file_view view;
    size_t len = 0;
    uint32_t size = request->read.size < NODE_DATA_BYTES ? request->read.size : NODE_DATA_BYTES;
    if (node__visible_file(node, inode->lock, name, &view))
        len =
            lock_table_read(node->table, inode->lock, name, request->read.offset, node->data, size);
    node__reply(node, &(struct node_reply){.slot = request->slot,
                                           .type = NODE_REPLY_DATA,
                                           .data = {node->data, len}});
}

uint64_t node__writes_for(const struct node *node, const struct handle *handle)
{
    if (handle->type != HANDLE_FILE)
        return 0;
    if (node__handle_holds(handle))
        return handle->number;
    const struct inode *inode = tree_at(&node->tree, handle->inode);
    char buffer[LIMIT_NAME_BYTES];
    struct file_view file;
    bool visible =
        node__visible_file(node, inode->lock, tree_name(&node->tree, inode, buffer), &file);
    bool lasts = visible && file.create_token && file.create_node == node->config.id &&
                 file.release == RELEASE_EXIT;
    return lasts ? file.create_handle : 0;
}

void node__write(struct node *node, const struct node_request *request)
{
    struct handle *handle = live_handle(node, request);
    if (!handle)
        return;
    if (handle->type == HANDLE_CONTROL) {
        control__write(node, request, handle);
        return;
    }
    int error = 0;
    uint64_t holder = node__writes_for(node, handle);
    if (!holder)
        error = -EPERM;
    else if (request->write.data.len > LIMIT_CONTENT_BYTES)
        error = -EFBIG;
    if (error) {
        node__reply_error(node, request->slot, error);
        return;
    }
    struct command command = {
        .type = COMMAND_WRITE,
        .handle = holder,
        .offset = request->write.offset,
        .append = request->write.append,
        .data = request->write.data,
    };
    struct request *submitted = node__submit(node, request, &command, handle->number, false);
    if (submitted)
        submitted->number = request->write.data.len;
}

void node__release(struct node *node, const struct node_request *request)
{
    struct handle *handle = node__handle(node, request->handle);
    if (handle && !handle->closed)
        node__handle_close(node, handle);
    node__reply_done(node, request->slot);
}

/* Asks for a flock or fcntl claim, or gives one back. */
static void lock_file(struct node *node, const struct node_request *request, struct handle *handle,
                      enum claim_kind kind, enum node_flock how, bool wait, uint64_t owner,
                      bool allowed)
{
    bool unlock = how == NODE_FLOCK_UNLOCK;
    struct inode *inode = tree_at(&node->tree, handle->inode);
    char name[LIMIT_NAME_BYTES];
    struct command command = {
        .type = unlock ? COMMAND_UNLOCK : COMMAND_ACQUIRE,
        .lock = inode->lock,
        .name = tree_name(&node->tree, inode, name),
        .handle = handle->number,
        .kind = kind,
        .claim_mode = how == NODE_FLOCK_SHARED ? CLAIM_SHARED : CLAIM_EXCLUSIVE,
        .wait = !unlock && wait,
        .owner = owner,
        .ttl_ms = node->config.ttl_ms,
        .uid = request->uid,
    };
    if (!unlock) {
        command.process = request->process;
        node__handle_set_locker(node, handle, &request->process);
    }
    struct lock_view lock;
    bool new_claim = !unlock && !handle->claims && !allowed;
    if (new_claim && !handle->may_claim && lock_table_get_lock(node->table, inode->lock, &lock) &&
        !may_claim(&lock, request)) {
        node__reply_error(node, request->slot, -EACCES);
        return;
    }
    if (kind == CLAIM_FLOCK && !unlock && !wait && !handle->claims && !handle->commands &&
        node__is_taken(node, inode->lock, command.name, command.claim_mode)) {
        node__reply_error(node, request->slot, -EWOULDBLOCK);
        return;
    }
    /* Room for one unlock is reserved with the claim; more of them at once are work like any. */
    struct fcntl_record *record =
        unlock && kind == CLAIM_FCNTL ? node__fcntl(node, handle->inode, owner) : NULL;
    bool gives_back =
        unlock && (kind == CLAIM_FCNTL ? record && !record->unlocking : !handle->unlocks);
    if (unlock && request->slot == NODE_NO_SLOT) {
        if (node__propose(node, &command, gives_back)) {
            /* Without room for a second unlock at once the claim lasts until its handle is closed.
             */
            if (gives_back)
                node__fail(node, "no room in the log for a release");
            return;
        }
    } else {
        struct request *submitted =
            node__submit(node, request, &command, handle->number, gives_back);
        if (!submitted)
            return;
        submitted->number = how;
        submitted->owner = owner;
        submitted->uid = request->uid;
        submitted->wait = wait;
    }
    handle->commands++;
    if (command.wait)
        node__count_wait(node, handle->inode, 1);
    if (record)
        record->unlocking = true;
    if (kind == CLAIM_FCNTL && !unlock) {
        inode->fcntl_requests++;
        node->fcntl_requests++;
    }
    if (kind == CLAIM_FLOCK && unlock)
        handle->unlocks++;
}

void node__ask_again(struct node *node, uint32_t slot)
{
    struct request given_up = *node__request_at(node, slot);
    struct handle *handle = node__handle(node, given_up.handle);
    node__finish(node, slot);
    struct node_request request = {.slot = slot,
                                   .op = given_up.op,
                                   .process = given_up.process,
                                   .uid = given_up.uid,
                                   .inode = given_up.inode,
                                   .handle = given_up.handle};
    lock_file(node, &request, handle, given_up.op == NODE_OP_FLOCK ? CLAIM_FLOCK : CLAIM_FCNTL,
              (enum node_flock)given_up.number, given_up.wait, given_up.owner, true);
}

void node__flock(struct node *node, const struct node_request *request)
{
    struct handle *handle = live_handle(node, request);
    if (!handle)
        return;
    bool unlock = request->flock.how == NODE_FLOCK_UNLOCK;
    if (handle->type != HANDLE_FILE)
        node__reply_error(node, request->slot, -EOPNOTSUPP);
    else if (unlock && !handle->flock_token && !handle->commands)
        node__reply_done(node, request->slot);
    else if (!unlock && node->draining)
        node__reply_error(node, request->slot, -ENOLCK);
    else
        lock_file(node, request, handle, CLAIM_FLOCK, request->flock.how, request->flock.wait, 0,
                  false);
}

/* Byte ranges other than the whole file are not there yet; a semaphore will never have them. */
static int range_error(const struct node *node, const struct handle *handle)
{
    struct lock_view lock;
    uint64_t id = tree_at(&node->tree, handle->inode)->lock;
    return lock_table_get_lock(node->table, id, &lock) && lock.limit > 1 ? -EINVAL : -EOPNOTSUPP;
}

static void notice_not_yet(struct node *node, const struct node_request *request)
{
    struct node_action notice = {
        .type = NODE_ACTION_NOTICE,
        .notice = {.type = NODE_NOTICE_NOT_YET, .process = request->process}};
    node__emit(node, &notice);
}

void node__setlk(struct node *node, const struct node_request *request)
{
    struct handle *handle = live_handle(node, request);
    if (!handle)
        return;
    bool unlock = request->fcntl.how == NODE_FLOCK_UNLOCK;
    bool holds = node__fcntl(node, handle->inode, request->fcntl.owner) ||
                 tree_at(&node->tree, handle->inode)->fcntl_requests;
    int error = 0;
    if (handle->type != HANDLE_FILE)
        error = -EOPNOTSUPP;
    else if (unlock && !holds)
        node__reply_done(node, request->slot);
    else if (!request->fcntl.whole_file)
        error = range_error(node, handle);
    else if (!unlock && (node->draining || node->fcntl_records.used + node->fcntl_requests >=
                                               node->fcntl_records.capacity))
        error = -ENOLCK;
    else
        lock_file(node, request, handle, CLAIM_FCNTL, request->fcntl.how, request->fcntl.wait,
                  request->fcntl.owner, false);
    if (error == -EOPNOTSUPP)
        notice_not_yet(node, request);
    if (error)
        node__reply_error(node, request->slot, error);
}

static bool is_visible(const void *context, const struct claim_view *claim)
{
    return node__visible_claim(context, claim);
}

/* In a semaphore who holds is in nobody's way while there is a place, and what this node has given
 * back may be one before the table says so. */
static bool has_place_by_release(const struct node *node, uint64_t lock, struct span name,
                                 const struct node_request *request, enum claim_mode mode)
{
    struct lock_view view;
    uint32_t slot = tree_find_lock(&node->tree, lock);
    return slot && tree_at(&node->tree, slot)->gone_claims &&
           lock_table_get_lock(node->table, lock, &view) && view.limit > 1 &&
           lock_table_fits_beside(node->table, lock, name, node->config.id, request->handle,
                                  request->fcntl.owner, mode, is_visible, node);
}

void node__getlk(struct node *node, const struct node_request *request)
{
    struct handle *handle = live_handle(node, request);
    if (!handle)
        return;
    int error = handle->type != HANDLE_FILE  ? -EOPNOTSUPP
                : !request->fcntl.whole_file ? range_error(node, handle)
                                             : 0;
    if (error) {
        node__reply_error(node, request->slot, error);
        return;
    }
    const struct inode *inode = tree_at(&node->tree, handle->inode);
    char buffer[LIMIT_NAME_BYTES];
    struct span name = tree_name(&node->tree, inode, buffer);
    enum claim_mode mode = request->fcntl.how == NODE_FLOCK_SHARED ? CLAIM_SHARED : CLAIM_EXCLUSIVE;
    struct node_reply reply = {
        .slot = request->slot, .type = NODE_REPLY_LOCK, .number = NODE_FLOCK_UNLOCK};
    struct claim_view claim = {0};
    bool free = has_place_by_release(node, inode->lock, name, request, mode);
    while (!free &&
           lock_table_get_obstacle(node->table, inode->lock, name, claim.token, node->config.id,
                                   handle->number, request->fcntl.owner, mode, &claim)) {
        if (!node__visible_claim(node, &claim))
            continue;
        reply.number = claim.claim_mode == CLAIM_SHARED ? NODE_FLOCK_SHARED : NODE_FLOCK_EXCLUSIVE;
        reply.pid = claim.node == node->config.id ? claim.process.pid : 0;
        break;
    }
    node__reply(node, &reply);
}

/* Whether callers know of a claim that a force of `token` (0: any) would end. */
static bool is_there_to_force(const struct node *node, uint64_t lock, struct span name,
                              uint64_t token)
{
    struct file_view file;
    struct claim_view claim;
    if (!token)
        return node__visible_file(node, lock, name, &file);
    return lock_table_get_claim(node->table, lock, token, &claim) && claim.name_len == name.len &&
           memcmp(claim.name, name.data, name.len) == 0 && node__visible_claim(node, &claim);
}

/* Revokes what holds a file: for root, and for the owner of the lock. */
static void force(struct node *node, const struct node_request *request,
                  const struct handle *handle)
{
    const struct inode *inode = tree_at(&node->tree, handle->inode);
    char buffer[LIMIT_NAME_BYTES];
    struct span name = tree_name(&node->tree, inode, buffer);
    struct lock_view lock;
    int error = 0;
    if (handle->type != HANDLE_FILE)
        error = -EOPNOTSUPP;
    else if (!lock_table_get_lock(node->table, inode->lock, &lock))
        error = -ESTALE;
    else if (request->uid != 0 && request->uid != lock.uid)
        error = -EPERM;
    else if (!is_there_to_force(node, lock.id, name, request->force.token))
        error = -ENODATA;
    if (error) {
        node__reply_error(node, request->slot, error);
        return;
    }
    struct command command = {
        .type = COMMAND_FORCE,
        .lock = lock.id,
        .name = name,
        .token = request->force.token,
    };
    /* One at a time may use the reserve, so that no claim's room is used up for it twice. */
    if (node__submit(node, request, &command, 0, request->uid == 0 && !node->forces))
        node->forces++;
}

void node__ioctl(struct node *node, const struct node_request *request)
{
    struct handle *handle = live_handle(node, request);
    if (!handle)
        return;
    if (request->op == NODE_OP_IOC_FORCE) {
        force(node, request, handle);
        return;
    }
    if (request->op == NODE_OP_IOC_ON_LOSS) {
        int32_t signal = request->signal.number;
        if (signal < 0 || signal > 64) {
            node__reply_error(node, request->slot, -EINVAL);
            return;
        }
        handle->on_loss_signal = signal;
        handle->on_loss = request->process;
        node__reply_done(node, request->slot);
        return;
    }
    if (!handle->token) {
        node__reply_error(node, request->slot, -ENODATA);
        return;
    }
    uint64_t number = request->op == NODE_OP_IOC_TOKEN ? handle->token : (uint64_t)handle->ttl_ms;
    node__reply(node, &(struct node_reply){
                          .slot = request->slot, .type = NODE_REPLY_NUMBER, .number = number});
}

void node__poll(struct node *node, const struct node_request *request)
{
    const struct handle *handle = node__handle(node, request->handle);
    uint64_t lost = !handle || handle->lost || handle->unlinked;
    node__reply(node, &(struct node_reply){
                          .slot = request->slot, .type = NODE_REPLY_NUMBER, .number = lost});
}
