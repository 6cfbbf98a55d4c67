/*
 * The node: sessions of callers on one side, the log on the other, the lock table between. Pure:
 * events in, actions out, no clock, no I/O, no allocation after node_init().
 *
 * The road of one acquire: NODE_EVENT_REQUEST (CREATE, exclusive) -> raft proposes ->
 * NODE_ACTION_PERSIST_ENTRY -> the log on disk -> NODE_EVENT_PERSISTED -> raft commits -> the lock
 * table applies -> NODE_ACTION_REPLY.
 *
 * The caller's duties:
 *  1. node_size() bytes of zeroed memory, 16-byte aligned, kept in place.
 *  2. At start: where there is a snapshot, node_restore() for each record of it; then
 *     NODE_EVENT_RECOVERED_* for what the disk holds, NODE_EVENT_START, and then, as
 *     NODE_ACTION_REPLAY asks, NODE_EVENT_REPLAYED for each entry. The node is ready for requests
 * at NODE_ACTION_READY.
 *  3. Carry out actions when they are emitted, or keep copies: what they point to lives until the
 *     next step. Never call node_step() from within.
 *  4. Persist in the order of the actions (raft.h, duties 4 and 5).
 *  5. Every event carries the time, read after what caused it, and the room of log and snapshot.
 *  6. Write at once where a PERSIST action is `hurried`, and at NODE_ACTION_HURRY: all that was
 *     asked for so far. The rest goes with the next such write, or after LIMIT_UNHURRIED_MS.
 *  7. A request names a slot, which is the caller's until it is answered: one NODE_ACTION_REPLY for
 *     each, in the same step or a later one. An answer that did not reach anybody is given back: an
 *     entry by NODE_EVENT_FORGET, a handle by a RELEASE, a lock by an unlock.
 */
#ifndef FS_NODE_H
#define FS_NODE_H

#include "command.h"
#include "lock_table.h"

struct node;
struct raft_member; /* raft/raft.h */
struct raft_message;

/* Inode number of the mount's root, as FUSE has it. */
#define NODE_ROOT_INODE 1

struct node_limits {
    struct lock_table_limits table;
    uint32_t handles;
    uint32_t requests;
    uint32_t inodes;
    uint32_t pending_entries; /* a power of two */
    uint64_t pending_bytes;
};

extern const struct node_limits node_limits_default;

/* What the edges count, for `.lockfs/metrics`. */
struct node_edge_counts {
    uint64_t log_syncs; /* batches of the log that became durable, each by one fdatasync */
    uint64_t log_disk_bytes;
    uint64_t snapshots;
    uint64_t snapshots_failed;
};

struct node_config {
    uint64_t id;          /* of this node, not 0 */
    uint64_t incarnation; /* a number that no start of this node had before: random, not 0 */
    uint8_t boot_id[BOOT_ID_BYTES];
    uint32_t ttl_ms;
    uint32_t ttl_min_ms; /* that a lock may have */
    uint32_t op_timeout_ms;
    uint32_t uid; /* who runs the daemon: .lockfs is theirs */
    char version[32];
    /* The caller's, who keeps it up to date. NULL: nothing is counted. */
    const struct node_edge_counts *edge_counts;
    /* The configuration that the cluster begins with, copied; none: this node is the only voter, or
     * `joins` a cluster that there is. What a snapshot says counts instead. */
    const struct raft_member *members;
    size_t members_count;
    bool joins;
    uint32_t election_ms; /* 0: NODE_ELECTION_MS_DEFAULT; and so on */
    uint32_t heartbeat_ms;
    uint32_t max_drift_permille;
};

/* DESIGN D (Starting). */
enum {
    NODE_ELECTION_MS_DEFAULT = 500,
    NODE_HEARTBEAT_MS_DEFAULT = 100,
    NODE_MAX_DRIFT_PERMILLE_DEFAULT = 50,
};

/* What a caller may ask. Each names the fields of struct node_request that it uses, beside slot,
 * op and the caller's identity, and the reply that it gets beside NODE_REPLY_ERROR. */
