/* What fuse_edge.c and fuse_ops.c share. */
#ifndef FS_FUSE_INTERNAL_H
#define FS_FUSE_INTERNAL_H

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>

#include "fuse_edge.h"
#include "process.h"

enum {
    /* The kernel cuts writes and reads into pieces of this size. A write that is too long for a
     * claim's content must come in one piece, or its beginning would be written. */
    FUSE_EDGE_WRITE_BYTES = 128 << 10,
    /* The oldest protocol that is served, 7.31 (Linux 5.2). */
    FUSE_EDGE_PROTOCOL_MINOR = 31,
    /* Groups of a caller that are looked at. */
    FUSE_EDGE_GROUPS = 1024,
    /* Of one READDIR answer. */
    FUSE_EDGE_DIRENTS_BYTES = 32 << 10,
    /* A directory entry in such an answer, without and with the longest name. */
    FUSE_EDGE_DIRENT_BYTES = 24 + LIMIT_NAME_BYTES + 7,
};

static_assert((int)FUSE_EDGE_WRITE_BYTES > (int)LIMIT_CONTENT_BYTES, "EFBIG comes before any byte");
static_assert((int)FUSE_EDGE_DIRENTS_BYTES >= (int)LIMIT_DIRENTS * (int)FUSE_EDGE_DIRENT_BYTES,
              "what the node lists at once fits");

enum fuse_slot_state {
    FUSE_SLOT_FREE = 0,
    FUSE_SLOT_ASKED,   /* the node owes an answer */
    FUSE_SLOT_REFUSED, /* the answer reached nobody: it is to be given back */
};

/* A request that the node has, or had. */
struct fuse_slot {
    fuse_req_t request;
    uint64_t inode;
    uint64_t handle;
    uint32_t size;     /* READ, READDIR, GETXATTR, LISTXATTR: the bytes that were asked for */
    uint32_t next;     /* of the free ones */
    uint32_t next_due; /* of those that have an event due */
    uint8_t state;     /* enum fuse_slot_state */
    uint8_t op;        /* enum node_op */
    bool unlock;       /* FLOCK, SETLK */
    uint64_t owner;    /* SETLK */
    bool interrupted;  /* EINTR is an answer */
    bool due;
};

/* Who polls a handle. */
struct fuse_poller {
    uint64_t handle;
    struct fuse_pollhandle *pollhandle;
};

struct fuse_edge {
    const struct fuse_edge_handler *handler;
    void *context;

    struct fuse_session *session;
    struct fuse_buf buffer; /* the request that was read last */
    struct process_cache processes;
    gid_t groups[FUSE_EDGE_GROUPS];
    char *mount_point; /* its real path */
    char source[32];   /* what mountinfo names it by */
    int mount_id;      /* -1: unknown */
    bool mounted;

    bool init_seen;    /* the kernel's offer was read */
    bool init_refused; /* and is not enough */
    bool init_answered;
    bool parallel_dirops;

    uv_poll_t readable;
    uv_idle_t giving_back;
    int handles_open;
    bool working;        /* in the descriptor's callback, or in that of the queue */
    bool in_step;        /* in the handler's `event` */
    bool unmount_wanted; /* as soon as `working` ends */

    struct fuse_slot *slots;
    uint32_t slots_max;
    uint32_t slots_used;
    uint32_t slots_touched; /* those from here on were never used, and take no memory yet */
    uint32_t slots_free;    /* head of a list, UINT32_MAX: empty */
    uint32_t due_head;
    uint32_t due_tail;

    struct fuse_poller *pollers; /* by the low half of the handle */
    uint32_t handles_max;

    char dirents[FUSE_EDGE_DIRENTS_BYTES];
};

/* fuse_ops.c */

extern const struct fuse_lowlevel_ops fuse_edge__ops;

/* fuse_edge.c */

/* Hands an event to the owner. */
void fuse_edge__deliver(struct fuse_edge *edge, struct node_event *event);

/* Gives the request a slot and hands it to the owner. `size`: the bytes that the caller has room
 * for, where that matters. */
void fuse_edge__submit(struct fuse_edge *edge, fuse_req_t request, struct node_event *event,
                       size_t size);

/* Keeps the poll handle (NULL: none) in place of the handle's earlier one. */
void fuse_edge__set_poller(struct fuse_edge *edge, uint64_t handle,
                           struct fuse_pollhandle *pollhandle);

/* A handle as the node numbers them: its low half is an index. */
static inline bool fuse_edge__is_handle(const struct fuse_edge *edge, uint64_t handle)
{
    return handle != 0 && (uint32_t)handle <= edge->handles_max;
}

/* fuse_reply.c */

/* Sends the answer, after which the request is no more. Returns a negative errno where it reached
 * nobody. */
int fuse_edge__send(struct fuse_edge *edge, const struct fuse_slot *slot,
                    const struct node_reply *reply);

#endif
