/* A node on a workbench: a log in memory, a clock that stands still, replies kept by slot. */
#ifndef TESTS_NODE_BENCH_H
#define TESTS_NODE_BENCH_H

#include "fs/node.h"

enum { BENCH_SLOTS = 64, BENCH_NOTICES = 16, BENCH_ENTRIES = 1 << 18 };

struct bench_entry {
    uint64_t term;
    uint32_t type;
    size_t len;
    char *data;
};

struct bench {
    struct node *node;
    void *memory;
    uint64_t incarnation;
    uint64_t now_ms;
    int64_t wall_ms;
    uint64_t log_room;
    uint64_t snapshot_room;
    /* The disk. */
    uint64_t term;
    uint64_t vote;
    struct bench_entry entries[BENCH_ENTRIES]; /* entry i has index i + 1 */
    size_t entries_count;
    size_t entries_durable;
    uint64_t write;   /* the last one asked for */
    uint64_t durable; /* the last one reported */
    bool hurry;       /* somebody waits for what was written; the test takes it back */
    bool auto_persist;
    uint64_t replay_first;
    uint64_t replay_last;
    /* What came out. */
    bool ready;
    bool drained;
    const char *failed;
    uint64_t timer_at_ms;
    bool answered[BENCH_SLOTS];
    struct node_reply replies[BENCH_SLOTS];
    char data[BENCH_SLOTS][8192]; /* of DATA, and the names of DIRENTS, each with a newline */
    uint64_t lost_handle;
    int signal_sent;
    struct process watched; /* the last one */
    enum node_notice_type notices[BENCH_NOTICES];
    size_t notices_count;
};

/* Small, so that limits are met. */
extern const struct node_limits bench_limits;

/* A fresh disk and a node that is ready. */
struct bench *bench_open(const struct node_limits *limits);
void bench_close(struct bench *bench);
/* The daemon dies, with what is not durable, and another one starts. */
void bench_restart(struct bench *bench, const struct node_limits *limits);

void bench_step(struct bench *bench, struct node_event *event);
/* Reports all that was written as durable. */
void bench_persist(struct bench *bench);
/* Reports what was written up to `write` (that of some moment) as durable, and no more. */
void bench_persist_until(struct bench *bench, uint64_t write);

/* A request in a slot, from process `pid` (its start time is its pid times ten). Returns the reply,
 * NULL while there is none. */
const struct node_reply *bench_request(struct bench *bench, struct node_request request,
                                       uint32_t slot, uint32_t pid);
const struct node_reply *bench_reply(const struct bench *bench, uint32_t slot);

/* Each gives 0 or a negative errno; -EINPROGRESS while there is no answer. Slot 0. */
int bench_lookup(struct bench *bench, uint64_t parent, const char *name, uint64_t *ret_inode);
int bench_mkdir(struct bench *bench, uint64_t parent, const char *name, uint64_t *ret_inode);
int bench_create(struct bench *bench, uint64_t parent, const char *name, bool exclusive,
                 uint32_t pid, uint64_t *ret_inode, uint64_t *ret_handle);
int bench_flock(struct bench *bench, uint32_t slot, uint64_t inode, uint64_t handle,
                enum node_flock how, bool wait, uint32_t pid);
int bench_named(struct bench *bench, enum node_op op, uint64_t parent, const char *name,
                uint32_t pid);
void bench_release(struct bench *bench, uint64_t inode, uint64_t handle);
int bench_write(struct bench *bench, uint64_t inode, uint64_t handle, const char *text);
/* The text of a control file of a lock, as `pid` reads it (its parent is `parent_pid`, 0: none);
 * "" at errors, which come back negative. */
int bench_control(struct bench *bench, uint64_t lock, const char *name, uint32_t pid,
                  uint32_t parent_pid, char *ret_text, size_t size);
/* ioctl: the number of a handle. */
int bench_token(struct bench *bench, uint64_t inode, uint64_t handle, uint64_t *ret_token);

#endif