enum node_op {
    NODE_OP_LOOKUP = 1,  /* inode, name -> ENTRY */
    NODE_OP_GETATTR,     /* inode -> ATTR */
    NODE_OP_SETATTR,     /* inode, handle (0: none), setattr -> ATTR */
    NODE_OP_MKDIR,       /* inode, name, mode -> ENTRY */
    NODE_OP_RMDIR,       /* inode, name -> DONE */
    NODE_OP_UNLINK,      /* inode, name -> DONE */
    NODE_OP_RENAME,      /* inode, name, rename -> DONE */
    NODE_OP_LINK,        /* inode (the new name's lock), name -> ENTRY */
    NODE_OP_SYMLINK,     /* inode, name -> ENTRY */
    NODE_OP_MKNOD,       /* inode, name -> ENTRY */
    NODE_OP_CREATE,      /* inode, name, mode, open -> CREATED */
    NODE_OP_OPEN,        /* inode, open -> OPENED */
    NODE_OP_READ,        /* inode, handle, read, ancestors -> DATA */
    NODE_OP_WRITE,       /* inode, handle, write -> WRITTEN */
    NODE_OP_FLUSH,       /* inode, handle, fcntl.owner -> DONE, in the same step */
    NODE_OP_FSYNC,       /* inode, handle -> DONE */
    NODE_OP_RELEASE,     /* inode, handle -> DONE, in the same step */
    NODE_OP_OPENDIR,     /* inode -> OPENED */
    NODE_OP_READDIR,     /* inode, handle, readdir -> DIRENTS */
    NODE_OP_RELEASEDIR,  /* inode, handle -> DONE */
    NODE_OP_GETXATTR,    /* inode, name -> DATA */
    NODE_OP_LISTXATTR,   /* inode -> DATA: names, each with a zero byte */
    NODE_OP_STATFS,      /* -> STATFS */
    NODE_OP_FLOCK,       /* inode, handle, flock -> DONE */
    NODE_OP_SETLK,       /* inode, handle, fcntl -> DONE */
    NODE_OP_GETLK,       /* inode, handle, fcntl -> LOCK */
    NODE_OP_IOC_TOKEN,   /* inode, handle -> NUMBER */
    NODE_OP_IOC_LEASE,   /* inode, handle -> NUMBER */
    NODE_OP_IOC_ON_LOSS, /* inode, handle, signal -> DONE */
    NODE_OP_IOC_FORCE,   /* inode, handle, force -> DONE */
    NODE_OP_POLL,        /* inode, handle -> NUMBER: 1 where the claim was lost, else 0 */
};

enum node_flock {
    NODE_FLOCK_SHARED = 1,
    NODE_FLOCK_EXCLUSIVE,
    NODE_FLOCK_UNLOCK,
};

enum node_setattr {
    NODE_SET_MODE = 1,
    NODE_SET_UID = 2,
    NODE_SET_GID = 4,
    NODE_SET_SIZE = 8,
    NODE_SET_TIMES = 16,
};

/* A slot that expects no answer: for what the caller gives back. */
#define NODE_NO_SLOT UINT32_MAX

struct node_request {
    uint32_t slot; /* below limits.requests, or NODE_NO_SLOT */
    enum node_op op;
    struct process process; /* the caller's process, not its thread */
    uint32_t uid;
    uint32_t gid;
    /* OPEN, FLOCK, SETLK, GETXATTR, LISTXATTR: the caller's groups beside `gid`, where
     * node_wants_groups(). */
    const uint32_t *groups;
    size_t groups_count;
    uint64_t inode;
    struct span name;
    uint64_t handle;
    uint32_t mode; /* permission bits, the umask applied */
    union {
        struct {
            uint32_t valid; /* enum node_setattr */
            uint32_t uid;
            uint32_t gid;
            uint64_t size;
        } setattr;
        struct {
            bool exclusive; /* CREATE: O_EXCL */
            bool write;
        } open;
        struct {
            uint64_t offset;
            uint32_t size;
            /* Where node_reads_token(): the caller's process, its parent, and so on. */
            const struct process *ancestors;
            size_t ancestors_count;
        } read;
        struct {
            uint64_t offset;
            bool append;
            struct span data;
        } write;
        struct {
            uint64_t offset; /* 0, or the `next` of the last entry taken */
        } readdir;
        struct {
            enum node_flock how;
            bool wait;
        } flock;
        struct {
            enum node_flock how;
            bool wait;
            bool whole_file; /* from the start to the end, wherever that will be */
            uint64_t owner;
        } fcntl;
        struct {
            int32_t number;
        } signal;
        struct {
            uint64_t token; /* 0: every claim on the file */
        } force;
        struct {
            uint64_t inode; /* the new name's lock */
            struct span name;
        } rename;
    };
};

