/* What the files of the node share: its records, and who calls whom. */
#ifndef FS_NODE_INTERNAL_H
#define FS_NODE_INTERNAL_H

#include "codec.h"
#include "node.h"
#include "text.h"
#include "tree.h"

#include "../raft/raft.h"

enum handle_type {
    HANDLE_FILE = 1, /* may become a claim */
    HANDLE_CONTROL,
    HANDLE_DIRECTORY,
};

/* An open file. Its number is this incarnation's name for the owner of claims: never used again. */
struct handle {
    uint64_t number;
    enum handle_type type;
    uint32_t inode;        /* pinned */
    enum control control;  /* of HANDLE_CONTROL, and of .lockfs */
    uint32_t reader;       /* of HANDLE_CONTROL */
    bool closed;           /* by its caller, or its caller never got it */
    bool detached;         /* by its caller, but its claim lives until its process ends */
    bool may_claim;        /* who opened it had the right: it goes with the descriptor */
    bool lost;             /* a claim of it ended against its will: ESTALE from now on */
    bool unlinked;         /* its own process unlinked its claim: ESTALE, but no loss */
    uint64_t create_token; /* the claims that its callers know of; 0: none */
    uint64_t flock_token;
    struct list fcntl;         /* records of fcntl claims */
    enum release_mode release; /* of the claim by creating */
    uint32_t ttl_ms;           /* of the latest claim */
    uint64_t granted_ms;       /* BOOTTIME of the claim by creating */
    uint64_t token;            /* the largest since it last held nothing */
    uint32_t claims;           /* in the table */
    uint32_t waits;            /* in the table */
    uint32_t unlocks;          /* of these, UNLOCKs */
    uint32_t commands;         /* of it, not yet applied */
    struct process opener;
    struct process locker;  /* who asked last for flock */
    struct process on_loss; /* who wants the signal */
    int32_t on_loss_signal; /* 0: nobody */
    struct link in_inode;   /* in the claimants of its lock's inode */
};

/* An fcntl claim that callers know of, through a handle but owned by whom the kernel names. */
struct fcntl_record {
    uint64_t token;
    uint64_t owner;
    uint64_t handle;
    uint32_t inode;
    bool unlocking; /* an UNLOCK of it is under way */
    struct chain by_owner;
    struct link in_handle;
};

/* A delay of the table, timed by this node. */
struct timed_delay {
    uint64_t id;
    uint64_t deadline_ms;
    struct link links;
};

/* Reads a control file in pieces. */
struct reader {
    uint64_t offset; /* where the next byte of `line` belongs */
    uint64_t key;    /* of the last line rendered */
    size_t line_len;
    size_t line_used;
    bool started;
    bool ended;
    char line[2048];
};

enum request_state {
    REQUEST_FREE = 0,
    REQUEST_COMMAND, /* its command is not yet applied */
    REQUEST_WAITING, /* its claim waits in the queue */
};

struct request {
    enum request_state state;
    enum node_op op;
    uint64_t seq;
    uint64_t deadline_ms; /* 0: none */
    uint64_t inode;
    uint64_t handle;
    uint64_t number; /* WRITE: the bytes; locks: an enum node_flock */
    uint64_t owner;  /* of an fcntl request */
    uint32_t uid;
    bool wait;
    struct process process;
    uint64_t parent; /* MKDIR: the lock that it is made in, for its CANCEL */
    uint32_t name;   /* MKDIR: chunks of the tree */
    uint32_t name_len;
    struct chain by_seq;
    struct link in_deadlines;
};

/* An entry from its proposal to its application. */
struct pending {
    uint32_t chunks;
    uint32_t len;
    enum raft_entry_type entry_type;
    uint32_t growth; /* of a snapshot by it, at most */
};

/* A process of an earlier incarnation of this daemon that had a claim when that ended. */
struct lost_process {
    uint64_t lock;
    uint64_t token;
    struct process process;
    struct chain by_lock;
    struct chain by_pid;
};

struct node {
    struct node_limits limits;
    struct node_config config;
    struct raft *raft;
    struct lock_table *table;
    struct tree tree;
    struct slab handles;
    struct slab readers;
    struct slab requests; /* slots are the caller's, plus one */
    struct index requests_by_seq;
    struct list deadlines;
    struct slab lost_processes;
    struct index lost_by_lock;
    struct index lost_by_pid;
    struct slab fcntl_records;
    struct index fcntl_by_owner;
    struct slab delays;
    struct list delays_timed;
    bool lost_overflow; /* more of them than could be kept */

