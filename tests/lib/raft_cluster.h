/*
 * Servers of the consensus core, each with a model of its disk, and the messages between them: for
 * tests that decide themselves what is delivered and what becomes durable, and when. What Raft
 * promises is checked at every action, from outside of the core:
 *
 *     a term has one leader, and it has every committed entry (thesis 3.4, 3.6.3)
 *     no two servers commit different entries at one index; a snapshot holds what was committed
 *     nothing leaves before the writes that it depends on are durable (3.8)
 *     a read sees all that was committed before it began (6.4)
 */
#ifndef TESTS_RAFT_CLUSTER_H
#define TESTS_RAFT_CLUSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raft/raft.h"

enum {
    CLUSTER_SERVERS_MAX = 9,
    CLUSTER_LOG_MAX = 8192,
    CLUSTER_WRITES_MAX = 4096,
    CLUSTER_QUEUE_MAX = 8192,
    CLUSTER_TERMS_MAX = 8192,
    CLUSTER_READS_MAX = 8192,
    CLUSTER_CHUNK_BYTES = 10,
    CLUSTER_ELECTION_MS = 1000,
    CLUSTER_HEARTBEAT_MS = 100,
    CLUSTER_DRIFT_PERMILLE = 50,
};

/* An entry, and a name that no other one ever had. */
struct cluster_entry {
    struct raft_entry raft;
    uint64_t name;
};

struct cluster_snapshot {
    uint64_t index; /* 0: none */
    uint64_t term;
    uint64_t name; /* of that entry */
    uint64_t bytes;
    struct raft_member members[RAFT_MEMBERS_MAX];
    size_t members_count;
};

struct cluster_message {
    struct raft_message raft;
    struct cluster_entry *entries; /* of an APPEND */
    struct cluster_snapshot snapshot;
};

struct cluster_write {
    enum raft_action_type type;
    uint64_t term; /* of a state */
    uint64_t vote;
    uint64_t first; /* of entries; of a reset: the index */
    uint64_t last;
    struct cluster_entry *entries;
};

struct cluster_log {
    uint64_t base; /* entries up to here are gone */
    uint64_t last;
    struct cluster_entry entries[CLUSTER_LOG_MAX];
};

struct cluster_server {
    uint64_t id;   /* 1 is called A */
    bool founding; /* it knows the cluster's first configuration */
    void *memory;
    struct raft *raft;
    bool started;
    bool cut; /* its messages are lost, both ways */
    uint64_t now_ms;
    struct cluster_log log; /* as written, durable or not */
    uint64_t commit;
    enum raft_role role;

    uint64_t issued;
    uint64_t reported;
    struct cluster_write writes[CLUSTER_WRITES_MAX]; /* by number, from 1 */

    uint64_t disk_term;
    uint64_t disk_vote;
    struct cluster_log disk;
    struct cluster_snapshot snapshot;

    struct cluster_snapshot incoming;
    uint64_t incoming_bytes;
    bool incoming_whole;

    uint64_t reads; /* the number of the last one */
    uint64_t read_floor[CLUSTER_READS_MAX];
    uint64_t reads_done;
};

struct cluster {
    size_t servers_count;
    struct cluster_server *servers[CLUSTER_SERVERS_MAX];
    struct raft_member members[CLUSTER_SERVERS_MAX];
    size_t members_count;
    uint32_t drift_permille;
    uint64_t seed;

    struct cluster_message *queue[CLUSTER_QUEUE_MAX];
    size_t queue_count;

    uint64_t names;
    uint64_t committed_last;
    struct cluster_entry committed[CLUSTER_LOG_MAX];
    uint64_t leaders[CLUSTER_TERMS_MAX]; /* by term */

    long violations;
    /* NULL, or told of every action after it was carried out; `message` of a SEND. */
    void (*watch)(void *context, const struct cluster_server *server,
                  const struct raft_action *action, const struct cluster_message *message);
    void *watch_context;
};

struct cluster *cluster_new(size_t voters, size_t joining);
void cluster_free(struct cluster *cluster);
/* A server that knows no configuration, or the first one; not started. */
struct cluster_server *cluster_add(struct cluster *cluster, bool founding);
struct cluster_server *cluster_server(struct cluster *cluster, uint64_t id);

/* One event at the server's time; its actions are carried out. */
enum raft_error cluster_step(struct cluster *cluster, struct cluster_server *server,
                             struct raft_event event);
enum raft_error cluster_start(struct cluster *cluster, struct cluster_server *server);
void cluster_turn_end(struct cluster *cluster, struct cluster_server *server);
/* A process ends, and another begins with what is durable; of the writes under way those up to
 * `kept` have reached the disk all the same. Not started. False where the core refuses the disk. */
bool cluster_restart(struct cluster *cluster, struct cluster_server *server, uint64_t kept);
/* Every write up to `write` is durable, and reported. */
enum raft_error cluster_persisted(struct cluster *cluster, struct cluster_server *server,
                                  uint64_t write);
/* A snapshot of the server's own making becomes durable, and entries up to `log_base` go. */
enum raft_error cluster_snapshot(struct cluster *cluster, struct cluster_server *server,
                                 uint64_t index, uint64_t log_base, uint64_t bytes);
/* The incoming snapshot that is whole becomes durable. */
enum raft_error cluster_installed(struct cluster *cluster, struct cluster_server *server);
enum raft_error cluster_read(struct cluster *cluster, struct cluster_server *server);

/* Takes a message out of the queue; it is the caller's then. */
struct cluster_message *cluster_take(struct cluster *cluster, size_t at);
/* Puts a copy of a message at the end of the queue. */
void cluster_put(struct cluster *cluster, const struct cluster_message *message);
void cluster_message_free(struct cluster_message *message);
/* Hands a message over; the caller still owns it. */
void cluster_deliver(struct cluster *cluster, const struct cluster_message *message);
/* Delivers, makes durable and ends turns until nothing is left to do at this time; not the disks of
 * servers that are cut. */
void cluster_settle(struct cluster *cluster);

#endif
