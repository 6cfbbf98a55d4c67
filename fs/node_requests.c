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
    if (slot != NODE_NO_SLOT && node__request_at(node, slot)->acquires)
        node__count_refusal(node, error);
    struct node_reply reply = {.slot = slot, .type = NODE_REPLY_ERROR, .error = error};
    node__reply(node, &reply);
}

void node__reply_done(struct node *node, uint32_t slot)
{
    struct node_reply reply = {.slot = slot, .type = NODE_REPLY_DONE};
    node__reply(node, &reply);
}

static const size_t in_deadlines = offsetof(struct request, in_deadlines);

uint32_t node__request_slot(const struct node *node, uint64_t seq)
{
    uint32_t slot = index_first(&node->requests_by_seq, hash_number(seq));
    while (slot && node__request_at(node, slot - 1)->seq != seq)
        slot = index_next(&node->requests_by_seq, slot);
    return slot ? slot - 1 : NODE_NO_SLOT;
}

enum { DELAY_RETRY_MS = 100 };

/* The next time at which something is due; 0: nothing is. */
static uint64_t next_deadline(const struct node *node)
{
    uint32_t head = node->deadlines.head;
    uint64_t next = head ? node__request_at(node, head - 1)->deadline_ms : 0;
    for (uint32_t slot = node->delays_timed.head; slot;) {
        const struct timed_delay *delay = slab_at(&node->delays, slot);
        if (!next || delay->deadline_ms < next)
            next = delay->deadline_ms;
        slot = delay->links.next;
    }
    return next;
}

/* A timer that is set for too early costs one step; setting it anew for each request costs more. */
void node__arm_timer(struct node *node, uint64_t at_ms)
{
    if (!at_ms || (node->timer_at_ms && node->timer_at_ms <= at_ms))
        return;
    node->timer_at_ms = at_ms;
    struct node_action action = {.type = NODE_ACTION_TIMER, .timer = {at_ms}};
    node__emit(node, &action);
}

void node__time_delays(struct node *node, uint64_t after)
{
    struct delay_view view = {.id = after};
    while (lock_table_next_delay(node->table, view.id, &view)) {
        uint32_t slot = slab_take(&node->delays);
        assert(slot); /* as many as the table can have */
        struct timed_delay *delay = slab_at(&node->delays, slot);
        delay->id = view.id;
        delay->deadline_ms = node->now_ms + view.delay_ms;
        list_append(&node->delays, offsetof(struct timed_delay, links), &node->delays_timed, slot);
    }
    node__arm_timer(node, next_deadline(node));
}

/* A delay that is over is ended by a command, so that it ends at one place in the log. */
static void end_due_delays(struct node *node)
{
    for (uint32_t slot = node->delays_timed.head; slot;) {
        struct timed_delay *delay = slab_at(&node->delays, slot);
        uint32_t next = delay->links.next;
        if (delay->deadline_ms <= node->now_ms) {
            struct command command = {.type = COMMAND_END_DELAY, .target = delay->id};
            if (node__propose(node, &command, true)) {
                /* Its room in the log is reserved; in memory there may be none for a moment. */
                delay->deadline_ms = node->now_ms + DELAY_RETRY_MS;
                slot = next;
                continue;
            }
            list_remove(&node->delays, offsetof(struct timed_delay, links), &node->delays_timed,
                        slot);
            slab_give(&node->delays, slot);
        }
        slot = next;
    }
}

static bool may_become_claim(const struct request *request)
{
    bool locks = request->op == NODE_OP_FLOCK || request->op == NODE_OP_SETLK;
    return (locks && request->number != NODE_FLOCK_UNLOCK) || request->op == NODE_OP_CREATE ||
           request->op == NODE_OP_MKDIR;
}

struct request *node__submit(struct node *node, const struct node_request *from,
                             struct command *command, uint64_t handle, bool gives_back)
{
    bool waits = command->type == COMMAND_ACQUIRE && command->wait;
    int error = 0;
    if (node->stalled && !waits && !gives_back)
        error = -ETIMEDOUT;
    else
        error = node__propose_when(node, command, gives_back,
                                   !(waits && node__will_queue(node, command)));
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
        .uid = from->uid,
        .acquires = request->acquires,
        .process = from->process,
    };
    index_add(&node->requests_by_seq, hash_number(request->seq), from->slot + 1);
    if (command->type == COMMAND_ACQUIRE || command->type == COMMAND_MKDIR)
        node->acquires++;
    if (!waits) {
        request->deadline_ms = node->now_ms + node->config.op_timeout_ms;
        list_append(&node->requests, in_deadlines, &node->deadlines, from->slot + 1);
        node__arm_timer(node, request->deadline_ms);
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
    cancel(node, slot, -EINTR);
}

void node__timer(struct node *node)
{
    struct raft_event tick = {.type = RAFT_EVENT_TICK};
    node->timer_at_ms = 0;
    node__raft(node, &tick);
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
        if (may_become_claim(request)) {
            cancel(node, head - 1, -ETIMEDOUT);
        } else {
            node__finish(node, head - 1);
            node__reply_error(node, head - 1, -ETIMEDOUT);
        }
    }
    end_due_delays(node);
    node__arm_timer(node, next_deadline(node));
}