    /* Entries proposed and not yet applied. */
    struct pending *pending; /* a ring by index */
    struct slab pending_chunks;
    uint64_t pending_last;   /* index of the newest */
    uint64_t pending_growth; /* of all of them */
    uint64_t recovered_last; /* what is up to here comes by REPLAYED */
    uint64_t commit;
    uint64_t applied;
    bool replaying;

    uint64_t incarnation;
    uint64_t seq;        /* of the last command proposed */
    uint32_t generation; /* of handles */
    uint32_t handles_open;
    bool leader;
    bool ready;
    bool stalled; /* a request timed out, and nothing was committed since */
    bool full;    /* the disk has no room for new work */
    bool draining;
    bool drained;
    bool failed;
    uint32_t claims_held;    /* of this node, in the table */
    uint32_t fcntl_requests; /* under way */
    uint32_t acquires;       /* requests that may become a claim: proposed or waiting */
    uint64_t timer_at_ms;

    /* Of the step under way. */
    uint64_t now_ms;
    int64_t wall_ms;
    uint64_t log_room;
    uint64_t snapshot_room;
    node_sink *sink;
    void *context;
    const struct command *applying;
    struct process ender; /* whose UNLINK or FORCE is being applied; pid 0: unknown */

    char encoded[LIMIT_COMMAND_BYTES];
    struct codec_storage storage;
    /* What a reply points to. */
    char *data;                  /* NODE_DATA_BYTES */
    struct node_dirent *dirents; /* LIMIT_DIRENTS */
    char (*dirent_names)[LIMIT_NAME_BYTES];
};

enum { NODE_DATA_BYTES = 64 << 10 };

/* For how long the kernel may trust the name of a lock, and the attributes in a CREATE reply. */
enum {
    NODE_LOCK_ENTRY_VALID_MS = 1000,
    NODE_CREATE_ATTR_VALID_MS = 10,
};

static inline void node__emit(struct node *node, const struct node_action *action)
{
    node->sink(node->context, action);
}

static inline struct handle *node__handle_at(const struct node *node, uint32_t slot)
{
    return slab_at(&node->handles, slot);
}

static inline struct request *node__request_at(const struct node *node, uint32_t slot)
{
    return slab_at(&node->requests, slot + 1);
}

/* Whose number a process reads from `token`. */
static inline bool node__same_process(const struct process *a, const struct process *b)
{
    return a->pid && a->pid == b->pid && a->start == b->start;
}

/* node_log.c: between the node and the log. */
void node__raft(struct node *node, const struct raft_event *event);
/* Proposes a command; fills in who says so. `gives_back`: it may use the reserve. Returns 0 with
 * its seq in the command, or ENOLCK, ENOSPC, ETIMEDOUT, negative. */
int node__propose(struct node *node, struct command *command, bool gives_back);
void node__replayed(struct node *node, const struct node_event *event);
void node__fail(struct node *node, const char *reason);

/* node_requests.c: requests that wait for their command. */
/* The slot of the request whose command has this number, NODE_NO_SLOT where nobody waits for it. */
uint32_t node__request_slot(const struct node *node, uint64_t seq);
void node__reply(struct node *node, const struct node_reply *reply);
void node__reply_error(struct node *node, uint32_t slot, int error);
void node__reply_done(struct node *node, uint32_t slot);
/* Proposes the request's command; answers an error at once. Returns the request, or NULL. */
struct request *node__submit(struct node *node, const struct node_request *from,
                             struct command *command, uint64_t handle, bool gives_back);
void node__finish(struct node *node, uint32_t slot);
void node__applied(struct node *node, const struct command *command,
                   const struct command_result *result);
void node__effect(void *context, const struct effect *effect);
void node__interrupt(struct node *node, uint32_t slot);
void node__timer(struct node *node);
void node__drain(struct node *node);
void node__check_drained(struct node *node);
/* Times the delays that the table has, or a new one. */
void node__time_delays(struct node *node, uint64_t after);

/* node_claims.c: what open files hold, from the grant to the end. */
struct handle *node__handle(const struct node *node, uint64_t number);
/* NULL where there is no room. Pins the inode. */
struct handle *node__handle_open(struct node *node, enum handle_type type, uint32_t inode,
                                 const struct process *opener);