enum node_event_type {
    NODE_EVENT_RECOVERED_STATE = 1,
    NODE_EVENT_RECOVERED_SNAPSHOT, /* all of it was restored; before any entry */
    NODE_EVENT_RECOVERED_ENTRY,
    NODE_EVENT_START,
    NODE_EVENT_REPLAYED,
    NODE_EVENT_PERSISTED,
    NODE_EVENT_PERSIST_FAILED,
    NODE_EVENT_COMPACTED, /* a snapshot up to an index is durable: entries up to it may be gone */
    NODE_EVENT_MESSAGE,   /* from another node: what NODE_ACTION_SEND has there become */
    /* The turn of the loop is over: send what is due. Wanted while node_wants_turn_end(). */
    NODE_EVENT_TURN_END,
    /* The snapshot of NODE_ACTION_SNAPSHOT_CHUNK is whole, sound, and durable in place of any older
     * one; or it is no good. */
    NODE_EVENT_SNAPSHOT_DURABLE,
    NODE_EVENT_SNAPSHOT_REFUSED,
    NODE_EVENT_RESTORED, /* what NODE_ACTION_RESTORE asked for is done */
    NODE_EVENT_CHANGE,   /* of the configuration; nothing comes of it where it cannot be made */
    NODE_EVENT_TRANSFER, /* of leadership, likewise */
    NODE_EVENT_REQUEST,
    NODE_EVENT_INTERRUPT, /* the caller of a slot wants no answer any more; void when answered */
    NODE_EVENT_FORGET,    /* the kernel drops `count` references to an inode */
    NODE_EVENT_PROCESS_ENDED,
    NODE_EVENT_TIMER, /* the time of the latest NODE_ACTION_TIMER has come */
    NODE_EVENT_DRAIN, /* SIGTERM: take no more claims, end the waits, say when no claim is left */
};

struct node_event {
    enum node_event_type type;
    uint64_t now_ms;        /* CLOCK_BOOTTIME */
    int64_t wall_ms;        /* CLOCK_REALTIME, for display */
    uint64_t log_room;      /* wal_room() */
    uint64_t snapshot_room; /* snapshot_writer_room() */
    union {
        struct {
            uint64_t term;
            uint64_t vote;
        } recovered_state;
        struct {
            uint64_t index;
            uint64_t term;
        } recovered_snapshot;
        struct {
            uint64_t index;
            uint64_t term;
            uint32_t entry_type;
            struct span data;
        } recovered_entry;
        struct {
            uint64_t index;
            uint32_t entry_type;
            struct span data;
        } replayed;
        struct {
            uint64_t write;
        } persisted;
        struct {
            uint64_t index;
        } compacted;
        struct span message;
        struct {
            uint64_t index;
            uint64_t term;
            const struct raft_member *members; /* node_read_members() */
            size_t members_count;
        } snapshot_durable;
        struct {
            uint32_t type; /* enum raft_change_type */
            uint64_t id;
        } change;
        struct {
            uint64_t to;
        } transfer;
        struct node_request request;
        struct {
            uint32_t slot;
        } interrupt;
        struct {
            uint64_t inode;
            uint64_t count;
        } forget;
        struct process process_ended;
    };
};

enum node_file_type {
    NODE_FILE = 1,
    NODE_DIRECTORY,
};

struct node_attr {
    uint64_t
        ino; /* as stat(2) shows it: equal on all nodes, other than the inode of the protocol */
    enum node_file_type type;
    uint32_t mode; /* permission bits */
    uint32_t uid;
    uint32_t gid;
    uint32_t nlink;
    uint64_t size;
    int64_t mtime_ms;
    int64_t ctime_ms;
};

struct node_dirent {
    struct span name;
    uint64_t ino;
    enum node_file_type type;
    uint64_t next; /* the offset that continues behind this entry */
};

enum node_reply_type {
    NODE_REPLY_ERROR = 1, /* error: a negative errno */
    NODE_REPLY_DONE,
    NODE_REPLY_ENTRY,   /* inode (one reference more), attr, valid times */
    NODE_REPLY_ATTR,    /* attr, valid times */
    NODE_REPLY_OPENED,  /* handle */
    NODE_REPLY_CREATED, /* as ENTRY and OPENED; no_flush */
    NODE_REPLY_DATA,    /* data */
    NODE_REPLY_WRITTEN, /* number: bytes */
    NODE_REPLY_DIRENTS, /* dirents, dirents_count: 0 at the end */
    NODE_REPLY_STATFS,  /* statfs */
    NODE_REPLY_NUMBER,  /* number */
    NODE_REPLY_LOCK,    /* number: an enum node_flock, UNLOCK: nothing is in the way; pid */
};

