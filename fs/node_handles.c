/* Open files: how they are opened, become claims, are read and written, lose claims, and close. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "node_internal.h"

static const size_t in_inode = offsetof(struct handle, in_inode);

struct handle *node__handle(const struct node *node, uint64_t number)
{
    uint32_t slot = (uint32_t)number;
    if (!slot || slot > node->handles.touched)
        return NULL;
    struct handle *handle = node__handle_at(node, slot);
    return handle->type && handle->number == number ? handle : NULL;
}

struct handle *node__handle_open(struct node *node, enum handle_type type, uint32_t inode,
                                 const struct process *opener)
{
    if (node->handles_open == node->limits.handles)
        return NULL;
    uint32_t reader = 0;
    if (type == HANDLE_CONTROL && !(reader = slab_take(&node->readers)))
        return NULL;
    uint32_t slot = slab_take(&node->handles);
    if (!slot) {
        if (reader)
            slab_give(&node->readers, reader);
        return NULL;
    }
    struct handle *handle = node__handle_at(node, slot);
    handle->number = (uint64_t)++node->generation << 32 | slot;
    handle->type = type;
    handle->inode = inode;
    handle->reader = reader;
    handle->opener = *opener;
    node->handles_open++;
    tree_pin(&node->tree, inode);
    return handle;
}

/* The list of its lock's inode, where handles are that hold or lost a claim. */
static struct list *claimants(const struct node *node, const struct handle *handle)
{
    uint32_t parent = tree_at(&node->tree, handle->inode)->parent;
    return &tree_at(&node->tree, parent)->claimants;
}

static uint32_t slot_of(const struct handle *handle)
{
    return (uint32_t)handle->number;
}

static bool holds(const struct handle *handle)
{
    return handle->create_token || handle->flock_token;
}

static bool is_claimant(const struct handle *handle)
{
    return !handle->closed && (holds(handle) || handle->lost);
}

void node__handle_drop_unused(struct node *node, struct handle *handle)
{
    if (!handle->closed || handle->claims || handle->waits || handle->commands)
        return;
    if (handle->reader)
        slab_give(&node->readers, handle->reader);
    uint32_t inode = handle->inode;
    handle->type = 0;
    slab_give(&node->handles, slot_of(handle));
    tree_unpin(&node->tree, inode);
}

void node__handle_abandon(struct node *node, struct handle *handle)
{
    assert(!handle->closed && !is_claimant(handle));
    handle->closed = true;
    node->handles_open--;
}

void node__handle_close(struct node *node, struct handle *handle)
{
    if (is_claimant(handle))
        list_remove(&node->handles, in_inode, claimants(node, handle), slot_of(handle));
    /* For this node the claims are gone at once (DESIGN C7). */
    tree_at(&node->tree, handle->inode)->gone_claims +=
        (handle->create_token != 0) + (handle->flock_token != 0);
    handle->create_token = handle->flock_token = handle->token = 0;
    handle->lost = false;
    node__handle_abandon(node, handle);

    if (handle->claims || handle->waits || handle->commands) {
        struct command command = {.type = COMMAND_RELEASE, .handle = handle->number};
        if (node__propose(node, &command, true) == 0)
            handle->commands++;
        else
            node__fail(node, "no room in the log for a release");
    }
    node__handle_drop_unused(node, handle);
}

void node__handle_granted(struct node *node, struct handle *handle, enum claim_kind kind,
                          uint64_t token, bool known)
{
    node->claims_held++;
    handle->claims++;
    if (!known || handle->closed) {
        tree_at(&node->tree, handle->inode)->gone_claims++;
        return;
    }
    bool was_claimant = is_claimant(handle);
    *(kind == CLAIM_CREATE ? &handle->create_token : &handle->flock_token) = token;
    handle->token = token;
    if (!was_claimant)
        list_append(&node->handles, in_inode, claimants(node, handle), slot_of(handle));
}

