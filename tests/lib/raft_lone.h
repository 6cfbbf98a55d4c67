/*
 * One server of the core among others that exist only by their messages: the test writes those
 * itself, sound ones or not.
 */
#ifndef TESTS_RAFT_LONE_H
#define TESTS_RAFT_LONE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raft/internal.h"
#include "raft/raft.h"

enum {
    LONE_ELECTION_MS = 1000,
    LONE_HEARTBEAT_MS = 100,
    LONE_DRIFT_PERMILLE = 50,
};

struct lone {
    void *memory;
    struct raft *raft;
    struct raft_actions actions; /* of the last step */
    uint64_t now_ms;
    uint64_t issued; /* writes */
};

/* Server 1 of `members`. Not started. */
struct lone *lone_new(const struct raft_member *members, size_t count);
/* Server 1 of servers 1 to `count`, of which `voters` vote. */
struct lone *lone_new_of(size_t voters, size_t count);
void lone_free(struct lone *lone);
enum raft_error lone_step(struct lone *lone, struct raft_event event);
enum raft_error lone_start(struct lone *lone);
void lone_tick(struct lone *lone, uint64_t now_ms);
void lone_turn_end(struct lone *lone);
/* All writes are durable. */
void lone_persisted(struct lone *lone);
enum raft_error lone_propose(struct lone *lone, uint32_t count, uint32_t bytes);
enum raft_error lone_change(struct lone *lone, enum raft_change_type type, uint64_t id);
enum raft_error lone_read(struct lone *lone, uint64_t id);
/* A message, to server 1 in its term where that is not said. */
void lone_message(struct lone *lone, struct raft_message message);
void lone_append(struct lone *lone, struct raft_message message, const struct raft_entry *entries);
/* An answer to an append. */
void lone_reply(struct lone *lone, uint64_t from, uint64_t match, uint64_t round);
/* The voters elect it, and it is leader of the next term; nothing is committed yet. */
bool lone_lead(struct lone *lone);
/* The voters have all of its log, durable, and answer round `round`. */
void lone_all_match(struct lone *lone, uint64_t round);

/* What the last step said: an action of a type (NULL: none), and a message to somebody. */
const struct raft_action *lone_action(const struct lone *lone, enum raft_action_type type);
const struct raft_message *lone_sent(const struct lone *lone, enum raft_message_type type,
                                     uint64_t to);

#endif