struct node_statfs {
    uint64_t blocks; /* of 4096 bytes: all contents together */
    uint64_t blocks_free;
    uint64_t files;
    uint64_t files_free;
};

struct node_reply {
    uint32_t slot;
    enum node_reply_type type;
    int error;
    uint64_t inode;
    uint64_t handle;
    uint64_t number;
    uint32_t pid;            /* 0: of another node */
    bool no_flush;           /* nobody needs FLUSH on this handle */
    bool no_seek;            /* it is read from its start to its end */
    uint32_t entry_valid_ms; /* for which the kernel may trust the name */
    uint32_t attr_valid_ms;  /* for which the kernel may trust the attributes */
    struct node_attr attr;
    struct span data;
    const struct node_dirent *dirents;
    size_t dirents_count;
    struct node_statfs statfs;
};

/* What an operator is told. */
enum node_notice_type {
    NODE_NOTICE_UNLINKED = 1,    /* `process` unlinked the claim that `holder` still has open */
    NODE_NOTICE_DIRECTORY_LOCK,  /* a directory was opened as if to flock it */
    NODE_NOTICE_LOST_BY_RESTART, /* a claim of the last incarnation, its process lives */
    NODE_NOTICE_STALLED,         /* no commit within the operation timeout */
    NODE_NOTICE_LOG_FULL,        /* no room on the disk: new work is refused */
    NODE_NOTICE_FORCED,          /* `process` revoked the claim of `holder` */
    NODE_NOTICE_SHORT_CLAIM,     /* `process` closed a claim at once: wrong, if it still runs,
                                    and then the caller says node_short_claim() */
    NODE_NOTICE_NOT_YET,         /* `process` asked for fcntl locks, which are not there yet */
};

struct node_notice {
    enum node_notice_type type;
    uint64_t token;
    struct process process;
    uint32_t uid; /* SHORT_CLAIM: of `process` */
    struct process holder;
    struct span path; /* below the mount point, without a leading slash */
};

enum node_action_type {
    NODE_ACTION_PERSIST_STATE = 1, /* always hurried */
    NODE_ACTION_PERSIST_ENTRY,
    NODE_ACTION_HURRY, /* somebody waits now for what was persisted without hurry */
    /* The log on disk begins anew behind an entry, and is empty. */
    NODE_ACTION_PERSIST_RESET,
    /* Send a message: its head (codec_encode_message()), and behind it, for an append, its entries
     * (node_copy_entry(), or from the disk), for a snapshot its bytes. */
    NODE_ACTION_SEND,
    /* Write these bytes of a snapshot at their offset, 0: of a new file. With the last ones, check
     * and sync it, and say what came of it. */
    NODE_ACTION_SNAPSHOT_CHUNK,
    /* After this step: node_begin_restore(), node_restore() for each record of the snapshot that
     * was said to be durable, then RESTORED. */
    NODE_ACTION_RESTORE,
    NODE_ACTION_REPLAY, /* read entries `first` to `last` back and hand them over as REPLAYED */
    NODE_ACTION_REPLY,
    NODE_ACTION_READY,  /* the node serves requests from now on */
    NODE_ACTION_LOST,   /* the claim of `handle` was lost: wake its pollers */
    NODE_ACTION_SIGNAL, /* send `number` to `process`, if it is still the same one */
    NODE_ACTION_TIMER,  /* send TIMER at `at_ms` (BOOTTIME); replaces the earlier one; 0: none */
    NODE_ACTION_WATCH,  /* send PROCESS_ENDED when `process` has ended, or if it has */
    NODE_ACTION_NOTICE,
    NODE_ACTION_DRAINED, /* after DRAIN: no claim of this node is left */
    NODE_ACTION_FAILED,  /* this node can do nothing any more: `reason`, a static text */
};

