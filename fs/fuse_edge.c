/*
 * The session with the kernel: mount, descriptor, slots of requests. See fuse_edge.h.
 *
 * libfuse parses requests and builds replies. What it would do in a loop and threads of its own
 * happens here on the uv loop, and it reads and writes through functions of this file, since 3.14
 * leaves a bit out of its first reply.
 *
 * An answer can fail to reach its caller, and a signal can arrive while libfuse holds a lock; both
 * mean another event for the node, which must not come in the middle of a step or of a libfuse
 * call. Slots with such an event are queued, and the queue is worked off right after.
 */
#include "fuse_edge.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "fuse_internal.h"
#include "guard.h"
#include "mounts.h"

enum {
    /* Requests that are handed over in one go: then the log's batch is sent off, and the loop's
     * other descriptors have their turn. */
    TURN_REQUESTS = 256,
    NOBODY = -1,
};

#define NO_SLOT UINT32_MAX

/* Mounting */

static int allocate(struct fuse_edge *edge, const struct fuse_edge_options *options);
static void deallocate(struct fuse_edge *edge);
static int open_session(struct fuse_edge *edge, const struct fuse_edge_options *options,
                        char *message, size_t message_size);
static void close_session(struct fuse_edge *edge);
static int agree(struct fuse_edge *edge, uint32_t timeout_ms, char *message, size_t message_size);
static int receive(struct fuse_edge *edge);
static void on_readable(uv_poll_t *readable, int status, int events);
static void on_closed(uv_handle_t *handle);

int fuse_edge_mount(struct fuse_edge **ret_edge, uv_loop_t *loop,
                    const struct fuse_edge_options *options,
                    const struct fuse_edge_handler *handler, void *context, char *message,
                    size_t message_size)
{
    struct fuse_edge *edge = calloc(1, sizeof *edge);
    int error;

    if (edge == NULL) {
        snprintf(message, message_size, "%s", strerror(ENOMEM));
        return -ENOMEM;
    }
    edge->handler = handler;
    edge->context = context;
    error = allocate(edge, options);
    if (error != 0) {
        snprintf(message, message_size, "%s", strerror(-error));
        goto fail;
    }
    error = open_session(edge, options, message, message_size);
    if (error != 0)
        goto fail;
    error = agree(edge, options->init_timeout_ms, message, message_size);
    if (error != 0)
        goto fail_session;

    error = uv_poll_init(loop, &edge->readable, fuse_session_fd(edge->session));
    if (error != 0) {
        snprintf(message, message_size, "cannot watch /dev/fuse: %s", uv_strerror(error));
        goto fail_session;
    }
    edge->readable.data = edge;
    uv_idle_init(loop, &edge->giving_back);
    edge->giving_back.data = edge;
    edge->handles_open = 2;
    error = uv_poll_start(&edge->readable, UV_READABLE, on_readable);
    assert(error == 0);
    *ret_edge = edge;
    return 0;

fail_session:
    close_session(edge);
fail:
    deallocate(edge);
    return error;
}

/* Memory that is not touched yet costs nothing, so all of it is taken at once. */
static int allocate(struct fuse_edge *edge, const struct fuse_edge_options *options)
{
    edge->slots_max = options->requests_max;
    edge->slots_free = NO_SLOT;
    edge->due_head = NO_SLOT;
    edge->due_tail = NO_SLOT;
    edge->handles_max = options->handles_max;
    edge->slots = calloc(options->requests_max, sizeof *edge->slots);
    edge->pollers = calloc((size_t)options->handles_max + 1, sizeof *edge->pollers);
    edge->mount_point = malloc(PATH_MAX);
    edge->mount_id = NOBODY;
    if (edge->slots == NULL || edge->pollers == NULL || edge->mount_point == NULL)
        return -ENOMEM;
    return 0;
}

static void deallocate(struct fuse_edge *edge)
{
    process_cache_close(&edge->processes);
    free(edge->slots);
    free(edge->pollers);
    free(edge->mount_point);
    free(edge->buffer.mem);
    free(edge);
}

/* What libfuse last complained about. Its log function has no context. */
static char complaint[256];

static void note_complaint(enum fuse_log_level level, const char *format, va_list arguments)
{
    (void)level;
    vsnprintf(complaint, sizeof complaint, format, arguments);
    complaint[strcspn(complaint, "\n")] = '\0';
}

static ssize_t read_request(int fd, void *buffer, size_t size, void *userdata);
static ssize_t write_reply(int fd, struct iovec *parts, int count, void *userdata);
static int own_mount(struct fuse_edge *edge, bool *ret_alone);
static int topmost_mount(const char *path);

