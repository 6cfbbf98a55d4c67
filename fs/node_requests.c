/* Requests whose answer hangs on a command: from the proposal to the reply, or to giving up. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "node_internal.h"

void node__reply(struct node *node, const struct node_reply *reply)
{
    if (reply->slot == NODE_NO_SLOT)
        return;
    struct node_action action = {.type = NODE_ACTION_REPLY, .reply = *reply};
    node__emit(node, &action);
}

void node__reply_error(struct node *node, uint32_t slot, int error)
{
    struct node_reply reply = {.slot = slot, .type = NODE_REPLY_ERROR, .error = error};
    node__reply(node, &reply);
}

void node__reply_done(struct node *node, uint32_t slot)
{
    struct node_reply reply = {.slot = slot, .type = NODE_REPLY_DONE};
    node__reply(node, &reply);
}

static const size_t in_deadlines = offsetof(struct request, in_deadlines);

static uint32_t request_slot(const struct node *node, uint64_t seq)
{
    uint32_t slot = index_first(&node->requests_by_seq, hash_number(seq));
    while (slot && node__request_at(node, slot - 1)->seq != seq)
        slot = index_next(&node->requests_by_seq, slot);
    return slot ? slot - 1 : NODE_NO_SLOT;
}

static void arm_timer(struct node *node)
{
    uint32_t head = node->deadlines.head;
    if (!head || node->timer_at_ms)
        return;
    node->timer_at_ms = node__request_at(node, head - 1)->deadline_ms;
    struct node_action action = {.type = NODE_ACTION_TIMER, .timer = {node->timer_at_ms}};
    node__emit(node, &action);
}

static bool may_become_claim(const struct request *request)
{
    return request->op == NODE_OP_CREATE || request->op == NODE_OP_FLOCK ||
           request->op == NODE_OP_MKDIR;
}

struct request *node__submit(struct node *node, const struct node_request *from,
                             struct command *command, uint64_t handle)
{
    bool gives_back = command->type == COMMAND_UNLOCK || command->type == COMMAND_UNLINK;
    bool waits = command->type == COMMAND_ACQUIRE && command->wait;
    int error = 0;
    if (node->stalled && !waits)
        error = -ETIMEDOUT;
    else
        error = node__propose(node, command, gives_back);
    if (error) {
        node__reply_error(node, from->slot, error);
        return NULL;
    }
    assert(from->slot < node->limits.requests);
    struct request *request = node__request_at(node, from->slot);
    assert(request->state == REQUEST_FREE);
    *request = (struct request){
        .state = REQUEST_COMMAND,
        .op = from->op,
        .seq = command->seq,
        .inode = from->inode,
        .handle = handle,
        .process = from->process,
    };
    index_add(&node->requests_by_seq, hash_number(request->seq), from->slot + 1);
    if (command->type == COMMAND_ACQUIRE || command->type == COMMAND_MKDIR)
        node->acquires++;
    if (!waits) {
        request->deadline_ms = node->now_ms + node->config.op_timeout_ms;
        list_append(&node->requests, in_deadlines, &node->deadlines, from->slot + 1);
        arm_timer(node);
    }
    return request;
}

static void stop_deadline(struct node *node, uint32_t slot)
{
    struct request *request = node__request_at(node, slot);
    if (request->deadline_ms)
        list_remove(&node->requests, in_deadlines, &node->deadlines, slot + 1);
    request->deadline_ms = 0;
}

/* The slot is the caller's again; the reply comes next. */
void node__finish(struct node *node, uint32_t slot)
{
    struct request *request = node__request_at(node, slot);
    stop_deadline(node, slot);
    index_remove(&node->requests_by_seq, hash_number(request->seq), slot + 1);
    chunks_resize(&node->tree.chunks, &request->name, request->name_len, 0);
    request->state = REQUEST_FREE;
}

