/* What the files of the node share: its records, and who calls whom. */
#ifndef FS_NODE_INTERNAL_H
#define FS_NODE_INTERNAL_H

#include "codec.h"
#include "codec_peer.h"
#include "control_events.h"
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

/* A process with open files of a lock that hold something. Its number does not go back when one of
 * them is closed. */
struct process_number {
    uint64_t lock;
    uint64_t start;
    uint32_t pid;
    uint32_t handles; /* that hold */
    uint64_t token;   /* the largest of those that it has given back meanwhile */
    struct chain by_process;
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
    uint64_t key;    /* of the last line rendered; of `events`: the place of the next one */
    size_t line_len;
    size_t line_used;
    bool started;
    bool ended;
    bool pauses;    /* the rest comes with the next read */
    uint32_t steps; /* through `locks`, that this read may still take */
    char *line;     /* LIMIT_CONTROL_LINE_BYTES */
};

/* Why requests for a claim were refused. */
enum refusal {
    REFUSED_EEXIST,
    REFUSED_EWOULDBLOCK,
    REFUSED_ENOLCK,
    REFUSED_ENOSPC,
    REFUSED_ETIMEDOUT,
    REFUSED_EINTR,
    REFUSED_ESTALE,
    REFUSED_OTHER,
    REFUSAL_COUNT,
};

/* What has happened since the start. */
struct node_counts {
    /* To claims and waits of the whole table. */
    uint64_t grants[CLAIM_FCNTL + 1]; /* by kind */
    uint64_t releases;
    uint64_t lost_unlinked;
    uint64_t lost_forced;
    uint64_t lost_by_restart;
    uint64_t forces;
    uint64_t waits;
    uint64_t waits_granted;
    uint64_t waits_interrupted;
    uint64_t commands; /* applied */
    /* Here. */
    uint64_t refusals[REFUSAL_COUNT];
    uint64_t short_claims;
    uint64_t log_entries;
    uint64_t log_bytes;
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
    bool acquires; /* an error is a refusal; set before there is a command */
    struct process process;
    uint64_t parent; /* MKDIR: the lock that it is made in, for its CANCEL */
    uint32_t name;   /* MKDIR: chunks of the tree */
    uint32_t name_len;
    struct chain by_seq;
    struct link in_deadlines;
};

/* An entry until it is both applied and durable. */
struct pending {
    uint64_t term;
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
    struct slab process_numbers;
    struct index numbers_by_process;
    struct slab delays;
    struct list delays_timed;
    bool lost_overflow; /* more of them than could be kept */

    /* Entries proposed and not yet applied. */
    struct pending *pending; /* a ring by index */
    struct slab pending_chunks;
    uint64_t pending_first;  /* index of the oldest that is kept */
    uint64_t pending_last;   /* index of the newest */
    uint64_t pending_growth; /* of all of them */
    uint64_t recovered_last; /* what is up to here comes by REPLAYED */
    uint64_t commit;
    uint64_t applied;
    uint64_t replay_last;        /* what is asked for by REPLAY ends here; 0: nothing is */
    bool restoring;              /* between RESTORE and RESTORED */
    struct raft_member *members; /* that the snapshot says; RAFT_MEMBERS_MAX */
    size_t members_count;
    struct codec_peer_message *message;
    bool message_under_way; /* it is what the step is about */

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
    uint32_t forces;         /* under way */
    uint32_t acquires;       /* requests that may become a claim: proposed or waiting */
    uint64_t timer_at_ms;

    uint64_t applied_ms; /* BOOTTIME of the last entry */
    int64_t started_ms;  /* wall clock */
    struct node_counts counts;
    struct events events;
    char *reader_lines;

    /* Of the step under way. */
    uint64_t now_ms;
    int64_t wall_ms;
    uint64_t log_room;
    uint64_t snapshot_room;
    node_sink *sink;
    void *context;
    const struct command *applying;
    struct process ender; /* whose UNLINK or FORCE is being applied; pid 0: unknown */
    uint32_t ender_uid;

    char encoded[LIMIT_COMMAND_BYTES];
    struct codec_storage storage;
    /* What a reply points to. */
    char *data;                  /* NODE_DATA_BYTES */
    struct node_dirent *dirents; /* LIMIT_DIRENTS */
    char (*dirent_names)[LIMIT_NAME_BYTES];
};