static int open_session(struct fuse_edge *edge, const struct fuse_edge_options *options,
                        char *message, size_t message_size)
{
    static const struct fuse_custom_io io = {.read = read_request, .writev = write_reply};
    char name[] = "lockfs";
    char option[] = "-o";
    char settings[128];
    char *argv[] = {name, option, settings, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(3, argv);
    int error = mounts_resolve(options->mount_point, edge->mount_point);

    if (error != 0 || strcmp(edge->mount_point, "/") == 0) {
        error = error != 0 ? error : -EINVAL;
        snprintf(message, message_size, "cannot mount on %s: %s", options->mount_point,
                 strerror(-error));
        return error;
    }
    snprintf(edge->source, sizeof edge->source, "lockfs:%d", (int)getpid());
    snprintf(settings, sizeof settings,
             "fsname=%s,subtype=lockfs,nosuid,nodev,noatime,default_permissions%s", edge->source,
             options->allow_other ? ",allow_other" : "");
    complaint[0] = '\0';
    fuse_set_log_func(note_complaint);
    edge->session = fuse_session_new(&args, &fuse_edge__ops, sizeof fuse_edge__ops, edge);
    edge->mounted =
        edge->session != NULL && fuse_session_mount(edge->session, edge->mount_point) == 0;
    fuse_set_log_func(NULL);
    fuse_opt_free_args(&args);
    if (!edge->mounted) {
        snprintf(message, message_size, "cannot mount on %s: %s", edge->mount_point,
                 complaint[0] != '\0' ? complaint : "see above");
        error = -EIO;
        goto fail;
    }
    bool alone;
    edge->mount_id = own_mount(edge, &alone);
    if (!alone) {
        error = -EBUSY;
        snprintf(message, message_size, "%s: another lockfsd has mounted there just now",
                 edge->mount_point);
        goto fail;
    }

    int fd = fuse_session_fd(edge->session);
    if (fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) == -1) {
        error = -errno;
        snprintf(message, message_size, "/dev/fuse: %s", strerror(errno));
        goto fail;
    }
    /* The same descriptor: the session goes on owning it. Without functions to splice with, libfuse
     * splices nothing. */
    error = fuse_session_custom_io(edge->session, &io, fd);
    if (error != 0) {
        snprintf(message, message_size, "%s", strerror(-error));
        goto fail;
    }
    return 0;

fail:
    close_session(edge);
    return error;
}

/* Of two daemons that mount at once the one whose mount lies above goes: nothing was served by it.
 */
static int own_mount(struct fuse_edge *edge, bool *ret_alone)
{
    struct mount_stack stack;

    *ret_alone = true;
    if (mounts_on(edge->mount_point, &stack) != 0)
        return NOBODY;
    for (size_t i = 0; i < stack.count; i++) {
        const struct mount_entry *entry = &stack.entries[i];
        if (strcmp(entry->source, edge->source) == 0)
            return entry->id;
        if (strcmp(entry->type, GUARD_LOCKFS_TYPE) == 0)
            *ret_alone = false;
    }
    *ret_alone = true;
    return NOBODY;
}

static int topmost_mount(const char *path)
{
    struct mount_stack stack;
    const struct mount_entry *top = mounts_on(path, &stack) == 0 ? mounts_top(&stack) : NULL;

    return top != NULL ? top->id : NOBODY;
}

static ssize_t read_request(int fd, void *buffer, size_t size, void *userdata)
{
    (void)userdata;
    return read(fd, buffer, size);
}

/* The first reply is the one to INIT: libfuse 3.14 knows this bit and does not pass it on, and
 * without it lookups in one directory wait for each other. */
static ssize_t write_reply(int fd, struct iovec *parts, int count, void *userdata)
{
    struct fuse_edge *edge = userdata;

    if (!edge->init_answered) {
        edge->init_answered = true;
        if (count == 2 && edge->parallel_dirops) {
            struct fuse_init_out *answer = parts[1].iov_base;
            assert(parts[1].iov_len >=
                   offsetof(struct fuse_init_out, flags) + sizeof answer->flags);
            answer->flags |= FUSE_PARALLEL_DIROPS;
        }
    }
    ssize_t written = writev(fd, parts, count);
    /* After the mount is gone nobody hears anything: no reason for libfuse to print each. */
    if (written == -1 && (errno == ENODEV || errno == ECONNABORTED || errno == EPERM))
        errno = ENOENT;
    return written;
}

/* Waits for the kernel's first request, and lets libfuse and op_init() answer it. The kernel holds
 * everything else back until then. */