/* Gives up a request that may gain something (DESIGN C8): what it gained, or will, ends. */
static void cancel(struct node *node, uint32_t slot, int error)
{
    struct request *request = node__request_at(node, slot);
    struct handle *handle = request->handle ? node__handle(node, request->handle) : NULL;
    char name[LIMIT_NAME_BYTES];
    chunks_read(&node->tree.chunks, request->name, 0, name, request->name_len);
    struct command command = {
        .type = COMMAND_CANCEL,
        .target = request->seq,
        .handle = request->handle,
        .lock = request->parent,
        .name = {name, request->name_len},
    };
    bool created = request->op == NODE_OP_CREATE;
    node__finish(node, slot);
    if (node__propose(node, &command, true) == 0) {
        if (handle)
            handle->commands++;
    } else {
        node__fail(node, "no room in the log to give up a request");
    }
    if (created && handle)
        node__handle_abandon(node, handle);
    node__reply_error(node, slot, error);
}

void node__interrupt(struct node *node, uint32_t slot)
{
    if (slot >= node->limits.requests)
        return;
    const struct request *request = node__request_at(node, slot);
    /* What gains nothing is answered soon, by its commit or its deadline. */
    if (request->state == REQUEST_FREE || !may_become_claim(request))
        return;
    if (request->op == NODE_OP_FLOCK && request->number == NODE_FLOCK_UNLOCK)
        return;
    cancel(node, slot, -EINTR);
}

void node__timer(struct node *node)
{
    node->timer_at_ms = 0;
    uint32_t head;
    while ((head = node->deadlines.head)) {
        const struct request *request = node__request_at(node, head - 1);
        if (request->deadline_ms > node->now_ms)
            break;
        if (!node->stalled) {
            node->stalled = true;
            struct node_action notice = {.type = NODE_ACTION_NOTICE,
                                         .notice = {.type = NODE_NOTICE_STALLED}};
            node__emit(node, &notice);
        }
        bool unlock = request->op == NODE_OP_FLOCK && request->number == NODE_FLOCK_UNLOCK;
        if (may_become_claim(request) && !unlock) {
            cancel(node, head - 1, -ETIMEDOUT);
        } else {
            node__finish(node, head - 1);
            node__reply_error(node, head - 1, -ETIMEDOUT);
        }
    }
    arm_timer(node);
}

/* A claim of this node's, by its result or by the queue. The caller of `slot` learns of it; where
 * there is none any more, its CANCEL is on the way. */
static void granted(struct node *node, uint32_t slot, uint64_t handle_number, enum claim_kind kind,
                    uint64_t token)
{
    struct handle *handle = node__handle(node, handle_number);
    assert(handle); /* it lives until all its commands are applied */
    node__handle_granted(node, handle, kind, token, slot != NODE_NO_SLOT);
}

static void finish_flock(struct node *node, uint32_t slot)
{
    node__finish(node, slot);
    node__reply_done(node, slot);
}

static void acquire_applied(struct node *node, const struct command *command,
                            const struct command_result *result, uint32_t slot)
{
    struct handle *handle = node__handle(node, command->handle);
    assert(handle);
    if (result->queued) {
        handle->waits++;
        if (slot != NODE_NO_SLOT) {
            node__request_at(node, slot)->state = REQUEST_WAITING;
            stop_deadline(node, slot);
            if (node->draining)
                cancel(node, slot, -ENOLCK);
        }
        return;
    }
    node->acquires--;
    /* Asking again for what one has changes nothing, and is no grant. */
    bool again = !result->error && result->token == handle->flock_token;
    if (!result->error && !again)
        granted(node, slot, command->handle, command->kind, result->token);
    if (slot == NODE_NO_SLOT)
        return;
    if (command->kind == CLAIM_CREATE) {
        node__create_applied(node, slot, result);
        return;
    }
    node__finish(node, slot);
    if (result->error)
        node__reply_error(node, slot, result->error);
    else
        node__reply_done(node, slot);
}