static void path_add(const struct node *node, uint64_t lock, struct text *path)
{
    struct lock_view view;
    if (lock == LOCK_TABLE_ROOT || !lock_table_get_lock(node->table, lock, &view))
        return;
    path_add(node, view.parent, path); /* LIMIT_DEPTH deep at most */
    text_add(path, (struct span){view.name, view.name_len});
    text_string(path, "/");
}

/* The path of a file, for people; in node->data. */
static struct span path_of(struct node *node, const struct inode *inode)
{
    struct text path = {.data = node->data, .size = NODE_DATA_BYTES};
    char name[LIMIT_NAME_BYTES];
    path_add(node, inode->lock, &path);
    text_add(&path, tree_name(&node->tree, inode, name));
    return (struct span){path.data, path.len};
}

/* An unlink ended the claim of an open handle. */
static void handle_unlinked(struct node *node, struct handle *handle, uint64_t token)
{
    struct node_action wake = {.type = NODE_ACTION_LOST, .lost = {handle->number}};
    node__emit(node, &wake);
    if (node__same_process(&handle->opener, &node->unlinker)) {
        handle->unlinked = true;
        return;
    }
    handle->lost = true;
    struct node_action notice = {
        .type = NODE_ACTION_NOTICE,
        .notice = {.type = NODE_NOTICE_UNLINKED,
                   .token = token,
                   .process = node->unlinker,
                   .holder = handle->opener,
                   .path = path_of(node, tree_at(&node->tree, handle->inode))}};
    node__emit(node, &notice);
    if (handle->on_loss_signal) {
        struct node_action signal = {.type = NODE_ACTION_SIGNAL,
                                     .signal = {handle->on_loss, handle->on_loss_signal}};
        node__emit(node, &signal);
    }
}

void node__handle_ended(struct node *node, struct handle *handle, const struct effect *effect)
{
    node->claims_held--;
    handle->claims--;
    bool created = effect->kind == CLAIM_CREATE;
    uint64_t *token = created ? &handle->create_token : &handle->flock_token;
    if (handle->closed || *token != effect->token) {
        tree_at(&node->tree, handle->inode)->gone_claims--;
        return;
    }
    bool was_claimant = is_claimant(handle);
    *token = 0;
    if (effect->cause == CAUSE_UNLINKED && created)
        handle_unlinked(node, handle, effect->token);
    if (!holds(handle) && !handle->lost)
        handle->token = 0;
    if (was_claimant && !is_claimant(handle))
        list_remove(&node->handles, in_inode, claimants(node, handle), slot_of(handle));
}

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

void node__create(struct node *node, const struct node_request *request)
{
    const struct inode *parent = tree_inode(&node->tree, request->inode);
    struct lock_view lock;
    int error = 0;
    if (!parent || parent->parent || !lock_table_get_lock(node->table, parent->lock, &lock))
        error = -ESTALE;
    else if (!(error = names_check(node__place(request->inode), lock.limit != 0, request->name)) &&
             lock_table_find(node->table, lock.id, request->name))
        error = -EEXIST;
    else if (!error && node->draining && request->open.exclusive)
        error = -ENOLCK;
    uint32_t inode = error ? 0 : make_file(node, lock.id, request->name);
    struct handle *handle =
        inode ? node__handle_open(node, HANDLE_FILE, inode, &request->process) : NULL;
    if (!handle) {
        if (inode)
            tree_drop_unused(&node->tree, inode);
        node__reply_error(node, request->slot, error ? error : -ENOLCK);
        return;
    }
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
    if (node__submit(node, request, &command, handle->number)) {
        handle->commands++;
    } else {
        node__handle_abandon(node, handle);
        node__handle_drop_unused(node, handle);
    }
}

