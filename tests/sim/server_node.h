/* What the files of the server that is a node share. */
#ifndef TESTS_SIM_SERVER_NODE_H
#define TESTS_SIM_SERVER_NODE_H

#include "node_kind.h"
#include "node_look.h"

/* An action, kept until it is carried out. */
struct kept_action {
    struct node_action action;
    struct message *message; /* of SEND */
    struct entry entry;      /* of PERSIST_ENTRY */
    uint64_t prev_term;
    char *data; /* of SNAPSHOT_CHUNK */
};

struct node_server {
    struct node *node; /* NULL: not running */
    void *memory;
    size_t size;
    struct kept_action *actions;
    size_t actions_count, actions_capacity;
    size_t next;
    uint64_t now_ms;
    uint64_t timer_at_ms; /* 0: none */
    bool failed;
    bool restoring;
    uint64_t restore_index;
    uint64_t replay_first, replay_last;
    bool answered_at_once;
    struct node_reply answer;

    struct entries log;
    struct machine machine;
    uint64_t commit;
    struct disk_write *lazy; /* writes that nobody waits for yet */
    size_t lazy_count, lazy_capacity;
    uint64_t lazy_until_ms;

    struct blob *snapshot; /* the one that the core knows of */
    bool making_snapshot;
    uint8_t *received;
    size_t received_bytes, received_capacity;
    uint64_t received_index;

    struct desk desk;
};

static inline struct node_server *node_kind_of(const struct server *server)
{
    return server->kind;
}

/* node_bytes.c */
/* An entry's data; `buffer` is for those that the simulator does not keep as bytes. */
struct span node_kind_entry_bytes(const struct sim *sim, const struct entry *entry,
                                  char buffer[CODEC_CHANGE_BYTES]);
/* False where they are no entry. */
bool node_kind_entry(struct sim *sim, uint64_t term, uint32_t type, struct span data,
                     struct entry *ret_entry);
struct message *node_kind_message(struct server *server, const struct raft_message *raft);
struct blob *node_kind_snapshot(struct server *server);
void node_kind_restore(struct server *server, const struct blob *blob);
/* As the node finds them in the records. */
void node_kind_members(const struct blob *blob, struct raft_member *ret_members, size_t *ret_count);
/* What the simulator knows of the state that was restored. */
void node_kind_restored(struct server *server, const struct blob *blob);

/* server_node_actions.c */
/* Keeps an action until it is carried out. */
void node_kind_sink(void *context, const struct node_action *action);
void node_kind_forget_actions(struct server *server);
/* Writes what nobody waited for. */
void node_kind_flush(struct server *server);
bool node_kind_carry_out(struct server *server);

/* server_node.c */
void node_kind_maybe_begin_snapshot(struct server *server);

#endif