/* As bits of a mode (DESIGN A4). */
enum node_right {
    NODE_RIGHT_TO_CLAIM = 2,
    NODE_RIGHT_TO_LOOK = 4,
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
void node__raft(struct node *node, struct raft_event *event);
/* Proposes a command; fills in who says so. `gives_back`: it may use the reserve. Returns 0 with
 * its seq in the command, or ENOLCK, ENOSPC, ETIMEDOUT, negative. */
int node__propose(struct node *node, struct command *command, bool gives_back);
/* The same; unless `hurried`, nobody waits until it is applied. */
int node__propose_when(struct node *node, struct command *command, bool gives_back, bool hurried);
void node__replayed(struct node *node, const struct node_event *event);
/* Entries that are durable and applied are on the disk, and kept no more. */
void node__forget_entries(struct node *node);
/* What is kept from entry `first` on is void. */
void node__drop_entries(struct node *node, uint64_t first);
/* Whether so many entries more find room. */
bool node__has_room_for(const struct node *node, size_t entries, uint64_t bytes);
void node__apply_committed(struct node *node);
void node__fail(struct node *node, const char *reason);

/* node_cluster.c: other nodes. */
enum raft_error node__init_raft(struct node *node, void *memory);
void node__recovered_snapshot(struct node *node, const struct node_event *event);
void node__recovered_entry(struct node *node, const struct node_event *event);
void node__message(struct node *node, struct span bytes);
void node__snapshot_durable(struct node *node, const struct node_event *event);
void node__restored(struct node *node);
void node__change(struct node *node, const struct node_event *event);
void node__send(struct node *node, const struct raft_action *action);
void node__reset_log(struct node *node, const struct raft_action *action);
void node__snapshot_chunk(struct node *node, const struct raft_action *action);
void node__restore_wanted(struct node *node, const struct raft_action *action);
/* Sets the timer to when the consensus core wants it, where that is sooner. */
void node__arm_for_raft(struct node *node);

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
void node__arm_timer(struct node *node, uint64_t at_ms);
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
/* Who asks for a claim through it. */
void node__handle_set_locker(struct node *node, struct handle *handle,
                             const struct process *process);
/* The largest number that a process has given back in a lock since it last held nothing there; 0
 * where it holds nothing now. */
uint64_t node__number_given_back(const struct node *node, uint64_t lock,
                                 const struct process *process);
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
/* Whether somebody waits for a claim on the file to end: in the table, or on the way there. A wrong
 * guess costs LIMIT_UNHURRIED_MS. */
bool node__is_awaited(const struct node *node, uint32_t inode);
/* Whether a request that waits will be queued, as far as can be told. The same guess. */
bool node__will_queue(const struct node *node, const struct command *acquire);
/* A request of this node that will wait for a claim was proposed (1), or applied (-1). */
void node__count_wait(struct node *node, uint32_t slot, int change);
/* Proposes a request for a claim once more, behind the CANCEL of what it found held. */
void node__ask_again(struct node *node, uint32_t slot);
/* Adds the path of a lock, from below the mount point, with a slash behind each name. */
void node__path_add(const struct node *node, uint64_t lock, struct text *path);
/* The path of a file below the mount point, for people; in node->data. */
struct span node__path(struct node *node, uint64_t lock, struct span name);

/* node_handles.c: what callers ask of open files. */
void node__create(struct node *node, const struct node_request *request);
void node__create_applied(struct node *node, uint32_t slot, int error);
void node__open(struct node *node, const struct node_request *request);
/* Whether the owner, group and mode of a lock give the caller a right to what is in it. */
bool node__may(const struct lock_view *lock, const struct node_request *request,
               enum node_right right);
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

/* node_xattr.c: what a claimed file tells about its claim. */
void node__getxattr(struct node *node, const struct node_request *request);
void node__listxattr(struct node *node, const struct node_request *request);

/* node_events.c: what is told in `.lockfs/events`, and counted. */
/* A command is about to be applied; is applied; has had an effect. */
void node__tell_command(struct node *node, const struct command *command);
void node__tell_result(struct node *node, const struct command *command,
                       const struct command_result *result);
void node__tell_effect(struct node *node, const struct effect *effect);
void node__count_refusal(struct node *node, int error);

/* control_lockfs.c: what is in `.lockfs`. */
/* Adds the line after `reader->key`, and moves the key on. False at the end. */
bool control__next_line(const struct node *node, enum control control, struct reader *reader,
                        struct text *line);
/* Reads `.lockfs/events`. Returns how many bytes. */
size_t control__read_events(const struct node *node, struct reader *reader, uint64_t offset,
                            char *buffer, size_t size);

/* control.c: the text of control files. */
/* A claim or a waiter as a line of `holders` and `waiters`. */
void control__add_person(const struct node *node, struct text *line, const struct claim_view *view);
void control__add_delay(const struct node *node, struct text *line, const struct delay_view *delay);
/* Whether the caller of a waiter is still there. */
bool control__visible_waiter(const struct node *node, const struct claim_view *view);
void control__read(struct node *node, const struct node_request *request, struct handle *handle);
void control__write(struct node *node, const struct node_request *request, struct handle *handle);
uint32_t control__mode(enum control control, uint32_t lock_mode);
/* The word for it. */
const char *control__claim_mode(enum claim_mode mode);
/* A process has lost a claim for which it has no handle. */
void control__lost_without_handle(struct node *node, uint64_t lock, uint64_t token,
                                  const struct process *process);
void control__lost_by_restart(struct node *node, const struct effect *effect);
void control__process_ended(struct node *node, const struct process *process);

#endif