/* Nobody got it, or its request was given up: it goes when its commands are applied. */
void node__handle_abandon(struct node *node, struct handle *handle);
/* The caller has it no more: gives back what it holds. */
void node__handle_close(struct node *node, struct handle *handle);
void node__handle_drop_unused(struct node *node, struct handle *handle);
bool node__handle_holds(const struct handle *handle);
/* The table has granted a claim; `known`: its caller learns of it. */
void node__handle_granted(struct node *node, struct handle *handle, const struct effect *claim,
                          bool known);
void node__handle_ended(struct node *node, struct handle *handle, const struct effect *effect);
/* A process closed a file: the fcntl claims that `owner` has on it end (POSIX). */
void node__flush(struct node *node, const struct node_request *request);
/* The fcntl claim of an owner on an inode, NULL where its callers know of none. */
struct fcntl_record *node__fcntl(const struct node *node, uint32_t inode, uint64_t owner);
void node__process_ended(struct node *node, const struct process *process);
/* Whether nobody who holds nothing here can get it now, as far as this node's callers can tell:
 * then a request that does not wait is refused without a command. */
bool node__is_taken(const struct node *node, uint64_t lock, struct span name, enum claim_mode mode);
/* Proposes a request for a claim once more, behind the CANCEL of what it found held. */
void node__ask_again(struct node *node, uint32_t slot);
/* The path of a file below the mount point, for people; in node->data. */
struct span node__path(struct node *node, uint64_t lock, struct span name);

/* node_handles.c: what callers ask of open files. */
void node__create(struct node *node, const struct node_request *request);
void node__create_applied(struct node *node, uint32_t slot, int error);
void node__open(struct node *node, const struct node_request *request);
void node__read(struct node *node, const struct node_request *request);
void node__write(struct node *node, const struct node_request *request);
/* Whose claim a handle's writes go to: its own, or the one that lives until its process ends, which
 * this node has on the name (DESIGN A2). 0: nobody's. */
uint64_t node__writes_for(const struct node *node, const struct handle *handle);
void node__release(struct node *node, const struct node_request *request);
void node__flock(struct node *node, const struct node_request *request);
void node__setlk(struct node *node, const struct node_request *request);
void node__getlk(struct node *node, const struct node_request *request);
void node__ioctl(struct node *node, const struct node_request *request);
void node__poll(struct node *node, const struct node_request *request);

/* node_names.c: names and attributes. */
void node__lookup(struct node *node, const struct node_request *request);
void node__getattr(struct node *node, const struct node_request *request);
void node__setattr(struct node *node, const struct node_request *request);
void node__mkdir(struct node *node, const struct node_request *request);
void node__rmdir(struct node *node, const struct node_request *request);
void node__unlink(struct node *node, const struct node_request *request);
void node__rename(struct node *node, const struct node_request *request);
void node__make_other(struct node *node, const struct node_request *request);
void node__readdir(struct node *node, const struct node_request *request);
void node__statfs(struct node *node, const struct node_request *request);
/* The attributes of an inode number; ESTALE where what it stood for is gone. */
int node__attr(const struct node *node, uint64_t number, struct node_attr *ret_attr);
/* A file as this node's callers see it: claims that this node has given back are gone already. */
bool node__visible_file(const struct node *node, uint64_t lock, struct span name,
                        struct file_view *ret_view);
bool node__visible_claim(const struct node *node, const struct claim_view *view);
enum names_place node__place(uint64_t number);
void node__reply_attr(struct node *node, uint32_t slot, uint64_t number);
/* Replies with an entry, and counts the kernel's reference. */
void node__reply_entry(struct node *node, uint32_t slot, uint64_t number, uint32_t valid_ms);

/* control.c: the text of control files. */
void control__read(struct node *node, const struct node_request *request, struct handle *handle);
void control__write(struct node *node, const struct node_request *request, struct handle *handle);
uint32_t control__mode(enum control control, uint32_t lock_mode);
/* A process has lost a claim for which it has no handle. */
void control__lost_without_handle(struct node *node, uint64_t lock, uint64_t token,
                                  const struct process *process);
void control__lost_by_restart(struct node *node, const struct effect *effect);
void control__process_ended(struct node *node, const struct process *process);

#endif