struct node_action {
    enum node_action_type type;
    union {
        struct {
            uint64_t write;
            uint64_t term;
            uint64_t vote;
        } persist_state;
        struct {
            uint64_t write;
            uint64_t index;
            uint64_t term;
            uint32_t entry_type;
            bool hurried; /* somebody waits for it */
            struct span data;
        } persist_entry;
        struct {
            uint64_t write;
            uint64_t index;
            uint64_t term;
        } persist_reset;
        struct {
            const struct raft_message *message;
        } send;
        struct {
            uint64_t index;
            uint64_t term;
            uint64_t offset;
            bool done;
            struct span data;
        } snapshot_chunk;
        struct {
            uint64_t first;
            uint64_t last;
        } replay;
        struct node_reply reply;
        struct {
            uint64_t handle;
        } lost;
        struct {
            struct process process;
            int32_t number;
        } signal;
        struct {
            uint64_t at_ms;
        } timer;
        struct process watch;
        struct node_notice notice;
        struct {
            const char *reason;
        } failed;
    };
};

typedef void node_sink(void *context, const struct node_action *action);

size_t node_size(const struct node_limits *limits);

/* The config is copied. Returns NULL where it makes no sense. */
struct node *node_init(void *memory, const struct node_limits *limits,
                       const struct node_config *config);

/* The one entry point. Actions are emitted to `sink`, in the order in which they must happen. */
void node_step(struct node *node, const struct node_event *event, node_sink *sink, void *context);

/* Whether TURN_END would send something. */
bool node_wants_turn_end(const struct node *node);

/* Copies an entry that is not yet both applied and durable here into `buffer`, which has
 * LIMIT_COMMAND_BYTES, and returns true; any other entry of the log is on the disk. */
bool node_copy_entry(const struct node *node, uint64_t index, char *buffer, size_t *ret_len,
                     uint64_t *ret_term, uint32_t *ret_type);

/* Whoever closed the claim of this SHORT_CLAIM notice goes on running: it is counted, and told in
 * `.lockfs/events`. May be called while the notice is emitted. */
void node_short_claim(struct node *node, const struct node_notice *notice);

/* Whether it hangs on the caller's groups if it may do what it asks for. */
bool node_wants_groups(const struct node *node, const struct node_request *request);

/* Whether a READ of this inode wants the caller's ancestors. Before such a READ, every process that
 * node_lost_process() names is looked at, and reported as PROCESS_ENDED where it lives no more. */
bool node_reads_token(const struct node *node, uint64_t inode);
bool node_lost_process(const struct node *node, uint64_t inode, size_t n,
                       struct process *ret_process);

/* All such processes of the node, one after another; `cursor` is 0 at first. The caller looks at
 * them once when the node is ready. */
bool node_next_lost_process(const struct node *node, uint32_t *cursor, struct process *ret_process);

/* Bytes of the log that must stay free for giving back what is held and under way. */
uint64_t node_log_reserve(const struct node *node);

/* Claims that this node's handles hold, as the applied state knows them. */
uint32_t node_claims_held(const struct node *node);

/* Snapshots: what the entries up to the applied one led to, as a sequence of records. */

/* The last entry that was applied, and its term; 0, 0 where there is none. */
void node_get_applied(const struct node *node, uint64_t *ret_index, uint64_t *ret_term);

/* Where a walk over the records is. All zeros at first. */
struct node_cursor {
    struct lock_table_cursor table;
    uint32_t part;
    uint32_t slot;
};

/* Encodes the next record into `buffer`, which has LIMIT_SNAPSHOT_RECORD_BYTES, and returns its
 * length, 0 at the end. No step between. It calls nothing that a child of fork() must not call. */
size_t node_save(const struct node *node, struct node_cursor *cursor, char *buffer);

/* The bytes that a snapshot takes as a file, at most, once all that is under way is applied. What
 * is new is refused before that exceeds snapshot_room; what gives back does not raise it. */
uint64_t node_snapshot_bytes(const struct node *node);

/* What a restoration has learnt. All zeros at first. */
struct node_restoring {
    struct lock_table_restoring table;
    bool has_node;
    bool same_boot;
    uint32_t lost_processes; /* that are to come */
};

/* Takes the next record into a node that nothing has happened to yet. False where it makes no
 * sense, or finds no room: the node is then of no more use. */
bool node_restore(struct node *node, struct node_restoring *restoring, struct span record);
/* Forgets the state of a node that runs, to make room for a snapshot's. */
void node_begin_restore(struct node *node);
/* The members of the configuration, where `record` is the one that has them: up to
 * RAFT_MEMBERS_MAX.
 */
bool node_read_members(struct span record, struct raft_member *ret_members, size_t *ret_count);
/* After the last one: whether nothing is missing. */
bool node_is_restored(const struct node *node, const struct node_restoring *restoring);

const struct lock_table *node_table(const struct node *node);

#endif