static int agree(struct fuse_edge *edge, uint32_t timeout_ms, char *message, size_t message_size)
{
    struct pollfd pollfd = {.fd = fuse_session_fd(edge->session), .events = POLLIN};

    fuse_set_log_func(note_complaint);
    while (!edge->init_seen) {
        int ready = poll(&pollfd, 1, (int)timeout_ms);
        if (ready == -1 && errno == EINTR)
            continue;
        int size = ready == 1 ? receive(edge) : -ETIMEDOUT;
        if (size == -EAGAIN)
            continue;
        if (size < 0) {
            fuse_set_log_func(NULL);
            snprintf(message, message_size, "the kernel does not open the connection: %s",
                     strerror(-size));
            return size;
        }
        fuse_session_process_buf(edge->session, &edge->buffer);
    }
    fuse_set_log_func(NULL);
    if (edge->init_refused) {
        snprintf(message, message_size,
                 "this kernel would grant flock or fcntl locks locally, without asking lockfs: "
                 "refusing to serve");
        return -ENOSYS;
    }
    if (fuse_session_exited(edge->session)) {
        snprintf(message, message_size, "no agreement with the kernel: %s", complaint);
        return -EPROTO;
    }
    return 0;
}

/* Reads one request. Returns its size; -EAGAIN: there is none; -ENODEV: there will be none. */
static int receive(struct fuse_edge *edge)
{
    int size;

    do
        size = fuse_session_receive_buf(edge->session, &edge->buffer);
    while (size == -EINTR);
    return size == 0 ? -ENODEV : size;
}

/* The loop */

static void work_off(struct fuse_edge *edge);
static void unmount(struct fuse_edge *edge);

static void on_readable(uv_poll_t *readable, int status, int events)
{
    struct fuse_edge *edge = readable->data;
    unsigned requests = 0;
    int size = 0;

    (void)events;
    edge->working = true;
    work_off(edge);
    while (requests < TURN_REQUESTS && !edge->unmount_wanted) {
        size = receive(edge);
        if (size < 0)
            break;
        fuse_session_process_buf(edge->session, &edge->buffer);
        work_off(edge);
        requests++;
    }
    if (requests > 0 && !edge->unmount_wanted)
        edge->handler->turn_end(edge->context);
    edge->working = false;

    if (edge->unmount_wanted) {
        unmount(edge);
    } else if ((size < 0 && size != -EAGAIN) || status < 0) {
        uv_poll_stop(readable);
        edge->handler->gone(edge->context, size < 0 && size != -EAGAIN ? size : -ENODEV);
    }
}

void fuse_edge__deliver(struct fuse_edge *edge, struct node_event *event)
{
    assert(!edge->in_step);
    if (edge->unmount_wanted)
        return;
    edge->in_step = true;
    edge->handler->event(edge->context, event);
    edge->in_step = false;
}

/* Slots */

static void on_interrupt(fuse_req_t request, void *data);

static struct fuse_slot *take_slot(struct fuse_edge *edge)
{
    uint32_t index;

    if (edge->slots_free != NO_SLOT) {
        index = edge->slots_free;
        edge->slots_free = edge->slots[index].next;
    } else if (edge->slots_touched < edge->slots_max) {
        index = edge->slots_touched++;
    } else {
        return NULL;
    }
    edge->slots_used++;
    assert(edge->slots[index].state == FUSE_SLOT_FREE && !edge->slots[index].due);
    return &edge->slots[index];
}

static void free_slot(struct fuse_edge *edge, struct fuse_slot *slot)
{
    assert(slot->state != FUSE_SLOT_FREE);
    slot->state = FUSE_SLOT_FREE;
    slot->next = edge->slots_free;
    edge->slots_free = (uint32_t)(slot - edge->slots);
    edge->slots_used--;
}

void fuse_edge__submit(struct fuse_edge *edge, fuse_req_t request, struct node_event *event,
                       size_t size)
{
    const struct node_request *asked = &event->request;
    bool is_flock = asked->op == NODE_OP_FLOCK;
    bool is_fcntl = asked->op == NODE_OP_SETLK;
    bool waits = (is_flock && asked->flock.wait) || (is_fcntl && asked->fcntl.wait);
    /* What waits for others leaves room for what ends by itself: unlock, above all. */
    bool full = waits && edge->slots_used >= edge->slots_max - edge->slots_max / 16;
    struct fuse_slot *slot = full ? NULL : take_slot(edge);

    if (slot == NULL) {
        fuse_reply_err(request, ENOLCK);
        return;
    }
    slot->state = FUSE_SLOT_ASKED;
    slot->request = request;
    slot->inode = asked->inode;
    slot->handle = asked->handle;
    slot->size = (uint32_t)size;
    slot->op = (uint8_t)asked->op;
    slot->unlock = (is_flock && asked->flock.how == NODE_FLOCK_UNLOCK) ||
                   (is_fcntl && asked->fcntl.how == NODE_FLOCK_UNLOCK);
    slot->owner = is_fcntl ? asked->fcntl.owner : 0;
    slot->interrupted = false;
    event->request.slot = (uint32_t)(slot - edge->slots);
    fuse_edge__deliver(edge, event);

    if (slot->state == FUSE_SLOT_ASKED)
        fuse_req_interrupt_func(request, on_interrupt, slot);
}

