/*
 * The FUSE edge: the mount, its descriptor on the loop, requests translated to events of the node
 * and the node's answers to replies. It knows the kernel's habits and nothing of locks.
 */
#ifndef FS_FUSE_EDGE_H
#define FS_FUSE_EDGE_H

#include <uv.h>

#include "node.h"

struct fuse_edge;

struct fuse_edge_options {
    const char *mount_point;
    /* Other users may use the mount: needs root, or user_allow_other in fuse.conf. */
    bool allow_other;
    uint32_t requests_max;    /* node_limits.requests */
    uint32_t handles_max;     /* node_limits.handles; a handle's low 32 bits are at most this */
    uint32_t init_timeout_ms; /* for which the kernel's first request is waited for */
};

/* What the owner gives. Each is called from the loop, none from within another. Each may call
 * fuse_edge_unmount(). */
struct fuse_edge_handler {
    /* Fills in the event's now_ms, wall_ms and log_room, calls node_step(), and carries out the
     * actions. */
    void (*event)(void *context, struct node_event *event);
    /* The requests that lay ready were handed over: what they wrote may go to the disk. */
    void (*turn_end)(void *context);
    /* node_wants_groups(), node_reads_token(), node_lost_process(). */
    bool (*wants_groups)(void *context, const struct node_request *request);
    bool (*reads_token)(void *context, uint64_t inode);
    bool (*lost_process)(void *context, uint64_t inode, size_t n, struct process *ret_process);
    /* The mount was taken away from outside, or its connection broke (`error`, negative). No event
     * follows but what is given back. The owner still calls fuse_edge_unmount(). */
    void (*gone)(void *context, int error);
};

/* Mounts, and waits until the kernel has agreed on the protocol. Requests come from the loop's next
 * turn on. Returns 0 or a negative errno, and then `message` has a sentence for the user; -ENOSYS:
 * the kernel would keep locks to itself. */
int fuse_edge_mount(struct fuse_edge **ret_edge, uv_loop_t *loop,
                    const struct fuse_edge_options *options,
                    const struct fuse_edge_handler *handler, void *context, char *message,
                    size_t message_size);

/* Carries out NODE_ACTION_REPLY. From within `event`, or from any other step of the node. */
void fuse_edge_reply(struct fuse_edge *edge, const struct node_reply *reply);

/* Carries out NODE_ACTION_LOST. */
void fuse_edge_lost(struct fuse_edge *edge, uint64_t handle);

/* Takes the mount away, even while it is in use, and answers what is unanswered with ECONNABORTED.
 * Nothing of the edge may be called afterwards, and no handler is; from within a handler it happens
 * as soon as that has returned. The memory is freed in the loop's next turns. NULL is nothing. */
void fuse_edge_unmount(struct fuse_edge *edge);

#endif