/* A request for an fcntl claim has its answer, or will get none. */
static void count_fcntl(struct node *node, const struct handle *handle, enum claim_kind kind)
{
    if (kind != CLAIM_FCNTL)
        return;
    node->fcntl_requests--;
    tree_at(&node->tree, handle->inode)->fcntl_requests--;
}

/* Whether callers know of the claim by which a request found held what it asked for. Where they do
 * not, that claim was given up, and its CANCEL is on the way. */
static bool is_known(const struct node *node, const struct handle *handle, enum claim_kind kind,
                     uint64_t owner, uint64_t token)
{
    if (kind == CLAIM_FLOCK)
        return handle->flock_token == token;
    const struct fcntl_record *record = node__fcntl(node, handle->inode, owner);
    return record && record->token == token;
}

/* A request for a claim has come to its end: granted, found held, or refused. */
static void settle_request(struct node *node, struct handle *handle, uint32_t slot,
                           const struct effect *claim, int error)
{
    node->acquires--;
    count_fcntl(node, handle, claim->kind);
    if (!error && !claim->again)
        node__handle_granted(node, handle, claim, slot != NODE_NO_SLOT);
    if (slot == NODE_NO_SLOT)
        return;
    if (claim->kind == CLAIM_CREATE) {
        node__create_applied(node, slot, error);
    } else if (claim->again && !is_known(node, handle, claim->kind, claim->owner, claim->token)) {
        node__ask_again(node, slot);
    } else {
        node__finish(node, slot);
        if (error)
            node__reply_error(node, slot, error);
        else
            node__reply_done(node, slot);
    }
}

static void acquire_applied(struct node *node, const struct command *command,
                            const struct command_result *result, uint32_t slot)
{
    struct handle *handle = node__handle(node, command->handle);
    assert(handle);
    if (command->wait)
        node__count_wait(node, handle->inode, -1);
    if (result->queued) {
        handle->waits++;
        if (slot == NODE_NO_SLOT)
            return;
        node__request_at(node, slot)->state = REQUEST_WAITING;
        stop_deadline(node, slot);
        if (node->draining)
            cancel(node, slot, -ENOLCK);
        return;
    }
    struct effect claim = {.token = result->token,
                           .owner = command->owner,
                           .ttl_ms = result->ttl_ms,
                           .release = result->release,
                           .kind = command->kind,
                           .again = result->again,
                           .converted = result->converted};
    settle_request(node, handle, slot, &claim, result->error);
}

static void mkdir_applied(struct node *node, uint32_t slot, uint64_t lock)
{
    uint32_t inode = tree_make_lock(&node->tree, lock);
    if (!inode) {
        cancel(node, slot, -ENOLCK); /* the kernel cannot be told of it */
        return;
    }
    node__finish(node, slot);
    node__reply_entry(node, slot, tree_number(inode, CONTROL_NONE), NODE_LOCK_ENTRY_VALID_MS);
}

static void reply_applied(struct node *node, uint32_t slot, const struct command_result *result)
{
    struct request request = *node__request_at(node, slot);
    if (!result->error && request.op == NODE_OP_MKDIR) {
        mkdir_applied(node, slot, result->lock);
        return;
    }
    node__finish(node, slot);
    if (result->error)
        node__reply_error(node, slot, result->error);
    else if (request.op == NODE_OP_SETATTR)
        node__reply_attr(node, slot, request.inode);
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
    uint32_t slot = node__request_slot(node, command->seq);
    if (command->type == COMMAND_ACQUIRE) {
        acquire_applied(node, command, result, slot);
    } else {
        if (command->type == COMMAND_MKDIR)
            node->acquires--;
        if (command->type == COMMAND_FORCE)
            node->forces--;
        if (slot != NODE_NO_SLOT)
            reply_applied(node, slot, result);
    }

    bool of_handle = command->type == COMMAND_ACQUIRE || command->type == COMMAND_RELEASE ||
                     command->type == COMMAND_CANCEL || command->type == COMMAND_UNLOCK;
    struct handle *handle =
        of_handle && command->handle ? node__handle(node, command->handle) : NULL;
    if (handle) {
        handle->unlocks -= command->type == COMMAND_UNLOCK && command->kind == CLAIM_FLOCK;
        handle->commands--;
        node__handle_drop_unused(node, handle);
    }
}

void node__effect(void *context, const struct effect *effect)
{
    struct node *node = context;
    node__tell_effect(node, effect);
    if (effect->type == EFFECT_DELAYED) {
        if (node->ready)
            node__time_delays(node, effect->token - 1);
        return;
    }
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
    uint32_t slot = node__request_slot(node, effect->seq);
    switch (effect->type) {
    case EFFECT_GRANTED:
        handle->waits--;
        settle_request(node, handle, slot, effect, 0);
        break;
    case EFFECT_DROPPED:
        handle->waits--;
        node->acquires--;
        count_fcntl(node, handle, effect->kind);
        if (slot != NODE_NO_SLOT) {
            node__finish(node, slot);
            node__reply_error(node, slot, -ESTALE); /* its handle's claim was unlinked */
        }
        break;
    case EFFECT_ENDED:
        node__handle_ended(node, handle, effect);
        break;
    case EFFECT_DELAYED:
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