static void setattr_applied(struct node *node, uint32_t slot, uint64_t inode)
{
    struct node_reply reply = {.slot = slot, .type = NODE_REPLY_ATTR};
    int error = node__attr(node, inode, &reply.attr);
    if (error)
        node__reply_error(node, slot, error);
    else
        node__reply(node, &reply);
}

static void mkdir_applied(struct node *node, uint32_t slot, uint64_t lock)
{
    uint32_t inode = tree_make_lock(&node->tree, lock);
    if (!inode)
        node__reply_error(node, slot, -ENOLCK); /* made, but the kernel cannot be told */
    else
        node__reply_entry(node, slot, tree_number(inode, CONTROL_NONE), NODE_LOCK_ENTRY_VALID_MS);
}

static void reply_applied(struct node *node, uint32_t slot, const struct command_result *result)
{
    struct request request = *node__request_at(node, slot);
    node__finish(node, slot);
    if (result->error)
        node__reply_error(node, slot, result->error);
    else if (request.op == NODE_OP_MKDIR)
        mkdir_applied(node, slot, result->lock);
    else if (request.op == NODE_OP_SETATTR)
        setattr_applied(node, slot, request.inode);
    else if (request.op == NODE_OP_WRITE)
        node__reply(node, &(struct node_reply){
                              .slot = slot, .type = NODE_REPLY_WRITTEN, .number = request.number});
    else
        node__reply_done(node, slot);
}

void node__applied(struct node *node, const struct command *command,
                   const struct command_result *result)
{
    if (result->error == -EPROTO ||
        (result->error == -ESTALE && command->type == COMMAND_RELEASE)) {
        node__fail(node, "another daemon runs under the identity of this one");
        return;
    }
    uint32_t slot = request_slot(node, command->seq);
    if (command->type == COMMAND_ACQUIRE) {
        acquire_applied(node, command, result, slot);
    } else {
        if (command->type == COMMAND_MKDIR)
            node->acquires--;
        if (slot != NODE_NO_SLOT)
            reply_applied(node, slot, result);
    }

    bool of_handle = command->type == COMMAND_ACQUIRE || command->type == COMMAND_RELEASE ||
                     command->type == COMMAND_CANCEL || command->type == COMMAND_UNLOCK;
    struct handle *handle =
        of_handle && command->handle ? node__handle(node, command->handle) : NULL;
    if (handle) {
        handle->commands--;
        node__handle_drop_unused(node, handle);
    }
}

void node__effect(void *context, const struct effect *effect)
{
    struct node *node = context;
    if (effect->node != node->config.id)
        return;
    if (effect->cause == CAUSE_INCARNATION) {
        if (effect->type == EFFECT_ENDED)
            control__lost_by_restart(node, effect);
        return;
    }
    if (!node->ready)
        return; /* replaying what an earlier incarnation did */

    struct handle *handle = node__handle(node, effect->handle);
    assert(handle);
    uint32_t slot = request_slot(node, effect->seq);
    switch (effect->type) {
    case EFFECT_GRANTED:
        handle->waits--;
        node->acquires--;
        granted(node, slot, effect->handle, effect->kind, effect->token);
        if (slot != NODE_NO_SLOT)
            finish_flock(node, slot);
        break;
    case EFFECT_DROPPED:
        handle->waits--;
        node->acquires--;
        if (slot != NODE_NO_SLOT) {
            node__finish(node, slot);
            node__reply_error(node, slot, -ESTALE); /* its handle's claim was unlinked */
        }
        break;
    case EFFECT_ENDED:
        node__handle_ended(node, handle, effect);
        break;
    }
}

void node__drain(struct node *node)
{
    node->draining = true;
    for (uint32_t slot = 0; slot < node->limits.requests; slot++)
        if (node__request_at(node, slot)->state == REQUEST_WAITING)
            cancel(node, slot, -ENOLCK);
}

void node__check_drained(struct node *node)
{
    if (!node->draining || node->drained || node->claims_held || node->acquires)
        return;
    node->drained = true;
    struct node_action action = {.type = NODE_ACTION_DRAINED};
    node__emit(node, &action);
}