void node__create_applied(struct node *node, uint32_t slot, const struct command_result *result)
{
    struct request request = *node__request_at(node, slot);
    node__finish(node, slot);
    struct handle *handle = node__handle(node, request.handle);
    struct node_reply reply = {.slot = slot,
                               .type = NODE_REPLY_CREATED,
                               .inode = tree_number(handle->inode, CONTROL_NONE),
                               .handle = request.handle,
                               .no_flush = true,
                               .attr_valid_ms = NODE_CREATE_ATTR_VALID_MS};
    int error = result->error ? result->error : node__attr(node, reply.inode, &reply.attr);
    if (error) {
        /* Dropped by the caller, when this command is counted as applied. */
        assert(result->error);
        node__handle_abandon(node, handle);
        node__reply_error(node, slot, error);
        return;
    }
    tree_at(&node->tree, handle->inode)->lookups++;
    node__reply(node, &reply);
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
        struct text path = {.data = node->data, .size = NODE_DATA_BYTES};
        path_add(node, inode->lock, &path);
        struct node_action notice = {.type = NODE_ACTION_NOTICE,
                                     .notice = {.type = NODE_NOTICE_DIRECTORY_LOCK,
                                                .process = request->process,
                                                .path = {path.data, path.len}}};
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
    node__reply(node, &(struct node_reply){.slot = request->slot,
                                           .type = NODE_REPLY_OPENED,
                                           .handle = handle->number});
}

/* The open file of a request. Answers ESTALE and returns NULL where it can do nothing any more. */
static struct handle *live_handle(struct node *node, const struct node_request *request)
{
    struct handle *handle = node__handle(node, request->handle);
    if (!handle || handle->closed || handle->lost || handle->unlinked) {
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
    if (handle->type != HANDLE_FILE || !holds(handle))
        error = -EPERM;
    else if (request->write.data.len > LIMIT_CONTENT_BYTES)
        error = -EFBIG;
    if (error) {
        node__reply_error(node, request->slot, error);
        return;
    }
    struct command command = {
        .type = COMMAND_WRITE,
        .handle = handle->number,
        .offset = request->write.offset,
        .append = request->write.append,
        .data = request->write.data,
    };
    struct request *submitted = node__submit(node, request, &command, handle->number);
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

void node__flock(struct node *node, const struct node_request *request)
{
    struct handle *handle = live_handle(node, request);
    if (!handle)
        return;
    bool unlock = request->flock.how == NODE_FLOCK_UNLOCK;
    if (handle->type != HANDLE_FILE) {
        node__reply_error(node, request->slot, -EOPNOTSUPP);
        return;
    }
    if (unlock && !handle->flock_token && !handle->commands) {
        node__reply_done(node, request->slot);
        return;
    }
    if (!unlock && node->draining) {
        node__reply_error(node, request->slot, -ENOLCK);
        return;
    }
    if (unlock && request->slot == NODE_NO_SLOT) {
        struct command command = {.type = COMMAND_UNLOCK, .handle = handle->number};
        if (node__propose(node, &command, true) == 0)
            handle->commands++;
        else
            node__fail(node, "no room in the log for a release");
        return;
    }

    const struct inode *inode = tree_at(&node->tree, handle->inode);
    char name[LIMIT_NAME_BYTES];
    struct command command = {
        .type = unlock ? COMMAND_UNLOCK : COMMAND_ACQUIRE,
        .lock = unlock ? 0 : inode->lock,
        .name = unlock ? (struct span){NULL, 0} : tree_name(&node->tree, inode, name),
        .handle = handle->number,
        .kind = unlock ? 0 : CLAIM_FLOCK,
        .claim_mode = unlock                                    ? 0
                      : request->flock.how == NODE_FLOCK_SHARED ? CLAIM_SHARED
                                                                : CLAIM_EXCLUSIVE,
        .wait = !unlock && request->flock.wait,
        .ttl_ms = unlock ? 0 : node->config.ttl_ms,
        .uid = request->uid,
    };
    if (!unlock) {
        command.process = request->process;
        handle->locker = request->process;
    }
    struct request *submitted = node__submit(node, request, &command, handle->number);
    if (submitted) {
        submitted->number = request->flock.how;
        handle->commands++;
    }
}

void node__ioctl(struct node *node, const struct node_request *request)
{
    struct handle *handle = live_handle(node, request);
    if (!handle)
        return;
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
    uint64_t number =
        request->op == NODE_OP_IOC_TOKEN ? handle->token : (uint64_t)node->config.ttl_ms;
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