static void queue_slot(struct fuse_edge *edge, struct fuse_slot *slot)
{
    uint32_t index = (uint32_t)(slot - edge->slots);

    if (slot->due)
        return;
    slot->due = true;
    slot->next_due = NO_SLOT;
    if (edge->due_head == NO_SLOT)
        edge->due_head = index;
    else
        edge->slots[edge->due_tail].next_due = index;
    edge->due_tail = index;
}

static void on_interrupt(fuse_req_t request, void *data)
{
    struct fuse_slot *slot = data;

    slot->interrupted = true;
    queue_slot(fuse_req_userdata(request), slot);
}

static void give_back(struct fuse_edge *edge, struct fuse_slot *slot);

static void work_off(struct fuse_edge *edge)
{
    while (edge->due_head != NO_SLOT && !edge->unmount_wanted) {
        struct fuse_slot *slot = &edge->slots[edge->due_head];

        edge->due_head = slot->next_due;
        slot->due = false;
        if (slot->state == FUSE_SLOT_ASKED) {
            struct node_event event = {.type = NODE_EVENT_INTERRUPT};

            event.interrupt.slot = (uint32_t)(slot - edge->slots);
            fuse_edge__deliver(edge, &event);
        } else if (slot->state == FUSE_SLOT_REFUSED) {
            give_back(edge, slot);
            free_slot(edge, slot);
        }
    }
}

/* The queue, where a step outside of our own callbacks has filled it. */
static void on_giving_back(uv_idle_t *giving_back)
{
    struct fuse_edge *edge = giving_back->data;

    uv_idle_stop(giving_back);
    edge->working = true;
    work_off(edge);
    if (!edge->unmount_wanted)
        edge->handler->turn_end(edge->context);
    edge->working = false;
    if (edge->unmount_wanted)
        unmount(edge);
}

static bool has_something_to_give_back(const struct fuse_slot *slot)
{
    switch (slot->op) {
    case NODE_OP_LOOKUP:
    case NODE_OP_MKDIR:
    case NODE_OP_LINK:
    case NODE_OP_SYMLINK:
    case NODE_OP_MKNOD:
    case NODE_OP_CREATE:
    case NODE_OP_OPEN:
    case NODE_OP_OPENDIR:
        return true;
    case NODE_OP_FLOCK:
    case NODE_OP_SETLK:
        return !slot->unlock;
    default:
        return false;
    }
}

/* As the kernel gives it back where it had the answer: first the handle, then the inode. */
static void give_back(struct fuse_edge *edge, struct fuse_slot *slot)
{
    struct node_event event;

    memset(&event, 0, sizeof event);
    event.type = NODE_EVENT_REQUEST;
    event.request.slot = NODE_NO_SLOT;
    event.request.inode = slot->inode;
    event.request.handle = slot->handle;
    switch (slot->op) {
    case NODE_OP_CREATE:
    case NODE_OP_OPEN:
        event.request.op = NODE_OP_RELEASE;
        fuse_edge__deliver(edge, &event);
        break;
    case NODE_OP_OPENDIR:
        event.request.op = NODE_OP_RELEASEDIR;
        fuse_edge__deliver(edge, &event);
        break;
    case NODE_OP_FLOCK:
        event.request.op = NODE_OP_FLOCK;
        event.request.flock.how = NODE_FLOCK_UNLOCK;
        fuse_edge__deliver(edge, &event);
        break;
    case NODE_OP_SETLK:
        event.request.op = NODE_OP_SETLK;
        event.request.fcntl.how = NODE_FLOCK_UNLOCK;
        event.request.fcntl.whole_file = true;
        event.request.fcntl.owner = slot->owner;
        fuse_edge__deliver(edge, &event);
        break;
    default:
        break;
    }
    if (slot->op == NODE_OP_OPEN || slot->op == NODE_OP_OPENDIR || slot->op == NODE_OP_FLOCK ||
        slot->op == NODE_OP_SETLK)
        return;
    event = (struct node_event){.type = NODE_EVENT_FORGET};
    event.forget.inode = slot->inode;
    event.forget.count = 1;
    fuse_edge__deliver(edge, &event);
}

/* Replies */

void fuse_edge_reply(struct fuse_edge *edge, const struct node_reply *reply)
{
    assert(reply->slot < edge->slots_touched);
    struct fuse_slot *slot = &edge->slots[reply->slot];
    assert(slot->state == FUSE_SLOT_ASKED);

    int error = fuse_edge__send(edge, slot, reply);
    slot->request = NULL;
    if (error == 0 || reply->type == NODE_REPLY_ERROR || !has_something_to_give_back(slot)) {
        free_slot(edge, slot);
        return;
    }
    slot->state = FUSE_SLOT_REFUSED;
    if (reply->type == NODE_REPLY_ENTRY || reply->type == NODE_REPLY_CREATED)
        slot->inode = reply->inode;
    if (reply->type == NODE_REPLY_OPENED || reply->type == NODE_REPLY_CREATED)
        slot->handle = reply->handle;
    queue_slot(edge, slot);
    if (!edge->working)
        uv_idle_start(&edge->giving_back, on_giving_back);
}

/* Polling */

static struct fuse_poller *poller_of(struct fuse_edge *edge, uint64_t handle)
{
    assert(fuse_edge__is_handle(edge, handle));
    return &edge->pollers[(uint32_t)handle];
}

void fuse_edge__set_poller(struct fuse_edge *edge, uint64_t handle,
                           struct fuse_pollhandle *pollhandle)
{
    struct fuse_poller *poller = poller_of(edge, handle);

    if (poller->pollhandle != NULL)
        fuse_pollhandle_destroy(poller->pollhandle);
    *poller = (struct fuse_poller){.handle = handle, .pollhandle = pollhandle};
}

/* The pollers ask again, and are told by NODE_OP_POLL. */
void fuse_edge_lost(struct fuse_edge *edge, uint64_t handle)
{
    struct fuse_poller *poller = poller_of(edge, handle);

    if (poller->pollhandle != NULL && poller->handle == handle)
        fuse_lowlevel_notify_poll(poller->pollhandle);
}

/* Unmounting */

static void take_mount_away(struct fuse_edge *edge);

void fuse_edge_unmount(struct fuse_edge *edge)
{
    if (edge == NULL)
        return;
    edge->unmount_wanted = true;
    if (!edge->working)
        unmount(edge);
}

static void unmount(struct fuse_edge *edge)
{
    uv_poll_stop(&edge->readable);
    uv_idle_stop(&edge->giving_back);
    take_mount_away(edge);
    for (uint32_t i = 0; i < edge->slots_touched; i++) {
        if (edge->slots[i].state == FUSE_SLOT_ASKED)
            fuse_reply_err(edge->slots[i].request, ECONNABORTED);
    }
    for (uint32_t i = 0; i <= edge->handles_max; i++) {
        if (edge->pollers[i].pollhandle != NULL)
            fuse_pollhandle_destroy(edge->pollers[i].pollhandle);
    }
    uv_close((uv_handle_t *)&edge->readable, on_closed);
    uv_close((uv_handle_t *)&edge->giving_back, on_closed);
    close_session(edge);
}

static void on_closed(uv_handle_t *handle)
{
    struct fuse_edge *edge = handle->data;

    if (--edge->handles_open == 0)
        deallocate(edge);
}

/* Only where it is still ours that lies on top. Without the privilege, libfuse's helper has to do
 * it. */
static void take_mount_away(struct fuse_edge *edge)
{
    if (!edge->mounted)
        return;
    if (edge->mount_id == NOBODY || topmost_mount(edge->mount_point) != edge->mount_id ||
        umount2(edge->mount_point, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
        edge->mounted = false;
}

/* Puts a pipe without a reader in the descriptor's place, which ends the connection. */
static bool break_descriptor(int fd)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) == -1)
        return false;
    close(ends[0]);
    int copy = dup3(ends[1], fd, O_CLOEXEC);
    close(ends[1]);
    return copy != -1;
}

/* fuse_session_unmount() unmounts whatever lies on the mount point, the guard for example, unless
 * the descriptor reports an error. It is called nevertheless, since it frees memory. */
static void close_session(struct fuse_edge *edge)
{
    if (edge->session == NULL)
        return;
    take_mount_away(edge);
    int fd = fuse_session_fd(edge->session);
    if (fd != -1 && (edge->mounted || break_descriptor(fd)))
        fuse_session_unmount(edge->session);
    fuse_session_destroy(edge->session);
    edge->session = NULL;
}
